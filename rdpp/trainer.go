package rdpp

import (
	"bytes"
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

	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/printable"
	"rdpp/rdpp/report"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// ErrInterrupted says that training stopped because its context ended, after a checkpoint.
var ErrInterrupted = errors.New("interrupted")

// errNotSaved says that it stopped without one.
var errNotSaved = errors.New("no checkpoint could be written, and what was learned since the last one is lost")

// TrainOptions say where and how to train. Of them only Teacher changes the result, and Device its rounding. Zero
// fields mean the defaults.
type TrainOptions struct {
	Out             string        // folder for the results, made where missing; required
	Teacher         string        // weight file, or one of TeacherWords; default TeacherAuto
	Device          torch.Device  // default the CPU
	Workers         int           // goroutines that make batches, default one per core
	CheckpointEvery time.Duration // default 5 minutes
	CacheBytes      int64         // bound of the image cache, default 2 GiB; negative: keep nothing
	MaxPixels       int64         // largest image accepted, default imagefile.DefaultMaxPixels
	SkipBad         bool          // leave out images that cannot be read, instead of failing
	Resume          bool          // go on from the checkpoint in Out, where there is one
	Overwrite       bool          // start anew even where Out holds a run
	Deterministic   bool          // the same bits every time on a GPU too, at some cost; on the CPU they always are
	TestEvery       int           // epochs between measurements on the test set, to look at; 0: none but the last

	OnDownload func(file string, done, total int64) // as in TeacherOptions

	OnStart func(Info)        // called when all is read, before the first step, on the training goroutine
	OnStep  func(StepReport)  // after every step
	OnEpoch func(EpochReport) // after every epoch
	Log     *slog.Logger      // default slog.Default()
}

// Losses are the terms of the training loss and their weighted total (paper, Eq. 2).
type Losses struct {
	Total    float64 `json:"total"`
	KD       float64 `json:"kd"`
	SSOT     float64 `json:"ssot"`
	Recon    float64 `json:"recon"`
	Contrast float64 `json:"contrast"`
}

func (l Losses) plus(m Losses, factor float64) Losses {
	return Losses{l.Total + factor*m.Total, l.KD + factor*m.KD, l.SSOT + factor*m.SSOT, l.Recon + factor*m.Recon,
		l.Contrast + factor*m.Contrast}
}

// StepReport describes a step.
type StepReport struct {
	Epoch, Epochs int // counted from 1
	Step, Steps   int // of the epoch, counted from 1
	Fold, Folds   int // of the trainings for the calibration, counted from 1; 0: of the model itself
	Images        int // of the epoch so far
	Losses        Losses
}

// EpochReport describes an epoch; losses are means over its images.
type EpochReport struct {
	Epoch   int      `json:"epoch"` // counted from 1
	Images  int      `json:"images"`
	Losses  Losses   `json:"losses"`
	Seconds float64  `json:"seconds"`
	Metrics *Metrics `json:"metrics,omitempty"` // on the test set, with SelectBestOnTest or TestEvery
}

// Summary is the outcome of a training, and metrics.json.
type Summary struct {
	Category           string         `json:"category"`
	CategoryBase64     string         `json:"category_base64,omitempty"` // its bytes, where it is not UTF-8, which JSON cannot hold
	Config             Config         `json:"config"`
	Teacher            TeacherInfo    `json:"teacher"`
	Epoch              int            `json:"epoch"`     // that became the model
	Selection          string         `json:"selection"` // how it was chosen, in words
	TrainImages        int            `json:"train_images"`
	Taken              dataset.Taken  `json:"taken"` // what of the data was taken for what
	Metrics                           // on the test set
	HasMasks           bool           `json:"has_masks"` // it has masks
	Verdicts                          // by the threshold
	Threshold          float64        `json:"threshold"`
	ThresholdRule      string         `json:"threshold_rule"`
	Provisional        bool           `json:"threshold_provisional"`
	CalibrationImages  int            `json:"calibration_images"`          // good images whose scores set the threshold
	CalibrationFolds   int            `json:"calibration_folds,omitempty"` // trainings that scored them; 0: the model did, and was not trained on them
	Losses             Losses         `json:"losses"`                      // of the last epoch
	TrainingSeconds    float64        `json:"seconds"`                     // over all epochs
	CalibrationSeconds float64        `json:"calibration_seconds"`         // scoring for the threshold, and the trainings that takes
	EvaluationSeconds  float64        `json:"evaluation_seconds"`
	DeviceBytes        int64          `json:"device_peak_bytes,omitempty"` // of a CUDA device's memory, at most in use
	Skipped            []dataset.Skip `json:"skipped,omitempty"`
	Range              dataset.Range  `json:"range"`             // of the training images
	Warning            string         `json:"warning,omitempty"` // of test images that are unlike those
	ModelFile          string         `json:"model_file"`
	ModelFileBase64    string         `json:"model_file_base64,omitempty"` // as CategoryBase64
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
// history and checkpoints to opt.Out. The same configuration, with a precision that is not PrecisionAuto, data, device and
// number of threads give the same model file, byte for byte on the CPU, whether or not the training was interrupted and
// resumed. When ctx ends it writes a checkpoint and returns ErrInterrupted.
func Train(ctx context.Context, config Config, set *dataset.Set, opt TrainOptions) (*Summary, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Teacher == "" {
		opt.Teacher = TeacherAuto
	}
	if opt.CheckpointEvery == 0 {
		opt.CheckpointEvery = 5 * time.Minute
	}
	worker := torch.NewWorker()
	defer worker.Close()
	var summary *Summary
	err := worker.Do(func() (err error) {
		r := &run{config: config, opt: opt, set: set}
		defer r.close()
		if err = r.prepare(ctx); err == nil {
			summary, err = r.train(ctx)
		}
		return err
	})
	if err != nil && ctx.Err() != nil && !errors.Is(err, ErrInterrupted) && !errors.Is(err, errNotSaved) {
		return nil, fmt.Errorf("rdpp: %w: %w", setting.Advise(ErrInterrupted, "{resume} continues"), err)
	}
	return summary, err
}

// run is one training.
type run struct {
	lock   *os.File // on the folder, while the run lasts
	config Config
	opt    TrainOptions
	set    *dataset.Set

	items, tests []dataset.Item // that can be read; items are trained on
	held         []dataset.Item // good ones that are not, for the calibration
	folds        int            // trainings for the calibration, where there are too few images to hold any out
	skipped      []dataset.Skip
	cache        *dataset.Cache
	loader       *dataset.Loader
	steps        int // per epoch
	model        *Model
	average      *Model // of its weights; nil: none
	adam         *torch.Adam
	rates        []float64 // highest, per group of adam
	ssot         torch.SSOT
	state        runState
	saved        time.Time // when the last checkpoint was written
}

func (r *run) path(name string) string { return filepath.Join(r.opt.Out, name) }

func (r *run) close() {
	if r.lock != nil {
		r.lock.Close()
	}
	r.adam.Close()
	if r.average != nil {
		r.average.closeTrained()
	}
	if r.model != nil {
		r.model.Close()
	}
}

// prepare reads everything that can be wrong before any time is spent on training.
func (r *run) prepare(ctx context.Context) (err error) {
	if r.opt.Out == "" {
		return wrong("out", nil, "name a folder for the results")
	}
	r.lock, err = claim(r.opt.Log, r.path(checkpointFile), r.path(ModelFile), r.path(MetricsFile), r.path(HistoryFile),
		r.path(ReportFile), r.path(ScoresFile), r.path(bestFile))
	if err != nil {
		return err
	}
	file, saved, err := r.openCheckpoint()
	if err != nil {
		return err
	}
	if file != nil {
		defer file.Close()
	}
	if r.ssot, err = r.config.ssot(); err != nil {
		return err
	}
	if r.config.Precision == PrecisionAuto && file != nil {
		r.config.Precision = saved.Info.Config.Precision
	}
	if r.config.BitDepth == BitDepthAuto && file != nil {
		r.config.BitDepth = saved.Info.Config.BitDepth
	}
	err = torch.SetArithmetic(r.config.Precision == string(torch.TF32), r.opt.Deterministic && r.opt.Device != torch.CPU)
	if err != nil {
		return fmt.Errorf("rdpp: %w", err)
	}
	if r.model, err = NewModel(r.config, r.opt.Device); err != nil {
		return err
	}
	if file == nil {
		teacher, err := FindTeacher(ctx, r.opt.Teacher, r.config.Arch, TeacherOptions{OnDownload: r.opt.OnDownload, Log: r.opt.Log})
		if err != nil {
			return err
		}
		if err := r.model.LoadTeacher(teacher); err != nil {
			return err
		}
	}
	if err := r.readData(ctx); err != nil {
		return err
	}
	if r.config.Precision == PrecisionAuto {
		if err := r.choosePrecision(ctx); err != nil {
			return err
		}
	}
	if file == nil && r.config.Equalise {
		if err := r.model.equaliseTeacher(ctx, r.items, r.cache); err != nil {
			return err
		}
	}
	if err := r.startAdam(); err != nil {
		return err
	}
	if file != nil {
		err = r.restore(file, saved)
	} else {
		// An older run's must not be taken for this one's.
		err = removeAll(append(r.foldFiles(), r.path(checkpointFile)))
	}
	if err == nil && r.config.Average > 0 {
		err = r.startAverage(file)
	}
	if err != nil {
		return err
	}
	return r.findRoom(file != nil)
}

// startAdam makes the optimiser, with a group for every network that learns.
func (r *run) startAdam() (err error) {
	if r.adam, err = torch.NewAdam(r.config.Beta1, r.config.Beta2, r.config.AdamEps); err != nil {
		return err
	}
	for _, part := range r.model.trained() {
		rate := r.config.RateDistill
		if part.prefix == prefixProjection {
			rate = r.config.RateProjection
		}
		r.rates = append(r.rates, rate)
		if err := r.adam.Add(part.net, rate); err != nil {
			return err
		}
	}
	return r.adam.SetClip(r.config.Clip)
}

func removeAll(paths []string) error {
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("rdpp: %w", err)
		}
	}
	return nil
}

