package metric

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestCurvesByHand(t *testing.T) {
	scores := []float64{9, 8, 7, 1, 7, 0, 0}
	defective := []bool{true, false, true, true, false, false, false}
	var p Pixels // two regions, of 1 and 2 pixels
	if err := p.Add([]float32{9, 8, 7, 1, 7, 0, 0}, []uint8{1, 0, 1, 1, 0, 0, 0}, 1, 7); err != nil {
		t.Fatal(err)
	}
	roc := []Point{{0, 0}, {0, 1. / 3}, {0.25, 1. / 3}, {0.5, 2. / 3}, {0.5, 1}, {1, 1}}
	for _, c := range []struct {
		name  string
		curve func(most int) ([]Point, error)
		want  []Point
	}{
		{"ROC", func(most int) ([]Point, error) { return ROC(scores, defective, most) }, roc},
		{"ROC of pixels", p.ROC, roc},
		{"PRO to 1", func(most int) ([]Point, error) { return p.PROCurve(1, most) },
			[]Point{{0, 0}, {0, 0.5}, {0.25, 0.5}, {0.5, 0.75}, {0.5, 1}, {1, 1}}},
		{"PRO to a corner", func(most int) ([]Point, error) { return p.PROCurve(0.5, most) },
			[]Point{{0, 0}, {0, 0.5}, {0.25, 0.5}, {0.5, 0.75}, {0.5, 1}}},
		{"PRO between corners", func(most int) ([]Point, error) { return p.PROCurve(0.375, most) },
			[]Point{{0, 0}, {0, 0.5}, {0.25, 0.5}, {0.375, 0.625}}},
	} {
		got, err := c.curve(10)
		if err != nil || len(got) != len(c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.name, got, err, c.want)
			continue
		}
		for i := range got {
			if math.Abs(got[i].X-c.want[i].X) > tolerance || math.Abs(got[i].Y-c.want[i].Y) > tolerance {
				t.Errorf("%s: got %v, want %v", c.name, got, c.want)
				break
			}
		}
		if got, err := c.curve(2); err != nil || len(got) != 2 || got[0] != c.want[0] || got[1] != c.want[len(c.want)-1] {
			t.Errorf("%s, 2 points: got %v, %v, want the ends of %v", c.name, got, err, c.want)
		}
		for _, most := range []int{1, 0, -1} {
			if _, err := c.curve(most); !errors.Is(err, ErrPoints) {
				t.Errorf("%s, %d points: got %v, want %v", c.name, most, err, ErrPoints)
			}
		}
	}
}

// TestThin holds curves of several shapes to what the comment of ROC promises, against all their corners.
func TestThin(t *testing.T) {
	const images, side, enough = 3, 128, 3000
	for _, c := range []struct {
		name         string
		shift, round float64 // by which defects stand out; scores are rounded to multiples of round, 0: not
	}{
		{"chance", 0, 0},
		{"usual", 2, 0},
		{"nearly perfect", 4, 0},
		{"few levels", 2, 0.5},
		{"inverted", -3, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(11, 12))
			var p Pixels
			for range images {
				m, mask := randomImage(rng, side, side)
				for i := range m {
					if mask[i] != 0 {
						m[i] += float32(c.shift - 2) // randomImage has added 2
					}
					if c.round > 0 {
						m[i] = float32(math.Round(float64(m[i])/c.round) * c.round)
					}
				}
				if err := p.Add(m, mask, side, side); err != nil {
					t.Fatal(err)
				}
			}
			exact, err := p.curve()
			if err != nil {
				t.Fatal(err)
			}
			for _, limit := range []float64{1, 0.3, 0.05} {
				corners := slices.Collect(exact.pro(limit))
				got, err := p.PROCurve(limit, enough)
				if err != nil {
					t.Fatal(err)
				}
				checkThinned(t, fmt.Sprintf("PRO to %g", limit), got, corners, limit)
			}
			corners := slices.Collect(exact.roc)
			got, err := p.ROC(enough)
			if err != nil {
				t.Fatal(err)
			}
			checkThinned(t, "ROC", got, corners, 1)
			auroc, err := p.AUROC()
			if area := areaUnder(got); err != nil || math.Abs(area-auroc) > 2*visible {
				t.Errorf("got an area of %g under the ROC, %v, want %g", area, err, auroc)
			}
			for _, most := range []int{2, 3, 10, 30} {
				got, err := p.ROC(most)
				if err != nil || len(got) > most || got[0] != corners[0] || got[len(got)-1] != corners[len(corners)-1] {
					t.Errorf("at most %d points: got %v, %v", most, got, err)
				}
			}
		})
	}
}

func checkThinned(t *testing.T, name string, got, corners []Point, width float64) {
	t.Helper()
	if len(got) < 2 || got[0] != (Point{}) || got[len(got)-1] != corners[len(corners)-1] || got[len(got)-1].X != width {
		t.Fatalf("%s: got %d points, from %v to %v, want the ends %v and %v", name, len(got), got[0], got[len(got)-1], corners[0], corners[len(corners)-1])
	}
	if len(got) > 100 && len(got) > len(corners)/2 {
		t.Errorf("%s: got %d points of %d, want fewer", name, len(got), len(corners))
	}
	kept := 0 // the last point kept at or before the corner
	for _, v := range corners[1:] {
		from, to := got[kept], got[kept+1]
		if v.X < from.X || v.Y < from.Y || to.X < from.X || to.Y < from.Y {
			t.Fatalf("%s: got %v, %v and %v, want neither coordinate to fall", name, from, v, to)
		}
		if d := distance(v, from, to, width); d > visible+tolerance {
			t.Fatalf("%s: got %g between corner %v and the thinned curve, want at most %g", name, d, v, visible)
		}
		if v == to && kept < len(got)-2 {
			kept++
		}
	}
	if kept != len(got)-2 {
		t.Errorf("%s: point %d, %v, is no corner", name, kept+1, got[kept+1])
	}
}

// distance of v from the line between a and b, in a picture that shows width as 1.
func distance(v, a, b Point, width float64) float64 {
	x, y := (v.X-a.X)/width, v.Y-a.Y
	dx, dy := (b.X-a.X)/width, b.Y-a.Y
	along := min(max((x*dx+y*dy)/(dx*dx+dy*dy), 0), 1)
	return math.Hypot(x-along*dx, y-along*dy)
}

func areaUnder(points []Point) float64 {
	area := 0.0
	for i, v := range points[1:] {
		area += (v.X - points[i].X) * (v.Y + points[i].Y) / 2
	}
	return area
}

func ExampleROC() {
	points, err := ROC([]float64{0.1, 0.4, 0.4, 0.9}, []bool{false, false, true, true}, 100)
	fmt.Println(points, err)
	// Output: [{0 0} {0 0.5} {0.5 1} {1 1}] <nil>
}
