package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"image"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"

	"rdpp/rdpp/simplex"
)

const testSize = 96 // the smallest size whose boxes follow the released rule and differ

func newLoader(t testing.TB, items []Item, opt LoaderOptions) *Loader {
	t.Helper()
	if opt.Size == 0 {
		opt.Size = testSize
	}
	l, err := NewLoader(items, opt)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// copyBatch keeps what the loader will overwrite.
func copyBatch(b *Batch) Batch {
	return Batch{b.Part, b.B, slices.Clone(b.Index), slices.Clone(b.Clean), slices.Clone(b.Noisy), slices.Clone(b.Shuffle)}
}

func epoch(t testing.TB, l *Loader, epoch, firstStep int) []Batch {
	t.Helper()
	var batches []Batch
	for b, err := range l.Epoch(context.Background(), epoch, firstStep) {
		if err != nil {
			t.Fatal(err)
		}
		batches = append(batches, copyBatch(b))
	}
	return batches
}

// digest sums a batch up in a number that no change of a bit leaves alone.
func digest(b Batch) string {
	h := fnv.New64a()
	fmt.Fprint(h, b.B, b.Index, b.Shuffle)
	for _, values := range [][]float32{b.Clean, b.Noisy} {
		for _, v := range values {
			bits := math.Float32bits(v)
			h.Write([]byte{byte(bits), byte(bits >> 8), byte(bits >> 16), byte(bits >> 24)})
		}
	}
	return fmt.Sprintf("%d images %x", b.B, h.Sum64())
}

func digests(batches []Batch) []string {
	var lines []string
	for _, b := range batches {
		lines = append(lines, digest(b))
	}
	return lines
}

func TestLoaderIsDeterministic(t *testing.T) {
	items := pictures(t, 11)
	base := LoaderOptions{Batch: 4, Seed: 7, Workers: 1, Prefetch: 1, Noise: NoiseOptions{Lambda: 0.2}}
	want := digests(epoch(t, newLoader(t, items, base), 3, 0))
	if len(want) != 3 {
		t.Fatalf("got %d batches, want 3", len(want))
	}
	for _, c := range []struct {
		name string
		same bool
		set  func(*LoaderOptions)
	}{
		{"again", true, func(o *LoaderOptions) {}},
		{"2 workers", true, func(o *LoaderOptions) { o.Workers = 2 }},
		{"7 workers, 5 batches ahead", true, func(o *LoaderOptions) { o.Workers, o.Prefetch = 7, 5 }},
		{"default workers and prefetch", true, func(o *LoaderOptions) { o.Workers, o.Prefetch = 0, 0 }},
		{"no cache", true, func(o *LoaderOptions) { o.Cache = NewCache(CacheOptions{Size: testSize, MaxBytes: -1}) }},
		{"a cache for some", true, func(o *LoaderOptions) { o.Cache = NewCache(CacheOptions{Size: testSize, MaxBytes: 20000}) }},
		{"another seed", false, func(o *LoaderOptions) { o.Seed = 8 }},
		{"another factor", false, func(o *LoaderOptions) { o.Noise.Lambda = 0.3 }},
		{"released noise", false, func(o *LoaderOptions) { o.Noise.Released = true }},
		{"no noise", false, func(o *LoaderOptions) { o.Noise.Off = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt := base
			c.set(&opt)
			got := digests(epoch(t, newLoader(t, items, opt), 3, 0))
			if slices.Equal(got, want) != c.same {
				t.Errorf("got %v, same as %v must be %v", got, want, c.same)
			}
		})
	}
	if got := digests(epoch(t, newLoader(t, items, base), 4, 0)); slices.Equal(got, want) {
		t.Errorf("another epoch: got the same %v", got)
	}
}

func TestNoNoise(t *testing.T) {
	l := newLoader(t, pictures(t, 4), LoaderOptions{Batch: 4, Seed: 7})
	for batch, err := range l.Epoch(t.Context(), 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(batch.Noisy, batch.Clean) {
			t.Fatal("with Lambda 0: got noisy images that differ from the clean ones")
		}
	}
}

func TestEpochResumes(t *testing.T) {
	items := pictures(t, 11)
	l := newLoader(t, items, LoaderOptions{Batch: 4, Prefetch: 1})
	want := digests(epoch(t, l, 2, 0))
	for first := range 5 {
		got := digests(epoch(t, newLoader(t, items, LoaderOptions{Batch: 4, Prefetch: 1}), 2, first))
		if !slices.Equal(got, want[min(first, len(want)):]) {
			t.Errorf("from step %d: got %v, want the rest of %v", first, got, want)
		}
	}

	// Skipped images are not read: only those of the last step are left.
	last := l.rng(2, 0, orderStream).Perm(len(items))[8:]
	for i, item := range items {
		if !slices.Contains(last, i) {
			if err := os.Remove(item.Path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := digests(epoch(t, newLoader(t, items, LoaderOptions{Batch: 4}), 2, 2)); !slices.Equal(got, want[2:]) {
		t.Errorf("from step 2 without the other files: got %v, want %v", got, want[2:])
	}
}

func TestEpochVisitsEveryImageOnce(t *testing.T) {
	items := pictures(t, 11)
	for _, c := range []struct{ batch, steps, last int }{{1, 11, 1}, {4, 3, 3}, {11, 1, 11}, {16, 1, 11}} {
		l := newLoader(t, items, LoaderOptions{Batch: c.batch, Noise: NoiseOptions{Off: true}})
		batches := epoch(t, l, 0, 0)
		if l.Steps() != c.steps || len(batches) != c.steps {
			t.Fatalf("batch %d: got %d steps, %d batches, want %d", c.batch, l.Steps(), len(batches), c.steps)
		}
		var visited []int
		planes := make([]float32, 3*testSize*testSize)
		for step, b := range batches {
			want := min(c.batch, 11)
			if step == c.steps-1 {
				want = c.last
			}
			if b.B != want || len(b.Index) != want || len(b.Clean) != want*len(planes) || b.Noisy != nil {
				t.Errorf("batch %d, step %d: got B %d, %d indices, %d clean and %d noisy values, want %d images",
					c.batch, step, b.B, len(b.Index), len(b.Clean), len(b.Noisy), want)
			}
			checkPermutation(t, "shuffle", b.Shuffle, want)
			for at, index := range b.Index {
				if err := l.opt.Cache.Planes(planes, items[index].Path); err != nil {
					t.Fatal(err)
				}
				ImageNet.Apply(planes, planes, testSize)
				if !slices.Equal(b.Clean[at*len(planes):][:len(planes)], planes) {
					t.Errorf("batch %d, step %d: image %d is not item %d", c.batch, step, at, index)
				}
			}
			visited = append(visited, b.Index...)
		}
		checkPermutation(t, "order", visited, len(items))
	}
}

func checkPermutation[T int | int64](t *testing.T, what string, got []T, n int) {
	t.Helper()
	sorted := slices.Sorted(slices.Values(got))
	for i, v := range sorted {
		if int(v) != i || len(sorted) != n {
			t.Errorf("%s: got %v, want a permutation of %d", what, got, n)
			return
		}
	}
}

// noiseTolerance is absolute: float32 rounding of normalised values up to 3,
// divided by lambda / std.
const noiseTolerance = 1e-5

// TestNoise undoes the normalisation and compares what is left with the noise
// of package simplex.
func TestNoise(t *testing.T) {
	const S, seed, epochNumber, lambda = testSize, 99, 5, 0.35
	items := pictures(t, 6)
	for _, released := range []bool{false, true} {
		l := newLoader(t, items, LoaderOptions{Batch: 4, Seed: seed, Noise: NoiseOptions{Lambda: lambda, Released: released}})
		boxes := make(map[simplex.Box]bool)
		for _, b := range epoch(t, l, epochNumber, 0) {
			for at, index := range b.Index {
				rng := rand.New(rand.NewPCG(simplex.ImageSeed(seed, epochNumber, index), noiseStream))
				box := simplex.RandomBox(rng, S)
				boxes[box] = true
				field := simplex.NewField(int64(rng.Uint64()))
				if released {
					field = simplex.NewField(seed)
				}
				noise := make([]float64, 3*box.H*box.W)
				if err := field.Octaves(noise, 3, box.H, box.W, nil); err != nil {
					t.Fatal(err)
				}
				for i := range 3 * S * S {
					c, y, x := i/(S*S), i/S%S-box.Y, i%S-box.X
					want := 0.0
					if y >= 0 && y < box.H && x >= 0 && x < box.W {
						want = noise[(c*box.H+y)*box.W+x]
					}
					v := at*3*S*S + i
					got := float64(b.Noisy[v]-b.Clean[v]) * float64(ImageNet.Std[c]) / lambda
					if !(math.Abs(got-want) <= noiseTolerance) {
						t.Fatalf("released %v, item %d, value %d: got noise %v, want %v", released, index, i, got, want)
					}
				}
			}
		}
		if len(boxes) < 2 {
			t.Errorf("released %v: all boxes are %v", released, boxes)
		}
	}
}

func TestShuffleDiffersByStep(t *testing.T) {
	batches := epoch(t, newLoader(t, pictures(t, 16), LoaderOptions{Batch: 8}), 0, 0)
	if slices.Equal(batches[0].Shuffle, batches[1].Shuffle) {
		t.Errorf("steps 0 and 1: got the same shuffle %v", batches[0].Shuffle)
	}
}

// TestEpochPrefetches counts, by the cache, the images read while the first
// batch is in use: those of that batch and of Prefetch more.
func TestEpochPrefetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		items := make([]Item, 20)
		for i := range items {
			items[i].Path = filepath.Join(dir, fmt.Sprintf("%d.png", i))
			writeRGB(t, items[i].Path, "same", 10, 10)
		}
		l := newLoader(t, items, LoaderOptions{Batch: 2, Prefetch: 3})
		read := func() int64 {
			l.opt.Cache.mu.Lock()
			defer l.opt.Cache.mu.Unlock()
			return l.opt.Cache.used / (3 * 10 * 10)
		}
		const want = 2 * (1 + 3)
		for _, err := range l.Epoch(context.Background(), 0, 0) {
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := read(); got != want {
				t.Errorf("images read ahead: got %d, want %d", got, want)
			}
			break
		}
	})
}

func TestEpochStopsAtUnreadableImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		items := pictures(t, 11)
		l := newLoader(t, items, LoaderOptions{Batch: 2, Workers: 3})
		order := l.rng(0, 0, orderStream).Perm(len(items))
		bad := []string{items[order[5]].Path, items[order[4]].Path, items[order[8]].Path}
		for _, path := range bad {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		before := goroutines()
		steps := 0
		var last error
		for b, err := range l.Epoch(context.Background(), 0, 0) {
			if last != nil {
				t.Fatal("went on after an error")
			}
			if last = err; err == nil {
				steps += b.B / 2
			}
		}
		if steps != 2 || !errors.Is(last, os.ErrNotExist) || !containsAll(last, "dataset: ", bad[1]) {
			t.Errorf("got %d batches and error %v, want 2 and one naming %s", steps, last, bad[1])
		}
		waitForGoroutines(t, before)
	})
}

