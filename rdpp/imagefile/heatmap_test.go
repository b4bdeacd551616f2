package imagefile

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestHeatmap(t *testing.T) {
	m := image.NewNRGBA(image.Rect(0, 0, 5, 3))
	m.Set(2, 1, color.NRGBA{R: 9, G: 8, B: 7, A: 255})
	var file bytes.Buffer
	if err := EncodeHeatmap(&file, m); err != nil {
		t.Fatal(err)
	}
	got, err := Decode(file.Bytes(), nil)
	if err != nil || got.W != 5 || got.H != 3 || !bytes.Equal(got.Pix[3*(1*5+2):][:3], []byte{9, 8, 7}) {
		t.Errorf("got %+v, %v, want the picture of 5 x 3", got, err)
	}
	if parsePNG(file.Bytes()) == nil {
		t.Error("got a file that the plain decoder refuses")
	}
	dir := t.TempDir()
	for _, c := range []struct {
		name    string
		content []byte
		want    bool
	}{
		{"heatmap.png", file.Bytes(), true},
		{"photograph.png", encodePNG(t, m), false},
		{"cut.png", file.Bytes()[:50], false},
		{"text.png", []byte("rdpp heat map, but no PNG; rdpp heat map, rdpp heat map, rdpp heat map"), false},
		{"empty.png", nil, false},
	} {
		path := filepath.Join(dir, c.name)
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := IsHeatmap(path); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	pipe := filepath.Join(dir, "pipe.png")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, dir, filepath.Join(dir, "gone.png")} {
		if IsHeatmap(path) {
			t.Errorf("%s: got a heat map", path)
		}
	}
}

func TestHeatmaps(t *testing.T) {
	dir := t.TempDir()
	var file bytes.Buffer
	if err := EncodeHeatmap(&file, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
		t.Fatal(err)
	}
	names := []string{"a.jpg", "a_heatmap.png", "a_HeatMap_12.PNG", "b_heatmap.png", "c_heatmap.png", "heatmap.png", "a_heatmap.jpg", "marked.png"}
	for _, name := range names {
		content := []byte("no mark")
		if name == "c_heatmap.png" || name == "marked.png" {
			content = file.Bytes()
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := Heatmaps(dir, names)
	want := map[string]bool{"a_heatmap.png": true, "a_HeatMap_12.PNG": true, "c_heatmap.png": true}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestEncodeHeatmapErrors(t *testing.T) {
	if err := EncodeHeatmap(brokenWriter{}, image.NewGray(image.Rect(0, 0, 1, 1))); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got error %v, want %v", err, os.ErrClosed)
	}
	if err := EncodeHeatmap(&bytes.Buffer{}, image.NewGray(image.Rect(0, 0, 0, 0))); err == nil {
		t.Error("a picture of no pixels: got no error")
	}
}
