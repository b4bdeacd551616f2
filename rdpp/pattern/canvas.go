package pattern

import "math"

// canvas is a picture in the making, and the form that is being painted over it: how far it covers each pixel, alpha,
// and which of its tones it shows there, both 0..1.
type canvas struct {
	size        int
	rgb         [3][]float32 // S x S each, 0..1
	alpha, tone []float32    // S x S
	crowded     bool         // several forms share the picture: none may take all of it
}

func newCanvas(size int) *canvas {
	n := size * size
	memory := make([]float32, 5*n)
	c := &canvas{size: size, alpha: memory[3*n : 4*n], tone: memory[4*n:]}
	for i := range c.rgb {
		c.rgb[i] = memory[i*n : (i+1)*n]
	}
	return c
}

// clear takes the form away.
func (c *canvas) clear() {
	clear(c.alpha)
	clear(c.tone)
}

// pose places a form in the picture.
type pose struct {
	x, y     float64 // centre, pixels
	radius   float64 // pixels per unit of u
	cos, sin float64
	aspect   float64 // a unit of v is this many of u
}

// newPose turns by some 25 degrees either way: what is upright stays distinct from what lies.
func newPose(size int, r *random, least, most, shift float64) pose {
	s := float64(size)
	sin, cos := math.Sincos(r.between(-0.45, 0.45))
	return pose{x: s * (0.5 + r.between(-shift, shift)), y: s * (0.5 + r.between(-shift, shift)),
		radius: s * r.ratio(least, most), cos: cos, sin: sin, aspect: r.ratio(0.8, 1.25)}
}

// form turns the centre of pixel (x, y) into coordinates of the form.
func (p pose) form(x, y int) (u, v float64) {
	dx, dy := (float64(x)+0.5-p.x)/p.radius, (float64(y)+0.5-p.y)/p.radius
	return dx*p.cos + dy*p.sin, (dy*p.cos - dx*p.sin) / p.aspect
}

// pixel is the inverse of form, in pixels from the picture's corner.
func (p pose) pixel(u, v float64) (x, y float64) {
	v *= p.aspect
	return p.x + p.radius*(u*p.cos-v*p.sin), p.y + p.radius*(u*p.sin+v*p.cos)
}

// each calls shade for every pixel of the picture that a form within |u|, |v| <= 1.2 can touch.
func (c *canvas) each(at pose, shade func(u, v float64) (alpha, tone float64)) {
	x0, y0, x1, y1 := at.bounds(c.size, 1.2)
	for y := y0; y < y1; y++ {
		for x := x0; x < x1; x++ {
			alpha, tone := shade(at.form(x, y))
			c.alpha[y*c.size+x], c.tone[y*c.size+x] = float32(alpha), float32(tone)
		}
	}
}

// bounds returns the pixels around |u|, |v| <= reach.
func (p pose) bounds(size int, reach float64) (x0, y0, x1, y1 int) {
	u, v := reach*p.radius, reach*p.radius*p.aspect
	dx, dy := math.Abs(u*p.cos)+math.Abs(v*p.sin), math.Abs(u*p.sin)+math.Abs(v*p.cos)
	limit := func(z float64) int { return min(max(int(z), 0), size) }
	return limit(p.x - dx), limit(p.y - dy), limit(p.x + dx + 1), limit(p.y + dy + 1)
}

// colour is red, green and blue, 0..1.
type colour [3]float32

// newColour favours dull ones, as most things are.
func newColour(r *random) colour {
	light, strength := r.float(), 0.6*r.float()*r.float()
	hue := r.angle()
	var c colour
	for i := range c {
		c[i] = float32(light + strength*math.Cos(hue+float64(i)*2*math.Pi/3))
	}
	return c
}

// ink is what a form is painted with: the colours of its tones 0 and 1.
type ink struct{ dark, bright colour }

func newInk(r *random) ink { return ink{newColour(r), newColour(r)} }

