package anomaly

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"rdpp/rdpp/metric"
	"rdpp/rdpp/setting"
)

// ErrDamaged ends errors about what cannot stand in a file that rdpp wrote.
var ErrDamaged = errors.New("the file is damaged; restore it or train again")

// Scores are what a method says of images.
type Scores struct {
	Images []float64 // image scores, ascending
	Maps   []float64 // the maps' maxima, ascending; nil: the image scores are these
}

// maxima of the maps.
func (s Scores) maxima() []float64 {
	if s.Maps == nil {
		return s.Images
	}
	return s.Maps
}

// Calibration turns scores into verdicts. It is made from images of good parts alone. An image's score and its map are two
// things, each with a threshold by the same rule.
type Calibration struct {
	Rule        string  `json:"rule"`        // where the threshold comes from, in words
	Provisional bool    `json:"provisional"` // the rule is a stand-in, no rate of false alarms is promised
	FalseAlarm  float64 `json:"false_alarm"` // share of good images that may be called anomalous; 0: none is promised
	Exact       bool    `json:"exact"`       // the rate is conformal, instead of a fit of the tail
	Threshold   float64 `json:"threshold"`   // a score above it is anomalous
	// PixelThreshold is what the peaks of outlined regions of the map are above, see Outline. By the same rule at most that share of good images
	// have pixels above it. Where a score is its map's maximum, calibrating leads to the same number.
	PixelThreshold float64   `json:"pixel_threshold"`
	Folds          int       `json:"folds,omitempty"`      // trainings that scored the images which each had left out; 0: the model did
	LeftOut        bool      `json:"left_out,omitempty"`   // each image was scored by a map that the others had set the weights of, which makes no rate exact
	Scores         []float64 `json:"scores"`               // of good images that were not trained on (Provisional: that were), ascending
	MapScores      []float64 `json:"map_scores,omitempty"` // the maxima of their maps, ascending; nil: Scores are these

	outlinesAll bool // good images have outlines too
	regions     RegionOptions
}

// Provisional is the calibration where no images were held out: scores are of the training images.
func Provisional(scores Scores) Calibration {
	last := len(scores.Images) - 1
	return Calibration{Rule: provisionalRule, Provisional: true, Threshold: scores.Images[last],
		PixelThreshold: scores.maxima()[last], Scores: scores.Images, MapScores: scores.Maps}
}

const provisionalRule = "highest score among the training images"

// Calibrate sets the thresholds for a rate of false alarms by scores of good images: of images that the model was not
// trained on or, with folds, of those that each of so many other trainings left out. The latter promise nothing exactly,
// as they are not this model's; nor do scores by maps whose weights the other images set (leftOut), which an image to come
// is not scored by, if nearly. Errors are metric.Calibrate's.
func Calibrate(scores Scores, rate float64, folds int, leftOut bool) (Calibration, error) {
	t, err := metric.Calibrate(scores.Images, rate)
	if err != nil {
		return Calibration{}, fmt.Errorf("anomaly: calibration: %w", err)
	}
	pixels := t
	if scores.Maps != nil {
		if pixels, err = metric.Calibrate(scores.Maps, rate); err != nil {
			return Calibration{}, fmt.Errorf("anomaly: calibration of the map: %w", err)
		}
	}
	n := len(scores.Images)
	c := Calibration{FalseAlarm: rate, Exact: t.Exact && folds == 0 && !leftOut, Threshold: t.Value, PixelThreshold: pixels.Value,
		Folds: folds, LeftOut: leftOut, Scores: scores.Images, MapScores: scores.Maps}
	switch {
	case c.Exact:
		c.Rule = fmt.Sprintf("at most %s"+lieAbove+" (split conformal, %d images that were not trained on)", percent(rate), n)
	case t.Exact && folds == 0:
		c.Rule = fmt.Sprintf("some %s"+lieAbove+", by the rank among %d images that were not trained on, each scored by a map "+
			"that the others weighted", percent(rate), n)
	case t.Exact:
		c.Rule = fmt.Sprintf("some %s"+lieAbove+", by the rank among %d images, each scored by a training that left it out",
			percent(rate), n)
	default:
		left := "that were not trained on "
		if folds > 0 {
			left = "each scored by a training that left it out "
		}
		c.Rule = fmt.Sprintf("some %s"+lieAbove+", by a robust log-normal fit of the tail: %d images %sare too few for an exact rate, "+
			"which needs %d", percent(rate), n, left, t.Needed)
	}
	return c, nil
}

// lieAbove is in every rule that promises a rate.
const lieAbove = " of good images lie above it"

