package evaluation

import (
	"fmt"
	"slices"
	"testing"

	"rdpp/rdpp/config"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/sample"
	"rdpp/torch"
)

func fakeItems(n int) (items []dataset.Item) {
	for i := range n {
		items = append(items, dataset.Item{Path: fmt.Sprintf("%04d.png", i), Type: dataset.GoodType})
	}
	return items
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
	for _, method := range config.Methods()[:2] {
		c := config.Default()
		c.Arch, c.ImageSize, c.Method = "resnet18", 64, method
		m, err := modelfile.New(c, torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := m.Net.Settle(); err != nil {
			t.Fatal(err)
		}
		cache := dataset.NewCache(dataset.CacheOptions{Size: 64})
		good := slices.IndexFunc(set.Test, func(item dataset.Item) bool { return !item.Defective })
		items := append(slices.Clone(set.Test), set.Test[good])
		got, err := compactness(t.Context(), m, items, cache)
		if err != nil {
			t.Fatal(err)
		}
		zeros := 0
		for _, d := range got.Intra {
			if d == 0 {
				zeros++
			}
		}
		for _, d := range got.Inter {
			if !(d > 0) {
				t.Errorf("%s: got the distance %v between different images", method, d)
			}
		}
		if len(got.Intra) != 3 || len(got.Inter) != 3*4 || zeros != 1 { // three good ones, two of them equal, and four defective
			t.Errorf("%s: got %v and %v, want 3 distances, one of them 0, and 12", method, got.Intra, got.Inter)
		}
		if few, err := compactness(t.Context(), m, set.Train, cache); few != nil || err != nil {
			t.Errorf("%s: one image: got %v, %v, want nothing", method, few, err)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct{ items, n, want int }{{5, 10, 5}, {10, 10, 10}, {11, 10, 10}, {1000, 3, 3}, {0, 3, 0}} {
		got := Spread(fakeItems(c.items), c.n)
		seen := map[string]bool{}
		for _, item := range got {
			seen[item.Path] = true
		}
		if len(got) != c.want || len(seen) != c.want {
			t.Errorf("%d of %d: got %v", c.n, c.items, got)
		}
	}
}

func TestEvaluationWarning(t *testing.T) {
	score := func(path string, warnings ...string) ItemScore {
		return ItemScore{Item: dataset.Item{Path: path}, Warnings: warnings}
	}
	for _, c := range []struct {
		scores []ItemScore
		want   string
	}{
		{nil, ""},
		{[]ItemScore{score("a"), score("b")}, ""},
		{[]ItemScore{score("a"), score("b", "dark", "red"), score("c", "blue")}, "2 of 3 images are unlike those of training, first b: dark"},
	} {
		if got := (&Evaluation{Scores: c.scores}).Warning(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
