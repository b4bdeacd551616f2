package modelfile

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/method"
	"rdpp/torch"
)

var errBroken = errors.New("broken")

// oddNet has the first value of an image for its map and score, fails where there are more than most images or an image
// begins with broken, and counts its passes.
type oddNet struct {
	method.Net
	most   int
	passes int
}

const broken = 13

func (n *oddNet) Predict(x *torch.Tensor) (maps, scores *torch.Tensor, err error) {
	n.passes++
	values, err := torch.Read[float32](x)
	if err != nil {
		return nil, nil, err
	}
	var first, planes []float32
	for image := range slices.Chunk(values, 3*4) {
		first, planes = append(first, image[0]), append(planes, slices.Repeat(image[:1], 4)...)
	}
	if len(first) > n.most || slices.Contains(first, broken) {
		return nil, nil, errBroken
	}
	if maps, err = torch.FromSlice(planes, int64(len(first)), 2, 2); err == nil {
		scores, err = torch.FromSlice(first, int64(len(first)))
	}
	return maps, scores, err
}

// An image fails alone, with what it would be told alone, and a batch that is too large is taken in parts.
func TestPredictEach(t *testing.T) {
	nan := float32(math.NaN())
	const none, odd, bad = "", "the score is NaN, no verdict can be made of it", "broken"
	for _, c := range []struct {
		name   string
		most   int
		images []float32 // first value of each
		want   []string  // errors
		passes int
	}{
		{"all good", 8, []float32{1, 2, 3}, []string{none, none, none}, 1},
		{"no number", 8, []float32{1, nan, 3}, []string{none, odd, none}, 1},
		{"one fails", 8, []float32{1, 2, broken, 4}, []string{none, none, bad, none}, 5},
		{"too many at once", 2, []float32{1, 2, 3, 4, 5}, []string{none, none, none, none, none}, 5},
		{"none works", 0, []float32{1, 2}, []string{bad, bad}, 3},
	} {
		net := &oddNet{most: c.most}
		m := &Model{Net: net}
		m.Info.Config.ImageSize = 2
		var x []float32
		for _, v := range c.images {
			x = append(x, slices.Repeat([]float32{v}, 3*4)...)
		}
		got := m.PredictEach(x)
		if len(got) != len(c.want) || net.passes != c.passes {
			t.Errorf("%s: got %d outcomes of %d passes, want %d of %d", c.name, len(got), net.passes, len(c.want), c.passes)
			continue
		}
		for i, o := range got {
			switch {
			case c.want[i] != none:
				if o.Err == nil || !strings.Contains(o.Err.Error(), c.want[i]) || o.Map != nil {
					t.Errorf("%s, image %d: got %+v, want error %q alone", c.name, i, o, c.want[i])
				}
			case o.Err != nil || o.Score != float64(c.images[i]) || !slices.Equal(o.Map, slices.Repeat(c.images[i:i+1], 4)):
				t.Errorf("%s, image %d: got %+v, want %v everywhere", c.name, i, o, c.images[i])
			}
		}
	}
}
