package rdpp

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/sample"
	"rdpp/torch"
)

func fakeItems(n int) (items []dataset.Item) {
	for i := range n {
		items = append(items, dataset.Item{Path: fmt.Sprintf("%04d.png", i), Type: dataset.GoodType})
	}
	return items
}

func TestHoldOut(t *testing.T) {
	for _, c := range []struct {
		n           int
		share       float64
		held, folds int
	}{
		{213, 0.1, 21, 0}, {320, 0.1, 32, 0}, {60, 0.1, 10, 0}, {30, 0.1, 10, 0}, {29, 0.1, 0, 5}, {5, 0.1, 0, 5}, {3, 0.1, 0, 3},
		{2, 0.1, 0, 2}, {1, 0.1, 0, 0}, {100, 0, 0, 0}, {3, 0, 0, 0}, {100, 0.3, 30, 0}, {1000, 0.001, 10, 0},
	} {
		items := fakeItems(c.n)
		config := Config{Calibration: c.share, Seed: 1}
		kept, held, folds := holdOut(items, &config)
		if len(held) != c.held || folds != c.folds || len(kept) != c.n-c.held {
			t.Errorf("%d images, share %v: got %d kept, %d held out, %d folds, want %d held out, %d folds", c.n, c.share, len(kept), len(held),
				folds, c.held, c.folds)
		}
		both := slices.Concat(kept, held)
		byPath := func(a, b dataset.Item) int {
			if a.Path < b.Path {
				return -1
			}
			return 1
		}
		if !slices.IsSortedFunc(kept, byPath) || !slices.IsSortedFunc(held, byPath) {
			t.Errorf("%d images: got another order", c.n)
		}
		slices.SortFunc(both, byPath)
		if !slices.Equal(both, items) {
			t.Errorf("%d images: kept and held out are not all of them, once each", c.n)
		}
		again, _, _ := holdOut(items, &config)
		if !slices.Equal(kept, again) {
			t.Errorf("%d images: the same seed holds out others", c.n)
		}
	}
	one, two := Config{Calibration: 0.1, Seed: 1}, Config{Calibration: 0.1, Seed: 2}
	_, a, _ := holdOut(fakeItems(200), &one)
	_, b, _ := holdOut(fakeItems(200), &two)
	if slices.Equal(a, b) {
		t.Error("two seeds hold out the same images")
	}
}

func TestAverageWeight(t *testing.T) {
	for _, c := range []struct {
		share           float64
		update, updates int
		want            float64
	}{
		{0, 0, 100, 0}, {0, 99, 100, 0}, {0.1, 0, 100, 1}, {0.1, 1, 100, 0.5}, {0.1, 8, 100, 1.0 / 9}, {0.1, 9, 100, 0.1},
		{0.1, 99, 100, 0.1}, {1, 99, 100, 0.01}, {0.1, 1, 2, 1}, // over less than one update: the last weights
	} {
		config := Config{Average: c.share}
		if got := config.averageWeight(c.update, c.updates); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("over %v, update %d of %d: got %v, want %v", c.share, c.update, c.updates, got, c.want)
		}
	}
}

