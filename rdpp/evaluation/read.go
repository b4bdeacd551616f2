package evaluation

import (
	"context"
	"errors"
	"fmt"
	"image"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"rdpp/rdpp/ahead"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/method"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/tiling"
	"rdpp/torch"
)

// Images are some of the items as a learner may ask for them, on a device; where they are cut into tiles, some of these.
func Images(items []dataset.Item, cache *dataset.Cache, c *method.Settings, device torch.Device) method.Images {
	if c.Tiled() {
		return tiles(items, cache, c, device)
	}
	return func(ctx context.Context, most int, visit func(x *torch.Tensor, frame *framing.Frame) error) error {
		some := items
		if most > 0 {
			some = Spread(items, most)
		}
		return read(ctx, c, some, cache, 1, func(_ int, x []float32, frame *framing.Frame) error {
			return onDevice(x, c.ImageSize, device, func(x *torch.Tensor) error { return visit(x, frame) })
		})
	}
}

// tiles are Images of the tiles that a detector looks at.
func tiles(items []dataset.Item, cache *dataset.Cache, c *method.Settings, device torch.Device) method.Images {
	return func(ctx context.Context, most int, visit func(x *torch.Tensor, frame *framing.Frame) error) error {
		S, norm := c.ImageSize, c.Norm()
		whole := framing.Tiled(image.Pt(S, S), S, S, S, 1) // every position of a tile counts
		var ends []int                                     // of each image's tiles, all being numbered on
		for _, item := range items {
			look := cache.Look(item.Path)
			grid, err := tiling.New(look.W, look.H, c.Tiling())
			if err != nil {
				return fmt.Errorf("evaluation: %s: %w", item.Path, err)
			}
			ends = append(ends, grid.Len())
			if n := len(ends); n > 1 {
				ends[n-1] += ends[n-2]
			}
		}
		total := ends[len(ends)-1]
		if most == 0 || most > total {
			most = total
		}
		wanted := make([][]int, len(items)) // tiles of each image
		for i := range most {
			at := i * total / most
			item, _ := slices.BinarySearch(ends, at+1)
			first := 0
			if item > 0 {
				first = ends[item-1]
			}
			wanted[item] = append(wanted[item], at-first)
		}
		x := make([]float32, 3*S*S)
		for i, item := range items {
			if len(wanted[i]) == 0 {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			img, err := cache.Image(item.Path)
			if err != nil {
				return fmt.Errorf("evaluation: %w", err)
			}
			grid, err := tiling.New(img.W, img.H, c.Tiling())
			if err != nil {
				return fmt.Errorf("evaluation: %s: %w", item.Path, err)
			}
			for _, at := range wanted[i] {
				if err := dataset.ResizePart(x, img, grid.At(at), S); err != nil {
					return fmt.Errorf("evaluation: %s: %w", item.Path, err)
				}
				norm.Apply(x, x, S)
				if err := onDevice(x, S, device, func(x *torch.Tensor) error { return visit(x, whole) }); err != nil {
					return fmt.Errorf("evaluation: %s: %w", item.Path, err)
				}
			}
		}
		return ctx.Err()
	}
}

// onDevice hands a normalised image, 3 x S x S, to visit as a tensor, 1 x 3 x S x S.
func onDevice(x []float32, S int, device torch.Device, visit func(x *torch.Tensor) error) error {
	var s torch.Scope
	defer s.Close()
	host := s.Tensor(torch.FromSlice(x, 1, 3, int64(S), int64(S)))
	input := s.Tensor(host.To(device, torch.Float32))
	if err := s.Err(); err != nil {
		return err
	}
	return visit(input)
}

// Scores are those of items, ascending, and of their maps where these are something else. The model is settled.
func Scores(ctx context.Context, m *modelfile.Model, items []dataset.Item, cache *dataset.Cache) (anomaly.Scores, error) {
	var all anomaly.Scores
	alike := true
	err := scan(ctx, m, items, cache, func(_ int, o modelfile.Outcome) error {
		highest := float64(slices.Max(o.Map))
		all.Images, all.Maps = append(all.Images, o.Score), append(all.Maps, highest)
		alike = alike && o.Score == highest
		return nil
	})
	if alike {
		all.Maps = nil
	}
	slices.Sort(all.Images)
	slices.Sort(all.Maps)
	return all, err
}

// scan predicts every item, as many at once as the model wants, and hands the outcomes to each in the order of the items, in a
// goroutine beside the next batch. An item that fails ends it after those before. The model is settled.
func scan(ctx context.Context, m *modelfile.Model, items []dataset.Item, cache *dataset.Cache, each func(i int, o modelfile.Outcome) error) error {
	f := &follower{items: items, each: each, batches: make(chan []modelfile.Outcome, 1), done: make(chan struct{})}
	go f.follow()
	defer f.end() // also where a prediction panics
	n := m.BatchSize()
	if m.Info.Config.Tiled() { // an image has batches of its own
		n = 1
	}
	var views []modelfile.View
	predict := func() {
		f.batches <- m.PredictViews(views)
		views = views[:0]
	}
	err := readViews(ctx, &m.Info, items, cache, n, func(v modelfile.View) error {
		if f.stopped.Load() {
			return errStopped
		}
		if views = append(views, v); len(views) == n {
			predict()
		}
		return nil
	})
	if len(views) > 0 && ctx.Err() == nil && !f.stopped.Load() { // the last ones, or those before one that cannot be read
		predict()
	}
	if failed := f.end(); failed != nil {
		return failed
	}
	return err
}

// errStopped ends the reading where the follower has failed, whose own error is the one to tell.
var errStopped = errors.New("evaluation: stopped")

// follower hands the outcomes of batches to each.
type follower struct {
	items   []dataset.Item
	each    func(i int, o modelfile.Outcome) error
	stopped atomic.Bool // by the first failure
	batches chan []modelfile.Outcome
	once    sync.Once
	done    chan struct{} // closed when the following are set
	failed  error
	panic   any
}

// end waits until all batches are handed over, and returns the first failure. It is idempotent.
func (f *follower) end() error {
	f.once.Do(func() { close(f.batches) })
	<-f.done
	if f.panic != nil { // for who recovers from this goroutine's
		panic(f.panic)
	}
	return f.failed
}

func (f *follower) follow() {
	defer close(f.done)
	defer func() {
		f.panic = recover()
		f.stopped.Store(true)
		for range f.batches { // nobody is to wait for a goroutine that has ended
		}
	}()
	i := 0
	for batch := range f.batches {
		for _, o := range batch {
			if f.failed == nil {
				f.hand(i, o)
			}
			i++
		}
	}
}

func (f *follower) hand(i int, o modelfile.Outcome) {
	err := o.Err
	if err == nil {
		err = f.each(i, o)
	}
	if err != nil {
		f.failed = fmt.Errorf("evaluation: %s: %w", f.items[i].Path, err)
		f.stopped.Store(true)
	}
}

// Goroutines that read images while others are scored: as many as there are processors and memory for, within bounds.
const (
	fewestReaders = 2
	mostReaders   = 16
	readerMemory  = 2 << 30 // for each, bytes; decoding the largest image accepted takes 700 MB
)

// readViews hands every item to each in turn as a model sees it. Of images in tiles the next one alone is read ahead: they are
// as large as they come.
func readViews(ctx context.Context, info *modelfile.Info, items []dataset.Item, cache *dataset.Cache, next int, each func(v modelfile.View) error) error {
	if !info.Config.Tiled() {
		return read(ctx, &info.Config.Settings, items, cache, next, func(_ int, x []float32, frame *framing.Frame) error {
			return each(modelfile.View{Planes: x, Frame: frame})
		})
	}
	for v, err := range ahead.Range(ctx, 1, 1, 0, len(items), func(_ context.Context, i int) (modelfile.View, error) {
		if items[i].Ignore != "" {
			return modelfile.View{}, fmt.Errorf("%s: %w", items[i].Path, framing.ErrTiles)
		}
		img, err := cache.Image(items[i].Path)
		return modelfile.View{Image: img}, err
	}) {
		if err != nil {
			return fmt.Errorf("evaluation: %w", err)
		}
		if err := each(v); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// read hands every item to each in turn as the networks see it, 3 x S x S, with its frame, while the next ones, at least so
// many, are read.
func read(ctx context.Context, c *method.Settings, items []dataset.Item, cache *dataset.Cache, next int, each func(i int, x []float32, frame *framing.Frame) error) error {
	S, norm := c.ImageSize, c.Norm()
	readers := max(min(runtime.GOMAXPROCS(0), mostReaders, int(allowance.Memory()/readerMemory)), fewestReaders)
	i := 0
	type framed struct {
		x     []float32
		frame *framing.Frame
	}
	for image, err := range ahead.Range(ctx, readers, max(next, 2*readers), 0, len(items), func(_ context.Context, i int) (f framed, err error) {
		f.x = make([]float32, 3*S*S)
		if f.frame, err = cache.Framed(f.x, items[i]); err != nil {
			return f, err
		}
		norm.Apply(f.x, f.x, S)
		return f, nil
	}) {
		if err != nil {
			return fmt.Errorf("evaluation: %w", err)
		}
		if err := each(i, image.x, image.frame); err != nil {
			return fmt.Errorf("evaluation: %s: %w", items[i].Path, err)
		}
		i++
	}
	return ctx.Err()
}

// Spread is at most n of the items, evenly spread.
func Spread(items []dataset.Item, n int) (some []dataset.Item) {
	if len(items) <= n {
		return items
	}
	for i := range n {
		some = append(some, items[i*len(items)/n])
	}
	return some
}
