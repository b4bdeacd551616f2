// Package onnxtest makes ONNX files of ResNets with random weights for tests, as the format's exporters make them or
// spoilt, and computes what they put out in plain Go.
package onnxtest

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"rdpp/rdpp/onnxfile"
	"rdpp/rdpp/weights"
)

// Graph is the graph of an ONNX file, for a test to change.
type Graph struct {
	Inputs, Outputs []string
	Nodes           []*Node
	Tensors         []*Tensor
	Features        [3]string // names of the values that layer1 to layer3 put out
}

// Node is an operation. Its attributes are of type int, float32, string, []int or *Tensor.
type Node struct {
	Name, Op, Domain string
	Inputs, Outputs  []string
	Attributes       map[string]any
}

// The ways in which a file may hold a tensor's numbers.
const (
	Raw      = iota // bytes of float32
	Packed          // a list
	Single          // fields of their own
	Half            // bytes of half-precision numbers
	HalfList        // a list of those
	Double          // bytes of float64
	DoubleList
	External // not at all, but in another file
	Int64    // bytes of int64
)

// Tensor is an array of numbers.
type Tensor struct {
	Name   string
	Shape  []int
	Values []float32
	Store  int // one of Raw, Packed and so on
}

// Options say what kind of ResNet is made. The zero value is resnet18 up to layer3, with batch norms.
type Options struct {
	Blocks  []int   // of layer1 and so on, default 2, 2, 2
	Deep    bool    // blocks of three convolutions
	Width   int     // channels of the first block's convolutions, default 64
	First   bool    // blocks of three convolutions have their strides on the first
	Folded  bool    // no batch norms: convolutions with biases, as exporters fold them
	Biased  bool    // convolutions with biases, and batch norms
	Epsilon float32 // of batch norms; 0: the attribute is missing
	Top     bool    // layer4, pooling and a classifier follow
	Pad     string  // value of auto_pad; "": pads, "end": pads with less at the end where that changes nothing
	Large   bool    // the first variances are too large for half precision
	Seed    uint64
}

// builder makes a graph.
type builder struct {
	Graph
	opt  Options
	rng  *rand.Rand
	made int
}

// ResNet makes a ResNet of random weights.
func ResNet(opt Options) *Graph {
	if opt.Blocks == nil {
		opt.Blocks = []int{2, 2, 2}
	}
	if opt.Width == 0 {
		opt.Width = 64
	}
	b := &builder{opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 1))}
	b.Inputs = []string{"data"}
	x := b.unit("data", 3, 64, 7, 2, true)
	x = b.node("MaxPool", []string{x}, b.spacing(map[string]any{"kernel_shape": []int{3, 3}}, 3, 2))
	channels := 64
	layers := slices.Clone(opt.Blocks)
	if opt.Top {
		layers = append(layers, 2)
	}
	for layer, n := range layers {
		for block := range n {
			stride := 1
			if layer > 0 && block == 0 {
				stride = 2
			}
			x, channels = b.block(x, channels, opt.Width<<layer, stride)
		}
		if layer < len(b.Features) {
			b.Features[layer] = x
		}
	}
	if opt.Top {
		x = b.node("GlobalAveragePool", []string{x}, nil)
		x = b.node("Flatten", []string{x}, nil)
		x = b.node("Gemm", []string{x, b.tensor(10, channels), b.tensor(10)}, map[string]any{"transB": 1})
	}
	b.Outputs = []string{x}
	return &b.Graph
}

func (b *builder) name(kind string) string {
	b.made++
	return fmt.Sprintf("%s%d", kind, b.made)
}

func (b *builder) node(op string, inputs []string, attributes map[string]any) string {
	n := &Node{Name: b.name("node"), Op: op, Inputs: inputs, Outputs: []string{b.name("value")}, Attributes: attributes}
	b.Nodes = append(b.Nodes, n)
	return n.Outputs[0]
}

// tensor adds a tensor of numbers that are about as large as those of trained networks.
func (b *builder) tensor(shape ...int) string { return b.numbers(0, 1, shape...) }

