package report

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/metric"
)

// Report is all that the page of one category says. Only Category is required; a part without data is left out, or
// says that there is none. Numbers are finite and within float32's range, anything else is ErrInput.
type Report struct {
	Category string
	Notes    []string // what to know before the figures are trusted, such as "chosen on the test set: optimistic"

	Images         []Image   // the test images, or others, in any order
	Threshold      *float64  // of the score, above which an image is called anomalous
	ThresholdRule  string    // where it comes from, in words
	PixelThreshold *float32  // of the anomaly map, above which the peaks of outlined regions are
	Calibration    []float64 // scores of the good images that the threshold comes from, in any order

	Metrics  anomaly.Metrics
	HasMasks bool    // the test images have masks, so that there can be metrics of pixels
	ImageROC []Point // true over false positive rate of images, from (0, 0) to (1, 1)
	PixelROC []Point // the same of pixels
	PRO      []Point // per-region overlap over the false positive rate of pixels; drawn up to 0.3

	// OfCalibration says that Images are good ones that the threshold comes from, as there is no test image.
	OfCalibration bool

	Worst []Case // to look at first; Pick proposes some
	Best  []Case
	Shown []Case // of images whose truth nobody has told, highest score first

	History     []anomaly.Epoch
	ChosenEpoch int    // the number of the epoch that became the model; 0: not said
	Selection   string // how it was chosen, in words

	Compactness *Compactness
	Teacher     Teacher
	Fingerprint string // of the training data
	TrainImages int    // images trained on; 0: not said
	Data        string // what was recognised, taken for what and left out, in words
	Settings    []Setting
	Timings     []Timing
}

// Truth says what an image shows, as far as the data set knows.
type Truth int

const (
	Unknown Truth = iota
	Good
	Defective
)

func (t Truth) String() string {
	switch t {
	case Good:
		return "good"
	case Defective:
		return "defective"
	}
	return "unknown"
}

// Image is one image and the verdict on it, of which the page shows Score, Normalised, PValue and Anomalous.
type Image struct {
	Path   string
	Defect string // the defect's type, such as the folder's name; empty where there is none to name
	Truth  Truth
	anomaly.Verdict
}

// merit is a figure of merit, 0 to 1, or the reason why there is none.
type merit struct {
	Value  *float64
	Reason string // why Value is nil, in words
}

// Point of a curve. Rates are 0 to 1, and neither X nor Y falls from point to point.
type Point = metric.Point

// Case is an image to show.
type Case struct {
	Image   int              // index into Report.Images
	Picture *imagefile.Image // of any size; it is embedded at 320 pixels at most
	Map     []float32        // anomaly map, row-major H x W, stretched over the picture
	H, W    int
	Mask    []uint8 // the true defect, row-major H x W, non-zero where defective; nil: none
	// Levels, as metric.Outline.Regions returns them, say what is outlined; nil: nothing is, and the page does not say so.
	Levels []float64
	// Near is the good image that looks most like this one, of any size, and NearPath its name; nil: none is shown.
	Near     *imagefile.Image
	NearPath string
}

// Compactness is the analysis of the paper's Figure 6: mean squared differences between the student's inputs (the
// bottleneck's outputs) of all pairs of images.
type Compactness struct {
	Intra []float64 // between good images of the category
	Inter []float64 // between good images of it and others; may be empty
	Other string    // what those others are, such as "defective images"
}

// Teacher names the network that features come from.
type Teacher struct {
	Name   string // file or origin
	SHA256 string // of its weights, hexadecimal
}

// Setting is a name and its value, both shown as they are.
type Setting struct{ Name, Value string }

// Timing is how long a stage took.
type Timing struct {
	Stage    string
	Duration time.Duration
	Images   int // it went through, for a time per image; 0: none is shown
}

