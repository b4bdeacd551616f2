package modelfile

import (
	"fmt"
	"image"
	"slices"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/method"
	"rdpp/rdpp/tiling"
)

// View is an image as a model's net sees it, made without the device.
type View struct {
	Planes []float32        // 3 x S x S, framed and normalised; nil where the image is looked at in tiles
	Frame  *framing.Frame   // of Planes
	Image  *imagefile.Image // of which the tiles are cut, and which must not change meanwhile; else nil
}

// View frames and normalises an image, in the caller's goroutine. An image in tiles is kept as it is: its tiles would take
// several times its memory. ignore is a mask of the image's own, of what is not scored; nil: none.
func (m *Model) View(img *imagefile.Image, ignore *imagefile.Mask) (View, error) {
	config := &m.Info.Config
	if config.Tiled() {
		if ignore != nil {
			return View{}, framing.ErrTiles
		}
		return View{Image: img}, nil
	}
	frame, err := m.Framer.FrameOf(img, ignore)
	if err == nil && !frame.All() {
		_, err = method.TopOf(config.Learned())
	}
	if err != nil {
		return View{}, err
	}
	S := config.ImageSize
	x := make([]float32, 3*S*S)
	frame.Planes(x, img)
	config.Norm().Apply(x, x, S)
	return View{Planes: x, Frame: frame}, nil
}

// PredictViews is PredictEach of views of one model: whole images in one pass, images in tiles one after the other, each in
// passes of BatchSize tiles.
func (m *Model) PredictViews(views []View) []Outcome {
	if len(views) == 0 {
		return nil
	}
	if !m.Info.Config.Tiled() {
		x := views[0].Planes
		if len(views) > 1 {
			x = make([]float32, 0, len(views)*len(x))
			for _, v := range views {
				x = append(x, v.Planes...)
			}
		}
		all := m.PredictEach(x)
		for i := range all {
			m.framed(&all[i], views[i].Frame)
		}
		return all
	}
	all := make([]Outcome, len(views))
	for i, v := range views {
		all[i] = m.predictTiles(v.Image)
	}
	return all
}

// predictTiles predicts an image tile by tile and blends the tiles' maps. How many tiles go through the net at once leaves no
// trace in the outcome, as it does in none of PredictEach's.
func (m *Model) predictTiles(img *imagefile.Image) (o Outcome) {
	c := &m.Info.Config
	S := c.ImageSize
	grid, err := tiling.New(img.W, img.H, c.Tiling())
	if err != nil {
		return Outcome{Err: err}
	}
	share, err := method.TopOf(c.Learned())
	ofMap := err == nil
	if !ofMap && grid.Padded() { // what is beyond the picture must not count
		return Outcome{Err: fmt.Errorf("an image of %d x %d pixels is smaller than a tile of %d, which its score, of single patches, cannot leave out; "+
			"give larger images", img.W, img.H, c.Tile)}
	}
	blender := tiling.NewBlender(grid)
	n, norm := min(m.BatchSize(), grid.Len()), c.Norm()
	x := make([]float32, n*3*S*S)
	for first := 0; first < grid.Len(); first += n {
		some := x[:min(n, grid.Len()-first)*3*S*S]
		for i := range len(some) / (3 * S * S) {
			planes := some[i*3*S*S:][:3*S*S]
			if err := dataset.ResizePart(planes, img, grid.At(first+i), S); err != nil {
				return Outcome{Err: err}
			}
			norm.Apply(planes, planes, S)
		}
		for _, tile := range m.PredictEach(some) {
			if tile.Err == nil {
				tile.Err = blender.Add(tile.Map)
			}
			if tile.Err != nil {
				return Outcome{Err: tile.Err}
			}
			o.Score = max(o.Score, tile.Score)
		}
	}
	if o.Map, o.Err = blender.Map(); o.Err != nil {
		return o
	}
	o.W, o.H = grid.Map()
	o.Frame = framing.Tiled(image.Pt(img.W, img.H), S, o.W, o.H, grid.Scale())
	if ofMap {
		o.Score = anomaly.Highest(o.Map, grid.Cells(share))
	}
	return o
}

// MapCells is at most how many values the map of an image of so many pixels has, but for what rounding adds.
func (i *Info) MapCells(pixels int64) int64 {
	c := &i.Config
	if !c.Tiled() {
		return int64(c.ImageSize) * int64(c.ImageSize)
	}
	scale := float64(c.ImageSize) / float64(c.Tile)
	return min(int64(float64(pixels)*scale*scale), tiling.MaxCells)
}

// largeImage is how many times longer than the net's input an image is at least of which people are told.
const largeImage = 4

