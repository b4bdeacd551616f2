package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/plc"
	"rdpp/rdpp/sample"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// What TestMain makes for all tests: pictures, a model with random weights, and what the model says about the
// pictures when it is asked directly. With random weights scores mean nothing, but they differ.
var (
	dataDir   string             // a data set with masks: 2 good and 4 defective test images of 96 x 96 pixels
	modelFile string             // input side 64
	scores    map[string]float64 // of the test images, by path
	threshold float64            // the model's: half of the test images are above it
)

const pictureSize = 96

// asProgram is the name of the program itself, as the test program can be it.
const asProgram = "infer"

func TestMain(m *testing.M) {
	plc.Init()
	testmain.Be(map[string]func([]string) error{asProgram: func([]string) error { main(); return nil }})
	os.Exit(testmain.Run(m, prepare))
}

func prepare(dir string) error {
	err := sample.Write(dir, &sample.Options{Category: "part", Size: pictureSize, Train: 1, TestGood: 2, TestDefect: 1})
	if err != nil {
		return err
	}
	dataDir, modelFile = filepath.Join(dir, "part"), filepath.Join(dir, "model.safetensors")
	// Results are the same bit for bit only for the same number of threads.
	if err := torch.SetThreads(2); err != nil {
		return err
	}
	config := rdpp.DefaultConfig()
	config.Arch, config.ImageSize, config.Project = "resnet18", 64, rdpp.ProjectAll // as released checkpoints have it
	model, err := rdpp.NewModel(config, torch.CPU)
	if err != nil {
		return err
	}
	defer model.Close()
	if err := model.Save(modelFile); err != nil {
		return err
	}
	if err := scoreAll(); err != nil {
		return err
	}
	var sorted []float64
	for _, score := range scores {
		sorted = append(sorted, score)
	}
	slices.Sort(sorted)
	threshold = (sorted[2] + sorted[3]) / 2
	model.Info.Calibration = rdpp.Calibration{Rule: "middle of the test images", Provisional: true, Threshold: threshold, PixelThreshold: threshold}
	return model.Save(modelFile)
}

func scoreAll() error {
	set, err := dataset.Open(dataDir, nil)
	if err != nil {
		return err
	}
	d, err := rdpp.OpenDetector(modelFile, nil)
	if err != nil {
		return err
	}
	defer d.Close()
	scores = map[string]float64{}
	for _, item := range set.Test {
		r, _, err := d.DetectFile(item.Path)
		if err != nil {
			return err
		}
		scores[item.Path] = r.Score
	}
	return nil
}

// testImages are the paths of the test images below the threshold, and of those above.
func testImages() (good, anomalous []string) {
	for path, score := range scores {
		if score > threshold {
			anomalous = append(anomalous, path)
		} else {
			good = append(good, path)
		}
	}
	slices.Sort(good)
	slices.Sort(anomalous)
	return good, anomalous
}

// infer runs the program with standard input.
func infer(stdin []byte, args ...string) (code int, stdout, stderr string) {
	return inferFrom(bytes.NewReader(stdin), args...)
}

// inferFrom is infer with standard input that comes by and by.
func inferFrom(stdin io.Reader, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, stdin, &out, &errs)
	return code, out.String(), errs.String()
}

// commandLine returns a command line that computes what prepare has.
func commandLine(name string, args ...string) []string {
	return append([]string{name, "--model", modelFile, "--device", "cpu", "--threads", "2"}, args...)
}

