package dataset

import (
	"fmt"
	"image"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/tiling"
)

// TileOptions say which tiles of images a Loader makes batches of. The zero
// TileOptions stand for no tiles: an image is resized as a whole.
type TileOptions struct {
	tiling.Options

	// Grid takes the tiles that a detector looks at, each once an epoch. Else
	// they are drawn: in every epoch others, as many of an image as cover its
	// area, within bounds.
	Grid bool
	Most int // with Grid, at most so many of all images together, drawn once per run; 0: all
}

func (o TileOptions) on() bool { return o.Tile > 0 }

// heldTiles is how many tiles of S x S pixels are made of one reading of their
// images and held until their turn: some 200 MB.
func heldTiles(S int) int { return min(max(256*256*256/(S*S), 16), 256) }

// passTiles is how many tiles are drawn in an epoch, of more than that many
// images one of each: trainings end with an epoch, which is not to be long.
const passTiles = 1024

// tile is one to learn from.
type tile struct {
	item int
	at   int // number in the item's grid; -1: drawn anew in every epoch
}

// CountTiles returns how many tiles an epoch of a Loader has. The images have
// been read through the cache before.
func CountTiles(items []Item, cache *Cache, opt TileOptions) (int, error) {
	all, err := tilesOf(items, cache, opt, 0)
	return len(all), err
}

// tilesOf returns what an epoch of a Loader goes through.
func tilesOf(items []Item, cache *Cache, opt TileOptions, seed uint64) (all []tile, err error) {
	most := max(1, min(passTiles/max(len(items), 1), heldTiles(opt.Size)/4)) // of an image
	for i, item := range items {
		look := cache.Look(item.Path)
		grid, err := tiling.New(look.W, look.H, opt.Options)
		if err != nil {
			return nil, fmt.Errorf("dataset: %s: %w", item.Path, err)
		}
		if opt.Grid {
			for at := range grid.Len() {
				all = append(all, tile{i, at})
			}
			continue
		}
		cover := math.Round(float64(look.W) * float64(look.H) / float64(opt.Tile*opt.Tile))
		for range max(1, min(int(cover), most)) {
			all = append(all, tile{i, -1})
		}
	}
	if opt.Grid && opt.Most > 0 && len(all) > opt.Most {
		chosen := rand.New(rand.NewPCG(seed, tileStream)).Perm(len(all))[:opt.Most]
		slices.Sort(chosen)
		for i, at := range chosen {
			all[i] = all[at]
		}
		all = all[:opt.Most]
	}
	return all, nil
}

// order is the order of an epoch. Tiles of an image are near each other, so
// that few images are held at a time.
func (l *Loader) order(epoch int) []int {
	random := l.rng(epoch, 0, orderStream)
	if l.tiles == nil {
		return random.Perm(len(l.items))
	}
	of := make([][]int, len(l.items))
	for i, t := range l.tiles {
		of[t.item] = append(of[t.item], i)
	}
	order := make([]int, 0, len(l.tiles))
	for _, item := range random.Perm(len(l.items)) {
		order = append(order, of[item]...)
	}
	for some := range slices.Chunk(order, heldTiles(l.opt.Size)) {
		random.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	}
	return order
}

// place is where a tile lies in an image.
func (e *epochRun) place(index int, img *imagefile.Image) (image.Rectangle, error) {
	n := e.opt.Tiles.Tile
	if at := e.tiles[index].at; at >= 0 {
		grid, err := tiling.New(img.W, img.H, e.opt.Tiles.Options)
		if err != nil {
			return image.Rectangle{}, err
		}
		return grid.At(at), nil
	}
	random := e.rng(e.epoch, index, tileStream)
	x, y := random.IntN(max(img.W-n, 0)+1), random.IntN(max(img.H-n, 0)+1)
	return image.Rect(x, y, x+n, y+n), nil
}

// cut writes a tile's planes to dst.
func (e *epochRun) cut(dst []float32, index int, img *imagefile.Image) error {
	part, err := e.place(index, img)
	if err != nil {
		return err
	}
	return ResizePart(dst, img, part, e.opt.Size)
}

// shelf holds tiles, so that an image that the cache has no room for is read
// once for all of its tiles that are shuffled together.
type shelf struct {
	mu    sync.Mutex
	rooms map[shelfKey]*shelfRoom
}

// shelfKey is an item and which of the parts of the order its tiles are in.
type shelfKey struct{ item, part int }

// shelfRoom holds planes by the tile's number.
type shelfRoom struct {
	mu     sync.Mutex
	planes map[int][]float32 // nil: the image was not read yet
}

// tilePlanes returns the planes of the tile at a place in the epoch's order,
// which may be room.
func (e *epochRun) tilePlanes(at int, room []float32) ([]float32, error) {
	index, held := e.order[at], heldTiles(e.opt.Size)
	item, part := e.tiles[index].item, at/held
	path := e.items[item].Path
	on := e.shelf.room(shelfKey{item, part})
	on.mu.Lock()
	defer on.mu.Unlock()
	if planes, found := on.planes[index]; found {
		delete(on.planes, index)
		return planes, nil
	}
	img, kept, err := e.opt.Cache.image(path)
	if err != nil {
		return nil, err
	}
	if !kept && on.planes == nil {
		on.planes = map[int][]float32{}
		from := max(part*held, e.first)
		for i, other := range e.order[from:min((part+1)*held, len(e.order))] {
			if other == index || e.tiles[other].item != item || !e.own(from+i) {
				continue
			}
			planes := make([]float32, e.values())
			if err := e.cut(planes, other, img); err != nil {
				return nil, err
			}
			on.planes[other] = planes
		}
	}
	return room, e.cut(room, index, img)
}

func (s *shelf) room(key shelfKey) *shelfRoom {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rooms == nil {
		s.rooms = map[shelfKey]*shelfRoom{}
	}
	if s.rooms[key] == nil {
		s.rooms[key] = &shelfRoom{}
	}
	return s.rooms[key]
}
