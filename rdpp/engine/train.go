package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/config"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/evaluation"
	"rdpp/rdpp/method"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/printable"
	"rdpp/rdpp/ranks"
	"rdpp/rdpp/report"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/teacher"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// Options say where and how to train. Of them only Teacher and From change the result, and Device its rounding. Zero
// fields mean the defaults.
type Options struct {
	Out             string                // folder for the results, made where missing; required
	Teacher         string                // weight file, or one of teacher.Words; default teacher.Auto
	From            string                // model file whose networks, teacher included, go on learning; default: they begin anew. See FromModel
	Device          torch.Device          // default the CPU
	Workers         int                   // goroutines that make batches, default allowance.CPUs
	CheckpointEvery time.Duration         // default 5 minutes
	CacheBytes      int64                 // bound of the image cache, default as of dataset.CacheOptions; negative: keep nothing
	MaxPixels       int64                 // largest image accepted, default imagefile.DefaultMaxPixels
	SkipBad         bool                  // leave out images that cannot be read, instead of failing
	Resume          bool                  // go on from the checkpoint in Out, where there is one; a finished run is left as it is
	DropCheckpoint  bool                  // remove the checkpoint of a run that is finished: it cannot be trained for more epochs then
	Overwrite       bool                  // start anew even where Out holds a run
	Deterministic   bool                  // the same bits every time on a GPU too, at some cost; on the CPU they always are
	Provenance      *modelfile.Provenance // goes into model, metrics and report, with date, time and fingerprint; nil: none does
	TestEvery       int                   // epochs between measurements on the test set, to look at; 0: none but the last

	// Peers are the processes that train the model together with this one; nil: there are none. All have the same settings and
	// options but for Device, and read the images; rank 0 alone reads and writes Out, and calls OnEpoch.
	Peers *ranks.Peers

	OnDownload func(file string, done, total int64) // as in teacher.Options

	OnStart func(modelfile.Info) // called when all is read, before the first step, on the training goroutine
	OnStep  func(Step)           // after every step
	OnEpoch func(anomaly.Epoch)  // after every epoch
	Log     *slog.Logger         // default slog.Default()
}

// Step describes a step.
type Step struct {
	Epoch, Epochs int // counted from 1
	Step, Steps   int // of the epoch, counted from 1
	Fold, Folds   int // of the trainings for the calibration, counted from 1; 0: of the model itself
	Images        int // of the epoch so far
	Losses        anomaly.Losses
}

// Summary is the outcome of a training, and metrics.json.
type Summary struct {
	Category           string         `json:"category"`
	CategoryBase64     string         `json:"category_base64,omitempty"` // its bytes, where it is not UTF-8, which JSON cannot hold
	Config             config.Config  `json:"config"`
	Teacher            teacher.Info   `json:"teacher"`
	Epoch              int            `json:"epoch"`     // that became the model
	Selection          string         `json:"selection"` // how it was chosen, in words
	TrainImages        int            `json:"train_images"`
	Taken              dataset.Taken  `json:"taken"` // what of the data was taken for what
	anomaly.Metrics                   // on the test set
	HasMasks           bool           `json:"has_masks"` // it has masks
	anomaly.Verdicts                  // by the threshold
	Provisional        bool           `json:"threshold_provisional"`
	CalibrationImages  int            `json:"calibration_images"`          // good images whose scores set the threshold
	CalibrationFolds   int            `json:"calibration_folds,omitempty"` // trainings that scored them; 0: the model did, and was not trained on them
	Losses             anomaly.Losses `json:"losses"`                      // of the last epoch
	TrainingSeconds    float64        `json:"seconds"`                     // over all epochs
	CalibrationSeconds float64        `json:"calibration_seconds"`         // scoring for the threshold, and the trainings that takes
	EvaluationSeconds  float64        `json:"evaluation_seconds"`
	DeviceBytes        int64          `json:"device_peak_bytes,omitempty"` // of a CUDA device's memory, at most in use
	Skipped            []dataset.Skip `json:"skipped,omitempty"`
	Range              dataset.Range  `json:"range"`             // of the training images
	Warning            string         `json:"warning,omitempty"` // of test images that are unlike those
	ModelFile          string         `json:"model_file"`
	ModelFileBase64    string         `json:"model_file_base64,omitempty"` // as CategoryBase64

	From       modelfile.ParentInfo  `json:"from,omitzero"`        // model that it went on from
	Provenance *modelfile.Provenance `json:"provenance,omitempty"` // how the model came to be

	Spots modelfile.Spots `json:"spots,omitzero"` // how small a defect can be, where images are large or in tiles
}

