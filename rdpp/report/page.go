package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/metric"
)

// page is a Report made ready for its template.
type page struct {
	frame
	*Report
	Rows                 []metricRow
	Verdicts             []verdict // highest score first
	HasPValues           bool
	Measured             bool // there are metrics
	Tallies              []tally
	Scores, ROC, PROPlot *drawing
	CaseGroups           []caseGroup
	Legend               *drawing
	Losses               []*drawing
	Progress             *drawing
	Spread               []spread
	Distances            *drawing
	DistanceRows         []distanceRow
	Facts                []Setting // teacher, data and so on
}

type metricRow struct {
	Name, Meaning string
	merit
}

// verdict is an image with what became of it.
type verdict struct {
	Image
	Result string // empty where the truth is unknown
	Wrong  bool
}

func judge(i Image) verdict {
	switch {
	case i.Truth == Unknown:
		return verdict{i, "", false}
	case i.Truth == Defective && i.Anomalous:
		return verdict{i, "found", false}
	case i.Truth == Defective:
		return verdict{i, "missed", true}
	case i.Anomalous:
		return verdict{i, "false alarm", true}
	}
	return verdict{i, "passed", false}
}

// tally counts the images of one truth that were called anomalous.
type tally struct {
	Name            string
	Truth           Truth
	Images, Flagged int
	Share           float64 // of those
	Interval        string  // its 95 % interval
}

type caseGroup struct {
	Title string
	Cases []shownCase
}

type shownCase struct {
	verdict
	*figure
	Peak     float64 // highest value of the map
	MaskPart float64 // share of the mask that is defective
	Outlined bool    // whether any pixel is
	NearPath string  // as in Case
}

// spread says how a metric moved over the epochs that were evaluated.
type spread struct {
	Name                string
	Chosen              *float64
	Lowest, Highest     float64
	LowestAt, HighestAt int
	Deviation           float64 // standard deviation over the second half of them
}

type distanceRow struct {
	Name           string
	Pairs          int
	Mean, Variance float64
}

func newPage(r *Report) (*page, error) {
	p := &page{frame: theFrame, Report: r}
	p.Measured = r.Metrics.Good+r.Metrics.Defective > 0
	p.Rows = metricRows(&r.Metrics, r.HasMasks)
	for _, image := range r.Images {
		p.Verdicts = append(p.Verdicts, judge(image))
		p.HasPValues = p.HasPValues || image.PValue != nil
	}
	slices.SortStableFunc(p.Verdicts, func(a, b verdict) int { return cmp.Compare(b.Score, a.Score) })
	if !r.OfCalibration {
		p.Tallies = tallies(r.Images)
	}
	p.Scores = scoreChart(r)
	p.ROC, p.PROPlot = curveCharts(r)
	p.Losses, p.Progress = historyCharts(r)
	p.Spread = spreads(r)
	p.Distances, p.DistanceRows = compactness(r.Compactness)
	p.Facts = facts(r)
	return p, p.addCases()
}

func metricRows(m *anomaly.Metrics, hasMasks bool) (rows []metricRow) {
	for _, k := range metrics {
		row := metricRow{k.name, k.meaning, merit{Value: k.of(m)}}
		if row.Value == nil {
			row.Reason = absent(m, hasMasks, k.pixels)
		}
		rows = append(rows, row)
	}
	return rows
}

func tallies(images []Image) (out []tally) {
	for _, t := range []tally{{Name: "good images", Truth: Good}, {Name: "defective images", Truth: Defective},
		{Name: "images of unknown truth", Truth: Unknown}} {
		for _, i := range images {
			if i.Truth == t.Truth {
				t.Images++
				if i.Anomalous {
					t.Flagged++
				}
			}
		}
		if t.Images > 0 {
			t.Share = float64(t.Flagged) / float64(t.Images)
			t.Interval = metric.IntervalText(metric.Interval(t.Flagged, t.Images, 0.95))
			out = append(out, t)
		}
	}
	return out
}

const histogramBins = 32

func scoreChart(r *Report) *drawing {
	var groups [Defective + 1][]float64
	for _, i := range r.Images {
		if !r.OfCalibration || len(r.Calibration) == 0 {
			groups[i.Truth] = append(groups[i.Truth], i.Score)
		}
	}
	series := []struct {
		name   string
		values []float64
		style  int
	}{
		{"good", groups[Good], 0}, {"defective", groups[Defective], 1}, {"of unknown truth", groups[Unknown], 3},
		{"calibration (good)", r.Calibration, 2},
	}
	c := &chart{title: "Scores of the images", caption: "How often each score occurs, per group."}
	all := slices.Concat(groups[Good], groups[Defective], groups[Unknown], r.Calibration)
	if len(all) == 0 {
		return nil
	}
	if r.Threshold != nil {
		all = append(all, *r.Threshold)
		c.marks = []mark{{*r.Threshold, "threshold " + number(*r.Threshold, 4)}}
		c.caption += " An image is called anomalous right of the threshold."
	}
	c.x = fit("score", all)
	for _, s := range series {
		if len(s.values) > 0 {
			c.lines = append(c.lines, line{name: fmt.Sprintf("%s, %d", s.name, len(s.values)), style: s.style,
				points: histogram(s.values, c.x, histogramBins), filled: s.style < 2})
		}
	}
	c.y = axis{label: "share of the group's images, %", high: fit("", []float64{0, highest(c.lines)}).high}
	return c.draw()
}

