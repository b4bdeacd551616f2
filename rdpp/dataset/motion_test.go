package dataset

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
)

// frameOf is that of a picture of w x h pixels.
func frameOf(t *testing.T, view framing.View, S, w, h int) *framing.Frame {
	t.Helper()
	framer, err := framing.New(view, S)
	if err != nil {
		t.Fatal(err)
	}
	f, err := framer.Frame(w, h, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// dot is an image with a soft dot, whose middle is told by centre.
func dot(S int, x, y float64) []float32 {
	planes := make([]float32, 3*S*S)
	for i := range planes {
		dx, dy := float64(i%S)-x, float64(i/S%S)-y
		planes[i] = float32(math.Exp(-(dx*dx + dy*dy) / 8))
	}
	return planes
}

func centre(planes []float32, S int) (x, y float64) {
	sum := 0.0
	for i, v := range planes[:S*S] {
		x, y, sum = x+float64(v)*float64(i%S), y+float64(v)*float64(i/S), sum+float64(v)
	}
	return x / sum, y / sum
}

// Moves stay within their bounds, reach far into them, and are of the picture, not of its squashed positions.
func TestMotion(t *testing.T) {
	const S, rounds = 64, 60
	for _, c := range []struct {
		name   string
		motion Motion
		w, h   int
		// Of the dot, 16 positions right of the middle: the farthest place it may come to, by what is measured.
		measure func(x, y float64) float64
		most    float64
	}{
		{"right and left", Motion{Shift: 0.1}, S, S, func(x, _ float64) float64 { return x - 16 }, 6.4},
		{"up and down", Motion{Shift: 0.1}, S, S, func(_, y float64) float64 { return y }, 6.4},
		{"turned", Motion{Rotate: 30}, S, S, func(x, y float64) float64 { return math.Atan2(y, x) * 180 / math.Pi }, 30},
		{"turned, at the same distance", Motion{Rotate: 30}, S, S, func(x, y float64) float64 { return 0.05 * (math.Hypot(x, y) - 16) }, 0.01},
		// 16 positions are 32 pixels of a picture that is twice as wide as high.
		{"turned in the picture", Motion{Rotate: 30}, 2 * S, S, func(x, y float64) float64 { return math.Atan2(y, 2*x) * 180 / math.Pi }, 30},
		{"larger and smaller", Motion{Scale: 0.25}, S, S, func(x, _ float64) float64 { return x/16 - 1 }, 0.25},
	} {
		frame := frameOf(t, framing.View{}, S, c.w, c.h)
		planes, moved := dot(S, 47.5, 31.5), make([]float32, 3*S*S)
		least, greatest := math.Inf(1), math.Inf(-1)
		for round := range rounds {
			c.motion.apply(moved, planes, frame, rand.New(rand.NewPCG(uint64(round), motionStream)))
			x, y := centre(moved, S)
			got := c.measure(x-31.5, y-31.5)
			least, greatest = min(least, got), max(greatest, got)
		}
		if least < -1.02*c.most || greatest > 1.02*c.most || c.most > 0.1 && (least > -0.8*c.most || greatest < 0.8*c.most) {
			t.Errorf("%s: got %.3f to %.3f, want most of %.3f either way", c.name, least, greatest, c.most)
		}
	}
}

// What does not count is filled, whatever was moved under it.
func TestMotionFills(t *testing.T) {
	const S = 32
	drawn := &imagefile.Mask{W: S, H: S, Pix: make([]uint8, S*S)}
	for i := range S * 8 {
		drawn.Pix[i] = 1
	}
	ignore, err := framing.Draw(drawn)
	if err != nil {
		t.Fatal(err)
	}
	frame := frameOf(t, framing.View{Ignore: ignore}, S, S, S)
	rng := rand.New(rand.NewPCG(1, 1))
	planes := make([]float32, 3*S*S)
	for i := range planes {
		planes[i] = rng.Float32()
	}
	moved := make([]float32, 3*S*S)
	Motion{Shift: 0.2, Rotate: 20}.apply(moved, planes, frame, rng)
	again := slices.Clone(moved)
	frame.Fill(again)
	if !slices.Equal(again, moved) {
		t.Error("positions that do not count are not those of their neighbours")
	}
}

// A batch's clean and noisy images are moved alike, and by seed, epoch and image alone.
func TestLoaderMoves(t *testing.T) {
	items := pictures(t, 4)
	batch := func(motion Motion, number int) Batch {
		return epoch(t, newLoader(t, items, LoaderOptions{Batch: 4, Size: testSize, Seed: 3, Motion: motion}), number, 0)[0]
	}
	still, first, same, later := batch(Motion{}, 0), batch(Motion{Shift: 0.1}, 0), batch(Motion{Shift: 0.1}, 0), batch(Motion{Shift: 0.1}, 1)
	if slices.Equal(still.Clean, first.Clean) || slices.Equal(first.Clean, later.Clean) {
		t.Error("images are where they were")
	}
	if !slices.Equal(first.Clean, same.Clean) || !slices.Equal(first.Clean, first.Noisy) {
		t.Error("images of one seed and epoch, or clean and undisturbed noisy ones, are moved apart")
	}
}
