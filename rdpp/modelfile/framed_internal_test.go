package modelfile

import (
	"image"
	"math"
	"testing"

	"rdpp/rdpp/framing"
	"rdpp/rdpp/metric"
)

// hill is a map of w x h values with a Gaussian hill of a deviation in its middle.
func hill(w, h int, deviation float64) []float32 {
	m := make([]float32, w*h)
	for i := range m {
		x, y := float64(i%w)-float64(w-1)/2, float64(i/w)-float64(h-1)/2
		m[i] = float32(0.01 + math.Exp(-(x*x+y*y)/(2*deviation*deviation)))
	}
	return m
}

// A defect has one outline, in the picture's pixels, whether the map's values are as fine as the network's positions or means of
// 4 x 4 of them.
func TestOutlinedReduced(t *testing.T) {
	outline := metric.Outline{Above: 0.3, Low: 0.05, Share: 0.5, Blur: 12}
	picture := image.Pt(256, 256)
	area := func(w, h int, cell, deviation float64) int {
		f := framing.Tiled(picture, 64, w, h, cell)
		regions, levels, err := Outlined(outline, hill(w, h, deviation), f)
		if err != nil || len(regions) != 1 || len(levels) != w*h {
			t.Fatalf("cells of %v: got %v and %d levels, %v, want one region", cell, regions, len(levels), err)
		}
		if f.Scale() != cell {
			t.Errorf("got %v values along a position, want %v", f.Scale(), cell)
		}
		return regions[0].Area
	}
	fine, coarse := area(256, 256, 1, 20), area(64, 64, 0.25, 5)
	if ratio := float64(coarse) / float64(fine); math.Abs(ratio-1) > 0.15 {
		t.Errorf("got an area of %d pixels by coarse values, %d by fine ones", coarse, fine)
	}
}
