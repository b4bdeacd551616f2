package testmain

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long tests wait for what takes moments on an idle machine.
const patience = 4 * time.Minute

// Start starts the test program as one of those that it can be, by the words before its name, such as env's, and by its
// arguments. It is killed at the end of the test.
func Start(t testing.TB, name string, before []string, args ...string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	t.Helper()
	words := append(append(before, os.Args[0]), args...)
	cmd, stderr = exec.Command(words[0], words[1:]...), new(bytes.Buffer)
	cmd.Env = append(os.Environ(), Key+"="+name)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, stderr
}

// ExitCode waits for a process that must end soon, and kills it where it does not; -1: a signal has ended it.
func ExitCode(t testing.TB, cmd *exec.Cmd) int {
	t.Helper()
	killer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer killer.Stop()
	cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

// Wait waits until something is there; that it does not come is an error of the test.
func Wait(t testing.TB, what string, there func() bool) {
	t.Helper()
	for began := time.Now(); !there(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Errorf("got no %s within %v", what, patience)
			return
		}
	}
}

// HalfPipe makes a pipe at path that holds text and has no end: its writer stays open until the test ends.
func HalfPipe(t testing.TB, path, text string) (writer *os.File) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(path, os.O_RDWR, 0) // which does not wait for the reader
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { writer.Close() })
	if _, err := writer.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return writer
}

// Unread says whether a pipe holds what nobody has read.
func Unread(writer *os.File) bool {
	unread, err := unix.IoctlGetInt(int(writer.Fd()), unix.TIOCINQ)
	return err == nil && unread > 0
}
