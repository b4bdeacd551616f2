package imagefile

import (
	"bytes"
	"encoding/binary"
	"image"
	"slices"
	"strings"
	"testing"
)

// tiffEntry is a tag of 16-bit values.
type tiffEntry struct {
	tag    uint16
	values []uint16
}

// tiffPagesOf makes a little-endian TIFF of pages, each a directory behind its
// pixels, which are one strip.
func tiffPagesOf(pixels []byte, pages ...[]tiffEntry) []byte {
	data := []byte("II*\x00\x00\x00\x00\x00")
	link := 4 // where the next directory's place is written
	for _, page := range pages {
		strip := len(data)
		data = append(data, pixels...)
		var values []byte
		at := len(data)
		page = append(slices.Clone(page), tiffEntry{0x111, []uint16{uint16(strip)}}, tiffEntry{0x117, []uint16{uint16(len(pixels))}})
		slices.SortStableFunc(page, func(a, b tiffEntry) int { return int(a.tag) - int(b.tag) })
		directory := binary.LittleEndian.AppendUint16(nil, uint16(len(page)))
		for _, e := range page {
			directory = binary.LittleEndian.AppendUint16(directory, e.tag)
			directory = binary.LittleEndian.AppendUint16(directory, 3)
			directory = binary.LittleEndian.AppendUint32(directory, uint32(len(e.values)))
			var body []byte
			for _, v := range e.values {
				body = binary.LittleEndian.AppendUint16(body, v)
			}
			if len(body) > 4 {
				directory = binary.LittleEndian.AppendUint32(directory, uint32(at+len(values)))
				values = append(values, body...)
			} else {
				directory = append(directory, append(body, 0, 0, 0, 0)[:4]...)
			}
		}
		data = append(data, values...)
		binary.LittleEndian.PutUint32(data[link:], uint32(len(data)))
		data = append(data, directory...)
		link = len(data)
		data = append(data, 0, 0, 0, 0)
	}
	return data
}

func tiffGrey(bits uint16, more ...tiffEntry) []tiffEntry {
	page := []tiffEntry{{0x100, []uint16{2}}, {0x101, []uint16{1}}, {0x102, []uint16{bits}}, {0x106, []uint16{1}}}
	for _, e := range more {
		page = slices.DeleteFunc(page, func(old tiffEntry) bool { return old.tag == e.tag })
		if e.values != nil {
			page = append(page, e)
		}
	}
	return page
}

