package report

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// drawnCosts is a figure's file, its elements in the order of their ends.
func drawnCosts(t *testing.T, c *Costs) []*element {
	t.Helper()
	var file bytes.Buffer
	if err := WriteCosts(&file, c); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(file.String(), `<?xml version="1.0" encoding="UTF-8"?>`+"\n"+`<svg xmlns="http://www.w3.org/2000/svg"`) {
		t.Errorf("got a file that begins with %.80s, want XML and SVG", &file)
	}
	return parseXML(t, file.Bytes())
}

// classed are the elements of a class, as an attribute has it alone or first.
func classed(all []*element, class string) (out []*element) {
	for _, e := range all {
		if first, _, _ := strings.Cut(e.attr["class"], " "); first == class {
			out = append(out, e)
		}
	}
	return out
}

func attribute(t *testing.T, e *element, name string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(e.attr[name], 64)
	if err != nil {
		t.Fatalf("%s of %s: %v", name, e.name, err)
	}
	return v
}

// scale reads an axis off the figure: from a position to a value, by the first and the last of its labelled ticks.
func scale(t *testing.T, all []*element, anchor, at string, log bool) func(position float64) float64 {
	t.Helper()
	var positions, values []float64
	for _, e := range elements(all, "text") {
		v, err := strconv.ParseFloat(e.text, 64)
		if e.attr["text-anchor"] == anchor && err == nil {
			positions, values = append(positions, attribute(t, e, at)), append(values, v)
		}
	}
	if len(values) < 3 {
		t.Fatalf("got %d ticks along %s, want 3 or more", len(values), at)
	}
	last := len(values) - 1
	return func(position float64) float64 {
		part := (position - positions[0]) / (positions[last] - positions[0])
		if log {
			return values[0] * math.Pow(values[last]/values[0], part)
		}
		return values[0] + part*(values[last]-values[0])
	}
}

const mib = 1 << 20

// Where a circle lies on the axes is its time and its rate, and its area is to another's as their memory.
func TestCostsCircles(t *testing.T) {
	for _, c := range []struct {
		name  string
		costs []Cost
		log   bool
	}{
		{"one", []Cost{{"RD++", 42, 0.98, 492 * mib}}, false},
		{"the paper's methods", []Cost{{"RD++", 42, 0.9944, 492 * mib}, {"RD", 41, 0.9846, 480 * mib}, {"PatchCore", 250, 0.991, 1400 * mib},
			{"CFA", 90, 0.9917, 800 * mib}, {"FastFlow", 70, 0.9631, 600 * mib}, {"CSFlow", 170, 0.9872, 1100 * mib}}, false},
		{"far apart", []Cost{{"fast", 2, 0.5, 100 * mib}, {"slow", 3000, 0.75, 100 * mib}, {"between", 80, 0.6, 9000 * mib}}, true},
		{"perfect", []Cost{{"a", 10, 1, 1}, {"b", 20, 1, 4}}, false},
		{"useless", []Cost{{"a", 10, 0, 1 << 40}, {"b", 20, 0, 1 << 39}}, false},
	} {
		all := drawnCosts(t, &Costs{Title: "costs", Costs: c.costs})
		x, y := scale(t, all, "middle", "x", c.log), scale(t, all, "end", "y", false)
		circles := map[string]*element{} // by their names
		for _, e := range elements(all, "circle") {
			name, _, _ := strings.Cut(e.text, ":")
			circles[name] = e
		}
		if len(circles) != len(c.costs) {
			t.Fatalf("%s: got %d circles, want %d", c.name, len(circles), len(c.costs))
		}
		first := attribute(t, circles[c.costs[0].Name], "r")
		for _, k := range c.costs {
			e := circles[k.Name]
			// Ticks' labels have one digit behind the point in their positions, of some 500 units: a thousandth of the axis,
			// which is logarithmic over up to eight octaves.
			if got := x(attribute(t, e, "cx")); math.Abs(got/k.Milliseconds-1) > 0.01 && math.Abs(got-k.Milliseconds) > 0.5 {
				t.Errorf("%s, %s: got it at %.3f ms, want %g", c.name, k.Name, got, k.Milliseconds)
			}
			// Their text stands 4 units below the tick.
			if got := y(attribute(t, e, "cy") + 4); math.Abs(got-100*k.ImageAUROC) > 0.05 {
				t.Errorf("%s, %s: got it at %.3f %%, want %.2f", c.name, k.Name, got, 100*k.ImageAUROC)
			}
			r := attribute(t, e, "r")
			if got, want := r*r/(first*first), float64(k.Bytes)/float64(c.costs[0].Bytes); math.Abs(got/want-1) > 2e-3 {
				t.Errorf("%s, %s: got an area of %.4f of the first, want %.4f", c.name, k.Name, got, want)
			}
			if r > largestCircle {
				t.Errorf("%s, %s: got a radius of %g, want %d at most", c.name, k.Name, r, largestCircle)
			}
		}
		for _, e := range elements(all, "text") {
			if v, err := strconv.ParseFloat(strings.Replace(e.text, "−", "-", 1), 64); err == nil && (v < 0 || e.attr["text-anchor"] == "end" && v > 100) {
				t.Errorf("%s: got a tick at %s, want none that no method can reach", c.name, e.text)
			}
		}
	}
}

