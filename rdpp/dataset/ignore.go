package dataset

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"rdpp/rdpp/printable"
)

// ErrIgnore says that masks of what is not scored cannot be used. The error names the file.
var ErrIgnore = errors.New("not usable as masks of what is ignored")

// ignore gives items their masks of what is not scored: path is one mask for all of them, or a folder of masks, each named
// like its image, in sub-folders like the image's own where names alone do not tell. One that belongs to no image is refused,
// unless some of the images are not there, as in tests alone: then one has to belong to one.
func (s *Set) ignore(path string, partial bool) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("dataset: %w: %w; check the path", ErrIgnore, err)
	}
	if !info.IsDir() {
		for _, items := range [][]Item{s.Train, s.Test} {
			for i := range items {
				items[i].Ignore = path
			}
		}
		return nil
	}
	index := imageIndex{}
	for _, items := range [][]Item{s.Train, s.Test} {
		for i := range items {
			index.add(&items[i])
		}
	}
	used := 0
	var walk func(dir string, key []string) error
	walk = func(dir string, key []string) error {
		l, err := list(dir)
		if err != nil {
			return err
		}
		for _, name := range l.inMasks() {
			file := filepath.Join(dir, name)
			of := index.of(append(key[:len(key):len(key)], name))
			if len(of) == 0 && !partial {
				return fmt.Errorf("dataset: %s: %w: there is no image of this name; name it like its image", printable.Text(file), ErrIgnore)
			}
			for _, item := range of {
				if item.Path != of[0].Path {
					return fmt.Errorf("dataset: %s: %w: it may be of %s or of %s; put it into folders like the images'", printable.Text(file), ErrIgnore,
						printable.Text(of[0].Path), printable.Text(item.Path))
				}
				if item.Ignore != "" && item.Ignore != file {
					return fmt.Errorf("dataset: %s: %w: the image %s has another one, %s; remove one of them, or put them into folders like the images'",
						printable.Text(file), ErrIgnore, printable.Text(item.Path), printable.Text(item.Ignore))
				}
				item.Ignore = file
				used++
			}
		}
		for _, name := range l.folders {
			if err := walk(filepath.Join(dir, name), append(key[:len(key):len(key)], name)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(path, nil); err != nil {
		return err
	}
	if used == 0 {
		return fmt.Errorf("dataset: %s: %w: none of the files is named like an image", printable.Text(path), ErrIgnore)
	}
	return nil
}

// MaskFiles finds the masks directly in a folder by the names of their images, without extension and without a word that
// says that it is a mask, such as 7 for 7_mask.png. Two of one name are refused.
func MaskFiles(dir string) (map[string]string, error) {
	l, err := list(dir)
	if err != nil {
		return nil, err
	}
	files := make(map[string]string)
	for _, name := range l.inMasks() {
		file := filepath.Join(dir, name)
		of, _ := cutMaskWord(stem(name))
		if other, twice := files[of]; twice {
			return nil, fmt.Errorf("dataset: %s: %w: %s is of the same image; remove one of them", printable.Text(file), ErrIgnore, printable.Text(other))
		}
		files[of] = file
	}
	return files, nil
}
