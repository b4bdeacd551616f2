package dataset

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rdpp/rdpp/printable"
	"rdpp/rdpp/setting"
)

// What can be wrong with a folder. Errors of Open and Categories wrap one of
// these (or the operating system's error) and name the folder or file.
var (
	ErrNoFolder         = errors.New("no such folder")
	ErrEmpty            = errors.New("no images found")
	ErrNoGood           = errors.New("no good images to train on")
	ErrUnrecognised     = errors.New("folders that no layout has")
	ErrMissing          = errors.New("no such image")
	ErrTwice            = errors.New("an image that is named twice")
	ErrCategories       = errors.New("a collection of several data sets")
	ErrMaskWithoutImage = errors.New("a mask without its image")
	ErrImageWithoutMask = errors.New("a defective image without its mask")
	ErrLayout           = errors.New("not of the layout asked for")
	ErrSplit            = errors.New("not a usable split file")
)

// GoodType is the Type of every item that shows a good part, whatever its
// folder is called.
const GoodType = "good"

// Item is one image of a data set.
type Item struct {
	Path string // the image file
	// Mask is the ground-truth mask file, or a folder of several, whose union
	// counts; "" where there is none.
	Mask string
	// Ignore is a mask file of what of the image is not scored; "" where there is
	// none.
	Ignore string
	// Type is GoodType or the defect's folder name, such as "scratch" or, of
	// nested folders, "NG/scratch"; VisA's split file names it "anomaly".
	Type      string
	Defective bool // false exactly where Type is GoodType
}

// Skip is a file that was left out, and why.
type Skip struct {
	Path, Reason string
}

// MarshalJSON adds PathBase64, the path's bytes in base64, where the path is not UTF-8, which JSON cannot hold.
func (s Skip) MarshalJSON() ([]byte, error) {
	type plain Skip
	return json.Marshal(struct {
		plain
		PathBase64 string `json:",omitempty"`
	}{plain(s), printable.Base64(s.Path)})
}

// Set is the content of one data set: one category of parts. Train holds good
// images only. Train and Test are sorted by path.
type Set struct {
	Dir         string // the folder, as given
	Category    string // the folder's name
	Layout      string // one of Layouts, but "auto"
	Why         string // what was recognised and by what, in words
	Train, Test []Item
	HasMasks    bool   // every defective test image has a mask, so pixel metrics exist
	Skipped     []Skip // what OpenOptions.SkipBad left out

	root      string   // Dir, or the folder around it
	read      []string // folders whose images were taken
	maskRoots []string // folders of masks
	left      []Left
	copies    []Item // of Test, with the bytes of one of Train
}

// OpenOptions says how Open reads a folder. nil or zero fields mean the defaults.
type OpenOptions struct {
	// Layout names the layout to read the folder by, one of Layouts. Default
	// "auto": the first that fits.
	Layout string
	// Holdout is the share, 0 to 1, of the good images that a data set with
	// defective images but no split of its own ("folders", and "visa" without
	// its split file) keeps out of training, as good test images: evenly
	// spread over the sorted names, at least one, never all. Default 0.2;
	// negative for none.
	Holdout float64
	// SkipBad leaves out masks without images, defective images without masks or
	// with two, and such as share one, listing them in Set.Skipped, where Open
	// would end in an error.
	SkipBad bool
	// Recursive takes the images in sub-folders, at any depth, as those of the
	// folder itself. Defective ones get the sub-folder's path as their type.
	Recursive bool
	// TestOnly accepts a data set without images to train on.
	TestOnly bool
	// Ignore is a mask file of what of all images is not scored, or a folder of
	// masks that are named like their images. Default none. Source.Open alone
	// reads it.
	Ignore string
}

// Layouts of any data set, and of one whose images lie directly in its folder.
const (
	layoutAuto  = "auto"
	layoutPlain = "plain"
)

// layouts are tried in order, the stricter ones first. A layout's read returns
// no set, but what is missing, for a folder that it does not fit; for one that
// it does, it fills Category, Train, Test, Skipped and the first half of Why.
var layouts = []struct {
	name string
	read func(dir string, opt OpenOptions) (set *Set, missing string, err error)
}{
	{"btad", readBTAD},
	{"oct", readOCT},
	{"mvtec", readMVTec},
	{"visa", readVisA},
	{"folders", readFolders},
	{layoutPlain, readPlain},
}

