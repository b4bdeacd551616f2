package csflow_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/csflow"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/method"
	"rdpp/rdpp/method/methodtest"
	"rdpp/rdpp/setting"
	"rdpp/torch"
)

func settingsOf(arch string) method.Settings {
	s := methodtest.Settings(csflow.Name)
	s.Arch = arch
	return s
}

// narrow has few blocks and few channels between layers, and learns fast.
func narrow() csflow.CrossFlow {
	f := csflow.DefaultCrossFlow()
	f.CrossBlocks, f.CrossHidden, f.CrossRate = 2, 16, 0.002
	return f
}

// The likelihood of good pictures rises, and one with a square is less likely than they are.
func TestLearns(t *testing.T) {
	for _, c := range []struct{ of, score string }{{csflow.MapFinest, csflow.ScoreLatent}, {csflow.MapProduct, csflow.ScoreMap}} {
		f := narrow()
		f.CrossMap, f.CrossScore = c.of, c.score
		m := csflow.New(methodtest.Settings(csflow.Name), f)
		l := methodtest.Begun(t, m)
		losses := methodtest.Learn(t, l, 0, 40)
		if first, last := losses[0], losses[len(losses)-1]; !(last < first-0.1) {
			t.Errorf("%v: got a loss of %v at first and %v in the end, want it to fall", c, first, last)
		}
		net := methodtest.Finish(t, l)
		_, good := methodtest.Predict(t, net, 0, methodtest.Known)
		maps, bad := methodtest.Predict(t, net, methodtest.Odd, 1)
		if !(bad[0] > slices.Max(good)) {
			t.Errorf("%v: got scores of up to %v for good pictures and of %v for one with a square, want that to be above", c, slices.Max(good), bad[0])
		}
		if got := slices.Max(maps) == bad[0]; got != (c.score == csflow.ScoreMap) {
			t.Errorf("%v: got a score of %v, the map's maximum being %v", c, bad[0], slices.Max(maps))
		}
	}
}

func TestMethod(t *testing.T) {
	methodtest.Run(t, func(seed uint64) method.Method {
		s := methodtest.Settings(csflow.Name)
		s.Seed = seed
		return csflow.New(s, narrow())
	})
	t.Run(torch.EfficientNetB5, func(t *testing.T) { methodtest.OneScore(t, csflow.New(settingsOf(torch.EfficientNetB5), narrow())) })
}

func TestDamaged(t *testing.T) {
	m := csflow.New(methodtest.Settings(csflow.Name), narrow())
	const weight, order = "flow.block0.r1.first0.weight", "flow.block1.order2"
	methodtest.Damaged(t, m, methodtest.Trained(t, m), methodtest.Lacking("flow."), methodtest.Reshaped(weight),
		methodtest.Altered(weight, "infinite or none", methodtest.NaN...), methodtest.Altered(order, "in vain", 0, 1),
		methodtest.Altered(order, "in vain", 255, 255, 255, 255, 255, 255, 255, 255), methodtest.Twice(order, "twice"))
	if most, err := m.MostScore(anomaly.Facts{}); err != nil || !math.IsInf(most, 1) {
		t.Errorf("got a bound of %v and error %v, want none", most, err)
	}
}

// A rate that drives the weights out of all bounds ends the training, at the loss or, after the last update, at the end.
func TestDiverged(t *testing.T) {
	f := narrow()
	f.CrossRate = 1e30
	methodtest.Diverges(t, csflow.New(methodtest.Settings(csflow.Name), f), "cross_rate")
}

// WeightBytes is what a file has of the flow.
func TestWeightBytes(t *testing.T) {
	for _, c := range []struct {
		arch   string
		change func(*csflow.CrossFlow)
	}{
		{"resnet18", func(*csflow.CrossFlow) {}},
		{"resnet34", func(f *csflow.CrossFlow) { f.CrossBlocks, f.CrossHidden = 1, 3 }},
		{"resnet50", func(*csflow.CrossFlow) {}},
		{torch.EfficientNetB5, func(*csflow.CrossFlow) {}},
	} {
		s, f := methodtest.Settings(csflow.Name), narrow()
		s.Arch = c.arch
		c.change(&f)
		m := csflow.New(s, f)
		methodtest.WeightBytes(t, m, "flow.")
		flow := m.(method.Sized).WeightBytes()
		least := int64(12 << 20)
		if c.arch == torch.EfficientNetB5 { // without Winograd's
			least = 4 << 20
		}
		if got := m.PredictionBytes(flow+(1<<20), 0) - m.PredictionBytes(flow, 0); got < least {
			t.Errorf("%s, %+v: got an estimate of %d bytes for a teacher of 1 MiB, want the forms for three sizes, %d or more", c.arch, f, got, least)
		}
	}
}

