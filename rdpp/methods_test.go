package rdpp_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// quick are trainings of a few small steps with each of the methods, and what makes one diverge, if anything does.
var quick = map[string]struct {
	config  func() rdpp.Config
	diverge func(c *rdpp.Config)
}{
	rdpp.MethodRDPP:      {tiny, nil},
	rdpp.MethodRD:        {func() rdpp.Config { return of(tiny(), rdpp.MethodRD) }, nil},
	rdpp.MethodPatchCore: {remembering, nil},
	rdpp.MethodFastFlow:  {flowing, func(c *rdpp.Config) { c.FlowRate = 1e30 }},
	rdpp.MethodCSFlow:    {crossing, func(c *rdpp.Config) { c.CrossRate = 1e30 }},
	rdpp.MethodCFA:       {adapting, func(c *rdpp.Config) { c.SphereRate = 1e30 }},
}

func of(c rdpp.Config, method string) rdpp.Config {
	c.Method = method
	return c
}

// remembering is PatchCore with its published image score, which is not its map's maximum.
func remembering() rdpp.Config {
	c := of(tiny(), rdpp.MethodPatchCore)
	c.Updates, c.Epochs = 0, 1
	c.ImageSize, c.Batch, c.Coreset, c.PatchScore, c.Neighbours = 64, 1, 0.1, "patch", 9
	c.Calibration, c.FalseAlarm = 0.3, 0.2
	return c
}

// childMethod trains with the method args[2], and waits in its second step.
func childMethod(args []string) error { return childTrain(quick[args[2]].config, 2)(args) }

// Killed, every method goes on to the same model.
func TestMethodsKilled(t *testing.T) {
	t.Parallel()
	for _, method := range rdpp.Methods() {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			q, known := quick[method]
			if !known {
				t.Fatal("got no quick settings of the method, want some in this file")
			}
			out, began := t.TempDir(), ""
			for round := range 2 {
				cmd, lines := started(t, "method", dataDir, out, method)
				for step := range 2 { // the second ends after the checkpoint of the first
					if !lines.Scan() {
						t.Errorf("round %d: got no step %d", round, step)
					}
					if step == 0 && lines.Text() == began {
						t.Errorf("round %d: got step %q again, want the one after the checkpoint", round, began)
					}
					if step == 0 {
						began = lines.Text()
					}
				}
				if err := testmain.Kill(cmd); err != nil {
					t.Fatal(err)
				}
			}
			train(t, q.config(), rdpp.TrainOptions{Out: out, Resume: true})
			checkOutcome(t, out, trained(t, q.config()))
		})
	}
}

// What diverges ends with the step's number and leaves no model.
func TestMethodsDiverge(t *testing.T) {
	t.Parallel()
	for method, q := range quick {
		if q.diverge == nil {
			continue
		}
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			c := q.config()
			q.diverge(&c)
			out := t.TempDir()
			_, err := rdpp.Train(context.Background(), c, openSet(t, dataDir), rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom})
			if err == nil || !strings.Contains(err.Error(), "epoch 1, step 2") || !strings.Contains(err.Error(), "the loss is") {
				t.Errorf("got error %v, want one about the loss of epoch 1, step 2", err)
			}
			for _, name := range []string{rdpp.ModelFile, rdpp.MetricsFile, checkpointFile} {
				if _, err := os.Stat(filepath.Join(out, name)); !os.IsNotExist(err) {
					t.Errorf("%s: got error %v, want no such file", name, err)
				}
			}
		})
	}
}

// judged are the scores of the test images and their maps' maxima by a training's model, and its calibration. They are to be those
// of the training's evaluation.
func judged(t *testing.T, c rdpp.Config) (calibration rdpp.Calibration, scores, highest []float64) {
	t.Helper()
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
			t.Errorf("%s: got a score of %v, and %v from evaluation, want one score", item.Path, r.Score, evaluation.Scores[i].Score)
		}
		scores, highest = append(scores, r.Score), append(highest, float64(slices.Max(r.Map)))
	}
	return d.Calibration(), scores, highest
}

// Scores that are their maps' maxima are calibrated once, others beside their maps, and a detector judges as the training's
// evaluation did.
func TestMethodsScores(t *testing.T) {
	t.Parallel()
	latent, ofMap, likelihood := crossing(), crossing(), flowing()
	ofMap.CrossScore = "map"
	likelihood.FlowMap, likelihood.FlowTop = "likelihood", 0.01
	for _, c := range []struct {
		config rdpp.Config
		ofMap  bool
	}{{remembering(), false}, {flowing(), true}, {likelihood, false}, {latent, false}, {ofMap, true}, {adapting(), true}} {
		calibration, scores, highest := judged(t, c.config)
		if len(calibration.Scores) == 0 || (len(calibration.MapScores) == 0) != c.ofMap || !c.ofMap && slices.Equal(calibration.Scores, calibration.MapScores) {
			t.Errorf("%s: got %d scores and %d of maps, want those of maps where they are others", c.config.Method, len(calibration.Scores), len(calibration.MapScores))
		}
		if (calibration.Threshold == calibration.PixelThreshold) != c.ofMap {
			t.Errorf("%s: got thresholds of %v and, for pixels, %v, want one where scores are those of maps", c.config.Method, calibration.Threshold,
				calibration.PixelThreshold)
		}
		for i := range scores {
			if (scores[i] == highest[i]) != c.ofMap {
				t.Errorf("%s, image %d: got a score of %v and a map of %v at most, want the score to be that: %v", c.config.Method, i, scores[i], highest[i], c.ofMap)
			}
		}
	}
}

// A net's tensors are all closed with it.
func TestMethodsClose(t *testing.T) {
	for method, q := range quick {
		model := filepath.Join(trained(t, q.config()), rdpp.ModelFile)
		before := torch.LiveTensors()
		m, err := rdpp.LoadModel(model, torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
		if got := torch.LiveTensors(); got != before {
			t.Errorf("%s: got %d tensors open, want %d", method, got, before)
		}
	}
}
