package export

import (
	"fmt"
	"math"

	"rdpp/rdpp/weights"
)

// Flow makes a Model FastFlow: its Tensors are the state dicts of teacher ("encoder.") and flows ("flow."). Sigmas below an
// eighth of a pixel leave the map as it is.
type Flow struct {
	Steps      int     // of each scale's flow
	Clamp      float64 // largest logarithm of a coupling's scale
	Likelihood bool    // a position's value is m, half the mean of its squared z, instead of 1 - exp(-m)
}

func (f *Flow) validate() error {
	switch {
	case f.Steps < 1:
		return fmt.Errorf("flows of %d steps; use at least 1", f.Steps)
	case !(f.Clamp > 0 && f.Clamp <= math.MaxFloat32):
		return fmt.Errorf("a clamp of %v; use more than 0", f.Clamp)
	}
	return nil
}

// What csrc/fastflow.cpp makes of a sub-network's results, and of a channel's parameter.
const (
	flowShare      = 0.1
	flowScaleShare = 0.1
	flowScaleBeta  = 0.5
)

// flow is the noise that becomes of a scale's features x, B x C x side x side.
func (n *network) flow(x, layer string, side int, o *Flow) string {
	C := n.channels(layer)
	if n.err != nil {
		return x
	}
	name := "flow." + layer
	weight, bias := n.normalising(name, C, side)
	x = n.layerNorm(x, weight, bias)
	for i := range o.Steps {
		x = n.flowStep(x, fmt.Sprint(name, ".", i), C, o.Clamp)
	}
	return x
}

// normalising are the weights and biases of a layer norm, 1 and 0 where the state dict has none.
func (n *network) normalising(name string, C, side int) (weight, bias weights.Source) {
	shape := []int{C, side, side}
	if !n.has(name + ".norm_weight") {
		constant := func(of string, value float32) weights.Source {
			values := make([]float32, C*side*side)
			for i := range values {
				values[i] = value
			}
			return float32s(name+of, values, shape...)
		}
		return constant(".norm_weight", 1), constant(".norm_bias", 0)
	}
	weight, bias = n.tensor(name+".norm_weight", 3), n.tensor(name+".norm_bias", 3)
	for _, t := range []weights.Source{weight, bias} {
		if n.err == nil && fmt.Sprint(t.Shape) != fmt.Sprint(shape) {
			n.fail("tensor %s has shape %v; %v is needed", t.Name, t.Shape, shape)
		}
	}
	return weight, bias
}

// flowStep is the coupling of one half of the channels by the other, each channel's own scale and shift, and their order.
func (n *network) flowStep(x, name string, C int, clamp float64) string {
	kept := C - C/2
	a := n.flowConv(n.relu(n.flowConv(n.gather(x, between(0, kept), 1), name+".conv1", 1)), name+".conv2", flowShare)
	if n.err != nil {
		return x
	}
	logs := n.times(n.tanh(n.gather(a, between(0, C/2), 1)), float32s("flow.clamp", []float32{float32(clamp)}, 1))
	changed := n.add(n.product(n.gather(x, between(kept, C), 1), n.exp(logs)), n.gather(a, between(C/2, C/2*2), 1))
	x = n.concat(n.gather(x, between(0, kept), 1), changed)
	scale, offset := n.vector(name+".scale", C), n.vector(name+".offset", C)
	order, found := n.tensors[name+".order"]
	if !found || order.DType != weights.I64 || len(order.Shape) != 1 || order.Shape[0] != C {
		n.fail("tensor %s.order is missing, or no order of %d channels; export a complete model", name, C)
	}
	if n.err != nil {
		return x
	}
	x = n.plus(n.times(x, perChannel(scale, softplus)), perChannel(offset, nil))
	return n.gather(x, order, 1)
}

// flowConv is a sub-network's convolution, whose result is made smaller by a factor.
func (n *network) flowConv(x, name string, factor float64) string {
	weight := n.tensor(name+".weight", 4)
	if n.err != nil {
		return x
	}
	bias := n.vector(name+".bias", weight.Shape[0])
	if factor != 1 {
		scaled := func(v float64) float64 { return v * factor }
		weight, bias = mapped(weight, scaled), mapped(bias, scaled)
	}
	return n.conv(x, conv{name: name, weight: weight, bias: bias, stride: 1, padding: weight.Shape[2] / 2})
}

// between are the channels from first up to end.
func between(first, end int) weights.Source {
	numbers := make([]int64, end-first)
	for i := range numbers {
		numbers[i] = int64(first + i)
	}
	return integers(fmt.Sprintf("channels.%d.%d", first, end), numbers)
}

// mapped is a tensor of f of each value.
func mapped(t weights.Source, f func(float64) float64) weights.Source {
	of := t
	of.Bytes = func() ([]byte, error) {
		values, err := read(t)
		if err != nil {
			return nil, err
		}
		for i, v := range values {
			values[i] = float32(f(float64(v)))
		}
		return littleEndian(values), nil
	}
	return of
}

// softplus is the scale that a channel's parameter stands for.
func softplus(v float64) float64 {
	return flowScaleShare * (max(v, 0) + math.Log1p(math.Exp(-flowScaleBeta*math.Abs(v)))/flowScaleBeta)
}

// perChannel is a vector as 1 x C x 1 x 1, or f of each of its values.
func perChannel(t weights.Source, f func(float64) float64) weights.Source {
	if f != nil {
		t = mapped(t, f)
	}
	t.Shape = []int{1, t.Shape[0], 1, 1}
	return t
}

// halfSquare is half the mean of a position's squared values: B x C x H x W -> B x 1 x H x W.
func (n *network) halfSquare(z, name string, C int) string {
	mean := make([]float32, C)
	for i := range mean {
		mean[i] = float32(0.5 / float64(C))
	}
	return n.conv(n.product(z, z), conv{name: name, weight: float32s(name+".weight", mean, 1, C, 1, 1),
		bias: float32s(name+".bias", []float32{0}, 1), stride: 1})
}

// buildFastFlow adds the operations from the features of the teacher to the outputs.
func (m *Model) buildFastFlow(n *network, f [scales]string) {
	sum := ""
	for k, x := range f {
		layer := fmt.Sprint("layer", k+1)
		value := n.halfSquare(n.flow(x, layer, m.Size/(4<<k), m.Flow), "flow."+layer+".mean", n.channels(layer))
		if !m.Flow.Likelihood {
			falling := n.exp(n.times(value, float32s("flow.minus", []float32{-1}, 1)))
			value = n.plus(n.times(falling, float32s("flow.minus", []float32{-1}, 1)), float32s("flow.one", []float32{1}, 1))
		}
		value = n.stretch(value, m.Size)
		if sum != "" {
			value = n.add(sum, value)
		}
		sum = value
	}
	if n.err != nil {
		return
	}
	x := n.times(sum, float32s("flow.share", []float32{1.0 / scales}, 1))
	x = m.blank(n, n.smooth(x, m.Size, m.Sigma))
	score := ""
	if pixels := int(m.Top * float64(m.counted())); pixels >= 2 {
		score = n.top(x, pixels)
	}
	n.finish(x, score, m)
}
