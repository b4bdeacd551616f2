package export

import (
	"fmt"

	"rdpp/rdpp/weights"
)

// Bank makes a Model PatchCore: its Tensors are the state dicts of teacher ("encoder.") and bank ("bank.").
type Bank struct {
	Dimensions int  // of a patch, by the released code's averages; 0: the mean of each channel over 3 x 3 positions
	OfMap      bool // an image's score is its map's maximum, instead of its farthest patch's distance
	Neighbours int  // b of the paper's Eq. 7, which weights the score; below 2: it is not weighted
}

func (b *Bank) validate() error {
	if b.Dimensions < 0 || b.Dimensions%2 != 0 {
		return fmt.Errorf("patches of %d dimensions; use a multiple of 2, or 0", b.Dimensions)
	}
	return nil
}

// rows are what a bank's operations need of it.
type rows struct {
	patches weights.Source // M x D
	lengths weights.Source // M: squares of the rows' lengths
	count   int            // M
	D       int
}

// compared is what nearest finds. In ONNX and TorchScript alike a patch has one number, N = H W of them an image.
type compared struct {
	patches   string // B x N x D
	row       string // the nearest row of the bank, B x N
	distance  string // to it, B x N
	distances string // the same, B x 1 x H x W
}

// patches are the means around the positions of layer2 and layer3 of the teacher, layer3's stretched to layer2's positions:
// B x D x H x W.
func (n *network) patches(f [scales]string, S, dimensions int) string {
	return n.concat(n.around(f[1], "layer2", dimensions), n.stretch(n.around(f[2], "layer3", dimensions), S/8))
}

// around is the mean over 3 x 3 positions, or the released code's averages, as a convolution.
func (n *network) around(x, layer string, dimensions int) string {
	if dimensions == 0 {
		return n.meanPool(x)
	}
	C := n.channels(layer)
	name := fmt.Sprint("patches.", layer)
	weight := weights.Source{Name: name + ".weight", DType: weights.F32, Shape: []int{dimensions / 2, C, 3, 3}, Bytes: func() ([]byte, error) {
		return littleEndian(averages(9*C, dimensions)), nil
	}}
	bias := float32s(name+".bias", make([]float32, dimensions/2), dimensions/2)
	return n.conv(x, conv{name: name, weight: weight, bias: bias, stride: 1, padding: 1})
}

// channels of a layer's features.
func (n *network) channels(layer string) int {
	weight := "encoder." + layer + ".0.conv2.weight"
	if deep := "encoder." + layer + ".0.conv3.weight"; n.has(deep) {
		weight = deep
	}
	t := n.tensor(weight, 4)
	if n.err != nil {
		return 0
	}
	return t.Shape[0]
}

// averages are the weights of in values in the released code's out / 2 averages: adaptive average pooling to out, then to
// half of that.
func averages(in, out int) []float32 {
	all := make([]float32, in*out/2)
	for i := range out / 2 {
		for _, middle := range []int{2 * i, 2*i + 1} {
			first, end := middle*in/out, ((middle+1)*in+out-1)/out
			for v := first; v < end; v++ {
				all[i*in+v] += 1 / float32(2*(end-first))
			}
		}
	}
	return all
}

// bank is the teacher's memory, read off the tensors. dimensions are as of patches.
func (n *network) bank(dimensions int) rows {
	t := n.tensor("bank.patches", 2)
	D := dimensions
	if D == 0 {
		D = n.channels("layer2") + n.channels("layer3")
	}
	if n.err == nil && (t.Shape[0] < 1 || t.Shape[1] != D) {
		n.fail("tensor bank.patches has shape %v; at least one row of %d is needed, as many as the teacher's patches have dimensions; "+
			"export teacher and bank of one model", t.Shape, D)
	}
	if n.err != nil {
		return rows{}
	}
	return rowsOf(t)
}

// rowsOf are those of a bank, M x D.
func rowsOf(t weights.Source) rows {
	r := rows{patches: t, count: t.Shape[0], D: t.Shape[1]}
	r.lengths = weights.Source{Name: "bank.lengths", DType: weights.F32, Shape: []int{r.count}, Bytes: func() ([]byte, error) {
		values, err := read(t)
		if err != nil {
			return nil, err
		}
		lengths := make([]float32, r.count)
		for i := range lengths {
			sum := 0.0
			for _, v := range values[i*r.D : (i+1)*r.D] {
				sum += float64(v) * float64(v)
			}
			lengths[i] = float32(sum)
		}
		return littleEndian(lengths), nil
	}}
	return r
}

// buildPatchCore adds the operations from the features of the teacher to the outputs.
func (m *Model) buildPatchCore(n *network, f [scales]string) {
	bank := n.bank(m.Bank.Dimensions)
	if n.err != nil {
		return
	}
	found := n.nearest(n.patches(f, m.Size, m.Bank.Dimensions), bank, m.Size/8)
	x := m.blank(n, n.smooth(n.stretch(found.distances, m.Size), m.Size, m.Sigma))
	score := ""
	if !m.Bank.OfMap {
		score = n.farthest(found)
	}
	if b := min(m.Bank.Neighbours, bank.count); b >= 2 {
		if score == "" {
			score = n.highest(x)
		}
		score = n.product(score, n.rarity(found, bank, b))
	}
	n.finish(x, score, m)
}
