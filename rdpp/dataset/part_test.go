package dataset

import (
	"slices"
	"testing"

	"rdpp/rdpp/tiling"
)

// The parts of processes are the batches of one, image by image; and one without an image has one that does not count.
func TestParts(t *testing.T) {
	items := pictures(t, 9)
	cut, none := cutItems(t, 5, -1)
	if _, _, err := Check(t.Context(), cut, none, 0, false); err != nil {
		t.Fatal(err)
	}
	noise := NoiseOptions{Lambda: 0.2, Share: 0.5}
	for _, c := range []struct {
		name  string
		items []Item
		ranks int
		opt   LoaderOptions
	}{
		{"two", items, 2, LoaderOptions{Batch: 4, Seed: 7, Noise: noise}}, // batches of 4, 4 and 1
		{"three", items, 3, LoaderOptions{Batch: 4, Seed: 7, Noise: noise}},
		{"one", items, 1, LoaderOptions{Batch: 4, Seed: 7, Noise: noise}},
		{"without noise", items, 4, LoaderOptions{Batch: 4, Noise: NoiseOptions{Off: true}}},
		{"tiles", cut, 3, LoaderOptions{Batch: 4, Size: 32, Seed: 3, Cache: none, Noise: noise, Tiles: TileOptions{Options: tiling.Options{Tile: 64, Size: 32}}}},
	} {
		whole := epoch(t, newLoader(t, c.items, c.opt), 1, 1)
		for rank := range c.ranks {
			opt := c.opt
			opt.Rank, opt.Ranks = rank, c.ranks
			l := newLoader(t, c.items, opt)
			parts := epoch(t, l, 1, 1)
			if len(parts) != len(whole) {
				t.Fatalf("%s, rank %d: got %d steps, want %d", c.name, rank, len(parts), len(whole))
			}
			for step, part := range parts {
				all := whole[step]
				values := l.values()
				image := func(of []float32, at int) []float32 { return of[at*values:][:values] }
				noisyOf := len(all.Noisy) / values
				if part.Of != all.B || part.NoisyOf != noisyOf || part.Whole() != all.B || !slices.Equal(part.Shuffle, all.Shuffle) {
					t.Errorf("%s, rank %d, step %d: got a part %+v with the shuffle %v, want one of %d, %d noisy, with %v", c.name, rank, step, part.Part, part.Shuffle,
						all.B, noisyOf, all.Shuffle)
				}
				own, noisy := 0, 0
				for at := rank; at < all.B; at += c.ranks {
					if part.Index[own] != all.Index[at] || !slices.Equal(image(part.Clean, own), image(all.Clean, at)) {
						t.Errorf("%s, rank %d, step %d: image %d is another one", c.name, rank, step, own)
					}
					if at < noisyOf {
						if !slices.Equal(image(part.Noisy, own), image(all.Noisy, at)) {
							t.Errorf("%s, rank %d, step %d: noisy image %d is another one", c.name, rank, step, own)
						}
						noisy++
					}
					own++
				}
				if part.Own != own || part.B != max(1, own) || len(part.Clean) != part.B*values || len(part.Noisy) != noisy*values {
					t.Errorf("%s, rank %d, step %d: got %d images, %d of which count, %d noisy, want %d, %d and %d", c.name, rank, step, part.B, part.Own,
						len(part.Noisy)/values, max(1, own), own, noisy)
				}
			}
		}
	}
	if _, err := NewLoader(items, LoaderOptions{Rank: 2, Ranks: 2}); err == nil {
		t.Error("rank 2 of 2: got no error")
	}
}
