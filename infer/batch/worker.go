package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"rdpp/rdpp/bulk"
)

// Do does a piece of a batch, of which task is the message: it places its results.
type Do func(ctx context.Context, task Task) error

const (
	// mostFailures is how many pieces in a row a worker fails at before it takes none any more: it is the worker then.
	mostFailures = 3
	// nobody is how long a worker waits for a server that has no work yet, and between attempts.
	nobody = time.Second
	// pull is how long a request for a piece stands.
	pull = 5 * time.Second
)

// Work does pieces until ctx ends, one after the other. A piece that fails is handed out again after a while, to whoever is
// there, and so is the one that is under way when ctx ends. A piece whose images or results are away, ErrAway, is kept and tried
// again for some minutes first. An error says that the worker itself is of no use, or that the server refuses it.
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
		consumer, err := q.js.Consumer(ctx, workStream, workers)
		if err == nil {
			err = q.take(ctx, consumer, do, &failures)
		}
		var failed failure
		if errors.As(err, &failed) {
			if failures >= mostFailures {
				return fmt.Errorf("batch: %d pieces in a row failed here, the last one: %w", failures, failed.error)
			}
			continue
		}
		if err == nil || ctx.Err() != nil {
			told = ""
			continue
		}
		text := fmt.Sprintf("no work: %v", err)
		if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
			text = "waiting for a first batch"
		}
		if text != told {
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
	case isOfOthers(err): // which says nothing about the worker
	default:
		*failures++
		return failure{err}
	}
	return nil
}

// isOfOthers says whether a piece failed for its batch, which is no more, or for a disk, a store or the network.
func isOfOthers(err error) bool {
	return errors.Is(err, bulk.ErrNone) || errors.Is(err, bulk.ErrOther) || errors.Is(err, ErrAway)
}

// one does the piece of a message.
func (q *Queue) one(ctx context.Context, m jetstream.Msg, config jetstream.ConsumerConfig, do Do) error {
	var task Task
	if err := json.Unmarshal(m.Data(), &task); err != nil {
		return q.bury(ctx, m, Dead{Reason: fmt.Sprintf("no task: %v", err)})
	}
	working, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for {
			select {
			case <-time.After(config.AckWait / 3):
				if err := m.InProgress(); err != nil && working.Err() == nil {
					q.opt.Log(fmt.Sprintf("piece %d: the NATS server does not know that it is in work: %v", task.Piece, err))
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
			q.opt.Log(fmt.Sprintf("piece %d: its end was not heard: %v", task.Piece, err))
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
	q.opt.Log(fmt.Sprintf("piece %d, attempt %d of %d: %v", task.Piece, tried, config.MaxDeliver, err))
	if tried >= config.MaxDeliver {
		return errors.Join(err, q.bury(ctx, m, Dead{task, err.Error()}))
	}
	if failed := m.NakWithDelay(min(time.Duration(tried)*5*time.Second, config.AckWait)); failed != nil {
		q.opt.Log(fmt.Sprintf("piece %d: %v", task.Piece, failed))
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
		q.opt.Log(fmt.Sprintf("piece %d waits: %v", task.Piece, err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bury puts a message among the dead letters.
func (q *Queue) bury(ctx context.Context, m jetstream.Msg, d Dead) error {
	if err := q.write(ctx, d); err != nil {
		return err
	}
	return m.TermWithReason(d.Reason)
}

// OpenTask opens the batch of a task, in a folder or, where that is "", in the one that the task names. It has to be the same:
// another one is bulk.ErrOther, and none bulk.ErrNone. A folder that does not seem to be mounted is ErrAway.
func OpenTask(task Task, folder string) (*bulk.Batch, error) {
	if folder == "" {
		folder = task.Out
	}
	b, err := bulk.Open(folder)
	switch {
	case errors.Is(err, bulk.ErrNone) && !isMounted(folder):
		return nil, fmt.Errorf("batch: %s: %w: the folder is empty or not there on this machine", folder, ErrAway)
	case err != nil:
		return nil, away(err)
	case b.ID() != task.Batch || task.Piece < 0 || task.Piece >= b.Pieces():
		return nil, fmt.Errorf("batch: %s: %w than the one that was handed out", folder, bulk.ErrOther)
	}
	return b, nil
}

// isMounted says whether a folder, or the one that it is missing in, has something in it.
func isMounted(folder string) bool {
	whose := whoseGap(folder)
	if whose == ofEither {
		whose = whoseGap(filepath.Dir(folder))
	}
	return whose == ofImage
}
