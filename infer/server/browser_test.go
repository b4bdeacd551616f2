package server_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"image/color"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rdpp/infer/server"
	"rdpp/rdpp"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/history"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/report"
)

var screenshots = flag.String("screenshots", "", "folder to write screenshots of the page to")

// shown is what the page shows at a time.
type shown struct {
	Verdict, Score, Threshold, Label string
	History                          int
	Regions                          [][5]int // left, top, width, height, area
	Outlined                         []int    // pixels of the map
}

type browserReport struct {
	Failed, Problem               string
	Failures                      []string
	Inferno                       []int
	Threshold                     float64
	Dropped, Lower, Higher, Reset shown
	Record                        int64
	Kept, Table                   string
}

// The page in a browser: a picture is dropped, its verdict seen, the threshold moved. testdata/drive.js does what a person
// with a mouse would, and what it sees is what a Detector says; then the keyboard does the rest.
func TestPageInBrowser(t *testing.T) {
	h, err := history.Open(filepath.Join(t.TempDir(), "line.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() }) // after the service's end
	got, b := driven(t, modelFile, h)
	checkReport(t, got)
	checkCorrection(t, got, h)
	byKeyboard(t, b)
	checkTable(t, b)
	checkLooks(t, b)
}

// checkCorrection compares what the operator said on the page with the history, and the page's table with the history's.
func checkCorrection(t *testing.T, got browserReport, h *history.DB) {
	t.Helper()
	var want bytes.Buffer
	records := h.List(t.Context(), history.Filter{ID: got.Record})
	if err := history.WriteTable(&want, records); err != nil {
		t.Fatal(err)
	}
	for r, err := range records {
		if err != nil || r.Correction != history.Good || !strings.Contains(got.Kept, fmt.Sprint("record ", r.ID)) {
			t.Errorf("got the correction %q in the history, %v, and %q, want good and its record", r.Correction, err, got.Kept)
		}
	}
	page, kept := rowsOf(t, got.Table), rowsOf(t, want.String())
	if len(page) != 2 || len(kept) != 2 {
		t.Fatalf("got %d rows, and %d in the history, want 2", len(page), len(kept))
	}
	elsewhere := []string{"time", "model", "sha256"} // the page has its own clock and names, and no digests
	for i, name := range kept[0] {
		if page[0][i] != name || page[1][i] != kept[1][i] && !slices.Contains(elsewhere, name) {
			t.Errorf("column %s: got %q, %q on the page, want %q", name, page[0][i], page[1][i], kept[1][i])
		}
	}
}

// checkTable saves the session, of the two pictures that the page has by then, and looks at the file.
func checkTable(t *testing.T, b *browser) {
	t.Helper()
	dir := t.TempDir()
	b.call("Page.setDownloadBehavior", map[string]any{"behavior": "allow", "downloadPath": dir}, nil)
	var want string
	b.evaluate(`current.name = 'a "b", c\nd.png'; table()`, &want)
	b.evaluate(`$("save").click()`, nil)
	var file []byte
	eventually(t, "the table is saved", func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "session-*.csv"))
		if err == nil && len(files) == 1 {
			file, err = os.ReadFile(files[0])
		}
		return err == nil && len(file) > 0
	})
	rows := rowsOf(t, string(file))
	if string(file) != want || len(rows) != 3 || rows[1][2] != "picture.png" || rows[2][2] != `a "b", c\x0ad.png` {
		t.Errorf("got the table %q, want %q", file, want)
	}
}

