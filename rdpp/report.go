package rdpp

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/report"
	"rdpp/rdpp/setting"
)

// ReportOptions say what a report tells beyond model and evaluation. Zero fields are left out of it.
type ReportOptions struct {
	Selection string          // how the epoch was chosen, in words
	History   []EpochReport   // of the training
	Timings   []report.Timing // of what came before the evaluation
	Skipped   []dataset.Skip  // files that were left out
	MaxPixels int64           // largest image accepted, default imagefile.DefaultMaxPixels
	threshold *Calibration    // in force; default the model's own
	cache     *dataset.Cache  // of images; default one that keeps none
}

// What a report shows and measures at most.
const (
	shownCases      = 6   // of the worst, and of the best
	comparedImages  = 150 // per class, for the compactness
	comparedBytes   = 512 << 20
	leastComparison = 2
)

// WriteReport writes the HTML report of an evaluation to a file, which is replaced when it is whole.
func (d *Detector) WriteReport(ctx context.Context, path string, set *dataset.Set, e *Evaluation, opt *ReportOptions) error {
	o := ReportOptions{}
	if opt != nil {
		o = *opt
	}
	o.MaxPixels, o.threshold, o.cache = d.images.MaxPixels, &d.calibration, d.cache()
	return d.do(func() error { return d.model.writeReport(ctx, path, set, e, o) })
}

func (m *Model) writeReport(ctx context.Context, path string, set *dataset.Set, e *Evaluation, opt ReportOptions) error {
	r, err := m.report(ctx, set, e, opt)
	if err == nil {
		err = atomicfile.Write(path, func(w io.Writer) error { return report.Write(w, r) })
	}
	if err != nil {
		return fmt.Errorf("rdpp: report: %w", err)
	}
	return nil
}

// report gathers what the page shows. The set's test images are those of the evaluation.
func (m *Model) report(ctx context.Context, set *dataset.Set, e *Evaluation, opt ReportOptions) (*report.Report, error) {
	info := &m.Info
	c := opt.threshold
	if c == nil {
		c = &info.Calibration
	}
	pixelThreshold := floorFloat32(c.PixelThreshold)
	said := notes(info, c, opt.Skipped)
	if w := e.Warning(); w != "" {
		said = append(said, w+".")
	}
	r := &report.Report{Category: set.Category, Notes: said, Threshold: &c.Threshold, ThresholdRule: c.Rule,
		PixelThreshold: &pixelThreshold, Metrics: reportMetrics(&e.Metrics, set.HasMasks), ImageROC: points(e.ImageROC),
		PixelROC: points(e.PixelROC), PRO: points(e.PRO), ChosenEpoch: info.Epoch, Selection: opt.Selection,
		Teacher: report.Teacher{Name: info.Teacher.Origin, SHA256: info.Teacher.SHA256}, Fingerprint: info.Data.Fingerprint,
		TrainImages: info.Data.Images, Data: set.Why + " | " + set.Taken().String()}
	r.Notes = append(r.Notes, leftOutNotes(set.Taken())...)
	if n := e.LostMasks; n > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("Of the masks, %d have no defect pixel left at %d x %d pixels: pixel metrics take those images for good ones.", n,
			info.Config.ImageSize, info.Config.ImageSize))
	}
	if !c.Provisional {
		r.Calibration = c.Scores
	}
	items := make([]dataset.Item, 0, len(e.Scores))
	for _, s := range e.Scores {
		items = append(items, s.Item)
		r.Images = append(r.Images, reportImage(set.Dir, s, c))
	}
	for _, h := range opt.History {
		r.History = append(r.History, reportEpoch(h))
	}
	cache := opt.cache
	if cache == nil {
		cache = dataset.NewCache(dataset.CacheOptions{Size: info.Config.ImageSize, MaxBytes: -1, MaxPixels: opt.MaxPixels,
			BitDepth: info.Config.BitDepth})
	}
	var err error
	worst, best := report.Pick(r.Images, shownCases)
	if r.Worst, err = m.cases(ctx, items, worst, cache, opt.MaxPixels); err != nil {
		return nil, err
	}
	if r.Best, err = m.cases(ctx, items, best, cache, opt.MaxPixels); err != nil {
		return nil, err
	}
	began := time.Now()
	if r.Compactness, err = m.compactness(ctx, items, cache); err != nil {
		return nil, err
	}
	r.Timings = slices.Clone(opt.Timings)
	if n := len(e.Scores); n > 0 {
		r.Timings = append(r.Timings, report.Timing{Stage: "evaluation", Duration: seconds(e.Seconds), Images: n})
	}
	if r.Compactness != nil {
		r.Timings = append(r.Timings, report.Timing{Stage: "compactness", Duration: time.Since(began)})
	}
	if r.Settings, err = reportSettings(info); err != nil {
		return nil, err
	}
	return r, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// notes are what to know before the figures are trusted.
