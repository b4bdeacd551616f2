package csflow_test

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/method/methodtest"
	"rdpp/torch"
)

//go:embed testdata/reference.json
var referenceJSON []byte

// reference is what testdata/reference.py computes.
type reference struct {
	Clamp, Rate, Eps, Decay, Clip float64
	Pyramid                       struct {
		Size   int
		Layer3 [torch.Scales]methodtest.Summary
	}
	Cases []struct {
		Channels, Blocks, Hidden, Images, Height, Width int

		Z         [torch.Scales][]float64
		LogDet    []float64 `json:"log_det"`
		Whole     float64   // the first image's logarithm of the determinant, of its whole Jacobian
		Loss      float64
		Gradients map[string]methodtest.Summary
		Into      [torch.Scales]methodtest.Summary // gradients of the features
		Losses    []float64                        // of ten updates
		After     map[string]methodtest.Summary    // parameters after them
	}
}

// Tolerances, relative to a value or, below it, to 1. Both sides compute in float64 and differ by the order of summation
// alone; PyTorch's clipping divides by the gradient's length and a millionth, which ten updates show.
const (
	tolerance       = 1e-9
	toleranceSteps  = 1e-7
	toleranceReturn = 1e-6 // of the features that the flow's inverse gives back
)

// order is that of testdata/reference.py.
func order(name string, n int) []int64 {
	all := make([]int64, n)
	for i := range all {
		all[i] = int64(i)
	}
	slices.SortStableFunc(all, func(a, b int64) int {
		switch x, y := methodtest.Number(name, int(a)), methodtest.Number(name, int(b)); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return all
}

func nearAll(t *testing.T, what string, got, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: got %d numbers, want %d", what, len(got), len(want))
	}
	for i := range got {
		methodtest.Near(t, fmt.Sprintf("%s, number %d", what, i), got[i], want[i], tolerance)
	}
}

// fill gives a flow the parameters and orders of testdata/reference.py.
func fill(t *testing.T, flow torch.CrossFlow) {
	t.Helper()
	var s torch.Scope
	defer s.Close()
	for _, e := range flow.State() {
		n, err := e.Tensor.Len()
		if err != nil {
			t.Fatal(err)
		}
		var from *torch.Tensor
		switch {
		case !e.Trainable:
			from = s.Tensor(torch.FromSlice(order(e.Name, int(n)), n))
		case strings.Contains(e.Name, "gamma"):
			from = s.Tensor(torch.FromSlice(methodtest.Numbers(e.Name, int(n), 1), n))
		default:
			from = s.Tensor(torch.FromSlice(methodtest.Numbers(e.Name, int(n), 0.5), n))
		}
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		dtype, err := from.DType()
		if err != nil {
			t.Fatal(err)
		}
		data, err := from.ReadBytes()
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Tensor.WriteBytes(dtype, data); err != nil {
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
		t.Run(fmt.Sprintf("%d channels, %d blocks, %d x %d", c.Channels, c.Blocks, c.Height, c.Width), func(t *testing.T) {
			var s torch.Scope
			defer s.Close()
			flow, err := torch.NewCrossFlow(torch.ModuleOptions{DType: torch.Float64, Reference: true},
				torch.CrossFlowOptions{Channels: c.Channels, Blocks: c.Blocks, Hidden: c.Hidden, Clamp: want.Clamp})
			if err != nil {
				t.Fatal(err)
			}
			defer flow.Close()
			fill(t, flow)
			features := func(step int) (y torch.Features) {
				h, w := c.Height, c.Width
				for k := range y {
					n := c.Images * c.Channels * h * w
					y[k] = s.Tensor(torch.FromSlice(methodtest.Numbers(fmt.Sprintf("features%d.%d", step, k), n, 2), int64(c.Images), int64(c.Channels), int64(h), int64(w)))
					h, w = (h+1)/2, (w+1)/2
				}
				return y
			}
			forward := func(y torch.Features) (z torch.Features, logDet, loss *torch.Tensor) {
				t.Helper()
				z, logDet, err := flow.Forward(y)
				if err != nil {
					t.Fatal(err)
				}
				z, logDet = s.Features(z, nil), s.Tensor(logDet, nil)
				loss = s.Tensor(torch.LossCrossFlow(z, logDet))
				s.Check(torch.Backward(loss))
				if err := s.Err(); err != nil {
					t.Fatal(err)
				}
				return z, logDet, loss
			}
			read := func(x *torch.Tensor) []float64 {
				t.Helper()
				values, err := torch.Read[float64](x)
				if err != nil {
					t.Fatal(err)
				}
				return values
			}

			y := features(0)
			for k := range y {
				s.Check(y[k].RequireGrad())
			}
			z, logDet, loss := forward(y)
			for k := range z {
				nearAll(t, fmt.Sprint("z of scale ", k), read(z[k]), c.Z[k], tolerance)
				methodtest.NearSummary(t, fmt.Sprint("gradient of scale ", k), methodtest.Summed(t, s.Tensor(y[k].Grad())), c.Into[k], tolerance)
			}
			nearAll(t, "log det", read(logDet), c.LogDet, tolerance)
			methodtest.Near(t, "log det of the whole Jacobian", read(logDet)[0], c.Whole, tolerance)
			methodtest.Near(t, "loss", read(loss)[0], c.Loss, tolerance)
			trainable := 0
			for _, e := range flow.State() {
				if !e.Trainable {
					continue
				}
				trainable++
				methodtest.NearSummary(t, "gradient of "+e.Name, methodtest.Summed(t, s.Tensor(e.Tensor.Grad())), c.Gradients[e.Name], tolerance)
				s.Check(e.Tensor.SetGrad(nil))
			}
			if trainable != len(c.Gradients) {
				t.Errorf("got %d parameters, want %d", trainable, len(c.Gradients))
			}

			back := s.Features(flow.Inverse(z))
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			for k := range back {
				nearAll(t, fmt.Sprint("inverse of scale ", k), read(back[k]), read(y[k]), toleranceReturn)
			}

			adam, err := torch.NewAdam(0.9, 0.999, want.Eps)
			if err != nil {
				t.Fatal(err)
			}
			defer adam.Close()
			s.Check(adam.Add(flow, want.Rate))
			s.Check(adam.SetPenalty(0, want.Decay))
			s.Check(adam.SetClip(want.Clip))
			for step, w := range c.Losses {
				_, _, loss := forward(features(step))
				s.Check(adam.Step())
				methodtest.Near(t, fmt.Sprint("loss of update ", step), read(loss)[0], w, toleranceSteps)
			}
			for _, e := range flow.State() {
				if e.Trainable {
					methodtest.NearSummary(t, e.Name+" after ten updates", methodtest.Summed(t, e.Tensor), c.After[e.Name], toleranceSteps)
				}
			}
			if err := s.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What the teacher sees in three sizes is PyTorch's, in float32 by frozen weights of one form per size as well.
func TestPyramid(t *testing.T) {
	var want reference
	if err := json.Unmarshal(referenceJSON, &want); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dtype     torch.DType
		tolerance float64
	}{{torch.Float64, tolerance}, {torch.Float32, 1e-4}} { // float32's sums of thousands
		var s torch.Scope
		defer s.Close()
		teacher, err := torch.NewTeacher(torch.ModuleOptions{Arch: "resnet18", DType: c.dtype, Reference: c.dtype == torch.Float64})
		if err != nil {
			t.Fatal(err)
		}
		defer teacher.Close()
		methodtest.FillTeacher(t, teacher)
		S := int64(want.Pyramid.Size)
		host := s.Tensor(torch.FromSlice(methodtest.Numbers("image", int(3*S*S), 1), 1, 3, S, S))
		x := s.Tensor(host.To(torch.CPU, c.dtype))
		for range 2 { // the second time with the forms of the first
			y := s.Features(torch.Pyramid(teacher, x))
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			for k := range y {
				methodtest.NearSummary(t, fmt.Sprintf("%v, scale %d", c.dtype, k), methodtest.Summed(t, y[k]), want.Pyramid.Layer3[k], c.tolerance)
			}
		}
	}
}
