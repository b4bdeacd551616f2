package main

import (
	"context"
	"fmt"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp/onnxfile/onnxtest"

	"rdpp/rdpp/command"
)

// tinyTeacher is the command line of a pre-training of two steps, with further flags, of which the last of a kind counts.
func tinyTeacher(out string, further ...string) []string {
	return append([]string{"teacher", "--out=" + out, "--size=32", "--batch=4", "--steps=2", "--classes=3", "--device=cpu",
		"--threads=1"}, further...)
}

func TestTeacher(t *testing.T) {
	out := filepath.Join(t.TempDir(), "teacher.safetensors")
	code, stdout, stderr := trainBy(tinyTeacher(out, "--scales=0,0.5,1")...)
	if code != command.Done || stderr != "" {
		t.Fatalf("got code %d, stderr %q, want code 0", code, stderr)
	}
	for _, want := range []string{"resnet18, class, 32 x 32 pixels", "teacher: 100 % loss ", "layer2", "layer3", "pictures/s", "8 pictures seen",
		"the device waited", "--teacher " + out} {
		if !strings.Contains(stdout, want) {
			t.Errorf("got stdout %q, want %q in it", stdout, want)
		}
	}
	if strings.Contains(stdout, "layer1") {
		t.Errorf("got stdout %q, want nothing of layer1", stdout)
	}
	run := filepath.Join(t.TempDir(), "run")
	if code, _, stderr := trainBy(tiny(dataDir, run, "--teacher="+out)...); code != command.Done || stderr != "" {
		t.Errorf("train with it: got code %d, stderr %q, want code 0", code, stderr)
	}
	checkFails(t, "again", command.WrongUsage, tinyTeacher(out), "", out, "--overwrite")
}

func TestTeacherSheet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sheet.png")
	if code, _, stderr := trainBy("teacher", "--sheet="+path, "--size=32", "--kinds=thread,print"); code != command.Done || stderr != "" {
		t.Fatalf("got code %d, stderr %q, want code 0", code, stderr)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// Three rows, of threads, print and scenes, of twelve pictures with 2 pixels between them.
	if c, err := png.DecodeConfig(file); err != nil || c.Width != 12*34-2 || c.Height != 3*34-2 {
		t.Errorf("got %d x %d pixels (%v), want 406 x 100", c.Width, c.Height, err)
	}
	checkFails(t, "a sheet of nothing", command.WrongUsage, []string{"teacher", "--sheet=" + path, "--kinds=cloud"}, "", "cloud")
}

// Without weights of its own, resnet18 trains with the teacher that is built in, and says so.
func TestBuiltinTeacher(t *testing.T) {
	t.Setenv("RDPP_CACHE", t.TempDir())
	code, stdout, stderr := trainBy(tiny(dataDir, t.TempDir(), "--teacher=auto")...)
	if code != command.Done || stderr != "" || !strings.Contains(stdout, "part: teacher builtin-imagenet (built in, learned from ImageNet; not torchvision's weights), SHA-256 c9786906\n") {
		t.Errorf("got code %d, stdout %q, stderr %q, want code 0 and the teacher's name", code, stdout, stderr)
	}
	out := filepath.Join(t.TempDir(), "out")
	for _, word := range []string{"builtin", "drawn"} {
		checkFails(t, "nothing built in", command.WrongUsage, tiny(dataDir, out, "--teacher="+word, "--arch=resnet34"), out, "resnet34", `--teacher is "`)
	}
}

// writeONNX writes a graph and returns the file's path.
func writeONNX(t *testing.T, g *onnxtest.Graph) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "network.onnx")
	write(t, path, g.Encode())
	return path
}

