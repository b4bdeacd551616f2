package torch_test

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

func wantError(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: got no error, want one", what)
		return
	}
	for _, part := range append(parts, "torch: ") {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: got %q, want %q in it", what, err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: got %q, want one line", what, err)
	}
}

func TestTensorRoundTrip(t *testing.T) {
	before := torch.LiveTensors()
	x := must(torch.FromSlice([]float64{1, -2.5, 3e-3, 4, 5, 6}, 2, 3))
	if got, want := must(x.Shape()), []int64{2, 3}; !slices.Equal(got, want) {
		t.Errorf("shape: got %v, want %v", got, want)
	}
	if got, want := must(torch.Read[float32](x)), []float32{1, -2.5, 3e-3, 4, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("as float32: got %v, want %v", got, want)
	}
	half := must(x.To(torch.CPU, torch.Float16))
	if got := must(half.DType()); got != torch.Float16 {
		t.Errorf("type: got %v, want %v", got, torch.Float16)
	}
	raw := must(half.ReadBytes())
	if len(raw) != 12 {
		t.Errorf("bytes: got %d, want 12", len(raw))
	}
	y := must(torch.FromSlice(make([]float32, 6), 3, 2))
	if err := y.WriteBytes(torch.Float16, raw); err != nil {
		t.Fatal(err)
	}
	if got := must(torch.Read[float64](y)); got[1] != -2.5 || math.Abs(got[2]-3e-3) > 2e-6 {
		t.Errorf("through float16: got %v", got)
	}
	scalar := must(torch.FromSlice([]int64{7}))
	if got := must(torch.Scalars(scalar, scalar)); !slices.Equal(got, []float64{7, 7}) {
		t.Errorf("scalars: got %v, want 7, 7", got)
	}
	empty := must(torch.FromSlice([]uint8{}, 0, 4))
	if got := must(torch.Read[uint8](empty)); len(got) != 0 {
		t.Errorf("empty: got %v", got)
	}
	for _, opened := range []*torch.Tensor{x, half, y, scalar, empty} {
		opened.Close()
		opened.Close()
	}
	if after := torch.LiveTensors(); after != before {
		t.Errorf("live tensors: got %d, want %d", after, before)
	}
}

func TestBadInputIsAnError(t *testing.T) {
	opt := torch.ModuleOptions{Arch: "resnet18"}
	teacher, student := must(torch.NewTeacher(opt)), must(torch.NewStudent(opt))
	defer student.Close()
	closed := must(torch.FromSlice([]float32{1, 2, 3}, 3))
	closed.Close()
	three := must(torch.FromSlice([]float32{1, 2, 3}, 3))
	defer three.Close()

	_, err := torch.FromSlice([]float32{1, 2}, 3)
	wantError(t, "too few elements", err, "[3]", "3", "2")
	_, err = torch.FromSlice([]float32{1, 2}, -2)
	wantError(t, "negative size", err, "[-2]")
	_, err = torch.FromSlice([]float32{1, 2}, math.MaxInt64, 4)
	wantError(t, "huge size", err)
	_, err = closed.Shape()
	wantError(t, "closed tensor's shape", err, "closed")
	_, err = torch.Read[float32](closed)
	wantError(t, "reading a closed tensor", err, "closed")
	_, err = teacher.Forward(closed)
	wantError(t, "closed input", err, "closed")
	_, err = teacher.Forward(three)
	wantError(t, "input of another shape", err)
	_, err = student.Forward(nil)
	wantError(t, "nil input", err, "closed")
	wantError(t, "short write", torch.Write(three, []float32{1}), "3", "1")
	wantError(t, "odd bytes", three.WriteBytes(torch.Float32, make([]byte, 5)), "5")
	wantError(t, "backward of what has no graph", torch.Backward(three))
	_, err = torch.Scalars(three)
	wantError(t, "no scalar", err, "scalar")
	_, err = torch.WeightedSum()
	wantError(t, "no terms", err)
	_, err = torch.NewTeacher(torch.ModuleOptions{Arch: "vgg16"})
	wantError(t, "architecture", err, "vgg16", "wide_resnet50_2")
	_, err = torch.NewTeacher(torch.ModuleOptions{Arch: "resnet18", Device: torch.CUDA(63)})
	wantError(t, "device", err, "63")
	_, err = torch.LossSSOT(torch.Features{}, []int64{0, 5}, torch.SSOTPairwise, torch.SinkhornOptions{})
	wantError(t, "no permutation", err, "row 5")
	_, err = torch.Sinkhorn(three, three, nil, nil, torch.SinkhornOptions{})
	wantError(t, "points without dimensions", err, "P x N x D")
	wantError(t, "no threads", torch.SetThreads(0), "1 to")
	wantError(t, "threads beyond reason", torch.SetThreads(50000), "1 to")
	teacher.Close()
	teacher.Close()
	_, err = teacher.Forward(three)
	wantError(t, "closed network", err, "closed")
	wantError(t, "closed network's mode", teacher.Train(true), "closed")
	var adam *torch.Adam = must(torch.NewAdam(0.5, 0.999, 1e-8))
	adam.Close()
	adam.Close()
	wantError(t, "closed optimiser", adam.Step(), "closed")
}

