package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/queue"
	"rdpp/rdpp/reproduce"
	"rdpp/rdpp/sample"
	"rdpp/rdpp/testmain"
)

// natsServer starts a NATS server in this process.
func natsServer(t *testing.T) (address string) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the NATS server does not start")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return "nats://" + s.Addr().(*net.TCPAddr).String()
}

// categories writes data sets of 64 x 64 pixels into a folder, under other names.
func categories(t *testing.T, names ...string) (data string) {
	t.Helper()
	data = t.TempDir()
	for i, name := range names {
		dir := t.TempDir()
		if err := sample.Write(dir, &sample.Options{Category: "part", Size: 64, Train: 6, TestGood: 2, TestDefect: 1, Seed: uint64(i)}); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "part"), filepath.Join(data, name)); err != nil {
			t.Fatal(err)
		}
	}
	return data
}

// startWorker starts a worker in a process of its own. What it says of trainings goes to a file.
func startWorker(t *testing.T, address string) (cmd *exec.Cmd, said func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stdout")
	cmd = testmain.Child(asProgram, "worker", "--nats="+address, "--device=cpu", "--threads=1", "--workers=1")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, func() string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

// handing is a command line that hands out: without what is each worker's own.
func handing(args []string, further ...string) []string {
	args = slices.DeleteFunc(args, func(arg string) bool {
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		return slices.Contains(ofWorker, name)
	})
	return append(args, further...)
}

// wantEqualModels holds the models of two runs equal, but for how they came to be.
func wantEqualModels(t *testing.T, got, want string, categories ...string) {
	t.Helper()
	for _, category := range categories {
		var contents []string
		for _, out := range []string{got, want} {
			info, err := rdpp.Inspect(filepath.Join(out, category, rdpp.ModelFile))
			if err != nil {
				t.Fatal(err)
			}
			contents = append(contents, info.Content)
		}
		if contents[0] != contents[1] || len(contents[0]) != 64 {
			t.Errorf("%s: got the model %q, want %q", category, contents[0], contents[1])
		}
	}
}

// wantPage holds the page of a run to have the reports of categories.
func wantPage(t *testing.T, out string, categories ...string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(out, rdpp.IndexFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, category := range categories {
		if !strings.Contains(string(page), fmt.Sprintf("href=%q", category+"/"+rdpp.ReportFile)) {
			t.Errorf("got a page without the report of %s", category)
		}
	}
}

// TestShard: shares train what one process trains, to the bit, and whoever is last writes the page of all.
func TestShard(t *testing.T) {
	data, names := categories(t, "a", "b", "c"), []string{"a", "b", "c"}
	alone, out := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "run")
	if code, _, stderr := trainBy(tiny(data, alone, "--category=all")...); code != command.Done {
		t.Fatalf("got code %d, %s", code, stderr)
	}
	code, stdout, stderr := trainBy(tiny(data, out, "--category=all", "--shard=1/2")...)
	if code != command.Done || !strings.Contains(stdout, "share 1/2: 2 of 3 categories") {
		t.Fatalf("got code %d, %s, %s, want two categories", code, stdout, stderr)
	}
	if _, err := os.Stat(filepath.Join(out, "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want nothing of the other share", err)
	}
	wantPage(t, out, "b", "c")
	if page := pageOf(t, out); !strings.Contains(page, "of another share") || strings.Contains(page, "not trained yet") {
		t.Error("got a page that does not say that a is of another share")
	}
	t.Setenv("JOB_COMPLETION_INDEX", "0")
	if code, _, stderr := trainBy(tiny(data, out, "--category=all", "--shards=2")...); code != command.Done {
		t.Fatalf("got code %d, %s", code, stderr)
	}
	wantPage(t, out, names...)
	wantEqualModels(t, out, alone, names...)
	if want, got := pageOf(t, alone), pageOf(t, out); got != want {
		t.Errorf("got the page\n%s\nwant\n%s", got, want)
	}
	// What is finished stays, and without a share the page is gathered once more.
	if err := os.Remove(filepath.Join(out, rdpp.IndexFile)); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := trainBy(tiny(data, out, "--category=all", "--resume")...); code != command.Done || strings.Contains(stdout, "epoch 1") {
		t.Errorf("once more: got code %d, %s, %s, want nothing trained", code, stdout, stderr)
	}
	wantPage(t, out, names...)
	// More shares than categories.
	if code, stdout, stderr := trainBy(tiny(data, out, "--category=all", "--resume", "--shard=0/9")...); code != command.Done || !strings.Contains(stdout, "0 of 3") {
		t.Errorf("an empty share: got code %d, %s, %s", code, stdout, stderr)
	}
}

// pageOf is the page of a run.
func pageOf(t *testing.T, out string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(out, rdpp.IndexFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestApartWrongUsage(t *testing.T) {
	finished := t.TempDir()
	write(t, filepath.Join(finished, "part", rdpp.MetricsFile), nil)
	data := filepath.Dir(dataDir)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--shard=4/4"}, "no share"},
		{[]string{"--shards=-1"}, "--shards -1"},
		{[]string{"--shards=4"}, "which of 4 shares is not said"},
		{[]string{"--shard=0/2", "--overwrite"}, "--overwrite"},
		{[]string{"--data=", "--good=" + dataDir, "--shard=0/2"}, "share the categories of --data"},
		{[]string{"--nats=host:4222"}, "no address"},
		{[]string{"--nats=nats://host", "--shard=0/2"}, "--shard"},
		{[]string{"--nats=nats://host", "--overwrite"}, "--overwrite"},
		{[]string{"--nats=nats://host", "--lease=1ms"}, "--lease"},
		{[]string{"--nats=nats://host", "--tries=0"}, "--tries"},
		{[]string{"--nats=nats://host", "--device=cuda"}, "--device is of the machine that trains"},
		{[]string{"--nats=nats://host", "--threads=2"}, "give train worker its own"},
		{[]string{"--nats=nats://host", "--workers=2"}, "--workers is of"},
		{[]string{"--nats=nats://host", "--cache=2"}, "--cache is of"},
		{[]string{"--nats-creds=x"}, "--nats-creds"},
		{[]string{"--tries=3"}, "--lease and --tries are for --nats"},
		{[]string{"--shard=0/2", "--lease=30s"}, "--lease and --tries are for --nats"},
		{[]string{"--nats=nats://host", "--out=" + finished}, "--resume"},
	} {
		code, _, stderr := trainBy(handing(tiny(data, filepath.Join(t.TempDir(), "out"), "--category=all"), c.args...)...)
		if code != command.WrongUsage || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: got code %d, stderr %q, want code 2, one line, and %q", c.args, code, stderr, c.want)
		}
	}
	reproducing := []string{"reproduce", "--data=" + data, "--out=" + t.TempDir(), "--nats=nats://host", "--devices=cpu"}
	if code, _, stderr := trainBy(reproducing...); code != command.WrongUsage || !strings.Contains(stderr, "--devices is of the machine that trains") {
		t.Errorf("%q: got code %d, stderr %q", reproducing, code, stderr)
	}
	for _, c := range []struct {
		args []string
		want string
	}{{nil, "--nats is missing"}, {[]string{"--nats=x"}, "no address"}, {[]string{"--nats=nats://host", "--workers=0"}, "--workers"},
		{[]string{"--nats=nats://host", "--cache=-1"}, "--cache"}, {[]string{"--nats=nats://host", "--threads=0"}, "--threads"}} {
		if code, _, stderr := trainBy(append([]string{"worker"}, c.args...)...); code != command.WrongUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("worker %q: got code %d, stderr %q, want code 2 and %q", c.args, code, stderr, c.want)
		}
	}
}

