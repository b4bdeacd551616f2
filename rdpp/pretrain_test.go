package rdpp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/testmain"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

func init() {
	children["pretrain"] = childPretrain
	children["pretrain, full disk"] = childPretrainFullDisk
}

// tinyPretrain is a pre-training of six steps of four pictures.
func tinyPretrain(objective string) rdpp.PretrainConfig {
	c := rdpp.DefaultPretrainConfig()
	c.Objective, c.ImageSize, c.Batch, c.Steps, c.Classes = objective, 32, 4, 6, 3
	return c
}

func pretrain(t *testing.T, c rdpp.PretrainConfig, opt rdpp.PretrainOptions) *rdpp.PretrainSummary {
	t.Helper()
	summary, err := rdpp.Pretrain(context.Background(), c, opt)
	if err != nil {
		t.Fatal(err)
	}
	return summary
}

// Whoever draws, and however often it is interrupted, the same configuration gives the same file.
func TestPretrainResume(t *testing.T) {
	for _, c := range []struct{ objective, precision string }{
		{rdpp.ObjectiveClass, "fp32"}, {rdpp.ObjectiveDense, "fp32"}, {rdpp.ObjectivePair, "bf16"},
	} {
		config := tinyPretrain(c.objective)
		config.Precision, config.Scales[1] = c.precision, 0
		before := torch.LiveTensors()
		whole, parts := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "a")
		steps := 0
		pretrain(t, config, rdpp.PretrainOptions{Out: whole, Workers: 1, OnStep: func(r rdpp.PretrainReport) {
			if steps++; r.Step != steps || r.Steps != 6 || r.Pictures != 4*steps || len(r.Scales) != 2 || r.Waited > r.Elapsed {
				t.Errorf("%s: report: got %+v, want step %d of 6, %d pictures, 2 scales", c.objective, r, steps, 4*steps)
			}
		}})
		for {
			ctx, cancel := context.WithCancel(context.Background())
			_, err := rdpp.Pretrain(ctx, config, rdpp.PretrainOptions{Out: parts, Workers: 3, Resume: true,
				OnStep: func(r rdpp.PretrainReport) {
					if r.Step%2 == 1 {
						cancel()
					}
				}})
			cancel()
			if err == nil {
				break
			}
			checkError(t, "interrupted", err, rdpp.ErrInterrupted, "checkpoint", "resume")
			if t.Failed() {
				break
			}
		}
		if got, want := digest(t, parts), digest(t, whole); got != want {
			t.Errorf("%s: resumed: got SHA-256 %s, want %s", c.objective, got, want)
		}
		for _, out := range []string{whole, parts} {
			if entries, err := os.ReadDir(filepath.Dir(out)); err != nil || len(entries) != 1 {
				t.Errorf("%s: got files %v, error %v, want the teacher alone", c.objective, entries, err)
			}
		}
		if after := torch.LiveTensors(); after != before {
			t.Errorf("%s: live tensors: got %d, want %d", c.objective, after, before)
		}
	}
}