// What the figure says in words: axes with their units, each circle's numbers, and what the areas are.
func TestCostsSay(t *testing.T) {
	all := drawnCosts(t, &Costs{Title: "Methods on <screw>", Time: "latency", Area: "peak memory of the process",
		Costs: []Cost{{"A & B", 41.96, 0.98765, 492 * mib}, {"large", 250, 1, 3 << 30}}})
	var texts []string
	for _, e := range all {
		if e.name == "text" || e.name == "title" {
			texts = append(texts, e.text)
		}
	}
	got := strings.Join(texts, "\n") + "\n"
	for _, want := range []string{"Methods on <screw>\n", "latency, ms\n", "image AUROC, %\n", "area of a circle: peak memory of the process\n", "A & B 492 MiB\n",
		"A & B: 42.0 ms, 98.77 %, 492 MiB\n", "large: 250 ms, 100.00 %, 3.00 GiB\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if svg := all[len(all)-1]; svg.attr["aria-label"] != "Methods on <screw>" || svg.attr["role"] != "img" {
		t.Errorf("got %v, want an image with its title", svg.attr)
	}
}

// No label lies over another one, none leaves the plane, and where there is room none lies over a circle.
func TestCostsLabels(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	names := []string{"RD++", "RD", "PatchCore", "CFA", "FastFlow", "CSFlow", "DRAEM", "another method of a long name", "x", "y", "z", "w"}
	figure := func(n int, at func(i int) (ms, auroc float64)) (costs []Cost) {
		for i := range n {
			ms, auroc := at(i)
			costs = append(costs, Cost{names[i], ms, auroc, int64(mib * (100 + 2000*rng.Float64()))})
		}
		return costs
	}
	type testCase struct {
		name  string
		costs []Cost
	}
	cases := []testCase{
		{"all the same", figure(7, func(int) (float64, float64) { return 50, 0.99 })},
		{"in a line", figure(7, func(i int) (float64, float64) { return 50 + float64(i), 0.99 })},
		{"in a column", figure(7, func(i int) (float64, float64) { return 50, 0.99 + 0.001*float64(i) })},
		{"twelve", figure(12, func(int) (float64, float64) { return 50, 0.99 })},
	}
	for i := range 200 {
		cases = append(cases, testCase{fmt.Sprint("random ", i), figure(5+i%3, func(int) (float64, float64) {
			return 20 + 300*rng.Float64(), 0.9 + 0.1*rng.Float64()
		})})
	}
	for _, c := range cases {
		all := drawnCosts(t, &Costs{Title: "costs", Costs: c.costs})
		var boxes []box
		for _, e := range classed(all, "name") {
			boxes = append(boxes, box{attribute(t, e, "x"), attribute(t, e, "y") - labelHeight + 4.5, labelWidth(e.text), labelHeight})
		}
		if len(boxes) != len(c.costs) {
			t.Fatalf("%s: got %d labels, want %d", c.name, len(boxes), len(c.costs))
		}
		const rounding = 0.2 // of positions with one digit
		for i, b := range boxes {
			if b.x < costsLeft-rounding || b.x+b.w > costsWidth-costsRight+rounding || b.y < costsTop-rounding || b.y+b.h > costsHeight-costsBottom+rounding {
				t.Errorf("%s: got the label of %s at %+v, outside of the plane", c.name, c.costs[i].Name, b)
			}
			b = box{b.x + rounding, b.y + rounding, b.w - 2*rounding, b.h - 2*rounding}
			for j := range i {
				if b.overlaps(boxes[j]) {
					t.Errorf("%s: got the labels of %s and %s at %+v and %+v, one over the other", c.name, c.costs[i].Name, c.costs[j].Name, b, boxes[j])
				}
			}
			for _, e := range elements(all, "circle") {
				if b.covers(circle{x: attribute(t, e, "cx"), y: attribute(t, e, "cy"), r: attribute(t, e, "r") - rounding}) {
					t.Errorf("%s: got the label of %s over the circle of %s", c.name, c.costs[i].Name, e.text)
				}
			}
		}
	}
}

