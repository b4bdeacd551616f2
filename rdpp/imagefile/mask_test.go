package imagefile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
)

// drawnMask is a picture of 16 x 12 pixels, a rectangle of which is drawn.
func drawnMask(background, drawn color.Color) *image.NRGBA64 {
	m := image.NewNRGBA64(image.Rect(0, 0, 16, 12))
	for y := range 12 {
		for x := range 16 {
			c := background
			if isDrawn(x, y) {
				c = drawn
			}
			m.Set(x, y, c)
		}
	}
	return m
}

func isDrawn(x, y int) bool { return x >= 3 && x < 9 && y >= 2 && y < 10 }

// as copies a picture into one of another colour model.
func as[M interface {
	image.Image
	Set(x, y int, c color.Color)
}](to M, from image.Image) M {
	for y := range from.Bounds().Dy() {
		for x := range from.Bounds().Dx() {
			to.Set(x, y, from.At(x, y))
		}
	}
	return to
}

// palette draws with two numbers.
func palette(background, drawn uint8, colours ...color.Color) *image.Paletted {
	m := image.NewPaletted(image.Rect(0, 0, 16, 12), colours)
	for i := range m.Pix {
		m.Pix[i] = background
		if isDrawn(i%16, i/16) {
			m.Pix[i] = drawn
		}
	}
	return m
}

// What EncodeMask writes is read as the same mask, and equal masks are written alike.
func TestEncodeMask(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for _, size := range []image.Point{{1, 1}, {9, 1}, {1, 300}, {33, 7}, {64, 64}} {
		for _, most := range []int{1, 2, 0} { // nothing is drawn, some, all
			m := &Mask{W: size.X, H: size.Y, Pix: make([]uint8, size.X*size.Y)}
			for i := range m.Pix {
				if m.Pix[i] = 1; most > 0 {
					m.Pix[i] = uint8(random.IntN(most))
				}
			}
			file, err := EncodeMask(m)
			if err != nil {
				t.Fatal(err)
			}
			got, err := DecodeMask(file, nil)
			if err != nil || got.W != m.W || got.H != m.H || !slices.Equal(got.Pix, m.Pix) {
				t.Errorf("%v: got %v, %v, want %v", size, got, err, m)
			}
			if again, err := EncodeMask(got); err != nil || !bytes.Equal(again, file) {
				t.Errorf("%v: got another file, %v, of the same mask", size, err)
			}
		}
	}
}

