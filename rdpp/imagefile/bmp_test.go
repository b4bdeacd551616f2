package imagefile

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
)

// bmpOf is a BMP with a header of 40 bytes.
func bmpOf(w, h int32, bits uint16, compression, colours uint32, tables, pixels []byte) []byte {
	data := bmpHeader(w, h)
	binary.LittleEndian.PutUint16(data[28:], bits)
	binary.LittleEndian.PutUint32(data[30:], compression)
	binary.LittleEndian.PutUint32(data[46:], colours)
	data = append(data, tables...)
	binary.LittleEndian.PutUint32(data[10:], uint32(len(data)))
	return append(data, pixels...)
}

func masks(values ...uint32) (data []byte) {
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, v)
	}
	return data
}

func TestBMP(t *testing.T) {
	palette := []byte{1, 2, 3, 0, 11, 12, 13, 0, 21, 22, 23, 0}
	short := bmpOf(2, 1, 24, 0, 0, nil, []byte{1, 2, 3, 4, 5, 6, 0, 0})
	os2 := bmpOf(1, 1, 24, 0, 0, nil, nil)[:14+16]
	os2[10], os2[14] = 14+16, 16
	os2 = append(os2, 1, 2, 3, 0)
	inside := bytes.Clone(short)
	inside[10] = 0
	for _, c := range []struct {
		name string
		data []byte
		want []uint8 // R G B of every pixel
		err  string  // or a part of the error
	}{
		{"16 bits", bmpOf(1, 1, 16, 0, 0, nil, []byte{0xff, 0x7f, 0, 0}), []uint8{248, 248, 248}, ""},
		{"565", bmpOf(1, 1, 16, 3, 0, masks(0xf800, 0x7e0, 0x1f), []byte{0xff, 0xff, 0, 0}), []uint8{248, 252, 248}, ""},
		{"ten bits", bmpOf(1, 1, 32, 3, 0, masks(0x3ff00000, 0xffc00, 0x3ff), masks(0x2aa<<20|0x155<<10|0x3ff)), []uint8{0xaa, 0x55, 0xff}, ""},
		{"a palette that is too short", bmpOf(2, 1, 8, 0, 1, palette[:4], []byte{0, 1, 0, 0}), []uint8{3, 2, 1, 0, 0, 0}, ""},
		{"no padding after the last row", short[:len(short)-2], []uint8{3, 2, 1, 6, 5, 4}, ""},
		{"a header of 16 bytes", os2, []uint8{3, 2, 1}, ""},
		{"pixels inside the header", inside, nil, "its pixels begin at byte 0, inside the header"},
		{"RLE8", bmpOf(3, 2, 8, 1, 3, palette, []byte{2, 1, 1, 2, 0, 0, 0, 3, 2, 1, 0, 0, 0, 1}),
			[]uint8{23, 22, 21, 13, 12, 11, 3, 2, 1, 13, 12, 11, 13, 12, 11, 23, 22, 21}, ""},
		{"RLE8 with steps", bmpOf(3, 2, 8, 1, 3, palette, []byte{0, 2, 1, 1, 2, 2, 0, 1}),
			[]uint8{3, 2, 1, 23, 22, 21, 23, 22, 21, 3, 2, 1, 3, 2, 1, 3, 2, 1}, ""},
		{"RLE4", bmpOf(3, 1, 4, 2, 3, palette, []byte{3, 0x12, 0, 1}), []uint8{13, 12, 11, 23, 22, 21, 13, 12, 11}, ""},
		{"RLE4, pixels one by one", bmpOf(3, 1, 4, 2, 3, palette, []byte{0, 3, 0x12, 0x10, 0, 1}), []uint8{13, 12, 11, 23, 22, 21, 13, 12, 11}, ""},
		{"RLE8 beyond the row", bmpOf(3, 1, 8, 1, 3, palette, []byte{4, 1, 0, 1}), nil, "a run of pixels leaves its row"},
		{"RLE8 step beyond the row", bmpOf(3, 1, 8, 1, 3, palette, []byte{0, 2, 4, 0, 0, 1}), nil, "a run of pixels leaves its row"},
		{"RLE8 cut", bmpOf(3, 2, 8, 1, 3, palette, []byte{2, 1}), nil, "truncated BMP file"},
		{"RLE8 cut in pixels", bmpOf(3, 2, 8, 1, 3, palette, []byte{0, 3, 1}), nil, "truncated BMP file"},
		{"pixels cut", short[:len(short)-3], nil, "truncated BMP file"},
		{"palette cut", bmpOf(2, 1, 8, 0, 9, palette, nil), nil, "truncated BMP file"},
		{"masks cut", bmpOf(1, 1, 16, 3, 0, masks(0xf800), nil), nil, "truncated BMP file"},
		{"masks with holes", bmpOf(1, 1, 16, 3, 0, masks(0xf801, 0x7e0, 0x1e), make([]byte, 4)), nil, "with the masks"},
		{"no mask for green", bmpOf(1, 1, 16, 3, 0, masks(0xf800, 0, 0x1f), make([]byte, 4)), nil, "with the masks"},
		{"a JPEG inside", bmpOf(1, 1, 0, 4, 0, nil, []byte("\xff\xd8\xff")), nil, "with compression 4 (a JPEG"},
		{"three bits", bmpOf(1, 1, 3, 0, 0, nil, make([]byte, 4)), nil, "with 3 bits per pixel"},
		{"RLE8 of 4 bits", bmpOf(1, 1, 4, 1, 3, palette, make([]byte, 4)), nil, "with 4 bits per pixel and compression 1"},
	} {
		im, err := Decode(c.data, nil)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want an error with %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil || !bytes.Equal(im.Pix, c.want) {
			t.Errorf("%s: got %v and %v, want %v", c.name, im, err, c.want)
		}
	}
}

// Where golang.org/x/image reads a file, this package's own code reads the
// same.
func FuzzBMP(f *testing.F) {
	files, _ := readMadeUp(f)
	for _, file := range files {
		if strings.HasSuffix(file.Name, ".bmp") {
			f.Add(unzip(f, file))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !bytes.HasPrefix(data, []byte("BM")) {
			return
		}
		checkDecoded(t, data)
		head, err := parseBMP(data)
		if err != nil || int64(head.w)*int64(head.h) > 1<<16 {
			return
		}
		want, err := bmp.Decode(bytes.NewReader(data))
		if err != nil || head.w == 0 || head.h == 0 {
			return
		}
		got, err := decodeOddBMP(data)
		if err != nil || !bytes.Equal(pack(got, narrowing{}).Pix, pack(want, narrowing{}).Pix) {
			t.Fatalf("got another picture than x/image/bmp, %v", err)
		}
	})
}
