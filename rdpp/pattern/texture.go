package pattern

import "math"

// newTexture is a surface: waves, cells or a weave.
func newTexture(r *random) program {
	outline := newOutline(r)
	switch choice := r.float(); {
	case choice < 0.5:
		return surface{outline, newWaves(r)}
	case choice < 0.75:
		return surface{outline, &cells{density: r.ratio(2, 9), order: r.float(), edge: r.between(0.2, 1.2), aspect: r.ratio(0.4, 2.5)}}
	}
	return surface{outline, &weave{threads: r.ratio(2, 10), gap: r.between(0, 0.35), over: 1 + r.intn(3), aspect: r.ratio(0.5, 2),
		ply: r.between(0, 6), turn: r.between(-0.8, 0.8)}}
}

// surface is a program seen within an outline.
type surface struct {
	outline
	fill program
}

// outline is a superellipse, or everything.
type outline struct {
	power, u, v float64 // power 0: everything
}

func newOutline(r *random) outline {
	if r.chance(0.4) {
		return outline{}
	}
	return outline{r.ratio(1, 6), r.between(0.5, 1), r.between(0.5, 1)}
}

func (s surface) paint(c *canvas, at pose, r *random) {
	s.fill.paint(c, at, r)
	o := s.outline
	if o.power == 0 {
		if !c.crowded {
			return
		}
		o = outline{2, 0.9, 0.9}
	}
	u0, v0 := r.jitter(o.u, 0.15), r.jitter(o.v, 0.15)
	edge := 1 / at.radius
	round := math.Pow(2, -1/o.power) // no farther out than 1/round of its larger coordinate is any point
	for y := range c.size {
		for x := range c.size {
			i := y*c.size + x
			u, v := at.form(x, y)
			u, v = math.Abs(u/u0), math.Abs(v/v0)
			switch d := max(u, v); {
			case d > 1+edge:
				c.alpha[i] = 0
			case d > (1-edge)*round:
				d = math.Pow(math.Pow(u, o.power)+math.Pow(v, o.power), 1/o.power) - 1
				c.alpha[i] *= float32(cover(d, edge))
			}
		}
	}
}

// waves is a sum of plane waves through a curve. Their phases belong to the instance, their spectrum to the class.
type waves struct {
	u, v, weight []float64
	curve        int
	level        float64 // of the threshold
	warp, slow   float64 // strength and frequency of the bending
}

func newWaves(r *random) *waves {
	w := &waves{curve: r.intn(4), level: r.between(-0.3, 0.3), slow: r.between(1, 5)}
	if r.chance(0.4) {
		w.warp = r.between(0.1, 0.6)
	}
	centre, spread := r.angle(), r.between(0, math.Pi/2)
	base := r.ratio(3, 25)
	n := 1 + r.intn(6)
	sum := 0.0
	for range n {
		sin, cos := math.Sincos(centre + r.between(-spread, spread))
		f := base * r.ratio(0.5, 2)
		weight := 1 / (0.3 + r.float())
		w.u, w.v, w.weight = append(w.u, f*cos), append(w.v, f*sin), append(w.weight, weight)
		sum += weight
	}
	for i := range w.weight {
		w.weight[i] /= sum
	}
	return w
}

func (w *waves) paint(c *canvas, at pose, r *random) {
	phases := make([]float64, len(w.u))
	for i := range phases {
		phases[i] = r.angle()
	}
	bendU, bendV := r.angle(), r.angle()
	everywhere(c, at, func(u, v float64) float64 {
		if w.warp > 0 {
			u, v = u+w.warp*sine(w.slow*v+bendU)/w.slow, v+w.warp*sine(w.slow*u+bendV)/w.slow
		}
		sum := 0.0
		for i, weight := range w.weight {
			sum += weight * sine(u*w.u[i]+v*w.v[i]+phases[i])
		}
		switch w.curve {
		case 0:
			return 0.5 + 0.5*sum
		case 1:
			return math.Abs(sum)
		case 2:
			return min(max(0.5+4*(sum-w.level), 0), 1)
		}
		return sum - math.Floor(sum) // steps
	})
}

