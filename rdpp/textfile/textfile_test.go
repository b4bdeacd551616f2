package textfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing"), "/dev/zero"} {
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("got %v, want an error that names %s", err, path)
		}
	}
}

// What is no file is refused at once, unless the process has it open, as the shell's <(command) is.
func TestReadPipe(t *testing.T) {
	named := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(named, 0o600); err != nil {
		t.Fatal(err)
	}
	linked := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(named, linked); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]string{named: "a pipe", linked: "a pipe", "/dev/null": "a device", t.TempDir(): "a folder"} {
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), path+": not a regular file but "+kind) {
			t.Errorf("%s: got %v, want %s refused", path, err, kind)
		}
	}
	for _, form := range []string{"/dev/fd/%d", "/dev//fd/%d", "/proc/self/fd/%d"} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = writer.WriteString("a token")
			writer.Close()
		}()
		path := fmt.Sprintf(form, reader.Fd())
		if got, err := Read(path); err != nil || string(got) != "a token" {
			t.Errorf("%s: got %q, %v, want what was written", path, got, err)
		}
		reader.Close()
	}
}
