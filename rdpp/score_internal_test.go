package rdpp

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/sample"
	"rdpp/torch"
)

// Levels are the terms' mean distances over training images.
func TestBalance(t *testing.T) {
	dir := t.TempDir()
	if err := sample.Write(dir, &sample.Options{Category: "part", Size: 32, Train: 5, TestGood: 1, TestDefect: 1}); err != nil {
		t.Fatal(err)
	}
	set, err := dataset.Open(filepath.Join(dir, "part"), nil)
	if err != nil {
		t.Fatal(err)
	}
	config := DefaultConfig()
	config.Arch, config.ImageSize = "resnet18", 32
	m, err := NewModel(config, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cache := context.Background(), dataset.NewCache(dataset.CacheOptions{Size: 32})
	if err := m.balance(ctx, set.Train, cache); err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, w := range m.Info.MapWeights {
		total += w
	}
	if m.Info.MapWeights != balancedShares || math.Abs(total-1) > 1e-12 {
		t.Errorf("got the weights %v, whose sum is %v, want %v", m.Info.MapWeights, total, balancedShares)
	}

	// The mean of a term's own map, unsmoothed, is its level.
	levels := m.Info.MapLevels
	for i, share := range balancedShares {
		sum, count := 0.0, 0
		err := m.read(ctx, set.Train, cache, func(_ int, x []float32) error {
			var s torch.Scope
			defer s.Close()
			f, g := m.features(&s, s.Tensor(torch.FromSlice(x, 1, 3, 32, 32)))
			only := torch.MapOptions{Sigma: 1}
			only.Weights[i] = 1
			raw, _ := s.Pair(torch.AnomalyMap(f, g, 32, only))
			if err := s.Err(); err != nil {
				return err
			}
			values, err := torch.Read[float32](raw)
			for _, v := range values {
				sum, count = sum+float64(v), count+1
			}
			return err
		})
		want := sum / float64(count)
		if share == 0 {
			want = 0
		}
		if err != nil || math.Abs(levels[i]-want) > 1e-9 || share > 0 && want == 0 {
			t.Errorf("term %d: got the level %v, %v, want %v", i+1, levels[i], err, want)
		}
	}

	m.Info.Config.Score = ScoreReleased
	if err := m.balance(ctx, set.Train, cache); err != nil || m.mapOptions() != (torch.MapOptions{Sigma: config.MapSigma}) {
		t.Errorf("released: got %+v, %v", m.mapOptions(), err)
	}
}