// sine is math.Sin with an error of 0.001, several times faster.
func sine(x float64) float64 {
	x *= 1 / (2 * math.Pi)
	x -= math.Floor(x + 0.5)    // a turn, -1/2..1/2
	y := 8*x - 16*x*math.Abs(x) // a parabola through the zeroes and extremes
	return y * (0.775 + 0.225*math.Abs(y))
}

// everywhere sets the tones of all pixels, which the form covers.
func everywhere(c *canvas, at pose, tone func(u, v float64) float64) {
	for y := range c.size {
		for x := range c.size {
			i := y*c.size + x
			c.alpha[i], c.tone[i] = 1, float32(tone(at.form(x, y)))
		}
	}
}

// cells are a mosaic of the regions nearest to scattered points: a grain, scales or a cracked surface.
type cells struct {
	density float64 // cells per unit
	order   float64 // 0 scattered .. 1 a grid
	edge    float64 // contrast of the joints
	aspect  float64
}

func (p *cells) paint(c *canvas, at pose, r *random) {
	seed := r.next()
	density, loose := r.jitter(p.density, 0.12), 1-p.order
	point := func(i, j int) (u, v, shade float64) {
		s := random{seed ^ uint64(uint32(i))<<32 ^ uint64(uint32(j))}
		return float64(i) + 0.5 + loose*(s.float()-0.5), float64(j) + 0.5 + loose*(s.float()-0.5), s.float()
	}
	everywhere(c, at, func(u, v float64) float64 {
		u, v = u*density, v*density*p.aspect
		i0, j0 := int(math.Floor(u)), int(math.Floor(v))
		first, second, tone := 9.0, 9.0, 0.0
		for i := i0 - 1; i <= i0+1; i++ {
			for j := j0 - 1; j <= j0+1; j++ {
				x, y, shade := point(i, j)
				d := (u-x)*(u-x) + (v-y)*(v-y)
				if d < first {
					first, second, tone = d, first, shade
				} else if d < second {
					second = d
				}
			}
		}
		joint := min(4*(math.Sqrt(second)-math.Sqrt(first)), 1)
		return (0.25+0.5*tone)*(1-p.edge) + p.edge*joint*(0.6+0.4*tone)
	})
}

// weave is cloth: two families of threads that pass over and under each other.
type weave struct {
	threads float64 // per unit
	gap     float64 // share of the pitch between threads
	over    int     // threads passed over at once
	aspect  float64
	ply     float64 // twists seen on a thread, per crossing
	turn    float64
}

func (p *weave) paint(c *canvas, at pose, r *random) {
	sin, cos := math.Sincos(p.turn)
	threads, du, dv := r.jitter(p.threads, 0.12), r.float(), r.float()
	half := 0.5 * (1 - p.gap)
	everywhere(c, at, func(u, v float64) float64 {
		u, v = threads*(u*cos+v*sin)+du, threads*p.aspect*(v*cos-u*sin)+dv
		iu, iv := math.Floor(u), math.Floor(v)
		x, y := u-iu-0.5, v-iv-0.5 // across the one, across the other
		warpOnTop := math.Mod(math.Floor((iu+iv)/float64(p.over)), 2) == 0
		inWarp, inWeft := math.Abs(x) < half, math.Abs(y) < half
		switch {
		case inWarp && (warpOnTop || !inWeft):
			return (1 - 2*x*x) * (0.8 + 0.2*math.Cos(math.Pi*y)) * (0.85 + 0.15*sine(2*math.Pi*p.ply*(y+x)))
		case inWeft:
			return (0.75 - 1.5*y*y) * (0.8 + 0.2*math.Cos(math.Pi*x)) * (0.85 + 0.15*sine(2*math.Pi*p.ply*(x+y)))
		}
		return 0
	})
}
