package rdpp_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/png"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/imagefile"
	"rdpp/torch"
)

func openDetector(t *testing.T, threshold *float64) *rdpp.Detector {
	t.Helper()
	d, err := rdpp.OpenDetector(trainedModel(t), &rdpp.DetectorOptions{Threshold: threshold})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// picture is a picture of w x h pixels that differ, with a bright patch in its upper left.
func picture(w, h int) *imagefile.Image {
	img := &imagefile.Image{W: w, H: h, Pix: make([]uint8, 3*w*h)}
	for i := range img.Pix {
		x, y := i/3%w, i/3/w
		img.Pix[i] = uint8(60 + (x*7+y*13+i%3*40)%50)
		if x < w/4 && y < h/4 {
			img.Pix[i] = 255
		}
	}
	return img
}

func detect(t *testing.T, d *rdpp.Detector, img *imagefile.Image) *rdpp.Result {
	t.Helper()
	r, err := d.Detect(img)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// bfloat16 has 8 bits: scores of about 1 to 2 move in the third digit, and no more; on the CPU tf32 is fp32.
func TestPrecisions(t *testing.T) {
	const tolerance = 0.01
	img := picture(64, 64)
	want := detect(t, openDetector(t, nil), img)
	for _, c := range []struct {
		precision torch.Precision
		tolerance float64
	}{{torch.FP32, 0}, {torch.TF32, 0}, {torch.BF16, tolerance}} {
		d, err := rdpp.OpenDetector(trainedModel(t), &rdpp.DetectorOptions{Precision: c.precision})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		got := detect(t, d, img)
		if difference := math.Abs(got.Score - want.Score); !(difference <= c.tolerance) || (c.precision == torch.BF16) != (difference > 0) {
			t.Errorf("%s: got a score of %v, want %v within %v", c.precision, got.Score, want.Score, c.tolerance)
		}
	}
	if err := torch.SetArithmetic(false, false); err != nil {
		t.Error(err)
	}
	_, err := rdpp.OpenDetector(trainedModel(t), &rdpp.DetectorOptions{Precision: "fp8"})
	if err == nil || !strings.Contains(err.Error(), `detector: torch: precision "fp8"`) {
		t.Errorf("got %v, want an error that names the precision", err)
	}
}

// Eight goroutines get bit for bit what one gets.
func TestDetectConcurrently(t *testing.T) {
	d := openDetector(t, nil)
	images := []*imagefile.Image{picture(64, 64), picture(100, 40), picture(31, 90), picture(32, 32)}
	var want []*rdpp.Result
	for _, img := range images {
		want = append(want, detect(t, d, img))
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range images {
				k := (g + i) % len(images)
				got, err := d.Detect(images[k])
				if err != nil || !reflect.DeepEqual(got, want[k]) {
					t.Errorf("goroutine %d, image %d: got %+v, %v, want %+v", g, k, got, err, want[k])
				}
			}
		})
	}
	wg.Wait()
}

// A batch gives bit for bit what its images give one by one.
func TestDetectBatch(t *testing.T) {
	d := openDetector(t, nil)
	images := []*imagefile.Image{picture(64, 64), picture(100, 40), picture(31, 90)}
	batch, err := d.DetectBatch(images)
	if err != nil || len(batch) != len(images) {
		t.Fatalf("got %d results, %v, want %d", len(batch), err, len(images))
	}
	for i, img := range images {
		one := detect(t, d, img)
		single, err := d.DetectBatch(images[i : i+1])
		if err != nil || !reflect.DeepEqual(single[0], one) {
			t.Errorf("image %d, a batch of one: got %+v, %v, want %+v", i, single, err, one)
		}
		if !reflect.DeepEqual(batch[i], one) {
			t.Errorf("image %d: got %+v, want %+v", i, batch[i], one)
		}
	}
	if got, err := d.DetectBatch(nil); err != nil || len(got) != 0 {
		t.Errorf("no images: got %v, %v, want nothing", got, err)
	}
	_, err = d.DetectBatch([]*imagefile.Image{images[0], {W: 2, H: 2, Pix: make([]uint8, 11)}})
	checkError(t, "one odd image", err, nil, "bytes")
}

