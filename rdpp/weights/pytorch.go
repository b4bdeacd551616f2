package weights

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"
)

// legacyMagic starts the older format: the pickle of a magic number, without its end.
const legacyMagic = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

// maxDepth bounds how deep tensors may be nested in a checkpoint.
const maxDepth = 64

// budget is how many bytes reading a file may still make or check. A few bytes can ask for much by naming the same value, or the
// same part of the file, again and again; an honest file needs about three times its size.
type budget int

func newBudget(f *File) *budget {
	b := budget(1<<20 + 16*f.all.size)
	return &b
}

// spend takes n from the budget; a negative n is an overflow.
func (b *budget) spend(n int) error {
	if n < 0 || n > int(*b) {
		return errors.New("unpacks to more than 16 times its size; save clones of the tensors, uncompressed")
	}
	*b -= budget(n)
	return nil
}

// torchReader turns the value of a checkpoint's pickle into tensors.
type torchReader struct {
	file   *File
	budget *budget
	// content finds a storage's bytes.
	content func(*storage) (section, error)
}

// parseZip reads the format of PyTorch since 1.6: a zip archive of one folder with data.pkl and the storages data/KEY.
func (f *File) parseZip() error {
	f.Format = "pytorch-zip"
	archive, err := zip.NewReader(f.all.from, f.all.size)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errDamaged)
	}
	b := newBudget(f)
	entries := make(map[string]*zip.File, len(archive.File))
	folder, found := "", false
	for _, entry := range archive.File {
		if entries[entry.Name] != nil {
			return fmt.Errorf("two zip entries named %.80q: %w", entry.Name, errDamaged)
		}
		entries[entry.Name] = entry
		if prefix, ok := strings.CutSuffix(entry.Name, "data.pkl"); ok && (prefix == "" || strings.HasSuffix(prefix, "/")) {
			if found {
				return errors.New("several data.pkl; pack one checkpoint per file")
			}
			folder, found = prefix, true
		}
	}
	if !found {
		return errors.New("a zip archive without data.pkl, so not of PyTorch; name a .pth file")
	}
	find := func(name string) (section, error) {
		entry := entries[folder+name]
		if entry == nil {
			return section{}, fmt.Errorf("no %.80q in the zip archive: %w", folder+name, errDamaged)
		}
		content, err := f.contentOf(entry, b)
		if err != nil {
			return section{}, fmt.Errorf("zip entry %.80q: %w", entry.Name, err)
		}
		return content, nil
	}

	if entries[folder+"byteorder"] != nil {
		content, err := find("byteorder")
		if err != nil {
			return err
		}
		order, err := content.read()
		if err != nil {
			return err
		}
		if string(order) != "little" {
			return fmt.Errorf("byte order %.20q is not supported; save it on a little-endian machine", order)
		}
	}
	pickle, err := find("data.pkl")
	if err != nil {
		return err
	}
	u := newUnpickler(pickle, b)
	value, err := u.run()
	if err != nil {
		return err
	}
	contents := map[*storage]section{}
	r := &torchReader{file: f, budget: b, content: func(s *storage) (section, error) {
		content, ok := contents[s]
		if ok {
			return content, nil
		}
		content, err := find("data/" + s.key)
		if err != nil {
			return section{}, err
		}
		if size := int64(s.dtype.Size()); s.len < 0 || int64(s.len) != content.size/size || content.size%size != 0 {
			return section{}, fmt.Errorf("storage %.20q is %d of %s in %d bytes: %w", s.key, s.len, s.dtype, content.size, errDamaged)
		}
		contents[s] = content
		return content, nil
	}}
	return r.flatten("", value, 0)
}

