package metric

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Region is a connected part of an anomaly map that is outlined, in pixels of the original picture.
type Region struct {
	X      int     `json:"x"` // left edge of the bounding box
	Y      int     `json:"y"` // its upper edge
	Width  int     `json:"width"`
	Height int     `json:"height"`
	Area   int     `json:"area"` // of the region itself, at least 1
	Peak   float32 `json:"peak"` // highest value of the map inside
	Mean   float32 `json:"mean"` // of the map's values inside
}

// Outline says what of an anomaly map is outlined. Its zero is everything above 0.
//
// A map is blurred: a hill of it is wider than the defect below, and the higher it is, the wider it is at a fixed level. So a
// hill is cut at a share of its own height, and what the blur has added to its radius is taken off again. Without Share and
// Blur, regions are the connected parts above Low whose peak is above Above.
type Outline struct {
	Above float64 // a region's peak is above it; +Inf: there are none
	Low   float64 // the lowest level that a region reaches down to, at most Above
	// Share of a hill's height, from the ground to its peak, at which it is cut, where that is above Low. The ground is what a
	// tenth of the map's positive values are below, or Low where that is lower. 0: all are cut at Low.
	Share float64
	// Blur is the radius, in pixels of the map, that a defect of one pixel has at that share of its hill's height. An outline
	// has the area of a disc whose radius is smaller by it than that of what is above the cut, but a third of it at least.
	Blur float64

	MinArea   int // smaller regions are left out, pixels of the picture
	MinLength int // so are those whose box's longer side is shorter
}

const (
	groundShare  = 0.1     // of a map's positive values are below the ground that its hills stand on
	groundSample = 4096    // pixels of a map that tell the ground, at least where it has so many
	leastShare   = 1.0 / 3 // of its radius that a region keeps
	rise         = 1.0 / 8 // of its height that a hill has to rise above the saddle to a higher one
)

// Regions returns the regions of the row-major H x W anomaly map m, 8-connected, highest peak first, then from top to bottom;
// and the level that each pixel of a region is above, +Inf for those outside. Bounding boxes are scaled outward to the picture of
// origW x origH pixels, areas scaled and rounded. The list is empty, not nil, where nothing is outlined. A map of other than H*W values is ErrLength, one with a NaN or an infinity ErrNaN.
func (o Outline) Regions(m []float32, H, W, origW, origH int) ([]Region, []float64, error) {
	if H < 0 || W < 0 || len(m) != H*W {
		return nil, nil, fmt.Errorf("%w: a map of %d pixels, to be %d x %d", ErrLength, len(m), H, W)
	}
	if err := checkFinite(m, W); err != nil {
		return nil, nil, err
	}
	outside := math.Inf(1)
	if len(m) == 0 || float64(slices.Max(m)) <= o.Above {
		return []Region{}, slices.Repeat([]float64{outside}, len(m)), nil
	}
	o.Low = min(o.Low, o.Above)
	ground := o.ground(m)
	f := newFlood(m, H, W, o.Low)
	hills, summits := f.hills(&o, ground)
	for _, h := range hills {
		f.mark(&h, &o, ground)
	}
	for _, h := range summits {
		if f.levels[h.at] == outside {
			f.mark(&h, &o, ground)
		}
	}
	levels := make([]float64, len(m))
	for y := range H {
		copy(levels[y*W:(y+1)*W], f.levels[f.pixel(0, y):])
	}
	mask := make([]uint8, len(m))
	for i, level := range levels {
		if level < outside {
			mask[i] = 1
		}
	}
	labels, count := label(mask, H, W)
	regions := measure(labels, count, m, H, W, origW, origH)
	keep := func(r Region) bool {
		return float64(r.Peak) > o.Above && r.Area >= o.MinArea && max(r.Width, r.Height) >= o.MinLength
	}
	for i, l := range labels {
		if l > 0 && !keep(regions[l-1]) {
			levels[i] = outside
		}
	}
	regions = slices.DeleteFunc(regions, func(r Region) bool { return !keep(r) })
	slices.SortFunc(regions, func(a, b Region) int {
		return cmp.Or(cmp.Compare(b.Peak, a.Peak), cmp.Compare(a.Y, b.Y), cmp.Compare(a.X, b.X))
	})
	return regions, levels, nil
}

