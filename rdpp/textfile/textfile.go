// Package textfile reads the text files that people write by hand: lists, tables, tokens. Editors and shells of Windows
// save them with a byte order mark, or in UTF-16.
package textfile

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// MaxBytes is the largest file that Read accepts.
const MaxBytes = 64 << 20

// Read reads the file at path as [Decode] does. The errors name it.
func Read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("textfile: %w", err)
	case info.IsDir():
		return nil, fmt.Errorf("textfile: %s: is a directory, name a file", path)
	case info.Size() > MaxBytes:
		return nil, fmt.Errorf("textfile: %s: %d bytes are no text file, the limit is %d", path, info.Size(), MaxBytes)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("textfile: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, MaxBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("textfile: %w", err)
	case len(data) > MaxBytes: // a device or a pipe, which has no size beforehand
		return nil, fmt.Errorf("textfile: %s: more than %d bytes, the limit; name a text file", path, MaxBytes)
	}
	text, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("textfile: %s: %w", path, err)
	}
	return text, nil
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
