package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"

	"rdpp/torch"
)

// Requests to load that have to wait share what they wait for, and end with their clients, or with the service.
func TestWaitingForALoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := &Options{Model: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
		opt.complete()
		r := newRepository(opt, newMetrics(torch.CPU, opt.Logger, &budget{limit: 1}, func() []*model { return nil }))
		r.folder = true
		if err := r.lock(t.Context()); err != nil { // somebody else is loading
			t.Fatal(err)
		}
		ask := func(ctx context.Context, n int) <-chan error {
			answers := make(chan error, n)
			for range n {
				go func() { answers <- r.request(ctx, "part", true) }()
			}
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			if w := r.wanted["part"]; w == nil || w.clients != n {
				t.Fatalf("got %+v, want %d clients that wait for the same", w, n)
			}
			return answers
		}
		ctx, cancel := context.WithCancel(t.Context())
		answers := ask(ctx, 50)
		cancel() // their clients have left
		for range 50 {
			if err := <-answers; !errors.Is(err, context.Canceled) {
				t.Errorf("a client that left: got %v", err)
			}
		}
		r.asked.Wait() // nothing goes on, though the other one is still loading
		if len(r.wanted) != 0 {
			t.Errorf("got %d that are still wanted, want none", len(r.wanted))
		}

		answers = ask(t.Context(), 2)
		r.unlock()
		for range 2 {
			f := (*failure)(nil)
			if err := <-answers; !errors.As(err, &f) || f.status != http.StatusNotFound {
				t.Errorf("after the other one: got %v, want that no model is named so", err)
			}
		}

		if err := r.lock(t.Context()); err != nil {
			t.Fatal(err)
		}
		answers = ask(t.Context(), 2)
		r.stop()
		for range 2 {
			if err := <-answers; !errors.Is(err, errEnding) {
				t.Errorf("at the end of the service: got %v, want %v", err, errEnding)
			}
		}
		r.unlock()
		r.close()
	})
}
