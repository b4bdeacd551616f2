package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rdpp/torch"
)

// A device whose memory cannot be read costs its own figure alone, and the log says why.
func TestMetricsWithoutDevice(t *testing.T) {
	var logs strings.Builder
	m := newMetrics(torch.CUDA(4000), slog.New(slog.NewTextHandler(&logs, nil)), &budget{limit: 1}, func() []*model { return nil })
	page := httptest.NewRecorder()
	if err := m.serve(&exchange{ResponseWriter: page}, httptest.NewRequest("GET", "/metrics", nil)); err != nil {
		t.Fatal(err)
	}
	text := page.Body.String()
	if page.Code != http.StatusOK || !strings.Contains(text, "go_goroutines") || strings.Contains(text, "rdpp_device_memory_bytes") {
		t.Errorf("got status %d, %s, want 200 and all but the device's memory", page.Code, text)
	}
	if !strings.Contains(logs.String(), "device memory") {
		t.Errorf("got the log %q, want the reason", &logs)
	}
}
