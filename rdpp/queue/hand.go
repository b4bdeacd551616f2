package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Job is work that is handed out.
type Job struct {
	ID     string // a word that stands for the work: a piece of it that waits already is not handed out once more
	Pieces int    // numbered from 0

	// Message is what a worker is told of a piece. With Renew one that waits already and says something else gives way to it; that
	// takes a look at each that waits.
	Message func(piece int) ([]byte, error)
	Renew   bool
	// Missing yields the pieces without results, ascending; an error is the last that it yields. It is asked over and over.
	Missing func() iter.Seq2[int, error]

	// Ready puts on the server what workers need beside the messages. It is called at the beginning, and now and then, as the
	// server may have lost its disk. Nil: they need nothing.
	Ready func(ctx context.Context) error
	// Every so often, Tell is told at how many pieces workers are, and once more at the end. Nil: nobody is.
	Every time.Duration
	Tell  func(busy int)
	// GivenUp is told of a piece that nobody could do. Nil: nobody is.
	GivenUp func(piece int, reason string)
}

// Dead is a message about a piece that nobody could do.
type Dead struct {
	Task   json.RawMessage `json:"task"` // the piece's own message
	Reason string          `json:"reason"`
}

// ErrDead is wrapped by the error about pieces that nobody could do.
var ErrDead = errors.New("given up")

// looks bound the time between looks for what is missing: a three hundredth of the time that has passed, so that waiting for the next one
// at the end costs no more than that.
const (
	soonestLook = 50 * time.Millisecond
	latestLook  = time.Second
)

// Hand hands the pieces without results to the workers and waits until all have some. What the workers give up is ErrDead, once
// the others are done. To call it again goes on with what is missing.
func (q *Queue) Hand(ctx context.Context, job *Job) error {
	alive, stop := q.alive(ctx)
	defer stop()
	err := q.hand(alive, job)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && ctx.Err() == nil && q.gone.Err() != nil {
		return context.Cause(q.gone)
	}
	return err
}

func (q *Queue) hand(ctx context.Context, job *Job) error {
	if err := q.prepare(ctx); err != nil {
		return err
	}
	if err := job.ready(ctx); err != nil {
		return err
	}
	h := held{end: func() {}}
	defer func() { h.end() }()
	if err := q.watchDead(ctx, job, &h, false); err != nil {
		return err
	}
	work, err := q.js.Stream(ctx, q.kind.work())
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	h.work = work.CachedInfo().Created
	if err := q.submit(ctx, job); err != nil {
		return err
	}
	reasons := map[int]string{}
	began, told := time.Now(), time.Now()
	for {
		missing := 0
		late := map[int]string{} // given up, and without results
		for piece, err := range job.Missing() {
			if err != nil {
				return err
			}
			missing++
			if reason, dead := reasons[piece]; dead {
				late[piece] = reason
			}
		}
		reasons = late
		ended := missing == len(reasons)
		if ended || time.Since(told) >= job.Every {
			busy := 0
			if !ended {
				if busy, err = q.lost(ctx, job, &h); err != nil && ctx.Err() == nil {
					q.opt.Log(err.Error())
				}
			}
			if job.Tell != nil {
				job.Tell(busy)
			}
			told = time.Now()
		}
		if ended {
			return q.given(job, reasons)
		}
		look := time.After(max(soonestLook, min(latestLook, time.Since(began)/300)))
		for waits := true; waits; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-look:
				waits = false
			case m := <-h.letters:
				if piece, reason, ours := q.open(ctx, m, job.ID, true); ours && piece < job.Pieces {
					reasons[piece] = reason
					if job.GivenUp != nil {
						job.GivenUp(piece, reason)
					}
				}
			}
		}
	}
}

func (j *Job) ready(ctx context.Context) error {
	if j.Ready == nil {
		return nil
	}
	return j.Ready(ctx)
}

// given is the error about pieces that were given up, nil for none.
func (q *Queue) given(job *Job, reasons map[int]string) error {
	if len(reasons) == 0 {
		return nil
	}
	var pieces []int
	for piece := range reasons {
		pieces = append(pieces, piece)
	}
	first := slices.Min(pieces)
	return fmt.Errorf("queue: %d of %d %ss were %w, %s %d because: %s; the same command tries them once more", len(pieces), job.Pieces, q.kind.Piece,
		ErrDead, q.kind.Piece, first, reasons[first])
}

// window is how many messages are on their way to the server at once.
const window = 256

