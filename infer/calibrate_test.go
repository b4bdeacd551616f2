package main

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"image"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/history"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/weights"
)

// TestCalibrate: a model that is calibrated anew gives the same scores, by thresholds and p-values of the new images, and says
// whose they are; the file that is calibrated stays.
func TestCalibrate(t *testing.T) {
	good, anomalous := testImages()
	dir := t.TempDir()
	images := filepath.Join(dir, "line")
	for i, path := range slices.Concat(good, anomalous) {
		copyImage(t, path, filepath.Join(images, fmt.Sprintf("%d.png", i)))
	}
	before, err := weights.SHA256(modelFile)
	if err != nil {
		t.Fatal(err)
	}
	// The rate by rank: of 6 scores the 5th is the threshold for 2 of 7.
	var sorted []float64
	for _, score := range scores {
		sorted = append(sorted, score)
	}
	slices.Sort(sorted)
	for _, c := range []struct {
		args      []string
		threshold float64
		n         int // scores in the file
	}{
		{[]string{"--data", images, "--false-alarm", "0.3"}, sorted[4], 6},
		{[]string{"--data", images, "--threshold", "0.125", "--false-alarm", "0.3"}, -1, 0},
		{[]string{"--data", images, "--threshold", "0.125"}, 0.125, 6},
	} {
		out := filepath.Join(dir, "new.safetensors")
		code, stdout, stderr := infer(nil, append(commandLine("calibrate", "--out", out), c.args...)...)
		if c.threshold < 0 {
			if code != command.WrongUsage || !strings.Contains(stderr, "exclude each other") {
				t.Errorf("%v: got code %d, %q, want wrong usage", c.args, code, stderr)
			}
			continue
		}
		if code != command.Done || !strings.Contains(stdout, "6, 3 of them above the threshold so far") || strings.Contains(stderr, "far above") {
			t.Fatalf("%v: got code %d, stdout %q, stderr %q", c.args, code, stdout, stderr)
		}
		if _, about, _ := infer(nil, "info", out); !strings.Contains(about, "by 6 images of line, after training\n") {
			t.Errorf("%v: infer info says %q, want whose scores these are", c.args, about)
		}
		d, err := rdpp.OpenDetector(out, nil)
		if err != nil {
			t.Fatal(err)
		}
		info := d.Info()
		if math.Abs(d.Threshold()-c.threshold) > 1e-12 || len(info.Calibration.Scores) != c.n || info.Recalibrated.Images != 6 || info.Recalibrated.Origin != "line" ||
			len(info.Recalibrated.Fingerprint) != 64 {
			t.Errorf("%v: got threshold %v, %+v, %+v, want %v by 6 images", c.args, d.Threshold(), info.Calibration, info.Recalibrated, c.threshold)
		}
		d.Close()
		_, stdout, _ = infer(nil, append([]string{"image", "--json", "--model", out, "--threads", "2"}, anomalous[0])...)
		if o := objects(t, stdout)[0]; o["score"] != scores[anomalous[0]] || o["p_value"] == nil {
			t.Errorf("%v: got %v, want the score %v and a p-value", c.args, o, scores[anomalous[0]])
		}
	}
	// So few that a fit of their tail says next to nothing.
	few := filepath.Join(dir, "few")
	for i := range 2 {
		copyImage(t, filepath.Join(images, fmt.Sprintf("%d.png", i)), filepath.Join(few, fmt.Sprintf("%d.png", i)))
	}
	if code, _, stderr := infer(nil, commandLine("calibrate", "--out", filepath.Join(dir, "few.safetensors"), "--data", few)...); code != command.Done ||
		!strings.Contains(stderr, "a threshold by 2 images may lie far above them") {
		t.Errorf("two images: got code %d, stderr %q, want a warning", code, stderr)
	}
	// Its scores and those of two more images.
	first, second := filepath.Join(dir, "new.safetensors"), filepath.Join(dir, "newer.safetensors")
	code, _, stderr := infer(nil, "calibrate", "--model", first, "--out", second, "--threads", "2", "--add", "--false-alarm", "0.3", "--data",
		filepath.Join(dataDir, "test", "good"))
	if code != command.Done {
		t.Fatalf("--add: got code %d, stderr %q", code, stderr)
	}
	d, err := rdpp.OpenDetector(second, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, path := range []string{"000.png", "001.png"} {
		sorted = append(sorted, scores[filepath.Join(dataDir, "test", "good", path)])
	}
	slices.Sort(sorted)
	if info := d.Info(); !slices.Equal(info.Calibration.Scores, sorted) || !info.Recalibrated.Added || info.Recalibrated.Images != 2 {
		t.Errorf("--add: got %v, %+v, want %v", info.Calibration.Scores, info.Recalibrated, sorted)
	}
	// Their scores would count twice.
	code, _, stderr = infer(nil, "calibrate", "--model", second, "--out", first, "--threads", "2", "--add", "--data", filepath.Join(dataDir, "test", "good"))
	if code == command.Done || !strings.Contains(stderr, "count twice; use others, or leave --add out") {
		t.Errorf("--add of the same images: got code %d, stderr %q, want an error", code, stderr)
	}
	if after, err := weights.SHA256(modelFile); err != nil || after != before {
		t.Errorf("the model: got digest %s, %v, want it as before", after, err)
	}
	alone := filepath.Join(dir, "alone")
	copyImage(t, filepath.Join(images, "0.png"), filepath.Join(alone, "0.png"))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--data", images, "--out", modelFile}, "would be overwritten"},
		{[]string{"--data", images, "--out", filepath.Join(dir, "x"), "--add"}, "leave --add out"},
		{[]string{"--data", filepath.Join(dir, "missing"), "--out", filepath.Join(dir, "x")}, "missing"},
		{[]string{"--out", filepath.Join(dir, "x")}, "give --data or --history"},
		{[]string{"--data", images}, "--out is missing"},
		{[]string{"--data", alone, "--out", filepath.Join(dir, "x")}, "infer: 1 image of good parts cannot set a threshold"},
		{[]string{"--history", filepath.Join(dir, "missing.db"), "--out", filepath.Join(dir, "x")}, "missing.db"},
	} {
		if code, _, stderr := infer(nil, append(commandLine("calibrate"), c.args...)...); code == command.Done || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: got code %d, stderr %q, want %q", c.args, code, stderr, c.want)
		}
	}
}

