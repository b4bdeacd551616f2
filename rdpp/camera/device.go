package camera

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/blackjack/webcam"
)

// device is a camera of Video4Linux, at USB as a rule, that makes M-JPEG.
type device struct {
	path string
	opt  *Options
}

// The formats of Video4Linux whose frames are JPEG files, by their four letters.
const (
	motionJPEG webcam.PixelFormat = 'M' | 'J'<<8 | 'P'<<16 | 'G'<<24
	stillJPEG  webcam.PixelFormat = 'J' | 'P'<<8 | 'E'<<16 | 'G'<<24
)

func (d *device) stream(ctx context.Context, deliver func(Frame), _ <-chan struct{}) error {
	cam, err := webcam.Open(d.path)
	if err != nil {
		return fmt.Errorf("it cannot be opened: %w", err)
	}
	defer cam.Close()
	kind, err := jpegOf(cam.GetSupportedFormats())
	if err != nil {
		return err
	}
	width, height, err := sizeOf(cam.GetSupportedFrameSizes(kind), uint32(d.opt.Width), uint32(d.opt.Height))
	if err != nil {
		return err
	}
	if got, _, _, err := cam.SetImageFormat(kind, width, height); err != nil || got != kind {
		return fmt.Errorf("it does not make M-JPEG of %d x %d: %v", width, height, err)
	}
	if err := cam.StartStreaming(); err != nil {
		return err
	}
	for last := time.Now(); ctx.Err() == nil; {
		err := cam.WaitForFrame(1) // second
		if timeout := (*webcam.Timeout)(nil); errors.As(err, &timeout) {
			if time.Since(last) >= d.opt.Silence {
				return errSilent
			}
			continue
		}
		if err != nil {
			return err
		}
		begun := time.Now()
		data, err := cam.ReadFrame()
		switch {
		case err != nil:
			return err
		case int64(len(data)) > d.opt.MaxBytes:
			return tooLarge(d.opt.MaxBytes)
		case len(data) == 0: // the driver has dropped it
			continue
		}
		last = begun
		deliver(Frame{Data: slices.Clone(data), Begun: begun}) // as the driver writes there again
	}
	return ctx.Err()
}

// jpegOf chooses the format of JPEG files among those of a device.
func jpegOf(formats map[webcam.PixelFormat]string) (webcam.PixelFormat, error) {
	for _, kind := range []webcam.PixelFormat{motionJPEG, stillJPEG} {
		if _, found := formats[kind]; found {
			return kind, nil
		}
	}
	var names []string
	for _, name := range formats {
		names = append(names, name)
	}
	slices.Sort(names)
	return 0, fmt.Errorf("it makes %.200q, and this program reads M-JPEG alone", strings.Join(names, ", "))
}

// sizeOf chooses a size among those of a device, the largest where none is wanted.
func sizeOf(sizes []webcam.FrameSize, width, height uint32) (w, h uint32, err error) {
	var names []string
	for _, s := range sizes {
		if width >= s.MinWidth && width <= s.MaxWidth && height >= s.MinHeight && height <= s.MaxHeight {
			return width, height, nil
		}
		if uint64(s.MaxWidth)*uint64(s.MaxHeight) > uint64(w)*uint64(h) {
			w, h = s.MaxWidth, s.MaxHeight
		}
		names = append(names, s.GetString())
	}
	if width > 0 || height > 0 {
		return 0, 0, fmt.Errorf("it makes no frames of %d x %d, but %.300s", width, height, strings.Join(names, ", "))
	}
	if w == 0 || h == 0 {
		return 0, 0, errors.New("it names no size of its frames")
	}
	return w, h, nil
}