// Layouts returns the values of OpenOptions.Layout: "auto", then the layouts
// in the order in which that tries them.
func Layouts() []string {
	names := []string{layoutAuto}
	for _, l := range layouts {
		names = append(names, l.name)
	}
	return names
}

// Open reads the names of the image files of the data set in dir, and of
// contents no more than tells copies among files of one size. Where opt.Layout does not name one, the first of these that fits is
// taken, capital letters in folders' names being no matter:
//
//   - "btad", a category of BTAD: train/ok, test/ok, test/ko and masks in
//     ground_truth/ko, named like their images;
//   - "oct", the retinal OCT images of Kermany et al.: train/NORMAL, test/NORMAL,
//     test/CNV, test/DME and test/DRUSEN, without masks; what else there is in
//     train, and val, is not used;
//   - "mvtec": train/good, test/TYPE and, where there are masks, a folder of
//     them beside train or in test. MVTec LOCO's several masks per image, in
//     ground_truth/TYPE/NNN/, are one together;
//   - "visa", an object of VisA: Data/Images/Normal, Data/Images/Anomaly and
//     masks in Data/Masks/Anomaly, named like their images. Training and test
//     images are those of ../split_csv/1cls.csv, where it lists the object;
//   - "folders": a sub-folder of good images named good, ok or normal, beside it
//     any number of sub-folders of defective ones, and perhaps one of masks; dir
//     may also be the good folder itself;
//   - "plain": images directly in dir, all good, nothing to test on.
//
// The images of a folder are those directly in it, but where a folder of
// defective images has none, each of its sub-folders is a type of its own, such
// as NG/dent. opt.Recursive takes all.
//
// A folder of masks is one named mask, masks, mask_dir, defect_masks, ground_truth,
// gt, label, labels, annotations, segmentation or the like, or, beside a folder NG, NG_mask.
// Where there is none, it is one whose images are all drawings of few colours
// with the names of photographs of defective parts.
// A mask in it has the name of its image, perhaps with _mask, _gt or _label, and
// lies in sub-folders that the image's path ends in: none, dent/ or NG/dent/. A
// mask may also lie beside its image, as 000_mask.png.
//
// A data set without any mask is one of image labels: HasMasks is false. A
// missing folder, one without images, one without good images, one of several
// data sets (see Categories), one that fits no layout (ErrUnrecognised; see
// OpenFolders and OpenList) or not the one asked for, a split file that is
// damaged or names files outside its data set, and masks that do not match the
// defective images end in an error that wraps one of this package's Err values.
// What was taken for what, and everything that was left out, says Set.Taken.
func Open(dir string, opt *OpenOptions) (*Set, error) {
	o, err := opt.complete()
	if err != nil {
		return nil, err
	}
	choices := strings.Join(Layouts(), ", ")
	if !slices.Contains(Layouts(), o.Layout) {
		return nil, fmt.Errorf("dataset: no layout is named %q; choose one of %s", o.Layout, choices)
	}
	if err := checkFolder(dir); err != nil {
		return nil, err
	}
	set, missing, err := read(dir, o)
	if err != nil {
		return nil, err
	}
	if set == nil || set.Layout == layoutPlain && o.Layout == layoutAuto {
		categories, err := Categories(dir)
		if err != nil {
			return nil, err
		}
		if len(categories) > 0 {
			return nil, fmt.Errorf("dataset: %s: %w; choose one of %s", dir, ErrCategories, strings.Join(categories, ", "))
		}
	}
	switch {
	case set == nil && o.Layout == layoutAuto:
		holds := imagesBelow(dir)
		if len(holds) == 0 {
			return nil, fmt.Errorf("dataset: %s: %w, nor in its sub-folders; check the path", dir, ErrEmpty)
		}
		return nil, fmt.Errorf("dataset: %s: %w: it holds %s; of the layouts, %s", dir, ErrUnrecognised, enumerate(holds, namedTypes), missing)
	case set == nil:
		return nil, fmt.Errorf("dataset: %s: %w: %s; add that or choose another layout of %s", dir, ErrLayout, missing, choices)
	case len(set.Train)+len(set.Test) == 0:
		return nil, set.noImages(fmt.Errorf("dataset: %s: %w in the folders of its layout, %s", dir, ErrEmpty, set.Layout))
	case len(set.Train) == 0 && !o.TestOnly:
		return nil, set.noImages(fmt.Errorf("dataset: %s: %w", dir, ErrNoGood))
	}
	set.Dir = dir
	set.finish(set.root)
	return set, nil
}

