package reproduce

import (
	_ "embed"
	"encoding/json"
	"fmt"
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

// The values of selector.Metric.
const (
	imageAUROC = "image_auroc"
	pixelAUROC = "pixel_auroc"
	pro        = "pro"
)

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
