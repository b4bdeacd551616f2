package onnxfile_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/onnxfile"
	"rdpp/rdpp/onnxfile/onnxtest"
)

var (
	mean = [3]float32{0.485, 0.456, 0.406}
	std  = [3]float32{0.229, 0.224, 0.225}
)

// parse reads a graph as a file.
func parse(t testing.TB, g *onnxtest.Graph) *onnxfile.File {
	t.Helper()
	f, err := onnxfile.Parse("some.onnx", g.Encode())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// colours are a picture of random colours, 0 to 255, in the order blue, green, red.
func colours(size int) *onnxtest.Planes {
	rng := rand.New(rand.NewPCG(3, 4))
	p := &onnxtest.Planes{C: 3, H: size, W: size, Values: make([]float64, 3*size*size)}
	for i := range p.Values {
		p.Values[i] = 255 * rng.Float64()
	}
	return p
}

// normalised is a picture as torchvision's networks read it: red, green, blue.
func normalised(p *onnxtest.Planes) *onnxtest.Planes {
	out, n := *p, p.H*p.W
	out.Values = make([]float64, len(p.Values))
	for c := range 3 {
		for i := range n {
			out.Values[c*n+i] = (p.Values[(2-c)*n+i]/255 - float64(mean[c])) / float64(std[c])
		}
	}
	return &out
}

// checkFeatures compares the features of two graphs on their inputs.
func checkFeatures(t *testing.T, what string, got map[string]*onnxtest.Planes, gotNames [3]string, want map[string]*onnxtest.Planes, wantNames [3]string) {
	t.Helper()
	for k := range 3 {
		g, w := got[gotNames[k]], want[wantNames[k]]
		if g == nil || w == nil || len(g.Values) != len(w.Values) {
			t.Fatalf("%s: layer%d: got %v, want %v", what, k+1, g, w)
		}
		worst, largest := 0.0, 0.0
		for i := range w.Values {
			worst, largest = max(worst, math.Abs(g.Values[i]-w.Values[i])), max(largest, math.Abs(w.Values[i]))
		}
		if !(worst <= 1e-4*largest) || largest == 0 {
			t.Errorf("%s: layer%d: features differ by %v of %v, want at most 1e-4 of that", what, k+1, worst, largest)
		}
	}
}

// store sets how a file holds the numbers of all its tensors.
func store(how int) func(*onnxtest.Graph) {
	return func(g *onnxtest.Graph) {
		for _, t := range g.Tensors {
			t.Store = how
			if how == onnxtest.Half || how == onnxtest.HalfList {
				for i, v := range t.Values {
					t.Values[i] = math.Float32frombits(math.Float32bits(v) &^ 0x1fff) // which half precision holds
				}
			}
		}
	}
}

func TestResNet(t *testing.T) {
	input := normalised(colours(16))
	for _, c := range []struct {
		name   string
		opt    onnxtest.Options
		change func(g *onnxtest.Graph)
		arch   string
		left   string // in what is left out
	}{
		{"batch norms", onnxtest.Options{}, nil, "resnet18", ""},
		{"folded", onnxtest.Options{Folded: true}, nil, "resnet18", ""},
		{"biases and batch norms", onnxtest.Options{Biased: true}, nil, "resnet18", ""},
		{"another epsilon", onnxtest.Options{Epsilon: 2e-2}, nil, "resnet18", ""},
		{"the same epsilon", onnxtest.Options{Epsilon: 1e-5}, nil, "resnet18", ""},
		{"large variances", onnxtest.Options{Large: true}, nil, "resnet18", ""},
		{"with its top", onnxtest.Options{Top: true}, nil, "resnet18", "layer4; operations: 2 Add, 5 BatchNormalization, 5 Conv, 1 Flatten, 1 Gemm, 1 GlobalAveragePool, 4 Relu"},
		{"padding by name", onnxtest.Options{Pad: "SAME_LOWER"}, nil, "resnet18", ""},
		{"no padding that is of no use", onnxtest.Options{Pad: "end"}, nil, "resnet18", ""},
		{"three convolutions", onnxtest.Options{Blocks: []int{3, 4, 6}, Deep: true}, nil, "resnet50", ""},
		{"wide", onnxtest.Options{Blocks: []int{3, 4, 6}, Deep: true, Width: 128, Folded: true}, nil, "wide_resnet50_2", ""},
		{"a list of numbers", onnxtest.Options{}, store(onnxtest.Packed), "resnet18", ""},
		{"number by number", onnxtest.Options{}, store(onnxtest.Single), "resnet18", ""},
		{"half precision", onnxtest.Options{}, store(onnxtest.Half), "resnet18", ""},
		{"a list in half precision", onnxtest.Options{}, store(onnxtest.HalfList), "resnet18", ""},
		{"float64", onnxtest.Options{}, store(onnxtest.Double), "resnet18", ""},
		{"a list of float64", onnxtest.Options{}, store(onnxtest.DoubleList), "resnet18", ""},
		{"constants as nodes", onnxtest.Options{}, func(g *onnxtest.Graph) {
			var nodes []*onnxtest.Node
			for _, t := range g.Tensors {
				nodes = append(nodes, &onnxtest.Node{Op: "Constant", Outputs: []string{t.Name}, Attributes: map[string]any{"value": t}})
			}
			g.Nodes, g.Tensors = append(nodes, g.Nodes...), nil
		}, "resnet18", ""},
		{"initializers among the inputs", onnxtest.Options{}, func(g *onnxtest.Graph) {
			for _, t := range g.Tensors {
				g.Inputs = append(g.Inputs, t.Name)
			}
		}, "resnet18", ""},
		{"nodes that do nothing", onnxtest.Options{}, func(g *onnxtest.Graph) {
			first, norm := g.Find("Conv", 0), g.Find("BatchNormalization", 0)
			norm.Inputs[1] = "again"
			nodes := []*onnxtest.Node{{Op: "Identity", Inputs: []string{g.Tensors[1].Name}, Outputs: []string{"again"}},
				first, {Op: "Dropout", Inputs: []string{first.Outputs[0]}, Outputs: []string{"dropped", "mask"}}}
			norm.Inputs[0] = "dropped"
			g.Nodes = append(nodes, g.Nodes[1:]...)
		}, "resnet18", ""},
		{"sums the other way round, in the format's domain", onnxtest.Options{}, func(g *onnxtest.Graph) {
			for _, n := range g.Nodes {
				if n.Domain = "ai.onnx"; n.Op == "Add" {
					slices.Reverse(n.Inputs)
				}
			}
		}, "resnet18", ""},
	} {
		g := onnxtest.ResNet(c.opt)
		if c.change != nil {
			c.change(g)
		}
		r, err := parse(t, g).ResNet(nil, mean, std)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := strings.Join(r.LeftOut, "; "); r.Arch != c.arch || got != c.left || len(r.Notes) > 0 {
			t.Errorf("%s: got %s without %q and notes %q, want %s without %q and none", c.name, r.Arch, got, r.Notes, c.arch, c.left)
		}
		ours := onnxtest.Torchvision(r)
		checkFeatures(t, c.name, ours.Run(input, nil), ours.Features, g.Run(input, nil), g.Features)
		for name, tensor := range r.Tensors {
			if largest := slices.Max(tensor.Values); largest > 1024 {
				t.Errorf("%s: %s: got %v, want what half precision holds well", c.name, name, largest)
			}
		}
	}
}

// An Add may be written as a Sum of two. A file that pads at the end first is accepted, and says so.
func TestResNetNotes(t *testing.T) {
	for _, c := range []struct {
		name   string
		opt    onnxtest.Options
		change func(g *onnxtest.Graph)
		want   string
	}{
		{"a sum", onnxtest.Options{}, func(g *onnxtest.Graph) { g.Find("Add", 3).Op = "Sum" }, ""},
		{"SAME_UPPER", onnxtest.Options{Pad: "SAME_UPPER"}, nil, "4 of its layers with a stride"},
		{"pooling that pads at the end", onnxtest.Options{}, func(g *onnxtest.Graph) {
			g.Find("MaxPool", 0).Attributes["pads"] = []int{0, 0, 1, 1}
		}, "1 of its layers with a stride"},
		{"pooling that rounds up", onnxtest.Options{}, func(g *onnxtest.Graph) {
			pool := g.Find("MaxPool", 0)
			pool.Attributes["pads"], pool.Attributes["ceil_mode"] = []int{0, 0, 0, 0}, 1
		}, "1 of its layers with a stride"},
	} {
		g := onnxtest.ResNet(c.opt)
		if c.change != nil {
			c.change(g)
		}
		r, err := parse(t, g).ResNet(nil, mean, std)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := strings.Join(r.Notes, "; "); (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: got notes %q, want %q", c.name, got, c.want)
		}
	}
}

// A network that reads BGR of 0 to 255 less a mean image becomes one that reads torchvision's input. Padding is what our
// zero stands for.
func TestPreprocess(t *testing.T) {
	constant := func(name string, shape []int, values ...float32) *onnxtest.Tensor {
		return &onnxtest.Tensor{Name: name, Shape: shape, Values: values}
	}
	step := func(op, x, constant, y string, attributes map[string]any) *onnxtest.Node {
		return &onnxtest.Node{Op: op, Inputs: []string{x, constant}, Outputs: []string{y}, Attributes: attributes}
	}
	varied := onnxtest.MeanImage(4, 103, 116, 123)
	for i := range varied.Tensors[0].Values {
		varied.Tensors[0].Values[i] += float32(i%2)*2 - 1
	}
	for _, c := range []struct {
		name         string
		graph        *onnxtest.Graph
		scale, shift [3]float64 // of blue, green, red
		notes        int
	}{
		{"a mean image", onnxtest.MeanImage(8, 103, 116, 123), [3]float64{1, 1, 1}, [3]float64{-103, -116, -123}, 0},
		{"a mean image that varies", varied, [3]float64{1, 1, 1}, [3]float64{-103, -116, -123}, 1},
		{"several steps", &onnxtest.Graph{Inputs: []string{"x"},
			Tensors: []*onnxtest.Tensor{constant("unit", nil, 255), constant("mean", []int{3, 1, 1}, 0.5, 0.25, 0.75), constant("two", []int{1}, 2),
				constant("old", []int{3}, 1, 2, 3)},
			Nodes: []*onnxtest.Node{{Op: "Cast", Inputs: []string{"x"}, Outputs: []string{"a"}, Attributes: map[string]any{"to": 1}},
				step("Div", "a", "unit", "b", nil), step("Sub", "b", "mean", "c", nil), step("Mul", "two", "c", "d", nil),
				step("Add", "d", "old", "e", map[string]any{"axis": 1, "broadcast": 1})},
		}, [3]float64{2. / 255, 2. / 255, 2. / 255}, [3]float64{0, 1.5, 1.5}, 0},
	} {
		p, err := parse(t, c.graph).Preprocess()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for i := range 3 {
			if math.Abs(p.Scale[i]-c.scale[i]) > 1e-12 || math.Abs(p.Shift[i]-c.shift[i]) > 1e-6 {
				t.Errorf("%s: got %v x + %v, want %v x + %v", c.name, p.Scale, p.Shift, c.scale, c.shift)
			}
		}
		g := onnxtest.ResNet(onnxtest.Options{Top: true, Biased: true, Epsilon: 1e-3})
		r, err := parse(t, g).ResNet(p, mean, std)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if len(r.Notes) != c.notes {
			t.Errorf("%s: got notes %q, want %d", c.name, r.Notes, c.notes)
		}
		picture := colours(16)
		read, outside := *picture, make([]float64, 3)
		read.Values = slices.Clone(picture.Values)
		for i := range read.Values {
			colour := i / (16 * 16)
			read.Values[i] = c.scale[colour]*read.Values[i] + c.shift[colour]
		}
		for colour := range outside {
			outside[colour] = c.scale[colour]*255*float64(mean[2-colour]) + c.shift[colour]
		}
		ours := onnxtest.Torchvision(r)
		checkFeatures(t, c.name, ours.Run(normalised(picture), nil), ours.Features, g.Run(&read, outside), g.Features)
	}
}

// checkError wants an error of one line that names the file and has all the texts.
func checkError(t *testing.T, what string, err error, file string, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: got no error, want one with %q", what, texts)
		return
	}
	for _, text := range append(texts, file) {
		if !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got error %q, want one line with %q in it", what, err, text)
		}
	}
}

