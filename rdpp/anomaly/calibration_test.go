package anomaly

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/metric"
	"rdpp/rdpp/setting"
)

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

// A rule that promises a rate is the one that rate and scores lead to, in every figure.
func TestRuleThatLies(t *testing.T) {
	for _, n := range []int{12, 200} {
		var scores Scores
		for i := range n {
			scores.Images = append(scores.Images, 1+float64(i)/1000)
		}
		for _, folds := range []int{0, 5} {
			good, err := Calibrate(scores, 0.01, folds, false)
			if err != nil || good.Check(2) != nil {
				t.Fatalf("%d scores, %d folds: got %v, %v", n, folds, err, good.Check(2))
			}
			earlier := good
			earlier.Rule, earlier.Threshold = "some 1 % of good images lie above it, by a log-normal fit of the tail: so many", 1.9
			byHand := good
			byHand.Rule, byHand.FalseAlarm, byHand.Exact, byHand.Threshold = "by hand", 0, false, 1.9
			for name, c := range map[string]Calibration{"of an earlier version": earlier, "by hand": byHand} {
				if err := c.Check(2); err != nil {
					t.Errorf("%s: got %v", name, err)
				}
			}
			for name, damage := range map[string]func(c *Calibration){
				"no rate":             func(c *Calibration) { c.FalseAlarm = 0 },
				"another rate":        func(c *Calibration) { c.FalseAlarm = 0.02 },
				"an image more":       func(c *Calibration) { c.Rule = strings.Replace(c.Rule, fmt.Sprint(n), fmt.Sprint(n+1), 1) },
				"another letter":      func(c *Calibration) { c.Rule = strings.Replace(c.Rule, "images", "imager", 2) },
				"provisional":         func(c *Calibration) { c.Provisional = true },
				"a rate of no rule":   func(c *Calibration) { c.Provisional, c.Rule = true, provisionalRule },
				"another threshold":   func(c *Calibration) { c.Threshold *= 1.01 },
				"not what it is held": func(c *Calibration) { c.Exact = !c.Exact },
			} {
				bad := good
				if damage(&bad); !errors.Is(bad.Check(2), ErrDamaged) {
					t.Errorf("%d scores, %d folds, %s: got %v, want %v", n, folds, name, bad.Check(2), ErrDamaged)
				}
			}
		}
	}
}

