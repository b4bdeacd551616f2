package metric

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mathext"
)

// Interval is the Clopper-Pearson confidence interval of a probability of which n independent trials showed k successes:
// at any true probability, an interval made this way holds it in at least the share confidence (0 to 1, both excluded) of
// all experiments. Without trials it is 0 to 1. For anything but 0 <= k <= n and a confidence in range it is NaN to NaN.
func Interval(k, n int, confidence float64) (low, high float64) {
	if k < 0 || k > n || !(confidence > 0 && confidence < 1) {
		return math.NaN(), math.NaN()
	}
	tail := (1 - confidence) / 2
	low, high = 0, 1
	if k > 0 {
		low = mathext.InvRegIncBeta(float64(k), float64(n-k+1), tail)
	}
	if k < n {
		high = mathext.InvRegIncBeta(float64(k+1), float64(n-k), 1-tail)
	}
	return low, high
}

// IntervalText writes an interval of a share, such as Interval's, in percent with one decimal: "0.4 to 9.0 %". The lower end
// is rounded down and the upper one up, so that the text claims no more than the numbers do.
func IntervalText(low, high float64) string {
	const dust = 1e-9 // what a decimal number misses in binary must not move an end by a tenth
	return fmt.Sprintf("%.1f to %.1f %%", math.Floor(1000*low+dust)/10, math.Ceil(1000*high-dust)/10)
}
