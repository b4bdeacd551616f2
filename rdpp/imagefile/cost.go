package imagefile

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Cost estimates, from headers alone, what decoding an image file's bytes
// takes: the picture's size in pixels, as it is stored, and the most bytes of
// memory that decoder and picture hold at once, data itself not counted. The
// estimate errs on the high side: callers reserve it before they call Decode,
// so that many pictures together stay within a budget. Files that Decode
// refuses by their header are refused here, with the same error.
func Cost(data []byte, opt *Options) (w, h int, size int64, err error) {
	c, err := find(data)
	if err == nil {
		w, h, err = c.bounds(data, opt)
	}
	if err != nil {
		return 0, 0, 0, fmt.Errorf("imagefile: %w", err)
	}
	size = costs[c.name](data, int64(w), int64(h))
	if c.orientation(data) > 1 { // turning it makes a second picture
		size = max(size, 2*packed*int64(w)*int64(h))
	}
	return w, h, size, nil
}

// ReadFile reads the file at path as DecodeFile does, for callers that
// reserve what decoding it takes.
func ReadFile(path string, opt *Options) ([]byte, error) {
	data, err := readFile(path, opt)
	if err != nil {
		return nil, fmt.Errorf("imagefile: %w", err) // names the path already
	}
	return data, nil
}

// packed is the bytes per pixel of an Image.
const packed = 3

// costs are what the codecs take for w x h pixels, in bytes, the Image among
// them. What a decoder has let go of is not counted.
var costs = map[string]func(data []byte, w, h int64) int64{
	"PNG": pngCost, "JPEG": jpegCost, "BMP": bmpCost, "TIFF": tiffCost, "WebP": webpCost,
}

// pngCost counts image/png, which takes the most of both ways of decoding.
func pngCost(data []byte, w, h int64) int64 {
	const depthAt, colourAt, interlaceAt, firstChunk = 24, 25, 28, 33 // bytes from the start
	if len(data) < firstChunk {
		return 0 // there are no pixels to decode
	}
	pixel := int64(4) // bytes in image.RGBA and NRGBA
	switch data[colourAt] {
	case 3:
		pixel = 1
	case 0:
		if !transparentPNG(data[firstChunk:]) {
			pixel = 1
		}
	}
	if data[depthAt] == 16 {
		pixel *= 2
	}
	total := pixel * w * h
	if data[interlaceAt] != 0 {
		total += total / 2 // the last pass, half of the rows
	}
	return total + packed*w*h + int64(len(data)) // its data are joined
}

// transparentPNG says whether a transparent colour stands before the pixels.
func transparentPNG(chunks []byte) bool {
	for len(chunks) >= 12 {
		n := int(binary.BigEndian.Uint32(chunks))
		switch kind := string(chunks[4:8]); {
		case kind == "tRNS":
			return true
		case kind == "IDAT" || n > len(chunks)-12:
			return false
		}
		chunks = chunks[12+n:]
	}
	return false
}

// jpegCost counts the coefficients where the scans of a picture have to be
// collected: two bytes for each sample.
func jpegCost(data []byte, w, h int64) int64 {
	f := jpegFrame(data)
	total := packed * w * h
	if f.components == 4 {
		total += 4 * w * h
	}
	if f.collected {
		// Components are padded to whole units of the most sampled one.
		columns, rows := (w+8*f.maxH-1)/(8*f.maxH), (h+8*f.maxV-1)/(8*f.maxV)
		total += 2 * 64 * columns * rows * f.blocks
	}
	return total + 1<<16 // tables and rows
}

// frame is what a JPEG's header says of its components.
type frame struct {
	components int
	blocks     int64 // of 8 x 8 samples in a unit, of all components
	maxH, maxV int64 // sampling factors
	collected  bool  // its scans hold parts of the picture
}

// jpegFrame reads the header of a JPEG. Where it makes no sense, the answer
// is what takes the most.
func jpegFrame(data []byte) frame {
	worst := frame{components: 4, blocks: 4, maxH: 1, maxV: 1, collected: true}
	var f frame
	for data = data[2:]; len(data) >= 4; {
		if data[0] != 0xff { // between segments libjpeg skips what is none
			data = data[1:]
			continue
		}
		marker := data[1]
		if marker == 0xff || marker == 0 || marker == 1 || marker >= 0xd0 && marker <= 0xd8 { // without a length
			data = data[1:]
			continue
		}
		n := 2 + int(binary.BigEndian.Uint16(data[2:]))
		if n < 4 || n > len(data) {
			return worst
		}
		body := data[4:n]
		switch {
		case marker == 0xda: // the first scan
			if f.components == 0 || len(body) < 1 {
				return worst
			}
			f.collected = f.collected || int(body[0]) < f.components
			return f
		case marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc:
			if len(body) < 6 || len(body) < 6+3*int(body[5]) || f.components > 0 {
				return worst
			}
			f = frame{components: int(body[5]), maxH: 1, maxV: 1, collected: marker != 0xc0 && marker != 0xc1 && marker != 0xc9}
			for i := range f.components {
				across, down := int64(body[7+3*i]>>4), int64(body[7+3*i]&15)
				f.maxH, f.maxV = max(f.maxH, across), max(f.maxV, down)
				f.blocks += across * down
			}
		}
		data = data[n:]
	}
	return worst
}

