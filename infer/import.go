package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/printable"
	"rdpp/torch"
)

const importHelp = `Usage: infer import --checkpoint FILE --out FILE [flags]

Makes a model file of a checkpoint that the released code of RD++ (or RD) has
saved, {"proj", "bn", "decoder"} in a .pth or .safetensors file, and of the
teacher that it was trained with. Nothing in the files is executed. Without
--data the model has no threshold, and every image is anomalous.
Exit codes: 0 done, 1 failed, 2 wrong usage.

`

func runImport(ctx context.Context, args []string, t *command.Terminal) (int, error) {
	flags := pflag.NewFlagSet("import", pflag.ContinueOnError)
	opt := rdpp.ImportOptions{Log: slog.New(command.LogTo(t.Stderr, "infer"))}
	config := rdpp.DefaultConfig()
	flags.StringVar(&opt.Checkpoint, "checkpoint", "", "released `FILE`; required")
	out := flags.String("out", "", "model `FILE` to write; required")
	flags.StringVar(&opt.Teacher, "teacher", rdpp.TeacherImageNet, "`FILE`, builtin, drawn, auto, imagenet")
	flags.StringVar(&opt.Arch, "arch", "", "backbone `NAME` (default: as recognised)")
	flags.IntVar(&opt.ImageSize, "image-size", config.ImageSize, "`N` x N pixels for the network")
	flags.StringVar(&opt.Category, "category", "", "`NAME` of the parts, for the model file")
	data := flags.String("data", "", "`DIR` of good images, for the threshold")
	flags.BoolVar(&opt.Unseen, "unseen", false, "they were not trained on: calibrate by them")
	flags.Float64Var(&opt.FalseAlarm, "false-alarm", config.FalseAlarm, "then: `SHARE` of good images above it")
	device := flags.String("device", "auto", "`NAME`: auto, cpu or cuda[:N]")
	threads := flags.Int("threads", allowance.CPUs(), "`N` CPU threads")
	flags.Int64Var(&opt.MaxPixels, "max-pixels", imagefile.DefaultMaxPixels, "largest image accepted, `N` pixels")
	switch err := t.Parse(flags, args, command.Help{Text: importHelp}); {
	case err != nil:
		return 0, err
	case flags.NArg() > 0:
		return 0, command.Usagef("%q is one argument too many; name the checkpoint with --checkpoint", flags.Arg(0))
	case opt.Checkpoint == "" || *out == "":
		return 0, command.Usagef("--checkpoint and --out are needed")
	case opt.Unseen && *data == "":
		return 0, command.Usagef("--unseen says something of --data, which is missing")
	case opt.MaxPixels < 1:
		return 0, command.Usagef("--max-pixels %d; use 1 or more", opt.MaxPixels)
	case *threads < 1 || *threads > 1024:
		return 0, command.Usagef("--threads %d; use 1 to 1024", *threads)
	}
	var err error
	if opt.Device, err = torch.ParseDevice(*device); errors.Is(err, torch.ErrNoDevice) {
		return 0, err
	} else if err != nil {
		return 0, command.Usagef("--device: %w", err)
	}
	if err := torch.SetThreads(*threads); err != nil {
		return 0, err
	}
	if err := checkModelFile(*out, opt.Checkpoint, opt.Teacher); err != nil {
		return 0, err
	}
	if *data != "" {
		set, err := dataset.Open(*data, &dataset.OpenOptions{Holdout: -1})
		if err != nil {
			return 0, err
		}
		opt.Good = set.Train
	}
	opt.OnDownload = downloadProgress(t)
	model, err := rdpp.Import(ctx, opt)
	if err != nil {
		return 0, err
	}
	defer model.Close()
	if err := model.Save(*out); err != nil {
		return 0, fmt.Errorf("%w; choose another file with --out", err)
	}
	return command.Done, printImported(t, model, *out)
}

// checkModelFile refuses to write the model over a file that it is made of, or into a folder that is not there.
func checkModelFile(out string, sources ...string) error {
	there, err := os.Stat(out)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(out)); err != nil {
			return fmt.Errorf("%w; make the folder, or choose another file with --out", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w; choose another file with --out", err)
	}
	if !there.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file; choose another with --out", out)
	}
	for _, source := range sources {
		if info, err := os.Stat(source); err == nil && os.SameFile(info, there) {
			return fmt.Errorf("%s would be overwritten; choose another file with --out", source)
		}
	}
	return nil
}

// downloadEvery is between two lines about a download.
const downloadEvery = 2 * time.Second

// downloadProgress returns a function that says how far a download is, a line every so often.
func downloadProgress(t *command.Terminal) func(file string, done, total int64) {
	var shown time.Time
	return func(file string, done, total int64) {
		if done != total && time.Since(shown) < downloadEvery {
			return
		}
		shown = time.Now()
		text := fmt.Sprintf("infer: downloading %s: %d", file, done>>20)
		if total >= 0 {
			text += fmt.Sprintf(" of %d", total>>20)
		}
		command.Say(t.Stderr, "%s MiB", text)
	}
}

func printImported(t *command.Terminal, m *rdpp.Model, out string) error {
	info, c := &m.Info, &m.Info.Calibration
	threshold := fmt.Sprintf("%.6f", c.Threshold)
	if c.Provisional {
		threshold += ", provisional"
	}
	_, err := fmt.Fprintf(t.Stdout, "model        %s\nmethod       %s, %s, %d x %d pixels\nteacher      %s\nthreshold    %s: %s\n", printable.Text(out),
		info.Config.Method, info.Config.Arch, info.Config.ImageSize, info.Config.ImageSize, printable.Text(info.Teacher.String()), threshold, printable.Text(c.Rule))
	return err
}
