package main

import (
	"log/slog"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/tensorboard"
)

// board draws the curves of a training for TensorBoard, in the folder of its results. A curve that cannot be written is no reason
// to stop training: the log is told once.
type board struct {
	folder string
	log    *slog.Logger
	writer *tensorboard.Writer // nil: there was no step yet, or it failed
	failed bool
	shown  time.Time // when the last step was drawn
	at     int64     // steps that are done
}

// step draws the losses of a step of the model's own training, once a second at most.
func (b *board) step(r rdpp.StepReport) {
	if r.Fold > 0 || b.failed {
		return
	}
	b.at = int64(r.Epoch-1)*int64(r.Steps) + int64(r.Step)
	if b.writer == nil {
		first := b.at // of a training that goes on
		if b.at == 1 {
			first = 0
		}
		var err error
		if b.writer, err = tensorboard.Create(b.folder, first); err != nil {
			b.fail(err)
			return
		}
	}
	if time.Since(b.shown) >= time.Second {
		b.shown = time.Now()
		b.add(losses("step/", r.Losses))
	}
}

// epoch draws the means of an epoch and what was measured after it.
func (b *board) epoch(r rdpp.EpochReport) {
	points := losses("epoch/", r.Losses)
	points = append(points, tensorboard.Scalar{Tag: "images_per_second", Value: float64(r.Images) / max(r.Seconds, 1e-9)})
	if r.MadeUp != nil {
		points = append(points, tensorboard.Scalar{Tag: "held_out/made_up_ap", Value: *r.MadeUp})
	}
	b.add(append(points, metrics("test/", r.Metrics)...))
}

// done draws the metrics of the model.
func (b *board) done(s *rdpp.Summary) {
	b.add(append(metrics("model/", &s.Metrics), tensorboard.Scalar{Tag: "model/threshold", Value: s.Threshold}))
}

// close ends the file.
func (b *board) close() {
	if b.writer == nil {
		return
	}
	if err := b.writer.Close(); err != nil && !b.failed {
		b.fail(err)
	}
}

func (b *board) add(points []tensorboard.Scalar) {
	if b.writer == nil || b.failed {
		return
	}
	if err := b.writer.Add(b.at, points...); err != nil {
		b.fail(err)
	}
}

func (b *board) fail(err error) {
	b.failed = true
	b.log.Warn("no curves for TensorBoard from here on", "error", err)
}

func losses(group string, of rdpp.Losses) (points []tensorboard.Scalar) {
	for _, loss := range of {
		points = append(points, tensorboard.Scalar{Tag: group + "loss_" + loss.Name, Value: loss.Value})
	}
	return points
}

func metrics(group string, m *rdpp.Metrics) (points []tensorboard.Scalar) {
	if m == nil {
		return nil
	}
	for _, c := range []struct {
		name  string
		value *float64
	}{{"image_auroc", m.ImageAUROC}, {"pixel_auroc", m.PixelAUROC}, {"aupro_030", m.AUPRO}} {
		if c.value != nil {
			points = append(points, tensorboard.Scalar{Tag: group + c.name, Value: *c.value})
		}
	}
	return points
}
