// Package reverse is reverse distillation: RD++ (Tien et al., "Revisiting Reverse Distillation for Anomaly Detection", CVPR
// 2023) and its baseline RD (Deng and Li, CVPR 2022). A teacher E sees an image, a projection P of its features, a
// bottleneck O and a student D learn to give the teacher's features back, and where they do not is the map.
//
// Dimension letters: B batch, C channels, H height, W width, S side of the square network input.
package reverse

import (
	"math"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/torch"
)

// The methods of this package.
const (
	RDPP = "rd++" // with projection and all four losses
	RD   = "rd"   // the baseline: no projection, L_KD alone
)

// Which scales the projection is of. The others go to the bottleneck as the teacher sees them.
const (
	ProjectAll      = "all"      // as released
	ProjectCoarsest = "coarsest" // layer3's
)

// How the learning rates change over the updates of the weights.
const (
	ScheduleCosine   = "cosine"   // up over the first twentieth, then down to a thousandth
	ScheduleConstant = "constant" // as released
)

// How the scales' distances become a map.
const (
	ScoreReleased = "released" // their plain sum
	ScoreBalanced = "balanced" // the weighted sum of log(1 + d/level), levels being what distances d are on training images
)

// Distillation are the settings that RD++ and RD have beside those of all methods. Start from DefaultDistillation: zero values
// are not replaced. The tag without names the method that does without a setting: RD, of what is about noise, projection and
// the losses that need them.
type Distillation struct {
	Accumulate int `json:"accumulate"` // steps whose gradients are summed for one update

	RateProjection float64 `json:"rate_projection" without:"rd"` // Adam's highest learning rate of P
	RateDistill    float64 `json:"rate_distill"`                 // and of O and D
	Schedule       string  `json:"schedule"`                     // ScheduleCosine or ScheduleConstant
	Average        float64 `json:"average"`                      // the model is an exponential average of the weights over this share of the updates; 0: the last ones
	Clip           float64 `json:"clip"`                         // longest gradient, P, O and D as one vector; 0: any
	Beta1          float64 `json:"beta1"`
	Beta2          float64 `json:"beta2"`
	AdamEps        float64 `json:"adam_eps"`

	Project string `json:"project" without:"rd"` // the scales that P is of: ProjectAll or ProjectCoarsest

	KDPerPosition  bool    `json:"kd_per_position"`          // Eq. 1 by its letter, instead of flattened maps as released
	SSOT           string  `json:"ssot" without:"rd"`        // reading of L_SSOT: "pairwise", "batch" or "off"
	WeightSSOT     float64 `json:"weight_ssot" without:"rd"` // of the total L_KD + sum of weight * term
	WeightRecon    float64 `json:"weight_recon" without:"rd"`
	WeightContrast float64 `json:"weight_contrast" without:"rd"`
	Margin         float64 `json:"margin" without:"rd"` // of L_Con

	SinkhornP        int     `json:"sinkhorn_p" without:"rd"` // options of the solver, for SSOT "batch"
	SinkhornBlur     float64 `json:"sinkhorn_blur" without:"rd"`
	SinkhornReach    float64 `json:"sinkhorn_reach" without:"rd"` // 0: balanced
	SinkhornDiameter float64 `json:"sinkhorn_diameter" without:"rd"`
	SinkhornScaling  float64 `json:"sinkhorn_scaling" without:"rd"`

	NoiseLambda   float64 `json:"noise_lambda" without:"rd"`   // factor of the simplex noise on RGB in 0..1
	NoiseReleased bool    `json:"noise_released" without:"rd"` // one noise field per run, as released, instead of one per image

	Defects int     `json:"defects" without:"rd"` // pseudo-anomalies: at most so many made-up defects per image; 0: one box of noise, as released
	Denoise float64 `json:"denoise" without:"rd"` // share of a batch that has pseudo-anomalies, and that O and D learn to see without them; 0: all have, and O and D see none, as released
	Light   float64 `json:"light"`                // brightness of training images varies by up to this share; 0: not, as released

	// How far parts are moved, either way, in training images; files have those alone that are not 0.
	AugmentShift  float64 `json:"augment_shift,omitzero"`  // share of the image's sides
	AugmentRotate float64 `json:"augment_rotate,omitzero"` // degrees
	AugmentScale  float64 `json:"augment_scale,omitzero"`  // share of the size

	EasyCut   float64 `json:"easy_cut"`   // share of L_KD's gradient that positions lose where the student is near to the teacher; 0: none, as released
	EasyBelow float64 `json:"easy_below"` // near: below the mean distance plus so many deviations

	Equalise bool   `json:"equalise"` // the teacher's channels are scaled to one deviation over the training images
	Score    string `json:"score"`    // ScoreReleased or ScoreBalanced

	ScoreTop float64 `json:"score_top"` // an image's score is the mean of this share of its map's pixels, the highest; 0: the maximum, as released
}

