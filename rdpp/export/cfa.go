package export

import (
	"fmt"

	"rdpp/rdpp/weights"
)

// Spheres makes a Model CFA: its Tensors are the state dicts of teacher ("encoder.") and descriptor ("descriptor.").
type Spheres struct {
	Near  int // K nearest rows of the bank, whose softmin weights the distance of the nearest one
	Bytes int // of an image's distances from the bank that are in memory at a time; those of one position are in any case
}

func (s *Spheres) validate() error {
	if s.Near < 1 {
		return fmt.Errorf("the nearest %d rows; use 1 or more", s.Near)
	}
	return nil
}

// described are what the descriptor makes of the teacher's features, averaged around every position and stretched to layer1's,
// and of the position's coordinates, less the bank's mean: B x D x side x side. What it makes of the coordinates is the same for
// all images.
func (n *network) described(f [scales]string, mean []float64, side int) string {
	const name = "descriptor.conv"
	weight := n.tensor(name+".weight", 4)
	C := n.channels("layer1") + n.channels("layer2") + n.channels("layer3")
	if n.err == nil && (weight.Shape[0] < 1 || fmt.Sprint(weight.Shape[1:]) != fmt.Sprint([]int{C + 2, 1, 1})) {
		n.fail("tensor %s.weight has shape %v; [D %d 1 1] is needed; export teacher and descriptor of one model", name, weight.Shape, C+2)
	}
	if n.err != nil {
		return ""
	}
	D := weight.Shape[0]
	seen := make([]string, scales)
	for k := range f {
		if seen[k] = n.meanPool(f[k]); k > 0 {
			seen[k] = n.stretch(seen[k], side)
		}
	}
	// part are the weights from channel first up to end.
	part := func(first, end int) ([]float32, error) {
		values, err := read(weight)
		if err != nil {
			return nil, err
		}
		of := make([]float32, 0, D*(end-first))
		for d := range D {
			of = append(of, values[d*(C+2)+first:d*(C+2)+end]...)
		}
		return of, nil
	}
	features := weights.Source{Name: name + ".features", DType: weights.F32, Shape: []int{D, C, 1, 1}, Bytes: func() ([]byte, error) {
		of, err := part(0, C)
		return littleEndian(of), err
	}}
	coordinate := func(suffix string, channel int, shape []int) weights.Source {
		return weights.Source{Name: name + suffix, DType: weights.F32, Shape: shape, Bytes: func() ([]byte, error) {
			of, err := part(channel, channel+1)
			if err != nil {
				return nil, err
			}
			all := make([]float32, 0, D*side)
			for _, w := range of {
				for i := range side {
					all = append(all, float32(float64(w)*(2*float64(i)/float64(side-1)-1)))
				}
			}
			return littleEndian(all), nil
		}}
	}
	bias := n.vector(name+".bias", D)
	if n.err != nil {
		return ""
	}
	x := n.conv(n.concat(seen...), conv{name: name, weight: features, bias: less(bias, mean), stride: 1})
	x = n.plus(x, coordinate(".row", C, []int{1, D, side, 1}))
	return n.plus(x, coordinate(".column", C+1, []int{1, D, 1, side}))
}

// less are rows of numbers, ... x D, less their mean.
func less(t weights.Source, mean []float64) weights.Source {
	of := t
	of.Bytes = func() ([]byte, error) {
		values, err := read(t)
		if err != nil {
			return nil, err
		}
		left := make([]float32, len(values))
		for i, v := range values {
			left[i] = float32(float64(v) - mean[i%len(mean)])
		}
		return littleEndian(left), nil
	}
	return of
}

// meanOf is that of a bank's rows, M x D: D. Without it rows are not much longer than they are apart, and their products, by which
// the nearest are found, do not cancel to rounding.
func (n *network) meanOf(rows weights.Source) []float64 {
	values, err := read(rows)
	if err != nil {
		n.fail("%w", err)
		return nil
	}
	mean := make([]float64, rows.Shape[1])
	for i, v := range values {
		mean[i%len(mean)] += float64(v) / float64(rows.Shape[0])
	}
	return mean
}

// buildCFA adds the operations from the features of the teacher to the outputs.
func (m *Model) buildCFA(n *network, f [scales]string) {
	side := m.Size / 4
	weight, centres := n.tensor("descriptor.conv.weight", 4), n.tensor("descriptor.centres", 2)
	if n.err != nil {
		return
	}
	if D := weight.Shape[0]; centres.Shape[1] != D || centres.Shape[0] < m.Spheres.Near {
		n.fail("tensor descriptor.centres has shape %v; at least %d rows of %d are needed; export a complete model", centres.Shape, m.Spheres.Near, D)
		return
	}
	mean := n.meanOf(centres)
	if n.err != nil {
		return
	}
	phi := n.described(f, mean, side)
	if n.err != nil {
		return
	}
	atATime := min(max(1, m.Spheres.Bytes/(4*centres.Shape[0])), side*side)
	x := n.stretch(n.nearness(phi, rowsOf(less(centres, mean)), side, m.Spheres.Near, atATime), m.Size)
	n.finish(m.blank(n, n.smooth(x, m.Size, m.Sigma)), "", m)
}
