package rdpp_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/evaluation"
	"rdpp/rdpp/method"
	"rdpp/rdpp/sample"
	"rdpp/torch"
)

var benchDevice = flag.String("device", "cpu", "where benchmarks of networks and what is measured on a data set run")

func device(b testing.TB) torch.Device {
	b.Helper()
	d, err := torch.ParseDevice(*benchDevice)
	if err != nil {
		b.Fatal(err)
	}
	return d
}

func noise(n int) []float32 {
	rng := rand.New(rand.NewPCG(1, 2))
	x := make([]float32, n)
	for i := range x {
		x[i] = rng.Float32()*4 - 2
	}
	return x
}

func onWorker(b *testing.B, f func() error) {
	b.Helper()
	if err := torch.SetThreads(runtime.NumCPU()); err != nil {
		b.Fatal(err)
	}
	w := torch.NewWorker()
	defer w.Close()
	if err := w.Do(f); err != nil {
		b.Fatal(err)
	}
}

// The compute of `infer image`: a normalised image in memory to its map and score in memory.
func BenchmarkPredict(b *testing.B) {
	cases := []struct {
		arch      string
		precision torch.Precision
	}{{"resnet18", torch.FP32}, {"resnet18", torch.BF16}, {"wide_resnet50_2", torch.FP32}, {"wide_resnet50_2", torch.BF16}}
	for _, k := range cases {
		b.Run(k.arch+"/"+string(k.precision), func(b *testing.B) {
			onWorker(b, func() error {
				c := rdpp.DefaultConfig()
				c.Arch = k.arch
				m, err := rdpp.NewModel(c, device(b))
				if err != nil {
					return err
				}
				defer m.Close()
				m.Precision = k.precision
				if err := m.Net.Settle(); err != nil {
					return err
				}
				x := noise(3 * c.ImageSize * c.ImageSize)
				if _, _, err := m.Predict(x); err != nil { // the first one sets libtorch's primitives up
					return err
				}
				for b.Loop() {
					if _, _, err := m.Predict(x); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

// A training step of 16 images, every second one with an update.
func BenchmarkTrainingStep(b *testing.B) {
	for _, ssot := range []string{"pairwise", "batch"} {
		b.Run("resnet18/ssot="+ssot, func(b *testing.B) {
			onWorker(b, func() error {
				c := rdpp.Preset(rdpp.PresetPaper, "")
				c.Arch, c.SSOT = "resnet18", ssot
				learned := c.Learned()
				net, err := learned.New(method.Options{Device: device(b)})
				if err != nil {
					return err
				}
				defer net.Close()
				learner, err := learned.Learner(net, method.LearnerOptions{Precision: torch.FP32})
				if err != nil {
					return err
				}
				defer learner.Close()
				values := c.Batch * 3 * c.ImageSize * c.ImageSize
				batch := &dataset.Batch{B: c.Batch, Clean: noise(values), Noisy: noise(values)}
				for i := range c.Batch {
					batch.Shuffle = append(batch.Shuffle, int64((i+1)%c.Batch))
				}
				step, of := 1, 1<<20
				if _, err := learner.Step(batch, 0, of); err != nil {
					return err
				}
				for b.Loop() {
					if _, err := learner.Step(batch, step, of); err != nil {
						return err
					}
					step++
				}
				b.ReportMetric(float64(c.Batch*b.N)/b.Elapsed().Seconds(), "images/s")
				return nil
			})
		})
	}
}

// What an evaluation of 100 test images with masks takes beside predicting them: all metrics and curves, and reading
// from the cache.
func BenchmarkEvaluation(b *testing.B) {
	dir := b.TempDir()
	err := sample.Write(dir, &sample.Options{Category: "part", Train: 1, TestGood: 60, TestDefect: 10})
	if err != nil {
		b.Fatal(err)
	}
	set, err := dataset.Open(filepath.Join(dir, "part"), nil)
	if err != nil {
		b.Fatal(err)
	}
	onWorker(b, func() error {
		c := rdpp.DefaultConfig()
		c.Arch = "resnet18"
		m, err := rdpp.NewModel(c, device(b))
		if err != nil {
			return err
		}
		defer m.Close()
		if err := m.Net.Settle(); err != nil {
			return err
		}
		cache := dataset.NewCache(dataset.CacheOptions{Size: c.ImageSize})
		if _, err := evaluation.Evaluate(context.Background(), m, set.Test, true, nil, cache); err != nil { // fills the cache
			return err
		}
		x := noise(3 * c.ImageSize * c.ImageSize)
		var predicting time.Duration
		for b.Loop() {
			if _, err := evaluation.Evaluate(context.Background(), m, set.Test, true, nil, cache); err != nil {
				return err
			}
			b.StopTimer()
			start := time.Now()
			for range set.Test {
				if _, _, err := m.Predict(x); err != nil {
					return err
				}
			}
			predicting += time.Since(start)
			b.StartTimer()
		}
		b.ReportMetric(float64(len(set.Test)), "images")
		b.ReportMetric(100*(b.Elapsed().Seconds()/predicting.Seconds()-1), "%-over-predicting")
		return nil
	})
}
