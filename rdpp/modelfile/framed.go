package modelfile

import (
	"math"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/method"
	"rdpp/rdpp/metric"
)

// PredictFramed is PredictEach of images of which not every position need count, as their frames say. Where some do not,
// the map is 0 there, and the score is made of the others.
func (m *Model) PredictFramed(x []float32, frames []*framing.Frame) []Outcome {
	outcomes := m.PredictEach(x)
	for i, f := range frames {
		o := &outcomes[i]
		if o.Err != nil || f.All() {
			continue
		}
		var top float64
		if top, o.Err = method.TopOf(m.Info.Config.Learned()); o.Err != nil {
			o.Map = nil
			continue
		}
		framing.Blank(f, o.Map)
		o.Score = anomaly.Highest(o.Map, f.Counts, top)
	}
	return outcomes
}

// Outlined are the regions of a map, S x S, in pixels of the picture, and the level that each position of one is above, as
// metric.Outline.Regions has them. What the frame does not look at plays no part.
func Outlined(o metric.Outline, m []float32, f *framing.Frame) (regions []metric.Region, levels []float64, err error) {
	regions, levels, err = o.Regions(framing.Inner(f, m), f.To.Dy(), f.To.Dx(), f.From.Dx(), f.From.Dy())
	if err != nil {
		return nil, nil, err
	}
	for i := range regions {
		regions[i].X += f.From.Min.X
		regions[i].Y += f.From.Min.Y
	}
	return regions, framing.Outer(f, levels, math.Inf(1)), nil
}
