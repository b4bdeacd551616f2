package reverse

import (
	"context"
	"fmt"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/state"
	"rdpp/rdpp/teacher"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// prefixAverage is before the names of the averaged weights in a checkpoint.
const prefixAverage = "average."

// learner is Algorithm 2 of the paper.
type learner struct {
	c         *reversed
	net       *Networks
	average   *Networks // of its weights, with its teacher; nil: none
	adam      *torch.Adam
	rates     []float64 // highest, per group of adam
	ssot      torch.SSOT
	precision torch.Precision
	training  bool // the net is in training mode
	continued bool // the teacher is equalised, and all have learned by it

	group *torch.Group // processes that learn with this one; nil: none
}

// Learner returns what teaches P, O and D.
func (c *reversed) Learner(net method.Net, o method.LearnerOptions) (method.Learner, error) {
	n, own := net.(*Networks)
	if !own {
		return nil, fmt.Errorf("reverse: a net of type %T is not this method's", net)
	}
	l := &learner{c: c, net: n, precision: o.Precision, continued: o.Continued, group: o.Group}
	if err := l.start(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// start makes the optimiser, with a group for every network that learns.
func (l *learner) start() (err error) {
	c := l.c
	if l.ssot, err = c.ssot(); err != nil {
		return err
	}
	if l.adam, err = torch.NewAdam(c.Beta1, c.Beta2, c.AdamEps); err != nil {
		return err
	}
	for _, part := range l.net.trained() {
		rate := c.RateDistill
		if part.Prefix == prefixProjection {
			rate = c.RateProjection
		}
		l.rates = append(l.rates, rate)
		if err := l.adam.Add(part.Net, rate); err != nil {
			return err
		}
		if l.group == nil {
			continue
		}
		if err := l.group.Share(part.Net); err != nil {
			return err
		}
	}
	return l.adam.SetClip(c.Clip)
}

// Close frees the optimiser and the average.
func (l *learner) Close() {
	l.adam.Close()
	if l.average != nil {
		l.average.predictor.Close()
		for _, part := range l.average.trained() {
			part.Net.Close()
		}
	}
}

// Begin equalises the teacher over the training images, unless the net goes on from a model's, and starts the average.
func (l *learner) Begin(ctx context.Context, images method.Images) error {
	if l.group.Rank() > 0 { // which follow rank 0
		return nil
	}
	if l.c.Equalise && !l.continued {
		if err := l.equalise(ctx, images); err != nil {
			return err
		}
	}
	if l.c.Average == 0 {
		return nil
	}
	if err := l.newAverage(); err != nil {
		return err
	}
	return l.follow(1)
}

// measured bounds how many training images are looked at for what is told by their mean: the channels' deviations and the
// scales' levels.
const measured = 64

// trainingFloor is teacher.Equalise's floor for photographs of one part, which leave many channels at rest. What moves those
// is a defect or chance, so they are raised, but not to the others' height.
const trainingFloor = 0.3

func (l *learner) equalise(ctx context.Context, images method.Images) error {
	var moments teacher.Moments
	l.training = false
	if err := l.net.Settle(); err != nil {
		return err
	}
	err := images(ctx, measured, func(x *torch.Tensor, _ *framing.Frame) error { return moments.Add(l.net.Teacher, x) })
	if err != nil {
		return err
	}
	values, err := teacher.Read(l.net.Teacher)
	if err == nil {
		teacher.Equalise(values, moments.Deviations(), trainingFloor)
		err = teacher.Write(l.net.Teacher, values)
	}
	if err != nil {
		return fmt.Errorf("reverse: equalising the teacher: %w", err)
	}
	return nil
}

// newAverage makes networks for the average of the weights.
func (l *learner) newAverage() error {
	fresh, err := l.c.networks(method.Options{Device: l.net.device, Blank: true})
	if err != nil {
		return err
	}
	fresh.Teacher.Close()
	fresh.Teacher = l.net.Teacher // which does not learn
	l.average = fresh
	return nil
}

// follow moves the average, where there is one, towards the weights. Running statistics of batch norms are averaged as
// the weights are.
func (l *learner) follow(weight float64) error {
	if l.average == nil {
		return nil
	}
	from := l.net.trained()
	for i, part := range l.average.trained() {
		if err := torch.Average(part.Net, from[i].Net, weight); err != nil {
			return err
		}
	}
	return nil
}

// Follow makes the networks and the optimiser of every process what rank 0's are. The average of the weights and gradients
// that wait for an update stay with rank 0.
func (c *reversed) Follow(of method.Learner) error {
	l, own := of.(*learner)
	if !own {
		return fmt.Errorf("reverse: a learner of type %T is not this method's", of)
	}
	for _, part := range l.net.parts() {
		for _, e := range part.Net.State() {
			if err := l.group.TakeFirst(e.Tensor); err != nil {
				return err
			}
		}
	}
	l.training = false // the teacher's weights may be others
	return state.FollowAdam(l.group, l.adam, l.net.trained())
}

// Step is Algorithm 2's body: teacher, projection, bottleneck, student, the losses, and every Accumulate-th time an
// update. Clean and noisy images go through the networks together.
//
// Of several processes each has a part of the batch, and the losses that it computes are its part of them: their sum over
// processes is the whole batch's, and so is that of the gradients.
func (l *learner) Step(batch *dataset.Batch, step, of int) (anomaly.Losses, error) {
	c, n := l.c, l.net
	if !l.training {
		if err := n.train(true); err != nil {
			return nil, err
		}
		l.training = true
	}
	S := int64(c.ImageSize)
	var s torch.Scope
	defer s.Close()
	dtype := l.precision.DType()
	if c.dtype != 0 {
		dtype = c.dtype
	}
	part := l.deal(&s, batch)
	images := func(data []float32) *torch.Tensor { // B x 3 x S x S
		host := s.Tensor(torch.FromSlice(data, int64(len(data))/(3*S*S), 3, S, S))
		return s.Tensor(host.To(n.device, dtype))
	}
	x := images(batch.Clean)

	var f, g torch.Features // teacher's and student's, K tensors of B x C x H x W
	var terms []torch.Term
	if c.rd() {
		f = s.Features(n.Teacher.Forward(x))
		z := s.Tensor(n.Bottleneck.Forward(f)) // B x 512e x S/32 x S/32
		g = s.Features(n.Student.Forward(z))
	} else {
		noisyB := len(batch.Noisy) / (3 * c.ImageSize * c.ImageSize)
		both := s.Features(n.Teacher.ForwardPair(x, images(batch.Noisy))) // B + noisyB rows: clean, noisy
		clean, noisy := s.Two(both.Split(batch.B))
		projected := s.Features(n.Projection.Forward(both))
		p, pNoisy := s.Two(projected.Split(batch.B))
		pSame, pRest := s.Two(p.Split(noisyB)) // those of the noisy ones, and the others
		seen := p
		if c.Denoise > 0 {
			seen = s.Features(torch.Join(pNoisy, pRest))
		}
		z := s.Tensor(n.Bottleneck.Forward(seen)) // B x 512e x S/32 x S/32
		f, g = clean, s.Features(n.Student.Forward(z))
		if c.Project == ProjectCoarsest {
			for _, features := range []*torch.Features{&noisy, &p, &pNoisy, &pSame} {
				*features = torch.Features{torch.Scales - 1: features[torch.Scales-1]}
			}
		}
		if l.group != nil { // pairs are of the whole batch
			p = s.Features(l.group.Batch(p))
		}
		terms = []torch.Term{{Value: s.Tensor(torch.LossSSOT(p, batch.Shuffle, l.ssot, c.sinkhorn())), Weight: c.WeightSSOT * part.pairs}}
		if noisyB > 0 {
			terms = append(terms, torch.Term{Value: s.Tensor(torch.LossRecon(pNoisy, pSame)), Weight: c.WeightRecon * part.noisy},
				torch.Term{Value: s.Tensor(torch.LossContrast(noisy, pSame, c.Margin)), Weight: c.WeightContrast * part.noisy})
		}
	}
	kd := s.Tensor(torch.LossKD(f, g, c.KDPerPosition, torch.Easy{Cut: c.EasyCut, Below: c.EasyBelow, Group: l.group}))
	total := s.Tensor(torch.WeightedSum(append(terms, torch.Term{Value: kd, Weight: part.images})...))
	s.Check(torch.Backward(total))
	last := (step+1)%c.Accumulate == 0 // before an update
	l.collect(&s, last)
	if last {
		update, updates := step/c.Accumulate, of/c.Accumulate
		factor := c.rateFactor(update, updates)
		for group, rate := range l.rates {
			s.Check(l.adam.SetRate(group, rate*factor))
		}
		s.Check(l.adam.Step())
		s.Check(l.follow(c.averageWeight(update, updates)))
	}
	read := []*torch.Tensor{total, kd}
	for _, term := range terms {
		read = append(read, term.Value)
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	values, err := torch.Scalars(read...)
	if err == nil && l.group != nil {
		values, err = part.sums(l.group, values)
	}
	if err != nil {
		return nil, err
	}
	losses := make(anomaly.Losses, len(lossNames))
	for i, name := range lossNames { // RD has no further terms
		losses[i].Name = name
		if i < len(values) {
			losses[i].Value = values[i]
		}
	}
	return losses, nil
}

// portion is what the losses of a process count for in the batch's: those of its images, of its noisy ones, and of pairs, which
// every process computes of the whole batch.
type portion struct{ images, noisy, pairs float64 }

// deal says which part of a batch this process has.
func (l *learner) deal(s *torch.Scope, b *dataset.Batch) portion {
	if l.group == nil {
		return portion{1, 1, 1}
	}
	s.Check(l.group.Deal(b.Of))
	p := portion{images: float64(b.Own) / float64(b.Of), pairs: 1 / float64(l.group.Size())}
	if b.NoisyOf > 0 {
		p.noisy = float64(len(b.Noisy)/(3*l.c.ImageSize*l.c.ImageSize)) / float64(b.NoisyOf)
	}
	return p
}

// sums are the batch's losses, of what this process has of them, in the order of lossNames. The total is a part already.
func (p portion) sums(group *torch.Group, values []float64) ([]float64, error) {
	own := make([]float64, len(lossNames))
	for i, share := range []float64{1, p.images, p.pairs, p.noisy, p.noisy} {
		if i < len(values) {
			own[i] = share * values[i]
		}
	}
	return group.Sums(own...)
}

// collect makes the gradients those of the batch. Before an update all processes need them; else they wait with rank 0, which
// writes them into checkpoints, and with no other, so that they are counted once.
func (l *learner) collect(s *torch.Scope, update bool) {
	if l.group == nil || s.Err() != nil { // which the others learn of when this process ends
		return
	}
	s.Check(l.adam.SumGradients(l.group))
	if update || l.group.Rank() == 0 {
		return
	}
	for _, part := range l.net.trained() {
		for _, e := range part.Net.State() {
			if e.Trainable {
				s.Check(e.Tensor.SetGrad(nil))
			}
		}
	}
}

// lossNames are those of L_KD, L_SSOT, L_Recon and L_Con (paper, Eq. 2) behind their weighted total.
var lossNames = []string{anomaly.LossTotal, "kd", "ssot", "recon", "contrast"}

// State lists the networks under their names in a model file, the average of their weights, Adam's moments and gradients
// that wait for an update.
func (l *learner) State(s *torch.Scope) ([]weights.Source, error) {
	moments, err := state.Adam(s, l.adam, l.net.trained())
	if err != nil {
		return nil, err
	}
	all := append(l.net.State(), moments...)
	if l.average != nil {
		for _, t := range state.Of(l.average.trained()) {
			t.Name = prefixAverage + t.Name
			all = append(all, t)
		}
	}
	return all, nil
}

// Growth is that of gradients that wait for an update.
func (l *learner) Growth() (int64, error) {
	if l.c.Accumulate == 1 {
		return 0, nil
	}
	return weights.Size(nil, l.net.State())
}

// Restore is the way back from State.
func (l *learner) Restore(file *weights.File, facts anomaly.Facts) error {
	l.net.facts = facts
	if err := l.net.load(file); err != nil {
		return err
	}
	if err := state.RestoreAdam(file, l.adam, l.net.trained()); err != nil {
		return err
	}
	if l.c.Average == 0 {
		return nil
	}
	if err := l.newAverage(); err != nil {
		return err
	}
	for _, part := range l.average.trained() {
		for _, e := range part.Net.State() {
			if err := state.Load(file, prefixAverage+part.Prefix+e.Name, e.Tensor); err != nil {
				return err
			}
		}
	}
	return nil
}

// Finish is the average of the weights, where there is one, else the weights, with the levels of the map's terms.
func (l *learner) Finish(ctx context.Context, images method.Images, last bool) (method.Net, error) {
	if last {
		l.adam.Close()
	}
	net := l.net
	if l.average != nil {
		net = l.average
	}
	l.training = false
	if err := net.Settle(); err != nil {
		return nil, err
	}
	if err := net.balance(ctx, images); err != nil {
		return nil, err
	}
	l.net.facts = net.facts
	return net, nil
}

// balancedShares are the terms' weights in ScoreBalanced. Their sum is 1.
//
// A term is log(1 + d/level), d being its distances and level their mean over training images. So no scale outvotes the
// others by being further from the teacher everywhere, and a place that all scales find odd counts more than one that a
// single scale finds very odd.
var balancedShares = anomaly.MapTerms{1 / 4.5, 1 / 4.5, 2 / 4.5, 0, 0, 0.5 / 4.5}

// The terms that files and the library have must be as many.
var _ = [torch.Terms]float64(anomaly.MapTerms{})

// balance sets the weights and levels of the map's terms, the latter by some of the images that were trained on. The networks
// are settled.
func (n *Networks) balance(ctx context.Context, images method.Images) error {
	n.facts = anomaly.Facts{}
	if n.c.Score != ScoreBalanced {
		return nil
	}
	var means []anomaly.MapTerms // per image
	err := images(ctx, measured, func(x *torch.Tensor, frame *framing.Frame) error {
		m, err := n.termMeans(x, frame)
		means = append(means, m)
		return err
	})
	if err != nil {
		return err
	}
	var levels anomaly.MapTerms
	for _, m := range means {
		for i, mean := range m {
			levels[i] += mean / float64(len(means))
		}
	}
	for i, share := range balancedShares {
		if share > 0 && !(levels[i] >= leastLevel) {
			return setting.Advise(fmt.Errorf("reverse: term %d of the map is %v on the training images, so it cannot be balanced; are they all of one colour?",
				i+1, levels[i]), "{score} %s does without, in a new run", ScoreReleased)
		}
	}
	n.facts = anomaly.Facts{MapWeights: balancedShares, MapLevels: levels}
	return nil
}

// termMeans are the mean distances of the map's terms on a normalised image, 1 x 3 x S x S, where its positions count; 0 of
// terms that have no share. The networks are settled.
func (n *Networks) termMeans(x *torch.Tensor, frame *framing.Frame) (means anomaly.MapTerms, err error) {
	var s torch.Scope
	defer s.Close()
	f, g, _ := n.features(&s, x)
	for i, share := range balancedShares {
		if share == 0 {
			continue
		}
		only := torch.MapOptions{Sigma: n.c.MapSigma}
		only.Weights[i] = 1
		raw, _ := s.Pair(torch.AnomalyMap(f, g, n.c.ImageSize, only)) // 1 x S x S
		if err := s.Err(); err != nil {
			return means, err
		}
		values, err := torch.Read[float32](raw)
		if err != nil {
			return means, err
		}
		for p, v := range values {
			if frame.Counts(p) {
				means[i] += float64(v) / float64(frame.Counted())
			}
		}
	}
	return means, nil
}

// What the house asks of a net beyond the contract, these have.
var _ interface {
	method.Net
	method.Embedder
	method.Exporter
} = (*Networks)(nil)
