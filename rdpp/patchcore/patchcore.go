package patchcore

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/export"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/state"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// remembering is the method.
type remembering struct {
	method.Settings
	Memory
}

// New returns PatchCore.
func New(s method.Settings, m Memory) method.Method { return &remembering{s, m} }

// Check says which setting cannot be, by a setting.Error.
func (c *remembering) Check() error { return c.Memory.Check() }

// Plan is one pass over images as a detector sees them.
func (c *remembering) Plan([]int) (method.Plan, error) {
	return method.Plan{Passes: 1, Batch: c.Batch, Noise: dataset.NoiseOptions{Off: true}}, nil
}

// mostPatches bounds what is remembered of tiles, to twice what ordinary data sets have: 400 MB in float16 for patches of 384
// dimensions.
const mostPatches = 1 << 19

// Most is how many tiles are remembered.
func (c *remembering) Most() int { return max(1, int(mostPatches/c.positions())) }

// Fixed are a single pass, without updates or gradients.
func (c *remembering) Fixed() []method.Fixed {
	const pass, plain = "takes one pass over the images", "computes no gradients"
	return []method.Fixed{{Setting: "updates", Values: []string{"0"}, Why: pass}, {Setting: "epochs", Values: []string{"1"}, Why: pass},
		{Setting: "precision", Values: []string{method.PrecisionAuto, string(torch.FP32), string(torch.TF32)}, Why: plain}}
}

// MostScore is unbounded: scores are distances.
func (c *remembering) MostScore(facts anomaly.Facts) (float64, error) {
	if facts != (anomaly.Facts{}) {
		return 0, fmt.Errorf("a map of PatchCore has no terms, %w", anomaly.ErrDamaged)
	}
	return math.Inf(1), nil
}

// PredictionBytes estimates what a model takes: its weights and the forms of them that are made for speed, the features of
// the teacher, the patches around them, and the distances.
func (c *remembering) PredictionBytes(fileBytes int64, images int) int64 {
	perPixel := int64(300) // of the network input
	if c.channels() > 384 {
		perPixel = 700
	}
	if c.PatchDimensions > 0 {
		perPixel += int64(c.channels()) // 9 values for each channel of layer2 at every 64th pixel, and their averages
	}
	const program = 256 << 20
	side := int64(c.ImageSize)
	return program + 8*fileBytes + int64(images)*side*side*perPixel + 2*int64(c.DistanceMiB)<<20
}

// channels of layer2 and layer3 together.
func (c *remembering) channels() int {
	if c.Arch == "resnet18" || c.Arch == "resnet34" {
		return 384
	}
	return 4 * 384
}

// dimensions D of a patch.
func (c *remembering) dimensions() int {
	if c.PatchDimensions > 0 {
		return c.PatchDimensions
	}
	return c.channels()
}

// positions of an image that have a patch.
func (c *remembering) positions() int64 {
	side := int64(c.ImageSize / 8)
	return side * side
}

// kept is how many of so many patches the bank keeps.
func (c *remembering) kept(count int64) int { return max(1, int(c.Coreset*float64(count))) }

// Top is that of the map's maximum. Another score is of the patches themselves.
func (c *remembering) Top() (share float64, err error) {
	switch {
	case c.PatchScore != ScoreMap:
		return 0, setting.Refuse("patch_score", c.PatchScore, "where parts of what is seen do not count, by {fit} pad, a mask or a {tile} larger than a picture, use %s", ScoreMap)
	case c.Neighbours > 1:
		return 0, setting.Refuse("neighbours", c.Neighbours, "where parts of what is seen do not count, by {fit} pad, a mask or a {tile} larger than a picture, use 1")
	}
	return 0, nil
}

// memory is a teacher and what it saw in good images.
type memory struct {
	c       *remembering
	device  torch.Device
	teacher torch.Teacher
	bank    torch.Bank       // absent until it is filled
	asked   *torch.Predictor // of both; nil without a bank
	images  int              // that there are to learn from; 0: nothing is learned
}

// The names under which tensors are stored.
const (
	prefixTeacher = "encoder."
	prefixBank    = "bank."
)

