package tiling

import (
	"cmp"
	"math"
	"slices"
)

// Top is the mean of the n highest values of a map, of all where it has fewer, and the maximum where n is below 2, rounded to
// float32 as the networks' own scores are. A map without values has 0.
func Top(values []float32, n int) float64 {
	if len(values) == 0 {
		return 0
	}
	if n < 2 {
		return float64(slices.Max(values))
	}
	falling := func(a, b float32) int { return cmp.Compare(b, a) }
	var highest []float32 // so far, and what came since they were last sorted
	floor := float32(math.Inf(-1))
	for _, v := range values {
		if v <= floor {
			continue
		}
		if highest = append(highest, v); len(highest) == 2*n {
			slices.SortFunc(highest, falling)
			highest = highest[:n]
			floor = highest[n-1]
		}
	}
	slices.SortFunc(highest, falling)
	highest = highest[:min(n, len(highest))]
	sum := 0.0
	for _, v := range highest {
		sum += float64(v)
	}
	return float64(float32(sum / float64(len(highest))))
}
