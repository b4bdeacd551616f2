package metric

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// The metrics are sums and quotients of counts, so float64 leaves ten digits to spare.
const tolerance = 1e-9

type goldenMetrics struct {
	Masks       [][][]int
	Scores      [][][]float32
	ImageScores []float64 `json:"image_scores"`
	ImageAUROC  float64   `json:"image_auroc"`
	ImageAP     float64   `json:"image_ap"`
	PixelAUROC  float64   `json:"pixel_auroc"`
	PixelAP     float64   `json:"pixel_ap"`
	PixelF1     float64   `json:"pixel_f1_max"`
	AUPRO30     float64   `json:"aupro_030"`
	AUPRO05     float64   `json:"aupro_005"`
	Released    float64   `json:"released_code_pro"`
}

func TestEqualsGolden(t *testing.T) {
	file, err := os.Open("testdata/metrics.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var golden []goldenMetrics
	decoder := json.NewDecoder(file)
	decoder.DisallowUnknownFields() // every figure in the file is compared below
	if err := decoder.Decode(&golden); err != nil {
		t.Fatal(err)
	}
	if got, want := len(golden), 2; got != want {
		t.Fatalf("got %d golden cases, want %d", got, want)
	}
	for i, g := range golden {
		var pixels Pixels
		defective := make([]bool, len(g.Masks))
		for j := range g.Masks {
			mask := make([]uint8, 0, len(g.Masks[j])*len(g.Masks[j][0]))
			for _, v := range slices.Concat(g.Masks[j]...) {
				mask = append(mask, uint8(v))
			}
			defective[j] = slices.Max(mask) > 0
			if err := pixels.Add(slices.Concat(g.Scores[j]...), mask, len(g.Masks[j]), len(g.Masks[j][0])); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			name   string
			metric func() (float64, error)
			want   float64
		}{
			{"image AUROC", func() (float64, error) { return AUROC(g.ImageScores, defective) }, g.ImageAUROC},
			{"image AP", func() (float64, error) { return AveragePrecision(g.ImageScores, defective) }, g.ImageAP},
			{"pixel AUROC", pixels.AUROC, g.PixelAUROC},
			{"pixel AP", pixels.AveragePrecision, g.PixelAP},
			{"pixel F1-max", func() (float64, error) { f, _, err := pixels.F1Max(); return f, err }, g.PixelF1},
			{"F1 at the threshold of F1-max", func() (float64, error) {
				_, threshold, err := pixels.F1Max()
				return f1At(threshold, g.Scores, g.Masks), err
			}, g.PixelF1},
			{"AUPRO 0.3", func() (float64, error) { return pixels.AUPRO(0.3) }, g.AUPRO30},
			{"AUPRO 0.05", func() (float64, error) { return pixels.AUPRO(0.05) }, g.AUPRO05},
			{"released PRO", pixels.ReleasedPRO, g.Released},
		} {
			got, err := c.metric()
			if err != nil || !(math.Abs(got-c.want) <= tolerance) {
				t.Errorf("case %d, %s: got %v, %v, want %v", i, c.name, got, err, c.want)
			}
		}
	}
}

// f1At is the F1 score of all pixels where those at or above threshold are called defective.
func f1At(threshold float64, scores [][][]float32, masks [][][]int) float64 {
	tp, wrong := 0.0, 0.0
	for j := range scores {
		for y, row := range scores[j] {
			for x, v := range row {
				switch called, defective := float64(v) >= threshold, masks[j][y][x] != 0; {
				case called && defective:
					tp++
				case called != defective:
					wrong++
				}
			}
		}
	}
	return 2 * tp / (2*tp + wrong)
}

func TestSmallCases(t *testing.T) {
	cases := []struct {
		name                   string
		scores                 []float64
		positive               []bool
		auroc, ap, f1, f1Above float64
	}{
		{"perfect", []float64{1, 2, 3, 4}, []bool{false, false, true, true}, 1, 1, 1, 3},
		{"inverted", []float64{4, 3, 2, 1}, []bool{false, false, true, true}, 0, (1./3 + 2./4) / 2, 4. / 6, 1},
		{"all tied", []float64{7, 7, 7, 7}, []bool{false, true, false, false}, 0.5, 0.25, 0.4, 7},
		{"half tied", []float64{1, 2, 2, 3}, []bool{false, false, true, true}, 0.875, (1 + 2./3) / 2, 0.8, 2},
		{"signed zeros tie", []float64{0, math.Copysign(0, -1)}, []bool{true, false}, 0.5, 0.5, 2. / 3, 0},
		{"negative scores", []float64{-5, -1e300, 1e-300}, []bool{true, false, false}, 0.5, 0.5, 2. / 3, -5},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			auroc, err1 := AUROC(c.scores, c.positive)
			ap, err2 := AveragePrecision(c.scores, c.positive)
			f1, above, err3 := F1Max(c.scores, c.positive)
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Fatal(err)
			}
			want := [4]float64{c.auroc, c.ap, c.f1, c.f1Above}
			if got := [4]float64{auroc, ap, f1, above}; !allNear(got, want) {
				t.Errorf("got AUROC, AP, F1, threshold %v, want %v", got, want)
			}
			var pixels Pixels
			anomaly, mask := make([]float32, len(c.scores)), make([]uint8, len(c.scores))
			for i, s := range c.scores {
				anomaly[i] = float32(max(s, -math.MaxFloat32))
				if c.positive[i] {
					mask[i] = 1
				}
			}
			if err := pixels.Add(anomaly, mask, 1, len(mask)); err != nil {
				t.Fatal(err)
			}
			auroc, err1 = pixels.AUROC()
			ap, err2 = pixels.AveragePrecision()
			f1, above, err3 = pixels.F1Max()
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Fatal(err)
			}
			if got := [4]float64{auroc, ap, f1, above}; !allNear(got, want) {
				t.Errorf("of pixels: got AUROC, AP, F1, threshold %v, want %v", got, want)
			}
		})
	}
}

