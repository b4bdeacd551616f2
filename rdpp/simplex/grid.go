package simplex

import (
	"math"
	"sync"
)

// The noise at a place is a sum over the lattice points around it, each weighted by its distance. Distances and weights
// are the same in all fields: a seed only turns the gradients at the lattice points. A grid keeps all but the gradients
// for the places that the paper's octaves visit, which leaves less than half of the work. It adds up the same terms in
// the same order as opensimplex-go, so that all values are the same to the bit on amd64; elsewhere Go may fuse a product
// and a sum here and not there.

const (
	gridFeature  = 32
	gridOctaves  = 6
	gridChannels = 3
)

// grid is of the places (x, y, z) * 2^octave / gridFeature, x and y below side and z below gridChannels. It is never
// changed once it is made.
type grid struct {
	side    int
	octaves [gridOctaves]struct {
		terms  []term  // of all places, by z, y and x
		counts []uint8 // of each place's terms
		rows   []int   // where in terms a row of places begins, by z and y
	}
}

// term is what a lattice point adds to the noise at a place dx, dy, dz away from it: weight times the product of
// gradient and distance. The lattice point is at x, y, z modulo 256.
type term struct {
	weight, dx, dy, dz float64
	x, y, z            uint8
}

// The grids for boxes in images of up to 256 and 512 pixels take 4 and 16 MiB. They are made when first needed.
var (
	grid32 = sync.OnceValue(func() *grid { return newGrid(32) })
	grid64 = sync.OnceValue(func() *grid { return newGrid(64) })
)

// gridFor returns a grid that C x H x W places are in, or nil where they are too many.
func gridFor(C, H, W int) *grid {
	switch side := max(H, W); {
	case C > gridChannels || side > 64:
		return nil
	case side > 32:
		return grid64()
	}
	return grid32()
}

func newGrid(side int) *grid {
	g := &grid{side: side}
	feature := float64(gridFeature)
	for o := range g.octaves {
		octave := &g.octaves[o]
		octave.terms = make([]term, 0, gridChannels*side*side*13/2) // a little more than there are
		for z := range gridChannels {
			for y := range side {
				octave.rows = append(octave.rows, len(octave.terms))
				for x := range side {
					before := len(octave.terms)
					octave.terms = appendTerms(octave.terms, float64(x)/feature, float64(y)/feature, float64(z)/feature)
					octave.counts = append(octave.counts, uint8(len(octave.terms)-before))
				}
			}
		}
		feature /= 2
	}
	return g
}

// addRow adds amplitude * noise to a row of places, from x = 0 on.
func (g *grid) addRow(dst []float64, l *lattice, octave, z, y int, amplitude float64) {
	o, row := &g.octaves[octave], z*g.side+y
	counts := o.counts[row*g.side:][:len(dst)]
	i := o.rows[row]
	for x := range dst {
		end := i + int(counts[x])
		dst[x] += amplitude * l.noise(o.terms[i:end])
		i = end
	}
}

// lattice holds the gradients of a seed: that of the lattice point at x, y, z is gradients[perm[perm[perm[x]+y]+z]].
type lattice struct {
	perm      [256]uint8
	gradients [256][3]float64
}

// noise adds up the terms of a place.
func (l *lattice) noise(terms []term) float64 {
	value := 0.0
	for i := range terms {
		t := &terms[i]
		g := &l.gradients[l.perm[l.perm[l.perm[t.x]+t.y]+t.z]]
		value += t.weight * (g[0]*t.dx + g[1]*t.dy + g[2]*t.dz)
	}
	return value / norm
}

// newLattice draws the permutation that opensimplex.New draws.
func newLattice(seed int64) *lattice {
	var source [256]uint8
	for i := range source {
		source[i] = uint8(i)
	}
	next := func() int64 {
		seed = seed*6364136223846793005 + 1442695040888963407
		return seed
	}
	next()
	next()
	next()
	l := &lattice{}
	for i := int64(255); i >= 0; i-- {
		r := (next() + 31) % (i + 1)
		if r < 0 {
			r += i + 1
		}
		l.perm[i] = source[r]
		source[r] = source[i]
	}
	for v := range l.gradients {
		l.gradients[v] = gradients[v%len(gradients)]
	}
	return l
}

// gradients are all signs of (11, 4, 4), (4, 11, 4) and (4, 4, 11), in opensimplex-go's order.
var gradients = func() (g [24][3]float64) {
	for i := range g {
		signs := i / 3
		for axis := range 3 {
			g[i][axis] = 4
			if axis == i%3 {
				g[i][axis] = 11
			}
			if minus := signs>>axis&1 == 1; minus != (axis == 0) {
				g[i][axis] *= -1
			}
		}
	}
	return g
}()

// What pushes coordinates onto the lattice, what pushes lattice points back, and what noise is divided by.
const (
	stretch = -1.0 / 6
	squish  = 1.0 / 3
	norm    = 103
)

// corner is a lattice point's steps from the origin of a place's cell. Its coordinates are less than those from the
// origin by first, by a multiple of squish, and by last: three differences, taken one after the other.
type corner struct {
	first, last [3]float64
	squishes    int
}

func step(x, y, z float64, squishes int) corner {
	return corner{first: [3]float64{x, y, z}, squishes: squishes}
}

// stepAlong is a step of on along the axes of bits (1 for x, 2 for y, 4 for z) and off along the others.
func stepAlong(bits int, on, off float64, squishes int) corner {
	at := [3]float64{off, off, off}
	for axis := range at {
		if bits>>axis&1 == 1 {
			at[axis] = on
		}
	}
	return corner{first: at, squishes: squishes}
}

