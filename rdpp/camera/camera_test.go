package camera

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/blackjack/webcam"

	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/testmain"
)

// picture is a JPEG file that tells its number.
func picture(t testing.TB, number int) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 64, 48))
	for i := range 64 * 48 {
		img.Set(i%64, i/64, color.RGBA{uint8(40 * number), uint8(4 * (i % 64)), uint8(5 * (i / 64)), 255})
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// log keeps what a Log was told.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) add(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, text)
}

func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// fake is a camera over HTTP. Each connection gets what the handler of its number writes, the last one all that follow.
func fake(t *testing.T, handlers ...http.HandlerFunc) *httptest.Server {
	t.Helper()
	var mu sync.Mutex
	connections := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		handler := handlers[min(connections, len(handlers)-1)]
		connections++
		mu.Unlock()
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// sends streams pictures, one every so often, the last of them for ever or, with ends, once.
func sends(every time.Duration, ends bool, pictures ...[]byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
		for i := 0; !ends || i < len(pictures); i++ {
			data := pictures[min(i, len(pictures)-1)]
			fmt.Fprintf(w, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", len(data), data)
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(every):
			}
		}
	}
}

// writes answers with a text of a type, and then, with hangs, nothing.
func writes(kind, text string, status int, hangs bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		io.WriteString(w, text)
		w.(http.Flusher).Flush()
		if hangs {
			<-r.Context().Done()
		}
	}
}

