package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rdpp/rdpp/bucket"
	"rdpp/rdpp/bulk"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/queue"
)

// made is a batch of so many small files, whose contents are their names.
func made(t testing.TB, n, perPiece int) *bulk.Batch {
	t.Helper()
	dir := t.TempDir()
	var list strings.Builder
	for i := range n {
		name := fmt.Sprintf("%05d.png", i)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o666); err != nil {
			t.Fatal(err)
		}
		list.WriteString(name + "\n")
	}
	if err := os.WriteFile(filepath.Join(dir, "list"), []byte(list.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return opened(t, filepath.Join(dir, "list"), perPiece)
}

func opened(t testing.TB, list string, perPiece int) *bulk.Batch {
	t.Helper()
	source, err := bulk.Find(list)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bulk.Make(context.Background(), filepath.Join(filepath.Dir(list), "out"), source, bulk.Work{Model: strings.Repeat("ab", 32)},
		&bulk.Options{PerPiece: perPiece})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// told is what a result says where what is looked at is the content alone.
type told struct {
	Image   string  `json:"image"`
	Score   float64 `json:"score"`
	Content string  `json:"content,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// look judges images by their contents.
func look(_ context.Context, name string, data []byte, failed error) func() Outcome {
	return func() Outcome {
		if failed != nil {
			return Outcome{Result: map[string]string{"image": name, "error": failed.Error()}}
		}
		return Outcome{Result: told{Image: name, Score: float64(len(data)), Content: string(data)}}
	}
}

// results are the lines of a piece.
func results(t *testing.T, b *bulk.Batch, piece int) (all []told) {
	t.Helper()
	text, err := os.ReadFile(b.Result(piece))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var r told
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// TestPiece: results stand in the list's order, broken images among them; a piece that is done is not done again.
func TestPiece(t *testing.T) {
	b := made(t, 200, 100)
	missing, folder := filepath.Join(b.Root, "00003.png"), filepath.Join(b.Root, "00005.png")
	os.Remove(missing)
	os.Remove(folder)
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	called := atomic.Int32{}
	run := NewRunner(b, Options{InFlight: 7, Readers: 5, Ahead: 30, Judge: func(ctx context.Context, name string, data []byte, failed error) func() Outcome {
		called.Add(1)
		return look(ctx, name, data, failed)
	}})
	seen := 0
	for range 2 {
		if err := run.Piece(t.Context(), 0, func(Outcome) { seen++ }); err != nil {
			t.Fatal(err)
		}
	}
	got := results(t, b, 0)
	if len(got) != 100 || called.Load() != 100 || seen != 100 {
		t.Fatalf("got %d lines, %d calls, told %d, want 100 each", len(got), called.Load(), seen)
	}
	for i, r := range got {
		name := fmt.Sprintf("%05d.png", i)
		switch {
		case r.Image != name:
			t.Errorf("line %d: got %q, want %q", i, r.Image, name)
		case i == 3 && r.Error != "stat 00003.png: no such file or directory", i == 5 && r.Error != "00005.png: not a regular file but a folder":
			t.Errorf("got the error %q, want one without the folder, which is another elsewhere", r.Error)
		case i != 3 && i != 5 && (r.Content != name || r.Error != ""):
			t.Errorf("line %d: got %+v, want its content", i, r)
		}
	}
}

// TestFault: a fault of the machine leaves no results, and is not taken for one of an image.
func TestFault(t *testing.T) {
	b := made(t, 50, 50)
	broken := errors.New("the GPU has fallen off the bus")
	run := NewRunner(b, Options{InFlight: 4, Judge: func(ctx context.Context, name string, data []byte, failed error) func() Outcome {
		if name == "00030.png" {
			return func() Outcome { return Outcome{Fault: broken} }
		}
		return look(ctx, name, data, failed)
	}})
	if err := run.Piece(t.Context(), 0, nil); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run.Piece(ctx, 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want %v", err, context.Canceled)
	}
	if done, err := b.Done(0); done || err != nil {
		t.Errorf("got results, %v, want none", err)
	}
}

func TestBlamed(t *testing.T) {
	full, empty := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "other"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	of := func(number syscall.Errno) error { return &os.PathError{Op: "open", Path: "a", Err: number} }
	for _, c := range []struct {
		path string
		err  error
		want blame
	}{
		{full + "/a", of(syscall.ENOENT), ofImage}, {empty + "/a", of(syscall.ENOENT), ofMachine}, {full + "/none/a", of(syscall.ENOENT), ofEither},
		{full + "/a", of(syscall.EACCES), ofEither}, {full + "/a", of(syscall.EPERM), ofEither}, {full + "/a", of(syscall.ENAMETOOLONG), ofImage},
		{full + "/a", of(syscall.EIO), ofMachine}, {full + "/a", of(syscall.ESTALE), ofMachine}, {full + "/a", of(syscall.EMFILE), ofMachine},
		{full + "/a", of(syscall.EINVAL), ofMachine}, {full + "/a", tooLarge{2, 1}, ofImage}, {full + "/a", context.Canceled, ofMachine},
		{"s3://b/a", syscall.EPERM, ofMachine}, {"s3://b/a", syscall.ENOENT, ofMachine}, {"s3://b/a", syscall.ECONNREFUSED, ofMachine}, // of the network
		{"s3://b/a", fmt.Errorf("a: %w", bucket.ErrNotFound), ofImage}, {"s3://b/a", fmt.Errorf("a: %w", bucket.ErrDenied), ofEither},
		{"s3://b/a", fmt.Errorf("a: %w", bucket.ErrArchived), ofEither}, {"s3://b/a", fmt.Errorf("a: %w", bucket.ErrKey), ofMachine},
		{"s3://b/a", tooLarge{2, 1}, ofImage}, {"s3://b/a", errors.New("Service Unavailable"), ofMachine},
	} {
		if got := blamed(c.path, c.err); got != c.want {
			t.Errorf("%s, %v: got %v, want %v", c.path, c.err, got, c.want)
		}
	}
}

// TestNotMounted: where the images' folder is empty or missing, as on a machine without the share, a piece has no results.
func TestNotMounted(t *testing.T) {
	for _, what := range []string{"empty", "missing"} {
		dir := t.TempDir()
		share := filepath.Join(dir, "share")
		if err := os.WriteFile(filepath.Join(dir, "list"), []byte(share+"/a.png\n"+share+"/b.png\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		if what == "empty" {
			if err := os.Mkdir(share, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		b := opened(t, filepath.Join(dir, "list"), 2)
		run := NewRunner(b, Options{Judge: look})
		run.images.first = time.Millisecond
		if err := run.Piece(t.Context(), 0, nil); !errors.Is(err, queue.ErrAway) || !strings.Contains(err.Error(), "/a.png") && !strings.Contains(err.Error(), "/b.png") {
			t.Errorf("%s: got %v, want %v with an image", what, err, queue.ErrAway)
		}
		if done, err := b.Done(0); done || err != nil {
			t.Errorf("%s: got results, %v, want none", what, err)
		}
		if err := os.MkdirAll(share, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(share, "b.png"), nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := run.Piece(t.Context(), 0, nil); err != nil {
			t.Errorf("%s, mounted: got %v", what, err)
		} else if got := results(t, b, 0); got[0].Error == "" || got[1].Error != "" {
			t.Errorf("%s, mounted: got %+v, want one image that is missing", what, got)
		}
	}
}

// TestTooLarge: what no image can be as large as is not read.
func TestTooLarge(t *testing.T) {
	b := made(t, 1, 1)
	if err := os.Truncate(filepath.Join(b.Root, "00000.png"), 1<<30); err != nil {
		t.Fatal(err)
	}
	run := NewRunner(b, Options{Judge: look, Images: imagefile.Options{MaxPixels: 100}})
	if err := run.Piece(t.Context(), 0, nil); err != nil {
		t.Fatal(err)
	}
	if got := results(t, b, 0)[0].Error; !strings.Contains(got, "of 1073741824 bytes") {
		t.Errorf("got the error %q, want one about its size", got)
	}
}

// TestBacklog: what is held stays within the limit and one image more, and all images come.
func TestBacklog(t *testing.T) {
	b := newBacklog(100)
	sizes := []int64{60, 30, 50, 200, 1, 99, 100, 5}
	var order []int
	var mu sync.Mutex
	most := int64(0)
	var group sync.WaitGroup
	taken := make([]chan bool, len(sizes))
	for i := range sizes {
		taken[i] = make(chan bool)
		group.Go(func() {
			if err := b.take(t.Context(), i, sizes[i]); err != nil {
				t.Error(err)
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			close(taken[i])
		})
	}
	for i := range sizes {
		b.want(i)
		<-taken[i]
		b.mu.Lock()
		most = max(most, b.held)
		b.mu.Unlock()
		b.give(sizes[i])
	}
	group.Wait()
	if most > 100+slices.Max(sizes) || len(order) != len(sizes) || b.held != 0 {
		t.Errorf("got up to %d bytes, %d images, %d bytes left, want at most 300, all, none", most, len(order), b.held)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b.want(0)
	if err := b.take(ctx, 0, 101); err != nil { // that is wanted next never waits
		t.Error(err)
	}
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := b.take(ctx, 1, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("full: got %v, want %v", err, context.Canceled)
	}
}

func TestPace(t *testing.T) {
	p := &Pace{of: 1000, first: 100, began: time.Now().Add(-10 * time.Second)}
	got := p.At(200)
	if got.Rate < 9 || got.Rate > 10 || got.Left < 80*time.Second || got.Left > 90*time.Second {
		t.Errorf("got %+v, want 10 images/s and 80 s left", got)
	}
	if text := (Progress{Images: 200, Of: 1000, Rate: 10, Left: 80 * time.Second, Busy: 3}).String(); text != "200 of 1000 images, 3 pieces in work, 10.0 images/s, about 1m20s left" {
		t.Errorf("got %q", text)
	}
	if text := p.At(100).String(); text != "100 of 1000 images" {
		t.Errorf("nothing done: got %q", text)
	}
}
