package imagefile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

func TestNarrowing(t *testing.T) {
	for depth := 8; depth <= 16; depth++ {
		truncated, rounded := narrowing{depth: depth}, narrowing{depth: depth, round: true}
		inverted := narrowing{depth: depth, invert: true}
		most := 1<<depth - 1
		for v := range 1 << 16 {
			want := uint8(255)
			if v <= most {
				want = uint8(v >> (depth - 8))
			}
			if got := truncated.of(uint16(v)); got != want || inverted.of(^uint16(v)) != 255-want {
				t.Fatalf("%d bits, %d: got %d, want %d", depth, v, got, want)
			}
			want = uint8(math.Round(255 * min(1, float64(v)/float64(most))))
			if got := rounded.of(uint16(v)); got != want {
				t.Fatalf("%d bits, %d rounded: got %d, want %d", depth, v, got, want)
			}
		}
	}
	for v := range 1 << 16 { // as libtiff
		if got, want := (narrowing{depth: 16, round: true}).of(uint16(v)), uint8((v+128)/257); got != want {
			t.Fatalf("%d rounded: got %d, want %d", v, got, want)
		}
	}
}

// deepPictures are pictures of samples in the low depth bits of 16, and alpha
// in all of them, by their kind.
func deepPictures(rng *rand.Rand, depth int) map[string]image.Image {
	const w, h = 19, 7
	r := image.Rect(0, 0, w, h)
	grey, rgb, rgba := image.NewGray16(r), image.NewRGBA64(r), image.NewNRGBA64(r)
	for _, m := range []struct {
		pix    []uint8
		pixel  int // samples
		opaque bool
	}{{grey.Pix, 1, false}, {rgb.Pix, 4, true}, {rgba.Pix, 4, false}} {
		for i := range len(m.pix) / 2 {
			v := uint16(rng.IntN(1 << depth))
			switch {
			case i < m.pixel-1 || i == 0:
				v = 1<<depth - 1 // the largest is there
			case m.pixel == 4 && i%4 == 3 && m.opaque:
				v = 0xffff
			case m.pixel == 4 && i%4 == 3:
				v = uint16(rng.IntN(1 << 16))
			}
			binary.BigEndian.PutUint16(m.pix[2*i:], v)
		}
	}
	return map[string]image.Image{"grey": grey, "RGB": rgb, "RGBA": rgba}
}

// colours are a picture's samples, three of each pixel.
func colours(m image.Image) (all []uint16) {
	at := func(pix []uint8, pixel, sample int) {
		for i := 0; i < len(pix); i += pixel {
			for j := range 3 {
				all = append(all, binary.BigEndian.Uint16(pix[i+j*sample:]))
			}
		}
	}
	switch m := m.(type) {
	case *image.Gray16:
		at(m.Pix, 2, 0)
	case *image.RGBA64:
		at(m.Pix, 8, 2)
	case *image.NRGBA64:
		at(m.Pix, 8, 2)
	}
	return all
}

func TestBitDepth(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, depth := range []int{8, 10, 12, 14, 15, 16} {
		for kind, m := range deepPictures(rng, depth) {
			for _, f := range []struct {
				name   string
				encode func(testing.TB, image.Image) []byte
			}{{"PNG", encodePNG}, {"TIFF", encodeTIFF}} {
				name := fmt.Sprintf("%s %s of %d bits", kind, f.name, depth)
				got, err := Decode(f.encode(t, m), &Options{BitDepth: depth})
				if err != nil {
					t.Fatal(err)
				}
				want := make([]uint8, len(got.Pix))
				for i, v := range colours(m) {
					want[i] = uint8(v >> (depth - 8))
					if f.name == "TIFF" && kind != "grey" { // as libtiff
						want[i] = uint8(math.Round(255 * float64(v) / float64(int(1)<<depth-1)))
					}
				}
				if !bytes.Equal(got.Pix, want) {
					t.Errorf("%s: got %v..., want %v...", name, got.Pix[:12], want[:12])
				}
				if stored := (Stored{Bits: 16, Max: 1<<depth - 1, Depth: depth}); got.Stored != stored {
					t.Errorf("%s: got %+v, want %+v", name, got.Stored, stored)
				}
				plain, err := Decode(f.encode(t, m), nil)
				if err != nil {
					t.Fatal(err)
				}
				if plain.Stored.Max != 1<<depth-1 || plain.Stored.Depth != 16 {
					t.Errorf("%s, read as 16: got %+v", name, plain.Stored)
				}
			}
		}
	}
}

