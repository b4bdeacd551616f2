package atomicfile

import (
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"rdpp/rdpp/testmain"
)

func writing(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// TestNew: WriteNew and Rename replace nothing, also what came while they were at work, and leave nothing of their own.
func TestNew(t *testing.T) {
	for _, named := range []bool{false, true} {
		namedAlone = named
		t.Cleanup(func() { namedAlone = false })
		folder := t.TempDir()
		path, other := filepath.Join(folder, "a.png"), filepath.Join(folder, "b.png")
		for _, c := range []struct {
			comes string // meanwhile
			want  error
		}{{"another", os.ErrExist}, {"", nil}} {
			os.Remove(path)
			err := WriteNew(path, func(f *os.File) error {
				if c.comes != "" {
					if err := os.WriteFile(path, []byte(c.comes), 0o666); err != nil {
						return err
					}
				}
				return writing("this")(f)
			})
			if !errors.Is(err, c.want) {
				t.Errorf("%q comes: got error %v, want %v", c.comes, err, c.want)
			}
			testmain.WantContent(t, path, cmp.Or(c.comes, "this"))
			testmain.WantFiles(t, folder, "a.png")
		}
		if err := os.WriteFile(other, []byte("other"), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := Rename(path, other); !errors.Is(err, os.ErrExist) {
			t.Errorf("renaming over a file: got %v, want %v", err, os.ErrExist)
		}
		testmain.WantContent(t, other, "other")
		if err := Rename(path, path+".moved"); err != nil {
			t.Error(err)
		}
		testmain.WantFiles(t, folder, "a.png.moved", "b.png")
	}
}

// TestRenameByLink: of many at once one gets the name, and folders are moved too.
func TestRenameByLink(t *testing.T) {
	for range 20 {
		folder := t.TempDir()
		to := filepath.Join(folder, "to")
		errs := make([]error, 8)
		var group sync.WaitGroup
		for i := range errs {
			from := filepath.Join(folder, strconv.Itoa(i))
			if err := os.WriteFile(from, []byte(from), 0o666); err != nil {
				t.Fatal(err)
			}
			group.Go(func() { errs[i] = renameByLink(from, to) })
		}
		group.Wait()
		for i, err := range errs {
			from := filepath.Join(folder, strconv.Itoa(i))
			_, missing := os.Lstat(from)
			switch content, _ := os.ReadFile(to); {
			case err == nil && (string(content) != from || missing == nil):
				t.Errorf("got %q of %s, which is still there: %v", content, from, missing == nil)
			case err != nil && (!errors.Is(err, os.ErrExist) || string(content) == from || missing != nil):
				t.Errorf("%s was refused: got %v, %q, %v", from, err, content, missing)
			}
		}
	}
	folder := t.TempDir()
	from, to := filepath.Join(folder, "from"), filepath.Join(folder, "to")
	for _, want := range []error{nil, os.ErrExist} {
		if err := os.Mkdir(from, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := renameByLink(from, to); !errors.Is(err, want) {
			t.Errorf("a folder: got %v, want %v", err, want)
		}
	}
}

func TestWrite(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "metrics.json")
	for _, content := range []string{"first", "", strings.Repeat("second", 1<<16)} {
		if err := Write(path, writing(content)); err != nil {
			t.Fatal(err)
		}
		testmain.WantContent(t, path, content)
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
		testmain.WantContent(t, path, "third")
		return failing
	})
	if !errors.Is(err, failing) || !strings.HasPrefix(err.Error(), "atomicfile: ") || !strings.Contains(err.Error(), path) {
		t.Errorf("got error %v, want one from atomicfile that wraps %v and names %s", err, failing, path)
	}
	testmain.WantContent(t, path, "third")
	testmain.WantFiles(t, folder, "metrics.json")

	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic of write was swallowed")
			}
		}()
		Write(path, func(io.Writer) error { panic("in write") })
	}()
	testmain.WantContent(t, path, "third")
	testmain.WantFiles(t, folder, "metrics.json")

	if err := Write(folder, writing("x")); err == nil {
		t.Error("writing over a folder: got no error")
	}
	if err := Write(filepath.Join(folder, "missing", "x"), writing("x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("writing into a missing folder: got %v, want %v", err, os.ErrNotExist)
	}
	testmain.WantFiles(t, folder, "metrics.json")
	testmain.WantFiles(t, filepath.Dir(folder), filepath.Base(folder))
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
