// Package methodtest has the tests that every method passes, and what they are made of: pictures, a learner that sees them, what
// its net says about others, files in between.
package methodtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/builtin"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/method"
	"rdpp/rdpp/state"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

const (
	Side  = 64  // S of these tests
	Steps = 4   // of Trained, of two pictures each
	Known = 8   // pictures that it learns from
	Odd   = 100 // number of the first picture with a defect
)

// Settings are those of a small and quick training of the method of that name.
func Settings(name string) method.Settings {
	return method.Settings{Arch: "resnet18", Method: name, ImageSize: Side, Batch: 2, Epochs: 3, Seed: 3, MapSigma: 2.5}
}

// Picture is 3 x S x S, as the teacher sees it: rings and stripes, and from number Odd on a square that was not there.
func Picture(i int) []float32 {
	values := make([]float32, 0, 3*Side*Side)
	for c := range 3 {
		for y := range Side {
			for x := range Side {
				v := (x*x+y*y)/(20+3*c)*9 + (x*(i%5+2)+y*(c+1))*3 + i*5
				if at := 10 + 7*(i-Odd); i >= Odd && x >= at && x < at+12 && y >= 20 && y < 32 {
					v = v*7 + x*y
				}
				values = append(values, float32(v%256)/64-2)
			}
		}
	}
	return values
}

// Batch are n pictures from number first on, as the loader hands them out.
func Batch(first, n int) *dataset.Batch {
	b := &dataset.Batch{B: n}
	for i := range n {
		b.Clean = append(b.Clean, Picture(first+i)...)
	}
	return b
}

// Images are n pictures from number first on, as a detector sees them. All of them are to be asked for.
func Images(t testing.TB, first, n int) method.Images {
	return func(_ context.Context, most int, visit func(x *torch.Tensor, frame *framing.Frame) error) error {
		if most != 0 {
			t.Errorf("got %d images at most to visit, want all", most)
		}
		for i := range n {
			x, err := torch.FromSlice(Picture(first+i), 1, 3, Side, Side)
			if err != nil {
				return err
			}
			err = visit(x, nil)
			x.Close()
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// FillTeacher gives a resnet18 the weights that come with the program.
func FillTeacher(t testing.TB, teacher torch.Teacher) {
	t.Helper()
	file, _, err := builtin.Open("imagenet", "resnet18")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	own := state.Filled{Net: teacher, Name: func(name string) string { return name }, CountsOptional: true}
	if err := state.Fill(file, func(string) bool { return false }, own); err != nil {
		t.Fatal(err)
	}
	if err := teacher.Train(false); err != nil {
		t.Fatal(err)
	}
}

// Blank is a net of m that is to be loaded.
func Blank(t testing.TB, m method.Method) method.Net {
	t.Helper()
	net, err := m.New(method.Options{Blank: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	return net
}

// tensorsOfResNet18 tell one from other backbones, which keep their fresh weights.
const tensorsOfResNet18 = 90

// New is a net of m with a teacher that has learned.
func New(t testing.TB, m method.Method) method.Net {
	t.Helper()
	net, err := m.New(method.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	if len(net.Backbone().State()) == tensorsOfResNet18 {
		FillTeacher(t, net.Backbone())
	}
	return net
}

// Learner is what teaches net, and has not begun.
func Learner(t testing.TB, m method.Method, net method.Net) method.Learner {
	t.Helper()
	l, err := m.Learner(net, method.LearnerOptions{Precision: torch.FP32})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// Begun is a learner of a new net that has begun.
func Begun(t testing.TB, m method.Method) method.Learner {
	t.Helper()
	l := Learner(t, m, New(t, m))
	if err := l.Begin(t.Context(), Images(t, 0, Known)); err != nil {
		t.Fatal(err)
	}
	return l
}

// Learn takes the steps from first up to end, and returns their losses, one a step or none at all.
func Learn(t testing.TB, l method.Learner, first, end int) (losses []float64) {
	t.Helper()
	for i := first; i < end; i++ {
		all, err := l.Step(Batch(2*(i%Steps), 2), i, Steps)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) > 1 || len(all) == 1 && (all[0].Name != anomaly.LossTotal || !all.Finite()) {
			t.Fatalf("got losses %v, want a total that is finite, or none", all)
		}
		for _, loss := range all {
			losses = append(losses, loss.Value)
		}
	}
	return losses
}

// Finish is the net that l has learned in the end.
func Finish(t testing.TB, l method.Learner) method.Net {
	t.Helper()
	net, err := l.Finish(t.Context(), Images(t, 0, Known), true)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// Trained is a net that has learned for all Steps.
func Trained(t testing.TB, m method.Method) method.Net {
	t.Helper()
	l := Begun(t, m)
	Learn(t, l, 0, Steps)
	return Finish(t, l)
}

// Loaded is a net of m with the tensors of net, by way of a model file.
func Loaded(t testing.TB, m method.Method, net method.Net) method.Net {
	t.Helper()
	loaded := Blank(t, m)
	if err := m.Load(loaded, Write(t, net.State()), net.Facts()); err != nil {
		t.Fatal(err)
	}
	if err := loaded.Settle(); err != nil {
		t.Fatal(err)
	}
	return loaded
}

// Write puts tensors into a file and opens it.
func Write(t testing.TB, sources []weights.Source) *weights.File {
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

// Bytes are all tensors of a net.
func Bytes(t testing.TB, net method.Net) []byte {
	t.Helper()
	var buffer bytes.Buffer
	if err := weights.Write(&buffer, nil, net.State()); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// Predict judges n pictures from number first on: maps, n x S x S, and scores.
func Predict(t testing.TB, net method.Net, first, n int) (maps, scores []float32) {
	t.Helper()
	var s torch.Scope
	defer s.Close()
	x := s.Tensor(torch.FromSlice(Batch(first, n).Clean, int64(n), 3, Side, Side))
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

// Main runs a package's tests, after which no tensor may be open.
func Main(m *testing.M) {
	code := m.Run()
	if open := torch.LiveTensors(); open > 0 && code == 0 {
		fmt.Fprintf(os.Stderr, "%d tensors are still open, want none\n", open)
		code = 1
	}
	os.Exit(code)
}
