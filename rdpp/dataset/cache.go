package dataset

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"rdpp/rdpp/allowance"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/printable"
)

// DefaultCacheBytes is what a Cache keeps at most, in bytes, unless it is told otherwise.
const DefaultCacheBytes = 2 << 30

// CacheOptions says what a Cache keeps. Zero fields mean the defaults.
type CacheOptions struct {
	Size      int   // side S of the resized images, pixels; default 256
	MaxBytes  int64 // pixels kept in memory, bytes; default DefaultCacheBytes or a quarter of allowance.Memory; negative keeps nothing
	MaxPixels int64 // largest image accepted, pixels; default imagefile's
	BitDepth  int   // bits that images of 16 bits use, as in imagefile.Options; default 16
	Whole     bool  // keep images as pixels alone, for those who cut them into tiles

	Framer *framing.Framer // what of images is looked at, of side Size; default the whole image, squashed
}

// Cache reads images and keeps them, decoded, within a bound on memory: as
// their 8-bit pixels or as resized planes, whichever is smaller. Both are
// exact, so an image gives the same planes whether it was kept or not. Images
// past the bound are decoded again each time; none is evicted, since an epoch
// visits all images equally often. Files must not change while a Cache lives.
//
// A Cache is safe for concurrent use.
type Cache struct {
	opt     CacheOptions
	mu      sync.Mutex // guards what follows
	entries map[string]*entry
	used    int64
	pages   map[string]int // by path, where there are several
}

// entry is one image; img and planes are nil where nothing is kept, else one
// of them is set and never changes.
type entry struct {
	mu     sync.Mutex
	img    *imagefile.Image
	planes []float32
	notes  []string       // on the image's masks of what counts
	look   Look           // also where nothing is kept
	pose   framing.Pose   // of the part in it; also where nothing is kept
	frame  *framing.Frame // also where nothing is kept, unless the image has one of its own, by a mask or a pose
}

// NewCache returns an empty cache.
func NewCache(opt CacheOptions) *Cache {
	if opt.Size <= 0 {
		opt.Size = 256
	}
	if opt.MaxBytes == 0 {
		opt.MaxBytes = allowance.MemoryDefault(DefaultCacheBytes)
	}
	if opt.Framer == nil {
		opt.Framer = plainFramer(opt.Size)
	}
	return &Cache{opt: opt, entries: make(map[string]*entry), pages: make(map[string]int)}
}

// plainFramer is that of whole images, squashed.
func plainFramer(S int) *framing.Framer {
	f, err := framing.New(framing.View{}, S)
	if err != nil {
		panic(err) // of a side that NewCache has made positive
	}
	return f
}

// Pages returns the number of pages of every image read so far that has
// several, by path. The first of them is the image.
func (c *Cache) Pages() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.pages)
}

// Planes writes the image in path, framed, to dst: 3,S,S values, RGB in 0..1.
// Errors name the file.
func (c *Cache) Planes(dst []float32, path string) error {
	_, err := c.Framed(dst, Item{Path: path})
	return err
}

// Framed is Planes of an item, whose mask of what is ignored has a part in it. It
// returns the frame, which says what of the planes counts.
func (c *Cache) Framed(dst []float32, item Item) (*framing.Frame, error) {
	S := c.opt.Size
	if len(dst) != 3*S*S {
		return nil, fmt.Errorf("dataset: %s: room for %d values; images of size %d need %d", item.Path, len(dst), S, 3*S*S)
	}
	planes, frame, err := c.planes(dst, item)
	if err == nil && &planes[0] != &dst[0] {
		copy(dst, planes)
	}
	return frame, err
}

// planes returns what Planes writes: kept planes, which must not be changed, or
// room, filled.
func (c *Cache) planes(room []float32, item Item) ([]float32, *framing.Frame, error) {
	img, planes, frame, err := c.load(item)
	if err != nil || planes != nil {
		return planes, frame, err
	}
	frame.Planes(room, img)
	return room, frame, nil
}

// frame is that of an item whose image has w x h pixels, and whose part lies as a pose says.
func (c *Cache) frame(item Item, w, h int, pose framing.Pose) (frame *framing.Frame, err error) {
	var own *imagefile.Mask
	if item.Ignore != "" {
		if own, err = imagefile.DecodeMaskFile(item.Ignore, c.bounds()); err != nil {
			return nil, fmt.Errorf("dataset: reading the mask of what is ignored: %w", err)
		}
	}
	if frame, err = c.opt.Framer.Posed(w, h, pose, own); err != nil {
		return nil, fmt.Errorf("dataset: %s: %w", printable.Text(item.Path), err)
	}
	return frame, nil
}

// Image returns the image in path, which must not be changed. Errors name the
// file.
func (c *Cache) Image(path string) (*imagefile.Image, error) {
	img, _, err := c.image(path)
	return img, err
}

