package torch_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"rdpp/torch"
)

var objectives = map[string]torch.Objective{"class": torch.ObjectiveClass, "dense": torch.ObjectiveDense, "pair": torch.ObjectivePair}

// judge is the loss and accuracy of what a head says.
func judge(objective torch.Objective, y *torch.Tensor, labels []int64) (loss, accuracy *torch.Tensor, err error) {
	switch objective {
	case torch.ObjectivePair:
		return torch.LossPair(y, 0.1)
	case torch.ObjectiveClass:
		return torch.LossClass(y, labels, 0.1)
	}
	return torch.LossClass(y, labels, 0)
}

func norm(t *torch.Tensor) float64 {
	var squares float64
	for _, v := range must(torch.Read[float64](t)) {
		squares += v * v
	}
	return math.Sqrt(squares)
}

// Three steps of a teacher that learns with heads, cross-entropy or NT-Xent and AdamW, against PyTorch's and
// torchvision's own (testdata/pretrain.py).
func TestPretrainGolden(t *testing.T) {
	var cases []struct {
		Objective          string
		Losses, Accuracies [][]float64
		Teacher, Head      map[string]float64 // norms at the end
	}
	readGolden(t, "pretrain.json", &cases)
	if len(cases) != len(objectives) {
		t.Fatalf("cases: got %d, want %d", len(cases), len(objectives))
	}
	const B, S, outputs = 4, 32, 5
	weights, rates := []float64{0.3, 0.5, 1}, []float64{1e-3, 3e-3, 2e-3}
	for _, c := range cases {
		t.Run(c.Objective, func(t *testing.T) {
			before := torch.LiveTensors()
			objective := objectives[c.Objective]
			opt := torch.ModuleOptions{Arch: "resnet18", DType: torch.Float64, Trainable: true}
			teacher, head := must(torch.NewTeacher(opt)), must(torch.NewHead(objective, outputs, opt))
			adam := must(torch.NewAdam(0.9, 0.999, 1e-8))
			fill(t, "teacher", teacher.State())
			fill(t, "head", head.State())
			for group, n := range []torch.Network{teacher, head} {
				if err := adam.Add(n, 1); err != nil {
					t.Fatal(err)
				}
				if err := adam.SetDecay(group, 0.05); err != nil {
					t.Fatal(err)
				}
			}
			pixels := uniform("x", B*3*S*S)
			for i := range pixels {
				pixels[i] = 2*pixels[i] - 1
			}
			x := must(torch.FromSlice(pixels, B, 3, S, S))
			for step, rate := range rates {
				var s torch.Scope
				f := s.Features(teacher.Forward(x))
				var terms []torch.Term
				var read []*torch.Tensor
				for k, weight := range weights {
					rows := B
					if objective == torch.ObjectiveDense {
						rows *= S / (4 << k) * S / (4 << k)
					}
					labels := make([]int64, rows)
					for i, u := range uniform(fmt.Sprint("labels", k), rows) {
						labels[i] = int64(u*(outputs+1)) - 1
					}
					loss, accuracy := s.Pair(judge(objective, s.Tensor(head.Forward(k, f[k])), labels))
					terms = append(terms, torch.Term{Value: loss, Weight: weight})
					read = append(read, loss, accuracy)
				}
				s.Check(torch.Backward(s.Tensor(torch.WeightedSum(terms...))))
				for group := range 2 {
					s.Check(adam.SetRate(group, rate))
				}
				s.Check(adam.Step())
				if err := s.Err(); err != nil {
					t.Fatal(err)
				}
				values := must(torch.Scalars(read...))
				for k := range weights {
					near(t, fmt.Sprintf("step %d, loss %d", step, k), values[2*k], c.Losses[step][k], tolFloat64Steps)
					near(t, fmt.Sprintf("step %d, accuracy %d", step, k), values[2*k+1], c.Accuracies[step][k], tolFloat64Steps)
				}
				s.Close()
			}
			for n, want := range map[torch.Network]map[string]float64{teacher: c.Teacher, head: c.Head} {
				found := 0
				for _, e := range n.State() {
					if w, wanted := want[e.Name]; wanted {
						near(t, e.Name, norm(e.Tensor), w, tolFloat64Steps)
						found++
					}
				}
				if found != len(want) || found == 0 {
					t.Errorf("parameters compared: got %d, want %d", found, len(want))
				}
				n.Close()
			}
			x.Close()
			adam.Close()
			if after := torch.LiveTensors(); after != before {
				t.Errorf("live tensors: got %d, want %d", after, before)
			}
		})
	}
}

