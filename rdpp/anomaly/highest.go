package anomaly

import "slices"

// Highest is an image's score by those values of its map that count, at least one: the mean of a share of them, the
// highest, or their maximum where the share is of less than two. It is what csrc/predict.cpp makes of a whole map: summed
// in float64, and rounded to float32.
func Highest(m []float32, counts func(i int) bool, share float64) float64 {
	values := make([]float32, 0, len(m))
	for i, v := range m {
		if counts(i) {
			values = append(values, v)
		}
	}
	n := int(share * float64(len(values)))
	if n < 2 {
		return float64(slices.Max(values))
	}
	values = highest(values, n)
	sum := 0.0
	for _, v := range values {
		sum += float64(v)
	}
	return float64(float32(sum / float64(n)))
}

// highest are the n highest values, in any order that follows from theirs. It reorders the values.
func highest(values []float32, n int) []float32 {
	low, high := 0, len(values) // what is before low is among the n, what is from high on is not
	for high-low > 1 && low < n {
		// Of three values the middle one parts the rest: above it, equal to it, below it.
		a, b, c := values[low], values[(low+high)/2], values[high-1]
		pivot := max(min(a, b), min(max(a, b), c))
		above, at, below := low, low, high
		for at < below {
			switch v := values[at]; {
			case v > pivot:
				values[at], values[above] = values[above], v
				above++
				at++
			case v < pivot:
				below--
				values[at], values[below] = values[below], v
			default: // also of what is no number, which an earlier check has refused
				at++
			}
		}
		switch {
		case n <= above:
			high = above
		case n <= below:
			return values[:n]
		default:
			low = below
		}
	}
	return values[:n]
}
