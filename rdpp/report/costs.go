package report

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
	"unicode"

	"rdpp/rdpp/printable"
)

// Costs is a figure of what methods find over what that takes, as the paper's Figure 1: image AUROC over time per image, with
// memory as the area of circles.
type Costs struct {
	Title string `json:"title"`          // in words; required
	Time  string `json:"time,omitempty"` // what the times are of; default "time per image"
	Area  string `json:"area,omitempty"` // what the areas are; default "memory"
	Costs []Cost `json:"costs"`          // required
}

// Cost is a circle.
type Cost struct {
	Name         string  `json:"name"`         // of a method; required
	Milliseconds float64 `json:"milliseconds"` // per image, above 0
	ImageAUROC   float64 `json:"image_auroc"`  // 0 to 1
	Bytes        int64   `json:"bytes"`        // of memory, above 0
}

// The figure's size, in SVG units, and what of it is around the plane.
const (
	costsWidth, costsHeight = 680, 480
	costsLeft, costsRight   = 52, 14
	costsTop, costsBottom   = 56, 42
	largestCircle           = 30 // its radius; of the others the areas are in proportion
	labelHeight             = 17
)

// costsStyle colours the figure by itself, in a page or in a file of its own, on light and dark grounds.
//
//go:embed costs.css
var costsStyle string

// costsColours is how many colours costsStyle has; further circles get them again.
const costsColours = 7

// SVG draws the figure for a page. It needs no other style than its own, and runs nothing.
func (c *Costs) SVG() (template.HTML, error) {
	if err := c.check(); err != nil {
		return "", err
	}
	var times, rates []float64 // ms, %
	var most int64
	for _, k := range c.Costs {
		times, rates, most = append(times, k.Milliseconds), append(rates, 100*k.ImageAUROC), max(most, k.Bytes)
	}
	p := &plane{left: costsLeft, top: costsTop, width: costsWidth - costsLeft - costsRight, height: costsHeight - costsTop - costsBottom, inset: largestCircle + 4,
		x: timeAxis(printable.Text(cmp.Or(c.Time, "time per image"))+", ms", times), y: rateAxis("image AUROC, %", rates)}
	var circles []circle
	for _, k := range c.Costs {
		circles = append(circles, circle{x: p.atX(k.Milliseconds), y: p.atY(100 * k.ImageAUROC),
			r: largestCircle * math.Sqrt(float64(k.Bytes)/float64(most)), name: shortened(printable.Text(k.Name), costsWidth/3), size: bytesText(k.Bytes)})
	}
	boxes := placeLabels(p, circles)

	s := &strings.Builder{}
	text := func(s string) string { return template.HTMLEscapeString(printable.Text(s)) }
	fmt.Fprintf(s, `<svg xmlns="http://www.w3.org/2000/svg" class="costs" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`,
		costsWidth, costsHeight, costsWidth, costsHeight, text(c.Title))
	fmt.Fprintf(s, "<style>%s</style>", costsStyle)
	fmt.Fprintf(s, `<rect class="ground" width="%d" height="%d"/>`, costsWidth, costsHeight)
	fmt.Fprintf(s, `<text class="heading" x="2" y="18">%s</text>`, text(shortened(printable.Text(c.Title), costsWidth-4)))
	p.drawAxes(s)
	fmt.Fprintf(s, `<text class="label" x="%d" y="%d" text-anchor="end">area of a circle: %s</text>`, p.left+p.width, p.top-14,
		text(cmp.Or(c.Area, "memory")))
	for _, i := range largestFirst(circles) {
		k, at := c.Costs[i], circles[i]
		fmt.Fprintf(s, `<circle class="s%d" cx="%.2f" cy="%.2f" r="%.3f"><title>%s: %s ms, %s %%, %s</title></circle>`, i%costsColours,
			at.x, at.y, at.r, text(k.Name), number(k.Milliseconds, 3), percent(k.ImageAUROC), text(at.size))
	}
	for i, at := range circles {
		b := boxes[i]
		if x, y, far := b.nearest(at); far {
			fmt.Fprintf(s, `<path class="leader" d="M%.1f %.1f L%.1f %.1f"/>`, at.x, at.y, x, y)
		}
		fmt.Fprintf(s, `<text class="name" x="%.1f" y="%.1f">%s <tspan class="size">%s</tspan></text>`, b.x, b.y+labelHeight-4.5, text(at.name), text(at.size))
	}
	s.WriteString("</svg>")
	return template.HTML(s.String()), nil
}

