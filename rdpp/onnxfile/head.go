package onnxfile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"

	"rdpp/rdpp/regular"
)

// Head is what an ONNX file says of itself beside its graph.
type Head struct {
	Producer, Version string            // of the program that wrote it; "" where it does not say
	Metadata          map[string]string // its entries
}

// ErrNot is wrapped by the errors about what is no ONNX file, or a damaged one.
var ErrNot = errors.New("not an ONNX file, or a damaged one")

// Bounds of what ReadHead takes into memory.
const (
	longestField = 1 << 20 // of a field other than the graph, bytes
	mostFields   = 1 << 10
)

// ReadHead reads the head of an ONNX file and passes over its graph, whatever that holds.
func ReadHead(path string) (*Head, error) {
	file, err := regular.Open(path)
	if err != nil {
		return nil, fmt.Errorf("onnxfile: %w", err)
	}
	defer file.Close()
	h := &Head{Metadata: map[string]string{}}
	if err := h.read(bufio.NewReader(file)); err != nil {
		return nil, fmt.Errorf("onnxfile: %s: %w", path, err)
	}
	return h, nil
}

func (h *Head) read(r *bufio.Reader) error {
	graph := false
	for range mostFields {
		tag, err := binary.ReadUvarint(r)
		if err == io.EOF && graph {
			return nil
		}
		if err != nil {
			return ErrNot
		}
		field, kind := protowire.DecodeTag(tag)
		var length uint64
		switch kind {
		case protowire.VarintType:
			_, err = binary.ReadUvarint(r)
		case protowire.BytesType:
			length, err = binary.ReadUvarint(r)
		default: // no field of a model is of another type
			err = ErrNot
		}
		if err != nil || length > maxBytes {
			return ErrNot
		}
		known := field == ModelProducerName || field == ModelProducerVersion || field == ModelMetadata
		if kind != protowire.BytesType || !known {
			graph = graph || field == ModelGraph && kind == protowire.BytesType
			if _, err := r.Discard(int(length)); err != nil {
				return ErrNot
			}
			continue
		}
		if length > longestField {
			return ErrNot
		}
		value := make([]byte, length)
		if _, err := io.ReadFull(r, value); err != nil {
			return ErrNot
		}
		if err := h.add(field, value); err != nil {
			return ErrNot
		}
	}
	return ErrNot
}

// add takes a field of the head.
func (h *Head) add(field protowire.Number, value []byte) error {
	switch field {
	case ModelProducerName:
		h.Producer = string(value)
	case ModelProducerVersion:
		h.Version = string(value)
	case ModelMetadata:
		var key, text string
		err := fields(value, func(field protowire.Number, c content) error {
			switch field {
			case EntryKey:
				key = string(c.bytes)
			case EntryValue:
				text = string(c.bytes)
			}
			return nil
		})
		if err != nil {
			return err
		}
		h.Metadata[key] = text
	}
	return nil
}
