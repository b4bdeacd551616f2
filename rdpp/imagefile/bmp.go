package imagefile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"math/bits"

	"golang.org/x/image/bmp"
)

// Compressions of a BMP. OS/2 means others by 3 and 4.
const (
	bmpPlain     = 0
	bmpRLE8      = 1
	bmpRLE4      = 2
	bmpMasks     = 3
	bmpAlphaMask = 6
)

// bmpFile is a BMP: what a BMP's headers say.
type bmpFile struct {
	w, h        int
	topDown     bool
	bits        int // per pixel
	compression uint32
	masks       [4]uint32 // of R, G, B and alpha, for more than 8 bits
	palette     color.Palette
	pixels      []byte // all that follows where they begin
}

// bmpSize reads a BMP's size in pixels.
func bmpSize(data []byte) (w, h int, err error) {
	head, err := parseBMP(data)
	if err != nil {
		return 0, 0, err
	}
	return head.w, head.h, nil
}

// bmpPixels decodes a BMP.
func bmpPixels(data []byte, _ int) (*Image, error) {
	m, err := decodeBMP(data)
	if err != nil {
		return nil, err
	}
	return pack(m, narrowing{}), nil
}

// decodeBMP decodes a BMP. Ordinary files are golang.org/x/image's; the rest,
// and what is wrong with a file, is found here: OS/2's headers, palettes that
// are too short, gaps before the pixels, 16 bits, masks and run lengths.
func decodeBMP(data []byte) (image.Image, error) {
	if m, err := bmp.Decode(bytes.NewReader(data)); err == nil {
		return m, nil
	}
	return decodeOddBMP(data)
}

func decodeOddBMP(data []byte) (image.Image, error) {
	head, err := parseBMP(data)
	if err != nil {
		return nil, err
	}
	switch {
	case head.compression == bmpRLE8 || head.compression == bmpRLE4:
		return head.runs()
	case head.bits <= 8:
		return head.indexed()
	}
	return head.masked()
}

