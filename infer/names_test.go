package main

import (
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/weights"
)

// placed writes a good picture of the test data at each path.
func placed(t *testing.T, paths ...string) {
	t.Helper()
	good, _ := testImages()
	content, err := os.ReadFile(good[0])
	for _, path := range paths {
		err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, content, 0o666))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestLongNames: a heat map has a file's name whatever the image's is, and the exit code is the verdict's.
func TestLongNames(t *testing.T) {
	in, out := t.TempDir(), t.TempDir()
	ascii, chinese := strings.Repeat("a", 247), strings.Repeat("测", 81) // 243 bytes
	paths := []string{filepath.Join(in, ascii+"b.png"), filepath.Join(in, ascii+"c.png"), filepath.Join(in, chinese+"ab.png"),
		filepath.Join(in, chinese+".png"), filepath.Join(in, "sub", ascii+"b.png"), filepath.Join(in, strings.Repeat("\xe4", 250)+".png")}
	placed(t, paths...)
	for _, c := range []struct {
		threshold string
		want      int
	}{{"1e9", command.Done}, {"0", command.Anomalous}} {
		code, stdout, stderr := infer(nil, commandLine("image", append([]string{"--json", "--threshold", c.threshold, "--heatmap", out}, paths...)...)...)
		if code != c.want || stderr != "" {
			t.Fatalf("threshold %s: got code %d, stderr %q, want %d and nothing", c.threshold, code, stderr, c.want)
		}
		seen := map[string]bool{}
		for i, o := range objects(t, stdout) {
			path, _ := o["heatmap"].(string)
			if raw, _ := o["heatmap_base64"].(string); raw != "" {
				bytes, err := base64.StdEncoding.DecodeString(raw)
				if err != nil {
					t.Fatal(err)
				}
				path = string(bytes)
			} else if !utf8.ValidString(filepath.Base(paths[i])) {
				t.Errorf("%q: got no heatmap_base64", paths[i])
			}
			if _, err := os.Stat(path); err != nil || seen[path] || len(filepath.Base(path)) > 255 {
				t.Errorf("%q: got the heat map %q, %v, want a file of its own", paths[i], path, err)
			}
			if utf8.ValidString(paths[i]) && !utf8.ValidString(path) {
				t.Errorf("%q: a character is cut in %q", paths[i], path)
			}
			seen[path] = true
		}
		if entries, err := os.ReadDir(out); err != nil || len(entries) != len(paths) {
			t.Errorf("got %d heat maps, %v, want %d", len(entries), err, len(paths))
		}
	}
}

func TestNameHeatmaps(t *testing.T) {
	long := strings.Repeat("é", 130) // 260 bytes
	for _, c := range []struct {
		name    string
		sources []string
		want    []string // in the folder out
	}{
		{"plain", []string{"a.png", "-"}, []string{"a_heatmap.png", "stdin_heatmap.png"}},
		{"one name thrice", []string{"a.png", "a.jpg", "b/a.png"}, []string{"a_heatmap.png", "a_heatmap_2.png", "a_heatmap_3.png"}},
		{"names like heat maps", []string{"a.png", "a_heatmap.png", "a.jpg"}, []string{"a_heatmap.png", "a_heatmap_heatmap.png", "a_heatmap_2.png"}},
		{"over a source", []string{"a.png", "out/a_heatmap.png"}, []string{"a_heatmap_2.png", "a_heatmap_heatmap.png"}},
		{"243 bytes", []string{strings.Repeat("a", 243) + ".png"}, []string{strings.Repeat("a", 243) + "_heatmap.png"}},
		{"whole characters", []string{long + ".png"}, []string{long[:234] + "_" + digestOf(long) + "_heatmap.png"}},
		{"twice", []string{long + ".png", long + ".jpg"},
			[]string{long[:234] + "_" + digestOf(long) + "_heatmap.png", long[:232] + "_" + digestOf(long) + "_heatmap_2.png"}},
	} {
		var sources []source
		for _, path := range c.sources {
			sources = append(sources, source{path: path})
		}
		nameHeatmaps(sources, "out")
		for i, s := range sources {
			if got, want := s.heatmap, filepath.Join("out", c.want[i]); got != want {
				t.Errorf("%s: got %s, want %s", c.name, got, want)
			}
		}
	}
}

// digestOf is what a long name is cut for.
func digestOf(name string) string {
	return strings.TrimPrefix(strings.TrimSuffix(fileName(name, strings.Repeat("x", 200)), strings.Repeat("x", 200)), name[:46]+"_")
}

