package config_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"rdpp/rdpp/config"
	"rdpp/rdpp/patchcore"
	"rdpp/rdpp/reverse"
	"rdpp/rdpp/setting"
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

// Settings stand in one object and come back, PatchCore's where they are of PatchCore.
func TestJSON(t *testing.T) {
	remembering := config.Default()
	remembering.Method = patchcore.Name
	for _, c := range []config.Config{config.Default(), config.Preset(config.PresetPaper, "screw"), remembering} {
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
		want := c
		want.Complete()
		if own := members["coreset"] != nil; own != (c.Method == patchcore.Name) {
			t.Errorf("%s: got %v for settings of PatchCore, want %v", c.Method, own, !own)
		}
		var back config.Config
		err = json.Unmarshal(text, &back)
		if back.Complete(); err != nil || back != want {
			t.Errorf("got %+v, %v, want %+v", back, err, want)
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
}

// A method takes the first of its values of a setting that it fixes.
func TestFixed(t *testing.T) {
	for name, want := range map[string]string{"rd++": "[]", "rd": "[]", "none": "[]", "patchcore": "[updates=0 epochs=1 precision=auto]",
		"csflow": "[precision=auto]"} {
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

// A setting is of the methods that it plays a part in, or of all.
func TestOwners(t *testing.T) {
	for _, c := range []struct {
		setting string
		want    []string
	}{
		{"rate_distill", []string{"rd++", "rd"}}, {"score_top", []string{"rd++", "rd"}}, {"light", []string{"rd++", "rd"}},
		{"noise_lambda", []string{"rd++"}}, {"weight_ssot", []string{"rd++"}}, {"rate_projection", []string{"rd++"}}, {"coreset", []string{"patchcore"}},
		{"cross_hidden", []string{"csflow"}}, {"distance_mib", []string{"patchcore"}}, {"image_size", nil}, {"calibration", nil}, {"", nil}, {"none", nil},
	} {
		if got := config.Owners(c.setting); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.setting, got, c.want)
		}
	}
}
