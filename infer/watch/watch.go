// Package watch judges the images that arrive in a folder, each once, and does what follows from the verdicts: it records them,
// writes them to a table, tells them, and moves the images.
//
// An image goes through these stages: inbox tells that it is whole; it is read in the order of arrival and judged beside others;
// its record and its arrival are written in one transaction; what follows is done; that it is done is written. A process that
// dies between any two of them leaves a state from which the next one goes on: see history.Journal.
package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/history"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/inbox"
	"rdpp/rdpp/lookout"
	"rdpp/rdpp/setting"
)

// Outcome is what judging an image led to.
type Outcome struct {
	SHA256     string              // of the file's content; "" where it could not be read
	Prediction *anomaly.Prediction // nil: Err says why
	Heatmap    string              // file that was drawn; "": none
	Look       dataset.Look        // of the image
	Mask       []byte              // PNG file of its own mask of what was not scored; nil: none
	Err        error               // that it could not be judged, or that the heat map could not be drawn
	Fault      bool                // Err is not the image's: the model or the device failed
}

// Judge begins to judge a file: it reads it, in the order of arrival. finish, which any goroutine calls, returns the outcome; it is
// always called.
type Judge func(ctx context.Context, path string) (finish func() Outcome)

// Options say what is watched and what becomes of it. Zero means the default, where one is named.
type Options struct {
	Dir       string // that is watched; required
	Recursive bool   // with what is below it
	Once      bool   // judge what is there and end
	// Wanted says by their names which files are judged; default: those of images.
	Wanted func(name string) bool

	// Begin is called when nobody else watches the folder, before it is looked at. An error ends the watch. Default: nothing.
	Begin func() error

	Judge    Judge // required
	InFlight int   // images that are being judged at once, default 1
	// Record is what the history is to have of an image; without a prediction failed says why there is none. Required.
	Record  func(image string, p *anomaly.Prediction, failed error) history.Record
	History *history.DB // required

	Table   string // file of CSV that gets a row per image; default: none
	Heatmap string // folder in which nothing is looked at, another than Dir

	// Where images go, by their verdicts, in the folders that they are in below Dir; default: they stay. A name that is taken gets a
	// number.
	MoveGood, MoveBad, MoveBroken string
	// Discard removes a wanted image for which these name no folder, once its verdict is recorded. Heat maps, which are left alone
	// otherwise, are images then, so that all that is wanted goes.
	Discard bool

	// Drift is how many warnings there may be on average per 1,000 images while scores and looks of good images do not change; 0: there
	// are none. Reference is what they are compared with, beside those of the folder that came before.
	Drift     float64
	Reference lookout.Reference

	Metrics string // file for Prometheus, in the text format, written every 10 s and at the end; default: none

	// Tell is told of each verdict once it is recorded, after a crash perhaps of the last one again. The image is named within Dir as
	// Dir is here, in history and table from /. An error ends the watch. Default: nothing.
	Tell     func(*history.Record) error
	Complain func(error)   // of what does not end the watch; default: nothing
	Poll     time.Duration // as inbox.Options has it
	Settle   time.Duration // likewise
	Tidy     time.Duration // after which the journal forgets the files that have gone, default 1 min
	// Patience is for how long a file which is no image is tried again, as it may not be whole, and, with Once, one that cannot be
	// read; default 5 s.
	Patience time.Duration
}

// Check refuses the watched folder, by whatever name, as one to put images or heat maps into: they would arrive there. The error is
// a *setting.Error.
func (o *Options) Check() error {
	for _, to := range []struct{ field, dir string }{
		{"heatmap", o.Heatmap}, {"move_good", o.MoveGood}, {"move_bad", o.MoveBad}, {"move_broken", o.MoveBroken},
	} {
		if to.dir != "" && same(to.dir, o.Dir) {
			return setting.Wrong(to.field, to.dir, "name another folder than the one that is watched")
		}
	}
	return nil
}

