package report

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/imagefile"
)

// element is a tag of a page, with what is inside.
type element struct {
	name string
	attr map[string]string
	text string // its own and that of all inside
	from int    // where that begins in the page's text
}

// parse reads a page as XML, which it is as well: strictly, so that an unclosed or stray tag fails. Every element is in
// the list, in the order of their ends.
func parse(t *testing.T, page []byte) (all []*element) {
	t.Helper()
	if !bytes.HasPrefix(page, []byte("<!DOCTYPE html>")) || !utf8.Valid(page) {
		t.Error("got no <!DOCTYPE html> or invalid UTF-8")
	}
	return parseXML(t, page)
}

func parseXML(t *testing.T, page []byte) (all []*element) {
	t.Helper()
	var open []*element
	var text strings.Builder
	for d := xml.NewDecoder(bytes.NewReader(page)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := &element{name: token.Name.Local, attr: map[string]string{}, from: text.Len()}
			for _, a := range token.Attr {
				e.attr[a.Name.Local] = a.Value
			}
			open = append(open, e)
		case xml.CharData:
			text.Write(token)
		case xml.EndElement:
			e := open[len(open)-1]
			e.text = text.String()[e.from:]
			all = append(all, e)
			open = open[:len(open)-1]
		}
	}
}

func elements(all []*element, name string) (out []*element) {
	for _, e := range all {
		if e.name == name {
			out = append(out, e)
		}
	}
	return out
}

func write(t *testing.T, r *Report) []byte {
	t.Helper()
	var page bytes.Buffer
	if err := Write(&page, r); err != nil {
		t.Fatal(err)
	}
	return page.Bytes()
}

// noise is a picture that JPEG cannot make small.
func noise(W, H int, rng *rand.Rand) *imagefile.Image {
	img := gray(W, H, 0)
	for i := range img.Pix {
		img.Pix[i] = uint8(rng.Uint32())
	}
	return img
}

// losses are RD++'s.
func losses(total, kd, ssot, recon, contrast float64) anomaly.Losses {
	return anomaly.Losses{{Name: "total", Value: total}, {Name: "kd", Value: kd}, {Name: "ssot", Value: ssot}, {Name: "recon", Value: recon},
		{Name: "contrast", Value: contrast}}
}

// levelsAbove outlines what of a map is above a level.
func levelsAbove(m []float32, level float64) []float64 {
	levels := make([]float64, len(m))
	for i, v := range m {
		if levels[i] = level; float64(v) <= level {
			levels[i] = math.Inf(1)
		}
	}
	return levels
}

// full is a report with everything in it: 60 images, 12 cases.
func full() *Report {
	rng := rand.New(rand.NewPCG(1, 2))
	r := &Report{
		Category: "part", Notes: []string{"threshold provisional"},
		Threshold: new(0.5), ThresholdRule: "99 % of the calibration images are below", PixelThreshold: new(float32(0.4)),
		Metrics: anomaly.Metrics{Good: 40, Defective: 20, ImageAUROC: new(0.9944), ImageAP: new(0.98), ImageF1: new(0.97), ImageF1Threshold: new(0.47),
			PixelAUROC: new(0.9825), PixelAP: new(0.6), PixelF1: new(0.61), AUPRO: new(0.9499), AUPROStrict: new(0.8)},
		HasMasks: true,
		ImageROC: curve(30), PixelROC: curve(20_000), PRO: curve(20_000),
		ChosenEpoch: 3, Selection: "last epoch", Fingerprint: "sha256:0123", TrainImages: 200,
		Data:        "a folder | train 200 good | nothing left out",
		Teacher:     Teacher{"builtin resnet18", "abcdef"},
		Settings:    []Setting{{"batch", "16"}},
		Timings:     []Timing{{"training", 83 * time.Second, 600}, {"evaluation", 2345678 * time.Microsecond, 0}},
		Compactness: &Compactness{Intra: []float64{1, 2, 3}, Inter: []float64{4, 8}, Other: "defective images"},
	}
	for i := range 60 {
		image := Image{Path: fmt.Sprintf("test/good/%03d.png", i), Truth: Good, Verdict: anomaly.Verdict{Score: 0.01 * float64(i), PValue: new(0.25)}}
		if i >= 40 {
			image.Path, image.Truth, image.Defect = fmt.Sprintf("test/scratch/%03d.png", i-40), Defective, "scratch"
			image.Score += 0.08
		}
		image.Normalised = image.Score
		image.Anomalous = image.Score > 0.5
		r.Images = append(r.Images, image)
	}
	for range 20 {
		r.Calibration = append(r.Calibration, rng.Float64()/2)
	}
	for e := 1; e <= 3; e++ {
		r.History = append(r.History, anomaly.Epoch{Epoch: e, Losses: losses(1/float64(e), 0.9/float64(e), 0, 0.1, 0),
			Metrics: &anomaly.Metrics{ImageAUROC: new(0.9 + 0.01*float64(e)), PixelAUROC: new(0.8), AUPRO: new(0.7)}})
	}
	worst, best := Pick(r.Images, 6)
	for n, i := range append(worst, best...) {
		k := Case{Image: i, Picture: gray(40, 30, 90), Map: make([]float32, 64*64), H: 64, W: 64}
		for y := range 10 {
			for x := range 10 {
				k.Map[(20+y)*64+30+x] = float32(r.Images[i].Score)
			}
		}
		k.Levels = levelsAbove(k.Map, 0.4)
		if r.Images[i].Truth == Defective {
			k.Mask = make([]uint8, 64*64)
			for j := range k.Mask {
				k.Mask[j] = uint8(rng.Uint32() & 1)
			}
		}
		if n < 6 {
			r.Worst = append(r.Worst, k)
		} else {
			r.Best = append(r.Best, k)
		}
	}
	return r
}

