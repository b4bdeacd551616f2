package reverse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/method"
	"rdpp/rdpp/sample"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
	"rdpp/torch/grouptest"
)

func TestMain(m *testing.M) {
	testmain.Be(map[string]func(args []string) error{asRank: func(args []string) error {
		rank, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		size, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		port, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return beRank(rank, size, port, args[3], args[4])
	}})
	os.Exit(testmain.Run(m, nil))
}

// asRank is one of several processes that train, by its number, how many there are, the port where they meet, the folder of the
// images, and that for what it has learned.
const asRank = "rank"

// together are trainings by several processes, each with the whole of its settings.
var together = []struct {
	name                 string
	size                 int // processes
	side                 int // of the images, pixels
	batch, images, steps int // with -slow 10 steps of RD++, of 64 pixels
	change               func(s *method.Settings, d *Distillation)
}{
	{"rd++", 2, 32, 16, 20, 2, func(s *method.Settings, d *Distillation) { d.Average = 0.5 }},
	// Accumulate does not end with an epoch, and O and D see no defects.
	{"released", 2, 32, 6, 9, 4, func(s *method.Settings, d *Distillation) {
		*d = ReleasedDistillation()
		d.Accumulate, d.Clip = 3, 0.5
	}},
	{"rd", 2, 32, 6, 9, 2, func(s *method.Settings, d *Distillation) { s.Method, d.KDPerPosition, d.EasyBelow = RD, true, -0.5 }},
	// The last batch of an epoch has 2 images, none of them rank 2's. In a batch norm over two values, as it would have of
	// smaller images, gradients are rounding errors, and Adam takes those for gradients.
	{"rd++", 3, 64, 12, 14, 2, func(s *method.Settings, d *Distillation) {}},
	// No image of rank 1 and 2 has noise.
	{"little noise", 3, 32, 4, 7, 2, func(s *method.Settings, d *Distillation) { d.Denoise, d.SSOT = 0.25, "batch" }},
}

// learned is what came of a training.
type learned struct {
	Losses [][]float64          // per step
	State  map[string][]float64 // of the networks that learn, and of the average as average.
	Grads  map[string][]float64 // that wait in the end
}

