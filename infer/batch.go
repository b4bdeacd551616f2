package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/pflag"

	"rdpp/infer/batch"
	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/bulk"
	"rdpp/rdpp/command"
	"rdpp/rdpp/printable"
	"rdpp/rdpp/queue"
	"rdpp/rdpp/share"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

const batchHelp = `Usage: infer batch --model FILE --list LIST|DIR|s3://... --out DIR [flags]
       infer batch merge DIR

Judges images by the million, on one machine or many that share DIR, and goes on
where it was. Each piece of the list gets a file below DIR/results, a line of
infer image --json per image. merge checks that none is missing or twice, and
writes DIR/summary.json, worst.jsonl (1,000 highest scores) and broken.jsonl.
Exit codes: 0 done, 1 failed, 2 wrong usage.

`

// tellEvery is how often people are told how far a batch is.
const tellEvery = 30 * time.Second

func runBatch(ctx context.Context, args []string, t *command.Terminal) (int, error) {
	flags := pflag.NewFlagSet("batch", pflag.ContinueOnError)
	var m modelFlags
	m.register(flags)
	m.registerBatch(flags)
	rare := m.registerRegions(flags)
	list := flags.String("list", "", "`FILE` with an image a line; or DIR, with those below;\nor s3://BUCKET/FOLDER; required")
	out := flags.String("out", "", "`DIR` for the results, or s3://BUCKET/FOLDER; required")
	shard := flags.String("shard", "", "do share `N/N` alone, from 0/4 to 3/4 of four; default:\nby JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID")
	shards := flags.Int("shards", 0, "of `N` shares, where the environment says which")
	var q command.NATS
	q.Register(flags, "hand pieces out by the NATS server at `URL` instead, to\ninfer worker, and wait for them")
	lease := flags.Duration("lease", 30*time.Second, "with --nats: a worker is lost when silent for `TIME`;\nholds for later batches of the server too")
	tries := flags.Int("tries", 5, "with --nats: hand a piece out at most `N` times;\nholds for later batches of the server too")
	perPiece := flags.Int("piece", 0, fmt.Sprintf("`N` images to a file; 0: %d, less for short lists", bulk.DefaultPerPiece))
	readers := flags.Int("readers", 16, "read `N` images at once")
	maxMemory := flags.Int64("max-memory", allowance.MemoryDefault(1<<30)>>20, "`N` MiB to decode images in; a quarter more to read ahead")
	quiet := flags.BoolP("quiet", "q", false, "do not say how far it is")
	help := command.Help{Text: batchHelp, Rare: append(rare, "false-alarm", "threshold", "pixel-threshold", "precision", "batch", "max-pixels", "max-memory",
		"lease", "tries", "readers", "nats-creds")}
	if err := t.Parse(flags, args, help); err != nil {
		return 0, err
	}
	if flags.Arg(0) == "merge" {
		return runMerge(ctx, flags, t)
	}
	switch {
	case flags.NArg() > 0:
		return 0, command.Usagef("%q is one argument too many; name the images with --list", flags.Arg(0))
	case *list == "":
		return 0, command.Usagef("--list is missing; name the images")
	case *out == "":
		return 0, command.Usagef("--out is missing; name a folder for the results")
	case *shards < 0:
		return 0, command.Usagef("--shards %d; use 1 or more", *shards)
	case *perPiece < 0 || *perPiece > 1<<20:
		return 0, command.Usagef("--piece %d; use 1 to %d, or 0 for the default", *perPiece, 1<<20)
	case *readers < 1 || *readers > 1024:
		return 0, command.Usagef("--readers %d; use 1 to 1024", *readers)
	case *maxMemory < 1 || *maxMemory > 1<<30:
		return 0, command.Usagef("--max-memory %d; use 1 to %d", *maxMemory, 1<<30)
	case q.URL == "" && (flags.Changed("lease") || flags.Changed("tries")):
		return 0, command.Usagef("--lease and --tries are for --nats")
	case *tries < 1:
		return 0, command.Usagef("--tries %d; use 1 or more", *tries)
	case *lease < time.Second:
		return 0, command.Usagef("--lease %v; use 1s or more", *lease)
	case q.URL != "" && (*shard != "" || *shards != 0):
		return 0, command.Usagef("--shard and --shards are for batches without --nats; workers take pieces by themselves")
	}
	if err := q.Check(queue.CheckURL); err != nil {
		return 0, err
	}
	one := share.Share{N: 1}
	if q.URL == "" {
		var err error
		if one, err = share.Of(*shard, *shards, os.Getenv); err != nil {
			return 0, command.Usagef("--shard, --shards: %w", err)
		}
	}
	source, err := bulk.Find(*list)
	if err != nil {
		return 0, fmt.Errorf("--list: %w", err)
	}
	defer limitMemory(*maxMemory << 20)()
	d, err := m.open() // also where others do the work: what is wrong with model and settings is found here
	if err != nil {
		return 0, err
	}
	defer d.Close()
	work, err := m.work()
	if err != nil {
		return 0, err
	}
	place := *out
	if !bulk.IsStore(place) {
		place = absolute(place)
	}
	b, err := command.Await(ctx, func() (*bulk.Batch, error) {
		return bulk.Make(ctx, place, source, work, &bulk.Options{PerPiece: *perPiece, Shards: one.N})
	})
	if err != nil {
		return 0, err
	}
	log := logTo(t)
	if !*quiet {
		sayThreshold(t, d)
	}
	tell := func(p batch.Progress) {
		if !*quiet {
			command.Say(t.Stderr, "infer: %v", p)
		}
	}
	if q.URL != "" {
		d.Close()
		asked := queue.Options{Credentials: q.Credentials, Log: log}
		if flags.Changed("lease") { // else the server keeps what it has
			asked.Lease = *lease
		}
		if flags.Changed("tries") {
			asked.Tries = *tries
		}
		work, err := queue.Connect(q.URL, queue.Images, asked)
		if err != nil {
			return 0, fmt.Errorf("--nats: %w", err)
		}
		defer work.Close()
		if err := batch.Hand(ctx, work, b, m.file, batch.HandOptions{By: program(), Every: tellEvery, Tell: tell, Log: log}); err != nil {
			return 0, err
		}
	} else {
		if one.By != "" {
			log(fmt.Sprintf("share %d/%d, by %s", one.I, one.N, one.By))
		}
		run, end := m.runner(t, d, b, *maxMemory<<20, *readers)
		defer end()
		broken, err := doShare(ctx, b, one, run, tell)
		if err != nil {
			return 0, err
		}
		if broken > 0 {
			log(fmt.Sprintf("%s could not be judged; see the error in each one's line", printable.Count(broken, "image")))
		}
	}
	if !*quiet && one.N == 1 {
		command.Say(t.Stderr, "infer: %d images are done; `infer batch merge %s` checks and sums up their results", b.Images, *out)
	}
	return command.Done, nil
}

