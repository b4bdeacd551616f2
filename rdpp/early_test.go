package rdpp_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/sample"
	"rdpp/torch"
)

// patient are the settings of a training that stops early: of 20 images, while 10 are held out.
func patient() rdpp.Config {
	c := tiny()
	c.Method, c.Batch, c.Accumulate, c.Epochs, c.Updates = rdpp.MethodRD, 10, 1, 12, 0
	c.Calibration, c.Patience = 0.1, 3
	return c
}

// earlyData makes a data set with enough images for some to be held out.
func earlyData(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := sample.Write(dir, &sample.Options{Category: "part", Size: size, Train: 30, TestGood: 1, TestDefect: 1}); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "part")
}

func trainEarly(ctx context.Context, t *testing.T, c rdpp.Config, data string, opt rdpp.TrainOptions) (*rdpp.Summary, error) {
	t.Helper()
	opt.Teacher = rdpp.TeacherRandom
	return rdpp.Train(ctx, c, openSet(t, data), opt)
}

// A training stops where made-up defects on held-out images are found no better: with other test images, or after
// interruptions, at the same place with the same model.
func TestStopsEarly(t *testing.T) {
	t.Parallel()
	data, c, whole := earlyData(t, 32), patient(), t.TempDir()
	var ends []int // that the steps told
	summary, err := trainEarly(t.Context(), t, c, data, rdpp.TrainOptions{Out: whole, OnStep: func(s rdpp.StepReport) { ends = append(ends, s.Epochs) }})
	if err != nil {
		t.Fatal(err)
	}
	ended := summary.Epoch
	if ended < 5 || ended >= c.Epochs || !strings.Contains(summary.Selection, "stopped early") || summary.Config.Epochs != c.Epochs {
		t.Fatalf("got the model of epoch %d, %s, want that it stopped between epoch 5 and %d", ended, summary.Selection, c.Epochs)
	}
	if len(ends) != 2*ended || ends[0] != c.Epochs || ends[len(ends)-1] != ended {
		t.Errorf("got the steps' epochs %v, want %d, then %d", ends, c.Epochs, ended)
	}
	history, err := os.ReadFile(filepath.Join(whole, rdpp.HistoryFile))
	if err != nil || strings.Count(string(history), "\n") != ended+1 || !strings.Contains(string(history), ",made_up_ap\n") {
		t.Errorf("got %s, %v, want a line for each of %d epochs, with what was measured", history, err, ended)
	}

	t.Run("other test images", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "part")
		if err := os.CopyFS(other, os.DirFS(data)); err != nil {
			t.Fatal(err)
		}
		tests, err := filepath.Glob(filepath.Join(other, "test", "*", "*.png"))
		if err != nil || len(tests) < 2 {
			t.Fatalf("got %q, %v", tests, err)
		}
		white, err := os.ReadFile(filepath.Join(data, "train", "good", "000.png"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range tests {
			if err := os.WriteFile(path, white, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		out := t.TempDir()
		if _, err := trainEarly(t.Context(), t, c, other, rdpp.TrainOptions{Out: out}); err != nil {
			t.Fatal(err)
		}
		if got, want := digest(t, filepath.Join(out, rdpp.ModelFile)), digest(t, filepath.Join(whole, rdpp.ModelFile)); got != want {
			t.Errorf("got the model %s, want %s", got, want)
		}
	})

	t.Run("fewer epochs", func(t *testing.T) {
		out := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := trainEarly(ctx, t, c, data, stop{ended - 1, 0}.in(rdpp.TrainOptions{Out: out}, cancel)) // it is to stop after the next one
		if !errors.Is(err, rdpp.ErrInterrupted) {
			t.Fatalf("got error %v, want ErrInterrupted", err)
		}
		fewer := c
		fewer.Epochs = ended - 1
		summary, err := trainEarly(t.Context(), t, fewer, data, rdpp.TrainOptions{Out: out, Resume: true})
		if err != nil {
			t.Fatal(err)
		}
		if summary.Epoch != fewer.Epochs {
			t.Errorf("got the model of epoch %d, want %d", summary.Epoch, fewer.Epochs)
		}
		m, err := rdpp.LoadModel(filepath.Join(out, rdpp.ModelFile), torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
	})

	t.Run("interrupted", func(t *testing.T) {
		out := t.TempDir()
		for _, at := range []stop{{1, 1}, {2, evaluating}, {ended - 1, 0}, {ended, 1}} {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := trainEarly(ctx, t, c, data, at.in(rdpp.TrainOptions{Out: out, Resume: true}, cancel))
			if !errors.Is(err, rdpp.ErrInterrupted) {
				t.Fatalf("stopped at %v: got error %v, want ErrInterrupted", at, err)
			}
		}
		if _, err := trainEarly(t.Context(), t, c, data, rdpp.TrainOptions{Out: out, Resume: true}); err != nil {
			t.Fatal(err)
		}
		checkOutcome(t, out, whole)

		// It is finished, and goes on only where more is asked for.
		steps := 0
		count := func(rdpp.StepReport) { steps++ }
		if _, err := trainEarly(t.Context(), t, c, data, rdpp.TrainOptions{Out: out, Resume: true, OnStep: count}); err != nil || steps != 0 {
			t.Errorf("finished: got %d steps, %v, want none", steps, err)
		}
		if _, err := trainEarly(t.Context(), t, c, data, rdpp.TrainOptions{Out: out}); err == nil || !strings.Contains(err.Error(), "finished run") {
			t.Errorf("finished, not resumed: got %v, want that it is protected", err)
		}
		more := c
		more.Epochs++
		summary, err := trainEarly(t.Context(), t, more, data, rdpp.TrainOptions{Out: out, Resume: true, OnStep: count})
		if err != nil || steps == 0 || summary.Epoch <= ended {
			t.Errorf("more epochs: got %+v, %v after %d steps, want more than %d epochs", summary, err, steps, ended)
		}
	})
}

// Looking changes nothing of a training that does not stop.
func TestPatienceOnlyLooks(t *testing.T) {
	t.Parallel()
	data := earlyData(t, 32)
	var summaries []*rdpp.Summary
	for _, patience := range []int{0, 100} {
		c := patient()
		c.Epochs, c.Patience = 3, patience
		looks := 0
		summary, err := trainEarly(t.Context(), t, c, data, rdpp.TrainOptions{Out: t.TempDir(), OnEpoch: func(e rdpp.EpochReport) {
			if e.MadeUp != nil {
				looks++
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if want := map[int]int{0: 0, 100: 2}[patience]; looks != want { // none after the last
			t.Errorf("patience %d: got %d looks, want %d", patience, looks, want)
		}
		summaries = append(summaries, summary)
	}
	if a, b := summaries[0], summaries[1]; !slices.Equal(a.Losses, b.Losses) || a.Threshold != b.Threshold || a.Selection != b.Selection {
		t.Errorf("got %+v and %+v, want the same", a, b)
	}
}

// Where images are cut into tiles, it looks at tiles.
func TestPatienceInTiles(t *testing.T) {
	t.Parallel()
	c := patient()
	c.Epochs, c.Tile = 2, 32
	var found []float64
	_, err := trainEarly(t.Context(), t, c, earlyData(t, 64), rdpp.TrainOptions{Out: t.TempDir(), OnEpoch: func(e rdpp.EpochReport) {
		if e.MadeUp != nil {
			found = append(found, *e.MadeUp)
		}
	}})
	if err != nil || len(found) != 1 || !(found[0] > 0 && found[0] < 1) {
		t.Errorf("got %v, %v, want one average precision between 0 and 1", found, err)
	}
}

func TestPatienceRefuses(t *testing.T) {
	t.Parallel()
	data := earlyData(t, 32)
	for _, c := range []struct {
		name, data string
		change     func(c *rdpp.Config)
		text       string
	}{
		{"few images", dataDir, func(*rdpp.Config) {}, "at least 30 good images"},
		{"none held out", data, func(c *rdpp.Config) { c.Calibration = 0 }, "at least 30 good images"},
		{"one pass", data, func(c *rdpp.Config) { c.Epochs = 1 }, "single pass"},
		{"negative", data, func(c *rdpp.Config) { c.Patience = -1 }, "number of looks"},
	} {
		config := patient()
		c.change(&config)
		_, err := trainEarly(t.Context(), t, config, c.data, rdpp.TrainOptions{Out: t.TempDir()})
		checkError(t, c.name, err, rdpp.ErrConfig, "patience", c.text)
	}
}
