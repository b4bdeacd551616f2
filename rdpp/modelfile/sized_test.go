package modelfile_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/cfa"
	"rdpp/rdpp/config"
	"rdpp/rdpp/csflow"
	"rdpp/rdpp/document"
	"rdpp/rdpp/fastflow"
	"rdpp/rdpp/method"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

func sized(m method.Method) bool {
	_, is := m.(method.Sized)
	return is
}

// A file of a few KB is refused before a net of its settings is made, whatever they ask for.
func TestMoreThanTheFileHas(t *testing.T) {
	type file struct {
		method string
		change func(*config.Config)
		want   string
	}
	files := []file{
		{fastflow.Name, func(c *config.Config) { c.Arch, c.FlowSteps, c.FlowHidden = "wide_resnet50_2", 64, 8 }, "flow_hidden"},
		{csflow.Name, func(c *config.Config) { c.CrossBlocks, c.CrossHidden = 64, 8192 }, "cross_hidden"},
		{cfa.Name, func(c *config.Config) { c.SphereWidth = 1000 }, "sphere_width"},
	}
	for _, name := range config.Methods() {
		if c := config.PresetOf("", "", name); sized(c.Learned()) {
			files = append(files, file{name, func(*config.Config) {}, "its settings ask for"})
		}
	}
	if len(files) < 5 {
		t.Errorf("got %d files, want some of methods that say how large their tensors are", len(files))
	}
	for _, c := range files {
		info := modelfile.Info{FormatVersion: 3, Config: config.PresetOf("", "", c.method)}
		info.Config.Arch, info.Config.ImageSize, info.Config.BitDepth, info.Config.MapSigma = "resnet18", 32, 16, 4
		c.change(&info.Config)
		path := filepath.Join(t.TempDir(), "model.safetensors")
		if err := document.Write(path, document.ModelKey, &info, nil); err != nil {
			t.Fatal(err)
		}
		if m, err := modelfile.Load(path, modelfile.LoadOptions{}); !errors.Is(err, anomaly.ErrDamaged) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got a model %v and error %v, want one with %q", c.method, m != nil, err, c.want)
		}
		file, err := weights.OpenSafetensors(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := modelfile.ReadInfo(file); !errors.Is(err, anomaly.ErrDamaged) { // which a training reads that goes on from the file
			t.Errorf("%s: its document: got error %v, want %v", c.method, err, anomaly.ErrDamaged)
		}
		file.Close()
	}
	if open := torch.LiveTensors(); open != 0 {
		t.Errorf("got %d tensors, want none to have been made", open)
	}
}
