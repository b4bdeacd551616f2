package imagefile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"os"
)

// heatmapMark is the text chunk that tells a heat map from a photograph: the
// PNG keyword Software (PNG, third edition, 11.3.3.2) and its value.
const heatmapMark = "Software\x00rdpp heat map"

// A PNG starts with its signature and the chunk IHDR.
const (
	signatureBytes = 8
	pngStart       = signatureBytes + 12 + 13
)

// EncodeHeatmap writes m, a picture with a heat map drawn over it, as a PNG that
// IsHeatmap knows, so that nobody takes it for a photograph of a part.
func EncodeHeatmap(w io.Writer, m image.Image) error {
	var file bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := encoder.Encode(&file, m); err != nil {
		return fmt.Errorf("imagefile: heat map: %w", err)
	}
	content := append([]byte("tEXt"), heatmapMark...)
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(heatmapMark)))
	chunk = append(chunk, content...)
	chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(content))
	for _, part := range [][]byte{file.Bytes()[:pngStart], chunk, file.Bytes()[pngStart:]} {
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("imagefile: heat map: %w", err)
		}
	}
	return nil
}

// IsHeatmap reports whether the file at path is a PNG that EncodeHeatmap wrote.
// It reads the first bytes alone, of regular files only.
func IsHeatmap(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	const chunkHeader = 8 // length and kind
	start := make([]byte, pngStart+chunkHeader+len(heatmapMark))
	if _, err := io.ReadFull(f, start); err != nil {
		return false
	}
	return string(start[:signatureBytes]) == "\x89PNG\r\n\x1a\n" && string(start[pngStart+chunkHeader:]) == heatmapMark
}
