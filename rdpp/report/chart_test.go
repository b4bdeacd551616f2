package report

import (
	"fmt"
	"html"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"rdpp/rdpp/anomaly"
)

func TestAxis(t *testing.T) {
	cases := []struct {
		name   string
		values []float64
		want   string // the ticks
		log    bool
	}{
		{"rates", []float64{0, 100}, "0 20 40 60 80 100", false},
		{"scores", []float64{0.19, 1.13}, "0 0.5 1.0 1.5", false},
		{"close together", []float64{0.912, 0.934}, "0.91 0.92 0.93 0.94", false},
		{"below zero", []float64{-0.2, 0.3}, "−0.2 0 0.2 0.4", false},
		{"small", []float64{1e-6, 2.2e-6}, "1.0×10⁻⁶ 1.5×10⁻⁶ 2.0×10⁻⁶ 2.5×10⁻⁶", false},
		{"large", []float64{1e7, 5e7}, "1×10⁷ 2×10⁷ 3×10⁷ 4×10⁷ 5×10⁷", false},
		{"one value", []float64{0.3}, "0.28 0.29 0.30 0.31 0.32", false},
		{"zero alone", []float64{0, 0}, "−0.04 −0.02 0 0.02 0.04", false},
		{"nothing", nil, "0 0.2 0.4 0.6 0.8 1.0", false},
		{"two decades", []float64{0.03, 2}, "0.02 0.05 0.1 0.2 0.5 1 2", true},
		{"many decades", []float64{1e-12, 1}, "1×10⁻¹² 1×10⁻⁹ 1×10⁻⁶ 0.001 1", true},
		{"zero keeps it linear", []float64{0, 1e-12, 1}, "0 0.2 0.4 0.6 0.8 1.0", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a := fit("score", c.values)
			var got []string
			for _, tick := range a.ticks(5) {
				got = append(got, tick.text)
			}
			if text := strings.Join(got, " "); text != c.want || a.log != c.log {
				t.Errorf("got %q, logarithmic %v, want %q, %v", text, a.log, c.want, c.log)
			}
			for _, v := range c.values {
				if at := a.at(v); !(at >= 0 && at <= 1) {
					t.Errorf("%g: got it at %g of the axis, want 0 to 1", v, at)
				}
			}
		})
	}
}

func TestAxisHoldsAnything(t *testing.T) {
	extremes := []float64{-math.MaxFloat32, -1, -math.SmallestNonzeroFloat64, 0, math.SmallestNonzeroFloat64, 1e-30, 1, 1 + 1e-15, 1e9, math.MaxFloat32}
	for _, v := range extremes {
		for _, w := range extremes {
			a := fit("", []float64{v, w})
			if n := len(a.ticks(5)); n < 2 || n > 12 {
				t.Errorf("%g and %g: got %d ticks, want 2 to 12", v, w, n)
			}
			for _, at := range []float64{a.at(v), a.at(w)} {
				if !(at >= 0 && at <= 1) {
					t.Errorf("%g and %g: got them at %g of the axis, want 0 to 1", v, w, at)
				}
			}
		}
	}
}

func TestNumber(t *testing.T) {
	cases := []struct {
		value  float64
		digits int
		want   string
	}{
		{0, 4, "0"}, {1, 4, "1.000"}, {0.42, 3, "0.420"}, {-0.00012345, 3, "-0.000123"}, {0.000012345, 3, "1.23×10⁻⁵"},
		{9.9999, 3, "10.0"}, {123456, 3, "123456"}, {1234567, 3, "1.23×10⁶"}, {math.MaxFloat32, 2, "3.4×10³⁸"},
	}
	for _, c := range cases {
		if got := number(c.value, c.digits); got != c.want {
			t.Errorf("%g with %d digits: got %q, want %q", c.value, c.digits, got, c.want)
		}
	}
}

// curve is a rising curve of n points.
func curve(n int) []Point {
	points := make([]Point, n)
	for i := range points {
		x := float64(i) / float64(n-1)
		points[i] = Point{X: x, Y: math.Sqrt(x)}
	}
	return points
}

func TestThinDrawsTheSame(t *testing.T) {
	const columns = 300
	zigzag := make([]Point, 50_000)
	for i := range zigzag {
		zigzag[i] = Point{X: float64(i) / 50_000, Y: math.Sin(float64(i*i) / 1e4)}
	}
	for name, points := range map[string][]Point{"curve": curve(100_001), "zigzag": zigzag} {
		x := axis{high: 1}
		got := thin(points, x, columns)
		if len(got) > 4*(columns+1) {
			t.Errorf("%s: got %d points, want at most %d", name, len(got), 4*(columns+1))
		}
		// Lowest and highest of each column.
		extremes := func(points []Point) (low, high [columns + 1]float64) {
			for i := range low {
				low[i], high[i] = math.Inf(1), math.Inf(-1)
			}
			for _, p := range points {
				i := int(p.X * columns)
				low[i], high[i] = min(low[i], p.Y), max(high[i], p.Y)
			}
			return low, high
		}
		gotLow, gotHigh := extremes(got)
		wantLow, wantHigh := extremes(points)
		if gotLow != wantLow || gotHigh != wantHigh {
			t.Errorf("%s: the columns' extremes differ from those of all points", name)
		}
		if got[0] != points[0] || got[len(got)-1] != points[len(points)-1] {
			t.Errorf("%s: got ends %v and %v, want %v and %v", name, got[0], got[len(got)-1], points[0], points[len(points)-1])
		}
	}
	if few := curve(2 * columns); !slices.Equal(thin(few, axis{high: 1}, columns), few) {
		t.Error("few points: got others, want all of them")
	}
}

