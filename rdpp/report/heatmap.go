// Package report shows people what a detector saw and how well it does: heatmaps, the HTML report of a category, and the
// index of a run over several. Its functions are safe for concurrent use.
package report

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"
	"slices"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"

	"rdpp/rdpp/imagefile"
)

// ErrInput reports a picture, an anomaly map, options or figures that nothing can be drawn of.
var ErrInput = errors.New("report: unusable input")

// HeatmapOptions says how an anomaly map is drawn. Nil, and the zero of each field, mean the default.
type HeatmapOptions struct {
	// Low and High are the values of the map at the colour map's ends; values beyond take the colour of that end.
	// Default, where both are 0: the map's own extremes, which makes heatmaps incomparable with each other.
	Low, High float32
	// Threshold is marked on the legend, and a contour is drawn where the map is above it, unless there are Levels. Default, nil:
	// neither.
	Threshold *float32
	// Levels, as metric.Outline.Regions returns them, say for each pixel of the map above what a contour is drawn.
	Levels []float64
	// Opacity of the colours over the picture, above 0 (the picture alone) to 1 (colours alone), default 0.5.
	Opacity float64
	// Legend adds a strip below the picture: the colours, the values at their ends, and the threshold. Default: none.
	Legend bool
}

var (
	contourColour = color.RGBA{0, 255, 220, 255} // absent from the colour map
	legendColour  = color.RGBA{24, 24, 28, 255}
)

// inferno is the perceptually uniform colour map of that name, by Nathaniel Smith and Stéfan van der Walt (in
// matplotlib, CC0), from low to high.
var inferno = interpolate([]uint32{
	0x000004, 0x02020c, 0x050417, 0x0a0722, 0x10092d, 0x160b39, 0x1e0c45, 0x260c51, 0x2f0a5b,
	0x380962, 0x400a67, 0x490b6a, 0x510e6c, 0x59106e, 0x61136e, 0x69166e, 0x71196e, 0x781c6d,
	0x801f6c, 0x88226a, 0x902568, 0x982766, 0xa02a63, 0xa82e5f, 0xb0315b, 0xb73557, 0xbf3952,
	0xc63d4d, 0xcc4248, 0xd34743, 0xd94d3d, 0xdf5337, 0xe45a31, 0xe9612b, 0xed6925, 0xf1711f,
	0xf47918, 0xf78212, 0xf98b0b, 0xfa9407, 0xfb9d07, 0xfca60c, 0xfcb014, 0xfbba1f, 0xfac42a,
	0xf8cd37, 0xf6d746, 0xf4e156, 0xf2ea69, 0xf2f27d, 0xf5f992, 0xfcffa4,
})

// interpolate spreads every fifth colour, written 0xRRGGBB, linearly over 256; inferno is within one level that way.
func interpolate(stops []uint32) (table [256]color.RGBA) {
	for i := range table {
		a := i / 5
		b := min(a+1, len(stops)-1)
		channel := func(shift int) uint8 {
			from, to := int(stops[a]>>shift&255), int(stops[b]>>shift&255)
			return uint8((from*(5-i%5) + to*(i%5) + 2) / 5)
		}
		table[i] = color.RGBA{channel(16), channel(8), channel(0), 255}
	}
	return table
}

// Outlined are the options that draw the map of an image as its verdict is: contours around the regions that levels say, and
// colours from 0 to one and a half times the threshold of pixels, so that good parts stay dark, or to the map's own peak where
// that is higher; a legend tells which. A threshold of 0, of a model that was calibrated with no image, tells no range: then
// colours reach from the map's lowest value to its highest.
func Outlined(threshold float64, m []float32, levels []float64) *HeatmapOptions {
	o := &HeatmapOptions{Threshold: new(float32(threshold)), Levels: levels, Legend: true}
	if threshold > 0 && len(m) > 0 {
		o.High = max(float32(1.5*threshold), slices.Max(m))
	}
	return o
}

