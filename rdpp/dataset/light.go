package dataset

import (
	"fmt"
	"math/rand/v2"
)

// Light is how much the light on training images is varied, so that a lamp that ages or a cloud is no defect. The zero
// Light leaves images as they are.
type Light struct {
	// Exposure is the largest relative change of brightness, up or down: at 0.2 every image is made 0.8 to 1.2 times as
	// bright. In each colour by itself (white balance), and from one edge of the image to its middle (a lamp at the
	// side), it changes by up to a quarter of that.
	Exposure float64
}

// Check says what cannot be.
func (l Light) Check() error {
	if !(l.Exposure >= 0 && l.Exposure < 0.8) {
		return fmt.Errorf("dataset: an exposure that varies by %v; use 0 to 0.8 of the brightness", l.Exposure)
	}
	return nil
}

// apply changes an image's planes, RGB in 0..1 of S x S pixels each, by light drawn from rng. What becomes brighter than
// white is white, as in a camera.
func (l Light) apply(planes []float32, S int, rng *rand.Rand) {
	vary := func(most float64) float64 { return most * (2*rng.Float64() - 1) }
	gain := 1 + vary(l.Exposure)
	across, down := vary(l.Exposure/4), vary(l.Exposure/4)
	for c := range 3 {
		colour := gain * (1 + vary(l.Exposure/4))
		for y := range S {
			// From -1 at the first pixel's edge to 1 at the last one's.
			height := (2*float64(y)+1)/float64(S) - 1
			row := planes[(c*S+y)*S:][:S]
			start := colour * (1 + down*height - across)
			step := colour * across * 2 / float64(S)
			for x, v := range row {
				row[x] = min(1, v*float32(start+step*(float64(x)+0.5)))
			}
		}
	}
}
