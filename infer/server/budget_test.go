package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What is left for whom, of a budget of 64 kB: requests of up to 64 bytes and pictures of up to 1 kB are small.
func TestBudget(t *testing.T) {
	for _, c := range []struct {
		what               string
		requests, pictures int64 // held already
		n, held            int64 // more, for a request that holds held bytes
		picture            bool
		want               bool
	}{
		{what: "a large request", n: 32 << 10, want: true},
		{what: "a request of more than half", n: 32<<10 + 1},
		{what: "a second large one", requests: 32 << 10, n: 65},
		{what: "a small one then", requests: 32 << 10, n: 64, want: true},
		{what: "one that grows out of being small", requests: 32 << 10, n: 32, held: 33},
		{what: "a large picture", n: 48 << 10, picture: true, want: true},
		{what: "a larger one", n: 48<<10 + 1, picture: true},
		{what: "a large one beside requests", requests: 32 << 10, n: 16<<10 + 1, picture: true},
		{what: "a small one beside both", requests: 32 << 10, pictures: 16 << 10, n: 1 << 10, picture: true, want: true},
		{what: "a large request beside a picture", pictures: 48 << 10, n: 8 << 10, want: true},
		{what: "a larger request beside a picture", pictures: 48 << 10, n: 8<<10 + 1},
		{what: "a small one where all is full", requests: 16 << 10, pictures: 48 << 10, n: 1},
	} {
		b := budget{limit: 64 << 10, requests: c.requests, pictures: c.pictures}
		got := false
		if c.picture {
			got = b.tryPicture(c.n) == nil
		} else {
			got = b.take(c.n, c.held)
		}
		used, refused := b.now()
		want := c.requests + c.pictures
		if c.want {
			want += c.n
		}
		if got != c.want || used != want || (refused == 1) != (!c.want && !c.picture) {
			t.Errorf("%s: got %v, %d bytes held, %d refused, want %v and %d", c.what, got, used, refused, c.want, want)
		}
	}
}

// Pictures wait for room, and no longer than they may.
func TestBudgetWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget{limit: 64 << 10, pictures: 40 << 10}
		go func() {
			time.Sleep(time.Second)
			b.done(1 << 10)
			time.Sleep(time.Second)
			b.done(39 << 10)
		}()
		begin := time.Now()
		if err := b.wait(t.Context(), 40<<10); err != nil || time.Since(begin) != 2*time.Second {
			t.Errorf("got %v after %v, want room after 2 s", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.wait(ctx, 40<<10); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of the time", err)
		}
	})
}

// A picture that can have no room beside what its own request holds is refused; it would wait for itself.
func TestFits(t *testing.T) {
	s := &Server{memory: budget{limit: 64 << 10}, slots: newSlots(2)}
	x := &exchange{}
	if err := s.hold(x, 8<<10); err != nil {
		t.Fatal(err)
	}
	leave, err := s.room(t.Context(), x, 40<<10)
	if err != nil {
		t.Fatalf("got %v, want room for all that is left", err)
	}
	leave()
	if _, err := s.room(t.Context(), x, 40<<10+1); err == nil || explain(err, httptest.NewRequest("POST", "/", nil)).status != http.StatusRequestEntityTooLarge {
		t.Errorf("got %v, want it refused as too large", err)
	}
}

// Small work has places that large work never takes.
func TestSlots(t *testing.T) {
	s := &Server{memory: budget{limit: 64 << 10}, slots: newSlots(2)}
	now, cancel := context.WithCancel(t.Context())
	cancel()
	const small, large = 1 << 10, 1<<10 + 1
	leave, err := s.slot(t.Context(), large)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.slot(now, large); err == nil {
		t.Error("got a second place for large work, want one less than processors")
	}
	for range 2 {
		if _, err := s.slot(t.Context(), small); err != nil {
			t.Errorf("got %v, want a place for small work", err)
		}
	}
	leave()
	if _, err := s.slot(t.Context(), large); err != nil {
		t.Errorf("got %v, want the place that was left", err)
	}
}

