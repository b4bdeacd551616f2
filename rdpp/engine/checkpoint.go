package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/document"
	"rdpp/rdpp/method"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
)

// Saved is the JSON document of the checkpoint of a detector's training.
type Saved struct {
	Info  modelfile.Info `json:"info"`
	State RunState       `json:"state"`
}

// RunState is where a run stands.
type RunState struct {
	Epoch   int             `json:"epoch"`   // epochs that are done
	Step    int             `json:"step"`    // steps of the current one that are done
	Images  int             `json:"images"`  // images of the current one that were seen
	Sums    anomaly.Losses  `json:"sums"`    // over those images
	Seconds float64         `json:"seconds"` // spent on the current epoch
	History []anomaly.Epoch `json:"history"`
	Best    BestEpoch       `json:"best"`
	Early   EarlyState      `json:"early,omitzero"`
}

// BestEpoch is the best one on the test set so far; Epoch 0: none yet.
type BestEpoch struct {
	Epoch int     `json:"epoch"`
	Mean  float64 `json:"mean"`
}

func (r *run) checkpoint() Checkpoint {
	return Checkpoint{Path: r.path(checkpointFile), Key: document.CheckpointKey}
}

func (r *run) saved() Saved {
	info := r.model.Info
	info.Facts = r.model.Net.Facts()
	return Saved{Info: info, State: r.state}
}

// saveCheckpoint writes it, in rank 0 alone.
func (r *run) saveCheckpoint() error {
	if !r.opt.Peers.First() {
		return nil
	}
	return r.checkpoint().Save(r.saved(), r.learner)
}

// readCheckpoint opens the run's checkpoint; nil where there is none. The caller closes the file.
func (r *run) readCheckpoint() (*weights.File, *Saved, error) {
	var c Saved
	file, err := r.checkpoint().Open(&c)
	if err != nil || file == nil {
		return nil, nil, err
	}
	c.Info.Config.Complete()
	s := &c.State
	sound := s.Epoch >= 0 && s.Step >= 0 && len(s.History) == s.Epoch && (s.Step == 0) == (s.Images == 0) &&
		s.Early.sound(c.Info.Config.Epochs)
	if !sound {
		file.Close()
		return nil, nil, setting.Advise(fmt.Errorf("engine: checkpoint %s: %d epochs, %d steps and %d lines of history contradict each other", file.Path,
			s.Epoch, s.Step, len(s.History)), "{overwrite} starts anew")
	}
	return file, &c, nil
}

// findRoom says before any time is spent on training whether the disk has room for what it writes. A checkpoint is written beside
// the one that it replaces, and the model, which is smaller, beside the last one. resumed: one checkpoint is there.
func (r *run) findRoom(resumed bool) error {
	whole, err := r.checkpoint().Size(r.saved(), r.learner)
	if err != nil {
		return err
	}
	model, err := r.model.Size()
	if err != nil {
		return err
	}
	if model > modelfile.MaxBytes {
		return fmt.Errorf("engine: the model file would have %d MiB, and %d MiB are opened at most; use a smaller backbone or other settings of %s", model>>20,
			int64(modelfile.MaxBytes)>>20, r.config.Method)
	}
	sizes := []int64{whole}
	if !resumed {
		sizes = append(sizes, whole)
	}
	if r.config.Select == method.SelectBestOnTest {
		sizes = append(sizes, model)
	}
	if r.folds > 0 {
		sizes = append(sizes, whole) // of a training for the calibration, while this one's stays
	}
	return Room(r.opt.Out, r.opt.Out, sizes...)
}

