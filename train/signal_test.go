package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rdpp/rdpp/command"
	"rdpp/rdpp/testmain"
)

// program starts this program as a process of its own by the words before its name, such as env's, and by its arguments.
func program(t *testing.T, before []string, args ...string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	t.Helper()
	words := append(append(before, os.Args[0]), args...)
	cmd, stderr = exec.Command(words[0], words[1:]...), new(bytes.Buffer)
	cmd.Env = append(os.Environ(), testmain.Key+"="+asProgram)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, stderr
}

// exitCode waits for a process that must end soon.
func exitCode(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	killer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer killer.Stop()
	cmd.Wait()
	return cmd.ProcessState.ExitCode() // -1: ended by a signal
}

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
		cmd, stderr := program(t, c.before, "sample", "--out", out, "--size", "256", "--train", "1000000")
		waitFor(t, filepath.Join(out, "part", "train", "good", "000.png"))
		if err := cmd.Process.Signal(c.signal); err != nil {
			t.Fatal(err)
		}
		if code := exitCode(t, cmd); code != command.Interrupted || !strings.Contains(stderr.String(), "interrupted") {
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
		cmd, stderr := program(t, c.before, tiny(dataDir, out, "--epochs", "1000000", "--checkpoint-every", "1ns", "--threads", "1")...)
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
		if code := exitCode(t, cmd); code != command.Interrupted || !strings.Contains(stderr.String(), "after a checkpoint") {
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
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(pipe, os.O_RDWR, 0) // which does not wait for the reader
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if _, err := writer.WriteString("path,split\n"); err != nil {
		t.Fatal(err)
	}
	cmd, stderr := program(t, []string{"sh", "-c", `exec "$@" <"$0"`, pipe}, "--list", "/dev/stdin", "--out", t.TempDir(), "--teacher", "random")
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if unread, err := unix.IoctlGetInt(int(writer.Fd()), unix.TIOCINQ); err != nil || unread == 0 {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal("nobody reads the list")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd); code != command.Interrupted || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("got code %d, stderr %q, want code 130 and a line about it", code, stderr)
	}
}

// A list that is a pipe by its name waits for nobody.
func TestListPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "list.csv")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, stderr := program(t, nil, "--list", pipe, "--out", t.TempDir(), "--teacher", "random")
	if code := exitCode(t, cmd); code == 0 || !strings.Contains(stderr.String(), pipe+": not a regular file but a pipe; name a file, or /dev/stdin") {
		t.Errorf("got code %d, stderr %q, want the pipe named", code, stderr)
	}
}
