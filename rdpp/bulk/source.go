package bulk

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"rdpp/rdpp/bucket"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/regular"
)

// Source names images: a folder with those below it, what lies below a name in an S3-compatible store, or a list.
type Source struct {
	Named        string // as the user has it
	Root, Prefix string // as Batch has them
	List         string // the file of a list; else ""

	below string // in the store
}

// The kinds of sources.
const (
	aList   = "list"
	aFolder = "folder"
	aStore  = "store"
)

func (s *Source) kind() string {
	switch {
	case s.List != "":
		return aList
	case IsStore(s.Root):
		return aStore
	}
	return aFolder
}

// IsStore says whether a name is one in a store, s3://BUCKET/KEY.
func IsStore(name string) bool { return strings.HasPrefix(name, bucket.Scheme) }

// Find says what a name stands for.
func Find(named string) (*Source, error) {
	if IsStore(named) {
		in, key, err := bucket.Split(named)
		if err != nil {
			return nil, fmt.Errorf("bulk: %w", err)
		}
		if key != "" && !strings.HasSuffix(key, "/") {
			key += "/"
		}
		root := bucket.Scheme + in + "/"
		return &Source{Named: named, Root: root, Prefix: root, below: key}, nil
	}
	info, err := os.Stat(named)
	if err != nil {
		return nil, fmt.Errorf("bulk: %w; name a list, a folder or s3://BUCKET/FOLDER", err)
	}
	dir := named
	if !info.IsDir() {
		dir = filepath.Dir(named)
	}
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("bulk: %w", err)
	}
	s := &Source{Named: named, Root: root}
	if info.IsDir() {
		s.Prefix = strings.TrimSuffix(filepath.Join(named, "x"), "x")
	} else {
		s.List = named
	}
	return s, nil
}

// names yields the images, ascending.
func (s *Source) names(ctx context.Context) (iter.Seq2[string, error], error) {
	switch {
	case s.List != "":
		return sorted(s.List)
	case IsStore(s.Root):
		store, err := bucket.Open(s.Root, nil)
		if err != nil {
			return nil, fmt.Errorf("bulk: %w", err)
		}
		return photographs(store.List(ctx, s.below)), nil
	}
	return func(yield func(string, error) bool) { walk(s.Root, "", yield) }, nil
}

// digest is the SHA-256 that a batch of a list has of it.
func (s *Source) digest(ctx context.Context) (string, error) {
	names, err := s.names(ctx)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	buffer := bufio.NewWriterSize(hash, 1<<16)
	for name, err := range names {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return "", err
		}
		buffer.WriteString(name)
		buffer.WriteByte('\n')
	}
	buffer.Flush() // to a hash, which takes all
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// count is how many names there are, up to most; what is wrong with them is found by whoever takes them.
func count(names iter.Seq2[string, error], most int) (n int) {
	for _, err := range names {
		if n++; err != nil || n >= most {
			break
		}
	}
	return n
}

// photographs are the images among the objects of a store.
func photographs(names iter.Seq2[string, error]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range names {
			if err == nil && !isPhotograph(path.Base(name)) {
				continue
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}

func isPhotograph(name string) bool { return imagefile.IsImage(name) && !strings.HasPrefix(name, ".") }

// walk yields the images in a folder and below it, ascending, with below before their names, and says whether to go on. Links to
// folders are not followed.
func walk(dir, below string, yield func(string, error) bool) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return yield("", err)
	}
	var images []string
	order := make([]string, 0, len(entries)) // a folder's name ends in a slash, as in the paths that are to ascend
	for _, e := range entries {
		switch name := e.Name(); {
		case e.IsDir() && !strings.HasPrefix(name, "."):
			order = append(order, name+"/")
		case !e.IsDir() && isPhotograph(name):
			images, order = append(images, name), append(order, name)
		}
	}
	slices.Sort(order)
	drawn := imagefile.Heatmaps(dir, images)
	for _, name := range order {
		if inside, isDir := strings.CutSuffix(name, "/"); isDir {
			if !walk(filepath.Join(dir, inside), below+name, yield) {
				return false
			}
		} else if !drawn[name] && !yield(below+name, nil) {
			return false
		}
	}
	return true
}

const (
	// MostUnsorted is how many names a list may have that is not sorted, and so is held in memory.
	MostUnsorted = 10_000_000
	longestLine  = 64 << 10 // bytes
)

// sorted yields the names in a file, ascending.
func sorted(file string) (iter.Seq2[string, error], error) {
	n, ascending := 0, true
	before := ""
	for name, err := range lines(file) {
		if err != nil {
			return nil, err
		}
		ascending = ascending && before < name
		before = name
		n++
	}
	if ascending {
		return lines(file), nil
	}
	if n > MostUnsorted {
		return nil, fmt.Errorf("bulk: %s: %d names that are not sorted, at most %d are; sort the file by `LC_ALL=C sort -u`", file, n, MostUnsorted)
	}
	names := make([]string, 0, n)
	for name, err := range lines(file) {
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return func(yield func(string, error) bool) {
		for _, name := range names {
			if !yield(name, nil) {
				return
			}
		}
	}, nil
}

// lines yields the names in a file.
func lines(file string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		f, err := regular.Open(file)
		if errors.Is(err, regular.ErrKind) {
			err = fmt.Errorf("%w; save the list to a file, which is read twice", err)
		}
		if err != nil {
			yield("", fmt.Errorf("bulk: %w", err))
			return
		}
		defer f.Close()
		for name, err := range namesIn(f) {
			if err != nil {
				err = fmt.Errorf("bulk: %s, %w", file, err)
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}

// namesIn yields the names in a text, one a line. Empty lines are none; a byte order mark and Windows' line ends are accepted.
func namesIn(text io.Reader) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		scanner := bufio.NewScanner(text)
		scanner.Buffer(make([]byte, 0, 4096), longestLine)
		n := 0
		for scanner.Scan() {
			line := scanner.Bytes()
			if n++; n == 1 {
				line = bytes.TrimPrefix(line, []byte("\ufeff"))
			}
			line = bytes.TrimSuffix(line, []byte("\r"))
			switch {
			case len(line) == 0:
				continue
			case n == 1 && (line[0] == '{' && json.Valid(line) || bytes.HasPrefix(line, []byte("path,"))): // which would be images that are not there
				yield("", errors.New("line 1: this is a list in CSV or JSON, such as training takes; write the path of an image a line, and nothing else"))
				return
			case bytes.IndexByte(line, 0) >= 0:
				yield("", fmt.Errorf("line %d: a zero byte; save it as UTF-8, an image a line", n))
				return
			}
			if !yield(string(line), nil) {
				return
			}
		}
		switch err := scanner.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			yield("", fmt.Errorf("line %d: more than %d bytes; write an image a line", n+1, longestLine))
		case err != nil && !errors.Is(err, fs.ErrClosed):
			yield("", fmt.Errorf("line %d: %w", n+1, err))
		}
	}
}
