package pattern

import "math"

// fractal is an iterated function system: the attractor of 2 to 7 affine maps, seen as the density of its points.
type fractal struct {
	maps []affine
}

// affine maps (x, y) to (a x + b y + e, c x + d y + f); upto is its cumulated probability.
type affine struct{ a, b, c, d, e, f, upto float64 }

// newFractal draws maps whose singular values together make a figure neither a dot nor a cloud (Anderson and Farrell,
// "Improving Fractal Pre-training", 2022, section 3.2).
func newFractal(r *random) program {
	n := 2 + r.intn(6)
	values := make([]float64, 2*n)
	low, high := 0.5*(5+float64(n)), 0.5*(6+float64(n))
	for range 200 {
		sum := 0.0
		for i := range n {
			s1 := r.between(0.3, 0.95)
			s2 := r.between(0.2, s1)
			values[2*i], values[2*i+1] = s1, s2
			sum += s1 + 2*s2
		}
		if sum >= low && sum <= high {
			break
		}
	}
	p := &fractal{maps: make([]affine, n)}
	for i := range p.maps {
		s1, s2 := values[2*i], values[2*i+1]
		sa, ca := math.Sincos(r.angle())
		sb, cb := math.Sincos(r.angle())
		if r.chance(0.5) {
			s2 = -s2
		}
		p.maps[i] = affine{a: s1*ca*cb - s2*sa*sb, b: -s1*ca*sb - s2*sa*cb, c: s1*sa*cb + s2*ca*sb, d: -s1*sa*sb + s2*ca*cb,
			e: r.between(-1, 1), f: r.between(-1, 1)}
	}
	return p
}

func (p *fractal) paint(c *canvas, at pose, r *random) {
	const share = 0.12
	maps := make([]affine, len(p.maps))
	sum := 0.0
	for i, m := range p.maps {
		m = affine{a: r.jitter(m.a, share), b: r.jitter(m.b, share), c: r.jitter(m.c, share), d: r.jitter(m.d, share),
			e: r.jitter(m.e, share), f: r.jitter(m.f, share)}
		sum += math.Abs(m.a*m.d-m.b*m.c) + 0.02
		m.upto = sum
		maps[i] = m
	}
	points := make([][2]float64, c.size*c.size*3/4)
	var x, y float64
	var mx, my, sx, sy float64
	const settle = 20
	for i := -settle; i < len(points); i++ {
		choice, k := r.float()*sum, 0
		for k < len(maps)-1 && choice >= maps[k].upto {
			k++
		}
		m := &maps[k]
		x, y = m.a*x+m.b*y+m.e, m.c*x+m.d*y+m.f
		if !(x*x+y*y < 1e6) { // moved so far that it no longer contracts
			x, y = 0, 0
		}
		if i >= 0 {
			points[i] = [2]float64{x, y}
			mx, my = mx+x, my+y
			sx, sy = sx+x*x, sy+y*y
		}
	}
	n := float64(len(points))
	mx, my = mx/n, my/n
	spread := 2*math.Sqrt(max(sx/n-mx*mx, sy/n-my*my, 0)) + 1e-9 // two deviations fill the form
	most := float32(1)
	for _, q := range points {
		px, py := at.pixel((q[0]-mx)/spread, (q[1]-my)/spread)
		if px >= 0 && py >= 0 && px < float64(c.size) && py < float64(c.size) {
			i := int(py)*c.size + int(px)
			c.alpha[i]++
			most = max(most, c.alpha[i])
		}
	}
	scale := float32(1 / math.Log1p(float64(most)))
	for i, count := range c.alpha {
		if count > 0 {
			density := scale * float32(math.Log1p(float64(count)))
			c.alpha[i], c.tone[i] = min(1.6*density, 1), density
		}
	}
}
