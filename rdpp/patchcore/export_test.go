package patchcore_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"rdpp/rdpp/export"
	"rdpp/rdpp/export/exporttest"
	"rdpp/rdpp/method"
	"rdpp/rdpp/patchcore"
	"rdpp/torch"
)

// exported is a net's file in either format, and what runs it.
func exported(t *testing.T, net method.Net, format string) (file string, run func(testing.TB, string, exporttest.Batch) exporttest.Result) {
	t.Helper()
	m := &export.Model{Size: side, Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.25, 0.25, 0.25}, Threshold: 5, Producer: "test", Version: "1"}
	net.(method.Exporter).Export(m)
	file = filepath.Join(t.TempDir(), "exported")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if format == "onnx" {
		if err := m.ONNX(f, export.Planes); err != nil {
			t.Fatal(err)
		}
		return file, exporttest.ONNX
	}
	script, err := m.TorchScript(export.Planes)
	if err != nil {
		t.Fatal(err)
	}
	var s torch.Scope
	defer s.Close()
	var tensors []torch.NamedTensor
	for _, a := range script.Attributes {
		data, err := a.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		shape := make([]int64, len(a.Shape))
		n := 1
		for i, d := range a.Shape {
			shape[i], n = int64(d), n*d
		}
		tensor := s.Tensor(torch.FromSlice(make([]float32, n), shape...))
		s.Check(tensor.WriteBytes(torch.Float32, data[:min(len(data), 4*n)]))
		if a.DType.Size() == 8 { // the blur's indices
			s.Check(tensor.WriteBytes(torch.Int64, data))
			tensor = s.Tensor(tensor.To(torch.CPU, torch.Int64))
		}
		tensors = append(tensors, torch.NamedTensor{Name: a.Name, Tensor: tensor})
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if err := torch.SaveScript(f, script.Source, tensors, nil); err != nil {
		t.Fatal(err)
	}
	return file, exporttest.TorchScript
}

func TestExport(t *testing.T) {
	for _, c := range []struct {
		dimensions, neighbours int
		score                  string
	}{{0, 1, patchcore.ScoreMap}, {0, 9, patchcore.ScorePatch}, {100, 9, patchcore.ScoreMap}} {
		m := memory()
		m.PatchDimensions, m.Neighbours, m.PatchScore = c.dimensions, c.neighbours, c.score
		net := trained(t, patchcore.New(settings(), m))
		wantMaps, wantScores := predict(t, net, 100, 3)
		for _, format := range []string{"onnx", "torchscript"} {
			t.Run(fmt.Sprint(format, " ", c), func(t *testing.T) {
				file, run := exported(t, net, format)
				got := run(t, file, exporttest.Batch{Planes: batchOf(100, 3).Clean, Shape: []int64{3, 3, side, side}})
				for i, want := range wantScores {
					if !(math.Abs(float64(got.Scores[i]-want)) <= 1e-4) || got.Anomalous[i] != (want > 5) {
						t.Errorf("image %d: got a score of %v, anomalous %v, want %v and %v", i, got.Scores[i], got.Anomalous[i], want, want > 5)
					}
				}
				worst := 0.0
				for i, want := range wantMaps {
					worst = max(worst, math.Abs(float64(got.Maps[i]-want)))
				}
				if !(worst <= 1e-3) {
					t.Errorf("got maps that differ by up to %v, want at most 0.001", worst)
				}
			})
		}
	}
}
