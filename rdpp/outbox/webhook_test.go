package outbox

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rdpp/rdpp/setting"
	"rdpp/rdpp/testmain"
)

// TestSign is about what other implementations of Standard Webhooks compute.
func TestSign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	secret, err := ReadSecret(path)
	if err != nil {
		t.Fatal(err)
	}
	got := Sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestReadSecret(t *testing.T) {
	for _, c := range []struct{ text, want, problem string }{
		{"0123456789abcdef\n", "0123456789abcdef", ""}, {"\ufeff0123456789abcdef", "0123456789abcdef", ""},
		{"whsec_MDEyMzQ1Njc4OWFiY2RlZg==", "0123456789abcdef", ""},
		{"short\n", "", "guessed easily"}, {"", "", "guessed easily"}, {"whsec_MDE=", "", "guessed easily"}, {"whsec_no base", "", "not base64"},
		{"0123456789abcdef\n0123456789abcdef\n", "", "several lines"},
	} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadSecret(path)
		if string(got) != c.want || (err == nil) != (c.problem == "") || err != nil && !(strings.Contains(err.Error(), c.problem) && strings.Contains(err.Error(), path)) {
			t.Errorf("%q: got %q, %v, want %q, %q", c.text, got, err, c.want, c.problem)
		}
	}
}

func TestNewWebhook(t *testing.T) {
	for address, want := range map[string]string{
		"http://host/path?token=1": "", "https://host:8443/": "", "ftp://host/": "use http", "host": "use http", "http://": "use http", "http://h/#x": "use http",
		"https://user:word@host/": "leave out user and password", "http://user:word@host:x/": "no URL",
	} {
		w, err := NewWebhook(address, nil)
		wrong := (*setting.Error)(nil)
		if want == "" && err != nil || want != "" && (!errors.As(err, &wrong) || wrong.Field != "webhook" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), ":word")) {
			t.Errorf("%s: got %v, want %q", address, err, want)
		}
		if err == nil && (strings.Contains(w.String(), "path") || strings.Contains(w.String()+w.Key(), "token")) {
			t.Errorf("%s: got %s, %s, want neither path nor token", address, w, w.Key())
		}
	}
	first, _ := NewWebhook("http://host/a", nil)
	second, _ := NewWebhook("http://host/b", nil)
	if first.Key() == second.Key() {
		t.Error("got one key for two addresses")
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{"0": 0, "7": 7 * time.Second, "Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second,
		"Fri, 02 Jan 2026 03:04:00 GMT": 0, "": -1, "-1": -1, "soon": -1, "99999999999999999999": -1} {
		after, ok := retryAfter(text, now)
		if ok != (want >= 0) || ok && after != want {
			t.Errorf("%q: got %v, %v, want %v", text, after, ok, want)
		}
	}
}

// TestWebhook: whatever a server does, dying included, all messages arrive, signed, in their order.
func TestWebhook(t *testing.T) {
	h, l, secret := opened(t), &log{}, []byte("0123456789abcdef")
	var mu sync.Mutex
	var got arrived
	calls, whole := 0, false
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		at, err := strconv.ParseInt(r.Header.Get("Webhook-Timestamp"), 10, 64)
		if err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" ||
			r.Header.Get("Webhook-Signature") != Sign(secret, r.Header.Get("Webhook-Id"), time.Unix(at, 0), body) ||
			!strings.Contains(string(body), `"id":"`+r.Header.Get("Webhook-Id")+`"`) {
			t.Errorf("got %s with %v", body, r.Header)
		}
		mu.Lock()
		calls++
		n := calls
		if whole {
			n = 0
		}
		mu.Unlock()
		switch n % 12 {
		case 3:
			w.WriteHeader(http.StatusInternalServerError)
			return
		case 4:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case 6:
			panic(http.ErrAbortHandler)
		case 8: // the answer is lost
			if err := got.take(body); err != nil {
				t.Error(err)
			}
			panic(http.ErrAbortHandler)
		case 10: // does not answer in time
			<-r.Context().Done()
			return
		case 11:
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
			return
		}
		if err := got.take(body); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	server := httptest.NewUnstartedServer(handler)
	server.Start()
	address := server.Listener.Addr().String()
	w, err := NewWebhook("http://"+address+"/verdicts", &WebhookOptions{Secret: secret, Timeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s := started(t, h, w, fast(l))
	add(t, h, numbers(0, 40)...)
	testmain.Wait(t, "first messages", func() bool { return len(got.list()) > 20 })
	server.CloseClientConnections()
	server.Close()
	add(t, h, numbers(40, 50)...)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: handler}}
	server.Start()
	defer server.Close()
	add(t, h, numbers(50, 60)...)
	got.want(t, numbers(0, 60))
	mu.Lock()
	whole = true
	mu.Unlock()
	flushed(t, s)
	if got.twice == 0 {
		t.Error("got no message twice, want those whose answers were lost")
	}
	if strings.Contains(l.String(), "/verdicts") {
		t.Errorf("got %q, want no path, which may be secret", l)
	}
}

