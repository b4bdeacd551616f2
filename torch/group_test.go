package torch_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"rdpp/torch"
	"rdpp/torch/grouptest"
)

// A libtorch without gloo, such as PyPI's, says what to do.
func TestNoGloo(t *testing.T) {
	err := grouptest.Lacking(t)
	if err == nil {
		t.Skip("this libtorch has gloo")
	}
	for _, want := range []string{"this libtorch has no gloo", "use one process", "libgloo-dev"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// Whoever waits in vain says for whom.
func TestMeetAlone(t *testing.T) {
	grouptest.Need(t)
	port := grouptest.FreePort(t)
	for _, c := range []struct {
		name string
		torch.Meeting
		code torch.Code
		want string
	}{
		{"others", torch.Meeting{Host: "127.0.0.1", Port: port, Server: true, Size: 3, Patience: 3 * time.Second}, torch.ErrPeer, "rank 1, 2 of 3 has not come within 3 s"},
		{"nobody there", torch.Meeting{Host: "127.0.0.1", Port: port, Rank: 1, Size: 2, Patience: time.Second}, torch.ErrPeer, "rank 1 cannot meet the others at 127.0.0.1:"},
		{"no rank", torch.Meeting{Host: "127.0.0.1", Port: port, Rank: 2, Size: 2}, torch.ErrArgument, "rank 2 of 2"},
		{"no port", torch.Meeting{Host: "127.0.0.1", Size: 2}, torch.ErrArgument, "at port 0"},
	} {
		_, err := torch.Meet(c.Meeting, torch.CPU)
		if !errors.Is(err, c.code) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %v, %q", c.name, err, c.code, c.want)
		}
	}
}

// Alone in a group, sums and batches are one's own; and what has ended stays so.
func TestGroupOfOne(t *testing.T) {
	grouptest.Need(t)
	port := grouptest.FreePort(t)
	g, err := torch.Meet(torch.Meeting{Host: "127.0.0.1", Port: port, Server: true, Size: 1, Patience: time.Minute}, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	sums, err := g.Sums(1, -2.5)
	if err != nil || len(sums) != 2 || sums[0] != 1 || sums[1] != -2.5 {
		t.Errorf("got the sums %v, %v", sums, err)
	}
	text, err := g.FirstBytes([]byte("first"))
	if err != nil || string(text) != "first" {
		t.Errorf("got %q, %v", text, err)
	}
	if err := g.Deal(0); !errors.Is(err, torch.ErrArgument) {
		t.Errorf("a batch of nothing: got %v", err)
	}
	if err := g.End("rank 7 has gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Sums(1); !errors.Is(err, torch.ErrPeer) || !strings.Contains(err.Error(), "rank 7 has gone") {
		t.Errorf("after the end: got %v", err)
	}
	g.Close()
	if _, err := g.Sums(1); !errors.Is(err, torch.ErrArgument) {
		t.Errorf("closed: got %v", err)
	}
	if err := g.End("twice"); err != nil {
		t.Errorf("closed: got %v", err)
	}
}
