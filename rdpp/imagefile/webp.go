package imagefile

import (
	"encoding/binary"
	"fmt"
	"io"

	"golang.org/x/image/webp"
)

// webpSize reads a WebP's size in pixels. It refuses a container that says it
// is longer than the data: the decoder would allocate what a chunk's header
// asks for, up to 2 GiB.
func webpSize(data []byte) (w, h int, err error) {
	if n := 8 + int64(binary.LittleEndian.Uint32(data[4:])); n > int64(len(data)) {
		return 0, 0, fmt.Errorf("it has %d bytes of %d: %w", len(data), n, io.ErrUnexpectedEOF)
	}
	const flagsAt, animated = 20, 2
	if len(data) > flagsAt && string(data[12:16]) == "VP8X" && data[flagsAt]&animated != 0 {
		return 0, 0, unsupported("of several pictures (animated)")
	}
	return sizeBy(webp.DecodeConfig)(data)
}