// Judging a result by another threshold gives what a detector with that threshold gives.
func TestJudgeAgain(t *testing.T) {
	img := picture(100, 40)
	d := openDetector(t, nil)
	first := detect(t, d, img)
	for _, threshold := range []float64{0, first.Score / 2, first.Score, 6} {
		own := d.Calibration()
		c, err := own.Override(nil, &threshold, nil)
		if err != nil {
			t.Fatal(err)
		}
		again := *first
		if err := again.Judge(&c); err != nil {
			t.Fatal(err)
		}
		if want := detect(t, openDetector(t, &threshold), img); !reflect.DeepEqual(&again, want) {
			t.Errorf("threshold %v: got %+v, want %+v", threshold, again, want)
		}
	}
}

func TestCloseDuringUse(t *testing.T) {
	before := torch.LiveTensors()
	d := openDetector(t, nil)
	var answers atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				_, err := d.Detect(picture(32, 32))
				if err != nil {
					if !errors.Is(err, torch.ErrClosed) {
						t.Errorf("got error %v, want one that wraps torch.ErrClosed", err)
					}
					return
				}
				// Close in the middle of the others' work.
				if answers.Add(1) == 6 {
					d.Close()
				}
			}
		})
	}
	wg.Wait()
	d.Close()
	if _, err := d.Detect(picture(32, 32)); !errors.Is(err, torch.ErrClosed) {
		t.Errorf("detect: got error %v, want torch.ErrClosed", err)
	}
	if _, err := d.Evaluate(context.Background(), openSet(t, dataDir)); !errors.Is(err, torch.ErrClosed) {
		t.Errorf("evaluate: got error %v, want torch.ErrClosed", err)
	}
	if d.Info().Category != "part" {
		t.Errorf("info: got category %q, want %q", d.Info().Category, "part")
	}
	if after := torch.LiveTensors(); after != before {
		t.Errorf("got %d open tensors, want %d", after, before)
	}
}

func TestResult(t *testing.T) {
	img := picture(100, 40)
	score := detect(t, openDetector(t, nil), img).Score
	below, above := math.Nextafter(score, 0), math.Nextafter(score, 9)
	half, none, negative := score/2, 0.0, -1.0
	for _, c := range []struct {
		name      string
		threshold float64
		anomalous bool
	}{
		{"at the score", score, false},
		{"just below it", below, true},
		{"just above it", above, false},
		{"half of it", half, true},
		{"zero", none, true},
		{"negative", negative, true},
		{"infinite", math.Inf(1), false},
	} {
		d := openDetector(t, &c.threshold)
		r := detect(t, d, img)
		if r.Score != score || r.Threshold != c.threshold || d.Threshold() != c.threshold {
			t.Errorf("%s: got score %v, threshold %v and %v, want %v and %v", c.name, r.Score, r.Threshold, d.Threshold(), score, c.threshold)
		}
		if r.Width != 100 || r.Height != 40 || r.Size != 32 || len(r.Map) != 32*32 {
			t.Errorf("%s: got %d x %d pixels and a map of %d values, side %d, want 100 x 40 and 32 x 32", c.name, r.Width, r.Height, len(r.Map), r.Size)
		}
		if highest := float64(slices.Max(r.Map)); highest != score {
			t.Errorf("%s: got the map's maximum %v, want the score %v", c.name, highest, score)
		}
		if r.Anomalous != c.anomalous || len(r.Regions) > 0 != c.anomalous {
			t.Errorf("%s: got anomalous %v with regions %v, want %v", c.name, r.Anomalous, r.Regions, c.anomalous)
		}
		if !(r.Normalised >= 0 && r.Normalised <= 1) || r.Normalised > 0.5 && !c.anomalous || r.Normalised < 0.5 && c.anomalous {
			t.Errorf("%s: got normalised %v, want 0 to 1, no less than 0.5 if anomalous, else no more", c.name, r.Normalised)
		}
		checkRegions(t, c.name, r)
	}
	if r := detect(t, openDetector(t, &score), img); r.Normalised != 0.5 {
		t.Errorf("at the score: got normalised %v, want 0.5", r.Normalised)
	}
	d, err := rdpp.OpenDetector(trainedModel(t), &rdpp.DetectorOptions{PixelThreshold: &none})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if r := detect(t, d, img); len(r.Regions) != 1 || r.Regions[0].X != 0 || r.Regions[0].Y != 0 ||
		r.Regions[0].Width != 100 || r.Regions[0].Height != 40 || r.Regions[0].Area != 4000 {
		t.Errorf("pixels above zero: got regions %v, want the whole image", r.Regions)
	}
}