// parseBMP reads the headers, and refuses what nothing here decodes.
func parseBMP(data []byte) (*bmpFile, error) {
	const fileHeader, core = 14, 12
	if len(data) < fileHeader+core {
		return nil, io.ErrUnexpectedEOF
	}
	offset := binary.LittleEndian.Uint32(data[10:])
	size := binary.LittleEndian.Uint32(data[14:])
	if size != core && (size < 16 || size > 1<<16) {
		return nil, fmt.Errorf("a header of %d bytes", size)
	}
	if uint64(len(data)) < fileHeader+uint64(size) || uint64(offset) > uint64(len(data)) {
		return nil, io.ErrUnexpectedEOF
	}
	if uint64(offset) < fileHeader+uint64(size) {
		return nil, fmt.Errorf("its pixels begin at byte %d, inside the header", offset)
	}
	// What shorter headers leave out is 0.
	var info [56]byte
	copy(info[:], data[fileHeader:][:size])
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(info[at:])) }
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(info[at:]) }

	b := &bmpFile{pixels: data[offset:]}
	tables := data[fileHeader+size:]
	colours, entry := 0, 4 // of the palette, and its entries' bytes
	if size == core {
		b.w, b.h, b.bits, entry = u16(4), u16(6), u16(10), 3
	} else {
		b.w, b.h, b.bits, b.compression = int(int32(u32(4))), int(int32(u32(8))), u16(14), u32(16)
		colours = int(u32(32))
	}
	if b.h < 0 {
		b.h, b.topDown = -b.h, true
	}
	if err := b.check(size); err != nil {
		return nil, err
	}
	switch {
	case b.bits <= 8:
		if most := 1 << b.bits; colours == 0 || colours > most {
			colours = most
		}
		if len(tables) < colours*entry {
			return nil, io.ErrUnexpectedEOF
		}
		b.palette = make(color.Palette, 1<<b.bits) // black beyond what the file holds
		for i := range b.palette {
			c := color.NRGBA{A: 255}
			if i < colours {
				c.B, c.G, c.R = tables[i*entry], tables[i*entry+1], tables[i*entry+2]
			}
			b.palette[i] = c
		}
	case b.compression == bmpPlain && b.bits == 16:
		b.masks = [4]uint32{0x7c00, 0x3e0, 0x1f}
	case b.compression == bmpPlain:
		b.masks = [4]uint32{0xff0000, 0xff00, 0xff}
	default:
		masks := info[40:] // in the header since its version 2, before that behind it
		if size < 52 {
			if len(tables) < 12 {
				return nil, io.ErrUnexpectedEOF
			}
			masks = append(tables[:12:12], 0, 0, 0, 0)
			if b.compression == bmpAlphaMask && len(tables) >= 16 {
				masks = tables[:16]
			}
		}
		for i := range b.masks {
			b.masks[i] = binary.LittleEndian.Uint32(masks[4*i:])
		}
		if err := b.checkMasks(); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// check refuses what is no picture, or none that is decoded here.
func (b *bmpFile) check(size uint32) error {
	const os2 = 64
	if b.compression > bmpRLE4 && (size == os2 || b.compression != bmpMasks && b.compression != bmpAlphaMask) {
		return unsupported(fmt.Sprintf("with compression %d (a JPEG, a PNG, CMYK or one of OS/2's)", b.compression))
	}
	ok := false
	switch b.compression {
	case bmpPlain:
		ok = b.bits == 1 || b.bits == 2 || b.bits == 4 || b.bits == 8 || b.bits == 16 || b.bits == 24 || b.bits == 32
	case bmpRLE8:
		ok = b.bits == 8
	case bmpRLE4:
		ok = b.bits == 4
	default:
		ok = b.bits == 16 || b.bits == 32
	}
	if !ok {
		return unsupported(fmt.Sprintf("with %d bits per pixel and compression %d", b.bits, b.compression))
	}
	if b.w < 0 {
		return fmt.Errorf("a width of %d pixels", b.w)
	}
	return nil
}

// checkMasks refuses masks that are no run of bits, or that reach beyond the
// pixel.
func (b *bmpFile) checkMasks() error {
	for i, m := range b.masks {
		run := m >> (bits.TrailingZeros32(m) & 31)
		if i < 3 && m == 0 || run&(run+1) != 0 || b.bits == 16 && m > 0xffff {
			return unsupported(fmt.Sprintf("with the masks %#x", b.masks))
		}
	}
	return nil
}

// stride is the number of bytes from row to row.
func (b *bmpFile) stride() int { return (b.w*b.bits + 31) / 32 * 4 }

// row returns the bytes of the picture's row y, nil beyond the file's end. The
// last row in the file need not be filled up to a multiple of 4 bytes.
func (b *bmpFile) row(y int) []byte {
	if !b.topDown {
		y = b.h - 1 - y
	}
	start, n := y*b.stride(), (b.w*b.bits+7)/8
	if start+n > len(b.pixels) {
		return nil
	}
	return b.pixels[start:][:n]
}

// whole says whether the file holds all rows.
func (b *bmpFile) whole() bool { return b.row(0) != nil && b.row(b.h-1) != nil }

func (b *bmpFile) indexed() (image.Image, error) {
	if !b.whole() {
		return nil, io.ErrUnexpectedEOF
	}
	m := image.NewPaletted(image.Rect(0, 0, b.w, b.h), b.palette)
	mask := byte(len(b.palette) - 1)
	for y := range b.h {
		dst, src := m.Pix[y*m.Stride:], b.row(y)
		for x := range b.w {
			at := x * b.bits
			dst[x] = src[at/8] >> (8 - b.bits - at%8) & mask
		}
	}
	return m, nil
}

func (b *bmpFile) masked() (image.Image, error) {
	if !b.whole() {
		return nil, io.ErrUnexpectedEOF
	}
	m := image.NewNRGBA(image.Rect(0, 0, b.w, b.h))
	for y := range b.h {
		dst, src := m.Pix[y*m.Stride:], b.row(y)
		for x := range b.w {
			var v uint32
			switch b.bits {
			case 16:
				v = uint32(binary.LittleEndian.Uint16(src[2*x:]))
			case 24:
				v = uint32(src[3*x]) | uint32(src[3*x+1])<<8 | uint32(src[3*x+2])<<16
			case 32:
				v = binary.LittleEndian.Uint32(src[4*x:])
			}
			p := dst[4*x:][:4]
			for i, mask := range b.masks {
				p[i] = highBits(v, mask)
			}
			if b.masks[3] == 0 {
				p[3] = 255
			}
		}
	}
	return m, nil
}

// highBits moves the bits under mask to the top of a byte, as OpenCV does:
// five ones are 248.
func highBits(v, mask uint32) uint8 {
	if mask == 0 {
		return 0
	}
	return uint8((v & mask) << bits.LeadingZeros32(mask) >> 24)
}

var errRuns = errors.New("a run of pixels leaves its row")

// runs decodes RLE8 and RLE4. Pixels that are skipped have index 0.
func (b *bmpFile) runs() (image.Image, error) {
	m := image.NewPaletted(image.Rect(0, 0, b.w, b.h), b.palette)
	src, x, y := b.pixels, 0, 0
	for {
		if y >= b.h {
			return m, nil // OpenCV needs no end marker either
		}
		if len(src) < 2 {
			return nil, io.ErrUnexpectedEOF
		}
		n, code := int(src[0]), src[1]
		src = src[2:]
		switch {
		case n > 0: // n pixels of one or two colours
			if x+n > b.w {
				return nil, errRuns
			}
			for i := range n {
				b.set(m, x+i, y, code, i)
			}
			x += n
		case code == 0: // the end of a row
			x, y = 0, y+1
		case code == 1: // the end of the picture
			return m, nil
		case code == 2: // a step to the right, and on to other rows
			if len(src) < 2 {
				return nil, io.ErrUnexpectedEOF
			}
			x, y = x+int(src[0]), y+int(src[1])
			src = src[2:]
			if x > b.w {
				return nil, errRuns
			}
		default: // pixels one by one, up to a multiple of two bytes
			n = int(code)
			bytes := (n*b.bits + 15) / 16 * 2
			if x+n > b.w {
				return nil, errRuns
			}
			if len(src) < bytes {
				return nil, io.ErrUnexpectedEOF
			}
			for i := range n {
				b.set(m, x+i, y, src[i*b.bits/8], i)
			}
			x += n
			src = src[bytes:]
		}
	}
}

// set stores an index: code, or of its two 4-bit indexes the first for even i.
func (b *bmpFile) set(m *image.Paletted, x, y int, code byte, i int) {
	if b.bits == 4 {
		code = code >> (4 * (1 - i%2)) & 15
	}
	if !b.topDown {
		y = b.h - 1 - y
	}
	m.Pix[y*m.Stride+x] = code
}
