// Package evaluation scores the images of data sets with a model, in batches whose size leaves no trace in the scores, and
// measures and shows how well that tells good from defective.
package evaluation

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/modelfile"
)

// The false positive rates up to which AUPRO integrates: the usual one (Bergmann et al., 2021), and one that fewer false
// pixels are tolerable for.
const (
	auproLimit       = 0.3
	auproStrictLimit = 0.05
)

// ItemScore is an image of a data set and its score.
type ItemScore struct {
	dataset.Item
	Score    float64
	Warnings []string // that it is unlike the training images, as in Result
	Notes    []string // on masks of what counts
}

// Evaluation is what scoring a test set leads to.
type Evaluation struct {
	anomaly.Metrics
	Scores                  []ItemScore    // in the order of the items
	ImageROC, PixelROC, PRO []metric.Point // curves to draw; nil where their metric is
	Seconds                 float64        // that it took
}

// Verdicts counts what a calibration's threshold makes of the images.
func (e *Evaluation) Verdicts(c *anomaly.Calibration) anomaly.Verdicts {
	v := c.Verdicts()
	for _, s := range e.Scores {
		v.Count(s.Score, s.Defective)
	}
	v.Close(e.Good)
	return v
}

// Warning sums up what is said of the images in Scores: how many are unlike the training images, and how the first is, and
// the same of masks that were scaled; "" where there is nothing to say.
func (e *Evaluation) Warning() string {
	var all []string
	for _, kind := range []struct {
		text string
		of   func(s ItemScore) []string
	}{{"%d of %d images are unlike those of training, first %s: %s", func(s ItemScore) []string { return s.Warnings }},
		{"masks of %d of %d images are of another size than these, first %s: %s", func(s ItemScore) []string { return s.Notes }}} {
		n, first := 0, ItemScore{}
		for _, s := range e.Scores {
			if len(kind.of(s)) == 0 {
				continue
			}
			if n == 0 {
				first = s
			}
			n++
		}
		if n > 0 {
			all = append(all, fmt.Sprintf(kind.text, n, len(e.Scores), first.Path, kind.of(first)[0]))
		}
	}
	return strings.Join(all, "; ")
}

// WriteScores writes the images' scores as CSV: path, type, defective and score, which loses no digit.
func (e *Evaluation) WriteScores(w io.Writer) error {
	rows := [][]string{{"path", "type", "defective", "score"}}
	for _, s := range e.Scores {
		rows = append(rows, []string{s.Path, s.Type, strconv.FormatBool(s.Defective), strconv.FormatFloat(s.Score, 'g', -1, 64)})
	}
	return csv.NewWriter(w).WriteAll(rows)
}

// WriteVerdicts writes what WriteScores does, and what a calibration makes of each score: verdict, threshold and p_value, which is
// empty where it is not known.
func (e *Evaluation) WriteVerdicts(w io.Writer, c *anomaly.Calibration) error {
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	rows := [][]string{{"path", "type", "defective", "score", "verdict", "threshold", "p_value"}}
	for _, s := range e.Scores {
		v, verdict, p := c.Judge(s.Score), "good", ""
		if v.Anomalous {
			verdict = "anomalous"
		}
		if v.PValue != nil {
			p = number(*v.PValue)
		}
		rows = append(rows, []string{s.Path, s.Type, strconv.FormatBool(s.Defective), number(s.Score), verdict, number(v.Threshold), p})
	}
	return csv.NewWriter(w).WriteAll(rows)
}

// curvePoints bounds the points of a curve to draw.
const curvePoints = 1000

// Evaluate scores items and measures how well scores and maps tell good from defective, and how the outlines fit that a
// calibration leads to; nil: that is not measured.
func Evaluate(ctx context.Context, m *modelfile.Model, items []dataset.Item, hasMasks bool, c *anomaly.Calibration,
	cache *dataset.Cache) (*Evaluation, error) {
	began := time.Now()
	e := &Evaluation{Scores: make([]ItemScore, 0, len(items))}
	var pixels metric.Pixels
	var fit outlines
	err := scan(ctx, m, items, cache, func(i int, o modelfile.Outcome) error {
		frame := o.Frame
		e.Scores = append(e.Scores, ItemScore{items[i], o.Score, slices.Concat(m.Info.Unlike(cache.Look(items[i].Path)),
			m.Info.Displaced(frame.Picture.X, frame.Picture.Y), frame.Pose.Warnings()), frame.Notes})
		if items[i].Defective {
			e.Defective++
		} else {
			e.Good++
		}
		if !hasMasks {
			return nil
		}
		mask := make([]uint8, len(o.Map))
		if items[i].Mask != "" {
			var err error
			if mask, err = cache.MaskOf(items[i], frame); err != nil {
				return err
			}
			framing.Blank(frame, mask)
			if !slices.Contains(mask, 1) {
				e.LostMasks++
			}
		}
		if c != nil {
			_, levels, err := modelfile.Outlined(c.Outline(c.Judge(o.Score), m.Info.Config.Blur()), o.Map, frame)
			if err != nil {
				return err
			}
			fit.add(levels, mask)
		}
		if frame.All() {
			return pixels.Add(o.Map, mask, o.H, o.W)
		}
		return pixels.AddCounted(o.Map, mask, frame.Counts, o.H, o.W)
	})
	if err != nil {
		return nil, err
	}
	if err := e.measureImages(); err != nil {
		return nil, fmt.Errorf("evaluation: metrics: %w", err)
	}
	if hasMasks {
		if err := e.measurePixels(&pixels); err != nil {
			return nil, fmt.Errorf("evaluation: metrics: %w", err)
		}
		fit.measure(&e.Metrics)
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
