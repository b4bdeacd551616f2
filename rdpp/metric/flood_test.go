package metric

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// floodedByPixel finds what hills does, one pixel after the other from the highest down, each joining the trees around it.
func floodedByPixel(f *flood, o *Outline, ground float64) (found, summits []hill) {
	type tree struct {
		parent, peak, lead int32
		end                float64
	}
	var order []int32
	for i, height := range f.height {
		if height != 0 {
			order = append(order, int32(i))
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		if f.height[a] > f.height[b] {
			return -1
		}
		return 1
	})
	of := map[int32]int32{}
	var trees []tree
	root := func(n int32) int32 {
		for trees[n].parent != n {
			n = trees[n].parent
		}
		return n
	}
	end := func(t *tree) {
		if peak := float64(f.m[t.lead]); peak > o.Above {
			found = append(found, hill{t.lead, peak, t.end})
		}
		t.end = math.Inf(-1)
	}
	for _, i := range order {
		v, high := float64(f.m[i]), int32(-1)
		for _, step := range []int{-f.stride - 1, -f.stride, -f.stride + 1, -1, 1, f.stride - 1, f.stride, f.stride + 1} {
			n, flooded := of[i+int32(step)]
			if !flooded {
				continue
			}
			other := root(n)
			if other == high {
				continue
			}
			if t := &trees[other]; v <= t.end {
				end(t)
			}
			if high < 0 {
				high = other
				continue
			}
			low := other
			if f.height[trees[other].peak] > f.height[trees[high].peak] {
				low, high = high, other
			}
			l, h := &trees[low], &trees[high]
			if peak := float64(f.m[l.lead]); !math.IsInf(l.end, -1) && peak > o.Above && peak-v >= rise*(peak-ground) {
				if l.lead == l.peak {
					summits = append(summits, hill{l.peak, peak, v})
				}
				if math.IsInf(h.end, -1) {
					h.lead, h.end = l.lead, l.end
				}
			}
			l.parent = high
		}
		if high < 0 {
			high = int32(len(trees))
			trees = append(trees, tree{high, i, i, max(o.Low, ground+o.Share*(float64(f.m[i])-ground))})
		}
		of[i] = high
	}
	for n := range trees {
		if t := &trees[n]; t.parent == int32(n) && !math.IsInf(t.end, -1) {
			end(t)
		}
	}
	return found, summits
}

// Basins that run together at their passes are what a flood pixel by pixel gives, on smooth maps, noise, plateaus and ties.
func TestHills(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 9))
	sorted := func(hills []hill) string {
		hills = slices.Clone(hills)
		slices.SortFunc(hills, func(a, b hill) int { return int(a.at - b.at) })
		return fmt.Sprint(hills)
	}
	several := 0
	for round := range 1500 {
		H, W := 1+rng.IntN(40), 1+rng.IntN(40)
		m := make([]float32, H*W)
		for i := range m {
			x, y := float64(i%W), float64(i/W)
			switch round % 4 {
			case 0:
				m[i] = float32(rng.IntN(4))
			case 1:
				m[i] = float32(rng.NormFloat64())
			case 2:
				m[i] = float32(2 + math.Sin(x/4)*math.Cos(y/5))
			default:
				m[i] = float32(math.Round(8*(2+math.Sin(x/4)*math.Cos(y/5))) / 8)
			}
		}
		o := Outline{Above: rng.Float64() * 3, Share: []float64{0, 0.3, 0.5, 0.9}[rng.IntN(4)]}
		o.Low = o.Above - 2*rng.Float64()
		ground := o.ground(m)
		var f flood
		f.fill(m, H, W, o.Low)
		wantFound, wantSummits := floodedByPixel(&f, &o, ground)
		found, summits := f.hills(&o, ground)
		if sorted(found) != sorted(wantFound) || sorted(summits) != sorted(wantSummits) {
			t.Fatalf("round %d, %d x %d, %+v: got hills %v and summits %v, want %v and %v", round, H, W, o, found, summits, wantFound, wantSummits)
		}
		if len(found) > 1 && len(summits) > 0 {
			several++
		}
	}
	if several < 100 {
		t.Errorf("got %d maps of several hills with summits, too few to tell", several)
	}
}

// TestMeetings: the highest meeting of each pair is kept, over as many pairs as make the table grow, and a small map's are found
// again in the table that a large one has left.
func TestMeetings(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	var met meetings
	for round, basins := range []int32{5, 300, 3000, 7, 100_000, 40} {
		met.reset()
		want := map[[2]int32]uint64{}
		for range 8 * basins {
			a := 1 + rng.Int32N(basins)
			b := a + 1 + rng.Int32N(3)
			height := rng.Uint64()
			for range 2 { // as it is along a border
				met.meet(b, a, height)
				met.meet(a, b, height/2)
			}
			want[[2]int32{a, b}] = max(want[[2]int32{a, b}], height)
		}
		got := map[[2]int32]uint64{}
		for _, m := range met.table {
			if m.pair != 0 {
				got[[2]int32{int32(m.pair >> 32), int32(m.pair & math.MaxUint32)}] = m.height
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("round %d: got %d pairs, want %d, or other heights", round, len(got), len(want))
		}
		if 2*met.count > len(met.table) {
			t.Errorf("round %d: %d pairs in a table of %d", round, met.count, len(met.table))
		}
	}
}
