// Package grouptest is what tests of several processes that train one model have in common.
package grouptest

import (
	"errors"
	"net"
	"testing"
	"time"

	"rdpp/torch"
)

// FreePort is a TCP port of this machine that nobody listens at.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Lacking is the error by which this libtorch says that it has no gloo; nil: processes can meet.
func Lacking(t testing.TB) error {
	t.Helper()
	group, err := torch.Meet(torch.Meeting{Host: "127.0.0.1", Port: FreePort(t), Server: true, Size: 1, Patience: time.Minute}, torch.CPU)
	if errors.Is(err, torch.ErrUnsupported) {
		return err
	}
	if err != nil {
		t.Fatal(err)
	}
	group.Close()
	return nil
}

// Need skips a test where processes cannot meet.
func Need(t testing.TB) {
	t.Helper()
	if err := Lacking(t); err != nil {
		t.Skip(err)
	}
}
