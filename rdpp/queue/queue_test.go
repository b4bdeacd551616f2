package queue

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"rdpp/rdpp/testmain"
)

// broker is a NATS server in this process, which can be started again with what it has on disk.
type broker struct {
	t      testing.TB
	opt    server.Options
	server *server.Server
}

func newBroker(t testing.TB) *broker {
	b := &broker{t: t, opt: server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true}}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *broker) start() {
	b.t.Helper()
	var err error
	opt := b.opt
	if b.server, err = server.NewServer(&opt); err != nil {
		b.t.Fatal(err)
	}
	b.server.Start()
	if !b.server.ReadyForConnections(time.Minute) {
		b.t.Fatal("the NATS server does not start")
	}
	b.opt.Port = opt.Port
}

func (b *broker) stop() {
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// connect connects with a lease and attempts that suit a test.
func (b *broker) connect(lease time.Duration, tries int) *Queue {
	b.t.Helper()
	q, err := Connect(b.server.ClientURL(), Images, Options{Lease: lease, Tries: tries, Log: func(text string) { b.t.Log(text) }})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(q.Close)
	return q
}

// list is a job whose results are in memory.
type list struct {
	Job
	mu   sync.Mutex
	done []bool
}

// newList is a job of so many pieces. tell is told at how many of them workers are, if it is not nil.
func newList(pieces int) *list {
	l := &list{done: make([]bool, pieces)}
	l.Job = Job{ID: fmt.Sprintf("%016x", rand.Uint64()), Pieces: pieces, Every: lookAgain,
		Message: func(piece int) ([]byte, error) { return fmt.Appendf(nil, `{"piece":%d}`, piece), nil },
		Missing: func() iter.Seq2[int, error] {
			l.mu.Lock()
			defer l.mu.Unlock()
			done := slices.Clone(l.done)
			return func(yield func(int, error) bool) {
				for piece, done := range done {
					if !done && !yield(piece, nil) {
						return
					}
				}
			}
		}}
	return l
}

// do does a piece.
func (l *list) do(_ context.Context, task Task) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if want := fmt.Sprintf(`{"piece":%d}`, task.Piece); task.Job != l.ID || string(task.Message) != want {
		return fmt.Errorf("got %+v, want the job %s, %s", task, l.ID, want)
	}
	l.done[task.Piece] = true
	return nil
}

func (l *list) wantWhole(t testing.TB) {
	t.Helper()
	for piece, err := range l.Missing() {
		t.Errorf("piece %d is missing, %v", piece, err)
	}
}

// working is a worker until the test ends, or stop.
func working(t testing.TB, q *Queue, do Do) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := q.Work(ctx, do); err != nil {
			t.Errorf("a worker: %v", err)
		}
	})
	stop = func() { cancel(); group.Wait() }
	t.Cleanup(stop)
	return stop
}

// TestHand: workers do a job over a restart of the server; the model comes by its digest; to hand out what is done does nothing.
func TestHand(t *testing.T) {
	broker := newBroker(t)
	b, models := newList(30), t.TempDir()
	model, sum := filepath.Join(t.TempDir(), "model.safetensors"), fmt.Sprintf("%x", sha256.Sum256([]byte("the model")))
	if err := os.WriteFile(model, []byte("the model"), 0o666); err != nil {
		t.Fatal(err)
	}
	var done, restarted atomic.Int32
	var ask sync.Mutex
	for range 3 {
		q := broker.connect(2*time.Second, 5)
		working(t, q, func(ctx context.Context, task Task) error {
			path, err := q.Model(ctx, sum, models)
			if err != nil {
				return err
			}
			testmain.WantContent(t, path, "the model")
			if done.Add(1) == 10 {
				ask.Lock()
				broker.stop()
				broker.start()
				ask.Unlock()
				restarted.Add(1)
			}
			return b.do(ctx, task)
		})
	}
	for range 2 {
		q := broker.connect(2*time.Second, 5)
		told := 0
		b.Every, b.Tell = time.Millisecond, func(int) { told++ }
		b.Ready = func(ctx context.Context) error { return q.Offer(ctx, model, sum) }
		if err := q.Hand(t.Context(), &b.Job); err != nil {
			t.Fatal(err)
		}
		b.wantWhole(t)
		if told == 0 {
			t.Error("nobody was told of the end")
		}
	}
	if restarted.Load() != 1 {
		t.Error("the server was not started again, so the test shows nothing")
	}
	if _, err := broker.connect(time.Second, 1).Model(t.Context(), "../"+strings.Repeat("0", 61), models); err == nil {
		t.Error("a digest that is a path: got no error")
	}
}

