package metric

import (
	"cmp"
	"math"
	"slices"
	"sync"
)

// hill is a part of a map around a peak, down to where it ends.
type hill struct {
	at   int32 // the peak's pixel of the flood
	peak float64
	cut  float64 // its pixels are above it
}

// blur is the radius of a single pixel's hill, a Gaussian one, where this hill was cut.
func (h *hill) blur(ground float64, o *Outline) float64 {
	share := (h.cut - ground) / (h.peak - ground)
	if o.Blur == 0 || !(share > 0 && share < 1) {
		return 0
	}
	return o.Blur * math.Sqrt(math.Log(share)/math.Log(o.Share))
}

// flood is a map whose hills are found and marked. A border one pixel wide is around it, which is above nothing, so that every
// pixel has eight neighbours.
type flood struct {
	m      []float32
	height []uint64 // of pixels above Outline.Low, in the order that they are flooded in, see heightOf; 0: never flooded
	stride int      // from a pixel to the one below

	// What basins finds.
	of       []int32  // the number, from 1, of the peak that is reached from a pixel by always going to the highest neighbour; 0: never flooded
	peaks    []int32  // pixels; the first one is of no peak
	up       []int32  // the highest of a pixel and its neighbours
	high     []uint64 // of a row's pixels, the one above and the one below, the highest
	way      []int32
	pass     []bool // see passes
	meetings meetings

	// What above finds.
	seen   []int32   // the number of the last hill that each pixel was found in
	marked int32     // hills
	inside []stretch // the last one's pixels
	area   int       // their number
	seeds  []int32
	values []float32 // what next chooses among
}

// stretch is pixels of a row, of which last is one.
type stretch struct{ first, last int32 }

// floods are kept: as many bytes as they take cost more to make than to use.
var floods = sync.Pool{New: func() any { return new(flood) }}

// fill makes a flood of a map.
func (f *flood) fill(m []float32, H, W int, low float64) {
	f.stride = W + 2
	n := f.stride * (H + 2)
	f.m, f.height, f.of, f.up = sized(f.m, n), sized(f.height, n), sized(f.of, n), sized(f.up, n)
	f.seen, f.pass, f.high = sized(f.seen, n), sized(f.pass, n), sized(f.high, f.stride)
	clear(f.seen)
	f.marked = 0
	border := func(from, to int) {
		for i := from; i < to; i++ {
			f.m[i], f.height[i], f.of[i] = float32(math.Inf(-1)), 0, 0
		}
	}
	border(0, f.stride+1)
	for y := range H {
		first := f.pixel(0, y)
		copy(f.m[first:], m[y*W:(y+1)*W])
		heights := f.height[first : first+W]
		for x, v := range f.m[first:][:W] {
			heights[x] = 0
			if float64(v) > low {
				heights[x] = heightOf(v, int32(first+x))
			}
		}
		border(first+W, first+W+2)
	}
	border(n-f.stride, n)
}

// sized returns a slice of n elements, the old one's where it has room. What they are is left open.
func sized[T any](old []T, n int) []T { return slices.Grow(old[:0], n)[:n] }

// heightOf orders pixels: the greater its value the higher, and of equal ones the first. No two pixels are of one height.
func heightOf(v float32, pixel int32) uint64 {
	key := math.Float32bits(v + 0) // -0 is 0
	if key>>31 == 1 {
		key = ^key
	} else {
		key |= 1 << 31
	}
	return uint64(key)<<32 | uint64(^uint32(pixel))
}

// pixelAt is the pixel of a height.
func pixelAt(height uint64) int32 { return int32(^uint32(height)) }

// pixel returns the number of the map's pixel at x, y.
func (f *flood) pixel(x, y int) int { return (y+1)*f.stride + x + 1 }

// basins finds the map's peaks, and which of them each pixel belongs to.
func (f *flood) basins() {
	for row := f.stride; row < len(f.m)-f.stride; row += f.stride {
		above, here, below := f.height[row-f.stride:][:f.stride], f.height[row:][:f.stride], f.height[row+f.stride:][:f.stride]
		high, up := f.high[:f.stride], f.up[row:][:f.stride]
		for x := range high {
			high[x] = max(above[x], here[x], below[x])
		}
		for x := 1; x < len(high)-1; x++ {
			up[x] = pixelAt(max(high[x-1], high[x], high[x+1]))
		}
	}
	f.peaks = append(f.peaks[:0], 0)
	clear(f.of)
	of, up := f.of[:len(f.height)], f.up[:len(f.height)]
	for i, height := range f.height {
		if height == 0 {
			continue
		}
		if n := of[up[i]]; n != 0 { // as of most
			of[i] = n
			continue
		}
		at := int32(i)
		way := f.way[:0]
		for of[at] == 0 && up[at] != at {
			way = append(way, at)
			at = up[at]
		}
		n := of[at]
		if n == 0 {
			n = int32(len(f.peaks))
			of[at] = n
			f.peaks = append(f.peaks, at)
		}
		for _, below := range way {
			of[below] = n
		}
		f.way = way
	}
}

