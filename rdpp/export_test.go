package rdpp_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	ort "github.com/yalue/onnxruntime_go"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/sample"
	"rdpp/torch"
)

// What every exported model has to reach, as the promise of one score everywhere has it.
const (
	scoreTolerance = 1e-4
	mapTolerance   = 1e-3
)

// tensor is an exported model's input: pixels or planes.
type tensor struct {
	pixels []uint8
	planes []float32
	shape  []int64
}

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
	part, cloth, scratch := picture("part/test/good/000.png"), picture("texture/test/stain/000.png"), picture("part/test/scratch/000.png")
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
func randomModel(t *testing.T, config rdpp.Config, threshold float64) string {
	t.Helper()
	m, err := rdpp.NewModel(config, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Info.Category = "part"
	m.Info.Calibration = rdpp.Calibration{Rule: "test", Provisional: true, Threshold: threshold, Scores: []float64{0.25, 0.5}}
	rng := rand.New(rand.NewPCG(1, 2))
	state := append(m.Teacher.State(), append(m.Bottleneck.State(), m.Student.State()...)...)
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
	return path
}

func exportFile(t *testing.T, model string, opt rdpp.ExportOptions) string {
	t.Helper()
	m, err := rdpp.LoadModel(model, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	path := filepath.Join(t.TempDir(), "exported")
	if err := m.Export(path, &opt); err != nil {
		t.Fatal(err)
	}
	return path
}

// batch is the input of an exported model for images of one size.
func batch(images []*imagefile.Image, input string, S int) (x tensor) {
	for _, img := range images {
		if input == rdpp.InputUint8 {
			x.pixels = append(x.pixels, img.Pix...)
			continue
		}
		planes := make([]float32, 3*S*S)
		dataset.Resize(planes, img, S)
		dataset.ImageNet.Apply(planes, planes, S)
		x.planes = append(x.planes, planes...)
	}
	x.shape = []int64{int64(len(images)), int64(images[0].H), int64(images[0].W), 3}
	if input == rdpp.InputFloat {
		x.shape = []int64{int64(len(images)), 3, int64(S), int64(S)}
	}
	return x
}

// buildRunner builds the program that runs TorchScript by libtorch alone.
var buildRunner = sync.OnceValues(func() ([]byte, error) {
	return exec.Command("cmake", "--build", "../build", "--target", "run_script").CombinedOutput()
})

// runScript runs a TorchScript file by libtorch alone, in a process of its own.
func runScript(t *testing.T, file string, in tensor) outputs {
	t.Helper()
	if text, err := buildRunner(); err != nil {
		t.Fatalf("building run_script: %v\n%s", err, text)
	}
	dir := t.TempDir()
	input, output := filepath.Join(dir, "input"), filepath.Join(dir, "output")
	data, dtype := in.pixels, "uint8"
	if in.planes != nil {
		dtype = "float32"
		for _, v := range in.planes {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
	}
	if err := os.WriteFile(input, data, 0o666); err != nil {
		t.Fatal(err)
	}
	args := []string{file, input, output, dtype}
	for _, d := range in.shape {
		args = append(args, strconv.FormatInt(d, 10))
	}
	if text, err := exec.Command("../build/run_script", args...).CombinedOutput(); err != nil {
		t.Fatalf("run_script: %v\n%s", err, text)
	}
	data, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	var values []float32
	for ; len(data) >= 4; data = data[4:] {
		values = append(values, math.Float32frombits(binary.LittleEndian.Uint32(data)))
	}
	B, n := int(in.shape[0]), len(values)
	out := outputs{scores: values[:B], maps: values[B : n-2*B], normalised: values[n-2*B : n-B]}
	for _, v := range values[n-B:] {
		out.anomalous = append(out.anomalous, v != 0)
	}
	return out
}

// formats are how exported files are run.
var formats = []struct {
	name string
	run  func(*testing.T, string, tensor) outputs
}{{rdpp.FormatONNX, runONNX}, {rdpp.FormatTorchScript, runScript}}

// checkOutputs compares what an exported model says about images with what a detector does, and returns the largest
// differences of scores and maps.
func checkOutputs(t *testing.T, got outputs, d *rdpp.Detector, images []*imagefile.Image) (ofScore, ofMap float64) {
	t.Helper()
	S := d.Info().Config.ImageSize
	B := len(images)
	if len(got.scores) != B || len(got.maps) != B*S*S || len(got.normalised) != B || len(got.anomalous) != B {
		t.Fatalf("got %d scores, %d map values, %d normalised, %d verdicts for %d images of side %d", len(got.scores),
			len(got.maps), len(got.normalised), len(got.anomalous), B, S)
	}
	for i, img := range images {
		want, err := d.Detect(img)
		if err != nil {
			t.Fatal(err)
		}
		ofScore = max(ofScore, math.Abs(float64(got.scores[i])-want.Score))
		for j, v := range want.Map {
			ofMap = max(ofMap, math.Abs(float64(got.maps[i*S*S+j])-float64(v)))
		}
		if !(math.Abs(float64(got.scores[i])-want.Score) <= scoreTolerance) {
			t.Errorf("image %d: got score %v, want %v", i, got.scores[i], want.Score)
		}
		if !(math.Abs(float64(got.normalised[i])-want.Normalised) <= scoreTolerance) {
			t.Errorf("image %d: got normalised score %v, want %v", i, got.normalised[i], want.Normalised)
		}
		if near := math.Abs(want.Score-want.Threshold) <= scoreTolerance; !near && got.anomalous[i] != want.Anomalous {
			t.Errorf("image %d, score %v: got anomalous %v, want %v", i, want.Score, got.anomalous[i], want.Anomalous)
		}
	}
	if !(ofMap <= mapTolerance) {
		t.Errorf("got maps that differ by up to %v, want at most %v", ofMap, mapTolerance)
	}
	return ofScore, ofMap
}

func TestExport(t *testing.T) {
	type model struct {
		arch, method string
		size         int
		threshold    float64
	}
	models := []model{
		{"resnet18", rdpp.MethodRDPP, 64, 1.5},
		{"resnet18", rdpp.MethodRD, 96, 1.5},
	}
	if *slow {
		for _, arch := range torch.Architectures() {
			models = append(models, model{arch, rdpp.MethodRDPP, 256, 1.5})
		}
	}
	groups := photographs(t)
	for _, m := range models {
		config := rdpp.DefaultConfig()
		config.Arch, config.Method, config.ImageSize = m.arch, m.method, m.size
		file := randomModel(t, config, m.threshold)
		d, err := rdpp.OpenDetector(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for _, format := range formats {
			for _, input := range []string{rdpp.InputUint8, rdpp.InputFloat} {
				name := strings.Join([]string{m.arch, m.method, strconv.Itoa(m.size), format.name, input}, " ")
				t.Run(name, func(t *testing.T) {
					if format.name == rdpp.FormatONNX {
						needONNXRuntime(t)
					}
					exported := exportFile(t, file, rdpp.ExportOptions{Format: format.name, Input: input})
					for _, images := range groups {
						score, anomaly := checkOutputs(t, format.run(t, exported, batch(images, input, m.size)), d, images)
						t.Logf("%d x %d pixels: scores differ by up to %.1e, maps by %.1e", images[0].W, images[0].H, score, anomaly)
					}
				})
			}
		}
	}
}
var _ = bytes.Equal
var _ = json.Marshal
var _ ort.Value