func (b *builder) numbers(middle, spread float64, shape ...int) string {
	t := &Tensor{Name: b.name("tensor"), Shape: shape, Values: make([]float32, product(shape))}
	// Some thousand numbers, again and again, are random enough and made faster.
	n := min(len(t.Values), 4099)
	for i := range n {
		t.Values[i] = float32(middle + spread*(2*b.rng.Float64()-1))
	}
	for made := n; made < len(t.Values); made *= 2 {
		copy(t.Values[made:], t.Values[:made])
	}
	b.Tensors = append(b.Tensors, t)
	return t.Name
}

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// spacing adds stride and padding to attributes.
func (b *builder) spacing(attributes map[string]any, kernel, stride int) map[string]any {
	attributes["strides"] = []int{stride, stride}
	half := (kernel - 1) / 2
	switch {
	case b.opt.Pad == "end":
		end := max(half-stride+1, 0)
		attributes["pads"] = []int{half, half, end, end}
	case b.opt.Pad != "":
		attributes["auto_pad"] = b.opt.Pad
	case half > 0:
		attributes["pads"] = []int{half, half, half, half}
	}
	return attributes
}

// unit adds a convolution, its batch norm and, where asked for, a ReLU.
func (b *builder) unit(x string, in, out, kernel, stride int, relu bool) string {
	spread := math.Sqrt(3 / float64(in*kernel*kernel))
	inputs := []string{x, b.numbers(0, spread, out, in, kernel, kernel)}
	if b.opt.Folded || b.opt.Biased {
		inputs = append(inputs, b.numbers(0, 0.2, out))
	}
	x = b.node("Conv", inputs, b.spacing(map[string]any{"kernel_shape": []int{kernel, kernel}}, kernel, stride))
	if !b.opt.Folded {
		middle, spread := 1.0, 0.5
		if b.opt.Large && kernel == 7 {
			middle, spread = 4e4, 3e4
		}
		norm := []string{x, b.numbers(1, 0.4, out), b.numbers(0, 0.2, out), b.numbers(0, 0.2, out), b.numbers(middle, spread, out)}
		attributes := map[string]any{"momentum": float32(0.9)}
		if b.opt.Epsilon != 0 {
			attributes["epsilon"] = b.opt.Epsilon
		}
		x = b.node("BatchNormalization", norm, attributes)
	}
	if relu {
		x = b.node("Relu", []string{x}, nil)
	}
	return x
}

// block adds a residual block.
func (b *builder) block(x string, in, width, stride int) (string, int) {
	out, y := width, x
	if b.opt.Deep {
		out = 4 * 64 * width / b.opt.Width // whatever the width is
		first, second := 1, stride
		if b.opt.First {
			first, second = stride, 1
		}
		y = b.unit(y, in, width, 1, first, true)
		y = b.unit(y, width, width, 3, second, true)
		y = b.unit(y, width, out, 1, 1, false)
	} else {
		y = b.unit(y, in, width, 3, stride, true)
		y = b.unit(y, width, width, 3, 1, false)
	}
	if stride > 1 || in != out {
		x = b.unit(x, in, out, 1, stride, false)
	}
	return b.node("Relu", []string{b.node("Add", []string{y, x}, nil)}, nil), out
}

