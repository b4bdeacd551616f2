package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/history"
	"rdpp/rdpp/outbox"
	"rdpp/rdpp/testmain"
)

var (
	soak     = flag.Duration("soak", 0, "let TestSoak go on for so long")
	soakKill = flag.Duration("soak-kill", time.Minute, "kill the watch of TestSoak so often; 0: never")
	soakRate = flag.Float64("soak-rate", 20, "images per second of TestSoak")
)

// part is a picture of TestSoak's, as a file, and what is to be said of it.
type part struct {
	data    []byte
	verdict history.Verdict
	score   float64
}

// TestSoak is a line for hours: images arrive at a steady rate, are judged, recorded, written to a table, moved and sent to a
// broker, while kill -9 ends the watch again and again. In the end each image has one record, one row and one message, in one order,
// and the memory of the last watches is that of the first.
//
//	go test ./infer -run TestSoak -v -timeout 0 -args -soak 1h
func TestSoak(t *testing.T) {
	if *soak <= 0 {
		t.Skip("no -soak")
	}
	parts, n := soakParts(t), int(soak.Seconds()**soakRate)
	l, s := newLine(t), &soakLog{}
	broker := startBroker(t, "allow_anonymous true", "max_queued_messages 0")
	s.subscribe(t, broker)
	args := append(l.command(l.moving()...), "--threads", "1", "--settle", "1s", "--quiet", "--mqtt", "mqtt://"+broker, "--topic", "line")

	chosen, arriving := make([]int, n), make(chan error, 1)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range chosen {
		chosen[i] = r.IntN(len(parts))
	}
	go func() {
		began := time.Now()
		for i, c := range chosen {
			time.Sleep(time.Until(began.Add(time.Duration(float64(i) / *soakRate * float64(time.Second)))))
			if err := arrive(filepath.Join(l.in, soakName(i)), parts[c].data, i%2 == 0); err != nil {
				arriving <- err
				return
			}
		}
		arriving <- nil
	}()

	warm := *soak / 10 // after which memory is looked at
	if *soakKill > 0 {
		warm = *soakKill / 3
	}
	var memory []int64 // bytes in use, now and then, in the order of time
	for kills, over := 0, false; !over; kills++ {
		cmd, stderr := testmain.Start(t, asProgram, nil, args...)
		began := time.Now()
		var end <-chan time.Time
		if *soakKill > 0 {
			end = time.After(*soakKill + time.Duration(r.Int64N(int64(time.Second))))
		}
		look := time.NewTicker(min(5*time.Second, max(*soakKill, 20*time.Second)/20))
		last := int64(0)
		for alive := true; alive; {
			select {
			case <-end:
				alive = false
				if err := testmain.Kill(cmd); err != nil {
					t.Fatalf("%v: %s", err, stderr)
				}
			case err := <-arriving:
				if err != nil {
					t.Fatal(err)
				}
				over, alive = true, false
				for sent := -1; s.count() > sent && s.count() < n; { // a slow machine has some left
					sent = s.count()
					testmain.Wait(t, "further message", func() bool { return s.count() > sent })
				}
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				if code := testmain.ExitCode(t, cmd); code != command.Done {
					t.Errorf("got code %d, want 0: %s", code, stderr)
				}
			case <-look.C:
				if last = residentOf(cmd); time.Since(began) >= warm && last > 0 {
					memory = append(memory, last)
				}
			}
		}
		look.Stop()
		for line := range strings.Lines(stderr.String()) {
			if !slices.ContainsFunc([]string{"the threshold is provisional", "drift is told from", "watching"}, func(usual string) bool { return strings.Contains(line, usual) }) {
				t.Logf("it said: %s", strings.TrimSpace(line))
			}
		}
		t.Logf("watch %d: %.0f s, %.1f MiB, %d of %d images sent, %d wait", kills+1, time.Since(began).Seconds(), float64(last)/(1<<20), s.count(), n, len(names(t, l.in)))
	}
	s.check(t, &l, parts, chosen)
	checkMemory(t, memory)
}

func soakName(i int) string { return fmt.Sprintf("%07d.jpg", i) }

// soakParts are the test images as JPEG, as cameras make them.
func soakParts(t *testing.T) (parts []part) {
	t.Helper()
	d, err := rdpp.OpenDetector(modelFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	set, err := dataset.Open(dataDir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range set.Test {
		data, err := os.ReadFile(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 90}); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "part.jpg")
		if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
		result, _, err := d.DetectFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p := part{b.Bytes(), history.Good, result.Score}
		if result.Anomalous {
			p.verdict = history.Anomalous
		}
		parts = append(parts, p)
	}
	return parts
}

// arrive puts a picture at a path, as cameras do: renamed into place, or written in two strokes.
func arrive(path string, data []byte, renamed bool) error {
	if renamed {
		if err := os.WriteFile(path+".part", data, 0o666); err != nil {
			return err
		}
		return os.Rename(path+".part", path)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data[:len(data)/2])
	if err == nil {
		time.Sleep(5 * time.Millisecond)
		_, err = f.Write(data[len(data)/2:])
	}
	if inner := f.Close(); err == nil {
		err = inner
	}
	return err
}

