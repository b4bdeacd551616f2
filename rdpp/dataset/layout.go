package dataset

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/printable"
)

// What can be wrong with a folder. Errors of Open and Categories wrap one of
// these (or the operating system's error) and name the folder or file.
var (
	ErrNoFolder         = errors.New("no such folder")
	ErrEmpty            = errors.New("no images found")
	ErrNoGood           = errors.New("no good images to train on")
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
	Path      string // the image file
	Mask      string // the ground-truth mask file, "" where there is none
	Type      string // GoodType or the defect's folder name, such as "scratch"; VisA's split file names it "anomaly"
	Defective bool   // false exactly where Type is GoodType
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
	Why         string // what was recognised and by what, in one sentence
	Train, Test []Item
	HasMasks    bool   // every defective test image has a mask, so pixel metrics exist
	Skipped     []Skip // what OpenOptions.SkipBad left out
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
	// SkipBad leaves out masks without images and defective images without
	// masks, listing them in Set.Skipped, where Open would end in an error.
	SkipBad bool
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

// Open reads the names, not the contents, of the image files of the data set
// in dir. Hidden files and files that are not images by their name are
// ignored. Where opt.Layout does not name one, the first of these that fits is
// taken:
//
//   - "btad", a category of BTAD: train/ok, test/ok, test/ko and masks in
//     ground_truth/ko, named like their images;
//   - "oct", the retinal OCT images of Kermany et al.: train/NORMAL, test/NORMAL,
//     test/CNV, test/DME and test/DRUSEN, without masks; what else there is in
//     train, and val, is not used;
//   - "mvtec": train/good, test/TYPE and, where there are masks,
//     ground_truth/TYPE/NNN_mask.png or NNN.png for test/TYPE/NNN.*;
//   - "visa", an object of VisA: Data/Images/Normal, Data/Images/Anomaly and
//     masks in Data/Masks/Anomaly, named like their images. Training and test
//     images are those of ../split_csv/1cls.csv, where it lists the object;
//   - "folders": a sub-folder of good images named good, ok or normal (in any
//     case), beside it any number of sub-folders of defective ones, and masks
//     in ground_truth/TYPE as above; dir may also be the good folder itself;
//   - "plain": images directly in dir, all good, nothing to test on.
//
// A data set without any mask is one of image labels: HasMasks is false. A
// missing folder, one without images, one without good images, one of several
// data sets (see Categories), one that does not fit the layout asked for, a
// split file that is damaged or names files outside its data set, and masks
// that do not match the defective images end in an error that wraps one of this
// package's Err values.
func Open(dir string, opt *OpenOptions) (*Set, error) {
	o := OpenOptions{}
	if opt != nil {
		o = *opt
	}
	setDefault(&o.Layout, layoutAuto)
	setDefault(&o.Holdout, 0.2)
	if !(o.Holdout < 1) {
		return nil, fmt.Errorf("dataset: Holdout is %v; give a share below 1", o.Holdout)
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
		return nil, fmt.Errorf("dataset: %s: %w where a layout has them: %s; add what one of them lacks", dir, ErrEmpty, missing)
	case set == nil:
		return nil, fmt.Errorf("dataset: %s: %w: %s; add that or choose another layout of %s", dir, ErrLayout, missing, choices)
	case len(set.Train)+len(set.Test) == 0:
		return nil, fmt.Errorf("dataset: %s: %w in the folders of its layout, %s; put images of good parts into its good folder", dir, ErrEmpty, set.Layout)
	case len(set.Train) == 0:
		return nil, fmt.Errorf("dataset: %s: %w; put images of good parts into its good folder", dir, ErrNoGood)
	}
	set.Dir = dir
	set.finish()
	return set, nil
}

// Categories returns the names of the sub-folders of dir that are data sets of
// any layout but "plain", sorted: the objects of VisA, for one. It is empty
// where dir itself is such a data set.
func Categories(dir string) ([]string, error) {
	if err := checkFolder(dir); err != nil {
		return nil, err
	}
	if isSet(dir) {
		return nil, nil
	}
	names, _, err := list(dir)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool { return !isSet(filepath.Join(dir, name)) }), nil
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
	set := &Set{Category: folderName(dir), Why: "BTAD layout with train/ok, test/ok and test/ko"}
	return set, "", set.readSplit(dir, "ok", filepath.Join(dir, truthFolder), opt)
}

