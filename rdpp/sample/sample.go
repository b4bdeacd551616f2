// Package sample paints a small data set of photograph-like pictures in the folder layout of MVTec AD, with defects and
// their pixel masks, to try training and inspection on where no real data may be copied.
//
// Good pictures differ as photographs of one production line do: a little in pose, light, texture and camera noise.
// Defects are several pixels wide and stand out well above that.
package sample

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"rdpp/rdpp/setting"
	"rdpp/rdpp/simplex"
)

// Options says what to paint. Nil, and the zero of each field, mean the default.
type Options struct {
	Category   string // "part" (a turned flange), "texture" (a woven fabric) or "both", the default
	Size       int    // side of the square pictures in pixels, 32 to 4096, default 256
	Train      int    // good pictures to train on, default 60; a data set has at least 1
	TestGood   int    // good pictures to test on, default 20; negative: none
	TestDefect int    // pictures of each defect type, default 8; negative: none
	Seed       uint64 // the same seed and options give the same files, default 0
}

// kinds lists the categories with their defect types; a type's place in the list is part of its pictures' seeds.
var kinds = []struct {
	category string
	defects  []string
	scene    func(rng *rand.Rand, defect string, pixel float64) scene
}{
	{"part", []string{"dent", "missing_hole", "scratch", "stain"}, newFlange},
	{"texture", []string{"hole", "missing_yarn", "stain", "thread"}, newFabric},
}

// scene is a picture before the camera: colours in 0..1 over a square of side 256, whatever the size in pixels. defect
// is how much of the point a defect covers, 0 to 1.
type scene interface {
	at(x, y float64) (rgb [3]float64, defect float64)
}

// job is one picture to paint.
type job struct {
	path, mask string // mask is empty for a good picture
	defect     string
	seed       uint64
	scene      func(rng *rand.Rand, defect string, pixel float64) scene
}

// Write paints the data set into dir, which it makes if need be:
//
//	CATEGORY/train/good/000.png                 and so on
//	CATEGORY/test/good/000.png
//	CATEGORY/test/DEFECT/000.png                dent, missing_hole, scratch, stain of a part;
//	CATEGORY/ground_truth/DEFECT/000_mask.png   hole, missing_yarn, stain, thread of a texture
//
// Pictures are 8-bit RGB, masks 8-bit grey, 255 on the defect. Folders of no pictures are left out. A category's folder
// that exists already is an error (fs.ErrExist), so that two data sets never mix; like an option that cannot be (a setting.Error) it
// is found before anything is written. Files do not depend on the number of CPUs.
func Write(dir string, opt *Options) error { return WriteContext(context.Background(), dir, opt) }

// WriteContext is Write until ctx ends. Then, and where it fails, it removes what it has made: half of a data set looks like
// a whole one.
func WriteContext(ctx context.Context, dir string, opt *Options) (err error) {
	o := Options{}
	if opt != nil {
		o = *opt
	}
	for field, value := range map[*int]int{&o.Size: 256, &o.Train: 60, &o.TestGood: 20, &o.TestDefect: 8} {
		if *field == 0 {
			*field = value
		}
	}
	if o.Size < 32 || o.Size > 4096 {
		return fmt.Errorf("sample: %w", setting.Wrong("size", o.Size, "use 32 to 4096"))
	}
	if o.Train < 0 {
		return fmt.Errorf("sample: %w", setting.Wrong("train", o.Train, "use at least 1"))
	}
	if o.Category == "" {
		o.Category = "both"
	}
	var jobs []job
	var folders []string // of the jobs' files
	for i, kind := range kinds {
		if o.Category != kind.category && o.Category != "both" {
			continue
		}
		root := filepath.Join(dir, kind.category)
		if _, err := os.Lstat(root); err == nil {
			return fmt.Errorf("sample: %s: %w, remove it or name another folder", root, fs.ErrExist)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sample: %w; name another folder", err)
		}
		// Each folder of pictures has a stream of seeds of its own, so that no count moves another folder's pictures.
		stream := 100 * i
		add := func(split, defect string, count int) {
			for n := range max(count, 0) {
				j := job{defect: defect, seed: simplex.ImageSeed(o.Seed, stream, n), scene: kind.scene}
				j.path = filepath.Join(root, split, cmp.Or(defect, "good"), fmt.Sprintf("%03d.png", n))
				if defect != "" {
					j.mask = filepath.Join(root, "ground_truth", defect, fmt.Sprintf("%03d_mask.png", n))
				}
				if n == 0 {
					folders = append(folders, filepath.Dir(j.path), filepath.Dir(cmp.Or(j.mask, j.path)))
				}
				jobs = append(jobs, j)
			}
			stream++
		}
		add("train", "", o.Train)
		add("test", "", o.TestGood)
		for _, defect := range kind.defects {
			add("test", defect, o.TestDefect)
		}
	}
	if len(jobs) == 0 {
		return fmt.Errorf("sample: %w", setting.Wrong("category", o.Category, "use part, texture or both"))
	}
	var made []string // folders, those within others after them
	for _, folder := range folders {
		if made, err = makeFolder(folder, made); err != nil {
			err = fmt.Errorf("sample: %w", err)
			break
		}
	}
	if err == nil {
		err = paintAll(ctx, jobs, o.Size)
	}
	if err != nil {
		remove(jobs, made)
	}
	return err
}

