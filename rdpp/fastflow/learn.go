package fastflow

import (
	"fmt"

	"rdpp/rdpp/learned"
	"rdpp/rdpp/method"
	"rdpp/torch"
)

// Learner returns what raises the likelihood of good images' features.
func (c *flowing) Learner(net method.Net, _ method.LearnerOptions) (method.Learner, error) {
	n, own := net.(*flows)
	if !own {
		return nil, fmt.Errorf("fastflow: a net of type %T is not this method's", net)
	}
	adam := func(a *torch.Adam) error {
		if err := a.SetPenalty(0, c.FlowDecay); err != nil {
			return err
		}
		return a.SetClip(c.FlowClip)
	}
	l, err := learned.NewLearner(n, &n.Net, learned.Options{Name: Name, Size: c.ImageSize, Rate: c.FlowRate, Eps: learned.DefaultEps, Adam: adam,
		Loss: n.loss, Advice: "use a lower {flow_rate}, or set {flow_clip}"})
	if err != nil {
		return nil, err // and no interface that holds a nil
	}
	return l, nil
}

// loss is how unlikely what the teacher sees of x is, B x 3 x S x S.
func (n *flows) loss(s *torch.Scope, x *torch.Tensor) *torch.Tensor {
	f := s.Features(n.Teacher.Forward(x)) // K tensors of B x C x H x W, as are the next two
	normal := s.Features(n.flow.Normalise(f))
	z, logDet := s.Two(n.flow.Forward(normal))
	return s.Tensor(torch.LossFlow(z, logDet))
}