// proLimit is the false positive rate up to which the PRO curve is drawn, and integrated in the paper.
const proLimit = 0.3

func curveCharts(r *Report) (roc, pro *drawing) {
	c := &chart{title: "ROC curves", x: rates("false positive rate, %", 1), y: rates("true positive rate, %", 1),
		caption: "Share of the defective found over the share of the good called defective, for every threshold."}
	add := func(name string, style int, points []Point, value *float64) {
		if len(points) == 0 {
			return
		}
		if value != nil {
			name = fmt.Sprintf("%s: %s %%", name, percent(*value))
		}
		c.lines = append(c.lines, line{name: name, style: style, points: inPercent(points)})
	}
	add("image AUROC", 0, r.ImageROC, r.Metrics.ImageAUROC)
	add("pixel AUROC", 1, r.PixelROC, r.Metrics.PixelAUROC)
	if len(c.lines) > 0 {
		c.lines = append(c.lines, line{name: "chance", style: 4, points: []Point{{X: 0, Y: 0}, {X: 100, Y: 100}}})
		roc = c.draw()
	}
	c = &chart{title: "PRO curve", x: rates("false positive rate of pixels, %", proLimit), y: rates("per-region overlap, %", 1),
		caption: "Covered share of each defect, averaged over the defects, over the share of good pixels called defective."}
	add("AUPRO 0.3", 2, cut(r.PRO, proLimit), r.Metrics.AUPRO)
	if len(c.lines) > 0 {
		if v := r.Metrics.AUPROStrict; v != nil {
			c.marks = []mark{{5, fmt.Sprintf("AUPRO 0.05: %s %%", percent(*v))}}
		}
		pro = c.draw()
	}
	return roc, pro
}

func inPercent(points []Point) []Point {
	out := make([]Point, len(points))
	for i, p := range points {
		out[i] = Point{X: 100 * p.X, Y: 100 * p.Y}
	}
	return out
}

// cut ends a curve at the limit of X.
func cut(points []Point, limit float64) []Point {
	i := slices.IndexFunc(points, func(p Point) bool { return p.X > limit })
	if i <= 0 {
		return points
	}
	a, b := points[i-1], points[i]
	return append(points[:i:i], Point{X: limit, Y: a.Y + (b.Y-a.Y)*(limit-a.X)/(b.X-a.X)})
}

func historyCharts(r *Report) (lossCharts []*drawing, progress *drawing) {
	if len(r.History) == 0 {
		return nil, nil
	}
	x := axis{label: "epoch", low: float64(r.History[0].Epoch), high: float64(r.History[len(r.History)-1].Epoch), whole: true}
	if x.low == x.high {
		x.low, x.high = x.low-0.5, x.high+0.5
	}
	var marks []mark
	if e := float64(r.ChosenEpoch); e >= 1 && e >= x.low && e <= x.high {
		marks = []mark{{e, fmt.Sprintf("epoch %d chosen", r.ChosenEpoch)}}
	}
	for _, l := range r.History[0].Losses {
		title := lossTitle(l.Name)
		var points []Point
		var values []float64
		for _, e := range r.History {
			points = append(points, Point{X: float64(e.Epoch), Y: e.Losses.Get(l.Name)})
			values = append(values, e.Losses.Get(l.Name))
		}
		if !slices.ContainsFunc(values, func(v float64) bool { return v != 0 }) {
			continue // a term that the method does not have
		}
		c := &chart{title: upper(title), caption: "Mean over each epoch's images.", x: x, y: fit(title, values), marks: marks,
			lines: []line{{points: points, dots: true}}}
		lossCharts = append(lossCharts, c.draw())
	}
	c := &chart{title: "Metrics on the test images", caption: "After each epoch in which they were looked at.", x: x, marks: marks}
	var all []float64
	for i, m := range metrics[:paperMetrics] {
		var points []Point
		for _, e := range r.History {
			if e.Metrics != nil && m.of(e.Metrics) != nil {
				v := 100 * *m.of(e.Metrics)
				points = append(points, Point{X: float64(e.Epoch), Y: v})
				all = append(all, v)
			}
		}
		if len(points) > 0 {
			c.lines = append(c.lines, line{name: m.name, style: i, points: points, dots: true})
		}
	}
	if len(all) == 0 {
		return lossCharts, nil
	}
	c.y = fit("metric, %", all)
	return lossCharts, c.draw()
}