func TestParseDevice(t *testing.T) {
	for _, c := range []struct {
		name string
		want string // part of the device's name or of the error
		ok   bool
	}{
		{"cpu", "cpu", true},
		{"", "unknown device", false},
		{"gpu", "unknown device", false},
		{"cuda:", "number from 0", false},
		{"cuda:-1", "number from 0", false},
		{"cuda:x", "number from 0", false},
		{"cuda:65000", "not there", false},
	} {
		d, err := torch.ParseDevice(c.name)
		if c.ok {
			if err != nil || d.String() != c.want {
				t.Errorf("%q: got %v, %v, want %s", c.name, d, err, c.want)
			}
			continue
		}
		wantError(t, c.name, err, c.want)
	}
	if d, err := torch.ParseDevice("auto"); err != nil {
		t.Errorf("auto: got %v, %v", d, err)
	}
}

// The fast paths (channels last, folded batch norms, Winograd's convolutions, our own pooling and anomaly map) against
// the plain one, the released code's order of operations. In float32 they are another order of the same sums; bfloat16
// has 8 bits. Sides that are no multiples of 16 make tiles that reach over the edge.
func TestFastPathsEqualReference(t *testing.T) {
	cases := []struct {
		B, S         int64
		dtype        torch.DType
		score, pixel float64 // largest differences
	}{
		{2, 64, torch.Float32, 1e-4, 1e-3},
		{1, 160, torch.Float32, 1e-4, 1e-3},
		{3, 96, torch.Float32, 1e-4, 1e-3},
		{8, 96, torch.Float32, 1e-4, 1e-3}, // batches share what was made of the weights
		{1, 96, torch.Float32, 1e-4, 1e-3},
		{2, 64, torch.BFloat16, 0.01, 0.02},
		{1, 160, torch.BFloat16, 0.01, 0.02},
	}
	for _, arch := range torch.Architectures() {
		type networks struct {
			e torch.Teacher
			p torch.Projection
			o torch.Bottleneck
			d torch.Student
		}
		var all [2]networks // plain, fast
		for i := range all {
			opt := torch.ModuleOptions{Arch: arch, Seed: 5, Reference: i == 0}
			n := networks{must(torch.NewTeacher(opt)), must(torch.NewProjection(opt)), must(torch.NewBottleneck(opt)), must(torch.NewStudent(opt))}
			for _, part := range []torch.Network{n.e, n.p, n.o, n.d} {
				defer part.Close()
				if err := part.Train(false); err != nil {
					t.Fatal(err)
				}
			}
			all[i] = n
		}
		for _, c := range cases {
			name := fmt.Sprintf("%s, batch %d, %d x %d, %d bytes", arch, c.B, c.S, c.S, c.dtype.Size())
			var s torch.Scope
			defer s.Close()
			x := s.Tensor(torch.FromSlice(uniform("layouts", int(c.B*3*c.S*c.S)), c.B, 3, c.S, c.S))
			predict := func(n networks, dtype torch.DType) (scores, maps []float64) {
				m, score := s.Pair(torch.Predict(n.e, n.p, n.o, n.d, s.Tensor(x.To(torch.CPU, dtype)),
					torch.MapOptions{Sigma: 4, Weights: [torch.Terms]float64{0.3, 0.4, 0.3, 0.3, 0.3, 0.4}, Levels: [torch.Terms]float64{0, 0.05, 0.03, 0.02, 0, 0.01}}))
				if err := s.Err(); err != nil {
					t.Fatal(err)
				}
				return must(torch.Read[float64](score)), must(torch.Read[float64](m))
			}
			wantScores, wantMaps := predict(all[0], torch.Float32)
			scores, maps := predict(all[1], c.dtype)
			var score, pixel float64
			for i := range scores {
				score = max(score, math.Abs(scores[i]-wantScores[i]))
			}
			for i := range maps {
				pixel = max(pixel, math.Abs(maps[i]-wantMaps[i]))
			}
			if !(score <= c.score && pixel <= c.pixel) {
				t.Errorf("%s: scores differ by %.1e, maps by %.1e, want at most %.0e and %.0e", name, score, pixel, c.score, c.pixel)
			}
			t.Logf("%s: scores differ by %.1e of %.2f, maps by %.1e", name, score, wantScores[0], pixel)
		}
	}
}

