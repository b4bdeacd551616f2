package onnxfile

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
)

const (
	layers      = 3    // that a teacher has
	normEps     = 1e-5 // of every batch norm of a teacher
	maxVariance = 1024 // what a batch norm's variances are scaled to at most: half precision ends at 65504
)

// ResNet is a ResNet that was found in a graph, up to layer3, as torchvision builds it.
type ResNet struct {
	Arch    string            // torchvision's name
	Tensors map[string]Tensor // by torchvision's names
	LeftOut []string          // what the file has beyond layer3, in words
	Notes   []string          // what is not as in the file, in words

	layers []*layer // the first is conv1 and bn1
}

// Tensor is an array of numbers.
type Tensor struct {
	Shape  []int
	Values []float32
}

// layer is a convolution and the batch norm behind it.
type layer struct {
	conv, norm                  string // their names
	shape                       []int  // of weight
	weight                      []float32
	scale, bias, mean, variance []float64 // of the batch norm
}

// unit is a convolution of the graph with what belongs to it.
type unit struct {
	conv       *node
	norm, relu *node   // nil where none follows
	weight     *tensor // of four dimensions, the last two of which are equal
	stride     int
	late       bool   // its padding begins a pixel later than ours
	out        string // the value that it makes
}

// walk follows a graph along its layers.
type walk struct {
	file *File
	net  *ResNet
	late int // layers whose padding begins a pixel later
}

// ResNet finds the ResNet that the graph begins with, by the order of its operations and whatever its names: convolution,
// perhaps a batch norm, ReLU, max pooling, then residual blocks. preprocess tells how its input is made; nil means that
// the input is torchvision's, else that becomes so: mean and std are what torchvision's is normalised by. Every batch
// norm comes out with an epsilon of 1e-5 and variances of moderate size, every convolution without a bias.
func (f *File) ResNet(preprocess *Preprocess, mean, std [3]float32) (*ResNet, error) {
	w := &walk{file: f, net: &ResNet{}}
	for _, n := range f.nodes {
		n.taken = false
	}
	if err := w.network(); err != nil {
		return nil, fmt.Errorf("onnxfile: %s: no ResNet that can be a teacher: %w", f.Path, err)
	}
	w.describe()
	if preprocess != nil {
		preprocess.fold(w.net.layers[0], mean, std)
		w.net.Notes = append(w.net.Notes, preprocess.Notes...)
	}
	if err := w.net.finish(); err != nil {
		return nil, fmt.Errorf("onnxfile: %s: %w", f.Path, err)
	}
	return w.net, nil
}

// only is the operation that alone reads a value, if it is one of ops.
func (w *walk) only(value string, ops ...string) *node {
	uses := w.file.uses[value]
	if len(uses) != 1 || uses[0].domain != "" || !slices.Contains(ops, uses[0].op) {
		return nil
	}
	return uses[0]
}

// readers lists the operations that read a value, for people.
func (w *walk) readers(value string) string {
	var all []string
	for _, n := range w.file.uses[value] {
		all = append(all, n.String())
	}
	switch {
	case len(all) == 0:
		return "nothing"
	case len(all) > 4:
		all = append(all[:4], fmt.Sprintf("%d more", len(all)-4))
	}
	return strings.Join(all, ", ")
}

// take notes that nodes belong to the network.
func take(nodes ...*node) {
	for _, n := range nodes {
		if n != nil {
			n.taken = true
		}
	}
}

