package report

import (
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"rdpp/rdpp/anomaly"
)

// Index is the page of a run over several categories.
type Index struct {
	Title    string // required
	Notes    []string
	Rows     []IndexRow // in any order; those of MVTec AD are put into the paper's
	Settings []Setting
}

// IndexRow is one category.
type IndexRow struct {
	Category string // required
	Report   string // its report's path from the index, with slashes; empty: none
	Failed   string // why there are no metrics at all, in words; empty: all went well
	Metrics  anomaly.Metrics
	HasMasks bool // as in Report
}

// textures and objects are the categories of MVTec AD in the order of the paper's Tables 1 to 3.
var (
	textures = []string{"carpet", "grid", "leather", "tile", "wood"}
	objects  = []string{"bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper"}
)

// indexPage is an Index made ready for its template.
type indexPage struct {
	frame
	*Index
	Tables  []indexTable
	Reasons []string // footnotes, counted from 1
}

// indexTable has a column for each of some metrics.
type indexTable struct {
	Title, Caption string
	Columns        []string
	Groups         []indexGroup
	Overall        *indexLine
}

type indexGroup struct {
	Lines   []indexLine
	Average *indexLine // nil where the group is all there is
}

type indexLine struct {
	Name, Link, Failed string
	Span               int
	Cells              []indexCell
}

type indexCell struct {
	Value *float64
	Of    string // how many values an average is of, where some are missing
	Note  int    // footnote that says why there is no value
}

// WriteIndex writes the index as one HTML file: the paper's three metrics as its Tables 1 to 3 arrange them, with averages
// over MVTec AD's textures and objects where all or some of them are there, and the further metrics below. An average is
// over the categories that have a value, and says so where some have none. The same index gives the same bytes.
func WriteIndex(w io.Writer, ix *Index) error {
	if ix == nil || ix.Title == "" {
		return fmt.Errorf("%w: the index has no title; name one", ErrInput)
	}
	c := checker{}
	for i, row := range ix.Rows {
		if row.Category == "" {
			c.fail("row %d of the index has no category; name one", i)
		}
		if strings.HasPrefix(row.Report, "/") {
			c.fail("the report's path %q is absolute; give it relative to the index", row.Report)
		}
		c.metrics(&row.Metrics, func(field string) string { return fmt.Sprintf("%s of %q", field, row.Category) })
	}
	if c.err != nil {
		return c.err
	}
	p := &indexPage{frame: theFrame, Index: ix}
	p.addTable("Detection and localization", "In %, arranged as the paper's Tables 1 to 3.", 0, paperMetrics)
	p.addTable("Further metrics", "In %.", paperMetrics, len(metrics))
	return render(w, "index.html", p)
}

// addTable adds the table of metrics[from:to].
func (p *indexPage) addTable(title, caption string, from, to int) {
	t := indexTable{Title: title, Caption: caption}
	for _, m := range metrics[from:to] {
		t.Columns = append(t.Columns, m.name)
	}
	groups := []struct {
		name string
		rows []IndexRow
	}{{"Average of the textures", named(p.Rows, textures)}, {"Average of the objects", named(p.Rows, objects)}, {"Average of the others", p.others()}}
	var all []IndexRow
	for _, g := range groups {
		if len(g.rows) == 0 {
			continue
		}
		group := indexGroup{}
		for _, row := range g.rows {
			group.Lines = append(group.Lines, p.line(row, from, to))
		}
		if len(g.rows) < len(p.Rows) {
			group.Average = average(g.name, g.rows, from, to)
		}
		t.Groups = append(t.Groups, group)
		all = append(all, g.rows...)
	}
	if len(all) > 0 {
		t.Overall = average("Average of all", all, from, to)
	}
	p.Tables = append(p.Tables, t)
}

// named are the rows of the given categories, in their order.
func named(rows []IndexRow, names []string) (out []IndexRow) {
	for _, name := range names {
		for _, row := range rows {
			if row.Category == name {
				out = append(out, row)
			}
		}
	}
	return out
}

func (p *indexPage) others() (out []IndexRow) {
	for _, row := range p.Rows {
		if !slices.Contains(textures, row.Category) && !slices.Contains(objects, row.Category) {
			out = append(out, row)
		}
	}
	return out
}

func (p *indexPage) line(row IndexRow, from, to int) indexLine {
	l := indexLine{Name: row.Category, Failed: row.Failed, Span: to - from}
	if row.Report != "" {
		l.Link = (&url.URL{Path: row.Report}).String()
	}
	for _, m := range metricRows(&row.Metrics, row.HasMasks)[from:to] {
		cell := indexCell{Value: m.Value}
		if m.Value == nil && row.Failed == "" {
			cell.Note = p.footnote(m.Reason)
		}
		l.Cells = append(l.Cells, cell)
	}
	return l
}

// footnote returns the number of the footnote with that text.
func (p *indexPage) footnote(text string) int {
	i := slices.Index(p.Reasons, text)
	if i < 0 {
		i = len(p.Reasons)
		p.Reasons = append(p.Reasons, text)
	}
	return i + 1
}

func average(name string, rows []IndexRow, from, to int) *indexLine {
	l := &indexLine{Name: name}
	for _, m := range metrics[from:to] {
		var values []float64
		for _, row := range rows {
			if v := m.of(&row.Metrics); v != nil && row.Failed == "" {
				values = append(values, *v)
			}
		}
		cell := indexCell{}
		if len(values) > 0 {
			mean, _ := moments(values)
			cell.Value = &mean
		}
		if len(values) < len(rows) {
			cell.Of = fmt.Sprintf("%d of %d", len(values), len(rows))
		}
		l.Cells = append(l.Cells, cell)
	}
	return l
}
