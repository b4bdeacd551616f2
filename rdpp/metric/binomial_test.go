package metric

import (
	"fmt"
	"math"
	"testing"
)

func TestInterval(t *testing.T) {
	const digits = 5e-9 // of the figures that are not closed formulas
	for _, c := range []struct {
		k, n       int
		confidence float64
		low, high  float64
	}{
		{0, 60, 0.95, 0, 1 - math.Pow(0.025, 1./60)},
		{60, 60, 0.95, math.Pow(0.025, 1./60), 1},
		{0, 1, 0.9, 0, 0.95},
		{1, 1, 0.9, 0.05, 1},
		{1, 2, 0.95, 1 - math.Sqrt(0.975), math.Sqrt(0.975)},
		{1, 10, 0.95, 0.00252858, 0.44501612},
		{9, 10, 0.95, 1 - 0.44501612, 1 - 0.00252858},
		{0, 1_000_000, 0.99, 0, -math.Expm1(math.Log(0.005) / 1e6)},
		{0, 0, 0.95, 0, 1},
	} {
		low, high := Interval(c.k, c.n, c.confidence)
		if !(math.Abs(low-c.low) <= digits && math.Abs(high-c.high) <= digits) {
			t.Errorf("%d of %d at %g: got %.9f to %.9f, want %.9f to %.9f", c.k, c.n, c.confidence, low, high, c.low, c.high)
		}
	}
	nan := math.NaN()
	for _, c := range []struct {
		k, n       int
		confidence float64
	}{{-1, 5, 0.95}, {6, 5, 0.95}, {1, 0, 0.95}, {0, -1, 0.95}, {1, 5, 0}, {1, 5, 1}, {1, 5, -0.5}, {1, 5, nan}} {
		if low, high := Interval(c.k, c.n, c.confidence); !math.IsNaN(low) || !math.IsNaN(high) {
			t.Errorf("%d of %d at %g: got %g to %g, want NaN to NaN", c.k, c.n, c.confidence, low, high)
		}
	}
}

// TestIntervalAgainstDefinition: at the lower end, k or more successes have the probability of a tail, at the upper end
// k or fewer; the sums are written out.
func TestIntervalAgainstDefinition(t *testing.T) {
	const tolerance = 1e-9 // relative, of the tail
	for _, n := range []int{1, 2, 3, 7, 20, 60, 209, 1000, 20000} {
		for _, confidence := range []float64{0.5, 0.9, 0.95, 0.999} {
			tail := (1 - confidence) / 2
			for k := 0; k <= n; k += max(1, n/13) {
				low, high := Interval(k, n, confidence)
				if k > 0 {
					if got := binomialSum(low, k, n, n); math.Abs(got/tail-1) > tolerance {
						t.Errorf("%d of %d at %g: lower end %g: got a tail of %g, want %g", k, n, confidence, low, got, tail)
					}
				}
				if k < n {
					if got := binomialSum(high, 0, k, n); math.Abs(got/tail-1) > tolerance {
						t.Errorf("%d of %d at %g: upper end %g: got a tail of %g, want %g", k, n, confidence, high, got, tail)
					}
				}
				if mirrorLow, mirrorHigh := Interval(n-k, n, confidence); math.Abs(mirrorLow+high-1) > tolerance || math.Abs(mirrorHigh+low-1) > tolerance {
					t.Errorf("%d of %d at %g: got %g to %g, not the mirror image of %g to %g", k, n, confidence, low, high, mirrorLow, mirrorHigh)
				}
			}
		}
	}
}

// binomialSum is the probability of from to to successes in n trials.
func binomialSum(p float64, from, to, n int) float64 {
	sum, lnChoose := 0.0, 0.0 // the logarithm of n over k
	for k := 0; k <= to; k++ {
		if k > 0 {
			lnChoose += math.Log(float64(n-k+1)) - math.Log(float64(k))
		}
		if k >= from {
			sum += math.Exp(lnChoose + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
		}
	}
	return sum
}

func TestIntervalText(t *testing.T) {
	for _, c := range []struct {
		low, high float64
		want      string
	}{
		{0, 1, "0.0 to 100.0 %"},
		{0.0004, 0.0894, "0.0 to 9.0 %"},
		{0.05, 0.95, "5.0 to 95.0 %"},
		{0.0999, 0.1001, "9.9 to 10.1 %"},
		{0.29, 0.58, "29.0 to 58.0 %"}, // 0.29 * 1000 is a little below 290, 0.58 * 1000 below 580
		{0.057, 0.07, "5.7 to 7.0 %"},  // 0.057 * 1000 is a little above 57, 0.07 * 1000 above 70
		{0, 3.7e-6, "0.0 to 0.1 %"},
		{0.999999, 1, "99.9 to 100.0 %"},
	} {
		if got := IntervalText(c.low, c.high); got != c.want {
			t.Errorf("%g to %g: got %s, want %s", c.low, c.high, got, c.want)
		}
	}
	for n := 1; n <= 300; n++ {
		for k := 0; k <= n; k++ {
			low, high := Interval(k, n, 0.95)
			var a, b float64
			if _, err := fmt.Sscanf(IntervalText(low, high), "%f to %f %%", &a, &b); err != nil {
				t.Fatal(err)
			}
			if a > 100*low+1e-9 || b < 100*high-1e-9 || a <= 100*low-0.1 || b >= 100*high+0.1 {
				t.Fatalf("%d of %d: got %g to %g, want the tenths around %g to %g", k, n, a, b, 100*low, 100*high)
			}
		}
	}
}

func ExampleInterval() {
	low, high := Interval(1, 60, 0.95) // one false alarm among 60 good images
	fmt.Printf("%.4f to %.4f: %s\n", low, high, IntervalText(low, high))
	// Output: 0.0004 to 0.0894: 0.0 to 9.0 %
}