// complete fills in the defaults and checks what was given.
func (o *OpenOptions) complete() (all OpenOptions, err error) {
	if o != nil {
		all = *o
	}
	all.Layout = cmp.Or(all.Layout, layoutAuto)
	all.Holdout = cmp.Or(all.Holdout, 0.2)
	if !(all.Holdout < 1) {
		return all, fmt.Errorf("dataset: Holdout is %v; give a share below 1", all.Holdout)
	}
	return all, nil
}

// noImages adds what to do to an error about missing images.
func (s *Set) noImages(err error) error {
	for _, dir := range s.read {
		l, listError := list(dir)
		if listError != nil || s.Layout != layoutNamed && !isGood(filepath.Base(dir)) || len(l.images) > 0 {
			continue
		}
		if holds := imagesBelow(dir); len(holds) > 0 {
			return fmt.Errorf("%w; %s has none directly in it, but sub-folders: %s; %w", err, printable.Text(dir), enumerate(holds, namedTypes), setting.Advise(nil, "take them with {recursive}"))
		}
	}
	s.countLeft(s.read...)
	for _, left := range s.left {
		if left.Reason == NoImageType {
			err = fmt.Errorf("%w, but %s; save those that are photographs as PNG", err, left)
		}
	}
	if s.Layout == layoutNamed {
		return fmt.Errorf("%w; put images of good parts there", err)
	}
	return fmt.Errorf("%w; put images of good parts into its good folder", err)
}

// imagesBelow names the sub-folders of dir that hold images, at any depth, with
// their number, but for some.
func imagesBelow(dir string, but ...string) (names []string) {
	folders, err := listFolders(dir)
	if err != nil {
		return nil
	}
	for _, name := range folders {
		if slices.Contains(but, name) {
			continue
		}
		s := &Set{root: dir}
		s.countLeft(filepath.Join(dir, name))
		n := 0
		for _, l := range s.left {
			switch l.Reason {
			case InSubfolder, OutsideLayout, MaskNotNeeded:
				n += l.Count
			}
		}
		if n > 0 {
			names = append(names, fmt.Sprintf("%s (%s)", printable.Text(name), count(n, "image", "images")))
		}
	}
	return names
}

// Categories returns the names of the sub-folders of dir that are data sets of
// any layout but "plain", sorted: the objects of VisA, for one. It is empty
// where dir itself is such a data set. Folders named train, test, masks and the
// like are none.
func Categories(dir string) ([]string, error) {
	if err := checkFolder(dir); err != nil {
		return nil, err
	}
	if isSet(dir) {
		return nil, nil
	}
	l, err := list(dir)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(l.folders, func(name string) bool { return isPart(name) || !isSet(filepath.Join(dir, name)) }), nil
}

// Others names, for people, the sub-folders of dir that hold images, with their
// number, and that Categories does not return.
func Others(dir string) ([]string, error) {
	categories, err := Categories(dir)
	if err != nil {
		return nil, err
	}
	return imagesBelow(dir, categories...), nil
}

// isPart says that a folder is a part of a data set by its name, whatever is in it.
func isPart(name string) bool {
	switch plainName(name) {
	case "train", "training", "test", "testing", "val", "valid", "validation":
		return true
	}
	return isMaskFolder(name)
}

func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("dataset: %s: %w; check the path", dir, ErrNoFolder)
	case err != nil:
		return fmt.Errorf("dataset: %w", err)
	case !info.IsDir():
		return fmt.Errorf("dataset: %s: %w, it is a file; give the folder that holds the images", dir, ErrNoFolder)
	}
	return nil
}

// isSet says whether a layout other than "plain" knows dir. What cannot be read
// is none, but for a data set whose split file is damaged: Open tells of that.
func isSet(dir string) bool {
	set, _, err := read(dir, OpenOptions{Layout: layoutAuto, SkipBad: true})
	return set != nil && set.Layout != layoutPlain || errors.Is(err, ErrSplit)
}

// read reads dir by the layout that opt names. Where none fits, there is no
// set, but what each layout tried lacks.
func read(dir string, opt OpenOptions) (set *Set, missing string, err error) {
	var lacks []string
	for _, l := range layouts {
		if opt.Layout != layoutAuto && opt.Layout != l.name {
			continue
		}
		set, missing, err := l.read(dir, opt)
		if err != nil {
			return nil, "", err
		}
		if set != nil {
			set.Layout = l.name
			return set, "", nil
		}
		lacks = append(lacks, l.name+" lacks "+missing)
	}
	return nil, strings.Join(lacks, "; "), nil
}

