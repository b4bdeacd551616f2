package dataset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"rdpp/rdpp/ahead"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/simplex"
)

// LoaderOptions says how batches are made. Zero fields mean the defaults.
type LoaderOptions struct {
	Batch    int          // images per batch, default 16
	Size     int          // side S of the images, pixels; default 256
	Norm     Norm         // normalisation, default ImageNet
	Seed     uint64       // seed of order, noise and shuffles
	Workers  int          // goroutines that make images, default allowance.CPUs
	Prefetch int          // batches made ahead of the one in use, default 4
	Noise    NoiseOptions // the pseudo-anomalies
	Motion   Motion       // how the parts in the images are moved, before anything else
	Light    Light        // how the light on the images is varied, before anything but that
	Cache    *Cache       // shared image cache of the same Size; default one of this loader's own
	Tiles    TileOptions  // images are cut into tiles, each of which is one to learn from; zero: they are not

	// Rank and Ranks are of processes that make the images of a batch in turn: this one those with the numbers Rank, Rank +
	// Ranks, ... Ranks 0: it makes all.
	Rank, Ranks int
}

// NoiseOptions says how the noisy images are made (paper, Algorithm 1).
type NoiseOptions struct {
	Lambda   float64 // factor of the noise on RGB in 0..1; the paper's is 0.2, 0 adds none
	Released bool    // one noise field per run, as the released code has it, instead of one per image
	Defects  int     // at most so many made-up defects of several kinds per image, at least one; 0: one box of noise, as in the paper
	Share    float64 // of a batch, rounded up, that has noisy images: its first ones; 0: all
	Off      bool    // make no noisy images: Batch.Noisy is nil
}

// count is how many of B images have noisy ones.
func (n NoiseOptions) count(B int) int {
	if n.Share == 0 {
		return B
	}
	return min(B, int(math.Ceil(n.Share*float64(B))))
}

// Batch is a number of normalised training images. Its slices are overwritten
// when the next batch is asked for.
type Batch struct {
	Part              // where other processes make some of its images
	B       int       // number of images; the last batch of an epoch may be smaller
	Index   []int     // B indices into the loader's items, or with tiles into its tiles
	Clean   []float32 // B,3,S,S: the images
	Noisy   []float32 // B',3,S,S: the first B' images with noise in a box or made-up defects, not clamped
	Shuffle []int64   // a permutation of 0..B-1, or of 0..Of-1, pairing the images for L_SSOT
}

// Part is this process's part of a batch. One that gets no image has one without noise that does not count, so that all
// compute the same. The zero Part is the whole.
type Part struct {
	Of      int // images of the batch, of all processes
	NoisyOf int // of which so many have noisy ones
	Own     int // images here that count: B, or 0
}

// Whole is how many images all processes have together.
func (b *Batch) Whole() int {
	if b.Of > 0 {
		return b.Of
	}
	return b.B
}

// Loader makes the batches of training epochs. They depend on the items and
// the Seed alone: not on the number of workers, the cache or where an epoch is
// resumed. A Loader is safe for concurrent use.
type Loader struct {
	items []Item
	opt   LoaderOptions
	field *simplex.Field // the run's field of Released noise, else nil
	tiles []tile         // that an epoch goes through; nil: the items
}