// A frozen teacher gathers no gradient and does not change, a trainable one does both while it is trained.
func TestTrainableTeacher(t *testing.T) {
	const B, S = 2, 32
	x := must(torch.FromSlice(make([]float32, B*3*S*S), B, 3, S, S))
	defer x.Close()
	for _, trainable := range []bool{false, true} {
		teacher := must(torch.NewTeacher(torch.ModuleOptions{Arch: "resnet18", Seed: 1, Trainable: trainable}))
		defer teacher.Close()
		running := func() float64 {
			for _, e := range teacher.State() {
				if e.Name == "bn1.running_var" {
					return norm(e.Tensor)
				}
			}
			return math.NaN()
		}
		for _, mode := range []bool{false, true} {
			if err := teacher.Train(mode); err != nil {
				t.Fatal(err)
			}
			before := running()
			f := must(teacher.Forward(x))
			if moved, want := running() != before, trainable && mode; moved != want {
				t.Errorf("trainable %v, Train(%v): running variance moved: got %v, want %v", trainable, mode, moved, want)
			}
			sum := must(torch.Sum(f[2]))
			if err := torch.Backward(sum); (err == nil) != (trainable && mode) {
				t.Errorf("trainable %v, Train(%v): backward: got error %v", trainable, mode, err)
			}
			sum.Close()
			f.Close()
		}
		for _, e := range teacher.State() {
			parameter := strings.HasSuffix(e.Name, ".weight") || strings.HasSuffix(e.Name, ".bias")
			grad := must(e.Tensor.Grad())
			if e.Trainable != (trainable && parameter) || (grad != nil) != (trainable && parameter) {
				t.Errorf("trainable %v, %s: got trainable %v, gradient %v", trainable, e.Name, e.Trainable, grad != nil)
			}
			grad.Close()
		}
	}
}

// Mixed precision: bfloat16 has 8 bits, and the losses of a fresh network hardly depend on more. NT-Xent's temperature
// of 0.1 magnifies tenfold.
func TestMixedPrecision(t *testing.T) {
	const B, S = 4, 32
	tolerances := map[string]float64{"class": 0.02, "dense": 0.02, "pair": 0.2}
	pixels := make([]uint8, B*S*S*3)
	for i, u := range uniform("pixels", len(pixels)) {
		pixels[i] = uint8(256 * u)
	}
	for name, objective := range objectives {
		var losses, norms [2]float64
		for i, dtype := range []torch.DType{torch.Float32, torch.BFloat16} {
			var s torch.Scope
			opt := torch.ModuleOptions{Arch: "resnet18", Seed: 3, Trainable: true}
			teacher, head := must(torch.NewTeacher(opt)), must(torch.NewHead(objective, 7, opt))
			x := s.Tensor(torch.Images(pixels, S, [3]float32{0.5, 0.5, 0.5}, [3]float32{0.25, 0.25, 0.25}, torch.CPU, dtype))
			f := s.Features(teacher.Forward(x))
			if got := must(f[2].DType()); got != dtype {
				t.Errorf("features: got type %v, want %v", got, dtype)
			}
			y := s.Tensor(head.Forward(2, f[2]))
			if got := must(y.DType()); got != torch.Float32 {
				t.Errorf("head: got type %v, want %v", got, torch.Float32)
			}
			loss, _ := s.Pair(judge(objective, y, []int64{0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 1}[:must(y.Len())/7]))
			s.Check(torch.Backward(loss))
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			losses[i] = must(torch.Scalars(loss))[0]
			grad := s.Tensor(teacher.State()[0].Tensor.Grad()) // of conv1.weight
			if got := must(grad.DType()); got != torch.Float32 {
				t.Errorf("gradient: got type %v, want %v", got, torch.Float32)
			}
			norms[i] = norm(grad)
			s.Close()
			teacher.Close()
			head.Close()
		}
		near(t, name+" loss in bfloat16", losses[1], losses[0], tolerances[name])
		near(t, name+" gradient in bfloat16", norms[1], norms[0], 0.2) // it has gone through all layers twice
	}
}

