package dataset

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/printable"
)

// ErrDrawings says that the images of a type of defect are drawn, as masks are, beside photographs.
var ErrDrawings = errors.New("drawings of few colours, as masks are, in the place of photographs of defective parts")

// takeDrawings takes from the test images those of folders in dir that hold
// masks by what is in them, and returns these folders: each of their images is
// drawn, and has the name of an image of another folder of defective ones, which
// is none. Drawings of few colours beside photographs that they have no names of
// are ErrDrawings.
func (s *Set) takeDrawings(dir string, opt OpenOptions) (roots []maskRoot, err error) {
	groups := make(map[string][]Item) // of defective images, by the first folder of their type
	for _, item := range s.Test {
		if item.Defective {
			folder, _, _ := strings.Cut(item.Type, "/")
			groups[folder] = append(groups[folder], item)
		}
	}
	const masks, refused = 1, 2
	found := make(map[string]int)
	for _, folder := range slices.Sorted(maps.Keys(groups)) {
		items := groups[folder]
		others := make(map[string]Item) // by name
		for other, items := range groups {
			if other == folder {
				continue
			}
			for _, item := range items {
				others[fold(stem(item.Path))] = item
			}
		}
		of := func(item Item) (photograph Item, ok bool) {
			photograph, ok = others[fold(bareName(item.Path))]
			return photograph, ok
		}
		each := func(is func(Item) bool) bool {
			return !slices.ContainsFunc(items, func(item Item) bool { return !is(item) })
		}
		switch named := each(func(item Item) bool { _, ok := of(item); return ok }); {
		case named && each(func(item Item) bool {
			photograph, _ := of(item)
			return isDrawn(item.Path) && !isDrawn(photograph.Path)
		}):
			found[folder] = masks
		case !named && each(func(item Item) bool { return isDrawing(item.Path) }) && !slices.ContainsFunc(s.Test, func(item Item) bool {
			other, _, _ := strings.Cut(item.Type, "/")
			return other != folder && isDrawing(item.Path)
		}) && !slices.ContainsFunc(s.Train[:min(len(s.Train), fewTrained)], func(item Item) bool { return isDrawing(item.Path) }):
			err := fmt.Errorf("dataset: %s: %w: %s", printable.Text(items[0].Path), ErrDrawings,
				"call masks like their images, such as 007_mask.png, in a folder called mask; or take the folder out")
			if !opt.SkipBad {
				return nil, err
			}
			for _, item := range items {
				s.Skipped = append(s.Skipped, Skip{item.Path, err.Error()})
			}
			found[folder] = refused
		}
	}
	s.Test = slices.DeleteFunc(s.Test, func(item Item) bool {
		folder, _, _ := strings.Cut(item.Type, "/")
		return item.Defective && found[folder] != 0
	})
	for folder, kind := range found {
		if kind != masks {
			continue
		}
		path := filepath.Join(dir, folder)
		roots = append(roots, maskRoot{dir: path})
		s.read = slices.DeleteFunc(s.read, func(read string) bool {
			return read == path || strings.HasPrefix(read, path+string(filepath.Separator))
		})
	}
	slices.SortFunc(roots, func(a, b maskRoot) int { return strings.Compare(a.dir, b.dir) })
	return roots, nil
}

// drawingColours is how many colours a drawing has at most: classes in a mask.
// Photographs have hundreds.
const drawingColours = 16

// fewTrained is how many of the images to train on tell whether photographs
// look like drawings here, as scans in black and white do.
const fewTrained = 8

// isDrawing says whether an image has few colours, and shows something on a
// background, as masks do. A file that cannot be read is none.
func isDrawing(path string) bool {
	img, err := imagefile.DecodeFile(path, nil)
	if err != nil {
		return false
	}
	colours := make(map[[3]uint8]bool)
	for p := img.Pix; len(p) >= 3; p = p[3:] {
		if colours[[3]uint8(p)] = true; len(colours) > drawingColours {
			return false
		}
	}
	m, err := imagefile.DecodeMaskFile(path, nil)
	return err == nil && slices.Contains(m.Pix, 0) && slices.Contains(m.Pix, 1)
}

// isDrawn is isDrawing of masks with soft edges and of lossy files too: at least
// half of the image is of one and the same black or white, and what is not lies
// together, as a camera's noise does not.
func isDrawn(path string) bool {
	if isDrawing(path) {
		return true
	}
	img, err := imagefile.DecodeFile(path, nil)
	if err != nil {
		return false
	}
	n := img.W * img.H
	black, white := 0, 0
	for p := img.Pix; len(p) >= 3; p = p[3:] {
		switch [3]uint8(p) {
		case [3]uint8{}:
			black++
		case [3]uint8{255, 255, 255}:
			white++
		}
	}
	if 2*max(black, white) < n {
		return false
	}
	strong := func(x, y int) bool { // far from the background
		if x < 0 || y < 0 || x >= img.W || y >= img.H {
			return false
		}
		p := img.Pix[3*(y*img.W+x):][:3]
		if white > black {
			return min(p[0], p[1], p[2]) < 128
		}
		return max(p[0], p[1], p[2]) >= 128
	}
	drawn, beside := 0, 0
	for i := range n {
		if x, y := i%img.W, i/img.W; strong(x, y) {
			drawn++
			if strong(x-1, y) || strong(x+1, y) {
				beside++
			}
		}
	}
	return drawn > 0 && 4*beside >= 3*drawn
}