// Torchvision is the graph of a ResNet that was read from a file, as torchvision builds it.
func Torchvision(r *onnxfile.ResNet) *Graph {
	b := &builder{}
	b.Inputs = []string{"data"}
	given := func(name string) string {
		t, found := r.Tensors[name]
		if !found {
			panic("onnxtest: no tensor " + name)
		}
		b.Tensors = append(b.Tensors, &Tensor{Name: name, Shape: t.Shape, Values: t.Values})
		return name
	}
	unit := func(x, conv, norm string, stride int, relu bool) string {
		kernel := r.Tensors[conv+".weight"].Shape[2]
		x = b.node("Conv", []string{x, given(conv + ".weight")}, b.spacing(map[string]any{}, kernel, stride))
		x = b.node("BatchNormalization", []string{x, given(norm + ".weight"), given(norm + ".bias"), given(norm + ".running_mean"),
			given(norm + ".running_var")}, nil)
		if relu {
			x = b.node("Relu", []string{x}, nil)
		}
		return x
	}
	x := unit("data", "conv1", "bn1", 2, true)
	x = b.node("MaxPool", []string{x}, b.spacing(map[string]any{"kernel_shape": []int{3, 3}}, 3, 2))
	for layer := range b.Features {
		for block := 0; ; block++ {
			name := fmt.Sprintf("layer%d.%d.", layer+1, block)
			if _, found := r.Tensors[name+"conv1.weight"]; !found {
				break
			}
			stride := 1
			if layer > 0 && block == 0 {
				stride = 2
			}
			y := x
			if _, deep := r.Tensors[name+"conv3.weight"]; deep {
				y = unit(y, name+"conv1", name+"bn1", 1, true)
				y = unit(y, name+"conv2", name+"bn2", stride, true)
				y = unit(y, name+"conv3", name+"bn3", 1, false)
			} else {
				y = unit(y, name+"conv1", name+"bn1", stride, true)
				y = unit(y, name+"conv2", name+"bn2", 1, false)
			}
			if _, found := r.Tensors[name+"downsample.0.weight"]; found {
				x = unit(x, name+"downsample.0", name+"downsample.1", stride, false)
			}
			x = b.node("Relu", []string{b.node("Add", []string{y, x}, nil)}, nil)
		}
		b.Features[layer] = x
	}
	b.Outputs = []string{x}
	return &b.Graph
}

// MeanImage is a graph that subtracts an image of the three colours from a picture.
func MeanImage(size int, colours ...float32) *Graph {
	t := &Tensor{Name: "mean", Shape: []int{1, 3, size, size}}
	for _, colour := range colours {
		t.Values = append(t.Values, slices.Repeat([]float32{colour}, size*size)...)
	}
	return &Graph{Inputs: []string{"picture"}, Outputs: []string{"out"}, Tensors: []*Tensor{t},
		Nodes: []*Node{{Name: "minus", Op: "Sub", Inputs: []string{"picture", "mean"}, Outputs: []string{"out"}}}}
}

// Find returns the nth node of an operation, counted from 0.
func (g *Graph) Find(op string, n int) *Node {
	for _, node := range g.Nodes {
		if node.Op == op {
			if n == 0 {
				return node
			}
			n--
		}
	}
	panic("onnxtest: no such node: " + op)
}

