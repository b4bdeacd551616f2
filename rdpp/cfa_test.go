package rdpp_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
)

// adapting is CFA with descriptors of few dimensions and a small bank.
func adapting() rdpp.Config {
	c := tiny()
	c.Method, c.ImageSize, c.Batch, c.SphereWidth, c.SphereRows = rdpp.MethodCFA, 64, 1, 16, 3
	c.Calibration, c.FalseAlarm = 0.3, 0.2
	return c
}

// A model learns on from another one of its shape, whose bank it keeps, and of no other.
func TestCFAFrom(t *testing.T) {
	t.Parallel()
	older := filepath.Join(trained(t, adapting()), rdpp.ModelFile)
	out := t.TempDir()
	if _, err := rdpp.Train(t.Context(), adapting(), newImages(t), rdpp.TrainOptions{Out: out, From: older}); err != nil {
		t.Fatal(err)
	}
	before, after := tensorsOf(t, older), tensorsOf(t, filepath.Join(out, rdpp.ModelFile))
	for name, same := range map[string]bool{"descriptor.centres": true, "descriptor.conv.weight": false} {
		if got := slices.Equal(before[name], after[name]); got != same || len(before[name]) == 0 {
			t.Errorf("%s: got the same for %v, want %v, of %d bytes", name, got, same, len(before[name]))
		}
	}
	for _, c := range []struct {
		what   string
		change func(*rdpp.Config)
		want   string
	}{
		{"narrower", func(c *rdpp.Config) { c.SphereWidth = 32 }, "sphere_width"},
		{"more rows", func(c *rdpp.Config) { c.SphereRows = 1 }, "sphere_rows"},
		{"a radius that stays", func(c *rdpp.Config) { c.SphereLearn = false }, "sphere_learn"},
		{"another method", func(c *rdpp.Config) { c.Method = rdpp.MethodRDPP }, "method"},
	} {
		config := adapting()
		c.change(&config)
		_, err := rdpp.Train(t.Context(), config, openSet(t, dataDir), rdpp.TrainOptions{Out: t.TempDir(), From: older})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one about %s", c.what, err, c.want)
		}
	}
}
