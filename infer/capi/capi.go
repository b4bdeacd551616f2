// Command capi is the shared library librdpp.so, for programs in C, C++ and other languages that call C:
//
//	go build -buildmode=c-shared -tags codecs_shared -o librdpp.so ./infer/capi
//
// rdpp.h is its interface; the header that go build writes beside the library describes the same functions for nobody.
package main

// What C calls const has names here, for cgo's own declarations to agree with rdpp.h.

// #include <stdlib.h>
// #include <string.h>
// #cgo codecs_shared LDFLAGS: ${SRCDIR}/exports.so
// #include "rdpp.h"
// typedef const char const_char;
// typedef const uint8_t const_uint8;
// typedef const void const_void;
// typedef const rdpp_options const_options;
// typedef const rdpp_mask const_mask;
import "C"

import (
	"fmt"
	"math"
	"runtime/cgo"
	"strings"
	"sync"
	"unsafe"

	"rdpp/rdpp"
	"rdpp/rdpp/imagefile"
)

func main() {}

// Statuses and orders as Go names them.
const (
	statusOK       = C.RDPP_OK
	statusArgument = C.RDPP_ERROR_ARGUMENT
	statusClosed   = C.RDPP_ERROR_CLOSED
	statusModel    = C.RDPP_ERROR_MODEL
	statusImage    = C.RDPP_ERROR_IMAGE
	statusDevice   = C.RDPP_ERROR_DEVICE
	statusFailed   = C.RDPP_ERROR_FAILED
	statusInternal = C.RDPP_ERROR_INTERNAL
	statusMemory   = C.RDPP_ERROR_MEMORY

	statusUnsupported = C.RDPP_ERROR_UNSUPPORTED

	rgb  channelOrder = C.RDPP_RGB
	bgr  channelOrder = C.RDPP_BGR
	grey channelOrder = C.RDPP_GREY
)

var version = sync.OnceValue(func() *C.char { return C.CString(rdpp.Version) })

//export rdpp_abi_version
func rdpp_abi_version() C.uint32_t { return C.RDPP_ABI_VERSION }

//export rdpp_version
func rdpp_version() *C.const_char { return (*C.const_char)(version()) }

//export rdpp_open
func rdpp_open(file *C.const_char, options *C.const_options, handle *C.rdpp_detector, message **C.char) C.int32_t {
	return report(message, func() error {
		if file == nil || handle == nil {
			return wrong("model_file and detector must not be NULL")
		}
		o, err := readOptions((*C.rdpp_options)(options))
		if err != nil {
			return err
		}
		d, err := open(C.GoString((*C.char)(file)), o)
		if err != nil {
			return err
		}
		*handle = C.rdpp_detector(cgo.NewHandle(d))
		return nil
	})
}

// What the structures were in the first version of the ABI, in bytes: programs that were built with its header give these
// sizes, whatever fields have been added since.
const (
	firstOptions = 48
	firstResult  = 88
)

// readOptions translates options, which may be nil.
func readOptions(from *C.rdpp_options) (o options, err error) {
	if from == nil {
		return options{}, nil
	}
	if err := checkSize("rdpp_options", from.size, firstOptions); err != nil {
		return options{}, err
	}
	given := unsafe.Slice((*byte)(unsafe.Pointer(from)), from.size)
	var raw C.rdpp_options // what an older header does not have stays 0
	known := copy(bytesOf(&raw), given)
	for _, b := range given[known:] {
		if b != 0 {
			return options{}, wrong("rdpp_options sets a field that this library, version %s, does not have; use a newer one", rdpp.Version)
		}
	}
	o = options{threads: int(raw.threads), maxPixels: int64(raw.max_pixels), falseAlarm: float64(raw.false_alarm),
		threshold: float64(raw.threshold), pixelThreshold: float64(raw.pixel_threshold), regionLow: float64(raw.region_low),
		minArea: int64(raw.min_area), minLength: int64(raw.min_length)}
	if raw.device != nil {
		o.device = C.GoString(raw.device)
	}
	return o, nil
}

// bytesOf is the memory of a value.
func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

// checkSize refuses what is smaller than the structures of the first version, or so large that size was never set.
func checkSize(name string, size, least C.uint32_t) error {
	const most = 1 << 16
	if size < least || size > most {
		return wrong("%s has size %d; set it to sizeof(%s), which is %d or more", name, size, name, least)
	}
	return nil
}

//export rdpp_close
func rdpp_close(handle C.rdpp_detector) {
	report(nil, func() error {
		d, err := lookUp(handle)
		if err != nil {
			return err
		}
		cgo.Handle(handle).Delete() // panics where another thread was quicker
		d.Close()
		return nil
	})
}

