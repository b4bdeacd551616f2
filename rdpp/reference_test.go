package rdpp_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/torch"
)

// TestReference: what a line is compared with are the looks in the model's file, and scores of images that it was not trained on, as far
// as they are called good. A file of before looks were kept has none of them.
func TestReference(t *testing.T) {
	t.Parallel()
	scores := anomaly.Scores{Images: []float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1}}
	calibrate := func(folds int, leftOut bool) rdpp.Calibration {
		c, err := anomaly.Calibrate(scores, 0.2, folds, leftOut)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	looks := dataset.Looks{Brightness: []float64{0.5, 0.25}, Sharpness: []float64{0.1, 0.2}, Width: []int{64, 64}, Height: []int{48, 48}}
	low := 0.35
	for _, c := range []struct {
		name        string
		calibration rdpp.Calibration
		looks       dataset.Looks
		threshold   *float64
		want        int
	}{
		{"held out", calibrate(0, false), looks, nil, 9},
		{"another threshold", calibrate(0, false), looks, &low, 3},
		{"by other trainings", calibrate(3, false), looks, nil, 0},
		{"left out", calibrate(0, true), looks, nil, 0},
		{"trained on", anomaly.Provisional(scores), dataset.Looks{}, nil, 0},
	} {
		model, err := rdpp.NewModel(tiny(), torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		model.Info.Calibration, model.Info.Looks = c.calibration, c.looks
		path := filepath.Join(t.TempDir(), rdpp.ModelFile)
		err = model.Save(path)
		model.Close()
		if err != nil {
			t.Fatal(err)
		}
		metadata, _ := contents(t, path)
		if has := strings.Contains(metadata["rdpp"], `"looks"`); has != (c.looks.Width != nil) {
			t.Errorf("%s: the file has looks: %v", c.name, has)
		}
		d, err := rdpp.OpenDetector(path, &rdpp.DetectorOptions{Threshold: c.threshold})
		if err != nil {
			t.Fatal(err)
		}
		r := d.Reference()
		d.Close()
		if len(r.Scores) != c.want || !slices.Equal(r.Looks.Brightness, c.looks.Brightness) || !slices.Equal(r.Looks.Height, c.looks.Height) {
			t.Errorf("%s: got %+v, want %d scores", c.name, r, c.want)
		}
	}
}

// TestTrainedLooks: training keeps the looks of all its good images, and calibrating anew those of the images that it is given.
func TestTrainedLooks(t *testing.T) {
	t.Parallel()
	d, err := rdpp.OpenDetector(trainedModel(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var want dataset.Looks
	for _, item := range openSet(t, dataDir).Train {
		r, _, err := d.DetectFile(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		want.Brightness, want.Sharpness = append(want.Brightness, r.Look.Brightness), append(want.Sharpness, r.Look.Sharpness)
	}
	got := d.Info().Looks
	if !slices.Equal(got.Brightness, want.Brightness) || !slices.Equal(got.Sharpness, want.Sharpness) || len(want.Brightness) != 6 ||
		!slices.Equal(got.Width, []int{64, 64, 64, 64, 64, 64}) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	others := newImages(t).Train
	r, err := rdpp.Recalibrate(t.Context(), rdpp.RecalibrateOptions{Model: trainedModel(t), Good: others, FalseAlarm: new(0.2)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Model.Close()
	if now := r.Model.Info.Looks; len(now.Brightness) != 10 || now.Brightness[0] == got.Brightness[0] {
		t.Errorf("calibrated anew: got %+v", now)
	}
}
