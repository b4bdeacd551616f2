package testmain

import (
	"encoding/binary"
	"hash/crc32"
)

// TwoPages is a TIFF of two pages of 2 x 1 grey pixels.
func TwoPages() []byte {
	data := []byte("II*\x00\x0a\x00\x00\x00\x10\x20") // the pixels behind the header, then the directories
	for _, next := range []uint32{88, 0} {
		data = binary.LittleEndian.AppendUint16(data, 6)
		for _, e := range [][2]uint32{{0x100, 2}, {0x101, 1}, {0x102, 8}, {0x106, 1}, {0x111, 8}, {0x117, 2}} {
			data = binary.LittleEndian.AppendUint16(data, uint16(e[0]))
			data = append(data, 4, 0, 1, 0, 0, 0)
			data = binary.LittleEndian.AppendUint32(data, e[1])
		}
		data = binary.LittleEndian.AppendUint32(data, next)
	}
	return data
}

// HugePNG is the beginning of a PNG file that promises 60000 x 60000 pixels.
func HugePNG() []byte {
	header := []byte("IHDR")
	header = binary.BigEndian.AppendUint32(header, 60000)
	header = binary.BigEndian.AppendUint32(header, 60000)
	header = append(header, 8, 2, 0, 0, 0) // 8-bit RGB
	data := binary.BigEndian.AppendUint32([]byte("\x89PNG\r\n\x1a\n"), uint32(len(header)-4))
	data = append(data, header...)
	return binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(header))
}