// DefaultDistillation is what did best, of what was tried, in trainings of some minutes on real parts (BENCHMARKS.md).
// Weights of the loss are those of the released code, 0.2/1.11 times (1, 0.01, 0.1); the paper's text has 0.2, 0.002 and
// 0.02.
func DefaultDistillation() Distillation {
	return Distillation{
		Accumulate:     1,
		RateProjection: 0.001, RateDistill: 0.004, Schedule: ScheduleCosine, Beta1: 0.5, Beta2: 0.999, AdamEps: 1e-8,
		Project: ProjectCoarsest,
		SSOT:    "pairwise", WeightSSOT: 0.2 / 1.11, WeightRecon: 0.2 * 0.01 / 1.11, WeightContrast: 0.2 * 0.1 / 1.11,
		Margin:    0.5,
		SinkhornP: 2, SinkhornBlur: 0.05, SinkhornDiameter: 1e7, SinkhornScaling: 0.95,
		NoiseLambda: 0.2, Defects: 2, Denoise: 0.75, Light: 0.2, EasyCut: 0.97, EasyBelow: 1,
		Equalise: true, Score: ScoreBalanced, ScoreTop: 0.01,
	}
}

// ReleasedDistillation is what the released code does: constant learning rates of 0.001 and 0.005, gradients summed in
// pairs, L_SSOT of the whole batch, one noise field per run, and maps that are plain sums.
func ReleasedDistillation() Distillation {
	c := DefaultDistillation()
	c.Accumulate = 2
	c.RateProjection, c.RateDistill, c.Schedule, c.Average, c.Clip = 0.001, 0.005, ScheduleConstant, 0, 0
	c.Project, c.SSOT, c.NoiseReleased = ProjectAll, "batch", true
	c.Defects, c.Denoise, c.Light, c.EasyCut, c.EasyBelow, c.Equalise, c.Score, c.ScoreTop = 0, 0, 0, 0, 0, false, ScoreReleased, 0
	return c
}

// maxDefects is far above use, low enough that no image takes minutes.
const maxDefects = 100

// Check says which value cannot be, by a setting.Error.
func (c *Distillation) Check() error {
	switch {
	case c.Project != ProjectAll && c.Project != ProjectCoarsest:
		return setting.Refuse("project", c.Project, "use %s or %s", ProjectCoarsest, ProjectAll)
	case c.Accumulate < 1:
		return setting.Refuse("accumulate", c.Accumulate, "use at least 1")
	case !method.Positive(c.RateProjection):
		return setting.Refuse("rate_projection", c.RateProjection, "it must be positive and finite")
	case !method.Positive(c.RateDistill):
		return setting.Refuse("rate_distill", c.RateDistill, "it must be positive and finite")
	case c.Schedule != ScheduleCosine && c.Schedule != ScheduleConstant:
		return setting.Refuse("schedule", c.Schedule, "use %s or %s", ScheduleCosine, ScheduleConstant)
	case !(c.Average >= 0 && c.Average <= 1):
		return setting.Refuse("average", c.Average, "use a share of the updates, 0 to 1")
	case !(c.Clip >= 0 && c.Clip <= math.MaxFloat64):
		return setting.Refuse("clip", c.Clip, "use a positive length, or 0 for none")
	case !(c.Beta1 >= 0 && c.Beta1 < 1):
		return setting.Refuse("beta1", c.Beta1, "use 0 to less than 1")
	case !(c.Beta2 >= 0 && c.Beta2 < 1):
		return setting.Refuse("beta2", c.Beta2, "use 0 to less than 1")
	case !method.Positive(c.AdamEps):
		return setting.Refuse("adam_eps", c.AdamEps, "it must be positive and finite")
	case !(c.WeightSSOT >= 0 && c.WeightSSOT <= math.MaxFloat64):
		return setting.Refuse("weight_ssot", c.WeightSSOT, "use 0 or more")
	case !(c.WeightRecon >= 0 && c.WeightRecon <= math.MaxFloat64):
		return setting.Refuse("weight_recon", c.WeightRecon, "use 0 or more")
	case !(c.WeightContrast >= 0 && c.WeightContrast <= math.MaxFloat64):
		return setting.Refuse("weight_contrast", c.WeightContrast, "use 0 or more")
	case !(c.Margin >= -1 && c.Margin <= 1):
		return setting.Refuse("margin", c.Margin, "cosines lie in [-1, 1]")
	case c.SinkhornP != 1 && c.SinkhornP != 2:
		return setting.Refuse("sinkhorn_p", c.SinkhornP, "use 1 or 2")
	case !method.Positive(c.SinkhornBlur):
		return setting.Refuse("sinkhorn_blur", c.SinkhornBlur, "it must be positive and finite")
	case !method.Positive(c.SinkhornDiameter):
		return setting.Refuse("sinkhorn_diameter", c.SinkhornDiameter, "it must be positive and finite")
	case !(c.SinkhornReach >= 0):
		return setting.Refuse("sinkhorn_reach", c.SinkhornReach, "use 0 or more")
	case !(c.SinkhornScaling > 0 && c.SinkhornScaling < 1):
		return setting.Refuse("sinkhorn_scaling", c.SinkhornScaling, "use a number between 0 and 1")
	case !(c.NoiseLambda >= 0 && c.NoiseLambda <= math.MaxFloat64):
		return setting.Refuse("noise_lambda", c.NoiseLambda, "use 0 or more")
	case c.NoiseReleased && c.Defects > 0:
		return setting.Refuse("noise_released", true, "it is about boxes of noise, so set {defects} to 0, not %d", c.Defects)
	case c.Defects < 0 || c.Defects > maxDefects:
		return setting.Refuse("defects", c.Defects, "use 0 to %d", maxDefects)
	case !(c.Denoise >= 0 && c.Denoise <= 1):
		return setting.Refuse("denoise", c.Denoise, "use a share of the images, 0 to 1")
	case !(c.EasyCut >= 0 && c.EasyCut < 1):
		return setting.Refuse("easy_cut", c.EasyCut, "use a share of the gradient, 0 to less than 1")
	case !(math.Abs(c.EasyBelow) <= math.MaxFloat32):
		return setting.Refuse("easy_below", c.EasyBelow, "use a number of deviations")
	case c.Score != ScoreReleased && c.Score != ScoreBalanced:
		return setting.Refuse("score", c.Score, "use %s or %s", ScoreBalanced, ScoreReleased)
	case !(c.ScoreTop >= 0 && c.ScoreTop <= 0.5):
		return setting.Refuse("score_top", c.ScoreTop, "use a share of the map, 0 to 0.5")
	}
	if err := (dataset.Light{Exposure: c.Light}).Check(); err != nil {
		return setting.Refuse("light", c.Light, "use a share of the brightness, 0 to less than 0.8")
	}
	for _, m := range []struct {
		field string
		value float64
		dataset.Motion
		want string
	}{{"augment_shift", c.AugmentShift, dataset.Motion{Shift: c.AugmentShift}, "use a share of the image's sides, 0 to 0.5"},
		{"augment_rotate", c.AugmentRotate, dataset.Motion{Rotate: c.AugmentRotate}, "use 0 to 180 degrees"},
		{"augment_scale", c.AugmentScale, dataset.Motion{Scale: c.AugmentScale}, "use a share of the size, 0 to 0.5"}} {
		if m.Check() != nil {
			return setting.Refuse(m.field, m.value, "%s", m.want)
		}
	}
	_, err := c.ssot()
	return err
}

