package teacher

import (
	"math"
	"slices"
	"testing"

	"rdpp/torch"
)

// Equalised, a network of either kind of block gives its own features, channel by channel times the factor.
func TestEqualise(t *testing.T) {
	for _, arch := range []string{"resnet18", "resnet50"} {
		teacher, err := torch.NewTeacher(torch.ModuleOptions{Arch: arch, Seed: 3, Trainable: true})
		if err != nil {
			t.Fatal(err)
		}
		defer teacher.Close()
		if err := teacher.Train(false); err != nil {
			t.Fatal(err)
		}
		features := func() (values [torch.Scales][]float32, channels [torch.Scales]int) {
			var s torch.Scope
			defer s.Close()
			x := make([]float32, 3*64*64)
			for i := range x {
				x[i] = float32(math.Sin(float64(i*i%1013))) * 2
			}
			f := s.Features(teacher.Forward(s.Tensor(torch.FromSlice(x, 1, 3, 64, 64))))
			s.Check(teacher.Train(false)) // the state may change now
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			for k := range f {
				shape, err := f[k].Shape()
				if err != nil {
					t.Fatal(err)
				}
				if values[k], err = torch.Read[float32](f[k]); err != nil {
					t.Fatal(err)
				}
				channels[k] = int(shape[1])
			}
			return values, channels
		}
		before, channels := features()
		var deviations [torch.Scales][]float64
		for k, C := range channels {
			for c := range C {
				deviations[k] = append(deviations[k], 1+0.9*math.Sin(float64(c*(k+1))))
			}
			deviations[k][0] = 0 // never moves
		}
		state := map[string][]float32{}
		for _, e := range teacher.State() {
			if state[e.Name], err = torch.Read[float32](e.Tensor); err != nil {
				t.Fatal(err)
			}
		}
		factors := Equalise(state, deviations, 0.05)
		for _, e := range teacher.State() {
			if err := torch.Write(e.Tensor, state[e.Name]); err != nil {
				t.Fatal(err)
			}
		}
		after, _ := features()
		for k := range before {
			C := channels[k]
			area := len(before[k]) / C
			worst, most := 0.0, 0.0
			for i, v := range before[k] {
				want := float64(v) * factors[k][i/area]
				worst, most = max(worst, math.Abs(float64(after[k][i])-want)), max(most, math.Abs(want))
			}
			if most == 0 || worst > 1e-4*most { // float32, through some forty layers
				t.Errorf("%s layer%d: features are off by %v of at most %v", arch, k+1, worst, most)
			}
			low, high := slices.Min(factors[k]), slices.Max(factors[k])
			mean := 0.0
			for _, d := range deviations[k] {
				mean += d / float64(C)
			}
			if got, want := factors[k][1], mean/deviations[k][1]; math.Abs(got-want) > 1e-9 {
				t.Errorf("%s layer%d: channel 1: factor %v, want %v", arch, k+1, got, want)
			}
			if low <= 0 || high > 40 {
				t.Errorf("%s layer%d: factors from %v to %v, want more than 0 and at most 40, even for a dead channel", arch, k+1, low, high)
			}
		}
	}
}