func TestTeacherOfONNX(t *testing.T) {
	network := writeONNX(t, onnxtest.ResNet(onnxtest.Options{Top: true, Pad: "SAME_UPPER"}))
	mean := writeONNX(t, onnxtest.MeanImage(8, 104, 117, 124))
	out := filepath.Join(t.TempDir(), "teacher.safetensors")
	code, stdout, stderr := trainBy("teacher", "--onnx="+network, "--preprocess="+mean, "--out="+out)
	if code != command.Done || stderr != "" {
		t.Fatalf("got code %d, stderr %q, want code 0", code, stderr)
	}
	for _, want := range []string{"resnet18 up to layer3, 2787264 numbers, of " + network + `, which "onnxtest" made; with the preprocessing of ` + mean,
		"left out: layer4\n", "left out: operations: ", "1 Gemm", "note: 4 of its layers with a stride pad", out + " (fp16); train --arch resnet18 --teacher " + out} {
		if !strings.Contains(stdout, want) {
			t.Errorf("got stdout %q, want %q in it", stdout, want)
		}
	}
	run := filepath.Join(t.TempDir(), "run")
	if code, _, stderr := trainBy(tiny(dataDir, run, "--teacher="+out)...); code != command.Done || stderr != "" {
		t.Errorf("train with it: got code %d, stderr %q, want code 0", code, stderr)
	}
	checkFails(t, "again", command.WrongUsage, []string{"teacher", "--onnx=" + network, "--out=" + out}, "", out, "--overwrite")
	code, stdout, stderr = trainBy("teacher", "--onnx="+network, "--out="+out, "--overwrite", "--store=fp32", "--arch=resnet18", "--json")
	if code != command.Done || stderr != "" {
		t.Fatalf("--json: got code %d, stderr %q, want code 0", code, stderr)
	}
	all := objects(t, stdout)
	if len(all) != 1 || all[0]["event"] != "done" {
		t.Fatalf("--json: got %v, want the end alone", all)
	}
	s := all[0]["summary"].(map[string]any)
	if s["file"] != out || s["arch"] != "resnet18" || s["store"] != "fp32" || s["numbers"] != 2787264.0 || len(s["left_out"].([]any)) != 2 || len(s["notes"].([]any)) != 1 {
		t.Errorf("--json: got %v", s)
	}

	out = filepath.Join(t.TempDir(), "out")
	for _, c := range []struct {
		name string
		code int
		args []string
		want []string
	}{
		{"no file to write", command.WrongUsage, []string{"--onnx=" + network}, []string{"--out"}},
		{"no file to read", command.WrongUsage, []string{"--onnx=", "--out=" + out}, []string{"--onnx"}},
		{"something of learning", command.WrongUsage, []string{"--onnx=" + network, "--out=" + out, "--steps=3"}, []string{"--steps", "nothing learns"}},
		{"to go on", command.WrongUsage, []string{"--onnx=" + network, "--out=" + out, "--resume"}, []string{"--resume"}},
		{"a sheet", command.WrongUsage, []string{"--onnx=" + network, "--out=" + out, "--sheet=x"}, []string{"--sheet"}},
		{"another architecture", command.WrongUsage, []string{"--onnx=" + network, "--out=" + out, "--arch=resnet34"}, []string{network, "resnet18, not resnet34"}},
		{"preprocessing of nothing", command.WrongUsage, []string{"--preprocess=" + mean, "--out=" + out}, []string{"--onnx"}},
		{"a missing file", command.Failed, []string{"--onnx=" + out, "--out=" + out}, []string{out, "name an ONNX file"}},
		{"no network", command.Failed, []string{"--onnx=" + mean, "--out=" + out}, []string{mean, "no ResNet"}},
		{"no preprocessing", command.Failed, []string{"--onnx=" + network, "--preprocess=" + network, "--out=" + out}, []string{network, "preprocessing"}},
	} {
		checkFails(t, c.name, c.code, append([]string{"teacher"}, c.args...), out, c.want...)
	}
}

