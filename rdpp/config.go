// Package rdpp learns what good parts look like from photographs of good parts alone, and finds and outlines
// defects: RD++ (Tien et al., "Revisiting Reverse Distillation for Anomaly Detection", CVPR 2023).
//
// [Train] turns a folder of photographs into a model file, a [Detector] opens that file and scores images.
// [Model] is the four networks and what is known about them; [Config] is every choice that changes a result.
//
// Dimension letters: B batch, C channels, H height, W width, S side of the square network input.
package rdpp

import (
	"fmt"
	"math"
	"slices"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/setting"
	"rdpp/torch"
)

// Version is written into model files.
const Version = "0.1.0"

// SettingError refuses the value of a setting: a field of Config, PretrainConfig or the options of a function, by its name in
// JSON. Text of rdpp/setting tells it with other names.
type SettingError = setting.Error

// ErrConfig is what every SettingError is, by errors.Is.
var ErrConfig = setting.ErrValue

// wrong refuses a value; want says what to do, with other settings in braces.
func wrong(field string, value any, want string, args ...any) error {
	return fmt.Errorf("rdpp: %w", setting.Wrong(field, value, want, args...))
}

// The methods.
const (
	MethodRDPP = "rd++" // with projection and all four losses
	MethodRD   = "rd"   // the baseline: no projection, L_KD alone
)

// Which epoch becomes the model.
const (
	SelectLast       = "last"
	SelectBestOnTest = "best-on-test" // the released protocol; it chooses on the answer
)

// Which scales the projection is of. The others go to the bottleneck as the teacher sees them.
const (
	ProjectAll      = "all"      // as released
	ProjectCoarsest = "coarsest" // layer3's
)

// BitDepthAuto stands for the number of bits that the training images use.
const BitDepthAuto = 0

// How the learning rates change over the updates of the weights.
const (
	ScheduleCosine   = "cosine"   // up over the first twentieth, then down to a thousandth
	ScheduleConstant = "constant" // as released
)

// Config holds every choice that changes a training's result. It travels as JSON in the model file. Start from
// DefaultConfig: zero values are not replaced.
type Config struct {
	Arch      string `json:"arch"`       // backbone, one of torch.Architectures
	Method    string `json:"method"`     // MethodRDPP or MethodRD
	ImageSize int    `json:"image_size"` // side S of the network input in pixels, a multiple of 32

	BitDepth int `json:"bit_depth"` // bits that the values of 16-bit images use, 8 to 16, or BitDepthAuto, which the start of training replaces

	Mean [3]float32 `json:"mean"` // subtracted from RGB in 0..1
	Std  [3]float32 `json:"std"`  // divided by

	Updates    int    `json:"updates"`    // of the weights, to the end of a pass over the images; 0: Epochs alone count
	Epochs     int    `json:"epochs"`     // passes over the images; with Updates the most, which end them earlier, and once training has begun those that Updates take
	Batch      int    `json:"batch"`      // images per step
	Accumulate int    `json:"accumulate"` // steps whose gradients are summed for one update
	Select     string `json:"select"`     // SelectLast or SelectBestOnTest
	Precision  string `json:"precision"`  // of training, one of torch.Precisions, or PrecisionAuto
	Seed       uint64 `json:"seed"`       // of fresh weights, order, noise and shuffles

	RateProjection float64 `json:"rate_projection"` // Adam's highest learning rate of P
	RateDistill    float64 `json:"rate_distill"`    // and of O and D
	Schedule       string  `json:"schedule"`        // ScheduleCosine or ScheduleConstant
	Average        float64 `json:"average"`         // the model is an exponential average of the weights over this share of the updates; 0: the last ones
	Clip           float64 `json:"clip"`            // longest gradient, P, O and D as one vector; 0: any
	Beta1          float64 `json:"beta1"`
	Beta2          float64 `json:"beta2"`
	AdamEps        float64 `json:"adam_eps"`

	Project string `json:"project"` // the scales that P is of: ProjectAll or ProjectCoarsest

	KDPerPosition  bool    `json:"kd_per_position"` // Eq. 1 by its letter, instead of flattened maps as released
	SSOT           string  `json:"ssot"`            // reading of L_SSOT: "pairwise", "batch" or "off"
	WeightSSOT     float64 `json:"weight_ssot"`     // of the total L_KD + sum of weight * term
	WeightRecon    float64 `json:"weight_recon"`
	WeightContrast float64 `json:"weight_contrast"`
	Margin         float64 `json:"margin"` // of L_Con

	SinkhornP        int     `json:"sinkhorn_p"` // options of the solver, for SSOT "batch"
	SinkhornBlur     float64 `json:"sinkhorn_blur"`
	SinkhornReach    float64 `json:"sinkhorn_reach"` // 0: balanced
	SinkhornDiameter float64 `json:"sinkhorn_diameter"`
	SinkhornScaling  float64 `json:"sinkhorn_scaling"`

	NoiseLambda   float64 `json:"noise_lambda"`   // factor of the simplex noise on RGB in 0..1
	NoiseReleased bool    `json:"noise_released"` // one noise field per run, as released, instead of one per image

	Defects int     `json:"defects"` // pseudo-anomalies: at most so many made-up defects per image; 0: one box of noise, as released
	Denoise float64 `json:"denoise"` // share of a batch that has pseudo-anomalies, and that O and D learn to see without them; 0: all have, and O and D see none, as released
	Light   float64 `json:"light"`   // brightness of training images varies by up to this share; 0: not, as released

	EasyCut   float64 `json:"easy_cut"`   // share of L_KD's gradient that positions lose where the student is near to the teacher; 0: none, as released
	EasyBelow float64 `json:"easy_below"` // near: below the mean distance plus so many deviations

	Equalise bool   `json:"equalise"` // the teacher's channels are scaled to one deviation over the training images
	Score    string `json:"score"`    // ScoreReleased or ScoreBalanced

	MapSigma float64 `json:"map_sigma"` // Gaussian that smooths the anomaly map, pixels of the network input

	Calibration float64 `json:"calibration"` // share of the good images that is held out to calibrate the threshold; 0: none
	FalseAlarm  float64 `json:"false_alarm"` // share of good images that the threshold lets be called anomalous
}