// What is made of the weights for prediction goes when they change, and does not depend on the batch.
func TestPredictionFollowsWeights(t *testing.T) {
	const S = 96
	opt := torch.ModuleOptions{Arch: "resnet18", Seed: 5}
	e, p := must(torch.NewTeacher(opt)), must(torch.NewProjection(opt))
	o, d := must(torch.NewBottleneck(opt)), must(torch.NewStudent(opt))
	networks := []torch.Network{e, p, o, d}
	for _, n := range networks {
		defer n.Close()
	}
	train := func(on bool) {
		for _, n := range networks {
			if err := n.Train(on); err != nil {
				t.Fatal(err)
			}
		}
	}
	pixels := uniform("images", 4*3*S*S)
	predictor := must(torch.NewPredictor(e, p, o, d, torch.MapOptions{Sigma: 4}))
	defer func() { predictor.Close() }()
	score := func(B int64) float64 {
		var s torch.Scope
		defer s.Close()
		x := s.Tensor(s.Tensor(torch.FromSlice(pixels[:B*3*S*S], B, 3, S, S)).To(torch.CPU, torch.Float32))
		_, scores := s.Pair(predictor.Predict(x))
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		return must(torch.Read[float64](scores))[0]
	}
	train(false)
	first := score(1)
	if got := score(4); math.Abs(got-first) > 1e-6 {
		t.Errorf("in a batch of 4: got a score of %v, want %v", got, first)
	}
	train(true)
	for _, entry := range d.State() {
		if entry.Name == "layer1.0.conv2.weight" || entry.Name == "layer3.1.bn2.weight" {
			if err := torch.Write(entry.Tensor, make([]float32, must(entry.Tensor.Len()))); err != nil {
				t.Fatal(err)
			}
		}
	}
	train(false)
	changed := score(1)
	if math.Abs(changed-first) < 1e-3 {
		t.Errorf("after the student's weights were changed: got a score of %v, as before", changed)
	}
	other := must(torch.NewStudent(opt)) // the same weights by another way: a network that never predicted before
	defer other.Close()
	for i, entry := range d.State() {
		if must(entry.Tensor.DType()) != torch.Float32 {
			continue
		}
		if err := torch.Write(other.State()[i].Tensor, must(torch.Read[float32](entry.Tensor))); err != nil {
			t.Fatal(err)
		}
	}
	networks[3] = other
	predictor.Close()
	predictor = must(torch.NewPredictor(e, p, o, other, torch.MapOptions{Sigma: 4}))
	train(false)
	if got := score(1); got != changed {
		t.Errorf("a new network of the same weights: got a score of %v, want %v", got, changed)
	}
}

