package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// objects decodes the lines of --json.
func objects(t *testing.T, stdout string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(stdout) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		all = append(all, o)
	}
	return all
}

func TestImageJSON(t *testing.T) {
	_, anomalous := testImages()
	path := anomalous[0]
	code, stdout, stderr := infer(nil, commandLine("image", "--json", path)...)
	all := objects(t, stdout)
	if code != command.Anomalous || len(all) != 1 || stderr != "" {
		t.Fatalf("got code %d, stdout %q, stderr %q, want code 3 and one object", code, stdout, stderr)
	}
	o := all[0]
	fields := []string{"anomalous", "exact", "height", "image", "normalised", "p_value", "p_value_bound", "pixel_threshold", "provisional", "regions", "score", "threshold", "width"}
	if got := slices.Sorted(maps.Keys(o)); !slices.Equal(got, fields) {
		t.Errorf("got fields %v, want %v", got, fields)
	}
	score := scores[path]
	want := map[string]any{"image": path, "score": score, "normalised": score / (score + threshold), "anomalous": true,
		"threshold": threshold, "pixel_threshold": threshold, "provisional": true, "p_value": nil, "width": float64(pictureSize), "height": float64(pictureSize)}
	for name, value := range want {
		if o[name] != value {
			t.Errorf("%s: got %v, want %v", name, o[name], value)
		}
	}
	regions, _ := o["regions"].([]any)
	if len(regions) == 0 {
		t.Fatalf("got regions %v, want some", o["regions"])
	}
	for _, region := range regions {
		r := region.(map[string]any)
		if got, want := slices.Sorted(maps.Keys(r)), []string{"area", "height", "mean", "peak", "width", "x", "y"}; !slices.Equal(got, want) {
			t.Errorf("got fields %v, want %v", got, want)
		}
		x, y, w, h := r["x"].(float64), r["y"].(float64), r["width"].(float64), r["height"].(float64)
		if x < 0 || y < 0 || w < 1 || h < 1 || x+w > pictureSize || y+h > pictureSize {
			t.Errorf("got region %v, want one inside %d x %d", r, pictureSize, pictureSize)
		}
	}
	if peak := regions[0].(map[string]any)["peak"].(float64); !(peak >= score) {
		t.Errorf("got peak %v of the first region, want no less than the score %v", peak, score)
	}
}

func TestImageExitCodeAndThreshold(t *testing.T) {
	good, anomalous := testImages()
	missing := filepath.Join(t.TempDir(), "missing.png")
	for _, c := range []struct {
		name string
		args []string
		want int
	}{
		{"good", good, command.Done},
		{"anomalous", anomalous, command.Anomalous},
		{"both", []string{anomalous[0], good[0]}, command.Anomalous},
		{"a failure outweighs", []string{anomalous[0], missing, good[0]}, command.Failed},
		{"a failure first", []string{missing, anomalous[0]}, command.Failed},
		{"high threshold", append([]string{"--threshold=6"}, anomalous...), command.Done},
		{"zero threshold", append([]string{"--threshold=0"}, good...), command.Anomalous},
	} {
		code, stdout, stderr := infer(nil, commandLine("image", append([]string{"--json"}, c.args...)...)...)
		if code != c.want {
			t.Errorf("%s: got code %d, want %d; stderr %q", c.name, code, c.want, stderr)
		}
		provisional := !strings.HasPrefix(c.args[0], "--threshold")
		for _, o := range objects(t, stdout) {
			if o["image"] == missing {
				if text, _ := o["error"].(string); len(o) != 2 || !strings.Contains(text, "no such file") {
					t.Errorf("%s: got %v, want the image and its error", c.name, o)
				}
				continue
			}
			if o["provisional"] != provisional || o["anomalous"] != (o["score"].(float64) > o["threshold"].(float64)) ||
				o["anomalous"] != (len(o["regions"].([]any)) > 0) {
				t.Errorf("%s: got %v, want provisional %v, and verdict and regions that agree with the score", c.name, o, provisional)
			}
		}
	}
}

