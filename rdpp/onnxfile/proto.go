// Package onnxfile knows ONNX files: it encodes their messages for package export, reads their graphs, and finds in them
// the ResNets that may serve as teachers. Nothing in a file is executed, and no length is believed before it is checked
// against the bytes that are there.
package onnxfile

import "google.golang.org/protobuf/encoding/protowire"

// ONNX files are protocol buffers (onnx.proto3 of the ONNX project defines them). The few messages that a model needs
// are encoded here rather than by generated types, which would hold all weights, twice, before the first byte is written.

// Message is an encoded protocol buffer. Its methods return it with one more field.
type Message []byte

// Integer adds an integer or a value of an enumeration.
func (m Message) Integer(field protowire.Number, v int64) Message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), uint64(v))
}

// Text adds a string or bytes.
func (m Message) Text(field protowire.Number, s string) Message {
	return protowire.AppendString(protowire.AppendTag(m, field, protowire.BytesType), s)
}

// Sub adds a message.
func (m Message) Sub(field protowire.Number, part Message) Message {
	return protowire.AppendBytes(protowire.AppendTag(m, field, protowire.BytesType), part)
}

// Float adds the float32 of these bits.
func (m Message) Float(field protowire.Number, bits uint32) Message {
	return protowire.AppendFixed32(protowire.AppendTag(m, field, protowire.Fixed32Type), bits)
}

// Open begins a field of n bytes, which follow.
func (m Message) Open(field protowire.Number, n int) Message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.BytesType), uint64(n))
}

// The fields in use.
const (
	ModelIRVersion       = 1
	ModelProducerName    = 2
	ModelProducerVersion = 3
	ModelGraph           = 7
	ModelOpset           = 8
	ModelMetadata        = 14

	OpsetVersion = 2

	EntryKey   = 1
	EntryValue = 2

	GraphNode        = 1
	GraphName        = 2
	GraphInitializer = 5
	GraphInput       = 11
	GraphOutput      = 12
	GraphValue       = 13

	NodeInput     = 1
	NodeOutput    = 2
	NodeName      = 3
	NodeOp        = 4
	NodeAttribute = 5
	NodeDomain    = 7

	AttributeName     = 1
	AttributeFloat    = 2
	AttributeInteger  = 3
	AttributeText     = 4
	AttributeTensor   = 5
	AttributeIntegers = 8
	AttributeType     = 20

	TensorDims     = 1
	TensorType     = 2
	TensorFloats   = 4
	TensorInts     = 5 // of 32 bits or less, half-precision numbers too
	TensorName     = 8
	TensorRaw      = 9
	TensorDoubles  = 10
	TensorLocation = 14 // of the data; LocationExternal: another file

	ValueName = 1
	ValueType = 2

	TypeTensor     = 1
	TypeElement    = 1
	TypeShape      = 2
	ShapeDimension = 1
	DimensionValue = 1
	DimensionName  = 2
)

// Values of AttributeProto.AttributeType, TensorProto.DataType and TensorProto.DataLocation.
const (
	KindFloat    = 1
	KindInteger  = 2
	KindText     = 3
	KindIntegers = 7

	KindTensor = 4

	ElementFloat    = 1
	ElementUint8    = 2
	ElementInt64    = 7
	ElementBool     = 9
	ElementHalf     = 10
	ElementDouble   = 11
	ElementBfloat16 = 16

	LocationExternal = 1
)
