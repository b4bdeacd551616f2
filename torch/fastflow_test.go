package torch_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"rdpp/torch"
)

// What the flow's inverse may differ from its input by, beside values of about 1: the couplings' scales are divided by, step
// after step.
const tolInverse = 1e-6

// flowGolden is what testdata/fastflow.py computes.
type flowGolden struct {
	Batch, Size        int
	Sigma, Rate, Decay float64
	Cases              []struct {
		Steps             int
		Hidden, Clamp     float64
		Pointwise, Affine bool
		Clip              float64
		Normal, Z         []summary   // per scale
		LogDet            [][]float64 // per scale and image
		Jacobian          float64     // of the first image's coarsest features, the logarithm of the whole matrix' determinant
		Grad, After       map[string]summary
		Losses            []float64 // of the updates
		Maps              map[string][]struct {
			Highest, Top float64
			Values       []float64 // every ninth place of every ninth row
		}
	}
}

// fillFlow gives every entry of a flow its golden value.
func fillFlow(t *testing.T, flow torch.Flow) {
	t.Helper()
	fill(t, "flow", flow.State())
	for _, e := range flow.State() {
		n := int(must(e.Tensor.Len()))
		u := uniform("flow."+e.Name, n)
		var values []float64
		switch {
		case strings.HasSuffix(e.Name, ".scale"):
			for _, v := range u {
				values = append(values, float64(float32(8+4*v)))
			}
		case strings.HasSuffix(e.Name, "norm_weight"):
			for _, v := range u {
				values = append(values, float64(float32(0.5+v)))
			}
		case strings.HasSuffix(e.Name, ".order"):
			order := make([]int64, n)
			for i := range order {
				order[i] = int64(i)
			}
			slices.SortStableFunc(order, func(a, b int64) int {
				if u[a] < u[b] {
					return -1
				}
				return 1
			})
			if err := torch.Write(e.Tensor, order); err != nil {
				t.Fatal(err)
			}
			continue
		default:
			continue
		}
		if err := torch.Write(e.Tensor, values); err != nil {
			t.Fatal(err)
		}
	}
}

// FastFlow's networks, likelihood, gradients, maps and updates, against a reference of their own (testdata/fastflow.py).
func TestFastFlowGolden(t *testing.T) {
	var want flowGolden
	readGolden(t, "fastflow.json", &want)
	B, S := int64(want.Batch), int64(want.Size)
	for i, c := range want.Cases {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			var s torch.Scope
			defer s.Close()
			opt := torch.ModuleOptions{Arch: "resnet18", DType: torch.Float64, Reference: true}
			teacher := must(torch.NewTeacher(opt))
			defer teacher.Close()
			fill(t, "encoder", teacher.State())
			flow := must(torch.NewFlow(opt, torch.FlowOptions{Side: want.Size, Steps: c.Steps, Hidden: c.Hidden, Pointwise: c.Pointwise, Clamp: c.Clamp,
				Affine: c.Affine}))
			defer flow.Close()
			fillFlow(t, flow)
			pixels := uniform("x", int(B*3*S*S))
			for i := range pixels {
				pixels[i] = 4*pixels[i] - 2
			}
			x := s.Tensor(torch.FromSlice(pixels, B, 3, S, S))
			f := s.Features(teacher.Forward(x))
			normal := s.Features(flow.Normalise(f))
			z, logDet := s.Two(flow.Forward(normal))
			back := s.Features(flow.Inverse(z))
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			for k := range z {
				checkSummary(t, fmt.Sprint("normalised ", k), normal[k], c.Normal[k], tolFloat64)
				checkSummary(t, fmt.Sprint("z ", k), z[k], c.Z[k], tolFloat64)
				logs := must(torch.Read[float64](logDet[k]))
				for i, log := range logs {
					near(t, fmt.Sprintf("log-determinant of scale %d, image %d", k, i), log, c.LogDet[k][i], tolFloat64)
				}
				if k == torch.Scales-1 {
					near(t, "the whole Jacobian's log-determinant", logs[0], c.Jacobian, tolFloat64)
				}
				given, found := must(torch.Read[float64](normal[k])), must(torch.Read[float64](back[k]))
				for i := range given {
					if !(math.Abs(given[i]-found[i]) <= tolInverse) {
						t.Fatalf("scale %d: got %v back, want %v", k, found[i], given[i])
					}
				}
			}
			checkFlowMaps(t, teacher, flow, x, want.Sigma, c.Maps)

			adam := must(torch.NewAdam(0.9, 0.999, 1e-8))
			defer adam.Close()
			for _, err := range []error{adam.Add(flow, want.Rate), adam.SetPenalty(0, want.Decay), adam.SetClip(c.Clip)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			for update, loss := range c.Losses {
				var s torch.Scope
				z, logDet := s.Two(flow.Forward(s.Features(flow.Normalise(f))))
				got := s.Tensor(torch.LossFlow(z, logDet))
				s.Check(torch.Backward(got))
				if err := s.Err(); err != nil {
					t.Fatal(err)
				}
				tolerance := tolFloat64Steps
				if update == 0 {
					tolerance = tolFloat64
					for _, e := range flow.State() {
						if grad := s.Tensor(e.Tensor.Grad()); grad != nil {
							checkSummary(t, "gradient of "+e.Name, grad, c.Grad[e.Name], tolFloat64)
						} else if e.Trainable {
							t.Errorf("%s has no gradient", e.Name)
						}
					}
				}
				near(t, fmt.Sprint("loss of update ", update), must(torch.Scalars(got))[0], loss, tolerance)
				s.Check(adam.Step())
				if err := s.Err(); err != nil {
					t.Fatal(err)
				}
				s.Close()
			}
			for _, e := range flow.State() {
				if e.Trainable {
					checkSummary(t, e.Name+" after the updates", e.Tensor, c.After[e.Name], tolFloat64Steps)
				}
			}
		})
	}
}

