// Package pattern draws the pictures on which a teacher learns to see: no photographs, no downloads, only programs.
//
// A class is a small program with random parameters: an iterated function system, a shaded part, a texture, a thread,
// print, or a heap of shapes that hide each other. An instance of a class repeats the program with its parameters
// moved by some per cent, in another place, size, colour and light, over another background. What the instances of a
// class share is form, so whoever tells the classes apart has learned to see form.
//
// Fractals as training pictures: Kataoka et al., "Pre-training without Natural Images" (2020). Dead leaves and
// statistical textures: Baradad et al., "Learning to See by Looking at Noise" (2021).
//
// Letters: S side of a picture in pixels; u, v coordinates of a form, which fills about -1..1.
package pattern

import (
	"fmt"
	"slices"
)

// Kinds names the families of programs.
func Kinds() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

// A program draws one class. It is made from the class's numbers alone; paint adds what differs between instances,
// all of it drawn from r.
type program interface {
	paint(c *canvas, at pose, r *random)
}

// kinds are drawn with the given weights.
var kinds = []struct {
	name   string
	weight float64
	make   func(r *random) program
}{
	{"fractal", 3, newFractal},
	{"part", 3, newPart},
	{"thread", 1.5, newThread},
	{"texture", 2, newTexture},
	{"print", 1, newPrint},
	{"leaves", 1.5, newLeaves},
}

// Options of a generator. A zero field means its default.
type Options struct {
	Size  int      // side S in pixels, 16 to 1024; default 64
	Seed  uint64   // of everything drawn
	Kinds []string // families to draw from, of Kinds; default all
}

// The bounds of Options.Size.
const (
	MinSize = 16
	MaxSize = 1024
)

// Generator draws pictures. It has no state but its options: the same options, class and instance give the same
// picture, in any order and from any number of goroutines, on one processor architecture.
type Generator struct {
	size  int
	seed  uint64
	kinds []int     // indices into kinds
	upto  []float64 // their cumulated weights
}

// New returns a generator, or an error that says which option cannot be.
func New(opt *Options) (*Generator, error) {
	var o Options
	if opt != nil {
		o = *opt
	}
	if o.Size == 0 {
		o.Size = 64
	}
	if o.Size < MinSize || o.Size > MaxSize {
		return nil, fmt.Errorf("pattern: pictures of %d x %d pixels; use %d to %d", o.Size, o.Size, MinSize, MaxSize)
	}
	if len(o.Kinds) == 0 {
		o.Kinds = Kinds()
	}
	g := &Generator{size: o.Size, seed: o.Seed}
	sum := 0.0
	for _, name := range o.Kinds {
		i := slices.Index(Kinds(), name)
		if i < 0 || slices.Contains(g.kinds, i) {
			return nil, fmt.Errorf("pattern: kind %q is unknown or named twice; use some of %v", name, Kinds())
		}
		sum += kinds[i].weight
		g.kinds, g.upto = append(g.kinds, i), append(g.upto, sum)
	}
	return g, nil
}

// Size returns S.
func (g *Generator) Size() int { return g.size }

// look is a class: its form, and the colours and ground that its instances usually have.
type look struct {
	form   program
	ink    ink
	ground *ground
}

// look makes the class's program and its usual dress.
func (g *Generator) look(class uint64) look {
	r := newRandom(g.seed, 1, class)
	x := r.float() * g.upto[len(g.upto)-1]
	i := 0
	for x >= g.upto[i] {
		i++
	}
	l := look{form: kinds[g.kinds[i]].make(r), ground: newGround(r)}
	l.ink = newInkOn(l.ground.dark.light(), r)
	return l
}

// Draw draws one picture of a class into rgb: S x S pixels of red, green and blue, row by row.
func (g *Generator) Draw(class, instance uint64, rgb []byte) error {
	if len(rgb) != 3*g.size*g.size {
		return fmt.Errorf("pattern: %d bytes for a picture of %d x %d pixels; it needs %d", len(rgb), g.size, g.size, 3*g.size*g.size)
	}
	r := newRandom(g.seed, 2, class, instance)
	c := newCanvas(g.size)
	l := g.look(class)
	if r.chance(0.5) {
		l.ground = newGround(r)
	}
	l.ground.paint(c, r)
	if r.chance(0.5) {
		l.ink = newInkOn(c.light(), r)
	}
	c.clear()
	l.form.paint(c, newPose(g.size, r, 0.3, 0.9, 0.13), r)
	c.compose(l.ink.near(r))
	c.photograph(r)
	c.read(rgb)
	return nil
}

// DrawRegions draws a scene of several forms, each hiding what is behind it, into rgb as Draw does, and into labels,
// S x S, which of `classes` classes each pixel shows; -1 where it shows none.
func (g *Generator) DrawRegions(classes int, index uint64, rgb []byte, labels []int16) error {
	pixels := g.size * g.size
	switch {
	case len(rgb) != 3*pixels || len(labels) != pixels:
		return fmt.Errorf("pattern: %d bytes and %d labels for a scene of %d x %d pixels; it needs %d and %d", len(rgb), len(labels),
			g.size, g.size, 3*pixels, pixels)
	case classes < 1 || classes > 1<<15:
		return fmt.Errorf("pattern: %d classes; use 1 to %d", classes, 1<<15)
	}
	r := newRandom(g.seed, 3, index)
	c := newCanvas(g.size)
	newGround(r).paint(c, r)
	c.crowded = true
	for i := range labels {
		labels[i] = -1
	}
	for range 3 + r.intn(5) {
		class := r.intn(classes)
		l := g.look(uint64(class))
		if r.chance(0.5) {
			l.ink = newInkOn(c.light(), r)
		}
		c.clear()
		l.form.paint(c, newPose(g.size, r, 0.2, 0.45, 0.45), r)
		c.compose(l.ink.near(r))
		for i, alpha := range c.alpha {
			if alpha > 0.4 {
				labels[i] = int16(class)
			}
		}
	}
	c.photograph(r)
	c.read(rgb)
	return nil
}
