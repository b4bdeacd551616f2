package reproduce

import (
	"slices"
	"strconv"
)

// measure is what a column shows of a training.
type measure struct {
	label   string
	metric  string                   // of selectors
	of      func(r *Result) *float64 // in percent, or in the unit that the label names; nil: not measured
	missing func(r *Result) string   // why it is not
	benched bool                     // BenchFile has it: there is no column where nobody has written that
}

// measures are the columns of the tables of methods. The paper's tables have the first three.
var measures = []measure{
	{"Image AUROC", imageAUROC, func(r *Result) *float64 { return times(100, r.ImageAUROC) }, noImages, false},
	{"Pixel AUROC", pixelAUROC, func(r *Result) *float64 { return times(100, r.PixelAUROC) }, noMasks, false},
	{"PRO", pro, func(r *Result) *float64 {
		if r.PROReleased != nil {
			return times(100, r.PROReleased)
		}
		return times(100, r.AUPRO)
	}, noMasks, false},
	{"AUPRO", "aupro", func(r *Result) *float64 { return times(100, r.AUPRO) }, noMasks, false},
	{"Found", "found", func(r *Result) *float64 { return shareOf(r.DefectiveFound, r.Defective, r.Provisional) }, noThreshold, false},
	{"Good flagged", "flagged", func(r *Result) *float64 { return shareOf(r.GoodFlagged, r.Good, r.Provisional) }, noThreshold, false},
	{"Training, s", "seconds", func(r *Result) *float64 { return &r.Seconds }, nil, false},
	{"Model, MB", "megabytes", func(r *Result) *float64 { return ratio(float64(r.ModelBytes)/1e6, r.ModelBytes > 0) },
		says("the model file is not there"), false},
	{"ms per image", "ms", func(r *Result) *float64 {
		images := r.Good + r.Defective
		return ratio(1000*r.EvaluationSeconds/float64(images), images > 0 && r.EvaluationSeconds > 0)
	}, says("not measured: there are no test images"), false},
	{"Latency, ms", "latency", func(r *Result) *float64 { return ratio(r.LatencyMS, r.LatencyMS > 0) }, says(notBenched), true},
	{"Memory, MiB", "memory", func(r *Result) *float64 { return ratio(float64(r.MemoryBytes)/(1<<20), r.MemoryBytes > 0) }, says(notBenched), true},
}

const notBenched = "not measured: " + BenchFile + " has nothing of this model"

func says(why string) func(*Result) string { return func(*Result) string { return why } }

// noImages says why there is no metric of images.
func noImages(r *Result) string {
	switch {
	case r.Good+r.Defective == 0:
		return "not measured: there are no test images"
	case r.Defective == 0:
		return "not measured: there are no defective test images"
	case r.Good == 0:
		return "not measured: there are no good test images"
	}
	return "not measured"
}

// noMasks says why there is no metric of pixels.
func noMasks(r *Result) string {
	switch {
	case r.Defective == 0:
		return noImages(r)
	case !r.HasMasks:
		return "not measured: the test images have no masks"
	}
	return "not measured: the masks have no defective pixel, or nothing but such"
}

// noThreshold says why nothing is counted by one.
func noThreshold(r *Result) string {
	if r.Provisional {
		return "not counted: no good images were held out for the threshold, which is the highest score among the training images"
	}
	return "not counted: there are no such test images"
}

func times(factor float64, v *float64) *float64 {
	if v == nil {
		return nil
	}
	return new(factor * *v)
}

func ratio(v float64, there bool) *float64 {
	if !there {
		return nil
	}
	return &v
}

func shareOf(n, of int, provisional bool) *float64 {
	return ratio(100*float64(n)/float64(of), of > 0 && !provisional)
}

// methods are the tables of the methods side by side: on average over a data set, then on each category that there are
// results of.
func (c *comparer) methods() (tables []Table) {
	for _, dataset := range []string{MVTec, BTAD, OCT} {
		from := paperTable{Dataset: dataset, RowHeader: methodHeader,
			Title: "Methods on " + paper.Datasets[dataset].Name,
			Note:  "Found and good flagged are shares of the defective and of the good test images above the threshold. Time per image is that of reading, decoding and scoring the test images."}
		shown := c.shown(dataset)
		for _, m := range shown {
			from.Columns = append(from.Columns, paperColumn{Label: m.label, selector: selector{Metric: m.metric}})
		}
		var kinds []selector // a method with a backbone
		var measured []string
		for _, t := range c.Trainings {
			s := selector{Method: t.Method, Arch: t.Arch, dataset: dataset}
			if t.Dataset != dataset || !slices.Contains(c.opt.Methods, t.Method) || !slices.Contains(c.seeds(s, t.Category), t) {
				continue // a variant of a method, or another noise
			}
			kinds = append(kinds, s)
			if c.outcomes[t].Result != nil {
				measured = append(measured, t.Category)
			}
		}
		if kinds, measured = distinct(kinds), distinct(measured); len(measured) == 0 {
			continue
		}
		slices.SortStableFunc(kinds, func(a, b selector) int {
			return slices.Index(c.opt.Methods, a.Method) - slices.Index(c.opt.Methods, b.Method)
		})
		groups := []string{""} // the average
		if all := paper.Datasets[dataset].Categories; len(all) > 1 {
			groups = append(groups, chosen(all, measured, func(category string) string { return category })...)
		}
		several := slices.ContainsFunc(kinds, func(s selector) bool { return s.Arch != kinds[0].Arch })
		for _, category := range groups {
			for _, s := range kinds {
				s.Category = category
				from.Rows = append(from.Rows, methodRow(s, shown, several))
			}
		}
		table := c.table(&from, func(_ int, s selector, categories []string) (values []float64) {
			for _, s.Category = range categories {
				if v, err := strconv.ParseFloat(paper.printedBy(s), 64); err == nil {
					values = append(values, v)
				}
			}
			return values
		})
		table.Costs = c.costs(dataset, kinds, several)
		tables = append(tables, table)
	}
	return tables
}

// shown are the measures that a data set's table has.
func (c *comparer) shown(dataset string) []measure {
	benched := false
	for t, o := range c.outcomes {
		benched = benched || t.Dataset == dataset && o.Result != nil && o.Result.LatencyMS > 0
	}
	return slices.DeleteFunc(slices.Clone(measures), func(m measure) bool { return m.benched && !benched })
}

// methodLabel is a method's name. withArch says whether the backbone is to be told.
func methodLabel(s selector, withArch bool) string {
	if withArch {
		return paper.label(s.Method) + ", " + s.Arch
	}
	return paper.label(s.Method)
}

// methodRow is a row of a table of methods with the paper's numbers.
func methodRow(s selector, shown []measure, withArch bool) paperRow {
	row := paperRow{Label: methodLabel(s, withArch), selector: s}
	if s.Category != "" {
		row.Label = s.Category + ": " + row.Label
	}
	for _, m := range shown {
		s.Metric = m.metric
		row.Values = append(row.Values, paper.printedBy(s))
	}
	return row
}
