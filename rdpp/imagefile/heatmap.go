package imagefile

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"rdpp/rdpp/regular"
)

// heatmapMark is the text chunk that tells a heat map from a photograph: the
// PNG keyword Software (PNG, third edition, 11.3.3.2) and its value.
const heatmapMark = "Software\x00rdpp heat map"

// A PNG starts with its signature and the chunk IHDR.
const (
	signatureBytes = 8
	pngStart       = signatureBytes + 12 + 13
	chunkHeader    = 8 // length and kind
	markEnd        = pngStart + chunkHeader + len(heatmapMark)
)

// EncodeHeatmap writes m, a picture with a heat map drawn over it, as a PNG that
// IsHeatmap knows, so that nobody takes it for a photograph of a part.
func EncodeHeatmap(w io.Writer, m image.Image) error {
	encoder := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := encoder.Encode(&marker{w: w, left: pngStart}, m); err != nil {
		return fmt.Errorf("imagefile: heat map: %w", err)
	}
	return nil
}

// marker writes the mark into a PNG that goes through it, before what follows
// the first left bytes.
type marker struct {
	w    io.Writer
	left int
}

func (m *marker) Write(data []byte) (n int, err error) {
	if m.left == 0 {
		return m.w.Write(data)
	}
	first := data[:min(m.left, len(data))]
	if n, err = m.w.Write(first); err != nil {
		return n, err
	}
	if m.left -= n; m.left > 0 {
		return n, nil
	}
	content := append([]byte("tEXt"), heatmapMark...)
	chunk := append(binary.BigEndian.AppendUint32(nil, uint32(len(heatmapMark))), content...)
	if _, err := m.w.Write(binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(content))); err != nil {
		return n, err
	}
	rest, err := m.w.Write(data[n:])
	return n + rest, err
}

var heatmapName = regexp.MustCompile(`(?i)^(.*)_heatmap(_[0-9]+)?\.png$`)

// Heatmaps returns which of the image files in a folder are heat maps: those
// whose name speaks of one and that have the mark of EncodeHeatmap, and such as
// NAME_heatmap.png and NAME_heatmap_2.png beside an image NAME.
func Heatmaps(dir string, names []string) map[string]bool {
	stem := func(name string) string { return strings.TrimSuffix(name, filepath.Ext(name)) }
	stems := make(map[string]bool, len(names))
	for _, name := range names {
		stems[stem(name)] = true
	}
	drawn := make(map[string]bool)
	for _, name := range names {
		if !strings.Contains(strings.ToLower(name), "heatmap") {
			continue
		}
		m := heatmapName.FindStringSubmatch(name)
		if m != nil && stems[m[1]] || IsHeatmap(filepath.Join(dir, name)) {
			drawn[name] = true
		}
	}
	return drawn
}

// IsHeatmap reports whether the file at path is a PNG that EncodeHeatmap wrote.
// It reads the first bytes alone, of regular files only.
func IsHeatmap(path string) bool {
	f, err := regular.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	start := make([]byte, markEnd)
	if _, err := io.ReadFull(f, start); err != nil {
		return false
	}
	return isHeatmap(start)
}

// isHeatmap is IsHeatmap of a file's bytes.
func isHeatmap(data []byte) bool {
	return len(data) >= markEnd && string(data[:signatureBytes]) == "\x89PNG\r\n\x1a\n" && string(data[pngStart+chunkHeader:markEnd]) == heatmapMark
}
