package dataset

import (
	"fmt"
	"image"
	"math"

	"rdpp/rdpp/framing"
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
		// A quotient of numbers of 24 bits lies farther from where float32 rounds the other way than a product of float64
		// errs: it is the same to the bit, sooner than a division.
		mean, inverse := n.Mean[c], 1/float64(n.Std[c])
		in := src[c*area : (c+1)*area]
		out := dst[c*area:][:len(in)]
		for i, v := range in {
			out[i] = float32(float64(v-mean) * inverse)
		}
	}
}

// Resize writes the image, as RGB in 0..1, bilinearly resized to S x S to dst:
// C,H,W planes of 3*S*S values, for which dst must have room. Pixels have half-pixel centres, edges repeat
// and nothing is averaged when shrinking, as OpenCV's INTER_LINEAR does on
// float32.
func Resize(dst []float32, img *imagefile.Image, S int) {
	framing.Resample(dst, img, image.Rect(0, 0, img.W, img.H), image.Rect(0, 0, S, S), S)
}

// ResizePart is Resize of a part of the image, which may reach beyond its right
// and lower edge: there the edge's pixels repeat.
func ResizePart(dst []float32, img *imagefile.Image, part image.Rectangle, S int) error {
	if part.Empty() || part.Min.X < 0 || part.Min.Y < 0 || part.Min.X >= img.W || part.Min.Y >= img.H {
		return fmt.Errorf("dataset: the part %v of an image of %d x %d pixels", part, img.W, img.H)
	}
	framing.Resample(dst, img, part, image.Rect(0, 0, S, S), S)
	return nil
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

// frameMask resizes a mask, which it makes use of, as a frame does its picture, over which the mask is drawn at any size.
func frameMask(m *imagefile.Mask, f *framing.Frame) []uint8 {
	if f.Whole() {
		return resizeMask(m, f.W, f.H)
	}
	// The part that is looked at, in pixels of the mask, outward.
	up := func(a, of, to int) int { return (a*to + of - 1) / of }
	size := f.Picture
	part := image.Rect(f.From.Min.X*m.W/size.X, f.From.Min.Y*m.H/size.Y, up(f.From.Max.X, size.X, m.W), up(f.From.Max.Y, size.Y, m.H))
	w, h := part.Dx(), part.Dy()
	pix := make([]uint8, 0, w*h)
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for _, v := range m.Pix[y*m.W+part.Min.X:][:w] {
			pix = append(pix, 255*v)
		}
	}
	inner := aboveHalf(resizeGray(pix, w, h, f.To.Dx(), f.To.Dy()))
	out := make([]uint8, f.H*f.W)
	for y := range f.To.Dy() {
		copy(out[(f.To.Min.Y+y)*f.W+f.To.Min.X:][:f.To.Dx()], inner[y*f.To.Dx():])
	}
	return out
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

// resizeGray resizes w x h pixels to toW x toH with the triangle filter of
// Pillow's Image.resize, to the bit: rows first, rounded to 8 bits, then
// columns.
func resizeGray(pix []uint8, w, h, toW, toH int) []uint8 {
	rows := make([]uint8, h*toW)
	filters := triangleFilters(w, toW)
	for y := range h {
		for x, f := range filters {
			sum := 1 << (filterBits - 1)
			for i, v := range pix[y*w+f.first:][:len(f.weights)] {
				sum += int(v) * f.weights[i]
			}
			rows[y*toW+x] = uint8(min(sum>>filterBits, 255))
		}
	}
	out := make([]uint8, toH*toW)
	sums := make([]int, toW)
	for y, f := range triangleFilters(h, toH) {
		for x := range sums {
			sums[x] = 1 << (filterBits - 1)
		}
		for i, weight := range f.weights {
			for x, v := range rows[(f.first+i)*toW:][:toW] {
				sums[x] += int(v) * weight
			}
		}
		for x, sum := range sums {
			out[y*toW+x] = uint8(min(sum>>filterBits, 255))
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