func TestResNetRefuses(t *testing.T) {
	type graph = onnxtest.Graph
	set := func(op string, n int, key string, value any) func(*graph) {
		return func(g *graph) { g.Find(op, n).Attributes[key] = value }
	}
	number := func(op string, n, input int, value float32) func(*graph) {
		return func(g *graph) { g.Tensor(g.Find(op, n).Inputs[input]).Values[0] = value }
	}
	shape := func(op string, n, input int, shape ...int) func(*graph) {
		return func(g *graph) {
			t := g.Tensor(g.Find(op, n).Inputs[input])
			n := 1
			for _, d := range shape {
				n *= d
			}
			t.Shape, t.Values = shape, make([]float32, n)
		}
	}
	rename := func(op string, n int, to string) func(*graph) {
		return func(g *graph) { g.Find(op, n).Op = to }
	}
	nan := float32(math.NaN())
	plain := onnxtest.ResNet(onnxtest.Options{})
	for _, c := range []struct {
		name   string
		opt    onnxtest.Options
		change func(g *graph)
		want   []string
	}{
		{"no layer3", onnxtest.Options{Blocks: []int{2, 2}}, nil, []string{"2 layers of residual blocks", "3 layers are needed"}},
		{"blocks of no ResNet", onnxtest.Options{Blocks: []int{2, 1, 2}}, nil, []string{"[2 1 2] blocks", "torchvision"}},
		{"a width of no ResNet", onnxtest.Options{Deep: true, Blocks: []int{3, 4, 6}, Width: 32}, nil, []string{"32 channels wide"}},
		{"strides of the first ResNets", onnxtest.Options{Deep: true, Blocks: []int{3, 4, 6}, First: true}, nil, []string{"layer2.0", "stride on its first convolution"}},
		{"no convolution", onnxtest.Options{}, func(g *graph) { g.Nodes = nil }, []string{"input goes to nothing"}},
		{"preprocessing inside", onnxtest.Options{}, func(g *graph) {
			g.Nodes = append([]*onnxtest.Node{{Name: "minus", Op: "Sub", Inputs: []string{"data", "x"}, Outputs: []string{"y"}}}, g.Nodes...)
			g.Find("Conv", 0).Inputs[0] = "y"
		}, []string{`Sub "minus"`, "preprocess"}},
		{"two inputs", onnxtest.Options{}, func(g *graph) { g.Inputs = append(g.Inputs, "more") }, []string{"2 inputs"}},
		{"another first convolution", onnxtest.Options{}, shape("Conv", 0, 1, 64, 1, 7, 7), []string{"conv1", "[64 1 7 7]", "[64 3 7 7] is needed"}},
		{"weights of two dimensions", onnxtest.Options{}, shape("Conv", 0, 1, 64, 147), []string{"[64 147]", "four dimensions"}},
		{"weights of even size", onnxtest.Options{}, shape("Conv", 0, 1, 64, 3, 4, 4), []string{"[64 3 4 4]"}},
		{"weights of another layer", onnxtest.Options{}, shape("Conv", 5, 1, 128, 32, 3, 3), []string{"layer2.0.conv1", "[128 32 3 3]", "[128 64 3 3] is needed"}},
		{"a shortcut of another shape", onnxtest.Options{}, shape("Conv", 7, 1, 64, 64, 1, 1), []string{"layer2.0.downsample.0", "[128 64 1 1] is needed"}},
		{"a batch norm of another shape", onnxtest.Options{}, shape("BatchNormalization", 2, 3, 32), []string{"node", "[32]", "[64] is needed"}},
		{"a bias of another shape", onnxtest.Options{Folded: true}, shape("Conv", 2, 2, 32), []string{"[32]", "[64] is needed"}},
		{"missing weights", onnxtest.Options{}, func(g *graph) { g.Find("Conv", 3).Inputs[1] = "nothing" }, []string{`"nothing"`, "not in the file"}},
		{"a missing variance", onnxtest.Options{}, func(g *graph) { g.Find("BatchNormalization", 3).Inputs[4] = "nothing" }, []string{`"nothing"`, "not in the file"}},
		{"a missing bias", onnxtest.Options{Folded: true}, func(g *graph) { g.Find("Conv", 3).Inputs[2] = "nothing" }, []string{`"nothing"`, "not in the file"}},
		{"a batch norm without inputs", onnxtest.Options{}, func(g *graph) {
			n := g.Find("BatchNormalization", 3)
			n.Inputs = n.Inputs[:2]
		}, []string{"2 inputs", "damaged"}},
		{"a convolution without weights", onnxtest.Options{}, func(g *graph) {
			n := g.Find("Conv", 0)
			n.Inputs = n.Inputs[:1]
		}, []string{"1 inputs", "damaged"}},
		{"weights elsewhere", onnxtest.Options{}, func(g *graph) { g.Tensors[0].Store = onnxtest.External }, []string{"a file beside this one", "one file"}},
		{"whole numbers", onnxtest.Options{}, func(g *graph) { g.Tensors[0].Store = onnxtest.Int64 }, []string{"type 7", "floating-point"}},
		{"fewer numbers than its shape has", onnxtest.Options{}, func(g *graph) { g.Tensors[0].Values = g.Tensors[0].Values[1:] }, []string{"damaged", "[64 3 7 7]"}},
		{"more numbers than its shape has", onnxtest.Options{}, func(g *graph) { g.Tensors[0].Values = append(g.Tensors[0].Values, 1) }, []string{"damaged"}},
		{"no number", onnxtest.Options{}, number("Conv", 4, 1, nan), []string{"layer1.1.conv2.weight", "NaN", "finite"}},
		{"an infinite number", onnxtest.Options{}, number("BatchNormalization", 4, 2, float32(math.Inf(1))), []string{"layer1.1.bn2.bias", "finite"}},
		{"an infinite variance", onnxtest.Options{}, number("BatchNormalization", 4, 4, float32(math.Inf(1))), []string{"layer1.1.bn2", "finite"}},
		{"a negative variance", onnxtest.Options{}, number("BatchNormalization", 4, 4, -1), []string{"variance of -1"}},
		{"a variance that is no number", onnxtest.Options{}, number("BatchNormalization", 4, 4, nan), []string{"variance of NaN"}},
		{"no epsilon", onnxtest.Options{}, set("BatchNormalization", 4, "epsilon", float32(0)), []string{"epsilon of 0"}},
		{"a batch norm that learns", onnxtest.Options{}, set("BatchNormalization", 1, "training_mode", 1), []string{"eval mode"}},
		{"a batch norm per position", onnxtest.Options{}, set("BatchNormalization", 1, "spatial", 0), []string{"per channel"}},
		{"groups", onnxtest.Options{}, set("Conv", 2, "group", 2), []string{"2 groups"}},
		{"dilation", onnxtest.Options{}, set("Conv", 2, "dilations", []int{2, 2}), []string{"dilation of 2"}},
		{"uneven strides", onnxtest.Options{}, set("Conv", 0, "strides", []int{2, 1}), []string{"[2 1]"}},
		{"a stride too many", onnxtest.Options{}, set("Conv", 0, "strides", []int{2, 2, 2}), []string{"[2 2 2]"}},
		{"a stride of 1", onnxtest.Options{}, set("Conv", 0, "strides", []int{1, 1}), []string{"conv1", "stride of 1; 2 is needed"}},
		{"a stride where none is", onnxtest.Options{}, set("Conv", 2, "strides", []int{2, 2}), []string{"stride"}},
		{"no padding", onnxtest.Options{}, set("Conv", 2, "pads", []int{0, 0, 0, 0}), []string{"pads of [0 0 0 0]; 1"}},
		{"uneven padding", onnxtest.Options{}, set("Conv", 2, "pads", []int{1, 0, 1, 0}), []string{"pads of [1 0 1 0]"}},
		{"padding of two numbers", onnxtest.Options{}, set("Conv", 2, "pads", []int{1, 1}), []string{"pads of [1 1]"}},
		{"padding by the name VALID", onnxtest.Options{}, set("Conv", 2, "auto_pad", "VALID"), []string{"pads of [0 0 0 0]"}},
		{"padding by no name", onnxtest.Options{}, set("Conv", 2, "auto_pad", "SOME"), []string{`"SOME"`, "damaged"}},
		{"another pooling", onnxtest.Options{}, set("MaxPool", 0, "kernel_shape", []int{2, 2}), []string{"3 x 3"}},
		{"pooling without a stride", onnxtest.Options{}, set("MaxPool", 0, "strides", []int{1, 1}), []string{"3 x 3"}},
		{"pooling that rounds up what is padded", onnxtest.Options{}, set("MaxPool", 0, "ceil_mode", 1), []string{"pads of [1 1 1 1]"}},
		{"pooling of averages", onnxtest.Options{}, rename("MaxPool", 0, "AveragePool"), []string{"AveragePool", "max pooling"}},
		{"another activation", onnxtest.Options{}, rename("Relu", 0, "Tanh"), []string{"Tanh", "ReLU is needed"}},
		{"another activation behind a sum", onnxtest.Options{}, rename("Relu", 2, "Tanh"), []string{"layer1.0", "Tanh", "ReLU is needed"}},
		{"another activation in a block", onnxtest.Options{}, rename("Relu", 3, "Tanh"), []string{"1 layers"}},
		{"another domain", onnxtest.Options{}, func(g *graph) { g.Find("Relu", 0).Domain = "mine" }, []string{"ReLU is needed"}},
		{"products in place of sums", onnxtest.Options{}, rename("Add", 0, "Mul"), []string{"0 layers"}},
		{"a sum of three", onnxtest.Options{}, func(g *graph) {
			n := g.Find("Add", 1)
			n.Op, n.Inputs = "Sum", append(n.Inputs, "data2")
		}, []string{"adds 3 values"}},
		{"a sum with something else", onnxtest.Options{}, func(g *graph) { g.Find("Add", 1).Inputs[1] = "value1" }, []string{"adds \"value1\""}},
		{"a missing shortcut", onnxtest.Options{}, func(g *graph) {
			n := g.Find("Add", 2)
			n.Inputs[1] = g.Find("Conv", 5).Inputs[0]
		}, []string{"layer2.0", "no convolution in its shortcut"}},
		{"a shortcut that cannot be read", onnxtest.Options{}, set("Conv", 7, "group", 4), []string{"4 groups"}},
	} {
		g := plain.Clone()
		if fmt.Sprint(c.opt) != fmt.Sprint(onnxtest.Options{}) {
			g = onnxtest.ResNet(c.opt)
		}
		if c.change != nil {
			c.change(g)
		}
		f, err := onnxfile.Parse("some.onnx", g.Encode())
		if err == nil {
			_, err = f.ResNet(nil, mean, std)
		}
		checkError(t, c.name, err, "some.onnx", c.want...)
	}
}

