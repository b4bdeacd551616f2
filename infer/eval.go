package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/printable"
)

const evalHelp = `Usage: infer eval --model FILE --data DIR [flags]

Scores the test images of one category and prints how well scores and maps tell
good from defective, in shares of 1. Exit codes: 0 done, 1 failed, 2 wrong use.

`

// evaluation is what --json prints.
type evaluation struct {
	Category string           `json:"category"`                  // the data folder's name
	Base64   string           `json:"category_base64,omitempty"` // its bytes, where it is not UTF-8, which JSON cannot hold
	Data     string           `json:"data"`                      // what was recognised of it, and by what
	Taken    dataset.Taken    `json:"taken"`                     // what of it was taken for what
	Teacher  rdpp.TeacherInfo `json:"teacher"`                   // of the model
	rdpp.Metrics
	rdpp.Verdicts         // by the threshold
	FalseAlarm    float64 `json:"false_alarm,omitempty"` // share of good images that it is to flag at most; 0: none is promised
	Provisional   bool    `json:"provisional"`           // the threshold is a stand-in, no rate of false alarms is promised
	Skipped       int     `json:"skipped"`               // unreadable files, left out
	Warning       string  `json:"warning,omitempty"`     // of images that are unlike those of training
}

func runEval(ctx context.Context, args []string, t *command.Terminal) (int, error) {
	flags := pflag.NewFlagSet("eval", pflag.ContinueOnError)
	var m modelFlags
	m.register(flags)
	m.registerBatch(flags)
	rare := m.registerRegions(flags)
	var source dataset.Source
	var open dataset.OpenOptions
	flags.StringVar(&source.Data, "data", "", "data set `DIR`, one category")
	flags.StringArrayVar(&source.Good, "good", nil, "or `DIR` as train had it, of any name; repeatable")
	flags.StringArrayVar(&source.Bad, "bad", nil, "and `DIR` of defective images; repeatable")
	flags.StringArrayVar(&source.TestGood, "test-good", nil, "`DIR` of good images to test on; else some of --good")
	flags.StringArrayVar(&source.Masks, "masks", nil, "`DIR` of the masks of --bad")
	flags.StringVar(&source.List, "list", "", "or `FILE`, CSV or JSON lines: path,split,label,mask")
	flags.StringVar(&open.Ignore, "ignore", "", "`FILE` of a mask of what is not scored, or DIR of such")
	flags.BoolVar(&open.Recursive, "recursive", false, "take images in sub-folders, too")
	flags.BoolVar(&open.SkipBad, "skip-bad", false, "leave out files that cannot be read and name them")
	scoresFile := flags.String("scores", "", "write a row per image, with its verdict, to `FILE`")
	reportFile := flags.String("report", "", "write the HTML report to `FILE`")
	flags.StringVar(&open.Layout, "layout", "auto", "`NAME` of --data's layout")
	asJSON := flags.Bool("json", false, "print one JSON object instead of the table")
	open.TestOnly = true
	switch err := t.Parse(flags, args, command.Help{Text: evalHelp, Rare: append(rare, "precision", "test-good", "masks", "recursive", "layout", "ignore")}); {
	case err != nil:
		return 0, err
	case flags.NArg() > 0:
		return 0, command.Usagef("%q is one argument too many; name the data set with --data", flags.Arg(0))
	}
	if err := source.Check(open.TestOnly); err != nil {
		return 0, command.Usagef("%w", err)
	}
	d, err := m.open()
	if err != nil {
		return 0, err
	}
	defer d.Close()
	set, err := openTests(ctx, &source, &open, d.Cache(), m.maxPixels)
	if err != nil {
		return 0, err
	}
	for _, s := range set.Skipped {
		t.Complain(fmt.Errorf("left out: %s", s.Reason))
	}
	if *scoresFile != "" {
		if err := checkScoresFile(*scoresFile); err != nil {
			return 0, fmt.Errorf("%w; choose another file with --scores", err)
		}
	}
	if *reportFile != "" {
		if !replaceable(*reportFile) {
			return 0, fmt.Errorf("%s: is no regular file; choose another file with --report", *reportFile)
		}
		if err := checkScoresFile(*reportFile); err != nil {
			return 0, fmt.Errorf("%w; choose another file with --report", err)
		}
	}
	measured, err := d.Evaluate(ctx, set)
	if err != nil {
		return 0, err
	}
	c := d.Calibration()
	if own := d.Info().Category; own != "" && own != set.Category {
		t.Complain(fmt.Errorf("the model is of %s, the data of %s", own, set.Category))
	}
	e := evaluation{Category: set.Category, Base64: printable.Base64(set.Category), Data: set.Why, Taken: set.Taken(), Teacher: d.Info().Teacher, Metrics: measured.Metrics, Verdicts: measured.Verdicts(&c),
		FalseAlarm: c.FalseAlarm, Provisional: c.Provisional, Skipped: len(set.Skipped), Warning: measured.Warning()}
	if e.Warning != "" {
		t.Complain(errors.New(e.Warning))
	}
	if *asJSON {
		err = json.NewEncoder(t.Stdout).Encode(e)
	} else {
		err = e.print(t.Stdout, t.FlagOf)
	}
	if *scoresFile != "" {
		err = errors.Join(err, writeFile(*scoresFile, "--scores", func(w io.Writer) error { return measured.WriteVerdicts(w, &c) }))
	}
	if *reportFile != "" {
		err = errors.Join(err, d.WriteReport(ctx, *reportFile, set, measured, &rdpp.ReportOptions{Skipped: set.Skipped}))
	}
	return command.Done, err
}

