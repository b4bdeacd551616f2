// Package textfile reads the text files that people write by hand: lists, tables, tokens. Editors and shells of Windows
// save them with a byte order mark, or in UTF-16.
package textfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"rdpp/rdpp/regular"
)

// MaxBytes is the largest file that Read accepts, in bytes.
const MaxBytes = 64 << 20

// Read reads the file at path as [Decode] does, of at most MaxBytes. It must be a regular file: a pipe in its place waits for
// a writer who may never come. What the process has open already may be anything, as /dev/stdin and the shell's <(command)
// are. The errors name path.
func Read(path string) ([]byte, error) {
	file, err := open(path)
	switch {
	case errors.Is(err, regular.ErrFolder):
		return nil, fmt.Errorf("textfile: %w; name a file", err)
	case errors.Is(err, regular.ErrKind):
		return nil, fmt.Errorf("textfile: %w; name a file, or /dev/stdin", err)
	case err != nil:
		return nil, fmt.Errorf("textfile: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("textfile: %w", err)
	}
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("textfile: %s: no text file has more than %d bytes", path, MaxBytes)
	}
	text, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("textfile: %s: %w", path, err)
	}
	return text, nil
}

func open(path string) (*os.File, error) {
	place := filepath.Clean(path)
	for _, opened := range []string{"/dev/fd", "/proc/self/fd"} {
		if place == "/dev/stdin" || filepath.Dir(place) == opened {
			return os.Open(path)
		}
	}
	return regular.Open(path)
}

// Decode returns text as UTF-8 without a byte order mark. With the mark of UTF-16, of either byte order, it is converted;
// what has no mark stays as it is.
func Decode(data []byte) ([]byte, error) {
	text, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("textfile: %w", err)
	}
	return text, nil
}

func decode(data []byte) ([]byte, error) {
	text, _, err := transform.Bytes(unicode.BOMOverride(transform.Nop), data)
	if err != nil {
		return nil, fmt.Errorf("%w; save it as UTF-8", err)
	}
	return text, nil
}
