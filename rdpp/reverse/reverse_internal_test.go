package reverse

import (
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/method"
	"rdpp/rdpp/sample"
	"rdpp/rdpp/teacher"
	"rdpp/torch"
)

// part makes networks for painted images of a side, and these as a learner sees them.
func part(t *testing.T, size, train int) (*Networks, method.Images) {
	t.Helper()
	return partOf(t, size, train, framing.View{})
}

// partOf is part of images of which a view is looked at.
func partOf(t *testing.T, size, train int, view framing.View) (*Networks, method.Images) {
	t.Helper()
	framer, err := framing.New(view, size)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := sample.Write(dir, &sample.Options{Category: "part", Size: size, Train: train, TestGood: 1, TestDefect: 1}); err != nil {
		t.Fatal(err)
	}
	set, err := dataset.Open(filepath.Join(dir, "part"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := method.Settings{Arch: "resnet18", Method: RDPP, ImageSize: size, Mean: dataset.ImageNet.Mean, Std: dataset.ImageNet.Std, MapSigma: 4, Batch: 2}
	n, err := (&reversed{Settings: s, Distillation: DefaultDistillation()}).networks(method.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	cache := dataset.NewCache(dataset.CacheOptions{Size: size, Framer: framer})
	return n, func(_ context.Context, _ int, visit func(x *torch.Tensor, frame *framing.Frame) error) error {
		for _, item := range set.Train {
			values := make([]float32, 3*size*size)
			frame, err := cache.Framed(values, item)
			if err != nil {
				return err
			}
			norm := s.Norm()
			norm.Apply(values, values, size)
			x, err := torch.FromSlice(values, 1, 3, int64(size), int64(size))
			if err != nil {
				return err
			}
			err = visit(x, frame)
			x.Close()
			if err != nil {
				return err
			}
		}
		return nil
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
		settings := Distillation{Average: c.share}
		if got := settings.averageWeight(c.update, c.updates); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("over %v, update %d of %d: got %v, want %v", c.share, c.update, c.updates, got, c.want)
		}
	}
}

func TestRateFactor(t *testing.T) {
	for _, c := range []struct {
		schedule        string
		update, updates int
		want            float64
	}{
		{ScheduleConstant, 0, 100, 1}, {ScheduleConstant, 99, 100, 1},
		{ScheduleCosine, 0, 100, 0.2}, {ScheduleCosine, 4, 100, 1}, // five updates up
		{ScheduleCosine, 5, 100, 1 - 0.999*(1-math.Cos(math.Pi/95))/2},
		{ScheduleCosine, 99, 100, 0.001},
		{ScheduleCosine, 50, 101, 1 - 0.999*(1-math.Cos(math.Pi*45/95))/2}, // six up, 95 down
		{ScheduleCosine, 0, 1, 1},                                          // too few for either way
		{ScheduleCosine, 0, 2, 1}, {ScheduleCosine, 1, 2, 0.001},
	} {
		settings := Distillation{Schedule: c.schedule}
		if got := settings.rateFactor(c.update, c.updates); math.Abs(got-c.want) > 1e-12 { // rounding
			t.Errorf("%s, update %d of %d: got %v, want %v", c.schedule, c.update, c.updates, got, c.want)
		}
	}
}

// Over the images that it was equalised by, every channel of the teacher deviates alike, but for those that hardly moved;
// and each is what it was times a factor.
func TestEqualiseTeacher(t *testing.T) {
	n, images := part(t, 64, 4)
	if _, err := teacher.Load(n.Teacher, "resnet18", teacher.Builtin); err != nil {
		t.Fatal(err)
	}
	measure := func() (deviations [torch.Scales][]float64, features [torch.Scales][]float32) {
		var moments teacher.Moments
		err := images(t.Context(), 0, func(input *torch.Tensor, _ *framing.Frame) error {
			var s torch.Scope
			defer s.Close()
			f := s.Features(n.Teacher.Forward(input))
			if err := s.Err(); err != nil {
				return err
			}
			for k := range f {
				var err error
				if features[k], err = torch.Read[float32](f[k]); err != nil {
					return err
				}
			}
			return moments.Add(n.Teacher, input)
		})
		if err != nil {
			t.Fatal(err)
		}
		return moments.Deviations(), features
	}
	before, old := measure()
	learner, err := n.c.Learner(n, method.LearnerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer learner.Close()
	if err := learner.Begin(t.Context(), images); err != nil {
		t.Fatal(err)
	}
	after, now := measure()
	for k := range after {
		median := slices.Sorted(slices.Values(before[k]))[len(before[k])/2]
		alike := -1.0
		for c, d := range after[k] {
			if before[k][c] < trainingFloor*median {
				continue
			}
			if alike < 0 {
				alike = d
			}
			if math.Abs(d-alike) > 1e-3*alike { // float32 through up to 13 layers
				t.Errorf("layer%d, channel %d: deviates by %v, others by %v", k+1, c, d, alike)
			}
		}
		area := len(now[k]) / len(after[k])
		for i := range now[k] {
			factor := after[k][i/area] / before[k][i/area]
			if want := float64(old[k][i]) * factor; math.Abs(float64(now[k][i])-want) > 1e-3*alike {
				t.Fatalf("layer%d, value %d: got %v, want %v", k+1, i, now[k][i], want)
			}
		}
	}
}

// Levels are the terms' mean distances over what counts of training images.
func TestBalance(t *testing.T) {
	half := &imagefile.Mask{W: 32, H: 32, Pix: slices.Concat(make([]uint8, 512), slices.Repeat([]uint8{1}, 512))}
	ignored, err := framing.Draw(half)
	if err != nil {
		t.Fatal(err)
	}
	for _, view := range []framing.View{{}, {Ignore: ignored}} {
		testBalance(t, view)
	}
}

func testBalance(t *testing.T, view framing.View) {
	n, images := partOf(t, 32, 5, view)
	if err := n.Settle(); err != nil {
		t.Fatal(err)
	}
	if err := n.balance(t.Context(), images); err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, w := range n.facts.MapWeights {
		total += w
	}
	if n.facts.MapWeights != balancedShares || math.Abs(total-1) > 1e-12 {
		t.Errorf("got the weights %v, whose sum is %v, want %v", n.facts.MapWeights, total, balancedShares)
	}

	// The mean of a term's own map, unsmoothed, is its level.
	levels := n.facts.MapLevels
	for i, share := range balancedShares {
		sum, count := 0.0, 0
		err := images(t.Context(), 0, func(x *torch.Tensor, frame *framing.Frame) error {
			var s torch.Scope
			defer s.Close()
			f, g, _ := n.features(&s, x)
			only := torch.MapOptions{Sigma: 1}
			only.Weights[i] = 1
			raw, _ := s.Pair(torch.AnomalyMap(f, g, 32, only))
			if err := s.Err(); err != nil {
				return err
			}
			values, err := torch.Read[float32](raw)
			for p, v := range values {
				if frame.Counts(p) {
					sum, count = sum+float64(v), count+1
				}
			}
			return err
		})
		want := sum / float64(count)
		if share == 0 {
			want = 0
		}
		if err != nil || math.Abs(levels[i]-want) > 1e-9 || share > 0 && want == 0 {
			t.Errorf("term %d: got the level %v, %v, want %v", i+1, levels[i], err, want)
		}
	}

	n.c.Score = ScoreReleased
	if err := n.balance(t.Context(), images); err != nil || n.mapOptions() != (torch.MapOptions{Sigma: n.c.MapSigma}) {
		t.Errorf("released: got %+v, %v", n.mapOptions(), err)
	}
}

// The student's input has 512 channels at a 32nd of the image's side, with and without a projection.
func TestEmbed(t *testing.T) {
	for _, name := range []string{RDPP, RD} {
		n, images := part(t, 64, 1)
		n.c.Method = name
		if err := n.Settle(); err != nil {
			t.Fatal(err)
		}
		err := images(t.Context(), 0, func(x *torch.Tensor, _ *framing.Frame) error {
			z, err := n.Embed(x)
			if err != nil {
				return err
			}
			defer z.Close()
			shape, err := z.Shape()
			if want := []int64{1, 512, 2, 2}; !slices.Equal(shape, want) {
				t.Errorf("%s: got %v, want %v", name, shape, want)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A level is a distance, and a file that says otherwise would call every part good.
func TestMostScore(t *testing.T) {
	c := reversed{Distillation: DefaultDistillation()}
	shares := anomaly.MapTerms{0.25, 0.25, 0.5}
	for name, x := range map[string]struct {
		facts anomaly.Facts
		want  float64 // 0: refused
	}{
		"plain sum":         {anomaly.Facts{}, 6},
		"levels":            {anomaly.Facts{MapWeights: shares, MapLevels: anomaly.MapTerms{0.1, 0.2, 2}}, 0.25*math.Log(21) + 0.25*math.Log(11) + 0.5*math.Log(2)},
		"a level above all": {anomaly.Facts{MapWeights: shares, MapLevels: anomaly.MapTerms{0.1, 0.2, 2.1}}, 0},
		"a level below 0":   {anomaly.Facts{MapWeights: shares, MapLevels: anomaly.MapTerms{0.1, 0.2, -0.1}}, 0},
		"a level of errors": {anomaly.Facts{MapWeights: shares, MapLevels: anomaly.MapTerms{0.1, 0.2, 1e-300}}, 0},
		"a weight below 0":  {anomaly.Facts{MapWeights: anomaly.MapTerms{-1, 2}, MapLevels: anomaly.MapTerms{0.1, 0.2}}, 0},
		"levels alone":      {anomaly.Facts{MapLevels: anomaly.MapTerms{0.1, 0.2, 0.1}}, 0},
		"weights alone":     {anomaly.Facts{MapWeights: shares}, 0},
	} {
		got, err := c.MostScore(x.facts)
		if (err == nil) != (x.want > 0) || math.Abs(got-x.want) > 1e-12 {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, x.want)
		}
	}
}

// A score is the mean of the map's highest pixels, to the bit what a sort of the map gives, for any share.
func TestScoreOfHighest(t *testing.T) {
	const size, B = 96, 3
	rng := rand.New(rand.NewPCG(4, 2))
	images := make([]float32, B*3*size*size)
	for i := range images[:2*3*size*size] { // the last one is black: its map has few values
		images[i] = float32(rng.NormFloat64())
	}
	for _, share := range []float64{0, 0.0001, 0.0003, 0.01, 0.1, 0.5} {
		s := method.Settings{Arch: "resnet18", Method: RDPP, ImageSize: size, Mean: dataset.ImageNet.Mean, Std: dataset.ImageNet.Std, MapSigma: 4, Batch: 2}
		settings := DefaultDistillation()
		settings.ScoreTop = share
		n, err := (&reversed{Settings: s, Distillation: settings}).networks(method.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if err := n.Settle(); err != nil {
			t.Fatal(err)
		}
		predict := func() (maps, scores []float32) {
			x, err := torch.FromSlice(images, B, 3, size, size)
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			m, s, err := n.Predict(x)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			defer s.Close()
			if maps, err = torch.Read[float32](m); err == nil {
				scores, err = torch.Read[float32](s)
			}
			if err != nil {
				t.Fatal(err)
			}
			return maps, scores
		}
		maps, scores := predict()
		for b, got := range scores {
			falling := slices.Clone(maps[b*size*size:][:size*size])
			slices.SortFunc(falling, func(a, b float32) int { return cmp.Compare(b, a) })
			n, sum := max(1, int(share*size*size)), 0.0
			for _, v := range falling[:n] {
				sum += float64(v)
			}
			if want := float32(sum / float64(n)); got != want {
				t.Errorf("share %v, image %d: got %v, want %v, the mean of %d of %d", share, b, got, want, n, len(falling))
			}
		}
	}
}
