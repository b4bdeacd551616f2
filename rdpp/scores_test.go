package rdpp_test

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/method"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/weights"
)

var (
	scoresData   = flag.String("scores-data", "", "compare what an image's score may be on the data sets in `DIR`, by the models of -scores-models")
	scoresModels = flag.String("scores-models", "", "files of RD++'s models that a `PATTERN` matches, each in a folder named like its data set")
)

// way is what an image's score may be. maps are those of the map's terms, as normal says; whole is their sum as the model has it.
type way struct {
	name  string
	score func(whole []float32, terms [][]float32, normal *normal) float64
}

// normal is what the terms' maps of the images are that were held out.
type normal struct {
	mean, deviation []float64 // of all pixels
	top             []float64 // mean of the images' highest hundredth
	topDeviation    []float64
}

func highest(m []float32, share float64) float64 {
	return anomaly.Highest(m, int(share*float64(len(m))))
}

const defaultShare = 0.01

func ways() (all []way) {
	for _, share := range []float64{0, 0.001, 0.003, defaultShare, 0.03, 0.1} {
		name := "the maximum"
		if share > 0 {
			name = fmt.Sprintf("mean of the highest %g %%", 100*share)
		}
		all = append(all, way{name, func(whole []float32, _ [][]float32, _ *normal) float64 { return highest(whole, share) }})
	}
	for _, q := range []float64{0.999, 0.99, 0.97} {
		all = append(all, way{fmt.Sprintf("quantile %g", q), func(whole []float32, _ [][]float32, _ *normal) float64 {
			sorted := slices.Clone(whole)
			slices.Sort(sorted)
			return float64(sorted[int(q*float64(len(sorted)-1))])
		}})
	}
	added := func(name string, share float64, of func(n *normal, t int, v float64) float64) way {
		return way{name, func(_ []float32, terms [][]float32, n *normal) float64 {
			sum := make([]float32, len(terms[0]))
			for t, m := range terms {
				for i, v := range m {
					sum[i] += float32(of(n, t, float64(v)))
				}
			}
			return highest(sum, share)
		}}
	}
	zScore := func(n *normal, t int, v float64) float64 { return (v - n.mean[t]) / n.deviation[t] }
	return append(all,
		added("pixels of scales as deviations, added, the maximum", 0, zScore),
		added("pixels of scales as deviations, added, the highest 1 %", defaultShare, zScore),
		added("scales over their highest 1 % of good images, added, the highest 1 %", defaultShare, func(n *normal, t int, v float64) float64 { return v / n.top[t] }),
		way{"scales' highest 1 % as deviations, added", func(_ []float32, terms [][]float32, n *normal) (sum float64) {
			for t, m := range terms {
				sum += (highest(m, defaultShare) - n.top[t]) / n.topDeviation[t]
			}
			return sum
		}},
		way{"scales' highest 1 % as deviations, the greatest", func(_ []float32, terms [][]float32, n *normal) float64 {
			most := math.Inf(-1)
			for t, m := range terms {
				most = max(most, (highest(m, defaultShare)-n.top[t])/n.topDeviation[t])
			}
			return most
		}})
}

// What an image's score is to be, by what becomes of trained models with other ones: the image AUROC, and how many test images are
// above the threshold that the images give that training held out. It prints what BENCHMARKS.md has. The scores that models are
// normalised by are those that the threshold comes from.
func TestScoreWays(t *testing.T) {
	if *scoresData == "" {
		t.Skip("no -scores-data")
	}
	files, err := filepath.Glob(*scoresModels)
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d models, %v, want some", len(files), err)
	}
	all := ways()
	type outcome struct{ auroc, found float64 }
	outcomes := make([][]outcome, len(all)) // by way, then model
	base := slices.IndexFunc(all, func(w way) bool { return w.name == fmt.Sprintf("mean of the highest %g %%", 100*defaultShare) })
	for _, file := range files {
		category := filepath.Base(filepath.Dir(file))
		m := termsOf(t, file)
		set := openSet(t, filepath.Join(*scoresData, category))
		held := make([]termMaps, 0)
		for _, item := range heldOut(set.Train, &m.info) {
			held = append(held, m.predict(t, item))
		}
		n := normalOf(held)
		scores := make([]struct{ held, good, bad []float64 }, len(all))
		for _, one := range held {
			for w := range all {
				scores[w].held = append(scores[w].held, all[w].score(one.whole, one.terms, n))
			}
		}
		for _, item := range set.Test {
			one := m.predict(t, item)
			for w := range all {
				to := &scores[w].good
				if item.Defective {
					to = &scores[w].bad
				}
				*to = append(*to, all[w].score(one.whole, one.terms, n))
			}
		}
		m.close()
		var again []float64 // as the model scores
		for _, one := range held {
			again = append(again, highest(one.whole, m.info.Config.ScoreTop))
		}
		slices.Sort(again)
		for i, own := range m.info.Calibration.Scores {
			if len(again) != len(m.info.Calibration.Scores) || math.Abs(own-again[i]) > 1e-3*own {
				t.Fatalf("%s: got the scores %v of the images that were held out, the model has %v", file, again, m.info.Calibration.Scores)
			}
		}
		for w, s := range scores {
			slices.Sort(s.held)
			threshold, err := metric.Calibrate(s.held, m.info.Config.FalseAlarm)
			if err != nil {
				t.Fatal(err)
			}
			above := func(scores []float64) (n int) {
				for _, s := range scores {
					if s > threshold.Value {
						n++
					}
				}
				return n
			}
			labels := append(make([]bool, len(s.good)), slices.Repeat([]bool{true}, len(s.bad))...)
			auroc, err := metric.AUROC(append(slices.Clone(s.good), s.bad...), labels)
			if err != nil {
				t.Fatal(err)
			}
			outcomes[w] = append(outcomes[w], outcome{auroc, float64(above(s.bad)) / float64(len(s.bad))})
			t.Logf("%s, seed %d | %s | image AUROC %.4f | found %d of %d, flagged %d of %d", category, m.info.Config.Seed, all[w].name, auroc, above(s.bad),
				len(s.bad), above(s.good), len(s.good))
		}
	}
	for w := range all {
		var auroc, found []float64
		better, worse := 0, 0
		for i, o := range outcomes[w] {
			d := o.auroc - outcomes[base][i].auroc
			auroc, found = append(auroc, d), append(found, o.found-outcomes[base][i].found)
			switch {
			case d > 0:
				better++
			case d < 0:
				worse++
			}
		}
		meanAUROC, errorAUROC := meanOf(auroc)
		meanFound, errorFound := meanOf(found)
		t.Logf("%d models, less the default | %s | image AUROC %+.4f +- %.4f, better %d, worse %d | found %+.3f +- %.3f", len(files), all[w].name, meanAUROC, errorAUROC,
			better, worse, meanFound, errorFound)
	}
}

