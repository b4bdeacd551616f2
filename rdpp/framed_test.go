package rdpp_test

import (
	"bytes"
	"errors"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/export/exporttest"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// mask is one of w x h pixels in which a rectangle is drawn.
func mask(w, h int, drawn image.Rectangle) *imagefile.Mask {
	m := &imagefile.Mask{W: w, H: h, Pix: make([]uint8, w*h)}
	for y := drawn.Min.Y; y < drawn.Max.Y; y++ {
		for x := drawn.Min.X; x < drawn.Max.X; x++ {
			m.Pix[y*w+x] = 1
		}
	}
	return m
}

func drawing(t *testing.T, w, h int, drawn image.Rectangle) framing.Drawing {
	t.Helper()
	d, err := framing.Draw(mask(w, h, drawn))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// framed is a training on part of the pictures of dataDir, 64 x 64: 56 x 28 of them, padded, less a corner.
func framed(t *testing.T) rdpp.Config {
	c := tiny()
	c.ScoreTop = 0.01
	c.View = framing.View{Fit: framing.Pad, ROI: framing.Box{X: 8, Y: 20, W: 56, H: 28}, Ignore: drawing(t, 64, 64, image.Rect(40, 0, 64, 32))}
	return c
}

// invert turns the pixels of a rectangle round.
func invert(img *imagefile.Image, part image.Rectangle) {
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			for c := range 3 {
				img.Pix[3*(y*img.W+x)+c] ^= 0xff
			}
		}
	}
}

