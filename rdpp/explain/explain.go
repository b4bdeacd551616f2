// Package explain makes the page about photographs that a detector has judged, labelled or not: each with its map, its outline,
// its score among those of the calibration, and the good image that looks most like it.
package explain

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"

	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/detector"
	"rdpp/rdpp/evaluation"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/report"
)

// Options say what a page shows. Zero fields mean the default.
type Options struct {
	// Good are image files of good parts, to show the nearest of; default none is shown. Of more than 4096 so many are taken, evenly.
	Good   []string
	Images *imagefile.Options // to read them with
	// Shown is how many images at most are shown with their pictures, those of the highest scores; default 48, and fewer where
	// their maps would take more than 256 MiB. All are listed.
	Shown int
}

const (
	defaultShown = 48
	shownBytes   = 256 << 20
	leastShown   = 6
	mostGood     = 4096 // of 12 KiB each
	lookSide     = 32   // pixels, of what is compared to find the nearest image
)

// Page collects images. Add is for one goroutine, Look for any number.
type Page struct {
	report report.Report
	shown  []report.Case // highest score first
	most   int
	bytes  int // that the maps of shown may take, if they are more than leastShown; 0: any
	good   []goodImage
	images *imagefile.Options
}

// goodImage is what is kept of a good image. Its picture is read again where it is shown.
type goodImage struct {
	path string
	look []float32
}

// Entry is an image ready to be added.
type Entry struct {
	image report.Image
	shown report.Case
}

// New begins a page about images that a detector judges. It reads the good images; one that cannot be read is an error.
func New(ctx context.Context, d *detector.Detector, opt *Options) (*Page, error) {
	if opt == nil {
		opt = &Options{}
	}
	info, c := d.Info(), d.Calibration()
	pixels := modelfile.FloorFloat32(c.PixelThreshold)
	p := &Page{images: opt.Images, report: report.Report{Category: cmp.Or(info.Category, "images"), Notes: evaluation.Notes(&info, &c, nil), Threshold: &c.Threshold,
		ThresholdRule: c.Rule, PixelThreshold: &pixels, Teacher: report.Teacher{Name: info.Teacher.Origin, SHA256: info.Teacher.SHA256},
		Fingerprint: info.Data.Fingerprint, TrainImages: info.Data.Images}}
	if !c.Provisional {
		p.report.Calibration = c.Scores
	}
	if p.most = opt.Shown; p.most == 0 {
		p.most, p.bytes = defaultShown, shownBytes
	}
	good := spread(opt.Good, mostGood)
	if left := len(opt.Good) - len(good); left > 0 {
		p.report.Notes = append(p.report.Notes, fmt.Sprintf("The nearest good images are those of %d among %d.", len(good), len(opt.Good)))
	}
	for _, path := range good {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		img, err := imagefile.DecodeFile(path, opt.Images)
		if err != nil {
			return nil, fmt.Errorf("explain: %w", err)
		}
		p.good = append(p.good, goodImage{path, look(img)})
	}
	return p, nil
}

// spread is up to most of paths, evenly.
func spread(paths []string, most int) []string {
	if len(paths) <= most {
		return paths
	}
	some := make([]string, most)
	for i := range some {
		some[i] = paths[i*len(paths)/most]
	}
	return some
}

// look is a picture as it is compared: 3 planes of 32 x 32 pixels.
func look(img *imagefile.Image) []float32 {
	x := make([]float32, 3*lookSide*lookSide)
	dataset.Resize(x, img, lookSide)
	return x
}

// nearest is the path of the good image of the least mean squared difference of pixels; "" where there are none.
func (p *Page) nearest(img *imagefile.Image) (path string) {
	if len(p.good) == 0 {
		return ""
	}
	x, least := look(img), math.Inf(1)
	for _, g := range p.good {
		sum := 0.0
		for i, v := range g.look {
			d := float64(v - x[i])
			sum += d * d
		}
		if sum < least {
			least, path = sum, g.path
		}
	}
	return path
}

// Look makes an entry of an image and what the detector says of it. It keeps a small copy of the picture alone.
func (p *Page) Look(name string, img *imagefile.Image, r *detector.Result) *Entry {
	over := r.Over()
	return &Entry{image: report.Image{Path: name, Verdict: r.Verdict}, shown: report.Case{Picture: report.Thumbnail(img), Map: over.Map, H: over.H,
		W: over.W, Levels: over.Levels, NearPath: p.nearest(img)}}
}

// Add puts an entry on the page.
func (p *Page) Add(e *Entry) {
	e.shown.Image = len(p.report.Images)
	p.report.Images = append(p.report.Images, e.image)
	score := func(k report.Case) float64 { return p.report.Images[k.Image].Score }
	at, _ := slices.BinarySearchFunc(p.shown, e.image.Score, func(k report.Case, s float64) int {
		return cmp.Or(cmp.Compare(s, score(k)), -1) // behind those of the same score
	})
	if at < p.most {
		p.shown = slices.Insert(p.shown, at, e.shown)
		p.shown = slices.Delete(p.shown, p.fit(), len(p.shown))
	}
}

// fit is how many of the shown images there is room for.
func (p *Page) fit() int {
	const each = 4 + 8 // bytes of a pixel's value and level
	taken := 0
	for i, k := range p.shown {
		taken += each * len(k.Map)
		if i == p.most || p.bytes > 0 && taken > p.bytes && i >= leastShown {
			return i
		}
	}
	return len(p.shown)
}

// nearPictures reads the good images that are shown. Of one that cannot be read any more there is a note.
func (p *Page) nearPictures() (shown []report.Case, notes []string) {
	shown = slices.Clone(p.shown)
	read := map[string]*imagefile.Image{}
	for i := range shown {
		path := shown[i].NearPath
		picture, known := read[path]
		if path != "" && !known {
			img, err := imagefile.DecodeFile(path, p.images)
			if err != nil {
				notes = append(notes, fmt.Sprintf("A good image is not shown: %v.", err))
			} else {
				picture = report.Thumbnail(img)
			}
			read[path] = picture
		}
		shown[i].Near = picture
	}
	return shown, notes
}

// Write writes the page to a file, which is replaced when it is whole.
func (p *Page) Write(path string) error {
	r := p.report
	var notes []string
	r.Shown, notes = p.nearPictures()
	r.Notes = append(slices.Clone(r.Notes), notes...)
	if left := len(r.Images) - len(r.Shown); left > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("Of %d images the %d with the highest scores are shown; all are listed.", len(r.Images),
			len(r.Shown)))
	}
	if err := atomicfile.Write(path, func(w io.Writer) error { return report.Write(w, &r) }); err != nil {
		return fmt.Errorf("explain: %w", err)
	}
	return nil
}
