package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rdpp/infer/server"
)

var discard = slog.New(slog.DiscardHandler)

const testToken = "0123456789abcdef0123456789abcdef"

// Without a token nothing but health answers.
func TestTokens(t *testing.T) {
	v := start(t, server.Options{Tokens: []string{"another token, of someone else", testToken}})
	addresses := []struct {
		method, path string
		open         bool
	}{
		{"GET", "/v2/health/live", true}, {"GET", "/v2/health/ready", true}, {"GET", "/healthz", true}, {"GET", "/readyz", true},
		{"GET", "/", false}, {"GET", "/page.js", false}, {"GET", "/page.css", false}, {"GET", "/icon.svg", false},
		{"GET", "/metrics", false}, {"GET", "/openapi.json", false}, {"PUT", "/v1/records/1/correction", false}, {"GET", "/v1/models", false}, {"GET", "/v1/models/part", false}, {"POST", predictPath, false},
		{"GET", "/v2", false}, {"GET", "/v2/models/part", false}, {"GET", "/v2/models/part/ready", false}, {"POST", inferPath, false},
		{"POST", "/v2/repository/index", false}, {"POST", "/v2/repository/models/part/load", false},
		{"POST", "/v2/repository/models/part/unload", false}, {"GET", "/nothing", false}, {"DELETE", "/v2", false},
	}
	for _, header := range [][]string{
		nil, {"Authorization", "Bearer "}, {"Authorization", "Bearer " + testToken[:31]}, {"Authorization", "Bearer " + testToken + "0"},
		{"Authorization", testToken}, {"Authorization", "Digest " + testToken},
	} {
		for _, c := range addresses {
			a := v.ask(t, c.method, c.path, pictures[0], header...)
			if c.open && a.status != http.StatusOK || !c.open && (a.status != http.StatusUnauthorized || a.reason() == "" || a.header.Get("WWW-Authenticate") == "") {
				t.Errorf("%s %s with %q: got status %d, %s", c.method, c.path, header, a.status, a.body)
			}
		}
	}
	request, err := http.NewRequest("GET", v.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth("anyone", testToken)
	for _, header := range []string{"Bearer " + testToken, "bearer  " + testToken, request.Header.Get("Authorization")} {
		if a := v.ask(t, "POST", predictPath, pictures[0], "Authorization", header); a.status != http.StatusOK {
			t.Errorf("%q: got status %d, %s, want 200", header, a.status, a.body)
		}
	}
	if strings.Contains(v.logs.String(), testToken) {
		t.Error("the log shows a token")
	}
}

func TestReadTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	for content, want := range map[string]int{testToken: 1, "\n " + testToken + " \r\n\nsecond token of 2\n": 2, "": 0, "\n\n": 0, "short\n": 0,
		"\xef\xbb\xbf" + testToken + "\r\n": 1, "\xef\xbb\xbf": 0, utf16(testToken): 1, "0123456789\x00abcdef": 0, "0123456789\xffabcdef": 0,
		"\xef\xbb\xbf\xef\xbb\xbf" + testToken: 0, testToken + "\u200b": 0,
		"# the tokens of the line\n" + testToken: 0, `"` + testToken + `"`: 0, "'" + testToken + "'": 0} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := server.ReadTokens(path)
		if len(got) != want || (err == nil) != (want > 0) || want > 0 && got[0] != testToken || err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%q: got %d tokens, %v, want %d", content, len(got), err, want)
		}
	}
}

// utf16 is text as some shells of Windows write it to files.
func utf16(text string) string {
	file := "\xff\xfe"
	for _, c := range text {
		file += string(c) + "\x00"
	}
	return file
}

