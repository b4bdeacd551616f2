package fastflow_test

import (
	"fmt"
	"testing"

	"rdpp/rdpp/fastflow"
	"rdpp/rdpp/method/methodtest"
)

func TestExport(t *testing.T) {
	for _, c := range []struct {
		kernels, kind string
		affine        bool
		top, sigma    float64
	}{{fastflow.KernelsAll, fastflow.MapProbability, true, 0, 2.5}, {fastflow.KernelsAlternate, fastflow.MapLikelihood, false, 0.01, 0.1}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			f, s := small(), methodtest.Settings(fastflow.Name)
			s.MapSigma = c.sigma // 0.1: not smoothed, as published
			f.FlowKernels, f.FlowMap, f.FlowAffine, f.FlowTop = c.kernels, c.kind, c.affine, c.top
			methodtest.Export(t, methodtest.Trained(t, fastflow.New(s, f)), 0.5, nil)
		})
	}
}
