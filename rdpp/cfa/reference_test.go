package cfa_test

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"testing"

	"rdpp/rdpp/method/methodtest"
	"rdpp/torch"
)

//go:embed testdata/reference.json
var referenceJSON []byte

// reference is what testdata/reference.py computes.
type reference struct {
	Rate, Decay float64
	Judged      struct {
		Size             int
		Sigma            float64
		Phi              methodtest.Summary
		Softmin, Nearest struct {
			Map    methodtest.Summary
			Scores []float64
		}
	}
	Cases []struct {
		Dimensions, Rows, Near, Far, Images int
		Radius, Margin, Nu                  float64
		Fixed                               bool
		Sides                               [torch.Scales][2]int

		Phi                   methodtest.Summary
		Attraction, Repulsion float64
		Gradients             map[string]methodtest.Summary
		Losses                []float64                     // of ten updates
		After                 map[string]methodtest.Summary // what learns after them
	}
}

// tolerance is relative to a value or, below it, to 1. Both sides compute in float64 and differ by the order of summation alone.
const tolerance = 1e-9

// bytes of distances at a time: those of three positions of the first case.
const bytesAtATime = 1000

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
		if err := torch.Write(e.Tensor, methodtest.Numbers(e.Name, int(n), factor)); err != nil {
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
					f[k] = s.Tensor(torch.FromSlice(methodtest.Numbers(fmt.Sprintf("features%d.%d", step, k), c.Images*C*H*W, 1), int64(c.Images), int64(C), int64(H), int64(W)))
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
			methodtest.NearSummary(t, "phi", methodtest.Summed(t, phi), c.Phi, tolerance)
			terms := scalars(attraction, repulsion)
			methodtest.Near(t, "attraction", terms[0], c.Attraction, tolerance)
			methodtest.Near(t, "repulsion", terms[1], c.Repulsion, tolerance)
			learns := 0
			for _, e := range descriptor.State() {
				if !e.Trainable {
					continue
				}
				learns++
				methodtest.NearSummary(t, "gradient of "+e.Name, methodtest.Summed(t, s.Tensor(e.Tensor.Grad())), c.Gradients[e.Name], tolerance)
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
				methodtest.Near(t, fmt.Sprint("loss of update ", step), terms[0]+terms[1], w, tolerance)
			}
			for _, e := range descriptor.State() {
				if e.Trainable {
					methodtest.NearSummary(t, e.Name+" after ten updates", methodtest.Summed(t, e.Tensor), c.After[e.Name], tolerance)
				}
			}
			if err := s.Err(); err != nil {
				t.Error(err)
			}
		})
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
	methodtest.FillTeacher(t, teacher)
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
	x := s.Tensor(torch.FromSlice(methodtest.Numbers("image", int(2*3*S*S), 1), 2, 3, S, S))
	methodtest.NearSummary(t, "phi", methodtest.Summed(t, s.Tensor(descriptor.Forward(s.Features(teacher.Forward(x))))), j.Phi, tolerance)
	for of, want := range map[int]struct {
		Map    methodtest.Summary
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
		methodtest.NearSummary(t, fmt.Sprintf("map of %d rows", of), methodtest.Summed(t, maps), want.Map, tolerance)
		got, err := torch.Read[float64](scores)
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range want.Scores {
			methodtest.Near(t, fmt.Sprintf("score %d of %d rows", i, of), got[i], w, tolerance)
		}
	}
}
