package pretrain

import (
	"math"
	"slices"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/method"
	"rdpp/rdpp/pattern"
	"rdpp/rdpp/setting"
	"rdpp/torch"
)

// What a teacher learns from drawn pictures.
const (
	ObjectiveClass = "class" // which of Classes classes a picture shows
	ObjectiveDense = "dense" // which class every position of a scene shows
	ObjectivePair  = "pair"  // which two pictures of a batch show the same
)

var objectives = map[string]torch.Objective{ObjectiveClass: torch.ObjectiveClass, ObjectiveDense: torch.ObjectiveDense,
	ObjectivePair: torch.ObjectivePair}

// Config holds every choice that changes a pre-trained teacher. It travels as JSON in the teacher's file. Start
// from DefaultConfig: zero values are not replaced.
type Config struct {
	Arch      string   `json:"arch"`       // one of torch.Architectures
	Objective string   `json:"objective"`  // ObjectiveClass, ObjectiveDense or ObjectivePair
	Classes   int      `json:"classes"`    // with ObjectiveClass and ObjectiveDense, at most 32768
	ImageSize int      `json:"image_size"` // side S of the pictures in pixels, a multiple of 32
	Kinds     []string `json:"kinds"`      // families of pictures, of pattern.Kinds; none: all

	Mean [3]float32 `json:"mean"` // subtracted from RGB in 0..1
	Std  [3]float32 `json:"std"`  // divided by

	Steps     int    `json:"steps"`
	Batch     int    `json:"batch"`     // pictures per step, even with ObjectivePair
	Precision string `json:"precision"` // one of torch.Precisions
	Seed      uint64 `json:"seed"`      // of fresh weights and pictures

	IgnoreLevel bool       `json:"ignore_level"` // keep conv1 blind to a constant added to all pixels
	Equalise    bool       `json:"equalise"`     // at the end, give all channels of a layer the same deviation
	Rate        float64    `json:"rate"`         // peak of the one-cycle learning rate
	WeightDecay float64    `json:"weight_decay"` // decoupled, of weights alone: not of biases and batch norms
	Beta1       float64    `json:"beta1"`
	Beta2       float64    `json:"beta2"`
	AdamEps     float64    `json:"adam_eps"`
	Scales      [3]float64 `json:"scales"`      // weights of the losses on layer1, layer2 and layer3; 0 leaves one out
	Smoothing   float64    `json:"smoothing"`   // share of the target that all classes have in common, with ObjectiveClass
	Temperature float64    `json:"temperature"` // of NT-Xent, with ObjectivePair
	Embedding   int        `json:"embedding"`   // dimensions that pictures are compared in, with ObjectivePair
}

// DefaultConfig returns settings for resnet18 on a CPU.
func DefaultConfig() Config {
	return Config{
		Arch: "resnet18", Objective: ObjectiveClass, Classes: 4000, ImageSize: 64, Mean: dataset.ImageNet.Mean, Std: dataset.ImageNet.Std,
		Steps: 10000, Batch: 128, Precision: "fp32", Seed: 1, IgnoreLevel: true, Equalise: true,
		Rate: 2e-3, WeightDecay: 0.05, Beta1: 0.9, Beta2: 0.999, AdamEps: 1e-8,
		Scales: [3]float64{0.3, 0.5, 1}, Smoothing: 0.1, Temperature: 0.1, Embedding: 128,
	}
}

