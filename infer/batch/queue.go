package batch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/bulk"
)

// What the server holds. The stream of work has a message per piece until some worker has placed its results, on a subject of its
// own, so that a piece cannot wait twice. Whoever takes a message says every third of the lease that it is at work; what nobody
// has said that of for a lease is handed out again, so many times at most. What could not be done then lies in the stream of dead
// letters. Models lie in an object store by their SHA-256.
const (
	workStream   = "RDPP_WORK"
	workSubjects = "rdpp.work." // + batch + . + piece
	workers      = "workers"    // the consumer that all share
	deadStream   = "RDPP_DEAD"
	deadSubjects = "rdpp.dead." // + batch + . + piece
	givenUp      = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES." + workStream + "." + workers
	models       = "RDPP_MODELS"

	deadFor    = 30 * 24 * time.Hour
	modelsFor  = 30 * 24 * time.Hour // behind the last batch that asks for it
	maxWorking = 4096                // pieces that all workers together are at
)

// Task is a message: a piece of a batch.
type Task struct {
	Batch string `json:"batch"` // its ID
	Out   string `json:"out"`   // its folder, as whoever hands it out sees it
	Model string `json:"model"` // SHA-256 of the model file
	List  string `json:"list"`  // SHA-256 of the list
	Piece int    `json:"piece"`
	From  int64  `json:"from"` // its first image
	To    int64  `json:"to"`   // behind its last one
}

// Dead is a message about a piece that nobody could do.
type Dead struct {
	Task
	Reason string `json:"reason"`
}

// ErrDead is wrapped by the error about pieces that nobody could do.
var ErrDead = errors.New("given up")

// QueueOptions say how a server is reached, and how pieces are handed out. Zero members mean the defaults.
type QueueOptions struct {
	Credentials string        // file of a user's credentials; default: those in the URL, if any
	Wait        bool          // for a server that is not there yet
	Lease       time.Duration // within which a worker has to say that it is at work; default what the server has, 30 seconds at first
	Tries       int           // how often a piece is handed out at most; default what the server has, 5 at first
	Log         func(text string)

	answer   time.Duration // within which the server has to take a piece; default 10 seconds
	pause    time.Duration // before a worker tries a piece again whose images are away; default 5 seconds, twice as long each time
	patience time.Duration // for how long it does so; default 10 minutes
}

// Queue is a connection to a NATS server with JetStream. A lost connection comes back by itself, unless the server refuses the
// credentials twice: then it is closed for good, and so are Hand and Work.
type Queue struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	opt  QueueOptions
	gone context.Context // ends with the connection, for the reason that is its cause
}

// CheckURL says what is wrong with the address of a server, or of several with commas between. Passwords stay out of the error.
func CheckURL(address string) error {
	for one := range strings.SplitSeq(address, ",") {
		u, err := url.Parse(one)
		if err == nil && u.Host != "" && slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			continue
		}
		if at := strings.LastIndexByte(address, '@'); at >= 0 { // a password may have commas in it
			one = "..." + address[at:]
		}
		return fmt.Errorf("%q is no address such as nats://host:4222 or tls://host:4222", one)
	}
	return nil
}

// Connect connects to a server.
func Connect(address string, opt QueueOptions) (*Queue, error) {
	if err := CheckURL(address); err != nil { // which the client's own errors quote with their passwords
		return nil, fmt.Errorf("batch: %w", err)
	}
	opt.answer = cmp.Or(opt.answer, 10*time.Second)
	opt.pause = cmp.Or(opt.pause, 5*time.Second)
	opt.patience = cmp.Or(opt.patience, 10*time.Minute)
	if opt.Log == nil {
		opt.Log = func(string) {}
	}
	gone, lose := context.WithCancelCause(context.Background())
	settings := []nats.Option{nats.Name("rdpp"), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(opt.Wait),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				opt.Log(fmt.Sprintf("the connection to the NATS server is lost: %v", err))
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { opt.Log("the NATS server is there again") }),
		nats.ErrorHandler(errorsTo(opt.Log)),
		nats.ClosedHandler(func(nc *nats.Conn) {
			lose(fmt.Errorf("batch: the connection to the NATS server is closed: %w", cmp.Or(nc.LastError(), nats.ErrConnectionClosed)))
		})}
	if opt.Credentials != "" {
		settings = append(settings, nats.UserCredentials(opt.Credentials))
	}
	nc, err := nats.Connect(address, settings...)
	if err != nil {
		return nil, fmt.Errorf("batch: no NATS server: %w", err)
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(opt.answer))
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("batch: %w", err)
	}
	if !nc.IsConnected() {
		opt.Log("waiting for the NATS server")
	}
	return &Queue{nc, js, opt, gone}, nil
}

