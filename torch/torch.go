// Package torch is what rdpp needs of libtorch: tensors, the four networks of RD++, the heads that a teacher learns
// with, their losses, Adam and inference. It is the only package that calls libtorch, through the C boundary of
// csrc/rdpp.h, and the only one that imports gotorch, whose tensor is the handle inside [Tensor].
//
// Every function that can fail returns an error, one of csrc's as an [*Error]; nothing here panics on bad input. Memory is
// freed when Close is called and at no other time: whatever a function returns is the caller's to close, and closing twice
// is harmless. Garbage collection frees nothing; [LiveTensors] counts what is still open.
//
// Dimension letters: B batch, C channels, H height, W width, S side of the square network input, k = 0, 1, 2
// the feature scale, e the block expansion (1 for resnet18 and resnet34, else 4).
//
// Tensors, modules and optimisers must not be used by two goroutines at once. libtorch keeps state per OS
// thread, so a program does best to let one [Worker] do all the work of a device.
package torch

// #include "rdpp.h"
import "C"

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Version returns libtorch's version, such as "2.6.0".
func Version() (string, error) {
	var version *C.char
	if err := check("version", C.rdpp_libtorch_version(&version)); err != nil {
		return "", err
	}
	return C.GoString(version), nil
}

// SetThreads sets how many threads one operation on the CPU may use, from now on and in the whole process: 1 to 1024.
// libtorch's own default under gotorch is half of the cores. Results are the same bit for bit only for the same
// number.
func SetThreads(n int) error {
	n = max(min(n, math.MaxInt32), 0) // what does not fit is refused all the same
	return check("threads", C.rdpp_set_threads(C.int32_t(n)))
}

// Contended says whether other programs, or this one's other threads, take processors that what computes waits for. As
// long as they do its threads wait for each other asleep, not spinning, unless the environment has OMP_WAIT_POLICY or
// GOMP_SPINCOUNT.
func Contended() (bool, error) {
	var yes C.int32_t
	err := check("contention", C.rdpp_contended(&yes))
	return yes != 0, err
}

// DType is an element type, numbered as libtorch's.
type DType int32

// The element types in use. Networks are made in Float32 or Float64.
const (
	UInt8    DType = C.RDPP_UINT8
	Int64    DType = C.RDPP_INT64
	Float16  DType = C.RDPP_FLOAT16
	Float32  DType = C.RDPP_FLOAT32
	Float64  DType = C.RDPP_FLOAT64
	BFloat16 DType = C.RDPP_BFLOAT16
)

// Size returns the bytes of one element.
func (d DType) Size() int {
	switch d {
	case UInt8:
		return 1
	case Float16, BFloat16:
		return 2
	case Float32:
		return 4
	}
	return 8
}

// Device is where tensors live. The zero value is the CPU.
type Device int32

// CPU is the host's processor.
const CPU Device = 0

// CUDA returns the CUDA device of a number from 0.
func CUDA(number int) Device { return Device(number + 1) }

// c is the device as csrc numbers it.
func (d Device) c() C.int32_t { return C.int32_t(d) - 1 }

func (d Device) String() string {
	if d == CPU {
		return "cpu"
	}
	return "cuda:" + strconv.Itoa(int(d.c()))
}

// ErrNoDevice is wrapped by the error about a device that is well named and not there.
var ErrNoDevice = errors.New("no such device")

// ParseDevice reads "auto" (the first CUDA device, else the CPU), "cpu", "cuda" or "cuda:N". A CUDA device that
// is not there is ErrNoDevice.
func ParseDevice(name string) (Device, error) {
	if name == "cpu" {
		return CPU, nil
	}
	number, isCUDA := 0, name == "cuda"
	if digits, found := strings.CutPrefix(name, "cuda:"); found {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			return CPU, fmt.Errorf("torch: device %q: what follows cuda: must be a number from 0", name)
		}
		number, isCUDA = int(n), true
	}
	if !isCUDA && name != "auto" {
		return CPU, fmt.Errorf("torch: unknown device %q; use auto, cpu, cuda or cuda:N", name)
	}
	var count C.int32_t
	if err := check("CUDA devices", C.rdpp_cuda_device_count(&count)); err != nil {
		return CPU, err
	}
	switch {
	case number < int(count):
		return CUDA(number), nil
	case name == "auto":
		return CPU, nil
	}
	return CPU, fmt.Errorf("torch: %w: %q is not there, libtorch sees %d CUDA devices; use cpu, or a CUDA libtorch on a "+
		"machine with a GPU", ErrNoDevice, name, int(count))
}

// HasBFloat16 says whether a device has instructions for products of bfloat16: AVX512_BF16 or AMX, or a GPU of compute
// capability 8 or later.
func HasBFloat16(d Device) (bool, error) {
	var yes C.int32_t
	err := check("bfloat16", C.rdpp_has_bfloat16(d.c(), &yes))
	return yes != 0, err
}

// DeviceMemory returns the bytes of device memory in use now and at most so far; zero for the CPU.
func DeviceMemory(d Device) (used, peak int64, err error) {
	var u, p C.int64_t
	if err := check("device memory", C.rdpp_device_memory(d.c(), &u, &p)); err != nil {
		return 0, 0, err
	}
	return int64(u), int64(p), nil
}

// HostMemory returns the bytes of this process's memory in blocks of 128 KiB and more that this package's tensors and oneDNN's
// forms of weights have now; those of 2 MiB and more count as whole multiples of that.
func HostMemory() (int64, error) {
	var bytes C.int64_t
	err := check("host memory", C.rdpp_host_memory(&bytes))
	return int64(bytes), err
}
