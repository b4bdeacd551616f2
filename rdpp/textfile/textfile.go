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

// MaxBytes is the largest file that Read accepts, in bytes.
const MaxBytes = 64 << 20

// Read reads the file at path as [Decode] does. It may be a pipe, of which no more than MaxBytes are read. The errors name it.
func Read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("textfile: %w", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("textfile: %s: is a directory, name a file", path)
	}
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
