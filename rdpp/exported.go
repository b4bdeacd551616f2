package rdpp

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"rdpp/rdpp/document"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/onnxfile"
	"rdpp/rdpp/regular"
	"rdpp/rdpp/weights"
)

// longestEntry bounds what is read of an entry of the metadata in an exported file, bytes.
const longestEntry = 1 << 20

// inspectExported is Inspect of an ONNX file or a TorchScript that Model.Export wrote, and of other ONNX files; nil of
// whatever else, so that the readers of weight files say what is wrong with it.
func inspectExported(path string) (*FileInfo, error) {
	info := &FileInfo{Path: path, Tensors: []TensorInfo{}}
	switch head, err := onnxfile.ReadHead(path); {
	case err == nil:
		info.Format, info.Kind, info.Metadata = modelfile.FormatONNX, KindONNX, head.Metadata
		info.Producer = strings.TrimSpace(head.Producer + " " + head.Version)
	case !errors.Is(err, onnxfile.ErrNot):
		return nil, nil
	default:
		if info.Metadata, err = scriptMetadata(path); err != nil || info.Metadata[document.ModelKey] == "" {
			return nil, err
		}
		info.Format = modelfile.FormatTorchScript
	}
	if text, ours := info.Metadata[document.ModelKey]; ours {
		info.Kind, info.Arch = KindExported, info.Metadata["architecture"]
		if _, err := document.Decode(text, &info.Model, true); err != nil {
			info.Damage, info.Model = fmt.Sprintf("the %q entry of the metadata: %v", document.ModelKey, err), nil
		} else {
			info.Model.Complete()
		}
		delete(info.Metadata, document.ModelKey)
	}
	var err error
	if info.SHA256, err = weights.SHA256(path); err != nil {
		return nil, fmt.Errorf("rdpp: %w", err)
	}
	stat, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("rdpp: %w", err)
	}
	info.Bytes = stat.Size()
	return info, nil
}

// scriptMetadata are the further entries of a TorchScript; nil of a file that is none.
func scriptMetadata(path string) (map[string]string, error) {
	file, err := regular.Open(path)
	if err != nil {
		return nil, nil
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("rdpp: %w", err)
	}
	archive, err := zip.NewReader(file, size)
	if err != nil {
		return nil, nil
	}
	var entries map[string]string
	for _, entry := range archive.File {
		_, name, extra := strings.Cut(entry.Name, "/extra/")
		if !extra || entry.UncompressedSize64 > longestEntry {
			continue
		}
		content, err := entry.Open()
		if err != nil {
			return nil, fmt.Errorf("rdpp: %s: %s: %w", path, entry.Name, err)
		}
		value, err := io.ReadAll(io.LimitReader(content, longestEntry))
		content.Close()
		if err != nil {
			return nil, fmt.Errorf("rdpp: %s: %s: %w; restore the file or export it again", path, entry.Name, err)
		}
		if entries == nil {
			entries = map[string]string{}
		}
		entries[name] = string(value)
	}
	return entries, nil
}
