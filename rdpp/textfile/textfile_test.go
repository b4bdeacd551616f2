package textfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The same text by all that editors and shells call a text file.
func TestRead(t *testing.T) {
	for what, c := range map[string]struct{ content, want string }{
		"UTF-8":            {"größe\r\n", "größe\r\n"},
		"UTF-8 with mark":  {"\xef\xbb\xbfgröße\n", "größe\n"},
		"UTF-16, low":      {"\xff\xfeg\x00r\x00\xf6\x00\n\x00", "grö\n"},
		"UTF-16, high":     {"\xfe\xff\x00g\x00r\x00\xf6\x00\n", "grö\n"},
		"Latin-1":          {"gr\xf6\xdfe", "gr\xf6\xdfe"}, // nothing says what it is
		"empty":            {"", ""},
		"mark alone":       {"\xef\xbb\xbf", ""},
		"mark in the text": {"a\xef\xbb\xbfb", "a\xef\xbb\xbfb"},
	} {
		path := filepath.Join(t.TempDir(), "text")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path); err != nil || string(got) != c.want {
			t.Errorf("%s: got %q, %v, want %q", what, got, err, c.want)
		}
	}
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing")} {
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("got %v, want an error that names %s", err, path)
		}
	}
}

// A device has no size, and this one no end.
func TestReadEnds(t *testing.T) {
	if _, err := Read("/dev/zero"); err == nil || !strings.Contains(err.Error(), "/dev/zero: more than") {
		t.Errorf("got %v, want an error of its length", err)
	}
}
