package dataset

import (
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"rdpp/rdpp/regular"
)

// Fingerprint returns a hexadecimal SHA-256 over the names and contents of the
// items' image files, so that a model can say what it was trained on. Names
// are relative to the deepest folder that holds all items: moving a data set
// does not change it, nor does the items' order. Files are streamed.
//
// It is the SHA-256 of what `sha256sum NAME...` prints in that folder for the
// names in byte order, and behind them what it prints of the masks of what is
// ignored, with their images' names and a star.
func Fingerprint(items []Item) (string, error) {
	if len(items) == 0 {
		return "", fmt.Errorf("dataset: nothing to fingerprint: %w", ErrEmpty)
	}
	paths, masks := make([]string, len(items)), make(map[string]string)
	for i, item := range items {
		paths[i] = filepath.ToSlash(absolute(item.Path))
		masks[paths[i]] = item.Ignore
	}
	slices.Sort(paths)
	prefix := commonFolder(paths[0], paths[len(paths)-1])

	sums := sha256.New()
	content := sha256.New()
	for _, path := range paths {
		content.Reset()
		if err := copyFile(content, path); err != nil {
			return "", fmt.Errorf("dataset: %w", err)
		}
		fmt.Fprintf(sums, "%x  %s\n", content.Sum(nil), path[len(prefix):])
	}
	for _, path := range paths {
		if masks[path] == "" {
			continue
		}
		content.Reset()
		if err := copyFile(content, masks[path]); err != nil {
			return "", fmt.Errorf("dataset: %w", err)
		}
		fmt.Fprintf(sums, "%x *%s\n", content.Sum(nil), path[len(prefix):])
	}
	return fmt.Sprintf("%x", sums.Sum(nil)), nil
}

// commonFolder returns the longest folder, with its slash, that holds both
// paths; of a sorted list, the first and last path's is everyone's.
func commonFolder(a, b string) string {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return a[:strings.LastIndexByte(a[:n], '/')+1]
}

func copyFile(w io.Writer, path string) error {
	f, err := regular.Open(filepath.FromSlash(path))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}
