package dataset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/testmain"
)

// pictures writes n small pictures of different shapes and returns their items.
func pictures(t testing.TB, n int) []Item {
	t.Helper()
	dir := t.TempDir()
	items := make([]Item, n)
	for i := range items {
		path := filepath.Join(dir, fmt.Sprintf("%03d.png", i))
		writeRGB(t, path, path[len(dir):], 20+7*(i%5), 100-9*(i%4))
		items[i] = Item{Path: path, Type: GoodType}
	}
	return items
}

// TestCacheIsExact reads pictures under bounds that keep all, some or none of
// them, as pixels (small ones) or as planes (large ones), twice each.
func TestCacheIsExact(t *testing.T) {
	const S = 32
	dir := t.TempDir()
	shapes := []struct{ w, h int }{{20, 30}, {64, 64}, {65, 64}, {200, 100}, {1, 1}}
	for _, bound := range []int64{0, -1, 1, 4 * 3 * S * S, 30000} {
		cache := NewCache(CacheOptions{Size: S, MaxBytes: bound})
		for range 2 {
			for _, s := range shapes {
				key := fmt.Sprintf("%dx%d", s.w, s.h)
				path := filepath.Join(dir, key+".png")
				writeRGB(t, path, key, s.w, s.h)
				want := make([]float32, 3*S*S)
				Resize(want, picture(key, s.w, s.h), S)
				got := make([]float32, 3*S*S)
				if err := cache.Planes(got, path); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, want) {
					t.Errorf("bound %d, %s: planes differ from Resize", bound, key)
				}
			}
		}
		if limit := cache.opt.MaxBytes; cache.used > max(limit, 0) {
			t.Errorf("bound %d: %d bytes used", bound, cache.used)
		}
	}
}

func TestCacheKeeps(t *testing.T) {
	const S = 32
	for _, c := range []struct {
		name string
		w, h int
		max  int64
		used int64 // 0 where the picture must not be kept
	}{
		{"pixels", 20, 30, 0, 3 * 20 * 30},
		{"as many bytes as the planes", 64, 64, 0, 3 * 64 * 64},
		{"planes", 65, 64, 0, 4 * 3 * S * S},
		{"planes just fit", 65, 64, 4 * 3 * S * S, 4 * 3 * S * S},
		{"planes just too large", 65, 64, 4*3*S*S - 1, 0},
		{"pixels too large", 20, 30, 3*20*30 - 1, 0},
		{"nothing", 20, 30, -1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.png")
			writeRGB(t, path, "a", c.w, c.h)
			cache := NewCache(CacheOptions{Size: S, MaxBytes: c.max})
			planes := make([]float32, 3*S*S)
			if err := cache.Planes(planes, path); err != nil {
				t.Fatal(err)
			}
			if cache.used != c.used {
				t.Errorf("bytes used: got %d, want %d", cache.used, c.used)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			err := cache.Planes(planes, path)
			if c.used > 0 && err != nil {
				t.Errorf("kept picture: got error %v", err)
			}
			if c.used == 0 && (!errors.Is(err, os.ErrNotExist) || !containsAll(err, "dataset: ", path)) {
				t.Errorf("picture not kept: got error %v, want one naming %s", err, path)
			}
		})
	}
}

func TestCachePages(t *testing.T) {
	dir := t.TempDir()
	paged, png := filepath.Join(dir, "a.tif"), filepath.Join(dir, "b.png")
	if err := os.WriteFile(paged, testmain.TwoPages(), 0o666); err != nil {
		t.Fatal(err)
	}
	writeRGB(t, png, "b", 2, 2)
	cache := NewCache(CacheOptions{Size: 8, MaxBytes: -1})
	if _, _, err := Check(t.Context(), []Item{{Path: paged, Type: GoodType}, {Path: png, Type: GoodType}}, cache, 0, false); err != nil {
		t.Fatal(err)
	}
	if got := cache.Pages(); len(got) != 1 || got[paged] != 2 {
		t.Errorf("got %v, want 2 pages of %s", got, paged)
	}
}

func TestCacheErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.png")
	cache := NewCache(CacheOptions{Size: 8, MaxPixels: 100})
	planes := make([]float32, 3*8*8)
	if err := cache.Planes(planes, path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got error %v", err)
	}
	writeRGB(t, path, "a", 11, 10)
	if err := cache.Planes(planes, path); !containsAll(err, path) {
		t.Errorf("110 of 100 pixels: got error %v, want one naming %s", err, path)
	}
	if _, err := cache.Mask(Item{Path: path, Mask: path}); !containsAll(err, path) {
		t.Errorf("mask of 110 of 100 pixels: got error %v, want one naming %s", err, path)
	}
	writeRGB(t, path, "a", 10, 10)
	mask := filepath.Join(filepath.Dir(path), "mask.png")
	writePNG(t, mask, drawing(10, 10))
	if mask, err := cache.Mask(Item{Path: path, Mask: mask}); err != nil || len(mask) != 8*8 {
		t.Errorf("mask of 100 of 100 pixels: got %d values, error %v, want 64", len(mask), err)
	}
	if err := cache.Planes(planes, path); err != nil {
		t.Errorf("an error must not be kept: got %v", err)
	}
	if err := cache.Planes(planes[1:], path); !containsAll(err, path, "192") {
		t.Errorf("short destination: got error %v, want one naming %s and 192", err, path)
	}
}

