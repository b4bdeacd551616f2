package server

import (
	"io"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Large work is done by a thread of lower priority, small work by the caller's, which is as it was afterwards.
func TestAside(t *testing.T) {
	s := &Server{memory: budget{limit: 64 << 10}, opt: Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	nice := func() int { // of the thread that asks
		raised, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
		if err != nil {
			t.Error(err)
		}
		return 20 - raised // as the system call answers
	}
	before := nice()
	for _, c := range []struct {
		bytes int64
		want  int
	}{{1 << 10, before}, {1<<10 + 1, min(before+asideNice, 19)}, {1 << 10, before}} {
		for range 20 { // by different threads
			got := 0
			if err := s.aside(c.bytes, func() error { got = nice(); return io.EOF }); err != io.EOF {
				t.Errorf("%d bytes: got the error %v, want the work's own", c.bytes, err)
			}
			if got != c.want {
				t.Errorf("%d bytes: got nice %d, want %d", c.bytes, got, c.want)
			}
		}
	}
	if err := s.aside(2<<10, func() error { panic("a fault") }); err == nil || !strings.Contains(err.Error(), "internal fault") {
		t.Errorf("a panic: got %v, want an internal fault", err)
	}
}
