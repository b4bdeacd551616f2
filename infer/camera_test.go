package main

import (
	"bytes"
	"fmt"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rdpp/rdpp/camera"
	"rdpp/rdpp/command"
	"rdpp/rdpp/history"
	"rdpp/rdpp/testmain"
)

// fakeCamera answers each request with one of the test images as JPEG, in their order, again and again.
type fakeCamera struct {
	*httptest.Server
	mu    sync.Mutex
	asked int
	sent  map[string]bool // content
}

func newFakeCamera(t *testing.T) *fakeCamera {
	t.Helper()
	good, anomalous := testImages()
	var pictures [][]byte
	for _, path := range append(slices.Clone(good), anomalous...) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, img, nil); err != nil {
			t.Fatal(err)
		}
		pictures = append(pictures, b.Bytes())
	}
	c := &fakeCamera{sent: map[string]bool{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		data := pictures[c.asked%len(pictures)]
		c.asked++
		c.sent[string(data)] = true
		w.Header().Set("Content-Type", "image/jpeg")
		w.Write(data)
	}))
	t.Cleanup(c.Close)
	return c
}

// lines are triggers that come when the camera is asked for its next picture, which is when the model is there and frames are judged.
func (c *fakeCamera) lines(t *testing.T, n int) io.Reader {
	asked := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.asked
	}
	lines, w := io.Pipe()
	before := asked()
	go func() {
		defer w.Close()
		for asked() == before && t.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		io.WriteString(w, strings.Repeat("part\n", n))
	}()
	return lines
}

