package server

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"sync"

	"rdpp/rdpp/imagefile"
)

// budget bounds how many bytes are held at once: of bodies and of what becomes of them until they are answered, and of
// pictures while they are decoded. Large takers leave parts of it to others, so that a few large requests, however slow,
// keep nobody else out.
type budget struct {
	limit int64

	mu       sync.Mutex
	requests int64         // held by requests
	pictures int64         // held by pictures that are being decoded
	refused  int64         // how often there was no room
	freed    chan struct{} // closed when some is given back; nil: nobody waits
}

// The parts of the limit up to which a request or a picture is small.
const (
	smallRequest = 1024
	smallPicture = 64
)

// forRequest is how much requests may hold together, and all may, when one is to hold n bytes.
func (b *budget) forRequest(n int64) (requests, all int64) {
	if n <= b.limit/smallRequest {
		return b.limit, b.limit
	}
	return b.limit / 2, b.limit - b.limit/8
}

// forPicture is how much all may hold when a picture is to take n bytes.
func (b *budget) forPicture(n int64) int64 {
	if n <= b.limit/smallPicture {
		return b.limit
	}
	return b.limit - b.limit/4
}

// take adds n bytes to what requests hold, for one that holds held bytes, or says that there is no room.
func (b *budget) take(n, held int64) bool {
	requests, all := b.forRequest(held + n)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.requests+n > requests || b.requests+b.pictures+n > all {
		b.refused++
		return false
	}
	b.requests += n
	return true
}

// give takes back n bytes of a request's.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests -= n
	b.tell(n)
}

// wait adds n bytes for a picture once there is room, or returns ctx's error.
func (b *budget) wait(ctx context.Context, n int64) error {
	for {
		freed := b.tryPicture(n)
		if freed == nil {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tryPicture adds n bytes for a picture, or returns what is closed when it may be tried again.
func (b *budget) tryPicture(n int64) (freed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.requests+b.pictures+n <= b.forPicture(n) {
		b.pictures += n
		return nil
	}
	if b.freed == nil {
		b.freed = make(chan struct{})
	}
	return b.freed
}

// done takes back a picture's n bytes.
func (b *budget) done(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pictures -= n
	b.tell(n)
}

// tell wakes those who wait. The caller holds mu.
func (b *budget) tell(n int64) {
	if b.freed != nil && n > 0 {
		close(b.freed)
		b.freed = nil
	}
}

// now is how many bytes are held, and how often there was no room for more.
func (b *budget) now() (used, refused int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requests + b.pictures, b.refused
}

var errMemory = errors.New("too many large requests at once; try again later, or raise --max-memory")

// hold counts n more bytes that a request holds, before it does, until it has been answered.
func (s *Server) hold(x *exchange, n int64) error {
	if most, _ := s.memory.forRequest(x.held + n); x.held+n > most {
		return failf(http.StatusRequestEntityTooLarge, "the request's images and their answer take %d bytes, of at most %d; send fewer at once, or raise "+
			"--max-memory", x.held+n, most)
	}
	if !s.memory.take(n, x.held) {
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

// fits says whether a picture of x may take n bytes at all, beside what x holds: nobody waits for room that he has himself.
func (s *Server) fits(x *exchange, n int64) error {
	if most := s.memory.forPicture(n) - x.held; n > most {
		return failf(http.StatusRequestEntityTooLarge, "the image takes up to %d bytes of memory, of at most %d; send a smaller one, or raise --max-memory",
			n, most)
	}
	return nil
}

// room waits for a slot and for n bytes to work on a picture of x with.
func (s *Server) room(ctx context.Context, x *exchange, n int64) (release func(), err error) {
	if err := s.fits(x, n); err != nil {
		return nil, err
	}
	leave, err := s.slot(ctx, n)
	if err != nil {
		return nil, err
	}
	if err := s.memory.wait(ctx, n); err != nil {
		leave()
		return nil, err
	}
	return func() {
		if n > s.memory.limit/16 { // else it would still be there when the next one comes
			debug.FreeOSMemory()
		}
		s.memory.done(n)
		leave()
	}, nil
}

// cost is what it takes to decode a file, and its size in pixels. A header takes a place too: that of a TIFF has lists.
func (s *Server) cost(ctx context.Context, file []byte) (n, pixels int64, err error) {
	leave, err := s.slot(ctx, int64(len(file)))
	if err != nil {
		return 0, 0, err
	}
	defer leave()
	err = s.aside(int64(len(file)), func() error {
		w, h, size, err := costOf(file, s.images())
		n, pixels = size, int64(w)*int64(h)
		return unreadable(err)
	})
	return n, pixels, err
}

// costOf is what tests put another in the place of.
var costOf = imagefile.Cost

func (s *Server) images() *imagefile.Options {
	return &imagefile.Options{MaxPixels: s.opt.Detector.MaxPixels}
}
