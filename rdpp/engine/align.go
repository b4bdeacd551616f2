package engine

import (
	"context"
	"errors"
	"fmt"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/evaluation"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/setting"
)

// meanImages is how many images the mean that parts are found by is made of, at most.
const meanImages = 100

// settleAlign makes the mean that parts are found by, and has the images read again as their parts lie.
func (r *run) settleAlign(ctx context.Context) error {
	var pictures []framing.Small
	for _, item := range evaluation.Spread(r.items, meanImages) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
		img, err := imagefile.DecodeFile(item.Path, &imagefile.Options{MaxPixels: r.opt.MaxPixels, BitDepth: r.config.BitDepth})
		if err != nil {
			return fmt.Errorf("engine: %w", err)
		}
		pictures = append(pictures, framing.NewSmall(img))
	}
	if len(pictures) == 0 { // which is refused later, with what could not be read
		return nil
	}
	align, err := r.config.Align.Learn(pictures)
	if errors.Is(err, framing.ErrUnlike) {
		return setting.Refuse("align", nil, "%v: leave it out", err)
	}
	if err != nil {
		return err
	}
	r.config.Align, r.model.Info.Config.Align = align, align
	if r.model.Framer, err = framing.New(r.config.View, r.config.ImageSize); err != nil {
		return err
	}
	r.cache.SetFramer(r.model.Framer)
	if _, _, err := dataset.Check(ctx, r.items, r.cache, r.opt.Workers, false); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}
