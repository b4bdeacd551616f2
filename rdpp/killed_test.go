package rdpp_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/testmain"
	"rdpp/rdpp/weights"
)

// childTrain trains by a configuration on args[0] into args[1], with a checkpoint and a line after every step. If hold is not 0,
// it waits in its hold-th step, when there is a checkpoint of the one before.
func childTrain(config func() rdpp.Config, hold int) func(args []string) error {
	return func(args []string) error {
		set, err := dataset.Open(args[0], nil)
		if err != nil {
			return err
		}
		steps := 0
		_, err = rdpp.Train(context.Background(), config(), set, rdpp.TrainOptions{Out: args[1], Teacher: rdpp.TeacherRandom, Resume: true,
			CheckpointEvery: time.Nanosecond, OnStep: func(r rdpp.StepReport) {
				fmt.Println(r.Epoch, r.Step)
				if steps++; steps == hold {
					time.Sleep(time.Hour)
				}
			}})
		return err
	}
}

// started is a child that runs, and the lines that it writes.
func started(t *testing.T, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := testmain.Child(args[0], args[1:]...)
	cmd.Stderr = t.Output()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(stdout)
}

// Killed at any moment, training loses nothing: the files in the folder are whole, and resuming leads to the same model.
func TestKilled(t *testing.T) {
	t.Parallel()
	rounds := 2
	if *testmain.Slow {
		rounds = 30
	}
	out := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 1))
	for round := range rounds {
		cmd, lines := started(t, "train", dataDir, out)
		// A step and the checkpoint after it take some tenths of a second.
		lines.Scan()
		time.Sleep(time.Duration(rng.Int64N(int64(800 * time.Millisecond))))
		if err := testmain.Kill(cmd); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for _, name := range []string{checkpointFile, "best.safetensors", rdpp.ModelFile} {
			file, err := weights.OpenSafetensors(filepath.Join(out, name))
			if err == nil {
				err = file.Close()
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("round %d: got %v, want a whole file or none", round, err)
			}
		}
		if got := temporary(t, out); len(got) > 1 {
			t.Errorf("round %d: got half-written files %q, want one at most", round, got)
		}
	}
	train(t, tinyBest(), rdpp.TrainOptions{Out: out, Resume: true})
	checkOutcome(t, out, trained(t, tinyBest()))
	if got := temporary(t, out); len(got) != 0 {
		t.Errorf("at the end: got half-written files %q, want none", got)
	}
}

// fullDisk is what one file may hold in childFullDisk: room for the history, not for a model.
const fullDisk = 1 << 20

// limitFiles lets no file grow beyond fullDisk from now on, which is to the writer what a full disk is: an error in the middle
// of the file.
func limitFiles() error {
	signal.Ignore(syscall.SIGXFSZ)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: fullDisk, Max: fullDisk})
}

// childFullDisk trains on args[0] into args[1] where the disk is full, from args[2] on: the "start", or the first "step".
func childFullDisk(args []string) error {
	if args[2] == "start" {
		if err := limitFiles(); err != nil {
			return err
		}
	}
	set, err := dataset.Open(args[0], nil)
	if err != nil {
		return err
	}
	c := tiny()
	c.Method, c.Epochs = rdpp.MethodRD, 1
	_, err = rdpp.Train(context.Background(), c, set, rdpp.TrainOptions{Out: args[1], Teacher: rdpp.TeacherRandom, Overwrite: true,
		CheckpointEvery: time.Nanosecond, OnStart: func(rdpp.Info) {
			if err := limitFiles(); err != nil {
				panic(err)
			}
		}, OnStep: func(rdpp.StepReport) { fmt.Println("a step") }})
	return err
}

// A disk that is too small for what a training writes is found before it begins.
func TestFullDiskAtStart(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	cmd := testmain.Child("full disk", dataDir, out, "start")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 || stdout.Len() > 0 {
		t.Errorf("got %v, output %q, want exit code 1 before the first step", err, stdout.String())
	}
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	checkError(t, "full disk", errors.New(lines[len(lines)-1]), nil, out, syscall.EFBIG.Error(), "make room")
	if entries, err := os.ReadDir(out); err != nil || len(entries) != 0 {
		t.Errorf("got %d files and %v, want none", len(entries), err)
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	path := filepath.Join(out, rdpp.ModelFile)
	if err := os.Link(trainedModel(t), path); err != nil {
		t.Fatal(err)
	}
	before := digest(t, path)
	cmd := testmain.Child("full disk", dataDir, out, "step")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("got %v, stderr %q, want exit code 1", err, stderr.String())
	}
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	checkError(t, "full disk", errors.New(lines[len(lines)-1]), nil, path, syscall.EFBIG.Error(), "make room", "resume")
	if !strings.Contains(stderr.String(), "no checkpoint") {
		t.Errorf("got log %q, want a warning about checkpoints", stderr.String())
	}
	if got := digest(t, path); got != before {
		t.Errorf("the model from before: got SHA-256 %s, want %s", got, before)
	}
	if got := temporary(t, out); len(got) != 0 {
		t.Errorf("got half-written files %q, want none", got)
	}
}