func checkFlowMaps(t *testing.T, teacher torch.Teacher, flow torch.Flow, x *torch.Tensor, sigma float64, maps map[string][]struct {
	Highest, Top float64
	Values       []float64
}) {
	t.Helper()
	if len(maps) != 2 {
		t.Fatalf("got maps %v, want those of both kinds", maps)
	}
	for kind, images := range maps {
		for _, top := range []float64{0, 0.02} {
			var s torch.Scope
			defer s.Close()
			asked := must(torch.NewFlowPredictor(teacher, flow, torch.FlowMapOptions{Sigma: sigma, Likelihood: kind == "likelihood", Top: top}))
			defer asked.Close()
			m, scores := s.Pair(asked.Predict(x))
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			values, got := must(torch.Read[float64](m)), must(torch.Read[float64](scores))
			S := int(must(m.Shape())[1])
			for i, want := range images {
				score := want.Highest
				if top > 0 {
					score = want.Top
				}
				near(t, fmt.Sprintf("%s score of image %d, share %v", kind, i, top), got[i], score, tolFloat64)
				for at, v := range want.Values {
					row, column := at/((S+8)/9)*9, at%((S+8)/9)*9
					near(t, fmt.Sprintf("%s map of image %d at %d, %d", kind, i, column, row), values[(i*S+row)*S+column], v, tolFloat64)
				}
			}
		}
	}
}

// A fresh flow changes features little, gives them another order by another seed, and is refused where it cannot be.
func TestNewFlow(t *testing.T) {
	opt := torch.ModuleOptions{Arch: "resnet18", Seed: 1}
	flow := torch.FlowOptions{Side: 32, Steps: 2, Hidden: 1, Clamp: 2, Affine: true}
	orders := func(seed uint64) (all []int64) {
		opt.Seed = seed
		f := must(torch.NewFlow(opt, flow))
		defer f.Close()
		for _, e := range f.State() {
			if strings.HasSuffix(e.Name, ".order") {
				if e.Trainable {
					t.Errorf("%s is trainable", e.Name)
				}
				all = append(all, must(torch.Read[int64](e.Tensor))...)
			}
		}
		return all
	}
	first := orders(1)
	if len(first) != 2*(64+128+256) || !slices.Equal(first, orders(1)) || slices.Equal(first, orders(2)) {
		t.Errorf("got %d channels in order, want %d, the same of the same seed alone", len(first), 2*(64+128+256))
	}
	for what, wrong := range map[string]torch.FlowOptions{
		"side":   {Side: 40, Steps: 2, Hidden: 1, Clamp: 2},
		"hidden": {Side: 32, Steps: 2, Clamp: 2},
	} {
		if f, err := torch.NewFlow(opt, wrong); err == nil {
			f.Close()
			t.Errorf("%s: got no error", what)
		}
	}
}
