package rdpp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"rdpp/rdpp/pattern"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// How a teacher's file holds its numbers.
const (
	StoreFP16 = "fp16"
	StoreFP32 = "fp32"
)

// PretrainOptions say where and how to pre-train. Of them only Store and Device change the result, in its rounding.
// Zero fields mean the defaults.
type PretrainOptions struct {
	Out             string        // the teacher's file; required. One run at a time writes to its folder
	Store           string        // StoreFP16 (default) or StoreFP32
	Device          torch.Device  // default the CPU
	Workers         int           // goroutines that draw, default one per core
	CheckpointEvery time.Duration // default 5 minutes
	Resume          bool          // go on from the checkpoint beside Out, where there is one
	Overwrite       bool          // start anew even where there is a teacher or an unfinished run

	OnStep func(PretrainReport) // called after every step, on the training goroutine
	Log    *slog.Logger         // default slog.Default()
}

// ScaleReport is how well a scale's head does: an average over all steps so far, from the 100th on an exponential one
// in which a step has a weight of 1 / 100.
type ScaleReport struct {
	Layer    string  `json:"layer"`
	Loss     float64 `json:"loss"`
	Accuracy float64 `json:"accuracy"` // share of labels, or of partners, that it tells
}

// PretrainReport describes a step.
type PretrainReport struct {
	Step, Steps     int // counted from 1
	Pictures        int // so far
	Loss            float64
	Scales          []ScaleReport // those that learn
	Elapsed, Waited time.Duration // of this run; for pictures to be drawn
}

// TeacherDocument is the JSON document in a pre-trained teacher's file, under the key "rdpp_teacher".
type TeacherDocument struct {
	FormatVersion int            `json:"format_version"`
	Software      string         `json:"software"`
	Libtorch      string         `json:"libtorch"`
	Config        PretrainConfig `json:"config"`
	Pictures      int            `json:"pictures"` // seen
	Loss          float64        `json:"loss"`     // the weighted sum
	Scales        []ScaleReport  `json:"scales"`   // at the end
}

// PretrainSummary is the outcome of a pre-training.
type PretrainSummary struct {
	TeacherDocument
	Store       string  `json:"store"`
	Seconds     float64 `json:"seconds"`      // of this run
	WaitedShare float64 `json:"waited_share"` // of them, for pictures to be drawn
	DeviceBytes int64   `json:"device_peak_bytes,omitempty"`
	File        string  `json:"file"`
}

const (
	teacherKey            = "rdpp_teacher"
	pretrainCheckpointKey = "rdpp_teacher_checkpoint"
	checkpointSuffix      = ".checkpoint"
	prefixHead            = "head."
	averagedSteps         = 100
)

// pretrainCheckpoint is the JSON document of a checkpoint, beside the tensors of teacher, heads and Adam.
type pretrainCheckpoint struct {
	Config    PretrainConfig     `json:"config"`
	State     pretrainState      `json:"state"`
	AdamSteps map[string][]int64 `json:"adam_steps"`
}

// pretrainState is where a run stands.
type pretrainState struct {
	Step   int           `json:"step"` // steps that are done
	Scales []ScaleReport `json:"scales"`
}

// Pretrain trains a teacher on drawn pictures (package pattern) and writes it to opt.Out: a safetensors file of conv1 to
// layer3 under torchvision's names, for TrainOptions.Teacher. The same configuration, device and number of threads give
// the same file, byte for byte on the CPU, whether or not the run was interrupted and resumed. When ctx ends it writes
// a checkpoint and returns ErrInterrupted.
func Pretrain(ctx context.Context, config PretrainConfig, opt PretrainOptions) (*PretrainSummary, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if len(config.Kinds) == 0 {
		config.Kinds = nil // as a checkpoint tells it
	}
	if opt.Store == "" {
		opt.Store = StoreFP16
	}
	if opt.Store != StoreFP16 && opt.Store != StoreFP32 {
		return nil, wrong("store", opt.Store, "use %s or %s", StoreFP16, StoreFP32)
	}
	if opt.Out == "" {
		return nil, wrong("out", nil, "name a file for the teacher")
	}
	if opt.Workers < 0 {
		return nil, wrong("workers", opt.Workers, "use 1 or more")
	}
	if opt.Workers == 0 {
		opt.Workers = runtime.NumCPU()
	}
	if opt.CheckpointEvery == 0 {
		opt.CheckpointEvery = 5 * time.Minute
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("rdpp: %w before the first step", ErrInterrupted)
	}
	worker := torch.NewWorker()
	defer worker.Close()
	var summary *PretrainSummary
	err := worker.Do(func() (err error) {
		if err := torch.SetArithmetic(config.Precision == string(torch.TF32), false); err != nil {
			return fmt.Errorf("rdpp: %w", err)
		}
		r := &pretraining{config: config, opt: opt}
		defer r.close()
		if err = r.prepare(); err == nil {
			summary, err = r.train(ctx)
		}
		return err
	})
	return summary, err
}

