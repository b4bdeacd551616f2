package torch_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"rdpp/torch"
)

// Every kind of error comes from libtorch itself, by an operation that it has to refuse.
func TestErrorKinds(t *testing.T) {
	var s torch.Scope
	defer s.Close()
	small := s.Tensor(torch.FromSlice(make([]float32, 4), 1, 1, 2, 2))
	picture := s.Tensor(torch.FromSlice(make([]float32, 3*32*32), 1, 3, 32, 32))
	whole := s.Tensor(torch.FromSlice(make([]int64, 6), 2, 3))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	few, many := torch.Features{small, small, small}, torch.Features{picture, picture, picture}
	for _, c := range []struct {
		name string
		f    func() error
		want torch.Code
	}{
		{"closed tensor", func() error { return torch.Backward(nil) }, torch.ErrArgument},
		{"shapes", func() error { _, err := torch.LossKD(few, many, true, torch.Easy{}); return err }, torch.ErrArgument},
		{"number out of range", func() error { return torch.SetThreads(0) }, torch.ErrArgument},
		{"index out of range", func() error {
			adam := must(torch.NewAdam(0.5, 0.999, 1e-8))
			defer adam.Close()
			return adam.SetRate(3, 0.1)
		}, torch.ErrArgument},
		{"script", func() error { return torch.SaveScript(new(bytes.Buffer), "def", nil, nil) }, torch.ErrArgument},
		{"script's names", func() error {
			return torch.SaveScript(new(bytes.Buffer), "def forward(self):\n    return nothing\n", nil, nil)
		}, torch.ErrArgument},
		{"map of 2^48 values", func() error {
			_, _, err := torch.AnomalyMap(few, few, 1<<24, torch.MapOptions{Sigma: 4})
			return err
		}, torch.ErrOutOfMemory},
		{"device", func() error { _, err := picture.To(torch.CUDA(63), torch.Float32); return err }, torch.ErrDevice},
		{"device of a network", func() error {
			_, err := torch.NewStudent(torch.ModuleOptions{Arch: "resnet18", Device: torch.CUDA(63)})
			return err
		}, torch.ErrDevice},
		// Convolutions of float16 on a CPU are there from libtorch 2 on; logarithms of whole numbers in no version.
		{"softmax of whole numbers", func() error { _, _, err := torch.LossClass(whole, []int64{0, 1}, 0.1); return err }, torch.ErrUnsupported},
	} {
		err := c.f()
		var e *torch.Error
		if !errors.As(err, &e) || e.Code != c.want || e.Operation == "" || e.Message == "" || !errors.Is(fmt.Errorf("outer: %w", err), c.want) {
			t.Errorf("%s: got %v (%#v), want one of the kind %v", c.name, err, err, c.want)
		}
		for _, other := range []torch.Code{torch.ErrArgument, torch.ErrOutOfMemory, torch.ErrDevice, torch.ErrUnsupported, torch.ErrPeer, torch.ErrInternal} {
			if other != c.want && errors.Is(err, other) {
				t.Errorf("%s: got %v too, want %v alone", c.name, other, c.want)
			}
		}
	}
	// Memory that was missing for one operation is there for the next.
	raw, smoothed, err := torch.AnomalyMap(few, few, 4, torch.MapOptions{Sigma: 4})
	s.Pair(raw, smoothed, err)
	if err != nil {
		t.Errorf("after a lack of memory: %v", err)
	}
}

// Predictors of one device do not know of each other: each keeps its networks, and goes with what it prepared.
func TestPredictors(t *testing.T) {
	const S = 64
	x := must(torch.FromSlice(uniform("images", 3*S*S), 1, 3, S, S))
	defer x.Close()
	x32 := must(x.To(torch.CPU, torch.Float32))
	defer x32.Close()
	score := func(p *torch.Predictor) []float64 {
		var s torch.Scope
		defer s.Close()
		_, scores := s.Pair(p.Predict(x32))
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		return must(torch.Read[float64](scores))
	}
	var predictors []*torch.Predictor
	var want [][]float64
	for seed := range uint64(2) {
		opt := torch.ModuleOptions{Arch: "resnet18", Seed: seed}
		e, p := must(torch.NewTeacher(opt)), must(torch.NewProjection(opt))
		o, d := must(torch.NewBottleneck(opt)), must(torch.NewStudent(opt))
		for _, n := range []torch.Network{e, p, o, d} {
			if err := n.Train(false); err != nil {
				t.Fatal(err)
			}
			defer n.Close()
		}
		for _, projection := range []torch.Projection{p, {}} {
			predictor := must(torch.NewPredictor(e, projection, o, d, torch.MapOptions{Sigma: 4}))
			defer predictor.Close()
			predictors, want = append(predictors, predictor), append(want, score(predictor))
		}
		if seed == 0 { // a model that is replaced while others serve
			for _, n := range []torch.Network{e, p, o, d} {
				n.Close()
			}
		}
	}
	for i, p := range predictors {
		if got := score(p); !slices.Equal(got, want[i]) {
			t.Errorf("predictor %d beside others: got %v, want %v", i, got, want[i])
		}
		if i > 0 && slices.Equal(want[i], want[i-1]) {
			t.Errorf("predictors %d and %d: got the same scores of different networks, %v", i-1, i, want[i])
		}
	}
	predictors[0].Close()
	predictors[0].Close()
	if got := score(predictors[1]); !slices.Equal(got, want[1]) {
		t.Errorf("after another one of its networks was closed: got %v, want %v", got, want[1])
	}
	_, _, err := predictors[0].Predict(x32)
	wantError(t, "closed predictor", err, "closed")
	_, _, err = (*torch.Predictor)(nil).Predict(x32)
	wantError(t, "no predictor", err, "closed")
	_, err = torch.NewPredictor(torch.Teacher{}, torch.Projection{}, torch.Bottleneck{}, torch.Student{}, torch.MapOptions{Sigma: 4})
	wantError(t, "no networks", err, "closed")
	_, _, err = predictors[1].Predict(must(torch.FromSlice(make([]float32, 3), 3)))
	wantError(t, "no images", err, "B x 3 x S x S")
	(*torch.Predictor)(nil).Close()
}

// A search that is closed, or that there never was, says so.
func TestClosedCoreset(t *testing.T) {
	patches := must(torch.FromSlice(make([]float32, 4), 2, 2))
	defer patches.Close()
	closed := must(torch.NewCoreset([]*torch.Tensor{patches}, nil, []int64{0}))
	closed.Close()
	for what, c := range map[string]*torch.Coreset{"closed": closed, "none": nil} {
		_, err := c.Grow(1)
		wantError(t, what, err, "closed")
		_, err = c.Chosen()
		wantError(t, what, err, "closed")
		_, err = c.Patches()
		wantError(t, what, err, "closed")
		c.Close()
	}
}
