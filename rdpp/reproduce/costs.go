package reproduce

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"rdpp/rdpp/report"
)

// BenchFile is what `infer bench --compare RUN --json` printed, where somebody has put that into a Run's folder.
const BenchFile = "bench.json"

// benched is what BenchFile says of a model.
type benched struct {
	modelBytes  int64
	latencyMS   float64
	memoryBytes int64 // of the device that it ran on
}

// readBench reads BenchFile in a folder: what it says of the models below, by their folders' paths from there. There is nothing
// where there is no such file.
func readBench(out string) (map[string]benched, error) {
	path := filepath.Join(out, BenchFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reproduce: %w", err)
	}
	var b struct {
		Reports []struct {
			Model      string `json:"model"`
			ModelBytes int64  `json:"model_bytes"`
			Speeds     []struct {
				Latency struct {
					P50 float64 `json:"p50"`
				} `json:"latency_ms"`
			} `json:"speeds"` // the first is that of an image per pass
			Memory       int64 `json:"peak_memory_bytes"`
			DeviceMemory int64 `json:"peak_device_memory_bytes"`
		} `json:"reports"`
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, fmt.Errorf("reproduce: %s: %w; write it again, or remove it", path, err)
	}
	all := map[string]benched{}
	for _, r := range b.Reports {
		category := filepath.Dir(r.Model)
		key := filepath.Join(filepath.Base(filepath.Dir(category)), filepath.Base(category))
		if _, there := all[key]; there || len(r.Speeds) == 0 { // of several devices the first counts
			continue
		}
		one := benched{r.ModelBytes, r.Speeds[0].Latency.P50, r.Memory}
		if r.DeviceMemory > 0 {
			one.memoryBytes = r.DeviceMemory
		}
		all[key] = one
	}
	return all, nil
}

// cost is what a method takes and gives on a category, as means over the seeds.
type cost struct{ imageAUROC, ms, bytes float64 }

// priced says how a training's time and memory are told.
type priced struct {
	time, area string
	of         func(r *Result) (ms, bytes float64) // 0: not known
}

var (
	byBench      = priced{"time per image (median)", "peak memory", func(r *Result) (ms, bytes float64) { return r.LatencyMS, float64(r.MemoryBytes) }}
	byEvaluation = priced{"time per image of the evaluation", "model file", func(r *Result) (ms, bytes float64) {
		return 1000 * r.EvaluationSeconds / float64(max(r.Good+r.Defective, 1)), float64(r.ModelBytes)
	}}
)

// costs is the figure of a data set's methods, each with a backbone. Time and memory are BenchFile's where it has them of all that
// there are results of; else the time is that of the evaluation, and the model file stands for memory. It is nil where nothing is
// known.
func (c *comparer) costs(dataset string, kinds []selector, withArch bool) *report.Costs {
	figure := c.priced(dataset, kinds, withArch, byBench)
	if evaluated := c.priced(dataset, kinds, withArch, byEvaluation); figure == nil || evaluated != nil && len(evaluated.Costs) > len(figure.Costs) {
		figure = evaluated
	}
	if _, err := figure.SVG(); err != nil { // of none, or of a figure in some file that nothing can be drawn of
		return nil
	}
	return figure
}

// priced is the figure over the categories that all methods have results of that have any; nil where there is no such category.
func (c *comparer) priced(dataset string, kinds []selector, withArch bool, by priced) *report.Costs {
	figure := &report.Costs{Title: paper.Datasets[dataset].Name, Time: by.time, Area: by.area}
	var methods []map[string]cost
	for _, s := range kinds {
		if m := c.known(s, by); len(m) > 0 {
			methods = append(methods, m)
			figure.Costs = append(figure.Costs, report.Cost{Name: methodLabel(s, withArch)})
		}
	}
	all := paper.Datasets[dataset].Categories
	shared := slices.DeleteFunc(slices.Clone(all), func(category string) bool {
		return slices.ContainsFunc(methods, func(m map[string]cost) bool {
			_, there := m[category]
			return !there
		})
	})
	if len(methods) == 0 || len(shared) == 0 {
		return nil
	}
	for i, m := range methods {
		var rates, times, sizes []float64
		for _, category := range shared {
			rates, times, sizes = append(rates, m[category].imageAUROC), append(times, m[category].ms), append(sizes, m[category].bytes)
		}
		k := &figure.Costs[i]
		k.ImageAUROC, k.Milliseconds, k.Bytes = min(mean(rates), 1), mean(times), int64(mean(sizes))
	}
	switch {
	case len(all) > 1 && len(shared) == 1:
		figure.Title += ", " + shared[0]
	case len(all) > 1:
		figure.Title += fmt.Sprintf(", mean of %d of %d categories", len(shared), len(all))
	}
	return figure
}

// known are the categories on which all is known of a method.
func (c *comparer) known(s selector, by priced) map[string]cost {
	all := map[string]cost{}
	for _, category := range c.categories(s) {
		var rates, times, sizes []float64
		for _, t := range c.seeds(s, category) {
			r := c.outcomes[t].Result
			if r == nil || r.ImageAUROC == nil {
				continue
			}
			if ms, bytes := by.of(r); ms > 0 && bytes >= 1 {
				rates, times, sizes = append(rates, *r.ImageAUROC), append(times, ms), append(sizes, bytes)
			}
		}
		if len(rates) > 0 {
			all[category] = cost{mean(rates), mean(times), mean(sizes)}
		}
	}
	return all
}