// pretraining is one run.
type pretraining struct {
	lock    *os.File // on the folder, while the run lasts
	config  PretrainConfig
	opt     PretrainOptions
	teacher torch.Teacher
	head    torch.Head
	adam    *torch.Adam
	state   pretrainState
	elapsed time.Duration // of this run
	waited  time.Duration // of that, for pictures
}

func (r *pretraining) checkpoint() string { return r.opt.Out + checkpointSuffix }

func (r *pretraining) close() {
	if r.lock != nil {
		r.lock.Close()
	}
	r.adam.Close()
	r.head.Close()
	r.teacher.Close()
}

// parts lists the networks, in the order of the optimiser's groups.
func (r *pretraining) parts() []part {
	return []part{{prefixTeacher, r.teacher}, {prefixHead, r.head}}
}

// prepare finds everything that can be wrong before any time is spent on training.
func (r *pretraining) prepare() (err error) {
	if r.lock, err = claim(r.opt.Log, r.opt.Out, r.checkpoint()); err != nil {
		return err
	}
	file, saved, err := r.openCheckpoint()
	if err != nil {
		return err
	}
	if file != nil {
		defer file.Close()
	}
	c := &r.config
	options := func(part string) torch.ModuleOptions {
		return torch.ModuleOptions{Arch: c.Arch, Device: r.opt.Device, Seed: seedOf(part, c.Seed), Trainable: true}
	}
	if r.teacher, err = torch.NewTeacher(options(prefixTeacher)); err != nil {
		return err
	}
	if r.head, err = torch.NewHead(objectives[c.Objective], c.outputs(), options(prefixHead)); err != nil {
		return err
	}
	if r.adam, err = torch.NewAdam(c.Beta1, c.Beta2, c.AdamEps); err != nil {
		return err
	}
	for group, part := range r.parts() {
		if err := r.adam.Add(part.net, c.Rate); err != nil {
			return err
		}
		if err := r.adam.SetDecay(group, c.WeightDecay); err != nil {
			return err
		}
	}
	for k, weight := range c.Scales {
		if weight > 0 {
			r.state.Scales = append(r.state.Scales, ScaleReport{Layer: fmt.Sprintf("layer%d", k+1)})
		}
	}
	if file != nil {
		return r.restore(file, saved)
	}
	return r.findRoom()
}

// findRoom says whether the disk has room for two checkpoints: later ones are written beside the one they replace, and the
// teacher, which is smaller, beside the last one.
func (r *pretraining) findRoom() error {
	var s torch.Scope
	defer s.Close()
	c, tensors, err := r.checkpointed(&s)
	if err != nil {
		return err
	}
	size, err := sizeOf(pretrainCheckpointKey, c, tensors)
	if err != nil {
		return err
	}
	return room(r.opt.Out, filepath.Dir(r.opt.Out), size, size)
}

// openCheckpoint returns the checkpoint to resume, if any, and protects what is not to be overwritten.
func (r *pretraining) openCheckpoint() (*weights.File, *pretrainCheckpoint, error) {
	out, err := os.Stat(r.opt.Out)
	if err == nil && out.IsDir() {
		return nil, nil, wrong("out", r.opt.Out, "that is a folder; name a file")
	}
	if r.opt.Overwrite {
		return nil, nil, nil
	}
	var c pretrainCheckpoint
	file, openError := openCheckpoint(r.checkpoint(), pretrainCheckpointKey, &c)
	switch {
	case openError != nil:
		return nil, nil, openError
	case file == nil && err == nil:
		return nil, nil, wrong("out", r.opt.Out, "it is there already; choose another, or replace it with {overwrite}")
	case file == nil || r.opt.Resume:
		return file, &c, nil
	}
	file.Close()
	return nil, nil, wrong("out", r.opt.Out, "its checkpoint holds an unfinished run (%d of %d steps done): continue it with {resume}, or start anew "+
		"with {overwrite}", c.State.Step, c.Config.Steps)
}

