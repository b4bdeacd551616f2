package detector

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"rdpp/rdpp/config"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/method"
	"rdpp/rdpp/modelfile"
	"rdpp/torch"
)

const side = 32

// heldNet has 0 for every map and score, counts the images of each pass, and waits in it until it is let go.
type heldNet struct {
	method.Net
	batches []int
	release chan struct{}
}

func (n *heldNet) Predict(x *torch.Tensor) (maps, scores *torch.Tensor, err error) {
	values, err := torch.Read[float32](x)
	if err != nil {
		return nil, nil, err
	}
	images := len(values) / (3 * side * side)
	n.batches = append(n.batches, images)
	<-n.release
	if maps, err = torch.FromSlice(make([]float32, images*side*side), int64(images), side, side); err == nil {
		scores, err = torch.FromSlice(make([]float32, images), int64(images))
	}
	return maps, scores, err
}

func (n *heldNet) Close() {}

// held is a detector with such a net. It belongs in a bubble of synctest.
func held(t *testing.T) (*Detector, *heldNet) {
	net := &heldNet{release: make(chan struct{})}
	framer, err := framing.New(framing.View{}, side)
	if err != nil {
		t.Fatal(err)
	}
	d := &Detector{model: &modelfile.Model{Net: net, Framer: framer}, worker: torch.NewWorker()}
	d.model.Info.Config = config.Default()
	d.model.Info.Config.ImageSize = side
	t.Cleanup(d.worker.Close)
	return d, net
}

// asking brings an image to the batcher, whose error is to be had later.
func asking(ctx context.Context, b *Batcher) chan error {
	done := make(chan error, 1)
	go func() {
		_, _, err := b.Detect(ctx, func() (*imagefile.Image, error) {
			return &imagefile.Image{W: side, H: side, Pix: make([]uint8, 3*side*side)}, nil
		})
		done <- err
	}()
	synctest.Wait()
	return done
}

// What has come while the networks were busy goes through them together, as many at a time as are allowed.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, net := held(t)
		b := d.Batcher(3)
		var all []chan error
		for range 5 {
			all = append(all, asking(t.Context(), b))
		}
		close(net.release)
		for i, done := range all {
			if err := <-done; err != nil {
				t.Errorf("image %d: got %v", i, err)
			}
		}
		b.Close()
		if want := []int{1, 3, 1}; !slices.Equal(net.batches, want) {
			t.Errorf("got passes of %v images, want %v", net.batches, want)
		}
	})
}

// Who waits for a pass leaves when there is no more reason to, and Close turns the others away.
func TestBatcherWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, net := held(t)
		b := d.Batcher(3)
		taken := asking(t.Context(), b)
		ctx, cancel := context.WithCancel(t.Context())
		leaves, waits := asking(ctx, b), asking(t.Context(), b)
		cancel()
		if err := <-leaves; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %v, want %v", err, context.Canceled)
		}
		closed := make(chan struct{})
		go func() { b.Close(); close(closed) }()
		synctest.Wait()
		close(net.release)
		<-closed
		if err := <-taken; err != nil {
			t.Errorf("in the pass: got %v, want a result", err)
		}
		if err := <-waits; !errors.Is(err, torch.ErrClosed) {
			t.Errorf("waiting: got %v, want %v", err, torch.ErrClosed)
		}
		if want := []int{1}; !slices.Equal(net.batches, want) {
			t.Errorf("got passes of %v images, want %v", net.batches, want)
		}
	})
}
