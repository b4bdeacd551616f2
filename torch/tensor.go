package torch

// #include "rdpp.h"
import "C"

import (
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/wangkuiyi/gotorch"
)

// Scales is the number of feature scales, K.
const Scales = C.RDPP_SCALES

// Tensor is a handle on a libtorch tensor. The zero value and nil are closed tensors.
type Tensor struct {
	handle gotorch.Tensor
}

// Features holds one tensor per scale, k = 0 the finest.
type Features [Scales]*Tensor

// Close closes the tensors of all scales.
func (f Features) Close() {
	for _, t := range f {
		t.Close()
	}
}

// Elem are the Go types of tensor elements.
type Elem interface {
	uint8 | int64 | float32 | float64
}

func dtypeOf[T Elem]() DType {
	switch any(*new(T)).(type) {
	case uint8:
		return UInt8
	case int64:
		return Int64
	case float32:
		return Float32
	}
	return Float64
}

var live atomic.Int64

// LiveTensors returns how many tensors are open in the process.
func LiveTensors() int64 { return live.Load() }

// wrap takes ownership of a handle that csrc gave.
func wrap(h C.rdpp_tensor) *Tensor {
	live.Add(1)
	p := unsafe.Pointer(h)
	return &Tensor{handle: gotorch.Tensor{T: &p}}
}

// raw returns the handle for csrc: NULL for a closed tensor, which csrc refuses by name.
func (t *Tensor) raw() C.rdpp_tensor {
	if t == nil || t.handle.T == nil {
		return nil
	}
	return C.rdpp_tensor(*t.handle.T)
}

// Close frees the tensor at once. It is idempotent, and harmless on nil.
func (t *Tensor) Close() {
	if h := t.raw(); h != nil {
		*t.handle.T, t.handle.T = nil, nil
		C.rdpp_tensor_free(h)
		live.Add(-1)
	}
}

// panicked turns a panic of gotorch into an error.
func panicked(operation string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("torch: %s: %v", operation, p)
	}
}

func elements(shape []int64) (int64, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 || (d > 0 && n > math.MaxInt64/d) {
			return 0, fmt.Errorf("torch: shape %v is not possible", shape)
		}
		n *= d
	}
	return n, nil
}

// FromSlice returns a new tensor on the CPU with a copy of data, row-major in the given shape (no shape: one
// element).
func FromSlice[T Elem](data []T, shape ...int64) (t *Tensor, err error) {
	n, err := elements(shape)
	if err != nil {
		return nil, err
	}
	if n != int64(len(data)) {
		return nil, fmt.Errorf("torch: shape %v needs %d elements, got %d", shape, n, len(data))
	}
	if len(shape) == 0 {
		shape = []int64{1}
	}
	var out C.rdpp_tensor
	p := unsafe.Pointer(unsafe.SliceData(data))
	err = check("new tensor", C.rdpp_tensor_new(C.int32_t(dtypeOf[T]()), p, (*C.int64_t)(&shape[0]), C.int64_t(len(shape)), &out))
	runtime.KeepAlive(data)
	if err != nil {
		return nil, err
	}
	return wrap(out), nil
}

// Images returns pictures of S x S pixels, RGB bytes, row-major, one after the other, as a network's normalised input of
// dtype on device: B x 3 x S x S, (pixel / 255 - mean) / std. They go to the device as bytes.
func Images(pixels []uint8, S int, mean, std [3]float32, device Device, dtype DType) (*Tensor, error) {
	if S < 1 || S > 1<<15 || len(pixels) == 0 || len(pixels)%(3*S*S) != 0 {
		return nil, fmt.Errorf("torch: images: %d bytes are no pictures of %d x %d pixels", len(pixels), S, S)
	}
	B := len(pixels) / (3 * S * S)
	x, err := one("images", func(out *C.rdpp_tensor) C.rdpp_error {
		return C.rdpp_images((*C.uint8_t)(&pixels[0]), C.int64_t(B), C.int64_t(S), (*C.float)(&mean[0]), (*C.float)(&std[0]),
			device.c(), C.int32_t(dtype), out)
	})
	runtime.KeepAlive(pixels)
	return x, err
}

// Shape returns the tensor's dimensions.
func (t *Tensor) Shape() (shape []int64, err error) {
	if t.raw() == nil {
		return nil, fmt.Errorf("torch: shape: the tensor is closed")
	}
	defer panicked("shape", &err)
	return t.handle.Shape(), nil
}

// DType returns the type of the tensor's elements.
func (t *Tensor) DType() (d DType, err error) {
	if t.raw() == nil {
		return 0, fmt.Errorf("torch: element type: the tensor is closed")
	}
	defer panicked("element type", &err)
	return DType(t.handle.Dtype()), nil
}