// A calibrated model gives p-values, and its thresholds can be overridden.
func TestImageCalibrated(t *testing.T) {
	model, err := rdpp.LoadModel(modelFile, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	// The scores of 19 good images: one step above a test image's score, all others below.
	good, _ := testImages()
	score := scores[good[0]]
	normal := []float64{}
	for i := range 18 {
		normal = append(normal, score*float64(i+1)/20)
	}
	normal = append(normal, score*1.001)
	model.Info.Calibration = rdpp.Calibration{Rule: "by hand", FalseAlarm: 0.05, Exact: true, Threshold: score * 1.001,
		PixelThreshold: score * 1.001, Scores: normal}
	calibrated := filepath.Join(t.TempDir(), "calibrated.safetensors")
	if err := model.Save(calibrated); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flags     string
		anomalous bool
		threshold float64
		pixels    float64
		regions   bool
	}{
		{"", false, score * 1.001, score * 1.001, false},
		{"--false-alarm 0.05", false, score * 1.001, score * 1.001, false},
		{"--false-alarm 0.1", true, score * 18 / 20, score * 18 / 20, true},
		{"--threshold 0.5", true, 0.5, 0.5, true},
		{"--pixel-threshold 0.5", false, score * 1.001, 0.5, true},
		{"--false-alarm 0.1 --pixel-threshold 6", true, score * 18 / 20, 6, false},
	} {
		args := append([]string{"image", "--json", "--threads=2", "--model", calibrated}, strings.Fields(c.flags)...)
		code, stdout, stderr := infer(nil, append(args, good[0])...)
		all := objects(t, stdout)
		if len(all) != 1 || stderr != "" || (code == command.Anomalous) != c.anomalous {
			t.Fatalf("%s: got code %d, stdout %q, stderr %q", c.flags, code, stdout, stderr)
		}
		o := all[0]
		near := func(name string, want float64) {
			if got := o[name].(float64); math.Abs(got-want) > 1e-12 {
				t.Errorf("%s: got %s %v, want %v", c.flags, name, got, want)
			}
		}
		near("p_value", 2.0/20)
		near("threshold", c.threshold)
		near("pixel_threshold", c.pixels)
		if o["provisional"] != false || o["anomalous"] != c.anomalous || (len(o["regions"].([]any)) > 0) != c.regions {
			t.Errorf("%s: got %v, want anomalous %v, regions %v", c.flags, o, c.anomalous, c.regions)
		}
	}
	// Too few scores for a rate of 1 %: said in words, and in every object.
	few := []string{"image", "--threads=2", "--model", calibrated, "--false-alarm=0.01", good[0]}
	if code, _, stderr := infer(nil, few...); code != command.Done || !oneLine(stderr, "estimated: some 1 % of good images") {
		t.Errorf("few scores: got code %d, stderr %q, want code 0 and one line about the threshold", code, stderr)
	}
	if _, stdout, _ := infer(nil, append(few, "--json")...); !strings.Contains(stdout, `"exact":false`) {
		t.Errorf("few scores: got %s, want exact false", stdout)
	}
	// Heatmaps are named where they are made.
	dir := t.TempDir()
	_, stdout, _ := infer(nil, "image", "--json", "--threads=2", "--model", calibrated, "--heatmap", dir, good[0])
	if o := objects(t, stdout); len(o) != 1 || filepath.Dir(o[0]["heatmap"].(string)) != dir || o[0]["exact"] != true {
		t.Errorf("got %s, want the heatmap's file", stdout)
	} else if _, err := os.Stat(o[0]["heatmap"].(string)); err != nil {
		t.Error(err)
	}
	code, _, stderr := infer(nil, "image", "--model", modelFile, "--false-alarm", "0.01", good[0])
	if code != command.WrongUsage || !oneLine(stderr, "train with calibration, or give a --threshold") {
		t.Errorf("a provisional model: got code %d, stderr %q, want code 2 and what to do", code, stderr)
	}
}

