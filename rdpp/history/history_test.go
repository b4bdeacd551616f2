package history

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rdpp/rdpp/metric"
	"rdpp/rdpp/testmain"
)

func TestMain(m *testing.M) {
	testmain.Be(map[string]func([]string) error{"writer": writer})
	os.Exit(testmain.Run(m, nil))
}

// writer adds records to a history until it is killed, and says how many it knows to be written.
func writer(args []string) error {
	h, err := Open(args[0], nil)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		r := example(fmt.Sprint(args[1], "-", i))
		if err := h.Add(context.Background(), &r); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, r.Image)
	}
}

func example(image string) Record {
	p, brightness, sharpness := 0.25, 0.5, 0.125
	return Record{Time: time.UnixMicro(1_700_000_000_123_456), Source: "test", Image: image, SHA256: "ab", Model: "screw", ModelSHA256: "cd", Verdict: Anomalous,
		Score: 1.0 / 3, Threshold: 0.1, PixelThreshold: 0.2, Exact: true, PValue: &p, PValueBound: true, Width: 10, Height: 20, Regions: []metric.Region{{X: 1, Y: 2, Width: 3, Height: 4, Area: 5, Peak: 0.5}},
		Warnings: []string{"dark"}, Heatmap: "/h.png", Moved: "/bad/" + image, Brightness: &brightness, Sharpness: &sharpness}
}

// opened is a new history in a folder of its own.
func opened(t *testing.T, opt *Options) (*DB, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a b?%.db")
	h, err := Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h, path
}