// Heatmap lays the row-major H x W anomaly map m over img and draws, in img's own size, the map in colours and a contour
// around what is above the threshold; a legend makes the picture higher. The map is enlarged bilinearly with half-pixel
// centres. A map of other than H*W finite values, other than so many levels, an empty picture or Low above High is ErrInput.
func Heatmap(img *imagefile.Image, m []float32, H, W int, opt *HeatmapOptions) (*image.RGBA, error) {
	o := HeatmapOptions{}
	if opt != nil {
		o = *opt
	}
	if err := drawable(img, m, H, W); err != nil {
		return nil, err
	}
	if o.Levels != nil && len(o.Levels) != len(m) {
		return nil, fmt.Errorf("%w: %d levels of a map of %d values", ErrInput, len(o.Levels), len(m))
	}
	if o.Low == 0 && o.High == 0 {
		o.Low, o.High = slices.Min(m), slices.Max(m)
	}
	if o.Opacity == 0 {
		o.Opacity = 0.5
	}
	// The negated comparisons refuse NaN too.
	if !(o.Low <= o.High) || !(o.Opacity > 0 && o.Opacity <= 1) {
		return nil, fmt.Errorf("%w: low %g must not exceed high %g, and opacity %g lie within 0 to 1", ErrInput, o.Low, o.High, o.Opacity)
	}
	// Lines and letters grow with the picture.
	zoom := max(1, (img.W+256)/512)
	legend := &image.RGBA{}
	if o.Legend {
		legend = drawLegend((img.W+zoom-1)/zoom, o)
	}
	out := image.NewRGBA(image.Rect(0, 0, img.W, img.H+zoom*legend.Rect.Dy()))
	values := enlarge(m, H, W, img.H, img.W)
	drawColours(out, img, values, o)
	switch {
	case o.Levels != nil:
		drawContour(out, outlined(values, o.Levels, H, W, img.H, img.W), img.H, img.W, zoom, contourColour)
	case o.Threshold != nil:
		inside := make([]bool, len(values))
		for i, v := range values {
			inside[i] = v > *o.Threshold
		}
		drawContour(out, inside, img.H, img.W, zoom, contourColour)
	}
	for y := img.H; y < out.Rect.Dy(); y++ {
		for x := range img.W {
			out.SetRGBA(x, y, legend.RGBAAt(x/zoom, (y-img.H)/zoom))
		}
	}
	return out, nil
}

// drawable refuses a picture without pixels and a map that is not of H*W finite values.
func drawable(img *imagefile.Image, m []float32, H, W int) error {
	if H <= 0 || W <= 0 || len(m) != H*W {
		return fmt.Errorf("%w: a map of %d values, to be %d x %d", ErrInput, len(m), H, W)
	}
	if img == nil || img.W <= 0 || img.H <= 0 || len(img.Pix) != 3*img.W*img.H {
		return fmt.Errorf("%w: the picture is empty or its pixels do not fit its size", ErrInput)
	}
	if i := slices.IndexFunc(m, func(v float32) bool { return v-v != 0 }); i >= 0 {
		return fmt.Errorf("%w: row %d, column %d of the map is %g", ErrInput, i/W, i%W, m[i])
	}
	return nil
}

// enlarge resizes m from H x W to toH x toW bilinearly, with half-pixel centres and clamped at the borders.
func enlarge(m []float32, H, W, toH, toW int) []float32 {
	columns := make([]tap, toW)
	for x := range columns {
		columns[x] = tapOf(x, W, toW)
	}
	out := make([]float32, toH*toW)
	line := make([]float32, W)
	for y := range toH {
		t := tapOf(y, H, toH)
		above, below := m[t.a*W:][:W], m[t.b*W:][:W]
		for x := range line {
			line[x] = above[x] + t.part*(below[x]-above[x])
		}
		row := out[y*toW:][:toW]
		for x, t := range columns {
			row[x] = line[t.a] + t.part*(line[t.b]-line[t.a])
		}
	}
	return out
}

// tap says that an enlarged pixel lies between pixels a and b, the given part of the way to b.
type tap struct {
	a, b int
	part float32
}

func tapOf(i, from, to int) tap {
	at := (float64(i)+0.5)*float64(from)/float64(to) - 0.5
	at = min(max(at, 0), float64(from-1))
	a := int(at)
	return tap{a, min(a+1, from-1), float32(at - float64(a))}
}