func TestImageLines(t *testing.T) {
	good, anomalous := testImages()
	odd := filepath.Join(t.TempDir(), "a\nb.png")
	content, err := os.ReadFile(good[0])
	if err == nil {
		err = os.WriteFile(odd, content, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := infer(nil, commandLine("image", good[0], anomalous[0], odd)...)
	if code != command.Anomalous || !oneLine(stderr, "the threshold is provisional (middle of the test images)") {
		t.Errorf("got code %d, stderr %q, want code 3 and one line about the threshold", code, stderr)
	}
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("got %q, want 3 lines", stdout)
	}
	for i, want := range []string{
		fmt.Sprintf("good       %9.6f  %9.6f         -    0  %s", scores[good[0]], threshold, good[0]),
		fmt.Sprintf("ANOMALOUS  %9.6f  %9.6f  ", scores[anomalous[0]], threshold),
		fmt.Sprintf("good       %9.6f  %9.6f         -    0  %s", scores[good[0]], threshold, strings.ReplaceAll(odd, "\n", `\n`)),
	} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d: got %q, want %q", i, lines[i], want)
		}
	}
	if _, _, stderr := infer(nil, commandLine("image", "--threshold=1", good[0])...); stderr != "" {
		t.Errorf("with a threshold of one's own: got %q, want nothing", stderr)
	}
}

func TestImageStandardInput(t *testing.T) {
	good, _ := testImages()
	content, err := os.ReadFile(good[0])
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, _ := infer(content, commandLine("image", "--json", "-")...)
	all := objects(t, stdout)
	if code != command.Done || len(all) != 1 || all[0]["image"] != "-" || all[0]["score"] != scores[good[0]] {
		t.Errorf("got code %d, %s, want code 0 and score %v of image -", code, stdout, scores[good[0]])
	}
	for name, content := range map[string][]byte{"empty": nil, "truncated": content[:len(content)/2], "text": []byte("hello")} {
		if code, stdout, stderr := infer(content, commandLine("image", "--json", "-")...); code != command.Failed || !oneLine(stderr, "standard input") ||
			!strings.HasPrefix(stdout, `{"image":"-","error":"standard input: `) {
			t.Errorf("%s: got code %d, stdout %q, stderr %q, want code 1 and one line on both", name, code, stdout, stderr)
		}
	}
	// 8 bytes for the one pixel, 64 MiB for metadata.
	big := make([]byte, 64<<20+8+1)
	if code, _, stderr := infer(big, commandLine("image", "--json", "--max-pixels=1", "-")...); code != command.Failed || !oneLine(stderr, "more than 67108872 bytes") {
		t.Errorf("too much: got code %d, stderr %q, want code 1 and the limit", code, stderr)
	}
}

func TestImageFolder(t *testing.T) {
	good, anomalous := testImages()
	dir := t.TempDir()
	copyFile := func(from, name string) {
		content, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	inFlight := 2*4 + max(runtime.GOMAXPROCS(0), 2) // with batches of four; more images, so that the order is put to the test
	want := []string{}
	for i := range 3 * inFlight {
		name := fmt.Sprintf("%04d.PNG", i)
		copyFile(slices.Concat(good, anomalous)[i%6], name)
		want = append(want, filepath.Join(dir, name))
	}
	copyFile(good[0], "notes.txt")
	copyFile(good[0], ".hidden.png")
	if err := os.MkdirAll(filepath.Join(dir, "below.png"), 0o777); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := infer(nil, commandLine("image", "--json", "--batch", "4", dir, good[1])...)
	var got []string
	for i, o := range objects(t, stdout) {
		got = append(got, o["image"].(string))
		if i < len(want) && o["score"] != scores[slices.Concat(good, anomalous)[i%6]] {
			t.Errorf("image %d: got score %v, want %v", i, o["score"], scores[slices.Concat(good, anomalous)[i%6]])
		}
	}
	if want := append(want, good[1]); code != command.Anomalous || stderr != "" || !slices.Equal(got, want) {
		t.Errorf("got code %d, stderr %q, images %v, want code 3, images %v", code, stderr, got, want)
	}
}

// How many images are scored at once leaves no trace: lines, errors and their order are the same, to the bit, in either
// precision.
func TestImageBatches(t *testing.T) {
	good, anomalous := testImages()
	missing := filepath.Join(t.TempDir(), "missing.png")
	text := filepath.Join(t.TempDir(), "text.png")
	if err := os.WriteFile(text, []byte("not a picture"), 0o666); err != nil {
		t.Fatal(err)
	}
	images := slices.Concat(good, []string{missing}, anomalous, []string{text}, good)
	for _, precision := range []torch.Precision{torch.FP32, torch.BF16} {
		want := ""
		for _, n := range []string{"1", "2", "3", "5", "8", "0"} {
			code, stdout, stderr := infer(nil, commandLine("image", append([]string{"--json", "--precision", string(precision), "--batch", n}, images...)...)...)
			got := fmt.Sprint(code, stdout, stderr)
			if want == "" {
				want = got
			}
			if code != command.Failed || got != want || strings.Count(stdout, "\n") != len(images) {
				t.Errorf("%s, batches of %s: got %s, want %s", precision, n, got, want)
			}
		}
	}
}

// Which of a file's pages is scored is said in a line.
func TestImagePages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "paged.tif")
	if err := os.WriteFile(path, testmain.TwoPages(), 0o666); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := infer(nil, commandLine("image", "--json", path)...)
	if code == command.Failed || len(objects(t, stdout)) != 1 || !oneLine(stderr, path+": the first of 2 pages is scored") {
		t.Errorf("got code %d, stdout %q, stderr %q, want a score and a line about pages", code, stdout, stderr)
	}
}