// DefaultConfig returns what did best, of what was tried, in trainings of some minutes on real parts (BENCHMARKS.md); Preset returns
// the released settings. Weights of the loss are those of the released code, 0.2/1.11 times (1, 0.01, 0.1); the paper's
// text has 0.2, 0.002 and 0.02.
func DefaultConfig() Config {
	return Config{
		Arch: "wide_resnet50_2", Method: MethodRDPP, ImageSize: 256,
		Mean: dataset.ImageNet.Mean, Std: dataset.ImageNet.Std,
		Updates: 1900, Epochs: 100, Batch: 4, Accumulate: 1, Select: SelectLast, Precision: PrecisionAuto, Seed: 1,
		RateProjection: 0.001, RateDistill: 0.004, Schedule: ScheduleCosine, Beta1: 0.5, Beta2: 0.999, AdamEps: 1e-8,
		Project: ProjectCoarsest,
		SSOT:    "pairwise", WeightSSOT: 0.2 / 1.11, WeightRecon: 0.2 * 0.01 / 1.11, WeightContrast: 0.2 * 0.1 / 1.11,
		Margin:    0.5,
		SinkhornP: 2, SinkhornBlur: 0.05, SinkhornDiameter: 1e7, SinkhornScaling: 0.95,
		NoiseLambda: 0.2, Defects: 2, Denoise: 0.5, Light: 0.2, EasyCut: 0.9, EasyBelow: 0.5,
		Equalise: true, Score: ScoreBalanced, MapSigma: 4,
		Calibration: 0.1, FalseAlarm: 0.01,
	}
}

// The largest values that Validate lets pass: far above use, low enough that no size overflows and that a model file cannot ask for
// minutes and all memory.
const (
	maxImageSize = 2048
	maxMapSigma  = 64
	maxBatch     = 4096
	maxDefects   = 100
	maxUpdates   = 1_000_000_000
)