// What trains can be opened: weights beyond the largest model file are refused.
func TestTooLarge(t *testing.T) {
	s, f := methodtest.Settings(csflow.Name), csflow.ReleasedCrossFlow()
	s.Arch = "wide_resnet50_2"
	if err := csflow.New(s, f).Check(); err != nil {
		t.Errorf("as released: got error %v, want none", err)
	}
	f.CrossBlocks++
	methodtest.Refused(t, "cross_hidden", "a block more", csflow.New(s, f))
}

func TestCheck(t *testing.T) {
	for field, change := range map[string]func(*csflow.CrossFlow){
		"cross_blocks": func(f *csflow.CrossFlow) { f.CrossBlocks = 0 },
		"cross_hidden": func(f *csflow.CrossFlow) { f.CrossHidden = 1 << 20 },
		"cross_clamp":  func(f *csflow.CrossFlow) { f.CrossClamp = math.NaN() },
		"cross_rate":   func(f *csflow.CrossFlow) { f.CrossRate = 0 },
		"cross_decay":  func(f *csflow.CrossFlow) { f.CrossDecay = -1 },
		"cross_clip":   func(f *csflow.CrossFlow) { f.CrossClip = math.Inf(1) },
		"cross_map":    func(f *csflow.CrossFlow) { f.CrossMap = "" },
		"cross_score":  func(f *csflow.CrossFlow) { f.CrossScore = "max" },
	} {
		f := csflow.DefaultCrossFlow()
		change(&f)
		methodtest.Refused(t, field, field, csflow.New(methodtest.Settings(csflow.Name), f))
	}
	for what, f := range map[string]csflow.CrossFlow{"default": csflow.DefaultCrossFlow(), "released": csflow.ReleasedCrossFlow()} {
		if err := csflow.New(methodtest.Settings(csflow.Name), f).Check(); err != nil {
			t.Errorf("%s: got error %v, want none", what, err)
		}
	}
}

// A training takes as many passes as its updates need, and no more than it may.
func TestPlan(t *testing.T) {
	for _, c := range []struct{ updates, epochs, images, want int }{{0, 3, 5, 3}, {7, 100, 5, 3}, {6, 100, 5, 2}, {7, 2, 5, 2}, {1, 100, 5, 1}} {
		s := methodtest.Settings(csflow.Name)
		s.Updates, s.Epochs = c.updates, c.epochs
		plan, err := csflow.New(s, narrow()).Plan([]int{c.images})
		if err != nil || plan.Passes != c.want || plan.Batch != 2 || !plan.Noise.Off || plan.TryPrecisions || plan.Light != (dataset.Light{}) {
			t.Errorf("%+v: got %+v and error %v, want %d passes over plain images", c, plan, err, c.want)
		}
	}
}

// Parts of a picture can be left out of a score that is of the map alone.
func TestTop(t *testing.T) {
	f := narrow()
	var wrong *setting.Error
	if _, err := method.TopOf(csflow.New(methodtest.Settings(csflow.Name), f)); !errors.As(err, &wrong) || wrong.Field != "cross_score" {
		t.Errorf("got error %v, want one about cross_score", err)
	}
	f.CrossScore = csflow.ScoreMap
	if share, err := method.TopOf(csflow.New(methodtest.Settings(csflow.Name), f)); err != nil || share != 0 {
		t.Errorf("got a share of %v and error %v, want the maximum", share, err)
	}
}

// Where there is no learner, there is none to close.
func TestNoLearner(t *testing.T) {
	f := narrow()
	f.CrossClip = -1 // which Check refuses
	m := csflow.New(methodtest.Settings(csflow.Name), f)
	if l, err := m.Learner(methodtest.Blank(t, m), method.LearnerOptions{Precision: torch.FP32}); l != nil || !errors.Is(err, torch.ErrArgument) {
		t.Errorf("got %v and error %v, want none and %v", l, err, torch.ErrArgument)
	}
}

// The optimiser is set as asked.
func TestOptimiser(t *testing.T) {
	for field, change := range map[string]func(*csflow.CrossFlow){
		"cross_rate":  func(f *csflow.CrossFlow) { f.CrossRate = 1e-5 },
		"cross_decay": func(f *csflow.CrossFlow) { f.CrossDecay = 1 },
		"cross_clip":  func(f *csflow.CrossFlow) { f.CrossClip = 1e-9 },
	} {
		f := narrow()
		change(&f)
		s := methodtest.Settings(csflow.Name)
		methodtest.Counts(t, field, csflow.New(s, narrow()), csflow.New(s, f))
	}
}

func TestMain(m *testing.M) { methodtest.Main(m) }