// residentOf is the memory in use of a process, in bytes; 0: it has ended.
func residentOf(cmd *exec.Cmd) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, found := strings.Cut(string(status), "VmRSS:")
	if !found {
		return 0
	}
	kB, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	return kB << 10
}

// soakLog is what has reached the broker.
type soakLog struct {
	mu     sync.Mutex
	known  map[int64]bool
	images []sent // without those that came again
	again  int
}

// sent is what TestSoak looks at of a message.
type sent struct {
	record  int64
	name    string
	verdict history.Verdict
}

func (s *soakLog) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.images)
}

func (s *soakLog) subscribe(t *testing.T, broker string) {
	t.Helper()
	s.known = map[int64]bool{}
	client := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + broker).SetClientID("soak").SetCleanSession(false).SetAutoReconnect(true))
	testmain.Wait(t, "broker", func() bool { token := client.Connect(); return token.Wait() && token.Error() == nil })
	token := client.Subscribe("line", 1, func(_ paho.Client, p paho.Message) {
		var m outbox.Message
		if err := json.Unmarshal(p.Payload(), &m); err != nil {
			t.Errorf("got %q, %v", p.Payload(), err)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.known[m.Record] {
			s.again++
			return
		}
		s.known[m.Record] = true
		s.images = append(s.images, sent{m.Record, filepath.Base(m.Image), m.Verdict})
	})
	if token.Wait(); token.Error() != nil {
		t.Fatal(token.Error())
	}
	t.Cleanup(func() { client.Disconnect(0) })
}

// check compares history, table, messages and files with the images that arrived.
func (s *soakLog) check(t *testing.T, l *line, parts []part, chosen []int) {
	h, err := history.Open(l.history, &history.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var order []sent
	recorded := make([]int, len(chosen))
	latest, late := -1, 0
	for r, err := range h.List(t.Context(), history.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(r.Image)
		i, err := strconv.Atoi(strings.TrimSuffix(name, ".jpg"))
		if err != nil || i < 0 || i >= len(chosen) {
			t.Fatalf("got a record of %s", r.Image)
		}
		recorded[i]++
		order = append(order, sent{r.ID, name, r.Verdict})
		want := parts[chosen[i]]
		if r.Verdict != want.verdict || math.Abs(r.Score-want.score) > 1e-5*want.score {
			t.Errorf("%s: got %s, %v, want %s, %v", name, r.Verdict, r.Score, want.verdict, want.score)
		}
		if there, err := os.ReadFile(r.Moved); err != nil || !bytes.Equal(there, want.data) {
			t.Errorf("%s: got %v, want it whole at %q", name, err, r.Moved)
		}
		if i < latest {
			late++
		}
		latest = max(latest, i)
	}
	slices.SortFunc(order, func(a, b sent) int { return int(a.record - b.record) })
	for i, times := range recorded {
		if times != 1 {
			t.Errorf("%s: got %d records, want 1", soakName(i), times)
		}
	}
	if moved := len(names(t, l.good)) + len(names(t, l.bad)); moved != len(chosen) {
		t.Errorf("got %d images moved, want %d", moved, len(chosen))
	}
	testmain.WantFiles(t, l.in)
	s.mu.Lock()
	defer s.mu.Unlock()
	for what, got := range map[string][]sent{"table": l.sent(t), "messages": s.images} {
		if !slices.Equal(got, order) {
			at := 0
			for at < min(len(got), len(order)) && got[at] == order[at] {
				at++
			}
			t.Errorf("%s: got %d, want those of the %d records in their order; they differ from number %d on", what, len(got), len(order), at)
		}
	}
	t.Logf("%d images: %d records, %d messages and %d that came again; %d images were recorded after one that had arrived later", len(chosen), len(order), len(s.images), s.again, late)
}

// sent are the table's rows.
func (l *line) sent(t *testing.T) (list []sent) {
	t.Helper()
	f, err := os.Open(l.table)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) == 0 || !slices.Equal(rows[0], history.TableHeader) {
		t.Fatalf("got %v, want a table", err)
	}
	for _, row := range rows[1:] {
		id, err := strconv.ParseInt(row[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, sent{id, filepath.Base(row[2]), history.Verdict(row[3])})
	}
	return list
}

// checkMemory holds the memory in use of the last quarter of the time against that of the first.
func checkMemory(t *testing.T, memory []int64) {
	if len(memory) < 8 {
		t.Logf("too short to say something of memory: %d samples", len(memory))
		return
	}
	mean := func(list []int64) (sum float64) {
		for _, bytes := range list {
			sum += float64(bytes) / (1 << 20) / float64(len(list))
		}
		return sum
	}
	quarter := len(memory) / 4
	first, last := mean(memory[:quarter]), mean(memory[len(memory)-quarter:])
	t.Logf("memory in use: %.1f MiB in the first quarter, %.1f in the last, from %.1f to %.1f", first, last,
		float64(slices.Min(memory))/(1<<20), float64(slices.Max(memory))/(1<<20))
	if last > 1.1*first {
		t.Errorf("got %.1f MiB in the last quarter of the time, %.1f in the first, want at most a tenth more", last, first)
	}
}
