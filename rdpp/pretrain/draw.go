package pretrain

import (
	"context"
	"math/rand/v2"

	"rdpp/rdpp/pattern"
	"rdpp/torch"
)

// drawn is the pictures of a step.
type drawn struct {
	pixels []byte                // B x S x S x 3
	labels [torch.Scales][]int64 // per scale B, with ObjectiveDense B x H x W; none with ObjectivePair
}

// draw draws the pictures of a step, counted from 0, which depend on the configuration and the step alone. No picture
// comes twice.
func (c *Config) draw(ctx context.Context, g *pattern.Generator, step int) (*drawn, error) {
	S, picture := c.ImageSize, 3*c.ImageSize*c.ImageSize
	d := &drawn{pixels: make([]byte, c.Batch*picture)}
	rng := rand.New(rand.NewPCG(c.Seed, uint64(step)))
	shown := make([]int16, S*S) // the class of every pixel
	for i := range c.Batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rgb := d.pixels[i*picture:][:picture]
		index := uint64(step)*uint64(c.Batch) + uint64(i)
		var err error
		switch c.Objective {
		case ObjectiveClass:
			class := rng.IntN(c.Classes)
			for k := range d.labels {
				d.labels[k] = append(d.labels[k], int64(class))
			}
			err = g.Draw(uint64(class), index, rgb)
		case ObjectivePair: // of a class that never comes again
			err = g.Draw(index/2, index%2, rgb)
		case ObjectiveDense:
			err = g.DrawRegions(c.Classes, index, rgb, shown)
			for k := range d.labels {
				d.labels[k] = appendCentres(d.labels[k], shown, S, 4<<k)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return d, nil
}

// appendCentres appends the labels in the middle of every square of stride x stride pixels, which a position of a
// feature map stands for.
func appendCentres(to []int64, labels []int16, S, stride int) []int64 {
	for y := stride / 2; y < S; y += stride {
		for x := stride / 2; x < S; x += stride {
			to = append(to, int64(labels[y*S+x]))
		}
	}
	return to
}
