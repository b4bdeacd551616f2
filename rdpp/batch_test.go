package rdpp_test

import (
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/modelfile"
	"rdpp/torch"
)

// batched is a model that nobody has trained, or that has learned where its method has nothing without.
func batched(t *testing.T, method string) *rdpp.Model {
	t.Helper()
	if method == rdpp.MethodPatchCore {
		m, err := rdpp.LoadModel(filepath.Join(trained(t, remembering()), rdpp.ModelFile), torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	c := tiny()
	c.Method, c.ImageSize = method, 64
	m, err := rdpp.NewModel(c, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// An image has the same map and score to the bit in a batch of any size, in any place of it and whichever batch came first,
// and an image alone has what Predict says of it.
func TestBatchLeavesNoTrace(t *testing.T) {
	const most = 8
	for _, method := range rdpp.Methods() {
		for _, precision := range []torch.Precision{torch.FP32, torch.BF16} {
			m := batched(t, method)
			defer m.Close()
			m.Precision = precision
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
							t.Errorf("%s, %s, %d images, number %d: got score %v, error %v, want %v and the same map", method, precision, n, i,
								got.Score, got.Err, want[i].Score)
						}
					}
				}
			}
			maps, scores, err := m.Predict(images[0])
			if err != nil || scores[0] != want[0].Score || !slices.Equal(maps, want[0].Map) || want[0].Score == want[1].Score {
				t.Errorf("%s, %s, alone: got score %v, error %v, want %v, which is not the next image's %v", method, precision, scores, err, want[0].Score,
					want[1].Score)
			}
		}
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