// Pick proposes n images to show as the worst and n as the best of images, by their index. The worst are the hardest ones,
// whatever they show: those whose normalised score is furthest on the wrong side of the threshold, then those least far on
// the right one, with a high score where the part is good and a low one where it is defective. The best are those furthest
// on the right side, defective ones and others by turns while there are both. No image is in both lists.
func Pick(images []Image, n int) (worst, best []int) {
	side := func(v float64, i int) float64 { // the more of it, the more wrong
		if images[i].Truth == Defective {
			return -v
		}
		return v
	}
	order := make([]int, len(images)) // the hardest first
	for i := range images {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		// Scores tell apart those whose normalised ones are rounded to the same.
		return cmp.Or(cmp.Compare(side(images[b].Normalised-0.5, b), side(images[a].Normalised-0.5, a)),
			cmp.Compare(side(images[b].Score, b), side(images[a].Score, a)))
	})
	n = max(0, min(n, len(order)))
	worst, order = order[:n:n], order[n:]
	var lists [2][]int // defective and others, the easiest first
	for _, i := range slices.Backward(order) {
		k := 1
		if images[i].Truth == Defective {
			k = 0
		}
		lists[k] = append(lists[k], i)
	}
	for len(best) < min(n, len(order)) {
		for k, list := range lists {
			if len(list) > 0 && len(best) < n {
				best, lists[k] = append(best, list[0]), list[1:]
			}
		}
	}
	return worst, best
}

var (
	//go:embed *.html
	templates embed.FS
	//go:embed style.css
	style string
	//go:embed sort.js
	script string

	pages = template.Must(template.New("").Funcs(template.FuncMap{
		"number": number, "percent": percent, "raw": raw, "duration": duration, "perImage": Timing.perImage,
	}).ParseFS(templates, "*.html"))
)

// frame is what every page carries.
type frame struct {
	Style  template.CSS
	Script template.JS
	Policy string // lets a browser run the page's own script and load nothing from anywhere
}

var theFrame = frame{template.CSS(style), template.JS(script),
	"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-" + digest(script) + "'"}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Write writes the report as one HTML file that needs nothing else: pictures are embedded, charts are inline SVG, and
// all is there without the script, which sorts the table of verdicts. The same report gives the same bytes.
//
// A case takes at most 200 kB, an image of Images some 300 bytes beside its path, and the rest some 150 kB: a report of
// 12 cases and 1,000 images stays below 3 MB whatever the pictures show. Nothing is written when the report is refused
// (ErrInput).
func Write(w io.Writer, r *Report) error {
	if err := r.check(); err != nil {
		return err
	}
	p, err := newPage(r)
	if err != nil {
		return err
	}
	return render(w, "report.html", p)
}

// render writes a page; characters that HTML has no place for, of which paths may be full, become U+FFFD.
func render(w io.Writer, name string, data any) error {
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, name, data); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	clean := bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == 0xfffe || r == 0xffff {
			return 0xfffd
		}
		return r
	}, page.Bytes())
	if _, err := w.Write(clean); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// check refuses what cannot be drawn.
