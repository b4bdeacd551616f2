package regular

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// within fails the test where f does not return soon.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: still waiting after 10 s", what)
	}
}

// odd are files of every other kind, and links to them, with what the error says of them.
func odd(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	pipe, socket := filepath.Join(dir, "pipe.safetensors"), filepath.Join(dir, "socket")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	kinds := map[string]string{pipe: "a pipe", socket: "a socket", dir: "a folder", "/dev/zero": "a device"}
	for i, target := range []string{pipe, "/dev/zero", dir} {
		link := filepath.Join(dir, "link"+strings.Repeat("x", i))
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		kinds[link] = kinds[target]
	}
	return kinds
}

func TestOpen(t *testing.T) {
	for path, kind := range odd(t) {
		within(t, path, func() {
			file, err := Open(path)
			if !errors.Is(err, ErrKind) || !strings.Contains(err.Error(), kind) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: got %v and %v, want %v that says %q", path, file, err, ErrKind, kind)
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want %v", err, os.ErrNotExist)
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := path + " link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, link} {
		if got, err := ReadFile(path, 7); string(got) != "content" || err != nil {
			t.Errorf("%s: got %q and %v, want its content", path, got, err)
		}
	}
}

func TestReadFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadFile(path, 6); !errors.Is(err, ErrLarge) || got != nil || !strings.Contains(err.Error(), "more than 6 bytes") {
		t.Errorf("got %q and %v, want %v", got, err, ErrLarge)
	}
	// A file of the kernel's states no size.
	if _, err := ReadFile("/proc/self/status", 10); !errors.Is(err, ErrLarge) {
		t.Errorf("a file without a size: got %v, want %v", err, ErrLarge)
	}
}