// checkRegions compares the regions' common bounding box, in the image's pixels, with that of the map's pixels above
// their levels.
func checkRegions(t *testing.T, what string, r *rdpp.Result) {
	t.Helper()
	var got, want image.Rectangle
	for _, region := range r.Regions {
		got = got.Union(image.Rect(region.X, region.Y, region.X+region.Width, region.Y+region.Height))
	}
	S := r.Size
	for i, v := range r.Map {
		if float64(v) > r.Levels[i] != !math.IsInf(r.Levels[i], 1) {
			t.Fatalf("%s: pixel %d is %v at a level of %v", what, i, v, r.Levels[i])
		}
		if float64(v) > r.Levels[i] {
			x, y := i%S, i/S
			want = want.Union(image.Rect(x*r.Width/S, y*r.Height/S, ((x+1)*r.Width+S-1)/S, ((y+1)*r.Height+S-1)/S))
		}
	}
	if got != want {
		t.Errorf("%s: regions cover %v, want %v", what, got, want)
	}
}

// One score everywhere: training's calibration and metrics, Evaluate, and Detect of a file, its bytes and its pixels
// agree to the last bit.
func TestOneScore(t *testing.T) {
	d := openDetector(t, nil)
	set := openSet(t, dataDir)
	var scores []float64
	for _, item := range set.Train {
		r, _, err := d.DetectFile(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		scores = append(scores, r.Score)
		if r.Anomalous {
			t.Errorf("%s: got anomalous, want no training image above the threshold", item.Path)
		}
	}
	slices.Sort(scores)
	if want := d.Info().Calibration.Scores; !slices.Equal(scores, want) || d.Threshold() != scores[len(scores)-1] {
		t.Errorf("training images: got %v, want %v and the last as threshold", scores, want)
	}

	evaluation, err := d.Evaluate(context.Background(), set)
	if err != nil {
		t.Fatal(err)
	}
	items := evaluation.Scores
	if len(items) != len(set.Test) {
		t.Fatalf("got %d scores, want %d", len(items), len(set.Test))
	}
	for i, item := range items {
		if item.Item != set.Test[i] {
			t.Errorf("item %d: got %v, want %v", i, item.Item, set.Test[i])
		}
		r, img, err := d.DetectFile(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		fromBytes, _, err := d.DetectBytes(data)
		if err != nil {
			t.Fatal(err)
		}
		if fromPixels := detect(t, d, img); r.Score != item.Score || !reflect.DeepEqual(fromBytes, r) || !reflect.DeepEqual(fromPixels, r) {
			t.Errorf("%s: got %v, %v, %v, want %v", item.Path, r.Score, fromBytes.Score, fromPixels.Score, item.Score)
		}
	}
	if want := readSummary(t, trained(t, tiny())).Metrics; !reflect.DeepEqual(evaluation.Metrics, want) {
		t.Errorf("got metrics %+v, want training's %+v", evaluation.Metrics, want)
	}
}

func TestDetectorRefuses(t *testing.T) {
	d, err := rdpp.OpenDetector(trainedModel(t), &rdpp.DetectorOptions{MaxPixels: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var large bytes.Buffer
	if err := png.Encode(&large, image.NewGray(image.Rect(0, 0, 40, 40))); err != nil {
		t.Fatal(err)
	}
	path := openSet(t, dataDir).Test[0].Path
	_, _, err = d.DetectFile(path)
	checkError(t, "large file", err, nil, path, "1000")
	_, _, err = d.DetectBytes(large.Bytes())
	checkError(t, "large bytes", err, nil, "1000")
	_, _, err = d.DetectBytes(nil)
	checkError(t, "no bytes", err, nil, "imagefile")
	for _, img := range []*imagefile.Image{{}, {W: 2, H: 2, Pix: make([]uint8, 11)}, {W: -2, H: -2, Pix: make([]uint8, 12)}} {
		_, err = d.Detect(img)
		checkError(t, "odd pixels", err, nil, "bytes")
	}
	_, err = rdpp.OpenDetector(path, nil)
	checkError(t, "a picture as model", err, nil, path)
}
