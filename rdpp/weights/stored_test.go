package weights

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// strided is a checkpoint of one transposed tensor.
func strided(t *testing.T) []byte { return zipOf(t, saved(view(4, 0, ints(2, 2), ints(1, 2)))) }

// changes are what other processes do to a file in place, with the error that reading it then gives.
var changes = []struct {
	name   string
	change func(path string, content []byte) error
}{
	{"emptied", func(path string, _ []byte) error { return os.Truncate(path, 0) }},
	{"shortened by a byte", func(path string, content []byte) error { return os.Truncate(path, int64(len(content)-1)) }},
	{"longer", func(path string, content []byte) error { return os.WriteFile(path, append(bytes.Clone(content), 0), 0) }},
	{"written over", func(path string, content []byte) error { return os.WriteFile(path, flippedAtEnd(content), 0) }},
	{"emptied and written again", func(path string, content []byte) error {
		return errors.Join(os.Truncate(path, 0), os.WriteFile(path, content, 0))
	}},
}

func flippedAtEnd(content []byte) []byte {
	content = bytes.Clone(content)
	content[len(content)-1] ^= 1
	return content
}

// age gives a file a time of modification that no change in the test can have.
func age(t *testing.T, path string) {
	t.Helper()
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
}

// A file that is changed in place while it is open gives errors that name it, in every format and way of reading.
func TestChangedInPlace(t *testing.T) {
	legacy, err := os.ReadFile("testdata/legacy.pth")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"zip": strided(t), "legacy": legacy, "safetensors": written(t, nil, someSources),
		"with a digest": digested(t)} {
		for _, c := range changes {
			path := temporary(t, content)
			age(t, path)
			f := openTest(t, path)
			if err := c.change(path, content); err != nil {
				t.Fatal(err)
			}
			for _, stored := range f.Tensors {
				if _, err := stored.Read(); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), path) {
					t.Errorf("%s %s: %s: got %v, want %v that names %s", name, c.name, stored.Name, err, ErrChanged, path)
				}
			}
			if _, err := f.SHA256(); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s %s: its SHA-256: got %v, want %v that names %s", name, c.name, err, ErrChanged, path)
			}
			if err := f.Verify(); f.Digest() != "" && !errors.Is(err, ErrChanged) {
				t.Errorf("%s %s: verified: got %v, want %v", name, c.name, err, ErrChanged)
			}
		}
	}
}

// A verified file cannot be torn, even by who gives it its old size and time again.
func TestChangedUnseen(t *testing.T) {
	content := digested(t)
	path := temporary(t, content)
	age(t, path)
	looked, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f := openTest(t, path)
	if err := f.Verify(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, flippedAtEnd(content), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, looked.ModTime(), looked.ModTime()); err != nil {
		t.Fatal(err)
	}
	first, _ := f.Lookup("a")
	if got := mustRead(t, first).Data; !bytes.Equal(got, []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}) {
		t.Errorf("a: got %v, which nobody has changed", got)
	}
	last, _ := f.Lookup("b.running_var")
	if got, err := last.Read(); !errors.Is(err, ErrChanged) {
		t.Errorf("b.running_var: got %v and %v, want %v", got, err, ErrChanged)
	}
	if err := f.Verify(); !errors.Is(err, ErrDigest) {
		t.Errorf("verified again: got %v, want %v", err, ErrDigest)
	}
}

// What takes the place of an open file's name is another file.
func TestReplacedWhileOpen(t *testing.T) {
	content := digested(t)
	for name, replace := range map[string]func(path string) error{
		"removed":  os.Remove,
		"replaced": func(path string) error { return WriteFile(path, nil, []Source{source("other", F32, 1)}) },
	} {
		path := temporary(t, content)
		f := openTest(t, path)
		if err := replace(path); err != nil {
			t.Fatal(err)
		}
		if err := f.Verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var again bytes.Buffer
		var sources []Source
		for _, s := range f.Tensors {
			sources = append(sources, Source{s.Name, s.DType, s.Shape, s.Bytes})
		}
		if err := Write(&again, f.Metadata, sources); err != nil || !bytes.Equal(again.Bytes(), content) {
			t.Errorf("%s: got %d bytes and %v, want the old %d", name, again.Len(), err, len(content))
		}
	}
}

// A closed file, and a tensor of none, give errors.
func TestReadClosed(t *testing.T) {
	f, err := Open("testdata/legacy.pth")
	if err != nil {
		t.Fatal(err)
	}
	stored := f.Tensors[0]
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := stored.Read(); !errors.Is(err, os.ErrClosed) || !strings.Contains(err.Error(), "testdata/legacy.pth") {
		t.Errorf("got %v, want %v that names the file", err, os.ErrClosed)
	}
	if _, err := (Stored{}).Read(); err == nil || !strings.HasPrefix(err.Error(), "weights: ") {
		t.Errorf("a tensor of no file: got %v, want an error", err)
	}
}

// Names of classes and texts may lie across the windows that a pickle is read in.
func TestPickleAcrossWindows(t *testing.T) {
	want := openTest(t, temporary(t, zipOf(t, saved(view(4, 0, ints(4), ints(1))))))
	for _, filler := range []int{windowSize - 60, windowSize - 40, windowSize - 20, windowSize, 3 * windowSize} {
		pickle := saved(view(4, 0, ints(4), ints(1)))
		long := strings.Repeat("a", filler)
		padded := strings.Replace(pickle, "\x80\x02", "\x80\x02"+text(long)+text(long), 1) // values that the stack keeps below
		for name, content := range map[string][]byte{"zip": zipOf(t, padded), "legacy": legacyOf(padded, littleEndian, 4)} {
			f := openTest(t, temporary(t, content))
			if got := mustRead(t, f.Tensors[0]).Data; !bytes.Equal(got, mustRead(t, want.Tensors[0]).Data) {
				t.Errorf("%s, %d: got %v", name, filler, got)
			}
		}
	}
}

// Views that lie far apart in their storage are counted by what reading them takes.
func TestWideViews(t *testing.T) {
	const n = 1 << 18
	views := func(count int) string {
		pickle := "\x80\x02}("
		for i := range count {
			pickle += text(fmt.Sprint("w", i)) + view(n, 0, ints(2), ints(n-1))
		}
		return temporary(t, zipped(t, entry{"x/data.pkl", zip.Store, []byte(pickle + "u.")}, entry{"x/data/0", zip.Store, make([]byte, 4*n)}))
	}
	few := openTest(t, views(3))
	if got := mustRead(t, few.Tensors[2]).Float32(); len(got) != 2 {
		t.Errorf("got %v, want two numbers", got)
	}
	wantError(t, views(20), "more than 16 times its size")
}
