package modelfile

import (
	"math"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/method"
	"rdpp/rdpp/metric"
)

// framed gives an outcome its frame. Where some positions do not count, the map is 0 there, and the score is made of the others. The map
// of a part that was found is laid back on the picture, after the score was made.
func (m *Model) framed(o *Outcome, f *framing.Frame) {
	o.Frame = f
	if o.Err != nil {
		return
	}
	if !f.All() {
		var top float64
		if top, o.Err = method.TopOf(m.Info.Config.Learned()); o.Err != nil {
			o.Map = nil
			return
		}
		framing.Blank(f, o.Map)
		values := f.Values(o.Map)
		o.Score = anomaly.Highest(values, int(top*float64(len(values))))
	}
	o.Frame = f.Original()
	o.Map = f.Back(o.Map, o.Frame)
}

// Outlined are the regions of a map in pixels of the picture, and the level that each value of one is above, as
// metric.Outline.Regions has them. The outline's Blur is in positions of the network's input. What the frame does not look at
// plays no part.
func Outlined(o metric.Outline, m []float32, f *framing.Frame) (regions []metric.Region, levels []float64, err error) {
	o.Blur *= f.Cell
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
