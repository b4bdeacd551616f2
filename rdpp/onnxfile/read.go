package onnxfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"rdpp/rdpp/regular"
	"rdpp/rdpp/weights"
)

const (
	maxBytes   = 1<<31 - 1 // of a protocol buffer
	maxEntries = 1 << 17   // nodes, and tensors: many times what the largest ResNet has
)

// errDamaged ends the message of every error that a shortened or altered file can cause.
var errDamaged = errors.New("the file is truncated or damaged, fetch it again")

// File is the graph of an ONNX file. Its tensors are views of the file's bytes.
type File struct {
	Path     string
	Producer string // the program that wrote the file, "" where it does not say

	nodes   []*node            // in file order, without those that only hand a value on
	tensors map[string]*tensor // initializers and constants, by name
	inputs  []string           // of the graph, without those that are initializers
	uses    map[string][]*node // that read a value
	alias   map[string]string  // the value that another one is the same as
}

// node is an operation.
type node struct {
	name, op, domain string
	inputs, outputs  []string
	attributes       map[string]*attribute
	taken            bool // it is part of the network that was found
}

// attribute is a setting of a node; which field counts depends on what the node wants.
type attribute struct {
	number   int64
	float    float32
	text     string
	integers []int64
	tensor   *tensor
}

// tensor is an array of numbers.
type tensor struct {
	name        string
	shape       []int
	element     int64
	raw, listed []byte // little-endian elements: as the file has them, or gathered from fields; one is empty
	external    bool   // they lie in another file
}

// Open reads an ONNX file.
func Open(path string) (*File, error) {
	data, err := regular.ReadFile(path, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("onnxfile: %w; name an ONNX file", err)
	}
	return Parse(path, data)
}

// Parse is Open for a file that is in memory already; path stands for it in errors. data must not change any more.
func Parse(path string, data []byte) (*File, error) {
	f := &File{Path: path, tensors: map[string]*tensor{}, uses: map[string][]*node{}, alias: map[string]string{}}
	if err := f.parse(data); err != nil {
		return nil, fmt.Errorf("onnxfile: %s: %w", path, err)
	}
	return f, nil
}

// content is what a field holds: a number, or bytes.
type content struct {
	number uint64
	bytes  []byte
}

// fields visits the fields of a message. A field of another kind than the format has there reads as zero or empty.
func fields(data []byte, visit func(field protowire.Number, c content) error) error {
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return fmt.Errorf("%w: %w", protowire.ParseError(n), errDamaged)
		}
		data = data[n:]
		var c content
		switch kind {
		case protowire.VarintType:
			c.number, n = protowire.ConsumeVarint(data)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(data)
			c.number = uint64(v)
		case protowire.Fixed64Type:
			c.number, n = protowire.ConsumeFixed64(data)
		case protowire.BytesType:
			c.bytes, n = protowire.ConsumeBytes(data)
		default:
			n = protowire.ConsumeFieldValue(field, kind, data)
		}
		if n < 0 {
			return fmt.Errorf("field %d: %w: %w", field, protowire.ParseError(n), errDamaged)
		}
		data = data[n:]
		if err := visit(field, c); err != nil {
			return err
		}
	}
	return nil
}

// integers appends what a repeated field of integers holds, one or, packed, many.
func integers(values []int64, c content) ([]int64, error) {
	if c.bytes == nil {
		return append(values, int64(c.number)), nil
	}
	for data := c.bytes; len(data) > 0; {
		v, n := protowire.ConsumeVarint(data)
		if n < 0 {
			return nil, fmt.Errorf("a list of integers: %w: %w", protowire.ParseError(n), errDamaged)
		}
		values, data = append(values, int64(v)), data[n:]
	}
	return values, nil
}

