package rdpp

import (
	"rdpp/rdpp/metric"
	"rdpp/rdpp/printable"
)

// Prediction is what every way of asking answers about an image, as JSON: infer image, the server, the C library.
type Prediction struct {
	Image          string          `json:"image"`                  // its name, as given
	ImageBase64    string          `json:"image_base64,omitempty"` // the name's bytes, where it is not UTF-8, which JSON cannot hold
	Score          float64         `json:"score"`
	Normalised     float64         `json:"normalised"` // 0 to 1, 0.5 at the threshold
	Anomalous      bool            `json:"anomalous"`
	Threshold      float64         `json:"threshold"`
	PixelThreshold float64         `json:"pixel_threshold"`
	Provisional    bool            `json:"provisional"` // the threshold is a stand-in, no rate of false alarms is promised
	Exact          bool            `json:"exact"`       // its rate is exact, instead of a fit of the tail of too few scores
	PValue         *float64        `json:"p_value"`     // how rare such a score is among good images; null: not calibrated
	Width          int             `json:"width"`       // of the image, pixels
	Height         int             `json:"height"`
	Regions        []metric.Region `json:"regions"`            // in the image's pixels
	Warnings       []string        `json:"warnings,omitempty"` // that the image is unlike those of training, as in Result
}

// Prediction is the result without its map. Regions is never nil.
func (r *Result) Prediction(image string) Prediction {
	regions := r.Regions
	if regions == nil {
		regions = []metric.Region{}
	}
	return Prediction{Image: image, ImageBase64: printable.Base64(image), Score: r.Score, Normalised: r.Normalised, Anomalous: r.Anomalous, Threshold: r.Threshold,
		PixelThreshold: r.PixelThreshold, Provisional: r.Provisional, Exact: r.Exact, PValue: r.PValue, Width: r.Width, Height: r.Height, Regions: regions,
		Warnings: r.Warnings}
}