// TestArgs: workers are told what a model becomes, with files by their whole names, and nothing of the machine.
func TestArgs(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "roi.png", nil)
	for _, c := range []struct {
		given, want []string
	}{
		{[]string{"--epochs=3", "--method=rd++", "--device=cpu", "--threads=1", "--resume", "--quiet"}, []string{"--epochs=3", "--method=rd++"}},
		{[]string{"--teacher=random", "--tile=64,48", "--augment=shift=0.1"}, []string{"--augment=shift=0.1", "--teacher=random", "--tile=64,48"}},
		{[]string{"--roi=1,2,30,40", "--align", "--bit-depth=auto"}, []string{"--align=true", "--bit-depth=auto", "--roi=1,2,30,40"}},
		{[]string{"--teacher=t.pth", "--roi=roi.png", "--config=c.json"}, []string{"--config=/c.json", "--roi=/roi.png", "--teacher=/t.pth"}},
	} {
		for _, d := range app.Describe() {
			if d.Name != "" {
				continue
			}
			if err := d.Flags.Parse(c.given); err != nil {
				t.Fatal(err)
			}
			got, err := argsOf(d.Flags)
			here, failed := os.Getwd()
			if text := strings.ReplaceAll(strings.Join(got, " "), here, ""); err != nil || failed != nil || text != strings.Join(c.want, " ") {
				t.Errorf("%q: got %q, %v, want %q", c.given, text, err, c.want)
			}
		}
	}
}

