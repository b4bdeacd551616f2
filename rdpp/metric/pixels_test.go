package metric

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestPixelsErrors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, c := range []struct {
		name string
		m    []float32
		mask []uint8
		H, W int
		want error
	}{
		{"map length", make([]float32, 3), make([]uint8, 4), 2, 2, ErrLength},
		{"mask length", make([]float32, 4), make([]uint8, 3), 2, 2, ErrLength},
		{"negative", make([]float32, 4), make([]uint8, 4), -2, -2, ErrLength},
		{"empty", nil, nil, 0, 5, ErrEmpty},
		{"NaN", []float32{1, nan}, []uint8{0, 1}, 1, 2, ErrNaN},
		{"Inf", []float32{1, inf}, []uint8{0, 1}, 1, 2, ErrNaN},
	} {
		var p Pixels
		if err := p.Add(c.m, c.mask, c.H, c.W); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if _, err := p.AUROC(); !errors.Is(err, ErrEmpty) {
			t.Errorf("after %s: got %v, want %v", c.name, err, ErrEmpty)
		}
	}
	for name, fill := range map[string]uint8{"all good": 0, "all defective": 1} {
		var p Pixels
		if err := p.Add([]float32{1, 2}, []uint8{fill, fill}, 1, 2); err != nil {
			t.Fatal(err)
		}
		for i, metric := range metricsOf(&p) {
			if _, err := metric(); !errors.Is(err, ErrOneClass) {
				t.Errorf("%s, metric %d: got %v, want %v", name, i, err, ErrOneClass)
			}
		}
	}
	var p Pixels
	if err := p.Add([]float32{1, 1}, []uint8{0, 1}, 1, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ReleasedPRO(); !errors.Is(err, ErrUndefined) {
		t.Errorf("released PRO of a constant map: got %v, want %v", err, ErrUndefined)
	}
	for _, limit := range []float64{0, -1, 1.5, math.NaN()} {
		if _, err := p.AUPRO(limit); !errors.Is(err, ErrLimit) {
			t.Errorf("AUPRO(%g): got %v, want %v", limit, err, ErrLimit)
		}
	}
}

func metricsOf(p *Pixels) []func() (float64, error) {
	aupro := func() (float64, error) { return p.AUPRO(0.3) }
	return []func() (float64, error){p.AUROC, p.AveragePrecision, p.F1Max, aupro, p.ReleasedPRO}
}

func TestAUPROByHand(t *testing.T) {
	// Two regions, of 1 and 2 pixels, and 4 normal ones. Thresholds from above give the points (FPR, PRO):
	// 9: (0, 1/2); 8: (1/4, 1/2); 7, a tie of both classes: (1/2, 3/4); 1: (1/2, 1); 0: (1, 1).
	m := []float32{9, 8, 7, 1, 7, 0, 0}
	mask := []uint8{1, 0, 1, 1, 0, 0, 0}
	var p Pixels
	if err := p.Add(m, mask, 1, 7); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ limit, want float64 }{
		{0.125, 0.5},
		{0.25, 0.5},
		{0.375, (0.25*0.5 + 0.125*(0.5+0.625)/2) / 0.375},
		{0.5, (0.25*0.5 + 0.25*(0.5+0.75)/2) / 0.5},
		{1, 0.25*0.5 + 0.25*(0.5+0.75)/2 + 0.5},
	} {
		got, err := p.AUPRO(c.limit)
		if err != nil || math.Abs(got-c.want) > tolerance {
			t.Errorf("AUPRO(%g): got %v, %v, want %v", c.limit, got, err, c.want)
		}
	}
}

