package imagefile

import (
	"bytes"
	"image"
	"image/gif"
)

// gifPixels refuses GIFs that are not read as masks: as photographs they have lost most of their colours.
func gifPixels([]byte, int) (*Image, error) {
	return nil, unsupported("as a photograph")
}

// decodeGIF decodes a GIF's first picture, if that is all of it.
func decodeGIF(data []byte) (image.Image, error) {
	w, h, err := sizeBy(gif.DecodeConfig)(data)
	if err != nil {
		return nil, err
	}
	m, err := gif.Decode(bytes.NewReader(data))
	if err == nil && m.Bounds() != image.Rect(0, 0, w, h) {
		err = unsupported("whose first picture is a part of it")
	}
	return m, err
}

// gifPages counts the pictures of a GIF whose header and palette are whole, at least 1.
func gifPages(data []byte) int {
	const headerBytes, screenFlags, extension, picture, pictureBytes = 13, 10, 0x21, 0x2c, 10
	palette := func(flags byte) int {
		if flags&0x80 == 0 {
			return 0
		}
		return 3 << (flags&7 + 1)
	}
	n := 0
	for at := headerBytes + palette(data[screenFlags]); at < len(data); {
		switch data[at] {
		case extension:
			at += 2 // and its label
		case picture:
			n++
			if at+pictureBytes > len(data) {
				return max(n, 1)
			}
			at += pictureBytes + palette(data[at+pictureBytes-1]) + 1 // and the size of its codes
		default:
			return max(n, 1)
		}
		for at < len(data) && data[at] != 0 { // blocks, each with its length
			at += 1 + int(data[at])
		}
		at++
	}
	return max(n, 1)
}

// gifCost counts an image.Paletted.
func gifCost(data []byte, w, h int64) int64 { return (1+packed)*w*h + int64(len(data)) }