// WriteCosts writes the figure as an SVG file. Nothing is written where it is refused (ErrInput).
func WriteCosts(w io.Writer, c *Costs) error {
	svg, err := c.SVG()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n%s\n", svg); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

func (c *Costs) check() error {
	if c == nil || c.Title == "" || len(c.Costs) == 0 {
		return fmt.Errorf("%w: the figure of costs has no title or no circle; give both", ErrInput)
	}
	k := checker{}
	for i, cost := range c.Costs {
		name := func(field string) string { return fmt.Sprintf("%s of circle %d (%q)", field, i, cost.Name) }
		if cost.Name == "" {
			k.fail("circle %d has no name", i)
		}
		k.within(cost.Milliseconds, math.SmallestNonzeroFloat32, math.MaxFloat32, name, "time")
		k.within(cost.ImageAUROC, 0, 1, name, "image AUROC")
		k.within(float64(cost.Bytes), 1, math.MaxInt64, name, "memory")
	}
	return k.err
}

// timeAxis begins at 0 where one axis shows all times; it is logarithmic where they are too far apart for that.
func timeAxis(label string, times []float64) axis {
	if a := fit(label, times); a.log {
		return a
	}
	return fit(label, times, []float64{0})
}

// rateAxis is about rates, in percent, and shows none that cannot be.
func rateAxis(label string, rates []float64) axis {
	a := fit(label, rates)
	if over := a.high - 100; over > 0 {
		a.low, a.high = max(0, a.low-over), 100
	}
	if a.low < 0 {
		a.low, a.high = 0, a.high-a.low
	}
	return a
}

// bytesText writes a size of memory with three digits.
func bytesText(n int64) string {
	const mib = 1 << 20
	if n < 1000*mib {
		return number(float64(n)/mib, 3) + " MiB"
	}
	return number(float64(n)/(1<<30), 3) + " GiB"
}

// circle is a circle in SVG units, with its label.
type circle struct {
	x, y, r    float64
	name, size string
}

// largestFirst is the order in which no circle covers a smaller one.
func largestFirst(circles []circle) []int {
	order := make([]int, len(circles))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(circles[b].r, circles[a].r) })
	return order
}

// box is where a label stands, in SVG units: its upper left corner, width and height.
type box struct{ x, y, w, h float64 }

func (b box) overlaps(o box) bool {
	return b.x < o.x+o.w && o.x < b.x+b.w && b.y < o.y+o.h && o.y < b.y+b.h
}

func (b box) covers(c circle) bool {
	dx, dy := c.x-min(max(c.x, b.x), b.x+b.w), c.y-min(max(c.y, b.y), b.y+b.h)
	return dx*dx+dy*dy < c.r*c.r
}

// nearest is the point of the box that is nearest to a circle's centre, and whether it is so far from the circle that a line has
// to lead there.
func (b box) nearest(c circle) (x, y float64, far bool) {
	x, y = min(max(c.x, b.x), b.x+b.w), min(max(c.y, b.y), b.y+b.h)
	return x, y, math.Hypot(x-c.x, y-c.y) > c.r+12
}

// placeLabels finds a place for each circle's label, as near to it as may be: inside the plane and over no other label and no
// circle, or, where there is no such place, over no other label; where there is none either, beside the circle.
func placeLabels(p *plane, circles []circle) []box {
	const gap = 3 // around a label
	inside := func(b box) bool {
		return b.x >= float64(p.left)+gap && b.x+b.w <= float64(p.left+p.width)-gap && b.y >= float64(p.top)+gap && b.y+b.h <= float64(p.top+p.height)-gap
	}
	var placed []box
	free := func(b box) bool {
		wide := box{b.x - gap, b.y, b.w + 2*gap, b.h}
		return inside(b) && !slices.ContainsFunc(placed, wide.overlaps)
	}
	uncovered := func(b box) bool {
		return free(b) && !slices.ContainsFunc(circles, func(c circle) bool { return b.covers(circle{x: c.x, y: c.y, r: c.r + gap}) })
	}
	for _, c := range circles {
		w := labelWidth(c.name + " " + c.size)
		around := boxesAround(c, w, math.Hypot(float64(p.width), float64(p.height)))
		i := slices.IndexFunc(around, uncovered)
		if i < 0 {
			i = slices.IndexFunc(around, free)
		}
		placed = append(placed, around[max(i, 0)])
	}
	return placed
}

// boxesAround are the boxes of a label of width w around a circle, the nearest first, up to a distance.
func boxesAround(c circle, w, most float64) (all []box) {
	const angles = 16
	for distance := 3.0; distance < most; distance += labelHeight / 2 {
		for _, i := range []int{0, 8, 12, 4, 14, 2, 10, 6, 15, 1, 9, 7, 13, 3, 11, 5} { // to the right, to the left, above, below, ...
			sin, cos := math.Sincos(2 * math.Pi * float64(i) / angles)
			x, y := c.x+cos*(c.r+distance+w/2), c.y+sin*(c.r+distance+labelHeight/2)
			all = append(all, box{x - w/2, y - labelHeight/2, w, labelHeight})
		}
	}
	return all
}

// labelWidth is what a label of 13 units in size takes in sans-serif, rather too much than too little.
func labelWidth(s string) (w float64) {
	for _, r := range s {
		switch {
		case r >= 0x1100 && r != '…': // East Asian, mostly
			w += 14
		case unicode.IsUpper(r):
			w += 9.5
		case r == ' ' || r == '.' || r == ',' || r == 'i' || r == 'l':
			w += 4.5
		default:
			w += 8.4
		}
	}
	return w
}

// shortened is a text that takes so much room at most.
func shortened(text string, width float64) string {
	if labelWidth(text) <= width {
		return text
	}
	runes := []rune(text)
	for len(runes) > 0 && labelWidth(string(runes)+"…") > width {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}
