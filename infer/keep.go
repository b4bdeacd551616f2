package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/history"
)

// keeper keeps what infer image says of images: in a table, in a history, or in neither.
type keeper struct {
	tableFile, historyFile string
	out                    outlets

	detector *rdpp.Detector
	file     *os.File
	table    *csv.Writer
	history  *history.DB
}

// register adds the flags and returns those that few need.
func (k *keeper) register(flags *pflag.FlagSet) (rare []string) {
	flags.StringVar(&k.tableFile, "csv", "", "write a table, a row per image, to `FILE`")
	flags.StringVar(&k.historyFile, "history", "", "add to the history `FILE`, see infer history")
	return append(k.out.register(flags), "mqtt", "topic", "webhook")
}

// check says what is wrong with the flags.
func (k *keeper) check() error {
	if err := k.out.check(); err != nil {
		return err
	}
	return k.out.checkHistory(k.historyFile)
}

// wanted says whether anything is kept.
func (k *keeper) wanted() bool { return k.tableFile != "" || k.historyFile != "" }

// ofImage is what the records of infer image name as theirs.
const ofImage = "image"

// open opens the files.
func (k *keeper) open(ctx context.Context, d *rdpp.Detector, log func(text string)) (err error) {
	k.detector = d
	if k.historyFile != "" {
		if k.history, err = openHistory(k.historyFile, nil); err != nil {
			return err
		}
		if err := k.out.start(ctx, k.history, ofImage, log); err != nil {
			return err
		}
	}
	if k.tableFile == "" {
		return nil
	}
	if k.file, err = os.Create(k.tableFile); err != nil {
		return fmt.Errorf("%w; choose another file with --csv", err)
	}
	k.table = csv.NewWriter(k.file)
	return k.row(history.TableHeader)
}

// openHistory opens a history to write to. added is told of what is written.
func openHistory(path string, added func(*history.Record)) (*history.DB, error) {
	h, err := history.Open(path, &history.Options{Added: added})
	if err != nil {
		return nil, fmt.Errorf("%w; choose another file with --history", err)
	}
	return h, nil
}

// row writes a row at once: who is interrupted has all before.
func (k *keeper) row(fields []string) error {
	if err := k.table.Write(fields); err != nil {
		return err
	}
	k.table.Flush()
	return k.table.Error()
}

// keep adds a verdict.
func (k *keeper) keep(ctx context.Context, v verdict) error {
	if !k.wanted() {
		return nil
	}
	r := recordOf(k.detector, v.source.path, v.prediction, v.err)
	r.Source, r.SHA256, r.Mask = ofImage, v.sha256, v.mask
	if v.prediction != nil {
		r.Brightness, r.Sharpness = &v.look.Brightness, &v.look.Sharpness
	}
	if v.err == nil {
		r.Heatmap = v.source.heatmap
	}
	if k.history != nil {
		kept := r // is read from elsewhere, so its names are absolute
		if r.Image != "-" {
			kept.Image = absolute(r.Image)
		}
		if r.Heatmap != "" {
			kept.Heatmap = absolute(r.Heatmap)
		}
		if err := k.history.Add(ctx, &kept); err != nil {
			return err
		}
		r.ID = kept.ID
	}
	if k.table != nil {
		return k.row(r.Row())
	}
	return nil
}

// close sends what is left within a time and closes the files.
func (k *keeper) close(within time.Duration, log func(text string)) (err error) {
	err = k.out.close(within, log)
	if k.file != nil {
		err = errors.Join(err, k.file.Close())
	}
	if k.history != nil {
		err = errors.Join(err, k.history.Close())
	}
	return err
}

// recordOf is the record of an image that a detector judged, or could not.
func recordOf(d *rdpp.Detector, image string, p *rdpp.Prediction, failed error) (r history.Record) {
	if p != nil {
		r = history.Of(p)
	} else {
		r = history.Record{Verdict: history.Broken, Error: fmt.Sprint(failed)}
	}
	r.Image, r.Time, r.Model, r.ModelSHA256 = image, time.Now(), d.Info().Category, d.Digest()
	return r
}

// lines are what people see of many images beside a line for each: on a terminal what its columns are, and at the end how many
// there were.
type lines struct {
	w        io.Writer
	terminal bool

	began                     time.Time
	images, anomalous, failed int
}

// onTerminal says whether people read what is written.
func onTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

func (l *lines) begin() error {
	l.began = time.Now()
	if !l.terminal {
		return nil
	}
	_, err := fmt.Fprintf(l.w, "%-9s  %9s  %9s  %6s  %3s  %s\n", "verdict", "score", "threshold", "p", "n", "image (n: regions)")
	return err
}

func (l *lines) count(p *rdpp.Prediction) {
	l.images++
	switch {
	case p == nil:
		l.failed++
	case p.Anomalous:
		l.anomalous++
	}
}

func (l *lines) end() error {
	if !l.terminal {
		return nil
	}
	return command.Say(l.w, "%s", summary(l.images, l.anomalous, l.failed, time.Since(l.began).Seconds()))
}

// summary is the line about many images.
func summary(images, anomalous, failed int, seconds float64) string {
	text := fmt.Sprintf("%d images, %d anomalous", images, anomalous)
	if images == 1 {
		text = fmt.Sprintf("1 image, %d anomalous", anomalous)
	}
	if failed > 0 {
		text += fmt.Sprintf(", %d not judged", failed)
	}
	if images > 1 && seconds > 0 {
		text += fmt.Sprintf(", %.3g images/s", float64(images)/seconds)
	}
	return text
}
