package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp"
)

// The curves of a run are in one event file beside its model, which a run that takes its place begins anew.
func TestTensorBoard(t *testing.T) {
	out := t.TempDir()
	find := func() []string {
		found, err := filepath.Glob(filepath.Join(out, "part", "events.out.tfevents.*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if code, _, stderr := trainBy(tiny(dataDir, out)...); code != 0 || len(find()) != 0 {
		t.Fatalf("not asked for: got code %d, %q, %s", code, find(), stderr)
	}
	for range 2 {
		if code, _, stderr := trainBy(tiny(dataDir, out, "--overwrite", "--tensorboard")...); code != 0 {
			t.Fatalf("got code %d, %s", code, stderr)
		}
		found := find()
		if len(found) != 1 {
			t.Fatalf("got %q, want one event file", found)
		}
		text, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, tag := range []string{"step/loss_total", "step/loss_kd", "epoch/loss_total", "images_per_second", "model/image_auroc", "model/aupro_030", "model/threshold"} {
			if n := bytes.Count(text, []byte(tag)); n != 1 {
				t.Errorf("got %d points of %s, want one of a training of less than a second", n, tag)
			}
		}
	}
}

// A training goes on where its curves cannot be written, and says so once.
func TestTensorBoardFails(t *testing.T) {
	var log bytes.Buffer
	b := board{folder: write(t, filepath.Join(t.TempDir(), "file"), nil), log: slog.New(slog.NewTextHandler(&log, nil))}
	for step := 1; step <= 2; step++ {
		b.step(rdpp.StepReport{Epoch: 1, Epochs: 1, Step: step, Steps: 2})
	}
	b.epoch(rdpp.EpochReport{Epoch: 1})
	b.close()
	if n := strings.Count(log.String(), "no curves for TensorBoard"); n != 1 {
		t.Errorf("got %d warnings, want one: %s", n, log.String())
	}
}
