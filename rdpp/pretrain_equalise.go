package rdpp

import (
	"context"
	"fmt"
	"math"
	"slices"

	"rdpp/rdpp/pattern"
	"rdpp/torch"
)

// A teacher's features are compared by cosines, in which channels of large numbers outvote the others. Equalising gives
// every channel of layer1, layer2 and layer3 the same deviation over drawn pictures. Positive factors pass through ReLU
// and max pooling, so batch norms can multiply by them and the convolutions that follow divide by them: the network
// computes what it did, but for these factors.

// equalisedSteps of pictures, which training has not seen, are measured.
const equalisedSteps = 4

// deviations measures the channels of the three layers.
func (r *pretraining) deviations() (deviations [torch.Scales][]float64, err error) {
	pictures, err := pattern.New(r.config.pictures())
	if err != nil {
		return deviations, fmt.Errorf("rdpp: %w", err)
	}
	if err := r.teacher.Train(false); err != nil {
		return deviations, err
	}
	var moments [torch.Scales]channelMoments
	for step := range equalisedSteps {
		batch, err := r.config.draw(context.Background(), pictures, r.config.Steps+step)
		if err != nil {
			return deviations, fmt.Errorf("rdpp: %w", err)
		}
		if err := r.measure(batch, &moments); err != nil {
			return deviations, err
		}
	}
	for k, m := range moments {
		for c, sum := range m.sums {
			mean := sum / m.count
			deviations[k] = append(deviations[k], math.Sqrt(max(m.squares[c]/m.count-mean*mean, 0)))
		}
	}
	return deviations, r.teacher.Train(true)
}

// channelMoments are sums per channel over pictures and positions.
type channelMoments struct {
	sums, squares []float64
	count         float64
}

// measure adds the features of a step's pictures to the moments.
func (r *pretraining) measure(batch *drawn, moments *[torch.Scales]channelMoments) error {
	c := &r.config
	var s torch.Scope
	defer s.Close()
	x := s.Tensor(torch.Images(batch.pixels, c.ImageSize, c.Mean, c.Std, r.opt.Device, torch.Float32)) // B x 3 x S x S
	f := s.Features(r.teacher.Forward(x))
	if err := s.Err(); err != nil {
		return err
	}
	for k := range f {
		shape, err := f[k].Shape() // B x C x H x W
		if err != nil {
			return err
		}
		values, err := torch.Read[float32](f[k])
		if err != nil {
			return err
		}
		C, area, m := int(shape[1]), int(shape[2]*shape[3]), &moments[k]
		if m.sums == nil {
			m.sums, m.squares = make([]float64, C), make([]float64, C)
		}
		m.count += float64(len(values) / C)
		for i, v := range values {
			c := i / area % C
			m.sums[c] += float64(v)
			m.squares[c] += float64(v) * float64(v)
		}
	}
	return nil
}

// equalise changes a teacher's state, by name, so that channel c of layer k+1, whose deviation is deviations[k][c], comes
// out times the factor that it returns: the mean deviation over its own. Channels that hardly ever move stay small.
func equalise(state map[string][]float32, deviations [torch.Scales][]float64) (factors [torch.Scales][]float64) {
	for k, d := range deviations {
		floor := 0.05 * slices.Sorted(slices.Values(d))[len(d)/2]
		mean := 0.0
		for _, v := range d {
			mean += v / float64(len(d))
		}
		for _, v := range d {
			factor := 1.0
			if mean > 0 {
				factor = mean / max(v, floor, 1e-3*mean)
			}
			factors[k] = append(factors[k], factor)
		}
	}
	times := func(norm string, factors []float64) {
		for _, name := range []string{norm + ".weight", norm + ".bias"} {
			for c := range state[name] {
				state[name][c] *= float32(factors[c])
			}
		}
	}
	// The weight of conv, which norm follows: out x in x kernel.
	over := func(conv, norm string, factors []float64) {
		w, in := state[conv+".weight"], len(factors)
		kernel := len(w) / (in * len(state[norm+".weight"]))
		for i := range w {
			w[i] /= float32(factors[i/kernel%in])
		}
	}
	has := func(name string) bool { return state[name+".weight"] != nil }
	for k, own := range factors {
		layer := fmt.Sprintf("layer%d.", k+1)
		for i := 0; has(fmt.Sprint(layer, i, ".conv1")); i++ {
			block := fmt.Sprint(layer, i, ".")
			before := own // what reaches this block comes from this layer, or
			down := has(block + "downsample.0")
			switch {
			case i == 0 && k == 0 && !down: // from the stem, straight into layer1's sums
				times("bn1", own)
			case i == 0 && k == 0: // from the stem, which stays as it is
				before = slices.Repeat([]float64{1}, len(state["bn1.weight"]))
			case i == 0: // from the layer below
				before = factors[k-1]
			}
			over(block+"conv1", block+"bn1", before)
			if down {
				over(block+"downsample.0", block+"downsample.1", before)
				times(block+"downsample.1", own)
			}
			last := "bn2"
			if has(block + "bn3") {
				last = "bn3"
			}
			times(block+last, own)
		}
	}
	return factors
}
