package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp/export/exporttest"
	"rdpp/rdpp/imagefile"

	"rdpp/rdpp/command"
)

func TestExport(t *testing.T) {
	for format, exported := range map[string]func(testing.TB, string, exporttest.Batch) exporttest.Result{
		"onnx": exporttest.ONNX, "torchscript": exporttest.TorchScript,
	} {
		t.Run(format, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "exported")
			code, stdout, stderr := infer(nil, "export", "--model", modelFile, "--out", out, "--format", format)
			if want := out + ": " + format + " of resnet18, 64 x 64, input uint8, "; code != command.Done ||
				!strings.HasPrefix(stdout, want) || stderr != "" {
				t.Fatalf("got code %d, stdout %q, stderr %q, want code 0 and %q", code, stdout, stderr, want)
			}
			var paths []string
			in := exporttest.Batch{Shape: []int64{0, pictureSize, pictureSize, 3}}
			for path := range scores {
				img, err := imagefile.DecodeFile(path, nil)
				if err != nil {
					t.Fatal(err)
				}
				paths = append(paths, path)
				in.Pixels = append(in.Pixels, img.Pix...)
				in.Shape[0]++
			}
			got := exported(t, out, in)
			for i, path := range paths {
				if math.Abs(float64(got.Scores[i])-scores[path]) > 1e-4 || got.Anomalous[i] != (scores[path] > threshold) {
					t.Errorf("%s: got score %v, anomalous %v, want %v of threshold %v", path, got.Scores[i], got.Anomalous[i],
						scores[path], threshold)
				}
			}
		})
	}
}

func TestExportErrors(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Link(modelFile, link); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	for _, c := range []struct {
		code int
		args []string
		want string
	}{
		{command.WrongUsage, []string{"--out", out}, "--model is missing"},
		{command.WrongUsage, []string{"--model", modelFile}, "--out is missing"},
		{command.WrongUsage, []string{"--model", modelFile, "--out", out, "more"}, `"more"`},
		{command.WrongUsage, []string{"--model", modelFile, "--out", out, "--format", "tflite"}, `--format "tflite"; use onnx or torchscript`},
		{command.WrongUsage, []string{"--model", modelFile, "--out", out, "--input", "int8"}, `--input "int8"; use uint8 or float`},
		{command.WrongUsage, []string{"--model", modelFile, "--out", link}, "is the model itself"},
		{command.Failed, []string{"--model", modelFile, "--out", dir}, "no regular file"},
		{command.Failed, []string{"--model", modelFile, "--out", filepath.Join(dir, "no", "file")}, "choose another file with --out"},
		{command.Failed, []string{"--model", filepath.Join(dir, "missing"), "--out", out}, "no model at"},
	} {
		code, stdout, stderr := infer(nil, append([]string{"export"}, c.args...)...)
		if code != c.code || stdout != "" || !oneLine(stderr, c.want) {
			t.Errorf("%v: got code %d, stdout %q, stderr %q, want code %d and one line with %q", c.args, code, stdout, stderr,
				c.code, c.want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v, want the link alone", entries, err)
	}
}
