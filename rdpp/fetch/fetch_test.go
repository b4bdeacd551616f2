package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rdpp/rdpp/testmain"
)

// content is the file that the servers have.
var content = randomBytes(300_000)

func randomBytes(n int) []byte {
	source := rand.NewChaCha8([32]byte{1})
	data := make([]byte, n)
	source.Read(data)
	return data
}

func digest(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

// proxied is what the proxy of the environment was asked for. The environment is read once per process.
var proxied atomic.Pointer[string]

func TestMain(m *testing.M) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		address := r.URL.String()
		proxied.Store(&address)
		w.Write(content)
	}))
	os.Setenv("HTTP_PROXY", proxy.URL)
	os.Unsetenv("NO_PROXY")
	code := m.Run()
	proxy.Close()
	os.Exit(code)
}

// server answers the n-th request, counted from 0, by the n-th handler, and all later ones by the last.
func server(t *testing.T, handlers ...http.HandlerFunc) (url string, ranges func() []string) {
	t.Helper()
	var lock sync.Mutex
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lock.Lock()
		n := len(asked)
		asked = append(asked, r.Header.Get("Range"))
		lock.Unlock()
		handlers[min(n, len(handlers)-1)](w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/w.pth", func() []string {
		lock.Lock()
		defer lock.Unlock()
		return slices.Clone(asked)
	}
}

// The ways a server may behave.

func serve(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

// plain knows no ranges.
func plain(w http.ResponseWriter, _ *http.Request) { w.Write(content) }

// cut ends the connection after n of the bytes it announced.
func cut(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		w.Write(content[:n])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// stall sends n bytes and then nothing, until the client has gone.
func stall(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		w.Write(content[:n])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

func answer(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no\nsuch\x1b[2J thing", code) }
}

// partial answers 206 with any Content-Range.
func partial(contentRange string, data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", contentRange)
		w.WriteHeader(http.StatusPartialContent)
		w.Write(data)
	}
}

func flipped() []byte {
	data := slices.Clone(content)
	data[1000] ^= 1
	return data
}

// quick options make tests fast: pauses are short, and so is the patience.
func quick() Options {
	return Options{SHA256: digest(content)[:8], Tries: 3, Backoff: time.Millisecond, Stall: time.Second}
}

// wantFiles holds the folder's files equal to want, and those of the given name to have the content.
func wantFiles(t *testing.T, path string, want ...string) {
	t.Helper()
	testmain.WantFiles(t, filepath.Dir(path), want...)
	if data, err := os.ReadFile(path); slices.Contains(want, filepath.Base(path)) && !bytes.Equal(data, content) {
		t.Errorf("got %d bytes (%v), want the file's %d", len(data), err, len(content))
	}
}

func TestFile(t *testing.T) {
	all := fmt.Sprintf("bytes 0-%d/%d", len(content)-1, len(content))
	for _, c := range []struct {
		name     string
		before   []byte // the partial file, nil: none
		handlers []http.HandlerFunc
		ranges   []string // asked for
	}{
		{"at once", nil, []http.HandlerFunc{serve(content)}, []string{""}},
		{"without ranges", nil, []http.HandlerFunc{plain}, []string{""}},
		{"empty partial file", []byte{}, []http.HandlerFunc{serve(content)}, []string{""}},
		{"goes on", content[:1000], []http.HandlerFunc{serve(content)}, []string{"bytes=1000-"}},
		{"goes on without ranges", content[:1000], []http.HandlerFunc{plain}, []string{"bytes=1000-"}},
		{"complete already", content, []http.HandlerFunc{serve(content)}, []string{"bytes=300000-"}},
		{"too long", append(slices.Clone(content), 1), []http.HandlerFunc{serve(content)}, []string{"bytes=300001-", ""}},
		{"of another file", flipped()[:2000], []http.HandlerFunc{serve(content)}, []string{"bytes=2000-", ""}},
		{"cut", nil, []http.HandlerFunc{cut(1000), serve(content)}, []string{"", "bytes=1000-"}},
		{"stalls", nil, []http.HandlerFunc{stall(1000), serve(content)}, []string{"", "bytes=1000-"}},
		{"stalls at once", nil, []http.HandlerFunc{func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, serve(content)}, []string{"", ""}},
		{"corrupt once", nil, []http.HandlerFunc{serve(flipped()), serve(content)}, []string{"", ""}},
		{"500, 429, then right", nil, []http.HandlerFunc{answer(500), answer(429), serve(content)}, []string{"", "", ""}},
		{"another part than asked for", content[:1000], []http.HandlerFunc{partial(all, content), serve(content)}, []string{"bytes=1000-", ""}},
		{"part of unknown length", content[:1000], []http.HandlerFunc{partial(fmt.Sprintf("bytes 1000-%d/*", len(content)-1), content[1000:])}, []string{"bytes=1000-"}},
		{"more failures than tries, each with progress", nil, []http.HandlerFunc{cut(100), partial("bytes 100-199/300000", content[100:200]),
			partial("bytes 200-299/300000", content[200:300]), partial("bytes 300-399/300000", content[300:400]), serve(content)},
			[]string{"", "bytes=100-", "bytes=200-", "bytes=300-", "bytes=400-"}},
		{"redirect", nil, []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
			serve(content)}, []string{"", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, ranges := server(t, c.handlers...)
			path := filepath.Join(t.TempDir(), "cache", "w.pth")
			if c.before != nil {
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path+partSuffix, c.before, 0o666)); err != nil {
					t.Fatal(err)
				}
			}
			if err := File(context.Background(), url, path, quick()); err != nil {
				t.Fatal(err)
			}
			wantFiles(t, path, "w.pth")
			if got := ranges(); !slices.Equal(got, c.ranges) {
				t.Errorf("got requests for %q, want %q", got, c.ranges)
			}
		})
	}
}