// network finds the layers. Every value is made by one node, so it comes to an end.
func (w *walk) network() error {
	x, err := w.stem()
	if err != nil {
		return err
	}
	var blocks []int
	var deep bool
	var width int
	for channels := 64; ; {
		main, shortcut, sum, err := w.block(x)
		if err != nil {
			return err
		}
		if main == nil {
			break
		}
		stride := 1
		for _, u := range main {
			stride *= u.stride
		}
		if len(blocks) == 0 || stride > 1 {
			if len(blocks) == layers {
				w.net.LeftOut = append(w.net.LeftOut, "layer4")
				break
			}
			blocks = append(blocks, 0)
		}
		at := len(blocks) - 1
		if at == 0 && blocks[0] == 0 {
			deep, width = len(main) == 3, main[0].weight.shape[0]
		}
		name := fmt.Sprintf("layer%d.%d", at+1, blocks[at])
		if channels, err = w.addBlock(name, main, shortcut, channels, width<<at, deep); err != nil {
			return err
		}
		blocks[at]++
		relu := w.only(sum.outputs[0], "Relu")
		if relu == nil {
			return fmt.Errorf("behind the sum of %s comes %s; a ReLU is needed", name, w.readers(sum.outputs[0]))
		}
		take(sum, relu)
		x = relu.outputs[0]
	}
	if len(blocks) < layers {
		return fmt.Errorf("it has %d layers of residual blocks, with %v blocks, and then %s; %d layers are needed", len(blocks), blocks,
			w.readers(x), layers)
	}
	if w.net.Arch = weights.Architecture(blocks, deep, width); w.net.Arch == "" {
		return fmt.Errorf("its layers of %v blocks, %d channels wide at first, are none of torchvision's ResNets", blocks, width)
	}
	return nil
}

// stem takes everything before the first block, and returns the value that it reads.
func (w *walk) stem() (string, error) {
	if len(w.file.inputs) != 1 {
		return "", fmt.Errorf("the graph has %d inputs; one, of pictures, is needed", len(w.file.inputs))
	}
	input := w.file.inputs[0]
	conv := w.only(input, "Conv")
	if conv == nil {
		return "", setting.Advise(fmt.Errorf("its input goes to %s and not to a convolution", w.readers(input)),
			"preprocessing has to be in a file of its own, for {preprocess}")
	}
	u, err := w.unit(conv)
	if err != nil {
		return "", err
	}
	if err := w.add("conv1", "bn1", u, []int{64, 3, 7, 7}, 2); err != nil {
		return "", err
	}
	relu := w.only(u.out, "Relu")
	if relu == nil {
		return "", fmt.Errorf("behind the first convolution comes %s; a batch norm or a ReLU is needed", w.readers(u.out))
	}
	pool := w.only(relu.outputs[0], "MaxPool")
	if pool == nil {
		return "", fmt.Errorf("behind the first ReLU comes %s; a max pooling is needed", w.readers(relu.outputs[0]))
	}
	stride, late, err := spacing(pool, 3)
	if err != nil {
		return "", err
	}
	if kernel := pool.list("kernel_shape", 0, 2); !slices.Equal(kernel, []int64{3, 3}) || stride != 2 {
		return "", fmt.Errorf("%s takes %v pixels with a stride of %d; 3 x 3 and 2 are needed", pool, kernel, stride)
	}
	if late {
		w.late++
	}
	take(relu, pool)
	return pool.outputs[0], nil
}

// path is a way from a value through convolutions to a sum.
type path struct {
	units []*unit
	sum   *node
}

// follow follows a path, which is nil where it does not lead to a sum after three convolutions at most.
func (w *walk) follow(conv *node) (*path, error) {
	p := &path{}
	for {
		u, err := w.unit(conv)
		if err != nil {
			return nil, err
		}
		p.units = append(p.units, u)
		if p.sum = w.only(u.out, "Add", "Sum"); p.sum != nil {
			return p, nil
		}
		relu := w.only(u.out, "Relu")
		if relu == nil || len(p.units) == 3 {
			return nil, nil
		}
		u.relu = relu
		if conv = w.only(relu.outputs[0], "Conv"); conv == nil {
			return nil, nil
		}
	}
}

