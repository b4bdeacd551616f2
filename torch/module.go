package torch

// #include <stdlib.h>
// #include "rdpp.h"
import "C"

import "unsafe"

// Architectures lists the ResNets by torchvision's names, of which there are all networks.
func Architectures() []string {
	return []string{"resnet18", "resnet34", "resnet50", "wide_resnet50_2"}
}

// EfficientNetB5 is the architecture of a frozen Teacher alone.
const EfficientNetB5 = "efficientnet_b5"

// Backbones lists the architectures of teachers.
func Backbones() []string { return append(Architectures(), EfficientNetB5) }

// Coarsest are the channels C of a teacher's coarsest features, and how many pixels of its input apart they are.
func Coarsest(arch string) (channels, stride int) {
	switch arch {
	case EfficientNetB5:
		return 304, 32
	case "resnet18", "resnet34":
		return 256, 16
	}
	return 1024, 16
}

// ModuleOptions say how a network is made.
type ModuleOptions struct {
	Arch   string // one of Architectures; of a teacher one of Backbones
	DType  DType  // Float32 or Float64; zero: Float32
	Device Device // zero: the CPU
	Seed   uint64 // of the fresh parameters
	// Reference computes in the released code's memory layout instead of channels last. Results are the same up to
	// rounding, and come slower.
	Reference bool
	// Blank leaves all parameters zero, for a State that is written over.
	Blank bool
	// Coarsest makes a projection of the coarsest scale alone, that passes the others on.
	Coarsest bool
	// Trainable makes a teacher that learns, with gradients and a training mode as the other networks have them. It is a ResNet.
	Trainable bool
}

// flags are those of rdpp_module_new.
func (o *ModuleOptions) flags() (flags C.int32_t) {
	for _, f := range []struct {
		on   bool
		flag C.int32_t
	}{{o.Trainable, C.RDPP_TRAINABLE}, {!o.Reference, C.RDPP_CHANNELS_LAST}, {o.Coarsest, C.RDPP_COARSEST}, {o.Blank, C.RDPP_BLANK}} {
		if f.on {
			flags |= f.flag
		}
	}
	return flags
}

// Entry is a parameter or buffer of a network, under its released name.
type Entry struct {
	Name      string
	Tensor    *Tensor // shares the network's memory, is closed with it
	Trainable bool
}

// module is what the networks share.
type module struct {
	m     *C.rdpp_module
	state []Entry
}

func newModule(kind C.int32_t, opt ModuleOptions) (*module, error) {
	if opt.DType == 0 {
		opt.DType = Float32
	}
	arch := C.CString(opt.Arch)
	defer C.free(unsafe.Pointer(arch))
	m := new(module)
	err := check("new network", C.rdpp_module_new(kind, arch, C.int32_t(opt.DType), opt.Device.c(),
		C.uint64_t(opt.Seed), opt.flags(), &m.m))
	if err != nil {
		return nil, err
	}
	return m, m.readState()
}

// readState fills m.state, or closes m.
func (m *module) readState() error {
	var n C.int64_t
	if err := check("state", C.rdpp_module_state_len(m.m, &n)); err != nil {
		m.Close()
		return err
	}
	for i := C.int64_t(0); i < n; i++ {
		var name *C.char
		var t C.rdpp_tensor
		var trainable C.int32_t
		if err := check("state", C.rdpp_module_state(m.m, i, &name, &t, &trainable)); err != nil {
			m.Close()
			return err
		}
		m.state = append(m.state, Entry{Name: C.GoString(name), Tensor: wrap(t), Trainable: trainable != 0})
	}
	return nil
}

// Close frees the network and its State. It is idempotent.
func (m *module) Close() {
	if m == nil || m.m == nil {
		return
	}
	for _, e := range m.state {
		e.Tensor.Close()
	}
	m.state = nil
	C.rdpp_module_free(m.m)
	m.m = nil
}

// Release is for a network in eval mode that will predict alone, images of one size and type in batches of any: it lets
// go of its weights as soon as it has the form of them that predicts fastest, and of its State at once. Another size or
// type, Train, and Average are ErrBadArgument from then on.
func (m *module) Release() error {
	if err := check("release", C.rdpp_module_release(m.raw())); err != nil {
		return err
	}
	for _, e := range m.state {
		e.Tensor.Close()
	}
	m.state = nil
	return nil
}

