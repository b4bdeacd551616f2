package torch

// #include "rdpp.h"
import "C"

import (
	"fmt"
	"runtime"
)

// Easy says which positions of L_KD are held back. The zero Easy holds none back, as released.
type Easy struct {
	Cut   float64 // share of the gradient that positions lose where the student is near to the teacher, 0 to 1
	Below float64 // near: below the mean distance of the batch's positions at that scale, plus so many deviations
	Group *Group  // the processes that the batch is dealt out to, for mean and deviation; nil: it is whole
}

// LossKD is L_KD (Eq. 1): the sum over scales of the mean of 1 - cos(f_k, g_k), the cosine taken over the whole
// flattened feature map (the released code), or with perPosition at every position (the equation's letter).
func LossKD(f, g Features, perPosition bool, easy Easy) (*Tensor, error) {
	ft, gt := f.raw(), g.raw()
	var form C.int32_t
	if perPosition {
		form = 1
	}
	return one("L_KD", func(out *C.rdpp_tensor) C.rdpp_error {
		return C.rdpp_loss_kd(&ft[0], &gt[0], form, C.double(easy.Cut), C.double(easy.Below), easy.Group.raw(), out)
	})
}

// LossRecon is L_Recon (Eq. 8) of the projected noisy and the projected clean features. In this and the next two, scales
// that are nil have no part.
func LossRecon(projectedNoisy, projected Features) (*Tensor, error) {
	n, p := projectedNoisy.raw(), projected.raw()
	return one("L_Recon", func(out *C.rdpp_tensor) C.rdpp_error {
		return C.rdpp_loss_recon(&n[0], &p[0], out)
	})
}

// LossContrast is L_Con (Eq. 9) of the teacher's noisy and the projected clean features.
func LossContrast(noisy, projected Features, margin float64) (*Tensor, error) {
	n, p := noisy.raw(), projected.raw()
	return one("L_Con", func(out *C.rdpp_tensor) C.rdpp_error {
		return C.rdpp_loss_contrast(&n[0], &p[0], C.double(margin), out)
	})
}

// SSOT is a reading of L_SSOT (Eq. 6).
type SSOT int32

// The readings of L_SSOT.
const (
	// SSOTPairwise compares image i with image shuffle(i), each one point: |softmax_i - softmax_j|^2 / 2.
	SSOTPairwise SSOT = C.RDPP_SSOT_PAIRWISE
	// SSOTBatch compares the batch, as one point cloud, with its own shuffle, as the released code does; its value
	// and its gradient are zero but for rounding.
	SSOTBatch SSOT = C.RDPP_SSOT_BATCH
	// SSOTOff leaves the term out.
	SSOTOff SSOT = C.RDPP_SSOT_OFF
)

// SinkhornOptions of the Sinkhorn divergence. A zero field means its default.
type SinkhornOptions struct {
	P        int     // exponent of the cost |x - y|^p / p, 1 or 2; default 2
	Blur     float64 // finest scale, in units of the points; default 0.05
	Reach    float64 // largest transport distance; zero: unbounded, a balanced problem
	Diameter float64 // of the point clouds; zero: measured from their bounding box
	Scaling  float64 // ratio of successive scales, between 0 and 1; default 0.95
	Biased   bool    // do not subtract the self-transport terms
}

func (o SinkhornOptions) c() C.rdpp_sinkhorn_options {
	c := C.rdpp_sinkhorn_options{p: 2, blur: 0.05, scaling: 0.95, reach: C.double(o.Reach), diameter: C.double(o.Diameter)}
	if o.P != 0 {
		c.p = C.double(o.P)
	}
	if o.Blur != 0 {
		c.blur = C.double(o.Blur)
	}
	if o.Scaling != 0 {
		c.scaling = C.double(o.Scaling)
	}
	if !o.Biased {
		c.debias = 1
	}
	return c
}

// LossSSOT is L_SSOT of projected clean features against the same rows shuffled: row i meets row shuffle[i].
// opt matters in SSOTBatch alone; the paper's is {Diameter: 1e7}.
func LossSSOT(projected Features, shuffle []int64, mode SSOT, opt SinkhornOptions) (*Tensor, error) {
	for _, row := range shuffle {
		if row < 0 || row >= int64(len(shuffle)) {
			return nil, fmt.Errorf("torch: L_SSOT: the shuffle holds row %d of %d", row, len(shuffle))
		}
	}
	if len(shuffle) == 0 {
		return nil, fmt.Errorf("torch: L_SSOT: the shuffle is empty")
	}
	p, options := projected.raw(), opt.c()
	t, err := one("L_SSOT", func(out *C.rdpp_tensor) C.rdpp_error {
		return C.rdpp_loss_ssot(&p[0], (*C.int64_t)(&shuffle[0]), C.int64_t(len(shuffle)), C.int32_t(mode), &options, out)
	})
	runtime.KeepAlive(shuffle)
	return t, err
}

