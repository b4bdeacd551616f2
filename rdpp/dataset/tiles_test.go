package dataset

import (
	"errors"
	"fmt"
	"image"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/sample"
	"rdpp/rdpp/tiling"
)

// A part is resized as the picture that is cut out of it, whose edge repeats where the part reaches beyond it.
func TestResizePart(t *testing.T) {
	const W, H, S = 50, 40, 16
	img := &imagefile.Image{W: W, H: H, Pix: make([]uint8, 3*W*H)}
	for i := range img.Pix {
		img.Pix[i] = uint8(i * i / 7)
	}
	for _, part := range []image.Rectangle{image.Rect(0, 0, W, H), image.Rect(3, 5, 35, 37), image.Rect(30, 20, 46, 36), image.Rect(20, 10, 84, 74), image.Rect(49, 39, 65, 55)} {
		cut := &imagefile.Image{W: part.Dx(), H: part.Dy()}
		for y := part.Min.Y; y < part.Max.Y; y++ {
			for x := part.Min.X; x < part.Max.X; x++ {
				cut.Pix = append(cut.Pix, img.Pix[3*(min(y, H-1)*W+min(x, W-1)):][:3]...)
			}
		}
		got, want := make([]float32, 3*S*S), make([]float32, 3*S*S)
		if err := ResizePart(got, img, part, S); err != nil {
			t.Fatal(err)
		}
		Resize(want, cut, S)
		if !slices.Equal(got, want) {
			t.Errorf("%v: got other values than of the picture that is cut out", part)
		}
	}
	for _, part := range []image.Rectangle{{}, image.Rect(-1, 0, 10, 10), image.Rect(0, -1, 10, 10), image.Rect(W, 0, W+8, 8), image.Rect(0, H, 8, H+8)} {
		if err := ResizePart(make([]float32, 3*S*S), img, part, S); err == nil {
			t.Errorf("%v: got no error", part)
		}
	}
}

