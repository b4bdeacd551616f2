package server

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"rdpp/rdpp/imagefile"
)

// budget bounds how many bytes are held at once: of bodies, of what becomes of them until they are answered, and of
// pictures while they are decoded. Large takers leave a part of it to small ones, so that a few large requests, however
// slow, keep nobody else out.
type budget struct {
	limit int64

	mu      sync.Mutex
	used    int64
	refused int64         // how often there was no room
	freed   chan struct{} // closed when some is given back; nil: nobody waits
}

// The parts of the limit up to which a request or a picture is small.
const (
	smallRequest = 1024
	smallPicture = 64
)

// forRequest is how full the budget may become by a request that holds n bytes.
func (b *budget) forRequest(n int64) int64 {
	if n <= b.limit/smallRequest {
		return b.limit
	}
	return b.limit / 2
}

// forPicture is the same of a picture that takes n bytes to decode.
func (b *budget) forPicture(n int64) int64 {
	if n <= b.limit/smallPicture {
		return b.limit
	}
	return b.limit - b.limit/8
}

// take adds n bytes, unless there would be more than most.
func (b *budget) take(n, most int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > most {
		b.refused++
		return false
	}
	b.used += n
	return true
}

// wait is take once there is room, or ctx's error.
func (b *budget) wait(ctx context.Context, n, most int64) error {
	for {
		b.mu.Lock()
		if b.used+n <= most {
			b.used += n
			b.mu.Unlock()
			return nil
		}
		if b.freed == nil {
			b.freed = make(chan struct{})
		}
		freed := b.freed
		b.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// give takes back n bytes.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.freed != nil && n > 0 {
		close(b.freed)
		b.freed = nil
	}
}

// now is how many bytes are held, and how often there was no room for more.
func (b *budget) now() (used, refused int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, b.refused
}

var errMemory = errors.New("too many large requests at once; try again later, or raise --max-memory")

// hold counts n more bytes that a request holds, before it does, until it has been answered.
func (s *Server) hold(x *exchange, n int64) error {
	most := s.memory.forRequest(x.held + n)
	if x.held+n > most {
		return failf(http.StatusRequestEntityTooLarge, "the request's images and their answer take %d bytes, of at most %d; send fewer at once, or raise "+
			"--max-memory", x.held+n, most)
	}
	if !s.memory.take(n, most) {
		return busy(0, "%w", errMemory)
	}
	x.held += n
	return nil
}

// drop tells that a request holds n bytes less.
func (s *Server) drop(x *exchange, n int64) {
	s.memory.give(n)
	x.held -= n
}

// slots are the places for goroutines that work on pictures and bodies. Large work has fewer, and none of those that small
// work has, which so never waits behind it.
type slots struct{ small, large chan struct{} }

func newSlots(processors int) slots {
	return slots{make(chan struct{}, processors), make(chan struct{}, max(processors-1, 1))}
}

// slot waits for a place for work that takes n bytes.
func (s *Server) slot(ctx context.Context, n int64) (release func(), err error) {
	places := s.slots.large
	if n <= s.memory.limit/smallPicture {
		places = s.slots.small
	}
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// room waits for a slot and for n bytes to work on a picture with.
func (s *Server) room(ctx context.Context, n int64) (release func(), err error) {
	most := s.memory.forPicture(n)
	if n > most {
		return nil, failf(http.StatusRequestEntityTooLarge, "to decode the image takes up to %d bytes of memory, of at most %d; send a smaller one, or raise "+
			"--max-memory", n, most)
	}
	leave, err := s.slot(ctx, n)
	if err != nil {
		return nil, err
	}
	if err := s.memory.wait(ctx, n, most); err != nil {
		leave()
		return nil, err
	}
	return func() { s.memory.give(n); leave() }, nil
}

// cost is what it takes to decode a file, and its size in pixels.
func (s *Server) cost(file []byte) (n, pixels int64, err error) {
	w, h, n, err := imagefile.Cost(file, s.images())
	if err != nil {
		return 0, 0, failf(http.StatusBadRequest, "%w", err)
	}
	return n, int64(w) * int64(h), nil
}

func (s *Server) images() *imagefile.Options {
	return &imagefile.Options{MaxPixels: s.opt.Detector.MaxPixels}
}
