// Package metric measures how well anomaly scores tell defects from good parts, over images and over pixels, and
// outlines the defects of an anomaly map. A higher score always means more anomalous. Interval says how sure a measured
// rate is.
//
// Every figure is exact: scores are sorted once and each distinct score is a threshold. What has no answer (a single
// class, no scores, a NaN) is an error, never a 0 or a 1. The functions are safe for concurrent use; Pixels is not.
package metric

import (
	"cmp"
	"errors"
	"fmt"
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
	ErrPoints    = errors.New("metric: a curve needs at least 2 points")
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

// curve is what all threshold metrics are functions of: the scores of both classes, sorted. Scores stand as keys, which
// are the smaller the higher the score; equal keys are tied.
type curve struct {
	good      []uint32                 // keys, ascending
	defective []uint64                 // a key in the high half, the number of the region in the low one; ascending by key
	score     func(key uint32) float64 // undoes the encoding
	share     []float64                // what a sample of each region adds to the mean overlap; nil: there are no regions
}

// step is what calling all samples at or above score positive finds.
type step struct {
	score          float64 // of at least one defective sample
	above          int     // good samples above score
	falsePositives int     // good samples at or above it
	truePositives  int     // defective samples at or above it
	overlap        float64 // share of a region found, mean over regions
}

func newCurve(scores []float64, positive []bool) (curve, error) {
	if len(scores) != len(positive) {
		return curve{}, fmt.Errorf("%w: %d scores and %d labels", ErrLength, len(scores), len(positive))
	}
	positives := 0
	for i, s := range scores {
		if math.IsNaN(s) || math.IsInf(s, 0) {
			return curve{}, fmt.Errorf("%w: score %d is %g", ErrNaN, i, s)
		}
		if positive[i] {
			positives++
		}
	}
	if err := checkClasses(positives, len(scores)-positives); err != nil {
		return curve{}, err
	}
	descending := func(a, b float64) int { return cmp.Compare(b, a) }
	levels := slices.Clone(scores)
	slices.SortFunc(levels, descending)
	levels = slices.Compact(levels)
	c := curve{
		good:      make([]uint32, 0, len(scores)-positives),
		defective: make([]uint64, 0, positives),
		score:     func(key uint32) float64 { return levels[key] },
	}
	for i, s := range scores {
		key, _ := slices.BinarySearchFunc(levels, s, descending)
		if positive[i] {
			c.defective = append(c.defective, uint64(key)<<32)
		} else {
			c.good = append(c.good, uint32(key))
		}
	}
	slices.Sort(c.good)
	slices.Sort(c.defective)
	return c, nil
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

// steps walks the scores of defective samples from the highest down. No metric changes for the better at any other.
func (c curve) steps(yield func(step) bool) {
	overlap, g := 0.0, 0
	for d := 0; d < len(c.defective); {
		key := uint32(c.defective[d] >> 32)
		for g < len(c.good) && c.good[g] < key {
			g++
		}
		above := g
		for g < len(c.good) && c.good[g] == key {
			g++
		}
		for ; d < len(c.defective) && uint32(c.defective[d]>>32) == key; d++ {
			if c.share != nil {
				overlap += c.share[uint32(c.defective[d])]
			}
		}
		if !yield(step{c.score(key), above, g, d, overlap}) {
			return
		}
	}
}

func (c curve) auroc() float64 {
	// Twice the number of correctly ordered pairs, so that ties, worth a half, stay integers.
	pairs, last := 0, 0
	for s := range c.steps {
		pairs += (s.truePositives - last) * (2*len(c.good) - s.above - s.falsePositives)
		last = s.truePositives
	}
	return float64(pairs) / (2 * float64(len(c.defective)) * float64(len(c.good)))
}

func (c curve) averagePrecision() float64 {
	sum, last := 0.0, 0
	for s := range c.steps {
		sum += float64(s.truePositives-last) * float64(s.truePositives) / float64(s.truePositives+s.falsePositives)
		last = s.truePositives
	}
	return sum / float64(len(c.defective))
}

func (c curve) f1Max() (f1, threshold float64) {
	for s := range c.steps {
		if f := 2 * float64(s.truePositives) / float64(s.truePositives+s.falsePositives+len(c.defective)); f > f1 {
			f1, threshold = f, s.score
		}
	}
	return f1, threshold
}
