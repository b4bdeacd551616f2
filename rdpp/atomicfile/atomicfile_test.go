package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func writing(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// wantFiles holds a folder's files, hidden ones too, equal to want.
func wantFiles(t *testing.T, folder string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got files %q, want %q", got, want)
	}
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("got %q and error %v, want %q", got, err, want)
	}
}

func TestWrite(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "metrics.json")
	for _, content := range []string{"first", "", strings.Repeat("second", 1<<16)} {
		if err := Write(path, writing(content)); err != nil {
			t.Fatal(err)
		}
		wantContent(t, path, content)
	}

	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, writing("third")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("got mode %v and error %v, want the old file's 0640", info.Mode(), err)
	}

	failing := errors.New("no more numbers")
	err := Write(path, func(w io.Writer) error {
		io.WriteString(w, strings.Repeat("x", 1<<20))
		wantContent(t, path, "third")
		return failing
	})
	if !errors.Is(err, failing) || !strings.HasPrefix(err.Error(), "atomicfile: ") || !strings.Contains(err.Error(), path) {
		t.Errorf("got error %v, want one from atomicfile that wraps %v and names %s", err, failing, path)
	}
	wantContent(t, path, "third")
	wantFiles(t, folder, "metrics.json")

	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic of write was swallowed")
			}
		}()
		Write(path, func(io.Writer) error { panic("in write") })
	}()
	wantContent(t, path, "third")
	wantFiles(t, folder, "metrics.json")

	if err := Write(folder, writing("x")); err == nil {
		t.Error("writing over a folder: got no error")
	}
	if err := Write(filepath.Join(folder, "missing", "x"), writing("x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("writing into a missing folder: got %v, want %v", err, os.ErrNotExist)
	}
	wantFiles(t, folder, "metrics.json")
	wantFiles(t, filepath.Dir(folder), filepath.Base(folder))
}

// TestWriteFileFails fails in the midst of a file that replaces another.

func TestLock(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "a", "b")
	first, unlocked, err := Lock(folder)
	if err != nil || unlocked != nil {
		t.Fatalf("a folder that is not there yet: got %v, %v", unlocked, err)
	}
	if _, _, err := Lock(folder); !errors.Is(err, ErrLocked) {
		t.Errorf("a locked folder: got %v, want %v", err, ErrLocked)
	}
	first.Close()
	again, _, err := Lock(folder)
	if err != nil {
		t.Fatalf("a folder whose lock has ended: got %v", err)
	}
	again.Close()
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Lock(filepath.Join(file, "c")); err == nil {
		t.Error("a folder below a file: got no error")
	}
}
