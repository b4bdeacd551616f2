package rdpp_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/sample"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// What resident memory may grow by while work goes on, after a warm-up: allocators keep some memory for reuse.
const maxGrowth = 20 << 20

// memory returns a figure of this process, such as VmRSS, in bytes.
func memory(name string) (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); fields[0] == name+":" {
			kB, err := strconv.ParseInt(fields[1], 10, 64)
			return kB << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no %s", name)
}

func resident(t *testing.T) int64 {
	t.Helper()
	debug.FreeOSMemory()
	bytes, err := memory("VmRSS")
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func TestPredictionsLeak(t *testing.T) {
	warm, predictions := 20, 100
	if *testmain.Slow {
		predictions = 2000
	}
	d := openDetector(t, nil)
	img := picture(64, 48)
	for range warm {
		detect(t, d, img)
	}
	tensors, before := torch.LiveTensors(), resident(t)
	for range predictions {
		detect(t, d, img)
	}
	growth := resident(t) - before
	t.Logf("%d predictions: %.1f MiB more", predictions, float64(growth)/(1<<20))
	if growth > maxGrowth {
		t.Errorf("%d predictions: got %d bytes more of resident memory, want at most %d", predictions, growth, maxGrowth)
	}
	if got := torch.LiveTensors(); got != tensors {
		t.Errorf("%d predictions: got %d open tensors, want %d", predictions, got, tensors)
	}
}

// A longer training keeps its memory, and learns.
func TestLongTraining(t *testing.T) {
	const warm = 5
	steps := 22
	if *testmain.Slow {
		steps = 200
	}
	c := tiny()
	c.Epochs = (warm + steps + 2) / 3
	before := torch.LiveTensors()
	seen := 0
	var tensors, bytes, growth int64
	var first, last rdpp.Losses
	train(t, c, rdpp.TrainOptions{Out: t.TempDir(), OnStep: func(r rdpp.StepReport) {
		switch seen++; seen {
		case warm:
			tensors, bytes = torch.LiveTensors(), resident(t)
		case warm + steps:
			growth = resident(t) - bytes
			if got := torch.LiveTensors(); got != tensors {
				t.Errorf("%d steps: got %d open tensors, want %d", steps, got, tensors)
			}
		}
	}, OnEpoch: func(r rdpp.EpochReport) {
		if r.Epoch == 1 {
			first = r.Losses
		}
		last = r.Losses
	}})
	t.Logf("%d steps: %.1f MiB more", steps, float64(growth)/(1<<20))
	if growth > maxGrowth {
		t.Errorf("%d steps: got %d bytes more of resident memory, want at most %d", steps, growth, maxGrowth)
	}
	if got := torch.LiveTensors(); got != before {
		t.Errorf("after training: got %d open tensors, want %d", got, before)
	}
	// Fresh weights start near 1.7; nine epochs at these rates take off half of it.
	if !(last.Get("kd") < 0.7*first.Get("kd") && last.Get("total") < 0.7*first.Get("total")) {
		t.Errorf("losses: got %+v after %+v, want both KD and total to fall by 30 %%", last, first)
	}
}

// childFits trains the architecture args[2] for one step and update into args[1], predicts, and prints its peak of resident memory
// in bytes.
func childFits(args []string) error {
	set, err := dataset.Open(args[0], nil)
	if err != nil {
		return err
	}
	c := rdpp.DefaultConfig()
	c.Arch, c.Epochs, c.Batch, c.Accumulate, c.Calibration = args[2], 1, 4, 1, 0
	c.Precision = "fp32"
	summary, err := rdpp.Train(context.Background(), c, set, rdpp.TrainOptions{Out: args[1], Teacher: rdpp.TeacherRandom})
	if err != nil {
		return err
	}
	d, err := rdpp.OpenDetector(summary.ModelFile, nil)
	if err != nil {
		return err
	}
	defer d.Close()
	if _, _, err := d.DetectFile(set.Train[0].Path); err != nil {
		return err
	}
	peak, err := memory("VmHWM")
	fmt.Println(peak)
	return err
}

func TestFits(t *testing.T) {
	limits := map[string]int64{"resnet18": 3 << 30}
	if *testmain.Slow {
		limits["wide_resnet50_2"] = 8 << 30
	}
	data := t.TempDir()
	if err := sample.Write(data, &sample.Options{Category: "part", Size: 256, Train: 4, TestGood: 1, TestDefect: 1}); err != nil {
		t.Fatal(err)
	}
	for arch, limit := range limits {
		output, err := testmain.Child("fits", data+"/part", t.TempDir(), arch).Output()
		if exit, failed := err.(*exec.ExitError); failed {
			t.Fatalf("%s: %v: %s", arch, err, exit.Stderr)
		}
		peak, err := strconv.ParseInt(strings.TrimSpace(string(output)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: peak of resident memory: %.2f GiB", arch, float64(peak)/(1<<30))
		if peak > limit {
			t.Errorf("%s: peak of resident memory: got %d bytes, want at most %d", arch, peak, limit)
		}
	}
}