func TestCostsHostileNames(t *testing.T) {
	shape := func(name string) string {
		var s strings.Builder
		for _, e := range drawnCosts(t, &Costs{Title: name, Time: name, Area: name, Costs: []Cost{{name, 1, 1, 1}}}) {
			if e.attr["class"] != "leader" { // to a label that is too long to stand beside its circle
				fmt.Fprintf(&s, "%s %d,", e.name, len(e.attr))
			}
		}
		return s.String()
	}
	want := shape("part")
	for _, name := range hostile {
		if got := shape(name); got != want {
			t.Errorf("%.40q: got the elements %s, want %s", name, got, want)
		}
	}
}

func TestCostsRefuses(t *testing.T) {
	for _, c := range []struct {
		costs *Costs
		want  string
	}{
		{nil, "no title or no circle"},
		{&Costs{Title: "t"}, "no title or no circle"},
		{&Costs{Costs: []Cost{{"a", 1, 1, 1}}}, "no title or no circle"},
		{&Costs{Title: "t", Costs: []Cost{{"", 1, 1, 1}}}, "circle 0 has no name"},
		{&Costs{Title: "t", Costs: []Cost{{"a", 1, 1, 1}, {"b", 0, 1, 1}}}, `time of circle 1 ("b") is 0`},
		{&Costs{Title: "t", Costs: []Cost{{"a", math.NaN(), 1, 1}}}, "time of circle 0"},
		{&Costs{Title: "t", Costs: []Cost{{"a", math.Inf(1), 1, 1}}}, "time of circle 0"},
		{&Costs{Title: "t", Costs: []Cost{{"a", 1, 1.01, 1}}}, "image AUROC of circle 0"},
		{&Costs{Title: "t", Costs: []Cost{{"a", 1, math.NaN(), 1}}}, "image AUROC of circle 0"},
		{&Costs{Title: "t", Costs: []Cost{{"a", 1, 1, 0}}}, "memory of circle 0"},
		{&Costs{Title: "t", Costs: []Cost{{"a", 1, 1, -1}}}, "memory of circle 0"},
	} {
		if err := WriteCosts(io.Discard, c.costs); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want ErrInput with %q", c.costs, err, c.want)
		}
	}
}

// Text stands out from the ground in light and dark, and circles have the colours of the report's lines.
func TestCostsColours(t *testing.T) {
	light, dark, _ := strings.Cut(costsStyle, "@media screen and (prefers-color-scheme: dark)")
	rule := regexp.MustCompile(`(?m)^ *([^{}\n]+) \{ fill: (#[0-9a-f]{6})`)
	root := regexp.MustCompile(`--(s\d): (#[0-9a-f]{6})`).FindAllStringSubmatch(style, -1)
	for theme, text := range []string{light, dark} {
		fill := map[string]string{}
		for _, m := range rule.FindAllStringSubmatch(text, -1) {
			for name := range strings.SplitSeq(m[1], ", ") {
				fill[strings.TrimPrefix(name, ".costs ")] = m[2]
			}
		}
		ground := luminance(t, fill[".ground"])
		for _, k := range []struct {
			of    string
			least float64 // as WCAG 2.1 has it: 1.4.3 of text, 1.4.11 of figures
		}{{"text", 4.5}, {".label", 4.5}, {".heading", 4.5}, {".name", 4.5}, {".size", 4.5}, {".s0", 3}, {".s1", 3}, {".s2", 3}, {".s3", 3}, {".s4", 3}, {".s5", 3}, {".s6", 3}} {
			l := luminance(t, fill[k.of])
			if got := (max(l, ground) + 0.05) / (min(l, ground) + 0.05); got < k.least {
				t.Errorf("theme %d, %s: got a contrast of %.2f, want %g or more", theme, k.of, got, k.least)
			}
		}
		for _, m := range root[theme*5 : theme*5+5] {
			if got := fill["."+m[1]]; got != m[2] {
				t.Errorf("theme %d: got %s for %s, want the report's %s", theme, got, m[1], m[2])
			}
		}
	}
	if got := strings.Count(light, "; stroke: #") - 1; got < costsColours {
		t.Errorf("got %d colours, want %d", got, costsColours)
	}
}

// luminance is the relative luminance of a colour as #rrggbb, as WCAG 2.1 defines it.
func luminance(t *testing.T, text string) float64 {
	t.Helper()
	var c color.RGBA
	if _, err := fmt.Sscanf(text, "#%02x%02x%02x", &c.R, &c.G, &c.B); err != nil {
		t.Fatalf("%q: %v, want a colour", text, err)
	}
	linear := func(level uint8) float64 {
		v := float64(level) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
}

func ExampleWriteCosts() {
	var file strings.Builder
	err := WriteCosts(&file, &Costs{Title: "Methods on the flange", Costs: []Cost{
		{Name: "rd++", Milliseconds: 42, ImageAUROC: 0.991, Bytes: 492 << 20},
		{Name: "patchcore", Milliseconds: 130, ImageAUROC: 0.985, Bytes: 700 << 20},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.Contains(file.String(), "patchcore: 130 ms, 98.50 %, 700 MiB"))
	// Output: true
}
