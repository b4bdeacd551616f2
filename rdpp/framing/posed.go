package framing

import (
	"image"
	"math"

	"rdpp/rdpp/imagefile"
)

// A picture whose part was found is resampled once, from the picture itself to the network's input: each position has a point in the
// aligned picture, and that has one in the picture.

// aligned is the point of the aligned picture, in pixels, in the middle of a position of To, counted from its corner.
func (f *Frame) aligned(x, y int) (u, v float64) {
	return float64(f.From.Min.X) + (float64(x)+0.5)*float64(f.From.Dx())/float64(f.To.Dx()),
		float64(f.From.Min.Y) + (float64(y)+0.5)*float64(f.From.Dy())/float64(f.To.Dy())
}

// pixels are those around a point, and how far it is from the upper left one's middle to the lower right one's.
func pixels(x, y float64, size image.Point) (left, top, right, below int, across, down float64) {
	x, y = min(max(x-0.5, 0), float64(size.X-1)), min(max(y-0.5, 0), float64(size.Y-1))
	left, top = int(x), int(y)
	return left, top, min(left+1, size.X-1), min(top+1, size.Y-1), x - float64(left), y - float64(top)
}

// slack is how many positions beyond the edge of the picture are as good as the edge itself.
const slack = 2

// shownPosed is shown of a picture whose part was found.
func (f *Frame) shownPosed(masks []mask, edge bool) []bool {
	shown := make([]bool, f.Side*f.Side)
	right, down := slack*float64(f.From.Dx())/float64(f.To.Dx()), slack*float64(f.From.Dy())/float64(f.To.Dy())
	turn := f.Pose.turn(f.Picture)
	for y := range f.To.Dy() {
		for x := range f.To.Dx() {
			u, v := f.aligned(x, y)
			px, py := turn.at(u, v)
			is := !edge || px >= -right && py >= -down && px <= float64(f.Picture.X)+right && py <= float64(f.Picture.Y)+down
			for i := range masks {
				at := image.Pt(int(math.Floor(px)), int(math.Floor(py)))
				if !masks[i].own {
					at = image.Pt(int(math.Floor(u)), int(math.Floor(v)))
				}
				is = is && masks[i].at(min(max(at.X, 0), f.Picture.X-1), min(max(at.Y, 0), f.Picture.Y-1), f.Picture)
			}
			shown[(f.To.Min.Y+y)*f.Side+f.To.Min.X+x] = is
		}
	}
	return shown
}

// resamplePosed is Resample of a picture whose part was found.
func (f *Frame) resamplePosed(dst []float32, img *imagefile.Image) {
	turn, area := f.Pose.turn(f.Picture), f.Side*f.Side
	for y := range f.To.Dy() {
		for x := range f.To.Dx() {
			px, py := turn.at(f.aligned(x, y))
			left, top, right, below, across, down := pixels(px, py, f.Picture)
			a, b := img.Pix[3*(top*img.W+left):][:3], img.Pix[3*(top*img.W+right):][:3]
			c, d := img.Pix[3*(below*img.W+left):][:3], img.Pix[3*(below*img.W+right):][:3]
			at := (f.To.Min.Y+y)*f.Side + f.To.Min.X + x
			rx, ry := float32(across), float32(down)
			for k := range 3 {
				dst[k*area+at] = (unit[a[k]]*(1-rx)+unit[b[k]]*rx)*(1-ry) + (unit[c[k]]*(1-rx)+unit[d[k]]*rx)*ry
			}
		}
	}
}

// Original is the frame of what Back makes of a map: it lies on the picture as that is. Of a part that was not looked for, or not found, it
// is the frame itself.
func (f *Frame) Original() *Frame {
	if !f.Pose.Found() {
		return f
	}
	turn := f.Pose.turn(f.Picture)
	low, high := image.Pt(f.Picture.X, f.Picture.Y), image.Point{}
	for _, corner := range []image.Point{f.From.Min, {f.From.Max.X, f.From.Min.Y}, {f.From.Min.X, f.From.Max.Y}, f.From.Max} {
		x, y := turn.at(float64(corner.X), float64(corner.Y))
		low.X, low.Y = min(low.X, int(math.Floor(x))), min(low.Y, int(math.Floor(y)))
		high.X, high.Y = max(high.X, int(math.Ceil(x))), max(high.Y, int(math.Ceil(y)))
	}
	o := *f
	if o.From != (image.Rectangle{Max: f.Picture}) { // which maps cover wherever the part lies
		o.From = image.Rectangle{low, high}.Intersect(image.Rectangle{Max: f.Picture})
	}
	o.own, o.apart, o.seen = false, false, nil
	o.Cell = f.Cell * math.Sqrt(float64(f.From.Dx()*f.From.Dy())/float64(max(1, o.From.Dx()*o.From.Dy())))
	counts := make([]bool, f.Side*f.Side)
	for y := range o.To.Dy() {
		for x := range o.To.Dx() {
			if p := o.seenBy(f, turn, x, y); p >= 0 { // what the map does not reach does not count
				counts[(o.To.Min.Y+y)*o.Side+o.To.Min.X+x] = f.Counts(p)
			}
		}
	}
	if o.leave(counts) != nil { // too little counts to be met by any value: all of it is one
		return f
	}
	return &o
}

// seenBy is the position of an aligned frame that sees what a value of its Original lies on; -1: none does.
func (o *Frame) seenBy(f *Frame, turn turn, x, y int) int {
	u, v := f.inMap(turn, o, x, y)
	column, row := int(math.Floor(u)), int(math.Floor(v))
	if !image.Pt(column, row).In(f.To) {
		return -1
	}
	return row*f.Side + column
}

// inMap is the point of the aligned frame's map where a value of its Original lies.
func (f *Frame) inMap(turn turn, o *Frame, x, y int) (u, v float64) {
	u, v = turn.back(o.aligned(x, y))
	return float64(f.To.Min.X) + (u-float64(f.From.Min.X))*float64(f.To.Dx())/float64(f.From.Dx()),
		float64(f.To.Min.Y) + (v-float64(f.From.Min.Y))*float64(f.To.Dy())/float64(f.From.Dy())
}

// Back is a map of the aligned picture, S x S, laid on the picture, as original, the frame's Original, has it: 0 where it does not count.
// Its highest value is that of what counts.
func (f *Frame) Back(m []float32, original *Frame) []float32 {
	if original == f {
		return m
	}
	turn, size := f.Pose.turn(f.Picture), image.Pt(f.Side, f.Side)
	back := make([]float32, len(m))
	peak, top := -1, float32(0)
	for p, v := range m {
		if f.Counts(p) && (peak < 0 || v > top) {
			peak, top = p, v
		}
	}
	nearest, far := 0, math.Inf(1) // to the peak, of what counts
	for y := range original.To.Dy() {
		for x := range original.To.Dx() {
			p := (original.To.Min.Y+y)*f.Side + original.To.Min.X + x
			if !original.Counts(p) {
				continue
			}
			u, v := f.inMap(turn, original, x, y)
			left, above, right, below, across, down := pixels(u, v, size)
			value := (float64(m[above*f.Side+left])*(1-across)+float64(m[above*f.Side+right])*across)*(1-down) +
				(float64(m[below*f.Side+left])*(1-across)+float64(m[below*f.Side+right])*across)*down
			back[p] = min(float32(value), top)
			if d := math.Hypot(u-0.5-float64(peak%f.Side), v-0.5-float64(peak/f.Side)); d < far {
				nearest, far = p, d
			}
		}
	}
	back[nearest] = top
	return back
}
