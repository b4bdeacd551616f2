package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rdpp/infer/watch"
	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/command"
	"rdpp/rdpp/history"
	"rdpp/rdpp/lookout"
	"rdpp/rdpp/printable"
)

const watchHelp = `Usage: infer watch DIR --model FILE [flags]

Judges each image that arrives in DIR, once, as soon as it is whole, until it is
ended by SIGTERM. Killed at any moment it goes on where it was. Lines are those
of infer image. Exit codes of --once: 0 none anomalous, 3 some anomalous, 1 some
failed; 2 wrong usage.

`

// watched is what --json prints of an image.
type watched struct {
	ID   int64     `json:"id"` // of its record
	Time time.Time `json:"time"`
	record
	Moved       string `json:"moved,omitempty"`        // where its file went
	MovedBase64 string `json:"moved_base64,omitempty"` // as image_base64
}

func runWatch(ctx context.Context, args []string, t *command.Terminal) (code int, err error) {
	flags := pflag.NewFlagSet("watch", pflag.ContinueOnError)
	var m modelFlags
	m.register(flags)
	m.registerBatch(flags)
	rare := m.registerRegions(flags)
	var opt watch.Options
	flags.StringVar(&opt.Table, "csv", "", "add a row per image to the table `FILE`")
	flags.StringVar(&opt.Heatmap, "heatmap", "", "write heat maps to `DIR`, by name and content")
	historyFile := flags.String("history", "", "record in `FILE`; default: one per DIR, as printed")
	flags.StringVar(&opt.MoveGood, "move-good", "", "move good images to `DIR`")
	flags.StringVar(&opt.MoveBad, "move-bad", "", "move anomalous images to `DIR`")
	flags.StringVar(&opt.MoveBroken, "move-broken", "", "move what is no image to `DIR`; default: broken\nbeside --move-bad or --move-good")
	flags.BoolVar(&opt.Recursive, "recursive", false, "take images in folders below, too")
	flags.BoolVar(&opt.Once, "once", false, "judge what is there and end, for cron")
	flags.DurationVar(&opt.Settle, "settle", time.Second, "on shares: whole when unchanged for `TIME`")
	flags.Float64Var(&opt.Drift, "drift", lookout.DefaultRate, "warn when scores or looks of good images change,\nby chance in `X` of 1,000 images; 0: never")
	flags.StringVar(&opt.Metrics, "metrics-file", "", "write Prometheus' metrics to `FILE`.prom")
	asJSON := flags.Bool("json", false, "one JSON object per image and line instead")
	quiet := flags.BoolP("quiet", "q", false, "print no line per image")
	var cam cameras
	rare = append(rare, cam.register(flags)...)
	var out outlets
	rare = append(append(rare, out.register(flags)...), out.registerPLC(flags)...)
	ignore := flags.String("ignore", "", "`FILE` of a mask of what is not scored; or DIR of\nmasks, named like the images")
	maxMemory := flags.Int64("max-memory", allowance.MemoryDefault(1<<30)>>20, "`N` MiB to read and decode images in")
	help := command.Help{Text: watchHelp, Rare: append(rare, "threshold", "pixel-threshold", "device", "precision", "threads", "batch", "max-pixels",
		"max-memory", "ignore", "settle", "move-broken", "drift", "metrics-file")}
	if err := t.Parse(flags, args, help); err != nil {
		return 0, err
	}
	switch {
	case flags.NArg() == 0 && cam.address == "":
		return 0, command.Usagef("no folder named; give the one to watch")
	case flags.NArg() > 1:
		return 0, command.Usagef("%q is one argument too many; give one folder", flags.Arg(1))
	case *maxMemory < 1 || *maxMemory > 1<<30:
		return 0, command.Usagef("--max-memory %d; use 1 to %d", *maxMemory, 1<<30)
	case !(opt.Drift >= 0 && opt.Drift <= 100):
		return 0, command.Usagef("--drift %v; use 0 to 100", opt.Drift)
	case opt.Metrics != "" && filepath.Ext(opt.Metrics) != ".prom":
		return 0, command.Usagef("--metrics-file %q; end its name in .prom, as node_exporter reads no others", opt.Metrics)
	case opt.Settle <= 0:
		return 0, command.Usagef("--settle %v; use more than 0", opt.Settle)
	}
	if err := cam.check(opt.Once); err != nil {
		return 0, err
	}
	cam.listen(t.Stdin)
	if opt.Dir = flags.Arg(0); opt.Dir == "" {
		if opt.Dir, err = cam.folder(); err != nil {
			return 0, err
		}
	}
	if beside := opt.MoveBad + opt.MoveGood; beside != "" && opt.MoveBroken == "" {
		if opt.MoveBad != "" {
			beside = opt.MoveBad
		}
		opt.MoveBroken = filepath.Join(filepath.Dir(absolute(beside)), "broken")
	}
	for _, dir := range []*string{&opt.MoveGood, &opt.MoveBad, &opt.MoveBroken, &opt.Heatmap} {
		if *dir != "" {
			*dir = absolute(*dir) // as a history is read from elsewhere
		}
	}
	if err := opt.Check(); err != nil {
		return 0, err
	}
	if err := out.check(); err != nil {
		return 0, err
	}
	if *historyFile == "" {
		if *historyFile, err = historyOf(opt.Dir); err != nil {
			return 0, err
		}
	}
	if _, err := os.Stat(opt.Dir); err != nil {
		return 0, fmt.Errorf("%w; make the folder that images arrive in, or name another", err)
	}
	masks, err := readIgnored(*ignore, m.maxPixels)
	if err != nil {
		return 0, err
	}
	defer limitMemory(*maxMemory << 20)()
	d, err := m.open()
	if err != nil {
		return 0, err
	}
	defer d.Close()
	if opt.Heatmap != "" {
		if err := os.MkdirAll(opt.Heatmap, 0o777); err != nil {
			return 0, fmt.Errorf("cannot make the folder for heatmaps: %w; choose another with --heatmap", err)
		}
	}
	own, err := watch.Source(opt.Dir)
	if err != nil {
		return 0, err
	}
	opt.History, err = history.Open(*historyFile, &history.Options{Removed: func(source, heatmap string) {
		if source == own {
			os.Remove(heatmap) // which may be gone
		}
	}, Added: out.board.Add})
	if err != nil {
		return 0, fmt.Errorf("%w; choose another file with --history", err)
	}
	defer func() { err = errors.Join(err, opt.History.Close()) }()
	log := logTo(t)
	defer func() {
		within := hasty
		if opt.Once && err == nil {
			within = patient
		}
		err = errors.Join(err, out.close(within, log))
	}()
	if err := out.start(ctx, opt.History, own, log); err != nil {
		return 0, err
	}
	if !*asJSON {
		sayThreshold(t, d)
	}
	opt.Reference = d.Reference()
	if opt.Drift > 0 && len(opt.Reference.Looks.Brightness) == 0 {
		command.Say(t.Stderr, "infer: the model does not say how its training images look: drift is told from the first images of %s", opt.Dir)
	}
	if cam.address != "" {
		command.Say(t.Stderr, "infer: frames of the camera pass through %s; the history is %s", opt.Dir, *historyFile)
	} else {
		command.Say(t.Stderr, "infer: watching %s; the history is %s", opt.Dir, *historyFile)
	}

	batcher := d.Batcher(0)
	defer batcher.Close()
	j := &judge{batcher: batcher, stdin: t.Stdin, ignore: masks, images: d.ImageOptions(), room: newRoom(*maxMemory << 20), masks: true}
	opt.Judge, opt.InFlight, opt.Complain = j.watched(opt.Heatmap), batcher.InFlight(), t.Complain
	opt.Record = func(image string, p *rdpp.Prediction, failed error) history.Record {
		return recordOf(d, image, p, failed)
	}
	lines := lines{w: t.Stdout, terminal: onTerminal(t.Stdout) && !*asJSON && !*quiet}
	if err := lines.begin(); err != nil {
		return 0, err
	}
	objects := json.NewEncoder(t.Stdout)
	objects.SetEscapeHTML(false)
	opt.Tell = func(r *history.Record) error {
		broken := r.Verdict == history.Broken
		p := r.Prediction()
		switch {
		case *quiet, broken && !*asJSON:
			return nil
		case broken:
			return objects.Encode(failedRecord{r.Image, printable.Base64(r.Image), r.Error})
		case *asJSON:
			return objects.Encode(watched{r.ID, r.Time, record{p, r.Heatmap, printable.Base64(r.Heatmap)}, r.Moved, printable.Base64(r.Moved)})
		}
		for _, warning := range p.Warnings {
			t.Complain(fmt.Errorf("%s: %s", r.Image, warning))
		}
		return printLine(t.Stdout, &p)
	}
	watched, stopCamera := ctx, func() error { return nil }
	if cam.address != "" {
		if watched, stopCamera, err = cam.start(ctx, &opt, log); err != nil {
			return 0, err
		}
	}
	totals, err := watch.Run(watched, opt)
	err = errors.Join(err, stopCamera())
	if lines.terminal {
		command.Say(t.Stdout, "%s", summary(totals.Images, totals.Anomalous, totals.Broken, totals.Seconds))
	}
	switch {
	case err != nil:
		return 0, err
	case !opt.Once: // it was told to end, or no more triggers come
		return command.Done, nil
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case totals.Broken > 0:
		return command.Failed, nil
	case totals.Anomalous > 0:
		return command.Anomalous, nil
	}
	return command.Done, nil
}