// contentOf finds the content of a zip entry: in the file if it is stored uncompressed, as torch.save does, else unpacked. The
// checksum is compared unless it is zero, which says that the writer made none.
func (f *File) contentOf(entry *zip.File, b *budget) (section, error) {
	if entry.Flags&1 != 0 {
		return section{}, errors.New("encrypted; decrypt the archive")
	}
	size := entry.UncompressedSize64
	if err := b.spend(int(size)); err != nil {
		return section{}, err
	}
	switch entry.Method {
	case zip.Store:
		start, err := entry.DataOffset()
		if err != nil {
			return section{}, fmt.Errorf("%w: %w", err, errDamaged)
		}
		if start > f.all.size || size > uint64(f.all.size-start) || size != entry.CompressedSize64 {
			return section{}, fmt.Errorf("%d bytes at %d of %d: %w", size, start, f.all.size, errDamaged)
		}
		content, sum := f.all.part(start, int64(size)), crc32.NewIEEE()
		if entry.CRC32 == 0 {
			return content, nil
		}
		if err := content.writeTo(sum); err != nil {
			return section{}, err
		}
		if sum.Sum32() != entry.CRC32 {
			return section{}, fmt.Errorf("wrong checksum: %w", errDamaged)
		}
		return content, nil
	case zip.Deflate:
		reader, err := entry.Open()
		if err != nil {
			return section{}, fmt.Errorf("%w: %w", err, errDamaged)
		}
		defer reader.Close()
		data := make([]byte, size)
		if _, err := io.ReadFull(reader, data); err != nil {
			return section{}, fmt.Errorf("%w: %w", err, errDamaged)
		}
		// The checksum is compared at the end of the stream, which must be here.
		if n, err := reader.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			return section{}, fmt.Errorf("longer than stated, or a wrong checksum: %w", errDamaged)
		}
		return inMemory(data), nil
	}
	return section{}, fmt.Errorf("compression method %d is not supported; pack it uncompressed", entry.Method)
}

// parseLegacy reads the format of PyTorch before 1.6: the pickles of a magic number, the protocol's version, facts about the
// writing machine, the checkpoint and the storages' keys; then each storage as its length (int64) and elements.
func (f *File) parseLegacy() error {
	f.Format = "pytorch-legacy"
	b := newBudget(f)
	u := newUnpickler(f.all, b)
	var values [5]any
	for i := range values {
		var err error
		if values[i], err = u.run(); err != nil {
			return err
		}
	}
	if values[1] != 1001 {
		return fmt.Errorf("version %v of PyTorch's old format is not supported; save it with PyTorch 1.0 or later", values[1])
	}
	machine, ok := values[2].(*dict)
	if !ok || !slices.Contains(machine.items, pair{"little_endian", true}) {
		return errors.New("not stated to be little-endian; save it on a little-endian machine")
	}
	keys, ok := values[4].(*list)
	if !ok {
		return fmt.Errorf("no list of storages: %w", errDamaged)
	}
	rest := u.rest()
	contents := map[*storage]section{}
	for _, key := range keys.items {
		name, _ := key.(string)
		s := u.storages[name]
		if _, repeated := contents[s]; s == nil || repeated || rest.size < 8 {
			return fmt.Errorf("storage %.20q is unknown, repeated or missing: %w", name, errDamaged)
		}
		length, err := rest.part(0, 8).read()
		if err != nil {
			return err
		}
		stated := binary.LittleEndian.Uint64(length)
		rest = rest.part(8, rest.size-8)
		size := int64(s.dtype.Size())
		if s.len < 0 || uint64(s.len) != stated || int64(s.len) > rest.size/size {
			return fmt.Errorf("storage %.20q is %d of %s, stated as %d, in %d bytes: %w", name, s.len, s.dtype, stated, rest.size, errDamaged)
		}
		n := int64(s.len) * size
		contents[s] = rest.part(0, n)
		rest = rest.part(n, rest.size-n)
	}
	r := &torchReader{file: f, budget: b, content: func(s *storage) (section, error) {
		content, ok := contents[s]
		if !ok {
			return section{}, fmt.Errorf("storage %.20q is missing: %w", s.key, errDamaged)
		}
		return content, nil
	}}
	return r.flatten("", values[3], 0)
}