// same says whether two paths lead to the same folder.
func same(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

// old is an age from which a file that is no image is not tried again.
const old = time.Minute

// Totals count what a watch has done. A file that could not be read, which ends with Once alone and is not recorded, is one of the
// broken ones.
type Totals struct {
	Images, Anomalous, Broken int
	Seconds                   float64 // in which images were judged or waited for
}

// watch is a watch at work.
type watch struct {
	Options
	root    string // Dir, from /
	source  string // of the records
	journal *history.Journal
	inbox   *inbox.Inbox
	table   *table
	totals  Totals
	drifts  drifts
	metrics *metrics          // nil: none are wanted
	said    map[string]string // complaints about files that are tried again
}

// Source is what the records of a watch name as theirs.
func Source(dir string) (string, error) {
	root, err := filepath.Abs(dir)
	return "watch:" + root, err
}

// Run watches until ctx ends, which is no error, or, with Once, everything is judged. Where another process watches the folder the
// error is atomicfile.ErrLocked. Other errors are those of the history, the table, the model or the device: what was not
// recorded by then is judged the next time.
func Run(ctx context.Context, opt Options) (Totals, error) {
	w := &watch{Options: opt, said: map[string]string{}}
	w.InFlight = max(w.InFlight, 1)
	w.Tidy = cmp.Or(w.Tidy, time.Minute)
	w.Patience = cmp.Or(w.Patience, 5*time.Second)
	if w.Wanted == nil {
		w.Wanted = imagefile.IsImage
	}
	if w.Tell == nil {
		w.Tell = func(*history.Record) error { return nil }
	}
	if w.Complain == nil {
		w.Complain = func(error) {}
	}
	err := w.run(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("watch: %w", err)
	}
	return w.totals, err
}

func (w *watch) run(ctx context.Context) (err error) {
	if info, err := os.Stat(w.Dir); err != nil || !info.IsDir() {
		if err == nil {
			err = fmt.Errorf("%s is no folder", w.Dir)
		}
		return err
	}
	if err := w.Check(); err != nil {
		return err
	}
	if w.root, err = filepath.Abs(w.Dir); err != nil {
		return err
	}
	if w.source, err = Source(w.Dir); err != nil {
		return err
	}
	lock, unlocked, err := atomicfile.Lock(w.root)
	if err != nil {
		return err
	}
	defer lock.Close()
	if unlocked != nil {
		w.Complain(fmt.Errorf("watch: %s cannot be locked (%w); see to it that no other process watches it", w.Dir, unlocked))
	}
	for _, dir := range []string{w.MoveGood, w.MoveBad, w.MoveBroken} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o777); err != nil {
				return err
			}
		}
	}
	w.journal = w.History.Journal(w.root)
	if w.Table != "" {
		if w.table, err = openTable(w.Table); err != nil {
			return err
		}
		defer w.table.close()
	}
	if err := w.sweep(ctx); err != nil {
		return err
	}
	known, err := w.recover(ctx)
	if err != nil {
		return err
	}
	w.drifts = drifts{opt: lookout.Options{Reference: w.Reference, Rate: w.Drift}, source: w.source, history: w.History}
	if err := w.drifts.resume(ctx); err != nil {
		return err
	}
	if w.Metrics != "" {
		if w.metrics, err = openMetrics(ctx, w); err != nil {
			return err
		}
		if err := w.metrics.write(); err != nil {
			return err
		}
	}
	// Also what was judged before an error is kept.
	defer func() { err = errors.Join(err, w.save(context.WithoutCancel(ctx)), w.writeMetrics()) }()
	if w.Begin != nil {
		if err := w.Begin(); err != nil {
			return err
		}
	}
	// Files that are not looked for have not gone, and the journal is to remember them.
	known = slices.DeleteFunc(known, func(f inbox.File) bool { return !w.wants(f.Path) })
	exclude := []string{w.Heatmap, w.MoveGood, w.MoveBad, w.MoveBroken}
	w.inbox, err = inbox.Open(w.root, &inbox.Options{Recursive: w.Recursive, Wanted: w.Wanted, Exclude: present(exclude), Known: known, Once: w.Once,
		Poll: w.Poll, Settle: w.Settle, Log: func(err error) {
			if err != nil {
				w.Complain(fmt.Errorf("%w; it is tried again", err))
			}
		}})
	if err != nil {
		return err
	}
	defer w.inbox.Close()
	began := time.Now()
	defer func() { w.totals.Seconds = time.Since(began).Seconds() }()
	return w.judgeAll(ctx)
}

// wants says whether a file, by its path within the folder, is one to judge.
func (w *watch) wants(path string) bool { return w.Wanted(filepath.Base(path)) }

// present are the folders that are named.
func present(dirs []string) (named []string) {
	for _, dir := range dirs {
		if dir != "" {
			named = append(named, dir)
		}
	}
	return named
}

