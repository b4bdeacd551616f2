package modelfile

import (
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/config"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/method"
	"rdpp/rdpp/patchcore"
	"rdpp/rdpp/tiling"
	"rdpp/torch"
)

// plainNet has as map how far the red of each pixel is from that of grey, 128, and as score the mean of its highest hundredth. It
// counts the images of its passes and what is on the heap in them.
type plainNet struct {
	method.Net
	size    int
	share   float64
	largest int
	peak    uint64
	passes  int
	watched bool
}

const grey = 128

func (n *plainNet) Predict(x *torch.Tensor) (maps, scores *torch.Tensor, err error) {
	values, err := torch.Read[float32](x)
	if err != nil {
		return nil, nil, err
	}
	if n.passes++; n.watched && n.passes%200 == 0 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		n.peak = max(n.peak, m.HeapAlloc)
	}
	area := n.size * n.size
	var planes, tops []float32
	for img := range slices.Chunk(values, 3*area) {
		for _, v := range img[:area] {
			planes = append(planes, float32(math.Abs(float64(v-grey/255.))))
		}
		tops = append(tops, float32(anomaly.Highest(planes[len(planes)-area:], int(n.share*float64(area)))))
	}
	B := int64(len(tops))
	n.largest = max(n.largest, int(B))
	if maps, err = torch.FromSlice(planes, B, int64(n.size), int64(n.size)); err == nil {
		scores, err = torch.FromSlice(tops, B)
	}
	return maps, scores, err
}

// plain is a model of such a net.
func plain(size, tile int, ofMap bool) (*Model, *plainNet) {
	net := &plainNet{size: size, share: 0.01}
	framer, err := framing.New(framing.View{}, size)
	if err != nil {
		panic(err) // of a size that a test has chosen
	}
	m := &Model{Net: net, Framer: framer}
	m.Info.Config = config.Default()
	c := &m.Info.Config
	c.ScoreTop = net.share
	if !ofMap {
		c.Method, c.PatchScore = patchcore.Name, patchcore.ScorePatch
	}
	c.ImageSize, c.Tile, c.Mean, c.Std = size, tile, [3]float32{}, [3]float32{1, 1, 1}
	if tile > 0 {
		c.TileStride = tiling.DefaultStride(tile)
	}
	return m, net
}

func greyImage(w, h int) *imagefile.Image {
	return &imagefile.Image{W: w, H: h, Pix: slices.Repeat([]uint8{grey}, 3*w*h)}
}

// square paints a white square.
func square(img *imagefile.Image, x0, y0, side int) *imagefile.Image {
	for y := y0; y < y0+side; y++ {
		for x := x0; x < x0+side; x++ {
			copy(img.Pix[3*(y*img.W+x):], []uint8{255, 255, 255})
		}
	}
	return img
}

