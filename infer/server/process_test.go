package server_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rdpp/infer/server"
	"rdpp/rdpp"
	"rdpp/rdpp/testmain"
)

var loadTime = flag.Duration("load", 20*time.Second, "how long the clients of the load test on a process ask, with -slow")

// process is infer serve at work in a process of its own.
type process struct {
	*service // without a Server
	cmd      *exec.Cmd
	logged   chan struct{} // closed when its log has been read to its end
	statuses map[int]int   // of the requests to predict that it logged since marker, to be read after logged is closed
	panics   int           // that it logged, likewise
}

// marker is an address to ask when counting shall begin.
const marker = "/v2/health/live"

// startProcess builds infer and runs its serve.
func startProcess(t *testing.T, model string, args ...string) *process {
	t.Helper()
	program := filepath.Join(t.TempDir(), "infer")
	if text, err := exec.Command("go", "build", "-o", program, "rdpp/infer").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	p := &process{logged: make(chan struct{}), statuses: map[int]int{}}
	p.cmd = exec.Command(program, append([]string{"serve", "--model", model, "--device", "cpu", "--listen", "127.0.0.1:0", "--log", "json"}, args...)...)
	logs, err := p.cmd.StderrPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // it has ended, unless the test failed
	addresses := make(chan string, 1)
	go p.read(logs, addresses)
	select {
	case address := <-addresses:
		transport := &http.Transport{MaxIdleConnsPerHost: 256}
		p.service = &service{url: strings.TrimSuffix(address, "/"), client: &http.Client{Transport: transport, Timeout: 5 * time.Minute}}
	case <-p.logged:
		t.Fatal("the process ended before it served")
	}
	return p
}

// read takes in the log, which would stop the process if nobody did.
func (p *process) read(logs io.Reader, addresses chan<- string) {
	defer close(p.logged)
	lines := bufio.NewScanner(logs)
	lines.Buffer(nil, 1<<20) // an address may be long
	for lines.Scan() {
		var record struct {
			Msg, Address, Path string
			Status             int
		}
		if json.Unmarshal(lines.Bytes(), &record) != nil {
			continue // a warning of a library
		}
		switch {
		case record.Msg == "serving":
			addresses <- record.Address
		case record.Msg == "panic":
			p.panics++
		case record.Path == marker:
			clear(p.statuses)
		case record.Path == predictPath:
			p.statuses[record.Status]++
		}
	}
}

// resident is the process's memory in use, in bytes.
func (p *process) resident(t testing.TB) int64 { return statusLine(t, p.cmd.Process.Pid, "VmRSS:") }

// tally is what clients got.
type tally struct {
	mu       sync.Mutex
	statuses map[int]int
	times    []time.Duration // of the requests with status 200
	ends     []time.Time     // when those were answered, in order
	late     int             // answers of status 200 that came when ending was set
	strange  []string        // answers that ought not to be
	ending   atomic.Bool
}

func (y *tally) add(a *answer, taken time.Duration, ended bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.statuses[a.status]++
	switch {
	case a.status == http.StatusOK:
		y.times, y.ends = append(y.times, taken), append(y.ends, time.Now())
		if ended {
			y.late++
		}
		if p := (prediction{}); json.Unmarshal(a.body, &p) != nil || !(p.Score > 0) {
			y.strange = append(y.strange, string(a.body))
		}
	case a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || a.reason() == "":
		y.strange = append(y.strange, fmt.Sprintf("status %d, Retry-After %q, %s", a.status, a.header.Get("Retry-After"), a.body))
	}
}

// slowest is the longest time that n answers of status 200 in a row took.
func (y *tally) slowest(n int) (longest time.Duration) {
	n = min(n, len(y.ends)-1)
	for i := range len(y.ends) - n {
		longest = max(longest, y.ends[i+n].Sub(y.ends[i]))
	}
	return longest
}

// ask sends picture after picture until done is closed or, once the service is ending, no connection is to be had.
func (y *tally) ask(t *testing.T, p *process, picture []byte, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		begin := time.Now()
		a, err := p.try("POST", predictPath, bytes.NewReader(picture))
		ended := y.ending.Load()
		if err != nil {
			if !ended {
				t.Errorf("got %v, want an answer", err)
			}
			return
		}
		y.add(a, time.Since(begin), ended)
		if a.status == http.StatusServiceUnavailable {
			select { // sooner than it is told to
			case <-time.After(time.Second):
			case <-done:
			}
		}
	}
}

// crowdOf lets clients ask a process until stop is called, which waits for their last answers.
func crowdOf(t *testing.T, p *process, clients int, pictures [][]byte) (y *tally, stop func()) {
	y = &tally{statuses: map[int]int{}}
	done := make(chan struct{})
	var asking sync.WaitGroup
	for i := range clients {
		asking.Go(func() { y.ask(t, p, pictures[i%len(pictures)], done) })
	}
	return y, sync.OnceFunc(func() { close(done); asking.Wait() })
}

