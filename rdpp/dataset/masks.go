package dataset

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/printable"
)

// What can be wrong with masks beside ErrMaskWithoutImage and
// ErrImageWithoutMask. Errors of Open and Check wrap one of these and name the
// file; with SkipBad, and in Check with skipBad, the images are left out instead.
var (
	ErrTwoMasks     = errors.New("two masks for one image")
	ErrSharedMask   = errors.New("one mask for two images")
	ErrMaskEmpty    = errors.New("a defective image's mask without a defect")
	ErrMaskFull     = errors.New("a mask that is all defect")
	ErrMaskInverted = errors.New("a mask that seems to be inverted: most of it and of its border is defect")
	ErrMaskShape    = errors.New("a mask of another shape than its image")
)

// ErrHeatmap says that an image is a heat map that this program has drawn.
var ErrHeatmap = errors.New("a heat map that infer image has drawn, no photograph")

// Skippable reports whether what err tells of would have been left out with
// OpenOptions.SkipBad.
func Skippable(err error) bool {
	for _, kind := range []error{ErrMaskWithoutImage, ErrImageWithoutMask, ErrTwoMasks, ErrSharedMask, ErrMissing, ErrDrawings} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// maskRoot is a folder of masks. A mask in it belongs to the image whose path
// ends in of/SUBFOLDER/NAME.
type maskRoot struct {
	dir string
	of  string // "" or the type whose masks these are
}

// maskFile is a mask, or a folder of several for one image.
type maskFile struct {
	path string
	key  []string // folders and name, without extension, that the image's path ends in
}

// readMasks returns the image files below the roots. Those in folders of good
// images are none.
func (s *Set) readMasks(roots []maskRoot) (masks []maskFile, err error) {
	var walk func(dir string, key []string) error
	walk = func(dir string, key []string) error {
		l, err := list(dir)
		if err != nil {
			return err
		}
		for _, name := range l.inMasks() {
			masks = append(masks, maskFile{filepath.Join(dir, name), append(slices.Clone(key), name)})
		}
		for _, name := range l.folders {
			if isGood(name) {
				continue
			}
			inner := key
			if !isImageFolder(name) && !isMaskFolder(name) {
				inner = append(slices.Clone(key), name)
			}
			if err := walk(filepath.Join(dir, name), inner); err != nil {
				return err
			}
		}
		return nil
	}
	for _, root := range roots {
		s.maskRoots = append(s.maskRoots, root.dir)
		var key []string
		if root.of != "" {
			key = strings.Split(filepath.ToSlash(root.of), "/")
		}
		if err := walk(root.dir, key); err != nil {
			return nil, err
		}
	}
	return masks, nil
}

// imageIndex finds images by the end of their path.
type imageIndex map[string][]indexed // by stem, and by name with extension, folded

type indexed struct {
	key  []string // folders of the path, then the stem or name
	item *Item
}

func (x imageIndex) add(item *Item) {
	folders := keyOf(filepath.Dir(item.Path))
	name := filepath.Base(item.Path)
	for _, last := range slices.Compact([]string{name, stem(name)}) {
		folded := fold(last)
		x[folded] = append(x[folded], indexed{append(slices.Clone(folders), last), item})
	}
}

// fold makes one of names that differ in capitals, or in how their letters are put together.
func fold(name string) string { return norm.NFC.String(strings.ToLower(name)) }

// keyOf is a folder's path as a key begins.
func keyOf(dir string) []string {
	return slices.DeleteFunc(strings.Split(filepath.ToSlash(absolute(dir)), "/"), isImageFolder)
}

// of returns the images whose path ends in key, whose last element may carry an
// extension and a word that says that it is a mask. Where none does, capitals
// do not matter, nor whether a letter such as ä is written as one character
// or, as macOS does, as two.
func (x imageIndex) of(key []string) (items []*Item) {
	last := key[len(key)-1]
	folded := func(a, b string) bool { return fold(a) == fold(b) }
	for _, same := range []func(a, b string) bool{func(a, b string) bool { return a == b }, folded} {
		for _, name := range slices.Compact([]string{last, stem(last), bareName(last)}) {
			wanted := append(slices.Clone(key[:len(key)-1]), name)
			for _, image := range x[fold(name)] {
				if n := len(image.key) - len(key); n >= 0 && slices.EqualFunc(image.key[n:], wanted, same) {
					items = append(items, image.item)
				}
			}
			if items != nil {
				return items
			}
		}
	}
	return nil
}

// bareName is the name of a mask's image, without extension.
func bareName(mask string) string {
	bare, _ := cutMaskWord(stem(mask))
	return bare
}

// pair gives the defective test images their masks, those in the roots and
// some that lie beside their images. Either all such images have one or, where
// no mask is one of theirs, none has.
func (s *Set) pair(roots []maskRoot, beside []maskFile, opt OpenOptions) error {
	masks, err := s.readMasks(roots)
	if err != nil {
		return err
	}
	masks = append(masks, beside...)
	index, good := imageIndex{}, imageIndex{}
	for i := range s.Test {
		if item := &s.Test[i]; item.Defective {
			index.add(item)
		} else {
			good.add(item)
		}
	}
	for i := range s.Train {
		good.add(&s.Train[i])
	}
	of := make(map[*Item][]string)
	var lonely []maskFile
	for _, mask := range masks {
		items := index.of(mask.key)
		for _, item := range items {
			of[item] = append(of[item], mask.path)
		}
		if items == nil && good.of(mask.key) == nil {
			lonely = append(lonely, mask)
		}
	}
	lonely = foldersOfMasks(lonely, index, good, of)
	if len(of) == 0 {
		return s.skipMasks(lonely, opt)
	}
	tests := s.Test
	s.Test = nil
	for i, item := range tests {
		if item.Defective {
			var err error
			switch masks := of[&tests[i]]; len(masks) {
			case 1:
				item.Mask = masks[0]
			case 0:
				err = fmt.Errorf("dataset: %s: %w; add %s or remove the image", printable.Text(item.Path), ErrImageWithoutMask, printable.Text(proposedMask(roots, item)))
			default:
				err = fmt.Errorf("dataset: %s: %w: %s and %s; remove one of them", printable.Text(item.Path), ErrTwoMasks, printable.Text(masks[0]), printable.Text(masks[1]))
			}
			if err != nil {
				if err := s.skip(item.Path, err, opt); err != nil {
					return err
				}
				continue
			}
		}
		s.Test = append(s.Test, item)
	}
	if err := s.skipMasks(lonely, opt); err != nil {
		return err
	}
	return s.unshare(opt)
}

// skipMasks leaves out, or refuses, masks without images.
func (s *Set) skipMasks(masks []maskFile, opt OpenOptions) error {
	for _, mask := range masks {
		image := append(slices.Clone(mask.key[:len(mask.key)-1]), bareName(mask.path))
		err := fmt.Errorf("dataset: %s: %w; add the image %s, remove the mask, or give the folder another name if these are photographs",
			printable.Text(mask.path), ErrMaskWithoutImage, printable.Text(filepath.Join(image...)))
		if err := s.skip(mask.path, err, opt); err != nil {
			return err
		}
	}
	return nil
}

// foldersOfMasks finds the images of masks that lie in a folder of the image's
// name, as MVTec LOCO's do, and returns those that are left.
func foldersOfMasks(masks []maskFile, index, good imageIndex, of map[*Item][]string) (left []maskFile) {
	seen := make(map[string]bool)
	for _, mask := range masks {
		dir, key := filepath.Dir(mask.path), mask.key[:len(mask.key)-1]
		if len(key) == 0 {
			left = append(left, mask)
			continue
		}
		items := index.of(key)
		if items == nil && good.of(key) == nil {
			left = append(left, mask)
		}
		for _, item := range items {
			if !seen[dir] {
				of[item] = append(of[item], dir)
			}
		}
		seen[dir] = true
	}
	return left
}

// proposedMask is where the mask of an image could be.
func proposedMask(roots []maskRoot, item Item) string {
	name := stem(item.Path) + maskSpelling + ".png"
	if len(roots) == 0 {
		return filepath.Join(filepath.Dir(item.Path), name)
	}
	if roots[0].of != "" {
		return filepath.Join(roots[0].dir, name)
	}
	return filepath.Join(roots[0].dir, filepath.FromSlash(item.Type), name)
}

// unshare leaves out, or refuses, images whose mask is another's too.
func (s *Set) unshare(opt OpenOptions) error {
	first := make(map[string]string) // image by mask
	shared := make(map[string]bool)
	for _, item := range s.Test {
		if item.Mask == "" {
			continue
		}
		if other, ok := first[item.Mask]; ok {
			err := fmt.Errorf("dataset: %s: %w: %s and %s; give each a mask of its own", printable.Text(item.Mask), ErrSharedMask, printable.Text(other), printable.Text(item.Path))
			if !opt.SkipBad {
				return err
			}
			shared[item.Mask] = true
		}
		first[item.Mask] = item.Path
	}
	kept := s.Test[:0]
	for _, item := range s.Test {
		if shared[item.Mask] {
			err := fmt.Errorf("dataset: %s: %w, %s being one of them; give each a mask of its own", printable.Text(item.Mask), ErrSharedMask, printable.Text(item.Path))
			s.Skipped = append(s.Skipped, Skip{item.Path, err.Error()})
			continue
		}
		kept = append(kept, item)
	}
	s.Test = kept
	return nil
}

// decodeMask reads a mask file, or the union of all in a folder.
func decodeMask(path string, opt *imagefile.Options) (*imagefile.Mask, error) {
	files, err := maskFiles(path)
	if err != nil {
		return nil, err
	}
	var all *imagefile.Mask
	for _, file := range files {
		m, err := imagefile.DecodeMaskFile(file, opt)
		if err != nil {
			return nil, fmt.Errorf("dataset: reading mask: %w", err)
		}
		if all == nil {
			all = m
			continue
		}
		if m.W != all.W || m.H != all.H {
			return nil, fmt.Errorf("dataset: %s: %w: %d x %d pixels, another mask of the same image has %d x %d; draw both over the image", printable.Text(file),
				ErrMaskShape, m.W, m.H, all.W, all.H)
		}
		for i, v := range m.Pix {
			all.Pix[i] |= v
		}
	}
	return all, nil
}

// maskFiles returns the files of an Item's Mask.
func maskFiles(path string) ([]string, error) {
	if !isFolder(path) {
		return []string{path}, nil
	}
	l, err := list(path)
	if err != nil {
		return nil, err
	}
	files := l.inMasks()
	if len(files) == 0 {
		return nil, fmt.Errorf("dataset: %s: a folder without a mask; put image files into it", printable.Text(path))
	}
	for i, name := range files {
		files[i] = filepath.Join(path, name)
	}
	return files, nil
}

// checkMask says what is not plain about the mask of a defective image of w x h
// pixels.
func checkMask(m *imagefile.Mask, path string, w, h int) error {
	// Either side may have been rounded by less than a pixel.
	if across, down := m.W*h, m.H*w; max(across-down, down-across) >= w+h {
		return fmt.Errorf("dataset: %s: %w: %d x %d pixels, the image has %d x %d; draw it over the image", printable.Text(path), ErrMaskShape, m.W, m.H, w, h)
	}
	drawn, border, drawnBorder := 0, 0, 0
	for i, v := range m.Pix {
		drawn += int(v)
		if x, y := i%m.W, i/m.W; x == 0 || y == 0 || x == m.W-1 || y == m.H-1 {
			border++
			drawnBorder += int(v)
		}
	}
	const advice = "draw the defect in white on black"
	switch {
	case drawn == 0:
		return fmt.Errorf("dataset: %s: %w; %s, or move the image to the good ones", printable.Text(path), ErrMaskEmpty, advice)
	case drawn == len(m.Pix):
		return fmt.Errorf("dataset: %s: %w; %s, and leave some of the image black", printable.Text(path), ErrMaskFull, advice)
	case 4*drawnBorder > 3*border && 2*drawn > len(m.Pix): // a part's defect may reach the border, but hardly surrounds it
		return fmt.Errorf("dataset: %s: %w; %s", printable.Text(path), ErrMaskInverted, advice)
	}
	return nil
}
