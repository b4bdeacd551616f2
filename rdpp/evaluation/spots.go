package evaluation

import (
	"fmt"
	"log/slog"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/modelfile"
)

// spottedImages is how many images spots are put on: enough for a majority, few enough to take some seconds.
const spottedImages = 5

// Spots finds how small a defect can be in some of the items, good images, and still be found. The model is settled and
// calibrated.
func Spots(m *modelfile.Model, items []dataset.Item, maxPixels int64) (modelfile.Spots, error) {
	some := Spread(items, spottedImages)
	opt := &imagefile.Options{MaxPixels: maxPixels, BitDepth: m.Info.Config.BitDepth}
	spots, err := m.MeasureSpots(len(some), func(i int) (*imagefile.Image, error) { return imagefile.DecodeFile(some[i].Path, opt) })
	if err != nil {
		return spots, fmt.Errorf("evaluation: spots: %w", err)
	}
	return spots, nil
}

// WarnTooLarge tells the log of the first of the items, which have been read through the cache, that is too large for its small
// defects to survive.
func WarnTooLarge(log *slog.Logger, m *modelfile.Model, items []dataset.Item, cache *dataset.Cache) {
	if text := tooLarge(m, items, cache); text != "" {
		log.Warn(text)
	}
}

// tooLarge is what WarnTooLarge tells; "" where there is nothing to.
func tooLarge(m *modelfile.Model, items []dataset.Item, cache *dataset.Cache) string {
	for _, item := range items {
		look := cache.Look(item.Path)
		if text := m.TooLarge(look.W, look.H); text != "" {
			return text
		}
	}
	return ""
}
