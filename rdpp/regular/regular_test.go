package regular

import (
	"bytes"
	"context"
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

func TestCopy(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 200_000) // 3.2 MB, some pieces
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name  string
		ctx   context.Context
		limit int64
		want  error
	}{
		{"all", t.Context(), int64(len(content)), nil},
		{"one too many", t.Context(), int64(len(content)) - 1, ErrLarge},
		{"nothing", t.Context(), 0, ErrLarge},
		{"ended", ended, int64(len(content)), context.Canceled},
	} {
		file, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := Copy(c.ctx, &got, file, c.limit); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if c.want == nil && !bytes.Equal(got.Bytes(), content) {
			t.Errorf("%s: got %d other bytes", c.name, got.Len())
		}
		if int64(got.Len()) > c.limit+1 {
			t.Errorf("%s: got %d bytes, want at most %d", c.name, got.Len(), c.limit+1)
		}
		file.Close()
	}
}