func TestFileFails(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	loop := func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(content); err != nil {
				return
			}
		}
	}
	for _, c := range []struct {
		name     string
		handler  http.HandlerFunc // nil: nobody listens
		change   func(*Options)
		requests int
		want     []string
		left     []string
	}{
		{"nobody there", nil, nil, 0, []string{"refused"}, nil},
		{"not found", answer(404), nil, 1, []string{"404 Not Found"}, nil},
		{"forbidden", answer(403), nil, 1, []string{"403 Forbidden"}, nil},
		{"unknown code", answer(599), nil, 3, []string{"599; given up after 3 attempts"}, nil},
		{"always 500", answer(500), nil, 3, []string{"500 Internal Server Error; given up after 3 attempts"}, nil},
		{"always cut", cut(1000), func(o *Options) { o.Tries = 2 }, 2, []string{"ended early, after 1000 bytes"}, []string{"w.pth.part"}},
		{"always stalls", stall(0), func(o *Options) { o.Stall = 20 * time.Millisecond }, 3, []string{"the server sends nothing for 20ms"}, nil},
		{"always corrupt", serve(flipped()), nil, 2, []string{"begins with " + digest(flipped())[:8] + ", not with " + digest(content)[:8]}, nil},
		{"wrong digest of full length", serve(content), func(o *Options) { o.SHA256 = strings.Repeat("0", 70) }, 2, []string{digest(content)}, nil},
		{"redirects for ever", loop, nil, 10, []string{"redirected 10 times"}, nil},
		{"too long", serve(content), func(o *Options) { o.MaxBytes = 1000 }, 1, []string{"300000 bytes, more than the 1000"}, nil},
		{"endless", endless, func(o *Options) { o.MaxBytes = 1_000_000 }, 1, []string{"more than the 1000000 bytes"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, ranges := gone.URL, func() []string { return nil }
			if c.handler != nil {
				url, ranges = server(t, c.handler)
			}
			opt := quick()
			if c.change != nil {
				c.change(&opt)
			}
			path := filepath.Join(t.TempDir(), "w.pth")
			err := File(context.Background(), url, path, opt)
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range append(c.want, "fetch: "+url) {
				if !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\x1b") {
					t.Errorf("got error %q, want one line with %q", err, want)
				}
			}
			if got := len(ranges()); got != c.requests {
				t.Errorf("got %d requests, want %d", got, c.requests)
			}
			wantFiles(t, path, c.left...)
		})
	}
}

