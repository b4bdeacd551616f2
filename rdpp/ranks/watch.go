package ranks

import (
	"bufio"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// How long the watch takes.
const (
	beatEvery = 2 * time.Second
	silence   = 20 * time.Second // after which a process that says nothing is lost
	grace     = 5 * time.Second  // in which the watch hears of what a lost connection means
)

// watch is a connection of every process to rank 0, over which each says that it is there, and what ends it.
type watch struct {
	rank, size int
	end        func(why string) // of what waits for others

	mu          sync.Mutex
	lines       map[int]*line // to the others: rank 0 to all, those to rank 0
	reason      string
	leaving     bool
	lost        chan struct{} // closed where a process is lost
	interrupted chan struct{} // closed where one was interrupted
	gone        sync.WaitGroup
}

// line is a connection.
type line struct {
	net.Conn
	mu sync.Mutex // of what is written
}

// word is what goes over it, as a line of JSON.
type word struct {
	Kind  string // one of those below
	Rank  int    `json:",omitempty"`
	Token string `json:",omitempty"` // of a hello
	Why   string `json:",omitempty"`
}

const (
	hello     = "hello"
	beat      = "beat"
	interrupt = "interrupt"
	lost      = "lost" // a process, and why; of rank 0
	bye       = "bye"  // of a process that ends; in an error where there is a Why
)

func newWatch(rank, size int, end func(why string)) *watch {
	return &watch{rank: rank, size: size, end: end, lines: map[int]*line{}, lost: make(chan struct{}), interrupted: make(chan struct{})}
}

// accept waits for all other processes to call.
func (w *watch) accept(listener net.Listener, token string) error {
	if l, is := listener.(*net.TCPListener); is {
		l.SetDeadline(time.Now().Add(silence))
	}
	for range w.size - 1 {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return err
			}
			conn.SetReadDeadline(time.Now().Add(silence))
			in := bufio.NewReader(conn)
			var first word
			err = read(in, &first)
			if err != nil || first.Kind != hello || subtle.ConstantTimeCompare([]byte(first.Token), []byte(token)) != 1 || w.lines[first.Rank] != nil {
				conn.Close() // somebody else's
				continue
			}
			w.lines[first.Rank] = &line{Conn: conn}
			defer func() { w.follow(first.Rank, in) }()
			break
		}
	}
	return nil
}

// dial calls rank 0.
func (w *watch) dial(address, token string) error {
	conn, err := net.DialTimeout("tcp", address, silence)
	if err != nil {
		return err
	}
	w.lines[0] = &line{Conn: conn}
	if err := w.lines[0].say(word{Kind: hello, Rank: w.rank, Token: token}); err != nil {
		return err
	}
	w.follow(0, bufio.NewReader(conn))
	return nil
}

func (l *line) say(what word) error {
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.SetWriteDeadline(time.Now().Add(silence))
	_, err = l.Write(append(text, '\n'))
	return err
}

func read(in *bufio.Reader, into *word) error {
	text, err := in.ReadSlice('\n') // of 4096 bytes at most
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// follow listens to a process, and tells it that this one is there, until either ends.
func (w *watch) follow(rank int, in *bufio.Reader) {
	l := w.lines[rank]
	ended := make(chan struct{})
	w.gone.Go(func() {
		defer close(ended)
		w.listen(rank, l, in)
	})
	w.gone.Go(func() {
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				l.say(word{Kind: beat}) // that nobody reads it, listen finds out
			}
		}
	})
}

func (w *watch) listen(rank int, l *line, in *bufio.Reader) {
	for {
		l.SetReadDeadline(time.Now().Add(silence))
		var heard word
		if err := read(in, &heard); err != nil {
			why := "has ended without a word: it was killed, or its machine is gone"
			if errors.Is(err, os.ErrDeadlineExceeded) {
				why = fmt.Sprintf("has not answered for %v: it is stopped, or its machine or the network is gone", silence)
			} else if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) { // which it is where words of ours were unread
				why += fmt.Sprintf(" (%v)", err)
			}
			w.lose(fmt.Sprintf("rank %d of %d %s", rank, w.size, why))
			return
		}
		switch heard.Kind {
		case interrupt:
			w.interrupt()
		case lost:
			w.lose(heard.Why)
		case bye:
			if heard.Why != "" {
				w.lose(fmt.Sprintf("rank %d of %d %s", rank, w.size, heard.Why))
			}
			return
		}
	}
}

// lose ends what this process does with the others, and tells them.
func (w *watch) lose(why string) {
	w.mu.Lock()
	if w.leaving || w.reason != "" {
		w.mu.Unlock()
		return
	}
	w.reason = why
	close(w.lost)
	w.mu.Unlock()
	w.end(why)
	w.tell(word{Kind: lost, Why: why})
}

// interrupt asks all processes to stop.
func (w *watch) interrupt() {
	w.mu.Lock()
	select {
	case <-w.interrupted:
		w.mu.Unlock()
		return
	default:
	}
	close(w.interrupted)
	w.mu.Unlock()
	w.tell(word{Kind: interrupt})
}

// tell says something to those that this process is connected to.
func (w *watch) tell(what word) {
	for _, l := range w.lines {
		l.say(what) // who does not hear it is found to be lost
	}
}

// why is what was lost.
func (w *watch) why() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reason
}

// longestWhy bounds what a process says of its error, so that a word has room in a reader's buffer.
const longestWhy = 500

// leave says goodbye.
func (w *watch) leave(err error) {
	w.mu.Lock()
	w.leaving = true
	w.mu.Unlock()
	goodbye := word{Kind: bye}
	if err != nil {
		why := err.Error()
		goodbye.Why = "has failed: " + why[:min(len(why), longestWhy)]
	}
	w.tell(goodbye)
	for _, l := range w.lines {
		l.Close()
	}
	w.gone.Wait()
}
