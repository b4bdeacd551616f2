package anomaly

import "slices"

// Highest is an image's score by values of its map: the mean of the n highest, of all where there are fewer, and the
// maximum where n is below two. It is what csrc/predict.cpp makes of a whole map: summed in float64, and rounded to
// float32. Without values it is 0.
func Highest(values []float32, n int) float64 {
	if len(values) == 0 {
		return 0
	}
	if n < 2 {
		return float64(slices.Max(values))
	}
	n = min(n, len(values))
	sum := 0.0
	for _, v := range highest(slices.Clone(values), n) {
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
