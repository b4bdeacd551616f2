package rdpp_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// adapting is CFA with descriptors of few dimensions and a small bank.
func adapting() rdpp.Config {
	c := tiny()
	c.Method, c.ImageSize, c.Batch, c.SphereWidth, c.SphereRows = rdpp.MethodCFA, 64, 1, 16, 3
	c.Calibration, c.FalseAlarm = 0.3, 0.2
	return c
}

// Killed, CFA goes on to the same model.
func TestCFAKilled(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	for round := range 2 {
		cmd := testmain.Child("adapt", dataDir, out)
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
				t.Errorf("round %d: got %q, want epoch 1, step %d", round, lines.Text(), step)
			}
		}
		if err := testmain.Kill(cmd); err != nil {
			t.Fatal(err)
		}
	}
	train(t, adapting(), rdpp.TrainOptions{Out: out, Resume: true})
	want := filepath.Join(trained(t, adapting()), rdpp.ModelFile)
	if got := digest(t, filepath.Join(out, rdpp.ModelFile)); got != digest(t, want) {
		t.Errorf("got a model of SHA-256 %s, want the uninterrupted training's, %s", got, digest(t, want))
	}
}

// Scores are their maps', calibrated once, and a detector judges as the training's evaluation did.
func TestCFAScores(t *testing.T) {
	t.Parallel()
	d, err := rdpp.OpenDetector(filepath.Join(trained(t, adapting()), rdpp.ModelFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if c := d.Calibration(); len(c.Scores) == 0 || len(c.MapScores) != 0 {
		t.Errorf("got %d scores and %d of maps, want the former alone", len(c.Scores), len(c.MapScores))
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
		if highest := float64(slices.Max(r.Map)); r.Score != evaluation.Scores[i].Score || highest != r.Score || !(r.Score > 0) {
			t.Errorf("%s: got a score of %v, a map of %v at most, and %v from evaluation, want one score", item.Path, r.Score, highest, evaluation.Scores[i].Score)
		}
	}
}

// What diverges ends with the step's number and leaves no model.
func TestCFADiverges(t *testing.T) {
	t.Parallel()
	c := adapting()
	c.SphereRate = 1e30
	out := t.TempDir()
	_, err := rdpp.Train(context.Background(), c, openSet(t, dataDir), rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom})
	if err == nil || !strings.Contains(err.Error(), "epoch 1, step 2: the loss is") {
		t.Errorf("got error %v, want one about the loss of epoch 1, step 2", err)
	}
	for _, name := range []string{rdpp.ModelFile, rdpp.MetricsFile} {
		if _, err := os.Stat(filepath.Join(out, name)); !os.IsNotExist(err) {
			t.Errorf("%s: got error %v, want no such file", name, err)
		}
	}
}

// A model learns on from another one of its shape, whose bank it keeps, and of no other.
func TestCFAFrom(t *testing.T) {
	t.Parallel()
	older := filepath.Join(trained(t, adapting()), rdpp.ModelFile)
	out := t.TempDir()
	if _, err := rdpp.Train(t.Context(), adapting(), newImages(t), rdpp.TrainOptions{Out: out, From: older}); err != nil {
		t.Fatal(err)
	}
	before, after := tensorsOf(t, older), tensorsOf(t, filepath.Join(out, rdpp.ModelFile))
	for name, same := range map[string]bool{"descriptor.centres": true, "descriptor.conv.weight": false} {
		if got := slices.Equal(before[name], after[name]); got != same || len(before[name]) == 0 {
			t.Errorf("%s: got the same for %v, want %v, of %d bytes", name, got, same, len(before[name]))
		}
	}
	for _, c := range []struct {
		what   string
		change func(*rdpp.Config)
		want   string
	}{
		{"narrower", func(c *rdpp.Config) { c.SphereWidth = 32 }, "sphere_width"},
		{"more rows", func(c *rdpp.Config) { c.SphereRows = 1 }, "sphere_rows"},
		{"a radius that stays", func(c *rdpp.Config) { c.SphereLearn = false }, "sphere_learn"},
		{"another method", func(c *rdpp.Config) { c.Method = rdpp.MethodRDPP }, "method"},
	} {
		config := adapting()
		c.change(&config)
		_, err := rdpp.Train(t.Context(), config, openSet(t, dataDir), rdpp.TrainOptions{Out: t.TempDir(), From: older})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one about %s", c.what, err, c.want)
		}
	}
}

// A net's tensors are all closed with it.
func TestCFACloses(t *testing.T) {
	model := filepath.Join(trained(t, adapting()), rdpp.ModelFile)
	before := torch.LiveTensors()
	m, err := rdpp.LoadModel(model, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	if got := torch.LiveTensors(); got != before {
		t.Errorf("got %d tensors open, want %d", got, before)
	}
}