func TestCacheConcurrently(t *testing.T) {
	const S = 32
	items := pictures(t, 6)
	cache := NewCache(CacheOptions{Size: S, MaxBytes: 20000})
	want := make([][]float32, len(items))
	for i, item := range items {
		want[i] = make([]float32, 3*S*S)
		if err := NewCache(CacheOptions{Size: S}).Planes(want[i], item.Path); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			got := make([]float32, 3*S*S)
			for n := range 3 * len(items) {
				i := (n + g) % len(items)
				if err := cache.Planes(got, items[i].Path); err != nil || !slices.Equal(got, want[i]) {
					t.Errorf("%s: wrong planes, error %v", items[i].Path, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestCheck(t *testing.T) {
	const S = 32
	items := pictures(t, 12)
	mask := filepath.Join(t.TempDir(), "mask.png")
	w, h, err := imagefile.SizeFile(items[1].Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	writePNG(t, mask, drawing(w, h))
	items[1].Mask = mask
	damage := func(path string) {
		if err := os.WriteFile(path, []byte("not an image"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	for _, workers := range []int{0, 1, 3, 50} {
		cache := NewCache(CacheOptions{Size: S})
		good, skipped, err := Check(ctx, items, cache, workers, false)
		if err != nil || !slices.Equal(good, items) || len(skipped) != 0 {
			t.Errorf("%d workers: got %d good, skipped %v, error %v, want all good", workers, len(good), skipped, err)
		}
		if cache.used == 0 {
			t.Error("the cache was not filled")
		}
	}

	damage(items[4].Path)
	damage(items[9].Path)
	items[7].Mask = filepath.Join(filepath.Dir(mask), "gone.png")
	wantGood := slices.Concat(items[:4], items[5:7], items[8:9], items[10:])
	for _, workers := range []int{1, 3, 50} {
		if _, _, err := Check(ctx, items, nil, workers, false); !containsAll(err, "dataset: ", items[4].Path) {
			t.Errorf("%d workers: got error %v, want one naming %s", workers, err, items[4].Path)
		}
		good, skipped, err := Check(ctx, items, nil, workers, true)
		if err != nil || !slices.Equal(good, wantGood) {
			t.Errorf("%d workers: got %v, %v, want %v", workers, good, err, wantGood)
		}
		for i, want := range []struct{ path, reason string }{
			{items[4].Path, items[4].Path}, {items[7].Path, items[7].Mask}, {items[9].Path, items[9].Path},
		} {
			if i >= len(skipped) || skipped[i].Path != want.path || !containsAll(errors.New(skipped[i].Reason), want.reason) {
				t.Errorf("%d workers: skipped: got %v, want %v at %d", workers, skipped, want, i)
			}
		}
	}

	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := Check(ctx, items, nil, 2, true); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got error %v, want %v", err, context.Canceled)
	}
	if good, skipped, err := Check(context.Background(), nil, nil, 2, false); good != nil || skipped != nil || err != nil {
		t.Errorf("no items: got %v, %v, %v, want nothing", good, skipped, err)
	}
}

// stuck makes the reading of a picture last until the test ends, as on a network share that no longer answers.
func stuck(t *testing.T, cache *Cache, path string) {
	t.Helper()
	e := &entry{}
	e.mu.Lock()
	cache.entries[path] = e
	t.Cleanup(e.mu.Unlock)
}

// A file that cannot be read to its end does not keep a check or an epoch from
// being cancelled.
func TestCancelledWhileReading(t *testing.T) {
	items := pictures(t, 6)
	for name, read := range map[string]func(ctx context.Context, cache *Cache) error{
		"Check": func(ctx context.Context, cache *Cache) error {
			_, _, err := Check(ctx, items, cache, 2, false)
			return err
		},
		"Epoch": func(ctx context.Context, cache *Cache) error {
			l := newLoader(t, items, LoaderOptions{Batch: 2, Size: 32, Cache: cache})
			for _, err := range l.Epoch(ctx, 0, 0) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	} {
		cache := NewCache(CacheOptions{Size: 32})
		stuck(t, cache, items[3].Path)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- read(ctx, cache) }()
		select {
		case err := <-ended:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: got error %v, want that of the context", name, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%s: goes on reading after its context has ended", name)
		}
	}
}

// What is no regular file is an error that names it, or left out and listed.
func TestCheckPipe(t *testing.T) {
	items := pictures(t, 3)
	pipe := items[1].Path
	if err := os.Remove(pipe); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Check(context.Background(), items, nil, 2, false); !containsAll(err, pipe, "not a regular file but a pipe: remove it") {
		t.Errorf("got error %v, want one naming the pipe", err)
	}
	good, skipped, err := Check(context.Background(), items, nil, 2, true)
	if err != nil || len(good) != 2 || len(skipped) != 1 || skipped[0].Path != pipe {
		t.Errorf("got %v, %v, error %v, want two images, and the pipe listed", good, skipped, err)
	}
	masked := []Item{{Path: items[0].Path, Mask: pipe, Type: "dent", Defective: true}}
	if _, _, err := Check(context.Background(), masked, nil, 1, false); !containsAll(err, pipe, "a pipe: remove it") {
		t.Errorf("mask: got error %v, want one naming the pipe", err)
	}
}
