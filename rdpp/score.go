package rdpp

import (
	"context"
	"fmt"
	"math"
	"slices"

	"rdpp/rdpp/dataset"
	"rdpp/torch"
)

// How the scales' distances become a map.
const (
	ScoreReleased = "released" // their plain sum
	ScoreBalanced = "balanced" // weighted by what each of them does on training images
)

// MapWeights are those of the terms that a map is the sum of: the scales, finest first, then their features averaged over
// 3 x 3 positions. All zero: 1 for each scale, as released.
type MapWeights [torch.Terms]float64

// balancedShares are the terms' shares in ScoreBalanced where all are equally steady.
var balancedShares = MapWeights{1, 2, 2, 4}

// mapOptions are those of the model's anomaly maps.
func (m *Model) mapOptions() torch.MapOptions {
	return torch.MapOptions{Sigma: m.Info.Config.MapSigma, Weights: m.Info.MapWeights}
}

// balance sets the weights of the map's terms by some of the items, which the model was trained on: images that
// calibrate the threshold or test the model have no part in them. A term's highest point on an image of a good part has
// a mean and a deviation over images. Its weight is its share over the mean, times the square of mean over deviation,
// as independent measurements of one thing are weighted: a term that is restless on good parts counts less. They are
// scaled so that good images reach about 1.
func (m *Model) balance(ctx context.Context, items []dataset.Item, cache *dataset.Cache) error {
	m.Info.MapWeights = MapWeights{}
	if m.Info.Config.Score != ScoreBalanced {
		return nil
	}
	var sums, squares MapWeights // over images, of each term's highest point
	items = spread(items, measuredImages)
	err := m.read(ctx, items, cache, func(_ int, x []float32) error {
		highest, err := m.termMaxima(x)
		for i, v := range highest {
			sums[i] += v
			squares[i] += v * v
		}
		return err
	})
	if err != nil {
		return err
	}
	n, total := float64(len(items)), 0.0
	for i := range sums {
		mean := sums[i] / n
		if !(mean > 0) {
			return fmt.Errorf("rdpp: the student equals the teacher on every training image; are the images all of one colour?")
		}
		spread := math.Sqrt(max(squares[i]/n-mean*mean, 0)) / mean
		steady := balancedShares[i] / math.Pow(max(spread, leastSpread), 2)
		m.Info.MapWeights[i] = steady / mean
		total += steady
	}
	for i := range m.Info.MapWeights {
		m.Info.MapWeights[i] /= total
	}
	return nil
}

// leastSpread bounds how much a term counts for being steady.
const leastSpread = 0.05

// termMaxima are the highest points of the terms' own smoothed maps of a normalised image, 3 x S x S. The model is in
// eval mode.
func (m *Model) termMaxima(x []float32) (highest MapWeights, err error) {
	S := m.Info.Config.ImageSize
	var s torch.Scope
	defer s.Close()
	host := s.Tensor(torch.FromSlice(x, 1, 3, int64(S), int64(S)))
	f, g := m.features(&s, s.Tensor(host.To(m.Device, torch.Float32)))
	for i := range highest {
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
