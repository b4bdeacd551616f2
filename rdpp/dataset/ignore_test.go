package dataset

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestIgnore(t *testing.T) {
	for _, c := range []struct {
		name     string
		files    []string // below the data set and the folder of masks
		path     string   // given
		testOnly bool
		want     map[string]string // masks by image
		err      string            // in place of that
	}{
		{name: "one for all", files: []string{"d/good/a.png", "d/bad/b.png", "m.png"}, path: "m.png",
			want: map[string]string{"d/good/a.png": "m.png", "d/bad/b.png": "m.png"}},
		{name: "some have one", files: []string{"d/good/a.png", "d/good/c.png", "d/bad/b.png", "m/a.png", "m/b_mask.png"}, path: "m",
			want: map[string]string{"d/good/a.png": "m/a.png", "d/bad/b.png": "m/b_mask.png"}},
		{name: "in folders like the images", files: []string{"d/good/a.png", "d/bad/a.png", "m/bad/a.png"}, path: "m",
			want: map[string]string{"d/bad/a.png": "m/bad/a.png"}},
		{name: "of several images", files: []string{"d/good/a.png", "d/bad/a.png", "m/a.png"}, path: "m", err: "bad/a.png"},
		{name: "of no image", files: []string{"d/good/a.png", "d/bad/b.png", "m/a.png", "m/x.png"}, path: "m", err: "x.png"},
		{name: "of an image that is not there, in tests", files: []string{"d/good/a.png", "d/bad/b.png", "m/b.png", "m/x.png"}, path: "m",
			testOnly: true, want: map[string]string{"d/bad/b.png": "m/b.png"}},
		{name: "of none", files: []string{"d/good/a.png", "d/bad/b.png", "m/x.png"}, path: "m", testOnly: true, err: "none of the files"},
		{name: "two of one", files: []string{"d/good/a.png", "d/bad/b.png", "m/a.png", "m/a_mask.png"}, path: "m", err: "has another one"},
		{name: "missing", files: []string{"d/good/a.png", "d/bad/b.png"}, path: "m", err: "no such file"},
	} {
		dir := tree(t, c.files...)
		source := Source{Data: filepath.Join(dir, "d")}
		set, err := source.Open(&OpenOptions{Ignore: filepath.Join(dir, c.path), TestOnly: c.testOnly, Holdout: -1})
		if c.err != "" {
			if !errors.Is(err, ErrIgnore) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want a word about %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := map[string]string{}
		for _, item := range slices.Concat(set.Train, set.Test) {
			if item.Ignore != "" {
				got[relativeTo(t, dir, item.Path)] = relativeTo(t, dir, item.Ignore)
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
		for image, mask := range c.want {
			if got[image] != mask {
				t.Errorf("%s, %s: got %q, want %q", c.name, image, got[image], mask)
			}
		}
	}
}

func relativeTo(t *testing.T, dir, path string) string {
	t.Helper()
	short, err := filepath.Rel(dir, path)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.ToSlash(short)
}

// A list names the masks, which are in the fingerprint.
func TestListIgnore(t *testing.T) {
	dir := tree(t, "a.png", "b.png", "m.png", "n.png")
	open := func(mask string) (*Set, error) {
		file := filepath.Join(dir, "list.csv")
		text := "path,label,split,ignore\na.png,good,train," + mask + "\nb.png,good,train,\n"
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return OpenList(file, nil)
	}
	var prints []string
	for _, c := range []struct{ mask, want string }{{"", ""}, {"m.png", filepath.Join(dir, "m.png")}} {
		set, err := open(c.mask)
		if err != nil {
			t.Fatal(err)
		}
		if got := set.Train[0].Ignore; got != c.want || set.Train[1].Ignore != "" {
			t.Errorf("got %q and %q, want %q and none", got, set.Train[1].Ignore, c.want)
		}
		print, err := Fingerprint(set.Train)
		if err != nil {
			t.Fatal(err)
		}
		prints = append(prints, print)
	}
	if prints[0] == prints[1] {
		t.Errorf("got the fingerprint %s with and without a mask", prints[0])
	}
	if _, err := open("gone.png"); !errors.Is(err, ErrMissing) {
		t.Errorf("a mask that is not there: got %v", err)
	}
}

func TestMaskFiles(t *testing.T) {
	dir := tree(t, "a.png", "b_mask.png", "c.txt", "sub/d.png")
	got, err := MaskFiles(dir)
	if err != nil || len(got) != 2 || got["a"] != filepath.Join(dir, "a.png") || got["b"] != filepath.Join(dir, "b_mask.png") {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := MaskFiles(tree(t, "a.png", "a_mask.png")); !errors.Is(err, ErrIgnore) {
		t.Errorf("two of one image: got %v", err)
	}
}
