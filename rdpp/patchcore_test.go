package rdpp_test

import (
	"bufio"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/patchcore"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// remembering is PatchCore with its published image score, which is not its map's maximum.
func remembering() rdpp.Config {
	c := tiny()
	c.Method, c.Updates, c.Epochs = patchcore.Name, 0, 1
	c.ImageSize, c.Batch, c.Coreset, c.PatchScore, c.Neighbours = 64, 1, 0.1, patchcore.ScorePatch, 9
	c.Calibration, c.FalseAlarm = 0.3, 0.2
	return c
}

// Killed, PatchCore goes on to the same model.
func TestPatchCoreKilled(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	for round := range 2 {
		cmd := testmain.Child("remember", dataDir, out)
		cmd.Stderr = t.Output()
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		for step := round + 1; step <= round+2; step++ { // the first goes on from the checkpoint of the last round
			if !lines.Scan() || lines.Text() != fmt.Sprint(1, step) {
				t.Errorf("round %d: got %q, want pass 1, step %d", round, lines.Text(), step)
			}
		}
		if err := testmain.Kill(cmd); err != nil {
			t.Fatal(err)
		}
	}
	train(t, remembering(), rdpp.TrainOptions{Out: out, Resume: true})
	want := filepath.Join(trained(t, remembering()), rdpp.ModelFile)
	if got := digest(t, filepath.Join(out, rdpp.ModelFile)); got != digest(t, want) {
		t.Errorf("got a model of SHA-256 %s, want the uninterrupted training's, %s", got, digest(t, want))
	}
}

// Scores and maps are calibrated each, and a detector judges as the training's evaluation did.
func TestPatchCoreScores(t *testing.T) {
	t.Parallel()
	d, err := rdpp.OpenDetector(filepath.Join(trained(t, remembering()), rdpp.ModelFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := d.Calibration()
	if len(c.Scores) == 0 || len(c.MapScores) != len(c.Scores) || slices.Equal(c.Scores, c.MapScores) || c.Threshold == c.PixelThreshold {
		t.Errorf("got %d scores, %d of maps, thresholds of %v and %v, want scores of images and of maps, each with a threshold", len(c.Scores),
			len(c.MapScores), c.Threshold, c.PixelThreshold)
	}
	evaluation, err := d.Evaluate(t.Context(), openSet(t, dataDir))
	if err != nil {
		t.Fatal(err)
	}
	for i, item := range openSet(t, dataDir).Test {
		r, _, err := d.DetectFile(item.Path)
		if err != nil {
			t.Fatal(err)
		}
		if r.Score != evaluation.Scores[i].Score || float64(slices.Max(r.Map)) == r.Score || !(r.Score > 0) || math.IsInf(r.Score, 0) {
			t.Errorf("%s: got a score of %v, a map of %v at most, and %v from evaluation, want the same score, which is not the map's",
				item.Path, r.Score, slices.Max(r.Map), evaluation.Scores[i].Score)
		}
	}
}

// Another method's model files have no settings of PatchCore, and a net's tensors are all closed with it.
func TestPatchCoreSettings(t *testing.T) {
	for _, c := range []struct {
		config rdpp.Config
		want   bool
	}{{tiny(), false}, {remembering(), true}} {
		metadata, _ := contents(t, filepath.Join(trained(t, c.config), rdpp.ModelFile))
		if got := strings.Contains(metadata["rdpp"], `"coreset"`); got != c.want {
			t.Errorf("%s: got %v, want %v for settings of PatchCore in the file", c.config.Method, got, c.want)
		}
	}
	before := torch.LiveTensors()
	m, err := rdpp.LoadModel(filepath.Join(trained(t, remembering()), rdpp.ModelFile), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	if got := torch.LiveTensors(); got != before {
		t.Errorf("got %d tensors open, want %d", got, before)
	}
}
