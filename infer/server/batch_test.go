package server

import (
	"slices"
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

// A request of many images does not keep others waiting for all of them, nor out.
func TestQueueIsFair(t *testing.T) {
	q := newQueue(16, 4, 0)
	put := func(n int) []*job {
		t.Helper()
		if err := q.reserve(n); err != nil {
			t.Fatalf("%d jobs: got %v, want room", n, err)
		}
		list := jobs(n)
		q.put(list)
		return list
	}
	many := put(12)
	if err := q.reserve(3); err != errFull {
		t.Errorf("three more: got %v, want an eighth of the places left to single images", err)
	}
	one, other := put(1)[0], put(1)[0]
	batch := func(want ...*job) {
		t.Helper()
		if got := q.take(); !slices.Equal(got, want) {
			t.Errorf("got a batch of %d jobs, want others or another order", len(got))
		}
	}
	batch(many[0], one, other, many[1])
	late := put(1)[0] // it comes when the second of many is due
	batch(late, many[2], many[3], many[4])
	batch(many[5], many[6], many[7], many[8])
	// However many others come, it has its turns: the tenth image in the tenth batch.
	crowd := func() []*job { return []*job{put(1)[0], put(1)[0], put(1)[0], put(1)[0]} }
	for range 6 {
		batch(crowd()...)
	}
	last := crowd()
	batch(many[9], last[0], last[1], last[2])
}
