package reproduce

import (
	"encoding/xml"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp/report"
)

// shown is a figure in words.
func shown(c *report.Costs) string {
	if c == nil {
		return "none"
	}
	text := fmt.Sprintf("%s; %s; %s:", c.Title, c.Time, c.Area)
	for _, k := range c.Costs {
		text += fmt.Sprintf(" %s %.4g ms %.4g %d,", k.Name, k.Milliseconds, k.ImageAUROC, k.Bytes)
	}
	return text
}

// The figure has the methods' means over the categories that all have results of, by bench.json where that has all of them.
func TestCosts(t *testing.T) {
	const byEvaluation, byBench = "time per image of the evaluation; model file", "time per image (median); peak memory"
	type result struct {
		method, category  string
		seed              uint64
		auroc, ms, mb     float64 // auroc below 0: not measured
		latencyMS, memory float64
	}
	mvtec := []result{
		{"rd", "screw", 1, 0.9, 20, 10, 5, 300}, {"rd", "screw", 2, 0.8, 40, 10, 7, 500}, {"rd", "carpet", 1, 0.95, 10, 30, 4, 600},
		{"patchcore", "screw", 1, 0.7, 100, 5, 50, 900}, {"patchcore", "carpet", 1, 0.9, 60, 15, 70, 1100},
	}
	without := func(change func(r *result)) []result {
		all := append([]result{}, mvtec...)
		for i := range all {
			change(&all[i])
		}
		return all
	}
	for _, c := range []struct {
		name    string
		results []result
		want    string
	}{
		{"nothing", nil, "none"},
		{"by bench", mvtec, "MVTec AD, mean of 2 of 15 categories; " + byBench + ": RD 5 ms 0.9 500, PatchCore 60 ms 0.8 1000,"},
		{"by evaluation", without(func(r *result) { r.latencyMS, r.memory = 0, 0 }),
			"MVTec AD, mean of 2 of 15 categories; " + byEvaluation + ": RD 20 ms 0.9 20000000, PatchCore 80 ms 0.8 10000000,"},
		{"a method without bench", without(func(r *result) {
			if r.method == "rd" {
				r.latencyMS = 0
			}
		}), "MVTec AD, mean of 2 of 15 categories; " + byEvaluation + ": RD 20 ms 0.9 20000000, PatchCore 80 ms 0.8 10000000,"},
		{"one in common", mvtec[:4], "MVTec AD, screw; " + byBench + ": RD 6 ms 0.85 400, PatchCore 50 ms 0.7 900,"},
		{"none in common", mvtec[2:4], "none"},
		{"one method", mvtec[2:3], "MVTec AD, carpet; " + byBench + ": RD 4 ms 0.95 600,"},
		{"no rate", without(func(r *result) { r.auroc = -1 }), "none"},
		{"no model", without(func(r *result) { r.mb, r.latencyMS = 0, 0 }), "none"},
		{"what nobody can draw", without(func(r *result) { r.ms, r.latencyMS = 1e300, 0 }), "none"},
	} {
		p := newPlan(t, &Options{Tables: []int{1}, Seeds: 2, Methods: []string{"rd", "cfa", "patchcore"}})
		outcomes := map[Training]Outcome{}
		for _, r := range c.results {
			o := measured(r.auroc, 0.5, 0.5)
			if r.auroc < 0 {
				o.Result.ImageAUROC = nil
			}
			o.Result.Good, o.Result.Defective, o.Result.EvaluationSeconds = 5, 5, r.ms/100
			o.Result.ModelBytes, o.Result.LatencyMS, o.Result.MemoryBytes = int64(1e6*r.mb), r.latencyMS, int64(r.memory)
			outcomes[Training{MVTec, r.category, paperArch, r.method, 0, r.seed}] = o
		}
		var figure *report.Costs
		for _, table := range p.Compare(outcomes).Methods {
			figure = table.Costs
		}
		if got := shown(figure); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// Of several backbones each is a circle, a data set of one category has its name alone, and the page has the figure.
func TestCostsPage(t *testing.T) {
	p := newPlan(t, &Options{Tables: []int{5, 8}, Methods: []string{"rd"}})
	outcomes := map[Training]Outcome{}
	for _, training := range p.Trainings {
		o := measured(0.9, 0.5, 0.5)
		o.Result.LatencyMS, o.Result.MemoryBytes = 10, 1<<20
		if training.Arch == paperArch {
			o.Result.LatencyMS, o.Result.MemoryBytes = 40, 9<<20
		}
		outcomes[training] = o
	}
	c := p.Compare(outcomes)
	if len(c.Methods) != 2 {
		t.Fatalf("got %d tables of methods, want two", len(c.Methods))
	}
	const bench = "; time per image (median); peak memory: "
	for i, want := range []string{
		"MVTec AD, mean of 15 of 15 categories" + bench + "RD, resnet18 10 ms 0.9 1048576, RD, resnet50 10 ms 0.9 1048576, RD, wide_resnet50_2 40 ms 0.9 9437184,",
		"Retinal OCT" + bench + "RD 40 ms 0.9 9437184,",
	} {
		if got := shown(c.Methods[i].Costs); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	var page strings.Builder
	if err := c.WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(page.String(), `<section id="tablemethods-mvtec">`)
	_, rest, found := strings.Cut(rest, `<figure class="wide">`)
	text, _, ends := strings.Cut(rest, "</figure>")
	if !found || !ends {
		t.Fatalf("got %s, want a figure of the methods", &page)
	}
	var svg struct {
		Circles []struct {
			R     float64 `xml:"r,attr"`
			Title string  `xml:"title"`
		} `xml:"circle"`
	}
	if err := xml.Unmarshal([]byte(text), &svg); err != nil || len(svg.Circles) != 3 {
		t.Fatalf("got %v and %+v, want XML of three circles", err, svg)
	}
	large, small := svg.Circles[0], svg.Circles[2] // in which order none hides another
	if large.Title != "RD, wide_resnet50_2: 40.0 ms, 90.00 %, 9.00 MiB" || math.Abs(large.R/small.R-3) > 1e-3 {
		t.Errorf("got %+v and %+v, want nine times the area for nine times the memory", large, small)
	}
}

// bench.json tells of the models that it measured, and of no other ones that took their places.
func TestReadBench(t *testing.T) {
	out := t.TempDir()
	var complaints []string
	training := Training{MVTec, "screw", paperArch, "rd", 0, 1}
	folder := filepath.Join(out, training.Folder(), "screw")
	model := filepath.Join(folder, "model.safetensors")
	report := func(file string, bytes int, ms float64, memory, device int) string {
		return fmt.Sprintf(`{"model":%q,"model_bytes":%d,"speeds":[{"latency_ms":{"p50":%g}},{"latency_ms":{"p50":1}}],"peak_memory_bytes":%d,"peak_device_memory_bytes":%d}`,
			file, bytes, ms, memory, device)
	}
	metrics := `{"config":{"arch":"wide_resnet50_2","method":"rd","seed":1},"image_auroc":0.5}`
	for path, text := range map[string]string{model: "12345", filepath.Join(folder, "metrics.json"): metrics} {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := strings.Replace(model, "screw", "pill", 1)
	for _, c := range []struct {
		name, text string
		want       string // latency and memory
	}{
		{"none", "", "0 0"},
		{"the model", report(model, 5, 42, 100, 0), "42 100"},
		{"by a relative name", report(filepath.Join("run", training.Folder(), "screw", "model.safetensors"), 5, 42, 100, 0), "42 100"},
		{"on a GPU", report(model, 5, 42, 100, 7), "42 7"},
		{"on two devices", report(model, 5, 42, 100, 0) + "," + report(model, 5, 4, 100, 7), "42 100"},
		{"among others", report(elsewhere, 5, 1, 1, 0) + "," + report(model, 5, 42, 100, 0), "42 100"},
		{"another category's", report(elsewhere, 5, 42, 100, 0), "0 0"},
		{"another model", report(model, 6, 42, 100, 0), "0 0"},
		{"nothing measured", `{"model":"` + model + `","model_bytes":5}`, "0 0"},
	} {
		if c.text != "" {
			if err := os.WriteFile(filepath.Join(out, BenchFile), []byte(`{"reports":[`+c.text+`]}`), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		r, err := NewRun(newPlan(t, &Options{Tables: []int{1}, Methods: []string{"rd"}}), &RunOptions{Out: out, Roots: map[string]string{MVTec: t.TempDir()},
			Complain: func(err error) { complaints = append(complaints, err.Error()) }})
		if err != nil {
			t.Fatal(err)
		}
		result := r.outcomes[training].Result
		if got := fmt.Sprint(result.LatencyMS, result.MemoryBytes); got != c.want || len(complaints) > 0 {
			t.Errorf("%s: got %s and the complaints %q, want %s and none", c.name, got, complaints, c.want)
		}
	}
	if err := os.WriteFile(filepath.Join(out, BenchFile), []byte("no JSON"), 0o666); err != nil {
		t.Fatal(err)
	}
	r, err := NewRun(newPlan(t, &Options{Tables: []int{1}, Methods: []string{"rd"}}), &RunOptions{Out: out, Roots: map[string]string{MVTec: t.TempDir()},
		Complain: func(err error) { complaints = append(complaints, err.Error()) }})
	if err != nil || r.outcomes[training].Result == nil || len(complaints) != 1 || !strings.Contains(complaints[0], filepath.Join(out, BenchFile)) {
		t.Errorf("got %v and the complaints %q, want the results and one complaint that names the file", err, complaints)
	}
}

// A cell without a number says which of the reasons it is.
func TestMissing(t *testing.T) {
	result := func(good, defective int, masks, provisional bool) *Result {
		r := &Result{HasMasks: masks, Provisional: provisional}
		r.Good, r.Defective = good, defective
		return r
	}
	const none, threshold = "not measured: there are no test images", "not counted: no good images were held out for the threshold, which is the highest score among the training images"
	for _, c := range []struct {
		result *Result
		metric string
		want   string
	}{
		{result(0, 0, false, false), imageAUROC, none},
		{result(3, 0, false, false), imageAUROC, "not measured: there are no defective test images"},
		{result(0, 3, true, false), imageAUROC, "not measured: there are no good test images"},
		{result(0, 0, false, false), pixelAUROC, none},
		{result(3, 0, true, false), pixelAUROC, "not measured: there are no defective test images"},
		{result(3, 3, false, false), pixelAUROC, "not measured: the test images have no masks"},
		{result(3, 3, false, false), pro, "not measured: the test images have no masks"},
		{result(3, 3, true, false), "aupro", "not measured: the masks have no defective pixel, or nothing but such"},
		{result(3, 3, true, true), "found", threshold},
		{result(3, 0, true, false), "found", "not counted: there are no such test images"},
		{result(3, 3, true, false), "megabytes", "the model file is not there"},
		{result(3, 3, true, false), "latency", "not measured: bench.json has nothing of this model"},
	} {
		p := newPlan(t, &Options{Tables: []int{1}, Methods: []string{"rd"}})
		training := Training{MVTec, "screw", paperArch, "rd", 0, 1}
		v, got := (&comparer{p, map[Training]Outcome{training: {Result: c.result}}}).value(training, c.metric)
		if v != nil || got != c.want {
			t.Errorf("%s of %d good and %d defective images: got %v, %q, want none and %q", c.metric, c.result.Good, c.result.Defective, v, got, c.want)
		}
	}
}
