package patchcore_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/method"
	"rdpp/rdpp/method/methodtest"
	"rdpp/rdpp/patchcore"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// memory keeps a tenth, and looks at few distances at a time.
func memory() patchcore.Memory {
	m := patchcore.DefaultMemory()
	m.Coreset, m.CoresetDimensions, m.DistanceMiB = 0.1, 16, 1
	return m
}

func TestDefects(t *testing.T) {
	net := methodtest.Trained(t, patchcore.New(methodtest.Settings(patchcore.Name), memory()))
	_, good := methodtest.Predict(t, net, 0, methodtest.Known)
	maps, bad := methodtest.Predict(t, net, methodtest.Odd, 1)
	if !(bad[0] > slices.Max(good)) {
		t.Errorf("got scores of up to %v for good pictures and of %v for one with a square, want that to be above", slices.Max(good), bad[0])
	}
	if got := slices.Max(maps); got != bad[0] {
		t.Errorf("got a score of %v, want the map's maximum, %v", bad[0], got)
	}
	published := memory()
	published.PatchScore, published.Neighbours = patchcore.ScorePatch, 9
	net = methodtest.Trained(t, patchcore.New(methodtest.Settings(patchcore.Name), published))
	maps, bad = methodtest.Predict(t, net, methodtest.Odd, 1)
	if got := slices.Max(maps); !(bad[0] > got*8/9) || bad[0] == got {
		t.Errorf("got a score of %v, want the distance of a patch times 8/9 to 1, the smoothed map being %v at most", bad[0], got)
	}
}

// Before anything is learned a net tells how large the model file is going to be.
func TestGrowth(t *testing.T) {
	m := patchcore.New(methodtest.Settings(patchcore.Name), memory())
	net := methodtest.New(t, m)
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
	methodtest.Learn(t, l, 0, methodtest.Steps)
	methodtest.Finish(t, l)
	const header = 200 // bytes about one more tensor
	if got := size() - before; got <= told || got > told+header || growth() != 0 {
		t.Errorf("got a file larger by %d bytes, and %d to come, want %d and what tells of the bank, and nothing to come", got, growth(), told)
	}
}

// A checkpoint that lacks patches of a batch, the last one's too, is refused.
func TestLacking(t *testing.T) {
	m := patchcore.New(methodtest.Settings(patchcore.Name), memory())
	first := methodtest.Learner(t, m, methodtest.New(t, m))
	methodtest.Learn(t, first, 0, methodtest.Steps)
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
		if err = second.Restore(methodtest.Write(t, lacking), anomaly.Facts{}); err == nil {
			_, err = second.Finish(t.Context(), nil, true)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: got error %v, want one with %q", name, err, want)
		}
	}
}

func TestThreads(t *testing.T) {
	m := patchcore.New(methodtest.Settings(patchcore.Name), memory())
	var want []byte
	for _, n := range []int{1, 2, 3} {
		if err := torch.SetThreads(n); err != nil {
			t.Fatal(err)
		}
		got := methodtest.Bytes(t, methodtest.Trained(t, m))
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d threads: got another net than with one", n)
		}
	}
}

func TestMethod(t *testing.T) {
	methodtest.Run(t, func(seed uint64) method.Method {
		s := methodtest.Settings(patchcore.Name)
		s.Seed = seed
		return patchcore.New(s, memory())
	})
	t.Run("weighted", func(t *testing.T) {
		c := memory()
		c.Neighbours = 9
		methodtest.OneScore(t, patchcore.New(methodtest.Settings(patchcore.Name), c))
	})
}

func TestDamaged(t *testing.T) {
	m := patchcore.New(methodtest.Settings(patchcore.Name), memory())
	net := methodtest.Trained(t, m)
	const bank = "bank.patches"
	methodtest.Damaged(t, m, net, methodtest.Damage{What: "no bank", Change: methodtest.Lacking(bank).Change, Want: bank + " is missing"},
		methodtest.Damage{What: "another architecture", Change: methodtest.Reshaped(bank).Change, Want: "needed are rows of 384"},
		methodtest.Altered(bank, "infinite or none", 0, 0x7e), // a float16 that is none
		methodtest.Damage{What: "an empty bank", Change: func(all []weights.Source) []weights.Source {
			bank := &all[len(all)-1]
			bank.Shape, bank.Bytes = []int{0, 384}, func() ([]byte, error) { return nil, nil }
			return all
		}, Want: "has shape [0 384]"})
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
		methodtest.Refused(t, field, field, patchcore.New(methodtest.Settings(patchcore.Name), m))
	}
	for what, m := range map[string]patchcore.Memory{"default": patchcore.DefaultMemory(), "released": patchcore.ReleasedMemory()} {
		if err := patchcore.New(methodtest.Settings(patchcore.Name), m).Check(); err != nil {
			t.Errorf("%s: got error %v, want none", what, err)
		}
	}
}

func TestInterrupted(t *testing.T) {
	m := patchcore.New(methodtest.Settings(patchcore.Name), memory())
	l := methodtest.Learner(t, m, methodtest.New(t, m))
	if err := l.Begin(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Finish(t.Context(), nil, false); err == nil {
		t.Error("nothing seen: got no error, want one")
	}
	if losses := methodtest.Learn(t, l, 0, 1); len(losses) > 0 {
		t.Errorf("got losses %v, want none", losses)
	}
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
	m := patchcore.New(methodtest.Settings(patchcore.Name), memory())
	l := methodtest.Learner(t, m, methodtest.New(t, m))
	before := torch.LiveTensors()
	methodtest.Learn(t, l, 0, methodtest.Steps)
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

func TestMain(m *testing.M) { methodtest.Main(m) }