// judged is a file and what came of it.
type judged struct {
	file    inbox.File
	outcome Outcome
}

// judgeAll judges what arrives, several files at once, and does what follows in the order of arrival.
func (w *watch) judgeAll(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	line, ended := make(chan chan judged, w.InFlight-1), make(chan error, 1)
	go func() {
		defer close(line)
		for {
			f, err := w.inbox.Next(ctx)
			if err != nil {
				ended <- err
				return
			}
			result := make(chan judged, 1)
			finish := w.begin(ctx, f)
			go func() { result <- judged{f, finish()} }()
			select {
			case line <- result:
			case <-ctx.Done():
				ended <- ctx.Err()
				return
			}
		}
	}()
	defer func() {
		stop()
		for range line { // until nobody uses the inbox
		}
	}()
	// What is recorded must be recorded wholly, also when ctx ends.
	steady := context.WithoutCancel(ctx)
	tidy := time.NewTicker(w.Tidy)
	defer tidy.Stop()
	figures := time.NewTicker(metricsEvery)
	defer figures.Stop()
	for {
		select {
		case result, open := <-line:
			if !open {
				if err := <-ended; !errors.Is(err, io.EOF) {
					return err
				}
				for _, path := range w.inbox.Growing() {
					w.Complain(fmt.Errorf("%s: somebody is still writing it; the next call judges it", path))
				}
				return w.forget(steady)
			}
			j := <-result
			if ctx.Err() != nil && j.outcome.Err != nil { // it was given up
				return ctx.Err()
			}
			if err := w.conclude(steady, j.file, j.outcome); err != nil {
				return err
			}
		case <-tidy.C:
			if err := errors.Join(w.forget(steady), w.sweep(steady), w.save(steady)); err != nil {
				return err
			}
		case <-figures.C:
			if err := w.writeMetrics(); err != nil {
				w.complainOnce(w.Metrics, err)
			}
		}
	}
}

// save keeps in the history what the next watch goes on from, beside the journal.
func (w *watch) save(ctx context.Context) error {
	err := w.drifts.save(ctx)
	if w.metrics != nil {
		err = errors.Join(err, w.metrics.save(ctx))
	}
	return err
}

// writeMetrics writes the file of metrics, if one is wanted.
func (w *watch) writeMetrics() error {
	if w.metrics == nil {
		return nil
	}
	return w.metrics.write()
}

// sweep removes the heat maps of records that have been removed, by whichever process. One that cannot be removed is tried again.
func (w *watch) sweep(ctx context.Context) error {
	return w.History.Sweep(ctx, w.source, func(heatmap string) (gone bool) {
		if err := os.Remove(heatmap); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.complainOnce(heatmap, err)
			return false
		}
		delete(w.said, heatmap)
		return true
	})
}

// forget lets the journal forget the files that have gone.
func (w *watch) forget(ctx context.Context) error {
	gone := w.inbox.Gone()
	for _, path := range gone {
		delete(w.said, path)
	}
	if len(gone) == 0 {
		return nil
	}
	return w.journal.Forget(ctx, gone...)
}

// errHeatmap says of a file that it is none to judge.
var errHeatmap = errors.New("it is a heat map")

// begin reads a file, and sees to it that it was not changed meanwhile.
func (w *watch) begin(ctx context.Context, f inbox.File) (finish func() Outcome) {
	path := filepath.Join(w.Dir, f.Path)
	if !w.Discard && imagefile.IsHeatmap(path) { // which somebody has put here
		return func() Outcome { return Outcome{Err: errHeatmap} }
	}
	inner := w.Judge(ctx, path)
	if now, err := os.Stat(path); err != nil || now.Size() != f.Size || !now.ModTime().Equal(f.Time) {
		if err == nil {
			err = errChanged
		}
		return func() Outcome {
			inner()
			return Outcome{Err: err}
		}
	}
	return inner
}

var errChanged = errors.New("it was changed while it was read")

