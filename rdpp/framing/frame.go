package framing

import (
	"errors"
	"fmt"
	"image"
	"math"
	"slices"
	"sync"

	"rdpp/rdpp/imagefile"
)

// What can be wrong with a picture or a mask. Errors of Framer.Frame wrap one of these; ErrTiles is that of a mask for a model
// whose pictures are not framed.
var (
	ErrOutside = errors.New("what is to be looked at is not within the picture")
	ErrShape   = errors.New("a mask of another shape than the picture")
	ErrNothing = errors.New("nothing of the picture is left to look at")
	ErrTiles   = errors.New("a mask of what is ignored, and the model looks at tiles, which leave nothing out; do without the mask")
)

// Framer makes the frames of pictures by a View. It is safe for concurrent use.
type Framer struct {
	view        View
	side        int
	roi, ignore *imagefile.Mask // nil: none
	align       *aligner        // nil: pictures are looked at as they are

	mu     sync.Mutex
	recent map[image.Point]*Frame // by the picture's size, of pictures without a mask of their own
}

// Reach is how many positions around what a mask of a picture's own draws, or around what lies beyond the edge of an aligned picture,
// do not count either: half a position of layer3, and the deviation of the map's usual Gaussian. That far it is seen.
const Reach = 12

// keptFrames are the sizes of pictures whose frames are kept.
const keptFrames = 8

// New returns a framer for network inputs of side x side positions. A view that Check refuses is its error.
func New(view View, side int) (*Framer, error) {
	if side < 1 {
		return nil, fmt.Errorf("framing: a side of %d positions; use 1 or more", side)
	}
	if err := view.Check(); err != nil {
		return nil, err
	}
	f := &Framer{view: view, side: side, recent: map[image.Point]*Frame{}}
	var errs [2]error
	f.roi, errs[0] = view.ROIMask.Mask()
	f.ignore, errs[1] = view.Ignore.Mask()
	if mean, err := view.Align.Mean.read(); err == nil && mean != nil { // which Check has read
		f.align = newAligner(view.Align, mean)
	}
	return f, errors.Join(errs[:]...)
}

// Pose finds the part in a picture. It is the zero Pose where the view does not align.
func (f *Framer) Pose(img *imagefile.Image) Pose {
	if f.align == nil {
		return Pose{}
	}
	return f.align.pose(img)
}

// FrameOf is the frame of a picture, whose part it finds where the view says so.
func (f *Framer) FrameOf(img *imagefile.Image, ignore *imagefile.Mask) (*Frame, error) {
	return f.Posed(img.W, img.H, f.Pose(img), ignore)
}

// Side is that of the network's input.
func (f *Framer) Side() int { return f.side }

// Frame is that of a picture of w x h pixels that is looked at as it is. ignore is a mask of the picture's own, of what is not
// scored; nil: none. Masks of another size than the picture are scaled to it, which Frame.Notes and Scaled say.
func (f *Framer) Frame(w, h int, ignore *imagefile.Mask) (*Frame, error) {
	return f.Posed(w, h, Pose{}, ignore)
}

// Posed is Frame of a picture whose part lies as a pose says.
func (f *Framer) Posed(w, h int, pose Pose, ignore *imagefile.Mask) (*Frame, error) {
	if w < 1 || h < 1 {
		return nil, fmt.Errorf("framing: a picture of %d x %d pixels", w, h)
	}
	size := image.Pt(w, h)
	plain := ignore == nil && pose == (Pose{})
	if plain {
		f.mu.Lock()
		kept := f.recent[size]
		f.mu.Unlock()
		if kept != nil {
			return kept, nil
		}
	}
	made, err := f.frame(size, pose, ignore)
	if err != nil {
		return nil, fmt.Errorf("framing: %w", err)
	}
	if plain {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.recent) >= keptFrames {
			clear(f.recent)
		}
		f.recent[size] = made
	}
	return made, nil
}

