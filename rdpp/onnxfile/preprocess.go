package onnxfile

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"rdpp/rdpp/setting"
)

// Preprocess is what a graph does to pictures before a network reads them: colour c of a picture, 0 to 255, becomes
// Scale[c] * x + Shift[c]. Colours are in the order blue, green, red.
type Preprocess struct {
	Scale, Shift [3]float64
	Notes        []string // what is not as in the file, in words
}

// Preprocess reads a graph that does nothing but preprocessing. Of what is added or subtracted per pixel, such as a mean
// image, the mean per colour is taken.
func (f *File) Preprocess() (*Preprocess, error) {
	p := &Preprocess{Scale: [3]float64{1, 1, 1}}
	if err := p.read(f); err != nil {
		return nil, fmt.Errorf("onnxfile: %s: no preprocessing that can be part of a teacher: %w", f.Path, err)
	}
	return p, nil
}

func (p *Preprocess) read(f *File) error {
	if len(f.inputs) != 1 {
		return fmt.Errorf("the graph has %d inputs; one, of pictures, is needed", len(f.inputs))
	}
	steps := 0
	for x, seen := f.inputs[0], map[*node]bool{}; ; {
		uses := f.uses[x]
		if len(uses) == 0 {
			break
		}
		n := uses[0]
		if len(uses) > 1 || seen[n] || n.domain != "" || len(n.outputs) != 1 {
			return fmt.Errorf("%q goes to %s and %d more; operations one after the other are needed", x, n, len(uses)-1)
		}
		seen[n] = true
		switch n.op {
		case "Cast", "Reshape": // which change no number
			if n.inputs[0] != x {
				return fmt.Errorf("%s does not read the picture as its first input: %w", n, errDamaged)
			}
		case "Add", "Sub", "Mul", "Div":
			if err := p.apply(f, n, x); err != nil {
				return err
			}
			steps++
		default:
			return fmt.Errorf("%s is not supported; additions, subtractions, multiplications and divisions are", n)
		}
		x = n.outputs[0]
	}
	if steps == 0 {
		return setting.Advise(errors.New("it changes no number"), "leave {preprocess} out, or name another file")
	}
	for c := range 3 {
		if !finite(p.Scale[c]) || !finite(p.Shift[c]) || p.Scale[c] == 0 {
			return fmt.Errorf("colour %d becomes %v x + %v; finite numbers are needed, and a factor that is not zero", c+1, p.Scale[c], p.Shift[c])
		}
	}
	return nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// apply adds an operation with a constant.
func (p *Preprocess) apply(f *File, n *node, x string) error {
	if len(n.inputs) != 2 {
		return fmt.Errorf("%s has %d inputs: %w", n, len(n.inputs), errDamaged)
	}
	first := n.inputs[0] == x
	name := n.inputs[1]
	if !first {
		name = n.inputs[0]
	}
	t := f.tensors[name]
	switch {
	case t == nil:
		return fmt.Errorf("%s: %q is no constant of the file", n, name)
	case !first && (n.op == "Sub" || n.op == "Div"):
		return fmt.Errorf("%s has the picture on its right; only the left is supported", n)
	}
	constant, varies, err := t.perColour(n)
	if err != nil {
		return err
	}
	if varies && (n.op == "Mul" || n.op == "Div") {
		return fmt.Errorf("%s has another factor at every pixel; one per colour is needed", n)
	}
	if varies {
		p.Notes = append(p.Notes, fmt.Sprintf("of %q, the image of shape %v in the preprocessing, the mean per colour is taken", name, t.shape))
	}
	for c, v := range constant {
		switch n.op {
		case "Add":
			p.Shift[c] += v
		case "Sub":
			p.Shift[c] -= v
		case "Mul":
			p.Scale[c], p.Shift[c] = p.Scale[c]*v, p.Shift[c]*v
		case "Div":
			p.Scale[c], p.Shift[c] = p.Scale[c]/v, p.Shift[c]/v
		}
	}
	return nil
}

// perColour reads a constant as a number per colour: the mean of its pixels, which may vary.
func (t *tensor) perColour(n *node) (mean [3]float64, varies bool, err error) {
	values, err := t.values()
	if err != nil {
		return mean, false, fmt.Errorf("%s: %w", n, err)
	}
	if len(values) == 1 {
		return [3]float64{float64(values[0]), float64(values[0]), float64(values[0])}, false, nil
	}
	shape := t.shape
	if len(shape) == 4 && shape[0] == 1 {
		shape = shape[1:]
	}
	// Before version 7 of the operations an attribute says which axis the numbers belong to.
	perChannel := slices.Equal(shape, []int{3}) && n.integer("axis", 0) == 1
	if !perChannel && (len(shape) != 3 || shape[0] != 3) {
		return mean, false, fmt.Errorf("%s: %q has the shape %v; one number, or 3 colours x height x width, are needed", n, t.name, t.shape)
	}
	pixels := len(values) / 3
	for c := range mean {
		colour := values[c*pixels:][:pixels]
		sum := 0.0
		for _, v := range colour {
			sum += float64(v)
			varies = varies || v != colour[0]
		}
		mean[c] = sum / float64(pixels)
	}
	return mean, varies, nil
}

// fold lets the first layer of a network read torchvision's input instead: red, green, blue, 0 to 1, normalised by mean
// and std. What padding stands for changes with it: the colour of mean, instead of what the graph makes zero.
func (p *Preprocess) fold(l *layer, mean, std [3]float32) {
	area := l.shape[2] * l.shape[3]
	old := slices.Clone(l.weight)
	for filter := range l.shape[0] {
		shift := 0.0
		for c := range 3 {
			theirs := 2 - c
			factor := p.Scale[theirs] * (255 * decimal(std[c]))
			offset := p.Scale[theirs]*(255*decimal(mean[c])) + p.Shift[theirs]
			to, from := l.weight[(filter*3+c)*area:][:area], old[(filter*3+theirs)*area:][:area]
			for i, w := range from {
				to[i] = float32(float64(w) * factor)
				shift += float64(w) * offset
			}
		}
		l.mean[filter] -= shift
	}
}

// decimal is the decimal fraction that a float32 stands for, such as 0.485.
func decimal(v float32) float64 {
	short := strconv.FormatFloat(float64(v), 'g', -1, 32)
	wide, _ := strconv.ParseFloat(short, 64) // what was formatted can be parsed
	return wide
}