func TestWriteStructure(t *testing.T) {
	r := full()
	page := write(t, r)
	all := parse(t, page)

	for name, want := range map[string]int{"h1": 1, "main": 1, "title": 1, "script": 1, "style": 1, "table": 6, "nav": 1, "aside": 1} {
		if got := len(elements(all, name)); got != want {
			t.Errorf("<%s>: got %d, want %d", name, got, want)
		}
	}
	var headings []string
	for _, e := range elements(all, "h2") {
		headings = append(headings, e.text)
	}
	want := "Metrics, Scores and curves, Cases, Verdicts, Training, Compactness of the student's input, Data and settings"
	if got := strings.Join(headings, ", "); got != want {
		t.Errorf("headings: got %q, want %q", got, want)
	}
	ids := map[string]bool{}
	for _, e := range all {
		if id := e.attr["id"]; id != "" {
			if ids[id] {
				t.Errorf("got the id %q twice", id)
			}
			ids[id] = true
		}
	}
	pictures := 0
	for _, e := range all {
		switch e.name {
		case "img":
			pictures++
			if e.attr["alt"] == "" {
				t.Error("got an image without a text in its place")
			}
			if !strings.HasPrefix(e.attr["src"], "data:image/") {
				t.Errorf("got an image at %.40q, want it embedded", e.attr["src"])
			}
		case "a":
			if target, ok := strings.CutPrefix(e.attr["href"], "#"); !ok || !ids[target] {
				t.Errorf("got a link to %q, want one into the page", e.attr["href"])
			}
		case "link", "iframe", "object", "image", "use":
			t.Errorf("got <%s>, want nothing that may be loaded from elsewhere", e.name)
		case "th":
			if e.attr["scope"] == "" {
				t.Errorf("got the table header %q without a scope", e.text)
			}
		case "svg":
			if e.attr["aria-hidden"] == "" && (e.attr["role"] != "img" || e.attr["aria-label"] == "") {
				t.Error("got a chart without a label")
			}
		case "figure":
			if !strings.Contains(e.text, ".") {
				t.Errorf("got a figure without a caption: %q", e.text)
			}
		}
	}
	// Four pictures per case, but a mask of defective images alone.
	wantPictures := 0
	for _, k := range append(r.Worst, r.Best...) {
		wantPictures += 3
		if k.Mask != nil {
			wantPictures++
		}
	}
	if pictures != wantPictures {
		t.Errorf("got %d pictures, want %d", pictures, wantPictures)
	}
	if got, want := len(elements(all, "figcaption")), len(elements(all, "figure")); got != want {
		t.Errorf("got %d captions, want %d", got, want)
	}
	for _, remote := range []string{"http:", "https:", "url(//", "@import"} {
		if bytes.Contains(page, []byte(remote)) {
			t.Errorf("got %q, want nothing from outside", remote)
		}
	}
	text := elements(all, "body")[0].text
	for _, want := range []string{"99.44 %", "98.25 %", "94.99 %", "undefined for these maps", "threshold provisional", "threshold 0.5000",
		"epoch 3 chosen", "last epoch", "sha256:0123", "builtin resnet18", "abcdef", "image AUROC: 99.44 %", "calibration (good), 20",
		"✓ passed", "✓ found", "✗ missed", "1m23s", "138.33ms", "2.35s", "good against defective images", "a good part: no mask"} {
		if !strings.Contains(text, want) {
			t.Errorf("got no %q", want)
		}
	}
	for _, wrong := range []string{"NaN", "%!", "Inf", "<nil>", "ZgotmplZ", "Transport"} {
		if strings.Contains(text, wrong) {
			t.Errorf("got %q in the text", wrong)
		}
	}
}