func (f *File) parse(data []byte) error {
	var graph []byte
	err := fields(data, func(field protowire.Number, c content) error {
		switch field {
		case ModelGraph:
			graph = c.bytes
		case ModelProducerName:
			f.Producer = string(c.bytes)
		}
		return nil
	})
	if err == nil && graph == nil {
		err = errors.New("it holds no graph")
	}
	if err != nil {
		return fmt.Errorf("no ONNX file, or a damaged one: %w", err)
	}
	var all []*node
	err = fields(graph, func(field protowire.Number, c content) error {
		if len(all) > maxEntries || len(f.tensors) > maxEntries {
			return fmt.Errorf("more than %d nodes or tensors, and no ResNet has so many; name another file", maxEntries)
		}
		switch field {
		case GraphNode:
			n, err := parseNode(c.bytes)
			if err != nil {
				return fmt.Errorf("node %d: %w", len(all)+1, err)
			}
			all = append(all, n)
		case GraphInitializer:
			t, err := parseTensor(c.bytes)
			if err != nil {
				return fmt.Errorf("an initializer: %w", err)
			}
			return f.addTensor(t.name, t)
		case GraphInput:
			return fields(c.bytes, func(field protowire.Number, c content) error {
				if field == ValueName {
					f.inputs = append(f.inputs, string(c.bytes))
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.connect(all)
}

// addTensor keeps a tensor under its name, which must be new.
func (f *File) addTensor(name string, t *tensor) error {
	if name == "" || f.tensors[name] != nil {
		return fmt.Errorf("two tensors named %q, or one without a name: %w", name, errDamaged)
	}
	f.tensors[name] = t
	return nil
}

// connect notes who reads which value. Nodes that hand a value on unchanged are left out, and constants become tensors.
func (f *File) connect(all []*node) error {
	made := map[string]bool{}
	for _, n := range all {
		for i, input := range n.inputs {
			n.inputs[i] = f.same(input)
		}
		for _, output := range n.outputs {
			if output != "" && (made[output] || f.tensors[output] != nil) {
				return fmt.Errorf("two values named %q: %w", output, errDamaged)
			}
			made[output] = true
		}
		switch value := n.attributes["value"]; {
		case len(n.outputs) == 0:
			continue // of no use
		case n.op == "Constant" && n.domain == "" && value != nil && value.tensor != nil:
			if err := f.addTensor(n.outputs[0], value.tensor); err != nil {
				return err
			}
			continue
		case (n.op == "Identity" || n.op == "Dropout") && n.domain == "" && len(n.inputs) > 0:
			f.alias[n.outputs[0]] = n.inputs[0]
			continue
		}
		f.nodes = append(f.nodes, n)
		for _, input := range n.inputs {
			// A node that reads a value twice is noted once.
			if before := f.uses[input]; input != "" && (len(before) == 0 || before[len(before)-1] != n) {
				f.uses[input] = append(before, n)
			}
		}
	}
	// Files of the format's first versions list initializers among the inputs.
	f.inputs = slices.DeleteFunc(f.inputs, func(name string) bool { return f.tensors[name] != nil })
	return nil
}

// same is the value that a value is the same as. Nodes come after those whose values they read.
func (f *File) same(name string) string {
	if first, found := f.alias[name]; found {
		return first
	}
	return name
}

func parseNode(data []byte) (*node, error) {
	n := &node{}
	err := fields(data, func(field protowire.Number, c content) error {
		switch field {
		case NodeInput:
			n.inputs = append(n.inputs, string(c.bytes))
		case NodeOutput:
			n.outputs = append(n.outputs, string(c.bytes))
		case NodeName:
			n.name = string(c.bytes)
		case NodeOp:
			n.op = string(c.bytes)
		case NodeDomain:
			if n.domain = string(c.bytes); n.domain == "ai.onnx" {
				n.domain = "" // which is the same
			}
		case NodeAttribute:
			return n.addAttribute(c.bytes)
		}
		return nil
	})
	return n, err
}

func (n *node) addAttribute(data []byte) error {
	name, a := "", &attribute{}
	err := fields(data, func(field protowire.Number, c content) (err error) {
		switch field {
		case AttributeName:
			name = string(c.bytes)
		case AttributeFloat:
			a.float = math.Float32frombits(uint32(c.number))
		case AttributeInteger:
			a.number = int64(c.number)
		case AttributeText:
			a.text = string(c.bytes)
		case AttributeIntegers:
			a.integers, err = integers(a.integers, c)
		case AttributeTensor:
			a.tensor, err = parseTensor(c.bytes)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("attribute %q: %w", name, err)
	}
	if n.attributes == nil {
		n.attributes = map[string]*attribute{}
	}
	n.attributes[name] = a
	return nil
}

// String names a node for people.
func (n *node) String() string {
	switch {
	case n.name != "":
		return fmt.Sprintf("%s %q", n.op, n.name)
	case len(n.outputs) > 0:
		return fmt.Sprintf("%s that makes %q", n.op, n.outputs[0])
	}
	return n.op
}

// integer is the value of an attribute, or the format's default where it is not set.
func (n *node) integer(name string, missing int64) int64 {
	if a := n.attributes[name]; a != nil {
		return a.number
	}
	return missing
}

func (n *node) float(name string, missing float32) float32 {
	if a := n.attributes[name]; a != nil {
		return a.float
	}
	return missing
}

func (n *node) text(name string) string {
	if a := n.attributes[name]; a != nil {
		return a.text
	}
	return ""
}

// list is an attribute of integers, or count times the format's default where it is not set.
func (n *node) list(name string, missing int64, count int) []int64 {
	if a := n.attributes[name]; a != nil {
		return a.integers
	}
	return slices.Repeat([]int64{missing}, count)
}

// parseTensor reads a tensor; whether its data suit its shape shows when they are read.
func parseTensor(data []byte) (*tensor, error) {
	t := &tensor{}
	var dims []int64
	err := fields(data, func(field protowire.Number, c content) (err error) {
		switch field {
		case TensorDims:
			dims, err = integers(dims, c)
		case TensorType:
			t.element = int64(c.number)
		case TensorName:
			t.name = string(c.bytes)
		case TensorRaw:
			t.raw = c.bytes
		case TensorFloats, TensorDoubles:
			switch {
			case c.bytes != nil:
				t.listed = append(t.listed, c.bytes...)
			case field == TensorFloats:
				t.listed = binary.LittleEndian.AppendUint32(t.listed, uint32(c.number))
			default:
				t.listed = binary.LittleEndian.AppendUint64(t.listed, c.number)
			}
		case TensorInts:
			var values []int64
			values, err = integers(nil, c)
			for _, v := range values {
				t.listed = binary.LittleEndian.AppendUint16(t.listed, uint16(v)) // of use for half-precision numbers alone
			}
		case TensorLocation:
			t.external = c.number == LocationExternal
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", t.name, err)
	}
	for _, d := range dims {
		if d < 0 || d > maxBytes {
			return nil, fmt.Errorf("tensor %q has the shape %v: %w", t.name, dims, errDamaged)
		}
		t.shape = append(t.shape, int(d))
	}
	return t, nil
}

// values are a tensor's elements, as many as its shape says, in float32.
func (t *tensor) values() ([]float32, error) {
	if t.external {
		return nil, fmt.Errorf("tensor %q: its numbers lie in a file beside this one; save the model with all its data in one file", t.name)
	}
	dtype, known := map[int64]weights.DType{ElementFloat: weights.F32, ElementHalf: weights.F16, ElementDouble: weights.F64,
		ElementBfloat16: weights.BF16}[t.element]
	if !known {
		return nil, fmt.Errorf("tensor %q has elements of type %d; save the model with floating-point ones", t.name, t.element)
	}
	data := t.raw
	if len(data) == 0 {
		data = t.listed
	} else if len(t.listed) > 0 {
		return nil, fmt.Errorf("tensor %q has its numbers twice: %w", t.name, errDamaged)
	}
	// Compared piece by piece, as the product of large dimensions overflows.
	n, whole := len(data)/dtype.Size(), len(data)%dtype.Size() == 0
	for _, d := range t.shape {
		if d == 0 || n%d != 0 {
			whole = false
			break
		}
		n /= d
	}
	if !whole || n != 1 {
		return nil, fmt.Errorf("tensor %q of the shape %v has %d bytes of %s: %w", t.name, t.shape, len(data), dtype, errDamaged)
	}
	return weights.Tensor{DType: dtype, Shape: t.shape, Data: data}.Float32(), nil
}