func percent(share float64) string { return fmt.Sprintf("%.3g %%", 100*share) }

func (c *Calibration) scores() Scores { return Scores{c.Scores, c.MapScores} }

// At is the calibration for another rate of false alarms. It is an error where the model has no scores to calibrate
// with: none but those of images that it was trained on.
func (c *Calibration) At(rate float64) (Calibration, error) {
	if c.Provisional || len(c.Scores) == 0 {
		return Calibration{}, setting.Refuse("false_alarm", rate, "the model holds no scores of images that it was not trained on, or too few, so it knows no rate: "+
			"train with {calibration}, or give a {threshold}")
	}
	return Calibrate(c.scores(), rate, c.Folds, c.LeftOut)
}

// PValue is how rare a score is among good images, above 0 to 1; nil where that is not known. See metric.PValue.
func (c *Calibration) PValue(score float64) *float64 {
	if c.Provisional || len(c.Scores) == 0 {
		return nil
	}
	return new(metric.PValue(c.Scores, score))
}

// bounds says whether the p-value of a score is a bound: that of every score above all those of the calibration.
func (c *Calibration) bounds(score float64) bool {
	return c.PValue(score) != nil && score > c.Scores[len(c.Scores)-1]
}

// Override is the calibration with other rates and thresholds in place of its own, where they are given (not nil): a
// threshold of scores is one of the map too, unless that is given. A rate without scores to set a threshold by is
// setting.ErrValue.
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
			other.Scores, other.MapScores = nil, nil
		}
		other.Rule, other.Provisional, other.FalseAlarm, other.Exact = "given", false, 0, false
		other.Threshold = *threshold
		if c.MapScores == nil { // else a score says nothing of the map
			other.PixelThreshold = *threshold
		}
	}
	if pixelThreshold != nil {
		other.PixelThreshold, other.outlinesAll = *pixelThreshold, true
	}
	return other, nil
}

// RegionOptions choose among the regions of maps. Zero: all of them, as far as they reach by Outline's rule.
type RegionOptions struct {
	// Low is the level of the map that regions reach down to whose peak is above the threshold of pixels; nil: Outline's rule, or
	// where a threshold of pixels was given, that.
	Low       *float64
	MinArea   int // smaller regions are left out, pixels of the image
	MinLength int // so are those whose box's longer side is shorter
}

// Choose is the calibration with such a choice among regions. What is out of range is setting.ErrValue.
func (c *Calibration) Choose(o RegionOptions) (Calibration, error) {
	switch {
	case o.Low != nil && !(*o.Low >= 0 && *o.Low <= math.MaxFloat64):
		return Calibration{}, setting.Refuse("region_low", *o.Low, "use a number of 0 or more")
	case o.MinArea < 0:
		return Calibration{}, setting.Refuse("min_area", o.MinArea, "use 0 or more pixels")
	case o.MinLength < 0:
		return Calibration{}, setting.Refuse("min_length", o.MinLength, "use 0 or more pixels")
	}
	other := *c
	other.regions = o
	return other, nil
}

// RegionOptions is the choice in force.
func (c *Calibration) RegionOptions() RegionOptions { return c.regions }

// outlineShare is the share of its height at which a hill of the map is cut, see metric.Outline.
const outlineShare = 0.5

// Outline is what of an image's map is outlined. Verdict and outlines must not contradict each other: a good image has none,
// and an anomalous one has some, where a score is no higher than its map's maximum and no choice leaves them out. Every region's
// peak is above the threshold of pixels. It ends at a share of its height, but not below the maximum of the map of a good image
// of the middle. blur is method.Settings.Blur. Levels that Override and Choose were given are followed as they are, and such a
// threshold of pixels whatever the verdict.
func (c *Calibration) Outline(v Verdict, blur float64) metric.Outline {
	o := metric.Outline{Above: c.PixelThreshold, MinArea: c.regions.MinArea, MinLength: c.regions.MinLength}
	switch {
	case c.outlinesAll:
	case !v.Anomalous:
		o.Above = math.Inf(1)
	default:
		o.Above = min(c.PixelThreshold, v.Score)
	}
	switch maxima := c.scores().maxima(); {
	case c.regions.Low != nil:
		o.Low = *c.regions.Low
	case c.outlinesAll:
		o.Low = c.PixelThreshold
	default:
		o.Low, o.Share, o.Blur = c.PixelThreshold, outlineShare, blur
		if len(maxima) > 0 && !c.Provisional {
			o.Low = maxima[len(maxima)/2]
		}
	}
	return o
}

// Complete fills in what files of before a field was there lack.
func (c *Calibration) Complete() {
	if c.PixelThreshold == 0 {
		c.PixelThreshold = c.Threshold
	}
}

