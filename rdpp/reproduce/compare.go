package reproduce

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"rdpp/rdpp/printable"
	"rdpp/rdpp/report"
)

// Outcome is what became of a training.
type Outcome struct {
	Result  *Result
	Missing string // why there is no Result, in words; default "not run"
}

// Comparison is the paper's tables with what was measured beside them.
type Comparison struct {
	Source  string  `json:"source"`  // of the paper's numbers
	Facts   []Fact  `json:"facts"`   // how it was measured
	Methods []Table `json:"methods"` // the methods side by side, a table for each data set that there are results of
	Tables  []Table `json:"tables"`  // the paper's
}

// Fact is one thing to know about all the tables.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Table is one of the paper's, or one of methods.
type Table struct {
	Number        int      `json:"number,omitempty"` // the paper's; 0: it is one of methods
	Dataset       string   `json:"dataset"`
	Title         string   `json:"title"`
	RowHeader     string   `json:"row_header"`
	NotComparable []string `json:"not_comparable,omitempty"` // why its numbers are not to be compared with the paper's; empty: nothing speaks against it
	Notes         []string `json:"notes,omitempty"`
	Columns       []Column `json:"columns"`
	Rows          []Row    `json:"rows"`
	Reasons       []string `json:"reasons,omitempty"` // why numbers are missing: the cells' notes, counted from 1

	Costs *report.Costs `json:"costs,omitempty"` // of methods: what they find over what that takes, as the paper's Figure 1; nil: not known
}

// Name is short: "Table 4", or "Methods on BTAD".
func (t *Table) Name() string {
	if t.Number == 0 {
		return t.Title
	}
	return fmt.Sprintf("Table %d", t.Number)
}

// Heading is the name and what the table shows.
func (t *Table) Heading() string {
	if t.Number == 0 {
		return t.Title
	}
	return t.Name() + ". " + t.Title
}

// ID is a name for programs: "4", or "methods-btad".
func (t *Table) ID() string {
	if t.Number == 0 {
		return "methods-" + t.Dataset
	}
	return strconv.Itoa(t.Number)
}

// Column is a column of a table; several may share a Group.
type Column struct {
	Group string `json:"group,omitempty"`
	Label string `json:"label"`
}

// Row is a row of the paper's table.
type Row struct {
	Label string `json:"label"`
	Ours  bool   `json:"ours"` // whether the cells have more than the paper's number
	Cells []Cell `json:"cells"`
}

// Printed says whether the paper has any number of the row.
func (r *Row) Printed() bool {
	return slices.ContainsFunc(r.Cells, func(c Cell) bool { return c.Paper != "" })
}

// Cell is a number of the paper and ours, in percent or in the unit that the column names.
type Cell struct {
	Paper      string   `json:"paper,omitempty"`      // as printed; "": the paper has none
	Ours       *float64 `json:"ours,omitempty"`       // the mean over the seeds; nil: Note says why, or the method was not chosen
	Deviation  *float64 `json:"deviation,omitempty"`  // standard deviation over the seeds
	Difference *float64 `json:"difference,omitempty"` // ours less the paper's
	Of         string   `json:"over,omitempty"`       // what ours is over, where that is not all, as in "avg. of 2 of 15"
	Against    string   `json:"against,omitempty"`    // what it is compared with, where that is not the printed number
	Note       int      `json:"note,omitempty"`       // the number of one of Table.Reasons, or 0
}

// Compare puts the outcomes beside the paper's numbers. Trainings that outcomes lacks have not been run.
func (p *Plan) Compare(outcomes map[Training]Outcome) *Comparison {
	c := &comparer{p, outcomes}
	out := &Comparison{Source: paper.Source, Facts: c.facts(), Methods: c.methods()}
	for i := range p.tables {
		t := &p.tables[i]
		out.Tables = append(out.Tables, c.table(t, t.printed))
	}
	return out
}

type comparer struct {
	*Plan
	outcomes map[Training]Outcome
}

