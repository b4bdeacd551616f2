package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/sample"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// What TestMain makes for all tests.
var (
	library   string         // the folder of librdpp.so
	modelFile string         // random weights, input side 32, some pictures are anomalous
	images    []string       // of 64 x 64 pixels
	frameFile string         // the first one as PPM
	results   []*rdpp.Result // of images, as Go gets them
	scratch   string         // a folder that outlives single tests
)

func TestMain(m *testing.M) { os.Exit(testmain.Run(m, prepare)) }

func prepare(dir string) error {
	scratch = dir
	library = scratch
	build := exec.Command("go", "build", "-buildmode=c-shared", "-tags", "codecs_shared", "-o", filepath.Join(library, "librdpp.so"), ".")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", build, err, text)
	}
	if err := sample.Write(scratch, &sample.Options{Category: "part", Size: 64, Train: 1, TestGood: 2, TestDefect: 1}); err != nil {
		return err
	}
	set, err := dataset.Open(filepath.Join(scratch, "part"), nil)
	if err != nil {
		return err
	}
	for _, item := range set.Test {
		images = append(images, item.Path)
	}
	if err := processors(); err != nil { // as the library does
		return err
	}
	if err := makeModel(); err != nil {
		return err
	}
	frame, err := imagefile.DecodeFile(images[0], nil)
	if err != nil {
		return err
	}
	frameFile = filepath.Join(scratch, "frame.ppm")
	return os.WriteFile(frameFile, append(fmt.Appendf(nil, "P6\n%d %d\n255\n", frame.W, frame.H), frame.Pix...), 0o666)
}

// makeModel writes a model whose threshold lies just below the first image's score, and scores all images with it.
func makeModel() error {
	config := rdpp.DefaultConfig()
	config.Arch, config.ImageSize = "resnet18", 32
	model, err := rdpp.NewModel(config, torch.CPU)
	if err != nil {
		return err
	}
	defer model.Close()
	model.Info.Data.Range = dataset.Range{Darkest: 0.2, Brightest: 0.8}
	modelFile = filepath.Join(scratch, "model.safetensors")
	for range 2 { // at first to learn the score
		if err := model.Save(modelFile); err != nil {
			return err
		}
		d, err := rdpp.OpenDetector(modelFile, nil)
		if err != nil {
			return err
		}
		defer d.Close()
		results = nil
		for _, path := range images {
			r, _, err := d.DetectFile(path)
			if err != nil {
				return err
			}
			results = append(results, r)
		}
		threshold := results[0].Score * 0.98
		model.Info.Calibration = rdpp.Calibration{Rule: "test", FalseAlarm: 0.1, Exact: true, Threshold: threshold, PixelThreshold: threshold}
	}
	return nil
}

// compile builds a program against the library and returns its path.
func compile(t *testing.T, compiler, source string, flags ...string) string {
	t.Helper()
	if _, err := exec.LookPath(compiler); err != nil {
		t.Skipf("no %s is installed", compiler)
	}
	program := filepath.Join(t.TempDir(), "program")
	args := append(flags, "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-pthread", "-I", ".", source, "-o", program, "-L", library,
		"-lrdpp", "-Wl,-rpath,"+library, "-Wl,--allow-shlib-undefined")
	if text, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", compiler, args, err, text)
	}
	return program
}

// wantLine is what the examples print for an image.
func wantLine(r *rdpp.Result, path string) string {
	anomalous := 0
	if r.Anomalous {
		anomalous = 1
	}
	return fmt.Sprintf("%.17g %.17g %d %d %d %d %s\n", r.Score, r.Normalised, anomalous, len(r.Regions), r.Width, r.Height, path)
}