// lookAgain is after what time a batch looks for pieces that nobody has, as the command does every 30 s: one that is handed out while
// the server forgets its last message is forgotten with it.
const lookAgain = 5 * time.Second

// TestDead: a piece that fails each time is given up with its reason, the others are done, and the same command tries it again.
func TestDead(t *testing.T) {
	broker := newBroker(t)
	b := newList(6)
	broken := atomic.Bool{}
	broken.Store(true)
	attempts := atomic.Int32{}
	working(t, broker.connect(3*time.Second, 2), func(ctx context.Context, task Task) error {
		if task.Piece == 3 && broken.Load() {
			attempts.Add(1)
			return errors.New("this disk is no more")
		}
		return b.do(ctx, task)
	})
	err := broker.connect(3*time.Second, 2).Hand(t.Context(), &b.Job)
	if !errors.Is(err, ErrDead) || !strings.Contains(err.Error(), "1 of 6 pieces") || !strings.Contains(err.Error(), "piece 3 because: this disk is no more") {
		t.Errorf("got %v, want %v of piece 3 with its reason", err, ErrDead)
	}
	if attempts.Load() != 2 {
		t.Errorf("got %d attempts, want 2", attempts.Load())
	}
	if missing := slices.Collect(maps.Keys(maps.Collect(b.Missing()))); !slices.Equal(missing, []int{3}) {
		t.Errorf("got %v missing, want piece 3", missing)
	}
	broken.Store(false)
	if err := broker.connect(3*time.Second, 2).Hand(t.Context(), &b.Job); err != nil {
		t.Errorf("once more: got %v", err)
	}
	b.wantWhole(t)
}

