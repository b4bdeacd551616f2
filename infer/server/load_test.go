package server_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rdpp/infer/server"
	"rdpp/rdpp"
	"rdpp/rdpp/testmain"
)

// resident is this process's memory in use, in bytes.
func resident(t testing.TB) int64 {
	t.Helper()
	debug.FreeOSMemory()
	return statusLine(t, os.Getpid(), "VmRSS:")
}

// statusLine is a line of a process's status, in bytes.
func statusLine(t testing.TB, process int, name string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), name)
	kB, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kB << 10
}

// Many clients ask without a pause: they get their scores or 503, none waits longer than the queue takes, memory stays.
func TestLoad(t *testing.T) {
	clients, length := 40, 2*time.Second
	if *testmain.Slow {
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
	if *testmain.Slow && p99 > bound { // else the machine may have other work; TestQueue has the rule
		t.Errorf("got a p99 of %v, want at most %v", p99, bound)
	}
	if growth > 64<<20 {
		t.Errorf("got %d bytes more of memory, want at most 64 MiB", growth)
	}
}

// chunk is a part of a PNG file, or as much of it as is there when its data are shorter than it says.
func chunk(kind string, says int, data ...byte) []byte {
	c := append(binary.BigEndian.AppendUint32(nil, uint32(says)), kind...)
	c = append(c, data...)
	return binary.BigEndian.AppendUint32(c, crc32.ChecksumIEEE(c[4:]))
}

// claimingPNG is the beginning of a PNG file that says it has side x side pixels.
func claimingPNG(side uint32) []byte {
	size := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, side), side)
	file := append([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", 13, append(size, 8, 2, 0, 0, 0)...)...)
	return append(file, chunk("IDAT", 1<<20, 0x78, 0x9c)...)
}

// claimingBMP is the head of a BMP file that says it has side x side pixels.
func claimingBMP(side uint32) []byte {
	file := make([]byte, 54)
	copy(file, "BM")
	file[10], file[14], file[26], file[28] = 54, 40, 1, 24
	binary.LittleEndian.PutUint32(file[18:], side)
	binary.LittleEndian.PutUint32(file[22:], side)
	return file
}

// tricks are names of models that would be paths, or are none.
var tricks = []string{"../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%2e%2e", "..%5c..%5cwindows", "a%00b",
	"%00", "C:%5cwindows", "%2fetc%2fpasswd", "%ff%fe", "%c0%ae%c0%ae%c0%af", strings.Repeat("a", 5000), strings.Repeat("%2e%2e%2f", 500), "."}

// The largest picture that services accept which get malformed requests.
const maxSide, maxPixels = 2000, maxSide * maxSide

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
	"truncated form": func(i int) []byte {
		body, kind := form(pictures...)
		return post(predictPath, kind, body, i%len(body))
	},
	"form cut short": func(i int) []byte { // whole by its length
		body, kind := form(pictures...)
		n := i % (len(body) - 8)
		return post(predictPath, kind, body[:n], n)
	},
	"damaged chunks": func(i int) []byte {
		return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\nabc\r\nzz\r\n",
			predictPath, i%5)
	},
	"huge header": func(i int) []byte {
		return fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: %s\r\n\r\n", strings.Repeat("a", 80_000))
	},
	"many headers": func(i int) []byte {
		return fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: localhost\r\n%s\r\n", strings.Repeat("X-A: 1\r\n", 12_000))
	},
	"huge address": func(i int) []byte {
		return post("/v1/models/"+strings.Repeat("a", 80_000)+"/predict", "image/png", nil, 0)
	},
	"no HTTP": func(i int) []byte { return fmt.Appendf(nil, "%d nonsense\r\n\r\n", i) },
	"no host": func(i int) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") },
	"two lengths": func(i int) []byte {
		return []byte("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
	},
	"zero byte in the address": func(i int) []byte { return post("/v1/models/a\x00b/predict", "image/png", nil, 0) },
	"wrong type":               func(i int) []byte { return post(predictPath, fmt.Sprint("text/x", i), pictures[0], len(pictures[0])) },
	"wrong types in JSON": func(i int) []byte {
		values := []string{`7`, `"text"`, `[]`, `{}`, `true`, `-1`, `1e999`, `null`}
		body := fmt.Appendf(nil, `{"inputs":[{"name":%s,"shape":%s,"datatype":%s,"data":%s}],"outputs":%[1]s}`, values[i%8], values[i/2%8], values[i/3%8],
			values[i/5%8])
		return post(inferPath, "application/json", body, len(body))
	},
	"image bomb": func(i int) []byte {
		file := [][]byte{claimingPNG(60_000), claimingBMP(60_000), claimingPNG(1<<31 - 1), claimingBMP(1<<31 - 1)}[i%4]
		return post(predictPath, "image/png", file, len(file))
	},
	"image bomb within the limit": func(i int) []byte { // it says that it has as many pixels as are accepted, and has none
		file := [][]byte{claimingPNG(maxSide), claimingBMP(maxSide)}[i%2]
		return post(predictPath, "image/png", file, len(file))
	},
	"tensor bomb": func(i int) []byte {
		body := fmt.Appendf(nil, `{"inputs":[{"name":"image","shape":[%d,65535,3],"datatype":"UINT8","data":[1]}]}`, 1+i)
		return post(inferPath, "application/json", body, len(body))
	},
	"deep JSON": func(i int) []byte {
		body := bytes.Repeat([]byte("["), 20_000)
		return post(inferPath, "application/json", body, len(body))
	},
	"path in a name": func(i int) []byte {
		address := []string{"/v1/models/%s/predict", "/v2/models/%s/infer", "/v2/repository/models/%s/load", "/v2/repository/models/%s/unload"}[i/len(tricks)%4]
		return post(fmt.Sprintf(address, tricks[i%len(tricks)]), "image/png", pictures[0], len(pictures[0]))
	},
}

