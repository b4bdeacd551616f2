package export

import (
	"fmt"
	"image"
	"io"
	"maps"
	"math"
	"slices"

	"rdpp/rdpp/onnxfile"
	"rdpp/rdpp/weights"
)

const (
	onnxOpset = 17
	onnxIR    = 8         // of the release that brought the opset
	onnxLimit = 1<<31 - 1 // bytes of a protocol buffer
)

// ONNX writes the model as an ONNX file of opset 17, to run with onnxruntime and others. Only one tensor at a time is in
// memory. The same model gives the same bytes.
func (m *Model) ONNX(w io.Writer, in Input) error {
	var g graph
	if err := m.build(in, &g); err != nil {
		return fmt.Errorf("export: onnx: %w", err)
	}
	if err := g.write(w, m); err != nil {
		return fmt.Errorf("export: onnx: %w", err)
	}
	return nil
}

// message is an encoded protocol buffer.
type message = onnxfile.Message

// graph is the builder of an ONNX file. Its names are unique and tell where in the model a value belongs.
type graph struct {
	body      message // nodes, inputs and outputs of the GraphProto
	constants []weights.Source
	made      map[string]int // names given so far, by their beginning
}

// write writes a ModelProto. The length of the graph comes before the graph, and so do those of its tensors.
func (g *graph) write(w io.Writer, m *Model) error {
	g.body = g.body.Text(onnxfile.GraphName, "rdpp")
	heads, total := make([]message, len(g.constants)), len(g.body)
	for i, t := range g.constants {
		head, n, err := tensorHead(t)
		if err != nil {
			return err
		}
		heads[i] = head
		total += len(head) + n
	}
	model := message(nil).Integer(onnxfile.ModelIRVersion, onnxIR)
	model = model.Text(onnxfile.ModelProducerName, m.Producer).Text(onnxfile.ModelProducerVersion, m.Version)
	model = model.Sub(onnxfile.ModelOpset, message(nil).Integer(onnxfile.OpsetVersion, onnxOpset))
	for _, key := range slices.Sorted(maps.Keys(m.Metadata)) {
		model = model.Sub(onnxfile.ModelMetadata, message(nil).Text(onnxfile.EntryKey, key).Text(onnxfile.EntryValue, m.Metadata[key]))
	}
	model = model.Open(onnxfile.ModelGraph, total)
	if len(model)+total > onnxLimit {
		return fmt.Errorf("the file would have %d bytes, and the format allows %d; export to TorchScript", len(model)+total,
			onnxLimit)
	}
	if _, err := w.Write(append(model, g.body...)); err != nil {
		return err
	}
	for i, t := range g.constants {
		if err := writeTensor(w, heads[i], t); err != nil {
			return err
		}
	}
	return nil
}

// tensorHead is a graph's initializer up to its data, and the number of bytes of the data.
func tensorHead(t weights.Source) (message, int, error) {
	element, known := map[weights.DType]int64{weights.F32: onnxfile.ElementFloat, weights.I64: onnxfile.ElementInt64}[t.DType]
	if !known {
		return nil, 0, fmt.Errorf("tensor %s has elements of type %s; F32 or I64 is needed", t.Name, t.DType)
	}
	var tensor message
	for _, d := range t.Shape {
		tensor = tensor.Integer(onnxfile.TensorDims, int64(d))
	}
	n := size(t)
	tensor = tensor.Integer(onnxfile.TensorType, element).Text(onnxfile.TensorName, t.Name).Open(onnxfile.TensorRaw, n)
	return append(message(nil).Open(onnxfile.GraphInitializer, len(tensor)+n), tensor...), n, nil
}