func TestDecodeMask(t *testing.T) {
	r := image.Rect(0, 0, 16, 12)
	black, white, red, voc := color.Color(color.Black), color.Color(color.White), color.NRGBA{R: 255, A: 255}, color.NRGBA{R: 128, A: 255}
	clear := func(c color.NRGBA) color.Color { c.A = 0; return c }
	all := make([]bool, 16*12)
	for i := range all {
		all[i] = isDrawn(i%16, i/16)
	}
	grey := func(v uint8) image.Image { return as(image.NewGray(r), drawnMask(black, color.Gray{Y: v})) }
	grey16 := func(v uint16) image.Image { return as(image.NewGray16(r), drawnMask(black, color.Gray16{Y: v})) }
	nrgba := func(background, drawn color.Color) image.Image {
		return as(image.NewNRGBA(r), drawnMask(background, drawn))
	}
	allClear := as(image.NewNRGBA(r), drawnMask(black, red))
	for i := 3; i < len(allClear.Pix); i += 4 {
		allClear.Pix[i] = 0
	}
	cases := []struct {
		name string
		m    image.Image
	}{
		{"red", as(image.NewRGBA(r), drawnMask(black, red))},
		{"blue of 1", as(image.NewRGBA(r), drawnMask(black, color.NRGBA{B: 1, A: 255}))},
		{"colour of 16 bits", as(image.NewRGBA64(r), drawnMask(black, color.RGBA64{G: 1, A: 0xffff}))},
		{"white on clear", nrgba(clear(color.NRGBA{}), white)},
		{"black on clear", nrgba(clear(color.NRGBA{}), black)},
		{"white on clear white", nrgba(clear(color.NRGBA{R: 255, G: 255, B: 255}), white)},
		{"half clear on clear", nrgba(clear(color.NRGBA{}), color.NRGBA{R: 255, A: 1})},
		{"red on clear in 16 bits", drawnMask(color.NRGBA64{}, color.NRGBA64{R: 0xffff, A: 0x0100})},
		{"all clear, by colour", allClear},
		{"all half clear, by colour", nrgba(color.NRGBA{A: 99}, color.NRGBA{R: 255, A: 99})},
		{"half clear on black", nrgba(black, color.NRGBA{R: 255, A: 128})},
		{"palette of black and VOC's dark red", palette(0, 1, black, voc)},
		{"palette, many numbers", palette(0, 21, slices.Repeat([]color.Color{black, voc}, 11)...)},
		{"palette without black", palette(0, 1, white, red)},
		{"palette the other way", palette(1, 0, red, black)},
		{"palette of nothing but black", palette(0, 2, black, black, black)},
		{"palette of grey numbers", palette(0, 1, color.Gray{}, color.Gray{Y: 1})},
		{"palette with a clear colour", palette(3, 1, red, voc, white, clear(color.NRGBA{}))},
	}
	for _, v := range []uint8{1, 9, 31, 32, 38, 50, 76, 100, 127, 128, 254, 255} {
		cases = append(cases, struct {
			name string
			m    image.Image
		}{fmt.Sprintf("grey %d", v), grey(v)})
	}
	for _, v := range []uint16{1, 2, 255, 256, 0x0fff, 0x7fff, 0xff00, 0xffff} {
		cases = append(cases, struct {
			name string
			m    image.Image
		}{fmt.Sprintf("16 bits, %d", v), grey16(v)})
	}
	check := func(t *testing.T, data []byte) {
		t.Helper()
		got, err := DecodeMask(data, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range got.Pix {
			if (v == 1) != all[i] || v > 1 || got.W != 16 || got.H != 12 {
				t.Fatalf("pixel %d, %d of %d x %d: got %d, want drawn %v of 16 x 12", i%16, i/16, got.W, got.H, v, all[i])
			}
		}
	}
	for _, c := range cases {
		t.Run(c.name+", PNG", func(t *testing.T) { check(t, encodePNG(t, c.m)) })
		if strings.HasPrefix(c.name, "palette with") || strings.HasPrefix(c.name, "palette of nothing") {
			continue // of which the encoders below make something else
		}
		t.Run(c.name+", TIFF", func(t *testing.T) {
			var data bytes.Buffer
			if err := tiff.Encode(&data, c.m, nil); err != nil {
				t.Fatal(err)
			}
			check(t, data.Bytes())
		})
		if _, isPalette := c.m.(*image.Paletted); isPalette || strings.HasPrefix(c.name, "grey") {
			t.Run(c.name+", BMP", func(t *testing.T) {
				var data bytes.Buffer
				if err := bmp.Encode(&data, c.m); err != nil {
					t.Fatal(err)
				}
				check(t, data.Bytes())
			})
		}
	}
}

// Compression leaves ripples around what is drawn, which are not drawn.
func TestDecodeMaskOfJPEG(t *testing.T) {
	const side, radius = 128, 23
	for _, c := range []struct {
		drawn   color.RGBA
		quality int
		least   float64 // of what is drawn, or found, found rightly
	}{
		{color.RGBA{255, 255, 255, 255}, 95, 1}, {color.RGBA{255, 255, 255, 255}, 75, 0.995}, {color.RGBA{100, 100, 100, 255}, 90, 1},
		{color.RGBA{100, 100, 100, 255}, 75, 0.99}, {color.RGBA{50, 50, 50, 255}, 90, 0.99}, {color.RGBA{255, 0, 0, 255}, 90, 0.9},
	} {
		m := image.NewRGBA(image.Rect(0, 0, side, side))
		inside := func(i int) bool {
			x, y := i%side-60, i/side-50
			return x*x+y*y < radius*radius
		}
		for i := range side * side {
			m.Set(i%side, i/side, color.Black)
			if inside(i) {
				m.Set(i%side, i/side, c.drawn)
			}
		}
		var data bytes.Buffer
		if err := jpeg.Encode(&data, m, &jpeg.Options{Quality: c.quality}); err != nil {
			t.Fatal(err)
		}
		got, err := DecodeMask(data.Bytes(), nil)
		if err != nil {
			t.Fatal(err)
		}
		both, either := 0, 0
		for i, v := range got.Pix {
			if v == 1 && inside(i) {
				both++
			}
			if v == 1 || inside(i) {
				either++
			}
		}
		if share := float64(both) / float64(either); share < c.least {
			t.Errorf("%v at quality %d: got %.3f of it rightly, want %.3f", c.drawn, c.quality, share, c.least)
		}
	}
}

func TestDecodeMaskErrors(t *testing.T) {
	mixed := image.NewNRGBA(image.Rect(0, 0, 3, 1))
	mixed.Set(1, 0, color.Black)
	mixed.Set(2, 0, color.White)
	for _, c := range []struct {
		name string
		data []byte
		opt  *Options
		want string
	}{
		{"black and white on clear", encodePNG(t, mixed), nil, "either may be its background"},
		{"nothing", nil, nil, "empty file"},
		{"text", []byte("a mask"), nil, "not an image"},
		{"large", encodePNG(t, drawnMask(color.Black, color.White)), &Options{MaxPixels: 191}, "the limit is 191 pixels"},
		{"cut", encodePNG(t, drawnMask(color.Black, color.White))[:60], nil, "PNG file"},
	} {
		path := filepath.Join(t.TempDir(), "mask.png")
		if err := os.WriteFile(path, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := DecodeMask(c.data, c.opt)
		_, fileErr := DecodeMaskFile(path, c.opt)
		for _, err := range []error{err, fileErr} {
			if err == nil || !strings.HasPrefix(err.Error(), "imagefile: ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: got error %v, want one line with %q", c.name, err, c.want)
			}
		}
		if fileErr != nil && !strings.Contains(fileErr.Error(), path) {
			t.Errorf("%s: got error %v, want one naming %s", c.name, fileErr, path)
		}
	}
	if _, err := DecodeMaskFile(filepath.Join(t.TempDir(), "gone.png"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: got error %v", err)
	}
}

// turned is a PNG with an orientation tag.
func turned(t testing.TB, m image.Image, orientation int) []byte {
	t.Helper()
	exif := append([]byte("MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00"), byte(orientation), 0, 0, 0, 0, 0, 0)
	content := append([]byte("eXIf"), exif...)
	chunk := append(binary.BigEndian.AppendUint32(nil, uint32(len(exif))), content...)
	chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(content))
	file := encodePNG(t, m)
	return slices.Concat(file[:pngStart], chunk, file[pngStart:])
}

// A mask is turned upright as a photograph is, and its size is known before.
func TestMaskOrientation(t *testing.T) {
	for orientation := range 10 {
		path := filepath.Join(t.TempDir(), "mask.png")
		data := turned(t, as(image.NewGray(image.Rect(0, 0, 16, 12)), drawnMask(color.Black, color.White)), orientation)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		im, err := DecodeFile(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		mask, err := DecodeMaskFile(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantW, wantH := 16, 12
		if orientation >= 5 && orientation <= 8 {
			wantW, wantH = 12, 16
		}
		w, h, err := SizeFile(path, nil)
		if err != nil || w != wantW || h != wantH || mask.W != wantW || mask.H != wantH || im.W != wantW {
			t.Fatalf("orientation %d: got %d x %d, mask of %d x %d, error %v, want %d x %d", orientation, w, h, mask.W, mask.H, err, wantW, wantH)
		}
		for i, v := range mask.Pix {
			if im.Pix[3*i] != 255*v {
				t.Fatalf("orientation %d, pixel %d: got drawn %d, grey %d", orientation, i, v, im.Pix[3*i])
			}
		}
	}
}

func TestSizeFileErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.png")
	if err := os.WriteFile(path, []byte("no image"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, filepath.Join(t.TempDir(), "gone.png")} {
		if _, _, err := SizeFile(path, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("got error %v, want one naming %s", err, path)
		}
	}
}

// FuzzDecodeMask decodes any bytes: a mask is of zeros and ones, of the size
// that Decode finds, and there is none where Decode finds no picture.
func FuzzDecodeMask(f *testing.F) {
	for _, name := range []string{"grey1.png", "420.jpg", "rgb.bmp", "grey16.tif", "lossy.webp", "lossless.webp"} {
		f.Add(readFixture(f, name))
	}
	f.Add(encodeGIF(f, 16, 12, palette(0, 1, color.Black, color.White)))
	f.Fuzz(func(t *testing.T, data []byte) {
		opt := &Options{MaxPixels: 1 << 20}
		m, err := DecodeMask(data, opt)
		im, imErr := Decode(data, opt)
		if err != nil {
			if imErr == nil && im.Pages == 1 && !strings.Contains(err.Error(), "background") && !strings.Contains(err.Error(), "file") {
				t.Fatalf("got error %v for a picture that can be decoded", err)
			}
			return
		}
		if bytes.HasPrefix(data, []byte("GIF")) {
			im, imErr = &Image{W: m.W, H: m.H}, nil // of masks alone
		}
		if imErr != nil {
			t.Fatalf("got a mask, but no picture: %v", imErr)
		}
		if m.W != im.W || m.H != im.H || len(m.Pix) != m.W*m.H {
			t.Fatalf("got %d x %d, %d bytes, want %d x %d", m.W, m.H, len(m.Pix), im.W, im.H)
		}
		if slices.ContainsFunc(m.Pix, func(v uint8) bool { return v > 1 }) {
			t.Fatal("got a pixel that is neither 0 nor 1")
		}
	})
}

// In a TIFF of grey with alpha, alpha tells what is drawn, of however many bits.
func TestMaskOfGreyAlphaTIFF(t *testing.T) {
	const photometric, samples, extra = 0x106, 0x115, 0x152
	for bits, pixels := range map[uint16][]byte{ // black that is clear, and black that is not
		8:  {0, 0, 0, 255},
		10: {0, 0, 0, 0x03, 0xff},
		12: {0, 0, 0, 0, 0x0f, 0xff},
		16: {0, 0, 0, 0, 0, 0, 0xff, 0xff},
	} {
		for _, zero := range []uint16{0, 1} { // white, black
			for _, kind := range []uint16{1, 2} { // of alpha: associated, unassociated
				page := tiffGrey(bits, tiffEntry{0x102, []uint16{bits, bits}}, tiffEntry{photometric, []uint16{zero}},
					tiffEntry{samples, []uint16{2}}, tiffEntry{extra, []uint16{kind}})
				m, err := DecodeMask(tiffPagesOf(pixels, page), nil)
				if err != nil {
					t.Errorf("%d bits, zero %d, alpha %d: %v", bits, zero, kind, err)
				} else if !bytes.Equal(m.Pix, []byte{0, 1}) {
					t.Errorf("%d bits, zero %d, alpha %d: got %v, want the second pixel drawn", bits, zero, kind, m.Pix)
				}
			}
		}
	}
}

// A mask whose alpha would be lost is refused.
func TestMaskOfPaletteWithAlphaTIFF(t *testing.T) {
	colours := make([]uint16, 3*256)
	page := tiffGrey(8, tiffEntry{0x102, []uint16{8, 8}}, tiffEntry{0x106, []uint16{3}}, tiffEntry{0x115, []uint16{2}},
		tiffEntry{0x140, colours}, tiffEntry{0x152, []uint16{2}})
	_, err := DecodeMask(tiffPagesOf([]byte{0, 0, 0, 255}, page), nil)
	if want := "of a mask with alpha and PhotometricInterpretation 3"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want an error with %q", err, want)
	}
	if _, err := Decode(tiffPagesOf([]byte{0, 0, 0, 255}, page), nil); err != nil {
		t.Errorf("as a picture: got %v, want it read", err)
	}
}

// A mask of several pictures is refused before they are decoded; as a photograph the first one of a PNG counts.
func TestMaskOfFrames(t *testing.T) {
	var buffer bytes.Buffer
	if err := png.Encode(&buffer, image.NewGray(image.Rect(0, 0, 4, 3))); err != nil {
		t.Fatal(err)
	}
	still := buffer.Bytes()
	const header = 33 // bytes up to the end of IHDR
	animated := func(frames uint32) []byte {
		chunk := binary.BigEndian.AppendUint32([]byte("acTL"), frames)
		chunk = binary.BigEndian.AppendUint32(chunk, 0)
		data := slices.Clone(still[:header])
		data = binary.BigEndian.AppendUint32(data, uint32(len(chunk)-4))
		data = append(data, chunk...)
		data = binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(chunk))
		return append(data, still[header:]...)
	}
	for frames, want := range map[uint32]string{0: "", 1: "", 2: "a mask of 2 pictures in one PNG file", 1<<32 - 1: "pictures in one PNG file"} {
		_, err := DecodeMask(animated(frames), nil)
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && !strings.Contains(got, want) {
			t.Errorf("a PNG that says it has %d frames: got %v, want %q", frames, err, want)
		}
	}
	im, err := Decode(animated(2), nil)
	if err != nil || im.Pages != 2 {
		t.Errorf("as a photograph: got %v, %v, want the first of 2 pictures", im, err)
	}
	// A second picture of a GIF that ends within it: whoever decodes it finds it damaged.
	buffer.Reset()
	if err := gif.Encode(&buffer, image.NewGray(image.Rect(0, 0, 4, 3)), nil); err != nil {
		t.Fatal(err)
	}
	half := append(buffer.Bytes()[:buffer.Len()-1], 0x2c, 0, 0, 0, 0, 4, 0, 3, 0, 0, 2)
	if _, err := DecodeMask(half, nil); err == nil || !strings.Contains(err.Error(), "a mask of 2 pictures in one GIF file") {
		t.Errorf("got %v, want it refused for its second picture", err)
	}
}
