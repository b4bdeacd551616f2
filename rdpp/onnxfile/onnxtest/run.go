package onnxtest

import (
	"fmt"
	"math"
)

// Planes are pictures or features: C x H x W numbers.
type Planes struct {
	C, H, W int
	Values  []float64
}

// at is a number, or outside what stands for it there.
func (p *Planes) at(c, y, x int, outside float64) float64 {
	if y < 0 || x < 0 || y >= p.H || x >= p.W {
		return outside
	}
	return p.Values[(c*p.H+y)*p.W+x]
}

// Run computes the values of a graph, as ONNX defines its operations, in float64. outside, where given, is what stands for
// each channel of the input beyond its edges, instead of zero. Operations of other kinds, as in the top, are passed over.
func (g *Graph) Run(input *Planes, outside []float64) map[string]*Planes {
	values := map[string]*Planes{g.Inputs[0]: input}
	for _, n := range g.Nodes {
		var x *Planes
		if len(n.Inputs) > 0 {
			x = values[n.Inputs[0]]
		}
		switch n.Op {
		case "Conv":
			var beyond []float64
			if x == input {
				beyond = outside
			}
			values[n.Outputs[0]] = g.conv(n, x, beyond)
		case "BatchNormalization":
			values[n.Outputs[0]] = g.norm(n, x)
		case "MaxPool":
			values[n.Outputs[0]] = pool(n, x)
		case "Relu":
			values[n.Outputs[0]] = each(x, func(i int) float64 { return max(x.Values[i], 0) })
		case "Add":
			y := values[n.Inputs[1]]
			if x == nil || y == nil {
				continue
			}
			values[n.Outputs[0]] = each(x, func(i int) float64 { return x.Values[i] + y.Values[i] })
		case "Identity", "Dropout":
			if x != nil { // which is none of the tensors
				values[n.Outputs[0]] = x
			}
		}
	}
	return values
}

func each(x *Planes, f func(i int) float64) *Planes {
	y := &Planes{x.C, x.H, x.W, make([]float64, len(x.Values))}
	for i := range y.Values {
		y.Values[i] = f(i)
	}
	return y
}

// constant is a tensor of the graph, or the value of a node that makes it.
func (g *Graph) constant(name string) *Tensor {
	if t := g.Tensor(name); t != nil {
		return t
	}
	for _, n := range g.Nodes {
		if n.Outputs[0] == name {
			if t, ok := n.Attributes["value"].(*Tensor); ok {
				return t
			}
			return g.constant(n.Inputs[0]) // an Identity
		}
	}
	panic("onnxtest: no tensor " + name)
}

// windows calls visit for every place of a kernel, with the row and column of the input where it begins.
func windows(n *Node, x *Planes, kernel int, visit func(at, y, x int)) (h, w int) {
	stride := n.Attributes["strides"].([]int)[0]
	begin, end := 0, 0
	if pads, ok := n.Attributes["pads"].([]int); ok {
		begin, end = pads[0], pads[2]
	}
	sizes := [2]int{x.H, x.W}
	if auto, _ := n.Attributes["auto_pad"].(string); auto == "SAME_UPPER" || auto == "SAME_LOWER" {
		total := max((x.H+stride-1)/stride*stride-stride+kernel-x.H, 0) // height and width are equal here
		begin, end = total/2, total-total/2
		if auto == "SAME_LOWER" {
			begin, end = end, begin
		}
	}
	var out [2]int
	for i, size := range sizes {
		room := size + begin + end - kernel
		if ceil, _ := n.Attributes["ceil_mode"].(int); ceil == 1 {
			room += stride - 1
		}
		out[i] = room/stride + 1
	}
	for row := range out[0] {
		for column := range out[1] {
			visit(row*out[1]+column, row*stride-begin, column*stride-begin)
		}
	}
	return out[0], out[1]
}

func (g *Graph) conv(n *Node, x *Planes, outside []float64) *Planes {
	w := g.constant(n.Inputs[1])
	if w.Shape[1] != x.C {
		panic(fmt.Sprintf("onnxtest: %s: %d channels, want %d", n.Name, x.C, w.Shape[1]))
	}
	kernel, out := w.Shape[2], w.Shape[0]
	bias := make([]float32, out)
	if len(n.Inputs) > 2 {
		bias = g.constant(n.Inputs[2]).Values
	}
	y := &Planes{C: out}
	y.H, y.W = windows(n, x, kernel, func(int, int, int) {})
	y.Values = make([]float64, out*y.H*y.W)
	windows(n, x, kernel, func(at, top, left int) {
		for o := range out {
			sum := float64(bias[o])
			for c := range x.C {
				beyond := 0.0
				if outside != nil {
					beyond = outside[c]
				}
				for i := range kernel * kernel {
					sum += float64(w.Values[(o*x.C+c)*kernel*kernel+i]) * x.at(c, top+i/kernel, left+i%kernel, beyond)
				}
			}
			y.Values[o*y.H*y.W+at] = sum
		}
	})
	return y
}

func (g *Graph) norm(n *Node, x *Planes) *Planes {
	var v [4][]float32
	for i := range v {
		v[i] = g.constant(n.Inputs[i+1]).Values
	}
	eps := float64(float32(1e-5))
	if e, ok := n.Attributes["epsilon"].(float32); ok {
		eps = float64(e)
	}
	return each(x, func(i int) float64 {
		c := i / (x.H * x.W)
		return (x.Values[i]-float64(v[2][c]))/math.Sqrt(float64(v[3][c])+eps)*float64(v[0][c]) + float64(v[1][c])
	})
}

func pool(n *Node, x *Planes) *Planes {
	y := &Planes{C: x.C}
	y.H, y.W = windows(n, x, 3, func(int, int, int) {})
	y.Values = make([]float64, y.C*y.H*y.W)
	windows(n, x, 3, func(at, top, left int) {
		for c := range x.C {
			largest := math.Inf(-1)
			for i := range 9 {
				largest = max(largest, x.at(c, top+i/3, left+i%3, math.Inf(-1)))
			}
			y.Values[c*y.H*y.W+at] = largest
		}
	})
	return y
}