// passes are the pixels where two basins meet at the highest, the highest first: each has a higher neighbour in another basin
// than its own. A map that is flooded from its peaks down has basins run together there and nowhere else: below, those two have
// long been one.
func (f *flood) passes() []int32 {
	f.meetings.reset()
	for row := f.stride; row < len(f.m)-f.stride; row += f.stride {
		here, below := f.of[row:][:f.stride], f.of[row+f.stride:][:f.stride]
		for x := 1; x < len(here)-1; x++ {
			basin := here[x]
			right, left, under, corner := here[x+1], below[x-1], below[x], below[x+1]
			if basin == 0 || basin == right && basin == left && basin == under && basin == corner {
				continue
			}
			i := row + x
			for _, other := range [...]int{i + 1, i + f.stride - 1, i + f.stride, i + f.stride + 1} {
				if of := f.of[other]; of != basin && of != 0 {
					f.meetings.meet(basin, of, min(f.height[i], f.height[other]))
				}
			}
		}
	}
	clear(f.pass)
	for _, m := range f.meetings.table {
		if m.pair != 0 {
			f.pass[pixelAt(m.height)] = true
		}
	}
	var found []int32
	for i, pass := range f.pass {
		if pass {
			found = append(found, int32(i))
		}
	}
	sortFalling(found, f.m)
	return found
}

// meeting is of two basins.
type meeting struct {
	pair   uint64 // both numbers, the lower one first; 0: none
	height uint64 // of the highest pixel where they meet
}

// meetings are those of a flood's basins, in a hash table of open addresses that is half empty or more.
type meetings struct {
	table []meeting // as many as a power of 2
	bits  int       // which power
	count int
	last  int // place of the one looked up last
}

func (t *meetings) reset() {
	const bits = 10
	if t.count, t.last = 0, 0; t.bits > bits+4 || t.bits == 0 { // a table that another map has made large costs more to clear
		t.table, t.bits = make([]meeting, 1<<bits), bits
	}
	clear(t.table)
}

// meet says that two basins meet at a pixel.
func (t *meetings) meet(a, b int32, height uint64) {
	pair := uint64(min(a, b))<<32 | uint64(max(a, b))
	if t.table[t.last].pair != pair {
		t.last = t.place(pair)
	}
	m := &t.table[t.last]
	if m.pair == 0 {
		if t.count++; 2*t.count > len(t.table) {
			old := t.table
			t.bits++
			t.table = make([]meeting, 1<<t.bits)
			for _, o := range old {
				if o.pair != 0 {
					t.table[t.place(o.pair)] = o
				}
			}
			t.last = t.place(pair)
			m = &t.table[t.last]
		}
		m.pair = pair
	}
	m.height = max(m.height, height)
}

// place is where a pair is in the table, or has room.
func (t *meetings) place(pair uint64) int {
	at := int(pair * 0x9e3779b97f4a7c15 >> (64 - t.bits)) // the golden ratio's digits spread neighbours
	for t.table[at].pair != 0 && t.table[at].pair != pair {
		at = (at + 1) & (len(t.table) - 1)
	}
	return at
}

