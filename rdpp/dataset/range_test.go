package dataset

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/image/tiff"

	"rdpp/rdpp/imagefile"
)

func TestLookAt(t *testing.T) {
	stored := imagefile.Stored{Bits: 16, Max: 4031, Depth: 12}
	halves := func(w, h int) *imagefile.Image { // white above black
		img := &imagefile.Image{W: w, H: h, Pix: make([]uint8, 3*w*h), Stored: stored}
		for i := range 3 * w * (h / 2) {
			img.Pix[i] = 255
		}
		return img
	}
	red := &imagefile.Image{W: 1, H: 1, Pix: []uint8{255, 0, 0}}
	for _, c := range []struct {
		name string
		img  *imagefile.Image
		want Look
	}{
		{"one red pixel", red, Look{Brightness: 1.0 / 3, W: red.W, H: red.H}},
		{"small", halves(3, 2), Look{Stored: stored, Brightness: 0.5, W: 3, H: 2}},
		{"larger than what is looked at", halves(200, 1000), Look{Stored: stored, Brightness: 0.5, W: 200, H: 1000}},
		{"a row", halves(500, 1), Look{Stored: stored, W: 500, H: 1}},
	} {
		got := LookAt(c.img)
		got.Sharpness = 0 // which has a test of its own
		if got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestSharpness(t *testing.T) {
	const side = 600
	draw := func(value func(x, y int) float64) *imagefile.Image {
		img := &imagefile.Image{W: side, H: side, Pix: make([]uint8, 0, 3*side*side)}
		for y := range side {
			for x := range side {
				v := uint8(math.Round(value(x, y)))
				img.Pix = append(img.Pix, v, v, v)
			}
		}
		return img
	}
	chance := rand.New(rand.NewPCG(1, 2))
	noise := draw(func(int, int) float64 { return 60 + 100*chance.Float64() })
	checks := func(steep, light float64) *imagefile.Image {
		step := func(at int) float64 { return math.Tanh(steep * math.Sin(2*math.Pi*float64(at)/100)) }
		return draw(func(x, y int) float64 { return light * (128 + 100*step(x)*step(y)) })
	}
	sharp, blurred := LookAt(checks(20, 1)).Sharpness, LookAt(checks(2, 1)).Sharpness
	for _, c := range []struct {
		name       string
		got        float64
		least, top float64
	}{
		{"one colour", LookAt(draw(func(int, int) float64 { return 90 })).Sharpness, 0, 0},
		{"noise", LookAt(noise).Sharpness, 0.98, 1.02},
		{"ten times as steep", sharp / blurred, 2, 10},
		{"half the light", LookAt(checks(20, 0.5)).Sharpness / sharp, 0.98, 1.02},
		{"a pixel", LookAt(&imagefile.Image{W: 1, H: 1, Pix: []uint8{255, 0, 0}}).Sharpness, 0, 0},
	} {
		if !(c.got >= c.least && c.got <= c.top) {
			t.Errorf("%s: got %.4f, want %v to %v", c.name, c.got, c.least, c.top)
		}
	}
}

// TestLooks: of many images as many are told of as of 1,000, from the first to the last.
func TestLooks(t *testing.T) {
	cache := NewCache(CacheOptions{})
	var items []Item
	for i := range 2500 {
		path := fmt.Sprint(i)
		items = append(items, Item{Path: path})
		cache.entries[path] = &entry{look: Look{Brightness: float64(i), W: i, H: 7}}
	}
	few, many := cache.Looks(items[:3]), cache.Looks(items)
	if !slices.Equal(few.Brightness, []float64{0, 1, 2}) || !slices.Equal(few.Height, []int{7, 7, 7}) || len(few.Sharpness) != 3 {
		t.Errorf("3 images: got %+v", few)
	}
	if len(many.Width) != 1000 || many.Width[0] != 0 || many.Width[999] != 2497 || many.Width[500] != 1250 {
		t.Errorf("2500 images: got %d, from %d to %d", len(many.Width), many.Width[0], many.Width[len(many.Width)-1])
	}
	if both := few.Join(many); len(both.Width) != 1003 || both.Brightness[3] != 0 || len(few.Width) != 3 {
		t.Errorf("joined: got %d", len(both.Width))
	}
	if none := cache.Looks(nil); none.Width != nil {
		t.Errorf("of none: got %+v", none)
	}
}

func TestRangeBitDepth(t *testing.T) {
	for _, c := range []struct {
		largest, hint, want int
	}{
		{0, 0, 16}, {1, 0, 8}, {255, 0, 8}, {256, 0, 10}, {1023, 0, 10}, {1024, 0, 12}, {4031, 0, 12}, {4095, 0, 12}, {4096, 0, 14},
		{16383, 0, 14}, {16384, 0, 16}, {65535, 0, 16},
		{900, 12, 12}, {200, 9, 10}, {900, 15, 16}, {4096, 12, 14}, {65535, 12, 16}, {0, 12, 16},
	} {
		if got := (Range{Wide: 1, Largest: c.largest, Hint: c.hint}).BitDepth(); got != c.want {
			t.Errorf("largest %d, hint %d: got %d bits, want %d", c.largest, c.hint, got, c.want)
		}
	}
}

// writeDeep writes a picture of grey values in 16 bits, the first being the largest.
func writeDeep(t *testing.T, path string, w, h int, largest uint16) {
	t.Helper()
	m := image.NewGray16(image.Rect(0, 0, w, h))
	for i := range w * h {
		m.SetGray16(i%w, i/w, color.Gray16{Y: largest - uint16(i%7)*(largest/8)})
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if filepath.Ext(path) == ".tif" {
		err = tiff.Encode(f, m, nil)
	} else {
		err = png.Encode(f, m)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A cache finds the range over all images, and reads those of 16 bits again,
// whether or not it keeps them, by the bits that are used.
func TestCacheBitDepth(t *testing.T) {
	const S = 32
	for _, bound := range []int64{0, -1} {
		dir := t.TempDir()
		var items []Item
		for i, c := range []struct {
			w, h    int
			ext     string
			largest uint16
		}{{20, 30, "png", 3000}, {200, 100, "png", 4031}, {40, 40, "tif", 900}} {
			items = append(items, Item{Path: filepath.Join(dir, fmt.Sprintf("%d.%s", i, c.ext)), Type: GoodType})
			writeDeep(t, items[i].Path, c.w, c.h, c.largest)
		}
		eight := Item{Path: filepath.Join(dir, "8.png"), Type: GoodType}
		writeRGB(t, eight.Path, "8", 20, 20)
		items = append(items, eight)

		cache := NewCache(CacheOptions{Size: S, MaxBytes: bound})
		check := func(items []Item) {
			t.Helper()
			if _, _, err := Check(context.Background(), items, cache, 2, false); err != nil {
				t.Fatal(err)
			}
		}
		check(items)
		r := cache.Range(items)
		if r.Wide != 3 || r.Largest != 4031 || r.BitDepth() != 12 {
			t.Fatalf("got %+v, %d bits, want 3 images up to 4031, 12 bits", r, r.BitDepth())
		}
		used := cache.used
		cache.SetBitDepth(12)
		if want := int64(3 * 20 * 20); bound == 0 && cache.used != want {
			t.Errorf("forgotten: got %d bytes used, want %d", cache.used, want)
		}
		check(items[:3])
		if cache.used != used {
			t.Errorf("read again: got %d bytes used, want %d", cache.used, used)
		}
		for _, item := range items {
			img, err := imagefile.DecodeFile(item.Path, &imagefile.Options{BitDepth: 12})
			if err != nil {
				t.Fatal(err)
			}
			want, got := make([]float32, 3*S*S), make([]float32, 3*S*S)
			Resize(want, img, S)
			if err := cache.Planes(got, item.Path); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("bound %d, %s: planes differ from those of 12 bits", bound, item.Path)
			}
			if got, want := cache.Look(item.Path), LookAt(img); got != want {
				t.Errorf("%s: got %+v, want %+v", item.Path, got, want)
			}
		}
		if r := cache.Range(items[:1]); r.Largest != 3000 || r.Darkest != r.Brightest || r.Darkest < 0.3 {
			t.Errorf("of one image: got %+v", r)
		}
		if r := cache.Range(items); !(r.Darkest < 0.2 && r.Brightest > 0.5) {
			t.Errorf("got brightness %v to %v, want below 0.2 to above 0.5", r.Darkest, r.Brightest)
		}
	}
	if got := NewCache(CacheOptions{}).Look("none"); got != (Look{}) {
		t.Errorf("of an image that was not read: got %+v", got)
	}
}