// Every bad input is named in one line, and the images around it are done.
func TestImageBadInput(t *testing.T) {
	good, _ := testImages()
	content, err := os.ReadFile(good[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o777); err != nil {
		t.Fatal(err)
	}
	cases := []struct{ path, want string }{
		{file("truncated.png", content[:len(content)/2]), "copy it again"},
		{file("text.png", []byte("not a picture")), "not an image"},
		{file("zero.png", nil), "empty file"},
		{file("huge.png", testmain.HugePNG()), "60000 x 60000"},
		{filepath.Join(dir, "missing.png"), "check the path"},
		{filepath.Join(good[0], "below"), "check the path"},
		{empty, "no images directly in this folder"},
	}
	args := []string{"--json", good[0]}
	for _, c := range cases {
		args = append(args, c.path)
	}
	code, stdout, stderr := infer(nil, commandLine("image", append(args, good[1])...)...)
	all := objects(t, stdout)
	if code != command.Failed || len(all) != len(cases)+2 || all[0]["score"] != scores[good[0]] || all[len(all)-1]["score"] != scores[good[1]] {
		t.Fatalf("got code %d, %v, want code 1 and the images before and after the bad ones", code, all)
	}
	for i, c := range cases {
		if text, _ := all[i+1]["error"].(string); all[i+1]["image"] != c.path || !strings.Contains(text, c.want) {
			t.Errorf("got %v, want %s and %q", all[i+1], c.path, c.want)
		}
	}
	lines := slices.Collect(strings.Lines(stderr))
	if len(lines) != len(cases) {
		t.Fatalf("got %d lines %q, want one for each of %d", len(lines), stderr, len(cases))
	}
	for i, c := range cases {
		if !oneLine(lines[i], c.path) || !strings.Contains(lines[i], c.want) {
			t.Errorf("%s: got %q, want a line with the path and %q", c.path, lines[i], c.want)
		}
	}
	code, _, stderr = infer(nil, commandLine("image", "--max-pixels=9215", good[0])...)
	if code != command.Failed || !strings.Contains(stderr, "raise --max-pixels") {
		t.Errorf("96 x 96 pixels, 9215 allowed: got code %d, stderr %q, want code 1 and the remedy", code, stderr)
	}
}

func TestHeatmaps(t *testing.T) {
	good, anomalous := testImages()
	content, err := os.ReadFile(good[0])
	if err != nil {
		t.Fatal(err)
	}
	in, out := t.TempDir(), filepath.Join(t.TempDir(), "new", "folder")
	// The same base name thrice, and a picture that is not square.
	var images []string
	wide := image.NewRGBA(image.Rect(0, 0, 70, 40))
	for x := range 70 {
		wide.Set(x, x/2, color.RGBA{uint8(3 * x), 200, 90, 255})
	}
	var encoded bytes.Buffer
	if err := png.Encode(&encoded, wide); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"a.png": content, "a.jpg": content, "sub/a.png": content, "wide.png": encoded.Bytes()} {
		path := filepath.Join(in, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		images = append(images, path)
	}
	slices.Sort(images)
	code, _, stderr := infer(content, commandLine("image", append([]string{"--json", "--heatmap", out, "-", anomalous[0]}, images...)...)...)
	if code == command.Failed || stderr != "" {
		t.Fatalf("got code %d, stderr %q, want none failed", code, stderr)
	}
	const scale = 37 // pixels below the picture, with the scale of the colours
	want := map[string]image.Point{"stdin_heatmap.png": {96, 96 + scale}, "a_heatmap.png": {96, 96 + scale}, "a_heatmap_2.png": {96, 96 + scale},
		"a_heatmap_3.png": {96, 96 + scale}, "wide_heatmap.png": {70, 40 + scale},
		strings.TrimSuffix(filepath.Base(anomalous[0]), ".png") + "_heatmap.png": {96, 96 + scale}}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Errorf("got files %v, want %v", entries, want)
	}
	brightest := func(name string) (most uint32) {
		f, err := os.Open(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m, err := png.Decode(f)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := m.Bounds(); got != (image.Rectangle{Max: want[name]}) {
			t.Errorf("%s: got %v, want %v", name, got, want[name])
		}
		for y := range want[name].Y - scale {
			for x := range want[name].X {
				r, g, b, _ := m.At(x, y).RGBA()
				most = max(most, r+g+b)
			}
		}
		return most
	}
	for name := range want {
		if brightest(name) == 0 {
			t.Errorf("%s: got a black picture", name)
		}
	}
	// The scale is the threshold's where no pixel is beyond it: with a high one everything is dark.
	dark := brightest("a_heatmap.png")
	if code, _, stderr := infer(nil, commandLine("image", "--json", "--threshold=4", "--heatmap", out, images[0])...); code != command.Done {
		t.Fatalf("got code %d, stderr %q, want 0", code, stderr)
	}
	if got := brightest("a_heatmap.png"); got >= dark {
		t.Errorf("got brightness %d under a threshold of 4, want less than the %d before", got, dark)
	}
}

// Heat maps that lie among the photographs are not scored as such, whether found in a folder or named.
func TestHeatmapsAreNotScored(t *testing.T) {
	dir := t.TempDir()
	good, _ := testImages()
	content, err := os.ReadFile(good[0])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a.png")
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	// The second time over the folder has two files in it, of which one counts.
	for _, note := range []string{"", fmt.Sprintf("left out: 1 of the images in %q, heat maps of infer image", dir)} {
		code, stdout, stderr := infer(nil, commandLine("image", "--json", "--threshold=6", "--heatmap", dir, dir)...)
		if all := objects(t, stdout); code != command.Done || len(all) != 1 || all[0]["image"] != path || !strings.Contains(stderr, note) || note == "" && stderr != "" {
			t.Errorf("got code %d, stdout %q, stderr %q, want code 0, one object, and %q", code, stdout, stderr, note)
		}
	}
	drawn := filepath.Join(dir, "a_heatmap.png")
	if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) != 2 {
		t.Errorf("got files %v, %v, want the image and one heat map", files, err)
	}
	code, stdout, stderr := infer(nil, commandLine("image", "--json", "--threshold=6", path, drawn)...)
	if all := objects(t, stdout); code != command.Done || len(all) != 1 || !oneLine(stderr, fmt.Sprintf("left out: %q is a heat map", drawn)) {
		t.Errorf("named: got code %d, stdout %q, stderr %q, want code 0, one object, and a note", code, stdout, stderr)
	}
	if code, stdout, stderr := infer(nil, commandLine("image", drawn)...); code != command.Failed || stdout != "" || !oneLine(stderr, "name photographs") {
		t.Errorf("named alone: got code %d, stdout %q, stderr %q, want code 1", code, stdout, stderr)
	}
	renamed := filepath.Join(dir, "b.png")
	if err := os.Rename(drawn, renamed); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := infer(nil, commandLine("image", "--threshold=6", dir)...); code != command.Failed || strings.Count(stdout, "\n") != 1 ||
		!strings.Contains(stderr, renamed) || !strings.Contains(stderr, "heat map") {
		t.Errorf("renamed: got code %d, stdout %q, stderr %q, want code 1, one image, and the other named", code, stdout, stderr)
	}
}

