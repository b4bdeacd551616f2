package cfa

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

// adapting is the method.
type adapting struct {
	method.Settings
	Spheres
}

// New returns CFA.
func New(s method.Settings, f Spheres) method.Method { return &adapting{s, f} }

// Check says which setting cannot be, by a setting.Error.
func (c *adapting) Check() error {
	if err := c.Spheres.Check(); err != nil {
		return err
	}
	switch {
	case c.rows() < c.SphereNear+c.SphereFar:
		return setting.Refuse("sphere_rows", c.SphereRows, "the bank would have %d rows, and {sphere_near} and {sphere_far} ask for %d: use less", c.rows(),
			c.SphereNear+c.SphereFar)
	case int64(c.positions())*int64(c.rows()) > mostCompared:
		return setting.Refuse("sphere_rows", c.SphereRows, "an image has %d positions, each of which would be compared with %d rows: use %d or more, or a smaller {image_size}",
			c.positions(), c.rows(), (int64(c.positions())*int64(c.positions())+mostCompared-1)/mostCompared)
	case c.dimensions() < 1:
		return setting.Refuse("sphere_width", c.SphereWidth, "the features have %d channels: use at most so many", c.channels())
	}
	return nil
}

// mostCompared bounds the distances of an image's positions from the bank to those of 1024 x 1024 pixels and a row for each
// position: they grow with the fourth power of an image's side. It keeps model files below method.MaxModelBytes, too.
const mostCompared = 1 << 32

// Usual are 30 passes in batches of 4, as published (section 4.1). The published code's result is that of the pass which is best
// on the test set, as PresetPaper has it.
func (c *adapting) Usual(s *method.Settings, _ bool) { s.Batch, s.Updates, s.Epochs = 4, 0, 30 }

// Plan is so many passes as the updates take, but no more than Epochs.
func (c *adapting) Plan(images []int) (method.Plan, error) {
	return learned.Plan(&c.Settings, images), nil
}

// Fixed is the precision: bfloat16 does not tell the nearest rows apart.
func (c *adapting) Fixed() []method.Fixed {
	return []method.Fixed{{Setting: "precision", Values: []string{method.PrecisionAuto, string(torch.FP32), string(torch.TF32)},
		Why: "learns by small distances"}}
}

// Lasting are the settings that decide what features are, and the shapes of descriptor and bank.
func (c *adapting) Lasting() []string {
	return []string{"method", "arch", "image_size", "mean", "std", "sphere_learn", "sphere_rows", "sphere_width"}
}

// MostScore is unbounded: scores are distances.
func (c *adapting) MostScore(facts anomaly.Facts) (float64, error) {
	if facts != (anomaly.Facts{}) {
		return 0, fmt.Errorf("a map of CFA has no terms, %w", anomaly.ErrDamaged)
	}
	return math.Inf(1), nil
}

// Top is that of the map's maximum.
func (c *adapting) Top() (share float64, err error) { return 0, nil }

// distanceBytes is the memory for distances from the bank at a time.
const distanceBytes = 64 << 20

// PredictionBytes estimates what a model takes: its weights and the forms of them that are made for speed, what the teacher
// computes, what is joined and described at every position, and the distances.
func (c *adapting) PredictionBytes(fileBytes int64, images int) int64 {
	perPixel := int64(300) // of the network input
	if c.channels() > 448 {
		perPixel = 700
	}
	perPixel += int64(8*c.channels()+12*c.dimensions()) / 16 // float32s at every 16th pixel
	const program = 256 << 20
	side := int64(c.ImageSize)
	return program + 8*max(fileBytes, c.WeightBytes()) + int64(images)*side*side*perPixel + 3*distanceBytes
}

// WeightBytes counts the descriptor's parameters and the bank, which are float32.
func (c *adapting) WeightBytes() int64 {
	D := int64(c.dimensions())
	return 4 * (D*int64(c.channels()+2) + D + 1 + int64(c.rows())*D)
}

// channels of layer1 to layer3 together.
func (c *adapting) channels() int {
	if c.Arch == "resnet18" || c.Arch == "resnet34" {
		return 64 + 128 + 256
	}
	return 4 * (64 + 128 + 256)
}

// dimensions D of a descriptor.
func (c *adapting) dimensions() int { return c.channels() / max(1, c.SphereWidth) }

// positions of an image that have a descriptor, H x W.
func (c *adapting) positions() int { return (c.ImageSize / 4) * (c.ImageSize / 4) }

// rows M of the bank.
func (c *adapting) rows() int { return c.positions() / max(1, c.SphereRows) }

// scored is of how many of the nearest rows the softmin is that a position's value is made by; of one it is 1.
func (c *adapting) scored() int {
	if c.SphereScore == ScoreNearest {
		return 1
	}
	return c.SphereNear
}

// Later is true of the nearest row's score, which programs that know the published one alone would leave out of the settings.
func (c *adapting) Later() bool { return c.SphereScore != ScoreSoftmin }

// adapted is a teacher, and what describes what it sees.
type adapted struct {
	learned.Net
	c          *adapting
	descriptor torch.Descriptor // and its bank
}

// prefixDescriptor is before the names of the descriptor's tensors in a file.
const prefixDescriptor = "descriptor."

// New returns a teacher and a descriptor with fresh weights, and an empty bank.
func (c *adapting) New(o method.Options) (method.Net, error) {
	n := &adapted{c: c}
	err := n.Make(&c.Settings, o, prefixDescriptor, func(o torch.ModuleOptions) (_ torch.Network, err error) {
		n.descriptor, err = torch.NewDescriptor(o, torch.DescriptorOptions{Dimensions: c.dimensions(), Rows: c.rows(), Radius: c.SphereRadius,
			Fixed: !c.SphereLearn})
		return n.descriptor, err
	}, func() (*torch.Predictor, error) {
		return torch.NewSpherePredictor(n.Teacher, n.descriptor, torch.SphereMapOptions{Sigma: c.MapSigma, Near: c.scored(), Bytes: distanceBytes})
	})
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("cfa: model: %w", err)
	}
	return n, nil
}

// Export says what package export makes a file of.
func (n *adapted) Export(m *export.Model) {
	m.Tensors, m.Sigma = n.State(), n.c.MapSigma
	m.Spheres = &export.Spheres{Near: n.c.scored(), Bytes: distanceBytes}
}

// Load fills teacher and descriptor, the bank among them.
func (c *adapting) Load(net method.Net, file *weights.File, _ anomaly.Facts) error {
	n, own := net.(*adapted)
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
	} = (*adapted)(nil)
	_ interface {
		method.Method
		method.Mapped
		method.Choosy
		method.Usual
		method.Sized
		method.Continuer
		method.Later
	} = (*adapting)(nil)
)
