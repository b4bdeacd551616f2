package rdpp_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/fetch"
	"rdpp/rdpp/internal/torchvision"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// encoder returns the teacher of a model as a weight file has it, with other names.
func encoder(t *testing.T, rename func(string) string) []weights.Source {
	t.Helper()
	_, sources := contents(t, trainedModel(t))
	var out []weights.Source
	for _, s := range sources {
		if name, ok := strings.CutPrefix(s.Name, "encoder."); ok {
			s.Name = rename(name)
			out = append(out, s)
		}
	}
	return out
}

// behind returns a function that puts a prefix before names.
func behind(prefix string) func(string) string {
	return func(name string) string { return prefix + name }
}

// transformers names the tensors of a ResNet as Hugging Face transformers does, block by block.
func transformers(name string) string {
	parts := strings.Split(name, ".")
	kinds := map[string]string{"conv": "convolution", "bn": "normalization"}
	split := func(layer string) (kind string, n int) {
		digit := len(layer) - 1
		return layer[:digit], int(layer[digit]-'0') - 1
	}
	if len(parts) == 2 { // conv1.weight
		kind, _ := split(parts[0])
		return "resnet.embedder.embedder." + kinds[kind] + "." + parts[1]
	}
	_, stage := split(parts[0])
	block := fmt.Sprintf("resnet.encoder.stages.%d.layers.%s.", stage, parts[1])
	if parts[2] == "downsample" {
		return block + "shortcut." + map[string]string{"0": "convolution.", "1": "normalization."}[parts[3]] + parts[4]
	}
	kind, n := split(parts[2])
	return fmt.Sprintf("%slayer.%d.%s.%s", block, n, kinds[kind], parts[3])
}

// converted stores the floating-point numbers of tensors in another type.
func converted(t *testing.T, sources []weights.Source, dtype weights.DType) []weights.Source {
	t.Helper()
	out := slices.Clone(sources)
	for i, s := range sources {
		if s.DType != weights.F32 {
			continue
		}
		data, err := s.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		var stored []byte
		for at := 0; at < len(data); at += 4 {
			bits := binary.LittleEndian.Uint32(data[at:])
			if dtype == weights.F64 {
				stored = binary.LittleEndian.AppendUint64(stored, math.Float64bits(float64(math.Float32frombits(bits))))
			} else { // bfloat16, rounded towards zero
				stored = binary.LittleEndian.AppendUint16(stored, uint16(bits>>16))
			}
		}
		out[i].DType, out[i].Bytes = dtype, func() ([]byte, error) { return stored, nil }
	}
	return out
}

// stateValues returns all numbers of a teacher.
func stateValues(t *testing.T, m *rdpp.Model) (values []float32) {
	t.Helper()
	for _, e := range nets(m).Teacher.State() {
		if strings.HasSuffix(e.Name, "num_batches_tracked") {
			continue
		}
		part, err := torch.Read[float32](e.Tensor)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, part...)
	}
	return values
}

