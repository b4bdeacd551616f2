package ahead

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
)

func TestRange(t *testing.T) {
	failure := errors.New("no ink")
	for _, workers := range []int{1, 3, 20} {
		for _, c := range []struct {
			ahead, from, to, stop, fail int
			want                        []int
		}{
			{0, 0, 5, -1, -1, []int{0, 1, 2, 3, 4}}, {7, 3, 5, -1, -1, []int{3, 4}}, {2, 4, 4, -1, -1, nil}, {2, 5, 4, -1, -1, nil},
			{30, 0, 50, 2, -1, []int{0, 1, 2}}, {5, 0, 50, -1, 2, []int{0, 1}},
		} {
			var running atomic.Int64
			produce := func(_ context.Context, i int) (int, error) {
				running.Add(1)
				defer running.Add(-1)
				if i == c.fail {
					return 0, failure
				}
				return i, nil
			}
			var got []int
			var failed error
			for i, err := range Range(t.Context(), workers, c.ahead, c.from, c.to, produce) {
				if failed = err; err == nil {
					got = append(got, i)
				}
				if i == c.stop {
					break
				}
			}
			if !slices.Equal(got, c.want) || (c.fail >= 0) != errors.Is(failed, failure) {
				t.Errorf("%d workers, %d to %d, stop %d, fail %d: got %v, error %v, want %v", workers, c.from, c.to, c.stop, c.fail, got,
					failed, c.want)
			}
			if left := running.Load(); left != 0 {
				t.Errorf("%d workers: %d still at work after the end", workers, left)
			}
		}
	}
}

// Who waits for what never comes goes on when its context ends.
func TestRangeLeavesBehind(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	never := make(chan struct{})
	defer close(never)
	produce := func(_ context.Context, i int) (int, error) {
		if i == 1 {
			cancel()
			<-never
		}
		return i, nil
	}
	var got []int
	for i, err := range Range(ctx, 2, 4, 0, 5, produce) {
		if err != nil {
			t.Errorf("got %v", err)
		}
		got = append(got, i)
	}
	if len(got) > 1 {
		t.Errorf("got %v after the end", got)
	}
}