// The files of Out.
const (
	ModelFile      = "model.safetensors"
	MetricsFile    = "metrics.json"
	HistoryFile    = "history.csv"
	ReportFile     = "report.html"
	ScoresFile     = "scores.csv" // of the test images
	checkpointFile = "checkpoint"
	bestFile       = "best.safetensors" // the best epoch so far, while SelectBestOnTest is at work
)

// Train trains a model on the good images of a data set, evaluates it on the test images, and writes model, metrics,
// history and checkpoints to opt.Out. The same configuration, with a precision that is not method.PrecisionAuto, data, device and
// number of threads give the same model file, byte for byte on the CPU, whether or not the training was interrupted and
// resumed. When ctx ends it writes a checkpoint and returns ErrInterrupted.
//
// With Peers all of them call it, and it ends in all where ctx ends in one, or one fails. Other ranks than 0 return no summary.
// The model is then that of so many processes: another number adds up in another order.
func Train(ctx context.Context, c config.Config, set *dataset.Set, opt Options) (*Summary, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	opt.Teacher = cmp.Or(opt.Teacher, teacher.Auto)
	opt.CheckpointEvery = cmp.Or(opt.CheckpointEvery, 5*time.Minute)
	ctx, cancel := opt.Peers.Context(ctx)
	defer cancel()
	worker := torch.NewWorker()
	defer worker.Close()
	var summary *Summary
	err := worker.Do(func() (err error) {
		r := &run{config: c, opt: opt, set: set}
		defer r.close()
		if err = r.prepare(ctx); err != nil {
			return err
		}
		if summary = r.finished; summary == nil {
			summary, err = r.train(ctx)
		}
		return err
	})
	if lost := opt.Peers.Explain(err); errors.Is(lost, ranks.ErrLost) {
		return nil, lost
	}
	if err != nil && ctx.Err() != nil && !errors.Is(context.Cause(ctx), ranks.ErrLost) && !errors.Is(err, ErrInterrupted) && !errors.Is(err, ErrNotSaved) {
		interrupted := setting.Advise(fmt.Errorf("engine: %w", ErrInterrupted), "{resume} continues")
		if errors.Is(err, ctx.Err()) { // which says no more
			return nil, interrupted
		}
		return nil, fmt.Errorf("%w: %w", interrupted, err)
	}
	return summary, err
}

// run is one training.
type run struct {
	lock   io.Closer // on the folder, while the run lasts
	config config.Config
	opt    Options
	set    *dataset.Set

	items, tests []dataset.Item // that can be read; items are trained on
	held         []dataset.Item // good ones that are not, for the calibration
	folds        int            // trainings for the calibration, where there are too few images to hold any out
	skipped      []dataset.Skip
	cache        *dataset.Cache
	plan         method.Plan
	seen         string // fingerprint of the images that the model it goes on from was trained on
	longest      int    // side of an image, pixels; 0: not known yet
	count        int    // images that a pass goes through, or tiles of them
	loader       *dataset.Loader
	early        *dataset.Loader  // of what the rule looks at that stops early; nil: there is no such rule
	model        *modelfile.Model // that learns
	learner      method.Learner
	loop         Loop[*dataset.Batch]
	state        RunState
	finished     *Summary // of a run that is resumed and was finished before, without a checkpoint
}

func (r *run) path(name string) string { return filepath.Join(r.opt.Out, name) }

func (r *run) close() {
	if r.lock != nil {
		r.lock.Close()
	}
	if r.learner != nil {
		r.learner.Close()
	}
	if r.model != nil {
		r.model.Close()
	}
}

// CheckRanks says by a setting.Error what keeps so many processes from training one model with these settings.
func CheckRanks(c *config.Config, size int) error {
	if _, can := c.Learned().(method.Spreader); !can {
		return setting.Refuse("method", c.Method, "it learns in one process: leave {ranks} out, or use %s", config.Default().Method)
	}
	if c.Batch < size {
		return setting.Refuse("batch", c.Batch, "each of the %d processes of {ranks} needs an image of it", size)
	}
	if c.Patience > 0 {
		return setting.Refuse("patience", c.Patience, "only a training in one process stops early: use 0, or leave {ranks} out")
	}
	return nil
}

