package fastflow_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/fastflow"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

const side = 64 // S of these tests

func settings() method.Settings {
	return method.Settings{Arch: "resnet18", Method: fastflow.Name, ImageSize: side, Batch: 2, Epochs: 3, Seed: 3, MapSigma: 2.5}
}

// small are flows of two steps with narrow sub-networks.
func small() fastflow.Flows {
	f := fastflow.DefaultFlows()
	f.FlowSteps, f.FlowHidden = 2, 0.25
	return f
}

// batchOf are pictures from number first on, as the loader hands them out: stripes, and from number 100 on a square that was
// not there.
func batchOf(first, n int) *dataset.Batch {
	b := &dataset.Batch{B: n}
	for i := first; i < first+n; i++ {
		for c := range 3 {
			for y := range side {
				for x := range side {
					v := math.Sin(float64(x*(2+i%3)+y*(c+1)) / 6)
					if i >= 100 && x >= 10+i%7 && x < 24+i%7 && y >= 20 && y < 34 {
						v = 3 * math.Cos(float64(x*y))
					}
					b.Clean = append(b.Clean, float32(v))
				}
			}
		}
	}
	return b
}

func newNet(t testing.TB, m method.Method, blank bool) method.Net {
	t.Helper()
	net, err := m.New(method.Options{Blank: blank})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	return net
}