// Wrong tokens are slowed down; whoever has a right one, from the same address too, is not.
func TestGuessing(t *testing.T) {
	v := start(t, server.Options{Tokens: []string{testToken}})
	statuses := map[int]int{}
	var mu sync.Mutex
	var asking sync.WaitGroup
	begin := time.Now()
	for i := range 40 {
		asking.Go(func() {
			a, err := v.try("GET", "/v1/models", nil, "Authorization", fmt.Sprintf("Bearer guess number %032d", i))
			if err != nil {
				t.Error(err)
				return
			}
			if a.status == http.StatusTooManyRequests && a.header.Get("Retry-After") == "" {
				t.Errorf("got header %v, want when to try again", a.header)
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
		})
	}
	eventually(t, "guesses are refused", func() bool { mu.Lock(); defer mu.Unlock(); return statuses[http.StatusTooManyRequests] > 0 })
	for range 20 {
		if a := v.ask(t, "GET", "/v1/models", nil, "Authorization", "Bearer "+testToken); a.status != http.StatusOK {
			t.Errorf("a right token meanwhile: got status %d, %s, want 200", a.status, a.body)
		}
	}
	if a := v.ask(t, "GET", "/v1/models", nil); a.status != http.StatusUnauthorized {
		t.Errorf("no token: got status %d, %s, want 401", a.status, a.body)
	}
	mu.Lock()
	early := statuses[http.StatusUnauthorized]
	mu.Unlock()
	if passed := time.Since(begin); early > 5+int(passed/time.Second) {
		t.Errorf("got %d guesses told in %v, want 5 and one a second", early, passed)
	}
	asking.Wait()
	if statuses[http.StatusUnauthorized]+statuses[http.StatusTooManyRequests] != 40 || statuses[http.StatusTooManyRequests] < 20 {
		t.Errorf("got %v, want most of 40 guesses refused", statuses)
	}
}

// The page needs nothing from elsewhere and may do nothing else.
func TestPage(t *testing.T) {
	v := start(t, server.Options{})
	for path, kind := range map[string]string{"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript", "/icon.svg": "image/svg+xml"} {
		a := v.ask(t, "GET", path, nil)
		policy := a.header.Get("Content-Security-Policy")
		if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Content-Type"), kind) || !strings.HasPrefix(policy, "default-src 'none'") ||
			strings.Contains(policy, "unsafe") || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got status %d, header %v", path, a.status, a.header)
		}
		outside := bytes.ReplaceAll(a.body, []byte("http://www.w3.org/2000/svg"), nil)
		if bytes.Contains(outside, []byte("http:")) || bytes.Contains(outside, []byte("https:")) || bytes.Contains(outside, []byte(`"//`)) {
			t.Errorf("%s: it names an address elsewhere", path)
		}
	}
}

// One line a request, which says what happened; figures that agree.
func TestLogAndMetrics(t *testing.T) {
	v := start(t, server.Options{})
	v.ask(t, "POST", predictPath, pictures[0])
	if a, err := v.try("POST", predictPath, io.MultiReader(bytes.NewReader(pictures[1]))); err != nil || a.status != http.StatusOK { // in chunks, without its length
		t.Fatalf("in chunks: got %v, %v", a, err)
	}
	v.ask(t, "POST", predictPath, []byte("hello"))
	v.ask(t, "BREW", "/coffee", nil)
	for line, want := range map[string]float64{
		`rdpp_requests_total{code="200",method="POST",route="/v1/models/{model}/predict"}`: 2,
		`rdpp_requests_total{code="400",method="POST",route="/v1/models/{model}/predict"}`: 1,
		`rdpp_requests_total{code="404",method="other",route="none"}`:                      1,
		`rdpp_images_total{model="part"}`:                                                  2,
		`rdpp_anomalies_total{model="part"}`:                                               1, // the threshold lies between the two
		`rdpp_batch_images_sum{model="part"}`:                                              2,
		`rdpp_queue_wait_seconds_count{model="part"}`:                                      2,
		`rdpp_queue_images{model="part"}`:                                                  0,
		`rdpp_model_version{model="part"}`:                                                 1,
		`rdpp_device_memory_bytes{device="cpu",kind="used"}`:                               0,
		`rdpp_request_seconds_count{route="/v1/models/{model}/predict"}`:                   3,
	} {
		if got := v.metric(t, line); got != want {
			t.Errorf("%s: got %v, want %v", line, got, want)
		}
	}
	var found int
	for line := range strings.Lines(v.logs.String()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		if record["path"] != predictPath {
			continue
		}
		found++
		sizes := []int{len(pictures[0]), len(pictures[1]), len("hello")}
		want := map[string]any{"msg": "request", "method": "POST", "model": "part", "status": 200.0, "images": 1.0,
			"bytes_in": float64(sizes[min(found, len(sizes))-1])}
		if found == 3 {
			want["status"], want["images"] = 400.0, 0.0
		}
		for name, value := range want {
			if record[name] != value {
				t.Errorf("line %d: got %s %v, want %v", found, name, record[name], value)
			}
		}
		if _, said := record["error"]; said != (found == 3) {
			t.Errorf("line %d: got error %v", found, record["error"])
		}
	}
	if found != 3 {
		t.Errorf("got %d lines, want one for each of 3 requests", found)
	}
}

