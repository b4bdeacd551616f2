package torch

// #include <stdlib.h>
// #include "rdpp.h"
import "C"

import "unsafe"

// FlowOptions say how the flows of FastFlow are made. The zero FlowOptions are no defaults.
type FlowOptions struct {
	Side      int     // S of the images, a multiple of 32
	Steps     int     // of each scale's flow, at least 1
	Hidden    float64 // channels between a sub-network's two convolutions, per channel that it sees
	Pointwise bool    // every second step's convolutions are 1 x 1, the others' 3 x 3; else all are 3 x 3
	Clamp     float64 // largest logarithm of a coupling's scale
	Affine    bool    // the layer norms have a weight and a bias for every value of an image's features
}

// Flow is FastFlow (Yu et al., 2021): per scale a layer norm over all values of an image's features, and a flow whose steps
// are affine couplings. Its State has the order that every step gives the channels, in Int64, under the name "order".
type Flow struct{ *module }

// NewFlow returns fresh flows for the features of opt.Arch. Both their parameters and the channels' orders are drawn from
// opt.Seed. Coarsest and Trainable do not matter.
func NewFlow(opt ModuleOptions, flow FlowOptions) (Flow, error) {
	if opt.DType == 0 {
		opt.DType = Float32
	}
	arch := C.CString(opt.Arch)
	defer C.free(unsafe.Pointer(arch))
	o := C.rdpp_fastflow_options{side: C.int64_t(flow.Side), steps: C.int64_t(flow.Steps), hidden: C.double(flow.Hidden),
		pointwise: flag(flow.Pointwise), clamp: C.double(flow.Clamp), affine: flag(flow.Affine)}
	m := new(module)
	err := check("new flow", C.rdpp_fastflow_new(arch, &o, C.int32_t(opt.DType), opt.Device.c(), C.uint64_t(opt.Seed), opt.flags(), &m.m))
	if err != nil {
		return Flow{}, err
	}
	return Flow{m}, m.readState()
}

// Normalise gives each image's features of a scale a mean of 0 and a variance of 1, and then the weights and biases, where
// there are any: the same shapes, Float32 also of BFloat16.
func (m Flow) Normalise(f Features) (Features, error) {
	in := f.raw()
	var x [Scales]C.rdpp_tensor
	if err := check("layer norm", C.rdpp_fastflow_normalise(m.raw(), &in[0], &x[0])); err != nil {
		return Features{}, err
	}
	return wrapFeatures(x), nil
}

// Forward maps normalised features x to z of the same shapes. logDet are per scale the logarithms of the determinants of z's
// derivatives by x, B each.
func (m Flow) Forward(x Features) (z, logDet Features, err error) {
	in := x.raw()
	var out, logs [Scales]C.rdpp_tensor
	if err := check("flow", C.rdpp_fastflow(m.raw(), &in[0], &out[0], &logs[0])); err != nil {
		return Features{}, Features{}, err
	}
	return wrapFeatures(out), wrapFeatures(logs), nil
}

// Inverse is Forward's way back, outside autograd.
func (m Flow) Inverse(z Features) (Features, error) {
	in := z.raw()
	var x [Scales]C.rdpp_tensor
	if err := check("inverse flow", C.rdpp_fastflow_inverse(m.raw(), &in[0], &x[0])); err != nil {
		return Features{}, err
	}
	return wrapFeatures(x), nil
}

// LossFlow is the negative logarithm of the likelihood of what became z, N(0, 1) in every value, but for a constant: the sum
// over scales of |z|^2 / 2 - logDet, averaged over images.
func LossFlow(z, logDet Features) (*Tensor, error) {
	zs, logs := z.raw(), logDet.raw()
	return one("likelihood", func(out *C.rdpp_tensor) C.rdpp_error { return C.rdpp_loss_flow(&zs[0], &logs[0], out) })
}

// FlowMapOptions say how an anomaly map is made of z, and a score of the map. With m, half the mean of a position's squared z,
// a position's value is 1 - exp(-m), as published.
type FlowMapOptions struct {
	Sigma      float64 // of the Gaussian that smooths the map, pixels; 0: none, as published
	Likelihood bool    // a position's value is m itself
	Top        float64 // share of the map's pixels, the highest ones, whose mean is the score; 0: their maximum
}

// NewFlowPredictor returns the predictor of FastFlow. Its maps are means over scales, each stretched to the images' size.
func NewFlowPredictor(e Teacher, f Flow, opt FlowMapOptions) (*Predictor, error) {
	modules := [...]*C.rdpp_module{e.raw(), f.raw()}
	return newPredictor(C.RDPP_FLOWS, modules[:], C.rdpp_predictor_options{flow: C.rdpp_flow_map_options{sigma: C.double(opt.Sigma),
		likelihood: flag(opt.Likelihood), top: C.double(opt.Top)}})
}
