package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/testmain"
	"rdpp/torch/grouptest"
)

// asLauncher is the program that starts copies of itself.
const asLauncher = "train and its copies"

func launcher([]string) error {
	os.Setenv(testmain.Key, asProgram) // of the copies
	main()
	return nil
}

// rank is a process of several.
type rank struct {
	*exec.Cmd
	stderr *bytes.Buffer
}

// startRanks starts processes that train together, by the environment as torchrun makes it. further are arguments of the last.
func startRanks(t *testing.T, size int, args []string, further ...string) (all []rank) {
	t.Helper()
	port := grouptest.FreePort(t)
	for i := range size {
		env := []string{"env", fmt.Sprint("RANK=", i), fmt.Sprint("WORLD_SIZE=", size), fmt.Sprint("LOCAL_RANK=", i), fmt.Sprint("LOCAL_WORLD_SIZE=", size),
			"MASTER_ADDR=127.0.0.1", fmt.Sprint("MASTER_PORT=", port)}
		if i == size-1 {
			args = slices.Concat(args, further)
		}
		cmd, stderr := testmain.Start(t, asProgram, env, args...)
		all = append(all, rank{cmd, stderr})
	}
	return all
}

// Two processes make the model that one makes, up to rounding, the trainings for the threshold included; rank 0 alone writes.
func TestRanks(t *testing.T) {
	grouptest.Need(t)
	t.Parallel()
	alone, together := t.TempDir(), t.TempDir()
	args := func(out string, further ...string) []string {
		return tiny(dataDir, out, append([]string{"--method=rd++", "--batch=4", "--calibration=0.1", "--test-every=1"}, further...)...)
	}
	if code, _, stderr := trainBy(args(alone)...); code != command.Done {
		t.Fatalf("alone: got code %d, %s", code, stderr)
	}
	cmd, stderr := testmain.Start(t, asLauncher, nil, args(together, "--ranks=2")...)
	if code := testmain.ExitCode(t, cmd); code != command.Done {
		t.Fatalf("got code %d, stderr %s", code, stderr)
	}
	want, got := summaryOf(t, alone), summaryOf(t, together)
	const tolerance = 1e-4 // of sums in float32 in another order
	for i, loss := range want.Losses {
		if d := math.Abs(got.Losses[i].Value - loss.Value); !(d <= tolerance*math.Abs(loss.Value)+1e-6) {
			t.Errorf("%s: got %v, want %v", loss.Name, got.Losses[i].Value, loss.Value)
		}
	}
	if got.CalibrationFolds != want.CalibrationFolds || got.CalibrationFolds == 0 || got.CalibrationImages != want.CalibrationImages {
		t.Errorf("got %d trainings for the threshold by %d images, want %d and %d", got.CalibrationFolds, got.CalibrationImages, want.CalibrationFolds,
			want.CalibrationImages)
	}
	testmain.WantFiles(t, filepath.Join(together, "part"), rdpp.HistoryFile, rdpp.MetricsFile, rdpp.ModelFile, rdpp.ReportFile, rdpp.ScoresFile)
}

// One that is killed ends the others, who say how to go on: with another number of processes too, up to none beside the first.
// A signal to any ends all with a checkpoint.
func TestRanksEnd(t *testing.T) {
	grouptest.Need(t)
	t.Parallel()
	out := t.TempDir()
	checkpoint := filepath.Join(out, "part", "checkpoint")
	endless := tiny(dataDir, out, "--batch=4", "--accumulate=2", "--epochs=1000000", "--checkpoint-every=1ns")
	three := startRanks(t, 3, endless)
	waitFor(t, checkpoint)
	killed := time.Now()
	if err := three[1].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 2} {
		code := testmain.ExitCode(t, three[i].Cmd)
		const want = "rank 1 of 3 has ended without a word: it was killed, or its machine is gone; start all processes again, with --resume"
		if code != command.Failed || !strings.Contains(three[i].stderr.String(), want) || i > 0 && !strings.Contains(three[i].stderr.String(), "train: rank 2: ") {
			t.Errorf("rank %d: got code %d, stderr %q, want %q", i, code, three[i].stderr, want)
		}
	}
	if took := time.Since(killed); took > 30*time.Second {
		t.Errorf("got %v until all had ended, want 30 s", took)
	}

	before, err := os.Stat(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	two := startRanks(t, 2, append(endless, "--resume"))
	testmain.Wait(t, "later checkpoint", func() bool {
		now, err := os.Stat(checkpoint)
		return err == nil && now.ModTime().After(before.ModTime())
	})
	if err := two[1].Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for i := range two {
		if code := testmain.ExitCode(t, two[i].Cmd); code != command.Interrupted || !strings.Contains(two[i].stderr.String(), "after a checkpoint; --resume continues") {
			t.Errorf("rank %d: got code %d, stderr %q, want code 130 after a checkpoint", i, code, two[i].stderr)
		}
	}
	epoch := regexp.MustCompile(`in epoch (\d+) of`).FindStringSubmatch(two[0].stderr.String())
	if epoch == nil {
		t.Fatalf("got %q, want the epoch", two[0].stderr)
	}
	code, _, stderr := trainBy(append(endless, "--resume", "--epochs="+epoch[1])...)
	if code != command.Done {
		t.Errorf("one process: got code %d, %s", code, stderr)
	}
}