// makeFolder is os.MkdirAll, and adds to made what was not there.
func makeFolder(folder string, made []string) ([]string, error) {
	err := os.Mkdir(folder, 0o777)
	if errors.Is(err, fs.ErrNotExist) {
		if made, err = makeFolder(filepath.Dir(folder), made); err == nil {
			err = os.Mkdir(folder, 0o777)
		}
	}
	if err == nil {
		return append(made, folder), nil
	}
	if info, lookErr := os.Stat(folder); lookErr == nil && info.IsDir() {
		return made, nil
	}
	return made, err
}

// remove removes the jobs' files and the folders. Where somebody has put something else into those, they stay.
func remove(jobs []job, folders []string) {
	for _, j := range jobs {
		_ = os.Remove(j.path)
		if j.mask != "" {
			_ = os.Remove(j.mask)
		}
	}
	for _, folder := range slices.Backward(folders) {
		_ = os.Remove(folder)
	}
}

// paintAll shares the jobs among all CPUs and returns the errors of those that failed.
func paintAll(ctx context.Context, jobs []job, size int) error {
	queue := make(chan job)
	var workers sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for j := range queue {
				if err := j.paint(size); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	for _, j := range jobs {
		if ctx.Err() != nil {
			break
		}
		queue <- j
	}
	close(queue)
	workers.Wait()
	if failed == nil && ctx.Err() != nil {
		return fmt.Errorf("sample: %w", ctx.Err())
	}
	return failed
}

func (j job) paint(size int) error {
	rng := rand.New(rand.NewPCG(j.seed, 0))
	pixel := 256 / float64(size)
	s := j.scene(rng, j.defect, pixel)
	picture := image.NewNRGBA(image.Rect(0, 0, size, size))
	mask := image.NewGray(picture.Rect)
	for i := range mask.Pix {
		x, y := (float64(i%size)+0.5)*pixel, (float64(i/size)+0.5)*pixel
		rgb, defect := s.at(x, y)
		if defect > 0.5 {
			mask.Pix[i] = 255
		}
		// The camera: vignetting, and a sensor's noise, mostly the same in all channels.
		lens := 1 - 0.22*((x-128)*(x-128)+(y-128)*(y-128))/(2*128*128)
		grain := 0.009 * rng.NormFloat64()
		for c, v := range rgb {
			v = v*lens + grain + 0.004*rng.NormFloat64()
			picture.Pix[4*i+c] = uint8(255*clamp(v) + 0.5)
		}
		picture.Pix[4*i+3] = 255
	}
	if err := writePNG(j.path, picture); err != nil {
		return err
	}
	if j.mask == "" {
		return nil
	}
	return writePNG(j.mask, mask)
}

func writePNG(path string, m image.Image) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("sample: %w", err)
	}
	// Noise hardly compresses, so a better level would cost time for little.
	encoder := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := errors.Join(encoder.Encode(f, m), f.Close()); err != nil {
		return fmt.Errorf("sample: writing %s: %w", path, err)
	}
	return nil
}

// spread draws a number uniformly within center +- radius.
func spread(rng *rand.Rand, center, radius float64) float64 {
	return center + radius*(2*rng.Float64()-1)
}

func clamp(v float64) float64 {
	return min(max(v, 0), 1)
}

// cover is the share of a pixel that lies inside an edge, whose signed distance is d, negative inside.
func cover(d, pixel float64) float64 {
	return clamp(0.5 - d/pixel)
}

// fade falls smoothly from 1 at d <= from to 0 at d >= to.
func fade(d, from, to float64) float64 {
	t := clamp((to - d) / (to - from))
	return t * t * (3 - 2*t)
}

// mix goes from a, at t = 0, to b, at t = 1.
func mix(a, b [3]float64, t float64) [3]float64 {
	for c := range a {
		a[c] += t * (b[c] - a[c])
	}
	return a
}

// scale multiplies a colour.
func scale(a [3]float64, t float64) [3]float64 {
	return [3]float64{a[0] * t, a[1] * t, a[2] * t}
}

// line is a gently waving stroke, pointed at its ends.
type line struct {
	x, y, cos, sin   float64 // centre and direction
	half, width      float64 // half its length, and its width in the middle
	wave, turn, from float64 // amplitude, waves per unit and phase of the waving
}

func newLine(rng *rand.Rand, x, y, angle, length, width, wave float64) line {
	sin, cos := math.Sincos(angle)
	return line{x, y, cos, sin, length / 2, width, wave, 5 / length, 2 * math.Pi * rng.Float64()}
}

// across returns the signed distance from the stroke's middle, and that from its edge, negative inside.
func (l line) across(x, y float64) (middle, edge float64) {
	x, y = x-l.x, y-l.y
	u, v := x*l.cos+y*l.sin, y*l.cos-x*l.sin
	sin, cos := math.Sincos(l.turn*u + l.from)
	slope := l.wave * l.turn * cos
	middle = (v - l.wave*sin) / math.Sqrt(1+slope*slope)
	t := u / l.half
	return middle, math.Abs(middle) - l.width/2*(1-t*t*t*t)
}

// blob is a disc with an irregular outline.
type blob struct {
	x, y, radius, ragged float64 // ragged is about how far the outline strays, relative to the radius
	field                *simplex.Field
}

// edge returns the distance from the outline, negative inside.
func (b blob) edge(x, y float64) float64 {
	x, y = x-b.x, y-b.y
	r := math.Hypot(x, y)
	if r == 0 || r > 2*b.radius {
		return r - b.radius
	}
	return r - b.radius*(1+b.ragged*b.field.At(1.1*x/r, 1.1*y/r, 0.5*r/b.radius))
}
