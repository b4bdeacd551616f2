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
//     Options.BitDepth is for cameras that use fewer of the 16 bits.
//   - EXIF orientation 1 to 8 is applied to JPEG (APP1), PNG (eXIf) and WebP
//     (EXIF), the Orientation tag to TIFF. OpenCV 4.6 ignores WebP's.
//   - Of a file with several pages the first is read, and Image.Pages counts
//     them. Animated WebP is refused.
//   - TIFF and BigTIFF are libtiff's: grey of 1, 2, 4, 8, 10, 12, 14 or 16 bits,
//     RGB of the same, palettes, CMYK, YCbCr and L*a*b* of 8; in strips, tiles
//     or planes; uncompressed or by LZW, Deflate, PackBits, fax, JPEG or zstd.
//     OpenCV refuses some of these, and reads others wrong: 16-bit grey and
//     extra samples in tiles, and grey with extra samples in planes.
//   - BMPs of 16 bits and of 32 with masks follow their masks, as Pillow does
//     and OpenCV does for some. Five bits v become v << 3, as in OpenCV. Run
//     lengths follow Windows: OpenCV misplaces rows after some skips.
//
// What would be guessed is refused, with the reason: TIFF of floating-point or
// signed values, without PhotometricInterpretation, or of grey with more than
// two samples per pixel.
//
// DecodeMask reads a mask's samples as stored instead, of GIF too, and SizeFile a file's
// header alone; EncodeHeatmap marks a picture as none of a camera.
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
	"image/gif"
	"io"
	"math"
	"path/filepath"
	"strings"

	"golang.org/x/image/webp"

	"rdpp/rdpp/regular"
	"rdpp/rdpp/setting"
)

// DefaultMaxPixels is the largest W*H accepted unless Options say otherwise.
const DefaultMaxPixels = 100_000_000

// maxMetadata bounds what a file may hold beside its pixels, in bytes.
const maxMetadata = 64 << 20

// Image is an 8-bit RGB picture: Pix holds H*W*3 bytes, row-major, R G B.
type Image struct {
	W, H   int // pixels
	Pix    []uint8
	Stored Stored // what the file's samples were

	// Pages is how many pictures the file holds, as a multi-page TIFF does, of
	// which this is the first; 0 for a picture that is not from a file.
	Pages int

	Heatmap bool // EncodeHeatmap drew it: it is no photograph
}

// Options bound what is decoded; nil means the defaults.
type Options struct {
	// MaxPixels is the largest W*H accepted, in pixels; 0 means
	// DefaultMaxPixels. It is checked from the header, before memory for the
	// pixels is allocated. Decoding takes up to 24 bytes per pixel at once (a
	// TIFF of 16-bit RGBA in one tile by zstd; 15 for a progressive CMYK JPEG, 6
	// for an RGB PNG that does not compress, 3 for a JPEG); see Cost.
	MaxPixels int64
	// BitDepth is how many bits the samples of files of 16 bits use: a camera
	// of 12 bits leaves values of 0 to 4095 there. They are spread over the
	// whole range before they become 8-bit ones, so that the largest, and what
	// is above it, becomes 255. 8 to 16; 0 and all others mean 16. Files of 8
	// bits are not changed.
	BitDepth int
}

func (o *Options) maxPixels() int64 {
	if o == nil || o.MaxPixels <= 0 {
		return DefaultMaxPixels
	}
	return min(o.MaxPixels, math.MaxInt64/16) // 8 bytes per pixel must not overflow
}

func (o *Options) bitDepth() int {
	if o == nil || o.BitDepth < 8 || o.BitDepth > 16 {
		return 16
	}
	return o.BitDepth
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

// DecodeFile is Decode of the file at path, which its errors name. What is no
// regular file, such as a pipe or a device, is an error: reading it may never
// end.
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

// IsImage reports whether name ends, in any case, in one of .png .jpg .jpeg
// .jpe .jfif .jif .jfi .pjpeg .pjp .bmp .dib .tif .tiff .webp.
func IsImage(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".bmp", ".dib", ".tif", ".tiff", ".webp":
		return true
	}
	return false
}

// IsMask reports whether name ends as IsImage says, or in .gif: DecodeMask reads
// those too.
func IsMask(name string) bool {
	return IsImage(name) || strings.EqualFold(filepath.Ext(name), ".gif")
}

// SizeFile returns the size in pixels of the image in the file at path, upright
// as DecodeFile gives it, by the file's header alone. Its errors name the path.
func SizeFile(path string, opt *Options) (w, h int, err error) {
	data, err := readFile(path, opt)
	if err != nil {
		return 0, 0, fmt.Errorf("imagefile: %w", err) // names the path already
	}
	c, err := find(data)
	if err == nil {
		w, h, err = c.upright(data, opt)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("imagefile: %s: %w", path, err)
	}
	return w, h, nil
}

