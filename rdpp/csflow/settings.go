// Package csflow is CSFlow (Rudolph et al., "Fully Convolutional Cross-Scale-Flows for Image-based Defect Detection", WACV
// 2022). A teacher sees an image in three sizes. A normalising flow, whose sub-networks look at all three at once, learns to
// map what it sees in good images to independent normal values. How far from 0 an image's are is its score, and where they
// are its map.
//
// Where paper and published code (marco-rudolph/cs-flow) differ, and where there was a choice:
//
//   - Backbone. Published: EfficientNet-B5 up to its layer 36, in the code after block 35 counted from 0: 304 channels at a stride
//     of 32, of images of 768 x 768. That is torchvision's features.6, and what torch.EfficientNetB5 has. The default is layer3 of
//     a ResNet, at a stride of 16, of which there are teachers offline.
//   - Sizes. S, S/2 and S/4. The paper resizes; the published code keeps every second and every fourth pixel, and so do we.
//   - Soft clamp. The paper's 2 a / pi * atan(s / a); the published code has 0.636 for 2 / pi.
//   - The published code also cuts what a block makes at +-1e6, which would keep the flow from being invertible there. No
//     image comes near, and nothing is cut here.
//   - Score. Half the mean of z^2 over all scales, as the published code has it.
//   - Map. The published code's is the finest scale's mean of z^2 over the channels, stretched. Anomalib multiplies those of
//     all scales, which is MapProduct. Here it is halved, so that it has the score's unit, and smoothed as all maps are.
//   - Optimiser. The published code's Adam: betas of 0.9 and 0.999, eps of 1e-4, weight decay as a part of the gradient, a
//     constant rate. Anomalib has betas of 0.5 and 0.9.
//
// Dimension letters: B batch, C channels, S side of the square network input.
package csflow

import (
	"math"

	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
)

// Name is the method's, as method.Settings has it.
const Name = "csflow"

// CrossFlow are the settings that CSFlow has beside those of all methods. Start from DefaultCrossFlow: zero values are not
// replaced.
type CrossFlow struct {
	CrossBlocks int     `json:"cross_blocks,omitzero"` // coupling blocks; the last one's kernels are 5 x 5, the others' 3 x 3
	CrossHidden int     `json:"cross_hidden,omitzero"` // channels between the two layers of a sub-network
	CrossClamp  float64 `json:"cross_clamp,omitzero"`  // largest logarithm of a coupling's scale
	CrossRate   float64 `json:"cross_rate,omitzero"`   // Adam's learning rate
	CrossDecay  float64 `json:"cross_decay,omitzero"`  // times a parameter is added to its gradient; 0: nothing is
	CrossClip   float64 `json:"cross_clip,omitzero"`   // longest gradient, that of all parameters as one vector; 0: any
	CrossMap    string  `json:"cross_map,omitzero"`    // MapFinest or MapProduct
	CrossScore  string  `json:"cross_score,omitzero"`  // ScoreLatent or ScoreMap
}

// What a map is made of.
const (
	MapFinest  = "finest"  // the finest scale's latent values, as published
	MapProduct = "product" // those of all scales, multiplied
)

// What an image's score is.
const (
	ScoreLatent = "latent" // half the mean square of all latent values, as published
	ScoreMap    = "map"    // the largest value of the smoothed map, from which parts of a picture can be left out
)

// DefaultCrossFlow is ReleasedCrossFlow, but for the width of the sub-networks: a model of resnet18 then has 0.1 GB instead of
// 0.9, and an update takes an eighth of the multiplications.
func DefaultCrossFlow() CrossFlow {
	c := ReleasedCrossFlow()
	c.CrossHidden = 128
	return c
}

// ReleasedCrossFlow is what the published code does. Its trainings take 240 passes in batches of 16.
func ReleasedCrossFlow() CrossFlow {
	return CrossFlow{CrossBlocks: 4, CrossHidden: 1024, CrossClamp: 3, CrossRate: 2e-4, CrossDecay: 1e-5, CrossClip: 1, CrossMap: MapFinest,
		CrossScore: ScoreLatent}
}

// The largest values that Check lets pass: above use, low enough that no size overflows and no scale does.
const (
	maxBlocks = 64
	maxHidden = 1 << 13
	maxClamp  = 20
)

// Check says which value cannot be, by a setting.Error.
func (c *CrossFlow) Check() error {
	switch {
	case c.CrossBlocks < 1 || c.CrossBlocks > maxBlocks:
		return setting.Refuse("cross_blocks", c.CrossBlocks, "use 1 to %d", maxBlocks)
	case c.CrossHidden < 1 || c.CrossHidden > maxHidden:
		return setting.Refuse("cross_hidden", c.CrossHidden, "use 1 to %d", maxHidden)
	case !(c.CrossClamp > 0 && c.CrossClamp <= maxClamp):
		return setting.Refuse("cross_clamp", c.CrossClamp, "use a positive number up to %d", maxClamp)
	case !method.Positive(c.CrossRate):
		return setting.Refuse("cross_rate", c.CrossRate, "it must be positive and finite")
	case !(c.CrossDecay >= 0 && c.CrossDecay <= math.MaxFloat32):
		return setting.Refuse("cross_decay", c.CrossDecay, "use 0 or more")
	case !(c.CrossClip >= 0 && c.CrossClip <= math.MaxFloat64):
		return setting.Refuse("cross_clip", c.CrossClip, "use a positive length, or 0 for none")
	case c.CrossMap != MapFinest && c.CrossMap != MapProduct:
		return setting.Refuse("cross_map", c.CrossMap, "use %s or %s", MapFinest, MapProduct)
	case c.CrossScore != ScoreLatent && c.CrossScore != ScoreMap:
		return setting.Refuse("cross_score", c.CrossScore, "use %s or %s", ScoreLatent, ScoreMap)
	}
	return nil
}
