package metric

import (
	"cmp"
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

// blurred is a map of S x S of hills: discs whose edge a Gaussian of a deviation has blurred, each of a height over the ground.
func blurred(S int, deviation, ground float64, discs ...[4]float64) []float32 {
	sharp := make([]float64, S*S)
	for _, d := range discs {
		for y := range S {
			for x := range S {
				if math.Hypot(float64(x)-d[0], float64(y)-d[1]) <= d[2] {
					sharp[y*S+x] = max(sharp[y*S+x], d[3])
				}
			}
		}
	}
	reach := int(4 * deviation)
	kernel := make([]float64, 2*reach+1)
	sum := 0.0
	for i := range kernel {
		kernel[i] = math.Exp(-float64((i-reach)*(i-reach)) / (2 * deviation * deviation))
		sum += kernel[i]
	}
	pass := func(from []float64, step func(i, k int) (int, bool)) []float64 {
		to := make([]float64, len(from))
		for i := range to {
			for k, w := range kernel {
				if j, inside := step(i, k-reach); inside {
					to[i] += w / sum * from[j]
				}
			}
		}
		return to
	}
	wide := pass(sharp, func(i, k int) (int, bool) { return i + k, i%S+k >= 0 && i%S+k < S })
	both := pass(wide, func(i, k int) (int, bool) { return i + k*S, i/S+k >= 0 && i/S+k < S })
	m := make([]float32, S*S)
	for i, v := range both {
		m[i] = float32(ground + v)
	}
	return m
}

// Whatever their height, defects are outlined about as large as they are, where positions of a network answer to what is in their
// reach and a Gaussian blurs that; at the fixed level Low they are not.
func TestOutlineFits(t *testing.T) {
	const S, reach, deviation, ground, low = 128, 8, 4, 1, 1.2
	blur := math.Hypot(reach, deviation*math.Sqrt(2*math.Log(2)))
	for _, c := range []struct{ radius, height float64 }{{3, 20}, {3, 100}, {6, 10}, {10, 4}, {10, 40}, {20, 3}, {20, 30}, {30, 3}} {
		m := blurred(S, deviation, ground, [4]float64{64, 64, c.radius + reach, c.height})
		fit := Outline{Above: 1.3, Low: low, Share: 0.5, Blur: blur}
		regions, levels, err := fit.Regions(m, S, S, S, S)
		if err != nil || len(regions) != 1 {
			t.Fatalf("radius %v, height %v: got %+v, %v, want one region", c.radius, c.height, regions, err)
		}
		flat, _, err := Outline{Above: low, Low: low}.Regions(m, S, S, S, S)
		if err != nil {
			t.Fatal(err)
		}
		area := math.Pi * c.radius * c.radius
		if ratio := float64(regions[0].Area) / area; ratio < 0.5 || ratio > 2 || regions[0].Area >= flat[0].Area {
			t.Errorf("radius %v, height %v: got an area of %.2f of the true one, at a fixed level of %.2f", c.radius, c.height, ratio,
				float64(flat[0].Area)/area)
		}
		for i, v := range m {
			if float64(v) <= levels[i] != math.IsInf(levels[i], 1) {
				t.Fatalf("pixel %d: %v at a level of %v", i, v, levels[i])
			}
		}
	}
}

// Two defects are two regions, the weaker one with a level of its own, be it apart or on the flank of the other; a ripple on the
// flank is no region.
func TestOutlineOfSeveral(t *testing.T) {
	const S, deviation, ground = 128, 4, 1
	o := Outline{Above: 1.5, Low: 1.2, Share: 0.5, Blur: 4.7}
	for _, c := range []struct {
		name  string
		discs [][4]float64
		want  int
	}{
		{"apart", [][4]float64{{30, 64, 8, 20}, {100, 64, 8, 4}}, 2},
		{"a second one that is half as high", [][4]float64{{40, 64, 8, 10}, {76, 64, 8, 6}}, 2},
		{"too low to be seen", [][4]float64{{30, 64, 8, 20}, {100, 64, 8, 0.4}}, 1},
		{"of equal height and near", [][4]float64{{50, 64, 8, 10}, {64, 64, 8, 10}}, 1},
	} {
		got, _, err := o.Regions(blurred(S, deviation, ground, c.discs...), S, S, S, S)
		if err != nil || len(got) != c.want {
			t.Errorf("%s: got %+v, %v, want %d regions", c.name, got, err, c.want)
		}
	}
}

// gaussians is a map of S x S of the sum of hills: column, row and height of each peak.
func gaussians(S int, deviation float64, peaks ...[3]float64) []float32 {
	m := make([]float32, S*S)
	for i := range m {
		sum := 0.0
		for _, p := range peaks {
			sum += p[2] * math.Exp(-(math.Pow(float64(i%S)-p[0], 2)+math.Pow(float64(i/S)-p[1], 2))/(2*deviation*deviation))
		}
		m[i] = float32(sum)
	}
	return m
}

// Each peak that rises enough is in a region, also where the blur that is taken off a hill of several leaves its higher ones
// alone.
func TestOutlineOfPeaks(t *testing.T) {
	const S, deviation = 128, 8
	o := Outline{Above: 2, Low: 1, Share: 0.5, Blur: 9.3}
	for _, c := range []struct {
		name  string
		peaks [][3]float64
		want  []bool // the peak is outlined
	}{
		{"one", [][3]float64{{40, 64, 10}}, []bool{true}},
		{"a second one nearby", [][3]float64{{40, 64, 10}, {64, 64, 8}}, []bool{true, true}},
		{"a third one", [][3]float64{{30, 64, 10}, {54, 64, 8}, {78, 64, 6}}, []bool{true, true, true}},
		{"a second one of half the height", [][3]float64{{40, 64, 10}, {68, 64, 5}}, []bool{true, true}},
		{"a second one that is too low", [][3]float64{{40, 64, 10}, {76, 64, 1.5}}, []bool{true, false}},
		{"a ripple", [][3]float64{{40, 64, 10}, {60, 64, 3}}, []bool{true, false}},
	} {
		regions, levels, err := o.Regions(gaussians(S, deviation, c.peaks...), S, S, S, S)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range c.peaks {
			if got := levels[int(p[1])*S+int(p[0])]; math.IsInf(got, 1) == c.want[i] {
				t.Errorf("%s: got a level of %v at the peak %v, and %+v, want it outlined: %v", c.name, got, p, regions, c.want[i])
			}
		}
	}
}

func TestOutlineChoice(t *testing.T) {
	m, _, H, W := picture(
		"92..5..",
		"92..5..",
		"22.....",
		"......7",
	)
	for _, c := range []struct {
		name string
		o    Outline
		want []float32 // peaks
		area int       // of the first
	}{
		{"all", Outline{Above: 4, Low: 4}, []float32{9, 7, 5}, 2},
		{"hysteresis", Outline{Above: 4, Low: 1}, []float32{9, 7, 5}, 6},
		{"low above the threshold is that", Outline{Above: 4, Low: 8}, []float32{9, 7, 5}, 2},
		{"area", Outline{Above: 4, Low: 4, MinArea: 2}, []float32{9, 5}, 2},
		{"length", Outline{Above: 4, Low: 1, MinLength: 3}, []float32{9}, 6},
		{"none", Outline{Above: math.Inf(1), Low: 1}, nil, 0},
	} {
		got, levels, err := c.o.Regions(m, H, W, W, H)
		if err != nil {
			t.Fatal(err)
		}
		var peaks []float32
		for _, r := range got {
			peaks = append(peaks, r.Peak)
		}
		if !slices.Equal(peaks, c.want) || len(got) > 0 && got[0].Area != c.area {
			t.Errorf("%s: got %+v, want peaks %v and an area of %d", c.name, got, c.want, c.area)
		}
		pixels, areas := 0, 0
		for _, level := range levels {
			if !math.IsInf(level, 1) {
				pixels++
			}
		}
		for _, r := range got {
			areas += r.Area
		}
		if pixels != areas {
			t.Errorf("%s: got levels of %d pixels and areas of %d, want as many", c.name, pixels, areas)
		}
	}
}

// Whatever a map holds, levels and regions agree, no region is below its bounds, and a higher threshold outlines no more peaks.
func FuzzOutline(f *testing.F) {
	f.Add([]byte{0, 10, 200, 10, 0, 90, 255, 90, 0}, uint8(3), uint8(100), uint8(20), uint8(2), false)
	f.Add([]byte{255, 255, 255, 255}, uint8(2), uint8(0), uint8(0), uint8(9), true)
	f.Add([]byte{1, 9, 1, 7, 1, 9, 1}, uint8(7), uint8(5), uint8(1), uint8(0), true)
	f.Fuzz(func(t *testing.T, pixels []byte, width, above, low, blur uint8, flat bool) {
		W := int(width)
		if W == 0 || len(pixels) > 4096 {
			return
		}
		H := len(pixels) / W
		m := make([]float32, H*W)
		for i := range m {
			m[i] = float32(pixels[i])
		}
		o := Outline{Above: float64(above), Low: float64(low), Share: 0.5, Blur: float64(blur)}
		if flat {
			o.Share, o.Blur = 0, 0
		}
		regions, levels, err := o.Regions(m, H, W, W, H)
		if err != nil {
			t.Fatal(err)
		}
		areas := 0
		for _, r := range regions {
			areas += r.Area
			if float64(r.Peak) <= o.Above || r.Mean > r.Peak || r.Area > r.Width*r.Height {
				t.Fatalf("%+v: got %+v", o, r)
			}
		}
		for i, level := range levels {
			if math.IsInf(level, 1) {
				continue
			}
			areas--
			if float64(m[i]) <= level || level < min(o.Low, o.Above) {
				t.Fatalf("%+v: pixel %d of %v is outlined at a level of %v", o, i, m[i], level)
			}
		}
		if areas != 0 {
			t.Fatalf("%+v: regions have %d pixels more than levels", o, areas)
		}
		if len(m) > 0 && float64(slices.Max(m)) > o.Above != (len(regions) > 0) {
			t.Fatalf("%+v: got %d regions of a map that reaches %v", o, len(regions), slices.Max(m))
		}
	})
}

func TestSortFalling(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	for _, n := range []int{0, 1, 100, 511, 512, 513, 20000} {
		m := make([]float32, n)
		for i := range m {
			switch rng.IntN(4) {
			case 0:
				m[i] = float32(rng.IntN(5) - 2) // equal ones, zeros among them
			case 1:
				m[i] = float32(math.Copysign(0, -1))
			default:
				m[i] = float32(rng.NormFloat64() * math.Exp(10*rng.NormFloat64()))
			}
		}
		var got []int32
		for i := range m {
			got = append(got, int32(i))
		}
		want := slices.Clone(got)
		sortFalling(got, m)
		slices.SortStableFunc(want, func(a, b int32) int { return cmp.Compare(m[b], m[a]) })
		if !slices.Equal(got, want) {
			t.Errorf("%d values: got another order than a stable sort's", n)
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

// Outlines of a map that is anomalous everywhere, with many hills, which takes longest.
func BenchmarkOutline(b *testing.B) {
	const side = 256
	m := make([]float32, side*side)
	for i := range m {
		x, y := float64(i%side), float64(i/side)
		m[i] = float32(3 + math.Sin(x/5)*math.Cos(y/7) + 0.5*math.Sin(x*y/900))
	}
	o := Outline{Above: 0.5, Low: 0.4, Share: 0.5, Blur: 12}
	for b.Loop() {
		if _, _, err := o.Regions(m, side, side, 1024, 1024); err != nil {
			b.Fatal(err)
		}
	}
}
