package rdpp_test

import (
	"flag"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/torch"
)

// askew is a picture that is turned around its middle and then shifted; its edge repeats.
func askew(img *imagefile.Image, x, y, degrees float64) *imagefile.Image {
	to := &imagefile.Image{W: img.W, H: img.H, Pix: make([]uint8, len(img.Pix))}
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	w, h := float64(img.W), float64(img.H)
	for v := range img.H {
		for u := range img.W {
			du, dv := float64(u)+0.5-w/2-x, float64(v)+0.5-h/2-y
			su, sv := min(max(w/2+cos*du+sin*dv-0.5, 0), w-1), min(max(h/2-sin*du+cos*dv-0.5, 0), h-1)
			left, top := int(su), int(sv)
			right, below := min(left+1, img.W-1), min(top+1, img.H-1)
			across, down := su-float64(left), sv-float64(top)
			for c := range 3 {
				at := func(x, y int) float64 { return float64(img.Pix[3*(y*img.W+x)+c]) }
				value := (at(left, top)*(1-across)+at(right, top)*across)*(1-down) + (at(left, below)*(1-across)+at(right, below)*across)*down
				to.Pix[3*(v*img.W+u)+c] = uint8(math.Round(value))
			}
		}
	}
	return to
}

func writePicture(t *testing.T, path string, img *imagefile.Image) {
	t.Helper()
	picture := image.NewRGBA(image.Rect(0, 0, img.W, img.H))
	for i := range img.W * img.H {
		p := img.Pix[3*i:][:3]
		picture.SetRGBA(i%img.W, i/img.W, color.RGBA{p[0], p[1], p[2], 255})
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(file, picture); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

func aligning() rdpp.Config {
	c := tiny()
	c.ScoreTop = 0.01
	c.Align = framing.DefaultAlign()
	return c
}

// Training's own scores of aligned images are the detector's, one by one and in batches, and its model says how a part lies.
func TestAligned(t *testing.T) {
	out := trained(t, aligning())
	d, err := rdpp.OpenDetector(filepath.Join(out, rdpp.ModelFile), &rdpp.DetectorOptions{PixelThreshold: new(1e-9)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if info := d.Info(); info.FormatVersion != 4 || info.Config.Align.Mean == "" {
		t.Errorf("got format %d and the mean %.20q", info.FormatVersion, info.Config.Align.Mean)
	}
	set := openSet(t, dataDir)
	e, err := d.Evaluate(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for i, item := range set.Test {
		r, img, err := d.DetectFile(item.Path)
		if err != nil || r.Score != e.Scores[i].Score {
			t.Fatalf("%s: got %v, %v, the evaluation's score is %v", item.Path, r, err, e.Scores[i].Score)
		}
		again, err := d.DetectBatch([]*imagefile.Image{img, picture(64, 64), img})
		if err != nil || again[0].Score != r.Score || again[2].Score != r.Score {
			t.Errorf("%s, in a batch: got %v, %v, want %v", item.Path, again, err, r.Score)
		}
		p := r.Prediction("")
		if (p.Pose != nil) == strings.Contains(strings.Join(p.Warnings, "; "), "not aligned") {
			t.Errorf("%s: got %+v, want a pose or a warning", item.Path, p)
		}
		if p.Pose != nil {
			found++
		}
		for _, g := range r.Regions {
			if box := image.Rect(g.X, g.Y, g.X+g.Width, g.Y+g.Height); !box.In(image.Rect(0, 0, r.Width, r.Height)) || g.Peak > maxOf(r.Map) {
				t.Errorf("%s: region %+v of an image of %d x %d pixels", item.Path, g, r.Width, r.Height)
			}
		}
		if len(r.Regions) == 0 || r.MapW != 32 || r.MapH != 32 {
			t.Errorf("%s: got %d regions of a map of %d x %d", item.Path, len(r.Regions), r.MapW, r.MapH)
		}
	}
	if found == 0 {
		t.Error("no part was found")
	}
	text, err := os.ReadFile(filepath.Join(out, rdpp.ScoresFile))
	if err != nil {
		t.Fatal(err)
	}
	var written strings.Builder
	if err := e.WriteScores(&written); err != nil || written.String() != string(text) {
		t.Errorf("training wrote\n%s, the detector %v\n%s", text, err, written.String())
	}

	// A part that lies askew has the pose that it was given.
	img, err := imagefile.DecodeFile(set.Train[0].Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	straight, turned := detect(t, d, img), detect(t, d, askew(img, 4, -3, 5))
	got, was := turned.Frame.Pose, straight.Frame.Pose
	if math.Abs(got.X-was.X-4) > 1 || math.Abs(got.Y-was.Y+3) > 1 || math.Abs(got.Degrees-was.Degrees-5) > 1.5 {
		t.Errorf("got %+v of a part that lies 4 pixels to the right, 3 up and 5 degrees from %+v", got, was)
	}
	if warnings := detect(t, d, picture(64, 64)).Warnings; len(warnings) == 0 || !strings.Contains(warnings[len(warnings)-1], "not aligned") {
		t.Errorf("another picture: got %q", warnings)
	}
}

func maxOf(m []float32) (most float32) {
	for _, v := range m {
		most = max(most, v)
	}
	return most
}

// What aligning does not go with is refused.
func TestAlignRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*rdpp.Config)
		want   string
	}{
		"tiles":      {func(c *rdpp.Config) { c.Tile = 40 }, "align"},
		"too far":    {func(c *rdpp.Config) { c.Align.Shift = 0.4 }, "align"},
		"no shift":   {func(c *rdpp.Config) { c.Align.Shift = 0 }, "align"},
		"no number":  {func(c *rdpp.Config) { c.Align.Rotate = math.NaN() }, "align"},
		"patches":    {func(c *rdpp.Config) { c.Method, c.PatchScore = rdpp.MethodPatchCore, "patch" }, "patch_score"},
		"a bad mean": {func(c *rdpp.Config) { c.Align.Mean = "AAAA" }, "align"},
	} {
		config := aligning()
		c.change(&config)
		if err := config.Validate(); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want a line about %q", name, err, c.want)
		}
	}
	m, err := rdpp.LoadModel(filepath.Join(trained(t, aligning()), rdpp.ModelFile), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Export(t.Context(), filepath.Join(t.TempDir(), "x.onnx"), nil); err == nil || !strings.Contains(err.Error(), "align") {
		t.Errorf("exported: got %v", err)
	}
}

// An interrupted training of aligned images goes on with the mean that it had.
func TestAlignResume(t *testing.T) {
	c := aligning()
	out := filepath.Join(t.TempDir(), "out")
	first := train(t, c, rdpp.TrainOptions{Out: out})
	c.Epochs++
	if again := train(t, c, rdpp.TrainOptions{Out: out, Resume: true}); again.Config.Align != first.Config.Align || again.Config.Align.Mean == "" {
		t.Errorf("resumed: got %.60v, want %.60v", again.Config.Align, first.Config.Align)
	}
}

var (
	askewData    = flag.String("askew-data", "", "measure parts that lie askew on the data set in `DIR`")
	askewUpdates = flag.Int("askew-updates", 300, "`N` updates of RD++ in that")
	askewSeed    = flag.Uint64("askew-seed", 1, "seed `N` in that")
)

// Of a data set whose good test parts are shifted by up to 8 of 256 pixels and turned by up to 4 degrees: what plain, augmented and aligned
// trainings make of them. It prints what BENCHMARKS.md has.
func TestAskew(t *testing.T) {
	if *askewData == "" {
		t.Skip("no -askew-data")
	}
	set := openSet(t, *askewData)
	moved := *set
	moved.Test = append([]dataset.Item(nil), set.Test...)
	rng := rand.New(rand.NewPCG(1, 1))
	vary := func(most float64) float64 { return most * (2*rng.Float64() - 1) }
	dir := t.TempDir()
	for i := range moved.Test {
		if moved.Test[i].Defective {
			continue
		}
		img, err := imagefile.DecodeFile(moved.Test[i].Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		moved.Test[i].Path = filepath.Join(dir, filepath.Base(moved.Test[i].Path))
		most := 8.0 / 256
		writePicture(t, moved.Test[i].Path, askew(img, vary(most*float64(img.W)), vary(most*float64(img.H)), vary(4)))
	}
	patchcore := rdpp.DefaultConfig()
	patchcore.Method, patchcore.Updates, patchcore.Epochs = rdpp.MethodPatchCore, 0, 1
	reverse := rdpp.DefaultConfig()
	reverse.Updates = *askewUpdates
	for _, c := range []struct {
		name   string
		config rdpp.Config
		change func(*rdpp.Config)
	}{
		{"patchcore plain", patchcore, func(*rdpp.Config) {}},
		{"patchcore aligned", patchcore, func(c *rdpp.Config) { c.Align = framing.DefaultAlign() }},
		{"rdpp plain", reverse, func(*rdpp.Config) {}},
		{"rdpp augmented", reverse, func(c *rdpp.Config) { c.AugmentShift, c.AugmentRotate = 8.0/256, 4 }},
		{"rdpp aligned", reverse, func(c *rdpp.Config) { c.Align = framing.DefaultAlign() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.Arch, c.config.Seed = "resnet18", *askewSeed
			c.change(&c.config)
			out := t.TempDir()
			if _, err := rdpp.Train(t.Context(), c.config, set, rdpp.TrainOptions{Out: out, Device: device(t)}); err != nil {
				t.Fatal(err)
			}
			d, err := rdpp.OpenDetector(filepath.Join(out, rdpp.ModelFile), &rdpp.DetectorOptions{Device: device(t)})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			calibration := d.Info().Calibration
			for _, s := range []struct {
				name string
				*dataset.Set
			}{{"as they lie", set}, {"askew", &moved}} {
				e, err := d.Evaluate(t.Context(), s.Set)
				if err != nil {
					t.Fatal(err)
				}
				v := e.Verdicts(&calibration)
				t.Logf("good test parts %s: image AUROC %.4f, flagged %d of %d, found %d of %d; %s", s.name, *e.ImageAUROC, v.GoodFlagged, e.Good,
					v.DefectiveFound, e.Defective, e.Warning())
			}
		})
	}
}
