package evaluation

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/method"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/report"
	"rdpp/rdpp/teacher"
	"rdpp/torch"
)

// ReportOptions say what a report tells beyond model and evaluation. Zero fields are left out of it.
type ReportOptions struct {
	Selection string               // how the epoch was chosen, in words
	History   []anomaly.Epoch      // of the training
	Timings   []report.Timing      // of what came before the evaluation
	Skipped   []dataset.Skip       // files that were left out
	MaxPixels int64                // largest image accepted, default imagefile.DefaultMaxPixels
	Threshold *anomaly.Calibration // in force; default the model's own
	Cache     *dataset.Cache       // of images; default one that keeps none

	// Calibration are good images that the threshold comes from. Where there is no test image, the highest of them are shown.
	Calibration []dataset.Item
}

// What a report shows and measures at most.
const (
	shownCases      = 6   // of the worst, and of the best
	comparedImages  = 150 // per class, for the compactness
	listedImages    = 500 // of the calibration
	comparedBytes   = 512 << 20
	leastComparison = 2
)

// WriteReport writes the HTML report of an evaluation to a file, which is replaced when it is whole. The set's test images are those
// of the evaluation. The model is settled.
func WriteReport(ctx context.Context, m *modelfile.Model, path string, set *dataset.Set, e *Evaluation, opt ReportOptions) error {
	r, err := gather(ctx, m, set, e, opt)
	if err == nil {
		err = atomicfile.Write(path, func(w io.Writer) error { return report.Write(w, r) })
	}
	if err != nil {
		return fmt.Errorf("evaluation: report: %w", err)
	}
	return nil
}

