package imagefile

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image/png"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const pngSignature = "\x89PNG\r\n\x1a\n"

func pngChunk(kind string, body []byte) []byte {
	chunk := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), kind...)
	chunk = append(chunk, body...)
	return binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
}

func pngIHDR(w, h int, bits, colour uint8) []byte {
	body := binary.BigEndian.AppendUint32(nil, uint32(w))
	body = binary.BigEndian.AppendUint32(body, uint32(h))
	return pngChunk("IHDR", append(body, bits, colour, 0, 0, 0))
}

func zlibOf(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zlib.NewWriter(&buf)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// pngOf joins a file from chunks, after its signature and before its end.
func pngOf(chunks ...[]byte) []byte {
	return slices.Concat([]byte(pngSignature), slices.Concat(chunks...), pngChunk("IEND", nil))
}

// plainKinds are those of plainPNG, and their bytes per pixel.
var plainKinds = []struct {
	name         string
	bits, colour uint8
	pixel        int
}{
	{"grey", 8, 0, 1}, {"RGB", 8, 2, 3}, {"grey and alpha", 8, 4, 2}, {"RGBA", 8, 6, 4}, {"16-bit grey", 16, 0, 2},
	{"16-bit grey and alpha", 16, 4, 4},
}

// filtered is a picture's data before compression: rows of random bytes after
// the number of a filter, which pick chooses.
func filtered(rng *rand.Rand, h, width int, pick func(y int) uint8) []byte {
	rows := make([]byte, h*(1+width))
	for i := range rows {
		rows[i] = uint8(rng.Uint32())
		if i%(1+width) == 0 {
			rows[i] = pick(i / (1 + width))
		}
	}
	return rows
}

// plainly decodes without image/png, which does the rest.
func plainly(data []byte) *Image {
	p := parsePNG(data)
	if p == nil {
		return nil
	}
	return p.decode(16)
}

func TestPlainPNGEqualsImagePNG(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, kind := range plainKinds {
		for _, size := range [][2]int{{1, 1}, {1, 9}, {9, 1}, {2, 3}, {67, 40}} {
			for filter := range uint8(6) {
				w, h := size[0], size[1]
				pick := func(y int) uint8 { return filter }
				if filter == 5 { // all of them in turn, the first rows' filters being the hard ones
					first := rng.IntN(5)
					pick = func(y int) uint8 { return uint8((first + y*3) % 5) }
				}
				stream := zlibOf(t, filtered(rng, h, w*kind.pixel, pick))
				cut := len(stream) / 2
				data := pngOf(pngIHDR(w, h, kind.bits, kind.colour), pngChunk("tEXt", []byte("a\x00b")),
					pngChunk("IDAT", stream[:cut]), pngChunk("IDAT", nil), pngChunk("IDAT", stream[cut:]), pngChunk("tIME", make([]byte, 7)))
				want, err := pixelsBy(png.Decode)(data, 16)
				if err != nil {
					t.Fatal(err)
				}
				got := plainly(data)
				if got == nil {
					t.Errorf("%s, %d x %d, filter %d: left to image/png", kind.name, w, h, filter)
				} else if got.W != w || got.H != h || !bytes.Equal(got.Pix, want.Pix) {
					t.Errorf("%s, %d x %d, filter %d: got another picture than image/png", kind.name, w, h, filter)
				}
			}
		}
	}
}

// Whatever is wrong with a file, image/png finds it and says so.
func TestPNGVerdicts(t *testing.T) {
	const w, h = 5, 4
	rng := rand.New(rand.NewPCG(3, 4))
	rows := filtered(rng, h, 3*w, func(y int) uint8 { return uint8(y) })
	unknown := filtered(rng, h, 3*w, func(y int) uint8 { return uint8(y + 2) })
	ihdr, stream := pngIHDR(w, h, 8, 2), zlibOf(t, rows)
	idat := pngChunk("IDAT", stream)
	text := pngChunk("tEXt", []byte("a\x00b"))
	flipped := func(data []byte, at int) []byte {
		data = bytes.Clone(data)
		data[(at+len(data))%len(data)] ^= 1
		return data
	}
	whole := pngOf(ihdr, text, idat)
	for _, c := range []struct {
		name string
		data []byte
		want string // of the error; none for a picture
	}{
		{"whole", whole, ""},
		{"data after the end", append(bytes.Clone(whole), "more"...), ""},
		{"a chunk before IHDR", pngOf(text, ihdr, idat), ""},
		{"an empty IDAT after others", pngOf(ihdr, idat, text, pngChunk("IDAT", nil)), ""},
		{"a transparent colour", pngOf(ihdr, pngChunk("tRNS", make([]byte, 6)), idat), ""},
		{"a suggested palette", pngOf(ihdr, pngChunk("PLTE", make([]byte, 6)), idat), ""},
		{"IHDR damaged", pngOf(flipped(ihdr, -1), idat), "invalid checksum"},
		{"metadata damaged", pngOf(ihdr, flipped(text, 9), idat), "invalid checksum"},
		{"IDAT's checksum damaged", pngOf(ihdr, flipped(idat, -1)), "invalid checksum"},
		{"IEND damaged", flipped(whole, -1), "invalid checksum"},
		{"IEND with data", slices.Concat([]byte(pngSignature), ihdr, idat, pngChunk("IEND", []byte{0})), "bad IEND length"},
		{"no IEND", slices.Concat([]byte(pngSignature), ihdr, idat), "truncated PNG file"},
		{"cut in IDAT", whole[:len(whole)-20], "unexpected EOF"},
		{"no IDAT", pngOf(ihdr, text), "chunk out of order"},
		{"two IHDR", pngOf(ihdr, ihdr, idat), "chunk out of order"},
		{"a chunk in between", pngOf(ihdr, pngChunk("IDAT", stream[:9]), text, pngChunk("IDAT", stream[9:])), "not enough pixel data"},
		{"a row too few", pngOf(ihdr, pngChunk("IDAT", zlibOf(t, rows[:len(rows)-3*w-1]))), "not enough pixel data"},
		{"a byte too many", pngOf(ihdr, pngChunk("IDAT", zlibOf(t, append(bytes.Clone(rows), 0)))), "too much pixel data"},
		{"bytes after the stream", pngOf(ihdr, pngChunk("IDAT", slices.Concat(stream, make([]byte, 9000)))), "too much pixel data"},
		{"unknown filter", pngOf(ihdr, pngChunk("IDAT", zlibOf(t, unknown))), "bad filter type"},
		{"Adler-32 damaged", pngOf(ihdr, pngChunk("IDAT", flipped(stream, -1))), "zlib: invalid checksum"},
		{"no zlib stream", pngOf(ihdr, pngChunk("IDAT", flipped(stream, 0))), "zlib: invalid header"},
		{"length beyond the file", slices.Concat([]byte(pngSignature), ihdr, []byte("\xff\xff\xff\xf4tEXt"), idat), "Bad chunk length"},
	} {
		im, err := Decode(c.data, nil)
		want, wantErr := pixelsBy(png.Decode)(c.data, 16)
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(im.Pix, want.Pix) {
			t.Errorf("%s: got %v, image/png says %v", c.name, err, wantErr)
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
		if err != nil && plainly(c.data) != nil {
			t.Errorf("%s: decoded plainly, want it left to image/png", c.name)
		}
	}
	if plainly(whole) == nil {
		t.Error("whole: left to image/png, want it decoded plainly")
	}
}

// What is compressed in a file never takes more memory than its header says.
func TestPNGBombs(t *testing.T) {
	bomb := zlibOf(t, make([]byte, 64<<20))
	ihdr := pngIHDR(2, 2, 8, 0)
	idat := pngChunk("IDAT", zlibOf(t, make([]byte, 6)))
	for _, c := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"pixels", pngOf(ihdr, pngChunk("IDAT", bomb)), false},
		{"profile", pngOf(ihdr, pngChunk("iCCP", append([]byte("a\x00\x00"), bomb...)), idat), true},
		{"text", pngOf(ihdr, pngChunk("zTXt", append([]byte("a\x00\x00"), bomb...)), idat), true},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Decode(c.data, nil)
		runtime.ReadMemStats(&after)
		if (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok %v", c.name, err, c.ok)
		}
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<20); got > most {
			t.Errorf("%s: allocated %d bytes, want at most %d", c.name, got, most)
		}
	}
}

