package imagefile

import (
	"encoding/binary"
	"hash/crc32"
	"image"
	"strings"
	"testing"
)

// Files that are sound, but not read, are told from damaged ones, and by their name.
func TestSoundFilesNotRead(t *testing.T) {
	png := encodePNG(t, image.NewGray(image.Rect(0, 0, 2, 2)))
	const header = 8 + 25 // bytes of the signature and the first chunk
	chunk := func(kind string) string {
		sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(kind)))
		return "\x00\x00\x00\x00" + kind + string(sum)
	}
	with := func(at int, kind string) string { return string(png[:at]) + chunk(kind) + string(png[at:]) }
	jpeg := string(readFixture(t, "420.jpg"))
	frame := strings.Index(jpeg, "\xff\xc0")
	for name, c := range map[string]struct{ data, want string }{
		"JPEG 2000":       {"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 file, which is not read"},
		"its codestream":  {"\xff\x4f\xff\x51\x00", "a JPEG 2000 file"},
		"JPEG XL":         {"\xff\x0a\x00", "a JPEG XL file"},
		"JPEG XR":         {"II\xbc\x01 \x00", "a JPEG XR file"},
		"AVIF":            {"\x00\x00\x00 ftypavif", "an AVIF file"},
		"HEIC":            {"\x00\x00\x00$ftypheic", "a HEIC file"},
		"HEIC of two":     {"\x00\x00\x00$ftyphevc", "a HEIC file"},
		"PGM":             {"P5\n2 2\n255\n", "a PNM file"},
		"DICOM":           {strings.Repeat("\x00", 128) + "DICM", "a DICOM file"},
		"NumPy":           {"\x93NUMPY\x01", "a NumPy file"},
		"Git LFS":         {"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"},
		"a web page":      {"\n<!DOCTYPE html><html>", "download the image again"},
		"zeros":           {strings.Repeat("\x00", 200), "not an image"},
		"JPEG of 12 bits": {jpeg[:frame+4] + "\x0c" + jpeg[frame+5:], "JPEG file of 12 bits per sample"},
		"JPEG, lossless":  {jpeg[:frame+1] + "\xc3" + jpeg[frame+2:], "JPEG file of a kind that is rare"},
		"JPEG-LS":         {jpeg[:frame+1] + "\xf7" + jpeg[frame+2:], "JPEG file that is JPEG-LS"},
		"Apple's PNG":     {with(8, "CgBI"), "PNG file of Apple's own kind"},
		"a chunk unknown": {with(header, "ABCD"), `PNG file with a chunk "ABCD"`},
		"animated WebP":   {"RIFF\x16\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x01\x00\x00", "WebP file of several pictures"},
	} {
		_, err := Decode([]byte(c.data), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "damaged") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if _, err := Decode([]byte(with(header, "abCd")), nil); err != nil {
		t.Errorf("a chunk that can be passed over: got %v", err)
	}
}
