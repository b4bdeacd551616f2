// Package weights reads the weights of networks from PyTorch's .pth files and from safetensors files, and writes safetensors.
//
// Nothing in a file is ever executed: of a PyTorch file's pickle only the opcodes and names that plain tensors need are
// understood (the subset of torch.load(weights_only=True)), everything else is refused by name. Every size that a file states is
// checked against the bytes that are there before anything is allocated.
package weights

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"

	"rdpp/rdpp/regular"
)

// errDamaged ends the message of every error that a shortened or altered file can cause.
var errDamaged = errors.New("the file is truncated or damaged, fetch it again")

// ErrChanged is wrapped by the errors about a file that another process has changed in place since it was opened.
var ErrChanged = errors.New("changed by another process while it was read; try again when it is whole")

// File is an opened weight file. Only its header is in memory; a tensor is read when it is asked for. Another file that takes the
// place of its name does not matter to it. One that changes in place gives errors that wrap [ErrChanged], as far as its size and its
// time of modification tell, and after [File.Verify] whatever they tell.
//
// Reading from several goroutines is safe; Verify and Close are not safe beside other calls.
type File struct {
	Path     string
	Format   string            // "safetensors", "pytorch-zip" or "pytorch-legacy"
	Metadata map[string]string // the __metadata__ of a safetensors file, nil elsewhere
	Tensors  []Stored          // in file order

	all    section        // the whole file
	opened *os.File       // nil where the file is in memory
	looked fs.FileInfo    // at opened, when it was
	header []byte         // of a safetensors file, with its length before it
	index  map[string]int // places in Tensors by name
}

// Open opens a weight file of any of the three formats, which it recognises by content. The tensors of a nested PyTorch
// checkpoint are named by the path to them: {"proj": {"conv.bias": T}, "epochs": [E]} gives "proj.conv.bias" and "epochs.0".
// Whatever is not a tensor (numbers, strings, None) is left out. Compressed storages are unpacked into memory.
func Open(path string) (*File, error) {
	return open(path, (*File).parse)
}

// OpenSafetensors is Open for a file that must be in the safetensors format.
func OpenSafetensors(path string) (*File, error) {
	return open(path, (*File).parseSafetensors)
}

// ParseSafetensors is OpenSafetensors for a file that is in memory already; name stands for its path. data must not change any
// more.
func ParseSafetensors(name string, data []byte) (*File, error) {
	f := &File{Path: name, all: inMemory(data)}
	if err := f.parseSafetensors(); err != nil {
		return nil, fmt.Errorf("weights: %s: %w", name, err)
	}
	return f, nil
}

// Lookup returns the tensor of that name.
func (f *File) Lookup(name string) (Stored, bool) {
	i, ok := f.index[name]
	if !ok {
		return Stored{}, false
	}
	return f.Tensors[i], true
}

// Size is how many bytes the file has.
func (f *File) Size() int64 { return f.all.size }

// Close closes the file, whose tensors cannot be read any more. Closing again does nothing.
func (f *File) Close() error {
	opened := f.opened
	*f = File{Path: f.Path, Format: f.Format, Metadata: f.Metadata}
	if opened == nil {
		return nil
	}
	if err := opened.Close(); err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	return nil
}

func open(path string, parse func(*File) error) (*File, error) {
	opened, err := regular.Open(path)
	if errors.Is(err, regular.ErrKind) {
		return nil, fmt.Errorf("weights: %w; name a weight file", err)
	}
	if err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	f, err := parseOpened(path, opened, parse)
	if err != nil {
		opened.Close()
		return nil, fmt.Errorf("weights: %s: %w", path, err)
	}
	return f, nil
}

func parseOpened(path string, opened *os.File, parse func(*File) error) (*File, error) {
	looked, err := opened.Stat()
	if err != nil {
		return nil, err
	}
	if looked.Size() == 0 {
		return nil, fmt.Errorf("empty: %w", errDamaged)
	}
	f := &File{Path: path, all: section{opened, 0, looked.Size()}, opened: opened, looked: looked}
	return f, f.settle(parse(f))
}

// settle is what a reading of the file that ended with err comes to: if the file has changed meanwhile, that is what is wrong.
func (f *File) settle(err error) error {
	if f.opened == nil {
		return err
	}
	now, statErr := f.opened.Stat()
	switch {
	case statErr == nil && (now.Size() != f.looked.Size() || !now.ModTime().Equal(f.looked.ModTime())):
		return ErrChanged
	case err == nil:
		return statErr
	}
	return err
}

func (f *File) parse() error {
	start, err := f.all.part(0, min(f.all.size, 32)).read()
	switch {
	case err != nil:
		return err
	case bytes.HasPrefix(start, []byte("PK\x03\x04")):
		return f.parseZip()
	case bytes.HasPrefix(start, []byte(legacyMagic)):
		return f.parseLegacy()
	case len(start) > 8 && start[8] == '{':
		return f.parseSafetensors()
	}
	return errors.New("neither a PyTorch nor a safetensors file; if it should be one, fetch it again")
}

// add appends a tensor, whose name must be new.
func (f *File) add(t Stored) error {
	if t.Name == "" {
		return errors.New("a tensor without a name; save a dictionary of tensors, such as a state_dict")
	}
	if _, ok := f.index[t.Name]; ok {
		return fmt.Errorf("two tensors named %q; give each tensor one name", t.Name)
	}
	if f.index == nil {
		f.index = make(map[string]int)
	}
	t.file = f
	f.index[t.Name] = len(f.Tensors)
	f.Tensors = append(f.Tensors, t)
	return nil
}

// byteSize is the number of bytes of a tensor; ok is false for an unknown type, a negative dimension, or dimensions whose product
// overflows even if those of size zero are left out.
func byteSize(d DType, shape []int) (n int, ok bool) {
	n = d.Size()
	if n == 0 {
		return 0, false
	}
	for _, dim := range shape {
		if dim < 0 || n > math.MaxInt/max(dim, 1) {
			return 0, false
		}
		n *= max(dim, 1)
	}
	if slices.Contains(shape, 0) {
		n = 0
	}
	return n, true
}
