package torch

// #include "rdpp.h"
import "C"

// Pyramid returns the teacher's coarsest features of normalised images x, B x 3 x S x S, of every second pixel of them and of
// every fourth: y[k] is B x C x H x H with H = S / (s * 2^k), rounded up, C and s being Coarsest's. No gradient flows through it.
func Pyramid(e Teacher, x *Tensor) (Features, error) {
	var y [Scales]C.rdpp_tensor
	if err := check("pyramid", C.rdpp_pyramid(e.raw(), x.raw(), &y[0])); err != nil {
		return Features{}, err
	}
	return wrapFeatures(y), nil
}

// CrossFlowOptions say how the flow of CSFlow is made. The zero CrossFlowOptions are no defaults.
type CrossFlowOptions struct {
	Channels int     // C of the features, at least 2
	Blocks   int     // coupling blocks, at least 1; the last one's kernels are 5 x 5, the others' 3 x 3
	Hidden   int     // channels between the two layers of a sub-network
	Clamp    float64 // largest logarithm of a coupling's scale
}

// CrossFlow is the flow of CSFlow (Rudolph et al., 2022) over the features of three image sizes. Its State has the orders
// that every block gives the channels of a scale, in Int64, under the names "block0.order0" and so on.
type CrossFlow struct{ *module }

// NewCrossFlow returns a fresh flow, which maps features to themselves but for the order of their channels. Its parameters
// and those orders are drawn from opt.Seed. Of opt, Arch, Coarsest and Trainable do not matter.
func NewCrossFlow(opt ModuleOptions, flow CrossFlowOptions) (CrossFlow, error) {
	if opt.DType == 0 {
		opt.DType = Float32
	}
	o := C.rdpp_cross_flow_options{channels: C.int64_t(flow.Channels), blocks: C.int64_t(flow.Blocks), hidden: C.int64_t(flow.Hidden),
		clamp: C.double(flow.Clamp)}
	m := new(module)
	err := check("new cross-scale flow", C.rdpp_cross_flow_new(&o, C.int32_t(opt.DType), opt.Device.c(), C.uint64_t(opt.Seed), opt.flags(), &m.m))
	if err != nil {
		return CrossFlow{}, err
	}
	return CrossFlow{m}, m.readState()
}

// Forward maps features y, such as Pyramid's, to z of the same shapes. logDet is the logarithm of the determinant of z's
// derivatives by y, B.
func (m CrossFlow) Forward(y Features) (z Features, logDet *Tensor, err error) {
	in := y.raw()
	var out [Scales]C.rdpp_tensor
	var sums C.rdpp_tensor
	if err := check("cross-scale flow", C.rdpp_cross_flow(m.raw(), &in[0], &out[0], &sums)); err != nil {
		return Features{}, nil, err
	}
	return wrapFeatures(out), wrap(sums), nil
}

// Inverse is the way back from z to y, without gradients.
func (m CrossFlow) Inverse(z Features) (Features, error) {
	in := z.raw()
	var out [Scales]C.rdpp_tensor
	if err := check("cross-scale flow", C.rdpp_cross_flow_inverse(m.raw(), &in[0], &out[0])); err != nil {
		return Features{}, err
	}
	return wrapFeatures(out), nil
}

// LossCrossFlow is the negative logarithm of the likelihood of images but for a constant, |z|^2 / 2 - logDet, divided by how
// many numbers an image has in z, and averaged over images: a scalar.
func LossCrossFlow(z Features, logDet *Tensor) (*Tensor, error) {
	in := z.raw()
	return one("loss of the cross-scale flow", func(out *C.rdpp_tensor) C.rdpp_error {
		return C.rdpp_loss_cross_flow(&in[0], logDet.raw(), out)
	})
}

// CrossMapOptions say how maps and scores are made of what a CrossFlow maps features to. A position's level is half the mean
// square of its channels.
type CrossMapOptions struct {
	Sigma   float64 // of the map's Gaussian, pixels
	Product bool    // a map is the product of all scales' levels, stretched to the image, instead of the finest one's
	OfMap   bool    // an image's score is its map's maximum, instead of half the mean square over all scales
}

// NewCrossPredictor returns the predictor of CSFlow. Neither maps nor scores depend on the batch.
func NewCrossPredictor(e Teacher, f CrossFlow, opt CrossMapOptions) (*Predictor, error) {
	modules := [...]*C.rdpp_module{e.raw(), f.raw()}
	return newPredictor(C.RDPP_CROSS_SCALES, modules[:], C.rdpp_predictor_options{cross: C.rdpp_cross_map_options{sigma: C.double(opt.Sigma),
		product: flag(opt.Product), of_map: flag(opt.OfMap)}})
}
