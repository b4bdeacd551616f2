package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/history"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/printable"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

const calibrateHelp = `Usage: infer calibrate --model FILE --data DIR|--history FILE --out FILE [flags]

Makes a model file with other thresholds and p-values, by images of good parts
that it was not trained on; scores stay. --history takes the images that were
judged good, less those corrected to anomalous, and those corrected to good,
with the masks that they were judged with: it wants every image that was called
anomalous to be looked at by an operator.
Exit codes: 0 done, 1 failed, 2 wrong usage.

`

func runCalibrate(ctx context.Context, args []string, t *command.Terminal) (int, error) {
	flags := pflag.NewFlagSet("calibrate", pflag.ContinueOnError)
	m := modelFlags{precision: string(torch.FP32)}
	var opt rdpp.RecalibrateOptions
	flags.StringVar(&m.file, "model", "", "model `FILE` that train wrote; required")
	data := flags.String("data", "", "`DIR` of good images")
	past := flags.String("history", "", "or `FILE` that infer watch or image wrote")
	since := flags.String("since", "", "of that, what was judged from `TIME` on")
	out := flags.String("out", "", "model `FILE` to write; required")
	ignore := flags.String("ignore", "", "`FILE` of a mask of what is not scored, or DIR of such")
	flags.BoolVar(&opt.Add, "add", false, "keep the scores that the model holds, too")
	m.registerThresholds(flags)
	flags.StringVar(&m.device, "device", "auto", "`NAME`: auto, cpu or cuda[:N]")
	flags.IntVar(&m.threads, "threads", allowance.CPUs(), "`N` CPU threads")
	flags.Int64Var(&m.maxPixels, "max-pixels", imagefile.DefaultMaxPixels, "largest image accepted, `N` pixels")
	switch err := t.Parse(flags, args, command.Help{Text: calibrateHelp}); {
	case err != nil:
		return 0, err
	case flags.NArg() > 0:
		return 0, command.Usagef("%q is one argument too many; name the images with --data", flags.Arg(0))
	case *out == "":
		return 0, command.Usagef("--out is missing; name the model file to write")
	case (*data == "") == (*past == ""):
		return 0, command.Usagef("give --data or --history, one of them")
	case *since != "" && *past == "":
		return 0, command.Usagef("--since is for --history")
	}
	detector, err := m.options()
	if err != nil {
		return 0, err
	}
	opt.Model, opt.Device, opt.MaxPixels, opt.FalseAlarm, opt.Threshold = m.file, detector.Device, m.maxPixels, m.falseAlarm, m.threshold
	if err := checkModelFile(*out, m.file); err != nil {
		return 0, err
	}
	masks, err := readIgnored(*ignore, m.maxPixels)
	if err != nil {
		return 0, err
	}
	if *data != "" {
		set, err := command.Await(ctx, func() (*dataset.Set, error) { return dataset.Open(*data, &dataset.OpenOptions{Holdout: -1}) })
		if err != nil {
			return 0, err
		}
		opt.Good, opt.Origin = set.Train, set.Category
	} else {
		category, err := categoryOf(m.file)
		if err != nil {
			return 0, err
		}
		dir, err := os.MkdirTemp("", "infer-calibrate-") // for the masks, which are read as files
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		if opt.Good, err = goodOf(ctx, *past, *since, category, dir, t); err != nil {
			return 0, err
		}
		opt.Origin = filepath.Base(*past)
	}
	if err := masks.give(opt.Good); err != nil {
		return 0, err
	}
	r, err := rdpp.Recalibrate(ctx, opt)
	if errors.Is(err, metric.ErrTooFew) {
		return 0, fmt.Errorf("%s of good parts cannot set a threshold for this rate of false alarms; give more: 99 make 1 %% exact",
			printable.Count(len(opt.Good), "image"))
	}
	if err != nil {
		return 0, err
	}
	defer r.Model.Close()
	if r.Unlike > 0 {
		t.Complain(fmt.Errorf("%d of %d images are unlike those of training; infer image says how", r.Unlike, len(opt.Good)))
	}
	if err := r.Model.Save(*out); err != nil {
		return 0, fmt.Errorf("%w; choose another file with --out", err)
	}
	c := &r.Model.Info.Calibration
	if n := len(c.Scores); n < fewScores && opt.Threshold == nil && !c.Exact {
		t.Complain(fmt.Errorf("a threshold by %s may lie far above them, so that no part is called anomalous; give %d or more, or a --threshold",
			printable.Count(n, "image"), fewScores))
	}
	_, err = fmt.Fprintf(t.Stdout, "model         %s\nimages        %d, %d of them above the threshold so far\nthreshold     %.6f, before %.6f\nwhere from    %s\n",
		printable.Text(*out), len(opt.Good), r.Above, c.Threshold, r.Before.Threshold, printable.Text(c.Rule))
	return command.Done, err
}

