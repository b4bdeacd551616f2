package metric

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
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
		{"no mask", make([]float32, 4), nil, 2, 2, ErrLength},
		{"empty", nil, nil, 0, 5, ErrEmpty},
		{"NaN", []float32{1, nan}, []uint8{0, 1}, 1, 2, ErrNaN},
		{"Inf", []float32{1, inf}, []uint8{0, 1}, 1, 2, ErrNaN},
	} {
		var p Pixels
		if err := p.Add(c.m, c.mask, c.H, c.W); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		for i, metric := range metricsOf(&p) {
			if _, err := metric(); !errors.Is(err, ErrEmpty) {
				t.Errorf("after %s, metric %d: got %v, want %v", c.name, i, err, ErrEmpty)
			}
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
	for _, limit := range []float64{0, -1, 1.5, math.NaN()} {
		if _, err := p.AUPRO(limit); !errors.Is(err, ErrLimit) {
			t.Errorf("AUPRO(%g): got %v, want %v", limit, err, ErrLimit)
		}
		if _, err := p.PROCurve(limit, 10); !errors.Is(err, ErrLimit) {
			t.Errorf("PROCurve(%g): got %v, want %v", limit, err, ErrLimit)
		}
	}
}

// metricsOf are all methods that measure, in a fixed order; several numbers stand as their sum.
func metricsOf(p *Pixels) []func() (float64, error) {
	sum := func(points []Point, err error) (float64, error) {
		s := 0.0
		for _, v := range points {
			s += v.X + v.Y
		}
		return s, err
	}
	return []func() (float64, error){
		p.AUROC,
		p.AveragePrecision,
		func() (float64, error) { f1, threshold, err := p.F1Max(); return f1 + threshold, err },
		func() (float64, error) { return p.AUPRO(0.3) },
		func() (float64, error) { return p.AUPRO(0.05) },
		p.ReleasedPRO,
		func() (float64, error) { return sum(p.ROC(100)) },
		func() (float64, error) { return sum(p.PROCurve(0.3, 100)) },
	}
}

// TestConstantMaps: all pixels are tied, so no map tells more than chance, and the released PRO has no value.
func TestConstantMaps(t *testing.T) {
	defect := []uint8{0, 1, 1, 0, 0, 0, 0, 0}
	varied := []float32{0, 1, 2, 3, 4, 5, 6, 7}
	for _, c := range []struct {
		name      string
		constant  float32
		mask      []uint8
		undefined bool // the released PRO
	}{
		{"zero", 0, defect, true},
		{"negative", -3.5, defect, true},
		{"largest", math.MaxFloat32, defect, true},
		{"of a good part", 1, make([]uint8, 8), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p Pixels
			if err := p.Add(slices.Repeat([]float32{c.constant}, 8), c.mask, 2, 4); err != nil {
				t.Fatal(err)
			}
			if !c.undefined {
				if err := p.Add(varied, defect, 2, 4); err != nil {
					t.Fatal(err)
				}
			}
			_, err := p.ReleasedPRO()
			if got := errors.Is(err, ErrUndefined); got != c.undefined {
				t.Errorf("released PRO: got %v, undefined is to be %v", err, c.undefined)
			}
			if !c.undefined {
				return
			}
			auroc, err1 := p.AUROC()
			ap, err2 := p.AveragePrecision()
			f1, threshold, err3 := p.F1Max()
			aupro, err4 := p.AUPRO(0.3)
			roc, err5 := p.ROC(10)
			pro, err6 := p.PROCurve(0.3, 10)
			if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
				t.Fatal(err)
			}
			if got, want := [4]float64{auroc, ap, f1, aupro}, [4]float64{0.5, 0.25, 0.4, 0.15}; !allNear(got, want) {
				t.Errorf("got AUROC, AP, F1, AUPRO %v, want %v", got, want)
			}
			if threshold != float64(c.constant) {
				t.Errorf("got threshold %g, want %g", threshold, c.constant)
			}
			if want := []Point{{0, 0}, {1, 1}}; !slices.Equal(roc, want) {
				t.Errorf("got ROC %v, want %v", roc, want)
			}
			if want := []Point{{0, 0}, {0.3, 0.3}}; !slices.Equal(pro, want) {
				t.Errorf("got PRO curve %v, want %v", pro, want)
			}
		})
	}
}

// TestReleasedPROUndefined: a defective image for which it divides by zero, among others for which it does not.
func TestReleasedPROUndefined(t *testing.T) {
	for _, c := range []struct {
		name string
		m    []float32
		mask []uint8
	}{
		{"no good pixel", []float32{1, 2, 3, 4}, []uint8{1, 1, 1, 1}},
		{"no false positive", []float32{1, 1, 1, 2}, []uint8{0, 0, 0, 1}},
		{"too many at once", []float32{2, 2, 2, 1}, []uint8{0, 0, 0, 1}},
		{"constant", []float32{2, 2, 2, 2}, []uint8{0, 0, 0, 1}},
	} {
		var p Pixels
		m, mask := randomImage(rand.New(rand.NewPCG(1, 1)), 16, 16)
		if err := errors.Join(p.Add(m, mask, 16, 16), p.Add(c.m, c.mask, 1, 4), p.Add(m, mask, 16, 16)); err != nil {
			t.Fatal(err)
		}
		if got, err := p.ReleasedPRO(); !errors.Is(err, ErrUndefined) {
			t.Errorf("%s: got %v, %v, want %v", c.name, got, err, ErrUndefined)
		}
		if _, err := p.AUPRO(0.3); err != nil {
			t.Errorf("%s: AUPRO: got %v, want a value", c.name, err)
		}
	}
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

// TestProcessorsDoNotMatter: bit for bit.
func TestProcessorsDoNotMatter(t *testing.T) {
	const images, side = 3, 128
	measure := func(processors int) (values []float64) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
		rng := rand.New(rand.NewPCG(7, 8))
		var p Pixels
		for range images {
			m, mask := randomImage(rng, side, side)
			for i := range m { // ties, and as many defective pixels as good ones
				m[i] = float32(math.Round(float64(m[i])*50)) / 50
				if i%3 == 0 {
					mask[i] = 1
				}
			}
			if err := p.Add(m, mask, side, side); err != nil {
				t.Fatal(err)
			}
		}
		for _, metric := range metricsOf(&p) {
			v, err := metric()
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, v)
		}
		return values
	}
	want := measure(1)
	for _, processors := range []int{2, 3, 8} {
		if got := measure(processors); !slices.Equal(got, want) {
			t.Errorf("%d processors: got %v, want %v", processors, got, want)
		}
	}
}