// answeredBelow are the malformed requests that net/http answers by itself, with a reason in plain text: there is no
// request for a handler to see.
var answeredBelow = []string{"huge header", "many headers", "huge address", "no HTTP", "no host", "two lengths", "zero byte in the address"}

// post is a request that claims its whole body and sends the first n bytes of it.
func post(path, kind string, body []byte, n int) []byte {
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", path, kind, len(body))
	return append([]byte(head), body[:n]...)
}

// Malformed requests are each told why by a status of 4xx, and the service goes on.
func TestMalformed(t *testing.T) {
	requests := 260
	if *testmain.Slow {
		requests = 10_000
	}
	v := start(t, server.Options{Detector: rdpp.DetectorOptions{MaxPixels: maxPixels}})
	before := resident(t)
	sendMalformed(t, v, requests)
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

// sendMalformed sends n malformed requests of all kinds in turn, four at a time, and checks the answers.
func sendMalformed(t *testing.T, v *service, n int) {
	t.Helper()
	var kinds []string
	for kind := range malformed {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	var sending sync.WaitGroup
	for worker := range 4 {
		sending.Go(func() {
			for i := worker; i < n; i += 4 {
				kind := kinds[i%len(kinds)]
				checkRefusal(t, fmt.Sprintf("%s %d", kind, i/len(kinds)), sendHalf(t, v, malformed[kind](i/len(kinds))), slices.Contains(answeredBelow, kind))
			}
		})
	}
	sending.Wait()
}

// checkRefusal wants a status of 4xx and a reason, in plain text if it is net/http's, else as errors are told everywhere.
func checkRefusal(t *testing.T, what, text string, below bool) {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), nil)
	if err != nil {
		t.Errorf("%s: got %.300q, %v, want an answer", what, text, err)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	a := answer{response.StatusCode, response.Header, body}
	reason := a.reason()
	if below {
		reason = strings.TrimSpace(string(body))
	}
	if err != nil || a.status/100 != 4 || reason == "" {
		t.Errorf("%s: got %.300q, %v, want a status of 4xx and a reason", what, text, err)
	}
}

// decoding is the memory that PNG files of so many pixels take at most when so many of them are decoded at a time, in bytes:
// 7 for each pixel, as much again before the collector starts, and once more while it works.
func decoding(files, pixels int) int64 { return 3 * 7 * int64(files) * int64(pixels) }

// Pictures that are small files and large once decoded, within what is accepted, and many of them at once: no more are
// decoded at a time than there are processors.
func TestLargePictures(t *testing.T) {
	const side, clients, slots = 2500, 40, 2
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(slots))
	var file bytes.Buffer
	if err := png.Encode(&file, image.NewNRGBA(image.Rect(0, 0, side, side))); err != nil {
		t.Fatal(err)
	}
	v := start(t, server.Options{Detector: rdpp.DetectorOptions{MaxPixels: side * side}})
	before := resident(t)
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // the peak begins anew
		t.Skipf("this system keeps no peak of memory that could be begun anew: %v", err)
	}
	var asking sync.WaitGroup
	for range clients {
		asking.Go(func() {
			if a, err := v.try("POST", predictPath, bytes.NewReader(file.Bytes())); err != nil || a.status != http.StatusOK {
				t.Errorf("got %+v, %v, want status 200", a, err)
			}
		})
	}
	asking.Wait()
	growth := statusLine(t, os.Getpid(), "VmHWM:") - before
	most := decoding(slots, side*side)
	t.Logf("%d files of %d kB, %d MiB decoded: at most %+.1f MiB at once", clients, file.Len()/1000, clients*3*side*side>>20, mib(growth))
	if growth > most {
		t.Errorf("got %.1f MiB more at once, want at most %.1f", mib(growth), mib(most))
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