// bmpCost counts image.RGBA, in which colours are decoded.
func bmpCost(data []byte, w, h int64) int64 { return (4 + packed) * w * h }

// tiffCost counts the picture as libtiff or an image.RGBA64 has it, and one
// strip or tile, which is decoded as a whole.
func tiffCost(data []byte, w, h int64) int64 {
	tags := tiffTags(data)
	tag := func(id uint16, absent int64) int64 {
		if v, ok := tags[id]; ok {
			return v
		}
		return absent
	}
	const bitsPerSample, compression, samplesPerPixel, rowsPerStrip, tileWidth, tileLength = 0x102, 0x103, 0x115, 0x116, 0x142, 0x143
	const oldJPEG, newJPEG = 6, 7
	bits := max(tag(bitsPerSample, 1), 1)
	stored := max(bits*max(tag(samplesPerPixel, 1), 1)/8, 1) // bytes per pixel
	blockW, blockH := w, min(max(tag(rowsPerStrip, h), 1), h)
	if across, down := tag(tileWidth, 0), tag(tileLength, 0); across > 0 && down > 0 {
		blockW, blockH = across, down
	}
	pixel := int64(4)
	if bits > 8 {
		pixel = 8
	}
	if c := tag(compression, 1); c == oldJPEG || c == newJPEG {
		pixel += 6 // coefficients, as in jpegCost
	}
	return saturate(stored, blockW, blockH) + (pixel+packed)*w*h + int64(len(data))
}

// saturate multiplies positive numbers, up to a quarter of what int64 holds.
func saturate(factors ...int64) int64 {
	const most = 1 << 61
	product := int64(1)
	for _, f := range factors {
		if f > most/product {
			return most
		}
		product *= f
	}
	return product
}

// tiffTags reads the numbers that stand first in the tags of the first
// directory of a TIFF or BigTIFF.
func tiffTags(data []byte) map[uint16]int64 {
	tags := map[uint16]int64{}
	if len(data) < 16 {
		return tags
	}
	var order binary.ByteOrder = binary.LittleEndian
	if data[0] == 'M' {
		order = binary.BigEndian
	}
	at, countBytes, entryBytes, valueAt := uint64(order.Uint32(data[4:])), 2, 12, 8
	if order.Uint16(data[2:]) == 43 {
		at, countBytes, entryBytes, valueAt = order.Uint64(data[8:]), 8, 20, 12
	}
	if at > uint64(len(data)-countBytes) {
		return tags
	}
	data = data[at+uint64(countBytes):]
	sizes := map[uint16]int{1: 1, 3: 2, 4: 4, 16: 8} // of types of whole numbers, in bytes
	for len(data) >= entryBytes && len(tags) < 4096 {
		id, kind, value := order.Uint16(data), order.Uint16(data[2:]), data[valueAt:entryBytes]
		size := sizes[kind]
		// A list that does not fit is elsewhere; of those that matter here all numbers are alike.
		count := uint64(order.Uint32(data[4:]))
		if valueAt == 12 {
			count = order.Uint64(data[4:])
		}
		data = data[entryBytes:]
		if _, seen := tags[id]; seen || size == 0 || size > len(value) {
			continue
		}
		switch {
		case count > uint64(len(value)/size):
			tags[id] = maxSample
		case size == 1:
			tags[id] = int64(value[0])
		case size == 2:
			tags[id] = int64(order.Uint16(value))
		case size == 4:
			tags[id] = int64(order.Uint32(value))
		default:
			tags[id] = int64(min(order.Uint64(value), 1<<61))
		}
	}
	return tags
}

// maxSample stands for the bits of samples whose list is elsewhere.
const maxSample = 16

// webpCost counts YCbCr with half the chroma, or, for lossless pictures and
// those with alpha, RGBA with what it is predicted from, and code trees.
func webpCost(data []byte, w, h int64) int64 {
	const kindAt, treeBytes, mostTrees = 12, 200, 140 << 20
	if bytes.HasPrefix(data[kindAt:], []byte("VP8 ")) {
		return (2+packed)*w*h + int64(len(data))
	}
	// A byte of the file makes up to 200 of trees, of which there are at most 2600 times 5.
	return (6+packed)*w*h + int64(len(data)) + min(treeBytes*int64(len(data)), mostTrees)
}
