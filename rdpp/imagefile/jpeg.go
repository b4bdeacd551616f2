package imagefile

// The codecs are linked statically, so that a command needs no library
// installed. Debian's archives are not position independent: -buildmode=c-shared
// needs the tag codecs_shared, and libturbojpeg.so.0, libdeflate.so.0 and
// libtiff.so.6 where it runs.

// Neither do they take the place of other libraries' own: Go exports all that a
// command has, as libtorch's libz would then find it here.

// #cgo !codecs_shared LDFLAGS: -l:libturbojpeg.a ${SRCDIR}/codecs_static.so
// #cgo codecs_shared LDFLAGS: -lturbojpeg
// #include <turbojpeg.h>
import "C"

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unsafe"
)

// JPEG goes through libjpeg-turbo, the decoder under OpenCV and Pillow: Go's
// own differs from it by up to 20 levels, which would change scores.

// jpegSize reads a JPEG's size in pixels.
func jpegSize(data []byte) (w, h int, err error) {
	d := C.tjInitDecompress()
	if d == nil {
		return 0, 0, errors.New("out of memory")
	}
	defer C.tjDestroy(d)
	w, h, _, err = jpegHeader(d, data)
	return w, h, err
}

// jpegPixels decodes a JPEG.
func jpegPixels(data []byte, _ int) (*Image, error) {
	d := C.tjInitDecompress()
	if d == nil {
		return nil, errors.New("out of memory")
	}
	defer C.tjDestroy(d)
	w, h, colours, err := jpegHeader(d, data)
	if err != nil {
		return nil, err
	}
	im := newImage(w, h)
	if colours == C.TJCS_CMYK || colours == C.TJCS_YCCK {
		cmyk := make([]uint8, 4*w*h)
		if err := jpegDecompress(d, data, cmyk, w, h, C.TJPF_CMYK); err != nil {
			return nil, err
		}
		im.packCMYK(cmyk)
		return im, nil
	}
	if err := jpegDecompress(d, data, im.Pix, w, h, C.TJPF_RGB); err != nil {
		return nil, err
	}
	return im, nil
}

func jpegHeader(d C.tjhandle, data []byte) (w, h int, colours C.int, err error) {
	var cw, ch, subsampling C.int
	colours = -1
	rc := C.tjDecompressHeader3(d, (*C.uchar)(&data[0]), C.ulong(len(data)), &cw, &ch, &subsampling, &colours)
	// It also fails on chroma subsamplings that it has no name for, having
	// stored the rest; those can be decoded.
	if rc != 0 && (cw < 1 || ch < 1 || colours < 0) {
		return 0, 0, 0, jpegError(d)
	}
	return int(cw), int(ch), colours, nil
}

func jpegDecompress(d C.tjhandle, data, pix []uint8, w, h int, format C.int) error {
	// The limit refuses files of thousands of scans, made to take minutes.
	rc := C.tjDecompress2(d, (*C.uchar)(&data[0]), C.ulong(len(data)), (*C.uchar)(unsafe.Pointer(&pix[0])),
		C.int(w), 0, C.int(h), format, C.TJFLAG_LIMITSCANS)
	if rc == 0 || C.tjGetErrorCode(d) == C.TJERR_WARNING && harmless(jpegMessage(d)) {
		return nil
	}
	return jpegError(d)
}

// harmless says whether a warning leaves the picture whole: some cameras pad
// the data before the end marker 0xd9. As only the first warning is told,
// none before it touched a pixel.
func harmless(warning string) bool {
	return strings.HasSuffix(warning, "extraneous bytes before marker 0xd9")
}

func jpegMessage(d C.tjhandle) string {
	return C.GoString(C.tjGetErrorStr2(d))
}

func jpegError(d C.tjhandle) error {
	msg := jpegMessage(d)
	if strings.Contains(strings.ToLower(msg), "premature end") {
		return fmt.Errorf("%s: %w", msg, io.ErrUnexpectedEOF)
	}
	return jpegLimit(msg)
}

// jpegLimit tells what libjpeg cannot read from what is damaged, by its message.
func jpegLimit(message string) error {
	for _, limit := range []struct{ words, meaning string }{
		{"Unsupported JPEG data precision 12", "of 12 bits per sample"}, {"Unsupported JPEG data precision 16", "of 16 bits per sample"},
		{"Unsupported JPEG process", "of a kind that is rare, such as without loss"},
		{"Unsupported marker type 0xf7", "that is JPEG-LS"}, {"arithmetic", "with arithmetic coding"},
	} {
		if strings.Contains(message, limit.words) {
			return unsupported(fmt.Sprintf("%s (%s)", limit.meaning, message))
		}
	}
	return errors.New(message)
}

// packCMYK converts CMYK stored inverted (255 is no ink), as Adobe does and
// OpenCV assumes, by OpenCV's formula.
func (im *Image) packCMYK(cmyk []uint8) {
	dst := im.Pix
	for ; len(cmyk) >= 4; cmyk = cmyk[4:] {
		k := int(cmyk[3])
		for i := range 3 {
			dst[i] = uint8(k - (255-int(cmyk[i]))*k>>8)
		}
		dst = dst[3:]
	}
}