// NewLoader returns a loader of the items, which must not change while it is
// in use. It reads no file yet.
func NewLoader(items []Item, opt LoaderOptions) (*Loader, error) {
	if len(items) == 0 {
		return nil, fmt.Errorf("dataset: nothing to load: %w", ErrEmpty)
	}
	opt.Batch = cmp.Or(opt.Batch, 16)
	opt.Size = cmp.Or(opt.Size, 256)
	opt.Norm = cmp.Or(opt.Norm, ImageNet)
	opt.Workers = cmp.Or(opt.Workers, allowance.CPUs())
	opt.Prefetch = cmp.Or(opt.Prefetch, 4)
	for _, o := range []struct {
		name  string
		value int
	}{{"Batch", opt.Batch}, {"Size", opt.Size}, {"Workers", opt.Workers}, {"Prefetch", opt.Prefetch}} {
		if o.value < 0 {
			return nil, fmt.Errorf("dataset: LoaderOptions.%s is %d; give a positive number, or 0 for the default", o.name, o.value)
		}
	}
	if opt.Cache == nil {
		opt.Cache = NewCache(CacheOptions{Size: opt.Size})
	}
	if opt.Cache.opt.Size != opt.Size {
		return nil, fmt.Errorf("dataset: the cache resizes to %d, the loader to %d; give both the same Size", opt.Cache.opt.Size, opt.Size)
	}
	if opt.Ranks != 0 && (opt.Rank < 0 || opt.Rank >= opt.Ranks) {
		return nil, fmt.Errorf("dataset: rank %d of %d cannot be; ranks are counted from 0", opt.Rank, opt.Ranks)
	}
	l := &Loader{items: items, opt: opt}
	if opt.Tiles.on() && opt.Motion != (Motion{}) {
		return nil, errors.New("dataset: parts are moved in whole images, not in tiles; give one of them")
	}
	if opt.Tiles.on() {
		var err error
		if l.tiles, err = tilesOf(items, opt.Cache, opt.Tiles, opt.Seed); err != nil {
			return nil, err
		}
	}
	if opt.Noise.Released {
		l.field = simplex.NewField(int64(opt.Seed))
	}
	return l, nil
}

// Steps returns the number of batches of an epoch, the last, maybe smaller,
// one included.
func (l *Loader) Steps() int {
	return (l.count() + l.opt.Batch - 1) / l.opt.Batch
}

// count is how many images or tiles an epoch has.
func (l *Loader) count() int {
	if l.tiles != nil {
		return len(l.tiles)
	}
	return len(l.items)
}

// Epoch iterates over the batches of an epoch, counted from 0, from firstStep
// on; earlier batches are skipped without reading their images. The order is a
// permutation of the items drawn from Seed and epoch; with tiles one of the
// items, of whose tiles as many as are held at once are shuffled among each other. A batch is valid until
// the next one is asked for. The first error (an unreadable image, named, or
// ctx's end) is the last thing yielded. All goroutines have ended when the
// loop has, or soon after it where ctx was cancelled.
func (l *Loader) Epoch(ctx context.Context, epoch, firstStep int) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		if epoch < 0 || firstStep < 0 {
			yield(nil, fmt.Errorf("dataset: epoch %d, step %d: both are counted from 0", epoch, firstStep))
			return
		}
		e := &epochRun{Loader: l, epoch: epoch, order: l.order(epoch), first: firstStep * l.opt.Batch}

		slots := make([]*slot, min(l.opt.Prefetch+1, max(0, l.Steps()-firstStep)))
		for i := range slots {
			slots[i] = l.newSlot()
		}
		jobs := make(chan job, len(slots)*l.opt.Batch)
		inner, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer func() {
			cancelled := ctx.Err() != nil
			cancel()
			if !cancelled { // else a network share that no longer answers would be waited for
				wg.Wait()
			}
		}()
		for range min(l.opt.Workers, cap(jobs)) {
			wg.Go(func() { e.work(inner, jobs) })
		}
		step := firstStep
		for s, err := range ahead.Staged(ctx, l.Steps()-firstStep, len(slots)-1, func(ctx context.Context, i int) func() *slot {
			s := slots[i%len(slots)] // which nobody uses any more
			e.prepare(s, firstStep+i)
			for at := range s.B {
				jobs <- job{s, at, l.placeOf(firstStep+i, at)} // never blocks: room for all slots
			}
			return func() *slot { return s.wait(ctx) }
		}) {
			if err != nil {
				yield(nil, fmt.Errorf("dataset: epoch %d, step %d: %w", epoch, step, err))
				return
			}
			for _, err := range s.errs {
				if err != nil {
					yield(nil, err)
					return
				}
			}
			if !yield(&s.Batch, nil) {
				return
			}
			step++
		}
	}
}