func TestVerdictTable(t *testing.T) {
	r := full()
	r.Images[5].Score, r.Images[5].Normalised, r.Images[5].Anomalous = 2, 1, true
	r.Images[6].PValue = nil
	r.Images[7].Truth = Unknown
	all := parse(t, write(t, r))
	var rows []*element
	for _, e := range elements(all, "tr") {
		if strings.Contains(e.text, ".png") {
			rows = append(rows, e)
		}
	}
	if len(rows) != len(r.Images) {
		t.Fatalf("got %d rows, want %d", len(rows), len(r.Images))
	}
	for _, c := range []struct {
		path, want string
		wrong      bool
	}{
		{"test/good/005.png", "test/good/005.pnganomalous: ✗ false alarmgood2.0001.0000.25", true},
		{"test/good/006.png", "test/good/006.pngnormal: ✓ passedgood0.060000.060–", false},
		{"test/good/007.png", "test/good/007.pngnormalunknown0.070000.0700.25", false},
		{"test/scratch/000.png", "test/scratch/000.pngnormal: ✗ misseddefective (scratch)0.48000.4800.25", true},
		{"test/scratch/019.png", "test/scratch/019.pnganomalous: ✓ founddefective (scratch)0.67000.6700.25", false},
	} {
		for i, row := range rows {
			if !strings.HasPrefix(row.text, c.path) {
				continue
			}
			if row.text != c.want || (row.attr["class"] == "wrong") != c.wrong {
				t.Errorf("got %q, marked wrong %v, want %q, %v", row.text, row.attr["class"] == "wrong", c.want, c.wrong)
			}
			if c.path == "test/good/005.png" && i != 0 {
				t.Errorf("got the highest score in row %d, want it first", i)
			}
		}
	}
}

func TestScriptIsAllowed(t *testing.T) {
	all := parse(t, write(t, full()))
	script := elements(all, "script")[0].text
	for _, e := range elements(all, "meta") {
		if e.attr["http-equiv"] == "Content-Security-Policy" {
			if want := "script-src 'sha256-" + digest(script) + "'"; !strings.Contains(e.attr["content"], want) {
				t.Errorf("got the policy %q, want %q in it", e.attr["content"], want)
			}
			return
		}
	}
	t.Error("got no policy")
}

func TestWriteIsDeterministic(t *testing.T) {
	if !bytes.Equal(write(t, full()), write(t, full())) {
		t.Error("got two different pages of the same report")
	}
}

