package cfa

import (
	"context"
	"errors"
	"fmt"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/state"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// PyTorch's defaults, which are not told otherwise.
const beta1, beta2, eps = 0.9, 0.999, 1e-8

// iterations of k-means at most.
const iterations = 300

// learner brings the descriptors of good images near the bank.
type learner struct {
	c         *adapting
	net       *adapted
	adam      *torch.Adam
	continued bool // the bank is that of a model that learns on
	training  bool // the descriptor is in training mode
}

// Learner returns what teaches the descriptor.
func (c *adapting) Learner(net method.Net, o method.LearnerOptions) (method.Learner, error) {
	n, own := net.(*adapted)
	if !own {
		return nil, fmt.Errorf("cfa: a net of type %T is not this method's", net)
	}
	l := &learner{c: c, net: n, continued: o.Continued}
	if err := l.start(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// start makes the optimiser: AdamW with AMSGrad, as section 4.1 has it.
func (l *learner) start() (err error) {
	if l.adam, err = torch.NewAdam(beta1, beta2, eps); err != nil {
		return err
	}
	if err := l.adam.Add(l.net.descriptor, l.c.SphereRate); err != nil {
		return err
	}
	if err := l.adam.SetDecayOfAll(0, l.c.SphereDecay); err != nil {
		return err
	}
	return l.adam.SetAMSGrad(0)
}

// Close frees the optimiser.
func (l *learner) Close() { l.adam.Close() }

// Begin fills the bank by the fresh descriptor. What learns on has learned to come near the bank that it has.
func (l *learner) Begin(ctx context.Context, images method.Images) error {
	if err := l.settle(); err != nil || l.continued {
		return err
	}
	mean, err := l.mean(ctx, images)
	if err != nil {
		return err
	}
	if l.c.SphereRows > 1 {
		if mean, err = l.clusters(ctx, mean); err != nil {
			return err
		}
	}
	for _, e := range l.net.descriptor.State() {
		if e.Name == "centres" {
			return torch.Write(e.Tensor, mean)
		}
	}
	return errors.New("cfa: the descriptor has no bank")
}

// mean of the images' descriptors at every position: H x W x D.
func (l *learner) mean(ctx context.Context, images method.Images) ([]float32, error) {
	sums := make([]float64, l.c.positions()*l.c.dimensions())
	seen := 0
	err := images(ctx, 0, func(x *torch.Tensor, _ *framing.Frame) error {
		var s torch.Scope
		defer s.Close()
		phi := s.Tensor(l.net.descriptor.Forward(s.Features(l.net.teacher.Forward(x)))) // 1 x H x W x D
		if err := s.Err(); err != nil {
			return err
		}
		values, err := torch.Read[float32](phi)
		if err != nil {
			return err
		}
		if len(values) != len(sums) {
			return fmt.Errorf("cfa: an image has %d values, %d are needed", len(values), len(sums))
		}
		for i, v := range values {
			sums[i] += float64(v)
		}
		seen++
		return nil
	})
	if err != nil {
		return nil, err
	}
	mean := make([]float32, len(sums))
	for i, sum := range sums {
		mean[i] = float32(sum / float64(max(1, seen)))
	}
	return mean, nil
}

// clusters are the rows, M x D, that stand for the points, H x W x D.
func (l *learner) clusters(ctx context.Context, points []float32) ([]float32, error) {
	var s torch.Scope
	defer s.Close()
	all := s.Tensor(torch.FromSlice(points, int64(l.c.positions()), int64(l.c.dimensions())))
	centres := s.Tensor(torch.KMeans(ctx, all, l.c.rows(), iterations, method.SeedOf(prefixDescriptor+"centres", l.c.Seed)))
	if err := s.Err(); err != nil {
		return nil, err
	}
	return torch.Read[float32](centres)
}

func (l *learner) settle() error {
	l.training = false
	return l.net.Settle()
}

// Step is an update of the descriptor, and of the radius, by a batch (Eq. 3).
func (l *learner) Step(batch *dataset.Batch, _, _ int) (anomaly.Losses, error) {
	n := l.net
	if !l.training {
		if err := n.descriptor.Train(true); err != nil {
			return nil, err
		}
		l.training = true
	}
	S := int64(l.c.ImageSize)
	var s torch.Scope
	defer s.Close()
	host := s.Tensor(torch.FromSlice(batch.Clean, int64(batch.B), 3, S, S))
	x := s.Tensor(host.To(n.device, torch.Float32)) // B x 3 x S x S
	f := s.Features(n.teacher.Forward(x))
	phi := s.Tensor(n.descriptor.Forward(f)) // B x H x W x D
	attraction, repulsion := s.Pair(n.descriptor.Loss(phi, torch.SphereOptions{Near: l.c.SphereNear, Far: l.c.SphereFar,
		Margin: l.c.SphereMargin, Nu: l.c.SphereNu, Bytes: distanceBytes}))
	loss := s.Tensor(torch.WeightedSum(torch.Term{Value: attraction, Weight: 1}, torch.Term{Value: repulsion, Weight: 1}))
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

// State lists teacher and descriptor under their names in a model file, and the optimiser's moments.
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
		return nil, setting.Advise(fmt.Errorf("cfa: %w", err), "use a lower {sphere_rate}")
	}
	if last {
		l.adam.Close()
	}
	return l.net, l.settle()
}
