package weights_test

import (
	"encoding/binary"
	"fmt"
	"log"
	"math"
	"os"
	"path/filepath"

	"rdpp/rdpp/weights"
)

// A released checkpoint is a dictionary of state_dicts.
func ExampleOpen() {
	f, err := weights.Open("testdata/nested_checkpoint.pth")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	fmt.Println(f.Format)
	for _, t := range f.Tensors {
		values, err := t.Read()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(t.Name, t.DType, t.Shape, values.Float32()[:2])
	}
	// Output:
	// pytorch-zip
	// proj.proj.weight F32 [2 3] [1.5184591 0.071336284]
	// bn.bn.weight F32 [2 3] [-0.70766485 0.025547918]
	// decoder.decoder.weight F32 [2 3] [-0.54372555 -1.1501738]
}

// Code in a weight file is refused, not run.
func ExampleOpen_code() {
	_, err := weights.Open("testdata/refuse_code_zip.pth")
	fmt.Println(err)
	// Output:
	// weights: testdata/refuse_code_zip.pth: pickle: "posix.system" is not allowed in a weight file (it may run code); save a dictionary of plain tensors only
}

func ExampleWriteFile() {
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "model.safetensors")

	bias := weights.Source{Name: "bn.bias", DType: weights.F32, Shape: []int{1}, Bytes: func() ([]byte, error) {
		return binary.LittleEndian.AppendUint32(nil, math.Float32bits(0.5)), nil
	}}
	if err := weights.WriteFile(path, map[string]string{"category": "bottle"}, []weights.Source{bias}); err != nil {
		log.Fatal(err)
	}

	f, err := weights.OpenSafetensors(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	t, ok := f.Lookup("bn.bias")
	values, err := t.Read()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(f.Metadata["category"], ok, values.Float32())
	// Output:
	// bottle true [0.5]
}