// gather collects what the page shows. The set's test images are those of the evaluation.
func gather(ctx context.Context, m *modelfile.Model, set *dataset.Set, e *Evaluation, opt ReportOptions) (*report.Report, error) {
	info := &m.Info
	c := opt.Threshold
	if c == nil {
		c = &info.Calibration
	}
	pixelThreshold := modelfile.FloorFloat32(c.PixelThreshold)
	said := Notes(info, c, opt.Skipped)
	if w := e.Warning(); w != "" {
		said = append(said, w+".")
	}
	r := &report.Report{Category: set.Category, Notes: said, Threshold: &c.Threshold, ThresholdRule: c.Rule,
		PixelThreshold: &pixelThreshold, Metrics: e.Metrics, HasMasks: set.HasMasks, ImageROC: e.ImageROC,
		PixelROC: e.PixelROC, PRO: e.PRO, History: opt.History, ChosenEpoch: info.Epoch, Selection: opt.Selection,
		Teacher: report.Teacher{Name: info.Teacher.Origin, SHA256: info.Teacher.SHA256}, Fingerprint: info.Data.Fingerprint,
		TrainImages: info.Data.Images, Data: set.Why + " | " + set.Taken().String()}
	r.Notes = append(r.Notes, leftOutNotes(set.Taken())...)
	if n := e.LostMasks; n > 0 {
		at := fmt.Sprintf("at %d x %d pixels", info.Config.ImageSize, info.Config.ImageSize)
		if info.Config.Tiled() {
			at = "at the size of the maps"
		}
		r.Notes = append(r.Notes, fmt.Sprintf("Of the masks, %d have no defect pixel left %s: pixel metrics take those images for good ones.", n, at))
	}
	if !c.Provisional {
		r.Calibration = c.Scores
	}
	cache := opt.Cache
	if cache == nil {
		cache = dataset.NewCache(dataset.CacheOptions{Size: info.Config.ImageSize, MaxBytes: -1, MaxPixels: opt.MaxPixels,
			BitDepth: info.Config.BitDepth, Whole: info.Config.Tiled(), Framer: m.Framer})
	}
	var err error
	scored := e.Scores
	if len(scored) == 0 && len(opt.Calibration) > 0 {
		r.OfCalibration = true
		if scored, err = scoreEach(ctx, m, Spread(opt.Calibration, listedImages), cache); err != nil {
			return nil, err
		}
	}
	items := make([]dataset.Item, 0, len(scored))
	for _, s := range scored {
		items = append(items, s.Item)
		r.Images = append(r.Images, reportImage(set.Dir, s, c))
	}
	worst, best := report.Pick(r.Images, shownCases)
	if r.OfCalibration {
		if r.Shown, err = cases(ctx, m, items, worst, c, cache, opt.MaxPixels); err != nil {
			return nil, err
		}
		worst, best = nil, nil
		if c.Folds > 0 || c.Provisional {
			r.Notes = append(r.Notes, "There are no test images. The model has learned from the images that are shown, so their scores are lower than those of others.")
		}
		items = nil // of the comparison
	}
	if r.Worst, err = cases(ctx, m, items, worst, c, cache, opt.MaxPixels); err != nil {
		return nil, err
	}
	if r.Best, err = cases(ctx, m, items, best, c, cache, opt.MaxPixels); err != nil {
		return nil, err
	}
	began := time.Now()
	if r.Compactness, err = compactness(ctx, m, items, cache); err != nil {
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
	if m.Provenance != nil {
		for _, fact := range m.Provenance.Facts() {
			r.Settings = append(r.Settings, report.Setting{Name: fact.Name, Value: fact.Value})
		}
	}
	return r, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Notes are what to know before the figures are trusted.
func Notes(info *modelfile.Info, c *anomaly.Calibration, skipped []dataset.Skip) (all []string) {
	if info.Config.Select == method.SelectBestOnTest {
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
	if text := info.Config.View.Text(); text != "" {
		all = append(all, "Looked at: "+text+".")
	}
	if text := sizeNote(info); text != "" {
		all = append(all, text)
	}
	if c.Folds > 0 && c.FalseAlarm > 0 {
		all = append(all, fmt.Sprintf("There were too few images to keep some out of training. The threshold comes from %d further trainings, "+
			"each of which left out a part of the images and scored it.", c.Folds))
	}
	switch info.Teacher.Origin {
	case teacher.OriginRandom:
		all = append(all, "The teacher is random: it is of use for comparison only.")
	case teacher.OriginDrawn:
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

// sizeNote says how small a defect can be, where that was measured.
func sizeNote(info *modelfile.Info) string {
	c, spots := &info.Config, info.Spots
	large := info.TooLarge(spots.Width, spots.Height)
	switch {
	case large != "":
		return strings.ToUpper(large[:1]) + large[1:] + "."
	case c.Tiled() && spots.Measured():
		return fmt.Sprintf("Images are looked at in tiles of %d x %d pixels, each seen at %d x %d: %s.", c.Tile, c.Tile, c.ImageSize, c.ImageSize, spots.Text())
	case spots.Measured():
		return strings.ToUpper(spots.Text()[:1]) + spots.Text()[1:] + "."
	}
	return ""
}

// leftOutNotes names images that were left out without anything being wrong with them, and test images that are none.
func leftOutNotes(t dataset.Taken) (all []string) {
	for _, l := range t.LeftOut {
		if l.Reason == dataset.InSubfolder || l.Reason == dataset.OutsideLayout {
			all = append(all, "Left out: "+l.String()+".")
		}
	}
	if text := t.CopiesText(); text != "" {
		all = append(all, text+".")
	}
	return all
}

// scoreEach scores items in their order.
func scoreEach(ctx context.Context, m *modelfile.Model, items []dataset.Item, cache *dataset.Cache) (all []ItemScore, err error) {
	err = scan(ctx, m, items, cache, func(i int, o modelfile.Outcome) error {
		all = append(all, ItemScore{Item: items[i], Score: o.Score})
		return nil
	})
	return all, err
}

func reportImage(dir string, s ItemScore, c *anomaly.Calibration) report.Image {
	image := report.Image{Path: relative(dir, s.Path), Truth: report.Good, Verdict: c.Judge(s.Score)}
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

// cases are the picked items with their pictures, maps, masks and outlines.
func cases(ctx context.Context, m *modelfile.Model, items []dataset.Item, picked []int, calibration *anomaly.Calibration, cache *dataset.Cache,
	maxPixels int64) (all []report.Case, err error) {
	some := make([]dataset.Item, len(picked))
	for i, at := range picked {
		some[i] = items[at]
	}
	err = scan(ctx, m, some, cache, func(i int, o modelfile.Outcome) error {
		_, levels, err := modelfile.Outlined(calibration.Outline(calibration.Judge(o.Score), m.Info.Config.Blur()), o.Map, o.Frame)
		if err != nil {
			return err
		}
		c := report.Case{Image: picked[i]}
		c.Map, c.H, c.W = framing.Spread(o.Frame, o.Map, 0)
		c.Levels, _, _ = framing.Spread(o.Frame, levels, math.Inf(1))
		if c.Picture, err = imagefile.DecodeFile(some[i].Path, &imagefile.Options{MaxPixels: maxPixels, BitDepth: m.Info.Config.BitDepth}); err != nil {
			return err
		}
		if some[i].Mask != "" {
			mask, err := cache.MaskOf(some[i], o.Frame)
			if err != nil {
				return err
			}
			c.Mask, _, _ = framing.Spread(o.Frame, mask, 0)
		}
		all = append(all, c)
		return nil
	})
	return all, err
}

// compactness compares the student's inputs of good test images with each other, and with those of defective ones
// (paper, section 6.3 and Figure 6). It is nil where there are too few good ones.
func compactness(ctx context.Context, m *modelfile.Model, items []dataset.Item, cache *dataset.Cache) (*report.Compactness, error) {
	net, able := m.Net.(method.Embedder)
	if !able || m.Info.Config.Tiled() { // a tile's embedding says nothing of an image
		return nil, nil
	}
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
	good, defective = Spread(good, most), Spread(defective, most)
	if len(good) < leastComparison {
		return nil, nil
	}
	embed := func(items []dataset.Item) (all [][]float32, err error) {
		err = Images(items, cache, &m.Info.Config.Settings, m.Device)(ctx, 0, func(x *torch.Tensor, _ *framing.Frame) error {
			typed, err := x.To(m.Device, m.Precision.DType()) // which is the only one that a detector's net takes
			if err != nil {
				return err
			}
			defer typed.Close()
			z, err := net.Embed(typed)
			if err != nil {
				return err
			}
			defer z.Close()
			values, err := torch.Read[float32](z)
			all = append(all, values)
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

// meanSquare is the mean of the squared differences.
func meanSquare(a, b []float32) float64 {
	sum := 0.0
	for i, v := range a {
		d := float64(v - b[i])
		sum += d * d
	}
	return sum / float64(len(a))
}

// short is the value of a setting, or of a long one, such as a mask, its beginning.
func short(value string) string {
	const most = 60
	if len(value) <= most {
		return value
	}
	return fmt.Sprintf("%.40s ... (%d characters)", value, len(value))
}

// reportSettings lists the configuration as the model file holds it.
func reportSettings(info *modelfile.Info) (all []report.Setting, err error) {
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
		all = append(all, report.Setting{Name: fmt.Sprint(name), Value: short(strings.Trim(string(value), `"`))})
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