// TestArgsSettle: backbone and teacher are those of the machine that hands out, where a worker with other weights would choose others.
func TestArgsSettle(t *testing.T) {
	for _, c := range []struct {
		weights string // in the cache
		given   []string
		want    string
	}{
		{"", nil, "--arch=resnet18 --teacher=builtin"},
		{"wide_resnet50_2-95faca4d.pth", nil, "--arch=wide_resnet50_2 --teacher=imagenet"},
		{"resnet18-f37072fd.pth", []string{"--arch=resnet18", "--teacher=auto"}, "--arch=resnet18 --teacher=imagenet"},
		{"", []string{"--preset=paper"}, "--preset=paper --arch=wide_resnet50_2 --teacher=imagenet"},
		{"", []string{"--arch=resnet18", "--teacher=random"}, "--arch=resnet18 --teacher=random"},
	} {
		cache := t.TempDir()
		t.Setenv("RDPP_CACHE", cache)
		if c.weights != "" {
			write(t, filepath.Join(cache, c.weights), nil)
		}
		tr, err := readTraining(t.Context(), append([]string{"--data=" + dataDir, "--out=" + t.TempDir(), "--device=cpu"}, c.given...),
			&command.Terminal{Stdout: &strings.Builder{}, Stderr: &strings.Builder{}})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(tr.args, " "); got != c.want {
			t.Errorf("%q of %q: got %q, want %q", c.given, c.weights, got, c.want)
		}
		of := settled([]string{"--arch", "resnet18", "--teacher", "auto"})[3] // of a reproduction
		if want := "builtin"; (of == want) != (c.weights != "resnet18-f37072fd.pth") {
			t.Errorf("a reproduction with %q: got %q", c.weights, of)
		}
	}
}

var epochs = regexp.MustCompile(`epoch (\d+) `)

