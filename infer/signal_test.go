package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rdpp/rdpp/command"
	"rdpp/rdpp/testmain"
)

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
		cmd, stderr := testmain.Start(t, asProgram, c.before, append(c.args, pipe, "--threads", "1", "--model", modelFile)...)
		// The pipe can be opened once the program reads from it.
		var writer *os.File
		testmain.Wait(t, "reader of the pipe", func() bool {
			var err error
			writer, err = os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0)
			if err != nil && !errors.Is(err, syscall.ENXIO) {
				t.Fatalf("%s: %v", c.name, err)
			}
			return err == nil
		})
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
		if code := testmain.ExitCode(t, cmd); code != command.Interrupted || !strings.HasSuffix(stderr.String(), "infer: interrupted; run the same command again\n") {
			t.Errorf("%s: got code %d, stderr %q, want code 130 and a line about it", c.name, code, stderr)
		}
	}
}

// The first signal ends the waiting for the rest of the tokens that another program writes.
func TestTokensInterrupted(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "tokens")
	writer := testmain.HalfPipe(t, pipe, "0123456789")
	cmd, stderr := testmain.Start(t, asProgram, []string{"sh", "-c", `exec "$@" <"$0"`, pipe}, "serve", "--listen", "127.0.0.1:0", "--model", modelFile, "--token-file", "/dev/stdin")
	testmain.Wait(t, "reader", func() bool { return !testmain.Unread(writer) })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := testmain.ExitCode(t, cmd); code != command.Interrupted || !strings.HasSuffix(stderr.String(), "infer: interrupted; run the same command again\n") {
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
