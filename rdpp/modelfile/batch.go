package modelfile

import (
	"fmt"

	"rdpp/rdpp/allowance"
	"rdpp/rdpp/framing"
	"rdpp/torch"
)

// What a pass has room for where nobody says how many images it is to have. On a CPU eight images of 64 x 64 pixels take half
// of the time that they take one by one, four of 256 x 256 some 5 % less, and more than those hardly win and take memory. What
// a GPU wants is a guess.
const (
	cpuPixels = 4 * 256 * 256 // of all images' network inputs together
	cpuImages = 32
	gpuPixels = 32 * 256 * 256
	gpuImages = 128
)

// memoryShare is the part of the machine's memory that the images of a pass may take: one of so many.
const memoryShare = 8

// BatchSize is how many images are to go through the net in one pass where there are many: Batch where that is set, else a
// power of two by device, image size and memory.
func (m *Model) BatchSize() int {
	if m.Batch > 0 {
		return m.Batch
	}
	c := &m.Info.Config
	pixels, most := cpuPixels, cpuImages
	if m.Device != torch.CPU {
		pixels, most = gpuPixels, gpuImages
	}
	most = min(most, pixels/(c.ImageSize*c.ImageSize))
	if each := c.PredictionBytes(0, 2) - c.PredictionBytes(0, 1); each > 0 {
		if m.Device == torch.CPU {
			most = int(min(int64(most), allowance.Memory()/memoryShare/each))
		}
		if m.room > 0 {
			most = int(min(int64(most), m.room/each))
		}
	}
	return PowerOfTwo(max(most, 1))
}

// PowerOfTwo is the largest that is not above n, which is at least 1.
func PowerOfTwo(n int) int {
	power := 1
	for power <= n/2 {
		power *= 2
	}
	return power
}

// Outcome is what a model says of one image of a batch.
type Outcome struct {
	Map   []float32      // H x W, which is S x S but for an image in tiles
	W, H  int            //
	Frame *framing.Frame // of PredictViews: where the map lies on the image, and what of it counts
	Score float64
	Err   error // why there are neither
}

// PredictEach is Predict of images that fail alone: a batch that cannot be predicted, as for want of memory, is predicted in
// halves, down to the images that are to blame. The outcomes are in the order of the images. On the CPU an image's are the same
// to the bit in a batch of any size.
func (m *Model) PredictEach(x []float32) []Outcome {
	S := m.Info.Config.ImageSize
	size := 3 * S * S
	n := len(x) / size
	maps, scores, err := m.pass(x)
	if err != nil && n > 1 {
		half := n / 2 * size
		return append(m.PredictEach(x[:half]), m.PredictEach(x[half:])...)
	}
	all := make([]Outcome, n)
	for i := range all {
		o := &all[i]
		if o.Err = err; err == nil {
			o.Err = finite(scores[i])
		}
		if o.Err == nil {
			o.Map, o.W, o.H, o.Score = maps[i*S*S:][:S*S:S*S], S, S, scores[i]
		}
	}
	return all
}

// finite refuses a score that no threshold would find: NaN or infinite.
func finite(score float64) error {
	if score-score != 0 {
		return fmt.Errorf("the score is %v, no verdict can be made of it; the model is damaged, restore it or train again", score)
	}
	return nil
}
