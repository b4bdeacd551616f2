package rdpp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/weights"
)

// Calibration turns scores into verdicts. It is made from images of good parts alone.
type Calibration struct {
	Rule        string  `json:"rule"`        // where the threshold comes from, in words
	Provisional bool    `json:"provisional"` // the rule is a stand-in, no rate of false alarms is promised
	FalseAlarm  float64 `json:"false_alarm"` // share of good images that may be called anomalous; 0: none is promised
	Exact       bool    `json:"exact"`       // the rate is conformal, instead of a fit of the tail
	Threshold   float64 `json:"threshold"`   // a score above it is anomalous
	// PixelThreshold is what pixels of the map are outlined above. By the same rule, at most that share of good images may
	// have an outline. A score being its map's maximum, calibrating leads to the same number.
	PixelThreshold float64   `json:"pixel_threshold"`
	Folds          int       `json:"folds,omitempty"`    // trainings that scored the images which each had left out; 0: the model did
	LeftOut        bool      `json:"left_out,omitempty"` // each image was scored by a map that the others had set the weights of, which makes no rate exact
	Scores         []float64 `json:"scores"`             // of good images that were not trained on (Provisional: that were), ascending
}

// provisional is the calibration where no images were held out: scores are of the training images, ascending.
func provisional(scores []float64) Calibration {
	highest := scores[len(scores)-1]
	return Calibration{Rule: "highest score among the training images", Provisional: true, Threshold: highest,
		PixelThreshold: highest, Scores: scores}
}

// calibrate sets the thresholds for a rate of false alarms by scores of good images, ascending: of images that the model
// was not trained on or, with folds, of those that each of so many other trainings left out. The latter promise nothing
// exactly, as they are not this model's; nor do scores by maps whose weights the other images set (leftOut), which an image
// to come is not scored by, if nearly.
func calibrate(scores []float64, rate float64, folds int, leftOut bool) (Calibration, error) {
	t, err := metric.Calibrate(scores, rate)
	if err != nil {
		return Calibration{}, fmt.Errorf("rdpp: calibration: %w", err)
	}
	c := Calibration{FalseAlarm: rate, Exact: t.Exact && folds == 0 && !leftOut, Threshold: t.Value, PixelThreshold: t.Value,
		Folds: folds, LeftOut: leftOut, Scores: scores}
	switch {
	case c.Exact:
		c.Rule = fmt.Sprintf("at most %s of good images lie above it (split conformal, %d images that were not trained on)",
			percent(rate), len(scores))
	case t.Exact && folds == 0:
		c.Rule = fmt.Sprintf("some %s of good images lie above it, by the rank among %d images that were not trained on, each scored by a map "+
			"that the others weighted", percent(rate), len(scores))
	case t.Exact:
		c.Rule = fmt.Sprintf("some %s of good images lie above it, by the rank among %d images, each scored by a training that left it out",
			percent(rate), len(scores))
	default:
		left := "that were not trained on "
		if folds > 0 {
			left = "each scored by a training that left it out "
		}
		c.Rule = fmt.Sprintf("some %s of good images lie above it, by a log-normal fit of the tail: %d images %sare too few for an exact rate, "+
			"which needs %d", percent(rate), len(scores), left, t.Needed)
	}
	return c, nil
}

func percent(share float64) string { return fmt.Sprintf("%.3g %%", 100*share) }

// At is the calibration for another rate of false alarms. It is an error where the model has no scores to calibrate
// with: none but those of images that it was trained on.
func (c *Calibration) At(rate float64) (Calibration, error) {
	if c.Provisional || len(c.Scores) == 0 {
		return Calibration{}, wrong("false_alarm", rate, "the model holds no scores of images that it was not trained on, or too few, so it knows no rate: "+
			"train with {calibration}, or give a {threshold}")
	}
	return calibrate(c.Scores, rate, c.Folds, c.LeftOut)
}

// PValue is how rare a score is among good images, above 0 to 1; nil where that is not known. See metric.PValue.
func (c *Calibration) PValue(score float64) *float64 {
	if c.Provisional || len(c.Scores) == 0 {
		return nil
	}
	return new(metric.PValue(c.Scores, score))
}

// Override is the calibration with other rates and thresholds in place of its own, where they are given (not nil); see
// DetectorOptions. A rate without scores to set a threshold by is ErrConfig.
func (c *Calibration) Override(rate, threshold, pixelThreshold *float64) (Calibration, error) {
	other := *c
	if rate != nil {
		var err error
		if other, err = c.At(*rate); err != nil {
			return Calibration{}, err
		}
	}
	if threshold != nil {
		if c.Provisional { // scores of the training images say nothing of others
			other.Scores = nil
		}
		other.Rule, other.Provisional, other.FalseAlarm, other.Exact = "given", false, 0, false
		other.Threshold, other.PixelThreshold = *threshold, *threshold
	}
	if pixelThreshold != nil {
		other.PixelThreshold = *pixelThreshold
	}
	return other, nil
}

