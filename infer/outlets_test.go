package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rdpp/infer/server"
	"rdpp/rdpp/command"
	"rdpp/rdpp/outbox"
)

// receiver is a webhook's other end, which checks what it gets.
type receiver struct {
	*httptest.Server
	secret []byte

	mu       sync.Mutex
	closed   bool // answers 503
	messages []outbox.Message
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{secret: []byte("0123456789abcdef")}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.closed {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, err := io.ReadAll(q.Body)
		at, _ := strconv.ParseInt(q.Header.Get("Webhook-Timestamp"), 10, 64)
		var m outbox.Message
		if err == nil {
			err = json.Unmarshal(body, &m)
		}
		if err != nil || m.ID != q.Header.Get("Webhook-Id") || q.Header.Get("Webhook-Signature") != outbox.Sign(r.secret, m.ID, time.Unix(at, 0), body) {
			t.Errorf("got %s, %v, %v", body, q.Header, err)
		}
		r.messages = append(r.messages, m)
	}))
	t.Cleanup(r.Close)
	return r
}

// flags are those that send to it.
func (r *receiver) flags(t *testing.T) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, r.secret, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--webhook", r.URL + "/verdicts", "--webhook-secret", path}
}

// verdicts are what has come, as "verdict name".
func (r *receiver) verdicts() (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.messages {
		list = append(list, string(m.Verdict)+" "+filepath.Base(m.Image))
	}
	return list
}

// TestWatchSends: verdicts go out in their order before a call ends; what a destination does not take the next call sends.
func TestWatchSends(t *testing.T) {
	good, anomalous := testImages()
	l, r := newLine(t), newReceiver(t)
	copyImage(t, good[0], filepath.Join(l.in, "a.png"))
	copyImage(t, anomalous[0], filepath.Join(l.in, "b.png"))
	args := append(append(l.command("--once"), l.moving()...), r.flags(t)...)
	if code, _, stderr := infer(nil, args...); code != command.Anomalous {
		t.Fatalf("got code %d, stderr %q", code, stderr)
	}
	if got := r.verdicts(); !slices.Equal(got, l.records(t)) || len(got) != 2 {
		t.Errorf("got %q, want %q", got, l.records(t))
	}
	if m := r.messages[1]; m.Schema != outbox.Schema || m.Moved != filepath.Join(l.bad, "b.png") || !m.Anomalous || m.Score <= m.Threshold || len(m.Regions) == 0 {
		t.Errorf("got %+v, want what is known of b.png", m)
	}
	r.closed = true
	copyImage(t, good[1], filepath.Join(l.in, "c.png"))
	code, _, stderr := infer(nil, args...)
	if code != command.Done || !strings.Contains(stderr, "503") || !strings.Contains(stderr, "1 verdicts wait in the history; the next call sends them") {
		t.Errorf("got code %d, stderr %q, want code 0 and that it waits", code, stderr)
	}
	r.closed = false
	if code, _, stderr := infer(nil, args...); code != command.Done || strings.Contains(stderr, "webhook") {
		t.Errorf("got code %d, stderr %q", code, stderr)
	}
	if got := r.verdicts(); !slices.Equal(got, l.records(t)) || len(got) != 3 {
		t.Errorf("got %q, want %q", got, l.records(t))
	}
}

// TestImageSends: so does infer image.
func TestImageSends(t *testing.T) {
	good, anomalous := testImages()
	r := newReceiver(t)
	past := filepath.Join(t.TempDir(), "h.db")
	args := append(commandLine("image", good[0], anomalous[0], "--history", past), r.flags(t)...)
	if code, _, stderr := infer(nil, args...); code != command.Anomalous {
		t.Fatalf("got code %d, stderr %q", code, stderr)
	}
	if want := []string{"good " + filepath.Base(good[0]), "anomalous " + filepath.Base(anomalous[0])}; !slices.Equal(r.verdicts(), want) {
		t.Errorf("got %q, want %q", r.verdicts(), want)
	}
	if got := r.messages[0].Source; got != ofImage {
		t.Errorf("got source %q, want %q", got, ofImage)
	}
}

// TestServeSends: so does infer serve.
func TestServeSends(t *testing.T) {
	_, anomalous := testImages()
	r := newReceiver(t)
	s := startServe(t, append(r.flags(t), "--history", filepath.Join(t.TempDir(), "h.db"))...)
	data, err := os.ReadFile(anomalous[0])
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.Post(s.address+predictPath()+"?name=x.png", "image/png", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	s.end(t)
	if want := []string{"anomalous x.png"}; answer.StatusCode != http.StatusOK || !slices.Equal(r.verdicts(), want) || r.messages[0].Source != server.Source {
		t.Errorf("got %s, %q, want %q", answer.Status, r.verdicts(), want)
	}
}
