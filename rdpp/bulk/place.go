package bulk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/bucket"
	"rdpp/rdpp/regular"
)

// place is where the files of a batch are: a folder, or a part of a store. Names have slashes. What is not there is fs.ErrNotExist.
// Files are written whole or not at all.
type place interface {
	path(name string) string // as people know it
	size(name string) (int64, error)
	read(name string) ([]byte, error)
	part(name string, from, to int64) ([]byte, error)
	open(ctx context.Context, name string) (io.ReadCloser, error)

	write(name string, write func(io.Writer) error) error
	// writeNew writes a file that nobody has written before; else the error is fs.ErrExist.
	writeNew(name string, content []byte) error
	// writeAs writes a file whose name is known at its end.
	writeAs(write func(io.Writer) error, name func() string) error
	remove(name string) error

	// readable opens a file of results. Where it fails, it fails at once.
	readable(ctx context.Context, name string) (io.ReadCloser, error)
	// names are the files in a folder of results.
	names(folder string) (map[string]bool, error)
	// lock keeps other processes out that make a batch. atomicfile.ErrLocked says that one does.
	lock() (io.Closer, error)
}

// placeOf is the place that a name stands for.
func placeOf(dir string) (place, error) {
	if !IsStore(dir) {
		return disk(dir), nil
	}
	in, key, err := bucket.Split(dir)
	if err != nil {
		return nil, fmt.Errorf("bulk: %w", err)
	}
	s, err := bucket.Open(dir, nil)
	if err != nil {
		return nil, fmt.Errorf("bulk: %w", err)
	}
	if key != "" && !strings.HasSuffix(key, "/") {
		key += "/"
	}
	return &objects{bucket: s, named: bucket.Scheme + in + "/" + key, below: key}, nil
}

// disk is a folder.
type disk string

func (d disk) path(name string) string { return filepath.Join(string(d), filepath.FromSlash(name)) }

func (d disk) size(name string) (int64, error) {
	info, err := os.Lstat(d.path(name))
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file; remove it", d.path(name))
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (d disk) read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

func (d disk) part(name string, from, to int64) ([]byte, error) {
	file, err := regular.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content := make([]byte, to-from)
	_, err = file.ReadAt(content, from)
	return content, err
}

func (d disk) open(_ context.Context, name string) (io.ReadCloser, error) {
	return regular.Open(d.path(name))
}

func (d disk) readable(ctx context.Context, name string) (io.ReadCloser, error) {
	return d.open(ctx, name)
}

func (d disk) write(name string, write func(io.Writer) error) error {
	return ownFirst(write, func(write func(io.Writer) error) error { return atomicfile.Write(d.path(name), write) })
}

// ownFirst places what write writes. What write itself fails with, such as pieces that are missing, is no error of the file's.
func ownFirst(write func(io.Writer) error, place func(write func(io.Writer) error) error) error {
	var own error
	err := place(func(w io.Writer) error {
		own = write(w)
		return own
	})
	if own != nil {
		return own
	}
	return err
}

func (d disk) writeNew(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(d.path(name)), 0o777); err != nil {
		return err
	}
	return atomicfile.WriteNew(d.path(name), func(file *os.File) error {
		_, err := file.Write(content)
		return err
	})
}

func (d disk) writeAs(write func(io.Writer) error, name func() string) error {
	temporary := d.path(temporaryName())
	defer os.Remove(temporary) // where it has not got its name
	if err := ownFirst(write, func(write func(io.Writer) error) error { return atomicfile.Write(temporary, write) }); err != nil {
		return err
	}
	return os.Rename(temporary, d.path(name()))
}

func (d disk) remove(name string) error { return os.Remove(d.path(name)) }

func (d disk) names(below string) (map[string]bool, error) {
	entries, err := os.ReadDir(d.path(below))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
	}
	return names, err
}

func (d disk) lock() (io.Closer, error) {
	lock, _, err := atomicfile.Lock(string(d))
	return lock, err
}

// ErrStore is wrapped by the errors of stores that results are in.
var ErrStore = errors.New("the store of the results")

// objects is what lies in a bucket below a key.
type objects struct {
	bucket       *bucket.Store
	named, below string

	mu     sync.Mutex
	listed map[string]map[string]bool // the results' files, by their folders
	next   time.Time                  // when they may be listed again
}

// What was listed of a store is taken for what is there for so long, and for so many times as long as the listing took: listings cost
// money.
const (
	relistAfter = 10 * time.Second
	relistTimes = 20
)

func (s *objects) path(name string) string { return s.named + name }

// failed is an error of the store as one of the place.
func (s *objects) failed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bucket.ErrNotFound):
		return fmt.Errorf("%w (%w)", err, fs.ErrNotExist)
	case errors.Is(err, bucket.ErrExists):
		return fmt.Errorf("%w (%w)", err, fs.ErrExist)
	}
	return fmt.Errorf("%w: %w", ErrStore, err)
}

func (s *objects) size(name string) (int64, error) {
	n, err := s.bucket.Size(context.Background(), s.below+name)
	return n, s.failed(err)
}

func (s *objects) read(name string) ([]byte, error) {
	content, err := s.bucket.Read(context.Background(), s.below+name)
	return content, s.failed(err)
}

func (s *objects) part(name string, from, to int64) ([]byte, error) {
	content, err := s.bucket.Part(context.Background(), s.below+name, from, to)
	return content, s.failed(err)
}

func (s *objects) open(ctx context.Context, name string) (io.ReadCloser, error) {
	content, _, err := s.bucket.Get(ctx, s.below+name)
	if err != nil {
		return nil, s.failed(err)
	}
	return content, nil
}

func (s *objects) readable(ctx context.Context, name string) (io.ReadCloser, error) {
	content, err := s.bucket.Read(ctx, s.below+name) // again, where that fails
	return io.NopCloser(bytes.NewReader(content)), s.failed(err)
}

func (s *objects) write(name string, write func(io.Writer) error) error {
	return s.writeAs(write, func() string { return name })
}

func (s *objects) writeNew(name string, content []byte) error {
	return s.failed(s.bucket.Put(context.Background(), s.below+name, bytes.NewReader(content), int64(len(content)), true))
}

func (s *objects) writeAs(write func(io.Writer) error, name func() string) error {
	file, err := os.CreateTemp("", "rdpp-")
	if err != nil {
		return err
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil { // so that nothing is left of a killed process
		return err
	}
	if err := write(file); err != nil {
		return err
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	return s.failed(s.bucket.Put(context.Background(), s.below+name(), file, size, false))
}

func (s *objects) remove(name string) error {
	return s.failed(s.bucket.Remove(context.Background(), s.below+name))
}

func (s *objects) names(below string) (map[string]bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listed != nil && time.Now().Before(s.next) {
		return s.listed[below], nil
	}
	began, listed := time.Now(), map[string]map[string]bool{}
	for key, err := range s.bucket.List(context.Background(), s.below+folder+"/") {
		if err != nil {
			return nil, s.failed(err)
		}
		dir, name := path.Split(strings.TrimPrefix(key, s.below))
		dir = strings.TrimSuffix(dir, "/")
		if listed[dir] == nil {
			listed[dir] = map[string]bool{}
		}
		listed[dir][name] = true
	}
	s.listed, s.next = listed, time.Now().Add(max(relistAfter, relistTimes*time.Since(began)))
	return listed[below], nil
}

// lock keeps nobody out: the batch that is written first counts.
func (s *objects) lock() (io.Closer, error) { return io.NopCloser(nil), nil }