// Check says what of a model file's calibration cannot be. most is the highest score that the model can give, +Inf where
// there is no bound.
func (c *Calibration) Check(most float64) error {
	most += 1e-3 * (1 + most) // scores are rounded
	for _, scores := range [][]float64{c.Scores, c.MapScores} {
		least := -1e-3
		for i, score := range scores {
			if !(score >= least && score <= most) || math.IsInf(score, 1) {
				return fmt.Errorf("calibration: score %d of %d is %v, not ascending within 0 and %.6g, %w", i+1, len(scores), score, most, ErrDamaged)
			}
			least = score
		}
	}
	switch {
	case c.MapScores != nil && len(c.MapScores) != len(c.Scores):
		return fmt.Errorf("calibration: %d scores of maps beside %d of images cannot be, %w", len(c.MapScores), len(c.Scores), ErrDamaged)
	case !(c.FalseAlarm >= 0 && c.FalseAlarm < 1) || c.Folds < 0:
		return fmt.Errorf("calibration: a rate of %v by %d trainings cannot be, %w", c.FalseAlarm, c.Folds, ErrDamaged)
	case !(c.Threshold >= 0 && c.PixelThreshold >= 0) || math.IsInf(max(c.Threshold, c.PixelThreshold), 1):
		return fmt.Errorf("calibration: thresholds of %v and %v cannot be, %w", c.Threshold, c.PixelThreshold, ErrDamaged)
	}
	if err := c.checkRate(); err != nil {
		return fmt.Errorf("calibration: %w, %w", err, ErrDamaged)
	}
	remade, same := c.remade()
	switch {
	case !same && strings.Contains(c.Rule, lieAbove) && !strings.Contains(c.Rule, earlierFit):
		return fmt.Errorf("calibration: its rule, %.200q, is not what its scores give, %w", c.Rule, ErrDamaged)
	case same && (math.Abs(remade.Threshold-c.Threshold) > 1e-6*remade.Threshold || remade.Exact != c.Exact):
		return fmt.Errorf("calibration: a threshold of %v is not what its scores give, %v, %w", c.Threshold, remade.Threshold, ErrDamaged)
	case same && c.MapScores != nil && math.Abs(remade.PixelThreshold-c.PixelThreshold) > 1e-6*remade.PixelThreshold:
		return fmt.Errorf("calibration: a threshold of pixels of %v is not what the maps' scores give, %v, %w", c.PixelThreshold,
			remade.PixelThreshold, ErrDamaged)
	case !same && c.Threshold > most, c.PixelThreshold > max(most, c.Threshold):
		return fmt.Errorf("calibration: thresholds of %v and %v are above all scores that there can be, %w", c.Threshold, c.PixelThreshold,
			ErrDamaged)
	}
	return nil
}

// earlierFit is in the rule of versions that fitted the tail otherwise.
const earlierFit = "by a log-normal fit of the tail"

// checkRate holds the rate of false alarms against the rule, which names it where it promises one.
func (c *Calibration) checkRate() error {
	most, some := "at most "+percent(c.FalseAlarm)+lieAbove, "some "+percent(c.FalseAlarm)+lieAbove
	promised := strings.Contains(c.Rule, lieAbove) || strings.HasPrefix(c.Rule, "at most ") || strings.HasPrefix(c.Rule, "some ")
	switch {
	case c.Provisional && (promised || c.FalseAlarm != 0 || c.Exact):
		return fmt.Errorf("a rate of %v beside a provisional rule cannot be", c.FalseAlarm)
	case promised && (c.FalseAlarm == 0 || !strings.HasPrefix(c.Rule, most) && !strings.HasPrefix(c.Rule, some)):
		return fmt.Errorf("a rate of %v is not that of its rule, %.200q", c.FalseAlarm, c.Rule)
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
		return Provisional(c.scores()), strings.HasPrefix(c.Rule, "highest score")
	}
	remade, err := Calibrate(c.scores(), c.FalseAlarm, c.Folds, c.LeftOut)
	return remade, err == nil && remade.Rule == c.Rule
}

// Join are the scores of several sets of images. Where the maps of some have maxima of their own, all have.
func Join(parts []Scores) (all Scores) {
	own := slices.ContainsFunc(parts, func(s Scores) bool { return s.Maps != nil })
	for _, s := range parts {
		all.Images = append(all.Images, s.Images...)
		if own {
			all.Maps = append(all.Maps, s.maxima()...)
		}
	}
	slices.Sort(all.Images)
	slices.Sort(all.Maps)
	return all
}
