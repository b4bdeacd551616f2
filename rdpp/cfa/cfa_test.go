package cfa_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/cfa"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/method"
	"rdpp/rdpp/method/methodtest"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// few has descriptors of few dimensions and a small bank.
func few() cfa.Spheres {
	f := cfa.DefaultSpheres()
	f.SphereWidth, f.SphereRows = 16, 3
	return f
}

// The distances of good pictures from the bank fall, and one with a square is farther than they are.
func TestLearns(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(*cfa.Spheres)
	}{
		{"few", func(*cfa.Spheres) {}}, {"the radius stays", func(f *cfa.Spheres) { f.SphereLearn = false }},
		{"none repel", func(f *cfa.Spheres) { f.SphereFar = 0 }}, {"a single row", func(f *cfa.Spheres) { f.SphereNear, f.SphereFar = 1, 1 }},
		{"as published", func(f *cfa.Spheres) { *f = cfa.ReleasedSpheres() }},
	} {
		f := few()
		c.change(&f)
		m := cfa.New(methodtest.Settings(cfa.Name), f)
		l := methodtest.Begun(t, m)
		losses := methodtest.Learn(t, l, 0, 60)
		if first, last := losses[0], losses[len(losses)-1]; !(last < 0.8*first) {
			t.Errorf("%s: got a loss of %v at first and %v in the end, want four fifths of it or less", c.what, first, last)
		}
		net := methodtest.Finish(t, l)
		maps, good := methodtest.Predict(t, net, 0, methodtest.Known)
		_, bad := methodtest.Predict(t, net, methodtest.Odd, 1)
		if !(bad[0] > slices.Max(good)) || !(slices.Min(maps) >= 0) {
			t.Errorf("%s: got scores of up to %v for good pictures and of %v for one with a square, want that to be above", c.what, slices.Max(good), bad[0])
		}
		if highest := slices.Max(maps[:methodtest.Side*methodtest.Side]); highest != good[0] {
			t.Errorf("%s: got a score of %v, want the map's maximum, %v", c.what, good[0], highest)
		}
	}
}

// tensor is one of a net's.
func tensor(t testing.TB, net method.Net, name string) (values []float32, shape []int) {
	t.Helper()
	file := methodtest.Write(t, net.State())
	stored, found := file.Lookup(name)
	if !found {
		t.Fatalf("got no tensor %s", name)
	}
	read, err := stored.Read()
	if err != nil {
		t.Fatal(err)
	}
	return read.Float32(), stored.Shape
}

// The bank has the means of the images' fresh descriptors at every position, whatever has been learned since, and what learns on
// keeps it.
func TestBank(t *testing.T) {
	f := few()
	f.SphereRows = 1
	m := cfa.New(methodtest.Settings(cfa.Name), f)
	net := methodtest.New(t, m)
	l := methodtest.Learner(t, m, net)
	if err := l.Begin(t.Context(), methodtest.Images(t, 0, 3)); err != nil {
		t.Fatal(err)
	}
	bank, shape := tensor(t, net, "descriptor.centres")
	if want := []int{methodtest.Side * methodtest.Side / 16, 448 / 16}; !slices.Equal(shape, want) {
		t.Fatalf("got a bank of %v, want %v", shape, want)
	}
	// Of a single image the bank is its descriptors, so that none of them is apart from it.
	one := methodtest.New(t, m)
	alone := methodtest.Learner(t, m, one)
	if err := alone.Begin(t.Context(), methodtest.Images(t, 0, 1)); err != nil {
		t.Fatal(err)
	}
	if maps, scores := methodtest.Predict(t, one, 0, 1); !(scores[0] < 1e-5) || slices.Min(maps) < 0 { // of rounding
		t.Errorf("got a score of %v for the image that the bank is of, want none", scores[0])
	}
	first, _ := tensor(t, one, "descriptor.centres")
	var sum []float64
	for i := range 3 {
		other := methodtest.New(t, m)
		l := methodtest.Learner(t, m, other)
		if err := l.Begin(t.Context(), methodtest.Images(t, i, 1)); err != nil {
			t.Fatal(err)
		}
		of, _ := tensor(t, other, "descriptor.centres")
		if sum == nil {
			sum = make([]float64, len(of))
		}
		for j, v := range of {
			sum[j] += float64(v)
		}
	}
	for j, v := range bank {
		if want := sum[j] / 3; !(math.Abs(float64(v)-want) <= 1e-6*max(1, math.Abs(want))) { // of float32
			t.Fatalf("number %d of the bank: got %v, want the mean, %v", j, v, want)
		}
	}
	if slices.Equal(first, bank) {
		t.Error("got the bank of one image for three")
	}
	methodtest.Learn(t, l, 0, 3)
	on, err := m.Learner(net, method.LearnerOptions{Precision: torch.FP32, Continued: true})
	if err != nil {
		t.Fatal(err)
	}
	defer on.Close()
	if err := on.Begin(t.Context(), methodtest.Images(t, 0, 1)); err != nil {
		t.Fatal(err)
	}
	if after, _ := tensor(t, net, "descriptor.centres"); !slices.Equal(after, bank) {
		t.Error("got another bank once it had learned, and went on to")
	}
}

