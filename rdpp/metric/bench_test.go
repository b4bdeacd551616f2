package metric

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

var full = flag.Bool("full", false, "run the benchmark over as many pixels as MVTec AD's test set has")

// BenchmarkEvaluation100 adds 100 maps of 256 x 256 and takes every metric and both curves.
func BenchmarkEvaluation100(b *testing.B) {
	benchmarkEvaluation(b, 100)
}

// BenchmarkFullMVTec does so with the 1,725 maps of MVTec AD's test set: go test -bench FullMVTec -benchtime 1x -full.
func BenchmarkFullMVTec(b *testing.B) {
	if !*full {
		b.Skip("113 million pixels: only with -full")
	}
	benchmarkEvaluation(b, 1725)
}

func benchmarkEvaluation(b *testing.B, images int) {
	const side, drawn = 256, 16
	rng := rand.New(rand.NewPCG(1, 1))
	var maps [drawn][]float32
	var masks [drawn][]uint8
	for i := range drawn {
		maps[i], masks[i] = randomImage(rng, side, side)
	}
	m := make([]float32, side*side)
	resetPeak()
	for b.Loop() {
		var p Pixels
		for i := range images {
			b.StopTimer() // all maps differ, or ties would be frequent
			scale, offset := 1+rng.Float32()/4, rng.Float32()/4
			for j, v := range maps[i%drawn] {
				m[j] = scale*v + offset
			}
			b.StartTimer()
			if err := p.Add(m, masks[i%drawn], side, side); err != nil {
				b.Fatal(err)
			}
		}
		for i, metric := range metricsOf(&p) {
			if _, err := metric(); err != nil {
				b.Fatalf("metric %d: %v", i, err)
			}
		}
	}
	if mib, ok := peak(); ok {
		b.ReportMetric(mib, "peak-MiB")
	}
}

// resetPeak makes peak start anew, where the system can.
func resetPeak() {
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}

// peak is the largest resident size of this process since resetPeak.
func peak() (mib float64, ok bool) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	_, rest, found := strings.Cut(string(status), "VmHWM:")
	if !found {
		return 0, false
	}
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0, false
	}
	return kib / 1024, true
}
