package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/sample"
)

// copyData copies dataDir without a part of it, for a test to damage.
func copyData(t *testing.T, without string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "part")
	if err := os.CopyFS(dir, os.DirFS(dataDir)); err != nil {
		t.Fatal(err)
	}
	if without != "" {
		if err := os.RemoveAll(filepath.Join(dir, without)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// defective says whether a test image is, by its folder.
func defective(path string) bool { return filepath.Base(filepath.Dir(path)) != "good" }

func TestEvalJSON(t *testing.T) {
	code, stdout, stderr := infer(nil, commandLine("eval", "--json", "--data", dataDir)...)
	all := objects(t, stdout)
	if code != command.Done || stderr != "" || len(all) != 1 {
		t.Fatalf("got code %d, stdout %q, stderr %q, want code 0 and one object", code, stdout, stderr)
	}
	// The share of pairs in the right order, which is AUROC.
	var flagged, found, ordered float64
	for path, score := range scores {
		if score > threshold && defective(path) {
			found++
		} else if score > threshold {
			flagged++
		}
		for other, otherScore := range scores {
			if defective(path) && !defective(other) && score > otherScore {
				ordered++
			}
		}
	}
	want := map[string]any{"category": "part", "good": 2.0, "defective": 4.0, "image_auroc": ordered / 8, "threshold": threshold,
		"provisional": true, "good_flagged": flagged, "defective_found": found, "skipped": 0.0}
	for name, value := range want {
		if all[0][name] != value {
			t.Errorf("%s: got %v, want %v", name, all[0][name], value)
		}
	}
	shares := []string{"image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro_030", "aupro_005", "pro_released",
		"outline_iou", "outline_f1"}
	for _, name := range shares {
		if x, ok := all[0][name].(float64); !ok || !(x >= 0 && x <= 1) {
			t.Errorf("%s: got %v, want a share", name, all[0][name])
		}
	}
	if got := all[0]["teacher"].(map[string]any)["origin"]; got != "random" {
		t.Errorf("teacher: got %v, want random", got)
	}
	others := []string{"teacher", "image_f1_threshold", "pixel_f1_threshold", "outline_area_ratio", "false_alarm_interval", "threshold_rule", "data", "taken"}
	if n := len(want) + len(shares) + len(others); len(all[0]) != n {
		t.Errorf("got fields %v, want %d", all[0], n)
	}
	interval, _ := all[0]["false_alarm_interval"].([]any)
	if rate := flagged / 2; len(interval) != 2 || !(interval[0].(float64) <= rate && rate <= interval[1].(float64)) {
		t.Errorf("got the interval %v of false alarms, want one that holds %v", interval, rate)
	}
}

func TestEvalTable(t *testing.T) {
	code, stdout, stderr := infer(nil, commandLine("eval", "--data", dataDir, "--threshold=6")...)
	for _, want := range []string{"teacher          random\n", "images           2 good, 4 defective\n", "image AUROC      0.", "pixel AUROC      0.",
		"AUPRO, FPR<=0.3  0.", "threshold        6.000000\n", "good flagged     0 of 2 (95 % interval of the share: 0.0 to 84.2 %)\n", "defective found  0 of 4\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("got\n%s, want %q", stdout, want)
		}
	}
	if code != command.Done || stderr != "" {
		t.Errorf("got code %d, stderr %q, want code 0", code, stderr)
	}
}

// What the data cannot give is absent, not zero.
func TestEvalAbsentMetrics(t *testing.T) {
	for _, c := range []struct {
		without string
		want    []string // fields
	}{
		{"ground_truth", []string{"image_auroc"}},
		{"test/good", []string{"pixel_auroc", "aupro_030"}},
	} {
		dir := copyData(t, c.without)
		code, stdout, stderr := infer(nil, commandLine("eval", "--json", "--data", dir)...)
		all := objects(t, stdout)
		if code != command.Done || len(all) != 1 {
			t.Fatalf("without %s: got code %d, stdout %q, stderr %q, want code 0 and one object", c.without, code, stdout, stderr)
		}
		for _, name := range []string{"image_auroc", "pixel_auroc", "aupro_030"} {
			if _, got := all[0][name]; got != slices.Contains(c.want, name) {
				t.Errorf("without %s: got %v, want only %v of the metrics", c.without, all[0], c.want)
			}
		}
		_, stdout, _ = infer(nil, commandLine("eval", "--data", dir)...)
		if got, want := strings.Contains(stdout, "pixel AUROC"), slices.Contains(c.want, "pixel_auroc"); got != want {
			t.Errorf("without %s: got pixel AUROC in the table %v, want %v", c.without, got, want)
		}
	}
}

// One score everywhere: image, eval and the Detector say the same, to the last bit.
func TestScoresAreEqual(t *testing.T) {
	file := filepath.Join(t.TempDir(), "scores.csv")
	if code, _, stderr := infer(nil, commandLine("eval", "--data", dataDir, "--scores", file)...); code != command.Done {
		t.Fatalf("got code %d, stderr %q, want 0", code, stderr)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1+len(scores) || strings.Join(rows[0], ",") != "path,type,defective,score,verdict,threshold,p_value" {
		t.Fatalf("got %v, want a header and %d rows", rows, len(scores))
	}
	images := []string{"--json"}
	for _, row := range rows[1:] {
		images = append(images, row[0])
	}
	_, stdout, _ := infer(nil, commandLine("image", images...)...)
	for i, o := range objects(t, stdout) {
		row := rows[1+i]
		score, err := strconv.ParseFloat(row[3], 64)
		if err != nil {
			t.Fatal(err)
		}
		want := scores[row[0]]
		if math.Float64bits(score) != math.Float64bits(want) || o["score"] != want || o["image"] != row[0] {
			t.Errorf("%s: got %v by eval, %v by image, want %v", row[0], score, o["score"], want)
		}
		if row[2] != strconv.FormatBool(defective(row[0])) || row[1] != filepath.Base(filepath.Dir(row[0])) {
			t.Errorf("got row %v, want type and defective by its folder", row)
		}
		word := map[bool]string{false: "good", true: "anomalous"}[want > threshold]
		if row[4] != word || row[5] != strconv.FormatFloat(threshold, 'g', -1, 64) || row[6] != "" {
			t.Errorf("got row %v, want %s at %v and no p-value, as the threshold is provisional", row, word, threshold)
		}
	}
}

func TestEvalFails(t *testing.T) {
	several := t.TempDir()
	if err := sample.Write(several, &sample.Options{Size: 32, Train: 1, TestGood: 1, TestDefect: 1}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"missing folder", []string{"--data", filepath.Join(several, "missing")}, "missing"},
		{"empty folder", []string{"--data", t.TempDir()}, "no images"},
		{"several categories", []string{"--data", several}, "choose one of part, texture"},
		{"no tests", []string{"--data", copyData(t, "test"), "--skip-bad"}, "no test images"},
		{"scores in a missing folder", []string{"--data", dataDir, "--scores", filepath.Join(several, "missing", "x.csv")}, "choose another file with --scores"},
		{"a folder for scores", []string{"--data", dataDir, "--scores", several}, "is a folder; choose another file with --scores"},
		{"scores below a file", []string{"--data", dataDir, "--scores", filepath.Join(modelFile, "x.csv")}, "choose another file with --scores"},
	} {
		code, stdout, stderr := infer(nil, commandLine("eval", c.args...)...)
		if code != command.Failed || stdout != "" || !oneLine(stderr, c.want) {
			t.Errorf("%s: got code %d, stdout %q, stderr %q, want code 1 and one line with %q", c.name, code, stdout, stderr, c.want)
		}
	}
}

// A failing evaluation leaves the scores of the one before.
func TestScoresFileSurvivesFailure(t *testing.T) {
	broken := copyData(t, "")
	if err := os.WriteFile(filepath.Join(broken, "test", "good", "000.png"), []byte("no picture"), 0o666); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, link := filepath.Join(dir, "scores.csv"), filepath.Join(dir, "link.csv")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		const old = "old scores, and more of them than the new ones: "
		if err := os.WriteFile(file, []byte(strings.Repeat(old, 100)), 0o666); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := infer(nil, commandLine("eval", "--data", broken, "--scores", path)...)
		got, err := os.ReadFile(file)
		if code != command.Failed || err != nil || string(got) != strings.Repeat(old, 100) {
			t.Errorf("%s, failing: got code %d, stderr %q, %v and %.60q, want code 1 and the old content", path, code, stderr, err, got)
		}
		code, _, stderr = infer(nil, commandLine("eval", "--data", dataDir, "--scores", path)...)
		got, err = os.ReadFile(file)
		if code != command.Done || err != nil || !strings.HasPrefix(string(got), "path,type,") || strings.Contains(string(got), old) {
			t.Errorf("%s: got code %d, stderr %q, %v and %.60q, want code 0 and the new scores", path, code, stderr, err, got)
		}
	}
	if target, err := os.Readlink(link); target != file {
		t.Errorf("got link to %q, %v, want it kept", target, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("got %v, %v, want the file and the link alone", entries, err)
	}
}

// What is no regular file, such as /dev/stdout, is written into.
func TestScoresToPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	code, _, stderr := infer(nil, commandLine("eval", "--data", dataDir, "--scores", fmt.Sprintf("/dev/fd/%d", w.Fd()))...)
	w.Close()
	got, err := csv.NewReader(r).ReadAll()
	if code != command.Done || err != nil || len(got) != 1+len(scores) {
		t.Errorf("got code %d, stderr %q, %v and %d rows, want code 0 and %d", code, stderr, err, len(got), 1+len(scores))
	}
}

