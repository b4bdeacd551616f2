package modelfile

import (
	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/method"
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
