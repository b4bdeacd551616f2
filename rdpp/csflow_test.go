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
	"rdpp/rdpp/csflow"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// crossing is CSFlow of few and narrow blocks.
func crossing() rdpp.Config {
	c := tiny()
	c.Method, c.ImageSize, c.Batch, c.CrossBlocks, c.CrossHidden, c.CrossRate = rdpp.MethodCSFlow, 64, 1, 2, 8, 0.002
	c.Calibration, c.FalseAlarm = 0.3, 0.2
	return c
}

// Killed, CSFlow goes on to the same model.
func TestCSFlowKilled(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	for round := range 2 {
		cmd := testmain.Child("cross", dataDir, out)
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
	train(t, crossing(), rdpp.TrainOptions{Out: out, Resume: true})
	want := filepath.Join(trained(t, crossing()), rdpp.ModelFile)
	if got := digest(t, filepath.Join(out, rdpp.ModelFile)); got != digest(t, want) {
		t.Errorf("got a model of SHA-256 %s, want the uninterrupted training's, %s", got, digest(t, want))
	}
}

// Scores and maps are calibrated each where a score is not its map's, and a detector judges as the training's evaluation did.
func TestCSFlowScores(t *testing.T) {
	t.Parallel()
	for _, score := range []string{csflow.ScoreLatent, csflow.ScoreMap} {
		config := crossing()
		config.CrossScore = score
		d, err := rdpp.OpenDetector(filepath.Join(trained(t, config), rdpp.ModelFile), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		c, ofMap := d.Calibration(), score == csflow.ScoreMap
		if len(c.Scores) == 0 || (len(c.MapScores) == 0) != ofMap || !ofMap && slices.Equal(c.Scores, c.MapScores) {
			t.Errorf("%s: got %d scores and %d of maps, want those of maps where they are others", score, len(c.Scores), len(c.MapScores))
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
			if highest := float64(slices.Max(r.Map)); r.Score != evaluation.Scores[i].Score || (highest == r.Score) != ofMap || !(r.Score > 0) {
				t.Errorf("%s, %s: got a score of %v, a map of %v at most, and %v from evaluation, want one score", score, item.Path, r.Score, highest,
					evaluation.Scores[i].Score)
			}
		}
	}
}

// What diverges ends with the step's number and leaves no model.
func TestCSFlowDiverges(t *testing.T) {
	t.Parallel()
	c := crossing()
	c.CrossRate = 1e30
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

// A model learns on from another one of its shape, and of no other.
func TestCSFlowFrom(t *testing.T) {
	t.Parallel()
	older := filepath.Join(trained(t, crossing()), rdpp.ModelFile)
	first := func(opt rdpp.TrainOptions) (loss float64) {
		opt.Out = t.TempDir()
		opt.OnStep = func(r rdpp.StepReport) {
			if loss == 0 && r.Fold == 0 {
				loss = r.Losses[0].Value
			}
		}
		if _, err := rdpp.Train(t.Context(), crossing(), newImages(t), opt); err != nil {
			t.Fatal(err)
		}
		return loss
	}
	if fresh, continued := first(rdpp.TrainOptions{Teacher: rdpp.TeacherRandom}), first(rdpp.TrainOptions{From: older}); !(continued < fresh) {
		t.Errorf("got a first loss of %v that goes on from a model and of %v that does not, want it to be lower", continued, fresh)
	}
	for _, c := range []struct {
		what   string
		change func(*rdpp.Config)
		want   string
	}{
		{"wider", func(c *rdpp.Config) { c.CrossHidden = 16 }, "cross_hidden"},
		{"deeper", func(c *rdpp.Config) { c.CrossBlocks = 3 }, "cross_blocks"},
		{"another clamp", func(c *rdpp.Config) { c.CrossClamp = 2 }, "cross_clamp"},
		{"another method", func(c *rdpp.Config) { c.Method = rdpp.MethodRDPP }, "method"},
	} {
		config := crossing()
		c.change(&config)
		_, err := rdpp.Train(t.Context(), config, openSet(t, dataDir), rdpp.TrainOptions{Out: t.TempDir(), From: older})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one about %s", c.what, err, c.want)
		}
	}
}

// Another method's model files have no settings of CSFlow, and a net's tensors are all closed with it.
func TestCSFlowSettings(t *testing.T) {
	for _, c := range []struct {
		config rdpp.Config
		want   bool
	}{{tiny(), false}, {crossing(), true}} {
		metadata, _ := contents(t, filepath.Join(trained(t, c.config), rdpp.ModelFile))
		if got := strings.Contains(metadata["rdpp"], `"cross_hidden"`); got != c.want {
			t.Errorf("%s: got %v, want %v for settings of CSFlow in the file", c.config.Method, got, c.want)
		}
	}
	before := torch.LiveTensors()
	m, err := rdpp.LoadModel(filepath.Join(trained(t, crossing()), rdpp.ModelFile), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	if got := torch.LiveTensors(); got != before {
		t.Errorf("got %d tensors open, want %d", got, before)
	}
}
