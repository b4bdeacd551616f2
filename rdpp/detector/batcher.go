package detector

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sync/semaphore"

	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/modelfile"
	"rdpp/torch"
)

// Batcher scores images that many goroutines bring one by one. What waits when the device is free goes through the networks
// in one pass, so that nobody waits for images that are not there. It is safe for concurrent use.
type Batcher struct {
	detector *Detector
	size     int
	decoders int
	decoding *semaphore.Weighted
	waiting  chan *waiter
	quit     chan struct{}
	once     sync.Once
	done     chan struct{}
}

// waiter is an image that waits for its pass.
type waiter struct {
	input  *Input
	done   chan struct{} // closed when the following are set
	result *Result
	err    error
}

// Batcher returns one whose passes have at most size images, 0: BatchSize. Close it before the detector.
func (d *Detector) Batcher(size int) *Batcher {
	if size < 1 {
		size = d.BatchSize()
	}
	decoders := max(runtime.GOMAXPROCS(0), 2)
	b := &Batcher{detector: d, size: size, decoders: decoders, decoding: semaphore.NewWeighted(int64(decoders)),
		waiting: make(chan *waiter), quit: make(chan struct{}), done: make(chan struct{})}
	go b.work()
	return b
}

// InFlight is how many calls of Detect at a time keep the device busy: a batch in the device, the next one, and images that
// are being decoded.
func (b *Batcher) InFlight() int { return 2*b.size + b.decoders }

// Close ends the batcher when the images that it has taken have been through the networks, which is the pass under way and on a
// GPU what is left for one more. Calls that wait or come later get torch.ErrClosed. It is idempotent.
func (b *Batcher) Close() {
	b.once.Do(func() { close(b.quit) })
	<-b.done
}

// Detect scores an image as Detector.Detect does. decode, which at most as many calls as there are processors do at a time,
// returns it; its error comes back as it is. What waits ends when ctx does.
func (b *Batcher) Detect(ctx context.Context, decode func() (*imagefile.Image, error)) (*Result, *imagefile.Image, error) {
	return b.DetectIgnoring(ctx, func() (*imagefile.Image, *imagefile.Mask, error) {
		img, err := decode()
		return img, nil, err
	})
}

// DetectIgnoring is Detect of an image with a mask of its own, of what is not scored; nil: none. See
// Detector.PrepareIgnoring.
func (b *Batcher) DetectIgnoring(ctx context.Context, decode func() (*imagefile.Image, *imagefile.Mask, error)) (*Result, *imagefile.Image, error) {
	img, input, err := b.prepare(ctx, decode)
	if err != nil {
		return nil, nil, err
	}
	result, err := b.measure(ctx, input)
	if err == nil {
		err = result.Judge(&b.detector.calibration)
	}
	if err != nil {
		return nil, nil, err
	}
	return result, img, nil
}

func (b *Batcher) prepare(ctx context.Context, decode func() (*imagefile.Image, *imagefile.Mask, error)) (*imagefile.Image, *Input, error) {
	if err := b.decoding.Acquire(ctx, 1); err != nil {
		return nil, nil, err
	}
	defer b.decoding.Release(1)
	img, ignore, err := decode()
	if err != nil {
		return nil, nil, err
	}
	input, err := b.detector.PrepareIgnoring(img, ignore)
	return img, input, err
}

func (b *Batcher) measure(ctx context.Context, input *Input) (*Result, error) {
	w := &waiter{input: input, done: make(chan struct{})}
	select {
	case b.waiting <- w:
	case <-b.done:
		return nil, fmt.Errorf("detector: detect: %w", torch.ErrClosed)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-w.done:
		return w.result, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// work takes what waits through the networks until the batcher is closed.
func (b *Batcher) work() {
	defer close(b.done)
	var taken []*waiter
	for {
		if len(taken) == 0 {
			if b.closing() {
				return
			}
			select {
			case w := <-b.waiting:
				taken = append(taken, w)
			case <-b.quit:
				return
			}
		}
		for more := !b.closing(); more && len(taken) < b.size; {
			select {
			case w := <-b.waiting:
				taken = append(taken, w)
			default:
				more = false
			}
		}
		n := len(taken)
		if b.detector.model.Device != torch.CPU && n < b.size {
			n = modelfile.PowerOfTwo(n) // a GPU prepares for every number of images anew
		}
		b.pass(taken[:n])
		clear(taken[:n]) // what others hold no longer is free
		taken = taken[n:]
	}
}

// closing says whether no more images are to be taken.
func (b *Batcher) closing() bool {
	select {
	case <-b.quit:
		return true
	default:
		return false
	}
}

// pass takes a batch through the networks.
func (b *Batcher) pass(batch []*waiter) {
	inputs := make([]*Input, len(batch))
	for i, w := range batch {
		inputs[i] = w.input
	}
	results, errs := b.detector.MeasureEach(inputs)
	for i, w := range batch {
		w.result, w.err = results[i], errs[i]
		close(w.done)
	}
}
