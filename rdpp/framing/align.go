package framing

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/png"
	"math"
	"slices"

	"rdpp/rdpp/imagefile"
)

// Align says that the part in a picture is found by the training images' mean, and that the picture is looked at as if the part lay
// there: a view's boxes and masks then follow the part. The zero Align leaves pictures as they are.
type Align struct {
	Shift  float64 `json:"shift,omitzero"`  // how far a part may lie from where the mean has it, either way, share of the picture's sides
	Rotate float64 `json:"rotate,omitzero"` // how far it may be turned, either way, degrees

	// What training finds, see Learn.
	Mean  Grey    `json:"mean,omitempty"`
	Least float64 `json:"least,omitzero"` // correlation with the mean below which a part is not found
}

// DefaultAlign are the limits where none are given.
func DefaultAlign() Align { return Align{Shift: 0.1, Rotate: 10} }

// On says whether parts are found.
func (a Align) On() bool { return a != Align{} }

// What Check lets pass at most: farther away, too much of the part is outside the picture.
const (
	maxAlignShift = 0.25
	maxAlignTurn  = 45
)

// Check says what cannot be.
func (a Align) Check() error {
	if a == (Align{}) {
		return nil
	}
	if !(a.Shift > 0 && a.Shift <= maxAlignShift && a.Rotate >= 0 && a.Rotate <= maxAlignTurn) {
		return fmt.Errorf("use a shift above 0 to %v of the picture's sides, and a turn of 0 to %d degrees", maxAlignShift, maxAlignTurn)
	}
	if !(a.Least >= 0 && a.Least <= 1) {
		return errors.New("a correlation is 0 to 1")
	}
	_, err := a.Mean.read()
	return err
}

// Grey is a small grey picture as it travels in a model file: a PNG in base64. "" is none.
type Grey string

// meanSide is the longer side of the mean, in pixels: a quarter of a pixel is then a 500th of a picture.
const meanSide = 128

func (g Grey) read() (*plane, error) {
	if g == "" {
		return nil, nil
	}
	if len(g) > 4*meanSide*meanSide {
		return nil, fmt.Errorf("framing: a mean of %d bytes", len(g))
	}
	file, err := base64.StdEncoding.Strict().DecodeString(string(g))
	if err != nil {
		return nil, fmt.Errorf("framing: mean: %w", err)
	}
	head, err := png.DecodeConfig(bytes.NewReader(file))
	if err == nil && max(head.Width, head.Height) > meanSide {
		err = fmt.Errorf("%d x %d pixels, %d at most", head.Width, head.Height, meanSide)
	}
	if err != nil {
		return nil, fmt.Errorf("framing: mean: %w", err)
	}
	picture, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("framing: mean: %w", err)
	}
	grey, is := picture.(*image.Gray)
	if !is {
		return nil, errors.New("framing: a mean that is not grey")
	}
	p := newPlane(head.Width, head.Height)
	for i := range p.v {
		p.v[i] = float64(grey.Pix[i/p.w*grey.Stride+i%p.w])
	}
	return p, nil
}

func (p *plane) grey() (Grey, error) {
	picture := image.NewGray(image.Rect(0, 0, p.w, p.h))
	for i, v := range p.v {
		picture.Pix[i] = uint8(math.Round(min(max(v, 0), 255)))
	}
	var file bytes.Buffer
	if err := png.Encode(&file, picture); err != nil {
		return "", fmt.Errorf("framing: mean: %w", err)
	}
	return Grey(base64.StdEncoding.EncodeToString(file.Bytes())), nil
}

// Pose is how the part in a picture lies: as in the mean, but turned around the picture's middle, and then shifted. The zero Pose is
// that of pictures that are looked at as they are.
type Pose struct {
	X           float64 `json:"x"`           // to the right, pixels of the picture
	Y           float64 `json:"y"`           // down
	Degrees     float64 `json:"degrees"`     // clockwise
	Correlation float64 `json:"correlation"` // of the picture, so aligned, with the mean, -1 to 1

	Missed string `json:"-"` // why the part was not found, in words; the rest is then 0
}