// A bank with fewer rows has the means of clusters, each of what is nearest to it.
func TestClusters(t *testing.T) {
	const N, D, count = 300, 5, 4
	points := make([]float32, 0, N*D)
	for i := range N {
		for j := range D {
			points = append(points, float32(methodtest.Number("cluster", i%count*D+j)*10+methodtest.Number("point", i*D+j)))
		}
	}
	for seed := range uint64(3) {
		var s torch.Scope
		defer s.Close()
		centres := s.Tensor(torch.KMeans(t.Context(), s.Tensor(torch.FromSlice(points, N, D)), count, 100, seed))
		again := s.Tensor(torch.KMeans(t.Context(), s.Tensor(torch.FromSlice(points, N, D)), count, 100, seed))
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		got, err := torch.Read[float32](centres)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := torch.Read[float32](again); err != nil || !slices.Equal(got, second) {
			t.Errorf("seed %d: got other centres the second time, error %v", seed, err)
		}
		members, sums := make([]int, count), make([]float64, count*D)
		for i := range N {
			nearest, least := 0, math.Inf(1)
			for c := range count {
				d := 0.0
				for j := range D {
					d += math.Pow(float64(points[i*D+j]-got[c*D+j]), 2)
				}
				if d < least {
					nearest, least = c, d
				}
			}
			members[nearest]++
			for j := range D {
				sums[nearest*D+j] += float64(points[i*D+j])
			}
		}
		for c, n := range members {
			for j := range D {
				if want := sums[c*D+j] / float64(n); !(math.Abs(float64(got[c*D+j])-want) < 1e-5*10) { // float32s of 10
					t.Errorf("seed %d, centre %d of %d points: got %v, want their mean, %v", seed, c, n, got[c*D+j], want)
				}
			}
		}
	}
	var s torch.Scope
	defer s.Close()
	x := s.Tensor(torch.FromSlice(points, N, D))
	for _, count := range []int{0, N + 1} {
		if _, err := torch.KMeans(t.Context(), x, count, 1, 1); !errors.Is(err, torch.ErrArgument) {
			t.Errorf("%d clusters: got error %v, want %v", count, err, torch.ErrArgument)
		}
	}
	all, err := torch.KMeans(t.Context(), s.Tensor(torch.FromSlice(make([]float32, 6), 3, 2)), 3, 9, 1) // points that are all one
	if err != nil {
		t.Fatal(err)
	}
	all.Close()
}

// lasting is a context that is done once it was asked so many times whether it is.
type lasting struct {
	context.Context
	asked, most int
}

func (l *lasting) Err() error {
	if l.asked++; l.asked > l.most {
		return context.Canceled
	}
	return nil
}