// Image scores and maps have a threshold each, by the same rule, also at another rate; a threshold of scores says nothing
// of the map then.
func TestMapsOfTheirOwn(t *testing.T) {
	var scores Scores
	for i := range 200 {
		scores.Images, scores.Maps = append(scores.Images, 1+float64(i)/1000), append(scores.Maps, 10+float64(i)/100)
	}
	for _, c := range []struct{ rate, image, pixel float64 }{{0.01, 1.198, 11.98}, {0.1, 1.18, 11.8}} {
		first, err := Calibrate(scores, 0.05, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		got, err := first.At(c.rate)
		if err != nil || math.Abs(got.Threshold-c.image) > 1e-9 || math.Abs(got.PixelThreshold-c.pixel) > 1e-9 || !got.Exact {
			t.Errorf("rate %v: got %v and %v, %v, want %v and %v", c.rate, got.Threshold, got.PixelThreshold, err, c.image, c.pixel)
		}
		if err := got.Check(math.Inf(1)); err != nil {
			t.Errorf("rate %v: got %v", c.rate, err)
		}
		given, err := got.Override(nil, new(3.0), nil)
		if err != nil || given.Threshold != 3 || given.PixelThreshold != got.PixelThreshold {
			t.Errorf("a given threshold: got %v and %v, %v, want 3 and %v", given.Threshold, given.PixelThreshold, err, got.PixelThreshold)
		}
		for name, damage := range map[string]func(c *Calibration){
			"fewer maps":             func(c *Calibration) { c.MapScores = c.MapScores[1:] },
			"another threshold":      func(c *Calibration) { c.PixelThreshold *= 1.001 },
			"a map that is infinite": func(c *Calibration) { c.MapScores = append(slices.Clone(c.MapScores[:199]), math.Inf(1)) },
			"maps out of order":      func(c *Calibration) { c.MapScores = append(slices.Clone(c.MapScores[:199]), 0) },
		} {
			bad := got
			if damage(&bad); !errors.Is(bad.Check(math.Inf(1)), ErrDamaged) {
				t.Errorf("%s: got %v, want %v", name, bad.Check(math.Inf(1)), ErrDamaged)
			}
		}
	}
	rest := Provisional(scores)
	if rest.Threshold != 1.199 || rest.PixelThreshold != 11.99 {
		t.Errorf("provisional: got %v and %v", rest.Threshold, rest.PixelThreshold)
	}
}

// Joined, the maps of all count where those of some are not their image's score.
func TestJoin(t *testing.T) {
	own, plain := Scores{Images: []float64{1, 4}, Maps: []float64{2, 3}}, Scores{Images: []float64{0, 2}}
	for _, c := range []struct {
		parts  []Scores
		images []float64
		maps   []float64
	}{
		{nil, nil, nil}, {[]Scores{plain}, []float64{0, 2}, nil}, {[]Scores{plain, plain}, []float64{0, 0, 2, 2}, nil},
		{[]Scores{own, plain}, []float64{0, 1, 2, 4}, []float64{0, 2, 2, 3}},
	} {
		if got := Join(c.parts); !slices.Equal(got.Images, c.images) || !slices.Equal(got.Maps, c.maps) {
			t.Errorf("%v: got %v, want %v and %v", c.parts, got, c.images, c.maps)
		}
	}
}

func TestNormalise(t *testing.T) {
	for _, c := range []struct{ score, threshold, want float64 }{
		{1, 1, 0.5}, {3, 1, 0.75}, {0, 1, 0}, {-1, 1, 0}, {1, 0, 1}, {0, 0, 0.5}, {1, -1, 1},
	} {
		if got := Normalise(c.score, c.threshold); got != c.want {
			t.Errorf("%v of %v: got %v, want %v", c.score, c.threshold, got, c.want)
		}
	}
}

// Losses travel as one object, in their order.
func TestLossesJSON(t *testing.T) {
	losses := Losses{{LossTotal, 1.5}, {"kd", 1}, {"a b", -2}}
	text, err := json.Marshal(losses)
	if want := `{"total":1.5,"kd":1,"a b":-2}`; err != nil || string(text) != want {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
	var back Losses
	if err := json.Unmarshal(text, &back); err != nil || !slices.Equal(back, losses) {
		t.Errorf("got %v, %v, want %v", back, err, losses)
	}
	for _, text := range []string{`{}`, `null`} {
		if err := json.Unmarshal([]byte(text), &back); err != nil || len(back) != 0 {
			t.Errorf("%s: got %v, %v", text, back, err)
		}
	}
	for _, text := range []string{`[1]`, `{"a":"b"}`, `3`, `{"a":{}}`} {
		if err := json.Unmarshal([]byte(text), &back); err == nil {
			t.Errorf("%s: got no error", text)
		}
	}
	if _, err := json.Marshal(Losses{{"kd", math.NaN()}}); err == nil || !strings.Contains(err.Error(), "kd") {
		t.Errorf("no number: got %v", err)
	}
	if got := losses.Plus(losses, 2); !slices.Equal(got, Losses{{LossTotal, 4.5}, {"kd", 3}, {"a b", -6}}) {
		t.Errorf("three times: got %v", got)
	}
	if got := Losses(nil).Plus(losses, 1); !slices.Equal(got, losses) {
		t.Errorf("from nothing: got %v", got)
	}
	if got := losses.Get("kd"); got != 1 || losses.Get("ssot") != 0 || !losses.Finite() || (Losses{{"kd", math.Inf(1)}}).Finite() {
		t.Errorf("got %v", got)
	}
}

// A calibration that a model file may hold either is refused, or judges sensibly.
// What is outlined follows the verdict, but levels that are given are followed as they are.
func TestOutline(t *testing.T) {
	own := Calibration{Threshold: 2, PixelThreshold: 4, Scores: []float64{1, 1.1, 1.2}, MapScores: []float64{2.5, 3, 3.5}}
	old := Calibration{Threshold: 2, PixelThreshold: 2}
	provisional := Calibration{Threshold: 2, PixelThreshold: 2, Provisional: true, Scores: []float64{1, 1.5, 2}}
	const blur = 9.0
	none := math.Inf(1)
	for _, c := range []struct {
		name    string
		c       Calibration
		score   float64
		pixels  *float64
		regions RegionOptions
		want    metric.Outline
	}{
		{"good", own, 1.5, nil, RegionOptions{}, metric.Outline{Above: none, Low: 3, Share: 0.5, Blur: blur}},
		{"anomalous", own, 5, nil, RegionOptions{}, metric.Outline{Above: 4, Low: 3, Share: 0.5, Blur: blur}},
		{"a score below the threshold of pixels", own, 3.2, nil, RegionOptions{}, metric.Outline{Above: 3.2, Low: 3, Share: 0.5, Blur: blur}},
		{"no scores", old, 5, nil, RegionOptions{}, metric.Outline{Above: 2, Low: 2, Share: 0.5, Blur: blur}},
		{"scores of training images", provisional, 5, nil, RegionOptions{}, metric.Outline{Above: 2, Low: 2, Share: 0.5, Blur: blur}},
		{"given pixels, good", own, 1.5, new(3.7), RegionOptions{}, metric.Outline{Above: 3.7, Low: 3.7}},
		{"given pixels, anomalous", own, 5, new(7.0), RegionOptions{}, metric.Outline{Above: 7, Low: 7}},
		{"given low", own, 5, nil, RegionOptions{Low: new(1.0), MinArea: 7, MinLength: 8}, metric.Outline{Above: 4, Low: 1, MinArea: 7, MinLength: 8}},
		{"given both", own, 1.5, new(3.7), RegionOptions{Low: new(1.0)}, metric.Outline{Above: 3.7, Low: 1}},
	} {
		given, err := c.c.Override(nil, nil, c.pixels)
		if err == nil {
			given, err = given.Choose(c.regions)
		}
		if got := given.Outline(given.Judge(c.score), blur); err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
	for _, o := range []RegionOptions{{Low: new(-1.0)}, {Low: new(math.NaN())}, {Low: new(none)}, {MinArea: -1}, {MinLength: -1}} {
		if _, err := own.Choose(o); !errors.Is(err, setting.ErrValue) {
			t.Errorf("%+v: got %v, want %v", o, err, setting.ErrValue)
		}
	}
}

// A p-value is a bound where no calibration score is as high.
func TestPValueBound(t *testing.T) {
	own := Calibration{Threshold: 2, Scores: []float64{1, 2, 3}}
	for _, c := range []struct {
		score float64
		p     float64
		bound bool
	}{{0.5, 1, false}, {2.5, 0.5, false}, {3, 0.5, false}, {3.1, 0.25, true}} {
		if v := own.Judge(c.score); v.PValue == nil || *v.PValue != c.p || v.PValueBound != c.bound {
			t.Errorf("score %v: got %+v, want %v, bound %v", c.score, v, c.p, c.bound)
		}
	}
	if v := (&Calibration{Threshold: 2}).Judge(5); v.PValue != nil || v.PValueBound {
		t.Errorf("not calibrated: got %+v", v)
	}
}

func FuzzCalibration(f *testing.F) {
	f.Add(`{"threshold":1,"pixel_threshold":1,"false_alarm":0.01,"scores":[0.1,0.2,0.3]}`, 0.5)
	f.Add(`{"threshold":1,"provisional":true,"scores":[0.1]}`, 2.0)
	f.Add(`{"threshold":0,"provisional":true,"scores":null}`, 2.0)
	f.Add(`{"threshold":7,"scores":[]}`, 2.0)
	f.Add(`{"threshold":1,"scores":[0.3,0.1]}`, 0.2)
	f.Add(`{"threshold":1,"pixel_threshold":2,"false_alarm":0.01,"scores":[0.1,0.2],"map_scores":[0.3,0.4]}`, 0.2)
	f.Fuzz(func(t *testing.T, text string, score float64) {
		const most = 6
		var c Calibration
		if err := json.Unmarshal([]byte(text), &c); err != nil || !(score >= 0 && score <= most) {
			return
		}
		c.Complete()
		if c.Check(most) != nil {
			return
		}
		c, err := c.Override(nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := c.Judge(score)
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