// The examples give what Go gives, to the last bit.
func TestExamples(t *testing.T) {
	if !results[0].Anomalous || len(results[0].Regions) == 0 {
		t.Fatalf("got %+v of the first image, want it anomalous, with regions", results[0])
	}
	for _, c := range []struct {
		name    string
		command func(t *testing.T) []string
		pixels  bool // it also reads PPM files
	}{
		{"C", func(t *testing.T) []string { return []string{compile(t, "cc", "examples/detect.c", "-std=c11")} }, true},
		{"C++", func(t *testing.T) []string { return []string{compile(t, "c++", "examples/detect.cpp", "-std=c++17")} }, false},
		{"Python", func(t *testing.T) []string {
			if _, err := exec.LookPath("python3"); err != nil {
				t.Skip("no python3 is installed")
			}
			return []string{"python3", "examples/detect.py"}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			line := c.command(t)
			run := func(args ...string) (stdout, stderr string, code int) {
				cmd := exec.Command(line[0], append(slices.Clone(line[1:]), args...)...)
				cmd.Env = append(os.Environ(), "PYTHONPATH=.", "PYTHONDONTWRITEBYTECODE=1", "RDPP_LIBRARY="+filepath.Join(library, "librdpp.so"))
				var out, errs strings.Builder
				cmd.Stdout, cmd.Stderr = &out, &errs
				if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
					t.Fatal(err)
				}
				return out.String(), errs.String(), cmd.ProcessState.ExitCode()
			}
			args, want := slices.Clone(images), ""
			for i, path := range images {
				want += wantLine(results[i], path)
			}
			if c.pixels {
				args, want = append(args, frameFile), want+wantLine(results[0], frameFile)
			}
			stdout, stderr, code := run(append([]string{modelFile}, args...)...)
			if stdout != want || stderr != "" || code != 0 {
				t.Errorf("got %q, stderr %q, code %d, want %q", stdout, stderr, code, want)
			}
			stdout, stderr, code = run(modelFile, modelFile, images[0])
			if stdout != wantLine(results[0], images[0]) || !strings.Contains(stderr, "not an image") || code != 1 {
				t.Errorf("a model for an image: got %q, stderr %q, code %d, want a line, an error and code 1", stdout, stderr, code)
			}
			if _, stderr, code = run(images[0], images[0]); !strings.Contains(stderr, images[0]) || code != 1 {
				t.Errorf("an image for a model: got stderr %q, code %d, want its name and code 1", stderr, code)
			}
		})
	}
}

// ignoringUpperHalf is an image's score where its upper half is ignored.
func ignoringUpperHalf(t *testing.T, path string) float64 {
	t.Helper()
	d, err := rdpp.OpenDetector(modelFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	img, err := imagefile.DecodeFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	mask := &imagefile.Mask{W: img.W, H: img.H, Pix: make([]uint8, img.W*img.H)}
	for i := range img.W * (img.H / 2) {
		mask.Pix[i] = 1
	}
	r, err := d.DetectIgnoring(img, mask)
	if err != nil {
		t.Fatal(err)
	}
	return r.Score
}

// check.c tests errors, handles, threads and signals from C; what it prints is held against Go here.
func TestContract(t *testing.T) {
	program := compile(t, "cc", "testdata/check.c", "-std=gnu11", "-lm")
	stdout, err := exec.Command(program, modelFile, frameFile, images[0]).CombinedOutput()
	r := results[0]
	sum := 0.0
	for _, v := range r.Map {
		sum += float64(v)
	}
	want := fmt.Sprintf("score %.17g\nmap %.17g\n", r.Score, sum)
	for _, region := range r.Regions {
		want += fmt.Sprintf("region %d %d %d %d %d %.9g\n", region.X, region.Y, region.Width, region.Height, region.Area, region.Peak)
	}
	want += fmt.Sprintf("ignored %.17g\n", ignoringUpperHalf(t, images[0]))
	if err != nil || string(stdout) != want {
		t.Errorf("%v, got\n%swant\n%s", err, stdout, want)
	}
	// As nohup and cron start programs, with signals ignored.
	ignoring := exec.Command("sh", "-c", `trap '' HUP INT QUIT USR2; exec "$@"`, "sh", program, modelFile)
	if text, err := ignoring.CombinedOutput(); err != nil {
		t.Errorf("with signals ignored: %v\n%s", err, text)
	}
}

// What the library exports are the functions of rdpp.h alone, so that nothing takes the place of a program's own, and none
// has the name of one in csrc: two libraries of one process must not answer to the same name.
func TestSymbols(t *testing.T) {
	symbols := func(file string) (names []string) {
		f, err := elf.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		all, err := f.DynamicSymbols()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if s.Section != elf.SHN_UNDEF {
				names = append(names, s.Name)
			}
		}
		slices.Sort(names)
		return names
	}
	got := symbols(filepath.Join(library, "librdpp.so"))
	want := []string{"rdpp_abi_version", "rdpp_close", "rdpp_detect_encoded", "rdpp_detect_encoded_ignoring", "rdpp_detect_pixels",
		"rdpp_detect_pixels_ignoring", "rdpp_message_free", "rdpp_open",
		"rdpp_result_free", "rdpp_version"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, name := range symbols("../../build/lib/librdpptorch.so") {
		if slices.Contains(got, name) {
			t.Errorf("%s is also in librdpptorch.so", name)
		}
		if !strings.HasPrefix(name, "rdpp_") {
			t.Errorf("got %s exported by librdpptorch.so, want rdpp_ before its name", name)
		}
	}
}

func TestFrame(t *testing.T) {
	// 2 x 2 pixels with a byte of padding, which must not be read past the last row.
	f := frame{width: 2, height: 2, stride: 7, order: bgr}
	size, err := f.size(0)
	if err != nil || size != 13 {
		t.Fatalf("got %d, %v, want 13 bytes", size, err)
	}
	img := f.image([]byte{3, 2, 1, 6, 5, 4, 0, 9, 8, 7, 12, 11, 10})
	if want := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}; img.W != 2 || img.H != 2 || !slices.Equal(img.Pix, want) {
		t.Errorf("got %v, want %v", img, want)
	}
	f = frame{width: 1 << 20, height: 1 << 20, order: grey}
	if _, err := f.size(1 << 39); err == nil {
		t.Error("got no error, want one about the limit")
	}
}

