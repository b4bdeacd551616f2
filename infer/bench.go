package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rdpp/infer/bench"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/printable"
	"rdpp/torch"

	"rdpp/rdpp/command"
)

const benchHelp = `Usage: infer bench --model FILE [flags], infer bench --compare RUNS [flags]

Measures each model on each device: time to open it and to the first prediction,
percentiles of the latency of one image, images per second from image to verdict
and of the networks alone ("nets"), per batch size, peak memory. Each pair has a
process of its own. Other programs that run meanwhile spoil figures.

`

// most images in one pass
const maxBatch = 1024

// benchmark is what --json prints.
type benchmark struct {
	Machine bench.Machine   `json:"machine"`
	Input   string          `json:"input"` // what is predicted, in words
	WarmUp  int             `json:"warm_up"`
	Reports []*bench.Report `json:"reports"`         // models in order, for each the devices
	Means   []bench.Mean    `json:"means,omitempty"` // of --compare: the methods over the categories that all of them have models of
}

// benchFlags are the flags of bench.
type benchFlags struct {
	models, devices []string
	batches         []int
	image           string
	count, warmUp   int
	seconds         float64
	precision       string
	threads         int
	maxPixels       int64
	asJSON          bool
	compare, mixed  bool
	plot            string
}

// rareBenchFlags are left out of --help.
var rareBenchFlags = []string{"warm-up", "max-pixels"}

func (b *benchFlags) register(flags *pflag.FlagSet) {
	flags.StringArrayVar(&b.models, "model", nil, "model `FILE` that train wrote; may be repeated; required")
	flags.BoolVar(&b.compare, "compare", false, "methods side by side: all models in folders RUNS, with\ntheir training's time and AUROC, from metrics.json")
	flags.StringVar(&b.plot, "plot", "", "draw --compare into `FILE`.svg: time, AUROC, memory")
	flags.BoolVar(&b.mixed, "mixed", false, "compare several backbones, sizes, teachers as well")
	flags.StringSliceVar(&b.devices, "device", []string{"auto"}, "`NAMES`: auto, cpu, cuda[:N]")
	flags.IntSliceVar(&b.batches, "batch", []int{1}, "`N,...` images in one pass, beside 1")
	flags.StringVar(&b.image, "image", "", "measure from reading and decoding `FILE` on; without it\na picture of 1024 x 1024 pixels in memory is predicted")
	flags.IntVar(&b.count, "count", 1000, "measure at most `N` images per figure")
	flags.Float64Var(&b.seconds, "seconds", 10, "measure at most `X` seconds per figure")
	flags.IntVar(&b.warmUp, "warm-up", 10, "`N` predictions before each measurement")
	flags.StringVar(&b.precision, "precision", string(torch.FP32), "`NAME`: fp32, tf32 or bf16")
	flags.IntVar(&b.threads, "threads", allowance.CPUs(), "`N` CPU threads")
	flags.Int64Var(&b.maxPixels, "max-pixels", imagefile.DefaultMaxPixels, "largest image accepted, `N` pixels")
	flags.BoolVar(&b.asJSON, "json", false, "print one JSON document instead of the table")
}

