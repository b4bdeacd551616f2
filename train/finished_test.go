package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
)

// summaryOf reads a run's metrics.json.
func summaryOf(t *testing.T, out string) (s rdpp.Summary) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(out, "part", rdpp.MetricsFile))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A finished run keeps no checkpoint unless it is asked to. Resumed it stays as it is, and says where it cannot go on.
func TestFinished(t *testing.T) {
	out := t.TempDir()
	if code, _, stderr := trainBy(tiny(dataDir, out)...); code != command.Done {
		t.Fatalf("got code %d, %s", code, stderr)
	}
	model := filepath.Join(out, "part", rdpp.ModelFile)
	before, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}
	first := summaryOf(t, out)
	code, stdout, stderr := trainBy(tiny(dataDir, out, "--resume")...)
	after, err := os.ReadFile(model)
	if code != command.Done || stderr != "" || err != nil || !bytes.Equal(before, after) || !strings.Contains(stdout, "part: model "+model) {
		t.Errorf("resumed: got code %d, %q, stderr %q, %v, want the same model", code, stdout, stderr, err)
	}
	if again := summaryOf(t, out); !reflect.DeepEqual(again, first) {
		t.Errorf("got %+v, want %+v", again, first)
	}
	for _, c := range []struct{ flag, want string }{
		{"--epochs=2", "kept no checkpoint"}, {"--seed=5", "--seed is 5"}, {"--teacher=drawn", "--teacher"}, {"--batch=1", "--batch"},
	} {
		if code, _, stderr := trainBy(tiny(dataDir, out, "--resume", c.flag)...); code != command.WrongUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: got code %d, %q, want %q", c.flag, code, stderr, c.want)
		}
	}
	if code, _, stderr := trainBy(tiny(dataDir, out)...); code != command.WrongUsage || strings.Contains(stderr, "--resume") || !strings.Contains(stderr, "--overwrite") {
		t.Errorf("again: got code %d, %q, want a way that there is", code, stderr)
	}
	if code, _, stderr := trainBy(tiny(dataDir, out, "--overwrite", "--keep-checkpoint")...); code != command.Done {
		t.Errorf("anew: got code %d, %q", code, stderr)
	}
	if code, stdout, stderr := trainBy(tiny(dataDir, out, "--resume", "--epochs=2")...); code != command.Done || !strings.Contains(stdout, "epoch 2 ") {
		t.Errorf("more epochs: got code %d, %q, %q", code, stdout, stderr)
	}
}

// Metrics, model and report name how the model came to be, and two trainings of the same model differ in that alone.
func TestProvenance(t *testing.T) {
	var contents []string
	for _, name := range []string{"one", "two"} {
		out := filepath.Join(t.TempDir(), name)
		if code, _, stderr := trainBy(tiny(dataDir, out)...); code != command.Done {
			t.Fatalf("got code %d, %s", code, stderr)
		}
		info, err := rdpp.Inspect(filepath.Join(out, "part", rdpp.ModelFile))
		if err != nil {
			t.Fatal(err)
		}
		contents = append(contents, info.Content)
		p, of := info.Provenance, summaryOf(t, out).Provenance
		if p == nil || of == nil || !reflect.DeepEqual(p, of) {
			t.Fatalf("got %+v in the model, %+v in %s, want the same", p, of, rdpp.MetricsFile)
		}
		if age := time.Since(p.Date); age < 0 || age > time.Hour || p.Seconds <= 0 || p.Device != "cpu" || p.Threads != 1 || p.Libtorch == "" ||
			p.Fingerprint != info.Model.Data.Fingerprint || !reflect.DeepEqual(p.Data, []string{dataDir}) ||
			p.Command[0] != "train" || p.Command[2] != "--out="+out {
			t.Errorf("got %+v", p)
		}
		page, err := os.ReadFile(filepath.Join(out, "part", rdpp.ReportFile))
		if err != nil || !bytes.Contains(page, []byte(p.Fingerprint)) || !bytes.Contains(page, []byte("--arch=resnet18")) {
			t.Errorf("got no %s and no command line in the report, %v", p.Fingerprint, err)
		}
	}
	if contents[0] != contents[1] || len(contents[0]) != 64 {
		t.Errorf("got contents %q, want one SHA-256 twice", contents)
	}
}

// The settings of a run are those of another one, from either file; flags come before them.
func TestConfigFile(t *testing.T) {
	out := t.TempDir()
	flags := []string{"--fit=pad", "--roi=4,0,56,60", "--light=0.1", "--weight-recon=0.5", "--method=rd++"}
	if code, _, stderr := trainBy(tiny(dataDir, out, flags...)...); code != command.Done {
		t.Fatalf("got code %d, %s", code, stderr)
	}
	want := summaryOf(t, out).Config
	for _, file := range []string{rdpp.MetricsFile, rdpp.ModelFile} {
		again := t.TempDir()
		config := "--config=" + filepath.Join(out, "part", file)
		args := []string{"--data=" + dataDir, "--out=" + again, config, "--device=cpu", "--threads=1", "--seed=7"}
		if code, _, stderr := trainBy(args...); code != command.Done {
			t.Fatalf("%s: got code %d, %s", file, code, stderr)
		}
		s := summaryOf(t, again)
		want.Seed = 7
		if s.Config != want || s.Teacher.Origin != rdpp.OriginRandom {
			t.Errorf("%s: got %+v, %v, want %+v", file, s.Config, s.Teacher, want)
		}
		checkFails(t, "a preset too", command.WrongUsage, append(args, "--preset=paper"), "", "exclude each other")
	}
	for name, text := range map[string]string{"empty": "", "no settings": "{}", "no JSON": "{", "none": "{\"config\":null}",
		"wrong": "{\"config\":{\"arch\":\"resnet18\",\"method\":\"none\"}}"} {
		file := filepath.Join(t.TempDir(), "metrics.json")
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := trainBy("--data="+dataDir, "--out="+t.TempDir(), "--config="+file); code == command.Done || !strings.Contains(stderr, file) {
			t.Errorf("%s: got code %d, %q, want an error that names the file", name, code, stderr)
		}
	}
}

// Without --arch and without weights on the machine, training takes the backbone whose teacher is inside the program, and says so.
func TestDefaultsOffline(t *testing.T) {
	t.Setenv("RDPP_CACHE", t.TempDir())
	t.Setenv("RDPP_TEACHER_URL", "http://127.0.0.1:1") // where nothing answers
	out := t.TempDir()
	args := []string{"--data=" + dataDir, "--out=" + out, "--image-size=32", "--batch=2", "--epochs=1", "--precision=fp32", "--method=rd", "--calibration=0",
		"--accumulate=1", "--device=cpu", "--threads=1"}
	code, stdout, stderr := trainBy(args...)
	if code != command.Done || stderr != "" || !strings.HasPrefix(stdout, "resnet18, whose teacher is inside the program, as no weights of wide_resnet50_2 are") {
		t.Fatalf("got code %d, %q, stderr %q, want resnet18, and why", code, stdout, stderr)
	}
	if s := summaryOf(t, out); s.Config.Arch != "resnet18" || s.Teacher.Origin != rdpp.OriginImageNet {
		t.Errorf("got %s with the teacher %s", s.Config.Arch, s.Teacher.Origin)
	}
	if code, stdout, stderr := trainBy(append(args, "--overwrite", "--quiet", "--precision=auto")...); code != command.Done || stdout != "" || stderr != "" {
		t.Errorf("quiet: got code %d, %q, %q, want nothing said", code, stdout, stderr)
	}
}