// State returns the state dict: parameters and buffers in PyTorch's order.
func (m *module) State() []Entry { return m.state }

// Train sets training mode, in which batch norms use the batch's statistics and follow them, or eval mode. A new
// network is in training mode; a frozen teacher is always in eval mode. Train(false) also prepares the network for fast
// prediction, so it must be called again after its State has been written.
func (m *module) Train(on bool) error {
	var v C.int32_t
	if on {
		v = 1
	}
	return check("training mode", C.rdpp_module_train(m.raw(), v))
}

// Average moves the state of into, running statistics of batch norms included, towards that of from: (1 - weight) *
// into + weight * from. Counts are copied. Both are of one kind and architecture. Where into is in eval mode it needs
// another Train(false) afterwards.
func Average(into, from Network, weight float64) error {
	return check("average", C.rdpp_module_average(into.raw(), from.raw(), C.double(weight)))
}

// Network is any of Teacher, Projection, Bottleneck, Student, Head, Bank, Flow, CrossFlow and Descriptor.
type Network interface {
	State() []Entry
	Train(on bool) error
	Release() error
	Close()
	raw() *C.rdpp_module
}

func (m *module) raw() *C.rdpp_module {
	if m == nil {
		return nil
	}
	return m.m
}

// Teacher is E: a ResNet up to layer3, or EfficientNet-B5 up to its stage of 304 channels; frozen unless it was made Trainable.
type Teacher struct{ *module }

// Projection is P: per scale four blocks of convolution, instance norm and LeakyReLU (paper, section 4.2). See
// ModuleOptions.Coarsest.
type Projection struct{ *module }

// Bottleneck is O, the one-class bottleneck embedding (OCBE).
type Bottleneck struct{ *module }

// Student is D, a reversed ResNet.
type Student struct{ *module }

// NewTeacher returns a teacher with random weights; write into its State to load others.
func NewTeacher(opt ModuleOptions) (Teacher, error) {
	m, err := newModule(C.RDPP_TEACHER, opt)
	return Teacher{m}, err
}

// NewProjection returns a fresh projection.
func NewProjection(opt ModuleOptions) (Projection, error) {
	m, err := newModule(C.RDPP_PROJECTION, opt)
	return Projection{m}, err
}

// NewBottleneck returns a fresh bottleneck.
func NewBottleneck(opt ModuleOptions) (Bottleneck, error) {
	m, err := newModule(C.RDPP_BOTTLENECK, opt)
	return Bottleneck{m}, err
}

// NewStudent returns a fresh student.
func NewStudent(opt ModuleOptions) (Student, error) {
	m, err := newModule(C.RDPP_STUDENT, opt)
	return Student{m}, err
}

// Forward maps normalised images x, B x 3 x S x S, to features f[k]: B x 64e*2^k x S/(4*2^k) x S/(4*2^k), of EfficientNetB5
// B x 64, 176 and 304 x S/(8*2^k) x S/(8*2^k), each side rounded up. No gradient flows through a frozen teacher. Images of BFloat16 in a Float32 network mean mixed precision: features of
// BFloat16, parameters and batch statistics of Float32.
func (m Teacher) Forward(x *Tensor) (Features, error) {
	var f [Scales]C.rdpp_tensor
	if err := check("teacher", C.rdpp_teacher(m.raw(), x.raw(), &f[0])); err != nil {
		return Features{}, err
	}
	return wrapFeatures(f), nil
}

// IgnoreLevel makes the teacher blind to the level of light: a constant that is added to all pixels before they are
// divided by std no longer changes a feature, away from the picture's edge. It changes conv1, and has to be repeated
// after every update.
func (m Teacher) IgnoreLevel(std [3]float32) error {
	s := [3]C.double{C.double(std[0]), C.double(std[1]), C.double(std[2])}
	return check("teacher", C.rdpp_teacher_ignore_level(m.raw(), &s[0]))
}

// ForwardPair maps clean and noisy images, each B x 3 x S x S with a B of its own, in one pass to features, the rows of
// the clean ones first.
func (m Teacher) ForwardPair(clean, noisy *Tensor) (Features, error) {
	var f [Scales]C.rdpp_tensor
	if err := check("teacher", C.rdpp_teacher_pair(m.raw(), clean.raw(), noisy.raw(), &f[0])); err != nil {
		return Features{}, err
	}
	return wrapFeatures(f), nil
}