// readFile reads a regular file of at most opt.MaxBytes.
func readFile(path string, opt *Options) ([]byte, error) {
	f, err := regular.Open(path)
	switch {
	case errors.Is(err, regular.ErrFolder):
		return nil, fmt.Errorf("%w, name the image files in it", err)
	case errors.Is(err, regular.ErrKind):
		return nil, fmt.Errorf("%w: remove it from among the images", err)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	limit := opt.MaxBytes()
	if info.Size() > limit {
		return nil, setting.Advise(fmt.Errorf("%s: file of %d bytes, %d pixels need at most %d",
			path, info.Size(), opt.maxPixels(), limit), "raise {max_pixels} to accept it")
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

	size        func(data []byte) (w, h int, err error)      // from the header alone
	pixels      func(data []byte, depth int) (*Image, error) // as stored, samples of 16 bits by Options.BitDepth
	orientation func(data []byte) int                        // of a file that pixels accepted; 0 if it has none
	pages       func(data []byte) int                        // of a file that has a size
}

func unturned([]byte) int { return 0 }

func onePage([]byte) int { return 1 }

var codecs = []codec{
	{"PNG", "\x89PNG\r\n\x1a\n", pngSize, pngPixels, pngOrientation, pngPages},
	{"JPEG", "\xff\xd8\xff", jpegSize, jpegPixels, jpegOrientation, onePage},
	{"BMP", "BM", bmpSize, bmpPixels, unturned, onePage},
	{"TIFF", "II*\x00", tiffSize, tiffPixels, tiffOrientation, tiffPages},
	{"TIFF", "MM\x00*", tiffSize, tiffPixels, tiffOrientation, tiffPages},
	{"TIFF", "II+\x00", tiffSize, tiffPixels, tiffOrientation, tiffPages}, // BigTIFF
	{"TIFF", "MM\x00+", tiffSize, tiffPixels, tiffOrientation, tiffPages},
	{"WebP", "RIFF????WEBP", webpSize, pixelsBy(webp.Decode), webpOrientation, onePage},
	{"GIF", "GIF8?a", sizeBy(gif.DecodeConfig), gifPixels, unturned, gifPages},
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
	return nil, unknown(data)
}

func (c *codec) decode(data []byte, opt *Options) (im *Image, err error) {
	defer c.recovered(&err)
	if _, _, err := c.bounds(data, opt); err != nil {
		return nil, err
	}
	im, err = c.pixels(data, opt.bitDepth())
	if err != nil {
		return nil, c.explain(err)
	}
	stored := im.Stored
	if stored.Bits == 0 {
		stored.Bits = 8
	}
	im = im.orient(c.orientation(data))
	im.Stored, im.Pages, im.Heatmap = stored, c.pages(data), isHeatmap(data)
	return im, nil
}

// unsupported says what a sound file has that is not read.
type unsupported string

func (u unsupported) Error() string { return string(u) }

// upright returns the size of the picture turned as its orientation says.
func (c *codec) upright(data []byte, opt *Options) (w, h int, err error) {
	defer c.recovered(&err) // of its orientation
	w, h, err = c.bounds(data, opt)
	if err == nil && sideways(c.orientation(data)) {
		w, h = h, w
	}
	return w, h, err
}

// pictures counts the pictures in a file of a size that is accepted.
func (c *codec) pictures(data []byte, opt *Options) (n int, err error) {
	defer c.recovered(&err)
	if _, _, err := c.bounds(data, opt); err != nil {
		return 0, err
	}
	return c.pages(data), nil
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
		return 0, 0, setting.Advise(fmt.Errorf("%s file of %d x %d pixels, the limit is %d pixels", c.name, w, h, limit), "raise {max_pixels} to accept it")
	}
	return w, h, nil
}

// ErrPanic is wrapped by the error about a file whose decoder panicked: a fault of the decoder, whatever the file.
var ErrPanic = errors.New("panicked")

// recovered turns a decoder's panic into an error.
func (c *codec) recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("damaged %s file, save it again: its decoder %w: %v", c.name, ErrPanic, r)
	}
}

// explain says what a decoder's error means for the file.
func (c *codec) explain(err error) error {
	if u := unsupported(""); errors.As(err, &u) {
		return fmt.Errorf("%s file %w, which is not read: save it as PNG", c.name, err)
	}
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

func pixelsBy(decode func(io.Reader) (image.Image, error)) func([]byte, int) (*Image, error) {
	return func(data []byte, depth int) (*Image, error) {
		m, err := decode(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		return pack(m, narrowing{depth: depth}), nil
	}
}