// conclude records an outcome and does what follows.
func (w *watch) conclude(ctx context.Context, f inbox.File, o Outcome) error {
	path := filepath.Join(w.Dir, f.Path)
	var errno syscall.Errno
	switch {
	case o.Fault:
		return o.Err
	case errors.Is(o.Err, errHeatmap):
		w.inbox.Done(f)
		return nil
	case o.Prediction != nil:
	case errors.Is(o.Err, fs.ErrNotExist), errors.Is(o.Err, errChanged):
		w.inbox.Again(f) // as it is by then, if it is
		return nil
	case errors.As(o.Err, &errno) && w.Once && time.Since(f.Since) >= w.Patience:
		w.Complain(fmt.Errorf("%w; the next call tries it again", o.Err))
		w.totals.Images++
		w.totals.Broken++
		w.inbox.Done(f)
		return nil
	case errors.As(o.Err, &errno): // the disk, the network or permissions
		w.complainOnce(f.Path, o.Err)
		w.inbox.Again(f)
		return nil
	case time.Since(f.Since) < w.Patience && time.Since(f.Time) < old:
		w.inbox.Again(f)
		return nil
	}
	delete(w.said, f.Path)
	a := history.Arrival{Path: f.Path, Size: f.Size, Time: f.Time, SHA256: o.SHA256}
	before, err := w.journal.Find(ctx, f.Path)
	if err != nil {
		return err
	}
	if before != nil && f.New {
		if err := w.journal.Forget(ctx, f.Path); err != nil {
			return err
		}
		before = nil
	}
	if before != nil && before.SHA256 == o.SHA256 && o.SHA256 != "" { // a copy that gets its time after its content, say
		a.Record = before.Record
		w.inbox.Done(f)
		return w.journal.Touched(ctx, &a)
	}
	r := w.Record(path, o.Prediction, o.Err)
	r.Image = filepath.Join(w.root, f.Path) // as a history is read from elsewhere
	r.Source, r.SHA256, r.Heatmap, r.Time = w.source, o.SHA256, o.Heatmap, time.Now()
	if o.Prediction != nil {
		r.Brightness, r.Sharpness, r.Mask = &o.Look.Brightness, &o.Look.Sharpness, o.Mask
	}
	if o.Err != nil { // broken, or without its heat map
		w.Complain(o.Err)
	}
	if r.Moved, err = w.destination(f.Path, r.Verdict); err != nil {
		return err
	}
	if err := w.journal.Judged(ctx, &a, &r); err != nil {
		return err
	}
	gone, err := w.follow(ctx, a, &r, false)
	if err != nil {
		return err
	}
	if gone {
		w.inbox.Left(f)
	} else {
		w.inbox.Done(f)
	}
	w.totals.Images++
	warnings, err := w.drifts.see(ctx, &r)
	if err != nil {
		return err
	}
	w.warn(warnings)
	if w.metrics != nil {
		w.metrics.count(&r)
	}
	switch r.Verdict {
	case history.Anomalous:
		w.totals.Anomalous++
	case history.Broken:
		w.totals.Broken++
	}
	return nil
}

// complainOnce says what is the matter with a file that is tried again and again.
func (w *watch) complainOnce(path string, err error) {
	if text := err.Error(); w.said[path] != text {
		w.said[path] = text
		w.Complain(fmt.Errorf("%w; it is tried again", err))
	}
}

// follow does what follows from a verdict that is recorded: it tells it, adds it to the table, moves the image. With again it
// may have been done before, in part or wholly. gone says that the image is no longer in the folder.
func (w *watch) follow(ctx context.Context, a history.Arrival, r *history.Record, again bool) (gone bool, err error) {
	switch {
	case r.Moved != "":
		gone, err = w.move(ctx, a, r)
	case w.Discard && w.wants(a.Path): // which a watch that died may have judged by other options
		gone, err = true, w.discard(a)
	}
	if err != nil {
		return false, err
	}
	if w.table != nil {
		if err := w.table.add(r, again); err != nil {
			return false, err
		}
	}
	told := *r
	told.Image = filepath.Join(w.Dir, a.Path)
	if err := w.Tell(&told); err != nil {
		return false, err
	}
	return gone, w.journal.Done(ctx, a, gone)
}

// recover does what a process that died has left to do, and returns the files that need not be judged.
func (w *watch) recover(ctx context.Context) (known []inbox.File, err error) {
	arrivals, err := w.journal.Arrivals(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range arrivals {
		if a.Pending {
			gone := false
			for r, err := range w.History.List(ctx, history.Filter{ID: a.Record}) {
				if err == nil {
					err = w.redirect(ctx, a, r)
				}
				if err == nil {
					gone, err = w.follow(ctx, a, r, true)
				}
				if err != nil {
					return nil, err
				}
			}
			if gone {
				continue
			}
		}
		known = append(known, inbox.File{Path: a.Path, Size: a.Size, Time: a.Time})
	}
	return known, nil
}
