package dataset

import (
	"fmt"
	"image"
	"math"

	"rdpp/rdpp/imagefile"
)

// Norm is a per-channel normalisation of RGB values in 0..1. The zero Norm
// stands for ImageNet in LoaderOptions.
type Norm struct {
	Mean, Std [3]float32 // R, G, B
}

// ImageNet is the normalisation of torchvision's ImageNet weights.
var ImageNet = Norm{
	Mean: [3]float32{0.485, 0.456, 0.406},
	Std:  [3]float32{0.229, 0.224, 0.225},
}

// Apply writes (src - mean) / std to dst. Both are C,H,W planes of 3*S*S
// values, for which they must have room, and may be the same slice.
func (n Norm) Apply(dst, src []float32, S int) {
	area := S * S
	for c := range 3 {
		mean, std := n.Mean[c], n.Std[c]
		out := dst[c*area : (c+1)*area]
		for i, v := range src[c*area : (c+1)*area] {
			out[i] = (v - mean) / std
		}
	}
}

// unit holds v / 255 for every 8-bit value v, rounded once.
var unit = func() (u [256]float32) {
	for v := range u {
		u[v] = float32(v) / 255
	}
	return u
}()

// Resize writes the image, as RGB in 0..1, bilinearly resized to S x S to dst:
// C,H,W planes of 3*S*S values, for which dst must have room. Pixels have half-pixel centres, edges repeat
// and nothing is averaged when shrinking, as OpenCV's INTER_LINEAR does on
// float32.
func Resize(dst []float32, img *imagefile.Image, S int) {
	resizePart(dst, img, image.Rect(0, 0, img.W, img.H), S)
}

// ResizePart is Resize of a part of the image, which may reach beyond its right
// and lower edge: there the edge's pixels repeat.
func ResizePart(dst []float32, img *imagefile.Image, part image.Rectangle, S int) error {
	if part.Empty() || part.Min.X < 0 || part.Min.Y < 0 || part.Min.X >= img.W || part.Min.Y >= img.H {
		return fmt.Errorf("dataset: the part %v of an image of %d x %d pixels", part, img.W, img.H)
	}
	resizePart(dst, img, part, S)
	return nil
}

func resizePart(dst []float32, img *imagefile.Image, part image.Rectangle, S int) {
	if part.Dx() == S && part.Dy() == S && img.W == S && img.H == S { // as below, where all weights are 1 and 0
		red, green, blue := dst[:S*S], dst[S*S:][:S*S], dst[2*S*S:][:S*S]
		for i := range red {
			p := img.Pix[3*i:][:3]
			red[i], green[i], blue[i] = unit[p[0]], unit[p[1]], unit[p[2]]
		}
		return
	}
	xs, ys := partTaps(part.Min.X, part.Dx(), img.W, S), partTaps(part.Min.Y, part.Dy(), img.H, S)
	for x := range xs {
		xs[x].lo *= 3
		xs[x].hi *= 3
	}
	area := S * S
	for y, ty := range ys {
		top := img.Pix[ty.lo*img.W*3:][:img.W*3]
		bottom := img.Pix[ty.hi*img.W*3:][:img.W*3]
		red := dst[y*S:][:S]
		green := dst[area+y*S:][:S]
		blue := dst[2*area+y*S:][:S]
		for x, tx := range xs[:S] {
			tl, tr := top[tx.lo:tx.lo+3], top[tx.hi:tx.hi+3]
			bl, br := bottom[tx.lo:tx.lo+3], bottom[tx.hi:tx.hi+3]
			red[x] = (unit[tl[0]]*tx.wlo+unit[tr[0]]*tx.whi)*ty.wlo + (unit[bl[0]]*tx.wlo+unit[br[0]]*tx.whi)*ty.whi
			green[x] = (unit[tl[1]]*tx.wlo+unit[tr[1]]*tx.whi)*ty.wlo + (unit[bl[1]]*tx.wlo+unit[br[1]]*tx.whi)*ty.whi
			blue[x] = (unit[tl[2]]*tx.wlo+unit[tr[2]]*tx.whi)*ty.wlo + (unit[bl[2]]*tx.wlo+unit[br[2]]*tx.whi)*ty.whi
		}
	}
}

// tap says which two source positions make one destination position, and
// their weights, which add up to 1.
type tap struct {
	lo, hi   int
	wlo, whi float32
}

