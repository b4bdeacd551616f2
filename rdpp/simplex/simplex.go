// Package simplex makes the pseudo-anomalies of RD++ (Algorithm 1 of the paper, Tien et al., CVPR 2023): octaves of
// OpenSimplex noise, and the box of an image that they disturb.
//
// Everything here is a function of its seed alone, so images may be made by any number of goroutines in any order.
package simplex

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/ojrac/opensimplex-go"
)

// ErrShape reports a shape, a destination or an option that no noise can be made for.
var ErrShape = errors.New("simplex: unusable shape or options")

// Options shapes octave noise. Nil, and the zero of each field, mean the paper's value.
type Options struct {
	Octaves     int     // number of octaves summed, default 6
	Persistence float64 // amplitude of each octave relative to the one before, default 0.6
	Feature     float64 // size in pixels of the first octave's features, halved each octave, default 32
}

func (o *Options) complete() Options {
	var all Options
	if o != nil {
		all = *o
	}
	all.Octaves = cmp.Or(all.Octaves, 6)
	all.Persistence = cmp.Or(all.Persistence, 0.6)
	all.Feature = cmp.Or(all.Feature, 32)
	return all
}

// Field is one noise field over three-dimensional space. It is immutable, and so safe for concurrent use.
type Field struct {
	noise   opensimplex.Noise
	lattice *lattice // of the same seed
}

// NewField returns the field of a seed: the 2014 variant of OpenSimplex.
func NewField(seed int64) *Field {
	return &Field{opensimplex.New(seed), newLattice(seed)}
}

// At returns the field's value at a point, within about [-1, 1].
func (f *Field) At(x, y, z float64) float64 {
	return f.noise.Eval3(x, y, z)
}

// Octaves fills dst, row-major C x H x W, with octave noise, before any factor lambda:
//
//	dst[z, y, x] = sum over o of Persistence^o * At(x*2^o/Feature, y*2^o/Feature, z*2^o/Feature)
//
// with integer x, y, z from 0 (the channel is the z axis). len(dst) must be C*H*W and the options positive: anything
// else is ErrShape.
func (f *Field) Octaves(dst []float64, C, H, W int, opt *Options) error {
	o := opt.complete()
	if C < 0 || H < 0 || W < 0 || len(dst) != C*H*W {
		return fmt.Errorf("%w: %d numbers for a C x H x W of %d x %d x %d", ErrShape, len(dst), C, H, W)
	}
	// The negated comparisons refuse NaN too.
	if o.Octaves < 0 || !(o.Persistence > 0) || !(o.Feature > 0) {
		return fmt.Errorf("%w: octaves %d, persistence %g and feature %g must be positive", ErrShape, o.Octaves, o.Persistence, o.Feature)
	}
	clear(dst)
	var g *grid
	if o.Feature == gridFeature {
		g = gridFor(C, H, W)
	}
	amplitude, feature := 1.0, o.Feature
	for octave := range o.Octaves {
		rows := dst
		for z := range C {
			for y := range H {
				if g != nil && octave < gridOctaves {
					g.addRow(rows[:W], f.lattice, octave, z, y, amplitude)
				} else {
					f.addRow(rows[:W], float64(y)/feature, float64(z)/feature, feature, amplitude)
				}
				rows = rows[W:]
			}
		}
		amplitude *= o.Persistence
		feature /= 2
	}
	return nil
}

// addRow adds amplitude * noise to a row of places, at x / feature for all x from 0 on.
func (f *Field) addRow(dst []float64, y, z, feature, amplitude float64) {
	for x := range dst {
		dst[x] += amplitude * f.At(float64(x)/feature, y, z)
	}
}

// Box is the rectangle of an image that receives noise, in pixels: rows Y to Y+H-1, columns X to X+W-1.
type Box struct {
	Y, X, H, W int
}

// RandomBox draws the box of a size x size image: height and width uniform in [10, size/8), then each coordinate of
// the top-left corner uniform in [1, size-side). Where [10, size/8) is empty, which is so for sizes up to 80 (released
// code fails there), its low end is max(1, size/8-1) instead. Sizes are meant to be 32 or more; below 3 there is no
// room for a box, and it is empty. It uses rng as *rand.Rand may be used: from one goroutine at a time.
func RandomBox(rng *rand.Rand, size int) Box {
	if size < 3 {
		return Box{}
	}
	low := max(1, min(10, size/8-1))
	high := max(low+1, size/8)
	h := low + rng.IntN(high-low)
	w := low + rng.IntN(high-low)
	return Box{Y: 1 + rng.IntN(size-h-1), X: 1 + rng.IntN(size-w-1), H: h, W: w}
}

// ImageSeed derives the seed of one image's box and noise from the run's seed, the epoch and the image's index in the
// data set, so that the images of a run do not depend on how many workers make them. Each number in turn is added to
// the state and mixed by SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
func ImageSeed(seed uint64, epoch, index int) uint64 {
	return splitMix(splitMix(splitMix(seed)+uint64(epoch)) + uint64(index))
}

// splitMix is one step of SplitMix64, a bijection in which every bit of z moves half the bits of the result.
func splitMix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
