package imagefile

// #cgo !codecs_shared LDFLAGS: -l:libtiff.a -l:libturbojpeg.a -l:libzstd.a -l:libdeflate.a -l:libz.a -lm
// #cgo codecs_shared LDFLAGS: -ltiff
// #include "tiffread.h"
import "C"

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"rdpp/rdpp/printable"
)

// TIFF goes through libtiff, the decoder under OpenCV and Pillow.

// Values of tags (TIFF 6.0; zstd is libtiff's own).
const (
	tiffWhiteIsZero = 0
	tiffBlackIsZero = 1
	tiffRGB         = 2
	tiffPalette     = 3
	tiffSeparated   = 5
	tiffYCbCr       = 6
	tiffLab         = 8

	tiffJPEG       = 7
	tiffAlignedFax = 32771
	tiffZstd       = 50000

	tiffUnsigned = 1
	tiffUntyped  = 4

	tiffSeparatePlanes = 2
)

// maxTIFFSamples bounds the samples of a pixel, as a row of them is read at
// once.
const maxTIFFSamples = 8

// tiffCompressions are the ones that are read. LERC, WebP, LZMA and JBIG would
// be four more libraries, of which LZMA allocates what a file asks for.
var tiffCompressions = map[C.uint16_t]bool{
	1: true, 2: true, 3: true, 4: true, 5: true, tiffJPEG: true, 8: true, tiffAlignedFax: true, 32773: true, 32946: true, tiffZstd: true,
}

var tiffCompressionNames = map[C.uint16_t]string{
	6: "old-style JPEG", 34661: "JBIG", 34676: "SGILog", 34677: "SGILog", 34712: "JPEG 2000", 34887: "LERC",
	34925: "LZMA", 50001: "WebP", 50002: "JPEG XL", 32766: "NeXT", 32809: "ThunderScan", 32908: "PixarFilm", 32909: "PixarLog",
}

var tiffPhotometricNames = map[C.uint16_t]string{
	4: "a transparency mask", 9: "ICC L*a*b* colour", 10: "ITU L*a*b* colour", 32803: "a sensor's raw data (CFA)",
	32844: "LogL brightness", 32845: "LogLuv colour", 34892: "raw data (LinearRaw)",
}

// tiffFile is what libtiff reads from while the function that gets it runs.
type tiffFile struct {
	source C.rdpp_tiff_source
	header C.rdpp_tiff_header

	saysPalette bool
	lacksBits   bool   // BitsPerSample
	lacksCounts bool   // StripByteCounts or TileByteCounts
	places      uint64 // how many strips or tiles it says the places of
	pinned      runtime.Pinner
}

// tiffLimits are libtiff's words about sound files that it does not read, and
// what is meant by them.
var tiffLimits = []struct{ words, meaning string }{
	{"Cannot handle different", "whose samples differ in their bits or their kind"},
	{"can not handle separated image", "of other inks than CMYK"},
	{"Floating point \"Predictor\"", "with a predictor of floating-point values for others"},
	{"Invalid strip byte count 0", "that says that a strip has no bytes"},
	{"Invalid tile byte count", "that says that a tile has no bytes"},
}

// maxTIFFOpening is the most bytes that libtiff may allocate at once while it
// opens a file: the places of 2 million strips or tiles.
const maxTIFFOpening = 16 << 20

// openTIFF reads a file's header. The caller closes it.
func openTIFF(data []byte) (*tiffFile, error) {
	data = tidyTags(data)
	f := &tiffFile{saysPalette: saysPalette(data)}
	f.countTags(data)
	f.pinned.Pin(&data[0])
	f.source.data, f.source.size = (*C.uint8_t)(&data[0]), C.size_t(len(data))
	f.source.limit = maxTIFFOpening
	if C.rdpp_tiff_read_header(&f.source, &f.header) == 0 {
		defer f.close()
		return nil, f.failure()
	}
	return f, nil
}

