package dataset

import (
	"errors"
	"image"
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
	black := func(path string) { writePNG(t, path, image.NewGray(image.Rect(0, 0, w, h))) }
	for _, c := range []struct {
		name, folder string
		draw         func(path string)
		files        []string // in the folder
		masks        int
	}{
		{"a name of another language", "マスク", mask, []string{"0.png", "1.png"}, 2},
		{"a word that says nothing", "out", mask, []string{"0_mask.png", "1_mask.png"}, 2},
		{"by folders of types", "truth", mask, []string{"NG/0.png", "NG/1.png"}, 2},
		{"photographs", "stain", photograph, []string{"0.png", "1.png"}, 0},
		{"photographs that are all black", "dark", black, []string{"0.png", "1.png"}, 0},
		{"other names", "print", mask, []string{"0.png", "7.png"}, 0},
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
			if err != nil {
				t.Fatal(err)
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