// Validate says which value cannot be, by a SettingError.
func (c *Config) Validate() error {
	_, known := objectives[c.Objective]
	switch {
	case !slices.Contains(torch.Architectures(), c.Arch):
		return setting.Refuse("arch", c.Arch, "use one of %v", torch.Architectures())
	case !known:
		return setting.Refuse("objective", c.Objective, "use %s, %s or %s", ObjectiveClass, ObjectiveDense, ObjectivePair)
	case c.Classes < 2 || c.Classes > 1<<15:
		return setting.Refuse("classes", c.Classes, "use 2 to %d", 1<<15)
	case c.ImageSize < 32 || c.ImageSize > pattern.MaxSize || c.ImageSize%32 != 0:
		return setting.Refuse("image_size", c.ImageSize, "use a multiple of 32 from 32 to %d", pattern.MaxSize)
	case !method.Positive(float64(c.Std[0]), float64(c.Std[1]), float64(c.Std[2])):
		return setting.Refuse("std", c.Std, "all three must be positive")
	case !(max(c.Mean[0], c.Mean[1], c.Mean[2], -c.Mean[0], -c.Mean[1], -c.Mean[2]) <= math.MaxFloat32):
		return setting.Refuse("mean", c.Mean, "all three must be finite")
	case c.Steps < 1 || c.Steps > 1<<40:
		return setting.Refuse("steps", c.Steps, "use 1 to %d", 1<<40)
	case c.Batch < 2 || c.Batch > method.MaxBatch:
		return setting.Refuse("batch", c.Batch, "use 2 to %d", method.MaxBatch)
	case c.Objective == ObjectivePair && (c.Batch < 4 || c.Batch%2 != 0):
		return setting.Refuse("batch", c.Batch, "pairs need an even number from 4")
	case !slices.Contains(torch.Precisions(), c.Precision):
		return setting.Refuse("precision", c.Precision, "use fp32, tf32 or bf16")
	case !method.Positive(c.Rate):
		return setting.Refuse("rate", c.Rate, "it must be positive and finite")
	case !(c.WeightDecay >= 0 && c.WeightDecay*c.Rate < 1):
		return setting.Refuse("weight_decay", c.WeightDecay, "use 0 or more, and less than 1 / {rate}")
	case !(c.Beta1 >= 0 && c.Beta1 < 1):
		return setting.Refuse("beta1", c.Beta1, "use 0 to less than 1")
	case !(c.Beta2 >= 0 && c.Beta2 < 1):
		return setting.Refuse("beta2", c.Beta2, "use 0 to less than 1")
	case !method.Positive(c.AdamEps):
		return setting.Refuse("adam_eps", c.AdamEps, "it must be positive and finite")
	case !(min(c.Scales[0], c.Scales[1], c.Scales[2]) >= 0 && method.Positive(c.Scales[0]+c.Scales[1]+c.Scales[2])):
		return setting.Refuse("scales", c.Scales, "use 0 or more for each, and more than 0 for one")
	case !(c.Smoothing >= 0 && c.Smoothing < 1):
		return setting.Refuse("smoothing", c.Smoothing, "use 0 to less than 1")
	case !method.Positive(c.Temperature):
		return setting.Refuse("temperature", c.Temperature, "it must be positive and finite")
	case c.Embedding < 2 || c.Embedding > maxEmbedding:
		return setting.Refuse("embedding", c.Embedding, "use 2 to %d", maxEmbedding)
	}
	if _, err := pattern.New(c.pictures()); err != nil {
		return setting.Refuse("kinds", c.Kinds, "name each once, of %v", pattern.Kinds())
	}
	return nil
}

const maxEmbedding = 1 << 15

func (c *Config) pictures() *pattern.Options {
	return &pattern.Options{Size: c.ImageSize, Seed: c.Seed, Kinds: c.Kinds}
}

// outputs is the width of the heads.
func (c *Config) outputs() int {
	if c.Objective == ObjectivePair {
		return c.Embedding
	}
	return c.Classes
}

// rate is the learning rate of a step, counted from 0 (Smith and Topin, 2018, "Super-Convergence", with cosines): from
// a 25th of the peak up to it over the first tenth of the steps, then down to a 10000th.
func (c *Config) rate(step int) float64 {
	peak, at, last := 0.1*float64(c.Steps)-1, float64(step), float64(c.Steps-1)
	if at < peak {
		return method.Cosine(c.Rate/25, c.Rate, at/peak)
	}
	return method.Cosine(c.Rate, c.Rate/1e4, (at-peak)/(last-peak))
}
