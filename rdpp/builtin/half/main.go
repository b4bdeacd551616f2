// Command half copies a safetensors file with its numbers in half precision, the tensors in the order of their names.
//
//	go run ./rdpp/builtin/half IN OUT SOURCE
//
// SOURCE says in the file's header where the numbers come from.
package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"

	"rdpp/rdpp/weights"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "half: usage: half IN OUT SOURCE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintf(os.Stderr, "half: %v\n", err)
		os.Exit(1)
	}
}

func run(in, out, source string) error {
	file, err := weights.OpenSafetensors(in)
	if err != nil {
		return err
	}
	defer file.Close()
	var sources []weights.Source
	for _, t := range file.Tensors {
		stored, err := t.Read()
		if err != nil {
			return err
		}
		values := stored.Float32()
		data := weights.AppendFloat16(nil, values)
		for i, v := range (weights.Tensor{DType: weights.F16, Data: data}).Float32() {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return fmt.Errorf("%s: %s has the number %v, which half precision cannot hold", in, t.Name, values[i])
			}
		}
		sources = append(sources, weights.Source{Name: t.Name, DType: weights.F16, Shape: t.Shape,
			Bytes: func() ([]byte, error) { return data, nil }})
	}
	slices.SortFunc(sources, func(a, b weights.Source) int { return cmp.Compare(a.Name, b.Name) })
	return weights.WriteFile(out, map[string]string{"format": "pt", "source": source}, sources)
}
