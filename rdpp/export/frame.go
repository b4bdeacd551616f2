package export

import (
	"image"

	"rdpp/rdpp/weights"
)

// cut is the part of a picture that is looked at, and the size that it is resized to. Without a frame that is a picture of
// any size, and part is empty.
func (m *Model) cut() (part image.Rectangle, to image.Point) {
	if m.Frame == nil {
		return image.Rectangle{}, image.Pt(m.Size, m.Size)
	}
	return m.Frame.From, m.Frame.To.Size()
}

// places are, for every position of the network's input, the number of the one that shows it, row by row: of the part of
// the picture that is resized, or of planes that somebody else has framed. some is false where each shows itself.
func (m *Model) places(in Input) (index weights.Source, some bool) {
	f := m.Frame
	if f == nil || f.All() {
		return index, false
	}
	numbers := make([]int64, m.Size*m.Size)
	for i, from := range f.Nearest() {
		numbers[i] = int64(from)
		if in == Pixels {
			x, y := int(from)%m.Size, int(from)/m.Size
			numbers[i] = int64((y-f.To.Min.Y)*f.To.Dx() + x - f.To.Min.X)
		}
	}
	return integers("frame.places", numbers), true
}

// counted is how many positions of a map count.
func (m *Model) counted() int {
	if m.Frame == nil {
		return m.Size * m.Size
	}
	return m.Frame.Counted()
}

// blank sets a map, B x 1 x S x S, to 0 where positions do not count.
func (m *Model) blank(b builder, x string) string {
	f := m.Frame
	if f == nil || f.All() {
		return x
	}
	counts := make([]float32, m.Size*m.Size)
	for i := range counts {
		if f.Counts(i) {
			counts[i] = 1
		}
	}
	return b.times(x, float32s("frame.counts", counts, 1, 1, m.Size, m.Size))
}
