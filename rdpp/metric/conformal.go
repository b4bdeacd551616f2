package metric

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// The reasons for which a threshold cannot be calibrated.
var (
	ErrRate   = errors.New("metric: rate of false alarms is outside (0, 1)")
	ErrTooFew = errors.New("metric: too few scores")
)

// PValue is how rare a score is among n scores of good images, which are sorted ascending: (1 + number of those that
// are not below it) / (n + 1). Of images exchangeable with those it is at most a with a probability of at most a, for
// every a (split conformal prediction: Vovk et al., 2005).
func PValue(sorted []float64, score float64) float64 {
	below, _ := slices.BinarySearch(sorted, score)
	return float64(1+len(sorted)-below) / float64(len(sorted)+1)
}

// Threshold is a bound that scores of good images exceed at a rate.
type Threshold struct {
	Value float64 // scores above it are anomalous
	// Exact says that these are the scores whose PValue is at most the rate. Otherwise there are too few scores of good
	// images for any to have one, and the value comes from a fit of their tail.
	Exact  bool
	Needed int // how many scores make the rate exact
}

// Calibrate returns the threshold for a rate of false alarms from the scores of n good images, sorted ascending. An
// exact one needs n >= 1/rate - 1. With fewer it is an upper prediction bound for one more normally distributed value,
// by Student's t: mean + t(n - 1, 1 - rate) * deviation * sqrt(1 + 1/n), of the logarithms of the scores, or where some
// are not positive of the scores themselves, and not below the highest of them. It is ErrRate for a rate outside (0, 1),
// ErrTooFew for fewer than two scores where more are needed, or so few that the bound is beyond all numbers, and ErrNaN for scores that are not finite.
func Calibrate(sorted []float64, rate float64) (Threshold, error) {
	if !(rate > 0 && rate < 1) {
		return Threshold{}, fmt.Errorf("%w: %g", ErrRate, rate)
	}
	n := len(sorted)
	for _, s := range sorted {
		if math.IsNaN(s) || math.IsInf(s, 0) {
			return Threshold{}, fmt.Errorf("%w: a score to calibrate with is %g", ErrNaN, s)
		}
	}
	const slack = 1e-9 // for rates such as 0.01 that binary fractions only come near to
	t := Threshold{Needed: int(min(math.Ceil(1/rate-slack), 1<<53)) - 1}
	if n >= t.Needed && n > 0 {
		above := min(int(rate*float64(n+1)+slack)-1, n-1) // scores that may lie above
		t.Value, t.Exact = sorted[n-1-above], true
		return t, nil
	}
	if n < 2 {
		return Threshold{}, fmt.Errorf("%w: %d; at least 2 are needed", ErrTooFew, n)
	}
	t.Value = max(tailBound(sorted, rate), sorted[n-1])
	if !(t.Value <= math.MaxFloat32) {
		return Threshold{}, fmt.Errorf("%w: %d cannot bound a rate of %g; use a higher one", ErrTooFew, n, rate)
	}
	return t, nil
}

// tailBound is Calibrate's bound for few scores.
func tailBound(sorted []float64, rate float64) float64 {
	to, from := math.Log, math.Exp
	if sorted[0] <= 0 {
		to = func(x float64) float64 { return x }
		from = to
	}
	n, mean, squares := float64(len(sorted)), 0.0, 0.0
	for _, s := range sorted {
		mean += to(s) / n
	}
	for _, s := range sorted {
		squares += (to(s) - mean) * (to(s) - mean)
	}
	deviation := math.Sqrt(squares / (n - 1))
	return from(mean + studentUpper(n-1, rate)*deviation*math.Sqrt(1+1/n))
}

// studentUpper is what Student's t with so many degrees of freedom exceeds with a probability of p. It is the mirror image of a
// lower quantile, because 1 - p would lose the digits of a small p.
func studentUpper(freedom, p float64) float64 {
	return -distuv.StudentsT{Sigma: 1, Nu: freedom}.Quantile(p)
}