// TestPixelsMemory holds Pixels to what its comment says: 4 bytes per good pixel, 8 per defective one.
func TestPixelsMemory(t *testing.T) {
	const images, side = 40, 256
	const spare = 1.05 // allocations are rounded up
	held := func() int {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int(stats.HeapAlloc)
	}
	m, mask := randomImage(rand.New(rand.NewPCG(3, 4)), side, side)
	defects := 0
	for _, v := range mask {
		if v != 0 {
			defects++
		}
	}
	limit := int(spare * images * (4*float64(side*side-defects) + 8*float64(defects)))
	before := held()
	var p Pixels
	for range images {
		if err := p.Add(m, mask, side, side); err != nil {
			t.Fatal(err)
		}
	}
	if got := held() - before; got > limit {
		t.Errorf("after Add: got %d bytes, want at most %d", got, limit)
	}
	if _, err := p.AUROC(); err != nil {
		t.Fatal(err)
	}
	if got := held() - before; got > limit {
		t.Errorf("sorted: got %d bytes, want at most %d", got, limit)
	}
	runtime.KeepAlive(&p)
	runtime.KeepAlive(m)
	runtime.KeepAlive(mask)
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
	f.Add(uint64(1), uint16(0), uint8(1))
	f.Add(uint64(2), uint16(1), uint8(2))
	f.Add(uint64(3), uint16(50000), uint8(1))
	f.Add(uint64(4), uint16(50000), uint8(3))
	f.Fuzz(func(t *testing.T, seed uint64, n uint16, goroutines uint8) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var wide [][]uint64
		var narrow [][]uint32
		for left := int(n); left > 0; {
			size := rng.IntN(left + 1)
			chunk, keys := make([]uint64, size), make([]uint32, size)
			for i := range chunk {
				chunk[i] = rng.Uint64() >> rng.IntN(64) // keys of every length, so with many ties
				keys[i] = uint32(chunk[i] >> 32)
			}
			wide, narrow = append(wide, chunk), append(narrow, keys)
			left -= max(size, 1)
		}
		want := slices.Concat(wide...)
		slices.SortStableFunc(want, func(a, b uint64) int { return cmp.Compare(a>>32, b>>32) })
		if got := sortKeys(wide, 32, int(goroutines)); !slices.Equal(got, want) {
			t.Errorf("seed %d, n %d, %d goroutines: got another order than a stable sort", seed, n, goroutines)
		}
		wantKeys := slices.Concat(narrow...)
		slices.Sort(wantKeys)
		if got := sortKeys(narrow, 0, int(goroutines)); !slices.Equal(got, wantKeys) {
			t.Errorf("seed %d, n %d, %d goroutines: keys are not in order", seed, n, goroutines)
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

// releasedCase is one of released_pro.py's.
type releasedCase struct {
	Mask       [][]uint8
	Scores     [][]float32
	Thresholds int
	PRO        *float64 // nil: the released code fails
}

// TestReleasedPRO: the figure of the released code, also where it takes 201 thresholds.
func TestReleasedPRO(t *testing.T) {
	text, err := os.ReadFile("testdata/released_pro.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []releasedCase
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	counts := map[int]int{}
	for i, c := range cases {
		counts[c.Thresholds]++
		m := slices.Concat(c.Scores...)
		if n := len(arange(nil, slices.Min(m), slices.Max(m))); c.PRO != nil && n != c.Thresholds {
			t.Errorf("case %d: got %d thresholds, want %d", i, n, c.Thresholds)
		}
		var p Pixels
		if err := p.Add(m, slices.Concat(c.Mask...), len(c.Mask), len(c.Mask[0])); err != nil {
			t.Fatal(err)
		}
		got, err := p.ReleasedPRO()
		if c.PRO == nil {
			if !errors.Is(err, ErrUndefined) {
				t.Errorf("case %d: got %v, %v, want %v", i, got, err, ErrUndefined)
			}
			continue
		}
		if err != nil || !(math.Abs(got-*c.PRO) <= tolerance) {
			t.Errorf("case %d, %d thresholds: got %v, %v, want %v", i, c.Thresholds, got, err, *c.PRO)
		}
	}
	if counts[200] < 5 || counts[201] < 5 {
		t.Errorf("got %d cases of 200 thresholds and %d of 201, want some of each", counts[200], counts[201])
	}
}

// TestReleasedPROOfHugeMaps: a range that float32 cannot hold has no thresholds.
func TestReleasedPROOfHugeMaps(t *testing.T) {
	var p Pixels
	if err := p.Add([]float32{-math.MaxFloat32, 0, 1, math.MaxFloat32}, []uint8{0, 0, 0, 1}, 2, 2); err != nil {
		t.Fatal(err)
	}
	if got, err := p.ReleasedPRO(); !errors.Is(err, ErrUndefined) {
		t.Errorf("got %v, %v, want %v", got, err, ErrUndefined)
	}
}