// In a file whose zero is white, either the bits that are used are inverted, or
// all 16: of both ways the range is found, and the picture is the same.
func TestBitDepthOfWhiteIsZero(t *testing.T) {
	for _, depth := range []int{10, 12, 14, 16} {
		m := deepPictures(rand.New(rand.NewPCG(1, 2)), depth)["grey"].(*image.Gray16)
		for i := 2; i < len(m.Pix); i += 2 { // no value is the largest in either way, but one
			v := min(max(binary.BigEndian.Uint16(m.Pix[i:]), 1), 1<<depth-2)
			binary.BigEndian.PutUint16(m.Pix[i:], v)
		}
		want, err := Decode(encodeTIFF(t, m), &Options{BitDepth: depth})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name string
			mask uint16 // of the bits that the writer inverts
		}{{"bits in use", 1<<depth - 1}, {"all bits", 0xffff}} {
			inverted := image.NewGray16(m.Rect)
			for i := 0; i < len(m.Pix); i += 2 {
				binary.BigEndian.PutUint16(inverted.Pix[i:], binary.BigEndian.Uint16(m.Pix[i:])^c.mask)
			}
			data := whiteIsZero(t, encodeTIFF(t, inverted))
			for _, read := range []int{depth, 16} {
				got, err := Decode(data, &Options{BitDepth: read})
				if err != nil {
					t.Fatal(err)
				}
				if len := bits.Len16(got.Stored.Max); len != depth {
					t.Errorf("%d bits, %s inverted, read as %d: got a largest value of %d bits", depth, c.name, read, len)
				}
				if read == depth && !bytes.Equal(got.Pix, want.Pix) {
					t.Errorf("%d bits, %s inverted: got %v..., want %v...", depth, c.name, got.Pix[:12], want.Pix[:12])
				}
			}
		}
	}
}

// whiteIsZero is a TIFF that says so instead.
func whiteIsZero(t *testing.T, data []byte) []byte {
	t.Helper()
	blackIsZero := []byte{0x06, 1, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0}
	at := bytes.Index(data, blackIsZero)
	if at < 0 {
		t.Fatal("no PhotometricInterpretation in the file")
	}
	data = bytes.Clone(data)
	data[at+8] = 0
	return data
}

// Files of testdata: those of 16 bits are as OpenCV reads them, those of 8
// bits in any case.
func TestBitDepthOfOtherFiles(t *testing.T) {
	for name, want := range readGolden(t) {
		for _, depth := range []int{0, 7, 8, 12, 16, 17} {
			got, err := Decode(readFixture(t, name), &Options{BitDepth: depth})
			if err != nil {
				t.Fatal(err)
			}
			wide := bytes.Contains([]byte(name), []byte("16"))
			if bits := got.Stored.Bits; bits != 16 && wide || bits != 8 && !wide {
				t.Errorf("%s: got %d bits stored", name, bits)
			}
			same := bytes.Equal(got.Pix, want.rgb)
			if scaled := wide && (depth == 8 || depth == 12); same == scaled {
				t.Errorf("%s as %d bits: got OpenCV's pixels %v, want %v", name, depth, same, !scaled)
			}
		}
	}
}

