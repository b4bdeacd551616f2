package evaluation

import (
	"context"
	"errors"
	"fmt"
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
	"rdpp/torch"
)

// Images are some of the items as a learner may ask for them, on a device.
func Images(items []dataset.Item, cache *dataset.Cache, c *method.Settings, device torch.Device) method.Images {
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
	err := scan(ctx, m, items, cache, func(_ int, pixels []float32, _ *framing.Frame, score float64) error {
		highest := float64(slices.Max(pixels))
		all.Images, all.Maps = append(all.Images, score), append(all.Maps, highest)
		alike = alike && score == highest
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
// goroutine beside the next batch, with the frames of what they were made of. An item that fails ends it after those before. The model is settled.
func scan(ctx context.Context, m *modelfile.Model, items []dataset.Item, cache *dataset.Cache, each handler) error {
	f := &follower{items: items, each: each, batches: make(chan batch, 1), done: make(chan struct{})}
	go f.follow()
	defer f.end() // also where a prediction panics
	S, n := m.Info.Config.ImageSize, m.BatchSize()
	x := make([]float32, 0, min(n, len(items))*3*S*S)
	var frames []*framing.Frame
	predict := func() {
		f.batches <- batch{frames, m.PredictFramed(x, frames)}
		x, frames = x[:0], nil
	}
	err := read(ctx, &m.Info.Config.Settings, items, cache, n, func(_ int, image []float32, frame *framing.Frame) error {
		if f.stopped.Load() {
			return errStopped
		}
		frames = append(frames, frame)
		if x = append(x, image...); len(x) == n*3*S*S {
			predict()
		}
		return nil
	})
	if len(x) > 0 && ctx.Err() == nil && !f.stopped.Load() { // the last ones, or those before one that cannot be read
		predict()
	}
	if failed := f.end(); failed != nil {
		return failed
	}
	return err
}

// errStopped ends the reading where the follower has failed, whose own error is the one to tell.
var errStopped = errors.New("evaluation: stopped")

// handler takes an item's outcome: its map, the frame of its image, and its score.
type handler func(i int, pixels []float32, frame *framing.Frame, score float64) error

// batch is what comes of a pass.
type batch struct {
	frames   []*framing.Frame
	outcomes []modelfile.Outcome
}

// follower hands the outcomes of batches to each.
type follower struct {
	items   []dataset.Item
	each    handler
	stopped atomic.Bool // by the first failure
	batches chan batch
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
	for b := range f.batches {
		for at, o := range b.outcomes {
			if f.failed == nil {
				f.hand(i, b.frames[at], o)
			}
			i++
		}
	}
}

func (f *follower) hand(i int, frame *framing.Frame, o modelfile.Outcome) {
	err := o.Err
	if err == nil {
		err = f.each(i, o.Map, frame, o.Score)
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
