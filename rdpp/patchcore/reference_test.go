package patchcore_test

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/method/methodtest"
	"rdpp/torch"
)

//go:embed testdata/reference.json
var referenceJSON []byte

// reference is what testdata/reference.py computes.
type reference struct {
	Size, Train, Test, Neighbours, Projected int
	Sigma                                    float64
	Cases                                    []struct {
		Dimensions                int
		Signs                     string // Projected characters for each dimension
		Starts, Chosen            []int64
		Patch                     []float64   // the beginning of the first test image's patch in row 2, column 3
		Maps                      [][]float64 // per test image, every fifth place of every fifth row
		Maxima, Farthest, Weights []float64   // per test image
	}
}

// picture is that of testdata/reference.py, 3 x S x S in 0..1.
func picture(i, S int) []float64 {
	values := make([]float64, 3*S*S)
	for c := range 3 {
		for y := range S {
			for x := range S {
				v := (x*x+y*y)/(20+3*c)*9 + (x*(i%5+2)+y*(c+1))*3 + i*5
				if at := 10 + 7*(i-100); i >= 100 && x >= at && x < at+12 && y >= 20 && y < 32 {
					v = v*7 + x*y
				}
				values[(c*S+y)*S+x] = float64(v%256) / 255
			}
		}
	}
	return values
}

// normalised is a picture as the teacher sees it.
func normalised(i, S int) []float64 {
	mean, std := [3]float64{0.485, 0.456, 0.406}, [3]float64{0.229, 0.224, 0.225} // of ImageNet, not rounded to float32
	values := picture(i, S)
	for at := range values {
		values[at] = (values[at] - mean[at/(S*S)]) / std[at/(S*S)]
	}
	return values
}

// near compares to 1e-6 of the value.
func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-6*math.Abs(want)) {
		t.Errorf("%s: got %.9g, want %.9g", what, got, want)
	}
}

func TestReference(t *testing.T) {
	var want reference
	if err := json.Unmarshal(referenceJSON, &want); err != nil {
		t.Fatal(err)
	}
	S := want.Size
	var s torch.Scope
	defer s.Close()
	teacher, err := torch.NewTeacher(torch.ModuleOptions{Arch: "resnet18", DType: torch.Float64, Reference: true})
	if err != nil {
		t.Fatal(err)
	}
	defer teacher.Close()
	methodtest.FillTeacher(t, teacher)
	batch := func(first, n int) *torch.Tensor {
		var x []float64
		for i := range n {
			x = append(x, normalised(first+i, S)...)
		}
		return s.Tensor(torch.FromSlice(x, int64(n), 3, int64(S), int64(S)))
	}
	good, tests := batch(0, want.Train), batch(100, want.Test)
	f := s.Features(teacher.Forward(good))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	for _, c := range want.Cases {
		t.Run(fmt.Sprint(c.Dimensions, " dimensions"), func(t *testing.T) {
			var s torch.Scope
			defer s.Close()
			seen := s.Tensor(s.Tensor(torch.Patches(f, c.Dimensions)).To(torch.CPU, torch.Float16))
			var signs []float32
			for _, sign := range c.Signs {
				signs = append(signs, float32(strings.IndexRune("-0+", sign)-1))
			}
			projection := s.Tensor(torch.FromSlice(signs, int64(len(signs)/want.Projected), int64(want.Projected)))
			// In parts, as batches come.
			head, rest := split(t, &s, seen, 3)
			search, err := torch.NewCoreset([]*torch.Tensor{head, rest}, projection, c.Starts)
			if err != nil {
				t.Fatal(err)
			}
			defer search.Close()
			for range 2 {
				if _, err := search.Grow((len(c.Chosen) + 1) / 2); err != nil {
					t.Fatal(err)
				}
			}
			chosen, err := search.Chosen()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(chosen[:len(c.Chosen)], c.Chosen) {
				t.Fatalf("got coreset %v, want %v", chosen, c.Chosen)
			}
			D := len(signs) / want.Projected
			rows := s.Tensor(search.Patches())
			bank, err := torch.NewBank(len(c.Chosen), D, torch.Float64, torch.CPU)
			if err != nil {
				t.Fatal(err)
			}
			defer bank.Close()
			data, err := rows.ReadBytes()
			if err != nil {
				t.Fatal(err)
			}
			if err := bank.State()[0].Tensor.WriteBytes(torch.Float16, data[:2*D*len(c.Chosen)]); err != nil {
				t.Fatal(err)
			}
			if err := bank.Train(false); err != nil {
				t.Fatal(err)
			}
			patches := s.Tensor(torch.Patches(s.Features(teacher.Forward(tests)), c.Dimensions))
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			values, err := torch.Read[float64](patches)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range c.Patch {
				near(t, fmt.Sprint("patch ", i), values[(2*S/8+3)*D+i], v)
			}
			for _, opt := range []torch.BankOptions{{Neighbours: want.Neighbours}, {OfMap: true}, {OfMap: true, Neighbours: want.Neighbours}} {
				opt.Sigma, opt.Dimensions, opt.Bytes = want.Sigma, c.Dimensions, 5*64*8 // of five rows at a time
				asked, err := torch.NewPatchPredictor(teacher, bank, opt)
				if err != nil {
					t.Fatal(err)
				}
				defer asked.Close()
				maps, scores := s.Pair(asked.Predict(tests))
				if err := s.Err(); err != nil {
					t.Fatal(err)
				}
				pixels, err := torch.Read[float64](maps)
				if err != nil {
					t.Fatal(err)
				}
				got, err := torch.Read[float64](scores)
				if err != nil {
					t.Fatal(err)
				}
				for image, score := range got {
					w := c.Farthest[image]
					if opt.OfMap {
						w = c.Maxima[image]
					}
					if opt.Neighbours > 0 {
						w *= c.Weights[image]
					}
					near(t, fmt.Sprintf("score of image %d with %+v", image, opt), score, w)
					i := 0
					for y := 0; y < S; y += 5 {
						for x := 0; x < S; x += 5 {
							near(t, fmt.Sprintf("map of image %d at %d, %d", image, x, y), pixels[(image*S+y)*S+x], c.Maps[image][i])
							i++
						}
					}
				}
			}
		})
	}
}

// split is a tensor's first n rows, and the others.
func split(t *testing.T, s *torch.Scope, x *torch.Tensor, n int) (head, rest *torch.Tensor) {
	t.Helper()
	first, second := s.Two(torch.Features{x, x, x}.Split(n))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return first[0], second[0]
}