// tiffEntries returns the entries of a file's first directory, which begin with
// their tag and type, and where in them the value is; none where they are not
// in the file.
func tiffEntries(data []byte) (order binary.ByteOrder, entries [][]byte, value int) {
	order, value = binary.LittleEndian, 8
	if len(data) < 8 {
		return order, nil, value
	}
	if data[0] == 'M' {
		order = binary.BigEndian
	}
	var start, count uint64
	size := 12
	if len(data) >= 16 && order.Uint16(data[2:]) == 43 { // BigTIFF
		size, value = 20, 12
		if start = order.Uint64(data[8:]); start < uint64(len(data)-8) {
			count = order.Uint64(data[start:])
			start += 8
		}
	} else if start = uint64(order.Uint32(data[4:])); start+2 < uint64(len(data)) {
		count = uint64(order.Uint16(data[start:]))
		start += 2
	}
	if count == 0 || count > (uint64(len(data))-start)/uint64(size) {
		return order, nil, value
	}
	return order, slices.Collect(slices.Chunk(data[start:][:int(count)*size], size)), value
}

// tidyTags returns data, or a copy in which the first directory is as libtiff
// needs it: its tags are in order, or a ColorMap that comes before BitsPerSample
// would be left out, and what pixels do not depend on is short. libtiff copies
// the values of every tag, also of thousands that have the same ones.
func tidyTags(data []byte) []byte {
	order, entries, value := tiffEntries(data)
	byTag := func(a, b []byte) int { return int(order.Uint16(a)) - int(order.Uint16(b)) }
	long := func(e []byte) bool { return !tiffLongTags[order.Uint16(e)] && !shortValue(order, e[:value]) }
	if slices.IsSortedFunc(entries, byTag) && !slices.ContainsFunc(entries, long) {
		return data
	}
	data = bytes.Clone(data)
	_, places, _ := tiffEntries(data)
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, byTag)
	for i, e := range entries {
		copy(places[i], e)
		if long(e) { // becomes one byte
			order.PutUint16(places[i][2:], tiffByte)
			clear(places[i][4:value])
			if value == 8 {
				order.PutUint32(places[i][4:], 1)
			} else {
				order.PutUint64(places[i][4:], 1)
			}
		}
	}
	return data
}

// tiffLongTags are those whose values may be long: places and sizes of strips and
// tiles, colours, and the tables of JPEG data.
var tiffLongTags = map[uint16]bool{273: true, 279: true, 320: true, 324: true, 325: true, 347: true}

const (
	tiffByte      = 1
	maxTIFFValues = 1024 // of any other tag
)

// shortValue says whether an entry, whose tag, type and count head is, has few
// values.
func shortValue(order binary.ByteOrder, head []byte) bool {
	if len(head) == 12 {
		return order.Uint64(head[4:]) <= maxTIFFValues
	}
	return order.Uint32(head[4:]) <= maxTIFFValues
}

// saysPalette says whether a file's PhotometricInterpretation is the palette's,
// which libtiff changes to grey where there are no colours.
func saysPalette(data []byte) bool {
	order, entries, value := tiffEntries(data)
	for _, e := range entries {
		const photometric, short, long = 262, 3, 4
		if order.Uint16(e) != photometric {
			continue
		}
		switch order.Uint16(e[2:]) {
		case short:
			return order.Uint16(e[value:]) == tiffPalette
		case long:
			return order.Uint32(e[value:]) == tiffPalette
		}
	}
	return false
}

// countTags says which of some tags a file has.
func (f *tiffFile) countTags(data []byte) {
	const bits, stripPlaces, stripCounts, tilePlaces, tileCounts = 258, 273, 279, 324, 325
	order, entries, value := tiffEntries(data)
	f.lacksBits, f.lacksCounts = len(entries) > 0, len(entries) > 0
	for _, e := range entries {
		switch order.Uint16(e) {
		case bits:
			f.lacksBits = false
		case stripCounts, tileCounts:
			f.lacksCounts = false
		case stripPlaces, tilePlaces:
			n := uint64(order.Uint32(e[4:]))
			if value == 12 { // BigTIFF
				n = order.Uint64(e[4:])
			}
			f.places = max(f.places, n)
		}
	}
}

