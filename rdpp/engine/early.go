package engine

import (
	"context"
	"fmt"
	"math"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/evaluation"
	"rdpp/rdpp/method"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/setting"
)

// A training with method.Settings.Patience stops early where it finds made-up defects on good images that are held out no better
// any more. No test image plays a part in that. Learning rates follow the number of passes, so a training that is to stop has some
// passes more, in which they fall as they would at the end.

// EarlyState is what the rule has seen.
type EarlyState struct {
	Best  float64 `json:"best"`  // highest measure so far that was a gain
	Since int     `json:"since"` // looks after it
	End   int     `json:"end"`   // passes that the training ends after; 0: it was not stopped
}

const (
	earlyLooks  = 20    // at most so many of a training
	earlyImages = 32    // that are looked at, and as many with a defect
	earlyGain   = 0.002 // least rise of the measure that counts
	earlyFall   = 0.1   // share of the passes so far that follow
	earlyLambda = 0.2   // noise of made-up defects, as in reverse.DefaultDistillation
)

// earlyEvery is after how many passes of those asked for it looks again.
func earlyEvery(asked int) int { return (asked + earlyLooks - 1) / earlyLooks }

// look takes in a measure after so many passes of those asked for, and says whether the training is to stop.
func (s *EarlyState) look(measure float64, passes, asked, patience int) bool {
	if measure >= s.Best+earlyGain {
		*s = EarlyState{Best: measure}
		return false
	}
	if s.Since++; s.Since < patience {
		return false
	}
	end := passes + int(math.Ceil(earlyFall*float64(passes)))
	if end >= asked {
		return false
	}
	s.End = end
	return true
}

// sound says whether the state can be that of a run of so many passes.
func (s *EarlyState) sound(asked int) bool {
	return s.Best >= 0 && s.Best <= 1 && s.Since >= 0 && s.End >= 0 && s.End <= asked
}

// last is how many passes a run has of which so many are asked for.
func (s *RunState) last(asked int) int {
	if s.Early.End > 0 {
		return s.Early.End
	}
	return asked
}

func (r *run) last() int { return r.state.last(r.config.Epochs) }

// openEarly makes the loader of what the rule looks at: images that are held out, and each with a defect, the same at every look.
func (r *run) openEarly() (err error) {
	c := &r.config
	switch {
	case c.Patience == 0:
		return nil
	case c.Epochs < 2:
		return setting.Refuse("patience", c.Patience, "a single pass over the images cannot stop early: use 0")
	case len(r.held) == 0:
		return setting.Refuse("patience", c.Patience, "it looks at good images that are held out, and none are: give at least %d good images and a {calibration} "+
			"above 0, or use 0", 3*leastHeld)
	}
	o := dataset.LoaderOptions{Batch: 4, Size: c.ImageSize, Norm: c.Norm(), Seed: method.SeedOf("early", c.Seed), Workers: r.opt.Workers, Cache: r.cache,
		Noise: dataset.NoiseOptions{Lambda: earlyLambda, Defects: 1}}
	if c.Tiled() {
		o.Tiles = dataset.TileOptions{Options: c.Tiling(), Grid: true, Most: earlyImages}
	}
	if r.early, err = dataset.NewLoader(evaluation.Spread(r.held, earlyImages), o); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}

// lookEarly measures where it is time to, and settles where the training ends. The measure goes into the epoch's report.
func (r *run) lookEarly(ctx context.Context, report *anomaly.Epoch) error {
	asked := r.config.Epochs
	if every := earlyEvery(asked); r.early == nil || r.state.Early.End > 0 || report.Epoch%every != 0 || report.Epoch == asked {
		return nil
	}
	model, err := r.outcome(ctx, false)
	if err != nil {
		return err
	}
	measure, err := r.findsMadeUp(ctx, model)
	if err != nil {
		return err
	}
	report.MadeUp = &measure
	if r.state.Early.look(measure, report.Epoch, asked, r.config.Patience) {
		r.loop.Of = r.last() * r.loader.Steps()
		r.opt.Log.Info(fmt.Sprintf("stops early, after epoch %d of %d: made-up defects on held-out images are found no better any more", r.last(), asked))
	}
	return nil
}

// findsMadeUp is the average precision of the map's values where defects are made up among all of the images that the rule looks
// at, 0 to 1.
func (r *run) findsMadeUp(ctx context.Context, model *modelfile.Model) (float64, error) {
	S := r.config.ImageSize
	var pixels metric.Pixels
	for batch, err := range r.early.Epoch(ctx, 0, 0) {
		if err != nil {
			return 0, fmt.Errorf("engine: %w", err)
		}
		for _, x := range [][]float32{batch.Clean, batch.Noisy} { // B x 3 x S x S
			maps, _, err := model.Predict(x) // B x S x S
			if err != nil {
				return 0, err
			}
			for i := range batch.B {
				mask := changed(x, batch.Clean, i, S*S)
				if err := pixels.Add(maps[i*S*S:][:S*S], mask, S, S); err != nil {
					return 0, fmt.Errorf("engine: %w", err)
				}
			}
		}
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	precision, err := pixels.AveragePrecision()
	if err != nil {
		return 0, fmt.Errorf("engine: made-up defects on held-out images: %w", err)
	}
	return precision, nil
}

// changed has 1 where image i of x, B x 3 x S x S with so many pixels, is not that of y.
func changed(x, y []float32, i, pixels int) []uint8 {
	mask := make([]uint8, pixels)
	for c := range 3 {
		from := (3*i + c) * pixels
		for p := range mask {
			if x[from+p] != y[from+p] {
				mask[p] = 1
			}
		}
	}
	return mask
}
