package dataset

import (
	"fmt"
	"math"
	"math/rand/v2"

	"rdpp/rdpp/framing"
)

// Motion is how much parts in training images are moved, as they will lie before the camera. The zero Motion leaves images as
// they are. Each of its changes is drawn evenly, up to its most either way, anew for every image of every epoch.
type Motion struct {
	Shift  float64 // share of the image's width, and of its height
	Rotate float64 // degrees, around the middle of what is looked at
	Scale  float64 // share of the size
}

// What Check lets pass at most: above use, low enough that some of the part stays in the image.
const (
	maxShift = 0.5
	maxScale = 0.5
	maxTurn  = 180
)

// Check says what cannot be.
func (m Motion) Check() error {
	switch {
	case !(m.Shift >= 0 && m.Shift <= maxShift):
		return fmt.Errorf("dataset: a shift of up to %v; use a share of the image's side, 0 to %v", m.Shift, maxShift)
	case !(m.Rotate >= 0 && m.Rotate <= maxTurn):
		return fmt.Errorf("dataset: a rotation of up to %v; use 0 to %v degrees", m.Rotate, maxTurn)
	case !(m.Scale >= 0 && m.Scale <= maxScale):
		return fmt.Errorf("dataset: a size that varies by %v; use a share of it, 0 to %v", m.Scale, maxScale)
	}
	return nil
}

// apply writes the planes of an image, S x S as its frame says, moved as rng draws, to dst, which is another slice. Values are
// bilinear, what comes in from beyond the edge repeats it, and what does not count is filled anew.
func (m Motion) apply(dst, planes []float32, frame *framing.Frame, rng *rand.Rand) {
	vary := func(most float64) float64 { return most * (2*rng.Float64() - 1) }
	S := frame.Side
	side := float64(S)
	right, down := vary(m.Shift)*side, vary(m.Shift)*side // positions
	sin, cos := math.Sincos(vary(m.Rotate) * math.Pi / 180)
	size := 1 + vary(m.Scale)
	// A turn is one of the picture, whose pixels need not be as high as they are wide in positions.
	px, py := float64(frame.From.Dx())/float64(frame.To.Dx()), float64(frame.From.Dy())/float64(frame.To.Dy())
	within := func(at float64) (low int, way float32) {
		at = min(max(at, 0), side-1)
		low = min(int(at), S-2)
		return low, float32(at - float64(low))
	}
	for y := range S {
		v := (float64(y) + 0.5 - side/2 - down) * py
		for x := range S {
			u := (float64(x) + 0.5 - side/2 - right) * px
			column, across := within((cos*u+sin*v)/size/px + side/2 - 0.5)
			row, along := within((cos*v-sin*u)/size/py + side/2 - 0.5)
			for c := range 3 {
				from := planes[(c*S+row)*S+column:][:S+2]
				upper := from[0] + across*(from[1]-from[0])
				lower := from[S] + across*(from[S+1]-from[S])
				dst[(c*S+y)*S+x] = upper + along*(lower-upper)
			}
		}
	}
	frame.Fill(dst)
}