// goroutines is how many there are in this bubble of synctest. runtime.NumGoroutine also counts others of the process, as
// the one that runs finalizers whenever it likes.
func goroutines() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return bytes.Count(stacks, []byte(", synctest bubble "))
}

// waitForGoroutines fails where more than want goroutines go on once all of them wait. It needs a bubble of synctest.
func waitForGoroutines(t *testing.T, want int) {
	t.Helper()
	synctest.Wait()
	if got := goroutines(); got > want || got < 1 {
		t.Errorf("goroutines: got %d, want %d", got, want)
	}
}

func TestEpochLeavesNoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		items := pictures(t, 20)
		l := newLoader(t, items, LoaderOptions{Batch: 2, Workers: 4, Prefetch: 3})
		before := goroutines()

		for _, err := range l.Epoch(context.Background(), 0, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if goroutines() <= before {
				t.Error("nothing is made ahead")
			}
			break
		}
		waitForGoroutines(t, before)

		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		steps := 0
		var last error
		for _, err := range l.Epoch(ctx, 0, 0) {
			if last = err; err != nil {
				continue
			}
			steps++
			cancel()
			waitForGoroutines(t, before) // although the loop's body goes on
		}
		if steps != 1 || !errors.Is(last, context.Canceled) {
			t.Errorf("cancelled in the first step: got %d batches and error %v, want 1 and %v", steps, last, context.Canceled)
		}
		waitForGoroutines(t, before)

		epoch(t, l, 0, 0)
		waitForGoroutines(t, before)
	})
}