// TestRelease compares predictions of released networks, in batches of several sizes, with those of whole ones.
func TestRelease(t *testing.T) {
	var e torch.Teacher
	var p torch.Projection
	var o torch.Bottleneck
	var d torch.Student
	fresh := func(dtype torch.DType) []torch.Network {
		opt := torch.ModuleOptions{Arch: "resnet18", Seed: 3, DType: dtype}
		e, p, o, d = must(torch.NewTeacher(opt)), must(torch.NewProjection(opt)), must(torch.NewBottleneck(opt)), must(torch.NewStudent(opt))
		return []torch.Network{e, p, o, d}
	}
	const S = 64
	images := func(B, S int64, dtype torch.DType) *torch.Tensor {
		x := make([]float32, B*3*S*S)
		for i := range x {
			x[i] = float32(math.Sin(float64(i) * 0.37))
		}
		plain := must(torch.FromSlice(x, B, 3, S, S))
		defer plain.Close()
		return must(plain.To(torch.CPU, dtype))
	}
	// In Float64 convolutions are libtorch's, as they are on a GPU.
	for _, dtype := range []torch.DType{torch.Float32, torch.BFloat16, torch.Float64} {
		own := dtype
		if own == torch.BFloat16 {
			own = torch.Float32
		}
		var want [][]float64
		for _, released := range []bool{false, true} {
			networks := fresh(own)
			for _, n := range networks {
				if err := n.Train(false); err != nil {
					t.Fatal(err)
				}
				if !released {
					continue
				}
				if err := n.Release(); err != nil {
					t.Fatal(err)
				}
				if got := n.State(); got != nil {
					t.Errorf("a released network has a state of %d tensors", len(got))
				}
			}
			predictor := must(torch.NewPredictor(e, p, o, d, torch.MapOptions{Sigma: 4}))
			for i, B := range []int64{1, 3, 2} {
				x := images(B, S, dtype)
				maps, scores, err := predictor.Predict(x)
				if err != nil {
					t.Fatal(err)
				}
				exact := must(maps.To(torch.CPU, torch.Float64))
				got := must(torch.Read[float64](exact))
				exact.Close()
				if !released {
					want = append(want, got)
				} else if !slices.Equal(got, want[i]) {
					t.Errorf("%v: a batch of %d has another map than before the release", dtype, B)
				}
				x.Close()
				maps.Close()
				scores.Close()
			}
			if released {
				other := images(1, 2*S, dtype)
				_, _, err := predictor.Predict(other)
				other.Close()
				wantError(t, "another size", err, "released")
				wantError(t, "training", o.Train(true), "released")
				wantError(t, "averaging", torch.Average(o, o, 0.5), "released")
				if f, err := e.Forward(images(1, S, dtype)); err != nil {
					t.Error(err)
				} else if z, err := p.Forward(f); err != nil { // as an embedding is computed, which gradients would forbid
					t.Error(err)
				} else {
					z.Close()
					f.Close()
				}
			}
			predictor.Close()
			for _, n := range networks {
				n.Close()
			}
		}
	}
	net := must(torch.NewBottleneck(torch.ModuleOptions{Arch: "resnet18"}))
	defer net.Close()
	wantError(t, "a network in training mode", net.Release(), "eval mode")
}

// A released network has one form of its weights. Blocks of memory are counted, of which some are half empty: with one
// form resnet18 has 1.3 times the bytes of its weights after a prediction in float32, where it keeps the points of small
// kernels, and 1.0 in bfloat16; wide_resnet50_2 has 1.0 and 0.7. All points of Winograd's way, or what oneDNN's operations
// were made of, are each more than half of its weights' bytes.
func TestReleasedMemory(t *testing.T) {
	archs := []string{"resnet18"}
	if *testmain.Slow {
		archs = append(archs, "wide_resnet50_2")
	}
	const S = 256
	x := must(torch.FromSlice(uniform("memory", 3*S*S), 1, 3, S, S))
	defer x.Close()
	for _, arch := range archs {
		for dtype, most := range map[torch.DType]float64{torch.Float32: 1.5, torch.BFloat16: 1.2} {
			before := must(torch.HostMemory())
			opt := torch.ModuleOptions{Arch: arch, Seed: 3}
			e, p, o, d := must(torch.NewTeacher(opt)), must(torch.NewProjection(opt)), must(torch.NewBottleneck(opt)), must(torch.NewStudent(opt))
			weights := must(torch.HostMemory()) - before
			for _, n := range []torch.Network{e, p, o, d} {
				if err := n.Train(false); err != nil {
					t.Fatal(err)
				}
				if err := n.Release(); err != nil {
					t.Fatal(err)
				}
			}
			var s torch.Scope
			s.Pair(torch.Predict(e, p, o, d, s.Tensor(x.To(torch.CPU, dtype)), torch.MapOptions{Sigma: 4}))
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			s.Close()
			kept := must(torch.HostMemory()) - before
			t.Logf("%s, %d bytes a number: %.1f MB of weights, then %.1f MB", arch, dtype.Size(), float64(weights)/1e6, float64(kept)/1e6)
			if got := float64(kept) / float64(weights); !(got <= most) {
				t.Errorf("%s, %d bytes a number: got %.2f times the weights' bytes after a prediction, want at most %.1f", arch, dtype.Size(), got, most)
			}
			for _, n := range []torch.Network{e, p, o, d} {
				n.Close()
			}
		}
	}
}

