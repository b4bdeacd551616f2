package dataset

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Light changes brightness within what is asked for, colours and sides by a quarter of it, and nothing beyond white.
func TestLight(t *testing.T) {
	const S, exposure, grey = 32, 0.2, 0.5
	least, most := math.Inf(1), math.Inf(-1)
	for seed := range uint64(500) {
		planes := make([]float32, 3*S*S)
		for i := range planes {
			planes[i] = grey
		}
		Light{Exposure: exposure}.apply(planes, S, rand.New(rand.NewPCG(seed, 1)))
		var means [3]float64
		for i, v := range planes {
			means[i/(S*S)] += float64(v) / (S * S) / grey
		}
		for _, mean := range means {
			least, most = min(least, mean), max(most, mean)
			if low, high := (1-exposure)*(1-exposure/4), (1+exposure)*(1+exposure/4); mean < low-1e-6 || mean > high+1e-6 {
				t.Fatalf("seed %d: a channel became %v times as bright, want %v to %v", seed, mean, low, high)
			}
		}
		if r := means[0] / means[1]; r < (1-exposure/4)/(1+exposure/4)-1e-6 || r > (1+exposure/4)/(1-exposure/4)+1e-6 {
			t.Fatalf("seed %d: red over green became %v", seed, r)
		}
		for y := range S {
			row := planes[y*S:][:S]
			if r := row[S-1] / row[0]; r < (1-2*exposure/4)/(1+2*exposure/4) || r > (1+2*exposure/4)/(1-2*exposure/4) {
				t.Fatalf("seed %d: from left to right %v", seed, r)
			}
		}
	}
	if least > 0.85 || most < 1.15 {
		t.Errorf("500 lights were %v to %v times as bright, want about 0.8 to 1.2", least, most)
	}

	white := []float32{1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0}
	Light{Exposure: 0.5}.apply(white, 2, rand.New(rand.NewPCG(3, 1)))
	for i, v := range white {
		if v < 0 || v > 1 || i >= 6 && v != 0 {
			t.Errorf("value %d of white and black became %v", i, v)
		}
	}
}

// The cache's images stay as they are, noise lies on lit images, and without light batches are what they were.
func TestLoaderLight(t *testing.T) {
	items := pictures(t, 4)
	own := epoch(t, newLoader(t, items, LoaderOptions{Batch: 4, Light: Light{Exposure: 0.3}, Noise: NoiseOptions{Lambda: 0.2}}), 0, 0)[0]
	cache := NewCache(CacheOptions{Size: testSize})
	lit := newLoader(t, items, LoaderOptions{Batch: 4, Light: Light{Exposure: 0.3}, Cache: cache, Noise: NoiseOptions{Lambda: 0.2}})
	first, again := epoch(t, lit, 0, 0)[0], epoch(t, lit, 0, 0)[0]
	if digest(first) != digest(again) || digest(first) != digest(own) {
		t.Error("the same epoch has other light when it is made again")
	}
	if digest(epoch(t, lit, 1, 0)[0]) == digest(first) {
		t.Error("two epochs have the same light")
	}
	plain := epoch(t, newLoader(t, items, LoaderOptions{Batch: 4}), 0, 0)[0]
	cached := epoch(t, newLoader(t, items, LoaderOptions{Batch: 4, Cache: cache}), 0, 0)[0]
	if digest(plain) != digest(cached) {
		t.Error("light has changed the cache's images")
	}
	far := 0
	for i := range first.Clean {
		if math.Abs(float64(first.Noisy[i]-first.Clean[i])) > 1e-6 {
			far++
		}
	}
	if share := float64(far) / float64(len(first.Clean)); share == 0 || share > 0.05 {
		t.Errorf("noisy and clean images differ in %.3f of their values, want only in boxes", share)
	}
}

func TestLightCheck(t *testing.T) {
	for exposure, ok := range map[float64]bool{0: true, 0.2: true, 0.79: true, 0.8: false, -0.1: false, math.NaN(): false} {
		if err := (Light{Exposure: exposure}).Check(); (err == nil) != ok {
			t.Errorf("exposure %v: got %v", exposure, err)
		}
	}
}
