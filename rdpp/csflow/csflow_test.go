package csflow_test

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
	"rdpp/rdpp/csflow"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

const side = 64 // S of these tests

func settings() method.Settings { return settingsOf("resnet18") }

func settingsOf(arch string) method.Settings {
	return method.Settings{Arch: arch, Method: csflow.Name, ImageSize: side, Batch: 2, Epochs: 3, Seed: 3, MapSigma: 2.5}
}

// narrow has few blocks and few channels between layers, and learns fast.
func narrow() csflow.CrossFlow {
	f := csflow.DefaultCrossFlow()
	f.CrossBlocks, f.CrossHidden, f.CrossRate = 2, 16, 0.002
	return f
}

// picture is 3 x S x S, as the teacher sees it: rings and stripes, and from number 100 on a square that was not there.
func picture(i int) []float32 {
	values := make([]float32, 0, 3*side*side)
	for c := range 3 {
		for y := range side {
			for x := range side {
				v := (x*x+y*y)/(20+3*c)*9 + (x*(i%5+2)+y*(c+1))*3 + i*5
				if at := 10 + 7*(i-100); i >= 100 && x >= at && x < at+12 && y >= 20 && y < 32 {
					v = v*7 + x*y
				}
				values = append(values, float32(v%256)/64-2)
			}
		}
	}
	return values
}

// batchOf are pictures from number first on, as the loader hands them out.
func batchOf(first, n int) *dataset.Batch {
	b := &dataset.Batch{B: n}
	for i := range n {
		b.Clean = append(b.Clean, picture(first+i)...)
	}
	return b
}