// More light on all pixels changes the features of a teacher until it has been made blind to that, and only at the edge,
// where the padding stays as it is, from then on.
func TestIgnoreLevel(t *testing.T) {
	const S, edge = 128, 6 // positions of layer1 that the padding reaches
	std := [3]float32{0.25, 0.5, 0.125}
	teacher := must(torch.NewTeacher(torch.ModuleOptions{Arch: "resnet18", DType: torch.Float64, Seed: 5, Trainable: true}))
	defer teacher.Close()
	if err := teacher.Train(false); err != nil {
		t.Fatal(err)
	}
	dark := uniform("level", 3*S*S)
	bright := slices.Clone(dark)
	for i := range bright {
		bright[i] += 0.3 / float64(std[i/(S*S)])
	}
	layer1 := func(x []float64) []float64 {
		var s torch.Scope
		defer s.Close()
		f := s.Features(teacher.Forward(s.Tensor(torch.FromSlice(x, 1, 3, S, S))))
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		return must(torch.Read[float64](f[0])) // 1 x 64 x S/4 x S/4
	}
	change := func() (most float64) {
		a, b := layer1(dark), layer1(bright)
		const side = S / 4
		for i := range a {
			y, x := i/side%side, i%side
			if min(x, y, side-1-x, side-1-y) >= edge {
				most = max(most, math.Abs(a[i]-b[i]))
			}
		}
		return most
	}
	if got := change(); got < 0.1 {
		t.Errorf("before: features change by %v, want at least 0.1", got)
	}
	if err := teacher.IgnoreLevel(std); err != nil {
		t.Fatal(err)
	}
	if got := change(); got > 1e-9 {
		t.Errorf("afterwards: features change by %v, want at most 1e-9", got)
	}
	frozen := must(torch.NewTeacher(torch.ModuleOptions{Arch: "resnet18"}))
	defer frozen.Close()
	wantError(t, "a frozen teacher", frozen.IgnoreLevel(std), "trainable")
}

func TestImages(t *testing.T) {
	pixels := []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255}
	mean, std := [3]float32{0.1, 0.2, 0.3}, [3]float32{0.5, 0.25, 2}
	x := must(torch.Images(pixels, 2, mean, std, torch.CPU, torch.Float32))
	defer x.Close()
	if got, want := must(x.Shape()), []int64{1, 3, 2, 2}; !slices.Equal(got, want) {
		t.Fatalf("shape: got %v, want %v", got, want)
	}
	for i, got := range must(torch.Read[float32](x)) {
		c, at := i/4, i%4
		want := (float64(pixels[3*at+c])/255 - float64(mean[c])) / float64(std[c])
		if math.Abs(float64(got)-want) > 1e-6 { // float32
			t.Errorf("[%d]: got %v, want %v", i, got, want)
		}
	}
	_, err := torch.Images(pixels, 3, mean, std, torch.CPU, torch.Float32)
	wantError(t, "too few bytes", err, "12 bytes", "3 x 3")
}

