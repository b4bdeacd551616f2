package rdpp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// A checkpoint is a safetensors file with the networks under their names in a model file, the average of their weights,
// Adam's moments, gradients that wait for an update, and a JSON document for the rest: with it training goes on as if it had never stopped.

const (
	checkpointKey = "rdpp_checkpoint"
	prefixAdam    = "adam."
	prefixGrad    = "grad."
	prefixAverage = "average."
)

// checkpoint is the JSON document.
type checkpoint struct {
	Info      Info               `json:"info"`
	State     runState           `json:"state"`
	AdamSteps map[string][]int64 `json:"adam_steps"` // by prefix, per parameter
}

// runState is where a run stands.
type runState struct {
	Epoch   int           `json:"epoch"`   // epochs that are done
	Step    int           `json:"step"`    // steps of the current one that are done
	Images  int           `json:"images"`  // images of the current one that were seen
	Pending int           `json:"pending"` // steps whose gradients wait for an update
	Sums    Losses        `json:"sums"`    // over those images
	Seconds float64       `json:"seconds"` // spent on the current epoch
	History []EpochReport `json:"history"`
	Best    bestEpoch     `json:"best"`
}

// bestEpoch is the best one on the test set so far; Epoch 0: none yet.
type bestEpoch struct {
	Epoch int     `json:"epoch"`
	Mean  float64 `json:"mean"`
}

func (r *run) saveCheckpoint() error {
	var s torch.Scope
	defer s.Close()
	c, tensors, err := r.checkpoint(&s)
	if err != nil {
		return err
	}
	return saveTensors(r.path(checkpointFile), checkpointKey, c, tensors)
}

// checkpoint is what a checkpoint of the run as it stands holds. The tensors live as long as the scope.
func (r *run) checkpoint(s *torch.Scope) (checkpoint, []weights.Source, error) {
	moments, steps, err := adamState(s, r.adam, r.model.trained())
	if err != nil {
		return checkpoint{}, nil, err
	}
	tensors := append(r.model.tensors(), moments...)
	if r.average != nil {
		for _, t := range stateOf(r.average.trained()) {
			t.Name = prefixAverage + t.Name
			tensors = append(tensors, t)
		}
	}
	return checkpoint{Info: r.model.Info, State: r.state, AdamSteps: steps}, tensors, nil
}

// findRoom says before any time is spent on training whether the disk has room for what it writes. A checkpoint is written beside
// the one that it replaces, and the model, which is smaller, beside the last one. resumed: one checkpoint is there.
func (r *run) findRoom(resumed bool) error {
	var s torch.Scope
	defer s.Close()
	c, tensors, err := r.checkpoint(&s)
	if err != nil {
		return err
	}
	whole, err := sizeOf(checkpointKey, c, tensors)
	if err != nil {
		return err
	}
	model, err := sizeOf(modelKey, r.model.Info, r.model.tensors())
	if err != nil {
		return err
	}
	if r.config.Accumulate > 1 {
		whole += model // gradients that wait
	}
	sizes := []int64{whole}
	if !resumed {
		sizes = append(sizes, whole)
	}
	if r.config.Select == SelectBestOnTest {
		sizes = append(sizes, model)
	}
	if r.folds > 0 {
		sizes = append(sizes, whole) // of a training for the calibration, while this one's stays
	}
	return room(r.opt.Out, r.opt.Out, sizes...)
}

// room says whether files of these sizes, which lead to what is named, have room in a folder beside each other.
func room(what, folder string, sizes ...int64) error {
	if err := atomicfile.Room(folder, sizes...); err != nil {
		return setting.Advise(fmt.Errorf("rdpp: %s and the checkpoints on the way to it would not fit: %w", what, err), "make room, or choose another place with {out}")
	}
	return nil
}

// adamState describes what an optimiser with a group per part knows, for a checkpoint: its moments, gradients that wait
// for an update, and the parameters' step counts by prefix. The tensors live as long as the scope.
func adamState(s *torch.Scope, adam *torch.Adam, parts []part) (sources []weights.Source, steps map[string][]int64, err error) {
	steps = map[string][]int64{}
	err = eachParameter(parts, func(group, i int, part part, e torch.Entry) error {
		moments, err := adam.Moments(group, i)
		if err != nil {
			return err
		}
		s.Tensor(moments.ExpAvg, nil)
		s.Tensor(moments.ExpAvgSq, nil)
		name := part.prefix + e.Name
		sources = append(sources, source(prefixAdam+name+".exp_avg", moments.ExpAvg),
			source(prefixAdam+name+".exp_avg_sq", moments.ExpAvgSq))
		steps[part.prefix] = append(steps[part.prefix], moments.Steps)
		if grad := s.Tensor(e.Tensor.Grad()); grad != nil {
			sources = append(sources, source(prefixGrad+name, grad))
		}
		return s.Err()
	})
	return sources, steps, err
}

// eachParameter visits the trainable parameters, in the order of an optimiser with a group per part.
func eachParameter(parts []part, visit func(group, i int, part part, e torch.Entry) error) error {
	for group, part := range parts {
		i := 0
		for _, e := range part.net.State() {
			if !e.Trainable {
				continue
			}
			if err := visit(group, i, part, e); err != nil {
				return err
			}
			i++
		}
	}
	return nil
}

// openCheckpoint opens a checkpoint and reads its document; nil where there is none. The caller closes the file.
func openCheckpoint(path, key string, into any) (*weights.File, error) {
	file, err := weights.OpenSafetensors(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, setting.Advise(fmt.Errorf("rdpp: checkpoint: %w", err), "{overwrite} starts anew")
	}
	if _, err := readDocument(file, key, into); err != nil {
		file.Close()
		return nil, setting.Advise(fmt.Errorf("rdpp: checkpoint %s: %w", path, err), "{overwrite} starts anew")
	}
	return file, nil
}

