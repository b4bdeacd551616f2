package anomaly

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestHighest(t *testing.T) {
	for _, c := range []struct {
		values []float32
		n      int
		want   float64
	}{
		{nil, 3, 0}, {[]float32{2}, 5, 2}, {[]float32{1, 5, 3}, 0, 5}, {[]float32{1, 5, 3}, 1, 5}, {[]float32{1, 5, 3}, 2, 4}, {[]float32{1, 5, 3}, 3, 3},
		{[]float32{1, 5, 3}, 9, 3}, {[]float32{4, 4, 4, 4, 4}, 2, 4}, {[]float32{1, 5, 3, 4}, 2, 4.5}, {[]float32{1e8, 1, 1e8}, 3, 66666668},
	} {
		was := slices.Clone(c.values)
		if got := Highest(c.values, c.n); got != c.want {
			t.Errorf("the %d highest of %v: got %v, want %v", c.n, c.values, got, c.want)
		}
		if !slices.Equal(c.values, was) {
			t.Errorf("the %d highest of %v: the values are now %v", c.n, was, c.values)
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
