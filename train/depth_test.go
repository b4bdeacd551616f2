package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/image/tiff"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
)

// deepData is a folder of good images, PNG and TIFF in turn, of grey values in 16 bits, of which the largest is in the last.
func deepData(t *testing.T, largest uint16) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "part")
	for i := range 4 {
		m := image.NewGray16(image.Rect(0, 0, 40, 40))
		for j := range 1600 {
			m.SetGray16(j%40, j/40, color.Gray16{Y: uint16(int(largest) * (j%40 + 10*i) / 80)})
		}
		if i == 3 {
			m.SetGray16(5, 5, color.Gray16{Y: largest})
		}
		var file bytes.Buffer
		err, ext := png.Encode(&file, m), "png"
		if i%2 == 1 {
			file.Reset()
			err, ext = tiff.Encode(&file, m, nil), "tif"
		}
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "good", fmt.Sprintf("%d.%s", i, ext)), file.Bytes())
	}
	return dir
}

// The bits that images use are found over all of them, said, and kept in the model.
func TestBitDepth(t *testing.T) {
	for _, c := range []struct {
		data string
		flag string
		line string // "": none about bits
		bits any
	}{
		{deepData(t, 4031), "--bit-depth=auto", "16-bit images are read as 12 bits (largest value 4031); --bit-depth overrules\n", 12},
		{deepData(t, 1000), "--bit-depth=12", "16-bit images are read as 12 bits (largest value 1000); --bit-depth overrules\n", 12},
		{deepData(t, 60000), "--bit-depth=auto", "16-bit images are read as 16 bits (largest value 60000); --bit-depth overrules\n", 16},
		{dataDir, "--bit-depth=auto", "", 16},
	} {
		out := t.TempDir()
		code, stdout, stderr := trainBy(tiny(c.data, out, c.flag)...)
		if code != command.Done {
			t.Fatalf("%s: got code %d, stderr %q, want 0", c.line, code, stderr)
		}
		if said := strings.Contains(stdout, "16-bit"); said != (c.line != "") || !strings.Contains(stdout, c.line) {
			t.Errorf("got\n%swant %q in it", stdout, c.line)
		}
		text, err := os.ReadFile(filepath.Join(out, "part", rdpp.MetricsFile))
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf(`"bit_depth": %d,`, c.bits); !strings.Contains(string(text), want) || !strings.Contains(string(text), `"darkest"`) {
			t.Errorf("got %s, want %q and a brightness in it", text, want)
		}
	}
}

// A pipe among the images is left out, and counted.
func TestPipeAmongImages(t *testing.T) {
	dir, out := copyData(t), t.TempDir()
	pipe := filepath.Join(dir, "train", "good", "pipe.png")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := trainBy(tiny(dir, out)...); code != command.Done || !strings.Contains(stdout, "left out: 1 pipe, socket or device\n") {
		t.Errorf("got code %d, stdout %q, stderr %q, want code 0 and the pipe counted", code, stdout, stderr)
	}
}
