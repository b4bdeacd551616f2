package cfa_test

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"rdpp/rdpp/builtin"
	"rdpp/rdpp/state"
	"rdpp/torch"
)

//go:embed testdata/reference.json
var referenceJSON []byte

// summary is a tensor's sum, its sum weighted by place, and its sum of squares, as testdata/reference.py has it.
type summary [3]float64

// reference is what testdata/reference.py computes.
type reference struct {
	Rate, Decay float64
	Judged      struct {
		Size             int
		Sigma            float64
		Phi              summary
		Softmin, Nearest struct {
			Map    summary
			Scores []float64
		}
	}
	Cases []struct {
		Dimensions, Rows, Near, Far, Images int
		Radius, Margin, Nu                  float64
		Fixed                               bool
		Sides                               [torch.Scales][2]int

		Phi                   summary
		Attraction, Repulsion float64
		Gradients             map[string]summary
		Losses                []float64          // of ten updates
		After                 map[string]summary // what learns after them
	}
}

// tolerance is relative to a value or, below it, to 1. Both sides compute in float64 and differ by the order of summation alone.
const tolerance = 1e-9

// bytes of distances at a time: those of three positions of the first case.
const bytesAtATime = 1000

// number is that of testdata/reference.py, in -1..1.
func number(name string, i int) float64 {
	h := uint32(2166136261)
	for _, c := range fmt.Sprintf("%s/%d", name, i) {
		h = (h ^ uint32(c)) * 16777619
	}
	h = (h ^ h>>16) * 0x45d9f3b
	return float64(int((h^h>>16)%20001)-10000) / 10000
}

func numbers(name string, n int, factor float64) []float64 {
	all := make([]float64, n)
	for i := range all {
		all[i] = number(name, i) * factor
	}
	return all
}

func summed(t *testing.T, x *torch.Tensor) (s summary) {
	t.Helper()
	values, err := torch.Read[float64](x)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		s[0] += v
		s[1] += v * float64(1+i%7)
		s[2] += v * v
	}
	return s
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance*max(1, math.Abs(want))) {
		t.Errorf("%s: got %.15g, want %.15g", what, got, want)
	}
}

func nearSummary(t *testing.T, what string, got, want summary) {
	t.Helper()
	for i := range got {
		near(t, fmt.Sprintf("%s, number %d", what, i), got[i], want[i])
	}
}

