package reproduce

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/setting"
)

func newPlan(t *testing.T, opt *Options) *Plan {
	t.Helper()
	p, err := NewPlan(opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlanCounts(t *testing.T) {
	two := []string{"transistor", "screw"}
	for _, c := range []struct {
		opt  Options
		want int
	}{
		{Options{Tables: []int{1}}, 30},
		{Options{Tables: []int{3, 2, 1, 1}}, 30},
		{Options{Tables: []int{4}}, 6},
		{Options{Tables: []int{5}}, 2},
		{Options{Tables: []int{6}}, 60},
		{Options{Tables: []int{1, 2, 3, 6}}, 60},
		{Options{Tables: []int{7}}, 75},
		{Options{Tables: []int{1, 7}}, 90},
		{Options{Tables: []int{8}}, 90},
		{Options{Tables: []int{1, 8}}, 90},
		{Options{Tables: []int{1, 8}, Arch: "resnet18"}, 90},
		{Options{Tables: []int{1, 8}, Arch: "resnet34"}, 120},
		{Options{}, 30 + 6 + 2 + 30 + 60 + 60},
		{Options{Tables: []int{1, 2, 3}, Categories: two}, 4},
		{Options{Categories: two}, 4 + 6 + 2 + 4 + 8 + 8},
		{Options{Tables: []int{4, 5}, Categories: two}, 8},
		{Options{Tables: []int{1, 5}, Seeds: 3}, 96},
		{Options{Tables: []int{1, 6, 7}, Methods: []string{"patchcore", "patchcore"}}, 15},
		{Options{Tables: []int{6}, Methods: []string{"rd"}}, 15},
		{Options{Methods: []string{"rd++", "rd", "patchcore"}}, 30 + 6 + 2 + 30 + 60 + 60 + 15 + 3 + 1},
		{Options{Tables: []int{1, 2, 6}, Methods: []string{"another"}, Categories: two}, 2}, // which the paper has not
	} {
		p := newPlan(t, &c.opt)
		if got := len(p.Trainings); got != c.want {
			t.Errorf("%+v: got %d trainings, want %d", c.opt, got, c.want)
		}
		folders := map[string]bool{}
		for _, training := range p.Trainings {
			folders[training.Folder()+"/"+training.Category] = true
		}
		if len(folders) != c.want {
			t.Errorf("%+v: got %d folders, want %d", c.opt, len(folders), c.want)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, c := range []struct {
		opt  Options
		want string
	}{
		{Options{Tables: []int{0}}, "tables is 0"},
		{Options{Tables: []int{1, 9}}, "tables is 9"},
		{Options{Categories: []string{"part"}}, `categories is "part"`},
		{Options{Categories: []string{"../screw"}}, "../screw"},
		{Options{Seeds: -1}, "seeds is -1"},
		{Options{Seeds: 101}, "seeds is 101"},
		{Options{Epochs: -1}, "epochs is -1"},
		{Options{ImageSize: -32}, "image_size is -32"},
		{Options{Calibration: -0.1}, "calibration is -0.1"},
		{Options{Methods: []string{"rd++", ""}}, `methods is ""`},
		{Options{Methods: []string{"../x"}}, `methods is "../x"`},
		{Options{Methods: []string{"rd+ssot"}}, `methods is "rd+ssot"`},
		{Options{Methods: []string{"patchcore"}, Tables: []int{7}}, `methods is "patchcore"; none of the tables`},
	} {
		_, err := NewPlan(&c.opt)
		if !errors.Is(err, setting.ErrValue) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want setting.ErrValue and %q", c.opt, err, c.want)
		}
	}
}

func TestArgs(t *testing.T) {
	plain := newPlan(t, nil)
	other := newPlan(t, &Options{Epochs: 2, OnePass: []string{"patchcore"}, Calibration: 0.1, ImageSize: 64, Teacher: "random", Teachers: map[string]string{"resnet50": "/w.pth"}})
	base := Training{MVTec, "screw", "resnet18", "rd++", 0.2, 1}
	with := func(method string, noise float64) Training {
		u := base
		u.Method, u.Noise = method, noise
		return u
	}
	fifty := Training{BTAD, "01", "resnet50", "rd", 0, 7}
	const begin = "--preset paper --arch resnet18 --method rd++ --teacher auto --seed 1 --noise "
	for _, c := range []struct {
		plan         *Plan
		training     Training
		want, folder string
	}{
		{plain, base, begin + "0.2", "mvtec_resnet18_rd++_noise0.2_seed1"},
		{plain, with("rd", 0), "--preset paper --arch resnet18 --method rd --teacher auto --seed 1", "mvtec_resnet18_rd_seed1"},
		{plain, with("rd+ssot", 0.2), begin + "0.2 --weight-recon 0 --weight-contrast 0", "mvtec_resnet18_rd+ssot_noise0.2_seed1"},
		{plain, with("rd+ssot+con", 0.2), begin + "0.2 --weight-recon 0", "mvtec_resnet18_rd+ssot+con_noise0.2_seed1"},
		{plain, with("rd++", 0.5), begin + "0.5", "mvtec_resnet18_rd++_noise0.5_seed1"},
		{other, with("patchcore", 0), "--preset paper --arch resnet18 --method patchcore --teacher random --seed 1 --calibration 0.1 --image-size 64",
			"mvtec_resnet18_patchcore_seed1"},
		{other, fifty, "--preset paper --arch resnet50 --method rd --teacher /w.pth --seed 7 --epochs 2 --calibration 0.1 --image-size 64", "btad_resnet50_rd_seed7"},
	} {
		if got := strings.Join(c.plan.Args(c.training), " "); got != c.want {
			t.Errorf("%v: got %q, want %q", c.training, got, c.want)
		}
		if got := c.training.Folder(); got != c.folder {
			t.Errorf("%v: got %q, want %q", c.training, got, c.folder)
		}
	}
}

// Values typed from the paper's pages.
func TestPaperValues(t *testing.T) {
	for _, c := range []struct {
		table       int
		row, column string
		want        string
	}{
		{1, "CSFlow", "Screw", "97.60"}, {1, "RD++", "Cable", "99.20"}, {1, "RD", "Avg.", "98.46"}, {1, "RD++", "Carpet", "100"},
		{2, "FastFlow", "Leather", "99.6"}, {2, "RD", "Transistor", "92.50"}, {2, "RD++", "Avg.", "98.25"},
		{3, "RD", "Pill", "96.4"}, {3, "RD++", "Transistor", "81.80"}, {3, "CFA", "Avg.", "94.44"},
		{4, "RD++", "Class 02, PRO", "71.30"}, {4, "PatchCore", "Class 03, image-level", "99.95"}, {4, "RD", "Avg., pixel-level", "97.67"},
		{5, "RD++", "AUROC sample", "99.73"}, {5, "FastFlow", "AUROC sample", "80.40"},
		{6, "RD + (SSOT + Con)", "PRO", "95.00"}, {6, "RD + (SSOT)", "AUROC image-level", "99.33"},
		{7, "0.1", "AUROC pixel-level", "98.15"}, {7, "0.5", "PRO", "95.20"},
		{8, "Resnet50", "AUROC pixel, RD++", "98.17"}, {8, "Resnet18", "PRO, RD", "91.20"}, {8, "WideResnet50", "AUROC sample, RD", "98.46"},
	} {
		table := paper.Tables[c.table-1]
		row := slices.IndexFunc(table.Rows, func(r paperRow) bool { return r.Label == c.row })
		column := slices.IndexFunc(table.Columns, func(p paperColumn) bool { return Column{p.Group, p.Label}.String() == c.column })
		if row < 0 || column < 0 {
			t.Errorf("Table %d: got row %d, column %d, want %s and %s", c.table, row, column, c.row, c.column)
			continue
		}
		if got := table.Rows[row].Values[column]; got != c.want {
			t.Errorf("Table %d, %s, %s: got %s, want %s", c.table, c.row, c.column, got, c.want)
		}
	}
}

// Every table is whole, its numbers are percentages, its categories known, and its averages those of its columns.
func TestPaperIsSound(t *testing.T) {
	const rounding = 0.005 + 1e-9 // half of the last printed digit
	rows := []int{6, 5, 4, 5, 5, 4, 5, 3}
	for i, table := range paper.Tables {
		if table.Number != i+1 || len(table.Rows) != rows[i] {
			t.Errorf("got Table %d with %d rows, want Table %d with %d", table.Number, len(table.Rows), i+1, rows[i])
		}
		for r, row := range table.Rows {
			if len(row.Values) != len(table.Columns) {
				t.Fatalf("Table %d, %s: got %d values, want %d", table.Number, row.Label, len(row.Values), len(table.Columns))
			}
			for c, column := range table.Columns {
				s := table.at(row.selector, column.selector)
				v, err := strconv.ParseFloat(row.Values[c], 64)
				if err != nil || v < 40 || v > 100 || !slices.Contains([]string{imageAUROC, pixelAUROC, pro}, s.Metric) {
					t.Errorf("Table %d, %s: got %q (%v) of %q, want a percentage of a metric", table.Number, row.Label, row.Values[c], err, s.Metric)
				}
				categories := paper.Datasets[s.dataset].Categories
				if s.Category != "" && !slices.Contains(categories, s.Category) {
					t.Errorf("Table %d: got category %q, want one of %q", table.Number, s.Category, categories)
				}
				parts := table.printed(r, s, categories)
				if s.Category == "" && len(parts) > 0 && (len(parts) != len(categories) || math.Abs(mean(parts)-v) > rounding) {
					t.Errorf("Table %d, %s: got an average of %v, want %.4f of %d values", table.Number, row.Label, v, mean(parts), len(parts))
				}
			}
		}
	}
}

// The same experiment has the same numbers in every table that prints its average.
func TestPaperAgreesWithItself(t *testing.T) {
	seen := map[selector]string{}
	for _, table := range paper.Tables {
		for _, row := range table.Rows {
			for c, column := range table.Columns {
				s := table.at(row.selector, column.selector)
				if s.Method == "" || s.Category != "" {
					continue
				}
				s.Arch = cmp.Or(s.Arch, paperArch)
				s.Noise = cmp.Or(s.Noise, paperNoise)
				if before := seen[s]; before != "" && before != row.Values[c] {
					t.Errorf("Table %d, %s: got %s, want %s as in a table before", table.Number, row.Label, row.Values[c], before)
				}
				seen[s] = row.Values[c]
			}
		}
	}
	if got, want := len(seen), 3*3+3*3+3+2*3+4*3+4*3+(1+1+3+1)+(1+1+1+3+1)+1; got != want {
		t.Errorf("got %d different averages, want %d", got, want)
	}
}

func number(v float64) *float64 { return &v }

// measured is a result with a teacher of the paper's.
func measured(image, pixel, released float64) Outcome {
	r := &Result{Teacher: Teacher{"wide_resnet50_2-95faca4d.pth", "95faca4d" + strings.Repeat("0", 56)},
		Metrics: anomaly.Metrics{ImageAUROC: number(image), PixelAUROC: number(pixel), PROReleased: number(released)}}
	r.Config.Select = "best-on-test"
	return Outcome{Result: r}
}

// cellOf is a cell of a comparison.
func cellOf(t *testing.T, c *Comparison, table int, row, column string) (Cell, *Table) {
	t.Helper()
	for i := range c.Tables {
		at := &c.Tables[i]
		if at.Number != table {
			continue
		}
		for _, r := range at.Rows {
			for j, name := range at.Columns {
				if r.Label == row && name.String() == column {
					return r.Cells[j], at
				}
			}
		}
	}
	t.Fatalf("Table %d has no cell %s, %s", table, row, column)
	return Cell{}, nil
}

// show is a cell in words.
func show(c Cell) string {
	text := fmt.Sprintf("%s: %s %s", c.Paper, percent(c.Ours, false), percent(c.Difference, true))
	for _, more := range []string{percent(c.Deviation, false), c.Of, c.Against} {
		text += "|" + more
	}
	return fmt.Sprintf("%s|%d", text, c.Note)
}

func TestCompare(t *testing.T) {
	p := newPlan(t, &Options{Categories: []string{"screw", "carpet", "grid"}, Seeds: 2})
	outcomes := map[Training]Outcome{}
	set := func(method string, noise float64, category string, seed uint64, o Outcome) {
		outcomes[Training{MVTec, category, paperArch, method, noise, seed}] = o
	}
	set("rd++", 0.2, "screw", 1, measured(0.98, 0.97, 0.96))
	set("rd++", 0.2, "screw", 2, measured(0.99, 0.97, 0.96))
	set("rd++", 0.2, "carpet", 1, measured(1, 0.97, 0.90))
	set("rd++", 0.2, "carpet", 2, measured(1, 0.97, 0.90))
	set("rd", 0, "screw", 1, measured(0.5, 0.5, 0.5))
	set("rd", 0, "screw", 2, Outcome{Missing: "failed: no memory"})
	set("rd", 0, "grid", 1, Outcome{Missing: "failed: no memory"})
	set("rd", 0, "grid", 2, Outcome{Missing: "failed: no memory"})
	c := p.Compare(outcomes)
	for _, k := range []struct {
		table       int
		row, column string
		want        string // show
	}{
		{1, "RD++", "Screw", "98.90: 98.50 -0.40|0.71|||0"},
		{1, "RD++", "Carpet", "100: 100.00 +0.00|0.00|||0"},
		{1, "CFA", "Screw", "97.30:  ||||0"},
		{1, "RD", "Carpet", "98.90:  ||||1"}, // the first cell that lacks a number
		{1, "RD", "Grid", "100:  ||||2"},
		{1, "RD", "Leather", "100:  ||||3"},
		{1, "RD", "Screw", "97.00: 50.00 -47.00||1 of 2 trainings||0"},
		{1, "RD", "Avg.", "98.46: 50.00 -47.00||avg. of 1 of 15, 1 of 6 trainings|to the same 1|0"},
		// (98.5 + 100) / 2 less the paper's (98.90 + 100) / 2.
		{1, "RD++", "Avg.", "99.44: 99.25 -0.20|0.35|avg. of 2 of 15, 4 of 6 trainings|to the same 2|0"},
		{3, "RD++", "Avg.", "94.99: 93.00 -5.15|0.00|avg. of 2 of 15, 4 of 6 trainings|to the same 2|0"},
		{6, "RD++ (SSOT + Con + Recon)", "PRO", "94.99: 93.00 -1.99|0.00|avg. of 2 of 15, 4 of 6 trainings|to the avg. of 15|0"},
		{6, "RD + (SSOT)", "PRO", "94.95:  ||||1"},
		{7, "0.2", "AUROC image-level", "99.44: 99.25 -0.19|0.35|avg. of 2 of 15, 4 of 6 trainings|to the avg. of 15|0"},
		{8, "WideResnet50", "AUROC sample, RD++", "99.44: 99.25 -0.19|0.35|avg. of 2 of 15, 4 of 6 trainings|to the avg. of 15|0"},
		{8, "Resnet18", "PRO, RD", "91.20:  ||||1"},
		{4, "RD", "Avg., PRO", "77.10:  ||||1"},
		{5, "RD", "AUROC sample", "99.36:  ||||1"},
	} {
		cell, table := cellOf(t, c, k.table, k.row, k.column)
		if got := show(cell); got != k.want {
			t.Errorf("Table %d, %s, %s: got %q, want %q; the reasons are %q", k.table, k.row, k.column, got, k.want, table.Reasons)
		}
	}
	if got, want := fmt.Sprint(c.Tables[0].Reasons), "[not run failed: no memory not asked for]"; got != want {
		t.Errorf("Table 1's reasons: got %q, want %q", got, want)
	}
}

// Methods stand side by side with what they cost, those that the paper has beside its numbers. Nothing is shown that was not
// measured, and no method that was not chosen.
func TestMethods(t *testing.T) {
	p := newPlan(t, &Options{Categories: []string{"screw", "carpet"}, Seeds: 2, Methods: []string{"another", "rd++", "patchcore"}, Tables: []int{1, 7}})
	outcomes := map[Training]Outcome{}
	set := func(method string, noise float64, category string, seed uint64, found int) {
		o := measured(0.5, 0.6, 0.7)
		r := o.Result
		r.AUPRO, r.Good, r.Defective, r.DefectiveFound, r.GoodFlagged = number(0.65), 10, 20, found, 1
		r.Seconds, r.EvaluationSeconds, r.ModelBytes = 60*float64(seed), 3, 2.5e6
		outcomes[Training{MVTec, category, paperArch, method, noise, seed}] = o
	}
	set("another", 0, "screw", 1, 10)
	set("another", 0, "screw", 2, 12)
	set("rd++", 0.2, "screw", 1, 5)
	set("rd++", 0.3, "screw", 2, 20) // Table 7's
	provisional := outcomes[Training{MVTec, "screw", paperArch, "rd++", 0.2, 1}].Result
	provisional.Provisional, provisional.ModelBytes, provisional.EvaluationSeconds = true, 0, 0
	c := p.Compare(outcomes)
	if len(c.Methods) != 1 || c.Methods[0].ID() != "methods-mvtec" || c.Methods[0].Heading() != "Methods on MVTec AD" {
		t.Fatalf("got %+v, want a table for MVTec AD", c.Methods)
	}
	table := &c.Methods[0]
	var rows []string
	for _, row := range table.Rows {
		rows = append(rows, row.Label)
	}
	if got, want := strings.Join(rows, "|"), "another|RD++|PatchCore|screw: another|screw: RD++|screw: PatchCore"; got != want {
		t.Errorf("got the rows %s, want %s", got, want)
	}
	for _, k := range []struct {
		row, column, want string // show, the reason in words
	}{
		{"screw: another", "Image AUROC", ": 50.00 |0.00||"}, {"screw: another", "Found", ": 55.00 |7.07||"},
		{"screw: another", "Good flagged", ": 10.00 |0.00||"}, {"screw: another", "Training, s", ": 90.00 |42.43||"},
		{"screw: another", "Model, MB", ": 2.50 |0.00||"}, {"screw: another", "ms per image", ": 100.00 |0.00||"},
		{"another", "AUPRO", ": 65.00 |0.00|avg. of 1 of 15, 2 of 4 trainings|"},
		{"RD++", "Image AUROC", "99.44: 50.00 -48.90||avg. of 1 of 15, 1 of 4 trainings|to the same 1"},
		{"screw: RD++", "PRO", "98.60: 70.00 -28.60||1 of 2 trainings|"},
		{"screw: RD++", "Found", "not counted: no good images were held out"}, {"screw: RD++", "Model, MB", "the model file is not there; not run"},
		{"PatchCore", "Pixel AUROC", "98.06|not run"}, {"screw: PatchCore", "PRO", "97.90|not run"}, {"PatchCore", "Found", "not run"},
	} {
		row := table.Rows[slices.Index(rows, k.row)]
		cell := row.Cells[slices.IndexFunc(table.Columns, func(c Column) bool { return c.Label == k.column })]
		got := strings.TrimSuffix(show(cell), "|0")
		if cell.Note > 0 {
			got = strings.TrimPrefix(cell.Paper+"|"+table.Reasons[cell.Note-1], "|")
		}
		if !strings.HasPrefix(got, k.want) {
			t.Errorf("%s, %s: got %q, want %q", k.row, k.column, got, k.want)
		}
	}
	for _, row := range c.Tables[0].Rows {
		if want := row.Label == "RD++" || row.Label == "PatchCore" || row.Label == "another"; row.Ours != want {
			t.Errorf("Table 1, %s: got ours %v, want %v", row.Label, row.Ours, want)
		}
	}

	var text, page, object, lines strings.Builder
	if err := errors.Join(c.WriteMarkdown(&text), c.WriteHTML(&page), c.WriteJSON(&object), c.WriteCSV(&lines)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\n## Methods on MVTec AD\n", "\n| another | **ours** |", "\n| PatchCore | paper | 99.10 | 98.06 | 93.40 |  |"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("got %s, want %q in it", &text, want)
		}
	}
	if !strings.Contains(page.String(), `<section id="tablemethods-mvtec"><h2>Methods on MVTec AD</h2>`) {
		t.Errorf("got %s, want the table of methods", &page)
	}
	if want := "methods-mvtec,screw: another,Found,,55.0000,,7.0711,"; !strings.Contains(lines.String(), want) {
		t.Errorf("got %s, want %q", &lines, want)
	}
	var back Comparison
	if err := json.Unmarshal([]byte(object.String()), &back); err != nil || !reflect.DeepEqual(&back, c) {
		t.Errorf("got %v, %s, want JSON of the same", err, &object)
	}
}

// With all there, the paper's own numbers give no difference but that of rounding, and nothing speaks against comparing.
func TestComparePaperWithItself(t *testing.T) {
	const rounding = 0.005 + 1e-9 // half of the last printed digit of averages
	p := newPlan(t, &Options{Tables: []int{1, 2, 3}})
	outcomes := map[Training]Outcome{}
	for _, training := range p.Trainings {
		v := [3]float64{}
		for i := range v {
			table := paper.Tables[i]
			row := table.Rows[slices.IndexFunc(table.Rows, func(r paperRow) bool { return r.Method == training.Method })]
			column := slices.IndexFunc(table.Columns, func(c paperColumn) bool { return c.Category == training.Category })
			v[i], _ = strconv.ParseFloat(row.Values[column], 64)
		}
		outcomes[training] = measured(v[0]/100, v[1]/100, v[2]/100)
	}
	cells := 0
	for _, table := range p.Compare(outcomes).Tables {
		if len(table.NotComparable) != 0 || len(table.Reasons) != 0 {
			t.Errorf("Table %d: got %q and %q, want nothing against it", table.Number, table.NotComparable, table.Reasons)
		}
		for _, row := range table.Rows {
			for j, cell := range row.Cells {
				if !row.Ours {
					continue
				}
				cells++
				if cell.Difference == nil || math.Abs(*cell.Difference) > rounding || cell.Of != "" || cell.Against != "" {
					t.Errorf("Table %d, %s, column %d: got %s, want no difference", table.Number, row.Label, j, show(cell))
				}
			}
		}
	}
	if cells != 3*2*16 {
		t.Errorf("got %d cells, want %d", cells, 3*2*16)
	}
}

func TestNotComparable(t *testing.T) {
	one := func(o Outcome) map[Training]Outcome {
		return map[Training]Outcome{{OCT, "oct", paperArch, "rd", 0, 1}: o, {OCT, "oct", paperArch, "rd++", 0.2, 1}: o}
	}
	with := func(teacher Teacher) map[Training]Outcome {
		o := measured(1, 1, 1)
		o.Result.Teacher = teacher
		return one(o)
	}
	mixed := with(Teacher{"drawn", "1234567890"})
	mixed[Training{OCT, "oct", paperArch, "rd", 0, 1}] = measured(1, 1, 1)
	good, last := one(measured(1, 1, 1)), one(measured(1, 1, 1))
	last[Training{OCT, "oct", paperArch, "rd", 0, 1}].Result.Config.Select = "last"
	for _, c := range []struct {
		what     string
		opt      Options
		outcomes map[Training]Outcome
		want     []string // parts of the reasons
	}{
		{"the paper's", Options{}, good, nil},
		{"the paper's size", Options{ImageSize: 256}, good, nil},
		{"nothing run", Options{}, nil, []string{"0 of 1 category"}},
		{"random, nothing run", Options{Teacher: "random"}, nil, []string{"wide_resnet50_2 is random", "0 of 1"}},
		{"random", Options{}, with(Teacher{Origin: "random"}), []string{"wide_resnet50_2 is random"}},
		{"built in, nothing run", Options{Teacher: "builtin"}, nil, []string{"wide_resnet50_2 is builtin", "0 of 1"}},
		{"drawn, nothing run", Options{Teacher: "drawn"}, nil, []string{"wide_resnet50_2 is drawn", "0 of 1"}},
		{"built in", Options{}, with(Teacher{"builtin-imagenet", "1234567890"}), []string{"is builtin-imagenet, SHA-256 12345678 instead"}},
		{"another file of that name", Options{}, with(Teacher{"wide_resnet50_2-95faca4d.pth", "abc"}), []string{"SHA-256 abc instead"}},
		{"mixed", Options{}, mixed, []string{"drawn", "do not have the same teacher"}},
		{"last epoch", Options{}, last, []string{"best on the test images"}},
		{"held out", Options{Calibration: 0.1}, good, []string{"10 % of the good training images are held out"}},
		{"epochs", Options{Epochs: 1}, good, []string{"1 epoch instead"}},
		{"size", Options{ImageSize: 64}, good, []string{"64 x 64"}},
		{"backbone", Options{Arch: "resnet18"}, nil, []string{"resnet18 instead of wide_resnet50_2", "0 of 1"}},
	} {
		c.opt.Tables = []int{5}
		got := newPlan(t, &c.opt).Compare(c.outcomes).Tables[0].NotComparable
		if len(got) != len(c.want) {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: got %q, want %q", c.what, got[i], want)
			}
		}
	}
}

// PRO is the paper's kind where that was measured, and the table says which.
func TestPRO(t *testing.T) {
	p := newPlan(t, &Options{Tables: []int{3}, Categories: []string{"screw"}})
	both, exact := measured(1, 1, 0.9), measured(1, 1, 0)
	both.Result.AUPRO = number(0.8)
	exact.Result.PROReleased, exact.Result.AUPRO = nil, number(0.7)
	c := p.Compare(map[Training]Outcome{p.Trainings[0]: both, p.Trainings[1]: exact})
	for row, want := range map[string]float64{"RD": 90, "RD++": 70} {
		if cell, _ := cellOf(t, c, 3, row, "Screw"); cell.Ours == nil || math.Abs(*cell.Ours-want) > 1e-9 {
			t.Errorf("%s: got %v, want %v", row, show(cell), want)
		}
	}
	if got := strings.Join(c.Tables[0].Notes, " "); !strings.Contains(got, "PRO of 1 trainings is counted") || !strings.Contains(got, "aupro_030") {
		t.Errorf("got notes %q, want both kinds named", got)
	}
}

func TestManyReasons(t *testing.T) {
	p := newPlan(t, &Options{Tables: []int{7}})
	outcomes := map[Training]Outcome{}
	for _, training := range p.Trainings {
		outcomes[training] = Outcome{Missing: "failed: " + training.Category}
	}
	_, table := cellOf(t, p.Compare(outcomes), 7, "0.1", "PRO")
	want := "[failed: carpet; failed: grid; failed: leather; and 12 further reasons]"
	if got := fmt.Sprint(table.Reasons); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReadResult(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) string {
		path := filepath.Join(dir, "metrics.json")
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	r, err := ReadResult(write(`{"config":{"arch":"resnet18","method":"rd++","image_size":64,"epochs":2,"seed":3,"noise_lambda":0.2,
		"weight_recon":0.1,"weight_contrast":0.1},"teacher":{"origin":"random"},"image_auroc":0.5,"good":3}`))
	if err != nil || *r.ImageAUROC != 0.5 || r.PixelAUROC != nil || r.Teacher.Origin != "random" {
		t.Fatalf("got %+v, %v, want an image AUROC of 0.5", r, err)
	}
	for origin, want := range map[string]string{"builtin": "drawn", "drawn": "drawn", "builtin-imagenet": "builtin-imagenet"} {
		r, err := ReadResult(write(fmt.Sprintf(`{"teacher":{"origin":%q,"sha256":"0123456789"}}`, origin)))
		if err != nil || r.Teacher != (Teacher{want, "0123456789"}) {
			t.Errorf("teacher %s: got %v, %v, want %s", origin, r, err, want)
		}
	}
	base := Training{MVTec, "screw", "resnet18", "rd++", 0.2, 3}
	for _, c := range []struct {
		what   string
		change func(*Training, *Options)
		want   bool
	}{
		{"the same", func(*Training, *Options) {}, true},
		{"epochs and size", func(_ *Training, o *Options) { o.Epochs, o.ImageSize = 2, 64 }, true},
		{"other epochs", func(_ *Training, o *Options) { o.Epochs = 3 }, false},
		{"another size", func(_ *Training, o *Options) { o.ImageSize = 256 }, false},
		{"another seed", func(t *Training, _ *Options) { t.Seed = 1 }, false},
		{"another backbone", func(t *Training, _ *Options) { t.Arch = paperArch }, false},
		{"the baseline", func(t *Training, _ *Options) { t.Method = "rd" }, false},
		{"fewer losses", func(t *Training, _ *Options) { t.Method = "rd+ssot+con" }, false},
		{"fewest losses", func(t *Training, _ *Options) { t.Method = "rd+ssot" }, false},
		{"more noise", func(t *Training, _ *Options) { t.Noise = 0.3 }, false},
		{"another method", func(t *Training, _ *Options) { t.Method = "patchcore" }, false},
		{"images held out", func(_ *Training, o *Options) { o.Calibration = 0.1 }, false},
	} {
		training, opt := base, Options{}
		c.change(&training, &opt)
		if got := newPlan(t, &opt).Fits(r, training); got != c.want {
			t.Errorf("%s: got %v, want %v", c.what, got, c.want)
		}
	}
	for _, text := range []string{"", "{", `{"image_auroc":1.5}`, `{"pro_released":-1}`, `{"image_auroc":"x"}`, `{"teacher":{"origin":1}}`, "[]"} {
		if _, err := ReadResult(write(text)); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "remove") {
			t.Errorf("%q: got %v, want an error that names file and remedy", text, err)
		}
	}
	if _, err := ReadResult(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

// small is a comparison with something of everything, and hostile text wherever text may come from outside.
func small(hostile string) *Comparison {
	return &Comparison{Source: "a paper", Facts: []Fact{{"Teacher", hostile}},
		Tables: []Table{{Number: 4, Title: "BTAD", RowHeader: "Method", NotComparable: []string{hostile, "1 epoch"}, Notes: []string{"a note"},
			Columns: []Column{{"Class 01", "image"}, {"Class 01", "PRO"}, {hostile, "image"}, {hostile, "PRO"}},
			Rows: []Row{
				{Label: "CFA", Cells: []Cell{{Paper: "98.10"}, {Paper: "72.00"}, {Paper: "94"}, {Paper: "73"}}},
				{Label: hostile, Ours: true, Cells: []Cell{{Paper: "96.80", Ours: number(96.7), Difference: number(-0.1)},
					{Paper: "73.20", Note: 1},
					{Paper: "95.63", Ours: number(95.634), Difference: number(-0.004), Deviation: number(0.25)},
					{Paper: "77.30", Ours: number(78), Difference: number(0.7), Of: "avg. of 2 of 3", Against: "to the same 2"}}}},
			Reasons: []string{hostile}}}}
}

func TestMarkdown(t *testing.T) {
	var b strings.Builder
	if err := small("RD++").WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	const want = `# The paper's tables again

Numbers in % where no unit is named. The paper's: a paper.

- Teacher: RD++

## Table 4. BTAD

> **Not comparable with the paper**: RD++; 1 epoch.

| Method |  | Class 01, image | Class 01, PRO | RD++, image | RD++, PRO |
|---|---|--:|--:|--:|--:|
| CFA | paper | 98.10 | 72.00 | 94 | 73 |
| RD++ | paper | 96.80 | 73.20 | 95.63 | 77.30 |
|  | **ours** | **96.70** | – (1) | **95.63** ± 0.25 | **78.00** (avg. of 2 of 3) |
|  | difference | -0.10 |  | +0.00 | +0.70 (to the same 2) |

a note

(1) RD++
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

const hostile = "</td><script>alert(1)</script>|`*_[x](y)\n\x00\x1b\u202e&lt;"

func TestHostileText(t *testing.T) {
	c := small(hostile)
	var markdown, page, table strings.Builder
	if err := errors.Join(c.WriteMarkdown(&markdown), c.WriteHTML(&page), c.WriteCSV(&table)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"Markdown": markdown.String(), "HTML": page.String(), "CSV": table.String()} {
		if strings.ContainsAny(text, "\x00\x1b\u202e") {
			t.Errorf("%s: got control characters in %q", name, text)
		}
	}
	for name, text := range map[string]string{"Markdown": markdown.String(), "HTML": page.String()} {
		if strings.Contains(text, "<script") || strings.Contains(text, "</td><s") {
			t.Errorf("%s: got %s, want no script", name, text)
		}
	}
	const escaped = "&lt;/td\\>&lt;script\\>alert(1)&lt;/script\\>\\|\\`\\*\\_\\[x\\](y) \ufffd\ufffd\ufffd&amp;lt;"
	if !strings.Contains(markdown.String(), "- Teacher: "+escaped+"\n") {
		t.Errorf("got %s, want %s in it", markdown.String(), escaped)
	}
	if got := strings.Count(page.String(), "&lt;script&gt;"); got != 6 {
		t.Errorf("HTML: got the text %d times, want 6", got)
	}
	if rows, err := csv.NewReader(strings.NewReader(table.String())).ReadAll(); err != nil || len(rows) != 1+2*4 {
		t.Errorf("CSV: got %d rows, %v, want 9", len(rows), err)
	}
}

func TestCSV(t *testing.T) {
	var b strings.Builder
	if err := small("x, y").WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	const want = `table,row,column,paper,ours,difference,deviation,over,against,missing,not_comparable
4,CFA,"Class 01, image",98.10,,,,,,,
4,CFA,"Class 01, PRO",72.00,,,,,,,
4,CFA,"x, y, image",94,,,,,,,
4,CFA,"x, y, PRO",73,,,,,,,
4,"x, y","Class 01, image",96.80,96.7000,-0.1000,,,,,"x, y; 1 epoch"
4,"x, y","Class 01, PRO",73.20,,,,,,"x, y","x, y; 1 epoch"
4,"x, y","x, y, image",95.63,95.6340,-0.0040,0.2500,,,,"x, y; 1 epoch"
4,"x, y","x, y, PRO",77.30,78.0000,0.7000,,avg. of 2 of 3,to the same 2,,"x, y; 1 epoch"
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestHTML(t *testing.T) {
	var b strings.Builder
	if err := small("x").WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`<aside class="note"><strong>Not comparable with the paper</strong><ul><li><bdi>x</bdi></li><li><bdi>1 epoch</bdi></li></ul></aside>`,
		`<th scope="colgroup" colspan="2" class="group">Class 01</th>`,
		`<tr><th scope="row">CFA</th><td class="n">98.10</td>`,
		`<tr class="ours"><th scope="row">x, ours</th><td class="n">96.70</td><td class="n">–<sup>1</sup></td>` +
			`<td class="n">95.63<small>± 0.25</small></td><td class="n">78.00<small>avg. of 2 of 3</small></td></tr>`,
		`<td class="n">&#43;0.70<small>to the same 2</small></td></tr>`,
		`<li><bdi>x</bdi></li>`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("got %s, want %s in it", b.String(), want)
		}
	}
	// The label stands above its table.
	if label, table := strings.Index(b.String(), notComparable), strings.Index(b.String(), "<table>"); label < 0 || label > table {
		t.Errorf("got the label at %d, the table at %d, want it before", label, table)
	}
}

// broken is a writer onto a full disk.
type broken struct{}

var errFull = errors.New("disk full")

func (broken) Write([]byte) (int, error) { return 0, errFull }

func TestWriteFails(t *testing.T) {
	c := small("x")
	for name, err := range map[string]error{"Markdown": c.WriteMarkdown(broken{}), "CSV": c.WriteCSV(broken{}), "JSON": c.WriteJSON(broken{}), "HTML": c.WriteHTML(broken{})} {
		if !errors.Is(err, errFull) {
			t.Errorf("%s: got %v, want %v", name, err, errFull)
		}
	}
}
