package server_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rdpp/infer/server"
	"rdpp/rdpp"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// What TestMain makes for all tests: models with random weights and pictures. With random weights scores mean nothing, but
// they differ.
var (
	modelFile string    // input side modelSide, its threshold in the middle of the pictures' scores
	otherFile string    // another model, calibrated
	pictures  [][]byte  // PNG files of different sizes
	scores    []float64 // of pictures by modelFile
	threshold float64
)

const modelSide = 32

func TestMain(m *testing.M) { os.Exit(testmain.Run(m, prepare)) }

func prepare(dir string) error {
	// Results are the same bit for bit only for the same number of threads.
	if err := torch.SetThreads(2); err != nil {
		return err
	}
	for i := range 4 {
		pictures = append(pictures, painted(40+10*i, 64-5*i, i))
	}
	modelFile, otherFile = filepath.Join(dir, "part.safetensors"), filepath.Join(dir, "other.safetensors")
	if err := writeModel(modelFile, modelSide, 1, rdpp.Calibration{}); err != nil {
		return err
	}
	if err := scoreAll(); err != nil {
		return err
	}
	threshold = (min(scores[0], scores[1]) + max(scores[0], scores[1])) / 2
	c := rdpp.Calibration{Rule: "middle of two pictures", Provisional: true, Threshold: threshold, PixelThreshold: threshold}
	if err := writeModel(modelFile, modelSide, 1, c); err != nil {
		return err
	}
	c = rdpp.Calibration{Rule: "by hand", FalseAlarm: 0.1, Exact: true, Threshold: 2, PixelThreshold: 2, Scores: []float64{0.5, 1, 1.5, 1.7, 1.8, 1.9, 2, 2.1, 2.2, 2.3}}
	return writeModel(otherFile, modelSide, 2, c)
}

func writeModel(path string, side int, seed uint64, c rdpp.Calibration) error {
	config := rdpp.DefaultConfig()
	config.Arch, config.ImageSize, config.Seed = "resnet18", side, seed
	model, err := rdpp.NewModel(config, torch.CPU)
	if err != nil {
		return err
	}
	defer model.Close()
	model.Info.Calibration, model.Info.Category = c, "part"
	return model.Save(path)
}

func scoreAll() error {
	d, err := rdpp.OpenDetector(modelFile, nil)
	if err != nil {
		return err
	}
	defer d.Close()
	for _, data := range pictures {
		r, _, err := d.DetectBytes(data)
		if err != nil {
			return err
		}
		scores = append(scores, r.Score)
	}
	return nil
}

// painted is a PNG file of w x h pixels that differ.
func painted(w, h, seed int) []byte {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.RGBA{uint8(60 + (x*(7+seed)+y*13)%90), uint8(40 + (x*y+seed*31)%120), uint8(90 + (x+y*5)%70), 255}
			if x < w/4 && y < h/(2+seed) {
				c = color.RGBA{255, 250, uint8(60 * seed), 255}
			}
			img.SetRGBA(x, y, c)
		}
	}
	var file bytes.Buffer
	if err := png.Encode(&file, img); err != nil {
		panic(err) // into memory
	}
	return file.Bytes()
}

// service is a server on loopback.
type service struct {
	*server.Server
	url    string
	client *http.Client
	logs   *logBuffer
	stop   func() error // ends it and waits; idempotent
}

// logBuffer keeps what is logged.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start serves until the test ends. Logs are kept, if the test has no logger of its own.
func start(t testing.TB, opt server.Options) *service {
	t.Helper()
	if opt.Model == "" {
		opt.Model = modelFile
	}
	opt.Timeout = cmp.Or(opt.Timeout, 10*time.Minute) // however busy the machine is
	v := &service{logs: &logBuffer{}, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.NewJSONHandler(v.logs, nil))
	}
	var err error
	if v.Server, err = server.New(opt); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Serve(ctx, l, "", "") }()
	v.url = "http://" + l.Addr().String()
	v.stop = sync.OnceValue(func() error {
		cancel()
		err := <-done
		v.client.CloseIdleConnections()
		v.Close()
		return err
	})
	t.Cleanup(func() {
		if err := v.stop(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// answer is a response with its body read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a *answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("status %d, %q: %v", a.status, a.body, err)
	}
}

// reason is the error's text, "" if the answer is not an error as it should be.
func (a *answer) reason() string {
	var e map[string]string
	if json.Unmarshal(a.body, &e) != nil || len(e) != 1 {
		return ""
	}
	return e["error"]
}

// try sends a request; header holds pairs.
func (v *service) try(method, path string, body io.Reader, header ...string) (*answer, error) {
	r, err := http.NewRequest(method, v.url+path, body)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := v.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return &answer{response.StatusCode, response.Header, data}, err
}

// ask is try of what must get an answer.
func (v *service) ask(t testing.TB, method, path string, body []byte, header ...string) *answer {
	t.Helper()
	a, err := v.try(method, path, bytes.NewReader(body), header...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const predictPath = "/v1/models/part/predict"

// form makes a multipart body of files.
func form(files ...[]byte) (body []byte, contentType string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i, file := range files {
		part, err := w.CreateFormFile("image", fmt.Sprintf("%d.png", i))
		if err == nil {
			_, err = part.Write(file)
		}
		if err != nil {
			panic(err) // into memory
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes(), w.FormDataContentType()
}

// pixelsOf decodes a picture.
func pixelsOf(t testing.TB, file []byte) *imagefile.Image {
	t.Helper()
	img, err := imagefile.Decode(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// eventually waits for what other goroutines bring about.
func eventually(t testing.TB, what string, happened func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !happened() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it has not happened in a minute", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// metric is a line's value in /metrics, 0 if it is not there.
func (v *service) metric(t testing.TB, line string) float64 {
	t.Helper()
	for l := range strings.Lines(string(v.ask(t, "GET", "/metrics", nil).body)) {
		if rest, ok := strings.CutPrefix(l, line+" "); ok {
			var value float64
			if _, err := fmt.Sscan(rest, &value); err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	return 0
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".copy", data, 0o666)
	}
	if err == nil {
		err = os.Rename(to+".copy", to)
	}
	if err != nil {
		t.Fatal(errors.Join(err))
	}
}