// restore makes the run what it was when the checkpoint was written.
func (r *run) restore(file *weights.File, c *Saved) error {
	before := c.Info.Config
	// More are wanted, also where it had stopped early, or fewer than it would have ended after.
	if before.Epochs < r.config.Epochs || c.State.Early.End > r.config.Epochs {
		c.State.Early.Since, c.State.Early.End = 0, 0
	}
	before.Epochs, before.Updates = r.config.Epochs, r.config.Updates // which may be raised
	if err := SameConfig(before, r.config); err != nil {
		return err
	}
	if begun := c.State.Epoch + min(c.State.Step, 1); begun > r.config.Epochs {
		remedy := fmt.Sprintf("use %d or more", begun)
		if updates := c.Info.Config.Updates; updates > 0 {
			remedy = fmt.Sprintf("use %d, and %d for {updates}, as it had, or more", c.Info.Config.Epochs, updates)
		}
		return setting.Refuse("epochs", r.config.Epochs, "the run that {resume} continues has begun epoch %d: %s", begun, remedy)
	}
	if c.Info.From != r.model.Info.From {
		return r.otherParent(c.Info.From)
	}
	if err := r.sameOrigin(&c.Info, file.Path); err != nil {
		return err
	}
	if err := r.learner.Restore(file, c.Info.Facts); err != nil {
		return fmt.Errorf("engine: checkpoint %s: %w", file.Path, err)
	}
	c.Info.Config, c.Info.Data, c.Info.Looks = r.config, r.model.Info.Data, r.model.Info.Looks // the same, but for what may be raised and what older versions did not tell
	r.model.Info, r.state = c.Info, c.State
	return nil
}

// restoreAs makes the run what rank 0 has restored, but for what is learned, which follows.
func (r *run) restoreAs(c *Saved) error {
	if err := r.sameOrigin(&c.Info, "rank 0's checkpoint"); err != nil {
		return err
	}
	c.Info.Config, c.Info.Data, c.Info.Looks = r.config, r.model.Info.Data, r.model.Info.Looks
	r.model.Info, r.state = c.Info, c.State
	return nil
}

// sameOrigin refuses another teacher and other images than those that a run in the folder began with. file is what tells of it.
func (r *run) sameOrigin(before *modelfile.Info, file string) error {
	if err := r.sameTeacher(before, r.opt.Teacher); err != nil {
		return err
	}
	if before.Data.Fingerprint != r.model.Info.Data.Fingerprint {
		return setting.Advise(fmt.Errorf("engine: the training images are not those that %s began with", file),
			"put them back, or start anew with {overwrite}")
	}
	return nil
}

// sameTeacher refuses another teacher than that of the run in the folder, and takes that one's file.
func (r *run) sameTeacher(before *modelfile.Info, name string) error {
	own := before.Teacher
	same, now, err := own.Same(name, r.config.Arch)
	if err != nil {
		return err
	}
	if !same {
		return setting.Refuse("teacher", name, "the run that {resume} continues has the teacher %s: leave {teacher} out, or start anew "+
			"with {overwrite}", own.Origin)
	}
	if r.opt.From == "" { // which has the teacher
		r.opt.Teacher = now // in the trainings for the calibration too
	}
	return nil
}

// SameConfig names a setting that differs between two configurations of one type.
func SameConfig[C any](before, now C) error {
	fields := func(c C) (m map[string]json.RawMessage, err error) { // raw: a float64 would round large seeds
		text, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		return m, json.Unmarshal(text, &m)
	}
	a, err := fields(before)
	if err != nil {
		return err
	}
	b, err := fields(now)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if !bytes.Equal(a[name], b[name]) {
			given, err := told(b[name])
			if err != nil {
				return err
			}
			return setting.Refuse(name, given, "the run that {resume} continues has %s: give the same value, or start anew with {overwrite}", brief(string(a[name])))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b)) { // of settings that files have only where they are used
		if _, had := a[name]; !had {
			given, err := told(b[name])
			if err != nil {
				return err
			}
			return setting.Refuse(name, given, "the run that {resume} continues does without: leave it out, or start anew with {overwrite}")
		}
	}
	return nil
}

// told is a setting's value as an error tells it; nil where there is none.
func told(value json.RawMessage) (given any, err error) {
	if value == nil {
		return nil, nil
	}
	values := json.NewDecoder(bytes.NewReader(value))
	values.UseNumber() // as above
	err = values.Decode(&given)
	switch text, is := given.(string); {
	case is:
		given = brief(text)
	case len(value) > mostTold:
		given = brief(string(value))
	}
	return given, err
}

// mostTold is how many bytes of a value an error tells.
const mostTold = 60

// brief is a value, or the beginning of a long one, such as a mask.
func brief(value string) string {
	if len(value) <= mostTold {
		return value
	}
	return value[:mostTold/2] + "..."
}