// blocks is how many strips or tiles the picture takes.
func (f *tiffFile) blocks() uint64 {
	h := &f.header
	if h.block_width == 0 || h.block_height == 0 {
		return 0
	}
	n := (uint64(h.width) + uint64(h.block_width) - 1) / uint64(h.block_width) * ((uint64(h.height) + uint64(h.block_height) - 1) / uint64(h.block_height))
	if h.planar == tiffSeparatePlanes {
		n *= uint64(h.samples)
	}
	return n
}

func (f *tiffFile) close() { f.pinned.Unpin() }

// err is what libtiff said.
func (f *tiffFile) err() error {
	msg := C.GoString(&f.source.error[0])
	if msg == "" {
		msg = C.GoString(&f.source.warning[0])
	}
	if msg == "" {
		return errors.New("libtiff cannot read it")
	}
	msg = printable.Text(msg)
	for _, end := range []string{"Cannot read TIFF header", "Can not read TIFF directory", "Read error", "IO error", "Not enough data", "Premature E", "premature end"} {
		if strings.Contains(strings.ToLower(msg), strings.ToLower(end)) {
			return fmt.Errorf("%s: %w", msg, io.ErrUnexpectedEOF)
		}
	}
	return errors.New(msg)
}

// tiffSize reads a TIFF's size in pixels, as it is stored.
func tiffSize(data []byte) (w, h int, err error) {
	f, err := openTIFF(data)
	if err != nil {
		return 0, 0, err
	}
	defer f.close()
	return int(f.header.width), int(f.header.height), nil
}

// tiffOrientation reads a TIFF's orientation, 1 if it has none.
func tiffOrientation(data []byte) int {
	f, err := openTIFF(data)
	if err != nil {
		return 0
	}
	defer f.close()
	return int(f.header.orientation)
}

// tiffPages counts a TIFF's pages, at least 1.
func tiffPages(data []byte) int {
	f, err := openTIFF(data)
	if err != nil {
		return 1
	}
	defer f.close()
	return int(C.rdpp_tiff_pages(&f.source))
}

// tiffPixels decodes a TIFF's first page.
func tiffPixels(data []byte, depth int) (*Image, error) {
	f, err := openTIFF(data)
	if err != nil {
		return nil, err
	}
	defer f.close()
	m, err := f.decode(false)
	if err != nil {
		return nil, err
	}
	n := narrowing{depth: depth}
	if f.header.bits < 16 { // 10 to 14, which fill the range
		n.depth = 16
	}
	switch m.(type) {
	case *image.Gray16:
		n.invert = f.header.photometric == tiffWhiteIsZero
	case *image.NRGBA64: // libtiff rounds colour to 8 bits, but truncates grey
		n.round = true
	}
	im := pack(m, n)
	if f.header.bits < 16 {
		im.Stored = Stored{}
	}
	return im.withHint(tiffHint(data)), nil
}

// decodeTIFF is decode of a whole file, with all alpha or none.
func decodeTIFF(data []byte) (image.Image, error) {
	f, err := openTIFF(data)
	if err != nil {
		return nil, err
	}
	defer f.close()
	return f.decode(true)
}

// decode decodes a TIFF's first page as its samples are stored, not
// turned: into Gray, Gray16, NRGBA, NRGBA64 or, with the file's own indexes,
// Paletted. Samples of fewer bits than 8 or 16 fill the range of those. Alpha
// that the colour was multiplied by is kept like any other; that of grey of more
// than 8 bits where deepAlpha says so, as NRGBA64 takes four times the memory.
// With it, what has alpha that is not decoded is refused.
func (f *tiffFile) decode(deepAlpha bool) (image.Image, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	h := &f.header
	size := image.Rect(0, 0, int(h.width), int(h.height))
	f.source.limit = 4*f.source.size + maxMetadata + C.size_t(8*size.Dx()*size.Dy())
	if uint64(h.tile) > uint64(f.source.limit) {
		return nil, fmt.Errorf("a tile of %d bytes is larger than the picture", h.tile)
	}
	alpha := h.extra_samples > 0 && (h.first_extra == 1 || h.first_extra == 2)
	if deepAlpha && alpha && h.photometric > tiffRGB {
		return nil, unsupported(fmt.Sprintf("of a mask with alpha and PhotometricInterpretation %d (neither grey nor RGB)", h.photometric))
	}
	switch h.photometric {
	case tiffWhiteIsZero, tiffBlackIsZero:
		alpha = alpha && h.samples-h.extra_samples == 1
		switch {
		case h.bits > 8 && alpha && deepAlpha:
			return f.deepGreyAlpha(size)
		case h.bits > 8:
			m := image.NewGray16(size)
			return m, f.samples(m.Pix, m.Stride, 2, 1)
		case alpha:
			return f.greyAlpha(size)
		}
		m := image.NewGray(size)
		return m, f.samples(m.Pix, m.Stride, 1, 1)
	case tiffPalette:
		return f.paletted(size)
	case tiffRGB:
		take := 3
		if alpha && h.samples-h.extra_samples == 3 {
			take = 4
		}
		return f.colour(size, take)
	case tiffYCbCr:
		if h.compression == tiffJPEG && h.planar != tiffSeparatePlanes {
			return f.colour(size, 3)
		}
	}
	m := image.NewNRGBA(size)
	return m, f.read(m.Pix, func(pix *C.uint8_t) C.int { return C.rdpp_tiff_read_rgba(&f.source, pix) })
}

