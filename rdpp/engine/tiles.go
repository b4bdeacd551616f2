package engine

import (
	"fmt"
	"slices"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/evaluation"
	"rdpp/rdpp/method"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/printable"
)

// settleTile puts tiles of a size in the place of method.TileAuto, and refuses those that no image is as large as.
func (r *run) settleTile() error {
	c := &r.config
	if !c.Tiled() {
		return nil
	}
	auto := c.Tile == method.TileAuto
	if r.longest == 0 {
		for _, item := range r.items {
			look := r.cache.Look(item.Path)
			r.longest = max(r.longest, look.W, look.H)
		}
	}
	if err := c.SettleTile(r.longest); err != nil {
		return err
	}
	own := &r.model.Info.Config
	own.Tile, own.TileStride = c.Tile, c.TileStride
	switch {
	case auto && !c.Tiled():
		r.opt.Log.Info(fmt.Sprintf("tile: none, as a defect of %d pixels is large enough in images of at most %d pixels", c.SmallestDefect, r.longest))
	case auto:
		r.opt.Log.Info(fmt.Sprintf("tile: %d pixels, which the network sees at %d", c.Tile, c.ImageSize))
	}
	return nil
}

// checkLeftOut refuses images of which something is left out, by masks of their own or where they are smaller than a tile, where
// the method's scores cannot leave anything out.
func (r *run) checkLeftOut() error {
	_, refused := method.TopOf(r.config.Learned())
	if refused == nil {
		return nil
	}
	for _, item := range slices.Concat(r.items, r.tests) {
		if item.Ignore != "" {
			return fmt.Errorf("engine: %s has a mask of what is ignored: %w", printable.Text(item.Path), refused)
		}
		if look := r.cache.Look(item.Path); r.config.Tiled() && min(look.W, look.H) < r.config.Tile {
			return fmt.Errorf("engine: %s, %d x %d pixels, is smaller than a tile of %d: %w", printable.Text(item.Path), look.W, look.H, r.config.Tile, refused)
		}
	}
	return nil
}

// tiles say which tiles are learned from.
func (r *run) tiles() dataset.TileOptions {
	if !r.config.Tiled() {
		return dataset.TileOptions{}
	}
	o := dataset.TileOptions{Options: r.config.Tiling()}
	if looker, is := r.config.Learned().(method.Looker); is {
		o.Grid, o.Most = true, looker.Most()
	}
	return o
}

// sizes are how many images, or tiles of them, there are to learn from: of the run itself, then of the trainings for the
// calibration.
func (r *run) sizes() ([]int, error) {
	count := func(items []dataset.Item) (int, error) {
		if !r.config.Tiled() {
			return len(items), nil
		}
		n, err := dataset.CountTiles(items, r.cache, r.tiles())
		if err != nil {
			return 0, fmt.Errorf("engine: %w", err)
		}
		return n, nil
	}
	all, err := count(r.items)
	sizes := []int{all}
	for fold := range r.folds {
		kept, _ := r.parted(fold)
		var n int
		if n, err = count(kept); err != nil {
			break
		}
		sizes = append(sizes, n)
	}
	return sizes, err
}

// parted are the images that the training for a fold is of, and those that it leaves out: every so many-th of a random order.
func (r *run) parted(fold int) (kept, out []dataset.Item) {
	for i, at := range shuffled(&r.config, len(r.items)) {
		if i%r.folds == fold {
			out = append(out, r.items[at])
		} else {
			kept = append(kept, r.items[at])
		}
	}
	return kept, out
}

// spot measures how small a defect may be, where images are large or in tiles or somebody wants to know.
func (r *run) spot(model *modelfile.Model) error {
	c, items := &r.config, r.held
	if len(items) == 0 {
		items = r.items
	}
	large := false
	for _, item := range r.items {
		look := r.cache.Look(item.Path)
		large = large || model.TooLarge(look.W, look.H) != ""
	}
	if !large && !c.Tiled() && c.SmallestDefect == 0 {
		return nil
	}
	var err error
	if model.Info.Spots, err = evaluation.Spots(model, items, r.opt.MaxPixels); err != nil {
		return err
	}
	spots := model.Info.Spots
	if !spots.Measured() { // in images of a few pixels
		return nil
	}
	r.opt.Log.Info(spots.Text())
	if wanted := c.SmallestDefect; wanted > 0 && (spots.Smallest == 0 || spots.Smallest > wanted) {
		r.opt.Log.Warn(fmt.Sprintf("defects of %d pixels are wanted: %s; use smaller tiles, or larger images of the part", wanted, spots.Text()))
	}
	return nil
}
