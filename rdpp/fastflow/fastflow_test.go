package fastflow_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/fastflow"
	"rdpp/rdpp/method"
	"rdpp/rdpp/method/methodtest"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// small are flows of two steps with narrow sub-networks.
func small() fastflow.Flows {
	f := fastflow.DefaultFlows()
	f.FlowSteps, f.FlowHidden = 2, 0.25
	return f
}

// What was not there in learning is less likely, by either map, and scores lie where MostScore says.
func TestDefects(t *testing.T) {
	for _, kind := range []string{fastflow.MapProbability, fastflow.MapLikelihood} {
		for _, top := range []float64{0, 0.01} {
			f := small()
			f.FlowMap, f.FlowTop = kind, top
			m := fastflow.New(methodtest.Settings(fastflow.Name), f)
			l := methodtest.Begun(t, m)
			losses := methodtest.Learn(t, l, 0, 30)
			if first, last := losses[0], losses[len(losses)-1]; !(last < first) {
				t.Errorf("got a loss of %v after 30 updates, want less than %v, the first", last, first)
			}
			net := methodtest.Finish(t, l)
			_, good := methodtest.Predict(t, net, 0, 3)
			maps, bad := methodtest.Predict(t, net, methodtest.Odd, 1)
			most, err := m.MostScore(anomaly.Facts{})
			if err != nil || !(float64(bad[0]) <= most) || !(slices.Min(maps) >= 0) {
				t.Errorf("%s: got a score of %v, a map from %v on, and %v at most, error %v", kind, bad[0], slices.Min(maps), most, err)
			}
			if !(bad[0] > slices.Max(good)) {
				t.Errorf("%s: got scores of up to %v for good pictures and of %v for one with a square, want that to be above", kind, slices.Max(good), bad[0])
			}
			if highest := slices.Max(maps); (highest == bad[0]) != (top == 0) || !(bad[0] <= highest) {
				t.Errorf("%s: got a score of %v of a map of %v at most, and a share of %v", kind, bad[0], highest, top)
			}
		}
	}
}

func TestMethod(t *testing.T) {
	methodtest.Run(t, func(seed uint64) method.Method {
		s := methodtest.Settings(fastflow.Name)
		s.Seed = seed
		return fastflow.New(s, small())
	})
}

// A net that was drawn in another order of the channels takes the file's.
func TestOrders(t *testing.T) {
	m := fastflow.New(methodtest.Settings(fastflow.Name), small())
	net := methodtest.Trained(t, m)
	want, _ := methodtest.Predict(t, net, methodtest.Odd, 1)
	s := methodtest.Settings(fastflow.Name)
	s.Seed += 100
	other := fastflow.New(s, small())
	drawn := methodtest.New(t, other)
	if err := other.Load(drawn, methodtest.Write(t, net.State()), anomaly.Facts{}); err != nil {
		t.Fatal(err)
	}
	if err := drawn.Settle(); err != nil {
		t.Fatal(err)
	}
	if got, _ := methodtest.Predict(t, drawn, methodtest.Odd, 1); !slices.Equal(got, want) {
		t.Error("got another map from the file")
	}
}

func TestDamaged(t *testing.T) {
	m := fastflow.New(methodtest.Settings(fastflow.Name), small())
	net := methodtest.Trained(t, m)
	const order = "flow.layer1.1.order"
	methodtest.Damaged(t, m, net, methodtest.Lacking("flow.layer3.1.conv2.bias"), methodtest.Twice("flow.layer2.0.order", "flow.layer2.0.order is no order of 128 channels"),
		methodtest.Altered(order, order+" is no order of 64 channels", 0, 0, 0, 0, 0, 0, 0, 1))
	// Another size of images, and with it of the layer norms.
	s := methodtest.Settings(fastflow.Name)
	s.ImageSize = 96
	other := fastflow.New(s, small())
	if err := other.Load(methodtest.Blank(t, other), methodtest.Write(t, net.State()), anomaly.Facts{}); err == nil || !strings.Contains(err.Error(), "norm_weight") {
		t.Errorf("of another size: got error %v, want one about the layer norms", err)
	}
}

// A rate that drives the weights out of all bounds ends the training, at the loss or, after the last update, at the end.
func TestDiverged(t *testing.T) {
	f := small()
	f.FlowRate = 1e30
	methodtest.Diverges(t, fastflow.New(methodtest.Settings(fastflow.Name), f), "flow_rate")
}

func TestPlan(t *testing.T) {
	for _, c := range []struct{ updates, epochs, batch, images, want int }{
		{0, 7, 2, 9, 7}, {10, 100, 2, 9, 2}, {11, 100, 2, 9, 3}, {1000, 7, 2, 9, 7}, {1, 7, 32, 9, 1},
	} {
		s := methodtest.Settings(fastflow.Name)
		s.Updates, s.Epochs, s.Batch = c.updates, c.epochs, c.batch
		plan, err := fastflow.New(s, small()).Plan([]int{c.images, c.images / 2})
		if err != nil || plan.Passes != c.want || plan.Batch != c.batch || !plan.Noise.Off {
			t.Errorf("%+v: got %+v and error %v, want %d passes", c, plan, err, c.want)
		}
	}
}

