package batch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"

	"rdpp/rdpp/bucket"
	"rdpp/rdpp/bulk"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/queue"
	"rdpp/rdpp/regular"
)

// readTries is how often the reading of an image is tried, and firstPause how long the first pause between is; each is twice as
// long as the one before, up to lastPause, give or take a half: a minute in all.
const (
	readTries  = 8
	firstPause = 500 * time.Millisecond
	lastPause  = 15 * time.Second
)

// images reads images from disks and stores, several at once.
type images struct {
	batch *bulk.Batch
	opt   *imagefile.Options
	first time.Duration // firstPause, or less in tests

	mu     sync.Mutex
	stores map[string]*bucket.Store // by bucket
}

// fetched is the content of an image, or why there is none.
type fetched struct {
	name string
	data []byte
	err  error // of the image itself, which is told in the results

	place  string // the bucket; "": the disks
	either bool   // err may be the machine's
}

// fetch reads image i of a piece. The error is of the disk, the store or the network, when trying again has not helped; what is
// wrong with the image itself stands in the outcome.
func (im *images) fetch(ctx context.Context, room *backlog, name string, i int) (fetched, error) {
	f := fetched{name: im.batch.Prefix + name}
	path := im.batch.Path(name)
	if bulk.IsStore(path) {
		f.place, _, _ = bucket.Split(path) // read tells of its error
	}
	pauses := &backoff.ExponentialBackOff{InitialInterval: im.first, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: lastPause}
	held := int64(0)
	defer func() { // the content may be smaller than it was said to be
		if size := int64(len(f.data)); size < held {
			room.give(held - size)
		}
	}()
	data, err := backoff.Retry(ctx, func() ([]byte, error) {
		data, err := im.read(ctx, path, func(size int64) error {
			if size <= held {
				return nil
			}
			if err := room.take(ctx, i, size-held); err != nil {
				return err
			}
			held = size
			return nil
		})
		if err == nil {
			return data, nil
		}
		whose := blamed(path, err)
		if whose == ofMachine {
			return nil, err
		}
		f.err, f.either = errors.New(strings.ReplaceAll(err.Error(), path, f.name)), whose == ofEither // the machine's folder does not matter
		return nil, nil
	}, backoff.WithBackOff(pauses), backoff.WithMaxTries(readTries), backoff.WithMaxElapsedTime(0))
	if err != nil {
		return f, fmt.Errorf("batch: %s: %w: %w", f.name, queue.ErrAway, err)
	}
	f.data = data
	return f, nil
}

// read reads an image once reserve has made room for so many bytes.
func (im *images) read(ctx context.Context, path string, reserve func(size int64) error) ([]byte, error) {
	content, size, err := im.open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	switch limit := im.opt.MaxBytes(); {
	case size < 0:
		return nil, errors.New("the store does not say how large it is")
	case size > limit:
		return nil, tooLarge{size, limit}
	}
	if err := reserve(size); err != nil {
		return nil, err
	}
	var buffer bytes.Buffer
	buffer.Grow(int(size) + bytes.MinRead)
	n, err := buffer.ReadFrom(io.LimitReader(content, size))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	return buffer.Bytes(), err
}

// open opens what a batch calls an image.
func (im *images) open(ctx context.Context, path string) (content io.ReadCloser, size int64, err error) {
	if !bulk.IsStore(path) {
		file, err := regular.Open(path)
		if err != nil {
			return nil, 0, err
		}
		info, err := file.Stat()
		if err != nil {
			file.Close()
			return nil, 0, err
		}
		return file, info.Size(), nil
	}
	in, key, err := bucket.Split(path)
	if err != nil {
		return nil, 0, backoff.Permanent(err)
	}
	im.mu.Lock()
	store := im.stores[in]
	if store == nil {
		if store, err = bucket.Open(path, nil); err == nil {
			im.stores[in] = store
		}
	}
	im.mu.Unlock()
	if err != nil {
		return nil, 0, backoff.Permanent(err)
	}
	return store.Get(ctx, key)
}

