// Package pretrain makes teachers: networks that learn from drawn pictures (package pattern), for where there are no photographs to
// learn from.
package pretrain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"rdpp/rdpp/ahead"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/document"
	"rdpp/rdpp/engine"
	"rdpp/rdpp/pattern"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/state"
	"rdpp/rdpp/teacher"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// Options say where and how to pre-train. Of them only Store and Device change the result, in its rounding.
// Zero fields mean the defaults.
type Options struct {
	Out             string        // the teacher's file; required. One run at a time writes to its folder
	Store           string        // teacher.StoreFP16 (default) or teacher.StoreFP32
	Device          torch.Device  // default the CPU
	Workers         int           // goroutines that draw, default allowance.CPUs
	CheckpointEvery time.Duration // default 5 minutes
	Resume          bool          // go on from the checkpoint beside Out, where there is one
	Overwrite       bool          // start anew even where there is a teacher or an unfinished run

	OnStep func(Report) // called after every step, on the training goroutine
	Log    *slog.Logger // default slog.Default()
}

// ScaleReport is how well a scale's head does: an average over all steps so far, from the 100th on an exponential one
// in which a step has a weight of 1 / 100.
type ScaleReport struct {
	Layer    string  `json:"layer"`
	Loss     float64 `json:"loss"`
	Accuracy float64 `json:"accuracy"` // share of labels, or of partners, that it tells
}

// Report describes a step.
type Report struct {
	Step, Steps     int // counted from 1
	Pictures        int // so far
	Loss            float64
	Scales          []ScaleReport // those that learn
	Elapsed, Waited time.Duration // of this run; for pictures to be drawn
}

// Document is the JSON document in a pre-trained teacher's file, under the key "rdpp_teacher".
type Document struct {
	FormatVersion int           `json:"format_version"`
	Software      string        `json:"software"`
	Libtorch      string        `json:"libtorch"`
	Config        Config        `json:"config"`
	Pictures      int           `json:"pictures"` // seen
	Loss          float64       `json:"loss"`     // the weighted sum
	Scales        []ScaleReport `json:"scales"`   // at the end
}

// Summary is the outcome of a pre-training.
type Summary struct {
	Document
	Store       string  `json:"store"`
	Seconds     float64 `json:"seconds"`      // of this run
	WaitedShare float64 `json:"waited_share"` // of them, for pictures to be drawn
	DeviceBytes int64   `json:"device_peak_bytes,omitempty"`
	File        string  `json:"file"`
}

// Saved is the JSON document of a checkpoint.
type Saved struct {
	Config Config   `json:"config"`
	State  RunState `json:"state"`
}

// RunState is where a run stands.
type RunState struct {
	Step   int           `json:"step"` // steps that are done
	Scales []ScaleReport `json:"scales"`
}

const (
	checkpointSuffix = ".checkpoint"
	averagedSteps    = 100
)

// Train trains a teacher on drawn pictures (package pattern) and writes it to opt.Out: a safetensors file of conv1 to
// layer3 under torchvision's names, for detectors' trainings. The same configuration, device and number of threads give
// the same file, byte for byte on the CPU, whether or not the run was interrupted and resumed. When ctx ends it writes
// a checkpoint and returns engine.ErrInterrupted.
func Train(ctx context.Context, config Config, opt Options) (*Summary, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if len(config.Kinds) == 0 {
		config.Kinds = nil // as a checkpoint tells it
	}
	if opt.Store == "" {
		opt.Store = teacher.StoreFP16
	}
	if opt.Store != teacher.StoreFP16 && opt.Store != teacher.StoreFP32 {
		return nil, setting.Refuse("store", opt.Store, "use %s or %s", teacher.StoreFP16, teacher.StoreFP32)
	}
	if opt.Out == "" {
		return nil, setting.Refuse("out", nil, "name a file for the teacher")
	}
	if opt.Workers < 0 {
		return nil, setting.Refuse("workers", opt.Workers, "use 1 or more")
	}
	if opt.Workers == 0 {
		opt.Workers = allowance.CPUs()
	}
	if opt.CheckpointEvery == 0 {
		opt.CheckpointEvery = 5 * time.Minute
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("pretrain: %w before the first step", engine.ErrInterrupted)
	}
	worker := torch.NewWorker()
	defer worker.Close()
	var summary *Summary
	err := worker.Do(func() (err error) {
		if err := torch.SetArithmetic(config.Precision == string(torch.TF32), false); err != nil {
			return fmt.Errorf("pretrain: %w", err)
		}
		r := &run{config: config, opt: opt}
		defer r.close()
		if err = r.prepare(); err == nil {
			summary, err = r.train(ctx)
		}
		return err
	})
	return summary, err
}

