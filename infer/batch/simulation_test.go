package batch

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"rdpp/rdpp/bulk"
	"rdpp/rdpp/queue"
	"rdpp/rdpp/testmain"
	"rdpp/rdpp/weights"
)

var (
	simulated = flag.Int("pieces", 2000, "pieces of TestSimulation")
	workers   = flag.Int("workers", 4, "workers of TestSimulation")
)

// asBroker is the name of a NATS server that the test program can be.
const asBroker = "broker"

func TestMain(m *testing.M) {
	testmain.Be(map[string]func([]string) error{asBroker: serve})
	os.Exit(testmain.Run(m, nil))
}

// serve is a NATS server whose disk is a folder. It prints its port.
func serve(args []string) error {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: args[0], NoLog: true})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		return errors.New("the NATS server does not start")
	}
	fmt.Println(s.Addr().(*net.TCPAddr).Port)
	s.WaitForShutdown()
	return nil
}

// startBroker starts a NATS server in a process of its own.
func startBroker(t *testing.T, store string) (cmd *exec.Cmd, address string) {
	t.Helper()
	cmd = testmain.Child(asBroker, store)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, "nats://127.0.0.1:" + strings.TrimSpace(port)
}

// memory is what a process has in memory, and had at most, in bytes.
func memory(t *testing.T, cmd *exec.Cmd) (now, most int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch {
		case name == "VmRSS" && err == nil:
			now = kib << 10
		case name == "VmHWM" && err == nil:
			most = kib << 10
		}
	}
	return now, most
}

// onDisk is how many bytes the files below a folder have.
func onDisk(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // the server removes files meanwhile
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSimulation: a batch of many pieces with hardly any work in them, by the real engine: what it takes of the server is bounded
// per piece. It prints what it took; -pieces 100000 is a list of a hundred million images.
func TestSimulation(t *testing.T) {
	n, store := *simulated, t.TempDir()
	broker, address := startBroker(t, store)
	dir := t.TempDir()
	list, err := os.Create(filepath.Join(dir, "list"))
	if err != nil {
		t.Fatal(err)
	}
	text := bufio.NewWriter(list)
	for i := range n {
		fmt.Fprintf(text, "%09d.png\n", i)
	}
	if err := errors.Join(text.Flush(), list.Close()); err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(dir, "model.safetensors")
	if err := os.WriteFile(model, []byte("the model"), 0o666); err != nil {
		t.Fatal(err)
	}
	sum, err := weights.SHA256(model)
	if err != nil {
		t.Fatal(err)
	}
	source, err := bulk.Find(list.Name())
	if err != nil {
		t.Fatal(err)
	}
	b, err := bulk.Make(t.Context(), filepath.Join(dir, "out"), source, bulk.Work{Model: sum}, &bulk.Options{PerPiece: 1})
	if err != nil {
		t.Fatal(err)
	}
	connect := func() *queue.Queue {
		q, err := queue.Connect(address, queue.Images, queue.Options{Log: func(text string) { t.Log(text) }})
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	hander := connect()
	defer hander.Close()
	idle, _ := memory(t, broker)

	began := time.Now()
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	sent := make([]uint64, *workers)
	done := atomic.Int64{}
	start := func() { // once all are handed out, so that the server has had them all
		for i := range *workers {
			group.Go(func() {
				q := connect()
				defer q.Close()
				err := q.Work(ctx, func(ctx context.Context, piece queue.Task) error {
					task, err := ReadTask(piece)
					if err != nil {
						return err
					}
					b, err := OpenTask(task, "")
					if err != nil {
						return err
					}
					names, err := b.Names(task.Piece)
					if err != nil {
						return err
					}
					done.Add(1)
					return b.Place(task.Piece, fmt.Appendf(nil, "{\"image\":%q,\"score\":%d}\n", names[0], task.Piece))
				})
				if err != nil {
					t.Errorf("a worker: %v", err)
				}
				sent[i] = q.Sent()
			})
		}
	}
	opt := HandOptions{Every: 30 * time.Second, Log: func(text string) { t.Log(text) }, Tell: func(p Progress) { t.Log(p) }}
	waiting := make(chan error, 1)
	go func() { waiting <- Hand(ctx, hander, b, model, opt) }()
	for hander.Sent() < uint64(n) { // what goes before and behind the pieces does not matter
		time.Sleep(10 * time.Millisecond)
	}
	handed := time.Since(began)
	full, _ := memory(t, broker)
	disk := onDisk(t, store)
	start()
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	took := time.Since(began) - handed
	_, peak := memory(t, broker)
	stop()
	group.Wait()
	merged := time.Now()
	s, err := b.Merge(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	merging := time.Since(merged)
	messages := uint64(0)
	for _, n := range sent {
		messages += n
	}
	t.Logf("%d pieces: handed out in %v, %v each; done by %d workers in %v, %v each; merged in %v", n, handed.Round(time.Millisecond),
		(handed / time.Duration(n)).Round(time.Microsecond), *workers, took.Round(time.Millisecond), (took / time.Duration(n)).Round(time.Microsecond),
		merging.Round(time.Millisecond))
	t.Logf("the server: %d MiB idle, %d MiB with all of them, %d MiB at most, %d bytes a piece; %d bytes of disk a piece", idle>>20, full>>20, peak>>20,
		(peak-idle)/int64(n), disk/int64(n))
	t.Logf("messages to the server: %.2f a piece by whoever hands out, %.2f by workers", float64(hander.Sent())/float64(n), float64(messages)/float64(n))
	if s.Images != int64(n) || done.Load() != int64(n) {
		t.Errorf("got %d results of %d pieces done, want %d", s.Images, done.Load(), n)
	}
	// 64 MiB is what a server's heap may grow by between collections, whatever it holds.
	if growth := peak - idle; growth > 64<<20+int64(n)*4096 {
		t.Errorf("got %d bytes more memory of the server, want at most 4 KiB a piece", growth)
	}
	if disk > 1<<20+int64(n)*2048 {
		t.Errorf("got %d bytes of the server's disk, want at most 2 KiB a piece", disk)
	}
	if hander.Sent() > uint64(n)+1000+20*uint64(took/time.Second) || messages > 5*uint64(n)+1000 {
		t.Errorf("got %d messages by whoever hands out and %d by workers, want one and at most five a piece", hander.Sent(), messages)
	}
}
