package rdpp

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/sample"
	"rdpp/torch"
)

// Terms are weighted by their shares, over their means, and less where they are restless; good images reach about 1.
func TestMapWeights(t *testing.T) {
	images := func(n int, of func(i, term int) float64) (all maxima) {
		for i := range n {
			var w MapWeights
			for term := range w {
				w[term] = of(i, term)
			}
			all = append(all, w)
		}
		return all
	}
	alternate := func(i int, mean, spread float64) float64 { // of deviation spread * mean
		if i%2 == 0 {
			return mean * (1 + spread)
		}
		return mean * (1 - spread)
	}
	means := MapWeights{7, 0.5, 0.25, 0.1, 9, 0.02}
	steady := images(40, func(i, term int) float64 { return alternate(i, means[term], usualSpread) })
	w, err := steady.weights(true, -1)
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, share := range balancedShares {
		total += share
	}
	for i, share := range balancedShares {
		if want := share / total / means[i]; math.Abs(w[i]-want) > 1e-9 {
			t.Errorf("all equally steady: weight %d is %v, want %v", i, w[i], want)
		}
	}

	// One term with twice the usual deviation: (n * 0.16 + 10 * 0.04) / (n + 10) against 0.04.
	const n = 40
	restless := images(n, func(i, term int) float64 {
		if term == 5 {
			return alternate(i, means[term], 2*usualSpread)
		}
		return alternate(i, means[term], usualSpread)
	})
	w, err = restless.weights(true, -1)
	if err != nil {
		t.Fatal(err)
	}
	want := balancedShares[5] / balancedShares[1] * 0.04 / ((n*0.16 + usualImages*0.04) / (n + usualImages))
	if got := w[5] * means[5] / (w[1] * means[1]); math.Abs(got-want) > 1e-9 {
		t.Errorf("a restless term counts %v times a steady one, want %v", got, want)
	}
	if plain, err := restless.weights(false, -1); err != nil || math.Abs(plain[5]*means[5]/(plain[1]*means[1])-balancedShares[5]/balancedShares[1]) > 1e-9 {
		t.Errorf("without steadiness: got %v, %v", plain, err)
	}

	// An image that is left out has no part.
	odd := append(images(0, nil), steady...)
	odd = append(odd, MapWeights{100, 100, 100, 100, 100, 100})
	without, err := odd.weights(true, len(odd)-1)
	if full, _ := steady.weights(true, -1); err != nil || without != full {
		t.Errorf("left out: got %v, %v, want %v", without, err, full)
	}

	if _, err := images(3, func(_, _ int) float64 { return 0 }).weights(true, -1); err == nil {
		t.Error("terms that are 0 everywhere got weights")
	}
}

// Held-out images set the weights, and each is scored by those that the others set.
func TestHeldOutImagesBalance(t *testing.T) {
	dir := t.TempDir()
	if err := sample.Write(dir, &sample.Options{Category: "part", Size: 32, Train: 5, TestGood: 1, TestDefect: 1}); err != nil {
		t.Fatal(err)
	}
	set, err := dataset.Open(filepath.Join(dir, "part"), nil)
	if err != nil {
		t.Fatal(err)
	}
	config := DefaultConfig()
	config.Arch, config.ImageSize = "resnet18", 32
	m, err := NewModel(config, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cache := context.Background(), dataset.NewCache(dataset.CacheOptions{Size: 32})
	held := set.Train
	of, err := m.balance(ctx, held, nil, cache)
	if err != nil {
		t.Fatal(err)
	}
	all := m.Info.MapWeights
	got, err := m.heldScores(ctx, held, of, cache)
	if err != nil {
		t.Fatal(err)
	}
	if m.Info.MapWeights != all || all == (MapWeights{}) {
		t.Errorf("the model's weights are %v, were %v", m.Info.MapWeights, all)
	}
	var want []float64
	for i, item := range held {
		if m.Info.MapWeights, err = of.weights(true, i); err != nil {
			t.Fatal(err)
		}
		if m.Info.MapWeights == all {
			t.Errorf("image %d has no part in the weights", i)
		}
		one, err := m.scores(ctx, []dataset.Item{item}, cache)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, one...)
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got the scores %v, want %v", got, want)
	}

	// A term's highest point is what the map of that term alone reaches.
	m.Info.MapWeights = MapWeights{5: 1}
	highest := 0.0
	for _, w := range of {
		highest = max(highest, w[5])
	}
	alone, err := m.scores(ctx, held, cache)
	if err != nil || math.Abs(alone[len(alone)-1]-highest) > 1e-6 { // sums in another order
		t.Errorf("the last term alone reaches %v, %v, want %v", alone, err, highest)
	}

	m.Info.Config.Score = ScoreReleased
	if of, err := m.balance(ctx, held, nil, cache); err != nil || of != nil || m.Info.MapWeights != (MapWeights{}) {
		t.Errorf("released: got %v, %v and the weights %v", of, err, m.Info.MapWeights)
	}
}
