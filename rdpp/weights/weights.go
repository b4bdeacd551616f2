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
	"math"
	"runtime/debug"
	"slices"
	"syscall"

	"rdpp/rdpp/regular"
)

// errDamaged ends the message of every error that a shortened or altered file can cause.
var errDamaged = errors.New("the file is truncated or damaged, fetch it again")

// File is an opened weight file. Its tensors are read-only views of the file mapped into memory: nothing is read before it is
// touched, writing to it ends the program, and so does touching it after Close. A process that shortens the file in place while it is open makes a later touch a fault
// that ends the program (SIGBUS), so copy the tensors, for example into a network, and Close at once. [WriteFile] replaces files
// and never shortens one.
//
// Reading from several goroutines is safe; Close is not safe beside other calls.
type File struct {
	Path     string
	Format   string            // "safetensors", "pytorch-zip" or "pytorch-legacy"
	Metadata map[string]string // the __metadata__ of a safetensors file, nil elsewhere
	Tensors  []Tensor          // in file order

	data   []byte         // the whole file
	mapped bool           // data is a mapping, which Close ends
	index  map[string]int // places in Tensors by name
}

// Open opens a weight file of any of the three formats, which it recognises by content. The tensors of a nested PyTorch
// checkpoint are named by the path to them: {"proj": {"conv.bias": T}, "epochs": [E]} gives "proj.conv.bias" and "epochs.0".
// Whatever is not a tensor (numbers, strings, None) is left out. Tensors that lie in the file with other strides are copied to
// row-major order.
func Open(path string) (*File, error) {
	return open(path, (*File).parse)
}

// OpenSafetensors is Open for a file that must be in the safetensors format.
func OpenSafetensors(path string) (*File, error) {
	return open(path, (*File).parseSafetensors)
}

// ParseSafetensors is OpenSafetensors for a file that is in memory already; name stands for its path. The tensors are views of
// data, which must not change any more.
func ParseSafetensors(name string, data []byte) (*File, error) {
	f := &File{Path: name, data: data}
	if err := f.parseSafetensors(); err != nil {
		return nil, fmt.Errorf("weights: %s: %w", name, err)
	}
	return f, nil
}

// Lookup returns the tensor of that name.
func (f *File) Lookup(name string) (Tensor, bool) {
	i, ok := f.index[name]
	if !ok {
		return Tensor{}, false
	}
	return f.Tensors[i], true
}

// Size is how many bytes the file has.
func (f *File) Size() int64 { return int64(len(f.data)) }

// Close unmaps the file; the tensors' Data must not be used afterwards. Closing again does nothing.
func (f *File) Close() error {
	data, mapped := f.data, f.mapped
	*f = File{Path: f.Path, Format: f.Format, Metadata: f.Metadata}
	if !mapped {
		return nil
	}
	if err := syscall.Munmap(data); err != nil {
		return fmt.Errorf("weights: unmapping %s: %w", f.Path, err)
	}
	return nil
}

func open(path string, parse func(*File) error) (*File, error) {
	data, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	f := &File{Path: path, data: data, mapped: true}
	if err := guard(func() error { return parse(f) }); err != nil {
		f.Close()
		return nil, fmt.Errorf("weights: %s: %w", path, err)
	}
	return f, nil
}

// mapFile maps a whole file read-only. Its errors name the file.
func mapFile(path string) ([]byte, error) {
	file, err := regular.Open(path)
	if errors.Is(err, regular.ErrKind) {
		return nil, fmt.Errorf("%w; name a weight file", err)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 {
		return nil, fmt.Errorf("%s: empty: %w", path, errDamaged)
	}
	data, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%s: mapping into memory: %w", path, err)
	}
	return data, nil
}

// guard runs read and turns the fault of touching mapped bytes that another process has cut off into an error.
func guard(read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch fault := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // only a fault has an address
			err = errors.New("shortened by another process while it was read, try again")
		default:
			panic(fault)
		}
	}()
	return read()
}

func (f *File) parse() error {
	switch {
	case bytes.HasPrefix(f.data, []byte("PK\x03\x04")):
		return f.parseZip()
	case bytes.HasPrefix(f.data, []byte(legacyMagic)):
		return f.parseLegacy()
	case len(f.data) > 8 && f.data[8] == '{':
		return f.parseSafetensors()
	}
	return errors.New("neither a PyTorch nor a safetensors file; if it should be one, fetch it again")
}

// add appends a tensor, whose name must be new.
func (f *File) add(t Tensor) error {
	if t.Name == "" {
		return errors.New("a tensor without a name; save a dictionary of tensors, such as a state_dict")
	}
	if _, ok := f.index[t.Name]; ok {
		return fmt.Errorf("two tensors named %q; give each tensor one name", t.Name)
	}
	if f.index == nil {
		f.index = make(map[string]int)
	}
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
