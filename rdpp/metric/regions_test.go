package metric

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// picture reads rows of digits as a map or mask; '.' is 0.
func picture(rows ...string) (m []float32, mask []uint8, H, W int) {
	for _, row := range rows {
		for _, c := range row {
			v := uint8(0)
			if c != '.' {
				v = uint8(c - '0')
			}
			m, mask = append(m, float32(v)), append(mask, v)
		}
	}
	return m, mask, len(rows), len(rows[0])
}

func TestLabel(t *testing.T) {
	cases := []struct {
		name string
		rows []string // digits are the numbers expected
		want int
	}{
		{"nothing", []string{"...", "..."}, 0},
		{"everything", []string{"111", "111"}, 1},
		{"diagonals join", []string{"1..2", ".1..", "1..3"}, 3},
		{"anti-diagonals join", []string{"..1", ".1.", "1.."}, 1},
		{"no wrap at the sides", []string{"..1", "2..", "..3"}, 3},
		{"U joins at its foot", []string{"1.1.2", "1.1.2", "111.2"}, 2},
		{"W joins twice", []string{"1.1.1", "1.1.1", ".1.1."}, 1},
		{"spiral", []string{"11111", "....1", "111.1", "1...1", "11111"}, 1},
		{"one column", []string{"1", ".", "2"}, 2},
		{"comb from the right", []string{"....1", "..1.1", "1.1.1", "11111"}, 1},
		{"late first pixels", []string{"...1.2", "3.1..2", "3.1..2"}, 3},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, mask, H, W := picture(c.rows...)
			labels, got := label(mask, H, W)
			if got != c.want {
				t.Errorf("got %d components, want %d", got, c.want)
			}
			for i, want := range mask {
				if labels[i] != int32(want) {
					t.Fatalf("got %v, want %v", labels, mask)
				}
			}
		})
	}
}

// TestLabelAgainstFlood compares with a flood fill from each first pixel, on noise near the density at which
// components percolate, where they are most intricate.
func TestLabelAgainstFlood(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	for range 200 {
		H, W := 1+rng.IntN(30), 1+rng.IntN(30)
		mask := make([]uint8, H*W)
		for i := range mask {
			if rng.Float64() < 0.42 {
				mask[i] = 1
			}
		}
		want, count := make([]int32, H*W), 0
		var flood func(y, x int)
		flood = func(y, x int) {
			if y < 0 || y >= H || x < 0 || x >= W || mask[y*W+x] == 0 || want[y*W+x] != 0 {
				return
			}
			want[y*W+x] = int32(count)
			for dy := -1; dy <= 1; dy++ {
				for dx := -1; dx <= 1; dx++ {
					flood(y+dy, x+dx)
				}
			}
		}
		for i := range mask {
			if mask[i] != 0 && want[i] == 0 {
				count++
				flood(i/W, i%W)
			}
		}
		got, n := label(mask, H, W)
		if n != count || !slices.Equal(got, want) {
			t.Fatalf("%d x %d: got %d components %v, want %d %v of %v", H, W, n, got, count, want, mask)
		}
	}
}

func TestRegions(t *testing.T) {
	m, _, H, W := picture(
		"5....",
		".9..2",
		"....3",
	)
	cases := []struct {
		name         string
		threshold    float64
		origW, origH int
		want         []Region
	}{
		{"same size", 1, 5, 3, []Region{{0, 0, 2, 2, 2, 9, 7}, {4, 1, 1, 2, 2, 3, 2.5}}},
		{"threshold is exclusive", 5, 5, 3, []Region{{1, 1, 1, 1, 1, 9, 9}}},
		{"above all", 9, 5, 3, []Region{}},
		{"twice as large", 1, 10, 6, []Region{{0, 0, 4, 4, 8, 9, 7}, {8, 2, 2, 4, 8, 3, 2.5}}},
		{"outward", 1, 7, 4, []Region{{0, 0, 3, 3, 4, 9, 7}, {5, 1, 2, 3, 4, 3, 2.5}}},
		{"smaller, area at least 1", 1, 2, 1, []Region{{0, 0, 1, 1, 1, 9, 7}, {1, 0, 1, 1, 1, 3, 2.5}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := Outline{Above: c.threshold, Low: c.threshold}.Regions(m, H, W, c.origW, c.origH)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
	for _, c := range []struct {
		name string
		m    []float32
		H, W int
		want error
	}{
		{"NaN", []float32{float32(math.NaN())}, 1, 1, ErrNaN},
		{"infinity", []float32{float32(math.Inf(1))}, 1, 1, ErrNaN},
		{"wrong length", []float32{9}, 2, 2, ErrLength},
		{"negative", []float32{9}, -1, -1, ErrLength},
		{"empty", nil, 0, 0, nil},
	} {
		if _, _, err := (Outline{}).Regions(c.m, c.H, c.W, 8, 8); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func ExampleOutline_Regions() {
	anomaly := []float32{
		0, 0, 0, 0,
		0, 3, 0, 0,
		0, 2, 0, 1,
	}
	regions, _, err := Outline{Above: 2, Low: 1.5}.Regions(anomaly, 3, 4, 400, 300)
	if err != nil {
		fmt.Println(err)
		return
	}
	data, err := json.Marshal(regions)
	fmt.Println(string(data), err)
	// Output: [{"x":100,"y":100,"width":100,"height":200,"area":20000,"peak":3,"mean":2.5}] <nil>
}

func BenchmarkLabel(b *testing.B) {
	const side = 256
	rng := rand.New(rand.NewPCG(1, 1))
	_, mask := randomImage(rng, side, side)
	for range b.N {
		label(mask, side, side)
	}
}
