package cfa_test

import (
	"fmt"
	"testing"

	"rdpp/rdpp/cfa"
	"rdpp/rdpp/export"
	"rdpp/rdpp/method/methodtest"
)

// An exported file compares in parts of any size.
func TestExport(t *testing.T) {
	const some = 60 * 4 * 85 // bytes: 60 of 256 positions and 85 rows
	for _, c := range []struct {
		near  int
		score string
		bytes int
	}{{1, cfa.ScoreSoftmin, 64 << 20}, {3, cfa.ScoreSoftmin, 64 << 20}, {3, cfa.ScoreSoftmin, some}, {3, cfa.ScoreNearest, some}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			f := few()
			f.SphereNear, f.SphereScore = c.near, c.score
			net := methodtest.Trained(t, cfa.New(methodtest.Settings(cfa.Name), f))
			methodtest.Export(t, net, 0.5, func(m *export.Model) { m.Spheres.Bytes = c.bytes })
		})
	}
}
