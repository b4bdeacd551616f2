// Package outbox sends what a history records to elsewhere, over MQTT or to a webhook: in order, each message at least once, also
// where the process or the destination dies meanwhile. What waits is the history's own records, see history.Outbox.
package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"rdpp/rdpp/history"
	"rdpp/rdpp/printable"
)

// Destination is where messages go. One goroutine at a time uses it.
type Destination interface {
	// Key tells a destination from others: what waits for it waits under this name.
	Key() string
	// Begin is called first, with a name that no other sender has, and which stays the same.
	Begin(sender string)
	// Ready connects, where there is something to connect to and it is not connected. It is called now and then.
	Ready(ctx context.Context) error
	// Send sends messages in their order, and says how many of the first have been taken for good. Where those are not all of them
	// there is an error, which wraps ErrRefused if the next message is to blame, or a *Later.
	Send(ctx context.Context, messages []Packed) (taken int, err error)
	// Close takes leave.
	Close(ctx context.Context) error
	// String names the destination in what people read, without secrets.
	String() string
}

// ErrRefused is wrapped by the errors about a message that the destination does not want.
var ErrRefused = errors.New("it refuses the message")

// Later is the error of a destination that says when to try again.
type Later struct {
	After time.Duration
	Err   error
}

func (l *Later) Error() string { return l.Err.Error() }
func (l *Later) Unwrap() error { return l.Err }

// Options say how messages are sent. Zero means the defaults.
type Options struct {
	Most int           // messages that may wait; of more the oldest are dropped; default DefaultMost
	Age  time.Duration // for which they may; default 7 days
	// Log is told of what people should know: that a destination fails, or works again, that messages were dropped. Default: nothing.
	Log func(text string)

	First   time.Duration // wait after a failure, twice as long after each one that follows; default 1 s
	Longest time.Duration // such a wait; default 1 min
	Look    time.Duration // how often connections and other processes' records are looked at; default 1 s
	Tries   int           // after which a message that is refused is dropped; default 10
}

// DefaultMost is how many messages may wait.
const DefaultMost = 100_000

const (
	atOnce    = 32          // messages that are handed to a destination
	trimEvery = time.Minute // while nothing fails
)

// Sender sends the messages of an outbox.
type Sender struct {
	opt   Options
	queue *history.Outbox
	to    Destination

	stop  context.CancelFunc
	hurry chan struct{} // ends a wait
	ended chan struct{} // closed when nothing is sent any more

	// These are run's.
	failures int
	failing  time.Time // since when; zero: it works
	trimmed  time.Time
	refused  int // times in which the first message was
}

// Start begins to send a source's records, from the next one on or, where messages waited before, from those on. The caller closes
// the Sender before the history.
func Start(ctx context.Context, h *history.DB, source string, to Destination, opt *Options) (*Sender, error) {
	if opt == nil {
		opt = &Options{}
	}
	queue, err := h.Outbox(ctx, to.Key(), source)
	if err != nil {
		return nil, err
	}
	to.Begin(fmt.Sprintf("rdpp-%.12s-%d", queue.History(), queue.ID()))
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Sender{opt: *opt, queue: queue, to: to, stop: stop, hurry: make(chan struct{}, 1), ended: make(chan struct{})}
	s.opt.Most = cmp.Or(s.opt.Most, DefaultMost)
	s.opt.Age = cmp.Or(s.opt.Age, 7*24*time.Hour)
	s.opt.First = cmp.Or(s.opt.First, time.Second)
	s.opt.Longest = cmp.Or(s.opt.Longest, time.Minute)
	s.opt.Look = cmp.Or(s.opt.Look, time.Second)
	s.opt.Tries = cmp.Or(s.opt.Tries, 10)
	if s.opt.Log == nil {
		s.opt.Log = func(string) {}
	}
	go s.run(ctx)
	return s, nil
}

// Flush waits until nothing waits to be sent or ctx ends, and returns how many messages wait then.
func (s *Sender) Flush(ctx context.Context) (waiting int, err error) {
	select {
	case s.hurry <- struct{}{}:
	default: // it hurries already
	}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	steady := context.WithoutCancel(ctx)
	for over := false; !over; {
		if empty, err := s.queue.Empty(steady); err != nil || empty {
			return 0, err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			over = true
		case <-s.ended:
			over = true
		}
	}
	return s.queue.Waiting(steady)
}

// leaving is how long taking leave may take.
const leaving = 2 * time.Second

// Close ends the sending. What was not sent stays in the history. It is idempotent.
func (s *Sender) Close() error {
	s.stop()
	<-s.ended
	return s.queue.Close()
}

