package fastflow_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"rdpp/rdpp/export"
	"rdpp/rdpp/export/exporttest"
	"rdpp/rdpp/fastflow"
	"rdpp/rdpp/method"
	"rdpp/torch"
)

// limit is the threshold of exported files, between the scores of good and odd pictures.
const limit = 0.5

// exported is a net's file in either format, and what runs it.
func exported(t *testing.T, net method.Net, format string) (file string, run func(testing.TB, string, exporttest.Batch) exporttest.Result) {
	t.Helper()
	m := &export.Model{Size: side, Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.25, 0.25, 0.25}, Threshold: limit, Producer: "test", Version: "1"}
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
		if a.DType.Size() == 8 { // indices
			tensor = s.Tensor(tensor.To(torch.CPU, torch.Int64))
			s.Check(tensor.WriteBytes(torch.Int64, data))
		} else {
			s.Check(tensor.WriteBytes(torch.Float32, data))
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
		kernels, kind string
		affine        bool
		top           float64
	}{{fastflow.KernelsAll, fastflow.MapProbability, true, 0}, {fastflow.KernelsAlternate, fastflow.MapLikelihood, false, 0.01}} {
		f := small()
		f.FlowKernels, f.FlowMap, f.FlowAffine, f.FlowTop = c.kernels, c.kind, c.affine, c.top
		net := trained(t, fastflow.New(settings(), f))
		wantMaps, wantScores := predict(t, net, 100, 3)
		for _, format := range []string{"onnx", "torchscript"} {
			t.Run(fmt.Sprint(format, " ", c), func(t *testing.T) {
				file, run := exported(t, net, format)
				got := run(t, file, exporttest.Batch{Planes: batchOf(100, 3).Clean, Shape: []int64{3, 3, side, side}})
				for i, want := range wantScores {
					if !(math.Abs(float64(got.Scores[i]-want)) <= 1e-4) || got.Anomalous[i] != (want > limit) {
						t.Errorf("image %d: got a score of %v, anomalous %v, want %v and %v", i, got.Scores[i], got.Anomalous[i], want, want > limit)
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
