package csflow_test

import (
	"fmt"
	"testing"

	"rdpp/rdpp/csflow"
	"rdpp/rdpp/method/methodtest"
	"rdpp/torch"
)

func TestExport(t *testing.T) {
	for _, c := range []struct{ arch, of, score string }{{"resnet18", csflow.MapFinest, csflow.ScoreLatent}, {"resnet18", csflow.MapProduct, csflow.ScoreMap},
		{torch.EfficientNetB5, csflow.MapProduct, csflow.ScoreLatent}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			f := narrow()
			f.CrossMap, f.CrossScore = c.of, c.score
			methodtest.Export(t, methodtest.Trained(t, csflow.New(settingsOf(c.arch), f)), 0.5, nil)
		})
	}
}
