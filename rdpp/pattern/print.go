package pattern

import "math"

// print is rows of signs of an alphabet that the class invented, or bars, as on labels and boards.
type print struct {
	signs          [][]stroke
	text           []int // one after the other, again and again
	columns, rows  float64
	width, spacing float64 // of a stroke and between signs, in signs
	plate          float64 // tone of what is printed on; below 0: nothing is
}

// stroke joins two places within -1..1 of a sign.
type stroke struct{ u0, v0, u1, v1 float64 }

func newPrint(r *random) program {
	p := &print{columns: math.Round(r.ratio(2, 9)), rows: math.Round(r.ratio(1, 6)), width: r.between(0.08, 0.25),
		spacing: r.between(1.1, 1.6), plate: r.between(-1, 0.6)}
	place := func() float64 { return float64(r.intn(3)-1) * 0.8 } // on a grid of 3 x 3
	for range 2 + r.intn(5) {
		var sign []stroke
		u, v := place(), place()
		for range 1 + r.intn(4) {
			s := stroke{u, v, place(), place()}
			sign = append(sign, s)
			if u, v = s.u1, s.v1; r.chance(0.3) {
				u, v = place(), place()
			}
		}
		p.signs = append(p.signs, sign)
	}
	for range 3 + r.intn(14) {
		p.text = append(p.text, r.intn(len(p.signs)))
	}
	return p
}

func (p *print) paint(c *canvas, at pose, r *random) {
	width, start := r.jitter(p.width, 0.2), r.intn(len(p.text))
	su, sv := p.columns/2, p.rows/2
	edge := 0.7 / at.radius * max(su, sv) * 2
	c.each(at, func(u, v float64) (alpha, tone float64) {
		if math.Abs(u) > 1 || math.Abs(v) > 1 {
			return 0, 0
		}
		x, y := (u+1)*su, (v+1)*sv
		column, row := math.Floor(x), math.Floor(y)
		sign := p.signs[p.text[(start+int(row*p.columns+column))%len(p.text)]]
		x, y = (x-column-0.5)*2*p.spacing, (y-row-0.5)*2*p.spacing
		d := 9.0
		for _, s := range sign {
			d = min(d, s.distance(x, y))
		}
		ink := cover(d-width, edge)
		if p.plate >= 0 {
			return 1, p.plate + ink*(1-p.plate)
		}
		return ink, 1
	})
}

func (s stroke) distance(x, y float64) float64 {
	du, dv := s.u1-s.u0, s.v1-s.v0
	x, y = x-s.u0, y-s.v0
	t := min(max((x*du+y*dv)/(du*du+dv*dv+1e-9), 0), 1)
	x, y = x-t*du, y-t*dv
	return math.Sqrt(x*x + y*y)
}
