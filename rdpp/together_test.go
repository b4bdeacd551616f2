package rdpp_test

import (
	"fmt"
	"image"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/testmain"
)

// aspect is a group of settings of which a training takes one choice.
type aspect struct {
	name    string
	choices []choice
}

// choice is one of them, by a word.
type choice struct {
	name string
	set  func(t *testing.T, c *rdpp.Config)
	data func(*togetherData) // of images instead
}

// togetherData says what images a training is of.
type togetherData struct {
	sizes []image.Point
	own   bool // each has a mask of its own
}

var (
	alike   = []image.Point{{96, 96}}
	mixed   = []image.Point{{96, 96}, {96, 40}, {30, 96}, {200, 96}}
	smallOf = []image.Point{{1, 1}, {3, 7}, {1, 50}, {96, 96}}
)

func aspects() []aspect {
	patches := func(score string, neighbours int) func(*testing.T, *rdpp.Config) {
		return func(_ *testing.T, c *rdpp.Config) {
			c.Method, c.Updates, c.Epochs, c.PatchScore, c.Neighbours, c.Coreset = rdpp.MethodPatchCore, 0, 1, score, neighbours, 0.05
		}
	}
	box := func(b framing.Box) func(*testing.T, *rdpp.Config) {
		return func(_ *testing.T, c *rdpp.Config) { c.ROI = b }
	}
	plain := choice{name: "-"}
	sizes := func(name string, all []image.Point) choice {
		return choice{name: name, data: func(d *togetherData) { d.sizes = all }}
	}
	return []aspect{
		{"method", []choice{
			{name: "rd++", set: func(_ *testing.T, c *rdpp.Config) { c.ScoreTop = 0.01 }},
			{name: "rd", set: func(_ *testing.T, c *rdpp.Config) { c.Method, c.Score = rdpp.MethodRD, rdpp.ScoreReleased }},
			{name: "patchcore", set: patches("map", 1)},
			{name: "patchcore of patches", set: patches("patch", 1)},
			{name: "patchcore weighted", set: patches("map", 9)},
		}},
		{"tile", []choice{
			plain,
			{name: "a smallest defect", set: func(_ *testing.T, c *rdpp.Config) { c.SmallestDefect = 3 }},
			{name: "tiles", set: func(_ *testing.T, c *rdpp.Config) { c.Tile = 48 }},
			{name: "auto tiles", set: func(_ *testing.T, c *rdpp.Config) { c.Tile, c.SmallestDefect = rdpp.TileAuto, 10 }},
		}},
		{"fit", []choice{
			plain,
			{name: "pad", set: func(_ *testing.T, c *rdpp.Config) { c.Fit = framing.Pad }},
			{name: "crop", set: func(_ *testing.T, c *rdpp.Config) { c.Fit = framing.Crop }},
		}},
		{"view", []choice{
			plain,
			{name: "a box", set: box(framing.Box{X: 2, Y: 3, W: 20, H: 30})},
			{name: "a pixel", set: box(framing.Box{W: 1, H: 1})},
			{name: "a mask", set: func(t *testing.T, c *rdpp.Config) { c.ROIMask = drawing(t, 96, 96, image.Rect(10, 20, 70, 80)) }},
			{name: "nearly all ignored", set: func(t *testing.T, c *rdpp.Config) { c.Ignore = drawing(t, 96, 96, image.Rect(0, 0, 96, 93)) }},
		}},
		{"moved", []choice{
			plain,
			{name: "augmented", set: func(_ *testing.T, c *rdpp.Config) { c.AugmentShift, c.AugmentRotate, c.AugmentScale = 0.5, 180, 0.5 }},
			{name: "aligned", set: func(_ *testing.T, c *rdpp.Config) { c.Align = framing.DefaultAlign() }},
		}},
		{"images", []choice{sizes("alike", alike), sizes("of several shapes", mixed), sizes("tiny", smallOf)}},
		{"masks", []choice{plain, {name: "each", data: func(d *togetherData) { d.own = true }}}},
		{"threshold", []choice{plain, {name: "by folds", set: func(_ *testing.T, c *rdpp.Config) { c.Calibration = 0.3 }}}},
	}
}

// Settings that pass for each other's company before training are company to its end: a training of any of them together is
// refused before its first step, or ends with a model that scores as training's own evaluation did.
func TestTogether(t *testing.T) {
	t.Parallel()
	all := aspects()
	some := pairs(t, all)
	if !*testmain.Slow {
		some = some[:fewTogether]
	}
	for _, picks := range some {
		var words []string
		for i, at := range picks {
			if name := all[i].choices[at].name; name != "-" {
				words = append(words, all[i].name+": "+name)
			}
		}
		t.Run(strings.Join(words, ", "), func(t *testing.T) {
			c, data := together(t, all, picks)
			trainTogether(t, c, data)
		})
	}
}

// together are the settings, and what images they are for, of a choice of each aspect.
func together(t *testing.T, all []aspect, picks []int) (c rdpp.Config, data togetherData) {
	c = tiny()
	c.Epochs, c.Accumulate = 1, 1
	for a, at := range picks {
		if set := all[a].choices[at].set; set != nil {
			set(t, &c)
		}
		if of := all[a].choices[at].data; of != nil {
			of(&data)
		}
	}
	return c, data
}