func newModel(t *testing.T, c rdpp.Config) *rdpp.Model {
	t.Helper()
	m, err := rdpp.NewModel(c, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func TestLoadTeacher(t *testing.T) {
	c := tiny()
	c.Seed = 7 // other weights than the teacher's
	m := newModel(t, c)
	original, err := rdpp.LoadModel(trainedModel(t), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer original.Close()
	want := stateValues(t, original)
	if slices.Equal(stateValues(t, m), want) {
		t.Fatal("another seed: got the same teacher, want another")
	}
	plain := encoder(t, behind(""))
	uncounted := slices.DeleteFunc(slices.Clone(plain), func(s weights.Source) bool { return strings.HasSuffix(s.Name, "num_batches_tracked") })
	upper := []weights.Source{zeros("fc.weight", weights.F32, 1000, 512), zeros("layer4.0.conv1.weight", weights.F32, 1)}
	for _, c := range []struct {
		name    string
		sources []weights.Source
		low     bool // of lower precision
	}{
		{"torchvision's names, with layers of no use", append(slices.Clone(plain), upper...), false},
		{"a model's names", encoder(t, behind("encoder.")), false},
		{"DataParallel's names", encoder(t, behind("module.")), false},
		{"a checkpoint of Lightning", encoder(t, behind("state_dict.model.backbone.")), false},
		{"transformers' classifier", encoder(t, transformers), false},
		{"transformers' bare model", encoder(t, func(name string) string { return strings.TrimPrefix(transformers(name), "resnet.") }), false},
		{"without counts of batches", uncounted, false},
		{"float64", converted(t, plain, weights.F64), false},
		{"bfloat16", converted(t, plain, weights.BF16), true},
	} {
		path := writeFile(t, nil, c.sources)
		if err := m.LoadTeacher(path); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := stateValues(t, m)
		for i := range got {
			expected := want[i]
			if c.low {
				expected = math.Float32frombits(math.Float32bits(expected) &^ 0xffff)
			}
			if got[i] != expected {
				t.Errorf("%s: value %d: got %v, want %v", c.name, i, got[i], expected)
				break
			}
		}
		if got, want := m.Info.Teacher, (rdpp.TeacherInfo{Origin: "changed.safetensors", SHA256: digest(t, path)}); got != want {
			t.Errorf("%s: got %v, want %v", c.name, got, want)
		}
	}
}

func TestLoadTeacherRefuses(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("RDPP_CACHE", cache)
	t.Setenv("RDPP_TEACHER_URL", closedServer(t))
	good := encoder(t, behind(""))
	garbage := filepath.Join(t.TempDir(), "garbage.pth")
	if err := os.WriteFile(garbage, []byte("no weights"), 0o666); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(good, func(s weights.Source) bool { return s.Name == "layer3.1.bn2.bias" })
	changed := func(s weights.Source) []weights.Source {
		all := slices.Clone(good)
		all[at] = s
		return all
	}
	name := good[at].Name
	twice := append(encoder(t, behind("student.")), encoder(t, behind("teacher."))...)
	released := []weights.Source{zeros("bn.conv1.weight", weights.F32, 1), zeros("decoder.layer1.0.conv1.weight", weights.F32, 1)}
	for _, c := range []struct {
		name, arch, teacher string
		want                []string
	}{
		{"not built in", "resnet50", rdpp.TeacherBuiltin, []string{"resnet50", "resnet18", `teacher is "`, "name a file"}},
		{"not drawn", "resnet34", rdpp.TeacherDrawn, []string{"drawn", "resnet34", "resnet18", `teacher is "`, "name a file"}},
		{"no file", "resnet18", filepath.Join(cache, "x.pth"), []string{filepath.Join(cache, "x.pth"), "with teacher, or use builtin, drawn or random"}},
		{"no weights", "resnet18", garbage, []string{garbage}},
		{"missing tensor", "resnet18", writeFile(t, nil, slices.Delete(slices.Clone(good), at, at+1)), []string{"missing: " + name, "resnet18"}},
		{"wrong shape", "resnet18", writeFile(t, nil, changed(zeros(name, weights.F32, 3))), []string{name + " [3] instead of [256]"}},
		{"wrong type", "resnet18", writeFile(t, nil, changed(zeros(name, weights.U8, 256))), []string{name + " U8"}},
		{"one more", "resnet18", writeFile(t, nil, append(slices.Clone(good), zeros("layer1.0.se.fc.weight", weights.F32, 1))), []string{"not expected: layer1.0.se.fc.weight"}},
		{"smaller architecture", "resnet34", writeFile(t, nil, good), []string{"resnet18, not resnet34", "arch resnet18"}},
		{"other architecture", "resnet50", writeFile(t, nil, good), []string{"resnet18, not resnet50", "arch resnet18"}},
		{"two networks", "resnet18", writeFile(t, nil, twice), []string{"2 backbones", `"student."`, `"teacher."`}},
		{"no network", "resnet18", writeFile(t, nil, good[1:]), []string{"no ResNet", "infer info"}},
		{"a released checkpoint", "resnet18", writeFile(t, nil, released), []string{"checkpoint of RD", "infer import"}},
	} {
		config := tiny()
		config.Arch = c.arch
		m := newModel(t, config)
		before := stateValues(t, m)
		checkError(t, c.name, m.LoadTeacher(c.teacher), nil, c.want...)
		if !slices.Equal(stateValues(t, m), before) {
			t.Errorf("%s: the teacher was changed", c.name)
		}
	}
}

// closedServer returns the address of a server that is no more.
func closedServer(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(nil)
	s.Close()
	return s.URL
}

// Without weights in the cache folder, resnet18 has the teacher that is built in, and says so.
func TestBuiltinTeacher(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("RDPP_CACHE", cache)
	asked := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer server.Close()
	t.Setenv("RDPP_TEACHER_URL", server.URL)
	m := newModel(t, tiny())
	load := func(name string) []float32 {
		t.Helper()
		if err := m.LoadTeacher(name); err != nil {
			t.Fatal(err)
		}
		return stateValues(t, m)
	}
	for _, c := range []struct{ word, file, origin, text string }{
		{rdpp.TeacherBuiltin, "resnet18-imagenet.safetensors", "builtin-imagenet", "learned from ImageNet"},
		{rdpp.TeacherAuto, "resnet18-imagenet.safetensors", "builtin-imagenet", "not torchvision's"},
		{rdpp.TeacherDrawn, "resnet18-drawn.safetensors", "drawn", "drawn pictures"},
	} {
		file := filepath.Join("builtin", c.file)
		fromFile := load(file)
		if got, want := m.Info.Teacher, (rdpp.TeacherInfo{Origin: c.file, SHA256: digest(t, file)}); got != want {
			t.Errorf("%s: got %v, want %v", file, got, want)
		}
		want := rdpp.TeacherInfo{Origin: c.origin, SHA256: digest(t, file)}
		if got := load(c.word); m.Info.Teacher != want || !slices.Equal(got, fromFile) {
			t.Errorf("%s: got %v, want %v with the weights of %s", c.word, m.Info.Teacher, want, file)
		}
		if got := m.Info.Teacher.String(); !strings.Contains(got, c.text) || !strings.HasSuffix(got, ", SHA-256 "+want.SHA256[:8]) {
			t.Errorf("%s: got %q, want %q and the digest in it", c.word, got, c.text)
		}
	}
	// A file of a teacher's name is told from that.
	namesake := ""
	for _, name := range []string{"builtin", "builtin-imagenet", "drawn", "random"} {
		namesake = filepath.Join(t.TempDir(), name)
		if err := os.Rename(writeFile(t, nil, encoder(t, behind(""))), namesake); err != nil {
			t.Fatal(err)
		}
		if load(namesake); m.Info.Teacher.Origin != "./"+name {
			t.Errorf("%s: got %v", namesake, m.Info.Teacher)
		}
	}
	// A cache that cannot be looked into is no empty one.
	t.Setenv("RDPP_CACHE", namesake)
	checkError(t, "cache", m.LoadTeacher(rdpp.TeacherAuto), nil, namesake, "name a file with teacher, or builtin, drawn or random")
	t.Setenv("RDPP_CACHE", cache)
	// Torchvision's weights come first, where they are, and are what their name says.
	torchvision := filepath.Join(cache, "resnet18-f37072fd.pth")
	source := writeFile(t, nil, encoder(t, behind("")))
	if err := os.Rename(source, torchvision); err != nil {
		t.Fatal(err)
	}
	checkError(t, "another file in the cache", m.LoadTeacher(rdpp.TeacherAuto), nil, torchvision, "SHA-256", "f37072fd", "remove it")
	name := "resnet18-" + digest(t, torchvision)[:8] + ".pth"
	setTeacherFile(t, "resnet18", name, digest(t, torchvision))
	if err := os.Rename(torchvision, filepath.Join(cache, name)); err != nil {
		t.Fatal(err)
	}
	if load(rdpp.TeacherAuto); m.Info.Teacher.Origin != name {
		t.Errorf("with weights in the cache: got %v, want those", m.Info.Teacher)
	}
	if asked {
		t.Error("the network was used though the teacher is built in or in the cache")
	}
}

// The digits in the name of torchvision's file are not enough: one that has those alone is another file.
func TestTeacherDigestIsWhole(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("RDPP_CACHE", cache)
	content := []byte("weights of somebody else")
	path := filepath.Join(cache, "resnet18-00000000.pth")
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	own := digest(t, path)
	almost := own[:8] + strings.Repeat("0", 56)
	setTeacherFile(t, "resnet18", filepath.Base(path), almost)
	ask := func() error {
		_, err := rdpp.FindTeacher(t.Context(), rdpp.TeacherImageNet, "resnet18", rdpp.TeacherOptions{})
		return err
	}
	checkError(t, "in the cache", ask(), nil, path, own, almost)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(content) }))
	defer server.Close()
	t.Setenv("RDPP_TEACHER_URL", server.URL)
	checkError(t, "downloaded", ask(), fetch.ErrDigest, own, almost)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want no file", err)
	}
}

