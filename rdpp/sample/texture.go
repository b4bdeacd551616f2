package sample

import (
	"math"
	"math/rand/v2"

	"rdpp/rdpp/simplex"
)

// pitch is the distance between neighbouring yarns of the fabric.
const pitch = 8.0

var (
	warpColour   = [3]float64{0.70, 0.67, 0.60}
	weftColour   = [3]float64{0.42, 0.52, 0.60}
	gapColour    = [3]float64{0.13, 0.13, 0.14}
	threadColour = [3]float64{0.72, 0.16, 0.14}
)

// fabric is a plain weave of light upright warp yarns and bluish level weft yarns, lit from the upper left.
type fabric struct {
	pixel          float64
	x, y, cos, sin float64 // pose
	light          float64
	lampX, lampY   float64 // fall of the light over the picture
	field          *simplex.Field
	thread         *line
	hole, stain    *blob
	missing        *gap
}

// gap is where two neighbouring weft yarns are missing over some length.
type gap struct {
	row     int // the first of the two
	x, half float64
}

func newFabric(rng *rand.Rand, defect string, pixel float64) scene {
	f := &fabric{
		pixel: pixel,
		x:     spread(rng, 0, 2), y: spread(rng, 0, 2),
		light: spread(rng, 1, 0.03), lampX: spread(rng, -0.06, 0.02), lampY: spread(rng, -0.06, 0.02),
		field: simplex.NewField(rng.Int64()),
	}
	f.sin, f.cos = math.Sincos(spread(rng, 0, 0.012))
	x, y := spread(rng, 128, 70), spread(rng, 128, 70)
	switch defect {
	case "hole":
		f.hole = &blob{x, y, spread(rng, 12, 2.5), 0.3, f.field}
	case "missing_yarn":
		f.missing = &gap{int(y / pitch), x, spread(rng, 35, 10)}
	case "stain":
		f.stain = &blob{x, y, spread(rng, 24, 5), 0.35, f.field}
	case "thread":
		l := newLine(rng, x, y, math.Pi*rng.Float64(), spread(rng, 105, 25), spread(rng, 5, 0.6), spread(rng, 7, 3))
		f.thread = &l
	}
	return f
}

func (f *fabric) at(px, py float64) ([3]float64, float64) {
	rgb, defect := f.weave(px, py)
	switch {
	case f.hole != nil:
		// Loose fibres fray the outline finely.
		d := f.hole.edge(px, py)
		if d < 8 {
			frayed := d + 1.6*f.field.At(px/2.5, py/2.5, 21)
			rgb = scale(rgb, 1-0.3*fade(d, 0, 5))
			rgb = mix(rgb, scale(gapColour, 0.6), fade(frayed, -1, 1))
			defect = cover(d, f.pixel)
		}
	case f.stain != nil:
		if d := f.stain.edge(px, py); d < 4 {
			oil := [3]float64{rgb[0] * 0.56, rgb[1] * 0.48, rgb[2] * 0.36}
			rgb = mix(rgb, oil, (0.85+0.15*f.field.At(px/9, py/9, 23))*fade(d, -2, 3))
			defect = cover(d, f.pixel)
		}
	case f.thread != nil:
		_, shadow := f.thread.across(px-2, py-2.5)
		rgb = scale(rgb, 1-0.35*fade(shadow, -1.5, 1.5))
		middle, edge := f.thread.across(px, py)
		defect = cover(edge, f.pixel)
		if defect > 0 {
			t := 2 * middle / f.thread.width
			twist := 0.1 * math.Sin(2.2*middle+1.3*(px+py))
			rgb = mix(rgb, scale(threadColour, 1.15-0.6*t*t+twist), defect)
		}
	}
	lamp := f.light * (1 + f.lampX*(px-128)/128 + f.lampY*(py-128)/128)
	return scale(rgb, lamp), defect
}

// weave is the colour of the cloth itself, and whether yarn is missing there.
func (f *fabric) weave(px, py float64) (rgb [3]float64, missing float64) {
	// Cloth never lies quite straight.
	x := f.x + px*f.cos + py*f.sin + 1.1*f.field.At(px/60, py/60, 1)
	y := f.y + py*f.cos - px*f.sin + 1.1*f.field.At(px/60, py/60, 2)
	column, row := math.Floor(x/pitch), math.Floor(y/pitch)
	u, v := 2*(x/pitch-column)-1, 2*(y/pitch-row)-1 // -1 to 1 across the warp and the weft yarn

	if g := f.missing; g != nil && (int(row) == g.row || int(row) == g.row+1) {
		missing = cover(math.Abs(x-g.x)-g.half, f.pixel)
	}
	warp := f.yarn(warpColour, u, v, x, y, column)
	weft := f.yarn(weftColour, v, u, y+500, x, row)
	if (int(column)+int(row))%2 == 0 {
		rgb = mix(weft.below(), warp.colour, warp.cover)
	} else {
		rgb = mix(warp.below(), weft.colour, weft.cover)
	}
	if missing > 0 {
		// Without the weft the warp lies bare, and slack.
		bare := mix(gapColour, scale(warp.colour, 0.75), 0.8*warp.cover)
		rgb = mix(rgb, bare, missing)
	}
	return rgb, missing
}

// strand is a yarn at one point: its colour, and how much of the point it covers.
type strand struct {
	colour [3]float64
	cover  float64
}

// below is what shows of a yarn that dives under another.
func (s strand) below() [3]float64 {
	return mix(gapColour, scale(s.colour, 0.6), s.cover)
}

// yarn shades a round yarn that runs along `along`: across is -1 to 1 over its width, bulge -1 to 1 from one crossing to
// the next, index its number.
func (f *fabric) yarn(colour [3]float64, across, bulge, along, other, index float64) strand {
	body := math.Sqrt(max(0, 1-0.85*across*across)) * (1 - 0.22*bulge*bulge)
	fibre := 0.07 * f.field.At(along/1.6, other/5, 31)
	tone := 0.05 * f.field.At(3.7*index, 0.5, 33)
	side := -0.10 * across // the lamp's side is brighter
	return strand{scale(colour, 1.12*body+fibre+tone+side), fade(math.Abs(across), 0.78, 0.98)}
}