// hills floods a map from its peaks down. A hill ends at its share of its height, and so does one that meets a higher one
// before. If the higher one has ended by then and the other rises enough above where they meet, both are one hill from there on,
// down to where the other ends: a defect of many peaks is one, and a ripple on the flank of a peak is none.
//
// Of a hill of several peaks the blur may leave the higher ones alone. So summits are the lower ones that rise enough, each down
// to where it meets a higher one, the highest first.
func (f *flood) hills(o *Outline, ground float64) (found, summits []hill) {
	m := f.m
	f.basins()
	// A union-find forest over the peaks' trees of flooded pixels; the root of a set is its highest peak's. A tree that has ended,
	// at -Inf, gives no hill.
	type tree struct {
		parent int32
		peak   int32 // its pixel
		lead   int32 // the peak that says where the tree ends
		end    float64
	}
	trees := make([]tree, len(f.peaks))
	for n, peak := range f.peaks {
		trees[n] = tree{int32(n), peak, peak, max(o.Low, ground+o.Share*(float64(m[peak])-ground))}
	}
	end := func(t *tree) {
		if peak := float64(m[t.lead]); peak > o.Above {
			found = append(found, hill{t.lead, peak, t.end})
		}
		t.end = math.Inf(-1)
	}
	around := [...]int{-f.stride - 1, -f.stride, -f.stride + 1, -1, 1, f.stride - 1, f.stride, f.stride + 1}
	for _, i := range f.passes() {
		v := float64(m[i])
		root, last := int32(0), int32(0) // the highest tree that i touches, and the basin of the neighbour looked at last
		for _, step := range around {
			at := int(i) + step
			other := f.of[at]
			if other == last || f.height[at] <= f.height[i] { // which is not flooded yet, or never
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
			if f.height[trees[other].peak] > f.height[trees[root].peak] {
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
	}
	for n := 1; n < len(trees); n++ {
		if t := &trees[n]; t.parent == int32(n) && !math.IsInf(t.end, -1) {
			end(t)
		}
	}
	slices.SortFunc(summits, func(a, b hill) int { return cmp.Or(cmp.Compare(b.peak, a.peak), cmp.Compare(a.at, b.at)) })
	return found, summits
}

// mark sets the level of the pixels of a hill that are in its outline, where they have no lower one. levels are those of the map,
// without a border.
func (f *flood) mark(h *hill, o *Outline, ground float64, levels []float64) {
	f.above(h)
	level := h.cut
	radius := math.Sqrt(float64(f.area) / math.Pi)
	left := max(radius-h.blur(ground, o), leastShare*radius)
	if n := max(1, int(math.Round(math.Pi*left*left))); n < f.area {
		level = f.next(n, h)
	}
	W := f.stride - 2
	for _, s := range f.inside {
		y := int(s.first)/f.stride - 1
		to := levels[y*W+int(s.first)-f.pixel(0, y):]
		for x, v := range f.m[s.first : s.last+1] {
			if float64(v) > level {
				to[x] = min(to[x], level)
			}
		}
	}
}

// above finds the pixels connected to a hill's peak that are above its cut, a stretch of a row at a time.
func (f *flood) above(h *hill) {
	cut := float32(h.cut) // the highest one that is not above h.cut, so that no value is between them
	if float64(cut) > h.cut {
		cut = math.Nextafter32(cut, float32(math.Inf(-1)))
	}
	f.marked++
	f.inside, f.area = f.inside[:0], 0
	seeds := append(f.seeds[:0], h.at)
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
		f.inside = append(f.inside, stretch{first, last})
		f.area += int(last-first) + 1
		for i := range f.seen[first : last+1] {
			f.seen[int(first)+i] = f.marked
		}
		for _, step := range [...]int{-f.stride, f.stride} {
			run := false // of which the first pixel is a seed
			from := int(first) - 1 + step
			for i, v := range f.m[from : int(last)+2+step] {
				in := v > cut
				if in && !run && f.seen[from+i] != f.marked {
					seeds = append(seeds, int32(from+i))
				}
				run = in
			}
		}
	}
	f.seeds = seeds
}

// next returns the value that comes after the n highest ones of the pixels inside the hill marked last, or the first one after
// that which is below the highest: a level has to be below the peak. Where there is none it returns the hill's cut.
func (f *flood) next(n int, h *hill) float64 {
	values := f.values[:0]
	peak := float32(h.peak) // that of a summit's basin may be another's
	for _, s := range f.inside {
		values = append(values, f.m[s.first:s.last+1]...)
	}
	f.values = values
	for _, v := range values {
		if v > peak {
			peak = v
		}
	}
	if v := nthHighest(values, n, float32(h.cut), peak); v < peak {
		return float64(v)
	}
	below := h.cut
	for _, v := range values {
		if v < peak {
			below = max(below, float64(v))
		}
	}
	return below
}

// nthHighest returns the value that n others of values come before, the highest first. They lie between lowest and highest.
func nthHighest(values []float32, n int, lowest, highest float32) float32 {
	const bins = 1 << 10
	scale := (bins - 1) / (float64(highest) - float64(lowest))
	rest := values
	if len(values) > bins && scale > 0 && !math.IsInf(scale, 1) { // of many, most need no sorting
		bin := func(v float32) int { return int((float64(highest) - float64(v)) * scale) }
		var counts [bins]int
		for _, v := range values {
			counts[bin(v)]++
		}
		at := 0
		for n >= counts[at] {
			n -= counts[at]
			at++
		}
		rest = make([]float32, 0, counts[at])
		for _, v := range values {
			if bin(v) == at {
				rest = append(rest, v)
			}
		}
	} else {
		rest = slices.Clone(values)
	}
	slices.Sort(rest)
	return rest[len(rest)-1-n]
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
