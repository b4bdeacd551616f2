package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rdpp/rdpp"
)

// The curves of a run are in one event file beside its model, which a run that takes its place begins anew, or removes.
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
			if n := bytes.Count(text, []byte(tag)); n < 1 || n > 1 && !strings.HasPrefix(tag, "step/") {
				t.Errorf("got %d points of %s, want one, or, where the machine is slow, one a second", n, tag)
			}
		}
	}
	foreign := write(t, filepath.Join(out, "part", "events.out.tfevents.1.other"), nil)
	if code, _, stderr := trainBy(tiny(dataDir, out, "--overwrite")...); code != 0 || len(find()) != 1 || find()[0] != foreign {
		t.Errorf("replaced without curves: got code %d, %q, %s, want another program's file alone", code, find(), stderr)
	}
}

// Steps are drawn once a second at most.
func TestTensorBoardSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := board{folder: t.TempDir(), log: slog.Default()}
		for step := 1; step <= 5; step++ {
			b.step(rdpp.StepReport{Epoch: 1, Epochs: 1, Step: step, Steps: 5, Losses: rdpp.Losses{{Name: "kd"}}})
			time.Sleep(500 * time.Millisecond)
		}
		b.close()
		files, err := filepath.Glob(filepath.Join(b.folder, "*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("got %q, %v, want one file", files, err)
		}
		text, err := os.ReadFile(files[0])
		if n := bytes.Count(text, []byte("step/loss_kd")); err != nil || n != 3 {
			t.Errorf("got %d points, %v, want those of the steps 1, 3 and 5", n, err)
		}
	})
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