// New returns a teacher with fresh weights and no bank.
func (c *remembering) New(o method.Options) (method.Net, error) {
	n, err := c.memory(o)
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (c *remembering) memory(o method.Options) (*memory, error) {
	teacher, err := torch.NewTeacher(torch.ModuleOptions{Arch: c.Arch, Device: o.Device, Seed: method.SeedOf(prefixTeacher, c.Seed), Blank: o.Blank})
	if err != nil {
		return nil, fmt.Errorf("patchcore: model: %w", err)
	}
	return &memory{c: c, device: o.Device, teacher: teacher}, nil
}

// Close frees teacher and bank. It is idempotent.
func (n *memory) Close() {
	n.teacher.Close()
	n.bank.Close()
	n.asked.Close()
}

// Backbone is the teacher.
func (n *memory) Backbone() torch.Teacher { return n.teacher }

// Settle sets eval mode.
func (n *memory) Settle() error {
	if err := n.teacher.Train(false); err != nil || n.empty() {
		return err
	}
	return n.bank.Train(false)
}

// Release leaves the teacher the one form of its weights that predictions need.
func (n *memory) Release() error { return n.teacher.Release() }

// empty says whether the bank is still to be filled.
func (n *memory) empty() bool { return n.bank == torch.Bank{} }

// Predict maps normalised images to smoothed maps of distances, and scores.
func (n *memory) Predict(x *torch.Tensor) (maps, scores *torch.Tensor, err error) {
	if n.empty() {
		return nil, nil, errors.New("patchcore: the bank is empty")
	}
	return n.asked.Predict(x)
}

// State lists the teacher's tensors, and the bank in float16, in which its patches were remembered.
func (n *memory) State() []weights.Source {
	all := state.Of([]state.Part{{Prefix: prefixTeacher, Net: n.teacher}})
	if n.empty() {
		return all
	}
	for _, e := range n.bank.State() {
		source := state.Source(prefixBank+e.Name, e.Tensor)
		source.DType = weights.F16
		source.Bytes = func() ([]byte, error) {
			half, err := e.Tensor.To(torch.CPU, torch.Float16)
			if err != nil {
				return nil, err
			}
			defer half.Close()
			return half.ReadBytes()
		}
		all = append(all, source)
	}
	return all
}

// Growth is what the bank of all images takes beyond the one that is there.
func (n *memory) Growth() (int64, error) {
	if n.images == 0 {
		return 0, nil
	}
	rows := int64(n.c.kept(int64(n.images) * n.c.positions()))
	growth := rows * int64(n.c.dimensions()*weights.F16.Size())
	if n.empty() {
		return growth, nil
	}
	values, err := n.bank.State()[0].Tensor.Len()
	return max(0, growth-values*int64(weights.F16.Size())), err
}

// Export says what package export makes a file of.
func (n *memory) Export(m *export.Model) {
	m.Tensors, m.Sigma = n.exact(), n.c.MapSigma
	m.Bank = &export.Bank{Dimensions: n.c.PatchDimensions, OfMap: n.c.PatchScore == ScoreMap, Neighbours: n.c.Neighbours}
}

// exact lists the tensors in float32.
func (n *memory) exact() []weights.Source {
	return state.Of([]state.Part{{Prefix: prefixTeacher, Net: n.teacher}, {Prefix: prefixBank, Net: n.bank}})
}

// Facts are none.
func (n *memory) Facts() anomaly.Facts { return anomaly.Facts{} }

// Load fills the teacher, and the bank, whose size is the file's own.
func (c *remembering) Load(net method.Net, file *weights.File, _ anomaly.Facts) error {
	n, own := net.(*memory)
	if !own {
		return fmt.Errorf("a net of type %T is not this method's", net)
	}
	const name = prefixBank + "patches"
	stored, found := file.Lookup(name)
	if !found {
		return fmt.Errorf("tensor %s is missing; restore the file or train again", name)
	}
	if len(stored.Shape) != 2 || stored.Shape[0] < 1 || stored.Shape[1] != c.dimensions() {
		return fmt.Errorf("tensor %s has shape %v, needed are rows of %d; is it of another architecture?", name, stored.Shape, c.dimensions())
	}
	if err := n.newBank(stored.Shape[0]); err != nil {
		return err
	}
	return n.fill(file, state.Part{Prefix: prefixTeacher, Net: n.teacher}, state.Part{Prefix: prefixBank, Net: n.bank})
}

// fill copies a file's tensors into networks; none but patches that are remembered for a checkpoint may be left over.
func (n *memory) fill(file *weights.File, parts ...state.Part) error {
	within := func(name string) bool { return !strings.HasPrefix(name, prefixSeen) }
	err := state.Fill(file, within, state.Under(parts)...)
	if err == nil || errors.Is(err, anomaly.ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w; restore the file or train again", err)
}

// newBank replaces the bank by one of count patches, all zero.
func (n *memory) newBank(count int) error {
	bank, err := torch.NewBank(count, n.c.dimensions(), torch.Float32, n.device)
	if err != nil {
		return err
	}
	asked, err := torch.NewPatchPredictor(n.teacher, bank, torch.BankOptions{Sigma: n.c.MapSigma, Dimensions: n.c.PatchDimensions,
		OfMap: n.c.PatchScore == ScoreMap, Neighbours: n.c.Neighbours, Bytes: int64(n.c.DistanceMiB) << 20})
	if err != nil {
		bank.Close()
		return err
	}
	n.bank.Close()
	n.asked.Close()
	n.bank, n.asked = bank, asked
	return nil
}
