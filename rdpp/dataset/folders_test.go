package dataset

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// in returns a folder's sub-folders.
func in(dir string, names ...string) (dirs []string) {
	for _, name := range names {
		dirs = append(dirs, filepath.Join(dir, name))
	}
	return dirs
}

func TestOpenFolders(t *testing.T) {
	factory := slices.Concat(numbered("gut", 5), []string{"schlecht/0.png", "schlecht/1.png", "masken/0.png", "masken/1_mask.png"})
	for _, c := range []struct {
		name                       string
		files                      []string
		good, bad, testGood, masks []string
		opt                        *OpenOptions
		category                   string
		test                       []string
		taken                      string
		err                        error
		named                      string
	}{
		{name: "good alone", files: factory, good: []string{"gut"}, taken: "train 5 good | no test images | nothing left out"},
		{name: "good and bad", files: factory, good: []string{"gut"}, bad: []string{"schlecht"},
			test:  []string{"gut/004.png good", "schlecht/0.png schlecht", "schlecht/1.png schlecht"},
			taken: "train 4 good | test 1 good, 2 defective (schlecht 2) | no masks | nothing left out"},
		{name: "with masks", files: factory, good: []string{"gut"}, bad: []string{"schlecht"}, masks: []string{"masken"}, category: "deckel",
			test:  []string{"gut/004.png good", "schlecht/0.png schlecht masken/0.png", "schlecht/1.png schlecht masken/1_mask.png"},
			taken: "train 4 good | test 1 good, 2 defective (schlecht 2) | masks 2 in masken | nothing left out"},
		{name: "dates and cameras", files: []string{"0501/a.png", "0502/b.png", "0502/cam1/c.png", "0503/d.png", "rej/kratzer/e.png"},
			good: []string{"0501", "0502"}, testGood: []string{"0503"}, bad: []string{"rej"},
			test:  []string{"0503/d.png good", "rej/kratzer/e.png rej/kratzer"},
			taken: "train 2 good | test 1 good, 1 defective (rej/kratzer 1) | no masks | left out: 1 image in 0502/cam1/ (subfolders: recursive)"},
		{name: "dates and cameras, recursive", files: []string{"0501/a.png", "0502/b.png", "0502/cam1/c.png", "0503/d.png", "rej/e.png", "rej/kratzer/e.png"},
			good: []string{"0501", "0502"}, testGood: []string{"0503"}, bad: []string{"rej"}, opt: &OpenOptions{Recursive: true},
			test:  []string{"0503/d.png good", "rej/e.png rej", "rej/kratzer/e.png rej/kratzer"},
			taken: "train 3 good | test 1 good, 2 defective (rej 1, rej/kratzer 1) | no masks | nothing left out"},
		{name: "to test alone", files: factory, testGood: []string{"gut"}, bad: []string{"schlecht"}, opt: &OpenOptions{TestOnly: true},
			test: []string{"gut/000.png good", "gut/001.png good", "gut/002.png good", "gut/003.png good", "gut/004.png good", "schlecht/0.png schlecht",
				"schlecht/1.png schlecht"},
			taken: "train 0 good | test 5 good, 2 defective (schlecht 2) | no masks | nothing left out"},
		{name: "what is no image", files: append([]string{"gut/readme.txt", "gut/.x", "gut/000_heatmap.png"}, numbered("gut", 1)...), good: []string{"gut"},
			taken: "train 1 good | no test images | left out: 1 heat map of infer image, 1 file of no image type, 1 hidden file"},

		{name: "nothing", files: factory, err: ErrNoGood, named: "name those"},
		{name: "no good ones", files: factory, bad: []string{"schlecht"}, err: ErrNoGood, named: "no good images"},
		{name: "a folder that is not there", files: factory, good: []string{"gut", "besser"}, err: ErrNoFolder, named: "besser"},
		{name: "an empty one", files: append(factory, "leer/x.txt"), good: []string{"leer"}, err: ErrNoGood, named: "leer"},
		{name: "all in sub-folders", files: []string{"ok/cam/0.png"}, good: []string{"ok"}, err: ErrNoGood, named: "take them with recursive"},
		{name: "twice", files: factory, good: []string{"gut", "gut"}, err: ErrTwice, named: "gut/000.png"},
		{name: "good and bad the same", files: factory, good: []string{"gut"}, bad: []string{"gut"}, err: ErrTwice, named: "gut/000.png"},
		{name: "one inside another", files: []string{"a/0.png", "a/b/1.png"}, good: []string{"a", "a/b"}, opt: &OpenOptions{Recursive: true}, err: ErrTwice, named: "b/1.png"},
		{name: "exchanged", files: []string{"ok/0.png", "ng/0.png"}, good: []string{"ng"}, bad: []string{"ok"}, err: ErrLayout, named: "exchange the two"},
		{name: "all in sub-folders", files: []string{"gut/mo/0.png", "gut/di/0.png", "schlecht/0.png"}, good: []string{"gut"}, bad: []string{"schlecht"}, err: ErrNoGood,
			named: "sub-folders: di (1 image), mo (1 image); take them with recursive"},
		{name: "masks of other names", files: factory, good: []string{"gut"}, bad: []string{"schlecht"}, masks: []string{"gut"}, err: ErrImageWithoutMask, named: "gut"},
		{name: "a mask too many", files: append(factory, "masken/2.png"), good: []string{"gut"}, bad: []string{"schlecht"}, masks: []string{"masken"},
			err: ErrMaskWithoutImage, named: "masken/2.png"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree(t, c.files...)
			f := Folders{Good: in(dir, c.good...), Bad: in(dir, c.bad...), TestGood: in(dir, c.testGood...), Masks: in(dir, c.masks...), Category: c.category}
			set, err := OpenFolders(f, c.opt)
			if c.err != nil {
				if !errors.Is(err, c.err) || !containsAll(err, "dataset: ", c.named) {
					t.Errorf("got error %v, want %v naming %s", err, c.err, c.named)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := short(t, dir, set.Test); !slices.Equal(got, c.test) {
				t.Errorf("test: got %q, want %q", got, c.test)
			}
			if got := set.Taken().String(); got != c.taken {
				t.Errorf("got  %s\nwant %s", got, c.taken)
			}
			if category := c.category; set.Layout != "named" || set.Category != category && (category != "" || set.Category != "part") {
				t.Errorf("got layout %s, category %s, want named, %s", set.Layout, set.Category, c.category)
			}
		})
	}
	if _, err := OpenFolders(Folders{Good: []string{"x"}}, &OpenOptions{Holdout: 1}); !containsAll(err, "Holdout") {
		t.Errorf("holding all out: got error %v, want one naming Holdout", err)
	}
}

func TestFolderAround(t *testing.T) {
	for _, c := range []struct {
		dirs string
		want string
	}{
		{"/d/screw/gut", "/d/screw"}, {"/d/screw/gut /d/screw/schlecht/", "/d/screw"}, {"/d/a/b /d/ab", "/d"}, {"/d/a /e", "/"}, {"/", "/"},
	} {
		if got := folderAround(strings.Fields(c.dirs)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.dirs, got, c.want)
		}
	}
}