func readBTAD(dir string, opt OpenOptions) (*Set, string, error) {
	if missing := lacking(dir, "train/ok", "test/ok", "test/ko"); missing != "" {
		return nil, missing, nil
	}
	set := &Set{Category: folderName(dir), Why: "BTAD layout with train/ok, test/ok and test/ko", root: dir}
	return set, "", set.readSplit(dir, "ok", true, opt)
}

func readOCT(dir string, opt OpenOptions) (*Set, string, error) {
	if missing := lacking(dir, "train/NORMAL", "test/NORMAL", "test/CNV", "test/DME", "test/DRUSEN"); missing != "" {
		return nil, missing, nil
	}
	set := &Set{Category: folderName(dir), Why: "retinal OCT layout with train/NORMAL and test/NORMAL, CNV, DME and DRUSEN", root: dir}
	return set, "", set.readSplit(dir, "NORMAL", false, opt)
}

func readMVTec(dir string, opt OpenOptions) (*Set, string, error) {
	train, _ := findPath(dir, "train")
	names, err := listFolders(train)
	if err != nil && train != "" {
		return nil, "", err
	}
	i := slices.IndexFunc(names, isGood)
	if train == "" || i < 0 {
		return nil, "train/good", nil
	}
	set := &Set{Category: folderName(dir), Why: "MVTec layout with " + filepath.Base(train) + "/" + names[i], root: dir}
	return set, "", set.readSplit(dir, names[i], true, opt)
}

func readFolders(dir string, opt OpenOptions) (*Set, string, error) {
	l, err := list(dir)
	if err != nil {
		return nil, "", err
	}
	if !slices.ContainsFunc(l.folders, isGood) {
		if isGood(folderName(dir)) && len(l.images) > 0 {
			return readFolders(filepath.Dir(absolute(dir)), opt)
		}
		return nil, "a sub-folder named good, ok or normal", nil
	}
	set := &Set{Category: folderName(dir), Why: "a folder of good images", root: dir}
	return set, "", set.readHoldout(dir, nil, opt)
}

func readPlain(dir string, opt OpenOptions) (*Set, string, error) {
	l, err := list(dir)
	if err != nil {
		return nil, "", err
	}
	if len(l.images) == 0 && !(opt.Recursive && opt.Layout == layoutPlain) {
		return nil, "images directly in the folder", nil
	}
	set := &Set{Category: folderName(dir), Why: "a plain folder of images, all taken as good", root: dir}
	set.Train, _, _, err = set.readImages(dir, GoodType, opt)
	return set, "", err
}

// lacking returns those of the sub-folders that dir does not have, as text.
func lacking(dir string, folders ...string) string {
	return strings.Join(slices.DeleteFunc(folders, func(name string) bool {
		_, ok := findPath(dir, name)
		return ok
	}), ", ")
}

// finish sorts the set, completes HasMasks, counts what lies in the folders and
// is no part of it, and finds copies.
func (s *Set) finish(folders ...string) {
	byPath := func(a, b Item) int { return strings.Compare(a.Path, b.Path) }
	slices.SortFunc(s.Train, byPath)
	slices.SortFunc(s.Test, byPath)
	s.HasMasks = slices.ContainsFunc(s.Test, func(item Item) bool { return item.Mask != "" })
	s.countLeft(folders...)
	s.copies = copiesOf(s.Train, s.Test)
}

// readSplit fills Train from dir/train/GOOD and Test as readTests does from
// dir/test, where there are masks with those in the folders of masks beside it.
func (s *Set) readSplit(dir, good string, masks bool, opt OpenOptions) (err error) {
	folder, _ := findPath(dir, "train/"+good)
	if s.Train, _, _, err = s.readImages(folder, GoodType, opt); err != nil {
		return err
	}
	names, err := listFolders(dir)
	if err != nil {
		return err
	}
	var roots []maskRoot
	for _, name := range names {
		if masks && isMaskFolder(name) {
			roots = append(roots, maskRoot{dir: filepath.Join(dir, name)})
		}
	}
	test, ok := findPath(dir, "test")
	if !ok {
		test = filepath.Join(dir, "test")
	}
	return s.readTests(test, roots, opt)
}

