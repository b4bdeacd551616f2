package torch_test

import (
	"fmt"
	"math"
	"testing"

	"rdpp/torch"
)

// plane is a scale's features of one image, C x H x H.
type plane struct {
	values []float64
	C, H   int
}

// averaged is the mean over 3 x 3 positions of those that are there.
func (p plane) averaged() plane {
	out := plane{make([]float64, len(p.values)), p.C, p.H}
	for c := range p.C {
		for y := range p.H {
			for x := range p.H {
				sum, n := 0.0, 0.0
				for v := max(y-1, 0); v <= min(y+1, p.H-1); v++ {
					for u := max(x-1, 0); u <= min(x+1, p.H-1); u++ {
						sum, n = sum+p.values[(c*p.H+v)*p.H+u], n+1
					}
				}
				out.values[(c*p.H+y)*p.H+x] = sum / n
			}
		}
	}
	return out
}

// distance is 1 - cos at every position, or log(1 + that / level) where there is a level, at input side S: bilinear,
// corners on corners.
func distance(f, g plane, level float64, S int) []float64 {
	d := make([]float64, f.H*f.H)
	for i := range d {
		var fg, ff, gg float64
		for c := range f.C {
			a, b := f.values[c*f.H*f.H+i], g.values[c*f.H*f.H+i]
			fg, ff, gg = fg+a*b, ff+a*a, gg+b*b
		}
		d[i] = 1 - fg/math.Sqrt(ff*gg)
		if level > 0 {
			d[i] = math.Log1p(d[i] / level)
		}
	}
	out := make([]float64, S*S)
	at := func(i int) (int, int, float64) {
		place := float64(i) * float64(f.H-1) / float64(S-1)
		low := min(int(place), f.H-1)
		return low, min(low+1, f.H-1), place - float64(low)
	}
	for y := range S {
		y0, y1, v := at(y)
		for x := range S {
			x0, x1, u := at(x)
			out[y*S+x] = (d[y0*f.H+x0]*(1-u)+d[y0*f.H+x1]*u)*(1-v) + (d[y1*f.H+x0]*(1-u)+d[y1*f.H+x1]*u)*v
		}
	}
	return out
}

// A map is the weighted sum of its terms, against the definition in plain Go. TestFastPathsEqualReference holds the other
// memory layout's way against this one.
func TestAnomalyMapTerms(t *testing.T) {
	const S = 32
	var f, g [torch.Scales]plane
	for k := range f {
		C, H := 4<<k, S/(4<<k)
		f[k] = plane{uniform(fmt.Sprint("f", k), C*H*H), C, H}
		g[k] = plane{uniform(fmt.Sprint("g", k), C*H*H), C, H}
	}
	for _, c := range []struct{ weights, levels [torch.Terms]float64 }{
		{},
		{weights: [torch.Terms]float64{1, 1, 1}},
		{weights: [torch.Terms]float64{0, 1, 2, 1, 0, 2}},
		{weights: [torch.Terms]float64{0.5, 0, 0, 0, 3, 0}},
		{weights: [torch.Terms]float64{0, 0, 0, 0, 0, 1}},
		{weights: [torch.Terms]float64{0.2, 0.2, 0.4, 0, 0, 0.1}, levels: [torch.Terms]float64{0.1, 0.02, 3, 0, 0, 0.5}},
		{levels: [torch.Terms]float64{0.1, 0, 0.3}},
	} {
		weights := c.weights
		want := make([]float64, S*S)
		for i := range weights {
			weight := weights[i]
			if weights == ([torch.Terms]float64{}) && i < torch.Scales { // as released
				weight = 1
			}
			a, b := f[i%torch.Scales], g[i%torch.Scales]
			if i >= torch.Scales {
				a, b = a.averaged(), b.averaged()
			}
			for at, d := range distance(a, b, c.levels[i], S) {
				want[at] += weight * d
			}
		}
		for _, dtype := range []torch.DType{torch.Float64, torch.Float32} {
			var s torch.Scope
			var ft, gt torch.Features
			for k := range f {
				shape := []int64{1, int64(f[k].C), int64(f[k].H), int64(f[k].H)}
				ft[k] = s.Tensor(s.Tensor(torch.FromSlice(f[k].values, shape...)).To(torch.CPU, dtype))
				gt[k] = s.Tensor(s.Tensor(torch.FromSlice(g[k].values, shape...)).To(torch.CPU, dtype))
			}
			raw, _ := s.Pair(torch.AnomalyMap(ft, gt, S, torch.MapOptions{Sigma: 1, Weights: weights, Levels: c.levels}))
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			tolerance := map[torch.DType]float64{torch.Float64: 1e-12, torch.Float32: 1e-5}[dtype]
			for i, got := range must(torch.Read[float64](raw)) {
				if math.Abs(got-want[i]) > tolerance {
					t.Errorf("weights %v, levels %v, %d bytes: at %d got %v, want %v", weights, c.levels, dtype.Size(), i, got, want[i])
					break
				}
			}
			s.Close()
		}
	}
}

