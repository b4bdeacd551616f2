package torch_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// The golden files in testdata hold what the released code and geomloss answered in PyTorch; weights and inputs
// are made by uniform, so that none need be stored.

// Relative tolerances, absolute tinyValue near zero. float64 differs by the order of summation alone; Adam
// divides by gradients that are zero but for rounding, so what follows an optimiser step agrees less closely.
const (
	tolFloat64      = 1e-9
	tolFloat64Steps = 1e-7
	tolFloat32      = 2e-4
	tinyValue       = 1e-9
)

// uniform returns n numbers in [0, 1) that depend on key alone and are exact in float32: FNV-1a of the key seeds
// a SplitMix64 sequence whose upper 24 bits are kept.
func uniform(key string, n int) []float64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 0x100000001b3
	}
	u := make([]float64, n)
	for i := range u {
		h += 0x9E3779B97F4A7C15
		z := h
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		z ^= z >> 31
		u[i] = float64(z>>40) / (1 << 24)
	}
	return u
}

func TestMain(m *testing.M) {
	testmain.Be(map[string]func([]string) error{asCrowded: computeCrowded})
	os.Exit(testmain.Run(m, func(string) error { return torch.SetThreads(2) }))
}

func TestUniform(t *testing.T) {
	want := []float64{0.9668779969215393, 0.7840636372566223, 0.4277403950691223}
	for i, got := range uniform("encoder.conv1.weight", 3) {
		if got != want[i] {
			t.Errorf("uniform[%d]: got %v, want %v", i, got, want[i])
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func readGolden(t *testing.T, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.IsNaN(got) || math.Abs(got-want) > tinyValue+tolerance*math.Abs(want) {
		t.Errorf("%s: got %.15g, want %.15g", what, got, want)
	}
}

// fill gives every entry of a network its golden value.
func fill(t *testing.T, network string, state []torch.Entry) {
	t.Helper()
	for _, e := range state {
		shape := must(e.Tensor.Shape())
		n := int(must(e.Tensor.Len()))
		u := uniform(network+"."+e.Name, n)
		for i := range u {
			switch {
			case strings.HasSuffix(e.Name, "num_batches_tracked"):
				u[i] = 0
			case len(shape) == 4:
				u[i] = (2*u[i] - 1) * math.Sqrt(6/float64(shape[1]*shape[2]*shape[3]))
			case strings.HasSuffix(e.Name, ".weight"), strings.HasSuffix(e.Name, "running_var"):
				u[i] += 0.5
			default:
				u[i] = 0.2 * (2*u[i] - 1)
			}
			u[i] = float64(float32(u[i]))
		}
		if err := torch.Write(e.Tensor, u); err != nil {
			t.Fatal(err)
		}
	}
}

type summary struct {
	Shape    []int64
	Mean, L2 float64
	At       []int
	Values   []float64
}

func checkSummary(t *testing.T, what string, got *torch.Tensor, want summary, tolerance float64) {
	t.Helper()
	values := must(torch.Read[float64](got))
	shape := must(got.Shape())
	if len(shape) != len(want.Shape) {
		t.Fatalf("%s: got shape %v, want %v", what, shape, want.Shape)
	}
	for i := range shape {
		if shape[i] != want.Shape[i] {
			t.Fatalf("%s: got shape %v, want %v", what, shape, want.Shape)
		}
	}
	var sum, squares float64
	for _, v := range values {
		sum += v
		squares += v * v
	}
	near(t, what+" mean", sum/float64(len(values)), want.Mean, tolerance)
	near(t, what+" l2", math.Sqrt(squares), want.L2, tolerance)
	scale := math.Sqrt(squares / float64(len(values)))
	for i, at := range want.At {
		// Single values near zero carry the rounding of the large ones they are made of.
		if math.Abs(values[at]-want.Values[i]) > tolerance*(scale+math.Abs(want.Values[i])) {
			t.Errorf("%s[%d]: got %.15g, want %.15g", what, at, values[at], want.Values[i])
		}
	}
}

type modelGolden struct {
	Arch, DType        string
	Batch, Size        int
	ImageKey, NoiseKey string
	NoiseBox           struct {
		Y0, Y1, X0, X1 int
		Scale          float64
	}
	Eval struct {
		Features, Projected, Decoded []summary
		Bottleneck                   summary
		AnomalyMap                   struct {
			Rows          []int
			Raw, Smoothed [][]float64
		}
		ImageScore []float64
	}
	Train struct {
		Accumulate        int
		LRProj, LRDistill float64
		Betas             []float64
		Permutation       []int64
		FinalParamL2      map[string]float64
		FinalRunningVarL2 map[string]float64
		Steps             []struct {
			KD, SSOT, Recon, Contrast, Total float64
			GradL2                           map[string]map[string]float64
		}
	}
}

// jsonNames lets Go's field names meet the file's snake_case ones.
func (g *modelGolden) UnmarshalJSON(data []byte) error {
	type plain modelGolden
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		return err
	}
	renamed, err := json.Marshal(camel(tree))
	if err != nil {
		return err
	}
	return json.Unmarshal(renamed, (*plain)(g))
}

// camel drops underscores from the keys of a tree, leaving the state-dict names below grad_l2 as they are.
func camel(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, value := range v {
			name := strings.ReplaceAll(key, "_", "")
			if key == "grad_l2" {
				out[name] = value
			} else {
				out[name] = camel(value)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = camel(v[i])
		}
		return out
	}
	return v
}

func TestModelGolden(t *testing.T) {
	for _, c := range []struct {
		file  string
		exact string // the same run in float64
		fast  bool   // as programs run it: channels last and frozen; in float32 inference alone, for gradients magnify rounding
		slow  bool
	}{
		{"model_resnet18_float64_64.json", "", false, false},
		{"model_resnet18_float64_64.json", "", true, false},
		{"model_resnet18_float32_96.json", "", false, false},
		{"model_resnet18_float32_96.json", "", true, false},
		{"model_resnet50_float64_64.json", "", false, true},
		{"model_resnet50_float64_64.json", "", true, true},
		{"model_wide_resnet50_2_float32_64.json", "model_wide_resnet50_2_float64_64.json", false, true},
		{"model_wide_resnet50_2_float32_64.json", "", true, true},
		{"model_wide_resnet50_2_float64_64.json", "", false, true},
	} {
		if c.slow && !*testmain.Slow {
			continue
		}
		t.Run(fmt.Sprintf("%s/fast=%v", strings.TrimSuffix(c.file, ".json"), c.fast), func(t *testing.T) {
			var g modelGolden
			readGolden(t, c.file, &g)
			before := torch.LiveTensors()
			var exact map[string]map[string]float64
			if c.exact != "" {
				var g64 modelGolden
				readGolden(t, c.exact, &g64)
				exact = g64.Train.Steps[0].GradL2
			}
			checkModel(t, &g, exact, !c.fast)
			if after := torch.LiveTensors(); after != before {
				t.Errorf("live tensors: got %d, want %d", after, before)
			}
		})
	}
}

func checkModel(t *testing.T, g *modelGolden, exact map[string]map[string]float64, reference bool) {
	dtype, tolerance, toleranceSteps := torch.Float64, tolFloat64, tolFloat64Steps
	if g.DType == "float32" {
		dtype, tolerance, toleranceSteps = torch.Float32, tolFloat32, tolFloat32
	}
	opt := torch.ModuleOptions{Arch: g.Arch, DType: dtype, Reference: reference}
	teacher := must(torch.NewTeacher(opt))
	defer teacher.Close()
	projection := must(torch.NewProjection(opt))
	defer projection.Close()
	bottleneck := must(torch.NewBottleneck(opt))
	defer bottleneck.Close()
	student := must(torch.NewStudent(opt))
	defer student.Close()
	fill(t, "encoder", teacher.State())
	networks := map[string]torch.Network{"proj": projection, "bn": bottleneck, "decoder": student}
	for name, n := range networks {
		fill(t, name, n.State())
	}

	B, S := g.Batch, g.Size
	image, noisy := uniform(g.ImageKey, B*3*S*S), uniform(g.NoiseKey, B*3*S*S)
	for i := range image {
		image[i] = 2 * (2*image[i] - 1)
		noise := 2 * (2*noisy[i] - 1)
		noisy[i] = image[i]
		y, x := i/S%S, i%S
		if box := g.NoiseBox; y >= box.Y0 && y < box.Y1 && x >= box.X0 && x < box.X1 {
			noisy[i] += box.Scale * noise
		}
	}
	cast := func(data []float64) *torch.Tensor {
		t := must(torch.FromSlice(data, int64(B), 3, int64(S), int64(S)))
		defer t.Close()
		return must(t.To(torch.CPU, dtype))
	}
	clean, disturbed := cast(image), cast(noisy)
	defer clean.Close()
	defer disturbed.Close()

	for _, n := range append(slices.Collect(maps.Values(networks)), torch.Network(teacher)) {
		if err := n.Train(false); err != nil {
			t.Fatal(err)
		}
	}
	f := must(teacher.Forward(clean))
	p := must(projection.Forward(f))
	z := must(bottleneck.Forward(p))
	d := must(student.Forward(z))
	for k := range torch.Scales {
		checkSummary(t, "features", f[k], g.Eval.Features[k], tolerance)
		checkSummary(t, "projected", p[k], g.Eval.Projected[k], tolerance)
		checkSummary(t, "decoded", d[k], g.Eval.Decoded[k], tolerance)
	}
	checkSummary(t, "bottleneck", z, g.Eval.Bottleneck, tolerance)
	raw, smoothed, err := torch.AnomalyMap(f, d, S, torch.MapOptions{Sigma: 4})
	if err != nil {
		t.Fatal(err)
	}
	maps, scores, err := torch.Predict(teacher, projection, bottleneck, student, clean, torch.MapOptions{Sigma: 4})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		got  *torch.Tensor
		want [][]float64
	}{
		"raw map":       {raw, g.Eval.AnomalyMap.Raw},
		"smoothed map":  {smoothed, g.Eval.AnomalyMap.Smoothed},
		"predicted map": {maps, g.Eval.AnomalyMap.Smoothed},
	} {
		values := must(torch.Read[float64](c.got))
		for i, row := range g.Eval.AnomalyMap.Rows {
			for x, want := range c.want[i] {
				near(t, name, values[row*S+x], want, tolerance)
			}
		}
	}
	for i, got := range must(torch.Read[float64](scores)) {
		near(t, "image score", got, g.Eval.ImageScore[i], tolerance)
	}
	for _, x := range []torch.Features{f, p, d} {
		x.Close()
	}
	for _, x := range []*torch.Tensor{z, raw, smoothed, maps, scores} {
		x.Close()
	}

	if !reference && dtype == torch.Float32 {
		return
	}

	// Training
	adam := must(torch.NewAdam(g.Train.Betas[0], g.Train.Betas[1], 1e-8))
	defer adam.Close()
	for _, group := range []struct {
		n  torch.Network
		lr float64
	}{{projection, g.Train.LRProj}, {student, g.Train.LRDistill}, {bottleneck, g.Train.LRDistill}} {
		if err := group.n.Train(true); err != nil {
			t.Fatal(err)
		}
		if err := adam.Add(group.n, group.lr); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range g.Train.Steps {
		tol := tolerance
		if i >= g.Train.Accumulate {
			tol = toleranceSteps
		}
		f := must(teacher.ForwardPair(clean, disturbed))
		fClean, fNoisy, err := f.Split(B)
		if err != nil {
			t.Fatal(err)
		}
		pAll := must(projection.Forward(f))
		p, pNoisy, err := pAll.Split(B)
		if err != nil {
			t.Fatal(err)
		}
		z := must(bottleneck.Forward(p))
		d := must(student.Forward(z))
		kd := must(torch.LossKD(fClean, d, false, torch.Easy{}))
		ssot := must(torch.LossSSOT(p, g.Train.Permutation, torch.SSOTBatch, torch.SinkhornOptions{Diameter: 1e7}))
		recon := must(torch.LossRecon(pNoisy, p))
		contrast := must(torch.LossContrast(fNoisy, p, 0.5))
		total := must(torch.WeightedSum(torch.Term{Value: kd, Weight: 1}, torch.Term{Value: ssot, Weight: 0.2 / 1.11},
			torch.Term{Value: recon, Weight: 0.2 * 0.01 / 1.11}, torch.Term{Value: contrast, Weight: 0.2 * 0.1 / 1.11}))
		if err := torch.Backward(total); err != nil {
			t.Fatal(err)
		}
		got := must(torch.Scalars(kd, ssot, recon, contrast, total))
		near(t, "L_KD", got[0], want.KD, tol)
		near(t, "L_SSOT", got[1], want.SSOT, tol)
		near(t, "L_Recon", got[2], want.Recon, tol)
		near(t, "L_Con", got[3], want.Contrast, tol)
		near(t, "total", got[4], want.Total, tol)
		if i == 0 {
			for name, n := range networks {
				checkGradients(t, name, n, want.GradL2[name], exact[name], tol)
			}
		}
		if (i+1)%g.Train.Accumulate == 0 {
			if err := adam.Step(); err != nil {
				t.Fatal(err)
			}
		}
		for _, x := range []torch.Features{f, fNoisy, fClean, pAll, p, pNoisy, d} {
			x.Close()
		}
		for _, x := range []*torch.Tensor{z, kd, ssot, recon, contrast, total} {
			x.Close()
		}
	}
	for name, n := range networks {
		var params, vars float64
		for _, e := range n.State() {
			values := must(torch.Read[float64](e.Tensor))
			for _, v := range values {
				if e.Trainable {
					params += v * v
				} else if strings.HasSuffix(e.Name, "running_var") {
					vars += v * v
				}
			}
		}
		near(t, name+" parameters", math.Sqrt(params), g.Train.FinalParamL2[name], toleranceSteps)
		if want, found := g.Train.FinalRunningVarL2[name]; found {
			near(t, name+" running_var", math.Sqrt(vars), want, toleranceSteps)
		}
	}
}

// checkGradients compares every gradient's norm. In float32 a network at random weights magnifies rounding: where
// a golden float64 run of the same network exists (exact), a gradient may also be as far from that one as the
// released float32 run is, which is up to 1 % for wide_resnet50_2.
func checkGradients(t *testing.T, name string, n torch.Network, want, exact map[string]float64, tolerance float64) {
	t.Helper()
	var ownError float64
	for key, norm := range exact {
		if norm > tinyValue {
			ownError = max(ownError, math.Abs(want[key]-norm)/norm)
		}
	}
	seen := 0
	var largest float64
	for _, norm := range want {
		largest = max(largest, norm)
	}
	for _, e := range n.State() {
		grad := must(e.Tensor.Grad())
		if grad == nil {
			if _, found := want[e.Name]; found {
				t.Errorf("gradient of %s.%s: got none", name, e.Name)
			}
			continue
		}
		var squares float64
		for _, v := range must(torch.Read[float64](grad)) {
			squares += v * v
		}
		grad.Close()
		norm, found := want[e.Name]
		if !found {
			t.Errorf("gradient of %s.%s: got one, want none", name, e.Name)
			continue
		}
		seen++
		// A convolution's bias before an instance norm has no effect: its gradient is the rounding of large sums.
		got := math.Sqrt(squares)
		if exact != nil && math.Abs(got-exact[e.Name]) <= ownError*exact[e.Name] {
			continue
		}
		if math.Abs(got-norm) > tinyValue+tolerance*norm+1e-3*tolerance*largest {
			t.Errorf("gradient of %s.%s: got l2 %.15g, want %.15g", name, e.Name, got, norm)
		}
	}
	if seen != len(want) {
		t.Errorf("gradients of %s: got %d, want %d", name, seen, len(want))
	}
}

type tensor4 [][][][]float64 // B x C x H x W

func (x tensor4) flat() (data []float64, shape []int64) {
	for _, c := range x {
		for _, h := range c {
			for _, w := range h {
				data = append(data, w...)
			}
		}
	}
	return data, []int64{int64(len(x)), int64(len(x[0])), int64(len(x[0][0])), int64(len(x[0][0][0]))}
}

func TestLossesGolden(t *testing.T) {
	var cases []struct {
		Name                                string
		Permutation                         []int64
		Teacher, Noised, Projected, Student [3]tensor4
		ProjectedNoised                     [3]tensor4 `json:"projected_noised"`
		KD, Recon, Contrast, Total          float64
		SSOTBatch                           float64    `json:"ssot_batch"`
		SSOTPairwise                        float64    `json:"ssot_pairwise"`
		GradProjected                       [3]tensor4 `json:"grad_projected"`
		GradProjectedNoised                 [3]tensor4 `json:"grad_projected_noised"`
		GradStudent                         [3]tensor4 `json:"grad_student"`
		GradPairwiseProjected               [3]tensor4 `json:"grad_pairwise_projected"`
	}
	readGolden(t, "losses.json", &cases)
	load := func(x [3]tensor4, grad bool) (f torch.Features) {
		for k := range f {
			data, shape := x[k].flat()
			f[k] = must(torch.FromSlice(data, shape...))
			if grad {
				if err := f[k].RequireGrad(); err != nil {
					t.Fatal(err)
				}
			}
		}
		return f
	}
	checkGrad := func(what string, f torch.Features, want [3]tensor4) {
		t.Helper()
		for k := range f {
			data, _ := want[k].flat()
			grad := must(f[k].Grad())
			for i, got := range must(torch.Read[float64](grad)) {
				near(t, what, got, data[i], tolFloat64)
			}
			grad.Close()
		}
	}
	if len(cases) != 2 {
		t.Fatalf("cases: got %d, want 2", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			f, fn := load(c.Teacher, false), load(c.Noised, false)
			p, pn, g := load(c.Projected, true), load(c.ProjectedNoised, true), load(c.Student, true)
			kd := must(torch.LossKD(f, g, false, torch.Easy{}))
			ssot := must(torch.LossSSOT(p, c.Permutation, torch.SSOTBatch, torch.SinkhornOptions{Diameter: 1e7}))
			recon := must(torch.LossRecon(pn, p))
			contrast := must(torch.LossContrast(fn, p, 0.5))
			total := must(torch.WeightedSum(torch.Term{Value: kd, Weight: 1}, torch.Term{Value: ssot, Weight: 0.2 / 1.11},
				torch.Term{Value: recon, Weight: 0.002 / 1.11}, torch.Term{Value: contrast, Weight: 0.02 / 1.11}))
			if err := torch.Backward(total); err != nil {
				t.Fatal(err)
			}
			got := must(torch.Scalars(kd, ssot, recon, contrast, total))
			for i, want := range []float64{c.KD, c.SSOTBatch, c.Recon, c.Contrast, c.Total} {
				near(t, []string{"L_KD", "L_SSOT", "L_Recon", "L_Con", "total"}[i], got[i], want, tolFloat64)
			}
			checkGrad("gradient of student", g, c.GradStudent)
			checkGrad("gradient of projected", p, c.GradProjected)
			checkGrad("gradient of projected noisy", pn, c.GradProjectedNoised)

			fresh := load(c.Projected, true)
			pairwise := must(torch.LossSSOT(fresh, c.Permutation, torch.SSOTPairwise, torch.SinkhornOptions{}))
			if err := torch.Backward(pairwise); err != nil {
				t.Fatal(err)
			}
			near(t, "L_SSOT pairwise", must(torch.Scalars(pairwise))[0], c.SSOTPairwise, tolFloat64)
			checkGrad("pairwise gradient", fresh, c.GradPairwiseProjected)
			off := must(torch.LossSSOT(fresh, c.Permutation, torch.SSOTOff, torch.SinkhornOptions{}))
			if got := must(torch.Scalars(off))[0]; got != 0 {
				t.Errorf("L_SSOT off: got %v, want 0", got)
			}
			for _, x := range []torch.Features{f, fn, p, pn, g, fresh} {
				x.Close()
			}
			for _, x := range []*torch.Tensor{kd, ssot, recon, contrast, total, pairwise, off} {
				x.Close()
			}
		})
	}
}

// Eq. 1 by its letter, against the definition in plain Go.
func TestLossKDPerPosition(t *testing.T) {
	var f, g torch.Features
	var want float64
	for k := range torch.Scales {
		const B, C, HW = 2, 5, 6
		x, y := uniform("f"+string(rune('0'+k)), B*C*HW), uniform("g"+string(rune('0'+k)), B*C*HW)
		f[k], g[k] = must(torch.FromSlice(x, B, C, 2, 3)), must(torch.FromSlice(y, B, C, 2, 3))
		for b := range B {
			for i := range HW {
				var xy, xx, yy float64
				for c := range C {
					u, v := x[(b*C+c)*HW+i], y[(b*C+c)*HW+i]
					xy, xx, yy = xy+u*v, xx+u*u, yy+v*v
				}
				want += (1 - xy/math.Sqrt(xx*yy)) / (B * HW)
			}
		}
	}
	defer f.Close()
	defer g.Close()
	loss := must(torch.LossKD(f, g, true, torch.Easy{}))
	defer loss.Close()
	near(t, "L_KD per position", must(torch.Scalars(loss))[0], want, tolFloat64)
}

// nested reads a number or lists of numbers at any depth, row-major.
type nested struct {
	data  []float64
	shape []int64
}

func (n *nested) UnmarshalJSON(raw []byte) error {
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil || tree == nil {
		return err
	}
	var walk func(v any, depth int)
	walk = func(v any, depth int) {
		list, isList := v.([]any)
		if !isList {
			n.data = append(n.data, v.(float64))
			return
		}
		if depth == len(n.shape) {
			n.shape = append(n.shape, int64(len(list)))
		}
		for _, item := range list {
			walk(item, depth+1)
		}
	}
	walk(tree, 0)
	return nil
}

// problem returns x as P x N x D (weights: P x N): files leave P out where it is 1.
func (n nested) problem(dims int) []int64 {
	if len(n.shape) == dims-1 {
		return append([]int64{1}, n.shape...)
	}
	return n.shape
}

func TestSinkhornGolden(t *testing.T) {
	var cases []struct {
		Name    string
		Options struct {
			P               int
			Blur, Scaling   float64
			Reach, Diameter float64
			Debias          bool
		}
		X, Y, A, B, Loss nested
		GradX            nested `json:"grad_x"`
		GradY            nested `json:"grad_y"`
	}
	readGolden(t, "sinkhorn.json", &cases)
	if len(cases) != 11 {
		t.Fatalf("cases: got %d, want 11", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			opt := torch.SinkhornOptions{P: c.Options.P, Blur: c.Options.Blur, Scaling: c.Options.Scaling,
				Reach: c.Options.Reach, Diameter: c.Options.Diameter, Biased: !c.Options.Debias}
			cloud := func(n nested, dims int) *torch.Tensor {
				if n.data == nil {
					return nil
				}
				return must(torch.FromSlice(n.data, n.problem(dims)...))
			}
			x, y, a, b := cloud(c.X, 3), cloud(c.Y, 3), cloud(c.A, 2), cloud(c.B, 2)
			for _, leaf := range []*torch.Tensor{x, y} {
				if err := leaf.RequireGrad(); err != nil {
					t.Fatal(err)
				}
			}
			out := must(torch.Sinkhorn(x, y, a, b, opt))
			for i, got := range must(torch.Read[float64](out)) {
				near(t, "loss", got, c.Loss.data[i], tolFloat64)
			}
			swapped := must(torch.Sinkhorn(y, x, b, a, opt))
			for i, got := range must(torch.Read[float64](swapped)) {
				near(t, "loss of the swapped clouds", got, c.Loss.data[i], tolFloat64)
			}
			sum := must(torch.Sum(out))
			if err := torch.Backward(sum); err != nil {
				t.Fatal(err)
			}
			for what, leaf := range map[string]*torch.Tensor{"x": x, "y": y} {
				want := c.GradX.data
				if what == "y" {
					want = c.GradY.data
				}
				grad := must(leaf.Grad())
				for i, got := range must(torch.Read[float64](grad)) {
					near(t, "gradient of "+what, got, want[i], tolFloat64)
				}
				grad.Close()
			}
			for _, opened := range []*torch.Tensor{x, y, a, b, out, swapped, sum} {
				opened.Close()
			}
		})
	}
}