// Len returns the number of elements.
func (t *Tensor) Len() (int64, error) {
	shape, err := t.Shape()
	if err != nil {
		return 0, err
	}
	return elements(shape)
}

// To returns a tensor on device with elements of dtype: a copy, or where both are t's own, one that shares its
// memory.
func (t *Tensor) To(device Device, dtype DType) (*Tensor, error) {
	var out C.rdpp_tensor
	err := check("copy to "+device.String(), C.rdpp_tensor_to(t.raw(), device.c(), C.int32_t(dtype), &out))
	if err != nil {
		return nil, err
	}
	return wrap(out), nil
}

// Read returns a tensor's elements, row-major, converted to T.
func Read[T Elem](t *Tensor) ([]T, error) {
	n, err := t.Len()
	if err != nil {
		return nil, err
	}
	data := make([]T, n)
	return data, ReadInto(t, data)
}

// ReadInto copies a tensor's elements, row-major and converted to T, into dst, which has their number.
func ReadInto[T Elem](t *Tensor, dst []T) error {
	p := unsafe.Pointer(unsafe.SliceData(dst))
	err := check("read", C.rdpp_tensor_read(t.raw(), C.int32_t(dtypeOf[T]()), p, C.int64_t(len(dst))))
	runtime.KeepAlive(dst)
	return err
}

// Write copies src, row-major, into the tensor's own memory, converting; len(src) is the number of its elements.
func Write[T Elem](t *Tensor, src []T) error {
	p := unsafe.Pointer(unsafe.SliceData(src))
	err := check("write", C.rdpp_tensor_write(t.raw(), C.int32_t(dtypeOf[T]()), p, C.int64_t(len(src))))
	runtime.KeepAlive(src)
	return err
}

// ReadBytes returns the tensor's elements as they are in memory, row-major, little-endian.
func (t *Tensor) ReadBytes() ([]byte, error) {
	dtype, err := t.DType()
	if err != nil {
		return nil, err
	}
	n, err := t.Len()
	if err != nil {
		return nil, err
	}
	data := make([]byte, n*int64(dtype.Size()))
	p := unsafe.Pointer(unsafe.SliceData(data))
	err = check("read", C.rdpp_tensor_read(t.raw(), C.int32_t(dtype), p, C.int64_t(n)))
	runtime.KeepAlive(data)
	return data, err
}

// WriteBytes copies elements of dtype, row-major, little-endian, into the tensor's own memory, converting.
func (t *Tensor) WriteBytes(dtype DType, src []byte) error {
	if len(src)%dtype.Size() != 0 {
		return fmt.Errorf("torch: write: %d bytes are no whole number of elements", len(src))
	}
	p := unsafe.Pointer(unsafe.SliceData(src))
	err := check("write", C.rdpp_tensor_write(t.raw(), C.int32_t(dtype), p, C.int64_t(len(src)/dtype.Size())))
	runtime.KeepAlive(src)
	return err
}

// RequireGrad makes autograd gather a gradient for a tensor that no operation has made.
func (t *Tensor) RequireGrad() error {
	return check("require gradient", C.rdpp_tensor_require_grad(t.raw()))
}

// Grad returns the gradient gathered so far, sharing its memory; nil where there is none.
func (t *Tensor) Grad() (*Tensor, error) {
	var out C.rdpp_tensor
	if err := check("gradient", C.rdpp_tensor_grad(t.raw(), &out)); err != nil || out == nil {
		return nil, err
	}
	return wrap(out), nil
}

// SetGrad replaces the gradient by a copy of grad; nil clears it.
func (t *Tensor) SetGrad(grad *Tensor) error {
	return check("set gradient", C.rdpp_tensor_set_grad(t.raw(), grad.raw()))
}

func (f Features) raw() (h [Scales]C.rdpp_tensor) {
	for k, t := range f {
		h[k] = t.raw()
	}
	return h
}

func wrapFeatures(h [Scales]C.rdpp_tensor) (f Features) {
	for k := range h {
		f[k] = wrap(h[k])
	}
	return f
}

// Split returns rows [0, B) and [B, ...) of every scale; both share f's memory.
func (f Features) Split(B int) (head, tail Features, err error) {
	x := f.raw()
	var h, t [Scales]C.rdpp_tensor
	if err := check("split", C.rdpp_split(&x[0], C.int64_t(B), &h[0], &t[0])); err != nil {
		return head, tail, err
	}
	return wrapFeatures(h), wrapFeatures(t), nil
}

// Join is the way back from Split: the rows of head and then those of tail, as copies.
func Join(head, tail Features) (Features, error) {
	h, t := head.raw(), tail.raw()
	var x [Scales]C.rdpp_tensor
	if err := check("join", C.rdpp_join(&h[0], &t[0], &x[0])); err != nil {
		return Features{}, err
	}
	return wrapFeatures(x), nil
}