// impossibleMap asks for more memory than there are addresses.
func impossibleMap() error {
	var s torch.Scope
	defer s.Close()
	x := s.Tensor(torch.FromSlice(make([]float32, 4), 1, 1, 2, 2))
	f := torch.Features{x, x, x}
	s.Pair(torch.AnomalyMap(f, f, 1<<24, torch.MapOptions{Sigma: 4}))
	return s.Err()
}

func TestOutcome(t *testing.T) {
	var nilMap map[string]int
	for _, c := range []struct {
		name       string
		f          func() error
		wantStatus int
		wantText   string // in the message
	}{
		{"success", func() error { return nil }, statusOK, ""},
		{"known", func() error { return fmt.Errorf("outer: %w", &statusError{statusImage, errors.New("inner")}) }, statusImage, "outer: inner"},
		{"decoder's panic", func() error {
			return &statusError{statusImage, fmt.Errorf("damaged: its decoder %w", imagefile.ErrPanic)}
		}, statusInternal, "decoder"},
		{"closed", func() error { return fmt.Errorf("detect: %w", torch.ErrClosed) }, statusClosed, "closed"},
		{"memory", func() error {
			return fmt.Errorf("detect: %w", &torch.Error{Operation: "predict", Code: torch.ErrOutOfMemory, Message: "12 GiB"})
		}, statusMemory, "12 GiB"},
		{"device", func() error { return &torch.Error{Operation: "predict", Code: torch.ErrDevice, Message: "CUDA error"} }, statusDevice, "CUDA error"},
		{"unsupported", func() error {
			return &torch.Error{Operation: "predict", Code: torch.ErrUnsupported, Message: "no such kernel"}
		}, statusUnsupported, "no such"},
		{"model that no memory suffices for", func() error { return modelError(fmt.Errorf("rdpp: %w", torch.ErrOutOfMemory)) }, statusMemory, "out of memory"},
		{"damaged model", func() error { return modelError(fmt.Errorf("rdpp: %w", torch.ErrArgument)) }, statusModel, "bad argument"},
		{"real lack of memory", impossibleMap, statusMemory, "memory"},
		{"unknown", func() error { return errors.New("two\nlines\x00") }, statusFailed, "two lines"},
		{"panic", func() error { panic("oops\n") }, statusInternal, "oops"},
		{"runtime panic", func() error { nilMap["x"] = 1; return nil }, statusInternal, "nil map"},
		{"runtime error", func() error { _ = images[len(images)+runtime.NumCPU()]; return nil }, statusInternal, "out of range"},
		{"worker's panic", func() error {
			w := torch.NewWorker()
			defer w.Close()
			return w.Do(func() error { panic("oops") })
		}, statusInternal, "oops"},
	} {
		status, text := outcome(c.f)
		if status != c.wantStatus || !strings.Contains(text, c.wantText) || strings.ContainsAny(text, "\n\x00") {
			t.Errorf("%s: got %d, %q, want %d, %q in one line", c.name, status, text, c.wantStatus, c.wantText)
		}
	}
}

// Loading and using the library leaves the process as it was, but for what rdpp.h tells of.
func TestProcessStaysAsItWas(t *testing.T) {
	program := compile(t, "cc", "testdata/process.c", "-std=gnu11", "-fopenmp", "-ldl", "-Wl,--as-needed")
	// A soft limit of files, as logins have, which Go's programs raise.
	cmd := exec.Command("sh", "-c", `ulimit -Sn 256; exec "$@"`, "sh", program, filepath.Join(library, "librdpp.so"), modelFile)
	cmd.Env = append(os.Environ(), "ONEDNN_PRIMITIVE_CACHE_CAPACITY=1000", "CUBLAS_WORKSPACE_CONFIG=:16:8")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v, want no changes\n%s", err, text)
	}
}