// crowd asks n times at once and counts the answers by status.
func crowd(t *testing.T, v *service, n int, header ...string) (statuses map[int]int, answers []*answer) {
	t.Helper()
	statuses = map[int]int{}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for range n {
		asking.Go(func() {
			a, err := v.try("POST", predictPath, bytes.NewReader(pictures[0]), header...)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
			answers = append(answers, a)
		})
	}
	asking.Wait()
	return statuses, answers
}

// A full queue answers 503 at once and says when to come back; those in it get their answers.
func TestFullQueue(t *testing.T) {
	v := start(t, server.Options{MaxQueue: 2, MaxBatch: 4, MaxWait: 500 * time.Millisecond})
	statuses, answers := crowd(t, v, 6)
	if statuses[http.StatusOK] < 2 || statuses[http.StatusOK]+statuses[http.StatusServiceUnavailable] != 6 || statuses[http.StatusServiceUnavailable] == 0 {
		t.Errorf("got %v, want at least 2 times 200, and 503", statuses)
	}
	for _, a := range answers {
		if a.status == http.StatusServiceUnavailable && (a.header.Get("Retry-After") == "" || !strings.Contains(a.reason(), "--max-queue")) {
			t.Errorf("got header %v, %s, want when to try again, and what to do", a.header, a.body)
		}
	}
}

// Requests that come together go through the networks together.
func TestBatches(t *testing.T) {
	v := start(t, server.Options{MaxBatch: 4, MaxWait: 10 * time.Second})
	if statuses, _ := crowd(t, v, 8); statuses[http.StatusOK] != 8 {
		t.Errorf("got %v, want 8 times 200", statuses)
	}
	if count, sum := v.metric(t, `rdpp_batch_images_count{model="part"}`), v.metric(t, `rdpp_batch_images_sum{model="part"}`); count != 2 || sum != 8 {
		t.Errorf("got %v batches of %v images, want 2 of 8: nothing but a full batch ends the wait", count, sum)
	}
}

