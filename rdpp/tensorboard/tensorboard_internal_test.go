package tensorboard

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The bytes are those that TensorBoard's own messages and check sums make (testdata/records.py).
func TestRecords(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "records.bin"))
	if err != nil {
		t.Fatal(err)
	}
	first, second := time.Unix(1, 500_000_000), time.Unix(2, 250_000_000)
	got := head(first, 300)
	got = append(got, scalars(second, 300, []Scalar{{"loss/total", 0.125}, {"Bild/ä", -3.5}})...)
	got = append(got, scalars(second, 0, []Scalar{{"loss/total", 0}})...)
	if !bytes.Equal(got, want) {
		t.Errorf("got %x\nwant %x", got, want)
	}
}

// A file begins with its head, points are appended at once, and other files of the folder stay unless the training begins.
func TestWriter(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "new", "part [1]")
	list := func() (names []string) {
		entries, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	begin := func(first int64) *Writer {
		w, err := Create(folder, first)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	w := begin(0)
	before := list()
	if err := w.Add(1, Scalar{"loss", 2}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(folder, before[0])) // before it is closed
	if want := len(head(time.Now(), 0)) + len(scalars(time.Now(), 1, []Scalar{{"loss", 2}})); err != nil || len(text) != want {
		t.Errorf("got %d bytes, %v, want %d", len(text), err, want)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Add(2, Scalar{"loss", 1}); err == nil {
		t.Error("got no error of a closed file")
	}
	if err := os.WriteFile(filepath.Join(folder, "model"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	begin(7).Close()
	if after := list(); len(after) != 3 || after[0] != before[0] || after[1] <= before[0] {
		t.Errorf("going on: got %q, want %q, a file after it, and the model", after, before)
	}
	const other = "events.out.tfevents.1.host.2.0" // of another program
	if err := os.WriteFile(filepath.Join(folder, other), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	begin(0).Close()
	if anew := list(); len(anew) != 3 || anew[0] != other || anew[2] != "model" {
		t.Errorf("anew: got %q, want one event file beside another program's and the model", anew)
	}
	if _, err := Create(filepath.Join(folder, "model"), 0); err == nil {
		t.Error("got no error of a file in the folder's place")
	}
}
