package sample

import (
	"math"
	"math/rand/v2"

	"rdpp/rdpp/simplex"
)

// The flange in its own coordinates, origin at its centre.
const (
	outerRadius = 98.0
	hubRadius   = 53.0 // a raised ring around the bore
	boreRadius  = 33.0
	boltCircle  = 76.0
	boltRadius  = 10.5
	bolts       = 6
	keyHalf     = 7.0 // half the width of the keyway above the bore
	keyDepth    = 9.0
	chamfer     = 4.0
)

// flange is a turned steel part with a bore, a keyway and bolt holes, lying on a dark mat.
type flange struct {
	pixel            float64
	x, y, size       float64 // pose
	cos, sin         float64
	lightX, lightY   float64 // unit vector towards the lamp, in the picture
	light            float64
	tint             [3]float64
	field            *simplex.Field
	missing          int // the bolt hole that was not drilled, or -1
	scratch          *line
	dent, stain      *blob
	boltX, boltY     [bolts]float64
	marks            float64 // depth of the turning marks
	smudgeX, smudgeY float64
}

func newFlange(rng *rand.Rand, defect string, pixel float64) scene {
	f := &flange{
		pixel: pixel, missing: -1,
		x: spread(rng, 128, 2), y: spread(rng, 128, 2), size: spread(rng, 1, 0.008),
		light: spread(rng, 1, 0.03), marks: spread(rng, 0.05, 0.008),
		tint:    [3]float64{spread(rng, 1, 0.008), 1, spread(rng, 1.02, 0.008)},
		field:   simplex.NewField(rng.Int64()),
		smudgeX: rng.Float64() * 100, smudgeY: rng.Float64() * 100,
	}
	f.sin, f.cos = math.Sincos(spread(rng, 0, 0.035))
	f.lightY, f.lightX = math.Sincos(spread(rng, -2.2, 0.05))
	for i := range bolts {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / bolts)
		f.boltX[i], f.boltY[i] = boltCircle*cos, boltCircle*sin
	}
	// Defects lie on the face, between two bolt holes.
	angle := 2*math.Pi*(float64(rng.IntN(bolts))+0.5)/bolts + spread(rng, 0, 0.12)
	sin, cos := math.Sincos(angle)
	x, y := 75*cos, 75*sin
	switch defect {
	case "dent":
		f.dent = &blob{x, y, spread(rng, 10.5, 2), 0.12, f.field}
	case "missing_hole":
		f.missing = rng.IntN(bolts)
	case "scratch":
		l := newLine(rng, x, y, angle+math.Pi/2+spread(rng, 0, 0.6), spread(rng, 66, 10), spread(rng, 4.8, 0.5), spread(rng, 2, 1))
		f.scratch = &l
	case "stain":
		f.stain = &blob{x, y, spread(rng, 17, 3), 0.3, f.field}
	}
	return f
}

func (f *flange) at(px, py float64) ([3]float64, float64) {
	dx, dy := (px-f.x)/f.size, (py-f.y)/f.size
	x, y := dx*f.cos+dy*f.sin, dy*f.cos-dx*f.sin
	depth, nx, ny, hole := f.inside(x, y)
	metal := cover(-depth, f.pixel)

	var rgb [3]float64
	if metal < 1 {
		rgb = f.mat(px, py, dx, dy, depth)
	}
	if metal > 0 {
		rgb = mix(rgb, f.face(x, y, depth, nx, ny), metal)
	}
	defect := 0.0
	switch {
	case f.missing >= 0:
		if hole == f.missing {
			defect = cover(math.Hypot(x-f.boltX[hole], y-f.boltY[hole])-boltRadius, f.pixel)
		}
	case f.dent != nil:
		defect = metal * cover(f.dent.edge(x, y), f.pixel)
	case f.scratch != nil:
		_, edge := f.scratch.across(x, y)
		defect = metal * cover(edge, f.pixel)
	case f.stain != nil:
		defect = metal * cover(f.stain.edge(x, y), f.pixel)
	}
	return rgb, defect
}

