package dataset

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rdpp/rdpp/printable"
	"rdpp/rdpp/setting"
)

// Taken says what of a data set was taken for what, and what was left out.
type Taken struct {
	Train       int         `json:"train_good"` // images
	TestGood    int         `json:"test_good"`
	Defective   int         `json:"test_defective"`
	Types       []TypeCount `json:"defect_types,omitempty"` // of the defective ones, by name
	Masks       int         `json:"masks"`                  // defective images that have one
	MaskFolders []string    `json:"mask_folders,omitempty"` // names are as in Left
	Copies      []string    `json:"copies,omitempty"`       // test images with the bytes of an image to train on; names are as in Left
	LeftOut     []Left      `json:"left_out,omitempty"`
}

// TypeCount is how many test images there are of a type of defect.
type TypeCount struct {
	Type  string `json:"type"` // as people can read it, see Left
	Count int    `json:"count"`
}

// Left is a number of files that were left out for one reason.
type Left struct {
	Reason Reason `json:"reason"`
	Count  int    `json:"count"`
	// Folders that they lie in, relative to the data set's folder where they
	// are below it, for the reasons that folders matter to. What of a name cannot
	// be printed is escaped (printable.Text), such as \xe4 for a byte.
	Folders []string `json:"folders,omitempty"`
}

// Reason is why files were left out.
type Reason string

// The reasons.
const (
	InSubfolder    Reason = "subfolder"      // images below a folder whose images were taken; OpenOptions.Recursive takes them
	OutsideLayout  Reason = "outside_layout" // images in folders that the layout has no use for
	MaskNotNeeded  Reason = "mask"           // masks of good images
	Heatmap        Reason = "heat_map"       // drawn by infer image
	Hidden         Reason = "hidden"         // files and folders whose names begin with a dot
	NoImageType    Reason = "no_image_type"  // files, by their names
	SpecialFile    Reason = "special_file"   // pipes, sockets and devices
	BrokenLink     Reason = "broken_link"    // links to nothing
	UnreadFolder   Reason = "unread_folder"  // folders that cannot be read
	UncountedFiles Reason = "uncounted"      // folders whose files are too many to be counted
	UnknownColumn  Reason = "column"         // columns of a list that it has no use for
	BadFile        Reason = "bad_file"       // what Set.Skipped names
	EmptyFolder    Reason = "empty_folder"   // folders of a type of defect, or of good parts, in which there are no images
)

// reasons in the order in which they are told, with what they are told of.
var reasons = []struct {
	Reason
	one, many, why string
	are            bool // whether the folders, or columns, are what is counted, not where it lies
}{
	{InSubfolder, "image", "images", " (subfolders: {recursive})", false},
	{OutsideLayout, "image", "images", " (not used by the layout)", false},
	{MaskNotNeeded, "mask", "masks", " (not needed)", false},
	{Heatmap, "heat map of infer image", "heat maps of infer image", "", false},
	{NoImageType, "file of no image type", "files of no image type", "", false},
	{Hidden, "hidden file", "hidden files", "", false},
	{SpecialFile, "pipe, socket or device", "pipes, sockets or devices", "", false},
	{BrokenLink, "link to nothing", "links to nothing", "", false},
	{UnreadFolder, "folder that cannot be read", "folders that cannot be read", "", true},
	{UncountedFiles, "folder too large to be counted", "folders too large to be counted", "", true},
	{EmptyFolder, "folder without images", "folders without images", "", true},
	{UnknownColumn, "unknown column", "unknown columns", "", true},
	{BadFile, "bad file", "bad files", " ({skip_bad})", false},
}

