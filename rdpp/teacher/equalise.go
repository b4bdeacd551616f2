package teacher

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"rdpp/torch"
)

// A teacher's features are compared by cosines, in which channels of large numbers outvote the others. Equalising gives
// every channel of layer1, layer2 and layer3 the same deviation over some pictures: drawn ones where a teacher is made, the
// training images where a student is to learn from it. Positive factors pass through ReLU and max pooling, so batch norms
// can multiply by them and the convolutions that follow divide by them: the network computes what it did, but for these
// factors.

// Write puts values, by the names of the state dict, into a teacher.
func Write(into torch.Teacher, values map[string][]float32) error {
	for _, e := range into.State() {
		if v, found := values[e.Name]; found {
			if err := torch.Write(e.Tensor, v); err != nil {
				return err
			}
		}
	}
	return into.Train(false) // forms of the weights that were made for speed are of the old ones
}

// Read is a teacher's state dict without the counts of batches.
func Read(from torch.Teacher) (map[string][]float32, error) {
	state := map[string][]float32{}
	for _, e := range from.State() {
		if strings.HasSuffix(e.Name, "num_batches_tracked") {
			continue
		}
		values, err := torch.Read[float32](e.Tensor)
		if err != nil {
			return nil, err
		}
		state[e.Name] = values
	}
	return state, nil
}

// Moments are sums per channel of each layer over pictures and positions.
type Moments [torch.Scales]struct {
	sums, squares []float64
	count         float64
}

// Add adds the teacher's features of images x, B x 3 x S x S.
func (m *Moments) Add(teacher torch.Teacher, x *torch.Tensor) error {
	var s torch.Scope
	defer s.Close()
	f := s.Features(teacher.Forward(x))
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
		C, area, layer := int(shape[1]), int(shape[2]*shape[3]), &m[k]
		if layer.sums == nil {
			layer.sums, layer.squares = make([]float64, C), make([]float64, C)
		}
		layer.count += float64(len(values) / C)
		for i := 0; i < len(values); i += area {
			c, sum, squares := i/area%C, 0.0, 0.0
			for _, v := range values[i : i+area] {
				sum += float64(v)
				squares += float64(v) * float64(v)
			}
			layer.sums[c] += sum
			layer.squares[c] += squares
		}
	}
	return nil
}

// Deviations of the channels, per layer.
func (m *Moments) Deviations() (deviations [torch.Scales][]float64) {
	for k, layer := range m {
		for c, sum := range layer.sums {
			mean := sum / layer.count
			deviations[k] = append(deviations[k], math.Sqrt(max(layer.squares[c]/layer.count-mean*mean, 0)))
		}
	}
	return deviations
}

// Equalise changes a teacher's state, by name, so that channel c of layer k+1, whose deviation is deviations[k][c], comes
// out times the factor that it returns: the mean deviation over its own, or over floor times the layer's median where that is
// more, so that channels that hardly ever move stay small.
func Equalise(state map[string][]float32, deviations [torch.Scales][]float64, floor float64) (factors [torch.Scales][]float64) {
	for k, d := range deviations {
		least := floor * slices.Sorted(slices.Values(d))[len(d)/2]
		mean := 0.0
		for _, v := range d {
			mean += v / float64(len(d))
		}
		for _, v := range d {
			factor := 1.0
			if mean > 0 {
				factor = mean / max(v, least, 1e-3*mean)
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