func (r *Report) check() error {
	if r == nil || r.Category == "" {
		return fmt.Errorf("%w: the report has no category; name one", ErrInput)
	}
	c := checker{}
	for i, image := range r.Images {
		name := func(field string) string { return fmt.Sprintf("%s of image %d (%q)", field, i, image.Path) }
		c.within(image.Score, -math.MaxFloat32, math.MaxFloat32, name, "score")
		c.within(image.Normalised, 0, 1, name, "normalised score")
		c.optional(image.PValue, 0, 1, name, "p-value")
		if image.Truth < Unknown || image.Truth > Defective {
			c.fail("the truth of image %d (%q) is %d, which is none of Unknown, Good and Defective", i, image.Path, image.Truth)
		}
	}
	plain := func(field string) string { return field }
	c.optional(r.Threshold, -math.MaxFloat32, math.MaxFloat32, plain, "threshold")
	if t := r.PixelThreshold; t != nil {
		c.within(float64(*t), -math.MaxFloat32, math.MaxFloat32, plain, "pixel threshold")
	}
	c.all(r.Calibration, -math.MaxFloat32, "calibration score")
	c.metrics(&r.Metrics, plain)
	c.curve(r.ImageROC, "image ROC")
	c.curve(r.PixelROC, "pixel ROC")
	c.curve(r.PRO, "PRO")
	for i, e := range r.History {
		name := func(field string) string { return fmt.Sprintf("%s of epoch %d", field, e.Epoch) }
		if i > 0 && e.Epoch <= r.History[i-1].Epoch {
			c.fail("epoch %d comes after epoch %d; give them in order", e.Epoch, r.History[i-1].Epoch)
		}
		for _, l := range e.Losses {
			c.within(l.Value, -math.MaxFloat32, math.MaxFloat32, name, lossTitle(l.Name))
		}
		if e.Metrics != nil {
			c.metrics(e.Metrics, name)
		}
	}
	if k := r.Compactness; k != nil {
		c.all(k.Intra, 0, "distance within the class")
		c.all(k.Inter, 0, "distance between classes")
	}
	for _, k := range slices.Concat(r.Worst, r.Best, r.Shown) {
		if k.Image < 0 || k.Image >= len(r.Images) {
			c.fail("a case shows image %d of %d", k.Image, len(r.Images))
			break
		}
		path := r.Images[k.Image].Path
		if err := drawable(k.Picture, k.Map, k.H, k.W); err != nil && c.err == nil {
			c.err = fmt.Errorf("%w (the case %q)", err, path)
		}
		if k.Near != nil && (k.Near.W <= 0 || k.Near.H <= 0 || len(k.Near.Pix) != 3*k.Near.W*k.Near.H) {
			c.fail("the nearest image of the case %q is empty or its pixels do not fit its size", path)
		}
		if k.Levels != nil && len(k.Levels) != k.H*k.W {
			c.fail("the case %q has %d levels, its map %d x %d", path, len(k.Levels), k.H, k.W)
		}
		if k.Mask != nil && len(k.Mask) != k.H*k.W {
			c.fail("the mask of the case %q has %d pixels, its map %d x %d", path, len(k.Mask), k.H, k.W)
		}
	}
	return c.err
}

// checker keeps the first error.
type checker struct{ err error }

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: "+format, append([]any{ErrInput}, args...)...)
	}
}

// within refuses NaN too. The value's name is made only where it is refused.
func (c *checker) within(v, low, high float64, name func(field string) string, field string) {
	if !(v >= low && v <= high) {
		c.fail("%s is %g, to be within %g and %g", name(field), v, low, high)
	}
}

func (c *checker) optional(v *float64, low, high float64, name func(field string) string, field string) {
	if v != nil {
		c.within(*v, low, high, name, field)
	}
}

func (c *checker) all(values []float64, low float64, field string) {
	for i, v := range values {
		c.within(v, low, math.MaxFloat32, func(field string) string { return fmt.Sprintf("%s %d", field, i) }, field)
	}
}

func (c *checker) curve(points []Point, curve string) {
	for i, p := range points {
		name := func(field string) string { return fmt.Sprintf("%s of point %d of the %s curve", field, i, curve) }
		c.within(p.X, 0, 1, name, "false positive rate")
		c.within(p.Y, 0, 1, name, "height")
		if i > 0 && (p.X < points[i-1].X || p.Y < points[i-1].Y) {
			c.fail("the %s curve falls at point %d; order its points by falling threshold", curve, i)
		}
	}
}

func (c *checker) metrics(m *anomaly.Metrics, name func(field string) string) {
	for _, k := range metrics {
		most := 1.0
		if k.name == outlineArea {
			most = math.MaxFloat32
		}
		c.optional(k.of(m), 0, most, name, k.name)
	}
	c.optional(m.ImageF1Threshold, -math.MaxFloat32, math.MaxFloat32, name, "threshold of F1-max")
}