// rowsOf reads a table.
func rowsOf(t *testing.T, table string) [][]string {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(table)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// The page outlines what a Detector does of models whose maps are no squares over the whole picture: of tiles, and of a part of a
// picture, whose own map may be finer than what covers the whole picture.
func TestPageOfViews(t *testing.T) {
	part, corner := rdpp.DefaultConfig(), rdpp.DefaultConfig()
	part.Arch, part.ImageSize, part.Fit, part.ROI = "resnet18", modelSide, framing.Pad, framing.Box{X: 4, Y: 10, W: 30, H: 44}
	corner.Arch, corner.ImageSize, corner.Fit, corner.ROI = "resnet18", modelSide, framing.Crop, framing.Box{X: 23, Y: 31, W: 13, H: 11}
	for _, c := range []struct {
		name   string
		config rdpp.Config
		whole  bool
	}{{"tiles", tiledConfig(), true}, {"a part", part, false}, {"a corner", corner, false}} {
		t.Run(c.name, func(t *testing.T) {
			path, d := modelOf(t, c.config)
			got, _ := driven(t, path, nil)
			if got.Failed != "" || len(got.Failures) > 0 {
				t.Fatalf("got failures %q, %q, want none", got.Failed, got.Failures)
			}
			r, _, err := d.DetectBytes(pictures[0])
			if err != nil {
				t.Fatal(err)
			}
			own := d.Calibration()
			calibration, err := own.Override(nil, &got.Threshold, nil)
			if err == nil {
				err = r.Judge(&calibration)
			}
			if err != nil || len(r.Regions) == 0 || r.Frame.Whole() != c.whole {
				t.Fatalf("got regions %v, %v, want some; of the whole picture: %v, want %v", r.Regions, err, r.Frame.Whole(), c.whole)
			}
			checkShownRegions(t, c.name, got.Lower, r)
			if got.Record != 0 || !strings.Contains(got.Kept, "keeps no history") || !strings.Contains(got.Table, ",good,\n") {
				t.Errorf("without a history: got record %d, %q, the table %q, want the correction in the table alone", got.Record, got.Kept, got.Table)
			}
		})
	}
}

// driven opens the page of a model's service in a browser, and returns what testdata/drive.js reports. h may be nil.
func driven(t *testing.T, model string, h *history.DB) (browserReport, *browser) {
	t.Helper()
	s, err := server.New(server.Options{Model: model, History: h, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
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
	t.Cleanup(site.Close)

	b := openBrowser(t, site.URL+"/")
	select {
	case got := <-reports:
		return got, b
	case <-time.After(180 * time.Second):
		t.Fatal("the browser has reported nothing")
	}
	return browserReport{}, nil
}

// byKeyboard uses the page with the keyboard alone.
func byKeyboard(t *testing.T, b *browser) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "typed.png")
	if err := os.WriteFile(file, pictures[1], 0o666); err != nil {
		t.Fatal(err)
	}
	tabTo := func(id string) {
		t.Helper()
		for range 30 {
			b.press("Tab", 1)
			var at struct {
				ID      string
				Visible bool
			}
			b.evaluate("focused()", &at)
			if !at.Visible {
				t.Errorf("the focus on %q cannot be seen", at.ID)
			}
			if at.ID == id {
				return
			}
		}
		t.Fatalf("Tab does not lead to %q", id)
	}
	at := func(what, script string) {
		t.Helper()
		var holds bool
		if b.evaluate(script, &holds); !holds {
			t.Errorf("%s: got false from %s", what, script)
		}
	}
	b.evaluate("document.activeElement.blur()", nil)
	b.call("Page.setInterceptFileChooserDialog", map[string]any{"enabled": true}, nil)
	tabTo("files")
	b.press("Enter", 1)
	eventually(t, "files are asked for", func() bool { b.evaluate("1", nil); return b.chooser != 0 })
	b.call("DOM.setFileInputFiles", map[string]any{"files": []string{file}, "backendNodeId": b.chooser}, nil)
	b.evaluate(`until("the second verdict is there", () => current.name === "typed.png")`, nil)
	at("a chosen file", `$("history").children.length === 2 && $("verdict").textContent !== "No verdict"`)

	tabTo("threshold")
	b.evaluate("before = thresholdOf(current)", nil)
	b.press("ArrowRight", 3)
	b.evaluate(`until("the threshold rises", () => thresholdOf(current) > before && $("limit").textContent === number(thresholdOf(current)))`, nil)
	b.press("ArrowLeft", 5)
	b.evaluate(`until("the threshold falls", () => thresholdOf(current) < before && $("limit").textContent === number(thresholdOf(current)))`, nil)
	b.press("Home", 1)
	b.evaluate(`until("all is anomalous", () => $("verdict").textContent === "✕ Anomalous" && $("tally").textContent === "2 pictures, 2 anomalous")`, nil)
	b.press("End", 1)
	b.evaluate(`until("all is good", () => $("verdict").textContent === "✓ Good" && $("tally").textContent === "2 pictures, 0 anomalous")`, nil)
	tabTo("opacity")
	tabTo("outlines")
	b.press(" ", 1)
	at("outlines", `!$("outlines").checked`)
	for key, share := range map[string]string{"Home": "0", "End": "1"} {
		b.evaluate(`$("opacity").focus()`, nil)
		b.press(key, 1)
		b.evaluate(`until("the opacity has moved", () => mixed(`+share+`))`, nil)
	}
	tabTo("reset")
	b.press("Enter", 1)
	b.evaluate(`until("the threshold is back", () => $("reset").disabled && thresholdOf(current) === current.p.threshold)`, nil)
	b.evaluate(`$("outlines").click(); $("opacity").value = 50; $("opacity").dispatchEvent(new Event("input"))`, nil)
}

// checkLooks measures the page on a desktop and a phone, in light and dark.
func checkLooks(t *testing.T, b *browser) {
	for _, c := range []struct {
		name          string
		width, height int
		phone         bool
	}{{"desktop", 1280, 800, false}, {"phone", 390, 844, true}} {
		for _, scheme := range []string{"light", "dark"} {
			b.resize(c.width, c.height, c.phone, scheme)
			var faults []string
			b.evaluate("painted().then(faults)", &faults)
			for _, fault := range faults {
				t.Errorf("%s, %s: %s", c.name, scheme, fault)
			}
			if *screenshots != "" {
				b.screenshot(filepath.Join(*screenshots, c.name+"-"+scheme+".png"))
			}
			if !c.phone {
				var missing int
				b.evaluate("cutOff()", &missing)
				if missing > 0 {
					t.Errorf("%s, %s: %d pixels of the table of regions are cut off", c.name, scheme, missing)
				}
			}
		}
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
		checkShownRegions(t, c.what, c.got, r)
	}
	checkColours(t, got.Inferno)
}

// checkShownRegions compares the page's regions, and the pixels of its map that are in them, with a result's.
func checkShownRegions(t *testing.T, what string, got shown, want *rdpp.Result) {
	t.Helper()
	var boxes [][5]int
	for _, r := range want.Regions {
		boxes = append(boxes, [5]int{r.X, r.Y, r.Width, r.Height, r.Area})
	}
	if !slices.Equal(got.Regions, boxes) {
		t.Errorf("%s: got regions %v, want %v", what, got.Regions, boxes)
	}
	var outlined []int
	for i, level := range want.Over().Levels {
		if !math.IsInf(level, 1) {
			outlined = append(outlined, i)
		}
	}
	if !slices.Equal(got.Outlined, outlined) {
		t.Errorf("%s: got %d pixels of the map outlined, want %d, others or in part", what, len(got.Outlined), len(outlined))
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