// flatten adds the tensors within v to the file, named by name and the path below it.
func (r *torchReader) flatten(name string, v any, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%.80q is nested more than %d deep; save a dictionary of tensors", name, maxDepth)
	}
	// A value that the pickle names often is visited, and its tensors are named, as often.
	if err := r.budget.spend(64 + len(name)); err != nil {
		return err
	}
	switch v := v.(type) {
	case *tensor:
		t, err := r.stored(v)
		if err != nil {
			return fmt.Errorf("tensor %.80q: %w", name, err)
		}
		t.Name = name
		return r.file.add(t)
	case *dict:
		return r.flattenAll(name, len(v.items), depth, func(i int) (key, value any) { return v.items[i].key, v.items[i].value })
	case *list:
		return r.flattenAll(name, len(v.items), depth, func(i int) (key, value any) { return i, v.items[i] })
	case tuple:
		return r.flattenAll(name, len(v), depth, func(i int) (key, value any) { return i, v[i] })
	}
	return nil
}

func (r *torchReader) flattenAll(name string, n, depth int, item func(int) (key, value any)) error {
	if err := r.budget.spend(n); err != nil {
		return err
	}
	if name != "" {
		name += "."
	}
	for i := range n {
		key, value := item(i)
		switch value.(type) {
		case *tensor, *dict, *list, tuple:
		default:
			continue
		}
		var child string
		switch key := key.(type) {
		case string:
			child = name + key
		case int:
			child = name + strconv.Itoa(key)
		default:
			return fmt.Errorf("a key of %.80q is neither text nor a number; save a dictionary of tensors", name)
		}
		if err := r.flatten(child, value, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// stored finds where a tensor's elements are.
func (r *torchReader) stored(t *tensor) (Stored, error) {
	found := Stored{DType: t.storage.dtype, Shape: t.shape}
	n, ok := byteSize(t.storage.dtype, t.shape)
	if !ok || len(t.shape) != len(t.stride) {
		return found, fmt.Errorf("shape %v with strides %v: %w", t.shape, t.stride, errDamaged)
	}
	if n == 0 {
		return found, nil
	}
	content, err := r.content(t.storage)
	if err != nil {
		return found, err
	}
	outside := func() (Stored, error) {
		return found, fmt.Errorf("shape %v with strides %v at %d does not fit into %d elements: %w", t.shape, t.stride, t.offset, t.storage.len, errDamaged)
	}
	last := t.storage.len - 1 // how far the last element may lie from the first
	if t.offset < 0 || t.offset > last {
		return outside()
	}
	last -= t.offset
	contiguous, run, span := true, 1, 1 // span is from the first element to behind the last
	for i, dim := range slices.Backward(t.shape) {
		stride := t.stride[i]
		if dim == 1 {
			continue // its stride is never used
		}
		if stride < 0 || stride > last/(dim-1) {
			return outside()
		}
		last -= stride * (dim - 1)
		span += stride * (dim - 1)
		contiguous = contiguous && stride == run
		run *= dim
	}
	size := t.storage.dtype.Size()
	found.content = content.part(int64(t.offset*size), int64(span*size))
	if contiguous {
		return found, nil
	}
	found.stride = t.stride
	return found, r.budget.spend(n + span*size) // which reading it takes
}

// appendStrided appends the elements of a view of src, each of size bytes, in row-major order.
func appendStrided(dst, src []byte, shape, stride []int, size int) []byte {
	if len(shape) == 0 {
		return append(dst, src[:size]...)
	}
	if len(shape) == 1 && stride[0] == 1 {
		return append(dst, src[:shape[0]*size]...)
	}
	for i := range shape[0] {
		dst = appendStrided(dst, src[i*stride[0]*size:], shape[1:], stride[1:], size)
	}
	return dst
}
