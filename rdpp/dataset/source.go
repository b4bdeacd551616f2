package dataset

import (
	"errors"
	"fmt"

	"rdpp/rdpp/setting"
)

// ErrSource says that a Source names too little or too much.
var ErrSource = errors.New("not one source of images")

// Source says where the images of a data set are: exactly one of a folder of
// some layout, folders by their names, and a list. Its errors call these data,
// good, bad, test_good, masks and list.
type Source struct {
	Data    string // a folder, for Open
	Folders        // for OpenFolders
	List    string // a file, for OpenList
}

// Check says what is wrong with the source, before anything is read. testOnly is
// OpenOptions.TestOnly.
func (s *Source) Check(testOnly bool) error {
	folders := len(s.Good)+len(s.Bad)+len(s.TestGood)+len(s.Masks) > 0
	given := 0
	for _, is := range []bool{s.Data != "", folders, s.List != ""} {
		if is {
			given++
		}
	}
	switch {
	case given == 0:
		return refuse("{data} is missing; name the images with it, or with {good} DIR {bad} DIR, or {list} FILE")
	case given > 1:
		return refuse("{data}, {list} and the folders of {good} and {bad} exclude each other; use one of them")
	case folders && len(s.Good) == 0 && !testOnly:
		return refuse("there is nothing to train on; name folders of good images with {good}")
	case folders && len(s.Good)+len(s.TestGood)+len(s.Bad) == 0, len(s.Masks) > 0 && len(s.Bad) == 0:
		return refuse("{masks} are those of defective images; name their folders with {bad}")
	}
	return nil
}

func refuse(advice string) error {
	return fmt.Errorf("dataset: %w: %w", ErrSource, setting.Advise(nil, "%s", advice))
}

// Open opens the data set.
func (s *Source) Open(opt *OpenOptions) (set *Set, err error) {
	switch {
	case s.List != "":
		set, err = OpenList(s.List, opt)
	case s.Data == "":
		set, err = OpenFolders(s.Folders, opt)
	default:
		set, err = Open(s.Data, opt)
	}
	switch {
	case errors.Is(err, ErrUnrecognised):
		return nil, fmt.Errorf("%w; %w", setting.Advise(nil, "name the folders: {good} DIR {bad} DIR, or list the images: {list} FILE"), err)
	case Skippable(err):
		return nil, setting.Advise(err, "{skip_bad} leaves such files out")
	}
	if err == nil && s.Category != "" {
		set.Category = s.Category
	}
	if err == nil && opt != nil && opt.Ignore != "" {
		err = set.ignore(opt.Ignore, opt.TestOnly)
	}
	return set, err
}
