package rdpp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"rdpp/rdpp/pattern"
	"rdpp/torch"
)

// torch.optim.lr_scheduler.OneCycleLR(max_lr=2e-3, pct_start=0.1, div_factor=25, final_div_factor=400) of PyTorch 1.13.
func TestOneCycle(t *testing.T) {
	for _, c := range []struct {
		steps, step int
		want        float64
	}{
		{40, 0, 8e-05}, {40, 1, 0.00056}, {40, 3, 0.002}, {40, 4, 0.0019961950786219363}, {40, 20, 0.0010872470271733835},
		{40, 38, 4.004921378063629e-06}, {40, 39, 2e-07},
		{200, 1, 9.309314873338654e-05}, {200, 50, 0.001857181583972042}, {200, 198, 3.5228961312436954e-07},
	} {
		config := DefaultPretrainConfig()
		config.Steps = c.steps
		if got := config.rate(c.step); math.Abs(got-c.want) > 1e-12 { // rounding
			t.Errorf("step %d of %d: got %v, want %v", c.step, c.steps, got, c.want)
		}
	}
	// Too few steps for a warm-up.
	for steps := 1; steps < 12; steps++ {
		config := DefaultPretrainConfig()
		config.Steps = steps
		for step := range steps {
			if got := config.rate(step); !(got > 0 && got <= config.Rate) {
				t.Errorf("step %d of %d: got %v, want more than 0, at most %v", step, steps, got, config.Rate)
			}
		}
	}
}

func TestDraw(t *testing.T) {
	const B, S = 6, 32
	for _, objective := range []string{ObjectiveClass, ObjectiveDense, ObjectivePair} {
		c := DefaultPretrainConfig()
		c.Objective, c.Batch, c.ImageSize, c.Classes = objective, B, S, 5
		g, err := pattern.New(c.pictures())
		if err != nil {
			t.Fatal(err)
		}
		draw := func(step int) *drawn {
			d, err := c.draw(t.Context(), g, step)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		d, again, next := draw(7), draw(7), draw(8)
		if !slices.Equal(d.pixels, again.pixels) || fmt.Sprint(d.labels) != fmt.Sprint(again.labels) {
			t.Errorf("%s: one step drawn twice differs", objective)
		}
		if slices.Equal(d.pixels, next.pixels) || len(d.pixels) != B*S*S*3 {
			t.Errorf("%s: got %d bytes, the next step's the same: %v; want %d others", objective, len(d.pixels),
				slices.Equal(d.pixels, next.pixels), B*S*S*3)
		}
		for k, labels := range d.labels {
			want := map[string]int{ObjectiveClass: B, ObjectiveDense: B * (S / (4 << k)) * (S / (4 << k)), ObjectivePair: 0}[objective]
			if len(labels) != want {
				t.Errorf("%s: scale %d: got %d labels, want %d", objective, k, len(labels), want)
			}
			if want > 0 && (slices.Min(labels) < -1 || slices.Max(labels) >= int64(c.Classes)) {
				t.Errorf("%s: scale %d: got labels %v of %d classes", objective, k, labels, c.Classes)
			}
		}
	}
}

func TestAppendCentres(t *testing.T) {
	const S = 8
	labels := make([]int16, S*S)
	for i := range labels {
		labels[i] = int16(i)
	}
	if got, want := appendCentres([]int64{-1}, labels, S, 4), []int64{-1, 18, 22, 50, 54}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPrefetch(t *testing.T) {
	failure := errors.New("no ink")
	for _, workers := range []int{1, 3, 20} {
		for _, c := range []struct {
			from, to, stop, fail int
			want                 []int
		}{
			{0, 5, -1, -1, []int{0, 1, 2, 3, 4}}, {3, 5, -1, -1, []int{3, 4}}, {4, 4, -1, -1, nil}, {5, 4, -1, -1, nil},
			{0, 50, 2, -1, []int{0, 1, 2}}, {0, 50, -1, 2, []int{0, 1}},
		} {
			var running atomic.Int64
			produce := func(_ context.Context, i int) (int, error) {
				running.Add(1)
				defer running.Add(-1)
				if i == c.fail {
					return 0, failure
				}
				return i, nil
			}
			var got []int
			var failed error
			for i, err := range prefetch(t.Context(), workers, c.from, c.to, produce) {
				if failed = err; err == nil {
					got = append(got, i)
				}
				if i == c.stop {
					break
				}
			}
			if !slices.Equal(got, c.want) || (c.fail >= 0) != errors.Is(failed, failure) {
				t.Errorf("%d workers, %d to %d, stop %d, fail %d: got %v, error %v, want %v", workers, c.from, c.to, c.stop, c.fail, got,
					failed, c.want)
			}
			if left := running.Load(); left != 0 {
				t.Errorf("%d workers: %d still at work after the end", workers, left)
			}
		}
	}
}

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
		factors := equalise(state, deviations, drawnFloor)
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

// A finished teacher's channels vary alike over pictures that it has not seen.
func TestDeviations(t *testing.T) {
	c := DefaultPretrainConfig()
	c.Batch, c.ImageSize, c.Steps = 8, 32, 1
	r := &pretraining{config: c}
	defer r.close()
	var err error
	if r.teacher, err = torch.NewTeacher(torch.ModuleOptions{Arch: "resnet18", Seed: 3, Trainable: true}); err != nil {
		t.Fatal(err)
	}
	before, err := r.deviations()
	if err != nil {
		t.Fatal(err)
	}
	state := map[string][]float32{}
	for _, e := range r.teacher.State() {
		if state[e.Name], err = torch.Read[float32](e.Tensor); err != nil {
			t.Fatal(err)
		}
	}
	equalise(state, before, drawnFloor)
	for _, e := range r.teacher.State() {
		if err := torch.Write(e.Tensor, state[e.Name]); err != nil {
			t.Fatal(err)
		}
	}
	after, err := r.deviations()
	if err != nil {
		t.Fatal(err)
	}
	spread := func(d []float64) float64 { // without the channels that hardly ever move
		d = slices.Sorted(slices.Values(d))
		return d[len(d)-1] / d[len(d)/10]
	}
	for k := range after {
		if was, is := spread(before[k]), spread(after[k]); was < 1.5 || is > 1.01 {
			t.Errorf("layer%d: the largest deviation is %v times a small one, was %v; want at most 1.01, at least 1.5 before", k+1, is, was)
		}
	}
}
