// Package tiling cuts pictures into overlapping square tiles and blends what a network says of them into one map of the
// picture: the grid, the weights and the blending. It knows neither networks nor files.
//
// Three scales play a part, all with half-pixel centres: the picture's pixels; the network's, of which a tile of N x N pixels
// has S x S; and the map's cells, which are the network's pixels or, of very large pictures, means of R x R of them.
package tiling

import (
	"fmt"
	"image"
	"math"
)

// Options say how pictures are cut.
type Options struct {
	Tile   int // N, side of a tile in pixels of the picture
	Stride int // pixels from one tile to the next at most, below N; default three quarters of N
	Size   int // S, side of the network's input, to which a tile is resized, at most N
}

// DefaultStride is the stride of tiles of side n where none is given: neighbours share a quarter.
func DefaultStride(n int) int { return max(1, n*3/4) }

// MaxCells is how many cells a map has at most: as many as the largest network input that there is.
const MaxCells = 1 << 22

// Grid is how one picture is cut. Its tiles are numbered row by row. It is immutable.
type Grid struct {
	opt     Options
	w, h    int   // of the picture, pixels
	xs, ys  []int // left edges of the tiles' columns, upper edges of their rows
	fw, fh  int   // of the picture in the network's pixels
	mw, mh  int   // of the map in cells
	reduced int   // R
}

// New cuts a picture of w x h pixels. Tiles are spread evenly and begin and end with the picture; in a direction in which
// that is smaller than a tile there is one, which reaches beyond it.
func New(w, h int, opt Options) (*Grid, error) {
	if opt.Stride == 0 {
		opt.Stride = DefaultStride(opt.Tile)
	}
	switch {
	case w < 1 || h < 1:
		return nil, fmt.Errorf("tiling: a picture of %d x %d pixels; both must be 1 or more", w, h)
	case opt.Size < 1 || opt.Tile < opt.Size:
		return nil, fmt.Errorf("tiling: tiles of %d pixels for an input of %d; they must not be smaller", opt.Tile, opt.Size)
	case opt.Stride < 1 || opt.Stride >= opt.Tile:
		return nil, fmt.Errorf("tiling: a stride of %d for tiles of %d pixels; use 1 to %d", opt.Stride, opt.Tile, opt.Tile-1)
	}
	g := &Grid{opt: opt, w: w, h: h, xs: origins(w, opt), ys: origins(h, opt)}
	g.fw, g.fh = scaled(w, opt), scaled(h, opt)
	g.mw, g.mh = g.fw, g.fh
	for g.reduced = 1; g.mw*g.mh > MaxCells; {
		g.reduced++
		g.mw, g.mh = max(1, g.fw/g.reduced), max(1, g.fh/g.reduced)
	}
	return g, nil
}

// origins are where tiles begin along n pixels.
func origins(n int, opt Options) []int {
	rest := n - opt.Tile
	if rest <= 0 {
		return []int{0}
	}
	gaps := (rest + opt.Stride - 1) / opt.Stride
	at := make([]int, gaps+1)
	for i := range at {
		at[i] = (2*i*rest + gaps) / (2 * gaps) // rounded
	}
	return at
}

// scaled is n pixels of the picture in the network's.
func scaled(n int, opt Options) int {
	return max(1, int(math.Round(float64(n)*float64(opt.Size)/float64(opt.Tile))))
}

// Len is the number of tiles.
func (g *Grid) Len() int { return len(g.xs) * len(g.ys) }

// At is a tile's place in the picture, N x N pixels, which may reach beyond its right and lower edge.
func (g *Grid) At(i int) image.Rectangle {
	x, y, n := g.xs[i%len(g.xs)], g.ys[i/len(g.xs)], g.opt.Tile
	return image.Rect(x, y, x+n, y+n)
}

// Map is the size of the map, which covers the picture, in cells.
func (g *Grid) Map() (w, h int) { return g.mw, g.mh }

// Scale is how many cells there are along a pixel of the network, the mean of width and height: 1 but for very large pictures.
func (g *Grid) Scale() float64 { return math.Sqrt(float64(g.mw*g.mh) / float64(g.fw*g.fh)) }

// Padded says whether tiles reach beyond the picture.
func (g *Grid) Padded() bool { return g.w < g.opt.Tile || g.h < g.opt.Tile }

// Cells is how many cells of the map have a share of a tile's area. A score that is the mean of so many cells, the highest,
// hears a defect as loudly in a large picture as in one of a single tile.
func (g *Grid) Cells(share float64) int {
	return int(share * float64(g.opt.Size*g.opt.Size) / float64(g.reduced*g.reduced))
}