// restore makes the run what it was when the checkpoint was written.
func (r *pretraining) restore(file *weights.File, c *pretrainCheckpoint) error {
	if err := sameConfig(c.Config, r.config); err != nil {
		return err
	}
	s := &c.State
	if s.Step < 0 || s.Step > r.config.Steps || len(s.Scales) != len(r.state.Scales) || !countsSound(c.AdamSteps) {
		return setting.Advise(fmt.Errorf("rdpp: checkpoint %s: %d steps and %d scales cannot be", file.Path, s.Step, len(s.Scales)),
			"{overwrite} starts anew")
	}
	for _, part := range r.parts() {
		for _, e := range part.net.State() {
			if err := loadTensor(file, part.prefix+e.Name, e.Tensor); err != nil {
				return fmt.Errorf("rdpp: checkpoint %s: %w", file.Path, err)
			}
		}
	}
	if err := restoreAdam(file, r.adam, r.parts(), c.AdamSteps); err != nil {
		return fmt.Errorf("rdpp: checkpoint %s: %w", file.Path, err)
	}
	r.state = c.State
	return nil
}

func (r *pretraining) saveCheckpoint() error {
	var s torch.Scope
	defer s.Close()
	c, tensors, err := r.checkpointed(&s)
	if err != nil {
		return err
	}
	return saveTensors(r.checkpoint(), pretrainCheckpointKey, c, tensors)
}

// checkpointed is what a checkpoint of the run as it stands holds. The tensors live as long as the scope.
func (r *pretraining) checkpointed(s *torch.Scope) (pretrainCheckpoint, []weights.Source, error) {
	moments, steps, err := adamState(s, r.adam, r.parts())
	return pretrainCheckpoint{Config: r.config, State: r.state, AdamSteps: steps}, append(stateOf(r.parts()), moments...), err
}

// train is the training loop.
func (r *pretraining) train(ctx context.Context) (*PretrainSummary, error) {
	pictures, err := pattern.New(r.config.pictures())
	if err != nil {
		return nil, fmt.Errorf("rdpp: %w", err)
	}
	draw := func(ctx context.Context, step int) (*drawn, error) { return r.config.draw(ctx, pictures, step) }
	started := time.Now()
	saved, ready := started, started
	for batch, err := range prefetch(ctx, r.opt.Workers, r.state.Step, r.config.Steps, draw) {
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("rdpp: %w", err)
		}
		r.waited += time.Since(ready)
		if err := r.step(batch); err != nil {
			return nil, fmt.Errorf("rdpp: step %d: %w", r.state.Step+1, err)
		}
		r.elapsed = time.Since(started)
		if r.opt.OnStep != nil {
			r.opt.OnStep(PretrainReport{Step: r.state.Step, Steps: r.config.Steps, Pictures: r.pictures(), Loss: r.loss(),
				Scales: r.state.Scales, Elapsed: r.elapsed, Waited: r.waited})
		}
		if time.Since(saved) >= r.opt.CheckpointEvery {
			// A full disk may have room again before the end, so training goes on.
			if err := r.saveCheckpoint(); err != nil {
				r.opt.Log.Warn("no checkpoint", "error", err)
			}
			saved = time.Now()
		}
		ready = time.Now()
	}
	if r.state.Step < r.config.Steps {
		return nil, r.interrupt()
	}
	return r.finish()
}

// interrupt writes a checkpoint and returns ErrInterrupted.
func (r *pretraining) interrupt() error {
	if err := r.saveCheckpoint(); err != nil {
		return fmt.Errorf("rdpp: %w: %w", errNotSaved, err)
	}
	return setting.Advise(fmt.Errorf("rdpp: %w after %d of %d steps, and a checkpoint", ErrInterrupted, r.state.Step, r.config.Steps),
		"{resume} continues")
}

// step learns from the pictures of a step.
func (r *pretraining) step(batch *drawn) error {
	c := &r.config
	dtype := torch.Precision(c.Precision).DType()
	var s torch.Scope
	defer s.Close()
	x := s.Tensor(torch.Images(batch.pixels, c.ImageSize, c.Mean, c.Std, r.opt.Device, dtype)) // B x 3 x S x S
	f := s.Features(r.teacher.Forward(x))
	var terms []torch.Term
	var read []*torch.Tensor
	for k, weight := range c.Scales {
		if weight > 0 {
			loss, accuracy := s.Pair(r.judge(s.Tensor(r.head.Forward(k, f[k])), batch.labels[k]))
			terms = append(terms, torch.Term{Value: loss, Weight: weight})
			read = append(read, loss, accuracy)
		}
	}
	s.Check(torch.Backward(s.Tensor(torch.WeightedSum(terms...))))
	for group := range r.parts() {
		s.Check(r.adam.SetRate(group, c.rate(r.state.Step)))
	}
	s.Check(r.adam.Step())
	if c.IgnoreLevel {
		s.Check(r.teacher.IgnoreLevel(c.Std))
	}
	if err := s.Err(); err != nil {
		return err
	}
	values, err := torch.Scalars(read...)
	if err != nil {
		return err
	}
	r.state.Step++
	share := 1 / float64(min(r.state.Step, averagedSteps))
	scales := make([]ScaleReport, len(r.state.Scales)) // a report may still be read
	for i, was := range r.state.Scales {
		loss, accuracy := values[2*i], values[2*i+1]
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return setting.Advise(fmt.Errorf("the loss of %s is %v", was.Layer, loss), "start anew with a lower {rate} and {overwrite}")
		}
		scales[i] = ScaleReport{was.Layer, was.Loss + share*(loss-was.Loss), was.Accuracy + share*(accuracy-was.Accuracy)}
	}
	r.state.Scales = scales
	return nil
}