// Validate says which value cannot be, by a SettingError.
func (c *Config) Validate() error {
	switch {
	case !slices.Contains(torch.Architectures(), c.Arch):
		return wrong("arch", c.Arch, "use one of %v", torch.Architectures())
	case c.Method != MethodRDPP && c.Method != MethodRD:
		return wrong("method", c.Method, "use %s or %s", MethodRDPP, MethodRD)
	case c.Project != ProjectAll && c.Project != ProjectCoarsest:
		return wrong("project", c.Project, "use %s or %s", ProjectCoarsest, ProjectAll)
	case c.ImageSize < 32 || c.ImageSize > maxImageSize || c.ImageSize%32 != 0:
		return wrong("image_size", c.ImageSize, "use a multiple of 32 from 32 to %d", maxImageSize)
	case c.BitDepth != BitDepthAuto && (c.BitDepth < 8 || c.BitDepth > 16):
		return wrong("bit_depth", c.BitDepth, "use 8, 10, 12, 14 or 16, or auto")
	case !positive(float64(c.Std[0]), float64(c.Std[1]), float64(c.Std[2])):
		return wrong("std", c.Std, "all three must be positive")
	case !(max(c.Mean[0], c.Mean[1], c.Mean[2], -c.Mean[0], -c.Mean[1], -c.Mean[2]) <= math.MaxFloat32):
		return wrong("mean", c.Mean, "all three must be finite")
	case c.Updates < 0 || c.Updates > maxUpdates:
		return wrong("updates", c.Updates, "use 1 to %d, or 0 to go by {epochs}", maxUpdates)
	case c.Epochs < 1:
		return wrong("epochs", c.Epochs, "use at least 1")
	case c.Batch < 1 || c.Batch > maxBatch:
		return wrong("batch", c.Batch, "use 1 to %d", maxBatch)
	case c.Accumulate < 1:
		return wrong("accumulate", c.Accumulate, "use at least 1")
	case c.Select != SelectLast && c.Select != SelectBestOnTest:
		return wrong("select", c.Select, "use %s or %s", SelectLast, SelectBestOnTest)
	case c.Precision != PrecisionAuto && !slices.Contains(torch.Precisions(), c.Precision):
		return wrong("precision", c.Precision, "use auto, fp32, tf32 or bf16")
	case !positive(c.RateProjection):
		return wrong("rate_projection", c.RateProjection, "it must be positive and finite")
	case !positive(c.RateDistill):
		return wrong("rate_distill", c.RateDistill, "it must be positive and finite")
	case c.Schedule != ScheduleCosine && c.Schedule != ScheduleConstant:
		return wrong("schedule", c.Schedule, "use %s or %s", ScheduleCosine, ScheduleConstant)
	case !(c.Average >= 0 && c.Average <= 1):
		return wrong("average", c.Average, "use a share of the updates, 0 to 1")
	case !(c.Clip >= 0 && c.Clip <= math.MaxFloat64):
		return wrong("clip", c.Clip, "use a positive length, or 0 for none")
	case !(c.Beta1 >= 0 && c.Beta1 < 1):
		return wrong("beta1", c.Beta1, "use 0 to less than 1")
	case !(c.Beta2 >= 0 && c.Beta2 < 1):
		return wrong("beta2", c.Beta2, "use 0 to less than 1")
	case !positive(c.AdamEps):
		return wrong("adam_eps", c.AdamEps, "it must be positive and finite")
	case !(c.Calibration >= 0 && c.Calibration <= 0.3):
		return wrong("calibration", c.Calibration, "use a share of the good images, 0 to 0.3")
	case !(c.FalseAlarm >= 0 && c.FalseAlarm < 1) || c.Calibration > 0 && c.FalseAlarm == 0:
		return wrong("false_alarm", c.FalseAlarm, "use a share of the good images, above 0 and below 1")
	case !(c.WeightSSOT >= 0 && c.WeightSSOT <= math.MaxFloat64):
		return wrong("weight_ssot", c.WeightSSOT, "use 0 or more")
	case !(c.WeightRecon >= 0 && c.WeightRecon <= math.MaxFloat64):
		return wrong("weight_recon", c.WeightRecon, "use 0 or more")
	case !(c.WeightContrast >= 0 && c.WeightContrast <= math.MaxFloat64):
		return wrong("weight_contrast", c.WeightContrast, "use 0 or more")
	case !(c.Margin >= -1 && c.Margin <= 1):
		return wrong("margin", c.Margin, "cosines lie in [-1, 1]")
	case c.SinkhornP != 1 && c.SinkhornP != 2:
		return wrong("sinkhorn_p", c.SinkhornP, "use 1 or 2")
	case !positive(c.SinkhornBlur):
		return wrong("sinkhorn_blur", c.SinkhornBlur, "it must be positive and finite")
	case !positive(c.SinkhornDiameter):
		return wrong("sinkhorn_diameter", c.SinkhornDiameter, "it must be positive and finite")
	case !(c.SinkhornReach >= 0):
		return wrong("sinkhorn_reach", c.SinkhornReach, "use 0 or more")
	case !(c.SinkhornScaling > 0 && c.SinkhornScaling < 1):
		return wrong("sinkhorn_scaling", c.SinkhornScaling, "use a number between 0 and 1")
	case !(c.NoiseLambda >= 0 && c.NoiseLambda <= math.MaxFloat64):
		return wrong("noise_lambda", c.NoiseLambda, "use 0 or more")
	case c.NoiseReleased && c.Defects > 0:
		return wrong("noise_released", true, "it is about boxes of noise, so set {defects} to 0, not %d", c.Defects)
	case c.Defects < 0 || c.Defects > maxDefects:
		return wrong("defects", c.Defects, "use 0 to %d", maxDefects)
	case !(c.Denoise >= 0 && c.Denoise <= 1):
		return wrong("denoise", c.Denoise, "use a share of the images, 0 to 1")
	case !(c.EasyCut >= 0 && c.EasyCut < 1):
		return wrong("easy_cut", c.EasyCut, "use a share of the gradient, 0 to less than 1")
	case !(math.Abs(c.EasyBelow) <= math.MaxFloat32):
		return wrong("easy_below", c.EasyBelow, "use a number of deviations")
	case c.Score != ScoreReleased && c.Score != ScoreBalanced:
		return wrong("score", c.Score, "use %s or %s", ScoreBalanced, ScoreReleased)
	case !(c.MapSigma > 0 && c.MapSigma*4 < float64(c.ImageSize) && c.MapSigma <= maxMapSigma):
		return wrong("map_sigma", c.MapSigma, "use more than 0, at most %d, and less than a quarter of {image_size}, which is %d", maxMapSigma, c.ImageSize)
	}
	if err := (dataset.Light{Exposure: c.Light}).Check(); err != nil {
		return wrong("light", c.Light, "use a share of the brightness, 0 to less than 0.8")
	}
	_, err := c.ssot()
	return err
}

