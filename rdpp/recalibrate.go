package rdpp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/evaluation"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/setting"
	"rdpp/torch"
)

// RecalibrateOptions say how Recalibrate makes a calibration. Zero fields mean the defaults.
type RecalibrateOptions struct {
	Model  string         // model file; required
	Good   []dataset.Item // images of good parts that the model was not trained on, drawn as those to come; required
	Origin string         // the data's name, for the model file

	Add        bool     // keep the scores that the model holds beside the new ones
	FalseAlarm *float64 // rate of false alarms; default the model's own, or else its training's
	Threshold  *float64 // of scores, instead of one by a rate; p-values are of the new scores all the same

	Device    torch.Device // default the CPU
	MaxPixels int64        // largest image accepted, default imagefile.DefaultMaxPixels
	Log       *slog.Logger // told what there is to know of the model file, default slog.Default()
}

// Recalibration is what Recalibrate has made.
type Recalibration struct {
	Model  *modelfile.Model    // with the new calibration. The caller closes it
	Before anomaly.Calibration // what it had
	Above  int                 // of the images, how many lie above Before's threshold
	Unlike int                 // how many are unlike those of training, as Result.Warnings has it
}

// Recalibrate opens a model and calibrates it anew by images of good parts, without training: its scores stay as they are to the
// bit, thresholds and p-values change. Images by which the model was trained are refused where they are all of them, as far as a
// fingerprint tells; a part of them nobody recognises, and makes thresholds too low. Errors about too few images are those of
// anomaly.Calibrate.
func Recalibrate(ctx context.Context, opt RecalibrateOptions) (*Recalibration, error) {
	if len(opt.Good) == 0 {
		return nil, errors.New("rdpp: recalibrate: there are no images")
	}
	m, err := modelfile.Load(opt.Model, modelfile.LoadOptions{Device: opt.Device, Log: opt.Log})
	if err != nil {
		return nil, err
	}
	r := &Recalibration{Model: m, Before: m.Info.Calibration}
	if err := r.calibrate(ctx, &opt); err != nil {
		m.Close()
		return nil, fmt.Errorf("rdpp: recalibrate: %w", err)
	}
	return r, nil
}

func (r *Recalibration) calibrate(ctx context.Context, opt *RecalibrateOptions) error {
	info, before := &r.Model.Info, &r.Before
	fingerprint, err := dataset.Fingerprint(opt.Good)
	if err != nil {
		return err
	}
	if fingerprint == info.Data.Fingerprint {
		return errors.New("these are the images that the model was trained on, whose scores are too low; use others")
	}
	if opt.Add && (before.Provisional || before.Folds > 0 || before.LeftOut || len(before.Scores) == 0) {
		return setting.Refuse("add", opt.Add, "the model holds no scores that it has given to images it was not trained on; leave {add} out")
	}
	if opt.Add && fingerprint == info.Recalibrated.Fingerprint {
		return setting.Refuse("add", opt.Add, "the model holds the scores of these images already, which would count twice; use others, or leave {add} out")
	}
	if err := r.Model.Net.Settle(); err != nil {
		return err
	}
	cache := dataset.NewCache(dataset.CacheOptions{Size: info.Config.ImageSize, MaxBytes: -1, MaxPixels: opt.MaxPixels, BitDepth: info.Config.BitDepth,
		Framer: r.Model.Framer, Whole: info.Config.Tiled()})
	scores, err := evaluation.Scores(ctx, r.Model, opt.Good, cache)
	if err != nil {
		return err
	}
	for _, score := range scores.Images {
		if score > before.Threshold {
			r.Above++
		}
	}
	for _, item := range opt.Good {
		look := cache.Look(item.Path)
		if len(info.Unlike(look)) > 0 || len(info.Displaced(look.W, look.H)) > 0 {
			r.Unlike++
		}
	}
	looks := cache.Looks(opt.Good)
	if opt.Add && len(info.Looks.Brightness) > 0 {
		looks = info.Looks.Join(looks)
	}
	info.Looks = looks
	if opt.Add {
		scores = anomaly.Join([]anomaly.Scores{{Images: before.Scores, Maps: before.MapScores}, scores})
	}
	rate := info.Config.FalseAlarm
	if before.FalseAlarm > 0 {
		rate = before.FalseAlarm
	}
	if opt.FalseAlarm != nil {
		rate = *opt.FalseAlarm
	}
	calibration, err := anomaly.Calibrate(scores, rate, 0, false)
	if err != nil {
		return err
	}
	if info.Calibration, err = calibration.Override(nil, opt.Threshold, nil); err != nil {
		return err
	}
	info.Recalibrated = modelfile.RecalibrationInfo{Images: len(opt.Good), Fingerprint: fingerprint, Origin: opt.Origin, Added: opt.Add}
	return nil
}