func TestLoaderErrors(t *testing.T) {
	items := []Item{{Path: "a.png"}}
	for _, c := range []struct {
		name  string
		items []Item
		opt   LoaderOptions
		names string
	}{
		{"no items", nil, LoaderOptions{}, ErrEmpty.Error()},
		{"batch", items, LoaderOptions{Batch: -1}, "Batch"},
		{"size", items, LoaderOptions{Size: -1}, "Size"},
		{"workers", items, LoaderOptions{Workers: -1}, "Workers"},
		{"prefetch", items, LoaderOptions{Prefetch: -1}, "Prefetch"},
		{"cache of another size", items, LoaderOptions{Size: 64, Cache: NewCache(CacheOptions{})}, "256"},
	} {
		if _, err := NewLoader(c.items, c.opt); !containsAll(err, "dataset: ", c.names) {
			t.Errorf("%s: got error %v, want one naming %s", c.name, err, c.names)
		}
	}
	l := newLoader(t, items, LoaderOptions{})
	for _, at := range [][2]int{{-1, 0}, {0, -1}} {
		for b, err := range l.Epoch(context.Background(), at[0], at[1]) {
			if b != nil || err == nil {
				t.Errorf("epoch %d, step %d: got %v, %v, want an error", at[0], at[1], b, err)
			}
		}
	}
}

