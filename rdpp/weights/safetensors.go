package weights

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

const (
	maxHeader   = 100_000_000 // bytes, the format's own limit
	metadataKey = "__metadata__"
)

// tensorInfo is a tensor's entry in the header.
type tensorInfo struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets []int  `json:"data_offsets"`
}

// UnmarshalJSON reads the three members by their exact names; encoding/json alone would take "Shape" for "shape".
func (t *tensorInfo) UnmarshalJSON(text []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return err
	}
	for name, into := range map[string]any{"dtype": &t.DType, "shape": &t.Shape, "data_offsets": &t.Offsets} {
		if member, found := members[name]; found {
			if err := json.Unmarshal(member, into); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseSafetensors reads the header here rather than by github.com/nlpodyssey/safetensors, because that accepts duplicate names and
// bytes after the header's JSON, and gives empty tensors an order that changes from run to run.
func (f *File) parseSafetensors() error {
	f.Format = "safetensors"
	if f.all.size < 8 {
		return fmt.Errorf("%d bytes are too few for a safetensors header: %w", f.all.size, errDamaged)
	}
	length, err := f.all.part(0, 8).read()
	if err != nil {
		return err
	}
	size := binary.LittleEndian.Uint64(length)
	if size > maxHeader {
		return errors.New("this is no safetensors file; name one, such as the model.safetensors that train writes")
	}
	body := int(f.all.size - 8 - int64(size))
	if body < 0 {
		return fmt.Errorf("a header of %d bytes in a file of %d: %w", size, f.all.size, errDamaged)
	}
	if f.header, err = f.all.part(0, 8+int64(size)).read(); err != nil {
		return err
	}
	tensors, err := f.parseHeader(f.header[8:])
	if err != nil {
		return fmt.Errorf("safetensors header: %w", err)
	}
	slices.SortStableFunc(tensors, func(a, b namedInfo) int {
		return cmp.Or(cmp.Compare(a.Offsets[0], b.Offsets[0]), cmp.Compare(a.Offsets[1], b.Offsets[1]))
	})
	end := 0
	for _, t := range tensors {
		dtype := dtypeNamed(t.DType)
		if dtype == 0 {
			return fmt.Errorf("tensor %q has the type %.20q, which is not supported; save it as F32", t.name, t.DType)
		}
		n, ok := byteSize(dtype, t.Shape)
		if !ok || t.Offsets[0] != end || n > body-end || t.Offsets[1] != end+n {
			return fmt.Errorf("tensor %q of %s%v at bytes %v of %d after byte %d: %w", t.name, dtype, t.Shape, t.Offsets, body, end, errDamaged)
		}
		if err := f.add(Stored{Name: t.name, DType: dtype, Shape: t.Shape, content: f.all.part(int64(len(f.header)+end), int64(n))}); err != nil {
			return err
		}
		end += n
	}
	if end != body {
		return fmt.Errorf("%d bytes after the last tensor: %w", body-end, errDamaged)
	}
	return nil
}

type namedInfo struct {
	name string
	tensorInfo
}

// parseHeader decodes the header's JSON, keeps its metadata and returns its tensors in the order of the text.
func (f *File) parseHeader(header []byte) ([]namedInfo, error) {
	// encoding/json would replace invalid bytes and so change names.
	if !utf8.Valid(header) {
		return nil, fmt.Errorf("not UTF-8: %w", errDamaged)
	}
	decoder := json.NewDecoder(bytes.NewReader(header))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, fmt.Errorf("no JSON object: %w", errDamaged)
	}
	var tensors []namedInfo
	for decoder.More() {
		token, err := decoder.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return nil, fmt.Errorf("JSON at byte %d: %w", decoder.InputOffset(), errDamaged)
		}
		if name == metadataKey {
			if f.Metadata != nil {
				return nil, fmt.Errorf("two entries named %s: %w", metadataKey, errDamaged)
			}
			f.Metadata = map[string]string{}
			if err := decoder.Decode(&f.Metadata); err != nil {
				return nil, fmt.Errorf("%s: %w: %w", metadataKey, err, errDamaged)
			}
			continue
		}
		t := namedInfo{name: name}
		if err := decoder.Decode(&t.tensorInfo); err != nil {
			return nil, fmt.Errorf("tensor %q: %w: %w", name, err, errDamaged)
		}
		if t.Shape == nil || len(t.Offsets) != 2 {
			return nil, fmt.Errorf("tensor %q lacks its shape or its two data_offsets: %w", name, errDamaged)
		}
		tensors = append(tensors, t)
	}
	if _, err := decoder.Token(); err != nil { // the closing brace
		return nil, fmt.Errorf("JSON at byte %d: %w", decoder.InputOffset(), errDamaged)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, fmt.Errorf("text after the JSON object: %w", errDamaged)
	}
	return tensors, nil
}

