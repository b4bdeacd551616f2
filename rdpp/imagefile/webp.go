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
	return sizeBy(webp.DecodeConfig)(data)
}
