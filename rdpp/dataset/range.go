package dataset

import (
	"fmt"
	"math"
	"slices"

	"rdpp/rdpp/imagefile"
)

// Look is what tells whether an image was taken as others were. The zero Look
// is of an image that was not read.
type Look struct {
	Stored     imagefile.Stored
	Brightness float64 // mean of R, G and B, 0 to 1
	W, H       int     // pixels

	// Sharpness is how much neighbouring pixels differ, beside how much all of them do: 0 where an image is of one colour, near 0
	// where it is blurred, about 1 where it is nothing but noise. More or less light does not change it.
	Sharpness float64
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
	return Look{Stored: img.Stored, Brightness: float64(sum) / float64(3*255*columns*rows), W: img.W, H: img.H, Sharpness: sharpness(img)}
}

// sharpness compares pixels with those to the right and below, at up to 256 x
// 256 places, evenly spread.
func sharpness(img *imagefile.Image) float64 {
	const most = 256
	columns, rows := min(img.W-1, most), min(img.H-1, most)
	if columns < 1 || rows < 1 {
		return 0
	}
	at := make([]int, columns) // of a row's bytes
	for j := range at {
		at[j] = 3 * ((2*j + 1) * (img.W - 1) / (2 * columns))
	}
	sum, squares, steps := 0, 0, 0
	for i := range rows {
		y := (2*i + 1) * (img.H - 1) / (2 * rows)
		row, next := img.Pix[3*y*img.W:][:3*img.W], img.Pix[3*(y+1)*img.W:][:3*img.W]
		for _, b := range at {
			p, q := row[b:][:6], next[b:][:3]
			here := int(p[0]) + int(p[1]) + int(p[2])
			right, below := int(p[3])+int(p[4])+int(p[5])-here, int(q[0])+int(q[1])+int(q[2])-here
			sum += here
			squares += here * here
			steps += right*right + below*below
		}
	}
	n := float64(columns * rows)
	mean := float64(sum) / n
	variance := float64(squares)/n - mean*mean
	if variance <= 0 {
		return 0
	}
	return math.Sqrt(float64(steps) / n / 4 / variance) // two steps, of twice the variance where pixels are independent
}

// Looks are the figures of a number of images' looks, each by itself, in the
// order of the images.
type Looks struct {
	Brightness []float64 `json:"brightness"`
	Sharpness  []float64 `json:"sharpness"`
	Width      []int     `json:"width"`  // pixels
	Height     []int     `json:"height"` // pixels
}

// mostLooks is how many images Cache.Looks tells of.
const mostLooks = 1000

// add takes an image's look in.
func (l *Looks) add(look Look) {
	l.Brightness = append(l.Brightness, look.Brightness)
	l.Sharpness = append(l.Sharpness, look.Sharpness)
	l.Width = append(l.Width, look.W)
	l.Height = append(l.Height, look.H)
}

// Join returns the looks of the images of both.
func (l Looks) Join(m Looks) Looks {
	return Looks{slices.Concat(l.Brightness, m.Brightness), slices.Concat(l.Sharpness, m.Sharpness), slices.Concat(l.Width, m.Width),
		slices.Concat(l.Height, m.Height)}
}

// Check says what cannot be: as many figures of each kind, none that no image has.
func (l *Looks) Check() error {
	n := len(l.Brightness)
	if len(l.Sharpness) != n || len(l.Width) != n || len(l.Height) != n {
		return fmt.Errorf("figures of %d, %d, %d and %d images", n, len(l.Sharpness), len(l.Width), len(l.Height))
	}
	for i, brightness := range l.Brightness {
		if !(brightness >= 0 && brightness <= 1 && l.Sharpness[i] >= 0 && l.Sharpness[i] <= math.MaxFloat64) || min(l.Width[i], l.Height[i]) < 1 {
			return fmt.Errorf("an image of %d x %d pixels, brightness %v and sharpness %v", l.Width[i], l.Height[i], brightness, l.Sharpness[i])
		}
	}
	return nil
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

// Check says what cannot be.
func (r *Range) Check() error {
	switch {
	case r.Wide < 0 || r.Black < 0 || r.Black > r.Wide:
		return fmt.Errorf("%d of %d images of 16 bits are nearly black", r.Black, r.Wide)
	case r.Largest < 0 || r.Largest > math.MaxUint16 || r.Hint < 0 || r.Hint > 16:
		return fmt.Errorf("values up to %d, of %d bits", r.Largest, r.Hint)
	case !(r.Darkest >= 0 && r.Darkest <= r.Brightest && r.Brightest <= 1):
		return fmt.Errorf("brightness %v to %v", r.Darkest, r.Brightest)
	}
	return nil
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
