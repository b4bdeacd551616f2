package dataset

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Every kind of defect stays inside its box and the image, and changes it.
func TestDefects(t *testing.T) {
	norm := Norm{Mean: [3]float32{0.1, 0.2, 0.3}, Std: [3]float32{0.5, 1, 2}}
	for _, S := range []int{32, 64, 96, 256} {
		rng := rand.New(rand.NewPCG(1, 2))
		planes := make([]float32, 3*S*S)
		for i := range planes {
			planes[i] = rng.Float32()
		}
		clean := make([]float32, len(planes))
		norm.Apply(clean, planes, S)
		kinds, ellipses, scratches := map[int]int{}, 0, 0
		for range 300 {
			d := drawDefect(rng, S, 0.2)
			if d.H < leastSide || d.W < leastSide || d.Y < 0 || d.X < 0 || d.Y+d.H > S || d.X+d.W > S || max(d.H, d.W) > S/4+leastSide+1 {
				t.Fatalf("S %d: got the box %+v", S, d.Box)
			}
			kinds[d.kind]++
			if d.ellipse {
				ellipses++
			}
			if min(d.H, d.W)*4 < max(d.H, d.W) {
				scratches++
			}
			dst := append([]float32(nil), clean...)
			if err := d.paint(dst, planes, S, norm); err != nil {
				t.Fatal(err)
			}
			changed := 0
			for i := range dst {
				y, x := i/S%S-d.Y, i%S-d.X
				inside := y >= 0 && y < d.H && x >= 0 && x < d.W
				switch {
				case dst[i] == clean[i]:
				case !inside:
					t.Fatalf("S %d, %+v: value %d outside the box has changed", S, d, i)
				case math.IsNaN(float64(dst[i])) || math.IsInf(float64(dst[i]), 0):
					t.Fatalf("S %d, %+v: value %d is %v", S, d, i, dst[i])
				default:
					changed++
				}
			}
			same := d.kind == pasteDefect && d.from == [2]int{d.Y, d.X}
			if changed == 0 && !same {
				t.Errorf("S %d, %+v changes nothing", S, d)
			}
		}
		if len(kinds) != defectKinds || ellipses == 0 || scratches == 0 {
			t.Errorf("S %d: of 300 defects, kinds %v, %d ellipses, %d scratches", S, kinds, ellipses, scratches)
		}
	}
}

// A blot of full opacity is its colour; a pasted piece is what lies where it is from.
func TestDefectColours(t *testing.T) {
	const S = 32
	norm := Norm{Std: [3]float32{1, 1, 1}}
	planes := make([]float32, 3*S*S)
	for i := range planes {
		planes[i] = float32(i) / float32(len(planes))
	}
	d := defect{kind: blotDefect, opacity: 1, colour: [3]float32{0.25, 0.5, 1}}
	d.Y, d.X, d.H, d.W = 3, 5, 4, 6
	dst := append([]float32(nil), planes...)
	if err := d.paint(dst, planes, S, norm); err != nil {
		t.Fatal(err)
	}
	for c, want := range d.colour {
		if got := dst[(c*S+4)*S+7]; math.Abs(float64(got-want)) > 1e-6 {
			t.Errorf("channel %d: got %v, want %v", c, got, want)
		}
	}
	d.kind, d.from, d.opacity = pasteDefect, [2]int{20, 10}, 0.5
	if err := d.paint(dst, planes, S, norm); err != nil {
		t.Fatal(err)
	}
	at, from := (1*S+3+2)*S+5+1, (1*S+20+2)*S+10+1
	if got, want := dst[at], (planes[at]+planes[from])/2; math.Abs(float64(got-want)) > 1e-6 {
		t.Errorf("pasted: got %v, want %v", got, want)
	}
}

// The first images of a batch have noisy ones, as many as Share says.
func TestShareOfNoisyImages(t *testing.T) {
	items := pictures(t, 6)
	for _, c := range []struct {
		share float64
		want  []int // per batch of 4 and of 2
	}{{0, []int{4, 2}}, {0.5, []int{2, 1}}, {0.3, []int{2, 1}}, {1, []int{4, 2}}} {
		opt := LoaderOptions{Batch: 4, Noise: NoiseOptions{Lambda: 0.2, Share: c.share, Defects: 2}}
		all := opt
		all.Noise.Share = 0
		whole := epoch(t, newLoader(t, items, all), 3, 0)
		for i, b := range epoch(t, newLoader(t, items, opt), 3, 0) {
			values := 3 * testSize * testSize
			if got := len(b.Noisy) / values; got != c.want[i] {
				t.Errorf("share %v, batch of %d: got %d noisy images, want %d", c.share, b.B, got, c.want[i])
			}
			for v := range b.Noisy {
				if b.Noisy[v] != whole[i].Noisy[v] {
					t.Fatalf("share %v: value %d is not that of a loader that makes all", c.share, v)
				}
			}
			for at := range len(b.Noisy) / values {
				same := true
				for v := at * values; v < (at+1)*values; v++ {
					same = same && b.Noisy[v] == b.Clean[v]
				}
				if same {
					t.Errorf("share %v, batch %d: image %d has no defect", c.share, i, at)
				}
			}
		}
	}
}
