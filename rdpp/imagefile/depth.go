package imagefile

import (
	"encoding/binary"
	"math"
	"math/bits"
	"sync"
)

// Stored says what of a file's samples an Image no longer shows. The zero
// Stored is that of pixels from no file.
type Stored struct {
	// Bits per sample in the file: 16, or 8 for all that have fewer.
	Bits int
	// Max is the largest sample of a file of 16 bits, alpha aside; else 0. Of
	// one whose zero is white it is that of v or of 65535 - v, whichever is less.
	Max uint16
	// Hint is how many of the 16 bits the file says are used, by sBIT of a PNG
	// or MaxSampleValue of a TIFF: 1 to 15, or 0 where it says nothing.
	Hint int
	// Depth is the Options.BitDepth, 8 to 16, that samples of 16 bits were
	// brought to 8 by; else 0.
	Depth int
}

// narrowing is how samples of 16 bits, of which depth are used, 8 to 16,
// become bytes: the upper 8 bits of those, or with round the nearest share of
// the range. Of 16 bits these are v >> 8 and (v + 128) / 257.
type narrowing struct {
	depth  int
	round  bool
	invert bool // the file says that 0 is white, and its samples come as 65535 - v; see inverts
}

// of returns what becomes of a sample as it comes, 255 of those above the
// range.
func (n narrowing) of(v uint16) uint8 {
	most := uint32(1)<<n.depth - 1
	w := min(uint32(n.stored(v)), most)
	if n.invert {
		w = most - w
	}
	if n.round {
		return uint8((255*w + most/2) / most)
	}
	return uint8(w >> (n.depth - 8))
}

// stored is a sample as the file has it.
func (n narrowing) stored(v uint16) uint16 {
	if n.invert {
		return ^v
	}
	return v
}

// narrowTables hold of(v) for every v.
var narrowTables sync.Map // from narrowing to *[1 << 16]uint8

func (n narrowing) table() *[1 << 16]uint8 {
	if table, found := narrowTables.Load(n); found {
		return table.(*[1 << 16]uint8)
	}
	table := new([1 << 16]uint8)
	for v := range table {
		table[v] = n.of(uint16(v))
	}
	narrowTables.Store(n, table)
	return table
}

// packWide is packSamples of big-endian samples of 16 bits, which are told by
// the picture's Stored.
func (im *Image) packWide(pix []uint8, stride, pixel, sample int, n narrowing) {
	if n.invert && !im.inverts(pix, stride, n.depth) {
		n.invert = false
	}
	table, least, most := n.table(), uint16(math.MaxUint16), uint16(0)
	for y := range im.H {
		src := pix[y*stride:][:im.W*pixel]
		dst := im.Pix[3*y*im.W:][:3*im.W]
		for len(dst) >= 3 {
			r := binary.BigEndian.Uint16(src)
			g := binary.BigEndian.Uint16(src[sample:])
			b := binary.BigEndian.Uint16(src[2*sample:])
			least, most = min(least, r, g, b), max(most, r, g, b)
			dst[0], dst[1], dst[2] = table[r], table[g], table[b]
			src, dst = src[pixel:], dst[3:]
		}
	}
	if n.invert {
		most = min(most, n.stored(least))
	}
	im.Stored = Stored{Bits: 16, Max: most, Depth: n.depth}
}

// inverts says which of two ways the samples of a grey picture whose zero is
// white, which come as 65535 - v, use depth bits. Some writers invert those bits
// alone, so that v has as many; others all 16, so that what comes has.
func (im *Image) inverts(pix []uint8, stride, depth int) bool {
	least, most := uint16(math.MaxUint16), uint16(0)
	for y := range im.H {
		for row := pix[y*stride:][:2*im.W]; len(row) >= 2; row = row[2:] {
			v := binary.BigEndian.Uint16(row)
			least, most = min(least, v), max(most, v)
		}
	}
	return bits.Len16(^least) <= depth || bits.Len16(most) > depth
}

// pngHint reads the most significant bits of a channel, alpha aside, from a
// PNG's sBIT chunk, 0 if there is none.
func pngHint(data []byte) int {
	const signature, header, trailer = 8, 8, 4 // bytes; of a file and of a chunk
	colours := 0
	for data = data[signature:]; len(data) >= header+trailer; {
		n := int64(binary.BigEndian.Uint32(data))
		if n > int64(len(data)-header-trailer) {
			break
		}
		body := data[header : header+n]
		switch string(data[4:header]) {
		case "IHDR":
			if len(body) == 13 {
				colours = 1 + int(body[9]&2) // 1 of grey, 3 of RGB
			}
		case "sBIT":
			most := 0
			for _, b := range body[:min(colours, len(body))] {
				most = max(most, int(b))
			}
			return most
		case "IDAT":
			return 0
		}
		data = data[header+n+trailer:]
	}
	return 0
}

// tiffHint reads from a TIFF's MaxSampleValue how many bits its largest sample
// takes, 0 if there is none.
func tiffHint(data []byte) int {
	const maxSampleValue, short, size = 281, 3, 2
	order, entries, value := tiffEntries(data)
	for _, e := range entries {
		if order.Uint16(e) != maxSampleValue || order.Uint16(e[2:]) != short {
			continue
		}
		count, values := uint64(order.Uint32(e[4:])), e[value:]
		at := uint64(order.Uint32(values))
		if value == 12 { // BigTIFF
			count, at = order.Uint64(e[4:]), order.Uint64(values)
		}
		samples := int(min(count, 3))
		if count > uint64(len(values)/size) { // they are elsewhere
			if at > uint64(len(data)) || len(data)-int(at) < samples*size {
				return 0
			}
			values = data[at:]
		}
		largest := uint16(0)
		for i := range samples {
			largest = max(largest, order.Uint16(values[size*i:]))
		}
		return bits.Len16(largest)
	}
	return 0
}

// withHint adds what the file says of its bits. That all 16 are used is what
// files say by default, and so says nothing.
func (im *Image) withHint(hint int) *Image {
	if im.Stored.Bits == 16 && hint < 16 {
		im.Stored.Hint = hint
	}
	return im
}
