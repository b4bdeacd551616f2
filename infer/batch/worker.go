package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
// there, and so is the one that is under way when ctx ends. An error says that the worker itself is of no use.
func (q *Queue) Work(ctx context.Context, do Do) error {
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
	if err := q.one(ctx, m, consumer.CachedInfo().Config, do); err != nil {
		*failures++
		return failure{err}
	}
	*failures = 0
	return nil
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
	err := do(ctx, task)
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

// bury puts a message among the dead letters.
func (q *Queue) bury(ctx context.Context, m jetstream.Msg, d Dead) error {
	if err := q.write(ctx, d); err != nil {
		return err
	}
	return m.TermWithReason(d.Reason)
}

// OpenTask opens the batch of a task, in a folder or, where that is "", in the one that the task names. It has to be the same.
func OpenTask(task Task, folder string) (*bulk.Batch, error) {
	if folder == "" {
		folder = task.Out
	}
	b, err := bulk.Open(folder)
	if err != nil {
		return nil, err
	}
	if b.ID() != task.Batch || task.Piece < 0 || task.Piece >= b.Pieces() {
		return nil, fmt.Errorf("batch: %s: %w than the one that was handed out", folder, bulk.ErrOther)
	}
	return b, nil
}