// stateFolder is where files are kept whose place nobody has chosen.
func stateFolder() (string, error) {
	state, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":") // systemd's, which may be several
	if state == "" && os.Getenv("XDG_STATE_HOME") != "" {
		state = filepath.Join(os.Getenv("XDG_STATE_HOME"), "rdpp")
	}
	if state == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		state = filepath.Join(home, ".local", "state", "rdpp")
	}
	return state, os.MkdirAll(state, 0o777)
}

// historyOf is the history of a folder whose place nobody has chosen.
func historyOf(dir string) (string, error) {
	state, err := stateFolder()
	if err != nil {
		return "", fmt.Errorf("no folder for the history: %w; name a file with --history", err)
	}
	full := absolute(dir)
	return filepath.Join(state, fileName("watch-"+filepath.Base(full), fmt.Sprintf("-%.4x.db", sha256.Sum256([]byte(full))))), nil
}

// watched judges images for watch. Heat maps go to a folder, if it is named, by the names and contents of their images: whoever
// judges an image again draws the same file.
func (j *judge) watched(heatmaps string) watch.Judge {
	return func(ctx context.Context, path string) func() watch.Outcome {
		s := source{path: path}
		if heatmaps != "" {
			s.heatmap = heatmaps // that there will be one counts for memory
		}
		data, mask, release, err := j.read(ctx, s)
		if err != nil {
			return func() watch.Outcome { return watch.Outcome{Err: err} }
		}
		return func() watch.Outcome {
			defer release()
			sum := fmt.Sprintf("%x", sha256.Sum256(data))
			if heatmaps != "" {
				name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
				s.heatmap = filepath.Join(heatmaps, fileName(name, "_"+sum[:16]+"_heatmap.png"))
			}
			v := j.one(ctx, s, data, mask)
			o := watch.Outcome{SHA256: sum, Prediction: v.prediction, Look: v.look, Mask: v.mask, Err: v.err}
			if v.err == nil {
				o.Heatmap = s.heatmap
			}
			o.Fault = v.prediction == nil && isFault(v.err)
			return o
		}
	}
}