// frame makes a frame.
func (f *Framer) frame(size image.Point, pose Pose, own *imagefile.Mask) (*Frame, error) {
	made := &Frame{Picture: size, Pose: pose, Side: f.side, W: f.side, H: f.side, Cell: 1}
	var masks []mask
	for _, m := range []struct {
		*imagefile.Mask
		name  string
		drawn bool // what is drawn counts
	}{{f.roi, "the mask of what is looked at", true}, {f.ignore, "the model's mask of what is ignored", false}, {own, "the picture's mask of what is ignored", false}} {
		if m.Mask == nil {
			continue
		}
		if err := shaped(m.Mask, size); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		if m.W != size.X || m.H != size.Y {
			notes := &made.Scaled
			if m.Mask == own {
				notes = &made.Notes
			}
			*notes = append(*notes, fmt.Sprintf("%s, %d x %d pixels, was scaled to %d x %d", m.name, m.W, m.H, size.X, size.Y))
		}
		masks = append(masks, mask{m.Mask, m.drawn, m.Mask == own})
	}
	made.From = image.Rectangle{Max: size}
	switch {
	case f.view.ROI != Box{}:
		made.From = f.view.ROI.Rectangle()
		if !made.From.In(image.Rectangle{Max: size}) {
			return nil, fmt.Errorf("%w: %s of %d x %d pixels", ErrOutside, f.view.ROI, size.X, size.Y)
		}
	case f.roi != nil:
		made.From = around(f.roi, size)
	}
	made.From, made.To = f.fit(made.From)
	made.own, made.apart = own != nil, own != nil || pose.Found()
	if !made.apart {
		return made, made.leave(made.shown(masks, false))
	}
	of := masks
	if made.own {
		of = masks[:len(masks)-1]
	}
	view := made.shown(of, false)
	if err := made.leave(view); err != nil {
		return nil, err
	}
	made.seen = made.nearest
	return made, made.leave(made.withoutHidden(view, made.shown(masks, true)))
}

// shaped refuses a mask of another aspect ratio than the picture's, but for what rounding either side can explain.
func shaped(m *imagefile.Mask, size image.Point) error {
	if across, down := m.W*size.Y, m.H*size.X; max(across-down, down-across) >= size.X+size.Y {
		return fmt.Errorf("%w: %d x %d pixels, the picture has %d x %d; draw it over the picture", ErrShape, m.W, m.H, size.X, size.Y)
	}
	return nil
}

// around is the box around what a mask draws, in pixels of a picture of a size.
func around(m *imagefile.Mask, size image.Point) image.Rectangle {
	box := image.Rectangle{Min: image.Pt(m.W, m.H)}
	for i, v := range m.Pix {
		if x, y := i%m.W, i/m.W; v != 0 {
			box.Min.X, box.Max.X = min(box.Min.X, x), max(box.Max.X, x+1)
			box.Min.Y, box.Max.Y = min(box.Min.Y, y), max(box.Max.Y, y+1)
		}
	}
	up := func(a, of, to int) int { return (a*to + of - 1) / of }
	return image.Rect(box.Min.X*size.X/m.W, box.Min.Y*size.Y/m.H, up(box.Max.X, m.W, size.X), up(box.Max.Y, m.H, size.Y))
}

// fit parts what is looked at and the positions that show it.
func (f *Framer) fit(from image.Rectangle) (cut, to image.Rectangle) {
	S, w, h := f.side, from.Dx(), from.Dy()
	cut, to = from, image.Rect(0, 0, S, S)
	switch f.view.Fit {
	case Crop:
		side := min(w, h)
		corner := from.Min.Add(image.Pt((w-side)/2, (h-side)/2))
		cut = image.Rectangle{corner, corner.Add(image.Pt(side, side))}
	case Pad:
		scaled := func(n int) int { return max(1, int(math.Round(float64(n)*float64(S)/float64(max(w, h))))) }
		inner := image.Pt(scaled(w), scaled(h))
		corner := image.Pt((S-inner.X)/2, (S-inner.Y)/2)
		to = image.Rectangle{corner, corner.Add(inner)}
	}
	return cut, to
}

// mask is a mask with what it says.
type mask struct {
	*imagefile.Mask
	drawn bool // what is drawn counts, else what is not
	own   bool // it is drawn over the picture as it is, and not over the training images' mean
}

// at says whether a pixel of a picture counts.
func (m *mask) at(x, y int, size image.Point) bool {
	my, mx := (2*y+1)*m.H/(2*size.Y), (2*x+1)*m.W/(2*size.X)
	return (m.Pix[my*m.W+mx] != 0) == m.drawn
}