// TestNamesBeyondUTF8: JSON leads back to the file, and lines have nothing that acts on a terminal.
func TestNamesBeyondUTF8(t *testing.T) {
	dir := t.TempDir()
	names := []string{"part_\xe4.png", "part_\xe5.png", "evil\x1b[2J\u202e.png", "line\nbreak.png", "plain.png"}
	for _, name := range names {
		placed(t, filepath.Join(dir, name))
	}
	broken := filepath.Join(dir, "broken_\xff.png")
	if err := os.WriteFile(broken, []byte("no picture"), 0o666); err != nil {
		t.Fatal(err)
	}
	_, stdout, stderr := infer(nil, commandLine("image", "--json", "--threshold=1e9", dir)...)
	var found []string
	for _, o := range objects(t, stdout) {
		path := o["image"].(string)
		raw, given := o["image_base64"].(string)
		if given == !strings.Contains(path, "\ufffd") {
			t.Errorf("%q: image_base64 given: %v, want it where the name is not UTF-8 and nowhere else", path, given)
		}
		if given {
			bytes, err := base64.StdEncoding.DecodeString(raw)
			if err != nil {
				t.Fatal(err)
			}
			path = string(bytes)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%q does not lead back to a file: %v", path, err)
		}
		found = append(found, filepath.Base(path))
	}
	want := append(slices.Clone(names), filepath.Base(broken))
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("got %q, want %q", found, want)
	}
	checkPrintable(t, "errors", stderr)

	_, stdout, stderr = infer(nil, commandLine("image", "--threshold=1e9", dir)...)
	checkPrintable(t, "lines", stdout)
	checkPrintable(t, "errors", stderr)
	for _, want := range []string{`part_\xe4.png`, `evil\x1b[2J\u202e.png`, `line\nbreak.png`} {
		if !strings.Contains(stdout, want) {
			t.Errorf("got %q, want it to have %s", stdout, want)
		}
	}
	if !oneLine(stderr, `broken_\xff.png`) {
		t.Errorf("got %q, want one line about the broken file", stderr)
	}
}

// TestFoldersBeyondUTF8: the same of a data set's and a model's name, in the JSON of eval and bench and in the CSV.
func TestFoldersBeyondUTF8(t *testing.T) {
	dir := t.TempDir()
	data, model, csvFile := filepath.Join(dir, "part_\xe4"), filepath.Join(dir, "m_\xe4.safetensors"), filepath.Join(dir, "scores.csv")
	content, err := os.ReadFile(modelFile)
	if err := errors.Join(err, os.CopyFS(data, os.DirFS(dataDir)), os.WriteFile(model, content, 0o666)); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := infer(nil, "eval", "--model", model, "--data", data, "--json", "--scores", csvFile)
	if code != command.Done {
		t.Fatalf("eval: got code %d, stderr %q, want 0", code, stderr)
	}
	if got, want := objects(t, stdout)[0]["category_base64"], base64.StdEncoding.EncodeToString([]byte("part_\xe4")); got != want {
		t.Errorf("eval: got category_base64 %v, want %s", got, want)
	}
	f, err := os.Open(csvFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) != 1+len(scores) {
		t.Fatalf("got %d rows, %v, want a head and %d", len(rows), err, len(scores))
	}
	for _, row := range rows[1:] {
		if _, err := os.Stat(row[0]); err != nil {
			t.Errorf("the CSV: %v", err)
		}
	}
	_, stdout, _ = infer(nil, "eval", "--model", model, "--data", data)
	checkPrintable(t, "eval", stdout)

	code, stdout, stderr = infer(nil, "bench", "--model", model, "--json", "--count=1", "--warm-up=0", "--seconds=1")
	if code != command.Done {
		t.Fatalf("bench: got code %d, stderr %q, want 0", code, stderr)
	}
	report := objects(t, stdout)[0]["reports"].([]any)[0].(map[string]any)
	if got, want := report["model_base64"], base64.StdEncoding.EncodeToString([]byte(model)); got != want {
		t.Errorf("bench: got model_base64 %v, want %s", got, want)
	}
}

// checkPrintable fails where an output could act on a terminal.
func checkPrintable(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' || r == utf8.RuneError) {
			t.Errorf("%s: got %q, which has %U", what, text, r)
			return
		}
	}
}

