package rdpp_test

import (
	"math"
	"testing"

	"rdpp/rdpp"
)

func TestValidate(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name string
		set  func(*rdpp.Config)
		want string // in the error; empty: none
	}{
		{"defaults", func(c *rdpp.Config) {}, ""},
		{"smallest", func(c *rdpp.Config) { c.ImageSize, c.Batch, c.Epochs, c.Accumulate = 32, 1, 1, 1 }, ""},
		{"baseline", func(c *rdpp.Config) { c.Method, c.SSOT, c.Select = rdpp.MethodRD, "off", rdpp.SelectBestOnTest }, ""},
		{"zero", func(c *rdpp.Config) { *c = rdpp.Config{} }, "arch is"},
		{"arch", func(c *rdpp.Config) { c.Arch = "resnet101" }, `"resnet101"`},
		{"method", func(c *rdpp.Config) { c.Method = "RD++" }, `"RD++"`},
		{"size 0", func(c *rdpp.Config) { c.ImageSize = 0 }, "image_size is 0"},
		{"size 48", func(c *rdpp.Config) { c.ImageSize = 48 }, "image_size is 48"},
		{"size -32", func(c *rdpp.Config) { c.ImageSize = -32 }, "image_size is -32"},
		{"size 8192", func(c *rdpp.Config) { c.ImageSize = 8192 }, "image_size is 8192"},
		{"bits", func(c *rdpp.Config) { c.BitDepth = 12 }, ""},
		{"bits 7", func(c *rdpp.Config) { c.BitDepth = 7 }, "bit_depth is 7"},
		{"bits 17", func(c *rdpp.Config) { c.BitDepth = 17 }, "bit_depth is 17"},
		{"std 0", func(c *rdpp.Config) { c.Std[1] = 0 }, "std is"},
		{"std NaN", func(c *rdpp.Config) { c.Std[2] = float32(nan) }, "std is"},
		{"epochs", func(c *rdpp.Config) { c.Epochs = 0 }, "epochs is 0"},
		{"batch 0", func(c *rdpp.Config) { c.Batch = 0 }, "batch is 0"},
		{"batch 5000", func(c *rdpp.Config) { c.Batch = 5000 }, "batch is 5000"},
		{"accumulate", func(c *rdpp.Config) { c.Accumulate = -1 }, "accumulate is -1"},
		{"select", func(c *rdpp.Config) { c.Select = "best" }, `select is "best"`},
		{"precision", func(c *rdpp.Config) { c.Precision = "fp16" }, `precision is "fp16"`},
		{"rate 0", func(c *rdpp.Config) { c.RateDistill = 0 }, "rate_distill is 0"},
		{"rate NaN", func(c *rdpp.Config) { c.RateProjection = nan }, "rate_projection is NaN"},
		{"schedule", func(c *rdpp.Config) { c.Schedule = "linear" }, `schedule is "linear"`},
		{"beta 1", func(c *rdpp.Config) { c.Beta1 = 1 }, "beta1 is 1"},
		{"beta NaN", func(c *rdpp.Config) { c.Beta2 = nan }, "beta2 is NaN"},
		{"eps", func(c *rdpp.Config) { c.AdamEps = 0 }, "adam_eps is 0"},
		{"noise", func(c *rdpp.Config) { c.NoiseLambda = -0.1 }, "noise_lambda is"},
		{"noise NaN", func(c *rdpp.Config) { c.NoiseLambda = nan }, "noise_lambda is"},
		{"sigma 0", func(c *rdpp.Config) { c.MapSigma = 0 }, "map_sigma is"},
		{"sigma 64", func(c *rdpp.Config) { c.MapSigma = 64 }, "map_sigma is"},
		{"sigma infinite", func(c *rdpp.Config) { c.MapSigma = inf }, "map_sigma is"},
		{"mean above white", func(c *rdpp.Config) { c.Mean[0] = 1.01 }, "mean is"},
		{"mean below black", func(c *rdpp.Config) { c.Mean[0] = -0.01 }, "mean is"},
		{"std above all", func(c *rdpp.Config) { c.Std[0] = 1.01 }, "std is"},
		{"std of rounding errors", func(c *rdpp.Config) { c.Std[0] = 1e-6 }, "std is"},
		{"mean NaN", func(c *rdpp.Config) { c.Mean[1] = float32(nan) }, "mean is"},
		{"mean infinite", func(c *rdpp.Config) { c.Mean[2] = float32(-inf) }, "mean is"},
		{"std infinite", func(c *rdpp.Config) { c.Std[0] = float32(inf) }, "std is"},
		{"rate infinite", func(c *rdpp.Config) { c.RateDistill = inf }, "rate_distill is +Inf"},
		{"weights 0", func(c *rdpp.Config) { c.WeightSSOT, c.WeightRecon, c.WeightContrast = 0, 0, 0 }, ""},
		{"weight negative", func(c *rdpp.Config) { c.WeightRecon = -1 }, "weight_recon is -1"},
		{"weight NaN", func(c *rdpp.Config) { c.WeightContrast = nan }, "weight_contrast is NaN"},
		{"weight infinite", func(c *rdpp.Config) { c.WeightSSOT = inf }, "weight_ssot is +Inf"},
		{"margin 2", func(c *rdpp.Config) { c.Margin = 2 }, "margin is"},
		{"margin NaN", func(c *rdpp.Config) { c.Margin = nan }, "margin is"},
		{"noise infinite", func(c *rdpp.Config) { c.NoiseLambda = inf }, "noise_lambda is"},
		{"sinkhorn p", func(c *rdpp.Config) { c.SinkhornP = 3 }, "sinkhorn_p is 3"},
		{"sinkhorn blur", func(c *rdpp.Config) { c.SinkhornBlur = 0 }, "sinkhorn_blur is 0"},
		{"sinkhorn reach", func(c *rdpp.Config) { c.SinkhornReach = nan }, "sinkhorn_reach is NaN"},
		{"sinkhorn diameter", func(c *rdpp.Config) { c.SinkhornDiameter = -1 }, "sinkhorn_diameter is -1"},
		{"sinkhorn scaling", func(c *rdpp.Config) { c.SinkhornScaling = 1 }, "sinkhorn_scaling is 1"},
		{"ssot", func(c *rdpp.Config) { c.SSOT = "" }, "ssot is"},
		{"released", func(c *rdpp.Config) { *c = rdpp.Preset(rdpp.PresetPaper, "screw") }, ""},
		{"by epochs", func(c *rdpp.Config) { c.Updates = 0 }, ""},
		{"updates", func(c *rdpp.Config) { c.Updates = -1 }, "updates is -1"},
		{"released noise", func(c *rdpp.Config) { c.NoiseReleased = true }, "set defects to 0, not 2"},
		{"defects", func(c *rdpp.Config) { c.Defects = -1 }, "defects is -1"},
		{"defects 1000", func(c *rdpp.Config) { c.Defects = 1000 }, "defects is 1000"},
		{"denoise", func(c *rdpp.Config) { c.Denoise = 1.1 }, "denoise is 1.1"},
		{"denoise NaN", func(c *rdpp.Config) { c.Denoise = nan }, "denoise is NaN"},
		{"light", func(c *rdpp.Config) { c.Light = 0.9 }, "light is"},
		{"light NaN", func(c *rdpp.Config) { c.Light = nan }, "light is"},
		{"easy cut", func(c *rdpp.Config) { c.EasyCut = 1 }, "easy_cut is 1"},
		{"easy below", func(c *rdpp.Config) { c.EasyBelow = inf }, "easy_below is"},
		{"project", func(c *rdpp.Config) { c.Project = "finest" }, `project is "finest"`},
		{"score", func(c *rdpp.Config) { c.Score = "best" }, `score is "best"`},
	} {
		config := rdpp.DefaultConfig()
		c.set(&config)
		err := config.Validate()
		if c.want != "" {
			checkError(t, c.name, err, rdpp.ErrConfig, c.want)
		} else if err != nil {
			t.Errorf("%s: got %v, want no error", c.name, err)
		}
	}
}