// late takes by from first and adds it to last.
func (c corner) late(axis int, by float64) corner {
	c.first[axis] -= by
	c.last[axis] += by
	return c
}

// of returns the corner's coordinate along an axis, modulo 256, where the cell's is cell.
func (c corner) of(cell float64, axis int) uint8 {
	return uint8(int64(cell + c.first[axis] + c.last[axis]))
}

// appendTerms appends the terms of the noise at x, y, z, whose sizes must be below 2^29.
func appendTerms(terms []term, x, y, z float64) []term {
	offset := (x + y + z) * stretch
	xs, ys, zs := x+offset, y+offset, z+offset
	xc, yc, zc := math.Floor(xs), math.Floor(ys), math.Floor(zs)
	offset = (xc + yc + zc) * squish
	dx, dy, dz := x-(xc+offset), y-(yc+offset), z-(zc+offset)
	var room [8]corner
	for _, c := range appendCorners(room[:0], xs-xc, ys-yc, zs-zc) {
		pushed := float64(c.squishes) * squish
		cx := dx - c.first[0] - pushed - c.last[0]
		cy := dy - c.first[1] - pushed - c.last[1]
		cz := dz - c.first[2] - pushed - c.last[2]
		if a := 2 - cx*cx - cy*cy - cz*cz; a > 0 {
			a *= a
			terms = append(terms, term{a * a, cx, cy, cz, c.of(xc, 0), c.of(yc, 1), c.of(zc, 2)})
		}
	}
	return terms
}

// The corners of a cell's cube but for (0, 0, 0) and (1, 1, 1).
var (
	nearCorners = []corner{step(1, 0, 0, 1), step(0, 1, 0, 1), step(0, 0, 1, 1)}
	farCorners  = []corner{step(1, 1, 0, 2), step(1, 0, 1, 2), step(0, 1, 1, 2)}
)

// appendCorners appends the lattice points for a place in a cell's cube: those of the tetrahedron or octahedron that it
// lies in and two more, which depend on which of them are nearest. These are named by bits, as axes are.
func appendCorners(to []corner, x, y, z float64) []corner {
	var more [2]corner
	switch sum := x + y + z; {
	case sum <= 1:
		to = append(append(to, step(0, 0, 0, 0)), nearCorners...)
		more = nearPair(x, y, z, 1-sum)
	case sum >= 2:
		to = append(append(to, farCorners...), step(1, 1, 1, 3))
		more = farPair(x, y, z, 3-sum)
	default:
		to = append(append(to, nearCorners...), farCorners...)
		more = middlePair(x, y, z)
	}
	return append(to, more[:]...)
}

// nearPair is for the tetrahedron at (0, 0, 0), to which w is near.
func nearPair(x, y, z, w float64) [2]corner {
	a, b, aScore, bScore := 1, 2, x, y
	if aScore >= bScore && z > bScore {
		b, bScore = 4, z
	} else if aScore < bScore && z > aScore {
		a, aScore = 4, z
	}
	if !(w > aScore || w > bScore) {
		return [2]corner{stepAlong(a|b, 1, 0, 2), stepAlong(a|b, 1, -1, 1)}
	}
	if bScore > aScore {
		a = b
	}
	switch a {
	case 1:
		return [2]corner{step(1, -1, 0, 0), step(1, 0, -1, 0)}
	case 2:
		return [2]corner{step(-1, 1, 0, 0), step(0, 1, -1, 0)}
	}
	return [2]corner{step(-1, 0, 1, 0), step(0, -1, 1, 0)}
}

// farPair is for the tetrahedron at (1, 1, 1), to which w is near.
func farPair(x, y, z, w float64) [2]corner {
	a, b, aScore, bScore := 6, 5, x, y
	if aScore <= bScore && z < bScore {
		b, bScore = 3, z
	} else if aScore > bScore && z < aScore {
		a, aScore = 3, z
	}
	if !(w < aScore || w < bScore) {
		return [2]corner{stepAlong(a&b, 1, 0, 1), stepAlong(a&b, 2, 0, 2)}
	}
	if bScore < aScore {
		a = b
	}
	switch a {
	case 3:
		return [2]corner{step(2, 1, 0, 3), step(1, 2, 0, 3).late(1, 1)}
	case 5:
		return [2]corner{step(2, 0, 1, 3), step(1, 0, 2, 3)}
	}
	return [2]corner{step(0, 2, 1, 3).late(1, 1), step(0, 1, 2, 3)}
}

// middlePair is for the octahedron in between. Of its three pairs of opposite corners the two with the nearest ones
// count; corners of two bits are on the side of (1, 1, 1).
func middlePair(x, y, z float64) [2]corner {
	nearest := func(sum float64, far, near int) (corner int, isFar bool, score float64) {
		if sum > 1 {
			return far, true, sum - 1
		}
		return near, false, 1 - sum
	}
	a, aFar, aScore := nearest(x+y, 3, 4)
	b, bFar, bScore := nearest(x+z, 5, 2)
	c, cFar, cScore := nearest(y+z, 6, 1)
	if aScore <= bScore && aScore < cScore {
		a, aFar = c, cFar
	} else if aScore > bScore && bScore < cScore {
		b, bFar = c, cFar
	}
	switch {
	case aFar && bFar:
		return [2]corner{step(1, 1, 1, 3), stepAlong(a&b, 2, 0, 2)}
	case !aFar && !bFar:
		return [2]corner{step(0, 0, 0, 0), stepAlong(a|b, 1, -1, 1)}
	case bFar:
		a, b = b, a
	}
	return [2]corner{stepAlong(a, 1, -1, 1), stepAlong(b, 2, 0, 2).late(b/2, 2)}
}
