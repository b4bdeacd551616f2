package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rdpp/rdpp/imagefile"

	"rdpp/rdpp/command"
)

// grey is a PNG file of side x side pixels, which takes 4 bytes for each to decode, and its own bytes.
func grey(t *testing.T, side int) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := png.Encode(&file, image.NewGray(image.Rect(0, 0, side, side))); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// Images share the memory: one that does not fit beside those that are there waits, one that never fits is refused.
func TestRoom(t *testing.T) {
	file := grey(t, 1000)
	size := int64(len(file))
	read := func() ([]byte, error) { return file, nil }
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(9 << 20) // two of 4 MB
		var releases []func()
		for range 2 {
			data, release, err := r.take(t.Context(), size, read, nil, 0, 0)
			if err != nil || !bytes.Equal(data, file) {
				t.Fatalf("got %d bytes, %v, want the file", len(data), err)
			}
			releases = append(releases, release)
		}
		go func() {
			time.Sleep(time.Second)
			releases[0]()
		}()
		begin := time.Now()
		_, third, err := r.take(t.Context(), size, read, nil, 0, 0)
		if err != nil || time.Since(begin) != time.Second {
			t.Errorf("a third one: got %v after %v, want room after a second", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := r.take(ctx, size, read, nil, 0, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a fourth one: got %v, want the end of its time", err)
		}
		third()
		_, fourth, err := r.take(t.Context(), 5<<20, read, nil, 0, 0)
		if err != nil {
			t.Errorf("after a guess too high: got %v, want room", err)
		}
		fourth()
		releases[1]()
		for what, c := range map[string]struct {
			size           int64
			read           func() ([]byte, error)
			perPixel, more int64
			want           string
		}{
			"with its heat map, 12 MB": {size, read, heldHeatmap, 0, "1000 x 1000 pixels takes up to 11 MiB"},
			"beside a mask":            {size, read, 0, 8 << 20, "1000 x 1000 pixels takes up to 11 MiB"},
			"a large file":             {10 << 20, read, 0, 0, "its 10 MiB are more than the memory"},
			"an unreadable one":        {size, func() ([]byte, error) { return nil, os.ErrPermission }, 0, 0, "permission denied"},
			"text":                     {size, func() ([]byte, error) { return []byte("hello"), nil }, 0, 0, "not an image"},
		} {
			if _, _, err := r.take(t.Context(), c.size, c.read, &imagefile.Options{}, c.perPixel, c.more); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", what, err, c.want)
			}
		}
		if !r.held.TryAcquire(r.limit) {
			t.Error("some of the room stays taken")
		}
	})
}

// Images that are large together are scored one after the other, and one that is too large alone is named.
func TestImageMemory(t *testing.T) {
	dir := t.TempDir()
	for i := range 5 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.png", i)), grey(t, 1500), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for memory, want := range map[string]string{"10": "", "4": "--max-memory"} {
		code, stdout, stderr := infer(nil, append(commandLine("image", "--max-memory", memory), dir)...)
		if lines := strings.Count(stdout, "\n"); want == "" && (lines != 5 || code == command.Failed) {
			t.Errorf("%s MiB: got code %d, %d lines, %s, want 5 scores", memory, code, lines, stderr)
		}
		if want != "" && (code != command.Failed || strings.Count(stderr, want) != 5 || !strings.Contains(stderr, filepath.Join(dir, "3.png"))) {
			t.Errorf("%s MiB: got code %d, %s, want each image named, and %s", memory, code, stderr, want)
		}
	}
}