// A request whose time is up, and one whose client has gone, leave the queue.
func TestLeavingTheQueue(t *testing.T) {
	v := start(t, server.Options{MaxBatch: 4, MaxWait: time.Hour, MaxQueue: 2, Timeout: time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, "POST", v.url+predictPath, bytes.NewReader(pictures[0]))
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() {
		response, err := v.client.Do(r)
		if err == nil {
			response.Body.Close()
		}
		gone <- err
	}()
	const depth = `rdpp_queue_images{model="part"}`
	eventually(t, "a request waits", func() bool { return v.metric(t, depth) == 1 })
	cancel()
	if err := <-gone; err == nil {
		t.Error("got an answer of a request that was cancelled")
	}
	eventually(t, "it has left", func() bool { return v.metric(t, depth) == 0 })
	eventually(t, "it is counted", func() bool {
		return v.metric(t, `rdpp_requests_total{code="499",method="POST",route="/v1/models/{model}/predict"}`) == 1
	})
	a := v.ask(t, "POST", predictPath, pictures[0])
	if a.status != http.StatusServiceUnavailable || !strings.Contains(a.reason(), "--timeout") || v.metric(t, depth) != 0 {
		t.Errorf("out of time: got status %d, %s, want 503, and an empty queue", a.status, a.body)
	}
}

// raw sends bytes over a connection of its own and returns what comes back until the service closes it.
func (v *service) raw(t testing.TB, parts ...string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(v.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		if _, err := io.WriteString(c, part); err != nil {
			break // it has closed already: what it said is read below
		}
	}
	answer, _ := io.ReadAll(c)
	return string(answer)
}

// Clients that send their request too slowly, or half of it, are cut off and told.
func TestSlowClients(t *testing.T) {
	v := start(t, server.Options{Timeout: 300 * time.Millisecond})
	head := "POST " + predictPath + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n"
	if got := v.raw(t, head+"\r\nabc"); !strings.HasPrefix(got, "HTTP/1.1 408") || !strings.Contains(got, "--timeout") {
		t.Errorf("half a body: got %q, want 408 and what to do", got)
	}
	if got := v.raw(t, head); got != "" && !strings.HasPrefix(got, "HTTP/1.1 4") {
		t.Errorf("half a head: got %q, want the connection closed", got)
	}
	if a := v.ask(t, "GET", "/v2/health/live", nil); a.status != http.StatusOK {
		t.Errorf("afterwards: got status %d, want 200", a.status)
	}
}

// Bodies beyond the budget are refused for now, and the budget is whole again afterwards.
func TestMemoryBudget(t *testing.T) {
	v := start(t, server.Options{MaxBody: 50_000, MaxMemory: 60_000 + 16*32*32})
	c, err := net.Dial("tcp", strings.TrimPrefix(v.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n%s", predictPath, strings.Repeat("a", 45_000))
	eventually(t, "its memory is held", func() bool { return v.metric(t, `rdpp_budget_bytes{kind="used"}`) >= 50_000 })
	large := bytes.Repeat([]byte("b"), 40_000)
	eventually(t, "a refusal", func() bool {
		a := v.ask(t, "POST", predictPath, large)
		return a.status == http.StatusServiceUnavailable && strings.Contains(a.reason(), "too many large requests")
	})
	fmt.Fprint(c, strings.Repeat("a", 5_000))
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || response.StatusCode != http.StatusBadRequest {
		t.Fatalf("got %v, %v, want status 400 for the body that was there first", response, err)
	}
	response.Body.Close()
	if a := v.ask(t, "POST", predictPath, large); a.status != http.StatusBadRequest {
		t.Errorf("afterwards: got status %d, %s, want 400", a.status, a.body)
	}
}

// The end of the context ends the service, after the requests it has begun.
func TestGracefulEnd(t *testing.T) {
	v := start(t, server.Options{MaxQueue: 64})
	var asking sync.WaitGroup
	var whole, refused atomic.Int64
	begun := make(chan struct{}, 64)
	for range 8 {
		asking.Go(func() {
			for {
				a, err := v.try("POST", predictPath, bytes.NewReader(pictures[0]))
				if err != nil { // the service takes no more connections
					refused.Add(1)
					return
				}
				if a.status != http.StatusOK {
					t.Errorf("got status %d, %s, want 200", a.status, a.body)
				}
				whole.Add(1)
				select {
				case begun <- struct{}{}:
				default:
				}
			}
		})
	}
	for range 16 {
		<-begun
	}
	if err := v.stop(); err != nil {
		t.Error(err)
	}
	asking.Wait()
	// Every request that the service logged got its whole answer.
	logged := int64(strings.Count(v.logs.String(), `"path":"`+predictPath+`","status":200`))
	t.Logf("%d whole answers, %d requests logged", whole.Load(), logged)
	if logged != whole.Load() || refused.Load() != 8 {
		t.Errorf("got %d whole answers and %d refusals, want %d and 8", whole.Load(), refused.Load(), logged)
	}
}

// Without a token, only names that mean this machine alone are answered: a name of elsewhere may have been made to lead
// here, for a page in this machine's browser.
func TestHosts(t *testing.T) {
	open, closed := start(t, server.Options{}), start(t, server.Options{Tokens: []string{"secret"}})
	for _, c := range []struct {
		v    *service
		host string
		want int
	}{
		{open, "localhost", 200}, {open, "localhost:8080", 200}, {open, "127.0.0.1:1", 200}, {open, "[::1]:80", 200},
		{open, "inspect.localhost", 200}, {open, "example.org", 403}, {open, "example.org:8080", 403}, {open, "10.0.0.1", 403},
		{open, "localhost.example.org", 403}, {closed, "example.org", 200},
	} {
		r, err := http.NewRequest("GET", c.v.url+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = c.host
		r.Header.Set("Authorization", "Bearer secret")
		response, err := c.v.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != c.want {
			t.Errorf("%s: got status %d, want %d", c.host, response.StatusCode, c.want)
		}
	}
}

// What images become is counted, however small their files are, and room in the queue is there before they are decoded.
func TestImagesAreCounted(t *testing.T) {
	// A request may hold half of the memory. An image takes 16 bytes x 32 x 32, with its map twice that, and its file.
	v := start(t, server.Options{MaxBody: 1 << 20, MaxMemory: 4 << 20, MaxQueue: 120})
	few, kind := form(slices.Repeat([][]byte{pictures[0]}, 60)...)
	if a := v.ask(t, "POST", predictPath, few, "Content-Type", kind); a.status != http.StatusOK {
		t.Errorf("60 images: got status %d, %s, want 200", a.status, a.body)
	}
	many, kind := form(slices.Repeat([][]byte{pictures[0]}, 120)...)
	if a := v.ask(t, "POST", predictPath, many, "Content-Type", kind); a.status != http.StatusRequestEntityTooLarge || !strings.Contains(a.reason(), "fewer") {
		t.Errorf("120 images: got status %d, %s, want 413", a.status, a.body)
	}
	few, kind = form(slices.Repeat([][]byte{pictures[0]}, 60)...)
	if a := v.ask(t, "POST", predictPath+"?heatmap=1", few, "Content-Type", kind); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("60 maps: got status %d, %s, want 413", a.status, a.body)
	}
	if a := v.ask(t, "POST", predictPath, few, "Content-Type", kind); a.status != http.StatusOK {
		t.Errorf("afterwards: got status %d, %s, want 200", a.status, a.body)
	}
	if used := v.metric(t, `rdpp_budget_bytes{kind="used"}`); used != 0 {
		t.Errorf("afterwards: %v bytes stay counted", used)
	}
}

// What net/http would answer by itself needs a token too.
func TestOptionsOfAll(t *testing.T) {
	v := start(t, server.Options{Tokens: []string{"secret"}})
	c, err := net.Dial("tcp", strings.TrimPrefix(v.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode/100 != 4 {
		t.Errorf("got status %d, want one that refuses", response.StatusCode)
	}
}

// A client that sends all of its body before it reads gets its answer, however early that is known.
func TestAnswerToBodyNobodyReads(t *testing.T) {
	v := start(t, server.Options{MaxBody: 32 << 20})
	body := bytes.Repeat([]byte("a"), 24<<20)
	for _, c := range []struct {
		method, path, kind string
		bytes              int
		want               string // the answer's beginning
	}{
		{"POST", "/v2/repository/index", "application/json", 24 << 20, "HTTP/1.1 413"},
		{"POST", "/v2/repository/models/none/load", "application/json", 24 << 20, "HTTP/1.1 404"},
		{"POST", "/v1/models/none/predict", "image/png", 24 << 20, "HTTP/1.1 404"},
		{"POST", predictPath, "text/plain", 24 << 20, "HTTP/1.1 415"},
		{"POST", predictPath, "image/png", 40 << 20, "HTTP/1.1 413"},
		{"PUT", predictPath, "image/png", 24 << 20, "HTTP/1.1 405"},
		{"POST", "/nothing", "image/png", 24 << 20, "HTTP/1.1 404"},
		{"GET", "/v1/models", "image/png", 24 << 20, "HTTP/1.1 200"},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(v.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", c.method, c.path, c.kind, c.bytes)
		_, err = io.WriteString(conn, head)
		for sent := 0; sent < c.bytes && err == nil; sent += 4 << 20 {
			_, err = conn.Write(body[:4<<20])
		}
		if err != nil {
			t.Errorf("%s %s: sending ended with %v", c.method, c.path, err)
		}
		answer := make([]byte, len(c.want))
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != c.want {
			t.Errorf("%s %s: got %q, %v, want %q", c.method, c.path, answer, err, c.want)
		}
		conn.Close()
	}
}