// openCheckpoint returns the checkpoint to resume, if any, and protects one that is not to be resumed.
func (r *run) openCheckpoint() (*weights.File, *checkpoint, error) {
	if r.opt.Overwrite {
		return nil, nil, nil
	}
	file, saved, err := readCheckpoint(r.path(checkpointFile))
	if err != nil || r.opt.Resume {
		return file, saved, err
	}
	if file == nil {
		return nil, nil, r.protectModel()
	}
	defer file.Close()
	if done := saved.State.Epoch; done < saved.Info.Config.Epochs || len(r.foldFiles()) > 0 {
		return nil, nil, wrong("out", r.opt.Out, "it holds an unfinished run (%d of %d epochs done): continue it with {resume}, or start anew with "+
			"{overwrite}", done, saved.Info.Config.Epochs)
	}
	return nil, nil, r.protectModel()
}

// protectModel refuses to train into the folder of a finished run.
func (r *run) protectModel() error {
	if _, err := os.Lstat(r.path(ModelFile)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return wrong("out", r.opt.Out, "it holds a finished run: replace it with {overwrite}, train it for more {epochs} with {resume}, or choose "+
		"another folder")
}

// claim makes the folder of a run's files, which no other training may write to until the lock is closed, shows that
// it can be written to, and removes what a killed run left of the files half-written.
func claim(log *slog.Logger, files ...string) (lock *os.File, err error) {
	dir := filepath.Dir(files[0])
	if lock, err = lockFolder(dir, log); err != nil {
		return nil, err
	}
	err = atomicfile.Room(dir, 0)
	for _, file := range files {
		if err == nil {
			err = atomicfile.RemoveTemporary(file)
		}
	}
	if err != nil {
		lock.Close()
		return nil, setting.Advise(fmt.Errorf("rdpp: cannot write to the output folder: %w", err), "choose another with {out}")
	}
	return lock, nil
}

func lockFolder(dir string, log *slog.Logger) (*os.File, error) {
	lock, unlocked, err := atomicfile.Lock(dir)
	switch {
	case errors.Is(err, atomicfile.ErrLocked):
		return nil, setting.Advise(fmt.Errorf("rdpp: another training is writing to %s", dir), "wait for it, or choose another folder with {out}")
	case err != nil:
		return nil, setting.Advise(fmt.Errorf("rdpp: cannot write to the output folder: %w", err), "choose another with {out}")
	case unlocked != nil:
		log.Warn("the output folder cannot be locked: take care that no other training writes there", "folder", dir, "error", unlocked)
	}
	return lock, nil
}

func (r *run) readData(ctx context.Context) error {
	S := r.config.ImageSize
	if r.cache == nil {
		r.cache = dataset.NewCache(dataset.CacheOptions{Size: S, MaxBytes: r.opt.CacheBytes, MaxPixels: r.opt.MaxPixels,
			BitDepth: r.config.BitDepth})
	}
	r.skipped = slices.Clone(r.set.Skipped)
	for _, part := range []struct {
		from []dataset.Item
		to   *[]dataset.Item
	}{{r.set.Train, &r.items}, {r.set.Test, &r.tests}} {
		good, skipped, err := dataset.Check(ctx, part.from, r.cache, r.opt.Workers, r.opt.SkipBad)
		if err != nil && ctx.Err() == nil {
			return setting.Advise(fmt.Errorf("rdpp: %w", err), "{skip_bad} leaves such files out")
		}
		if err != nil {
			return fmt.Errorf("rdpp: %w", err)
		}
		*part.to = good
		r.skipped = append(r.skipped, skipped...)
		if r.config.BitDepth == BitDepthAuto { // the first part's, which are trained on
			if err := r.chooseBitDepth(ctx); err != nil {
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
	if pages := r.cache.Pages(); len(pages) > 0 {
		first := slices.Min(slices.Collect(maps.Keys(pages)))
		r.opt.Log.Warn("of images with several pages the first is used", "images", len(pages), "file", first, "pages", pages[first])
	}
	defective := func(item dataset.Item) bool { return item.Defective }
	good := func(item dataset.Item) bool { return !item.Defective }
	if r.config.Select == SelectBestOnTest &&
		!(slices.ContainsFunc(r.tests, defective) && (r.set.HasMasks || slices.ContainsFunc(r.tests, good))) {
		return errNoTests
	}
	if len(r.items) == 0 {
		return fmt.Errorf("rdpp: no good image of %s can be read; mend the files listed above", r.set.Category)
	}
	seen := r.cache.Range(r.items)
	fingerprint, err := dataset.Fingerprint(r.items)
	if err != nil {
		return fmt.Errorf("rdpp: %w", err)
	}
	r.items, r.held, r.folds = holdOut(r.items, &r.config)
	sizes := []int{len(r.items)} // of what is trained on
	for fold := range r.folds {
		sizes = append(sizes, len(r.items)-(len(r.items)-fold+r.folds-1)/r.folds)
	}
	if alone := slices.IndexFunc(sizes, func(n int) bool { return S < 64 && (n-1)%r.config.Batch == 0 }); alone >= 0 {
		return wrong("batch", r.config.Batch, "it leaves one of the %d images alone in a batch, which is too little for batch norm where "+
			"{image_size} is %d: use another {batch}, or 64 for {image_size}", sizes[alone], S)
	}
	if steps := (len(r.items) + r.config.Batch - 1) / r.config.Batch; r.config.Updates > 0 {
		r.config.Epochs = min(r.config.Epochs, (r.config.Updates*r.config.Accumulate+steps-1)/steps)
		r.model.Info.Config.Epochs = r.config.Epochs
	}
	if steps := (slices.Min(sizes) + r.config.Batch - 1) / r.config.Batch; r.config.Epochs*steps < r.config.Accumulate {
		return wrong("accumulate", r.config.Accumulate, "the %d steps of the training then make no update of the weights: use more {epochs}, or 1",
			r.config.Epochs*steps)
	}
	r.model.Info.Category = r.set.Category
	r.model.Info.Data = DataInfo{Images: len(r.items), HeldOut: len(r.held), Fingerprint: fingerprint, Layout: r.set.Layout,
		Range: seen}
	r.loader, err = dataset.NewLoader(r.items, dataset.LoaderOptions{Batch: r.config.Batch, Size: S,
		Norm: r.config.norm(), Seed: r.config.Seed, Workers: r.opt.Workers, Cache: r.cache, Light: dataset.Light{Exposure: r.config.Light},
		Noise: dataset.NoiseOptions{Lambda: r.config.NoiseLambda, Released: r.config.NoiseReleased, Defects: r.config.Defects, Share: r.config.Denoise,
			Off: r.config.Method == MethodRD}})
	if err != nil {
		return fmt.Errorf("rdpp: %w", err)
	}
	r.steps = r.loader.Steps()
	return nil
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
		return fmt.Errorf("rdpp: %w", err)
	}
	return nil
}

// train is the training loop.
func (r *run) train(ctx context.Context) (*Summary, error) {
	if r.opt.OnStart != nil {
		r.opt.OnStart(r.model.Info)
	}
	r.warnOfRange()
	if err := r.learn(ctx); err != nil {
		return nil, err
	}
	saveError := r.saveCheckpoint()
	if saveError != nil {
		r.opt.Log.Warn("no checkpoint", "error", saveError)
	}
	summary, err := r.finish(ctx)
	if err != nil && saveError != nil {
		return nil, fmt.Errorf("rdpp: %w: %w", errNotSaved, err)
	}
	return summary, err
}

// learn trains to the end of the last epoch.
func (r *run) learn(ctx context.Context) error {
	r.saved = time.Now()
	for r.state.Epoch < r.config.Epochs {
		if err := r.epoch(ctx); err != nil {
			return err
		}
	}
	return nil
}

// epoch trains from where the run stands to the end of the epoch.
func (r *run) epoch(ctx context.Context) error {
	if err := r.model.train(true); err != nil {
		return err
	}
	started := time.Now()
	spent := r.state.Seconds // before an interruption
	for batch, err := range r.loader.Epoch(ctx, r.state.Epoch, r.state.Step) {
		if ctx.Err() != nil {
			break
		}
		if err != nil { // an image that could be read at the start
			if saveError := r.saveCheckpoint(); saveError != nil {
				r.opt.Log.Warn("no checkpoint", "error", saveError)
			}
			return fmt.Errorf("rdpp: %w", err)
		}
		losses, err := r.step(batch)
		if err != nil {
			return fmt.Errorf("rdpp: epoch %d, step %d: %w", r.state.Epoch+1, r.state.Step+1, err)
		}
		r.state.Step++
		r.state.Images += batch.B
		r.state.Sums = r.state.Sums.plus(losses, float64(batch.B))
		r.state.Seconds = spent + time.Since(started).Seconds()
		if r.opt.OnStep != nil {
			r.opt.OnStep(StepReport{Epoch: r.state.Epoch + 1, Epochs: r.config.Epochs, Step: r.state.Step,
				Steps: r.loader.Steps(), Images: r.state.Images, Losses: losses})
		}
		if time.Since(r.saved) >= r.opt.CheckpointEvery {
			// A full disk may have room again before the end, so training goes on.
			if err := r.saveCheckpoint(); err != nil {
				r.opt.Log.Warn("no checkpoint", "error", err)
			}
			r.saved = time.Now()
		}
	}
	if ctx.Err() != nil {
		return r.interrupt()
	}
	report := EpochReport{Epoch: r.state.Epoch + 1, Images: r.state.Images, Seconds: r.state.Seconds,
		Losses: Losses{}.plus(r.state.Sums, 1/float64(r.state.Images))}
	best := r.config.Select == SelectBestOnTest
	if best || r.opt.TestEvery > 0 && report.Epoch%r.opt.TestEvery == 0 && len(r.tests) > 0 {
		err := r.test(ctx, &report)
		if ctx.Err() != nil { // resuming evaluates again
			return r.interrupt()
		}
		if err == nil && best {
			err = r.keepBest(&report)
		}
		if err != nil {
			return err
		}
	}
	r.state = runState{Epoch: r.state.Epoch + 1, Pending: r.state.Pending, Best: r.state.Best,
		History: append(r.state.History, report)}
	if r.opt.OnEpoch != nil {
		r.opt.OnEpoch(report)
	}
	if err := r.writeHistory(); err != nil { // it is written again after the next epoch
		r.opt.Log.Warn("no history", "error", err)
	}
	return nil
}

// interrupt writes a checkpoint and returns ErrInterrupted.
func (r *run) interrupt() error {
	if err := r.saveCheckpoint(); err != nil {
		return fmt.Errorf("rdpp: %w: %w", errNotSaved, err)
	}
	return setting.Advise(fmt.Errorf("rdpp: %w in epoch %d of %d, after a checkpoint", ErrInterrupted, r.state.Epoch+1, r.config.Epochs),
		"{resume} continues")
}

// step is Algorithm 2's body: teacher, projection, bottleneck, student, the losses, and every Accumulate-th time an
// update. Clean and noisy images go through the networks together.
func (r *run) step(batch *dataset.Batch) (Losses, error) {
	c, m := &r.config, r.model
	S := int64(c.ImageSize)
	var s torch.Scope
	defer s.Close()
	dtype := torch.Precision(c.Precision).DType()
	images := func(data []float32) *torch.Tensor { // B x 3 x S x S
		host := s.Tensor(torch.FromSlice(data, int64(len(data))/(3*S*S), 3, S, S))
		return s.Tensor(host.To(m.Device, dtype))
	}
	x := images(batch.Clean)

	var f, g torch.Features // teacher's and student's, K tensors of B x C x H x W
	var terms []torch.Term
	if c.Method == MethodRD {
		f = s.Features(m.Teacher.Forward(x))
		z := s.Tensor(m.Bottleneck.Forward(f)) // B x 512e x S/32 x S/32
		g = s.Features(m.Student.Forward(z))
	} else {
		noisyB := len(batch.Noisy) / (3 * c.ImageSize * c.ImageSize)
		both := s.Features(m.Teacher.ForwardPair(x, images(batch.Noisy))) // B + noisyB rows: clean, noisy
		clean, noisy := s.Two(both.Split(batch.B))
		projected := s.Features(m.Projection.Forward(both))
		p, pNoisy := s.Two(projected.Split(batch.B))
		pSame, pRest := s.Two(p.Split(noisyB)) // those of the noisy ones, and the others
		seen := p
		if c.Denoise > 0 {
			seen = s.Features(torch.Join(pNoisy, pRest))
		}
		z := s.Tensor(m.Bottleneck.Forward(seen)) // B x 512e x S/32 x S/32
		f, g = clean, s.Features(m.Student.Forward(z))
		if c.Project == ProjectCoarsest {
			for _, features := range []*torch.Features{&noisy, &p, &pNoisy, &pSame} {
				*features = torch.Features{torch.Scales - 1: features[torch.Scales-1]}
			}
		}
		terms = []torch.Term{
			{Value: s.Tensor(torch.LossSSOT(p, batch.Shuffle, r.ssot, c.sinkhorn())), Weight: c.WeightSSOT},
			{Value: s.Tensor(torch.LossRecon(pNoisy, pSame)), Weight: c.WeightRecon},
			{Value: s.Tensor(torch.LossContrast(noisy, pSame, c.Margin)), Weight: c.WeightContrast},
		}
	}
	kd := s.Tensor(torch.LossKD(f, g, c.KDPerPosition, torch.Easy{Cut: c.EasyCut, Below: c.EasyBelow}))
	total := s.Tensor(torch.WeightedSum(append(terms, torch.Term{Value: kd, Weight: 1})...))
	s.Check(torch.Backward(total))
	if r.state.Pending++; r.state.Pending >= c.Accumulate {
		steps := r.steps
		update, updates := (r.state.Epoch*steps+r.state.Step)/c.Accumulate, c.Epochs*steps/c.Accumulate
		factor := c.rateFactor(update, updates)
		for group, rate := range r.rates {
			s.Check(r.adam.SetRate(group, rate*factor))
		}
		s.Check(r.adam.Step())
		s.Check(r.follow(c.averageWeight(update, updates)))
		r.state.Pending = 0
	}
	read := []*torch.Tensor{total, kd}
	for _, term := range terms {
		read = append(read, term.Value)
	}
	if err := s.Err(); err != nil {
		return Losses{}, err
	}
	values, err := torch.Scalars(read...)
	if err != nil {
		return Losses{}, err
	}
	values = append(values, 0, 0, 0) // RD has no further terms
	losses := Losses{Total: values[0], KD: values[1], SSOT: values[2], Recon: values[3], Contrast: values[4]}
	if losses.Total-losses.Total != 0 { // NaN or infinite
		return losses, fmt.Errorf("the loss is %v; use a lower learning rate, or look for damaged images", losses.Total)
	}
	return losses, nil
}

var errNoTests = wrong("select", SelectBestOnTest, "that needs a test set with good and defective images; use %s", SelectLast)

// test measures the epoch on the test set.
func (r *run) test(ctx context.Context, report *EpochReport) error {
	model := r.outcome()
	if err := model.balance(ctx, r.items, r.cache); err != nil {
		return err
	}
	evaluation, err := model.evaluate(ctx, r.tests, r.set.HasMasks, r.cache)
	if err == nil {
		report.Metrics = &evaluation.Metrics
	}
	return err
}

// keepBest keeps the weights of the epoch where it is the best so far on the test set.
func (r *run) keepBest(report *EpochReport) error {
	model := r.outcome()
	mean, any := report.Metrics.mean()
	if !any {
		return errNoTests
	}
	if r.state.Best.Epoch > 0 && mean <= r.state.Best.Mean {
		return nil
	}
	r.state.Best = bestEpoch{Epoch: report.Epoch, Mean: mean}
	model.Info.Epoch = report.Epoch
	return model.Save(r.path(bestFile))
}

// finish sets the threshold, writes the model, which replaces an older one only now, evaluates it and writes the rest.
func (r *run) finish(ctx context.Context) (*Summary, error) {
	r.model.Info.Epoch = r.config.Epochs
	model, selection := r.outcome(), "last epoch"
	if r.config.Select == SelectBestOnTest {
		path := r.path(bestFile)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			path = r.path(ModelFile) // where a run that is finished, and resumed for more epochs, has put its best one
		}
		best, err := LoadModel(path, r.opt.Device)
		if err != nil {
			return nil, err
		}
		defer best.Close()
		if best.Info.Epoch != r.state.Best.Epoch {
			return nil, setting.Advise(fmt.Errorf("rdpp: %s is of epoch %d, the best one was %d", path, best.Info.Epoch, r.state.Best.Epoch),
				"start anew with {overwrite}")
		}
		model = best
		model.Info.Config = r.config // Epochs may have been raised since
		selection = "best of all epochs on the test set: the metrics below are optimistic"
	}
	began := time.Now()
	if err := model.balance(ctx, r.items, r.cache); err != nil {
		return nil, err
	}
	var err error
	if model.Info.Calibration, err = r.calibrate(ctx, model); err != nil {
		return nil, err
	}
	calibrating := time.Since(began)
	if err := model.Save(r.path(ModelFile)); err != nil {
		return nil, setting.Advise(err, "make room and continue with {resume}")
	}
	if r.config.Select == SelectBestOnTest {
		if err := os.Remove(r.path(bestFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("rdpp: %w", err)
		}
	}

	last := r.state.History[len(r.state.History)-1]
	calibration := &model.Info.Calibration
	summary := &Summary{Category: r.set.Category, Config: r.config, Teacher: model.Info.Teacher,
		Epoch: model.Info.Epoch, Selection: selection, TrainImages: len(r.items), Losses: last.Losses,
		Threshold: calibration.Threshold, ThresholdRule: calibration.Rule, Provisional: calibration.Provisional,
		CalibrationImages: len(calibration.Scores), CalibrationFolds: calibration.Folds, CalibrationSeconds: calibrating.Seconds(),
		HasMasks: r.set.HasMasks, Taken: r.set.Taken(),
		Skipped: r.skipped, Range: model.Info.Data.Range, ModelFile: r.path(ModelFile), ModelFileBase64: printable.Base64(r.path(ModelFile)),
		CategoryBase64: printable.Base64(r.set.Category)}
	trained := 0
	for _, epoch := range r.state.History {
		summary.TrainingSeconds += epoch.Seconds
		trained += epoch.Images
	}
	evaluation, err := model.evaluate(ctx, r.tests, r.set.HasMasks, r.cache)
	if err != nil {
		return nil, err
	}
	if summary.Warning = evaluation.Warning(); summary.Warning != "" {
		r.opt.Log.Warn(summary.Warning)
	}
	summary.Metrics, summary.Verdicts, summary.EvaluationSeconds = evaluation.Metrics, evaluation.Verdicts(calibration.Threshold), evaluation.Seconds
	if _, summary.DeviceBytes, err = torch.DeviceMemory(r.opt.Device); err != nil {
		return nil, err
	}
	if err := r.writeHistory(); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(summary, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("rdpp: %s: %w", MetricsFile, err)
	}
	if err := writeFile(r.path(MetricsFile), append(text, '\n')); err != nil {
		return nil, err
	}
	if err := atomicfile.Write(r.path(ScoresFile), evaluation.WriteScores); err != nil {
		return nil, fmt.Errorf("rdpp: %w", err)
	}
	err = model.writeReport(ctx, r.path(ReportFile), r.set, evaluation, ReportOptions{Selection: selection, History: r.state.History,
		Timings: []report.Timing{{Stage: "training", Duration: seconds(summary.TrainingSeconds), Images: trained},
			{Stage: "calibration", Duration: calibrating}}, Skipped: r.skipped,
		MaxPixels: r.opt.MaxPixels, cache: r.cache})
	if err != nil {
		return nil, err
	}
	return summary, removeAll(r.foldFiles())
}

func writeFile(path string, content []byte) error {
	err := atomicfile.Write(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
	if err != nil {
		return fmt.Errorf("rdpp: %w", err)
	}
	return nil
}

// writeHistory writes a line per epoch; metrics are empty where the test set was not looked at.
func (r *run) writeHistory() error {
	var text bytes.Buffer
	table := csv.NewWriter(&text)
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	optional := func(m *Metrics, pick func(*Metrics) *float64) string {
		if m == nil || pick(m) == nil {
			return ""
		}
		return number(*pick(m))
	}
	rows := [][]string{{"epoch", "images", "loss", "loss_kd", "loss_ssot", "loss_recon", "loss_contrast", "seconds",
		"images_per_second", "image_auroc", "pixel_auroc", "aupro_030"}}
	for _, e := range r.state.History {
		rows = append(rows, []string{strconv.Itoa(e.Epoch), strconv.Itoa(e.Images), number(e.Losses.Total),
			number(e.Losses.KD), number(e.Losses.SSOT), number(e.Losses.Recon), number(e.Losses.Contrast),
			strconv.FormatFloat(e.Seconds, 'f', 3, 64), strconv.FormatFloat(float64(e.Images)/max(e.Seconds, 1e-9), 'f', 2, 64),
			optional(e.Metrics, func(m *Metrics) *float64 { return m.ImageAUROC }),
			optional(e.Metrics, func(m *Metrics) *float64 { return m.PixelAUROC }),
			optional(e.Metrics, func(m *Metrics) *float64 { return m.AUPRO })})
	}
	if err := table.WriteAll(rows); err != nil {
		return fmt.Errorf("rdpp: %s: %w", HistoryFile, err)
	}
	return writeFile(r.path(HistoryFile), text.Bytes())
}
