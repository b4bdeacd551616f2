// Package exporttest runs exported models, for tests: ONNX files by onnxruntime, TorchScript files by libtorch alone.
package exporttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	ort "github.com/yalue/onnxruntime_go"

	"rdpp/rdpp/export"
)

// LibraryVariable is the environment variable that may name onnxruntime's shared library. Without it the one is used
// that scripts/onnxruntime.sh has fetched.
const LibraryVariable = "RDPP_ONNXRUNTIME"

// Batch is the input of an exported model: Pixels or Planes, and their shape.
type Batch struct {
	Pixels []uint8
	Planes []float32
	Shape  []int64 // B x H x W x 3 or B x 3 x S x S
}

// Result is what an exported model says about a batch of B.
type Result struct {
	Scores     []float32 // B
	Maps       []float32 // B x S x S
	Normalised []float32 // B
	Anomalous  []bool    // B
}

// root is the checkout's folder, found above the folder of the test.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the test's folder")
		}
		dir = up
	}
}

var errNoLibrary = errors.New("no onnxruntime: run scripts/onnxruntime.sh, or name its library in " + LibraryVariable)

// start loads onnxruntime, once for all tests.
var start = sync.OnceValue(func() error {
	library := os.Getenv(LibraryVariable)
	if library == "" {
		dir, err := root()
		if err != nil {
			return err
		}
		library = filepath.Join(dir, "build", "onnxruntime", "libonnxruntime.so.1")
		if _, err := os.Stat(library); err != nil {
			return errNoLibrary
		}
	}
	ort.SetSharedLibraryPath(library)
	if err := ort.InitializeEnvironment(); err != nil {
		return fmt.Errorf("onnxruntime's library %s cannot be loaded: %w", library, err)
	}
	return nil
})

// NeedONNX skips the test where there is no onnxruntime, and fails it where there is one that cannot be loaded.
func NeedONNX(t testing.TB) {
	t.Helper()
	switch err := start(); {
	case errors.Is(err, errNoLibrary):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

// ONNX runs an ONNX file on one thread. Like NeedONNX it may skip the test.
func ONNX(t testing.TB, file string, in Batch) Result {
	t.Helper()
	NeedONNX(t)
	r, err := runONNX(file, in)
	if err != nil {
		t.Fatalf("onnxruntime: %s: %v", file, err)
	}
	return r
}

func runONNX(file string, in Batch) (r Result, err error) {
	options, err := ort.NewSessionOptions()
	if err != nil {
		return r, err
	}
	defer options.Destroy()
	if err := options.SetIntraOpNumThreads(1); err != nil {
		return r, err
	}
	var x ort.Value
	name := export.NamePixels
	if in.Pixels != nil {
		x, err = ort.NewTensor(in.Shape, in.Pixels)
	} else {
		name = export.NamePlanes
		x, err = ort.NewTensor(in.Shape, in.Planes)
	}
	if err != nil {
		return r, err
	}
	defer x.Destroy()
	outputs := []string{export.NameScore, export.NameMap, export.NameNormalised, export.NameAnomalous}
	session, err := ort.NewDynamicAdvancedSession(file, []string{name}, outputs, options)
	if err != nil {
		return r, err
	}
	defer session.Destroy()
	results := make([]ort.Value, len(outputs))
	if err := session.Run([]ort.Value{x}, results); err != nil {
		return r, err
	}
	for i, result := range results {
		defer result.Destroy()
		switch result := result.(type) {
		case *ort.Tensor[float32]:
			into := []*[]float32{&r.Scores, &r.Maps, &r.Normalised}[i]
			*into = append(*into, result.GetData()...) // a copy, since Destroy frees the data
		case *ort.Tensor[bool]:
			r.Anomalous = append(r.Anomalous, result.GetData()...)
		}
	}
	return r, nil
}

// Metadata returns what an ONNX file's metadata hold.
func Metadata(t testing.TB, file string) map[string]string {
	t.Helper()
	NeedONNX(t)
	metadata, err := ort.GetModelMetadata(file)
	if err != nil {
		t.Fatal(err)
	}
	defer metadata.Destroy()
	keys, err := metadata.GetCustomMetadataMapKeys()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, key := range keys {
		if values[key], _, err = metadata.LookupCustomMetadataMap(key); err != nil {
			t.Fatal(err)
		}
	}
	return values
}

// runner builds the program that runs TorchScript files by libtorch alone, and returns its path.
var runner = sync.OnceValues(func() (string, error) {
	dir, err := root()
	if err != nil {
		return "", err
	}
	build := filepath.Join(dir, "build")
	if text, err := exec.Command("cmake", "--build", build, "--target", "run_script").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building run_script: %w\n%s", err, text)
	}
	return filepath.Join(build, "run_script"), nil
})

// TorchScript runs a TorchScript file in a process that knows nothing of rdpp. That program is built where need be.
func TorchScript(t testing.TB, file string, in Batch) Result {
	t.Helper()
	program, err := runner()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	input, output := filepath.Join(dir, "input"), filepath.Join(dir, "output")
	data, dtype := in.Pixels, "uint8"
	if in.Pixels == nil {
		dtype = "float32"
		for _, v := range in.Planes {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
	}
	if err := os.WriteFile(input, data, 0o666); err != nil {
		t.Fatal(err)
	}
	args := []string{file, input, output, dtype}
	for _, d := range in.Shape {
		args = append(args, strconv.FormatInt(d, 10))
	}
	if text, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", file, err, text)
	}
	if data, err = os.ReadFile(output); err != nil {
		t.Fatal(err)
	}
	var values []float32
	for ; len(data) >= 4; data = data[4:] {
		values = append(values, math.Float32frombits(binary.LittleEndian.Uint32(data)))
	}
	B, n := int(in.Shape[0]), len(values)
	if n < 3*B {
		t.Fatalf("%s: got %d values for %d images", file, n, B)
	}
	r := Result{Scores: values[:B], Maps: values[B : n-2*B], Normalised: values[n-2*B : n-B]}
	for _, v := range values[n-B:] {
		r.Anomalous = append(r.Anomalous, v != 0)
	}
	return r
}
