// Package imagefile decodes PNG, JPEG, BMP, TIFF and WebP files into 8-bit
// RGB, giving the pixels that OpenCV's imread(IMREAD_COLOR) gives, so that a
// picture scores the same here as in a Python pipeline.
//
// The format is recognised by the file's first bytes, never by its name.
//
//   - Grey is replicated to R = G = B, palettes are expanded, CMYK and YCCK
//     JPEGs are converted.
//   - Alpha is dropped and the colour kept as it is stored: nothing is blended
//     with a background. (OpenCV differs in one case: it multiplies the colour
//     of a TIFF file by its unassociated alpha.)
//   - 16-bit samples become 8-bit ones by v >> 8, in RGB TIFF files by
//     (v + 128) / 257: the roundings of libpng and libtiff under OpenCV.
//   - EXIF orientation 1 to 8 is applied to JPEG (APP1) and PNG (eXIf), the
//     Orientation tag to TIFF. WebP's is ignored, as OpenCV 4.6 does.
//   - Of a file with several pages the first is read; animated WebP, CMYK,
//     JPEG-compressed and 2- and 4-bit grey TIFF, RLE and 16-bit BMP are refused.
//
// A truncated or damaged file is an error, never a partly grey picture, and a
// panic in a decoder is returned as one. All functions are safe for
// concurrent use.
package imagefile

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"
)

// DefaultMaxPixels is the largest W*H accepted unless Options say otherwise.
const DefaultMaxPixels = 100_000_000

// maxMetadata bounds what a file may hold beside its pixels, in bytes.
const maxMetadata = 64 << 20

// Image is an 8-bit RGB picture: Pix holds H*W*3 bytes, row-major, R G B.
type Image struct {
	W, H int // pixels
	Pix  []uint8
}

// Options bound what is decoded; nil means the defaults.
type Options struct {
	// MaxPixels is the largest W*H accepted, in pixels; 0 means
	// DefaultMaxPixels. It is checked from the header, before memory for the
	// pixels is allocated. Decoding takes up to 15 bytes per pixel at once (a
	// progressive CMYK JPEG; 6 for an RGB PNG that does not compress, 3 for a
	// JPEG).
	MaxPixels int64
}

func (o *Options) maxPixels() int64 {
	if o == nil || o.MaxPixels <= 0 {
		return DefaultMaxPixels
	}
	return min(o.MaxPixels, math.MaxInt64/16) // 8 bytes per pixel must not overflow
}

// MaxBytes returns the size in bytes that a file is read up to: 8 for each of
// MaxPixels, as a 16-bit RGBA pixel has, and 64 MiB for metadata.
func (o *Options) MaxBytes() int64 {
	return 8*o.maxPixels() + maxMetadata
}

// Decode decodes an image file's bytes. The errors say what is wrong with the
// file and what to do about it, in one line.
func Decode(data []byte, opt *Options) (*Image, error) {
	im, err := decode(data, opt)
	if err != nil {
		return nil, fmt.Errorf("imagefile: %w", err)
	}
	return im, nil
}

// DecodeFile is Decode of the file at path, which its errors name.
func DecodeFile(path string, opt *Options) (*Image, error) {
	data, err := readFile(path, opt)
	if err != nil {
		return nil, fmt.Errorf("imagefile: %w", err) // names the path already
	}
	im, err := decode(data, opt)
	if err != nil {
		return nil, fmt.Errorf("imagefile: %s: %w", path, err)
	}
	return im, nil
}

// DecodeGray decodes an image file's bytes, a mask for one, into one channel:
// pix holds h*w bytes, row-major. A grey file keeps its values (1-bit ones
// become 0 and 255); colour and palettes become Pillow's convert("L"),
// (19595 R + 38470 G + 7471 B + 32768) >> 16.
func DecodeGray(data []byte, opt *Options) (w, h int, pix []uint8, err error) {
	im, err := Decode(data, opt)
	if err != nil {
		return 0, 0, nil, err
	}
	return im.W, im.H, im.luma(), nil
}

// DecodeGrayFile is DecodeGray of the file at path, which its errors name.
func DecodeGrayFile(path string, opt *Options) (w, h int, pix []uint8, err error) {
	im, err := DecodeFile(path, opt)
	if err != nil {
		return 0, 0, nil, err
	}
	return im.W, im.H, im.luma(), nil
}

// IsImage reports whether name ends, in any case, in one of .png .jpg .jpeg
// .bmp .tif .tiff .webp.
func IsImage(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp":
		return true
	}
	return false
}

// readFile reads a file of at most opt.MaxBytes. Pipes and devices, whose size
// is not known, are cut off there.
func readFile(path string, opt *Options) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s: is a directory, name the image files in it", path)
	}
	limit := opt.MaxBytes()
	if info.Size() > limit {
		return nil, fmt.Errorf("%s: file of %d bytes, %d pixels need at most %d: raise --max-pixels to accept it",
			path, info.Size(), opt.maxPixels(), limit)
	}
	var buf bytes.Buffer
	buf.Grow(int(info.Size()) + bytes.MinRead) // MinRead spares a copy at the end
	_, err = buf.ReadFrom(io.LimitReader(f, limit))
	return buf.Bytes(), err
}

