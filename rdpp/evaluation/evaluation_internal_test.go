package evaluation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/config"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/method"
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
		{[]ItemScore{score("a"), {Item: dataset.Item{Path: "b"}, Notes: []string{"scaled"}}, score("c", "blue")},
			"1 of 3 images are unlike those of training, first c: blue; masks of 1 of 3 images are of another size than these, first b: scaled"},
	} {
		if got := (&Evaluation{Scores: c.scores}).Warning(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// countingNet has 0 for every map and score, and counts what goes through it.
type countingNet struct {
	method.Net
	batches []int
}

func (n *countingNet) Predict(x *torch.Tensor) (maps, scores *torch.Tensor, err error) {
	values, err := torch.Read[float32](x)
	if err != nil {
		return nil, nil, err
	}
	images := len(values) / (3 * 32 * 32)
	n.batches = append(n.batches, images)
	if maps, err = torch.FromSlice(make([]float32, images*32*32), int64(images), 32, 32); err == nil {
		scores, err = torch.FromSlice(make([]float32, images), int64(images))
	}
	return maps, scores, err
}

// Items are handed over in their order, whole batches of them, up to the first that fails, be it in a batch with others,
// unreadable, or before one that is.
func TestScan(t *testing.T) {
	dir := t.TempDir()
	if err := sample.Write(dir, &sample.Options{Category: "part", Size: 32, Train: 8, TestGood: 1, TestDefect: 1}); err != nil {
		t.Fatal(err)
	}
	set, err := dataset.Open(dir+"/part", nil)
	if err != nil {
		t.Fatal(err)
	}
	const never = 100
	odd := errors.New("odd")
	for _, c := range []struct {
		name              string
		batch             int
		fails, unreadable int // items
		panics            int
		handed            int // items before the end
		want              string
		batches           []int // nil: as it comes
	}{
		{"one by one", 1, never, never, never, 8, "", []int{1, 1, 1, 1, 1, 1, 1, 1}},
		{"batches", 3, never, never, never, 8, "", []int{3, 3, 2}},
		{"one batch", 50, never, never, never, 8, "", []int{8}},
		{"fails", 3, 4, never, never, 4, "evaluation: " + set.Train[4].Path + ": odd", nil},
		{"unreadable", 3, never, 5, never, 5, "evaluation: dataset: reading image: ", []int{3, 2}},
		{"fails before an unreadable one", 8, 2, 5, never, 2, "evaluation: " + set.Train[2].Path + ": odd", []int{5}},
		{"panics", 3, never, never, 1, 1, "a bug", nil},
	} {
		items := slices.Clone(set.Train)
		if c.unreadable != never {
			items[c.unreadable].Path += ".missing"
		}
		net := &countingNet{}
		m := &modelfile.Model{Net: net, Batch: c.batch}
		m.Info.Config = config.Default()
		m.Info.Config.ImageSize = 32
		handed := 0
		err := func() (err error) {
			defer func() {
				if r := recover(); r != nil {
					err = fmt.Errorf("%v", r)
				}
			}()
			return scan(t.Context(), m, items, dataset.NewCache(dataset.CacheOptions{Size: 32}), func(i int, o modelfile.Outcome) error {
				switch {
				case i == c.fails:
					return odd
				case i == c.panics:
					panic("a bug")
				case i != handed || len(o.Map) != 32*32:
					t.Errorf("%s: got item %d with %d pixels, want %d with %d", c.name, i, len(o.Map), handed, 32*32)
				}
				handed++
				return nil
			})
		}()
		if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) || handed != c.handed {
			t.Errorf("%s: got %d items and error %v, want %d and %q", c.name, handed, err, c.handed, c.want)
		}
		if c.batches != nil && !slices.Equal(net.batches, c.batches) {
			t.Errorf("%s: got batches %v, want %v", c.name, net.batches, c.batches)
		}
	}
}

// An interrupted scan ends with the context's error.
func TestScanInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := &modelfile.Model{Net: &countingNet{}}
	m.Info.Config = config.Default()
	err := scan(ctx, m, fakeItems(3), dataset.NewCache(dataset.CacheOptions{}), func(int, modelfile.Outcome) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}