func TestTeacherJSON(t *testing.T) {
	out := filepath.Join(t.TempDir(), "teacher.safetensors")
	code, stdout, stderr := trainBy(tinyTeacher(out, "--json", "--objective=pair", "--precision=bf16", "--kinds=fractal,part")...)
	if code != command.Done || stderr != "" {
		t.Fatalf("got code %d, stderr %q, want code 0", code, stderr)
	}
	all := objects(t, stdout)
	last := len(all) - 1 // a slow machine reports both steps
	if last < 1 || all[0]["event"] != "step" || all[last]["event"] != "done" {
		t.Fatalf("got %v, want a step and the end", all)
	}
	for _, key := range []string{"step", "steps", "pictures", "loss", "scales", "pictures_per_second", "waited_share", "seconds_left"} {
		if _, found := all[0][key]; !found {
			t.Errorf("step: got %v, want %q in it", all[0], key)
		}
	}
	summary := all[last]["summary"].(map[string]any)
	if summary["file"] != out || fmt.Sprint(summary["config"].(map[string]any)["kinds"]) != "[fractal part]" {
		t.Errorf("summary: got %v, want file %s and kinds fractal, part", summary, out)
	}
}

func TestTeacherInterrupted(t *testing.T) {
	cancelled, stop := context.WithCancel(context.Background())
	stop()
	out := filepath.Join(t.TempDir(), "teacher.safetensors")
	if code := run(cancelled, tinyTeacher(out), io.Discard, io.Discard); code != command.Interrupted || len(files(t, filepath.Dir(out))) != 0 {
		t.Errorf("got code %d and files %q, want 130 and none", code, files(t, filepath.Dir(out)))
	}
}

func TestTeacherBadFlags(t *testing.T) {
	for _, c := range []struct {
		flag string
		want []string
	}{
		{"--out=", []string{"--out is needed"}},
		{"--nonsense", []string{"--help"}},
		{"more", []string{`"more"`, "--help"}},
		{"--objective=guess", []string{"--objective", "class, dense or pair"}},
		{"--arch=vgg", []string{"--arch", "resnet18"}},
		{"--scales=1,2", []string{"--scales", "three"}},
		{"--scales=1,2,x", []string{"--scales", `"x"`}},
		{"--scales=0,0,0", []string{"--scales"}},
		{"--size=40", []string{"--size is 40"}},
		{"--batch=1", []string{"--batch is 1"}},
		{"--steps=-1", []string{"--steps is -1"}},
		{"--rate=0", []string{"--rate is 0"}},
		{"--precision=fp8", []string{"--precision", "bf16"}},
		{"--store=bf16", []string{"--store", "fp16"}},
		{"--kinds=cat", []string{"--kinds is [cat]"}},
		{"--workers=0", []string{"--workers 0"}},
		{"--threads=0", []string{"--threads"}},
		{"--checkpoint-every=0s", []string{"--checkpoint-every"}},
		{"--device=abacus", []string{"--device"}},
	} {
		out := filepath.Join(t.TempDir(), "out")
		checkFails(t, c.flag, command.WrongUsage, tinyTeacher(filepath.Join(out, "teacher"), c.flag), out, c.want...)
	}
	checkFails(t, "both", command.WrongUsage, tinyTeacher("x", "--resume", "--overwrite"), "", "--resume", "--overwrite")
	checkFails(t, "unwritable", command.Failed, tinyTeacher("/proc/teacher"), "", "/proc", "--out")
	checkFails(t, "a folder", command.WrongUsage, tinyTeacher(os.TempDir()), "", "name a file")
}

func TestTeacherHelp(t *testing.T) {
	const lines, columns = 40, 110
	code, stdout, stderr := trainBy("teacher", "--help")
	if code != command.Done || stderr != "" || strings.Count(stdout, "\n") > lines {
		t.Errorf("got code %d, stderr %q, %d lines, want code 0 and at most %d lines", code, stderr, strings.Count(stdout, "\n"), lines)
	}
	for line := range strings.Lines(stdout) {
		if got := len(strings.TrimRight(line, "\n")); got > columns {
			t.Errorf("got a line of %d columns, want at most %d: %s", got, columns, line)
		}
	}
	for _, want := range []string{"--out FILE", "--objective NAME", "fractal", "--checkpoint-every TIME", `"0.3,0.5,1")`, "--onnx FILE", "--preprocess FILE"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("got help %q, want %q in it", stdout, want)
		}
	}
}
