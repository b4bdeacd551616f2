package dataset

import "rdpp/rdpp/imagefile"

// Look is what tells whether an image was taken as others were. The zero Look
// is of an image that was not read.
type Look struct {
	Stored     imagefile.Stored
	Brightness float64 // mean of R, G and B, 0 to 1
	W, H       int     // pixels
}

// LookAt returns the look of an image. The brightness is that of at most 64 x
// 64 pixels, evenly spread.
func LookAt(img *imagefile.Image) Look {
	const most = 64
	columns, rows := min(img.W, most), min(img.H, most)
	sum := 0
	for i := range rows {
		y := (2*i + 1) * img.H / (2 * rows)
		for j := range columns {
			x := (2*j + 1) * img.W / (2 * columns)
			p := img.Pix[3*(y*img.W+x):][:3]
			sum += int(p[0]) + int(p[1]) + int(p[2])
		}
	}
	return Look{img.Stored, float64(sum) / float64(3*255*columns*rows), img.W, img.H}
}

// Range is what the looks of a number of images have in common.
type Range struct {
	Wide      int     `json:"images_16_bit"`           // images of 16 bits per sample
	Largest   int     `json:"largest_value,omitempty"` // of their samples
	Hint      int     `json:"hinted_bits,omitempty"`   // that their files say are used, at most
	Black     int     `json:"nearly_black,omitempty"`  // of the images of 16 bits, how many are darker than NearlyBlack
	Darkest   float64 `json:"darkest"`                 // least mean brightness of an image, 0 to 1
	Brightest float64 `json:"brightest"`               // greatest
}

// NearlyBlack is the mean brightness that an image of 16 bits does not reach
// where its camera uses 12 of them or fewer, and is not told so.
const NearlyBlack = 1. / 16

// add takes an image's look in; first says that it is the first.
func (r *Range) add(l Look, first bool) {
	if l.Stored.Bits == 16 {
		r.Wide++
		r.Largest = max(r.Largest, int(l.Stored.Max))
		r.Hint = max(r.Hint, l.Stored.Hint)
		if l.Brightness < NearlyBlack {
			r.Black++
		}
	}
	if first {
		r.Darkest, r.Brightest = l.Brightness, l.Brightness
	}
	r.Darkest, r.Brightest = min(r.Darkest, l.Brightness), max(r.Brightest, l.Brightness)
}

// bitDepths are the numbers of bits that cameras use, but 16.
var bitDepths = []int{8, 10, 12, 14}

// BitDepth returns how many of 16 bits the images use, for
// imagefile.Options: the least of 8, 10, 12 and 14 that holds their largest
// sample, and what their files say of it; else 16, also where no image has 16
// bits or all are black.
func (r Range) BitDepth() int {
	for _, bits := range bitDepths {
		if r.Largest > 0 && r.Largest < 1<<bits && r.Hint <= bits {
			return bits
		}
	}
	return 16
}

// MostlyBlack says that more than half of the images of 16 bits are darker than
// NearlyBlack.
func (r Range) MostlyBlack() bool { return 2*r.Black > r.Wide }
