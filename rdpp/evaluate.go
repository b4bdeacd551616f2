package rdpp

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/metric"
	"rdpp/torch"
)

// The false positive rates up to which AUPRO integrates: the usual one (Bergmann et al., 2021), and one that fewer false
// pixels are tolerable for.
const (
	auproLimit       = 0.3
	auproStrictLimit = 0.05
)

// Metrics of a test set, each 0 to 1. Absent ones are nil: a set without defective images has no AUROC, one without masks
// no pixel metrics. The thresholds are the highest ones that reach the F1 above them.
type Metrics struct {
	Good             int      `json:"good"` // images
	Defective        int      `json:"defective"`
	ImageAUROC       *float64 `json:"image_auroc,omitempty"`
	ImageAP          *float64 `json:"image_ap,omitempty"` // average precision
	ImageF1          *float64 `json:"image_f1_max,omitempty"`
	ImageF1Threshold *float64 `json:"image_f1_threshold,omitempty"`
	PixelAUROC       *float64 `json:"pixel_auroc,omitempty"`
	PixelAP          *float64 `json:"pixel_ap,omitempty"`
	PixelF1          *float64 `json:"pixel_f1_max,omitempty"`
	PixelF1Threshold *float64 `json:"pixel_f1_threshold,omitempty"`
	AUPRO            *float64 `json:"aupro_030,omitempty"`    // up to a false positive rate of 0.3
	AUPROStrict      *float64 `json:"aupro_005,omitempty"`    // up to 0.05
	PROReleased      *float64 `json:"pro_released,omitempty"` // as the released code counts, for comparison with the paper
	LostMasks        int      `json:"lost_masks,omitempty"`   // masks of which no pixel is left at the image size; they count as good pixels
}

// mean of the three metrics that are there; the released protocol picks the epoch by it, and counts PRO its own way. Maps
// of which that is undefined, such as constant ones, count as 0.
func (m *Metrics) mean() (mean float64, any bool) {
	pro := m.PROReleased
	if pro == nil && m.AUPRO != nil {
		pro = new(0.0)
	}
	n := 0
	for _, value := range []*float64{m.ImageAUROC, m.PixelAUROC, pro} {
		if value != nil {
			mean += *value
			n++
		}
	}
	return mean / float64(max(n, 1)), n > 0
}

// Verdicts says what a threshold makes of a test set.
type Verdicts struct {
	GoodFlagged    int `json:"good_flagged"`    // good images above the threshold: false alarms
	DefectiveFound int `json:"defective_found"` // defective ones above it
	// FalseAlarms is the 95 % confidence interval of the share of good parts that are flagged; nil without good images.
	FalseAlarms *[2]float64 `json:"false_alarm_interval,omitempty"`
}

// ItemScore is an image of a data set and its score.
type ItemScore struct {
	dataset.Item
	Score    float64
	Warnings []string // that it is unlike the training images, as in Result
}

// Evaluation is what scoring a test set leads to.
type Evaluation struct {
	Metrics
	Scores                  []ItemScore    // in the order of the items
	ImageROC, PixelROC, PRO []metric.Point // curves to draw; nil where their metric is
	Seconds                 float64        // that it took
}

// Verdicts counts what a threshold makes of the images.
func (e *Evaluation) Verdicts(threshold float64) (v Verdicts) {
	for _, s := range e.Scores {
		switch {
		case s.Score <= threshold:
		case s.Defective:
			v.DefectiveFound++
		default:
			v.GoodFlagged++
		}
	}
	if e.Good > 0 {
		low, high := metric.Interval(v.GoodFlagged, e.Good, 0.95)
		v.FalseAlarms = &[2]float64{low, high}
	}
	return v
}

