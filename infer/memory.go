package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sync/semaphore"

	"rdpp/rdpp/imagefile"
)

// limitMemory makes Go's collector keep its memory within three quarters of so many bytes, or 128 MiB, as far as it can,
// unless the environment has GOMEMLIMIT: nothing large takes more of Go's memory, and the C libraries take some too. Models
// are not in it: their memory is libtorch's. restore ends that.
func limitMemory(bytes int64) (restore func()) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	before := debug.SetMemoryLimit(max(bytes/4*3, 128<<20))
	return func() { debug.SetMemoryLimit(before) }
}

// room is memory that goroutines share for reading, decoding and drawing images.
type room struct {
	limit int64 // bytes
	held  *semaphore.Weighted
}

// errRoom is wrapped by the errors about images that never have room.
var errRoom = errors.New("raise --max-memory")

func newRoom(limit int64) *room { return &room{limit, semaphore.NewWeighted(limit)} }

// heldHeatmap is what drawing a heat map takes beside the image, in bytes per pixel: the enlarged map and the picture.
const heldHeatmap = 4 + 4

// take waits until a file that read reads, of size bytes, can be held and decoded, which is to leave room for perPixel bytes
// for each of its pixels and for more bytes, and returns its content. Then release has to be called. size is a guess where the file is no regular one. One goroutine alone may call it: two that hold files
// and wait for room to decode them might wait for each other.
func (r *room) take(ctx context.Context, size int64, read func() ([]byte, error), opt *imagefile.Options, perPixel, more int64) (data []byte, release func(), err error) {
	if err := r.acquire(ctx, size); err != nil {
		return nil, nil, err
	}
	held := size
	release = func() {
		if held > r.limit/16 { // else it would still be there when the next one comes
			debug.FreeOSMemory()
		}
		r.held.Release(held)
	}
	data, err = read()
	if grown := 2 * int64(len(data)); err == nil && grown < size { // a guess too high
		r.held.Release(size - grown)
		size, held = grown, grown
	}
	if err == nil {
		var w, h int
		var cost int64
		if w, h, cost, err = imagefile.Cost(data, opt); err == nil {
			cost += perPixel*int64(w)*int64(h) + more
			if size+cost > r.limit {
				err = fmt.Errorf("to decode its %d x %d pixels takes up to %d MiB of memory, of at most %d; %w", w, h, (size+cost)>>20, r.limit>>20, errRoom)
			} else if err = r.acquire(ctx, cost); err == nil {
				held += cost
			}
		}
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return data, release, nil
}

func (r *room) acquire(ctx context.Context, n int64) error {
	if n > r.limit {
		return fmt.Errorf("its %d MiB are more than the memory, at most %d MiB; %w", n>>20, r.limit>>20, errRoom)
	}
	return r.held.Acquire(ctx, n)
}
