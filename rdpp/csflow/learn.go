package csflow

import (
	"context"
	"fmt"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/state"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// Adam's, of the published code.
const (
	beta1, beta2 = 0.9, 0.999
	adamEps      = 1e-4
)

// learner makes what the teacher sees likely.
type learner struct {
	c        *flowing
	net      *flow
	adam     *torch.Adam
	training bool // the flow is in training mode
}

// Learner returns what teaches the flow.
func (c *flowing) Learner(net method.Net, _ method.LearnerOptions) (method.Learner, error) {
	n, own := net.(*flow)
	if !own {
		return nil, fmt.Errorf("csflow: a net of type %T is not this method's", net)
	}
	l := &learner{c: c, net: n}
	if err := l.start(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// start makes the optimiser.
func (l *learner) start() (err error) {
	if l.adam, err = torch.NewAdam(beta1, beta2, adamEps); err != nil {
		return err
	}
	if err := l.adam.Add(l.net.cross, l.c.CrossRate); err != nil {
		return err
	}
	if err := l.adam.SetPenalty(0, l.c.CrossDecay); err != nil {
		return err
	}
	return l.adam.SetClip(l.c.CrossClip)
}

// Close frees the optimiser.
func (l *learner) Close() { l.adam.Close() }

// Begin readies the teacher.
func (l *learner) Begin(context.Context, method.Images) error { return l.settle() }

func (l *learner) settle() error {
	l.training = false
	return l.net.Settle()
}

// Step is an update of the flow by what the teacher sees of a batch.
func (l *learner) Step(batch *dataset.Batch, step, of int) (anomaly.Losses, error) {
	n := l.net
	if !l.training {
		if err := n.cross.Train(true); err != nil {
			return nil, err
		}
		l.training = true
	}
	S := int64(l.c.ImageSize)
	var s torch.Scope
	defer s.Close()
	host := s.Tensor(torch.FromSlice(batch.Clean, int64(batch.B), 3, S, S))
	x := s.Tensor(host.To(n.device, torch.Float32)) // B x 3 x S x S
	y := s.Features(torch.Pyramid(n.teacher, x))
	z, logDet, err := n.cross.Forward(y)
	z, logDet = s.Features(z, err), s.Tensor(logDet, nil)
	loss := s.Tensor(torch.LossCrossFlow(z, logDet))
	s.Check(torch.Backward(loss))
	s.Check(l.adam.Step())
	if err := s.Err(); err != nil {
		return nil, err
	}
	values, err := torch.Scalars(loss)
	if err != nil {
		return nil, err
	}
	return anomaly.Losses{{Name: anomaly.LossTotal, Value: values[0]}}, nil
}

// State lists teacher and flow under their names in a model file, and Adam's moments.
func (l *learner) State(s *torch.Scope) ([]weights.Source, error) {
	moments, err := state.Adam(s, l.adam, l.net.trained())
	if err != nil {
		return nil, err
	}
	return append(l.net.State(), moments...), nil
}

// Growth is none: no gradients wait.
func (l *learner) Growth() (int64, error) { return 0, nil }

// Restore is the way back from State.
func (l *learner) Restore(file *weights.File, _ anomaly.Facts) error {
	if err := l.net.load(file); err != nil {
		return err
	}
	if err := state.RestoreAdam(file, l.adam, l.net.trained()); err != nil {
		return err
	}
	return l.settle()
}

// Finish is the net with its last weights, unless the last update left no numbers.
func (l *learner) Finish(_ context.Context, _ method.Images, last bool) (method.Net, error) {
	if err := state.CheckLearned(l.net.trained()); err != nil {
		return nil, setting.Advise(fmt.Errorf("csflow: %w", err), "use a lower {cross_rate} or {cross_clip}")
	}
	if last {
		l.adam.Close()
	}
	return l.net, l.settle()
}
