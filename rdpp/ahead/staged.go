package ahead

import (
	"context"
	"iter"
	"sync"
)

// Staged yields n things in order, where beginning one has an order too, as reading pipes has. begin is called for one after the other, ahead of time, and returns what finishes that
// thing, which runs beside others; both are to end soon when their ctx does. Beside the thing that the loop's body has, at
// most ahead others have been begun. The first error, ctx's end, is the last thing yielded.
//
// All goroutines have ended when the loop has, or soon after it where ctx was cancelled: what waits for a disk that no
// longer answers is left behind.
func Staged[T any](ctx context.Context, n, ahead int, begin func(ctx context.Context, i int) (finish func() T)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		inner, cancel := context.WithCancel(ctx)
		var working sync.WaitGroup
		defer func() {
			cancelled := ctx.Err() != nil
			cancel()
			if !cancelled {
				working.Wait()
			}
		}()
		room := make(chan struct{}, ahead+1) // holds one for each that is begun, until the loop's body is done with it
		begun := make(chan chan T, ahead+1)
		working.Go(func() {
			for i := range n {
				select {
				case room <- struct{}{}:
				case <-inner.Done():
					return
				}
				outcome := make(chan T, 1)
				begun <- outcome // there is room
				finish := begin(inner, i)
				working.Go(func() { outcome <- finish() })
			}
		})
		for range n {
			value, err := next(ctx, begun)
			if !yield(value, err) || err != nil {
				return
			}
			<-room
		}
	}
}

// next waits for the first of what was begun.
func next[T any](ctx context.Context, begun <-chan chan T) (value T, err error) {
	select {
	case outcome := <-begun:
		select {
		case value = <-outcome:
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	return value, ctx.Err()
}
