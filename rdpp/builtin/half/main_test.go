package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/weights"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	write := func(values ...float32) {
		t.Helper()
		source := func(name string) weights.Source {
			return weights.Source{Name: name, DType: weights.F32, Shape: []int{len(values)},
				Bytes: func() ([]byte, error) { return weights.AppendFloat32(nil, values), nil }}
		}
		if err := weights.WriteFile(in, nil, []weights.Source{source("b"), source("a")}); err != nil {
			t.Fatal(err)
		}
	}
	write(1, -0.1, 65504)
	if err := run(in, out, "a test"); err != nil {
		t.Fatal(err)
	}
	f, err := weights.OpenSafetensors(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, name := range []string{"a", "b"} {
		got, err := f.Tensors[i].Read()
		if err != nil {
			t.Fatal(err)
		}
		if want := []float32{1, -0.099975586, 65504}; got.Name != name || got.DType != weights.F16 || !slices.Equal(got.Float32(), want) {
			t.Errorf("got %s, %s %v, want %s, F16 %v", got.Name, got.DType, got.Float32(), name, want)
		}
	}
	if got := f.Metadata["source"]; got != "a test" {
		t.Errorf("got the source %q, want a test", got)
	}

	write(1, 7e4)
	if err := run(in, out, ""); err == nil || !strings.Contains(err.Error(), in) || !strings.Contains(err.Error(), "70000") {
		t.Errorf("got error %v, want one that names file and number", err)
	}
	if err := run(filepath.Join(dir, "none"), out, ""); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("got error %v, want one that names the file", err)
	}
}