// check finds what is wrong with the flags, names devices by their numbers and puts batch sizes in order, 1 among them.
func (b *benchFlags) check(runs []string) (devices []torch.Device, err error) {
	switch {
	case !b.compare && len(runs) > 0:
		return nil, command.Usagef("%q is one argument too many; name models with --model, or folders with --compare", runs[0])
	case !b.compare && (b.plot != "" || b.mixed):
		return nil, command.Usagef("--plot and --mixed are for --compare")
	case b.plot != "" && !strings.HasSuffix(strings.ToLower(b.plot), ".svg"):
		return nil, command.Usagef("--plot is %q; name a file that ends in .svg", b.plot)
	case b.compare && len(b.models)+len(runs) == 0:
		return nil, command.Usagef("--compare has no models; name folders that train wrote, or models with --model")
	case len(b.models)+len(runs) == 0:
		return nil, command.Usagef("--model is missing; name the model.safetensors that train wrote")
	case len(b.devices) == 0:
		return nil, command.Usagef("--device names none; use auto, cpu or cuda[:N]")
	case b.count < 1:
		return nil, command.Usagef("--count %d; use 1 or more", b.count)
	case !(b.seconds > 0 && b.seconds <= 86400):
		return nil, command.Usagef("--seconds %g; use more than 0 and at most 86400, a day", b.seconds)
	case b.warmUp < 0:
		return nil, command.Usagef("--warm-up %d; use 0 or more", b.warmUp)
	case b.threads < 1 || b.threads > 1024:
		return nil, command.Usagef("--threads %d; use 1 to 1024", b.threads)
	case b.maxPixels < 1:
		return nil, command.Usagef("--max-pixels %d; use 1 or more", b.maxPixels)
	}
	for _, n := range b.batches {
		if n < 1 || n > maxBatch {
			return nil, command.Usagef("--batch %d; use 1 to %d", n, maxBatch)
		}
	}
	b.batches = append(b.batches, 1)
	slices.Sort(b.batches)
	b.batches = slices.Compact(b.batches)
	if _, err := torch.ParsePrecision(b.precision); err != nil {
		return nil, command.Usagef("--precision: %w", err)
	}
	for _, name := range b.devices {
		device, err := torch.ParseDevice(name)
		switch {
		case errors.Is(err, torch.ErrNoDevice):
			return nil, err
		case err != nil:
			return nil, command.Usagef("--device: %w", err)
		}
		devices = append(devices, device)
	}
	for _, file := range slices.Concat(b.models, runs, []string{b.image}) {
		if _, err := os.Stat(file); file != "" && err != nil {
			return nil, fmt.Errorf("%w; check the path", err)
		}
	}
	return devices, nil
}

// input says in words what is predicted.
func (b *benchFlags) input() string {
	if b.image == "" {
		return fmt.Sprintf("a generated picture of %d x %d pixels in memory: resizing and prediction, no decoding",
			bench.PictureSize, bench.PictureSize)
	}
	return b.image + ": reading, decoding, resizing and prediction"
}

func runBench(ctx context.Context, args []string, t *command.Terminal) (int, error) {
	flags := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	var b benchFlags
	b.register(flags)
	if err := t.Parse(flags, args, command.Help{Text: benchHelp, Rare: rareBenchFlags}); err != nil {
		return 0, err
	}
	devices, err := b.check(flags.Args())
	if err != nil {
		return 0, err
	}
	head := func(w io.Writer) error { return printHead(w, b.batches) }
	row := printReport
	var c *comparison
	if b.compare {
		if c, err = b.comparison(flags.Args(), devices); err != nil {
			return 0, err
		}
		b.models, head, row = c.files(), c.printHead, c.printReport
	}
	machine, err := bench.ThisMachine(b.threads)
	if err != nil {
		return 0, err
	}
	all := benchmark{Machine: machine, Input: b.input(), WarmUp: b.warmUp}
	out := t.Stdout
	if b.asJSON {
		out = io.Discard
	}
	if err := all.printMachine(out); err != nil {
		return 0, err
	}
	for _, model := range b.models {
		for _, device := range devices {
			measure := b.measureElsewhere
			if len(b.models)*len(devices) == 1 && !b.compare {
				measure = b.measureHere
			}
			r, err := measure(ctx, model, device)
			if err != nil {
				return 0, err
			}
			// Below what opening the first model has to say.
			if len(all.Reports) == 0 {
				if err := head(out); err != nil {
					return 0, err
				}
			}
			all.Reports = append(all.Reports, r)
			if err := row(out, r); err != nil {
				return 0, err
			}
		}
	}
	if c != nil {
		all.Means = bench.Means(all.Reports)
		if err := c.printEnd(out, &all); err != nil {
			return 0, err
		}
	}
	if b.asJSON {
		if err := json.NewEncoder(t.Stdout).Encode(all); err != nil {
			return 0, err
		}
	}
	if b.plot != "" { // last, as what was measured is not to be lost where it cannot be written
		return command.Done, c.draw(b.plot, all.Means)
	}
	return command.Done, nil
}