func TestHelpFitsOneScreen(t *testing.T) {
	asked := [][]string{{"--help"}, {"-h"}, {"eval", "-h", "--data", "x"}}
	for _, c := range app.Commands {
		asked = append(asked, []string{c.Name, "--help"})
	}
	if _, stdout, _ := infer(nil, "serve", "--help-all"); !strings.Contains(stdout, "--max-wait") || !strings.Contains(stdout, "--max-body") {
		t.Errorf("serve --help-all: got %s, want all flags", stdout)
	}
	for _, args := range asked {
		code, stdout, stderr := infer(nil, args...)
		if code != command.Done || stderr != "" || !strings.Contains(stdout, "Usage: infer") {
			t.Errorf("%v: got code %d, stdout %q, stderr %q, want usage and code 0", args, code, stdout, stderr)
		}
		lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
		if len(lines) > 23 { // the prompt takes one of 24
			t.Errorf("%v: got %d lines, want at most 23", args, len(lines))
		}
		for _, line := range lines {
			if len(line) > 80 {
				t.Errorf("%v: got a line of %d characters, want at most 80: %q", args, len(line), line)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	libtorch, err := torch.Version()
	if err != nil {
		t.Fatal(err)
	}
	version := "rdpp " + rdpp.Version + ", libtorch " + libtorch + "\n"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--version"}, version}, {[]string{"version"}, version}, {[]string{"version", "--licenses"}, version + "\n" + rdpp.Notice()},
	} {
		if code, stdout, _ := infer(nil, c.args...); code != command.Done || stdout != c.want {
			t.Errorf("%v: got code %d, %.99q, want 0, %.99q", c.args, code, stdout, c.want)
		}
	}
}

func TestWrongUsage(t *testing.T) {
	good, _ := testImages()
	model := "--model=" + modelFile
	for _, c := range []struct {
		args []string
		want string // in the error
	}{
		{nil, "no command"},
		{[]string{"nonsense"}, `unknown command "nonsense"`},
		{[]string{"version", "more"}, `"more" is one argument too many`},
		{[]string{"version", "--nonsense"}, "unknown flag: --nonsense"},
		{[]string{"image", good[0]}, "--model is missing"},
		{[]string{"image", model}, "no image named"},
		{[]string{"image", model, "-", "-"}, "- is given 2 times"},
		{[]string{"image", model, "--nonsense", good[0]}, "unknown flag: --nonsense"},
		{[]string{"image", model, "--threshold", "high", good[0]}, "--threshold"},
		{[]string{"image", model, "--threshold", "-0.5", good[0]}, "--threshold"},
		{[]string{"image", model, "--threshold", "NaN", good[0]}, "--threshold"},
		{[]string{"image", model, "--threshold", "Inf", good[0]}, "--threshold"},
		{[]string{"image", model, "--device", "gpu", good[0]}, `--device: torch: unknown device "gpu"`},
		{[]string{"image", model, "--device", "cuda:x", good[0]}, `--device: torch: device "cuda:x"`},
		{[]string{"eval", model, "--data", dataDir, "--device", "cuda:-1"}, `--device: torch: device "cuda:-1"`},
		{[]string{"image", model, "--precision", "fp8", good[0]}, `--precision: torch: precision "fp8"; use fp32, tf32 or bf16`},
		{[]string{"bench", model, "--precision", "8"}, "--precision"},
		{[]string{"image", model, "--threads", "0", good[0]}, "--threads 0"},
		{[]string{"image", model, "--threads", "two", good[0]}, "--threads"},
		{[]string{"image", model, "--max-pixels", "0", good[0]}, "--max-pixels 0"},
		{[]string{"image", model, "--max-memory", "0", good[0]}, "--max-memory 0"},
		{[]string{"image", model, "--batch", "-1", good[0]}, "--batch -1; use 1 to 1024, or 0"},
		{[]string{"eval", model, "--data", dataDir, "--batch", "1025"}, "--batch 1025"},
		{[]string{"serve", model, "--max-memory", "255"}, "--max-memory 255; use 256"},
		{[]string{"serve", model, "--max-connections", "0"}, "--max-connections 0"},
		{[]string{"eval", model}, "--data is missing"},
		{[]string{"eval", "--data", dataDir}, "--model is missing"},
		{[]string{"eval", model, "--data", dataDir, "more"}, `"more"`},
		{[]string{"eval", model, "--data", dataDir, "--heatmap", "x"}, "unknown flag: --heatmap"},
		{[]string{"bench"}, "--model is missing"},
		{[]string{"bench", model, "more"}, `"more"`},
		{[]string{"bench", model, "--device", ""}, "--device names none"},
		{[]string{"bench", model, "--device", "cpu,gpu"}, `--device: torch: unknown device "gpu"`},
		{[]string{"bench", model, "--batch", "1,0"}, "--batch 0"},
		{[]string{"bench", model, "--batch", "1025"}, "--batch 1025"},
		{[]string{"bench", model, "--batch", "many"}, "--batch"},
		{[]string{"bench", model, "--count", "0"}, "--count 0"},
		{[]string{"bench", model, "--seconds", "0"}, "--seconds 0"},
		{[]string{"bench", model, "--seconds", "NaN"}, "--seconds NaN"},
		{[]string{"bench", model, "--warm-up", "-1"}, "--warm-up -1"},
		{[]string{"bench", model, "--threads", "0"}, "--threads 0"},
		{[]string{"bench", model, "--max-pixels", "0"}, "--max-pixels 0"},
		{[]string{"serve"}, "--model is missing"},
		{[]string{"serve", model, "more"}, `"more"`},
		{[]string{"serve", model, "--log", "xml"}, "--log"},
		{[]string{"serve", model, "--max-batch", "0"}, "--max-batch 0"},
		{[]string{"serve", model, "--max-queue", "0"}, "--max-queue 0"},
		{[]string{"serve", model, "--max-wait", "-1s"}, "--max-wait -1s"},
		{[]string{"serve", model, "--timeout", "0s"}, "--timeout 0s"},
		{[]string{"serve", model, "--max-body", "0"}, "--max-body 0"},
		{[]string{"serve", model, "--tls-cert", "x"}, "--tls-key"},
		{[]string{"watch", model, dataDir, "--heatmap", dataDir + "/."}, "--heatmap is "},
		{[]string{"watch", model, dataDir, "--move-bad", dataDir}, "--move-bad is "},
		{[]string{"watch", model, dataDir, "--move-bad", filepath.Join(filepath.Dir(dataDir), "bad"), "--move-broken", dataDir}, "--move-broken is "},
		{[]string{"watch", model, dataDir, "--mqtt", "mqtt://host"}, "--topic is missing"},
		{[]string{"watch", model, dataDir, "--mqtt", "http://host", "--topic", "t"}, "--mqtt is "},
		{[]string{"watch", model, dataDir, "--topic", "t"}, "are for --mqtt"},
		{[]string{"watch", model, dataDir, "--webhook", "host"}, "--webhook is "},
		{[]string{"watch", model, dataDir, "--webhook-secret", "f"}, "is for --webhook"},
		{[]string{"watch", model, dataDir, "--send-queue", "0"}, "--send-queue 0"},
		{[]string{"watch", model, dataDir, "--modbus", "host"}, "name it with --coil"},
		{[]string{"watch", model, dataDir, "--coil", "1"}, "are for --modbus"},
		{[]string{"watch", model, dataDir, "--coil", "65536", "--modbus", "host"}, "use 0 to 65535"},
		{[]string{"watch", model, dataDir, "--coil", "1", "--modbus", "host", "--modbus-unit", "0"}, "--modbus-unit 0"},
		{[]string{"watch", model}, "no folder named"},
		{[]string{"watch", model, "--camera", "host"}, "--camera is "},
		{[]string{"watch", model, dataDir, "--every", "1s"}, "are for --camera"},
		{[]string{"watch", model, "--camera", "http://host", "--every", "-1s"}, "--every -1s"},
		{[]string{"watch", model, "--camera", "http://host", "--every", "1s", "--trigger"}, "give one of them"},
		{[]string{"watch", model, "--camera", "http://host", "--once", "--every", "1s"}, "--once takes one frame"},
		{[]string{"watch", model, "--camera", "http://host", "--once", "--trigger"}, "--once takes one frame"},
		{[]string{"watch", model, "--camera", "http://host", "--camera-size", "640,480"}, "is for /dev/video"},
		{[]string{"watch", model, "--camera", "/dev/video0", "--camera-size", "640"}, "--camera-size"},
		{[]string{"batch", model, "--out", "x"}, "--list is missing"},
		{[]string{"batch", model, "--list", "x"}, "--out is missing"},
		{[]string{"batch", model, "--list", "x", "--out", "y", "more"}, `"more"`},
		{[]string{"batch", model, "--list", "x", "--out", "y", "--shard", "4/4"}, `--shard, --shards: "4/4" is no share`},
		{[]string{"batch", model, "--list", "x", "--out", "y", "--shards", "-1"}, "--shards -1"},
		{[]string{"batch", model, "--list", "x", "--out", "y", "--shards", "2"}, "which of 2 shares"},
		{[]string{"batch", model, "--list", "x", "--out", "y", "--piece", "-1"}, "--piece -1"},
		{[]string{"batch", model, "--list", "x", "--out", "y", "--readers", "0"}, "--readers 0"},
		{[]string{"batch", model, "--list", "x", "--out", "y", "--max-memory", "0"}, "--max-memory 0"},
		{[]string{"batch", model, "--list", "x", "--out", "y", "--nats", "host:4222"}, "--nats: "},
		{[]string{"batch", model, "--list", "x", "--out", "y", "--nats", "nats://host", "--shard", "0/1"}, "are for batches without --nats"},
		{[]string{"batch", model, "--list", "x", "--out", "y", "--nats", "nats://host", "--lease", "1ms"}, "--lease 1ms"},
		{[]string{"batch", model, "--list", "x", "--out", "y", "--nats", "nats://host", "--tries", "0"}, "--tries 0"},
		{[]string{"batch", model, "--list", "x", "--out", "y", "--nats-creds", "f"}, "is for --nats"},
		{[]string{"batch", model, "--list", "x", "--out", "y", "--tries", "3"}, "--lease and --tries are for --nats"},
		{[]string{"batch", "merge"}, "0 folders to merge named"},
		{[]string{"batch", "merge", "x", "--piece", "1"}, "--piece is not for merge"},
		{[]string{"worker"}, "--nats is missing"},
		{[]string{"worker", "--nats", "nats://host", "more"}, `"more"`},
		{[]string{"worker", "--nats", "http://host"}, "--nats: "},
		{[]string{"worker", "--nats", "nats://host", "--device", "gpu"}, `--device: torch: unknown device "gpu"`},
		{[]string{"worker", "--nats", "nats://host", "--threads", "0"}, "--threads 0"},
		{[]string{"serve", model, "--opcua", ":4840"}, "need --history"},
		{[]string{"image", model, dataDir, "--webhook", "http://host"}, "need --history"},
		{[]string{"serve", model, "--mqtt", "mqtt://host", "--topic", "t"}, "need --history"},
	} {
		code, stdout, stderr := infer(nil, c.args...)
		lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
		last := lines[len(lines)-1]
		if code != command.WrongUsage || stdout != "" || !strings.HasPrefix(last, "infer: ") || !strings.Contains(last, c.want) {
			t.Errorf("%v: got code %d, stdout %q, stderr %q, want code 2 and %q", c.args, code, stdout, stderr, c.want)
		}
		if len(c.args) > 1 && (len(lines) != 1 || !strings.Contains(last, "infer "+c.args[0]+" --help")) {
			t.Errorf("%v: got %q, want one line that names the help", c.args, stderr)
		}
	}
}

// The model's own faults are those of every command.
func TestBadModel(t *testing.T) {
	dir := t.TempDir()
	content, err := os.ReadFile(modelFile)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	lying := slices.Clone(content[:1000])
	copy(lying, "\xff\xff\xff\xff\xff\xff\xff\x7f") // the header's length
	good, _ := testImages()
	for model, reason := range map[string]string{
		filepath.Join(dir, "missing.safetensors"):                                 "no model at",
		file("truncated.safetensors", content[:len(content)/2]):                   "truncated",
		file("lying.safetensors", lying):                                          "no safetensors file",
		file("empty.safetensors", nil):                                            "empty",
		file("foreign.safetensors", []byte("\x02\x00\x00\x00\x00\x00\x00\x00{}")): "no file that rdpp wrote",
		dir:     "a folder",
		good[0]: "no safetensors file",
	} {
		for _, args := range [][]string{{"image", "--model", model, good[0]}, {"eval", "--model", model, "--data", dataDir},
			{"export", "--model", model, "--out", filepath.Join(dir, "exported")}} {
			code, stdout, stderr := infer(nil, args...)
			if code != command.Failed || stdout != "" || !oneLine(stderr, model) || !strings.Contains(stderr, reason) {
				t.Errorf("%v: got code %d, stdout %q, stderr %q, want code 1 and one line with the file's name and %q", args, code, stdout, stderr, reason)
			}
		}
	}
}

// oneLine says whether stderr is one error that contains want.
func oneLine(stderr, want string) bool {
	return strings.HasPrefix(stderr, "infer: ") && strings.Count(stderr, "\n") == 1 && strings.HasSuffix(stderr, "\n") &&
		strings.Contains(stderr, want)
}

func TestNoSuchDevice(t *testing.T) {
	good, _ := testImages()
	code, stdout, stderr := infer(nil, "image", "--model", modelFile, "--device", "cuda:4000", good[0])
	if code != command.Failed || stdout != "" || !oneLine(stderr, `"cuda:4000" is not there`) {
		t.Errorf("got code %d, stdout %q, stderr %q, want code 1 and one line about the device", code, stdout, stderr)
	}
}

// signalling interrupts the process as soon as it is read, and then stays silent like a terminal.
type signalling struct{ *io.PipeReader }

func (s signalling) Read(p []byte) (int, error) {
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		return 0, err
	}
	return s.PipeReader.Read(p)
}

func TestInterrupted(t *testing.T) {
	reader, writer := io.Pipe()
	defer writer.Close()
	var stdout, stderr bytes.Buffer
	code := run([]string{"image", "--json", "--model", modelFile, "-"}, signalling{reader}, &stdout, &stderr)
	if code != command.Interrupted || stdout.Len() > 0 || !oneLine(stderr.String(), "interrupted") {
		t.Errorf("got code %d, stdout %q, stderr %q, want code 130 and one line", code, &stdout, &stderr)
	}
}

// cancelling ends a context from within its only read.
type cancelling struct{ cancel func() }

func (c cancelling) Read(p []byte) (int, error) {
	c.cancel()
	return copy(p, "data"), io.EOF
}

// An interrupt at the very moment the image has been read gives the image, or what is wrong with it, or that it was interrupted, never
// a mixture.
func TestReadAllInterrupted(t *testing.T) {
	for range 100 {
		for limit, want := range map[int64]string{4: "", 3: "more than 3 bytes"} {
			ctx, cancel := context.WithCancel(context.Background())
			data, err := readAll(ctx, func() (io.ReadCloser, error) { return io.NopCloser(cancelling{cancel}), nil }, limit)
			read := string(data) == "data" && err == nil && want == "" || data == nil && err != nil && want != "" && strings.Contains(err.Error(), want)
			if interrupted := data == nil && err == context.Canceled; !read && !interrupted {
				t.Fatalf("at most %d bytes: got %q, %v, want the data, %q or %v", limit, data, err, want, context.Canceled)
			}
		}
	}
}

// closedPipe fails like standard output whose reader has gone, from the given write on.
type closedPipe struct{ writesLeft int }

func (p *closedPipe) Write(b []byte) (int, error) {
	if p.writesLeft--; p.writesLeft < 0 {
		return 0, syscall.EPIPE
	}
	return len(b), nil
}

func TestClosedPipe(t *testing.T) {
	images := filepath.Join(dataDir, "test", "good")
	for _, args := range [][]string{
		{"image", "--json", "--model", modelFile, images},
		{"eval", "--json", "--model", modelFile, "--data", dataDir},
		{"--help"}, {"image", "--help"}, {"--version"}, {"version", "--licenses"},
	} {
		var stderr bytes.Buffer
		code := run(args, nil, &closedPipe{}, &stderr)
		if code != command.Failed || !oneLine(stderr.String(), syscall.EPIPE.Error()) {
			t.Errorf("%v: got code %d, stderr %q, want code 1 and one line", args, code, &stderr)
		}
	}
	var stderr bytes.Buffer
	code := run([]string{"image", "--model", modelFile, "--threshold=1", images}, nil, &closedPipe{writesLeft: 1}, &stderr)
	if code != command.Failed || !oneLine(stderr.String(), syscall.EPIPE.Error()) {
		t.Errorf("after a line: got code %d, stderr %q, want code 1 and one line", code, &stderr)
	}
}

// TestCommands: every command is explained in either way, and what is like one is asked for.
func TestCommands(t *testing.T) {
	for _, c := range app.Commands {
		_, want, _ := infer(nil, c.Name, "--help")
		if code, stdout, stderr := infer(nil, "help", c.Name); code != command.Done || stderr != "" || stdout != want {
			t.Errorf("help %s: got code %d, stdout %q, stderr %q, want code 0 and %q", c.Name, code, stdout, stderr, want)
		}
	}
	for args, want := range map[string]string{
		"imgae":                 `unknown command "imgae"; did you mean image?; see ` + "`infer --help`",
		"image --treshold=1 x":  "--treshold; did you mean --threshold?; see `infer image --help`",
		"serve --max-conection": "--max-conection; did you mean --max-connections?; see `infer serve --help`",
		"help benhc":            "did you mean bench?",
	} {
		if code, _, stderr := infer(nil, strings.Fields(args)...); code != command.WrongUsage || !oneLine(stderr, want) {
			t.Errorf("%s: got code %d, stderr %q, want code 2 and %q", args, code, stderr, want)
		}
	}
}

// Every Go module in the program is in the notices.
func TestNoticesOfModules(t *testing.T) { testmain.WantNotices(t, rdpp.Notice()) }

// Every line of every help fits a terminal, and every flag says by one of a few words what it takes.
func TestFlags(t *testing.T) { testmain.WantFlags(t, &app) }

// TestLimits: what a control group allows is what commands begin with.
func TestLimits(t *testing.T) {
	before := testmain.Limited(t, 80, 1<<30)
	for name, wants := range map[string][]string{
		"image": {`--threads N N CPU threads \(default 1\)`, `--max-memory N N MiB [^(]*\(default 256\)`},
		"serve": {`--threads N N CPU threads \(default 1\)`, `--max-memory N N MiB [^(]*\(default 256\)`},
		"batch": {`--threads N N CPU threads \(default 1\)`, `--max-memory N N MiB [^(]*\(default 256\)`},
		"bench": {`--threads N N CPU threads \(default 1\)`},
	} {
		testmain.WantHelp(t, asProgram, before, []string{name, "--help-all"}, wants...)
	}
}
