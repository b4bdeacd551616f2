package imagefile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/image/tiff"
)

// golden is what OpenCV read in a file of testdata (see testdata/make.py).
type golden struct {
	w, h int
	rgb  []uint8
}

func (g *golden) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&g.w, &g.h, &g.rgb})
}

func readGolden(t testing.TB) map[string]golden {
	t.Helper()
	all := map[string]golden{}
	if err := json.Unmarshal(readFixture(t, "opencv.json"), &all); err != nil {
		t.Fatal(err)
	}
	const unturned = "lossy_orient6.webp" // by OpenCV 4.6; JPEG and TIFF hold orient against it
	g := all[unturned]
	turned := (&Image{W: g.w, H: g.h, Pix: g.rgb}).orient(6)
	all[unturned] = golden{turned.W, turned.H, turned.Pix}
	return all
}

func readFixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDecodeEqualsOpenCV(t *testing.T) {
	all := readGolden(t)
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range files {
		if !IsImage(f.Name()) {
			continue
		}
		seen++
		want, ok := all[f.Name()]
		if !ok {
			t.Errorf("%s is not in opencv.json", f.Name())
			continue
		}
		got, err := DecodeFile(filepath.Join("testdata", f.Name()), nil)
		if err != nil {
			t.Error(err)
			continue
		}
		if got.W != want.w || got.H != want.h {
			t.Errorf("%s: got %d x %d, want %d x %d", f.Name(), got.W, got.H, want.w, want.h)
		} else if !bytes.Equal(got.Pix, want.rgb) {
			t.Errorf("%s: got %v..., want %v...", f.Name(), got.Pix[:12], want.rgb[:12])
		}
	}
	if seen != len(all) {
		t.Errorf("got %d pictures in testdata, want the %d of opencv.json", seen, len(all))
	}
}

// encodePNG, like the two below, fails the test on an error.
func encodePNG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := png.Encode(&buf, m); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func encodeJPEG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, m, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func encodeTIFF(t testing.TB, m image.Image) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := tiff.Encode(&buf, m, nil); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestAlphaIsDroppedNotBlended(t *testing.T) {
	m := image.NewNRGBA(image.Rect(0, 0, 2, 1))
	copy(m.Pix, []uint8{200, 100, 50, 0, 10, 20, 30, 128})
	deep := image.NewNRGBA64(image.Rect(0, 0, 2, 1))
	for i, v := range m.Pix {
		deep.Pix[2*i], deep.Pix[2*i+1] = v, v
	}
	want := []uint8{200, 100, 50, 10, 20, 30}
	for name, data := range map[string][]byte{
		"png": encodePNG(t, m), "tiff": encodeTIFF(t, m), "png 16": encodePNG(t, deep), "tiff 16": encodeTIFF(t, deep),
	} {
		got, err := Decode(data, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Pix, want) {
			t.Errorf("%s: got %v, want %v", name, got.Pix, want)
		}
	}
}