// TestWatchCamera: frames become records like files, are moved or removed, and have the scores of the same files.
func TestWatchCamera(t *testing.T) {
	l, c := newLine(t), newFakeCamera(t)
	keep := filepath.Join(filepath.Dir(l.in), "kept")
	args := commandLine("watch", l.in, "--history", l.history, "--csv", l.table, "--camera", c.URL+"/shot", "--trigger", "--move-good", keep, "--move-bad", keep)
	photo := filepath.Join(l.in, "photo.png") // which is no frame
	good, _ := testImages()
	copyImage(t, good[0], photo)
	const frames = 8
	code, stdout, stderr := inferFrom(c.lines(t, frames), args...)
	if code != command.Done || strings.Count(stdout, "\n") != frames || !strings.Contains(stderr, fmt.Sprintf("%d frames taken, 0 dropped", frames)) {
		t.Fatalf("got code %d, stdout %q, stderr %q, want %d lines", code, stdout, stderr, frames)
	}
	testmain.WantFiles(t, l.in, "photo.png")
	if got := names(t, keep); len(got) != frames || !camera.IsFrame(got[0]) || !strings.HasSuffix(got[0], "Z-part.jpg") {
		t.Errorf("got %q, want %d frames", got, frames)
	}
	h, err := history.Open(l.history, &history.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var recorded []string
	for r, err := range h.List(t.Context(), history.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(r.Moved)
		if err != nil || !c.sent[string(data)] {
			t.Errorf("%s: got %v, want what the camera sent at %q", r.Image, err, r.Moved)
		}
		verdict := "good     "
		if r.Verdict == history.Anomalous {
			verdict = "ANOMALOUS"
		}
		recorded = append(recorded, fmt.Sprintf("%s  %9.6f  %s", verdict, r.Score, r.Moved))
	}
	slices.Sort(recorded)
	_, stdout, _ = infer(nil, commandLine("image", keep)...)
	var judged []string
	for line := range strings.Lines(stdout) {
		words := strings.Fields(line)
		judged = append(judged, fmt.Sprintf("%-9s  %9s  %s", words[0], words[1], words[len(words)-1]))
	}
	slices.Sort(judged)
	if !slices.Equal(recorded, judged) || len(judged) != frames {
		t.Errorf("got\n%q\nwant what infer image says of the same files\n%q", recorded, judged)
	}
	if got := len(l.rows(t)); got != frames {
		t.Errorf("got %d rows, want %d", got, frames)
	}
}

// TestWatchCameraOnce: a call takes one frame, judges that alone, and leaves none behind. What a killed watch left, broken ones here, is
// none of its own, however much it is.
func TestWatchCameraOnce(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", t.TempDir())
	c := newFakeCamera(t)
	args := commandLine("watch", "--camera", c.URL, "--once", "--json")
	var left []string
	for call := range 2 {
		code, stdout, stderr := infer(nil, args...)
		if code == command.Failed || strings.Count(stdout, "\n") != 1 || !strings.Contains(stdout, `"image":"`) || !strings.Contains(stderr, "1 frames taken, 0 dropped") {
			t.Errorf("got code %d, stdout %q, stderr %q, want a line", code, stdout, stderr)
		}
		folders, err := filepath.Glob(filepath.Join(os.Getenv("STATE_DIRECTORY"), "camera-*"))
		if err != nil || len(folders) != 1 {
			t.Fatalf("got %q, %v, want one folder", folders, err)
		}
		testmain.WantFiles(t, folders[0], left...)
		for i := range 100 * (1 - call) {
			left = append(left, fmt.Sprintf("frame-20260331T120000.%06dZ.jpg", i))
			if err := os.WriteFile(filepath.Join(folders[0], left[i]), []byte("no picture"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestWatchCameraKilled: of a watch that is killed again and again every frame that was taken has one record.
func TestWatchCameraKilled(t *testing.T) {
	l, c := newLine(t), newFakeCamera(t)
	args := commandLine("watch", l.in, "--history", l.history, "--csv", l.table, "--camera", c.URL, "--move-good", l.good, "--move-bad", l.bad)
	for kills := 1; kills <= 2; kills++ {
		cmd, stderr := testmain.Start(t, asProgram, nil, append(args, "--every", "10ms")...)
		testmain.Wait(t, "frames", func() bool {
			good, _ := os.ReadDir(l.good)
			bad, _ := os.ReadDir(l.bad)
			return len(good)+len(bad) >= 5*kills
		})
		if err := testmain.Kill(cmd); err != nil {
			t.Fatalf("%v: %s", err, stderr)
		}
	}
	waiting := slices.DeleteFunc(names(t, l.in), func(name string) bool { return !camera.IsFrame(name) })
	code, _, stderr := inferFrom(c.lines(t, 1), append(args, "--trigger")...)
	if code == command.Failed {
		t.Fatalf("got code %d, stderr %q", code, stderr)
	}
	testmain.WantFiles(t, l.in)
	records := l.records(t)
	moved := len(names(t, l.good)) + len(names(t, l.bad))
	if unique := slices.Compact(slices.Sorted(slices.Values(records))); len(records) != moved || len(unique) != moved {
		t.Errorf("got %d records of %d images, want one of each of the %d that were taken", len(records), len(unique), moved)
	}
	for _, name := range waiting {
		if !slices.ContainsFunc(records, func(r string) bool { return strings.HasSuffix(r, " "+name) }) {
			t.Errorf("%s waited when the watch was killed: got no record", name)
		}
	}
	if rows := l.rows(t); !slices.Equal(rows, records) {
		t.Errorf("got rows %q, want %q", rows, records)
	}
}

// TestWatchCameraEnds: a signal ends it, and a camera that fails does not.
func TestWatchCameraEnds(t *testing.T) {
	l := newLine(t)
	var asked atomic.Int64
	c := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusTeapot)
	}))
	defer c.Close()
	cmd, stderr := testmain.Start(t, asProgram, nil, commandLine("watch", l.in, "--history", l.history, "--camera", c.URL)...)
	testmain.Wait(t, "second attempt", func() bool { return asked.Load() >= 2 })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := testmain.ExitCode(t, cmd); code != command.Done {
		t.Errorf("got code %d, stderr %s, want 0", code, stderr)
	}
	if !strings.Contains(stderr.String(), "it answers 418 I'm a teapot; it is tried again") || !strings.Contains(stderr.String(), "0 frames taken, 0 dropped") {
		t.Errorf("got %s, want what is wrong with the camera", stderr)
	}
}