// learnTogether learns a number of steps of one of the above in float64; of a whole batch where group is nil.
func learnTogether(at int, group *torch.Group, dir string) (*learned, error) {
	ctx, c := context.Background(), together[at]
	size := c.side
	s := method.Settings{Arch: "resnet18", Method: RDPP, ImageSize: size, Mean: dataset.ImageNet.Mean, Std: dataset.ImageNet.Std, MapSigma: 4,
		Batch: c.batch, Epochs: 100, Seed: 3}
	d := DefaultDistillation()
	c.change(&s, &d)
	own := &reversed{Settings: s, Distillation: d, dtype: torch.Float64}
	set, err := dataset.Open(filepath.Join(dir, "part"), nil)
	if err != nil {
		return nil, err
	}
	items := set.Train[:c.images]
	plan, err := own.Plan([]int{len(items)})
	if err != nil {
		return nil, err
	}
	cache := dataset.NewCache(dataset.CacheOptions{Size: size})
	o := dataset.LoaderOptions{Batch: c.batch, Size: size, Seed: s.Seed, Cache: cache, Light: plan.Light, Noise: plan.Noise, Workers: 1}
	if group != nil {
		o.Rank, o.Ranks = group.Rank(), group.Size()
	}
	loader, err := dataset.NewLoader(items, o)
	if err != nil {
		return nil, err
	}
	net, err := own.networks(method.Options{})
	if err != nil {
		return nil, err
	}
	defer net.Close()
	made, err := own.Learner(net, method.LearnerOptions{Precision: torch.FP32, Group: group})
	if err != nil {
		return nil, err
	}
	defer made.Close()
	images := func(_ context.Context, _ int, visit func(x *torch.Tensor, frame *framing.Frame) error) error {
		var scope torch.Scope
		defer scope.Close()
		for _, item := range items[:4] {
			values := make([]float32, 3*size*size)
			if _, err := cache.Framed(values, item); err != nil {
				return err
			}
			x := scope.Tensor(scope.Tensor(torch.FromSlice(values, 1, 3, int64(size), int64(size))).To(torch.CPU, torch.Float64))
			if err := errors.Join(scope.Err(), visit(x, nil)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := made.Begin(ctx, images); err != nil {
		return nil, err
	}
	if group != nil {
		if err := own.Follow(made); err != nil {
			return nil, err
		}
	}
	var out learned
	for epoch := 0; len(out.Losses) < c.steps; epoch++ {
		for batch, err := range loader.Epoch(ctx, epoch, 0) {
			if err != nil {
				return nil, err
			}
			losses, err := made.Step(batch, len(out.Losses), 2*c.steps)
			if err != nil {
				return nil, fmt.Errorf("step %d: %w", len(out.Losses), err)
			}
			var values []float64
			for _, loss := range losses {
				values = append(values, loss.Value)
			}
			if out.Losses = append(out.Losses, values); len(out.Losses) == c.steps {
				break
			}
		}
	}
	out.State, out.Grads = map[string][]float64{}, map[string][]float64{}
	parts := net.trained()
	if l := made.(*learner); l.average != nil {
		for _, part := range l.average.trained() {
			part.Prefix = prefixAverage + part.Prefix
			parts = append(parts, part)
		}
	}
	for _, part := range parts {
		for _, e := range part.Net.State() {
			if out.State[part.Prefix+e.Name], err = some(e.Tensor); err != nil {
				return nil, err
			}
			grad, err := e.Tensor.Grad()
			if err != nil {
				return nil, err
			}
			if grad == nil {
				continue
			}
			out.Grads[part.Prefix+e.Name], err = some(grad)
			grad.Close()
			if err != nil {
				return nil, err
			}
		}
	}
	return &out, nil
}

// slowRanks is set in the environment of processes that take all steps.
const slowRanks = "RDPP_TEST_SLOW_RANKS"

func chooseSteps(slow bool) {
	for i := range together {
		if slow && together[i].name == "rd++" {
			together[i].side, together[i].steps = 64, 10
		}
	}
}

// some are some of a tensor's numbers, evenly spread, and the mean of all and that of their squares.
func some(t *torch.Tensor) ([]float64, error) {
	all, err := torch.Read[float64](t)
	if err != nil {
		return nil, err
	}
	const most = 100
	kept := []float64{0, 0}
	for i, v := range all {
		kept[0] += v / float64(len(all))
		kept[1] += v * v / float64(len(all))
		if i%((len(all)+most-1)/most) == 0 {
			kept = append(kept, v)
		}
	}
	return kept, nil
}

// beRank trains all of the above that are of so many processes.
func beRank(rank, size, port int, dir, out string) error {
	chooseSteps(os.Getenv(slowRanks) != "")
	if err := torch.SetThreads(1); err != nil {
		return err
	}
	group, err := torch.Meet(torch.Meeting{Host: "127.0.0.1", Port: port, Server: rank == 0, Rank: rank, Size: size, Patience: time.Minute}, torch.CPU)
	if err != nil {
		return err
	}
	defer group.Close()
	for at, c := range together {
		if c.size != size {
			continue
		}
		got, err := learnTogether(at, group, dir)
		if err != nil {
			return fmt.Errorf("rank %d of %d, %s: %w", rank, size, c.name, err)
		}
		text, err := json.Marshal(got)
		if err == nil {
			err = os.WriteFile(filepath.Join(out, fmt.Sprintf("%d-%d", at, rank)), text, 0o666)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Several processes learn what one does of the whole batches.
func TestRanks(t *testing.T) {
	grouptest.Need(t)
	// In float64 sums in another order differ by some 1e-16 of a number, which ten steps of Adam leave far below.
	const tolerance = 1e-9
	if err := torch.SetThreads(1); err != nil {
		t.Fatal(err)
	}
	dir, out := t.TempDir(), t.TempDir()
	if err := sample.Write(dir, &sample.Options{Category: "part", Size: 64, Train: 20, TestGood: 1, TestDefect: 1}); err != nil {
		t.Fatal(err)
	}
	if *testmain.Slow {
		t.Setenv(slowRanks, "1")
		chooseSteps(true)
	}
	for _, size := range []int{2, 3} {
		port := strconv.Itoa(grouptest.FreePort(t))
		var cmds []*exec.Cmd
		for rank := range size {
			cmd := testmain.Child(asRank, strconv.Itoa(rank), strconv.Itoa(size), port, dir, out)
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill() })
			cmds = append(cmds, cmd)
		}
		failed := false
		for rank, cmd := range cmds {
			if err := cmd.Wait(); err != nil {
				t.Errorf("rank %d of %d: got %v", rank, size, err)
				failed = true
			}
		}
		if failed {
			t.FailNow()
		}
	}
	for at, c := range together {
		name := fmt.Sprintf("%s, %d processes", c.name, c.size)
		want, err := learnTogether(at, nil, dir)
		if err != nil {
			t.Fatalf("%s: got %v", name, err)
		}
		for rank := range c.size {
			text, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("%d-%d", at, rank)))
			if err != nil {
				t.Fatal(err)
			}
			var got learned
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatal(err)
			}
			for step, losses := range want.Losses {
				if d := farthest(got.Losses[step], losses); !(d <= tolerance) {
					t.Errorf("%s, rank %d, step %d: got the losses %v, want %v", name, rank, step, got.Losses[step], losses)
				}
			}
			most, where := 0.0, ""
			for name, values := range want.State {
				if len(name) > len(prefixAverage) && name[:len(prefixAverage)] == prefixAverage && rank > 0 {
					continue // which rank 0 has
				}
				if d := farthest(got.State[name], values); !(d <= most) {
					most, where = d, name
				}
			}
			if !(most <= tolerance) {
				t.Errorf("%s, rank %d: got %s off by %v, want at most %v", name, rank, where, most, tolerance)
			}
			waiting := want.Grads
			if rank > 0 {
				waiting = nil // they wait with rank 0
			}
			if len(got.Grads) != len(waiting) {
				t.Errorf("%s, rank %d: got %d gradients that wait, want %d", name, rank, len(got.Grads), len(waiting))
			}
			for name, values := range waiting {
				if d := farthest(got.Grads[name], values); !(d <= 10*tolerance) { // they are sums over all images, at weights that differ
					t.Errorf("%s, rank %d: got the gradient of %s off by %v", c.name, rank, name, d)
				}
			}
			t.Logf("%s, rank %d: off by %.1e at most", name, rank, most)
		}
	}
}

// farthest is the largest difference; +Inf of others than as many numbers.
func farthest(a, b []float64) (most float64) {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	for i := range a {
		d := math.Abs(a[i] - b[i])
		if !(d <= most) {
			most = d
		}
	}
	return most
}