// prepare reads everything that can be wrong before any time is spent on training.
func (r *run) prepare(ctx context.Context) (err error) {
	if r.opt.Out == "" {
		return setting.Refuse("out", nil, "name a folder for the results")
	}
	if r.opt.Peers != nil {
		if err := CheckRanks(&r.config, r.opt.Peers.Size()); err != nil {
			return err
		}
	}
	if err := r.sameOrders(); err != nil {
		return err
	}
	file, saved, err := r.take()
	if err != nil {
		return err
	}
	if file != nil {
		defer file.Close()
	}
	var before *modelfile.Info // of what is resumed
	if saved != nil {
		before = &saved.Info
		r.settleAs(&before.Config)
	}
	err = torch.SetArithmetic(r.config.Precision == string(torch.TF32), r.opt.Deterministic && r.opt.Device != torch.CPU)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if r.model, err = modelfile.New(r.config, r.opt.Device); err != nil {
		return err
	}
	switch {
	case r.opt.From != "":
		if err := r.openParent(before == nil); err != nil {
			return err
		}
	case before == nil:
		found, err := r.findTeacher(ctx)
		if err != nil {
			return err
		}
		if err := r.model.LoadTeacher(found); err != nil {
			return err
		}
	}
	if err := r.readData(ctx); err != nil {
		return err
	}
	if err := r.sameAll(); err != nil {
		return err
	}
	if r.finished != nil {
		return r.sameFinished(before)
	}
	if r.config.Precision == method.PrecisionAuto {
		if r.opt.Peers.First() {
			err = r.choosePrecision(ctx)
		}
		if err == nil {
			err = r.opt.Peers.Share(&r.config.Precision)
		}
		if err != nil {
			return err
		}
		r.model.Info.Config.Precision = r.config.Precision
	}
	r.learner, err = r.config.Learned().Learner(r.model.Net, method.LearnerOptions{Precision: torch.Precision(r.config.Precision), Images: r.count,
		Continued: r.opt.From != "", Group: r.opt.Peers.Group()})
	if err != nil {
		return err
	}
	if err := r.checkParent(); err != nil {
		return err
	}
	switch {
	case file != nil:
		err = r.restore(file, saved)
	case saved != nil:
		err = r.restoreAs(saved)
	default:
		err = r.learner.Begin(ctx, evaluation.Images(r.items, r.cache, &r.config.Settings, r.opt.Device))
		if err == nil && r.opt.Peers.First() {
			// An older run's must not be taken for this one's, nor for the end of it.
			err = removeAll(append(r.foldFiles(), r.path(checkpointFile), r.path(MetricsFile)))
		}
	}
	if err != nil {
		return err
	}
	if r.opt.Peers != nil {
		if err := r.config.Learned().(method.Spreader).Follow(r.learner); err != nil {
			return err
		}
	}
	if !r.opt.Peers.First() {
		return nil
	}
	return r.findRoom(file != nil)
}

// findTeacher finds it in rank 0 first, so that no two processes download it.
func (r *run) findTeacher(ctx context.Context) (found string, err error) {
	if !r.opt.Peers.First() {
		if _, err := r.opt.Peers.Agree(ranks.GoesOn); err != nil {
			return "", err
		}
	}
	found, err = teacher.Find(ctx, r.opt.Teacher, r.config.Arch, teacher.Options{OnDownload: r.opt.OnDownload, Log: r.opt.Log})
	if err == nil && r.opt.Peers.First() {
		_, err = r.opt.Peers.Agree(ranks.GoesOn)
	}
	return found, err
}

// take takes the folder, and opens what is in it of a run that is resumed: nil where there is none; no file where that is
// finished. Where there are peers rank 0 does, and tells the others what the file says.
func (r *run) take() (file *weights.File, saved *Saved, err error) {
	var told struct {
		Saved    *Saved
		Finished bool
	}
	if r.opt.Peers.First() {
		if r.lock, err = Claim(r.opt.Log, r.path(checkpointFile), r.path(ModelFile), r.path(MetricsFile), r.path(HistoryFile),
			r.path(ReportFile), r.path(ScoresFile), r.path(bestFile)); err != nil {
			return nil, nil, err
		}
		if file, told.Saved, err = r.openCheckpoint(); err != nil {
			return nil, nil, err
		}
		if file == nil {
			finished, err := r.readFinished()
			if err != nil {
				return nil, nil, err
			}
			if finished != nil {
				told.Saved, told.Finished = &Saved{Info: *finished}, true
			}
		}
	}
	if err := r.opt.Peers.Share(&told); err != nil {
		if file != nil {
			file.Close()
		}
		return nil, nil, err
	}
	if told.Finished && r.finished == nil {
		r.finished = new(Summary) // which rank 0 returns
	}
	return file, told.Saved, nil
}

// sameOrders is an error where this process is asked for something else than rank 0. It comes first, since what they wait for each
// other in depends on that: another order of it would never end.
func (r *run) sameOrders() error {
	kind := "processor"
	if r.opt.Device != torch.CPU {
		kind = "GPU"
	}
	return r.same([2]string{"options", fmt.Sprint(r.opt.TestEvery, r.opt.From != "", r.opt.Deterministic)}, [2]string{"kinds of device", kind})
}