// newInkOn draws inks until one stands out from what lies behind, though not always by much.
func newInkOn(ground float32, r *random) ink {
	wanted := float32(r.between(0.05, 0.45))
	var k ink
	for range 8 {
		k = newInk(r)
		dark, bright := k.dark.light(), k.bright.light()
		middle := (dark+bright)/2 - ground
		if max(middle, -middle)+max(dark-bright, bright-dark)/3 > wanted {
			break
		}
	}
	return k
}

// near moves an ink a little.
func (k ink) near(r *random) ink {
	for i := range k.dark {
		k.dark[i] += float32(r.between(-0.06, 0.06))
		k.bright[i] += float32(r.between(-0.06, 0.06))
	}
	return k
}

func (c colour) light() float32 { return 0.3*c[0] + 0.59*c[1] + 0.11*c[2] }

// light is the mean over the picture.
func (c *canvas) light() float32 {
	var sum [3]float32
	for channel, plane := range c.rgb {
		for _, v := range plane {
			sum[channel] += v
		}
	}
	return colour(sum).light() / float32(len(c.rgb[0]))
}

// compose paints the form.
func (c *canvas) compose(k ink) {
	for channel, plane := range c.rgb {
		dark, range_ := k.dark[channel], k.bright[channel]-k.dark[channel]
		for i, alpha := range c.alpha {
			if alpha > 0 {
				plane[i] += alpha * (dark + range_*c.tone[i] - plane[i])
			}
		}
	}
}

// ground is what a form lies on: plain, shaded, clouded, waved or crowded.
type ground struct {
	ink
	kind      float64
	direction float64
	roughness float64
	waves     *waves
	heap      *heap
}

func newGround(r *random) *ground {
	g := &ground{ink: newInk(r), kind: r.float(), direction: r.angle(), roughness: r.between(0.4, 0.8)}
	if r.chance(0.6) { // most surfaces are of one colour, more or less
		share := float32(r.between(0, 0.4))
		for i := range g.bright {
			g.bright[i] = g.dark[i] + share*(g.bright[i]-g.dark[i])
		}
	}
	switch {
	case g.kind < 0.75:
	case g.kind < 0.9:
		g.waves = newWaves(r)
	default:
		g.heap = newHeap(r)
	}
	return g
}

func (g *ground) paint(c *canvas, r *random) {
	for i := range c.alpha {
		c.alpha[i], c.tone[i] = 1, 0
	}
	switch {
	case g.kind < 0.3:
	case g.kind < 0.5:
		sin, cos := math.Sincos(g.direction + r.between(-0.5, 0.5))
		everywhere(c, wide(c.size), func(u, v float64) float64 { return 0.5 + 0.35*(u*cos+v*sin) })
	case g.kind < 0.75:
		c.clouds(r, g.roughness)
	case g.waves != nil:
		g.waves.paint(c, wide(c.size), r)
	default:
		g.heap.fill(c, r)
	}
	c.compose(g.ink.near(r))
}

// wide is a pose in which |u|, |v| <= 1 is the picture.
func wide(size int) pose {
	half := float64(size) / 2
	return pose{x: half, y: half, radius: half, cos: 1, aspect: 1}
}

// clouds sets the tones to noise whose octaves fall by `roughness`, 0..1.
func (c *canvas) clouds(r *random, roughness float64) {
	const octaves = 5
	weight, sum := 1.0, 0.0
	for cells := 2; cells < 2<<octaves && cells < c.size; cells *= 2 {
		c.lattice(r, cells, float32(weight))
		sum += weight
		weight *= roughness
	}
	scale := float32(1 / sum)
	for i := range c.tone {
		c.tone[i] = min(max(0.5+1.6*(c.tone[i]*scale-0.5), 0), 1)
	}
}

