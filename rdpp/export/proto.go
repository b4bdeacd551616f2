package export

import "google.golang.org/protobuf/encoding/protowire"

// ONNX files are protocol buffers (onnx.proto3 of the ONNX project defines them). The few messages that a model needs
// are encoded here rather than by generated types, which would hold all weights, twice, before the first byte is written.

// message is an encoded protocol buffer.
type message []byte

func (m message) integer(field protowire.Number, v int64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), uint64(v))
}

func (m message) text(field protowire.Number, s string) message {
	return protowire.AppendString(protowire.AppendTag(m, field, protowire.BytesType), s)
}

func (m message) sub(field protowire.Number, part message) message {
	return protowire.AppendBytes(protowire.AppendTag(m, field, protowire.BytesType), part)
}

func (m message) float(field protowire.Number, bits uint32) message {
	return protowire.AppendFixed32(protowire.AppendTag(m, field, protowire.Fixed32Type), bits)
}

// open begins a field of n bytes, which follow.
func (m message) open(field protowire.Number, n int) message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.BytesType), uint64(n))
}

// The fields in use.
const (
	modelIRVersion       = 1
	modelProducerName    = 2
	modelProducerVersion = 3
	modelGraph           = 7
	modelOpset           = 8
	modelMetadata        = 14

	opsetVersion = 2

	entryKey   = 1
	entryValue = 2

	graphNode        = 1
	graphName        = 2
	graphInitializer = 5
	graphInput       = 11
	graphOutput      = 12
	graphValue       = 13

	nodeInput     = 1
	nodeOutput    = 2
	nodeName      = 3
	nodeOp        = 4
	nodeAttribute = 5

	attributeName     = 1
	attributeFloat    = 2
	attributeInteger  = 3
	attributeText     = 4
	attributeIntegers = 8
	attributeType     = 20

	tensorDims = 1
	tensorType = 2
	tensorName = 8
	tensorRaw  = 9

	valueName = 1
	valueType = 2

	typeTensor     = 1
	typeElement    = 1
	typeShape      = 2
	shapeDimension = 1
	dimensionValue = 1
	dimensionName  = 2
)

// Values of AttributeProto.AttributeType and TensorProto.DataType.
const (
	kindFloat    = 1
	kindInteger  = 2
	kindText     = 3
	kindIntegers = 7

	elementFloat = 1
	elementUint8 = 2
	elementInt64 = 7
	elementBool  = 9
)
