package torch_test

import (
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"rdpp/torch"
)

// madeUp are the numbers in -1..1 of testdata/efficientnet.py.
func madeUp(name string, n int) []float64 {
	h := uint32(2166136261)
	for _, c := range []byte(name) {
		h = (h ^ uint32(c)) * 16777619
	}
	all := make([]float64, n)
	for i := range all {
		g := h + uint32(i)*0x9e3779b1
		for range 2 {
			g = (g ^ g>>16) * 0x45d9f3b
		}
		all[i] = float64(int((g^g>>16)%20001)-10000) / 10000
	}
	return all
}

// fillEfficientNet gives a teacher the weights of testdata/efficientnet.py, and returns names and shapes as it lists them.
func fillEfficientNet(t *testing.T, e torch.Teacher) (entries int, names string) {
	t.Helper()
	var lines strings.Builder
	for _, entry := range e.State() {
		shape := must(entry.Tensor.Shape())
		fmt.Fprintf(&lines, "%s %s\n", entry.Name, strings.ReplaceAll(strings.Trim(fmt.Sprint(shape), "[]"), " ", "x"))
		if strings.HasSuffix(entry.Name, "num_batches_tracked") {
			continue
		}
		values := madeUp(entry.Name, int(must(entry.Tensor.Len())))
		for i, x := range values {
			switch {
			case len(shape) == 4:
				values[i] = x * math.Sqrt(3/float64(shape[1]*shape[2]*shape[3]))
			case strings.HasSuffix(entry.Name, ".1.weight") || strings.HasSuffix(entry.Name, ".running_var"):
				values[i] = 1 + x/2
			default:
				values[i] = x * 0.3
			}
		}
		if err := torch.Write(entry.Tensor, values); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Train(false); err != nil {
		t.Fatal(err)
	}
	return len(e.State()), fmt.Sprintf("%x", sha256.Sum256([]byte(lines.String())))
}

// EfficientNet-B5 has torchvision's state dict up to features.6 and sees what torchvision's does: in float64 up to the order of
// summation, in float32 up to what 36 blocks make of rounding, prepared for speed or not.
func TestEfficientNet(t *testing.T) {
	var want struct {
		Entries int
		Names   string
		Cases   []struct {
			Images, Side int64
			Features     []struct {
				Shape   []int64
				Summary [3]float64
			}
		}
	}
	readGolden(t, "efficientnet.json", &want)
	for _, c := range []struct {
		what      string
		opt       torch.ModuleOptions
		input     torch.DType
		tolerance float64 // relative to the sum of squares
	}{
		{"float64", torch.ModuleOptions{DType: torch.Float64, Reference: true}, torch.Float64, 1e-9},
		{"float64, channels last", torch.ModuleOptions{DType: torch.Float64}, torch.Float64, 1e-9},
		{"float32", torch.ModuleOptions{Reference: true}, torch.Float32, 1e-5},
		{"float32, channels last", torch.ModuleOptions{}, torch.Float32, 1e-5},
		{"bfloat16", torch.ModuleOptions{}, torch.BFloat16, 0.05},
	} {
		c.opt.Arch = "efficientnet_b5"
		e := must(torch.NewTeacher(c.opt))
		defer e.Close()
		if entries, names := fillEfficientNet(t, e); entries != want.Entries || names != want.Names {
			t.Errorf("%s: got %d entries whose names and shapes have the digest %s, want %d and %s", c.what, entries, names, want.Entries, want.Names)
		}
		for _, images := range want.Cases {
			var s torch.Scope
			n := images.Images * 3 * images.Side * images.Side
			values := madeUp(fmt.Sprint("images", images.Side), int(n))
			for i := range values {
				values[i] *= 2
			}
			x := s.Tensor(torch.FromSlice(values, images.Images, 3, images.Side, images.Side))
			f := s.Features(e.Forward(s.Tensor(x.To(torch.CPU, c.input))))
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			for k, w := range images.Features {
				if shape := must(f[k].Shape()); !slices.Equal(shape, w.Shape) {
					t.Errorf("%s, %d pixels, scale %d: got the shape %v, want %v", c.what, images.Side, k, shape, w.Shape)
				}
				var got [3]float64
				for i, v := range must(torch.Read[float64](f[k])) {
					got[0] += v
					got[1] += v * float64(1+i%7)
					got[2] += v * v
				}
				for i := range got {
					if !(math.Abs(got[i]-w.Summary[i]) <= c.tolerance*w.Summary[2]) {
						t.Errorf("%s, %d pixels, scale %d, sum %d: got %.15g, want %.15g", c.what, images.Side, k, i, got[i], w.Summary[i])
					}
				}
			}
			s.Close()
		}
	}
}

// An image has the same features to the bit alone and in a batch.
func TestEfficientNetBatch(t *testing.T) {
	const most = 8
	e := must(torch.NewTeacher(torch.ModuleOptions{Arch: "efficientnet_b5"}))
	defer e.Close()
	fillEfficientNet(t, e)
	for _, dtype := range []torch.DType{torch.Float32, torch.BFloat16} {
		for _, S := range []int64{32, 96} {
			n := int(3 * S * S)
			values := madeUp("batch", most*n)
			see := func(first, images int) (seen [torch.Scales][]float32) {
				var s torch.Scope
				defer s.Close()
				x := s.Tensor(torch.FromSlice(values[first*n:(first+images)*n], int64(images), 3, S, S))
				f := s.Features(e.Forward(s.Tensor(x.To(torch.CPU, dtype))))
				if err := s.Err(); err != nil {
					t.Fatal(err)
				}
				for k := range f {
					seen[k] = must(torch.Read[float32](f[k]))
				}
				return seen
			}
			all := see(0, most)
			for i := range most {
				for k, got := range see(i, 1) {
					if want := all[k][i*len(got):][:len(got)]; !slices.Equal(got, want) {
						t.Errorf("%d bytes, %d pixels, scale %d, image %d: got other features alone than in a batch of %d", dtype.Size(), S, k, i, most)
					}
				}
			}
		}
	}
}

// EfficientNet-B5 is a frozen teacher, and no other network.
func TestEfficientNetIsFrozen(t *testing.T) {
	_, err := torch.NewTeacher(torch.ModuleOptions{Arch: "efficientnet_b5", Trainable: true})
	wantError(t, "a teacher that learns", err, "efficientnet_b5", "frozen")
	_, err = torch.NewStudent(torch.ModuleOptions{Arch: "efficientnet_b5"})
	wantError(t, "a student", err, "efficientnet_b5", "resnet18")
	e := must(torch.NewTeacher(torch.ModuleOptions{Arch: "efficientnet_b5", Blank: true}))
	defer e.Close()
	wantError(t, "light", e.IgnoreLevel([3]float32{1, 1, 1}), "frozen")
}
