package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rdpp/rdpp/history"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/testmain"
)

func TestMain(m *testing.M) {
	testmain.Be(map[string]func([]string) error{"line": line})
	os.Exit(testmain.Run(m, nil))
}

const source = "watch:/line"

func record(image string) history.Record {
	return history.Record{Time: time.Now(), Source: source, Image: image, SHA256: "ab", Model: "screw", ModelSHA256: "cd", Verdict: history.Good, Score: 0.1,
		Threshold: 0.2}
}

func opened(t *testing.T) *history.DB {
	t.Helper()
	h, err := history.Open(filepath.Join(t.TempDir(), "line.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func add(t *testing.T, h *history.DB, names ...string) {
	t.Helper()
	for _, name := range names {
		r := record(name)
		if err := h.Add(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
}

// numbers are the names of images from one number to another, which is not one of them.
func numbers(from, to int) (names []string) {
	for i := from; i < to; i++ {
		names = append(names, fmt.Sprint(i))
	}
	return names
}

// arrived is what a destination got, without what came again.
type arrived struct {
	mu     sync.Mutex
	images []string
	ids    map[string]bool
	twice  int
}

func (a *arrived) take(text []byte) error {
	var m Message
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ids == nil {
		a.ids = map[string]bool{}
	}
	if a.ids[m.ID] {
		a.twice++
		return nil
	}
	a.ids[m.ID], a.images = true, append(a.images, m.Image)
	return nil
}

func (a *arrived) list() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.images)
}

// want waits for images to have arrived, in their order, and nothing else.
func (a *arrived) want(t *testing.T, want []string) {
	t.Helper()
	testmain.Wait(t, fmt.Sprint(len(want), " messages"), func() bool { return len(a.list()) >= len(want) })
	if got := a.list(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// log keeps what is told.
type log struct {
	mu    sync.Mutex
	texts []string
}

func (l *log) add(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.texts = append(l.texts, text)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.texts, "\n")
}

func (l *log) count(part string) int { return strings.Count(l.String(), part) }

// fast is Options that lose no time.
func fast(l *log) *Options {
	return &Options{Log: l.add, First: time.Millisecond, Longest: 20 * time.Millisecond, Look: 10 * time.Millisecond, Tries: 3}
}

// made is a destination that does as it is told.
type made struct {
	arrived
	answer func(message []byte) error // to each; nil: takes all
	sender string
	left   bool
}

func (*made) Key() string                   { return "made" }
func (*made) String() string                { return "made" }
func (m *made) Begin(sender string)         { m.sender = sender }
func (*made) Ready(context.Context) error   { return nil }
func (m *made) Close(context.Context) error { m.left = true; return nil }
func (m *made) Send(_ context.Context, messages []Packed) (taken int, err error) {
	for i, p := range messages {
		if m.answer != nil {
			if err := m.answer(p.JSON); err != nil {
				return i, err
			}
		}
		if err := m.take(p.JSON); err != nil {
			return i, err
		}
	}
	return len(messages), nil
}

func started(t *testing.T, h *history.DB, to Destination, opt *Options) *Sender {
	t.Helper()
	s, err := Start(t.Context(), h, source, to, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// flushed waits until nothing waits.
func flushed(t *testing.T, s *Sender) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if waiting, err := s.Flush(ctx); err != nil || waiting != 0 {
		t.Errorf("got %d, %v, want nothing that waits", waiting, err)
	}
}

// TestSender: what fails at any message is tried again, nothing is lost, left out or overtaken, and people are told once that it
// fails and once that it works.
func TestSender(t *testing.T) {
	h, l := opened(t), &log{}
	calls := 0
	to := &made{}
	to.answer = func([]byte) error {
		if calls++; calls > 40 && calls%7 != 0 && calls < 200 {
			return errors.New("out of order")
		}
		return nil
	}
	s := started(t, h, to, fast(l))
	add(t, h, numbers(0, 100)...)
	to.want(t, numbers(0, 100))
	flushed(t, s)
	if l.count("made: out of order; verdicts wait") == 0 || l.count("out of order") != l.count("works again after") || l.count("dropped") > 0 {
		t.Errorf("got %q, want failures, each with its end", l)
	}
	if err := s.Close(); err != nil || !to.left || !strings.HasPrefix(to.sender, "rdpp-") {
		t.Errorf("got %v, left %v, name %q", err, to.left, to.sender)
	}
	// The next one goes on.
	add(t, h, numbers(100, 110)...)
	started(t, h, to, fast(l))
	to.want(t, numbers(0, 110))
	if to.twice > 0 {
		t.Errorf("got %d messages twice, want none: each was answered", to.twice)
	}
}

// TestRefused: a message that a destination refuses again and again is dropped, and what comes after it is not.
func TestRefused(t *testing.T) {
	h, l, tries := opened(t), &log{}, 0
	to := &made{}
	to.answer = func(text []byte) error {
		if strings.Contains(string(text), `"image":"2"`) {
			tries++
			return fmt.Errorf("%w: 400", ErrRefused)
		}
		return nil
	}
	s := started(t, h, to, fast(l))
	add(t, h, numbers(0, 5)...)
	to.want(t, []string{"0", "1", "3", "4"})
	flushed(t, s)
	if tries != 3 || l.count("was refused 3 times and is dropped") != 1 {
		t.Errorf("got %d tries, %q, want 3 and that it is told", tries, l)
	}
}

// TestUnsendable: a record that JSON cannot hold is dropped, and the others are not.
func TestUnsendable(t *testing.T) {
	h, l, to := opened(t), &log{}, &made{}
	s := started(t, h, to, fast(l))
	odd := record("odd")
	odd.Score = math.Inf(1)
	a, b := record("a"), record("b")
	if err := h.Add(t.Context(), &a, &odd, &b); err != nil {
		t.Fatal(err)
	}
	to.want(t, []string{"a", "b"})
	flushed(t, s)
	if l.count("the verdict on odd is dropped") != 1 {
		t.Errorf("got %q, want that it is told", l)
	}
}

// TestFull: of more messages than may wait the oldest are dropped, and counted.
func TestFull(t *testing.T) {
	h, l := opened(t), &log{}
	var mu sync.Mutex
	broken := true
	to := &made{}
	to.answer = func([]byte) error {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			return errors.New("out of order")
		}
		return nil
	}
	opt := fast(l)
	opt.Most, opt.First, opt.Longest = 10, time.Hour, time.Hour
	s := started(t, h, to, opt)
	add(t, h, numbers(0, 25)...)
	testmain.Wait(t, "failure", func() bool { return l.count("out of order") > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if waiting, err := s.Flush(ctx); err != nil || waiting != 10 {
		t.Errorf("got %d, %v, want 10 that wait", waiting, err)
	}
	mu.Lock()
	broken = false
	mu.Unlock()
	flushed(t, s)
	to.want(t, numbers(15, 25))
	var dropped int
	for _, text := range l.texts {
		var n int
		if fmt.Sscanf(text, "made: %d verdicts are dropped", &n); n > 0 {
			dropped += n
		}
	}
	if dropped != 15 {
		t.Errorf("got %d, want 15 dropped: %q", dropped, l)
	}
}

// TestTwoSenders: of two that have the same destination and source one sends, and when it ends the other.
func TestTwoSenders(t *testing.T) {
	h := opened(t)
	first, second := &made{}, &made{}
	s := started(t, h, first, fast(&log{}))
	add(t, h, "a")
	flushed(t, s)
	started(t, h, second, fast(&log{}))
	add(t, h, "b")
	flushed(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	add(t, h, "c")
	second.want(t, []string{"c"})
	first.want(t, []string{"a", "b"})
}

// TestCloseAll: what cannot be sent within the time is told.
func TestCloseAll(t *testing.T) {
	h := opened(t)
	broken, whole := &made{answer: func([]byte) error { return errors.New("out of order") }}, &made{}
	first, err := Start(t.Context(), h, source, broken, fast(&log{}))
	if err != nil {
		t.Fatal(err)
	}
	r := record("x")
	r.Source = "image"
	second, err := Start(t.Context(), h, r.Source, whole, fast(&log{}))
	if err != nil {
		t.Fatal(err)
	}
	add(t, h, "a", "b")
	if err := h.Add(t.Context(), &r); err != nil {
		t.Fatal(err)
	}
	left, err := CloseAll([]*Sender{first, second}, 200*time.Millisecond)
	if want := []string{"made: 2 verdicts in the history still to send; the next call does"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("got %q, %v, want %q", left, err, want)
	}
	whole.want(t, []string{"x"})
}

// TestMessage: a message has what the record has, names beyond UTF-8 too.
func TestMessage(t *testing.T) {
	p := 0.5
	r := record("/in/a\xff.png")
	r.ID, r.Time, r.Verdict, r.PValue, r.Moved = 7, time.UnixMicro(1_700_000_000_123_456), history.Anomalous, &p, "/bad/a\xff.png"
	r.Width, r.Height, r.Regions, r.Warnings = 10, 20, []metric.Region{{X: 1, Y: 2, Width: 3, Height: 4, Area: 5, Peak: 0.5, Mean: 0.25}}, []string{"dark"}
	broken := record("b.png")
	broken.ID, broken.Time, broken.Verdict, broken.Score, broken.Threshold, broken.Error = 8, time.UnixMicro(0), history.Broken, 0, 0, "no picture"
	for _, c := range []struct {
		record *history.Record
		want   string
	}{
		{&r, `{"schema":1,"id":"f00-7","record":7,"time":"2023-11-14T22:13:20.123456Z","source":"watch:/line","verdict":"anomalous","image":"/in/a\ufffd.png",` +
			`"sha256":"ab","model":"screw","model_sha256":"cd","score":0.1,"normalised":0.3333333333333333,"anomalous":true,"threshold":0.2,"pixel_threshold":0,` +
			`"provisional":false,"exact":false,"p_value":0.5,"p_value_bound":false,"width":10,"height":20,` +
			`"regions":[{"x":1,"y":2,"width":3,"height":4,"area":5,"peak":0.5,"mean":0.25}],"warnings":["dark"],"moved":"/bad/a\ufffd.png",` +
			`"image_base64":"L2luL2H/LnBuZw==","moved_base64":"L2JhZC9h/y5wbmc="}`},
		{&broken, `{"schema":1,"id":"f00-8","record":8,"time":"1970-01-01T00:00:00.000000Z","source":"watch:/line","verdict":"broken","image":"b.png",` +
			`"sha256":"ab","model":"screw","model_sha256":"cd","error":"no picture"}`},
	} {
		got, err := pack("f00", c.record)
		if err != nil || string(got.JSON) != c.want || got.ID != fmt.Sprintf("f00-%d", c.record.ID) {
			t.Errorf("got %s, %s, %v, want %s", got.ID, got.JSON, err, c.want)
		}
	}
}