// TestWorkers: a worker that is killed in the middle of a training loses nothing of it: another one goes on from the checkpoint, to
// the same model to the bit. What is wrong with a category is told and gathered, and the others are done.
func TestWorkers(t *testing.T) {
	data, names := categories(t, "a", "b"), []string{"a", "b"}
	alone, out := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "run")
	tiny := func(data, out string, further ...string) []string { // whose checkpoints are small, and many
		return append([]string{"--data=" + data, "--out=" + out, "--category=all", "--method=cfa", "--arch=resnet18", "--teacher=random", "--image-size=64", "--batch=2",
			"--epochs=80", "--checkpoint-every=100ms", "--precision=fp32", "--calibration=0", "--device=cpu", "--threads=1"}, further...)
	}
	if code, _, stderr := trainBy(tiny(data, alone)...); code != command.Done {
		t.Fatalf("got code %d, %s", code, stderr)
	}
	write(t, filepath.Join(data, "c", "train", "good", "1.png"), []byte("no image"))
	address := natsServer(t)
	type ended struct {
		code           int
		stdout, stderr string
	}
	ends := make(chan ended, 1)
	go func() {
		code, stdout, stderr := trainBy(handing(tiny(data, out), "--nats="+address, "--lease=2s")...)
		ends <- ended{code, stdout, stderr}
	}()
	lost, _ := startWorker(t, address)
	testmain.Wait(t, "checkpoint behind the first epochs", func() bool {
		history, err := os.ReadFile(filepath.Join(out, "a", rdpp.HistoryFile))
		return err == nil && strings.Count(string(history), "\n") > 20 && exists(filepath.Join(out, "a", checkpointFile))
	})
	if err := testmain.Kill(lost); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(out, "a", rdpp.MetricsFile)) {
		t.Fatal("the training came to its end first, so the test shows nothing")
	}
	worker, said := startWorker(t, address)
	e := <-ends
	if e.code != command.Failed || !strings.Contains(e.stderr, "c is given up: ") || !strings.Contains(e.stderr, "1.png") || !strings.Contains(e.stderr, "1 of 3 categories failed: c") {
		t.Errorf("got code %d, %s, want code 1 and what is wrong with c", e.code, e.stderr)
	}
	if !strings.Contains(e.stdout, "a: model ") || !strings.Contains(e.stdout, "b: model ") || !strings.Contains(e.stdout, "all: 2 of 3 categories") {
		t.Errorf("got %s, want what became of the others", e.stdout)
	}
	wantPage(t, out, names...)
	if page := pageOf(t, out); !strings.Contains(page, "1.png") {
		t.Error("got a page without what is wrong with c")
	}
	wantEqualModels(t, out, alone, names...)
	first := map[string]string{}
	for line := range strings.Lines(said()) {
		category, _, _ := strings.Cut(line, ":")
		if found := epochs.FindStringSubmatch(line); found != nil && first[category] == "" {
			first[category] = found[1]
		}
	}
	if first["a"] == "1" || first["a"] == "" || first["b"] == "" {
		t.Errorf("got first epochs %v of the second worker, want it to have gone on with a, and begun b", first)
	}

	// What is finished is not handed out again.
	if err := os.RemoveAll(filepath.Join(data, "c")); err != nil {
		t.Fatal(err)
	}
	again := handing(tiny(data, out), "--nats="+address, "--resume")
	if code, _, stderr := trainBy(again...); code != command.Done {
		t.Errorf("once more: got code %d, %s", code, stderr)
	}
	if code, _, stderr := trainBy(append(again, "--seed=5")...); code != command.WrongUsage || !strings.Contains(stderr, "--seed is 5; the run that --resume continues has 1") {
		t.Errorf("another seed: got code %d, %s", code, stderr)
	}
	worker.Process.Signal(syscall.SIGTERM)
	if code := testmain.ExitCode(t, worker); code != command.Done {
		t.Errorf("the worker: got code %d, %s, want 0", code, said())
	}
}

// TestReproduceShards: shares train what one process trains, once, and the last one's results are of all.
func TestReproduceShards(t *testing.T) {
	s := newStage(t, "carpet", "grid", "screw")
	s.order("grid rd", "fail")
	const rd, full = "mvtec_wide_resnet50_2_rd_seed1 cpu new", "mvtec_wide_resnet50_2_rd++_noise0.2_seed1 cpu new"
	stdout, err := s.reproduce("--tables=1", "--categories=carpet,grid,screw", "--shard=1/2")
	if err != nil || !strings.Contains(stdout, "6 trainings, 0 done before, 3 to do, 0 without data, 3 of other shares") {
		t.Errorf("got %v, %s, want three trainings", err, stdout)
	}
	s.checkCalls("the second share", "carpet "+full, "grid "+full, "screw "+full)
	if got := s.results(); !strings.Contains(got, "of another share") {
		t.Errorf("got %s, want that others are missing", got)
	}
	t.Setenv("SLURM_ARRAY_TASK_ID", "0")
	if _, err := s.reproduce("--tables=1", "--categories=carpet,grid,screw", "--shards=2"); err == nil || !strings.Contains(err.Error(), "1 of 6 trainings failed") {
		t.Errorf("got %v, want a failure", err)
	}
	s.checkCalls("the first share", "carpet "+rd, "grid "+rd, "screw "+rd)
	shares := s.results()
	if strings.Contains(shares, "of another share") {
		t.Errorf("got %s, want the results of all", shares)
	}
	// The same without shares, which trains what has failed.
	s.order("grid rd", "")
	if _, err := s.reproduce("--tables=1", "--categories=carpet,grid,screw"); err != nil {
		t.Fatal(err)
	}
	s.checkCalls("without shares", "grid "+rd)
}

