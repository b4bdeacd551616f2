package dataset

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"rdpp/rdpp/printable"
)

// Folders names the folders of a data set that has no layout of its own.
type Folders struct {
	Good     []string // of good images to train on
	Bad      []string // of defective ones; the type is a folder's name
	TestGood []string // of good images to test on; default: some of Good, as OpenOptions.Holdout says, where there are defective ones
	Masks    []string // of the masks of Bad, which are found as in Open
	Category string   // default: the name of the folder around them all
}

// OpenFolders makes a data set of folders, whatever they are called: Layout is
// "named". Errors are those of Open, and ErrTwice where an image is in two of them.
func OpenFolders(f Folders, opt *OpenOptions) (*Set, error) {
	o, err := opt.complete()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, dirs := range [][]string{f.Good, f.Bad, f.TestGood, f.Masks} {
		for _, dir := range dirs {
			if err := checkFolder(dir); err != nil {
				return nil, err
			}
			all = append(all, dir)
		}
	}
	if len(f.Good)+len(f.Bad)+len(f.TestGood) == 0 {
		return nil, fmt.Errorf("dataset: %w: no folder is named; name those of good images", ErrNoGood)
	}
	root := folderAround(all)
	s := &Set{Dir: root, root: root, Category: f.Category, Layout: layoutNamed, Why: "folders by their names"}
	if s.Category == "" {
		s.Category = folderName(root)
	}
	if err := s.readFolders(f, o); err != nil {
		return nil, err
	}
	if err := s.once("name each folder once, and none inside another"); err != nil {
		return nil, err
	}
	if len(s.Train) == 0 && !o.TestOnly {
		return nil, s.noImages(fmt.Errorf("dataset: %s: %w", strings.Join(f.Good, ", "), ErrNoGood))
	}
	if len(s.Train)+len(s.Test) == 0 {
		return nil, s.noImages(fmt.Errorf("dataset: %s: %w", root, ErrEmpty))
	}
	s.finish(all...)
	return s, nil
}

// layoutNamed is the Layout of OpenFolders, layoutList that of OpenList.
const (
	layoutNamed = "named"
	layoutList  = "list"
)

func (s *Set) readFolders(f Folders, o OpenOptions) error {
	for _, dir := range f.Good {
		items, _, _, err := s.readImages(dir, GoodType, o)
		if err != nil {
			return err
		}
		s.Train = append(s.Train, items...)
	}
	for _, dir := range f.TestGood {
		items, _, _, err := s.readImages(dir, GoodType, o)
		if err != nil {
			return err
		}
		s.Test = append(s.Test, items...)
	}
	var roots []maskRoot
	for _, dir := range f.Masks {
		roots = append(roots, maskRoot{dir: dir})
	}
	var beside []maskFile
	for _, dir := range f.Bad {
		name := folderName(dir)
		if isGood(name) {
			return fmt.Errorf("dataset: %s: %w: it is named as a folder of defective images, and called %s; exchange the two, or give it another name",
				printable.Text(dir), ErrLayout, name)
		}
		items, inside, masks, err := s.readImages(dir, name, o)
		if err != nil {
			return err
		}
		s.Test = append(s.Test, items...)
		roots, beside = append(roots, inside...), append(beside, masks...)
	}
	if err := s.pair(roots, beside, o); err != nil {
		return err
	}
	if len(f.Masks) > 0 && !slices.ContainsFunc(s.Test, func(item Item) bool { return item.Mask != "" }) {
		return fmt.Errorf("dataset: %s: %w in all of it; give masks the names of their images", strings.Join(f.Masks, ", "), ErrImageWithoutMask)
	}
	if len(f.TestGood) == 0 {
		slices.SortFunc(s.Train, func(a, b Item) int { return strings.Compare(a.Path, b.Path) })
		s.holdOutGood(o)
	}
	return nil
}

// once refuses an image that is in the set twice, with advice.
func (s *Set) once(advice string) error {
	seen := make(map[string]bool)
	for _, items := range [][]Item{s.Train, s.Test} {
		for _, item := range items {
			path := absolute(item.Path)
			if seen[path] {
				return fmt.Errorf("dataset: %s: %w; %s", printable.Text(item.Path), ErrTwice, advice)
			}
			seen[path] = true
		}
	}
	return nil
}

// folderAround returns the deepest folder that folders lie in, none of which it
// is itself.
func folderAround(dirs []string) string {
	around := filepath.Dir(absolute(dirs[0]))
	for _, dir := range dirs {
		for !strings.HasPrefix(absolute(dir), strings.TrimSuffix(around, "/")+"/") {
			around = filepath.Dir(around)
		}
	}
	return around
}