// ground is what the hills of a map stand on. Zeros are no measured values: what a mask leaves out of the map has them.
func (o *Outline) ground(m []float32) float64 {
	if o.Share == 0 {
		return o.Low
	}
	step := len(m)/groundSample | 1 // odd, to meet the networks' positions, 16 pixels wide, everywhere
	values := make([]float32, 0, len(m)/step+1)
	for i := 0; i < len(m); i += step {
		if m[i] > 0 {
			values = append(values, m[i])
		}
	}
	if len(values) == 0 {
		return o.Low
	}
	slices.Sort(values)
	return min(float64(values[int(groundShare*float64(len(values)-1))]), o.Low)
}

// hill is a part of a map around a peak, down to where it ends.
type hill struct {
	at   int32 // the peak's pixel of the flood
	peak float64
	cut  float64 // its pixels are above it
}

// flood is a map whose hills are found and marked. A border one pixel wide is around it, which is above nothing, so that every
// pixel has eight neighbours.
type flood struct {
	m      []float32
	stride int       // from a pixel to the one below
	order  []int32   // pixels above Outline.Low, the highest first
	levels []float64 // what Regions returns
	seen   []int32   // the number of the last hill that each pixel was found in
	marked int32     // hills
	inside []int32   // the pixels of the last one
	seeds  []int32   // room for above
}

func newFlood(m []float32, H, W int, low float64) *flood {
	f := &flood{stride: W + 2}
	n := f.stride * (H + 2)
	f.m, f.levels, f.seen = make([]float32, n), make([]float64, n), make([]int32, n)
	for i := range f.m {
		f.m[i], f.levels[i] = float32(math.Inf(-1)), math.Inf(1)
	}
	f.order = make([]int32, 0, len(m))
	for y := range H {
		first := f.pixel(0, y)
		for x, v := range m[y*W : (y+1)*W] {
			f.m[first+x] = v
			if float64(v) > low {
				f.order = append(f.order, int32(first+x))
			}
		}
	}
	sortFalling(f.order, f.m)
	return f
}

// pixel returns the number of the map's pixel at x, y.
func (f *flood) pixel(x, y int) int { return (y+1)*f.stride + x + 1 }

// hills floods a map from its peaks down. A hill ends at its share of its height, and so does one that meets a higher one
// before. If the higher one has ended by then and the other rises enough above where they meet, both are one hill from there on,
// down to where the other ends: a defect of many peaks is one, and a ripple on the flank of a peak is none.
//
// Of a hill of several peaks the blur may leave the higher ones alone. So summits are the lower ones that rise enough, each down
// to where it meets a higher one, the highest first.
func (f *flood) hills(o *Outline, ground float64) (found, summits []hill) {
	m := f.m
	// A union-find forest over the peaks' trees of flooded pixels; the root of a set is its highest peak's. A tree that has ended,
	// at -Inf, gives no hill.
	type tree struct {
		parent int32
		peak   int32 // its pixel
		lead   int32 // the peak that says where the tree ends
		end    float64
	}
	trees := []tree{{}} // the first one is of the pixels that are dry
	of := make([]int32, len(m))
	cut := func(peak int32) float64 { return max(o.Low, ground+o.Share*(float64(m[peak])-ground)) }
	end := func(t *tree) {
		if peak := float64(m[t.lead]); peak > o.Above {
			found = append(found, hill{t.lead, peak, t.end})
		}
		t.end = math.Inf(-1)
	}
	around := [...]int{-f.stride - 1, -f.stride, -f.stride + 1, -1, 1, f.stride - 1, f.stride, f.stride + 1}
	for _, i := range f.order {
		v := float64(m[i])
		root, last := int32(0), int32(0) // the highest tree that i touches, and the tree of the neighbour looked at last
		for _, step := range around {
			other := of[int(i)+step]
			if other == 0 || other == last {
				continue
			}
			last = other
			for trees[other].parent != other {
				trees[other].parent = trees[trees[other].parent].parent
				other = trees[other].parent
			}
			if other == root {
				continue
			}
			if t := &trees[other]; v <= t.end {
				end(t)
			}
			if root == 0 {
				root = other
				continue
			}
			lower := other
			if a, b := trees[other].peak, trees[root].peak; m[a] > m[b] || m[a] == m[b] && a < b {
				lower, root = root, other
			}
			low, high := &trees[lower], &trees[root]
			if peak := float64(m[low.lead]); !math.IsInf(low.end, -1) && peak > o.Above && peak-v >= rise*(peak-ground) {
				if low.lead == low.peak {
					summits = append(summits, hill{low.peak, peak, v})
				}
				if math.IsInf(high.end, -1) {
					high.lead, high.end = low.lead, low.end
				}
			}
			low.parent = root
		}
		if root == 0 {
			root = int32(len(trees))
			trees = append(trees, tree{parent: root, peak: i, lead: i, end: cut(i)})
		}
		of[i] = root
	}
	for n := 1; n < len(trees); n++ {
		if t := &trees[n]; t.parent == int32(n) && !math.IsInf(t.end, -1) {
			end(t)
		}
	}
	slices.SortFunc(summits, func(a, b hill) int { return cmp.Or(cmp.Compare(b.peak, a.peak), cmp.Compare(a.at, b.at)) })
	return found, summits
}

