package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rdpp/infer/bench"
	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// trainedRun writes what a training leaves in a folder of runs: a model of random weights, called a teacher's, and metrics.json
// with its rates.
func trainedRun(t *testing.T, runs, name, category, method string, size int, teacher string, image, pixel *float64) {
	t.Helper()
	folder := filepath.Join(runs, name, category)
	config := rdpp.DefaultConfig()
	config.Method, config.Arch, config.ImageSize, config.Precision = method, "resnet18", size, "fp32"
	model, err := rdpp.NewModel(config, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	model.Info.Category, model.Info.Teacher.Origin = category, teacher
	summary := rdpp.Summary{Category: category, Config: config, Teacher: model.Info.Teacher, TrainingSeconds: 12.5, Metrics: rdpp.Metrics{ImageAUROC: image, PixelAUROC: pixel}}
	text, err := json.Marshal(summary)
	if err == nil {
		err = os.MkdirAll(folder, 0o777)
	}
	if err == nil {
		err = model.Save(filepath.Join(folder, rdpp.ModelFile))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, rdpp.MetricsFile), text, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// compareLine is a command line that measures as little as possible.
func compareLine(args ...string) []string {
	return append([]string{"bench", "--compare", "--device", "cpu", "--threads", "2", "--count", "2", "--warm-up", "0"}, args...)
}

// plotted are the circles of a plot: what their titles say, and radii.
func plotted(t *testing.T, file string) (radius map[string]float64) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var svg struct {
		Circles []struct {
			R     float64 `xml:"r,attr"`
			Title string  `xml:"title"`
		} `xml:"circle"`
	}
	if err := xml.Unmarshal(text, &svg); err != nil {
		t.Fatal(err)
	}
	radius = map[string]float64{}
	for _, c := range svg.Circles {
		radius[c.Title] = c.R
	}
	return radius
}

// circleNames are the names of a plot's circles, in order.
func circleNames(t *testing.T, file string) (names []string) {
	t.Helper()
	for title := range plotted(t, file) {
		name, _, _ := strings.Cut(title, ":")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Two methods on two categories: a row a model, each measured in a process of its own, their means, and a circle a method.
func TestBenchCompare(t *testing.T) {
	t.Setenv(testmain.Key, asProgram)
	runs, plot := t.TempDir(), filepath.Join(t.TempDir(), "plot.svg")
	trainedRun(t, runs, "one", "bolt", rdpp.MethodFastFlow, 32, rdpp.OriginRandom, new(0.75), new(0.65))
	trainedRun(t, runs, "one", "screw", rdpp.MethodFastFlow, 32, rdpp.OriginRandom, new(0.85), nil)
	trainedRun(t, runs, "two", "bolt", rdpp.MethodRDPP, 32, rdpp.OriginRandom, new(0.95), new(0.9))
	trainedRun(t, runs, "two", "screw", rdpp.MethodRDPP, 32, rdpp.OriginRandom, new(0.9), nil)

	code, stdout, stderr := infer(nil, compareLine("--json", "--batch", "2", "--plot", plot, runs)...)
	var got benchmark
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != command.Done || stderr != "" {
		t.Fatalf("got code %d, %v, stderr %q, stdout %q, want code 0 and one document", code, err, stderr, stdout)
	}
	var rows []string
	for _, r := range got.Reports {
		rows = append(rows, fmt.Sprintf("%s %s %g %g", r.Category, r.Method, r.Training.Seconds, *r.Training.ImageAUROC))
		if len(r.Speeds) != 2 || r.Speeds[0].Images != 2 || r.PeakMemory < r.Bytes || r.Bytes < 1<<20 {
			t.Errorf("%s, %s: got %+v, want two batch sizes, memory and the file's size", r.Category, r.Method, r)
		}
	}
	if want := []string{"bolt rd++ 12.5 0.95", "bolt fastflow 12.5 0.75", "screw rd++ 12.5 0.9", "screw fastflow 12.5 0.85"}; !slices.Equal(rows, want) {
		t.Fatalf("got %q, want %q", rows, want)
	}
	wantMeans := bench.Means(got.Reports)
	if len(got.Means) != 2 || fmt.Sprint(got.Means[0].Categories) != "[bolt screw]" || math.Abs(*got.Means[0].ImageAUROC-0.925) > 1e-12 || math.Abs(*got.Means[1].ImageAUROC-0.8) > 1e-12 ||
		got.Means[0].PixelAUROC != nil || got.Means[1].PeakMemory != wantMeans[1].PeakMemory {
		t.Errorf("got %+v, want the means of two methods", got.Means)
	}
	circles := plotted(t, plot)
	if len(circles) != 2 {
		t.Fatalf("got the circles %v, want two", circles)
	}
	var radii []float64
	for _, m := range got.Means {
		begin := fmt.Sprintf("%s: ", m.Method)
		for title, r := range circles {
			rest, is := strings.CutPrefix(title, begin)
			if !is {
				continue
			}
			radii = append(radii, r)
			ms, after, _ := strings.Cut(rest, " ms, ")
			// Three digits are shown.
			if v, err := strconv.ParseFloat(ms, 64); err != nil || math.Abs(v/m.LatencyMS-1) > 0.006 || !strings.HasPrefix(after, fmt.Sprintf("%.2f %%", 100**m.ImageAUROC)) {
				t.Errorf("got a circle of %q, want %g ms and %g", title, m.LatencyMS, *m.ImageAUROC)
			}
		}
	}
	if len(radii) != 2 {
		t.Fatalf("got the circles %v, want one a method", circles)
	}
	// Radii have three digits behind the point.
	if got, want := math.Pow(radii[0]/radii[1], 2), float64(got.Means[0].PeakMemory)/float64(got.Means[1].PeakMemory); math.Abs(got/want-1) > 1e-3 {
		t.Errorf("got an area of %.4f of the other, want %.4f, as memory is", got, want)
	}

	code, stdout, stderr = infer(nil, compareLine(runs)...)
	if code != command.Done || stderr != "" {
		t.Fatalf("got code %d, stderr %q, want code 0", code, stderr)
	}
	lines := strings.Split(stdout, "\n")
	for _, want := range []string{"bolt rd++ 95.00 90.00", "bolt fastflow 75.00 65.00", "screw rd++ 90.00 -", "screw fastflow 85.00 -", "mean of 2 rd++ 92.50 -", "mean of 2 fastflow 80.00 -"} {
		if !slices.ContainsFunc(lines, func(line string) bool {
			cells := strings.Split(line, "|")
			return len(cells) == 8 && strings.Join(strings.Fields(cells[0]+cells[6]), " ") == want && strings.TrimSpace(cells[5]) == "12.5"
		}) {
			t.Errorf("got %s, want a row of %s", stdout, want)
		}
	}
	for _, want := range []string{"resnet18 32 x 32, cpu fp32, " + filepath.Join(runs, "one", "bolt", rdpp.ModelFile), "2 models",
		"-: no pixel AUROC was measured: the test images had no masks (2 models).\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("got %s, want %q", stdout, want)
		}
	}

	// Of several sizes, where that is asked for; a model of no known training has its row, and no circle.
	trainedRun(t, runs, "three", "bolt", rdpp.MethodRD, 64, rdpp.OriginRandom, new(1.0), nil)
	if err := os.Remove(filepath.Join(runs, "one", "bolt", rdpp.MetricsFile)); err != nil {
		t.Fatal(err)
	}
	bolt := []string{filepath.Join(runs, "one", "bolt"), "--model", filepath.Join(runs, "two", "bolt", rdpp.ModelFile), filepath.Join(runs, "three")}
	code, stdout, stderr = infer(nil, compareLine(append(bolt, "--mixed", "--plot", plot)...)...)
	if code != command.Done || stderr != "" || strings.Contains(stdout, "mean of") {
		t.Errorf("got code %d, stderr %q, stdout %q, want code 0 and no means of single models", code, stderr, stdout)
	}
	for _, want := range []string{"-: no metrics.json beside the model (1 model).\n", "Backbones, image sizes or teachers differ", "resnet18 64 x 64, cpu fp32"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("got %s, want %q", stdout, want)
		}
	}
	if got, want := circleNames(t, plot), []string{"rd++, 32 px", "rd, 64 px"}; !slices.Equal(got, want) {
		t.Errorf("got the circles %q, want %q", got, want)
	}
}

// Models of several teachers are compared where that is asked for, and each mean is of one teacher's.
func TestBenchCompareTeachers(t *testing.T) {
	t.Setenv(testmain.Key, asProgram)
	runs, plot := t.TempDir(), filepath.Join(t.TempDir(), "plot.svg")
	trainedRun(t, runs, "one", "bolt", rdpp.MethodFastFlow, 32, rdpp.OriginRandom, new(0.5), nil)
	trainedRun(t, runs, "two", "bolt", rdpp.MethodFastFlow, 32, rdpp.OriginRandom, new(0.6), nil)
	trainedRun(t, runs, "three", "bolt", rdpp.MethodFastFlow, 32, rdpp.OriginDrawn, new(0.9), nil)
	code, stdout, stderr := infer(nil, compareLine("--mixed", "--plot", plot, runs)...)
	if code != command.Done || stderr != "" {
		t.Fatalf("got code %d, stderr %q, want code 0", code, stderr)
	}
	for _, want := range []string{"resnet18 32 x 32 of drawn, cpu fp32, 1 model\n", "resnet18 32 x 32 of random, cpu fp32, 2 models\n", "teachers differ"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("got %s, want %q", stdout, want)
		}
	}
	if got, want := circleNames(t, plot), []string{"fastflow, drawn", "fastflow, random"}; !slices.Equal(got, want) {
		t.Errorf("got the circles %q, want %q", got, want)
	}
}

