package imagefile

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
)

// encoded makes a file of a picture.
func encoded(t testing.TB, m image.Image, encode func(w *bytes.Buffer, m image.Image) error) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := encode(&file, m); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func asPNG(w *bytes.Buffer, m image.Image) error {
	encoder := png.Encoder{CompressionLevel: png.BestSpeed}
	return encoder.Encode(w, m)
}

func asJPEG(w *bytes.Buffer, m image.Image) error { return jpeg.Encode(w, m, nil) }
func asBMP(w *bytes.Buffer, m image.Image) error  { return bmp.Encode(w, m) }
func asTIFF(w *bytes.Buffer, m image.Image) error { return tiff.Encode(w, m, nil) }

// smooth is an RGBA picture that does not compress to nothing.
func smooth(side int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, side, side))
	for y := range side {
		for x := range side {
			m.SetRGBA(x, y, color.RGBA{uint8(x * y >> 7), uint8(x + y), uint8(x ^ y), 255})
		}
	}
	return m
}

// claimingWebP is the head of a lossless WebP file that says it has w x h pixels.
func claimingWebP(w, h int) []byte {
	bits := uint32(w-1) | uint32(h-1)<<14
	chunk := append([]byte("VP8L"), 8, 0, 0, 0, 0x2f)
	chunk = append(binary.LittleEndian.AppendUint32(chunk, bits), 0, 0, 0)
	file := binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(4+len(chunk)))
	return append(append(file, "WEBP"...), chunk...)
}

// tiffHead is a TIFF file without pixels, of tags with a 32-bit number each.
func tiffHead(tags ...[2]uint32) []byte {
	file := []byte("II*\x00\x08\x00\x00\x00")
	file = binary.LittleEndian.AppendUint16(file, uint16(len(tags)))
	for _, tag := range tags {
		file = binary.LittleEndian.AppendUint16(file, uint16(tag[0]))
		file = binary.LittleEndian.AppendUint16(file, 4)
		file = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(file, 1), tag[1])
	}
	return append(file, 0, 0, 0, 0)
}

// longTags is a TIFF of 1 x 1 pixels, 77, with so many tags that nobody knows, whose values are the same bytes.
func longTags(count, bytes int) []byte {
	tags := [][2]uint32{{0x100, 1}, {0x101, 1}, {0x102, 8}, {0x106, 1}, {0x111, 8}, {0x117, 1}}
	for i := range count {
		tags = append(tags, [2]uint32{uint32(50000 + i), 0})
	}
	file := tiffHead(tags...)
	for i := range count { // of type BYTE, where all is that no entry is
		e := file[10+12*(6+i):]
		binary.LittleEndian.PutUint16(e[2:], 1)
		binary.LittleEndian.PutUint32(e[4:], uint32(bytes))
		binary.LittleEndian.PutUint32(e[8:], uint32(len(file)))
	}
	binary.LittleEndian.PutUint32(file[10+12*4+8:], uint32(len(file)))
	file = append(file, make([]byte, bytes)...)
	file[len(file)-bytes] = 77
	return file
}

