package rdpp_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	ort "github.com/yalue/onnxruntime_go"
)

// startONNXRuntime loads onnxruntime's library, once for all tests: the one that $RDPP_ONNXRUNTIME names, or the one
// that scripts/onnxruntime.sh has fetched.
var startONNXRuntime = sync.OnceValues(func() (found bool, err error) {
	library := os.Getenv("RDPP_ONNXRUNTIME")
	if library == "" {
		if library, err = filepath.Abs("../build/onnxruntime/libonnxruntime.so.1"); err != nil {
			return false, err
		}
		if _, err := os.Stat(library); err != nil {
			return false, nil
		}
	}
	ort.SetSharedLibraryPath(library)
	return true, ort.InitializeEnvironment()
})

func needONNXRuntime(t *testing.T) {
	t.Helper()
	switch found, err := startONNXRuntime(); {
	case err != nil:
		t.Fatalf("onnxruntime cannot be loaded: %v", err)
	case !found:
		t.Skip("no onnxruntime: run scripts/onnxruntime.sh, or name its library in RDPP_ONNXRUNTIME")
	}
}

// outputs are what an exported model says about a batch.
type outputs struct {
	scores, maps, normalised []float32
	anomalous                []bool
}

// runONNX runs an ONNX file on one thread.
func runONNX(t *testing.T, file string, in tensor) outputs {
	t.Helper()
	options, err := ort.NewSessionOptions()
	if err != nil {
		t.Fatal(err)
	}
	defer options.Destroy()
	if err := options.SetIntraOpNumThreads(1); err != nil {
		t.Fatal(err)
	}
	name := "images"
	if in.pixels != nil {
		name = "pixels"
	}
	session, err := ort.NewDynamicAdvancedSession(file, []string{name},
		[]string{"score", "map", "normalised", "anomalous"}, options)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Destroy()
	var x ort.Value
	if in.pixels != nil {
		x, err = ort.NewTensor(ort.NewShape(in.shape...), in.pixels)
	} else {
		x, err = ort.NewTensor(ort.NewShape(in.shape...), in.planes)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer x.Destroy()
	results := make([]ort.Value, 4)
	if err := session.Run([]ort.Value{x}, results); err != nil {
		t.Fatal(err)
	}
	var out outputs
	for i, into := range []*[]float32{&out.scores, &out.maps, &out.normalised} {
		*into = append(*into, results[i].(*ort.Tensor[float32]).GetData()...)
	}
	out.anomalous = append(out.anomalous, results[3].(*ort.Tensor[bool]).GetData()...)
	for _, r := range results {
		r.Destroy()
	}
	return out
}