// mark sets the level of the pixels of a hill that are in its outline, where they have no lower one.
func (f *flood) mark(h *hill, o *Outline, ground float64) {
	f.above(h)
	level := h.cut
	radius := math.Sqrt(float64(len(f.inside)) / math.Pi)
	left := max(radius-h.blur(ground, o), leastShare*radius)
	if n := max(1, int(math.Round(math.Pi*left*left))); n < len(f.inside) {
		level = f.next(n, level)
	}
	for _, i := range f.inside {
		if float64(f.m[i]) > level {
			f.levels[i] = min(f.levels[i], level)
		}
	}
}

// above finds the pixels connected to a hill's peak that are above its cut, a run of a row at a time.
func (f *flood) above(h *hill) {
	cut := float32(h.cut) // the highest one that is not above h.cut, so that no value is between them
	if float64(cut) > h.cut {
		cut = math.Nextafter32(cut, float32(math.Inf(-1)))
	}
	f.marked++
	inside, seeds := slices.Grow(f.inside[:0], len(f.order)), append(f.seeds[:0], h.at)
	for len(seeds) > 0 {
		at := seeds[len(seeds)-1]
		seeds = seeds[:len(seeds)-1]
		if f.seen[at] == f.marked {
			continue
		}
		first, last := at, at
		for f.m[first-1] > cut {
			first--
		}
		for f.m[last+1] > cut {
			last++
		}
		for i := first; i <= last; i++ {
			f.seen[i] = f.marked
			inside = append(inside, i)
		}
		for _, step := range [...]int{-f.stride, f.stride} {
			run := false // of which the first pixel is a seed
			for i := int(first) - 1 + step; i <= int(last)+1+step; i++ {
				in := f.m[i] > cut
				if in && !run && f.seen[i] != f.marked {
					seeds = append(seeds, int32(i))
				}
				run = in
			}
		}
	}
	f.inside, f.seeds = inside, seeds
}

// next returns the value that comes after the n highest ones of the pixels inside the hill marked last, or the first one after
// that which is below the highest: a level has to be below the peak. Where there is none it returns otherwise.
func (f *flood) next(n int, otherwise float64) float64 {
	from, all := f.inside, true
	if len(from) >= len(f.order)/16 {
		from, all = f.order, false // in order, which is less to do than to sort
	} else {
		sortFalling(from, f.m)
	}
	var peak float32
	found := 0
	for _, i := range from {
		if !all && f.seen[i] != f.marked {
			continue
		}
		if found == 0 {
			peak = f.m[i]
		}
		if found >= n && f.m[i] != peak {
			return float64(f.m[i])
		}
		found++
	}
	return otherwise
}

// sortFalling sorts pixels of a map by its values, the highest first. Equal ones stay in their order, or come by their numbers
// where there are few.
func sortFalling(pixels []int32, m []float32) {
	const few, bits = 512, 11 // of many, a radix sort by digits of so many bits is several times as fast
	if len(pixels) < few {
		slices.SortFunc(pixels, func(a, b int32) int { return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b)) })
		return
	}
	type entry struct {
		key   uint32 // falls as the value rises
		pixel int32
	}
	const digits = (32 + bits - 1) / bits
	var counts [digits][1 << bits]int32
	from, to := make([]entry, len(pixels)), make([]entry, len(pixels))
	for n, i := range pixels {
		key := math.Float32bits(m[i] + 0) // -0 is 0
		if key>>31 == 0 {
			key ^= 1<<31 - 1
		}
		from[n] = entry{key, i}
		for d := range digits {
			counts[d][key>>(d*bits)&(1<<bits-1)]++
		}
	}
	for d := range digits {
		next := int32(0) // entry's place of each digit
		for v, n := range counts[d] {
			counts[d][v] = next
			next += n
		}
		for _, e := range from {
			place := &counts[d][e.key>>(d*bits)&(1<<bits-1)]
			to[*place] = e
			*place++
		}
		from, to = to, from
	}
	for n, e := range from {
		pixels[n] = e.pixel
	}
}