func (s *Sender) run(ctx context.Context) {
	defer close(s.ended)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaving)
		defer cancel()
		_ = s.to.Close(ctx) // which is over, in either case
	}()
	for ctx.Err() == nil {
		wait, woken := s.opt.Look, s.queue.Woken()
		if err := s.sendAll(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			wait, woken = s.failed(ctx, err), nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-woken:
		case <-timer.C:
		case <-s.hurry:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// sendAll sends what waits.
func (s *Sender) sendAll(ctx context.Context) error {
	if ok, err := s.queue.TryLock(); err != nil || !ok { // another process sends, this one's messages, too
		return err
	}
	if err := s.to.Ready(ctx); err != nil {
		return err
	}
	for {
		if time.Since(s.trimmed) >= trimEvery { // also where more and more comes than is taken
			if err := s.trim(ctx); err != nil {
				return err
			}
		}
		records, err := s.queue.Next(ctx, atOnce)
		if err != nil {
			return err
		}
		if len(records) == 0 {
			s.works()
			return nil
		}
		if err := s.send(ctx, records); err != nil {
			return err
		}
		s.works()
	}
}

// send sends records and notes which ones have been taken.
func (s *Sender) send(ctx context.Context, records []*history.Record) error {
	steady := context.WithoutCancel(ctx) // what was taken should not be sent again
	var messages []Packed
	for _, r := range records {
		m, err := pack(s.queue.History(), r)
		if err != nil && len(messages) == 0 { // an infinite number, which JSON cannot hold
			s.opt.Log(fmt.Sprintf("%s: the verdict on %s is dropped: %v", s.to, r.Image, err))
			return s.queue.Skip(steady, r.ID)
		}
		if err != nil {
			break // those before it come first
		}
		messages = append(messages, m)
	}
	taken, err := s.to.Send(ctx, messages)
	if taken > 0 {
		s.refused, s.failures = 0, 0
		if err := s.queue.Sent(steady, records[taken-1].ID); err != nil {
			return err
		}
	}
	if !errors.Is(err, ErrRefused) {
		return err
	}
	if s.refused++; s.refused < s.opt.Tries {
		return err
	}
	s.refused = 0
	s.opt.Log(fmt.Sprintf("%s: the verdict %s was refused %d times and is dropped: %v", s.to, messages[taken].ID, s.opt.Tries, err))
	return s.queue.Skip(steady, records[taken].ID)
}

// failed tells of an error once, drops what is too much, and says how long to wait.
func (s *Sender) failed(ctx context.Context, err error) (wait time.Duration) {
	if s.failing.IsZero() {
		s.failing = time.Now()
		s.opt.Log(fmt.Sprintf("%s: %v; verdicts wait in the history until it works again", s.to, err))
	}
	if err := s.trim(ctx); err != nil && ctx.Err() == nil {
		s.opt.Log(err.Error())
	}
	wait = s.opt.Longest
	if s.failures < 30 {
		wait = min(wait, s.opt.First<<s.failures)
	}
	s.failures++
	if later := (*Later)(nil); errors.As(err, &later) {
		wait = max(wait, min(later.After, 10*s.opt.Longest))
	}
	return wait
}

// works tells that what failed works.
func (s *Sender) works() {
	if !s.failing.IsZero() {
		s.opt.Log(fmt.Sprintf("%s: works again after %v", s.to, time.Since(s.failing).Round(time.Second)))
	}
	s.failing, s.failures = time.Time{}, 0
}

// trim drops what is too much.
func (s *Sender) trim(ctx context.Context) error {
	s.trimmed = time.Now()
	dropped, err := s.queue.Trim(ctx, s.opt.Most, s.opt.Age)
	if dropped > 0 {
		s.opt.Log(fmt.Sprintf("%s: %d verdicts are dropped, the oldest: no more than %d wait, for %v and as long as the history keeps them",
			s.to, dropped, s.opt.Most, s.opt.Age))
	}
	return err
}

// CloseAll flushes and closes senders together, within a time, and returns what to tell of those that have messages left.
func CloseAll(senders []*Sender, within time.Duration) (left []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, s := range senders {
		all.Go(func() {
			waiting, failed := s.Flush(ctx)
			failed = errors.Join(failed, s.Close())
			mu.Lock()
			defer mu.Unlock()
			if waiting > 0 {
				left = append(left, fmt.Sprintf("%s: %s in the history still to send; the next call does", s.to, printable.Count(waiting, "verdict")))
			}
			err = errors.Join(err, failed)
		})
	}
	all.Wait()
	return left, err
}