// block finds the residual block that reads x: its convolutions, the one in its shortcut, or nil where that is x itself,
// and the sum of both. main is nil where no block reads x.
func (w *walk) block(x string) (main []*unit, shortcut *unit, sum *node, err error) {
	var paths []*path
	var failed error // of the last way that could not be followed, which need not be part of the ResNet
	for _, n := range w.file.uses[x] {
		if n.op != "Conv" || n.domain != "" || n.inputs[0] != x {
			continue
		}
		p, err := w.follow(n)
		if err != nil {
			failed = err
		}
		if p != nil {
			paths = append(paths, p)
		}
	}
	var longest *path
	for _, p := range paths {
		if len(p.units) == 1 {
			continue
		}
		if longest != nil {
			return nil, nil, nil, fmt.Errorf("two ways of several convolutions begin at %q; in a residual block one does", x)
		}
		longest = p
	}
	if longest == nil {
		return nil, nil, nil, failed
	}
	if sum = longest.sum; len(sum.inputs) != 2 {
		return nil, nil, nil, fmt.Errorf("%s adds %d values; a residual block adds two", sum, len(sum.inputs))
	}
	other := sum.inputs[0]
	if last := longest.units[len(longest.units)-1]; other == last.out {
		other = sum.inputs[1]
	}
	if other == x {
		return longest.units, nil, sum, nil
	}
	for _, p := range paths {
		if len(p.units) == 1 && p.sum == sum && p.units[0].out == other {
			return longest.units, p.units[0], sum, nil
		}
	}
	if failed != nil {
		return nil, nil, nil, failed
	}
	return nil, nil, nil, fmt.Errorf("%s adds %q, which is neither what the block begins with nor a convolution of that", sum, other)
}

// addBlock adds a block's layers. channels is what goes in, and then what comes out; width is what its convolutions but
// the last put out.
func (w *walk) addBlock(name string, main []*unit, shortcut *unit, channels, width int, deep bool) (out int, err error) {
	if deep != (len(main) == 3) {
		return 0, fmt.Errorf("%s has %d convolutions, unlike the blocks before it", name, len(main))
	}
	kernels, strided, out := []int{3, 3}, 0, width
	if deep {
		kernels, strided = []int{1, 3, 1}, 1
		out = main[2].weight.shape[0]
	}
	stride := max(main[0].stride, main[1].stride)
	if deep && main[0].stride > 1 {
		return 0, fmt.Errorf("%s has its stride on its first convolution, as the first ResNets had; torchvision's have it on the second, and no other "+
			"kind is supported", name)
	}
	in := channels
	for i, u := range main {
		outs, s := width, 1
		if i == len(main)-1 {
			outs = out
		}
		if i == strided {
			s = stride
		}
		conv, norm := fmt.Sprintf("%s.conv%d", name, i+1), fmt.Sprintf("%s.bn%d", name, i+1)
		if err := w.add(conv, norm, u, []int{outs, in, kernels[i], kernels[i]}, s); err != nil {
			return 0, err
		}
		in = outs
	}
	switch {
	case shortcut != nil:
		return out, w.add(name+".downsample.0", name+".downsample.1", shortcut, []int{out, channels, 1, 1}, stride)
	case stride > 1 || channels != out:
		return 0, fmt.Errorf("%s makes %d channels of %d with a stride of %d, and has no convolution in its shortcut", name, out, channels, stride)
	}
	return out, nil
}

// unit looks at a convolution and what belongs to it.
func (w *walk) unit(conv *node) (*unit, error) {
	u := &unit{conv: conv}
	if len(conv.inputs) < 2 || len(conv.outputs) == 0 {
		return nil, fmt.Errorf("%s has %d inputs and %d outputs: %w", conv, len(conv.inputs), len(conv.outputs), errDamaged)
	}
	if u.weight = w.file.tensors[conv.inputs[1]]; u.weight == nil {
		return nil, fmt.Errorf("%s: its weights %q are not in the file; save the model with its parameters", conv, conv.inputs[1])
	}
	shape := u.weight.shape
	if len(shape) != 4 || shape[2] != shape[3] || shape[2] > 7 || shape[2]%2 == 0 {
		return nil, fmt.Errorf("%s: its weights have the shape %v; four dimensions are needed, the last two of them 1, 3 or 7", conv, shape)
	}
	var err error
	if u.stride, u.late, err = spacing(conv, shape[2]); err != nil {
		return nil, err
	}
	u.out = conv.outputs[0]
	if u.norm = w.only(u.out, "BatchNormalization"); u.norm != nil {
		if len(u.norm.inputs) < 5 || len(u.norm.outputs) == 0 || u.norm.inputs[0] != u.out {
			return nil, fmt.Errorf("%s has %d inputs and %d outputs: %w", u.norm, len(u.norm.inputs), len(u.norm.outputs), errDamaged)
		}
		u.out = u.norm.outputs[0]
	}
	return u, nil
}