// fill gives a descriptor the parameters and the bank of testdata/reference.py.
func fill(t *testing.T, descriptor torch.Descriptor) {
	t.Helper()
	for _, e := range descriptor.State() {
		factor, drawn := map[string]float64{"conv.weight": 0.1, "conv.bias": 0.1, "centres": 0.5}[e.Name]
		if !drawn { // the radius
			continue
		}
		n, err := e.Tensor.Len()
		if err != nil {
			t.Fatal(err)
		}
		if err := torch.Write(e.Tensor, numbers(e.Name, int(n), factor)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReference(t *testing.T) {
	var want reference
	if err := json.Unmarshal(referenceJSON, &want); err != nil {
		t.Fatal(err)
	}
	for _, c := range want.Cases {
		t.Run(fmt.Sprintf("%d dimensions, %d rows", c.Dimensions, c.Rows), func(t *testing.T) {
			var s torch.Scope
			defer s.Close()
			descriptor, err := torch.NewDescriptor(torch.ModuleOptions{Arch: "resnet18", DType: torch.Float64, Reference: true},
				torch.DescriptorOptions{Dimensions: c.Dimensions, Rows: c.Rows, Radius: c.Radius, Fixed: c.Fixed})
			if err != nil {
				t.Fatal(err)
			}
			defer descriptor.Close()
			fill(t, descriptor)
			features := func(step int) (f torch.Features) {
				for k := range f {
					C, H, W := 64<<k, c.Sides[k][0], c.Sides[k][1]
					f[k] = s.Tensor(torch.FromSlice(numbers(fmt.Sprintf("features%d.%d", step, k), c.Images*C*H*W, 1), int64(c.Images), int64(C), int64(H), int64(W)))
				}
				return f
			}
			losses := func(f torch.Features) (phi, attraction, repulsion *torch.Tensor) {
				t.Helper()
				phi = s.Tensor(descriptor.Forward(f))
				attraction, repulsion = s.Pair(descriptor.Loss(phi, torch.SphereOptions{Near: c.Near, Far: c.Far, Margin: c.Margin, Nu: c.Nu, Bytes: bytesAtATime}))
				s.Check(torch.Backward(s.Tensor(torch.WeightedSum(torch.Term{Value: attraction, Weight: 1}, torch.Term{Value: repulsion, Weight: 1}))))
				if err := s.Err(); err != nil {
					t.Fatal(err)
				}
				return phi, attraction, repulsion
			}
			scalars := func(of ...*torch.Tensor) []float64 {
				t.Helper()
				values, err := torch.Scalars(of...)
				if err != nil {
					t.Fatal(err)
				}
				return values
			}

			phi, attraction, repulsion := losses(features(0))
			nearSummary(t, "phi", summed(t, phi), c.Phi)
			terms := scalars(attraction, repulsion)
			near(t, "attraction", terms[0], c.Attraction)
			near(t, "repulsion", terms[1], c.Repulsion)
			learns := 0
			for _, e := range descriptor.State() {
				if !e.Trainable {
					continue
				}
				learns++
				nearSummary(t, "gradient of "+e.Name, summed(t, s.Tensor(e.Tensor.Grad())), c.Gradients[e.Name])
				s.Check(e.Tensor.SetGrad(nil))
			}
			if learns != len(c.Gradients) {
				t.Errorf("got %d tensors that learn, want %d", learns, len(c.Gradients))
			}

			adam, err := torch.NewAdam(0.9, 0.999, 1e-8)
			if err != nil {
				t.Fatal(err)
			}
			defer adam.Close()
			s.Check(adam.Add(descriptor, want.Rate))
			s.Check(adam.SetDecayOfAll(0, want.Decay))
			s.Check(adam.SetAMSGrad(0))
			for step, w := range c.Losses {
				_, attraction, repulsion := losses(features(step % 3))
				s.Check(adam.Step())
				terms := scalars(attraction, repulsion)
				near(t, fmt.Sprint("loss of update ", step), terms[0]+terms[1], w)
			}
			for _, e := range descriptor.State() {
				if e.Trainable {
					nearSummary(t, e.Name+" after ten updates", summed(t, e.Tensor), c.After[e.Name])
				}
			}
			if err := s.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// fillTeacher gives a resnet18 the weights that come with the program.
func fillTeacher(t testing.TB, teacher torch.Teacher) {
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

// Maps and scores of images are PyTorch's.
func TestReferenceMap(t *testing.T) {
	var want reference
	if err := json.Unmarshal(referenceJSON, &want); err != nil {
		t.Fatal(err)
	}
	var s torch.Scope
	defer s.Close()
	options := torch.ModuleOptions{Arch: "resnet18", DType: torch.Float64, Reference: true}
	teacher, err := torch.NewTeacher(options)
	if err != nil {
		t.Fatal(err)
	}
	defer teacher.Close()
	fillTeacher(t, teacher)
	c, j := want.Cases[0], want.Judged
	descriptor, err := torch.NewDescriptor(options, torch.DescriptorOptions{Dimensions: c.Dimensions, Rows: c.Rows})
	if err != nil {
		t.Fatal(err)
	}
	defer descriptor.Close()
	fill(t, descriptor)
	if err := descriptor.Train(false); err != nil {
		t.Fatal(err)
	}
	S := int64(j.Size)
	x := s.Tensor(torch.FromSlice(numbers("image", int(2*3*S*S), 1), 2, 3, S, S))
	nearSummary(t, "phi", summed(t, s.Tensor(descriptor.Forward(s.Features(teacher.Forward(x))))), j.Phi)
	for of, want := range map[int]struct {
		Map    summary
		Scores []float64
	}{c.Near: j.Softmin, 1: j.Nearest} {
		predictor, err := torch.NewSpherePredictor(teacher, descriptor, torch.SphereMapOptions{Sigma: j.Sigma, Near: of, Bytes: bytesAtATime})
		if err != nil {
			t.Fatal(err)
		}
		defer predictor.Close()
		maps, scores := s.Pair(predictor.Predict(x))
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		nearSummary(t, fmt.Sprintf("map of %d rows", of), summed(t, maps), want.Map)
		got, err := torch.Read[float64](scores)
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range want.Scores {
			near(t, fmt.Sprintf("score %d of %d rows", i, of), got[i], w)
		}
	}
}
