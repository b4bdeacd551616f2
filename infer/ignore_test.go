package main

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/imagefile"
)

// drawMask writes a mask in which a rectangle is drawn.
func drawMask(t *testing.T, path string, w, h int, drawn image.Rectangle) string {
	t.Helper()
	m := image.NewGray(image.Rect(0, 0, w, h))
	draw.Draw(m, drawn, image.NewUniform(color.White), image.Point{}, draw.Src)
	var file bytes.Buffer
	if err := png.Encode(&file, m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, file.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// One mask is for all images of a call, a folder of masks for those of their names, and infer eval does alike.
func TestIgnore(t *testing.T) {
	good, anomalous := testImages()
	path, other := anomalous[0], good[0]
	dir := t.TempDir()
	hidden := image.Rect(0, 0, pictureSize, pictureSize/2)
	one := drawMask(t, filepath.Join(dir, "mask.png"), pictureSize, pictureSize, hidden)
	folder := filepath.Join(dir, "masks")
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	name := strings.TrimSuffix(filepath.Base(path), ".png")
	drawMask(t, filepath.Join(folder, name+"_mask.png"), pictureSize, pictureSize, hidden)

	d, err := rdpp.OpenDetector(modelFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	mask, err := imagefile.DecodeMaskFile(one, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{}
	for _, path := range []string{path, other} {
		img, err := imagefile.DecodeFile(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := d.DetectIgnoring(img, mask)
		if err != nil {
			t.Fatal(err)
		}
		want[path] = r.Score
	}
	if want[path] == scores[path] {
		t.Fatalf("the mask changes nothing: got score %v twice", want[path])
	}
	_, stdout, stderr := infer(nil, commandLine("image", "--json", "--ignore", one, path, other)...)
	for i, o := range objects(t, stdout) {
		if path := []string{path, other}[i]; o["score"] != want[path] {
			t.Errorf("one mask, %s: got %v, want score %v; stderr %q", path, o, want[path], stderr)
		}
	}
	_, stdout, stderr = infer(nil, commandLine("image", "--json", "--ignore", folder, path)...)
	if all := objects(t, stdout); len(all) != 1 || all[0]["score"] != want[path] {
		t.Errorf("a folder of masks: got %v, want score %v; stderr %q", all, want[path], stderr)
	}
	csv := filepath.Join(dir, "scores.csv")
	if code, _, stderr := infer(nil, commandLine("eval", "--data", dataDir, "--ignore", one, "--scores", csv)...); code != command.Done {
		t.Fatalf("eval: got code %d, %q", code, stderr)
	}
	text, err := os.ReadFile(csv)
	if err != nil {
		t.Fatal(err)
	}
	for path, score := range want {
		if line := path + ","; !strings.Contains(string(text), line) || !strings.Contains(lineOf(string(text), line), strconv.FormatFloat(score, 'g', -1, 64)) {
			t.Errorf("eval, %s: got %q, want score %v", path, lineOf(string(text), line), score)
		}
	}

	l := newLine(t)
	copyImage(t, path, filepath.Join(l.in, filepath.Base(path)))
	_, stdout, stderr = infer(nil, l.command("--once", "--json", "--ignore", one)...)
	if all := objects(t, stdout); len(all) != 1 || all[0]["score"] != want[path] {
		t.Errorf("watch: got %v, want score %v; stderr %q", all, want[path], stderr)
	}
	copyImage(t, other, filepath.Join(l.in, filepath.Base(other))) // which has no mask in the folder
	for mask, want := range map[string][]float64{one: {want[path], want[other]}, folder: {want[path], scores[other]}} {
		slices.Sort(want)
		calibrated := filepath.Join(dir, "calibrated.safetensors")
		if code, _, stderr := infer(nil, commandLine("calibrate", "--data", l.in, "--ignore", mask, "--threshold=1", "--out", calibrated)...); code != command.Done {
			t.Fatalf("calibrate, %s: got code %d, %q", mask, code, stderr)
		}
		c, err := rdpp.OpenDetector(calibrated, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Info().Calibration.Scores; !slices.Equal(got, want) {
			t.Errorf("calibrate, %s: got scores %v, want %v", mask, got, want)
		}
		c.Close()
	}
}

func lineOf(text, start string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, start) {
			return line
		}
	}
	return ""
}

// Masks that cannot be used are told in one line.
func TestIgnoreErrors(t *testing.T) {
	_, anomalous := testImages()
	dir := t.TempDir()
	all := drawMask(t, filepath.Join(dir, "all.png"), pictureSize, pictureSize, image.Rect(0, 0, pictureSize, pictureSize))
	wide := drawMask(t, filepath.Join(dir, "wide.png"), pictureSize, pictureSize/2, image.Rect(0, 0, 1, 1))
	half := drawMask(t, filepath.Join(dir, "half.png"), pictureSize/2, pictureSize/2, image.Rect(0, 0, 9, 9))
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ignore string
		code   int
		want   string
	}{
		{filepath.Join(dir, "missing.png"), command.WrongUsage, "no such file"},
		{empty, command.Failed, "no mask"},
		{modelFile, command.Failed, "not an image"},
		{all, command.Failed, "nothing of the picture is left"},
		{wide, command.Failed, "another shape"},
		{half, command.Anomalous, "was scaled"},
	} {
		code, _, stderr := infer(nil, commandLine("image", "--threshold=0", "--ignore", c.ignore, anomalous[0])...)
		if code != c.code || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: got code %d, %q, want %d and a line with %q", c.ignore, code, stderr, c.code, c.want)
		}
	}
}

// A folder of masks of which none belongs to an image, or one to several, is refused.
func TestIgnoreFolder(t *testing.T) {
	mask := func(files ...string) *ignored {
		i := &ignored{path: "masks", files: map[string]string{}}
		for _, f := range files {
			i.files[strings.TrimSuffix(f, ".png")] = "masks/" + f
		}
		return i
	}
	for _, c := range []struct {
		name   string
		masks  *ignored
		images []string
		want   string // in the error; "": none
	}{
		{"some have one", mask("a.png", "x.png"), []string{"1/a.png", "1/b.png"}, ""},
		{"an image named twice", mask("a.png"), []string{"1/a.png", "1/a.png"}, ""},
		{"of none", mask("x.png"), []string{"1/a.png", "1/b.png"}, "none of the files"},
		{"of two", mask("a.png"), []string{"1/a.png", "1/b.png", "2/a.png"}, "2/a.png"},
		{"no folder", &ignored{}, []string{"1/a.png"}, ""},
	} {
		if err := c.masks.check(c.images); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want a word about %q", c.name, err, c.want)
		}
	}
}