// A threshold of 0 has no scale of its own, but a line: random weights leave nothing at 0.
func TestHeatmapAtThresholdZero(t *testing.T) {
	good, _ := testImages()
	out := t.TempDir()
	code, _, stderr := infer(nil, commandLine("image", "--json", "--threshold=0", "--heatmap", out, good[0])...)
	if code != command.Anomalous {
		t.Errorf("got code %d, stderr %q, want 3", code, stderr)
	}
	f, err := os.Open(filepath.Join(out, strings.TrimSuffix(filepath.Base(good[0]), ".png")+"_heatmap.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	line := 0
	for y := range 96 {
		for x := range 96 {
			if color.RGBAModel.Convert(m.At(x, y)) == (color.RGBA{0, 255, 220, 255}) {
				line++
			}
		}
	}
	if line == 0 {
		t.Error("got no line in the picture")
	}
}

// The page of --report has every image, with the nearest good one where a folder of them is named.
func TestImageReport(t *testing.T) {
	good, anomalous := testImages()
	dir := t.TempDir()
	page := filepath.Join(dir, "page.html")
	code, _, stderr := infer(nil, commandLine("image", "--json", "--report", page, "--good", filepath.Dir(good[0]), good[0], anomalous[0])...)
	if code != command.Anomalous || stderr != "" {
		t.Fatalf("got code %d, stderr %q, want 3 and nothing", code, stderr)
	}
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	for what, n := range map[string]int{"<strong><bdi>" + good[0]: 1, "<strong><bdi>" + anomalous[0]: 1, "nearest good: ": 2, "nearest good: <bdi>" + good[0]: 1,
		"nothing outlined</div>": 1, "outline</div>": 1, "Metrics</h2>": 0, "no test images": 0, "no mask": 0} {
		if got := strings.Count(text, what); got < n || n == 0 && got > 0 {
			t.Errorf("got %q %d times, want %d", what, got, n)
		}
	}
	if i, j := strings.Index(text, "<strong><bdi>"+anomalous[0]), strings.Index(text, "<strong><bdi>"+good[0]); i > j {
		t.Error("got the lower score first")
	}
	for name, args := range map[string][]string{
		"--good alone":  {"--good", dir, good[0]},
		"a folder":      {"--report", dir, good[0]},
		"no images":     {"--report", page, "--good", dir, good[0]},
		"no such place": {"--report", filepath.Join(dir, "none", "page.html"), good[0]},
	} {
		code, stdout, stderr := infer(nil, commandLine("image", args...)...)
		if code == command.Done || code == command.Anomalous || stdout != "" || !oneLine(stderr, "") {
			t.Errorf("%s: got code %d, stdout %q, stderr %q, want one line of error", name, code, stdout, stderr)
		}
	}
}

func TestHeatmapFolderFails(t *testing.T) {
	good, _ := testImages()
	code, stdout, stderr := infer(nil, commandLine("image", "--json", "--heatmap", filepath.Join(modelFile, "maps"), good[0])...)
	if code != command.Failed || stdout != "" || !oneLine(stderr, "choose another with --heatmap") {
		t.Errorf("below a file: got code %d, stdout %q, stderr %q, want code 1 and the remedy", code, stdout, stderr)
	}
	// The picture's own file cannot be written: its result still counts, and the next one is done.
	out := t.TempDir()
	blocked := filepath.Join(out, strings.TrimSuffix(filepath.Base(good[0]), ".png")+"_heatmap.png")
	if err := os.MkdirAll(filepath.Join(blocked, "in the way"), 0o777); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = infer(nil, commandLine("image", "--json", "--heatmap", out, good[0], good[1])...)
	if code != command.Failed || len(objects(t, stdout)) != 2 || !oneLine(stderr, blocked) {
		t.Errorf("one blocked: got code %d, stdout %q, stderr %q, want code 1, both results and the file's name", code, stdout, stderr)
	}
}
