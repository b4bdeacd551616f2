package pretrain

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"rdpp/rdpp/pattern"
	"rdpp/rdpp/teacher"
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
		config := DefaultConfig()
		config.Steps = c.steps
		if got := config.rate(c.step); math.Abs(got-c.want) > 1e-12 { // rounding
			t.Errorf("step %d of %d: got %v, want %v", c.step, c.steps, got, c.want)
		}
	}
	// Too few steps for a warm-up.
	for steps := 1; steps < 12; steps++ {
		config := DefaultConfig()
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
		c := DefaultConfig()
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

// A finished teacher's channels vary alike over pictures that it has not seen.
func TestDeviations(t *testing.T) {
	c := DefaultConfig()
	c.Batch, c.ImageSize, c.Steps = 8, 32, 1
	learner, err := newLearner(&c, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{config: c, learner: learner}
	defer r.close()
	before, err := r.deviations()
	if err != nil {
		t.Fatal(err)
	}
	values, err := teacher.Read(learner.teacher)
	if err != nil {
		t.Fatal(err)
	}
	teacher.Equalise(values, before, drawnFloor)
	if err := teacher.Write(learner.teacher, values); err != nil {
		t.Fatal(err)
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