func TestAbsentParts(t *testing.T) {
	one := Image{Path: "a.png", Verdict: anomaly.Verdict{Score: 0.3, Normalised: 0.4}}
	good := Image{Path: "good.png", Truth: Good, Verdict: anomaly.Verdict{Score: 0.3, Normalised: 0.4}}
	picture := Case{Picture: gray(8, 8, 100), Map: []float32{0.3}, H: 1, W: 1}
	near := picture
	near.Near, near.NearPath = gray(6, 9, 200), "twin.png"
	bound := one
	bound.PValue, bound.PValueBound = new(1.0/3), true
	judged := picture
	judged.Levels = []float64{math.Inf(1)}
	cases := []struct {
		name    string
		r       *Report
		want    []string
		without []string
	}{
		{"nothing", &Report{Category: "x"}, []string{"There are no test images.", "There are no scores.", "no test images"}, []string{"Training images", "Cases", "Compactness", "Timings"}},
		{"one image", &Report{Category: "x", Images: []Image{one}}, []string{"0 of 1", "of unknown truth, 1"}, []string{"✓", "p ↕", "threshold"}},
		{"no defects", &Report{Category: "x", Images: []Image{good, good}, Metrics: anomaly.Metrics{Good: 2}},
			[]string{"no defective test images", "good, 2", "0 of 2"}, []string{"defective, "}},
		{"same scores", &Report{Category: "x", Images: []Image{good, good}, Threshold: new(0.3), Calibration: []float64{0.3}}, []string{"calibration (good), 1"}, nil},
		{"calibration alone", &Report{Category: "x", Calibration: []float64{1, 2}}, []string{"calibration (good), 2"}, []string{"good, "}},
		{"a case without mask and threshold", &Report{Category: "x", Images: []Image{good}, Worst: []Case{picture}}, []string{"Worst cases", "a good part: no mask"}, []string{"Best cases", "nothing outlined"}},
		{"a case of unknown truth", &Report{Category: "x", Images: []Image{one}, Best: []Case{judged}, PixelThreshold: new(float32(0.3))}, []string{"nothing outlined"}, []string{"a good part"}},
		{"shown with the nearest good image", &Report{Category: "x", Images: []Image{one}, Shown: []Case{near}}, []string{"Images with the highest scores", "nearest good: twin.png"},
			[]string{"Worst cases", "no mask", "a.png: unknown"}},
		{"of the calibration", &Report{Category: "x", Images: []Image{good}, Calibration: []float64{0.3}, OfCalibration: true, Shown: []Case{judged}},
			[]string{"These are the good images that the threshold comes from.", "calibration (good), 1"}, []string{"called anomalous", "good, 1", "Images judged"}},
		{"a p-value that is a bound", &Report{Category: "x", Images: []Image{bound}, Calibration: []float64{0.1, 0.2}, Shown: []Case{judged}}, []string{"p ≤ 0.33: 2 images", "≤ 0.33"}, nil},
		{"one epoch", &Report{Category: "x", History: []anomaly.Epoch{{Epoch: 1, Losses: losses(1, 1, 0, 0, 0)}}}, []string{"Distillation (KD)"}, []string{"Optimal transport", "from epoch to epoch", "chosen"}},
		{"pairs of one class", &Report{Category: "x", Compactness: &Compactness{Intra: []float64{0, 0}}}, []string{"Compactness", "within the class"}, []string{"between classes"}},
		{"a curve without its area", &Report{Category: "x", ImageROC: curve(3)}, []string{"ROC curves", "chance"}, []string{"PRO curve"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			text := elements(parse(t, write(t, c.r)), "body")[0].text
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("got no %q", want)
				}
			}
			for _, without := range append(c.without, "NaN", "%!", "Inf", "<nil>") {
				if strings.Contains(text, without) {
					t.Errorf("got %q", without)
				}
			}
		})
	}
}

