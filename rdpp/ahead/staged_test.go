package ahead

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Things that take longer the earlier they are come in order, and as many as may be are begun.
func TestStaged(t *testing.T) {
	for _, c := range []struct{ n, ahead int }{{0, 3}, {1, 3}, {3, 0}, {10, 3}, {10, 1}, {4, 20}} {
		synctest.Test(t, func(t *testing.T) {
			began := 0
			begin := func(_ context.Context, i int) func() int {
				if i != began {
					t.Errorf("n %d, ahead %d: got %d begun, want %d", c.n, c.ahead, i, began)
				}
				began++
				return func() int { time.Sleep(time.Duration(20-i) * time.Second); return i }
			}
			var got, want []int
			for i, err := range Staged(t.Context(), c.n, c.ahead, begin) {
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if most := min(c.n, i+1+c.ahead); began != most {
					t.Errorf("n %d, ahead %d: got %d begun beside %d, want %d", c.n, c.ahead, began, i, most)
				}
				got, want = append(got, i), append(want, len(want))
			}
			if !slices.Equal(got, want) || len(got) != c.n {
				t.Errorf("n %d, ahead %d: got %v", c.n, c.ahead, got)
			}
		})
	}
}

// Begun ones are finished side by side.
func TestStagedIsParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		for range Staged(t.Context(), 8, 3, func(context.Context, int) func() int {
			return func() int { time.Sleep(time.Minute); return 0 }
		}) {
		}
		if took := time.Since(start); took != 2*time.Minute {
			t.Errorf("got 8 of a minute, 4 at once, in %v, want 2 minutes", took)
		}
	})
}

// A loop that is left waits for what it has begun, which ctx tells; one whose ctx ends does not wait.
func TestStagedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int64
		begin := func(ctx context.Context, i int) func() int {
			return func() int {
				if i > 0 {
					<-ctx.Done()
					time.Sleep(time.Second)
					ended.Add(1)
				}
				return i
			}
		}
		for range Staged(t.Context(), 5, 2, begin) {
			synctest.Wait()
			break
		}
		if ended.Load() != 2 {
			t.Errorf("left: got %d ended, want 2", ended.Load())
		}

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got []string
		start := time.Now()
		for i, err := range Staged(ctx, 5, 2, begin) {
			got = append(got, fmt.Sprint(i, err))
			synctest.Wait()
			cancel()
		}
		if want := []string{"0 <nil>", "0 context canceled"}; !slices.Equal(got, want) || time.Since(start) != 0 {
			t.Errorf("cancelled: got %q after %v, want %q at once", got, time.Since(start), want)
		}
		time.Sleep(time.Second) // for what was left behind
	})
}

// Each thing of which the beginning blocks is waited for by ctx too.
func TestStagedBeginBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, err := range Staged(ctx, 2, 1, func(context.Context, int) func() int { time.Sleep(time.Hour); return func() int { return 0 } }) {
			if err != context.DeadlineExceeded {
				t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
			}
		}
		time.Sleep(2 * time.Hour)
	})
}

func ExampleStaged() {
	names := []string{"a", "b", "c"}
	read := func(_ context.Context, i int) func() string {
		return func() string { return "the content of " + names[i] }
	}
	for content, err := range Staged(context.Background(), len(names), 2, read) {
		fmt.Println(content, err)
	}
	// Output:
	// the content of a <nil>
	// the content of b <nil>
	// the content of c <nil>
}