// A teacher that rdpp wrote is held against the digest in it.
func TestDamagedTeacher(t *testing.T) {
	path := writeFile(t, nil, encoder(t, behind("")))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-3] ^= 1
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	checkError(t, "a flipped bit", newModel(t, tiny()).LoadTeacher(path), weights.ErrDigest, path, "restore")
}

func TestTeacherFiles(t *testing.T) {
	for _, arch := range torch.Architectures() {
		file := torchvision.Files[arch]
		name, sum := file.Name, file.SHA256
		if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(sum) || name != arch+"-"+sum[:8]+".pth" {
			t.Errorf("%s: got the file %s with SHA-256 %s, want 64 digits whose first 8 are in the name", arch, name, sum)
		}
	}
}

// Where no teacher is built in, or ImageNet's is asked for, it is downloaded once.
func TestDownloadedTeacher(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "new", "cache")
	t.Setenv("RDPP_CACHE", cache)
	file := writeFile(t, nil, encoder(t, behind("")))
	name := "resnet18-" + digest(t, file)[:8] + ".pth"
	setTeacherFile(t, "resnet18", name, digest(t, file))
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; r.URL.Path != "/mirror/"+name {
			t.Errorf("got a request for %s, want /mirror/%s", r.URL.Path, name)
		}
		http.ServeFile(w, r, file)
	}))
	defer server.Close()
	t.Setenv("RDPP_TEACHER_URL", server.URL+"/mirror/")

	last := ""
	opt := rdpp.TeacherOptions{OnDownload: func(file string, done, total int64) { last = fmt.Sprint(file, " ", done, " of ", total) }}
	for range 2 {
		path, err := rdpp.FindTeacher(context.Background(), rdpp.TeacherImageNet, "resnet18", opt)
		if want := filepath.Join(cache, name); path != want || err != nil {
			t.Fatalf("got %s, %v, want %s", path, err, want)
		}
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprint(name, " ", info.Size(), " of ", info.Size()); last != want || asked != 1 {
		t.Errorf("got progress %q after %d requests, want %q after 1", last, asked, want)
	}
	m := newModel(t, tiny())
	if err := m.LoadTeacher(rdpp.TeacherImageNet); err != nil || m.Info.Teacher.Origin != name {
		t.Errorf("got %v, %v, want the teacher %s", m.Info.Teacher, err, name)
	}

	// Training with it goes on with it, offline too.
	out := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	train := rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherImageNet, OnStep: func(rdpp.StepReport) { cancel() }}
	if _, err := rdpp.Train(ctx, tiny(), openSet(t, dataDir), train); !errors.Is(err, rdpp.ErrInterrupted) {
		t.Fatalf("got error %v, want %v", err, rdpp.ErrInterrupted)
	}
	server.Close()
	if err := os.RemoveAll(cache); err != nil {
		t.Fatal(err)
	}
	train.OnStep, train.Resume = nil, true
	summary, err := rdpp.Train(context.Background(), tiny(), openSet(t, dataDir), train)
	if err != nil || summary.Teacher.Origin != name {
		t.Errorf("resumed: got %v, %v, want the teacher %s", summary, err, name)
	}
}