// TestReproduceWorkers: workers do the trainings of a reproduction.
func TestReproduceWorkers(t *testing.T) {
	data, out := categories(t, "carpet", "grid"), filepath.Join(t.TempDir(), "run")
	write(t, filepath.Join(data, "screw", "train", "good", "1.png"), []byte("no image"))
	address := natsServer(t)
	startWorker(t, address)
	args := []string{"reproduce", "--data=" + data, "--out=" + out, "--tables=1", "--categories=carpet,grid,screw", "--methods=patchcore,cfa", "--arch=resnet18", "--epochs=1",
		"--image-size=64", "--teacher=random", "--nats=" + address}
	code, stdout, stderr := trainBy(args...)
	if code != command.Failed || strings.Count(stdout, ": done, ") != 4 || strings.Count(stdout, ": failed: ") != 2 || !strings.Contains(stdout, "1.png") {
		t.Errorf("got code %d, %s, %s, want four trainings done, and two that fail", code, stdout, stderr)
	}
	for _, name := range []string{reproduce.ResultsMarkdown, reproduce.ResultsHTML} {
		if text, err := os.ReadFile(filepath.Join(out, name)); err != nil || !strings.Contains(string(text), "1.png") || !strings.Contains(string(text), "avg. of 2 of 15") {
			t.Errorf("%s: got %v, %s, want the results of two categories", name, err, text)
		}
	}
	// What is done is not done again.
	if err := os.RemoveAll(filepath.Join(data, "screw")); err != nil {
		t.Fatal(err)
	}
	args[4] = "--categories=carpet,grid"
	if code, stdout, stderr := trainBy(args...); code != command.Done || strings.Contains(stdout, ": done, ") {
		t.Errorf("once more: got code %d, %s, %s, want nothing trained", code, stdout, stderr)
	}
}

// TestWorkersSee: a worker that sees other images, or no folder of results, or is another version, says so.
func TestWorkersSee(t *testing.T) {
	data := categories(t, "a")
	out := t.TempDir()
	w := worker{t: &command.Terminal{Stdout: &strings.Builder{}, Stderr: &strings.Builder{}}, args: []string{"--resume", "--device=cpu", "--threads=1"}}
	for _, c := range []struct {
		o    order
		want string
	}{
		{order{There: filepath.Join(out, rdpp.IndexFile)}, "not there on this machine"},
		{order{There: out, Images: "0123"}, "are others on this machine"},
		{order{There: out, By: "rdpp 0.1"}, "handed out by rdpp 0.1, and this worker is rdpp "},
		{order{There: out}, ""},
	} {
		c.o.Args, c.o.By = tiny(data, out, "--category=a"), cmp.Or(c.o.By, program())
		text, err := json.Marshal(c.o)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := w.do(t.Context(), queue.Task{Message: text}); err != nil {
			got = err.Error()
		}
		if got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
			t.Errorf("%+v: got %q, want %q", c.o, got, c.want)
		}
	}
}

// TestNoSuchCategory: a category that is not there for whoever hands it out is given up at once, and the others are done.
func TestNoSuchCategory(t *testing.T) {
	data, out := categories(t, "a"), filepath.Join(t.TempDir(), "run")
	address := natsServer(t)
	startWorker(t, address)
	code, stdout, stderr := trainBy(handing(tiny(data, out), "--category=typo,a", "--nats="+address)...)
	if code != command.Failed || !strings.Contains(stderr, "typo is given up: ") || !strings.Contains(stderr, "no such folder") || !strings.Contains(stdout, "a: model ") {
		t.Errorf("got code %d, %s, %s, want code 1, that there is no such folder, and a model of the other one", code, stdout, stderr)
	}
}

// TestOddNames: a category is trained whatever its name means in a command line, and so is a folder that is the only one.
func TestOddNames(t *testing.T) {
	names := []string{"-x y", "a,b", "all"}
	data := categories(t, names...)
	address := natsServer(t)
	startWorker(t, address)
	for _, c := range []struct {
		data  string
		names []string
	}{{data, names}, {filepath.Join(data, "all"), []string{"all"}}} {
		out := filepath.Join(t.TempDir(), "run")
		if code, _, stderr := trainBy(handing(tiny(c.data, out), "--category=all", "--nats="+address)...); code != command.Done {
			t.Errorf("%s: got code %d, %s", c.data, code, stderr)
		}
		for _, name := range c.names {
			if !exists(filepath.Join(out, name, rdpp.ModelFile)) {
				t.Errorf("%s: got no model of %s", c.data, name)
			}
		}
	}
}