// TestWebhookAnswers: which answers mean what.
func TestWebhookAnswers(t *testing.T) {
	var status int
	var header map[string]string
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for key, value := range header {
			w.Header().Set(key, value)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	defer server.Close()
	w, err := NewWebhook(server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	plain := map[string]string{"Content-Type": "text/plain"}
	for _, c := range []struct {
		status  int
		header  map[string]string
		body    string
		want    string // "": taken
		refused bool
		after   time.Duration
	}{
		{status: 200}, {status: 202, body: "thanks"}, {status: 204},
		{status: 400, header: plain, body: "no such line\nmore", want: `it refuses the message: 400 Bad Request: "no such line"`, refused: true},
		{status: 422, want: "422", refused: true}, {status: 413, want: "413", refused: true},
		{status: 401, header: plain, body: "\x1b[2Jno", want: `401 Unauthorized: "\x1b[2Jno"`}, {status: 404, want: "404"}, {status: 410, want: "410"}, {status: 500, header: map[string]string{"Content-Type": "text/html"}, body: "<p>", want: "it answers 500 Internal Server Error"},
		{status: 429, header: map[string]string{"Retry-After": "9"}, want: "429", after: 9 * time.Second},
		{status: 308, header: map[string]string{"Location": "/x"}, want: "redirections are not followed"},
	} {
		status, header, body = c.status, c.header, c.body
		taken, err := w.Send(t.Context(), []Packed{{ID: "a", JSON: []byte("{}")}})
		if c.want == "" {
			if taken != 1 || err != nil {
				t.Errorf("%d: got %d, %v, want it to be taken", c.status, taken, err)
			}
			continue
		}
		later := &Later{}
		if errors.As(err, &later); taken != 0 || err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrRefused) != c.refused || later.After != c.after {
			t.Errorf("%d: got %d, %v, after %v, want %q", c.status, taken, err, later.After, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Send(ctx, []Packed{{ID: "a", JSON: []byte("{}")}}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// FuzzParseSecret: what is taken is long enough, and so is what is written as other programs write it.
func FuzzParseSecret(f *testing.F) {
	for _, text := range []string{"0123456789abcdef\n", "whsec_MDEyMzQ1Njc4OWFiY2RlZg==", "whsec_", "a\nb"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		secret, err := parseSecret(data)
		if err != nil {
			return
		}
		again, err := parseSecret([]byte("whsec_" + base64.StdEncoding.EncodeToString(secret)))
		if len(secret) < leastSecret || err != nil || !bytes.Equal(again, secret) {
			t.Errorf("%q: got %q, then %q, %v", data, secret, again, err)
		}
	})
}

// FuzzNewWebhook: no address that is taken has a password, and none is told with what may be secret.
func FuzzNewWebhook(f *testing.F) {
	for _, address := range []string{"http://host/path?token=1", "https://user:word@host/", "http://[::1]:8080", "http://%zz"} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		w, err := NewWebhook(address, nil)
		if err != nil {
			return
		}
		if u, err := url.Parse(w.address); err != nil || u.User != nil || u.Hostname() == "" || w.String() != "webhook "+u.Host {
			t.Errorf("%q: got %q, %s, %v", address, w.address, w, err)
		}
	})
}

// FuzzRetryAfter: no header makes the wait negative.
func FuzzRetryAfter(f *testing.F) {
	for _, text := range []string{"1", "Fri, 02 Jan 2026 03:04:15 GMT", "x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if after, ok := retryAfter(text, time.Now()); ok && after < 0 {
			t.Errorf("%q: got %v", text, after)
		}
	})
}

// A receiver computes the signature of the body as it came, with Webhook-Id and Webhook-Timestamp, and compares it with
// Webhook-Signature.
func ExampleSign() {
	secret, body := []byte("0123456789abcdef"), []byte(`{"schema":1}`)
	fmt.Println(Sign(secret, "5f0c-1", time.Unix(1700000000, 0), body))
	// Output: v1,fk+JWEvxbhmBKFe63rrLytKrhqslCwIC+Law2rnjvW8=
}
