package learned

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

// PyTorch's defaults.
const (
	beta1, beta2 = 0.9, 0.999
	DefaultEps   = 1e-8
)

// Options say how a network learns.
type Options struct {
	Name string  // of the method, before errors
	Size int     // S of the images
	Rate float64 // Adam's learning rate, a constant
	Eps  float64 // Adam's
	// Adam sets what the optimiser has beside that: decay, clipping, AMSGrad.
	Adam func(a *torch.Adam) error
	// Loss is what is to become less, a scalar, of normalised images x, B x 3 x S x S.
	Loss func(s *torch.Scope, x *torch.Tensor) *torch.Tensor
	// Advice is for who has set a rate too high, of settings in braces.
	Advice string
}

// Learner is a method.Learner.
type Learner struct {
	o        Options
	whole    method.Net // which Finish gives
	net      *Net       // of it
	adam     *torch.Adam
	training bool // the network is in training mode
}

// NewLearner returns what teaches net, a part of whole.
func NewLearner(whole method.Net, net *Net, o Options) (*Learner, error) {
	adam, err := torch.NewAdam(beta1, beta2, o.Eps)
	if err != nil {
		return nil, err
	}
	if err = adam.Add(net.own.Net, o.Rate); err == nil {
		err = o.Adam(adam)
	}
	if err != nil {
		adam.Close()
		return nil, err
	}
	return &Learner{o: o, whole: whole, net: net, adam: adam}, nil
}

// Close frees the optimiser.
func (l *Learner) Close() { l.adam.Close() }

// Begin readies the teacher.
func (l *Learner) Begin(context.Context, method.Images) error { return l.settle() }

func (l *Learner) settle() error {
	l.training = false
	return l.net.Settle()
}

// Step is an update of the network by a batch.
func (l *Learner) Step(batch *dataset.Batch, _, _ int) (anomaly.Losses, error) {
	if !l.training {
		if err := l.net.own.Net.Train(true); err != nil {
			return nil, err
		}
		l.training = true
	}
	S := int64(l.o.Size)
	var s torch.Scope
	defer s.Close()
	host := s.Tensor(torch.FromSlice(batch.Clean, int64(batch.B), 3, S, S))
	loss := l.o.Loss(&s, s.Tensor(host.To(l.net.Device, torch.Float32)))
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

// State lists teacher and network under their names in a model file, and the optimiser's moments.
func (l *Learner) State(s *torch.Scope) ([]weights.Source, error) {
	moments, err := state.Adam(s, l.adam, l.net.trained())
	if err != nil {
		return nil, err
	}
	return append(l.net.State(), moments...), nil
}

// Growth is none: no gradients wait.
func (l *Learner) Growth() (int64, error) { return 0, nil }

// Restore is the way back from State.
func (l *Learner) Restore(file *weights.File, _ anomaly.Facts) error {
	if err := l.net.Load(file); err != nil {
		return err
	}
	if err := state.RestoreAdam(file, l.adam, l.net.trained()); err != nil {
		return err
	}
	return l.settle()
}

// Finish is the net with its last weights, unless the last update left no numbers.
func (l *Learner) Finish(_ context.Context, _ method.Images, last bool) (method.Net, error) {
	if err := state.CheckLearned(l.net.trained()); err != nil {
		return nil, setting.Advise(fmt.Errorf("%s: %w", l.o.Name, err), "%s", l.o.Advice)
	}
	if last {
		l.adam.Close()
	}
	return l.whole, l.settle()
}
