package server

import (
	"testing"
	"testing/synctest"
	"time"
)

func jobs(n int) (list []*job) {
	for range n {
		list = append(list, &job{since: time.Now(), done: make(chan struct{})})
	}
	return list
}

// A full batch is taken at once, a smaller one when its first job has waited.
func TestQueueTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const wait = 2 * time.Millisecond
		q := newQueue(10, 4, wait)
		begin := time.Now()
		take := func(want int, after time.Duration) {
			t.Helper()
			if got := q.take(); len(got) != want || time.Since(begin) != after {
				t.Errorf("got %d jobs after %v, want %d after %v", len(got), time.Since(begin), want, after)
			}
		}
		put := func(n int) []*job {
			t.Helper()
			list := jobs(n)
			if err := q.reserve(n); err != nil {
				t.Errorf("got %v for %d jobs, want none", err, n)
			}
			q.put(list)
			return list
		}
		put(9)
		if err := q.reserve(2); err != errFull || q.length() != 9 {
			t.Errorf("got %v and %d jobs waiting, want errFull and 9", err, q.length())
		}
		// A place that is kept is taken, until it is given back.
		if err := q.reserve(1); err != nil {
			t.Error(err)
		}
		if err := q.reserve(1); err != errFull {
			t.Errorf("got %v, want errFull", err)
		}
		q.cancel(1)
		if err := q.reserve(1); err != nil {
			t.Errorf("after a place was given back: got %v, want none", err)
		}
		q.cancel(1)
		take(4, 0)
		take(4, 0)
		take(1, wait)

		// The wait counts from the first job, and others that come meanwhile join it.
		begin = time.Now()
		go func() {
			put(1)
			time.Sleep(wait / 2)
			put(2)
		}()
		take(3, wait)

		// Those dropped are not taken, nor waited for.
		begin = time.Now()
		gone, stays := put(1), put(1)
		q.drop(gone)
		if got := q.take(); len(got) != 1 || got[0] != stays[0] {
			t.Errorf("after a drop: got %d jobs, want the one that stays", len(got))
		}
		gone = put(2)
		q.drop(gone)
		begin = time.Now()
		go func() {
			time.Sleep(time.Second)
			put(4)
		}()
		take(4, time.Second)

		// What waits at the end is taken at once, and then nothing.
		put(2)
		q.close()
		take(2, time.Second)
		if got := q.take(); got != nil {
			t.Errorf("closed: got %d jobs, want none", len(got))
		}
	})
}