func TestBadPretrainInput(t *testing.T) {
	opt := torch.ModuleOptions{Arch: "resnet18"}
	head := must(torch.NewHead(torch.ObjectiveClass, 3, opt))
	defer head.Close()
	rows := must(torch.FromSlice(make([]float32, 6), 2, 3))
	defer rows.Close()
	var adam *torch.Adam = must(torch.NewAdam(0.9, 0.999, 1e-8))
	defer adam.Close()

	_, err := torch.NewHead(9, 3, opt)
	wantError(t, "objective", err, "unknown objective")
	_, err = torch.NewHead(torch.ObjectiveClass, 0, opt)
	wantError(t, "no outputs", err, "at least one output")
	_, err = head.Forward(3, rows)
	wantError(t, "no such scale", err)
	_, err = head.Forward(0, rows)
	wantError(t, "features of another shape", err)
	for what, labels := range map[string][]int64{"no labels": nil, "too few": {0}, "too high": {0, 3}, "too low": {0, -2}} {
		_, _, err := torch.LossClass(rows, labels, 0)
		wantError(t, what, err, "label")
	}
	// Where no row has a label, nothing is learned, and nothing is wrong.
	loss, accuracy, err := torch.LossClass(rows, []int64{-1, -1}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer loss.Close()
	defer accuracy.Close()
	if got := must(torch.Scalars(loss, accuracy)); got[0] != 0 || got[1] != 0 {
		t.Errorf("no labels at all: got loss and accuracy %v, want zeros", got)
	}
	for _, S := range []int{0, -1, 3, 1 << 16, 1 << 31, 1 << 32, math.MaxInt} {
		_, err := torch.Images(make([]byte, 12), S, [3]float32{}, [3]float32{1, 1, 1}, torch.CPU, torch.Float32)
		wantError(t, "images", err, "no pictures")
	}
	_, _, err = torch.LossPair(rows, 0)
	wantError(t, "temperature", err, "temperature")
	odd := must(torch.FromSlice(make([]float32, 3), 3, 1))
	defer odd.Close()
	_, _, err = torch.LossPair(odd, 0.1)
	wantError(t, "odd rows", err, "even")
	wantError(t, "no group", adam.SetRate(0, 1))
	wantError(t, "no group", adam.SetDecay(0, 1))
}

// BenchmarkPretrain is a step of resnet18 at 64 x 64 pixels, batch 128, with every scale's head of 4000 classes.
func BenchmarkPretrain(b *testing.B) {
	const B, S, classes = 128, 64, 4000
	for name, dtype := range map[string]torch.DType{"fp32": torch.Float32, "bf16": torch.BFloat16} {
		b.Run(name, func(b *testing.B) {
			opt := torch.ModuleOptions{Arch: "resnet18", Seed: 3, Trainable: true}
			teacher, head := must(torch.NewTeacher(opt)), must(torch.NewHead(torch.ObjectiveClass, classes, opt))
			adam := must(torch.NewAdam(0.9, 0.999, 1e-8))
			defer teacher.Close()
			defer head.Close()
			defer adam.Close()
			for _, n := range []torch.Network{teacher, head} {
				if err := adam.Add(n, 1e-3); err != nil {
					b.Fatal(err)
				}
			}
			pixels, labels := make([]uint8, B*S*S*3), make([]int64, B)
			for i, u := range uniform("pixels", len(pixels)) {
				pixels[i] = uint8(256 * u)
			}
			for b.Loop() {
				var s torch.Scope
				x := s.Tensor(torch.Images(pixels, S, [3]float32{0.5, 0.5, 0.5}, [3]float32{0.25, 0.25, 0.25}, torch.CPU, dtype))
				var terms []torch.Term
				for k, f := range s.Features(teacher.Forward(x)) {
					loss, _ := s.Pair(torch.LossClass(s.Tensor(head.Forward(k, f)), labels, 0.1))
					terms = append(terms, torch.Term{Value: loss, Weight: 1})
				}
				s.Check(torch.Backward(s.Tensor(torch.WeightedSum(terms...))))
				s.Check(adam.Step())
				if err := s.Err(); err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
			b.ReportMetric(float64(b.N*B)/b.Elapsed().Seconds(), "pictures/s")
		})
	}
}