// run is one pre-training.
type run struct {
	lock    io.Closer // on the folder, while the run lasts
	config  Config
	opt     Options
	learner *learner
	state   RunState
	elapsed time.Duration // of this run
	waited  time.Duration // of that, for pictures
}

func (r *run) checkpoint() engine.Checkpoint {
	return engine.Checkpoint{Path: r.opt.Out + checkpointSuffix, Key: document.TeacherCheckpointKey}
}

func (r *run) saved() Saved { return Saved{Config: r.config, State: r.state} }

func (r *run) saveCheckpoint() error { return r.checkpoint().Save(r.saved(), r.learner) }

func (r *run) close() {
	if r.lock != nil {
		r.lock.Close()
	}
	if r.learner != nil {
		r.learner.Close()
	}
}

// prepare finds everything that can be wrong before any time is spent on training.
func (r *run) prepare() (err error) {
	if r.lock, err = engine.Claim(r.opt.Log, r.opt.Out, r.checkpoint().Path); err != nil {
		return err
	}
	file, saved, err := r.openCheckpoint()
	if err != nil {
		return err
	}
	if file != nil {
		defer file.Close()
	}
	if r.learner, err = newLearner(&r.config, r.opt.Device); err != nil {
		return err
	}
	for k, weight := range r.config.Scales {
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
func (r *run) findRoom() error {
	size, err := r.checkpoint().Size(r.saved(), r.learner)
	if err != nil {
		return err
	}
	return engine.Room(r.opt.Out, filepath.Dir(r.opt.Out), size, size)
}

// openCheckpoint returns the checkpoint to resume, if any, and protects what is not to be overwritten.
func (r *run) openCheckpoint() (*weights.File, *Saved, error) {
	out, err := os.Stat(r.opt.Out)
	if err == nil && out.IsDir() {
		return nil, nil, setting.Refuse("out", r.opt.Out, "that is a folder; name a file")
	}
	if r.opt.Overwrite {
		return nil, nil, nil
	}
	var c Saved
	file, openError := r.checkpoint().Open(&c)
	switch {
	case openError != nil:
		return nil, nil, openError
	case file == nil && err == nil:
		return nil, nil, setting.Refuse("out", r.opt.Out, "it is there already; choose another, or replace it with {overwrite}")
	case file == nil || r.opt.Resume:
		return file, &c, nil
	}
	file.Close()
	return nil, nil, setting.Refuse("out", r.opt.Out, "its checkpoint holds an unfinished run (%d of %d steps done): continue it with {resume}, or start anew "+
		"with {overwrite}", c.State.Step, c.Config.Steps)
}

// restore makes the run what it was when the checkpoint was written.
func (r *run) restore(file *weights.File, c *Saved) error {
	if err := engine.SameConfig(c.Config, r.config); err != nil {
		return err
	}
	s := &c.State
	if s.Step < 0 || s.Step > r.config.Steps || len(s.Scales) != len(r.state.Scales) {
		return setting.Advise(fmt.Errorf("pretrain: checkpoint %s: %d steps and %d scales cannot be", file.Path, s.Step, len(s.Scales)),
			"{overwrite} starts anew")
	}
	if err := r.learner.Restore(file, anomaly.Facts{}); err != nil {
		return fmt.Errorf("pretrain: checkpoint %s: %w", file.Path, err)
	}
	r.state = c.State
	return nil
}

// train draws pictures and learns from them.
func (r *run) train(ctx context.Context) (*Summary, error) {
	pictures, err := pattern.New(r.config.pictures())
	if err != nil {
		return nil, fmt.Errorf("pretrain: %w", err)
	}
	draw := func(ctx context.Context, step int) (*drawn, error) { return r.config.draw(ctx, pictures, step) }
	started := time.Now()
	loop := engine.Loop[*drawn]{Learner: r.learner, Of: r.config.Steps, Save: r.saveCheckpoint, Every: r.opt.CheckpointEvery, Log: r.opt.Log,
		At: func() string { return fmt.Sprintf("step %d", r.state.Step+1) },
		Stood: func() string {
			return fmt.Sprintf("after %d of %d steps, and a checkpoint", r.state.Step, r.config.Steps)
		}}
	loop.Done = func(_ *drawn, losses anomaly.Losses, waited time.Duration) {
		r.count(losses)
		r.waited += waited
		r.elapsed = time.Since(started)
		if r.opt.OnStep != nil {
			r.opt.OnStep(Report{Step: r.state.Step, Steps: r.config.Steps, Pictures: r.pictures(), Loss: r.loss(),
				Scales: r.state.Scales, Elapsed: r.elapsed, Waited: r.waited})
		}
	}
	err = loop.Run(ctx, ahead.Range(ctx, r.opt.Workers, 2*r.opt.Workers, r.state.Step, r.config.Steps, draw), r.state.Step)
	if err != nil && r.state.Step < r.config.Steps {
		return nil, err
	}
	return r.finish()
}

// count notes a step that is done, and what its losses were.
func (r *run) count(losses anomaly.Losses) {
	r.state.Step++
	share := 1 / float64(min(r.state.Step, averagedSteps))
	scales := make([]ScaleReport, len(r.state.Scales)) // a report may still be read
	for i, was := range r.state.Scales {
		loss, accuracy := losses[1+2*i].Value, losses[2+2*i].Value
		scales[i] = ScaleReport{was.Layer, was.Loss + share*(loss-was.Loss), was.Accuracy + share*(accuracy-was.Accuracy)}
	}
	r.state.Scales = scales
}

func (r *run) pictures() int { return r.state.Step * r.config.Batch }

// loss is the weighted sum over scales.
func (r *run) loss() float64 {
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
func (r *run) finish() (*Summary, error) {
	doc := Document{FormatVersion: 1, Software: document.Software, Config: r.config, Pictures: r.pictures(),
		Loss: r.loss(), Scales: r.state.Scales}
	var err error
	if doc.Libtorch, err = torch.Version(); err == nil {
		err = r.writeTeacher(doc)
	}
	if err != nil {
		if saveError := r.saveCheckpoint(); saveError != nil {
			return nil, fmt.Errorf("pretrain: %w: %w: %w", engine.ErrNotSaved, err, saveError)
		}
		return nil, setting.Advise(err, "the checkpoint is kept, {resume} tries again")
	}
	if err := os.Remove(r.checkpoint().Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("pretrain: the teacher is written, but its checkpoint stays: %w", err)
	}
	summary := &Summary{Document: doc, Store: r.opt.Store, Seconds: r.elapsed.Seconds(), File: r.opt.Out}
	if r.elapsed > 0 {
		summary.WaitedShare = r.waited.Seconds() / r.elapsed.Seconds()
	}
	_, summary.DeviceBytes, err = torch.DeviceMemory(r.opt.Device)
	return summary, err
}

// writeTeacher writes the teacher alone, without heads and the counts of batches, which play no part in eval mode.
func (r *run) writeTeacher(doc Document) error {
	dtype := torch.Float16
	if r.opt.Store == teacher.StoreFP32 {
		dtype = torch.Float32
	}
	values, err := teacher.Read(r.learner.teacher)
	if err != nil {
		return err
	}
	if r.config.Equalise {
		deviations, err := r.deviations()
		if err != nil {
			return err
		}
		teacher.Equalise(values, deviations, drawnFloor)
	}
	var s torch.Scope
	defer s.Close()
	var sources []weights.Source
	for _, e := range r.learner.teacher.State() {
		numbers, found := values[e.Name]
		if !found {
			continue
		}
		shape, err := e.Tensor.Shape()
		if err != nil {
			return err
		}
		stored := s.Tensor(s.Tensor(torch.FromSlice(numbers, shape...)).To(torch.CPU, dtype))
		sum := s.Tensor(torch.Sum(s.Tensor(stored.To(torch.CPU, torch.Float64))))
		if err := s.Err(); err != nil {
			return err
		}
		total, err := torch.Scalars(sum)
		if err != nil {
			return err
		}
		if math.IsNaN(total[0]) || math.IsInf(total[0], 0) {
			return setting.Advise(fmt.Errorf("pretrain: %s has numbers that %s cannot hold", e.Name, r.opt.Store), "use %s for {store}, or start anew with a lower {rate}", teacher.StoreFP32)
		}
		sources = append(sources, state.Source(e.Name, stored))
	}
	return document.Write(r.opt.Out, document.TeacherKey, doc, sources)
}