// complete fills in what files of before a field was there lack.
func (c *Calibration) complete() {
	if c.PixelThreshold == 0 {
		c.PixelThreshold = c.Threshold
	}
}

// check says what of a model file's calibration cannot be. most is the highest score that the model's map can give.
func (c *Calibration) check(most float64) error {
	most += 1e-3 * (1 + most) // scores are rounded
	least := -1e-3
	for i, score := range c.Scores {
		if !(score >= least && score <= most) {
			return fmt.Errorf("calibration: score %d of %d is %v, not ascending within 0 and %.6g, %w", i+1, len(c.Scores), score, most, errDamaged)
		}
		least = score
	}
	switch {
	case !(c.FalseAlarm >= 0 && c.FalseAlarm < 1) || c.Folds < 0:
		return fmt.Errorf("calibration: a rate of %v by %d trainings cannot be, %w", c.FalseAlarm, c.Folds, errDamaged)
	case !(c.Threshold >= 0 && c.PixelThreshold >= 0) || math.IsInf(max(c.Threshold, c.PixelThreshold), 1):
		return fmt.Errorf("calibration: thresholds of %v and %v cannot be, %w", c.Threshold, c.PixelThreshold, errDamaged)
	}
	remade, same := c.remade()
	switch {
	case same && (math.Abs(remade.Threshold-c.Threshold) > 1e-6*remade.Threshold || remade.Exact != c.Exact):
		return fmt.Errorf("calibration: a threshold of %v is not what its scores give, %v, %w", c.Threshold, remade.Threshold, errDamaged)
	case !same && c.Threshold > most, c.PixelThreshold > max(most, c.Threshold):
		return fmt.Errorf("calibration: thresholds of %v and %v are above all scores that there can be, %w", c.Threshold, c.PixelThreshold,
			errDamaged)
	}
	return nil
}

// remade is the calibration that today's rules make of the scores. It is the same in kind where it calls itself by the same
// words: earlier versions had other rules.
func (c *Calibration) remade() (remade Calibration, same bool) {
	switch {
	case len(c.Scores) == 0:
		return remade, false
	case c.Provisional:
		remade = provisional(c.Scores)
		return remade, strings.HasPrefix(c.Rule, "highest score")
	}
	remade, err := calibrate(c.Scores, c.FalseAlarm, c.Folds, c.LeftOut)
	return remade, err == nil && remade.Rule == c.Rule
}

// leastHeld is the fewest images that are held out: with n of them no p-value is below 1/(n + 1).
const leastHeld = 10

// mostFolds bounds what a calibration of a small data set costs.
const mostFolds = 5

// shuffled is a random order of n images, by the run's seed.
func (c *Config) shuffled(n int) []int {
	return rand.New(rand.NewPCG(seedOf("calibration", c.Seed), 0)).Perm(n)
}

// holdOut parts good images into those to train on and those held out for the calibration, both in their order. Where
// that would take more than a third of them, none are held out, and folds trainings calibrate, each of which leaves out
// some of the images.
func holdOut(items []dataset.Item, c *Config) (kept, held []dataset.Item, folds int) {
	n := len(items)
	count := max(leastHeld, int(math.Round(c.Calibration*float64(n))))
	switch {
	case c.Calibration == 0 || n < 2:
		return items, nil, 0
	case 3*count > n:
		return items, nil, min(n, mostFolds)
	}
	out := c.shuffled(n)[:count]
	slices.Sort(out)
	for i, item := range items {
		if len(out) > 0 && out[0] == i {
			held, out = append(held, item), out[1:]
		} else {
			kept = append(kept, item)
		}
	}
	return kept, held, 0
}

// calibrate scores good images that model was not trained on, and sets the thresholds by them.
func (r *run) calibrate(ctx context.Context, model *Model) (Calibration, error) {
	if r.folds > 0 {
		if c := r.calibratedBefore(model); c != nil {
			return *c, nil
		}
		scores, err := r.crossScores(ctx, model.Info.MapWeights)
		if err != nil {
			return Calibration{}, err
		}
		return r.threshold(scores)
	}
	if len(r.held) > 0 {
		scores, err := model.scores(ctx, r.held, r.cache)
		if err != nil {
			return Calibration{}, err
		}
		return r.threshold(scores)
	}
	scores, err := model.scores(ctx, r.items, r.cache)
	if err != nil {
		return Calibration{}, err
	}
	return provisional(scores), nil
}

// calibratedBefore is the calibration of the model that this very run has written before, if it is finished again: nil
// where there is none. It saves the trainings for another one that would be the same.
func (r *run) calibratedBefore(model *Model) *Calibration {
	file, err := weights.OpenSafetensors(r.path(ModelFile))
	if err != nil {
		return nil
	}
	defer file.Close()
	before, _, err := readInfo(file)
	if err != nil {
		return nil
	}
	now := &r.model.Info
	before.Config.complete()
	before.Calibration.complete()
	before.Data.Range = now.Data.Range // which older versions did not tell
	none := MapTerms{}
	if before.Config != r.config || before.Teacher != now.Teacher || before.Data != now.Data || before.Calibration.Folds != r.folds ||
		before.MapWeights != model.Info.MapWeights || (before.MapLevels == none) != (model.Info.MapLevels == none) {
		return nil
	}
	return &before.Calibration
}