// opened opens a camera that does not wait long.
func opened(t *testing.T, address string, opt Options) (*Camera, *log) {
	t.Helper()
	l := &log{}
	opt.First, opt.Log = 10*time.Millisecond, l.add
	c, err := Open(address, &opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, l
}

// next is the first frame from now on; it has to come.
func next(t *testing.T, c *Camera) Frame {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	f, err := c.Next(ctx, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCheck(t *testing.T) {
	for address, good := range map[string]bool{
		"http://host/a": true, "https://host:8443/a?b=c": true, "rtsp://user:word@host/a": true, "rtsps://[::1]/": true, "/dev/video0": true,
		"": false, "host": false, "ftp://host/a": false, "http://": false, "rtsp://user:word@host:x/": false, "file:///dev/video0": false,
	} {
		err := Check(address)
		wrong := (*setting.Error)(nil)
		if (err == nil) != good || err != nil && (!errors.As(err, &wrong) || wrong.Field != "camera" || strings.Contains(err.Error(), "word")) {
			t.Errorf("%s: got %v", address, err)
		}
	}
}

// TestStream: a frame is the bytes that the camera sent, and began after it was asked for.
func TestStream(t *testing.T) {
	want := picture(t, 1)
	c, l := opened(t, fake(t, sends(5*time.Millisecond, false, want)).URL, Options{})
	last := Frame{}
	for range 3 {
		asked := time.Now()
		f := next(t, c)
		if !bytes.Equal(f.Data, want) || f.Begun.Before(asked) || f.Number <= last.Number {
			t.Errorf("got %d bytes, begun %v, number %d, want %d bytes, after %v, more than %d", len(f.Data), f.Begun, f.Number, len(want), asked, last.Number)
		}
		last = f
	}
	if again, err := c.Next(t.Context(), last.Begun); err != nil || again.Number < last.Number {
		t.Errorf("got %d, %v, want the frame that is there, %d, or a later one", again.Number, err, last.Number)
	}
	if l.text() != "" {
		t.Errorf("got %q", l.text())
	}
}

// TestStill: where the address is that of a picture each frame is asked for, once.
func TestStill(t *testing.T) {
	var mu sync.Mutex
	asked := 0
	s := fake(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if user, password, _ := r.BasicAuth(); user != "me" || password != "a word" {
			t.Errorf("got user %q, password %q", user, password)
		}
		w.Header().Set("Content-Type", "image/jpeg")
		fmt.Fprint(w, "picture ", asked)
	})
	c, _ := opened(t, s.URL, Options{User: "me", Password: "a word"})
	first := next(t, c)
	time.Sleep(50 * time.Millisecond)
	second := next(t, c)
	if string(second.Data) <= string(first.Data) || second.Number <= first.Number {
		t.Errorf("got %q, then %q, want another one", first.Data, second.Data)
	}
	time.Sleep(50 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	if want := 4; asked > want { // one before anybody asks, and one more where that was under way
		t.Errorf("asked %d times, want at most %d", asked, want)
	}
}

// TestFailures: what a camera does wrong is said once, without the password, and it is tried again until it works.
func TestFailures(t *testing.T) {
	good := sends(5*time.Millisecond, false, picture(t, 1))
	const stream = "multipart/x-mixed-replace; boundary=frame"
	for _, c := range []struct {
		name string
		bad  http.HandlerFunc
		want string
	}{
		{"unauthorised", writes("text/html", "no", http.StatusUnauthorized, false), "401"},
		{"a page", writes("text/html", "<html>", http.StatusOK, false), `sends "text/html"`},
		{"no type", writes("x/y/z", "x", http.StatusOK, false), "does not say what"},
		{"no boundary", writes("multipart/x-mixed-replace", "x", http.StatusOK, false), "no boundary"},
		{"an end", sends(0, true), "ended the stream"},
		{"an end in a frame", writes(stream, "--frame\r\nContent-Length: 9\r\n\r\nabc", http.StatusOK, false), "unexpected EOF"},
		{"silence", writes(stream, "", http.StatusOK, true), "no whole frame"},
		{"silence in a frame", writes(stream, "--frame\r\n\r\nabc", http.StatusOK, true), "no whole frame"},
		{"silence in a picture", writes("image/jpeg", "abc", http.StatusOK, true), "no whole frame"},
		{"a large picture", writes("image/jpeg", strings.Repeat("x", 4097), http.StatusOK, false), "larger than 4096"},
		{"an endless frame", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", stream)
			io.Copy(w, &endless{begin: "--frame\r\n\r\n", again: "x"})
		}, "larger than 4096"},
		{"a trickle", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", stream)
			for _, err := fmt.Fprint(w, "--frame\r\n\r\n"); err == nil && r.Context().Err() == nil; _, err = fmt.Fprint(w, "x") {
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		}, "no whole frame"},
	} {
		s := fake(t, c.bad, c.bad, good)
		cam, l := opened(t, strings.Replace(s.URL, "://", "://user:secret@", 1)+"?key=secret", Options{Silence: 300 * time.Millisecond, MaxBytes: 4096})
		next(t, cam)
		lines := strings.Split(l.text(), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], c.want) || !strings.HasPrefix(lines[0], "camera: http://127.0.0.1:") || !strings.Contains(lines[1], "works again") ||
			strings.Contains(l.text(), "secret") {
			t.Errorf("%s: got %q, want %s, and that it works again", c.name, lines, c.want)
		}
		cam.Close()
		s.CloseClientConnections()
	}
}

// TestRedirect: a camera may redirect within its host. Another host is not asked, and hears no secrets.
func TestRedirect(t *testing.T) {
	want := picture(t, 1)
	var heard atomic.Int64
	other := fake(t, func(http.ResponseWriter, *http.Request) { heard.Add(1) })
	elsewhere := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	for _, c := range []struct{ to, want string }{
		{"/stream", ""}, {"/again", "again and again"}, {elsewhere + "/x", "it redirects to " + elsewhere + "; give that address"},
	} {
		s := fake(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/stream" {
				sends(5*time.Millisecond, false, want)(w, r)
				return
			}
			http.Redirect(w, r, c.to, http.StatusFound)
		})
		cam, l := opened(t, strings.Replace(s.URL, "://", "://user:secret@", 1)+"/?key=secret", Options{})
		if c.want == "" {
			if f := next(t, cam); !bytes.Equal(f.Data, want) {
				t.Errorf("%s: got %d bytes, want the %d that were sent", c.to, len(f.Data), len(want))
			}
		}
		testmain.Wait(t, "word of it", func() bool { return strings.Contains(l.text(), c.want) })
		if strings.Contains(l.text(), "secret") {
			t.Errorf("%s: got %q", c.to, l.text())
		}
		cam.Close()
		s.CloseClientConnections()
	}
	if n := heard.Load(); n > 0 {
		t.Errorf("another host was asked %d times", n)
	}
}

