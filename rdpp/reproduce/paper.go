package reproduce

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
)

//go:embed paper.json
var paperText []byte

// paper is what the paper prints.
var paper = readPaper(paperText)

type paperData struct {
	Source   string // of the numbers
	Datasets map[string]struct {
		Name       string
		Categories []string
	}
	Tables []paperTable
}

// paperTable is a table of the paper. What table, row and column say of a cell adds up to its selector.
type paperTable struct {
	Number    int
	Dataset   string
	Title     string
	RowHeader string `json:"row_header"`
	Note      string
	selector
	Columns []paperColumn
	Rows    []paperRow
}

type paperColumn struct {
	Group, Label string // Group is the heading above several columns
	selector
}

type paperRow struct {
	Label  string
	Values []string // in percent, as printed, one per column
	selector
}

// selector says what a number is of; what is empty is said elsewhere, or is the default.
type selector struct {
	Method   string // empty: a method that is not trained here
	Arch     string
	Noise    float64
	Category string // empty: the average over all
	Metric   string
	dataset  string
}

// The values of selector.Metric that the paper has.
const (
	imageAUROC = "image_auroc"
	pixelAUROC = "pixel_auroc"
	pro        = "pro"
)

// standard is the selector with the paper's own backbone and noise where it names none.
func (s selector) standard() selector {
	s.Arch = cmp.Or(s.Arch, paperArch)
	if noisy(s.Method) {
		s.Noise = cmp.Or(s.Noise, paperNoise)
	}
	return s
}

// printedBy looks a number up by what it is of, in whichever table; "" where the paper has none.
func (p *paperData) printedBy(s selector) string {
	for i := range p.Tables {
		t := &p.Tables[i]
		for _, row := range t.Rows {
			for j, column := range t.Columns {
				if of := t.at(row.selector, column.selector); of.Method != "" && of.standard() == s.standard() {
					return row.Values[j]
				}
			}
		}
	}
	return ""
}

// label is what the paper calls a method; its name where the paper has none of it.
func (p *paperData) label(method string) string {
	for _, t := range p.Tables {
		if i := slices.IndexFunc(t.Rows, func(r paperRow) bool { return r.Method == method }); i >= 0 {
			return t.Rows[i].Label
		}
	}
	return method
}

// of is the table with the chosen methods alone as those that are trained, and with a row for each of them where methods have
// rows. Others keep the paper's numbers.
func (t paperTable) of(methods []string) paperTable {
	keep := func(s *selector) {
		if s.Method != "" && !slices.Contains(methods, trained(s.Method)) {
			s.Method = ""
		}
	}
	keep(&t.selector)
	t.Columns, t.Rows = slices.Clone(t.Columns), slices.Clone(t.Rows)
	for i := range t.Columns {
		keep(&t.Columns[i].selector)
	}
	there := map[string]bool{}
	for i := range t.Rows {
		there[t.Rows[i].Method] = true
		keep(&t.Rows[i].selector)
	}
	for _, method := range methods {
		if t.RowHeader == methodHeader && !there[method] {
			t.Rows = append(t.Rows, paperRow{Label: paper.label(method), Values: make([]string, len(t.Columns)), selector: selector{Method: method}})
		}
	}
	return t
}

// methodHeader stands above the rows of the tables in which methods have rows.
const methodHeader = "Method"

// at is the selector of the cell of a row and a column.
func (t *paperTable) at(row, column selector) selector {
	s := t.selector
	s.dataset = t.Dataset
	for _, more := range []selector{row, column} {
		overlay(&s.Method, more.Method)
		overlay(&s.Arch, more.Arch)
		overlay(&s.Noise, more.Noise)
		overlay(&s.Category, more.Category)
		overlay(&s.Metric, more.Metric)
	}
	return s
}

func overlay[T comparable](value *T, more T) {
	var zero T
	if more != zero {
		*value = more
	}
}

// readPaper reads the embedded file, whose faults are the program's own.
func readPaper(text []byte) *paperData {
	p := &paperData{}
	if err := json.Unmarshal(text, p); err != nil {
		panic(fmt.Sprintf("reproduce: paper.json: %v", err))
	}
	return p
}
