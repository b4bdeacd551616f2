package evaluation

import (
	"context"
	"fmt"
	"slices"

	"rdpp/rdpp/ahead"
	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/method"
	"rdpp/rdpp/modelfile"
	"rdpp/torch"
)

// Images are some of the items as a learner may ask for them, on a device.
func Images(items []dataset.Item, cache *dataset.Cache, c *method.Settings, device torch.Device) method.Images {
	return func(ctx context.Context, most int, visit func(x *torch.Tensor) error) error {
		some := items
		if most > 0 {
			some = Spread(items, most)
		}
		return read(ctx, c, some, cache, func(_ int, x []float32) error {
			return onDevice(x, c.ImageSize, device, visit)
		})
	}
}

// onDevice hands a normalised image, 3 x S x S, to visit as a tensor, 1 x 3 x S x S.
func onDevice(x []float32, S int, device torch.Device, visit func(x *torch.Tensor) error) error {
	var s torch.Scope
	defer s.Close()
	host := s.Tensor(torch.FromSlice(x, 1, 3, int64(S), int64(S)))
	input := s.Tensor(host.To(device, torch.Float32))
	if err := s.Err(); err != nil {
		return err
	}
	return visit(input)
}

// Scores are those of items, ascending, and of their maps where these are something else. The model is settled.
func Scores(ctx context.Context, m *modelfile.Model, items []dataset.Item, cache *dataset.Cache) (anomaly.Scores, error) {
	var all anomaly.Scores
	alike := true
	err := scan(ctx, m, items, cache, func(_ int, pixels []float32, score float64) error {
		highest := float64(slices.Max(pixels))
		all.Images, all.Maps = append(all.Images, score), append(all.Maps, highest)
		alike = alike && score == highest
		return nil
	})
	if alike {
		all.Maps = nil
	}
	slices.Sort(all.Images)
	slices.Sort(all.Maps)
	return all, err
}

// scan predicts every item in turn. Images go through the net one at a time, so that an image's score depends on
// nothing but itself. The model is settled.
func scan(ctx context.Context, m *modelfile.Model, items []dataset.Item, cache *dataset.Cache, each func(i int, pixels []float32, score float64) error) error {
	return read(ctx, &m.Info.Config.Settings, items, cache, func(i int, x []float32) error {
		pixels, scores, err := m.Predict(x)
		if err != nil {
			return err
		}
		return each(i, pixels, scores[0])
	})
}

// readers of images are at work while one is scored.
const readers = 2

// read hands every item to each in turn as the networks see it, 3 x S x S, while the next ones are read.
func read(ctx context.Context, c *method.Settings, items []dataset.Item, cache *dataset.Cache, each func(i int, x []float32) error) error {
	S, norm := c.ImageSize, c.Norm()
	i := 0
	for x, err := range ahead.Range(ctx, readers, 0, len(items), func(_ context.Context, i int) ([]float32, error) {
		x := make([]float32, 3*S*S)
		if err := cache.Planes(x, items[i].Path); err != nil {
			return nil, err
		}
		norm.Apply(x, x, S)
		return x, nil
	}) {
		if err != nil {
			return fmt.Errorf("evaluation: %w", err)
		}
		if err := each(i, x); err != nil {
			return fmt.Errorf("evaluation: %s: %w", items[i].Path, err)
		}
		i++
	}
	return ctx.Err()
}

// Spread is at most n of the items, evenly spread.
func Spread(items []dataset.Item, n int) (some []dataset.Item) {
	if len(items) <= n {
		return items
	}
	for i := range n {
		some = append(some, items[i*len(items)/n])
	}
	return some
}
