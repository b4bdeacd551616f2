package dataset

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func containsAll(err error, parts ...string) bool {
	if err == nil {
		return false
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			return false
		}
	}
	return !strings.Contains(err.Error(), "\n")
}

// tree makes a folder named "part" with files, each holding its own name.
func tree(t testing.TB, files ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "part")
	for _, file := range append(files, "") {
		path := filepath.Join(dir, filepath.FromSlash(file))
		if file == "" || strings.HasSuffix(file, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// numbered returns the files dir/000.png and so on.
func numbered(dir string, n int) []string {
	files := make([]string, n)
	for i := range files {
		files[i] = fmt.Sprintf("%s/%03d.png", dir, i)
	}
	return files
}

// short writes an item as "path type mask", relative to dir.
func short(t *testing.T, dir string, items []Item) []string {
	t.Helper()
	var lines []string
	for _, item := range items {
		line := rel(t, dir, item.Path) + " " + item.Type
		if item.Mask != "" {
			line += " " + rel(t, dir, item.Mask)
		}
		if item.Defective != (item.Type != GoodType) {
			t.Errorf("%s: type %s, defective %v", item.Path, item.Type, item.Defective)
		}
		lines = append(lines, line)
	}
	return lines
}

func rel(t *testing.T, dir, path string) string {
	t.Helper()
	r, err := filepath.Rel(dir, path)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.ToSlash(r)
}

func TestOpen(t *testing.T) {
	for _, c := range []struct {
		name        string
		files       []string
		sub         string // opened below the tree
		opt         *OpenOptions
		layout, why string
		train, test []string
		masks       bool
		skipped     []string
	}{
		{
			name: "mvtec with masks",
			files: []string{"train/good/001.png", "train/good/000.png", "test/good/000.png", "test/scratch/000.png", "test/cut/001.jpg",
				"ground_truth/scratch/000_mask.png", "ground_truth/cut/001.png", "ground_truth/good/000_mask.png",
				"train/good/.hidden.png", "train/good/notes.txt", "license.txt"},
			layout: "mvtec", why: "MVTec layout with train/good",
			train: []string{"train/good/000.png good", "train/good/001.png good"},
			test: []string{"test/cut/001.jpg cut ground_truth/cut/001.png", "test/good/000.png good",
				"test/scratch/000.png scratch ground_truth/scratch/000_mask.png"},
			masks: true,
		},
		{
			name:   "mvtec without masks",
			files:  []string{"train/good/000.png", "test/good/000.png", "test/defect/000.png"},
			layout: "mvtec", why: "MVTec layout with train/good",
			train: []string{"train/good/000.png good"},
			test:  []string{"test/defect/000.png defect", "test/good/000.png good"},
		},
		{
			name:   "mvtec without a test set, good named ok",
			files:  []string{"train/ok/000.png"},
			layout: "mvtec", why: "MVTec layout with train/ok",
			train: []string{"train/ok/000.png good"},
		},
		{
			name: "mvtec with bad files left out",
			files: []string{"train/good/000.png", "test/cut/000.png", "test/cut/001.png", "ground_truth/cut/000_mask.png",
				"ground_truth/cut/002_mask.png", "ground_truth/hole/000_mask.png"},
			opt:    &OpenOptions{SkipBad: true},
			layout: "mvtec", why: "MVTec layout with train/good",
			train: []string{"train/good/000.png good"},
			test:  []string{"test/cut/000.png cut ground_truth/cut/000_mask.png"},
			masks: true,
			skipped: []string{"test/cut/001.png " + ErrImageWithoutMask.Error(), "ground_truth/cut/002_mask.png " + ErrMaskWithoutImage.Error(),
				"ground_truth/hole/000_mask.png " + ErrMaskWithoutImage.Error()},
		},
		{
			name: "btad",
			files: []string{"train/ok/0000.bmp", "test/ok/0000.bmp", "test/ko/0001.bmp", "test/ko/0002.png", "ground_truth/ko/0001.png",
				"ground_truth/ko/0002.bmp", "ground_truth/ok/0000.png", "test/ko/Thumbs.db"},
			layout: "btad", why: "BTAD layout with train/ok, test/ok and test/ko",
			train: []string{"train/ok/0000.bmp good"},
			test: []string{"test/ko/0001.bmp ko ground_truth/ko/0001.png", "test/ko/0002.png ko ground_truth/ko/0002.bmp",
				"test/ok/0000.bmp good"},
			masks: true,
		},
		{
			name:   "btad without masks",
			files:  []string{"train/ok/0.bmp", "test/ok/0.bmp", "test/ko/1.bmp"},
			opt:    &OpenOptions{Layout: "btad"},
			layout: "btad", why: "BTAD layout with train/ok, test/ok and test/ko",
			train: []string{"train/ok/0.bmp good"},
			test:  []string{"test/ko/1.bmp ko", "test/ok/0.bmp good"},
		},
		{
			name:   "btad by the name of mvtec",
			files:  []string{"train/ok/0.bmp", "test/ok/0.bmp", "test/ko/1.bmp"},
			opt:    &OpenOptions{Layout: "mvtec"},
			layout: "mvtec", why: "MVTec layout with train/ok",
			train: []string{"train/ok/0.bmp good"},
			test:  []string{"test/ko/1.bmp ko", "test/ok/0.bmp good"},
		},
		{
			name: "oct",
			files: []string{"train/NORMAL/NORMAL-1-1.jpeg", "train/CNV/CNV-1-1.jpeg", "train/DME/DME-1-1.jpeg", "train/DRUSEN/DRUSEN-1-1.jpeg",
				"test/NORMAL/NORMAL-2-1.jpeg", "test/CNV/CNV-2-1.jpeg", "test/DME/DME-2-1.jpeg", "test/DRUSEN/DRUSEN-2-1.jpeg",
				"val/NORMAL/NORMAL-3-1.jpeg", "val/CNV/CNV-3-1.jpeg", "test/.DS_Store", "train/NORMAL/._NORMAL-1-1.jpeg"},
			layout: "oct", why: "retinal OCT layout with train/NORMAL and test/NORMAL, CNV, DME and DRUSEN",
			train: []string{"train/NORMAL/NORMAL-1-1.jpeg good"},
			test: []string{"test/CNV/CNV-2-1.jpeg CNV", "test/DME/DME-2-1.jpeg DME", "test/DRUSEN/DRUSEN-2-1.jpeg DRUSEN",
				"test/NORMAL/NORMAL-2-1.jpeg good"},
		},
		{
			name: "oct with nothing but what is used",
			files: []string{"train/NORMAL/1.jpeg", "test/NORMAL/2.jpeg", "test/CNV/3.jpeg", "test/DME/4.jpeg", "test/DRUSEN/",
				"ground_truth/CNV/5.png"},
			opt:    &OpenOptions{Layout: "oct"},
			layout: "oct", why: "retinal OCT layout with train/NORMAL and test/NORMAL, CNV, DME and DRUSEN",
			train: []string{"train/NORMAL/1.jpeg good"},
			test:  []string{"test/CNV/3.jpeg CNV", "test/DME/4.jpeg DME", "test/NORMAL/2.jpeg good"},
		},
		{
			name:   "part of oct",
			files:  []string{"train/NORMAL/1.jpeg", "train/CNV/2.jpeg", "test/NORMAL/3.jpeg", "test/CNV/4.jpeg"},
			layout: "mvtec", why: "MVTec layout with train/NORMAL",
			train: []string{"train/NORMAL/1.jpeg good"},
			test:  []string{"test/CNV/4.jpeg CNV", "test/NORMAL/3.jpeg good"},
		},
		{
			name: "visa without its split file",
			files: append(numbered("Data/Images/Normal", 3), "Data/Images/Anomaly/000.JPG", "Data/Images/Anomaly/001.JPG",
				"Data/Masks/Anomaly/000.png", "Data/Masks/Anomaly/001.png", "image_anno.csv"),
			opt:    &OpenOptions{Holdout: 0.3},
			layout: "visa", why: "VisA layout with Data/Images/Normal, not listed in ../split_csv/1cls.csv: a folder of good images beside defective ones, " +
				"1 of the good images, evenly spread, held out for testing",
			train: []string{"Data/Images/Normal/000.png good", "Data/Images/Normal/001.png good"},
			test: []string{"Data/Images/Anomaly/000.JPG Anomaly Data/Masks/Anomaly/000.png",
				"Data/Images/Anomaly/001.JPG Anomaly Data/Masks/Anomaly/001.png", "Data/Images/Normal/002.png good"},
			masks: true,
		},
		{
			name:   "folders by name, beside mvtec's",
			files:  []string{"train/good/000.png", "ok/001.png"},
			opt:    &OpenOptions{Layout: "folders"},
			layout: "folders", why: "a folder of good images",
			train: []string{"ok/001.png good"},
		},
		{
			name:   "plain by name, beside data sets",
			files:  []string{"a.png", "bolt/good/a.png"},
			opt:    &OpenOptions{Layout: "plain"},
			layout: "plain", why: "a plain folder of images, all taken as good",
			train: []string{"a.png good"},
		},
		{
			name:   "folders, held out by default",
			files:  append(numbered("OK", 7), "scratch/a.png", "empty/", "dent/b.png"),
			layout: "folders", why: "a folder of good images beside defective ones, 1 of the good images, evenly spread, held out for testing",
			train: []string{"OK/000.png good", "OK/001.png good", "OK/002.png good", "OK/003.png good", "OK/004.png good", "OK/005.png good"},
			test:  []string{"OK/006.png good", "dent/b.png dent", "scratch/a.png scratch"},
		},
		{
			name:   "folders, half held out, with masks",
			files:  append(numbered("normal", 4), "bad/a.png", "ground_truth/bad/a_mask.png", "ground_truth/readme.txt"),
			opt:    &OpenOptions{Holdout: 0.5},
			layout: "folders", why: "a folder of good images beside defective ones, 2 of the good images, evenly spread, held out for testing",
			train: []string{"normal/000.png good", "normal/002.png good"},
			test:  []string{"bad/a.png bad ground_truth/bad/a_mask.png", "normal/001.png good", "normal/003.png good"},
			masks: true,
		},
		{
			name:   "folders, none held out",
			files:  append(numbered("good", 2), "bad/a.png"),
			opt:    &OpenOptions{Holdout: -1},
			layout: "folders", why: "a folder of good images beside defective ones, 0 of the good images, evenly spread, held out for testing",
			train: []string{"good/000.png good", "good/001.png good"},
			test:  []string{"bad/a.png bad"},
		},
		{
			name:   "folders, the only good image is never held out",
			files:  []string{"good/000.png", "bad/a.png"},
			layout: "folders", why: "a folder of good images beside defective ones, 0 of the good images, evenly spread, held out for testing",
			train: []string{"good/000.png good"},
			test:  []string{"bad/a.png bad"},
		},
		{
			name:   "the good folder itself, with a sibling",
			files:  append(numbered("good", 2), "bad/a.png"),
			sub:    "good",
			layout: "folders", why: "a folder of good images beside defective ones, 1 of the good images, evenly spread, held out for testing",
			train: []string{"good/000.png good"},
			test:  []string{"bad/a.png bad", "good/001.png good"},
		},
		{
			name:   "only good",
			files:  numbered("good", 2),
			layout: "folders", why: "a folder of good images",
			train: []string{"good/000.png good", "good/001.png good"},
		},
		{
			name:   "plain",
			files:  []string{"b.png", "a.jpg", "readme.txt", ".c.png"},
			layout: "plain", why: "a plain folder of images, all taken as good",
			train: []string{"a.jpg good", "b.png good"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree(t, c.files...)
			set, err := Open(filepath.Join(dir, c.sub), c.opt)
			if err != nil {
				t.Fatal(err)
			}
			if got := short(t, dir, set.Train); !slices.Equal(got, c.train) {
				t.Errorf("train: got %q, want %q", got, c.train)
			}
			if got := short(t, dir, set.Test); !slices.Equal(got, c.test) {
				t.Errorf("test: got %q, want %q", got, c.test)
			}
			if set.Category != "part" || set.Layout != c.layout || set.Why != c.why || set.HasMasks != c.masks {
				t.Errorf("got %s, %s, masks %v, %q\nwant part, %s, masks %v, %q", set.Category, set.Layout, set.HasMasks, set.Why, c.layout, c.masks, c.why)
			}
			if len(set.Skipped) != len(c.skipped) {
				t.Fatalf("skipped: got %v, want %v", set.Skipped, c.skipped)
			}
			for i, skip := range set.Skipped {
				path, reason, _ := strings.Cut(c.skipped[i], " ")
				if rel(t, dir, skip.Path) != path || !strings.Contains(skip.Reason, reason) {
					t.Errorf("skipped: got %v, want %s", skip, c.skipped[i])
				}
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		sub   string
		opt   *OpenOptions
		want  error
		names string // the path that the message must name
	}{
		{name: "missing folder", sub: "nowhere", want: ErrNoFolder, names: "nowhere"},
		{name: "a file", files: []string{"a.png"}, sub: "a.png", want: ErrNoFolder, names: "a.png"},
		{name: "empty folder", want: ErrEmpty, names: "part"},
		{name: "no images", files: []string{"readme.txt", "good/readme.txt"}, want: ErrEmpty, names: "part"},
		{name: "no good images", files: []string{"train/good/", "test/bad/a.png"}, want: ErrNoGood, names: "part"},
		{name: "only defective folders", files: []string{"good/", "bad/a.png"}, want: ErrNoGood, names: "part"},
		{name: "a collection", files: []string{"bolt/train/good/a.png", "nut/ok/a.png"}, want: ErrCategories, names: "bolt, nut"},
		{name: "a collection beside images", files: []string{"bolt/train/good/a.png", "overview.png"}, want: ErrCategories, names: "bolt"},
		{name: "a collection by a layout's name", files: []string{"01/train/ok/a.png", "01/test/ok/a.png", "01/test/ko/a.png"},
			opt: &OpenOptions{Layout: "btad"}, want: ErrCategories, names: "choose one of 01"},
		{name: "nothing recognised", files: []string{"train/ok.png", "test/ko/a.png"}, want: ErrUnrecognised,
			names: "it holds test (1 image), train (1 image); of the layouts, btad lacks train/ok, test/ok; oct lacks train/NORMAL, test/NORMAL, test/CNV, test/DME, test/DRUSEN; mvtec lacks train/good; " +
				"visa lacks Data/Images/Normal; folders lacks a sub-folder named good, ok or normal; plain lacks images directly in the folder"},
		{name: "not btad", files: []string{"train/ok/a.png", "test/ok/a.png"}, opt: &OpenOptions{Layout: "btad"}, want: ErrLayout, names: "btad lacks test/ko;"},
		{name: "not oct", files: []string{"train/NORMAL/a.png", "test/NORMAL/a.png", "test/CNV/a.png", "test/DME"}, opt: &OpenOptions{Layout: "oct"},
			want: ErrLayout, names: "oct lacks test/DME, test/DRUSEN;"},
		{name: "not mvtec", files: []string{"good/a.png"}, opt: &OpenOptions{Layout: "mvtec"}, want: ErrLayout, names: "mvtec lacks train/good;"},
		{name: "not visa", files: []string{"Data/Images/Anomaly/a.png"}, opt: &OpenOptions{Layout: "visa"}, want: ErrLayout, names: "visa lacks Data/Images/Normal;"},
		{name: "not folders", files: []string{"a.png"}, opt: &OpenOptions{Layout: "folders"}, want: ErrLayout, names: "folders lacks a sub-folder named good"},
		{name: "not plain", files: []string{"readme.txt"}, opt: &OpenOptions{Layout: "plain"}, want: ErrLayout, names: "plain lacks images directly"},
		{name: "btad without good images", files: []string{"train/ok/", "test/ok/", "test/ko/a.bmp"}, want: ErrNoGood, names: "part"},
		{name: "btad without images", files: []string{"train/ok/", "test/ok/", "test/ko/"}, want: ErrEmpty, names: "btad"},
		{name: "btad's mask without image", files: []string{"train/ok/a.bmp", "test/ok/a.bmp", "test/ko/a.bmp", "ground_truth/ko/a.bmp", "ground_truth/ko/b.png"},
			want: ErrMaskWithoutImage, names: filepath.Join("ko", "b.png")},
		{name: "mask without image", files: []string{"train/good/a.png", "test/cut/a.png", "ground_truth/cut/a.png", "ground_truth/cut/b_mask.png"},
			want: ErrMaskWithoutImage, names: "b_mask.png"},
		{name: "masks without any image", files: []string{"train/good/a.png", "ground_truth/cut/b_mask.png"}, want: ErrMaskWithoutImage, names: "b_mask.png"},
		{name: "image without mask", files: []string{"train/good/a.png", "test/cut/a.png", "test/cut/b.png", "ground_truth/cut/a.png"},
			want: ErrImageWithoutMask, names: filepath.Join("cut", "b.png")},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(filepath.Join(tree(t, c.files...), c.sub), c.opt)
			if !errors.Is(err, c.want) || !containsAll(err, "dataset: ", c.names) {
				t.Errorf("got error %v, want %v naming %s", err, c.want, c.names)
			}
		})
	}
	if _, err := Open(tree(t, "a.png"), &OpenOptions{Holdout: 1}); !containsAll(err, "Holdout") {
		t.Errorf("holding all out: got error %v, want one naming Holdout", err)
	}
	if _, err := Open(tree(t, "a.png"), &OpenOptions{Layout: "coco"}); !containsAll(err, `"coco"`, strings.Join(Layouts(), ", ")) {
		t.Errorf("unknown layout: got error %v, want one with its name and all others", err)
	}
}

func TestCategories(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		want  []string
	}{
		{"a root", []string{"nut/train/good/a.png", "bolt/OK/a.png", "notes/a.png", "overview.png", ".cache/good/a.png"}, []string{"bolt", "nut"}},
		{"a set", []string{"train/good/a.png", "test/good/a.png", "test/bad/a.png"}, nil},
		{"a good folder and siblings", []string{"good/a.png", "bad/a.png"}, nil},
		{"btad", []string{"01/train/ok/a.bmp", "01/test/ok/a.bmp", "01/test/ko/a.bmp", "02/train/ok/a.png", "02/test/ok/a.png", "02/test/ko/a.png"}, []string{"01", "02"}},
		{"a folder with oct", []string{"OCT2017 /train/NORMAL/a.jpeg", "OCT2017 /test/NORMAL/a.jpeg", "OCT2017 /test/CNV/a.jpeg", "OCT2017 /test/DME/a.jpeg",
			"OCT2017 /test/DRUSEN/a.jpeg"}, []string{"OCT2017 "}},
		{"oct", []string{"train/NORMAL/a.jpeg", "test/NORMAL/a.jpeg", "test/CNV/a.jpeg", "test/DME/a.jpeg", "test/DRUSEN/a.jpeg", "val/NORMAL/a.jpeg"}, nil},
		{"visa", []string{"pcb1/Data/Images/Normal/a.JPG", "candle/Data/Images/Normal/a.JPG", "split_csv/readme.txt"}, []string{"candle", "pcb1"}},
		{"visa with a damaged split file", []string{"pcb1/Data/Images/Normal/a.JPG", "split_csv/1cls.csv"}, []string{"pcb1"}},
		{"plain", []string{"a.png"}, nil},
		{"empty", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Categories(tree(t, c.files...))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
	if _, err := Categories(filepath.Join(tree(t), "nowhere")); !errors.Is(err, ErrNoFolder) {
		t.Errorf("missing folder: got error %v, want %v", err, ErrNoFolder)
	}
}

func TestOthers(t *testing.T) {
	dir := tree(t, "nut/train/good/a.png", "bolt/OK/a.png", "notes/a.png", "notes/b/c.png", "papers/x.pdf", "overview.png")
	got, err := Others(dir)
	if want := []string{"notes (2 images)"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := Others(filepath.Join(dir, "nowhere")); !errors.Is(err, ErrNoFolder) {
		t.Errorf("missing folder: got error %v, want %v", err, ErrNoFolder)
	}
}

func TestOpenFollowsLinks(t *testing.T) {
	dir := tree(t, "good/a.png")
	link := tree(t, "x.txt")
	if err := os.Symlink(filepath.Join(dir, "good"), filepath.Join(link, "good")); err != nil {
		t.Fatal(err)
	}
	set, err := Open(link, nil)
	if err != nil || len(set.Train) != 1 {
		t.Errorf("got %v, %v, want one image behind the link", set, err)
	}
}

func TestHoldOut(t *testing.T) {
	for _, c := range []struct {
		n     int
		share float64
		want  []int
	}{
		{0, 0.2, nil}, {1, 0.9, nil}, {2, 0.2, []int{1}}, {10, 0.2, []int{4, 9}}, {10, 0.3, []int{3, 6, 9}},
		{4, 0.99, []int{1, 2, 3}}, {10, -1, nil},
	} {
		items := make([]Item, c.n)
		for i := range items {
			items[i].Path = fmt.Sprint(i)
		}
		kept, held := holdOut(items, c.share)
		var got []int
		for _, item := range held {
			var i int
			fmt.Sscan(item.Path, &i)
			got = append(got, i)
		}
		if !slices.Equal(got, c.want) || len(kept)+len(held) != c.n {
			t.Errorf("%d items, share %v: got %v held, %d kept, want %v", c.n, c.share, got, len(kept), c.want)
		}
	}
}

func TestFingerprint(t *testing.T) {
	// In a folder made by tree: sha256sum a/1.png a/2.png b.png | sha256sum
	const want = "ef542b63790a7209583d3301ea9d011b65143977bfaf0142b2bbff82c1abca89"
	files := []string{"a/1.png", "a/2.png", "b.png"}
	fingerprint := func(dir string, order ...int) string {
		var items []Item
		for _, i := range order {
			items = append(items, Item{Path: filepath.Join(dir, filepath.FromSlash(files[i]))})
		}
		sum, err := Fingerprint(items)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	dir := tree(t, files...)
	if got := fingerprint(dir, 0, 1, 2); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := fingerprint(tree(t, files...), 2, 0, 1); got != want {
		t.Errorf("moved and shuffled: got %s, want %s", got, want)
	}
	if got := fingerprint(dir, 0, 1); got == want {
		t.Errorf("one image less: got the same %s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "b.png"), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := fingerprint(dir, 0, 1, 2); got == want {
		t.Errorf("changed content: got the same %s", got)
	}

	if _, err := Fingerprint(nil); !errors.Is(err, ErrEmpty) {
		t.Errorf("no items: got error %v, want %v", err, ErrEmpty)
	}
	if _, err := Fingerprint([]Item{{Path: filepath.Join(dir, "gone.png")}}); !errors.Is(err, os.ErrNotExist) || !containsAll(err, "gone.png") {
		t.Errorf("missing file: got error %v, want one naming gone.png", err)
	}
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	for _, file := range []string{"good/1.png", "good/2.png", "scratched/1.png"} {
		path := filepath.Join(dir, filepath.FromSlash(file))
		os.MkdirAll(filepath.Dir(path), 0o755)
		os.WriteFile(path, nil, 0o644)
	}

	set, err := Open(dir, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(set.Why)
	// Output: a folder of good images beside defective ones, 1 of the good images, evenly spread, held out for testing
}

// TestSkipJSON: a path that JSON cannot hold leads back to its file by a second field.
func TestSkipJSON(t *testing.T) {
	for _, c := range []struct {
		skip Skip
		want string
	}{
		{Skip{Path: "a/ü.png", Reason: "damaged"}, `{"Path":"a/ü.png","Reason":"damaged"}`},
		{Skip{Path: "a/\xfc.png", Reason: "damaged"}, `{"Path":"a/\ufffd.png","Reason":"damaged","PathBase64":"YS/8LnBuZw=="}`},
	} {
		got, err := json.Marshal(c.skip)
		if err != nil || string(got) != c.want {
			t.Errorf("%q: got %s, %v, want %s", c.skip.Path, got, err, c.want)
		}
	}
}
