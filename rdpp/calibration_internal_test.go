package rdpp

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"rdpp/rdpp/dataset"
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
