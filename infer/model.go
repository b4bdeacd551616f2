package main

import (
	"errors"
	"math"
	"strconv"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/command"
	"rdpp/rdpp/imagefile"
	"rdpp/torch"
)

// modelFlags are the flags of every command that opens a model.
type modelFlags struct {
	file      string
	device    string
	precision string
	threads   int
	batch     int // of image and eval
	maxPixels int64

	falseAlarm, threshold, pixelThreshold *float64 // nil: the model's own
	regions                               rdpp.RegionOptions
}

// number is a flag of numbers from low to below high; what says of others what to use.
func number(to **float64, low, high float64, what string) func(string) error {
	return func(text string) error {
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || !(x >= low && x < high) {
			return errors.New(what)
		}
		*to = &x
		return nil
	}
}

// registerThresholds adds the flags that say where an image becomes anomalous.
func (m *modelFlags) registerThresholds(flags *pflag.FlagSet) {
	flags.Func("false-alarm", "`SHARE` of good images that may be anomalous",
		number(&m.falseAlarm, math.SmallestNonzeroFloat64, 1, "use a share above 0 and below 1"))
	flags.Func("threshold", "score `X` above which an image is anomalous",
		number(&m.threshold, 0, math.Inf(1), "use a number of 0 or more"))
}

func (m *modelFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&m.file, "model", "", "model `FILE` that train wrote; required")
	m.registerThresholds(flags)
	flags.Func("pixel-threshold", "`X` to outline pixels above; these: the model's",
		number(&m.pixelThreshold, 0, math.Inf(1), "use a number of 0 or more"))
	flags.StringVar(&m.device, "device", "auto", "`NAME`: auto, cpu or cuda[:N]")
	flags.StringVar(&m.precision, "precision", string(torch.FP32), "`NAME`: fp32, tf32 or bf16")
	flags.IntVar(&m.threads, "threads", allowance.CPUs(), "`N` CPU threads")
	flags.Int64Var(&m.maxPixels, "max-pixels", imagefile.DefaultMaxPixels, "largest image accepted, `N` pixels")
}

// registerBatch adds the flag of the commands that score many images.
func (m *modelFlags) registerBatch(flags *pflag.FlagSet) {
	flags.IntVar(&m.batch, "batch", 0, "score `N` images at once; 0: what suits the device")
}

// registerRegions adds the flags of the commands that tell of regions, and returns their names.
func (m *modelFlags) registerRegions(flags *pflag.FlagSet) []string {
	flags.Func("region-low", "let regions reach down to `X` of the map; else to half\ntheir height, with --pixel-threshold to that",
		number(&m.regions.Low, 0, math.Inf(1), "use a number of 0 or more"))
	flags.IntVar(&m.regions.MinArea, "min-area", 0, "leave out regions of less than `N` pixels")
	flags.IntVar(&m.regions.MinLength, "min-length", 0, "and those whose box's longer side is below `N` pixels")
	return []string{"region-low", "min-area", "min-length"}
}

// open checks the flags and opens the model.
func (m *modelFlags) open() (*rdpp.Detector, error) {
	opt, err := m.options()
	if err != nil {
		return nil, err
	}
	return rdpp.OpenDetector(m.file, opt)
}

// options checks the flags and sets the number of threads.
func (m *modelFlags) options() (*rdpp.DetectorOptions, error) {
	switch {
	case m.file == "":
		return nil, command.Usagef("--model is missing; name the model.safetensors that train wrote")
	case m.threads < 1 || m.threads > 1024:
		return nil, command.Usagef("--threads %d; use 1 to 1024", m.threads)
	case m.batch < 0 || m.batch > maxBatch:
		return nil, command.Usagef("--batch %d; use 1 to %d, or 0 to let the device decide", m.batch, maxBatch)
	case m.maxPixels < 1:
		return nil, command.Usagef("--max-pixels %d; use 1 or more", m.maxPixels)
	case m.regions.MinArea < 0:
		return nil, command.Usagef("--min-area %d; use 0 or more", m.regions.MinArea)
	case m.regions.MinLength < 0:
		return nil, command.Usagef("--min-length %d; use 0 or more", m.regions.MinLength)
	case m.falseAlarm != nil && m.threshold != nil:
		return nil, command.Usagef("--false-alarm and --threshold exclude each other")
	}
	device, err := torch.ParseDevice(m.device)
	switch {
	case errors.Is(err, torch.ErrNoDevice):
		return nil, err
	case err != nil:
		return nil, command.Usagef("--device: %w", err)
	}
	precision, err := torch.ParsePrecision(m.precision)
	if err != nil {
		return nil, command.Usagef("--precision: %w", err)
	}
	if err := torch.SetThreads(m.threads); err != nil {
		return nil, err
	}
	return &rdpp.DetectorOptions{Device: device, Precision: precision, MaxPixels: m.maxPixels, Batch: m.batch,
		FalseAlarm: m.falseAlarm, Threshold: m.threshold, PixelThreshold: m.pixelThreshold, Regions: m.regions}, nil
}
