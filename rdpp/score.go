package rdpp

import (
	"context"
	"fmt"
	"math"
	"slices"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/export"
	"rdpp/rdpp/setting"
	"rdpp/torch"
)

// How the scales' distances become a map.
const (
	ScoreReleased = "released" // their plain sum
	ScoreBalanced = "balanced" // the weighted sum of log(1 + d/level), levels being what distances d are on training images
)

// MapTerms has a number for each term of a map: the scales, finest first, then their features averaged over 3 x 3
// positions.
type MapTerms [torch.Terms]float64

// balancedShares are the terms' weights in ScoreBalanced. Their sum is 1.
//
// A term is log(1 + d/level), d being its distances and level their mean over training images. So no scale outvotes the
// others by being further from the teacher everywhere, and a place that all scales find odd counts more than one that a
// single scale finds very odd.
var balancedShares = MapTerms{1 / 4.5, 1 / 4.5, 2 / 4.5, 0, 0, 0.5 / 4.5}

// mapOptions are those of the model's anomaly maps.
func (m *Model) mapOptions() torch.MapOptions {
	return torch.MapOptions{Sigma: m.Info.Config.MapSigma, Weights: m.Info.MapWeights, Levels: m.Info.MapLevels}
}

// balance sets the weights and levels of the map's terms, the latter by some of the images that were trained on. The model is
// in eval mode.
func (m *Model) balance(ctx context.Context, trained []dataset.Item, cache *dataset.Cache) error {
	m.Info.MapWeights, m.Info.MapLevels = MapTerms{}, MapTerms{}
	if m.Info.Config.Score != ScoreBalanced {
		return nil
	}
	items := spread(trained, measuredImages)
	var levels MapTerms
	err := m.read(ctx, items, cache, func(_ int, x []float32) error {
		means, err := m.termMeans(x)
		for i, mean := range means {
			levels[i] += mean / float64(len(items))
		}
		return err
	})
	if err != nil {
		return err
	}
	for i, share := range balancedShares {
		if share > 0 && !(levels[i] >= leastLevel) {
			return setting.Advise(fmt.Errorf("rdpp: term %d of the map is %v on the training images, so it cannot be balanced; are they all of one colour?",
				i+1, levels[i]), "{score} %s does without, in a new run", ScoreReleased)
		}
	}
	m.Info.MapWeights, m.Info.MapLevels = balancedShares, levels
	return nil
}

// termMeans are the mean distances of the map's terms on a normalised image, 3 x S x S; 0 of terms that have no share. The
// model is in eval mode.
func (m *Model) termMeans(x []float32) (means MapTerms, err error) {
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
		raw, _ := s.Pair(torch.AnomalyMap(f, g, S, only)) // 1 x S x S
		if err := s.Err(); err != nil {
			return means, err
		}
		values, err := torch.Read[float32](raw)
		if err != nil {
			return means, err
		}
		for _, v := range values {
			means[i] += float64(v) / float64(len(values))
		}
	}
	return means, nil
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

// checkTerms says what of a model file's terms cannot be.
func (i *Info) checkTerms() error {
	for name, terms := range map[string]MapTerms{"map_weights": i.MapWeights, "map_levels": i.MapLevels} {
		tiny := func(x float64) bool { return name == "map_levels" && x > 0 && x < leastLevel }
		if !(slices.Min(terms[:]) >= 0 && slices.Max(terms[:]) <= maxTerm) || slices.ContainsFunc(terms[:], tiny) {
			return fmt.Errorf("%s %v cannot be, the file is damaged; restore it or train again", name, terms)
		}
	}
	return nil
}

// mostScore is the highest score that the model's map can give: distances are 1 - cos, and so at most 2.
func (i *Info) mostScore() float64 {
	const distance = 2
	if i.MapWeights == (MapTerms{}) {
		return torch.Scales * distance
	}
	most := 0.0
	for term, weight := range i.MapWeights {
		if level := i.MapLevels[term]; level > 0 {
			most += weight * math.Log1p(distance/level)
		} else {
			most += weight * distance
		}
	}
	return most
}

// What a model file's weights and levels are at most, and levels at least: where distances are rounding errors there is
// nothing to divide by.
const (
	maxTerm    = 1e30
	leastLevel = export.LeastLevel
)