func ExampleLoader() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	var items []Item
	for i := range 5 {
		path := filepath.Join(dir, fmt.Sprintf("%d.png", i))
		if err := savePNG(path, image.NewGray(image.Rect(0, 0, 40, 30))); err != nil {
			fmt.Println(err)
			return
		}
		items = append(items, Item{Path: path, Type: GoodType})
	}

	loader, err := NewLoader(items, LoaderOptions{Batch: 2, Size: 64, Seed: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	for batch, err := range loader.Epoch(context.Background(), 0, 0) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(batch.B, "images,", len(batch.Clean), "values")
	}
	// Output:
	// 2 images, 24576 values
	// 2 images, 24576 values
	// 1 images, 12288 values
}

func BenchmarkLoader(b *testing.B) {
	const n = 64
	dir := b.TempDir()
	items := make([]Item, n)
	for i := range items {
		items[i].Path = filepath.Join(dir, fmt.Sprintf("%d.png", i))
		writeRGB(b, items[i].Path, items[i].Path, 256, 256)
	}
	for _, c := range []struct {
		name  string
		noise NoiseOptions
		bytes int64
	}{
		{"cached", NoiseOptions{}, 0},
		{"cached, without noise", NoiseOptions{Off: true}, 0},
		{"decoded each time", NoiseOptions{}, -1},
	} {
		b.Run(c.name, func(b *testing.B) {
			l, err := NewLoader(items, LoaderOptions{Noise: c.noise, Cache: NewCache(CacheOptions{MaxBytes: c.bytes})})
			if err != nil {
				b.Fatal(err)
			}
			epoch(b, l, 0, 0)
			images := 0
			for b.Loop() {
				for batch, err := range l.Epoch(context.Background(), images, 0) {
					if err != nil {
						b.Fatal(err)
					}
					images += batch.B
				}
			}
			b.ReportMetric(float64(images)/b.Elapsed().Seconds()/float64(runtime.GOMAXPROCS(0)), "images/s/core")
		})
	}
}
