package anomaly

import (
	"rdpp/rdpp/framing"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/printable"
)

// Verdict is what a calibration makes of an image's score.
type Verdict struct {
	Score          float64  `json:"score"`
	Normalised     float64  `json:"normalised"`      // 0 to 1, rises with the score, 0.5 at the threshold
	Anomalous      bool     `json:"anomalous"`       // Score > Threshold
	Threshold      float64  `json:"threshold"`       // of the score
	PixelThreshold float64  `json:"pixel_threshold"` // of the map, see Calibration.Outline
	Provisional    bool     `json:"provisional"`     // the threshold is a stand-in, no rate of false alarms is promised
	Exact          bool     `json:"exact"`           // its rate is exact, instead of a fit of the tail of too few scores
	PValue         *float64 `json:"p_value"`         // how rare such a score is among good images, above 0 to 1; nil: not calibrated
	// PValueBound says that no calibration score is as high, so that PValue is a bound: it would be lower with more of them.
	PValueBound bool `json:"p_value_bound"`
}

// Judge is the verdict on a score.
func (c *Calibration) Judge(score float64) Verdict {
	return Verdict{Score: score, Normalised: Normalise(score, c.Threshold), Anomalous: score > c.Threshold, Threshold: c.Threshold,
		PixelThreshold: c.PixelThreshold, Provisional: c.Provisional, Exact: c.Exact, PValue: c.PValue(score), PValueBound: c.bounds(score)}
}

// Normalise maps a score to 0..1, 0.5 at the threshold. Scores are distances and so not negative.
func Normalise(score, threshold float64) float64 {
	if !(threshold > 0) {
		if score > threshold {
			return 1
		}
		return 0.5
	}
	return max(score, 0) / (max(score, 0) + threshold)
}

// Prediction is what every way of asking answers about an image, as JSON: infer image, the server, the C library.
type Prediction struct {
	Image       string `json:"image"`                  // its name, as given
	ImageBase64 string `json:"image_base64,omitempty"` // the name's bytes, where it is not UTF-8, which JSON cannot hold
	Verdict
	Width  int `json:"width"` // of the image, pixels
	Height int `json:"height"`
	// Regions are those of the map of an anomalous image whose peak is above PixelThreshold, or above Score where that is lower, in
	// the image's pixels; Calibration.Outline says where they end. A good image has none, unless the threshold of pixels was given,
	// which is followed whatever the verdict. Never nil.
	Regions  []metric.Region `json:"regions"`
	Warnings []string        `json:"warnings,omitempty"` // that the image is unlike those of training, in words
	Pose     *framing.Pose   `json:"pose,omitempty"`     // how the part was found to lie; nil: it was not looked for, or not found
}

// Predicted is the prediction about the image of a name, of so many pixels.
func Predicted(image string, v Verdict, width, height int, regions []metric.Region, warnings []string) Prediction {
	if regions == nil {
		regions = []metric.Region{}
	}
	return Prediction{Image: image, ImageBase64: printable.Base64(image), Verdict: v, Width: width, Height: height, Regions: regions,
		Warnings: warnings}
}