// image is Image; kept says that asking again costs nothing.
func (c *Cache) image(path string) (img *imagefile.Image, kept bool, err error) {
	if !c.opt.Whole {
		return nil, false, fmt.Errorf("dataset: %s: a cache that is not Whole keeps no pixels", path)
	}
	if img, _, _, err = c.load(Item{Path: path}); err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	e := c.entries[path]
	c.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	return img, e.img != nil, nil
}

// Look returns the look of the image in path as it was last read.
func (c *Cache) Look(path string) Look {
	c.mu.Lock()
	e := c.entries[path]
	c.mu.Unlock()
	if e == nil {
		return Look{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.look
}

// Notes counts the items, whose images were read before, of whose masks of what
// counts there is something to say, and returns what of the first.
func (c *Cache) Notes(items []Item) (count int, first string) {
	return c.tally(items, func(e *entry) string {
		if len(e.notes) == 0 {
			return ""
		}
		return e.notes[0]
	})
}

// Range returns what the items' images, which were read before, have in common.
func (c *Cache) Range(items []Item) (r Range) {
	for i, item := range items {
		r.add(c.Look(item.Path), i == 0)
	}
	return r
}

// Looks returns the looks of the items, whose images were read before; of many
// those of 1,000, evenly spread.
func (c *Cache) Looks(items []Item) (l Looks) {
	for i := range min(len(items), mostLooks) {
		l.add(c.Look(items[i*len(items)/min(len(items), mostLooks)].Path))
	}
	return l
}

// SetBitDepth changes CacheOptions.BitDepth, and forgets the images of 16 bits.
// Nobody may use the cache meanwhile.
func (c *Cache) SetBitDepth(bits int) {
	c.opt.BitDepth = bits
	c.forget(func(e *entry) bool { return e.look.Stored.Bits == 16 })
}

// SetFramer changes CacheOptions.Framer, and forgets all images. Nobody may use the cache meanwhile.
func (c *Cache) SetFramer(f *framing.Framer) {
	c.opt.Framer = f
	c.forget(func(*entry) bool { return true })
}

// Missed counts the items, whose images were read before, whose part was looked for and not found, and says why of the first.
func (c *Cache) Missed(items []Item) (count int, first string) {
	return c.tally(items, func(e *entry) string { return e.pose.Missed })
}

// tally counts the items, whose images were read before, of which there is something to say, and says what of the first.
func (c *Cache) tally(items []Item, say func(*entry) string) (count int, first string) {
	for _, item := range items {
		c.mu.Lock()
		e := c.entries[item.Path]
		c.mu.Unlock()
		if e == nil {
			continue
		}
		e.mu.Lock()
		said := say(e)
		e.mu.Unlock()
		if said == "" {
			continue
		}
		if count++; count == 1 {
			first = item.Path + ": " + said
		}
	}
	return count, first
}

// forget forgets images.
func (c *Cache) forget(which func(*entry) bool) {
	for path, e := range c.entries {
		if !which(e) {
			continue
		}
		if e.img != nil {
			c.used -= int64(len(e.img.Pix))
		}
		c.used -= int64(4 * len(e.planes))
		delete(c.entries, path)
	}
}

// Mask reads an item's mask as ReadMask does, at the cache's Size and within its
// MaxPixels, framed as the image is, and refuses one that is not plain
// (ErrMaskEmpty and its like). Masks are not kept.
func (c *Cache) Mask(item Item) ([]uint8, error) {
	m, w, h, err := plainMask(item, c.bounds())
	if err != nil {
		return nil, err
	}
	frame, err := c.frame(Item{Path: item.Path}, w, h, framing.Pose{}) // what counts is not asked, nor where the part lies
	if err != nil {
		return nil, err
	}
	return frameMask(m, frame), nil
}

// MaskOf is Mask of an image with a frame of its own, as large as its map.
func (c *Cache) MaskOf(item Item, frame *framing.Frame) ([]uint8, error) {
	m, _, _, err := plainMask(item, c.bounds())
	if err != nil {
		return nil, err
	}
	return frameMask(m, frame), nil
}

// plainMask reads an item's mask and holds it against the image, of w x h pixels.
func plainMask(item Item, opt *imagefile.Options) (m *imagefile.Mask, w, h int, err error) {
	if m, err = decodeMask(item.Mask, opt); err != nil {
		return nil, 0, 0, err
	}
	if w, h, err = imagefile.SizeFile(item.Path, opt); err != nil {
		return nil, 0, 0, fmt.Errorf("dataset: reading image: %w", err)
	}
	return m, w, h, checkMask(m, item.Mask, w, h)
}

// load returns an item's image either as pixels or as framed planes, and its
// frame. The entry stays locked while it is decoded, so that nobody decodes it
// twice.
func (c *Cache) load(item Item) (*imagefile.Image, []float32, *framing.Frame, error) {
	path := item.Path
	c.mu.Lock()
	e := c.entries[path]
	if e == nil {
		e = &entry{}
		c.entries[path] = e
	}
	c.mu.Unlock()

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.img != nil || e.planes != nil {
		frame, err := e.frame, error(nil)
		if frame == nil {
			frame, err = c.frame(item, e.look.W, e.look.H, e.pose)
		}
		return e.img, e.planes, frame, err
	}
	opt := c.bounds()
	opt.BitDepth = c.opt.BitDepth
	img, err := imagefile.DecodeFile(path, opt)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("dataset: reading image: %w", err)
	}
	if img.Heatmap {
		return nil, nil, nil, fmt.Errorf("dataset: %s: %w; move it out of the data set", item.Path, ErrHeatmap)
	}
	e.pose = c.opt.Framer.Pose(img)
	frame, err := c.frame(item, img.W, img.H, e.pose)
	if err != nil {
		return nil, nil, nil, err
	}
	e.notes = slices.Concat(frame.Scaled, frame.Notes)
	if item.Ignore == "" && !e.pose.Found() { // others have one for each image, which takes as much as a plane
		e.frame = frame
	}
	if img.Pages > 1 {
		c.mu.Lock()
		c.pages[path] = img.Pages
		c.mu.Unlock()
	}
	e.look = LookAt(img)
	values := 3 * c.opt.Size * c.opt.Size
	switch {
	case c.opt.Whole || len(img.Pix) <= 4*values:
		if c.reserve(len(img.Pix)) {
			e.img = img
		}
	case c.reserve(4 * values):
		e.planes = make([]float32, values)
		frame.Planes(e.planes, img)
		return nil, e.planes, frame, nil
	}
	return img, nil, frame, nil
}

// reserve takes n bytes from the bound, or nothing where they do not fit.
func (c *Cache) reserve(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used+int64(n) > c.opt.MaxBytes {
		return false
	}
	c.used += int64(n)
	return true
}

func (c *Cache) bounds() *imagefile.Options {
	return &imagefile.Options{MaxPixels: c.opt.MaxPixels}
}

// Check reads every item's image, and its mask where it has one, which has to be
// plain (ErrMaskEmpty and its like), with a number
// of workers (0 means allowance.CPUs), filling the cache (nil for none). It
// returns the items that can be read, in order. The first that cannot ends the
// check with its error; with skipBad, such items are listed in skipped instead.
// The result does not depend on the number of workers. When ctx ends, files that
// are being read are not waited for.
func Check(ctx context.Context, items []Item, cache *Cache, workers int, skipBad bool) (good []Item, skipped []Skip, err error) {
	if cache == nil {
		cache = NewCache(CacheOptions{MaxBytes: -1})
	}
	return check(ctx, items, cache.check, workers, skipBad)
}

// CheckMasks is Check of the items' masks alone, for those who read the images
// only once. maxPixels bounds images and masks; 0 means imagefile's default.
func CheckMasks(ctx context.Context, items []Item, maxPixels int64) error {
	opt := &imagefile.Options{MaxPixels: maxPixels}
	_, _, err := check(ctx, items, func(item Item) error {
		if item.Mask == "" {
			return nil
		}
		_, _, _, err := plainMask(item, opt)
		return err
	}, 0, false)
	return err
}

func check(ctx context.Context, items []Item, one func(Item) error, workers int, skipBad bool) (good []Item, skipped []Skip, err error) {
	if workers < 1 {
		workers = allowance.CPUs()
	}
	errs := make([]error, len(items))
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, len(items)) {
		wg.Go(func() {
			// Items are handed out in order, so all before a failed one are
			// read to the end and the lowest error is always found.
			for ctx.Err() == nil && (skipBad || failed.Load() == 0) {
				i := next.Add(1) - 1
				if i >= int64(len(items)) {
					return
				}
				if errs[i] = one(items[i]); errs[i] != nil {
					failed.Add(1)
				}
			}
		})
	}
	read := make(chan struct{})
	go func() {
		wg.Wait()
		close(read)
	}()
	select {
	case <-read:
	case <-ctx.Done(): // not waiting for a network share that no longer answers
	}
	if ctx.Err() != nil {
		return nil, nil, fmt.Errorf("dataset: checking images: %w", ctx.Err())
	}
	for i, item := range items {
		switch {
		case errs[i] == nil:
			good = append(good, item)
		case skipBad:
			skipped = append(skipped, Skip{item.Path, errs[i].Error()})
		default:
			return nil, nil, errs[i]
		}
	}
	return good, skipped, nil
}

func (c *Cache) check(item Item) error {
	if _, _, _, err := c.load(item); err != nil {
		return err
	}
	if item.Mask == "" {
		return nil
	}
	_, _, _, err := plainMask(item, c.bounds())
	return err
}