func spreads(r *Report) (out []spread) {
	for _, m := range metrics[:paperMetrics] {
		s := spread{Name: m.name}
		var values []float64
		for _, e := range r.History {
			if e.Metrics == nil || m.of(e.Metrics) == nil {
				continue
			}
			v := m.of(e.Metrics)
			if len(values) == 0 || *v < s.Lowest {
				s.Lowest, s.LowestAt = *v, e.Epoch
			}
			if len(values) == 0 || *v > s.Highest {
				s.Highest, s.HighestAt = *v, e.Epoch
			}
			if e.Epoch == r.ChosenEpoch {
				s.Chosen = v
			}
			values = append(values, *v)
		}
		if len(values) < 2 {
			continue
		}
		_, variance := moments(values[len(values)/2:])
		s.Deviation = math.Sqrt(variance)
		out = append(out, s)
	}
	return out
}

// moments are the mean and the variance (over n) of values, of which there are some.
func moments(values []float64) (mean, variance float64) {
	for _, v := range values {
		mean += v / float64(len(values))
	}
	for _, v := range values {
		variance += (v - mean) * (v - mean) / float64(len(values))
	}
	return mean, variance
}

func compactness(k *Compactness) (*drawing, []distanceRow) {
	if k == nil || len(k.Intra) == 0 {
		return nil, nil
	}
	between := "between classes"
	if k.Other != "" {
		between = "good against " + k.Other
	}
	c := &chart{title: "Distances between pairs of images", x: fit("mean squared difference", k.Intra, k.Inter),
		caption: "How often each distance between two images occurs: the mean squared difference of what the student gets of them. The further left and the narrower the good pairs lie, the more compact is what the student learns from."}
	var rows []distanceRow
	add := func(name string, style int, values []float64) {
		if len(values) == 0 {
			return
		}
		mean, variance := moments(values)
		rows = append(rows, distanceRow{name, len(values), mean, variance})
		c.lines = append(c.lines, line{name: name, style: style, filled: true, points: histogram(values, c.x, histogramBins)})
	}
	add("within the class (good pairs)", 0, k.Intra)
	add(between, 1, k.Inter)
	c.y = axis{label: "share of the pairs, %", high: fit("", []float64{0, highest(c.lines)}).high}
	return c.draw(), rows
}

// addCases draws all cases in one scale of colours.
func (p *page) addCases() error {
	groups := []struct {
		title string
		cases []Case
	}{{"Worst cases", p.Worst}, {"Best cases", p.Best}, {"Images with the highest scores", p.Shown}}
	low, high := float32(math.Inf(1)), float32(math.Inf(-1))
	for _, k := range slices.Concat(p.Worst, p.Best, p.Shown) {
		low, high = min(low, slices.Min(k.Map)), max(high, slices.Max(k.Map))
	}
	if low > high {
		return nil
	}
	if t := p.PixelThreshold; t != nil {
		low, high = min(low, *t), max(high, *t)
	}
	for _, g := range groups {
		group := caseGroup{Title: g.title}
		for _, k := range g.cases {
			f, err := k.draw(low, high)
			if err != nil {
				return err
			}
			shown := shownCase{verdict: judge(p.Images[k.Image]), figure: f, Peak: float64(slices.Max(k.Map)), NearPath: k.NearPath}
			defective := 0
			for _, m := range k.Mask {
				if m != 0 {
					defective++
				}
			}
			shown.MaskPart = float64(defective) / float64(k.H*k.W)
			shown.Outlined = slices.ContainsFunc(k.Levels, func(level float64) bool { return !math.IsInf(level, 1) })
			group.Cases = append(group.Cases, shown)
		}
		if len(group.Cases) > 0 {
			p.CaseGroups = append(p.CaseGroups, group)
		}
	}
	p.Legend = colourLegend(low, high, p.PixelThreshold)
	return nil
}

// facts are what the report was made of, where it is known.
func facts(r *Report) (out []Setting) {
	add := func(name, value string) {
		if value != "" {
			out = append(out, Setting{name, value})
		}
	}
	add("Data", r.Data)
	if r.TrainImages > 0 {
		add("Training images", fmt.Sprint(r.TrainImages))
	}
	if n := len(r.Calibration); n > 0 {
		add("Calibration images", fmt.Sprint(n))
	}
	if !r.OfCalibration {
		add("Images judged", fmt.Sprint(len(r.Images)))
	}
	add("Fingerprint of the training data", r.Fingerprint)
	add("Teacher", r.Teacher.Name)
	add("Teacher's SHA-256", r.Teacher.SHA256)
	if r.ChosenEpoch > 0 {
		add("Epoch", fmt.Sprint(r.ChosenEpoch))
	}
	add("How it was chosen", r.Selection)
	if r.Threshold != nil {
		add("Threshold", number(*r.Threshold, 5))
	}
	add("Where it comes from", r.ThresholdRule)
	if r.PixelThreshold != nil {
		add("Pixel threshold", number(float64(*r.PixelThreshold), 5))
	}
	return out
}

// perImage is the time that one image took, or 0.
func (t Timing) perImage() time.Duration {
	if t.Images <= 0 {
		return 0
	}
	return t.Duration / time.Duration(t.Images)
}

func upper(text string) string {
	return string(text[0]-'a'+'A') + text[1:]
}