// Equal images have equal inputs of the student, so the distance of a pair of them is 0.
func TestCompactness(t *testing.T) {
	dir := t.TempDir()
	if err := sample.Write(dir, &sample.Options{Category: "part", Size: 64, Train: 1, TestGood: 2, TestDefect: 1}); err != nil {
		t.Fatal(err)
	}
	set, err := dataset.Open(dir+"/part", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{MethodRDPP, MethodRD} {
		config := DefaultConfig()
		config.Arch, config.ImageSize, config.Method = "resnet18", 64, method
		m, err := NewModel(config, torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		cache := dataset.NewCache(dataset.CacheOptions{Size: 64})
		good := slices.IndexFunc(set.Test, func(item dataset.Item) bool { return !item.Defective })
		items := append(slices.Clone(set.Test), set.Test[good])
		c, err := m.compactness(t.Context(), items, cache)
		if err != nil {
			t.Fatal(err)
		}
		zeros := 0
		for _, d := range c.Intra {
			if d == 0 {
				zeros++
			}
		}
		for _, d := range c.Inter {
			if !(d > 0) {
				t.Errorf("%s: got the distance %v between different images", method, d)
			}
		}
		if len(c.Intra) != 3 || len(c.Inter) != 3*4 || zeros != 1 { // three good ones, two of them equal, and four defective
			t.Errorf("%s: got %v and %v, want 3 distances, one of them 0, and 12", method, c.Intra, c.Inter)
		}
		if few, err := m.compactness(t.Context(), set.Train, cache); few != nil || err != nil {
			t.Errorf("%s: one image: got %v, %v, want nothing", method, few, err)
		}
		var embedding []float32
		err = m.read(t.Context(), items[:1], cache, func(_ int, x []float32) (err error) {
			embedding, err = m.embed(x)
			return err
		})
		if err != nil || len(embedding) != 512*2*2 {
			t.Errorf("%s: got %d numbers, %v, want 512 x 2 x 2", method, len(embedding), err)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct{ items, n, want int }{{5, 10, 5}, {10, 10, 10}, {11, 10, 10}, {1000, 3, 3}, {0, 3, 0}} {
		got := spread(fakeItems(c.items), c.n)
		seen := map[string]bool{}
		for _, item := range got {
			seen[item.Path] = true
		}
		if len(got) != c.want || len(seen) != c.want {
			t.Errorf("%d of %d: got %v", c.n, c.items, got)
		}
	}
}

// Scores by maps that other held-out images weighted promise nothing exactly, however many there are.
func TestLeftOutIsNotExact(t *testing.T) {
	for _, leftOut := range []bool{false, true} {
		c := Calibration{LeftOut: leftOut}
		for i := range 200 {
			c.Scores = append(c.Scores, 1+float64(i)/1000)
		}
		got, err := c.At(0.01)
		if err != nil || got.Exact == leftOut || got.LeftOut != leftOut {
			t.Errorf("left out %v: got %+v, %v", leftOut, got, err)
		}
	}
}

// A calibration that a model file may hold either is refused, or judges sensibly.
func FuzzCalibration(f *testing.F) {
	f.Add(`{"threshold":1,"pixel_threshold":1,"false_alarm":0.01,"scores":[0.1,0.2,0.3]}`, 0.5)
	f.Add(`{"threshold":1,"provisional":true,"scores":[0.1]}`, 2.0)
	f.Add(`{"threshold":0,"provisional":true,"scores":null}`, 2.0)
	f.Add(`{"threshold":7,"scores":[]}`, 2.0)
	f.Add(`{"threshold":1,"scores":[0.3,0.1]}`, 0.2)
	f.Fuzz(func(t *testing.T, text string, score float64) {
		const most = 6
		var c Calibration
		if _, err := decode(text, &c, true); err != nil || !(score >= 0 && score <= most) {
			return
		}
		c.complete()
		if c.check(most) != nil {
			return
		}
		c, err := c.Override(nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := Result{Score: score, Map: []float32{float32(score)}, Size: 1, Width: 1, Height: 1}
		if err := r.Judge(&c); err != nil {
			t.Fatal(err)
		}
		_, remade := c.remade()
		if !(r.Threshold >= 0 && (r.Threshold <= most+0.01 || remade)) {
			t.Fatalf("%q judges by the threshold %v: anomalous %v", text, r.Threshold, r.Anomalous)
		}
		if r.PValue != nil && !(*r.PValue > 0 && *r.PValue <= 1) || math.IsNaN(r.Normalised) {
			t.Fatalf("%q: p-value %v", text, *r.PValue)
		}
		if !slices.IsSorted(c.Scores) {
			t.Fatalf("%q: scores %v", text, c.Scores)
		}
	})
}