// linearTaps returns the taps of a row of n pixels resized to size.
func linearTaps(n, size int) []tap {
	taps := make([]tap, size)
	scale := float64(n) / float64(size)
	for i := range taps {
		at := min(max((float64(i)+0.5)*scale-0.5, 0), float64(n-1))
		lo := int(at)
		w := float32(at - float64(lo))
		taps[i] = tap{lo, min(lo+1, n-1), 1 - w, w}
	}
	return taps
}

// partTaps returns the taps of n pixels of a row of width pixels, from one on,
// resized to size.
func partTaps(from, n, width, size int) []tap {
	taps := linearTaps(n, size)
	for i := range taps {
		t := &taps[i]
		t.lo, t.hi = min(from+t.lo, width-1), min(from+t.hi, width-1)
	}
	return taps
}

// ReadMask reads the ground-truth mask in path, or the union of those in the
// folder path, resizes it to S x S as Pillow's bilinear filter does (averaging
// when shrinking) and returns H,W values: 1 where more than half of what was
// averaged is drawn, else 0. What counts as drawn says imagefile.DecodeMask. opt
// bounds the file's size and may be nil.
func ReadMask(path string, S int, opt *imagefile.Options) ([]uint8, error) {
	if S < 1 {
		return nil, fmt.Errorf("dataset: mask size is %d; give at least 1", S)
	}
	m, err := decodeMask(path, opt)
	if err != nil {
		return nil, err
	}
	return resizeMask(m, S, S), nil
}

// resizeMask resizes a mask, which it makes use of, to width x height.
func resizeMask(m *imagefile.Mask, width, height int) []uint8 {
	for i, v := range m.Pix {
		m.Pix[i] = 255 * v
	}
	return aboveHalf(resizeGray(m.Pix, m.W, m.H, width, height))
}

// aboveHalf makes greys 1 where they exceed 0.5, white being 1, else 0.
func aboveHalf(grey []uint8) []uint8 {
	for i, v := range grey {
		grey[i] = v >> 7 // v/255 > 0.5 exactly where v > 127
	}
	return grey
}

// filterBits is the fixed-point precision of Pillow's 8-bit resampling.
const filterBits = 22

// resizeGray resizes w x h pixels to width x height with the triangle filter of
// Pillow's Image.resize, to the bit: rows first, rounded to 8 bits, then
// columns.
func resizeGray(pix []uint8, w, h, width, height int) []uint8 {
	rows := make([]uint8, h*width)
	filters := triangleFilters(w, width)
	for y := range h {
		for x, f := range filters {
			sum := 1 << (filterBits - 1)
			for i, v := range pix[y*w+f.first:][:len(f.weights)] {
				sum += int(v) * f.weights[i]
			}
			rows[y*width+x] = uint8(min(sum>>filterBits, 255))
		}
	}
	out := make([]uint8, width*height)
	sums := make([]int, width)
	for y, f := range triangleFilters(h, height) {
		for x := range sums {
			sums[x] = 1 << (filterBits - 1)
		}
		for i, weight := range f.weights {
			for x, v := range rows[(f.first+i)*width:][:width] {
				sums[x] += int(v) * weight
			}
		}
		for x, sum := range sums {
			out[y*width+x] = uint8(min(sum>>filterBits, 255))
		}
	}
	return out
}

// filter is the weighted window of source pixels that makes one destination
// pixel; the weights add up to about 1 << filterBits.
type filter struct {
	first   int
	weights []int
}

// triangleFilters returns the windows of a row of n pixels resized to size.
// The triangle is one source pixel wide on either side when growing, one
// destination pixel when shrinking.
func triangleFilters(n, size int) []filter {
	filters := make([]filter, size)
	scale := float64(n) / float64(size)
	radius := max(scale, 1)
	for i := range filters {
		centre := (float64(i) + 0.5) * scale
		first := max(int(centre-radius+0.5), 0)
		end := min(int(centre+radius+0.5), n)
		heights := make([]float64, end-first)
		total := 0.0
		for j := range heights {
			heights[j] = max(0, 1-math.Abs((float64(first+j)-centre+0.5)*(1/radius)))
			total += heights[j]
		}
		weights := make([]int, len(heights))
		for j, v := range heights {
			weights[j] = int(0.5 + v/total*(1<<filterBits))
		}
		filters[i] = filter{first, weights}
	}
	return filters
}