// threshold calibrates at the rate that was asked for. Where so few scores cannot bound it, the highest is taken, rather
// than that a training ends in an error.
func (r *run) threshold(scores []float64) (Calibration, error) {
	c, err := calibrate(scores, r.config.FalseAlarm, r.folds, false)
	if !errors.Is(err, metric.ErrTooFew) {
		return c, err
	}
	r.opt.Log.Warn("the threshold is provisional", "reason", err)
	highest := provisional(scores)
	highest.Rule = fmt.Sprintf("highest score of %d good images, as they are too few for the rate that was asked for", len(scores))
	return highest, nil
}

// scores are those of items, ascending.
func (m *Model) scores(ctx context.Context, items []dataset.Item, cache *dataset.Cache) (all []float64, err error) {
	err = m.scan(ctx, items, cache, func(_ int, _ []float32, score float64) error {
		all = append(all, score)
		return nil
	})
	slices.Sort(all)
	return all, err
}

// Files of the trainings for the calibration, numbered from 1: a folder while a training is at work, then its scores.
var foldName = regexp.MustCompile(`^fold-[0-9]+(\.json)?$`)

func (r *run) foldFiles() (paths []string) {
	entries, _ := os.ReadDir(r.opt.Out) // claim has shown that it can be read
	for _, e := range entries {
		if foldName.MatchString(e.Name()) {
			paths = append(paths, r.path(e.Name()))
		}
	}
	return paths
}

// foldScores is what a finished training for the calibration leaves.
type foldScores struct {
	Epochs  int       `json:"epochs"`
	Weights MapTerms  `json:"map_weights"` // of the map that they are maxima of
	Scores  []float64 `json:"scores"`
}

// crossScores, of maps of the given weights, trains once per fold without the fold's images, and scores them: every training image by a model that
// has not seen it. The scores are ascending.
func (r *run) crossScores(ctx context.Context, weights MapTerms) (all []float64, err error) {
	r.adam.Close() // its memory is needed
	order := r.config.shuffled(len(r.items))
	for fold := range r.folds {
		file := r.path(fmt.Sprintf("fold-%d.json", fold+1))
		var done foldScores
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &done)
		}
		if err != nil || done.Epochs != r.config.Epochs || done.Weights != weights {
			if done.Scores, err = r.crossScore(ctx, fold, order); err != nil {
				return nil, err
			}
			done.Epochs, done.Weights = r.config.Epochs, weights
			if text, err = json.Marshal(done); err == nil {
				err = writeFile(file, text)
			}
			if err != nil {
				return nil, err
			}
		}
		if err := removeAll([]string{r.foldFolder(fold)}); err != nil {
			return nil, err
		}
		all = append(all, done.Scores...)
	}
	slices.Sort(all)
	return all, nil
}

func (r *run) foldFolder(fold int) string { return r.path(fmt.Sprintf("fold-%d", fold+1)) }

// crossScore trains without the images of a fold, which are every so many-th of order, and scores those.
func (r *run) crossScore(ctx context.Context, fold int, order []int) ([]float64, error) {
	part := &run{config: r.config, opt: r.opt, cache: r.cache, set: &dataset.Set{Category: r.set.Category, Layout: r.set.Layout}}
	defer part.close()
	part.config.Calibration, part.config.Select = 0, SelectLast
	part.opt.Out, part.opt.Resume, part.opt.Overwrite = r.foldFolder(fold), true, false
	part.opt.OnEpoch = nil
	if r.opt.OnStep != nil {
		part.opt.OnStep = func(report StepReport) {
			report.Fold, report.Folds = fold+1, r.folds
			r.opt.OnStep(report)
		}
	}
	var out []dataset.Item
	for i, at := range order {
		if i%r.folds == fold {
			out = append(out, r.items[at])
		} else {
			part.set.Train = append(part.set.Train, r.items[at])
		}
	}
	if err := part.prepare(ctx); err != nil {
		return nil, fmt.Errorf("%w (training %d of %d for the calibration)", err, fold+1, r.folds)
	}
	if own, found := r.model.Info.Teacher, part.model.Info.Teacher; own != found {
		return nil, wrong("teacher", part.opt.Teacher, "the model has the teacher %s, the training for its calibration found %s: name the model's",
			own.Origin, found.Origin)
	}
	if err := part.learn(ctx); err != nil {
		return nil, fmt.Errorf("%w (training %d of %d for the calibration)", err, fold+1, r.folds)
	}
	if err := part.saveCheckpoint(); err != nil {
		r.opt.Log.Warn("no checkpoint", "error", err)
	}
	model := part.outcome()
	if err := model.balance(ctx, part.items, r.cache); err != nil {
		return nil, err
	}
	return model.scores(ctx, out, r.cache)
}
