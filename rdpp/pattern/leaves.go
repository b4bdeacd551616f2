package pattern

import "math"

// heap is dead leaves: shapes of one family that fall on each other. Their places belong to the instance, their form,
// sizes and directions to the class.
type heap struct {
	corners    int     // 0: ellipses
	least      float64 // smallest radius
	power      float64 // of the law of sizes
	aspect     float64
	direction  float64
	spread     float64 // of the directions
	dome, line float64 // shading within a shape, and its outline
	tones      float64 // how much the shapes differ
}

const maxCorners = 6

func newHeap(r *random) *heap {
	h := &heap{least: r.ratio(0.06, 0.25), power: r.between(1, 3), aspect: r.ratio(0.15, 1), direction: r.angle(),
		spread: r.between(0, math.Pi), dome: r.between(0, 0.8), tones: r.between(0.4, 1)}
	if r.chance(0.6) {
		h.corners = 3 + r.intn(maxCorners-2)
	}
	if r.chance(0.4) {
		h.line = r.between(0.1, 0.4)
	}
	return h
}

func newLeaves(r *random) program {
	outline, h := newOutline(r), newHeap(r)
	return surface{outline, h}
}

func (h *heap) paint(c *canvas, at pose, r *random) { h.drop(c, at, r) }

// fill covers the picture.
func (h *heap) fill(c *canvas, r *random) { h.drop(c, wide(c.size), r) }

func (h *heap) drop(c *canvas, at pose, r *random) {
	for i := range c.alpha {
		c.alpha[i], c.tone[i] = 1, 0.5
	}
	scale := float64(c.size) / 2
	least := r.jitter(h.least, 0.15) * at.radius
	n := min(int(0.35*scale*scale/(least*least*h.aspect))+8, 200)
	for i := range n {
		// Large ones fall first, so that small ones are not buried.
		size := min(least*math.Pow(float64(n)/float64(i+1), 0.5/h.power)*2, scale)
		turn := h.direction + r.between(-h.spread, h.spread)
		sin, cos := math.Sincos(turn)
		cos, sin = cos*at.cos-sin*at.sin, sin*at.cos+cos*at.sin
		leaf := pose{x: r.between(0, float64(c.size)), y: r.between(0, float64(c.size)), radius: size, cos: cos, sin: sin, aspect: h.aspect}
		h.leaf(c, leaf, float32(0.5+h.tones*(r.float()-0.5)))
	}
}

func (h *heap) leaf(c *canvas, at pose, tone float32) {
	x0, y0, x1, y1 := at.bounds(c.size, 1)
	var normals [maxCorners][2]float64 // of the sides, by their distance from the centre
	for i := range h.corners {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / float64(h.corners))
		inner := math.Cos(math.Pi / float64(h.corners))
		normals[i] = [2]float64{cos / inner, sin / inner}
	}
	for y := y0; y < y1; y++ {
		for x := x0; x < x1; x++ {
			u, v := at.form(x, y)
			d := math.Sqrt(u*u + v*v)
			if h.corners > 0 { // how far out towards the middle of the nearest side
				d = 0
				for _, n := range normals[:h.corners] {
					d = max(d, u*n[0]+v*n[1])
				}
			}
			if d > 1 {
				continue
			}
			t := tone + float32(h.dome*(0.5-d)*0.6)
			if d > 1-h.line {
				t = 0
			}
			c.tone[y*c.size+x] = t
		}
	}
}