func TestFileRefusesAddresses(t *testing.T) {
	for _, address := range []string{"", "w.pth", "ftp://host/w.pth", "file:///etc/passwd", "http://", "http://a b/"} {
		if err := File(context.Background(), address, filepath.Join(t.TempDir(), "w"), quick()); err == nil || !strings.Contains(err.Error(), "no http or https address") {
			t.Errorf("%q: got error %v, want one about the address", address, err)
		}
	}
}

// A file that is there is not asked for again.
func TestFileIsThere(t *testing.T) {
	url, ranges := server(t, serve(content))
	path := filepath.Join(t.TempDir(), "w.pth")
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := File(context.Background(), url, path, quick()); err != nil || len(ranges()) != 0 {
		t.Errorf("got error %v after %d requests, want none", err, len(ranges()))
	}
	wantFiles(t, path, "w.pth")
}

// An https server must not hand over to http: the few digits of a SHA-256 keep accidents away, not an attacker.
func TestRedirectToHTTP(t *testing.T) {
	url, ranges := server(t, serve(content))
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, url, http.StatusFound) }))
	defer secure.Close()
	opt := quick()
	opt.Client = newClient()
	opt.Client.Transport = secure.Client().Transport
	path := filepath.Join(t.TempDir(), "w.pth")
	err := File(context.Background(), secure.URL, path, opt)
	if err == nil || !strings.Contains(err.Error(), "redirected from https to "+url) || len(ranges()) != 0 {
		t.Errorf("got error %v after %d requests, want a refusal of %s", err, len(ranges()), url)
	}
}

func TestProxy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.pth")
	const address = "http://weights.invalid/w.pth"
	if err := File(context.Background(), address, path, quick()); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, path, "w.pth")
	if got := proxied.Load(); got == nil || *got != address {
		t.Errorf("the proxy was asked for %v, want %s", got, address)
	}
}

// What arrived before an interruption stays, and the next call goes on from there.
func TestInterrupted(t *testing.T) {
	url, ranges := server(t, stall(1000), serve(content))
	path := filepath.Join(t.TempDir(), "w.pth")
	ctx, cancel := context.WithCancel(context.Background())
	opt := quick()
	opt.Stall = time.Hour
	opt.OnProgress = func(done, total int64) {
		if done > 0 {
			cancel()
		}
	}
	if err := File(ctx, url, path, opt); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	wantFiles(t, path, "w.pth.part")
	if err := File(context.Background(), url, path, quick()); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, path, "w.pth")
	if got, want := ranges(), []string{"", "bytes=1000-"}; !slices.Equal(got, want) {
		t.Errorf("got requests for %q, want %q", got, want)
	}
}

// An interruption ends the pause between attempts.
func TestInterruptedPause(t *testing.T) {
	url, _ := server(t, answer(500))
	ctx, cancel := context.WithCancel(context.Background())
	opt := quick()
	opt.Backoff = time.Hour
	opt.OnRetry = func(error, time.Duration) { cancel() }
	if err := File(ctx, url, filepath.Join(t.TempDir(), "w.pth"), opt); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
}

func TestBackoff(t *testing.T) {
	url, _ := server(t, answer(503))
	var pauses []time.Duration
	opt := quick()
	opt.Tries = 5
	opt.OnRetry = func(reason error, pause time.Duration) {
		if !strings.Contains(reason.Error(), "503") {
			t.Errorf("got reason %v, want the server's answer", reason)
		}
		pauses = append(pauses, pause)
	}
	File(context.Background(), url, filepath.Join(t.TempDir(), "w.pth"), opt)
	want := []time.Duration{time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond, 8 * time.Millisecond}
	if !slices.Equal(pauses, want) {
		t.Errorf("got pauses %v, want %v", pauses, want)
	}
}

