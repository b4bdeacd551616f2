package csflow

import (
	"fmt"

	"rdpp/rdpp/learned"
	"rdpp/rdpp/method"
	"rdpp/torch"
)

// adamEps is the published code's.
const adamEps = 1e-4

// Learner returns what makes likely what the teacher sees.
func (c *flowing) Learner(net method.Net, _ method.LearnerOptions) (method.Learner, error) {
	n, own := net.(*flow)
	if !own {
		return nil, fmt.Errorf("csflow: a net of type %T is not this method's", net)
	}
	adam := func(a *torch.Adam) error {
		if err := a.SetPenalty(0, c.CrossDecay); err != nil {
			return err
		}
		return a.SetClip(c.CrossClip)
	}
	l, err := learned.NewLearner(n, &n.Net, learned.Options{Name: Name, Size: c.ImageSize, Rate: c.CrossRate, Eps: adamEps, Adam: adam, Loss: n.loss,
		Advice: "use a lower {cross_rate} or {cross_clip}"})
	if err != nil {
		return nil, err // and no interface that holds a nil
	}
	return l, nil
}

// loss is how unlikely what the teacher sees of x and of it in two smaller sizes is, B x 3 x S x S.
func (n *flow) loss(s *torch.Scope, x *torch.Tensor) *torch.Tensor {
	y := s.Features(torch.Pyramid(n.Teacher, x)) // a size each: B x C x H x W
	z, logDet, err := n.cross.Forward(y)         // likewise, and B
	z, logDet = s.Features(z, err), s.Tensor(logDet, nil)
	return s.Tensor(torch.LossCrossFlow(z, logDet))
}