// counts says whether the pixels of a picture's row y count, into row.
func (m *mask) counts(row []bool, y int, size image.Point) {
	my := (2*y + 1) * m.H / (2 * size.Y)
	of := m.Pix[my*m.W:][:m.W]
	for x := range row {
		if (of[(2*x+1)*m.W/(2*size.X)] != 0) != m.drawn {
			row[x] = false
		}
	}
}

// Frame says how a picture becomes the network's input, what of that counts, and where a map lies on the picture. It is
// immutable.
type Frame struct {
	Picture image.Point     // width and height of the picture, pixels
	Pose    Pose            // how the part lies in the picture
	From    image.Rectangle // part of the picture that is looked at, pixels; of a part that was found, of the aligned picture
	To      image.Rectangle // positions of the map, and of the network's input, that show it
	Side    int             // S: the network's input has S x S positions
	W, H    int             // of the map: S and S but of a picture in tiles
	Cell    float64         // values of the map along a position of the network's input, 1 but of a picture in tiles
	Notes   []string        // what is to be said of the picture's own mask, in words
	Scaled  []string        // which of the view's masks are of another size than the picture, in words

	// nearest is, for every position, the nearest one that counts, itself where it does; nil: all count. seen is the same but for what
	// the network sees and does not count, where there is such: under a mask of the picture's own, and beyond the edge.
	nearest, seen []int32
	apart         bool // there can be such
	own           bool // the picture has a mask of its own
	counted       int
}

// Tiled is the frame of a picture that is looked at in tiles, all of it, for a network of side x side positions: the tiles'
// maps are blended into one of w x h values, cell of them along a position.
func Tiled(picture image.Point, side, w, h int, cell float64) *Frame {
	return &Frame{Picture: picture, From: image.Rectangle{Max: picture}, To: image.Rect(0, 0, w, h), Side: side, W: w, H: h, Cell: cell, counted: w * h}
}

// shown says which positions show what masks leave: those whose value is made of pixels that count alone; nil: all of them. With edge
// those of an aligned picture that lie beyond it do not.
func (f *Frame) shown(masks []mask, edge bool) []bool {
	if f.Pose.Found() {
		return f.shownPosed(masks, edge)
	}
	if len(masks) == 0 && f.To == image.Rect(0, 0, f.Side, f.Side) {
		return nil
	}
	shown := make([]bool, f.Side*f.Side)
	xs, ys := linearTaps(f.From.Dx(), f.To.Dx()), linearTaps(f.From.Dy(), f.To.Dy())
	row := make([]bool, f.Picture.X)
	for y, ty := range ys {
		for x := range row {
			row[x] = true
		}
		for i := range masks {
			masks[i].counts(row, f.From.Min.Y+ty.lo, f.Picture)
			if ty.whi > 0 {
				masks[i].counts(row, f.From.Min.Y+ty.hi, f.Picture)
			}
		}
		looked := row[f.From.Min.X:f.From.Max.X]
		for x, tx := range xs {
			shown[(f.To.Min.Y+y)*f.Side+f.To.Min.X+x] = looked[tx.lo] && (tx.whi == 0 || looked[tx.hi])
		}
	}
	return shown
}

// withoutHidden takes from what the view shows, nil: all, what is hidden of it all the same, and what lies within Reach of that.
func (f *Frame) withoutHidden(view, shown []bool) []bool {
	S := f.Side
	hidden := func(p int) bool { return (view == nil || view[p]) && shown != nil && !shown[p] }
	near := make([]bool, S*S) // of those in the same row
	for y := range S {
		for x := range S {
			for u := max(0, x-Reach); u <= min(S-1, x+Reach) && !near[y*S+x]; u++ {
				near[y*S+x] = hidden(y*S + u)
			}
		}
	}
	counts := make([]bool, S*S)
	for y := range S {
		for x := range S {
			counts[y*S+x] = view == nil || view[y*S+x]
			for v := max(0, y-Reach); v <= min(S-1, y+Reach) && counts[y*S+x]; v++ {
				counts[y*S+x] = !near[v*S+x]
			}
		}
	}
	return counts
}

// leave makes the positions count that are true; nil: all.
func (f *Frame) leave(counts []bool) error {
	f.nearest, f.counted = nil, f.Side*f.Side
	if counts == nil || !slices.Contains(counts, false) {
		return nil
	}
	f.counted = 0
	for _, c := range counts {
		if c {
			f.counted++
		}
	}
	if f.counted == 0 {
		return fmt.Errorf("%w: masks leave out all of it", ErrNothing)
	}
	f.nearest = nearest(counts, f.Side)
	return nil
}