// openTests finds the test images of a data set, holds their masks against them, and with SkipBad leaves out those that
// cannot be used.
func openTests(ctx context.Context, source *dataset.Source, open *dataset.OpenOptions, cache *dataset.Cache, maxPixels int64) (*dataset.Set, error) {
	set, err := command.Await(ctx, func() (*dataset.Set, error) { return source.Open(open) })
	if err != nil {
		return nil, err
	}
	if !open.SkipBad {
		if err := dataset.CheckMasks(ctx, set.Test, maxPixels); err != nil {
			return nil, fmt.Errorf("%w; --skip-bad leaves such files out", err)
		}
	}
	if open.SkipBad {
		good, skipped, err := dataset.Check(ctx, set.Test, cache, 0, true)
		if err != nil {
			return nil, err
		}
		set.Test, set.Skipped = good, append(set.Skipped, skipped...)
		set.HasMasks = slices.ContainsFunc(good, func(item dataset.Item) bool { return item.Mask != "" })
	}
	if len(set.Test) == 0 {
		return nil, fmt.Errorf("%s: no test images; put some into test/good and test/DEFECT", set.Dir)
	}
	return set, nil
}

// replaceable says whether a new file can take the place of what is at path. A device, a pipe or a link, such as
// /dev/stdout, has to stay: it is written into.
func replaceable(path string) bool {
	info, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular()
}

// checkScoresFile fails where writing a result would, and changes nothing: hours of scoring must not end at a wrong path.
func checkScoresFile(path string) error {
	if !replaceable(path) {
		info, err := os.Stat(path)
		if err == nil && info.IsDir() {
			err = fmt.Errorf("%s: is a folder", path)
		}
		return err
	}
	if err := atomicfile.Room(filepath.Dir(path), 0); err != nil {
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	return nil
}

// writeFile puts what write writes at path, which a flag has named. A regular file there is kept until the whole new one can
// replace it.
func writeFile(path, flag string, write func(io.Writer) error) (err error) {
	if replaceable(path) {
		err = atomicfile.Write(path, write)
	} else {
		var f *os.File
		if f, err = os.Create(path); err == nil {
			err = errors.Join(write(f), f.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("%w; choose another file with %s", err, flag)
	}
	return nil
}

// print writes the table for people.
func (e *evaluation) print(w io.Writer, flagOf func(setting string) string) error {
	text := fmt.Appendf(nil, "category         %s\ndata             %s | %s\nteacher          %s\nimages           %d good, %d defective", printable.Text(e.Category),
		printable.Text(e.Data), printable.Text(e.Taken.Text(flagOf)), printable.Text(e.Teacher.Origin), e.Good, e.Defective)
	if e.Skipped > 0 {
		text = fmt.Appendf(text, ", %d left out", e.Skipped)
	}
	text = append(text, '\n')
	for _, row := range []struct {
		name  string
		value *float64
	}{{"image AUROC", e.ImageAUROC}, {"image AP", e.ImageAP}, {"image F1-max", e.ImageF1}, {"pixel AUROC", e.PixelAUROC},
		{"pixel AP", e.PixelAP}, {"pixel F1-max", e.PixelF1}, {"AUPRO, FPR<=0.3", e.AUPRO}, {"AUPRO, FPR<=0.05", e.AUPROStrict},
		{"PRO as released", e.PROReleased}, {"outline IoU", e.OutlineIoU}, {"outline area", e.OutlineAreaRatio}, {"outline F1", e.OutlineF1}} {
		if row.value != nil {
			text = fmt.Appendf(text, "%-16s %.4f\n", row.name, *row.value)
		}
	}
	if e.LostMasks > 0 {
		text = fmt.Appendf(text, "masks lost       %d of %d, too small for the model's image size\n", e.LostMasks, e.Taken.Masks)
	}
	text = fmt.Appendf(text, "threshold        %.6f", e.Threshold)
	if e.Provisional {
		text = append(text, " (provisional)"...)
	}
	text = fmt.Appendf(text, "\nwhere it is from %s", printable.Text(e.ThresholdRule))
	text = fmt.Appendf(text, "\ngood flagged     %d of %d", e.GoodFlagged, e.Good)
	if i := e.FalseAlarms; i != nil {
		text = fmt.Appendf(text, " (95 %% interval of the share: %s", metric.IntervalText(i[0], i[1]))
		if e.FalseAlarm > 0 {
			text = fmt.Appendf(text, "; asked: %.3g %%", 100*e.FalseAlarm)
		}
		text = append(text, ')')
	}
	text = fmt.Appendf(text, "\ndefective found  %d of %d\n", e.DefectiveFound, e.Defective)
	_, err := w.Write(text)
	return err
}
