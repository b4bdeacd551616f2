package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/torch"
)

// detector is what a handle stands for.
type detector struct {
	*rdpp.Detector
	images imagefile.Options
}

// options are those of rdpp_options; zero means the default.
type options struct {
	device     string
	threads    int
	maxPixels  int64
	falseAlarm float64

	threshold, pixelThreshold, regionLow float64
	minArea, minLength                   int64
}

// check finds what is out of range.
func (o *options) check() error {
	positive := func(x float64) bool { return x >= 0 && !math.IsInf(x, 1) } // false for NaN
	switch {
	case o.threads < 0 || o.threads > 1024:
		return wrong("threads is %d; use 1 to 1024, or 0 for the default", o.threads)
	case o.maxPixels < 0:
		return wrong("max_pixels is %d; use 1 or more, or 0 for the default", o.maxPixels)
	case !(o.falseAlarm >= 0 && o.falseAlarm < 1):
		return wrong("false_alarm is %g; use a share above 0 and below 1, or 0 for the model's own", o.falseAlarm)
	case !positive(o.threshold):
		return wrong("threshold is %g; use a number above 0, or 0 for the model's own", o.threshold)
	case !positive(o.pixelThreshold):
		return wrong("pixel_threshold is %g; use a number above 0, or 0 for the model's own", o.pixelThreshold)
	case !positive(o.regionLow):
		return wrong("region_low is %g; use a number above 0, or 0 for the default", o.regionLow)
	case o.minArea < 0 || o.minLength < 0:
		return wrong("min_area is %d and min_length %d; use 0 or more pixels", o.minArea, o.minLength)
	case o.falseAlarm > 0 && o.threshold > 0:
		return wrong("false_alarm and threshold exclude each other; leave one 0")
	}
	return nil
}

// processors lets operations use all processors that the process may keep busy, unless a thread count was asked for before.
var processors = sync.OnceValue(func() error {
	allowance.LimitGo()
	allowance.RelaxGo()
	return torch.SetThreads(allowance.CPUs())
})

// open reads a model file.
func open(file string, o options) (*detector, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.device == "" {
		o.device = "auto"
	}
	device, err := torch.ParseDevice(o.device)
	switch {
	case errors.Is(err, torch.ErrNoDevice):
		return nil, &statusError{statusDevice, err}
	case err != nil:
		return nil, &statusError{statusArgument, err}
	}
	if err := processors(); err != nil {
		return nil, err
	}
	given := func(x float64) *float64 {
		if x == 0 {
			return nil
		}
		return &x
	}
	opt := rdpp.DetectorOptions{Device: device, MaxPixels: o.maxPixels, FalseAlarm: given(o.falseAlarm),
		Threshold: given(o.threshold), PixelThreshold: given(o.pixelThreshold),
		Regions: rdpp.RegionOptions{Low: given(o.regionLow), MinArea: int(o.minArea), MinLength: int(o.minLength)},
		Log:     slog.New(slog.DiscardHandler)} // the terminal is the caller's
	d, err := rdpp.OpenDetector(file, &opt)
	if err != nil && o.falseAlarm > 0 && errors.Is(err, rdpp.ErrConfig) {
		return nil, &statusError{statusArgument, err}
	}
	if err != nil {
		return nil, modelError(err)
	}
	if o.threads > 0 {
		if err := torch.SetThreads(o.threads); err != nil {
			d.Close()
			return nil, err
		}
	}
	return &detector{d, d.ImageOptions()}, nil
}

// modelError is an error of opening a model file: the file's, unless the machine has failed.
func modelError(err error) error {
	if _, machine := machineStatus(err); machine {
		return err
	}
	return &statusError{statusModel, err}
}

// channelOrder is one of RDPP_RGB, RDPP_BGR and RDPP_GREY.
type channelOrder int

// frame describes pixels in the caller's memory.
type frame struct {
	width, height int
	stride        int64 // bytes from the start of a row to the next one's; 0: rows without a gap
	order         channelOrder
}

// rowSize is the bytes of a row's pixels.
func (f *frame) rowSize() int64 {
	if f.order == grey {
		return int64(f.width)
	}
	return 3 * int64(f.width)
}