// Load from another process at the size of real images: 200 clients ask without a pause, then the process is told to end
// amid their requests. Without -slow that takes seconds, which tell nothing about memory and waiting in the long run.
func TestProcessUnderLoad(t *testing.T) {
	length := *loadTime
	if !*testmain.Slow {
		length = 4 * time.Second
	}
	const clients, size, maxQueue, maxBatch = 200, 192, 64, 8
	model := filepath.Join(t.TempDir(), "part.safetensors")
	if err := writeModel(model, size, 1, rdpp.Calibration{}); err != nil {
		t.Fatal(err)
	}
	var files [][]byte
	for i := range 4 {
		files = append(files, painted(2*size+64*i, 2*size, i))
	}
	p := startProcess(t, model, "--max-queue", strconv.Itoa(maxQueue), "--max-batch", strconv.Itoa(maxBatch), "--timeout", "2m",
		"--max-pixels", strconv.Itoa(maxPixels))

	_, stop := crowdOf(t, p, clients, files)
	time.Sleep(length / 4) // a warm-up
	stop()
	count, seconds := p.metric(t, `rdpp_batch_seconds_count{model="part"}`), p.metric(t, `rdpp_batch_seconds_sum{model="part"}`)
	images := p.metric(t, `rdpp_batch_images_sum{model="part"}`)
	y, stop := crowdOf(t, p, clients, files)
	memory := p.watchMemory(t, length)
	stop()
	count, seconds = p.metric(t, `rdpp_batch_seconds_count{model="part"}`)-count, p.metric(t, `rdpp_batch_seconds_sum{model="part"}`)-seconds
	images = p.metric(t, `rdpp_batch_images_sum{model="part"}`) - images

	if len(y.times) == 0 || count == 0 {
		t.Fatalf("got no verdict, but %v", y.statuses)
	}
	slices.Sort(y.times)
	p50, p99 := y.times[len(y.times)/2], y.times[len(y.times)*99/100]
	batch := time.Duration(seconds / count * float64(time.Second))
	// An image that finds the queue full but for its own place waits for maxQueue / maxBatch batches, its own among them,
	// and for the one in the networks: queue length x batch time. Whatever else runs on the machine makes some batches
	// slower than others, so what counts is the slowest stretch of as many images, and a quarter more for receiving them.
	mean := time.Duration(maxQueue/maxBatch+1) * batch
	bound := 5 * y.slowest(maxQueue+maxBatch) / 4
	half := len(memory) / 2
	early, later := slices.Max(memory[:half]), slices.Max(memory[half:])
	t.Logf("%d clients, %v: statuses %v, p50 %v, p99 %v, batches of %.1f images in %v, so a full queue takes %v, and at most %v", clients, length,
		y.statuses, p50, p99, images/count, batch, mean, bound)
	t.Logf("memory: %.1f MiB after the warm-up, %.1f at the end, at most %.1f in the first half and %.1f in the second", mib(memory[0]),
		mib(memory[len(memory)-1]), mib(early), mib(later))
	for _, s := range y.strange {
		t.Errorf("got %.300s, want a verdict, or status 503 with Retry-After", s)
	}
	if y.statuses[http.StatusServiceUnavailable] == 0 {
		t.Error("got no status 503, so the queue was never full")
	}
	if *testmain.Slow && p99 > bound {
		t.Errorf("got a p99 of %v, want at most %v", p99, bound)
	}
	if *testmain.Slow && later-early > memoryTolerance {
		t.Errorf("got %.1f MiB more in the second half, want at most %.1f", mib(later-early), mib(memoryTolerance))
	}
	p.refuse(t, 400)
	p.endUnderLoad(t, clients, files)
}

// memoryTolerance is what the peaks of two halves of a load may differ by: which requests' bodies and pictures are there
// at once is chance, and so is when Go's collector runs. A picture kept for each request would take hundreds of MiB.
const memoryTolerance = 48 << 20

// watchMemory looks at the process's memory until the time is over.
func (p *process) watchMemory(t *testing.T, length time.Duration) (sizes []int64) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); <-tick.C {
		sizes = append(sizes, p.resident(t))
	}
	return sizes
}

func mib(size int64) float64 { return float64(size) / (1 << 20) }

// refuse sends malformed requests to the process.
func (p *process) refuse(t *testing.T, requests int) {
	t.Helper()
	before := p.resident(t)
	sendMalformed(t, p.service, requests)
	growth := p.resident(t) - before
	t.Logf("%d malformed requests, memory %+.1f MiB", requests, mib(growth))
	if most := decoding(runtime.NumCPU(), maxPixels); growth > most {
		t.Errorf("got %.1f MiB more after malformed requests, want at most %.1f", mib(growth), mib(most))
	}
}

// endUnderLoad sends SIGTERM while clients ask. Every request that the process took was logged when it was answered, and
// as many answers have arrived.
func (p *process) endUnderLoad(t *testing.T, clients int, files [][]byte) {
	t.Helper()
	p.ask(t, "GET", marker, nil)
	y, stop := crowdOf(t, p, clients, files)
	defer stop()
	eventually(t, "the queue is full", func() bool { y.mu.Lock(); defer y.mu.Unlock(); return y.statuses[http.StatusServiceUnavailable] > 0 })
	y.ending.Store(true)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.logged
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: got %v, want exit code 0", err)
	}
	stop()
	t.Logf("SIGTERM: answers %v, %d verdicts of them after it; logged %v", y.statuses, y.late, p.statuses)
	if !maps.Equal(p.statuses, y.statuses) {
		t.Errorf("got answers of statuses %v, the process logged %v", y.statuses, p.statuses)
	}
	if y.late == 0 {
		t.Error("got no verdict after SIGTERM, so it came when nobody asked")
	}
	if len(y.strange) > 0 || p.panics > 0 {
		t.Errorf("got %d panics and the answers %q, want none", p.panics, y.strange)
	}
}

// A pipe in the certificate's place keeps nobody waiting.
func TestServeRefusesPipes(t *testing.T) {
	v := start(t, server.Options{})
	pipe := filepath.Join(t.TempDir(), "cert.pem")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() { done <- v.Serve(t.Context(), l, pipe, pipe) }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), pipe+": not a regular file but a pipe") {
			t.Errorf("got %v, want that a pipe is refused", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for the pipe")
	}
}
