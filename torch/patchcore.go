package torch

// #include "rdpp.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime"
)

// Patches returns what PatchCore (Roth et al., 2022) compares, B x H x W x D in Float32: of the features of layer2 and
// layer3 the means over 3 x 3 positions, layer3's stretched to the H x W of layer2. dimensions is 0, or a multiple of 2:
// then D, and patches are the released code's, averages over neighbouring values of the 3 x 3 positions.
func Patches(f Features, dimensions int) (*Tensor, error) {
	in := f.raw()
	return one("patches", func(out *C.rdpp_tensor) C.rdpp_error {
		return C.rdpp_patches(&in[0], C.int64_t(dimensions), out)
	})
}

// Coreset is a search for the patches that stand for all of them, each the farthest from all chosen before it.
type Coreset struct {
	c    *C.rdpp_coreset
	size int
}

// NewCoreset begins a search among patches, tensors of one type with D as their last dimension, which may be closed
// afterwards: closed ones that are not projected, and narrower than float64, take no memory any more. signs,
// D x K elements of -1, 0 and 1, projects them to K dimensions for the search; nil does not. start are the numbers of
// patches, counted through all tensors, from which the first one chosen is the farthest on average.
func NewCoreset(patches []*Tensor, signs *Tensor, start []int64) (*Coreset, error) {
	if len(patches) == 0 || len(start) == 0 {
		return nil, fmt.Errorf("torch: coreset: %d tensors of patches and %d starting points; at least one of each is needed",
			len(patches), len(start))
	}
	handles := make([]C.rdpp_tensor, len(patches))
	for i, t := range patches {
		handles[i] = t.raw()
	}
	c := new(Coreset)
	err := check("coreset", C.rdpp_coreset_new(&handles[0], C.int64_t(len(handles)), signs.raw(), (*C.int64_t)(&start[0]),
		C.int64_t(len(start)), &c.c))
	runtime.KeepAlive(start)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Coreset) raw() *C.rdpp_coreset {
	if c == nil {
		return nil
	}
	return c.c
}

// Close frees the search. It is idempotent.
func (c *Coreset) Close() {
	if c == nil {
		return
	}
	C.rdpp_coreset_free(c.c)
	c.c = nil
}

// Grow chooses n more patches, or as many as are left, and returns how many are chosen then. They are the same for any
// number of threads.
func (c *Coreset) Grow(n int) (size int, err error) {
	var grown C.int64_t
	if err := check("coreset", C.rdpp_coreset_grow(c.raw(), C.int64_t(n), &grown)); err != nil {
		return 0, err
	}
	c.size = int(grown)
	return c.size, nil
}

// Chosen returns the numbers of the chosen patches, in the order of their choice.
func (c *Coreset) Chosen() ([]int64, error) {
	if c.raw() == nil {
		return nil, errors.New("torch: coreset: it is nil or closed")
	}
	if c.size == 0 {
		return nil, nil
	}
	numbers := make([]int64, c.size)
	err := check("coreset", C.rdpp_coreset_chosen(c.c, C.int64_t(c.size), (*C.int64_t)(&numbers[0])))
	return numbers, err
}

// Patches returns the chosen patches, one a row, of the type and on the device of the first tensor.
func (c *Coreset) Patches() (*Tensor, error) {
	return one("coreset", func(out *C.rdpp_tensor) C.rdpp_error { return C.rdpp_coreset_patches(c.raw(), out) })
}

// Bank is the patches that PatchCore compares others with: a Network whose State is one entry, "patches".
type Bank struct{ *module }

// NewBank returns a bank of count patches of D dimensions, all zero, to be written over; dtype is Float32 or Float64.
func NewBank(count, D int, dtype DType, device Device) (Bank, error) {
	m := new(module)
	err := check("new bank", C.rdpp_bank_new(C.int64_t(count), C.int64_t(D), C.int32_t(dtype), device.c(), &m.m))
	if err != nil {
		return Bank{}, err
	}
	return Bank{m}, m.readState()
}

// BankOptions say how a bank is asked. The zero BankOptions are no defaults.
type BankOptions struct {
	Sigma      float64 // of the map's Gaussian, pixels
	Dimensions int     // as of Patches
	OfMap      bool    // an image's score is its map's maximum, instead of its farthest patch's distance
	Neighbours int     // b of the paper's Eq. 7, which weights the score; below 2: it is not weighted
	Bytes      int64   // distances that are in memory at a time
}

// NewPatchPredictor returns the predictor of PatchCore. Its maps are how far each place is from all patches of the bank.
// Neither maps nor scores depend on the batch.
func NewPatchPredictor(e Teacher, b Bank, opt BankOptions) (*Predictor, error) {
	modules := [...]*C.rdpp_module{e.raw(), b.raw()}
	return newPredictor(C.RDPP_PATCHES, modules[:], C.rdpp_predictor_options{bank: C.rdpp_bank_options{sigma: C.double(opt.Sigma),
		dimensions: C.int64_t(opt.Dimensions), of_map: flag(opt.OfMap), neighbours: C.int64_t(opt.Neighbours), bytes: C.int64_t(opt.Bytes)}})
}