// deflated is a TIFF of side x side pixels of so many samples, all in one tile or strip.
func deflated(t *testing.T, side, bits, samples, photometric uint32, tile bool) []byte {
	t.Helper()
	place, size := [2]uint32{0x111, 0}, uint32(0x117)
	tags := [][2]uint32{{0x100, side}, {0x101, side}, {0x102, bits}, {0x103, 8}, {0x106, photometric}, {0x115, samples}}
	if tile {
		place[0], size = 0x144, 0x145
		tags = append(tags, [2]uint32{0x142, side}, [2]uint32{0x143, side})
	}
	if photometric == tiffRGB && samples == 4 {
		tags = append(tags, [2]uint32{0x152, 2})
	}
	var pixels bytes.Buffer
	to, err := zlib.NewWriterLevel(&pixels, zlib.BestSpeed)
	if err == nil {
		_, err = to.Write(make([]byte, side*side*bits/8*samples))
	}
	if err == nil {
		err = to.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	tags = append(tags, place, [2]uint32{size, uint32(pixels.Len())})
	place[1] = uint32(len(tiffHead(tags...)))
	tags[len(tags)-2] = place
	data := append(tiffHead(tags...), pixels.Bytes()...)
	if _, err := Decode(data, nil); err != nil {
		t.Fatal(err)
	}
	return data
}

// The estimates, in bytes per pixel of pictures with so many that all else does not count.
func TestCost(t *testing.T) {
	const side = 1024
	grey, wide := image.NewGray(image.Rect(0, 0, side, side)), image.NewRGBA64(image.Rect(0, 0, side, side))
	wide.Set(0, 0, color.RGBA64{1, 2, 3, 0xffff})
	palette := image.NewPaletted(grey.Rect, color.Palette{color.Black, color.White})
	baseline := encoded(t, image.NewRGBA(grey.Rect), asJPEG)
	progressive := bytes.Replace(baseline, []byte{0xff, 0xc0}, []byte{0xff, 0xc2}, 1)
	first := bytes.Index(baseline, []byte{0xff, 0xda})
	scans := bytes.Clone(baseline)
	scans[first+4] = 1 // component in the first scan
	interlaced := bytes.Clone(encoded(t, image.NewRGBA(grey.Rect), asPNG))
	interlaced[28] = 1
	bomb := [][2]uint32{{0x100, side}, {0x101, side}, {0x102, 8}, {0x106, 2}, {0x115, 3}, {0x111, 8}, {0x117, 8}}
	frame := []byte{0xff, 0xc2, 0, 17, 8, side >> 8, side & 255, side >> 8, side & 255, 3, 1, 0x11, 0, 2, 0x11, 1, 3, 0x11, 1}
	for _, c := range []struct {
		what string
		data []byte
		want int64 // bytes per pixel
	}{
		{"grey PNG", encoded(t, grey, asPNG), 4},
		{"palette PNG", encoded(t, palette, asPNG), 4},
		{"RGB PNG", encoded(t, image.NewRGBA(grey.Rect), asPNG), 7},
		{"RGB PNG of 16 bits", encoded(t, wide, asPNG), 11},
		{"interlaced PNG", interlaced, 9},
		{"baseline JPEG", baseline, 3},
		{"grey JPEG", encoded(t, grey, asJPEG), 3},
		{"progressive JPEG", progressive, 6}, // 4:2:0
		{"JPEG of several scans", scans, 6},
		{"RGB BMP", encoded(t, image.NewRGBA(grey.Rect), asBMP), 7},
		{"RGB TIFF in one strip", tiffHead(bomb...), 10},
		{"RGB TIFF in strips", tiffHead(append(bomb, [2]uint32{0x116, 1})...), 7},
		{"RGB TIFF in one strip of zstd", tiffHead(append(bomb, [2]uint32{0x103, 50000})...), 13},
		{"JPEG in TIFF", append(tiffHead(append(bomb, [2]uint32{0x103, 7}, [2]uint32{0x116, 1})...), frame...), 13},
		{"TIFF in a huge tile", tiffHead(append(bomb[:5:5], [2]uint32{0x142, 64 * side}, [2]uint32{0x143, side}, [2]uint32{0x144, 8}, [2]uint32{0x145, 8})...), 199},
		{"lossless WebP", claimingWebP(side, side), 9},
	} {
		format, err := find(c.data)
		if err != nil {
			t.Fatal(err)
		}
		// Headers alone: not all of these files can be decoded.
		size := costs[format.name](c.data, side, side)
		if got := (size + side*side/4) / (side * side); got != c.want {
			t.Errorf("%s: got %d bytes, %d per pixel, want %d", c.what, size, got, c.want)
		}
	}
}

// What cannot be decoded by its header has no cost, and Cost says so as Decode does.
func TestCostRefuses(t *testing.T) {
	opt := &Options{MaxPixels: 1000}
	for what, data := range map[string][]byte{
		"nothing": nil, "text": []byte("hello, world"), "GIF": []byte("GIF89a\x01\x00\x01\x00"), "large": claimingWebP(16383, 16383),
		"half a header": []byte("\x89PNG\r\n\x1a\n\x00\x00"), "no size": tiffHead(), "cut": []byte("\xff\xd8\xff\xc0\x00"),
	} {
		_, decodeErr := Decode(data, opt)
		_, _, size, err := Cost(data, opt)
		if err == nil || size != 0 || decodeErr == nil || err.Error() != decodeErr.Error() {
			t.Errorf("%s: got %d bytes, %v, want Decode's %v", what, size, err, decodeErr)
		}
	}
}

// Every format has an estimate.
func TestCostOfAllFormats(t *testing.T) {
	for _, c := range codecs {
		if costs[c.name] == nil {
			t.Errorf("%s has none", c.name)
		}
	}
	for name := range readGolden(t) {
		data := readFixture(t, name)
		w, h, size, err := Cost(data, nil)
		if err != nil || size < packed*int64(w)*int64(h) {
			t.Errorf("%s: got %d x %d, %d bytes, %v, want at least the picture's", name, w, h, size, err)
		}
	}
}

// costEnv names the file that this program decodes when it is called by TestCostBoundsMemory.
const costEnv = "IMAGEFILE_COST_OF"

// What a process of its own takes while it decodes a large picture is at most the estimate, and what there is besides.
func TestCostBoundsMemory(t *testing.T) {
	if path := os.Getenv(costEnv); path != "" {
		fmt.Println(peakOf(t, path))
		return
	}
	const side = 2500
	const besides = 16 << 20 // the collector's and the C library's
	m := smooth(side)
	grey := image.NewGray(m.Rect)
	copy(grey.Pix, m.Pix)
	wide := image.NewNRGBA64(m.Rect)
	copy(wide.Pix, m.Pix)
	damaged := bytes.Clone(encoded(t, m, asPNG))
	damaged[len(damaged)/2] ^= 0xff
	for what, data := range map[string][]byte{
		"RGB PNG": encoded(t, m, asPNG), "grey PNG": encoded(t, grey, asPNG), "RGBA PNG of 16 bits": encoded(t, wide, asPNG), "damaged PNG": damaged,
		"JPEG": encoded(t, m, asJPEG), "BMP": encoded(t, m, asBMP), "TIFF": encoded(t, m, asTIFF), "WebP": claimingWebP(side, side),
		"TIFF of many long tags": longTags(300, 1<<20), "RGBA TIFF of 16 bits in a tile": deflated(t, 2496, 16, 4, tiffRGB, true),
		"CMYK TIFF in a strip": deflated(t, side, 8, 4, tiffSeparated, false), "CMYK TIFF in a tile": deflated(t, 2496, 8, 4, tiffSeparated, true),
		"Lab TIFF in a strip": deflated(t, side, 8, 3, tiffLab, false), "grey TIFF of 16 bits in a tile": deflated(t, 2496, 16, 1, tiffBlackIsZero, true),
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "picture")
			if err := os.WriteFile(path, data, 0o666); err != nil {
				t.Fatal(err)
			}
			_, _, size, err := Cost(data, nil)
			if err != nil {
				t.Fatal(err)
			}
			child := exec.Command(os.Args[0], "-test.run=^TestCostBoundsMemory$", "-test.v")
			child.Env = append(os.Environ(), costEnv+"="+path, "GOGC=off", fmt.Sprintf("GOMEMLIMIT=%d", size+int64(len(data))+besides/2))
			out, err := child.CombinedOutput()
			lines := strings.Split(string(out), "\n")
			if err != nil || len(lines) < 2 {
				t.Fatalf("%v: %s", err, out)
			}
			peak, err := strconv.ParseInt(lines[1], 10, 64)
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			t.Logf("%d kB, estimated %.1f MB, at most %.1f MB", len(data)/1000, float64(size)/1e6, float64(peak)/1e6)
			if peak > size+besides {
				t.Errorf("got a peak of %d bytes, want at most %d and %d besides", peak, size, besides)
			}
		})
	}
}

