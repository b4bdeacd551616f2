package csflow

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
	"rdpp/rdpp/teacher"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// flowing is the method.
type flowing struct {
	method.Settings
	CrossFlow
}

// New returns CSFlow.
func New(s method.Settings, f CrossFlow) method.Method { return &flowing{s, f} }

// Check says which setting cannot be, by a setting.Error.
func (c *flowing) Check() error {
	if err := c.CrossFlow.Check(); err != nil {
		return err
	}
	if bytes := c.WeightBytes(); bytes > method.MaxModelBytes {
		return setting.Refuse("cross_hidden", c.CrossHidden, "the flow's weights would take %d MiB, and a model file has %d MiB at most: use less, or fewer {cross_blocks}",
			bytes>>20, method.MaxModelBytes>>20)
	}
	return nil
}

// Usual leaves the first method's defaults alone. Released are 240 passes in batches of 16, whose last weights count, and maps
// that are not smoothed.
func (c *flowing) Usual(s *method.Settings, released bool) {
	if released {
		s.Batch, s.Updates, s.Epochs, s.Select, s.MapSigma = 16, 0, 240, method.SelectLast, 0.1 // a Gaussian of a single pixel
	}
}

// Plan is so many passes as the updates take, but no more than Epochs, over images as a detector sees them.
func (c *flowing) Plan(images []int) (method.Plan, error) {
	passes, steps := c.Epochs, (images[0]+c.Batch-1)/c.Batch
	if c.Updates > 0 {
		passes = min(passes, (c.Updates+steps-1)/steps)
	}
	return method.Plan{Passes: passes, Batch: c.Batch, Noise: dataset.NoiseOptions{Off: true}}, nil
}

// Fixed is the precision: float32 holds the logarithms of determinants, bfloat16 does not.
func (c *flowing) Fixed() []method.Fixed {
	return []method.Fixed{{Setting: "precision", Values: []string{method.PrecisionAuto, string(torch.FP32), string(torch.TF32)},
		Why: "sums the logarithms of thousands of scales"}}
}

// Lasting are the settings that decide what features are, and the shape of the flow.
func (c *flowing) Lasting() []string {
	return []string{"method", "arch", "image_size", "mean", "std", "cross_blocks", "cross_hidden", "cross_clamp"}
}

// ReadsCoarsest says that the teacher may be of any family.
func (c *flowing) ReadsCoarsest() {}

// MostScore is unbounded.
func (c *flowing) MostScore(facts anomaly.Facts) (float64, error) {
	if facts != (anomaly.Facts{}) {
		return 0, fmt.Errorf("a map of CSFlow has no terms, %w", anomaly.ErrDamaged)
	}
	return math.Inf(1), nil
}

// PredictionBytes estimates what a model takes: its weights and the forms of them that are made for speed, and what teacher
// and flow compute, of an image and of its halves and quarters.
func (c *flowing) PredictionBytes(fileBytes int64, images int) int64 {
	channels, stride := torch.Coarsest(c.Arch)
	perPixel := int64(400) // of the network input
	if channels > 512 {
		perPixel = 900
	}
	perPixel += int64((8*channels + 6*c.CrossHidden) * 16 / (stride * stride)) // of the flow: float32s at every position, and of smaller scales
	const program = 256 << 20
	side := int64(c.ImageSize)
	flow := c.WeightBytes()
	teacher := max(0, fileBytes-flow) // of which a form is kept for each of the three sizes: of ResNets Winograd's, four times as large
	form := int64(4)
	if c.Arch == torch.EfficientNetB5 {
		form = 2 // padded
	}
	return program + 6*flow + (1+3*form)*teacher + int64(images)*side*side*perPixel
}

// WeightBytes counts the parameters of the sub-networks, which are float32, and the orders of channels, which are int64.
func (c *flowing) WeightBytes() (bytes int64) {
	C, hidden := int64(c.channels()), int64(c.CrossHidden)
	head := C / 2
	tail := C - head
	subNetwork := func(in, out, square int64) int64 {
		first, second := square*in*hidden+hidden, square*hidden*out+out
		return torch.Scales*(1+first+second) + 2*(torch.Scales-1)*second // and those from the scales beside
	}
	for block := range c.CrossBlocks {
		square := int64(9)
		if block == c.CrossBlocks-1 {
			square = 25
		}
		bytes += 4*(subNetwork(head, 2*tail, square)+subNetwork(tail, 2*head, square)) + 8*torch.Scales*C
	}
	return bytes
}

// channels C of the features.
func (c *flowing) channels() int {
	channels, _ := torch.Coarsest(c.Arch)
	return channels
}

// Top is that of the map's maximum. The published score is made of all scales.
func (c *flowing) Top() (share float64, err error) {
	if c.CrossScore != ScoreMap {
		return 0, setting.Refuse("cross_score", c.CrossScore, "where parts of a picture do not count, by {fit} pad or a mask, use %s", ScoreMap)
	}
	return 0, nil
}

// flow is a teacher and what is learned of what it sees.
type flow struct {
	c       *flowing
	device  torch.Device
	teacher torch.Teacher
	cross   torch.CrossFlow
	asked   *torch.Predictor // of both
}

// The names under which networks are stored.
const (
	prefixTeacher = "encoder."
	prefixFlow    = "flow."
)

