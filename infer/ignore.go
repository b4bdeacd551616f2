package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/printable"
)

// ignored are the masks of what is not scored: one for all images, or files for some of them.
type ignored struct {
	path  string // as it was named; "": there are none
	all   *imagefile.Mask
	files map[string]string // by the images' names without extension
	opt   imagefile.Options

	keptAll func() ([]byte, error) // the file of all, as kept has it
}

// readIgnored reads the mask in a file, or finds those in a folder; path "": there are none.
func readIgnored(path string, maxPixels int64) (*ignored, error) {
	i := &ignored{path: path, opt: imagefile.Options{MaxPixels: maxPixels}}
	if path == "" {
		return i, nil
	}
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		if i.files, err = dataset.MaskFiles(path); err == nil && len(i.files) == 0 {
			err = fmt.Errorf("%s: no mask in this folder", path)
		}
	} else if err == nil {
		i.all, err = imagefile.DecodeMaskFile(path, &i.opt)
		i.keptAll = sync.OnceValues(func() ([]byte, error) { return imagefile.EncodeMask(i.all) })
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, command.Usagef("--ignore: %w", err)
	case err != nil: // what the file holds is no wrong usage
		return nil, fmt.Errorf("--ignore: %w", err)
	}
	return i, nil
}

// own is an image's own mask file; "": it has none.
func (i *ignored) own(image string) string {
	name := filepath.Base(image)
	return i.files[name[:len(name)-len(filepath.Ext(name))]]
}

// check refuses a folder of masks of which none is of the images, or one of several.
func (i *ignored) check(images []string) error {
	of := map[string]string{} // images by their masks
	for _, image := range images {
		mask := i.own(image)
		if other := of[mask]; mask != "" && other != "" && other != image {
			return command.Usagef("--ignore: %s may be of %s or of %s; judge them one by one", printable.Text(mask), printable.Text(other), printable.Text(image))
		}
		if mask != "" {
			of[mask] = image
		}
	}
	if i.files != nil && len(of) == 0 {
		return command.Usagef("--ignore %s: none of the files is named like an image", printable.Text(i.path))
	}
	return nil
}

// give names the masks of items, in the place of those that they have.
func (i *ignored) give(items []dataset.Item) error {
	paths := make([]string, len(items))
	for at := range items {
		paths[at] = items[at].Path
		if own := i.own(items[at].Path); own != "" {
			items[at].Ignore = own
		}
		if i.all != nil {
			items[at].Ignore = i.path
		}
	}
	return i.check(paths)
}

// read is the content of an image's own mask file, and what holding and decoding it takes; nil and 0 where it has none.
func (i *ignored) read(ctx context.Context, image string) (data []byte, bytes int64, err error) {
	file := i.own(image)
	if file == "" {
		return nil, 0, nil
	}
	data, err = command.Await(ctx, func() ([]byte, error) { return imagefile.ReadFile(file, &i.opt) })
	if err != nil {
		return nil, 0, fmt.Errorf("mask: %w", err)
	}
	w, h, cost, err := imagefile.Cost(data, &i.opt)
	if err != nil {
		return nil, 0, fmt.Errorf("mask %s: %w", file, err)
	}
	return data, int64(len(data)) + cost + int64(w)*int64(h), nil
}

// of is the mask of an image whose own mask file has that content: nil where nothing of the image is ignored.
func (i *ignored) of(data []byte, opt *imagefile.Options) (*imagefile.Mask, error) {
	if data == nil {
		return i.all, nil
	}
	m, err := imagefile.DecodeMask(data, opt)
	if err != nil {
		return nil, fmt.Errorf("mask: %w", err)
	}
	return m, nil
}

// kept is a mask that was used as a history has it; nil where there is none.
func (i *ignored) kept(m *imagefile.Mask) ([]byte, error) {
	switch {
	case m == nil || !slices.Contains(m.Pix, 1): // that draws nothing
		return nil, nil
	case m == i.all:
		return i.keptAll()
	}
	return imagefile.EncodeMask(m)
}
