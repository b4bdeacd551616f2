package simplex

import (
	"math"
	"math/rand/v2"
	"testing"
)

// reference is octave noise by opensimplex-go's Eval3 alone.
func reference(f *Field, C, H, W int) []float64 {
	dst := make([]float64, C*H*W)
	amplitude, feature := 1.0, 32.0
	for range 6 {
		rows := dst
		for z := range C {
			for y := range H {
				f.addRow(rows[:W], float64(y)/feature, float64(z)/feature, feature, amplitude)
				rows = rows[W:]
			}
		}
		amplitude *= 0.6
		feature /= 2
	}
	return dst
}

func TestGridEqualsOpenSimplexToTheBit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		C, H, W int
		grid    bool
	}{
		{3, 32, 32, true}, {3, 10, 31, true}, {3, 31, 10, true}, {1, 1, 1, true}, {2, 64, 33, true}, {3, 63, 64, true},
		{4, 5, 6, false}, {3, 65, 2, false}, {3, 2, 65, false},
	} {
		if got := gridFor(c.C, c.H, c.W) != nil; got != c.grid {
			t.Errorf("%d x %d x %d: got a grid %v, want %v", c.C, c.H, c.W, got, c.grid)
		}
		for range 3 {
			seed := int64(rng.Uint64())
			field := NewField(seed)
			got := make([]float64, c.C*c.H*c.W)
			if err := field.Octaves(got, c.C, c.H, c.W, nil); err != nil {
				t.Fatal(err)
			}
			for i, want := range reference(field, c.C, c.H, c.W) {
				if math.Float64bits(got[i]) != math.Float64bits(want) {
					t.Fatalf("%d x %d x %d, seed %d, value %d: got %v, want %v", c.C, c.H, c.W, seed, i, got[i], want)
				}
			}
		}
	}
}

// More octaves than a grid has, fewer, and other amplitudes than the paper's.
func TestGridOptions(t *testing.T) {
	const C, H, W = 3, 12, 17
	field := NewField(9)
	for _, opt := range []*Options{{Octaves: 8}, {Octaves: 1}, {Persistence: 0.3}, {Feature: 64}, {Octaves: 7, Feature: 5}} {
		got := make([]float64, C*H*W)
		if err := field.Octaves(got, C, H, W, opt); err != nil {
			t.Fatal(err)
		}
		o := opt.complete()
		for i := range got {
			x, y, z := float64(i%W), float64(i/W%H), float64(i/W/H)
			want, amplitude, feature := 0.0, 1.0, o.Feature
			for range o.Octaves {
				want += amplitude * field.At(x/feature, y/feature, z/feature)
				amplitude *= o.Persistence
				feature /= 2
			}
			if math.Float64bits(got[i]) != math.Float64bits(want) {
				t.Fatalf("%+v, value %d: got %v, want %v", *opt, i, got[i], want)
			}
		}
	}
}

// checkPlace compares the terms of a place with opensimplex-go.
func checkPlace(t *testing.T, field *Field, x, y, z float64) {
	t.Helper()
	var room [8]term
	got, want := field.lattice.noise(appendTerms(room[:0], x, y, z)), field.At(x, y, z)
	if math.Float64bits(got) != math.Float64bits(want) {
		t.Fatalf("at %v, %v, %v: got %v, want %v", x, y, z, got, want)
	}
}

func TestTermsEqualOpenSimplexToTheBit(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		field := NewField(int64(rng.Uint64()))
		for i := range 10_000 {
			size := math.Exp2(float64(i%32) - 2) // up to 2^28 on either side of 0
			x, y, z := size*(rng.Float64()-0.5), size*(rng.Float64()-0.5), size*(rng.Float64()-0.5)
			if i%3 == 0 { // on the borders between cells and their parts
				unit := math.Exp2(-float64(rng.IntN(6)))
				x, y, z = math.Round(x/unit)*unit, math.Round(y/unit)*unit, math.Round(z/unit)*unit
			}
			checkPlace(t, field, x, y, z)
		}
	}
}

func FuzzTerms(f *testing.F) {
	f.Add(int64(0), 0.0, 0.0, 0.0)
	f.Add(int64(-1), 0.5, -0.5, 1.0)
	f.Add(int64(7), 1e8, -3.25, 1/3.0)
	f.Fuzz(func(t *testing.T, seed int64, x, y, z float64) {
		for _, v := range []float64{x, y, z} {
			if !(math.Abs(v) < 1<<28) {
				return // terms are of smaller coordinates
			}
		}
		checkPlace(t, NewField(seed), x, y, z)
	})
}

// What the loader does for a batch of 16 images of 256 x 256, in one goroutine.
func BenchmarkBatch16(b *testing.B) {
	for _, c := range []struct {
		name   string
		octave func(f *Field, dst []float64, box Box)
	}{
		{"grid", func(f *Field, dst []float64, box Box) {
			if err := f.Octaves(dst, 3, box.H, box.W, nil); err != nil {
				b.Fatal(err)
			}
		}},
		{"opensimplex", func(f *Field, dst []float64, box Box) { copy(dst, reference(f, 3, box.H, box.W)) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			gridFor(3, 31, 31)
			index := 0
			for b.Loop() {
				for range 16 {
					rng := rand.New(rand.NewPCG(ImageSeed(1, 0, index), 0))
					box := RandomBox(rng, 256)
					c.octave(NewField(int64(rng.Uint64())), make([]float64, 3*box.H*box.W), box)
					index++
				}
			}
		})
	}
}