// Offline and where a download cannot be finished, the error says which file to put where.
func TestFindTeacherFails(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("RDPP_CACHE", cache)
	offline := closedServer(t)
	missing := httptest.NewServer(http.NotFoundHandler())
	defer missing.Close()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		name, teacher, arch, url string
		ctx                      context.Context
		want                     []string
	}{
		{"offline", rdpp.TeacherAuto, "resnet34", offline, context.Background(), []string{"refused", "resnet34-b627a593.pth into " + cache, "a file with teacher", "arch resnet18 with teacher builtin"}},
		{"offline, though another is built in", rdpp.TeacherImageNet, "resnet18", offline, context.Background(), []string{"refused", "resnet18-f37072fd.pth into " + cache}},
		{"not on the mirror", rdpp.TeacherAuto, "wide_resnet50_2", missing.URL, context.Background(), []string{"404", missing.URL + "/wide_resnet50_2-95faca4d.pth"}},
		{"interrupted", rdpp.TeacherAuto, "resnet50", missing.URL, ended, []string{context.Canceled.Error()}},
		{"no address", rdpp.TeacherAuto, "resnet50", "mirror", context.Background(), []string{"mirror/resnet50-0676ba61.pth", "no http or https address"}},
		{"unknown architecture", rdpp.TeacherAuto, "vgg", offline, context.Background(), []string{"vgg"}},
	} {
		t.Setenv("RDPP_TEACHER_URL", c.url)
		_, err := rdpp.FindTeacher(c.ctx, c.teacher, c.arch, rdpp.TeacherOptions{})
		checkError(t, c.name, err, nil, c.want...)
	}
	if entries, err := os.ReadDir(cache); err != nil || len(entries) > 0 {
		t.Errorf("got %v, %v, want nothing left in the cache", entries, err)
	}
}

