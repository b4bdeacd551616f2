package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"rdpp/rdpp/imagefile"
)

// listing is what lies directly in a folder. Names are sorted.
type listing struct {
	folders []string
	images  []string
	drawn   []string // of a type that masks alone may have
	masks   []string // beside the image that they belong to, by their name
	// What is never used, by its kind.
	hidden   []string // names that begin with a dot
	heatmaps []string // drawn by this program
	special  []string // pipes, sockets, devices
	lost     []string // links to nothing
	others   []string // of no image type
}

// list reads a folder. Links are followed.
func list(dir string) (l listing, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return l, fmt.Errorf("dataset: %w", err)
	}
	for _, e := range entries {
		name, kind := e.Name(), e.Type()
		hidden := strings.HasPrefix(name, ".")
		if kind&fs.ModeSymlink != 0 && !hidden {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				l.lost = append(l.lost, name)
				continue
			}
			kind = info.Mode().Type()
		}
		switch {
		case hidden:
			l.hidden = append(l.hidden, name)
		case kind.IsDir():
			l.folders = append(l.folders, name)
		case !kind.IsRegular():
			l.special = append(l.special, name)
		case imagefile.IsImage(name):
			l.images = append(l.images, name)
		case imagefile.IsMask(name):
			l.drawn = append(l.drawn, name)
		default:
			l.others = append(l.others, name)
		}
	}
	l.sortOut(dir)
	return l, nil
}

// sortOut takes what is no photograph from the images.
func (l *listing) sortOut(dir string) {
	stems := make(map[string]bool, len(l.images))
	for _, name := range l.images {
		stems[stem(name)] = true
	}
	l.drawn = slices.DeleteFunc(l.drawn, func(name string) bool {
		of, isMask := cutMaskWord(stem(name))
		if isMask = isMask && stems[of]; isMask {
			l.masks = append(l.masks, name)
		}
		return isMask
	})
	heatmaps := imagefile.Heatmaps(dir, l.images)
	photographs := l.images[:0]
	for _, name := range l.images {
		of, isMask := cutMaskWord(stem(name))
		switch {
		case heatmaps[name]:
			l.heatmaps = append(l.heatmaps, name)
		case isMask && stems[of]:
			l.masks = append(l.masks, name)
		default:
			photographs = append(photographs, name)
		}
	}
	l.images = photographs
}

// inMasks are the files of a folder of masks.
func (l *listing) inMasks() []string { return slices.Concat(l.images, l.masks, l.drawn) }

// listFolders returns the sub-folders of dir; none where dir does not exist.
func listFolders(dir string) ([]string, error) {
	l, err := list(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return l.folders, err
}

// findFolder returns the name of the sub-folder of dir that is called name: in
// these letters or, where none is, in other ones of capitals.
func findFolder(dir, name string) (string, bool) {
	names, err := listFolders(dir)
	if err != nil {
		return "", false
	}
	if slices.Contains(names, name) {
		return name, true
	}
	i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	if i < 0 {
		return "", false
	}
	return names[i], true
}

// findPath is findFolder of each element of a path with slashes. It returns the
// path as it is called on disk.
func findPath(dir, path string) (string, bool) {
	for name := range strings.SplitSeq(path, "/") {
		found, ok := findFolder(dir, name)
		if !ok {
			return "", false
		}
		dir = filepath.Join(dir, found)
	}
	return dir, true
}

// plainName is a folder's name in small letters, without what parts words.
func plainName(name string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "", ".", "").Replace(strings.ToLower(name))
}

// isMaskFolder says whether a folder holds masks by its name.
func isMaskFolder(name string) bool {
	plain := plainName(name)
	switch plain {
	case "maskdir", "maskimage", "maskimages", "maskimg", "maskimgs", "gt", "gts", "groundtruth", "groundtruths", "label", "labels", "annotation",
		"annotations", "segmentation", "segmentations", "seg", "segs", "segmentationclass":
		return true
	}
	return maskNames.MatchString(plain)
}

// maskNames are plain names such as mask, defectmasks and maskspng. What else a mask may be of, such as solder, is not of
// them: a defect may be called that.
var maskNames = regexp.MustCompile(
	`^(?:defects?|anomaly|anomalies|bad|ng|binary|pixel|png|gt|groundtruth|segmentation)?(?:masks?|masken?|masques?|m[aá]scaras?)(?:png)?$`)

// isImageFolder says that a folder's name only says that images are in it, as
// opposed to masks.
func isImageFolder(name string) bool {
	switch plainName(name) {
	case "image", "images", "img", "imgs", "picture", "pictures":
		return true
	}
	return false
}

// maskFolderOf returns the name of the folder beside it that a folder such as
// NG_mask or masks_NG holds the masks of.
func maskFolderOf(name string, beside []string) (string, bool) {
	for _, other := range beside {
		if len(other) >= len(name) {
			continue
		}
		for _, rest := range []string{strings.TrimPrefix(name, other), strings.TrimSuffix(name, other)} {
			if rest != name && isMaskFolder(rest) {
				return other, true
			}
		}
	}
	return "", false
}

var (
	maskWord     = `(?:masks?|gt|labels?|seg|segmentation|annotation|ground[-_ ]?truth)`
	afterName    = regexp.MustCompile(`(?i)^(.+)[-_. ]` + maskWord + `$`)
	beforeName   = regexp.MustCompile(`(?i)^` + maskWord + `[-_. ](.+)$`)
	maskSpelling = "_mask" // the one that errors propose
)

// cutMaskWord returns a stem such as 000_mask or gt-000 without the word that
// makes it a mask's.
func cutMaskWord(stem string) (string, bool) {
	for _, pattern := range []*regexp.Regexp{afterName, beforeName} {
		if m := pattern.FindStringSubmatch(stem); m != nil {
			return m[1], true
		}
	}
	return stem, false
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

// folderName is the name of a folder, "data" for one that has none.
func folderName(dir string) string {
	if name := filepath.Base(absolute(dir)); name != string(filepath.Separator) {
		return name
	}
	return "data"
}

// absolute returns dir as an absolute path, or as it is where the working
// directory is gone.
func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