func newNet(t testing.TB, m method.Method) method.Net {
	t.Helper()
	net, err := m.New(method.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	if len(net.Backbone().State()) == 90 { // resnet18; others keep their fresh weights
		fillTeacher(t, net.Backbone())
	}
	return net
}

func learner(t testing.TB, m method.Method, net method.Net) method.Learner {
	t.Helper()
	l, err := m.Learner(net, method.LearnerOptions{Precision: torch.FP32})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

const steps = 8 // of trained

// learn takes steps from first up to end, and returns their losses.
func learn(t testing.TB, l method.Learner, first, end int) (losses []float64) {
	t.Helper()
	for i := first; i < end; i++ {
		all, err := l.Step(batchOf(2*(i%4), 2), i, steps)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != 1 || all[0].Name != anomaly.LossTotal {
			t.Fatalf("got losses %v, want the total alone", all)
		}
		losses = append(losses, all[0].Value)
	}
	return losses
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
	l := learner(t, m, newNet(t, m))
	if err := l.Begin(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	learn(t, l, 0, steps)
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

// The likelihood of good pictures rises, and one with a square is less likely than they are.
func TestLearns(t *testing.T) {
	for _, c := range []struct{ of, score string }{{csflow.MapFinest, csflow.ScoreLatent}, {csflow.MapProduct, csflow.ScoreMap}} {
		f := narrow()
		f.CrossMap, f.CrossScore = c.of, c.score
		m := csflow.New(settings(), f)
		l := learner(t, m, newNet(t, m))
		if err := l.Begin(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		losses := learn(t, l, 0, 40)
		if first, last := losses[0], losses[len(losses)-1]; !(last < first-0.1) {
			t.Errorf("%v: got a loss of %v at first and %v in the end, want it to fall", c, first, last)
		}
		net := finish(t, l)
		_, good := predict(t, net, 0, 8)
		maps, bad := predict(t, net, 100, 1)
		if !(bad[0] > slices.Max(good)) {
			t.Errorf("%v: got scores of up to %v for good pictures and of %v for one with a square, want that to be above", c, slices.Max(good), bad[0])
		}
		if got := slices.Max(maps) == bad[0]; got != (c.score == csflow.ScoreMap) {
			t.Errorf("%v: got a score of %v, the map's maximum being %v", c, bad[0], slices.Max(maps))
		}
	}
}

// Put down after any step and taken up again, a learner leads to the same net to the bit.
func TestResume(t *testing.T) {
	m := csflow.New(settings(), narrow())
	want := bytesOf(t, trained(t, m))
	for _, stop := range []int{0, 1, 5, steps} {
		first := learner(t, m, newNet(t, m))
		if err := first.Begin(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		learn(t, first, 0, stop)
		var s torch.Scope
		sources, err := first.State(&s)
		if err != nil {
			t.Fatal(err)
		}
		file := write(t, sources)
		s.Close()
		net, err := m.New(method.Options{Blank: true})
		if err != nil {
			t.Fatal(err)
		}
		defer net.Close()
		second := learner(t, m, net)
		if err := second.Restore(file, anomaly.Facts{}); err != nil {
			t.Fatal(err)
		}
		learn(t, second, stop, steps)
		if got := bytesOf(t, finish(t, second)); !bytes.Equal(got, want) {
			t.Errorf("stopped after %d of %d steps: got another net than without", stop, steps)
		}
	}
}

// Learning goes on after a net was asked for on the way, which changes nothing.
func TestFinishOnTheWay(t *testing.T) {
	m := csflow.New(settings(), narrow())
	want := bytesOf(t, trained(t, m))
	l := learner(t, m, newNet(t, m))
	if err := l.Begin(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	learn(t, l, 0, 3)
	net, err := l.Finish(t.Context(), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	predict(t, net, 0, 1)
	learn(t, l, 3, steps)
	if got := bytesOf(t, finish(t, l)); !bytes.Equal(got, want) {
		t.Error("got another net than without a look at it on the way")
	}
}

func TestSeed(t *testing.T) {
	s := settings()
	first := bytesOf(t, trained(t, csflow.New(s, narrow())))
	s.Seed++
	if second := bytesOf(t, trained(t, csflow.New(s, narrow()))); bytes.Equal(first, second) {
		t.Error("got the same net of another seed")
	}
}

// An image has the same map and score alone and in a batch, from the model file and where the weights are released.
func TestOneScore(t *testing.T) {
	for _, arch := range []string{"resnet18", torch.EfficientNetB5} {
		t.Run(arch, func(t *testing.T) { testOneScore(t, csflow.New(settingsOf(arch), narrow())) })
	}
}

func testOneScore(t *testing.T, m method.Method) {
	net := trained(t, m)
	maps, scores := predict(t, net, 100, 3)
	check := func(what string, net method.Net) {
		t.Helper()
		for i := range 3 {
			m, s := predict(t, net, 100+i, 1)
			if s[0] != scores[i] || !slices.Equal(m, maps[i*side*side:][:side*side]) {
				t.Errorf("%s, image %d: got a score of %v, want %v and the same map", what, i, s[0], scores[i])
			}
		}
	}
	check("alone", net)
	loaded, err := m.New(method.Options{Blank: true})
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	if err := m.Load(loaded, write(t, net.State()), anomaly.Facts{}); err != nil {
		t.Fatal(err)
	}
	if err := loaded.Settle(); err != nil {
		t.Fatal(err)
	}
	if err := loaded.(method.Releaser).Release(); err != nil {
		t.Fatal(err)
	}
	check("released", loaded)
	check("released, once more", loaded)
	var s torch.Scope
	defer s.Close()
	larger := s.Tensor(torch.FromSlice(make([]float32, 3*4*side*side), 1, 3, 2*side, 2*side))
	if _, _, err := loaded.Predict(larger); !errors.Is(err, torch.ErrArgument) {
		t.Errorf("released, an image of another size: got error %v, want %v, the weights being gone", err, torch.ErrArgument)
	}
}

func TestDamaged(t *testing.T) {
	m := csflow.New(settings(), narrow())
	net := trained(t, m)
	at := func(sources []weights.Source, name string) *weights.Source {
		return &sources[slices.IndexFunc(sources, func(s weights.Source) bool { return s.Name == name })]
	}
	// changed puts other bytes at the beginning of a tensor.
	changed := func(name string, begin ...byte) func([]weights.Source) []weights.Source {
		return func(all []weights.Source) []weights.Source {
			source := at(all, name)
			bytesOf := source.Bytes
			source.Bytes = func() ([]byte, error) {
				data, err := bytesOf()
				copy(data, begin)
				return data, err
			}
			return all
		}
	}
	const weight, order = "flow.block0.r1.first0.weight", "flow.block1.order2"
	for _, c := range []struct {
		what   string
		change func(all []weights.Source) []weights.Source
		want   string
	}{
		{"no flow", func(all []weights.Source) []weights.Source {
			return slices.DeleteFunc(all, func(s weights.Source) bool { return strings.HasPrefix(s.Name, "flow.") })
		}, "flow.block0."},
		{"another shape", func(all []weights.Source) []weights.Source {
			w := at(all, weight)
			w.Shape = []int{w.Shape[1], w.Shape[0], 3, 3}
			return all
		}, weight},
		{"no number", changed(weight, 0, 0, 0xc0, 0x7f), "infinite or none"},
		{"a channel that is not there", changed(order, 0, 1), "in vain"},
		{"a channel below 0", changed(order, 255, 255, 255, 255, 255, 255, 255, 255), "in vain"},
		{"a channel twice", func(all []weights.Source) []weights.Source {
			source := at(all, order)
			bytesOf := source.Bytes
			source.Bytes = func() ([]byte, error) {
				data, err := bytesOf()
				copy(data[:8], data[8:16])
				return data, err
			}
			return all
		}, "twice"},
		{"no teacher", func(all []weights.Source) []weights.Source { return all[1:] }, "encoder.conv1.weight"},
		{"left over", func(all []weights.Source) []weights.Source {
			more := *at(all, weight)
			more.Name = "flow.more"
			return append(all, more)
		}, "flow.more"},
	} {
		t.Run(c.what, func(t *testing.T) {
			loaded, err := m.New(method.Options{Blank: true})
			if err != nil {
				t.Fatal(err)
			}
			defer loaded.Close()
			err = m.Load(loaded, write(t, c.change(net.State())), anomaly.Facts{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
	if _, err := m.MostScore(anomaly.Facts{MapLevels: anomaly.MapTerms{1}}); !errors.Is(err, anomaly.ErrDamaged) {
		t.Errorf("terms of a map: got error %v, want %v", err, anomaly.ErrDamaged)
	}
	if most, err := m.MostScore(anomaly.Facts{}); err != nil || !math.IsInf(most, 1) {
		t.Errorf("got a bound of %v and error %v, want none", most, err)
	}
}

// A rate that drives the weights out of all bounds ends the training, at the loss or, after the last update, at the end.
func TestDiverged(t *testing.T) {
	f := narrow()
	f.CrossRate = 1e30
	m := csflow.New(settings(), f)
	l := learner(t, m, newNet(t, m))
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
			if !errors.As(err, &advice) || !strings.Contains(err.Error(), "cross_rate") {
				t.Errorf("got error %v, want one with advice", err)
			}
			return
		}
	}
	t.Error("got finite losses, want them to diverge")
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
		s, f := settings(), narrow()
		s.Arch = c.arch
		c.change(&f)
		m := csflow.New(s, f)
		net, err := m.New(method.Options{Blank: true})
		if err != nil {
			t.Fatal(err)
		}
		defer net.Close()
		var want int64
		for _, tensor := range net.State() {
			if strings.HasPrefix(tensor.Name, "flow.") {
				stored := weights.Tensor{Shape: tensor.Shape}
				want += int64(stored.Len() * tensor.DType.Size())
			}
		}
		if got := m.(method.Sized).WeightBytes(); got != want {
			t.Errorf("%s, %+v: got %d bytes, want %d", c.arch, f, got, want)
		}
		least := int64(12 << 20)
		if c.arch == torch.EfficientNetB5 { // without Winograd's
			least = 4 << 20
		}
		if got := m.PredictionBytes(want+(1<<20), 0) - m.PredictionBytes(want, 0); got < least {
			t.Errorf("%s, %+v: got an estimate of %d bytes for a teacher of 1 MiB, want the forms for three sizes, %d or more", c.arch, f, got, least)
		}
		if got, least := m.PredictionBytes(1, 0), 4*want; got < least {
			t.Errorf("%s, %+v: got an estimate of %d bytes for a file that has less than the weights, want %d or more", c.arch, f, got, least)
		}
	}
}

// What trains can be opened: weights beyond the largest model file are refused.
func TestTooLarge(t *testing.T) {
	s, f := settings(), csflow.ReleasedCrossFlow()
	s.Arch = "wide_resnet50_2"
	if err := csflow.New(s, f).Check(); err != nil {
		t.Errorf("as released: got error %v, want none", err)
	}
	f.CrossBlocks++
	var wrong *setting.Error
	if err := csflow.New(s, f).Check(); !errors.As(err, &wrong) || wrong.Field != "cross_hidden" {
		t.Errorf("a block more: got error %v, want one about cross_hidden", err)
	}
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
		var wrong *setting.Error
		if err := csflow.New(settings(), f).Check(); !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%s: got error %v, want one about it", field, err)
		}
	}
	for what, f := range map[string]csflow.CrossFlow{"default": csflow.DefaultCrossFlow(), "released": csflow.ReleasedCrossFlow()} {
		if err := csflow.New(settings(), f).Check(); err != nil {
			t.Errorf("%s: got error %v, want none", what, err)
		}
	}
}

// A training takes as many passes as its updates need, and no more than it may.
func TestPlan(t *testing.T) {
	for _, c := range []struct{ updates, epochs, images, want int }{{0, 3, 5, 3}, {7, 100, 5, 3}, {6, 100, 5, 2}, {7, 2, 5, 2}, {1, 100, 5, 1}} {
		s := settings()
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
	if _, err := method.TopOf(csflow.New(settings(), f)); !errors.As(err, &wrong) || wrong.Field != "cross_score" {
		t.Errorf("got error %v, want one about cross_score", err)
	}
	f.CrossScore = csflow.ScoreMap
	if share, err := method.TopOf(csflow.New(settings(), f)); err != nil || share != 0 {
		t.Errorf("got a share of %v and error %v, want the maximum", share, err)
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