func TestWriteRefuses(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	cases := map[string]struct {
		change func(*Report)
		want   string // in the error
	}{
		"no category":         {func(r *Report) { r.Category = "" }, "no category"},
		"score":               {func(r *Report) { r.Images[3].Score = nan }, `score of image 3 ("test/good/003.png") is NaN`},
		"infinite score":      {func(r *Report) { r.Images[3].Score = inf }, "score of image 3"},
		"normalised":          {func(r *Report) { r.Images[0].Normalised = 1.01 }, "normalised score of image 0"},
		"p-value":             {func(r *Report) { r.Images[0].PValue = &nan }, "p-value of image 0"},
		"truth":               {func(r *Report) { r.Images[0].Truth = 7 }, "truth of image 0"},
		"threshold":           {func(r *Report) { r.Threshold = &inf }, "threshold"},
		"pixel threshold":     {func(r *Report) { r.PixelThreshold = new(float32(nan)) }, "pixel threshold"},
		"calibration":         {func(r *Report) { r.Calibration[2] = nan }, "calibration score 2"},
		"metric":              {func(r *Report) { r.Metrics.AUPROStrict = &nan }, "AUPRO 0.05 is NaN"},
		"metric in percent":   {func(r *Report) { r.Metrics.ImageAUROC = new(99.4) }, "Image AUROC is 99.4"},
		"F1-max's threshold":  {func(r *Report) { r.Metrics.ImageF1Threshold = &nan }, "F1-max"},
		"ROC":                 {func(r *Report) { r.ImageROC[1].Y = nan }, "point 1 of the image ROC"},
		"falling ROC":         {func(r *Report) { r.PixelROC[9].X = 0 }, "pixel ROC curve falls at point 9"},
		"PRO":                 {func(r *Report) { r.PRO[4].X = 1.5 }, "point 4 of the PRO"},
		"loss":                {func(r *Report) { r.History[1].Losses[2].Value = inf }, "(SSOT) of epoch 2"},
		"metric of an epoch":  {func(r *Report) { r.History[1].Metrics.AUPRO = &nan }, "AUPRO 0.3 of epoch 2"},
		"epochs out of order": {func(r *Report) { r.History[1].Epoch = 1 }, "epoch 1 comes after epoch 1"},
		"distance":            {func(r *Report) { r.Compactness.Intra[0] = -1 }, "distance within the class 0"},
		"other distance":      {func(r *Report) { r.Compactness.Inter[1] = nan }, "distance between classes 1"},
		"case of no image":    {func(r *Report) { r.Best[0].Image = 60 }, "image 60 of 60"},
		"case without map":    {func(r *Report) { r.Best[0].Map = nil }, ".png"},
		"case's map":          {func(r *Report) { r.Worst[0].Map[7] = float32(nan) }, "row 0, column 7"},
		"case's picture":      {func(r *Report) { r.Worst[0].Picture = nil }, "picture is empty"},
		"case's mask":         {func(r *Report) { r.Worst[0].Mask = make([]uint8, 3) }, "mask of the case"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := full()
			c.change(r)
			var page bytes.Buffer
			err := Write(&page, r)
			if !errors.Is(err, ErrInput) || !strings.Contains(fmt.Sprint(err), c.want) || strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("got %v, want one line of %v with %q", err, ErrInput, c.want)
			}
			if page.Len() > 0 {
				t.Errorf("got %d bytes written, want none", page.Len())
			}
		})
	}
	if err := Write(io.Discard, nil); !errors.Is(err, ErrInput) {
		t.Errorf("no report: got %v, want %v", err, ErrInput)
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestWriteErrors(t *testing.T) {
	if err := Write(brokenWriter{}, &Report{Category: "x"}); !errors.Is(err, errBroken) {
		t.Errorf("report: got %v, want %v", err, errBroken)
	}
	if err := WriteIndex(brokenWriter{}, &Index{Title: "x"}); !errors.Is(err, errBroken) {
		t.Errorf("index: got %v, want %v", err, errBroken)
	}
}

var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</style></title></svg>`, `javascript:alert(1)`,
	`{{.Category}}`, `]]>&amp;&lt;`, "line\nbreak\tand\x00nul\x1b[31m", "not UTF-8 \xff\xfe", "\u202egnp.exe", `C:\parts\1.png`, "naïve 部品 🔩",
	strings.Repeat("long", 500),
}

func TestHostileNames(t *testing.T) {
	// Elements that a page is made of do not depend on the names in it.
	shape := func(name string) string {
		r := full()
		r.Category, r.Selection, r.ThresholdRule, r.Fingerprint, r.Data = name, name, name, name, name
		r.Notes, r.Settings, r.Teacher = []string{name}, []Setting{{name, name}}, Teacher{name, name}
		r.Timings[0].Stage, r.Compactness.Other, r.History[0].Losses[1].Name = name, name, name
		for i := range r.Images {
			r.Images[i].Path, r.Images[i].Defect = name, name
		}
		var s strings.Builder
		for _, e := range parse(t, write(t, r)) {
			fmt.Fprintf(&s, "%s %d,", e.name, len(e.attr))
		}
		return s.String()
	}
	want := shape("part")
	for _, name := range hostile {
		if shape(name) != want {
			t.Errorf("%.40q: got other elements than with a plain name", name)
		}
	}
	// What can be shown is shown as it is.
	text := elements(parse(t, write(t, &Report{Category: hostile[1] + hostile[9]})), "h1")[0].text
	if !strings.Contains(text, hostile[1]+hostile[9]) {
		t.Errorf("got the heading %q, want the name as it is", text)
	}
}

func TestSize(t *testing.T) {
	r := full()
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range r.Worst {
		r.Worst[i].Picture, r.Best[i].Picture = noise(640, 640, rng), noise(320, 320, rng)
		for j := range r.Worst[i].Map {
			r.Worst[i].Map[j], r.Best[i].Map[j] = rng.Float32(), rng.Float32()
		}
	}
	for i := len(r.Images); i < 1000; i++ {
		r.Images = append(r.Images, r.Images[i%60])
	}
	for range 300 {
		last := r.History[len(r.History)-1]
		last.Epoch++
		r.History = append(r.History, last)
	}
	const limit = 3_000_000 // as Write says of 12 cases and 1,000 images
	n := len(write(t, r))
	t.Logf("%d bytes", n)
	if n > limit {
		t.Errorf("got %d bytes, want at most %d", n, limit)
	}
}

func TestCasePictures(t *testing.T) {
	k := Case{Picture: gray(1000, 400, 90), Map: make([]float32, 16*16), H: 16, W: 16, Mask: make([]uint8, 16*16)}
	for y := 4; y < 8; y++ {
		for x := 4; x < 8; x++ {
			k.Map[16*y+x], k.Mask[16*y+x] = 1, 255
		}
	}
	k.Levels = levelsAbove(k.Map, 0.5)
	f, err := k.draw(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	decode := func(uri string) image.Image {
		t.Helper()
		_, data, _ := strings.Cut(uri, "base64,")
		raw, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			t.Fatal(err)
		}
		img, _, err := image.Decode(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		if img.Bounds() != image.Rect(0, 0, 320, 128) {
			t.Errorf("got a picture of %v, want 320 x 128", img.Bounds())
		}
		return img
	}
	const tolerance = 12 // levels, of JPEG
	near := func(what string, img image.Image, x, y int, want [3]uint8) {
		t.Helper()
		r, g, b, _ := img.At(x, y).RGBA()
		for i, got := range []uint32{r >> 8, g >> 8, b >> 8} {
			if d := int(got) - int(want[i]); d < -tolerance || d > tolerance {
				t.Errorf("%s at %d, %d: got %d %d %d, want %v within %d", what, x, y, r>>8, g>>8, b>>8, want, tolerance)
				return
			}
		}
	}
	near("photograph", decode(string(f.Photo)), 120, 48, [3]uint8{90, 90, 90})
	heatmap := decode(string(f.Heatmap))
	near("heatmap, low", heatmap, 300, 120, [3]uint8{inferno[0].R, inferno[0].G, inferno[0].B})
	near("heatmap, high", heatmap, 120, 48, [3]uint8{inferno[255].R, inferno[255].G, inferno[255].B})
	mask := decode(string(f.Mask))
	near("mask, defect", mask, 120, 48, [3]uint8{255, 255, 255})
	near("mask, good", mask, 70, 48, [3]uint8{})
	outline := decode(string(f.Outline))
	near("inside the contour", outline, 120, 48, [3]uint8{90, 90, 90})
	changed := 0
	for x := range 320 {
		if _, g, _, _ := outline.At(x, 48).RGBA(); g>>8 > 150 {
			changed++
		}
	}
	if changed < 2*outlineWidth-2 || changed > 2*outlineWidth+4 {
		t.Errorf("got a contour of %d pixels across, want two lines of %d", changed, outlineWidth)
	}
}

func TestShrink(t *testing.T) {
	img := &imagefile.Image{W: 4, H: 2, Pix: []uint8{
		10, 0, 0, 20, 0, 0, 100, 0, 5, 100, 0, 6,
		30, 0, 0, 41, 0, 0, 100, 0, 5, 100, 0, 6}}
	if got := shrink(img, 2); got.W != 2 || got.H != 1 || !bytes.Equal(got.Pix, []uint8{25, 0, 0, 100, 0, 6}) {
		t.Errorf("got %+v, want the means of 2 x 2 pixels", got)
	}
	if got := shrink(img, 4); got != img {
		t.Error("got a small picture changed")
	}
	if got := shrink(gray(5000, 3, 77), 320); got.W != 320 || got.H != 1 || got.Pix[0] != 77 {
		t.Errorf("got %d x %d, want 320 x 1", got.W, got.H)
	}
}

func TestPick(t *testing.T) {
	images := []Image{
		{Truth: Good, Verdict: anomaly.Verdict{Normalised: 0.1}}, {Truth: Good, Verdict: anomaly.Verdict{Normalised: 0.7}}, {Truth: Defective, Verdict: anomaly.Verdict{Normalised: 0.9}},
		{Truth: Defective, Verdict: anomaly.Verdict{Normalised: 0.2}}, {Truth: Unknown, Verdict: anomaly.Verdict{Normalised: 0.95}}, {Truth: Defective, Verdict: anomaly.Verdict{Normalised: 0.8}},
	}
	cases := []struct {
		n    int
		want string
	}{
		{0, "[] []"}, {1, "[4] [2]"}, {2, "[4 3] [2 0]"}, {3, "[4 3 1] [2 0 5]"}, {5, "[4 3 1 5 0] [2]"}, {99, "[4 3 1 5 0 2] []"}, {-1, "[] []"},
	}
	for _, c := range cases {
		worst, best := Pick(images, c.n)
		if got := fmt.Sprint(worst, best); got != c.want {
			t.Errorf("%d: got %s, want %s", c.n, got, c.want)
		}
	}
}

// TestPickHardest: with most images right, the few that are wrong come first, and scores decide where rounding has made
// normalised ones equal.
func TestPickHardest(t *testing.T) {
	images := []Image{
		{Truth: Good, Verdict: anomaly.Verdict{Score: 1, Normalised: 0.2}}, {Truth: Good, Verdict: anomaly.Verdict{Score: 3, Normalised: 0.45}}, {Truth: Good, Verdict: anomaly.Verdict{Score: 2, Normalised: 0.3}},
		{Truth: Defective, Verdict: anomaly.Verdict{Score: 1, Normalised: 0.2}}, {Truth: Defective, Verdict: anomaly.Verdict{Score: 2, Normalised: 0.3}},
		{Truth: Defective, Verdict: anomaly.Verdict{Score: 8e9, Normalised: 1}}, {Truth: Defective, Verdict: anomaly.Verdict{Score: 9e9, Normalised: 1}}, {Truth: Defective, Verdict: anomaly.Verdict{Score: 7e9, Normalised: 1}},
	}
	worst, best := Pick(images, 3)
	if got, want := fmt.Sprint(worst, best), "[3 4 1] [6 0 5]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestIntervals: the page has the interval of metric.Interval, as the commands print it.
func TestIntervals(t *testing.T) {
	r := &Report{Category: "part"}
	for i := range 60 {
		r.Images = append(r.Images, Image{Path: fmt.Sprint(i), Truth: Good, Verdict: anomaly.Verdict{Anomalous: i == 0}})
	}
	var page strings.Builder
	if err := Write(&page, r); err != nil {
		t.Fatal(err)
	}
	// Clopper and Pearson's is 0.0422 to 8.9400 %.
	if want := `<td class="n">0.0 to 9.0 %</td>`; !strings.Contains(page.String(), want) {
		t.Errorf("got a page without %s", want)
	}
}

func ExampleWrite() {
	auroc := 0.994
	r := &Report{
		Category: "flange",
		Images: []Image{
			{Path: "good/000.png", Truth: Good, Verdict: anomaly.Verdict{Score: 0.21, Normalised: 0.3}},
			{Path: "dent/000.png", Truth: Defective, Defect: "dent", Verdict: anomaly.Verdict{Score: 0.84, Normalised: 0.97, Anomalous: true}},
		},
		Threshold: new(0.4),
		Metrics:   anomaly.Metrics{Good: 40, Defective: 20, ImageAUROC: &auroc},
	}
	var page strings.Builder
	if err := Write(&page, r); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.Contains(page.String(), "99.40 %"))
	// Output: true
}