// WriteScores writes the images' scores as CSV: path, type, defective and score, which loses no digit.
func (e *Evaluation) WriteScores(w io.Writer) error {
	rows := [][]string{{"path", "type", "defective", "score"}}
	for _, s := range e.Scores {
		rows = append(rows, []string{s.Path, s.Type, strconv.FormatBool(s.Defective), strconv.FormatFloat(s.Score, 'g', -1, 64)})
	}
	return csv.NewWriter(w).WriteAll(rows)
}

// curvePoints bounds the points of a curve to draw.
const curvePoints = 1000

// evaluate scores items and measures how well scores and maps tell good from defective.
func (m *Model) evaluate(ctx context.Context, items []dataset.Item, hasMasks bool, cache *dataset.Cache) (*Evaluation, error) {
	began := time.Now()
	S := m.Info.Config.ImageSize
	e := &Evaluation{Scores: make([]ItemScore, 0, len(items))}
	var pixels metric.Pixels
	err := m.scan(ctx, items, cache, func(i int, anomaly []float32, score float64) error {
		e.Scores = append(e.Scores, ItemScore{items[i], score, m.Info.unlike(cache.Look(items[i].Path))})
		if items[i].Defective {
			e.Defective++
		} else {
			e.Good++
		}
		if !hasMasks {
			return nil
		}
		mask := make([]uint8, S*S)
		if items[i].Mask != "" {
			var err error
			if mask, err = cache.Mask(items[i]); err != nil {
				return err
			}
			if !slices.Contains(mask, 1) {
				e.LostMasks++
			}
		}
		return pixels.Add(anomaly, mask, S, S)
	})
	if err != nil {
		return nil, err
	}
	if err := e.measureImages(); err != nil {
		return nil, fmt.Errorf("rdpp: evaluation: %w", err)
	}
	if hasMasks {
		if err := e.measurePixels(&pixels); err != nil {
			return nil, fmt.Errorf("rdpp: evaluation: %w", err)
		}
	}
	e.Seconds = time.Since(began).Seconds()
	return e, nil
}

func (e *Evaluation) measureImages() error {
	if e.Good == 0 || e.Defective == 0 {
		return nil
	}
	values, positive := make([]float64, len(e.Scores)), make([]bool, len(e.Scores))
	for i, s := range e.Scores {
		values[i], positive[i] = s.Score, s.Defective
	}
	var errs [4]error
	var f1, threshold float64
	e.ImageAUROC, errs[0] = present(metric.AUROC(values, positive))
	e.ImageAP, errs[1] = present(metric.AveragePrecision(values, positive))
	f1, threshold, errs[2] = metric.F1Max(values, positive)
	e.ImageF1, e.ImageF1Threshold = &f1, &threshold
	e.ImageROC, errs[3] = metric.ROC(values, positive, curvePoints)
	return errors.Join(errs[:]...)
}

// measurePixels leaves all absent where no pixel of the masks is left at the size S.
func (e *Evaluation) measurePixels(pixels *metric.Pixels) error {
	var errs [8]error
	if e.PixelAUROC, errs[0] = present(pixels.AUROC()); e.PixelAUROC == nil {
		return errs[0]
	}
	var f1, threshold float64
	e.PixelAP, errs[1] = present(pixels.AveragePrecision())
	f1, threshold, errs[2] = pixels.F1Max()
	e.PixelF1, e.PixelF1Threshold = &f1, &threshold
	e.AUPRO, errs[3] = present(pixels.AUPRO(auproLimit))
	e.AUPROStrict, errs[4] = present(pixels.AUPRO(auproStrictLimit))
	e.PROReleased, errs[5] = present(pixels.ReleasedPRO())
	e.PixelROC, errs[6] = pixels.ROC(curvePoints)
	e.PRO, errs[7] = pixels.PROCurve(auproLimit, curvePoints)
	return errors.Join(errs[:]...)
}

// present is the value, or nil where the data cannot give one.
func present(value float64, err error) (*float64, error) {
	if errors.Is(err, metric.ErrEmpty) || errors.Is(err, metric.ErrOneClass) || errors.Is(err, metric.ErrUndefined) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &value, nil
}