func notes(info *Info, c *Calibration, skipped []dataset.Skip) (all []string) {
	if info.Config.Select == SelectBestOnTest {
		all = append(all, "The epoch was chosen by the test images, so all figures here are optimistic.")
	}
	switch {
	case c.Provisional:
		all = append(all, "The threshold is provisional, the "+c.Rule+": it promises no rate of false alarms.")
	case c.FalseAlarm > 0 && !c.Exact:
		all = append(all, "Threshold: "+c.Rule+".")
	}
	if text := info.BitDepthText(); text != "" && (info.Config.BitDepth < 16 || info.Data.Range.MostlyBlack()) {
		all = append(all, "Training: "+text+".")
	}
	if c.Folds > 0 && c.FalseAlarm > 0 {
		all = append(all, fmt.Sprintf("There were too few images to keep some out of training. The threshold comes from %d further trainings, "+
			"each of which left out a part of the images and scored it.", c.Folds))
	}
	switch info.Teacher.Origin {
	case OriginRandom:
		all = append(all, "The teacher is random: it is of use for comparison only.")
	case OriginDrawn:
		all = append(all, "The teacher has seen drawn pictures only. Torchvision's ImageNet weights reach more.")
	}
	switch n := len(skipped); n {
	case 0:
	case 1:
		all = append(all, "1 file was left out, as it could not be used.")
	default:
		all = append(all, fmt.Sprintf("%d files were left out, as they could not be used.", n))
	}
	return all
}

// leftOutNotes names images that were left out without anything being wrong with them.
func leftOutNotes(t dataset.Taken) (all []string) {
	for _, l := range t.LeftOut {
		if l.Reason == dataset.InSubfolder || l.Reason == dataset.OutsideLayout {
			all = append(all, "Left out: "+l.String()+".")
		}
	}
	return all
}

func reportMetrics(m *Metrics, hasMasks bool) report.Metrics {
	image, pixel := "", ""
	switch {
	case m.Good+m.Defective == 0:
		image = "no test images"
	case m.Defective == 0:
		image = "no defective test images"
	case m.Good == 0:
		image = "no good test images"
	}
	switch {
	case image != "":
		pixel = image
	case !hasMasks:
		pixel = "no masks"
	default:
		pixel = "no defect pixels in the masks, or nothing but them"
	}
	of := func(value *float64, reason string) report.Metric { return report.Metric{Value: value, Reason: reason} }
	return report.Metrics{ImageAUROC: of(m.ImageAUROC, image), ImageAP: of(m.ImageAP, image), ImageF1Max: of(m.ImageF1, image),
		F1Threshold: m.ImageF1Threshold, PixelAUROC: of(m.PixelAUROC, pixel), PixelAP: of(m.PixelAP, pixel), PixelF1Max: of(m.PixelF1, pixel),
		AUPRO30: of(m.AUPRO, pixel), AUPRO05: of(m.AUPROStrict, pixel), PROReleased: of(m.PROReleased, undefined(m, pixel))}
}