// A libtorch without gloo is told by rank 0 and its copies, which end.
func TestRanksUnsupported(t *testing.T) {
	t.Parallel()
	if grouptest.Lacking(t) == nil {
		t.Skip("this libtorch has gloo")
	}
	cmd, stderr := testmain.Start(t, asLauncher, nil, tiny(dataDir, t.TempDir(), "--batch=4", "--ranks=2")...)
	if code := testmain.ExitCode(t, cmd); code != command.Failed || !strings.Contains(stderr.String(), "this libtorch has no gloo") {
		t.Errorf("got code %d, stderr %q, want that there is no gloo", code, stderr)
	}
}

// Copies of a process that is killed before all have met end too, and say why, long before they would give up waiting for it.
func TestRanksOrphaned(t *testing.T) {
	grouptest.Need(t)
	t.Parallel()
	cmd, stderr := testmain.Start(t, asLauncher, nil, tiny(dataDir, t.TempDir(), "--batch=4", "--ranks=3")...)
	children := func() (n int) {
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range lists {
			text, _ := os.ReadFile(list) // of a thread that may have ended
			n += len(strings.Fields(string(text)))
		}
		return n
	}
	testmain.Wait(t, "two copies", func() bool { return children() == 2 })
	if err := cmd.Process.Kill(); err != nil { // they have libtorch to load before they look for it
		t.Fatal(err)
	}
	cmd.WaitDelay = 30 * time.Second
	cmd.Wait() // for who writes to its stderr too, which the copies do
	for _, want := range []string{"train: rank 1: ", "train: rank 2: ", "rank 0 of 3, which started this one, has ended before all had met"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("got stderr %q, want %q within %v", stderr, want, cmd.WaitDelay)
		}
	}
}

// What cannot be trained by several processes is refused before they meet, or by all of them.
func TestRanksRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"another number", []string{"RANK=0", "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1", "MASTER_PORT=1"}, tiny(dataDir, t.TempDir(), "--ranks=3"), "WORLD_SIZE=2; leave --ranks out"},
		{"no address", []string{"RANK=0", "WORLD_SIZE=2"}, tiny(dataDir, t.TempDir()), "MASTER_PORT"},
		{"a teacher", []string{"RANK=0", "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1", "MASTER_PORT=1"}, []string{"teacher", "--out=t"}, "the work of one process"},
		{"too many", nil, tiny(dataDir, t.TempDir(), "--ranks=100000"), "--ranks 100000; use 2 to"},
	} {
		cmd, stderr := testmain.Start(t, asProgram, append([]string{"env"}, c.env...), c.args...)
		if code := testmain.ExitCode(t, cmd); code != command.WrongUsage || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: got code %d, stderr %q, want %q", c.name, code, stderr, c.want)
		}
	}
	grouptest.Need(t)
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"another method", []string{"--method=patchcore", "--coreset=0.1"}, "it learns in one process: leave --ranks out, or use rd++"},
		{"stopping early", []string{"--patience=3"}, "only a training in one process stops early"},
		{"categories", []string{"--data=" + filepath.Dir(dataDir), "--category=part,other"}, "one model of one category"},
		{"small batches", []string{"--batch=1"}, "each of the 2 processes of --ranks needs an image of it"},
	} {
		args := []string{"--data=" + dataDir, "--out=" + t.TempDir(), "--arch=resnet18", "--image-size=64", "--precision=fp32", "--teacher=random", "--device=cpu", "--ranks=2"}
		cmd, stderr := testmain.Start(t, asLauncher, nil, append(args, c.args...)...)
		if code := testmain.ExitCode(t, cmd); code != command.WrongUsage || strings.Count(stderr.String(), c.want) != 1 {
			t.Errorf("%s: got code %d, stderr %q, want %q, once", c.name, code, stderr, c.want)
		}
	}
}

// Processes that are asked for different things end, instead of waiting for each other.
func TestRanksDiffer(t *testing.T) {
	grouptest.Need(t)
	t.Parallel()
	for _, c := range []struct{ flag, want string }{
		{"--test-every=1", "rank 1 has other options than rank 0"},
		{"--accumulate=2", "rank 1 has other settings than rank 0"},
	} {
		two := startRanks(t, 2, tiny(dataDir, t.TempDir(), "--batch=4", "--epochs=3"), c.flag)
		for i := range two {
			if code := testmain.ExitCode(t, two[i].Cmd); code != command.Failed || !strings.Contains(two[i].stderr.String(), c.want) {
				t.Errorf("%s, rank %d: got code %d, stderr %q, want %q", c.flag, i, code, two[i].stderr, c.want)
			}
		}
	}
}

// What scripts/cluster/ranks.slurm has Slurm start is what the program understands.
func TestRanksSlurm(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	for name, text := range map[string]string{"scontrol": "echo node7; echo node8", "srun": `test "$2" = --cpus-per-task=8 || exit 1; shift 2; SLURM_PROCID=5 SLURM_LOCALID=1 SLURM_NTASKS=8 exec "$@"`,
		"train": `echo "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT $*"`} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("bash", "../scripts/cluster/ranks.slurm", "--resume")
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "SLURM_JOB_ID=1234567", "SLURM_NTASKS_PER_NODE=4",
		"SLURM_CPUS_PER_TASK=8", "SLURM_JOB_NODELIST=node[7-8]")
	text, err := cmd.CombinedOutput()
	args, found := strings.CutPrefix(strings.TrimSpace(string(text)), "5 1 8 4 node7 24567 ")
	if err != nil || !found || !strings.HasSuffix(args, "--threads 8 --resume") {
		t.Fatalf("got %q, %v", text, err)
	}
	if code, _, stderr := trainBy(append(strings.Fields(args), "--help")...); code != command.Done {
		t.Errorf("%s: got code %d, %s", args, code, stderr)
	}
}