func TestPreprocessRefuses(t *testing.T) {
	type graph = onnxtest.Graph
	for _, c := range []struct {
		name   string
		change func(g *graph)
		want   []string
	}{
		{"nothing", func(g *graph) { g.Nodes = nil }, []string{"changes no number", "preprocess"}},
		{"no input", func(g *graph) { g.Inputs = nil }, []string{"0 inputs"}},
		{"another operation", func(g *graph) { g.Nodes[0].Op = "Transpose" }, []string{"Transpose", "not supported"}},
		{"another domain", func(g *graph) { g.Nodes[0].Domain = "mine" }, []string{"Sub"}},
		{"two ways", func(g *graph) {
			g.Nodes = append(g.Nodes, &onnxtest.Node{Op: "Relu", Inputs: []string{"picture"}, Outputs: []string{"more"}})
		}, []string{"one after the other"}},
		{"a loop", func(g *graph) { g.Nodes[0].Outputs[0] = "picture" }, []string{"one after the other"}},
		{"one operand", func(g *graph) { g.Nodes[0].Inputs = g.Nodes[0].Inputs[:1] }, []string{"1 inputs"}},
		{"no constant", func(g *graph) { g.Tensors = nil }, []string{`"mean"`, "no constant"}},
		{"a reshape by the picture", func(g *graph) {
			g.Nodes[0].Op = "Reshape"
			slices.Reverse(g.Nodes[0].Inputs)
		}, []string{"Reshape", "damaged"}},
		{"the wrong way round", func(g *graph) { slices.Reverse(g.Nodes[0].Inputs) }, []string{"on its right"}},
		{"another shape", func(g *graph) { g.Tensors[0].Shape = []int{1, 4, 4, 3} }, []string{"[1 4 4 3]"}},
		{"colours in a row", func(g *graph) { g.Tensors[0].Shape, g.Tensors[0].Values = []int{3}, []float32{1, 2, 3} }, []string{"[3]"}},
		{"fewer numbers", func(g *graph) { g.Tensors[0].Values = g.Tensors[0].Values[1:] }, []string{"damaged"}},
		{"no number", func(g *graph) { g.Tensors[0].Values[0] = float32(math.NaN()) }, []string{"finite"}},
		{"division by zero", func(g *graph) {
			g.Nodes[0].Op, g.Tensors[0].Shape, g.Tensors[0].Values = "Div", nil, []float32{0}
		}, []string{"finite"}},
		{"a factor of zero", func(g *graph) {
			g.Nodes[0].Op, g.Tensors[0].Shape, g.Tensors[0].Values = "Mul", nil, []float32{0}
		}, []string{"zero"}},
		{"a factor per pixel", func(g *graph) { g.Nodes[0].Op, g.Tensors[0].Values[0] = "Mul", 7 }, []string{"another factor at every pixel"}},
	} {
		g := onnxtest.MeanImage(4, 103, 116, 123)
		c.change(g)
		f, err := onnxfile.Parse("pre.onnx", g.Encode())
		if err == nil {
			_, err = f.Preprocess()
		}
		checkError(t, c.name, err, "pre.onnx", c.want...)
	}
}

