package rdpp_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/imagefile"
	"rdpp/torch"
)

// What many goroutines bring is scored as alone, to the bit, and what fails fails alone.
func TestBatcher(t *testing.T) {
	d := openDetector(t, nil)
	failure := errors.New("no such picture")
	images := []*imagefile.Image{picture(64, 64), picture(100, 40), picture(31, 90), picture(32, 32)}
	var want []*rdpp.Result
	for _, img := range images {
		want = append(want, detect(t, d, img))
	}
	for _, size := range []int{0, 1, 3, 8} {
		b := d.Batcher(size)
		if size > 0 && b.InFlight() < 2*size+1 {
			t.Errorf("size %d: got %d in flight, want two batches and more", size, b.InFlight())
		}
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				k := i % (len(images) + 2)
				got, img, err := b.Detect(t.Context(), func() (*imagefile.Image, error) {
					switch k {
					case len(images):
						return nil, failure
					case len(images) + 1:
						return &imagefile.Image{W: 2, H: 2, Pix: make([]uint8, 11)}, nil
					}
					return images[k], nil
				})
				switch {
				case k == len(images):
					checkError(t, fmt.Sprint("unreadable, size ", size), err, failure)
				case k > len(images):
					checkError(t, fmt.Sprint("odd, size ", size), err, nil, "bytes")
				case err != nil || img != images[k] || !reflect.DeepEqual(got, want[k]):
					t.Errorf("size %d, image %d: got %+v, error %v, want %+v", size, k, got, err, want[k])
				}
			})
		}
		wg.Wait()
		b.Close()
		b.Close()
		_, _, err := b.Detect(t.Context(), func() (*imagefile.Image, error) { return images[0], nil })
		checkError(t, "closed", err, torch.ErrClosed)
	}
}

// Who waits for a pass, or for a place to decode in, goes on when the context ends.
func TestBatcherInterrupted(t *testing.T) {
	d := openDetector(t, nil)
	b := d.Batcher(1)
	defer b.Close()
	ctx, cancel := context.WithCancel(t.Context())
	decode := func() (*imagefile.Image, error) { cancel(); return picture(32, 32), nil }
	if r, _, err := b.Detect(ctx, decode); err != nil && !errors.Is(err, context.Canceled) || err == nil && r == nil {
		t.Errorf("got %v, error %v, want a result or %v", r, err, context.Canceled)
	}
	if _, _, err := b.Detect(ctx, decode); !errors.Is(err, context.Canceled) {
		t.Errorf("begun afterwards: got error %v, want %v", err, context.Canceled)
	}
}

// An evaluation's scores and metrics are the same to the bit for batches of any size.
func TestEvaluateInBatches(t *testing.T) {
	set := openSet(t, dataDir)
	var want *rdpp.Evaluation
	for _, size := range []int{1, 2, 3, 5, 8, 0} {
		d, err := rdpp.OpenDetector(trainedModel(t), &rdpp.DetectorOptions{Batch: size})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		got, err := d.Evaluate(t.Context(), set)
		if err != nil {
			t.Fatal(err)
		}
		got.Seconds = 0
		if want == nil {
			want = got
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("batches of %d: got %+v, want %+v", size, got, want)
		}
	}
}
