package dataset

import (
	"fmt"
	"math/rand/v2"

	"rdpp/rdpp/simplex"
)

// Made-up defects go beyond the paper's boxes of noise (Algorithm 1): up to so many on an image, of several kinds, sizes
// and shapes, scratches among them.

// The kinds of defects that are made up.
const (
	noiseDefect = iota // octave noise is added, as in the paper
	pasteDefect        // a piece of the image that lies elsewhere
	blotDefect         // one colour
	defectKinds
)

// defect is a made-up defect: a rectangle or an ellipse of H x W pixels at Y, X.
type defect struct {
	simplex.Box
	kind    int
	ellipse bool
	opacity float32    // of what is pasted or painted
	from    [2]int     // pasteDefect: y, x that is copied from
	colour  [3]float32 // blotDefect: RGB, 0..1
	factor  float64    // noiseDefect: of the noise
	field   int64      // noiseDefect: seed
}

// leastSide is a defect's least height and width, pixels.
const leastSide = 2

// drawDefect makes a defect up for an image of S x S pixels, of which 32 are the fewest. Its sides are up to a quarter of the
// image's and some pixels, and of two in three, scratches, about a sixteenth at most the one way.
func drawDefect(rng *rand.Rand, S int, lambda float64) (d defect) {
	d.H, d.W = leastSide+2+rng.IntN(S/4), leastSide+2+rng.IntN(S/4)
	switch rng.IntN(3) {
	case 0:
		d.H = leastSide + rng.IntN(S/16)
	case 1:
		d.W = leastSide + rng.IntN(S/16)
	}
	d.Y, d.X = rng.IntN(S-d.H), rng.IntN(S-d.W)
	d.from = [2]int{rng.IntN(S - d.H), rng.IntN(S - d.W)}
	d.kind, d.ellipse = rng.IntN(defectKinds), rng.IntN(2) == 0
	d.opacity = 0.3 + 0.7*rng.Float32()
	grey := rng.Float32()
	d.colour = [3]float32{grey, grey, grey}
	if rng.IntN(2) == 0 {
		d.colour = [3]float32{rng.Float32(), rng.Float32(), rng.Float32()}
	}
	d.factor = lambda * (0.5 + 2.5*rng.Float64())
	d.field = int64(rng.Uint64())
	return d
}

// paint writes the defect on planes, an image of S x S pixels in RGB 0..1, to dst, normalised: all of its box. What another
// defect has painted there is lost.
func (d *defect) paint(dst, planes []float32, S int, norm Norm) error {
	var noise []float64
	if d.kind == noiseDefect {
		noise = make([]float64, 3*d.H*d.W)
		if err := simplex.NewField(d.field).Octaves(noise, 3, d.H, d.W, nil); err != nil {
			return fmt.Errorf("dataset: a made-up defect: %w", err)
		}
	}
	for c := range 3 {
		for y := range d.H {
			for x := range d.W {
				at := (c*S+d.Y+y)*S + d.X + x
				was, strength := planes[at], d.opacity*d.cover(y, x)
				var change float32
				switch d.kind {
				case noiseDefect:
					change = float32(d.factor * noise[(c*d.H+y)*d.W+x])
				case pasteDefect:
					change = planes[(c*S+d.from[0]+y)*S+d.from[1]+x] - was
				case blotDefect:
					change = d.colour[c] - was
				}
				dst[at] = (was + strength*change - norm.Mean[c]) / norm.Std[c]
			}
		}
	}
	return nil
}

// cover is how much of a pixel the defect's shape covers, 0 to 1; ellipses have soft edges.
func (d *defect) cover(y, x int) float32 {
	if !d.ellipse {
		return 1
	}
	down, across := 2*(float32(y)+0.5)/float32(d.H)-1, 2*(float32(x)+0.5)/float32(d.W)-1
	return min(1, max(0, 3*(1-down*down-across*across)))
}
