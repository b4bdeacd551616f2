package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"rdpp/infer/bench"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/command"
	"rdpp/rdpp/printable"
	"rdpp/rdpp/report"
	"rdpp/torch"
)

// comparison is the table of infer bench --compare: a row a model, then one a method over the categories that all have.
type comparison struct {
	subjects  []*bench.Subject // in the order of their rows
	batches   []int
	precision string
	onGPU     bool // whether any device is no CPU
	category  int  // width of its column, characters
	method    int
}

// comparison finds the models that are to be compared, and refuses what no comparison comes of before anything is measured.
func (b *benchFlags) comparison(runs []string, devices []torch.Device) (*comparison, error) {
	subjects, err := bench.Find(slices.Concat(b.models, runs))
	if err != nil {
		return nil, err
	}
	c := &comparison{subjects: subjects, batches: b.batches, precision: b.precision, category: len("category"), method: len("method"),
		onGPU: slices.ContainsFunc(devices, func(d torch.Device) bool { return d != torch.CPU })}
	settings := map[string]int{}
	var inOrder []string
	var known []*bench.Report // as if they were measured
	for _, s := range subjects {
		c.category = max(c.category, utf8.RuneCountInString(shownCategory(s.Category)))
		c.method = max(c.method, len(s.Method))
		setting := settingOf(s.Arch, s.ImageSize)
		if settings[setting]++; settings[setting] == 1 {
			inOrder = append(inOrder, setting)
		}
		known = append(known, &bench.Report{Subject: *s, Speeds: make([]bench.Speed, 1)})
	}
	if len(settings) > 1 && !b.mixed {
		var all []string
		for _, setting := range inOrder {
			all = append(all, fmt.Sprintf("%s (%s)", setting, printable.Count(settings[setting], "model")))
		}
		return nil, command.Usagef("--compare found models of several backbones or image sizes: %s; name those of one, or say --mixed", strings.Join(all, ", "))
	}
	means := bench.Means(known)
	c.category = max(c.category, len(meanOf(means)))
	switch {
	case b.plot == "":
	case len(means) == 0:
		return nil, command.Usagef("--plot: there is no category that each method has a model of")
	case !slices.ContainsFunc(means, func(m bench.Mean) bool { return m.ImageAUROC != nil }):
		return nil, command.Usagef("--plot needs the image AUROC, and no %s beside the models has it", "metrics.json")
	}
	return c, nil
}

func settingOf(arch string, size int) string { return fmt.Sprintf("%s %d x %d", arch, size, size) }

// shownCategory is a category's name as the table has room for it.
func shownCategory(name string) string {
	const most = 24 // characters
	runes := []rune(printable.Text(name))
	if len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return string(runes)
}

// meanOf says of how many categories the means are; "" where there are none.
func meanOf(means []bench.Mean) string {
	if len(means) == 0 {
		return ""
	}
	return "mean of " + fmt.Sprint(len(means[0].Categories))
}

func (c *comparison) files() (files []string) {
	for _, s := range c.subjects {
		files = append(files, s.Model)
	}
	return files
}

// line is a row of the table, of the heading's texts or of numbers.
func (c *comparison) line(category, method, latency string, rates []string, memory, onGPU, model, training, image, pixel, of string) string {
	pad := func(text string, width int) string {
		return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
	}
	text := fmt.Sprintf("%s %s | %8s |", pad(category, c.category), pad(method, c.method), latency)
	for _, rate := range rates {
		text += fmt.Sprintf(" %9s", rate)
	}
	text += fmt.Sprintf(" | %6s", memory)
	if c.onGPU {
		text += fmt.Sprintf(" %6s", onGPU)
	}
	return strings.TrimRight(text+fmt.Sprintf(" | %8s | %8s | %6s %6s | %s", model, training, image, pixel, of), " ") + "\n"
}

func (c *comparison) printHead(w io.Writer) error {
	var names, units []string
	for _, n := range c.batches {
		names, units = append(names, fmt.Sprintf("batch %d", n)), append(units, "images/s")
	}
	_, err := io.WriteString(w, "\n"+c.line("category", "method", "p50", names, "memory", "on GPU", "model", "training", "image", "pixel", "backbone, device, model")+
		c.line("", "", "ms", units, "MiB", "MiB", "MB", "s", "AUROC", "AUROC", ""))
	return err
}

// known is a number with so many digits behind the point, times a factor, or a dash.
func known(v *float64, factor float64, digits int) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, factor**v)
}

const mib = 1 << 20

