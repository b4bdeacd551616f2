package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rdpp/rdpp/command"
	"rdpp/rdpp/history"
	"rdpp/rdpp/printable"
)

const historyHelp = `Usage: infer history FILE [flags]

Lists what infer image, watch and serve have said of images with --history FILE:
number, time, verdict, score, threshold, the operator's correction, name.
--correct ID=good or ID=anomalous corrects a verdict, ID=none takes that back; a
name, or its end, stands for its latest record. infer calibrate reads these.

`

// listed is what --json prints of a record.
type listed struct {
	ID          int64           `json:"id"`
	Time        time.Time       `json:"time"`
	Source      string          `json:"source"`
	SHA256      string          `json:"sha256,omitempty"`
	Model       string          `json:"model"`
	ModelSHA256 string          `json:"model_sha256,omitempty"`
	MaskSHA256  string          `json:"mask_sha256,omitempty"`
	Verdict     history.Verdict `json:"verdict"`
	record
	Moved      string          `json:"moved,omitempty"`
	Error      string          `json:"error,omitempty"`
	Correction history.Verdict `json:"correction,omitempty"`
	Note       string          `json:"note,omitempty"`
}

func runHistory(ctx context.Context, args []string, t *command.Terminal) (code int, err error) {
	flags := pflag.NewFlagSet("history", pflag.ContinueOnError)
	var f history.Filter
	moment := func(to *time.Time) func(string) error {
		return func(text string) (err error) {
			*to, err = history.ParseTime(text)
			return err
		}
	}
	verdict := func(to *history.Verdict, words ...history.Verdict) func(string) error {
		return func(text string) error {
			for _, word := range words {
				if text == string(word) {
					*to = word
					return nil
				}
			}
			return fmt.Errorf("use one of %s", strings.Trim(fmt.Sprint(words), "[]"))
		}
	}
	flags.Func("since", "from `TIME` on, such as 2026-03-31 or \"2026-03-31 14:00\"", moment(&f.Since))
	flags.Func("until", "before `TIME`", moment(&f.Until))
	flags.Func("verdict", "`NAME`: good, anomalous or broken", verdict(&f.Verdict, history.Good, history.Anomalous, history.Broken))
	flags.Func("corrected", "with a correction `NAME`: good, anomalous or any", func(text string) error {
		if text == "any" {
			f.Corrected = true
			return nil
		}
		return verdict(&f.Correction, history.Good, history.Anomalous)(text)
	})
	flags.StringVar(&f.Image, "image", "", "of the image `NAME`, or the end of its path")
	flags.StringVar(&f.Model, "category", "", "by a model of the category `NAME`")
	flags.IntVar(&f.Last, "last", 0, "the latest `N` alone")
	table := flags.String("csv", "", "write CSV to `FILE`; - is standard output")
	asJSON := flags.Bool("json", false, "print one JSON object per record and line")
	corrections := flags.StringArray("correct", nil, "set the correction `ID=NAME`; repeatable")
	note := flags.String("note", "", "`TEXT` for --correct")
	days := flags.Int("keep-days", 0, "keep records for `N` days, 0: for ever")
	size := flags.Int64("keep-mib", 0, "keep `N` MiB of them; both hold for all who write")
	if err := t.Parse(flags, args, command.Help{Text: historyHelp}); err != nil {
		return 0, err
	}
	switch {
	case flags.NArg() == 0:
		return 0, command.Usagef("no history named; give the file that --history of the other commands named")
	case flags.NArg() > 1:
		return 0, command.Usagef("%q is one argument too many; give one history", flags.Arg(1))
	case f.Last < 0:
		return 0, command.Usagef("--last %d; use 1 or more", f.Last)
	case *days < 0 || *days > 100*366:
		return 0, command.Usagef("--keep-days %d; use 1 or more, or 0 for ever", *days)
	case flags.Changed("keep-mib") && (*size < history.LeastBytes>>20 || *size > 1<<30):
		return 0, command.Usagef("--keep-mib %d; use %d to %d", *size, history.LeastBytes>>20, 1<<30)
	case *note != "" && len(*corrections) == 0:
		return 0, command.Usagef("--note is for --correct")
	}
	bounded := flags.Changed("keep-days") || flags.Changed("keep-mib")
	changes := bounded || len(*corrections) > 0
	if _, err := os.Stat(flags.Arg(0)); errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w; infer image, watch and serve write one with --history", err)
	}
	h, err := history.Open(flags.Arg(0), &history.Options{ReadOnly: !changes})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	if bounded {
		r, err := h.Retention(ctx)
		if err != nil {
			return 0, err
		}
		if flags.Changed("keep-days") {
			r.Age = time.Duration(*days) * 24 * time.Hour
		}
		if flags.Changed("keep-mib") {
			r.Bytes = *size << 20
		}
		if err := h.SetRetention(ctx, r); err != nil {
			return 0, err
		}
	}
	for _, c := range *corrections {
		if err := correct(ctx, h, c, *note); err != nil {
			return 0, err
		}
	}
	switch {
	case changes:
		return command.Done, nil
	case *table == "-":
		return command.Done, history.WriteTable(t.Stdout, h.List(ctx, f))
	case *table != "":
		return command.Done, writeFile(*table, "--csv", func(w io.Writer) error { return history.WriteTable(w, h.List(ctx, f)) })
	}
	return command.Done, printRecords(t.Stdout, h, ctx, f, *asJSON)
}

// correct carries out a correction, which is ID=good and the like, or NAME=good.
func correct(ctx context.Context, h *history.DB, text, note string) error {
	at := strings.LastIndexByte(text, '=')
	if at < 1 {
		return command.Usagef("--correct %q; use ID=good, ID=anomalous or ID=none", text)
	}
	which, verdict := text[:at], history.Verdict(text[at+1:])
	switch verdict {
	case history.Good, history.Anomalous:
	case "none":
		verdict = ""
	default:
		return command.Usagef("--correct %q; use good, anomalous or none", text)
	}
	f := history.Filter{Image: which, Last: 1}
	if id, err := strconv.ParseInt(which, 10, 64); err == nil {
		f = history.Filter{ID: id}
	}
	for r, err := range h.List(ctx, f) {
		if err != nil {
			return err
		}
		return h.Correct(ctx, r.ID, verdict, note)
	}
	return fmt.Errorf("%q: %w; list them without --correct", which, history.ErrNone)
}

// printRecords writes a line or an object per record.
func printRecords(w io.Writer, h *history.DB, ctx context.Context, f history.Filter, asJSON bool) error {
	objects := json.NewEncoder(w)
	objects.SetEscapeHTML(false)
	for r, err := range h.List(ctx, f) {
		switch {
		case err != nil:
		case asJSON:
			err = objects.Encode(listed{r.ID, r.Time, r.Source, r.SHA256, r.Model, r.ModelSHA256, r.MaskSHA256, r.Verdict,
				record{r.Prediction(), r.Heatmap, printable.Base64(r.Heatmap)}, r.Moved, r.Error, r.Correction, r.Note})
		default:
			name := r.Image
			if r.Moved != "" {
				name = r.Moved
			}
			correction := "-"
			if r.Correction != "" {
				correction = string(r.Correction)
			}
			score, threshold := "-", "-"
			if r.Verdict != history.Broken {
				score, threshold = fmt.Sprintf("%.6f", r.Score), fmt.Sprintf("%.6f", r.Threshold)
			}
			_, err = fmt.Fprintf(w, "%7d  %s  %-9s  %9s  %9s  %-9s  %s\n", r.ID, r.Time.Format(time.DateTime), r.Verdict, score, threshold, correction,
				printable.Text(name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