func allNear(got, want [4]float64) bool {
	for i := range got {
		if !(math.Abs(got[i]-want[i]) <= tolerance) {
			return false
		}
	}
	return true
}

// TestAgainstDefinitions compares with the definitions, evaluated directly, on random scores with many ties.
func TestAgainstDefinitions(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		n := 4 + rng.IntN(60)
		scores, positive := make([]float64, n), make([]bool, n)
		anomaly, mask := make([]float32, n), make([]uint8, n)
		for i := range n {
			anomaly[i] = float32(rng.IntN(12)-6) / 7
			scores[i] = float64(anomaly[i])
			positive[i] = i == 0 || i > 1 && rng.IntN(3) == 0
			if positive[i] {
				mask[i] = 255
			}
		}
		pairs, ordered := 0.0, 0.0
		for i := range n {
			for j := range n {
				if !positive[i] || positive[j] {
					continue
				}
				pairs++
				switch {
				case scores[i] > scores[j]:
					ordered++
				case scores[i] == scores[j]:
					ordered += 0.5
				}
			}
		}
		ap, f1, f1Above, positives := 0.0, 0.0, 0.0, 0.0
		for i := range n {
			tp, fp, fn := 0.0, 0.0, 0.0
			for j := range n {
				switch {
				case positive[j] && scores[j] >= scores[i]:
					tp++
				case positive[j]:
					fn++
				case scores[j] >= scores[i]:
					fp++
				}
			}
			if f := 2 * tp / (2*tp + fp + fn); f > f1 || f == f1 && scores[i] > f1Above {
				f1, f1Above = f, scores[i]
			}
			if positive[i] {
				ap += tp / (tp + fp)
				positives++
			}
		}
		var pixels Pixels
		if err := pixels.Add(anomaly, mask, 1, n); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name string
			got  func() (float64, error)
			want float64
		}{
			{"AUROC", func() (float64, error) { return AUROC(scores, positive) }, ordered / pairs},
			{"AP", func() (float64, error) { return AveragePrecision(scores, positive) }, ap / positives},
			{"F1", func() (float64, error) { f, _, err := F1Max(scores, positive); return f, err }, f1},
			{"F1 threshold", func() (float64, error) { _, at, err := F1Max(scores, positive); return at, err }, f1Above},
			{"pixel AUROC", pixels.AUROC, ordered / pairs},
			{"pixel AP", pixels.AveragePrecision, ap / positives},
			{"pixel F1", func() (float64, error) { f, _, err := pixels.F1Max(); return f, err }, f1},
			{"pixel F1 threshold", func() (float64, error) { _, at, err := pixels.F1Max(); return at, err }, f1Above},
		} {
			got, err := c.got()
			if err != nil || math.Abs(got-c.want) > tolerance {
				t.Errorf("%s of %d: got %v, %v, want %v", c.name, n, got, err, c.want)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name     string
		scores   []float64
		positive []bool
		want     error
	}{
		{"empty", nil, nil, ErrEmpty},
		{"lengths", []float64{1, 2}, []bool{true}, ErrLength},
		{"NaN", []float64{1, nan}, []bool{true, false}, ErrNaN},
		{"Inf", []float64{1, inf}, []bool{true, false}, ErrNaN},
		{"-Inf", []float64{1, -inf}, []bool{true, false}, ErrNaN},
		{"all good", []float64{1, 2}, []bool{false, false}, ErrOneClass},
		{"all defective", []float64{1, 2}, []bool{true, true}, ErrOneClass},
	} {
		_, err1 := AUROC(c.scores, c.positive)
		_, err2 := AveragePrecision(c.scores, c.positive)
		_, _, err3 := F1Max(c.scores, c.positive)
		_, err4 := ROC(c.scores, c.positive, 10)
		for i, err := range []error{err1, err2, err3, err4} {
			if !errors.Is(err, c.want) {
				t.Errorf("%s, metric %d: got %v, want %v", c.name, i, err, c.want)
			}
		}
	}
}

func ExampleAUROC() {
	auroc, err := AUROC([]float64{0.1, 0.4, 0.4, 0.9}, []bool{false, false, true, true})
	fmt.Println(auroc, err)
	_, err = AUROC([]float64{0.1, 0.4}, []bool{false, false})
	fmt.Println(err)
	// Output:
	// 0.875 <nil>
	// metric: only one class, both good and defective samples are needed: all 2 are good
}