func (b *benchFlags) measureHere(ctx context.Context, model string, device torch.Device) (*bench.Report, error) {
	if err := torch.SetThreads(b.threads); err != nil {
		return nil, err
	}
	warmUp := b.warmUp
	if warmUp == 0 {
		warmUp = -1
	}
	return bench.Model(ctx, model, device, &bench.Options{Batches: b.batches, Image: b.image, Count: b.count,
		Time: time.Duration(b.seconds * float64(time.Second)), WarmUp: warmUp, MaxPixels: b.maxPixels,
		Precision: torch.Precision(b.precision)})
}

// measureElsewhere measures in a process of its own, where neither memory nor libtorch's state is another model's.
func (b *benchFlags) measureElsewhere(ctx context.Context, model string, device torch.Device) (*bench.Report, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"bench", "--json", "--model=" + model, "--device=" + device.String(), "--image=" + b.image,
		"--count=" + strconv.Itoa(b.count), "--seconds=" + strconv.FormatFloat(b.seconds, 'g', -1, 64),
		"--warm-up=" + strconv.Itoa(b.warmUp), "--threads=" + strconv.Itoa(b.threads), "--precision=" + b.precision,
		"--max-pixels=" + strconv.FormatInt(b.maxPixels, 10)}
	for _, n := range b.batches {
		args = append(args, "--batch="+strconv.Itoa(n))
	}
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if message := strings.TrimPrefix(strings.TrimSpace(stderr.String()), "infer: "); err != nil && message != "" {
		return nil, errors.New(message)
	}
	var one benchmark
	if err == nil {
		err = json.Unmarshal(stdout.Bytes(), &one)
	}
	if err == nil && len(one.Reports) != 1 {
		err = fmt.Errorf("got %d reports", len(one.Reports))
	}
	if err != nil {
		return nil, fmt.Errorf("bench: measuring %s in a process of its own: %w; measure it alone", model, err)
	}
	one.Reports[0].Model = model // which JSON may have changed
	return one.Reports[0], nil
}

// printMachine writes what all rows of the table have in common.
func (b *benchmark) printMachine(w io.Writer) error {
	m := &b.Machine
	text := fmt.Appendf(nil, "%s, %s (%d logical), %s, libtorch %s\n", m.CPU, printable.Count(m.Cores, "core"), m.CPUs, printable.Count(m.Threads, "thread"),
		m.Libtorch)
	for _, gpu := range m.GPUs {
		text = fmt.Appendf(text, "%s\n", gpu)
	}
	text = fmt.Appendf(text, "%s\n", printable.Text(b.Input))
	_, err := w.Write(text)
	return err
}

// printHead writes the names of the table's columns.
func printHead(w io.Writer, batches []int) error {
	text := fmt.Appendf(nil, "\n%7s %7s | %7s %7s %7s %7s %7s |", "open", "first", "p50", "p90", "p95", "p99", "max")
	units := fmt.Appendf(nil, "%7s %7s | %7s %7s %7s %7s %7s |", "ms", "ms", "ms", "ms", "ms", "ms", "ms")
	for _, n := range batches {
		text = fmt.Appendf(text, " %10s %8s |", fmt.Sprintf("batch %d", n), "nets")
		units = fmt.Appendf(units, " %10s %8s |", "images/s", "images/s")
	}
	text = fmt.Appendf(text, " %6s %6s | device, model\n%s %6s %6s |\n", "memory", "on GPU", units, "MiB", "MiB")
	_, err := w.Write(text)
	return err
}

// printReport writes a row. The latencies are those of the first batch size, 1.
func printReport(w io.Writer, r *bench.Report) error {
	l := r.Speeds[0].Latency
	text := fmt.Appendf(nil, "%7.1f %7.1f | %7.1f %7.1f %7.1f %7.1f %7.1f |", r.OpenMS, r.FirstMS, l.P50, l.P90, l.P95, l.P99, l.Max)
	for _, s := range r.Speeds {
		text = fmt.Appendf(text, " %10.2f %8.2f |", s.Throughput, s.Compute.Throughput)
	}
	const mib = 1 << 20
	text = fmt.Appendf(text, " %6d %6d | %s %s, %s (%s, %d x %d, own batch %d, n = %d)\n", r.PeakMemory/mib, r.PeakDeviceMemory/mib, r.Device, r.Precision,
		printable.Text(r.Model), r.Arch, r.ImageSize, r.ImageSize, r.OwnBatch, r.Speeds[0].Images)
	_, err := w.Write(text)
	return err
}
