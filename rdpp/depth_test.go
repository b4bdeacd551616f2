package rdpp_test

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/imagefile"
	"rdpp/torch"
)

// deepData is dataDir with images of 16 bits per sample, of which so many are used: what a camera leaves there that shows
// the same picture.
func deepData(t *testing.T, bits int) string {
	t.Helper()
	dir := copyData(t)
	for _, part := range []string{"train", "test"} {
		err := filepath.WalkDir(filepath.Join(dir, part), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			img, err := imagefile.DecodeFile(path, nil)
			if err != nil {
				return err
			}
			m := image.NewRGBA64(image.Rect(0, 0, img.W, img.H))
			at := func(i int) uint16 { return uint16(int(img.Pix[i]) * 257 >> (16 - bits)) }
			for i := 0; i < len(img.Pix); i += 3 {
				m.SetRGBA64(i/3%img.W, i/3/img.W, color.RGBA64{R: at(i), G: at(i + 1), B: at(i + 2), A: 0xffff})
			}
			writePNG(t, path, m)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// trainOn is train on another data set, and what was logged.
func trainOn(t *testing.T, dir string, c rdpp.Config, opt rdpp.TrainOptions) (*rdpp.Summary, string) {
	t.Helper()
	var log bytes.Buffer
	opt.Teacher, opt.Log = rdpp.TeacherRandom, slog.New(slog.NewTextHandler(&log, nil))
	s, err := rdpp.Train(context.Background(), c, openSet(t, dir), opt)
	if err != nil {
		t.Fatal(err)
	}
	return s, log.String()
}

// A camera's 10 or 12 bits in 16 train the model that 8 or 16 bits do.
func TestTrainBitDepth(t *testing.T) {
	t.Parallel()
	want := trained(t, tiny())
	wanted := readSummary(t, want)
	if wanted.Config.BitDepth != 16 || wanted.Range.Wide != 0 || !(0 < wanted.Range.Darkest && wanted.Range.Darkest <= wanted.Range.Brightest) ||
		wanted.Warning != "" {
		t.Errorf("8 bits: got %d bits, range %+v, warning %q, want 16 bits and a brightness", wanted.Config.BitDepth, wanted.Range, wanted.Warning)
	}
	for _, bits := range []int{10, 12, 16} {
		dir, out := deepData(t, bits), t.TempDir()
		s, log := trainOn(t, dir, tiny(), rdpp.TrainOptions{Out: out})
		if got, want := outcomeOf(t, out).history, outcomeOf(t, want).history; got != want {
			t.Errorf("%d bits: got history\n%swant\n%s", bits, got, want)
		}
		if s.Config.BitDepth != bits || s.Range.Wide != 6 || s.Range.Largest >= 1<<bits || s.Range.Largest < 1<<(bits-2) {
			t.Errorf("%d bits: got %d, %+v", bits, s.Config.BitDepth, s.Range)
		}
		if s.Threshold != wanted.Threshold || *s.ImageAUROC != *wanted.ImageAUROC || *s.PixelAUROC != *wanted.PixelAUROC {
			t.Errorf("%d bits: got threshold %v, AUROC %v, %v, want %v, %v, %v", bits, s.Threshold, *s.ImageAUROC, *s.PixelAUROC,
				wanted.Threshold, *wanted.ImageAUROC, *wanted.PixelAUROC)
		}
		if s.Warning != "" || strings.Contains(log, "16-bit") {
			t.Errorf("%d bits: got warning %q, log %q, want none", bits, s.Warning, log)
		}
		page, err := os.ReadFile(filepath.Join(out, rdpp.ReportFile))
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Contains(string(page), "16-bit images are read as"); said != (bits < 16) {
			t.Errorf("%d bits: the report says so: got %v", bits, said)
		}
		m, err := rdpp.LoadModel(filepath.Join(out, rdpp.ModelFile), torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
		if m.Info.Config.BitDepth != bits || m.Info.Data.Range != s.Range {
			t.Errorf("%d bits: got %d and %+v in the model", bits, m.Info.Config.BitDepth, m.Info.Data.Range)
		}
		// Programs that read 16 bits alone must refuse the others.
		if got, want := m.Info.FormatVersion, map[int]int{10: 2, 12: 2, 16: 1}[bits]; got != want {
			t.Errorf("%d bits: got model format %d, want %d", bits, got, want)
		}
	}
}

// A run goes on with the bits that it began with, to the same model.
func TestResumeBitDepth(t *testing.T) {
	t.Parallel()
	dir, whole, parts := deepData(t, 12), t.TempDir(), t.TempDir()
	trainOn(t, dir, tiny(), rdpp.TrainOptions{Out: whole})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := rdpp.Train(ctx, tiny(), openSet(t, dir), rdpp.TrainOptions{Out: parts, Teacher: rdpp.TeacherRandom,
		OnStep: func(rdpp.StepReport) { cancel() }})
	checkError(t, "stopped", err, rdpp.ErrInterrupted)
	other := tiny()
	other.BitDepth = 14
	_, err = rdpp.Train(context.Background(), other, openSet(t, dir), rdpp.TrainOptions{Out: parts, Teacher: rdpp.TeacherRandom, Resume: true})
	checkError(t, "other bits", err, rdpp.ErrConfig, "bit_depth is 14; the run that resume continues has 12")
	trainOn(t, dir, tiny(), rdpp.TrainOptions{Out: parts, Resume: true})
	checkOutcome(t, parts, whole)
}

// Bits that are asked for are taken, with a word where the images use others.
func TestGivenBitDepth(t *testing.T) {
	t.Parallel()
	dir := deepData(t, 12)
	for _, c := range []struct {
		bits int
		want string // logged
	}{{12, ""}, {16, "16-bit images use fewer bits"}, {10, "16-bit images have values above"}} {
		config := tiny()
		config.BitDepth, config.Epochs = c.bits, 1
		s, log := trainOn(t, dir, config, rdpp.TrainOptions{Out: t.TempDir()})
		if s.Config.BitDepth != c.bits || !strings.Contains(log, c.want) || c.want == "" && strings.Contains(log, "16-bit") {
			t.Errorf("%d bits: got %d, log %q, want %q", c.bits, s.Config.BitDepth, log, c.want)
		}
	}
}

// A sensor's broken pixel hides how many bits the others use. Then the images come out black, which is said, and the bits
// that are given are right.
func TestHotPixels(t *testing.T) {
	t.Parallel()
	dir := deepData(t, 12)
	paths, err := filepath.Glob(filepath.Join(dir, "train", "good", "*.png"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("got %v, %v, want images", paths, err)
	}
	for _, path := range paths {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m, err := png.Decode(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		m.(draw.Image).Set(5, 7, color.White)
		writePNG(t, path, m)
	}
	for _, c := range []struct {
		bits int
		want bool // that they are called nearly black
	}{{rdpp.BitDepthAuto, true}, {12, false}} {
		config, out := tiny(), t.TempDir()
		config.BitDepth, config.Epochs = c.bits, 1
		s, log := trainOn(t, dir, config, rdpp.TrainOptions{Out: out})
		page, err := os.ReadFile(filepath.Join(out, rdpp.ReportFile))
		if err != nil {
			t.Fatal(err)
		}
		const inLog, onPage = "most 16-bit images come out nearly black", "of 6 come out nearly black"
		if strings.Contains(log, inLog) != c.want || strings.Contains(string(page), onPage) != c.want || (s.Range.Black > 3) != c.want {
			t.Errorf("%d bits: got range %+v, log %q; nearly black: want %v there and in the report", c.bits, s.Range, log, c.want)
		}
	}
}

// Test images that go beyond the range of training are counted, and named.
func TestWarningOfTests(t *testing.T) {
	t.Parallel()
	dir := deepData(t, 10)
	bright := filepath.Join(dir, "test", "good", "000.png")
	m := image.NewGray16(image.Rect(0, 0, 64, 64))
	m.SetGray16(3, 3, color.Gray16{Y: 1024})
	writePNG(t, bright, m)
	config := tiny()
	config.Epochs = 1
	out := t.TempDir()
	s, log := trainOn(t, dir, config, rdpp.TrainOptions{Out: out})
	const want = "1 of 6 images are unlike those of training"
	if !strings.HasPrefix(s.Warning, want) || !strings.Contains(s.Warning, bright) || !strings.Contains(s.Warning, "values up to 1024") {
		t.Errorf("got warning %q, want %q, the file and its largest value", s.Warning, want)
	}
	page, err := os.ReadFile(filepath.Join(out, rdpp.ReportFile))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log, want) || !strings.Contains(string(page), want) {
		t.Errorf("got log %q, want %q there and in the report", log, want)
	}
}