// inside returns how deep a point lies inside the metal (negative outside it), the unit vector from it out of the
// metal across the nearest edge, and the nearest bolt hole, drilled or not.
func (f *flange) inside(x, y float64) (depth, nx, ny float64, hole int) {
	r := math.Hypot(x, y) + 1e-9
	depth, nx, ny = outerRadius-r, x/r, y/r
	if d := r - boreRadius; d < depth {
		depth, nx, ny = d, -x/r, -y/r
	}
	// The keyway is a box from the bore's centre upwards.
	side, top := math.Abs(x)-keyHalf, -y-boreRadius-keyDepth
	if d := max(side, top); y < 0 && d < depth {
		depth, nx, ny = d, -math.Copysign(1, x), 0
		if top > side {
			nx, ny = 0, 1
		}
	}
	nearest := math.Inf(1)
	for i := range bolts {
		if d := math.Hypot(x-f.boltX[i], y-f.boltY[i]); d < nearest {
			nearest, hole = d, i
		}
	}
	if d := nearest - boltRadius; d < depth && hole != f.missing {
		depth, nx, ny = d, -(x-f.boltX[hole])/(nearest+1e-9), -(y-f.boltY[hole])/(nearest+1e-9)
	}
	return depth, nx, ny, hole
}

// mat is the colour beside and below the part, in its soft shadow.
func (f *flange) mat(px, py, dx, dy, depth float64) [3]float64 {
	v := 0.21 + 0.018*f.field.At(px/2.1, py/2.1, 3) + 0.015*f.field.At(px/40, py/40, 5)
	// The part stands above the mat, so its shadow falls away from the lamp: where the part is, a step towards it.
	sx, sy := dx+9*f.lightX, dy+9*f.lightY
	blocked, _, _, _ := f.inside(sx*f.cos+sy*f.sin, sy*f.cos-sx*f.sin)
	shadow := 0.62 * fade(-blocked, -9, 9)
	contact := 0.3 * fade(-depth, 0, 7)
	v *= f.light * (1 - shadow) * (1 - contact)
	return [3]float64{0.92 * v, v, 1.12 * v}
}

// face is the colour of the metal, depth inside the edge that lies in direction (nx, ny).
func (f *flange) face(x, y, depth, nx, ny float64) [3]float64 {
	r := math.Hypot(x, y)
	lx, ly := f.lightX*f.cos+f.lightY*f.sin, f.lightY*f.cos-f.lightX*f.sin
	// Turning leaves rings, which mirror the lamp in two wedges, where they lie across its direction.
	along := (lx*y - ly*x) / (r + 1e-9)
	ring := f.field.At(r/1.7, 7, x/300+y/500)
	v := 0.50 + f.marks*ring + 0.34*(1+0.3*ring)*math.Exp(-along*along/0.16)
	v += 0.025 * f.field.At(x/30+f.smudgeX, y/30+f.smudgeY, 9)
	// The hub is a step: an edge that faces outwards, and a groove at its foot.
	if d := r - hubRadius; math.Abs(d) < 5 {
		v += 0.30 * (lx*x + ly*y) / r * fade(math.Abs(d), 0.8, 2.6)
		v *= 1 - 0.35*fade(math.Abs(d-3), 0, 2)
	}
	if r < hubRadius {
		v += 0.05
	}
	v += 0.36 * (lx*nx + ly*ny) * fade(depth, chamfer*0.5, chamfer)

	rgb := scale(f.tint, f.light)
	switch {
	case f.dent != nil:
		if d := f.dent.edge(x, y); d < 4 {
			// A bowl: the wall on the lamp's side is in shade, the far one lit, and so is the raised rim.
			t := clamp(1 + d/f.dent.radius)
			slope := (lx*(x-f.dent.x) + ly*(y-f.dent.y)) / f.dent.radius
			v = v*(1-0.55*fade(d, -3, 0)) - 0.42*slope*t*fade(d, -1, 1) + 0.12*fade(math.Abs(d), 0, 2.5)
		}
	case f.scratch != nil:
		middle, edge := f.scratch.across(x, y)
		v -= 0.42 * fade(edge, -1, 0.7)
		v += 0.35 * fade(math.Abs(edge), 0, 1.2) * clamp(0.5+middle)
	case f.stain != nil:
		d := f.stain.edge(x, y)
		if d < 3 {
			// Rust: darker towards the outline, as a dried drop is.
			patch := 0.8 + 0.2*f.field.At(x/5, y/5, 11)
			rust := scale([3]float64{0.62, 0.40, 0.24}, 0.75+0.25*fade(d, -6, -1))
			rgb = mix(rgb, [3]float64{rgb[0] * rust[0], rgb[1] * rust[1], rgb[2] * rust[2]}, patch*fade(d, -1, 2))
		}
	}
	return scale(rgb, v)
}
