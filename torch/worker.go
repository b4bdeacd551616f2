package torch

import (
	"errors"
	"runtime"
	"sync"
)

// ErrClosed is the answer of a Worker that has been closed.
var ErrClosed = errors.New("torch: the worker is closed")

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
	go func() {
		runtime.LockOSThread()
		defer close(w.done)
		for {
			select {
			case job := <-w.jobs:
				job()
			case <-w.quit:
				return
			}
		}
	}()
	return w
}

// Do runs f on the worker's thread and returns its error, or ErrClosed when the worker is closed before it takes
// f. Called from within a job it would wait for itself for ever.
func (w *Worker) Do(f func() error) error {
	result := make(chan error, 1)
	select {
	case w.jobs <- func() { result <- f() }:
		return <-result
	case <-w.done:
		return ErrClosed
	}
}

// Close lets the running job finish and ends the worker. It is idempotent, and like Do not for use from within a job.
func (w *Worker) Close() {
	w.once.Do(func() { close(w.quit) })
	<-w.done
}
