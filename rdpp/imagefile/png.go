package imagefile

// With -O3, gcc 12 puts branches into the loops of unfilter.c, and they take
// three times as long.

// #cgo CFLAGS: -O2
// #cgo !codecs_shared LDFLAGS: -l:libdeflate.a
// #cgo codecs_shared LDFLAGS: -ldeflate
// #include <libdeflate.h>
// #include "unfilter.h"
import "C"

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image/png"
	"math"
	"slices"
	"unsafe"
)

// pngSize reads a PNG's size in pixels. A file whose pixels have another meaning by a chunk that no decoder may pass over is
// refused.
func pngSize(data []byte) (w, h int, err error) {
	const signature, header, trailer, ancillary = 8, 8, 4, 0x20 // bytes; of a file and of a chunk, and a bit of its name's first letter
	for rest := data[signature:]; len(rest) >= header; {
		n, kind := int64(binary.BigEndian.Uint32(rest)), string(rest[4:header])
		switch kind {
		case "CgBI":
			return 0, 0, unsupported("of Apple's own kind (CgBI), as apps for iPhones contain them")
		case "IHDR", "PLTE":
		default:
			if kind[0]&ancillary == 0 && kind[0] >= 'A' && kind[0] <= 'Z' && kind != "IDAT" && kind != "IEND" {
				return 0, 0, unsupported(fmt.Sprintf("with a chunk %q, of an extension that is not known", kind))
			}
		}
		if kind == "IDAT" || n > int64(len(rest)-header-trailer) {
			break
		}
		rest = rest[header+n+trailer:]
	}
	return sizeBy(png.DecodeConfig)(data)
}

// pngPages counts the frames of an animated PNG, by its acTL chunk; a PNG without one has one.
func pngPages(data []byte) int {
	const signature, header, trailer = 8, 8, 4 // bytes; of a file and of a chunk
	for rest := data[signature:]; len(rest) >= header+trailer; {
		n, kind := int64(binary.BigEndian.Uint32(rest)), string(rest[4:header])
		if kind == "IDAT" || n > int64(len(rest)-header-trailer) {
			break
		}
		if kind == "acTL" && n >= 4 {
			return int(max(1, min(binary.BigEndian.Uint32(rest[header:]), math.MaxInt32)))
		}
		rest = rest[header+n+trailer:]
	}
	return 1
}

// pngPixels decodes a PNG. What cameras and libraries write as a rule goes
// through libdeflate, in a fourth (RGB) to a half (grey) of image/png's time. The
// rest is image/png's, which also says what is wrong with a file.
func pngPixels(data []byte, depth int) (*Image, error) {
	if p := parsePNG(data); p != nil {
		if im := p.decode(depth); im != nil {
			return im.withHint(pngHint(data)), nil
		}
	}
	im, err := pixelsBy(png.Decode)(data, depth)
	if err != nil {
		return nil, err
	}
	return im.withHint(pngHint(data)), nil
}

// plainPNG is a PNG of grey or RGB pixels, with or without alpha, of one to
// four bytes each, not interlaced and without a transparent colour. Larger
// pixels would need more memory than Options promise.
type plainPNG struct {
	w, h     int
	channels int // 1 grey, 2 with alpha, 3 RGB, 4 with alpha
	depth    int // bytes per sample, 1 or 2
	idat     [][]byte
}

// parsePNG returns nil for a file that is no plainPNG, or in which any chunk
// is out of order, cut or damaged. Metadata is skipped as it is, not inflated.
func parsePNG(data []byte) *plainPNG {
	const signature, header, trailer = 8, 8, 4 // bytes; of a file and of a chunk
	var p *plainPNG
	ended := false // the picture's data
	for data = data[signature:]; len(data) >= header+trailer; {
		n := int(binary.BigEndian.Uint32(data))
		if n > min(math.MaxInt32, len(data)-header-trailer) {
			return nil
		}
		kind, body := string(data[4:header]), data[header:][:n]
		if crc32.ChecksumIEEE(data[4:header+n]) != binary.BigEndian.Uint32(data[header+n:]) {
			return nil
		}
		data = data[header+n+trailer:]
		if p == nil {
			if p = newPlainPNG(kind, body); p == nil {
				return nil
			}
			continue
		}
		switch kind {
		case "IHDR", "PLTE", "tRNS":
			return nil
		case "IDAT":
			if ended {
				return nil
			}
			p.idat = append(p.idat, body)
		case "IEND":
			if n > 0 || p.idat == nil {
				return nil
			}
			return p
		default:
			ended = p.idat != nil
		}
	}
	return nil
}

// newPlainPNG reads the first chunk.
func newPlainPNG(kind string, body []byte) *plainPNG {
	if kind != "IHDR" || len(body) != 13 {
		return nil
	}
	w, h := binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])
	bits, colour, compression, filter, interlace := body[8], body[9], body[10], body[11], body[12]
	p := &plainPNG{w: int(w), h: int(h), depth: int(bits) / 8}
	switch colour {
	case 0:
		p.channels = 1
	case 2:
		p.channels = 3
	case 4:
		p.channels = 2
	case 6:
		p.channels = 4
	default:
		return nil
	}
	if bits != 8 && bits != 16 || p.channels*p.depth > 4 || compression != 0 || filter != 0 || interlace != 0 {
		return nil
	}
	return p
}

// decode returns nil where the data is damaged, or is not exactly the picture's.
func (p *plainPNG) decode(depth int) *Image {
	pixel := p.channels * p.depth
	width := p.w * pixel
	stride := 1 + width                   // a row begins with its filter
	rows := make([]uint8, (1+p.h)*stride) // the first one is above the picture
	stream := p.idat[0]
	if len(p.idat) > 1 {
		stream = slices.Concat(p.idat...)
	}
	if !inflate(rows[stride:], stream) {
		return nil
	}
	undone := C.rdpp_unfilter((*C.uint8_t)(unsafe.Pointer(&rows[0])), C.size_t(p.h), C.size_t(width), C.size_t(pixel))
	if int(undone) != p.h {
		return nil
	}
	if p.channels == 3 { // all that there is to do is to take the filters out
		for y := range p.h {
			copy(rows[y*width:], rows[(1+y)*stride+1:][:width])
		}
		return &Image{W: p.w, H: p.h, Pix: rows[:p.h*width]}
	}
	im, sample := newImage(p.w, p.h), 0
	if p.depth == 2 {
		im.packWide(rows[stride+1:], stride, pixel, 0, narrowing{depth: depth})
		return im
	}
	if p.channels == 4 {
		sample = 1
	}
	im.packSamples(rows[stride+1:], stride, pixel, sample)
	return im
}

// inflate fills dst with what a zlib stream holds. It reports false where the
// stream is damaged, or has more or less of data before or after its end.
func inflate(dst, stream []uint8) bool {
	if len(stream) == 0 {
		return false
	}
	d := C.libdeflate_alloc_decompressor()
	if d == nil {
		return false
	}
	defer C.libdeflate_free_decompressor(d)
	var read C.size_t
	// Without a place for the size written, anything but all of dst is an error.
	rc := C.libdeflate_zlib_decompress_ex(d, unsafe.Pointer(&stream[0]), C.size_t(len(stream)),
		unsafe.Pointer(&dst[0]), C.size_t(len(dst)), &read, nil)
	return rc == C.LIBDEFLATE_SUCCESS && int(read) == len(stream)
}