// WeightBytes is what a file has of the flow.
func TestWeightBytes(t *testing.T) {
	for _, c := range []struct {
		arch   string
		change func(*fastflow.Flows)
	}{
		{"resnet18", func(*fastflow.Flows) {}},
		{"resnet50", func(f *fastflow.Flows) { f.FlowAffine = false }},
		{"wide_resnet50_2", func(f *fastflow.Flows) { f.FlowKernels, f.FlowSteps, f.FlowHidden = fastflow.KernelsAll, 1, 0.07 }},
	} {
		s, f := methodtest.Settings(fastflow.Name), small()
		s.Arch = c.arch
		c.change(&f)
		methodtest.WeightBytes(t, fastflow.New(s, f), "flow.")
	}
}

// What trains can be opened: weights beyond the largest model file are refused.
func TestTooLarge(t *testing.T) {
	s, f := methodtest.Settings(fastflow.Name), fastflow.DefaultFlows()
	s.Arch, f.FlowSteps, f.FlowHidden = "wide_resnet50_2", 64, 8
	methodtest.Refused(t, "flow_hidden", "too wide", fastflow.New(s, f))
}

func TestCheck(t *testing.T) {
	for what, change := range map[string]func(*fastflow.Flows){
		"flow_steps":                         func(f *fastflow.Flows) { f.FlowSteps = 0 },
		"flow_hidden":                        func(f *fastflow.Flows) { f.FlowHidden = math.NaN() },
		"flow_kernels":                       func(f *fastflow.Flows) { f.FlowKernels = "5x5" },
		"flow_clamp":                         func(f *fastflow.Flows) { f.FlowClamp = 0 },
		"flow_rate":                          func(f *fastflow.Flows) { f.FlowRate = math.Inf(1) },
		"flow_decay":                         func(f *fastflow.Flows) { f.FlowDecay = -1 },
		"flow_decay, which no float32 holds": func(f *fastflow.Flows) { f.FlowDecay = 1e39 },
		"flow_clip":                          func(f *fastflow.Flows) { f.FlowClip = math.NaN() },
		"flow_map":                           func(f *fastflow.Flows) { f.FlowMap = "" },
		"flow_top":                           func(f *fastflow.Flows) { f.FlowTop = 0.6 },
	} {
		f := fastflow.DefaultFlows()
		change(&f)
		field, _, _ := strings.Cut(what, ",")
		methodtest.Refused(t, field, what, fastflow.New(methodtest.Settings(fastflow.Name), f))
	}
	for what, f := range map[string]fastflow.Flows{"default": fastflow.DefaultFlows(), "released": fastflow.ReleasedFlows()} {
		if err := fastflow.New(methodtest.Settings(fastflow.Name), f).Check(); err != nil {
			t.Errorf("%s: got error %v, want none", what, err)
		}
	}
}

// The sub-networks' kernels follow the backbone where they are not told.
func TestKernels(t *testing.T) {
	for _, c := range []struct {
		arch, kernels string
		want          int
	}{
		{"resnet18", fastflow.KernelsAuto, 3}, {"resnet18", fastflow.KernelsAll, 3}, {"resnet18", fastflow.KernelsAlternate, 1},
		{"resnet50", fastflow.KernelsAuto, 1}, {"resnet50", fastflow.KernelsAll, 3},
	} {
		s, f := methodtest.Settings(fastflow.Name), small()
		s.Arch, f.FlowKernels = c.arch, c.kernels
		state := methodtest.Blank(t, fastflow.New(s, f)).State()
		at := slices.IndexFunc(state, func(s weights.Source) bool { return s.Name == "flow.layer1.1.conv1.weight" })
		if at < 0 || state[at].Shape[3] != c.want {
			t.Errorf("%s, %s: got tensor %d of the second step's weights, %v, want kernels of %d", c.arch, c.kernels, at, state, c.want)
		}
	}
}

// Where there is no learner, there is none to close.
func TestNoLearner(t *testing.T) {
	f := small()
	f.FlowClip = -1 // which Check refuses
	m := fastflow.New(methodtest.Settings(fastflow.Name), f)
	if l, err := m.Learner(methodtest.Blank(t, m), method.LearnerOptions{Precision: torch.FP32}); l != nil || !errors.Is(err, torch.ErrArgument) {
		t.Errorf("got %v and error %v, want none and %v", l, err, torch.ErrArgument)
	}
}

// The optimiser is set as asked.
func TestOptimiser(t *testing.T) {
	for field, change := range map[string]func(*fastflow.Flows){
		"flow_rate":  func(f *fastflow.Flows) { f.FlowRate = 1e-4 },
		"flow_decay": func(f *fastflow.Flows) { f.FlowDecay = 1 },
		"flow_clip":  func(f *fastflow.Flows) { f.FlowClip = 1e-9 },
	} {
		f := small()
		change(&f)
		s := methodtest.Settings(fastflow.Name)
		methodtest.Counts(t, field, fastflow.New(s, small()), fastflow.New(s, f))
	}
}

func TestMain(m *testing.M) { methodtest.Main(m) }
