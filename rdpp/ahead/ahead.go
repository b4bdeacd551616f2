// Package ahead makes values before they are asked for, in their order.
package ahead

import (
	"context"
	"iter"
	"sync"
)

// Range yields produce(from), ..., produce(to-1) in order, made ahead of time by a number of goroutines: those of the next
// ahead values, at least of as many as there are goroutines, are made or being made. An error or the
// end of ctx ends it. All goroutines have ended when the loop has, but where ctx ended it: what no longer answers, such as a
// file on a share, is not waited for.
func Range[T any](ctx context.Context, workers, ahead, from, to int, produce func(ctx context.Context, i int) (T, error)) iter.Seq2[T, error] {
	type made struct {
		value T
		err   error
	}
	return func(yield func(T, error) bool) {
		ahead = max(ahead, workers)
		wanted, slots := make(chan int, ahead), make([]chan made, ahead)
		for i := range slots {
			slots[i] = make(chan made, 1)
		}
		outer := ctx
		ctx, stop := context.WithCancel(outer)
		var group sync.WaitGroup
		defer func() {
			cancelled := outer.Err() != nil
			stop()
			close(wanted)
			if !cancelled {
				group.Wait()
			}
		}()
		for range workers {
			group.Go(func() {
				for i := range wanted {
					if ctx.Err() != nil {
						return
					}
					value, err := produce(ctx, i)
					slots[i%ahead] <- made{value, err}
				}
			})
		}
		for i := from; i < min(from+ahead, to); i++ {
			wanted <- i
		}
		for i := from; i < to; i++ {
			var m made
			select {
			case m = <-slots[i%ahead]:
			case <-ctx.Done():
			}
			if ctx.Err() != nil {
				return
			}
			if i+ahead < to {
				wanted <- i + ahead
			}
			if !yield(m.value, m.err) || m.err != nil {
				return
			}
		}
	}
}
