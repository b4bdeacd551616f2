package rdpp_test

import (
	"archive/zip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/export/exporttest"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/sample"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// What every exported model has to reach, as the promise of one score everywhere has it.
const (
	scoreTolerance = 1e-4
	mapTolerance   = 1e-3
)

// photographs are painted pictures by what is special about them; those of a group have one size.
func photographs(t *testing.T) [][]*imagefile.Image {
	t.Helper()
	dir := t.TempDir()
	err := sample.Write(dir, &sample.Options{Size: 256, Train: 1, TestGood: 1, TestDefect: 1, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	picture := func(name string) *imagefile.Image {
		img, err := imagefile.DecodeFile(filepath.Join(dir, name), nil)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	part, scratch := picture("part/test/good/000.png"), picture("part/test/scratch/000.png")
	cloth := picture("texture/test/stain/000.png")
	return [][]*imagefile.Image{
		{part, grey(cloth), scratch},
		{crop(part, 20, 90, 231, 77), crop(cloth, 0, 0, 231, 77)}, // wide
		{crop(scratch, 100, 0, 61, 256)},                          // tall
		{crop(cloth, 100, 100, 33, 40)},                           // smaller than the network's input
		{crop(part, 128, 128, 1, 1)},
	}
}

func crop(img *imagefile.Image, x, y, w, h int) *imagefile.Image {
	out := &imagefile.Image{W: w, H: h}
	for row := range h {
		out.Pix = append(out.Pix, img.Pix[((y+row)*img.W+x)*3:][:3*w]...)
	}
	return out
}

// grey is the green of a picture in all channels.
func grey(img *imagefile.Image) *imagefile.Image {
	out := &imagefile.Image{W: img.W, H: img.H, Pix: slices.Clone(img.Pix)}
	for i := range out.Pix {
		out.Pix[i] = img.Pix[i-i%3+1]
	}
	return out
}

// randomModel writes a model of random weights whose batch norms do something.
func randomModel(t *testing.T, config rdpp.Config) string {
	t.Helper()
	m, err := rdpp.NewModel(config, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Info.Category = "part"
	m.Info.Calibration = rdpp.Calibration{Rule: "test", Provisional: true, Scores: []float64{0.25, 0.5}}
	rng := rand.New(rand.NewPCG(1, 2))
	state := append(nets(m).Teacher.State(), append(nets(m).Bottleneck.State(), nets(m).Student.State()...)...)
	for _, e := range state {
		shape, err := e.Tensor.Shape()
		if err != nil {
			t.Fatal(err)
		}
		if len(shape) != 1 {
			continue
		}
		middle, spread := 0.0, 0.2 // of biases and means
		if strings.HasSuffix(e.Name, "weight") || strings.HasSuffix(e.Name, "var") {
			middle, spread = 1, 0.4
		}
		values := make([]float32, shape[0])
		for i := range values {
			values[i] = float32(middle + spread*(2*rng.Float64()-1))
		}
		if err := torch.Write(e.Tensor, values); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	if config.Score != rdpp.ScoreBalanced {
		return path
	}
	metadata, sources := contents(t, path)
	text := document(t, metadata["rdpp"], "", "map_weights", anomaly.MapTerms{0.1, 0.3, 0.2, 0.7, 0, 0.9})
	text = document(t, text, "", "map_levels", anomaly.MapTerms{0.05, 0.04, 0, 0.02, 0, 0.01})
	return writeFile(t, map[string]string{"rdpp": text}, sources)
}

func exportFile(t *testing.T, model string, opt rdpp.ExportOptions) string {
	t.Helper()
	m, err := rdpp.LoadModel(model, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	path := filepath.Join(t.TempDir(), "exported")
	if err := m.Export(context.Background(), path, &opt); err != nil {
		t.Fatal(err)
	}
	return path
}

// batch is the input of an exported model for images of one size.
func batch(images []*imagefile.Image, input string, S int) (x exporttest.Batch) {
	for _, img := range images {
		if input == rdpp.InputUint8 {
			x.Pixels = append(x.Pixels, img.Pix...)
			continue
		}
		planes := make([]float32, 3*S*S)
		dataset.Resize(planes, img, S)
		dataset.ImageNet.Apply(planes, planes, S)
		x.Planes = append(x.Planes, planes...)
	}
	x.Shape = []int64{int64(len(images)), int64(images[0].H), int64(images[0].W), 3}
	if input == rdpp.InputFloat {
		x.Shape = []int64{int64(len(images)), 3, int64(S), int64(S)}
	}
	return x
}

// checkOutputs compares what an exported model says about images with what a detector does, and returns the largest
// differences of scores and maps.
func checkOutputs(t *testing.T, got exporttest.Result, d *rdpp.Detector, images []*imagefile.Image) (ofScore, ofMap float64) {
	t.Helper()
	S := d.Info().Config.ImageSize
	B := len(images)
	if len(got.Scores) != B || len(got.Maps) != B*S*S || len(got.Normalised) != B || len(got.Anomalous) != B {
		t.Fatalf("got %d scores, %d map values, %d normalised, %d verdicts for %d images of side %d", len(got.Scores),
			len(got.Maps), len(got.Normalised), len(got.Anomalous), B, S)
	}
	for i, img := range images {
		want, err := d.Detect(img)
		if err != nil {
			t.Fatal(err)
		}
		ofScore = max(ofScore, math.Abs(float64(got.Scores[i])-want.Score))
		for j, v := range want.Map {
			ofMap = max(ofMap, math.Abs(float64(got.Maps[i*S*S+j])-float64(v)))
		}
		if !(math.Abs(float64(got.Scores[i])-want.Score) <= scoreTolerance) {
			t.Errorf("image %d: got score %v, want %v", i, got.Scores[i], want.Score)
		}
		if !(math.Abs(float64(got.Normalised[i])-want.Normalised) <= scoreTolerance) {
			t.Errorf("image %d: got normalised score %v, want %v", i, got.Normalised[i], want.Normalised)
		}
		if near := math.Abs(want.Score-want.Threshold) <= scoreTolerance; !near && got.Anomalous[i] != want.Anomalous {
			t.Errorf("image %d, score %v: got anomalous %v, want %v", i, want.Score, got.Anomalous[i], want.Anomalous)
		}
	}
	if !(ofMap <= mapTolerance) {
		t.Errorf("got maps that differ by up to %v, want at most %v", ofMap, mapTolerance)
	}
	return ofScore, ofMap
}

// setThreshold puts a model's threshold into the middle of the images' scores.
func setThreshold(t *testing.T, file string, groups [][]*imagefile.Image) {
	t.Helper()
	d, err := rdpp.OpenDetector(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var scores []float64
	for _, images := range groups {
		for _, img := range images {
			r, err := d.Detect(img)
			if err != nil {
				t.Fatal(err)
			}
			scores = append(scores, r.Score)
		}
	}
	slices.Sort(scores)
	m, err := rdpp.LoadModel(file, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Info.Calibration.Threshold = (scores[len(scores)/2-1] + scores[len(scores)/2]) / 2
	if err := m.Save(file); err != nil {
		t.Fatal(err)
	}
}

func TestExport(t *testing.T) {
	type model struct {
		arch, method string
		size         int
		threshold    bool // else it is 0
	}
	models := []model{
		{"resnet18", rdpp.MethodRDPP, 64, true},
		{"resnet18", rdpp.MethodRD, 96, false},
	}
	if *testmain.Slow {
		for _, arch := range torch.Architectures() {
			models = append(models, model{arch, rdpp.MethodRDPP, 128, true})
		}
	}
	groups := photographs(t)
	for _, m := range models {
		t.Run(fmt.Sprint(m.arch, " ", m.method, " ", m.size), func(t *testing.T) {
			config := rdpp.DefaultConfig()
			config.Arch, config.Method, config.ImageSize = m.arch, m.method, m.size
			if m.method == rdpp.MethodRD {
				config.Score = rdpp.ScoreReleased
			}
			file := randomModel(t, config)
			if m.threshold {
				setThreshold(t, file, groups)
			}
			testExports(t, file, groups)
		})
	}
}

// testExports compares a model's exported files with the model.
func testExports(t *testing.T, file string, groups [][]*imagefile.Image) {
	d, err := rdpp.OpenDetector(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, c := range []struct {
		format, input string
		run           func(testing.TB, string, exporttest.Batch) exporttest.Result
		groups        [][]*imagefile.Image
	}{
		{rdpp.FormatONNX, rdpp.InputUint8, exporttest.ONNX, groups},
		{rdpp.FormatONNX, rdpp.InputFloat, exporttest.ONNX, groups[:1]},
		{rdpp.FormatTorchScript, rdpp.InputUint8, exporttest.TorchScript, groups[:2]},
		{rdpp.FormatTorchScript, rdpp.InputFloat, exporttest.TorchScript, groups[:1]},
	} {
		t.Run(c.format+" "+c.input, func(t *testing.T) {
			exported := exportFile(t, file, rdpp.ExportOptions{Format: c.format, Input: c.input})
			for _, images := range c.groups {
				got := c.run(t, exported, batch(images, c.input, d.Info().Config.ImageSize))
				score, anomaly := checkOutputs(t, got, d, images)
				t.Logf("%d x %d pixels: scores differ by up to %.1e, maps by %.1e", images[0].W, images[0].H, score, anomaly)
			}
		})
	}
}

func smallConfig() rdpp.Config {
	c := rdpp.DefaultConfig()
	c.Arch, c.ImageSize = "resnet18", 64
	return c
}

// Who opens an exported file finds there what the model knows of itself.
func TestExportMetadata(t *testing.T) {
	file := randomModel(t, smallConfig())
	m, err := rdpp.LoadModel(file, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Info.Calibration = rdpp.Calibration{Rule: "given", Threshold: 1.0 / 3, PixelThreshold: 0.25, FalseAlarm: 0.01}
	if err := m.Save(file); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"threshold": "0.3333333333333333", "pixel_threshold": "0.25", "false_alarm": "0.01",
		"provisional": "false", "architecture": "resnet18", "category": "part", "teacher": "random",
		"software": "rdpp " + rdpp.Version, "image_size": "64"}
	for format, read := range map[string]func(testing.TB, string) map[string]string{
		rdpp.FormatONNX: exporttest.Metadata, rdpp.FormatTorchScript: scriptMetadata,
	} {
		t.Run(format, func(t *testing.T) {
			got := read(t, exportFile(t, file, rdpp.ExportOptions{Format: format}))
			for key, value := range want {
				if got[key] != value {
					t.Errorf("%s: got %q, want %q", key, got[key], value)
				}
			}
			var info rdpp.Info
			if err := json.Unmarshal([]byte(got["rdpp"]), &info); err != nil {
				t.Fatal(err)
			}
			info.Complete() // another method's settings are not in it
			if g, w := fmt.Sprint(info), fmt.Sprint(m.Info); g != w {
				t.Errorf("rdpp: got %s, want %s", g, w)
			}
		})
	}
}

// scriptMetadata reads a TorchScript file's further entries; the file is a ZIP archive.
func scriptMetadata(t testing.TB, file string) map[string]string {
	t.Helper()
	archive, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	values := map[string]string{}
	for _, f := range archive.File {
		_, key, found := strings.Cut(f.Name, "/extra/")
		if !found {
			continue
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		values[key] = string(text)
	}
	return values
}

// The same model gives the same ONNX file.
func TestExportRepeats(t *testing.T) {
	file := randomModel(t, smallConfig())
	first, second := exportFile(t, file, rdpp.ExportOptions{}), exportFile(t, file, rdpp.ExportOptions{})
	if got, want := digest(t, second), digest(t, first); got != want {
		t.Errorf("got SHA-256 %s, want %s as before", got, want)
	}
}

func TestExportErrors(t *testing.T) {
	m, err := rdpp.LoadModel(randomModel(t, smallConfig()), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	dir := t.TempDir()
	path := filepath.Join(dir, "old")
	if err := os.WriteFile(path, []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	stopped, stop := context.WithCancel(context.Background())
	stop()
	live := torch.LiveTensors()
	for _, c := range []struct {
		ctx  context.Context
		path string
		opt  rdpp.ExportOptions
		want error
		text string
	}{
		{context.Background(), path, rdpp.ExportOptions{Format: "tflite"}, rdpp.ErrConfig, `"tflite"; use onnx or torchscript`},
		{context.Background(), path, rdpp.ExportOptions{Input: "int8"}, rdpp.ErrConfig, `"int8"; use uint8 or float`},
		{stopped, path, rdpp.ExportOptions{Format: rdpp.FormatONNX}, context.Canceled, path},
		{stopped, path, rdpp.ExportOptions{Format: rdpp.FormatTorchScript}, context.Canceled, path},
		{context.Background(), filepath.Join(dir, "no", "file"), rdpp.ExportOptions{}, fs.ErrNotExist, "no/file"},
	} {
		checkError(t, fmt.Sprint(c.path, c.opt), m.Export(c.ctx, c.path, &c.opt), c.want, c.text)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "old" {
		t.Errorf("got %.20q, %v, want the old content", content, err)
	}
	if left := temporary(t, dir); len(left) > 0 {
		t.Errorf("got %v left behind, want nothing", left)
	}
	if got := torch.LiveTensors(); got != live {
		t.Errorf("got %d open tensors, want %d as before", got, live)
	}
}
