package torch

// #include <stdlib.h>
// #include "rdpp.h"
import "C"

import (
	"context"
	"unsafe"
)

// DescriptorOptions say how a Descriptor is made. The zero DescriptorOptions are no defaults.
type DescriptorOptions struct {
	Dimensions int     // D of a descriptor, at least 1
	Rows       int     // M of the bank, at least 1
	Radius     float64 // r of the spheres, with which training begins
	Fixed      bool    // r stays as it is; else it learns
}

// Descriptor is what CFA (Lee et al., 2022) learns: a 1 x 1 convolution over what a teacher's layers see around a position
// and the position's coordinates, and the bank that its results are compared with. Its State has the convolution, "radius"
// and the bank, "centres": M x D, which is zero until it is written.
type Descriptor struct{ *module }

// NewDescriptor returns a fresh descriptor for the features of opt.Arch. Coarsest and Trainable do not matter.
func NewDescriptor(opt ModuleOptions, d DescriptorOptions) (Descriptor, error) {
	if opt.DType == 0 {
		opt.DType = Float32
	}
	arch := C.CString(opt.Arch)
	defer C.free(unsafe.Pointer(arch))
	o := C.rdpp_descriptor_options{dimensions: C.int64_t(d.Dimensions), rows: C.int64_t(d.Rows), radius: C.double(d.Radius), fixed: flag(d.Fixed)}
	m := new(module)
	err := check("new descriptor", C.rdpp_descriptor_new(arch, &o, C.int32_t(opt.DType), opt.Device.c(), C.uint64_t(opt.Seed), opt.flags(), &m.m))
	if err != nil {
		return Descriptor{}, err
	}
	return Descriptor{m}, m.readState()
}

// Forward maps a teacher's features to descriptors phi, B x H x W x D, H and W those of layer1.
func (m Descriptor) Forward(f Features) (*Tensor, error) {
	in := f.raw()
	return one("descriptor", func(out *C.rdpp_tensor) C.rdpp_error { return C.rdpp_descriptor(m.raw(), &in[0], out) })
}

// SphereOptions say which rows of the bank a descriptor learns by. The zero SphereOptions are no defaults.
type SphereOptions struct {
	Near   int     // K nearest rows, which attract it
	Far    int     // J rows next to those, which repel it
	Margin float64 // alpha, by how much the squared distance from the latter may be less than r^2
	Nu     float64 // what both terms are divided by
	Bytes  int64   // distances that are in memory at a time
}

// Loss is, of descriptors phi and their squared distances d from rows of the bank, the means of max(0, d - r^2) over the K
// nearest (Eq. 1) and of max(0, r^2 - d - alpha) over the next J (Eq. 2), both divided by nu: scalars.
func (m Descriptor) Loss(phi *Tensor, opt SphereOptions) (attraction, repulsion *Tensor, err error) {
	o := C.rdpp_sphere_loss_options{near: C.int64_t(opt.Near), far: C.int64_t(opt.Far), margin: C.double(opt.Margin), nu: C.double(opt.Nu),
		bytes: C.int64_t(opt.Bytes)}
	var a, r C.rdpp_tensor
	if err := check("loss of spheres", C.rdpp_loss_spheres(m.raw(), phi.raw(), &o, &a, &r)); err != nil {
		return nil, nil, err
	}
	return wrap(a), wrap(r), nil
}

// KMeans returns the means of count clusters of points, N x D in Float32 on the CPU: count x D. It begins with k-means++,
// drawn from seed, and takes at most so many of Lloyd's iterations. The result is the same for any number of threads. Once ctx
// is done it ends within a second, with ctx's error.
func KMeans(ctx context.Context, points *Tensor, count, most int, seed uint64) (*Tensor, error) {
	var c *C.rdpp_clusters
	if err := check("k-means", C.rdpp_clusters_new(points.raw(), C.int64_t(count), C.int64_t(most), C.uint64_t(seed), &c)); err != nil {
		return nil, err
	}
	defer C.rdpp_clusters_free(c)
	for done := C.int32_t(0); done == 0; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := check("k-means", C.rdpp_clusters_step(c, &done)); err != nil {
			return nil, err
		}
	}
	return one("k-means", func(out *C.rdpp_tensor) C.rdpp_error { return C.rdpp_clusters_centres(c, out) })
}

// SphereMapOptions say how an anomaly map is made of distances from the bank.
type SphereMapOptions struct {
	Sigma float64 // of the map's Gaussian, pixels
	Near  int     // K nearest rows, whose softmin weights the distance of the nearest one (Eq. 5)
	Bytes int64   // distances that are in memory at a time
}

// NewSpherePredictor returns the predictor of CFA. Scores are the maps' maxima. Neither depends on the batch.
func NewSpherePredictor(e Teacher, m Descriptor, opt SphereMapOptions) (*Predictor, error) {
	modules := [...]*C.rdpp_module{e.raw(), m.raw()}
	return newPredictor(C.RDPP_SPHERES, modules[:], C.rdpp_predictor_options{sphere: C.rdpp_sphere_map_options{sigma: C.double(opt.Sigma),
		near: C.int64_t(opt.Near), bytes: C.int64_t(opt.Bytes)}})
}
