package rdpp

import (
	"context"
	"errors"
	"fmt"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/metric"
	"rdpp/torch"
)

// auproLimit is the false positive rate up to which AUPRO integrates (Bergmann et al., 2021).
const auproLimit = 0.3

// Metrics of a test set. Absent ones are nil: a set without defective images has no AUROC, one without masks no
// pixel metrics.
type Metrics struct {
	Good       int      `json:"good"`
	Defective  int      `json:"defective"`
	ImageAUROC *float64 `json:"image_auroc,omitempty"`
	PixelAUROC *float64 `json:"pixel_auroc,omitempty"`
	AUPRO      *float64 `json:"aupro_030,omitempty"` // up to a false positive rate of 0.3
}

// mean of the metrics that are there; the released protocol picks the epoch by it.
func (m *Metrics) mean() (mean float64, any bool) {
	n := 0
	for _, value := range []*float64{m.ImageAUROC, m.PixelAUROC, m.AUPRO} {
		if value != nil {
			mean += *value
			n++
		}
	}
	return mean / float64(max(n, 1)), n > 0
}

// ItemScore is an image of a data set and its score.
type ItemScore struct {
	dataset.Item
	Score float64
}

// evaluate scores items and measures how well scores and maps tell good from defective.
func (m *Model) evaluate(ctx context.Context, items []dataset.Item, hasMasks bool, cache *dataset.Cache) (*Metrics, []ItemScore, error) {
	S := m.Info.Config.ImageSize
	result, scores := &Metrics{}, make([]ItemScore, 0, len(items))
	var pixels metric.Pixels
	err := m.scan(ctx, items, cache, func(i int, anomaly []float32, score float64) error {
		scores = append(scores, ItemScore{items[i], score})
		if items[i].Defective {
			result.Defective++
		} else {
			result.Good++
		}
		if !hasMasks {
			return nil
		}
		mask := make([]uint8, S*S)
		if items[i].Mask != "" {
			var err error
			if mask, err = cache.Mask(items[i].Mask); err != nil {
				return err
			}
		}
		return pixels.Add(anomaly, mask, S, S)
	})
	if err != nil {
		return nil, nil, err
	}
	values, positive := make([]float64, len(scores)), make([]bool, len(scores))
	for i, s := range scores {
		values[i], positive[i] = s.Score, s.Defective
	}
	if result.Good > 0 && result.Defective > 0 {
		if result.ImageAUROC, err = present(metric.AUROC(values, positive)); err != nil {
			return nil, nil, err
		}
	}
	if hasMasks {
		if result.PixelAUROC, err = present(pixels.AUROC()); err != nil {
			return nil, nil, err
		}
		if result.AUPRO, err = present(pixels.AUPRO(auproLimit)); err != nil {
			return nil, nil, err
		}
	}
	return result, scores, nil
}

// present is the value, or nil where the data cannot give one: masks may be empty, or become so at the size S.
func present(value float64, err error) (*float64, error) {
	if errors.Is(err, metric.ErrOneClass) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("rdpp: evaluation: %w", err)
	}
	return &value, nil
}

// readAhead is how many images are read while one is scored.
const readAhead = 3

// scan predicts every item in turn, while the next ones are read. Images go through the networks one at a time, so
// that an image's score depends on nothing but itself.
func (m *Model) scan(ctx context.Context, items []dataset.Item, cache *dataset.Cache, each func(i int, anomaly []float32, score float64) error) error {
	type picture struct {
		x   []float32 // 3 x S x S, normalised
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := m.train(false); err != nil {
		return err
	}
	S, norm := m.Info.Config.ImageSize, m.Info.Config.norm()
	ahead := make(chan chan picture, readAhead) // in the order of items
	go func() {
		defer close(ahead)
		for _, item := range items {
			next := make(chan picture, 1)
			select {
			case ahead <- next:
			case <-ctx.Done():
				return
			}
			go func() {
				p := picture{x: make([]float32, 3*S*S)}
				if p.err = cache.Planes(p.x, item.Path); p.err == nil {
					norm.Apply(p.x, p.x, S)
				}
				next <- p
			}()
		}
	}()
	i := 0
	for next := range ahead {
		p := <-next
		if p.err != nil {
			return fmt.Errorf("rdpp: %w", p.err)
		}
		anomaly, score, err := m.predict(p.x)
		if err != nil {
			return fmt.Errorf("rdpp: %s: %w", items[i].Path, err)
		}
		if err := each(i, anomaly, score); err != nil {
			return fmt.Errorf("rdpp: %s: %w", items[i].Path, err)
		}
		i++
	}
	return ctx.Err()
}

// predict maps a normalised image, 3 x S x S, to its anomaly map, S x S, and score. The model is in eval mode.
func (m *Model) predict(x []float32) (anomaly []float32, score float64, err error) {
	S := int64(m.Info.Config.ImageSize)
	var s torch.Scope
	defer s.Close()
	input := s.Tensor(torch.FromSlice(x, 1, 3, S, S))
	input = s.Tensor(input.To(m.Device, torch.Float32))
	maps, scores, err := torch.Predict(m.Teacher, m.Projection, m.Bottleneck, m.Student, input, m.Info.Config.MapSigma)
	s.Tensor(maps, err)
	s.Tensor(scores, nil)
	if err := s.Err(); err != nil {
		return nil, 0, err
	}
	if anomaly, err = torch.Read[float32](maps); err != nil {
		return nil, 0, err
	}
	value, err := torch.Scalars(scores)
	if err != nil {
		return nil, 0, err
	}
	return anomaly, value[0], nil
}
