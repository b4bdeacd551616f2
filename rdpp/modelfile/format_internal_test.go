package modelfile

import (
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/cfa"
	"rdpp/rdpp/config"
	"rdpp/rdpp/framing"
)

// A file is of the oldest format whose programs judge as it says; those of methods that came later refuse it.
func TestFormat(t *testing.T) {
	view := Info{Config: config.Default()}
	view.Config.ROI = framing.Box{W: 1, H: 1}
	if got := formatOf(&view); got != 4 {
		t.Errorf("a part of pictures: got format %d, want 4", got)
	}
	view.Config.Method = cfa.Name
	if got := formatOf(&view); got != 5 {
		t.Errorf("a part of pictures, by a score that came later: got format %d, want 5", got)
	}
	published := Info{Config: config.PresetOf(config.PresetPaper, "", cfa.Name)}
	if got := formatOf(&published); got != 3 {
		t.Errorf("CFA's published score: got format %d, want 3", got)
	}
	maxima := anomaly.Calibration{MapScores: []float64{1}}
	for _, c := range []struct {
		method, score string
		top           float64
		bits          int
		calibration   anomaly.Calibration
		want          int
	}{
		{"rd++", "balanced", 0, 16, anomaly.Calibration{}, 1}, {"rd", "released", 0, 16, anomaly.Calibration{}, 1},
		{"rd++", "released", 0.01, 16, anomaly.Calibration{}, 1}, {"rd++", "balanced", 0, 12, anomaly.Calibration{}, 2},
		{"rd++", "balanced", 0.01, 16, anomaly.Calibration{}, 3}, {"rd", "balanced", 0, 12, maxima, 3},
		{"patchcore", "balanced", 0, 16, anomaly.Calibration{}, 3}, {"later", "balanced", 0, 16, anomaly.Calibration{}, 3},
	} {
		i := Info{Config: config.Default(), Calibration: c.calibration}
		i.Config.Method, i.Config.Score, i.Config.ScoreTop, i.Config.BitDepth = c.method, c.score, c.top, c.bits
		if got := formatOf(&i); got != c.want {
			t.Errorf("%+v: got format %d, want %d", c, got, c.want)
		}
	}
}
