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
		{"zero", func(c *rdpp.Config) { *c = rdpp.Config{} }, "--arch"},
		{"arch", func(c *rdpp.Config) { c.Arch = "resnet101" }, `"resnet101"`},
		{"method", func(c *rdpp.Config) { c.Method = "RD++" }, `"RD++"`},
		{"size 0", func(c *rdpp.Config) { c.ImageSize = 0 }, "--image-size 0"},
		{"size 48", func(c *rdpp.Config) { c.ImageSize = 48 }, "--image-size 48"},
		{"size -32", func(c *rdpp.Config) { c.ImageSize = -32 }, "--image-size -32"},
		{"size 8192", func(c *rdpp.Config) { c.ImageSize = 8192 }, "--image-size 8192"},
		{"bits", func(c *rdpp.Config) { c.BitDepth = 12 }, ""},
		{"bits 7", func(c *rdpp.Config) { c.BitDepth = 7 }, "--bit-depth 7"},
		{"bits 17", func(c *rdpp.Config) { c.BitDepth = 17 }, "--bit-depth 17"},
		{"std 0", func(c *rdpp.Config) { c.Std[1] = 0 }, "deviations"},
		{"std NaN", func(c *rdpp.Config) { c.Std[2] = float32(nan) }, "deviations"},
		{"epochs", func(c *rdpp.Config) { c.Epochs = 0 }, "--epochs 0"},
		{"batch 0", func(c *rdpp.Config) { c.Batch = 0 }, "--batch 0"},
		{"batch 5000", func(c *rdpp.Config) { c.Batch = 5000 }, "--batch 5000"},
		{"accumulate", func(c *rdpp.Config) { c.Accumulate = -1 }, "--accumulate -1"},
		{"select", func(c *rdpp.Config) { c.Select = "best" }, `--select "best"`},
		{"precision", func(c *rdpp.Config) { c.Precision = "fp16" }, `--precision "fp16"`},
		{"rate 0", func(c *rdpp.Config) { c.RateDistill = 0 }, "learning rates"},
		{"rate NaN", func(c *rdpp.Config) { c.RateProjection = nan }, "learning rates"},
		{"schedule", func(c *rdpp.Config) { c.Schedule = "linear" }, `--schedule "linear"`},
		{"beta 1", func(c *rdpp.Config) { c.Beta1 = 1 }, "betas"},
		{"beta NaN", func(c *rdpp.Config) { c.Beta2 = nan }, "betas"},
		{"eps", func(c *rdpp.Config) { c.AdamEps = 0 }, "betas"},
		{"noise", func(c *rdpp.Config) { c.NoiseLambda = -0.1 }, "--noise"},
		{"noise NaN", func(c *rdpp.Config) { c.NoiseLambda = nan }, "--noise"},
		{"sigma 0", func(c *rdpp.Config) { c.MapSigma = 0 }, "sigma"},
		{"sigma 64", func(c *rdpp.Config) { c.MapSigma = 64 }, "sigma"},
		{"sigma infinite", func(c *rdpp.Config) { c.MapSigma = inf }, "sigma"},
		{"mean NaN", func(c *rdpp.Config) { c.Mean[1] = float32(nan) }, "means"},
		{"mean infinite", func(c *rdpp.Config) { c.Mean[2] = float32(-inf) }, "means"},
		{"std infinite", func(c *rdpp.Config) { c.Std[0] = float32(inf) }, "deviations"},
		{"rate infinite", func(c *rdpp.Config) { c.RateDistill = inf }, "learning rates"},
		{"weights 0", func(c *rdpp.Config) { c.WeightSSOT, c.WeightRecon, c.WeightContrast = 0, 0, 0 }, ""},
		{"weight negative", func(c *rdpp.Config) { c.WeightRecon = -1 }, "loss weights"},
		{"weight NaN", func(c *rdpp.Config) { c.WeightContrast = nan }, "loss weights"},
		{"weight infinite", func(c *rdpp.Config) { c.WeightSSOT = inf }, "loss weights"},
		{"margin 2", func(c *rdpp.Config) { c.Margin = 2 }, "margin"},
		{"margin NaN", func(c *rdpp.Config) { c.Margin = nan }, "margin"},
		{"noise infinite", func(c *rdpp.Config) { c.NoiseLambda = inf }, "--noise"},
		{"sinkhorn p", func(c *rdpp.Config) { c.SinkhornP = 3 }, "exponent 3"},
		{"sinkhorn blur", func(c *rdpp.Config) { c.SinkhornBlur = 0 }, "blur 0"},
		{"sinkhorn reach", func(c *rdpp.Config) { c.SinkhornReach = nan }, "reach NaN"},
		{"sinkhorn diameter", func(c *rdpp.Config) { c.SinkhornDiameter = -1 }, "diameter -1"},
		{"sinkhorn scaling", func(c *rdpp.Config) { c.SinkhornScaling = 1 }, "scaling 1"},
		{"ssot", func(c *rdpp.Config) { c.SSOT = "" }, "--ssot"},
		{"released", func(c *rdpp.Config) { *c = rdpp.Preset(rdpp.PresetPaper, "screw") }, ""},
		{"by epochs", func(c *rdpp.Config) { c.Updates = 0 }, ""},
		{"updates", func(c *rdpp.Config) { c.Updates = -1 }, "--updates -1"},
		{"released noise", func(c *rdpp.Config) { c.NoiseReleased = true }, "--defects 0"},
		{"defects", func(c *rdpp.Config) { c.Defects = -1 }, "--defects -1"},
		{"defects 1000", func(c *rdpp.Config) { c.Defects = 1000 }, "--defects 1000"},
		{"denoise", func(c *rdpp.Config) { c.Denoise = 1.1 }, "--denoise 1.1"},
		{"denoise NaN", func(c *rdpp.Config) { c.Denoise = nan }, "--denoise NaN"},
		{"light", func(c *rdpp.Config) { c.Light = 0.9 }, "--light"},
		{"light NaN", func(c *rdpp.Config) { c.Light = nan }, "--light"},
		{"easy cut", func(c *rdpp.Config) { c.EasyCut = 1 }, "--easy-cut 1"},
		{"easy below", func(c *rdpp.Config) { c.EasyBelow = inf }, "--easy-below"},
		{"project", func(c *rdpp.Config) { c.Project = "finest" }, `--project "finest"`},
		{"score", func(c *rdpp.Config) { c.Score = "best" }, `--score "best"`},
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
