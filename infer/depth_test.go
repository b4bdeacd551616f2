package main

import (
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/imagefile"
	"rdpp/torch"
)

// deepModel is the tests' model for images of so many bits, of 16, and of the test images' brightness.
func deepModel(t *testing.T, bits int) string {
	t.Helper()
	m, err := rdpp.LoadModel(modelFile, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Info.Config.BitDepth = bits
	m.Info.Data.Images, m.Info.Data.Range = 1, dataset.Range{Wide: 1, Largest: 1<<bits - 1, Darkest: 0.4, Brightest: 0.6}
	path := filepath.Join(t.TempDir(), "deep.safetensors")
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeDeep writes a picture in 16 bits, of its 8-bit values times factor.
func writeDeep(t *testing.T, path, from string, factor int) {
	t.Helper()
	img, err := imagefile.DecodeFile(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := image.NewRGBA64(image.Rect(0, 0, img.W, img.H))
	at := func(i int) uint16 { return uint16(int(img.Pix[i]) * factor) }
	for i := 0; i < len(img.Pix); i += 3 {
		m.SetRGBA64(i/3%img.W, i/3/img.W, color.RGBA64{R: at(i), G: at(i + 1), B: at(i + 2), A: 0xffff})
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, m); err != nil {
		t.Fatal(err)
	}
}

// seen is what a model makes of an image.
type seen struct {
	path    string
	score   any    // nil: not looked at
	warning string // "": none
}

// Images of 12 bits score as what they show, by a model of 12 bits; what has another range is scored, with a word.
func TestImageBitDepth(t *testing.T) {
	good, _ := testImages()
	dir := t.TempDir()
	twelve, sixteen, ten := filepath.Join(dir, "12.png"), filepath.Join(dir, "16.png"), filepath.Join(dir, "10.png")
	writeDeep(t, twelve, good[0], 16)
	writeDeep(t, sixteen, good[0], 257)
	writeDeep(t, ten, good[0], 4)
	for _, c := range []struct {
		bits   int // the model's
		images []seen
	}{
		{12, []seen{
			{twelve, scores[good[0]], ""},
			{sixteen, nil, "the training images use 12 bits, up to 4095"},
			{ten, nil, "less than half of the darkest"},
			{good[0], scores[good[0]], "it has 8 bits per sample, the training images use 12 of 16"},
		}},
		{16, []seen{
			{sixteen, scores[good[0]], ""},
			{twelve, nil, "less than half of the darkest"},
			{good[0], scores[good[0]], ""},
		}},
	} {
		args := []string{"image", "--model", deepModel(t, c.bits), "--threads=2"}
		for _, image := range c.images {
			args = append(args, image.path)
		}
		_, stdout, stderr := infer(nil, append(args, "--json")...)
		all := objects(t, stdout)
		if len(all) != len(c.images) || stderr != "" {
			t.Fatalf("model of %d bits: got %s, stderr %q", c.bits, stdout, stderr)
		}
		_, _, lines := infer(nil, args...)
		for i, image := range c.images {
			name := filepath.Base(image.path)
			if image.score != nil && all[i]["score"] != image.score {
				t.Errorf("%s, model of %d bits: got %v, want score %v", name, c.bits, all[i], image.score)
			}
			var got string
			if warnings, _ := all[i]["warnings"].([]any); len(warnings) > 0 {
				got, _ = warnings[0].(string)
			}
			if (got == "") != (image.warning == "") || !strings.Contains(got, image.warning) {
				t.Errorf("%s, model of %d bits: got warning %q, want %q", name, c.bits, got, image.warning)
			}
			if said := strings.Contains(lines, image.path+": it"); said != (image.warning != "") || !strings.Contains(lines, got) {
				t.Errorf("%s, model of %d bits: got stderr %q, want %q", name, c.bits, lines, got)
			}
		}
	}
}

// An evaluation reads as the model does, and sums up what is unlike training.
func TestEvalBitDepth(t *testing.T) {
	auroc := func(model, dir string) (value any, warning, stderr string) {
		t.Helper()
		code, stdout, stderr := infer(nil, "eval", "--model", model, "--threads=2", "--json", "--data", dir)
		all := objects(t, stdout)
		if code != command.Done || len(all) != 1 {
			t.Fatalf("got code %d, stdout %q, stderr %q, want code 0", code, stdout, stderr)
		}
		warning, _ = all[0]["warning"].(string)
		return all[0]["image_auroc"], warning, stderr
	}
	deep := copyData(t, "")
	err := filepath.WalkDir(filepath.Join(deep, "test"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			writeDeep(t, path, path, 16)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want, warning, _ := auroc(modelFile, dataDir)
	if warning != "" {
		t.Errorf("8 bits, model that knows no range: got warning %q", warning)
	}
	if got, warning, stderr := auroc(deepModel(t, 12), deep); got != want || warning != "" || stderr != "" {
		t.Errorf("12 bits: got image AUROC %v, warning %q, stderr %q, want %v and no word", got, warning, stderr, want)
	}
	const all = "6 of 6 images are unlike those of training"
	if _, warning, stderr := auroc(deepModel(t, 16), deep); !strings.Contains(warning, all) || !oneLine(stderr, all) {
		t.Errorf("12 bits read as 16: got warning %q, stderr %q, want %q", warning, stderr, all)
	}
	if _, warning, _ := auroc(modelFile, deep); !strings.Contains(warning, all) || !strings.Contains(warning, "nearly black") {
		t.Errorf("12 bits, model that knows no range: got warning %q, want %q", warning, all)
	}
}

func TestInfoBitDepth(t *testing.T) {
	_, stdout, _ := infer(nil, "info", deepModel(t, 12))
	for _, want := range []string{"16-bit images are read as 12 bits (largest value 4095)", "0.400 to 0.600"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("got %s, want %q in it", stdout, want)
		}
	}
}

// An exported file takes pixels of 8 bits, so whoever feeds it is told how to make them.
func TestExportBitDepth(t *testing.T) {
	for bits, want := range map[int]string{12: "the model reads 16-bit images as 12 bits; give the file's input their value >> 4", 16: ""} {
		out := filepath.Join(t.TempDir(), "model.onnx")
		code, _, stderr := infer(nil, "export", "--model", deepModel(t, bits), "--out", out)
		if code != command.Done || !strings.Contains(stderr, want) || want == "" && stderr != "" {
			t.Errorf("%d bits: got code %d, stderr %q, want %q", bits, code, stderr, want)
		}
	}
}