// Sinkhorn returns the divergence of pairs of point clouds, x: P x N x D with weights a: P x N, and y: P x M x D
// with weights b: P x M; nil weights are uniform. The result has P values and is differentiable in x and y,
// through the last update of the solver alone. (J. Feydy's thesis, section 3.3.)
func Sinkhorn(x, y, a, b *Tensor, opt SinkhornOptions) (*Tensor, error) {
	options := opt.c()
	return one("sinkhorn", func(out *C.rdpp_tensor) C.rdpp_error {
		return C.rdpp_sinkhorn(x.raw(), y.raw(), a.raw(), b.raw(), &options, out)
	})
}

// LossClass is the cross-entropy of logits, B x N or B x N x H x W, and as many labels as they have rows, in 0..N-1 or
// -1 to be ignored; a share of smoothing of every target is spread over all classes. accuracy is the share of labels
// that were told.
func LossClass(logits *Tensor, labels []int64, smoothing float64) (loss, accuracy *Tensor, err error) {
	if len(labels) == 0 {
		return nil, nil, fmt.Errorf("torch: cross-entropy: no labels")
	}
	var l, a C.rdpp_tensor
	err = check("cross-entropy", C.rdpp_loss_class(logits.raw(), (*C.int64_t)(&labels[0]), C.int64_t(len(labels)),
		C.double(smoothing), &l, &a))
	runtime.KeepAlive(labels)
	if err != nil {
		return nil, nil, err
	}
	return wrap(l), wrap(a), nil
}

// LossPair is NT-Xent (Chen et al., 2020) of embeddings of length 1, B x D, whose rows 2i and 2i + 1 belong together;
// all other rows are negatives. accuracy is the share of rows that are nearest to their partner.
func LossPair(z *Tensor, temperature float64) (loss, accuracy *Tensor, err error) {
	var l, a C.rdpp_tensor
	if err := check("NT-Xent", C.rdpp_loss_pair(z.raw(), C.double(temperature), &l, &a)); err != nil {
		return nil, nil, err
	}
	return wrap(l), wrap(a), nil
}

// Term is a summand of the training loss.
type Term struct {
	Value  *Tensor // a scalar
	Weight float64
}

// WeightedSum returns the sum of Weight * Value.
func WeightedSum(terms ...Term) (*Tensor, error) {
	if len(terms) == 0 {
		return nil, fmt.Errorf("torch: weighted sum: no terms")
	}
	values, weights := make([]C.rdpp_tensor, len(terms)), make([]C.double, len(terms))
	for i, t := range terms {
		values[i], weights[i] = t.Value.raw(), C.double(t.Weight)
	}
	return one("weighted sum", func(out *C.rdpp_tensor) C.rdpp_error {
		return C.rdpp_weighted_sum(&values[0], &weights[0], C.int64_t(len(terms)), out)
	})
}

// Sum returns the sum of a tensor's elements, a scalar.
func Sum(t *Tensor) (*Tensor, error) {
	return one("sum", func(out *C.rdpp_tensor) C.rdpp_error { return C.rdpp_sum(t.raw(), out) })
}

// Backward adds the gradients of a scalar loss to every parameter it depends on.
func Backward(loss *Tensor) error {
	return check("backward", C.rdpp_backward(loss.raw()))
}

// Scalars reads scalar tensors in one transfer from the device.
func Scalars(terms ...*Tensor) ([]float64, error) {
	if len(terms) == 0 {
		return nil, nil
	}
	handles, values := make([]C.rdpp_tensor, len(terms)), make([]float64, len(terms))
	for i, t := range terms {
		handles[i] = t.raw()
	}
	err := check("read scalars", C.rdpp_scalars(&handles[0], C.int64_t(len(terms)), (*C.double)(&values[0])))
	return values, err
}

// one runs an operation whose result is one tensor.
func one(operation string, call func(out *C.rdpp_tensor) C.rdpp_error) (*Tensor, error) {
	var out C.rdpp_tensor
	if err := check(operation, call(&out)); err != nil {
		return nil, err
	}
	return wrap(out), nil
}