// positive says whether all values are, and finite. A NaN makes minimum and maximum NaN, and so the answer false.
func positive(values ...float64) bool {
	return slices.Min(values) > 0 && slices.Max(values) <= math.MaxFloat64
}

func (c *Config) ssot() (torch.SSOT, error) {
	switch c.SSOT {
	case "pairwise":
		return torch.SSOTPairwise, nil
	case "batch":
		return torch.SSOTBatch, nil
	case "off":
		return torch.SSOTOff, nil
	}
	return 0, wrong("ssot", c.SSOT, "use pairwise, batch or off")
}

// complete fills in what files of before a setting was there lack.
func (c *Config) complete() {
	if c.BitDepth == 0 {
		c.BitDepth = 16
	}
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
func (c *Config) rateFactor(update, updates int) float64 {
	if c.Schedule == ScheduleConstant {
		return 1
	}
	at, peak, last := float64(update+1), math.Ceil(float64(updates)/20), float64(updates)
	if at <= peak {
		return at / peak
	}
	return cosine(1, 1e-3, (at-peak)/(last-peak))
}

// cosine is half a wave from one value to another; way is 0 at the first and 1 at the second.
func cosine(from, to, way float64) float64 { return to + (from-to)*(1+math.Cos(math.Pi*way))/2 }

func (c *Config) sinkhorn() torch.SinkhornOptions {
	return torch.SinkhornOptions{P: c.SinkhornP, Blur: c.SinkhornBlur, Reach: c.SinkhornReach,
		Diameter: c.SinkhornDiameter, Scaling: c.SinkhornScaling}
}

func (c *Config) norm() dataset.Norm { return dataset.Norm{Mean: c.Mean, Std: c.Std} }
