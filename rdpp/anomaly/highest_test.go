package anomaly

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestHighest(t *testing.T) {
	all := func(int) bool { return true }
	even := func(i int) bool { return i%2 == 0 }
	for _, c := range []struct {
		name   string
		m      []float32
		counts func(int) bool
		share  float64
		want   float64
	}{
		{"maximum", []float32{1, 5, 3}, all, 0, 5},
		{"one of a few", []float32{1, 5, 3}, all, 0.5, 5},
		{"half", []float32{1, 5, 3, 4}, all, 0.5, 4.5},
		{"of those that count", []float32{1, 100, 3, 100, 5, 100, 7, 100}, even, 0.5, 6},
		{"the maximum of those that count", []float32{1, 100, 3, 100}, even, 0, 3},
		{"one that counts", []float32{0, 7}, func(i int) bool { return i == 1 }, 0.5, 7},
		{"equal ones", []float32{2, 2, 2, 2, 2, 2}, all, 0.5, 2},
	} {
		if got := Highest(c.m, c.counts, c.share); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// highest finds what sorting finds, of values with and without repetitions.
func TestHighestOfMany(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		values := make([]float32, 1+rng.IntN(200))
		for i := range values {
			if values[i] = rng.Float32(); round%2 == 0 {
				values[i] = float32(rng.IntN(8))
			}
		}
		n := 1 + rng.IntN(len(values))
		sorted := slices.Clone(values)
		slices.Sort(sorted)
		got := slices.Clone(highest(slices.Clone(values), n))
		slices.Sort(got)
		if want := sorted[len(sorted)-n:]; !slices.Equal(got, want) {
			t.Fatalf("%d highest of %v: got %v, want %v", n, values, got, want)
		}
	}
}