func TestHints(t *testing.T) {
	m := image.NewGray16(image.Rect(0, 0, 2, 1))
	m.Pix[0] = 1
	plain := encodePNG(t, m)
	const header = 8 + 25 // signature and IHDR
	withChunk := func(kind string, body ...byte) []byte {
		return bytes.Join([][]byte{plain[:header], pngChunk(kind, body), plain[header:]}, nil)
	}
	rgba := encodePNG(t, deepPictures(rand.New(rand.NewPCG(1, 1)), 12)["RGBA"])
	rgbaWith := bytes.Join([][]byte{rgba[:header], pngChunk("sBIT", []byte{9, 12, 10, 15}), rgba[header:]}, nil)
	tag := func(order binary.AppendByteOrder, mark string, kind uint16, values ...uint16) []byte {
		data := order.AppendUint32([]byte(mark), 8)
		data = order.AppendUint16(data, 1)
		data = order.AppendUint16(data, 281)
		data = order.AppendUint16(data, kind)
		data = order.AppendUint32(data, uint32(len(values)))
		if len(values) > 2 {
			data = order.AppendUint32(data, uint32(len(data)+4+4))
			data = order.AppendUint32(data, 0) // no further directory
		}
		for _, v := range values {
			data = order.AppendUint16(data, v)
		}
		return append(data, 0, 0)
	}
	big := func(order binary.AppendByteOrder, mark string, values ...uint16) []byte {
		data := order.AppendUint64(append([]byte(mark), 8, 0, 0, 0), 16)
		if order == binary.AppendByteOrder(binary.BigEndian) {
			data[4], data[5] = 0, 8
		}
		data = order.AppendUint64(data, 1)
		data = order.AppendUint16(order.AppendUint16(data, 281), 3)
		data = order.AppendUint64(data, uint64(len(values)))
		if len(values) > 4 {
			data = order.AppendUint64(data, uint64(len(data)+8))
		}
		for _, v := range values {
			data = order.AppendUint16(data, v)
		}
		return append(data, make([]byte, 8)...)
	}
	for _, c := range []struct {
		name string
		hint func([]byte) int
		data []byte
		want int
	}{
		{"PNG without", pngHint, plain, 0},
		{"sBIT", pngHint, withChunk("sBIT", 12), 12},
		{"sBIT of alpha", pngHint, rgbaWith, 12},
		{"empty sBIT", pngHint, withChunk("sBIT"), 0},
		{"another chunk", pngHint, withChunk("gAMA", 0, 0, 0, 1), 0},
		{"chunk beyond the end", pngHint, withChunk("sBIT", 12)[:header+9], 0},
		{"little endian", tiffHint, tag(binary.LittleEndian, "II*\x00", 3, 4095), 12},
		{"big endian", tiffHint, tag(binary.BigEndian, "MM\x00*", 3, 4031), 12},
		{"three samples", tiffHint, tag(binary.LittleEndian, "II*\x00", 3, 1000, 1023, 90), 10},
		{"BigTIFF", tiffHint, big(binary.LittleEndian, "II+\x00", 4095, 4095, 4095), 12},
		{"big endian BigTIFF", tiffHint, big(binary.BigEndian, "MM\x00+", 1000), 10},
		{"BigTIFF's elsewhere", tiffHint, big(binary.LittleEndian, "II+\x00", 1, 2, 1023, 9, 9), 10},
		{"one bit more", tiffHint, tag(binary.LittleEndian, "II*\x00", 3, 4096), 13},
		{"another type", tiffHint, tag(binary.LittleEndian, "II*\x00", 2, 4095), 0},
		{"cut values", tiffHint, tag(binary.LittleEndian, "II*\x00", 3, 1000, 1023, 90)[:28], 0},
		{"cut entry", tiffHint, tag(binary.LittleEndian, "II*\x00", 3, 4095)[:18], 0},
		{"directory outside", tiffHint, []byte("MM\x00*\xff\xff\xff\xff"), 0},
		{"cut header", tiffHint, []byte("MM\x00*"), 0},
	} {
		if got := c.hint(c.data); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		data []byte
		want int
	}{{withChunk("sBIT", 12), 12}, {withChunk("sBIT", 16), 0}, {withChunk("sBIT", 200), 0}, {plain, 0}} {
		im, err := Decode(c.data, nil)
		if err != nil {
			t.Fatal(err)
		}
		if im.Stored.Hint != c.want {
			t.Errorf("got hint %d, want %d", im.Stored.Hint, c.want)
		}
	}
}

func FuzzHints(f *testing.F) {
	f.Add(readFixture(f, "grey16.png"))
	f.Add(readFixture(f, "grey16.tif"))
	f.Add([]byte("II*\x00\x08\x00\x00\x00\x01\x00\x19\x01\x03\x00\x03\x00\x00\x00\x04\x00\x00\x00"))
	f.Add(pngOf(pngIHDR(1, 1, 16, 2), pngChunk("sBIT", []byte{12, 12, 12})))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := tiffHint(data); got < 0 || got > 16 {
			t.Errorf("TIFF: got %d bits", got)
		}
		if len(data) < 8 {
			return
		}
		if got := pngHint(data); got < 0 || got > 255 {
			t.Errorf("PNG: got %d bits", got)
		}
	})
}
