package rdpp_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"image"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/testmain"
)

// flowing is FastFlow with small flows, in four steps.
func flowing() rdpp.Config {
	c := tiny()
	c.Method, c.ImageSize, c.Batch, c.Updates, c.Epochs = rdpp.MethodFastFlow, 64, 3, 0, 2
	c.FlowSteps, c.FlowHidden = 2, 0.25
	c.Calibration, c.FalseAlarm = 0.3, 0.2
	return c
}

// Killed between any two steps, FastFlow goes on to the same model.
func TestFastFlowKilled(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	for round := range 2 {
		cmd := testmain.Child("flow", dataDir, out)
		cmd.Stderr = t.Output()
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		for range 2 { // the second step ends after the checkpoint of the first
			if !lines.Scan() {
				t.Errorf("round %d: got no step", round)
			}
		}
		if err := testmain.Kill(cmd); err != nil {
			t.Fatal(err)
		}
	}
	train(t, flowing(), rdpp.TrainOptions{Out: out, Resume: true})
	checkOutcome(t, out, trained(t, flowing()))
}

// A detector judges as the training's evaluation did, by either map.
func TestFastFlowScores(t *testing.T) {
	t.Parallel()
	likelihood := flowing()
	likelihood.FlowMap, likelihood.FlowTop = "likelihood", 0.01
	for _, c := range []rdpp.Config{flowing(), likelihood} {
		d, err := rdpp.OpenDetector(filepath.Join(trained(t, c), rdpp.ModelFile), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		evaluation, err := d.Evaluate(t.Context(), openSet(t, dataDir))
		if err != nil {
			t.Fatal(err)
		}
		for i, item := range openSet(t, dataDir).Test {
			r, _, err := d.DetectFile(item.Path)
			if err != nil {
				t.Fatal(err)
			}
			if r.Score != evaluation.Scores[i].Score || !(r.Score > 0) {
				t.Errorf("%s: got a score of %v, and %v from evaluation, want the same one", item.Path, r.Score, evaluation.Scores[i].Score)
			}
		}
	}
}

// Exported files say what the model says, also of pictures of which something does not count.
func TestFastFlowExport(t *testing.T) {
	t.Parallel()
	images := photographs(t)[1]
	padded := flowing()
	padded.Fit, padded.FlowTop = framing.Pad, 0.01
	for _, c := range []rdpp.Config{flowing(), padded} {
		testFramed(t, filepath.Join(trained(t, c), rdpp.ModelFile), images, image.Pt(images[0].W, images[0].H))
	}
}

// A training that diverges says at which step, and leaves neither model nor checkpoint of it.
func TestFastFlowDiverges(t *testing.T) {
	t.Parallel()
	c := flowing()
	c.FlowRate = 1e30
	out := t.TempDir()
	_, err := rdpp.Train(context.Background(), c, openSet(t, dataDir), rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom})
	if err == nil || !strings.Contains(err.Error(), "epoch 1, step 2") || !strings.Contains(err.Error(), "the loss is") {
		t.Errorf("got error %v, want one about the loss that names the step", err)
	}
	for _, name := range []string{rdpp.ModelFile, checkpointFile} {
		if _, err := os.Stat(filepath.Join(out, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want no such file", name, err)
		}
	}
}

// FastFlow goes on from a model: the teacher and the orders of the channels stay, and the weights learn.
func TestFastFlowFrom(t *testing.T) {
	t.Parallel()
	older := filepath.Join(trained(t, flowing()), rdpp.ModelFile)
	out := t.TempDir()
	if _, err := rdpp.Train(context.Background(), goingOn(t, older), newImages(t), rdpp.TrainOptions{Out: out, From: older}); err != nil {
		t.Fatal(err)
	}
	before, after := tensorsOf(t, older), tensorsOf(t, filepath.Join(out, rdpp.ModelFile))
	for name, stays := range map[string]bool{"flow.layer1.0.order": true, "flow.layer3.1.order": true, "encoder.conv1.weight": true,
		"flow.layer1.0.conv1.weight": false, "flow.layer2.norm_weight": false, "flow.layer3.1.scale": false} {
		if len(before[name]) == 0 || bytes.Equal(before[name], after[name]) != stays {
			t.Errorf("%s: got %d bytes, the same as before: %v, want %v", name, len(before[name]), !stays, stays)
		}
	}
}