// TestAway: of a camera that is not there the reason is told to who waits.
func TestAway(t *testing.T) {
	s := fake(t, sends(0, true))
	s.Close()
	c, l := opened(t, s.URL, Options{})
	testmain.Wait(t, "word of it", func() bool { return l.text() != "" })
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := c.Next(ctx, time.Now()); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v, want that the connection was refused", err)
	}
}

// TestDevice: a device is chosen M-JPEG of, in a size that it has. It never ran with one.
func TestDevice(t *testing.T) {
	yuyv := webcam.PixelFormat('Y' | 'U'<<8 | 'Y'<<16 | 'V'<<24)
	for _, c := range []struct {
		formats map[webcam.PixelFormat]string
		want    webcam.PixelFormat
	}{
		{map[webcam.PixelFormat]string{yuyv: "YUYV 4:2:2", motionJPEG: "Motion-JPEG"}, motionJPEG},
		{map[webcam.PixelFormat]string{yuyv: "YUYV 4:2:2", stillJPEG: "JFIF JPEG"}, stillJPEG},
		{map[webcam.PixelFormat]string{yuyv: "YUYV 4:2:2"}, 0}, {nil, 0},
	} {
		if got, err := jpegOf(c.formats); got != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%v: got %d, %v, want %d", c.formats, got, err, c.want)
		}
	}
	discrete := []webcam.FrameSize{{MinWidth: 640, MaxWidth: 640, MinHeight: 480, MaxHeight: 480}, {MinWidth: 1280, MaxWidth: 1280, MinHeight: 720, MaxHeight: 720}}
	steps := []webcam.FrameSize{{MinWidth: 32, MaxWidth: 2592, StepWidth: 2, MinHeight: 32, MaxHeight: 1944, StepHeight: 2}}
	for _, c := range []struct {
		sizes               []webcam.FrameSize
		width, height, w, h uint32
	}{
		{discrete, 0, 0, 1280, 720}, {discrete, 640, 480, 640, 480}, {discrete, 640, 481, 0, 0}, {steps, 0, 0, 2592, 1944}, {steps, 1000, 800, 1000, 800}, {nil, 0, 0, 0, 0},
	} {
		if w, h, err := sizeOf(c.sizes, c.width, c.height); w != c.w || h != c.h || (err == nil) != (c.w > 0) {
			t.Errorf("%v, %d x %d: got %d x %d, %v, want %d x %d", c.sizes, c.width, c.height, w, h, err, c.w, c.h)
		}
	}
	for _, path := range []string{"/dev/none", "/dev/null"} {
		c, l := opened(t, path, Options{})
		testmain.Wait(t, "word of it", func() bool { return strings.Contains(l.text(), path+": it cannot be opened") })
		c.Close()
	}
}

