package torch

// #include "rdpp.h"
import "C"

import (
	"fmt"
	"slices"
)

// Precision says how a Float32 network computes. Weights, sums, losses and anomaly maps stay in float32.
type Precision string

// The precisions.
const (
	FP32 Precision = "fp32"
	TF32 Precision = "tf32" // products rounded to 10 bits of mantissa, on GPUs that can; fp32 elsewhere
	BF16 Precision = "bf16" // images and features of BFloat16; fast on GPUs, and on CPUs with AVX512_BF16
)

// Precisions lists them.
func Precisions() []string { return []string{string(FP32), string(TF32), string(BF16)} }

// ParsePrecision reads "fp32", "tf32" or "bf16"; nothing means fp32.
func ParsePrecision(name string) (Precision, error) {
	switch {
	case name == "":
		return FP32, nil
	case slices.Contains(Precisions(), name):
		return Precision(name), nil
	}
	return "", fmt.Errorf("torch: precision %q; use fp32, tf32 or bf16", name)
}

// DType is the element type of images and features.
func (p Precision) DType() DType {
	if p == BF16 {
		return BFloat16
	}
	return Float32
}

// SetArithmetic sets, for the whole process and from now on, whether GPUs may use TF32, and whether only operations are
// used that give the same bits every time, which is slower on GPUs; an operation that has no such form is then an error.
// Without a call neither holds. On the CPU results are the same bit for bit anyway, for the same number of threads.
func SetArithmetic(tf32, deterministic bool) error {
	return check("arithmetic", C.rdpp_set_arithmetic(flag(tf32), flag(deterministic)))
}

func flag(on bool) C.int32_t {
	if on {
		return 1
	}
	return 0
}
