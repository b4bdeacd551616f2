package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/document"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// counter learns numbers: its state is their sum.
type counter struct {
	sum   float64
	steps []string // that it has seen, as "step of steps"
	fail  error
	none  bool // its loss is no number
}

func (c *counter) Step(b float64, step, of int) (anomaly.Losses, error) {
	c.sum += b
	c.steps = append(c.steps, fmt.Sprint(step, " of ", of))
	loss := 1.0
	if c.none {
		loss = math.NaN()
	}
	return anomaly.Losses{{Name: anomaly.LossTotal, Value: loss}, {Name: "of no account", Value: math.Inf(1)}}, c.fail
}

func (c *counter) State(*torch.Scope) ([]weights.Source, error) {
	data := weights.AppendFloat32(nil, []float32{float32(c.sum)})
	return []weights.Source{{Name: "sum", DType: weights.F32, Shape: []int{1}, Bytes: func() ([]byte, error) { return data, nil }}}, nil
}

func (c *counter) Growth() (int64, error) { return 1000, nil }

func (c *counter) Restore(f *weights.File, _ anomaly.Facts) error { return nil }

func (c *counter) Close() {}

// numbers yields 1, 2 and so on, calling at before each.
func numbers(n int, at func(i int)) iter.Seq2[float64, error] {
	return func(yield func(float64, error) bool) {
		for i := 1; i <= n; i++ {
			at(i)
			if !yield(float64(i), nil) {
				return
			}
		}
	}
}

func TestLoop(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name         string
		every        time.Duration
		learner      counter
		saveFails    bool
		stop         int // ctx ends before this number
		unreadable   bool
		steps        int
		saves        int
		want         error // errors.Is
		text, logged string
	}{
		{name: "to the end", every: time.Hour, steps: 3},
		{name: "a checkpoint after every step", every: 1, steps: 3, saves: 3},
		{name: "no room for checkpoints", every: 1, saveFails: true, steps: 3, saves: 3, logged: "no checkpoint"},
		{name: "interrupted", every: time.Hour, stop: 3, steps: 2, saves: 1, want: ErrInterrupted, text: "engine: interrupted here; resume continues"},
		{name: "interrupted without room", every: time.Hour, stop: 3, saveFails: true, steps: 2, saves: 1, want: ErrNotSaved, text: "disk is full"},
		{name: "a step fails", every: time.Hour, learner: counter{fail: broken}, steps: 0, want: broken, text: "engine: step 8: broken"},
		{name: "no number", every: time.Hour, learner: counter{none: true}, steps: 0, text: "the loss is NaN"},
		{name: "an image that has gone", every: time.Hour, unreadable: true, steps: 3, saves: 1, want: os.ErrNotExist},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var log bytes.Buffer
			done, saves := 0, 0
			loop := Loop[float64]{Learner: &c.learner, Of: 10, Every: c.every, Log: slog.New(slog.NewTextHandler(&log, nil)),
				Save: func() error {
					saves++
					if c.saveFails {
						return errors.New("the disk is full")
					}
					return nil
				},
				At:    func() string { return "step 8" },
				Stood: func() string { return "here" },
				Done:  func(float64, anomaly.Losses, time.Duration) { done++ }}
			batches := numbers(3, func(i int) {
				if i == c.stop {
					cancel()
				}
			})
			if c.unreadable {
				good := batches
				batches = func(yield func(float64, error) bool) {
					for b := range good {
						if !yield(b, nil) {
							return
						}
					}
					yield(0, os.ErrNotExist)
				}
			}
			err := loop.Run(ctx, batches, 7)
			if (err != nil) != (c.want != nil || c.text != "") || c.want != nil && !errors.Is(err, c.want) || c.text != "" && !strings.Contains(err.Error(), c.text) {
				t.Errorf("got error %v, want %v, %q", err, c.want, c.text)
			}
			if done != c.steps || saves != c.saves || !strings.Contains(log.String(), c.logged) {
				t.Errorf("got %d steps, %d checkpoints, the log %q, want %d, %d and %q in it", done, saves, log.String(), c.steps, c.saves, c.logged)
			}
			if want := []string{"7 of 10", "8 of 10", "9 of 10"}; c.steps > 0 && !slices.Equal(c.learner.steps, want[:c.steps]) {
				t.Errorf("got the steps %q, want %q", c.learner.steps, want[:c.steps])
			}
		})
	}
}

func TestCheckpoint(t *testing.T) {
	type doc struct {
		Step int `json:"step"`
	}
	c := Checkpoint{Path: filepath.Join(t.TempDir(), "checkpoint"), Key: document.CheckpointKey}
	var got doc
	if file, err := c.Open(&got); file != nil || err != nil {
		t.Errorf("none there: got %v, %v", file, err)
	}
	learner := &counter{sum: 5}
	size, err := c.Size(doc{3}, learner)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Save(doc{3}, learner); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(c.Path); err != nil || info.Size()+1000 > size {
		t.Errorf("got %d bytes, %v, more than was said, %d, without what State can grow by", info.Size(), err, size)
	}
	file, err := c.Open(&got)
	if err != nil {
		t.Fatal(err)
	}
	if _, found := file.Lookup("sum"); !found || got.Step != 3 {
		t.Errorf("got %+v, its tensor %v, want step 3 and a tensor", got, found)
	}
	file.Close()
	other := Checkpoint{Path: c.Path, Key: document.TeacherCheckpointKey}
	if _, err := other.Open(&got); err == nil || !strings.Contains(err.Error(), "overwrite starts anew") {
		t.Errorf("another kind: got %v", err)
	}
}

// One training at a time writes to a folder.
func TestClaim(t *testing.T) {
	out := filepath.Join(t.TempDir(), "new", "run")
	log := slog.New(slog.DiscardHandler)
	lock, err := Claim(log, filepath.Join(out, "model"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(log, filepath.Join(out, "model")); err == nil || !strings.Contains(err.Error(), "another training is writing to "+out) {
		t.Errorf("a second: got %v", err)
	}
	lock.Close()
	if lock, err = Claim(log, filepath.Join(out, "model")); err != nil {
		t.Fatalf("after the first: got %v", err)
	}
	lock.Close()
	file := filepath.Join(out, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(log, filepath.Join(file, "model")); err == nil || !strings.Contains(err.Error(), "choose another with out") {
		t.Errorf("below a file: got %v", err)
	}
}
