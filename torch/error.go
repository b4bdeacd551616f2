package torch

// #include "rdpp.h"
import "C"

import "fmt"

// Code is the kind of an Error, and the error that it wraps: errors.Is(err, ErrOutOfMemory).
type Code int32

// The kinds of errors.
const (
	// ErrArgument: a tensor of a wrong shape or type, a number out of range, something closed.
	ErrArgument Code = C.RDPP_BAD_ARGUMENT
	// ErrOutOfMemory: the processor's or the device's memory is used up. Nothing was done; smaller work may be possible,
	// and the same once others have freed theirs.
	ErrOutOfMemory Code = C.RDPP_OUT_OF_MEMORY
	// ErrDevice: the device is not there, or it or its driver has failed, after which a process often has to end before the
	// device works again.
	ErrDevice Code = C.RDPP_DEVICE_FAILED
	// ErrUnsupported: this libtorch, its build or the device has no such operation.
	ErrUnsupported Code = C.RDPP_UNSUPPORTED
	// ErrPeer: another process of a Group has ended, or cannot be reached.
	ErrPeer Code = C.RDPP_PEER_LOST
	// ErrInternal is everything else: a bug, a file that cannot be written.
	ErrInternal Code = C.RDPP_INTERNAL
)

func (c Code) Error() string {
	switch c {
	case ErrArgument:
		return "torch: bad argument"
	case ErrOutOfMemory:
		return "torch: out of memory"
	case ErrDevice:
		return "torch: device failed"
	case ErrUnsupported:
		return "torch: unsupported"
	case ErrPeer:
		return "torch: another process is lost"
	case ErrInternal:
		return "torch: internal error"
	}
	return fmt.Sprintf("torch: error %d", int32(c))
}

// Error is what libtorch, or csrc before it, has against an operation.
type Error struct {
	Operation string // such as "new network"
	Code      Code
	Message   string // one line
}

func (e *Error) Error() string { return fmt.Sprintf("torch: %s: %s", e.Operation, e.Message) }

// Unwrap returns the Code.
func (e *Error) Unwrap() error { return e.Code }

// check turns an owned error of csrc into an [*Error] and frees it.
func check(operation string, e C.rdpp_error) error {
	if e == nil {
		return nil
	}
	defer C.rdpp_error_free(e)
	return &Error{Operation: operation, Code: Code(e.code), Message: C.GoString(e.message)}
}
