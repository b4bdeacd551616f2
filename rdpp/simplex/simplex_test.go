package simplex

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

// noiseTolerance is absolute: the golden values are of the same algorithm in the same precision, so that only the
// order of a few float64 operations may differ.
const noiseTolerance = 1e-12

type goldenNoise struct {
	Seed    int64
	Points  [][3]float64
	Noise3  []float64
	Octaves struct {
		Shape       [3]int
		Octaves     int
		Persistence float64
		Frequency   float64
		Values      [][][]float64
	}
}

func readGolden(t *testing.T) []goldenNoise {
	t.Helper()
	data, err := os.ReadFile("testdata/noise.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden []goldenNoise
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden) == 0 {
		t.Fatal("no golden noise")
	}
	return golden
}

func TestAtEqualsGolden(t *testing.T) {
	for _, g := range readGolden(t) {
		field := NewField(g.Seed)
		for i, p := range g.Points {
			if got, want := field.At(p[0], p[1], p[2]), g.Noise3[i]; !(math.Abs(got-want) <= noiseTolerance) {
				t.Errorf("seed %d at %v: got %v, want %v", g.Seed, p, got, want)
			}
		}
	}
}

func TestOctavesEqualGolden(t *testing.T) {
	for _, g := range readGolden(t) {
		C, H, W := g.Octaves.Shape[0], g.Octaves.Shape[1], g.Octaves.Shape[2]
		// The golden noise is of the paper's options, which nil, zero fields and the same values spelled out all mean.
		for name, opt := range map[string]*Options{
			"nil": nil, "zero": {}, "explicit": {g.Octaves.Octaves, g.Octaves.Persistence, g.Octaves.Frequency},
		} {
			got := slices.Repeat([]float64{math.NaN()}, C*H*W)
			if err := NewField(g.Seed).Octaves(got, C, H, W, opt); err != nil {
				t.Fatal(err)
			}
			want := slices.Concat(slices.Concat(g.Octaves.Values...)...)
			if len(got) != len(want) {
				t.Fatalf("seed %d: got %d values, want %d", g.Seed, len(got), len(want))
			}
			for i := range want {
				if !(math.Abs(got[i]-want[i]) <= noiseTolerance) {
					t.Fatalf("seed %d, options %s, value %d: got %v, want %v", g.Seed, name, i, got[i], want[i])
				}
			}
		}
	}
}

func TestOctavesOptions(t *testing.T) {
	field := NewField(5)
	got := make([]float64, 3*4*6)
	if err := field.Octaves(got, 3, 4, 6, &Options{Octaves: 2, Persistence: 0.25, Feature: 10}); err != nil {
		t.Fatal(err)
	}
	x, y, z := 5.0, 3.0, 2.0
	want := field.At(x/10, y/10, z/10) + 0.25*field.At(x/5, y/5, z/5)
	if last := got[len(got)-1]; math.Abs(last-want) > noiseTolerance {
		t.Errorf("got %v, want %v", last, want)
	}
}

func TestOctavesErrors(t *testing.T) {
	cases := []struct {
		name       string
		n, C, H, W int
		opt        *Options
	}{
		{"short", 11, 1, 3, 4, nil},
		{"long", 13, 1, 3, 4, nil},
		{"negative sides", 12, 1, -3, -4, nil},
		{"negative octaves", 12, 1, 3, 4, &Options{Octaves: -1}},
		{"negative persistence", 12, 1, 3, 4, &Options{Persistence: -1}},
		{"NaN persistence", 12, 1, 3, 4, &Options{Persistence: math.NaN()}},
		{"NaN feature", 12, 1, 3, 4, &Options{Feature: math.NaN()}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := NewField(1).Octaves(make([]float64, c.n), c.C, c.H, c.W, c.opt)
			if !errors.Is(err, ErrShape) {
				t.Errorf("got %v, want %v", err, ErrShape)
			}
		})
	}
	if err := NewField(1).Octaves(nil, 3, 0, 7, nil); err != nil {
		t.Errorf("an empty box: got %v, want no error", err)
	}
}

func TestRandomBoxRanges(t *testing.T) {
	// Sides are drawn from [low, high), both ends of which many draws must reach.
	cases := []struct{ size, low, high int }{
		{3, 1, 2}, {16, 1, 2}, {32, 3, 4}, {64, 7, 8}, {80, 9, 10}, {88, 10, 11}, {96, 10, 12}, {256, 10, 32}, {512, 10, 64},
	}
	for _, c := range cases {
		rng := rand.New(rand.NewPCG(1, uint64(c.size)))
		minSide, maxSide, minCorner, reach := math.MaxInt, 0, math.MaxInt, 0
		for range 200_000 {
			b := RandomBox(rng, c.size)
			minSide = min(minSide, b.H, b.W)
			maxSide = max(maxSide, b.H, b.W)
			minCorner = min(minCorner, b.Y, b.X)
			reach = max(reach, b.Y+b.H, b.X+b.W)
		}
		got := [4]int{minSide, maxSide, minCorner, reach}
		// The corner's range is open at size-side: a box never touches the last row or column.
		if want := [4]int{c.low, c.high - 1, 1, c.size - 1}; got != want {
			t.Errorf("size %d: got smallest side, largest side, smallest corner, reach %v, want %v", c.size, got, want)
		}
	}
	if got := RandomBox(rand.New(rand.NewPCG(1, 1)), 2); got != (Box{}) {
		t.Errorf("size 2: got %v, want an empty box", got)
	}
}

func TestRandomBoxIsUniform(t *testing.T) {
	const draws, sides = 220_000, 22
	var heights [32]int
	rng := rand.New(rand.NewPCG(3, 4))
	for range draws {
		heights[RandomBox(rng, 256).H]++
	}
	for h := 10; h < 32; h++ {
		// 500 is five standard deviations of a count with mean draws/sides = 10,000.
		if got, want := heights[h], draws/sides; got < want-500 || got > want+500 {
			t.Errorf("height %d: got %d draws, want %d within 500", h, got, want)
		}
	}
}

func TestImageSeed(t *testing.T) {
	// SplitMix64's published first output for state 0 pins the mixing.
	if got, want := splitMix(0), uint64(0xe220a8397b1dcdaf); got != want {
		t.Errorf("splitMix(0): got %#x, want %#x", got, want)
	}
	seen := map[uint64][3]int{}
	for seed := range 10 {
		for epoch := range 30 {
			for index := range 100 {
				s := ImageSeed(uint64(seed), epoch, index)
				if other, ok := seen[s]; ok {
					t.Fatalf("(seed, epoch, index) %v and %v share the image seed %d", other, [3]int{seed, epoch, index}, s)
				}
				seen[s] = [3]int{seed, epoch, index}
			}
		}
	}
}

func ExampleField_Octaves() {
	seed := ImageSeed(7, 0, 12)
	box := RandomBox(rand.New(rand.NewPCG(seed, 0)), 256)
	noise := make([]float64, 3*box.H*box.W)
	if err := NewField(int64(seed)).Octaves(noise, 3, box.H, box.W, nil); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(noise) == 3*box.H*box.W)
	// Output: true
}

func BenchmarkOctaves(b *testing.B) {
	for _, side := range []int{20, 31} {
		b.Run(fmt.Sprintf("%dx%d", side, side), func(b *testing.B) {
			dst := make([]float64, 3*side*side)
			for i := range b.N {
				if err := NewField(int64(i)).Octaves(dst, 3, side, side, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