// metrics in the order in which they are shown, the paper's three first.
var metrics = []struct {
	name, meaning string
	pixels        bool // it is about pixels, so that it needs masks
	of            func(*anomaly.Metrics) *float64
}{
	{"Image AUROC", "how often a defective image scores above a good one", false, func(m *anomaly.Metrics) *float64 { return m.ImageAUROC }},
	{"Pixel AUROC", "how often a defective pixel scores above a good one", true, func(m *anomaly.Metrics) *float64 { return m.PixelAUROC }},
	{"AUPRO 0.3", "share of each defect that is covered, averaged up to a false positive rate of 30 %", true, func(m *anomaly.Metrics) *float64 { return m.AUPRO }},
	{"Image AP", "average precision over images", false, func(m *anomaly.Metrics) *float64 { return m.ImageAP }},
	{"Image F1-max", "highest F1 over all thresholds", false, func(m *anomaly.Metrics) *float64 { return m.ImageF1 }},
	{"Pixel AP", "average precision over pixels", true, func(m *anomaly.Metrics) *float64 { return m.PixelAP }},
	{"Pixel F1-max", "highest F1 over all thresholds", true, func(m *anomaly.Metrics) *float64 { return m.PixelF1 }},
	{"AUPRO 0.05", "the same as AUPRO 0.3, up to 5 %", true, func(m *anomaly.Metrics) *float64 { return m.AUPROStrict }},
	{"PRO (released)", "as the released code computes it; comparable with the paper only", true, func(m *anomaly.Metrics) *float64 { return m.PROReleased }},
	{"Outline IoU", "outlined and defective pixels in common, of those that are either; median of the defective images", true, func(m *anomaly.Metrics) *float64 { return m.OutlineIoU }},
	{outlineArea, "outlined pixels per defective one; median of the defective images", true, func(m *anomaly.Metrics) *float64 { return m.OutlineAreaRatio }},
	{"Outline F1", "F1 of the outlined pixels of all images", true, func(m *anomaly.Metrics) *float64 { return m.OutlineF1 }},
}

// outlineArea is the name of the metric that may be above 1.
const outlineArea = "Outline area"

// paperMetrics is how many of metrics are those of the paper's Tables 1 to 3, which are drawn over the epochs too.
const paperMetrics = 3

// absent is why a metric has no value, in words.
func absent(m *anomaly.Metrics, hasMasks, pixels bool) string {
	switch {
	case m.Good+m.Defective == 0:
		return "no test images"
	case m.Defective == 0:
		return "no defective test images"
	case m.Good == 0 && !pixels || m.Good == 0 && m.PixelAUROC == nil:
		return "no good test images"
	case pixels && !hasMasks:
		return "no masks"
	case pixels && m.AUPRO == nil:
		return "no defect pixels in the masks, or nothing but them"
	}
	return "undefined for these maps, or not measured"
}

// lossTitles are the titles of the losses that have a better one than their name.
var lossTitles = map[string]string{anomaly.LossTotal: "total loss", "kd": "distillation (KD)", "ssot": "optimal transport (SSOT)",
	"recon": "reconstruction (Recon)", "contrast": "contrast (Con)"}

func lossTitle(name string) string { return cmp.Or(lossTitles[name], name) }

// number writes v with the given significant digits, very large and small ones as 1.2×10⁻⁶.
func number(v float64, digits int) string {
	if v == 0 {
		return "0"
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(v, 'e', digits-1, 64), "e")
	power, _ := strconv.Atoi(exponent)
	if power >= -4 && power < 6 {
		return strconv.FormatFloat(v, 'f', max(0, digits-1-power), 64)
	}
	return mantissa + "×10" + superscripts.Replace(strconv.Itoa(power))
}

var superscripts = strings.NewReplacer("-", "⁻", "0", "⁰", "1", "¹", "2", "²", "3", "³", "4", "⁴", "5", "⁵", "6", "⁶", "7", "⁷",
	"8", "⁸", "9", "⁹")

// percent writes a rate as the paper's tables do.
func percent(v float64) string { return strconv.FormatFloat(100*v, 'f', 2, 64) }

// raw writes a number for the script that sorts.
func raw(v float64) string { return strconv.FormatFloat(v, 'g', 7, 64) }

func duration(d time.Duration) string {
	switch {
	case d >= time.Minute:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(10 * time.Millisecond)
	default:
		d = d.Round(10 * time.Microsecond)
	}
	return d.String()
}
