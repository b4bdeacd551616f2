package pretrain

import (
	"context"
	"fmt"

	"rdpp/rdpp/pattern"
	"rdpp/rdpp/teacher"
	"rdpp/torch"
)

// equalisedSteps of pictures, which training has not seen, are measured.
const equalisedSteps = 4

// drawnFloor is teacher.Equalise's floor for drawn pictures, which move every channel that is alive.
const drawnFloor = 0.05

// deviations measures the channels of the three layers over drawn pictures.
func (r *run) deviations() (deviations [torch.Scales][]float64, err error) {
	pictures, err := pattern.New(r.config.pictures())
	if err != nil {
		return deviations, fmt.Errorf("pretrain: %w", err)
	}
	if err := r.learner.teacher.Train(false); err != nil {
		return deviations, err
	}
	var moments teacher.Moments
	for step := range equalisedSteps {
		batch, err := r.config.draw(context.Background(), pictures, r.config.Steps+step)
		if err != nil {
			return deviations, fmt.Errorf("pretrain: %w", err)
		}
		c := &r.config
		x, err := torch.Images(batch.pixels, c.ImageSize, c.Mean, c.Std, r.opt.Device, torch.Float32) // B x 3 x S x S
		if err == nil {
			err = moments.Add(r.learner.teacher, x)
			x.Close()
		}
		if err != nil {
			return deviations, err
		}
	}
	return moments.Deviations(), r.learner.teacher.Train(true)
}
