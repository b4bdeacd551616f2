package cfa_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/cfa"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

const side = 64 // S of these tests

func settings() method.Settings {
	return method.Settings{Arch: "resnet18", Method: cfa.Name, ImageSize: side, Batch: 2, Epochs: 3, Seed: 3, MapSigma: 2.5}
}

// few has descriptors of few dimensions and a small bank.
func few() cfa.Spheres {
	f := cfa.DefaultSpheres()
	f.SphereWidth, f.SphereRows = 16, 3
	return f
}

// picture is 3 x S x S, as the teacher sees it: rings and stripes, and from number 100 on a square that was not there.
func picture(i int) []float32 {
	values := make([]float32, 0, 3*side*side)
	for c := range 3 {
		for y := range side {
			for x := range side {
				v := (x*x+y*y)/(20+3*c)*9 + (x*(i%5+2)+y*(c+1))*3 + i*5
				if at := 10 + 7*(i-100); i >= 100 && x >= at && x < at+12 && y >= 20 && y < 32 {
					v = v*7 + x*y
				}
				values = append(values, float32(v%256)/64-2)
			}
		}
	}
	return values
}

// batchOf are pictures from number first on, as the loader hands them out.
func batchOf(first, n int) *dataset.Batch {
	b := &dataset.Batch{B: n}
	for i := range n {
		b.Clean = append(b.Clean, picture(first+i)...)
	}
	return b
}