// readAhead is how many images are read while one is scored.
const readAhead = 3

// scan predicts every item in turn. Images go through the networks one at a time, so that an image's score depends on
// nothing but itself.
func (m *Model) scan(ctx context.Context, items []dataset.Item, cache *dataset.Cache, each func(i int, anomaly []float32, score float64) error) error {
	return m.read(ctx, items, cache, func(i int, x []float32) error {
		anomaly, scores, err := m.predict(x)
		if err != nil {
			return err
		}
		return each(i, anomaly, scores[0])
	})
}

// read hands every item to each in turn as the networks see it, 3 x S x S, while the next ones are read, with the model
// in eval mode.
func (m *Model) read(ctx context.Context, items []dataset.Item, cache *dataset.Cache, each func(i int, x []float32) error) error {
	type picture struct {
		x   []float32 // 3 x S x S, normalised
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !m.settled {
		if err := m.train(false); err != nil {
			return err
		}
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
		var p picture
		select {
		case p = <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.err != nil {
			return fmt.Errorf("rdpp: %w", p.err)
		}
		if err := each(i, p.x); err != nil {
			return fmt.Errorf("rdpp: %s: %w", items[i].Path, err)
		}
		i++
	}
	return ctx.Err()
}

// predict maps B normalised images, B x 3 x S x S, to their anomaly maps, B x S x S, and scores, B. The model is in eval
// mode.
func (m *Model) predict(x []float32) (maps []float32, scores []float64, err error) {
	S := m.Info.Config.ImageSize
	var s torch.Scope
	defer s.Close()
	input := s.Tensor(torch.FromSlice(x, int64(len(x)/(3*S*S)), 3, int64(S), int64(S)))
	input = s.Tensor(input.To(m.Device, m.precision.DType()))
	predictor, err := m.prepared()
	if err != nil {
		return nil, nil, err
	}
	anomaly, maxima := s.Pair(predictor.Predict(input))
	if err := s.Err(); err != nil {
		return nil, nil, err
	}
	if maps, err = torch.Read[float32](anomaly); err != nil {
		return nil, nil, err
	}
	if scores, err = torch.Read[float64](maxima); err != nil {
		return nil, nil, err
	}
	for _, score := range scores {
		if score-score != 0 { // NaN or infinite, which no threshold would find
			return nil, nil, fmt.Errorf("the score is %v, no verdict can be made of it; the model is damaged, restore it or train again", score)
		}
	}
	return maps, scores, nil
}

// prepared returns the predictor by the map's options, which change when training has found the levels.
func (m *Model) prepared() (*torch.Predictor, error) {
	if options := m.mapOptions(); m.predictor == nil || options != m.options {
		predictor, err := torch.NewPredictor(m.Teacher, m.Projection, m.Bottleneck, m.Student, options)
		if err != nil {
			return nil, err
		}
		m.predictor.Close()
		m.predictor, m.options = predictor, options
	}
	return m.predictor, nil
}

// embed maps a normalised image, 3 x S x S, to the student's input, 512e x S/32 x S/32. The model is in eval mode.
func (m *Model) embed(x []float32) ([]float32, error) {
	S := int64(m.Info.Config.ImageSize)
	var s torch.Scope
	defer s.Close()
	input := s.Tensor(torch.FromSlice(x, 1, 3, S, S))
	input = s.Tensor(input.To(m.Device, torch.Float32))
	f := s.Features(m.Teacher.Forward(input)) // K tensors of 1 x C x H x W
	if m.Info.Config.Method == MethodRDPP {
		f = s.Features(m.Projection.Forward(f))
	}
	z := s.Tensor(m.Bottleneck.Forward(f)) // 1 x 512e x S/32 x S/32
	if err := s.Err(); err != nil {
		return nil, err
	}
	return torch.Read[float32](z)
}
