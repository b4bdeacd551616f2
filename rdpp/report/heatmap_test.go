package report

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"
	"testing"

	"rdpp/rdpp/imagefile"
)

// gray returns a picture of one grey level.
func gray(W, H int, level uint8) *imagefile.Image {
	img := &imagefile.Image{W: W, H: H, Pix: make([]uint8, 3*W*H)}
	for i := range img.Pix {
		img.Pix[i] = level
	}
	return img
}

func heatmap(t *testing.T, img *imagefile.Image, m []float32, H, W int, opt *HeatmapOptions) *image.RGBA {
	t.Helper()
	got, err := Heatmap(img, m, H, W, opt)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestInfernoEqualsMatplotlib(t *testing.T) {
	// Entries of matplotlib's table that lie between the stops, where interpolation errs most.
	for i, want := range map[int][3]int{
		0: {0, 0, 4}, 7: {0x03, 0x02, 0x10}, 52: {0x44, 0x0a, 0x68}, 128: {0xbc, 0x37, 0x54}, 200: {0xfb, 0x9d, 0x07}, 255: {0xfc, 0xff, 0xa4},
	} {
		got := [3]int{int(inferno[i].R), int(inferno[i].G), int(inferno[i].B)}
		for c := range got {
			if d := got[c] - want[c]; d < -1 || d > 1 {
				t.Errorf("entry %d: got %v, want %v within 1", i, got, want)
			}
		}
	}
}

func TestEnlarge(t *testing.T) {
	cases := []struct {
		name           string
		m              []float32
		H, W, toH, toW int
		y, x           int
		want           float32
	}{
		{"same size", []float32{1, 2, 3, 4}, 2, 2, 2, 2, 1, 0, 3},
		{"border is clamped", []float32{1, 2, 3, 4}, 2, 2, 4, 4, 0, 0, 1},
		{"a quarter of the way", []float32{1, 2, 3, 4}, 2, 2, 4, 4, 0, 1, 1.25},
		{"in both directions", []float32{1, 2, 3, 4}, 2, 2, 4, 4, 2, 1, 2.75},
		{"far corner", []float32{1, 2, 3, 4}, 2, 2, 4, 4, 3, 3, 4},
		{"shrinking", []float32{1, 2, 3, 4}, 1, 4, 1, 2, 0, 1, 3.5},
		{"one pixel", []float32{7}, 1, 1, 3, 5, 2, 4, 7},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := enlarge(c.m, c.H, c.W, c.toH, c.toW)[c.y*c.toW+c.x]; got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestHeatmapColours(t *testing.T) {
	m := []float32{-1, 0, 1, 2, 3, 9}
	img := gray(6, 1, 100)
	at := func(opt *HeatmapOptions, x int) color.RGBA { return heatmap(t, img, m, 1, 6, opt).RGBAAt(x, 0) }
	half := func(c color.RGBA) color.RGBA {
		return color.RGBA{uint8((100 + int(c.R)) / 2), uint8((100 + int(c.G)) / 2), uint8((100 + int(c.B)) / 2), 255}
	}
	cases := []struct {
		name string
		opt  *HeatmapOptions
		x    int
		want color.RGBA
	}{
		{"low end", &HeatmapOptions{Low: 0, High: 3, Opacity: 1}, 1, inferno[0]},
		{"below low", &HeatmapOptions{Low: 0, High: 3, Opacity: 1}, 0, inferno[0]},
		{"a third", &HeatmapOptions{Low: 0, High: 3, Opacity: 1}, 2, inferno[85]},
		{"above high", &HeatmapOptions{Low: 0, High: 3, Opacity: 1}, 5, inferno[255]},
		{"half opaque by default", &HeatmapOptions{Low: 0, High: 3}, 4, half(inferno[255])},
		{"own extremes by default, low", nil, 0, half(inferno[0])},
		{"own extremes by default, high", nil, 5, half(inferno[255])},
		{"a scale of no width", &HeatmapOptions{Low: 5, High: 5, Opacity: 1}, 5, inferno[0]},
		{"contour", &HeatmapOptions{Threshold: new(float32(2.5))}, 4, contourColour},
		{"threshold is exclusive", &HeatmapOptions{Threshold: new(float32(3)), Low: 0, High: 3, Opacity: 1}, 4, inferno[255]},
		{"contour above 0", &HeatmapOptions{Threshold: new(float32), Low: 0, High: 3, Opacity: 1}, 2, contourColour},
		{"none at 0", &HeatmapOptions{Threshold: new(float32), Low: 0, High: 3, Opacity: 1}, 1, inferno[0]},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := at(c.opt, c.x); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestContourIsClosedAndHollow(t *testing.T) {
	// A 4 x 4 square above the threshold, and a 2 x 3 one at the border.
	const side = 10
	m := make([]float32, side*side)
	for y := 2; y < 6; y++ {
		for x := 2; x < 6; x++ {
			m[y*side+x] = 1
		}
	}
	for y := 7; y < 10; y++ {
		m[y*side+8], m[y*side+9] = 1, 1
	}
	got := heatmap(t, gray(side, side, 50), m, side, side, &HeatmapOptions{Threshold: new(float32(0.5))})
	for y := range side {
		for x := range side {
			inner := y >= 3 && y < 5 && x >= 3 && x < 5
			want := m[y*side+x] > 0.5 && !inner
			if is := got.RGBAAt(x, y) == contourColour; is != want {
				t.Errorf("row %d, column %d: got contour %v, want %v", y, x, is, want)
			}
		}
	}
}

// Each region has a level of its own, and what is above the level of a distant one is in none.
func TestContourAtLevels(t *testing.T) {
	inf := math.Inf(1)
	m := []float32{9, 5, 1, 1, 1, 3, 2, 1}
	levels := []float64{6, inf, inf, inf, inf, 1.5, 1.5, inf}
	got := heatmap(t, gray(8, 1, 50), m, 1, 8, &HeatmapOptions{Levels: levels})
	for x, want := range []bool{true, false, false, false, false, true, true, false} {
		if is := got.RGBAAt(x, 0) == contourColour; is != want {
			t.Errorf("column %d: got contour %v, want %v", x, is, want)
		}
	}
	// Enlarged, a region reaches to where the map crosses its level, here in the middle between the first two pixels.
	wide := heatmap(t, gray(80, 8, 50), []float32{9, 3, 1, 1, 1, 1, 1, 1}, 1, 8, &HeatmapOptions{Levels: []float64{6, inf, inf, inf, inf, inf, inf, inf}})
	for x, want := range map[int]bool{9: true, 10: false, 20: false} {
		if is := wide.RGBAAt(x, 0) == contourColour; is != want {
			t.Errorf("enlarged, column %d: got contour %v, want %v", x, is, want)
		}
	}
}

// Colours end at one and a half times the threshold, or at the map's own peak where that is higher.
func TestOutlinedScale(t *testing.T) {
	for _, c := range []struct {
		threshold float64
		peak      float32
		high      float32
	}{{2, 1, 3}, {2, 3, 3}, {2, 8, 8}, {0, 8, 0}} {
		if got := Outlined(c.threshold, []float32{0, c.peak}, nil); got.High != c.high || got.Low != 0 || !got.Legend || *got.Threshold != float32(c.threshold) {
			t.Errorf("threshold %v, peak %v: got %+v, want colours to %v", c.threshold, c.peak, got, c.high)
		}
	}
}

func TestLegend(t *testing.T) {
	m := []float32{0, 1}
	count := func(picture *image.RGBA, from image.Rectangle, c color.RGBA) (n int) {
		for y := from.Min.Y; y < from.Max.Y; y++ {
			for x := from.Min.X; x < from.Max.X; x++ {
				if picture.RGBAAt(x, y) == c {
					n++
				}
			}
		}
		return n
	}
	white := color.RGBA{255, 255, 255, 255}
	quarter := float32(0.25)
	for _, c := range []struct {
		W, H      int
		threshold *float32
		height    int  // of the picture with its legend
		numbers   bool // whether the ends' numbers fit
		mark      bool // whether the threshold is on the scale, and fits
	}{
		{256, 20, nil, 20 + 21, true, false},
		{256, 20, new(float32), 20 + 37, true, true},
		{256, 20, &quarter, 20 + 37, true, true},
		{512, 20, &quarter, 20 + 37, true, true},
		{1024, 20, &quarter, 20 + 2*37, true, true},
		{40, 20, &quarter, 20 + 37, false, true},
		{1, 1, &quarter, 1 + 37, false, false},
		{3, 1, new(float32(7)), 1 + 37, false, false},
	} {
		got := heatmap(t, gray(c.W, c.H, 9), m, 1, 2, &HeatmapOptions{Threshold: c.threshold, Legend: true})
		if got.Rect != image.Rect(0, 0, c.W, c.height) {
			t.Errorf("%d x %d: got %v, want height %d", c.W, c.H, got.Rect, c.height)
		}
		legend := image.Rect(0, c.H, c.W, c.height)
		if n := count(got, legend, white); n > 0 != c.numbers {
			t.Errorf("%d x %d: got %d white pixels, want numbers %v", c.W, c.H, n, c.numbers)
		}
		if n := count(got, legend, contourColour); n > 0 != c.mark {
			t.Errorf("%d x %d: got %d pixels of the threshold, want any: %v", c.W, c.H, n, c.mark)
		}
		plain := heatmap(t, gray(c.W, c.H, 9), m, 1, 2, &HeatmapOptions{Threshold: c.threshold})
		if plain.Rect != image.Rect(0, 0, c.W, c.H) || !bytes.Equal(plain.Pix, got.Pix[:len(plain.Pix)]) {
			t.Errorf("%d x %d without a legend: got %v, want the same picture in its own size", c.W, c.H, plain.Rect)
		}
	}
	// The bar runs from the colour map's low end to its high end, with the threshold's mark a quarter of the way.
	got := heatmap(t, gray(256, 1, 9), m, 1, 2, &HeatmapOptions{Threshold: &quarter, Legend: true})
	var row []color.RGBA
	for x := range 256 {
		if c := got.RGBAAt(x, 1+6); c != legendColour && c != white {
			row = append(row, c)
		}
	}
	if row[0] != inferno[0] || row[len(row)-1] != inferno[255] {
		t.Errorf("ends of the bar: got %v and %v, want %v and %v", row[0], row[len(row)-1], inferno[0], inferno[255])
	}
	if mark := row[len(row)/4]; mark != contourColour {
		t.Errorf("a quarter along the bar: got %v, want %v", mark, contourColour)
	}
}

func TestHeatmapErrors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	good := gray(4, 3, 0)
	for name, c := range map[string]struct {
		img  *imagefile.Image
		m    []float32
		H, W int
		opt  *HeatmapOptions
	}{
		"map length":     {good, []float32{1, 2, 3}, 2, 2, nil},
		"empty map":      {good, nil, 0, 0, nil},
		"negative map":   {good, []float32{1}, -1, -1, nil},
		"no picture":     {nil, []float32{1}, 1, 1, nil},
		"empty picture":  {&imagefile.Image{}, []float32{1}, 1, 1, nil},
		"picture pixels": {&imagefile.Image{W: 2, H: 2, Pix: make([]uint8, 11)}, []float32{1}, 1, 1, nil},
		"NaN":            {good, []float32{nan}, 1, 1, nil},
		"infinity":       {good, []float32{inf}, 1, 1, nil},
		"low above high": {good, []float32{1}, 1, 1, &HeatmapOptions{Low: 2, High: 1}},
		"NaN high":       {good, []float32{1}, 1, 1, &HeatmapOptions{High: nan}},
		"opacity":        {good, []float32{1}, 1, 1, &HeatmapOptions{Opacity: 1.5}},
		"levels":         {good, []float32{1}, 1, 1, &HeatmapOptions{Levels: []float64{1, 1}}},
	} {
		if _, err := Heatmap(c.img, c.m, c.H, c.W, c.opt); !errors.Is(err, ErrInput) {
			t.Errorf("%s: got %v, want %v", name, err, ErrInput)
		}
	}
}

func ExampleHeatmap() {
	picture := &imagefile.Image{W: 320, H: 240, Pix: make([]uint8, 320*240*3)}
	anomaly := make([]float32, 64*64)
	anomaly[20*64+30] = 0.8
	overlay, err := Heatmap(picture, anomaly, 64, 64, &HeatmapOptions{Low: 0, High: 1, Threshold: new(float32(0.5))})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(overlay.Bounds())
	// Output: (0,0)-(320,240)
}

func BenchmarkHeatmap(b *testing.B) {
	const side = 1024
	img, m := gray(side, side, 100), make([]float32, 256*256)
	for i := range m {
		m[i] = float32(i % 256)
	}
	for range b.N {
		if _, err := Heatmap(img, m, 256, 256, &HeatmapOptions{Threshold: new(float32(100))}); err != nil {
			b.Fatal(err)
		}
	}
}
