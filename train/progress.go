package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"rdpp/rdpp"
	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/printable"
	"rdpp/torch"
)

// progress shows a training: a bar on a terminal, plain lines elsewhere, or JSON objects.
type progress struct {
	category       string
	taken          dataset.Taken // of the data
	stdout, stderr io.Writer
	json           *json.Encoder // nil: for people

	bars   *mpb.Progress // nil: no terminal
	bar    *mpb.Bar
	status atomic.Pointer[string]

	foretold  bool // the duration has been
	epochTold bool // an epoch has been

	fetching string   // file that is being downloaded
	fetchBar *mpb.Bar // of that

	began  time.Time // the end of the first step seen
	steps  int       // seen since then
	images int       // in them
	before int       // images of the epoch before the last step
	fold   int       // the training that is seen: 0 of the model, else one for its calibration
	shown  time.Time // when the last line or object was written
}

// Without a terminal, a line every so often.
const lineEvery = 30 * time.Second

// foretellAfter is how long to look at the steps before the duration is foretold.
const foretellAfter = 5 * time.Second

// eventSchema is the version of the objects of --json, which EVENTS.md describes. It rises when a member changes or goes; further
// members may come at any time.
const eventSchema = 1

// newProgress shows the training on a data set. quiet: there is no bar, and nothing is said of the data.
func newProgress(set *dataset.Set, stdout, stderr io.Writer, asJSON, quiet bool) *progress {
	if !asJSON {
		say(stdout, "%s: %s | %s", set.Category, set.Why, set.Taken().Text(asFlag))
	}
	p := openProgress(set.Category, stdout, stderr, asJSON, quiet)
	p.taken = set.Taken()
	return p
}

func openProgress(category string, stdout, stderr io.Writer, asJSON, quiet bool) *progress {
	p := &progress{category: category, stdout: stdout, stderr: stderr, shown: time.Now()}
	if asJSON {
		p.json = json.NewEncoder(stdout)
	} else if f, isFile := stderr.(*os.File); isFile && !quiet && term.IsTerminal(int(f.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(stderr), mpb.WithWidth(barWidth))
	}
	return p
}

// What a line with a bar is made of, in columns; statusText has what is left of 80.
const (
	nameWidth = 14
	barWidth  = 16
)

// shownName is a category's name as it stands before a bar.
func shownName(category string) string {
	name := []rune(printable.Text(category))
	if len(name) > nameWidth {
		name = append(name[:nameWidth-1], '~')
	}
	return string(name)
}

// addBar shows the bar, with the status behind it.
func (p *progress) addBar(name string, total int) {
	p.bar = p.bars.AddBar(int64(total), mpb.PrependDecorators(decor.Name(shownName(name)+" "), decor.Percentage()),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			if s := p.status.Load(); s != nil {
				return *s
			}
			return ""
		})))
}

// log is where log lines go: above the bar, if there is one.
func (p *progress) log() io.Writer {
	if p.bars != nil {
		return p.bars
	}
	return p.stderr
}

func (p *progress) start(c *rdpp.Config, device torch.Device, threads int) {
	if p.json != nil {
		return
	}
	length := printable.Count(c.Epochs, "epoch")
	if c.Updates > 0 {
		length = printable.Count(c.Updates, "update")
	}
	view := c.View.Text()
	if view != "" {
		view = " (" + view + ")"
	}
	say(p.stdout, "%s: %s, %s, %d x %d pixels%s, %s on %s with %s", p.category, c.Method, c.Arch,
		c.ImageSize, c.ImageSize, view, length, device, printable.Count(threads, "thread"))
}

// download shows how much of a teacher has arrived, in bytes; total is -1 where that is unknown.
func (p *progress) download(file string, done, total int64) {
	every := lineEvery
	if p.json != nil {
		every = time.Second
	}
	first, last := p.fetching != file, done == total
	p.fetching = file
	if p.bars != nil {
		p.downloadBar(first, done, total)
		return
	}
	if !first && !last && time.Since(p.shown) < every {
		return
	}
	p.shown = time.Now()
	if p.json != nil {
		p.event("download", map[string]any{"file": file, "bytes": done, "total": total})
		return
	}
	text := fmt.Sprintf("%s: downloading %s: %d", p.category, file, done>>20)
	if total >= 0 {
		text += fmt.Sprintf(" of %d", total>>20)
	}
	say(p.stdout, "%s MiB", text)
}

