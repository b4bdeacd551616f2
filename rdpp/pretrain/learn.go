package pretrain

import (
	"fmt"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/state"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// The names before a network's in a checkpoint.
const (
	prefixTeacher = "encoder."
	prefixHead    = "head."
)

// learner teaches a teacher, with a head per scale, by AdamW.
type learner struct {
	config  *Config
	device  torch.Device
	teacher torch.Teacher
	head    torch.Head
	adam    *torch.Adam
}

var _ method.LearnerOf[*drawn] = (*learner)(nil)

func newLearner(c *Config, device torch.Device) (*learner, error) {
	l := &learner{config: c, device: device}
	if err := l.start(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *learner) start() (err error) {
	c := l.config
	options := func(part string) torch.ModuleOptions {
		return torch.ModuleOptions{Arch: c.Arch, Device: l.device, Seed: method.SeedOf(part, c.Seed), Trainable: true}
	}
	if l.teacher, err = torch.NewTeacher(options(prefixTeacher)); err != nil {
		return err
	}
	if l.head, err = torch.NewHead(objectives[c.Objective], c.outputs(), options(prefixHead)); err != nil {
		return err
	}
	if l.adam, err = torch.NewAdam(c.Beta1, c.Beta2, c.AdamEps); err != nil {
		return err
	}
	for group, part := range l.parts() {
		if err := l.adam.Add(part.Net, c.Rate); err != nil {
			return err
		}
		if err := l.adam.SetDecay(group, c.WeightDecay); err != nil {
			return err
		}
	}
	return nil
}

// parts lists the networks, in the order of the optimiser's groups.
func (l *learner) parts() []state.Part {
	return []state.Part{{Prefix: prefixTeacher, Net: l.teacher}, {Prefix: prefixHead, Net: l.head}}
}

// Close frees all.
func (l *learner) Close() {
	l.adam.Close()
	l.head.Close()
	l.teacher.Close()
}

// Step learns from the pictures of a step. Its losses are the weighted sum, then of each scale that learns its loss and the share
// of labels, or of partners, that it tells.
func (l *learner) Step(batch *drawn, step, of int) (anomaly.Losses, error) {
	c := l.config
	dtype := torch.Precision(c.Precision).DType()
	var s torch.Scope
	defer s.Close()
	x := s.Tensor(torch.Images(batch.pixels, c.ImageSize, c.Mean, c.Std, l.device, dtype)) // B x 3 x S x S
	f := s.Features(l.teacher.Forward(x))
	var terms []torch.Term
	var read []*torch.Tensor
	for k, weight := range c.Scales {
		if weight > 0 {
			loss, accuracy := s.Pair(l.judge(s.Tensor(l.head.Forward(k, f[k])), batch.labels[k]))
			terms = append(terms, torch.Term{Value: loss, Weight: weight})
			read = append(read, loss, accuracy)
		}
	}
	s.Check(torch.Backward(s.Tensor(torch.WeightedSum(terms...))))
	for group := range l.parts() {
		s.Check(l.adam.SetRate(group, c.rate(step)))
	}
	s.Check(l.adam.Step())
	if c.IgnoreLevel {
		s.Check(l.teacher.IgnoreLevel(c.Std))
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	values, err := torch.Scalars(read...)
	if err != nil {
		return nil, err
	}
	losses := anomaly.Losses{{Name: anomaly.LossTotal}}
	for k, weight := range c.Scales {
		if weight == 0 {
			continue
		}
		layer := fmt.Sprintf("layer%d", k+1)
		one := anomaly.Losses{{Name: layer, Value: values[0]}, {Name: layer + "_accuracy", Value: values[1]}}
		if !one[:1].Finite() {
			return nil, setting.Advise(fmt.Errorf("the loss of %s is %v", layer, values[0]), "start anew with a lower {rate} and {overwrite}")
		}
		losses[0].Value += weight * values[0]
		losses, values = append(losses, one...), values[2:]
	}
	return losses, nil
}

// judge returns the loss and accuracy of what a head says.
func (l *learner) judge(y *torch.Tensor, labels []int64) (loss, accuracy *torch.Tensor, err error) {
	switch l.config.Objective {
	case ObjectivePair:
		return torch.LossPair(y, l.config.Temperature)
	case ObjectiveClass:
		return torch.LossClass(y, labels, l.config.Smoothing)
	}
	return torch.LossClass(y, labels, 0)
}

// State lists the networks and Adam's moments.
func (l *learner) State(s *torch.Scope) ([]weights.Source, error) {
	moments, err := state.Adam(s, l.adam, l.parts())
	return append(state.Of(l.parts()), moments...), err
}

// Growth is none.
func (l *learner) Growth() (int64, error) { return 0, nil }

// Restore is the way back from State.
func (l *learner) Restore(file *weights.File, _ anomaly.Facts) error {
	for _, part := range l.parts() {
		for _, e := range part.Net.State() {
			if err := state.Load(file, part.Prefix+e.Name, e.Tensor); err != nil {
				return err
			}
		}
	}
	return state.RestoreAdam(file, l.adam, l.parts())
}