func writeTensor(w io.Writer, head message, t weights.Source) error {
	data, err := elements(t)
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// name returns a name that no other value has.
func (g *graph) name(base string) string {
	if g.made == nil {
		g.made = map[string]int{}
	}
	n := g.made[base]
	g.made[base]++
	if n == 0 {
		return base
	}
	return fmt.Sprintf("%s.%d", base, n)
}

// node adds an operation of one result, which gets the name base or one that begins with it.
func (g *graph) node(base, op string, inputs []string, attributes ...message) string {
	output := g.name(base)
	var node message
	for _, input := range inputs {
		node = node.Text(onnxfile.NodeInput, input)
	}
	node = node.Text(onnxfile.NodeOutput, output).Text(onnxfile.NodeName, output).Text(onnxfile.NodeOp, op)
	for _, a := range attributes {
		node = node.Sub(onnxfile.NodeAttribute, a)
	}
	g.body = g.body.Sub(onnxfile.GraphNode, node)
	return output
}

// two adds an operation of two results, of which the second one counts.
func (g *graph) two(base, op string, inputs []string, attributes ...message) (first, second string) {
	first, second = g.name(base+".values"), g.name(base)
	var node message
	for _, input := range inputs {
		node = node.Text(onnxfile.NodeInput, input)
	}
	node = node.Text(onnxfile.NodeOutput, first).Text(onnxfile.NodeOutput, second).Text(onnxfile.NodeName, second).Text(onnxfile.NodeOp, op)
	for _, a := range attributes {
		node = node.Sub(onnxfile.NodeAttribute, a)
	}
	g.body = g.body.Sub(onnxfile.GraphNode, node)
	return first, second
}

func integer(name string, v int) message {
	return message(nil).Text(onnxfile.AttributeName, name).Integer(onnxfile.AttributeInteger, int64(v)).Integer(onnxfile.AttributeType, onnxfile.KindInteger)
}

func float(name string, v float32) message {
	return message(nil).Text(onnxfile.AttributeName, name).Float(onnxfile.AttributeFloat, math.Float32bits(v)).Integer(onnxfile.AttributeType, onnxfile.KindFloat)
}

func text(name, v string) message {
	return message(nil).Text(onnxfile.AttributeName, name).Text(onnxfile.AttributeText, v).Integer(onnxfile.AttributeType, onnxfile.KindText)
}

func list(name string, values ...int) message {
	a := message(nil).Text(onnxfile.AttributeName, name)
	for _, v := range values {
		a = a.Integer(onnxfile.AttributeIntegers, int64(v))
	}
	return a.Integer(onnxfile.AttributeType, onnxfile.KindIntegers)
}

// constant adds a tensor and returns its name.
func (g *graph) constant(t weights.Source) string {
	if !slices.ContainsFunc(g.constants, func(c weights.Source) bool { return c.Name == t.Name }) {
		g.constants = append(g.constants, t)
	}
	return t.Name
}

// value describes an input or output. A dimension is a number or the name of one that is free.
func value(name string, element int64, dimensions ...any) message {
	var shape message
	for _, d := range dimensions {
		switch d := d.(type) {
		case int:
			shape = shape.Sub(onnxfile.ShapeDimension, message(nil).Integer(onnxfile.DimensionValue, int64(d)))
		case string:
			shape = shape.Sub(onnxfile.ShapeDimension, message(nil).Text(onnxfile.DimensionName, d))
		}
	}
	tensor := message(nil).Integer(onnxfile.TypeElement, element).Sub(onnxfile.TypeShape, shape)
	return message(nil).Text(onnxfile.ValueName, name).Sub(onnxfile.ValueType, message(nil).Sub(onnxfile.TypeTensor, tensor))
}

func (g *graph) images(in Input, m *Model) string {
	if in == Planes {
		g.body = g.body.Sub(onnxfile.GraphInput, value(NamePlanes, onnxfile.ElementFloat, "batch", 3, m.Size, m.Size))
		return NamePlanes
	}
	height, width := any("height"), any("width")
	if m.Frame != nil {
		height, width = m.Frame.Picture.Y, m.Frame.Picture.X
	}
	g.body = g.body.Sub(onnxfile.GraphInput, value(NamePixels, onnxfile.ElementUint8, "batch", height, width, 3))
	part, to := m.cut()
	x := g.resized(NamePixels, part, to)
	mean := g.constant(float32s("preprocess.mean", m.Mean[:], 1, 3, 1, 1))
	std := g.constant(float32s("preprocess.std", m.Std[:], 1, 3, 1, 1))
	return g.node("preprocess.normalised", "Div", []string{g.node("preprocess.centred", "Sub", []string{x, mean}), std})
}

// resized makes planes of 0..1 of a size out of pixels, or of a part of them that is not empty: bilinear, half-pixel centres,
// nothing averaged.
func (g *graph) resized(x string, part image.Rectangle, to image.Point) string {
	x = g.node("preprocess.float", "Cast", []string{x}, integer("to", onnxfile.ElementFloat))
	x = g.node("preprocess.unit", "Div", []string{x, g.constant(float32s("preprocess.255", []float32{255}))})
	x = g.node("preprocess.planes", "Transpose", []string{x}, list("perm", 0, 3, 1, 2))
	if !part.Empty() {
		corner := func(name string, p image.Point) string {
			return g.constant(integers(name, []int64{int64(p.Y), int64(p.X)}))
		}
		axes := g.constant(integers("preprocess.axes", []int64{2, 3}))
		x = g.node("preprocess.part", "Slice", []string{x, corner("preprocess.from", part.Min), corner("preprocess.end", part.Max), axes})
	}
	outer := g.node("preprocess.outer", "Shape", []string{x}, integer("end", 2)) // B, 3
	sides := g.constant(integers("preprocess.sides", []int64{int64(to.Y), int64(to.X)}))
	sizes := g.node("preprocess.sizes", "Concat", []string{outer, sides}, integer("axis", 0))
	x = g.node("preprocess.resized", "Resize", []string{x, "", "", sizes}, text("mode", "linear"),
		text("coordinate_transformation_mode", "half_pixel"))
	// Who reads the file cannot infer this shape, and could none of those that follow.
	g.body = g.body.Sub(onnxfile.GraphValue, value(x, onnxfile.ElementFloat, "batch", 3, to.Y, to.X))
	return x
}

func (g *graph) conv(x string, c conv) string {
	inputs := []string{x, g.constant(c.weight), g.constant(c.bias)}
	kernel, strides := list("kernel_shape", c.kernel()...), list("strides", c.stride, c.stride)
	if c.transposed {
		return g.node(c.name, "ConvTranspose", inputs, kernel, strides)
	}
	attributes := []message{kernel, strides, list("pads", c.padding, c.padding, c.padding, c.padding)}
	if c.depthwise {
		attributes = append(attributes, integer("group", c.groups()))
	}
	return g.node(c.name, "Conv", inputs, attributes...)
}

func (g *graph) relu(x string) string { return g.node(x+".relu", "Relu", []string{x}) }

func (g *graph) swish(x string) string { return g.product(x, g.sigmoid(x)) }

func (g *graph) sigmoid(x string) string { return g.node(x+".sigmoid", "Sigmoid", []string{x}) }

func (g *graph) mean(x string) string { return g.node(x+".mean", "GlobalAveragePool", []string{x}) }

func (g *graph) instanceNorm(x string, channels int, eps, slope float32) string {
	ones := slices.Repeat([]float32{1}, channels)
	scale := g.constant(float32s(fmt.Sprint("ones.", channels), ones, channels))
	shift := g.constant(float32s(fmt.Sprint("zeros.", channels), make([]float32, channels), channels))
	return g.leaky(g.node(x+".norm", "InstanceNormalization", []string{x, scale, shift}, float("epsilon", eps)), slope)
}

func (g *graph) maxPool(x string) string {
	return g.node(x+".pool", "MaxPool", []string{x}, list("kernel_shape", 3, 3), list("strides", 2, 2),
		list("pads", 1, 1, 1, 1))
}

func (g *graph) averagePool(x string) string {
	return g.node(x+".mean", "AveragePool", []string{x}, list("kernel_shape", 3, 3), list("strides", 1, 1),
		list("pads", 1, 1, 1, 1), integer("count_include_pad", 0))
}

func (g *graph) add(x, y string) string { return g.node(x+".sum", "Add", []string{x, y}) }

func (g *graph) concat(x ...string) string { return g.node("concat", "Concat", x, integer("axis", 1)) }

func (g *graph) distance(x, y string) string {
	channels := g.constant(integers("map.channels", []int64{1}))
	dot := func(a, b string) string {
		product := g.node("map.product", "Mul", []string{a, b})
		return g.node("map.dot", "ReduceSum", []string{product, channels}, integer("keepdims", 1))
	}
	one := g.constant(float32s("map.one", []float32{1}))
	floor := g.constant(float32s("map.floor", []float32{normFloor}))
	squares := g.node("map.squares", "Mul", []string{dot(x, x), dot(y, y)})
	norms := g.node("map.norms", "Sqrt", []string{g.node("map.floored", "Max", []string{squares, floor})})
	cosine := g.node("map.cosine", "Div", []string{dot(x, y), norms})
	return g.node("map.distance", "Sub", []string{one, cosine})
}

func (g *graph) times(x string, factor weights.Source) string {
	return g.node("map.weighted", "Mul", []string{x, g.constant(factor)})
}

func (g *graph) plus(x string, constant weights.Source) string {
	return g.node(x+".plus", "Add", []string{x, g.constant(constant)})
}

func (g *graph) exp(x string) string { return g.node(x+".exp", "Exp", []string{x}) }

func (g *graph) tanh(x string) string { return g.node(x+".tanh", "Tanh", []string{x}) }

func (g *graph) layerNorm(x string, weight, bias weights.Source) string {
	return g.node(x+".normal", "LayerNormalization", []string{x, g.constant(weight), g.constant(bias)}, integer("axis", 1), float("epsilon", normEps))
}

func (g *graph) log1p(x string) string {
	one := g.constant(float32s("map.one", []float32{1}))
	return g.node("map.log", "Log", []string{g.node("map.above", "Add", []string{x, one})})
}

func (g *graph) upsample(x string, S, factor int) string {
	by := float32(factor)
	scales := g.constant(float32s(fmt.Sprint("map.scales.", factor), []float32{1, 1, by, by}, 4))
	return g.node("map.upsampled", "Resize", []string{x, "", scales}, text("mode", "linear"),
		text("coordinate_transformation_mode", "align_corners"))
}

func (g *graph) gather(x string, index weights.Source, axis int) string {
	return g.node("gathered", "Gather", []string{x, g.constant(index)}, integer("axis", axis))
}

func (g *graph) meanPool(x string) string {
	return g.node(x+".mean", "AveragePool", []string{x}, list("kernel_shape", 3, 3), list("strides", 1, 1),
		list("pads", 1, 1, 1, 1), integer("count_include_pad", 1))
}

func (g *graph) stretch(x string, side int) string {
	outer := g.node("stretch.outer", "Shape", []string{x}, integer("end", 2)) // B, C
	sides := g.constant(integers(fmt.Sprint("stretch.sides.", side), []int64{int64(side), int64(side)}))
	sizes := g.node("stretch.sizes", "Concat", []string{outer, sides}, integer("axis", 0))
	return g.node("stretched", "Resize", []string{x, "", "", sizes}, text("mode", "linear"),
		text("coordinate_transformation_mode", "half_pixel"))
}

func (g *graph) places(x string, index weights.Source, S int) string {
	rows := g.node("frame.rows", "Reshape", []string{x, g.constant(integers("frame.flat", []int64{0, 3, -1}))})
	picked := g.node("frame.picked", "Gather", []string{rows, g.constant(index)}, integer("axis", 2))
	return g.node("framed", "Reshape", []string{picked, g.constant(integers("frame.square", []int64{0, 3, int64(S), int64(S)}))})
}

func (g *graph) product(x, y string) string { return g.node(x+".product", "Mul", []string{x, y}) }

func (g *graph) leaky(x string, slope float32) string {
	return g.node(x+".leaky", "LeakyRelu", []string{x}, float("alpha", slope))
}

func (g *graph) atan(x string) string { return g.node("clamped", "Atan", []string{x}) }

func (g *graph) meanSquare(x string) string {
	square := g.node("level.square", "Mul", []string{x, x})
	return g.node("level", "ReduceMean", []string{square}, list("axes", 1), integer("keepdims", 1))
}

func (g *graph) average(x string) string {
	return g.node("level.average", "ReduceMean", []string{x}, list("axes", 1, 2, 3), integer("keepdims", 0))
}

func (g *graph) top(x string, n int) string {
	pixels := g.reshape(x, 0, -1)
	values, _ := g.two("map.top", "TopK", []string{pixels, g.constant(integers("map.top.n", []int64{int64(n)}))})
	return g.node("map.level", "ReduceMean", []string{values}, list("axes", 1), integer("keepdims", 0))
}

func (g *graph) highest(x string) string {
	return g.node("map.highest", "ReduceMax", []string{x}, list("axes", 1, 2, 3), integer("keepdims", 0))
}

// apart are the squares of the distances of patches x to the rows of a bank, less those of the patches' own lengths: ... x D
// -> ... x M.
func (g *graph) apart(x string, bank rows) string {
	columns := "bank.columns"
	if g.made[columns] == 0 {
		g.node(columns, "Transpose", []string{g.constant(bank.patches)}, list("perm", 1, 0))
	}
	products := g.node("bank.products", "MatMul", []string{x, columns})
	minus := g.constant(float32s("bank.minus", []float32{-2}, 1))
	return g.node("bank.apart", "Add", []string{g.node("bank.doubled", "Mul", []string{products, minus}), g.constant(bank.lengths)})
}

// length is that of the last dimension's vectors.
func (g *graph) length(x string) string {
	last := g.constant(integers("bank.last", []int64{-1}))
	sum := g.node("bank.squares", "ReduceSum", []string{g.node("bank.square", "Mul", []string{x, x}), last}, integer("keepdims", 0))
	return g.node("bank.length", "Sqrt", []string{sum})
}

func (g *graph) reshape(x string, sizes ...int64) string {
	return g.node(x+".reshaped", "Reshape", []string{x, g.constant(integers(fmt.Sprint("reshape", sizes), sizes))})
}

func (g *graph) nearest(x string, bank rows, side int) (c compared) {
	N := int64(side) * int64(side)
	c.patches = g.reshape(g.node("patches", "Transpose", []string{x}, list("perm", 0, 2, 3, 1)), -1, N, int64(bank.D))
	c.row = g.node("bank.row", "ArgMin", []string{g.apart(c.patches, bank)}, integer("axis", 2), integer("keepdims", 0))
	chosen := g.node("bank.nearest", "Gather", []string{g.constant(bank.patches), c.row})
	c.distance = g.length(g.node("bank.difference", "Sub", []string{c.patches, chosen}))
	c.distances = g.reshape(c.distance, -1, 1, int64(side), int64(side))
	return c
}

func (g *graph) nearness(x string, bank rows, side, k, atATime int) string {
	N := side * side
	patches := g.reshape(g.node("patches", "Transpose", []string{x}, list("perm", 0, 2, 3, 1)), -1, int64(N), int64(bank.D))
	number := func(i int) string { return g.constant(integers(fmt.Sprint("number", i), []int64{int64(i)})) }
	var parts []string // B x n x 1 each
	for first := 0; first < N; first += atATime {
		part := g.node("patches.part", "Slice", []string{patches, number(first), number(min(first+atATime, N)), number(1)}) // B x n x D
		_, near := g.two("bank.near", "TopK", []string{g.apart(part, bank), number(k)}, integer("axis", 2), integer("largest", 0))
		distances := make([]string, k) // B x n x 1 each
		for i := range distances {
			row := g.node("bank.row", "Slice", []string{near, number(i), number(i + 1), number(2)}) // B x n x 1
			chosen := g.reshape(g.node("bank.chosen", "Gather", []string{g.constant(bank.patches), row}), 0, -1, int64(bank.D))
			distances[i] = g.reshape(g.length(g.node("bank.difference", "Sub", []string{part, chosen})), 0, -1, 1)
		}
		nearest := g.node("bank.nearest", "Min", distances)
		powers := make([]string, k)
		for i, d := range distances {
			powers[i] = g.exp(g.node("bank.behind", "Sub", []string{nearest, d}))
		}
		parts = append(parts, g.node("bank.nearness", "Div", []string{nearest, g.node("bank.shares", "Sum", powers)}))
	}
	return g.reshape(g.concat(parts...), -1, 1, int64(side), int64(side))
}

func (g *graph) farthest(c compared) string {
	return g.node("patch.farthest", "ReduceMax", []string{c.distance}, list("axes", 1), integer("keepdims", 0))
}

func (g *graph) rarity(c compared, bank rows, b int) string {
	at := g.node("patch.at", "ArgMax", []string{c.distance}, integer("axis", 1), integer("keepdims", 1)) // B x 1
	of := func(x string) string {
		return g.node("patch.of", "GatherND", []string{x, at}, integer("batch_dims", 1))
	}
	patch, row := of(c.patches), of(c.row) // B x D, B
	own := g.node("bank.own", "Gather", []string{g.constant(bank.patches), row})
	apart := g.node("bank.closeness", "Neg", []string{g.apart(own, bank)}) // B x M
	_, near := g.two("bank.neighbours", "TopK", []string{apart, g.constant(integers("bank.b", []int64{int64(b)}))})
	around := g.node("bank.around", "Gather", []string{g.constant(bank.patches), near}) // B x b x D
	middle := g.constant(integers("bank.middle", []int64{1}))
	difference := g.node("patch.difference", "Sub", []string{around, g.node("patch.wide", "Unsqueeze", []string{patch, middle})})
	shares := g.node("patch.shares", "Softmax", []string{g.length(difference)}, integer("axis", 1)) // B x b
	zero := g.constant(weights.Source{Name: "patch.first", DType: weights.I64, Bytes: func() ([]byte, error) { return make([]byte, 8), nil }})
	share := g.node("patch.share", "Gather", []string{shares, zero}, integer("axis", 1)) // B, of the nearest row itself
	return g.node("patch.weight", "Sub", []string{g.constant(float32s("map.one", []float32{1})), share})
}

func (g *graph) finish(x, score string, m *Model) {
	anomaly := g.node(NameMap, "Squeeze", []string{x, g.constant(integers("map.channels", []int64{1}))})
	if score == "" {
		score = g.node(NameScore, "ReduceMax", []string{anomaly}, list("axes", 1, 2), integer("keepdims", 0))
	} else {
		score = g.node(NameScore, "Identity", []string{score})
	}
	limit := g.constant(float32s("threshold", []float32{m.Threshold}))
	anomalous := g.node(NameAnomalous, "Greater", []string{score, limit})
	if m.Threshold > 0 {
		positive := g.node("score.positive", "Relu", []string{score})
		g.node(NameNormalised, "Div", []string{positive, g.node("score.scale", "Add", []string{positive, limit})})
	} else { // no scale: 0.5 up to the threshold, 1 above it
		half := g.constant(float32s("half", []float32{0.5}))
		flag := g.node("score.flag", "Cast", []string{anomalous}, integer("to", onnxfile.ElementFloat))
		g.node(NameNormalised, "Add", []string{g.node("score.halved", "Mul", []string{flag, half}), half})
	}
	for _, output := range []message{
		value(NameScore, onnxfile.ElementFloat, "batch"), value(NameMap, onnxfile.ElementFloat, "batch", m.Size, m.Size),
		value(NameNormalised, onnxfile.ElementFloat, "batch"), value(NameAnomalous, onnxfile.ElementBool, "batch"),
	} {
		g.body = g.body.Sub(onnxfile.GraphOutput, output)
	}
}