// TestPixelsGrow measures between Adds: sorting must not disturb what is added later.
func TestPixelsGrow(t *testing.T) {
	const H, W = 24, 31
	rng := rand.New(rand.NewPCG(5, 6))
	var once, step Pixels
	for range 5 {
		m, mask := randomImage(rng, H, W)
		for _, p := range []*Pixels{&once, &step} {
			if err := p.Add(m, mask, H, W); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := step.AUROC(); err != nil {
			t.Fatal(err)
		}
	}
	stepMetrics := metricsOf(&step)
	for i, metric := range metricsOf(&once) {
		want, err1 := metric()
		got, err2 := stepMetrics[i]()
		if err := errors.Join(err1, err2); err != nil || math.Abs(got-want) > tolerance {
			t.Errorf("metric %d: got %v, %v, want %v", i, got, err, want)
		}
	}
}

// randomImage is a noisy map with a disc that stands out, and the disc's mask.
func randomImage(rng *rand.Rand, H, W int) ([]float32, []uint8) {
	m, mask := make([]float32, H*W), make([]uint8, H*W)
	cy, cx, r := rng.IntN(H), rng.IntN(W), 1+rng.IntN(H/4)
	for i := range m {
		m[i] = float32(rng.NormFloat64())
		if y, x := i/W-cy, i%W-cx; y*y+x*x < r*r {
			m[i] += 2
			mask[i] = 255
		}
	}
	return m, mask
}

func TestKeysKeepOrder(t *testing.T) {
	negativeZero := float32(math.Copysign(0, -1))
	values := []float32{-math.MaxFloat32, -1.5, -1, -math.SmallestNonzeroFloat32, 0, math.SmallestNonzeroFloat32, 0.1, 1, math.MaxFloat32}
	for i, v := range values {
		if got := ascending(descending(v)); got != v {
			t.Errorf("there and back: got %g, want %g", got, v)
		}
		if i > 0 && descending(values[i-1]) <= descending(v) {
			t.Errorf("keys of %g and %g: got %d and %d, want descending", values[i-1], v, descending(values[i-1]), descending(v))
		}
	}
	if got, want := descending(negativeZero), descending(0); got != want {
		t.Errorf("key of -0: got %d, want %d", got, want)
	}
}

func FuzzSort(f *testing.F) {
	f.Add(uint64(1), uint16(0))
	f.Add(uint64(2), uint16(1))
	f.Add(uint64(3), uint16(5000))
	f.Fuzz(func(t *testing.T, seed uint64, n uint16) {
		rng := rand.New(rand.NewPCG(seed, 0))
		got := make([]uint64, n)
		for i := range got {
			got[i] = rng.Uint64() >> rng.IntN(64) // keys of every length, so with many ties
		}
		want := slices.Clone(got)
		slices.SortStableFunc(want, func(a, b uint64) int { return int(int64(a>>32) - int64(b>>32)) })
		sortByHighHalf(got)
		if !slices.Equal(got, want) {
			t.Errorf("seed %d, n %d: got another order than a stable sort", seed, n)
		}
	})
}

func ExamplePixels() {
	var pixels Pixels
	anomaly := []float32{
		0.1, 0.2, 0.1,
		0.1, 0.9, 0.8,
		0.3, 0.1, 0.2,
	}
	mask := []uint8{
		0, 0, 0,
		0, 255, 255,
		0, 0, 0,
	}
	if err := pixels.Add(anomaly, mask, 3, 3); err != nil {
		fmt.Println(err)
		return
	}
	auroc, _ := pixels.AUROC()
	aupro, _ := pixels.AUPRO(0.3)
	fmt.Println(auroc, aupro)
	// Output: 1 1
}

func BenchmarkPixels(b *testing.B) {
	const images, side = 100, 256
	rng := rand.New(rand.NewPCG(1, 1))
	maps, masks := make([][]float32, images), make([][]uint8, images)
	for i := range images {
		maps[i], masks[i] = randomImage(rng, side, side)
	}
	fill := func() *Pixels {
		p := new(Pixels)
		for i := range images {
			if err := p.Add(maps[i], masks[i], side, side); err != nil {
				b.Fatal(err)
			}
		}
		return p
	}
	b.Run("Add", func(b *testing.B) {
		for range b.N {
			fill()
		}
	})
	filled := fill()
	for _, c := range []struct {
		name   string
		metric func(*Pixels) (float64, error)
	}{
		{"AUROC", (*Pixels).AUROC},
		{"AveragePrecision", (*Pixels).AveragePrecision},
		{"F1Max", (*Pixels).F1Max},
		{"AUPRO", func(p *Pixels) (float64, error) { return p.AUPRO(0.3) }},
	} {
		b.Run(c.name+"WithSort", func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				unsorted := *filled
				unsorted.samples = slices.Clone(filled.samples)
				b.StartTimer()
				if _, err := c.metric(&unsorted); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
