package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"rdpp/rdpp"
	"rdpp/torch"
)

// Maps of tiles have the image's shape, which programs with an older header do not know, and get none.
func TestTiles(t *testing.T) {
	config := rdpp.DefaultConfig()
	config.Arch, config.ImageSize, config.Tile, config.TileStride = "resnet18", 32, 40, 30
	m, err := rdpp.NewModel(config, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Info.Calibration = rdpp.Calibration{Rule: "by hand", Threshold: 1, PixelThreshold: 1}
	model := filepath.Join(t.TempDir(), "model.safetensors")
	if err := m.Save(model); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command(compile(t, "cc", "testdata/tiles.c", "-std=c11"), model).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, text)
	}
}
