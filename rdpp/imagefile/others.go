package imagefile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// others are kinds of files that are found among images, by their first bytes, ? standing for any byte.
var others = []struct{ magic, name string }{
	{"\x00\x00\x00\x0cjP  \r\n", "a JPEG 2000 file"}, {"\xff\x4f\xff\x51", "a JPEG 2000 file"},
	{"\x00\x00\x00\x0cJXL ", "a JPEG XL file"}, {"\xff\x0a", "a JPEG XL file"}, {"II\xbc\x01", "a JPEG XR file"},
	{"????ftypavi", "an AVIF file"}, {"????ftyphe", "a HEIC file, as iPhones take them"}, {"????ftypmif1", "a HEIC or AVIF file"},
	{"????ftyp", "a film"}, {"RIFF????AVI ", "a film"}, {"P?\n", "a PNM file (PGM, PPM)"}, {"P? ", "a PNM file (PGM, PPM)"}, {"DDS ", "a DDS file"},
	{"8BPS", "a Photoshop file"}, {"\x76\x2f\x31\x01", "an OpenEXR file"}, {"\x89HDF\r\n", "an HDF5 file"}, {"\x93NUMPY", "a NumPy file"},
	{"SIMPLE  =", "a FITS file"}, {"%PDF-", "a PDF file"}, {strings.Repeat("\x00", 128) + "DICM", "a DICOM file"},
}

// unknown says what a file is that has none of the formats.
func unknown(data []byte) error {
	for _, o := range others {
		if (&codec{magic: o.magic}).matches(data) {
			return fmt.Errorf("%s, which is not read: save it as PNG", o.name)
		}
	}
	start := fmt.Sprintf("not an image: starts with %q", data[:min(12, len(data))])
	switch head := bytes.ToLower(bytes.TrimSpace(data[:min(64, len(data))])); {
	case bytes.HasPrefix(head, []byte("version https://git-lfs")):
		return errors.New(start + ", which is a pointer of Git LFS: fetch the image by git lfs pull")
	case bytes.HasPrefix(head, []byte("<html")), bytes.HasPrefix(head, []byte("<!doctype html")):
		return errors.New(start + ", which is a web page: download the image again")
	}
	return errors.New(start + ", give a PNG, JPEG, BMP, TIFF or WebP file")
}