// Positions near to the teacher get a part of their gradient; the loss and all other gradients are as they were.
func TestEasyPositionsAreHeldBack(t *testing.T) {
	const B, C, H = 2, 3, 4
	const cut = 0.9
	var f torch.Features
	var values [torch.Scales][]float64
	for k := range f {
		x := uniform(fmt.Sprint("f", k), B*C*H*H)
		noise := uniform(fmt.Sprint("noise", k), B*C*H*H)
		values[k] = make([]float64, len(x))
		for i := range x { // the further on in the map, the further from the teacher
			values[k][i] = x[i] + noise[i]*float64(i%(H*H))/(H*H)
		}
		f[k] = must(torch.FromSlice(x, B, C, H, H))
	}
	defer f.Close()
	gradients := func(easy torch.Easy) (loss float64, grads [torch.Scales][]float64) {
		var s torch.Scope
		defer s.Close()
		var g torch.Features
		for k := range g {
			g[k] = s.Tensor(torch.FromSlice(values[k], B, C, H, H))
			s.Check(g[k].RequireGrad())
		}
		kd := s.Tensor(torch.LossKD(f, g, false, easy))
		s.Check(torch.Backward(kd))
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		for k := range g {
			grads[k] = must(torch.Read[float64](s.Tensor(g[k].Grad())))
		}
		return must(torch.Scalars(kd))[0], grads
	}
	plainLoss, plain := gradients(torch.Easy{})
	loss, held := gradients(torch.Easy{Cut: cut, Below: 0.5})
	near(t, "loss", loss, plainLoss, 1e-12)
	for k := range f {
		x := uniform(fmt.Sprint("f", k), B*C*H*H)
		d := make([]float64, B*H*H)
		var mean, squares float64
		for i := range d {
			var xy, xx, yy float64
			for c := range C {
				at := (i/(H*H)*C+c)*H*H + i%(H*H)
				u, v := x[at], values[k][at]
				xy, xx, yy = xy+u*v, xx+u*u, yy+v*v
			}
			d[i] = 1 - xy/math.Sqrt(xx*yy)
			mean += d[i] / float64(len(d))
		}
		for _, v := range d {
			squares += (v - mean) * (v - mean)
		}
		limit := mean + 0.5*math.Sqrt(squares/float64(len(d)-1))
		hard := 0
		for i, v := range d {
			factor := 1 - cut
			if v >= limit {
				factor = 1
				hard++
			}
			for c := range C {
				at := (i/(H*H)*C+c)*H*H + i%(H*H)
				near(t, fmt.Sprintf("scale %d, gradient %d", k+1, at), held[k][at], factor*plain[k][at], 1e-9)
			}
		}
		if hard == 0 || hard == len(d) {
			t.Errorf("scale %d: %d of %d positions are hard; the test shows nothing", k+1, hard, len(d))
		}
	}
}

// Join puts back together what Split parts, also where a part is empty.
func TestJoin(t *testing.T) {
	var x torch.Features
	for k := range x {
		x[k] = must(torch.FromSlice(uniform(fmt.Sprint(k), 24), 4, 3, 2, 1))
	}
	defer x.Close()
	for rows := range 5 {
		head, tail, err := x.Split(rows)
		if err != nil {
			t.Fatal(err)
		}
		joined := must(torch.Join(head, tail))
		for k := range x {
			got, want := must(torch.Read[float64](joined[k])), must(torch.Read[float64](x[k]))
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("%d rows, scale %d: got %v, want %v", rows, k, got, want)
				}
			}
		}
		for _, part := range []torch.Features{head, tail, joined} {
			part.Close()
		}
	}
	a, b := x, x
	a[0] = must(torch.FromSlice(uniform("other", 8), 4, 2, 1, 1))
	defer a[0].Close()
	if _, err := torch.Join(a, b); err == nil {
		t.Error("features of other shapes were joined")
	}
}