// nearest finds, for every position of a square, the nearest one that counts, by steps along rows and columns.
func nearest(counts []bool, S int) []int32 {
	const unknown = -1
	of := make([]int32, len(counts))
	queue := make([]int32, 0, len(counts))
	for i, c := range counts {
		of[i] = unknown
		if c {
			of[i] = int32(i)
			queue = append(queue, int32(i))
		}
	}
	for at := 0; at < len(queue); at++ {
		i := int(queue[at])
		x, y := i%S, i/S
		for _, n := range [...]struct {
			there bool
			at    int
		}{{y > 0, i - S}, {x > 0, i - 1}, {x < S-1, i + 1}, {y < S-1, i + S}} {
			if n.there && of[n.at] == unknown {
				of[n.at] = of[i]
				queue = append(queue, int32(n.at))
			}
		}
	}
	return of
}

// All says that every position counts.
func (f *Frame) All() bool { return f.nearest == nil }

// Counted is how many positions count, at least one.
func (f *Frame) Counted() int { return f.counted }

// Counts says whether position p, y*S + x, counts.
func (f *Frame) Counts(p int) bool { return f.nearest == nil || f.nearest[p] == int32(p) }

// Values are those of a map, H x W, at the positions that count: m itself where all do.
func (f *Frame) Values(m []float32) []float32 {
	if f.All() {
		return m
	}
	values := make([]float32, 0, f.counted)
	for i, v := range m {
		if f.Counts(i) {
			values = append(values, v)
		}
	}
	return values
}

// Middle is the place, in half pixels of the picture, of the position that counts and is nearest to the middle of what is
// looked at, or that middle itself where it counts.
func (f *Frame) Middle() image.Point {
	to := f.To.Min.Add(f.To.Max)
	at := to.Y/2*f.W + to.X/2
	if f.Counts(at) {
		return f.From.Min.Add(f.From.Max)
	}
	x, y := int(f.nearest[at])%f.W-f.To.Min.X, int(f.nearest[at])/f.W-f.To.Min.Y
	return image.Pt(2*f.From.Min.X+(2*x+1)*f.From.Dx()/f.To.Dx(), 2*f.From.Min.Y+(2*y+1)*f.From.Dy()/f.To.Dy())
}

// Nearest is, for every position, the nearest one that counts, itself where it does; nil: all count. It must not be
// changed.
func (f *Frame) Nearest() []int32 { return f.nearest }

// Planes writes the picture as the network is to see it when it judges, but for the normalisation, to dst: C,H,W planes of
// 3*S*S values, RGB in 0..1, for which dst must have room. The picture has the frame's size. What a mask of its own leaves out
// is seen, and does not count.
func (f *Frame) Planes(dst []float32, img *imagefile.Image) {
	if f.Pose.Found() {
		f.resamplePosed(dst, img)
	} else {
		Resample(dst, img, f.From, f.To, f.Side)
	}
	if f.apart {
		fill(dst, f.seen)
	} else {
		fill(dst, f.nearest)
	}
}

// Own says whether the picture has a mask of its own.
func (f *Frame) Own() bool { return f.own }

// Fill gives positions that do not count the values of the nearest that do, in any number of planes of S*S values. What is
// learned from has nothing else in them.
func (f *Frame) Fill(planes []float32) { fill(planes, f.nearest) }

func fill(planes []float32, nearest []int32) {
	if nearest == nil {
		return
	}
	for plane := range slices.Chunk(planes, len(nearest)) {
		for i, from := range nearest {
			if int(from) != i { // which nothing is written to
				plane[i] = plane[from]
			}
		}
	}
}

// Blank sets a map or a mask of its size to 0 where positions do not count.
func Blank[T float32 | uint8](f *Frame, m []T) {
	for i, from := range f.nearest {
		if int(from) != i {
			m[i] = 0
		}
	}
}

// full says that all of a map shows the picture.
func (f *Frame) full() bool { return f.To == image.Rect(0, 0, f.W, f.H) }

