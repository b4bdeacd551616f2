package reproduce

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strconv"
	"strings"

	"rdpp/rdpp/report"
)

// How a row of the paper's table becomes three.
const (
	paperLine      = "paper"
	oursLine       = "ours"
	differenceLine = "difference"
)

const notComparable = "Not comparable with the paper"

// percent writes a number with as many digits as the paper has; with a sign where one is asked for.
func percent(v *float64, sign bool) string {
	if v == nil {
		return ""
	}
	format := "%.2f"
	if sign {
		format = "%+.2f"
	}
	text := fmt.Sprintf(format, *v)
	if text == "-0.00" {
		text = "+0.00"
	}
	return text
}

// WriteMarkdown writes the comparison as Markdown with tables as GitHub has them.
func (c *Comparison) WriteMarkdown(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# The paper's tables again\n\nNumbers in %% where no unit is named. The paper's: %s.\n\n", markdown(c.Source))
	for _, f := range c.Facts {
		fmt.Fprintf(&b, "- %s: %s\n", markdown(f.Name), markdown(f.Value))
	}
	for _, t := range c.all() {
		fmt.Fprintf(&b, "\n## %s\n\n", markdown(t.Heading()))
		if len(t.NotComparable) > 0 {
			fmt.Fprintf(&b, "> **%s**: %s.\n\n", notComparable, markdown(strings.Join(t.NotComparable, "; ")))
		}
		fmt.Fprintf(&b, "| %s |  |", markdown(t.RowHeader))
		for _, column := range t.Columns {
			fmt.Fprintf(&b, " %s |", markdown(column.String()))
		}
		fmt.Fprintf(&b, "\n|---|---|%s\n", strings.Repeat("--:|", len(t.Columns)))
		for _, row := range t.Rows {
			row.markdown(&b)
		}
		for _, note := range t.Notes {
			fmt.Fprintf(&b, "\n%s\n", markdown(note))
		}
		for i, reason := range t.Reasons {
			fmt.Fprintf(&b, "\n(%d) %s\n", i+1, markdown(reason))
		}
	}
	return write(w, b.Bytes())
}

func (r *Row) markdown(b *bytes.Buffer) {
	line := func(label, kind string, cell func(Cell) string) {
		fmt.Fprintf(b, "| %s | %s |", markdown(label), kind)
		for _, c := range r.Cells {
			fmt.Fprintf(b, " %s |", cell(c))
		}
		b.WriteByte('\n')
	}
	label := r.Label
	if r.Printed() || !r.Ours {
		line(label, paperLine, func(c Cell) string { return c.Paper })
		label = ""
	}
	if !r.Ours {
		return
	}
	line(label, "**"+oursLine+"**", func(c Cell) string {
		switch {
		case c.Note > 0:
			return fmt.Sprintf("– (%d)", c.Note)
		case c.Ours == nil:
			return ""
		}
		text := "**" + percent(c.Ours, false) + "**"
		if c.Deviation != nil {
			text += " ± " + percent(c.Deviation, false)
		}
		return text + bracketed(c.Of)
	})
	if !r.Printed() {
		return
	}
	line("", differenceLine, func(c Cell) string { return percent(c.Difference, true) + bracketed(c.Against) })
}

func bracketed(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

func (c Column) String() string {
	if c.Group == "" {
		return c.Label
	}
	return c.Group + ", " + c.Label
}

// markdown makes text stand for itself.
func markdown(text string) string {
	var b strings.Builder
	for _, r := range harmless(text) {
		switch {
		case r == '<':
			b.WriteString("&lt;")
		case r == '&':
			b.WriteString("&amp;")
		case strings.ContainsRune("\\`*_[]|>#~", r):
			b.WriteRune('\\')
			b.WriteRune(r)
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// harmless replaces what no page may have: control characters and what turns the direction of writing around.
func harmless(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 ||
			r == 0xfffe || r == 0xffff {
			return 0xfffd
		}
		return r
	}, text)
}

// all are the tables in the order in which they are shown.
func (c *Comparison) all() []*Table {
	var all []*Table
	for _, tables := range [][]Table{c.Methods, c.Tables} {
		for i := range tables {
			all = append(all, &tables[i])
		}
	}
	return all
}

// WriteJSON writes the comparison as one JSON object.
func (c *Comparison) WriteJSON(w io.Writer) error {
	text, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return fmt.Errorf("reproduce: %w", err)
	}
	return write(w, append(text, '\n'))
}

// WriteCSV writes a line for each number: its place, the paper's, ours, the difference, and what there is to say of them.
// Numbers are in percent or the unit of their column, ours with four digits behind the point.
func (c *Comparison) WriteCSV(w io.Writer) error {
	var b bytes.Buffer
	out := csv.NewWriter(&b)
	out.Write([]string{"table", "row", "column", "paper", "ours", "difference", "deviation", "over", "against", "missing", "not_comparable"})
	exact := func(v *float64) string {
		if v == nil {
			return ""
		}
		return strconv.FormatFloat(*v, 'f', 4, 64)
	}
	for _, t := range c.all() {
		for _, row := range t.Rows {
			for i, cell := range row.Cells {
				missing, apart := "", ""
				if cell.Note > 0 {
					missing = t.Reasons[cell.Note-1]
				}
				if row.Ours {
					apart = strings.Join(t.NotComparable, "; ")
				}
				out.Write([]string{t.ID(), row.Label, t.Columns[i].String(), cell.Paper, exact(cell.Ours),
					exact(cell.Difference), exact(cell.Deviation), cell.Of, cell.Against, missing, apart})
			}
		}
	}
	out.Flush() // into memory, which does not fail
	return write(w, []byte(harmless(b.String())))
}

var (
	//go:embed page.html
	pageText string
	//go:embed style.css
	style string

	page = template.Must(template.New("page").Funcs(template.FuncMap{
		"percent": percent,
		"groups":  groups,
		"anchor":  func(t *Table) string { return "table" + t.ID() },
		"svg":     (*report.Costs).SVG,
	}).Parse(pageText))
)

// group is the heading above some columns.
type group struct {
	Label string
	Span  int
}

// groups are the headings of a table; none where no column has one.
func groups(columns []Column) (all []group) {
	for i, c := range columns {
		if i == 0 || c.Group != columns[i-1].Group {
			all = append(all, group{Label: c.Group})
		}
		all[len(all)-1].Span++
	}
	if slices.ContainsFunc(all, func(g group) bool { return g.Label != "" }) {
		return all
	}
	return nil
}

// WriteHTML writes the comparison as one HTML file that needs nothing else and runs nothing.
func (c *Comparison) WriteHTML(w io.Writer) error {
	var b bytes.Buffer
	err := page.Execute(&b, struct {
		*Comparison
		All   []*Table
		Style template.CSS
		Label string
	}{c, c.all(), template.CSS(style), notComparable})
	if err != nil {
		return fmt.Errorf("reproduce: %w", err)
	}
	return write(w, []byte(harmless(b.String())))
}

func write(w io.Writer, text []byte) error {
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("reproduce: %w", err)
	}
	return nil
}