// The random numbers of a run come in streams that share no state.
const (
	orderStream   = iota // of an epoch: which image when
	shuffleStream        // of a step: the pairs of L_SSOT
	noiseStream          // of an image in an epoch: its box and field, or its made-up defects
	lightStream          // of an image in an epoch: its light
	motionStream         // of an image in an epoch: how it is moved
	tileStream           // of a tile in an epoch: its place
)

func (l *Loader) rng(epoch, index int, stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(simplex.ImageSeed(l.opt.Seed, epoch, index), stream))
}

// slot is a batch in the making. Its buffers have room for full batches.
type slot struct {
	Batch
	clean, noisy []float32
	errs         []error       // one per image
	left         atomic.Int64  // images still to be made
	done         chan struct{} // closed when none is left
}

func (l *Loader) newSlot() *slot {
	B := min(l.opt.Batch, l.count())
	s := &slot{clean: make([]float32, max(1, l.share(B))*l.values())}
	if !l.opt.Noise.Off {
		s.noisy = make([]float32, l.share(l.opt.Noise.count(B))*l.values())
	}
	return s
}

// share is how many of the first n images of a batch this process makes.
func (l *Loader) share(n int) int {
	if l.opt.Ranks == 0 {
		return n
	}
	return (n - l.opt.Rank + l.opt.Ranks - 1) / l.opt.Ranks
}

// placeOf is the place in an epoch's order of an image of this process's part of a step's batch.
func (l *Loader) placeOf(step, at int) int {
	first := step * l.opt.Batch
	switch place := first + l.opt.Rank + at*l.opt.Ranks; {
	case l.opt.Ranks == 0:
		return first + at
	case place < min(first+l.opt.Batch, l.count()):
		return place
	}
	return first // of a process without images
}

// wait waits until the batch is made, or for ctx's end.
func (s *slot) wait(ctx context.Context) *slot {
	select {
	case <-s.done:
	case <-ctx.Done():
	}
	return s
}

// values is the number of values of an image, 3*S*S.
func (l *Loader) values() int { return 3 * l.opt.Size * l.opt.Size }

// own says whether this process makes the image at a place in the epoch's order.
func (l *Loader) own(place int) bool {
	return l.opt.Ranks == 0 || place%l.opt.Batch%l.opt.Ranks == l.opt.Rank
}

// job is one image of a slot's batch.
type job struct {
	*slot
	at    int
	place int // in the epoch's order
}

// epochRun is what the workers of one epoch share.
type epochRun struct {
	*Loader
	epoch int
	order []int
	first int   // place in the order that the run begins at
	shelf shelf // tiles that were cut with others
}

// prepare makes the slot ready for the images of a step.
func (e *epochRun) prepare(s *slot, step int) {
	first := step * e.opt.Batch
	all := min(e.opt.Batch, len(e.order)-first)
	s.B = max(1, e.share(all))
	s.Index = make([]int, s.B)
	for at := range s.Index {
		s.Index[at] = e.order[e.placeOf(step, at)]
	}
	s.Clean = s.clean[:s.B*e.values()]
	noisy := 0
	if s.noisy != nil {
		noisy = e.opt.Noise.count(all)
		s.Noisy = s.noisy[:e.share(noisy)*e.values()]
	}
	if e.opt.Ranks > 0 {
		s.Part = Part{Of: all, NoisyOf: noisy, Own: e.share(all)}
	}
	s.Shuffle = s.Shuffle[:0]
	for _, i := range e.rng(e.epoch, step, shuffleStream).Perm(all) {
		s.Shuffle = append(s.Shuffle, int64(i))
	}
	s.errs = make([]error, s.B)
	s.left.Store(int64(s.B))
	s.done = make(chan struct{})
}