// lattice adds random values on a grid of cells x cells, smoothly joined.
func (c *canvas) lattice(r *random, cells int, weight float32) {
	side := cells + 1
	values := make([]float32, side*side)
	for i := range values {
		values[i] = weight * float32(r.float())
	}
	type sample struct {
		cell  int
		share float32
	}
	axis := make([]sample, c.size)
	for i := range axis {
		cell, share := math.Modf((float64(i) + 0.5) * float64(cells) / float64(c.size))
		axis[i] = sample{int(cell), float32(share * share * (3 - 2*share))}
	}
	for y, sy := range axis {
		top, row := values[sy.cell*side:], c.tone[y*c.size:]
		bottom := top[side:]
		for x, sx := range axis {
			a := top[sx.cell] + sx.share*(top[sx.cell+1]-top[sx.cell])
			b := bottom[sx.cell] + sx.share*(bottom[sx.cell+1]-bottom[sx.cell])
			row[x] += a + sy.share*(b-a)
		}
	}
}

// photograph does what cameras and lamps do: uneven light, contrast, loss of colour, blur, noise.
func (c *canvas) photograph(r *random) {
	if r.chance(0.35) { // a monochrome camera
		for i := range c.rgb[0] {
			grey := 0.3*c.rgb[0][i] + 0.59*c.rgb[1][i] + 0.11*c.rgb[2][i]
			c.rgb[0][i], c.rgb[1][i], c.rgb[2][i] = grey, grey, grey
		}
	}
	if r.chance(0.5) { // a lamp on one side
		sin, cos := math.Sincos(r.angle())
		strength := r.between(0, 0.4) / float64(c.size)
		dx, dy := float32(strength*cos), float32(strength*sin)
		for _, plane := range c.rgb {
			for y := range c.size {
				light := 1 + dy*float32(y-c.size/2) - dx*float32(c.size/2)
				row := plane[y*c.size : (y+1)*c.size]
				for x := range row {
					row[x] *= light
					light += dx
				}
			}
		}
	}
	contrast, shift := float32(r.between(0.7, 1.1)), float32(r.between(-0.1, 0.1))
	for _, plane := range c.rgb {
		for i, v := range plane {
			plane[i] = 0.5 + contrast*(v-0.5) + shift
		}
	}
	if r.chance(0.6) {
		c.blur(r.ratio(0.3, 1.3))
	}
	sigma, coloured := float32(0.06*r.float()*r.float()), r.chance(0.5)
	var noise float32
	for i := range c.rgb[0] {
		for channel := range c.rgb {
			if coloured || channel == 0 {
				noise = sigma * r.normal()
			}
			c.rgb[channel][i] += noise
		}
	}
}

// blur is a Gaussian of sigma pixels, edges repeated.
func (c *canvas) blur(sigma float64) {
	radius := int(math.Ceil(2.5 * sigma))
	kernel, sum := make([]float32, 2*radius+1), float32(0)
	for i := range kernel {
		d := float64(i-radius) / sigma
		kernel[i] = float32(math.Exp(-0.5 * d * d))
		sum += kernel[i]
	}
	for i := range kernel {
		kernel[i] /= sum
	}
	S := c.size
	line, out := make([]float32, S+2*radius), make([]float32, S)
	pass := func(plane []float32, start, step int) {
		for i := range line {
			line[i] = plane[start+step*min(max(i-radius, 0), S-1)]
		}
		clear(out)
		for k, weight := range kernel {
			for i, v := range line[k : k+S] {
				out[i] += weight * v
			}
		}
		for i, v := range out {
			plane[start+step*i] = v
		}
	}
	for _, plane := range c.rgb {
		for i := range S {
			pass(plane, i*S, 1)
		}
		for i := range S {
			pass(plane, i, S)
		}
	}
}

// read writes the picture as bytes.
func (c *canvas) read(rgb []byte) {
	for channel, plane := range c.rgb {
		for i, v := range plane {
			rgb[3*i+channel] = byte(255*min(max(v, 0), 1) + 0.5)
		}
	}
}