// readHoldout fills Train and Test from dir/TYPE/* and the masks of the roots
// and of folders of masks in dir, holding good images out where there are
// defective ones.
func (s *Set) readHoldout(dir string, roots []maskRoot, opt OpenOptions) error {
	if err := s.readTests(dir, roots, opt); err != nil {
		return err
	}
	if slices.ContainsFunc(s.Test, func(item Item) bool { return item.Defective }) {
		s.Why += " beside defective ones"
	}
	s.holdOutGood(opt)
	return nil
}

// holdOutGood moves the good images of Test to Train, but for those that are
// held out where there are defective ones.
func (s *Set) holdOutGood(opt OpenOptions) {
	var good, defective []Item
	for _, item := range s.Test {
		if item.Defective {
			defective = append(defective, item)
		} else {
			good = append(good, item)
		}
	}
	s.Train, s.Test = append(s.Train, good...), nil
	if len(defective) > 0 {
		var held []Item
		s.Train, held = holdOut(s.Train, opt.Holdout)
		s.Test = append(held, defective...)
		s.Why += fmt.Sprintf(", %d of the good images, evenly spread, held out for testing", len(held))
	}
}

// readTests fills Test from dir/TYPE/*, a folder that may be missing, and the
// masks of the roots and of folders of masks in dir.
func (s *Set) readTests(dir string, roots []maskRoot, opt OpenOptions) error {
	names, err := listFolders(dir)
	if err != nil {
		return err
	}
	var beside []maskFile
	for _, name := range names {
		path := filepath.Join(dir, name)
		if isMaskFolder(name) {
			roots = append(roots, maskRoot{dir: path})
			continue
		}
		if of, ok := maskFolderOf(name, names); ok {
			roots = append(roots, maskRoot{path, of})
			continue
		}
		kind := name
		if isGood(name) {
			kind = GoodType
		}
		items, inside, masks, err := s.readImages(path, kind, opt)
		if err != nil {
			return err
		}
		s.Test = append(s.Test, items...)
		roots = append(roots, inside...)
		beside = append(beside, masks...)
	}
	if len(roots)+len(beside) == 0 {
		if roots, err = s.takeDrawings(dir, opt); err != nil {
			return err
		}
	}
	return s.pair(roots, beside, opt)
}

// skip notes a bad file and goes on, or returns what is wrong with it.
func (s *Set) skip(path string, err error, opt OpenOptions) error {
	if !opt.SkipBad {
		return err
	}
	s.Skipped = append(s.Skipped, Skip{path, err.Error()})
	return nil
}

// readImages returns the images of a folder, sorted, and for defective ones the
// folders of masks in it and the masks that lie beside an image.
func (s *Set) readImages(dir, kind string, opt OpenOptions) (items []Item, roots []maskRoot, beside []maskFile, err error) {
	defective := kind != GoodType
	var walk func(dir, kind string, above []string) error
	walk = func(dir, kind string, above []string) error {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil && slices.Contains(above, real) { // a link to a folder around it
			return nil
		}
		l, err := list(dir)
		if err != nil {
			return err
		}
		s.read = append(s.read, dir)
		for _, name := range l.images {
			items = append(items, Item{Path: filepath.Join(dir, name), Type: kind, Defective: defective})
		}
		for _, name := range l.masks {
			if defective {
				beside = append(beside, maskFile{filepath.Join(dir, name), append(keyOf(dir), name)})
			}
		}
		for _, name := range l.folders {
			path, inner := filepath.Join(dir, name), kind
			switch {
			case isMaskFolder(name):
				if defective {
					roots = append(roots, maskRoot{path, filepath.Base(dir)})
				}
				continue
			case defective && isGood(name), !opt.Recursive && (!defective || len(l.images) > 0 || isPart(filepath.Base(dir))):
				continue
			case defective && !isImageFolder(name):
				inner = kind + "/" + name
			}
			if err := walk(path, inner, append(above, real)); err != nil {
				return err
			}
		}
		return nil
	}
	err = walk(dir, kind, nil)
	return items, roots, beside, err
}

// holdOut keeps a share of the sorted items out: every k-th, at least one, but
// never all. A share of 0 or less keeps all in.
func holdOut(items []Item, share float64) (kept, held []Item) {
	n := len(items)
	count := 0
	if share > 0 {
		count = min(max(int(math.Round(float64(n)*share)), 1), n-1)
	}
	for i, item := range items {
		if (i+1)*count/n > i*count/n {
			held = append(held, item)
		} else {
			kept = append(kept, item)
		}
	}
	return kept, held
}
