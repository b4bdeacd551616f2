package framing_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"image"
	"image/png"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
)

// part paints a part with a dark body, a leg and a bright mark on a grey ground with a little noise, w x h pixels, turned by so many degrees
// around the middle and then shifted.
func part(w, h int, pose framing.Pose, seed uint64) *imagefile.Image {
	rng := rand.New(rand.NewPCG(seed, 1))
	img := &imagefile.Image{W: w, H: h, Pix: make([]uint8, 3*w*h)}
	sin, cos := math.Sincos(pose.Degrees * math.Pi / 180)
	soft := func(d float64) float64 { return min(max(d+0.5, 0), 1) } // edges of a pixel's width
	box := func(u, v, x0, y0, x1, y1 float64) float64 {
		return soft(u-x0) * soft(x1-u) * soft(v-y0) * soft(y1-v)
	}
	W, H := float64(w), float64(h)
	for y := range h {
		for x := range w {
			du, dv := float64(x)+0.5-W/2-pose.X, float64(y)+0.5-H/2-pose.Y
			u, v := W/2+cos*du+sin*dv, H/2-sin*du+cos*dv
			value := 150.0
			value += (40 - value) * box(u, v, 0.3*W, 0.25*H, 0.7*W, 0.6*H)
			value += (90 - value) * box(u, v, 0.35*W, 0.6*H, 0.42*W, 0.9*H)
			value += (230 - value) * box(u, v, 0.55*W, 0.3*H, 0.65*W, 0.4*H)
			for c := range 3 {
				img.Pix[3*(y*w+x)+c] = uint8(min(max(value+6*(rng.Float64()-0.5), 0), 255))
			}
		}
	}
	return img
}

// learned are limits and the mean of parts that lie a little askew.
func learned(t testing.TB, w, h int, limits framing.Align) framing.Align {
	t.Helper()
	var pictures []framing.Small
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 2))
		pose := framing.Pose{X: rng.Float64() - 0.5, Y: rng.Float64() - 0.5, Degrees: rng.Float64() - 0.5}
		pictures = append(pictures, framing.NewSmall(part(w, h, pose, seed)))
	}
	a, err := limits.Learn(pictures)
	if err != nil {
		t.Fatal(err)
	}
	if a.Mean == "" || a.Least < 0.3 || a.Least > 0.7 {
		t.Fatalf("got a mean of %d characters, and %v of correlation is needed", len(a.Mean), a.Least)
	}
	return a
}