// TestTables: frames without Huffman tables, as USB cameras send them, are decoded as those with them.
func TestTables(t *testing.T) {
	whole := picture(t, 1)
	short := slices.Clone(whole[:2])
	for at := 2; ; {
		marker, size := whole[at+1], 2+int(binary.BigEndian.Uint16(whole[at+2:]))
		if marker == 0xda { // the scan, which is the rest
			short = append(short, whole[at:]...)
			break
		}
		if marker != 0xc4 { // Huffman tables
			short = append(short, whole[at:at+size]...)
		}
		at += size
	}
	want, err := imagefile.Decode(whole, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := imagefile.Decode(short, nil)
	if err != nil || len(short) == len(whole) || !slices.Equal(got.Pix, want.Pix) {
		t.Errorf("got %v, want the pixels of the frame with tables", err)
	}
}

// fed runs a feed in a folder until the test ends.
func fed(t *testing.T, f *Feed) (ended chan error) {
	t.Helper()
	f.Dir = t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	ended = make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return ended
}

// frames are the names in a feed's folder.
func frames(t *testing.T, f *Feed) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if IsFrame(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestTriggers: each line is a frame, with its text in the name, in their order; the end of the lines ends the feed.
func TestTriggers(t *testing.T) {
	want := picture(t, 1)
	c, _ := opened(t, fake(t, sends(time.Millisecond, false, want)).URL, Options{})
	lines, w := io.Pipe()
	f := &Feed{Camera: c, Triggers: ReadTriggers(lines)}
	ended := fed(t, f)
	io.WriteString(w, "part 1\n\n../../2/\xff \n"+strings.Repeat("ä", 5000)+"\nlast")
	w.Close()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	ended <- nil // for the end of the test
	names := frames(t, f)
	var labels []string
	for _, name := range names {
		_, rest, _ := strings.Cut(strings.TrimPrefix(name, "frame-"), "Z")
		labels = append(labels, rest)
		if got, err := os.ReadFile(filepath.Join(f.Dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, %v, want the %d that were sent", name, len(got), err, len(want))
		}
	}
	if want := []string{"-part_1.jpg", ".jpg", "-.._.._2__.jpg", "-" + strings.Repeat("ä", 51) + ".jpg", "-last.jpg"}; !slices.Equal(labels, want) {
		t.Errorf("got %q, want %q", labels, want)
	}
	if taken, dropped := f.Counts(); taken != 5 || dropped != 0 {
		t.Errorf("got %d frames, %d dropped, want 5 and 0", taken, dropped)
	}
}

// TestTriggersInTime: a line gets a picture that was made after it came, and soon; lines that come while the camera is away get none,
// also when it is back.
func TestTriggersInTime(t *testing.T) {
	var away atomic.Bool
	var made atomic.Int64 // pictures, each of which has its number in it
	away.Store(true)
	s := fake(t, func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "image/jpeg")
		fmt.Fprint(w, made.Add(1))
	})
	c, _ := opened(t, s.URL, Options{Longest: 10 * time.Millisecond})
	lines, w := io.Pipe()
	f := &Feed{Camera: c, Triggers: ReadTriggers(lines), Patience: time.Second}
	fed(t, f)
	io.WriteString(w, "early1\nearly2\nearly3\n")
	testmain.Wait(t, "dropped lines", func() bool { _, dropped := f.Counts(); return dropped == 3 })
	away.Store(false)
	next(t, c)
	for i := range int64(3) {
		before := made.Load()
		fmt.Fprintln(w, "part", i)
		testmain.Wait(t, "a frame", func() bool { taken, dropped := f.Counts(); return taken+dropped == 3+i+1 })
		names := frames(t, f)
		if want := fmt.Sprintf("Z-part_%d.jpg", i); int64(len(names)) != i+1 || !strings.HasSuffix(names[i], want) {
			t.Fatalf("got %q, want %d, the last of them %s", names, i+1, want)
		}
		data, err := os.ReadFile(filepath.Join(f.Dir, names[i]))
		if err != nil {
			t.Fatal(err)
		}
		if number, err := strconv.ParseInt(string(data), 10, 64); err != nil || number <= before {
			t.Errorf("%s: got picture %d, %v, want one after %d", names[i], number, err, before)
		}
	}
	if err := f.due(t.Context(), time.Now().Add(-time.Minute), "late"); err != nil { // whose turn comes late, and a frame is there
		t.Fatal(err)
	}
	if taken, dropped := f.Counts(); taken != 3 || dropped != 4 {
		t.Errorf("got %d frames, %d dropped, want 3 and 4", taken, dropped)
	}
}

// TestDropped: what nobody takes away makes later frames be dropped, which is counted and said; so are triggers for which no frame
// comes in time.
func TestDropped(t *testing.T) {
	works := fake(t, sends(time.Millisecond, false, picture(t, 1))).URL
	silent := fake(t, writes("multipart/x-mixed-replace; boundary=b", "--b\r\n\r\nframe\r\n--b\r\n", http.StatusOK, true)).URL // after one frame
	for _, c := range []struct {
		name, address string
		feed          *Feed
		taken         int64
	}{
		{"all", works, &Feed{Most: 3}, 3}, {"every", works, &Feed{Most: 3, Every: 2 * time.Millisecond}, 3}, {"triggers", works, &Feed{Most: 3, Triggers: ReadTriggers(&endless{again: "\n"})}, 3},
		{"no camera", silent, &Feed{Triggers: ReadTriggers(strings.NewReader("1\n2\n3\n")), Patience: time.Millisecond}, 0}, {"no camera in time", silent, &Feed{Every: 2 * time.Millisecond, Patience: time.Millisecond}, 0},
	} {
		l := &log{}
		f := c.feed
		f.Camera, _ = opened(t, c.address, Options{})
		f.Log = l.add
		fed(t, f)
		testmain.Wait(t, c.name+": dropped frames", func() bool {
			taken, dropped := f.Counts()
			return taken >= c.taken && dropped >= 3 && strings.Contains(l.text(), "dropped")
		})
		if taken, _ := f.Counts(); taken != c.taken || int64(len(frames(t, f))) != c.taken {
			t.Errorf("%s: got %d taken, %q, want %d", c.name, taken, frames(t, f), c.taken)
		}
	}
}

// TestOthers: what else is in the folder under names of frames, and stays there, keeps none out and is not waited for.
func TestOthers(t *testing.T) {
	c, _ := opened(t, fake(t, sends(time.Millisecond, false, picture(t, 1))).URL, Options{})
	f := &Feed{Camera: c, Dir: t.TempDir(), Most: 2, Triggers: ReadTriggers(strings.NewReader("1\n2\n3\n"))}
	const link, judged, old = "frame-20260331T120000.000000Z.jpg", "frame-20260331T120000.000001Z.jpg", "frame-20260331T120000.000002Z.jpg"
	if err := errors.Join(os.Symlink("nowhere", filepath.Join(f.Dir, link)), os.WriteFile(filepath.Join(f.Dir, judged), nil, 0o666),
		os.WriteFile(filepath.Join(f.Dir, old), nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	if err := f.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if taken, dropped := f.Counts(); taken != 2 || dropped != 1 {
		t.Errorf("got %d frames, %d dropped, want 2 and 1", taken, dropped)
	}
	if empty, err := f.Empty(); empty || err != nil {
		t.Errorf("got empty %v, %v, want false", empty, err)
	}
	for _, name := range frames(t, f)[3:] {
		if err := os.Remove(filepath.Join(f.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if empty, err := f.Empty(); !empty || err != nil {
		t.Errorf("got empty %v, %v, want true", empty, err)
	}
	testmain.WantFiles(t, f.Dir, link, judged, old)
}

// TestEvery: frames come at their pace, not at the camera's.
func TestEvery(t *testing.T) {
	c, _ := opened(t, fake(t, sends(time.Millisecond, false, picture(t, 1))).URL, Options{})
	f := &Feed{Camera: c, Every: 50 * time.Millisecond, Most: 1000}
	began := time.Now()
	fed(t, f)
	testmain.Wait(t, "frames", func() bool { taken, _ := f.Counts(); return taken >= 4 })
	taken, _ := f.Counts()
	if most := int64(time.Since(began)/f.Every) + 1; taken > most {
		t.Errorf("got %d frames, want at most %d", taken, most)
	}
	if empty, err := f.Empty(); empty || err != nil {
		t.Errorf("got empty %v, %v", empty, err)
	}
}

func TestIsFrame(t *testing.T) {
	for name, want := range map[string]bool{
		"frame-20260331T120000.123456Z.jpg": true, "frame-20260331T120000.123456Z-part_1.png": true, "frame-20260331T120000.123456Z.txt": false,
		"photo.jpg": false, ".frame.part": false, "frame-1.jpg": false,
	} {
		if got := IsFrame(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}
