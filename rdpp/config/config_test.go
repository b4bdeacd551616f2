package config_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"rdpp/rdpp/config"
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
		c.Use(name, "")
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

// Settings of all methods stand in one object, as they always have, and come back.
func TestJSON(t *testing.T) {
	for _, c := range []config.Config{config.Default(), config.Preset(config.PresetPaper, "screw")} {
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
		var back config.Config
		if err := json.Unmarshal(text, &back); err != nil || back != c {
			t.Errorf("got %+v, %v, want %+v", back, err, c)
		}
	}
}