// The file holds what torchvision's holds up to layer3, in half the bytes, and train can use it.
func TestPretrainedTeacher(t *testing.T) {
	out := filepath.Join(t.TempDir(), "teacher.safetensors")
	config := tinyPretrain(rdpp.ObjectiveClass)
	summary := pretrain(t, config, rdpp.PretrainOptions{Out: out})
	if info, err := os.Stat(out); err != nil || info.Size() > 6_000_000 {
		t.Fatalf("got %d bytes, error %v, want fewer than 6 MB", info.Size(), err)
	}
	file, err := weights.OpenSafetensors(out)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fresh, err := torch.NewTeacher(torch.ModuleOptions{Arch: "resnet18"})
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	want := 0
	for _, e := range fresh.State() {
		stored, found := file.Lookup(e.Name)
		if tracked := strings.HasSuffix(e.Name, "num_batches_tracked"); found == tracked {
			t.Errorf("%s: got found %v, want %v", e.Name, found, !tracked)
		}
		if found {
			want++
			if stored.DType != weights.F16 {
				t.Errorf("%s: got type %v, want %v", e.Name, stored.DType, weights.F16)
			}
		}
	}
	if len(file.Tensors) != want {
		t.Errorf("got %d tensors, want %d", len(file.Tensors), want)
	}
	var document rdpp.TeacherDocument
	if err := json.Unmarshal([]byte(file.Metadata["rdpp_teacher"]), &document); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%+v", document), fmt.Sprintf("%+v", summary.Document); got != want {
		t.Errorf("document: got %s, want %s", got, want)
	}
	if document.Pictures != 24 || document.Config.Objective != rdpp.ObjectiveClass || len(document.Scales) != 3 || document.Libtorch == "" {
		t.Errorf("document: got %+v", document)
	}

	exact := filepath.Join(t.TempDir(), "teacher.safetensors")
	pretrain(t, config, rdpp.PretrainOptions{Out: exact, Store: rdpp.StoreFP32})
	c := tiny()
	c.Arch = "resnet18"
	var weight [2]float64
	for i, path := range []string{out, exact} {
		m, err := rdpp.NewModel(c, torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.LoadTeacher(path); err != nil {
			t.Fatal(err)
		}
		values, err := torch.Read[float64](nets(m).Teacher.State()[0].Tensor) // conv1.weight
		if err != nil {
			t.Fatal(err)
		}
		weight[i] = values[0]
		m.Close()
	}
	if diff := math.Abs(weight[0] - weight[1]); diff == 0 || diff > 0x1p-11*math.Abs(weight[1]) { // half of float16's last bit
		t.Errorf("a weight in fp16: got %v, in fp32 %v, want it rounded to 11 bits", weight[0], weight[1])
	}
}

func TestPretrainLearns(t *testing.T) {
	for _, c := range []struct {
		objective      string
		steps, classes int
		accuracy       float64 // of layer3 in the last 100 steps, of which the first ones are no better than chance
		slow           bool
	}{
		{rdpp.ObjectiveClass, 60, 2, 0.62, false}, // chance 0.5
		{rdpp.ObjectiveDense, 150, 3, 0.45, true}, // 0.33
		{rdpp.ObjectivePair, 250, 2, 0.18, true},  // 0.14, among seven that are never seen again
	} {
		if c.slow && !*testmain.Slow {
			continue
		}
		t.Run(c.objective, func(t *testing.T) {
			config := tinyPretrain(c.objective)
			config.Steps, config.Batch, config.Classes = c.steps, 8, c.classes
			var first rdpp.ScaleReport
			summary := pretrain(t, config, rdpp.PretrainOptions{Out: filepath.Join(t.TempDir(), "a"), OnStep: func(r rdpp.PretrainReport) {
				if r.Step == 1 {
					first = r.Scales[2]
				}
			}})
			if last := summary.Scales[2]; last.Loss >= first.Loss || last.Accuracy < c.accuracy {
				t.Errorf("got loss %.3f, accuracy %.3f, want a loss below the first step's %.3f, accuracy %.2f", last.Loss, last.Accuracy,
					first.Loss, c.accuracy)
			}
		})
	}
}