// sameAll is an error where this process would train otherwise than rank 0: their batches are to be parts of one.
func (r *run) sameAll() error {
	return r.same([2]string{"training images", r.model.Info.Data.Fingerprint}, [2]string{"weights of the teacher", r.model.Info.Teacher.SHA256})
}

// same is an error where the settings, or what else is named, in the plural, are not rank 0's.
func (r *run) same(further ...[2]string) error {
	if r.opt.Peers == nil {
		return nil
	}
	settings, err := json.Marshal(r.config)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	for _, one := range slices.Concat([][2]string{{"settings", string(settings)}}, further) {
		if err := r.opt.Peers.Same(one[0], one[1]); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
	}
	return nil
}

func removeAll(paths []string) error {
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
	}
	return nil
}

// openCheckpoint returns the checkpoint to resume, if any, and protects one that is not to be resumed.
func (r *run) openCheckpoint() (*weights.File, *Saved, error) {
	if r.opt.Overwrite {
		return nil, nil, nil
	}
	file, saved, err := r.readCheckpoint()
	if err != nil || r.opt.Resume {
		return file, saved, err
	}
	if file == nil {
		return nil, nil, r.protectModel()
	}
	defer file.Close()
	if done := saved.State.Epoch; done < saved.State.last(saved.Info.Config.Epochs) || len(r.foldFiles()) > 0 {
		return nil, nil, setting.Refuse("out", r.opt.Out, "it holds an unfinished run (%d of %d epochs done): continue it with {resume}, or start anew with "+
			"{overwrite}", done, saved.Info.Config.Epochs)
	}
	return nil, nil, r.protectModel()
}