// codec decodes one format.
type codec struct {
	name  string
	magic string // the file's first bytes, ? standing for any byte

	size        func(data []byte) (w, h int, err error) // from the header alone
	pixels      func(data []byte) (*Image, error)       // as stored
	orientation func(data []byte) int                   // of a file that pixels accepted; 0 if it has none
}

func upright([]byte) int { return 0 }

var codecs = []codec{
	{"PNG", "\x89PNG\r\n\x1a\n", sizeBy(png.DecodeConfig), pngPixels, pngOrientation},
	{"JPEG", "\xff\xd8\xff", jpegSize, jpegPixels, jpegOrientation},
	{"BMP", "BM", sizeBy(bmp.DecodeConfig), pixelsBy(bmp.Decode), upright},
	{"TIFF", "II*\x00", sizeBy(tiff.DecodeConfig), tiffPixels, tagOrientation},
	{"TIFF", "MM\x00*", sizeBy(tiff.DecodeConfig), tiffPixels, tagOrientation},
	{"WebP", "RIFF????WEBP", webpSize, pixelsBy(webp.Decode), upright},
}

func (c *codec) matches(data []byte) bool {
	if len(data) < len(c.magic) {
		return false
	}
	for i := range len(c.magic) {
		if c.magic[i] != '?' && c.magic[i] != data[i] {
			return false
		}
	}
	return true
}

func decode(data []byte, opt *Options) (*Image, error) {
	c, err := find(data)
	if err != nil {
		return nil, err
	}
	return c.decode(data, opt)
}

// find recognises the format.
func find(data []byte) (*codec, error) {
	if len(data) == 0 {
		return nil, errors.New("empty file (0 bytes), copy it again")
	}
	for i := range codecs {
		if codecs[i].matches(data) {
			return &codecs[i], nil
		}
	}
	return nil, fmt.Errorf("not an image: starts with %q, give a PNG, JPEG, BMP, TIFF or WebP file", data[:min(12, len(data))])
}

func (c *codec) decode(data []byte, opt *Options) (im *Image, err error) {
	defer c.recovered(&err)
	if _, _, err := c.bounds(data, opt); err != nil {
		return nil, err
	}
	im, err = c.pixels(data)
	if err != nil {
		return nil, c.explain(err)
	}
	return im.orient(c.orientation(data)), nil
}

// bounds reads the size from the header and checks it.
func (c *codec) bounds(data []byte, opt *Options) (w, h int, err error) {
	defer c.recovered(&err)
	w, h, err = c.size(data)
	switch {
	case err != nil:
		return 0, 0, c.explain(err)
	case w < 1 || h < 1:
		return 0, 0, fmt.Errorf("damaged %s file, save it again: it says it has %d x %d pixels", c.name, w, h)
	}
	if limit := opt.maxPixels(); int64(w) > limit/int64(h) {
		return 0, 0, fmt.Errorf("%s file of %d x %d pixels, the limit is %d pixels: raise --max-pixels to accept it", c.name, w, h, limit)
	}
	return w, h, nil
}

// recovered turns a decoder's panic into an error.
func (c *codec) recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("damaged %s file, save it again: its decoder panicked: %v", c.name, r)
	}
}

// explain says what a decoder's error means for the file.
func (c *codec) explain(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("truncated %s file, copy it again: %w", c.name, err)
	}
	return fmt.Errorf("damaged or unsupported %s file, copy it again or save it as 8-bit PNG: %w", c.name, err)
}

func sizeBy(config func(io.Reader) (image.Config, error)) func([]byte) (int, int, error) {
	return func(data []byte) (w, h int, err error) {
		c, err := config(bytes.NewReader(data))
		return c.Width, c.Height, err
	}
}

func pixelsBy(decode func(io.Reader) (image.Image, error)) func([]byte) (*Image, error) {
	return func(data []byte) (*Image, error) {
		m, err := decode(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		return pack(m), nil
	}
}

// tiffPixels is pixelsBy(tiff.Decode) with two corrections.
func tiffPixels(data []byte) (*Image, error) {
	m, err := tiff.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *image.Gray:
		const compression, group3, group4 = 0x103, 3, 4
		const photometric, blackIsZero = 0x106, 1
		// The decoder shows fax data black for white unless white is zero.
		if c := tiffTag(data, compression); (c == group3 || c == group4) && tiffTag(data, photometric) == blackIsZero {
			for i := range m.Pix {
				m.Pix[i] = ^m.Pix[i]
			}
		}
	case *image.RGBA64: // libtiff rounds colour to 8 bits, but truncates grey
		round16(m.Pix)
	case *image.NRGBA64:
		round16(m.Pix)
	}
	return pack(m), nil
}
