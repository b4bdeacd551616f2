package torch

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
)

// ErrClosed is the answer of a Worker that has been closed.
var ErrClosed = errors.New("torch: the worker is closed")

// ErrPanic is wrapped by the error of a job that panicked, or that called runtime.Goexit.
var ErrPanic = errors.New("torch: panic in a job, a bug of this program")

// errGoexit is the result of a job that never returned, as when a test calls t.FailNow in it.
var errGoexit = fmt.Errorf("%w: it called runtime.Goexit", ErrPanic)

// Worker is a goroutine locked to its OS thread that does the work of one device in turn. It is safe for
// concurrent use.
type Worker struct {
	jobs chan func()
	quit chan struct{}
	once sync.Once
	done chan struct{}
}

// NewWorker starts a worker; Close ends it.
func NewWorker() *Worker {
	w := &Worker{jobs: make(chan func()), quit: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

func (w *Worker) run() {
	runtime.LockOSThread()
	closed := false
	defer func() {
		if closed {
			close(w.done)
		} else {
			go w.run() // a job has called runtime.Goexit, which ended this goroutine
		}
	}()
	for {
		select {
		case job := <-w.jobs:
			job()
		case <-w.quit:
			closed = true
			return
		}
	}
}

// Do runs f on the worker's thread and returns its error, or ErrClosed when the worker is closed before it takes
// f, or ErrPanic when f panics or calls runtime.Goexit. Called from within a job it would wait for itself for ever.
func (w *Worker) Do(f func() error) error {
	result := make(chan error, 1)
	job := func() {
		err := errGoexit
		defer func() { result <- err }()
		err = recovered(f)
	}
	select {
	case w.jobs <- job:
		return <-result
	case <-w.done:
		return ErrClosed
	}
}

// recovered runs f; a panic, which on the worker's goroutine nobody else could recover from, becomes an error.
func recovered(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			slog.Error("torch: panic in a job", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", ErrPanic, r)
		}
	}()
	return f()
}

// Close lets the running job finish and ends the worker. It is idempotent, and like Do not for use from within a job.
func (w *Worker) Close() {
	w.once.Do(func() { close(w.quit) })
	<-w.done
}