// Forward maps features to projected features of the same shapes.
func (m Projection) Forward(f Features) (Features, error) {
	in := f.raw()
	var p [Scales]C.rdpp_tensor
	if err := check("projection", C.rdpp_projection(m.raw(), &in[0], &p[0])); err != nil {
		return Features{}, err
	}
	return wrapFeatures(p), nil
}

// Forward maps projected features to the embedding, B x 512e x S/32 x S/32.
func (m Bottleneck) Forward(p Features) (*Tensor, error) {
	in := p.raw()
	var z C.rdpp_tensor
	if err := check("bottleneck", C.rdpp_bottleneck(m.raw(), &in[0], &z)); err != nil {
		return nil, err
	}
	return wrap(z), nil
}

// Forward maps the embedding to features of the teacher's shapes.
func (m Student) Forward(z *Tensor) (Features, error) {
	var g [Scales]C.rdpp_tensor
	if err := check("student", C.rdpp_student(m.raw(), z.raw(), &g[0])); err != nil {
		return Features{}, err
	}
	return wrapFeatures(g), nil
}

// Objective is what a teacher learns.
type Objective int32

// The objectives.
const (
	ObjectiveClass Objective = C.RDPP_CLASS // the class of a picture
	ObjectiveDense Objective = C.RDPP_DENSE // the class of every position
	ObjectivePair  Objective = C.RDPP_PAIR  // which pictures belong together
)

// Head turns a teacher's features into answers, per scale, while the teacher learns.
type Head struct{ *module }

// NewHead returns fresh heads for the features of opt.Arch; outputs is the number of classes or, for ObjectivePair, of
// the embedding's dimensions. Reference, Blank and Trainable do not matter.
func NewHead(objective Objective, outputs int, opt ModuleOptions) (Head, error) {
	if opt.DType == 0 {
		opt.DType = Float32
	}
	arch := C.CString(opt.Arch)
	defer C.free(unsafe.Pointer(arch))
	m := new(module)
	err := check("new network", C.rdpp_head_new(C.int32_t(objective), arch, C.int64_t(outputs), C.int32_t(opt.DType),
		opt.Device.c(), C.uint64_t(opt.Seed), &m.m))
	if err != nil {
		return Head{}, err
	}
	return Head{m}, m.readState()
}

// Forward maps the features of scale k, B x C x H x W, to logits, B x N or with ObjectiveDense B x N x H x W, or to
// embeddings of length 1, B x D. BFloat16 becomes Float32.
func (m Head) Forward(k int, f *Tensor) (*Tensor, error) {
	return one("head", func(out *C.rdpp_tensor) C.rdpp_error { return C.rdpp_head(m.raw(), C.int64_t(k), f.raw(), out) })
}

// MapOptions say how an anomaly map is made of the distances of the scales, and a score of the map.
type MapOptions struct {
	Sigma   float64        // of the Gaussian that smooths it, pixels
	Weights [Terms]float64 // of what is summed; all zero: 1 for each scale, as released
	Levels  [Terms]float64 // above 0: the term is log(1 + d/level) of its distances d; 0: d, as released
	Top     float64        // share of the map's pixels, the highest ones, whose mean is the score; 0: their maximum, as released
}

// Terms is the number of maps that an anomaly map is the sum of: one for each scale, finest first, then one for
// each scale's features averaged over 3 x 3 positions.
const Terms = C.RDPP_TERMS

func (o MapOptions) raw() C.rdpp_map_options {
	if o.Weights == ([Terms]float64{}) {
		o.Weights = [Terms]float64{1, 1, 1}
	}
	c := C.rdpp_map_options{sigma: C.double(o.Sigma), top: C.double(o.Top)}
	for i, weight := range o.Weights {
		c.weights[i], c.levels[i] = C.double(weight), C.double(o.Levels[i])
	}
	return c
}

// AnomalyMap compares teacher and student features at input side S: raw is the weighted sum of the upsampled terms,
// smoothed its Gaussian (paper, Figure 4), both B x S x S.
func AnomalyMap(f, g Features, S int, opt MapOptions) (raw, smoothed *Tensor, err error) {
	ft, gt, options := f.raw(), g.raw(), opt.raw()
	var r, s C.rdpp_tensor
	err = check("anomaly map", C.rdpp_anomaly_map(&ft[0], &gt[0], C.int64_t(S), &options, &r, &s))
	if err != nil {
		return nil, nil, err
	}
	return wrap(r), wrap(s), nil
}