func readOCT(dir string, opt OpenOptions) (*Set, string, error) {
	if missing := lacking(dir, "train/NORMAL", "test/NORMAL", "test/CNV", "test/DME", "test/DRUSEN"); missing != "" {
		return nil, missing, nil
	}
	set := &Set{Category: folderName(dir), Why: "retinal OCT layout with train/NORMAL and test/NORMAL, CNV, DME and DRUSEN"}
	var unused []string
	for _, name := range []string{"train/CNV", "train/DME", "train/DRUSEN", "val"} {
		if lacking(dir, name) == "" {
			unused = append(unused, name)
		}
	}
	if len(unused) > 0 {
		set.Why += ", not using " + strings.Join(unused, ", ")
	}
	return set, "", set.readSplit(dir, "NORMAL", "", opt)
}

func readMVTec(dir string, opt OpenOptions) (*Set, string, error) {
	names, err := listFolders(filepath.Join(dir, "train"))
	if err != nil {
		return nil, "", err
	}
	i := slices.IndexFunc(names, isGood)
	if i < 0 {
		return nil, "train/good", nil
	}
	set := &Set{Category: folderName(dir), Why: "MVTec layout with train/" + names[i]}
	return set, "", set.readSplit(dir, names[i], filepath.Join(dir, truthFolder), opt)
}

func readFolders(dir string, opt OpenOptions) (*Set, string, error) {
	names, images, err := list(dir)
	if err != nil {
		return nil, "", err
	}
	if !slices.ContainsFunc(names, isGood) {
		if isGood(folderName(dir)) && len(images) > 0 {
			return readFolders(filepath.Dir(absolute(dir)), opt)
		}
		return nil, "a sub-folder named good, ok or normal", nil
	}
	set := &Set{Category: folderName(dir), Why: "a folder of good images"}
	return set, "", set.readHoldout(dir, filepath.Join(dir, truthFolder), opt)
}

func readPlain(dir string, _ OpenOptions) (*Set, string, error) {
	_, images, err := list(dir)
	if err != nil {
		return nil, "", err
	}
	if len(images) == 0 {
		return nil, "images directly in the folder", nil
	}
	set := &Set{Category: folderName(dir), Why: "a plain folder of images, all taken as good"}
	for _, name := range images {
		set.Train = append(set.Train, Item{Path: filepath.Join(dir, name), Type: GoodType})
	}
	return set, "", nil
}

// lacking returns those of the sub-folders that dir does not have, as text.
func lacking(dir string, folders ...string) string {
	return strings.Join(slices.DeleteFunc(folders, func(name string) bool {
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name)))
		return err == nil && info.IsDir()
	}), ", ")
}

// finish sorts the set and completes Why and HasMasks.
func (s *Set) finish() {
	byPath := func(a, b Item) int { return strings.Compare(a.Path, b.Path) }
	slices.SortFunc(s.Train, byPath)
	slices.SortFunc(s.Test, byPath)
	defective := 0
	for _, item := range s.Test {
		if item.Defective {
			defective++
		}
		s.HasMasks = s.HasMasks || item.Mask != ""
	}
	s.Why += fmt.Sprintf("; training images: %d", len(s.Train))
	if len(s.Test) == 0 {
		s.Why += "; no test images"
		return
	}
	masks := "without masks"
	if s.HasMasks {
		masks = "with masks"
	}
	s.Why += fmt.Sprintf("; test images: %d good, %d defective, %s", len(s.Test)-defective, defective, masks)
}

// truthFolder holds the masks, in one sub-folder per defect type.
const truthFolder = "ground_truth"

// readSplit fills Train from dir/train/GOOD and Test as readTests does from
// dir/test.
func (s *Set) readSplit(dir, good, truth string, opt OpenOptions) (err error) {
	if s.Train, err = readType(filepath.Join(dir, "train"), good); err != nil {
		return err
	}
	return s.readTests(filepath.Join(dir, "test"), truth, opt)
}