// Found says that the part was found.
func (p *Pose) Found() bool { return p.Correlation != 0 }

// Warnings say why a part was not found; nil where it was, or was not looked for.
func (p *Pose) Warnings() []string {
	if p.Missed == "" {
		return nil
	}
	return []string{p.Missed}
}

// turn is a Pose as a map of points of an aligned picture to those of the picture itself.
type turn struct{ x, y, middleX, middleY, sin, cos float64 }

func (p *Pose) turn(size image.Point) turn {
	sin, cos := math.Sincos(p.Degrees * math.Pi / 180)
	return turn{p.X, p.Y, float64(size.X) / 2, float64(size.Y) / 2, sin, cos}
}

func (t turn) at(x, y float64) (float64, float64) {
	x, y = x-t.middleX, y-t.middleY
	return t.middleX + t.cos*x - t.sin*y + t.x, t.middleY + t.sin*x + t.cos*y + t.y
}

func (t turn) back(x, y float64) (float64, float64) {
	x, y = x-t.middleX-t.x, y-t.middleY-t.y
	return t.middleX + t.cos*x + t.sin*y, t.middleY - t.sin*x + t.cos*y
}

// Small is a picture as Learn looks at it.
type Small struct{ *plane }

// NewSmall makes one; the longer side has meanSide pixels at most, each the mean of those that it stands for.
func NewSmall(img *imagefile.Image) Small {
	longest := max(img.W, img.H)
	side := min(longest, meanSide)
	w, h := max(1, (img.W*side+longest/2)/longest), max(1, (img.H*side+longest/2)/longest)
	return Small{shrink(img, w, h)}
}

// shrink makes a grey picture of w x h pixels, each the mean of the part of the picture that it covers.
func shrink(img *imagefile.Image, w, h int) *plane {
	p := newPlane(w, h)
	columns, rows := covers(img.W, w), covers(img.H, h)
	line := make([]float64, w)
	for v, row := range rows {
		clear(line)
		for u, c := range columns {
			at := img.Pix[3*(v*img.W+u):][:3]
			grey := float64(int(at[0])+int(at[1])+int(at[2])) / 3
			for i, share := range c.shares {
				line[c.first+i] += grey * share
			}
		}
		for i, share := range row.shares {
			for x, sum := range line {
				p.v[(row.first+i)*w+x] += sum * share
			}
		}
	}
	return p
}

// cover says which pixels of a smaller or larger picture a pixel is part of, and the shares of their area that it has.
type cover struct {
	first  int
	shares []float64
}

// covers are those of n pixels, resized to size.
func covers(n, size int) []cover {
	all := make([]cover, n)
	for i := range all {
		from, to := i*size, (i+1)*size // in n-ths of a pixel of the other
		c := cover{first: from / n}
		for k := c.first; k*n < to; k++ {
			c.shares = append(c.shares, float64(min(to, (k+1)*n)-max(from, k*n))/float64(n))
		}
		all[i] = c
	}
	return all
}

// plane is a grey picture.
type plane struct {
	w, h int
	v    []float64
}

func newPlane(w, h int) *plane { return &plane{w, h, make([]float64, w*h)} }

// half has half the width and height, of means of four.
func (p *plane) half() *plane {
	to := newPlane(max(1, p.w/2), max(1, p.h/2))
	for y := range to.h {
		for x := range to.w {
			x1, y1 := min(2*x+1, p.w-1), min(2*y+1, p.h-1)
			to.v[y*to.w+x] = (p.v[2*y*p.w+2*x] + p.v[2*y*p.w+x1] + p.v[y1*p.w+2*x] + p.v[y1*p.w+x1]) / 4
		}
	}
	return to
}

