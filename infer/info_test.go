package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp/weights"

	"rdpp/rdpp/command"
)

// nothing is a tensor of zeros.
func nothing(name string, n int) weights.Source {
	return weights.Source{Name: name, DType: weights.U8, Shape: []int{n}, Bytes: func() ([]byte, error) { return make([]byte, n), nil }}
}

func TestInfoText(t *testing.T) {
	odd := filepath.Join(t.TempDir(), "odd.safetensors")
	metadata := map[string]string{"note": "a\x1b[2Jb", "long": strings.Repeat("x", 1000), "rdpp": "{"}
	if err := weights.WriteFile(odd, metadata, []weights.Source{nothing("line\nbreak", 3)}); err != nil {
		t.Fatal(err)
	}
	pth := func(name string) string { return filepath.Join("..", "rdpp", "weights", "testdata", name) }
	for _, c := range []struct {
		args  []string
		want  []string
		lines int // 0: any
	}{
		{[]string{modelFile}, []string{"kind         model file of rdpp\n", "architecture resnet18\n", "teacher      random\n",
			"model        rd++, resnet18, 64 x 64 pixels, by rdpp ", "provisional: no rate", "more; --all lists them\n",
			", which the file holds of itself\n"}, 0},
		{[]string{filepath.Join("..", "rdpp", "builtin", "resnet18-drawn.safetensors")}, []string{"teacher made by train teacher\n", "drawn pictures"}, 0},
		{[]string{pth("nested_checkpoint.pth")}, []string{"format       pytorch-zip, 1429 bytes\n", "tensors of no network", "tensors      3, 18 numbers\n",
			"F32   [2 3] proj.proj.weight\n"}, 8},
		{[]string{pth("more_legacy.pth")}, []string{"format       pytorch-legacy", "and 30 more; --all"}, 0},
		{[]string{"--all", pth("more_legacy.pth")}, []string{"F64   [2 0 3] empty_inside\n"}, 5 + 40},
		{[]string{odd}, []string{`note: a\x1b[2Jb`, `line\nbreak`, "long: " + strings.Repeat("x", 78) + "[... 844 bytes left out ...]", "damaged      the \"rdpp\" entry"}, 0},
	} {
		code, stdout, stderr := infer(nil, append([]string{"info"}, c.args...)...)
		if code != command.Done || stderr != "" || strings.Contains(stdout, "\x1b") {
			t.Errorf("%v: got code %d, stdout %q, stderr %q, want code 0", c.args, code, stdout, stderr)
		}
		for _, want := range c.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%v: got\n%swant %q", c.args, stdout, want)
			}
		}
		if got := strings.Count(stdout, "\n"); c.lines > 0 && got != c.lines {
			t.Errorf("%v: got %d lines, want %d:\n%s", c.args, got, c.lines, stdout)
		}
	}
}

func TestInfoJSON(t *testing.T) {
	code, stdout, stderr := infer(nil, "info", "--json", modelFile)
	all := objects(t, stdout)
	if code != command.Done || stderr != "" || len(all) != 1 {
		t.Fatalf("got code %d, stdout %q, stderr %q, want code 0 and one object", code, stdout, stderr)
	}
	o := all[0]
	model := o["model"].(map[string]any)
	calibration := model["calibration"].(map[string]any)
	tensors := o["tensors"].([]any)
	first := tensors[0].(map[string]any)
	if o["kind"] != "model" || o["arch"] != "resnet18" || model["teacher"].(map[string]any)["origin"] != "random" ||
		calibration["threshold"] != threshold || len(o["digest"].(string)) != 64 || first["name"] != "encoder.conv1.weight" || first["dtype"] != "F32" ||
		len(first["shape"].([]any)) != 4 {
		t.Errorf("got %.1000s, want the model's own", stdout)
	}
}

func TestInfoFails(t *testing.T) {
	testdata := filepath.Join("..", "rdpp", "weights", "testdata")
	refused, err := filepath.Glob(filepath.Join(testdata, "refuse_*.pth"))
	if err != nil || len(refused) != 5 {
		t.Fatalf("got %v, %v, want 5 files", refused, err)
	}
	for _, path := range append(refused, filepath.Join(testdata, "missing.pth"), testdata, os.DevNull) {
		code, stdout, stderr := infer(nil, "info", path)
		if code != command.Failed || stdout != "" || !oneLine(stderr, path) {
			t.Errorf("%s: got code %d, stdout %q, stderr %q, want code 1 and one line with the file's name", path, code, stdout, stderr)
		}
	}
	for _, args := range [][]string{{"info"}, {"info", "a", "b"}, {"info", "--all=x", "a"}} {
		if code, _, stderr := infer(nil, args...); code != command.WrongUsage || !oneLine(stderr, "infer info --help") {
			t.Errorf("%v: got code %d, stderr %q, want code 2 and one line", args, code, stderr)
		}
	}
}

// What infer export wrote is explained as the model is, and damage to it is no crash.
func TestInfoExported(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"model.onnx", "model.pt"} {
		path := filepath.Join(dir, name)
		if code, _, stderr := infer(nil, "export", "--model", modelFile, "--out", path); code != command.Done {
			t.Fatalf("%s: got code %d, %s", name, code, stderr)
		}
		code, stdout, stderr := infer(nil, "info", path)
		for _, want := range []string{"kind         model that infer export wrote", "rd++, resnet18, 64 x 64 pixels", "metadata     threshold: "} {
			if code != command.Done || stderr != "" || !strings.Contains(stdout, want) {
				t.Errorf("%s: got code %d, %s%s, want %q", name, code, stdout, stderr, want)
			}
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, whole[:len(whole)-40], 0o666); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := infer(nil, "info", path); code != command.Failed || !oneLine(stderr, path) {
			t.Errorf("%s, truncated: got code %d, %q, want code 1 and one line", name, code, stderr)
		}
	}
}
