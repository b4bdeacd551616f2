// Package regular opens files that must be ordinary ones. A pipe, a device or a socket in the place of a file never makes
// the program wait, and never gives it more bytes than it asked for.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ErrKind is wrapped by the errors about what is no ordinary file.
var ErrKind = errors.New("not a regular file")

// ErrFolder is wrapped, beside ErrKind, by the errors about folders.
var ErrFolder = errors.New("a folder")

// ErrLarge is wrapped by the errors about a file of more bytes than were asked for.
var ErrLarge = errors.New("too large")

// Open opens a regular file, or what a link leads to, for reading. Of anything else the error wraps ErrKind and says what
// it is. It does not wait: not for a pipe's writer, not for a terminal.
func Open(path string) (*os.File, error) {
	// Opening a device can do something to it, so the kind is looked at first. It is looked at again in the opened file, as
	// another can have taken its place.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if err := check(path, info); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err = file.Stat(); err == nil {
		err = check(path, info)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// check says what is at path instead of a regular file.
func check(path string, info fs.FileInfo) error {
	kind := errors.New("a device")
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		kind = ErrFolder
	case mode&fs.ModeNamedPipe != 0:
		kind = errors.New("a pipe")
	case mode&fs.ModeSocket != 0:
		kind = errors.New("a socket")
	}
	return fmt.Errorf("%s: %w but %w", path, ErrKind, kind)
}

// ReadFile returns the content of a regular file of at most limit bytes. Of a larger one the error wraps ErrLarge.
func ReadFile(path string, limit int64) ([]byte, error) {
	file, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > limit {
		return nil, large(path, limit)
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit { // it grows while it is read
		return nil, large(path, limit)
	}
	return data, nil
}

func large(path string, limit int64) error {
	return fmt.Errorf("%s: %w: more than %d bytes", path, ErrLarge, limit)
}
