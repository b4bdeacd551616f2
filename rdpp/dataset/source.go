package dataset

import (
	"errors"
	"fmt"
)

// ErrSource says that a Source names too little or too much.
var ErrSource = errors.New("not one source of images")

// Source says where the images of a data set are, as the flags of the commands
// do: exactly one of a folder of some layout, folders by their names, and a list.
// Its errors say which flags to use.
type Source struct {
	Data    string // --data: a folder, for Open
	Folders        // --good, --bad, --test-good, --masks, for OpenFolders
	List    string // --list: a file, for OpenList
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
		return fmt.Errorf("dataset: %w: --data is missing; name the images with it, or with --good DIR --bad DIR, or --list FILE", ErrSource)
	case given > 1:
		return fmt.Errorf("dataset: %w: --data, --list and the folders of --good and --bad exclude each other; use one of them", ErrSource)
	case folders && len(s.Good) == 0 && !testOnly:
		return fmt.Errorf("dataset: %w: there is nothing to train on; name folders of good images with --good", ErrSource)
	case folders && len(s.Good)+len(s.TestGood)+len(s.Bad) == 0, len(s.Masks) > 0 && len(s.Bad) == 0:
		return fmt.Errorf("dataset: %w: --masks are those of defective images; name their folders with --bad", ErrSource)
	}
	return nil
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
		return nil, fmt.Errorf("name the folders: --good DIR --bad DIR, or list the images: --list FILE; %w", err)
	case Skippable(err):
		return nil, fmt.Errorf("%w; --skip-bad leaves such files out", err)
	}
	if err == nil && s.Category != "" {
		set.Category = s.Category
	}
	return set, err
}
