package patchcore_test

import (
	"bytes"
	"context"
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
	"rdpp/rdpp/method"
	"rdpp/rdpp/patchcore"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

const side = 64 // S of these tests

func settings() method.Settings {
	return method.Settings{Arch: "resnet18", Method: patchcore.Name, ImageSize: side, Batch: 2, Seed: 3, MapSigma: 2.5}
}

// memory keeps a tenth, and looks at few distances at a time.
func memory() patchcore.Memory {
	m := patchcore.DefaultMemory()
	m.Coreset, m.CoresetDimensions, m.DistanceMiB = 0.1, 16, 1
	return m
}

// batchOf are pictures from number first on, as the loader hands them out.
func batchOf(first, n int) *dataset.Batch {
	b := &dataset.Batch{B: n}
	for i := range n {
		for _, v := range normalised(first+i, side) {
			b.Clean = append(b.Clean, float32(v))
		}
	}
	return b
}

// newNet has a teacher and no bank.
func newNet(t testing.TB, m method.Method) method.Net {
	t.Helper()
	net, err := m.New(method.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	fillTeacher(t, net.Backbone())
	return net
}

// learner is about to see its first batch.
func learner(t testing.TB, m method.Method, net method.Net) method.Learner {
	t.Helper()
	l, err := m.Learner(net, method.LearnerOptions{Precision: torch.FP32})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// see shows a learner the batches from number first up to end.
func see(t testing.TB, l method.Learner, first, end int) {
	t.Helper()
	for i := first; i < end; i++ {
		if losses, err := l.Step(batchOf(2*i, 2), i, 4); err != nil || len(losses) > 0 {
			t.Fatalf("got %v and error %v, want no losses", losses, err)
		}
	}
}

func finish(t testing.TB, l method.Learner) method.Net {
	t.Helper()
	net, err := l.Finish(t.Context(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// trained has seen eight pictures.
func trained(t testing.TB, m method.Method) method.Net {
	t.Helper()
	l := learner(t, m, newNet(t, m))
	if err := l.Begin(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	see(t, l, 0, 4)
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
func predict(t testing.TB, net method.Net, first, n int) (maps []float32, scores []float32) {
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

func TestDefects(t *testing.T) {
	net := trained(t, patchcore.New(settings(), memory()))
	_, good := predict(t, net, 0, 8)
	maps, bad := predict(t, net, 100, 1)
	if !(bad[0] > slices.Max(good)) {
		t.Errorf("got scores of up to %v for good pictures and of %v for one with a square, want that to be above", slices.Max(good), bad[0])
	}
	if got := slices.Max(maps); got != bad[0] {
		t.Errorf("got a score of %v, want the map's maximum, %v", bad[0], got)
	}
	published := memory()
	published.PatchScore, published.Neighbours = patchcore.ScorePatch, 9
	net = trained(t, patchcore.New(settings(), published))
	maps, bad = predict(t, net, 100, 1)
	if got := slices.Max(maps); !(bad[0] > got*8/9) || bad[0] == got {
		t.Errorf("got a score of %v, want the distance of a patch times 8/9 to 1, the smoothed map being %v at most", bad[0], got)
	}
}

func TestResume(t *testing.T) {
	m := patchcore.New(settings(), memory())
	want := bytesOf(t, trained(t, m))
	for stop := range 5 {
		first := learner(t, m, newNet(t, m))
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
		net, err := m.New(method.Options{Blank: true})
		if err != nil {
			t.Fatal(err)
		}
		defer net.Close()
		second := learner(t, m, net)
		if err := second.Restore(file, anomaly.Facts{}); err != nil {
			t.Fatal(err)
		}
		see(t, second, stop, 4)
		if got := bytesOf(t, finish(t, second)); !bytes.Equal(got, want) {
			t.Errorf("stopped after %d of 4 batches: got another net than without", stop)
		}
	}
}

// Before anything is learned a net tells how large the model file is going to be.
func TestGrowth(t *testing.T) {
	m := patchcore.New(settings(), memory())
	net := newNet(t, m)
	l, err := m.Learner(net, method.LearnerOptions{Precision: torch.FP32, Images: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	size := func() int64 {
		n, err := weights.Size(nil, net.State())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	growth := func() int64 {
		n, err := net.(method.Grower).Growth()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before, told := size(), growth()
	see(t, l, 0, 4)
	finish(t, l)
	const header = 200 // bytes about one more tensor
	if got := size() - before; got <= told || got > told+header || growth() != 0 {
		t.Errorf("got a file larger by %d bytes, and %d to come, want %d and what tells of the bank, and nothing to come", got, growth(), told)
	}
}

// A checkpoint that lacks patches of a batch, the last one's too, is refused.
func TestLacking(t *testing.T) {
	m := patchcore.New(settings(), memory())
	first := learner(t, m, newNet(t, m))
	see(t, first, 0, 4)
	var s torch.Scope
	defer s.Close()
	sources, err := first.State(&s)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"encoder.conv1.weight": "encoder.conv1.weight", "seen.0": "seen.0 is missing",
		"seen.2": "seen.2 is missing", "seen.3": "384 patches of 512", "seen.": "0 patches of 512"} {
		lacking := slices.DeleteFunc(slices.Clone(sources), func(s weights.Source) bool {
			return s.Name == name || name == "seen." && strings.HasPrefix(s.Name, name)
		})
		net, err := m.New(method.Options{Blank: true})
		if err != nil {
			t.Fatal(err)
		}
		defer net.Close()
		second, err := m.Learner(net, method.LearnerOptions{Precision: torch.FP32, Images: 8})
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if err = second.Restore(write(t, lacking), anomaly.Facts{}); err == nil {
			_, err = second.Finish(t.Context(), nil, true)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: got error %v, want one with %q", name, err, want)
		}
	}
}

func TestThreads(t *testing.T) {
	m := patchcore.New(settings(), memory())
	var want []byte
	for _, n := range []int{1, 2, 3} {
		if err := torch.SetThreads(n); err != nil {
			t.Fatal(err)
		}
		got := bytesOf(t, trained(t, m))
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d threads: got another net than with one", n)
		}
	}
}

func TestSeed(t *testing.T) {
	s := settings()
	first := bytesOf(t, trained(t, patchcore.New(s, memory())))
	s.Seed++
	if second := bytesOf(t, trained(t, patchcore.New(s, memory()))); bytes.Equal(first, second) {
		t.Error("got the same net of another seed, want another coreset")
	}
}

func TestBatch(t *testing.T) {
	for _, weighted := range []int{1, 9} {
		c := memory()
		c.Neighbours = weighted
		net := trained(t, patchcore.New(settings(), c))
		maps, scores := predict(t, net, 100, 3)
		for i := range 3 {
			m, s := predict(t, net, 100+i, 1)
			if s[0] != scores[i] || !slices.Equal(m, maps[i*side*side:][:side*side]) {
				t.Errorf("image %d: got a score of %v alone and %v in a batch, want the same score and map", i, s[0], scores[i])
			}
		}
	}
}

func TestModelFile(t *testing.T) {
	m := patchcore.New(settings(), memory())
	net := trained(t, m)
	wantMaps, wantScores := predict(t, net, 100, 1)
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
	maps, scores := predict(t, loaded, 100, 1)
	if !slices.Equal(maps, wantMaps) || scores[0] != wantScores[0] {
		t.Errorf("got a score of %v from the file, want %v and the same map", scores[0], wantScores[0])
	}
}

func TestDamaged(t *testing.T) {
	m := patchcore.New(settings(), memory())
	net := trained(t, m)
	at := func(sources []weights.Source, name string) *weights.Source {
		return &sources[slices.IndexFunc(sources, func(s weights.Source) bool { return s.Name == name })]
	}
	for _, c := range []struct {
		what   string
		change func(all []weights.Source) []weights.Source
		want   string
	}{
		{"no bank", func(all []weights.Source) []weights.Source { return all[:len(all)-1] }, "bank.patches is missing"},
		{"another architecture", func(all []weights.Source) []weights.Source {
			bank := at(all, "bank.patches")
			bank.Shape = []int{bank.Shape[0] * 2, bank.Shape[1] / 2}
			return all
		}, "needed are rows of 384"},
		{"an empty bank", func(all []weights.Source) []weights.Source {
			bank := at(all, "bank.patches")
			bank.Shape, bank.Bytes = []int{0, 384}, func() ([]byte, error) { return nil, nil }
			return all
		}, "has shape [0 384]"},
		{"no number", func(all []weights.Source) []weights.Source {
			bank := at(all, "bank.patches")
			bytesOf := bank.Bytes
			bank.Bytes = func() ([]byte, error) {
				data, err := bytesOf()
				copy(data, []byte{0, 0x7e}) // NaN
				return data, err
			}
			return all
		}, "infinite or none"},
		{"no teacher", func(all []weights.Source) []weights.Source { return all[1:] }, "encoder.conv1.weight"},
		{"left over", func(all []weights.Source) []weights.Source {
			more := *at(all, "bank.patches")
			more.Name = "bank.more"
			return append(all, more)
		}, "bank.more"},
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

func TestCheck(t *testing.T) {
	for field, change := range map[string]func(*patchcore.Memory){
		"coreset":            func(m *patchcore.Memory) { m.Coreset = math.NaN() },
		"coreset_dimensions": func(m *patchcore.Memory) { m.CoresetDimensions = -1 },
		"coreset_starts":     func(m *patchcore.Memory) { m.CoresetStarts = 0 },
		"patch_dimensions":   func(m *patchcore.Memory) { m.PatchDimensions = 3 },
		"patch_score":        func(m *patchcore.Memory) { m.PatchScore = "" },
		"neighbours":         func(m *patchcore.Memory) { m.Neighbours = 0 },
		"distance_mib":       func(m *patchcore.Memory) { m.DistanceMiB = 1 << 20 },
	} {
		m := patchcore.DefaultMemory()
		change(&m)
		var wrong *setting.Error
		if err := patchcore.New(settings(), m).Check(); !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%s: got error %v, want one about it", field, err)
		}
	}
	for what, m := range map[string]patchcore.Memory{"default": patchcore.DefaultMemory(), "released": patchcore.ReleasedMemory()} {
		if err := patchcore.New(settings(), m).Check(); err != nil {
			t.Errorf("%s: got error %v, want none", what, err)
		}
	}
}

func TestInterrupted(t *testing.T) {
	m := patchcore.New(settings(), memory())
	l := learner(t, m, newNet(t, m))
	if err := l.Begin(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Finish(t.Context(), nil, false); err == nil {
		t.Error("nothing seen: got no error, want one")
	}
	see(t, l, 0, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Finish(ctx, nil, false); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	if _, err := l.Finish(t.Context(), nil, false); err != nil {
		t.Errorf("taken up again: got error %v, want none", err)
	}
}

// watched calls look whenever it is asked whether it has ended.
type watched struct {
	context.Context
	look func()
}

func (w watched) Err() error {
	w.look()
	return w.Context.Err()
}

// What is remembered is freed before the search for the last net, and stays for one after which more is learned.
func TestFreed(t *testing.T) {
	m := patchcore.New(settings(), memory())
	l := learner(t, m, newNet(t, m))
	before := torch.LiveTensors()
	see(t, l, 0, 4)
	for _, last := range []bool{false, true} {
		most := int64(-1)
		ctx := watched{t.Context(), func() { most = max(most, int64(torch.LiveTensors())-int64(before)) }}
		if _, err := l.Finish(ctx, nil, last); err != nil {
			t.Fatal(err)
		}
		want := map[bool]int64{false: 1 + 4, true: 1 + 1}[last] // the projection, and four batches or the first net's bank
		if most != want {
			t.Errorf("last %v: got %d tensors during the search, want %d", last, most, want)
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