// New returns a teacher and a flow with fresh weights.
func (c *flowing) New(o method.Options) (method.Net, error) {
	n := &flow{c: c, device: o.Device}
	if err := n.make(o.Blank); err != nil {
		n.Close()
		return nil, fmt.Errorf("csflow: model: %w", err)
	}
	return n, nil
}

func (n *flow) make(blank bool) (err error) {
	c := n.c
	options := func(part string) torch.ModuleOptions {
		return torch.ModuleOptions{Arch: c.Arch, Device: n.device, Seed: method.SeedOf(part, c.Seed), Blank: blank}
	}
	if n.teacher, err = torch.NewTeacher(options(prefixTeacher)); err != nil {
		return err
	}
	n.cross, err = torch.NewCrossFlow(options(prefixFlow), torch.CrossFlowOptions{Channels: c.channels(), Blocks: c.CrossBlocks,
		Hidden: c.CrossHidden, Clamp: c.CrossClamp})
	if err != nil {
		return err
	}
	n.asked, err = torch.NewCrossPredictor(n.teacher, n.cross, torch.CrossMapOptions{Sigma: c.MapSigma, Product: c.CrossMap == MapProduct,
		OfMap: c.CrossScore == ScoreMap})
	return err
}

// Close frees teacher and flow. It is idempotent.
func (n *flow) Close() {
	n.teacher.Close()
	n.cross.Close()
	n.asked.Close()
}

// Backbone is the teacher.
func (n *flow) Backbone() torch.Teacher { return n.teacher }

// Settle sets eval mode.
func (n *flow) Settle() error {
	if err := n.teacher.Train(false); err != nil {
		return err
	}
	return n.cross.Train(false)
}

// Release leaves both the forms of their weights that predictions need.
func (n *flow) Release() error {
	if err := n.teacher.Release(); err != nil {
		return err
	}
	return n.cross.Release()
}

// Predict maps normalised images to smoothed maps, and scores.
func (n *flow) Predict(x *torch.Tensor) (maps, scores *torch.Tensor, err error) {
	return n.asked.Predict(x)
}

// parts lists the networks in the order of the file.
func (n *flow) parts() []state.Part {
	return append([]state.Part{{Prefix: prefixTeacher, Net: n.teacher}}, n.trained()...)
}

// trained lists the one that learns.
func (n *flow) trained() []state.Part { return []state.Part{{Prefix: prefixFlow, Net: n.cross}} }

// State lists the tensors of teacher and flow, the orders of channels among them.
func (n *flow) State() []weights.Source { return state.Of(n.parts()) }

// Facts are none.
func (n *flow) Facts() anomaly.Facts { return anomaly.Facts{} }

// Export says what package export makes a file of.
func (n *flow) Export(m *export.Model) {
	m.Tensors, m.Sigma = n.State(), n.c.MapSigma
	m.Cross = &export.Cross{Blocks: n.c.CrossBlocks, Clamp: n.c.CrossClamp, Product: n.c.CrossMap == MapProduct, OfMap: n.c.CrossScore == ScoreMap}
}

// Load fills teacher and flow.
func (c *flowing) Load(net method.Net, file *weights.File, _ anomaly.Facts) error {
	n, own := net.(*flow)
	if !own {
		return fmt.Errorf("a net of type %T is not this method's", net)
	}
	return n.load(file)
}

func (n *flow) load(file *weights.File) error {
	within := func(name string) bool {
		return !strings.HasPrefix(name, state.PrefixAdam) && !strings.HasPrefix(name, state.PrefixGrad)
	}
	err := state.Fill(file, within, state.Under(n.parts())...)
	if err == nil {
		return n.checkOrders()
	}
	if nets := file.Backbones(); len(nets) == 1 && teacher.SameArch(nets[0].Arch, n.c.Arch) != nil {
		err = fmt.Errorf("%w; it is of another architecture: %s, not %s", err, nets[0].Arch, n.c.Arch)
	}
	if errors.Is(err, anomaly.ErrDamaged) || errors.Is(err, weights.ErrChanged) {
		return err
	}
	return fmt.Errorf("%w; restore the file or train again", err)
}

// checkOrders refuses orders in which a channel is missing.
func (n *flow) checkOrders() error {
	for _, e := range n.cross.State() {
		dtype, err := e.Tensor.DType()
		if err != nil {
			return err
		}
		if dtype != torch.Int64 {
			continue
		}
		order, err := torch.Read[int64](e.Tensor)
		if err != nil {
			return err
		}
		seen := make([]bool, len(order))
		for _, channel := range order {
			if channel < 0 || channel >= int64(len(order)) || seen[channel] {
				return fmt.Errorf("tensor %s%s names channel %d twice or in vain, %w", prefixFlow, e.Name, channel, anomaly.ErrDamaged)
			}
			seen[channel] = true
		}
	}
	return nil
}

// What the house asks beyond the contract, these have.
var (
	_ interface {
		method.Net
		method.Exporter
		method.Releaser
	} = (*flow)(nil)
	_ interface {
		method.Method
		method.Mapped
		method.Choosy
		method.Usual
		method.Sized
		method.Farsighted
		method.Continuer
	} = (*flowing)(nil)
)
