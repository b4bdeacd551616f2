package metric_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"rdpp/rdpp/metric"
)

// What does not count is in no metric: cutting it off gives the same ones.
func TestAddCounted(t *testing.T) {
	const H, W, cut = 24, 20, 8 // the last columns do not count
	counts := func(i int) bool { return i%W < W-cut }
	var whole, part metric.Pixels
	rng := rand.New(rand.NewPCG(3, 4))
	for range 3 {
		m, mask := make([]float32, H*W), make([]uint8, H*W)
		var mCut []float32
		var maskCut []uint8
		for i := range m {
			m[i] = rng.Float32()
			if x, y := i%W, i/W; y < 6 && x > 3 || y > 18 && x < 3 || y == 12 && x > 14 {
				mask[i] = 1
				m[i] += 0.5
			}
			if counts(i) {
				mCut, maskCut = append(mCut, m[i]), append(maskCut, mask[i])
			}
		}
		if err := whole.AddCounted(m, mask, counts, H, W); err != nil {
			t.Fatal(err)
		}
		if err := part.Add(mCut, maskCut, H, W-cut); err != nil {
			t.Fatal(err)
		}
	}
	f1 := func(p *metric.Pixels) (float64, error) {
		f, _, err := p.F1Max()
		return f, err
	}
	for name, measure := range map[string]func(p *metric.Pixels) (float64, error){
		"AUROC": (*metric.Pixels).AUROC, "average precision": (*metric.Pixels).AveragePrecision, "F1": f1, "released PRO": (*metric.Pixels).ReleasedPRO,
		"AUPRO": func(p *metric.Pixels) (float64, error) { return p.AUPRO(0.3) },
	} {
		got, err := measure(&whole)
		want, wantErr := measure(&part)
		if got != want || err != nil || wantErr != nil {
			t.Errorf("%s: got %v and %v, want %v and %v", name, got, err, want, wantErr)
		}
	}
	if err := whole.AddCounted(make([]float32, 3), make([]uint8, 4), counts, 2, 2); !errors.Is(err, metric.ErrLength) {
		t.Errorf("another length: got %v", err)
	}
}
