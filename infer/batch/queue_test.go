package batch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"rdpp/rdpp/bulk"
	"rdpp/rdpp/testmain"
	"rdpp/rdpp/weights"
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
	q, err := Connect(b.server.ClientURL(), QueueOptions{Lease: lease, Tries: tries, Log: func(text string) { b.t.Log(text) }})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(q.Close)
	return q
}

// queued is a batch with a file in place of its model, whose digest is the batch's.
func queued(t testing.TB, n, perPiece int) (b *bulk.Batch, model string) {
	t.Helper()
	old := made(t, n, perPiece)
	model = filepath.Join(old.Root, "model.safetensors")
	if err := os.WriteFile(model, []byte("the model"), 0o666); err != nil {
		t.Fatal(err)
	}
	sum, err := weights.SHA256(model)
	if err != nil {
		t.Fatal(err)
	}
	source, err := bulk.Find(filepath.Join(old.Root, "list"))
	if err != nil {
		t.Fatal(err)
	}
	b, err = bulk.Make(t.Context(), filepath.Join(old.Root, "queued"), source, bulk.Work{Model: sum}, &bulk.Options{PerPiece: perPiece})
	if err != nil {
		t.Fatal(err)
	}
	return b, model
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

// lookAll does pieces by looking at contents.
func lookAll(ctx context.Context, task Task) error {
	b, err := OpenTask(task, "")
	if err != nil {
		return err
	}
	return NewRunner(b, Options{Judge: look}).Piece(ctx, task.Piece, nil)
}

func silent(Progress) {}

// wantWhole merges a batch whose results have to be whole.
func wantWhole(t testing.TB, b *bulk.Batch) {
	t.Helper()
	if _, err := b.Merge(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

// TestHand: workers do a batch over a restart of the server; the model comes by its digest; to hand out what is done does nothing.
func TestHand(t *testing.T) {
	broker := newBroker(t)
	b, model := queued(t, 120, 4)
	models := t.TempDir()
	var done, restarted atomic.Int32
	var ask sync.Mutex
	for range 3 {
		q := broker.connect(2*time.Second, 5)
		working(t, q, func(ctx context.Context, task Task) error {
			path, err := q.Model(ctx, task.Model, models)
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
			return lookAll(ctx, task)
		})
	}
	var last Progress
	for range 2 {
		if err := broker.connect(2*time.Second, 5).Hand(t.Context(), b, model, time.Millisecond, func(p Progress) { last = p }); err != nil {
			t.Fatal(err)
		}
		if last.Images != 120 || last.Of != 120 {
			t.Errorf("got progress %v at the end, want all of 120", last)
		}
	}
	wantWhole(t, b)
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
	b, model := queued(t, 12, 2)
	broken := atomic.Bool{}
	broken.Store(true)
	attempts := atomic.Int32{}
	working(t, broker.connect(3*time.Second, 2), func(ctx context.Context, task Task) error {
		if task.Piece == 3 && broken.Load() {
			attempts.Add(1)
			return errors.New("this disk is no more")
		}
		return lookAll(ctx, task)
	})
	err := broker.connect(3*time.Second, 2).Hand(t.Context(), b, model, lookAgain, silent)
	if !errors.Is(err, ErrDead) || !strings.Contains(err.Error(), "1 of 6 pieces") || !strings.Contains(err.Error(), "piece 3 because: this disk is no more") {
		t.Errorf("got %v, want %v of piece 3 with its reason", err, ErrDead)
	}
	if attempts.Load() != 2 {
		t.Errorf("got %d attempts, want 2", attempts.Load())
	}
	if _, err := b.Merge(t.Context(), nil); !errors.Is(err, bulk.ErrIncomplete) {
		t.Errorf("merged: got %v, want %v", err, bulk.ErrIncomplete)
	}
	broken.Store(false)
	if err := broker.connect(3*time.Second, 2).Hand(t.Context(), b, model, lookAgain, silent); err != nil {
		t.Errorf("once more: got %v", err)
	}
	wantWhole(t, b)
}

// TestKilled: a piece whose workers are killed each time, so that nobody refuses it, is given up too, whether or not somebody waits
// at that moment.
func TestKilled(t *testing.T) {
	broker := newBroker(t)
	b, model := queued(t, 4, 2)
	q := broker.connect(time.Second, 2)
	kill := func(ctx context.Context) { // takes what there is, and says nothing more
		for ctx.Err() == nil {
			if consumer, err := q.js.Consumer(ctx, workStream, workers); err == nil {
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
	err := q.Hand(t.Context(), b, model, lookAgain, silent)
	if !errors.Is(err, ErrDead) || !strings.Contains(err.Error(), "2 of 2 pieces") || !strings.Contains(err.Error(), "handed out 2 times") {
		t.Errorf("got %v, want %v of both pieces", err, ErrDead)
	}
	// The same, while nobody waits for the batch.
	waits, end := context.WithCancel(t.Context())
	group.Go(func() { q.Hand(waits, b, model, lookAgain, silent) })
	testmain.Wait(t, "pieces", func() bool {
		stream, err := q.js.Stream(t.Context(), workStream)
		return err == nil && stream.CachedInfo().State.Msgs == 2
	})
	end()
	letters := func() uint64 {
		stream, err := q.js.Stream(t.Context(), deadStream)
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State.Msgs
	}
	before := letters()
	testmain.Wait(t, "dead letters", func() bool { return letters() >= before+2 })
	stop()
	group.Wait()
	working(t, q, lookAll)
	if err := q.Hand(t.Context(), b, model, lookAgain, silent); err != nil {
		t.Errorf("once more: got %v", err)
	}
	wantWhole(t, b)
}

// TestLost: a server that has lost its disk gets model and pieces anew, and what is given up then is heard of.
func TestLost(t *testing.T) {
	broker := newBroker(t)
	b, model := queued(t, 6, 2)
	q := broker.connect(3*time.Second, 2)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- q.Hand(ctx, b, model, 100*time.Millisecond, silent) }()
	testmain.Wait(t, "pieces", func() bool {
		stream, err := q.js.Stream(t.Context(), workStream)
		return err == nil && stream.CachedInfo().State.Msgs == 3
	})
	for range 5 { // so that the numbers of letters begin anew
		if err := q.write(t.Context(), Dead{Task: Task{Batch: "another"}}); err != nil {
			t.Fatal(err)
		}
	}
	broker.stop()
	broker.opt.StoreDir = t.TempDir()
	broker.start()
	worker, models := broker.connect(time.Second, 2), t.TempDir()
	working(t, worker, func(ctx context.Context, task Task) error {
		if _, err := worker.Model(ctx, task.Model, models); err != nil {
			return err
		}
		if task.Piece == 1 {
			return errors.New("this disk is no more")
		}
		return lookAll(ctx, task)
	})
	if err := <-ended; !errors.Is(err, ErrDead) || !strings.Contains(err.Error(), "1 of 3 pieces") {
		t.Errorf("got %v, want %v of one piece", err, ErrDead)
	}
}

// TestTaken: pieces are handed out where the stream has gone meanwhile, and a server that takes none is an error.
func TestTaken(t *testing.T) {
	broker := newBroker(t)
	b, _ := queued(t, 6, 2)
	q := broker.connect(time.Second, 5)
	if err := q.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.js.DeleteStream(t.Context(), workStream); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	if err := q.publish(ctx, b, []int{0, 1, 2}); err != nil {
		t.Errorf("no stream: got %v", err)
	}
	if stream, err := q.js.Stream(ctx, workStream); err != nil || stream.CachedInfo().State.Msgs != 3 {
		t.Errorf("no stream: got %v, want three pieces in one", err)
	}

	broker.stop()
	broker.opt.Users = []*server.User{{Username: "me", Password: "secret", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{workSubjects + ">"}}}}}
	broker.start()
	q, err := Connect(strings.Replace(broker.server.ClientURL(), "//", "//me:secret@", 1), QueueOptions{answer: 50 * time.Millisecond, Log: func(text string) { t.Log(text) }})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	ctx, stop = context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := q.publish(ctx, b, []int{0, 1, 2}); err == nil || !strings.Contains(err.Error(), "ermissions") {
		t.Errorf("not permitted: got %v, want an error that says so", err)
	}
}

// TestRefused: refused credentials end who works and who waits, with the reason.
func TestRefused(t *testing.T) {
	broker := newBroker(t)
	b, model := queued(t, 6, 2)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	q := broker.connect(time.Second, 5)
	ended := make(chan error, 1)
	go func() { ended <- q.Hand(ctx, b, model, lookAgain, silent) }()
	testmain.Wait(t, "pieces", func() bool {
		stream, err := q.js.Stream(t.Context(), workStream)
		return err == nil && stream.CachedInfo().State.Msgs == 3
	})
	broker.stop()
	broker.opt.Users = []*server.User{{Username: "me", Password: "secret"}}
	broker.start()
	worker, err := Connect(strings.Replace(broker.server.ClientURL(), "//", "//me:wrong@", 1), QueueOptions{Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close()
	if err := worker.Work(ctx, lookAll); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a worker: got %v, want %v", err, nats.ErrAuthorization)
	}
	if err := <-ended; !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("who waits: got %v, want %v", err, nats.ErrAuthorization)
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
		consumer, err := q.js.Consumer(t.Context(), workStream, workers)
		if err != nil {
			t.Fatal(err)
		}
		if got := consumer.CachedInfo().Config; got.AckWait != c.wantLease || got.MaxDeliver != c.wantTries {
			t.Errorf("%+v: got a lease of %v, %d attempts", c, got.AckWait, got.MaxDeliver)
		}
	}
	q := broker.connect(0, 0)
	stream, err := q.js.Stream(t.Context(), workStream)
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
	if stream, err = q.js.Stream(t.Context(), workStream); err != nil || stream.CachedInfo().Config.MaxBytes != 1<<20 {
		t.Errorf("got %v, want the operator's limit kept", err)
	}
}

// TestAbandoned: a batch whose folder is no more ends no worker, and the next batch is done.
func TestAbandoned(t *testing.T) {
	broker := newBroker(t)
	old, model := queued(t, 20, 2)
	q := broker.connect(3*time.Second, 1)
	waits, end := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { q.Hand(waits, old, model, lookAgain, silent) })
	testmain.Wait(t, "pieces", func() bool {
		stream, err := q.js.Stream(t.Context(), workStream)
		return err == nil && stream.CachedInfo().State.Msgs == 10
	})
	end()
	group.Wait()
	if err := os.RemoveAll(old.Dir()); err != nil {
		t.Fatal(err)
	}
	working(t, broker.connect(0, 0), lookAll)
	b, model := queued(t, 8, 2)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := q.Hand(ctx, b, model, lookAgain, silent); err != nil {
		t.Errorf("the next batch: got %v", err)
	}
	wantWhole(t, b)
	stream, err := q.js.Stream(t.Context(), deadStream)
	if err != nil || stream.CachedInfo().State.Msgs < 10 {
		t.Errorf("got %v, want the 10 old pieces among the dead letters", err)
	}
}

// TestAway: while a store is away a worker waits, and uses up no attempts.
func TestAway(t *testing.T) {
	broker := newBroker(t)
	b, model := queued(t, 8, 2)
	worker, err := Connect(broker.server.ClientURL(), QueueOptions{pause: time.Millisecond, Log: func(text string) { t.Log(text) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(worker.Close)
	var calls atomic.Int32
	end := working(t, worker, func(ctx context.Context, task Task) error {
		if calls.Add(1) <= 2*mostFailures {
			return fmt.Errorf("batch: %w", ErrAway)
		}
		return lookAll(ctx, task)
	})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := broker.connect(3*time.Second, 1).Hand(ctx, b, model, lookAgain, silent); err != nil {
		t.Errorf("got %v, want all done", err)
	}
	wantWhole(t, b)
	end()
	worker.opt.patience = 0
	if err := worker.patiently(ctx, Task{}, func(context.Context, Task) error { return ErrAway }); !errors.Is(err, ErrAway) {
		t.Errorf("for too long: got %v, want %v", err, ErrAway)
	}
}

// TestUseless: a worker that fails at each piece ends, before it has spoilt them all.
func TestUseless(t *testing.T) {
	broker := newBroker(t)
	b, model := queued(t, 40, 2)
	q := broker.connect(time.Second, 5)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { q.Hand(ctx, b, model, lookAgain, silent) })
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
	for address, fine := range map[string]bool{"nats://a:4222": true, "tls://u:p@a": true, "nats://a,nats://b:1": true, "a:4222": false, "": false, "http://a": false, "nats://": false} {
		if err := CheckURL(address); (err == nil) != fine {
			t.Errorf("%q: got %v, want fine: %v", address, err, fine)
		}
	}
	for _, address := range []string{"http://me:secret@a", "nats://me:secret@a:b", "me:secret@a", "nats://secret@", "nats://me:sec,secret@a", "nats://me:s%zzsecret@a"} {
		if err := CheckURL(address); err == nil || strings.Contains(err.Error(), "sec") {
			t.Errorf("%q: got %v, want an error without the password", address, err)
		}
	}
	if _, err := Connect("nats://127.0.0.1:1", QueueOptions{}); err == nil {
		t.Error("no server: got no error")
	}
}

func TestOpenTask(t *testing.T) {
	b, _ := queued(t, 4, 2)
	empty := t.TempDir()
	for _, c := range []struct {
		task   Task
		folder string
		want   error
	}{
		{Task{Batch: b.ID(), Out: b.Dir(), Piece: 1}, "", nil}, {Task{Batch: b.ID(), Out: "/elsewhere", Piece: 1}, b.Dir(), nil},
		{Task{Batch: "other", Out: b.Dir()}, "", bulk.ErrOther}, {Task{Batch: b.ID(), Out: b.Dir(), Piece: 2}, "", bulk.ErrOther},
		{Task{Batch: b.ID(), Out: b.Dir(), Piece: -1}, "", bulk.ErrOther}, {Task{Batch: b.ID(), Out: "/elsewhere"}, "", bulk.ErrNone},
		{Task{Batch: b.ID(), Out: empty}, "", ErrAway}, {Task{Batch: b.ID(), Out: empty + "/out"}, "", ErrAway}, {Task{Batch: b.ID(), Out: b.Root}, "", bulk.ErrNone},
	} {
		if _, err := OpenTask(c.task, c.folder); !errors.Is(err, c.want) {
			t.Errorf("%+v in %q: got %v, want %v", c.task, c.folder, err, c.want)
		}
	}
}
