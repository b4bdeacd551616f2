package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/command"
	"rdpp/rdpp/testmain"
)

// benchLine is a command line that measures as little as possible.
func benchLine(args ...string) []string {
	return append(commandLine("bench", "--count", "2", "--warm-up", "0"), args...)
}

func TestBenchJSON(t *testing.T) {
	good, _ := testImages()
	for _, c := range []struct {
		args      []string
		wantInput string
	}{
		{nil, "a generated picture of 1024 x 1024 pixels in memory: resizing and prediction, no decoding"},
		{[]string{"--image", good[0]}, good[0] + ": reading, decoding, resizing and prediction"},
	} {
		code, stdout, stderr := infer(nil, benchLine(append(c.args, "--json", "--batch", "3,2,3")...)...)
		var got benchmark
		if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != command.Done || stderr != "" {
			t.Fatalf("got code %d, %v, stderr %q, stdout %q, want code 0 and one document", code, err, stderr, stdout)
		}
		if got.Input != c.wantInput || got.WarmUp != 0 || got.Machine.Threads != 2 || got.Machine.CPUs < 1 ||
			!strings.HasPrefix(got.Machine.Software, "rdpp ") || got.Machine.Libtorch == "" || got.Machine.GPUs == nil {
			t.Errorf("got %+v, want input %q, 2 threads, versions and a machine", got, c.wantInput)
		}
		if len(got.Reports) != 1 {
			t.Fatalf("got %d reports, want 1", len(got.Reports))
		}
		r := got.Reports[0]
		var batches []int
		for _, s := range r.Speeds {
			batches = append(batches, s.Batch)
			if s.Compute.Images < 2 || s.Compute.Images%s.Batch > 0 || s.Compute.Throughput <= 0 {
				t.Errorf("got %+v, want whole batches and their time", s.Compute)
			}
			if s.Images != 2 || s.Latency.P50 <= 0 || s.Latency.Max < s.Latency.P99 || s.Throughput <= 0 {
				t.Errorf("got %+v, want 2 images and their times", s)
			}
		}
		if r.Model != modelFile || r.Device != "cpu" || r.ImageSize != 64 || !slices.Equal(batches, []int{1, 2, 3}) {
			t.Errorf("got %+v, want the model, and batches 1, 2 and 3", r)
		}
	}
}

// Several models are measured in processes of their own, and the table has a row for each.
func TestBenchSeveral(t *testing.T) {
	t.Setenv(testmain.Key, asProgram)
	content, err := os.ReadFile(modelFile)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other, with a comma.safetensors")
	if err := os.WriteFile(other, content, 0o666); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := infer(nil, benchLine("--model", other)...)
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if code != command.Done || stderr != "" || len(lines) < 4 {
		t.Fatalf("got code %d, stdout %q, stderr %q, want code 0 and a table", code, stdout, stderr)
	}
	for i, file := range []string{modelFile, other} {
		row := lines[len(lines)-2+i]
		if !strings.Contains(row, "| cpu fp32, "+file+" (resnet18, 64 x 64, own batch 32, n = 2)") {
			t.Errorf("got row %q, want one of %s", row, file)
		}
	}
	if !strings.Contains(stdout, "no decoding") || !strings.Contains(stdout, "libtorch") {
		t.Errorf("got %q, want input and machine above the table", stdout)
	}

	if err := os.Truncate(other, int64(len(content)/2)); err != nil {
		t.Fatal(err)
	}
	code, _, stderr = infer(nil, benchLine("--model", other)...)
	if code != command.Failed || !oneLine(stderr, other) || strings.Count(stderr, "infer: ") != 1 {
		t.Errorf("got code %d, stderr %q, want code 1 and one line with the file's name", code, stderr)
	}
}

func TestBenchBadFiles(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	notImage := filepath.Join(t.TempDir(), "text.png")
	if err := os.WriteFile(notImage, []byte("text"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string // in the error
	}{
		{benchLine("--model", missing), missing},
		{benchLine("--image", missing), missing},
		{benchLine("--image", notImage), notImage},
		{benchLine("--device", "cpu,cuda:4000"), `"cuda:4000" is not there`},
	} {
		if code, _, stderr := infer(nil, c.args...); code != command.Failed || !oneLine(stderr, c.want) {
			t.Errorf("%v: got code %d, stderr %q, want code 1 and one line with %q", c.args, code, stderr, c.want)
		}
	}
}
