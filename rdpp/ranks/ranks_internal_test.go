package ranks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rdpp/torch"
)

func TestFromEnv(t *testing.T) {
	whole := map[string]string{"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
	with := func(pairs ...string) map[string]string {
		all := map[string]string{}
		for name, value := range whole {
			all[name] = value
		}
		for i := 0; i < len(pairs); i += 2 {
			all[pairs[i]] = pairs[i+1]
		}
		return all
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		want World // zero: none
		text string
	}{
		{"none", nil, World{}, ""},
		{"torchrun's", with("TORCHELASTIC_USE_AGENT_STORE", "True", "TORCHELASTIC_RESTART_COUNT", "2"),
			World{Rank: 1, Size: 4, LocalSize: 2, Addr: "node1", Port: 29500, Agent: true, Attempt: "2"}, ""},
		{"started by Launch", with("RDPP_LAUNCHED", "1"), World{Rank: 1, Size: 4, LocalSize: 2, Addr: "node1", Port: 29500, Launched: true}, ""},
		{"least", map[string]string{"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "::1", "MASTER_PORT": "1", "GLOO_SOCKET_IFNAME": "eth1"},
			World{Size: 2, Addr: "::1", Port: 1, Network: "eth1"}, ""},
		{"one process", with("RANK", "0", "WORLD_SIZE", "1"), World{}, ""},
		{"no size", with("WORLD_SIZE", ""), World{}, ""},
		{"no port", with("MASTER_PORT", ""), World{}, `MASTER_PORT=""`},
		{"no address", with("MASTER_ADDR", ""), World{}, "no MASTER_ADDR"},
		{"rank too high", with("RANK", "4"), World{}, "ranks are counted from 0"},
		{"no number", with("RANK", "one"), World{}, `RANK="one"`},
		{"below 0", with("LOCAL_RANK", "-1"), World{}, `LOCAL_RANK="-1"`},
		{"too many", with("WORLD_SIZE", "1000000"), World{}, `WORLD_SIZE="1000000"`},
	} {
		got, err := FromEnv(func(name string) string { return c.env[name] })
		if got == nil {
			got = &World{}
		}
		if *got != c.want || (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %+v, %v, want %+v, %q", c.name, *got, err, c.want, c.text)
		}
	}
}

// Nil is one process, which waits for nobody.
func TestAlone(t *testing.T) {
	var p *Peers
	ctx, cancel := p.Context(t.Context())
	going, err := p.Agree(Stops)
	value := 3
	if p.Rank() != 0 || p.Size() != 1 || !p.First() || p.Group() != nil || ctx.Err() != nil || going != Stops || err != nil || p.Share(&value) != nil || value != 3 ||
		p.Same("settings", "one") != nil || p.Explain(torch.ErrPeer) != torch.ErrPeer {
		t.Errorf("got %v, %v, %v", going, err, ctx.Err())
	}
	cancel()
	p.Close(nil)
}

// A meeting that libtorch would wait for without end has one.
func TestMeetingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		began := time.Now()
		_, err := meet(func() (*torch.Group, error) { <-stuck; return nil, nil })
		if took := time.Since(began); !errors.Is(err, torch.ErrPeer) || took != longestMeeting {
			t.Errorf("got %v after %v, want an error after %v", err, took, longestMeeting)
		}
		close(stuck)
	})
}

// connected are three watches, each with what it has ended by.
func connected(t *testing.T) (all [3]*watch, ends [3]chan string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for rank := range all {
		ends[rank] = make(chan string, 1)
		all[rank] = newWatch(rank, len(all), func(why string) { ends[rank] <- why })
	}
	stranger, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	fmt.Fprintln(stranger, `{"Kind":"hello","Rank":1,"Token":"guessed"}`)
	failed := make(chan error, len(all))
	for rank := 1; rank < len(all); rank++ {
		go func() { failed <- all[rank].dial(listener.Addr().String(), "token") }()
	}
	failed <- all[0].accept(listener, "token")
	for range all {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	return all, ends
}

// What ends one process ends the others, who say why.
func TestWatch(t *testing.T) {
	for _, c := range []struct {
		name string
		rank int
		end  func(w *watch)
		want string // of the others; empty: they go on
	}{
		{"killed", 2, func(w *watch) { w.lines[0].Close() }, "rank 2 of 3 has ended without a word"},
		{"killed before it had read all", 2, func(w *watch) {
			w.lines[0].Conn.(*net.TCPConn).SetLinger(0) // closes with a reset
			w.lines[0].Close()
		}, "rank 2 of 3 has ended without a word: it was killed, or its machine is gone"},
		{"rank 0 killed", 0, func(w *watch) {
			w.leaving = true // nothing of it lives on
			for _, l := range w.lines {
				l.Close()
			}
		}, "rank 0 of 3 has ended without a word"},
		{"failed", 1, func(w *watch) { w.leave(errors.New("the disk is full")) }, "rank 1 of 3 has failed: the disk is full"},
		{"failed at length", 1, func(w *watch) { w.leave(errors.New(strings.Repeat("\x01", 100000))) }, "rank 1 of 3 has failed: \x01"},
		{"done", 1, func(w *watch) { w.leave(nil) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			all, ends := connected(t)
			c.end(all[c.rank])
			for rank := range all {
				if rank == c.rank {
					continue
				}
				select {
				case why := <-ends[rank]:
					if c.want == "" || !strings.HasPrefix(why, c.want) || strings.Contains(why, "tcp") {
						t.Errorf("rank %d: got %q, want %q and no more of the connection", rank, why, c.want)
					}
				case <-time.After(5 * time.Second):
					t.Errorf("rank %d: got nothing within 5 s, want %q", rank, c.want)
				case <-stillThere(c.want):
				}
			}
			for rank, w := range all {
				if rank != c.rank {
					w.leave(nil)
				}
			}
		})
	}
}

// stillThere is ready after a moment where nothing is to come.
func stillThere(want string) <-chan time.Time {
	if want != "" {
		return nil
	}
	return time.After(200 * time.Millisecond)
}

// An interrupt of one process is one of all.
func TestInterrupt(t *testing.T) {
	all, _ := connected(t)
	ctx, interrupt := context.WithCancel(t.Context())
	var contexts []context.Context
	for rank, w := range all {
		own := t.Context()
		if rank == 2 {
			own = ctx
		}
		peers := Peers{watch: w}
		ctx, cancel := peers.Context(own)
		defer cancel()
		contexts = append(contexts, ctx)
	}
	interrupt()
	for rank, ctx := range contexts {
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
			t.Errorf("rank %d: goes on", rank)
		}
	}
	for _, w := range all {
		w.leave(nil)
	}
}