// A body's memory grows with what arrives, is counted before, and ends with as much room as is needed.
func TestReadAll(t *testing.T) {
	for _, c := range []struct {
		arrive   int
		expected int64
		held     int64 // afterwards
		most     int64 // at once
	}{
		{arrive: 3, expected: 60_000_000, held: 4096, most: 4096},
		{arrive: 3, expected: 3, held: 4, most: 4},
		{arrive: 100_000, expected: 100_000, held: 100_001, most: 100_001 + 65_536},
		{arrive: 100_000, expected: -1, held: 131_072, most: 131_072 + 65_536},
		{arrive: 0, expected: 0, held: 1, most: 1},
	} {
		s := &Server{memory: budget{limit: 1 << 30}}
		x := &exchange{}
		b := &body{most: 64 << 20, server: s, exchange: x}
		peak := int64(0)
		from := io.TeeReader(bytes.NewReader(make([]byte, c.arrive)), writerFunc(func() { peak = max(peak, x.held) }))
		data, err := b.readAll(from, c.expected)
		if err != nil || len(data) != c.arrive || x.held != c.held || int64(cap(data)) != c.held || peak > c.most {
			t.Errorf("%d bytes of %d: got %d, %v, %d held, %d at once, want %d and at most %d", c.arrive, c.expected, len(data), err, x.held, peak, c.held, c.most)
		}
		if b.release(); s.memory.requests != 0 || x.held != 0 {
			t.Errorf("%d bytes of %d: %d stay counted", c.arrive, c.expected, x.held)
		}
	}
}

// writerFunc is called for each write.
type writerFunc func()

func (f writerFunc) Write(p []byte) (int, error) { f(); return len(p), nil }