// Spots tell how small a defect can be and still be found: discs of growing size, half of the range of values brighter or darker
// than what they cover, were put on good images.
type Spots struct {
	Smallest int `json:"smallest"` // diameter from which on most of the images were anomalous, pixels; 0: none was
	Largest  int `json:"largest"`  // that was tried
	Width    int `json:"width"`    // of what is looked at of the largest image that they were put on
	Height   int `json:"height"`
}

// Measured says whether spots were put on images.
func (s Spots) Measured() bool { return s.Largest > 0 }

// Text says what was found, in words; "" where nothing was measured.
func (s Spots) Text() string {
	switch {
	case !s.Measured():
		return ""
	case s.Smallest == 0:
		return fmt.Sprintf("of strong spots put on good images of %d x %d pixels none was found, up to %d pixels wide", s.Width, s.Height, s.Largest)
	}
	return fmt.Sprintf("of strong spots put on good images of %d x %d pixels those were found that are %d pixels wide or more", s.Width, s.Height, s.Smallest)
}

// TooLarge is Info.TooLarge of what is looked at of an image of w x h pixels.
func (m *Model) TooLarge(w, h int) string {
	frame, err := m.Framer.Frame(w, h, nil)
	if err != nil { // which the image itself will tell
		return ""
	}
	return m.Info.TooLarge(frame.From.Dx(), frame.From.Dy())
}

// TooLarge says that an image of w x h pixels, or what is looked at of one, loses too much in being resized as a whole, and what
// is left; "" where it does not.
func (i *Info) TooLarge(w, h int) string {
	c := &i.Config
	if c.Tiled() || max(w, h) <= largeImage*c.ImageSize {
		return ""
	}
	known := ""
	if i.Spots.Measured() {
		known = " (" + i.Spots.Text() + ")"
	}
	return fmt.Sprintf("an image of %d x %d pixels is seen at %d x %d, where small defects vanish%s: train with tiles to find them", w, h, c.ImageSize,
		c.ImageSize, known)
}

// spotSizes are the diameters that are tried on an image, pixels: each half as wide again as the one before.
func spotSizes(w, h int) (sizes []int) {
	for d := 2; d <= min(w, h)/2; d += max(1, d/2) {
		sizes = append(sizes, d)
	}
	return sizes
}

// spotted is a part of an image, a tile's where the model looks at tiles, with a spot in its middle, or elsewhere in the middle
// of what counts.
func (m *Model) spotted(img *imagefile.Image, frame *framing.Frame, diameter int) *imagefile.Image {
	w, h, x0, y0 := img.W, img.H, 0, 0
	middle := frame.Middle()
	if n := m.Info.Config.Tile; n > 0 {
		w, h = min(w, n), min(h, n)
		x0, y0 = (img.W-w)/2, (img.H-h)/2
		middle = image.Pt(w, h) // twice
	}
	part := &imagefile.Image{W: w, H: h, Pix: make([]uint8, 0, 3*w*h), Stored: img.Stored}
	for y := range h {
		part.Pix = append(part.Pix, img.Pix[3*((y0+y)*img.W+x0):][:3*w]...)
	}
	for y := range h {
		for x := range w {
			dx, dy := 2*x+1-middle.X, 2*y+1-middle.Y // twice the distance
			if dx*dx+dy*dy > diameter*diameter {
				continue
			}
			p := part.Pix[3*(y*w+x):][:3]
			for c, v := range p {
				p[c] = v ^ 128 // half of the range away
			}
		}
	}
	return part
}

// MeasureSpots puts spots on good images and finds those that make most of them anomalous. read returns the images, one by
// one. The model is settled and calibrated.
func (m *Model) MeasureSpots(n int, read func(i int) (*imagefile.Image, error)) (s Spots, err error) {
	found := map[int]int{} // by diameter, images
	for i := range n {
		img, err := read(i)
		if err != nil {
			return Spots{}, err
		}
		frame, err := m.Framer.Frame(img.W, img.H, nil)
		if err != nil {
			return Spots{}, err
		}
		w, h := frame.From.Dx(), frame.From.Dy()
		if w*h > s.Width*s.Height {
			s.Width, s.Height = w, h
		}
		if t := m.Info.Config.Tile; t > 0 {
			w, h = min(w, t), min(h, t)
		}
		sizes := spotSizes(w, h)
		for _, d := range slices.Backward(sizes) { // down to the first that is missed: a larger one is not missed
			view, err := m.View(m.spotted(img, frame, d), nil)
			if err != nil {
				return Spots{}, err
			}
			o := m.PredictViews([]View{view})[0]
			if o.Err != nil {
				return Spots{}, o.Err
			}
			if o.Score <= m.Info.Calibration.Threshold {
				break
			}
			found[d]++
		}
		if len(sizes) > 0 {
			s.Largest = max(s.Largest, sizes[len(sizes)-1])
		}
	}
	for d, count := range found {
		if 2*count > n && (s.Smallest == 0 || d < s.Smallest) {
			s.Smallest = d
		}
	}
	return s, nil
}
