package methodtest

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"rdpp/rdpp/export"
	"rdpp/rdpp/export/exporttest"
	"rdpp/rdpp/method"
	"rdpp/torch"
)

// What an exported file may differ by: other runtimes sum thousands of float32 in another order. Above 1 they are shares.
const (
	scoreTolerance = 1e-4
	mapTolerance   = 1e-3
)

// Export says that files of either format give net's maps and scores, and call an image anomalous above a threshold. change, if
// any, is made to what the net exports.
func Export(t *testing.T, net method.Net, threshold float32, change func(m *export.Model)) {
	maps, scores := Predict(t, net, Odd, 3)
	m := &export.Model{Size: Side, Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.25, 0.25, 0.25}, Threshold: threshold, Producer: "test", Version: "1"}
	net.(method.Exporter).Export(m)
	if change != nil {
		change(m)
	}
	for _, format := range []struct {
		name  string
		write func(f *os.File) error
		run   func(testing.TB, string, exporttest.Batch) exporttest.Result
	}{
		{"onnx", func(f *os.File) error { return m.ONNX(f, export.Planes) }, exporttest.ONNX},
		{"torchscript", func(f *os.File) error { return writeScript(m, f) }, exporttest.TorchScript},
	} {
		t.Run(format.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "exported")
			f, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := format.write(f); err != nil {
				t.Fatal(err)
			}
			got := format.run(t, file, exporttest.Batch{Planes: Batch(Odd, 3).Clean, Shape: []int64{3, 3, Side, Side}})
			for i, v := range scores {
				want := float64(v)
				if !(math.Abs(float64(got.Scores[i])-want) <= scoreTolerance*max(1, want)) || got.Anomalous[i] != (v > threshold) {
					t.Errorf("image %d: got a score of %v, anomalous %v, want %v and %v", i, got.Scores[i], got.Anomalous[i], want, v > threshold)
				}
			}
			for i, v := range maps {
				if want := float64(v); !(math.Abs(float64(got.Maps[i])-want) <= mapTolerance*max(1, want)) {
					t.Fatalf("place %d: got a map of %v, want %v", i, got.Maps[i], want)
				}
			}
		})
	}
}

// writeScript compiles a model's TorchScript into a file.
func writeScript(m *export.Model, f *os.File) error {
	script, err := m.TorchScript(export.Planes)
	if err != nil {
		return err
	}
	var s torch.Scope
	defer s.Close()
	var tensors []torch.NamedTensor
	for _, a := range script.Attributes {
		data, err := a.Bytes()
		if err != nil {
			return err
		}
		shape, n := make([]int64, len(a.Shape)), 1
		for i, d := range a.Shape {
			shape[i], n = int64(d), n*d
		}
		var tensor *torch.Tensor
		if a.DType.Size() == 8 { // orders and places
			tensor = s.Tensor(torch.FromSlice(make([]int64, n), shape...))
			s.Check(tensor.WriteBytes(torch.Int64, data))
		} else {
			tensor = s.Tensor(torch.FromSlice(make([]float32, n), shape...))
			s.Check(tensor.WriteBytes(torch.Float32, data))
		}
		tensors = append(tensors, torch.NamedTensor{Name: a.Name, Tensor: tensor})
	}
	if err := s.Err(); err != nil {
		return err
	}
	return torch.SaveScript(f, script.Source, tensors, nil)
}
