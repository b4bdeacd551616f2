package rdpp_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/method"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/reverse"
	"rdpp/rdpp/sample"
	"rdpp/torch"
)

// Images that are held out set the threshold, and have nothing to do with the weights.
func TestHeldOutImages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	err := sample.Write(dir, &sample.Options{Category: "part", Size: 32, Train: 30, TestGood: 1, TestDefect: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := tiny()
	c.Epochs, c.Method, c.Batch, c.Calibration, c.FalseAlarm = 1, rdpp.MethodRD, 10, 0.1, 0.2
	set := openSet(t, filepath.Join(dir, "part"))
	out := t.TempDir()
	summary, err := rdpp.Train(context.Background(), c, set, rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom})
	if err != nil {
		t.Fatal(err)
	}
	if summary.TrainImages != 20 || summary.CalibrationImages != 10 || summary.CalibrationFolds != 0 || summary.Provisional {
		t.Errorf("got %+v, want 20 images trained on, 10 held out, and a threshold that is not provisional", summary)
	}
	d, err := rdpp.OpenDetector(filepath.Join(out, rdpp.ModelFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	info := d.Info()
	k := info.Calibration
	if info.Data.Images != 20 || info.Data.HeldOut != 10 || len(k.Scores) != 10 || !k.Exact || k.FalseAlarm != 0.2 {
		t.Errorf("got %+v and %+v, want what the summary says", info.Data, k)
	}
	// Which ones are held out is the program's choice; their scores must be among those of all.
	all := map[float64]bool{}
	for _, item := range set.Train {
		r, _, err := d.DetectFile(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		all[r.Score] = true
		if r.PValue == nil || *r.PValue != metric.PValue(k.Scores, r.Score) || r.Anomalous != (*r.PValue <= 0.2) {
			t.Errorf("%s: got %+v, want a verdict by its p-value", item.Path, r)
		}
	}
	for _, s := range k.Scores {
		if !all[s] {
			t.Errorf("got the score %v, which no training image has", s)
		}
	}
	// 10 images: one of them may lie above the threshold for a rate of 2 in 11.
	if k.Threshold != k.Scores[8] || k.PixelThreshold != k.Threshold || d.Threshold() != k.Threshold {
		t.Errorf("got threshold %v of %v, want the second highest", k.Threshold, k.Scores)
	}

	// Overrides.
	for _, o := range []struct {
		opt               rdpp.DetectorOptions
		threshold, pixels float64
		promised          float64
		exact             bool
	}{
		{rdpp.DetectorOptions{FalseAlarm: new(0.1)}, k.Scores[9], k.Scores[9], 0.1, true},
		{rdpp.DetectorOptions{Threshold: new(0.5)}, 0.5, 0.5, 0, false},
		{rdpp.DetectorOptions{PixelThreshold: new(0.5)}, k.Threshold, 0.5, 0.2, true},
		{rdpp.DetectorOptions{Threshold: new(0.5), PixelThreshold: new(0.25)}, 0.5, 0.25, 0, false},
	} {
		other, err := rdpp.OpenDetector(filepath.Join(out, rdpp.ModelFile), &o.opt)
		if err != nil {
			t.Fatal(err)
		}
		got := other.Calibration()
		if got.Threshold != o.threshold || got.PixelThreshold != o.pixels || got.FalseAlarm != o.promised || got.Exact != o.exact {
			t.Errorf("got %+v, want %+v", got, o)
		}
		other.Close()
	}
	other, err := rdpp.OpenDetector(filepath.Join(out, rdpp.ModelFile), &rdpp.DetectorOptions{FalseAlarm: new(0.01)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	got := other.Calibration()
	if got.Exact || !(got.Threshold > k.Scores[9]) || !strings.Contains(got.Rule, "needs 99") {
		t.Errorf("got %+v, want a fit of the tail that says how many images an exact rate needs", got)
	}
	if _, err := rdpp.OpenDetector(trainedModel(t), &rdpp.DetectorOptions{FalseAlarm: new(0.01)}); !errors.Is(err, rdpp.ErrConfig) ||
		!strings.Contains(err.Error(), "calibration") {
		t.Errorf("a model without a calibration: got %v, want what to do", err)
	}
}

// With few images, trainings that each leave out some calibrate, and an interruption in their midst changes nothing.
func TestFolds(t *testing.T) {
	t.Parallel()
	c := tiny()
	c.Epochs, c.Method, c.ImageSize, c.Calibration = 1, rdpp.MethodRD, 64, 0.1
	type step struct{ fold, step int }
	run := func(out string, at step, resume bool) ([]step, *rdpp.Summary, error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var steps []step
		summary, err := rdpp.Train(ctx, c, openSet(t, dataDir), rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom, Resume: resume,
			OnStep: func(r rdpp.StepReport) {
				if s := (step{r.Fold, r.Step}); true {
					if steps = append(steps, s); s == at {
						cancel()
					}
				}
				if r.Fold > 0 && r.Folds != 5 {
					t.Errorf("got %d folds, want 5", r.Folds)
				}
			}})
		return steps, summary, err
	}
	whole := t.TempDir()
	steps, summary, err := run(whole, step{-1, 0}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := []step{{0, 1}, {0, 2}, {0, 3}}
	for fold := 1; fold <= 5; fold++ {
		for s := 1; s <= map[bool]int{true: 2, false: 3}[fold == 1]; s++ { // the first leaves out two images
			want = append(want, step{fold, s})
		}
	}
	if !slices.Equal(steps, want) {
		t.Errorf("got steps %v, want %v", steps, want)
	}
	if summary.TrainImages != 6 || summary.CalibrationImages != 6 || summary.CalibrationFolds != 5 || summary.Provisional {
		t.Errorf("got %+v, want all six images trained on and scored by five trainings", summary)
	}
	out := t.TempDir()
	for _, at := range []step{{0, 2}, {1, 1}, {3, 3}} {
		if _, _, err := run(out, at, true); !errors.Is(err, rdpp.ErrInterrupted) {
			t.Fatalf("stopped at %v: got %v, want ErrInterrupted", at, err)
		}
	}
	if _, _, err := run(out, step{-1, 0}, false); !errors.Is(err, rdpp.ErrConfig) {
		t.Errorf("not resumed: got %v, want the unfinished run protected", err)
	}
	if _, _, err := run(out, step{-1, 0}, true); err != nil {
		t.Fatal(err)
	}
	checkOutcome(t, out, whole)
	for _, dir := range []string{out, whole} {
		left, err := filepath.Glob(filepath.Join(dir, "fold-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("got %q, %v, want nothing left of the folds", left, err)
		}
	}
	// Finished again, it needs no further training.
	if steps, _, err := run(out, step{-1, 0}, true); err != nil || len(steps) > 0 {
		t.Errorf("finished again: got steps %v, %v, want none", steps, err)
	}
	checkOutcome(t, out, whole)
	// The scores are not those that the model gives the images, which it was trained on.
	m, err := rdpp.LoadModel(filepath.Join(out, rdpp.ModelFile), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	d, err := rdpp.OpenDetector(filepath.Join(out, rdpp.ModelFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, item := range openSet(t, dataDir).Train {
		r, _, err := d.DetectFile(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(m.Info.Calibration.Scores, r.Score) {
			t.Errorf("%s: its score by the model itself, %v, is among those of the calibration", item.Path, r.Score)
		}
	}
}

// A model that averages its weights differs from the last weights, and lies near them.
func TestAverage(t *testing.T) {
	t.Parallel()
	c := tiny()
	c.Average = 0.5
	averaged, last := trained(t, c), trained(t, tiny())
	if digest(t, filepath.Join(averaged, rdpp.ModelFile)) == digest(t, filepath.Join(last, rdpp.ModelFile)) {
		t.Error("got the last weights")
	}
	a, b := readSummary(t, averaged), readSummary(t, last)
	if !slices.Equal(a.Losses, b.Losses) {
		t.Errorf("got losses %+v, want those of the same training, %+v", a.Losses, b.Losses)
	}
	if math.Abs(a.Threshold-b.Threshold) > 0.5*b.Threshold {
		t.Errorf("got the threshold %v, want one near %v", a.Threshold, b.Threshold)
	}
	if _, err := os.Stat(filepath.Join(averaged, checkpointFile)); err != nil {
		t.Error(err)
	}
}

func TestPreset(t *testing.T) {
	for category, want := range map[string]int{"carpet": 10, "screw": 280, "zipper": 300, "metal_nut": 160, "unknown": 300} {
		released := rdpp.Config{ // every setting of the released code; false alarms are ours, and not asked for without a calibration
			Settings: method.Settings{Arch: "wide_resnet50_2", Method: rdpp.MethodRDPP, ImageSize: 256,
				Mean: [3]float32{0.485, 0.456, 0.406}, Std: [3]float32{0.229, 0.224, 0.225},
				Epochs: want, Batch: 16, Select: rdpp.SelectBestOnTest, Precision: "fp32", Seed: 1, MapSigma: 4, FalseAlarm: 0.01},
			Distillation: reverse.Distillation{Accumulate: 2,
				RateProjection: 0.001, RateDistill: 0.005, Schedule: rdpp.ScheduleConstant, Beta1: 0.5, Beta2: 0.999, AdamEps: 1e-8,
				Project: rdpp.ProjectAll, SSOT: "batch", WeightSSOT: 0.2 / 1.11, WeightRecon: 0.2 * 0.01 / 1.11, WeightContrast: 0.2 * 0.1 / 1.11, Margin: 0.5,
				SinkhornP: 2, SinkhornBlur: 0.05, SinkhornDiameter: 1e7, SinkhornScaling: 0.95,
				NoiseLambda: 0.2, NoiseReleased: true, Score: rdpp.ScoreReleased},
		}
		c := rdpp.Preset(rdpp.PresetPaper, category)
		if err := c.Validate(); err != nil || travelled(t, c) != released {
			t.Errorf("%s: got %+v, %v, want %+v", category, c, err, released)
		}
	}
	if c := rdpp.Preset("", "carpet"); c != rdpp.DefaultConfig() {
		t.Errorf("no preset: got %+v, want the default", c)
	}
	if c := rdpp.Preset("other", "carpet"); !errors.Is(c.Validate(), rdpp.ErrConfig) {
		t.Errorf("an unknown one: got %+v, want one that is refused", c)
	}
}

// A score is the mean of the map's highest pixels, and scores and maps have a threshold each. Programs that would take the
// maximum refuse the model.
func TestScoreTop(t *testing.T) {
	c := tiny()
	c.ScoreTop, c.Calibration, c.FalseAlarm = 0.05, 0.3, 0.2 // 51 of 32 x 32 pixels
	c.Method, c.Epochs, c.Batch = rdpp.MethodRD, 1, 10
	dir, out := t.TempDir(), t.TempDir()
	if err := sample.Write(dir, &sample.Options{Category: "part", Size: 32, Train: 34, TestGood: 1, TestDefect: 1}); err != nil {
		t.Fatal(err)
	}
	set := openSet(t, filepath.Join(dir, "part"))
	if _, err := rdpp.Train(context.Background(), c, set, rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom}); err != nil {
		t.Fatal(err)
	}
	d, err := rdpp.OpenDetector(filepath.Join(out, rdpp.ModelFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	scores, maxima := map[float64]bool{}, map[float64]bool{}
	for _, item := range set.Train {
		r, _, err := d.DetectFile(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		pixels, sum := slices.Sorted(slices.Values(r.Map)), 0.0
		for _, v := range pixels[len(pixels)-51:] {
			sum += float64(v)
		}
		if want := sum / 51; math.Abs(r.Score-want) > 1e-6 || !(r.Score < float64(pixels[len(pixels)-1])) {
			t.Errorf("%s: got score %v, want %v, below the maximum of %v", item.Path, r.Score, want, pixels[len(pixels)-1])
		}
		scores[r.Score], maxima[float64(pixels[len(pixels)-1])] = true, true
	}
	k := d.Info().Calibration
	for i := range k.Scores {
		if !scores[k.Scores[i]] || !maxima[k.MapScores[i]] {
			t.Errorf("got %v and %v, which no good image has", k.Scores[i], k.MapScores[i])
		}
	}
	if n := len(k.Scores); n < 10 || len(k.MapScores) != n || !slices.Contains(k.Scores, k.Threshold) || !slices.Contains(k.MapScores, k.PixelThreshold) || !(k.Threshold < k.PixelThreshold) {
		t.Errorf("got %+v, want thresholds by scores and by maxima", k)
	}
	if got := d.Info().FormatVersion; got != 3 {
		t.Errorf("got format %d, want 3", got)
	}
}