// fewScores is how many scores a threshold is to rest on: so many images training holds out at least.
const fewScores = 10

// goodOf finds the images of good parts in a history, with the masks that they were judged with, whose files it writes to dir, and
// says which it leaves out. Those of models of another category are.
func goodOf(ctx context.Context, path, since, category, dir string, t *command.Terminal) (items []dataset.Item, err error) {
	f := history.Filter{}
	if since != "" {
		if f.Since, err = history.ParseTime(since); err != nil {
			return nil, command.Usagef("--since: %w", err)
		}
	}
	h, err := history.Open(path, &history.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	// An image that was judged more than once has the operator's latest word, and without one the latest verdict.
	corrections := map[string]*history.Record{}
	for r, err := range h.List(ctx, history.Filter{Corrected: true}) {
		if err != nil {
			return nil, err
		}
		if before := corrections[r.SHA256]; r.Model == category && (before == nil || !r.Corrected.Before(before.Corrected)) {
			corrections[r.SHA256] = r
		}
	}
	type image struct {
		sha256  string
		verdict history.Verdict
		mask    string // SHA-256 of its own, of the latest verdict; "": none
		files   []string
	}
	var images []*image
	known := map[string]*image{}
	others, unreviewed, lost := 0, 0, 0
	for r, err := range h.List(ctx, f) {
		switch {
		case err != nil:
			return nil, err
		case r.Model != category:
			others++
			continue
		case r.Verdict == history.Broken:
			continue
		case r.SHA256 == "": // its file cannot be told from another
			lost++
			continue
		}
		i := known[r.SHA256]
		if i == nil {
			i = &image{sha256: r.SHA256}
			images, known[r.SHA256] = append(images, i), i
		}
		i.verdict, i.mask = r.Verdict, r.MaskSHA256
		if file := cmp.Or(r.Moved, r.Image); !slices.Contains(i.files, file) {
			i.files = append(i.files, file)
		}
	}
	for _, i := range images {
		corrected := corrections[i.sha256]
		switch {
		case corrected == nil && i.verdict == history.Anomalous:
			unreviewed++
			continue
		case corrected != nil && corrected.Correction == history.Anomalous:
			continue
		}
		at := slices.IndexFunc(i.files, func(file string) bool {
			sum, err := weights.SHA256(file)
			return err == nil && sum == i.sha256
		})
		if at < 0 {
			lost++
			continue
		}
		item := dataset.Item{Path: i.files[at], Type: dataset.GoodType}
		if i.mask != "" {
			if item.Ignore, err = writeMask(ctx, h, i.mask, dir); err != nil {
				return nil, fmt.Errorf("%s was judged with a mask: %w", item.Path, err)
			}
		}
		items = append(items, item)
	}
	if others > 0 {
		t.Complain(fmt.Errorf("%s left out, of models of other categories than %q", printable.Count(others, "verdict"), category))
	}
	if unreviewed > 0 {
		t.Complain(fmt.Errorf("left out: %s called anomalous, without a correction: those that are good are missing, which makes the threshold "+
			"too low; infer history --correct says what they are", printable.Count(unreviewed, "image")))
	}
	if lost > 0 {
		t.Complain(fmt.Errorf("left out: %s whose file is gone or changed", printable.Count(lost, "image")))
	}
	if len(items) == 0 {
		return nil, fmt.Errorf("%s: no good image in it whose file is there", path)
	}
	return items, nil
}

// writeMask writes a mask of a history to a file in dir.
func writeMask(ctx context.Context, h *history.DB, sum, dir string) (path string, err error) {
	path = filepath.Join(dir, sum+".png")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	png, err := h.Mask(ctx, sum)
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, png, 0o666)
}

// categoryOf is the category of a model file.
func categoryOf(path string) (string, error) {
	file, err := weights.Open(path)
	if err != nil {
		return "", fmt.Errorf("%w; name a model file with --model", err)
	}
	defer file.Close()
	info, _, err := modelfile.ReadInfo(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return info.Category, nil
}