// What a model does not look at has no say in its results, by a bit, and what it looks at has.
func TestFramedModel(t *testing.T) {
	d, err := rdpp.OpenDetector(filepath.Join(trained(t, framed(t)), rdpp.ModelFile), &rdpp.DetectorOptions{PixelThreshold: new(1e-9)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := d.Info().FormatVersion; got != 4 {
		t.Errorf("got model format %d, want 4", got)
	}
	want := detect(t, d, picture(64, 64))
	hidden := picture(64, 64)
	invert(hidden, image.Rect(0, 0, 64, 20)) // above and below the box, and beside it
	invert(hidden, image.Rect(0, 48, 64, 64))
	invert(hidden, image.Rect(0, 0, 8, 64))
	invert(hidden, image.Rect(40, 20, 64, 32))
	if got := detect(t, d, hidden); got.Score != want.Score || !slices.Equal(got.Map, want.Map) || !reflect.DeepEqual(got.Regions, want.Regions) {
		t.Errorf("hidden pixels changed: got score %v, want %v", got.Score, want.Score)
	}
	seen := picture(64, 64)
	invert(seen, image.Rect(10, 36, 20, 44))
	if got := detect(t, d, seen); got.Score == want.Score {
		t.Errorf("pixels that are looked at changed: the score stays %v", got.Score)
	}
	highest := 0.0
	for p, v := range want.Map {
		if want.Frame.Counts(p) {
			highest = max(highest, float64(v))
		} else if v != 0 {
			t.Fatalf("position %d, which does not count, has %v", p, v)
		}
	}
	if !(want.Score > 0 && want.Score <= highest) {
		t.Errorf("got the score %v, the highest value that counts is %v", want.Score, highest)
	}
	area := 0
	for _, r := range want.Regions {
		box := image.Rect(r.X, r.Y, r.X+r.Width, r.Y+r.Height)
		if area += r.Area; !box.In(image.Rect(8, 20, 64, 48)) {
			t.Errorf("region %v is not within what is looked at", box)
		}
	}
	if looked := 56*28 - 24*12; area < looked*9/10 || area > looked { // a position at the mask's edge is left out with it
		t.Errorf("regions above nearly nothing have %d pixels, %d are looked at", area, looked)
	}
	over := want.Over()
	if over.H != 37 || over.W != 37 || len(over.Map) != 37*37 || len(over.Levels) != 37*37 { // 56 pixels are 32 positions
		t.Errorf("over the image: got %d x %d values and %d levels, want 37 x 37", over.W, over.H, len(over.Levels))
	}
	outlined := 0
	for i, level := range over.Levels {
		if over.Map[i] == 0 && !math.IsInf(level, 1) {
			t.Fatalf("value %d, which the model does not look at, is outlined", i)
		}
		if !math.IsInf(level, 1) {
			outlined++
		}
	}
	if looked := 0.9 * float64(area) * 37 * 37 / 64 / 64; float64(outlined) < looked {
		t.Errorf("got %d values outlined of regions of %d pixels, want at least %.0f", outlined, area, looked)
	}
	config := d.Info().Config
	if got := over.Blur / config.Blur(); math.Abs(got-1) > 0.02 {
		t.Errorf("a part of the image keeps its resolution: got a blur %v times as wide", got)
	}
	// By the shape of hills instead of a level.
	info := d.Info()
	c, err := info.Calibration.Override(nil, new(1e-9), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := want.Judge(&c); err != nil || len(want.Regions) == 0 {
		t.Fatalf("got regions %v, %v, want some", want.Regions, err)
	}
	for _, r := range want.Regions {
		if box := image.Rect(r.X, r.Y, r.X+r.Width, r.Y+r.Height); !box.In(image.Rect(8, 20, 64, 48)) || r.Area >= area {
			t.Errorf("region %v of %d pixels, want one within what is looked at and smaller than all of that", box, r.Area)
		}
	}
	if _, err := d.Detect(picture(63, 64)); !errors.Is(err, framing.ErrOutside) {
		t.Errorf("a smaller picture: got %v, want %v", err, framing.ErrOutside)
	}
}

// A mask of the image's own leaves out more, in models of any view, and one of another size is scaled, with a word.
func TestIgnoreMask(t *testing.T) {
	plain, err := rdpp.OpenDetector(trainedModel(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	part, err := rdpp.OpenDetector(filepath.Join(trained(t, framed(t)), rdpp.ModelFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close()
	for name, d := range map[string]*rdpp.Detector{"whole": plain, "framed": part} {
		hide := image.Rect(0, 0, 16, 32)
		whole := detect(t, d, picture(64, 64))
		want, err := d.DetectIgnoring(picture(64, 64), mask(64, 64, hide))
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range want.Map {
			if counts := want.Frame.Counts(i); counts && v != whole.Map[i] || !counts && v != 0 {
				t.Fatalf("%s: value %d, which counts %v: got %v, without the mask %v", name, i, counts, v, whole.Map[i])
			}
		}
		counted := want.Frame.Values(whole.Map)
		if score := anomaly.Highest(counted, int(d.Info().Config.ScoreTop*float64(len(counted)))); want.Score != score {
			t.Errorf("%s: got score %v, want that of the rest, %v", name, want.Score, score)
		}
		if want.Frame.Counted() >= whole.Frame.Counted() || len(want.Warnings) != len(whole.Warnings) {
			t.Errorf("%s: got %d positions and warnings %q, without a mask %d and %q", name, want.Frame.Counted(), want.Warnings, whole.Frame.Counted(),
				whole.Warnings)
		}
		scaled, err := d.DetectIgnoring(picture(64, 64), mask(32, 32, image.Rect(0, 0, 8, 16)))
		if err != nil || scaled.Score != want.Score || len(scaled.Warnings) != len(want.Warnings)+1 {
			t.Errorf("%s: at half the size: got %+v, %v, want score %v and a warning more", name, scaled.Verdict, err, want.Score)
		}
		none, err := d.DetectIgnoring(picture(64, 64), mask(64, 64, image.Rectangle{}))
		if err != nil || none.Score != whole.Score || !slices.Equal(none.Map, whole.Map) {
			t.Errorf("%s: a mask that draws nothing: got %+v, %v, want score %v", name, none.Verdict, err, whole.Score)
		}
		if _, err := d.DetectIgnoring(picture(64, 64), mask(64, 64, image.Rect(0, 0, 64, 64))); !errors.Is(err, framing.ErrNothing) {
			t.Errorf("%s: a mask that ignores all: got %v", name, err)
		}
		if _, err := d.DetectIgnoring(picture(64, 64), mask(64, 32, image.Rect(0, 0, 1, 1))); !errors.Is(err, framing.ErrShape) {
			t.Errorf("%s: a mask of another shape: got %v", name, err)
		}
	}
}

// Training's own scores of a framed model are the detector's, its report is written, and its calibration is of what counts.
func TestFramedTraining(t *testing.T) {
	out := trained(t, framed(t))
	d, err := rdpp.OpenDetector(filepath.Join(out, rdpp.ModelFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	text, err := os.ReadFile(filepath.Join(out, rdpp.ScoresFile))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(strings.TrimSpace(string(text[bytes.IndexByte(text, '\n')+1:]))) {
		fields := strings.Split(strings.TrimSpace(line), ",")
		want, err := strconv.ParseFloat(fields[3], 64)
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := d.DetectFile(fields[0])
		if err != nil || r.Score != want {
			t.Errorf("%s: got %v, %v, training's score is %v", fields[0], r, err, want)
		}
	}
	set := openSet(t, dataDir)
	var scores []float64
	for _, item := range set.Train {
		r, _, err := d.DetectFile(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		scores = append(scores, r.Score)
	}
	slices.Sort(scores)
	if got := d.Info().Calibration.Scores; !slices.Equal(got, scores) {
		t.Errorf("got %v to calibrate with, want %v", got, scores)
	}
	if _, err := os.Stat(filepath.Join(out, rdpp.ReportFile)); err != nil {
		t.Error(err)
	}

	// And so is another calibration of it.
	r, err := rdpp.Recalibrate(t.Context(), rdpp.RecalibrateOptions{Model: filepath.Join(out, rdpp.ModelFile), Good: set.Train[1:], Threshold: new(1.0)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Model.Close()
	scores = scores[:0]
	for _, item := range set.Train[1:] {
		r, _, err := d.DetectFile(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		scores = append(scores, r.Score)
	}
	slices.Sort(scores)
	if got := r.Model.Info.Calibration.Scores; !slices.Equal(got, scores) {
		t.Errorf("calibrated anew: got %v, want %v", got, scores)
	}
}

// Images have masks of their own in training and evaluation too.
func TestItemsIgnore(t *testing.T) {
	d := openDetector(t, nil)
	set := openSet(t, dataDir)
	img, err := imagefile.DecodeFile(set.Test[1].Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := d.Detect(img)
	if err != nil {
		t.Fatal(err)
	}
	// What is highest decides the score, so a strip around it is left out.
	y := 64 * (slices.Index(whole.Map, slices.Max(whole.Map)) / whole.MapW) / whole.MapH
	highest := mask(64, 64, image.Rect(0, max(0, y-10), 64, min(64, y+10)))
	file := filepath.Join(t.TempDir(), "mask.png")
	writeMask(t, file, highest)
	before, err := d.Evaluate(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	set.Test[1].Ignore = file
	after, err := d.Evaluate(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	for i := range after.Scores {
		if same := after.Scores[i].Score == before.Scores[i].Score; same != (i != 1) {
			t.Errorf("item %d: got %v, without masks %v", i, after.Scores[i].Score, before.Scores[i].Score)
		}
	}
	r, err := d.DetectIgnoring(img, highest)
	if err != nil || r.Score != after.Scores[1].Score {
		t.Errorf("got %v, %v, want the evaluation's %v", r, err, after.Scores[1].Score)
	}
}

func writeMask(t *testing.T, path string, m *imagefile.Mask) {
	t.Helper()
	picture := &image.Gray{Pix: slices.Clone(m.Pix), Stride: m.W, Rect: image.Rect(0, 0, m.W, m.H)}
	for i := range picture.Pix {
		picture.Pix[i] *= 255
	}
	var file bytes.Buffer
	if err := png.Encode(&file, picture); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, file.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
}

// Every view that leaves something out is refused where scores are made of more than the map.
func TestFramedPatchScore(t *testing.T) {
	for _, c := range []struct {
		patchScore string
		neighbours int
		view       framing.View
		want       string
	}{
		{"patch", 1, framing.View{Fit: framing.Pad}, "patch_score"}, {"map", 9, framing.View{Fit: framing.Pad}, "neighbours"},
		{"patch", 9, framing.View{Fit: framing.Crop, ROI: framing.Box{W: 2, H: 2}}, ""}, {"map", 1, framing.View{Fit: framing.Pad}, ""},
	} {
		config := smallConfig()
		config.Method, config.PatchScore, config.Neighbours, config.View = rdpp.MethodPatchCore, c.patchScore, c.neighbours, c.view
		err := config.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want a word about %q", c, err, c.want)
		}
	}
}

// Exported files see of a picture what the model sees.
func TestExportFramed(t *testing.T) {
	img := photographs(t)[1] // 231 x 77
	size := image.Pt(img[0].W, img[0].H)
	views := map[string]framing.View{
		"crop": {Fit: framing.Crop},
		"pad":  {Fit: framing.Pad},
		"all":  {Fit: framing.Pad, ROIMask: drawing(t, 231, 77, image.Rect(20, 5, 200, 70)), Ignore: drawing(t, 231, 77, image.Rect(150, 0, 231, 40))},
	}
	names := []string{"all"}
	if *testmain.Slow {
		names = []string{"all", "crop", "pad"}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			config := smallConfig()
			config.View = views[name]
			testFramed(t, randomModel(t, config), img, size)
		})
	}
	config := smallConfig()
	config.View = views["crop"]
	m, err := rdpp.LoadModel(randomModel(t, config), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var refused *rdpp.SettingError
	if err := m.Export(t.Context(), filepath.Join(t.TempDir(), "x"), nil); !errors.As(err, &refused) || refused.Field != "picture" {
		t.Errorf("without a size: got %v, want a word about the picture", err)
	}
}

func testFramed(t *testing.T, file string, images []*imagefile.Image, size image.Point) {
	d, err := rdpp.OpenDetector(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	info := d.Info()
	S := info.Config.ImageSize
	framer, err := framing.New(info.Config.View, S)
	if err != nil {
		t.Fatal(err)
	}
	frame, err := framer.Frame(size.X, size.Y, nil)
	if err != nil {
		t.Fatal(err)
	}
	planes := exporttest.Batch{Shape: []int64{int64(len(images)), 3, int64(S), int64(S)}}
	for _, img := range images {
		x := make([]float32, 3*S*S)
		framing.Resample(x, img, frame.From, frame.To, S) // the file fills what does not count
		dataset.ImageNet.Apply(x, x, S)
		planes.Planes = append(planes.Planes, x...)
	}
	for _, c := range []struct {
		format, input string
		run           func(testing.TB, string, exporttest.Batch) exporttest.Result
		in            exporttest.Batch
	}{
		{rdpp.FormatONNX, rdpp.InputUint8, exporttest.ONNX, batch(images, rdpp.InputUint8, S)},
		{rdpp.FormatONNX, rdpp.InputFloat, exporttest.ONNX, planes},
		{rdpp.FormatTorchScript, rdpp.InputUint8, exporttest.TorchScript, batch(images, rdpp.InputUint8, S)},
		{rdpp.FormatTorchScript, rdpp.InputFloat, exporttest.TorchScript, planes},
	} {
		t.Run(c.format+" "+c.input, func(t *testing.T) {
			exported := exportFile(t, file, rdpp.ExportOptions{Format: c.format, Input: c.input, Picture: size})
			score, anomaly := checkOutputs(t, c.run(t, exported, c.in), d, images)
			t.Logf("scores differ by up to %.1e, maps by %.1e", score, anomaly)
			if math.IsNaN(score) {
				t.Error("no score")
			}
		})
	}
}
