package pattern

import "math"

// thread is a round bar seen from the side, wound with a ridge, perhaps with a head and a plain neck.
type thread struct {
	radius, turns, depth float64
	slope                float64 // of the ridge across the bar, in turns
	sharpness            float64 // of the ridge's profile
	from, to             float64 // where the ridge begins and ends on u
	head, headRadius     float64 // length; 0: none
	round                float64 // how much the bar's own roundness shades it
	twin                 bool    // a second ridge the other way: a knurl
}

func newThread(r *random) program {
	t := &thread{radius: r.ratio(0.08, 0.45), turns: r.ratio(3, 20), depth: r.between(0.02, 0.2), slope: r.between(-0.8, 0.8),
		sharpness: r.ratio(0.4, 3), from: r.between(-1, -0.2), to: r.between(0.3, 1), round: r.between(0.2, 1), twin: r.chance(0.2)}
	if r.chance(0.6) {
		t.head, t.headRadius = r.between(0.1, 0.4), t.radius*r.between(1.2, 2.5)
	}
	return t
}

func (t *thread) paint(c *canvas, at pose, r *random) {
	// A bar lies any way; what is anywhere near its class is the ridge.
	at.sin, at.cos = math.Sincos(r.angle())
	turns, phase, depth := r.jitter(t.turns, 0.1), r.float(), r.jitter(t.depth, 0.2)*t.radius
	radius, lamp := r.jitter(t.radius, 0.1), r.between(-0.5, 0.5)
	edge := 0.7 / at.radius
	profile := newProfile(t.sharpness)
	c.each(at, func(u, v float64) (alpha, tone float64) {
		if u < -1 || u > 1 {
			return 0, 0
		}
		R, ridge := radius, 0.5
		switch {
		case u < -1+t.head:
			R = t.headRadius
		case u > t.from && u < t.to:
			side := v / radius
			ridge = profile.at(u*turns + side*t.slope + phase)
			if t.twin {
				ridge = 0.5 * (ridge + profile.at(u*turns-side*t.slope-phase))
			}
			R += depth * (2*ridge - 1)
		}
		d := math.Abs(v) - R
		if d > edge {
			return 0, 0
		}
		s := v/R - lamp
		shade := math.Sqrt(max(1-s*s, 0))
		return cover(d, edge), (1-t.round)*ridge + t.round*shade*(0.45+0.55*ridge)
	})
}

// profile is a wave of period 1 between 0 and 1, flat-topped or peaked by its sharpness.
type profile [256]float64

func newProfile(sharpness float64) *profile {
	p := new(profile)
	for i := range p {
		x := (float64(i) + 0.5) / float64(len(p))
		p[i] = math.Pow(1-math.Abs(2*x-1), sharpness)
	}
	return p
}

func (p *profile) at(x float64) float64 { return p[int((x-math.Floor(x))*float64(len(p)))&(len(p)-1)] }
