package dataset

import (
	"path/filepath"
	"slices"
	"strings"

	"rdpp/rdpp/imagefile"
)

// takeDrawings takes from the test images those of folders in dir that hold
// masks by what is in them, and returns these folders: each of their images is a
// drawing, and has the name of an image of another folder of defective ones,
// which is none.
func (s *Set) takeDrawings(dir string) (roots []maskRoot) {
	groups := make(map[string][]Item) // of defective images, by the first folder of their type
	for _, item := range s.Test {
		if item.Defective {
			folder, _, _ := strings.Cut(item.Type, "/")
			groups[folder] = append(groups[folder], item)
		}
	}
	holdsMasks := make(map[string]bool)
	for folder, items := range groups {
		others := make(map[string]Item) // by stem
		for other, items := range groups {
			if other == folder {
				continue
			}
			for _, item := range items {
				others[strings.ToLower(stem(item.Path))] = item
			}
		}
		named := func(item Item) bool {
			_, ok := others[strings.ToLower(bareName(item.Path))]
			return ok
		}
		if slices.ContainsFunc(items, func(item Item) bool { return !named(item) || !isDrawing(item.Path) }) {
			continue
		}
		holdsMasks[folder] = !isDrawing(others[strings.ToLower(bareName(items[0].Path))].Path)
	}
	s.Test = slices.DeleteFunc(s.Test, func(item Item) bool {
		folder, _, _ := strings.Cut(item.Type, "/")
		return item.Defective && holdsMasks[folder]
	})
	for folder, masks := range holdsMasks {
		if !masks {
			continue
		}
		path := filepath.Join(dir, folder)
		roots = append(roots, maskRoot{dir: path})
		s.read = slices.DeleteFunc(s.read, func(read string) bool {
			return read == path || strings.HasPrefix(read, path+string(filepath.Separator))
		})
	}
	slices.SortFunc(roots, func(a, b maskRoot) int { return strings.Compare(a.dir, b.dir) })
	return roots
}

// drawingColours is how many colours a drawing has at most: classes in a mask.
// Photographs have hundreds.
const drawingColours = 16

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
