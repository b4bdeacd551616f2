package rdpp

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/sample"
	"rdpp/torch"
)

// Over the images that it was equalised by, every channel of the teacher deviates alike, but for those that hardly moved;
// and each is what it was times a factor.
func TestEqualiseTeacher(t *testing.T) {
	dir := t.TempDir()
	if err := sample.Write(dir, &sample.Options{Category: "part", Size: 64, Train: 4, TestGood: 1, TestDefect: 1}); err != nil {
		t.Fatal(err)
	}
	set, err := dataset.Open(filepath.Join(dir, "part"), nil)
	if err != nil {
		t.Fatal(err)
	}
	config := DefaultConfig()
	config.Arch, config.ImageSize = "resnet18", 64
	m, err := NewModel(config, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.LoadTeacher(TeacherBuiltin); err != nil {
		t.Fatal(err)
	}
	cache := dataset.NewCache(dataset.CacheOptions{Size: 64})
	measure := func() (deviations [torch.Scales][]float64, features [torch.Scales][]float32) {
		var moments channelMoments
		err := m.read(context.Background(), set.Train, cache, func(_ int, x []float32) error {
			var s torch.Scope
			defer s.Close()
			input := s.Tensor(s.Tensor(torch.FromSlice(x, 1, 3, 64, 64)).To(torch.CPU, torch.Float32))
			f := s.Features(m.Teacher.Forward(input))
			if err := s.Err(); err != nil {
				return err
			}
			for k := range f {
				if features[k], err = torch.Read[float32](f[k]); err != nil {
					return err
				}
			}
			return moments.add(m.Teacher, input)
		})
		if err != nil {
			t.Fatal(err)
		}
		return moments.deviations(), features
	}
	before, old := measure()
	if err := m.equaliseTeacher(context.Background(), set.Train, cache); err != nil {
		t.Fatal(err)
	}
	after, now := measure()
	for k := range after {
		median := slices.Sorted(slices.Values(before[k]))[len(before[k])/2]
		alike := -1.0
		for c, d := range after[k] {
			if before[k][c] < trainingFloor*median {
				continue
			}
			if alike < 0 {
				alike = d
			}
			if math.Abs(d-alike) > 1e-3*alike { // float32 through up to 13 layers
				t.Errorf("layer%d, channel %d: deviates by %v, others by %v", k+1, c, d, alike)
			}
		}
		area := len(now[k]) / len(after[k])
		for i := range now[k] {
			factor := after[k][i/area] / before[k][i/area]
			if want := float64(old[k][i]) * factor; math.Abs(float64(now[k][i])-want) > 1e-3*alike {
				t.Fatalf("layer%d, value %d: got %v, want %v", k+1, i, now[k][i], want)
			}
		}
	}
}