// check refuses what would not be read as it is meant.
func (f *tiffFile) check() error {
	h := &f.header
	bits := map[C.uint16_t]bool{8: true}
	switch h.photometric {
	case tiffWhiteIsZero, tiffBlackIsZero, tiffRGB:
		bits = map[C.uint16_t]bool{1: true, 2: true, 4: true, 8: true, 10: true, 12: true, 14: true, 16: true}
	case tiffPalette:
		bits = map[C.uint16_t]bool{1: true, 2: true, 4: true, 8: true}
	}
	if n := f.blocks(); f.places < n {
		return fmt.Errorf("it says where %d of its %d strips or tiles are", f.places, n)
	}
	colours := C.uint16_t(1)
	switch h.photometric {
	case tiffRGB, tiffYCbCr, tiffLab:
		colours = 3
	case tiffSeparated:
		colours = 4
	}
	name := tiffPhotometricNames[h.photometric]
	switch {
	case h.has_photometric == 0:
		return unsupported("that does not say what its values mean (no PhotometricInterpretation)")
	case f.lacksBits && h.photometric > tiffBlackIsZero: // by default one, which nobody means
		return unsupported("that does not say how many bits its samples have (no BitsPerSample)")
	case f.saysPalette && h.photometric != tiffPalette:
		return unsupported("with a palette that has no colours (no ColorMap)")
	case !tiffCompressions[h.compression] || h.decodable == 0:
		return unsupported(fmt.Sprintf("with compression %d (%s)", h.compression, known(tiffCompressionNames[h.compression])))
	case h.photometric != tiffLab && (h.photometric > tiffYCbCr || name != ""):
		return unsupported(fmt.Sprintf("with PhotometricInterpretation %d (%s)", h.photometric, known(name)))
	case h.sample_format == 3 || h.sample_format == 6:
		return unsupported("with floating-point values")
	case h.sample_format != tiffUnsigned && h.sample_format != tiffUntyped:
		return unsupported("with signed values")
	case !bits[h.bits]:
		return unsupported(fmt.Sprintf("with %d bits per sample", h.bits))
	case h.samples < colours:
		return unsupported(fmt.Sprintf("with %d samples per pixel where its colours need %d", h.samples, colours))
	case colours == 1 && h.samples > 2: // colour, perhaps, that says it is grey
		return unsupported(fmt.Sprintf("of grey or palette with %d samples per pixel", h.samples))
	case h.samples > maxTIFFSamples:
		return unsupported(fmt.Sprintf("with %d samples per pixel, at most %d are read", h.samples, maxTIFFSamples))
	}
	return nil
}

func known(name string) string {
	if name == "" {
		return "unknown"
	}
	return name
}

// read passes pix to C, whose answer becomes an error.
func (f *tiffFile) read(pix []uint8, c func(*C.uint8_t) C.int) error {
	f.pinned.Pin(&pix[0])
	if c((*C.uint8_t)(unsafe.Pointer(&pix[0]))) != 0 {
		return nil
	}
	return f.failure()
}