func TestParseRefuses(t *testing.T) {
	message := onnxfile.Message(nil)
	graph := func(body onnxfile.Message) []byte { return message.Sub(onnxfile.ModelGraph, body) }
	tensor := message.Text(onnxfile.TensorName, "a")
	many := bytes.Repeat(message.Text(onnxfile.GraphNode, ""), 1<<17+2)
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "no graph"},
		{"text", []byte("no ONNX file"), "no ONNX file, or a damaged one"},
		{"a graph that is a number", message.Integer(onnxfile.ModelGraph, 1), "no graph"},
		{"a length beyond the end", message.Open(onnxfile.ModelGraph, 100), "damaged"},
		{"a length beyond all bounds", append(message.Integer(onnxfile.ModelIRVersion, 8), 0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), "damaged"},
		{"a node beyond the graph's end", graph(message.Open(onnxfile.GraphNode, 100)), "damaged"},
		{"an attribute beyond the node's end", graph(message.Sub(onnxfile.GraphNode, message.Open(onnxfile.NodeAttribute, 9))), "node 1"},
		{"half a number in a list", graph(message.Sub(onnxfile.GraphNode, message.Sub(onnxfile.NodeAttribute, message.Text(onnxfile.AttributeIntegers, "\xff")))), "list of integers"},
		{"a tensor without a name", graph(message.Sub(onnxfile.GraphInitializer, nil)), "without a name"},
		{"two tensors of a name", graph(message.Sub(onnxfile.GraphInitializer, tensor).Sub(onnxfile.GraphInitializer, tensor)), `two tensors named "a"`},
		{"a negative dimension", graph(message.Sub(onnxfile.GraphInitializer, tensor.Integer(onnxfile.TensorDims, -1))), "[-1]"},
		{"two values of a name", graph(bytes.Repeat(message.Sub(onnxfile.GraphNode, message.Text(onnxfile.NodeOutput, "b")), 2)), `two values named "b"`},
		{"a value of a tensor's name", graph(message.Sub(onnxfile.GraphInitializer, tensor).Sub(onnxfile.GraphNode, message.Text(onnxfile.NodeOutput, "a"))), `two values named "a"`},
		{"too many nodes", graph(many), "no ResNet has so many"},
	} {
		_, err := onnxfile.Parse("some.onnx", c.data)
		checkError(t, c.name, err, "some.onnx", c.want)
	}
	// However a file is cut off, the answer is an error.
	whole := onnxtest.MeanImage(4, 1, 2, 3).Encode()
	for n := range whole {
		f, err := onnxfile.Parse("some.onnx", whole[:n])
		if err == nil {
			_, err = f.Preprocess()
		}
		checkError(t, fmt.Sprint(n, " bytes"), err, "some.onnx")
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pre.onnx")
	if err := os.WriteFile(path, onnxtest.MeanImage(4, 1, 2, 3).Encode(), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := onnxfile.Open(path)
	if err != nil || f.Producer != "onnxtest" || f.Path != path {
		t.Errorf("got %v, %v, want the file of onnxtest", f, err)
	}
	large := filepath.Join(dir, "large.onnx")
	if err := os.WriteFile(large, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 1<<31); err != nil { // a hole, which takes no place
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.onnx")
	for name, want := range map[string]string{missing: "name an ONNX file", dir: "not a regular file", large: "more than 2147483647 bytes"} {
		_, err := onnxfile.Open(name)
		checkError(t, name, err, name, want)
	}
}

// Whatever a file holds, the answer is a ResNet, a preprocessing or an error.
func FuzzParse(f *testing.F) {
	f.Add(onnxtest.MeanImage(2, 1, 2, 3).Encode())
	small := onnxtest.ResNet(onnxtest.Options{Blocks: []int{1}})
	for _, t := range small.Tensors {
		t.Store, t.Values = onnxtest.External, nil // whose shapes alone are there
	}
	f.Add(small.Encode())
	f.Add([]byte("no ONNX file"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := onnxfile.Parse("fuzz.onnx", data)
		if err != nil {
			return
		}
		if p, err := file.Preprocess(); err == nil && p.Scale[0] == 0 {
			t.Errorf("got %v, want factors that are not zero", p)
		}
		if r, err := file.ResNet(nil, mean, std); err == nil && (r.Arch == "" || len(r.Tensors) == 0) {
			t.Errorf("got %v, want an architecture and tensors", r)
		}
	})
}
