package rdpp_test

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/onnxfile/onnxtest"
	"rdpp/torch"
)

// writeONNX writes a graph and returns the file's path.
func writeONNX(t *testing.T, g *onnxtest.Graph) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "network.onnx")
	if err := os.WriteFile(path, g.Encode(), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// features are those of the model's teacher for normalised planes of S x S.
func features(t *testing.T, m *rdpp.Model, planes []float64, S int64) (all [torch.Scales][]float32) {
	t.Helper()
	var s torch.Scope
	defer s.Close()
	narrow := make([]float32, len(planes))
	for i, v := range planes {
		narrow[i] = float32(v)
	}
	if err := nets(m).Teacher.Train(false); err != nil {
		t.Fatal(err)
	}
	f := s.Features(nets(m).Teacher.Forward(s.Tensor(torch.FromSlice(narrow, 1, 3, S, S))))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	for k := range all {
		var err error
		if all[k], err = torch.Read[float32](f[k]); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// A converted teacher has the features that the ONNX file says, computed by its operations one by one; with preprocessing,
// those of the picture, around which there is the mean colour of ImageNet.
func TestConvertTeacher(t *testing.T) {
	const S = 32
	rng := rand.New(rand.NewPCG(5, 6))
	c := rdpp.DefaultConfig()
	planes, picture := make([]float64, 3*S*S), &onnxtest.Planes{C: 3, H: S, W: S, Values: make([]float64, 3*S*S)}
	mean := [3]float64{100, 110, 120} // of blue, green, red
	outside := make([]float64, 3)
	for i := range picture.Values {
		colour := i / (S * S)
		v := 255 * rng.Float64()
		planes[(2-colour)*S*S+i%(S*S)] = (v/255 - float64(c.Mean[2-colour])) / float64(c.Std[2-colour])
		picture.Values[i] = v - mean[colour]
		outside[colour] = 255*float64(c.Mean[2-colour]) - mean[colour]
	}
	for _, test := range []struct {
		name       string
		opt        onnxtest.Options
		preprocess bool
		arch       string
		store      string
		tolerance  float64 // of the largest feature
	}{
		{"batch norms", onnxtest.Options{Top: true}, false, "resnet18", rdpp.StoreFP32, 1e-4},
		{"folded", onnxtest.Options{Folded: true}, false, "resnet18", rdpp.StoreFP32, 1e-4},
		{"folded, half precision", onnxtest.Options{Folded: true}, false, "resnet18", rdpp.StoreFP16, 1e-2},
		{"three convolutions", onnxtest.Options{Deep: true, Blocks: []int{3, 4, 6}}, false, "resnet50", rdpp.StoreFP32, 1e-4},
		{"preprocessing", onnxtest.Options{Top: true}, true, "resnet18", rdpp.StoreFP32, 1e-4},
		{"preprocessing, half precision", onnxtest.Options{Large: true}, true, "resnet18", "", 1e-2},
	} {
		g := onnxtest.ResNet(test.opt)
		input, around := &onnxtest.Planes{C: 3, H: S, W: S, Values: planes}, []float64(nil)
		opt := rdpp.ConvertOptions{ONNX: writeONNX(t, g), Out: filepath.Join(t.TempDir(), "teacher.safetensors"), Store: test.store}
		if test.preprocess {
			opt.Preprocess = writeONNX(t, onnxtest.MeanImage(S, float32(mean[0]), float32(mean[1]), float32(mean[2])))
			input, around = picture, outside
		}
		s, err := rdpp.ConvertTeacher(opt)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if s.Arch != test.arch || s.File != opt.Out || s.Producer != "onnxtest" || (len(s.LeftOut) > 0) != test.opt.Top || s.Numbers < 1e6 {
			t.Errorf("%s: got %+v", test.name, s)
		}
		config := tiny()
		config.Arch, config.Method = test.arch, rdpp.MethodRD
		m := newModel(t, config)
		if err := m.LoadTeacher(opt.Out); err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got, want := features(t, m, planes, S), g.Run(input, around)
		for k := range got {
			w := want[g.Features[k]].Values
			if len(got[k]) != len(w) {
				t.Fatalf("%s: layer%d: got %d features, want %d", test.name, k+1, len(got[k]), len(w))
			}
			worst := 0.0
			for i := range w {
				worst = max(worst, math.Abs(float64(got[k][i])-w[i]))
			}
			if largest := slices.Max(w); !(worst <= test.tolerance*largest) || largest == 0 {
				t.Errorf("%s: layer%d: features differ by %v of %v, want at most %v of that", test.name, k+1, worst, largest, test.tolerance)
			}
		}
		info, err := rdpp.Inspect(opt.Out)
		if err != nil {
			t.Fatal(err)
		}
		if source := info.Metadata["source"]; info.Kind != rdpp.KindResNet || info.Arch != test.arch || !strings.Contains(source, "network.onnx, SHA-256 "+digest(t, opt.ONNX)) {
			t.Errorf("%s: got a %s of %s from %q, want a ResNet of %s and its source", test.name, info.Kind, info.Arch, source, test.arch)
		}
	}
}

// The teacher in an exported model, whose batch norms are folded and whose layers others read too, comes out as it went in.
func TestConvertExported(t *testing.T) {
	for _, method := range []string{rdpp.MethodRDPP, rdpp.MethodRD} {
		config := tiny()
		config.Method = method
		model := randomModel(t, config)
		file := exportFile(t, model, rdpp.ExportOptions{Input: rdpp.InputFloat})
		out := filepath.Join(t.TempDir(), "teacher.safetensors")
		s, err := rdpp.ConvertTeacher(rdpp.ConvertOptions{ONNX: file, Out: out, Store: rdpp.StoreFP32, Arch: "resnet18"})
		if err != nil {
			t.Errorf("%s: %v", method, err)
			continue
		}
		if len(s.LeftOut) != 1 || !strings.Contains(s.LeftOut[0], "ConvTranspose") {
			t.Errorf("%s: left out: got %q, want the other networks", method, s.LeftOut)
		}
		original, err := rdpp.LoadModel(model, torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		defer original.Close()
		m := newModel(t, config)
		if err := m.LoadTeacher(out); err != nil {
			t.Fatal(err)
		}
		planes := make([]float64, 3*32*32)
		for i := range planes {
			planes[i] = math.Sin(float64(i))
		}
		got, want := features(t, m, planes, 32), features(t, original, planes, 32)
		for k := range got {
			for i := range want[k] {
				if math.Abs(float64(got[k][i]-want[k][i])) > 1e-4*float64(slices.Max(want[k])) {
					t.Errorf("%s: layer%d: feature %d: got %v, want %v", method, k+1, i, got[k][i], want[k][i])
					break
				}
			}
		}
	}
}

func TestConvertTeacherRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := onnxtest.ResNet(onnxtest.Options{}).Encode()
	network, mean := at("network.onnx", good), at("mean.onnx", onnxtest.MeanImage(4, 1, 2, 3).Encode())
	garbage, cut := at("garbage.onnx", []byte("no ONNX file")), at("cut.onnx", good[:len(good)/2])
	deep := at("deep.onnx", onnxtest.ResNet(onnxtest.Options{Deep: true, Blocks: []int{3, 4, 23}}).Encode())
	spoilt := onnxtest.ResNet(onnxtest.Options{})
	spoilt.Tensors[0].Values[5] = float32(math.Inf(-1))
	infinite := at("infinite.onnx", spoilt.Encode())
	spoilt.Tensors[0].Values[5] = 1e5
	large := at("large.onnx", spoilt.Encode())
	there, missing := at("there.safetensors", []byte("a teacher")), filepath.Join(dir, "missing.onnx")
	out := filepath.Join(dir, "out.safetensors")
	for _, c := range []struct {
		name string
		opt  rdpp.ConvertOptions
		want error
		text []string
	}{
		{"no source", rdpp.ConvertOptions{Out: out}, rdpp.ErrConfig, []string{"onnx is missing"}},
		{"no file to write", rdpp.ConvertOptions{ONNX: network}, rdpp.ErrConfig, []string{"out is missing"}},
		{"a precision of none", rdpp.ConvertOptions{ONNX: network, Out: out, Store: "int8"}, rdpp.ErrConfig, []string{`store is "int8"`, "fp16 or fp32"}},
		{"an architecture of none", rdpp.ConvertOptions{ONNX: network, Out: out, Arch: "vgg"}, rdpp.ErrConfig, []string{`arch is "vgg"`, "resnet18"}},
		{"another architecture", rdpp.ConvertOptions{ONNX: network, Out: out, Arch: "resnet34"}, rdpp.ErrConfig, []string{network, "resnet18, not resnet34"}},
		{"an architecture that is not supported", rdpp.ConvertOptions{ONNX: deep, Out: out}, rdpp.ErrConfig, []string{deep, "resnet101, not resnet18 or"}},
		{"a file that is there", rdpp.ConvertOptions{ONNX: network, Out: there}, rdpp.ErrConfig, []string{there, "overwrite"}},
		{"a folder", rdpp.ConvertOptions{ONNX: network, Out: dir, Overwrite: true}, rdpp.ErrConfig, []string{dir, "name a file"}},
		{"over the source", rdpp.ConvertOptions{ONNX: network, Out: network, Overwrite: true}, rdpp.ErrConfig, []string{network, "would be overwritten"}},
		{"over the preprocessing", rdpp.ConvertOptions{ONNX: network, Preprocess: mean, Out: mean, Overwrite: true}, rdpp.ErrConfig, []string{mean, "would be overwritten"}},
		{"into no folder", rdpp.ConvertOptions{ONNX: network, Out: filepath.Join(dir, "none", "out")}, os.ErrNotExist, []string{"none"}},
		{"below a file", rdpp.ConvertOptions{ONNX: network, Out: filepath.Join(there, "out")}, nil, []string{there, "the teacher's file"}},
		{"a missing source", rdpp.ConvertOptions{ONNX: missing, Out: out}, os.ErrNotExist, []string{missing, "name an ONNX file"}},
		{"no ONNX file", rdpp.ConvertOptions{ONNX: garbage, Out: out}, nil, []string{garbage, "no ONNX file"}},
		{"half a file", rdpp.ConvertOptions{ONNX: cut, Out: out}, nil, []string{cut, "damaged"}},
		{"no network", rdpp.ConvertOptions{ONNX: mean, Out: out}, nil, []string{mean, "no ResNet", "torch.onnx.export"}},
		{"an infinite number", rdpp.ConvertOptions{ONNX: infinite, Out: out}, nil, []string{infinite, "conv1.weight", "-Inf"}},
		{"a large number", rdpp.ConvertOptions{ONNX: large, Out: out}, nil, []string{large, "conv1.weight", "100000", "fp32 for store"}},
		{"missing preprocessing", rdpp.ConvertOptions{ONNX: network, Preprocess: missing, Out: out}, os.ErrNotExist, []string{missing, "preprocess"}},
		{"preprocessing of no kind", rdpp.ConvertOptions{ONNX: network, Preprocess: network, Out: out}, nil, []string{network, "preprocess", "Conv"}},
	} {
		_, err := rdpp.ConvertTeacher(c.opt)
		checkError(t, c.name, err, c.want, c.text...)
	}
	if _, err := os.Stat(out); err == nil {
		t.Errorf("%s was written, though every conversion failed", out)
	}
	if got := digest(t, network); got != digest(t, at("again.onnx", good)) {
		t.Error("a source was changed")
	}
	if _, err := rdpp.ConvertTeacher(rdpp.ConvertOptions{ONNX: large, Out: there, Store: rdpp.StoreFP32, Overwrite: true}); err != nil {
		t.Errorf("a large number in float32: %v", err)
	}
}