func TestSixteenBitRounding(t *testing.T) {
	const v = 0x12ff // 0x12 truncated, 0x13 rounded
	grey, colour := image.NewGray16(image.Rect(0, 0, 1, 1)), image.NewRGBA64(image.Rect(0, 0, 1, 1))
	grey.SetGray16(0, 0, color.Gray16{Y: v})
	colour.SetRGBA64(0, 0, color.RGBA64{R: v, G: v, B: v, A: 0xffff})
	for _, c := range []struct {
		name string
		data []byte
		want uint8
	}{
		{"grey png", encodePNG(t, grey), 0x12},
		{"rgb png", encodePNG(t, colour), 0x12},
		{"grey tiff", encodeTIFF(t, grey), 0x12},
		{"rgb tiff", encodeTIFF(t, colour), 0x13},
	} {
		got, err := Decode(c.data, nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := []uint8{c.want, c.want, c.want}; !bytes.Equal(got.Pix, want) {
			t.Errorf("%s: got %v, want %v", c.name, got.Pix, want)
		}
	}
}

func TestPackOfOtherModels(t *testing.T) {
	m := image.NewCMYK(image.Rect(0, 0, 2, 1))
	m.SetCMYK(1, 0, color.CMYK{C: 255})
	want := []uint8{255, 255, 255, 0, 255, 255}
	if got := pack(m, narrowing{depth: 16}).Pix; !bytes.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// jpegWith inserts segments after the start of a JPEG.
func jpegWith(data []byte, segments ...string) []byte {
	return slices.Concat(data[:2], []byte(strings.Join(segments, "")), data[2:])
}

func TestOrientationTag(t *testing.T) {
	const (
		little = "II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
		big    = "MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x08\x00\x00"
		other  = "MM\x00*\x00\x00\x00\x08\x00\x01\x01\x13\x00\x03\x00\x00\x00\x01\x00\x08\x00\x00"
		exifID = "Exif\x00\x00"
	)
	app1 := func(body string) string {
		return "\xff\xe1" + string(binary.BigEndian.AppendUint16(nil, uint16(2+len(body)))) + body
	}
	plain := encodeJPEG(t, image.NewGray(image.Rect(0, 0, 4, 2)))
	for _, c := range []struct {
		name     string
		segments []string
		want     int
	}{
		{"none", nil, 0},
		{"little endian", []string{app1(exifID + little)}, 6},
		{"big endian", []string{app1(exifID + big)}, 8},
		{"after XMP", []string{app1("http://ns.adobe.com/xap/1.0/\x00<x/>"), app1(exifID + big)}, 8},
		{"after padding", []string{"\xff\xff", app1(exifID + big)}, 8},
		{"the first Exif counts", []string{app1(exifID + little), app1(exifID + big)}, 6},
		{"another tag", []string{app1(exifID + other)}, 0},
		{"cut directory", []string{app1(exifID + big[:15])}, 0},
		{"cut header", []string{app1(exifID + big[:7])}, 0},
		{"directory outside", []string{app1(exifID + "MM\x00*\xff\xff\xff\xff")}, 0},
	} {
		data := jpegWith(plain, c.segments...)
		if got := jpegOrientation(data); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
		im, err := Decode(data, nil)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if turned := im.W == 2; turned != (c.want >= 5) {
			t.Errorf("%s: got %d x %d", c.name, im.W, im.H)
		}
	}
	if got := jpegOrientation([]byte("\xff\xd8\xff\xe1\x00\x00\xff\xe1\x00\x01")); got != 0 {
		t.Errorf("segments shorter than their length: got %d, want 0", got)
	}
	if got := (&Image{W: 1, H: 1, Pix: []uint8{1, 2, 3}}).orient(9); got.Pix[2] != 3 {
		t.Errorf("orientation 9: got %v, want the picture as it is", got)
	}
}

func TestWebPOrientation(t *testing.T) {
	const (
		big       = "MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x08\x00\x00"
		little    = "II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
		extended  = "VP8X\x0a\x00\x00\x00\x08\x00\x00\x00\x14\x00\x00\x0c\x00\x00"
		unflagged = "VP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x14\x00\x00\x0c\x00\x00"
	)
	chunk := func(name, body string) string {
		text := name + string(binary.LittleEndian.AppendUint32(nil, uint32(len(body)))) + body
		if len(body)%2 == 1 {
			text += "\x00"
		}
		return text
	}
	pixels := string(readFixture(t, "lossy.webp")[12:]) // a chunk of 21 x 13
	for _, c := range []struct {
		name, chunks, behind string
		want                 int
	}{
		{"none", pixels, "", 0},
		{"big endian", extended + pixels + chunk("EXIF", big), "", 8},
		{"little endian", extended + pixels + chunk("EXIF", little), "", 6},
		{"JPEG's identifier", extended + pixels + chunk("EXIF", "Exif\x00\x00"+big), "", 8},
		{"behind a chunk of odd length", extended + pixels + chunk("XMP ", "<x>") + chunk("EXIF", big), "", 8},
		{"the first counts", extended + pixels + chunk("EXIF", little) + chunk("EXIF", big), "", 6},
		{"no flag", unflagged + pixels + chunk("EXIF", big), "", 0},
		{"cut", extended + pixels + chunk("EXIF", big[:15]), "", 0},
		{"longer than its file", extended + pixels + "EXIF\xff\xff\xff\xff" + big, "", 0},
		{"behind the container", extended + pixels, chunk("EXIF", big), 0},
	} {
		data := []byte("RIFF" + string(binary.LittleEndian.AppendUint32(nil, uint32(4+len(c.chunks)))) + "WEBP" + c.chunks + c.behind)
		if got := webpOrientation(data); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
		im, err := Decode(data, nil)
		if err != nil {
			t.Errorf("%s: got %v", c.name, err)
		} else if turned := im.W == 13; turned != (c.want >= 5) {
			t.Errorf("%s: got %d x %d", c.name, im.W, im.H)
		}
	}
	for n := range 40 { // of a header that promises more
		webpOrientation([]byte(("RIFF\xff\xff\xff\xffWEBP" + extended + chunk("EXIF", big))[:max(n, 12)]))
	}
}

func TestBadFiles(t *testing.T) {
	folder := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	huge := filepath.Join(folder, "huge.png")
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 2<<30); err != nil {
		t.Fatal(err)
	}
	pipe, socket := filepath.Join(folder, "pipe.png"), filepath.Join(folder, "socket.png")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	linked := filepath.Join(folder, "linked.png")
	if err := os.Symlink(pipe, linked); err != nil {
		t.Fatal(err)
	}
	cut := func(name string) string {
		data := readFixture(t, name)
		return write("cut_"+name, data[:len(data)-40])
	}
	for _, c := range []struct{ path, want string }{
		{filepath.Join(folder, "missing.png"), "no such file"},
		{folder, "not a regular file but a folder, name the image files in it"},
		{pipe, "not a regular file but a pipe: remove it"},
		{linked, "not a regular file but a pipe: remove it"},
		{socket, "not a regular file but a socket: remove it"},
		{"/dev/zero", "not a regular file but a device: remove it"},
		{write("empty.png", nil), "empty file (0 bytes), copy it again"},
		{write("text.png", []byte("Dear all,\nhello")), `not an image: starts with "Dear all,\nhe", give a PNG`},
		{write("short.png", []byte("\x89P")), `not an image: starts with "\x89P"`},
		{huge, "raise max_pixels"},
		{cut("rgb8.png"), "PNG file, copy it again"},
		{cut("420.jpg"), "truncated JPEG file, copy it again"},
		{cut("progressive.jpg"), "truncated JPEG file, copy it again"},
		{cut("rgb.bmp"), "truncated BMP file, copy it again"},
		{cut("grey16.tif"), "truncated TIFF file, copy it again"},
		{cut("lossy.webp"), "truncated WebP file, copy it again"},
		{cut("lossless.webp"), "truncated WebP file, copy it again"},
	} {
		im, err := DecodeFile(c.path, nil)
		if err == nil {
			t.Errorf("%s: got a picture of %d x %d, want an error", c.path, im.W, im.H)
			continue
		}
		msg := err.Error()
		if !strings.HasPrefix(msg, "imagefile: ") || !strings.Contains(msg, c.path) || !strings.Contains(msg, c.want) || strings.Contains(msg, "\n") {
			t.Errorf("got %q, want one line with %q and the file's name", msg, c.want)
		}
		if _, maskErr := DecodeMaskFile(c.path, nil); maskErr == nil || maskErr.Error() != msg {
			t.Errorf("DecodeMaskFile: got %v, want %v", maskErr, err)
		}
	}
	if _, err := DecodeFile(filepath.Join(folder, "missing.png"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist in it", err)
	}
	if _, err := DecodeFile(filepath.Join(folder, "cut_420.jpg"), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want io.ErrUnexpectedEOF in it", err)
	}
}

// Every file of testdata, cut at many places, is an error or, where the bytes
// missing were padding, the same picture.
func TestEveryTruncation(t *testing.T) {
	for name, want := range readGolden(t) {
		data := readFixture(t, name)
		for n := 0; n < len(data); n += 1 + len(data)/100 {
			im, err := Decode(data[:n], nil)
			if err == nil && (n < len(data)-8 || !bytes.Equal(im.Pix, want.rgb)) {
				t.Errorf("%s cut to %d of %d bytes: got a picture, want an error", name, n, len(data))
			}
		}
		if _, err := Decode(data[:len(data)-9], nil); err == nil {
			t.Errorf("%s without its last 9 bytes: got a picture, want an error", name)
		}
	}
}

// pngHeader is a PNG of nothing but an IHDR chunk, 8-bit RGB.
func pngHeader(w, h uint32) []byte {
	ihdr := []byte("IHDR")
	ihdr = binary.BigEndian.AppendUint32(ihdr, w)
	ihdr = binary.BigEndian.AppendUint32(ihdr, h)
	ihdr = append(ihdr, 8, 2, 0, 0, 0)
	data := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), ihdr...)
	return binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(ihdr))
}