// countsSound says whether step counts from a checkpoint can be.
func countsSound(counts map[string][]int64) bool {
	for _, steps := range counts {
		if len(steps) > 0 && slices.Min(steps) < 0 {
			return false
		}
	}
	return true
}

// readCheckpoint opens the run's checkpoint; nil where there is none. The caller closes the file.
func readCheckpoint(path string) (*weights.File, *checkpoint, error) {
	var c checkpoint
	file, err := openCheckpoint(path, checkpointKey, &c)
	if err != nil || file == nil {
		return nil, nil, err
	}
	c.Info.Config.complete()
	s := &c.State
	sound := s.Epoch >= 0 && s.Step >= 0 && s.Pending >= 0 && len(s.History) == s.Epoch && (s.Step == 0) == (s.Images == 0)
	if !sound || !countsSound(c.AdamSteps) {
		file.Close()
		return nil, nil, setting.Advise(fmt.Errorf("rdpp: checkpoint %s: %d epochs, %d steps and %d lines of history contradict each other", path,
			s.Epoch, s.Step, len(s.History)), "{overwrite} starts anew")
	}
	return file, &c, nil
}

// restore makes the run what it was when the checkpoint was written.
func (r *run) restore(file *weights.File, c *checkpoint) error {
	before := c.Info.Config
	before.Epochs, before.Updates = r.config.Epochs, r.config.Updates // which may be raised
	if before.Method == MethodRD {
		before.Project = r.config.Project // of what it has not
	}
	if err := sameConfig(before, r.config); err != nil {
		return err
	}
	if begun := c.State.Epoch + min(c.State.Step, 1); begun > r.config.Epochs {
		remedy := fmt.Sprintf("use %d or more", begun)
		if updates := c.Info.Config.Updates; updates > 0 {
			remedy = fmt.Sprintf("use %d, and %d for {updates}, as it had, or more", c.Info.Config.Epochs, updates)
		}
		return wrong("epochs", r.config.Epochs, "the run that {resume} continues has begun epoch %d: %s", begun, remedy)
	}
	if err := r.sameTeacher(c.Info.Teacher); err != nil {
		return err
	}
	if c.Info.Data.Fingerprint != r.model.Info.Data.Fingerprint {
		return setting.Advise(fmt.Errorf("rdpp: the training images are not those that %s began with", file.Path),
			"put them back, or start anew with {overwrite}")
	}
	if err := r.model.load(file); err != nil {
		return fmt.Errorf("rdpp: checkpoint %s: %w", file.Path, err)
	}
	if err := restoreAdam(file, r.adam, r.model.trained(), c.AdamSteps); err != nil {
		return fmt.Errorf("rdpp: checkpoint %s: %w", file.Path, err)
	}
	c.Info.Config, c.Info.Data = r.config, r.model.Info.Data // the same, but for what may be raised and what older versions did not tell
	r.model.Info, r.state = c.Info, c.State
	return nil
}

// restoreAdam is the way back from adamState.
func restoreAdam(file *weights.File, adam *torch.Adam, parts []part, counts map[string][]int64) error {
	return eachParameter(parts, func(group, i int, part part, e torch.Entry) error {
		moments, err := adam.Moments(group, i)
		if err != nil {
			return err
		}
		defer moments.Close()
		name := part.prefix + e.Name
		if err := loadTensor(file, prefixAdam+name+".exp_avg", moments.ExpAvg); err != nil {
			return err
		}
		if err := loadTensor(file, prefixAdam+name+".exp_avg_sq", moments.ExpAvgSq); err != nil {
			return err
		}
		steps := counts[part.prefix]
		if i >= len(steps) {
			return fmt.Errorf("step counts of %s are missing", name)
		}
		if err := adam.SetSteps(group, i, steps[i]); err != nil {
			return err
		}
		if _, found := file.Lookup(prefixGrad + name); !found {
			return nil
		}
		if err := e.Tensor.SetGrad(moments.ExpAvg); err != nil { // any tensor of its shape; the file's follows
			return err
		}
		grad, err := e.Tensor.Grad()
		if err != nil {
			return err
		}
		defer grad.Close()
		return loadTensor(file, prefixGrad+name, grad)
	})
}

// sameTeacher compares the teacher asked for with the run's own. TeacherAuto accepts any, and then stands for that, in the
// trainings for the calibration too.
func (r *run) sameTeacher(own TeacherInfo) error {
	var same bool
	switch name := r.opt.Teacher; name {
	case TeacherAuto:
		same = true
		if word := own.word(); word != "" {
			r.opt.Teacher = word
		}
	case TeacherRandom:
		same = own.Origin == OriginRandom
	case TeacherImageNet:
		same = own.SHA256 == teacherFiles[r.config.Arch].sha256
	default:
		digest, err := teacherDigest(name, r.config.Arch)
		if err != nil {
			return err
		}
		same = digest == own.SHA256
	}
	if !same {
		return wrong("teacher", r.opt.Teacher, "the run that {resume} continues has the teacher %s: leave {teacher} out, or start anew "+
			"with {overwrite}", own.Origin)
	}
	return nil
}

// sameConfig names a setting that differs between two configurations of one type.
func sameConfig[C any](before, now C) error {
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
			var given any
			values := json.NewDecoder(bytes.NewReader(b[name]))
			values.UseNumber() // as above
			if err := values.Decode(&given); err != nil {
				return err
			}
			return wrong(name, given, "the run that {resume} continues has %s: give the same value, or start anew with {overwrite}", a[name])
		}
	}
	return nil
}
