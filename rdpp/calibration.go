package rdpp

import (
	"fmt"

	"rdpp/rdpp/metric"
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
	Folds          int       `json:"folds,omitempty"` // trainings that scored the images which each had left out; 0: the model did
	Scores         []float64 `json:"scores"`          // of good images that were not trained on (Provisional: that were), ascending
}

// provisional is the calibration where no images were held out: scores are of the training images, ascending.
func provisional(scores []float64) Calibration {
	highest := scores[len(scores)-1]
	return Calibration{Rule: "highest score among the training images", Provisional: true, Threshold: highest,
		PixelThreshold: highest, Scores: scores}
}

// calibrate sets the thresholds for a rate of false alarms by scores of good images that were not trained on, ascending.
func calibrate(scores []float64, rate float64) (Calibration, error) {
	t, err := metric.Calibrate(scores, rate)
	if err != nil {
		return Calibration{}, fmt.Errorf("rdpp: calibration: %w", err)
	}
	c := Calibration{FalseAlarm: rate, Exact: t.Exact, Threshold: t.Value, PixelThreshold: t.Value, Scores: scores}
	if t.Exact {
		c.Rule = fmt.Sprintf("at most %s of good images lie above it (split conformal, %d images that were not trained on)",
			percent(rate), len(scores))
	} else {
		c.Rule = fmt.Sprintf("some %s of good images lie above it, by a log-normal fit of the tail: %d images that were not trained on "+
			"are too few for an exact rate, which needs %d", percent(rate), len(scores), t.Needed)
	}
	return c, nil
}

func percent(share float64) string { return fmt.Sprintf("%.3g %%", 100*share) }

// At is the calibration for another rate of false alarms. It is an error where the model has no scores to calibrate
// with: none but those of images that it was trained on.
func (c *Calibration) At(rate float64) (Calibration, error) {
	if c.Provisional || len(c.Scores) == 0 {
		return Calibration{}, fmt.Errorf("rdpp: %w: the model was trained without images held out for a calibration, so it knows no rate "+
			"of false alarms; train with --calibration, or give a threshold", ErrConfig)
	}
	other, err := calibrate(c.Scores, rate)
	other.Folds = c.Folds
	return other, err
}

// PValue is how rare a score is among good images, above 0 to 1; nil where that is not known. See metric.PValue.
func (c *Calibration) PValue(score float64) *float64 {
	if c.Provisional || len(c.Scores) == 0 {
		return nil
	}
	return new(metric.PValue(c.Scores, score))
}

// override puts other rates and thresholds in place of the model's own, where they are given.
func (c *Calibration) override(rate, threshold, pixelThreshold *float64) (Calibration, error) {
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
