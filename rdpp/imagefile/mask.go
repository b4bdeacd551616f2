package imagefile

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"

	"golang.org/x/image/webp"
)

// Mask is a drawing of where something is: Pix holds H*W bytes, row-major, 1
// where it is drawn and 0 in the background.
type Mask struct {
	W, H int // pixels
	Pix  []uint8
}

// lossyBackground is the brightest sample, of 0 to 255, that is background in a
// JPEG or lossy WebP file: their compression leaves ripples around what is
// drawn, of which few are brighter at usual qualities (75 and above).
const lossyBackground = 32

// DecodeMask decodes an image file's bytes into what is drawn in it: every
// pixel that is not background, whatever its value. Background is
//
//   - what is transparent, where some pixels are and others are not;
//   - else what is black: 0 in every colour, of 8 or 16 bits alike, up to 32 of
//     255 in lossy files (JPEG and such WebP);
//   - in a palette that no black pixel is drawn with, or nothing but black
//     ones, index 0.
//
// Limits and the orientation tag are those of Decode. A file that draws black
// and other colours opaquely on a transparent ground is refused, since either
// may be its background, and so is one of several pictures.
func DecodeMask(data []byte, opt *Options) (*Mask, error) {
	m, err := decodeMask(data, opt)
	if err != nil {
		return nil, fmt.Errorf("imagefile: %w", err)
	}
	return m, nil
}

// DecodeMaskFile is DecodeMask of the file at path, which its errors name.
func DecodeMaskFile(path string, opt *Options) (*Mask, error) {
	data, err := readFile(path, opt)
	if err != nil {
		return nil, fmt.Errorf("imagefile: %w", err) // names the path already
	}
	m, err := decodeMask(data, opt)
	if err != nil {
		return nil, fmt.Errorf("imagefile: %s: %w", path, err)
	}
	return m, nil
}

// EncodeMask is a mask as a PNG file of one bit per pixel, white on black, which
// DecodeMask makes the same mask of. Equal masks have equal files.
func EncodeMask(m *Mask) ([]byte, error) {
	picture := &image.Paletted{Pix: m.Pix, Stride: m.W, Rect: image.Rect(0, 0, m.W, m.H), Palette: color.Palette{color.Black, color.White}}
	var file bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&file, picture); err != nil {
		return nil, fmt.Errorf("imagefile: a mask: %w", err)
	}
	return file.Bytes(), nil
}

// stored decodes a format to its samples as the file holds them: alpha, 16
// bits and palettes are kept. A format that is not here is lossy.
var stored = map[string]func(data []byte) (image.Image, error){
	"PNG":  imageBy(png.Decode),
	"BMP":  decodeBMP,
	"TIFF": decodeTIFF,
	"WebP": imageBy(webp.Decode),
	"GIF":  decodeGIF,
}

func imageBy(decode func(io.Reader) (image.Image, error)) func([]byte) (image.Image, error) {
	return func(data []byte) (image.Image, error) { return decode(bytes.NewReader(data)) }
}

func decodeMask(data []byte, opt *Options) (*Mask, error) {
	c, err := find(data)
	if err != nil {
		return nil, err
	}
	n, err := c.pictures(data, opt) // before they are decoded: Go's GIF decoder decodes them all
	if err != nil {
		return nil, err
	}
	if n > 1 {
		return nil, fmt.Errorf("a mask of %d pictures in one %s file, of which it is not plain which one counts: save that in a file of its own", n, c.name)
	}
	// Limits, panics and orientation are dealt with as for any picture: one
	// whose channels say what is drawn.
	drawing := *c
	drawing.pixels = c.drawing
	im, err := drawing.decode(data, opt)
	if err != nil {
		return nil, err
	}
	m := &Mask{W: im.W, H: im.H, Pix: im.Pix[:im.W*im.H]}
	for i := range m.Pix {
		m.Pix[i] = im.Pix[3*i]
	}
	return m, nil
}

// drawing returns a picture that is 1, 1, 1 where something is drawn, else 0.
func (c *codec) drawing(data []byte, _ int) (*Image, error) {
	var s maskSamples
	if decode := stored[c.name]; decode != nil {
		m, err := decode(data)
		if err != nil {
			return nil, err
		}
		s = newMaskSamples(m)
	} else {
		im, err := c.pixels(data, 16)
		if err != nil {
			return nil, err
		}
		s.lossy(im)
	}
	if err := s.checkAlpha(); err != nil {
		return nil, err
	}
	out := newImage(s.w, s.h)
	for i, flags := range s.pix {
		v := flags & coloured
		out.Pix[3*i], out.Pix[3*i+1], out.Pix[3*i+2] = v, v, v
	}
	return out, nil
}

// What a pixel of a mask is.
const (
	coloured    = 1 << iota // 1: not of the background's colour
	transparent             // wholly
	opaque                  // wholly
)

// maskSamples is what a mask's pixels are, before it is known whether colour or
// alpha tells what is drawn.
type maskSamples struct {
	w, h int
	pix  []uint8 // of the constants above
}

