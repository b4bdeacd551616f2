package inbox

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// never is a time between looks after which no test is still at work: what is told before, the kernel has told.
const never = time.Hour

// put writes a file; its folder is made.
func put(t *testing.T, path, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o777)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// next is the path of the next file that is told; "" where there is none within a while.
func next(t *testing.T, b *Inbox, within time.Duration) File {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), within)
	defer stop()
	f, err := b.Next(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	return f
}

const (
	long  = 30 * time.Second       // for what has to come
	short = 300 * time.Millisecond // for what must not
)

func opened(t *testing.T, dir string, opt *Options) *Inbox {
	t.Helper()
	b, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// TestKernel: files are told when they are closed or renamed into place, not before, and not by looking through the folder.
func TestKernel(t *testing.T) {
	dir := t.TempDir()
	b := opened(t, dir, &Options{Poll: never, Settle: never, Recursive: true, Wanted: func(name string) bool { return strings.HasSuffix(name, ".png") }})
	if b.news == nil {
		t.Skip("the kernel tells nothing here")
	}
	if f := next(t, b, short); f.Path != "" {
		t.Fatalf("empty: got %v", f)
	}
	file, err := os.Create(filepath.Join(dir, "a.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("half"); err != nil {
		t.Fatal(err)
	}
	if f := next(t, b, short); f.Path != "" {
		t.Errorf("not closed: got %v", f)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if f := next(t, b, long); f.Path != "a.png" || f.Size != 4 {
		t.Errorf("closed: got %v, want a.png of 4 bytes", f)
	} else {
		b.Done(f)
	}
	put(t, filepath.Join(dir, "b.part"), "whole")
	put(t, filepath.Join(dir, ".c.png"), "hidden")
	if f := next(t, b, short); f.Path != "" {
		t.Errorf("not wanted: got %v", f)
	}
	if err := os.Rename(filepath.Join(dir, "b.part"), filepath.Join(dir, "b.png")); err != nil {
		t.Fatal(err)
	}
	f := next(t, b, long)
	if f.Path != "b.png" {
		t.Errorf("renamed: got %v, want b.png", f)
	}
	b.Done(f)
	put(t, filepath.Join(dir, "b.png"), "another")
	if f = next(t, b, long); f.Path != "b.png" || f.Size != 7 {
		t.Errorf("written anew: got %v, want b.png of 7 bytes", f)
	}
	b.Left(f)
	if err := os.Remove(filepath.Join(dir, "b.png")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "a.png")); err != nil {
		t.Fatal(err)
	}
	if f := next(t, b, short); f.Path != "" {
		t.Errorf("removed: got %v", f)
	}
	if gone := b.Gone(); !slices.Equal(gone, []string{"a.png"}) {
		t.Errorf("got gone %q, want a.png", gone)
	}
}

// TestBacklog: what was there at the beginning is told in the order of time, and before what arrives meanwhile; also where the folder
// is looked through late, as on a slow share.
func TestBacklog(t *testing.T) {
	for _, late := range []time.Duration{0, 2 * short} {
		dir := t.TempDir()
		want := []string{"c", "a", "b", "later"}
		for i, name := range want[:3] {
			put(t, filepath.Join(dir, name), name)
			at := time.Unix(int64(1000+i), 0)
			if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
				t.Fatal(err)
			}
		}
		b := opened(t, dir, &Options{Settle: 2 * short})
		if f := next(t, b, short); f.Path != "" {
			t.Errorf("at the beginning: got %v", f)
		}
		b.earliest = time.Now().Add(2 * late)
		b.hurry(b.next)
		time.Sleep(late)
		put(t, filepath.Join(dir, "later"), "later")
		for _, path := range want {
			f := next(t, b, long)
			if f.Path != path {
				t.Errorf("late by %v: got %v, want %s", late, f, path)
			}
			b.Done(f)
		}
	}
}

// TestFolders: a folder that comes is looked into, what comes later into it is told by the kernel, and one that is excluded or
// hidden is left alone.
func TestFolders(t *testing.T) {
	for _, recursive := range []bool{true, false} {
		dir := t.TempDir()
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(filepath.Join(dir, "linked"), link); err != nil {
			t.Fatal(err)
		}
		b := opened(t, dir, &Options{Poll: never, Settle: time.Millisecond, Recursive: recursive, Exclude: []string{filepath.Join(dir, "out"), link}})
		next(t, b, short)
		for _, name := range []string{"new/deep/a", "out/b", "linked/b", ".git/c", "d"} {
			put(t, filepath.Join(dir, name), name)
		}
		want := []string{"d"}
		if recursive {
			want = []string{"d", "new/deep/a", "new/e"}
		}
		var got []string
		for wait := long; ; {
			f := next(t, b, wait)
			if f.Path == "" {
				break
			}
			b.Done(f)
			if got = append(got, f.Path); len(got) == 2 && recursive {
				put(t, filepath.Join(dir, "new", "e"), "later")
			}
			if len(got) == len(want) {
				wait = short
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("recursive %v: got %q, want %q", recursive, got, want)
		}
	}
}

// TestLooking: where the kernel tells nothing, as on shares, a file is whole when it stays the same; one that grows is not told.
func TestLooking(t *testing.T) {
	synctest.Test(t, testLooking) // so that the writer keeps its pace on a busy machine
}

func testLooking(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "old"), "1")
	put(t, filepath.Join(dir, "known"), "2")
	info, err := os.Stat(filepath.Join(dir, "known"))
	if err != nil {
		t.Fatal(err)
	}
	var troubles []error
	b := opened(t, dir, &Options{Poll: 20 * time.Millisecond, Settle: 200 * time.Millisecond, Retry: 20 * time.Millisecond,
		Known: []File{{Path: "known", Size: info.Size(), Time: info.ModTime()}, {Path: "was", Size: 3}}, Log: func(err error) { troubles = append(troubles, err) }})
	b.Close() // the kernel is not waited for
	b.news = nil
	f := next(t, b, long)
	if f.Path != "old" {
		t.Fatalf("got %v, want old", f)
	}
	if gone := b.Gone(); !slices.Equal(gone, []string{"was"}) {
		t.Errorf("got gone %q, want was", gone)
	}
	b.Again(f)
	if f = next(t, b, long); f.Path != "old" {
		t.Fatalf("again: got %v, want old", f)
	}
	b.Done(f)
	// It grows every few looks, and for longer than it takes to settle.
	stop, ended := make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		for text := "x"; ; text += "x" {
			os.WriteFile(filepath.Join(dir, "slow"), []byte(text), 0o666)
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	if f := next(t, b, 2*short); f.Path != "" {
		t.Errorf("growing: got %v", f)
	}
	close(stop)
	<-ended
	if f = next(t, b, long); f.Path != "slow" {
		t.Errorf("at rest: got %v, want slow", f)
	}
	b.Done(f)
	// A share that is not mounted: nothing is forgotten, and told anew when it is back.
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if f := next(t, b, short); f.Path != "" {
		t.Errorf("away: got %v", f)
	}
	if len(troubles) != 1 || !errors.Is(troubles[0], os.ErrNotExist) {
		t.Errorf("got %v, want one error about the folder", troubles)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	if f := next(t, b, short); f.Path != "" || len(b.Gone()) != 0 {
		t.Errorf("back: got %v, want nothing new and nothing gone", f)
	}
	if len(troubles) != 2 || troubles[1] != nil {
		t.Errorf("got %v, want the end of the trouble", troubles)
	}
}

// TestOnce: what is there is told, the oldest first, and then it ends.
func TestOnce(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"c", "a", "b"} {
		put(t, filepath.Join(dir, name), name)
		at := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		known []string
		want  []string
	}{{nil, []string{"c", "a", "b"}}, {[]string{"a", "b", "c"}, nil}, {[]string{"a"}, []string{"c", "b"}}} {
		opt := &Options{Once: true, Settle: 20 * time.Millisecond, Poll: 20 * time.Millisecond, Retry: time.Millisecond}
		for _, name := range c.known {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			opt.Known = append(opt.Known, File{Path: name, Size: info.Size(), Time: info.ModTime()})
		}
		b := opened(t, dir, opt)
		var got []string
		for again := true; ; {
			f, err := b.Next(t.Context())
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if f.Path == "b" && again { // one that has to be told twice
				again = false
				b.Again(f)
				continue
			}
			got = append(got, f.Path)
			b.Done(f)
		}
		if !slices.Equal(got, c.want) || len(b.Growing()) != 0 {
			t.Errorf("%q known: got %q, %q growing, want %q", c.known, got, b.Growing(), c.want)
		}
	}
	if _, err := Open(filepath.Join(dir, "a"), nil); err == nil || !strings.HasPrefix(err.Error(), "inbox: ") {
		t.Errorf("a file: got %v", err)
	}
	if _, err := Open(filepath.Join(dir, "missing"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
}

// TestBack: a file that comes after another of its name has gone is new, and one that is changed in its place is not; what is there
// again has not gone.
func TestBack(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(b *Inbox, path string, info os.FileInfo)
		isNew  bool
	}{
		{"changed", func(b *Inbox, path string, info os.FileInfo) { b.see("a", later{info}, true, false) }, false},
		{"gone and back", func(b *Inbox, path string, info os.FileInfo) {
			os.Rename(path, path+".away")
			b.hear(event{dir: filepath.Dir(path), name: "a", gone: true})
			os.Rename(path+".away", path)
			b.hear(event{dir: filepath.Dir(path), name: "a", whole: true})
		}, true},
		{"back before that it has gone is heard", func(b *Inbox, path string, info os.FileInfo) {
			os.Chtimes(path, time.Time{}, later{info}.ModTime())
			b.hear(event{dir: filepath.Dir(path), name: "a", gone: true})
			b.hear(event{dir: filepath.Dir(path), name: "a", whole: true})
		}, true},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "a")
		put(t, path, "1")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		b := opened(t, dir, &Options{Poll: never, Settle: never, Known: []File{{Path: "a", Size: info.Size(), Time: info.ModTime()}}})
		b.Close()
		b.news = nil
		b.lookThrough()
		c.change(b, path, info)
		f := next(t, b, long)
		if f.Path != "a" || f.New != c.isNew {
			t.Errorf("%s: got %+v, want a, new %v", c.what, f, c.isNew)
		}
		if gone := b.Gone(); len(gone) != 0 {
			t.Errorf("%s: got gone %q, want none", c.what, gone)
		}
		b.Done(f)
	}
}

// later is a file that has changed since.
type later struct{ os.FileInfo }

func (l later) ModTime() time.Time { return l.FileInfo.ModTime().Add(time.Hour) }

// FuzzParse: whatever bytes are events, parsing them ends and names nothing outside its folders.
func FuzzParse(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00a.png\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := &notifier{dirs: map[int32]string{1: "/in"}}
		for _, e := range n.parse(data) {
			if !e.lost && (e.dir != "/in" || e.name == "" || strings.ContainsRune(e.name, 0)) {
				t.Errorf("got %+v", e)
			}
		}
	})
}
