// Package bulk is scoring lists of images that are too long for one process: a list is sorted and written down once, cut into
// pieces, and each piece has one file of results, whose name follows from the work. So whoever does a piece, however often,
// makes the same file, and merging can tell that every image is there once. It knows nothing of networks.
//
// A folder, or a folder of a store, holds one batch:
//
//	batch.json          what it is of, written last
//	list-DIGEST.txt     the images, a line each, ascending
//	list-DIGEST.1000    where each piece, of 1000 images, begins in it
//	results/000/...     a file of JSON lines per piece, a thousand files to a folder
//	summary.json, worst.jsonl, broken.jsonl     what Merge made of them
package bulk

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"rdpp/rdpp/atomicfile"
)

// The files of a batch beside its results.
const (
	batchFile = "batch.json"
	folder    = "results"
)

// format is the version of the files. A program that does not know it refuses them.
const format = 1

// DefaultPerPiece is how many images a piece has at most, unless it is said.
const DefaultPerPiece = 1000

// perFolder is how many files of results lie in a folder.
const perFolder = 1000

// ErrOther is wrapped by the errors about a folder that holds another batch than the one asked for.
var ErrOther = errors.New("results of another batch")

// ErrNone is wrapped by the errors about a folder that holds no batch.
var ErrNone = errors.New("no batch")

// Work is what makes results what they are, beside the images.
type Work struct {
	Model string `json:"model"` // SHA-256 of the model file, 64 hexadecimal digits
	// Settings are what else a result depends on, a JSON value that the caller understands.
	Settings json.RawMessage `json:"settings"`
}

// Batch is a list of images, cut into pieces, and the work on them. It is safe for concurrent use.
type Batch struct {
	Format int `json:"format"`
	Work
	List     string `json:"list"`   // SHA-256 of the sorted list
	Images   int64  `json:"images"` // in it
	PerPiece int    `json:"per_piece"`
	Kind     string `json:"kind"` // of its source: list, folder or store
	// Root is where images lie that the list does not name from the root: a folder, or s3://BUCKET/.
	Root string `json:"root"`
	// Prefix stands before the list's names where results tell of images.
	Prefix string `json:"prefix"`
	// Below begins the names of a store's images that were listed.
	Below string `json:"below,omitempty"`

	place place
	dir   string
	id    string
	index []int64 // where pieces begin in the list, and its end
}

// Options say how a batch is made.
type Options struct {
	PerPiece int // images of a piece; 0: DefaultPerPiece, or what the batch that is there has
	Shards   int // how many processes share the batch, each of which is to have a piece; 0: one
}

// waits is how long Make waits between looks at another process that lists images for the same folder.
const waits = 500 * time.Millisecond