// tooLarge is an image of more bytes than any has that is accepted.
type tooLarge struct{ size, limit int64 }

func (t tooLarge) Error() string {
	return fmt.Sprintf("of %d bytes, no image that is accepted has more than %d", t.size, t.limit)
}

// away is an error with queue.ErrAway, if it is the system's or a store's.
func away(err error) error {
	if number := syscall.Errno(0); errors.As(err, &number) || errors.Is(err, bulk.ErrStore) {
		return fmt.Errorf("%w: %w", queue.ErrAway, err)
	}
	return err
}

// blame says whom an error in reading an image is of.
type blame int

const (
	ofMachine blame = iota // or the network, or the store
	ofImage                // which trying again elsewhere would not mend
	ofEither               // the image's where others of the same place can be read
)

// ofThePath are what the system says of names that lead to no file, wherever the disk is.
var ofThePath = []error{syscall.ENOTDIR, syscall.EISDIR, syscall.ENAMETOOLONG, syscall.ELOOP}

// blamed says whom an error in reading what is at path is of.
func blamed(path string, err error) blame {
	var large tooLarge
	if errors.As(err, &large) {
		return ofImage
	}
	if bulk.IsStore(path) {
		switch {
		case errors.Is(err, bucket.ErrNotFound):
			return ofImage
		case errors.Is(err, bucket.ErrDenied), errors.Is(err, bucket.ErrArchived):
			return ofEither
		}
		return ofMachine
	}
	var number syscall.Errno
	switch {
	case errors.Is(err, regular.ErrKind):
		return ofImage
	case !errors.As(err, &number):
		return ofMachine
	case number == syscall.EACCES || number == syscall.EPERM:
		return ofEither
	case number == syscall.ENOENT:
		return whoseGap(filepath.Dir(path))
	case slices.Contains(ofThePath, error(number)):
		return ofImage
	}
	return ofMachine
}

// whoseGap says whose fault it is that a folder has no such file. One with nothing in it is what a share leaves that is not mounted.
func whoseGap(dir string) blame {
	folder, err := os.Open(dir)
	if err != nil {
		return ofEither
	}
	defer folder.Close()
	switch _, err := folder.Readdirnames(1); {
	case err == io.EOF:
		return ofMachine
	case err != nil:
		return ofEither
	}
	return ofImage
}

// census counts, by place, the images of a piece that could be read and those that could not for a reason that may be the
// machine's.
type census map[string]*struct {
	read, unread int
	example      error
}

// add counts an image.
func (c census) add(f fetched) {
	at := c[f.place]
	if at == nil {
		at = new(struct {
			read, unread int
			example      error
		})
		c[f.place] = at
	}
	switch {
	case f.err == nil:
		at.read++
	case f.either:
		at.unread++
		at.example = f.err
	}
}

// fault is the error about a place of which no image could be read, nil where there is none.
func (c census) fault() error {
	for _, at := range c {
		if at.unread > 0 && at.read == 0 {
			return fmt.Errorf("batch: %w: none of %d images of the piece can be read on this machine, such as %w", queue.ErrAway, at.unread, at.example)
		}
	}
	return nil
}

// backlog bounds the bytes of images that have been read and not been taken. The image that is wanted next never waits, or nothing
// would go on; so it holds what it is to, and one image more.
type backlog struct {
	limit int64

	mu      sync.Mutex
	changed sync.Cond
	held    int64
	next    int // the image of the piece that is wanted next
}

func newBacklog(limit int64) *backlog {
	b := &backlog{limit: limit}
	b.changed.L = &b.mu
	return b
}

// take waits until image i may hold n more bytes.
func (b *backlog) take(ctx context.Context, i int, n int64) error {
	defer context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.changed.Broadcast()
	})()
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.held+n > b.limit && i > b.next {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.changed.Wait()
	}
	b.held += n
	return nil
}

// give returns n bytes.
func (b *backlog) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held -= n
	b.changed.Broadcast()
}

// want says that image i of the piece is wanted next.
func (b *backlog) want(i int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next = i
	b.changed.Broadcast()
}