// readHoldout fills Train and Test from dir/TYPE/* and the masks of
// truth/TYPE/*, holding good images out where there are defective ones.
func (s *Set) readHoldout(dir, truth string, opt OpenOptions) error {
	if err := s.readTests(dir, truth, opt); err != nil {
		return err
	}
	var good, defective []Item
	for _, item := range s.Test {
		if item.Defective {
			defective = append(defective, item)
		} else {
			good = append(good, item)
		}
	}
	s.Train, s.Test = good, nil
	if len(defective) > 0 {
		var held []Item
		s.Train, held = holdOut(good, opt.Holdout)
		s.Test = append(held, defective...)
		s.Why += fmt.Sprintf(" beside defective ones, %d of the good images, evenly spread, held out for testing", len(held))
	}
	return nil
}

// readTests fills Test from dir/TYPE/* and the masks of truth/TYPE/*. Either
// folder may be missing, and truth is "" for no masks at all. Masks of good images say nothing and are ignored.
func (s *Set) readTests(dir, truth string, opt OpenOptions) error {
	types, err := listFolders(dir)
	if err != nil {
		return err
	}
	masks, err := readMasks(truth)
	if err != nil {
		return err
	}
	unused := make(map[string]bool, len(masks))
	for key := range masks {
		unused[key] = true
	}
	for _, name := range types {
		if name == truthFolder {
			continue
		}
		items, err := readType(dir, name)
		if err != nil {
			return err
		}
		for _, item := range items {
			if item.Defective && len(masks) > 0 {
				key := filepath.Join(name, stem(item.Path))
				delete(unused, key)
				item.Mask = masks[key]
				if item.Mask == "" {
					err := fmt.Errorf("dataset: %s: %w; add %s_mask.png or remove the image", item.Path, ErrImageWithoutMask, filepath.Join(truth, key))
					if err := s.skip(item.Path, err, opt); err != nil {
						return err
					}
					continue
				}
			}
			s.Test = append(s.Test, item)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(unused)) {
		err := fmt.Errorf("dataset: %s: %w; add the image %s or remove the mask", masks[key], ErrMaskWithoutImage, filepath.Join(dir, key))
		if err := s.skip(masks[key], err, opt); err != nil {
			return err
		}
	}
	return nil
}

// skip notes a bad file and goes on, or returns what is wrong with it.
func (s *Set) skip(path string, err error, opt OpenOptions) error {
	if !opt.SkipBad {
		return err
	}
	s.Skipped = append(s.Skipped, Skip{path, err.Error()})
	return nil
}

// readType returns the images of dir/name, sorted.
func readType(dir, name string) ([]Item, error) {
	_, images, err := list(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defective, kind := !isGood(name), name
	if !defective {
		kind = GoodType
	}
	items := make([]Item, len(images))
	for i, image := range images {
		items[i] = Item{Path: filepath.Join(dir, name, image), Type: kind, Defective: defective}
	}
	return items, nil
}

// readMasks returns the mask files below truth by TYPE/NNN, the name of their
// image without its extension.
func readMasks(truth string) (map[string]string, error) {
	types, err := listFolders(truth)
	if err != nil {
		return nil, err
	}
	masks := make(map[string]string)
	for _, name := range types {
		if isGood(name) {
			continue
		}
		_, files, err := list(filepath.Join(truth, name))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			key := filepath.Join(name, strings.TrimSuffix(stem(file), "_mask"))
			masks[key] = filepath.Join(truth, name, file)
		}
	}
	return masks, nil
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

// list returns the names of the sub-folders and of the images in dir, sorted,
// without hidden ones. Links are followed.
func list(dir string) (folders, images []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("dataset: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			info, err := os.Stat(filepath.Join(dir, name))
			isDir = err == nil && info.IsDir()
		}
		switch {
		case isDir:
			folders = append(folders, name)
		case imagefile.IsImage(name):
			images = append(images, name)
		}
	}
	return folders, images, nil
}

// listFolders returns the sub-folders of dir; none where dir does not exist.
func listFolders(dir string) ([]string, error) {
	folders, _, err := list(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return folders, err
}

func isGood(name string) bool {
	switch strings.ToLower(name) {
	case "good", "ok", "normal":
		return true
	}
	return false
}

// stem returns a file's name without folder and extension.
func stem(path string) string {
	base := filepath.Base(path)
	return strings.TrimSuffix(base, filepath.Ext(base))
}

func folderName(dir string) string { return filepath.Base(absolute(dir)) }

// absolute returns dir as an absolute path, or as it is where the working
// directory is gone.
func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