func TestInflate(t *testing.T) {
	data := []byte("twelve bytes")
	stream := zlibOf(t, data)
	for _, c := range []struct {
		name   string
		size   int
		stream []byte
		want   bool
	}{
		{"whole", 12, stream, true},
		{"nothing", 12, nil, false},
		{"too long", 11, stream, false},
		{"too short", 13, stream, false},
		{"cut", 12, stream[:len(stream)-1], false},
		{"more after it", 12, append(bytes.Clone(stream), 0), false},
	} {
		dst := make([]byte, c.size)
		if got := inflate(dst, c.stream); got != c.want || got && !bytes.Equal(dst, data) {
			t.Errorf("%s: got %v and %q, want %v", c.name, got, dst, c.want)
		}
	}
}

// FuzzPNG makes files whose checksums are right, so that all but the checks of
// checksums is reached, and compares with image/png.
func FuzzPNG(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 6))
	for i, kind := range plainKinds {
		rows := filtered(rng, 4, 5*kind.pixel, func(y int) uint8 { return uint8(y + 1) })
		f.Add(uint8(i), uint8(5), uint8(4), uint8(7), rows, zlibOf(f, rows))
	}
	f.Fuzz(func(t *testing.T, kind, w, h, cut uint8, rows, stream []byte) {
		k := plainKinds[int(kind)%len(plainKinds)]
		for _, stream := range [][]byte{zlibOf(t, rows), stream} {
			cut := min(int(cut), len(stream))
			data := pngOf(pngIHDR(int(w), int(h), k.bits, k.colour), pngChunk("IDAT", stream[:cut]), pngChunk("IDAT", stream[cut:]))
			if w == 0 || h == 0 {
				continue // refused before
			}
			want, err := pixelsBy(png.Decode)(data, 16)
			got, gotErr := pngPixels(data, 16)
			if fmt.Sprint(err) != fmt.Sprint(gotErr) || err == nil && !bytes.Equal(got.Pix, want.Pix) {
				t.Fatalf("%s of %d x %d: got %v, image/png says %v", k.name, w, h, gotErr, err)
			}
		}
	})
}
