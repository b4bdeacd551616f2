package dataset

import (
	"errors"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"
	"testing"
)

// A folder of masks is one by what is in it too, whatever it is called; what only
// looks like one is a type of defect.
func TestDrawings(t *testing.T) {
	const w, h = 24, 16
	photograph := func(path string) { writeRGB(t, path, path, w, h) }
	mask := func(path string) { writePNG(t, path, drawing(w, h)) }
	// What of a mask's pixels is not black or white: by a soft brush, or a lossy format.
	soft := func(path string) {
		m := drawing(8*w, 8*h)
		m.Pix = resizeGray(resizeGray(m.Pix, 8*w, 8*h, w, h), w, h, 8*w, 8*h)
		writePNG(t, path, m)
	}
	lossy := func(path string) {
		m := image.NewGray(image.Rect(0, 0, 8*w, 8*h))
		for i := range m.Pix {
			if x, y := i%m.Stride, i/m.Stride; (x-90)*(x-90)+(y-60)*(y-60) < 800 {
				m.Pix[i] = 255
			}
		}
		f, err := os.Create(path)
		if err == nil {
			err = errors.Join(jpeg.Encode(f, m, nil), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	noise := func(path string) { // of a camera, in the dark
		m := image.NewGray(image.Rect(0, 0, w, h))
		for i, v := range pixels(path, w*h) {
			if i%5 == 0 && i/w%2 == 0 {
				m.Pix[i] = v | 1
			}
		}
		writePNG(t, path, m)
	}
	black := func(path string) { writePNG(t, path, image.NewGray(image.Rect(0, 0, w, h))) }
	for _, c := range []struct {
		name, folder string
		draw         func(path string)
		files        []string // in the folder
		masks        int
		err          error
	}{
		{"a name of another language", "マスク", mask, []string{"0.png", "1.png"}, 2, nil},
		{"a word that says nothing", "out", mask, []string{"0_mask.png", "1_mask.png"}, 2, nil},
		{"other capitals", "out", mask, []string{"0_MASK.PNG", "1_MASK.PNG"}, 2, nil},
		{"by folders of types", "truth", mask, []string{"NG/0.png", "NG/1.png"}, 2, nil},
		{"by a soft brush", "truth", soft, []string{"0.png", "1.png"}, 2, nil},
		{"JPEG", "truth", lossy, []string{"0.jpg", "1.jpg"}, 2, nil},
		{"photographs", "stain", photograph, []string{"0.png", "1.png"}, 0, nil},
		{"photographs that are all black", "dark", black, []string{"0.png", "1.png"}, 0, nil},
		{"photographs of noise", "dark", noise, []string{"0.png", "1.png"}, 0, nil},
		{"other names", "print", mask, []string{"0.png", "7.png"}, 0, ErrDrawings},
		{"names with another word", "truth", mask, []string{"0_m.png", "1_m.png"}, 0, ErrDrawings},
		{"other names, one of a photograph", "print", func(path string) {
			if filepath.Base(path) == "8.png" {
				photograph(path)
			} else {
				mask(path)
			}
		}, []string{"7.png", "8.png"}, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(path string, draw func(string)) {
				path = filepath.Join(dir, filepath.FromSlash(path))
				if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
					t.Fatal(err)
				}
				draw(path)
			}
			for _, name := range []string{"OK/0.png", "OK/1.png", "OK/2.png", "NG/0.png", "NG/1.png"} {
				write(name, photograph)
			}
			for _, name := range c.files {
				write(c.folder+"/"+name, c.draw)
			}
			set, err := Open(dir, nil)
			if !errors.Is(err, c.err) {
				t.Fatalf("got error %v, want %v", err, c.err)
			}
			if c.err != nil {
				if set, err = Open(dir, &OpenOptions{SkipBad: true}); err != nil || len(set.Skipped) != len(c.files) || len(set.Test) != 3 || !Skippable(c.err) {
					t.Fatalf("with SkipBad: got %v, %v, want the drawings left out", set, err)
				}
				return
			}
			taken := set.Taken()
			want := Taken{Train: 2, TestGood: 1, Defective: 2 + len(c.files) - c.masks, Masks: c.masks}
			if taken.Train != want.Train || taken.TestGood != want.TestGood || taken.Defective != want.Defective || taken.Masks != want.Masks || len(taken.LeftOut) > 0 {
				t.Errorf("got %v, want %v", taken, want)
			}
		})
	}
}

// A heat map is no photograph, whatever it is called.
func TestCacheRefusesHeatmaps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "renamed.png")
	writeHeatmap(t, path)
	if _, err := NewCache(CacheOptions{Size: 16, Whole: true}).Image(path); !errors.Is(err, ErrHeatmap) || !containsAll(err, path) {
		t.Errorf("got error %v, want %v naming %s", err, ErrHeatmap, path)
	}
}

// Photographs in black and white, as scanners make them, are no masks whatever their names are.
func TestScansAreNoMasks(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"train/good/a.png", "train/good/b.png", "train/good/c.png", "test/dent/x.png", "test/dent/y.png"} {
		m := image.NewGray(image.Rect(0, 0, 8, 8))
		m.Pix[9+i], m.Pix[10+i] = 255, 255
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		writePNG(t, path, m)
	}
	set, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Train) != 3 || len(set.Test) != 2 {
		t.Errorf("got %d to train on and %d to test, want 3 and 2", len(set.Train), len(set.Test))
	}
}
