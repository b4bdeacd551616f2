package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rdpp/rdpp/command"
	"rdpp/rdpp/testmain"
)

// The first signal ends what takes no checkpoints too.
func TestSampleInterrupted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		before []string
		signal syscall.Signal
	}{
		{"SIGTERM", nil, syscall.SIGTERM},
		{"SIGINT", nil, syscall.SIGINT},
		{"SIGHUP", []string{"env", "--default-signal=HUP"}, syscall.SIGHUP},
	} {
		out := filepath.Join(t.TempDir(), "data")
		cmd, stderr := testmain.Start(t, asProgram, c.before, "sample", "--out", out, "--size", "256", "--train", "1000000")
		waitFor(t, filepath.Join(out, "part", "train", "good", "000.png"))
		if err := cmd.Process.Signal(c.signal); err != nil {
			t.Fatal(err)
		}
		if code := testmain.ExitCode(t, cmd); code != command.Interrupted || !strings.Contains(stderr.String(), "interrupted") {
			t.Errorf("%s: got code %d, stderr %q, want code 130 and a line about it", c.name, code, stderr)
		}
		if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want nothing left of half a data set", c.name, err)
		}
	}
}

// SIGHUP, which comes when a terminal is closed, makes a checkpoint as SIGTERM does; under nohup it does nothing.
func TestTrainHangup(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		before []string
		ends   bool
	}{
		{"SIGHUP", []string{"env", "--default-signal=HUP"}, true},
		{"SIGHUP under nohup", []string{"env", "--ignore-signal=HUP"}, false},
	} {
		out := t.TempDir()
		checkpoint := filepath.Join(out, "part", "checkpoint")
		cmd, stderr := testmain.Start(t, asProgram, c.before, tiny(dataDir, out, "--epochs", "1000000", "--checkpoint-every", "1ns", "--threads", "1")...)
		waitFor(t, checkpoint)
		if err := os.Remove(checkpoint); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if !c.ends {
			time.Sleep(200 * time.Millisecond)
			if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
				t.Errorf("%s: got %v, want a process that lives on", c.name, err)
			}
			cmd.Process.Signal(syscall.SIGTERM)
		}
		if code := testmain.ExitCode(t, cmd); code != command.Interrupted || !strings.Contains(stderr.String(), "after a checkpoint") {
			t.Errorf("%s: got code %d, stderr %q, want code 130 after a checkpoint", c.name, code, stderr)
		}
		if _, err := os.Stat(checkpoint); err != nil {
			t.Errorf("%s: got %v, want a checkpoint", c.name, err)
		}
	}
}

// The first signal ends the waiting for the rest of a list that another program writes.
func TestListInterrupted(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "list.csv")
	writer := testmain.HalfPipe(t, pipe, "path,split\n")
	cmd, stderr := testmain.Start(t, asProgram, []string{"sh", "-c", `exec "$@" <"$0"`, pipe}, "--list", "/dev/stdin", "--out", t.TempDir(), "--teacher", "random")
	testmain.Wait(t, "reader", func() bool { return !testmain.Unread(writer) })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := testmain.ExitCode(t, cmd); code != command.Interrupted || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("got code %d, stderr %q, want code 130 and a line about it", code, stderr)
	}
}

// A list that is a pipe by its name waits for nobody.
func TestListPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "list.csv")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, stderr := testmain.Start(t, asProgram, nil, "--list", pipe, "--out", t.TempDir(), "--teacher", "random")
	if code := testmain.ExitCode(t, cmd); code == 0 || !strings.Contains(stderr.String(), pipe+": not a regular file but a pipe; name a file, or /dev/stdin") {
		t.Errorf("got code %d, stderr %q, want the pipe named", code, stderr)
	}
}
