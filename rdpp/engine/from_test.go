package engine_test

import (
	"path/filepath"
	"testing"

	"rdpp/rdpp/cfa"
	"rdpp/rdpp/config"
	"rdpp/rdpp/csflow"
	"rdpp/rdpp/engine"
	"rdpp/rdpp/fastflow"
	"rdpp/rdpp/modelfile"
	"rdpp/torch"
)

// A training that goes on from a model takes as many passes as its method has by default, and not those that the model's updates took.
func TestFromModelEpochs(t *testing.T) {
	for _, c := range []struct {
		method        string
		updates, want int
	}{{fastflow.Name, 200, 500}, {csflow.Name, 1900, 100}, {fastflow.Name, 0, 7}, {cfa.Name, 0, 7}, {cfa.Name, 50, 30}} {
		settings := config.PresetOf("", "", c.method)
		settings.Arch, settings.ImageSize, settings.Updates, settings.Epochs = "resnet18", 32, c.updates, 7
		settings.FlowSteps, settings.CrossBlocks, settings.CrossHidden, settings.SphereWidth = 1, 1, 1, 64
		m, err := modelfile.New(settings, torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		path := filepath.Join(t.TempDir(), "model.safetensors")
		if err := m.Save(path); err != nil {
			t.Fatal(err)
		}
		if got, err := engine.FromModel(path); err != nil || got.Epochs != c.want || got.Updates != c.updates {
			t.Errorf("%s: got %d updates of %d epochs at most, error %v, want %d and %d", c.method, got.Updates, got.Epochs, err, c.updates, c.want)
		}
	}
}
