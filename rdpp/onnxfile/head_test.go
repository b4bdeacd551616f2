package onnxfile

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// headed is a small file with a head.
func headed() []byte {
	entry := Message(nil).Text(EntryKey, "threshold").Text(EntryValue, "0.5")
	graph := Message(nil).Text(GraphName, "g")
	return Message(nil).Integer(ModelIRVersion, 8).Text(ModelProducerName, "rdpp").Text(ModelProducerVersion, "1").
		Sub(ModelGraph, graph).Sub(ModelMetadata, entry)
}

func readHead(t *testing.T, data []byte) (*Head, error) {
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return ReadHead(path)
}

func TestReadHead(t *testing.T) {
	h, err := readHead(t, headed())
	if err != nil || h.Producer != "rdpp" || h.Version != "1" || !maps.Equal(h.Metadata, map[string]string{"threshold": "0.5"}) {
		t.Errorf("got %+v, %v, want the producer rdpp 1 and the threshold", h, err)
	}
	for name, data := range map[string][]byte{
		"empty": nil, "text": []byte("no protocol buffer\n"), "truncated": headed()[:len(headed())-3],
		"no graph":    Message(nil).Integer(ModelIRVersion, 8),
		"large field": append(Message(nil).Sub(ModelGraph, nil).Open(ModelMetadata, longestField+1), make([]byte, longestField+1)...),
	} {
		if h, err := readHead(t, data); !errors.Is(err, ErrNot) {
			t.Errorf("%s: got %+v, %v, want %v", name, h, err, ErrNot)
		}
	}
}

func FuzzReadHead(f *testing.F) {
	f.Add(headed())
	f.Add([]byte{})
	f.Add([]byte("\x3a\xff\xff\xff\xff\x07"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := readHead(t, data); (h == nil) != (err != nil) || err != nil && !errors.Is(err, ErrNot) {
			t.Errorf("got %+v, %v", h, err)
		}
	})
}
