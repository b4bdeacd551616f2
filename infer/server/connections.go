package server

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
)

// connections is a listener that keeps at most so many connections open. A new one takes the place of that whose client has
// been silent the longest, of those that are to send something; where there is none, it is closed itself.
type connections struct {
	net.Listener
	most int
	cut  func() // called for each that is closed for want of places

	mu      sync.Mutex
	open    int
	waiting list.List // of the *connection that wait for their clients, the longest silent one in front
}

// connection is one of connections.
type connection struct {
	net.Conn
	of     *connections
	place  *list.Element // in waiting; nil: a request is being answered, or it is closed
	busy   int           // requests that are being answered; with HTTP/2 there may be several
	closed bool
}

// Accept waits for a connection.
func (l *connections) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &connection{Conn: accepted, of: l}
		silent, ok := l.add(c)
		if silent != nil {
			l.cut()
			silent.Close()
		}
		if ok {
			return c, nil
		}
		l.cut()
		accepted.Close()
	}
}

// add finds a place for c, and says whose it has to take.
func (l *connections) add(c *connection) (silent *connection, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.most {
		front := l.waiting.Front()
		if front == nil {
			return nil, false
		}
		silent = front.Value.(*connection)
		silent.leave()
	}
	l.open++
	c.place = l.waiting.PushBack(c)
	return silent, true
}

// leave gives up the place. The caller holds of.mu.
func (c *connection) leave() {
	if c.closed {
		return
	}
	c.closed = true
	c.of.open--
	c.stopWaiting()
}

func (c *connection) stopWaiting() {
	if c.place != nil {
		c.of.waiting.Remove(c.place)
		c.place = nil
	}
}

// Close closes the connection.
func (c *connection) Close() error {
	c.of.mu.Lock()
	c.leave()
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite ends what is sent. net/http does so where it refuses a request whose client is still sending, and closes the
// connection some time later: closed at once, it would take the answer from the client.
func (c *connection) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// Read notes that the client is not silent.
func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.of.mu.Lock()
		if c.place != nil {
			c.of.waiting.MoveToBack(c.place)
		}
		c.of.mu.Unlock()
	}
	return n, err
}

// answering says that the request has arrived, so that nobody waits for the client until it is answered.
func (c *connection) answering() {
	if c == nil {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.busy++
	c.stopWaiting()
}

// answered says of a request, for which answering was called, that its answer is there: the connection may bring others.
func (c *connection) answered() {
	if c == nil {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.busy = max(c.busy-1, 0); c.busy == 0 {
		c.wait()
	}
}

// idle says that the next request is waited for.
func (c *connection) idle() {
	if c == nil {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.busy = 0
	c.wait()
}

// wait makes it one of those that wait for their clients. The caller holds of.mu.
func (c *connection) wait() {
	if !c.closed && c.place == nil {
		c.place = c.of.waiting.PushBack(c)
	}
}

type connectionKey struct{}

// connectionOf finds the connection that a request came by, nil if it is not one of connections.
func connectionOf(ctx context.Context) *connection {
	c, _ := ctx.Value(connectionKey{}).(*connection)
	return c
}

// below finds the connection under one of TLS.
func below(c net.Conn) *connection {
	if secure, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = secure.NetConn()
	}
	found, _ := c.(*connection)
	return found
}

// watch makes a server tell connections what becomes of them.
func watch(server *http.Server) {
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, below(c))
	}
	server.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateIdle {
			below(c).idle()
		}
	}
}