// Parts are found where they lie, at any size of the picture, and what cannot be found is said and left as it is.
func TestPose(t *testing.T) {
	limits := framing.Align{Shift: 0.12, Rotate: 12}
	framer, err := framing.New(framing.View{Align: learned(t, 240, 180, limits)}, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		w, h int
		want framing.Pose
	}{
		{"as it lies", 240, 180, framing.Pose{}},
		{"shifted", 240, 180, framing.Pose{X: 13, Y: -9}},
		{"turned", 240, 180, framing.Pose{Degrees: 9}},
		{"both", 240, 180, framing.Pose{X: -20.5, Y: 14.25, Degrees: -6.5}},
		{"larger", 480, 360, framing.Pose{X: 31, Y: 17, Degrees: 4}},
		{"smaller", 120, 90, framing.Pose{X: 5, Y: -4, Degrees: -3}},
		{"of uneven size", 481, 361, framing.Pose{X: 31, Y: 17, Degrees: 4}},
	} {
		got := framer.Pose(part(c.w, c.h, c.want, 99))
		near := 0.004 * float64(c.w)
		if math.Abs(got.X-c.want.X) > near || math.Abs(got.Y-c.want.Y) > near || math.Abs(got.Degrees-c.want.Degrees) > 0.4 || got.Correlation < 0.95 ||
			!got.Found() || got.Warnings() != nil {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		name, want string
		img        *imagefile.Image
	}{
		{"farther away", "farther", part(240, 180, framing.Pose{X: 40}, 99)},
		{"another picture", "correlates", noise(240, 180)},
		{"nothing", "correlates", &imagefile.Image{W: 240, H: 180, Pix: make([]uint8, 3*240*180)}},
		{"another shape", "shape", part(240, 240, framing.Pose{}, 99)},
		{"a single pixel", "shape", &imagefile.Image{W: 1, H: 1, Pix: make([]uint8, 3)}},
	} {
		got := framer.Pose(c.img)
		if got.Found() || got.X != 0 || got.Y != 0 || got.Degrees != 0 || len(got.Warnings()) != 1 || !strings.Contains(got.Missed, c.want) && c.name != "farther away" {
			t.Errorf("%s: got %+v, want a word about %q", c.name, got, c.want)
		}
		plain, err := framer.Frame(c.img.W, c.img.H, nil)
		if err != nil {
			t.Fatal(err)
		}
		frame, err := framer.FrameOf(c.img, nil)
		if err != nil || frame.Original() != frame {
			t.Fatalf("%s: got %v, and the frame is its own: %v", c.name, err, frame.Original() == frame)
		}
		a, b := make([]float32, 3*64*64), make([]float32, 3*64*64)
		plain.Planes(a, c.img)
		frame.Planes(b, c.img)
		for i := range a {
			if a[i] != b[i] {
				t.Fatalf("%s: value %d is %v, as it is %v", c.name, i, b[i], a[i])
			}
		}
	}
}

// Pictures that are not of one part in one place have no mean to align by.
func TestLearnRefuses(t *testing.T) {
	var pictures []framing.Small
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 3))
		img := &imagefile.Image{W: 64, H: 64, Pix: make([]uint8, 3*64*64)}
		for i := range img.Pix {
			img.Pix[i] = uint8(rng.IntN(256))
		}
		pictures = append(pictures, framing.NewSmall(img))
	}
	if _, err := framing.DefaultAlign().Learn(pictures); !errors.Is(err, framing.ErrUnlike) {
		t.Errorf("got %v, want %v", err, framing.ErrUnlike)
	}
	if _, err := framing.DefaultAlign().Learn(nil); err == nil {
		t.Error("no pictures: got no error")
	}
	// One of another shape plays no part.
	pictures = []framing.Small{framing.NewSmall(part(90, 60, framing.Pose{}, 1)), framing.NewSmall(part(60, 60, framing.Pose{}, 1)), framing.NewSmall(part(90, 60, framing.Pose{}, 2))}
	if a, err := framing.DefaultAlign().Learn(pictures); err != nil || a.Check() != nil {
		t.Errorf("one of another shape: got %v, %v", err, a.Check())
	}
}

