package report

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
)

// A chart's size and the margins around its plot, in SVG units, which are CSS pixels on a phone.
const (
	chartWidth, chartHeight = 340, 240
	marginLeft, marginRight = 46, 14
	marginTop, marginBottom = 26, 38
	plotWidth               = chartWidth - marginLeft - marginRight
	plotHeight              = chartHeight - marginTop - marginBottom
)

// plane is the rectangle of a figure that is drawn in, in SVG units, with the axes along its left and its lower side.
type plane struct {
	left, top, width, height int
	inset                    int // of the axes' ends from the rectangle's
	x, y                     axis
}

func (p *plane) atX(x float64) float64 {
	return float64(p.left+p.inset) + float64(p.width-2*p.inset)*p.x.at(x)
}

func (p *plane) atY(y float64) float64 {
	return float64(p.top+p.inset) + float64(p.height-2*p.inset)*(1-p.y.at(y))
}

func (p *plane) drawAxes(s *strings.Builder) {
	bottom, right := p.top+p.height, p.left+p.width
	for _, t := range p.y.ticks(5) {
		y := p.atY(t.value)
		fmt.Fprintf(s, `<path class="grid" d="M%d %.1f h%d"/>`, p.left, y, p.width)
		fmt.Fprintf(s, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`, p.left-6, y+4, t.text)
	}
	for _, t := range p.x.ticks(5) {
		x := p.atX(t.value)
		fmt.Fprintf(s, `<path class="axis" d="M%.1f %d v4"/>`, x, bottom)
		fmt.Fprintf(s, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, x, bottom+16, t.text)
	}
	fmt.Fprintf(s, `<path class="axis" d="M%d %d V%d H%d"/>`, p.left, p.top, bottom, right)
	fmt.Fprintf(s, `<text class="label" x="%d" y="%d">%s</text>`, 2, p.top-14, template.HTMLEscapeString(p.y.label))
	fmt.Fprintf(s, `<text class="label" x="%d" y="%d" text-anchor="end">%s</text>`, right, bottom+33, template.HTMLEscapeString(p.x.label))
}

// chart is a figure of lines over two axes.
type chart struct {
	title   string // for those who cannot see it, too
	caption string
	x, y    axis
	lines   []line
	marks   []mark
}

// line is a series of points, drawn in the colour and dashes of its place in the style sheet.
type line struct {
	name   string
	style  int // 0 to 4
	points []Point
	filled bool // down to the x axis
	dots   bool // at each point
}

// mark is a vertical line at x.
type mark struct {
	x    float64
	name string
}

// drawing is a drawn chart with its legend, for a template.
type drawing struct {
	Title, Caption string
	SVG            template.HTML
	Legend         []key
}

// key is a line of a legend.
type key struct {
	Name  string
	Style int
	Fill  bool
}

func (c *chart) draw() *drawing {
	out := &drawing{Title: c.title, Caption: c.caption}
	s := &strings.Builder{}
	fmt.Fprintf(s, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, chartWidth, chartHeight, template.HTMLEscapeString(c.title))
	p := c.plane()
	p.drawAxes(s)
	for _, l := range c.lines {
		p.drawLine(s, l)
		if l.name != "" {
			out.Legend = append(out.Legend, key{l.name, l.style, l.filled})
		}
	}
	for _, m := range c.marks {
		at := p.atX(m.x)
		anchor, text := "start", at+4
		if at > marginLeft+plotWidth/2 {
			anchor, text = "end", at-4
		}
		fmt.Fprintf(s, `<path class="mark" d="M%.1f %d v%d"/>`, at, marginTop, plotHeight)
		fmt.Fprintf(s, `<text class="halo" x="%.1f" y="%d" text-anchor="%s">%s</text>`, text, marginTop+11, anchor, template.HTMLEscapeString(m.name))
	}
	s.WriteString("</svg>")
	out.SVG = template.HTML(s.String())
	return out
}

func (c *chart) plane() *plane {
	return &plane{left: marginLeft, top: marginTop, width: plotWidth, height: plotHeight, x: c.x, y: c.y}
}

func (p *plane) drawLine(s *strings.Builder, l line) {
	points := thin(l.points, p.x, 2*p.width)
	path := &strings.Builder{}
	for i, at := range points {
		command := 'L'
		if i == 0 {
			command = 'M'
		}
		fmt.Fprintf(path, "%c%.1f %.1f", command, p.atX(at.X), p.atY(at.Y))
	}
	if l.filled {
		fmt.Fprintf(s, `<path class="fill s%d" d="%sV%d H%.1fZ"/>`, l.style, path, p.top+p.height, p.atX(points[0].X))
	}
	fmt.Fprintf(s, `<path class="line s%d" d="%s"/>`, l.style, path)
	if l.dots && len(points) <= 40 {
		for _, at := range points {
			fmt.Fprintf(s, `<circle class="dot s%d" cx="%.1f" cy="%.1f" r="2.5"/>`, l.style, p.atX(at.X), p.atY(at.Y))
		}
	}
}

// thin keeps of each of the given number of columns along the axis the first, the last, the lowest and the highest
// point, which draw the same pixels as all of them do (Jugel et al., VLDB 2014, "M4"). X does not fall.
func thin(points []Point, x axis, columns int) []Point {
	if len(points) <= 2*columns {
		return points
	}
	column := func(p Point) int { return int(x.at(p.X) * float64(columns)) }
	var out []Point
	for start := 0; start < len(points); {
		end, low, high := start, start, start
		for ; end < len(points) && column(points[end]) == column(points[start]); end++ {
			if points[end].Y < points[low].Y {
				low = end
			}
			if points[end].Y > points[high].Y {
				high = end
			}
		}
		keep := []int{start, low, high, end - 1}
		slices.Sort(keep)
		for _, i := range slices.Compact(keep) {
			out = append(out, points[i])
		}
		start = end
	}
	return out
}

// axis maps low to high onto 0 to 1.
type axis struct {
	label     string // quantity and unit
	low, high float64
	log       bool
	whole     bool // ticks at whole numbers alone
}

// rates is the axis of a rate from 0 to high, in percent.
func rates(label string, high float64) axis { return axis{label: label, high: 100 * high} }

// fit is an axis over all values, from tick to tick. It is logarithmic, and its label says so, where the values are
// positive and the largest is more than 30 times the smallest.
func fit(label string, values ...[]float64) axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if len(v) > 0 {
			low, high = min(low, slices.Min(v)), max(high, slices.Max(v))
		}
	}
	if low > high {
		return axis{label: label, high: 1}
	}
	if low > 1e-30 && high > 30*low {
		a := axis{label: label + " (logarithmic)", log: true}
		steps := logSteps(low, high)
		a.low, a.high = steps[0], steps[len(steps)-1]
		return a
	}
	// Ticks between numbers closer than this would be too long to read.
	size := max(math.Abs(low), math.Abs(high))
	if size < 1e-30 {
		size = 1
	}
	if high-low < 1e-3*size {
		low, high = low-0.05*size, high+0.05*size
	}
	step := niceStep((high - low) / 4)
	return axis{label: label, low: step * math.Floor(low/step), high: step * math.Ceil(high/step)}
}

// logSteps are the 1, 2, 5, 10, 20 ... from just below low to just above high.
func logSteps(low, high float64) (steps []float64) {
	first := math.Floor(math.Log10(low))
	for power := first; ; power++ {
		for _, digit := range []float64{1, 2, 5} {
			step := digit * math.Pow(10, power)
			if step <= low {
				steps = steps[:0]
			}
			steps = append(steps, step)
			if step >= high {
				return steps
			}
		}
	}
}

// niceStep is the smallest of 1, 2, 5, 10, 20 ... that is not below the given one.
func niceStep(least float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, digit := range []float64{1, 2, 5} {
		if digit*power >= least*(1-1e-9) {
			return digit * power
		}
	}
	return 10 * power
}

func (a axis) at(v float64) float64 {
	if a.log {
		return math.Log(v/a.low) / math.Log(a.high/a.low)
	}
	return (v - a.low) / (a.high - a.low)
}

// value is the inverse of at.
func (a axis) value(at float64) float64 {
	if a.log {
		return a.low * math.Pow(a.high/a.low, at)
	}
	return a.low + at*(a.high-a.low)
}

// tick is a labelled value of an axis.
type tick struct {
	value float64
	text  string
}

// ticks are at round values, some as many as told on a linear axis.
func (a axis) ticks(some float64) (ticks []tick) {
	add := func(value float64, digits int) {
		ticks = append(ticks, tick{value, strings.Replace(number(value, digits), "-", "−", 1)})
	}
	if a.log {
		steps := logSteps(a.low, a.high)
		every := 1
		if len(steps) > 7 { // powers of ten alone
			steps = slices.DeleteFunc(steps, func(s float64) bool { return math.Abs(math.Remainder(math.Log10(s), 1)) > 1e-9 })
			every = (len(steps) + 5) / 6
		}
		for i := 0; i < len(steps); i += every {
			add(steps[i], 1)
		}
		return ticks
	}
	step := niceStep((a.high - a.low) / some)
	if a.whole {
		step = max(step, 1)
	}
	for i := math.Ceil(a.low/step - 1e-6); i*step <= a.high+1e-6*step; i++ {
		// As many digits as tell a tick from its neighbours.
		add(i*step, 1+power(i*step)-power(step))
	}
	return ticks
}

// power is the power of ten of v's first digit.
func power(v float64) int {
	return int(math.Floor(math.Log10(math.Abs(v)) + 1e-9))
}

// histogram is the outline of how values spread over bins of equal width along the axis, in percent of them.
func histogram(values []float64, x axis, bins int) []Point {
	if len(values) == 0 {
		return nil
	}
	counts := make([]int, bins)
	for _, v := range values {
		counts[min(max(int(x.at(v)*float64(bins)), 0), bins-1)]++
	}
	some := func(n int) bool { return n > 0 }
	first := slices.IndexFunc(counts, some)
	edge := func(i int) float64 { return x.value(float64(i) / float64(bins)) }
	outline := []Point{{X: edge(first), Y: 0}}
	for left := len(values); left > 0; first++ {
		share := 100 * float64(counts[first]) / float64(len(values))
		outline = append(outline, Point{X: edge(first), Y: share}, Point{X: edge(first + 1), Y: share})
		left -= counts[first]
	}
	return append(outline, Point{X: edge(first), Y: 0})
}

// highest is the largest Y of all points.
func highest(lines []line) (y float64) {
	for _, l := range lines {
		for _, p := range l.points {
			y = max(y, p.Y)
		}
	}
	return y
}

// colourLegend is the colour map over the values that it stands for.
func colourLegend(low, high float32, threshold *float32) *drawing {
	const height, barTop, barHeight, margin = 62, 6, 14, 24
	x := axis{low: float64(low), high: float64(high)}
	at := func(v float64) float64 { return margin + (chartWidth-2*margin)*x.at(v) }
	s := &strings.Builder{}
	fmt.Fprintf(s, `<svg viewBox="0 0 %d %d" role="img" aria-label="Colours of the heatmaps, from %s to %s">`, chartWidth, height,
		number(x.low, 3), number(x.high, 3))
	s.WriteString(`<linearGradient id="inferno">`)
	for i := 0; i < len(inferno); i += 5 { // between which the table is linear
		c := inferno[i]
		fmt.Fprintf(s, `<stop offset="%.4f" stop-color="#%02x%02x%02x"/>`, float64(i)/255, c.R, c.G, c.B)
	}
	fmt.Fprintf(s, `</linearGradient><rect x="%d" y="%d" width="%d" height="%d" fill="url(#inferno)"/>`, margin, barTop, chartWidth-2*margin, barHeight)
	if x.high-x.low > 1e-3*max(math.Abs(x.low), math.Abs(x.high)) { // else there is no room between its numbers
		for _, t := range x.ticks(10) {
			fmt.Fprintf(s, `<path class="axis" d="M%.1f %d v4"/>`, at(t.value), barTop+barHeight)
			fmt.Fprintf(s, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, at(t.value), barTop+barHeight+17, t.text)
		}
		if threshold != nil {
			t := at(float64(*threshold))
			fmt.Fprintf(s, `<path class="cut" d="M%.1f %d v%d"/>`, t, barTop-4, barHeight+8)
			fmt.Fprintf(s, `<text x="%.1f" y="%d" text-anchor="middle">peaks above %s are outlined</text>`, min(max(t, 92), chartWidth-92), height-6, number(float64(*threshold), 3))
		}
	}
	s.WriteString("</svg>")
	return &drawing{SVG: template.HTML(s.String())}
}
