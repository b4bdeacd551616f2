package sample

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"rdpp/rdpp/setting"
)

// files returns the data set's files by their slash-separated paths.
func files(t *testing.T, opt *Options) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	if err := Write(dir, opt); err != nil {
		t.Fatal(err)
	}
	found := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found[path], err = os.ReadFile(filepath.Join(dir, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func paths(set map[string][]byte) []string {
	list := []string{}
	for path := range set {
		list = append(list, path)
	}
	slices.Sort(list)
	return list
}

func TestLayout(t *testing.T) {
	set := files(t, &Options{Category: "texture", Size: 48, Train: 2, TestGood: 1, TestDefect: 1})
	got := paths(set)
	want := []string{
		"texture/ground_truth/hole/000_mask.png",
		"texture/ground_truth/missing_yarn/000_mask.png",
		"texture/ground_truth/stain/000_mask.png",
		"texture/ground_truth/thread/000_mask.png",
		"texture/test/good/000.png",
		"texture/test/hole/000.png",
		"texture/test/missing_yarn/000.png",
		"texture/test/stain/000.png",
		"texture/test/thread/000.png",
		"texture/train/good/000.png",
		"texture/train/good/001.png",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for path, data := range set {
		m, err := png.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if got, want := m.Bounds(), image.Rect(0, 0, 48, 48); got != want {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
		mask, isGray := m.(*image.Gray)
		if want := len(path) > 9 && path[len(path)-9:] == "_mask.png"; isGray != want {
			t.Errorf("%s: got grey %v, want %v", path, isGray, want)
			continue
		}
		if !isGray {
			if m.ColorModel() != color.RGBAModel {
				t.Errorf("%s: got a colour model other than opaque RGB", path)
			}
			continue
		}
		on := 0
		for _, v := range mask.Pix {
			switch v {
			case 0:
			case 255:
				on++
			default:
				t.Fatalf("%s: got mask value %d, want 0 or 255", path, v)
			}
		}
		if on == 0 || on > len(mask.Pix)/5 {
			t.Errorf("%s: got %d of %d pixels defective, want a few", path, on, len(mask.Pix))
		}
	}
}

func TestDefaults(t *testing.T) {
	set := files(t, &Options{Size: 32})
	counts := map[string]int{}
	for path := range set {
		counts[filepath.Dir(path)]++
	}
	for folder, want := range map[string]int{
		"part/train/good": 60, "part/test/good": 20, "part/test/dent": 8, "part/ground_truth/dent": 8,
		"part/test/missing_hole": 8, "part/test/scratch": 8, "part/test/stain": 8, "texture/train/good": 60, "texture/test/thread": 8,
	} {
		if got := counts[folder]; got != want {
			t.Errorf("%s: got %d files, want %d", folder, got, want)
		}
	}
}

func TestSameFilesForAnyNumberOfWorkers(t *testing.T) {
	opt := Options{Size: 32, Train: 3, TestGood: 2, TestDefect: 2, Seed: 9}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	want := files(t, &opt)
	runtime.GOMAXPROCS(5)
	got := files(t, &opt)
	if !slices.Equal(paths(got), paths(want)) {
		t.Fatalf("got %q, want %q", paths(got), paths(want))
	}
	for path := range want {
		if !bytes.Equal(got[path], want[path]) {
			t.Errorf("%s: got other bytes with 5 workers than with 1", path)
		}
	}

	more := opt
	more.Train, more.Category = 4, "part"
	for path, data := range files(t, &more) {
		if before, ok := want[path]; ok && !bytes.Equal(data, before) {
			t.Errorf("%s: got other bytes when only a count and the category changed", path)
		}
	}

	// Every picture is another one, and so is each under another seed.
	opt.Seed++
	seen := map[string]string{}
	for _, set := range []map[string][]byte{want, files(t, &opt)} {
		for path, data := range set {
			if other, ok := seen[string(data)]; ok {
				t.Errorf("%s and %s: got the same picture twice", other, path)
			}
			seen[string(data)] = path
		}
	}
}

func TestWriteErrors(t *testing.T) {
	for name, opt := range map[string]*Options{
		"category": {Category: "screw"},
		"small":    {Size: 31},
		"large":    {Size: 4097},
		"train":    {Train: -1},
	} {
		dir := t.TempDir()
		if err := Write(dir, opt); !errors.Is(err, setting.ErrValue) {
			t.Errorf("%s: got %v, want %v", name, err, setting.ErrValue)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: got %v, %v left behind, want nothing", name, left, err)
		}
	}
	// Whichever category is there already, nothing joins it.
	for _, category := range []string{"part", "texture"} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, category), 0o777); err != nil {
			t.Fatal(err)
		}
		for _, opt := range []*Options{nil, {Category: category}} {
			if err := Write(dir, opt); !errors.Is(err, fs.ErrExist) {
				t.Errorf("%s exists, options %v: got %v, want %v", category, opt, err, fs.ErrExist)
			}
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("%s exists: got %v, %v, want it alone", category, left, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := Write(file, nil); err == nil {
		t.Error("a file as folder: got no error, want one")
	}
}

func TestNegativeCountsAreNone(t *testing.T) {
	for _, c := range []struct {
		opt  Options
		want []string
	}{
		{Options{TestGood: -1, TestDefect: -1}, []string{"part", "part/train", "part/train/good", "part/train/good/000.png"}},
		{Options{TestGood: 1, TestDefect: -1}, []string{"part", "part/test", "part/test/good", "part/test/good/000.png",
			"part/train", "part/train/good", "part/train/good/000.png"}},
	} {
		c.opt.Category, c.opt.Size, c.opt.Train = "part", 32, 1
		dir := t.TempDir()
		if err := Write(dir, &c.opt); err != nil {
			t.Fatal(err)
		}
		var got []string // with the folders
		err := fs.WalkDir(os.DirFS(dir), ".", func(path string, _ fs.DirEntry, err error) error {
			if path != "." {
				got = append(got, path)
			}
			return err
		})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %q, %v, want %q", c.opt, got, err, c.want)
		}
	}
}

// TestDefectsAreWhereTheMasksSay paints the same object with and without each defect: it must differ clearly inside the
// mask, and less outside, where its shadow, its rim and half-covered pixels lie.
func TestDefectsAreWhereTheMasksSay(t *testing.T) {
	const side = 96
	for _, kind := range kinds {
		for _, defect := range kind.defects {
			for seed := range uint64(4) {
				good := kind.scene(rand.New(rand.NewPCG(seed, 0)), "", 256./side)
				bad := kind.scene(rand.New(rand.NewPCG(seed, 0)), defect, 256./side)
				inside, area, outside := 0.0, 0.0, 0.0
				for i := range side * side {
					x, y := (float64(i%side)+0.5)*256/side, (float64(i/side)+0.5)*256/side
					want, mark := good.at(x, y)
					if mark != 0 {
						t.Fatalf("%s: a good picture has a defect at %g, %g", kind.category, x, y)
					}
					got, mark := bad.at(x, y)
					change := 0.0
					for c := range got {
						change += math.Abs(got[c]-want[c]) / 3
					}
					if mark > 0.5 {
						inside += change
						area++
					} else {
						outside += change
					}
				}
				// 0.12 is 30 of 255 grey levels, ten times the camera's noise; 24 pixels are 170 at the default size.
				if area < 24 || inside/area < 0.12 {
					t.Errorf("%s, %s, seed %d: got %g pixels that change by %.3f, want 24 or more by 0.12", kind.category, defect, seed, area, inside/area)
				}
				if outside > 0.75*inside {
					t.Errorf("%s, %s, seed %d: got a change of %.1f outside the mask, want below three quarters of the %.1f inside", kind.category, defect, seed, outside, inside)
				}
			}
		}
	}
}

func ExampleWrite() {
	dir, err := os.MkdirTemp("", "sample")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	err = Write(dir, &Options{Category: "part", Size: 64, Train: 4, TestGood: 2, TestDefect: 1})
	pictures, _ := filepath.Glob(filepath.Join(dir, "part", "test", "*", "*.png"))
	fmt.Println(len(pictures), err)
	// Output: 6 <nil>
}

func BenchmarkPaint(b *testing.B) {
	for _, kind := range kinds {
		b.Run(kind.category, func(b *testing.B) {
			j := job{path: filepath.Join(b.TempDir(), "0.png"), scene: kind.scene}
			for i := range b.N {
				j.seed = uint64(i)
				if err := j.paint(256); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
