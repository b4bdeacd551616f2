package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"rdpp/infer/bench"
	"rdpp/rdpp"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/command"
	"rdpp/rdpp/printable"
	"rdpp/rdpp/report"
	"rdpp/torch"
)

// comparison is the table of infer bench --compare: a row a model, then one a method over the categories that all have.
type comparison struct {
	subjects  []*bench.Subject // in the order of their rows
	teachers  bool             // whether there are several, so that they are named
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
	c.teachers = slices.ContainsFunc(subjects, func(s *bench.Subject) bool { return s.Teacher != subjects[0].Teacher })
	settings := map[string]int{}
	var inOrder []string
	var unmeasured []*bench.Report
	for _, s := range subjects {
		c.category = max(c.category, utf8.RuneCountInString(shownCategory(s.Category)))
		c.method = max(c.method, len(s.Method))
		setting := c.setting(s.Arch, s.ImageSize, s.Teacher)
		if settings[setting]++; settings[setting] == 1 {
			inOrder = append(inOrder, setting)
		}
		unmeasured = append(unmeasured, &bench.Report{Subject: *s, Speeds: make([]bench.Speed, 1)})
	}
	if len(settings) > 1 && !b.mixed {
		var all []string
		for _, setting := range inOrder {
			all = append(all, fmt.Sprintf("%s (%s)", setting, printable.Count(settings[setting], "model")))
		}
		return nil, command.Usagef("--compare found models of several backbones, image sizes or teachers: %s; name those of one, or say --mixed", strings.Join(all, ", "))
	}
	means := bench.Means(unmeasured)
	c.category = max(c.category, len(meanOf(means)))
	switch {
	case b.plot == "":
	case len(means) == 0:
		return nil, command.Usagef("--plot: there is no category that each method has a model of")
	case !slices.ContainsFunc(means, func(m bench.Mean) bool { return m.ImageAUROC != nil }):
		return nil, command.Usagef("--plot needs the image AUROC, and the %s beside the models have it of no method in every category", rdpp.MetricsFile)
	}
	return c, nil
}

// setting is what methods that are compared should have in common, in words.
func (c *comparison) setting(arch string, size int, teacher string) string {
	text := fmt.Sprintf("%s %d x %d", arch, size, size)
	if c.teachers {
		text += " of " + printable.Text(teacher)
	}
	return text
}

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

// cells are a row of the table: the heading's texts, or numbers.
type cells struct {
	category, method, latency                              string
	rates                                                  []string // for each batch size
	memory, onGPU, model, training, imageAUROC, pixelAUROC string
	of                                                     string
}

func (c *comparison) line(row cells) string {
	pad := func(text string, width int) string {
		return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
	}
	text := fmt.Sprintf("%s %s | %8s |", pad(row.category, c.category), pad(row.method, c.method), row.latency)
	for _, rate := range row.rates {
		text += fmt.Sprintf(" %9s", rate)
	}
	text += fmt.Sprintf(" | %6s", row.memory)
	if c.onGPU {
		text += fmt.Sprintf(" %6s", row.onGPU)
	}
	text += fmt.Sprintf(" | %8s | %8s | %6s %6s | %s", row.model, row.training, row.imageAUROC, row.pixelAUROC, row.of)
	return strings.TrimRight(text, " ") + "\n"
}

func (c *comparison) printHead(w io.Writer) error {
	names := cells{category: "category", method: "method", latency: "p50", memory: "memory", onGPU: "on GPU", model: "model", training: "training",
		imageAUROC: "image", pixelAUROC: "pixel", of: "backbone, device, model"}
	units := cells{latency: "ms", memory: "MiB", onGPU: "MiB", model: "MB", training: "s", imageAUROC: "AUROC", pixelAUROC: "AUROC"}
	for _, n := range c.batches {
		names.rates, units.rates = append(names.rates, fmt.Sprintf("batch %d", n)), append(units.rates, "images/s")
	}
	_, err := io.WriteString(w, "\n"+c.line(names)+c.line(units))
	return err
}

// known is a number with so many digits behind the point, times a factor, or a dash.
func known(v *float64, factor float64, digits int) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, factor**v)
}

func inMiB(bytes int64) string { return fmt.Sprint((bytes + 1<<19) >> 20) }

func inMB(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/1e6) }

// printReport writes a model's row. The latency is that of the first batch size, 1.
func (c *comparison) printReport(w io.Writer, r *bench.Report) error {
	row := cells{category: shownCategory(r.Category), method: r.Method, latency: known(&r.Speeds[0].Latency.P50, 1, 1),
		memory: inMiB(r.PeakMemory), onGPU: inMiB(r.PeakDeviceMemory), model: inMB(r.Bytes), training: known(nil, 1, 1), imageAUROC: known(nil, 1, 1), pixelAUROC: known(nil, 1, 1),
		of: fmt.Sprintf("%s, %s %s, %s (n = %d)", c.setting(r.Arch, r.ImageSize, r.Teacher), r.Device, r.Precision, printable.Text(r.Model), r.Speeds[0].Images)}
	for _, s := range r.Speeds {
		row.rates = append(row.rates, known(&s.Throughput, 1, 2))
	}
	if t := r.Training; t != nil {
		row.training, row.imageAUROC, row.pixelAUROC = known(&t.Seconds, 1, 1), known(t.ImageAUROC, 100, 2), known(t.PixelAUROC, 100, 2)
	}
	_, err := io.WriteString(w, c.line(row))
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
		row := cells{category: meanOf(b.Means), method: m.Method, latency: known(&m.LatencyMS, 1, 1), rates: make([]string, len(c.batches)),
			memory: inMiB(m.PeakMemory), onGPU: inMiB(m.PeakDeviceMemory), model: inMB(m.Bytes), training: known(m.Seconds, 1, 1),
			imageAUROC: known(m.ImageAUROC, 100, 2), pixelAUROC: known(m.PixelAUROC, 100, 2),
			of: fmt.Sprintf("%s, %s %s, %s", c.setting(m.Arch, m.ImageSize, m.Teacher), m.Device, b.Reports[0].Precision, printable.Count(m.Models, "model"))}
		row.rates[0] = known(&m.Throughput, 1, 2)
		text += c.line(row)
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
		settings[c.setting(s.Arch, s.ImageSize, s.Teacher)] = true
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
		notes = append(notes, "Backbones, image sizes or teachers differ: the figures tell of these too, not of methods alone")
	}
	if len(means) == 0 {
		notes = append(notes, "There are no means: no category has a model of each method")
	}
	return notes
}

// draw writes the figure of the means.
func (c *comparison) draw(file string, means []bench.Mean) error {
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
	teacher := differ(func(m bench.Mean) string { return printable.Text(m.Teacher) })
	device := differ(func(m bench.Mean) string { return m.Device })
	for _, m := range means {
		if m.ImageAUROC != nil {
			figure.Costs = append(figure.Costs, report.Cost{Name: m.Method + arch(m) + size(m) + teacher(m) + device(m), Milliseconds: m.LatencyMS,
				ImageAUROC: *m.ImageAUROC, Bytes: m.Memory()})
		}
	}
	if err := atomicfile.Write(file, func(w io.Writer) error { return report.WriteCosts(w, figure) }); err != nil {
		return fmt.Errorf("bench: the plot: %w", err)
	}
	return nil
}
