package fastflow

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

// learner raises the likelihood of good images' features.
type learner struct {
	c        *flowing
	net      *flows
	adam     *torch.Adam
	training bool // the flows are in training mode
}

// PyTorch's defaults, which are not told otherwise.
const beta1, beta2, eps = 0.9, 0.999, 1e-8

// Learner returns what teaches the flows.
func (c *flowing) Learner(net method.Net, _ method.LearnerOptions) (method.Learner, error) {
	n, own := net.(*flows)
	if !own {
		return nil, fmt.Errorf("fastflow: a net of type %T is not this method's", net)
	}
	l := &learner{c: c, net: n}
	if err := l.start(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *learner) start() (err error) {
	if l.adam, err = torch.NewAdam(beta1, beta2, eps); err != nil {
		return err
	}
	if err := l.adam.Add(l.net.flow, l.c.FlowRate); err != nil {
		return err
	}
	if err := l.adam.SetPenalty(0, l.c.FlowDecay); err != nil {
		return err
	}
	return l.adam.SetClip(l.c.FlowClip)
}

// Close frees the optimiser.
func (l *learner) Close() { l.adam.Close() }

// Begin readies the teacher.
func (l *learner) Begin(context.Context, method.Images) error { return l.net.Settle() }

// Step is an update of the flows by the likelihood of a batch.
func (l *learner) Step(batch *dataset.Batch, _, _ int) (anomaly.Losses, error) {
	n := l.net
	if !l.training {
		if err := n.flow.Train(true); err != nil {
			return nil, err
		}
		l.training = true
	}
	S := int64(l.c.ImageSize)
	var s torch.Scope
	defer s.Close()
	host := s.Tensor(torch.FromSlice(batch.Clean, int64(batch.B), 3, S, S))
	x := s.Tensor(host.To(n.device, torch.Float32)) // B x 3 x S x S
	f := s.Features(n.teacher.Forward(x))           // K tensors of B x C x H x W, as are the next two
	normal := s.Features(n.flow.Normalise(f))
	z, logDet := s.Two(n.flow.Forward(normal))
	loss := s.Tensor(torch.LossFlow(z, logDet))
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

// State lists teacher, flows and Adam's moments.
func (l *learner) State(s *torch.Scope) ([]weights.Source, error) {
	moments, err := state.Adam(s, l.adam, l.net.trained())
	if err != nil {
		return nil, err
	}
	return append(l.net.State(), moments...), nil
}

// Growth is none: no gradient waits for an update.
func (l *learner) Growth() (int64, error) { return 0, nil }

// Restore is the way back from State.
func (l *learner) Restore(file *weights.File, _ anomaly.Facts) error {
	if err := l.net.load(file); err != nil {
		return err
	}
	if err := state.RestoreAdam(file, l.adam, l.net.trained()); err != nil {
		return err
	}
	return l.net.teacher.Train(false)
}

// Finish is the flows as they are, unless the last update left no numbers.
func (l *learner) Finish(_ context.Context, _ method.Images, last bool) (method.Net, error) {
	if err := state.CheckLearned(l.net.trained()); err != nil {
		return nil, setting.Advise(fmt.Errorf("fastflow: %w", err), "use a lower {flow_rate}, or set {flow_clip}")
	}
	if last {
		l.adam.Close()
	}
	l.training = false
	return l.net, l.net.Settle()
}
