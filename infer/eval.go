package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/weights"
)

const evalHelp = `Usage: infer eval --model FILE --data DIR [flags]

Scores the test images of one category and prints how well scores and anomaly
maps tell good from defective. DIR holds test/good and test/DEFECT with masks in
ground_truth/DEFECT (MVTec's layout), or a folder "good" beside one per defect.
Metrics are shares of 1; those that the data cannot give (without masks there is
no pixel AUROC) are left out. Exit codes: 0 done, 1 failed, 2 wrong usage.
`

// evaluation is what --json prints.
type evaluation struct {
	Category string           `json:"category"` // the data folder's name
	Teacher  rdpp.TeacherInfo `json:"teacher"`  // of the model
	rdpp.Metrics
	Threshold      float64 `json:"threshold"`
	Provisional    bool    `json:"provisional"`     // the threshold is a stand-in, no error rate is promised
	GoodFlagged    int     `json:"good_flagged"`    // good images above the threshold
	DefectiveFound int     `json:"defective_found"` // defective ones above it
	Skipped        int     `json:"skipped"`         // unreadable files, left out
}

func runEval(ctx context.Context, args []string, t *terminal) (int, error) {
	flags := pflag.NewFlagSet("eval", pflag.ContinueOnError)
	var m modelFlags
	m.register(flags)
	dir := flags.String("data", "", "data set `DIR`, one category; required")
	skipBad := flags.Bool("skip-bad", false, "leave out files that cannot be read and name them")
	scoresFile := flags.String("scores", "", "write path,type,defective,score as CSV to `FILE`")
	asJSON := flags.Bool("json", false, "print one JSON object instead of the table")
	switch err := t.parse(flags, args, evalHelp); {
	case err != nil:
		return 0, err
	case flags.NArg() > 0:
		return 0, usagef("%q is one argument too many; name the data set with --data", flags.Arg(0))
	case *dir == "":
		return 0, usagef("--data is missing; name the folder of one category")
	}
	d, err := m.open()
	if err != nil {
		return 0, err
	}
	defer d.Close()
	set, err := openTests(ctx, *dir, *skipBad, d.Info().Config.ImageSize, m.maxPixels)
	if err != nil {
		return 0, err
	}
	for _, s := range set.Skipped {
		t.complain(fmt.Errorf("left out: %s", s.Reason))
	}
	if *scoresFile != "" {
		if err := checkScoresFile(*scoresFile); err != nil {
			return 0, fmt.Errorf("%w; choose another file with --scores", err)
		}
	}
	metrics, scores, err := d.Evaluate(ctx, set)
	if err != nil {
		return 0, err
	}
	e := evaluation{Category: set.Category, Teacher: d.Info().Teacher, Metrics: *metrics, Threshold: d.Threshold(), Provisional: d.Calibration().Provisional,
		Skipped: len(set.Skipped)}
	for _, s := range scores {
		switch {
		case s.Score <= e.Threshold:
		case s.Defective:
			e.DefectiveFound++
		default:
			e.GoodFlagged++
		}
	}
	if *asJSON {
		err = json.NewEncoder(t.stdout).Encode(e)
	} else {
		err = e.print(t.stdout)
	}
	if *scoresFile != "" {
		err = errors.Join(err, writeScores(*scoresFile, scores))
	}
	return exitDone, err
}

// openTests finds the test images of a data set, and with skipBad leaves out those that cannot be read.
func openTests(ctx context.Context, dir string, skipBad bool, S int, maxPixels int64) (*dataset.Set, error) {
	set, err := dataset.Open(dir, &dataset.OpenOptions{SkipBad: skipBad})
	if err != nil {
		return nil, err
	}
	if skipBad {
		cache := dataset.NewCache(dataset.CacheOptions{Size: S, MaxBytes: -1, MaxPixels: maxPixels})
		good, skipped, err := dataset.Check(ctx, set.Test, cache, 0, true)
		if err != nil {
			return nil, err
		}
		set.Test, set.Skipped = good, append(set.Skipped, skipped...)
		set.HasMasks = slices.ContainsFunc(good, func(item dataset.Item) bool { return item.Mask != "" })
	}
	if len(set.Test) == 0 {
		return nil, fmt.Errorf("%s: no test images; put some into test/good and test/DEFECT", dir)
	}
	return set, nil
}

// replaceable says whether a new file can take the place of what is at path. A device, a pipe or a link, such as
// /dev/stdout, has to stay: it is written into.
func replaceable(path string) bool {
	info, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular()
}

// checkScoresFile fails where writeScores would, and changes nothing: hours of scoring must not end at a wrong path.
func checkScoresFile(path string) error {
	if !replaceable(path) {
		info, err := os.Stat(path)
		if err == nil && info.IsDir() {
			err = fmt.Errorf("%s: is a folder", path)
		}
		return err
	}
	probe, err := os.CreateTemp(filepath.Dir(path), ".rdpp-*.tmp")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// writeScores puts the table at path. A regular file there is kept until the whole table can replace it.
func writeScores(path string, scores []rdpp.ItemScore) error {
	rows := [][]string{{"path", "type", "defective", "score"}}
	for _, s := range scores {
		rows = append(rows, []string{s.Path, s.Type, strconv.FormatBool(s.Defective),
			strconv.FormatFloat(s.Score, 'g', -1, 64)})
	}
	write := func(w io.Writer) error { return csv.NewWriter(w).WriteAll(rows) }
	var err error
	if replaceable(path) {
		err = weights.WriteFileAtomic(path, write)
	} else {
		var f *os.File
		if f, err = os.Create(path); err == nil {
			err = errors.Join(write(f), f.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("%w; choose another file with --scores", err)
	}
	return nil
}

// print writes the table for people.
func (e *evaluation) print(w io.Writer) error {
	text := fmt.Appendf(nil, "category         %s\nteacher          %s\nimages           %d good, %d defective", e.Category,
		e.Teacher.Origin, e.Good, e.Defective)
	if e.Skipped > 0 {
		text = fmt.Appendf(text, ", %d left out", e.Skipped)
	}
	text = append(text, '\n')
	for _, row := range []struct {
		name  string
		value *float64
	}{{"image AUROC", e.ImageAUROC}, {"pixel AUROC", e.PixelAUROC}, {"AUPRO, FPR<=0.3", e.AUPRO}} {
		if row.value != nil {
			text = fmt.Appendf(text, "%-15s  %.4f\n", row.name, *row.value)
		}
	}
	text = fmt.Appendf(text, "threshold        %.6f", e.Threshold)
	if e.Provisional {
		text = append(text, " (provisional)"...)
	}
	text = fmt.Appendf(text, "\ngood flagged     %d of %d\ndefective found  %d of %d\n", e.GoodFlagged, e.Good,
		e.DefectiveFound, e.Defective)
	_, err := w.Write(text)
	return err
}
