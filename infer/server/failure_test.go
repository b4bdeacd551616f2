package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rdpp/rdpp/imagefile"
	"rdpp/torch"
)

// What libtorch refuses, by real errors of its own, is told apart: a machine that cannot now, and a request that never
// will do.
func TestMachineFailures(t *testing.T) {
	var s torch.Scope
	defer s.Close()
	x := s.Tensor(torch.FromSlice(make([]float32, 4), 1, 1, 2, 2))
	y := s.Tensor(torch.FromSlice(make([]float32, 9), 1, 1, 3, 3))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	predict := func(f, g torch.Features, S int) error {
		maps, smoothed, err := torch.AnomalyMap(f, g, S, torch.MapOptions{Sigma: 4})
		maps.Close()
		smoothed.Close()
		return err
	}
	few, many := torch.Features{x, x, x}, torch.Features{y, y, y}
	_, noDevice := x.To(torch.CUDA(63), torch.Float32)
	for _, c := range []struct {
		name   string
		err    error
		status int
		retry  bool
		word   string
	}{
		{"map of 2^48 values", predict(few, few, 1<<24), http.StatusServiceUnavailable, true, "no memory left"},
		{"device", noDevice, http.StatusServiceUnavailable, true, "CUDA device 63"},
		{"shapes", predict(few, many, 4), http.StatusUnprocessableEntity, false, "different shapes"},
		{"bug", fmt.Errorf("%w: nil map", torch.ErrPanic), http.StatusInternalServerError, false, "nil map"},
		{"model that memory lacks for", loadFailure("part", fmt.Errorf("rdpp: %w", torch.ErrOutOfMemory)), http.StatusServiceUnavailable, true, "part"},
		{"damaged model", loadFailure("part", errors.New("rdpp: no safetensors file")), http.StatusUnprocessableEntity, false, "model part: rdpp"},
		{"time", context.DeadlineExceeded, http.StatusServiceUnavailable, true, "--timeout"},
	} {
		w := httptest.NewRecorder()
		new(Server).fail(&exchange{ResponseWriter: w}, httptest.NewRequest("POST", "/", nil), fmt.Errorf("outer: %w", c.err))
		var body struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != c.status || !strings.Contains(body.Error, c.word) {
			t.Errorf("%s: got %d, %s, want %d with %q", c.name, w.Code, w.Body, c.status, c.word)
		}
		if got := w.Header().Get("Retry-After") != ""; got != c.retry {
			t.Errorf("%s: got Retry-After %q, want one: %v", c.name, w.Header().Get("Retry-After"), c.retry)
		}
	}
}

// A panic over an image is the service's own fault, whether the image is small or large and whoever recovers from it; damage is
// the request's. Of several images the one is named.
func TestUnreadableImages(t *testing.T) {
	before := costOf
	defer func() { costOf = before }()
	cost := func(err error) func([]byte, *imagefile.Options) (int, int, int64, error) {
		return func([]byte, *imagefile.Options) (int, int, int64, error) { return 0, 0, 0, err }
	}
	oops := func([]byte, *imagefile.Options) (int, int, int64, error) { panic("oops") }
	for _, c := range []struct {
		what   string
		bytes  int
		costOf func([]byte, *imagefile.Options) (int, int, int64, error)
		status int
		word   string
	}{
		{"a panic, small", 10, oops, http.StatusInternalServerError, "internal fault"},
		{"a panic, large", 2 << 10, oops, http.StatusInternalServerError, "internal fault"},
		{"a decoder's panic", 10, cost(fmt.Errorf("damaged: its decoder %w: oops", imagefile.ErrPanic)), http.StatusInternalServerError, "its decoder panicked"},
		{"damage", 10, cost(errors.New("damaged PNG file")), http.StatusBadRequest, "damaged PNG"},
	} {
		costOf = c.costOf
		s := &Server{memory: budget{limit: 64 << 10}, slots: newSlots(2), opt: Options{Logger: slog.New(slog.DiscardHandler)}}
		one := picture{name: "a.png", encoded: make([]byte, c.bytes)}
		for _, pictures := range [][]picture{{one}, {one, one}} {
			q := &inquiry{server: s, ctx: t.Context(), x: &exchange{}, pictures: pictures}
			_, err := q.prepareAll()
			if err == nil {
				t.Errorf("%s: got no error", c.what)
				continue
			}
			f := explain(err, httptest.NewRequest("POST", "/", nil))
			if named := strings.HasPrefix(f.Error(), `image 1, "a.png": `); f.status != c.status || !strings.Contains(f.Error(), c.word) || named != (len(pictures) > 1) {
				t.Errorf("%s, %d images: got %d, %v, want %d with %q", c.what, len(pictures), f.status, f, c.status, c.word)
			}
		}
	}
}
