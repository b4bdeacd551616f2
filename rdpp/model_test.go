package rdpp_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// contents returns a file's metadata and tensors, for a test to change and write again.
func contents(t testing.TB, path string) (map[string]string, []weights.Source) {
	t.Helper()
	file, err := weights.OpenSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	sources := make([]weights.Source, len(file.Tensors))
	for i, tensor := range file.Tensors {
		sources[i] = weights.Source{Name: tensor.Name, DType: tensor.DType, Shape: tensor.Shape,
			Bytes: tensor.Bytes}
	}
	return file.Metadata, sources
}

// zeros is a tensor of zeros for a file.
func zeros(name string, dtype weights.DType, shape ...int) weights.Source {
	n := dtype.Size()
	for _, d := range shape {
		n *= d
	}
	return weights.Source{Name: name, DType: dtype, Shape: shape, Bytes: func() ([]byte, error) { return make([]byte, n), nil }}
}

func writeFile(t testing.TB, metadata map[string]string, sources []weights.Source) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "changed.safetensors")
	if err := weights.WriteFile(path, metadata, sources); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkNoModel wants LoadModel to refuse a file by name, leaving nothing behind.
func checkNoModel(t *testing.T, what, path string, texts ...string) {
	t.Helper()
	before := torch.LiveTensors()
	m, err := rdpp.LoadModel(path, torch.CPU)
	if err == nil {
		m.Close()
	}
	checkError(t, what, err, nil, append(texts, path)...)
	if errors.Is(err, rdpp.ErrConfig) {
		t.Errorf("%s: got %v, which is an error about the caller's settings, not about the file", what, err)
	}
	if after := torch.LiveTensors(); after != before {
		t.Errorf("%s: got %d open tensors, want %d", what, after, before)
	}
}

