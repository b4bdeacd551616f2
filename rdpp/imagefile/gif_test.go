package imagefile

import (
	"bytes"
	"image"
	"image/color"
	"image/gif"
	"strings"
	"testing"
)

// encodeGIF writes pictures into one GIF of w x h pixels.
func encodeGIF(t testing.TB, w, h int, pictures ...*image.Paletted) []byte {
	t.Helper()
	all := gif.GIF{Image: pictures, Delay: make([]int, len(pictures)), Config: image.Config{Width: w, Height: h}}
	var data bytes.Buffer
	if err := gif.EncodeAll(&data, &all); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

// A GIF is read as a mask, if it is one picture, and never as a photograph.
func TestGIF(t *testing.T) {
	white, black, clear := color.Color(color.White), color.Color(color.Black), color.Color(color.NRGBA{})
	red := color.NRGBA{R: 255, A: 255}
	one := palette(0, 1, black, white)
	for name, data := range map[string][]byte{
		"white on black":            encodeGIF(t, 16, 12, one),
		"red on a clear ground":     encodeGIF(t, 16, 12, palette(0, 1, clear, red)),
		"black on a clear ground":   encodeGIF(t, 16, 12, palette(0, 1, clear, black)),
		"classes without a black":   encodeGIF(t, 16, 12, palette(0, 5, white, red, red, red, red, red)),
		"black at the second place": encodeGIF(t, 16, 12, palette(1, 0, red, black)),
	} {
		m, err := DecodeMask(data, nil)
		if err != nil {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		for i, v := range m.Pix {
			if want := isDrawn(i%16, i/16); m.W != 16 || m.H != 12 || v == 1 != want {
				t.Errorf("%s: got %d at %d of %d x %d pixels, want %v", name, v, i, m.W, m.H, want)
				break
			}
		}
		if _, err := Decode(data, nil); err == nil || !strings.Contains(err.Error(), "as a photograph") {
			t.Errorf("%s: got %v for a photograph, want that GIFs are none", name, err)
		}
		w, h, size, err := Cost(data, nil)
		if w != 16 || h != 12 || size < 4*16*12 || err != nil {
			t.Errorf("%s: got a cost of %d for %d x %d pixels, %v", name, size, w, h, err)
		}
	}
	part := image.NewPaletted(image.Rect(2, 2, 6, 6), color.Palette{black, white})
	whole := encodeGIF(t, 16, 12, one)
	for name, c := range map[string]struct {
		data []byte
		opt  *Options
		want string
	}{
		"two pictures":   {encodeGIF(t, 16, 12, one, one), nil, "2 pictures"},
		"three":          {encodeGIF(t, 16, 12, one, part, one), nil, "3 pictures"},
		"a part":         {encodeGIF(t, 16, 12, part), nil, "a part of it"},
		"cut":            {whole[:len(whole)-9], nil, "GIF file"},
		"a header alone": {whole[:10], nil, "GIF file"},
		"large":          {whole, &Options{MaxPixels: 191}, "the limit is 191 pixels"},
	} {
		if _, err := DecodeMask(c.data, c.opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestIsMask(t *testing.T) {
	for name, want := range map[string]bool{"a.gif": true, "A.GIF": true, "a.png": true, "a.TIFF": true, "gif": false, "a.gif.txt": false, "a.pgm": false} {
		if got := IsMask(name); got != want {
			t.Errorf("IsMask(%q): got %v, want %v", name, got, want)
		}
		if IsMask(name) && name[len(name)-3:] == "gif" && IsImage(name) {
			t.Errorf("IsImage(%q): got true, want false", name)
		}
	}
}
