package weights

import (
	"encoding/binary"
	"fmt"
	"math"
)

// DType is the type of a tensor's elements. Its zero value is no type.
type DType uint8

// The types that PyTorch and safetensors share.
const (
	F16 DType = iota + 1
	BF16
	F32
	F64
	I8
	U8
	I16
	I32
	I64
	Bool
)

// dtypes holds each type's name in safetensors and its size in bytes.
var dtypes = [...]struct {
	name string
	size int
}{
	F16: {"F16", 2}, BF16: {"BF16", 2}, F32: {"F32", 4}, F64: {"F64", 8},
	I8: {"I8", 1}, U8: {"U8", 1}, I16: {"I16", 2}, I32: {"I32", 4}, I64: {"I64", 8},
	Bool: {"BOOL", 1},
}

// String returns the type's name in safetensors, such as "F32".
func (d DType) String() string {
	if d.Size() == 0 {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return dtypes[d].name
}

// dtypeNamed is the type with the given name in safetensors, or 0.
func dtypeNamed(name string) DType {
	for d := F16; d <= Bool; d++ {
		if dtypes[d].name == name {
			return d
		}
	}
	return 0
}

// Size returns the bytes of one element, 0 if d is no type.
func (d DType) Size() int {
	if int(d) >= len(dtypes) {
		return 0
	}
	return dtypes[d].size
}

// Tensor is a named array, stored row-major. Data holds the little-endian elements; it is the product of Shape and the
// element's size long. A Shape of no dimensions is a single number.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte
}

// Len returns the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, dim := range t.Shape {
		n *= dim
	}
	return n
}

// Float32 returns a copy of the elements, rounded to float32. True is 1.
func (t Tensor) Float32() []float32 { return floats[float32](t) }

// Float64 returns a copy of the elements, where integers beyond 2^53 are rounded. True is 1.
func (t Tensor) Float64() []float64 { return floats[float64](t) }

func floats[T float32 | float64](t Tensor) []T {
	size := t.DType.Size()
	if size == 0 {
		return nil
	}
	le, data := binary.LittleEndian, t.Data
	out := make([]T, len(data)/size)
	switch t.DType {
	case F16:
		for i := range out {
			out[i] = T(half(le.Uint16(data[2*i:])))
		}
	case BF16:
		for i := range out {
			out[i] = T(math.Float32frombits(uint32(le.Uint16(data[2*i:])) << 16))
		}
	case F32:
		for i := range out {
			out[i] = T(math.Float32frombits(le.Uint32(data[4*i:])))
		}
	case F64:
		for i := range out {
			out[i] = T(math.Float64frombits(le.Uint64(data[8*i:])))
		}
	case I8:
		for i := range out {
			out[i] = T(int8(data[i]))
		}
	case U8, Bool:
		for i := range out {
			out[i] = T(data[i])
		}
	case I16:
		for i := range out {
			out[i] = T(int16(le.Uint16(data[2*i:])))
		}
	case I32:
		for i := range out {
			out[i] = T(int32(le.Uint32(data[4*i:])))
		}
	case I64:
		for i := range out {
			out[i] = T(int64(le.Uint64(data[8*i:])))
		}
	}
	return out
}

// Finite says whether all elements are numbers, and finite ones. Integers always are.
func (t Tensor) Finite() bool {
	le, data := binary.LittleEndian, t.Data
	switch t.DType {
	case F16:
		for ; len(data) >= 2; data = data[2:] {
			if le.Uint16(data)&0x7c00 == 0x7c00 {
				return false
			}
		}
	case BF16:
		for ; len(data) >= 2; data = data[2:] {
			if le.Uint16(data)&0x7f80 == 0x7f80 {
				return false
			}
		}
	case F32:
		for ; len(data) >= 4; data = data[4:] {
			if le.Uint32(data)&0x7f800000 == 0x7f800000 {
				return false
			}
		}
	case F64:
		for ; len(data) >= 8; data = data[8:] {
			if le.Uint64(data)&0x7ff0<<48 == 0x7ff0<<48 {
				return false
			}
		}
	}
	return true
}

// half converts an IEEE 754 half-precision number.
func half(bits uint16) float32 {
	sign := uint32(bits>>15) << 31
	exponent, fraction := uint32(bits>>10&0x1f), uint32(bits&0x3ff)
	switch exponent {
	case 0: // zero or subnormal: fraction * 2^-24, exact in float32
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*0x1p-24))
	case 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

// AppendFloat16 appends values as little-endian half-precision numbers, rounded to the nearest, halfway to even. From 65520 on they
// become infinite.
func AppendFloat16(data []byte, values []float32) []byte {
	for _, v := range values {
		data = binary.LittleEndian.AppendUint16(data, halfOf(v))
	}
	return data
}

// AppendFloat32 appends values as little-endian numbers.
func AppendFloat32(data []byte, values []float32) []byte {
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return data
}

// halfOf is the half-precision number nearest to v.
func halfOf(v float32) uint16 {
	bits := math.Float32bits(v)
	sign, bits := uint16(bits>>16)&0x8000, bits&^(1<<31)
	const half = 0x3f000000 // 0.5, whose neighbours are as far away as those of small half-precision numbers
	switch {
	case bits > 0xff<<23: // NaN
		return sign | 0x7e00
	case bits >= 0x477ff000: // 65520
		return sign | 0x7c00
	case bits < (127-14)<<23: // zero or subnormal
		return sign | uint16(math.Float32bits(math.Float32frombits(bits)+0.5)-half)
	}
	bits += 0xfff + bits>>13&1
	return sign | uint16((bits-(127-15)<<23)>>13)
}
