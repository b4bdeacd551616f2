package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rdpp/rdpp/command"
	"rdpp/rdpp/testmain"
)

func makePipe(t *testing.T, path string) string {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A pipe in a folder of images is named, and the images around it are scored.
func TestPipeInFolder(t *testing.T) {
	good, _ := testImages()
	content, err := os.ReadFile(good[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"0.png", "2.png"} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	pipe := makePipe(t, filepath.Join(dir, "1.png"))
	code, stdout, stderr := infer(nil, commandLine("image", "--json", dir)...)
	all := objects(t, stdout)
	if code != command.Failed || len(all) != 3 || all[0]["score"] != scores[good[0]] || all[2]["score"] != scores[good[0]] ||
		all[1]["image"] != pipe || !oneLine(stderr, pipe+": not a regular file but a pipe: remove it") {
		t.Errorf("got code %d, stdout %q, stderr %q, want code 1, two scores and the pipe's name", code, stdout, stderr)
	}
}

// A pipe that is named is read, as in `infer image <(command)`.
func TestNamedPipe(t *testing.T) {
	good, _ := testImages()
	content, err := os.ReadFile(good[0])
	if err != nil {
		t.Fatal(err)
	}
	pipe := makePipe(t, filepath.Join(t.TempDir(), "pipe"))
	for _, c := range []struct {
		name    string
		content []byte
		code    int
		want    string // on stderr
	}{{"an image", content, command.Done, ""}, {"nothing", nil, command.Failed, pipe + ": imagefile: empty file"}} {
		written := make(chan error, 1)
		go func() { written <- os.WriteFile(pipe, c.content, 0) }()
		code, stdout, stderr := infer(nil, commandLine("image", "--json", pipe)...)
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		all := objects(t, stdout)
		if code != c.code || len(all) != 1 || code == command.Done && all[0]["score"] != scores[good[0]] || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: got code %d, stdout %q, stderr %q, want code %d, %q", c.name, code, stdout, stderr, c.code, c.want)
		}
	}
}

// The first signal ends the reading of a pipe that nobody writes to.
func TestInterruptedPipe(t *testing.T) {
	good, _ := testImages()
	pipe := makePipe(t, filepath.Join(t.TempDir(), "pipe"))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], commandLine("image", "--json", good[0], pipe)...)
	cmd.Env = append(os.Environ(), testmain.Key+"="+asProgram)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n') // of the image before the pipe
	if err == nil {
		err = cmd.Process.Signal(syscall.SIGTERM)
	}
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != command.Interrupted || !strings.Contains(line, good[0]) {
		t.Errorf("after %q: got %v, want exit code %d", line, err, command.Interrupted)
	}
}
