package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

// Figures that do not come are waited for as long as Prometheus waits, by so many and no more; when they come again, all is
// well.
func TestMetricsThatDoNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		m := newMetrics(torch.CPU, slog.New(slog.DiscardHandler), &budget{limit: 1}, func() []*model { <-stuck; return nil })
		ask := func(ctx context.Context) (status int, after time.Duration) {
			began, page := time.Now(), httptest.NewRecorder()
			r := httptest.NewRequest("GET", "/metrics", nil).WithContext(ctx)
			if err := m.serve(&exchange{ResponseWriter: page}, r); err != nil {
				return explain(err, r).status, time.Since(began)
			}
			return page.Code, time.Since(began)
		}
		left, leave := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		for i := range maxScrapes {
			asking.Go(func() {
				ctx, want, wait := t.Context(), http.StatusServiceUnavailable, scrapeTime
				if i == 0 {
					ctx, want, wait = left, statusGone, time.Second
				}
				if status, after := ask(ctx); status != want || after != wait {
					t.Errorf("got status %d after %v, want %d after %v", status, after, want, wait)
				}
			})
		}
		time.Sleep(time.Second)
		leave()
		check := func(what string, want int) {
			t.Helper()
			if status, after := ask(t.Context()); status != want || after != 0 {
				t.Errorf("%s: got status %d after %v, want %d at once", what, status, after, want)
			}
		}
		check("one too many", http.StatusServiceUnavailable)
		asking.Wait()
		check("nobody waits, but the figures have not come", http.StatusServiceUnavailable)
		close(stuck)
		synctest.Wait()
		check("they come again", http.StatusOK)
	})
}

// A panic while figures are collected is a fault of the service, which the log has; it goes on, and so do the figures once they
// can be had.
func TestMetricsThatPanic(t *testing.T) {
	var logs strings.Builder
	faulty := true
	m := newMetrics(torch.CPU, slog.New(slog.NewTextHandler(&logs, nil)), &budget{limit: 1}, func() []*model {
		if faulty {
			panic("oops")
		}
		return nil
	})
	for range 2 * maxScrapes {
		r, page := httptest.NewRequest("GET", "/metrics", nil), httptest.NewRecorder()
		err := m.serve(&exchange{ResponseWriter: page}, r)
		if err == nil || explain(err, r).status != http.StatusInternalServerError || page.Body.Len() > 0 {
			t.Fatalf("got %v and the page %q, want an internal fault", err, page.Body)
		}
	}
	if !strings.Contains(logs.String(), "oops") || !strings.Contains(logs.String(), "metrics_test.go") {
		t.Errorf("got the log %q, want the panic and where it was", &logs)
	}
	faulty = false
	page := httptest.NewRecorder()
	if err := m.serve(&exchange{ResponseWriter: page}, httptest.NewRequest("GET", "/metrics", nil)); err != nil || !strings.Contains(page.Body.String(), "rdpp_budget_bytes") {
		t.Errorf("afterwards: got %v, %s, want the figures", err, page.Body)
	}
}