// bmpHeader is a 24-bit BMP without pixels.
func bmpHeader(w, h int32) []byte {
	data := make([]byte, 54)
	copy(data, "BM")
	data[10], data[14], data[26], data[28] = 54, 40, 1, 24
	binary.LittleEndian.PutUint32(data[18:], uint32(w))
	binary.LittleEndian.PutUint32(data[22:], uint32(h))
	return data
}

// tiffHeader is an 8-bit grey TIFF without pixels.
func tiffHeader(w, h uint32) []byte {
	return tiffOf([][2]uint32{{0x100, w}, {0x101, h}, {0x102, 8}, {0x106, 1}, {0x111, 8}, {0x117, 1}})
}

// tiffOf is a TIFF of nothing but tags of one LONG each.
func tiffOf(tags [][2]uint32) []byte {
	data := append([]byte("II*\x00\x08\x00\x00\x00"), byte(len(tags)), 0)
	for _, e := range tags {
		data = binary.LittleEndian.AppendUint16(data, uint16(e[0]))
		data = append(data, 4, 0, 1, 0, 0, 0)
		data = binary.LittleEndian.AppendUint32(data, e[1])
	}
	return append(data, 0, 0, 0, 0)
}

// webpHeader is a lossless WebP without pixels, of at most 16384 x 16384.
func webpHeader(w, h uint32) []byte {
	data := append([]byte("RIFF\x12\x00\x00\x00WEBPVP8L\x05\x00\x00\x00\x2f"), 0, 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(data[21:], w-1|(h-1)<<14)
	return data
}

// jpegOfSize patches the size of a JPEG.
func jpegOfSize(t *testing.T, w, h uint16) []byte {
	data := readFixture(t, "420.jpg")
	sof := bytes.Index(data, []byte{0xff, 0xc0})
	if sof < 0 {
		t.Fatal("no SOF0 in 420.jpg")
	}
	binary.BigEndian.PutUint16(data[sof+5:], h)
	binary.BigEndian.PutUint16(data[sof+7:], w)
	return data
}

func TestLyingHeaders(t *testing.T) {
	const limit = "the limit is 100000000 pixels; raise max_pixels"
	riff := readFixture(t, "lossy.webp")
	binary.LittleEndian.PutUint32(riff[4:], 0x7ffffffe)
	binary.LittleEndian.PutUint32(riff[16:], 0x7ffffff0)
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"huge PNG", pngHeader(60000, 60000), limit},
		{"huge JPEG", jpegOfSize(t, 65500, 65500), limit},
		{"huge BMP", bmpHeader(60000, 60000), limit},
		{"huge top-down BMP", bmpHeader(60000, -60000), limit},
		{"huge TIFF", tiffHeader(60000, 60000), limit},
		{"huge WebP", webpHeader(16384, 16384), limit},
		{"TIFF of huge tiles", tiffOf([][2]uint32{{0x100, 4}, {0x101, 4}, {0x102, 8}, {0x106, 1}, {0x142, 1 << 16}, {0x143, 1 << 16}, {0x144, 8}, {0x145, 1}}), "larger than the picture"},
		{"TIFF of many samples", tiffOf([][2]uint32{{0x100, 4}, {0x101, 4}, {0x102, 8}, {0x106, 2}, {0x111, 8}, {0x115, 60000}, {0x117, 1}}), "with 60000 samples per pixel"},
		{"TIFF of many strips", tiffOf([][2]uint32{{0x100, 1}, {0x101, 99_000_000}, {0x102, 8}, {0x106, 1}, {0x111, 8}, {0x116, 1}, {0x117, 1}}), "StripOffsets"},
		{"overflowing PNG", pngHeader(1<<31-1, 1<<31-1), "PNG"},
		{"overflowing BMP", bmpHeader(math.MaxInt32, math.MinInt32), "BMP"},
		{"overflowing TIFF", tiffHeader(math.MaxUint32, math.MaxUint32), "TIFF"},
		{"zero PNG", pngHeader(0, 5), "damaged"},
		{"negative PNG", pngHeader(1<<31+5, 5), "damaged"},
		{"zero JPEG", jpegOfSize(t, 0, 0), "damaged"},
		{"zero BMP", bmpHeader(0, 0), "0 x 0 pixels"},
		{"negative BMP", bmpHeader(-4, 4), "damaged"},
		{"zero TIFF", tiffHeader(0, 4), "damaged"},
		{"zero WebP", bytes.Replace(readFixture(t, "lossy.webp"), []byte("\x9d\x01\x2a\x15\x00"), []byte("\x9d\x01\x2a\x00\x00"), 1), "0 x 13 pixels"},
		{"WebP longer than its data", riff, "truncated"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Decode(c.data, nil)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
		// Headers and error texts need kilobytes, pixels would need megabytes.
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<20); got > most {
			t.Errorf("%s: allocated %d bytes, want at most %d", c.name, got, most)
		}
	}
}

