package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
)

func writeIndex(t *testing.T, ix *Index) []*element {
	t.Helper()
	var page bytes.Buffer
	if err := WriteIndex(&page, ix); err != nil {
		t.Fatal(err)
	}
	return parse(t, page.Bytes())
}

// rowsOf are the rows of the first n tables, a bar between cells.
func rowsOf(all []*element, n int) (rows []string) {
	var cells []string
	for _, e := range all {
		switch e.name {
		case "td", "th":
			cells = append(cells, strings.Join(strings.Fields(e.text), " "))
		case "tr":
			rows = append(rows, strings.Join(cells, " | "))
			cells = nil
		case "table":
			if n--; n == 0 {
				return rows
			}
		}
	}
	return rows
}

func TestIndexArrangement(t *testing.T) {
	three := func(a, b, c float64) anomaly.Metrics {
		return anomaly.Metrics{ImageAUROC: &a, PixelAUROC: &b, AUPRO: &c}
	}
	noMasks := anomaly.Metrics{Good: 1, Defective: 1, ImageAUROC: new(0.9)}
	header := "Category | Image AUROC | Pixel AUROC | AUPRO 0.3"
	cases := []struct {
		name string
		rows []IndexRow
		want []string
	}{
		{"nothing", nil, []string{header, "There are no categories."}},
		{"the paper's order", []IndexRow{
			{Category: "zipper", Metrics: three(0.9, 0.8, 0.7)}, {Category: "wood", Metrics: three(1, 0.9, 0.8)},
			{Category: "bottle", Metrics: three(0.8, 0.8, 0.8)}, {Category: "carpet", Metrics: three(0.9, 0.7, 0.6)},
		}, []string{header, "carpet | 90.00 | 70.00 | 60.00", "wood | 100.00 | 90.00 | 80.00", "Average of the textures | 95.00 | 80.00 | 70.00",
			"bottle | 80.00 | 80.00 | 80.00", "zipper | 90.00 | 80.00 | 70.00", "Average of the objects | 85.00 | 80.00 | 75.00",
			"Average of all | 90.00 | 80.00 | 72.50"}},
		{"one's own", []IndexRow{{Category: "b", Metrics: three(1, 1, 1)}, {Category: "a", Metrics: three(0, 0, 0)}},
			[]string{header, "b | 100.00 | 100.00 | 100.00", "a | 0.00 | 0.00 | 0.00", "Average of all | 50.00 | 50.00 | 50.00"}},
		{"gaps", []IndexRow{{Category: "b", Metrics: three(1, 0.5, 0.5)}, {Category: "a", Metrics: noMasks}, {Category: "c", Failed: "no images"}},
			[]string{header, "b | 100.00 | 50.00 | 50.00", "a | 90.00 | – note 1 | – note 1", "c | failed: no images",
				"Average of all | 95.00 2 of 3 | 50.00 1 of 3 | 50.00 1 of 3"}},
		{"no value at all", []IndexRow{{Category: "screw", Metrics: noMasks}},
			[]string{header, "screw | 90.00 | – note 1 | – note 1", "Average of all | 90.00 | – 0 of 1 | – 0 of 1"}},
		{"mixed", []IndexRow{{Category: "mine", Metrics: three(1, 1, 1)}, {Category: "tile", Metrics: three(0.5, 0.5, 0.5)}},
			[]string{header, "tile | 50.00 | 50.00 | 50.00", "Average of the textures | 50.00 | 50.00 | 50.00", "mine | 100.00 | 100.00 | 100.00",
				"Average of the others | 100.00 | 100.00 | 100.00", "Average of all | 75.00 | 75.00 | 75.00"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := rowsOf(writeIndex(t, &Index{Title: "run", Rows: c.rows}), 1)
			if g, w := strings.Join(got, "\n"), strings.Join(c.want, "\n"); g != w {
				t.Errorf("got\n%s\nwant\n%s", g, w)
			}
		})
	}
}

func TestIndexLinks(t *testing.T) {
	for path, want := range map[string]string{
		"carpet/report.html": "carpet/report.html", "a b?c#d%/report.html": "a%20b%3Fc%23d%25/report.html",
		"javascript:alert(1)": "./javascript:alert%281%29", `"><b>`: "%22%3E%3Cb%3E",
	} {
		links := elements(writeIndex(t, &Index{Title: "run", Rows: []IndexRow{{Category: "x", Report: path}}}), "a")
		if len(links) != paperMetrics-1 || links[0].attr["href"] != want { // a link in each of the two tables
			t.Errorf("%q: got %d links, the first %+v, want 2 to %q", path, len(links), links[0], want)
		}
	}
}

func TestIndexHostileNames(t *testing.T) {
	shape := func(name string) string {
		all := writeIndex(t, &Index{Title: name, Notes: []string{name}, Settings: []Setting{{name, name}},
			Rows: []IndexRow{{Category: name, Report: "x/" + name}, {Category: name, Failed: name}}})
		var s strings.Builder
		for _, e := range all {
			fmt.Fprintf(&s, "%s %d,", e.name, len(e.attr))
		}
		return s.String()
	}
	want := shape("part")
	for _, name := range hostile {
		if shape(name) != want {
			t.Errorf("%.40q: got other elements than with a plain name", name)
		}
	}
}

func TestWriteIndexRefuses(t *testing.T) {
	for want, ix := range map[string]*Index{
		"no title":             {},
		"no category":          {Title: "x", Rows: []IndexRow{{}}},
		`Pixel AUROC of "tile`: {Title: "x", Rows: []IndexRow{{Category: "tile", Metrics: anomaly.Metrics{PixelAUROC: new(math.NaN())}}}},
		"relative":             {Title: "x", Rows: []IndexRow{{Category: "tile", Report: "//elsewhere/report.html"}}},
	} {
		if err := WriteIndex(io.Discard, ix); !errors.Is(err, ErrInput) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got %v, want %v with %q", err, ErrInput, want)
		}
	}
	if err := WriteIndex(io.Discard, nil); !errors.Is(err, ErrInput) {
		t.Errorf("no index: got %v, want %v", err, ErrInput)
	}
}

func ExampleWriteIndex() {
	auroc := 0.994
	var page strings.Builder
	err := WriteIndex(&page, &Index{Title: "Line 3", Rows: []IndexRow{
		{Category: "flange", Report: "flange/report.html", Metrics: anomaly.Metrics{ImageAUROC: &auroc}},
		{Category: "cover", Failed: "no training images in cover/train/good"},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.Contains(page.String(), `<a href="flange/report.html">`))
	// Output: true
}
