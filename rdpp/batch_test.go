package rdpp_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// batched is a model of a side that nobody has trained, or one of 64 pixels that has learned where its method has nothing without.
func batched(t *testing.T, arch, method string, side int) *rdpp.Model {
	t.Helper()
	if method == rdpp.MethodPatchCore {
		m, err := rdpp.LoadModel(filepath.Join(trained(t, remembering()), rdpp.ModelFile), torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	c := tiny()
	c.Arch, c.Method, c.ImageSize = arch, method, side
	m, err := rdpp.NewModel(c, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	learnSomething(t, m)
	return m
}

// learnSomething puts numbers in place of the zeros with which parameters begin that only training changes, such as the factors
// by which a flow is at first none: behind those no difference is seen.
func learnSomething(t *testing.T, m *rdpp.Model) {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	sources := m.Net.State()
	for i := range sources {
		source := &sources[i]
		was := source.Bytes
		source.Bytes = func() ([]byte, error) {
			data, err := was()
			if source.DType != weights.F32 || strings.HasPrefix(source.Name, "encoder.") || slices.ContainsFunc(data, func(b byte) bool { return b != 0 }) {
				return data, err
			}
			for at := 0; at < len(data); at += 4 {
				binary.LittleEndian.PutUint32(data[at:], math.Float32bits(0.1+0.4*r.Float32()))
			}
			return data, err
		}
	}
	path := filepath.Join(t.TempDir(), "learned.safetensors")
	if err := weights.WriteFile(path, nil, sources); err != nil {
		t.Fatal(err)
	}
	file, err := weights.OpenSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := m.Info.Config.Learned().Load(m.Net, file, m.Net.Facts()); err != nil {
		t.Fatal(err)
	}
}

// An image has the same map and score to the bit in a batch of any size, in any place of it and whichever batch came first,
// and an image alone has what Predict says of it. Of the smallest images the coarsest features are a single position.
func TestBatchLeavesNoTrace(t *testing.T) {
	const most = 8
	type kind struct {
		arch, method string
		side         int
		precision    torch.Precision
	}
	var kinds []kind
	for _, method := range rdpp.Methods() {
		for _, precision := range []torch.Precision{torch.FP32, torch.BF16} {
			kinds = append(kinds, kind{"resnet18", method, 64, precision})
			if method != rdpp.MethodPatchCore {
				kinds = append(kinds, kind{"resnet18", method, 32, precision})
			}
			c := tiny()
			if c.Arch, c.Method = torch.EfficientNetB5, method; c.Validate() == nil {
				kinds = append(kinds, kind{c.Arch, method, 32, precision}, kind{c.Arch, method, 96, precision})
			}
		}
	}
	for _, k := range kinds {
		t.Run(fmt.Sprintf("%s of %s, %d pixels, %s", k.method, k.arch, k.side, k.precision), func(t *testing.T) {
			m := batched(t, k.arch, k.method, k.side)
			defer m.Close()
			m.Precision = k.precision
			if err := m.Net.Settle(); err != nil {
				t.Fatal(err)
			}
			size := 3 * m.Info.Config.ImageSize * m.Info.Config.ImageSize
			r := rand.New(rand.NewPCG(1, 2))
			images := make([][]float32, most)
			for i := range images {
				images[i] = make([]float32, size)
				for k := range images[i] {
					images[i][k] = float32(r.NormFloat64())
				}
			}
			want := make([]modelfile.Outcome, most)
			for _, n := range []int{5, 1, 8, 2, 3, 1} {
				order := r.Perm(most)
				for batch := range slices.Chunk(order, n) {
					var x []float32
					for _, i := range batch {
						x = append(x, images[i]...)
					}
					for at, got := range m.PredictEach(x) {
						i := batch[at]
						if want[i].Map == nil {
							want[i] = got
						}
						if got.Err != nil || !reflect.DeepEqual(got, want[i]) {
							t.Errorf("%d images, number %d: got score %v, error %v, want %v and the same map", n, i, got.Score, got.Err, want[i].Score)
						}
					}
				}
			}
			maps, scores, err := m.Predict(images[0])
			if err != nil || scores[0] != want[0].Score || !slices.Equal(maps, want[0].Map) || want[0].Score == want[1].Score {
				t.Errorf("alone: got score %v, error %v, want %v, which is not the next image's %v", scores, err, want[0].Score, want[1].Score)
			}
		})
	}
}

// The more pixels an image has, the fewer images go through the networks at once; what was asked for counts.
func TestBatchSize(t *testing.T) {
	for _, c := range []struct {
		device          torch.Device
		side, set, want int
	}{
		{torch.CPU, 32, 0, 32}, {torch.CPU, 64, 0, 32}, {torch.CPU, 128, 0, 16}, {torch.CPU, 192, 0, 4}, {torch.CPU, 256, 0, 4},
		{torch.CPU, 512, 0, 1}, {torch.CPU, 2048, 0, 1}, {torch.CPU, 256, 5, 5}, {torch.CUDA(0), 256, 0, 32}, {torch.CUDA(0), 64, 0, 128},
		{torch.CUDA(0), 2048, 0, 1},
	} {
		m := &modelfile.Model{Device: c.device, Batch: c.set}
		m.Info.Config = rdpp.DefaultConfig()
		m.Info.Config.ImageSize = c.side
		if got := m.BatchSize(); got != c.want {
			t.Errorf("%v, %d pixels, %d asked for: got %d, want %d", c.device, c.side, c.set, got, c.want)
		}
	}
}