// TestCalibrateByHistory: what was judged good and what an operator has called good count; what is not looked at is named.
func TestCalibrateByHistory(t *testing.T) {
	good, anomalous := testImages()
	dir := t.TempDir()
	file, out := filepath.Join(dir, "line.db"), filepath.Join(dir, "new.safetensors")
	copies := make([]string, 0, 6)
	for i, path := range slices.Concat(good, anomalous) {
		to := filepath.Join(dir, fmt.Sprintf("%d.png", i))
		copyImage(t, path, to)
		copies = append(copies, to)
	}
	infer(nil, append(commandLine("image", "--quiet", "--history", file), copies...)...)
	args := commandLine("calibrate", "--history", file, "--out", out, "--false-alarm", "0.3")
	code, stdout, stderr := infer(nil, args...)
	if code != command.Done || !strings.Contains(stdout, "images        3, 0 of them") || !strings.Contains(stderr, "3 images called anomalous") {
		t.Errorf("got code %d, stdout %q, stderr %q, want 3 images, and the others named", code, stdout, stderr)
	}
	if code, _, stderr := infer(nil, "history", file, "--correct", "4=good", "--correct", "5=anomalous", "--correct", "6=good", "--correct", "1=anomalous"); code != command.Done {
		t.Fatal(stderr)
	}
	if err := os.WriteFile(copies[5], []byte("changed"), 0o666); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = infer(nil, args...)
	if code != command.Done || !strings.Contains(stdout, "images        3, 1 of them") || !strings.Contains(stderr, "1 image whose file is gone") {
		t.Errorf("corrected: got code %d, stdout %q, stderr %q, want 3 images, one of them above the threshold", code, stdout, stderr)
	}
}