func newNet(t testing.TB, m method.Method) method.Net {
	t.Helper()
	net, err := m.New(method.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	fillTeacher(t, net.Backbone())
	return net
}

func learner(t testing.TB, m method.Method, net method.Net) method.Learner {
	t.Helper()
	l, err := m.Learner(net, method.LearnerOptions{Precision: torch.FP32})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// images are good pictures, as a detector sees them.
func images(t testing.TB, n int) method.Images {
	return func(_ context.Context, most int, visit func(x *torch.Tensor, frame *framing.Frame) error) error {
		if most != 0 {
			t.Errorf("got %d images at most to visit, want all", most)
		}
		for i := range n {
			x, err := torch.FromSlice(picture(i), 1, 3, side, side)
			if err != nil {
				return err
			}
			err = visit(x, nil)
			x.Close()
			if err != nil {
				return err
			}
		}
		return nil
	}
}

const (
	steps = 8 // of trained
	known = 8 // images that it learns from
)

// learn takes steps from first up to end, and returns their losses.
func learn(t testing.TB, l method.Learner, first, end int) (losses []float64) {
	t.Helper()
	for i := first; i < end; i++ {
		all, err := l.Step(batchOf(2*(i%4), 2), i, steps)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != 1 || all[0].Name != anomaly.LossTotal {
			t.Fatalf("got losses %v, want the total alone", all)
		}
		losses = append(losses, all[0].Value)
	}
	return losses
}

func finish(t testing.TB, l method.Learner) method.Net {
	t.Helper()
	net, err := l.Finish(t.Context(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

func trained(t testing.TB, m method.Method) method.Net {
	t.Helper()
	l := learner(t, m, newNet(t, m))
	if err := l.Begin(t.Context(), images(t, known)); err != nil {
		t.Fatal(err)
	}
	learn(t, l, 0, steps)
	return finish(t, l)
}

// write puts tensors into a file and opens it.
func write(t testing.TB, sources []weights.Source) *weights.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.safetensors")
	if err := weights.WriteFile(path, nil, sources); err != nil {
		t.Fatal(err)
	}
	file, err := weights.OpenSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// bytesOf are all tensors of a net.
func bytesOf(t testing.TB, net method.Net) []byte {
	t.Helper()
	var buffer bytes.Buffer
	if err := weights.Write(&buffer, nil, net.State()); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// predict judges pictures from number first on.
func predict(t testing.TB, net method.Net, first, n int) (maps, scores []float32) {
	t.Helper()
	var s torch.Scope
	defer s.Close()
	x := s.Tensor(torch.FromSlice(batchOf(first, n).Clean, int64(n), 3, side, side))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	m, sc := s.Pair(net.Predict(x))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	maps, err := torch.Read[float32](m)
	if err != nil {
		t.Fatal(err)
	}
	if scores, err = torch.Read[float32](sc); err != nil {
		t.Fatal(err)
	}
	return maps, scores
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
		m := cfa.New(settings(), f)
		l := learner(t, m, newNet(t, m))
		if err := l.Begin(t.Context(), images(t, known)); err != nil {
			t.Fatal(err)
		}
		losses := learn(t, l, 0, 60)
		if first, last := losses[0], losses[len(losses)-1]; !(last < 0.8*first) {
			t.Errorf("%s: got a loss of %v at first and %v in the end, want four fifths of it or less", c.what, first, last)
		}
		net := finish(t, l)
		maps, good := predict(t, net, 0, known)
		_, bad := predict(t, net, 100, 1)
		if !(bad[0] > slices.Max(good)) || !(slices.Min(maps) >= 0) {
			t.Errorf("%s: got scores of up to %v for good pictures and of %v for one with a square, want that to be above", c.what, slices.Max(good), bad[0])
		}
		if highest := slices.Max(maps[:side*side]); highest != good[0] {
			t.Errorf("%s: got a score of %v, want the map's maximum, %v", c.what, good[0], highest)
		}
	}
}

// tensor is one of a net's.
func tensor(t testing.TB, net method.Net, name string) (values []float32, shape []int) {
	t.Helper()
	file := write(t, net.State())
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
	m := cfa.New(settings(), f)
	net := newNet(t, m)
	l := learner(t, m, net)
	if err := l.Begin(t.Context(), images(t, 3)); err != nil {
		t.Fatal(err)
	}
	bank, shape := tensor(t, net, "descriptor.centres")
	if want := []int{side * side / 16, 448 / 16}; !slices.Equal(shape, want) {
		t.Fatalf("got a bank of %v, want %v", shape, want)
	}
	// Of a single image the bank is its descriptors, so that none of them is apart from it.
	one := newNet(t, m)
	alone := learner(t, m, one)
	if err := alone.Begin(t.Context(), images(t, 1)); err != nil {
		t.Fatal(err)
	}
	if maps, scores := predict(t, one, 0, 1); !(scores[0] < 1e-5) || slices.Min(maps) < 0 { // of rounding
		t.Errorf("got a score of %v for the image that the bank is of, want none", scores[0])
	}
	first, _ := tensor(t, one, "descriptor.centres")
	var sum []float64
	for i := range 3 {
		other := newNet(t, m)
		l := learner(t, m, other)
		only := func(_ context.Context, _ int, visit func(*torch.Tensor, *framing.Frame) error) error {
			x, err := torch.FromSlice(picture(i), 1, 3, side, side)
			if err != nil {
				return err
			}
			defer x.Close()
			return visit(x, nil)
		}
		if err := l.Begin(t.Context(), only); err != nil {
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
	learn(t, l, 0, 3)
	on, err := m.Learner(net, method.LearnerOptions{Precision: torch.FP32, Continued: true})
	if err != nil {
		t.Fatal(err)
	}
	defer on.Close()
	if err := on.Begin(t.Context(), images(t, 1)); err != nil {
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
			points = append(points, float32(number("cluster", i%count*D+j)*10+number("point", i*D+j)))
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
		points[i] = float32(number("point", i))
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
	m := cfa.New(settings(), f)
	l := learner(t, m, newNet(t, m))
	if err := l.Begin(&lasting{Context: t.Context(), most: 3}, images(t, known)); !errors.Is(err, context.Canceled) {
		t.Errorf("a learner: got error %v, want %v", err, context.Canceled)
	}
}

// Put down after any step and taken up again, a learner leads to the same net to the bit.
func TestResume(t *testing.T) {
	m := cfa.New(settings(), few())
	want := bytesOf(t, trained(t, m))
	for _, stop := range []int{0, 1, 5, steps} {
		first := learner(t, m, newNet(t, m))
		if err := first.Begin(t.Context(), images(t, known)); err != nil {
			t.Fatal(err)
		}
		learn(t, first, 0, stop)
		var s torch.Scope
		sources, err := first.State(&s)
		if err != nil {
			t.Fatal(err)
		}
		file := write(t, sources)
		s.Close()
		net, err := m.New(method.Options{Blank: true})
		if err != nil {
			t.Fatal(err)
		}
		defer net.Close()
		second := learner(t, m, net)
		if err := second.Restore(file, anomaly.Facts{}); err != nil {
			t.Fatal(err)
		}
		learn(t, second, stop, steps)
		if got := bytesOf(t, finish(t, second)); !bytes.Equal(got, want) {
			t.Errorf("stopped after %d of %d steps: got another net than without", stop, steps)
		}
	}
}

// Learning goes on after a net was asked for on the way, which changes nothing.
func TestFinishOnTheWay(t *testing.T) {
	m := cfa.New(settings(), few())
	want := bytesOf(t, trained(t, m))
	l := learner(t, m, newNet(t, m))
	if err := l.Begin(t.Context(), images(t, known)); err != nil {
		t.Fatal(err)
	}
	learn(t, l, 0, 3)
	net, err := l.Finish(t.Context(), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	predict(t, net, 0, 1)
	learn(t, l, 3, steps)
	if got := bytesOf(t, finish(t, l)); !bytes.Equal(got, want) {
		t.Error("got another net than without a look at it on the way")
	}
}

func TestSeed(t *testing.T) {
	s := settings()
	first := bytesOf(t, trained(t, cfa.New(s, few())))
	s.Seed++
	if second := bytesOf(t, trained(t, cfa.New(s, few()))); bytes.Equal(first, second) {
		t.Error("got the same net of another seed")
	}
}

// An image has the same map and score alone and in a batch, from the model file and where the weights are released.
func TestOneScore(t *testing.T) {
	m := cfa.New(settings(), few())
	net := trained(t, m)
	maps, scores := predict(t, net, 100, 3)
	check := func(what string, net method.Net) {
		t.Helper()
		for i := range 3 {
			m, s := predict(t, net, 100+i, 1)
			if s[0] != scores[i] || !slices.Equal(m, maps[i*side*side:][:side*side]) {
				t.Errorf("%s, image %d: got a score of %v, want %v and the same map", what, i, s[0], scores[i])
			}
		}
	}
	check("alone", net)
	loaded, err := m.New(method.Options{Blank: true})
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	if err := m.Load(loaded, write(t, net.State()), anomaly.Facts{}); err != nil {
		t.Fatal(err)
	}
	if err := loaded.Settle(); err != nil {
		t.Fatal(err)
	}
	if err := loaded.(method.Releaser).Release(); err != nil {
		t.Fatal(err)
	}
	check("released", loaded)
	check("released, once more", loaded)
	var s torch.Scope
	defer s.Close()
	larger := s.Tensor(torch.FromSlice(make([]float32, 3*4*side*side), 1, 3, 2*side, 2*side))
	if _, _, err := loaded.Predict(larger); !errors.Is(err, torch.ErrArgument) {
		t.Errorf("released, an image of another size: got error %v, want %v, the weights being gone", err, torch.ErrArgument)
	}
}

// By the nearest row alone a place's value is its distance, which by the softmin is a share of that.
func TestScore(t *testing.T) {
	net := trained(t, cfa.New(settings(), few()))
	judge := func(change func(*cfa.Spheres)) []float32 {
		f := few()
		change(&f)
		m := cfa.New(settings(), f)
		other, err := m.New(method.Options{Blank: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(other.Close)
		if err := m.Load(other, write(t, net.State()), anomaly.Facts{}); err != nil {
			t.Fatal(err)
		}
		if err := other.Settle(); err != nil {
			t.Fatal(err)
		}
		maps, _ := predict(t, other, 100, 1)
		return maps
	}
	softmin := judge(func(*cfa.Spheres) {})
	nearest := judge(func(f *cfa.Spheres) { f.SphereScore = cfa.ScoreNearest })
	if one := judge(func(f *cfa.Spheres) { f.SphereNear = 1 }); !slices.Equal(nearest, one) {
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
			all = append(all, float32(2048+math.Round(256*number(name, i))/256))
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

func TestDamaged(t *testing.T) {
	m := cfa.New(settings(), few())
	net := trained(t, m)
	at := func(sources []weights.Source, name string) *weights.Source {
		return &sources[slices.IndexFunc(sources, func(s weights.Source) bool { return s.Name == name })]
	}
	const weight, centres, radius = "descriptor.conv.weight", "descriptor.centres", "descriptor.radius"
	for _, c := range []struct {
		what   string
		change func(all []weights.Source) []weights.Source
		want   string
	}{
		{"no descriptor", func(all []weights.Source) []weights.Source {
			return slices.DeleteFunc(all, func(s weights.Source) bool { return strings.HasPrefix(s.Name, "descriptor.") })
		}, "descriptor."},
		{"no radius", func(all []weights.Source) []weights.Source {
			return slices.DeleteFunc(all, func(s weights.Source) bool { return s.Name == radius })
		}, radius},
		{"another shape", func(all []weights.Source) []weights.Source {
			w := at(all, centres)
			w.Shape = []int{w.Shape[1], w.Shape[0]}
			return all
		}, centres},
		{"no number", func(all []weights.Source) []weights.Source {
			source := at(all, weight)
			bytesOf := source.Bytes
			source.Bytes = func() ([]byte, error) {
				data, err := bytesOf()
				copy(data, []byte{0, 0, 0xc0, 0x7f})
				return data, err
			}
			return all
		}, "infinite or none"},
		{"no teacher", func(all []weights.Source) []weights.Source { return all[1:] }, "encoder.conv1.weight"},
		{"left over", func(all []weights.Source) []weights.Source {
			more := *at(all, weight)
			more.Name = "descriptor.more"
			return append(all, more)
		}, "descriptor.more"},
	} {
		t.Run(c.what, func(t *testing.T) {
			loaded, err := m.New(method.Options{Blank: true})
			if err != nil {
				t.Fatal(err)
			}
			defer loaded.Close()
			err = m.Load(loaded, write(t, c.change(net.State())), anomaly.Facts{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
	if _, err := m.MostScore(anomaly.Facts{MapLevels: anomaly.MapTerms{1}}); !errors.Is(err, anomaly.ErrDamaged) {
		t.Errorf("terms of a map: got error %v, want %v", err, anomaly.ErrDamaged)
	}
	if most, err := m.MostScore(anomaly.Facts{}); err != nil || !math.IsInf(most, 1) {
		t.Errorf("got a bound of %v and error %v, want none", most, err)
	}
}

// A rate that drives the weights out of all bounds ends the training, at the loss or, after the last update, at the end.
func TestDiverged(t *testing.T) {
	f := few()
	f.SphereRate = 1e30
	m := cfa.New(settings(), f)
	l := learner(t, m, newNet(t, m))
	if err := l.Begin(t.Context(), images(t, known)); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		losses, err := l.Step(batchOf(0, 2), i, 4)
		if err != nil {
			t.Fatal(err)
		}
		if !losses.Finite() {
			_, err = l.Finish(t.Context(), nil, true)
			var advice *setting.Advice
			if !errors.As(err, &advice) || !strings.Contains(err.Error(), "sphere_rate") {
				t.Errorf("got error %v, want one with advice", err)
			}
			return
		}
	}
	t.Error("got finite losses, want them to diverge")
}

// WeightBytes is what a file has of descriptor and bank.
func TestWeightBytes(t *testing.T) {
	for _, c := range []struct {
		arch        string
		rows, width int
	}{{"resnet18", 1, 1}, {"resnet34", 7, 5}, {"resnet50", 2, 1}} {
		s, f := settings(), few()
		s.Arch, f.SphereRows, f.SphereWidth = c.arch, c.rows, c.width
		m := cfa.New(s, f)
		net, err := m.New(method.Options{Blank: true})
		if err != nil {
			t.Fatal(err)
		}
		defer net.Close()
		var want int64
		for _, tensor := range net.State() {
			if strings.HasPrefix(tensor.Name, "descriptor.") {
				stored := weights.Tensor{Shape: tensor.Shape}
				want += int64(stored.Len() * tensor.DType.Size())
			}
		}
		if got := m.(method.Sized).WeightBytes(); got != want {
			t.Errorf("%s, %+v: got %d bytes, want %d", c.arch, f, got, want)
		}
		if got, least := m.PredictionBytes(1, 0), 4*want; got < least {
			t.Errorf("%s, %+v: got an estimate of %d bytes for a file that has less than the weights, want %d or more", c.arch, f, got, least)
		}
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
		s, f := settings(), cfa.DefaultSpheres()
		change(&s, &f)
		var wrong *setting.Error
		if err := cfa.New(s, f).Check(); !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%s: got error %v, want one about it", field, err)
		}
	}
	for what, change := range map[string]func(*method.Settings, *cfa.Spheres){
		"fewer rows than attract and repel": func(_ *method.Settings, f *cfa.Spheres) { f.SphereRows = 50 }, // of 256 positions
		"more comparisons than there is time for": func(s *method.Settings, f *cfa.Spheres) {
			s.ImageSize, f.SphereRows = method.MaxImageSize, 15
		},
	} {
		s, f := settings(), cfa.DefaultSpheres()
		change(&s, &f)
		var wrong *setting.Error
		if err := cfa.New(s, f).Check(); !errors.As(err, &wrong) || wrong.Field != "sphere_rows" {
			t.Errorf("%s: got error %v, want one about sphere_rows", what, err)
		}
	}
	for what, f := range map[string]cfa.Spheres{"default": cfa.DefaultSpheres(), "released": cfa.ReleasedSpheres()} {
		s := settings()
		s.Arch, s.ImageSize = "wide_resnet50_2", method.MaxImageSize/2
		if err := cfa.New(s, f).Check(); err != nil {
			t.Errorf("%s: got error %v, want none", what, err)
		}
	}
}

// A training takes as many passes as its updates need, and no more than it may.
func TestPlan(t *testing.T) {
	for _, c := range []struct{ updates, epochs, images, want int }{{0, 3, 5, 3}, {7, 100, 5, 3}, {6, 100, 5, 2}, {7, 2, 5, 2}, {1, 100, 5, 1}} {
		s := settings()
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
		random[i] = float32(number("phi", i))
	}
	for _, e := range descriptor.State() {
		if e.Name == "centres" {
			s.Check(torch.Write(e.Tensor, numbers("centres", 50*20, 1)))
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

func TestMain(m *testing.M) {
	code := m.Run()
	if open := torch.LiveTensors(); open > 0 && code == 0 {
		fmt.Fprintf(os.Stderr, "%d tensors are still open, want none\n", open)
		code = 1
	}
	os.Exit(code)
}