// failure is err, where the file is sound as what it has that libtiff cannot
// read.
func (f *tiffFile) failure() error {
	err := f.err()
	switch {
	case f.header.compression == tiffAlignedFax: // libtiff takes the end of short rows for elsewhere
		return unsupported(fmt.Sprintf("with compression %d (fax in rows of whole words), of which libtiff cannot read this one (%v)", tiffAlignedFax, err))
	case f.lacksCounts: // and libtiff guesses too few bytes for some subsampled colour, and none for several strips
		return unsupported(fmt.Sprintf("that does not say how long its strips are (no StripByteCounts; %v)", err))
	}
	for _, limit := range tiffLimits {
		if strings.Contains(err.Error(), limit.words) {
			return unsupported(fmt.Sprintf("%s (%v)", limit.meaning, err))
		}
	}
	if limit := unsupported(""); f.header.compression == tiffJPEG && errors.As(jpegLimit(err.Error()), &limit) {
		return "with a JPEG " + limit
	}
	return err
}

// samples reads the first take samples of every pixel into pix, of whose
// pixels each has pixel bytes.
func (f *tiffFile) samples(pix []uint8, stride, pixel, take int) error {
	h := &f.header
	t := C.rdpp_tiff_target{stride: C.size_t(stride), pixel: C.size_t(pixel), take: C.int(take), bytes: 1, scale: 1}
	switch {
	case h.bits > 8:
		t.bytes, t.scale = 2, 1<<(16-h.bits)
	case h.photometric != tiffPalette:
		t.scale = 255 / (1<<h.bits - 1)
	}
	if h.photometric == tiffWhiteIsZero {
		t.invert = 1
	}
	return f.read(pix, func(first *C.uint8_t) C.int {
		t.pix = first
		return C.rdpp_tiff_read_samples(&f.source, &t)
	})
}

// colour reads R, G, B and, where take is 4, alpha.
func (f *tiffFile) colour(size image.Rectangle, take int) (image.Image, error) {
	if f.header.bits > 8 {
		m := image.NewNRGBA64(size)
		fillOpaque(m.Pix, 8, 2)
		return m, f.samples(m.Pix, m.Stride, 8, take)
	}
	m := image.NewNRGBA(size)
	fillOpaque(m.Pix, 4, 1)
	return m, f.samples(m.Pix, m.Stride, 4, take)
}

// greyAlpha reads 8-bit grey and alpha as R = G = B and alpha.
func (f *tiffFile) greyAlpha(size image.Rectangle) (image.Image, error) {
	m := image.NewNRGBA(size)
	err := f.samples(m.Pix, m.Stride, 4, 2)
	for p := m.Pix; len(p) >= 4; p = p[4:] {
		p[1], p[2], p[3] = p[0], p[0], p[1]
	}
	return m, err
}

// deepGreyAlpha is greyAlpha of more than 8 bits.
func (f *tiffFile) deepGreyAlpha(size image.Rectangle) (image.Image, error) {
	m := image.NewNRGBA64(size)
	err := f.samples(m.Pix, m.Stride, 8, 2)
	for p := m.Pix; len(p) >= 8; p = p[8:] {
		copy(p[6:8], p[2:4])
		copy(p[2:4], p[:2])
		copy(p[4:6], p[:2])
	}
	return m, err
}

// fillOpaque sets the last of the four samples of every pixel to its largest
// value.
func fillOpaque(pix []uint8, pixel, bytes int) {
	for i := pixel - bytes; i < len(pix); i += pixel {
		for b := range bytes {
			pix[i+b] = 255
		}
	}
}

func (f *tiffFile) paletted(size image.Rectangle) (image.Image, error) {
	var rgb [256 * 3]uint8
	if err := f.read(rgb[:], func(pix *C.uint8_t) C.int { return C.rdpp_tiff_read_palette(&f.source, pix) }); err != nil {
		return nil, err
	}
	palette := make(color.Palette, 1<<f.header.bits)
	for i := range palette {
		palette[i] = color.NRGBA{rgb[3*i], rgb[3*i+1], rgb[3*i+2], 255}
	}
	m := image.NewPaletted(size, palette)
	return m, f.samples(m.Pix, m.Stride, 1, 1)
}