// spacing reads where a convolution or pooling with a kernel of so many pixels puts it. late says that the padding begins
// a pixel later than torchvision's, which is as much at the beginning as at the end.
func spacing(n *node, kernel int) (stride int, late bool, err error) {
	if g := n.integer("group", 1); g != 1 {
		return 0, false, fmt.Errorf("%s has %d groups; 1 is needed", n, g)
	}
	for _, d := range n.list("dilations", 1, 2) {
		if d != 1 {
			return 0, false, fmt.Errorf("%s has a dilation of %d; 1 is needed", n, d)
		}
	}
	strides := n.list("strides", 1, 2)
	if len(strides) != 2 || strides[0] != strides[1] || strides[0] < 1 || strides[0] > 2 {
		return 0, false, fmt.Errorf("%s has strides of %v; 1 and 1 or 2 and 2 are needed", n, strides)
	}
	stride = int(strides[0])
	// What is left of an even size is padded at the end alone, or by rounding up.
	half := int64(kernel-1) / 2
	ceil := n.integer("ceil_mode", 0) != 0
	strided := stride == 2 && half > 0
	pads := n.list("pads", 0, 4)
	switch auto := n.text("auto_pad"); auto {
	case "", "NOTSET":
		if len(pads) != 4 || pads[0] != pads[1] || pads[2] != pads[3] {
			return 0, false, fmt.Errorf("%s has pads of %v; the same for height and width are needed", n, pads)
		}
	case "VALID":
		pads = make([]int64, 4)
	case "SAME_LOWER":
		return stride, false, nil
	case "SAME_UPPER":
		return stride, strided, nil
	default:
		return 0, false, fmt.Errorf("%s has the padding %q: %w", n, auto, errDamaged)
	}
	begin, end := pads[0], pads[2]
	switch {
	case begin == half && end == half && !ceil, begin == half && end == half-1 && strided:
		return stride, false, nil
	case begin == half-1 && end == half && strided && !ceil, begin == half-1 && end == half-1 && strided && ceil:
		return stride, true, nil
	}
	return 0, false, fmt.Errorf("%s has pads of %v; %d on each side are needed", n, pads, half)
}

// add takes a unit as a layer. shape and stride are what they have to be.
func (w *walk) add(conv, norm string, u *unit, shape []int, stride int) error {
	switch {
	case !slices.Equal(u.weight.shape, shape):
		return fmt.Errorf("%s, %s, has weights of the shape %v; %v is needed", conv, u.conv, u.weight.shape, shape)
	case u.stride != stride:
		return fmt.Errorf("%s, %s, has a stride of %d; %d is needed", conv, u.conv, u.stride, stride)
	}
	take(u.conv, u.norm, u.relu)
	if u.late {
		w.late++
	}
	l := &layer{conv: conv, norm: norm, shape: shape}
	var err error
	if l.weight, err = u.weight.values(); err != nil {
		return fmt.Errorf("%s: %w", u.conv, err)
	}
	channels := shape[0]
	if l.scale, l.bias, l.mean, l.variance, err = w.statistics(u.norm, channels); err != nil {
		return err
	}
	if len(u.conv.inputs) > 2 && u.conv.inputs[2] != "" {
		bias, err := w.vector(u.conv, 2, channels)
		if err != nil {
			return err
		}
		for c := range bias {
			l.mean[c] -= bias[c] // (x + bias) - mean
		}
	}
	w.net.layers = append(w.net.layers, l)
	return nil
}

