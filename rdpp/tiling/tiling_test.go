package tiling

import (
	"fmt"
	"image"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

// Every pixel of a picture is in a tile, neighbours overlap by what the stride leaves, and tiles end where the picture does.
func TestGrid(t *testing.T) {
	for _, c := range []struct {
		w, h       int
		opt        Options
		want       []image.Point // upper left corners
		mapW, mapH int
		padded     bool
	}{
		{256, 256, Options{Tile: 256, Size: 256}, []image.Point{{0, 0}}, 256, 256, false},
		{500, 300, Options{Tile: 256, Size: 256}, []image.Point{{0, 0}, {122, 0}, {244, 0}, {0, 44}, {122, 44}, {244, 44}}, 500, 300, false},
		{500, 300, Options{Tile: 256, Stride: 128, Size: 128}, []image.Point{{0, 0}, {122, 0}, {244, 0}, {0, 44}, {122, 44}, {244, 44}}, 250, 150, false},
		{100, 300, Options{Tile: 200, Size: 100}, []image.Point{{0, 0}, {0, 100}}, 50, 150, true},
		{1, 1, Options{Tile: 64, Size: 32}, []image.Point{{0, 0}}, 1, 1, true},
		{4096, 4096, Options{Tile: 4096, Size: 32}, []image.Point{{0, 0}}, 32, 32, false},
	} {
		g, err := New(c.w, c.h, c.opt)
		if err != nil {
			t.Fatal(err)
		}
		var got []image.Point
		for i := range g.Len() {
			got = append(got, g.At(i).Min)
			if size := g.At(i).Size(); size != image.Pt(c.opt.Tile, c.opt.Tile) {
				t.Errorf("%d x %d, %+v: got a tile of %v", c.w, c.h, c.opt, size)
			}
		}
		w, h := g.Map()
		if !slices.Equal(got, c.want) || w != c.mapW || h != c.mapH || g.Padded() != c.padded {
			t.Errorf("%d x %d, %+v: got tiles at %v, a map of %d x %d, padded %v, want %v, %d x %d, %v", c.w, c.h, c.opt, got, w, h, g.Padded(), c.want,
				c.mapW, c.mapH, c.padded)
		}
	}
}

func TestGridOverlaps(t *testing.T) {
	for n := 1; n < 400; n++ {
		for _, opt := range []Options{{Tile: 64, Size: 32, Stride: 48}, {Tile: 50, Size: 32, Stride: 13}, {Tile: 33, Size: 32, Stride: 32}} {
			at := origins(n, opt)
			last := len(at) - 1
			if at[0] != 0 || n > opt.Tile && at[last] != n-opt.Tile || n <= opt.Tile && last > 0 {
				t.Fatalf("%d pixels, %+v: got %v", n, opt, at)
			}
			for i := range last {
				if step := at[i+1] - at[i]; step < 1 || step > opt.Stride {
					t.Fatalf("%d pixels, %+v: got a step of %d in %v", n, opt, step, at)
				}
			}
		}
	}
}

func TestGridRefuses(t *testing.T) {
	for _, c := range []struct {
		w, h int
		opt  Options
	}{
		{0, 10, Options{Tile: 64, Size: 64}}, {10, -1, Options{Tile: 64, Size: 64}}, {10, 10, Options{}}, {10, 10, Options{Tile: 32, Size: 64}},
		{10, 10, Options{Tile: 64, Size: 64, Stride: 64}}, {10, 10, Options{Tile: 64, Size: 64, Stride: -1}}, {10, 10, Options{Tile: 64}},
	} {
		if g, err := New(c.w, c.h, c.opt); err == nil {
			t.Errorf("%d x %d, %+v: got %+v, want an error", c.w, c.h, c.opt, g)
		}
	}
}

// shapes of pictures and tiles that the blending is tried on: one tile and many, little and much overlap, native and reduced
// scale, a scale that is no whole number, padding, and maps whose cells are means of pixels.
var shapes = []struct {
	w, h int
	opt  Options
}{
	{64, 64, Options{Tile: 64, Size: 64}},
	{65, 64, Options{Tile: 64, Size: 64}},
	{200, 333, Options{Tile: 64, Size: 32, Stride: 56}},
	{200, 333, Options{Tile: 64, Size: 64, Stride: 16}},
	{401, 97, Options{Tile: 100, Size: 32, Stride: 70}},
	{40, 333, Options{Tile: 64, Size: 32}},
	{7, 5, Options{Tile: 64, Size: 32}},
	{5000, 3001, Options{Tile: 512, Size: 512, Stride: 448}},
}

// blend is the map of a picture of which at says what a tile's map has at one of its pixels, by the place in the picture.
func blend(t *testing.T, g *Grid, at func(x, y float64) float32) []float32 {
	t.Helper()
	b, S := NewBlender(g), g.opt.Size
	tile := make([]float32, S*S)
	scale := float64(g.opt.Tile) / float64(S)
	for i := range g.Len() {
		from := g.At(i).Min
		for p := range tile {
			tile[p] = at(float64(from.X)+(float64(p%S)+0.5)*scale, float64(from.Y)+(float64(p/S)+0.5)*scale)
		}
		if err := b.Add(tile); err != nil {
			t.Fatal(err)
		}
	}
	all, err := b.Map()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What a network says everywhere is said everywhere, to the bit.
func TestBlendOfConstant(t *testing.T) {
	for _, c := range shapes {
		g, err := New(c.w, c.h, c.opt)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []float32{0, 1, 0.1, 1. / 3, 1e-30, 7.654321e20} {
			for i, got := range blend(t, g, func(_, _ float64) float32 { return want }) {
				if got != want {
					t.Fatalf("%d x %d, %+v: got %v in cell %d, want %v", c.w, c.h, c.opt, got, i, want)
				}
			}
		}
	}
}

// A map that rises evenly over the picture does so across the borders of tiles.
func TestBlendOfSlope(t *testing.T) {
	for _, c := range shapes {
		g, err := New(c.w, c.h, c.opt)
		if err != nil {
			t.Fatal(err)
		}
		w, h := g.Map()
		slope := func(x, y float64) float32 { return float32(x + 3*y) }
		got := blend(t, g, slope)
		pixel := float64(c.opt.Tile) / float64(c.opt.Size)
		for i, v := range got {
			x, y := (float64(i%w)+0.5)*float64(c.w)/float64(w), (float64(i/w)+0.5)*float64(c.h)/float64(h)
			// At the picture's own edge a tile ends half a pixel before it; cells may be a pixel wider than others.
			near := 4 * pixel / 2
			if g.reduced > 1 {
				near += 4 * pixel
			}
			if want := slope(x, y); math.Abs(float64(v-want)) > near+1e-3 {
				t.Fatalf("%d x %d, %+v: got %v at %v, %v, want %v", c.w, c.h, c.opt, v, x, y, want)
			}
		}
	}
}

// Tiles that disagree, each having a level of its own, leave no edge: no step between neighbouring cells is larger than what
// the window's steepest slope makes of the largest disagreement.
func TestBlendHasNoEdges(t *testing.T) {
	for _, c := range shapes {
		g, err := New(c.w, c.h, c.opt)
		if err != nil {
			t.Fatal(err)
		}
		b, random := NewBlender(g), rand.New(rand.NewPCG(1, 2))
		low, high := float32(1), float32(0)
		for range g.Len() {
			level := random.Float32()
			low, high = min(low, level), max(high, level)
			if err := b.Add(slices.Repeat([]float32{level}, c.opt.Size*c.opt.Size)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := b.Map()
		if err != nil {
			t.Fatal(err)
		}
		w, _ := g.Map()
		most := steepest(g) * float64(high-low)
		for i, v := range got {
			if i%w > 0 && math.Abs(float64(v-got[i-1])) > most+1e-6 || i >= w && math.Abs(float64(v-got[i-w])) > most+1e-6 {
				t.Fatalf("%d x %d, %+v: got a step at cell %d, of %v, %v and %v, want at most %v", c.w, c.h, c.opt, i, v, got[max(i-1, 0)], got[max(i-w, 0)], most)
			}
			if v < low-1e-6 || v > high+1e-6 {
				t.Fatalf("%d x %d, %+v: got %v, which no tile has", c.w, c.h, c.opt, v)
			}
		}
	}
}

// steepest is the most by which the weights of all tiles together change from a cell to the next.
func steepest(g *Grid) (most float64) {
	for _, all := range [][]span{spans(g.xs, g.w, g.fw, g.opt), spans(g.ys, g.h, g.fh, g.opt)} {
		longest := 0
		for _, s := range all {
			longest = max(longest, s.first+len(s.taps))
		}
		weights := make([][]float64, longest)
		for f := range weights {
			weights[f] = make([]float64, len(all))
			for i, s := range all {
				if at := f - s.first; at >= 0 && at < len(s.taps) {
					weights[f][i] = s.taps[at].weight
				}
			}
		}
		for f := range longest - 1 {
			change := 0.0
			for i := range all {
				change += math.Abs(weights[f+1][i]-weights[f][i]) / 2
			}
			most = max(most, change)
		}
	}
	return most * float64(2*g.reduced) // a cell is a mean of pixels that lie up to so far apart
}

// The weights change slowly enough that the test above says something: by a small part from one pixel to the next.
func TestWeightsAreSmooth(t *testing.T) {
	g, err := New(1000, 1000, Options{Tile: 256, Size: 256})
	if err != nil {
		t.Fatal(err)
	}
	if got := steepest(g) / 2; got > 0.05 {
		t.Errorf("got weights that change by %v from a pixel to the next, want 0.05 at most", got)
	}
}

// One tile's map is the picture's, bit by bit.
func TestBlendOfOne(t *testing.T) {
	g, err := New(64, 64, Options{Tile: 64, Size: 32})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	tile := make([]float32, 32*32)
	for i := range tile {
		tile[i] = random.Float32()
	}
	b := NewBlender(g)
	if err := b.Add(tile); err != nil {
		t.Fatal(err)
	}
	got, err := b.Map()
	if err != nil || !slices.Equal(got, tile) {
		t.Errorf("got another map, %v", err)
	}
}

func TestBlenderRefuses(t *testing.T) {
	g, err := New(100, 64, Options{Tile: 64, Size: 32})
	if err != nil {
		t.Fatal(err)
	}
	b := NewBlender(g)
	if err := b.Add(make([]float32, 31)); err == nil {
		t.Error("a map of another size: got no error")
	}
	if _, err := b.Map(); err == nil {
		t.Error("tiles are missing: got no error")
	}
	for range g.Len() {
		if err := b.Add(make([]float32, 32*32)); err != nil {
			t.Error(err)
		}
	}
	if err := b.Add(make([]float32, 32*32)); err == nil {
		t.Error("a tile too many: got no error")
	}
}

// Beside the map, which has MaxCells at most, a blender holds rows as high as a tile.
func TestBlendMemory(t *testing.T) {
	opt := Options{Tile: 64, Size: 64}
	g, err := New(12000, 9000, opt)
	if err != nil {
		t.Fatal(err)
	}
	w, h := g.Map()
	if w*h > MaxCells || w*h < MaxCells/2 {
		t.Errorf("got a map of %d x %d, want at most %d cells and not many fewer", w, h, MaxCells)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b := NewBlender(g)
	tile := make([]float32, 64*64)
	for range g.Len() {
		if err := b.Add(tile); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Map(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	// All that was ever allocated: the map, the band in float64, the taps of 12,000 and 9,000 pixels.
	bound := uint64(4*w*h + 8*12000*65 + 21000*200)
	if got := after.TotalAlloc - before.TotalAlloc; got > bound {
		t.Errorf("got %d bytes allocated, want at most %d", got, bound)
	}
}

// A defect counts as much in a large picture as in one of a single tile, also where a cell is the mean of pixels.
func TestCells(t *testing.T) {
	for _, c := range []struct {
		w, h int
		opt  Options
		want int
	}{
		{256, 256, Options{Tile: 256, Size: 256}, 655}, {3000, 1000, Options{Tile: 512, Size: 256}, 655}, {3000, 3000, Options{Tile: 256, Size: 256}, 163},
	} {
		g, err := New(c.w, c.h, c.opt)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.Cells(0.01); got != c.want {
			t.Errorf("%d x %d, %+v: got %d, want %d", c.w, c.h, c.opt, got, c.want)
		}
	}
}

func ExampleBlender() {
	grid, err := New(96, 64, Options{Tile: 64, Stride: 32, Size: 32})
	if err != nil {
		fmt.Println(err)
		return
	}
	b := NewBlender(grid)
	for i := range grid.Len() {
		fmt.Println("tile", i, "is", grid.At(i))
		if err := b.Add(make([]float32, 32*32)); err != nil { // what a network says of it
			fmt.Println(err)
		}
	}
	cells, err := b.Map()
	fmt.Println(len(cells), "cells,", err)
	// Output:
	// tile 0 is (0,0)-(64,64)
	// tile 1 is (32,0)-(96,64)
	// 1536 cells, <nil>
}