// Where scores are of single patches, of an image nothing can be left out: what would be is refused before the first step, by name.
func TestPatchScoresOfAll(t *testing.T) {
	t.Parallel()
	patches := tiny()
	patches.Method, patches.Updates, patches.Epochs, patches.PatchScore = rdpp.MethodPatchCore, 0, 1, "patch"
	for _, c := range []struct {
		name   string
		tile   int
		data   togetherData
		change func(*dataset.Set)
		want   string
	}{
		{"a short one to train on", 48, togetherData{sizes: mixed}, nil, "train/good/1.png, 96 x 40 pixels, is smaller than a tile of 48"},
		{"a short one to test with", 48, togetherData{sizes: mixed}, func(s *dataset.Set) { s.Train = s.Train[:1] }, "test/dent/11.png, 96 x 40 pixels"},
		{"a mask", 0, togetherData{sizes: alike, own: true}, nil, "train/good/0.png has a mask"},
		{"a mask to test with", 0, togetherData{sizes: alike, own: true}, func(s *dataset.Set) { s.Train[0].Ignore, s.Train = "", s.Train[:1] }, "test/dent/7.png has a mask"},
	} {
		config := patches
		config.Tile = c.tile
		set := c.data.write(t)
		if c.change != nil {
			c.change(set)
		}
		_, err := rdpp.Train(t.Context(), config, set, rdpp.TrainOptions{Out: t.TempDir(), Teacher: rdpp.TeacherRandom,
			OnStart: func(modelfile.Info) { t.Errorf("%s: the training begins", c.name) }})
		checkError(t, c.name, err, rdpp.ErrConfig, c.want, "patch_score")
	}
}

func trainTogether(t *testing.T, c rdpp.Config, data togetherData) {
	set, out, started := data.write(t), t.TempDir(), false
	_, err := rdpp.Train(t.Context(), c, set, rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom, OnStart: func(modelfile.Info) { started = true }})
	if err != nil {
		if t.Logf("refused: %v", err); started || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v after the first step, want a line before", err)
		}
		return
	}
	d, err := rdpp.OpenDetector(filepath.Join(out, rdpp.ModelFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	e, err := d.Evaluate(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	options := d.ImageOptions()
	for i, item := range set.Test {
		img, err := imagefile.DecodeFile(item.Path, &options)
		if err != nil {
			t.Fatal(err)
		}
		var own *imagefile.Mask
		if item.Ignore != "" {
			if own, err = imagefile.DecodeMaskFile(item.Ignore, &options); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := d.DetectIgnoring(img, own); err != nil || r.Score != e.Scores[i].Score {
			t.Errorf("an image of %d x %d pixels: got %v, %v, the evaluation's score is %v", img.W, img.H, r, err, e.Scores[i].Score)
		}
	}
}

// write makes the images: 6 to train on, of each size two for testing.
func (d togetherData) write(t *testing.T) *dataset.Set {
	dir, n := t.TempDir(), 0
	add := func(kind string, count int) {
		if err := os.MkdirAll(filepath.Join(dir, kind), 0o777); err != nil {
			t.Fatal(err)
		}
		for i := range count {
			size := d.sizes[i%len(d.sizes)]
			img := picture(size.X, size.Y)
			rng := rand.New(rand.NewPCG(uint64(n), 0))
			for p := range img.Pix {
				img.Pix[p] ^= uint8(rng.IntN(16))
			}
			writePicture(t, filepath.Join(dir, kind, fmt.Sprintf("%d.png", n)), img)
			n++
		}
	}
	add("train/good", 6)
	add("test/good", len(d.sizes))
	add("test/dent", len(d.sizes))
	set := openSet(t, dir)
	for _, items := range [][]dataset.Item{set.Train, set.Test} {
		for i := range items {
			if !d.own {
				continue
			}
			img, err := imagefile.DecodeFile(items[i].Path, nil)
			if err != nil {
				t.Fatal(err)
			}
			items[i].Ignore = filepath.Join(t.TempDir(), "mask.png")
			writeMask(t, items[i].Ignore, mask(img.W, img.H, image.Rect(0, 0, img.W/3, img.H/3)))
		}
	}
	return set
}

// fewTogether is how many trainings the quick tests try. The first cover the most.
const fewTogether = 5

// pairs are choices, one of each aspect, that validation lets pass and that hold every two choices of different aspects at least
// once together, as far as it lets those.
func pairs(t *testing.T, all []aspect) (some [][]int) {
	type pair struct{ a, i, b, j int }
	held := map[pair]bool{}
	covers := func(picks []int) (found []pair) {
		for b := range picks {
			for a := range b {
				if p := (pair{a, picks[a], b, picks[b]}); !held[p] {
					found = append(found, p)
				}
			}
		}
		return found
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var valid [][]int
	for range 4000 { // of some 10000 that there are
		picks := make([]int, len(all))
		for a := range all {
			picks[a] = rng.IntN(len(all[a].choices))
		}
		c, data := together(t, all, picks)
		shaped := c.ROIMask == "" && c.Ignore == "" || len(data.sizes) == 1 // masks are of pictures of their shape
		if shaped && c.Validate() == nil {
			valid = append(valid, picks)
		}
	}
	for {
		var best []pair
		var picks []int
		for _, p := range valid {
			if found := covers(p); len(found) > len(best) {
				best, picks = found, p
			}
		}
		if picks == nil {
			return some
		}
		some = append(some, picks)
		for _, p := range best {
			held[p] = true
		}
	}
}
