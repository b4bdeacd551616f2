package dataset

import (
	"context"
	"errors"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/imagefile"
)

// drawing is a mask of w x h pixels with its middle drawn.
func drawing(w, h int) *image.Gray {
	m := image.NewGray(image.Rect(0, 0, w, h))
	for y := h / 4; y < h-h/4; y++ {
		for x := w / 4; x < w-w/4; x++ {
			m.SetGray(x, y, color.Gray{Y: 255})
		}
	}
	return m
}

// plate is a mask that is grey all over.
func plate(w, h int, grey uint8) *image.Gray {
	m := image.NewGray(image.Rect(0, 0, w, h))
	for i := range m.Pix {
		m.Pix[i] = grey
	}
	return m
}

func inverted(m *image.Gray) *image.Gray {
	for i := range m.Pix {
		m.Pix[i] = ^m.Pix[i]
	}
	return m
}

// writeHeatmap draws a heat map of this program.
func writeHeatmap(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(imagefile.EncodeHeatmap(f, drawing(8, 8)), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// linkInto makes a link in a folder, which is made where missing.
func linkInto(t testing.TB, folder, path string) {
	t.Helper()
	err := os.MkdirAll(folder, 0o755)
	if err == nil {
		err = os.Symlink(path, filepath.Join(folder, filepath.Base(path)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheckMasks(t *testing.T) {
	const w, h = 40, 30
	corner := inverted(drawing(w, h)) // and yet one corner is black
	corner.Pix[0] = 0
	edge := inverted(drawing(w, h)) // of a defect that reaches the border
	for y := range h / 2 {
		edge.Pix[y*edge.Stride] = 0
	}
	around := inverted(drawing(w, h)) // half of the border
	for y := range h / 2 {
		clear(around.Pix[y*around.Stride:][:w])
	}
	for y := h / 2; y < h; y++ {
		for x := range w {
			around.Pix[y*around.Stride+x] = 255
		}
	}
	around.Pix[h/2*around.Stride-1] = 255 // more than half of the picture
	for _, c := range []struct {
		name string
		mask image.Image
		want error
	}{
		{"plain", drawing(w, h), nil},
		{"half as large", drawing(w/2, h/2), nil},
		{"rounded", drawing(13, 10), nil},
		{"rounded up", drawing(14, 10), nil},
		{"three times as large", drawing(3*w, 3*h), nil},
		{"most of it, but a side", around, nil},
		{"black", plate(w, h, 0), ErrMaskEmpty},
		{"white", plate(w, h, 255), ErrMaskFull},
		{"grey", plate(w, h, 7), ErrMaskFull},
		{"inverted", inverted(drawing(w, h)), ErrMaskInverted},
		{"inverted, black in a corner too", corner, ErrMaskInverted},
		{"inverted, of a defect at the border", edge, ErrMaskInverted},
		{"half as wide", drawing(w/2, h), ErrMaskShape},
		{"turned", drawing(h, w), ErrMaskShape},
		{"a square", drawing(64, 64), ErrMaskShape},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			good := Item{Path: filepath.Join(dir, "good.png"), Type: GoodType}
			bad := Item{Path: filepath.Join(dir, "bad.png"), Mask: filepath.Join(dir, "mask.png"), Type: "dent", Defective: true}
			writeRGB(t, good.Path, "good", w, h)
			writeRGB(t, bad.Path, "bad", w, h)
			writePNG(t, bad.Mask, c.mask)
			items := []Item{good, bad}
			is := func(what string, err error) {
				t.Helper()
				if !errors.Is(err, c.want) || c.want != nil && !containsAll(err, "dataset: ", bad.Mask, "draw ") {
					t.Errorf("%s: got error %v, want %v naming %s", what, err, c.want, bad.Mask)
				}
			}
			ctx := context.Background()
			_, _, err := Check(ctx, items, nil, 0, false)
			is("Check", err)
			is("CheckMasks", CheckMasks(ctx, items, 0))
			_, err = NewCache(CacheOptions{Size: 16}).Mask(bad)
			is("Mask", err)
			left, skipped, err := Check(ctx, items, nil, 0, true)
			wantLeft := 2
			if c.want != nil {
				wantLeft = 1
			}
			if err != nil || len(left) != wantLeft || len(skipped) != 2-wantLeft || wantLeft == 1 && left[0] != good {
				t.Errorf("skipping: got %v, skipped %v, error %v, want %d left", left, skipped, err, wantLeft)
			}
		})
	}
}

// A mask in a file of several ways of drawing gives the same pixels, and those
// of a folder are one together.
func TestReadMask(t *testing.T) {
	const S = 20
	dir := t.TempDir()
	white := drawing(40, 40)
	write := func(name string, m image.Image) string {
		path := filepath.Join(dir, name)
		writePNG(t, path, m)
		return path
	}
	want, err := ReadMask(write("white.png", white), S, nil)
	if err != nil || positive(want) != S*S/4 {
		t.Fatalf("got %d pixels, %v, want a quarter of %d", positive(want), err, S*S)
	}
	left, right := image.NewGray(white.Rect), image.NewGray(white.Rect)
	numbers := image.NewGray16(white.Rect)
	for y := range 40 {
		for x := range 40 {
			if white.GrayAt(x, y).Y == 0 {
				continue
			}
			half, at := left, uint8(1+x)
			if x >= 20 {
				half = right
			}
			half.SetGray(x, y, color.Gray{Y: at})
			numbers.SetGray16(x, y, color.Gray16{Y: uint16(at)})
		}
	}
	folder := filepath.Join(dir, "000")
	for name, m := range map[string]image.Image{"000.png": left, "001.png": right} {
		path := filepath.Join(tree(t), name)
		writePNG(t, path, m)
		linkInto(t, folder, path)
	}
	for _, path := range []string{write("numbers.png", numbers), folder} {
		if got, err := ReadMask(path, S, nil); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %d pixels, error %v, want those of the white mask, %d", path, positive(got), err, positive(want))
		}
	}

	path := write("other.png", drawing(20, 40))
	linkInto(t, folder, path)
	if _, err := ReadMask(folder, S, nil); !errors.Is(err, ErrMaskShape) || !containsAll(err, "other.png") {
		t.Errorf("two shapes: got error %v, want %v naming other.png", err, ErrMaskShape)
	}
	if _, err := ReadMask(tree(t, "x.txt"), S, nil); !containsAll(err, "folder without a mask") {
		t.Errorf("folder without a mask: got error %v", err)
	}
	gone := filepath.Join(dir, "gone.png")
	if _, err := ReadMask(gone, 8, nil); !containsAll(err, "dataset: ", gone) {
		t.Errorf("missing file: got error %v, want one naming %s", err, gone)
	}
	if _, err := ReadMask(gone, 0, nil); err == nil {
		t.Error("size 0: got no error")
	}
}

// A heat map of this program among the photographs is no photograph.
func TestCheckHeatmap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "renamed.png")
	writeHeatmap(t, path)
	if _, _, err := Check(context.Background(), []Item{{Path: path, Type: GoodType}}, nil, 0, false); !errors.Is(err, ErrHeatmap) || !containsAll(err, path) {
		t.Errorf("got error %v, want %v naming %s", err, ErrHeatmap, path)
	}
}

func TestPairing(t *testing.T) {
	train := []string{"train/good/000.png", "test/good/000.png"}
	for _, c := range []struct {
		name  string
		files []string
		want  []string // "image mask" of the defective test images
		err   error
		named string   // in the error
		left  []string // of Skipped
	}{
		{name: "flat, one type", files: append(train, "test/dent/000.png", "test/dent/001.png", "ground_truth/000.png", "ground_truth/001_mask.png"),
			want: []string{"test/dent/000.png ground_truth/000.png", "test/dent/001.png ground_truth/001_mask.png"}},
		{name: "flat, for two images", files: append(train, "test/dent/000.png", "test/stain/000.png", "ground_truth/000.png"),
			err: ErrSharedMask, named: "ground_truth/000.png", left: []string{"test/dent/000.png", "test/stain/000.png"}},
		{name: "flat, names of all types", files: append(train, "test/dent/a.png", "test/stain/b.png", "masks/a.png", "masks/b.png"),
			want: []string{"test/dent/a.png masks/a.png", "test/stain/b.png masks/b.png"}},
		{name: "loco", files: append(train, "test/logical/000.png", "test/structural/000.png", "test/structural/001.png", "ground_truth/logical/000/000.png",
			"ground_truth/structural/000/000.png", "ground_truth/structural/000/001.png", "ground_truth/structural/001/000.png"),
			want: []string{"test/logical/000.png ground_truth/logical/000", "test/structural/000.png ground_truth/structural/000",
				"test/structural/001.png ground_truth/structural/001"}},
		{name: "loco, flat", files: append(train, "test/dent/000.png", "ground_truth/000/000.png"), want: []string{"test/dent/000.png ground_truth/000"}},
		{name: "types that are numbers", files: append(train, "test/1/1.png", "test/1/2.png", "ground_truth/1/1.png", "ground_truth/1/2.png"),
			want: []string{"test/1/1.png ground_truth/1/1.png", "test/1/2.png ground_truth/1/2.png"}},
		{name: "two masks", files: append(train, "test/dent/000.png", "test/dent/001.png", "ground_truth/dent/000.png", "ground_truth/dent/000_mask.png", "ground_truth/dent/001.png"),
			err: ErrTwoMasks, named: "dent/000.png", left: []string{"test/dent/000.png"}, want: []string{"test/dent/001.png ground_truth/dent/001.png"}},
		{name: "two folders of masks", files: append(train, "test/dent/000.png", "ground_truth/dent/000.png", "masks/dent/000.png"),
			err: ErrTwoMasks, named: "masks/dent/000.png", left: []string{"test/dent/000.png"}},
		{name: "one mask for two images", files: append(train, "test/dent/000.jpg", "test/dent/000.png", "test/dent/001.png", "ground_truth/dent/000_mask.png", "ground_truth/dent/001.png"),
			err: ErrSharedMask, named: "dent/000_mask.png", left: []string{"test/dent/000.jpg", "test/dent/000.png"}, want: []string{"test/dent/001.png ground_truth/dent/001.png"}},
		{name: "the image's extension in the mask's name", files: append(train, "test/dent/000.jpg", "test/dent/000.bmp", "ground_truth/dent/000.jpg.png", "ground_truth/dent/000.bmp.png"),
			want: []string{"test/dent/000.bmp ground_truth/dent/000.bmp.png", "test/dent/000.jpg ground_truth/dent/000.jpg.png"}},
		{name: "words of all kinds", files: append(train, "test/dent/a.png", "test/dent/b.png", "test/dent/c.png", "test/dent/d.png", "ground_truth/dent/a_GT.png",
			"ground_truth/dent/b-label.png", "ground_truth/dent/mask_c.png", "ground_truth/dent/d.mask.png"),
			want: []string{"test/dent/a.png ground_truth/dent/a_GT.png", "test/dent/b.png ground_truth/dent/b-label.png", "test/dent/c.png ground_truth/dent/mask_c.png",
				"test/dent/d.png ground_truth/dent/d.mask.png"}},
		{name: "beside the image", files: append(train, "test/dent/000.png", "test/dent/000_mask.png", "test/dent/001.png", "test/dent/001_label.bmp"),
			want: []string{"test/dent/000.png test/dent/000_mask.png", "test/dent/001.png test/dent/001_label.bmp"}},
		{name: "masks of good images", files: append(train, "test/dent/000.png", "ground_truth/dent/000.png", "ground_truth/good/000.png", "ground_truth/good/001.png"),
			want: []string{"test/dent/000.png ground_truth/dent/000.png"}},
		{name: "masks of nothing but good images", files: append(train, "test/dent/007.png", "masks/000.png"), want: []string{"test/dent/007.png"}},
		{name: "a mask without image", files: append(train, "test/dent/000.png", "ground_truth/dent/000.png", "ground_truth/dent/001/000.png"),
			err: ErrMaskWithoutImage, named: "dent/001/000.png", want: []string{"test/dent/000.png ground_truth/dent/000.png"}, left: []string{"ground_truth/dent/001/000.png"}},
		{name: "other capitals", files: append(train, "test/Dent/A0.JPG", "test/Dent/a1.jpg", "ground_truth/dent/a0_mask.png", "ground_truth/dent/A1_MASK.PNG"),
			want: []string{"test/Dent/A0.JPG ground_truth/dent/a0_mask.png", "test/Dent/a1.jpg ground_truth/dent/A1_MASK.PNG"}},
		{name: "letters of two characters", files: append(train, "test/gr\u00f6\u00dfe/\u00e40.png", "test/gr\u00f6\u00dfe/\u00c41.png",
			"ground_truth/gro\u0308\u00dfe/a\u03080_mask.png", "ground_truth/gro\u0308\u00dfe/a\u03081_mask.png"),
			want: []string{"test/gr\u00f6\u00dfe/\u00c41.png ground_truth/gro\u0308\u00dfe/a\u03081_mask.png",
				"test/gr\u00f6\u00dfe/\u00e40.png ground_truth/gro\u0308\u00dfe/a\u03080_mask.png"}},
		{name: "two images by letters of one and of two characters", files: append(train, "test/dent/\u00e4.png", "test/dent/a\u0308.png",
			"ground_truth/dent/\u00e4.png", "ground_truth/dent/a\u0308.png"),
			want: []string{"test/dent/a\u0308.png ground_truth/dent/a\u0308.png", "test/dent/\u00e4.png ground_truth/dent/\u00e4.png"}},
		{name: "gif", files: append(train, "test/dent/000.png", "test/dent/001.png", "ground_truth/dent/000_mask.gif", "ground_truth/dent/001.GIF"),
			want: []string{"test/dent/000.png ground_truth/dent/000_mask.gif", "test/dent/001.png ground_truth/dent/001.GIF"}},
		{name: "gif beside the image", files: append(train, "test/dent/000.png", "test/dent/000_mask.gif"),
			want: []string{"test/dent/000.png test/dent/000_mask.gif"}},
		{name: "gif in a folder for one image", files: append(train, "test/dent/000.png", "ground_truth/dent/000/a.gif", "ground_truth/dent/000/b.png"),
			want: []string{"test/dent/000.png ground_truth/dent/000"}},
		{name: "gif and png", files: append(train, "test/dent/000.png", "ground_truth/dent/000.gif", "ground_truth/dent/000.png"),
			err: ErrTwoMasks, named: "dent/000.gif", left: []string{"test/dent/000.png"}},
		{name: "a gif of a good image", files: append(train, "test/dent/000.png", "ground_truth/dent/000.gif", "ground_truth/good/000.gif"),
			want: []string{"test/dent/000.png ground_truth/dent/000.gif"}},
		{name: "types that differ in capitals alone", files: append(train, "test/Dent/0.png", "test/dent/0.png", "ground_truth/dent/0.png", "ground_truth/Dent/0.png"),
			want: []string{"test/Dent/0.png ground_truth/Dent/0.png", "test/dent/0.png ground_truth/dent/0.png"}},
		{name: "the image that is missing is named as an image", files: append(train, "test/dent/000.png", "ground_truth/dent/000.png", "ground_truth/dent/999_mask.png"),
			err: ErrMaskWithoutImage, named: "add the image dent/999,", want: []string{"test/dent/000.png ground_truth/dent/000.png"}, left: []string{"ground_truth/dent/999_mask.png"}},
		{name: "photographs in a folder called label", files: []string{"good/0.png", "NG/1.png", "label/2.png"}, err: ErrMaskWithoutImage, named: "another name",
			want: []string{"NG/1.png"}, left: []string{"label/2.png"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree(t, c.files...)
			set, err := Open(dir, nil)
			if !errors.Is(err, c.err) || c.err != nil && (!containsAll(err, "dataset: ", c.named) || !Skippable(err)) {
				t.Fatalf("got error %v, want %v, which can be skipped", err, c.err)
			}
			if c.err != nil {
				if set, err = Open(dir, &OpenOptions{SkipBad: true}); err != nil {
					t.Fatalf("with SkipBad: got error %v", err)
				}
			}
			var got, left []string
			for _, item := range set.Test {
				if item.Defective {
					line := rel(t, dir, item.Path)
					if item.Mask != "" {
						line += " " + rel(t, dir, item.Mask)
					}
					got = append(got, line)
				}
			}
			for _, skip := range set.Skipped {
				left = append(left, rel(t, dir, skip.Path))
			}
			if !slices.Equal(got, c.want) || !slices.Equal(left, c.left) {
				t.Errorf("got %q, left out %q, want %q and %q", got, left, c.want, c.left)
			}
			for _, l := range set.Taken().LeftOut {
				if l.Reason != MaskNotNeeded && l.Reason != BadFile {
					t.Errorf("left out: got %v, want nothing but masks and bad files", l)
				}
			}
		})
	}
}

func TestSkippable(t *testing.T) {
	if Skippable(ErrNoGood) || !Skippable(ErrTwoMasks) {
		t.Error("got a missing folder of good images skippable, or two masks not")
	}
}

// FuzzMaskNames pairs any name of a mask with any name of an image: never two
// images or none without a word.
func FuzzMaskNames(f *testing.F) {
	f.Add("000.png", "000_mask.png")
	f.Add("a_mask.png", "a_mask.png")
	f.Add("mask_.png", "_mask.png")
	f.Add("x.jpg", "x.jpg.png")
	f.Fuzz(func(t *testing.T, image, mask string) {
		if strings.ContainsAny(image+mask, "/\x00") || image == "" || mask == "" || image == "." || image == ".." {
			return // no names of files
		}
		x := imageIndex{}
		item := &Item{Path: "/data/NG/" + image, Type: "NG", Defective: true}
		x.add(item)
		got := x.of([]string{mask})
		if len(got) > 1 {
			t.Fatalf("got %d images of %q for %q, want one at most", len(got), mask, image)
		}
		word, isMask := cutMaskWord(stem(mask))
		if want := mask == image || stem(mask) == stem(image) || isMask && word == stem(image); want && len(got) == 0 {
			t.Fatalf("got no image for the mask %q, want %q", mask, image)
		}
	})
}
