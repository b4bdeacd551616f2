package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/cfa"
	"rdpp/rdpp/config"
	"rdpp/rdpp/patchcore"
	"rdpp/rdpp/reverse"
	"rdpp/rdpp/setting"
	"rdpp/torch"
)

// Every method of the table can be made, and refuses nothing of the default settings.
func TestMethods(t *testing.T) {
	names := config.Methods()
	if unique := slices.Compact(slices.Sorted(slices.Values(names))); len(unique) != len(names) || len(names) < 2 {
		t.Errorf("got the methods %q, want two or more, each once", names)
	}
	for _, name := range names {
		c := config.Default()
		c.Method = name
		if err := c.Validate(); err != nil {
			t.Errorf("%s: got %v", name, err)
		}
		if one, four := c.PredictionBytes(1<<20, 1), c.PredictionBytes(1<<20, 4); !(0 < one && one < four) {
			t.Errorf("%s: got %d bytes for an image, %d for four", name, one, four)
		}
	}
	c := config.Default()
	c.Method = "none"
	if err := c.Validate(); !errors.Is(err, setting.ErrValue) || c.Learned() != nil || c.PredictionBytes(1<<20, 1) != 0 {
		t.Errorf("an unknown one: got %v, %v", err, c.Learned())
	}
}

// Settings stand in one object and come back, those of a later method where they are its own.
func TestJSON(t *testing.T) {
	later := config.Methods()[2:] // files of the others do not have their settings
	all := []config.Config{config.Preset(config.PresetPaper, "screw")}
	for _, method := range config.Methods() {
		all = append(all, config.PresetOf("", "", method))
	}
	for _, c := range all {
		c.BitDepth = 16 // what auto has found
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(text, &members); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"arch", "method", "image_size", "map_sigma", "rate_distill", "accumulate", "score", "false_alarm"} {
			if members[name] == nil {
				t.Errorf("got no %s in %s", name, text)
			}
		}
		own := 0
		for name := range members {
			owners := config.Owners(name)
			if len(owners) != 1 || !slices.Contains(later, owners[0]) {
				continue
			}
			if own++; owners[0] != c.Method {
				t.Errorf("%s: got %s of %s in %s", c.Method, name, owners[0], text)
			}
		}
		if slices.Contains(later, c.Method) != (own > 0) {
			t.Errorf("%s: got %d settings of its own in %s", c.Method, own, text)
		}
		var back config.Config
		err = json.Unmarshal(text, &back)
		back.Complete()
		again, second := json.Marshal(back)
		if err != nil || second != nil || !bytes.Equal(again, text) {
			t.Errorf("got %s, %v, %v, want %s", again, err, second, text)
		}
		if c.Calibration != 0 && back != c { // not of the preset, whose settings of other methods do not travel
			t.Errorf("got %+v, want %+v", back, c)
		}
	}
}

// Settings of a later method are neither in others' objects nor missing there.
func TestComplete(t *testing.T) {
	c := config.Default()
	c.Memory = patchcore.Memory{} // as files of before have it
	c.Complete()
	if want := config.Default(); c.Memory != want.Memory || c.Distillation != want.Distillation {
		t.Errorf("got %+v, want %+v", c, want)
	}
	released := config.Preset(config.PresetPaper, "screw")
	if released.Memory != patchcore.ReleasedMemory() || released.Distillation != reverse.ReleasedDistillation() {
		t.Errorf("got %+v, want the released settings of every method", released)
	}
	c.Method, c.Neighbours = patchcore.Name, 7
	if c.Complete(); c.Neighbours != 7 {
		t.Errorf("got %d neighbours, want those that were there", c.Neighbours)
	}
	c.Method, c.SphereScore = cfa.Name, "" // as files of before it have it
	if c.Complete(); c.SphereScore != cfa.ScoreSoftmin {
		t.Errorf("got a sphere_score of %q, want that of before, %s", c.SphereScore, cfa.ScoreSoftmin)
	}
}

// A method takes the first of its values of a setting that it fixes.
func TestFixed(t *testing.T) {
	for name, want := range map[string]string{"rd++": "[]", "rd": "[]", "none": "[]", "patchcore": "[updates=0 epochs=1 precision=auto]",
		"fastflow": "[precision=auto]", "csflow": "[precision=auto]", "cfa": "[precision=auto]"} {
		c := config.Default()
		c.Method = name
		got := []string{}
		for _, fixed := range c.Fixed() {
			got = append(got, fixed.Setting+"="+fixed.Values[0])
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// Methods that read layers of ResNets refuse another family, and say who takes it.
func TestBackbones(t *testing.T) {
	for _, name := range config.Methods() {
		c := config.PresetOf("", "", name)
		c.Arch = torch.EfficientNetB5
		err := c.Validate()
		var wrong *setting.Error
		if name == "csflow" {
			if err != nil {
				t.Errorf("%s: got error %v, want none", name, err)
			}
		} else if !errors.As(err, &wrong) || wrong.Field != "arch" || !strings.Contains(err.Error(), "csflow") {
			t.Errorf("%s: got error %v, want one about arch that names csflow", name, err)
		}
	}
}

// A setting is of the methods that it plays a part in, or of all.
func TestOwners(t *testing.T) {
	for _, c := range []struct {
		setting string
		want    []string
	}{
		{"rate_distill", []string{"rd++", "rd"}}, {"score_top", []string{"rd++", "rd"}}, {"light", []string{"rd++", "rd"}},
		{"noise_lambda", []string{"rd++"}}, {"weight_ssot", []string{"rd++"}}, {"rate_projection", []string{"rd++"}}, {"coreset", []string{"patchcore"}},
		{"distance_mib", []string{"patchcore"}}, {"flow_rate", []string{"fastflow"}}, {"cross_hidden", []string{"csflow"}}, {"sphere_rows", []string{"cfa"}}, {"image_size", nil}, {"calibration", nil}, {"", nil}, {"none", nil},
	} {
		if got := config.Owners(c.setting); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.setting, got, c.want)
		}
	}
}

// A method has defaults of its own for settings of all, where it says so, and others the first method's.
func TestPresetOf(t *testing.T) {
	for _, c := range []struct {
		preset, method         string
		batch, updates, epochs int
	}{{"", "rd++", 4, 1900, 100}, {"", "patchcore", 4, 1900, 100}, {"", "none", 4, 1900, 100}, {"", "fastflow", 32, 200, 500},
		{"paper", "rd++", 16, 0, 280}, {"paper", "fastflow", 32, 0, 500},
		{"", "csflow", 4, 1900, 100}, {"paper", "csflow", 16, 0, 240}, {"", "cfa", 4, 0, 30}, {"paper", "cfa", 4, 0, 30}} {
		got := config.PresetOf(c.preset, "screw", c.method)
		if got.Method != c.method || got.Batch != c.batch || got.Updates != c.updates || got.Epochs != c.epochs {
			t.Errorf("%+v: got %s, batches of %d, %d updates, %d epochs", c, got.Method, got.Batch, got.Updates, got.Epochs)
		}
	}
}