// TestTogether asks for one file many times at once: one download, and everybody has the file.
func TestTogether(t *testing.T) {
	const askers = 8
	waiting := make(chan struct{}, askers)
	url, ranges := server(t, func(w http.ResponseWriter, r *http.Request) {
		for range askers - 1 { // the others have found it locked before a byte is sent
			<-waiting
		}
		serve(content)(w, r)
	})
	path := filepath.Join(t.TempDir(), "w.pth")
	var all sync.WaitGroup
	for range askers {
		all.Go(func() {
			opt := quick()
			opt.Stall = time.Minute
			opt.OnWait = func() { waiting <- struct{}{} }
			if err := File(context.Background(), url, path, opt); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	wantFiles(t, path, "w.pth")
	if got := len(ranges()); got != 1 {
		t.Errorf("got %d requests, want 1", got)
	}
}

func TestProgress(t *testing.T) {
	url, _ := server(t, serve(content))
	var last, whole int64
	opt := quick()
	opt.OnProgress = func(done, total int64) {
		if done < last {
			t.Errorf("got %d bytes after %d", done, last)
		}
		last, whole = done, total
	}
	if err := File(context.Background(), url, filepath.Join(t.TempDir(), "w.pth"), opt); err != nil {
		t.Fatal(err)
	}
	if want := int64(len(content)); last != want || whole != want {
		t.Errorf("got %d of %d bytes at the end, want %d", last, whole, want)
	}
}

// A disk that cannot be written to is no reason to ask the server again.
func TestUnwritable(t *testing.T) {
	url, ranges := server(t, serve(content))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := File(context.Background(), url, filepath.Join(file, "w.pth"), quick()); err == nil || len(ranges()) != 0 {
		t.Errorf("below a file: got error %v after %d requests, want an error and none", err, len(ranges()))
	}
	part := filepath.Join(t.TempDir(), "w.pth"+partSuffix)
	if err := os.WriteFile(part, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	readOnly, err := os.Open(part)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	d := &download{part: readOnly, opt: quick(), total: -1}
	if err := d.copy(bytes.NewReader(content), time.NewTimer(time.Hour)); !errors.As(err, new(permanent)) {
		t.Errorf("got error %v, want a permanent one", err)
	}
}

func TestUnreachable(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&net.DNSError{Err: "no such host", IsNotFound: true}, true},
		{&net.DNSError{Err: "timeout", IsTimeout: true}, false},
		{io.ErrUnexpectedEOF, false},
		{errStalled, false},
	} {
		if got := unreachable(fmt.Errorf("wrapped: %w", c.err)); got != c.want {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
	}
}

func TestParseContentRange(t *testing.T) {
	for _, c := range []struct {
		text         string
		start, total int64
		ok           bool
	}{
		{"bytes 0-0/1", 0, 1, true},
		{"bytes 5-9/10", 5, 10, true},
		{"bytes 5-9/*", 5, -1, true},
		{"bytes 5-10/10", 0, 0, false},
		{"bytes 9-5/10", 0, 0, false},
		{"bytes -5-9/10", 0, 0, false},
		{"bytes +5-9/10", 0, 0, false},
		{"bytes */10", 0, 0, false},
		{"bytes 0-99999999999999999999/*", 0, 0, false},
		{"5-9/10", 0, 0, false},
		{"", 0, 0, false},
	} {
		if start, total, ok := parseContentRange(c.text); start != c.start || total != c.total || ok != c.ok {
			t.Errorf("%q: got %d, %d, %v, want %d, %d, %v", c.text, start, total, ok, c.start, c.total, c.ok)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 5-9/10")
	f.Add("bytes 5-9/*")
	f.Fuzz(func(t *testing.T, text string) {
		start, total, ok := parseContentRange(text)
		if ok && (start < 0 || total < -1 || total >= 0 && start >= total) {
			t.Errorf("%q: got %d of %d", text, start, total)
		}
	})
}
