package framing_test

import (
	"encoding/base64"
	"errors"
	"image"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/setting"
)

// draw is a mask of w x h pixels in which a rectangle is drawn.
func draw(w, h int, drawn image.Rectangle) *imagefile.Mask {
	m := &imagefile.Mask{W: w, H: h, Pix: make([]uint8, w*h)}
	for y := drawn.Min.Y; y < drawn.Max.Y; y++ {
		for x := drawn.Min.X; x < drawn.Max.X; x++ {
			m.Pix[y*w+x] = 1
		}
	}
	return m
}

// drawing is such a mask as it travels.
func drawing(t testing.TB, w, h int, drawn image.Rectangle) framing.Drawing {
	t.Helper()
	d, err := framing.Draw(draw(w, h, drawn))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func noise(w, h int) *imagefile.Image {
	rng := rand.New(rand.NewPCG(1, 2))
	img := &imagefile.Image{W: w, H: h, Pix: make([]uint8, 3*w*h)}
	for i := range img.Pix {
		img.Pix[i] = uint8(rng.Uint32())
	}
	return img
}

func TestFrame(t *testing.T) {
	const S = 32
	square := image.Rect(0, 0, S, S)
	for _, c := range []struct {
		name     string
		view     framing.View
		w, h     int
		ignore   *imagefile.Mask
		from, to image.Rectangle
		counted  int
		area     framing.Area
		notes    int
	}{
		{name: "squashed", w: 100, h: 50, from: image.Rect(0, 0, 100, 50), to: square, counted: S * S, area: framing.Area{Width: 100, Height: 50}},
		{name: "padded, wide", view: framing.View{Fit: framing.Pad}, w: 128, h: 64, from: image.Rect(0, 0, 128, 64), to: image.Rect(0, 8, 32, 24),
			counted: 32 * 16, area: framing.Area{Y: -32, Width: 128, Height: 128}},
		{name: "padded, high", view: framing.View{Fit: framing.Pad}, w: 16, h: 64, from: image.Rect(0, 0, 16, 64), to: image.Rect(12, 0, 20, 32),
			counted: 8 * 32, area: framing.Area{X: -24, Width: 64, Height: 64}},
		{name: "padded, very wide", view: framing.View{Fit: framing.Pad}, w: 1000, h: 1, from: image.Rect(0, 0, 1000, 1), to: image.Rect(0, 15, 32, 16),
			counted: 32, area: framing.Area{Y: -15, Width: 1000, Height: 32}},
		{name: "padded, square", view: framing.View{Fit: framing.Pad}, w: 64, h: 64, from: image.Rect(0, 0, 64, 64), to: square, counted: S * S,
			area: framing.Area{Width: 64, Height: 64}},
		{name: "cropped", view: framing.View{Fit: framing.Crop}, w: 101, h: 50, from: image.Rect(25, 0, 75, 50), to: square, counted: S * S,
			area: framing.Area{X: 25, Width: 50, Height: 50}},
		{name: "box", view: framing.View{ROI: framing.Box{X: 10, Y: 20, W: 30, H: 40}}, w: 100, h: 100, from: image.Rect(10, 20, 40, 60), to: square,
			counted: S * S, area: framing.Area{X: 10, Y: 20, Width: 30, Height: 40}},
		{name: "box, padded", view: framing.View{Fit: framing.Pad, ROI: framing.Box{X: 10, Y: 20, W: 64, H: 32}}, w: 100, h: 100,
			from: image.Rect(10, 20, 74, 52), to: image.Rect(0, 8, 32, 24), counted: 32 * 16, area: framing.Area{X: 10, Y: 4, Width: 64, Height: 64}},
		{name: "drawn box", view: framing.View{ROIMask: drawing(t, 64, 64, image.Rect(16, 0, 48, 64))}, w: 64, h: 64, from: image.Rect(16, 0, 48, 64),
			to: square, counted: S * S, area: framing.Area{X: 16, Width: 32, Height: 64}},
		{name: "drawn box at half the size", view: framing.View{ROIMask: drawing(t, 32, 32, image.Rect(8, 0, 24, 32))}, w: 64, h: 64,
			from: image.Rect(16, 0, 48, 64), to: square, counted: S * S, area: framing.Area{X: 16, Width: 32, Height: 64}, notes: 1},
		{name: "ignored half", view: framing.View{Ignore: drawing(t, 32, 32, image.Rect(0, 0, 16, 32))}, w: 32, h: 32, from: square, to: square,
			counted: S * S / 2, area: framing.Area{Width: 32, Height: 32}},
		// A position is made of the two pixels around its middle: of 64 the last that is left out, number 31, is of position 15.
		{name: "ignored half and a pixel", view: framing.View{Ignore: drawing(t, 64, 64, image.Rect(0, 0, 33, 64))}, w: 64, h: 64,
			from: image.Rect(0, 0, 64, 64), to: square, counted: S * (S/2 - 1), area: framing.Area{Width: 64, Height: 64}},
		{name: "ignored by both", view: framing.View{Ignore: drawing(t, 32, 32, image.Rect(0, 0, 16, 32))}, w: 32, h: 32,
			ignore: draw(32, 32, image.Rect(0, 0, 32, 8)), from: square, to: square, counted: 16 * (24 - framing.Reach), area: framing.Area{Width: 32, Height: 32}},
		{name: "a mask that draws nothing", w: 32, h: 32, ignore: draw(32, 32, image.Rectangle{}), from: square, to: square, counted: S * S,
			area: framing.Area{Width: 32, Height: 32}},
	} {
		framer, err := framing.New(c.view, S)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		f, err := framer.Frame(c.w, c.h, c.ignore)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if f.From != c.from || f.To != c.to || f.Counted() != c.counted || f.Area() != c.area || len(f.Scaled) != c.notes || f.Notes != nil {
			t.Errorf("%s: got %v in %v, %d positions, area %v, notes %q, want %v in %v, %d, %v, %d notes", c.name, f.From, f.To, f.Counted(), f.Area(),
				f.Scaled, c.from, c.to, c.counted, c.area, c.notes)
		}
		counted := 0
		numbers, values := make([]float32, S*S), []float32{}
		for p := range S * S {
			numbers[p] = float32(p)
			if f.Counts(p) {
				counted++
				values = append(values, float32(p))
			}
		}
		if got := f.Values(numbers); !slices.Equal(got, values) {
			t.Errorf("%s: got the values %v, want %v", c.name, got, values)
		}
		if counted != c.counted || f.All() != (counted == S*S) {
			t.Errorf("%s: got %d positions one by one, all: %v, want %d", c.name, counted, f.All(), c.counted)
		}
	}
}

func TestFrameErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		view   framing.View
		w, h   int
		ignore *imagefile.Mask
		want   error
	}{
		{"box outside", framing.View{ROI: framing.Box{X: 10, Y: 10, W: 91, H: 10}}, 100, 100, nil, framing.ErrOutside},
		{"mask of another shape", framing.View{Ignore: drawing(t, 32, 32, image.Rect(0, 0, 1, 1))}, 64, 32, nil, framing.ErrShape},
		{"own mask of another shape", framing.View{}, 64, 32, draw(32, 32, image.Rect(0, 0, 1, 1)), framing.ErrShape},
		{"all ignored", framing.View{}, 64, 32, draw(64, 32, image.Rect(0, 0, 64, 32)), framing.ErrNothing},
		{"what is looked at is ignored", framing.View{ROIMask: drawing(t, 64, 64, image.Rect(8, 8, 24, 24)),
			Ignore: drawing(t, 64, 64, image.Rect(0, 0, 32, 32))}, 64, 64, nil, framing.ErrNothing},
	} {
		framer, err := framing.New(c.view, 32)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := framer.Frame(c.w, c.h, c.ignore); !errors.Is(err, c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v and error %v, want %v", c.name, f, err, c.want)
		}
	}
}

