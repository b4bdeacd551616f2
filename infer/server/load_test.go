package server_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rdpp/infer/server"
)

// resident is this process's memory in use, in bytes.
func resident(t testing.TB) int64 {
	t.Helper()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kB, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kB << 10
}

// Many clients ask without a pause: they get their scores or 503, none waits longer than the queue takes, memory stays.
func TestLoad(t *testing.T) {
	clients, length := 40, 2*time.Second
	if *slow {
		clients, length = 200, 60*time.Second
	}
	v := start(t, server.Options{MaxWait: 2 * time.Millisecond, MaxQueue: 128, Logger: discard})
	run := func(length time.Duration) (statuses map[int]int, times []time.Duration) {
		statuses = map[int]int{}
		var mu sync.Mutex
		var asking sync.WaitGroup
		end := time.Now().Add(length)
		for i := range clients {
			asking.Go(func() {
				for time.Now().Before(end) {
					begin := time.Now()
					a, err := v.try("POST", predictPath, bytes.NewReader(pictures[i%len(pictures)]))
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					statuses[a.status]++
					if a.status == http.StatusOK {
						times = append(times, time.Since(begin))
					}
					mu.Unlock()
					if a.status == http.StatusServiceUnavailable {
						time.Sleep(50 * time.Millisecond) // a client that asks again, sooner than it is told to
					}
				}
			})
		}
		asking.Wait()
		return statuses, times
	}
	run(length / 10)
	before := resident(t)
	statuses, times := run(length)
	growth := resident(t) - before

	slices.Sort(times)
	if len(times) == 0 {
		t.Fatalf("got no answers, but %v", statuses)
	}
	p50, p99 := times[len(times)/2], times[len(times)*99/100]
	batches := v.metric(t, `rdpp_batch_seconds_count{model="part"}`)
	batch := time.Duration(v.metric(t, `rdpp_batch_seconds_sum{model="part"}`) / batches * float64(time.Second))
	size := v.metric(t, `rdpp_batch_images_sum{model="part"}`) / batches
	// A full queue, its own batch and the one before it; clients in the same process take time too.
	bound := 4 * time.Duration(128/8+2) * batch
	t.Logf("%d clients, %v: statuses %v, p50 %v, p99 %v, batches of %.1f images in %v, memory %+.1f MiB", clients, length, statuses, p50, p99,
		size, batch, float64(growth)/(1<<20))
	for status := range statuses {
		if status != http.StatusOK && status != http.StatusServiceUnavailable {
			t.Errorf("got status %d %d times, want 200 and 503 alone", status, statuses[status])
		}
	}
	if p99 > bound {
		t.Errorf("got a p99 of %v, want at most %v", p99, bound)
	}
	if growth > 64<<20 {
		t.Errorf("got %d bytes more of memory, want at most 64 MiB", growth)
	}
}

// hugePNG is a PNG that says it has 60000 x 60000 pixels.
func hugePNG() []byte {
	header := []byte("IHDR\x00\x00\xea\x60\x00\x00\xea\x60\x08\x02\x00\x00\x00")
	file := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), header...)
	return binary.BigEndian.AppendUint32(file, crc32.ChecksumIEEE(header))
}

