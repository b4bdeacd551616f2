package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/nats-io/nats-server/v2/server"

	"rdpp/infer/batch"
	"rdpp/rdpp/bulk"
	"rdpp/rdpp/command"
	"rdpp/rdpp/queue"
	"rdpp/rdpp/testmain"
)

// scattered writes the test images n times under other names into folders below dir, and one that is none.
func scattered(t *testing.T, dir string, n int) (images []string) {
	t.Helper()
	good, anomalous := testImages()
	for i := range n {
		for j, path := range slices.Concat(good, anomalous) {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			images = append(images, filepath.Join(dir, fmt.Sprintf("line %d", j%2), fmt.Sprintf("%04d_%d.png", i, j)))
			if err := os.MkdirAll(filepath.Dir(images[len(images)-1]), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(images[len(images)-1], content, 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	images = append(images, filepath.Join(dir, "broken.png"))
	if err := os.WriteFile(images[len(images)-1], []byte("no image"), 0o666); err != nil {
		t.Fatal(err)
	}
	slices.Sort(images)
	return images
}

// wantDone runs the program, which has to do what it is asked.
func wantDone(t *testing.T, args ...string) (stdout string) {
	t.Helper()
	code, stdout, stderr := infer(nil, args...)
	if code != command.Done {
		t.Fatalf("%q: got code %d, %s, want 0", args, code, stderr)
	}
	return stdout
}

// content is all files below folders of a batch that follow from the work, by their names.
func content(t *testing.T, out string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"results/*/*", bulk.SummaryFile, bulk.WorstFile, bulk.BrokenFile, "list-*"} {
		paths, err := filepath.Glob(filepath.Join(out, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			all[strings.TrimPrefix(path, out)] = string(text)
		}
	}
	return all
}

// wantEqual holds what two batches came to equal, byte for byte.
func wantEqual(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: got %.300q, want %.300q", name, got[name], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d files, want %d", len(got), len(want))
	}
}

// TestBatch: a batch says what infer image --json says, at once and in shares, and goes on where it was.
func TestBatch(t *testing.T) {
	t.Chdir(t.TempDir())
	images := scattered(t, "in", 2)
	wantDone(t, commandLine("batch", "--list", "in", "--out", "whole", "--piece", "4", "--quiet")...)
	_, alone, _ := infer(nil, append(commandLine("image", "--json"), images...)...)
	summary := wantDone(t, "batch", "merge", "whole")
	for _, want := range []string{"images     13", "broken     1", "quantiles are right to 0.1%"} {
		if !strings.Contains(summary, want) {
			t.Errorf("merged: got %s, want %q", summary, want)
		}
	}
	results, err := filepath.Glob("whole/results/*/*")
	if err != nil || len(results) != 4 {
		t.Fatalf("got the files %q, %v, want 4", results, err)
	}
	var lines strings.Builder
	for _, path := range results { // which ascend
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(text)
	}
	if lines.String() != alone {
		t.Errorf("got %s, want what infer image says: %s", &lines, alone)
	}

	share := func(args ...string) {
		wantDone(t, commandLine("batch", append(args, "--list", "in", "--out", "shares", "--piece", "4")...)...)
	}
	share("--shard", "2/3")
	if code, _, stderr := infer(nil, "batch", "merge", "shares"); code != command.Failed || !oneLine(stderr, "2 of 4 pieces are missing (0, 1)") {
		t.Errorf("a share alone: got code %d, %s, want the missing pieces", code, stderr)
	}
	t.Setenv("JOB_COMPLETION_INDEX", "0")
	share("--shards", "3")
	t.Setenv("JOB_COMPLETION_INDEX", "")
	for name, value := range map[string]string{"ID": "12", "MIN": "10", "MAX": "14", "STEP": "2", "COUNT": "3"} {
		t.Setenv("SLURM_ARRAY_TASK_"+name, value)
	}
	share()
	wantDone(t, "batch", "merge", "shares", "--quiet")
	wantEqual(t, content(t, "shares"), content(t, "whole"))
	t.Setenv("SLURM_ARRAY_TASK_ID", "")

	// What is done is not done again: with a text in its place a piece stays as it is.
	if err := os.WriteFile(results[0], []byte("done"), 0o666); err != nil {
		t.Fatal(err)
	}
	wantDone(t, commandLine("batch", "--list", "in", "--out", "whole")...)
	testmain.WantContent(t, results[0], "done")
	if code, _, stderr := infer(nil, commandLine("batch", "--list", "in", "--out", "whole", "--threshold", "1")...); code != command.Failed ||
		!strings.Contains(stderr, "results of another batch, with the settings") || !strings.Contains(stderr, "name another folder") {
		t.Errorf("another threshold: got code %d, %s, want a refusal and what to do", code, stderr)
	}
	if code, _, stderr := infer(nil, "batch", "merge", "whole"); code != command.Failed || !strings.Contains(stderr, results[0]+", line 1: ") {
		t.Errorf("damaged: got code %d, %s, want the file", code, stderr)
	}
}

// TestBatchFails: a piece that fails leaves the others their turn, and several in a row do not.
func TestBatchFails(t *testing.T) {
	t.Chdir(t.TempDir())
	images := scattered(t, "in", 1)
	for _, c := range []struct {
		missing, results int
		want             string
	}{{1, 2, "1 of 3 pieces failed"}, {mostFailed, 0, "3 of 5 pieces failed"}} {
		list := ""
		for i := range c.missing {
			list += fmt.Sprintf("gone/%d.png\n", i)
		}
		if err := os.WriteFile("list", []byte(list+images[1]+"\n"+images[2]+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		out := fmt.Sprint("out", c.missing)
		code, _, stderr := infer(nil, commandLine("batch", "--list", "list", "--out", out, "--piece", "1", "--quiet")...)
		results, err := filepath.Glob(out + "/results/*/*")
		if code != command.Failed || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "gone/0.png") || len(results) != c.results || err != nil {
			t.Errorf("%d missing: got code %d, %s, %d results, want %q, %d", c.missing, code, stderr, len(results), c.want, c.results)
		}
	}
}

// TestBatchMemory: an image that has no room is no broken one, as it has some on another machine.
func TestBatchMemory(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("in", 0o777); err != nil {
		t.Fatal(err)
	}
	var content bytes.Buffer
	if err := png.Encode(&content, image.NewGray(image.Rect(0, 0, 3000, 3000))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("in/large.png", content.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := infer(nil, commandLine("batch", "--list", "in", "--out", "out", "--max-memory", "4", "--quiet")...)
	if code != command.Failed || !strings.Contains(stderr, "in/large.png") || !strings.Contains(stderr, "raise --max-memory") {
		t.Errorf("too little memory: got code %d, %s, want a failure that says so", code, stderr)
	}
	wantDone(t, commandLine("batch", "--list", "in", "--out", "out", "--max-memory", "1024", "--quiet")...)
	if got := wantDone(t, "batch", "merge", "out"); !strings.Contains(got, "broken     0\n") {
		t.Errorf("enough memory: got %s, want nothing broken", got)
	}
}

// TestBatchBucket: images in an S3-compatible store give the same results as on a disk.
func TestBatchBucket(t *testing.T) {
	t.Chdir(t.TempDir())
	images := scattered(t, "in", 1)
	store := httptest.NewServer(gofakes3.New(s3mem.New()).Server())
	defer store.Close()
	put := func(path string, content []byte) {
		r, err := http.NewRequest(http.MethodPut, store.URL+"/parts"+(&url.URL{Path: path}).EscapedPath(), bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: got status %s, want 200", path, answer.Status)
		}
	}
	put("", nil) // the bucket
	for _, path := range append(images, "README.txt") {
		text, err := os.ReadFile(path)
		if err != nil {
			text = []byte("no image")
		}
		put("/"+path, text)
	}
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": store.URL, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"} {
		t.Setenv(name, value)
	}
	wantDone(t, commandLine("batch", "--list", "in", "--out", "disk")...)
	wantDone(t, commandLine("batch", "--list", "s3://parts/in", "--out", "bucket")...)
	wantDone(t, "batch", "merge", "disk")
	wantDone(t, "batch", "merge", "bucket")
	for _, name := range []string{bulk.WorstFile, bulk.BrokenFile} {
		disk, err := os.ReadFile(filepath.Join("disk", name))
		if err != nil {
			t.Fatal(err)
		}
		testmain.WantContent(t, filepath.Join("bucket", name), strings.ReplaceAll(string(disk), "in/", "s3://parts/in/"))
	}
	// The results may lie there too, in shares, and are the same; what is there is not made again.
	for _, shard := range []string{"1/2", "0/2"} {
		wantDone(t, commandLine("batch", "--list", "s3://parts/in", "--out", "s3://parts/results/of in", "--piece", "3", "--shard", shard)...)
	}
	if code, _, stderr := infer(nil, commandLine("batch", "--list", "s3://parts/in", "--out", "s3://parts/results/of in", "--threshold", "1")...); code != command.Failed ||
		!strings.Contains(stderr, "results of another batch") {
		t.Errorf("another threshold: got code %d, %s, want a refusal", code, stderr)
	}
	wantDone(t, commandLine("batch", "--list", "s3://parts/in", "--out", "three", "--piece", "3")...)
	if got, want := wantDone(t, "batch", "merge", "s3://parts/results/of in"), wantDone(t, "batch", "merge", "three"); got != want {
		t.Errorf("results in the bucket: got %s, want %s", got, want)
	}
	for name, want := range content(t, "three") {
		answer, err := http.Get(store.URL + "/parts" + (&url.URL{Path: "/results/of in/" + strings.TrimPrefix(name, "/")}).EscapedPath())
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if got, err := io.ReadAll(answer.Body); string(got) != want || err != nil {
			t.Errorf("%s in the bucket: got %.200q, %v, want %.200q", name, got, err, want)
		}
	}
	address, _ := natsServer(t)
	testmain.Start(t, asProgram, nil, "worker", "--nats", address, "--device", "cpu", "--threads", "2", "--models", "models")
	wantDone(t, commandLine("batch", "--list", "s3://parts/in", "--out", "s3://parts/apart", "--piece", "3", "--nats", address)...)
	if got, want := wantDone(t, "batch", "merge", "s3://parts/apart"), wantDone(t, "batch", "merge", "three"); got != want {
		t.Errorf("by a worker: got %s, want %s", got, want)
	}
	lists, err := filepath.Glob("bucket/list-*.txt")
	if err != nil || len(lists) != 1 {
		t.Fatalf("got the lists %q, %v, want one", lists, err)
	}
	if list := content(t, "bucket")[strings.TrimPrefix(lists[0], "bucket")]; strings.Count(list, "\n") != len(images) || strings.Contains(list, "README") {
		t.Errorf("got the list %q, want the %d images", list, len(images))
	}
	// A list may name what lies in a store beside files.
	if err := os.WriteFile("mixed", []byte("s3://parts/"+images[1]+"\n"+images[1]+"\ns3://parts/none.png\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	wantDone(t, commandLine("batch", "--list", "mixed", "--out", "mixed.out")...)
	if got := wantDone(t, "batch", "merge", "mixed.out"); !strings.Contains(got, "images     3\n") || !strings.Contains(got, "broken     1\n") {
		t.Errorf("mixed: got %s, want three images, one of them broken", got)
	}
}

// natsServer starts a NATS server in this process; restart stops it and starts it with what it has on disk.
func natsServer(t *testing.T) (address string, restart func()) {
	t.Helper()
	opt := server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true}
	var s *server.Server
	start := func() {
		var err error
		if s, err = server.NewServer(&opt); err != nil {
			t.Fatal(err)
		}
		s.Start()
		if !s.ReadyForConnections(time.Minute) {
			t.Fatal("the NATS server does not start")
		}
	}
	stop := func() { s.Shutdown(); s.WaitForShutdown() }
	start()
	t.Cleanup(func() { stop() })
	return s.ClientURL(), func() {
		opt.Port = s.Addr().(*net.TCPAddr).Port
		stop()
		start()
	}
}

// TestWorkers: workers make what one process makes, byte for byte.
func TestWorkers(t *testing.T) {
	t.Chdir(t.TempDir())
	scattered(t, "in", 2)
	address, _ := natsServer(t)
	wantDone(t, commandLine("batch", "--list", "in", "--out", "alone", "--piece", "3")...)
	for i := range 2 {
		worker, stderr := testmain.Start(t, asProgram, nil, "worker", "--nats", address, "--device", "cpu", "--threads", "2", "--models", "models")
		defer func() {
			worker.Process.Signal(syscall.SIGTERM)
			if code := testmain.ExitCode(t, worker); code != command.Done {
				t.Errorf("worker %d: got code %d, %s, want 0", i, code, stderr)
			}
		}()
	}
	wantDone(t, commandLine("batch", "--list", "in", "--out", "workers", "--piece", "3", "--nats", address)...)
	wantDone(t, "batch", "merge", "alone")
	wantDone(t, "batch", "merge", "workers")
	wantEqual(t, content(t, "workers"), content(t, "alone"))
	// The same work into another folder is the same batch, and goes there.
	wantDone(t, commandLine("batch", "--list", "in", "--out", "again", "--piece", "3", "--nats", address)...)
	wantDone(t, "batch", "merge", "again")
	wantEqual(t, content(t, "again"), content(t, "alone"))
}

// TestWorkersDiffer: a worker of another program says so and ends, and the others do its pieces. What another program has handed out,
// and nobody has done, is handed out anew.
func TestWorkersDiffer(t *testing.T) {
	t.Chdir(t.TempDir())
	scattered(t, "in", 2)
	address, _ := natsServer(t)
	args := commandLine("batch", "--list", "in", "--out", "workers", "--piece", "1")
	wantDone(t, append(args, "--shard", "0/4")...) // which makes the batch
	b, err := bulk.Open("workers")
	if err != nil {
		t.Fatal(err)
	}
	q, err := queue.Connect(address, queue.Images, queue.Options{Lease: time.Second, Tries: 50})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	ctx, cancel := context.WithCancel(t.Context())
	before := batch.HandOptions{By: "rdpp 0.0", Tell: func(batch.Progress) { cancel() }, Log: func(text string) { t.Log(text) }}
	if err := batch.Hand(ctx, q, b, modelFile, before); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want an interruption", err)
	}
	refusal := func(w worker) string {
		err := q.Work(t.Context(), w.do)
		if err == nil {
			t.Fatal("got no error")
		}
		return err.Error()
	}
	if got, want := refusal(worker{program: program()}), "it is handed out by rdpp 0.0, and this worker is "+program()+": use the same program for both"; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}

	code := make(chan int, 1)
	go func() {
		ended, _, stderr := infer(nil, append(args, "--nats", address)...)
		t.Log(stderr)
		code <- ended
	}()
	testmain.Wait(t, "piece that is handed out anew", func() bool {
		return strings.Contains(refusal(worker{program: "rdpp 0.2"}), "it is handed out by "+program()+", and this worker is rdpp 0.2")
	})
	_, said := testmain.Start(t, asProgram, nil, "worker", "--nats", address, "--device", "cpu", "--threads", "2", "--models", "models")
	select {
	case got := <-code:
		if got != command.Done {
			t.Errorf("got code %d, want 0", got)
		}
	case <-time.After(time.Minute):
		t.Fatalf("got no end within a minute, and %s", said)
	}
	wantDone(t, "batch", "merge", "workers")
}

// TestWorkersKilled: the same with 200 pieces and four workers, one of which is killed every few seconds and replaced, one that is
// stopped for longer than its lease now and then, and a server that is started again.
func TestWorkersKilled(t *testing.T) {
	if !*testmain.Slow {
		t.Skip("takes minutes; -slow runs it")
	}
	t.Chdir(t.TempDir())
	scattered(t, "in", 1199) // 7195 images
	address, restart := natsServer(t)
	wantDone(t, commandLine("batch", "--list", "in", "--out", "alone", "--piece", "36", "--threads", "1")...)
	workers := make([]*exec.Cmd, 4)
	begin := func(i int) {
		workers[i], _ = testmain.Start(t, asProgram, nil, "worker", "--nats", address, "--device", "cpu", "--threads", "1", "--models", "models")
	}
	for i := range workers {
		begin(i)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	killed, restarted, stopped := 0, 0, 0
	go func() {
		defer close(ended)
		random := rand.New(rand.NewPCG(1, 1))
		for round := 1; ; round++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(2 * time.Second):
			}
			i := 1 + random.IntN(3) // the first one is slow instead
			workers[i].Process.Kill()
			workers[i].Wait()
			killed++
			begin(i)
			switch round % 4 {
			case 1:
				workers[0].Process.Signal(syscall.SIGSTOP)
				stopped++
			case 3:
				workers[0].Process.Signal(syscall.SIGCONT)
			case 0:
				restart()
				restarted++
			}
		}
	}()
	wantDone(t, commandLine("batch", "--list", "in", "--out", "workers", "--piece", "36", "--nats", address, "--lease", "4s", "--tries", "50", "--threads", "1")...)
	stop()
	<-ended
	t.Logf("%d workers killed, the slow one stopped %d times, the server started again %d times", killed, stopped, restarted)
	if killed < 3 || stopped == 0 || restarted == 0 {
		t.Error("too little has happened; the test needs more images")
	}
	wantDone(t, "batch", "merge", "alone")
	wantDone(t, "batch", "merge", "workers")
	if results := content(t, "workers"); len(results) != 200+5 {
		t.Errorf("got %d files, want 200 of results, and five", len(results))
	}
	wantEqual(t, content(t, "workers"), content(t, "alone"))
}