// lookUp finds a detector by its handle.
func lookUp(handle C.rdpp_detector) (d *detector, err error) {
	defer func() {
		if recover() != nil { // cgo.Handle knows no other answer
			err = &statusError{statusClosed, fmt.Errorf("no detector is open under handle %d", uint64(handle))}
		}
	}()
	return cgo.Handle(handle).Value().(*detector), nil
}

// begin clears the result and finds the detector.
func begin(handle C.rdpp_detector, result *C.rdpp_result) (*detector, error) {
	if err := clearResult(result); err != nil {
		return nil, err
	}
	return lookUp(handle)
}

//export rdpp_detect_pixels
func rdpp_detect_pixels(handle C.rdpp_detector, pixels *C.const_uint8, width, height C.int32_t, stride C.int64_t, order C.int32_t,
	result *C.rdpp_result, message **C.char) C.int32_t {
	return rdpp_detect_pixels_ignoring(handle, pixels, width, height, stride, order, nil, result, message)
}

//export rdpp_detect_pixels_ignoring
func rdpp_detect_pixels_ignoring(handle C.rdpp_detector, pixels *C.const_uint8, width, height C.int32_t, stride C.int64_t, order C.int32_t,
	ignore *C.const_mask, result *C.rdpp_result, message **C.char) C.int32_t {
	return report(message, func() error {
		d, err := begin(handle, result)
		if err != nil {
			return err
		}
		f := frame{width: int(width), height: int(height), stride: int64(stride), order: channelOrder(order)}
		size, err := f.size(d.images.MaxPixels)
		if err != nil {
			return err
		}
		if pixels == nil {
			return wrong("pixels must not be NULL")
		}
		mask, err := d.readMask((*C.rdpp_mask)(ignore))
		if err != nil {
			return err
		}
		img := f.image(unsafe.Slice((*byte)(pixels), size))
		return d.detect(img, mask, result)
	})
}

//export rdpp_detect_encoded
func rdpp_detect_encoded(handle C.rdpp_detector, data *C.const_void, size C.size_t, result *C.rdpp_result, message **C.char) C.int32_t {
	return rdpp_detect_encoded_ignoring(handle, data, size, nil, result, message)
}

//export rdpp_detect_encoded_ignoring
func rdpp_detect_encoded_ignoring(handle C.rdpp_detector, data *C.const_void, size C.size_t, ignore *C.const_mask, result *C.rdpp_result,
	message **C.char) C.int32_t {
	return report(message, func() error {
		d, err := begin(handle, result)
		if err != nil {
			return err
		}
		if data == nil {
			return wrong("data must not be NULL")
		}
		mask, err := d.readMask((*C.rdpp_mask)(ignore))
		if err != nil {
			return err
		}
		if limit := d.images.MaxBytes(); uint64(size) > uint64(limit) {
			return &statusError{statusImage, fmt.Errorf("an image file of %d bytes, at most %d are accepted; raise max_pixels", uint64(size), limit)}
		}
		img, err := imagefile.Decode(unsafe.Slice((*byte)(unsafe.Pointer(data)), size), &d.images)
		if err != nil {
			return &statusError{statusImage, err}
		}
		return d.detect(img, mask, result)
	})
}

// readMask copies a mask, which may be nil.
func (d *detector) readMask(from *C.rdpp_mask) (*imagefile.Mask, error) {
	if from == nil {
		return nil, nil
	}
	if err := checkSize("rdpp_mask", from.size, C.sizeof_rdpp_mask); err != nil {
		return nil, err
	}
	if from.pixels == nil {
		return nil, wrong("the mask's pixels must not be NULL")
	}
	f := frame{width: int(from.width), height: int(from.height), stride: int64(from.stride), order: grey}
	size, err := f.size(d.images.MaxPixels)
	if err != nil {
		return nil, fmt.Errorf("mask: %w", err)
	}
	return f.mask(unsafe.Slice((*byte)(from.pixels), size)), nil
}

// clearResult empties a result that the caller has set the size of.
func clearResult(r *C.rdpp_result) error {
	if r == nil {
		return wrong("result must not be NULL")
	}
	if err := checkSize("rdpp_result", r.size, firstResult); err != nil {
		return err
	}
	size := r.size
	C.memset(unsafe.Pointer(r), 0, C.size_t(size)) // also what a newer header has added
	r.size = size
	return nil
}