// printReport writes a model's row. The latency is that of the first batch size, 1.
func (c *comparison) printReport(w io.Writer, r *bench.Report) error {
	var rates []string
	for _, s := range r.Speeds {
		rates = append(rates, known(&s.Throughput, 1, 2))
	}
	var t bench.Training
	var seconds *float64
	if r.Training != nil {
		t, seconds = *r.Training, &r.Training.Seconds
	}
	_, err := io.WriteString(w, c.line(shownCategory(r.Category), r.Method, known(&r.Speeds[0].Latency.P50, 1, 1), rates,
		fmt.Sprint(r.PeakMemory/mib), fmt.Sprint(r.PeakDeviceMemory/mib), fmt.Sprintf("%.1f", float64(r.Bytes)/1e6), known(seconds, 1, 1),
		known(t.ImageAUROC, 100, 2), known(t.PixelAUROC, 100, 2),
		fmt.Sprintf("%s, %s %s, %s (n = %d)", settingOf(r.Arch, r.ImageSize), r.Device, r.Precision, printable.Text(r.Model), r.Speeds[0].Images)))
	return err
}

// printEnd writes the means and what is to be said of the numbers.
func (c *comparison) printEnd(w io.Writer, b *benchmark) error {
	text := ""
	several := false // whether the means say more than the rows
	for _, m := range b.Means {
		several = several || m.Models > 1
	}
	for i, m := range b.Means {
		if !several {
			break
		}
		if i == 0 {
			text += "\n"
		}
		rates := make([]string, len(c.batches))
		rates[0] = known(&m.Throughput, 1, 2)
		text += c.line(meanOf(b.Means), m.Method, known(&m.LatencyMS, 1, 1), rates, fmt.Sprint(m.PeakMemory/mib), fmt.Sprint(m.PeakDeviceMemory/mib),
			fmt.Sprintf("%.1f", float64(m.Bytes)/1e6), known(m.Seconds, 1, 1), known(m.ImageAUROC, 100, 2), known(m.PixelAUROC, 100, 2),
			fmt.Sprintf("%s, %s %s, %s", settingOf(m.Arch, m.ImageSize), m.Device, b.Reports[0].Precision, printable.Count(m.Models, "model")))
	}
	text += "\nAUROC in %. Training is the time that metrics.json has, of the machine that trained.\n"
	for _, note := range c.notes(b.Means) {
		text += printable.Text(note) + ".\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// notes say what is not known, and what figures are not to be trusted.
func (c *comparison) notes(means []bench.Mean) (notes []string) {
	var lacking []string // why, once for each model
	optimistic, settings := 0, map[string]bool{}
	for _, s := range c.subjects {
		settings[settingOf(s.Arch, s.ImageSize)] = true
		switch t := s.Training; {
		case t == nil:
			lacking = append(lacking, s.Unknown)
		case t.ImageAUROC == nil:
			lacking = append(lacking, "no image AUROC was measured: there were no good test images, or no defective ones")
		case t.PixelAUROC == nil:
			lacking = append(lacking, "no pixel AUROC was measured: the test images had no masks")
		}
		if s.Training != nil && s.Training.BestOnTest {
			optimistic++
		}
	}
	counts := map[string]int{}
	for _, reason := range lacking {
		counts[reason]++
	}
	for _, reason := range lacking {
		if n := counts[reason]; n > 0 {
			notes = append(notes, fmt.Sprintf("-: %s (%s)", reason, printable.Count(n, "model")))
			delete(counts, reason)
		}
	}
	if optimistic > 0 {
		notes = append(notes, fmt.Sprintf("AUROC of %s is optimistic: the epoch was chosen by it", printable.Count(optimistic, "model")))
	}
	if len(settings) > 1 {
		notes = append(notes, "Backbones or image sizes differ: time and memory tell of these too, not of methods alone")
	}
	if len(means) == 0 {
		notes = append(notes, "There are no means: no category has a model of each method")
	}
	return notes
}

// draw writes the figure of the means, where a file is named.
func (c *comparison) draw(file string, means []bench.Mean) error {
	if file == "" {
		return nil
	}
	categories := means[0].Categories
	figure := &report.Costs{Title: strings.Join(categories, ", "), Time: "time per image (median)", Area: "peak memory"}
	if n := len(categories); n > 1 {
		figure.Title = fmt.Sprintf("mean of %d categories: %s", n, figure.Title)
	}
	if c.onGPU {
		figure.Area = "peak memory of the device"
	}
	figure.Title += "; " + c.precision
	differ := func(value func(m bench.Mean) string) func(m bench.Mean) string {
		return func(m bench.Mean) string {
			if slices.ContainsFunc(means, func(o bench.Mean) bool { return value(o) != value(m) }) {
				return ", " + value(m)
			}
			return ""
		}
	}
	arch := differ(func(m bench.Mean) string { return m.Arch })
	size := differ(func(m bench.Mean) string { return fmt.Sprintf("%d px", m.ImageSize) })
	device := differ(func(m bench.Mean) string { return m.Device })
	for _, m := range means {
		if m.ImageAUROC != nil {
			figure.Costs = append(figure.Costs, report.Cost{Name: m.Method + arch(m) + size(m) + device(m), Milliseconds: m.LatencyMS,
				ImageAUROC: *m.ImageAUROC, Bytes: m.Memory()})
		}
	}
	if err := atomicfile.Write(file, func(w io.Writer) error { return report.WriteCosts(w, figure) }); err != nil {
		return fmt.Errorf("bench: the plot: %w", err)
	}
	return nil
}