func newLearner(t testing.TB, m method.Method, net method.Net) method.Learner {
	t.Helper()
	l, err := m.Learner(net, method.LearnerOptions{Precision: torch.FP32})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// updates of these tests.
const updates = 4

// see shows a learner the batches from number first up to end, and returns the last loss.
func see(t testing.TB, l method.Learner, first, end int) (loss float64) {
	t.Helper()
	for i := first; i < end; i++ {
		losses, err := l.Step(batchOf(2*(i%3), 2), i, updates)
		if err != nil || len(losses) != 1 || losses[0].Name != anomaly.LossTotal || !losses.Finite() {
			t.Fatalf("got losses %v and error %v, want one that is finite", losses, err)
		}
		loss = losses[0].Value
	}
	return loss
}

func finish(t testing.TB, l method.Learner) method.Net {
	t.Helper()
	net, err := l.Finish(t.Context(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

func trained(t testing.TB, m method.Method) method.Net {
	t.Helper()
	l := newLearner(t, m, newNet(t, m, false))
	if err := l.Begin(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	see(t, l, 0, updates)
	return finish(t, l)
}

// write puts tensors into a file and opens it.
func write(t testing.TB, sources []weights.Source) *weights.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.safetensors")
	if err := weights.WriteFile(path, nil, sources); err != nil {
		t.Fatal(err)
	}
	file, err := weights.OpenSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// bytesOf are all tensors of a net.
func bytesOf(t testing.TB, net method.Net) []byte {
	t.Helper()
	var buffer bytes.Buffer
	if err := weights.Write(&buffer, nil, net.State()); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// predict judges pictures from number first on.
func predict(t testing.TB, net method.Net, first, n int) (maps, scores []float32) {
	t.Helper()
	var s torch.Scope
	defer s.Close()
	x := s.Tensor(torch.FromSlice(batchOf(first, n).Clean, int64(n), 3, side, side))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	m, sc := s.Pair(net.Predict(x))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	maps, err := torch.Read[float32](m)
	if err != nil {
		t.Fatal(err)
	}
	if scores, err = torch.Read[float32](sc); err != nil {
		t.Fatal(err)
	}
	return maps, scores
}

// What was not there in learning is less likely, by either map, and scores lie where MostScore says.
func TestDefects(t *testing.T) {
	for _, kind := range []string{fastflow.MapProbability, fastflow.MapLikelihood} {
		for _, top := range []float64{0, 0.01} {
			f := small()
			f.FlowMap, f.FlowTop = kind, top
			m := fastflow.New(settings(), f)
			l := newLearner(t, m, newNet(t, m, false))
			if err := l.Begin(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			first := see(t, l, 0, 1)
			if last := see(t, l, 1, 30); !(last < first) {
				t.Errorf("got a loss of %v after 30 updates, want less than %v, the first", last, first)
			}
			net := finish(t, l)
			_, good := predict(t, net, 0, 3)
			maps, bad := predict(t, net, 100, 1)
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

// A training that is put down between any two steps leads to the same net as one that is not, to the bit.
func TestResume(t *testing.T) {
	m := fastflow.New(settings(), small())
	want := bytesOf(t, trained(t, m))
	for stop := range updates + 1 {
		first := newLearner(t, m, newNet(t, m, false))
		if err := first.Begin(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		see(t, first, 0, stop)
		var s torch.Scope
		sources, err := first.State(&s)
		if err != nil {
			t.Fatal(err)
		}
		file := write(t, sources)
		s.Close()
		second := newLearner(t, m, newNet(t, m, true))
		if err := second.Restore(file, anomaly.Facts{}); err != nil {
			t.Fatal(err)
		}
		see(t, second, stop, updates)
		if got := bytesOf(t, finish(t, second)); !bytes.Equal(got, want) {
			t.Errorf("stopped after %d of %d updates: got another net than without", stop, updates)
		}
	}
}

// Learning goes on after a net was asked for.
func TestFinishBetween(t *testing.T) {
	m := fastflow.New(settings(), small())
	want := bytesOf(t, trained(t, m))
	l := newLearner(t, m, newNet(t, m, false))
	if err := l.Begin(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	see(t, l, 0, 2)
	net, err := l.Finish(t.Context(), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	predict(t, net, 0, 1)
	see(t, l, 2, updates)
	if got := bytesOf(t, finish(t, l)); !bytes.Equal(got, want) {
		t.Error("got another net than without one on the way")
	}
}

func TestSeed(t *testing.T) {
	s := settings()
	first := bytesOf(t, trained(t, fastflow.New(s, small())))
	if again := bytesOf(t, trained(t, fastflow.New(s, small()))); !bytes.Equal(first, again) {
		t.Error("got another net of the same seed")
	}
	s.Seed++
	if second := bytesOf(t, trained(t, fastflow.New(s, small()))); bytes.Equal(first, second) {
		t.Error("got the same net of another seed")
	}
}

// A net from its model file, another order of channels included, gives the same maps and scores to the bit.
func TestModelFile(t *testing.T) {
	s := settings()
	m := fastflow.New(s, small())
	net := trained(t, m)
	wantMaps, wantScores := predict(t, net, 100, 1)
	s.Seed += 100
	other := fastflow.New(s, small())
	for _, blank := range []bool{true, false} {
		loaded := newNet(t, other, blank)
		if err := other.Load(loaded, write(t, net.State()), anomaly.Facts{}); err != nil {
			t.Fatal(err)
		}
		if err := loaded.Settle(); err != nil {
			t.Fatal(err)
		}
		maps, scores := predict(t, loaded, 100, 1)
		if !slices.Equal(maps, wantMaps) || scores[0] != wantScores[0] {
			t.Errorf("got a score of %v from the file, want %v and the same map", scores[0], wantScores[0])
		}
	}
}

// Released, a net predicts as before.
func TestRelease(t *testing.T) {
	net := trained(t, fastflow.New(settings(), small()))
	wantMaps, wantScores := predict(t, net, 100, 2)
	if err := net.(method.Releaser).Release(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		maps, scores := predict(t, net, 100, 2)
		if !slices.Equal(maps, wantMaps) || !slices.Equal(scores, wantScores) {
			t.Errorf("got scores %v, want %v and the same maps", scores, wantScores)
		}
	}
}

func TestDamaged(t *testing.T) {
	m := fastflow.New(settings(), small())
	net := trained(t, m)
	for _, c := range []struct {
		what   string
		change func(all []weights.Source) []weights.Source
		want   string
	}{
		{"no flow", func(all []weights.Source) []weights.Source { return all[:len(all)-1] }, "flow.layer3.1.conv2.bias"},
		{"no teacher", func(all []weights.Source) []weights.Source { return all[1:] }, "encoder.conv1.weight"},
		{"left over", func(all []weights.Source) []weights.Source {
			more := all[len(all)-1]
			more.Name = "flow.more"
			return append(all, more)
		}, "flow.more"},
		{"a channel twice", func(all []weights.Source) []weights.Source {
			at := slices.IndexFunc(all, func(s weights.Source) bool { return s.Name == "flow.layer2.0.order" })
			of := all[at].Bytes
			all[at].Bytes = func() ([]byte, error) {
				data, err := of()
				copy(data, data[8:16])
				return data, err
			}
			return all
		}, "flow.layer2.0.order is no order of 128 channels"},
		{"a channel beyond the last", func(all []weights.Source) []weights.Source {
			at := slices.IndexFunc(all, func(s weights.Source) bool { return s.Name == "flow.layer1.1.order" })
			of := all[at].Bytes
			all[at].Bytes = func() ([]byte, error) {
				data, err := of()
				data[7] = 1
				return data, err
			}
			return all
		}, "flow.layer1.1.order is no order of 64 channels"},
	} {
		t.Run(c.what, func(t *testing.T) {
			err := m.Load(newNet(t, m, true), write(t, c.change(net.State())), anomaly.Facts{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
	if _, err := m.MostScore(anomaly.Facts{MapLevels: anomaly.MapTerms{1}}); !errors.Is(err, anomaly.ErrDamaged) {
		t.Errorf("terms of a map: got error %v, want %v", err, anomaly.ErrDamaged)
	}
	// Another size of images, and with it of the layer norms.
	s := settings()
	s.ImageSize = 96
	other := fastflow.New(s, small())
	if err := other.Load(newNet(t, other, true), write(t, net.State()), anomaly.Facts{}); err == nil || !strings.Contains(err.Error(), "norm_weight") {
		t.Errorf("of another size: got error %v, want one about the layer norms", err)
	}
}

// A rate that drives the weights out of all bounds ends the training, at the loss or, after the last update, at the end.
func TestDiverged(t *testing.T) {
	f := small()
	f.FlowRate = 1e30
	m := fastflow.New(settings(), f)
	l := newLearner(t, m, newNet(t, m, false))
	if err := l.Begin(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		losses, err := l.Step(batchOf(0, 2), i, 4)
		if err != nil {
			t.Fatal(err)
		}
		if !losses.Finite() {
			_, err = l.Finish(t.Context(), nil, true)
			var advice *setting.Advice
			if !errors.As(err, &advice) || !strings.Contains(err.Error(), "flow_rate") {
				t.Errorf("got error %v, want one with advice", err)
			}
			return
		}
	}
	t.Error("got finite losses, want them to diverge")
}

func TestPlan(t *testing.T) {
	for _, c := range []struct{ updates, epochs, batch, images, want int }{
		{0, 7, 2, 9, 7}, {10, 100, 2, 9, 2}, {11, 100, 2, 9, 3}, {1000, 7, 2, 9, 7}, {1, 7, 32, 9, 1},
	} {
		s := settings()
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
		s, f := settings(), small()
		s.Arch = c.arch
		c.change(&f)
		m := fastflow.New(s, f)
		var want int64
		for _, tensor := range newNet(t, m, true).State() {
			if strings.HasPrefix(tensor.Name, "flow.") {
				stored := weights.Tensor{Shape: tensor.Shape}
				want += int64(stored.Len() * tensor.DType.Size())
			}
		}
		if got := m.(method.Sized).WeightBytes(); got != want {
			t.Errorf("%s, %+v: got %d bytes, want %d", c.arch, f, got, want)
		}
		if got, least := m.PredictionBytes(1, 0), 4*want; got < least {
			t.Errorf("%s, %+v: got an estimate of %d bytes for a file that has less than the weights, want %d or more", c.arch, f, got, least)
		}
	}
}

// What trains can be opened: weights beyond the largest model file are refused.
func TestTooLarge(t *testing.T) {
	s, f := settings(), fastflow.DefaultFlows()
	s.Arch, f.FlowSteps, f.FlowHidden = "wide_resnet50_2", 64, 8
	var wrong *setting.Error
	if err := fastflow.New(s, f).Check(); !errors.As(err, &wrong) || wrong.Field != "flow_hidden" {
		t.Errorf("got error %v, want one about flow_hidden", err)
	}
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
		var wrong *setting.Error
		if err := fastflow.New(settings(), f).Check(); !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%s: got error %v, want one about it", what, err)
		}
	}
	for what, f := range map[string]fastflow.Flows{"default": fastflow.DefaultFlows(), "released": fastflow.ReleasedFlows()} {
		if err := fastflow.New(settings(), f).Check(); err != nil {
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
		s, f := settings(), small()
		s.Arch, f.FlowKernels = c.arch, c.kernels
		state := newNet(t, fastflow.New(s, f), true).State()
		at := slices.IndexFunc(state, func(s weights.Source) bool { return s.Name == "flow.layer1.1.conv1.weight" })
		if at < 0 || state[at].Shape[3] != c.want {
			t.Errorf("%s, %s: got tensor %d of the second step's weights, %v, want kernels of %d", c.arch, c.kernels, at, state, c.want)
		}
	}
}

func TestMain(m *testing.M) {
	code := m.Run()
	if open := torch.LiveTensors(); open > 0 && code == 0 {
		fmt.Fprintf(os.Stderr, "%d tensors are still open, want none\n", open)
		code = 1
	}
	os.Exit(code)
}