// malformed are requests as they go over the wire; i varies them. The connection's sending half is closed after each.
var malformed = map[string]func(i int) []byte{
	"truncated body": func(i int) []byte { return post(predictPath, "image/png", pictures[0], i%len(pictures[0])) },
	"truncated picture": func(i int) []byte {
		n := i % (len(pictures[0]) - 20)
		return post(predictPath, "image/png", pictures[0][:n], n)
	},
	"damaged picture": func(i int) []byte {
		file := bytes.Clone(pictures[0])
		file[16+i%17] ^= 0xff // header, its checksum among it
		return post(predictPath, "image/png", file, len(file))
	},
	"huge header": func(i int) []byte {
		return fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: %s\r\n\r\n", strings.Repeat("a", 80_000))
	},
	"many headers": func(i int) []byte {
		return fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: localhost\r\n%s\r\n", strings.Repeat("X-A: 1\r\n", 12_000))
	},
	"no HTTP": func(i int) []byte { return fmt.Appendf(nil, "%d nonsense\r\n\r\n", i) },
	"no host": func(i int) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") },
	"two lengths": func(i int) []byte {
		return []byte("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
	},
	"wrong type": func(i int) []byte { return post(predictPath, fmt.Sprint("text/x", i), pictures[0], len(pictures[0])) },
	"image bomb": func(i int) []byte { return post(predictPath, "image/png", hugePNG(), len(hugePNG())) },
	"tensor bomb": func(i int) []byte {
		body := fmt.Appendf(nil, `{"inputs":[{"name":"image","shape":[%d,65535,3],"datatype":"UINT8","data":[1]}]}`, 1+i)
		return post(inferPath, "application/json", body, len(body))
	},
	"deep JSON": func(i int) []byte {
		body := bytes.Repeat([]byte("["), 20_000)
		return post(inferPath, "application/json", body, len(body))
	},
	"path in a name": func(i int) []byte {
		tricks := []string{"../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "a%00b", "C:%5cwindows", "%ff%fe", strings.Repeat("a", 5000), "."}
		return post("/v1/models/"+tricks[i%len(tricks)]+"/predict", "image/png", pictures[0], len(pictures[0]))
	},
}

// post is a request that claims its whole body and sends the first n bytes of it.
func post(path, kind string, body []byte, n int) []byte {
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", path, kind, len(body))
	return append([]byte(head), body[:n]...)
}

// Malformed requests are each told why by a status of 4xx, and the service goes on.
func TestMalformed(t *testing.T) {
	requests := 260
	if *slow {
		requests = 10_000
	}
	v := start(t, server.Options{})
	var kinds []string
	for kind := range malformed {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	before := resident(t)
	var sending sync.WaitGroup
	for worker := range 4 {
		sending.Go(func() {
			for i := worker; i < requests; i += 4 {
				kind := kinds[i%len(kinds)]
				answer := sendHalf(t, v, malformed[kind](i/len(kinds)))
				_, reason, _ := strings.Cut(answer, "\r\n\r\n")
				if !strings.HasPrefix(answer, "HTTP/1.1 4") || strings.TrimSpace(reason) == "" {
					t.Errorf("%s %d: got %.300q, want a status of 4xx and a reason", kind, i/len(kinds), answer)
				}
			}
		})
	}
	sending.Wait()
	growth := resident(t) - before
	t.Logf("%d malformed requests, memory %+.1f MiB", requests, float64(growth)/(1<<20))
	if growth > 128<<20 {
		t.Errorf("got %d bytes more of memory, want at most 128 MiB", growth)
	}
	if a := v.ask(t, "POST", predictPath, pictures[0]); a.status != http.StatusOK {
		t.Errorf("afterwards: got status %d, %s, want 200", a.status, a.body)
	}
	if strings.Contains(v.logs.String(), "panic") {
		t.Error("the log tells of a panic")
	}
}

// A client that closes its sending half while it waits is told that this ended its request.
func TestHalfClosed(t *testing.T) {
	v := start(t, server.Options{MaxBatch: 2, MaxWait: time.Hour})
	answer := sendHalf(t, v, post(predictPath, "image/png", pictures[0], len(pictures[0])))
	if !strings.HasPrefix(answer, "HTTP/1.1 499") || !strings.Contains(answer, "closed before the answer") {
		t.Errorf("got %q, want 499 and why", answer)
	}
}

// sendHalf sends a request, closes the sending half of the connection and returns the answer.
func sendHalf(t *testing.T, v *service, request []byte) string {
	c, err := net.Dial("tcp", strings.TrimPrefix(v.url, "http://"))
	if err != nil {
		t.Error(err)
		return ""
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Error(err)
	}
	_, _ = c.Write(request) // the service may have refused it before its end
	_ = c.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(c)
	return string(answer)
}
