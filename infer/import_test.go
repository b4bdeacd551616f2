package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp/weights"

	"rdpp/rdpp/command"
)

// takeApart writes the test model's checkpoint, as the released code has it, and its teacher.
func takeApart(t *testing.T) (checkpoint, teacher string) {
	t.Helper()
	file, err := weights.Open(modelFile)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var trained, frozen []weights.Source
	for _, tensor := range file.Tensors {
		s := weights.Source{Name: tensor.Name, DType: tensor.DType, Shape: tensor.Shape, Bytes: tensor.Bytes}
		if name, ok := strings.CutPrefix(s.Name, "encoder."); ok {
			s.Name = name
			frozen = append(frozen, s)
		} else {
			trained = append(trained, s)
		}
	}
	dir := t.TempDir()
	checkpoint, teacher = filepath.Join(dir, "wres50_part.safetensors"), filepath.Join(dir, "teacher.safetensors")
	if err := weights.WriteFile(checkpoint, nil, trained); err != nil {
		t.Fatal(err)
	}
	if err := weights.WriteFile(teacher, nil, frozen); err != nil {
		t.Fatal(err)
	}
	return checkpoint, teacher
}

// A model taken apart and imported scores as before, and its origin is told.
func TestImport(t *testing.T) {
	checkpoint, teacher := takeApart(t)
	good, _ := testImages()
	// Released scores are the maxima of the maps.
	_, stdout, _ := infer(nil, commandLine("image", "--json", "--pixel-threshold=0", good[0])...)
	maximum := float32(objects(t, stdout)[0]["regions"].([]any)[0].(map[string]any)["peak"].(float64))
	for _, c := range []struct {
		name  string
		flags []string
		want  string
	}{
		{"no images", nil, "threshold    0.000000, provisional: none: imported without images of good parts\n"},
		{"images trained on", []string{"--data", dataDir}, ", provisional: highest score among the training images\n"},
		{"images not trained on", []string{"--data", filepath.Join(dataDir, "test", "good"), "--unseen", "--false-alarm=0.4"}, ": at most 40 % of good images"},
	} {
		out := filepath.Join(t.TempDir(), "model.safetensors")
		args := append([]string{"import", "--checkpoint", checkpoint, "--teacher", teacher, "--out", out, "--image-size=64", "--category=part",
			"--device=cpu", "--threads=2"}, c.flags...)
		code, stdout, stderr := infer(nil, args...)
		if code != command.Done || stderr != "" || !strings.Contains(stdout, c.want) || !strings.Contains(stdout, "teacher.safetensors, SHA-256 ") {
			t.Errorf("%s: got code %d, stdout %q, stderr %q, want code 0 and %q", c.name, code, stdout, stderr, c.want)
			continue
		}
		code, stdout, _ = infer(nil, "image", "--json", "--model", out, "--device=cpu", "--threads=2", good[0])
		all := objects(t, stdout)
		if len(all) != 1 || float32(all[0]["score"].(float64)) != maximum {
			t.Errorf("%s: got code %d, %q, want the score %v", c.name, code, stdout, maximum)
		}
		_, stdout, _ = infer(nil, "info", out)
		if want := "imported     from wres50_part.safetensors, SHA-256 "; !strings.Contains(stdout, want) {
			t.Errorf("%s: got info %q, want %q", c.name, stdout, want)
		}
	}
}

func TestImportFails(t *testing.T) {
	checkpoint, teacher := takeApart(t)
	offline := httptest.NewServer(nil)
	offline.Close()
	cache := t.TempDir()
	t.Setenv("RDPP_CACHE", cache)
	t.Setenv("RDPP_TEACHER_URL", offline.URL)
	out := filepath.Join(t.TempDir(), "model.safetensors")
	both := []string{"--checkpoint", checkpoint, "--teacher", teacher, "--device=cpu"}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"nothing named", nil, command.WrongUsage, "--checkpoint and --out are needed"},
		{"an argument", append(both, "--out", out, "more"), command.WrongUsage, `"more"`},
		{"unseen nothing", append(both, "--out", out, "--unseen"), command.WrongUsage, "--unseen"},
		{"no threads", append(both, "--out", out, "--threads=0"), command.WrongUsage, "--threads 0"},
		{"no pixels", append(both, "--out", out, "--max-pixels=0"), command.WrongUsage, "--max-pixels 0"},
		{"odd device", append(both, "--out", out, "--device=gpu"), command.WrongUsage, "--device"},
		{"odd size", append(both, "--out", out, "--image-size=65"), command.WrongUsage, "--image-size is 65"},
		{"odd rate", append(both, "--out", out, "--false-alarm=2"), command.WrongUsage, "--false-alarm"},
		{"random teacher", append(both, "--out", out, "--teacher=random"), command.WrongUsage, "random"},
		{"missing folder for the model", append(both, "--out", filepath.Join(out, "x")), command.Failed, "--out"},
		{"folder as model", append(both, "--out", cache), command.Failed, "no regular file"},
		{"over the checkpoint", append(both, "--out", checkpoint), command.Failed, checkpoint + " would be overwritten"},
		{"over the teacher", append(both, "--out", teacher), command.Failed, teacher + " would be overwritten"},
		{"missing data", append(both, "--out", out, "--data", out), command.Failed, out},
		{"offline", []string{"--checkpoint", checkpoint, "--out", out}, command.Failed, "resnet18-f37072fd.pth into " + cache},
		{"teacher as checkpoint", []string{"--checkpoint", teacher, "--out", out}, command.Failed, "--teacher"},
		{"other architecture", append(both, "--out", out, "--arch=resnet50"), command.Failed, "resnet18, not resnet50"},
	} {
		code, stdout, stderr := infer(nil, append([]string{"import"}, c.args...)...)
		if code != c.code || stdout != "" || !oneLine(stderr, c.want) {
			t.Errorf("%s: got code %d, stdout %q, stderr %q, want code %d and one line with %q", c.name, code, stdout, stderr, c.code, c.want)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Errorf("%s was written", out)
	}
}

func TestDownloadProgress(t *testing.T) {
	var stderr strings.Builder
	show := downloadProgress(&command.Terminal{Stderr: &stderr})
	show("resnet18.pth", 1<<20, 45<<20)
	show("resnet18.pth", 2<<20, 45<<20) // too soon after the line before
	show("resnet18.pth", 45<<20, 45<<20)
	if got, want := stderr.String(), "infer: downloading resnet18.pth: 1 of 45 MiB\ninfer: downloading resnet18.pth: 45 of 45 MiB\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	stderr.Reset()
	downloadProgress(&command.Terminal{Stderr: &stderr})("x", 3<<20, -1)
	if got, want := stderr.String(), "infer: downloading x: 3 MiB\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
