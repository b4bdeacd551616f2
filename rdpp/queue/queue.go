// Package queue has work done by workers on other machines, which a NATS server hands it out to: a job in pieces, each of which is
// to have results that anybody can look for. What a piece is, and what a worker does with it, is the caller's.
package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Kind is a kind of work. Each has streams of its own, so that its workers are handed nothing else.
//
// The stream of work has a message per piece until some worker has placed its results, on a subject of its own, so that a piece
// cannot wait twice. Whoever takes a message says every third of the lease that it is at work; what nobody has said that of for a
// lease is handed out again, so many times at most. What could not be done then lies in the stream of dead letters.
type Kind struct {
	Name  string // a lower-case word in the names of streams and subjects; "": these do without
	Piece string // what people call a piece, such as training
	Tries int    // how often a piece is handed out at most, unless Options or the server say
}

// Images are pieces of lists of images, which are judged.
var Images = Kind{Piece: "piece", Tries: 5}

// Trainings are trainings. As a worker that is lost costs no more than the time since the last checkpoint, they may lose many.
var Trainings = Kind{Name: "train", Piece: "training", Tries: 20}

// workers is the consumer of a stream of work, which all workers share.
const workers = "workers"

const (
	deadFor    = 30 * 24 * time.Hour // how long dead letters stay
	maxWorking = 4096                // pieces that all workers together are at
)

func (k Kind) stream(name string) string {
	if k.Name == "" {
		return "RDPP_" + name
	}
	return "RDPP_" + strings.ToUpper(k.Name) + "_" + name
}

func (k Kind) work() string { return k.stream("WORK") }
func (k Kind) dead() string { return k.stream("DEAD") }

// subjects begin the names of subjects, which a job's ID and a piece follow, with a full stop between.
func (k Kind) subjects(name string) string {
	if k.Name == "" {
		return "rdpp." + name + "."
	}
	return "rdpp." + k.Name + "." + name + "."
}

// subject is what a piece's message, or its dead letter, lies on.
func (k Kind) subject(name, job string, piece int) string {
	return fmt.Sprintf("%s%s.%d", k.subjects(name), job, piece)
}

// of is the job and the piece of a subject.
func (k Kind) of(name, subject string) (job string, piece int, ok bool) {
	rest, ok := strings.CutPrefix(subject, k.subjects(name))
	job, number, both := strings.Cut(rest, ".")
	if !ok || !both {
		return "", 0, false
	}
	_, err := fmt.Sscanf(number, "%d", &piece)
	return job, piece, err == nil && job != "" && piece >= 0
}

// givenUp is the subject on which the server says that it has handed a message out too often.
func (k Kind) givenUp() string {
	return "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES." + k.work() + "." + workers
}

// Options say how a server is reached, and how pieces are handed out. Zero members mean the defaults.
type Options struct {
	Credentials string        // file of a user's credentials; default: those in the URL, if any
	Wait        bool          // for a server that is not there yet
	Lease       time.Duration // within which a worker has to say that it is at work; default what the server has, 30 seconds at first
	Tries       int           // how often a piece is handed out at most; default what the server has, the kind's at first
	Log         func(text string)

	answer   time.Duration // within which the server has to take a piece; default 10 seconds
	pause    time.Duration // before a worker tries a piece again that is away; default 5 seconds, twice as long each time
	patience time.Duration // for how long it does so; default 10 minutes
}

// Queue is a connection to a NATS server with JetStream. A lost connection comes back by itself, unless the server refuses the
// credentials twice: then it is closed for good, and so are Hand and Work.
type Queue struct {
	kind Kind
	nc   *nats.Conn
	js   jetstream.JetStream
	opt  Options
	gone context.Context // ends with the connection, for the reason that is its cause
}

// CheckURL says what is wrong with the address of a server, or of several with commas between. Passwords stay out of the error.
func CheckURL(address string) error {
	for one := range strings.SplitSeq(address, ",") {
		u, err := url.Parse(one)
		if err == nil && u.Host != "" && slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			if _, err = strconv.ParseUint(cmp.Or(u.Port(), "4222"), 10, 16); err == nil {
				continue
			}
		}
		if at := strings.LastIndexByte(address, '@'); at >= 0 { // a password may have commas in it
			one = "..." + address[at:]
		}
		return fmt.Errorf("%q is no address such as nats://host:4222 or tls://host:4222", one)
	}
	return nil
}

