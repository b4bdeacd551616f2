package imagefile

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"
)

var madeUp = flag.String("made-up", "testdata/made_up.zip", "`FILE` that testdata/made_up.py wrote")

// verdict is what has to become of a file: a picture, or an error.
type verdict struct {
	w, h   int
	sha256 string // of the pixels
	reason string // a part of the error
}

func (v *verdict) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		return json.Unmarshal(data, &v.reason)
	}
	return json.Unmarshal(data, &[]any{&v.w, &v.h, &v.sha256})
}

// readMadeUp returns the files of the zip, with what they are in their
// comments, and what has to become of them.
func readMadeUp(t testing.TB) (files []*zip.File, want map[string]verdict) {
	t.Helper()
	z, err := zip.OpenReader(*madeUp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { z.Close() })
	for _, f := range z.File {
		if f.Name != "expected.json" {
			files = append(files, f)
		} else if err := json.Unmarshal(unzip(t, f), &want); err != nil {
			t.Fatal(err)
		}
	}
	if len(files) == 0 || len(files) != len(want) {
		t.Fatalf("got %d files and %d in expected.json", len(files), len(want))
	}
	return files, want
}

func unzip(t testing.TB, f *zip.File) []byte {
	t.Helper()
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Whatever a TIFF's and a BMP's tags say, the pixels are OpenCV's or the ones
// that were written, or the error says why there are none.
func TestMadeUp(t *testing.T) {
	files, all := readMadeUp(t)
	equal, refused := 0, 0
	for _, f := range files {
		want := all[f.Name]
		im, err := Decode(unzip(t, f), nil)
		switch {
		case want.reason != "":
			if err == nil || !strings.Contains(err.Error(), want.reason) || !strings.Contains(err.Error(), "which is not read") {
				t.Errorf("%s (%s): got %v, want an error with %q", f.Name, f.Comment, err, want.reason)
			}
			refused++
		case err != nil:
			t.Errorf("%s (%s): got %v, want a picture", f.Name, f.Comment, err)
		case im.W != want.w || im.H != want.h:
			t.Errorf("%s (%s): got %d x %d, want %d x %d", f.Name, f.Comment, im.W, im.H, want.w, want.h)
		case fmt.Sprintf("%x", sha256.Sum256(im.Pix)) != want.sha256:
			t.Errorf("%s (%s): got other pixels, of %d x %d: %v...", f.Name, f.Comment, im.W, im.H, im.Pix[:min(12, len(im.Pix))])
		default:
			equal++
		}
		if two := strings.Contains(f.Comment, "two pages"); err == nil && (im.Pages == 2) != two {
			t.Errorf("%s (%s): got %d pages", f.Name, f.Comment, im.Pages)
		}
	}
	t.Logf("%d files: %d pictures equal, %d to be refused", len(files), equal, refused)
}

// A file that is cut or damaged anywhere never crashes the decoder.
func TestMadeUpDamaged(t *testing.T) {
	files, _ := readMadeUp(t)
	for i, f := range files {
		data := unzip(t, f)
		for n := range 10 {
			damaged := bytes.Clone(data)
			damaged[(n*len(data)/10+i)%len(data)] ^= uint8(1 << (n % 8))
			if im, err := Decode(damaged, &Options{MaxPixels: 1 << 20}); err == nil && len(im.Pix) != 3*im.W*im.H {
				t.Fatalf("%s: %d x %d with %d bytes", f.Name, im.W, im.H, len(im.Pix))
			}
			_, _ = Decode(data[:n*len(data)/10], nil)
		}
	}
}