func TestMaxPixels(t *testing.T) {
	data := readFixture(t, "rgb8.png") // 21 x 13 = 273
	for _, c := range []struct {
		opt *Options
		ok  bool
	}{
		{nil, true},
		{&Options{}, true},
		{&Options{MaxPixels: -1}, true},
		{&Options{MaxPixels: 273}, true},
		{&Options{MaxPixels: 272}, false},
		{&Options{MaxPixels: 1}, false},
		{&Options{MaxPixels: math.MaxInt64}, true},
	} {
		if _, err := Decode(data, c.opt); (err == nil) != c.ok {
			t.Errorf("%+v: got %v, want ok %v", c.opt, err, c.ok)
		}
		if _, err := DecodeFile("testdata/rgb8.png", c.opt); (err == nil) != c.ok {
			t.Errorf("DecodeFile %+v: got %v, want ok %v", c.opt, err, c.ok)
		}
	}
}

func TestMaxBytes(t *testing.T) {
	const metadata = 64 << 20
	for _, c := range []struct {
		opt  *Options
		want int64
	}{
		{nil, 8*DefaultMaxPixels + metadata},
		{&Options{MaxPixels: 273}, 8*273 + metadata},
		{&Options{MaxPixels: math.MaxInt64}, 8*(math.MaxInt64/16) + metadata},
	} {
		if got := c.opt.MaxBytes(); got != c.want {
			t.Errorf("%+v: got %d, want %d", c.opt, got, c.want)
		}
	}
}

