package evaluation

import (
	"math"
	"testing"

	"rdpp/rdpp/anomaly"
)

// Medians are over the images with defective pixels, F1 is of the pixels of all.
func TestOutlines(t *testing.T) {
	inf := math.Inf(1)
	var o outlines
	var m anomaly.Metrics
	o.measure(&m)
	if m.OutlineIoU != nil || m.OutlineAreaRatio != nil || m.OutlineF1 != nil {
		t.Errorf("without images: got %+v, want nothing", m)
	}
	o.add([]float64{1, 1, inf, inf}, []uint8{0, 1, 1, 0})     // one in both, of three; as many
	o.add([]float64{inf, inf, inf, inf}, []uint8{1, 1, 1, 1}) // not found
	o.add([]float64{2, 2, 2, 2}, []uint8{0, 1, 1, 0})         // twice as many
	o.add([]float64{3, inf, inf, inf}, []uint8{0, 0, 0, 0})   // a false alarm
	o.measure(&m)
	if *m.OutlineIoU != 1.0/3 || *m.OutlineAreaRatio != 1 || *m.OutlineF1 != 2*3.0/(7+8) {
		t.Errorf("got IoU %v, area %v, F1 %v, want 1/3, 1, 0.4", *m.OutlineIoU, *m.OutlineAreaRatio, *m.OutlineF1)
	}
}