// Features of another network's width are refused, also where our own loops would read past them.
func TestWrongWidths(t *testing.T) {
	p := must(torch.NewProjection(torch.ModuleOptions{Arch: "resnet18", Seed: 1}))
	defer p.Close()
	for _, training := range []bool{true, false} {
		if err := p.Train(training); err != nil {
			t.Fatal(err)
		}
		for _, channels := range []int64{16, 4096} {
			var s torch.Scope
			defer s.Close()
			var f torch.Features
			for k := range f {
				C, HW := channels<<k, int64(32>>k)
				f[k] = s.Tensor(s.Tensor(torch.FromSlice(make([]float32, 8*C*HW*HW), 8, C, HW, HW)).To(torch.CPU, torch.Float32))
			}
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			_, err := p.Forward(f)
			wantError(t, fmt.Sprintf("training %v, %d channels", training, channels), err, "projection", "channels")
		}
	}
}

// The state dicts have the names and sizes of the released checkpoints.
func TestStateNames(t *testing.T) {
	for _, c := range []struct {
		arch   string
		counts [4]int   // entries of teacher, projection, bottleneck, student
		params [4]int64 // their parameters
		some   []string // a name of each
	}{
		{"resnet18", [4]int{90, 24, 54, 90}, [4]int64{2782784, 968688, 12205312, 3703168},
			[]string{"layer3.1.bn2.running_var", "proj_c.proj.9.bias", "bn_layer.0.downsample.1.weight", "layer3.0.upsample.0.weight"}},
		{"wide_resnet50_2", [4]int{258, 24, 84, 252}, [4]int64{24862528, 15486912, 67277824, 24917504},
			[]string{"layer1.0.downsample.0.weight", "proj_a.proj.0.weight", "bn_layer.2.conv3.weight", "layer3.5.bn3.num_batches_tracked"}},
	} {
		opt := torch.ModuleOptions{Arch: c.arch, Blank: true}
		for i, n := range []torch.Network{must(torch.NewTeacher(opt)), must(torch.NewProjection(opt)),
			must(torch.NewBottleneck(opt)), must(torch.NewStudent(opt))} {
			var params int64
			names := map[string]bool{}
			for _, e := range n.State() {
				names[e.Name] = true
				want := torch.Float32
				if strings.HasSuffix(e.Name, "num_batches_tracked") {
					want = torch.Int64
				}
				if got := must(e.Tensor.DType()); got != want {
					t.Errorf("%s: got element type %v, want %v", e.Name, got, want)
				}
				if !strings.Contains(e.Name, "running_") && !strings.Contains(e.Name, "num_batches") {
					params += must(e.Tensor.Len())
				}
			}
			if len(names) != c.counts[i] || params != c.params[i] || !names[c.some[i]] {
				t.Errorf("%s, network %d: got %d entries, %d parameters, %s %v; want %d, %d, true", c.arch, i, len(names), params,
					c.some[i], names[c.some[i]], c.counts[i], c.params[i])
			}
			n.Close()
		}
	}
}

// Initialisation: reproducible by seed, with the spread of the released code.
func TestInitialisation(t *testing.T) {
	read := func(seed uint64) map[string][]float64 {
		n := must(torch.NewStudent(torch.ModuleOptions{Arch: "resnet18", Seed: seed}))
		defer n.Close()
		state := map[string][]float64{}
		for _, e := range n.State() {
			state[e.Name] = must(torch.Read[float64](e.Tensor))
		}
		return state
	}
	a, b, other := read(3), read(3), read(4)
	for name, values := range a {
		if !slices.Equal(values, b[name]) {
			t.Errorf("%s: two networks of one seed differ", name)
		}
	}
	const plain, transposed = "layer2.1.conv1.weight", "layer2.0.conv1.weight"
	if slices.Equal(a[plain], other[plain]) {
		t.Error("networks of two seeds are the same")
	}
	var squares, largest float64
	for _, v := range a[plain] {
		squares += v * v
	}
	if got, want := math.Sqrt(squares/float64(len(a[plain]))), math.Sqrt(2.0/(128*9)); math.Abs(got/want-1) > 0.02 {
		t.Errorf("Kaiming normal, fan_out: got deviation %v, want %v", got, want)
	}
	for _, v := range a[transposed] {
		largest = max(largest, math.Abs(v))
	}
	if bound := 1 / math.Sqrt(128*4); largest > bound || largest < 0.99*bound {
		t.Errorf("transposed convolution: got largest weight %v, want just below %v", largest, bound)
	}
	for i, v := range a["layer1.0.bn1.weight"] {
		if v != 1 || a["layer1.0.bn1.bias"][i] != 0 {
			t.Fatalf("batch norm: got weight %v, bias %v, want 1, 0", v, a["layer1.0.bn1.bias"][i])
		}
	}
}