func TestViewCheck(t *testing.T) {
	for _, c := range []struct {
		view framing.View
		want string // "": none
	}{
		{framing.View{}, ""}, {framing.View{Fit: framing.Squash}, ""}, {framing.View{Fit: "stretch"}, "fit"},
		{framing.View{ROI: framing.Box{X: 0, Y: 0, W: 1, H: 1}}, ""}, {framing.View{ROI: framing.Box{X: -1, W: 1, H: 1}}, "roi"},
		{framing.View{ROI: framing.Box{X: 1}}, "roi"}, {framing.View{ROI: framing.Box{W: 1 << 62, H: 1}}, "roi"},
		{framing.View{ROI: framing.Box{W: 1, H: 1}, ROIMask: drawing(t, 2, 2, image.Rect(0, 0, 1, 1))}, "roi"},
		{framing.View{Ignore: "no base64"}, "ignore_mask"}, {framing.View{ROIMask: "aGFsbG8="}, "roi_mask"},
		{framing.View{Align: framing.Align{Shift: 0.9, Rotate: 2}}, "align"},
	} {
		err := c.view.Check()
		var refused *setting.Error
		if errors.As(err, &refused) != (c.want != "") || c.want != "" && refused.Field != c.want {
			t.Errorf("%+v: got %v, want a word about %q", c.view, err, c.want)
		}
		if c.want == "align" && !strings.Contains(err.Error(), "align is \"shift=0.9,rotate=2\"") {
			t.Errorf("got %v, want the limits in it", err)
		}
		if plain := c.view.Plain(); plain != (c.view == framing.View{} || c.view == framing.View{Fit: framing.Squash}) {
			t.Errorf("%+v: plain is %v", c.view, plain)
		}
	}
}