// mostFailed is how many pieces in a row may fail before the others are not tried: it is the machine then.
const mostFailed = 3

// doShare does the pieces of a share that have no results, and returns how many of their images could not be judged. A piece that
// fails leaves the others their turn; the error is its.
func doShare(ctx context.Context, b *bulk.Batch, one share.Share, run *batch.Runner, tell func(batch.Progress)) (broken int, err error) {
	from, to := one.Range(b.Pieces())
	var left []int
	of := int64(0)
	for piece := from; piece < to; piece++ {
		of += int64(b.Size(piece))
	}
	images := of // with results
	for piece, err := range b.Counter().Missing() {
		if err != nil {
			return broken, err
		}
		if from <= piece && piece < to {
			left = append(left, piece)
			images -= int64(b.Size(piece))
		}
	}
	pace := batch.NewPace(images, of)
	told := time.Now()
	failed, inARow := 0, 0
	var first error
	for _, piece := range left {
		before := images
		err := run.Piece(ctx, piece, func(o batch.Outcome) {
			if _, failed := o.Result.(failedRecord); failed {
				broken++
			}
			if images++; time.Since(told) >= tellEvery {
				tell(pace.At(images))
				told = time.Now()
			}
		})
		switch {
		case err == nil:
			inARow = 0
			continue
		case ctx.Err() != nil:
			return broken, err
		}
		images = before // none of them has a result
		first = cmp.Or(first, fmt.Errorf("piece %d: %w", piece, err))
		failed++
		if inARow++; inARow == mostFailed {
			break
		}
	}
	tell(pace.At(images))
	if failed > 0 {
		return broken, fmt.Errorf("%d of %d pieces failed; the same command tries them once more: %w", failed, len(left), first)
	}
	return broken, nil
}

// runMerge is infer batch merge.
func runMerge(ctx context.Context, flags *pflag.FlagSet, t *command.Terminal) (int, error) {
	wrong := ""
	flags.Visit(func(f *pflag.Flag) {
		if f.Name != "quiet" {
			wrong = f.Name
		}
	})
	switch {
	case wrong != "":
		return 0, command.Usagef("--%s is not for merge", wrong)
	case flags.NArg() != 2:
		return 0, command.Usagef("%d folders to merge named; name the one that --out had", flags.NArg()-1)
	}
	quiet := flags.Changed("quiet")
	b, err := bulk.Open(flags.Arg(1))
	if err != nil {
		return 0, err
	}
	told := time.Now()
	s, err := b.Merge(ctx, func(done, of int) {
		if !quiet && time.Since(told) >= tellEvery {
			command.Say(t.Stderr, "infer: %d of %d pieces", done, of)
			told = time.Now()
		}
	})
	if err != nil || quiet {
		return command.Done, err
	}
	return command.Done, printSummary(t.Stdout, s)
}

