package server

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"rdpp/rdpp"
)

// job is an image that waits for its turn.
type job struct {
	input *rdpp.Input
	since time.Time
	turn  int // of the batches, when it is to be in one

	done   chan struct{} // closed when the following are set
	result *rdpp.Result
	err    error
}

// queue holds the jobs of one model in the order of their turns: those of the first images of requests in the order of their
// arrival, and of each request's next image a batch later, so that nobody waits for all images of another. Any number of
// goroutines reserve, put and drop; one takes.
type queue struct {
	size     int           // jobs at most
	maxBatch int           // jobs taken at once
	maxWait  time.Duration // of the first job of a batch for more

	mu       sync.Mutex
	waiting  []*job
	turn     int // of the next batch
	reserved int // places of jobs that are still being made
	closed   bool
	changed  chan struct{} // holds one when something has changed since the taker looked
}

func newQueue(size, maxBatch int, maxWait time.Duration) *queue {
	return &queue{size: size, maxBatch: maxBatch, maxWait: maxWait, changed: make(chan struct{}, 1)}
}

var errFull = errors.New("the queue is full; try again later, or raise --max-queue")

// reserve keeps places for n jobs, or none if there is no room for all: what is not to wait is not to be made. Several jobs
// leave an eighth of the places to others, unless nobody else is there.
func (q *queue) reserve(n int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken, most := len(q.waiting)+q.reserved, q.size
	if n > 1 && taken > 0 {
		most -= q.size / 8
	}
	if taken+n > most {
		return errFull
	}
	q.reserved += n
	return nil
}

// cancel gives back places of jobs that will not come.
func (q *queue) cancel(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reserved -= n
}

// put adds jobs, whose places are reserved.
func (q *queue) put(jobs []*job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reserved -= len(jobs)
	for i, j := range jobs {
		j.turn = q.turn + i
	}
	q.waiting = append(q.waiting, jobs...)
	slices.SortStableFunc(q.waiting, func(a, b *job) int { return cmp.Compare(a.turn, b.turn) })
	q.signal()
}

// drop takes back those of the jobs that still wait.
func (q *queue) drop(jobs []*job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = slices.DeleteFunc(q.waiting, func(j *job) bool { return slices.Contains(jobs, j) })
	q.signal()
}

// close makes take return what is left, then nothing. Nobody may put any more.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

func (q *queue) signal() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// take waits for a batch: as many jobs as a batch may have, or what there is when the first has waited long enough. It
// returns nil once the queue is closed and empty.
func (q *queue) take() []*job {
	for {
		batch, wait, closed := q.ready(time.Now())
		if batch != nil || closed {
			return batch
		}
		var alarm <-chan time.Time // never, if nobody waits
		if wait > 0 {
			alarm = time.After(wait)
		}
		select {
		case <-q.changed:
		case <-alarm:
		}
	}
}

// ready returns the batch that is due now, or how long the first job goes on waiting, 0 if there is none.
func (q *queue) ready(now time.Time) (batch []*job, wait time.Duration, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.waiting), q.maxBatch)
	if n == 0 {
		return nil, 0, q.closed
	}
	first := slices.MinFunc(q.waiting, func(a, b *job) int { return a.since.Compare(b.since) })
	wait = q.maxWait - now.Sub(first.since)
	if n < min(q.maxBatch, q.size) && wait > 0 && !q.closed {
		return nil, wait, false
	}
	batch = slices.Clone(q.waiting[:n])
	q.waiting = slices.Delete(q.waiting, 0, n)
	q.turn++
	return batch, 0, false
}

// work takes batches through the networks until the queue is closed.
func (m *model) work() {
	defer close(m.worked)
	for batch := m.queue.take(); batch != nil; batch = m.queue.take() {
		begin := time.Now()
		inputs := make([]*rdpp.Input, len(batch))
		for i, j := range batch {
			inputs[i] = j.input
			m.metrics.wait.WithLabelValues(m.name).Observe(begin.Sub(j.since).Seconds())
		}
		results, errs := m.detector.MeasureEach(inputs)
		taken := time.Since(begin)
		m.batchTime.Store(int64(taken))
		m.metrics.batch.WithLabelValues(m.name).Observe(float64(len(batch)))
		m.metrics.batchTime.WithLabelValues(m.name).Observe(taken.Seconds())
		for i, j := range batch {
			j.result, j.err = results[i], errs[i]
			close(j.done)
		}
	}
}

// measure sends inputs, whose places are reserved, through the queue and waits for their results. If ctx ends first, those still waiting leave the queue.
func (m *model) measure(ctx context.Context, inputs []*rdpp.Input) ([]*rdpp.Result, error) {
	jobs := make([]*job, len(inputs))
	for i, input := range inputs {
		jobs[i] = &job{input: input, since: time.Now(), done: make(chan struct{})}
	}
	m.queue.put(jobs)
	results := make([]*rdpp.Result, len(jobs))
	for i, j := range jobs {
		select {
		case <-j.done:
			if j.err != nil {
				m.queue.drop(jobs)
				return nil, j.err
			}
			results[i] = j.result
		case <-ctx.Done():
			m.queue.drop(jobs)
			return nil, ctx.Err()
		}
	}
	return results, nil
}

// backlog is how long the queue as it is will take.
func (m *model) backlog() time.Duration {
	batches := (m.queue.length() + m.queue.maxBatch - 1) / m.queue.maxBatch
	return time.Duration(batches) * time.Duration(m.batchTime.Load())
}