// Taken counts what the set holds.
func (s *Set) Taken() Taken {
	t := Taken{Train: len(s.Train), LeftOut: slices.Clone(s.left)}
	if n := len(s.Skipped); n > 0 {
		t.LeftOut = append(t.LeftOut, Left{Reason: BadFile, Count: n})
	}
	types := make(map[string]int)
	folders := make(map[string]bool)
	for _, item := range s.Test {
		if !item.Defective {
			t.TestGood++
			continue
		}
		t.Defective++
		types[item.Type]++
		if item.Mask != "" {
			t.Masks++
			folders[s.maskFolder(item.Mask)] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(types)) {
		t.Types = append(t.Types, TypeCount{printable.Text(name), types[name]})
	}
	t.MaskFolders = slices.Sorted(maps.Keys(folders))
	for _, item := range s.copies {
		t.Copies = append(t.Copies, s.relative(item.Path))
	}
	return t
}

// maskFolder is the folder of masks that a mask lies in, for people.
func (s *Set) maskFolder(mask string) string {
	for _, root := range s.maskRoots {
		if strings.HasPrefix(mask, root+string(filepath.Separator)) {
			return s.relative(root)
		}
	}
	return s.relative(filepath.Dir(mask))
}

// relative is a path as seen from the set's folder, where it is below that, for
// people.
func (s *Set) relative(path string) string {
	if rel, err := filepath.Rel(absolute(s.root), absolute(path)); err == nil && filepath.IsLocal(rel) {
		path = rel
	}
	return printable.Text(filepath.ToSlash(path))
}

// Names of types and folders that String writes at most.
const (
	namedTypes   = 10
	namedFolders = 4
)

// String says all of it in one line. Settings in it have their fields' names.
func (t Taken) String() string { return t.Text(settingName) }

// Text is String with settings called what name makes of their fields' names.
func (t Taken) Text(name func(field string) string) string {
	test := "no test images"
	if t.TestGood+t.Defective > 0 {
		test = fmt.Sprintf("test %d good, %d defective", t.TestGood, t.Defective)
	}
	if len(t.Types) > 0 {
		names := make([]string, len(t.Types))
		for i, c := range t.Types {
			names[i] = fmt.Sprintf("%s %d", c.Type, c.Count)
		}
		test += " (" + enumerate(names, namedTypes) + ")"
	}
	parts := []string{fmt.Sprintf("train %d good", t.Train), test}
	if t.Defective > 0 {
		masks := "no masks"
		if t.Masks > 0 {
			masks = fmt.Sprintf("masks %d in %s", t.Masks, enumerate(t.MaskFolders, namedFolders))
		}
		parts = append(parts, masks)
	}
	if text := t.CopiesText(); text != "" {
		parts = append(parts, text)
	}
	return strings.Join(append(parts, t.leftOut(name)), " | ")
}

// CopiesText says which test images the model knows from training, in words; "" where none.
func (t Taken) CopiesText() string {
	if len(t.Copies) == 0 {
		return ""
	}
	return count(len(t.Copies), "test image is a copy of one to train on", "test images are copies of ones to train on") + ": " +
		enumerate(t.Copies, namedFolders)
}

// LeftOutText says what was left out, in words, as String does.
func (t Taken) LeftOutText() string { return t.leftOut(settingName) }

func settingName(field string) string { return field }

func (t Taken) leftOut(name func(field string) string) string {
	if len(t.LeftOut) == 0 {
		return "nothing left out"
	}
	texts := make([]string, len(t.LeftOut))
	for i, l := range t.LeftOut {
		texts[i] = l.text(name)
	}
	return "left out: " + strings.Join(texts, ", ")
}

func (l Left) String() string { return l.text(settingName) }

func (l Left) text(name func(field string) string) string {
	for _, r := range reasons {
		if r.Reason != l.Reason {
			continue
		}
		text := count(l.Count, r.one, r.many)
		between := " in "
		if r.are {
			between = ": "
		}
		if len(l.Folders) > 0 {
			text += between + enumerate(l.Folders, namedFolders)
		}
		return text + setting.Expand(r.why, name)
	}
	return fmt.Sprintf("%d files (%s)", l.Count, l.Reason)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// enumerate joins at most n names, and says how many more there are.
func enumerate(names []string, n int) string {
	if more := len(names) - n; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), more)
	}
	return strings.Join(names, ", ")
}

