package export

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"rdpp/rdpp/weights"
)

// Cross makes a Model CSFlow: its Tensors are the state dicts of teacher ("encoder.") and cross-scale flow ("flow."), of type
// F32 but for the orders of channels, which are I64.
type Cross struct {
	Blocks  int     // coupling blocks
	Clamp   float64 // largest logarithm of a coupling's scale
	Product bool    // a map is the product of all scales', instead of the finest one's
	OfMap   bool    // an image's score is its map's maximum, instead of half the mean square over all scales
}

func (c *Cross) validate(m *Model) error {
	switch {
	case c.Blocks < 1:
		return fmt.Errorf("a flow of %d blocks; use 1 or more", c.Blocks)
	case !(c.Clamp > 0 && c.Clamp <= math.MaxFloat32):
		return fmt.Errorf("a clamp of %v; it must be positive", c.Clamp)
	case m.Frame != nil && !m.Frame.All() && !c.OfMap:
		return errors.New("a score of all scales that leaves some of the picture out; use the map's maximum")
	}
	return nil
}

// stride is that of the teacher's coarsest features, in pixels.
func (m *Model) stride() int {
	if slices.ContainsFunc(m.Tensors, func(t weights.Source) bool { return t.Name == stemEfficientNet }) {
		return 32
	}
	return 16
}

// side is that of scale k's features.
func (m *Model) side(k int) int {
	step := m.stride() << k
	return (m.Size + step - 1) / step
}

// pyramid are the teacher's coarsest features of x, of every second pixel of it and of every fourth.
func (n *network) pyramid(x string, S int) (y [scales]string) {
	for k := range y {
		seen := x
		if k > 0 {
			var every []int64
			for at := 0; at < S; at += 1 << k {
				every = append(every, int64(at))
			}
			index := integers(fmt.Sprint("pyramid.every.", 1<<k), every)
			seen = n.gather(n.gather(x, index, 2), index, 3)
		}
		y[k] = n.teacher(seen)[scales-1]
	}
	return y
}

// order is that of a scale's channels, C, in two parts of which the first has half of them.
func (n *network) order(name string) (head, tail weights.Source) {
	t, found := n.tensors[name]
	if !found || t.DType != weights.I64 || len(t.Shape) != 1 || t.Shape[0] < 2 {
		n.fail("tensor %s is missing or no order of channels; export a complete model", name)
		return
	}
	half := t.Shape[0] / 2
	part := func(suffix string, from, to int) weights.Source {
		return weights.Source{Name: name + suffix, DType: weights.I64, Shape: []int{to - from}, Bytes: func() ([]byte, error) {
			data, err := elements(t)
			if err != nil {
				return nil, err
			}
			return data[8*from : 8*to], nil
		}}
	}
	return part(".head", 0, half), part(".tail", half, t.Shape[0])
}

// channels from a number up to another, as an index.
func numbered(from, to int) weights.Source {
	var all []int64
	for i := from; i < to; i++ {
		all = append(all, int64(i))
	}
	return integers(fmt.Sprintf("channels.%d.%d", from, to), all)
}

// biased is a convolution with a bias that keeps the size, or with a stride halves it.
func (n *network) biased(x, name string, stride int) string {
	weight := n.tensor(name+".weight", 4)
	if n.err != nil {
		return x
	}
	return n.conv(x, conv{name: name, weight: weight, bias: n.vector(name+".bias", weight.Shape[0]), stride: stride, padding: weight.Shape[2] / 2})
}

// crossConvs is a sub-network of the flow.
func (n *network) crossConvs(x [scales]string, name string, m *Model) (out [scales]string) {
	var y [scales]string
	for k := range x {
		y[k] = n.leaky(n.biased(x[k], fmt.Sprint(name, ".first", k), 1), 0.1)
	}
	for k := range y {
		out[k] = n.biased(y[k], fmt.Sprint(name, ".second", k), 1)
		if k > 0 {
			out[k] = n.add(out[k], n.biased(y[k-1], fmt.Sprint(name, ".down", k), 2))
		}
		if k+1 < scales {
			out[k] = n.add(out[k], n.biased(n.stretch(y[k+1], m.side(k)), fmt.Sprint(name, ".up", k), 1))
		}
		gamma := n.vector(fmt.Sprint(name, ".gamma", k), 1)
		if n.err != nil {
			return out
		}
		out[k] = n.times(out[k], gamma)
	}
	return out
}

// couple changes halves of the channels, of so many each, by what a sub-network makes of the others.
func (n *network) couple(half, raw [scales]string, channels int, clamp float64) [scales]string {
	factor := func(name string, value float64) weights.Source {
		return float32s("clamp."+name, []float32{float32(value)}, 1)
	}
	for k := range half {
		s := n.times(n.gather(raw[k], numbered(0, channels), 1), factor("in", 1/clamp))
		s = n.times(n.atan(s), factor("out", 2/math.Pi*clamp))
		half[k] = n.add(n.product(half[k], n.exp(s)), n.gather(raw[k], numbered(channels, 2*channels), 1))
	}
	return half
}

// crossFlow maps features to latent values of the same shapes.
func (n *network) crossFlow(y [scales]string, m *Model) (z [scales]string) {
	for b := range m.Cross.Blocks {
		name := fmt.Sprint("flow.block", b)
		var head, tail weights.Source
		var first, second [scales]string
		for k := range y {
			if head, tail = n.order(fmt.Sprint(name, ".order", k)); n.err != nil {
				return y
			}
			first[k], second[k] = n.gather(y[k], head, 1), n.gather(y[k], tail, 1)
		}
		first = n.couple(first, n.crossConvs(second, name+".r2", m), head.Shape[0], m.Cross.Clamp)
		second = n.couple(second, n.crossConvs(first, name+".r1", m), tail.Shape[0], m.Cross.Clamp)
		if n.err != nil {
			return y
		}
		for k := range y {
			y[k] = n.concat(first[k], second[k])
		}
	}
	return y
}

// buildCSFlow adds the operations from the images to the outputs.
func (m *Model) buildCSFlow(n *network, x string) {
	z := n.crossFlow(n.pyramid(x, m.Size), m)
	if n.err != nil {
		return
	}
	positions := 0
	for k := range z {
		positions += m.side(k) * m.side(k)
	}
	half := float32s("level.half", []float32{0.5}, 1)
	anomaly, score := "", ""
	for k := range z {
		level := n.times(n.meanSquare(z[k]), half)
		if k == 0 {
			anomaly = n.stretch(level, m.Size)
		} else if m.Cross.Product {
			anomaly = n.product(anomaly, n.stretch(level, m.Size))
		}
		share := float32(m.side(k)*m.side(k)) / float32(positions)
		part := n.times(n.average(level), float32s(fmt.Sprint("level.share.", k), []float32{share}, 1))
		if k == 0 {
			score = part
		} else {
			score = n.add(score, part)
		}
	}
	anomaly = m.blank(n, n.smooth(anomaly, m.Size, m.Sigma))
	if m.Cross.OfMap {
		score = ""
	}
	n.finish(anomaly, score, m)
}