// Connect connects to a server.
func Connect(address string, kind Kind, opt Options) (*Queue, error) {
	if err := CheckURL(address); err != nil { // which the client's own errors quote with their passwords
		return nil, fmt.Errorf("queue: %w", err)
	}
	opt.answer = cmp.Or(opt.answer, 10*time.Second)
	opt.pause = cmp.Or(opt.pause, 5*time.Second)
	opt.patience = cmp.Or(opt.patience, 10*time.Minute)
	if opt.Log == nil {
		opt.Log = func(string) {}
	}
	told, missing := oncePerMinute(opt.Log), oncePerMinute(opt.Log)
	gone, lose := context.WithCancelCause(context.Background())
	settings := []nats.Option{nats.Name("rdpp"), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(opt.Wait),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				opt.Log(fmt.Sprintf("the connection to the NATS server is lost: %v", err))
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { opt.Log("the NATS server is there again") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { told("the NATS server", err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { missing(fmt.Sprintf("no NATS server at %s", hosts(address)), err) }),
		nats.ClosedHandler(func(nc *nats.Conn) {
			lose(fmt.Errorf("queue: the connection to the NATS server is closed: %w", cmp.Or(nc.LastError(), nats.ErrConnectionClosed)))
		})}
	if opt.Credentials != "" {
		settings = append(settings, nats.UserCredentials(opt.Credentials))
	}
	nc, err := nats.Connect(address, settings...)
	if err != nil {
		return nil, fmt.Errorf("queue: no NATS server at %s: %w", hosts(address), err)
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(opt.answer))
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("queue: %w", err)
	}
	if !nc.IsConnected() {
		opt.Log("waiting for the NATS server at " + hosts(address))
	}
	return &Queue{kind, nc, js, opt, gone}, nil
}

// hosts are the servers of an address, without the users in it.
func hosts(address string) string {
	var all []string
	for one := range strings.SplitSeq(address, ",") {
		if u, err := url.Parse(one); err == nil {
			all = append(all, u.Host)
		}
	}
	return strings.Join(all, ", ")
}

// oncePerMinute logs errors about something, the same once a minute.
func oncePerMinute(log func(text string)) func(what string, err error) {
	var mu sync.Mutex
	told, at := "", time.Time{}
	return func(what string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if text := fmt.Sprintf("%s: %v", what, err); text != told || time.Since(at) >= time.Minute {
			told, at = text, time.Now()
			log(text)
		}
	}
}

// Close ends the connection.
func (q *Queue) Close() { q.nc.Close() }

// Sent is how many messages of any kind went to the server so far.
func (q *Queue) Sent() uint64 { return q.nc.Stats().OutMsgs }

// alive is ctx, which ends with the connection too. It has no deadline: by one the client would wait for an answer that was lost
// with the server, where by itself it gives up after seconds.
func (q *Queue) alive(ctx context.Context) (alive context.Context, stop func()) {
	alive, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	ended := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	gone := context.AfterFunc(q.gone, func() { cancel(context.Cause(q.gone)) })
	return alive, func() { ended(); gone(); cancel(nil) }
}

// prepare makes the streams and the consumer that are missing. What an operator has set of those that are there stays; so do
// lease and attempts, unless they are asked for.
func (q *Queue) prepare(ctx context.Context) error {
	streams := []jetstream.StreamConfig{
		{Name: q.kind.work(), Subjects: []string{q.kind.subjects("work") + ">"}, Description: "what has no results yet",
			Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1},
		{Name: q.kind.dead(), Subjects: []string{q.kind.subjects("dead") + ">", q.kind.givenUp()}, Description: "what nobody could do",
			Storage: jetstream.FileStorage, MaxAge: deadFor},
	}
	for _, config := range streams {
		if _, err := q.js.CreateStream(ctx, config); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return fmt.Errorf("queue: the NATS server's streams: %w; it needs JetStream (nats-server -js)", err)
		}
	}
	consumer, err := q.js.Consumer(ctx, q.kind.work(), workers)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = q.js.CreateConsumer(ctx, q.kind.work(), jetstream.ConsumerConfig{Durable: workers, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: cmp.Or(q.opt.Lease, 30*time.Second), MaxDeliver: cmp.Or(q.opt.Tries, q.kind.Tries), MaxAckPending: maxWorking})
		if errors.Is(err, jetstream.ErrConsumerExists) { // another one was quicker
			consumer, err = q.js.Consumer(ctx, q.kind.work(), workers)
		}
	}
	if err == nil {
		config := consumer.CachedInfo().Config
		lease, tries := cmp.Or(q.opt.Lease, config.AckWait), cmp.Or(q.opt.Tries, config.MaxDeliver)
		if lease != config.AckWait || tries != config.MaxDeliver {
			config.AckWait, config.MaxDeliver = lease, tries
			_, err = q.js.UpdateConsumer(ctx, q.kind.work(), config)
		}
	}
	if err != nil {
		return fmt.Errorf("queue: the NATS server's consumer: %w", err)
	}
	return nil
}
