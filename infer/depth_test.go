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

// Images of 12 bits score as what they show, by a model of 12 bits; what has another range is scored, with a word.
func TestImageBitDepth(t *testing.T) {
	good, _ := testImages()
	dir := t.TempDir()
	twelve, sixteen, ten := filepath.Join(dir, "12.png"), filepath.Join(dir, "16.png"), filepath.Join(dir, "10.png")
	writeDeep(t, twelve, good[0], 16)
	writeDeep(t, sixteen, good[0], 257)
	writeDeep(t, ten, good[0], 4)
	for _, c := range []struct {
		name, path string
		bits       int
		score      any    // nil: not looked at
		warning    string // "": none
	}{
		{"12 bits", twelve, 12, scores[good[0]], ""},
		{"16 bits", sixteen, 16, scores[good[0]], ""},
		{"16 bits for 12", sixteen, 12, nil, "the training images use 12 bits, up to 4095"},
		{"10 bits for 12", ten, 12, nil, "less than half of the darkest"},
		{"8 bits for 12", good[0], 12, scores[good[0]], "it has 8 bits per sample, the training images use 12 of 16"},
		{"12 bits for 16", twelve, 16, nil, "less than half of the darkest"},
		{"8 bits for 16", good[0], 16, scores[good[0]], ""},
	} {
		args := []string{"image", "--model", deepModel(t, c.bits), "--threads=2", c.path}
		_, stdout, stderr := infer(nil, append(args, "--json")...)
		all := objects(t, stdout)
		if len(all) != 1 || c.score != nil && all[0]["score"] != c.score || stderr != "" {
			t.Errorf("%s: got %s, stderr %q, want score %v", c.name, stdout, stderr, c.score)
			continue
		}
		warnings, _ := all[0]["warnings"].([]any)
		if len(warnings) > 0 != (c.warning != "") || c.warning != "" && !strings.Contains(warnings[0].(string), c.warning) {
			t.Errorf("%s: got warnings %q, want %q", c.name, warnings, c.warning)
		}
		_, _, stderr = infer(nil, args...)
		if said := strings.Contains(stderr, c.path+": it"); said != (c.warning != "") || !strings.Contains(stderr, c.warning) {
			t.Errorf("%s: got stderr %q, want %q", c.name, stderr, c.warning)
		}
	}
}

// An evaluation reads as the model does, and sums up what is unlike training.
func TestEvalBitDepth(t *testing.T) {
	auroc := func(model, dir string) (value any, warning, stderr string) {
		t.Helper()
		code, stdout, stderr := infer(nil, "eval", "--model", model, "--threads=2", "--json", "--data", dir)
		all := objects(t, stdout)
		if code != exitDone || len(all) != 1 {
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
