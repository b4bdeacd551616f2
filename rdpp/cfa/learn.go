package cfa

import (
	"context"
	"errors"
	"fmt"

	"rdpp/rdpp/framing"
	"rdpp/rdpp/learned"
	"rdpp/rdpp/method"
	"rdpp/torch"
)

// iterations of k-means at most.
const iterations = 300

// learner brings the descriptors of good images near the bank.
type learner struct {
	*learned.Learner
	c         *adapting
	net       *adapted
	continued bool // the bank is that of a model that learns on
}

// Learner returns what teaches the descriptor, by AdamW with AMSGrad, as section 4.1 has it.
func (c *adapting) Learner(net method.Net, o method.LearnerOptions) (method.Learner, error) {
	n, own := net.(*adapted)
	if !own {
		return nil, fmt.Errorf("cfa: a net of type %T is not this method's", net)
	}
	adam := func(a *torch.Adam) error {
		if err := a.SetDecayOfAll(0, c.SphereDecay); err != nil {
			return err
		}
		return a.SetAMSGrad(0)
	}
	l, err := learned.NewLearner(n, &n.Net, learned.Options{Name: Name, Size: c.ImageSize, Rate: c.SphereRate, Eps: learned.DefaultEps, Adam: adam,
		Loss: n.loss, Advice: "use a lower {sphere_rate}"})
	if err != nil {
		return nil, err
	}
	return &learner{Learner: l, c: c, net: n, continued: o.Continued}, nil
}

// loss is how far the descriptors of x, B x 3 x S x S, are from the rows that attract them, and how near to those that do not (Eq. 3).
func (n *adapted) loss(s *torch.Scope, x *torch.Tensor) *torch.Tensor {
	f := s.Features(n.Teacher.Forward(x))
	phi := s.Tensor(n.descriptor.Forward(f)) // B x H x W x D
	attraction, repulsion := s.Pair(n.descriptor.Loss(phi, torch.SphereOptions{Near: n.c.SphereNear, Far: n.c.SphereFar, Margin: n.c.SphereMargin,
		Nu: n.c.SphereNu, Bytes: distanceBytes}))
	return s.Tensor(torch.WeightedSum(torch.Term{Value: attraction, Weight: 1}, torch.Term{Value: repulsion, Weight: 1}))
}

// Begin fills the bank by the fresh descriptor. What learns on has learned to come near the bank that it has.
func (l *learner) Begin(ctx context.Context, images method.Images) error {
	if err := l.Learner.Begin(ctx, images); err != nil || l.continued {
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
		phi := s.Tensor(l.net.descriptor.Forward(s.Features(l.net.Teacher.Forward(x)))) // 1 x H x W x D
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