// Clusters are looked for in small steps, between any of which the search can end.
func TestClustersStop(t *testing.T) {
	const N, D, count = 3000, 3, 2000 // so that points are compared in several parts
	var s torch.Scope
	defer s.Close()
	points := make([]float32, N*D)
	for i := range points {
		points[i] = float32(methodtest.Number("point", i))
	}
	x := s.Tensor(torch.FromSlice(points, N, D))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	for _, most := range []int{0, 1, count - 1, count + 1} {
		ctx := &lasting{Context: t.Context(), most: most}
		centres, err := torch.KMeans(ctx, x, count, 1, 1)
		centres.Close()
		if !errors.Is(err, context.Canceled) || ctx.asked != most+1 {
			t.Errorf("%d steps: got error %v after %d, want %v after %d", most, err, ctx.asked, context.Canceled, most+1)
		}
	}
	f := few()
	m := cfa.New(methodtest.Settings(cfa.Name), f)
	l := methodtest.Learner(t, m, methodtest.New(t, m))
	if err := l.Begin(&lasting{Context: t.Context(), most: 3}, methodtest.Images(t, 0, methodtest.Known)); !errors.Is(err, context.Canceled) {
		t.Errorf("a learner: got error %v, want %v", err, context.Canceled)
	}
}

// By the nearest row alone a place's value is its distance, which by the softmin is a share of that.
func TestScore(t *testing.T) {
	net := methodtest.Trained(t, cfa.New(methodtest.Settings(cfa.Name), few()))
	judge := func(change func(*cfa.Spheres)) []float32 {
		f := few()
		change(&f)
		maps, _ := methodtest.Predict(t, methodtest.Loaded(t, cfa.New(methodtest.Settings(cfa.Name), f), net), methodtest.Odd, 1)
		return maps
	}
	softmin := judge(func(f *cfa.Spheres) { f.SphereScore = cfa.ScoreSoftmin })
	nearest := judge(func(f *cfa.Spheres) { f.SphereScore = cfa.ScoreNearest })
	if one := judge(func(f *cfa.Spheres) { f.SphereScore, f.SphereNear = cfa.ScoreSoftmin, 1 }); !slices.Equal(nearest, one) {
		t.Error("got another map by the nearest row than by the softmin over one")
	}
	for i, v := range nearest {
		if share := softmin[i] / v; !(share >= 0.32 && share < 1) { // a third where three are as near
			t.Fatalf("place %d: got %v by the softmin over three and %v by the nearest, want a third of that or more", i, softmin[i], v)
		}
	}
}

// Rows that are far from zero are told apart like those near it.
func TestFarFromZero(t *testing.T) {
	const M, D, H, W = 50, 20, 9, 7
	descriptor, err := torch.NewDescriptor(torch.ModuleOptions{Arch: "resnet18"}, torch.DescriptorOptions{Dimensions: D, Rows: M})
	if err != nil {
		t.Fatal(err)
	}
	defer descriptor.Close()
	values := func(name string, n int) (all []float32) { // which float32 holds exactly beside 2048
		for i := range n {
			all = append(all, float32(2048+math.Round(256*methodtest.Number(name, i))/256))
		}
		return all
	}
	bank, positions := values("centres", M*D), values("phi", H*W*D)
	var s torch.Scope
	defer s.Close()
	for _, e := range descriptor.State() {
		if e.Name == "centres" {
			s.Check(torch.Write(e.Tensor, bank))
		}
	}
	phi := s.Tensor(torch.FromSlice(positions, 1, H, W, D))
	attraction, _ := s.Pair(descriptor.Loss(phi, torch.SphereOptions{Near: 1, Nu: 1, Bytes: bytesAtATime}))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	got, err := torch.Scalars(attraction)
	if err != nil {
		t.Fatal(err)
	}
	want := 0.0
	for p := range H * W {
		least := math.Inf(1)
		for m := range M {
			d := 0.0
			for j := range D {
				d += math.Pow(float64(positions[p*D+j])-float64(bank[m*D+j]), 2)
			}
			least = min(least, d)
		}
		want += least / (H * W)
	}
	if !(math.Abs(got[0]-want) <= 1e-5*want) { // sums of float32
		t.Errorf("got a mean squared distance of %v from the nearest rows, want %v", got[0], want)
	}
}