// printSummary writes what a batch came to, for people.
func printSummary(w io.Writer, s *bulk.Summary) error {
	_, err := fmt.Fprintf(w, "images     %d\ngood       %d\nANOMALOUS  %d\nbroken     %d\nunlike     %d  (unlike those of training)\n", s.Images, s.Good, s.Anomalous,
		s.Broken, s.Unlike)
	if err != nil || s.Scores == nil {
		return err
	}
	if _, err = fmt.Fprintf(w, "scores     %.6f to %.6f, mean %.6f\n", s.Scores.Lowest, s.Scores.Highest, s.Scores.Mean); err != nil {
		return err
	}
	for _, q := range s.Scores.Quantiles {
		if _, err := fmt.Fprintf(w, "%9.3f%%  %.6f\n", 100*q.Share, q.Score); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(w, "quantiles are right to %g%%\n", 100*s.Scores.QuantileError)
	return err
}

// batchSettings are the flags that decide what a result says; those of the machine, such as threads, are not among them.
type batchSettings struct {
	Precision      string   `json:"precision"`
	MaxPixels      int64    `json:"max_pixels"`
	FalseAlarm     *float64 `json:"false_alarm,omitempty"`
	Threshold      *float64 `json:"threshold,omitempty"`
	PixelThreshold *float64 `json:"pixel_threshold,omitempty"`
	RegionLow      *float64 `json:"region_low,omitempty"`
	MinArea        int      `json:"min_area,omitempty"`
	MinLength      int      `json:"min_length,omitempty"`
}

// work is what a batch is of, by the flags.
func (m *modelFlags) work() (bulk.Work, error) {
	sum, err := weights.SHA256(m.file)
	if err != nil {
		return bulk.Work{}, err
	}
	settings, err := json.Marshal(batchSettings{m.precision, m.maxPixels, m.falseAlarm, m.threshold, m.pixelThreshold, m.regions.Low, m.regions.MinArea,
		m.regions.MinLength})
	return bulk.Work{Model: sum, Settings: settings}, err
}

// use takes the settings of a batch for those of the flags.
func (m *modelFlags) use(b *bulk.Batch) error {
	var s batchSettings
	if err := json.Unmarshal(b.Settings, &s); err != nil {
		return fmt.Errorf("%s: the settings: %w", b.Dir(), err)
	}
	m.precision, m.maxPixels, m.falseAlarm, m.threshold, m.pixelThreshold = s.Precision, s.MaxPixels, s.FalseAlarm, s.Threshold, s.PixelThreshold
	m.regions = rdpp.RegionOptions{Low: s.RegionLow, MinArea: s.MinArea, MinLength: s.MinLength}
	return nil
}

// runner does pieces of a batch with a detector. end ends it, before the detector.
func (m *modelFlags) runner(t *command.Terminal, d *rdpp.Detector, b *bulk.Batch, memory int64, readers int) (run *batch.Runner, end func()) {
	batcher := d.Batcher(0)
	j := &judge{batcher: batcher, ignore: &ignored{}, images: d.ImageOptions(), room: newRoom(memory)}
	return batch.NewRunner(b, batch.Options{Judge: j.inBatch(t), Images: d.ImageOptions(), InFlight: batcher.InFlight(), Readers: readers,
		Ahead: memory / 4}), batcher.Close
}

// inBatch judges images of a batch.
func (j *judge) inBatch(t *command.Terminal) batch.Judge {
	broken := func(name string, err error) batch.Outcome {
		return batch.Outcome{Result: failedRecord{name, printable.Base64(name), t.Tell(naming(name, err))}}
	}
	return func(ctx context.Context, name string, data []byte, failed error) func() batch.Outcome {
		release := func() {}
		if failed == nil {
			_, release, failed = j.room.take(ctx, int64(len(data)), func() ([]byte, error) { return data, nil }, &j.images, 0, 0)
		}
		switch {
		case failed != nil && ctx.Err() != nil:
			return func() batch.Outcome { return batch.Outcome{Fault: ctx.Err()} }
		case errors.Is(failed, errRoom): // with more memory it can be judged, so it is no result
			return func() batch.Outcome { return batch.Outcome{Fault: naming(name, failed)} }
		case failed != nil:
			return func() batch.Outcome { return broken(name, failed) }
		}
		return func() batch.Outcome {
			defer release()
			switch v := j.one(ctx, source{path: name}, data, nil); {
			case v.prediction != nil:
				return batch.Outcome{Result: record{Prediction: *v.prediction}}
			case isFault(v.err):
				return batch.Outcome{Fault: naming(name, v.err)}
			default:
				return broken(name, v.err)
			}
		}
	}
}

// isFault says whether an error is one of the machine or of an end, and none of an image.
func isFault(err error) bool {
	fault := new(torch.Error)
	return errors.As(err, &fault) || errors.Is(err, torch.ErrClosed) || errors.Is(err, context.Canceled)
}