// sample is the value at a point, and how it grows to the right and down there; inside is false beyond the edge.
func (p *plane) sample(x, y float64) (v, dx, dy float64, inside bool) {
	if x < 0 || y < 0 || x > float64(p.w) || y > float64(p.h) {
		return 0, 0, 0, false
	}
	x, y = min(max(x-0.5, 0), float64(p.w-1)), min(max(y-0.5, 0), float64(p.h-1))
	left, top := min(int(x), max(p.w-2, 0)), min(int(y), max(p.h-2, 0))
	right, below := min(left+1, p.w-1), min(top+1, p.h-1)
	across, down := x-float64(left), y-float64(top)
	a, b, c, d := p.v[top*p.w+left], p.v[top*p.w+right], p.v[below*p.w+left], p.v[below*p.w+right]
	return (a*(1-across)+b*across)*(1-down) + (c*(1-across)+d*across)*down, (b-a)*(1-down) + (d-c)*down, (c-a)*(1-across) + (d-b)*across, true
}

// leastOverlap is the share of the mean that a picture has to show.
const leastOverlap = 0.5

// correlation is that of a picture, as a pose has it, with a mean of the same size; -1 where too little of it is shown.
func (p *plane) correlation(mean *plane, t turn) float64 {
	var n, sumP, sumM, pp, mm, pm float64
	for i, m := range mean.v {
		x, y := t.at(float64(i%mean.w)+0.5, float64(i/mean.w)+0.5)
		v, _, _, inside := p.sample(x, y)
		if !inside {
			continue
		}
		n++
		sumP, sumM, pp, mm, pm = sumP+v, sumM+m, pp+v*v, mm+m*m, pm+v*m
	}
	if n < leastOverlap*float64(len(mean.v)) {
		return -1
	}
	spread := math.Sqrt(max(pp-sumP*sumP/n, 0) * max(mm-sumM*sumM/n, 0))
	if spread < 1e-9*n {
		return -1
	}
	return (pm - sumP*sumM/n) / spread
}

// step is one of Evangelidis' and Psarakis' forward additive steps to a higher correlation (2008): the change of a pose in pixels and
// radians. ok is false where there is none.
func (p *plane) step(mean *plane, t turn) (x, y, angle float64, ok bool) {
	var columns [5][]float64 // growth by x, y and angle, then the picture and the mean
	for c := range columns {
		columns[c] = make([]float64, 0, len(mean.v))
	}
	for i, m := range mean.v {
		u, v := float64(i%mean.w)+0.5, float64(i/mean.w)+0.5
		px, py := t.at(u, v)
		value, dx, dy, inside := p.sample(px, py)
		if !inside {
			continue
		}
		u, v = u-t.middleX, v-t.middleY
		for c, of := range [5]float64{dx, dy, dx*(-t.sin*u-t.cos*v) + dy*(t.cos*u-t.sin*v), value, m} {
			columns[c] = append(columns[c], of)
		}
	}
	if len(columns[0]) < 5 {
		return 0, 0, 0, false
	}
	for _, c := range columns {
		sum := 0.0
		for _, v := range c {
			sum += v
		}
		for i := range c {
			c[i] -= sum / float64(len(c))
		}
	}
	dot := func(a, b []float64) (sum float64) {
		for i, v := range a {
			sum += v * b[i]
		}
		return sum
	}
	var g [3][3]float64
	var ji, jm [3]float64
	image, of := columns[3], columns[4]
	for a := range 3 {
		for b := range 3 {
			g[a][b] = dot(columns[a], columns[b])
		}
		ji[a], jm[a] = dot(columns[a], image), dot(columns[a], of)
	}
	si, ok1 := solve(g, ji)
	sm, ok2 := solve(g, jm)
	if !ok1 || !ok2 {
		return 0, 0, 0, false
	}
	var within, across float64 // of the picture, and of both, in the space of the growths
	for a := range 3 {
		within += ji[a] * si[a]
		across += jm[a] * si[a]
	}
	below := dot(of, image) - across
	if below <= 0 {
		return 0, 0, 0, false
	}
	scale := (dot(image, image) - within) / below
	return scale*sm[0] - si[0], scale*sm[1] - si[1], scale*sm[2] - si[2], true
}

