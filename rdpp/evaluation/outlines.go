package evaluation

import (
	"math"
	"slices"

	"rdpp/rdpp/anomaly"
)

// outlines compares what is outlined with masks.
type outlines struct {
	ious, ratios          []float64 // of each image with defective pixels
	both, drawn, defected int       // pixels of all images: in outline and mask, in the outline, in the mask
}

// add takes an image: the levels of metric.Outline.Regions, and a mask of the same size.
func (o *outlines) add(levels []float64, mask []uint8) {
	both, drawn, defected := 0, 0, 0
	for i, level := range levels {
		in := !math.IsInf(level, 1)
		if in {
			drawn++
		}
		if mask[i] != 0 {
			defected++
			if in {
				both++
			}
		}
	}
	o.both, o.drawn, o.defected = o.both+both, o.drawn+drawn, o.defected+defected
	if defected > 0 {
		o.ious = append(o.ious, float64(both)/float64(drawn+defected-both))
		o.ratios = append(o.ratios, float64(drawn)/float64(defected))
	}
}

// measure sets what there is to say; nothing without defective pixels.
func (o *outlines) measure(m *anomaly.Metrics) {
	if len(o.ious) > 0 {
		m.OutlineIoU, m.OutlineAreaRatio = new(median(o.ious)), new(median(o.ratios))
		m.OutlineF1 = new(2 * float64(o.both) / float64(o.drawn+o.defected))
	}
}

// median sorts values, of which there are some.
func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