func TestMethod(t *testing.T) {
	methodtest.Run(t, func(seed uint64) method.Method {
		s := methodtest.Settings(cfa.Name)
		s.Seed = seed
		return cfa.New(s, few())
	})
}

func TestDamaged(t *testing.T) {
	m := cfa.New(methodtest.Settings(cfa.Name), few())
	const weight, centres, radius = "descriptor.conv.weight", "descriptor.centres", "descriptor.radius"
	methodtest.Damaged(t, m, methodtest.Trained(t, m), methodtest.Lacking("descriptor."), methodtest.Lacking(radius), methodtest.Reshaped(centres),
		methodtest.Altered(weight, "infinite or none", methodtest.NaN...))
	if most, err := m.MostScore(anomaly.Facts{}); err != nil || !math.IsInf(most, 1) {
		t.Errorf("got a bound of %v and error %v, want none", most, err)
	}
}

// A rate that drives the weights out of all bounds ends the training, at the loss or, after the last update, at the end.
func TestDiverged(t *testing.T) {
	f := few()
	f.SphereRate = 1e30
	methodtest.Diverges(t, cfa.New(methodtest.Settings(cfa.Name), f), "sphere_rate")
}

// WeightBytes is what a file has of descriptor and bank.
func TestWeightBytes(t *testing.T) {
	for _, c := range []struct {
		arch        string
		rows, width int
	}{{"resnet18", 1, 1}, {"resnet34", 7, 5}, {"resnet50", 2, 1}} {
		s, f := methodtest.Settings(cfa.Name), few()
		s.Arch, f.SphereRows, f.SphereWidth = c.arch, c.rows, c.width
		methodtest.WeightBytes(t, cfa.New(s, f), "descriptor.")
	}
}

func TestCheck(t *testing.T) {
	for field, change := range map[string]func(*method.Settings, *cfa.Spheres){
		"sphere_near":   func(_ *method.Settings, f *cfa.Spheres) { f.SphereNear = 0 },
		"sphere_far":    func(_ *method.Settings, f *cfa.Spheres) { f.SphereFar = -1 },
		"sphere_radius": func(_ *method.Settings, f *cfa.Spheres) { f.SphereRadius = math.NaN() },
		"sphere_margin": func(_ *method.Settings, f *cfa.Spheres) { f.SphereMargin = -1 },
		"sphere_nu":     func(_ *method.Settings, f *cfa.Spheres) { f.SphereNu = 0 },
		"sphere_rows":   func(_ *method.Settings, f *cfa.Spheres) { f.SphereRows = 0 },
		"sphere_width":  func(_ *method.Settings, f *cfa.Spheres) { f.SphereWidth = 449 }, // of 448 channels
		"sphere_rate":   func(_ *method.Settings, f *cfa.Spheres) { f.SphereRate = math.Inf(1) },
		"sphere_decay":  func(_ *method.Settings, f *cfa.Spheres) { f.SphereDecay = -1 },
		"sphere_score":  func(_ *method.Settings, f *cfa.Spheres) { f.SphereScore = "max" },
	} {
		s, f := methodtest.Settings(cfa.Name), cfa.DefaultSpheres()
		change(&s, &f)
		methodtest.Refused(t, field, field, cfa.New(s, f))
	}
	for what, change := range map[string]func(*method.Settings, *cfa.Spheres){
		"fewer rows than attract and repel": func(_ *method.Settings, f *cfa.Spheres) { f.SphereRows = 50 }, // of 256 positions
		"more comparisons than there is time for": func(s *method.Settings, f *cfa.Spheres) {
			s.ImageSize, f.SphereRows = method.MaxImageSize, 15
		},
	} {
		s, f := methodtest.Settings(cfa.Name), cfa.DefaultSpheres()
		change(&s, &f)
		methodtest.Refused(t, "sphere_rows", what, cfa.New(s, f))
	}
	for what, f := range map[string]cfa.Spheres{"default": cfa.DefaultSpheres(), "released": cfa.ReleasedSpheres()} {
		s := methodtest.Settings(cfa.Name)
		s.Arch, s.ImageSize = "wide_resnet50_2", method.MaxImageSize/2
		if err := cfa.New(s, f).Check(); err != nil {
			t.Errorf("%s: got error %v, want none", what, err)
		}
	}
}