// undefined is why there is no released PRO.
func undefined(m *Metrics, pixel string) string {
	if m.AUPRO != nil {
		return "undefined for these maps"
	}
	return pixel
}

func points[P ~struct{ X, Y float64 }](curve []P) (all []report.Point) {
	for _, p := range curve {
		all = append(all, report.Point(p))
	}
	return all
}

func reportImage(dir string, s ItemScore, c *Calibration) report.Image {
	image := report.Image{Path: relative(dir, s.Path), Truth: report.Good, Score: s.Score, Normalised: normalise(s.Score, c.Threshold),
		PValue: c.PValue(s.Score), Anomalous: s.Score > c.Threshold}
	if s.Defective {
		image.Truth, image.Defect = report.Defective, s.Type
	}
	return image
}

// relative is a path as seen from a folder, where it lies in that.
func relative(dir, path string) string {
	if short, err := filepath.Rel(dir, path); err == nil && !strings.HasPrefix(short, "..") {
		return short
	}
	return path
}

func reportEpoch(h EpochReport) report.Epoch {
	l := h.Losses
	e := report.Epoch{Number: h.Epoch, Losses: report.Losses{Total: l.Total, KD: l.KD, SSOT: l.SSOT, Recon: l.Recon, Contrast: l.Contrast}}
	if h.Metrics != nil {
		e.ImageAUROC, e.PixelAUROC, e.AUPRO = h.Metrics.ImageAUROC, h.Metrics.PixelAUROC, h.Metrics.AUPRO
	}
	return e
}

// cases are the picked items with their pictures, maps and masks.
func (m *Model) cases(ctx context.Context, items []dataset.Item, picked []int, cache *dataset.Cache, maxPixels int64) (all []report.Case, err error) {
	S := m.Info.Config.ImageSize
	some := make([]dataset.Item, len(picked))
	for i, at := range picked {
		some[i] = items[at]
	}
	err = m.scan(ctx, some, cache, func(i int, anomaly []float32, _ float64) error {
		c := report.Case{Image: picked[i], Map: anomaly, H: S, W: S}
		if c.Picture, err = imagefile.DecodeFile(some[i].Path, &imagefile.Options{MaxPixels: maxPixels, BitDepth: m.Info.Config.BitDepth}); err != nil {
			return err
		}
		if some[i].Mask != "" {
			if c.Mask, err = cache.Mask(some[i]); err != nil {
				return err
			}
		}
		all = append(all, c)
		return nil
	})
	return all, err
}

// compactness compares the student's inputs of good test images with each other, and with those of defective ones
// (paper, section 6.3 and Figure 6). It is nil where there are too few good ones.
func (m *Model) compactness(ctx context.Context, items []dataset.Item, cache *dataset.Cache) (*report.Compactness, error) {
	var good, defective []dataset.Item
	for _, item := range items {
		if item.Defective {
			defective = append(defective, item)
		} else {
			good = append(good, item)
		}
	}
	h := m.Info.Config.ImageSize / 32
	each := 4 * 512 * 4 * h * h // bytes of 512e x S/32 x S/32 numbers, e being 4 at most
	most := min(comparedImages, max(leastComparison, comparedBytes/each))
	good, defective = spread(good, most), spread(defective, most)
	if len(good) < leastComparison {
		return nil, nil
	}
	embed := func(items []dataset.Item) (all [][]float32, err error) {
		err = m.read(ctx, items, cache, func(_ int, x []float32) error {
			z, err := m.embed(x)
			all = append(all, z)
			return err
		})
		return all, err
	}
	a, err := embed(good)
	if err != nil {
		return nil, err
	}
	b, err := embed(defective)
	if err != nil {
		return nil, err
	}
	c := &report.Compactness{Other: "defective images"}
	for i := range a {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for j := range i {
			c.Intra = append(c.Intra, meanSquare(a[i], a[j]))
		}
		for j := range b {
			c.Inter = append(c.Inter, meanSquare(a[i], b[j]))
		}
	}
	return c, nil
}