func TestDecoderPanicIsAnError(t *testing.T) {
	c := codec{
		name: "Odd", orientation: unturned,
		size:   func([]byte) (int, int, error) { return 1, 1, nil },
		pixels: func([]byte, int) (*Image, error) { panic("index out of range") },
	}
	im, err := c.decode([]byte("x"), nil)
	if im != nil || !errors.Is(err, ErrPanic) || !strings.Contains(err.Error(), "damaged Odd file, save it again: its decoder panicked: index out of range") {
		t.Errorf("got %v, %v, want ErrPanic", im, err)
	}
	if _, _, _, err := c.cost([]byte("x"), nil); !errors.Is(err, ErrPanic) { // a format whose cost is unknown
		t.Errorf("cost: got %v, want ErrPanic", err)
	}
}

func TestJPEGWarnings(t *testing.T) {
	whole := readFixture(t, "420.jpg")
	end := len(whole) - 2
	want := readGolden(t)["420.jpg"].rgb

	padded := slices.Concat(whole[:end], make([]byte, 5), whole[end:])
	im, err := Decode(padded, nil)
	if err != nil || !bytes.Equal(im.Pix, want) {
		t.Errorf("padding before the end: got %v, want the whole picture", err)
	}
	if _, err := Decode(whole[:end], nil); err == nil {
		t.Error("no end marker: got a picture, want an error")
	}
	for name, data := range map[string][]byte{
		"end marker in the middle of the scan": slices.Concat(whole[:end-100], whole[end:]),
		"damaged scan":                         slices.Concat(whole[:end-100], bytes.Repeat([]byte{0xff, 0x00}, 30), whole[end-40:]),
	} {
		if _, err := Decode(data, nil); err == nil {
			t.Errorf("%s: got a picture, want an error", name)
		}
	}
}

