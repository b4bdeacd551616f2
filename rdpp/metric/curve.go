package metric

import (
	"fmt"
	"iter"
	"math"
)

// Point of a curve: rates from 0 to 1.
type Point struct{ X, Y float64 }

// visible is how far a thinned curve may be from the exact one, as a share of the picture's width and height: a fifth of
// a pixel in a picture 400 pixels wide.
const visible = 1. / 2000

// ROC is the curve of the true positive rate (Y) over the false positive rate (X), from (0, 0) to (1, 1), for a drawing:
// of the exact curve's corners, neither coordinate ever falling, it leaves out those that are less than 1/2000 from the
// line through the others, and more only where over most points would be left. most is at least 2, or it is ErrPoints.
// positive holds one entry per score.
func ROC(scores []float64, positive []bool, most int) ([]Point, error) {
	c, err := newCurve(scores, positive)
	if err != nil {
		return nil, err
	}
	return thin(c.roc, 1, most)
}

// ROC is ROC over all pixels of all images.
func (p *Pixels) ROC(most int) ([]Point, error) {
	c, err := p.curve()
	if err != nil {
		return nil, err
	}
	return thin(c.roc, 1, most)
}

// PROCurve is the curve under which AUPRO is the area, the share of a region found (Y) over the false positive rate (X),
// from (0, 0) to where X is limit. It is thinned to at most that many points as ROC is, its width being limit.
func (p *Pixels) PROCurve(limit float64, most int) ([]Point, error) {
	if err := checkLimit(limit); err != nil {
		return nil, err
	}
	c, err := p.curve()
	if err != nil {
		return nil, err
	}
	return thin(c.pro(limit), limit, most)
}

// roc walks the corners of the ROC curve.
func (c curve) roc(yield func(Point) bool) {
	c.corners(func(s step) float64 { return float64(s.truePositives) / float64(len(c.defective)) })(yield)
}

// pro walks the corners of the per-region overlap curve up to a false positive rate of limit.
func (c curve) pro(limit float64) iter.Seq[Point] {
	return func(yield func(Point) bool) {
		var last Point
		for v := range c.corners(func(s step) float64 { return s.overlap }) {
			if v.X > limit {
				if last.X < limit {
					yield(Point{limit, last.Y + (v.Y-last.Y)*(limit-last.X)/(v.X-last.X)})
				}
				return
			}
			if !yield(v) {
				return
			}
			last = v
		}
	}
}

// corners walks the corners of the curve of a rate, 0 to 1, over the false positive rate, from (0, 0) to (1, 1). Where
// samples of both classes are tied the curve is a straight line.
func (c curve) corners(rate func(step) float64) iter.Seq[Point] {
	return func(yield func(Point) bool) {
		last := Point{}
		if !yield(last) {
			return
		}
		good := float64(len(c.good))
		for s := range c.steps {
			if x := float64(s.above) / good; x > last.X {
				last.X = x
				if !yield(last) {
					return
				}
			}
			last = Point{float64(s.falsePositives) / good, min(rate(s), 1)} // a mean overlap is rounded
			if s.truePositives == len(c.defective) {
				last.Y = 1
			}
			if !yield(last) {
				return
			}
		}
		if last.X < 1 {
			yield(Point{1, 1})
		}
	}
}

// thin leaves out corners, as ROC says, of a curve that is width wide and 1 high.
func thin(corners iter.Seq[Point], width float64, most int) ([]Point, error) {
	if most < 2 {
		return nil, fmt.Errorf("%w: %d", ErrPoints, most)
	}
	for tolerance := visible; ; tolerance *= 2 {
		if points := simplify(corners, width, tolerance, most); len(points) <= most {
			return points, nil
		}
	}
}

// simplify keeps some of the corners, among them the first and the last. The others are at most tolerance from the line
// through those kept. It gives up with one point more than most.
//
// From the last corner kept, each later one is seen across a gap: the diagonal of falling slope, twice tolerance long,
// with the corner at its middle. Since no coordinate falls, all directions lie in the half-plane x+y >= 0. A straight
// line may replace the curve as far as it passes through the gaps of all corners between.
func simplify(corners iter.Seq[Point], width, tolerance float64, most int) []Point {
	gap := tolerance * math.Sqrt2 / 2
	var points []Point
	var low, high Point // the directions that pass all gaps are those counter-clockwise from low to high
	var last Point
	for v := range corners {
		if points == nil {
			points = []Point{v}
			low, high = Point{1, -1}, Point{-1, 1}
		}
		from := points[len(points)-1]
		to := Point{(v.X - from.X) / width, v.Y - from.Y}
		if cross(low, to) < 0 || cross(to, high) < 0 {
			points = append(points, last)
			if len(points) > most {
				return points
			}
			low, high = Point{1, -1}, Point{-1, 1}
			to = Point{(v.X - last.X) / width, v.Y - last.Y}
		}
		if right := (Point{to.X + gap, to.Y - gap}); cross(low, right) > 0 {
			low = right
		}
		if left := (Point{to.X - gap, to.Y + gap}); cross(left, high) > 0 {
			high = left
		}
		last = v
	}
	return append(points, last)
}

// cross is positive where b is counter-clockwise from a.
func cross(a, b Point) float64 {
	return a.X*b.Y - a.Y*b.X
}
