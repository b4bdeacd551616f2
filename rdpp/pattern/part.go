package pattern

import "math"

// part is a thing of simple bodies, some of them cut out, with bevelled edges in the light of a lamp, and perhaps a
// row of thin legs.
type part struct {
	bodies []body
	bevel  float64 // width of the sloping edge
	light  float64 // where the lamp stands
	legs   struct {
		count               int // 0: none
		from, pitch         float64
		top, length, radius float64
		lean                float64
	}
	stripes struct{ strength, u, v float64 }
}

// body is a solid given by its signed distance.
type body struct {
	shape         int // disc, box, capsule or ring
	cut           bool
	u, v          float64
	a, b          float64 // half sizes
	sin, cos      float64
	tone          float64
	roundness     float64
	shift, growth float64 // how much of the jitter it takes
}

const (
	disc = iota
	box
	capsule
	ring
	shapes
)

func newPart(r *random) program {
	p := &part{bevel: r.ratio(0.03, 0.4), light: r.angle()}
	for i := range 2 + r.intn(5) {
		b := body{shape: r.intn(shapes), cut: i > 0 && r.chance(0.3), u: r.between(-0.6, 0.6), v: r.between(-0.6, 0.6),
			a: r.ratio(0.12, 0.55), tone: r.between(0, 0.7), shift: r.between(0, 0.08), growth: r.between(0, 0.15)}
		b.b = b.a * r.ratio(0.3, 1)
		if i == 0 { // the main one
			b.u, b.v, b.a, b.b = b.u/3, b.v/3, 0.75*math.Sqrt(b.a), 0.75*math.Sqrt(b.b)
		}
		turn := 0.0
		if r.chance(0.6) {
			turn = r.angle()
		}
		b.sin, b.cos = math.Sincos(turn)
		b.roundness = b.b * r.between(0, 0.8)
		p.bodies = append(p.bodies, b)
	}
	if r.chance(0.35) {
		l := &p.legs
		l.count = 2 + r.intn(6)
		l.pitch = r.between(0.7, 1.6) / float64(l.count)
		l.from = -l.pitch * float64(l.count-1) / 2
		l.top, l.length, l.radius, l.lean = r.between(-0.2, 0.3), r.between(0.5, 1), l.pitch*r.between(0.08, 0.3), r.between(-0.3, 0.3)
	}
	if r.chance(0.4) {
		sin, cos := math.Sincos(r.angle())
		f := r.ratio(6, 40)
		p.stripes.strength, p.stripes.u, p.stripes.v = r.between(0.05, 0.3), f*cos, f*sin
	}
	return p
}

// distance is negative inside.
func (b *body) distance(u, v float64) float64 {
	u, v = u-b.u, v-b.v
	u, v = u*b.cos+v*b.sin, v*b.cos-u*b.sin
	switch b.shape {
	case disc:
		return math.Sqrt(u*u+v*v) - b.a
	case ring:
		return math.Abs(math.Sqrt(u*u+v*v)-b.a) - 0.35*b.b
	case capsule:
		u = max(math.Abs(u)-b.a, 0)
		return math.Sqrt(u*u+v*v) - 0.5*b.b
	}
	u, v = math.Abs(u)-b.a+b.roundness, math.Abs(v)-b.b+b.roundness
	outside := math.Sqrt(max(u, 0)*max(u, 0) + max(v, 0)*max(v, 0))
	return outside + min(max(u, v), 0) - b.roundness
}

func (p *part) paint(c *canvas, at pose, r *random) {
	bodies := make([]body, len(p.bodies))
	for i, b := range p.bodies {
		b.u, b.v = b.u+r.between(-b.shift, b.shift), b.v+r.between(-b.shift, b.shift)
		b.a, b.b = r.jitter(b.a, b.growth), r.jitter(b.b, b.growth)
		bodies[i] = b
	}
	lightSin, lightCos := math.Sincos(p.light + r.between(-0.5, 0.5))
	bevel := r.jitter(p.bevel, 0.2)
	phase := r.angle()
	legs := p.legs
	legs.length, legs.lean = r.jitter(legs.length, 0.1), legs.lean+r.between(-0.1, 0.1)
	edge := 0.7 / at.radius // half a pixel
	c.each(at, func(u, v float64) (alpha, tone float64) {
		d, du, dv := math.Inf(1), 0.0, 0.0
		const h = 0.01
		for i := range bodies {
			b := &bodies[i]
			e := b.distance(u, v)
			if b.cut {
				if -e <= d {
					continue
				}
				d, du, dv = -e, e-b.distance(u+h, v), e-b.distance(u, v+h)
				continue
			}
			if e < d {
				d, du, dv = e, b.distance(u+h, v)-e, b.distance(u, v+h)-e
				tone = b.tone
			}
		}
		if d > edge && legs.count > 0 {
			w := v - legs.top
			k := math.Round((u - legs.lean*w - legs.from) / legs.pitch)
			k = min(max(k, 0), float64(legs.count-1))
			across := u - legs.lean*w - legs.from - k*legs.pitch
			along := max(-w, w-legs.length, 0)
			if e := math.Sqrt(across*across+along*along) - legs.radius; e < d {
				d, tone = e, 0.6+0.4*(1-(across*across)/(legs.radius*legs.radius))
				return cover(d, edge), tone
			}
		}
		if d > edge {
			return 0, 0
		}
		if d > -bevel {
			tone += 40 * (du*lightCos + dv*lightSin) * (1 + d/bevel)
		}
		if s := &p.stripes; s.strength > 0 {
			tone += s.strength * math.Sin(u*s.u+v*s.v+phase)
		}
		return cover(d, edge), tone
	})
}

// cover is how much of a pixel lies inside an edge at signed distance d.
func cover(d, edge float64) float64 { return min(max(0.5-0.5*d/edge, 0), 1) }
