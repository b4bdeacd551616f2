package fastflow

import (
	"errors"
	"fmt"
	"math"
	"slices"
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

// Plan is so many passes as the updates take, but no more than Epochs, over images as a detector sees them.
func (c *flowing) Plan(images []int) (method.Plan, error) {
	passes := c.Epochs
	if steps := (images[0] + c.Batch - 1) / c.Batch; c.Updates > 0 {
		passes = min(passes, (c.Updates+steps-1)/steps)
	}
	return method.Plan{Passes: passes, Batch: c.Batch, Noise: dataset.NoiseOptions{Off: true}}, nil
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
	c         *flowing
	device    torch.Device
	teacher   torch.Teacher
	flow      torch.Flow
	predictor *torch.Predictor
}

// The names under which tensors are stored.
const (
	prefixTeacher = "encoder."
	prefixFlow    = "flow."
)

// New returns a teacher and flows with fresh weights.
func (c *flowing) New(o method.Options) (method.Net, error) {
	n := &flows{c: c, device: o.Device}
	options := func(part string) torch.ModuleOptions {
		return torch.ModuleOptions{Arch: c.Arch, Device: o.Device, Seed: method.SeedOf(part, c.Seed), Blank: o.Blank}
	}
	var err error
	if n.teacher, err = torch.NewTeacher(options(prefixTeacher)); err == nil {
		n.flow, err = torch.NewFlow(options(prefixFlow), torch.FlowOptions{Side: c.ImageSize, Steps: c.FlowSteps, Hidden: c.FlowHidden,
			Pointwise: c.pointwise(), Clamp: c.FlowClamp, Affine: c.FlowAffine})
	}
	if err == nil {
		n.predictor, err = torch.NewFlowPredictor(n.teacher, n.flow, torch.FlowMapOptions{Sigma: c.MapSigma,
			Likelihood: c.FlowMap == MapLikelihood, Top: c.FlowTop})
	}
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("fastflow: model: %w", err)
	}
	return n, nil
}

// Close frees teacher and flows. It is idempotent.
func (n *flows) Close() {
	n.predictor.Close()
	n.teacher.Close()
	n.flow.Close()
}

// parts lists the networks in the order of the file.
func (n *flows) parts() []state.Part {
	return []state.Part{{Prefix: prefixTeacher, Net: n.teacher}, {Prefix: prefixFlow, Net: n.flow}}
}

// trained is what learns.
func (n *flows) trained() []state.Part { return n.parts()[1:] }

// Backbone is the teacher.
func (n *flows) Backbone() torch.Teacher { return n.teacher }

// Settle sets eval mode.
func (n *flows) Settle() error {
	if err := n.teacher.Train(false); err != nil {
		return err
	}
	return n.flow.Train(false)
}

// Release leaves teacher and flows the one form of their weights that predictions need.
func (n *flows) Release() error {
	if err := n.teacher.Release(); err != nil {
		return err
	}
	return n.flow.Release()
}

// Predict maps normalised images to smoothed maps, and scores.
func (n *flows) Predict(x *torch.Tensor) (maps, scores *torch.Tensor, err error) {
	return n.predictor.Predict(x)
}

// State lists the tensors of teacher and flows, the orders of the channels among them.
func (n *flows) State() []weights.Source { return state.Of(n.parts()) }

// Facts are none.
func (n *flows) Facts() anomaly.Facts { return anomaly.Facts{} }

// Export says what package export makes a file of.
func (n *flows) Export(m *export.Model) {
	m.Tensors, m.Sigma, m.Top = n.State(), n.c.MapSigma, n.c.FlowTop
	m.Flow = &export.Flow{Steps: n.c.FlowSteps, Clamp: n.c.FlowClamp, Likelihood: n.c.FlowMap == MapLikelihood}
}

// Load fills teacher and flows.
func (c *flowing) Load(net method.Net, file *weights.File, _ anomaly.Facts) error {
	n, own := net.(*flows)
	if !own {
		return fmt.Errorf("a net of type %T is not this method's", net)
	}
	return n.load(file)
}

func (n *flows) load(file *weights.File) error {
	within := func(name string) bool {
		return !strings.HasPrefix(name, state.PrefixAdam) && !strings.HasPrefix(name, state.PrefixGrad)
	}
	err := state.Fill(file, within, state.Under(n.parts())...)
	if err == nil {
		return n.checkOrders()
	}
	if errors.Is(err, anomaly.ErrDamaged) || errors.Is(err, weights.ErrChanged) {
		return err
	}
	return fmt.Errorf("%w; restore the file or train again", err)
}

// checkOrders refuses orders of channels in which one is missing.
func (n *flows) checkOrders() error {
	for _, e := range n.flow.State() {
		if !strings.HasSuffix(e.Name, ".order") {
			continue
		}
		order, err := torch.Read[int64](e.Tensor)
		if err != nil {
			return err
		}
		slices.Sort(order)
		for i, channel := range order {
			if channel != int64(i) {
				return fmt.Errorf("tensor %s%s is no order of %d channels, %w", prefixFlow, e.Name, len(order), anomaly.ErrDamaged)
			}
		}
	}
	return nil
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