// solve solves g x = b by Cramer's rule.
func solve(g [3][3]float64, b [3]float64) (x [3]float64, ok bool) {
	det := func(m [3][3]float64) float64 {
		return m[0][0]*(m[1][1]*m[2][2]-m[1][2]*m[2][1]) - m[0][1]*(m[1][0]*m[2][2]-m[1][2]*m[2][0]) + m[0][2]*(m[1][0]*m[2][1]-m[1][1]*m[2][0])
	}
	d := det(g)
	if !(math.Abs(d) > 1e-12*math.Abs(g[0][0]*g[1][1]*g[2][2])) {
		return x, false
	}
	for i := range x {
		m := g
		for r := range m {
			m[r][i] = b[r]
		}
		x[i] = det(m) / d
	}
	return x, true
}

// aligner finds poses.
type aligner struct {
	Align
	levels []*plane // the mean, then each half as large
}

// coarsest is about the longer side of the picture that all poses are tried on, and turnStep how far they are apart.
const (
	coarsest = 32
	turnStep = 3.0 // degrees
	steps    = 30  // to a higher correlation, on each level, at most
)

func newAligner(a Align, mean *plane) *aligner {
	f := &aligner{a, []*plane{mean}}
	for last := mean; max(last.w, last.h) > coarsest; {
		last = last.half()
		f.levels = append(f.levels, last)
	}
	return f
}

// find is the pose of a picture as large as the mean, in pixels of that, with the highest correlation that was found.
func (f *aligner) find(p *plane) (best Pose) {
	levels := []*plane{p}
	for len(levels) < len(f.levels) {
		levels = append(levels, levels[len(levels)-1].half())
	}
	last := len(levels) - 1
	size := func(l int) image.Point { return image.Pt(levels[l].w, levels[l].h) }
	best.Correlation = -1
	w, h := levels[last].w, levels[last].h
	right, down := int(math.Ceil(f.Shift*float64(w))), int(math.Ceil(f.Shift*float64(h)))
	turns := int(math.Ceil(f.Rotate / turnStep))
	for a := -turns; a <= turns; a++ {
		for y := -down; y <= down; y++ {
			for x := -right; x <= right; x++ {
				try := Pose{X: float64(x), Y: float64(y)}
				if turns > 0 {
					try.Degrees = f.Rotate * float64(a) / float64(turns)
				}
				if try.Correlation = levels[last].correlation(f.levels[last], try.turn(size(last))); try.Correlation > best.Correlation {
					best = try
				}
			}
		}
	}
	for l := last; l >= 0; l-- {
		if l < last { // what a pixel is there
			best.X *= float64(levels[l].w) / float64(levels[l+1].w)
			best.Y *= float64(levels[l].h) / float64(levels[l+1].h)
			best.Correlation = levels[l].correlation(f.levels[l], best.turn(size(l)))
		}
		at := best
		for range steps {
			x, y, angle, ok := levels[l].step(f.levels[l], at.turn(size(l)))
			if !ok {
				break
			}
			if f.Rotate == 0 {
				angle = 0
			}
			at.X, at.Y, at.Degrees = at.X+x, at.Y+y, at.Degrees+angle*180/math.Pi
			if at.Correlation = levels[l].correlation(f.levels[l], at.turn(size(l))); at.Correlation > best.Correlation {
				best = at
			}
			if math.Abs(x)+math.Abs(y)+math.Abs(angle)*float64(max(w, h)) < 1e-3 {
				break
			}
		}
	}
	return best
}