// varies says that some pixels are transparent, and others are not.
func (s *maskSamples) varies() bool {
	clear, solid := false, false
	for _, flags := range s.pix {
		if flags&transparent != 0 {
			clear = true
		} else {
			solid = true
		}
		if clear && solid {
			return true
		}
	}
	return false
}

// checkAlpha makes alpha the colour where alpha varies.
func (s *maskSamples) checkAlpha() error {
	if !s.varies() {
		return nil
	}
	var black, other bool
	for i, flags := range s.pix {
		if flags&opaque != 0 {
			black = black || flags&coloured == 0
			other = other || flags&coloured != 0
		}
		s.pix[i] = 0
		if flags&transparent == 0 {
			s.pix[i] = coloured
		}
	}
	if black && other {
		return errors.New("a mask with black and other colours on a transparent ground, so that either may be its background: " +
			"save it as white on black, without transparency")
	}
	return nil
}

// lossy takes pixels whose values are approximate.
func (s *maskSamples) lossy(im *Image) {
	s.w, s.h, s.pix = im.W, im.H, make([]uint8, im.W*im.H)
	for i := range s.pix {
		p := im.Pix[3*i:][:3]
		if max(p[0], p[1], p[2]) > lossyBackground {
			s.pix[i] = coloured
		}
	}
}

func newMaskSamples(m image.Image) maskSamples {
	s := maskSamples{w: m.Bounds().Dx(), h: m.Bounds().Dy()}
	switch m := m.(type) {
	case *image.YCbCr:
		s.lossy(pack(m, narrowing{}))
		return s
	case *image.NYCbCrA:
		s.lossy(pack(m, narrowing{}))
		for i := range s.pix {
			s.pix[i] |= alphaFlags(uint32(m.A[i/s.w*m.AStride+i%s.w]), 0xff)
		}
		return s
	}
	s.pix = make([]uint8, s.w*s.h)
	switch m := m.(type) {
	case *image.Gray:
		s.read(m.Pix, m.Stride, 1, 1, 0)
	case *image.Gray16:
		s.read(m.Pix, m.Stride, 2, 2, 0)
	case *image.RGBA:
		s.read(m.Pix, m.Stride, 4, 3, 1)
	case *image.NRGBA:
		s.read(m.Pix, m.Stride, 4, 3, 1)
	case *image.RGBA64:
		s.read(m.Pix, m.Stride, 8, 6, 2)
	case *image.NRGBA64:
		s.read(m.Pix, m.Stride, 8, 6, 2)
	case *image.Paletted:
		s.readPalette(m)
	default:
		for y := range s.h {
			for x := range s.w {
				s.pix[y*s.w+x] = colourFlags(m.At(m.Bounds().Min.X+x, m.Bounds().Min.Y+y))
			}
		}
	}
	return s
}

// read takes rows of stride bytes, in which pixels are pixel bytes apart and
// begin with colour bytes of colour, which alpha bytes of alpha follow.
func (s *maskSamples) read(pix []uint8, stride, pixel, colour, alpha int) {
	for y := range s.h {
		row := pix[y*stride:][:s.w*pixel]
		for x := range s.w {
			var flags, any uint8
			for _, v := range row[:colour] {
				any |= v
			}
			if any != 0 {
				flags = coloured
			}
			switch alpha {
			case 1:
				flags |= alphaFlags(uint32(row[colour]), 0xff)
			case 2:
				flags |= alphaFlags(uint32(row[colour])<<8|uint32(row[colour+1]), 0xffff)
			}
			s.pix[y*s.w+x] = flags
			row = row[pixel:]
		}
	}
}

func alphaFlags(alpha, full uint32) uint8 {
	switch alpha {
	case 0:
		return transparent
	case full:
		return opaque
	}
	return 0
}

func colourFlags(c color.Color) (flags uint8) {
	n := color.NRGBA64Model.Convert(c).(color.NRGBA64)
	if n.R|n.G|n.B != 0 {
		flags = coloured
	}
	return flags | alphaFlags(uint32(n.A), 0xffff)
}

// readPalette takes the colours' word where there is black and something else
// in the picture, and else that of the numbers.
func (s *maskSamples) readPalette(m *image.Paletted) {
	var used [256]bool
	for y := range s.h {
		for _, index := range m.Pix[y*m.Stride:][:s.w] {
			used[index] = true
		}
	}
	var table [256]uint8
	var black, other bool
	for i, c := range m.Palette {
		table[i] = colourFlags(c)
		if used[i] && table[i]&transparent == 0 {
			black = black || table[i]&coloured == 0
			other = other || table[i]&coloured != 0
		}
	}
	for i := range table {
		if black != other { // no two colours that could be told apart by black
			table[i] |= coloured
			if i == 0 {
				table[i] &^= coloured
			}
		}
	}
	for y := range s.h {
		for x, index := range m.Pix[y*m.Stride:][:s.w] {
			s.pix[y*s.w+x] = table[index]
		}
	}
}