// work makes images until ctx ends.
func (e *epochRun) work(ctx context.Context, jobs <-chan job) {
	room, moved := make([]float32, e.values()), []float32(nil)
	if e.opt.Motion != (Motion{}) {
		moved = make([]float32, e.values())
	}
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-jobs:
			j.errs[j.at] = e.makeImage(j, room, moved)
			if j.left.Add(-1) == 0 {
				close(j.done)
			}
		}
	}
}

// makeImage fills one image's part of a batch; room is for its planes, and moved for those of a part that is moved.
func (e *epochRun) makeImage(j job, room, moved []float32) error {
	index := j.Index[j.at]
	planes, frame, path, err := e.planes(j, room)
	if err != nil {
		return err
	}
	if e.opt.Motion != (Motion{}) {
		e.opt.Motion.apply(moved, planes, frame, e.rng(e.epoch, index, motionStream))
		planes, room = moved, moved
	}
	if e.opt.Light != (Light{}) {
		if &planes[0] != &room[0] { // the cache's own
			copy(room, planes)
			planes = room
		}
		e.opt.Light.apply(planes, e.opt.Size, e.rng(e.epoch, index, lightStream))
	}
	from, to := j.at*e.values(), (j.at+1)*e.values()
	e.opt.Norm.Apply(j.Clean[from:to], planes, e.opt.Size)
	if e.opt.Noise.Off {
		return nil
	}
	if to > len(j.Noisy) { // one of those that have none
		return nil
	}
	copy(j.Noisy[from:to], j.Clean[from:to])
	if err := e.disturb(j.Noisy[from:to], planes, index); err != nil {
		return fmt.Errorf("dataset: %s: noise: %w", path, err)
	}
	return nil
}

// planes returns an image's planes, or a tile's, which may be room, the frame
// of an image, and the file.
func (e *epochRun) planes(j job, room []float32) (planes []float32, frame *framing.Frame, path string, err error) {
	index := j.Index[j.at]
	if e.tiles != nil {
		path = e.items[e.tiles[index].item].Path
		planes, err = e.tilePlanes(j.place, room)
		return planes, nil, path, err
	}
	item := e.items[index]
	planes, frame, err = e.opt.Cache.planes(room, item)
	if err == nil && frame.Own() { // what it leaves out is not learned
		if &planes[0] != &room[0] {
			copy(room, planes)
			planes = room
		}
		frame.Fill(planes)
	}
	return planes, frame, item.Path, err
}

// disturb adds lambda * noise to an image's planes within a random box, or
// makes defects up, and writes what comes of it, normalised, to dst.
func (e *epochRun) disturb(dst, planes []float32, index int) error {
	S := e.opt.Size
	rng := e.rng(e.epoch, index, noiseStream)
	if e.opt.Noise.Defects > 0 {
		for range 1 + rng.IntN(e.opt.Noise.Defects) {
			d := drawDefect(rng, S, e.opt.Noise.Lambda)
			if err := d.paint(dst, planes, S, e.opt.Norm); err != nil {
				return err
			}
		}
		return nil
	}
	box := simplex.RandomBox(rng, S)
	field := e.field
	if field == nil {
		field = simplex.NewField(int64(rng.Uint64()))
	}
	noise := make([]float64, 3*box.H*box.W)
	if err := field.Octaves(noise, 3, box.H, box.W, nil); err != nil {
		return err
	}
	for c := range 3 {
		mean, std := e.opt.Norm.Mean[c], e.opt.Norm.Std[c]
		for y := range box.H {
			at := (c*S+box.Y+y)*S + box.X
			row := dst[at:][:box.W]
			for x, v := range planes[at:][:box.W] {
				row[x] = (v + float32(e.opt.Noise.Lambda*noise[x]) - mean) / std
			}
			noise = noise[box.W:]
		}
	}
	return nil
}