// within says whether a pose of a picture of w x h pixels is within the limits.
func (a *Align) within(p Pose, w, h int) bool {
	return math.Abs(p.X) <= a.Shift*float64(w) && math.Abs(p.Y) <= a.Shift*float64(h) && math.Abs(p.Degrees) <= a.Rotate
}

// pose is that of a picture.
func (f *aligner) pose(img *imagefile.Image) Pose {
	mean := f.levels[0]
	if across, down := img.W*mean.h, img.H*mean.w; max(across-down, down-across) >= img.W+img.H {
		return Pose{Missed: fmt.Sprintf("it was not aligned: it has another shape than the training images, %d x %d pixels to their %d x %d", img.W, img.H,
			mean.w, mean.h)}
	}
	found := f.find(shrink(img, mean.w, mean.h))
	switch {
	case found.Correlation < f.Least:
		return Pose{Missed: fmt.Sprintf("it was not aligned: it correlates by %.2f with the training images' mean, and %.2f are needed", found.Correlation, f.Least)}
	case !f.within(found, mean.w, mean.h):
		return Pose{Missed: fmt.Sprintf("it was not aligned: the part lies farther away, or is turned farther, than %.3g %% and %.3g degrees", 100*f.Shift, f.Rotate)}
	}
	found.X *= float64(img.W) / float64(mean.w)
	found.Y *= float64(img.H) / float64(mean.h)
	return found
}

// What Learn asks of the pictures that it makes a mean of.
const (
	rounds     = 3       // of finding the pictures in their mean, and making that anew
	leastAlike = 0.5     // correlation of half of the pictures with their mean
	leastShare = 2.0 / 3 // of the correlation of nearly all pictures, that a part needs to be found
)

// ErrUnlike says that pictures are not alike enough to have a mean that parts can be found by.
var ErrUnlike = errors.New("images that do not show one part in one place")

// Learn makes the mean of pictures, each as its part lies, and finds how much of it has to be in a picture. Pictures of another shape than
// most are left out.
func (a Align) Learn(pictures []Small) (Align, error) {
	shapes := map[image.Point]int{}
	var shape image.Point
	for _, p := range pictures {
		size := image.Pt(p.w, p.h)
		if shapes[size]++; shapes[size] > shapes[shape] {
			shape = size
		}
	}
	pictures = slices.DeleteFunc(slices.Clone(pictures), func(p Small) bool { return p.w != shape.X || p.h != shape.Y })
	if len(pictures) == 0 {
		return a, errors.New("framing: no picture to align by")
	}
	poses := make([]Pose, len(pictures))
	var mean *plane
	for round := range rounds + 1 {
		mean = newPlane(shape.X, shape.Y)
		for i := range mean.v {
			sum, n := 0.0, 0
			for k, p := range pictures {
				x, y := poses[k].turn(shape).at(float64(i%shape.X)+0.5, float64(i/shape.X)+0.5)
				if v, _, _, inside := p.sample(x, y); inside {
					sum, n = sum+v, n+1
				}
			}
			mean.v[i] = sum / float64(max(n, 1))
		}
		if round == rounds {
			break
		}
		f := newAligner(a, mean)
		for k, p := range pictures {
			if poses[k] = f.find(p.plane); !a.within(poses[k], shape.X, shape.Y) {
				poses[k] = Pose{Correlation: p.correlation(mean, (&Pose{}).turn(shape))}
			}
		}
	}
	alike := make([]float64, len(pictures))
	for k, p := range pictures {
		alike[k] = p.correlation(mean, poses[k].turn(shape))
	}
	slices.Sort(alike)
	if half := alike[len(alike)/2]; half < leastAlike {
		return a, fmt.Errorf("framing: %w: half of them correlate by less than %.2f with their mean, and %v are needed", ErrUnlike, half, leastAlike)
	}
	a.Least = leastShare * max(alike[len(alike)/20], leastAlike)
	var err error
	a.Mean, err = mean.grey()
	return a, err
}