// cutItems are painted images of 160 x 160 pixels, read through a cache that keeps so many bytes.
func cutItems(t *testing.T, n int, bytes int64) ([]Item, *Cache) {
	t.Helper()
	dir := t.TempDir()
	if err := sample.Write(dir, &sample.Options{Category: "part", Size: 160, Train: n, TestGood: 1, TestDefect: 1}); err != nil {
		t.Fatal(err)
	}
	set, err := Open(filepath.Join(dir, "part"), nil)
	if err != nil {
		t.Fatal(err)
	}
	cache := NewCache(CacheOptions{Size: 32, MaxBytes: bytes, Whole: true})
	items, _, err := Check(t.Context(), set.Train, cache, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	return items, cache
}

// Tiles of an epoch follow from seed and epoch alone: not from the cache, the number of workers, or where an epoch is taken up.
func TestLoaderOfTiles(t *testing.T) {
	for _, tiles := range []TileOptions{
		{Options: tiling.Options{Tile: 64, Size: 32}},
		{Options: tiling.Options{Tile: 64, Size: 32, Stride: 32}, Grid: true},
		{Options: tiling.Options{Tile: 64, Size: 32, Stride: 32}, Grid: true, Most: 21},
	} {
		items, whole := cutItems(t, 5, 1<<30)
		none := NewCache(CacheOptions{Size: 32, MaxBytes: -1, Whole: true})
		if _, _, err := Check(t.Context(), items, none, 0, false); err != nil {
			t.Fatal(err)
		}
		options := LoaderOptions{Batch: 4, Size: 32, Seed: 3, Cache: whole, Workers: 1, Tiles: tiles, Noise: NoiseOptions{Lambda: 0.2, Defects: 2}, Light: Light{Exposure: 0.2}}
		want := newLoader(t, items, options)
		first, second := epoch(t, want, 0, 0), epoch(t, want, 1, 0)
		var digests []string
		for _, b := range first {
			digests = append(digests, digest(b))
		}
		if digest(first[0]) == digest(second[0]) {
			t.Errorf("%+v: got the same batch in another epoch", tiles)
		}
		for _, workers := range []int{1, 3} {
			options.Cache, options.Workers = none, workers
			l := newLoader(t, items, options)
			for _, from := range []int{0, 2} {
				var got []string
				for _, b := range epoch(t, l, 0, from) {
					got = append(got, digest(b))
				}
				if !slices.Equal(got, digests[from:]) {
					t.Errorf("%+v: %d workers, from step %d: got other batches without a cache", tiles, workers, from)
				}
			}
		}
		var seen []int
		for _, b := range first {
			seen = append(seen, b.Index...)
		}
		slices.Sort(seen)
		n, err := CountTiles(items, whole, tiles)
		if err != nil || len(seen) != n || len(slices.Compact(seen)) != n {
			t.Errorf("%+v: got %d tiles, %d of them different, want %d, %v", tiles, len(seen), len(slices.Compact(seen)), n, err)
		}
	}
}

// How many tiles of images of 160 x 160 pixels a pass has.
func TestCountTiles(t *testing.T) {
	items, cache := cutItems(t, 5, 1<<30)
	for _, c := range []struct {
		opt  TileOptions
		want int
	}{
		{TileOptions{Options: tiling.Options{Tile: 64, Size: 32}}, 5 * 6}, // of 25,600 / 4096, rounded
		{TileOptions{Options: tiling.Options{Tile: 32, Size: 32}}, 5 * 25},
		{TileOptions{Options: tiling.Options{Tile: 400, Size: 32}}, 5},
		{TileOptions{Options: tiling.Options{Tile: 64, Size: 32, Stride: 48}, Grid: true}, 5 * 9},
		{TileOptions{Options: tiling.Options{Tile: 64, Size: 32, Stride: 48}, Grid: true, Most: 12}, 12},
	} {
		if got, err := CountTiles(items, cache, c.opt); err != nil || got != c.want {
			t.Errorf("%+v: got %d, %v, want %d", c.opt, got, err, c.want)
		}
	}
	if got, err := CountTiles(items, NewCache(CacheOptions{Size: 32}), TileOptions{Options: tiling.Options{Tile: 64, Size: 32}}); err == nil {
		t.Errorf("images that were not read: got %d, want an error", got)
	}
}

// An image that is not kept is read once for all of its tiles that are shuffled together: the others come when its file has gone.
func TestTilesOfOneReading(t *testing.T) {
	items, cache := cutItems(t, 2, -1)
	l := newLoader(t, items, LoaderOptions{Size: 32, Cache: cache, Tiles: TileOptions{Options: tiling.Options{Tile: 64, Size: 32}}})
	e := &epochRun{Loader: l, order: l.order(0)}
	room := make([]float32, e.values())
	item := e.tiles[e.order[0]].item
	tiles := 0
	for at, index := range e.order {
		if e.tiles[index].item != item {
			continue
		}
		if _, err := e.tilePlanes(at, room); err != nil {
			t.Fatal(err)
		}
		if tiles == 0 {
			if err := os.Remove(items[item].Path); err != nil {
				t.Fatal(err)
			}
		}
		tiles++
	}
	if tiles != 6 {
		t.Errorf("got %d tiles, want 6", tiles)
	}
	if _, err := cache.Image(items[item].Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file: got %v, want that it has gone", err)
	}
	// What is held goes when it is taken.
	for key, on := range e.shelf.rooms {
		if len(on.planes) > 0 {
			t.Errorf("got %d tiles left of %+v", len(on.planes), key)
		}
	}
}

// Of tiles that are shuffled together no more are held than was said, whatever their size.
func TestHeldTiles(t *testing.T) {
	for _, S := range []int{32, 64, 192, 256, 512, 1024, 2048} {
		n := heldTiles(S)
		if bytes := n * 12 * S * S; n < 16 || n > 256 || n > 16 && bytes > 210<<20 {
			t.Errorf("%d x %d: got %d tiles of %d bytes together", S, S, n, bytes)
		}
	}
}

// Whole caches keep pixels however large; others have none to give.
func TestWholeCache(t *testing.T) {
	items, cache := cutItems(t, 1, 1<<30)
	img, kept, err := cache.image(items[0].Path)
	if err != nil || !kept || img.W != 160 || img.H != 160 {
		t.Errorf("got %v, kept %v, %v", img, kept, err)
	}
	plain := NewCache(CacheOptions{Size: 32})
	if img, err := plain.Image(items[0].Path); err == nil {
		t.Errorf("not whole: got %v", img)
	}
	var a, b [3 * 32 * 32]float32
	if err := errors.Join(cache.Planes(a[:], items[0].Path), plain.Planes(b[:], items[0].Path)); err != nil || a != b {
		t.Error(fmt.Errorf("got other planes of a whole cache, %w", err))
	}
}
