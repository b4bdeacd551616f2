package csflow

import (
	"fmt"
	"math"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/export"
	"rdpp/rdpp/learned"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
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

// Plan is so many passes as the updates take, but no more than Epochs.
func (c *flowing) Plan(images []int) (method.Plan, error) {
	return learned.Plan(&c.Settings, images), nil
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
	learned.Net
	c     *flowing
	cross torch.CrossFlow
}

// prefixFlow is before the names of the flow's tensors in a file.
const prefixFlow = "flow."

// New returns a teacher and a flow with fresh weights.
func (c *flowing) New(o method.Options) (method.Net, error) {
	n := &flow{c: c}
	err := n.Make(&c.Settings, o, prefixFlow, func(o torch.ModuleOptions) (_ torch.Network, err error) {
		n.cross, err = torch.NewCrossFlow(o, torch.CrossFlowOptions{Channels: c.channels(), Blocks: c.CrossBlocks, Hidden: c.CrossHidden,
			Clamp: c.CrossClamp})
		return n.cross, err
	}, func() (*torch.Predictor, error) {
		return torch.NewCrossPredictor(n.Teacher, n.cross, torch.CrossMapOptions{Sigma: c.MapSigma, Product: c.CrossMap == MapProduct,
			OfMap: c.CrossScore == ScoreMap})
	})
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("csflow: model: %w", err)
	}
	return n, nil
}

// Export says what package export makes a file of.
func (n *flow) Export(m *export.Model) {
	m.Tensors, m.Sigma = n.State(), n.c.MapSigma
	m.Cross = &export.Cross{Blocks: n.c.CrossBlocks, Clamp: n.c.CrossClamp, Product: n.c.CrossMap == MapProduct, OfMap: n.c.CrossScore == ScoreMap}
}

// Load fills teacher and flow, the orders of the channels among them.
func (c *flowing) Load(net method.Net, file *weights.File, _ anomaly.Facts) error {
	n, own := net.(*flow)
	if !own {
		return fmt.Errorf("a net of type %T is not this method's", net)
	}
	return n.Net.Load(file)
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
