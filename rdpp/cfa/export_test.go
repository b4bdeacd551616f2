package cfa_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"rdpp/rdpp/cfa"
	"rdpp/rdpp/export"
	"rdpp/rdpp/export/exporttest"
	"rdpp/rdpp/method"
	"rdpp/torch"
)

// exported is a net's file in either format, which has so many bytes of distances in memory at a time, and what runs it.
func exported(t *testing.T, net method.Net, format string, bytes int) (file string, run func(testing.TB, string, exporttest.Batch) exporttest.Result) {
	t.Helper()
	m := &export.Model{Size: side, Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.25, 0.25, 0.25}, Threshold: 0.5, Producer: "test", Version: "1"}
	net.(method.Exporter).Export(m)
	m.Spheres.Bytes = bytes
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
		t.Fatal(err)
	}
	if err := torch.SaveScript(f, script.Source, tensors, nil); err != nil {
		t.Fatal(err)
	}
	return file, exporttest.TorchScript
}

// An exported file gives the net's maps and scores, up to what sums of thousands of float32 differ by, in parts of any size.
func TestExport(t *testing.T) {
	for _, c := range []struct {
		near  int
		score string
		bytes int
	}{{1, cfa.ScoreSoftmin, 64 << 20}, {3, cfa.ScoreSoftmin, 64 << 20}, {3, cfa.ScoreSoftmin, 60 * 4 * 85}, {3, cfa.ScoreNearest, 60 * 4 * 85}} { // 60 of 256 positions and 85 rows
		f := few()
		f.SphereNear, f.SphereScore = c.near, c.score
		net := trained(t, cfa.New(settings(), f))
		wantMaps, wantScores := predict(t, net, 100, 3)
		for _, format := range []string{"onnx", "torchscript"} {
			t.Run(fmt.Sprint(format, " ", c), func(t *testing.T) {
				file, run := exported(t, net, format, c.bytes)
				got := run(t, file, exporttest.Batch{Planes: batchOf(100, 3).Clean, Shape: []int64{3, 3, side, side}})
				for i, want := range wantScores {
					if !(math.Abs(float64(got.Scores[i]-want)) <= 1e-4*float64(want)) || got.Anomalous[i] != (want > 0.5) {
						t.Errorf("image %d: got a score of %v, anomalous %v, want %v and %v", i, got.Scores[i], got.Anomalous[i], want, want > 0.5)
					}
				}
				for i, want := range wantMaps {
					if !(math.Abs(float64(got.Maps[i]-want)) <= 1e-3*max(1, float64(want))) {
						t.Fatalf("place %d: got a map of %v, want %v", i, got.Maps[i], want)
					}
				}
			})
		}
	}
}
