package main

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/imagefile"
	"rdpp/torch"
)

// modelFlags are the flags of every command that opens a model.
type modelFlags struct {
	file      string
	threshold *float64 // nil: the model's own
	device    string
	threads   int
	maxPixels int64
}

func (m *modelFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&m.file, "model", "", "model `FILE` that train wrote; required")
	flags.Func("threshold", "score `X` above which an image is anomalous\n(default: the model's own)",
		func(text string) error {
			x, err := strconv.ParseFloat(text, 64)
			if err != nil || !(x >= 0) || math.IsInf(x, 0) {
				return fmt.Errorf("use a number of 0 or more")
			}
			m.threshold = &x
			return nil
		})
	flags.StringVar(&m.device, "device", "auto", "`D`: auto (CUDA if any), cpu or cuda[:N]")
	flags.IntVar(&m.threads, "threads", runtime.NumCPU(), "use `N` CPU threads; all cores unless given")
	flags.Int64Var(&m.maxPixels, "max-pixels", imagefile.DefaultMaxPixels, "accept images of at most `N` pixels")
}

// open checks the flags and opens the model.
func (m *modelFlags) open() (*rdpp.Detector, error) {
	switch {
	case m.file == "":
		return nil, usagef("--model is missing; name the model.safetensors that train wrote")
	case m.threads < 1 || m.threads > 1024:
		return nil, usagef("--threads %d; use 1 to 1024", m.threads)
	case m.maxPixels < 1:
		return nil, usagef("--max-pixels %d; use 1 or more", m.maxPixels)
	}
	device, err := torch.ParseDevice(m.device)
	switch {
	case errors.Is(err, torch.ErrNoDevice):
		return nil, err
	case err != nil:
		return nil, usagef("--device: %w", err)
	}
	if err := torch.SetThreads(m.threads); err != nil {
		return nil, err
	}
	return rdpp.OpenDetector(m.file, &rdpp.DetectorOptions{Device: device, Threshold: m.threshold, MaxPixels: m.maxPixels})
}

// provisional says whether the threshold in use is the model's stand-in.
func (m *modelFlags) provisional(d *rdpp.Detector) bool {
	return m.threshold == nil && d.Info().Calibration.Provisional
}