// table fills in a table. printed looks up the paper's numbers of categories in a row.
func (c *comparer) table(from *paperTable, printed func(row int, s selector, categories []string) []float64) Table {
	t := Table{Number: from.Number, Dataset: from.Dataset, Title: from.Title, RowHeader: from.RowHeader, NotComparable: c.notComparable(from)}
	if from.Note != "" {
		t.Notes = append(t.Notes, from.Note)
	}
	t.Notes = append(t.Notes, c.proNotes(from)...)
	for _, column := range from.Columns {
		t.Columns = append(t.Columns, Column{column.Group, column.Label})
	}
	for i := range from.Rows {
		row := Row{Label: from.Rows[i].Label}
		for j := range from.Columns {
			s := from.at(from.Rows[i].selector, from.Columns[j].selector)
			cell := Cell{Paper: from.Rows[i].Values[j]}
			if s.Method != "" {
				row.Ours = true
				why := c.fill(&cell, s, func(categories []string) []float64 { return printed(i, s, categories) })
				cell.Note = t.note(why)
			}
			row.Cells = append(row.Cells, cell)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// note returns the number of the footnote with that text, 0 for none.
func (t *Table) note(text string) int {
	if text == "" {
		return 0
	}
	i := slices.Index(t.Reasons, text)
	if i < 0 {
		i = len(t.Reasons)
		t.Reasons = append(t.Reasons, text)
	}
	return i + 1
}

// fill fills in our half of a cell, or says why there is none. printed looks up the paper's numbers of categories.
func (c *comparer) fill(cell *Cell, s selector, printed func(categories []string) []float64) (missing string) {
	wanted := []string{s.Category}
	if s.Category == "" {
		wanted = paper.Datasets[s.dataset].Categories
	}
	asked := c.categories(s)
	var means []float64                       // per category
	bySeed := map[uint64][]float64{}          // the same of each seed
	var there, reasons []string               // categories, and why others are not
	values, most := 0, len(asked)*c.opt.Seeds // trainings with a number
	for _, category := range wanted {
		if !slices.Contains(asked, category) {
			reasons = append(reasons, "not asked for")
			continue
		}
		var ofSeeds []float64
		for _, t := range c.seeds(s, category) {
			v, why := c.value(t, s.Metric)
			if v == nil {
				reasons = append(reasons, why)
				continue
			}
			ofSeeds = append(ofSeeds, *v)
			bySeed[t.Seed] = append(bySeed[t.Seed], *v)
		}
		if len(ofSeeds) > 0 {
			there, means = append(there, category), append(means, mean(ofSeeds))
			values += len(ofSeeds)
		}
	}
	if len(there) == 0 {
		return several(distinct(reasons))
	}
	ours := mean(means)
	cell.Ours, cell.Deviation = &ours, deviation(bySeed, len(there))
	var of []string
	if len(there) < len(wanted) {
		of = append(of, fmt.Sprintf("avg. of %d of %d", len(there), len(wanted)))
	}
	if values < most && c.opt.Seeds > 1 {
		of = append(of, fmt.Sprintf("%d of %d trainings", values, most))
	}
	cell.Of = strings.Join(of, ", ")

	if cell.Paper == "" {
		return ""
	}
	reference, _ := strconv.ParseFloat(cell.Paper, 64)
	if len(there) < len(wanted) {
		cell.Against = fmt.Sprintf("to the avg. of %d", len(wanted))
		if same := printed(there); len(same) == len(there) {
			reference, cell.Against = mean(same), fmt.Sprintf("to the same %d", len(there))
		}
	}
	difference := ours - reference
	cell.Difference = &difference
	return ""
}

// several are some reasons in one text.
func several(reasons []string) string {
	const most = 3
	if more := len(reasons) - most; more > 0 {
		reasons = append(reasons[:most:most], fmt.Sprintf("and %s", printable.Count(more, "further reason")))
	}
	return strings.Join(reasons, "; ")
}

// value is a training's metric, in the unit of its column, or why there is none.
func (c *comparer) value(t Training, metric string) (v *float64, missing string) {
	o := c.outcomes[t]
	if o.Result == nil {
		o.Missing = cmp.Or(o.Missing, "not run")
		return nil, o.Missing
	}
	m := measures[slices.IndexFunc(measures, func(m measure) bool { return m.metric == metric })]
	if v = m.of(o.Result); v == nil {
		return nil, m.missing(o.Result)
	}
	return v, ""
}

// printed are the numbers in a row of the table that differ from s in their category alone, of some categories.
func (t *paperTable) printed(row int, s selector, categories []string) (values []float64) {
	for j, column := range t.Columns {
		of := t.at(t.Rows[row].selector, column.selector)
		if of.Category == "" || !slices.Contains(categories, of.Category) {
			continue
		}
		if of.Category = s.Category; of == s {
			v, _ := strconv.ParseFloat(t.Rows[row].Values[j], 64)
			values = append(values, v)
		}
	}
	return values
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// deviation is the standard deviation of the means of those seeds that have all n values; nil for fewer than two.
func deviation(bySeed map[uint64][]float64, n int) *float64 {
	var means []float64
	for _, seed := range slices.Sorted(maps.Keys(bySeed)) {
		if len(bySeed[seed]) == n {
			means = append(means, mean(bySeed[seed]))
		}
	}
	if len(means) < 2 {
		return nil
	}
	centre, sum := mean(means), 0.0
	for _, m := range means {
		sum += (m - centre) * (m - centre)
	}
	d := math.Sqrt(sum / float64(len(means)-1))
	return &d
}

// proNotes say which PRO stands in a table.
func (c *comparer) proNotes(t *paperTable) (notes []string) {
	if !t.has(pro) {
		return nil
	}
	released, exact := 0, 0
	for _, training := range distinct(c.trainings(t)) {
		r := c.outcomes[training].Result
		switch {
		case r == nil:
		case r.PROReleased != nil:
			released++
		case r.AUPRO != nil:
			exact++
		}
	}
	if released > 0 {
		notes = append(notes, fmt.Sprintf("PRO of %d trainings is counted as the paper's released code does (pro_released).", released))
	}
	if exact > 0 {
		notes = append(notes, fmt.Sprintf("PRO of %d trainings is the exact AUPRO up to a false positive rate of 0.3 (aupro_030), which the "+
			"paper's released code does not compute.", exact))
	}
	return notes
}

func (t *paperTable) has(metric string) bool {
	return t.Metric == metric || slices.ContainsFunc(t.Columns, func(c paperColumn) bool { return c.Metric == metric })
}

// notComparable says why a table's numbers are not to be compared with the paper's.
func (c *comparer) notComparable(t *paperTable) (why []string) {
	trainings := distinct(c.trainings(t))
	lacking, archs := map[string]bool{}, map[string]bool{} // categories, backbones
	for _, training := range trainings {
		archs[training.Arch] = true
		lacking[training.Category] = lacking[training.Category] || c.outcomes[training].Result == nil
	}
	for _, arch := range slices.Sorted(maps.Keys(archs)) {
		why = append(why, c.teacherReasons(arch, trainings)...)
	}
	if t.at(t.Rows[0].selector, selector{}).Arch == "" && c.opt.Arch != paperArch {
		why = append(why, fmt.Sprintf("the backbone is %s instead of %s", c.opt.Arch, paperArch))
	}
	if slices.ContainsFunc(trainings, c.counted) {
		why = append(why, fmt.Sprintf("every training has %s instead of the paper's number for its category", printable.Count(c.opt.Epochs, "epoch")))
	}
	if size := c.opt.ImageSize; size != 0 && size != paperSize {
		why = append(why, fmt.Sprintf("images have %d x %d pixels instead of %d x %d", size, size, paperSize, paperSize))
	}
	if c.opt.Calibration > 0 {
		why = append(why, fmt.Sprintf("%g %% of the good training images are held out for the threshold, and not trained on", 100*c.opt.Calibration))
	}
	if slices.ContainsFunc(trainings, func(t Training) bool {
		r := c.outcomes[t].Result
		return r != nil && r.Config.Select != paperSelect
	}) {
		why = append(why, "not every training took the epoch that was best on the test images, as the released code does")
	}
	complete, all := 0, len(paper.Datasets[t.Dataset].Categories)
	for _, lacks := range lacking {
		if !lacks {
			complete++
		}
	}
	if complete < all {
		why = append(why, fmt.Sprintf("results are complete for %d of %s", complete, printable.Count(all, "category")))
	}
	return why
}

// torchvision's IMAGENET1K_V1 weights, the paper's teachers: how the SHA-256 of their files begin.
var torchvision = map[string]string{"resnet18": "f37072fd", "resnet34": "b627a593", "resnet50": "0676ba61", "wide_resnet50_2": "95faca4d"}

// teacherReasons say what is wrong with a backbone's teachers: those of the results or, without any, the one asked for.
func (c *comparer) teacherReasons(arch string, trainings []Training) (why []string) {
	all := c.teachers(arch, trainings)
	if asked := c.teacher(arch); len(all) == 0 && slices.Contains(teachersInside, asked) {
		all = []Teacher{{Origin: asked}}
	}
	for _, teacher := range all {
		if begin := torchvision[arch]; begin == "" || !strings.HasPrefix(teacher.SHA256, begin) {
			why = append(why, fmt.Sprintf("the teacher of %s is %s instead of torchvision's, trained on ImageNet", arch, teacher))
		}
	}
	if len(all) > 1 {
		why = append(why, fmt.Sprintf("the trainings of %s do not have the same teacher", arch))
	}
	return why
}

// teachers are those in a backbone's results.
func (c *comparer) teachers(arch string, trainings []Training) (all []Teacher) {
	for _, t := range trainings {
		if r := c.outcomes[t].Result; r != nil && t.Arch == arch {
			all = append(all, r.Teacher)
		}
	}
	return distinct(all)
}

// facts say how the results came about.
func (c *comparer) facts() []Fact {
	done, missing := 0, map[string]int{}
	archs, selections, epochs := []string{}, []string{}, []string{}
	for _, t := range c.Trainings {
		archs = append(archs, t.Arch)
		r := c.outcomes[t].Result
		if r == nil {
			kind, _, _ := strings.Cut(c.outcomes[t].Missing, ":")
			kind = cmp.Or(kind, "not run")
			missing[kind]++
			continue
		}
		done++
		selections = append(selections, r.Selection)
		if !slices.Contains(c.opt.OnePass, t.Method) {
			epochs = append(epochs, fmt.Sprintf("%s %d", t.Category, r.Config.Epochs))
		}
	}
	state := fmt.Sprintf("%d of %d done", done, len(c.Trainings))
	for _, kind := range slices.Sorted(maps.Keys(missing)) {
		state += fmt.Sprintf(", %d %s", missing[kind], kind)
	}
	var teachers []string
	for _, arch := range distinct(archs) {
		var names []string
		for _, teacher := range c.teachers(arch, c.Trainings) {
			names = append(names, teacher.String())
		}
		if len(names) == 0 {
			names = []string{c.teacher(arch) + " (asked for; no results yet)"}
		}
		teachers = append(teachers, arch+": "+strings.Join(names, " and "))
	}
	facts := []Fact{{"Trainings", state}, {"Teacher", strings.Join(teachers, "; ")}}
	switch {
	case c.opt.Epochs > 0:
		facts = append(facts, Fact{"Epochs", strconv.Itoa(c.opt.Epochs)})
	case len(epochs) > 0:
		facts = append(facts, Fact{"Epochs", "the preset's: " + strings.Join(distinct(epochs), ", ")})
	default:
		facts = append(facts, Fact{"Epochs", "the preset's"})
	}
	if len(selections) > 0 {
		facts = append(facts, Fact{"Epoch that counts", strings.Join(distinct(selections), "; ")})
	}
	if c.opt.Calibration > 0 {
		facts = append(facts, Fact{"Held out for the threshold", fmt.Sprintf("%.3g %% of the good images, where the paper's code trains on all", 100*c.opt.Calibration)})
	}
	size := c.opt.ImageSize
	size = cmp.Or(size, paperSize)
	seeds := "1"
	if c.opt.Seeds > 1 {
		seeds = fmt.Sprintf("1 to %d; numbers are means over the seeds, with their standard deviation", c.opt.Seeds)
	}
	var methods []string
	for _, m := range c.opt.Methods {
		methods = append(methods, paper.label(m))
	}
	return append(facts, Fact{"Methods", strings.Join(methods, ", ")}, Fact{"Images", fmt.Sprintf("%d x %d pixels", size, size)}, Fact{"Backbone of Tables 1 to 7", c.opt.Arch},
		Fact{"Categories of MVTec AD", strings.Join(c.opt.Categories, ", ")}, Fact{"Seeds", seeds})
}