func TestModelRoundTrip(t *testing.T) {
	for _, method := range []string{rdpp.MethodRDPP, rdpp.MethodRD} {
		c := tiny()
		c.Method = method
		m, err := rdpp.NewModel(c, torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		m.Info.Category, m.Info.Calibration = `a "part" <ü>`, rdpp.Calibration{Rule: "by hand", Threshold: 0.1, PixelThreshold: 0.1, Scores: []float64{0.1}}
		first, second := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
		if err := m.Save(first); err != nil {
			t.Fatal(err)
		}
		loaded, err := rdpp.LoadModel(first, torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		defer loaded.Close()
		if got, want := fmt.Sprintf("%+v", loaded.Info), fmt.Sprintf("%+v", m.Info); got != want {
			t.Errorf("%s: got %s, want %s", method, got, want)
		}
		if err := loaded.Save(second); err != nil {
			t.Fatal(err)
		}
		if got, want := digest(t, second), digest(t, first); got != want {
			t.Errorf("%s: saved again: got SHA-256 %s, want %s", method, got, want)
		}
	}
}

// A model that is loaded predicts the same of an image whatever is beside it.
func TestLoadedPredicts(t *testing.T) {
	m, err := rdpp.LoadModel(trainedModel(t), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	S := m.Info.Config.ImageSize
	r := rand.New(rand.NewPCG(1, 2))
	pair := make([]float32, 2*3*S*S)
	for i := range pair {
		pair[i] = float32(r.NormFloat64())
	}
	_, both, err := m.Predict(pair)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range both {
		if _, alone, err := m.Predict(pair[i*3*S*S : (i+1)*3*S*S]); err != nil || alone[0] != want {
			t.Errorf("image %d: got a score of %v, %v, want %v as beside another", i, alone, err, want)
		}
	}
}

func TestTruncatedModel(t *testing.T) {
	source := trainedModel(t)
	path := filepath.Join(t.TempDir(), "model.safetensors")
	in, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	size, err := io.Copy(out, in)
	if err != nil {
		t.Fatal(err)
	}
	var length [8]byte
	if _, err := in.ReadAt(length[:], 0); err != nil {
		t.Fatal(err)
	}
	header := 8 + int64(binary.LittleEndian.Uint64(length[:]))

	// Shorter and shorter: some lengths within the tensors, then every one of the header.
	var lengths []int64
	for i := int64(1); i < 200; i++ {
		lengths = append(lengths, size-i*i*(size-header)/(200*200)-1)
	}
	for n := header; n >= 0; n-- {
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		if err := out.Truncate(n); err != nil {
			t.Fatal(err)
		}
		checkNoModel(t, fmt.Sprintf("cut to %d of %d bytes", n, size), path, "truncated or damaged")
		if t.Failed() {
			return
		}
	}
}

// document returns a model's JSON document with one entry changed; nil deletes it. The key "config.arch" is arch of
// config.
func document(t testing.TB, text, section, key string, value any) string {
	t.Helper()
	var tree map[string]any
	if err := json.Unmarshal([]byte(text), &tree); err != nil {
		t.Fatal(err)
	}
	branch := tree
	if section != "" {
		branch = tree[section].(map[string]any)
	}
	branch[key] = value
	if value == nil {
		delete(branch, key)
	}
	changed, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return string(changed)
}

// Model files of before there was a schedule were trained at constant rates, those of before maps had weights are scored
// by their plain sum.
func TestOldModel(t *testing.T) {
	metadata, sources := contents(t, projectedModel(t))
	text := document(t, metadata["rdpp"], "config", "schedule", nil)
	for _, key := range []string{"updates", "defects", "denoise", "light", "easy_cut", "easy_below", "equalise", "score", "project"} {
		text = document(t, text, "config", key, nil)
	}
	text = document(t, text, "", "map_weights", nil)
	text = document(t, text, "", "map_levels", nil)
	m, err := rdpp.LoadModel(writeFile(t, map[string]string{"rdpp": text}, sources), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if got, want := m.Info.Config.Schedule, rdpp.ScheduleConstant; got != want {
		t.Errorf("got schedule %q, want %q", got, want)
	}
	if c := m.Info.Config; c.Score != rdpp.ScoreReleased || m.Info.MapWeights != (anomaly.MapTerms{}) || m.Info.MapLevels != (anomaly.MapTerms{}) || c.Project != rdpp.ProjectAll || c.Updates != 0 || c.Equalise || c.Denoise != 0 {
		t.Errorf("got %+v and the weights %v, want what was released", c, m.Info.MapWeights)
	}
}

// Weights without levels are those of plain distances.
func TestModelOfWeightsAlone(t *testing.T) {
	metadata, sources := contents(t, trainedModel(t))
	weights := anomaly.MapTerms{0, 2, 3, 4, 0, 2.5}
	text := document(t, document(t, metadata["rdpp"], "", "map_levels", nil), "", "map_weights", weights)
	path := writeFile(t, map[string]string{"rdpp": text}, sources)
	d, err := rdpp.OpenDetector(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	m, err := rdpp.LoadModel(path, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, net := range []torch.Network{nets(m).Teacher, nets(m).Projection, nets(m).Bottleneck, nets(m).Student} {
		if err := net.Train(false); err != nil {
			t.Fatal(err)
		}
	}
	img, err := imagefile.DecodeFile(openSet(t, dataDir).Test[0].Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	S, c := m.Info.Config.ImageSize, m.Info.Config
	planes, x := make([]float32, 3*S*S), make([]float32, 3*S*S)
	dataset.Resize(planes, img, S)
	dataset.Norm{Mean: c.Mean, Std: c.Std}.Apply(x, planes, S)
	var s torch.Scope
	defer s.Close()
	_, score := s.Pair(torch.Predict(nets(m).Teacher, nets(m).Projection, nets(m).Bottleneck, nets(m).Student, s.Tensor(torch.FromSlice(x, 1, 3, int64(S), int64(S))),
		torch.MapOptions{Sigma: c.MapSigma, Weights: weights}))
	want, err := torch.Scalars(score)
	if err := errors.Join(s.Err(), err); err != nil {
		t.Fatal(err)
	}
	if got := detect(t, d, img).Score; got != want[0] {
		t.Errorf("got the score %v, want %v", got, want[0])
	}
}

func TestModelThatLies(t *testing.T) {
	metadata, sources := contents(t, projectedModel(t))
	good := metadata["rdpp"]
	balanced := document(t, document(t, good, "config", "score", rdpp.ScoreBalanced), "config", "score_top", 0.01)
	balanced = document(t, balanced, "", "format_version", 3)
	balanced = document(t, document(t, balanced, "", "map_weights", []float64{1, 1, 2, 0, 0, 1}), "", "map_levels", []float64{0.05, 0.1, 0.1, 0, 0, 0.07})
	for _, c := range []struct {
		name, text, want string
	}{
		{"empty", "", "damaged"},
		{"half", good[:len(good)/2], "damaged"},
		{"not an object", "[1]", "damaged"},
		{"empty object", "{}", "model format 0"},
		{"a later format", document(t, good, "", "format_version", 1000), "model format 1000, this program reads 1 to "},
		{"format of the wrong type", document(t, good, "", "format_version", "1"), "damaged"},
		{"no config", document(t, good, "", "config", nil), "config.arch is missing"},
		{"unknown architecture", document(t, good, "config", "arch", "vgg"), `"vgg"`},
		{"huge image", document(t, good, "config", "image_size", 1<<20), "image_size"},
		{"odd image", document(t, good, "config", "image_size", 33), "image_size"},
		{"negative image", document(t, good, "config", "image_size", -32), "image_size"},
		{"image beyond int", document(t, good, "config", "image_size", 1e30), "damaged"},
		{"zero deviation", document(t, good, "config", "std", []float64{0, 1, 1}), "std is [0 1 1]"},
		{"no sigma", document(t, good, "config", "map_sigma", 0), "sigma"},
		{"endless sigma", document(t, good, "config", "map_sigma", 1e300), "sigma"},
		{"negative weights", document(t, good, "", "map_weights", []float64{1, 1, -1, 0, 0, 0}), "map_weights"},
		{"a tiny level", document(t, good, "", "map_levels", []float64{1e-300, 1, 1, 0, 0, 0}), "map_levels"},
		{"negative levels", document(t, good, "", "map_levels", []float64{1, 1, -1, 0, 0, 0}), "map_levels"},
		{"no levels", document(t, balanced, "", "map_levels", nil), "map_levels is missing"},
		{"no level but 0", document(t, balanced, "", "map_levels", []float64{0, 0, 0, 0, 0, 0}), "map_levels is missing"},
		{"no weights", document(t, balanced, "", "map_weights", nil), "map_weights is missing"},
		{"weights beyond float32", document(t, good, "", "map_weights", []float64{1e300, 1, 1, 0, 0, 0}), "map_weights"},
		{"unknown score", document(t, good, "config", "score", "x"), "score"},
		{"unknown method", document(t, good, "config", "method", "x"), "method"},
		{"no tensors", good, "missing: encoder.conv1.weight"},
	} {
		checkNoModel(t, c.name, writeFile(t, map[string]string{"rdpp": c.text}, nil), c.want)
	}

	at := slices.IndexFunc(sources, func(s weights.Source) bool { return s.Name == "encoder.conv1.weight" })
	for _, c := range []struct {
		name    string
		sources []weights.Source
		want    string
	}{
		{"wrong shape", []weights.Source{zeros("encoder.conv1.weight", weights.F32, 64, 3, 7, 8)}, "[64 3 7 8]"},
		{"wrong rank", []weights.Source{zeros("encoder.conv1.weight", weights.F32, 64*3*7*7)}, "[9408]"},
		{"wrong type", []weights.Source{zeros("encoder.conv1.weight", weights.Bool, 64, 3, 7, 7)}, "BOOL"},
		{"last tensor missing", sources[:len(sources)-1], "missing: " + sources[len(sources)-1].Name},
		{"first tensor missing", slices.Delete(slices.Clone(sources), at, at+1), "missing: encoder.conv1.weight"},
		{"one tensor more", append(slices.Clone(sources), zeros("encoder.fc.weight", weights.F32, 1)), "not expected: encoder.fc.weight"},
	} {
		checkNoModel(t, c.name, writeFile(t, map[string]string{"rdpp": good}, c.sources), c.want)
	}
	for arch, want := range map[string]string{"resnet34": "resnet18, not resnet34", "resnet50": "resnet18, not resnet50"} {
		changed := map[string]string{"rdpp": document(t, good, "config", "arch", arch)}
		checkNoModel(t, arch, writeFile(t, changed, sources), want)
	}
	changed := map[string]string{"rdpp": document(t, good, "config", "method", rdpp.MethodRD)}
	checkNoModel(t, "rd with a projection", writeFile(t, changed, sources), "not expected: proj.", "and 20 more")
	checkNoModel(t, "no entry", writeFile(t, nil, sources[:1]), `no "rdpp" entry`)

	header := `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`
	duplicate := filepath.Join(t.TempDir(), "duplicate.safetensors")
	raw := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header+"\x00\x00"...)
	if err := os.WriteFile(duplicate, raw, 0o666); err != nil {
		t.Fatal(err)
	}
	checkNoModel(t, "duplicate", duplicate, "two tensors")
	checkNoModel(t, "no file", filepath.Join(t.TempDir(), "missing"), "no model at")
	checkNoModel(t, "a folder", t.TempDir(), "not a regular file")
}

// A model of other numbers than float32 is converted.
func TestModelInHalfPrecision(t *testing.T) {
	metadata, sources := contents(t, trainedModel(t))
	at := slices.IndexFunc(sources, func(s weights.Source) bool { return s.Name == "encoder.conv1.weight" })
	sources[at] = zeros(sources[at].Name, weights.F16, sources[at].Shape...)
	m, err := rdpp.LoadModel(writeFile(t, metadata, sources), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, e := range nets(m).Teacher.State() {
		if e.Name != "conv1.weight" {
			continue
		}
		values, err := torch.Read[float32](e.Tensor)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			if v != 0 {
				t.Fatalf("got %v, want 0", v)
			}
		}
	}
}

// Whatever stands in the header's document, LoadModel answers with an error or a model.
func FuzzModelDocument(f *testing.F) {
	f.Add(`{"format_version":1,"config":{"arch":"resnet18","method":"rd++","image_size":32}}`)
	f.Add(`{"format_version":1}`)
	f.Add(`{"config":null,"calibration":{"scores":[1e999]}}`)
	f.Add("\x00")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "model.safetensors")
		if err := weights.WriteFile(path, map[string]string{"rdpp": text}, nil); err != nil {
			return // the text is no UTF-8
		}
		if m, err := rdpp.LoadModel(path, torch.CPU); err == nil {
			m.Close()
			t.Errorf("%q: got a model, want an error: there are no tensors", text)
		}
	})
}
