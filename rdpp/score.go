package rdpp

import (
	"context"
	"fmt"
	"slices"

	"rdpp/rdpp/dataset"
	"rdpp/torch"
)

// How the scales' distances become a map.
const (
	ScoreReleased = "released" // their plain sum
	ScoreBalanced = "balanced" // weighted by what each of them does on good images
)

// MapWeights are those of the terms that a map is the sum of: the scales, finest first, then their features averaged over
// 3 x 3 positions. All zero: 1 for each scale, as released.
type MapWeights [torch.Terms]float64

// balancedShares are the terms' shares in ScoreBalanced where all are equally steady. The finest scale counts through its
// averages alone: as it is, it is mostly noise.
var balancedShares = MapWeights{0, 1, 2, 1, 0, 2}

// Few images tell a deviation badly. It is taken as if so many more had shown the usual one, relative to the mean.
const (
	usualSpread = 0.2
	usualImages = 10
)

// mapOptions are those of the model's anomaly maps.
func (m *Model) mapOptions() torch.MapOptions {
	return torch.MapOptions{Sigma: m.Info.Config.MapSigma, Weights: m.Info.MapWeights}
}

// maxima are the highest points of a map's terms, per image of good parts.
type maxima []MapWeights

// weights of the terms for ScoreBalanced. A term's highest points have a mean and a deviation over images. Its weight is its
// share, over the mean, times the square of mean over deviation, as independent measurements of one thing are weighted: a
// term that is restless on good parts counts less. Where steady is false all are taken to be as steady. The image numbered
// leaveOut, if there is one, has no part in it. Good images reach about 1.
func (all maxima) weights(steady bool, leaveOut int) (w MapWeights, err error) {
	total := 0.0
	for i, share := range balancedShares {
		n, sum, squares := 0.0, 0.0, 0.0
		for at, highest := range all {
			if at != leaveOut {
				n++
				sum += highest[i]
				squares += highest[i] * highest[i]
			}
		}
		if share == 0 {
			continue
		}
		mean := sum / n
		if !(mean > 0) {
			return w, fmt.Errorf("rdpp: term %d of the map has peaks of mean %v on good images, so it cannot be weighted; are the images all of "+
				"one colour? --score %s does without weights, in a new run", i+1, mean, ScoreReleased)
		}
		spread := usualSpread * usualSpread
		if steady {
			own := max(squares/n-mean*mean, 0) / (mean * mean)
			spread = (n*own + usualImages*spread) / (n + usualImages)
		}
		w[i] = share / spread / mean
		total += share / spread
	}
	for i := range w {
		w[i] /= total
	}
	return w, nil
}

// balance sets the weights of the map's terms by good images: those held out, or where there are none, by the terms' means
// alone, some of those that were trained on, whose deviations are not those of other images.
func (m *Model) balance(ctx context.Context, held, trained []dataset.Item, cache *dataset.Cache) (peaks maxima, err error) {
	m.Info.MapWeights = MapWeights{}
	if m.Info.Config.Score != ScoreBalanced {
		return nil, nil
	}
	items := held
	if len(held) == 0 {
		items = spread(trained, measuredImages)
	}
	err = m.read(ctx, items, cache, func(_ int, x []float32) error {
		highest, err := m.termMaxima(x)
		peaks = append(peaks, highest)
		return err
	})
	if err != nil {
		return nil, err
	}
	m.Info.MapWeights, err = peaks.weights(len(held) > 0, -1)
	return peaks, err
}

// heldScores are the scores of held-out images, ascending, that the threshold is calibrated by. Where these images set
// the map's weights, each is scored by those that the others set: it is to them what an image to come is to all.
func (m *Model) heldScores(ctx context.Context, held []dataset.Item, peaks maxima, cache *dataset.Cache) (scores []float64, err error) {
	if peaks == nil || len(held) < 2 {
		return m.scores(ctx, held, cache)
	}
	all := m.Info.MapWeights
	defer func() { m.Info.MapWeights = all }()
	err = m.read(ctx, held, cache, func(i int, x []float32) (err error) {
		if m.Info.MapWeights, err = peaks.weights(true, i); err != nil {
			return err
		}
		_, one, err := m.predict(x)
		scores = append(scores, one...)
		return err
	})
	slices.Sort(scores)
	return scores, err
}

// termMaxima are the highest points of the terms' own smoothed maps of a normalised image, 3 x S x S; 0 of terms that have
// no share. The model is in eval mode.
func (m *Model) termMaxima(x []float32) (highest MapWeights, err error) {
	S := m.Info.Config.ImageSize
	var s torch.Scope
	defer s.Close()
	host := s.Tensor(torch.FromSlice(x, 1, 3, int64(S), int64(S)))
	f, g := m.features(&s, s.Tensor(host.To(m.Device, torch.Float32)))
	for i, share := range balancedShares {
		if share == 0 {
			continue
		}
		only := torch.MapOptions{Sigma: m.Info.Config.MapSigma}
		only.Weights[i] = 1
		_, smoothed := s.Pair(torch.AnomalyMap(f, g, S, only)) // 1 x S x S
		if err := s.Err(); err != nil {
			return highest, err
		}
		values, err := torch.Read[float32](smoothed)
		if err != nil {
			return highest, err
		}
		highest[i] = float64(slices.Max(values))
	}
	return highest, nil
}

// features are the teacher's and the student's of normalised images x, B x 3 x S x S: K tensors of B x C x H x W each.
func (m *Model) features(s *torch.Scope, x *torch.Tensor) (f, g torch.Features) {
	f = s.Features(m.Teacher.Forward(x))
	p := f
	if m.Info.Config.Method == MethodRDPP {
		p = s.Features(m.Projection.Forward(f))
	}
	z := s.Tensor(m.Bottleneck.Forward(p)) // B x 512e x S/32 x S/32
	return f, s.Features(m.Student.Forward(z))
}