// leftLimit is how many names are looked at for what was left out.
const leftLimit = 200_000

// leftCounter goes through folders and counts what a set does not use.
type leftCounter struct {
	set     *Set
	used    map[string]bool // absolute paths of files
	read    map[string]bool // of folders whose images were taken
	masks   map[string]bool // of folders of masks
	seen    map[string]bool // of folders, links resolved
	counts  map[Reason]int
	folders map[Reason]map[string]bool
	names   int
}

// countLeft fills left with what lies below the folders and is no part of the
// set.
func (s *Set) countLeft(dirs ...string) {
	c := &leftCounter{set: s, used: make(map[string]bool), read: make(map[string]bool), masks: make(map[string]bool),
		seen: make(map[string]bool), counts: make(map[Reason]int), folders: make(map[Reason]map[string]bool)}
	for _, item := range slices.Concat(s.Train, s.Test) {
		c.used[absolute(item.Path)] = true
		if item.Mask != "" {
			c.used[absolute(item.Mask)] = true
		}
	}
	for _, skip := range s.Skipped {
		c.used[absolute(skip.Path)] = true
	}
	for _, dir := range s.read {
		c.read[absolute(dir)] = true
	}
	for _, dir := range s.maskRoots {
		c.masks[absolute(dir)] = true
	}
	for _, dir := range dirs {
		c.walk(absolute(dir), false, false)
	}
	for _, r := range reasons {
		if n := c.counts[r.Reason]; n > 0 {
			s.left = append(s.left, Left{r.Reason, n, slices.Sorted(maps.Keys(c.folders[r.Reason]))})
		}
	}
}

// walk counts what is in dir; read and masks say what a folder above it is.
func (c *leftCounter) walk(dir string, read, masks bool) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil || c.seen[real] {
		return
	}
	c.seen[real] = true
	if c.names > leftLimit {
		c.add(UncountedFiles, 1, dir)
		return
	}
	l, err := list(dir)
	if err != nil {
		c.add(UnreadFolder, 1, dir)
		return
	}
	read, masks = read || c.read[dir], masks || c.masks[dir] || isMaskFolder(filepath.Base(dir)) && dir != absolute(c.set.root)
	images := OutsideLayout
	switch {
	case masks:
		images = MaskNotNeeded
	case read:
		images = InSubfolder
	}
	if !c.used[dir] { // a folder of masks for one image is
		c.add(images, c.unused(dir, l.images), dir)
		c.add(MaskNotNeeded, c.unused(dir, l.masks), dir)
		if drawn := c.unused(dir, l.drawn); masks {
			c.add(MaskNotNeeded, drawn, dir)
		} else {
			c.add(NoImageType, drawn, "")
		}
	}
	if c.read[dir] && len(l.images)+len(l.masks)+len(l.heatmaps)+len(l.folders) == 0 {
		c.add(EmptyFolder, 1, dir)
	}
	c.add(Heatmap, len(l.heatmaps), "")
	c.add(NoImageType, len(l.others), "")
	c.add(Hidden, len(l.hidden), "")
	c.add(SpecialFile, len(l.special), "")
	c.add(BrokenLink, len(l.lost), "")
	c.names += len(l.images) + len(l.masks) + len(l.drawn) + len(l.others) + len(l.folders)
	for _, name := range l.folders {
		c.walk(filepath.Join(dir, name), read, masks)
	}
}

func (c *leftCounter) unused(dir string, names []string) (n int) {
	for _, name := range names {
		if !c.used[filepath.Join(dir, name)] {
			n++
		}
	}
	return n
}

// add counts files in a folder, which is "" where it does not matter.
func (c *leftCounter) add(reason Reason, n int, dir string) {
	if n == 0 {
		return
	}
	c.counts[reason] += n
	if dir == "" {
		return
	}
	if c.folders[reason] == nil {
		c.folders[reason] = make(map[string]bool)
	}
	c.folders[reason][strings.TrimSuffix(c.set.relative(dir), "/")+"/"] = true
}

// isFolder says whether there is a folder at path.
func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
