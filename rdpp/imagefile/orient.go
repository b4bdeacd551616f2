package imagefile

import (
	"bytes"
	"encoding/binary"
)

// exifID begins the Exif data of a JPEG.
const exifID = "Exif\x00\x00"

// jpegOrientation reads the orientation from a JPEG's first Exif segment
// (Exif 2.3, section 4.5.4), 0 if there is none. OpenCV 4.6 misses one that
// follows another APP1 segment, such as XMP.
func jpegOrientation(data []byte) int {
	for data = data[2:]; len(data) >= 4 && data[0] == 0xff; {
		marker := data[1]
		if marker == 0xff { // padding before a marker
			data = data[1:]
			continue
		}
		n := 2 + int(binary.BigEndian.Uint16(data[2:]))
		if marker == 0xda || n > len(data) { // the scan: metadata is over
			break
		}
		body := data[4:max(n, 4)]
		if marker == 0xe1 && len(body) > len(exifID) && string(body[:len(exifID)]) == exifID {
			return tagOrientation(body[len(exifID):])
		}
		data = data[n:]
	}
	return 0
}

// pngOrientation reads the orientation from a PNG's eXIf chunk, 0 if there is
// none.
func pngOrientation(data []byte) int {
	for data = data[8:]; len(data) >= 12; {
		n := int(binary.BigEndian.Uint32(data))
		if n > len(data)-12 {
			break
		}
		if string(data[4:8]) == "eXIf" {
			return tagOrientation(data[8 : 8+n])
		}
		data = data[12+n:]
	}
	return 0
}

// webpOrientation reads the orientation from the first EXIF chunk of an extended
// WebP (RFC 9649, section 2.7) whose header says that it has one, else 0. Some
// programs put JPEG's identifier before the data.
func webpOrientation(data []byte) int {
	const header, flagsAt, hasExif = 12, 20, 8
	if len(data) <= flagsAt || string(data[header:header+4]) != "VP8X" || data[flagsAt]&hasExif == 0 {
		return 0
	}
	end := 8 + int64(binary.LittleEndian.Uint32(data[4:]))
	for data = data[header:max(header, min(end, int64(len(data))))]; len(data) >= 8; {
		n := int64(binary.LittleEndian.Uint32(data[4:]))
		if n > int64(len(data)-8) {
			break
		}
		if string(data[:4]) == "EXIF" {
			return tagOrientation(bytes.TrimPrefix(data[8:8+n], []byte(exifID)))
		}
		data = data[min(8+n+n%2, int64(len(data))):] // chunks begin at even places
	}
	return 0
}

// tagOrientation reads the Orientation of Exif data, which is laid out like a
// TIFF file (TIFF 6.0, section 2), from its first directory; 0 if there is none.
func tagOrientation(data []byte) int {
	const tag = 0x112
	if len(data) < 8 {
		return 0
	}
	var order binary.ByteOrder = binary.LittleEndian
	if data[0] == 'M' {
		order = binary.BigEndian
	}
	offset := int64(order.Uint32(data[4:]))
	if offset+2 > int64(len(data)) {
		return 0
	}
	data = data[offset:]
	entries := int(order.Uint16(data))
	for data = data[2:]; entries > 0 && len(data) >= 12; entries-- {
		if order.Uint16(data) == tag {
			return int(order.Uint16(data[8:]))
		}
		data = data[12:]
	}
	return 0
}

// sideways says that an orientation exchanges width and height.
func sideways(orientation int) bool { return orientation >= 5 && orientation <= 8 }

// orient returns the picture turned upright from the way that an orientation
// of 2 to 8 says it is stored (TIFF 6.0, page 36); other values leave it as is.
func (im *Image) orient(orientation int) *Image {
	w, h := im.W, im.H
	// The result's pixel (x, y) is the stored pixel start + x*dx + y*dy.
	var start, dx, dy int
	switch orientation {
	case 2: // mirrored left to right
		start, dx, dy = w-1, -1, w
	case 3: // turned by half
		start, dx, dy = w*h-1, -1, -w
	case 4: // mirrored top to bottom
		start, dx, dy = w*(h-1), 1, -w
	case 5: // transposed
		start, dx, dy = 0, w, 1
	case 6: // needs a quarter turn clockwise
		start, dx, dy = w*(h-1), -w, 1
	case 7: // transposed about the other diagonal
		start, dx, dy = w*h-1, -w, -1
	case 8: // needs a quarter turn anticlockwise
		start, dx, dy = w-1, w, -1
	default:
		return im
	}
	if sideways(orientation) {
		w, h = h, w
	}
	out := newImage(w, h)
	dst := out.Pix
	for y := range h {
		for x := range w {
			i := 3 * (start + x*dx + y*dy)
			dst[0], dst[1], dst[2] = im.Pix[i], im.Pix[i+1], im.Pix[i+2]
			dst = dst[3:]
		}
	}
	return out
}
