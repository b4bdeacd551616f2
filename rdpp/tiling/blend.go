package tiling

import (
	"fmt"
	"math"
)

// BlendName is what the blending is called where it is to be told: tiles are weighted by a Hann window, the square of a
// sine, and the weights of a place are divided by their sum.
const BlendName = "hann"

// Blender makes a picture's map of those of its tiles. What it holds beside the map is as wide as the picture, in the network's
// pixels, and as high as a tile. It belongs to one goroutine.
type Blender struct {
	grid          *Grid
	columns, rows []span // of the tiles' columns and rows
	next          int    // tile

	band []float64 // sums of the network's pixels in the rows from top on, fw wide, as many as a tile has
	top  int       // row

	cells []float32 // the map
	sums  []float64 // of the row of cells that is being made; nil where a cell is a pixel
	row   int       // of the map that comes next
	count int       // rows of pixels in sums
}

// span is what a column (or row) of tiles has to do with the network's pixels along the picture.
type span struct {
	first int // pixel
	taps  []tap
}

// tap is where a pixel lies between two of a tile's, and what the tile weighs there beside its neighbours.
type tap struct {
	low, high int     // of the tile's S pixels
	way       float64 // from low to high, 0 to 1
	weight    float64
}

// NewBlender returns one without a tile.
func NewBlender(g *Grid) *Blender {
	b := &Blender{grid: g, columns: spans(g.xs, g.w, g.fw, g.opt), rows: spans(g.ys, g.h, g.fh, g.opt), cells: make([]float32, g.mw*g.mh)}
	if g.reduced > 1 {
		b.sums = make([]float64, g.mw)
	}
	most := 0
	for _, s := range b.rows {
		most = max(most, len(s.taps))
	}
	b.band = make([]float64, most*g.fw)
	return b
}

// spans of tiles that begin at the given places along n pixels of the picture, which are scaled pixels of the network.
func spans(at []int, n, scaled int, opt Options) []span {
	all := make([]span, len(at))
	reach := float64(opt.Tile)
	for f := range scaled {
		place := (float64(f) + 0.5) * float64(n) / float64(scaled)
		total := 0.0
		for _, from := range at {
			total += hann((place - float64(from)) / reach)
		}
		for i, from := range at {
			weight := hann((place - float64(from)) / reach)
			if weight == 0 {
				continue
			}
			s := &all[i]
			if len(s.taps) == 0 {
				s.first = f
			}
			inside := (place-float64(from))*float64(opt.Size)/reach - 0.5
			inside = min(max(inside, 0), float64(opt.Size-1))
			low := int(inside)
			s.taps = append(s.taps, tap{low, min(low+1, opt.Size-1), inside - float64(low), weight / total})
		}
	}
	return all
}

// hann is the window's weight at a share of a tile, 0 outside.
func hann(at float64) float64 {
	if at <= 0 || at >= 1 {
		return 0
	}
	s := math.Sin(math.Pi * at)
	return s * s
}

// Add takes the map of the next tile in the grid's order, S x S.
func (b *Blender) Add(tile []float32) error {
	g, S := b.grid, b.grid.opt.Size
	if b.next >= g.Len() || len(tile) != S*S {
		return fmt.Errorf("tiling: a map of %d pixels for tile %d; it takes %d of %d each", len(tile), b.next+1, g.Len(), S*S)
	}
	columns, rows := b.columns[b.next%len(g.xs)], b.rows[b.next/len(g.xs)]
	if b.next%len(g.xs) == 0 {
		b.settle(rows.first)
	}
	b.next++
	for y, ty := range rows.taps {
		to := b.band[(rows.first+y-b.top)*g.fw+columns.first:][:len(columns.taps)]
		low, high := tile[ty.low*S:][:S], tile[ty.high*S:][:S]
		for x, tx := range columns.taps {
			upper := float64(low[tx.low])*(1-tx.way) + float64(low[tx.high])*tx.way
			lower := float64(high[tx.low])*(1-tx.way) + float64(high[tx.high])*tx.way
			to[x] += (upper*(1-ty.way) + lower*ty.way) * (tx.weight * ty.weight)
		}
	}
	return nil
}

// Map is the picture's map once all tiles are there, row by row, as large as Grid.Map says.
func (b *Blender) Map() ([]float32, error) {
	if b.next != b.grid.Len() {
		return nil, fmt.Errorf("tiling: %d of %d tiles are there", b.next, b.grid.Len())
	}
	b.settle(b.grid.fh)
	return b.cells, nil
}

// settle makes cells of the rows before one, to which no tile adds any more.
func (b *Blender) settle(before int) {
	W, rows := b.grid.fw, before-b.top
	for i := range rows {
		b.take(b.band[i*W:][:W])
		b.top++
	}
	copy(b.band, b.band[rows*W:])
	clear(b.band[len(b.band)-rows*W:])
}

// take adds a row of pixels to the row of cells that it is part of.
func (b *Blender) take(pixels []float64) {
	g := b.grid
	if b.sums == nil {
		to := b.cells[b.row*g.mw:][:g.mw]
		for x, v := range pixels {
			to[x] = float32(v)
		}
		b.row++
		return
	}
	for x := range b.sums {
		for _, v := range pixels[x*g.fw/g.mw : (x+1)*g.fw/g.mw] {
			b.sums[x] += v
		}
	}
	b.count++
	if b.top+1 < (b.row+1)*g.fh/g.mh { // more rows of pixels to come
		return
	}
	for x, sum := range b.sums {
		width := (x+1)*g.fw/g.mw - x*g.fw/g.mw
		b.cells[b.row*g.mw+x] = float32(sum / float64(b.count*width))
	}
	clear(b.sums)
	b.count = 0
	b.row++
}