// TestKilled: a piece whose workers are killed each time, so that nobody refuses it, is given up too, whether or not somebody waits
// at that moment.
func TestKilled(t *testing.T) {
	broker := newBroker(t)
	b := newList(2)
	q := broker.connect(time.Second, 2)
	kill := func(ctx context.Context) { // takes what there is, and says nothing more
		for ctx.Err() == nil {
			if consumer, err := q.js.Consumer(ctx, Images.work(), workers); err == nil {
				if messages, err := consumer.Fetch(10, jetstream.FetchMaxWait(time.Second)); err == nil {
					for range messages.Messages() {
					}
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { kill(ctx) })
	err := q.Hand(t.Context(), &b.Job)
	if !errors.Is(err, ErrDead) || !strings.Contains(err.Error(), "2 of 2 pieces") || !strings.Contains(err.Error(), "handed out 2 times") {
		t.Errorf("got %v, want %v of both pieces", err, ErrDead)
	}
	// The same, while nobody waits for the batch.
	waits, end := context.WithCancel(t.Context())
	group.Go(func() { q.Hand(waits, &b.Job) })
	testmain.Wait(t, "pieces", func() bool {
		stream, err := q.js.Stream(t.Context(), Images.work())
		return err == nil && stream.CachedInfo().State.Msgs == 2
	})
	end()
	letters := func() uint64 {
		stream, err := q.js.Stream(t.Context(), Images.dead())
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State.Msgs
	}
	before := letters()
	testmain.Wait(t, "dead letters", func() bool { return letters() >= before+2 })
	stop()
	group.Wait()
	working(t, q, b.do)
	if err := q.Hand(t.Context(), &b.Job); err != nil {
		t.Errorf("once more: got %v", err)
	}
	b.wantWhole(t)
}

// TestLost: a server that has lost its disk gets model and pieces anew, and what is given up then is heard of.
func TestLost(t *testing.T) {
	broker := newBroker(t)
	b := newList(3)
	q := broker.connect(3*time.Second, 2)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ended := make(chan error, 1)
	model, sum := filepath.Join(t.TempDir(), "model.safetensors"), fmt.Sprintf("%x", sha256.Sum256(nil))
	if err := os.WriteFile(model, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	b.Every, b.Ready = time.Millisecond, func(ctx context.Context) error { return q.Offer(ctx, model, sum) }
	go func() { ended <- q.Hand(ctx, &b.Job) }()
	testmain.Wait(t, "pieces", func() bool {
		stream, err := q.js.Stream(t.Context(), Images.work())
		return err == nil && stream.CachedInfo().State.Msgs == 3
	})
	for range 5 { // so that the numbers of letters begin anew
		if err := q.write(t.Context(), Task{Job: "another"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	broker.stop()
	broker.opt.StoreDir = t.TempDir()
	broker.start()
	worker, models := broker.connect(time.Second, 2), t.TempDir()
	working(t, worker, func(ctx context.Context, task Task) error {
		if _, err := worker.Model(ctx, sum, models); err != nil {
			return err
		}
		if task.Piece == 1 {
			return errors.New("this disk is no more")
		}
		return b.do(ctx, task)
	})
	if err := <-ended; !errors.Is(err, ErrDead) || !strings.Contains(err.Error(), "1 of 3 pieces") {
		t.Errorf("got %v, want %v of one piece", err, ErrDead)
	}
}

// TestLostAnswer: an answer that is lost with the server is waited for for seconds, whatever the deadline of all.
func TestLostAnswer(t *testing.T) {
	gone, lose := context.WithCancelCause(t.Context())
	q := &Queue{gone: gone}
	ctx, stop := context.WithTimeout(t.Context(), time.Hour)
	alive, done := q.alive(ctx)
	defer done()
	if deadline, has := alive.Deadline(); has {
		t.Errorf("got the deadline %v, want none", deadline)
	}
	other, done := q.alive(t.Context())
	defer done()
	stop()
	<-alive.Done()
	if other.Err() != nil {
		t.Errorf("got %v, want it to go on", other.Err())
	}
	reason := errors.New("the connection is closed")
	lose(reason)
	<-other.Done()
	if got := context.Cause(other); got != reason {
		t.Errorf("got %v, want %v", got, reason)
	}
}

// waitsFor waits until so many pieces are in the stream.
func waitsFor(t *testing.T, q *Queue, pieces uint64) {
	t.Helper()
	testmain.Wait(t, "pieces", func() bool {
		stream, err := q.js.Stream(t.Context(), Images.work())
		return err == nil && stream.CachedInfo().State.Msgs == pieces
	})
}

// TestRenew: what waits from before says what the job says now, if that is asked for.
func TestRenew(t *testing.T) {
	broker := newBroker(t)
	for _, renew := range []bool{true, false} {
		b := newList(3)
		q := broker.connect(3*time.Second, 5)
		now := b.Message
		b.Message = func(piece int) ([]byte, error) { return []byte(`{"old":true}`), nil }
		waits, end := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { q.Hand(waits, &b.Job) })
		waitsFor(t, q, 3)
		end()
		group.Wait()
		b.Message, b.Renew = now, renew
		var old atomic.Int32
		group.Go(func() {
			if err := q.Hand(t.Context(), &b.Job); err != nil {
				t.Error(err)
			}
		})
		if renew {
			testmain.Wait(t, "new messages", func() bool {
				stream, err := q.js.Stream(t.Context(), Images.work())
				if err != nil {
					return false
				}
				m, err := stream.GetLastMsgForSubject(t.Context(), Images.subject("work", b.ID, 2))
				return err == nil && string(m.Data) == `{"piece":2}`
			})
		}
		stop := working(t, broker.connect(3*time.Second, 5), func(ctx context.Context, task Task) error {
			if string(task.Message) == `{"old":true}` {
				old.Add(1)
				task.Message, _ = now(task.Piece)
			}
			return b.do(ctx, task)
		})
		group.Wait()
		stop()
		b.wantWhole(t)
		if got := old.Load(); (got == 0) != renew {
			t.Errorf("renew %v: got %d old messages", renew, got)
		}
	}
}

// TestLettersGone: a piece that was given up is handed out once more although nobody knows any more that it was.
func TestLettersGone(t *testing.T) {
	broker := newBroker(t)
	b := newList(2)
	q := broker.connect(time.Second, 1)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	giveUp := func() { // takes both, and is killed
		consumer, err := q.js.Consumer(ctx, Images.work(), workers)
		if err != nil {
			t.Fatal(err)
		}
		messages, err := consumer.Fetch(2)
		if err != nil {
			t.Fatal(err)
		}
		for range messages.Messages() {
		}
		testmain.Wait(t, "end of the lease", func() bool {
			consumer, err := q.js.Consumer(ctx, Images.work(), workers)
			return err == nil && idle(consumer.CachedInfo())
		})
	}
	forget := func() {
		dead, err := q.js.Stream(ctx, Images.dead())
		if err != nil {
			t.Fatal(err)
		}
		testmain.Wait(t, "dead letters", func() bool {
			info, err := dead.Info(ctx)
			return err == nil && info.State.Msgs == 2
		})
		if err := dead.Purge(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.prepare(ctx); err != nil {
		t.Fatal(err)
	}
	if err := q.submit(ctx, &b.Job); err != nil {
		t.Fatal(err)
	}
	giveUp()
	forget()
	working(t, broker.connect(0, 0), b.do)
	if err := q.Hand(ctx, &b.Job); err != nil {
		t.Errorf("got %v, want all done", err)
	}
	b.wantWhole(t)
}

// TestTaken: pieces are handed out where the stream has gone meanwhile, and a server that takes none is an error.
func TestTaken(t *testing.T) {
	broker := newBroker(t)
	b := newList(3)
	q := broker.connect(time.Second, 5)
	if err := q.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.js.DeleteStream(t.Context(), Images.work()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	if err := q.publish(ctx, &b.Job, []int{0, 1, 2}); err != nil {
		t.Errorf("no stream: got %v", err)
	}
	if stream, err := q.js.Stream(ctx, Images.work()); err != nil || stream.CachedInfo().State.Msgs != 3 {
		t.Errorf("no stream: got %v, want three pieces in one", err)
	}

	broker.stop()
	broker.opt.Users = []*server.User{{Username: "me", Password: "secret", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{Images.subjects("work") + ">"}}}}}
	broker.start()
	q, err := Connect(strings.Replace(broker.server.ClientURL(), "//", "//me:secret@", 1), Images, Options{answer: 50 * time.Millisecond, Log: func(text string) { t.Log(text) }})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	ctx, stop = context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := q.publish(ctx, &b.Job, []int{0, 1, 2}); err == nil || !strings.Contains(err.Error(), "ermissions") {
		t.Errorf("not permitted: got %v, want an error that says so", err)
	}
}

// TestRefused: refused credentials end who works and who waits, with the reason.
func TestRefused(t *testing.T) {
	broker := newBroker(t)
	b := newList(3)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	q := broker.connect(time.Second, 5)
	ended := make(chan error, 1)
	go func() { ended <- q.Hand(ctx, &b.Job) }()
	testmain.Wait(t, "pieces", func() bool {
		stream, err := q.js.Stream(t.Context(), Images.work())
		return err == nil && stream.CachedInfo().State.Msgs == 3
	})
	broker.stop()
	broker.opt.Users = []*server.User{{Username: "me", Password: "secret"}}
	broker.start()
	worker, err := Connect(strings.Replace(broker.server.ClientURL(), "//", "//me:wrong@", 1), Images, Options{Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close()
	if err := worker.Work(ctx, b.do); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a worker: got %v, want %v", err, nats.ErrAuthorization)
	}
	if err := <-ended; !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("who waits: got %v, want %v", err, nats.ErrAuthorization)
	}
}

// TestNoJetStream: a worker of a server without JetStream says what is missing, and waits.
func TestNoJetStream(t *testing.T) {
	broker := &broker{t: t, opt: server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true}}
	broker.start()
	t.Cleanup(broker.stop)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	said := ""
	q, err := Connect(broker.server.ClientURL(), Images, Options{Wait: true, Log: func(text string) { said = text; stop() }})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if err := q.Work(ctx, nil); err != nil || !strings.Contains(said, "needs JetStream") {
		t.Errorf("got %v, %q, want what the server needs", err, said)
	}
}

// TestPrepare: what the server has stays, but for lease and attempts that are asked for.
func TestPrepare(t *testing.T) {
	broker := newBroker(t)
	for _, c := range []struct {
		lease, wantLease time.Duration
		tries, wantTries int
	}{
		{0, 30 * time.Second, 0, 5}, {7 * time.Second, 7 * time.Second, 9, 9}, {0, 7 * time.Second, 0, 9}, {0, 7 * time.Second, 3, 3},
	} {
		q := broker.connect(c.lease, c.tries)
		if err := q.prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		consumer, err := q.js.Consumer(t.Context(), Images.work(), workers)
		if err != nil {
			t.Fatal(err)
		}
		if got := consumer.CachedInfo().Config; got.AckWait != c.wantLease || got.MaxDeliver != c.wantTries {
			t.Errorf("%+v: got a lease of %v, %d attempts", c, got.AckWait, got.MaxDeliver)
		}
	}
	q := broker.connect(0, 0)
	stream, err := q.js.Stream(t.Context(), Images.work())
	if err != nil {
		t.Fatal(err)
	}
	set := stream.CachedInfo().Config
	set.MaxBytes = 1 << 20
	if _, err := q.js.UpdateStream(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	if err := q.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stream, err = q.js.Stream(t.Context(), Images.work()); err != nil || stream.CachedInfo().Config.MaxBytes != 1<<20 {
		t.Errorf("got %v, want the operator's limit kept", err)
	}
}

// TestAbandoned: a job that is no more ends no worker, and the next one is done.
func TestAbandoned(t *testing.T) {
	broker := newBroker(t)
	old := newList(10)
	q := broker.connect(3*time.Second, 1)
	waits, end := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { q.Hand(waits, &old.Job) })
	testmain.Wait(t, "pieces", func() bool {
		stream, err := q.js.Stream(t.Context(), Images.work())
		return err == nil && stream.CachedInfo().State.Msgs == 10
	})
	end()
	group.Wait()
	b := newList(4)
	working(t, broker.connect(0, 0), func(ctx context.Context, task Task) error {
		if task.Job == old.ID {
			return Others(errors.New("it is no more"))
		}
		return b.do(ctx, task)
	})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := q.Hand(ctx, &b.Job); err != nil {
		t.Errorf("the next job: got %v", err)
	}
	b.wantWhole(t)
	stream, err := q.js.Stream(t.Context(), Images.dead())
	if err != nil || stream.CachedInfo().State.Msgs < 10 {
		t.Errorf("got %v, want the 10 old pieces among the dead letters", err)
	}
}

// TestVain: what other attempts would fail at too is given up at once, and speaks against no worker.
func TestVain(t *testing.T) {
	broker := newBroker(t)
	b := newList(mostFailures + 3)
	attempts := atomic.Int32{}
	working(t, broker.connect(3*time.Second, 9), func(ctx context.Context, task Task) error {
		if task.Piece <= mostFailures {
			attempts.Add(1)
			return Vain(fmt.Errorf("a damaged image in %d", task.Piece))
		}
		return b.do(ctx, task)
	})
	var given []string
	b.GivenUp = func(piece int, reason string) { given = append(given, fmt.Sprint(piece, " ", reason)) }
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	err := broker.connect(3*time.Second, 9).Hand(ctx, &b.Job)
	if !errors.Is(err, ErrDead) || !strings.Contains(err.Error(), "4 of 6 pieces") || attempts.Load() != mostFailures+1 ||
		len(given) != mostFailures+1 || given[1] != "1 a damaged image in 1" {
		t.Errorf("got %v, %q after %d attempts, want four pieces given up after one each", err, given, attempts.Load())
	}
}

// TestKinds: a worker is handed no work of another kind.
func TestKinds(t *testing.T) {
	broker := newBroker(t)
	lists := map[string]*list{}
	for _, kind := range []Kind{Images, Trainings} {
		l := newList(5)
		lists[kind.Name] = l
		for range 2 {
			q, err := Connect(broker.server.ClientURL(), kind, Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(q.Close)
			working(t, q, l.do)
		}
	}
	for _, kind := range []Kind{Images, Trainings} {
		q, err := Connect(broker.server.ClientURL(), kind, Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(q.Close)
		if err := q.Hand(t.Context(), &lists[kind.Name].Job); err != nil {
			t.Fatal(err)
		}
		lists[kind.Name].wantWhole(t)
		if job, piece, ok := kind.of("work", kind.subject("work", "ab", 12)); job != "ab" || piece != 12 || !ok {
			t.Errorf("%+v: got %q, %d, %v of a subject, want what it was made of", kind, job, piece, ok)
		}
	}
}

// TestAway: while a store is away a worker waits, and uses up no attempts.
func TestAway(t *testing.T) {
	broker := newBroker(t)
	b := newList(4)
	worker, err := Connect(broker.server.ClientURL(), Images, Options{pause: time.Millisecond, Log: func(text string) { t.Log(text) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(worker.Close)
	var calls atomic.Int32
	end := working(t, worker, func(ctx context.Context, task Task) error {
		if calls.Add(1) <= 2*mostFailures {
			return fmt.Errorf("batch: %w", ErrAway)
		}
		return b.do(ctx, task)
	})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := broker.connect(3*time.Second, 1).Hand(ctx, &b.Job); err != nil {
		t.Errorf("got %v, want all done", err)
	}
	b.wantWhole(t)
	end()
	worker.opt.patience = 0
	if err := worker.patiently(ctx, Task{}, func(context.Context, Task) error { return ErrAway }); !errors.Is(err, ErrAway) {
		t.Errorf("for too long: got %v, want %v", err, ErrAway)
	}
}

// TestUseless: a worker that fails at each piece ends, before it has spoilt them all.
func TestUseless(t *testing.T) {
	broker := newBroker(t)
	b := newList(20)
	q := broker.connect(time.Second, 5)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { q.Hand(ctx, &b.Job) })
	called := 0
	err := broker.connect(time.Second, 5).Work(t.Context(), func(context.Context, Task) error {
		called++
		return errors.New("no GPU")
	})
	if err == nil || !strings.Contains(err.Error(), "no GPU") || called != mostFailures {
		t.Errorf("got %v after %d pieces, want the reason after %d", err, called, mostFailures)
	}
	stop()
	group.Wait()
}

func TestCheckURL(t *testing.T) {
	for address, fine := range map[string]bool{"nats://a:4222": true, "tls://u:p@a": true, "nats://a,nats://b:1": true, "a:4222": false, "": false, "http://a": false, "nats://": false,
		"nats://a:99999": false, "nats://a:65535": true, "nats://a,nats://b:70000": false} {
		if err := CheckURL(address); (err == nil) != fine {
			t.Errorf("%q: got %v, want fine: %v", address, err, fine)
		}
	}
	for _, address := range []string{"http://me:secret@a", "nats://me:secret@a:b", "me:secret@a", "nats://secret@", "nats://me:sec,secret@a", "nats://me:s%zzsecret@a"} {
		if err := CheckURL(address); err == nil || strings.Contains(err.Error(), "sec") {
			t.Errorf("%q: got %v, want an error without the password", address, err)
		}
	}
	if _, err := Connect("nats://me:secret@127.0.0.1:1", Images, Options{}); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "secret") {
		t.Errorf("no server: got %v, want its address alone", err)
	}
}

// TestWaits: a worker that waits for a server says which one, and what keeps it away, without the password.
func TestWaits(t *testing.T) {
	texts := make(chan string, 100)
	q, err := Connect("nats://me:secret@127.0.0.1:1", Images, Options{Wait: true, Log: func(text string) { texts <- text }})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- q.Work(ctx, func(context.Context, Task) error { return nil }) }()
	for refused := false; !refused; {
		select {
		case text := <-texts:
			if !strings.Contains(text, "127.0.0.1:1") || strings.Contains(text, "secret") {
				t.Errorf("got %q, want the server's address alone", text)
			}
			refused = strings.HasPrefix(text, "no NATS server at") && strings.Contains(text, "connection refused")
		case <-ctx.Done():
			t.Fatal("it does not say that the connection is refused")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("got %v, want no error, as it was ended", err)
	}
}