// A JPEG of Go's encoder comes back close to its source: quality 95 without
// chroma detail leaves errors of a few levels.
func TestJPEGRoundTrip(t *testing.T) {
	m := image.NewGray(image.Rect(0, 0, 64, 48))
	for i := range m.Pix {
		m.Pix[i] = uint8(2*(i%64) + 2*(i/64))
	}
	got, err := Decode(encodeJPEG(t, m), nil)
	if err != nil {
		t.Fatal(err)
	}
	const tolerance = 6
	for i, v := range got.Pix {
		if d := int(v) - int(m.Pix[i/3]); d < -tolerance || d > tolerance {
			t.Fatalf("sample %d: got %d, want %d +- %d", i, v, m.Pix[i/3], tolerance)
		}
	}
}

func TestIsImage(t *testing.T) {
	for name, want := range map[string]bool{
		"a.png": true, "a.PNG": true, "dir.x/a.Jpg": true, "a.jpeg": true, "a.bmp": true, "a.tif": true,
		"a.TIFF": true, "a.webp": true, "a.gif": false, "png": false, "a.png.txt": false, "": false,
	} {
		if got := IsImage(name); got != want {
			t.Errorf("IsImage(%q): got %v, want %v", name, got, want)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	for name, want := range readGolden(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			im, err := Decode(readFixture(t, name), nil)
			if err != nil || !bytes.Equal(im.Pix, want.rgb) {
				t.Errorf("got %v, want the same picture as alone", err)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for name := range readGolden(f) {
		f.Add(readFixture(f, name))
	}
	f.Add(pngHeader(60000, 60000))
	f.Add(bmpHeader(100, 100))
	f.Add(tiffHeader(100, 100))
	f.Add(webpHeader(100, 100))
	f.Fuzz(func(t *testing.T, data []byte) {
		opt := &Options{MaxPixels: 1 << 16}
		im, err := Decode(data, opt)
		if err != nil {
			if msg := err.Error(); !strings.HasPrefix(msg, "imagefile: ") || strings.Contains(msg, "\n") {
				t.Fatalf("error %q", msg)
			}
			return
		}
		if im.W < 1 || im.H < 1 || im.W*im.H > 1<<16 || len(im.Pix) != 3*im.W*im.H {
			t.Fatalf("%d x %d with %d bytes", im.W, im.H, len(im.Pix))
		}
	})
}

// photo is a picture that compresses about as a photograph does.
func photo(size int) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, size, size))
	state := uint32(1)
	for i := range m.Pix {
		state = state*1664525 + 1013904223
		m.Pix[i] = uint8(128 + 100*math.Sin(float64(i/4%size)/40) + float64(state>>28))
		if i%4 == 3 {
			m.Pix[i] = 255
		}
	}
	return m
}

func BenchmarkDecode(b *testing.B) {
	m := photo(1024)
	for _, c := range []struct {
		name string
		data []byte
	}{
		{"png", encodePNG(b, m)},
		{"jpeg", encodeJPEG(b, m)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(3 * 1024 * 1024)
			for b.Loop() {
				if _, err := Decode(c.data, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func ExampleDecode() {
	m := image.NewGray(image.Rect(0, 0, 2, 1))
	m.Pix[1] = 200
	var file bytes.Buffer
	if err := png.Encode(&file, m); err != nil {
		fmt.Println(err)
		return
	}
	im, err := Decode(file.Bytes(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(im.W, im.H, im.Pix)
	// Output: 2 1 [0 0 0 200 200 200]
}

func ExampleOptions() {
	_, err := DecodeFile("testdata/rgb8.png", &Options{MaxPixels: 100})
	fmt.Println(err)
	// Output: imagefile: testdata/rgb8.png: PNG file of 21 x 13 pixels, the limit is 100 pixels; raise max_pixels to accept it
}