func TestTIFFRefusals(t *testing.T) {
	const bits, compression, photometric, samples, predictor, inks, format = 0x102, 0x103, 0x106, 0x115, 0x13d, 0x14c, 0x153
	for _, c := range []struct {
		name string
		page []tiffEntry
		want string
	}{
		{"no photometric", tiffGrey(8, tiffEntry{photometric, nil}), "does not say what its values mean"},
		{"no colours", tiffGrey(8, tiffEntry{photometric, []uint16{3}}), "with a palette that has no colours"},
		{"float", tiffGrey(32, tiffEntry{format, []uint16{3}}), "floating-point values"},
		{"half float", tiffGrey(16, tiffEntry{format, []uint16{3}}), "floating-point values"},
		{"complex", tiffGrey(32, tiffEntry{format, []uint16{6}}), "floating-point values"},
		{"signed", tiffGrey(16, tiffEntry{format, []uint16{2}}), "signed values"},
		{"32 bits", tiffGrey(32), "with 32 bits per sample"},
		{"3 bits", tiffGrey(3), "with 3 bits per sample"},
		{"grey of three samples", tiffGrey(8, tiffEntry{samples, []uint16{3}}), "of grey or palette with 3 samples per pixel"},
		{"RGB of one sample", tiffGrey(8, tiffEntry{photometric, []uint16{2}}), "with 1 samples per pixel where its colours need 3"},
		{"a mask", tiffGrey(8, tiffEntry{photometric, []uint16{4}}), "PhotometricInterpretation 4 (a transparency mask)"},
		{"a sensor's data", tiffGrey(16, tiffEntry{photometric, []uint16{32803}}), "(a sensor's raw data (CFA))"},
		{"LZMA", tiffGrey(8, tiffEntry{compression, []uint16{34925}}), "with compression 34925 (LZMA)"},
		{"WebP", tiffGrey(8, tiffEntry{compression, []uint16{50001}}), "with compression 50001 (WebP)"},
		{"LERC", tiffGrey(8, tiffEntry{compression, []uint16{34887}}), "with compression 34887 (LERC)"},
		{"JBIG", tiffGrey(1, tiffEntry{compression, []uint16{34661}}), "with compression 34661 (JBIG)"},
		{"old JPEG", tiffGrey(8, tiffEntry{compression, []uint16{6}}), "with compression 6 (old-style JPEG)"},
		{"RGB without its bits", tiffGrey(8, tiffEntry{bits, nil}, tiffEntry{photometric, []uint16{2}}, tiffEntry{samples, []uint16{3}}), "does not say how many bits its samples have"},
		{"5, 6 and 5 bits", tiffGrey(8, tiffEntry{bits, []uint16{5, 6, 5}}, tiffEntry{photometric, []uint16{2}}, tiffEntry{samples, []uint16{3}}), "whose samples differ"},
		{"signed and unsigned", tiffGrey(8, tiffEntry{bits, []uint16{8, 8, 8}}, tiffEntry{photometric, []uint16{2}}, tiffEntry{samples, []uint16{3}},
			tiffEntry{format, []uint16{1, 2, 1}}), "whose samples differ"},
		{"inks", tiffGrey(8, tiffEntry{bits, []uint16{8, 8, 8, 8}}, tiffEntry{photometric, []uint16{5}}, tiffEntry{samples, []uint16{4}}, tiffEntry{inks, []uint16{2}}),
			"of other inks than CMYK"},
		{"a predictor of floats", tiffGrey(8, tiffEntry{compression, []uint16{8}}, tiffEntry{predictor, []uint16{3}}), "with a predictor of floating-point values"},
		{"another compression", tiffGrey(8, tiffEntry{compression, []uint16{12345}}), "with compression 12345 (unknown)"},
	} {
		_, err := Decode(tiffPagesOf(make([]byte, 64), c.page), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasSuffix(err.Error(), "which is not read: save it as PNG") {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// What is said of a sound file that libtiff fails to read is not that it is damaged.
func TestTIFFWhatLibtiffCannotRead(t *testing.T) {
	// Rows of 01 and 10, in words of 16 bits: runs of white 1, black 1, and of white 0, black 1, white 1.
	fax := []byte{0b00011101, 0, 0b00110101, 0b01000011, 0b10000000, 0}
	narrow := tiffGrey(1, tiffEntry{0x101, []uint16{2}}, tiffEntry{0x103, []uint16{32771}}, tiffEntry{0x106, []uint16{0}})
	// 3 x 3 pixels of 2 x 2 chroma: four units of six bytes.
	chroma := tiffHead([2]uint32{0x100, 3}, [2]uint32{0x101, 3}, [2]uint32{0x102, 8}, [2]uint32{0x106, 6}, [2]uint32{0x111, 8 + 2 + 6*12 + 4},
		[2]uint32{0x115, 3})
	chroma = append(chroma, make([]byte, 24)...)
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"several strips without StripByteCounts", tiffRows([]uint16{8, 10}, nil), "TIFF file that does not say how long its strips are (no StripByteCounts"},
		{"strips of 0 bytes", tiffRows([]uint16{8, 10}, []uint16{0, 0}), "TIFF file that says that a strip has no bytes"},
		{"rows of whole words", tiffPagesOf(fax, narrow), "TIFF file with compression 32771 (fax in rows of whole words)"},
		{"no StripByteCounts", chroma, "TIFF file that does not say how long its strips are (no StripByteCounts"},
	} {
		_, err := Decode(c.data, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasSuffix(err.Error(), "which is not read: save it as PNG") {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// tiffRows is a TIFF of 2 x 2 pixels, 1 to 4, from byte 8 on, in a strip per row.
func tiffRows(places, counts []uint16) []byte {
	data := []byte("II*\x00\x0c\x00\x00\x00\x01\x02\x03\x04")
	tags := []tiffEntry{{0x100, []uint16{2}}, {0x101, []uint16{2}}, {0x102, []uint16{8}}, {0x106, []uint16{1}}, {0x111, places}, {0x116, []uint16{1}}, {0x117, counts}}
	tags = slices.DeleteFunc(tags, func(e tiffEntry) bool { return len(e.values) == 0 })
	data = append(data, byte(len(tags)), 0)
	for _, e := range tags {
		data = binary.LittleEndian.AppendUint16(data, e.tag)
		data = append(data, 3, 0, byte(len(e.values)), 0, 0, 0)
		for _, v := range append(slices.Clone(e.values), 0)[:2] {
			data = binary.LittleEndian.AppendUint16(data, v)
		}
	}
	return append(data, 0, 0, 0, 0)
}

// A strip whose place is not there is not read from the start of the file.
func TestTIFFPlaces(t *testing.T) {
	im, err := Decode(tiffRows([]uint16{8, 10}, []uint16{2, 2}), nil)
	if err != nil || !bytes.Equal(im.Pix, []byte{1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4}) {
		t.Errorf("all there: got %v, %v, want 1 to 4", im, err)
	}
	const want = "where 1 of its 2 strips or tiles are"
	if im, err := Decode(tiffRows([]uint16{8}, []uint16{2, 2}), nil); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("one missing: got %v, %v, want an error with %q", im, err, want)
	}
}

func TestTIFFPages(t *testing.T) {
	black, white := tiffGrey(8), tiffGrey(8, tiffEntry{0x106, []uint16{0}})
	for _, c := range []struct {
		pages [][]tiffEntry
		want  uint8 // the first page's pixel
	}{
		{[][]tiffEntry{black}, 10},
		{[][]tiffEntry{black, white}, 10},
		{[][]tiffEntry{white, black, black}, 245},
	} {
		im, err := Decode(tiffPagesOf([]byte{10, 20}, c.pages...), nil)
		if err != nil {
			t.Fatal(err)
		}
		if im.Pages != len(c.pages) || im.Pix[0] != c.want {
			t.Errorf("got %d pages and pixel %d, want %d and %d", im.Pages, im.Pix[0], len(c.pages), c.want)
		}
	}
	loop := tiffPagesOf([]byte{10, 20}, black, black)
	copy(loop[len(loop)-4:], loop[4:8]) // after the last page comes the first
	if im, err := Decode(loop, nil); err != nil || im.Pages != 2 {
		t.Errorf("pages in a circle: got %v, want 2 pages", err)
	}
	im, err := Decode(readFixture(t, "rgb8.png"), nil)
	if err != nil || im.Pages != 1 {
		t.Errorf("PNG: got %v, want 1 page", err)
	}
}

// What comes out of decodeTIFF is what is stored.
func TestDecodeTIFF(t *testing.T) {
	size := image.Rect(0, 0, 2, 1)
	rgb := func(bits uint16, more ...tiffEntry) []tiffEntry {
		n := 3
		for _, e := range more {
			n += len(e.values)
		}
		return tiffGrey(8, append(more, tiffEntry{0x102, slices.Repeat([]uint16{bits}, n)}, tiffEntry{0x106, []uint16{2}}, tiffEntry{0x115, []uint16{uint16(n)}})...)
	}
	alpha := tiffEntry{0x152, []uint16{2}}
	for _, c := range []struct {
		name   string
		page   []tiffEntry
		pixels []byte
		want   image.Image
	}{
		{"grey", tiffGrey(8), []byte{1, 2}, &image.Gray{Pix: []uint8{1, 2}, Stride: 2, Rect: size}},
		{"2 bits", tiffGrey(2), []byte{0b0110_0000}, &image.Gray{Pix: []uint8{85, 170}, Stride: 2, Rect: size}},
		{"12 bits", tiffGrey(12), []byte{0xfe, 0xd0, 0x01}, &image.Gray16{Pix: []uint8{0xfe, 0xd0, 0x00, 0x10}, Stride: 4, Rect: size}},
		{"16 bits", tiffGrey(16), []byte{1, 2, 3, 4}, &image.Gray16{Pix: []uint8{2, 1, 4, 3}, Stride: 4, Rect: size}},
		{"grey and alpha", tiffGrey(8, alpha, tiffEntry{0x115, []uint16{2}}, tiffEntry{0x102, []uint16{8, 8}}), []byte{1, 2, 3, 4},
			&image.NRGBA{Pix: []uint8{1, 1, 1, 2, 3, 3, 3, 4}, Stride: 8, Rect: size}},
		{"RGB", rgb(8), []byte{1, 2, 3, 4, 5, 6}, &image.NRGBA{Pix: []uint8{1, 2, 3, 255, 4, 5, 6, 255}, Stride: 8, Rect: size}},
		{"RGB and alpha", rgb(8, alpha), []byte{1, 2, 3, 4, 5, 6, 7, 8}, &image.NRGBA{Pix: []uint8{1, 2, 3, 4, 5, 6, 7, 8}, Stride: 8, Rect: size}},
		{"RGB of 16 bits", rgb(16), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
			&image.NRGBA64{Pix: []uint8{2, 1, 4, 3, 6, 5, 255, 255, 8, 7, 10, 9, 12, 11, 255, 255}, Stride: 16, Rect: size}},
	} {
		got, err := decodeTIFF(tiffPagesOf(c.pixels, c.page))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for x := range 2 {
			if g, w := got.At(x, 0), c.want.At(x, 0); g != w {
				t.Errorf("%s, pixel %d: got %v of %T, want %v of %T", c.name, x, g, got, w, c.want)
			}
		}
	}
}

// Damage that libtiff would paint over is an error.
func TestTIFFDamage(t *testing.T) {
	fax := readFixture(t, "bilevel_g4.tif")
	strip := bytes.Clone(fax)
	for i := 8; i < 40; i++ {
		strip[i] ^= 0x5a
	}
	palette := tiffGrey(8, tiffEntry{0x106, []uint16{3}}, tiffEntry{0x140, slices.Repeat([]uint16{0x1234}, 700)})
	for _, c := range []struct {
		name, want string
		data       []byte
	}{
		{"fax", "damaged or unsupported TIFF file", strip},
		{"a palette of 700 values", `"ColorMap"`, tiffPagesOf([]byte{1, 2}, palette)},
		{"a strip that is too short", "truncated TIFF file, copy it again", tiffPagesOf([]byte{1}, tiffGrey(8, tiffEntry{0x101, []uint16{500}}))},
		{"no strips", "StripOffsets", tiffOf([][2]uint32{{0x100, 2}, {0x101, 2}, {0x102, 8}, {0x106, 1}})},
	} {
		im, err := Decode(c.data, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v and %v, want an error with %q", c.name, im, err, c.want)
		}
	}
}

func FuzzTIFF(f *testing.F) {
	files, _ := readMadeUp(f)
	for _, file := range files {
		if strings.HasSuffix(file.Name, ".tif") {
			f.Add(unzip(f, file))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !bytes.HasPrefix(data, []byte("II")) && !bytes.HasPrefix(data, []byte("MM")) {
			return
		}
		checkDecoded(t, data)
	})
}

// checkDecoded decodes data to a picture that is whole, or to an error in one
// line.
func checkDecoded(t *testing.T, data []byte) {
	const limit = 1 << 16
	im, err := Decode(data, &Options{MaxPixels: limit})
	switch {
	case err != nil && (!strings.HasPrefix(err.Error(), "imagefile: ") || strings.ContainsAny(err.Error(), "\n\x1b")):
		t.Fatalf("error %q", err)
	case err == nil && (im.W < 1 || im.H < 1 || im.W*im.H > limit || len(im.Pix) != 3*im.W*im.H || im.Pages < 1):
		t.Fatalf("%d x %d with %d bytes, %d pages", im.W, im.H, len(im.Pix), im.Pages)
	}
}

// Samples of 12 bits without gaps between them fill the range, whatever the
// bits of 16 mean.
func TestTIFFPackedSamples(t *testing.T) {
	data := tiffPagesOf([]byte{0x12, 0x3f, 0xff}, tiffGrey(12)) // 0x123 and 0xfff
	for _, depth := range []int{0, 12, 16} {
		im, err := Decode(data, &Options{BitDepth: depth})
		if err != nil {
			t.Fatal(err)
		}
		if im.Pix[0] != 0x12 || im.Pix[3] != 0xff || im.Stored != (Stored{Bits: 8}) {
			t.Errorf("depth %d: got pixels %#x and %#x, stored %+v; want 0x12, 0xff and 8 bits", depth, im.Pix[0], im.Pix[3], im.Stored)
		}
	}
}

// The values of tags that pixels do not depend on are left out, and the pixels stay.
func TestTIFFLongTags(t *testing.T) {
	data := longTags(3, 1<<20)
	im, err := Decode(data, nil)
	if err != nil || !bytes.Equal(im.Pix, []byte{77, 77, 77}) {
		t.Errorf("got %v, %v, want one pixel of 77", im, err)
	}
	tidy := tidyTags(data)
	_, entries, _ := tiffEntries(tidy)
	for _, e := range entries {
		if n := binary.LittleEndian.Uint32(e[4:]); n != 1 {
			t.Errorf("tag %d: got %d values, want 1", binary.LittleEndian.Uint16(e), n)
		}
	}
	if &tidyTags(tidy)[0] != &tidy[0] {
		t.Error("got a copy of a file whose tags are short and in order")
	}
}