// A training takes as many passes as its updates need, and no more than it may.
func TestPlan(t *testing.T) {
	for _, c := range []struct{ updates, epochs, images, want int }{{0, 3, 5, 3}, {7, 100, 5, 3}, {6, 100, 5, 2}, {7, 2, 5, 2}, {1, 100, 5, 1}} {
		s := methodtest.Settings(cfa.Name)
		s.Updates, s.Epochs = c.updates, c.epochs
		plan, err := cfa.New(s, few()).Plan([]int{c.images})
		if err != nil || plan.Passes != c.want || plan.Batch != 2 || !plan.Noise.Off || plan.TryPrecisions || plan.Light != (dataset.Light{}) {
			t.Errorf("%+v: got %+v and error %v, want %d passes over plain images", c, plan, err, c.want)
		}
	}
}

// Distances are compared in parts of any size, to one result.
func TestBytes(t *testing.T) {
	descriptor, err := torch.NewDescriptor(torch.ModuleOptions{Arch: "resnet18"}, torch.DescriptorOptions{Dimensions: 20, Rows: 50})
	if err != nil {
		t.Fatal(err)
	}
	defer descriptor.Close()
	var s torch.Scope
	defer s.Close()
	random := make([]float32, 2*9*7*20)
	for i := range random {
		random[i] = float32(methodtest.Number("phi", i))
	}
	for _, e := range descriptor.State() {
		if e.Name == "centres" {
			s.Check(torch.Write(e.Tensor, methodtest.Numbers("centres", 50*20, 1)))
		}
	}
	phi := s.Tensor(torch.FromSlice(random, 2, 9, 7, 20))
	var want []float64
	for _, bytes := range []int64{1 << 30, 4 * 50 * 10, 4 * 50, 1} { // all positions, ten, one, one
		a, r := s.Pair(descriptor.Loss(phi, torch.SphereOptions{Near: 3, Far: 2, Nu: 1, Bytes: bytes}))
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		got, err := torch.Scalars(a, r)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		if !slices.Equal(got, want) || !(got[0] > 0) {
			t.Errorf("%d bytes at a time: got %v, want %v", bytes, got, want)
		}
	}
	for what, o := range map[string]torch.SphereOptions{"none near": {Near: 0, Far: 1, Nu: 1}, "more than there are": {Near: 48, Far: 3, Nu: 1}, "no nu": {Near: 1, Far: 1}} {
		if _, _, err := descriptor.Loss(phi, o); !errors.Is(err, torch.ErrArgument) {
			t.Errorf("%s: got error %v, want %v", what, err, torch.ErrArgument)
		}
	}
}

// The optimiser is set as asked.
func TestOptimiser(t *testing.T) {
	for field, change := range map[string]func(*cfa.Spheres){
		"sphere_rate":  func(f *cfa.Spheres) { f.SphereRate = 1e-4 },
		"sphere_decay": func(f *cfa.Spheres) { f.SphereDecay = 1 },
	} {
		f := few()
		change(&f)
		s := methodtest.Settings(cfa.Name)
		methodtest.Counts(t, field, cfa.New(s, few()), cfa.New(s, f))
	}
	l := methodtest.Begun(t, cfa.New(methodtest.Settings(cfa.Name), few()))
	methodtest.Learn(t, l, 0, 1)
	var s torch.Scope
	defer s.Close()
	sources, err := l.State(&s)
	if err != nil || !slices.ContainsFunc(sources, func(w weights.Source) bool { return w.Name == "adam.descriptor.conv.weight.max_exp_avg_sq" }) {
		t.Errorf("got a checkpoint without AMSGrad's greatest averages, error %v", err)
	}
}

func TestMain(m *testing.M) { methodtest.Main(m) }
