package fastflow

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
	Flows
}

// New returns FastFlow.
func New(s method.Settings, f Flows) method.Method { return &flowing{s, f} }

// Check says which setting cannot be, by a setting.Error.
func (c *flowing) Check() error {
	if err := c.Flows.Check(); err != nil {
		return err
	}
	if bytes := c.WeightBytes(); bytes > method.MaxModelBytes {
		return setting.Refuse("flow_hidden", c.FlowHidden, "the flows' weights would take %d MiB, and a model file has %d MiB at most: use less, or fewer {flow_steps}",
			bytes>>20, method.MaxModelBytes>>20)
	}
	return nil
}

// Usual are batches of 32, as published, and fewer updates than the 500 passes of the paper; released, those, of maps that
// are not smoothed.
func (c *flowing) Usual(s *method.Settings, released bool) {
	s.Batch, s.Updates, s.Epochs = 32, 200, 500
	if released {
		s.Updates, s.Select, s.MapSigma = 0, method.SelectLast, 0.1 // a Gaussian of a single pixel
	}
}

// Plan is so many passes as the updates take, but no more than Epochs.
func (c *flowing) Plan(images []int) (method.Plan, error) {
	return learned.Plan(&c.Settings, images), nil
}

// Fixed is the precision: determinants are sums over all values of an image's features.
func (c *flowing) Fixed() []method.Fixed {
	return []method.Fixed{{Setting: "precision", Values: []string{method.PrecisionAuto, string(torch.FP32), string(torch.TF32)},
		Why: "sums likelihoods in float32"}}
}

// Lasting are the settings that decide what features are, and what the weights have learned.
func (c *flowing) Lasting() []string {
	return []string{"method", "arch", "image_size", "mean", "std", "flow_steps", "flow_hidden", "flow_kernels", "flow_clamp", "flow_affine"}
}

// MostScore is 1 for probabilities, and unbounded for likelihoods.
func (c *flowing) MostScore(facts anomaly.Facts) (float64, error) {
	if facts != (anomaly.Facts{}) {
		return 0, fmt.Errorf("a map of FastFlow has no terms, %w", anomaly.ErrDamaged)
	}
	if c.FlowMap == MapLikelihood {
		return math.Inf(1), nil
	}
	return 1, nil
}

// Top is that of the score.
func (c *flowing) Top() (share float64, err error) { return c.FlowTop, nil }

// PredictionBytes estimates what a model takes: its weights and the forms of them that are made for speed, the features of
// the teacher, and what a step of the finest flow computes.
func (c *flowing) PredictionBytes(fileBytes int64, images int) int64 {
	perPixel := int64(450) // of the network input
	if c.deep() {
		perPixel = 1300
	}
	const program = 256 << 20
	side := int64(c.ImageSize)
	return program + 4*max(fileBytes, c.WeightBytes()) + int64(images)*side*side*perPixel
}

// WeightBytes counts the parameters of layer norms and steps, which are float32, and the orders of channels, which are int64.
func (c *flowing) WeightBytes() (bytes int64) {
	for k := range torch.Scales {
		C, side := int64(64<<k), int64(c.ImageSize/(4<<k))
		if c.deep() {
			C *= 4
		}
		if c.FlowAffine {
			bytes += 4 * 2 * C * side * side
		}
		changed := C / 2
		kept := C - changed
		middle := int64(c.FlowHidden * float64(kept))
		for step := range c.FlowSteps {
			square := int64(9)
			if c.pointwise() && step%2 == 1 {
				square = 1
			}
			bytes += 4*(square*middle*(kept+2*changed)+middle+2*changed+2*C) + 8*C
		}
	}
	return bytes
}

// flows are a teacher and what makes noise of its features.
type flows struct {
	learned.Net
	c    *flowing
	flow torch.Flow
}

// prefixFlow is before the names of the flows' tensors in a file.
const prefixFlow = "flow."

// New returns a teacher and flows with fresh weights.
func (c *flowing) New(o method.Options) (method.Net, error) {
	n := &flows{c: c}
	err := n.Make(&c.Settings, o, prefixFlow, func(o torch.ModuleOptions) (_ torch.Network, err error) {
		n.flow, err = torch.NewFlow(o, torch.FlowOptions{Side: c.ImageSize, Steps: c.FlowSteps, Hidden: c.FlowHidden, Pointwise: c.pointwise(),
			Clamp: c.FlowClamp, Affine: c.FlowAffine})
		return n.flow, err
	}, func() (*torch.Predictor, error) {
		return torch.NewFlowPredictor(n.Teacher, n.flow, torch.FlowMapOptions{Sigma: c.MapSigma, Likelihood: c.FlowMap == MapLikelihood, Top: c.FlowTop})
	})
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("fastflow: model: %w", err)
	}
	return n, nil
}

// Export says what package export makes a file of.
func (n *flows) Export(m *export.Model) {
	m.Tensors, m.Sigma, m.Top = n.State(), n.c.MapSigma, n.c.FlowTop
	m.Flow = &export.Flow{Steps: n.c.FlowSteps, Clamp: n.c.FlowClamp, Likelihood: n.c.FlowMap == MapLikelihood}
}

// Load fills teacher and flows, the orders of the channels among them.
func (c *flowing) Load(net method.Net, file *weights.File, _ anomaly.Facts) error {
	n, own := net.(*flows)
	if !own {
		return fmt.Errorf("a net of type %T is not this method's", net)
	}
	return n.Net.Load(file)
}

// What the house asks of a net and a method beyond the contract, these have.
var (
	_ interface {
		method.Net
		method.Exporter
		method.Releaser
	} = (*flows)(nil)
	_ interface {
		method.Method
		method.Mapped
		method.Choosy
		method.Usual
		method.Sized
		method.Continuer
	} = (*flowing)(nil)
)
