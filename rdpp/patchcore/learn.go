package patchcore

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/method"
	"rdpp/rdpp/state"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// prefixSeen is before the names of the patches in a checkpoint, a tensor per batch.
const prefixSeen = "seen."

// learner remembers the patches of all images, and in the end keeps a coreset of them.
type learner struct {
	c      *remembering
	net    *memory
	images int             // that there are to see
	seen   []*torch.Tensor // per batch: its patches, rows of D, Float16, on the net's device
}

// Learner returns what fills the bank.
func (c *remembering) Learner(net method.Net, o method.LearnerOptions) (method.Learner, error) {
	n, own := net.(*memory)
	if !own {
		return nil, fmt.Errorf("patchcore: a net of type %T is not this method's", net)
	}
	n.images = o.Images
	return &learner{c: c, net: n, images: o.Images}, nil
}

// Begin readies the teacher.
func (l *learner) Begin(context.Context, method.Images) error { return l.net.Settle() }

// Step remembers the patches of a batch. There is no loss.
func (l *learner) Step(batch *dataset.Batch, step, of int) (anomaly.Losses, error) {
	S := int64(l.c.ImageSize)
	var s torch.Scope
	defer s.Close()
	host := s.Tensor(torch.FromSlice(batch.Clean, int64(batch.B), 3, S, S))
	x := s.Tensor(host.To(l.net.device, torch.Float32)) // B x 3 x S x S
	f := s.Features(l.net.teacher.Forward(x))
	patches := s.Tensor(torch.Patches(f, l.c.PatchDimensions)) // B x S/8 x S/8 x D
	if err := s.Err(); err != nil {
		return nil, err
	}
	half, err := patches.To(l.net.device, torch.Float16)
	if err != nil {
		return nil, err
	}
	l.seen = append(l.seen, half)
	return nil, nil
}

// State lists the teacher and what has been seen.
func (l *learner) State(*torch.Scope) ([]weights.Source, error) {
	all := state.Of([]state.Part{{Prefix: prefixTeacher, Net: l.net.teacher}})
	for i, t := range l.seen {
		all = append(all, state.Source(seenName(i), t))
	}
	return all, nil
}

func seenName(i int) string { return fmt.Sprintf("%s%d", prefixSeen, i) }

// Growth is what the patches of all images take that have not been seen.
func (l *learner) Growth() (int64, error) {
	seen, err := l.patches()
	return max(0, int64(l.images)*l.c.positions()-seen) * int64(l.c.dimensions()*torch.Float16.Size()), err
}

// Restore is the way back from State.
func (l *learner) Restore(file *weights.File, _ anomaly.Facts) error {
	if err := l.net.fill(file, state.Part{Prefix: prefixTeacher, Net: l.net.teacher}); err != nil {
		return err
	}
	batches := 0
	for _, t := range file.Tensors {
		if strings.HasPrefix(t.Name, prefixSeen) {
			batches++
		}
	}
	for i := range batches {
		stored, found := file.Lookup(seenName(i))
		if !found {
			return fmt.Errorf("tensor %s is missing; restore the file or train again", seenName(i))
		}
		if n := len(stored.Shape); n == 0 || stored.Shape[n-1] != l.c.dimensions() {
			return fmt.Errorf("tensor %s has shape %v, needed are rows of %d; is it of another architecture?", seenName(i), stored.Shape,
				l.c.dimensions())
		}
		wide, err := state.Tensor(file, seenName(i), l.net.device)
		if err != nil {
			return err
		}
		half, err := wide.To(l.net.device, torch.Float16)
		wide.Close()
		if err != nil {
			return err
		}
		l.seen = append(l.seen, half)
	}
	return l.net.Settle()
}

// Close forgets what has been seen.
func (l *learner) Close() {
	for _, t := range l.seen {
		t.Close()
	}
	l.seen = nil
}

// chosenAtATime is how many patches are chosen between two looks at whether somebody wants to end it.
const chosenAtATime = 50

// Finish fills the net's bank with a coreset of all that has been seen.
func (l *learner) Finish(ctx context.Context, _ method.Images, last bool) (method.Net, error) {
	count, err := l.patches()
	if err != nil {
		return nil, err
	}
	if whole := int64(l.images) * l.c.positions(); count == 0 || count < whole {
		return nil, fmt.Errorf("patchcore: %d patches of %d have been seen; restore the checkpoint or train again", count, whole)
	}
	var s torch.Scope
	defer s.Close()
	random := rand.New(rand.NewPCG(method.SeedOf(prefixBank, l.c.Seed), 0))
	signs := s.Tensor(l.signs(random))
	if err := s.Err(); err != nil {
		return nil, err
	}
	search, err := torch.NewCoreset(l.seen, signs, starts(random, count, l.c.CoresetStarts))
	if err != nil {
		return nil, err
	}
	defer search.Close()
	if last { // the search has what it needs
		l.Close()
	}
	size := l.c.kept(count)
	for chosen := 0; chosen < size; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if chosen, err = search.Grow(min(size-chosen, chosenAtATime)); err != nil {
			return nil, err
		}
	}
	chosen := s.Tensor(search.Patches())
	if err := s.Err(); err != nil {
		return nil, err
	}
	search.Close()
	if err := l.net.newBank(size); err != nil {
		return nil, err
	}
	data, err := chosen.ReadBytes()
	if err != nil {
		return nil, err
	}
	if err := l.net.bank.State()[0].Tensor.WriteBytes(torch.Float16, data); err != nil {
		return nil, err
	}
	return l.net, l.net.Settle()
}

// patches counts those that have been seen.
func (l *learner) patches() (count int64, err error) {
	for _, t := range l.seen {
		n, err := t.Len()
		if err != nil {
			return 0, err
		}
		count += n / int64(l.c.dimensions())
	}
	return count, nil
}

// signs are a very sparse random projection (Li, Hastie and Church, 2006), D x CoresetDimensions, in which one of sqrt(D) is
// not zero; nil where patches have no more dimensions than that.
func (l *learner) signs(random *rand.Rand) (*torch.Tensor, error) {
	D, K := l.c.dimensions(), l.c.CoresetDimensions
	if K == 0 || K >= D {
		return nil, nil
	}
	signs := make([]float32, D*K)
	share := 1 / math.Sqrt(float64(D))
	for i := range signs {
		if random.Float64() < share {
			signs[i] = float32(2*random.IntN(2) - 1)
		}
	}
	return torch.FromSlice(signs, int64(D), int64(K))
}

// starts draws the numbers of n of count patches, or of all, each once, in ascending order.
func starts(random *rand.Rand, count int64, n int) []int64 {
	drawn := map[int64]bool{}
	for int64(len(drawn)) < min(int64(n), count) {
		drawn[random.Int64N(count)] = true
	}
	numbers := make([]int64, 0, len(drawn))
	for i := range drawn {
		numbers = append(numbers, i)
	}
	slices.Sort(numbers)
	return numbers
}