// TestInfoIsPrintable: nothing in a file reaches the terminal raw, and nothing is endless.
func TestInfoIsPrintable(t *testing.T) {
	evil := "\x1b]0;owned\x07\u202e\u2028" + strings.Repeat("w", 60000)
	path := filepath.Join(t.TempDir(), "x\x1b[31m.safetensors")
	if err := weights.WriteFile(path, map[string]string{evil: evil, "b": evil}, []weights.Source{nothing(evil, 3)}); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := infer(nil, "info", path)
	if code != command.Done || stderr != "" || len(stdout) > 5000 {
		t.Errorf("got code %d, %d bytes, stderr %q, want code 0 and less than 5000 bytes", code, len(stdout), stderr)
	}
	checkPrintable(t, "info", stdout)
	_, _, stderr = infer(nil, "info", path+strings.Repeat("z", 60000))
	checkPrintable(t, "error", stderr)
	if len(stderr) > 2100 {
		t.Errorf("got an error of %d bytes, want one that fits on a screen", len(stderr))
	}
}

// TestSettingOfAFile: what stands in a model file is an error of that file, which no flag mends.
func TestSettingOfAFile(t *testing.T) {
	good, _ := testImages()
	for _, c := range []struct {
		field string
		value any
	}{{"image_size", 30}, {"image_size", 1 << 20}, {"precision", "fp8"}, {"batch", 0}, {"map_sigma", 0}, {"false_alarm", 2}, {"ssot", "odd"}} {
		path := withSetting(t, c.field, c.value)
		for _, args := range [][]string{{"image", good[0]}, {"eval", "--data", dataDir}, {"export", "--out", filepath.Join(t.TempDir(), "x.onnx")}, {"bench"}} {
			code, _, stderr := infer(nil, append(args, "--model", path)...)
			if code != command.Failed || !oneLine(stderr, path) || !strings.Contains(stderr, c.field+" is ") {
				t.Errorf("%s with %s %v: got code %d, stderr %q, want code 1, the file and the field", args[0], c.field, c.value, code, stderr)
			}
			if strings.Contains(strings.ReplaceAll(stderr, path, ""), "--") {
				t.Errorf("%s with %s %v: got %q, which names a flag", args[0], c.field, c.value, stderr)
			}
		}
	}
}

// withSetting is the test model with another setting in its document.
func withSetting(t *testing.T, field string, value any) string {
	t.Helper()
	file, err := weights.OpenSafetensors(modelFile)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var document map[string]any
	if err := json.Unmarshal([]byte(file.Metadata["rdpp"]), &document); err != nil {
		t.Fatal(err)
	}
	document["config"].(map[string]any)[field] = value
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := weights.WriteFile(path, map[string]string{"rdpp": string(text)}, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSettingOfAFlag: the same by a flag is wrong usage, and told as the flag.
func TestSettingOfAFlag(t *testing.T) {
	good, _ := testImages()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"image", "--model", modelFile, "--false-alarm", "0.1", good[0]}, "--false-alarm is 0.1; "},
		{[]string{"import", "--checkpoint", modelFile, "--teacher", "random", "--out", filepath.Join(t.TempDir(), "x.safetensors")}, `--teacher is "random"; `},
	} {
		code, _, stderr := infer(nil, c.args...)
		if code != command.WrongUsage || !oneLine(stderr, c.want) {
			t.Errorf("%q: got code %d, stderr %q, want code 2 and %q", c.args, code, stderr, c.want)
		}
	}
	// Not the caller's mistake, but a flag helps.
	code, stdout, _ := infer(nil, commandLine("image", "--json", "--max-pixels=9215", good[0])...)
	if code != command.Failed || !strings.Contains(fmt.Sprint(objects(t, stdout)), "raise --max-pixels") {
		t.Errorf("got code %d, %s, want code 1 and the flag", code, stdout)
	}
	if _, err := rdpp.OpenDetector(modelFile, &rdpp.DetectorOptions{FalseAlarm: new(0.1)}); err == nil || strings.Contains(err.Error(), "--") {
		t.Errorf("from Go: got %v, want an error that names no flag", err)
	}
	var setting *rdpp.SettingError
	if _, err := rdpp.OpenDetector(modelFile, &rdpp.DetectorOptions{FalseAlarm: new(0.1)}); !errors.As(err, &setting) || setting.Field != "false_alarm" {
		t.Errorf("from Go: got %v, want a SettingError of false_alarm", err)
	}
}
