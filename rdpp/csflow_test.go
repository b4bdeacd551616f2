package rdpp_test

import (
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp"
)

// crossing is CSFlow of few and narrow blocks.
func crossing() rdpp.Config {
	c := tiny()
	c.Method, c.ImageSize, c.Batch, c.CrossBlocks, c.CrossHidden, c.CrossRate = rdpp.MethodCSFlow, 64, 1, 2, 8, 0.002
	c.Calibration, c.FalseAlarm = 0.3, 0.2
	return c
}

// A model learns on from another one of its shape, and of no other.
func TestCSFlowFrom(t *testing.T) {
	t.Parallel()
	older := filepath.Join(trained(t, crossing()), rdpp.ModelFile)
	first := func(opt rdpp.TrainOptions) (loss float64) {
		opt.Out = t.TempDir()
		opt.OnStep = func(r rdpp.StepReport) {
			if loss == 0 && r.Fold == 0 {
				loss = r.Losses[0].Value
			}
		}
		if _, err := rdpp.Train(t.Context(), crossing(), newImages(t), opt); err != nil {
			t.Fatal(err)
		}
		return loss
	}
	if fresh, continued := first(rdpp.TrainOptions{Teacher: rdpp.TeacherRandom}), first(rdpp.TrainOptions{From: older}); !(continued < fresh) {
		t.Errorf("got a first loss of %v that goes on from a model and of %v that does not, want it to be lower", continued, fresh)
	}
	for _, c := range []struct {
		what   string
		change func(*rdpp.Config)
		want   string
	}{
		{"wider", func(c *rdpp.Config) { c.CrossHidden = 16 }, "cross_hidden"},
		{"deeper", func(c *rdpp.Config) { c.CrossBlocks = 3 }, "cross_blocks"},
		{"another clamp", func(c *rdpp.Config) { c.CrossClamp = 2 }, "cross_clamp"},
		{"another method", func(c *rdpp.Config) { c.Method = rdpp.MethodRDPP }, "method"},
	} {
		config := crossing()
		c.change(&config)
		_, err := rdpp.Train(t.Context(), config, openSet(t, dataDir), rdpp.TrainOptions{Out: t.TempDir(), From: older})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one about %s", c.what, err, c.want)
		}
	}
}
