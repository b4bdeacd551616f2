package atomicfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rdpp/rdpp/testmain"
)

func TestMain(m *testing.M) {
	testmain.Be(map[string]func([]string) error{"half": func(args []string) error { return half(args[0], false) },
		"half, named": func(args []string) error { return half(args[0], true) }})
	os.Exit(testmain.Run(m, nil))
}

// half writes half a file, says so and waits to be killed; named makes it do so where files have names from the start.
func half(path string, named bool) error {
	namedAlone = named
	return Write(path, func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
		fmt.Println("half")
		time.Sleep(time.Minute)
		return errors.New("nobody has killed this process")
	})
}

// writeHalf is a child that has written half of the file at path.
func writeHalf(t *testing.T, path string, named bool) *exec.Cmd {
	t.Helper()
	cmd := testmain.Child("half", path)
	if named {
		cmd = testmain.Child("half, named", path)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "half\n" {
		t.Fatalf("got %q and %v from the child, want half", line, err)
	}
	return cmd
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
}

func files(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A process that is killed while it writes leaves nothing, where the file system knows files without a name; this one does, or
// the other way is the one that this test is of.
func TestKilledLeavesNothing(t *testing.T) {
	folder := t.TempDir()
	probe, err := os.OpenFile(folder, syscall.O_RDWR|0x410000, 0o600) // O_TMPFILE
	if err == nil {
		probe.Close()
	}
	cmd := writeHalf(t, filepath.Join(folder, "a"), false)
	if names := files(t, folder); err == nil && len(names) != 0 {
		t.Errorf("while it is written: got the files %q, want none", names)
	}
	kill(t, cmd)
	if names := files(t, folder); err == nil && len(names) != 0 {
		t.Errorf("after the end: got the files %q, want none", names)
	}
}

// What has a name while it is written is left alone as long as its process lives, whoever else writes, and removed by the next
// process that writes after it was killed.
func TestKilledNamed(t *testing.T) {
	folder := t.TempDir()
	first, second := writeHalf(t, filepath.Join(folder, "a"), true), writeHalf(t, filepath.Join(folder, "b"), true)
	if names := files(t, folder); len(names) != 2 {
		t.Fatalf("got the files %q, want two temporary ones", names)
	}
	kill(t, first)
	cleaned.Clear() // as in another process
	if err := Write(filepath.Join(folder, "c"), writing("c")); err != nil {
		t.Fatal(err)
	}
	names := files(t, folder)
	if len(names) != 2 || names[1] != "c" {
		t.Errorf("got the files %q, want the living one's and c", names)
	}
	kill(t, second)
	cleaned.Clear()
	other := filepath.Join(folder, ".rdpp-notes.tmp") // somebody else's
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(folder, "c"), writing("d")); err != nil {
		t.Fatal(err)
	}
	testmain.WantFiles(t, folder, filepath.Base(other), "c")
	testmain.WantContent(t, filepath.Join(folder, "c"), "d")
}

// All that holds of files without a name holds of named ones.
func TestNamedAlone(t *testing.T) {
	namedAlone = true
	defer func() { namedAlone = false }()
	t.Run("Write", TestWrite)
	t.Run("Room", TestRoom)
}

func TestRoom(t *testing.T) {
	folder := t.TempDir()
	if err := Room(folder, 0, 1<<20, 1<<20); err != nil {
		t.Errorf("2 MiB: got %v", err)
	}
	const half = 1 << 60 // of them no disk has two
	if err := Room(folder, half, half); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), folder) {
		t.Errorf("2 EiB: got %v, want %v", err, syscall.ENOSPC)
	}
	if err := Room(filepath.Join(folder, "missing"), 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: got %v, want %v", err, os.ErrNotExist)
	}
	testmain.WantFiles(t, folder)
}

// A limit on the size of files is found ahead as a full disk is.
func TestRoomLimited(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 20, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)
	if err := Room(t.TempDir(), 1<<20+1); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("got %v, want %v", err, syscall.EFBIG)
	}
}
