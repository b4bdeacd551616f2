package watch

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"image"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/history"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/testmain"
)

func TestMain(m *testing.M) {
	testmain.Be(map[string]func([]string) error{"watch": func(args []string) error {
		return watchLine(context.Background(), args[0], func(o *Options) { dieAt(o, args[1]) })
	}, "fading": func(args []string) error {
		return watchFading(args[0], args[1], nil)
	}})
	os.Exit(testmain.Run(m, nil))
}

// dieAt makes the process kill itself at the second image: as it is judged, before it is recorded, or when all but its end is done.
func dieAt(o *Options, stage string) {
	count := 0
	die := func(at string) {
		if at != stage {
			return
		}
		if count++; count == 2 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	judge, record := o.Judge, o.Record
	o.Judge = func(ctx context.Context, path string) func() Outcome {
		die("judging")
		return judge(ctx, path)
	}
	o.Record = func(image string, p *anomaly.Prediction, failed error) history.Record {
		die("recording")
		return record(image, p, failed)
	}
	o.Tell = func(*history.Record) error {
		die("telling")
		return nil
	}
}

// watchLine watches dir/in, with a judge that finds images anomalous whose content has an x in it, and takes those for broken that
// begin with an exclamation mark.
func watchLine(ctx context.Context, dir string, change func(*Options)) error {
	_, err := runLine(ctx, dir, change)
	return err
}

// runLine is watchLine with its totals.
func runLine(ctx context.Context, dir string, change func(*Options)) (totals Totals, err error) {
	h, err := history.Open(filepath.Join(dir, "line.db"), nil)
	if err != nil {
		return totals, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	opt := Options{Dir: filepath.Join(dir, "in"), History: h, Table: filepath.Join(dir, "line.csv"), MoveGood: filepath.Join(dir, "good"),
		MoveBad: filepath.Join(dir, "bad"), MoveBroken: filepath.Join(dir, "broken"), InFlight: 3, Poll: 20 * time.Millisecond, Settle: 40 * time.Millisecond,
		Patience: time.Millisecond,
		Judge: func(_ context.Context, path string) func() Outcome {
			data, err := os.ReadFile(path)
			sum, _ := digest(path)
			return func() Outcome {
				if err == nil && bytes.HasPrefix(data, []byte("!")) {
					err = fmt.Errorf("%s: no picture", path)
				}
				if err != nil {
					return Outcome{SHA256: sum, Err: err}
				}
				return Outcome{SHA256: sum, Prediction: &anomaly.Prediction{Image: path, Verdict: anomaly.Verdict{Anomalous: bytes.Contains(data, []byte("x"))}}}
			}
		},
		Record: func(image string, p *anomaly.Prediction, failed error) history.Record {
			if p == nil {
				return history.Record{Image: image, Verdict: history.Broken, Error: failed.Error()}
			}
			return history.Of(p)
		}}
	change(&opt)
	return Run(ctx, opt)
}

func once(o *Options) { o.Once = true }

// state is everything that a line has, in words.
func state(t *testing.T, dir string) (records, rows, files []string) {
	t.Helper()
	h, err := history.Open(filepath.Join(dir, "line.db"), &history.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for r, err := range h.List(t.Context(), history.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		to, _ := filepath.Rel(dir, r.Moved)
		records = append(records, fmt.Sprint(filepath.Base(r.Image), " ", r.Verdict, " ", to))
	}
	text, err := os.ReadFile(filepath.Join(dir, "line.csv"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(table) == 0 || !slices.Equal(table[0], history.TableHeader) {
		t.Fatalf("got table %q, %v", text, err)
	}
	for _, row := range table[1:] {
		to, _ := filepath.Rel(dir, row[12])
		rows = append(rows, fmt.Sprint(filepath.Base(row[2]), " ", row[3], " ", to))
	}
	for _, name := range []string{"in", "good", "bad", "broken"} {
		entries, err := os.ReadDir(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			t.Fatal(err)
		}
		for _, e := range entries {
			files = append(files, name+"/"+e.Name())
		}
	}
	for _, list := range [][]string{records, rows, files} {
		slices.Sort(list)
	}
	return records, rows, files
}

// newLine makes a folder with in/, and in that files of the given contents.
func newLine(t *testing.T, contents map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "in"), 0o777); err != nil {
		t.Fatal(err)
	}
	for name, content := range contents {
		put(t, filepath.Join(dir, "in", name), content)
	}
	return dir
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := atomicfile.Write(path, func(w io.Writer) error { _, err := io.WriteString(w, content); return err }); err != nil {
		t.Fatal(err)
	}
}

var (
	fourImages = map[string]string{"a.png": "1", "b.png": "x2", "c.png": "3", "d.png": "!"}
	fourMoved  = []string{"a.png good good/a.png", "b.png anomalous bad/b.png", "c.png good good/c.png", "d.png broken broken/d.png"}
	fourFiles  = []string{"bad/b.png", "broken/d.png", "good/a.png", "good/c.png"}
)

// TestDeath: a process that dies between any two of its stages leaves what the next one completes: each image is recorded once, in
// the table once, and where it belongs.
func TestDeath(t *testing.T) {
	for _, stage := range []string{"judging", "recording", "telling"} {
		dir := newLine(t, fourImages)
		cmd, stderr := testmain.Start(t, "watch", nil, dir, stage)
		if code := testmain.ExitCode(t, cmd); code != -1 {
			t.Fatalf("%s: got code %d, %s, want it killed", stage, code, stderr)
		}
		if err := watchLine(t.Context(), dir, once); err != nil {
			t.Fatal(err)
		}
		records, rows, files := state(t, dir)
		if !slices.Equal(records, fourMoved) || !slices.Equal(rows, fourMoved) || !slices.Equal(files, fourFiles) {
			t.Errorf("%s: got records %q, rows %q, files %q, want %q and %q", stage, records, rows, files, fourMoved, fourFiles)
		}
	}
}

// TestPending: what is recorded and not done is done without being judged, whatever of it was done before. An image that is still
// there goes where images of its verdict go by then.
func TestPending(t *testing.T) {
	moved := func(dir string) { os.Rename(filepath.Join(dir, "in", "a.png"), filepath.Join(dir, "good", "a.png")) }
	for _, c := range []struct {
		name    string
		change  func(dir string) // what happened before and after the death
		to      string           // where good images go now; "": they stay
		records string
		files   []string
	}{
		{"nothing was done", func(string) {}, "good", "a.png good good/a.png", []string{"good/a.png"}},
		{"it was moved", moved, "good", "a.png good good/a.png", []string{"good/a.png"}},
		{"its place was taken", func(dir string) { put(t, filepath.Join(dir, "good", "a.png"), "other") }, "good", "a.png good good/a_2.png",
			[]string{"good/a.png", "good/a_2.png"}},
		{"somebody took it", func(dir string) { os.Remove(filepath.Join(dir, "in", "a.png")) }, "good", "a.png good ", nil},
		{"another folder", func(string) {}, "bad", "a.png good bad/a.png", []string{"bad/a.png"}},
		{"no folder", func(string) {}, "", "a.png good ", []string{"in/a.png"}},
		{"the old one is gone", func(dir string) {
			os.Remove(filepath.Join(dir, "good"))
			put(t, filepath.Join(dir, "good"), "a file")
		}, "bad", "a.png good bad/a.png", []string{"bad/a.png"}},
		{"another folder, and it was moved", moved, "bad", "a.png good good/a.png", []string{"good/a.png"}},
		{"another folder, and its copy is there", func(dir string) { put(t, filepath.Join(dir, "good", "a.png"), "1") }, "bad",
			"a.png good good/a_2.png", []string{"good/a.png", "good/a_2.png"}}, // on another file system it would be the copy
	} {
		dir := newLine(t, map[string]string{"a.png": "1"})
		path := filepath.Join(dir, "in", "a.png")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := digest(path)
		if err != nil {
			t.Fatal(err)
		}
		h, err := history.Open(filepath.Join(dir, "line.db"), nil)
		if err != nil {
			t.Fatal(err)
		}
		r := history.Record{Image: path, Verdict: history.Good, Moved: filepath.Join(dir, "good", "a.png"), Time: time.Now()}
		a := history.Arrival{Path: "a.png", Size: info.Size(), Time: info.ModTime(), SHA256: sum}
		if err := errors.Join(h.Journal(filepath.Join(dir, "in")).Judged(t.Context(), &a, &r), h.Close(), os.Mkdir(filepath.Join(dir, "good"), 0o777)); err != nil {
			t.Fatal(err)
		}
		c.change(dir)
		err = watchLine(t.Context(), dir, func(o *Options) {
			o.Once = true
			if o.MoveGood = ""; c.to != "" {
				o.MoveGood = filepath.Join(dir, c.to)
			}
			o.Record = func(image string, _ *anomaly.Prediction, _ error) history.Record {
				t.Errorf("%s: %s is judged again", c.name, image)
				return history.Record{Image: image}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		records, rows, files := state(t, dir)
		if !slices.Equal(records, []string{c.records}) || !slices.Equal(rows, records) || !slices.Equal(files, c.files) {
			t.Errorf("%s: got records %q, rows %q, files %q, want %q and %q", c.name, records, rows, files, c.records, c.files)
		}
	}
}

// TestDiscard: images that are wanted are removed once they are recorded, and no others, which a watch of other files has judged: these
// are remembered, whether it died before they were done or not.
func TestDiscard(t *testing.T) {
	dir := newLine(t, map[string]string{"done.png": "1", "pending.png": "2", "frame.png": "3"})
	staying := func(o *Options) { o.Once, o.MoveGood, o.MoveBad, o.MoveBroken = true, "", "", "" }
	cut := errors.New("told no more")
	err := watchLine(t.Context(), dir, func(o *Options) {
		staying(o)
		o.Wanted = func(name string) bool { return name == "done.png" || name == "pending.png" }
		o.Tell = func(r *history.Record) error {
			if filepath.Base(r.Image) == "pending.png" {
				return cut
			}
			return nil
		}
	})
	if !errors.Is(err, cut) {
		t.Fatalf("got %v, want %v", err, cut)
	}
	for range 2 {
		err := watchLine(t.Context(), dir, func(o *Options) {
			staying(o)
			o.Wanted, o.Discard = func(name string) bool { return name == "frame.png" || name == "later.png" }, true
		})
		if err != nil {
			t.Fatal(err)
		}
		testmain.WantFiles(t, filepath.Join(dir, "in"), "done.png", "pending.png")
		put(t, filepath.Join(dir, "in", "later.png"), "4")
	}
	if err := watchLine(t.Context(), dir, staying); err != nil {
		t.Fatal(err)
	}
	want := []string{"done.png good ", "frame.png good ", "later.png good ", "later.png good ", "pending.png good "}
	if records, _, _ := state(t, dir); !slices.Equal(records, want) {
		t.Errorf("got %q, want each file judged once: %q", records, want)
	}
}

// TestTable: a table goes on where it was, without the row that a crash left half, also where another file takes its place.
func TestTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "line.csv")
	row := func(id int64) *history.Record {
		return &history.Record{ID: id, Image: fmt.Sprint(id), Verdict: history.Good}
	}
	open := func() *table {
		t.Helper()
		made, err := openTable(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(made.close)
		return made
	}
	ids := func(path string) (ids string) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			id, _, _ := strings.Cut(line, ",")
			ids += " " + id
		}
		return ids
	}
	first := open()
	for id := range int64(3) {
		if err := first.add(row(id+1), false); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text[:len(text)-5], 0o666); err != nil { // the last row is half
		t.Fatal(err)
	}
	second := open()
	for _, id := range []int64{2, 3, 3} {
		if err := second.add(row(id), true); err != nil {
			t.Fatal(err)
		}
	}
	if got := ids(path); got != " id 1 2 3" {
		t.Errorf("after a crash: got %q, want 1, 2 and 3", got)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := second.add(row(4), false); err != nil || ids(path) != " id 4" || ids(path+".1") != " id 1 2 3" {
		t.Errorf("another file: got %v, %q", err, ids(path))
	}
	for name, content := range map[string]string{"text": "some notes\n", "rows of another": strings.Join(history.TableHeader, ",") + "\nx,y\n"} {
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := openTable(path); err == nil || !strings.Contains(err.Error(), "choose another file") {
			t.Errorf("%s: got %v", name, err)
		}
		testmain.WantContent(t, path, content)
	}
}

// A fault of the model ends the watch, and the image is judged the next time.
func TestFault(t *testing.T) {
	dir := newLine(t, map[string]string{"a.png": "1"})
	fault := errors.New("the device is gone")
	err := watchLine(t.Context(), dir, func(o *Options) {
		o.Judge = func(context.Context, string) func() Outcome {
			return func() Outcome { return Outcome{Err: fault, Fault: true} }
		}
	})
	if !errors.Is(err, fault) {
		t.Errorf("got %v, want %v", err, fault)
	}
	if err := watchLine(t.Context(), dir, once); err != nil {
		t.Fatal(err)
	}
	if records, _, files := state(t, dir); !slices.Equal(records, []string{"a.png good good/a.png"}) || !slices.Equal(files, []string{"good/a.png"}) {
		t.Errorf("got %q, %q", records, files)
	}
}

// A camera that writes another image under a name while the first is judged: neither is lost.
func TestOverwritten(t *testing.T) {
	dir := newLine(t, map[string]string{"a.png": "1"})
	err := watchLine(t.Context(), dir, func(o *Options) {
		record, overwritten := o.Record, false
		o.Once = true
		o.Record = func(image string, p *anomaly.Prediction, failed error) history.Record {
			if !overwritten {
				put(t, filepath.Join(dir, "in", "a.png"), "2x")
				overwritten = true
			}
			return record(image, p, failed)
		}
	})
	if err == nil {
		err = watchLine(t.Context(), dir, once)
	}
	if err != nil {
		t.Fatal(err)
	}
	records, rows, files := state(t, dir)
	want := []string{"a.png anomalous bad/a.png", "a.png good "}
	if !slices.Equal(records, want) || !slices.Equal(rows, want) || !slices.Equal(files, []string{"bad/a.png"}) {
		t.Errorf("got records %q, rows %q, files %q, want %q and the second image", records, rows, files, want)
	}
}

// TestCarry: an image is carried to another file system, whole and with its time and mode; a copy that a dead process has left is its own.
func TestCarry(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from.png"), filepath.Join(dir, "to.png")
	for _, c := range []struct {
		there   string
		refused bool // unread, so that no digest is known
	}{{"", false}, {"content", false}, {"other", false}, {"", true}, {"content", true}, {"other", true}} {
		there := c.there
		put(t, from, "content")
		os.Remove(to)
		if there != "" {
			put(t, to, there)
		}
		if err := os.Chmod(from, 0o640); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := digest(from)
		if err != nil {
			t.Fatal(err)
		}
		if c.refused {
			sum = ""
		}
		err = carry(from, to, &history.Arrival{Size: info.Size(), Time: info.ModTime(), SHA256: sum})
		if there == "other" {
			if !errors.Is(err, os.ErrExist) {
				t.Errorf("another file is there: got %v, want %v", err, os.ErrExist)
			}
			testmain.WantContent(t, from, "content")
			continue
		}
		if _, gone := os.Stat(from); err != nil || !errors.Is(gone, os.ErrNotExist) {
			t.Errorf("%q there: got %v, and the source %v", there, err, gone)
		}
		testmain.WantContent(t, to, "content")
		if after, err := os.Stat(to); there == "" && (err != nil || !after.ModTime().Equal(info.ModTime()) || after.Mode() != info.Mode()) {
			t.Errorf("got %v, %v, want time and mode of %v", after, err, info)
		}
	}
}

// Heat maps are not judged, and images are not moved or drawn into the folder that they come from.
func TestHeatmaps(t *testing.T) {
	dir := newLine(t, map[string]string{"a.png": "1"})
	err := atomicfile.Write(filepath.Join(dir, "in", "b.png"), func(w io.Writer) error {
		return imagefile.EncodeHeatmap(w, image.NewGray(image.Rect(0, 0, 1, 1)))
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := watchLine(t.Context(), dir, func(o *Options) {
			judge := o.Judge
			o.Once = true
			o.Judge = func(ctx context.Context, path string) func() Outcome {
				if filepath.Base(path) != "a.png" {
					t.Errorf("%s is judged", path)
				}
				return judge(ctx, path)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if records, _, files := state(t, dir); !slices.Equal(records, []string{"a.png good good/a.png"}) || !slices.Equal(files, []string{"good/a.png", "in/b.png"}) {
		t.Errorf("got %q, %q", records, files)
	}
	// A camera's frame is one, whatever it looks like, or it would stay.
	if err := watchLine(t.Context(), dir, func(o *Options) { o.Once, o.Discard = true, true }); err != nil {
		t.Fatal(err)
	}
	if _, _, files := state(t, dir); slices.Contains(files, "in/b.png") {
		t.Errorf("got %q, want that the frame has gone", files)
	}
}

func TestCheck(t *testing.T) {
	dir := newLine(t, map[string]string{"a.png": "1"})
	in, link := filepath.Join(dir, "in"), filepath.Join(dir, "link")
	if err := os.Symlink("in", link); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{in, link, filepath.Join(dir, "good", "..", "in") + "/"} {
		for field, put := range map[string]func(*Options){
			"heatmap":     func(o *Options) { o.Heatmap = to },
			"move_good":   func(o *Options) { o.MoveGood = to },
			"move_bad":    func(o *Options) { o.MoveBad = to },
			"move_broken": func(o *Options) { o.MoveBroken = to },
		} {
			err := watchLine(t.Context(), dir, func(o *Options) {
				o.Once = true
				put(o)
			})
			wrong := new(setting.Error)
			if !errors.As(err, &wrong) || wrong.Field != field {
				t.Errorf("%s %s: got %v, want it refused", field, to, err)
			}
			testmain.WantFiles(t, in, "a.png")
		}
	}
}

// recorded waits until there are so many records.
func recorded(t *testing.T, dir string, n int) {
	t.Helper()
	testmain.Wait(t, fmt.Sprintf("%d records", n), func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "line.csv"))
		return err == nil && bytes.Count(text, []byte("\n")) > n
	})
}

// TestBack: an image that is removed and put back is another image, once.
func TestBack(t *testing.T) {
	stay := func(o *Options) { o.MoveGood, o.Tidy = "", time.Millisecond }
	dir := newLine(t, map[string]string{"a.png": "1"})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- watchLine(ctx, dir, stay) }()
	image := filepath.Join(dir, "in", "a.png")
	for n := 1; n < 3; n++ {
		recorded(t, dir, n)
		if err := os.Remove(image); err != nil {
			t.Fatal(err)
		}
		put(t, image+".part", "1")
		at := time.Now().Add(time.Duration(n) * time.Hour)
		if err := errors.Join(os.Chtimes(image+".part", at, at), os.Rename(image+".part", image)); err != nil {
			t.Fatal(err)
		}
	}
	recorded(t, dir, 3)
	put(t, filepath.Join(dir, "in", "b.png"), "2") // by when the journal has forgotten
	recorded(t, dir, 4)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := watchLine(t.Context(), dir, func(o *Options) { stay(o); once(o) }); err != nil {
		t.Fatal(err)
	}
	if records, _, _ := state(t, dir); !slices.Equal(records, []string{"a.png good ", "a.png good ", "a.png good ", "b.png good "}) {
		t.Errorf("got %q, want a.png three times and b.png once", records)
	}
}

// TestUnreadable: a call ends although a file cannot be read, names it, and leaves it to the next one.
func TestUnreadable(t *testing.T) {
	dir := newLine(t, map[string]string{"a.png": "1", "b.png": "2"})
	var said []error
	totals, err := runLine(t.Context(), dir, func(o *Options) {
		judge := o.Judge
		o.Once, o.Complain = true, func(err error) { said = append(said, err) }
		o.Judge = func(ctx context.Context, path string) func() Outcome {
			if filepath.Base(path) == "a.png" {
				return func() Outcome { return Outcome{Err: &os.PathError{Op: "open", Path: path, Err: syscall.EACCES}} }
			}
			return judge(ctx, path)
		}
	})
	if err != nil || totals.Images != 2 || totals.Broken != 1 {
		t.Errorf("got %+v, %v, want 2 images, 1 broken", totals, err)
	}
	if len(said) == 0 || !errors.Is(said[len(said)-1], syscall.EACCES) || !strings.Contains(said[len(said)-1].Error(), "the next call") {
		t.Errorf("got %v, want the file's error", said)
	}
	if records, _, _ := state(t, dir); !slices.Equal(records, []string{"b.png good good/b.png"}) {
		t.Errorf("got %q, want that of b.png alone", records)
	}
	if err := watchLine(t.Context(), dir, once); err != nil {
		t.Fatal(err)
	}
	if records, _, files := state(t, dir); len(records) != 2 || !slices.Equal(files, []string{"good/a.png", "good/b.png"}) {
		t.Errorf("readable again: got %q, %q", records, files)
	}
}

// TestNames: an image is told of as the folder was named, and recorded so that it is found from elsewhere.
func TestNames(t *testing.T) {
	dir := newLine(t, map[string]string{"a.png": "1"})
	t.Chdir(dir)
	var told []string
	err := watchLine(t.Context(), dir, func(o *Options) {
		o.Dir, o.Once, o.MoveGood = "in", true, ""
		o.Tell = func(r *history.Record) error { told = append(told, r.Image); return nil }
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{filepath.Join("in", "a.png")}; !slices.Equal(told, want) {
		t.Errorf("got told %q, want %q", told, want)
	}
	h, err := history.Open(filepath.Join(dir, "line.db"), &history.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for r, err := range h.List(t.Context(), history.Filter{}) {
		if want := filepath.Join(dir, "in", "a.png"); err != nil || r.Image != want {
			t.Errorf("got record of %q, %v, want %q", r.Image, err, want)
		}
	}
	if text, err := os.ReadFile("line.csv"); err != nil || !strings.Contains(string(text), filepath.Join(dir, "in", "a.png")) {
		t.Errorf("got table %q, %v, want the full name", text, err)
	}
}

// TestLink: a link is judged once, by what it leads to, and stays; one that takes an image's place is not moved for it.
func TestLink(t *testing.T) {
	dir := newLine(t, map[string]string{"a.png": "1", "elsewhere": "3"})
	in := filepath.Join(dir, "in")
	if err := os.Symlink("elsewhere", filepath.Join(in, "b.png")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := watchLine(t.Context(), dir, func(o *Options) {
			record := o.Record
			o.Once = true
			o.Record = func(image string, p *anomaly.Prediction, failed error) history.Record {
				if filepath.Base(image) == "a.png" {
					if err := errors.Join(os.Remove(image), os.Symlink("elsewhere", image)); err != nil {
						t.Error(err)
					}
				}
				return record(image, p, failed)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	records, _, files := state(t, dir)
	want := []string{"a.png good ", "a.png good ", "b.png good "} // the image, and the link in its place
	if wantFiles := []string{"in/a.png", "in/b.png", "in/elsewhere"}; !slices.Equal(records, want) || !slices.Equal(files, wantFiles) {
		t.Errorf("got records %q, files %q, want %q and %q", records, files, want, wantFiles)
	}
	at, from := filepath.Join(dir, "at.png"), filepath.Join(in, "c.png")
	if err := os.Symlink("elsewhere", at); err != nil { // that was moved, and leads nowhere from here
		t.Fatal(err)
	}
	if err := new(watch).putBack(at, from, &history.Arrival{Size: 1}); err != nil {
		t.Fatal(err)
	}
	testmain.WantContent(t, from, "3")
	if err := new(watch).putBack(at, from, &history.Arrival{Size: 1}); err != nil {
		t.Errorf("somebody took it: got %v", err)
	}
}

// TestVacant: a name that is taken gets the next number, within what a name may be long.
func TestVacant(t *testing.T) {
	long, cut := strings.Repeat("é", 125)+"n.png", strings.Repeat("é", 124)
	for _, c := range []struct {
		there      []string
		name, want string
	}{
		{nil, "a.png", "a.png"}, {[]string{"a.png"}, "a.png", "a_2.png"}, {[]string{"a.png", "a_2.png"}, "a.png", "a_3.png"},
		{[]string{"a.png", "a_2.png", "a_3.png", "a_4.png", "a_5.png"}, "a.png", "a_6.png"}, {[]string{"a_2.png"}, "a.png", "a.png"},
		{[]string{long}, long, cut + "_2.png"}, {[]string{long, cut + "_2.png"}, long, cut + "_3.png"},
	} {
		dir := t.TempDir()
		for _, name := range c.there {
			put(t, filepath.Join(dir, name), "")
		}
		if got, err := vacant(filepath.Join(dir, c.name)); err != nil || got != filepath.Join(dir, c.want) {
			t.Errorf("%q, %q there: got %q, %v, want %q", c.name, c.there, got, err, c.want)
		}
	}
	if _, err := vacant(filepath.Join(t.TempDir(), strings.Repeat("n", 256))); err == nil {
		t.Error("got no error of a name that is too long")
	}
}

// Heat maps go when their records do, also where another process removes those while nobody watches.
func TestSweep(t *testing.T) {
	dir := newLine(t, map[string]string{"a.png": "a"})
	if err := watchLine(t.Context(), dir, once); err != nil {
		t.Fatal(err)
	}
	drawn := filepath.Join(dir, "old_heatmap.png")
	put(t, drawn, "a heat map")
	source, err := Source(filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := history.Open(filepath.Join(dir, "line.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := history.Record{Time: time.Unix(1, 0), Source: source, Heatmap: drawn, Verdict: history.Good}
	if err := errors.Join(h.Add(t.Context(), &r), h.SetRetention(t.Context(), history.Retention{Age: 24 * time.Hour}), h.Close()); err != nil {
		t.Fatal(err)
	}
	if err := watchLine(t.Context(), dir, once); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(drawn); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want the heat map of a removed record to be gone", err)
	}
}