// protectModel refuses to train into the folder of a finished run.
func (r *run) protectModel() error {
	if _, err := os.Lstat(r.path(ModelFile)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if _, err := os.Lstat(r.path(checkpointFile)); err != nil {
		return setting.Refuse("out", r.opt.Out, "it holds a finished run: replace it with {overwrite}, or choose another folder")
	}
	return setting.Refuse("out", r.opt.Out, "it holds a finished run: replace it with {overwrite}, train it for more {epochs} with {resume}, or choose "+
		"another folder")
}

func (r *run) readData(ctx context.Context) error {
	S := r.config.ImageSize
	if masked := func(item dataset.Item) bool { return item.Ignore != "" }; r.config.Tiled() &&
		(slices.ContainsFunc(r.set.Train, masked) || slices.ContainsFunc(r.set.Test, masked)) {
		return setting.Refuse("tile", r.config.Tile, "images have masks of what is ignored, and tiles leave nothing out: do without the masks, or without tiles")
	}
	if r.cache == nil {
		r.cache = dataset.NewCache(dataset.CacheOptions{Size: S, MaxBytes: r.opt.CacheBytes, MaxPixels: r.opt.MaxPixels,
			BitDepth: r.config.BitDepth, Whole: r.config.Tiled(), Framer: r.model.Framer})
	}
	r.skipped = slices.Clone(r.set.Skipped)
	if !r.opt.Peers.First() { // which measures nothing
		set := *r.set
		set.Test = nil
		r.set = &set
	}
	for _, part := range []struct {
		from []dataset.Item
		to   *[]dataset.Item
	}{{r.set.Train, &r.items}, {r.set.Test, &r.tests}} {
		good, skipped, err := dataset.Check(ctx, part.from, r.cache, r.opt.Workers, r.opt.SkipBad)
		if err != nil && ctx.Err() == nil {
			return setting.Advise(fmt.Errorf("engine: %w", err), "{skip_bad} leaves such files out")
		}
		if err != nil {
			return fmt.Errorf("engine: %w", err)
		}
		*part.to = good
		r.skipped = append(r.skipped, skipped...)
		if r.config.BitDepth == method.BitDepthAuto { // the first part's, which are trained on
			if err := r.chooseBitDepth(ctx); err != nil {
				return err
			}
		}
		if r.config.Align.On() && r.config.Align.Mean == "" { // likewise
			if err := r.settleAlign(ctx); err != nil {
				return err
			}
		}
	}
	set := *r.set
	set.Train, set.Test, set.Skipped = r.items, r.tests, r.skipped
	set.HasMasks = set.HasMasks && slices.ContainsFunc(r.tests, func(item dataset.Item) bool { return item.Mask != "" })
	r.set = &set
	for _, s := range r.skipped {
		r.opt.Log.Warn("left out", "file", s.Path, "reason", s.Reason)
	}
	if n, first := r.cache.Notes(slices.Concat(r.items, r.tests)); n > 0 {
		r.opt.Log.Warn("masks were scaled to the size of their images", "images", n, "first", first)
	}
	if n, first := r.cache.Missed(slices.Concat(r.items, r.tests)); n > 0 {
		r.opt.Log.Warn("the part was not found, so that images are looked at as they are", "images", n, "first", first)
	}
	if pages := r.cache.Pages(); len(pages) > 0 {
		first := slices.Min(slices.Collect(maps.Keys(pages)))
		r.opt.Log.Warn("of images with several pages the first is used", "images", len(pages), "file", first, "pages", pages[first])
	}
	defective := func(item dataset.Item) bool { return item.Defective }
	good := func(item dataset.Item) bool { return !item.Defective }
	if r.config.Select == method.SelectBestOnTest && r.opt.Peers.First() &&
		!(slices.ContainsFunc(r.tests, defective) && (r.set.HasMasks || slices.ContainsFunc(r.tests, good))) {
		return errNoTests
	}
	if len(r.items) == 0 {
		return fmt.Errorf("engine: no good image of %s can be read; mend the files listed above", r.set.Category)
	}
	seen := r.cache.Range(r.items)
	fingerprint, err := dataset.Fingerprint(r.items)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	r.model.Info.Looks = r.cache.Looks(r.items)
	if err := r.settleTile(); err != nil {
		return err
	}
	if err := r.checkLeftOut(); err != nil {
		return err
	}
	r.items, r.held, r.folds = holdOut(r.items, &r.config)
	sizes, err := r.sizes()
	if err != nil {
		return err
	}
	r.count = sizes[0]
	if r.plan, err = r.config.Learned().Plan(sizes); err != nil {
		return err
	}
	r.config.Epochs = r.plan.Passes
	r.model.Info.Config.Epochs = r.plan.Passes
	r.model.Info.Category = r.set.Category
	r.model.Info.Data = modelfile.DataInfo{Images: len(r.items), HeldOut: len(r.held), Fingerprint: fingerprint, Layout: r.set.Layout,
		Range: seen}
	if r.config.View.Placed() {
		look := r.cache.Look(r.items[0].Path)
		r.model.Info.Data.Picture = [2]int{look.W, look.H}
	}
	if r.config.Tiled() {
		r.model.Info.Data.Tiles = r.count
	}
	r.loader, err = dataset.NewLoader(r.items, dataset.LoaderOptions{Batch: r.plan.Batch, Size: S, Norm: r.config.Norm(), Seed: r.config.Seed,
		Workers: r.opt.Workers, Cache: r.cache, Motion: r.plan.Motion, Light: r.plan.Light, Noise: r.plan.Noise, Tiles: r.tiles(),
		Rank: r.opt.Peers.Rank(), Ranks: r.ranks()})
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return r.openEarly()
}

// ranks is how many processes a batch is dealt out to; 0: it is not.
func (r *run) ranks() int {
	if r.opt.Peers == nil {
		return 0
	}
	return r.opt.Peers.Size()
}

// chooseBitDepth finds how many of 16 bits the training images use, and reads them again where that is not all.
func (r *run) chooseBitDepth(ctx context.Context) error {
	bits := r.cache.Range(r.items).BitDepth()
	r.config.BitDepth, r.model.Info.Config.BitDepth = bits, bits
	if bits == 16 {
		return nil
	}
	var wide []dataset.Item
	for _, item := range r.items {
		if r.cache.Look(item.Path).Stored.Bits == 16 {
			wide = append(wide, item)
		}
	}
	r.cache.SetBitDepth(bits)
	if _, _, err := dataset.Check(ctx, wide, r.cache, r.opt.Workers, false); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}

// train is the training loop.
func (r *run) train(ctx context.Context) (*Summary, error) {
	if r.opt.OnStart != nil {
		r.opt.OnStart(r.model.Info)
	}
	r.warnOfRange()
	evaluation.WarnTooLarge(r.opt.Log, r.model, r.items, r.cache)
	if err := r.learn(ctx); err != nil {
		return nil, err
	}
	if !r.opt.Peers.First() {
		return nil, r.help(ctx)
	}
	saveError := r.saveCheckpoint()
	if saveError != nil {
		r.opt.Log.Warn("no checkpoint", "error", saveError)
	}
	summary, err := r.finish(ctx)
	if err != nil && saveError != nil {
		return nil, fmt.Errorf("engine: %w: %w", ErrNotSaved, err)
	}
	if err == nil {
		err = r.askFor(noFold)
	}
	return summary, err
}

// noFold is what rank 0 asks for at the end.
const noFold = -1

// askFor has the other processes take part in the training for a fold.
func (r *run) askFor(fold int) error { return r.opt.Peers.Share(&fold) }

// help does what rank 0 asks for while it finishes the run.
func (r *run) help(ctx context.Context) error {
	for {
		fold := noFold
		if err := r.opt.Peers.Share(&fold); err != nil || fold == noFold {
			return err
		}
		if _, err := r.crossScore(ctx, fold); err != nil {
			return err
		}
	}
}

// learn trains to the end of the last epoch.
func (r *run) learn(ctx context.Context) error {
	r.loop = Loop[*dataset.Batch]{Learner: r.learner, Of: r.last() * r.loader.Steps(), Save: r.saveCheckpoint, Every: r.opt.CheckpointEvery,
		Log: r.opt.Log, Peers: r.opt.Peers,
		At: func() string { return fmt.Sprintf("epoch %d, step %d", r.state.Epoch+1, r.state.Step+1) },
		Stood: func() string {
			return fmt.Sprintf("in epoch %d of %d, after a checkpoint", r.state.Epoch+1, r.last())
		}}
	for r.state.Epoch < r.last() {
		if err := r.epoch(ctx); err != nil {
			return err
		}
	}
	return nil
}

// epoch trains from where the run stands to the end of the epoch.
func (r *run) epoch(ctx context.Context) error {
	started := time.Now()
	spent := r.state.Seconds // before an interruption
	r.loop.Done = func(batch *dataset.Batch, losses anomaly.Losses, _ time.Duration) {
		r.state.Step++
		r.state.Images += batch.Whole()
		r.state.Sums = r.state.Sums.Plus(losses, float64(batch.Whole()))
		r.state.Seconds = spent + time.Since(started).Seconds()
		if r.opt.OnStep != nil {
			r.opt.OnStep(Step{Epoch: r.state.Epoch + 1, Epochs: r.last(), Step: r.state.Step,
				Steps: r.loader.Steps(), Images: r.state.Images, Losses: losses})
		}
	}
	if err := r.loop.Run(ctx, r.loader.Epoch(ctx, r.state.Epoch, r.state.Step), r.state.Epoch*r.loader.Steps()+r.state.Step); err != nil {
		return err
	}
	report := anomaly.Epoch{Epoch: r.state.Epoch + 1, Images: r.state.Images, Seconds: r.state.Seconds,
		Losses: r.state.Sums.Times(1 / float64(r.state.Images))}
	if r.config.Select == method.SelectBestOnTest || r.opt.TestEvery > 0 && report.Epoch%r.opt.TestEvery == 0 {
		var err error
		if r.opt.Peers.First() && len(r.tests) > 0 {
			err = r.test(ctx, &report)
		}
		going, lost := r.opt.Peers.Agree(standing(ctx, err))
		switch {
		case lost != nil:
			return lost
		case going == ranks.Stops: // resuming evaluates again
			return r.loop.Interrupt()
		case going == ranks.Fails:
			return cmp.Or(err, error(ranks.ErrLost))
		}
	}
	if err := r.lookEarly(ctx, &report); err != nil {
		if ctx.Err() != nil { // resuming looks again
			return r.loop.Interrupt()
		}
		return err
	}
	r.state = RunState{Epoch: r.state.Epoch + 1, Best: r.state.Best, Early: r.state.Early, History: append(r.state.History, report)}
	if !r.opt.Peers.First() {
		return nil
	}
	if r.opt.OnEpoch != nil {
		r.opt.OnEpoch(report)
	}
	if err := r.writeHistory(); err != nil { // it is written again after the next epoch
		r.opt.Log.Warn("no history", "error", err)
	}
	return nil
}

var errNoTests = setting.Refuse("select", method.SelectBestOnTest, "that needs a test set with good and defective images; use %s", method.SelectLast)

// calibrated are the images that the threshold comes from.
func (r *run) calibrated() []dataset.Item {
	if len(r.held) > 0 {
		return r.held
	}
	return r.items
}

// test measures the epoch on the test set, and keeps its weights where it is the best so far and that is asked for.
func (r *run) test(ctx context.Context, report *anomaly.Epoch) error {
	model, err := r.outcome(ctx, false)
	if err != nil {
		return err
	}
	measured, err := evaluation.Evaluate(ctx, model, r.tests, r.set.HasMasks, nil, r.cache)
	if err != nil {
		return err
	}
	report.Metrics = &measured.Metrics
	if r.config.Select != method.SelectBestOnTest {
		return nil
	}
	mean, any := report.Metrics.Mean()
	if !any {
		return errNoTests
	}
	if r.state.Best.Epoch > 0 && mean <= r.state.Best.Mean {
		return nil
	}
	model.Info.Epoch = report.Epoch
	if err := model.Save(r.path(bestFile)); err != nil {
		return err
	}
	r.state.Best = BestEpoch{Epoch: report.Epoch, Mean: mean}
	return nil
}

// outcome is the model that the run has led to so far, settled. last: nothing more is learned.
func (r *run) outcome(ctx context.Context, last bool) (*modelfile.Model, error) {
	net, err := r.learner.Finish(ctx, evaluation.Images(r.items, r.cache, &r.config.Settings, r.opt.Device), last)
	if err != nil {
		return nil, err
	}
	model := *r.model
	model.Net, model.Info.Facts = net, net.Facts()
	return &model, nil
}

// finish sets the threshold, writes the model, which replaces an older one only now, evaluates it and writes the rest.
func (r *run) finish(ctx context.Context) (*Summary, error) {
	r.model.Info.Epoch = r.last()
	began := time.Now()
	model, selection, err := r.chosen(ctx)
	if err != nil {
		return nil, err
	}
	if model.Net != r.model.Net {
		defer model.Close()
	}
	if model.Info.Calibration, err = r.calibrate(ctx, model); err != nil {
		return nil, err
	}
	calibrating := time.Since(began)
	if err := r.spot(model); err != nil {
		return nil, err
	}
	if r.opt.Provenance != nil {
		p := *r.opt.Provenance
		p.Date, p.Fingerprint, p.Seconds = time.Now().UTC(), model.Info.Data.Fingerprint, calibrating.Seconds()
		for _, epoch := range r.state.History {
			p.Seconds += epoch.Seconds
		}
		model.Provenance = &p
	}
	if err := model.Save(r.path(ModelFile)); err != nil {
		return nil, setting.Advise(err, "make room and continue with {resume}")
	}
	if r.config.Select == method.SelectBestOnTest {
		if err := os.Remove(r.path(bestFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("engine: %w", err)
		}
	}

	last := r.state.History[len(r.state.History)-1]
	calibration := &model.Info.Calibration
	summary := &Summary{Category: r.set.Category, Config: r.config, Teacher: model.Info.Teacher,
		Epoch: model.Info.Epoch, Selection: selection, TrainImages: len(r.items), Losses: last.Losses,
		Provisional:       calibration.Provisional,
		CalibrationImages: len(calibration.Scores), CalibrationFolds: calibration.Folds, CalibrationSeconds: calibrating.Seconds(),
		HasMasks: r.set.HasMasks, Taken: r.set.Taken(),
		Skipped: r.skipped, Range: model.Info.Data.Range, ModelFile: r.path(ModelFile), ModelFileBase64: printable.Base64(r.path(ModelFile)),
		CategoryBase64: printable.Base64(r.set.Category), Spots: model.Info.Spots, From: model.Info.From, Provenance: model.Provenance}
	trained := 0
	for _, epoch := range r.state.History {
		summary.TrainingSeconds += epoch.Seconds
		trained += epoch.Images
	}
	measured, err := evaluation.Evaluate(ctx, model, r.tests, r.set.HasMasks, calibration, r.cache)
	if err != nil {
		return nil, err
	}
	if summary.Warning = measured.Warning(); summary.Warning != "" {
		r.opt.Log.Warn(summary.Warning)
	}
	summary.Metrics, summary.Verdicts, summary.EvaluationSeconds = measured.Metrics, measured.Verdicts(calibration), measured.Seconds
	if _, summary.DeviceBytes, err = torch.DeviceMemory(r.opt.Device); err != nil {
		return nil, err
	}
	if err := r.writeHistory(); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(summary, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("engine: %s: %w", MetricsFile, err)
	}
	if err := writeFile(r.path(MetricsFile), append(text, '\n')); err != nil {
		return nil, err
	}
	if err := atomicfile.Write(r.path(ScoresFile), measured.WriteScores); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	err = evaluation.WriteReport(ctx, model, r.path(ReportFile), r.set, measured, evaluation.ReportOptions{Selection: selection, History: r.state.History,
		Timings: []report.Timing{{Stage: "training", Duration: seconds(summary.TrainingSeconds), Images: trained},
			{Stage: "calibration", Duration: calibrating}}, Skipped: r.skipped,
		MaxPixels: r.opt.MaxPixels, Cache: r.cache, Calibration: r.calibrated()})
	if err != nil {
		return nil, err
	}
	gone := r.foldFiles()
	if r.opt.DropCheckpoint {
		gone = append(gone, r.path(checkpointFile))
	}
	return summary, removeAll(gone)
}

func writeFile(path string, content []byte) error {
	err := atomicfile.Write(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}

// chosen is the model of the epoch that was asked for, settled, and how it was chosen, in words. Nothing more is learned.
func (r *run) chosen(ctx context.Context) (model *modelfile.Model, selection string, err error) {
	if r.config.Select != method.SelectBestOnTest {
		model, err = r.outcome(ctx, true)
		selection = "last epoch"
		if r.last() < r.config.Epochs {
			selection = fmt.Sprintf("last epoch; stopped early, after %d of %d", r.last(), r.config.Epochs)
		}
		return model, selection, err
	}
	r.learner.Close() // its memory is needed
	path := r.path(bestFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		path = r.path(ModelFile) // where a run that is finished, and resumed for more epochs, has put its best one
	}
	best, err := modelfile.Load(path, modelfile.LoadOptions{Device: r.opt.Device})
	if err != nil {
		return nil, "", err
	}
	if best.Info.Epoch != r.state.Best.Epoch {
		best.Close()
		return nil, "", setting.Advise(fmt.Errorf("engine: %s is of epoch %d, the best one was %d", path, best.Info.Epoch, r.state.Best.Epoch),
			"start anew with {overwrite}")
	}
	if err := best.Net.Settle(); err != nil {
		best.Close()
		return nil, "", err
	}
	best.Info.Config = r.config // Epochs may have been raised since
	return best, "best of all epochs on the test set: the metrics below are optimistic", nil
}

// writeHistory writes a line per epoch; metrics are empty where nothing was measured.
func (r *run) writeHistory() error {
	var text bytes.Buffer
	table := csv.NewWriter(&text)
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	present := func(x *float64) string {
		if x == nil {
			return ""
		}
		return number(*x)
	}
	optional := func(m *anomaly.Metrics, pick func(*anomaly.Metrics) *float64) string {
		if m == nil {
			return ""
		}
		return present(pick(m))
	}
	var names, columns []string // of the losses
	for _, loss := range r.state.History[0].Losses {
		name := "loss_" + loss.Name
		if loss.Name == anomaly.LossTotal {
			name = "loss"
		}
		names, columns = append(names, loss.Name), append(columns, name)
	}
	head := slices.Concat([]string{"epoch", "images"}, columns, []string{"seconds", "images_per_second", "image_auroc", "pixel_auroc", "aupro_030"})
	if r.early != nil {
		head = append(head, "made_up_ap")
	}
	rows := [][]string{head}
	for _, e := range r.state.History {
		row := []string{strconv.Itoa(e.Epoch), strconv.Itoa(e.Images)}
		for _, name := range names {
			row = append(row, number(e.Losses.Get(name)))
		}
		row = append(row,
			strconv.FormatFloat(e.Seconds, 'f', 3, 64), strconv.FormatFloat(float64(e.Images)/max(e.Seconds, 1e-9), 'f', 2, 64),
			optional(e.Metrics, func(m *anomaly.Metrics) *float64 { return m.ImageAUROC }),
			optional(e.Metrics, func(m *anomaly.Metrics) *float64 { return m.PixelAUROC }),
			optional(e.Metrics, func(m *anomaly.Metrics) *float64 { return m.AUPRO }))
		if r.early != nil {
			row = append(row, present(e.MadeUp))
		}
		rows = append(rows, row)
	}
	if err := table.WriteAll(rows); err != nil {
		return fmt.Errorf("engine: %s: %w", HistoryFile, err)
	}
	return writeFile(r.path(HistoryFile), text.Bytes())
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// warnOfRange says where the number of bits that was asked for is not the one that the training images use.
func (r *run) warnOfRange() {
	bits, seen := r.config.BitDepth, r.model.Info.Data.Range
	switch found := seen.BitDepth(); {
	case seen.Wide == 0:
	case seen.Largest >= 1<<bits:
		r.opt.Log.Warn("16-bit images have values above those of the bit depth: they become white", "bits", bits, "largest", seen.Largest)
	case found < bits:
		r.opt.Log.Warn("16-bit images use fewer bits than the bit depth says: they come out dark", "bits", bits, "used", found, "largest", seen.Largest)
	case seen.MostlyBlack():
		// The largest value is no measure then: a pixel of the sensor is broken, or an image is from another camera.
		r.opt.Log.Warn("most 16-bit images come out nearly black: where their camera uses fewer bits, give the bit depth", "bits", bits,
			"nearly_black", seen.Black, "images", seen.Wide, "largest", seen.Largest)
	}
}