// TestCalibrateByMasks: images that infer image and watch judged with masks of their own are calibrated by with these, unless others are
// named; a mask that is gone is told with its image's name.
func TestCalibrateByMasks(t *testing.T) {
	good, _ := testImages()
	l := newLine(t)
	dir := t.TempDir()
	masks, out := filepath.Join(dir, "masks"), filepath.Join(dir, "new.safetensors")
	if err := os.Mkdir(masks, 0o777); err != nil {
		t.Fatal(err)
	}
	part := image.Rect(0, 0, pictureSize/2, pictureSize)
	drawMask(t, filepath.Join(masks, "0.png"), pictureSize, pictureSize, part)
	mask, err := imagefile.DecodeMaskFile(filepath.Join(masks, "0.png"), nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := rdpp.OpenDetector(modelFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	score := func(path string, own *imagefile.Mask) float64 {
		img, err := imagefile.DecodeFile(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := d.DetectIgnoring(img, own)
		if err != nil {
			t.Fatal(err)
		}
		return r.Score
	}
	// By infer image 0.png with a mask and 1.png without, by a watch 2.png with it.
	copies := make([]string, 3)
	for i := range copies {
		copies[i] = filepath.Join(dir, fmt.Sprintf("%d.png", i))
	}
	copies[2] = filepath.Join(l.in, "2.png")
	for i, path := range copies {
		copyImage(t, good[i], path)
	}
	all := []string{"--quiet", "--threshold=100"}
	infer(nil, append(commandLine("image", append(all, "--history", l.history, "--ignore", masks)...), copies[:2]...)...)
	infer(nil, l.command("--once", "--quiet", "--threshold=100", "--ignore", filepath.Join(masks, "0.png"))...)
	args := commandLine("calibrate", "--history", l.history, "--out", out, "--false-alarm", "0.3")
	for _, c := range []struct {
		args []string
		want []float64
	}{
		{nil, []float64{score(copies[0], mask), score(copies[1], nil), score(copies[2], mask)}},
		{[]string{"--ignore", filepath.Join(masks, "0.png")}, []float64{score(copies[0], mask), score(copies[1], mask), score(copies[2], mask)}},
	} {
		if code, _, stderr := infer(nil, append(args, c.args...)...); code != command.Done {
			t.Fatalf("%v: got code %d, %q", c.args, code, stderr)
		}
		calibrated, err := rdpp.OpenDetector(out, nil)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(c.want)
		if got := calibrated.Info().Calibration.Scores; !slices.Equal(got, c.want) {
			t.Errorf("%v: got scores %v, want %v", c.args, got, c.want)
		}
		calibrated.Close()
	}
	if score(copies[0], mask) == score(copies[0], nil) {
		t.Error("the mask changes no score")
	}
	db, err := sql.Open("sqlite3", l.history)
	if err == nil {
		_, err = db.Exec("DELETE FROM masks")
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	code, _, stderr := infer(nil, args...)
	if want := copies[0] + " was judged with a mask"; code != command.Failed || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("without its mask: got code %d, %q, want %q", code, stderr, want)
	}
}

// TestGoodOf: an image that was judged more than once has one label, the operator's latest, or else the latest verdict; images
// that models of other categories judged do not count.
func TestGoodOf(t *testing.T) {
	const category = "screw"
	dir := t.TempDir()
	type said struct {
		verdict, correction history.Verdict
		model               string
	}
	const good, anomalous, broken = history.Good, history.Anomalous, history.Broken
	cases := []struct {
		name string
		said []said // in this order, as are the corrections
		want bool
	}{
		{"good", []said{{good, "", category}}, true},
		{"corrected on the latest record", []said{{good, "", category}, {good, anomalous, category}}, false},
		{"corrected on the first record", []said{{good, anomalous, category}, {good, "", category}}, false},
		{"corrected twice", []said{{anomalous, anomalous, category}, {anomalous, good, category}}, true},
		{"corrected to good, then called anomalous", []said{{good, good, category}, {anomalous, "", category}}, true},
		{"anomalous at last", []said{{good, "", category}, {anomalous, "", category}}, false},
		{"good at last", []said{{anomalous, "", category}, {good, "", category}}, true},
		{"not read at last", []said{{good, "", category}, {broken, "", category}}, true},
		{"of another category", []said{{good, "", "nut"}}, false},
		{"of both", []said{{good, "", category}, {anomalous, anomalous, "nut"}}, true},
	}
	past := filepath.Join(dir, "line.db")
	h, err := history.Open(past, nil)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i, c := range cases {
		file := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(file, []byte(c.name), 0o666); err != nil {
			t.Fatal(err)
		}
		sum, err := weights.SHA256(file)
		if err != nil {
			t.Fatal(err)
		}
		if c.want {
			want = append(want, file)
		}
		for _, s := range c.said {
			r := history.Record{Time: time.UnixMicro(int64(i)), Image: file, SHA256: sum, Verdict: s.verdict, Model: s.model}
			if err := h.Add(t.Context(), &r); err != nil {
				t.Fatal(err)
			}
			if s.correction == "" {
				continue
			}
			if err := h.Correct(t.Context(), r.ID, s.correction, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	items, err := goodOf(t.Context(), past, "", category, dir, &command.Terminal{Stderr: &stderr})
	var got []string
	for _, item := range items {
		got = append(got, item.Path)
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, want := range []string{"2 verdicts left out", "1 image called anomalous"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("got %q, want %q", &stderr, want)
		}
	}
}