func TestTeacherInfo(t *testing.T) {
	for _, c := range []struct{ document, origin, text string }{
		{`{"origin":"random"}`, "random", "random"},
		{`{"origin":"builtin","sha256":"393e58aac94f"}`, "drawn", "drawn (built in, learned from drawn pictures), SHA-256 393e58aa"}, // of an older version
		{`{"origin":"drawn","sha256":"393e58aac94f"}`, "drawn", "drawn (built in, learned from drawn pictures), SHA-256 393e58aa"},
		{`{"origin":"w.pth","sha256":"01"}`, "w.pth", "w.pth, SHA-256 01"},
		{`{}`, "", ""},
	} {
		var got rdpp.TeacherInfo
		if err := json.Unmarshal([]byte(c.document), &got); err != nil || got.Origin != c.origin || got.String() != c.text {
			t.Errorf("%s: got origin %q, text %q, %v, want %q, %q", c.document, got.Origin, got, err, c.origin, c.text)
		}
	}
	if err := json.Unmarshal([]byte(`{"origin":1}`), new(rdpp.TeacherInfo)); err == nil {
		t.Error("an origin that is a number: got no error, want one")
	}
}

func TestDefaultImageSize(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("RDPP_CACHE", cache)
	for _, c := range []struct {
		teacher, arch string
		want          int
	}{
		{rdpp.TeacherDrawn, "resnet18", 192}, {rdpp.TeacherBuiltin, "resnet18", 256}, {rdpp.TeacherAuto, "resnet18", 256},
		{rdpp.TeacherAuto, "wide_resnet50_2", 256}, {rdpp.TeacherRandom, "resnet18", 256}, {"drawn.pth", "resnet18", 256},
	} {
		if got := rdpp.DefaultImageSize(c.teacher); got != c.want {
			t.Errorf("%s of %s: got %d, want %d", c.teacher, c.arch, got, c.want)
		}
	}
}