// detect fills a result that is clear, as far as the caller's header goes. mask may be nil.
func (d *detector) detect(img *imagefile.Image, mask *imagefile.Mask, result *C.rdpp_result) error {
	r, err := d.DetectIgnoring(img, mask)
	if err != nil {
		return unfit(err)
	}
	regions, err := copyRegions(r)
	if err != nil {
		return err
	}
	side, anomaly := r.MapW, r.Map
	if info := d.Info(); info.Config.Tiled() {
		if side = 0; !holdsMapSize(result) {
			anomaly = nil
		}
	}
	anomalies, err := allocate(len(anomaly), unsafe.Sizeof(C.float(0)))
	if err != nil {
		C.free(regions)
		return err
	}
	copy(unsafe.Slice((*float32)(anomalies), len(anomaly)), anomaly)
	var warnings *C.char
	if len(r.Warnings) > 0 && holdsWarnings(result) {
		warnings = C.CString(oneLine(strings.Join(r.Warnings, "; ")))
	}

	to := C.rdpp_result{size: result.size}
	to.anomalous, to.provisional, to.exact = truth(r.Anomalous), truth(r.Provisional), truth(r.Exact)
	to.score, to.normalised, to.p_value = C.double(r.Score), C.double(r.Normalised), C.double(math.NaN())
	if r.PValue != nil {
		to.p_value = C.double(*r.PValue)
	}
	to.p_value_bound = truth(r.PValueBound)
	to.threshold, to.pixel_threshold = C.double(r.Threshold), C.double(r.PixelThreshold)
	to.width, to.height, to.map_side = C.int32_t(r.Width), C.int32_t(r.Height), C.int32_t(side)
	to.region_count, to.regions = C.int64_t(len(r.Regions)), (*C.rdpp_region)(regions)
	to._map, to.warnings = (*C.float)(anomalies), warnings
	area := r.Frame.Area()
	to.area_x, to.area_y, to.area_width, to.area_height = C.double(area.X), C.double(area.Y), C.double(area.Width), C.double(area.Height)
	pose := r.Frame.Pose
	to.pose_x, to.pose_y, to.pose_degrees, to.pose_correlation = C.double(pose.X), C.double(pose.Y), C.double(pose.Degrees), C.double(pose.Correlation)
	to.map_width, to.map_height = C.int32_t(r.MapW), C.int32_t(r.MapH)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(result)), result.size), bytesOf(&to))
	return nil
}

// holdsWarnings says whether the caller's header has the field, and so its caller frees it.
func holdsWarnings(r *C.rdpp_result) bool {
	return uintptr(r.size) >= unsafe.Offsetof(r.warnings)+unsafe.Sizeof(r.warnings)
}

// holdsMapSize says whether the caller's header has the map's width and height.
func holdsMapSize(r *C.rdpp_result) bool {
	return uintptr(r.size) >= unsafe.Offsetof(r.map_height)+unsafe.Sizeof(r.map_height)
}

func copyRegions(r *rdpp.Result) (unsafe.Pointer, error) {
	memory, err := allocate(len(r.Regions), unsafe.Sizeof(C.rdpp_region{}))
	if err != nil {
		return nil, err
	}
	to := unsafe.Slice((*C.rdpp_region)(memory), len(r.Regions))
	for i, region := range r.Regions {
		to[i] = C.rdpp_region{x: C.int32_t(region.X), y: C.int32_t(region.Y), width: C.int32_t(region.Width),
			height: C.int32_t(region.Height), area: C.int64_t(region.Area), peak: C.float(region.Peak), mean: C.float(region.Mean)}
	}
	return memory, nil
}

// allocate returns memory of C for n elements, nil for none.
func allocate(n int, size uintptr) (unsafe.Pointer, error) {
	if n == 0 {
		return nil, nil
	}
	memory, err := C.calloc(C.size_t(n), C.size_t(size))
	if memory == nil {
		return nil, &statusError{statusMemory, fmt.Errorf("no memory for a result: %w", err)}
	}
	return memory, nil
}

func truth(yes bool) C.int32_t {
	if yes {
		return 1
	}
	return 0
}

//export rdpp_result_free
func rdpp_result_free(r *C.rdpp_result) {
	if r == nil || checkSize("rdpp_result", r.size, firstResult) != nil {
		return // it never held anything
	}
	C.free(unsafe.Pointer(r.regions))
	C.free(unsafe.Pointer(r._map))
	if holdsWarnings(r) {
		C.free(unsafe.Pointer(r.warnings))
	}
	_ = clearResult(r) // checked above
}

//export rdpp_message_free
func rdpp_message_free(message *C.char) { C.free(unsafe.Pointer(message)) }

// report runs f and turns its error into a status and, where it is wanted, a message. Nothing that f panics with gets
// out.
func report(message **C.char, f func() error) C.int32_t {
	status, text := outcome(f)
	if message != nil {
		*message = nil
		if status != statusOK {
			*message = C.CString(text)
		}
	}
	return C.int32_t(status)
}
