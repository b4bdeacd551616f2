package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/config"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
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
		settings := config.Config{Settings: method.Settings{Calibration: c.share, Seed: 1}}
		kept, held, folds := holdOut(items, &settings)
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
		again, _, _ := holdOut(items, &settings)
		if !slices.Equal(kept, again) {
			t.Errorf("%d images: the same seed holds out others", c.n)
		}
	}
	one, two := config.Default(), config.Default()
	two.Seed++
	_, a, _ := holdOut(fakeItems(200), &one)
	_, b, _ := holdOut(fakeItems(200), &two)
	if slices.Equal(a, b) {
		t.Error("two seeds hold out the same images")
	}
}

func TestSameConfig(t *testing.T) {
	before := config.Default()
	if err := SameConfig(before, before); err != nil {
		t.Errorf("the same: got %v", err)
	}
	before.Seed = 1 << 53 // a float64 holds it, and not the next one
	now := before
	now.Seed++
	if err := SameConfig(before, now); !errors.Is(err, setting.ErrValue) || !strings.Contains(err.Error(), "seed is 9007199254740993; the run that resume continues has 9007199254740992") {
		t.Errorf("another seed: got %v", err)
	}
}

// The members of metrics.json have the names and the order that programs read.
func TestSummaryJSON(t *testing.T) {
	c := anomaly.Calibration{Rule: "given", Threshold: 0.25}
	v := c.Verdicts()
	for _, image := range []struct {
		score     float64
		defective bool
	}{{0.3, false}, {0.25, false}, {0.2, false}, {0.4, true}, {0.5, true}, {0.1, true}} {
		v.Count(image.score, image.defective)
	}
	v.FalseAlarms = &[2]float64{0, 0.5}
	text, err := json.Marshal(Summary{HasMasks: true, Verdicts: v, Provisional: true, CalibrationImages: 3})
	if err != nil {
		t.Fatal(err)
	}
	const want = `"good":0,"defective":0,"has_masks":true,"good_flagged":1,"defective_found":2,"false_alarm_interval":[0,0.5],"threshold":0.25,` +
		`"threshold_rule":"given","threshold_provisional":true,"calibration_images":3,"losses":{},`
	if !strings.Contains(string(text), want) {
		t.Errorf("got %s, want %s in it", text, want)
	}
}
