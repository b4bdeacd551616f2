package weights

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Stored is a tensor in a [File], whose elements are in the file until they are asked for.
type Stored struct {
	Name  string
	DType DType
	Shape []int

	file    *File
	content section
	stride  []int   // of a view of content, counting elements; nil: content is row-major
	sum     *uint32 // CRC-32C of content, nil: Verify has not read it
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Len returns the number of elements.
func (s Stored) Len() int { return Tensor{Shape: s.Shape}.Len() }

// Read reads the tensor into memory. Its errors name the file.
func (s Stored) Read() (Tensor, error) {
	data, err := s.Bytes()
	if err != nil {
		return Tensor{}, err
	}
	return Tensor{s.Name, s.DType, s.Shape, data}, nil
}

// Bytes reads the little-endian elements, row-major whatever their strides in the file, as a [Source] gives them.
func (s Stored) Bytes() ([]byte, error) {
	if s.file == nil {
		return nil, errors.New("weights: a tensor of no file")
	}
	data, err := s.content.read()
	if err = s.file.settle(err); err == nil && s.sum != nil && crc32.Checksum(data, castagnoli) != *s.sum {
		err = ErrChanged
	}
	if err != nil {
		return nil, fmt.Errorf("weights: %s: tensor %.80q: %w", s.file.Path, s.Name, err)
	}
	if s.stride == nil {
		return data, nil
	}
	n, size := s.Len(), s.DType.Size()
	return appendStrided(make([]byte, 0, n*size), data, s.Shape, s.stride, size), nil
}

// section is a run of bytes of a file, or of what was unpacked from it.
type section struct {
	from     io.ReaderAt
	at, size int64
}

func inMemory(data []byte) section { return section{bytes.NewReader(data), 0, int64(len(data))} }

// part is size bytes of a section from at on, which must lie within it.
func (s section) part(at, size int64) section { return section{s.from, s.at + at, size} }

// read reads all of a section.
func (s section) read() ([]byte, error) {
	data := make([]byte, s.size)
	if s.size == 0 {
		return data, nil
	}
	if n, err := s.from.ReadAt(data, s.at); n < len(data) {
		return nil, ended(err)
	}
	return data, nil
}

// writeTo writes all of a section to w, a piece at a time.
func (s section) writeTo(w io.Writer) error {
	if s.size == 0 {
		return nil
	}
	n, err := io.CopyBuffer(w, io.NewSectionReader(s.from, s.at, s.size), make([]byte, min(s.size, 1<<18)))
	if err == nil && n < s.size {
		err = io.EOF
	}
	return ended(err)
}

// ended is the error of a reading, where a file's end before its time is damage.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("ends too early: %w", errDamaged)
	}
	return err
}