// peakOf decodes a file and returns by how much that raised the peak of this process's memory, in bytes.
func peakOf(t *testing.T, path string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	debug.FreeOSMemory()
	before := residentPeak(t)
	_, _ = Decode(data, nil) // some are damaged
	runtime.KeepAlive(data)
	return residentPeak(t) - before
}

// residentPeak is the most memory that this process had in use so far, in bytes.
func residentPeak(t *testing.T) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kB, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kB << 10
}

// No header makes the estimate panic, overflow or miss the pixels of a file that it accepts.
func FuzzCost(f *testing.F) {
	f.Add(tiffHead([2]uint32{0x100, 9}, [2]uint32{0x101, 9}, [2]uint32{0x142, 1 << 31}, [2]uint32{0x143, 1 << 31}))
	f.Add(claimingWebP(16383, 1))
	for _, name := range []string{"420.jpg", "progressive.jpg", "cmyk.jpg", "rgb16_interlaced.png", "grey8_trns.png", "palette.bmp", "rgb16.tif", "lossy_alpha.webp"} {
		f.Add(readFixture(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w, h, size, err := Cost(data, &Options{MaxPixels: 1 << 16})
		if err != nil {
			return
		}
		if int64(w)*int64(h) > 1<<16 || size < 0 {
			t.Fatalf("got %d x %d pixels, %d bytes", w, h, size)
		}
		im, err := Decode(data, &Options{MaxPixels: 1 << 16})
		if err == nil && size < int64(len(im.Pix)) {
			t.Fatalf("got %d bytes for a picture of %d", size, len(im.Pix))
		}
	})
}