// blur is the radius of a single pixel's hill, a Gaussian one, where this hill was cut.
func (h *hill) blur(ground float64, o *Outline) float64 {
	share := (h.cut - ground) / (h.peak - ground)
	if o.Blur == 0 || !(share > 0 && share < 1) {
		return 0
	}
	return o.Blur * math.Sqrt(math.Log(share)/math.Log(o.Share))
}

// measure returns what is to be said of each label, in their order.
func measure(labels []int32, count int, m []float32, H, W, origW, origH int) []Region {
	// In the map's pixels first: X and Y inclusive, Width and Height the exclusive ends.
	regions, sums := make([]Region, count), make([]float64, count)
	for i := range regions {
		regions[i] = Region{X: W, Y: H, Peak: float32(math.Inf(-1))}
	}
	for i, l := range labels {
		if l == 0 {
			continue
		}
		r := &regions[l-1]
		x, y := i%W, i/W
		r.X, r.Width = min(r.X, x), max(r.Width, x+1)
		r.Y, r.Height = min(r.Y, y), max(r.Height, y+1)
		r.Area++
		r.Peak = max(r.Peak, m[i])
		sums[l-1] += float64(m[i])
	}
	for i := range regions {
		r := &regions[i]
		r.Mean = float32(sums[i] / float64(r.Area))
		right, bottom := ceilDiv(r.Width*origW, W), ceilDiv(r.Height*origH, H)
		r.X, r.Y = r.X*origW/W, r.Y*origH/H
		r.Width, r.Height = right-r.X, bottom-r.Y
		scale := float64(origW) * float64(origH) / (float64(W) * float64(H))
		r.Area = max(1, int(math.Round(float64(r.Area)*scale)))
	}
	return regions
}

// checkFinite returns ErrNaN for the first value of a map W wide that is not finite.
func checkFinite(m []float32, W int) error {
	for i, v := range m {
		if v-v != 0 { // NaN and both infinities, less themselves, are NaN
			return fmt.Errorf("%w: row %d, column %d is %g", ErrNaN, i/W, i%W, v)
		}
	}
	return nil
}

func ceilDiv(a, b int) int {
	return (a + b - 1) / b
}

// label numbers the 8-connected components of mask's non-zero pixels from 1, in the order of their first pixels, row by
// row, and returns each pixel's number (0 outside) and how many there are. len(mask) must be H*W.
func label(mask []uint8, H, W int) ([]int32, int) {
	labels := make([]int32, len(mask))
	parent := []int32{0} // a union-find forest over provisional labels, whose roots are the smallest of their sets
	find := func(l int32) int32 {
		for parent[l] != l {
			parent[l] = parent[parent[l]]
			l = parent[l]
		}
		return l
	}
	for y := range H {
		for x := range W {
			i := y*W + x
			if mask[i] == 0 {
				continue
			}
			// Of the four neighbours already seen, unite all that are labelled.
			var l, last int32
			join := func(neighbour int32) {
				switch {
				case neighbour == 0 || neighbour == last:
					return
				case l == 0:
					l = find(neighbour)
				default:
					other := find(neighbour)
					l, other = min(l, other), max(l, other)
					parent[other] = l
				}
				last = neighbour
			}
			if x > 0 {
				join(labels[i-1])
			}
			if y > 0 {
				for j := i - W - min(x, 1); j <= i-W+min(W-1-x, 1); j++ {
					join(labels[j])
				}
			}
			if l == 0 {
				l = int32(len(parent))
				parent = append(parent, l)
			}
			labels[i] = l
		}
	}
	// A root is the smallest of its set, so it has its final number before any label that refers to it.
	count := int32(0)
	for l := int32(1); int(l) < len(parent); l++ {
		if parent[l] == l {
			count++
			parent[l] = count
		} else {
			parent[l] = parent[parent[l]]
		}
	}
	for i, l := range labels {
		labels[i] = parent[l]
	}
	return labels, int(count)
}