// judge returns the loss and accuracy of what a head says.
func (r *pretraining) judge(y *torch.Tensor, labels []int64) (loss, accuracy *torch.Tensor, err error) {
	switch r.config.Objective {
	case ObjectivePair:
		return torch.LossPair(y, r.config.Temperature)
	case ObjectiveClass:
		return torch.LossClass(y, labels, r.config.Smoothing)
	}
	return torch.LossClass(y, labels, 0)
}

func (r *pretraining) pictures() int { return r.state.Step * r.config.Batch }

// loss is the weighted sum over scales.
func (r *pretraining) loss() float64 {
	sum, i := 0.0, 0
	for _, weight := range r.config.Scales {
		if weight > 0 {
			sum += weight * r.state.Scales[i].Loss
			i++
		}
	}
	return sum
}

// finish writes the teacher and removes the checkpoint.
func (r *pretraining) finish() (*PretrainSummary, error) {
	document := TeacherDocument{FormatVersion: 1, Software: "rdpp " + Version, Config: r.config, Pictures: r.pictures(),
		Loss: r.loss(), Scales: r.state.Scales}
	var err error
	if document.Libtorch, err = torch.Version(); err == nil {
		err = r.writeTeacher(document)
	}
	if err != nil {
		if saveError := r.saveCheckpoint(); saveError != nil {
			return nil, fmt.Errorf("rdpp: %w: %w: %w", errNotSaved, err, saveError)
		}
		return nil, setting.Advise(err, "the checkpoint is kept, {resume} tries again")
	}
	if err := os.Remove(r.checkpoint()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("rdpp: the teacher is written, but its checkpoint stays: %w", err)
	}
	summary := &PretrainSummary{TeacherDocument: document, Store: r.opt.Store, Seconds: r.elapsed.Seconds(), File: r.opt.Out}
	if r.elapsed > 0 {
		summary.WaitedShare = r.waited.Seconds() / r.elapsed.Seconds()
	}
	_, summary.DeviceBytes, err = torch.DeviceMemory(r.opt.Device)
	return summary, err
}

// writeTeacher writes the teacher alone, without heads and the counts of batches, which play no part in eval mode.
func (r *pretraining) writeTeacher(document TeacherDocument) error {
	dtype := torch.Float16
	if r.opt.Store == StoreFP32 {
		dtype = torch.Float32
	}
	state := map[string][]float32{}
	for _, e := range r.teacher.State() {
		if !strings.HasSuffix(e.Name, "num_batches_tracked") {
			var err error
			if state[e.Name], err = torch.Read[float32](e.Tensor); err != nil {
				return err
			}
		}
	}
	if r.config.Equalise {
		deviations, err := r.deviations()
		if err != nil {
			return err
		}
		equalise(state, deviations, drawnFloor)
	}
	var s torch.Scope
	defer s.Close()
	var sources []weights.Source
	for _, e := range r.teacher.State() {
		values, found := state[e.Name]
		if !found {
			continue
		}
		shape, err := e.Tensor.Shape()
		if err != nil {
			return err
		}
		stored := s.Tensor(s.Tensor(torch.FromSlice(values, shape...)).To(torch.CPU, dtype))
		sum := s.Tensor(torch.Sum(s.Tensor(stored.To(torch.CPU, torch.Float64))))
		if err := s.Err(); err != nil {
			return err
		}
		total, err := torch.Scalars(sum)
		if err != nil {
			return err
		}
		if math.IsNaN(total[0]) || math.IsInf(total[0], 0) {
			return setting.Advise(fmt.Errorf("rdpp: %s has numbers that %s cannot hold", e.Name, r.opt.Store), "use %s for {store}, or start anew with a lower {rate}", StoreFP32)
		}
		sources = append(sources, source(e.Name, stored))
	}
	return saveTensors(r.opt.Out, teacherKey, document, sources)
}