// errorsTo logs what the server complains of, such as missing permissions: the same once a minute.
func errorsTo(log func(text string)) nats.ErrHandler {
	var mu sync.Mutex
	told, at := "", time.Time{}
	return func(_ *nats.Conn, _ *nats.Subscription, err error) {
		mu.Lock()
		defer mu.Unlock()
		if text := fmt.Sprintf("the NATS server: %v", err); text != told || time.Since(at) >= time.Minute {
			told, at = text, time.Now()
			log(text)
		}
	}
}

// Close ends the connection.
func (q *Queue) Close() { q.nc.Close() }

// alive is ctx, which ends with the connection too.
func (q *Queue) alive(ctx context.Context) (alive context.Context, stop func()) {
	alive, cancel := context.WithCancelCause(ctx)
	forget := context.AfterFunc(q.gone, func() { cancel(context.Cause(q.gone)) })
	return alive, func() { forget(); cancel(nil) }
}

// prepare makes the streams and the consumer that are missing. What an operator has set of those that are there stays; so do
// lease and attempts, unless they are asked for.
func (q *Queue) prepare(ctx context.Context) error {
	streams := []jetstream.StreamConfig{
		{Name: workStream, Subjects: []string{workSubjects + ">"}, Description: "pieces of batches that have no results yet",
			Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1},
		{Name: deadStream, Subjects: []string{deadSubjects + ">", givenUp}, Description: "pieces of batches that nobody could do",
			Storage: jetstream.FileStorage, MaxAge: deadFor},
	}
	for _, config := range streams {
		if _, err := q.js.CreateStream(ctx, config); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return fmt.Errorf("batch: the NATS server's streams: %w; it needs JetStream (nats-server -js)", err)
		}
	}
	consumer, err := q.js.Consumer(ctx, workStream, workers)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = q.js.CreateConsumer(ctx, workStream, jetstream.ConsumerConfig{Durable: workers, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: cmp.Or(q.opt.Lease, 30*time.Second), MaxDeliver: cmp.Or(q.opt.Tries, 5), MaxAckPending: maxWorking})
		if errors.Is(err, jetstream.ErrConsumerExists) { // another one was quicker
			consumer, err = q.js.Consumer(ctx, workStream, workers)
		}
	}
	if err == nil {
		config := consumer.CachedInfo().Config
		lease, tries := cmp.Or(q.opt.Lease, config.AckWait), cmp.Or(q.opt.Tries, config.MaxDeliver)
		if lease != config.AckWait || tries != config.MaxDeliver {
			config.AckWait, config.MaxDeliver = lease, tries
			_, err = q.js.UpdateConsumer(ctx, workStream, config)
		}
	}
	if err != nil {
		return fmt.Errorf("batch: the NATS server's consumer: %w", err)
	}
	return nil
}

// Hand hands the pieces without results to the workers and waits until all have some. tell is told how far all workers are, every
// so often. What the workers give up is ErrDead, once the others are done. To call it again goes on with what is missing.
func (q *Queue) Hand(ctx context.Context, b *bulk.Batch, model string, every time.Duration, tell func(Progress)) error {
	alive, stop := q.alive(ctx)
	defer stop()
	err := q.hand(alive, b, model, every, tell)
	if err != nil && ctx.Err() == nil && q.gone.Err() != nil {
		return context.Cause(q.gone)
	}
	return err
}

func (q *Queue) hand(ctx context.Context, b *bulk.Batch, model string, every time.Duration, tell func(Progress)) error {
	if err := q.prepare(ctx); err != nil {
		return err
	}
	if err := q.offer(ctx, model, b.Model); err != nil {
		return err
	}
	h := held{end: func() {}}
	defer func() { h.end() }()
	if err := q.watchDead(ctx, b, &h, false); err != nil {
		return err
	}
	work, err := q.js.Stream(ctx, workStream)
	if err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	h.work = work.CachedInfo().Created
	c := b.Counter()
	if err := q.submit(ctx, b, c); err != nil {
		return err
	}
	_, images, err := c.Count()
	if err != nil {
		return err
	}
	pace := NewPace(images, b.Images)
	reasons := map[int]string{}
	look := time.NewTicker(time.Second)
	defer look.Stop()
	told := time.Now()
	for {
		done, images, err := c.Count()
		if err != nil {
			return err
		}
		for piece := range reasons { // another worker may have been late
			if there, err := b.Done(piece); err == nil && there {
				delete(reasons, piece)
			}
		}
		ended := done+len(reasons) >= b.Pieces()
		if ended || time.Since(told) >= every {
			p := pace.At(images)
			if !ended {
				if p.Busy, err = q.lost(ctx, b, model, c, &h); err != nil && ctx.Err() == nil {
					q.opt.Log(err.Error())
				}
			}
			tell(p)
			told = time.Now()
		}
		if ended {
			return given(b, reasons)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		case m := <-h.letters:
			if d, ours := q.open(ctx, m, b.ID(), true); ours {
				reasons[d.Piece] = d.Reason
				q.opt.Log(fmt.Sprintf("piece %d is given up: %s", d.Piece, d.Reason))
			}
		}
	}
}