func TestSource(t *testing.T) {
	dir := tree(t, "gut/0.png", "gut/1.png", "schlecht/0.png", "schlecht/1.png", "list.csv", "masks/0.png")
	good, bad := in(dir, "gut"), in(dir, "schlecht")
	for _, c := range []struct {
		name     string
		source   Source
		testOnly bool
		want     error
		named    string
	}{
		{"nothing", Source{}, false, ErrSource, "data is missing; name the images with it, or with good DIR bad DIR, or list FILE"},
		{"all", Source{Data: dir, Folders: Folders{Good: good}}, false, ErrSource, "exclude each other"},
		{"a folder and a list", Source{Data: dir, List: "x"}, false, ErrSource, "exclude each other"},
		{"no good ones", Source{Folders: Folders{Bad: bad}}, false, ErrSource, "with good"},
		{"no good ones to test", Source{Folders: Folders{Bad: bad}}, true, nil, ""},
		{"masks of nothing", Source{Folders: Folders{Good: good, Masks: bad}}, false, ErrSource, "with bad"},
		{"masks alone", Source{Folders: Folders{Masks: bad}}, true, ErrSource, "with bad"},
		{"an unrecognised folder", Source{Data: dir}, false, ErrUnrecognised, "name the folders: good DIR bad DIR, or list the images: list FILE; dataset: "},
		{"a bad file", Source{Folders: Folders{Good: good, Bad: bad, Masks: in(dir, "masks")}}, false, ErrImageWithoutMask, "skip_bad leaves"},
		{"a bad list", Source{List: filepath.Join(dir, "list.csv")}, false, ErrList, "line 1"},
	} {
		err := c.source.Check(c.testOnly)
		if err == nil {
			_, err = c.source.Open(&OpenOptions{TestOnly: c.testOnly})
		}
		if !errors.Is(err, c.want) || c.want != nil && !containsAll(err, c.named) {
			t.Errorf("%s: got error %v, want %v naming %s", c.name, err, c.want, c.named)
		}
	}
	// The remedy comes first, what the layouts lack last.
	_, err := (&Source{Data: dir}).Open(nil)
	if err == nil || !strings.HasPrefix(err.Error(), "name the folders: good DIR bad DIR") || !containsAll(err, "gut (2 images), masks (1 image), schlecht (2 images)") {
		t.Errorf("got error %v, want one that begins with what to do", err)
	}
	set, err := (&Source{Folders: Folders{Good: good, Category: "lid"}}).Open(nil)
	if err != nil || set.Category != "lid" {
		t.Errorf("got %+v, %v, want the category lid", set, err)
	}
}