// submit hands out the pieces without results. Those that are handed out already stay.
func (q *Queue) submit(ctx context.Context, job *Job) error {
	var pieces []int
	for piece, err := range job.Missing() {
		if err != nil {
			return err
		}
		if pieces = append(pieces, piece); len(pieces) == window {
			if err := q.publish(ctx, job, pieces); err != nil {
				return err
			}
			pieces = pieces[:0]
		}
	}
	return q.publish(ctx, job, pieces)
}

// mostRefusals is how often in a row a server that is there may take none of some pieces.
const mostRefusals = 10

// publish hands out pieces, as often as it takes until the server has them all, unless it takes none while it is there.
func (q *Queue) publish(ctx context.Context, job *Job, pieces []int) error {
	for refused := 0; len(pieces) > 0; {
		left, failed := q.publishOnce(ctx, job, pieces)
		if len(left) == 0 {
			return failed
		}
		switch {
		case len(left) < len(pieces):
			refused = 0
		case q.nc.IsConnected():
			refused++
		}
		if last := q.nc.LastError(); errors.Is(last, nats.ErrPermissionViolation) { // of which the piece's own error says nothing
			failed = last
		}
		if refused == mostRefusals {
			return fmt.Errorf("queue: the NATS server does not take %ss: %w", q.kind.Piece, failed)
		}
		q.opt.Log(fmt.Sprintf("the NATS server has not taken %d %ss yet: %v", len(left), q.kind.Piece, failed))
		pieces = left
		for wait := true; wait; wait = !q.nc.IsConnected() {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if errors.Is(failed, jetstream.ErrNoStreamResponse) || errors.Is(failed, nats.ErrNoResponders) {
			if err := q.prepare(ctx); err != nil {
				q.opt.Log(err.Error())
			}
		}
	}
	return nil
}

// publishOnce hands out pieces, and returns those that the server has not taken, with the reason of one. Without such the error
// is one that another attempt would not mend.
func (q *Queue) publishOnce(ctx context.Context, job *Job, pieces []int) (left []int, failed error) {
	futures := make([]jetstream.PubAckFuture, len(pieces))
	for i, piece := range pieces {
		text, err := job.Message(piece)
		if err != nil {
			return nil, err
		}
		if futures[i], err = q.js.PublishAsync(q.kind.subject("work", job.ID, piece), text); err != nil {
			left, failed = append(left, piece), err
		}
	}
	var wait []int
	for i, future := range futures {
		if future == nil {
			continue
		}
		select {
		case <-future.Ok():
		case err := <-future.Err():
			if waiting(err) {
				wait = append(wait, pieces[i])
			} else {
				left, failed = append(left, pieces[i]), err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if len(wait) > 0 {
		old, err := q.renew(ctx, job, wait)
		if left = append(left, old...); err != nil {
			failed = err
		}
	}
	return left, failed
}

// renew looks after pieces that wait already. What waits and is handed to nobody any more is handed out anew: it was given up, and
// its letter is gone. It returns the pieces that the server has not taken, as publishOnce does.
func (q *Queue) renew(ctx context.Context, job *Job, pieces []int) (left []int, failed error) {
	stream, err := q.js.Stream(ctx, q.kind.work())
	if err != nil {
		return pieces, err
	}
	consumer, err := q.js.Consumer(ctx, q.kind.work(), workers)
	if err != nil {
		return pieces, err
	}
	stuck := idle(consumer.CachedInfo())
	if !stuck && !job.Renew {
		return nil, nil
	}
	for _, piece := range pieces {
		text, err := job.Message(piece)
		if err != nil {
			return nil, err
		}
		subject := q.kind.subject("work", job.ID, piece)
		m, err := stream.GetLastMsgForSubject(ctx, subject)
		if err == nil && (stuck || !bytes.Equal(m.Data, text)) {
			if err = stream.DeleteMsg(ctx, m.Sequence); err == nil {
				_, err = q.js.Publish(ctx, subject, text)
			}
		}
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) { // done meanwhile
			left, failed = append(left, piece), err
		}
	}
	return left, failed
}

// idle says whether workers are at nothing, and are handed nothing more.
func idle(workers *jetstream.ConsumerInfo) bool {
	return workers.NumPending == 0 && workers.NumAckPending == 0
}

// waiting says whether a piece was refused because it waits already.
func waiting(err error) bool {
	var refused *jetstream.APIError
	return errors.As(err, &refused) && refused.ErrorCode == 10077 && strings.Contains(refused.Description, "per subject")
}

// held is what Hand holds of a server.
type held struct {
	work, dead time.Time // when its streams were made
	letters    <-chan jetstream.Msg
	end        func() // of the letters
	idle       bool   // workers were at nothing at the last look
}

// lost gives the server anew what it has lost, as one without a disk does. It returns at how many pieces workers are.
func (q *Queue) lost(ctx context.Context, job *Job, h *held) (busy int, err error) {
	if err := q.prepare(ctx); err != nil {
		return 0, err
	}
	if err := job.ready(ctx); err != nil {
		return 0, err
	}
	dead, err := q.js.Stream(ctx, q.kind.dead())
	if err != nil {
		return 0, fmt.Errorf("queue: %w", err)
	}
	if !dead.CachedInfo().Created.Equal(h.dead) { // its numbers begin anew, so what it has would pass for old
		if err := q.watchDead(ctx, job, h, true); err != nil {
			return 0, err
		}
	}
	work, err := q.js.Stream(ctx, q.kind.work())
	if err != nil {
		return 0, fmt.Errorf("queue: %w", err)
	}
	if work.CachedInfo().Created.Equal(h.work) {
		consumer, err := q.js.Consumer(ctx, q.kind.work(), workers)
		if err != nil {
			return 0, fmt.Errorf("queue: %w", err)
		}
		before := h.idle
		h.idle = idle(consumer.CachedInfo())
		if busy = consumer.CachedInfo().NumAckPending; !h.idle || !before && work.CachedInfo().State.Msgs > 0 { // letters may be on their way
			return busy, nil
		}
	}
	if err := q.submit(ctx, job); err != nil {
		return 0, err
	}
	h.work = work.CachedInfo().Created
	return 0, nil
}

// watchDead has the dead letters that come from here on handed on. What of the job was given up before is taken out of the work,
// so that it can be handed out once more; with all it is handed on too.
func (q *Queue) watchDead(ctx context.Context, job *Job, h *held, all bool) error {
	stream, err := q.js.Stream(ctx, q.kind.dead())
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	old := stream.CachedInfo().State
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	to := make(chan jetstream.Msg)
	watching, stop := context.WithCancel(ctx)
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		select {
		case to <- m:
		case <-watching.Done():
		}
	})
	if err != nil {
		stop()
		return fmt.Errorf("queue: %w", err)
	}
	h.end()
	h.dead, h.letters, h.end = stream.CachedInfo().Created, to, func() { stop(); consuming.Stop() }
	for more := old.Msgs > 0 && !all; more; {
		select {
		case m := <-to:
			q.open(ctx, m, job.ID, false)
			about, err := m.Metadata()
			more = err == nil && about.Sequence.Stream < old.LastSeq
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// open is what a dead letter says, if it is about a job. The server's own letters, about messages that were handed out too often
// and that nobody refused, have these taken out of the work, and are written anew for whoever waits for their job: for this one
// only where that is news.
func (q *Queue) open(ctx context.Context, m jetstream.Msg, job string, news bool) (piece int, reason string, ours bool) {
	if of, piece, ok := q.kind.of("dead", m.Subject()); ok {
		var d Dead
		err := json.Unmarshal(m.Data(), &d)
		return piece, d.Reason, err == nil && of == job
	}
	var event struct {
		Sequence   uint64 `json:"stream_seq"`
		Deliveries int    `json:"deliveries"`
	}
	err := json.Unmarshal(m.Data(), &event)
	var stream jetstream.Stream
	if err == nil {
		stream, err = q.js.Stream(ctx, q.kind.work())
	}
	var message *jetstream.RawStreamMsg
	if err == nil {
		message, err = stream.GetMsg(ctx, event.Sequence)
	}
	if err == nil {
		of, piece, _ := q.kind.of("work", message.Subject)
		if news || of != job {
			err = q.write(ctx, Task{of, piece, message.Data}, fmt.Sprintf("it was handed out %d times, and no worker came to its end", event.Deliveries))
		}
	}
	if err == nil {
		err = stream.DeleteMsg(ctx, event.Sequence)
	}
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) { // another one has done it
		q.opt.Log(fmt.Sprintf("a message that was given up: %v", err))
	}
	return 0, "", false
}

// write writes a dead letter.
func (q *Queue) write(ctx context.Context, t Task, reason string) error {
	d := Dead{t.Message, reason}
	if !json.Valid(d.Task) {
		d.Task = nil
	}
	text, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	subject := q.kind.subjects("dead") + "unknown" // of a message that is none of ours
	if t.Job != "" {
		subject = q.kind.subject("dead", t.Job, t.Piece)
	}
	if _, err = q.js.Publish(ctx, subject, text); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	return nil
}
