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
	highest, err := highestOf(m, W)
	if err != nil {
		return nil, nil, err
	}
	outside := math.Inf(1)
	if float64(highest) <= o.Above {
		return []Region{}, slices.Repeat([]float64{outside}, len(m)), nil
	}
	o.Low = min(o.Low, o.Above)
	ground := o.ground(m)
	levels := make([]float64, len(m))
	for i := range levels {
		levels[i] = outside
	}
	f := floods.Get().(*flood)
	defer floods.Put(f)
	f.fill(m, H, W, o.Low)
	hills, summits := f.hills(&o, ground)
	for _, h := range hills {
		f.mark(&h, &o, ground, levels)
	}
	for _, h := range summits {
		if y := int(h.at)/f.stride - 1; levels[y*W+int(h.at)-f.pixel(0, y)] == outside {
			f.mark(&h, &o, ground, levels)
		}
	}
	runs, count := connected(levels, H, W, outside)
	regions := measure(runs, count, m, H, W, origW, origH)
	keep := func(r Region) bool {
		return float64(r.Peak) > o.Above && r.Area >= o.MinArea && max(r.Width, r.Height) >= o.MinLength
	}
	for _, r := range runs {
		if !keep(regions[r.label-1]) {
			for i := r.first; i < r.end; i++ {
				levels[r.row*W+i] = outside
			}
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
	rank := len(values) - 1 - int(groundShare*float64(len(values)-1))
	return min(float64(nthHighest(values, rank, slices.Min(values), slices.Max(values))), o.Low)
}

// measure returns what is to be said of each of count labels, in their order.
func measure(runs []run, count int, m []float32, H, W, origW, origH int) []Region {
	// In the map's pixels first: X and Y inclusive, Width and Height the exclusive ends.
	regions, sums := make([]Region, count), make([]float64, count)
	for i := range regions {
		regions[i] = Region{X: W, Y: H, Peak: float32(math.Inf(-1))}
	}
	for _, of := range runs {
		r, sum := &regions[of.label-1], sums[of.label-1]
		r.X, r.Width = min(r.X, of.first), max(r.Width, of.end)
		r.Y, r.Height = min(r.Y, of.row), max(r.Height, of.row+1)
		r.Area += of.end - of.first
		peak := r.Peak
		for _, v := range m[of.row*W:][of.first:of.end] {
			if v > peak {
				peak = v
			}
			sum += float64(v)
		}
		r.Peak, sums[of.label-1] = peak, sum
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

// highestOf returns a map's highest value, -Inf where it has none, or ErrNaN for the first value of a map W wide that is not
// finite.
func highestOf(m []float32, W int) (float32, error) {
	highest := float32(math.Inf(-1))
	for i, v := range m {
		if v-v != 0 { // NaN and both infinities, less themselves, are NaN
			return 0, fmt.Errorf("%w: row %d, column %d is %g", ErrNaN, i/W, i%W, v)
		}
		if v > highest {
			highest = v
		}
	}
	return highest, nil
}

func ceilDiv(a, b int) int {
	return (a + b - 1) / b
}

// run is a part of a row whose pixels are in one component.
type run struct {
	row, first, end int // end is the column behind it
	label           int
}

// connected returns the 8-connected components of an H x W picture's pixels that are not outside, as runs from row to row, and
// how many components there are. They are numbered from 1, in the order of their first pixels.
func connected[T comparable](pixels []T, H, W int, outside T) (runs []run, count int) {
	var parent []int // a union-find forest over runs, whose roots are the first of their sets
	find := func(n int) int {
		for parent[n] != n {
			parent[n] = parent[parent[n]]
			n = parent[n]
		}
		return n
	}
	above := 0 // the first run of the row above that may touch one to come
	for y := range H {
		begun := len(runs)
		row := pixels[y*W:][:W]
		for x := 0; x < W; x++ {
			if row[x] == outside {
				continue
			}
			r := run{row: y, first: x}
			for x < W && row[x] != outside {
				x++
			}
			r.end = x
			n := len(runs)
			runs, parent = append(runs, r), append(parent, n)
			for above < begun && runs[above].end < r.first {
				above++
			}
			for other := above; other < begun && runs[other].first <= r.end; other++ {
				a, b := find(n), find(other)
				parent[max(a, b)] = min(a, b)
			}
		}
		above = begun
	}
	for n := range runs {
		// A root is the first of its set, so it has its number before any run that refers to it.
		if parent[n] == n {
			count++
			runs[n].label = count
		} else {
			runs[n].label = runs[find(n)].label
		}
	}
	return runs, count
}

// label numbers the 8-connected components of mask's non-zero pixels as connected does, and returns each pixel's number (0
// outside) and how many there are. len(mask) must be H*W.
func label(mask []uint8, H, W int) ([]int32, int) {
	labels := make([]int32, len(mask))
	runs, count := connected(mask, H, W, 0)
	for _, r := range runs {
		of := labels[r.row*W:][r.first:r.end]
		for i := range of {
			of[i] = int32(r.label)
		}
	}
	return labels, count
}