// list is what a filter finds.
func list(t *testing.T, h *DB, f Filter) (all []*Record) {
	t.Helper()
	for r, err := range h.List(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// TestRoundTrip: what is written is read, by another process's handle too, names of any bytes included.
func TestRoundTrip(t *testing.T) {
	h, path := opened(t, nil)
	full, broken := example("name\xff\n"), Record{Time: time.UnixMicro(5), Verdict: Broken, Error: "no picture"}
	if err := h.Add(t.Context(), &full, &broken); err != nil || full.ID != 1 || broken.ID != 2 {
		t.Fatalf("got %v, IDs %d and %d, want 1 and 2", err, full.ID, broken.ID)
	}
	if err := h.Correct(t.Context(), 1, Good, "a reflection"); err != nil {
		t.Fatal(err)
	}
	reader, err := Open(path, &Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	got := list(t, reader, Filter{})
	if len(got) != 2 || time.Since(got[0].Corrected) > time.Minute || got[0].Correction != Good || got[0].Note != "a reflection" {
		t.Fatalf("got %+v, want 2 records, the first corrected", got)
	}
	got[0].Correction, got[0].Note, got[0].Corrected = "", "", time.Time{}
	if !reflect.DeepEqual(*got[0], full) || !reflect.DeepEqual(*got[1], broken) {
		t.Errorf("got %+v and %+v, want %+v and %+v", got[0], got[1], full, broken)
	}
	p := got[0].Prediction()
	if again := Of(&p); again.Score != full.Score || again.Verdict != Anomalous || !again.Exact || again.PixelThreshold != 0.2 {
		t.Errorf("got %+v of its prediction", again)
	}
	if err := reader.Correct(t.Context(), 1, Good, ""); err == nil {
		t.Error("a reader corrects: got no error")
	}
}

func TestFilter(t *testing.T) {
	h, _ := opened(t, nil)
	for i, verdict := range []Verdict{Good, Good, Anomalous, Broken, Good} {
		r := Record{Time: time.UnixMicro(int64(i) * 1000), Image: fmt.Sprintf("in/%d.png", i), Verdict: verdict, Source: fmt.Sprint("s", i%2), Model: "screw"}
		if i == 2 {
			r.Moved = "/bad/x.png"
		}
		if err := h.Add(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(h.Correct(t.Context(), 1, Anomalous, ""), h.Correct(t.Context(), 3, Good, "")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f    Filter
		want []int64
	}{
		{Filter{}, []int64{1, 2, 3, 4, 5}}, {Filter{Verdict: Good}, []int64{1, 2, 5}}, {Filter{Verdict: Good, Last: 2}, []int64{2, 5}},
		{Filter{ID: 4}, []int64{4}}, {Filter{After: 3}, []int64{4, 5}}, {Filter{Source: "s1"}, []int64{2, 4}}, {Filter{Image: "2.png"}, []int64{3}},
		{Filter{Image: "x.png"}, []int64{3}}, {Filter{Image: "/bad/x.png"}, []int64{3}}, {Filter{Image: "png"}, nil}, {Filter{Image: "%.png"}, nil},
		{Filter{Since: time.UnixMicro(1000), Until: time.UnixMicro(3000)}, []int64{2, 3}}, {Filter{Corrected: true}, []int64{1, 3}},
		{Filter{Correction: Good}, []int64{3}}, {Filter{Model: "nut"}, nil}, {Filter{Image: "' OR 1 --"}, nil},
	} {
		var got []int64
		for _, r := range list(t, h, c.f) {
			got = append(got, r.ID)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v, want %v", c.f, got, c.want)
		}
	}
	if err := h.Correct(t.Context(), 99, Good, ""); !errors.Is(err, ErrNone) {
		t.Errorf("no such record: got %v, want %v", err, ErrNone)
	}
	if err := h.Correct(t.Context(), 1, Broken, ""); err == nil {
		t.Error("a correction to broken: got no error")
	}
}

// TestListOfMany: between pages nothing of the file is held, what is added or removed meanwhile does no harm, and Last counts.
func TestListOfMany(t *testing.T) {
	h, _ := opened(t, nil)
	const records = 2*listedOnce + 3
	all := make([]*Record, records)
	for i := range all {
		r := example(fmt.Sprint(i))
		all[i] = &r
	}
	if err := h.Add(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f                  Filter
		first, last, count int64
	}{
		{Filter{}, 1, records, records}, {Filter{Last: listedOnce + 5}, records - listedOnce - 4, records, listedOnce + 5},
		{Filter{After: 7}, 8, records, records - 7}, {Filter{Last: 2 * records}, 1, records, records}, {Filter{Model: "nut"}, 0, 0, 0},
		{Filter{Model: "nut", Last: 3}, 0, 0, 0},
	} {
		var first, last, count int64
		for _, r := range list(t, h, c.f) {
			if count == 0 {
				first = r.ID
			} else if r.ID != last+1 {
				t.Errorf("%+v: got record %d after %d", c.f, r.ID, last)
			}
			last = r.ID
			count++
		}
		if first != c.first || last != c.last || count != c.count {
			t.Errorf("%+v: got %d records, %d to %d, want %d, %d to %d", c.f, count, first, last, c.count, c.first, c.last)
		}
	}
	count := 0
	for _, err := range h.List(t.Context(), Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if used := h.db.Stats().InUse; count == 5 && used != 0 {
			t.Errorf("while a record is looked at: got %d connections in use, want 0", used)
		}
		if count == 5 {
			r := example("late")
			if err := h.Add(t.Context(), &r); err != nil {
				t.Fatal(err)
			}
			if _, err := h.db.Exec("DELETE FROM records WHERE id = ?", records-1); err != nil {
				t.Fatal(err)
			}
		}
		count++
	}
	if count != records-1 {
		t.Errorf("got %d records, want %d, without the one removed and the one added", count, records-1)
	}
}

// TestLog: what a reader has made of the log is given back when it is gone.
func TestLog(t *testing.T) {
	h, path := opened(t, nil)
	reader, err := h.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := reader.ExecContext(t.Context(), "BEGIN DEFERRED; SELECT count(*) FROM records"); err != nil {
		t.Fatal(err)
	}
	add := func(bytes int) int64 {
		r := Record{Verdict: Broken, Error: strings.Repeat("x", bytes)}
		if err := h.Add(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	if got := add(4 * logBytes); got < 4*logBytes {
		t.Fatalf("with a reader: got %d bytes, want %d", got, 4*logBytes)
	}
	if _, err := reader.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	add(1)
	if got := add(1); got > logBytes {
		t.Errorf("without it: got %d bytes, want at most %d", got, logBytes)
	}
}

// TestOpen: what is no history of ours is refused, and stays as it is.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	foreign, _ := opened(t, nil)
	if _, err := foreign.db.Exec("PRAGMA application_id = 7"); err != nil {
		t.Fatal(err)
	}
	later, _ := opened(t, nil)
	if _, err := later.db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	const text = "this is a text of many words, and no database at all, as anybody who reads its first line can tell without a doubt whatever"
	for _, c := range []struct {
		name, path string
		readOnly   bool
		want       error
	}{
		{"text", file("text", text), false, ErrForeign}, {"text to read", file("text", text), true, ErrForeign}, {"foreign", foreign.path, false, ErrForeign},
		{"missing", filepath.Join(dir, "missing"), true, fs.ErrNotExist}, {"empty to read", file("empty", ""), true, ErrForeign},
		{"folder", dir, false, nil}, {"later", later.path, false, nil}, {"in a missing folder", filepath.Join(dir, "no", "x.db"), false, nil},
	} {
		h, err := Open(c.path, &Options{ReadOnly: c.readOnly})
		if err == nil {
			h.Close()
		}
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.HasPrefix(err.Error(), "history: ") || !strings.Contains(err.Error(), c.path) {
			t.Errorf("%s: got %v, want %v and the file's name", c.name, err, c.want)
		}
	}
	testmain.WantContent(t, filepath.Join(dir, "text"), text)
}

// A reader leaves nothing beside the file, and where nothing may come beside it the error says so.
func TestBeside(t *testing.T) {
	h, path := opened(t, nil)
	r := example("a")
	if err := errors.Join(h.Add(t.Context(), &r), h.Close()); err != nil {
		t.Fatal(err)
	}
	reader, err := Open(path, &Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := list(t, reader, Filter{}); len(got) != 1 {
		t.Errorf("got %d records, want 1", len(got))
	}
	if _, err := reader.db.Exec("DELETE FROM records"); err == nil {
		t.Error("a reader removes: got no error")
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v, want the history alone", entries, err)
	}
	// What makes the file beside it impossible for root, too.
	if err := os.Mkdir(path+"-wal", 0o777); err != nil {
		t.Fatal(err)
	}
	if reader, err = Open(path, &Options{ReadOnly: true}); err == nil {
		reader.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "two more files come beside it") {
		t.Errorf("got %v, want an error about the folder", err)
	}
}

// Many goroutines through several handles: nothing is lost, no ID comes twice.
func TestConcurrent(t *testing.T) {
	h, path := opened(t, nil)
	other, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const goroutines, each = 8, 25
	var group sync.WaitGroup
	for g := range goroutines {
		group.Go(func() {
			for i := range each {
				r := example(fmt.Sprint(g, "-", i))
				if err := []*DB{h, other}[g%2].Add(t.Context(), &r); err != nil || r.ID == 0 {
					t.Errorf("got ID %d, %v", r.ID, err)
				}
			}
		})
	}
	group.Wait()
	seen := map[string]bool{}
	for _, r := range list(t, h, Filter{}) {
		seen[r.Image] = true
	}
	if n, err := h.Count(t.Context()); n != goroutines*each || err != nil || len(seen) != n {
		t.Errorf("got %d records of %d images, %v, want %d", n, len(seen), err, goroutines*each)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	r := example("late")
	if err := h.Add(t.Context(), &r); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed: got %v, want %v", err, fs.ErrClosed)
	}
}

// A record that cannot be kept fails alone, and all of its own addition with it.
func TestRefused(t *testing.T) {
	h, _ := opened(t, nil)
	records := func(scores ...float64) *addition {
		a := &addition{done: make(chan error, 1)}
		for _, score := range scores {
			a.records = append(a.records, &Record{Verdict: Good, Score: score})
		}
		return a
	}
	waiting := []*addition{records(1), records(2, math.NaN()), records(3, 4)}
	if got := h.commit(waiting); got != 3 {
		t.Errorf("got %d records, want 3", got)
	}
	for i, refused := range []bool{false, true, false} {
		if err := <-waiting[i].done; (err != nil) != refused {
			t.Errorf("addition %d: got %v, want an error: %v", i, err, refused)
		}
	}
	var got []float64
	for _, r := range list(t, h, Filter{}) {
		if got = append(got, r.Score); r.ID != int64(len(got)) {
			t.Errorf("score %v: got ID %d, want %d", r.Score, r.ID, len(got))
		}
	}
	if want := []float64{1, 3, 4}; !slices.Equal(got, want) || waiting[2].records[1].ID != 3 {
		t.Errorf("got scores %v, the last by ID %d, want %v", got, waiting[2].records[1].ID, want)
	}
}

// Killed writers: what they knew to be written is there, and the file is whole.
func TestKilled(t *testing.T) {
	h, path := opened(t, nil)
	for round := range 3 {
		before, err := h.Count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cmd, stderr := testmain.Start(t, "writer", nil, path, fmt.Sprint(round))
		testmain.Wait(t, "records", func() bool { n, err := h.Count(t.Context()); return err != nil || n > before+20 })
		if err := testmain.Kill(cmd); err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{}
		for _, r := range list(t, h, Filter{}) {
			there[r.Image] = true
		}
		known := strings.SplitAfter(stderr.String(), "\n")
		for _, line := range known[:len(known)-1] { // of the last one a part may be missing
			if name := strings.TrimSuffix(line, "\n"); !there[name] {
				t.Errorf("round %d: %s is lost", round, name)
			}
		}
		if len(known) < 20 {
			t.Errorf("round %d: got %d lines of the writer, want 20", round, len(known))
		}
	}
	var result string
	if err := h.db.QueryRow("PRAGMA integrity_check").Scan(&result); err != nil || result != "ok" {
		t.Errorf("got %q, %v, want ok", result, err)
	}
}

// Records keep their images' masks, each once, for as long as one of them is there.
func TestMasks(t *testing.T) {
	h, path := opened(t, nil)
	now := time.Now()
	add := func(mask string, age time.Duration) (sum string) {
		r := Record{Time: now.Add(-age), Image: "a.png", Verdict: Good, Mask: []byte(mask)}
		if err := h.Add(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
		return r.MaskSHA256
	}
	const old = 20 * 24 * time.Hour
	none, shared, gone, again := add("", 0), add("shared", old), add("gone", old), add("shared", 0)
	if none != "" || shared != fmt.Sprintf("%x", sha256.Sum256([]byte("shared"))) || shared != again || gone == shared {
		t.Errorf("got the sums %q, %q, %q, %q", none, shared, gone, again)
	}
	reader, err := Open(path, &Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var sums []string
	for _, r := range list(t, reader, Filter{}) {
		if sums = append(sums, r.MaskSHA256); r.Mask != nil {
			t.Errorf("got the mask %q in a list", r.Mask)
		}
	}
	if want := []string{"", shared, gone, shared}; !slices.Equal(sums, want) {
		t.Errorf("got %q, want %q", sums, want)
	}
	for _, c := range []struct {
		when, sum, want string
		change          func() error
	}{
		{"as added", shared, "shared", nil},
		{"as added", gone, "gone", nil},
		{"of records that are gone", gone, "", func() error { return h.SetRetention(t.Context(), Retention{Age: old / 2}) }},
		{"of one that is left", shared, "shared", nil},
		{"damaged", shared, "", func() error {
			_, err := h.db.Exec("UPDATE masks SET png = x'00'")
			return err
		}},
		{"unknown", "ab", "", nil},
	} {
		if c.change != nil {
			if err := c.change(); err != nil {
				t.Fatal(err)
			}
		}
		png, err := reader.Mask(t.Context(), c.sum)
		if string(png) != c.want || errors.Is(err, ErrNoMask) != (c.want == "") {
			t.Errorf("%s: got %q, %v, want %q", c.when, png, err, c.want)
		}
	}
}

func TestRetention(t *testing.T) {
	var removed []string
	h, _ := opened(t, &Options{Removed: func(source, heatmap string) { removed = append(removed, source+heatmap) }})
	now := time.Now()
	for i, age := range []time.Duration{50, 40, 30, 2, 1} {
		r := example(fmt.Sprint(i))
		r.Time, r.Heatmap = now.Add(-age*24*time.Hour), fmt.Sprintf("/%d.png", i)
		if err := h.Add(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
	// A correction is kept, and so is what has something to follow.
	if err := h.Correct(t.Context(), 1, Good, ""); err != nil {
		t.Fatal(err)
	}
	pending := example("pending")
	pending.Time, pending.Heatmap = now.Add(-60*24*time.Hour), ""
	if err := h.Journal("/in").Judged(t.Context(), &Arrival{Path: "pending"}, &pending); err != nil {
		t.Fatal(err)
	}
	if err := h.SetRetention(t.Context(), Retention{Age: 10 * 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range list(t, h, Filter{}) {
		got = append(got, r.Image)
	}
	if want := []string{"0", "3", "4", "pending"}; !slices.Equal(got, want) || !slices.Equal(removed, []string{"test/1.png", "test/2.png"}) {
		t.Errorf("by days: got %q, removed %q, want %q", got, removed, want)
	}
	if err := h.SetRetention(t.Context(), Retention{Bytes: 1000}); err == nil {
		t.Error("1000 bytes: got no error")
	}
	// By size: the file stays within it, however many come, and the latest are there.
	if err := h.SetRetention(t.Context(), Retention{Bytes: LeastBytes}); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 20<<10)
	for i := range 2 * LeastBytes / len(long) {
		r := Record{Time: now, Image: fmt.Sprint("big", i), Verdict: Broken, Error: long}
		if err := h.Add(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := list(t, h, Filter{})
	if used, err := h.used(t.Context()); err != nil || used > LeastBytes {
		t.Errorf("by size: got %d bytes, %v, want at most %d", used, err, LeastBytes)
	}
	corrected := 0
	for _, r := range all {
		if r.Correction != "" {
			corrected++
		}
	}
	if corrected != 1 {
		t.Errorf("got %d corrected records of %d, want the one", corrected, len(all))
	}
}

// Others wait while records are removed, so that sorts none, and looks by an index for those that are too old.
func TestRemovable(t *testing.T) {
	h, _ := opened(t, nil)
	for _, which := range []string{byAge, bySize} {
		rows, err := h.db.Query("EXPLAIN QUERY PLAN "+removable(10, which), make([]any, strings.Count(which, "?"))...)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(step, "ORDER BY") || which == byAge && strings.HasPrefix(step, "SCAN records") {
				t.Errorf("%s: got the step %q", which, step)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// By size the oldest go first, those with a correction after all others.
func TestRetentionOrder(t *testing.T) {
	h, _ := opened(t, nil)
	long := strings.Repeat("x", 100<<10)
	const records = 60
	for i := range records {
		r := Record{Time: time.UnixMicro(int64(i)), Image: fmt.Sprint(i), Verdict: Broken, Error: long}
		if err := h.Add(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
		if i >= 2 && i < 50 {
			if err := h.Correct(t.Context(), r.ID, Good, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := h.SetRetention(t.Context(), Retention{Bytes: LeastBytes}); err != nil {
		t.Fatal(err)
	}
	all := list(t, h, Filter{})
	if len(all) == 0 || len(all) > 41 || all[0].Correction != Good || all[len(all)-1].Image != "49" {
		t.Fatalf("got %d records, want the latest of the corrected ones alone", len(all))
	}
	for i, r := range all {
		if want := fmt.Sprint(50 - len(all) + i); r.Image != want {
			t.Errorf("got %s, want %s", r.Image, want)
		}
	}
}

// TestSweep: whoever removes records, the source that drew their heat maps learns of those that no record names any more.
func TestSweep(t *testing.T) {
	h, path := opened(t, nil)
	// As a file of before has it.
	if _, err := h.db.Exec("DROP TABLE leavings; DROP INDEX records_heatmap"); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	sweep := func(source string, gone bool, want ...string) {
		t.Helper()
		var got []string
		err := h.Sweep(t.Context(), source, func(heatmap string) bool {
			got = append(got, heatmap)
			return gone
		})
		if !slices.Equal(got, want) || err != nil {
			t.Errorf("%s: got %q, %v, want %q", source, got, err, want)
		}
	}
	sweep("watch", true)
	add := func(source, heatmap string, age time.Duration) {
		t.Helper()
		r := Record{Time: time.Now().Add(-age), Source: source, Heatmap: heatmap, Verdict: Good}
		if err := h.Add(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
	const old = 48 * time.Hour
	var many []string
	for i := range 2*sweptOnce + 1 {
		many = append(many, fmt.Sprintf("/maps/%04d.png", i))
		add("watch", many[i], old)
	}
	for _, r := range []struct {
		source, heatmap string
		age             time.Duration
	}{{"watch", "/maps/twice.png", old}, {"watch", "/maps/twice.png", 0}, {"watch", "/maps/new.png", 0}, {"watch", "/maps/again.png", old}, {"watch", "", old},
		{"image", "/mine.png", old}} {
		add(r.source, r.heatmap, r.age)
	}
	other, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.SetRetention(t.Context(), Retention{Age: 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	add("watch", "/maps/again.png", 0)
	sweep("image", true) // which did not ask before
	sweep("watch", false, many...)
	sweep("watch", true, many...)
	sweep("watch", true)
}

// TestJournal: what is pending is so until it is done, and a file that has left is forgotten.
func TestJournal(t *testing.T) {
	h, _ := opened(t, nil)
	j, other := h.Journal("/in"), h.Journal("/other")
	a := Arrival{Path: "a.png", Size: 5, Time: time.Unix(1, 2), SHA256: "ab"}
	r := example("/in/a.png")
	if err := j.Judged(t.Context(), &a, &r); err != nil || a.Record != r.ID || r.ID == 0 || !a.Pending {
		t.Fatalf("got %+v, record %d, %v", a, r.ID, err)
	}
	want := func(what string, arrivals ...Arrival) {
		t.Helper()
		got, err := j.Arrivals(t.Context())
		if err != nil || !slices.Equal(got, arrivals) {
			t.Errorf("%s: got %+v, %v, want %+v", what, got, err, arrivals)
		}
		if got, err := other.Arrivals(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("%s: another folder has %+v, %v", what, got, err)
		}
	}
	want("judged", a)
	if err := j.Forget(t.Context(), "a.png"); err != nil {
		t.Fatal(err)
	}
	want("pending ones are not forgotten", a)
	if err := j.Move(t.Context(), r.ID, "/elsewhere"); err != nil || list(t, h, Filter{})[0].Moved != "/elsewhere" {
		t.Errorf("got %v, %+v, want another place", err, list(t, h, Filter{})[0])
	}
	if err := j.Done(t.Context(), a, false); err != nil {
		t.Fatal(err)
	}
	a.Pending = false
	want("done", a)
	a.Time = time.Unix(7, 0)
	if err := j.Touched(t.Context(), &a); err != nil {
		t.Fatal(err)
	}
	want("touched", a)
	if found, err := j.Find(t.Context(), "a.png"); err != nil || found == nil || *found != a {
		t.Errorf("got %+v, %v, want %+v", found, err, a)
	}
	if found, err := j.Find(t.Context(), "b.png"); err != nil || found != nil {
		t.Errorf("got %+v, %v, want none", found, err)
	}
	// What is done for an older arrival of the name changes nothing.
	if err := j.Done(t.Context(), Arrival{Path: "a.png", Record: a.Record + 1}, true); err != nil {
		t.Fatal(err)
	}
	want("another's end", a)
	if err := j.Forget(t.Context(), "a.png", "b.png"); err != nil {
		t.Fatal(err)
	}
	want("forgotten")
}

func TestWriteTable(t *testing.T) {
	h, _ := opened(t, nil)
	full, broken := example("a,\"b\"\nc\x1b.png"), Record{Time: time.UnixMicro(0), Image: "d.png", Verdict: Broken, Error: "no picture"}
	if err := h.Add(t.Context(), &full, &broken); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := WriteTable(&out, h.List(t.Context(), Filter{})); err != nil {
		t.Fatal(err)
	}
	if strings.Count(out.String(), "\n") != 3 {
		t.Errorf("got %q, want a line per row", &out)
	}
	got, err := csv.NewReader(&out).ReadAll()
	want := [][]string{TableHeader,
		{"1", "2023-11-14T22:13:20.123456Z", `a,"b"\nc\x1b.png`, "anomalous", "0.3333333333333333", "0.1", "0.25", "1", "1 2 3 4", "screw", "ab", "/h.png",
			`/bad/a,"b"\nc\x1b.png`, "", "dark", "", ""},
		{"2", "1970-01-01T00:00:00.000000Z", "d.png", "broken", "", "", "", "", "", "", "", "", "", "no picture", "", "", ""}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestParseTime(t *testing.T) {
	for _, c := range []struct {
		text string
		want time.Time // zero: an error
	}{
		{"2026-03-31", time.Date(2026, 3, 31, 0, 0, 0, 0, time.Local)}, {"2026-03-31 14:05", time.Date(2026, 3, 31, 14, 5, 0, 0, time.Local)},
		{"2026-03-31T14:05:06Z", time.Date(2026, 3, 31, 14, 5, 6, 0, time.UTC)}, {"2026-03-31T14:05:06+02:00", time.Date(2026, 3, 31, 12, 5, 6, 0, time.UTC)},
		{"", time.Time{}}, {"31.3.2026", time.Time{}}, {"2026-13-01", time.Time{}}, {"yesterday", time.Time{}},
	} {
		if got, err := ParseTime(c.text); !got.Equal(c.want) || (err != nil) != c.want.IsZero() {
			t.Errorf("%q: got %v, %v, want %v", c.text, got, err, c.want)
		}
	}
}

// FuzzParseTime: whatever is a time is so again when written in full.
func FuzzParseTime(f *testing.F) {
	for _, text := range []string{"2026-03-31", "2026-03-31 14:05", "2026-03-31T14:05:06.5+02:00", "x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := ParseTime(text)
		if err != nil {
			return
		}
		if again, err := ParseTime(at.UTC().Format(time.RFC3339Nano)); err != nil || !again.Equal(at) {
			t.Errorf("%q: got %v, and %v of that, %v", text, at, again, err)
		}
	})
}
