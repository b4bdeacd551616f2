package server

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func addressOf(ip string) *net.TCPAddr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 8080} }

// A connection too many takes the place of that which has been silent the longest and is not being answered.
func TestConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cut := 0
	l := &connections{Listener: inner, most: 3, cut: func() { cut++ }}
	defer l.Close()
	dial := func() (client net.Conn, server *connection) {
		t.Helper()
		client, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return client, accepted.(*connection)
	}
	closed := func(client net.Conn) bool {
		if err := client.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := client.Read(make([]byte, 1))
		return err != nil && !isTimeout(err)
	}
	first, firstServer := dial()
	second, secondServer := dial()
	third, _ := dial()
	firstServer.answering()
	// The second says something, so the third is the one that has been silent.
	if _, err := second.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := secondServer.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	fourth, fourthServer := dial()
	if closed(first) || closed(second) || !closed(third) || closed(fourth) || l.open != 3 || cut != 1 {
		t.Errorf("got %d open, %d cut off, want the third to make room", l.open, cut)
	}
	// When all are being answered, the new one has to go.
	secondServer.answering()
	fourthServer.answering()
	late, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	next := make(chan *connection, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			next <- c.(*connection)
		}
	}()
	if !closedSoon(late) {
		t.Error("got a fourth connection, want it closed")
	}
	// One that waits for its next request makes room again.
	firstServer.idle()
	last, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	lastServer := <-next
	if !closedSoon(first) || closed(last) || l.open != 3 || cut != 3 {
		t.Errorf("got %d open, %d cut off, want the first to make room", l.open, cut)
	}
	for _, c := range []*connection{secondServer, fourthServer, lastServer, firstServer, firstServer} {
		c.Close()
	}
	if l.open != 0 || l.waiting.Len() != 0 {
		t.Errorf("got %d open and %d waiting after all were closed, want none", l.open, l.waiting.Len())
	}
}

// closedSoon says whether the other side closes a connection within seconds.
func closedSoon(c net.Conn) bool {
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return false
	}
	_, err := c.Read(make([]byte, 1))
	return err != nil && !isTimeout(err)
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// net/http refuses a request whose client still sends by ending its own half, through this interface, so that the client can
// read the answer.
func TestConnectionEndsItsHalf(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &connections{Listener: inner, most: 1, cut: func() {}}
	defer l.Close()
	client, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	half, ok := accepted.(interface{ CloseWrite() error })
	if !ok {
		t.Fatal("net/http finds no CloseWrite")
	}
	if _, err := accepted.Write([]byte("no")); err != nil {
		t.Fatal(err)
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(client); err != nil || string(answer) != "no" {
		t.Errorf("got %q, %v, want the answer and its end", answer, err)
	}
	if _, err := client.Write([]byte("more")); err != nil {
		t.Errorf("got %v, want that the client can still send", err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(accepted, got); err != nil || string(got) != "more" {
		t.Errorf("got %q, %v from the client, want more", got, err)
	}
}