// Source is a tensor to be written. Bytes, called once and in order, returns its elements, row-major and little-endian; they are
// written before the next tensor's Bytes is called and not kept.
type Source struct {
	Name  string
	DType DType
	Shape []int
	Bytes func() ([]byte, error)
}

// Write writes a safetensors file to w: the header, then each tensor's bytes, so that only one tensor need be in memory at a
// time. The same input gives the same bytes: metadata is sorted by key, tensors stay in the given order, and the header is padded
// with spaces to a multiple of 8 bytes. Names must be distinct and not empty, names and metadata valid UTF-8.
func Write(w io.Writer, metadata map[string]string, tensors []Source) error {
	header, sizes, err := marshalHeader(metadata, tensors)
	if err != nil {
		return fmt.Errorf("weights: writing safetensors: %w", err)
	}
	return writeBehind(w, header, sizes, tensors)
}

// Size is how many bytes [WriteFile] will write.
func Size(metadata map[string]string, tensors []Source) (int64, error) {
	header, sizes, err := marshalHeader(withDigest(metadata), tensors)
	if err != nil {
		return 0, fmt.Errorf("weights: the size of a safetensors file: %w", err)
	}
	total := int64(len(header))
	for _, n := range sizes {
		total += int64(n)
	}
	return total, nil
}

// writeBehind writes a header and the tensors, whose sizes are given, behind it.
func writeBehind(w io.Writer, header []byte, sizes []int, tensors []Source) error {
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("weights: writing the safetensors header: %w", err)
	}
	for i, t := range tensors {
		data, err := t.Bytes()
		if err != nil {
			return fmt.Errorf("weights: getting tensor %q: %w", t.Name, err)
		}
		if len(data) != sizes[i] {
			return fmt.Errorf("weights: tensor %q of %s%v was given %d bytes, want %d", t.Name, t.DType, t.Shape, len(data), sizes[i])
		}
		if _, err := w.Write(data); err != nil {
			return fmt.Errorf("weights: writing tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// marshalHeader returns the header with its length before it, and the bytes of each tensor.
func marshalHeader(metadata map[string]string, tensors []Source) (header []byte, sizes []int, err error) {
	header = append(make([]byte, 8), '{')
	// entry appends one member of the header's object; strings and slices of integers always marshal.
	entry := func(key string, value any) {
		if len(header) > 9 {
			header = append(header, ',')
		}
		k, _ := json.Marshal(key)
		v, _ := json.Marshal(value)
		header = append(append(append(header, k...), ':'), v...)
	}
	for key, value := range metadata {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return nil, nil, fmt.Errorf("metadata %q is not valid UTF-8", key)
		}
	}
	if len(metadata) > 0 {
		entry(metadataKey, metadata) // json sorts a map's keys
	}
	sizes = make([]int, len(tensors))
	seen := map[string]bool{"": true, metadataKey: true}
	offset := 0
	for i, t := range tensors {
		if seen[t.Name] || !utf8.ValidString(t.Name) {
			return nil, nil, fmt.Errorf("the name %q of tensor %d is empty, reserved, used twice or not valid UTF-8", t.Name, i)
		}
		seen[t.Name] = true
		if t.Bytes == nil {
			return nil, nil, fmt.Errorf("tensor %q has no Bytes", t.Name)
		}
		n, ok := byteSize(t.DType, t.Shape)
		if !ok || offset+n < offset {
			return nil, nil, fmt.Errorf("tensor %q of %s%v has no valid type and size", t.Name, t.DType, t.Shape)
		}
		sizes[i] = n
		// A nil shape would be null in JSON.
		entry(t.Name, tensorInfo{t.DType.String(), append([]int{}, t.Shape...), []int{offset, offset + n}})
		offset += n
	}
	header = append(header, '}')
	for len(header)%8 != 0 {
		header = append(header, ' ')
	}
	if len(header)-8 > maxHeader {
		return nil, nil, errors.New("the names and metadata need more than the 100 MB that the format allows")
	}
	binary.LittleEndian.PutUint64(header, uint64(len(header)-8))
	return header, sizes, nil
}
