package main

import (
	"bytes"
	"errors"
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

// The first signal ends the program in words, also while it waits for a pipe that nobody writes to.
func TestSignals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		before []string
		signal syscall.Signal
		ends   bool
		args   []string // before the pipe
	}{
		{"SIGTERM", nil, syscall.SIGTERM, true, []string{"image"}},
		{"SIGHUP", []string{"env", "--default-signal=HUP"}, syscall.SIGHUP, true, []string{"image"}},
		{"SIGHUP under nohup", []string{"env", "--ignore-signal=HUP"}, syscall.SIGHUP, false, []string{"image"}},
	} {
		pipe := filepath.Join(t.TempDir(), "part.png")
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd, stderr := program(t, c.before, append(c.args, pipe, "--threads", "1", "--model", modelFile)...)
		// The pipe can be opened once the program reads from it.
		var writer *os.File
		for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			var err error
			if writer, err = os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
				break
			}
			if !errors.Is(err, syscall.ENXIO) || time.Since(began) > time.Minute {
				t.Fatalf("%s: got %v, want a reader of the pipe", c.name, err)
			}
		}
		defer writer.Close()
		if err := cmd.Process.Signal(c.signal); err != nil {
			t.Fatal(err)
		}
		if !c.ends {
			time.Sleep(200 * time.Millisecond)
			if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
				t.Errorf("%s: got %v, want a process that lives on", c.name, err)
			}
			cmd.Process.Signal(syscall.SIGTERM)
		}
		if code := exitCode(t, cmd); code != command.Interrupted || !strings.HasSuffix(stderr.String(), "infer: interrupted; run the same command again\n") {
			t.Errorf("%s: got code %d, stderr %q, want code 130 and a line about it", c.name, code, stderr)
		}
	}
}

// The first signal ends the waiting for the rest of the tokens that another program writes.
func TestTokensInterrupted(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "tokens")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(pipe, os.O_RDWR, 0) // which does not wait for the reader
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if _, err := writer.WriteString("0123456789"); err != nil {
		t.Fatal(err)
	}
	cmd, stderr := program(t, []string{"sh", "-c", `exec "$@" <"$0"`, pipe}, "serve", "--listen", "127.0.0.1:0", "--model", modelFile, "--token-file", "/dev/stdin")
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if unread, err := unix.IoctlGetInt(int(writer.Fd()), unix.TIOCINQ); err != nil || unread == 0 {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal("nobody reads the tokens")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd); code != command.Interrupted || !strings.HasSuffix(stderr.String(), "infer: interrupted; run the same command again\n") {
		t.Errorf("got code %d, stderr %q, want code 130 and a line about it", code, stderr)
	}
}

// Whatever is no ordinary file is no model: the answer comes at once, in words.
func TestModelIsNoFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "model.safetensors")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link.safetensors")
	if err := os.Symlink("/dev/zero", link); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]string{pipe: "a pipe", link: "a device"} {
		for _, args := range [][]string{{"image", "--model", path, "x.png"}, {"info", path}, {"serve", "--listen", "127.0.0.1:0", "--model", path},
			{"import", "--checkpoint", path, "--out", filepath.Join(t.TempDir(), "out.safetensors")}} {
			code, _, stderr := infer(nil, args...)
			if code != command.Failed || !oneLine(stderr, path) || !oneLine(stderr, "not a regular file but "+kind) {
				t.Errorf("%q: got code %d, stderr %q, want code 1 and that it is %s", args, code, stderr, kind)
			}
		}
	}
}