// meanOf are the mean of values and its standard error, 0 of fewer than two.
func meanOf(values []float64) (mean, deviation float64) {
	mean, deviation = momentsOf(values)
	return mean, deviation / math.Sqrt(float64(len(values)))
}

// momentsOf are the mean and the standard deviation of values, 0 of fewer than two.
func momentsOf(values []float64) (mean, deviation float64) {
	for _, v := range values {
		mean += v / float64(len(values))
	}
	for _, v := range values {
		deviation += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(deviation / float64(max(1, len(values)-1)))
}

// termMaps are the maps of an image.
type termMaps struct {
	whole []float32
	terms [][]float32 // of log(1 + d/level) of each term, blurred
}

// byTerm is a model of which each term of the map is told apart: a map is their sum by the model's weights, as the blur is linear.
type byTerm struct {
	info    modelfile.Info
	weights []float32
	models  []*modelfile.Model
}

func termsOf(t *testing.T, file string) *byTerm {
	t.Helper()
	whole, err := rdpp.LoadModel(file, device(t))
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	stored, err := weights.OpenSafetensors(file)
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	m := &byTerm{info: whole.Info}
	learned := whole.Info.Config.Learned()
	for term, weight := range whole.Info.MapWeights {
		if weight == 0 {
			continue
		}
		facts := whole.Info.Facts
		facts.MapWeights = anomaly.MapTerms{}
		facts.MapWeights[term] = 1
		net, err := learned.New(method.Options{Device: device(t), Blank: true})
		if err == nil {
			err = learned.Load(net, stored, facts)
		}
		if err == nil {
			err = net.Settle()
		}
		if err != nil {
			t.Fatal(err)
		}
		one := *whole
		one.Net = net
		m.models, m.weights = append(m.models, &one), append(m.weights, float32(weight))
	}
	return m
}

func (m *byTerm) close() {
	for _, one := range m.models {
		one.Net.Close()
	}
}

func (m *byTerm) predict(t *testing.T, item dataset.Item) (maps termMaps) {
	t.Helper()
	img, err := imagefile.DecodeFile(item.Path, &imagefile.Options{BitDepth: m.info.Config.BitDepth})
	if err != nil {
		t.Fatal(err)
	}
	for term, one := range m.models {
		view, err := one.View(img, nil)
		if err != nil {
			t.Fatal(err)
		}
		o := one.PredictViews([]modelfile.View{view})[0]
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		maps.terms = append(maps.terms, slices.Clone(o.Map))
		if maps.whole == nil {
			maps.whole = make([]float32, len(o.Map))
		}
		for i, v := range o.Map {
			maps.whole[i] += m.weights[term] * v
		}
	}
	return maps
}

// heldOut are the images that a training held out, as engine has it.
func heldOut(items []dataset.Item, info *modelfile.Info) (held []dataset.Item) {
	order := rand.New(rand.NewPCG(method.SeedOf("calibration", info.Config.Seed), 0)).Perm(len(items))
	for _, at := range order[:info.Data.HeldOut] {
		held = append(held, items[at])
	}
	slices.SortFunc(held, func(a, b dataset.Item) int { return cmp.Compare(a.Path, b.Path) })
	return held
}

func normalOf(held []termMaps) *normal {
	n := &normal{}
	for term := range held[0].terms {
		var sum, squares, count float64
		var tops []float64
		for _, one := range held {
			for _, v := range one.terms[term] {
				sum, squares, count = sum+float64(v), squares+float64(v)*float64(v), count+1
			}
			tops = append(tops, highest(one.terms[term], defaultShare))
		}
		mean := sum / count
		top, deviation := momentsOf(tops)
		n.mean, n.deviation = append(n.mean, mean), append(n.deviation, math.Sqrt(squares/count-mean*mean))
		n.top, n.topDeviation = append(n.top, top), append(n.topDeviation, deviation)
	}
	return n
}