// spread is at most n of the items, evenly spread.
func spread(items []dataset.Item, n int) (some []dataset.Item) {
	if len(items) <= n {
		return items
	}
	for i := range n {
		some = append(some, items[i*len(items)/n])
	}
	return some
}

// meanSquare is the mean of the squared differences.
func meanSquare(a, b []float32) float64 {
	sum := 0.0
	for i, v := range a {
		d := float64(v - b[i])
		sum += d * d
	}
	return sum / float64(len(a))
}

// reportSettings lists the configuration as the model file holds it.
func reportSettings(info *Info) (all []report.Setting, err error) {
	text, err := json.Marshal(info.Config)
	if err != nil {
		return nil, err
	}
	fields := json.NewDecoder(strings.NewReader(string(text)))
	if _, err := fields.Token(); err != nil { // the opening brace
		return nil, err
	}
	for fields.More() { // in the order of the struct, which a map would lose
		name, err := fields.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := fields.Decode(&value); err != nil {
			return nil, err
		}
		all = append(all, report.Setting{Name: fmt.Sprint(name), Value: strings.Trim(string(value), `"`)})
	}
	all = append(all, report.Setting{Name: "software", Value: info.Software}, report.Setting{Name: "layout", Value: info.Data.Layout},
		report.Setting{Name: "images held out for the threshold", Value: fmt.Sprint(info.Data.HeldOut)})
	seen := info.Data.Range
	if seen.Wide > 0 {
		all = append(all, report.Setting{Name: "largest value of 16-bit images", Value: fmt.Sprint(seen.Largest)})
	}
	if seen.Brightest > 0 {
		all = append(all, report.Setting{Name: "mean brightness of images", Value: fmt.Sprintf("%.3f to %.3f", seen.Darkest, seen.Brightest)})
	}
	return all, nil
}

// indexNotes are what to know of a category before its figures are trusted.
func indexNotes(s *Summary) []string {
	info := Info{Config: s.Config, Teacher: s.Teacher, Data: DataInfo{Range: s.Range}}
	return notes(&info, &Calibration{Rule: s.ThresholdRule, Provisional: s.Provisional}, s.Skipped)
}

// IndexFile is the page of a run over several categories.
const IndexFile = "index.html"

// IndexEntry is a category of a run.
type IndexEntry struct {
	Category string
	Summary  *Summary // nil: not trained, for Reason
	Reason   string
}

// WriteIndex writes the page of a run over several categories, whose folders lie in out under their names. out is made
// where missing.
func WriteIndex(out, title string, entries []IndexEntry) error {
	ix := &report.Index{Title: title}
	for _, e := range entries {
		row := report.IndexRow{Category: e.Category, Failed: e.Reason}
		if s := e.Summary; s != nil {
			row.Report = e.Category + "/" + ReportFile
			row.Metrics = reportMetrics(&s.Metrics, s.HasMasks)
			for _, note := range indexNotes(s) {
				if !slices.Contains(ix.Notes, note) {
					ix.Notes = append(ix.Notes, note)
				}
			}
			ix.Settings = append(ix.Settings, report.Setting{Name: e.Category, Value: fmt.Sprintf("%s, %s, teacher %s, %d epochs, %s, seed %d; "+
				"of the test images %d of %d good and %d of %d defective ones lie above the threshold", s.Config.Method, s.Config.Arch,
				s.Teacher.Origin, s.Config.Epochs, s.Selection, s.Config.Seed, s.GoodFlagged, s.Good, s.DefectiveFound, s.Defective)})
		}
		ix.Rows = append(ix.Rows, row)
	}
	if err := os.MkdirAll(out, 0o777); err != nil { // where no category has got as far as making it
		return setting.Advise(fmt.Errorf("rdpp: index: %w", err), "choose another folder with {out}")
	}
	err := atomicfile.Write(filepath.Join(out, IndexFile), func(w io.Writer) error { return report.WriteIndex(w, ix) })
	if err != nil {
		return fmt.Errorf("rdpp: index: %w", err)
	}
	return nil
}