// size checks the frame and returns the bytes from its first to its last pixel.
func (f *frame) size(maxPixels int64) (int, error) {
	if maxPixels == 0 {
		maxPixels = imagefile.DefaultMaxPixels
	}
	switch {
	case f.order != rgb && f.order != bgr && f.order != grey:
		return 0, wrong("order is %d; use RDPP_RGB, RDPP_BGR or RDPP_GREY", f.order)
	case f.width < 1 || f.height < 1:
		return 0, wrong("an image of %d x %d pixels; both must be 1 or more", f.width, f.height)
	case int64(f.width) > maxPixels/int64(f.height):
		return 0, wrong("an image of %d x %d pixels, at most %d are accepted; raise max_pixels", f.width, f.height, maxPixels)
	}
	if f.stride == 0 {
		f.stride = f.rowSize()
	}
	if f.stride < f.rowSize() {
		return 0, wrong("stride is %d bytes, a row of %d pixels has %d; it counts from the start of a row to the next one's",
			f.stride, f.width, f.rowSize())
	}
	if rows := int64(f.height) - 1; rows > 0 && f.stride > (math.MaxInt64-f.rowSize())/rows {
		return 0, wrong("stride is %d bytes, too large for %d rows", f.stride, f.height)
	}
	return int((int64(f.height)-1)*f.stride + f.rowSize()), nil
}

// image copies the pixels of a frame that size has accepted.
func (f *frame) image(pixels []byte) *imagefile.Image {
	img := &imagefile.Image{W: f.width, H: f.height, Pix: make([]uint8, 3*f.width*f.height)}
	for y := range f.height {
		from := pixels[int64(y)*f.stride:][:f.rowSize()]
		to := img.Pix[3*f.width*y:][:3*f.width]
		switch f.order {
		case rgb:
			copy(to, from)
		case bgr:
			for x := 0; x < len(to); x += 3 {
				to[x], to[x+1], to[x+2] = from[x+2], from[x+1], from[x]
			}
		case grey:
			for x, v := range from {
				to[3*x], to[3*x+1], to[3*x+2] = v, v, v
			}
		}
	}
	return img
}

// mask copies a mask that size has accepted as a grey frame.
func (f *frame) mask(pixels []byte) *imagefile.Mask {
	m := &imagefile.Mask{W: f.width, H: f.height, Pix: make([]uint8, f.width*f.height)}
	for y := range f.height {
		for x, v := range pixels[int64(y)*f.stride:][:f.width] {
			if v != 0 {
				m.Pix[y*f.width+x] = 1
			}
		}
	}
	return m
}

// unfit gives what a model's view or a mask has against an image its status.
func unfit(err error) error {
	for _, kind := range []error{framing.ErrShape, framing.ErrNothing, framing.ErrTiles, rdpp.ErrConfig} {
		if errors.Is(err, kind) {
			return &statusError{statusArgument, err}
		}
	}
	if errors.Is(err, framing.ErrOutside) {
		return &statusError{statusImage, err}
	}
	return err
}

// statusError is an error with the status that it has in C.
type statusError struct {
	status int
	error
}

func (e *statusError) Unwrap() error { return e.error }

// wrong is the caller's mistake.
func wrong(format string, args ...any) error {
	return &statusError{statusArgument, fmt.Errorf(format, args...)}
}

// machineStatus returns the status of what memory, a device or libtorch has against an operation.
func machineStatus(err error) (status int, is bool) {
	switch {
	case errors.Is(err, torch.ErrOutOfMemory):
		return statusMemory, true
	case errors.Is(err, torch.ErrDevice):
		return statusDevice, true
	case errors.Is(err, torch.ErrUnsupported):
		return statusUnsupported, true
	}
	return 0, false
}

// outcome runs f and says how it ended, in one line. A panic of f is an outcome too.
func outcome(f func() error) (status int, message string) {
	defer func() {
		if r := recover(); r != nil {
			status, message = statusInternal, oneLine(fmt.Sprintf("a bug in librdpp, please report it: %v", r))
		}
	}()
	err := f()
	var known *statusError
	switch {
	case err == nil:
		return statusOK, ""
	case errors.Is(err, torch.ErrPanic), errors.Is(err, imagefile.ErrPanic):
		status = statusInternal
	case errors.As(err, &known):
		status = known.status
	case errors.Is(err, torch.ErrClosed):
		status = statusClosed
	default:
		status = statusFailed
		if s, machine := machineStatus(err); machine {
			status = s
		}
	}
	return status, oneLine(err.Error())
}

// oneLine makes a text one that C can hold.
func oneLine(text string) string {
	return strings.NewReplacer("\n", " ", "\x00", " ").Replace(strings.ToValidUTF8(text, "?"))
}
