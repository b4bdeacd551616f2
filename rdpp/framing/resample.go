package framing

import (
	"image"

	"rdpp/rdpp/imagefile"
)

// unit holds v / 255 for every 8-bit value v, rounded once.
var unit = func() (u [256]float32) {
	for v := range u {
		u[v] = float32(v) / 255
	}
	return u
}()

// Resample writes a part of the image, as RGB in 0..1, bilinearly resized, to the part `to` of dst: C,H,W planes of
// 3*S*S values, for which dst must have room. The rest of dst is left alone. Pixels have half-pixel centres, the part's
// edges repeat and nothing is averaged when shrinking, as OpenCV's INTER_LINEAR does on float32. from begins within the
// image, whose right and lower edge repeat where it reaches beyond them; to lies within 0..S.
func Resample(dst []float32, img *imagefile.Image, from, to image.Rectangle, S int) {
	area, w, h := S*S, to.Dx(), to.Dy()
	within := from.Intersect(image.Rect(0, 0, img.W, img.H))
	same := from.Dx() == w && from.Dy() == h && within == from // as below, where all weights are 1 and 0
	xs, ys := linearTaps(from.Dx(), w), linearTaps(from.Dy(), h)
	for x := range xs {
		xs[x].lo = 3 * min(xs[x].lo, within.Dx()-1)
		xs[x].hi = 3 * min(xs[x].hi, within.Dx()-1)
	}
	row := func(y int) []uint8 {
		y = from.Min.Y + min(y, within.Dy()-1)
		return img.Pix[3*(y*img.W+from.Min.X):][:3*within.Dx()]
	}
	for y, ty := range ys {
		top, bottom := row(ty.lo), row(ty.hi)
		at := (to.Min.Y+y)*S + to.Min.X
		red, green, blue := dst[at:][:w], dst[area+at:][:w], dst[2*area+at:][:w]
		if same {
			for x := range red {
				p := top[3*x:][:3]
				red[x], green[x], blue[x] = unit[p[0]], unit[p[1]], unit[p[2]]
			}
			continue
		}
		for x, tx := range xs[:w] {
			tl, tr := top[tx.lo:tx.lo+3], top[tx.hi:tx.hi+3]
			bl, br := bottom[tx.lo:tx.lo+3], bottom[tx.hi:tx.hi+3]
			red[x] = (unit[tl[0]]*tx.wlo+unit[tr[0]]*tx.whi)*ty.wlo + (unit[bl[0]]*tx.wlo+unit[br[0]]*tx.whi)*ty.whi
			green[x] = (unit[tl[1]]*tx.wlo+unit[tr[1]]*tx.whi)*ty.wlo + (unit[bl[1]]*tx.wlo+unit[br[1]]*tx.whi)*ty.whi
			blue[x] = (unit[tl[2]]*tx.wlo+unit[tr[2]]*tx.whi)*ty.wlo + (unit[bl[2]]*tx.wlo+unit[br[2]]*tx.whi)*ty.whi
		}
	}
}

// tap says which two source positions make one destination position, and
// their weights, which add up to 1.
type tap struct {
	lo, hi   int
	wlo, whi float32
}

// linearTaps returns the taps of a row of n pixels resized to size.
func linearTaps(n, size int) []tap {
	taps := make([]tap, size)
	scale := float64(n) / float64(size)
	for i := range taps {
		at := min(max((float64(i)+0.5)*scale-0.5, 0), float64(n-1))
		lo := int(at)
		w := float32(at - float64(lo))
		taps[i] = tap{lo, min(lo+1, n-1), 1 - w, w}
	}
	return taps
}