// What no comparison comes of is refused before anything is measured.
func TestBenchCompareRefuses(t *testing.T) {
	runs, alone := t.TempDir(), t.TempDir()
	trainedRun(t, runs, "one", "bolt", rdpp.MethodFastFlow, 32, rdpp.OriginRandom, nil, nil)
	trainedRun(t, alone, "two", "screw", rdpp.MethodFastFlow, 64, rdpp.OriginRandom, new(0.5), nil)
	other := t.TempDir()
	trainedRun(t, other, "three", "bolt", rdpp.MethodRD, 32, rdpp.OriginDrawn, nil, nil)
	empty, plot := t.TempDir(), filepath.Join(t.TempDir(), "plot.svg")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{compareLine(runs, alone), command.WrongUsage, "resnet18 32 x 32 (1 model), resnet18 64 x 64 (1 model); name those of one, or say --mixed"},
		{compareLine(runs, other), command.WrongUsage, "resnet18 32 x 32 of drawn (1 model), resnet18 32 x 32 of random (1 model); name those of one, or say --mixed"},
		{compareLine(), command.WrongUsage, "--compare has no models"},
		{compareLine(empty), command.Failed, "no model.safetensors in " + empty},
		{compareLine(filepath.Join(empty, "none")), command.Failed, "none"},
		{compareLine(runs, "--plot", filepath.Join(empty, "plot.png")), command.WrongUsage, "name a file that ends in .svg"},
		{compareLine(runs, "--plot", plot), command.WrongUsage, "--plot needs the image AUROC"},
		{compareLine(runs, alone, "--mixed", "--plot", plot), command.WrongUsage, "no category that each method has a model of"},
		{benchLine("--plot", plot), command.WrongUsage, "--plot and --mixed are for --compare"},
		{benchLine("--mixed"), command.WrongUsage, "--plot and --mixed are for --compare"},
		{benchLine(runs), command.WrongUsage, "is one argument too many"},
	} {
		code, stdout, stderr := infer(nil, c.args...)
		if code != c.code || !oneLine(stderr, c.want) || stdout != "" {
			t.Errorf("%v: got code %d, stdout %q, stderr %q, want code %d and one line with %q", c.args, code, stdout, stderr, c.code, c.want)
		}
	}
	if _, err := os.Stat(plot); err == nil {
		t.Error("got a plot, want none of what is refused")
	}
}
