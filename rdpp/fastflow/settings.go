// Package fastflow is FastFlow (Yu et al., "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing
// Flows", 2021, arXiv:2111.07677). A teacher sees good images; per scale a flow, an invertible network, learns to make normal
// noise of its features, by maximum likelihood. Features that become unlikely noise are the map.
//
// The paper leaves open what a step of a flow is beside its coupling, and does not mention the layer norms. Both are here as
// in github.com/gathierry/FastFlow, which comes near the paper's figures, and from which anomalib's FastFlow is derived; its
// steps are FrEIA's AllInOneBlock. "As published" below is that code; where the paper says something else, the setting tells.
//
// Dimension letters: B batch, C channels, S side of the square network input.
package fastflow

import (
	"math"

	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
)

// Name is the method's, as method.Settings has it.
const Name = "fastflow"

// The sides of the sub-networks' convolutions.
const (
	KernelsAuto      = "auto"      // KernelsAll for resnet18 and resnet34, else KernelsAlternate, as published
	KernelsAll       = "3x3"       // 3 x 3 in every step
	KernelsAlternate = "alternate" // 3 x 3 and 1 x 1 in turn (paper, section 3.3)
)

// What a map shows of m, half the mean of a position's squared z.
const (
	MapProbability = "probability" // 1 - exp(-m), 0 to 1: what is missing to the highest density, as published but for the 1
	MapLikelihood  = "likelihood"  // m, which has no bound: the negative logarithm of the density, but for a constant
)

// Flows are the settings that FastFlow has beside those of all methods. Start from DefaultFlows: zero values are not replaced.
type Flows struct {
	FlowSteps   int     `json:"flow_steps,omitzero"`   // of each scale's flow
	FlowHidden  float64 `json:"flow_hidden,omitzero"`  // channels between the two convolutions of a sub-network, per channel that it sees
	FlowKernels string  `json:"flow_kernels,omitzero"` // KernelsAuto, KernelsAll or KernelsAlternate
	FlowClamp   float64 `json:"flow_clamp,omitzero"`   // largest logarithm of the scale that a coupling gives
	FlowAffine  bool    `json:"flow_affine,omitzero"`  // layer norms learn a weight and a bias for every value of the features, as published

	FlowRate  float64 `json:"flow_rate,omitzero"`  // Adam's learning rate
	FlowDecay float64 `json:"flow_decay,omitzero"` // so many times a weight is added to its gradient
	FlowClip  float64 `json:"flow_clip,omitzero"`  // longest gradient of the loss, which is a sum over all values, of all weights as one vector; 0: any, as published

	FlowMap string  `json:"flow_map,omitzero"` // MapProbability or MapLikelihood
	FlowTop float64 `json:"flow_top,omitzero"` // an image's score is the mean of this share of its map's pixels, the highest; 0: the maximum, as published
}

// DefaultFlows is what is published: in the paper's implementation details flows of 8 steps for ResNets, and Adam with a rate of
// 0.001 and a decay of 0.00001; in the code sub-networks as wide as what they see, a clamp of 2, and layer norms that learn.
func DefaultFlows() Flows {
	return Flows{FlowSteps: 8, FlowHidden: 1, FlowKernels: KernelsAuto, FlowClamp: 2, FlowAffine: true, FlowRate: 1e-3, FlowDecay: 1e-5,
		FlowMap: MapProbability}
}

// ReleasedFlows is what is published.
func ReleasedFlows() Flows { return DefaultFlows() }

// The largest values that Check lets pass: above use, low enough that no size overflows.
const (
	maxSteps  = 64
	maxHidden = 8
	maxClamp  = 10
)

// Check says which value cannot be, by a setting.Error.
func (c *Flows) Check() error {
	switch {
	case c.FlowSteps < 1 || c.FlowSteps > maxSteps:
		return setting.Refuse("flow_steps", c.FlowSteps, "use 1 to %d", maxSteps)
	case !(c.FlowHidden >= 1.0/32 && c.FlowHidden <= maxHidden):
		return setting.Refuse("flow_hidden", c.FlowHidden, "use 0.03125 to %d", maxHidden)
	case c.FlowKernels != KernelsAuto && c.FlowKernels != KernelsAll && c.FlowKernels != KernelsAlternate:
		return setting.Refuse("flow_kernels", c.FlowKernels, "use %s, %s or %s", KernelsAuto, KernelsAll, KernelsAlternate)
	case !(c.FlowClamp > 0 && c.FlowClamp <= maxClamp):
		return setting.Refuse("flow_clamp", c.FlowClamp, "use more than 0, at most %d", maxClamp)
	case !method.Positive(c.FlowRate):
		return setting.Refuse("flow_rate", c.FlowRate, "it must be positive and finite")
	case !(c.FlowDecay >= 0 && c.FlowDecay <= math.MaxFloat32):
		return setting.Refuse("flow_decay", c.FlowDecay, "use 0 or more")
	case !(c.FlowClip >= 0 && c.FlowClip <= math.MaxFloat64):
		return setting.Refuse("flow_clip", c.FlowClip, "use a positive length, or 0 for none")
	case c.FlowMap != MapProbability && c.FlowMap != MapLikelihood:
		return setting.Refuse("flow_map", c.FlowMap, "use %s or %s", MapProbability, MapLikelihood)
	case !(c.FlowTop >= 0 && c.FlowTop <= 0.5):
		return setting.Refuse("flow_top", c.FlowTop, "use a share of the map, 0 to 0.5")
	}
	return nil
}

// pointwise says whether every second step has convolutions of 1 x 1.
func (c *flowing) pointwise() bool {
	if c.FlowKernels == KernelsAuto {
		return c.deep()
	}
	return c.FlowKernels == KernelsAlternate
}

// deep says whether the backbone's features have four times the channels of a resnet18's.
func (c *flowing) deep() bool { return c.Arch != "resnet18" && c.Arch != "resnet34" }