func TestPretrainProtects(t *testing.T) {
	out := filepath.Join(t.TempDir(), "teacher.safetensors")
	config := tinyPretrain(rdpp.ObjectiveClass)
	run := func(c rdpp.PretrainConfig, opt rdpp.PretrainOptions, stop int) error {
		opt.Out = out
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		opt.OnStep = func(r rdpp.PretrainReport) {
			if r.Step == stop {
				cancel()
			}
		}
		if stop == 0 {
			cancel()
		}
		_, err := rdpp.Pretrain(ctx, c, opt)
		return err
	}
	checkError(t, "cancelled before", run(config, rdpp.PretrainOptions{}, 0), rdpp.ErrInterrupted)
	if entries, err := os.ReadDir(filepath.Dir(out)); err != nil || len(entries) != 0 {
		t.Errorf("cancelled before: got files %v, error %v, want none", entries, err)
	}
	checkError(t, "interrupted", run(config, rdpp.PretrainOptions{}, 2), rdpp.ErrInterrupted, "2 of 6")
	checkError(t, "unfinished", run(config, rdpp.PretrainOptions{}, -1), rdpp.ErrConfig, "2 of 6", "resume", "overwrite")
	other := config
	other.Rate = 1
	checkError(t, "another rate", run(other, rdpp.PretrainOptions{Resume: true}, -1), rdpp.ErrConfig, "rate")
	if err := run(config, rdpp.PretrainOptions{Resume: true}, -1); err != nil {
		t.Fatal(err)
	}
	before := digest(t, out)
	checkError(t, "finished", run(config, rdpp.PretrainOptions{Resume: true}, -1), rdpp.ErrConfig, out, "overwrite")
	checkError(t, "finished", run(config, rdpp.PretrainOptions{}, -1), rdpp.ErrConfig, out, "overwrite")
	if got := digest(t, out); got != before {
		t.Errorf("the teacher: got SHA-256 %s, want %s", got, before)
	}
	if err := run(config, rdpp.PretrainOptions{Overwrite: true}, -1); err != nil || digest(t, out) != before {
		t.Errorf("with Overwrite: got error %v, SHA-256 %s, want %s", err, digest(t, out), before)
	}
	if err := os.WriteFile(out+".checkpoint", []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	checkError(t, "damaged checkpoint", run(config, rdpp.PretrainOptions{Resume: true}, -1), nil, "checkpoint", "overwrite")

	folder := t.TempDir()
	_, err := rdpp.Pretrain(context.Background(), config, rdpp.PretrainOptions{Out: folder})
	checkError(t, "a folder", err, rdpp.ErrConfig, folder, "name a file")
	_, err = rdpp.Pretrain(context.Background(), config, rdpp.PretrainOptions{Out: "/proc/teacher"})
	checkError(t, "unwritable", err, nil, "/proc", "out")
	_, err = rdpp.Pretrain(context.Background(), config, rdpp.PretrainOptions{Out: filepath.Join(out, "teacher")})
	checkError(t, "below a file", err, nil, "out")
	_, err = rdpp.Pretrain(context.Background(), config, rdpp.PretrainOptions{Out: out, Store: "int8"})
	checkError(t, "store", err, rdpp.ErrConfig, `store is "int8"`)
	_, err = rdpp.Pretrain(context.Background(), config, rdpp.PretrainOptions{})
	checkError(t, "nowhere", err, rdpp.ErrConfig, "out is missing")
	_, err = rdpp.Pretrain(context.Background(), config, rdpp.PretrainOptions{Out: filepath.Join(t.TempDir(), "a"), Workers: -1})
	checkError(t, "workers", err, rdpp.ErrConfig, "workers is -1")
}

// Others may write to the folder too: what a killed process left is cleared away, what somebody has a lock on is not.
func TestPretrainLeavesTemporaryFilesOfOthers(t *testing.T) {
	out := filepath.Join(t.TempDir(), "a")
	own, other := halfWritten(t, out), halfWritten(t, out+"b")
	owned, err := os.Open(other)
	if err != nil {
		t.Fatal(err)
	}
	defer owned.Close()
	if err := syscall.Flock(int(owned.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	pretrain(t, tinyPretrain(rdpp.ObjectiveClass), rdpp.PretrainOptions{Out: out})
	if got := temporary(t, filepath.Dir(out)); len(got) != 1 || got[0] != filepath.Base(other) {
		t.Errorf("left over of %s and %s: got %q, want the second", own, other, got)
	}
}

// Half a training must not pass for a teacher.
func TestCheckpointIsNoTeacher(t *testing.T) {
	out := filepath.Join(t.TempDir(), "a")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := rdpp.Pretrain(ctx, tinyPretrain(rdpp.ObjectiveClass), rdpp.PretrainOptions{Out: out,
		OnStep: func(rdpp.PretrainReport) { cancel() }})
	checkError(t, "interrupted", err, rdpp.ErrInterrupted)
	m, err := rdpp.NewModel(tiny(), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	checkError(t, "checkpoint", m.LoadTeacher(out+".checkpoint"), rdpp.ErrConfig, "unfinished teacher", "resume")
}

func TestPretrainConfigIsChecked(t *testing.T) {
	for want, change := range map[string]func(c *rdpp.PretrainConfig){
		"arch is":            func(c *rdpp.PretrainConfig) { c.Arch = "vgg" },
		"objective is":       func(c *rdpp.PretrainConfig) { c.Objective = "" },
		"classes is 1":       func(c *rdpp.PretrainConfig) { c.Classes = 1 },
		"image_size is 48":   func(c *rdpp.PretrainConfig) { c.ImageSize = 48 },
		"steps is 0":         func(c *rdpp.PretrainConfig) { c.Steps = 0 },
		"batch is 1":         func(c *rdpp.PretrainConfig) { c.Batch = 1 },
		"even":               func(c *rdpp.PretrainConfig) { c.Objective, c.Batch = rdpp.ObjectivePair, 5 },
		"precision is":       func(c *rdpp.PretrainConfig) { c.Precision = "fp8" },
		"rate is NaN":        func(c *rdpp.PretrainConfig) { c.Rate = math.NaN() },
		"weight_decay is -1": func(c *rdpp.PretrainConfig) { c.WeightDecay = -1 },
		"beta1 is 1":         func(c *rdpp.PretrainConfig) { c.Beta1 = 1 },
		"scales is [0 0":     func(c *rdpp.PretrainConfig) { c.Scales = [3]float64{} },
		"scales is [1 -":     func(c *rdpp.PretrainConfig) { c.Scales = [3]float64{1, -1, 1} },
		"temperature is 0":   func(c *rdpp.PretrainConfig) { c.Temperature = 0 },
		"embedding is 0":     func(c *rdpp.PretrainConfig) { c.Embedding = 0 },
		"std is":             func(c *rdpp.PretrainConfig) { c.Std[1] = 0 },
		"mean is":            func(c *rdpp.PretrainConfig) { c.Mean[1] = float32(math.Inf(1)) },
		"kinds is":           func(c *rdpp.PretrainConfig) { c.Kinds = []string{"cats"} },
	} {
		c := rdpp.DefaultPretrainConfig()
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		checkError(t, want, c.Validate(), rdpp.ErrConfig, want)
	}
}

// childPretrain trains into args[0], with a checkpoint and a line after every step.
func childPretrain(args []string) error {
	_, err := rdpp.Pretrain(context.Background(), tinyPretrain(rdpp.ObjectiveClass), rdpp.PretrainOptions{Out: args[0], Resume: true,
		CheckpointEvery: time.Nanosecond, OnStep: func(r rdpp.PretrainReport) { fmt.Println(r.Step) }})
	return err
}

// Killed after any step, or in the midst of a checkpoint, it loses nothing.
func TestPretrainKilled(t *testing.T) {
	want := filepath.Join(t.TempDir(), "a")
	pretrain(t, tinyPretrain(rdpp.ObjectiveClass), rdpp.PretrainOptions{Out: want})
	out := filepath.Join(t.TempDir(), "a")
	rounds := 2
	if *testmain.Slow {
		rounds = 20
	}
	for round := range rounds {
		cmd := testmain.Child("pretrain", out)
		cmd.Stderr = t.Output()
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		bufio.NewScanner(stdout).Scan()
		time.Sleep(time.Duration(round%7) * 20 * time.Millisecond)
		if err := testmain.Kill(cmd); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(out); err == nil {
			break // it came to the end
		}
	}
	if _, err := os.Stat(out); errors.Is(err, os.ErrNotExist) {
		pretrain(t, tinyPretrain(rdpp.ObjectiveClass), rdpp.PretrainOptions{Out: out, Resume: true})
	}
	if got, want := digest(t, out), digest(t, want); got != want {
		t.Errorf("got SHA-256 %s, want %s", got, want)
	}
	if got := temporary(t, filepath.Dir(out)); len(got) != 0 {
		t.Errorf("got half-written files %q, want none", got)
	}
}

// childPretrainFullDisk trains into args[0] where no file may grow to a checkpoint's size.
func childPretrainFullDisk(args []string) error {
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: fullDisk, Max: fullDisk}); err != nil {
		return err
	}
	_, err := rdpp.Pretrain(context.Background(), tinyPretrain(rdpp.ObjectiveClass), rdpp.PretrainOptions{Out: args[0],
		OnStep: func(rdpp.PretrainReport) { fmt.Println("a step") }})
	return err
}

func TestPretrainFullDisk(t *testing.T) {
	out := filepath.Join(t.TempDir(), "a")
	cmd := testmain.Child("pretrain, full disk", out)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err == nil || stdout.Len() > 0 {
		t.Errorf("got error %v, output %q, want a failure before the first step", err, stdout.String())
	}
	checkError(t, "full disk", errors.New(strings.TrimSpace(stderr.String())), nil, out, "make room")
	if entries, err := os.ReadDir(filepath.Dir(out)); err != nil || len(entries) != 0 {
		names := slices.Collect(func(yield func(string) bool) {
			for _, e := range entries {
				if !yield(e.Name()) {
					return
				}
			}
		})
		t.Errorf("got files %q, error %v, want none", names, err)
	}
}