func predicted(t *testing.T, m *Model, img *imagefile.Image) Outcome {
	t.Helper()
	view, err := m.View(img, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m.PredictViews([]View{view})[0]
}

func predict(t *testing.T, m *Model, img *imagefile.Image) Outcome {
	t.Helper()
	o := predicted(t, m, img)
	if o.Err != nil {
		t.Fatal(o.Err)
	}
	return o
}

// A defect scores alike in a picture of one tile and in a large one, wherever it lies, and its map is where it is.
func TestDefectInTiles(t *testing.T) {
	for _, ofMap := range []bool{true, false} {
		m, _ := plain(64, 128, ofMap)
		want := predict(t, m, square(greyImage(128, 128), 50, 50, 10))
		if want.W != 64 || want.H != 64 || !(want.Score > 0.1) {
			t.Fatalf("one tile: got a map of %d x %d and a score of %v", want.W, want.H, want.Score)
		}
		for _, c := range []struct{ w, h, x, y int }{{300, 200, 0, 0}, {300, 200, 90, 100}, {300, 200, 290, 190}, {1000, 700, 500, 350}} {
			got := predict(t, m, square(greyImage(c.w, c.h), c.x, c.y, 10))
			if math.Abs(got.Score-want.Score) > 0.02 {
				t.Errorf("of map %v, %+v: got a score of %v, want %v", ofMap, c, got.Score, want.Score)
			}
			at := 0
			for i, v := range got.Map {
				if v > got.Map[at] {
					at = i
				}
			}
			if x, y := 2*(at%got.W), 2*(at/got.W); x < c.x-2 || x > c.x+10 || y < c.y-2 || y > c.y+10 || got.W != c.w/2 || got.H != c.h/2 {
				t.Errorf("of map %v, %+v: got the highest value at %d, %d in a map of %d x %d", ofMap, c, x, y, got.W, got.H)
			}
		}
	}
}

// What lies beyond a picture that is smaller than a tile does not score; where it cannot be left out, the picture is refused.
func TestSmallerThanTile(t *testing.T) {
	img := greyImage(100, 300)
	for y := range 300 { // a bright column at the right edge, which the padding repeats
		copy(img.Pix[3*(y*100+99):], []uint8{255, 255, 255})
	}
	m, _ := plain(64, 128, true)
	got := predict(t, m, img)
	if got.W != 50 || got.H != 150 {
		t.Fatalf("got a map of %d x %d, want 50 x 150", got.W, got.H)
	}
	bright := 0
	for i, v := range got.Map {
		if v > 0.1 {
			bright++
			if i%50 < 48 {
				t.Fatalf("got %v in column %d", v, i%50)
			}
		}
	}
	if bright == 0 || bright > 300 {
		t.Errorf("got %d bright cells, want one or two a row", bright)
	}
	m, _ = plain(64, 128, false)
	if o := predicted(t, m, img); o.Err == nil || !strings.Contains(o.Err.Error(), "100 x 300 pixels is smaller than a tile of 128") {
		t.Errorf("got %v, want that it is refused", o.Err)
	}
}

// How many tiles go through the net at once changes no bit, and there are never more of them than a batch, nor more memory
// taken than the map and a batch do, however large the picture.
func TestTilesAreBounded(t *testing.T) {
	img := square(greyImage(3000, 2000), 1234, 567, 40)
	var want Outcome
	for i, batch := range []int{1, 5, 32} {
		m, net := plain(32, 32, true)
		net.watched = true
		m.Batch = batch
		var before runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		got := predict(t, m, img)
		if i == 0 {
			want = got
		}
		if !slices.Equal(got.Map, want.Map) || got.Score != want.Score {
			t.Errorf("batches of %d: got another outcome", batch)
		}
		grid, err := tiling.New(3000, 2000, m.Info.Config.Tiling())
		if err != nil {
			t.Fatal(err)
		}
		if net.largest > batch || net.passes != (grid.Len()+batch-1)/batch {
			t.Errorf("got %d passes of up to %d tiles, want %d of %d", net.passes, net.largest, (grid.Len()+batch-1)/batch, batch)
		}
		// The map in float32, rows in float64 as high as a tile, taps and the tiles of a few batches. All inputs at once
		// would take 100 MB.
		bound := before.HeapAlloc + uint64(4*len(got.Map)+8*3000*33+5000*200+4*batch*16*32*32+1<<20)
		if net.peak > bound {
			t.Errorf("batches of %d: got %d bytes on the heap, want at most %d", batch, net.peak, bound)
		}
	}
}

// Spots are found from the size on at which they fill enough of the highest hundredth of a map, which is smaller in tiles.
func TestMeasureSpots(t *testing.T) {
	for _, c := range []struct {
		tile, w, h  int
		low, high   int // between which the smallest is
		wantLargest int
	}{
		{0, 512, 512, 28, 42, 211}, // 8 pixels are one: of the 40 highest 16 have to be of the spot, which is 36 pixels wide
		{128, 512, 512, 6, 13, 63}, // 2 pixels are one
		{128, 100, 90, 6, 13, 42},
	} {
		m, _ := plain(64, c.tile, true)
		m.Info.Calibration.Threshold = 0.2 // a spot is 0.5 away from grey
		got, err := m.MeasureSpots(3, func(int) (*imagefile.Image, error) { return greyImage(c.w, c.h), nil })
		if err != nil || got.Smallest < c.low || got.Smallest > c.high || got.Largest != c.wantLargest || got.Width != c.w || got.Height != c.h {
			t.Errorf("%+v: got %+v, %v", c, got, err)
		}
		m.Info.Calibration.Threshold = 2
		if got, err = m.MeasureSpots(3, func(int) (*imagefile.Image, error) { return greyImage(c.w, c.h), nil }); err != nil || got.Smallest != 0 || !got.Measured() {
			t.Errorf("%+v: nothing is found: got %+v, %v", c, got, err)
		}
	}
}

// People are told of pictures that are more than four times as long as the network's input, and of what was measured.
func TestTooLarge(t *testing.T) {
	for _, c := range []struct {
		tile, w, h int
		spots      Spots
		want       string
	}{
		{0, 256, 256, Spots{}, ""}, {0, 1024, 1024, Spots{}, ""}, {128, 5000, 5000, Spots{}, ""},
		{0, 1025, 10, Spots{}, "1025 x 10 pixels is seen at 256 x 256, where small defects vanish: train"},
		{0, 3000, 3000, Spots{Smallest: 94, Largest: 500, Width: 2900, Height: 3000}, "(of strong spots put on good images of 2900 x 3000 pixels those were found that are 94 pixels wide or more)"},
		{0, 3000, 3000, Spots{Largest: 500, Width: 2900, Height: 3000}, "none was found, up to 500 pixels wide"},
	} {
		m, _ := plain(256, c.tile, true)
		m.Info.Spots = c.spots
		if got := m.Info.TooLarge(c.w, c.h); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}