// given is the error about pieces that were given up, nil for none.
func given(b *bulk.Batch, reasons map[int]string) error {
	if len(reasons) == 0 {
		return nil
	}
	var pieces []int
	for piece := range reasons {
		pieces = append(pieces, piece)
	}
	slices.Sort(pieces)
	return fmt.Errorf("batch: %d of %d pieces were %w, piece %d because: %s; the same command tries them once more", len(pieces), b.Pieces(), ErrDead,
		pieces[0], reasons[pieces[0]])
}

// window is how many messages are on their way to the server at once.
const window = 256

// submit hands out the pieces without results. Those that are handed out already stay.
func (q *Queue) submit(ctx context.Context, b *bulk.Batch, c *bulk.Counter) error {
	var batch []int
	for piece, err := range c.Missing() {
		if err != nil {
			return err
		}
		if batch = append(batch, piece); len(batch) == window {
			if err := q.publish(ctx, b, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return q.publish(ctx, b, batch)
}

// mostRefusals is how often in a row a server that is there may take none of some pieces.
const mostRefusals = 10

// publish hands out pieces, as often as it takes until the server has them all, unless it takes none while it is there.
func (q *Queue) publish(ctx context.Context, b *bulk.Batch, pieces []int) error {
	for refused := 0; len(pieces) > 0; {
		left, failed := q.publishOnce(ctx, b, pieces)
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
			return fmt.Errorf("batch: the NATS server does not take pieces: %w", failed)
		}
		q.opt.Log(fmt.Sprintf("the NATS server has not taken %d pieces yet: %v", len(left), failed))
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
func (q *Queue) publishOnce(ctx context.Context, b *bulk.Batch, pieces []int) (left []int, failed error) {
	futures := make([]jetstream.PubAckFuture, len(pieces))
	for i, piece := range pieces {
		from := int64(piece) * int64(b.PerPiece)
		text, err := json.Marshal(Task{b.ID(), b.Dir(), b.Model, b.List, piece, from, from + int64(b.Size(piece))})
		if err != nil {
			return nil, fmt.Errorf("batch: %w", err)
		}
		if futures[i], err = q.js.PublishAsync(workSubject(b.ID(), piece), text); err != nil {
			left, failed = append(left, piece), err
		}
	}
	for i, future := range futures {
		if future == nil {
			continue
		}
		select {
		case <-future.Ok():
		case err := <-future.Err():
			if !waiting(err) {
				left, failed = append(left, pieces[i]), err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return left, failed
}

// waiting says whether a piece was refused because it waits already.
func waiting(err error) bool {
	var refused *jetstream.APIError
	return errors.As(err, &refused) && refused.ErrorCode == 10077 && strings.Contains(refused.Description, "per subject")
}

func workSubject(batch string, piece int) string {
	return workSubjects + batch + "." + strconv.Itoa(piece)
}

// held is what Hand holds of a server.
type held struct {
	work, dead time.Time // when its streams were made
	letters    <-chan jetstream.Msg
	end        func() // of the letters
}

// lost gives the server anew what it has lost, as one without a disk does: streams, model and pieces. It returns how many pieces
// workers are at.
func (q *Queue) lost(ctx context.Context, b *bulk.Batch, model string, c *bulk.Counter, h *held) (busy int, err error) {
	if err := q.prepare(ctx); err != nil {
		return 0, err
	}
	if err := q.offer(ctx, model, b.Model); err != nil {
		return 0, err
	}
	dead, err := q.js.Stream(ctx, deadStream)
	if err != nil {
		return 0, fmt.Errorf("batch: %w", err)
	}
	if !dead.CachedInfo().Created.Equal(h.dead) { // its numbers begin anew, so what it has would pass for old
		if err := q.watchDead(ctx, b, h, true); err != nil {
			return 0, err
		}
	}
	work, err := q.js.Stream(ctx, workStream)
	if err != nil {
		return 0, fmt.Errorf("batch: %w", err)
	}
	if work.CachedInfo().Created.Equal(h.work) {
		consumer, err := q.js.Consumer(ctx, workStream, workers)
		if err != nil {
			return 0, fmt.Errorf("batch: %w", err)
		}
		if busy = consumer.CachedInfo().NumAckPending; busy > 0 || work.CachedInfo().State.Msgs > 0 {
			return busy, nil
		}
	}
	if err := q.submit(ctx, b, c); err != nil {
		return 0, err
	}
	h.work = work.CachedInfo().Created
	return 0, nil
}

// watchDead has the dead letters that come from here on handed on. What of the batch was given up before is taken out of the work,
// so that it can be handed out once more; with all it is handed on too.
func (q *Queue) watchDead(ctx context.Context, b *bulk.Batch, h *held, all bool) error {
	stream, err := q.js.Stream(ctx, deadStream)
	if err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	old := stream.CachedInfo().State
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return fmt.Errorf("batch: %w", err)
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
		return fmt.Errorf("batch: %w", err)
	}
	h.end()
	*h = held{h.work, stream.CachedInfo().Created, to, func() { stop(); consuming.Stop() }}
	for more := old.Msgs > 0 && !all; more; {
		select {
		case m := <-to:
			q.open(ctx, m, b.ID(), false)
			about, err := m.Metadata()
			more = err == nil && about.Sequence.Stream < old.LastSeq
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// open is what a dead letter says, if it is about a batch. The server's own letters, about messages that were handed out too often
// and that nobody refused, have these taken out of the work, and are written anew for whoever waits for their batch: for this one
// only where that is news.
func (q *Queue) open(ctx context.Context, m jetstream.Msg, batch string, news bool) (d Dead, ours bool) {
	if strings.HasPrefix(m.Subject(), deadSubjects) {
		err := json.Unmarshal(m.Data(), &d)
		return d, err == nil && d.Batch == batch
	}
	var event struct {
		Sequence   uint64 `json:"stream_seq"`
		Deliveries int    `json:"deliveries"`
	}
	err := json.Unmarshal(m.Data(), &event)
	var stream jetstream.Stream
	if err == nil {
		stream, err = q.js.Stream(ctx, workStream)
	}
	if err == nil {
		var message *jetstream.RawStreamMsg
		if message, err = stream.GetMsg(ctx, event.Sequence); err == nil {
			err = json.Unmarshal(message.Data, &d.Task)
		}
	}
	if err == nil && (news || d.Batch != batch) {
		d.Reason = fmt.Sprintf("it was handed out %d times, and no worker came to its end", event.Deliveries)
		err = q.write(ctx, d)
	}
	if err == nil {
		err = stream.DeleteMsg(ctx, event.Sequence)
	}
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) { // another one has done it
		q.opt.Log(fmt.Sprintf("a message that was given up: %v", err))
	}
	return d, false
}

// write writes a dead letter.
func (q *Queue) write(ctx context.Context, d Dead) error {
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	subject := deadSubjects + "unknown" // of a message that is none of ours
	if d.Batch != "" {
		subject = fmt.Sprintf("%s%s.%d", deadSubjects, d.Batch, d.Piece)
	}
	_, err = q.js.Publish(ctx, subject, text)
	return err
}

// offer puts a model into the object store, unless it is there for a while yet.
func (q *Queue) offer(ctx context.Context, path, sum string) error {
	store, err := q.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: models, Description: "models, by their SHA-256", Storage: jetstream.FileStorage,
		TTL: modelsFor})
	if errors.Is(err, jetstream.ErrBucketExists) { // with what an operator has set
		store, err = q.js.ObjectStore(ctx, models)
	}
	if err != nil {
		return fmt.Errorf("batch: the NATS server's object store: %w", err)
	}
	if info, err := store.GetInfo(ctx, sum); err == nil && time.Since(info.ModTime) < modelsFor/2 {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	defer file.Close()
	if _, err := store.Put(ctx, jetstream.ObjectMeta{Name: sum}, file); err != nil {
		return fmt.Errorf("batch: %s to the NATS server: %w", path, err)
	}
	return nil
}

// Model fetches a model by its SHA-256 into a folder, where it is kept, and returns its file.
func (q *Queue) Model(ctx context.Context, sum, folder string) (path string, err error) {
	if len(sum) != 2*sha256.Size || strings.Trim(sum, "0123456789abcdef") != "" {
		return "", fmt.Errorf("batch: %q is no SHA-256", sum)
	}
	path = filepath.Join(folder, sum+".safetensors")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return "", fmt.Errorf("batch: %w", err)
	}
	store, err := q.js.ObjectStore(ctx, models)
	if err != nil {
		return "", fmt.Errorf("batch: the NATS server's object store: %w", err)
	}
	object, err := store.Get(ctx, sum)
	if err != nil {
		return "", fmt.Errorf("batch: model %s: %w", sum, err)
	}
	defer object.Close()
	hash := sha256.New()
	err = atomicfile.WriteNew(path, func(file *os.File) error {
		if _, err := io.Copy(io.MultiWriter(file, hash), object); err != nil {
			return err
		}
		if got := hex.EncodeToString(hash.Sum(nil)); got != sum {
			return fmt.Errorf("the model that came has the SHA-256 %s, not %s", got, sum)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("batch: %w", err)
	}
	return path, nil
}
