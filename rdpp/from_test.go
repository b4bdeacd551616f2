package rdpp_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/sample"
	"rdpp/rdpp/weights"
)

// newImages is a data set of other images than dataDir's.
func newImages(t *testing.T) *dataset.Set {
	t.Helper()
	dir := t.TempDir()
	if err := sample.Write(dir, &sample.Options{Category: "part", Size: 64, Train: 10, TestGood: 2, TestDefect: 1, Seed: 7}); err != nil {
		t.Fatal(err)
	}
	return openSet(t, filepath.Join(dir, "part"))
}

// tensorsOf are a model file's, by name.
func tensorsOf(t *testing.T, path string) map[string][]byte {
	t.Helper()
	_, sources := contents(t, path)
	all := map[string][]byte{}
	for _, s := range sources {
		data, err := s.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		all[s.Name] = data
	}
	return all
}

// goingOn are the settings to go on from a model with.
func goingOn(t *testing.T, model string) rdpp.Config {
	t.Helper()
	c, err := rdpp.FromModel(model)
	if err != nil {
		t.Fatal(err)
	}
	c.Epochs, c.Batch, c.Precision = 2, 4, "fp32"
	return c
}

// TestFrom: a training goes on from a model with its teacher as it is and its weights, by its settings; what is held out is scored, the
// file says from which it is, and a training that is put down and taken up leads to the same to the bit.
func TestFrom(t *testing.T) {
	t.Parallel()
	older := trainedModel(t)
	folded := func(c *rdpp.Config) { c.Calibration = 0.2 }
	for _, c := range []struct {
		name   string
		change func(*rdpp.Config)
		stops  []stop
	}{
		{"as it was", func(*rdpp.Config) {}, []stop{{1, 2}, {2, 1}}},
		{"averaged, with trainings for the threshold", func(c *rdpp.Config) { c.Average = 0.5; folded(c) }, []stop{{2, 2}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, set := goingOn(t, older), newImages(t)
			c.change(&config)
			whole, stopped := t.TempDir(), t.TempDir()
			summary, err := rdpp.Train(context.Background(), config, set, rdpp.TrainOptions{Out: whole, From: older})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range c.stops {
				ctx, cancel := context.WithCancel(context.Background())
				_, err := rdpp.Train(ctx, config, set, rdpp.TrainOptions{Out: stopped, From: older, Resume: true, OnStep: func(r rdpp.StepReport) {
					if r.Fold == 0 && r.Epoch == s.epoch && r.Step == s.step {
						cancel()
					}
				}})
				cancel()
				if !errors.Is(err, rdpp.ErrInterrupted) {
					t.Fatalf("stopped at %v: got error %v, want ErrInterrupted", s, err)
				}
			}
			if _, err := rdpp.Train(context.Background(), config, set, rdpp.TrainOptions{Out: stopped, From: older, Resume: true}); err != nil {
				t.Fatal(err)
			}
			checkOutcome(t, stopped, whole)
			if _, err := rdpp.Train(context.Background(), config, set, rdpp.TrainOptions{Out: stopped, From: older, Resume: true}); err != nil {
				t.Fatal(err) // finished again
			}
			checkOutcome(t, stopped, whole)

			before, after := tensorsOf(t, older), tensorsOf(t, filepath.Join(whole, rdpp.ModelFile))
			learned := 0
			for name, data := range before {
				same := bytes.Equal(data, after[name])
				if strings.HasPrefix(name, "encoder.") && !same {
					t.Errorf("%s of the teacher is another", name)
				}
				if strings.HasPrefix(name, "decoder.") && !same {
					learned++
				}
			}
			if learned == 0 {
				t.Error("the student has learned nothing")
			}
			if from := summary.From; from.Origin != rdpp.ModelFile || from.SHA256 != digest(t, older) || from.Images != 6 || summary.Teacher.Origin != rdpp.OriginRandom {
				t.Errorf("got %+v, teacher %v", from, summary.Teacher)
			}
			d, err := rdpp.OpenDetector(filepath.Join(whole, rdpp.ModelFile), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if info := d.Info(); info.From != summary.From || len(info.Calibration.Scores) != 10 {
				t.Errorf("the file: got from %+v, %d scores", info.From, len(info.Calibration.Scores))
			}
		})
	}
}

// TestFromStart: at rates of next to nothing, weights stay those of the model.
func TestFromStart(t *testing.T) {
	t.Parallel()
	older := trainedModel(t)
	config := goingOn(t, older)
	config.Epochs, config.RateProjection, config.RateDistill, config.Average = 1, 1e-9, 1e-9, 0
	out := t.TempDir()
	if _, err := rdpp.Train(context.Background(), config, newImages(t), rdpp.TrainOptions{Out: out, From: older}); err != nil {
		t.Fatal(err)
	}
	_, before := contents(t, older)
	after := map[string]weights.Source{}
	_, sources := contents(t, filepath.Join(out, rdpp.ModelFile))
	for _, s := range sources {
		after[s.Name] = s
	}
	compared := 0
	for _, s := range before {
		if strings.Contains(s.Name, "running_") || strings.Contains(s.Name, "num_batches") || s.DType != weights.F32 {
			continue
		}
		a, b := floatsOf(t, s), floatsOf(t, after[s.Name])
		for i := range a {
			if d := a[i] - b[i]; !(d < 1e-6 && d > -1e-6) {
				t.Fatalf("%s, number %d: got %v, want %v", s.Name, i, b[i], a[i])
			}
		}
		compared++
	}
	if compared < 50 {
		t.Errorf("compared %d tensors", compared)
	}
}

func floatsOf(t *testing.T, s weights.Source) []float64 {
	t.Helper()
	data, err := s.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return weights.Tensor{DType: s.DType, Shape: s.Shape, Data: data}.Float64()
}

func TestFromRefuses(t *testing.T) {
	t.Parallel()
	older, out := trainedModel(t), t.TempDir()
	set := newImages(t)
	another := filepath.Join(trained(t, tinyBest()), rdpp.ModelFile)
	started := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	_, err := rdpp.Train(ctx, goingOn(t, older), set, rdpp.TrainOptions{Out: started, From: older, OnStep: func(rdpp.StepReport) { cancel() }})
	cancel()
	if !errors.Is(err, rdpp.ErrInterrupted) {
		t.Fatal(err)
	}
	plain := t.TempDir()
	interrupt(t, tiny(), plain, stop{1, 1})
	for _, c := range []struct {
		name   string
		change func(*rdpp.Config)
		set    *dataset.Set
		opt    rdpp.TrainOptions
		texts  []string
	}{
		{"another method", func(c *rdpp.Config) { c.Method = rdpp.MethodRD }, set, rdpp.TrainOptions{From: older}, []string{`method is "rd"`, `has "rd++"`, "leave method out"}},
		{"a method that does not", func(c *rdpp.Config) { c.Method = rdpp.MethodPatchCore; c.Epochs, c.Updates = 1, 0 }, set, rdpp.TrainOptions{From: older},
			[]string{"from is", "in one pass", "together"}},
		{"another size", func(c *rdpp.Config) { c.ImageSize = 64 }, set, rdpp.TrainOptions{From: older}, []string{"image_size is 64", "has 32"}},
		{"another projection", func(c *rdpp.Config) { c.Project = rdpp.ProjectAll }, set, rdpp.TrainOptions{From: older}, []string{`project is "all"`, `has "coarsest"`}},
		{"its own images", func(*rdpp.Config) {}, openSet(t, dataDir), rdpp.TrainOptions{From: older}, []string{"from is", "new ones", "resume"}},
		{"a teacher", func(*rdpp.Config) {}, set, rdpp.TrainOptions{From: older, Teacher: rdpp.TeacherRandom}, []string{"teacher is", "leave teacher out"}},
		{"no file", func(*rdpp.Config) {}, set, rdpp.TrainOptions{From: older + "x"}, []string{older + "x"}},
		{"a checkpoint", func(*rdpp.Config) {}, set, rdpp.TrainOptions{From: filepath.Join(plain, checkpointFile)}, []string{checkpointFile}},
		{"what it writes itself", func(*rdpp.Config) {}, set, rdpp.TrainOptions{From: older, Out: filepath.Dir(older), Overwrite: true}, []string{"another folder"}},
		{"resumed with another", func(*rdpp.Config) {}, set, rdpp.TrainOptions{From: another, Out: started, Resume: true}, []string{"from is", "SHA-256", "overwrite"}},
		{"resumed without", func(*rdpp.Config) {}, set, rdpp.TrainOptions{Out: started, Resume: true, Teacher: rdpp.TeacherRandom}, []string{"from is missing", "SHA-256"}},
		{"resumed with one", func(c *rdpp.Config) { *c = tiny() }, openSet(t, dataDir), rdpp.TrainOptions{From: another, Out: plain, Resume: true},
			[]string{"from is"}},
	} {
		config := goingOn(t, older)
		c.change(&config)
		if c.opt.Out == "" {
			c.opt.Out = out
		}
		_, err := rdpp.Train(context.Background(), config, c.set, c.opt)
		checkError(t, c.name, err, nil, c.texts...)
	}
	if _, err := rdpp.FromModel(filepath.Join(plain, checkpointFile)); err == nil {
		t.Error("settings of a checkpoint: got no error")
	}
}