// Make returns the batch in a folder. Where there is none it makes one, of the images that source names then; from then on the
// list stays as it is. One process at a time does so and others wait, as far as the folder's locks reach; where they do not, several
// list the images, and the batch is of the list that is there first. A batch of other work, of another source or of pieces of
// another size is ErrOther.
func Make(ctx context.Context, dir string, source *Source, work Work, opt *Options) (*Batch, error) {
	if opt == nil {
		opt = &Options{}
	}
	at, err := placeOf(dir)
	if err != nil {
		return nil, err
	}
	for {
		b, err := Open(dir)
		if err == nil {
			return b, b.check(ctx, source, &work, opt)
		}
		if !errors.Is(err, ErrNone) {
			return nil, err
		}
		lock, err := at.lock()
		if errors.Is(err, atomicfile.ErrLocked) {
			select {
			case <-time.After(waits):
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if err != nil {
			return nil, fmt.Errorf("bulk: %w", err)
		}
		if _, err = Open(dir); errors.Is(err, ErrNone) { // nobody was quicker
			err = create(ctx, at, dir, source, work, opt)
		}
		lock.Close()
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
}

// Open opens the batch in a folder. Where there is none the error is ErrNone.
func Open(dir string) (*Batch, error) {
	at, err := placeOf(dir)
	if err != nil {
		return nil, err
	}
	path := at.path(batchFile)
	text, err := at.read(batchFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("bulk: %s: %w in this folder", dir, ErrNone)
	case err != nil:
		return nil, fmt.Errorf("bulk: %w", err)
	}
	b := &Batch{place: at, dir: dir}
	if err := json.Unmarshal(text, b); err != nil {
		return nil, fmt.Errorf("bulk: %s: %w; restore it, or begin in another folder", path, err)
	}
	if b.Format != format {
		return nil, fmt.Errorf("bulk: %s: format %d, this program reads %d; use the rdpp that wrote it", path, b.Format, format)
	}
	if b.Images < 1 || b.PerPiece < 1 {
		return nil, fmt.Errorf("bulk: %s: %d images in pieces of %d; restore it, or begin in another folder", path, b.Images, b.PerPiece)
	}
	b.id = b.identity()
	if err := b.readIndex(); err != nil {
		return nil, err
	}
	return b, nil
}

// listName is the file of the list. Its digest is in the name, so that who lists other images for the same folder at the same time
// writes another one.
func (b *Batch) listName() string { return fmt.Sprintf("list-%.16s.txt", b.List) }

func (b *Batch) indexName() string { return fmt.Sprintf("list-%.16s.%d", b.List, b.PerPiece) }

// readIndex reads where pieces begin, and holds it against the batch and the list.
func (b *Batch) readIndex() error {
	path := b.place.path(b.indexName())
	content, err := b.place.read(b.indexName())
	if err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	damaged := func(what string) error {
		return fmt.Errorf("bulk: %s: %s; restore it, or begin in another folder", path, what)
	}
	if len(content) != 8*(b.Pieces()+1) {
		return damaged(fmt.Sprintf("%d bytes, for %d pieces", len(content), b.Pieces()))
	}
	b.index = make([]int64, b.Pieces()+1)
	for i := range b.index {
		if b.index[i] = int64(binary.LittleEndian.Uint64(content[8*i:])); i > 0 && b.index[i] <= b.index[i-1] || b.index[0] != 0 {
			return damaged("pieces that do not follow each other")
		}
	}
	size, err := b.place.size(b.listName())
	if err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	if last := b.index[len(b.index)-1]; size != last {
		return damaged(fmt.Sprintf("the list has %d bytes and had %d", size, last))
	}
	return nil
}

// create writes the files of a batch.
func create(ctx context.Context, at place, dir string, source *Source, work Work, opt *Options) error {
	b := &Batch{Format: format, Work: work, Kind: source.kind(), Root: source.Root, Prefix: source.Prefix, Below: source.below, place: at, dir: dir, PerPiece: opt.PerPiece}
	names, err := source.names(ctx)
	if err != nil {
		return err
	}
	if b.PerPiece == 0 {
		b.PerPiece = DefaultPerPiece
		if opt.Shards > 1 { // of a short list each is to have something
			b.PerPiece = max(count(names, DefaultPerPiece*opt.Shards)/opt.Shards, 1)
		}
	}
	hash := sha256.New()
	var index []byte
	err = at.writeAs(func(w io.Writer) error {
		w = io.MultiWriter(w, hash)
		begins, before := int64(0), ""
		for name, err := range names {
			switch {
			case err != nil:
				return err
			case strings.Contains(name, "\n"):
				return fmt.Errorf("the name %q has a line feed in it; rename the image", name)
			case name == before:
				return fmt.Errorf("%q is there twice; `LC_ALL=C sort -u` makes a list of every name once", name)
			case name < before:
				return fmt.Errorf("%q comes behind %q; write the names to a file sorted by `LC_ALL=C sort -u`", name, before)
			}
			if b.Images%int64(b.PerPiece) == 0 {
				index = binary.LittleEndian.AppendUint64(index, uint64(begins))
				if err := ctx.Err(); err != nil {
					return err
				}
			}
			n, err := io.WriteString(w, name+"\n")
			if err != nil {
				return err
			}
			begins += int64(n)
			b.Images++
			before = name
		}
		if b.Images == 0 {
			return fmt.Errorf("no images in %s; name a list, a folder or a bucket that has some", source.Named)
		}
		index = binary.LittleEndian.AppendUint64(index, uint64(begins))
		return nil
	}, func() string {
		b.List = hex.EncodeToString(hash.Sum(nil))
		return b.listName()
	})
	if err != nil {
		return fmt.Errorf("bulk: the list: %w", err)
	}
	err = at.write(b.indexName(), func(w io.Writer) error {
		_, err := w.Write(index)
		return err
	})
	if err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	err = at.writeNew(batchFile, append(text, '\n'))
	if errors.Is(err, fs.ErrExist) { // another one was quicker; what it does not use nobody does
		if first, err := Open(dir); err == nil {
			for ours, used := range map[string]string{b.listName(): first.listName(), b.indexName(): first.indexName()} {
				if ours != used {
					at.remove(ours)
				}
			}
		}
	}
	if err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	return nil
}

// temporaryName is a file's that has no other one yet.
func temporaryName() string { return fmt.Sprintf(".list-%016x", rand.Uint64()) }

// check refuses a batch that is not the one asked for.
func (b *Batch) check(ctx context.Context, source *Source, work *Work, opt *Options) error {
	what := ""
	switch {
	case b.Model != work.Model:
		what = fmt.Sprintf("by the model %.12s..., not %.12s...", b.Model, work.Model)
	case compact(b.Settings) != compact(work.Settings):
		what = fmt.Sprintf("with the settings %s, not %s", compact(b.Settings), compact(work.Settings))
	case b.Kind != source.kind():
		what = fmt.Sprintf("of a %s, not a %s", b.Kind, source.kind())
	case b.Root != source.Root || b.Below != source.below || b.Prefix != source.Prefix:
		what = fmt.Sprintf("of images in %s%s, not %s%s", b.Root, b.Below, source.Root, source.below)
	case opt.PerPiece != 0 && opt.PerPiece != b.PerPiece:
		what = fmt.Sprintf("in pieces of %d images, not %d", b.PerPiece, opt.PerPiece)
	}
	if what == "" && source.List != "" { // one that has changed is another one
		list, err := source.digest(ctx)
		if err != nil {
			return err
		}
		if list != b.List {
			what = fmt.Sprintf("of the list %.12s..., not %.12s...", b.List, list)
		}
	}
	if what != "" {
		return fmt.Errorf("bulk: %s: %w, %s; name another folder, or remove this one", b.dir, ErrOther, what)
	}
	return nil
}

// compact is a JSON value without white space, or what is there in its place.
func compact(v json.RawMessage) string {
	if text, err := json.Marshal(v); err == nil { // which compacts; nil is null
		return string(text)
	}
	return string(v)
}

// ID is 64 hexadecimal digits that stand for the work, the list and its pieces. Where images lie is not in it.
func (b *Batch) ID() string { return b.id }

func (b *Batch) identity() string {
	hash := sha256.New()
	for _, part := range []string{fmt.Sprint(b.Format), b.Model, compact(b.Settings), b.List, fmt.Sprint(b.Images), fmt.Sprint(b.PerPiece), b.Prefix} {
		fmt.Fprintf(hash, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// Dir is the folder, or s3://BUCKET/FOLDER.
func (b *Batch) Dir() string { return b.dir }

// Pieces is how many pieces there are. They are numbered from 0.
func (b *Batch) Pieces() int {
	return int((b.Images + int64(b.PerPiece) - 1) / int64(b.PerPiece))
}

// Size is how many images a piece has.
func (b *Batch) Size(piece int) int {
	return int(min(int64(b.PerPiece), b.Images-int64(piece)*int64(b.PerPiece)))
}

// Names are the images of a piece, as the list has them.
func (b *Batch) Names(piece int) ([]string, error) {
	text, err := b.place.part(b.listName(), b.index[piece], b.index[piece+1])
	if err != nil {
		return nil, fmt.Errorf("bulk: %w", err)
	}
	names := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(names) != b.Size(piece) {
		return nil, fmt.Errorf("bulk: %s: %d names in piece %d, want %d; restore the list, or begin in another folder", b.place.path(b.listName()), len(names), piece, b.Size(piece))
	}
	return names, nil
}

// Path is where an image of the list is: a file, or s3://BUCKET/KEY.
func (b *Batch) Path(name string) string {
	switch {
	case IsStore(b.Root):
		return b.Root + name
	case IsStore(name) || filepath.IsAbs(name):
		return name
	}
	return filepath.Join(b.Root, name)
}

// Result is the file of a piece's results.
func (b *Batch) Result(piece int) string { return b.place.path(b.resultPath(piece)) }

func (b *Batch) resultPath(piece int) string {
	return resultFolder(piece/perFolder) + "/" + b.resultName(piece)
}

func resultFolder(i int) string { return fmt.Sprintf("%s/%03d", folder, i) }

func (b *Batch) resultName(piece int) string { return fmt.Sprintf("%09d-%.16s.jsonl", piece, b.id) }

// Done says whether a piece has its results.
func (b *Batch) Done(piece int) (bool, error) {
	_, err := b.place.size(b.resultPath(piece))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("bulk: %w", err)
	}
	return true, nil
}

// Place puts a piece's results into their place, whole or not at all. Where another process was quicker, its file stays.
func (b *Batch) Place(piece int, content []byte) error {
	if err := b.place.writeNew(b.resultPath(piece), content); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("bulk: %w", err)
	}
	return nil
}

// Counter tells which pieces have their results, over all processes. It reads a folder no more once all of it is there. One
// goroutine at a time may use it.
type Counter struct {
	b     *Batch
	whole map[int]bool // folders
}

// Counter returns one.
func (b *Batch) Counter() *Counter { return &Counter{b, map[int]bool{}} }

// Count is how many pieces have their results, and how many images these are.
func (c *Counter) Count() (pieces int, images int64, err error) {
	pieces, images = c.b.Pieces(), c.b.Images
	for piece, err := range c.Missing() {
		if err != nil {
			return 0, 0, err
		}
		pieces--
		images -= int64(c.b.Size(piece))
	}
	return pieces, images, nil
}

// Missing yields the pieces without results, ascending. An error is the last that it yields.
func (c *Counter) Missing() iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		pieces := c.b.Pieces()
		for at := 0; at*perFolder < pieces; at++ {
			if c.whole[at] {
				continue
			}
			there, err := c.b.place.names(resultFolder(at))
			if err != nil {
				yield(0, fmt.Errorf("bulk: %w", err))
				return
			}
			whole := true
			for piece := at * perFolder; piece < min((at+1)*perFolder, pieces); piece++ {
				if len(there) > 0 && there[c.b.resultName(piece)] { // of a folder that nobody has begun no names are made
					continue
				}
				whole = false
				if !yield(piece, nil) {
					return
				}
			}
			c.whole[at] = whole
		}
	}
}

// checkList holds the list against its digest.
func (b *Batch) checkList(ctx context.Context) error {
	path := b.place.path(b.listName())
	file, err := b.place.open(ctx, b.listName())
	if err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, &cancelled{ctx, bufio.NewReaderSize(file, 1<<20)}); err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != b.List {
		return fmt.Errorf("bulk: %s: its SHA-256 is %.12s..., it was %.12s...; restore it", path, got, b.List)
	}
	return nil
}

// cancelled is a reader that ends with ctx.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
