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
		w, h, size, err = c.cost(data, opt)
	}
	if err != nil {
		return 0, 0, 0, fmt.Errorf("imagefile: %w", err)
	}
	return w, h, size, nil
}

func (c *codec) cost(data []byte, opt *Options) (w, h int, size int64, err error) {
	defer c.recovered(&err)
	if w, h, err = c.bounds(data, opt); err != nil {
		return 0, 0, 0, err
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
	"PNG": pngCost, "JPEG": jpegCost, "BMP": bmpCost, "TIFF": tiffCost, "WebP": webpCost, "GIF": gifCost,
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
		case startOfFrame(marker):
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

// tiffCost counts the picture as libtiff or an image.NRGBA64 has it, one strip or
// tile, which is decoded as a whole, and what its decoder keeps.
func tiffCost(data []byte, w, h int64) int64 {
	f, err := openTIFF(data)
	if err != nil {
		return 0 // there are no pixels to decode
	}
	defer f.close()
	bits, samples := int64(f.header.bits), int64(f.header.samples)
	stored := max(bits*samples/8, 1) // bytes per pixel
	block := saturate(stored, int64(f.header.block_width), int64(f.header.block_height))
	pixel := int64(4)
	if bits > 8 {
		pixel = 8
	}
	kept := int64(0)
	switch f.header.compression {
	case tiffJPEG:
		kept = coefficients(data)
	case tiffZstd:
		const window = 128 << 20 // libzstd's largest
		kept = min(block, window)
	}
	return block + kept + (pixel+packed)*w*h + int64(len(data))
}

// coefficients is the most memory that a JPEG inside a TIFF takes where its scans
// have to be collected: two bytes for each sample. It may be higher than its
// strip.
func coefficients(data []byte) (most int64) {
	for {
		i := bytes.IndexByte(data, 0xff)
		if i < 0 || len(data)-i < 10 {
			return most
		}
		data = data[i+1:]
		if !startOfFrame(data[0]) || int(binary.BigEndian.Uint16(data[1:])) != 8+3*int(data[8]) {
			continue
		}
		const unit = 32 // pixels that components are padded to, at most
		h, w := (int64(binary.BigEndian.Uint16(data[4:]))+unit-1)/unit*unit, (int64(binary.BigEndian.Uint16(data[6:]))+unit-1)/unit*unit
		most = max(most, 2*int64(data[8])*w*h)
	}
}

// startOfFrame says whether a JPEG's marker begins a header with its size.
func startOfFrame(marker byte) bool {
	return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc
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
