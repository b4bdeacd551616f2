package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/torch"
)

// trained writes what a training of a category leaves in a folder: a model of random weights, and metrics.json.
func trained(t *testing.T, folder, category, method string) {
	t.Helper()
	config := rdpp.DefaultConfig()
	config.Method, config.Arch, config.ImageSize = method, "resnet18", 32
	model, err := rdpp.NewModel(config, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	model.Info.Category, model.Info.Epoch = category, 3
	if err := os.MkdirAll(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := model.Save(filepath.Join(folder, rdpp.ModelFile)); err != nil {
		t.Fatal(err)
	}
	summarised(t, folder, category, config, nil)
}

// summarised writes metrics.json into a folder, which change may make another training's.
func summarised(t *testing.T, folder, category string, config rdpp.Config, change func(s *rdpp.Summary)) {
	t.Helper()
	summary := rdpp.Summary{Category: category, Config: config, Epoch: 3, Teacher: rdpp.TeacherInfo{Origin: rdpp.OriginRandom}, TrainingSeconds: 60,
		CalibrationSeconds: 5, Metrics: rdpp.Metrics{ImageAUROC: new(0.9), PixelAUROC: new(0.8)}}
	if change != nil {
		change(&summary)
	}
	text, err := json.Marshal(summary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, rdpp.MetricsFile), text, 0o666); err != nil {
		t.Fatal(err)
	}
}

// Models are found below folders and by their names, each once, and stand by category and then in the order of the methods.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	runs, link := filepath.Join(dir, "runs"), filepath.Join(dir, "link")
	for _, of := range []struct{ folder, category, method string }{
		{"a/screw", "screw", rdpp.MethodFastFlow}, {"b/screw", "screw", rdpp.MethodRD}, {"b/bolt", "bolt", rdpp.MethodRD}, {"deep/er/c/screw", "screw", rdpp.MethodRDPP},
	} {
		trained(t, filepath.Join(runs, of.folder), of.category, of.method)
	}
	if err := os.WriteFile(filepath.Join(runs, "a", "best.safetensors"), []byte("none of ours"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(runs, link); err != nil {
		t.Fatal(err)
	}
	found := func(subjects []*Subject) (text string) {
		for _, s := range subjects {
			text += fmt.Sprintf("%s %s, ", s.Category, s.Method)
		}
		return text
	}
	const all = "bolt rd, screw rd++, screw rd, screw fastflow, "
	for _, c := range []struct {
		paths []string
		want  string
	}{
		{[]string{runs}, all},
		{[]string{link}, all},
		{[]string{runs, link, filepath.Join(link, "b", "bolt", rdpp.ModelFile)}, all},
		{[]string{runs, filepath.Join(runs, "b"), filepath.Join(runs, "b", "bolt", rdpp.ModelFile)}, all},
		{[]string{filepath.Join(runs, "b") + "/"}, "bolt rd, screw rd, "},
		{[]string{filepath.Join(runs, "a", "screw", rdpp.ModelFile)}, "screw fastflow, "},
	} {
		got, err := Find(c.paths)
		if err != nil || found(got) != c.want {
			t.Errorf("%v: got %s, %v, want %s", c.paths, found(got), err, c.want)
		}
	}
	empty := t.TempDir()
	for _, c := range []struct{ path, want string }{
		{empty, "no model.safetensors in " + empty}, {filepath.Join(dir, "none"), "none"},
		{filepath.Join(runs, "a", "best.safetensors"), "best.safetensors"},
	} {
		if _, err := Find([]string{runs, c.path}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.path, err, c.want)
		}
	}
}

// What metrics.json says is told where it is that of the model's training.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	file, metrics := filepath.Join(dir, rdpp.ModelFile), filepath.Join(dir, rdpp.MetricsFile)
	trained(t, dir, "screw", rdpp.MethodFastFlow)
	size, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	const another = "metrics.json beside the model is another training's"
	config := rdpp.DefaultConfig()
	config.Method, config.Arch, config.ImageSize = rdpp.MethodFastFlow, "resnet18", 32
	for _, c := range []struct {
		name   string
		change func(s *rdpp.Summary)
		want   string // Unknown
	}{
		{"the training's", func(*rdpp.Summary) {}, ""},
		{"no masks", func(s *rdpp.Summary) { s.PixelAUROC = nil }, ""},
		{"chosen on the test set", func(s *rdpp.Summary) { s.Config.Select = rdpp.SelectBestOnTest }, ""},
		{"another method's", func(s *rdpp.Summary) { s.Config.Method = rdpp.MethodRD }, another},
		{"another backbone's", func(s *rdpp.Summary) { s.Config.Arch = "resnet34" }, another},
		{"another size's", func(s *rdpp.Summary) { s.Config.ImageSize = 64 }, another},
		{"another seed's", func(s *rdpp.Summary) { s.Config.Seed = 7 }, another},
		{"another epoch's", func(s *rdpp.Summary) { s.Epoch = 4 }, another},
		{"another category's", func(s *rdpp.Summary) { s.Category = "bolt" }, another},
		{"another teacher's", func(s *rdpp.Summary) { s.Teacher.SHA256 = strings.Repeat("0", 64) }, another},
		{"a rate that cannot be", func(s *rdpp.Summary) { s.PixelAUROC = new(1.5) }, "metrics.json beside the model: pixel_auroc is 1.5, to be within 0 and 1"},
		{"damaged", nil, "metrics.json beside the model: unexpected end of JSON input"},
		{"none", nil, "no metrics.json beside the model"},
	} {
		switch {
		case c.change != nil:
			summarised(t, dir, "screw", config, c.change)
		case c.name == "damaged":
			err = os.WriteFile(metrics, []byte("{"), 0o666)
		default:
			err = os.Remove(metrics)
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := Look(file)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if s.Model != file || s.Category != "screw" || s.Method != rdpp.MethodFastFlow || s.Arch != "resnet18" || s.ImageSize != 32 || s.Bytes != size.Size() {
			t.Errorf("%s: got %+v, want the model's description", c.name, s)
		}
		if s.Unknown != c.want || (s.Training == nil) != (c.want != "") {
			t.Errorf("%s: got %q and %+v, want %q", c.name, s.Unknown, s.Training, c.want)
		}
		if k := s.Training; k != nil && (k.Seconds != 60 || k.CalibrationSeconds != 5 || *k.ImageAUROC != 0.9 || (k.PixelAUROC == nil) != (c.name == "no masks") ||
			k.BestOnTest != (c.name == "chosen on the test set")) {
			t.Errorf("%s: got %+v, want what metrics.json says", c.name, k)
		}
	}
}

// A method's mean is over the categories that all methods have, each as the mean of its models.
func TestMeans(t *testing.T) {
	report := func(category, method string, ms float64, auroc, pixel *float64) *Report {
		r := &Report{Subject: Subject{Category: category, Method: method, Arch: "resnet18", ImageSize: 64, Bytes: int64(1000 * ms)}, Device: "cpu",
			Speeds: []Speed{{Throughput: 1000 / ms, Latency: Latency{P50: ms}}}, PeakMemory: int64(100 * ms)}
		if auroc != nil {
			r.Training = &Training{Seconds: 10 * ms, ImageAUROC: auroc, PixelAUROC: pixel}
		}
		return r
	}
	reports := []*Report{
		report("bolt", "rd", 10, new(0.8), new(0.7)), report("bolt", "rd", 20, new(0.9), new(0.8)), report("bolt", "cfa", 4, new(1.0), nil),
		report("screw", "rd", 25, new(0.75), new(0.65)), report("screw", "cfa", 8, new(0.5), new(0.5)), report("screw", "own", 2, nil, nil),
		report("bolt", "own", 1, new(0.5), new(0.5)), report("pill", "rd", 1000, new(0.1), new(0.1)),
	}
	value := func(v *float64) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprintf("%.4g", *v)
	}
	var got []string
	for _, m := range Means(reports) {
		got = append(got, fmt.Sprintf("%s %v %d: %.4g ms %.4g/s %d %d %s %s %s", m.Method, m.Categories, m.Models, m.LatencyMS, m.Throughput, m.Memory(), m.Bytes,
			value(m.Seconds), value(m.ImageAUROC), value(m.PixelAUROC)))
	}
	want := []string{
		"rd [bolt screw] 3: 20 ms 57.5/s 2000 20000 200 0.8 0.7",
		"cfa [bolt screw] 2: 6 ms 187.5/s 600 6000 60 0.75 -",
		"own [bolt screw] 2: 1.5 ms 750/s 150 1500 - - -",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, r := range reports[:3] { // bolt alone on another device
		gpu := *r
		gpu.Device, gpu.PeakDeviceMemory = "cuda:0", 7
		reports = append(reports, &gpu)
	}
	if m := Means(reports); len(m) != 5 || m[3].Device != "cuda:0" || m[3].Memory() != 7 || len(m[3].Categories) != 1 || m[0].Models != 2 {
		t.Errorf("got %+v, want a mean for each device, over bolt alone", m)
	}
	reports = reports[:len(reports)-3]
	drawn := *reports[0] // and of another teacher
	drawn.Teacher = rdpp.OriginDrawn
	if m := Means(append(slices.Clip(reports), &drawn)); len(m) != 4 || m[0].Models != 2 || m[3].Teacher != rdpp.OriginDrawn || m[3].Models != 1 || m[3].ImageAUROC == nil || *m[3].ImageAUROC != 0.8 {
		t.Errorf("got %+v, want a mean for each teacher, over bolt alone", m)
	}
	if got := Means(reports[len(reports)-2:]); got != nil {
		t.Errorf("no category in common: got %+v, want none", got)
	}
}
