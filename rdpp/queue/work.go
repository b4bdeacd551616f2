package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Task is a piece of a job, as a worker gets it.
type Task struct {
	Job     string // its ID
	Piece   int
	Message []byte // what the job says of it
}

// Do does a piece: it places its results.
type Do func(ctx context.Context, task Task) error

// ErrAway is wrapped by errors of disks, stores and networks that do not give what they are asked for: somewhere else, or after a
// while, it may well be there. The worker keeps the piece and tries it again for some minutes first.
var ErrAway = errors.New("the disk, store or network does not give it")

// Others marks an error of a Do as one of the job and not of the worker, such as that its folder is no more. Errors that are not
// marked speak against the worker.
func Others(err error) error { return marked{err, errOthers} }

// Vain marks an error of a Do as one of the job that other attempts would end with too, so that the piece is given up at once.
func Vain(err error) error { return marked{err, errVain} }

var (
	errOthers = errors.New("of the job")
	errVain   = errors.New("of the job, in vain")
)

// marked is an error with a mark, of which it does not tell.
type marked struct {
	error
	mark error
}

func (m marked) Unwrap() []error { return []error{m.error, m.mark} }

const (
	// mostFailures is how many pieces in a row a worker fails at before it takes none any more: it is the worker then.
	mostFailures = 3
	// nobody is how long a worker waits for a server that has no work yet, and between attempts.
	nobody = time.Second
	// pull is how long a request for a piece stands.
	pull = 5 * time.Second
)

// Work does pieces until ctx ends, one after the other. A piece that fails is handed out again after a while, to whoever is
// there, and so is the one that is under way when ctx ends. An error says that the worker itself is of no use, or that the server
// refuses it.
func (q *Queue) Work(ctx context.Context, do Do) error {
	alive, stop := q.alive(ctx)
	defer stop()
	if err := q.work(alive, do); err != nil || ctx.Err() != nil {
		return err
	}
	return context.Cause(alive)
}

func (q *Queue) work(ctx context.Context, do Do) error {
	failures, told := 0, ""
	for ctx.Err() == nil {
		consumer, err := q.js.Consumer(ctx, q.kind.work(), workers)
		if err == nil {
			err = q.take(ctx, consumer, do, &failures)
		}
		var failed failure
		if errors.As(err, &failed) {
			if failures >= mostFailures {
				return fmt.Errorf("queue: %d %ss in a row failed here, the last one: %w", failures, q.kind.Piece, failed.error)
			}
			continue
		}
		if err == nil || ctx.Err() != nil {
			told = ""
			continue
		}
		text := fmt.Sprintf("no work: %v", err)
		if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
			text = "waiting for the first work"
		}
		if errors.Is(err, nats.ErrNoResponders) {
			text += "; the server needs JetStream (nats-server -js)"
		}
		if text != told && q.nc.IsConnected() { // else it is said that no server is there
			q.opt.Log(text)
			told = text
		}
		select {
		case <-time.After(nobody):
		case <-ctx.Done():
		}
	}
	return nil
}

// failure is an error of a piece.
type failure struct{ error }

// take waits for a piece and does it.
func (q *Queue) take(ctx context.Context, consumer jetstream.Consumer, do Do, failures *int) error {
	messages, err := consumer.Fetch(1, jetstream.FetchMaxWait(pull))
	if err != nil {
		return err
	}
	var m jetstream.Msg
	select {
	case m = <-messages.Messages():
	case <-ctx.Done():
		return ctx.Err()
	}
	if m == nil { // nobody had a piece
		return messages.Error()
	}
	switch err := q.one(ctx, m, consumer.CachedInfo().Config, do); {
	case err == nil:
		*failures = 0
	case errors.Is(err, ErrAway), errors.Is(err, errOthers), errors.Is(err, errVain): // which says nothing about the worker
	default:
		*failures++
		return failure{err}
	}
	return nil
}

// one does the piece of a message.
func (q *Queue) one(ctx context.Context, m jetstream.Msg, config jetstream.ConsumerConfig, do Do) error {
	task := Task{Message: m.Data()}
	var ours bool
	if task.Job, task.Piece, ours = q.kind.of("work", m.Subject()); !ours {
		return q.bury(ctx, m, task, fmt.Sprintf("%q is no subject of a %s", m.Subject(), q.kind.Piece))
	}
	piece := fmt.Sprintf("%s %d", q.kind.Piece, task.Piece)
	working, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for {
			select {
			case <-time.After(config.AckWait / 3):
				if err := m.InProgress(); err != nil && working.Err() == nil {
					q.opt.Log(fmt.Sprintf("%s: the NATS server does not know that it is in work: %v", piece, err))
				}
			case <-working.Done():
				return
			}
		}
	}()
	err := q.patiently(ctx, task, do)
	stop()
	if err == nil {
		// The results are there. Where the server does not hear of it, another worker will find them.
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), config.AckWait)
		defer stop()
		if err := m.DoubleAck(ctx); err != nil {
			q.opt.Log(fmt.Sprintf("%s: its end was not heard: %v", piece, err))
		}
		return nil
	}
	if ctx.Err() != nil {
		m.Nak() // at once to another one; without it after the lease
		q.nc.FlushTimeout(time.Second)
		return err
	}
	tried := 1
	if data, failed := m.Metadata(); failed == nil {
		tried = int(data.NumDelivered)
	}
	q.opt.Log(fmt.Sprintf("%s, attempt %d of %d: %v", piece, tried, config.MaxDeliver, err))
	if tried >= config.MaxDeliver || errors.Is(err, errVain) {
		return errors.Join(err, q.bury(ctx, m, task, err.Error()))
	}
	if failed := m.NakWithDelay(min(time.Duration(tried)*5*time.Second, config.AckWait)); failed != nil {
		q.opt.Log(fmt.Sprintf("%s: %v", piece, failed))
	}
	return err
}

// longestPause is the longest one between attempts at what is away.
const longestPause = time.Minute

// patiently does a piece, again and again for a while where what it needs is away: other pieces would fail likewise, and use up
// their attempts.
func (q *Queue) patiently(ctx context.Context, task Task, do Do) error {
	began := time.Now()
	for pause := q.opt.pause; ; pause = min(2*pause, longestPause) {
		err := do(ctx, task)
		if !errors.Is(err, ErrAway) || time.Since(began)+pause > q.opt.patience {
			return err
		}
		q.opt.Log(fmt.Sprintf("%s %d waits: %v", q.kind.Piece, task.Piece, err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bury puts a message among the dead letters.
func (q *Queue) bury(ctx context.Context, m jetstream.Msg, task Task, reason string) error {
	if err := q.write(ctx, task, reason); err != nil {
		return err
	}
	return m.TermWithReason(reason)
}
