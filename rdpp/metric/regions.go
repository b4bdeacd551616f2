package metric

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Region is a connected part of an anomaly map above a threshold, in pixels of the original picture.
type Region struct {
	X      int     `json:"x"` // left edge of the bounding box
	Y      int     `json:"y"` // its upper edge
	Width  int     `json:"width"`
	Height int     `json:"height"`
	Area   int     `json:"area"` // of the region itself, at least 1
	Peak   float32 `json:"peak"` // highest value of the map inside
}

// Regions returns the 8-connected components of the row-major H x W anomaly map m where it is above threshold, highest
// peak first, then from top to bottom. Bounding boxes are scaled outward to the picture of origW x origH pixels, areas
// scaled and rounded. The list is empty, not nil, where nothing is above. A map of other than H*W values is ErrLength, one
// with a NaN or an infinity ErrNaN.
func Regions(m []float32, H, W int, threshold float32, origW, origH int) ([]Region, error) {
	if H < 0 || W < 0 || len(m) != H*W {
		return nil, fmt.Errorf("%w: a map of %d pixels, to be %d x %d", ErrLength, len(m), H, W)
	}
	if err := checkFinite(m, W); err != nil {
		return nil, err
	}
	mask := make([]uint8, len(m))
	for i, v := range m {
		if v > threshold {
			mask[i] = 1
		}
	}
	labels, count := label(mask, H, W)
	// In the map's pixels first: X and Y inclusive, Width and Height the exclusive ends.
	regions := make([]Region, count)
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
	}
	for i := range regions {
		r := &regions[i]
		right, bottom := ceilDiv(r.Width*origW, W), ceilDiv(r.Height*origH, H)
		r.X, r.Y = r.X*origW/W, r.Y*origH/H
		r.Width, r.Height = right-r.X, bottom-r.Y
		scale := float64(origW) * float64(origH) / (float64(W) * float64(H))
		r.Area = max(1, int(math.Round(float64(r.Area)*scale)))
	}
	slices.SortFunc(regions, func(a, b Region) int {
		return cmp.Or(cmp.Compare(b.Peak, a.Peak), cmp.Compare(a.Y, b.Y), cmp.Compare(a.X, b.X))
	})
	return regions, nil
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
			var l int32
			join := func(neighbour int32) {
				switch {
				case neighbour == 0:
				case l == 0:
					l = find(neighbour)
				default:
					other := find(neighbour)
					l, other = min(l, other), max(l, other)
					parent[other] = l
				}
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
