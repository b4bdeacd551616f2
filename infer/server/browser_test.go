package server_test

import (
	"encoding/json"
	"fmt"
	"image/color"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rdpp/infer/server"
	"rdpp/rdpp"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/report"
)

// browser is the path of a Chromium, "" if there is none.
func browser() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// shown is what the page shows at a time.
type shown struct {
	Verdict, Score, Threshold, Label string
	History                          int
	Regions                          [][4]int // left, top, width, height
}

type browserReport struct {
	Failed, Problem               string
	Failures                      []string
	Inferno                       []int
	Threshold                     float64
	Dropped, Lower, Higher, Reset shown
}

// The page in a browser: a picture is dropped, its verdict seen, the threshold moved. testdata/drive.js does what a person
// would, and what it sees is what a Detector says.
func TestPageInBrowser(t *testing.T) {
	chromium := browser()
	if chromium == "" {
		t.Skip("no Chromium: install one to have the page tested")
	}
	s, err := server.New(server.Options{Model: modelFile, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	reports := make(chan browserReport, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		page := httptest.NewRecorder()
		s.ServeHTTP(page, r)
		for name, values := range page.Header() {
			if name != "Content-Length" {
				w.Header()[name] = values
			}
		}
		fmt.Fprint(w, strings.Replace(page.Body.String(), "</head>", `<script src="drive.js" defer></script></head>`, 1))
	})
	mux.HandleFunc("GET /drive.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/drive.js") })
	mux.HandleFunc("GET /picture.png", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(pictures[0]) })
	mux.HandleFunc("POST /report", func(w http.ResponseWriter, r *http.Request) {
		var got browserReport
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			got.Failed = err.Error()
		}
		reports <- got
	})
	mux.Handle("/", s)
	site := httptest.NewServer(mux)
	defer site.Close()

	profile, err := os.MkdirTemp("", "chromium")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(profile) // an error is none of ours: the browser's processes may write to it for a moment longer
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
		"--disable-dev-shm-usage", "--user-data-dir="+profile, site.URL+"/")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its children too
		_ = cmd.Wait()
	}()
	select {
	case got := <-reports:
		checkReport(t, got)
	case <-time.After(180 * time.Second):
		t.Fatal("the browser has reported nothing")
	}
}

func checkReport(t *testing.T, got browserReport) {
	t.Helper()
	if got.Failed != "" || len(got.Failures) > 0 {
		t.Fatalf("got failures %q, %q, want none", got.Failed, got.Failures)
	}
	if want := "broken.png: imagefile: not an image"; !strings.HasPrefix(got.Problem, want) {
		t.Errorf("a broken picture: got %q, want %q", got.Problem, want)
	}
	d, err := rdpp.OpenDetector(modelFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r, _, err := d.DetectBytes(pictures[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what      string
		got       shown
		threshold float64
	}{
		{"dropped", got.Dropped, threshold}, {"lower", got.Lower, got.Threshold}, {"higher", got.Higher, 6}, {"reset", got.Reset, threshold},
	} {
		own := d.Calibration()
		calibration, err := own.Override(nil, &c.threshold, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Judge(&calibration); err != nil {
			t.Fatal(err)
		}
		verdict := "✓ Good"
		if r.Anomalous {
			verdict = "✕ Anomalous"
		}
		if c.got.Verdict != verdict || c.got.Score != fmt.Sprintf("%.4f", r.Score) || c.got.History != 1 ||
			c.what != "higher" && c.got.Threshold != fmt.Sprintf("%.4f", c.threshold) || !strings.Contains(c.got.Label, "picture.png") {
			t.Errorf("%s: got %+v, want %s, score %.4f, threshold %.4f", c.what, c.got, verdict, r.Score, c.threshold)
		}
		checkShownRegions(t, c.what, c.got.Regions, r.Regions)
	}
	checkColours(t, got.Inferno)
}

func checkShownRegions(t *testing.T, what string, got [][4]int, want []metric.Region) {
	t.Helper()
	var boxes [][4]int
	for _, r := range want {
		boxes = append(boxes, [4]int{r.X, r.Y, r.Width, r.Height})
	}
	if !slices.Equal(got, boxes) {
		t.Errorf("%s: got regions %v, want %v", what, got, boxes)
	}
}

// checkColours compares the page's colours with those of the overlay, which it draws a ramp by.
func checkColours(t *testing.T, got []int) {
	t.Helper()
	ramp := make([]float32, 256)
	for i := range ramp {
		ramp[i] = float32(i)
	}
	drawn, err := report.Heatmap(&imagefile.Image{W: 256, H: 1, Pix: make([]byte, 3*256)}, ramp, 1, 256, &report.HeatmapOptions{High: 255, Opacity: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 256 {
		c := drawn.At(i, 0).(color.RGBA)
		if want := []int{int(c.R), int(c.G), int(c.B)}; len(got) != 3*256 || !slices.Equal(got[3*i:3*i+3], want) {
			t.Fatalf("colour %d: the page differs from %v", i, want)
		}
	}
}
