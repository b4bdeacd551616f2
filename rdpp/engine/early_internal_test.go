package engine

import (
	"math"
	"slices"
	"testing"
)

func TestEarlyLook(t *testing.T) {
	for _, c := range []struct {
		name       string
		measures   []float64 // after 10, 20, ... passes of 200
		patience   int
		looks, end int // that it takes, and the passes that follow from them; 0: it is not stopped
		best       float64
	}{
		{"rises", []float64{0.1, 0.2, 0.3, 0.4}, 1, 0, 0, 0.4},
		{"falls at once", []float64{0.5, 0.4}, 1, 2, 22, 0.5},
		{"a rise too small to count", []float64{0.5, 0.5019, 0.501}, 2, 3, 33, 0.5},
		{"small rises that add up", []float64{0.5, 0.501, 0.502, 0.503}, 2, 0, 0, 0.502},
		{"a gain ends the wait", []float64{0.5, 0.4, 0.6, 0.5, 0.5}, 2, 5, 55, 0.6},
		{"the rest is shorter than the fall", append(slices.Repeat([]float64{0.5}, 18), 0.5), 18, 0, 0, 0.5},
		{"nothing is found", []float64{0, 0}, 2, 2, 22, 0},
	} {
		var s EarlyState
		looks := 0
		for i, measure := range c.measures {
			if s.look(measure, 10*(i+1), 200, c.patience) {
				looks = i + 1
				break
			}
		}
		if looks != c.looks || s.End != c.end || s.Best != c.best || !s.sound(200) {
			t.Errorf("%s: got %+v after %d looks, want best %v, end %d after %d", c.name, s, looks, c.best, c.end, c.looks)
		}
	}
	for _, s := range []EarlyState{{Best: -1}, {Best: 2}, {Best: math.NaN()}, {Since: -1}, {End: -1}, {End: 201}} {
		if s.sound(200) {
			t.Errorf("got that %+v is sound", s)
		}
	}
}

func TestEarlyEvery(t *testing.T) {
	for asked, want := range map[int]int{2: 1, 20: 1, 21: 2, 39: 2, 40: 2, 41: 3, 475: 24} {
		if got := earlyEvery(asked); got != want || asked/got > earlyLooks {
			t.Errorf("%d passes: got a look every %d, want every %d", asked, got, want)
		}
	}
}

func TestChanged(t *testing.T) {
	// B = 2 images of 3 planes of 2 x 1 pixels.
	y := make([]float32, 12)
	x := slices.Clone(y)
	x[6+2] = 1 // of the second image, its green, the first pixel
	if a, b := changed(x, y, 0, 2), changed(x, y, 1, 2); !slices.Equal(a, []uint8{0, 0}) || !slices.Equal(b, []uint8{1, 0}) {
		t.Errorf("got %v and %v, want nothing, then the first pixel", a, b)
	}
}
