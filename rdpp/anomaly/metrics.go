package anomaly

import "rdpp/rdpp/metric"

// Metrics of a test set, each 0 to 1 but where it says otherwise. Absent ones are nil: a set without defective images has no AUROC, one without masks
// no pixel metrics. The thresholds are the highest ones that reach the F1 above them.
type Metrics struct {
	Good             int      `json:"good"` // images
	Defective        int      `json:"defective"`
	ImageAUROC       *float64 `json:"image_auroc,omitempty"`
	ImageAP          *float64 `json:"image_ap,omitempty"` // average precision
	ImageF1          *float64 `json:"image_f1_max,omitempty"`
	ImageF1Threshold *float64 `json:"image_f1_threshold,omitempty"`
	PixelAUROC       *float64 `json:"pixel_auroc,omitempty"`
	PixelAP          *float64 `json:"pixel_ap,omitempty"`
	PixelF1          *float64 `json:"pixel_f1_max,omitempty"`
	PixelF1Threshold *float64 `json:"pixel_f1_threshold,omitempty"`
	AUPRO            *float64 `json:"aupro_030,omitempty"`    // up to a false positive rate of 0.3
	AUPROStrict      *float64 `json:"aupro_005,omitempty"`    // up to 0.05
	PROReleased      *float64 `json:"pro_released,omitempty"` // as the released code counts, for comparison with the paper
	// How outlines fit the masks of defective images, by the calibration in force. A defective image that is called good has none.
	OutlineIoU       *float64 `json:"outline_iou,omitempty"`        // pixels in both over pixels in either, median over the images
	OutlineAreaRatio *float64 `json:"outline_area_ratio,omitempty"` // outlined over defective pixels, median over the images; may be above 1
	OutlineF1        *float64 `json:"outline_f1,omitempty"`         // of all pixels of all images
	LostMasks        int      `json:"lost_masks,omitempty"`         // masks of which no pixel is left at the image size; they count as good pixels
}

// Mean is that of the three metrics that the released protocol picks the epoch by, of which it counts PRO its own way; any
// is false where there are none. Maps of which PRO is undefined, such as constant ones, count as 0.
func (m *Metrics) Mean() (mean float64, any bool) {
	pro := m.PROReleased
	if pro == nil && m.AUPRO != nil {
		pro = new(0.0)
	}
	n := 0
	for _, value := range []*float64{m.ImageAUROC, m.PixelAUROC, pro} {
		if value != nil {
			mean += *value
			n++
		}
	}
	return mean / float64(max(n, 1)), n > 0
}

// Verdicts says what a threshold makes of a test set.
type Verdicts struct {
	GoodFlagged    int `json:"good_flagged"`    // good images above the threshold: false alarms
	DefectiveFound int `json:"defective_found"` // defective ones above it
	// FalseAlarms is the 95 % confidence interval of the share of good parts that are flagged; nil without good images.
	FalseAlarms   *[2]float64 `json:"false_alarm_interval,omitempty"`
	Threshold     float64     `json:"threshold"`
	ThresholdRule string      `json:"threshold_rule"` // where it comes from, in words
}

// Verdicts are those of the calibration before any image is counted.
func (c *Calibration) Verdicts() Verdicts {
	return Verdicts{Threshold: c.Threshold, ThresholdRule: c.Rule}
}

// Count adds an image with a score.
func (v *Verdicts) Count(score float64, defective bool) {
	switch {
	case !(score > v.Threshold):
	case defective:
		v.DefectiveFound++
	default:
		v.GoodFlagged++
	}
}

// Close sets the interval once all images, of which so many are good, are counted.
func (v *Verdicts) Close(good int) {
	if good > 0 {
		low, high := metric.Interval(v.GoodFlagged, good, 0.95)
		v.FalseAlarms = &[2]float64{low, high}
	}
}

// Epoch describes a pass over the training images; losses are means over them.
type Epoch struct {
	Epoch   int      `json:"epoch"` // counted from 1
	Images  int      `json:"images"`
	Losses  Losses   `json:"losses"`
	Seconds float64  `json:"seconds"`
	Metrics *Metrics `json:"metrics,omitempty"` // on the test set, where it was looked at

	MadeUp *float64 `json:"made_up_ap,omitempty"` // average precision of made-up defects on held-out images, where the rule that stops early looked
}
