package rdpp

import (
	"context"
	"fmt"

	"rdpp/rdpp/pattern"
	"rdpp/torch"
)

// equalisedSteps of pictures, which training has not seen, are measured.
const equalisedSteps = 4

// drawnFloor is equalise's floor for drawn pictures, which move every channel that is alive.
const drawnFloor = 0.05

// deviations measures the channels of the three layers over drawn pictures.
func (r *pretraining) deviations() (deviations [torch.Scales][]float64, err error) {
	pictures, err := pattern.New(r.config.pictures())
	if err != nil {
		return deviations, fmt.Errorf("rdpp: %w", err)
	}
	if err := r.teacher.Train(false); err != nil {
		return deviations, err
	}
	var moments channelMoments
	for step := range equalisedSteps {
		batch, err := r.config.draw(context.Background(), pictures, r.config.Steps+step)
		if err != nil {
			return deviations, fmt.Errorf("rdpp: %w", err)
		}
		c := &r.config
		x, err := torch.Images(batch.pixels, c.ImageSize, c.Mean, c.Std, r.opt.Device, torch.Float32) // B x 3 x S x S
		if err == nil {
			err = moments.add(r.teacher, x)
			x.Close()
		}
		if err != nil {
			return deviations, err
		}
	}
	return moments.deviations(), r.teacher.Train(true)
}
