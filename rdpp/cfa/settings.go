// Package cfa is CFA (Lee, Lee and Song, "CFA: Coupled-Hypersphere-Based Feature Adaptation for Target-Oriented Anomaly
// Localization", 2022, arXiv:2206.04325). A teacher sees good images. A descriptor, a convolution of 1 x 1, learns to map what
// is seen around a position into spheres around the nearest rows of a bank, and out of those around the next nearest. How far an
// image's descriptors are from the bank is its map.
//
// Where paper and published code (sungwool/CFA_for_anomaly_localization) differ, and where there was a choice:
//
//   - Bank. The paper clusters the first image's descriptors and moves each row towards those of the others that are near it
//     (Algorithm 1). The published code takes the mean of all images' descriptors at every position, and clusters those means
//     where the bank is to be smaller (gamma_c). So do we. In both the descriptor is the fresh one, and the bank then stays.
//   - Images of the bank. The published code leaves out what does not fill a batch. Here all count.
//   - Radius. In the paper r is a constant, 1e-5. In the published code it begins there and learns, which alone brings the
//     repulsion into play. SphereLearn is the code's way.
//   - Distances. In the losses (Eq. 1 and 2) they are squared, in the score (Eq. 5) they are not, as the published code has it.
//     There the losses are also divided by 1/1000, SphereNu.
//   - Features. The published code averages them over 3 x 3 positions, of which the paper says nothing, and has ResNets whose
//     layers end in a leaky ReLU. Here they are averaged, and end in the ReLU that the teacher has, as anomalib's do.
//   - Fresh weights. The paper's are He's. The published code's are PyTorch's own, uniform within 1/sqrt(channels), as here.
//   - Repulsion. The published code begins it at the J-th row, which is the K-th where J is K, as published. Here it begins
//     behind the K-th (Eq. 2).
//   - Score. The published one is the nearest distance times its share in the softmin over K (Eq. 5), which is a K-th where all K
//     are about as far. By default it is the distance itself (Eq. 4), by which more defects are found.
//   - Clusters. The published code's are scikit-learn's best of ten. Here one start of k-means++ is drawn from the seed.
//
// Dimension letters: B batch, C channels, S side of the square network input, H and W of layer1's features, D dimensions of a
// descriptor, M rows of the bank.
package cfa

import (
	"math"

	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
)

// Name is the method's, as method.Settings has it.
const Name = "cfa"

// Spheres are the settings that CFA has beside those of all methods. Start from DefaultSpheres: zero values are not replaced.
type Spheres struct {
	SphereNear   int     `json:"sphere_near,omitzero"`   // K nearest rows of the bank, which attract a descriptor (Eq. 1) and, by ScoreSoftmin, score it
	SphereFar    int     `json:"sphere_far,omitzero"`    // J rows next to those, which repel it (Eq. 2); 0: none do
	SphereRadius float64 `json:"sphere_radius,omitzero"` // r, with which training begins
	SphereLearn  bool    `json:"sphere_learn,omitzero"`  // r learns, as in the published code; else it stays, as in the paper
	SphereMargin float64 `json:"sphere_margin,omitzero"` // alpha, by how much the squared distance from a row that repels may be less than r^2
	SphereNu     float64 `json:"sphere_nu,omitzero"`     // what both losses are divided by
	SphereRows   int     `json:"sphere_rows,omitzero"`   // gamma_c: the bank has one row for so many positions
	SphereWidth  int     `json:"sphere_width,omitzero"`  // gamma_d: a descriptor has one dimension for so many channels of the features
	SphereRate   float64 `json:"sphere_rate,omitzero"`   // AdamW's learning rate, a constant
	SphereDecay  float64 `json:"sphere_decay,omitzero"`  // AdamW's weight decay, of all that learns
	SphereScore  string  `json:"sphere_score,omitzero"`  // ScoreSoftmin or ScoreNearest
}

// How a position's value is made of its distances from the nearest rows.
const (
	ScoreSoftmin = "softmin" // that of the nearest row times its share in the softmin over K (Eq. 5), as published
	ScoreNearest = "nearest" // that of the nearest row alone (Eq. 4)
)

// DefaultSpheres is what is published, in section 4.1 of the paper and in its code, but for the score.
func DefaultSpheres() Spheres {
	return Spheres{SphereNear: 3, SphereFar: 3, SphereRadius: 1e-5, SphereLearn: true, SphereMargin: 0.1, SphereNu: 1e-3, SphereRows: 1, SphereWidth: 1,
		SphereRate: 1e-3, SphereDecay: 5e-4, SphereScore: ScoreNearest}
}

// ReleasedSpheres is what is published.
func ReleasedSpheres() Spheres {
	c := DefaultSpheres()
	c.SphereScore = ScoreSoftmin
	return c
}

// The largest values that Check lets pass: above use, low enough that no size overflows.
const (
	maxRows   = 64
	maxShare  = 1 << 16
	maxRadius = 1e6
)

// Check says which value cannot be, by a setting.Error.
func (c *Spheres) Check() error {
	switch {
	case c.SphereNear < 1 || c.SphereNear > maxRows:
		return setting.Refuse("sphere_near", c.SphereNear, "use 1 to %d", maxRows)
	case c.SphereFar < 0 || c.SphereFar > maxRows:
		return setting.Refuse("sphere_far", c.SphereFar, "use 1 to %d, or 0 for none", maxRows)
	case !(c.SphereRadius >= 0 && c.SphereRadius <= maxRadius):
		return setting.Refuse("sphere_radius", c.SphereRadius, "use 0 to %v", float64(maxRadius))
	case !(c.SphereMargin >= 0 && c.SphereMargin <= maxRadius):
		return setting.Refuse("sphere_margin", c.SphereMargin, "use 0 to %v", float64(maxRadius))
	case !(c.SphereNu >= 1e-9 && c.SphereNu <= 1e9):
		return setting.Refuse("sphere_nu", c.SphereNu, "use 1e-9 to 1e9")
	case c.SphereRows < 1 || c.SphereRows > maxShare:
		return setting.Refuse("sphere_rows", c.SphereRows, "use 1 to %d", maxShare)
	case c.SphereWidth < 1 || c.SphereWidth > maxShare:
		return setting.Refuse("sphere_width", c.SphereWidth, "use 1 to %d", maxShare)
	case !method.Positive(c.SphereRate):
		return setting.Refuse("sphere_rate", c.SphereRate, "it must be positive and finite")
	case !(c.SphereDecay >= 0 && c.SphereDecay <= math.MaxFloat32):
		return setting.Refuse("sphere_decay", c.SphereDecay, "use 0 or more")
	case c.SphereScore != ScoreSoftmin && c.SphereScore != ScoreNearest:
		return setting.Refuse("sphere_score", c.SphereScore, "use %s or %s", ScoreSoftmin, ScoreNearest)
	}
	return nil
}

// Complete fills in what files of before a setting was there lack.
func (c *Spheres) Complete() {
	if c.SphereScore == "" {
		c.SphereScore = ScoreSoftmin
	}
}
