package engine

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

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/config"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/evaluation"
	"rdpp/rdpp/method"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
)

// leastHeld is the fewest images that are held out: with n of them no p-value is below 1/(n + 1).
const leastHeld = 10

// mostFolds bounds what a calibration of a small data set costs.
const mostFolds = 5

// shuffled is a random order of n images, by the run's seed.
func shuffled(c *config.Config, n int) []int {
	return rand.New(rand.NewPCG(method.SeedOf("calibration", c.Seed), 0)).Perm(n)
}

// holdOut parts good images into those to train on and those held out for the calibration, both in their order. Where
// that would take more than a third of them, none are held out, and folds trainings calibrate, each of which leaves out
// some of the images.
func holdOut(items []dataset.Item, c *config.Config) (kept, held []dataset.Item, folds int) {
	n := len(items)
	count := max(leastHeld, int(math.Round(c.Calibration*float64(n))))
	switch {
	case c.Calibration == 0 || n < 2:
		return items, nil, 0
	case 3*count > n:
		return items, nil, min(n, mostFolds)
	}
	out := shuffled(c, n)[:count]
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
func (r *run) calibrate(ctx context.Context, model *modelfile.Model) (anomaly.Calibration, error) {
	if r.folds > 0 {
		if c := r.calibratedBefore(model); c != nil {
			return *c, nil
		}
		scores, err := r.crossScores(ctx, model.Info.MapWeights)
		if err != nil {
			return anomaly.Calibration{}, err
		}
		return r.threshold(scores)
	}
	if len(r.held) > 0 {
		scores, err := evaluation.Scores(ctx, model, r.held, r.cache)
		if err != nil {
			return anomaly.Calibration{}, err
		}
		return r.threshold(scores)
	}
	scores, err := evaluation.Scores(ctx, model, r.items, r.cache)
	if err != nil {
		return anomaly.Calibration{}, err
	}
	return anomaly.Provisional(scores), nil
}

// calibratedBefore is the calibration of the model that this very run has written before, if it is finished again: nil
// where there is none. It saves the trainings for another one that would be the same.
func (r *run) calibratedBefore(model *modelfile.Model) *anomaly.Calibration {
	file, err := weights.OpenSafetensors(r.path(ModelFile))
	if err != nil {
		return nil
	}
	defer file.Close()
	before, _, err := modelfile.ReadInfo(file)
	if err != nil {
		return nil
	}
	now := &r.model.Info
	before.Data.Range = now.Data.Range // which older versions did not tell
	none := anomaly.MapTerms{}
	if SameConfig(before.Config, r.config) != nil || before.Teacher != now.Teacher || before.Data != now.Data || before.From != now.From || before.Calibration.Folds != r.folds ||
		before.MapWeights != model.Info.MapWeights || (before.MapLevels == none) != (model.Info.MapLevels == none) {
		return nil
	}
	return &before.Calibration
}

// threshold calibrates at the rate that was asked for. Where so few scores cannot bound it, the highest is taken, rather
// than that a training ends in an error.
func (r *run) threshold(scores anomaly.Scores) (anomaly.Calibration, error) {
	c, err := anomaly.Calibrate(scores, r.config.FalseAlarm, r.folds, false)
	if !errors.Is(err, metric.ErrTooFew) {
		return c, err
	}
	r.opt.Log.Warn("the threshold is provisional", "reason", err)
	highest := anomaly.Provisional(scores)
	highest.Rule = fmt.Sprintf("highest score of %d good images, as they are too few for the rate that was asked for", len(scores.Images))
	return highest, nil
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
	Epochs  int              `json:"epochs"`
	Weights anomaly.MapTerms `json:"map_weights"` // of the map that they are maxima of
	Scores  []float64        `json:"scores"`
	Maps    []float64        `json:"map_scores,omitempty"` // as in anomaly.Scores
}

// crossScores, of maps of the given weights, trains once per fold without the fold's images, and scores them: every training image by a model that
// has not seen it. The scores are ascending.
func (r *run) crossScores(ctx context.Context, weights anomaly.MapTerms) (all anomaly.Scores, err error) {
	var parts []anomaly.Scores
	for fold := range r.folds {
		file := r.path(fmt.Sprintf("fold-%d.json", fold+1))
		var done foldScores
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &done)
		}
		if err != nil || done.Epochs != r.config.Epochs || done.Weights != weights {
			if err := r.askFor(fold); err != nil {
				return all, err
			}
			scores, err := r.crossScore(ctx, fold)
			if err != nil {
				return all, err
			}
			done.Scores, done.Maps = scores.Images, scores.Maps
			done.Epochs, done.Weights = r.config.Epochs, weights
			if text, err = json.Marshal(done); err == nil {
				err = writeFile(file, text)
			}
			if err != nil {
				return all, err
			}
		}
		if err := removeAll([]string{r.foldFolder(fold)}); err != nil {
			return all, err
		}
		parts = append(parts, anomaly.Scores{Images: done.Scores, Maps: done.Maps})
	}
	return anomaly.Join(parts), nil
}

func (r *run) foldFolder(fold int) string { return r.path(fmt.Sprintf("fold-%d", fold+1)) }

// crossScore trains without the images of a fold, and scores those.
func (r *run) crossScore(ctx context.Context, fold int) (scores anomaly.Scores, err error) {
	part := &run{config: r.config, opt: r.opt, cache: r.cache, longest: r.longest, set: &dataset.Set{Category: r.set.Category, Layout: r.set.Layout}}
	defer part.close()
	part.config.Calibration, part.config.Select = 0, method.SelectLast
	part.opt.Out, part.opt.Resume, part.opt.Overwrite = r.foldFolder(fold), true, false
	part.opt.OnEpoch = nil
	if r.opt.OnStep != nil {
		part.opt.OnStep = func(report Step) {
			report.Fold, report.Folds = fold+1, r.folds
			r.opt.OnStep(report)
		}
	}
	var out []dataset.Item
	part.set.Train, out = r.parted(fold)
	if err := part.prepare(ctx); err != nil {
		return scores, fmt.Errorf("%w (training %d of %d for the calibration)", err, fold+1, r.folds)
	}
	if own, found := r.model.Info.Teacher, part.model.Info.Teacher; own != found {
		return scores, setting.Refuse("teacher", part.opt.Teacher, "the model has the teacher %s, the training for its calibration found %s: name the model's",
			own.Origin, found.Origin)
	}
	if err := part.learn(ctx); err != nil {
		return scores, fmt.Errorf("%w (training %d of %d for the calibration)", err, fold+1, r.folds)
	}
	if !r.opt.Peers.First() {
		return scores, nil
	}
	if err := part.saveCheckpoint(); err != nil {
		r.opt.Log.Warn("no checkpoint", "error", err)
	}
	model, err := part.outcome(ctx, true)
	if err != nil {
		return scores, err
	}
	return evaluation.Scores(ctx, model, out, r.cache)
}
