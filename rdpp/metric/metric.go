// Package metric measures how well anomaly scores tell defects from good parts, over images and over pixels, and
// outlines the defects of an anomaly map. A higher score always means more anomalous.
//
// Every figure is exact: scores are sorted once and each distinct score is a threshold. What has no answer (a single
// class, no scores, a NaN) is an error, never a 0 or a 1. The functions are safe for concurrent use; Pixels is not.
package metric

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
)

// The reasons for which a metric has no value. Errors of this package wrap one of them.
var (
	ErrEmpty     = errors.New("metric: no scores")
	ErrLength    = errors.New("metric: lengths differ")
	ErrNaN       = errors.New("metric: score is NaN or infinite")
	ErrOneClass  = errors.New("metric: only one class, both good and defective samples are needed")
	ErrLimit     = errors.New("metric: limit of the false positive rate is outside (0, 1]")
	ErrUndefined = errors.New("metric: the released PRO is undefined")
)

// AUROC is the area under the ROC curve: the probability that a positive sample scores above a negative one, ties
// counting half. positive holds one entry per score.
func AUROC(scores []float64, positive []bool) (float64, error) {
	c, err := newCurve(scores, positive)
	if err != nil {
		return 0, err
	}
	return c.auroc(), nil
}

// AveragePrecision is the mean over positive samples of the precision at their score taken as the threshold, without
// interpolation. positive holds one entry per score.
func AveragePrecision(scores []float64, positive []bool) (float64, error) {
	c, err := newCurve(scores, positive)
	if err != nil {
		return 0, err
	}
	return c.averagePrecision(), nil
}

// F1Max is the largest F1 score over all thresholds, and the highest threshold that reaches it when samples at or above
// the threshold are called positive. positive holds one entry per score.
func F1Max(scores []float64, positive []bool) (f1, threshold float64, err error) {
	c, err := newCurve(scores, positive)
	if err != nil {
		return 0, 0, err
	}
	f1, threshold = c.f1Max()
	return f1, threshold, nil
}

// curve is what all threshold metrics are functions of: how many samples of each class have each distinct score.
type curve struct {
	steps                iter.Seq[step] // from the highest score to the lowest
	positives, negatives int            // in all; neither is 0
}

type step struct {
	score                float64
	positives, negatives int // samples with exactly this score
}

func newCurve(scores []float64, positive []bool) (curve, error) {
	if len(scores) != len(positive) {
		return curve{}, fmt.Errorf("%w: %d scores and %d labels", ErrLength, len(scores), len(positive))
	}
	type sample struct {
		score    float64
		positive bool
	}
	samples := make([]sample, len(scores))
	positives := 0
	for i, s := range scores {
		if math.IsNaN(s) || math.IsInf(s, 0) {
			return curve{}, fmt.Errorf("%w: score %d is %g", ErrNaN, i, s)
		}
		samples[i] = sample{s, positive[i]}
		if positive[i] {
			positives++
		}
	}
	if err := checkClasses(positives, len(scores)-positives); err != nil {
		return curve{}, err
	}
	slices.SortFunc(samples, func(a, b sample) int { return cmp.Compare(b.score, a.score) })
	steps := func(yield func(step) bool) {
		for i := 0; i < len(samples); {
			s := step{score: samples[i].score}
			for ; i < len(samples) && samples[i].score == s.score; i++ {
				if samples[i].positive {
					s.positives++
				} else {
					s.negatives++
				}
			}
			if !yield(s) {
				return
			}
		}
	}
	return curve{steps, positives, len(scores) - positives}, nil
}

func checkClasses(positives, negatives int) error {
	switch {
	case positives+negatives == 0:
		return ErrEmpty
	case positives == 0:
		return fmt.Errorf("%w: all %d are good", ErrOneClass, negatives)
	case negatives == 0:
		return fmt.Errorf("%w: all %d are defective", ErrOneClass, positives)
	}
	return nil
}

func (c curve) auroc() float64 {
	// Twice the number of correctly ordered pairs, so that ties, worth a half, stay integers.
	pairs, above := 0, 0
	for s := range c.steps {
		pairs += s.negatives * (2*above + s.positives)
		above += s.positives
	}
	return float64(pairs) / (2 * float64(c.positives) * float64(c.negatives))
}

func (c curve) averagePrecision() float64 {
	sum, tp, called := 0.0, 0, 0
	for s := range c.steps {
		tp += s.positives
		called += s.positives + s.negatives
		sum += float64(s.positives) * float64(tp) / float64(called)
	}
	return sum / float64(c.positives)
}

func (c curve) f1Max() (f1, threshold float64) {
	tp, called := 0, 0
	for s := range c.steps {
		tp += s.positives
		called += s.positives + s.negatives
		if f := 2 * float64(tp) / float64(called+c.positives); f > f1 {
			f1, threshold = f, s.score
		}
	}
	return f1, threshold
}
