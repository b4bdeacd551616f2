// Package dataset finds the images of a visual inspection data set on disk and
// turns them into training batches: folder layouts, preprocessing, ground-truth
// masks, a bounded image cache and a prefetching loader.
//
// Images are handled as the released code reads them: 8-bit RGB / 255,
// resized bilinearly without antialiasing to S x S, then normalised. Where a
// CacheOptions.Framer says so, it is a part of them, or they are padded or cut to
// a square before. Dimension letters: B batch, C channels (always 3, RGB), S
// height and width.
//
// A typical use opens a folder, checks that everything in it can be read, and
// walks through epochs:
//
//	set, err := dataset.Open(dir, nil)
//	cache := dataset.NewCache(dataset.CacheOptions{})
//	train, _, err := dataset.Check(ctx, set.Train, cache, 0, false)
//	loader, err := dataset.NewLoader(train, dataset.LoaderOptions{Cache: cache})
//	for batch, err := range loader.Epoch(ctx, 0, 0) { ... }
package dataset