func TestEvalSkipBad(t *testing.T) {
	dir := copyData(t, "")
	bad := filepath.Join(dir, "test", "good", "000.png")
	if err := os.WriteFile(bad, []byte("no picture"), 0o666); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := infer(nil, commandLine("eval", "--json", "--data", dir)...)
	if code != command.Failed || stdout != "" || !oneLine(stderr, bad) {
		t.Errorf("got code %d, stdout %q, stderr %q, want code 1 and the file's name", code, stdout, stderr)
	}
	code, stdout, stderr = infer(nil, commandLine("eval", "--json", "--skip-bad", "--data", dir)...)
	all := objects(t, stdout)
	if code != command.Done || len(all) != 1 || !oneLine(stderr, bad) {
		t.Fatalf("got code %d, stdout %q, stderr %q, want code 0, one object and one line", code, stdout, stderr)
	}
	if o := all[0]; o["good"] != 1.0 || o["defective"] != 4.0 || o["skipped"] != 1.0 {
		t.Errorf("got %v, want 1 good, 4 defective, 1 skipped", o)
	}
	// Without any defective image left there is nothing to measure pixels with.
	for _, kind := range []string{"dent", "missing_hole", "scratch", "stain"} {
		if err := os.WriteFile(filepath.Join(dir, "test", kind, "000.png"), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr = infer(nil, commandLine("eval", "--json", "--skip-bad", "--data", dir)...)
	if all := objects(t, stdout); code != command.Done || len(all) != 1 || all[0]["skipped"] != 5.0 || all[0]["pixel_auroc"] != nil {
		t.Errorf("got code %d, stdout %q, stderr %q, want code 0, 5 skipped and no pixel metrics", code, stdout, stderr)
	}
}

// paint writes a mask anew, as another tool would have drawn it.
func paint(t *testing.T, path string, draw func(w, h int, drawn func(x, y int) bool) image.Image) {
	t.Helper()
	old, err := imagefile.DecodeMaskFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	if err := png.Encode(&data, draw(old.W, old.H, func(x, y int) bool { return old.Pix[y*old.W+x] == 1 })); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
}

// in paints with two colours.
func in[M interface {
	image.Image
	Set(x, y int, c color.Color)
}](make func(image.Rectangle) M, background, colour color.Color) func(int, int, func(x, y int) bool) image.Image {
	return func(w, h int, drawn func(x, y int) bool) image.Image {
		m := make(image.Rect(0, 0, w, h))
		for y := range h {
			for x := range w {
				m.Set(x, y, background)
				if drawn(x, y) {
					m.Set(x, y, colour)
				}
			}
		}
		return m
	}
}

// However a mask is drawn, the figures are those of white on black; one that is not plain is named.
func TestEvalMasks(t *testing.T) {
	voc := func(r image.Rectangle) *image.Paletted {
		return image.NewPaletted(r, color.Palette{color.Black, color.NRGBA{R: 128, A: 255}})
	}
	black := color.Black
	figures := func(dir string, flags ...string) (code int, figures map[string]any, stderr string) {
		code, stdout, stderr := infer(nil, commandLine("eval", append(flags, "--json", "--data", dir)...)...)
		if all := objects(t, stdout); len(all) == 1 {
			figures = all[0]
		}
		return code, figures, stderr
	}
	_, want, _ := figures(dataDir)
	for _, c := range []struct {
		name string
		draw func(int, int, func(x, y int) bool) image.Image
		bad  string // in the error
	}{
		{"red", in(image.NewRGBA, black, color.NRGBA{R: 255, A: 255}), ""},
		{"VOC", in(voc, black, color.NRGBA{R: 128, A: 255}), ""},
		{"1 of 16 bits", in(image.NewGray16, black, color.Gray16{Y: 1}), ""},
		{"grey", in(image.NewGray, black, color.Gray{Y: 50}), ""},
		{"alpha", in(image.NewNRGBA, color.Transparent, color.White), ""},
		{"black", in(image.NewGray, black, black), "without a defect"},
		{"white", in(image.NewGray, color.White, color.White), "all defect"},
		{"inverted", in(image.NewGray, color.White, black), "inverted"},
		{"cut", func(w, h int, drawn func(x, y int) bool) image.Image {
			return in(image.NewGray, black, color.White)(w/2, h, drawn)
		}, "another shape"},
	} {
		dir := copyData(t, "")
		mask := filepath.Join(dir, "ground_truth", "stain", "000_mask.png")
		paint(t, mask, c.draw)
		code, got, stderr := figures(dir)
		if c.bad != "" {
			if code != command.Failed || got != nil || !oneLine(stderr, mask) || !strings.Contains(stderr, c.bad) || !strings.Contains(stderr, "--skip-bad") {
				t.Errorf("%s: got code %d, %v, stderr %q, want code 1 and the mask named, %s", c.name, code, got, stderr, c.bad)
			}
			code, got, stderr = figures(dir, "--skip-bad")
			if code != command.Done || got["defective"] != 3.0 || got["skipped"] != 1.0 || !oneLine(stderr, mask) {
				t.Errorf("%s, skipped: got code %d, %v, stderr %q, want code 0, 3 defective, 1 skipped", c.name, code, got, stderr)
			}
			continue
		}
		for _, name := range []string{"pixel_auroc", "pixel_ap", "aupro_030"} {
			if code != command.Done || stderr != "" || got[name] != want[name] {
				t.Errorf("%s: got code %d, stderr %q, %s %v, want %v", c.name, code, stderr, name, got[name], want[name])
			}
		}
	}
}

// The images may lie in folders of any name, or in a list, and give what they give in a layout.
func TestEvalFoldersAndLists(t *testing.T) {
	_, stdout, _ := infer(nil, commandLine("eval", "--json", "--data", dataDir)...)
	want := objects(t, stdout)[0]
	test := filepath.Join(dataDir, "test")
	folders := []string{"--test-good", filepath.Join(test, "good"), "--masks", filepath.Join(dataDir, "ground_truth")}
	list := "path;label;split;mask\n" + test + "/good/000.png;good;test;\n" + test + "/good/001.png;good;test;\n"
	for _, kind := range []string{"dent", "missing_hole", "scratch", "stain"} {
		folders = append(folders, "--bad", filepath.Join(test, kind))
		list += fmt.Sprintf("%s/%s/000.png;%s;test;%s/ground_truth/%s/000_mask.png\n", test, kind, kind, dataDir, kind)
	}
	file := filepath.Join(t.TempDir(), "list.csv")
	if err := os.WriteFile(file, []byte(list), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, flags := range map[string][]string{"folders": folders, "list": {"--list", file}} {
		code, stdout, stderr := infer(nil, commandLine("eval", append(flags, "--json")...)...)
		all := objects(t, stdout)
		if code != command.Done || len(all) != 1 {
			t.Fatalf("%s: got code %d, stdout %q, stderr %q, want code 0 and one object", name, code, stdout, stderr)
		}
		for _, figure := range []string{"good", "defective", "image_auroc", "pixel_auroc", "aupro_030"} {
			if all[0][figure] != want[figure] {
				t.Errorf("%s: %s: got %v, want %v", name, figure, all[0][figure], want[figure])
			}
		}
	}
	gut := filepath.Join(t.TempDir(), "teile")
	if err := os.CopyFS(filepath.Join(gut, "gut"), os.DirFS(filepath.Join(test, "good"))); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := infer(nil, commandLine("eval", "--data", gut)...)
	if code != command.Failed || !strings.HasPrefix(stderr, "infer: name the folders: --good DIR --bad DIR") || !oneLine(stderr, "gut (2 images)") {
		t.Errorf("a folder of another name: got code %d, stderr %q, want code 1 and what to do first", code, stderr)
	}
}

// The members of eval's JSON have the names and the order that programs read.
func TestEvalMembers(t *testing.T) {
	c := rdpp.Calibration{Rule: "given", Threshold: 0.25}
	text, err := json.Marshal(evaluation{Verdicts: c.Verdicts(), FalseAlarm: 0.01, Provisional: true})
	const want = `{"category":"","data":"","taken":{"train_good":0,"test_good":0,"test_defective":0,"masks":0},"teacher":{"origin":""},"good":0,"defective":0,` +
		`"good_flagged":0,"defective_found":0,"threshold":0.25,"threshold_rule":"given","false_alarm":0.01,"provisional":true,"skipped":0}`
	if err != nil || string(text) != want {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
}
