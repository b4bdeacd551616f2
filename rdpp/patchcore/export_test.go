package patchcore_test

import (
	"fmt"
	"testing"

	"rdpp/rdpp/method/methodtest"
	"rdpp/rdpp/patchcore"
)

func TestExport(t *testing.T) {
	for _, c := range []struct {
		dimensions, neighbours int
		score                  string
	}{{0, 1, patchcore.ScoreMap}, {0, 9, patchcore.ScorePatch}, {100, 9, patchcore.ScoreMap}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			m := memory()
			m.PatchDimensions, m.Neighbours, m.PatchScore = c.dimensions, c.neighbours, c.score
			methodtest.Export(t, methodtest.Trained(t, patchcore.New(methodtest.Settings(patchcore.Name), m)), 5, nil)
		})
	}
}