// What older versions called "builtin" is the teacher of drawn pictures: their models open and score as before, and their
// runs go on with it and with no other.
func TestOlderBuiltinTeacher(t *testing.T) {
	t.Setenv("RDPP_CACHE", t.TempDir())
	c := tiny()
	c.Epochs, c.Method, c.ImageSize, c.Calibration = 1, rdpp.MethodRD, 64, 0.1 // trainings for the calibration follow
	older := func(path, key, section string) {
		t.Helper()
		metadata, sources := contents(t, path)
		var document map[string]any
		if err := json.Unmarshal([]byte(metadata[key]), &document); err != nil {
			t.Fatal(err)
		}
		info := document
		if section != "" {
			info = document[section].(map[string]any)
		}
		teacher := info["teacher"].(map[string]any)
		if teacher["origin"] != "drawn" || teacher["sha256"] != digest(t, filepath.Join("builtin", "resnet18-drawn.safetensors")) {
			t.Fatalf("got teacher %v, want that of drawn pictures", teacher)
		}
		teacher["origin"] = "builtin"
		text, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(writeFile(t, map[string]string{key: string(text)}, sources), path); err != nil {
			t.Fatal(err)
		}
	}
	out := t.TempDir()
	run := func(teacher string, end stop) (*rdpp.Summary, error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		return rdpp.Train(ctx, c, openSet(t, dataDir), rdpp.TrainOptions{Out: out, Teacher: teacher, Resume: true, OnStep: func(r rdpp.StepReport) {
			if r.Fold == 0 && r.Epoch == end.epoch && r.Step == end.step {
				cancel()
			}
		}})
	}
	if _, err := run(rdpp.TeacherDrawn, stop{1, 1}); !errors.Is(err, rdpp.ErrInterrupted) {
		t.Fatalf("got %v, want %v", err, rdpp.ErrInterrupted)
	}
	older(filepath.Join(out, "checkpoint"), "rdpp_checkpoint", "info")
	_, err := run(rdpp.TeacherBuiltin, stop{})
	checkError(t, "the other one that is built in", err, rdpp.ErrConfig, "has the teacher drawn", `teacher is "builtin"`, "overwrite")
	if _, err := run(rdpp.TeacherDrawn, stop{1, 2}); !errors.Is(err, rdpp.ErrInterrupted) {
		t.Fatalf("got %v, want %v", err, rdpp.ErrInterrupted)
	}
	older(filepath.Join(out, "checkpoint"), "rdpp_checkpoint", "info")
	summary, err := run(rdpp.TeacherAuto, stop{}) // which alone would be another teacher, for the calibration too
	if err != nil || summary.Teacher.Origin != "drawn" || summary.CalibrationFolds == 0 {
		t.Fatalf("got %+v, %v, want the teacher of drawn pictures and trainings for the calibration", summary, err)
	}

	model := filepath.Join(out, rdpp.ModelFile)
	score := func() float64 {
		t.Helper()
		d, err := rdpp.OpenDetector(model, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if got := d.Info().Teacher.Origin; got != "drawn" {
			t.Errorf("got a model of the teacher %q, want drawn", got)
		}
		return detect(t, d, picture(64, 64)).Score
	}
	want := score()
	older(model, "rdpp", "")
	if got := score(); got != want || want == 0 {
		t.Errorf("got the score %v, want %v", got, want)
	}
}