// Inner is the part of a map, H x W, that shows the picture, row-major, To.Dy() x To.Dx(): m itself where that is all of
// it.
func Inner[T any](f *Frame, m []T) []T {
	if f.full() {
		return m
	}
	inner := make([]T, 0, f.To.Dx()*f.To.Dy())
	for y := f.To.Min.Y; y < f.To.Max.Y; y++ {
		inner = append(inner, m[y*f.W+f.To.Min.X:][:f.To.Dx()]...)
	}
	return inner
}

// Outer puts what Inner takes from a map back to its place in one of H x W values, of which the others are outside: inner
// itself where there are none.
func Outer[T any](f *Frame, inner []T, outside T) []T {
	if f.full() {
		return inner
	}
	m := slices.Repeat([]T{outside}, f.H*f.W)
	for y := range f.To.Dy() {
		copy(m[(f.To.Min.Y+y)*f.W+f.To.Min.X:], inner[y*f.To.Dx():][:f.To.Dx()])
	}
	return m
}

// Area is what a map covers, in pixels of the picture: the whole picture, a part of it, or, where there is
// padding, more than it.
type Area struct {
	X      float64 `json:"x"` // left edge
	Y      float64 `json:"y"` // upper edge
	Width  float64 `json:"width"`
	Height float64 `json:"height"`
}

// Area is that of the frame's maps.
func (f *Frame) Area() Area {
	px, py := float64(f.From.Dx())/float64(f.To.Dx()), float64(f.From.Dy())/float64(f.To.Dy())
	return Area{float64(f.From.Min.X) - float64(f.To.Min.X)*px, float64(f.From.Min.Y) - float64(f.To.Min.Y)*py,
		float64(f.W) * px, float64(f.H) * py}
}

// Whole says that maps cover the picture and nothing else.
func (f *Frame) Whole() bool {
	return f.From == image.Rectangle{Max: f.Picture} && f.full()
}

// MostSpread bounds what Spread returns: so many times the map's side to a side.
const MostSpread = 4

// spread is the size of a map over the whole picture.
func (f *Frame) spread() (H, W int) {
	if f.Whole() {
		return f.H, f.W
	}
	sides := func(picture, from, to int) int {
		return min(MostSpread*f.Side, max(1, int(math.Ceil(float64(picture)*float64(to)/float64(from)))))
	}
	return sides(f.Picture.Y, f.From.Dy(), f.To.Dy()), sides(f.Picture.X, f.From.Dx(), f.To.Dx())
}

// Scale is how many values of Spread there are along a position of the network's input, the mean of width and height: Cell
// but for rounding and MostSpread.
func (f *Frame) Scale() float64 {
	if f.Whole() {
		return f.Cell
	}
	H, W := f.spread()
	values := float64(f.To.Dx()*f.To.Dy()) / float64(f.From.Dx()*f.From.Dy()) // per pixel
	return f.Cell * math.Sqrt(float64(H*W)/float64(f.Picture.X*f.Picture.Y)/values)
}

// Spread is a map, H x W, over the whole picture: H x W values, row-major, outside where the frame does not look at the
// picture. A part of a picture keeps its resolution, as far as MostSpread allows. Where the frame is the whole picture that
// is m itself.
func Spread[T any](f *Frame, m []T, outside T) (over []T, H, W int) {
	if f.Whole() {
		return m, f.H, f.W
	}
	H, W = f.spread()
	over = slices.Repeat([]T{outside}, H*W)
	// Pixel of the picture in the middle of value i of n, and the position that shows it, or none.
	place := func(i, n, picture, fromMin, fromLen, toMin, toLen int) int {
		pixel := (float64(i) + 0.5) * float64(picture) / float64(n)
		at := (pixel - float64(fromMin)) * float64(toLen) / float64(fromLen)
		if at < 0 || at >= float64(toLen) {
			return -1
		}
		return toMin + int(at)
	}
	for y := range H {
		row := place(y, H, f.Picture.Y, f.From.Min.Y, f.From.Dy(), f.To.Min.Y, f.To.Dy())
		if row < 0 {
			continue
		}
		for x := range W {
			if column := place(x, W, f.Picture.X, f.From.Min.X, f.From.Dx(), f.To.Min.X, f.To.Dx()); column >= 0 {
				over[y*W+x] = m[row*f.W+column]
			}
		}
	}
	return over, H, W
}
