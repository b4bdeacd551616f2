package metric

import "math"

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
		low = bisect(func(p float64) bool { return incompleteBeta(p, float64(k), float64(n-k+1)) < tail })
	}
	if k < n {
		high = bisect(func(p float64) bool { return incompleteBeta(p, float64(k+1), float64(n-k)) < 1-tail })
	}
	return low, high
}

// bisect is the point of (0, 1) below which below holds and above which it does not.
func bisect(below func(float64) bool) float64 {
	low, high := 0.0, 1.0
	for {
		middle := (low + high) / 2
		if middle == low || middle == high {
			return middle
		}
		if below(middle) {
			low = middle
		} else {
			high = middle
		}
	}
}

// incompleteBeta is the regularised incomplete beta function I_x(a, b) of 0 < x < 1 and a, b > 0: for integers, the
// probability of at least a successes in a+b-1 trials that succeed with probability x.
func incompleteBeta(x, a, b float64) float64 {
	lnAB, _ := math.Lgamma(a + b)
	lnA, _ := math.Lgamma(a)
	lnB, _ := math.Lgamma(b)
	front := math.Exp(lnAB - lnA - lnB + a*math.Log(x) + b*math.Log1p(-x))
	if x > (a+1)/(a+b+2) {
		return 1 - front*betaFraction(1-x, b, a)/b // which converges faster here
	}
	return front * betaFraction(x, a, b) / a
}

// betaFraction is the continued fraction 1/(1+d1/(1+d2/(1+...))) of DLMF 8.17.22, by Lentz's method: the quotient of two
// recurrences, taken until a further term changes nothing.
func betaFraction(x, a, b float64) float64 {
	const tiny, precision = 1e-300, 1e-15
	const terms = 10_000_000 // far more than needed, which is about the square root of a+b
	value, c, d := tiny, tiny, 0.0
	for i := range terms {
		term, m := 1.0, float64(i/2)
		switch {
		case i%2 == 1:
			term = -(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1))
		case i > 0:
			term = m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m))
		}
		c, d = 1+term/c, 1+term*d
		if c == 0 {
			c = tiny
		}
		if d == 0 {
			d = tiny
		}
		d = 1 / d
		value *= c * d
		if math.Abs(c*d-1) < precision {
			break
		}
	}
	return value
}