func TestViewText(t *testing.T) {
	d := drawing(t, 2, 2, image.Rect(0, 0, 1, 1))
	for _, c := range []struct {
		view framing.View
		want string
	}{
		{framing.View{}, ""}, {framing.View{Fit: framing.Squash}, ""},
		{framing.View{Fit: framing.Pad, ROI: framing.Box{X: 1, Y: 2, W: 3, H: 4}, Ignore: d}, "fit pad, 3 x 4 pixels from 1,2 on, a mask of what is ignored"},
		{framing.View{ROIMask: d}, "a mask of what is looked at"},
	} {
		if got := c.view.Text(); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.view, got, c.want)
		}
	}
}

func TestDrawing(t *testing.T) {
	m := draw(301, 97, image.Rect(3, 5, 200, 90))
	d, err := framing.Draw(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Mask()
	if err != nil || got.W != m.W || got.H != m.H || !slices.Equal(got.Pix, m.Pix) {
		t.Errorf("got another mask and error %v", err)
	}
	full := draw(8, 8, image.Rect(0, 0, 8, 8)) // nothing but one colour
	if d, err = framing.Draw(full); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Mask(); err != nil || !slices.Equal(got.Pix, full.Pix) {
		t.Errorf("all drawn: got %v, %v", got, err)
	}
	if _, err := framing.Draw(draw(8, 8, image.Rectangle{})); !errors.Is(err, framing.ErrNothingDrawn) {
		t.Errorf("an empty mask: got %v", err)
	}
	rough := draw(4096, 4096, image.Rectangle{})
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range rough.Pix {
		rough.Pix[i] = uint8(rng.Uint32() & 1)
	}
	if _, err := framing.Draw(rough); err == nil || !strings.Contains(err.Error(), "draw it smaller") {
		t.Errorf("a mask of noise: got %v", err)
	}
}

// Nothing that is left out has a say in what the network sees, and what counts is as it is without a mask.
func TestPlanesHideWhatDoesNotCount(t *testing.T) {
	const S = 32
	framer, err := framing.New(framing.View{Fit: framing.Pad, Ignore: drawing(t, 90, 60, image.Rect(30, 10, 50, 33))}, S)
	if err != nil {
		t.Fatal(err)
	}
	f, err := framer.Frame(90, 60, nil)
	if err != nil {
		t.Fatal(err)
	}
	img := noise(90, 60)
	planes, again := make([]float32, 3*S*S), make([]float32, 3*S*S)
	f.Planes(planes, img)
	for i := range again { // what was there before plays no part either
		again[i] = 77
	}
	for y := 10; y < 33; y++ {
		for x := 30; x < 50; x++ {
			img.Pix[3*(90*y+x)] ^= 0xff
		}
	}
	f.Planes(again, img)
	if !slices.Equal(planes, again) {
		t.Error("pixels that are ignored change what the network sees")
	}
	whole := make([]float32, 3*S*S)
	framing.Resample(whole, img, f.From, f.To, S)
	for p := range S * S {
		if f.Counts(p) && whole[p] != planes[p] {
			t.Fatalf("position %d: got %v, want %v", p, planes[p], whole[p])
		}
	}
}

// A mask of the picture's own is not filled when the picture is judged, as a network that learned without it would find that
// anomalous; neither what it draws nor what lies within Reach of that counts. What is learned from has nothing of it.
func TestOwnMask(t *testing.T) {
	const S = 64
	hidden := image.Rect(40, 24, 52, 48)
	for _, view := range []framing.View{{}, {Ignore: drawing(t, S, S, image.Rect(0, 0, S, 4))}} {
		framer, err := framing.New(view, S)
		if err != nil {
			t.Fatal(err)
		}
		without, err := framer.Frame(S, S, nil)
		if err != nil {
			t.Fatal(err)
		}
		f, err := framer.Frame(S, S, draw(S, S, hidden))
		if err != nil {
			t.Fatal(err)
		}
		img := noise(S, S)
		got, want := make([]float32, 3*S*S), make([]float32, 3*S*S)
		f.Planes(got, img)
		without.Planes(want, img)
		if !slices.Equal(got, want) || !f.Own() || without.Own() {
			t.Error("the network sees something else than without the mask")
		}
		counted := 0
		for p := range S * S {
			want := without.Counts(p) && !image.Pt(p%S, p/S).In(hidden.Inset(-framing.Reach))
			if f.Counts(p) != want {
				t.Fatalf("position %d, %d: it counts: %v, want %v", p%S, p/S, f.Counts(p), want)
			}
			if want {
				counted++
			}
		}
		if f.Counted() != counted {
			t.Errorf("got %d positions that count, want %d", f.Counted(), counted)
		}
		f.Fill(got)
		for y := hidden.Min.Y; y < hidden.Max.Y; y++ {
			for x := hidden.Min.X; x < hidden.Max.X; x++ {
				img.Pix[3*(S*y+x)] ^= 0xff
			}
		}
		f.Planes(want, img)
		f.Fill(want)
		if !slices.Equal(got, want) {
			t.Error("what the mask draws is in what is learned from")
		}
	}
}

// Padding repeats the picture's edge.
func TestPadding(t *testing.T) {
	const S = 16
	framer, err := framing.New(framing.View{Fit: framing.Pad}, S)
	if err != nil {
		t.Fatal(err)
	}
	f, err := framer.Frame(32, 16, nil)
	if err != nil {
		t.Fatal(err)
	}
	planes := make([]float32, 3*S*S)
	f.Planes(planes, noise(32, 16))
	for i, v := range planes {
		plane, y, x := i/(S*S), i/S%S, i%S
		if want := planes[plane*S*S+min(max(y, 4), 11)*S+x]; v != want {
			t.Fatalf("plane %d, row %d, column %d: got %v, want %v", plane, y, x, v, want)
		}
	}
}

func TestInnerAndSpread(t *testing.T) {
	const S = 4
	framer, err := framing.New(framing.View{Fit: framing.Pad, ROI: framing.Box{X: 8, Y: 0, W: 8, H: 4}}, S)
	if err != nil {
		t.Fatal(err)
	}
	f, err := framer.Frame(16, 8, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := []float32{9, 9, 9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9}
	if got, want := framing.Inner(f, m), []float32{1, 2, 3, 4, 5, 6, 7, 8}; !slices.Equal(got, want) {
		t.Errorf("inner: got %v, want %v", got, want)
	}
	over, H, W := framing.Spread(f, m, -1)
	want := []float32{
		-1, -1, -1, -1, 1, 2, 3, 4,
		-1, -1, -1, -1, 5, 6, 7, 8,
		-1, -1, -1, -1, -1, -1, -1, -1,
		-1, -1, -1, -1, -1, -1, -1, -1}
	if H != 4 || W != 8 || !slices.Equal(over, want) {
		t.Errorf("over the picture: got %d x %d, %v, want 8 x 4, %v", W, H, over, want)
	}
	if f.Scale() != 1 {
		t.Errorf("got %v values along a position, want 1", f.Scale())
	}
	if got, want := framing.Outer(f, framing.Inner(f, m), -1), []float32{-1, -1, -1, -1, 1, 2, 3, 4, 5, 6, 7, 8, -1, -1, -1, -1}; !slices.Equal(got, want) {
		t.Errorf("outer: got %v, want %v", got, want)
	}
	framing.Blank(f, m)
	if want := []float32{0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0}; !slices.Equal(m, want) {
		t.Errorf("blank: got %v, want %v", m, want)
	}
}

// A drawing of a model file is nobody's friend.
func FuzzDrawing(f *testing.F) {
	f.Add([]byte(drawing(f, 9, 7, image.Rect(1, 2, 5, 6))), 40, 30)
	f.Add([]byte("aGFsbG8="), 1, 1)
	f.Fuzz(func(t *testing.T, text []byte, w, h int) {
		if w < 1 || h < 1 || w > 300 || h > 300 {
			return
		}
		for _, d := range []framing.Drawing{framing.Drawing(text), framing.Drawing(base64.StdEncoding.EncodeToString(text))} {
			for _, v := range []framing.View{{ROIMask: d}, {Ignore: d}} {
				framer, err := framing.New(v, 32)
				if err != nil {
					continue
				}
				frame, err := framer.Frame(w, h, nil)
				if err != nil {
					continue
				}
				if frame.Counted() < 1 || !frame.From.In(image.Rect(0, 0, w, h)) {
					t.Errorf("got %d positions of %v in %d x %d pixels", frame.Counted(), frame.From, w, h)
				}
				frame.Planes(make([]float32, 3*32*32), noise(w, h))
			}
		}
	})
}

// The middle is that of what is looked at, or the nearest place that counts.
func TestMiddle(t *testing.T) {
	for _, c := range []struct {
		name string
		view framing.View
		want image.Point // half pixels
	}{
		{"all", framing.View{}, image.Pt(64, 32)},
		{"a part", framing.View{ROI: framing.Box{X: 8, Y: 0, W: 16, H: 8}}, image.Pt(32, 8)},
		{"the left half is ignored", framing.View{Ignore: drawing(t, 64, 32, image.Rect(0, 0, 40, 32))}, image.Pt(82, 33)}, // position 20, 16
	} {
		framer, err := framing.New(c.view, 32)
		if err != nil {
			t.Fatal(err)
		}
		f, err := framer.Frame(64, 32, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Middle(); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
