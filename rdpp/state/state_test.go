package state

import (
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// written is a file of these tensors, opened.
func written(t *testing.T, sources []weights.Source) *weights.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.safetensors")
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

func tensor(t *testing.T, values []float32, shape ...int64) *torch.Tensor {
	t.Helper()
	x, err := torch.FromSlice(values, shape...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	return x
}

func TestLoad(t *testing.T) {
	nan := float32(math.NaN())
	file := written(t, []weights.Source{
		Source("a", tensor(t, []float32{1, 2, 3, 4, 5, 6}, 2, 3)),
		Source("odd", tensor(t, []float32{1, nan}, 2)),
		Source("bn.running_var", tensor(t, []float32{1, -1}, 2)),
	})
	for _, c := range []struct {
		name  string
		shape []int64
		is    error
		want  string // in the error; "" none
	}{
		{"a", []int64{2, 3}, nil, ""},
		{"a", []int64{3, 2}, nil, "has shape [2 3], needed is [3 2]"},
		{"b", []int64{1}, nil, "tensor b is missing"},
		{"odd", []int64{2}, anomaly.ErrDamaged, "infinite or none"},
		{"bn.running_var", []int64{2}, anomaly.ErrDamaged, "variances below 0"},
	} {
		n := int64(1)
		for _, d := range c.shape {
			n *= d
		}
		into := tensor(t, make([]float32, n), c.shape...)
		err := Load(file, c.name, into)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s as %v: got %v, want %q", c.name, c.shape, err, c.want)
		}
		if err == nil {
			if got, err := torch.Read[float32](into); err != nil || !slices.Equal(got, []float32{1, 2, 3, 4, 5, 6}) {
				t.Errorf("%s: got %v, %v", c.name, got, err)
			}
		}
	}

	// The file says the shape.
	x, err := Tensor(file, "a", torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if shape, err := x.Shape(); err != nil || !slices.Equal(shape, []int64{2, 3}) {
		t.Errorf("got the shape %v, %v, want 2 x 3", shape, err)
	}
	for _, name := range []string{"b", "odd"} {
		if _, err := Tensor(file, name, torch.CPU); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// An optimiser that is put down between two gradients of one update goes on as if it had not been.
func TestAdam(t *testing.T) {
	type run struct {
		parts []Part
		adam  *torch.Adam
	}
	start := func() run {
		net, err := torch.NewHead(torch.ObjectiveClass, 3, torch.ModuleOptions{Arch: "resnet18", Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(net.Close)
		adam, err := torch.NewAdam(0.9, 0.999, 1e-8)
		if err == nil {
			err = adam.Add(net, 0.1)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(adam.Close)
		return run{[]Part{{Prefix: "head.", Net: net}}, adam}
	}
	learn := func(r run, from, to int) {
		for step := from; step < to; step++ {
			var s torch.Scope
			x := make([]float32, 2*64*2*2)
			for i := range x {
				x[i] = float32(math.Sin(float64(i * (step + 1))))
			}
			y := s.Tensor(r.parts[0].Net.(torch.Head).Forward(0, s.Tensor(torch.FromSlice(x, 2, 64, 2, 2))))
			loss, _ := s.Pair(torch.LossClass(y, []int64{0, 2}, 0))
			s.Check(torch.Backward(loss))
			if step%2 == 1 {
				s.Check(r.adam.Step())
			}
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			s.Close()
		}
	}
	whole, first, second := start(), start(), start()
	learn(whole, 0, 6)
	learn(first, 0, 3) // a gradient waits
	var s torch.Scope
	defer s.Close()
	moments, err := Adam(&s, first.adam, first.parts)
	if err != nil {
		t.Fatal(err)
	}
	file := written(t, append(Of(first.parts), moments...))
	within := func(name string) bool { return strings.HasPrefix(name, "head.") }
	if err := Fill(file, within, Under(second.parts)...); err != nil {
		t.Fatal(err)
	}
	if err := RestoreAdam(file, second.adam, second.parts); err != nil {
		t.Fatal(err)
	}
	learn(second, 3, 6)
	for i, e := range whole.parts[0].Net.State() {
		want, err := torch.Read[float32](e.Tensor)
		if err != nil {
			t.Fatal(err)
		}
		got, err := torch.Read[float32](second.parts[0].Net.State()[i].Tensor)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got other numbers than without a break, %v", e.Name, err)
		}
	}
	for i, source := range moments { // older versions' files have no more than the last
		lacking := slices.Concat(Of(first.parts), moments[:i], moments[i+1:])
		err := RestoreAdam(written(t, lacking), second.adam, second.parts)
		if want := source.Name + " is missing"; (err == nil || !strings.Contains(err.Error(), want)) && i < len(moments)-1 {
			t.Errorf("got error %v, want one with %q", err, want)
		}
	}
	if err := RestoreAdam(written(t, Of(first.parts)), second.adam, second.parts); err == nil || !strings.Contains(err.Error(), "steps is missing") {
		t.Errorf("without moments: got %v", err)
	}
}
