package export

import (
	"encoding/binary"
	"fmt"
	"math"

	"rdpp/rdpp/weights"
)

const normEps = 1e-5 // of every batch norm, but for those of EfficientNets

// norms are the entries of a batch norm: y = (x - mean) / sqrt(variance + eps) * weight + bias.
type norms struct {
	weight, bias, mean, variance weights.Source
	eps                          float64
}

// affine returns the batch norm as y = x * scale + shift, per channel.
func (n norms) affine() (scale, shift []float64, err error) {
	var values [4][]float32
	for i, t := range []weights.Source{n.weight, n.bias, n.mean, n.variance} {
		if values[i], err = read(t); err != nil {
			return nil, nil, err
		}
	}
	scale, shift = make([]float64, len(values[0])), make([]float64, len(values[0]))
	for c := range scale {
		scale[c] = float64(values[0][c]) / math.Sqrt(float64(values[3][c])+n.eps)
		shift[c] = float64(values[1][c]) - float64(values[2][c])*scale[c]
	}
	return scale, shift, nil
}

// fold makes a convolution without bias and the batch norm after it one convolution. Its values are computed when they
// are asked for.
func fold(weight weights.Source, n norms, transposed bool) (w, b weights.Source) {
	w, b = weight, n.bias
	w.Bytes = func() ([]byte, error) {
		scale, _, err := n.affine()
		if err != nil {
			return nil, err
		}
		values, err := read(weight)
		if err != nil {
			return nil, err
		}
		// out x in x h x w, or transposed: in x out x h x w
		inner := len(values) / (weight.Shape[0] * weight.Shape[1])
		for i := range values {
			channel := i / inner / weight.Shape[1]
			if transposed {
				channel = i / inner % weight.Shape[1]
			}
			values[i] = float32(float64(values[i]) * scale[channel])
		}
		return littleEndian(values), nil
	}
	b.Bytes = func() ([]byte, error) {
		_, shift, err := n.affine()
		if err != nil {
			return nil, err
		}
		values := make([]float32, len(shift))
		for c := range shift {
			values[c] = float32(shift[c])
		}
		return littleEndian(values), nil
	}
	return w, b
}

// elements returns a tensor's bytes, which are as many as its shape says.
func elements(t weights.Source) ([]byte, error) {
	data, err := t.Bytes()
	if err != nil {
		return nil, fmt.Errorf("tensor %s: %w", t.Name, err)
	}
	if want := size(t); len(data) != want {
		return nil, fmt.Errorf("tensor %s was given %d bytes, want %d", t.Name, len(data), want)
	}
	return data, nil
}

func size(t weights.Source) int { return weights.Tensor{Shape: t.Shape}.Len() * t.DType.Size() }

// read returns the elements of a tensor of type F32.
func read(t weights.Source) ([]float32, error) {
	data, err := elements(t)
	return weights.Tensor{DType: t.DType, Data: data}.Float32(), err
}

func littleEndian(values []float32) []byte {
	return weights.AppendFloat32(make([]byte, 0, 4*len(values)), values)
}

// float32s and integers are constants.
func float32s(name string, values []float32, shape ...int) weights.Source {
	return weights.Source{Name: name, DType: weights.F32, Shape: shape,
		Bytes: func() ([]byte, error) { return littleEndian(values), nil }}
}

func integers(name string, values []int64) weights.Source {
	var data []byte
	for _, v := range values {
		data = binary.LittleEndian.AppendUint64(data, uint64(v))
	}
	return weights.Source{Name: name, DType: weights.I64, Shape: []int{len(values)},
		Bytes: func() ([]byte, error) { return data, nil }}
}