// A form's memory is that of its files: what stands before and between them is cut off.
func TestFormHeaders(t *testing.T) {
	part := func(header string) string {
		return "--x\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a.png\"\r\n" + header + "\r\nabc\r\n"
	}
	for what, c := range map[string]struct{ text, want string }{
		"a long header":     {part("X-A: "+strings.Repeat("a", 1<<20)+"\r\n") + "--x--\r\n", "more than 16384 bytes"},
		"a second one":      {part("") + part("X-A: "+strings.Repeat("a", 1<<20)+"\r\n") + "--x--\r\n", "more than 16384 bytes"},
		"many fields":       {part(strings.Repeat("A:\r\n", 100_000)) + "--x--\r\n", "body cannot be read"},
		"a long preamble":   {strings.Repeat("a\r\n", 100_000) + part("") + "--x--\r\n", "more than 16384 bytes"},
		"a long name":       {"--x\r\nContent-Disposition: form-data; filename=\"" + strings.Repeat("n", 2000) + "\"\r\n\r\nabc\r\n--x--\r\n", "more than 1024 bytes"},
		"a million parts":   {strings.Repeat(part(""), 5000) + "--x--\r\n", "more than 4 images"},
		"never a part":      {strings.Repeat("--x", 100_000), "body cannot be read"},
		"a million no file": {strings.Repeat("--x\r\n\r\n\r\n", 100_000), "no file"},
	} {
		s := &Server{opt: Options{MaxQueue: 4, MaxBody: 64 << 20}, memory: budget{limit: 1 << 30}}
		r := httptest.NewRequest("POST", "/", strings.NewReader(c.text))
		x := &exchange{ResponseWriter: httptest.NewRecorder()}
		b, err := s.body(x, r)
		if err == nil {
			_, err = s.readForm(b, "x")
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || explain(err, r).status/100 != 4 {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
		if x.held > 64<<10 {
			t.Errorf("%s: got %d bytes held, want at most 64 KiB", what, x.held)
		}
	}
}

// Wrong tokens from an address are told at their pace; every address has its own, and all of them take a bounded memory.
func TestGuesses(t *testing.T) {
	var g guesses
	now := time.Now()
	for i := range 20 {
		wait, ok := g.wrong("192.0.2.1:1234", now)
		want := max(0, time.Duration(i+1-freeGuesses)*guessEvery)
		if ok != (want <= guessWait) || ok && wait != want {
			t.Errorf("wrong token %d: got %v, %v, want %v", i+1, wait, ok, want)
		}
	}
	if wait, ok := g.wrong("192.0.2.2:1234", now); !ok || wait != 0 {
		t.Errorf("another address: got %v, %v, want an answer at once", wait, ok)
	}
	if wait, ok := g.wrong("192.0.2.1:1234", now.Add(time.Minute)); !ok || wait != 0 {
		t.Errorf("a minute later: got %v, %v, want an answer at once", wait, ok)
	}
	for i := range 20 { // of one network
		if wait, ok := g.wrong(fmt.Sprintf("[2001:db8::%x]:1", i), now); i == 19 && ok {
			t.Errorf("20 addresses of a network: got %v, %v, want it refused", wait, ok)
		}
	}
	for i := range 3 * maxGuessers {
		g.wrong(fmt.Sprintf("10.%d.%d.1:1", i/256, i%256), now)
	}
	if len(g.due) > maxGuessers+1 {
		t.Errorf("got %d addresses kept apart, want at most %d", len(g.due), maxGuessers+1)
	}
	if wait, ok := g.wrong("203.0.113.1:1", now.Add(time.Hour)); !ok || wait != 0 || len(g.due) > 2 {
		t.Errorf("an hour later: got %v, %v, %d addresses, want them forgotten", wait, ok, len(g.due))
	}
}

// A page of elsewhere that has let its name lead to an open address cannot change what is served.
func TestOwnHost(t *testing.T) {
	const loopback, open = "127.0.0.1", "192.0.2.1"
	const unload, predict = "/v2/repository/models/part/unload", "/v1/models/part/predict"
	for _, c := range []struct {
		local, method, path, host string
		want                      bool
	}{
		{loopback, "POST", unload, "localhost:8080", true},
		{loopback, "POST", unload, "127.0.0.1", true},
		{loopback, "POST", unload, "LOCALHOST.", true},
		{loopback, "GET", "/v1/models", "example.org", false},
		{loopback, "POST", unload, "192.0.2.1", false},
		{open, "POST", unload, "example.org", false},
		{open, "POST", unload, "example.org:8080", false},
		{open, "POST", unload, "localhost.example.org", false},
		{open, "POST", "/v2/repository/models/part/load", "example.org", false},
		{open, "PUT", unload, "example.org", false},
		{open, "POST", unload, "", false},
		{open, "POST", unload, "192.0.2.1:8080", true},
		{open, "POST", unload, "[::ffff:192.0.2.1]:8080", true},
		{open, "POST", unload, "192.0.2.2", false},
		{open, "POST", unload, "127.0.0.1:8080", true}, // a container's port
		{open, "POST", unload, "[::1]", true},
		{open, "POST", unload, "[2001:db8::1]:8080", false},
		{open, "PUT", "/v1/records/1/correction", "192.0.2.2", false},
		{"2001:db8::1", "POST", unload, "[2001:DB8:0::1]:8080", true},
		{"fe80::1", "POST", unload, "[fe80::1%eth0]:8080", true},
		{"2001:db8::1", "POST", unload, "[2001:db8::2]", false},
		{open, "POST", unload, "localhost", true},
		{open, "POST", predict, "inspection.factory", true}, // changes nothing
		{open, "GET", "/v1/models", "inspection.factory", true},
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		r.Host = c.host
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, addressOf(c.local)))
		if got := ownHost(r); got != c.want {
			t.Errorf("%s %s on %s by %q: got %v, want %v", c.method, c.path, c.local, c.host, got, c.want)
		}
	}
}