// Tensor returns a tensor by its name, nil where there is none.
func (g *Graph) Tensor(name string) *Tensor {
	for _, t := range g.Tensors {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Clone is a copy that shares nothing with the graph.
func (g *Graph) Clone() *Graph {
	c := *g
	c.Inputs, c.Outputs = slices.Clone(g.Inputs), slices.Clone(g.Outputs)
	c.Nodes, c.Tensors = make([]*Node, len(g.Nodes)), make([]*Tensor, len(g.Tensors))
	for i, n := range g.Nodes {
		other := *n
		other.Inputs, other.Outputs, other.Attributes = slices.Clone(n.Inputs), slices.Clone(n.Outputs), maps.Clone(n.Attributes)
		c.Nodes[i] = &other
	}
	for i, t := range g.Tensors {
		other := *t
		other.Shape, other.Values = slices.Clone(t.Shape), slices.Clone(t.Values)
		c.Tensors[i] = &other
	}
	return &c
}

// Encode is the graph as an ONNX file.
func (g *Graph) Encode() []byte {
	var body onnxfile.Message
	for _, n := range g.Nodes {
		body = body.Sub(onnxfile.GraphNode, n.encode())
	}
	for _, t := range g.Tensors {
		body = body.Sub(onnxfile.GraphInitializer, t.encode())
	}
	for _, name := range g.Inputs {
		body = body.Sub(onnxfile.GraphInput, onnxfile.Message(nil).Text(onnxfile.ValueName, name))
	}
	for _, name := range g.Outputs {
		body = body.Sub(onnxfile.GraphOutput, onnxfile.Message(nil).Text(onnxfile.ValueName, name))
	}
	return onnxfile.Message(nil).Integer(onnxfile.ModelIRVersion, 8).Text(onnxfile.ModelProducerName, "onnxtest").Sub(onnxfile.ModelGraph, body)
}

func (n *Node) encode() (m onnxfile.Message) {
	for _, name := range n.Inputs {
		m = m.Text(onnxfile.NodeInput, name)
	}
	for _, name := range n.Outputs {
		m = m.Text(onnxfile.NodeOutput, name)
	}
	m = m.Text(onnxfile.NodeName, n.Name).Text(onnxfile.NodeOp, n.Op)
	if n.Domain != "" {
		m = m.Text(onnxfile.NodeDomain, n.Domain)
	}
	for _, key := range slices.Sorted(maps.Keys(n.Attributes)) {
		a := onnxfile.Message(nil).Text(onnxfile.AttributeName, key)
		switch v := n.Attributes[key].(type) {
		case int:
			a = a.Integer(onnxfile.AttributeInteger, int64(v)).Integer(onnxfile.AttributeType, onnxfile.KindInteger)
		case float32:
			a = a.Float(onnxfile.AttributeFloat, math.Float32bits(v)).Integer(onnxfile.AttributeType, onnxfile.KindFloat)
		case string:
			a = a.Text(onnxfile.AttributeText, v).Integer(onnxfile.AttributeType, onnxfile.KindText)
		case []int:
			for _, i := range v {
				a = a.Integer(onnxfile.AttributeIntegers, int64(i))
			}
			a = a.Integer(onnxfile.AttributeType, onnxfile.KindIntegers)
		case *Tensor:
			a = a.Sub(onnxfile.AttributeTensor, v.encode()).Integer(onnxfile.AttributeType, onnxfile.KindTensor)
		default:
			panic(fmt.Sprintf("onnxtest: attribute %s of type %T", key, v))
		}
		m = m.Sub(onnxfile.NodeAttribute, a)
	}
	return m
}

func (t *Tensor) encode() (m onnxfile.Message) {
	for _, d := range t.Shape {
		m = m.Integer(onnxfile.TensorDims, int64(d))
	}
	element := map[int]int64{Half: onnxfile.ElementHalf, HalfList: onnxfile.ElementHalf, Double: onnxfile.ElementDouble,
		DoubleList: onnxfile.ElementDouble, Int64: onnxfile.ElementInt64}[t.Store]
	if element == 0 {
		element = onnxfile.ElementFloat
	}
	m = m.Integer(onnxfile.TensorType, element).Text(onnxfile.TensorName, t.Name)
	var data onnxfile.Message
	values := t.Values
	if t.Store == Raw || t.Store == Packed {
		data, values = weights.AppendFloat32(make([]byte, 0, 4*len(values)), values), nil
	}
	for _, v := range values {
		switch t.Store {
		case Single:
			m = m.Float(onnxfile.TensorFloats, math.Float32bits(v))
		case HalfList:
			half := weights.AppendFloat16(nil, []float32{v})
			m = m.Integer(onnxfile.TensorInts, int64(binary.LittleEndian.Uint16(half)))
		case Half:
			data = weights.AppendFloat16(data, []float32{v})
		case Double, DoubleList:
			data = binary.LittleEndian.AppendUint64(data, math.Float64bits(float64(v)))
		case Int64:
			data = binary.LittleEndian.AppendUint64(data, uint64(v))
		}
	}
	switch t.Store {
	case Raw, Half, Double, Int64:
		m = m.Sub(onnxfile.TensorRaw, data)
	case Packed:
		m = m.Sub(onnxfile.TensorFloats, data)
	case DoubleList:
		m = m.Sub(onnxfile.TensorDoubles, data)
	case External:
		m = m.Integer(onnxfile.TensorLocation, onnxfile.LocationExternal)
	}
	return m
}