func (c *Distillation) motion() dataset.Motion {
	return dataset.Motion{Shift: c.AugmentShift, Rotate: c.AugmentRotate, Scale: c.AugmentScale}
}

func (c *Distillation) ssot() (torch.SSOT, error) {
	switch c.SSOT {
	case "pairwise":
		return torch.SSOTPairwise, nil
	case "batch":
		return torch.SSOTBatch, nil
	case "off":
		return torch.SSOTOff, nil
	}
	return 0, setting.Refuse("ssot", c.SSOT, "use pairwise, batch or off")
}

// Complete fills in what files of before a setting was there lack.
func (c *Distillation) Complete() {
	if c.Schedule == "" {
		c.Schedule = ScheduleConstant
	}
	if c.Project == "" {
		c.Project = ProjectAll
	}
	if c.Score == "" {
		c.Score = ScoreReleased
	}
}

// rateFactor is what both learning rates are multiplied by in an update, counted from 0, of so many. A run that is
// resumed for more epochs goes on at the rates of the longer run.
func (c *Distillation) rateFactor(update, updates int) float64 {
	if c.Schedule == ScheduleConstant {
		return 1
	}
	at, peak, last := float64(update+1), math.Ceil(float64(updates)/20), float64(updates)
	if at <= peak {
		return at / peak
	}
	return method.Cosine(1, 1e-3, (at-peak)/(last-peak))
}

// averageWeight is the share of the newest weights in the average after an update, counted from 0, of so many: a plain
// mean at first, then an exponential one that goes back over c.Average of all updates. 0 where nothing is averaged.
func (c *Distillation) averageWeight(update, updates int) float64 {
	if c.Average == 0 {
		return 0
	}
	return max(1/float64(update+1), min(1, 1/(c.Average*float64(updates))))
}

// top is the share of the map's pixels that a score is of. A plain sum of scales has their maximum, as released.
func (c *Distillation) top() float64 {
	if c.Score == ScoreReleased {
		return 0
	}
	return c.ScoreTop
}

func (c *Distillation) sinkhorn() torch.SinkhornOptions {
	return torch.SinkhornOptions{P: c.SinkhornP, Blur: c.SinkhornBlur, Reach: c.SinkhornReach,
		Diameter: c.SinkhornDiameter, Scaling: c.SinkhornScaling}
}