func (p *progress) downloadBar(first bool, done, total int64) {
	if first {
		p.fetchBar = p.bars.AddBar(total, mpb.BarRemoveOnComplete(), mpb.PrependDecorators(decor.Name(printable.Text(p.fetching)+" ")),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")))
	}
	p.fetchBar.SetTotal(total, false)
	p.fetchBar.SetCurrent(done)
}

// teacher names the teacher before hours are spent with it.
func (p *progress) teacher(info rdpp.Info) {
	if p.fetchBar != nil {
		p.fetchBar.Abort(true) // which ends it where the total was unknown
	}
	if p.json != nil {
		p.event("start", map[string]any{"config": info.Config, "teacher": info.Teacher, "from": info.From, "data": info.Data, "taken": p.taken})
		return
	}
	say(p.stdout, "%s: teacher %s", p.category, info.Teacher)
	if from := info.From; from.Origin != "" {
		say(p.stdout, "%s: goes on from %s, trained on %s", p.category, printable.Text(from.Origin), printable.Count(from.Images, "image"))
	}
	text := fmt.Sprintf("%s: training on %s", p.category, printable.Count(info.Data.Images, "image"))
	if n := info.Data.HeldOut; n > 0 {
		text += fmt.Sprintf("; %d more are held out for the threshold", n)
	}
	if c := info.Config; c.Tiled() {
		text += fmt.Sprintf("; a pass has %d tiles of %d x %d pixels, %d apart at most", info.Data.Tiles, c.Tile, c.Tile, c.TileStride)
	}
	say(p.stdout, "%s", text)
	if text := info.BitDepthText(); text != "" {
		say(p.stdout, "%s: %s; --bit-depth overrules", p.category, text)
	}
}

// left estimates the time to the end of the last epoch, evaluation not included.
func (p *progress) left(r rdpp.StepReport) time.Duration {
	remaining := (r.Epochs-r.Epoch)*r.Steps + r.Steps - r.Step
	return time.Duration(float64(time.Since(p.began)) / float64(p.steps) * float64(remaining)).Round(time.Second)
}

func (p *progress) step(r rdpp.StepReport) {
	if r.Fold != p.fold { // another training has a bar and a clock of its own
		p.fold, p.began, p.steps, p.images = r.Fold, time.Time{}, 0, 0
		if p.bar != nil {
			p.bar.Abort(true)
		}
		if p.json == nil && p.bars == nil {
			say(p.stdout, "%s: training %d of %d for the threshold, each of which leaves out a part of the images and scores it",
				p.category, r.Fold, r.Folds)
		}
	}
	if p.began.IsZero() {
		// The clock starts at the end of the first step, which also warms up.
		p.began, p.before = time.Now(), r.Images
		if p.bars != nil {
			name := p.category
			if r.Fold > 0 {
				name = fmt.Sprintf("%.6s %d/%d", name, r.Fold, r.Folds)
			}
			p.addBar(name, r.Epochs*r.Steps)
		}
	} else {
		if r.Step == 1 {
			p.before = 0
		}
		p.images += r.Images - p.before
		p.before = r.Images
		p.steps++
	}
	var rate float64
	var left time.Duration
	if p.steps > 0 {
		rate, left = float64(p.images)/time.Since(p.began).Seconds(), p.left(r)
	}
	text := statusText(r.Losses, rate, left, p.steps > 0)
	done := (r.Epoch-1)*r.Steps + r.Step
	if p.json == nil && !p.foretold && r.Fold == 0 && p.steps >= 3 && time.Since(p.began) >= foretellAfter {
		p.foretold = true
		p.line("%s: about %s of training left, then threshold and test images", p.category, durationText(left))
	}
	switch {
	case p.bar != nil:
		p.status.Store(&text)
		p.bar.SetTotal(int64(r.Epochs*r.Steps), false) // a training may stop early
		p.bar.SetCurrent(int64(done))
	case p.json != nil && time.Since(p.shown) >= time.Second:
		p.shown = time.Now()
		p.event("step", map[string]any{"epoch": r.Epoch, "epochs": r.Epochs, "step": r.Step, "steps": r.Steps, "fold": r.Fold, "folds": r.Folds,
			"losses": r.Losses, "images_per_second": rate, "seconds_left": left.Seconds()})
	case p.json == nil && p.bars == nil && time.Since(p.shown) >= lineEvery:
		p.shown = time.Now()
		say(p.stdout, "%s: %d %%%s", shownName(p.category), 100*done/(r.Epochs*r.Steps), text)
	}
}

// line prints a line for people, above the bar where there is one.
func (p *progress) line(format string, args ...any) {
	if p.bars != nil {
		say(p.bars, format, args...)
		return
	}
	say(p.stdout, format, args...)
}

// epoch tells of an epoch that is done: to people where the test set was measured, and without a bar else now and then.
func (p *progress) epoch(r rdpp.EpochReport) {
	if p.json != nil {
		p.shown = time.Now()
		p.event("epoch", map[string]any{"report": r})
		return
	}
	if r.Metrics == nil && (p.bars != nil || p.epochTold && time.Since(p.shown) < lineEvery) {
		return
	}
	p.shown, p.epochTold = time.Now(), true
	p.line("%s: epoch %d %s", shownName(p.category), r.Epoch, statusText(r.Losses, float64(r.Images)/r.Seconds, 0, false))
	if r.Metrics != nil {
		p.line("%s: epoch %d, test set:%s", shownName(p.category), r.Epoch, metricsText(r.Metrics))
	}
}

// stop takes the bars away.
func (p *progress) stop() {
	if p.fetchBar != nil {
		p.fetchBar.Abort(true)
	}
	if p.bar != nil {
		p.bar.Abort(true)
	}
	if p.bars != nil {
		p.bars.Wait()
	}
}

func (p *progress) done(s *rdpp.Summary) {
	if p.json != nil {
		p.event("done", map[string]any{"summary": s})
		return
	}
	if s.Good+s.Defective == 0 {
		say(p.stdout, "%s: no test images, so no metrics", p.category)
	} else {
		say(p.stdout, "%s: %d good and %d defective test images:%s (%s)", p.category, s.Good, s.Defective,
			metricsText(&s.Metrics), s.Selection)
	}
	if s.LostMasks > 0 {
		at := fmt.Sprintf("%d x %d pixels", s.Config.ImageSize, s.Config.ImageSize)
		if s.Config.Tiled() {
			at = "the size of the maps"
		}
		say(p.stdout, "%s: %d of %d masks have no defect pixel left at %s", p.category, s.LostMasks, s.Taken.Masks, at)
	}
	if s.DeviceBytes > 0 {
		say(p.stdout, "%s: %d MiB of device memory in use at most", p.category, s.DeviceBytes>>20)
	}
	word := ""
	if s.Provisional {
		word = "provisional: "
	}
	say(p.stdout, "%s: threshold %.4f, %s%s", p.category, s.Threshold, word, s.ThresholdRule)
	if i := s.FalseAlarms; i != nil {
		say(p.stdout, "%s: it flags %d of %d good test images (95 %% interval of the share: %s) and %d of %d defective ones",
			p.category, s.GoodFlagged, s.Good, metric.IntervalText(i[0], i[1]), s.DefectiveFound, s.Defective)
	}
	say(p.stdout, "%s: model %s, report %s", p.category, s.ModelFile, filepath.Join(filepath.Dir(s.ModelFile), rdpp.ReportFile))
}

func (p *progress) event(name string, fields map[string]any) {
	fields["schema"], fields["event"], fields["category"] = eventSchema, name, p.category
	// A reader that has gone away is no reason to stop training.
	_ = p.json.Encode(fields)
}

// statusText is what follows a bar or a percentage: at most 44 columns. The parts of the loss are in history.csv; a method may have
// none.
func statusText(losses rdpp.Losses, rate float64, left time.Duration, timed bool) string {
	var parts []string
	if len(losses) > 0 {
		parts = append(parts, "loss "+lossText(losses.Get(anomaly.LossTotal)))
	}
	if rate > 0 {
		parts = append(parts, rateText(rate)+" images/s")
	}
	if timed {
		parts = append(parts, durationText(left)+" left")
	}
	return " " + strings.Join(parts, "  ")
}

// lossText is a loss in at most eight columns.
func lossText(loss float64) string {
	if loss < 0.001 {
		return fmt.Sprintf("%.1e", loss)
	}
	return fmt.Sprintf("%.4g", loss)
}

// rateText is a number of things a second.
func rateText(rate float64) string {
	if rate < 100 {
		return fmt.Sprintf("%.1f", rate)
	}
	return fmt.Sprintf("%.0f", rate)
}

// durationText is a duration in its two largest units.
func durationText(d time.Duration) string {
	d = d.Round(time.Second)
	if d >= time.Hour {
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return d.String()
}

func metricsText(m *rdpp.Metrics) string {
	text := ""
	for _, v := range []struct {
		name  string
		value *float64
	}{{"image AUROC", m.ImageAUROC}, {"pixel AUROC", m.PixelAUROC}, {"AUPRO", m.AUPRO}} {
		if v.value != nil {
			text += fmt.Sprintf(" %s %.4f", v.name, *v.value)
		}
	}
	return text
}
