package dataset

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"rdpp/rdpp/printable"
	"rdpp/rdpp/regular"
	"rdpp/rdpp/textfile"
)

// splitFile says, below VisA's root, which images of which object are for
// training and for testing; it is bounded, in bytes (VisA's own has 0.7 MB).
const (
	splitFile    = "split_csv/1cls.csv"
	maxSplitFile = 16 << 20
)

// readVisA reads a folder of VisA (Zou et al., 2022).
func readVisA(dir string, opt OpenOptions) (*Set, string, error) {
	if missing := lacking(dir, "Data/Images/Normal"); missing != "" {
		return nil, missing, nil
	}
	set := &Set{Category: folderName(dir), Why: "VisA layout with Data/Images/Normal", root: dir}
	root := filepath.Dir(absolute(dir))
	rows, err := readSplitFile(filepath.Join(root, filepath.FromSlash(splitFile)))
	if err != nil {
		return nil, "", err
	}
	rows = slices.DeleteFunc(rows, func(r splitRow) bool { return r.object != set.Category })
	if len(rows) > 0 {
		set.Why += ", split by ../" + splitFile
		return set, "", set.readRows(rows, root, opt)
	}
	set.Why += ", not listed in ../" + splitFile + ": a folder of good images"
	images, _ := findPath(dir, "Data/Images")
	var roots []maskRoot
	if masks, ok := findPath(dir, "Data/Masks"); ok {
		roots = []maskRoot{{dir: masks}}
	}
	return set, "", set.readHoldout(images, roots, opt)
}

// readRows fills Train and Test from the rows of a split file. As in the other
// layouts, either all defective images have masks or none has.
func (s *Set) readRows(rows []splitRow, root string, opt OpenOptions) error {
	for _, r := range rows {
		item := Item{Path: filepath.Join(root, r.image), Type: GoodType}
		if err := checkFile(item.Path); err != nil {
			err = fmt.Errorf("dataset: %s, line %d: %w; restore the image or remove the line", splitFile, r.line, err)
			if err := s.skip(item.Path, err, opt); err != nil {
				return err
			}
			continue
		}
		if r.defective {
			item.Type, item.Defective = "anomaly", true
			if mask := filepath.Join(root, r.mask); r.mask != "" && checkFile(mask) == nil {
				item.Mask = mask
			}
		}
		if r.train {
			s.Train = append(s.Train, item)
		} else {
			s.Test = append(s.Test, item)
		}
	}
	return s.requireMasks("add the mask that "+splitFile+" names or remove the image's line there", opt)
}

// requireMasks leaves out, or refuses, defective images without a mask where
// there are masks, and such as share one.
func (s *Set) requireMasks(advice string, opt OpenOptions) error {
	if !slices.ContainsFunc(s.Test, func(item Item) bool { return item.Mask != "" }) {
		return nil
	}
	tests := s.Test
	s.Test = nil
	for _, item := range tests {
		if item.Defective && item.Mask == "" {
			err := fmt.Errorf("dataset: %s: %w; %s", printable.Text(item.Path), ErrImageWithoutMask, advice)
			if err := s.skip(item.Path, err, opt); err != nil {
				return err
			}
			continue
		}
		s.Test = append(s.Test, item)
	}
	return s.unshare(opt)
}

// checkFile says why name is not a file. Reading a pipe or a device may never end.
func checkFile(name string) error {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s: is a folder", name)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: is no regular file", name)
	}
	return nil
}

// splitRow is one line of a split file. Paths are relative to VisA's root and
// do not leave it.
type splitRow struct {
	object           string
	train, defective bool
	image, mask      string // mask may be ""
	line             int
}

// readSplitFile returns the rows of a split file, none where there is no file.
func readSplitFile(name string) ([]splitRow, error) {
	f, err := regular.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var rows []splitRow
	if err == nil {
		defer f.Close()
		rows, err = parseSplit(f)
	}
	if err != nil {
		return nil, fmt.Errorf("dataset: %s: %w: %w; restore the file, or move it away to have good images held out", name, ErrSplit, err)
	}
	return rows, nil
}

// parseSplit parses a table of comma-separated values. Its first line names the
// columns, of which it uses object, split (train or test), label (normal or
// anomaly), image and mask.
func parseSplit(r io.Reader) ([]splitRow, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSplitFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSplitFile {
		return nil, fmt.Errorf("it has more than %d MiB", maxSplitFile>>20)
	}
	if data, err = textfile.Decode(data); err != nil {
		return nil, err
	}
	table := csv.NewReader(bytes.NewReader(data))
	header, err := table.Read()
	if err == io.EOF {
		return nil, errors.New("it is empty")
	}
	if err != nil {
		return nil, err
	}
	var columns [5]int
	for i, name := range []string{"object", "split", "label", "image", "mask"} {
		if columns[i] = slices.Index(header, name); columns[i] < 0 {
			return nil, fmt.Errorf("line 1 names no column %s", name)
		}
	}
	var rows []splitRow
	lines := make(map[string]int) // of the images
	for {
		fields, err := table.Read()
		if err == io.EOF {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := table.FieldPos(0)
		object, split, label, image, mask := fields[columns[0]], fields[columns[1]], fields[columns[2]], fields[columns[3]], fields[columns[4]]
		switch {
		case split != "train" && split != "test":
			return nil, fmt.Errorf("line %d: the split is %.40q, not train or test", line, split)
		case label != "normal" && label != "anomaly":
			return nil, fmt.Errorf("line %d: the label is %.40q, not normal or anomaly", line, label)
		case split == "train" && label == "anomaly":
			return nil, fmt.Errorf("line %d: an anomaly to train on", line)
		case !inside(image):
			return nil, fmt.Errorf("line %d: the image %.200q is no path inside the data set", line, image)
		case mask != "" && !inside(mask):
			return nil, fmt.Errorf("line %d: the mask %.200q is no path inside the data set", line, mask)
		}
		r := splitRow{object: object, train: split == "train", defective: label == "anomaly", image: path.Clean(image), line: line}
		if mask != "" {
			r.mask = path.Clean(mask)
		}
		if first, ok := lines[r.image]; ok {
			return nil, fmt.Errorf("line %d: the image %.200q is that of line %d", line, image, first)
		}
		lines[r.image] = line
		rows = append(rows, r)
	}
}

// inside says whether a path with slashes names a file below the folder that it
// is relative to.
func inside(name string) bool {
	return filepath.IsLocal(filepath.FromSlash(name)) && path.Clean(name) != "." && !strings.ContainsFunc(name, unicode.IsControl)
}
