package engine_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"rdpp/rdpp/config"
	"rdpp/rdpp/engine"
)

// TestReadConfig: a metrics.json gives the settings that it has, and one that people have written into says what is wrong with it.
func TestReadConfig(t *testing.T) {
	want := config.Default()
	want.Arch, want.Seed, want.BitDepth = "resnet18", 7, 16
	plain, err := json.Marshal(map[string]any{"category": "part", "config": want})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		old, new string // what is written otherwise
		want     string // of the error; "": none
	}{
		{"as written", "", "", ""},
		{"a byte order mark", "{", "\ufeff {", ""},
		{"a misspelt name", `"image_size"`, `"image_sise"`, "config.image_sise is no setting that this version knows"},
		{"a name more", `"seed"`, `"speed":1,"seed"`, "config.speed is no setting"},
		{"another case", `"seed"`, `"Seed"`, "config.Seed is no setting"},
		{"a string", `"seed":7`, `"seed":"7"`, "config.seed cannot be a JSON string"},
		{"an object", `"seed":7`, `"seed":{}`, "config.seed cannot be a JSON object"},
		{"a fraction", `"seed":7`, `"seed":7.5`, "config.seed: "},
		{"twice", `"seed":7`, `"seed":7,"seed":8`, "duplicate"},
		{"another value", `"batch":4`, `"batch":-1`, "batch"},
		{"no settings", `"config"`, `"settings"`, "it has no settings"},
	} {
		path := filepath.Join(t.TempDir(), "metrics.json")
		text := strings.Replace(string(plain), c.old, c.new, 1)
		if c.old != "" && text == string(plain) {
			t.Fatalf("%s: %s is not in %s", c.name, c.old, plain)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		got, _, err := engine.ReadConfig(path)
		switch {
		case c.want == "" && (err != nil || !reflect.DeepEqual(got, want)):
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, want)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "Go ")):
			t.Errorf("%s: got %v, want %q and %q", c.name, err, path, c.want)
		}
	}
}