func TestWorker(t *testing.T) {
	w := torch.NewWorker()
	var running, most, sum atomic.Int64
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			err := w.Do(func() error {
				most.Store(max(most.Load(), running.Add(1)))
				sum.Add(int64(i))
				running.Add(-1)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 || sum.Load() != 49*50/2 {
		t.Errorf("got %d jobs at once, sum %d; want 1, %d", most.Load(), sum.Load(), 49*50/2)
	}
	failed := errors.New("failed")
	if err := w.Do(func() error { return failed }); err != failed {
		t.Errorf("got %v, want the job's error", err)
	}
	if err := w.Do(func() error { panic("oops") }); !errors.Is(err, torch.ErrPanic) || !strings.Contains(err.Error(), "oops") {
		t.Errorf("got %v, want the job's panic as an error", err)
	}
	if err := w.Do(func() error { runtime.Goexit(); return nil }); !errors.Is(err, torch.ErrPanic) || !strings.Contains(err.Error(), "Goexit") {
		t.Errorf("got %v, want an error of a job that never returns", err)
	}
	if err := w.Do(func() error { return failed }); err != failed {
		t.Errorf("after a panic and an exit: got %v, want the job's error", err)
	}
	w.Close()
	w.Close()
	if err := w.Do(func() error { return nil }); !errors.Is(err, torch.ErrClosed) {
		t.Errorf("after Close: got %v, want ErrClosed", err)
	}
}

// A thread computes with as many threads as were asked for last, whatever others were told between its first call and its
// first computation: sums are split by that, and rounded otherwise.
func TestThreadsOfWorkers(t *testing.T) {
	defer torch.SetThreads(2)
	values := make([]float32, 1<<18)
	for i := range values {
		values[i] = float32(math.Sin(float64(i))) * float32(i%977)
	}
	x := must(torch.FromSlice(values, int64(len(values))))
	defer x.Close()
	set := func(threads int) {
		if err := torch.SetThreads(threads); err != nil {
			t.Fatal(err)
		}
	}
	sum := func(w *torch.Worker) (total float64) {
		err := w.Do(func() error {
			y, err := torch.Sum(x)
			if err != nil {
				return err
			}
			defer y.Close()
			read, err := torch.Scalars(y)
			total = read[0]
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return total
	}
	first, other := torch.NewWorker(), torch.NewWorker()
	defer first.Close()
	defer other.Close()
	net := must(torch.NewBottleneck(torch.ModuleOptions{Arch: "resnet18", Blank: true}))
	defer net.Close()
	set(1)
	if err := first.Do(func() error { return net.Train(true) }); err != nil { // which computes nothing
		t.Fatal(err)
	}
	set(2)
	two := sum(other)
	set(1)
	got, one := sum(first), sum(other)
	if got != one {
		t.Errorf("got a sum of %v with one thread, want %v", got, one)
	}
	if one == two {
		t.Errorf("sums of one thread and of two are both %v, which tells nothing", one)
	}
}

// What a tensor handle costs, to be held against a training step of seconds.
func BenchmarkTensorHandle(b *testing.B) {
	data := []float32{1, 2, 3, 4}
	for b.Loop() {
		t, err := torch.FromSlice(data, 4)
		if err != nil {
			b.Fatal(err)
		}
		t.Close()
	}
}

// The projection's fused normalisation in float32 against libtorch's own in float64, gradients included, on features
// whose mean is far from zero.
func TestProjectionGradients(t *testing.T) {
	const B, S = 4, 44 // more positions than the fused code sums in one go, and tiles that reach over the edge
	var grads [2][][]float64
	var outputs [2][][]float64
	for i, dtype := range []torch.DType{torch.Float32, torch.Float64} {
		p := must(torch.NewProjection(torch.ModuleOptions{Arch: "resnet18", DType: dtype, Seed: 8, Reference: i == 1}))
		defer p.Close()
		var s torch.Scope
		defer s.Close()
		var f, target torch.Features
		for k := range f {
			C, HW := int64(64<<k), int64(S>>k)
			x := uniform("features"+string(rune('0'+k)), int(B*C*HW*HW))
			for j := range x {
				x[j] += 20
			}
			f[k] = s.Tensor(s.Tensor(torch.FromSlice(x, B, C, HW, HW)).To(torch.CPU, dtype))
			y := uniform("target"+string(rune('0'+k)), len(x))
			target[k] = s.Tensor(s.Tensor(torch.FromSlice(y, B, C, HW, HW)).To(torch.CPU, dtype))
		}
		projected := s.Features(p.Forward(f))
		loss := s.Tensor(torch.LossRecon(projected, target))
		s.Check(torch.Backward(loss))
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		for k := range projected {
			outputs[i] = append(outputs[i], must(torch.Read[float64](projected[k])))
		}
		for _, e := range p.State() {
			if strings.HasSuffix(e.Name, ".weight") { // biases before a norm have no gradient but rounding
				grads[i] = append(grads[i], must(torch.Read[float64](s.Tensor(e.Tensor.Grad()))))
			}
		}
	}
	compare := func(what string, got, want [][]float64, tolerance float64) {
		for i := range want {
			var difference, norm float64
			for j := range want[i] {
				difference += (got[i][j] - want[i][j]) * (got[i][j] - want[i][j])
				norm += want[i][j] * want[i][j]
			}
			if !(math.Sqrt(difference) <= tolerance*math.Sqrt(norm)) {
				t.Errorf("%s %d: got a relative difference of %v, want at most %v", what, i, math.Sqrt(difference/norm), tolerance)
			}
		}
	}
	// float32 has 7 digits, of which the mean of 20 takes two. A value that rounding moves across the LeakyReLU's kink
	// changes its gradient a hundredfold: one among the 10^5 of a layer makes 3e-3.
	compare("projected", outputs[0], outputs[1], 1e-4)
	compare("gradient", grads[0], grads[1], 1e-2)
}

// A projection of the coarsest scale alone passes the others on, and losses are of it alone.
func TestCoarsestProjection(t *testing.T) {
	var s torch.Scope
	defer s.Close()
	opt := torch.ModuleOptions{Arch: "resnet18", Seed: 3, DType: torch.Float64}
	all := must(torch.NewProjection(opt))
	opt.Coarsest = true
	one := must(torch.NewProjection(opt))
	defer all.Close()
	defer one.Close()
	var want, got []string
	for _, e := range all.State() {
		if strings.HasPrefix(e.Name, "proj_c.") {
			want = append(want, e.Name)
		}
	}
	for _, e := range one.State() {
		got = append(got, e.Name)
	}
	if !slices.Equal(got, want) || len(got) == 0 {
		t.Fatalf("got the state %v, want %v", got, want)
	}
	for i, e := range one.State() {
		values := must(torch.Read[float64](e.Tensor))
		if err := torch.Write(all.State()[len(all.State())-len(want)+i].Tensor, values); err != nil {
			t.Fatal(err)
		}
	}
	const B = 2
	var f, noisy torch.Features
	for k := range f {
		C, H := int64(64<<k), int64(8>>k)
		f[k] = s.Tensor(torch.FromSlice(uniform(fmt.Sprint("f", k), int(B*C*H*H)), B, C, H, H))
		noisy[k] = s.Tensor(torch.FromSlice(uniform(fmt.Sprint("n", k), int(B*C*H*H)), B, C, H, H))
	}
	p, full := s.Features(one.Forward(f)), s.Features(all.Forward(f))
	for k, wanted := range []*torch.Tensor{f[0], f[1], full[2]} {
		if !slices.Equal(must(torch.Read[float64](p[k])), must(torch.Read[float64](wanted))) {
			t.Errorf("scale %d: not what was wanted", k+1)
		}
	}

	// A loss of several scales is the sum of what it is of each.
	value := func(t *torch.Tensor, err error) float64 { return must(torch.Scalars(s.Tensor(t, err)))[0] }
	shuffle := []int64{1, 0}
	for name, loss := range map[string]func(f, p torch.Features) float64{
		"L_Recon": func(f, p torch.Features) float64 { return value(torch.LossRecon(f, p)) },
		"L_Con":   func(f, p torch.Features) float64 { return value(torch.LossContrast(f, p, -0.5)) },
		"L_SSOT": func(_, p torch.Features) float64 {
			return value(torch.LossSSOT(p, shuffle, torch.SSOTPairwise, torch.SinkhornOptions{}))
		},
	} {
		sum := 0.0
		for k := range f {
			var a, b torch.Features
			a[k], b[k] = noisy[k], full[k]
			sum += loss(a, b)
		}
		if whole := loss(noisy, full); math.Abs(whole-sum) > 1e-12 || whole == 0 {
			t.Errorf("%s: got %v over the scales, want %v", name, sum, whole)
		}
	}
	if _, err := torch.LossRecon(torch.Features{}, torch.Features{}); err == nil {
		t.Error("a loss of no scale: no error")
	}
}

func TestAverage(t *testing.T) {
	student := func(seed uint64) torch.Student {
		return must(torch.NewStudent(torch.ModuleOptions{Arch: "resnet18", Seed: seed}))
	}
	into, from, before := student(1), student(2), student(1)
	projection := must(torch.NewProjection(torch.ModuleOptions{Arch: "resnet18"}))
	wide := must(torch.NewStudent(torch.ModuleOptions{Arch: "resnet34", Blank: true}))
	for _, n := range []torch.Network{into, from, before, projection, wide} {
		defer n.Close()
	}
	for i, e := range from.State() {
		if strings.HasSuffix(e.Name, "num_batches_tracked") {
			if err := torch.Write(e.Tensor, []int64{int64(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if strings.HasSuffix(e.Name, "running_var") {
			values := must(torch.Read[float32](e.Tensor))
			for j := range values {
				values[j] = float32(j)
			}
			if err := torch.Write(e.Tensor, values); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := torch.Average(into, from, 0.25); err != nil {
		t.Fatal(err)
	}
	for i, e := range into.State() {
		got := must(torch.Read[float64](e.Tensor))
		a, b := must(torch.Read[float64](before.State()[i].Tensor)), must(torch.Read[float64](from.State()[i].Tensor))
		for j := range got {
			want := 0.75*a[j] + 0.25*b[j]
			if !strings.Contains(e.Name, "num_batches") && math.Abs(got[j]-want) > 1e-6*(1+math.Abs(want)) ||
				strings.Contains(e.Name, "num_batches") && got[j] != b[j] {
				t.Fatalf("%s, element %d: got %v, from %v and %v", e.Name, j, got[j], a[j], b[j])
			}
		}
	}
	wantError(t, "two kinds", torch.Average(into, projection, 0.5), "two kinds")
	wantError(t, "two architectures", torch.Average(into, wide, 0.5), "average")
	from.Close()
	wantError(t, "closed", torch.Average(into, from, 0.5), "closed")
}

// Adam's first moment after a step is 1 - beta1 times the gradient that the step saw.
func TestClip(t *testing.T) {
	for _, c := range []struct{ clip, want float64 }{{0, 5}, {10, 5}, {5, 5}, {2, 2}, {1e-3, 1e-3}} {
		p := must(torch.NewProjection(torch.ModuleOptions{Arch: "resnet18", DType: torch.Float64}))
		s := must(torch.NewBottleneck(torch.ModuleOptions{Arch: "resnet18", DType: torch.Float64}))
		adam := must(torch.NewAdam(0.5, 0.999, 1e-8))
		if err := adam.SetClip(c.clip); err != nil {
			t.Fatal(err)
		}
		// A gradient of length 3 in one group, of 4 in the other: 5 in all.
		for group, n := range []torch.Network{p, s} {
			if err := adam.Add(n, 0.1); err != nil {
				t.Fatal(err)
			}
			e := n.State()[0].Tensor
			values := make([]float64, must(e.Len()))
			values[len(values)-1] = float64(3 + group)
			grad := must(torch.FromSlice(values, must(e.Shape())...))
			if err := e.SetGrad(grad); err != nil {
				t.Fatal(err)
			}
			grad.Close()
		}
		if err := adam.Step(); err != nil {
			t.Fatal(err)
		}
		squares := 0.0
		for group := range 2 {
			moments := must(adam.Moments(group, 0))
			for _, v := range must(torch.Read[float64](moments.ExpAvg)) {
				squares += (2 * v) * (2 * v)
			}
			moments.Close()
		}
		if got := math.Sqrt(squares); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("clip %v: got a gradient of length %v, want %v", c.clip, got, c.want)
		}
		wantError(t, "negative", adam.SetClip(-1), "0 or more")
		wantError(t, "NaN", adam.SetClip(math.NaN()), "0 or more")
		adam.Close()
		p.Close()
		s.Close()
	}
}