// The network sees a part that lies askew as one that does not, boxes and masks follow it, and its map lies on the picture as that is.
func TestAligned(t *testing.T) {
	const S, w, h = 64, 240, 180
	align := learned(t, w, h, framing.Align{Shift: 0.12, Rotate: 12})
	pose := framing.Pose{X: 15, Y: -8, Degrees: 7}
	for name, view := range map[string]framing.View{
		"whole":  {Align: align},
		"pad":    {Fit: framing.Pad, Align: align},
		"roi":    {ROI: framing.Box{X: 60, Y: 40, W: 120, H: 90}, Align: align},
		"ignore": {Ignore: drawing(t, w, h, image.Rect(0, 0, w, 60)), Align: align},
	} {
		framer, err := framing.New(view, S)
		if err != nil {
			t.Fatal(err)
		}
		straight, err := framer.Frame(w, h, nil)
		if err != nil {
			t.Fatal(err)
		}
		img := part(w, h, pose, 99)
		frame, err := framer.FrameOf(img, nil)
		if err != nil || !frame.Pose.Found() {
			t.Fatalf("%s: got %+v, %v", name, frame, err)
		}
		want, got := make([]float32, 3*S*S), make([]float32, 3*S*S)
		straight.Planes(want, part(w, h, framing.Pose{}, 98))
		frame.Planes(got, img)
		off, n := 0.0, 0
		for p := range S * S {
			if frame.Counts(p) && straight.Counts(p) {
				off += math.Abs(float64(got[p] - want[p]))
				n++
			}
		}
		if off /= float64(n); off > 0.02 || n < straight.Counted()/2 {
			t.Errorf("%s: over %d of %d positions the picture is %v off", name, n, straight.Counted(), off)
		}

		// A value of the map, at the bright mark: it has to lie on that in the picture.
		m := make([]float32, S*S)
		u, v := 0.6*w, 0.38*h
		column := frame.To.Min.X + int((u-float64(frame.From.Min.X))*float64(frame.To.Dx())/float64(frame.From.Dx()))
		row := frame.To.Min.Y + int((v-float64(frame.From.Min.Y))*float64(frame.To.Dy())/float64(frame.From.Dy()))
		for p := range m {
			m[p] = float32(0.1 + math.Exp(-math.Hypot(float64(p%S-column), float64(p/S-row))))
		}
		framing.Blank(frame, m)
		original := frame.Original()
		back := frame.Back(m, original)
		peak, most := 0, float32(0)
		for p, v := range back {
			if v > most {
				peak, most = p, v
			}
			if !original.Counts(p) && v != 0 {
				t.Fatalf("%s: value %d does not count and is %v", name, p, v)
			}
		}
		sin, cos := math.Sincos(pose.Degrees * math.Pi / 180)
		x, y := w/2+cos*(u-w/2)-sin*(v-h/2)+pose.X, h/2+sin*(u-w/2)+cos*(v-h/2)+pose.Y
		area := original.Area()
		px, py := area.X+(float64(peak%S)+0.5)*area.Width/S, area.Y+(float64(peak/S)+0.5)*area.Height/S
		if math.Hypot(px-x, py-y) > 1.5*area.Width/S || most != 1.1 {
			t.Errorf("%s: the map's highest value, %v, is at %.1f, %.1f of the picture, want 1.1 at %.1f, %.1f", name, most, px, py, x, y)
		}
		if !original.From.In(image.Rect(0, 0, w, h)) || original.Counted() < frame.Counted()/2 {
			t.Errorf("%s: the map lies on %v, of which %d count, aligned %d", name, original.From, original.Counted(), frame.Counted())
		}
	}
}

// A mask of the picture's own is of the picture as it is, also where that is aligned.
func TestAlignedOwnMask(t *testing.T) {
	const S, w, h = 64, 240, 180
	framer, err := framing.New(framing.View{Align: learned(t, w, h, framing.Align{Shift: 0.2, Rotate: 12})}, S)
	if err != nil {
		t.Fatal(err)
	}
	frame, err := framer.FrameOf(part(w, h, framing.Pose{X: 30}, 99), draw(w, h, image.Rect(180, 0, 240, h)))
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(frame.Pose.X-30) > 1 || math.Abs(frame.Pose.Degrees) > 1 {
		t.Fatalf("got the pose %+v", frame.Pose)
	}
	original := frame.Original()
	for p := range S * S {
		x := (float64(p%S) + 0.5) * w / S
		drawn, far := x > 180-(framing.Reach-2)*w/S, x > 30+(framing.Reach+2)*w/S && x < 180-(framing.Reach+2)*w/S
		y := p / S
		if drawn && original.Counts(p) || far && y > 2 && y < S-2 && !original.Counts(p) {
			t.Fatalf("value %d, %d, pixel %v: it counts: %v", p%S, y, x, original.Counts(p))
		}
	}
}

func FuzzGrey(f *testing.F) {
	a := learned(f, 40, 30, framing.DefaultAlign())
	f.Add(string(a.Mean))
	var rgb bytes.Buffer
	if err := png.Encode(&rgb, image.NewRGBA(image.Rect(0, 0, 3, 3))); err != nil {
		f.Fatal(err)
	}
	f.Add(base64.StdEncoding.EncodeToString(rgb.Bytes()))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		a.Mean = framing.Grey(text)
		framer, err := framing.New(framing.View{Align: a}, 32)
		if (err == nil) != (a.Check() == nil) {
			t.Fatalf("got %v, and Check says %v", err, a.Check())
		}
		if err == nil {
			framer.Pose(noise(20, 15))
		}
	})
}
