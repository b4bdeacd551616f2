package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/history"
	"rdpp/rdpp/testmain"
)

// copyImage puts a copy of an image at a path, whole at once.
func copyImage(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		if err = os.MkdirAll(filepath.Dir(to), 0o777); err == nil {
			err = os.WriteFile(to+".part", data, 0o666)
		}
	}
	if err == nil {
		err = os.Rename(to+".part", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// line is a folder to watch, with what a watch of it needs beside it.
type line struct{ in, good, bad, broken, history, table, heatmaps string }

func newLine(t *testing.T) line {
	t.Helper()
	dir := t.TempDir()
	l := line{filepath.Join(dir, "in"), filepath.Join(dir, "good"), filepath.Join(dir, "bad"), filepath.Join(dir, "broken"),
		filepath.Join(dir, "line.db"), filepath.Join(dir, "line.csv"), filepath.Join(dir, "heatmaps")}
	if err := os.Mkdir(l.in, 0o777); err != nil {
		t.Fatal(err)
	}
	return l
}

// command is the command line of a watch.
func (l *line) command(args ...string) []string {
	return append(commandLine("watch", l.in, "--history", l.history, "--csv", l.table, "--settle", "50ms"), args...)
}

// moving are the flags that move images away.
func (l *line) moving() []string { return []string{"--move-good", l.good, "--move-bad", l.bad} }

// records is what the history has, as "verdict name", in its order.
func (l *line) records(t *testing.T) (list []string) {
	t.Helper()
	h, err := history.Open(l.history, &history.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for r, err := range h.List(t.Context(), history.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(r.Verdict)+" "+filepath.Base(r.Image))
	}
	return list
}

// rows are the table's, likewise.
func (l *line) rows(t *testing.T) (list []string) {
	t.Helper()
	text, err := os.ReadFile(l.table)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(rows) == 0 || !slices.Equal(rows[0], history.TableHeader) {
		t.Fatalf("got %q, %v, want a table", text, err)
	}
	for _, row := range rows[1:] {
		list = append(list, row[3]+" "+filepath.Base(row[2]))
	}
	return list
}

// names are those of the files in a folder.
func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// TestWatchOnce: a call judges what is there, tells, records and moves it, sets what is no image aside and names it; the next one
// has nothing to do.
func TestWatchOnce(t *testing.T) {
	good, anomalous := testImages()
	l := newLine(t)
	copyImage(t, good[0], filepath.Join(l.in, "a.png"))
	copyImage(t, anomalous[0], filepath.Join(l.in, "b.png"))
	copyImage(t, good[1], filepath.Join(l.in, "below", "c.png"))
	if err := os.WriteFile(filepath.Join(l.in, "d.png"), []byte("no picture"), 0o666); err != nil {
		t.Fatal(err)
	}
	args := l.command(append(l.moving(), "--once", "--recursive", "--heatmap", l.heatmaps)...)
	code, stdout, stderr := infer(nil, args...)
	if code != command.Failed || strings.Count(stdout, "\n") != 3 || !strings.Contains(stderr, "d.png") {
		t.Errorf("got code %d, stdout %q, stderr %q, want code 1, 3 lines, and the broken file's name", code, stdout, stderr)
	}
	for _, path := range []string{filepath.Join(l.in, "a.png"), filepath.Join(l.in, "b.png"), filepath.Join(l.in, "below", "c.png")} {
		if !strings.Contains(stdout, path) {
			t.Errorf("got %q, want a line about %s", stdout, path)
		}
	}
	testmain.WantFiles(t, l.in, "below")
	testmain.WantFiles(t, l.good, "a.png", "below")
	testmain.WantFiles(t, filepath.Join(l.good, "below"), "c.png")
	testmain.WantFiles(t, l.bad, "b.png")
	testmain.WantFiles(t, l.broken, "d.png")
	want := []string{"anomalous b.png", "broken d.png", "good a.png", "good c.png"}
	for what, got := range map[string][]string{"records": l.records(t), "rows": l.rows(t)} {
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	if got := names(t, l.heatmaps); len(got) != 3 || !strings.HasPrefix(got[0], "a_") || !strings.HasSuffix(got[0], "_heatmap.png") {
		t.Errorf("got heat maps %q, want one of each image", got)
	}
	if code, stdout, _ := infer(nil, args...); code != command.Done || stdout != "" {
		t.Errorf("again: got code %d, stdout %q, want nothing to do", code, stdout)
	}
	copyImage(t, anomalous[1], filepath.Join(l.in, "b.png")) // a name that was there before
	if code, stdout, stderr := infer(nil, args...); code != command.Anomalous || !strings.HasPrefix(stdout, "ANOMALOUS") {
		t.Errorf("another b.png: got code %d, stdout %q, stderr %q, want code 3", code, stdout, stderr)
	}
	testmain.WantFiles(t, l.bad, "b.png", "b_2.png")
}

// TestWatchStays: images that stay are judged once, also by the next process, and again only when their content is another.
func TestWatchStays(t *testing.T) {
	good, anomalous := testImages()
	l := newLine(t)
	image := filepath.Join(l.in, "a.png")
	for _, c := range []struct {
		what string
		do   func()
		want int // records by then
	}{
		{"it comes", func() { copyImage(t, good[0], image) }, 1},
		{"nothing happens", func() {}, 1},
		{"its time changes", func() { copyImage(t, good[0], image) }, 1},
		{"its content changes", func() { copyImage(t, anomalous[0], image) }, 2},
		{"another one comes", func() { copyImage(t, good[0], filepath.Join(l.in, "b.png")) }, 3},
		{"the folder is empty, as a share that is not mounted", func() { os.Rename(l.in, l.in+".away"); os.Mkdir(l.in, 0o777) }, 3},
		{"and is there again", func() { os.Remove(l.in); os.Rename(l.in+".away", l.in) }, 3},
	} {
		c.do()
		if _, _, stderr := infer(nil, l.command("--once")...); strings.Count(stderr, "\n") != 3 { // of the threshold, the folder and what drift is told from
			t.Errorf("%s: got stderr %q", c.what, stderr)
		}
		if got := l.records(t); len(got) != c.want {
			t.Errorf("%s: got records %q, want %d", c.what, got, c.want)
		}
	}
}

// ending is a context that ends while an image is judged: who asks it hears so.
type ending struct{ context.Context }

func (ending) Err() error { return context.Canceled }

// TestWatchHeatmap: an outcome names the heat map that was drawn, by the image's name and content, and none that was not, which is
// an error.
func TestWatchHeatmap(t *testing.T) {
	good, _ := testImages()
	d, err := rdpp.OpenDetector(modelFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	batcher := d.Batcher(0)
	defer batcher.Close()
	const room = 1 << 30
	j := &judge{ignore: &ignored{}, batcher: batcher, images: d.ImageOptions(), room: newRoom(room)}
	for _, c := range []struct {
		ctx  context.Context
		want error
	}{{t.Context(), nil}, {ending{context.Background()}, context.Canceled}} {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.png")
		copyImage(t, good[0], path)
		o := j.watched(dir)(t.Context(), path)()
		if o.Err != nil || o.Heatmap == "" {
			t.Fatalf("got %+v", o)
		}
		if want := filepath.Join(dir, "a_"+o.SHA256[:16]+"_heatmap.png"); o.Heatmap != want {
			t.Errorf("got %q, want %q", o.Heatmap, want)
		}
		os.Remove(o.Heatmap)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		v := j.one(c.ctx, source{path: path, heatmap: o.Heatmap}, data, nil)
		_, drawn := os.Stat(o.Heatmap)
		if v.prediction == nil || !errors.Is(v.err, c.want) || (v.err == nil) != (drawn == nil) {
			t.Errorf("got error %v, want %v, and the heat map %v", v.err, c.want, drawn)
		}
	}
}

// TestWatchJSON: an object leads to an image's file and to where it went, whatever bytes their names are.
func TestWatchJSON(t *testing.T) {
	good, _ := testImages()
	l := newLine(t)
	const name = "a\xff.png"
	copyImage(t, good[0], filepath.Join(l.in, name))
	code, stdout, stderr := infer(nil, l.command(append(l.moving(), "--once", "--json")...)...)
	var got struct {
		Image []byte `json:"image_base64"`
		Moved []byte `json:"moved_base64"`
	}
	if err := json.Unmarshal([]byte(stdout), &got); code != command.Done || err != nil {
		t.Fatalf("got code %d, %v, stdout %q, stderr %q", code, err, stdout, stderr)
	}
	if want := filepath.Join(l.in, name); string(got.Image) != want {
		t.Errorf("got image %q, want %q", got.Image, want)
	}
	if want := filepath.Join(l.good, name); string(got.Moved) != want {
		t.Errorf("got moved %q, want %q", got.Moved, want)
	}
}

// TestWatchHistory: where nobody names a history it is in the first folder for it that the environment names.
func TestWatchHistory(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct{ systemd, xdg, want string }{
		{at("a"), at("x"), "a"}, {at("a") + ":" + at("b"), at("x"), "a"}, {"", at("x"), "x/rdpp"}, {"", "", ".local/state/rdpp"},
	} {
		for name, value := range map[string]string{"STATE_DIRECTORY": c.systemd, "XDG_STATE_HOME": c.xdg, "HOME": dir} {
			t.Setenv(name, value)
		}
		got, err := historyOf(at("in"))
		if err != nil || filepath.Dir(got) != at(c.want) || !strings.HasPrefix(filepath.Base(got), "watch-in-") {
			t.Errorf("%q, %q: got %q, %v, want a file in %s", c.systemd, c.xdg, got, err, at(c.want))
		}
		if _, err := os.Stat(filepath.Dir(got)); err != nil {
			t.Error(err)
		}
	}
}

// TestWatchKilled kills a watch again and again while images arrive: each is recorded once, is in the table once, and is where it
// belongs.
func TestWatchKilled(t *testing.T) {
	good, anomalous := testImages()
	pictures := slices.Concat(good, anomalous)
	l := newLine(t)
	const kills, each = 2, 5
	var want []string
	n := 0
	for kill := range kills + 1 {
		cmd, stderr := testmain.Start(t, asProgram, nil, l.command(l.moving()...)...)
		for range each {
			name := fmt.Sprintf("%03d.png", n)
			from := pictures[n%len(pictures)]
			verdict := "good "
			if slices.Contains(anomalous, from) {
				verdict = "anomalous "
			}
			want = append(want, verdict+name)
			copyImage(t, from, filepath.Join(l.in, name))
			n++
		}
		// Some are done, others are under way, a different number each time.
		least := kill * each
		if kill == kills {
			least = n
		}
		testmain.Wait(t, "images judged", func() bool {
			moved := 0
			for _, dir := range []string{l.good, l.bad} {
				if entries, err := os.ReadDir(dir); err == nil {
					moved += len(entries)
				}
			}
			return moved >= min(least+kill%each, n)
		})
		if err := testmain.Kill(cmd); err != nil {
			t.Fatalf("%v: %s", err, stderr)
		}
	}
	if _, _, stderr := infer(nil, l.command(append(l.moving(), "--once")...)...); strings.Contains(stderr, "error") {
		t.Error(stderr)
	}
	slices.Sort(want)
	for what, got := range map[string][]string{"records": l.records(t), "rows": l.rows(t)} {
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	if got := len(names(t, l.good)) + len(names(t, l.bad)); got != n {
		t.Errorf("got %d images moved, want %d", got, n)
	}
	testmain.WantFiles(t, l.in)
}

// TestWatchEnds: a signal ends a watch with what it has begun, and code 0.
func TestWatchEnds(t *testing.T) {
	good, _ := testImages()
	l := newLine(t)
	cmd, _ := testmain.Start(t, asProgram, nil, l.command(l.moving()...)...)
	copyImage(t, good[0], filepath.Join(l.in, "a.png"))
	testmain.Wait(t, "verdict", func() bool { _, err := os.Stat(filepath.Join(l.good, "a.png")); return err == nil })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := testmain.ExitCode(t, cmd); code != command.Done {
		t.Errorf("got code %d, want 0", code)
	}
	if got := l.records(t); !slices.Equal(got, []string{"good a.png"}) {
		t.Errorf("got records %q, want that of a.png", got)
	}
}

// Two processes do not watch a folder.
func TestWatchAlone(t *testing.T) {
	l := newLine(t)
	testmain.Start(t, asProgram, nil, l.command()...)
	testmain.Wait(t, "table", func() bool { _, err := os.Stat(l.table); return err == nil })
	code, _, other := infer(nil, l.command("--once")...)
	if code != command.Failed || !strings.Contains(other, "another process") {
		t.Errorf("got code %d, stderr %q, want code 1", code, other)
	}
}

// A folder that is not there is told of before anything is made or said to be watched.
func TestWatchNoFolder(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "in")
	code, _, stderr := infer(nil, commandLine("watch", "--history", filepath.Join(dir, "line.db"), missing)...)
	if code != command.Failed || !oneLine(stderr, missing+": no such file or directory; make the folder") {
		t.Errorf("got code %d, stderr %q, want code 1 and a line about the folder", code, stderr)
	}
	testmain.WantFiles(t, dir)
}

func TestHistoryCommand(t *testing.T) {
	good, anomalous := testImages()
	file := filepath.Join(t.TempDir(), "line.db")
	table := filepath.Join(t.TempDir(), "table.csv")
	args := append([]string{"--history", file, "--csv", table, "--quiet", "/nothing/here.png"}, append(slices.Clone(good), anomalous[0])...)
	code, stdout, _ := infer(nil, commandLine("image", args...)...)
	if code != command.Failed || stdout != "" {
		t.Errorf("image: got code %d, stdout %q, want code 1 and nothing", code, stdout)
	}
	n := len(good) + 2
	for _, c := range []struct {
		args string
		want int // lines
		word string
	}{
		{"", n, "anomalous"}, {"--verdict good", len(good), "good"}, {"--verdict broken", 1, "/nothing/here.png"}, {"--last 1", 1, anomalous[0]},
		{"--until 2020-01-01", 0, ""}, {"--since 2020-01-01", n, ""}, {"--json --verdict anomalous", 1, `"sha256":"`},
		{"--csv - --image " + filepath.Base(filepath.Dir(good[0])) + "/" + filepath.Base(good[0]), 2, good[0]},
		{"--correct 2=anomalous --correct " + anomalous[0] + "=good --note seen", 0, ""},
		{"--corrected any", 2, "good"}, {"--corrected good", 1, anomalous[0]}, {"--correct 2=none", 0, ""}, {"--corrected any", 1, anomalous[0]},
		{"--keep-days 30 --keep-mib 100", 0, ""}, {"", n, ""},
	} {
		code, stdout, stderr := infer(nil, append([]string{"history", file}, strings.Fields(c.args)...)...)
		if code != command.Done || strings.Count(stdout, "\n") != c.want || !strings.Contains(stdout, c.word) {
			t.Errorf("%s: got code %d, stdout %q, stderr %q, want %d lines and %q", c.args, code, stdout, stderr, c.want, c.word)
		}
	}
	h, err := history.Open(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if r, err := h.Retention(context.Background()); err != nil || r.Bytes != 100<<20 || r.Age.Hours() != 30*24 {
		t.Errorf("got %v, %v, want 30 days and 100 MiB", r, err)
	}
	for r, err := range h.List(t.Context(), history.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if want, found := scores[r.Image]; found && (r.Score != want || r.Threshold != threshold || len(r.SHA256) != 64 || len(r.ModelSHA256) != 64) {
			t.Errorf("got %+v, want the score %v", r, want)
		}
	}
	rows, err := os.ReadFile(table)
	if err != nil || bytes.Count(rows, []byte("\n")) != n+1 {
		t.Errorf("got %q, %v, want a header and %d rows", rows, err, n)
	}
}
