package metric

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestPValue(t *testing.T) {
	scores := []float64{0.1, 0.2, 0.2, 0.4}
	for _, c := range []struct {
		scores []float64
		score  float64
		want   float64
	}{
		{scores, 0.05, 1}, {scores, 0.1, 1}, {scores, 0.15, 0.8}, {scores, 0.2, 0.8}, {scores, 0.3, 0.4},
		{scores, 0.4, 0.4}, {scores, 0.5, 0.2}, {nil, 0.5, 1},
	} {
		if got := PValue(c.scores, c.score); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("%v among %v: got %v, want %v", c.score, c.scores, got, c.want)
		}
	}
}

func ascendingScores(n int) (scores []float64) {
	for i := range n {
		scores = append(scores, float64(i+1))
	}
	return scores
}

func TestCalibrate(t *testing.T) {
	for _, c := range []struct {
		n      int
		rate   float64
		want   float64 // of an exact threshold
		exact  bool
		needed int
	}{
		{99, 0.01, 99, true, 99}, {98, 0.01, 0, false, 99}, {100, 0.01, 100, true, 99}, {198, 0.01, 198, true, 99},
		{199, 0.01, 198, true, 99}, {19, 0.05, 19, true, 19}, {18, 0.05, 0, false, 19}, {39, 0.05, 38, true, 19},
		{1, 0.5, 1, true, 1}, {3, 0.5, 2, true, 1}, {999, 0.001, 999, true, 999}, {9, 0.1, 9, true, 9}, {3, 1 - 1e-10, 1, true, 0}, {2, 0.3, 0, false, 3},
	} {
		scores := ascendingScores(c.n)
		got, err := Calibrate(scores, c.rate)
		if err != nil || got.Exact != c.exact || got.Needed != c.needed || c.exact && got.Value != c.want {
			t.Errorf("%d scores, rate %v: got %+v, %v, want value %v, exact %v, needed %d", c.n, c.rate, got, err, c.want, c.exact, c.needed)
		}
		if !c.exact && !(got.Value > scores[c.n-1]) {
			t.Errorf("%d scores, rate %v: got %v from the tail, want more than the highest score", c.n, c.rate, got.Value)
		}
	}
}

// A threshold must judge as p-values do.
func TestCalibrateAgreesWithPValue(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		n, rate := 1+random.IntN(60), []float64{0.5, 0.2, 0.1, 0.05, 0.02}[random.IntN(5)]
		scores := make([]float64, n)
		for i := range scores {
			scores[i] = float64(random.IntN(20)) // with ties
		}
		slices.Sort(scores)
		threshold, err := Calibrate(scores, rate)
		if errors.Is(err, ErrTooFew) && n == 1 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for s := -1.0; s < 22 && threshold.Exact; s += 0.5 {
			if p := PValue(scores, s); (s > threshold.Value) != (p <= rate+1e-12) {
				t.Fatalf("%d scores %v, rate %v: %v has p-value %v, threshold is %v", n, scores, rate, s, p, threshold.Value)
			}
		}
	}
}

// Quantiles as printed in tables of Student's t.
func TestStudentQuantile(t *testing.T) {
	for _, c := range []struct{ freedom, p, want float64 }{
		{1, 0.05, 6.313752}, {1, 0.01, 31.820516}, {5, 0.05, 2.015048}, {9, 0.01, 2.821438}, {20, 0.01, 2.527977},
		{20, 0.005, 2.845340}, {30, 0.1, 1.310415}, {20, 0.99, -2.527977}, {7, 0.5, 0},
	} {
		if got := studentUpper(c.freedom, c.p); math.Abs(got-c.want) > 1e-5 {
			t.Errorf("freedom %v, p %v: got %v, want %v", c.freedom, c.p, got, c.want)
		}
	}
}

// Of good images drawn like those that the threshold comes from, the asked share must lie above it, on average over
// thresholds: in the tail fit's own case, log-normal scores, with 20 scores and rates that these cannot give exactly.
func TestTailRate(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, rate := range []float64{0.01, 0.02} {
		const rounds, fresh = 4000, 50
		above := 0
		for range rounds {
			scores := make([]float64, 20)
			for i := range scores {
				scores[i] = math.Exp(0.3 * random.NormFloat64())
			}
			slices.Sort(scores)
			threshold, err := Calibrate(scores, rate)
			if err != nil || threshold.Exact {
				t.Fatalf("got %+v, %v, want a fit of the tail", threshold, err)
			}
			for range fresh {
				if math.Exp(0.3*random.NormFloat64()) > threshold.Value {
					above++
				}
			}
		}
		// Never below the highest score makes it a little rarer than asked.
		if got := float64(above) / (rounds * fresh); got < 0.8*rate || got > 1.1*rate {
			t.Errorf("rate %v: got %v", rate, got)
		}
	}
}

func TestCalibrateUnusable(t *testing.T) {
	for _, c := range []struct {
		scores []float64
		rate   float64
		want   error
	}{
		{[]float64{1, 2}, 0, ErrRate}, {[]float64{1, 2}, 1, ErrRate}, {[]float64{1, 2}, -1, ErrRate},
		{[]float64{1, 2}, math.NaN(), ErrRate}, {[]float64{0.3, 0.4}, 1e-4, ErrTooFew}, {[]float64{0.3, 0.3}, 1e-300, ErrTooFew}, {nil, 0.1, ErrTooFew}, {nil, 0.9, ErrTooFew}, {[]float64{1}, 0.1, ErrTooFew},
		{[]float64{1, math.NaN()}, 0.1, ErrNaN}, {[]float64{1, math.Inf(1)}, 0.5, ErrNaN},
	} {
		if got, err := Calibrate(c.scores, c.rate); !errors.Is(err, c.want) {
			t.Errorf("%v, rate %v: got %+v, %v, want %v", c.scores, c.rate, got, err, c.want)
		}
	}
	for _, same := range [][]float64{{2, 2, 2}, {0, 0, 0}, {-1, 0, 3}} {
		if got, err := Calibrate(same, 0.01); err != nil || !(got.Value >= same[2]) || math.IsInf(got.Value, 0) {
			t.Errorf("%v: got %+v, %v, want a finite value, not below the highest", same, got, err)
		}
	}
}