func TestHistogram(t *testing.T) {
	x := axis{high: 4}
	got := histogram([]float64{1.5, 1.9, 4, 4}, x, 4)
	want := []Point{{X: 1, Y: 0}, {X: 1, Y: 50}, {X: 2, Y: 50}, {X: 2, Y: 0}, {X: 3, Y: 0}, {X: 3, Y: 50}, {X: 4, Y: 50}, {X: 4, Y: 0}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// On a logarithmic axis bins grow, and are as wide in the drawing.
	got = histogram([]float64{1, 5, 50}, axis{low: 1, high: 100, log: true}, 2)
	want = []Point{{X: 1, Y: 0}, {X: 1, Y: 200. / 3}, {X: 10, Y: 200. / 3}, {X: 10, Y: 100. / 3}, {X: 100, Y: 100. / 3}, {X: 100, Y: 0}}
	if !slices.EqualFunc(got, want, func(p, q Point) bool { return math.Abs(p.X-q.X) < 1e-9 && math.Abs(p.Y-q.Y) < 1e-9 }) {
		t.Errorf("logarithmic: got %v, want %v", got, want)
	}
	if got := histogram(nil, x, 4); got != nil {
		t.Errorf("no values: got %v, want none", got)
	}
}

func TestCut(t *testing.T) {
	points := []Point{{X: 0, Y: 0}, {X: 0.2, Y: 0.5}, {X: 0.4, Y: 0.7}, {X: 1, Y: 1}}
	cases := []struct {
		limit float64
		want  string
	}{
		{0.3, "[{0 0} {0.2 0.5} {0.3 0.6}]"}, {0.2, "[{0 0} {0.2 0.5} {0.2 0.5}]"}, {1, fmt.Sprint(points)},
	}
	for _, c := range cases {
		got := cut(points, c.limit)
		for i := range got {
			got[i].Y = math.Round(1e9*got[i].Y) / 1e9
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("at %g: got %v, want %v", c.limit, got, c.want)
		}
	}
	if points[2] != (Point{X: 0.4, Y: 0.7}) {
		t.Errorf("got %v where the curve was cut, want it untouched", points[2])
	}
}

// TestLabelsFit: no axis label of any chart is longer than the chart is wide, logarithmic ones included.
func TestLabelsFit(t *testing.T) {
	const perCharacter = 6.4 // pixels, of 11.5 in sans-serif, more than a browser takes on average
	label := regexp.MustCompile(`<text class="label"[^>]*>([^<]*)</text>`)
	r := full()
	r.Compactness = &Compactness{Intra: []float64{1e-6, 2e-6}, Inter: []float64{1e-3, 1}, Other: "defective images"}
	for i := range r.History {
		loss := math.Pow(100, float64(i))
		r.History[i].Losses = losses(loss, loss, loss, loss, loss)
	}
	r.Images[0].Score = 1e-4
	var page strings.Builder
	if err := Write(&page, r); err != nil {
		t.Fatal(err)
	}
	found := label.FindAllStringSubmatch(page.String(), -1)
	if len(found) != 2*10 {
		t.Errorf("got %d labels, want those of ten charts", len(found))
	}
	for _, m := range found {
		text := html.UnescapeString(m[1])
		if width := perCharacter * float64(utf8.RuneCountInString(text)); width > chartWidth-marginRight {
			t.Errorf("%q takes about %.0f of %d pixels", text, width, chartWidth-marginRight)
		}
	}
	if !strings.Contains(page.String(), "mean squared difference (logarithmic)") {
		t.Error("the label of the distances is not there")
	}
}

func TestEpochTicks(t *testing.T) {
	for _, c := range []struct {
		first, last int
		want        string
	}{{1, 1, "[1]"}, {1, 2, "[1 2]"}, {1, 3, "[1 2 3]"}, {1, 5, "[1 2 3 4 5]"}, {3, 5, "[3 4 5]"}, {1, 30, "[10 20 30]"}, {1, 100, "[20 40 60 80 100]"}} {
		r := &Report{}
		for n := c.first; n <= c.last; n++ {
			r.History = append(r.History, anomaly.Epoch{Epoch: n, Losses: losses(1, 0, 0, 0, 0)})
		}
		charts, _ := historyCharts(r)
		if len(charts) == 0 {
			t.Fatalf("epochs %d to %d: got no chart", c.first, c.last)
		}
		var got []string
		for _, m := range regexp.MustCompile(`text-anchor="middle">([^<]*)</text>`).FindAllStringSubmatch(string(charts[0].SVG), -1) {
			got = append(got, m[1])
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("epochs %d to %d: got ticks at %v, want %s", c.first, c.last, got, c.want)
		}
	}
}