func drawColours(out *image.RGBA, img *imagefile.Image, values []float32, o HeatmapOptions) {
	factor := 0.0
	if o.High > o.Low {
		factor = 255 / (float64(o.High) - float64(o.Low))
	}
	over := int(math.Round(256 * o.Opacity))
	for i, v := range values {
		t := (float64(v) - float64(o.Low)) * factor
		c := inferno[int(min(max(t, 0), 255)+0.5)]
		from, to := img.Pix[3*i:][:3], out.Pix[4*i:][:4]
		to[0] = uint8((int(from[0])*(256-over) + int(c.R)*over) >> 8)
		to[1] = uint8((int(from[1])*(256-over) + int(c.G)*over) >> 8)
		to[2] = uint8((int(from[2])*(256-over) + int(c.B)*over) >> 8)
		to[3] = 255
	}
}

// outlined says which pixels of an enlarged map are in its regions: those above the level of a region that reaches into or next
// to the map's pixel that they are in.
func outlined(values []float32, levels []float64, H, W, toH, toW int) []bool {
	near := make([]float64, len(levels))
	for y := range H {
		for x := range W {
			near[y*W+x] = levels[y*W+x]
			for ny := max(0, y-1); ny <= min(H-1, y+1); ny++ {
				near[y*W+x] = min(near[y*W+x], slices.Min(levels[ny*W+max(0, x-1):ny*W+min(W, x+2)]))
			}
		}
	}
	inside := make([]bool, len(values))
	for i, v := range values {
		inside[i] = float64(v) > near[i/toW*H/toH*W+i%toW*W/toW]
	}
	return inside
}

// drawContour draws a line of the given width and colour along the inside of an area. The picture's border closes it.
func drawContour(out *image.RGBA, inside []bool, H, W, width int, c color.RGBA) {
	in := func(y, x int) bool {
		return y >= 0 && y < H && x >= 0 && x < W && inside[y*W+x]
	}
	for y := range H {
		for x := range W {
			if inside[y*W+x] && !(in(y-width, x) && in(y+width, x) && in(y, x-width) && in(y, x+width)) {
				out.SetRGBA(x, y, c)
			}
		}
	}
}

// drawLegend draws the colour map with the values at its ends and, where a contour is drawn, the threshold, as wide as
// told. What does not fit is left out.
func drawLegend(width int, o HeatmapOptions) *image.RGBA {
	const margin, barTop, barHeight, lineHeight = 4, 5, 10, 16
	height := barTop + lineHeight
	if o.Threshold != nil {
		height += lineHeight
	}
	legend := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.Draw(legend, legend.Rect, image.NewUniform(legendColour), image.Point{}, draw.Src)

	low, high := fmt.Sprintf("%.3g", o.Low), fmt.Sprintf("%.3g", o.High)
	left, right := 2*margin+textWidth(low), width-2*margin-textWidth(high)
	if right-left >= 32 {
		drawText(legend, margin, barTop+barHeight, low, color.White)
		drawText(legend, right+margin, barTop+barHeight, high, color.White)
	} else {
		left, right = margin, width-margin
	}
	for x := left; x < right; x++ {
		c := inferno[255*(x-left)/max(1, right-left-1)]
		draw.Draw(legend, image.Rect(x, barTop, x+1, barTop+barHeight), image.NewUniform(c), image.Point{}, draw.Src)
	}
	if o.Threshold == nil {
		return legend
	}
	threshold := *o.Threshold
	number := fmt.Sprintf("%.3g", threshold)
	text := "threshold " + number
	if textWidth(text)+2*margin > width {
		text = number
	}
	at := (left + right) / 2
	if threshold >= o.Low && threshold <= o.High && o.High > o.Low {
		part := (float64(threshold) - float64(o.Low)) / (float64(o.High) - float64(o.Low))
		at = left + int(part*float64(right-left-1)+0.5)
		draw.Draw(legend, image.Rect(at-1, barTop-3, at+1, barTop+barHeight+3), image.NewUniform(contourColour), image.Point{}, draw.Src)
	}
	if w := textWidth(text); w+2*margin <= width {
		x := min(max(at-w/2, margin), width-margin-w)
		drawText(legend, x, barTop+barHeight+lineHeight-1, text, contourColour)
	}
	return legend
}

func textWidth(text string) int {
	return font.MeasureString(basicfont.Face7x13, text).Ceil()
}

// drawText writes text from x on, its baseline at y.
func drawText(on *image.RGBA, x, y int, text string, c color.Color) {
	drawer := font.Drawer{Dst: on, Src: image.NewUniform(c), Face: basicfont.Face7x13, Dot: fixed.P(x, y)}
	drawer.DrawString(text)
}