// statistics are those of a batch norm, for an epsilon of normEps. Without one they change nothing.
func (w *walk) statistics(norm *node, channels int) (scale, bias, mean, variance []float64, err error) {
	if norm == nil {
		scale, variance = slices.Repeat([]float64{math.Sqrt(1 + normEps)}, channels), slices.Repeat([]float64{1}, channels)
		return scale, make([]float64, channels), make([]float64, channels), variance, nil
	}
	if norm.integer("spatial", 1) != 1 || norm.integer("training_mode", 0) != 0 {
		return nil, nil, nil, nil, fmt.Errorf("%s is not set to predict, per channel; save the model in eval mode", norm)
	}
	into := []*[]float64{&scale, &bias, &mean, &variance}
	for i := range into {
		if *into[i], err = w.vector(norm, i+1, channels); err != nil {
			return nil, nil, nil, nil, err
		}
	}
	eps := norm.float("epsilon", normEps)
	for c, v := range variance {
		if !(v >= 0) || !(eps > 0) {
			return nil, nil, nil, nil, fmt.Errorf("%s has a variance of %v and an epsilon of %v; positive ones are needed", norm, v, eps)
		}
		if eps != normEps {
			scale[c] *= math.Sqrt((v + normEps) / (v + float64(eps)))
		}
	}
	return scale, bias, mean, variance, nil
}

// vector is a node's input with a number per channel.
func (w *walk) vector(n *node, input, channels int) ([]float64, error) {
	t := w.file.tensors[n.inputs[input]]
	if t == nil {
		return nil, fmt.Errorf("%s: its %q is not in the file; save the model with its parameters", n, n.inputs[input])
	}
	if !slices.Equal(t.shape, []int{channels}) {
		return nil, fmt.Errorf("%s: %q has the shape %v; [%d] is needed", n, t.name, t.shape, channels)
	}
	values, err := t.values()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n, err)
	}
	wide := make([]float64, len(values))
	for i, v := range values {
		wide[i] = float64(v)
	}
	return wide, nil
}

// describe says what is left out, and what is not as in the file.
func (w *walk) describe() {
	counts := map[string]int{}
	for _, n := range w.file.nodes {
		if !n.taken {
			counts[n.op]++
		}
	}
	var rest []string
	for _, op := range slices.Sorted(maps.Keys(counts)) {
		rest = append(rest, fmt.Sprintf("%d %s", counts[op], op))
	}
	if len(rest) > 0 {
		w.net.LeftOut = append(w.net.LeftOut, "operations: "+strings.Join(rest, ", "))
	}
	if w.late > 0 {
		w.net.Notes = append(w.net.Notes, fmt.Sprintf("%d of its layers with a stride pad the end first; here both sides are padded alike, so features differ a little",
			w.late))
	}
}

// finish scales the layers and makes their tensors.
func (r *ResNet) finish() error {
	r.Tensors = map[string]Tensor{}
	for _, l := range r.layers {
		l.moderate()
		narrow := func(values []float64) Tensor {
			t := Tensor{Shape: []int{len(values)}}
			for _, v := range values {
				t.Values = append(t.Values, float32(v))
			}
			return t
		}
		r.Tensors[l.conv+".weight"] = Tensor{l.shape, l.weight}
		r.Tensors[l.norm+".weight"], r.Tensors[l.norm+".bias"] = narrow(l.scale), narrow(l.bias)
		r.Tensors[l.norm+".running_mean"], r.Tensors[l.norm+".running_var"] = narrow(l.mean), narrow(l.variance)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Tensors)) {
		for _, v := range r.Tensors[name].Values {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return fmt.Errorf("%s has the number %v, and finite ones are needed; the training that made it went wrong", name, v)
			}
		}
	}
	return nil
}

// moderate divides a convolution by a power of two where what comes out of it varies so much that half precision could
// not hold the variances. The batch norm undoes it.
func (l *layer) moderate() {
	k := 1.0
	for largest := slices.Max(l.variance); largest/(k*k) > maxVariance && k < 1<<30; {
		k *= 2
	}
	if k == 1 {
		return
	}
	for i := range l.weight {
		l.weight[i] = float32(float64(l.weight[i]) / k)
	}
	for c, v := range l.variance {
		l.scale[c] *= k * math.Sqrt((v/(k*k)+normEps)/(v+normEps)) // epsilon is not divided
		l.mean[c] /= k
		l.variance[c] = v / (k * k)
	}
}
