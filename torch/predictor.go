package torch

// #include "rdpp.h"
import "C"

// Predictor is a model's way from images to anomaly maps and scores. It follows its networks: what their State holds
// counts after the next Train(false). They may be closed before it.
type Predictor struct {
	p *C.rdpp_predictor
}

// NewPredictor returns the predictor of RD++: scores are as the options have them. A zero Projection means the RD baseline:
// the bottleneck reads the teacher's features.
func NewPredictor(e Teacher, p Projection, o Bottleneck, d Student, opt MapOptions) (*Predictor, error) {
	modules := [...]*C.rdpp_module{e.raw(), p.raw(), o.raw(), d.raw()}
	return newPredictor(C.RDPP_STUDENTS, modules[:], C.rdpp_predictor_options{_map: opt.raw()})
}

func newPredictor(method C.int32_t, modules []*C.rdpp_module, options C.rdpp_predictor_options) (*Predictor, error) {
	p := new(Predictor)
	if err := check("new predictor", C.rdpp_predictor_new(method, &modules[0], C.int64_t(len(modules)), &options, &p.p)); err != nil {
		return nil, err
	}
	return p, nil
}

// Predict maps normalised images x, B x 3 x S x S, to anomaly maps, B x S x S, and image scores, B. All networks are in
// eval mode.
func (p *Predictor) Predict(x *Tensor) (maps, scores *Tensor, err error) {
	var raw *C.rdpp_predictor
	if p != nil {
		raw = p.p
	}
	var mp, sc C.rdpp_tensor
	if err := check("predict", C.rdpp_predict(raw, x.raw(), &mp, &sc)); err != nil {
		return nil, nil, err
	}
	return wrap(mp), wrap(sc), nil
}

// Predict is the Predict of a new Predictor that is closed afterwards, for few predictions.
func Predict(e Teacher, p Projection, o Bottleneck, d Student, x *Tensor, opt MapOptions) (maps, scores *Tensor, err error) {
	predictor, err := NewPredictor(e, p, o, d, opt)
	if err != nil {
		return nil, nil, err
	}
	defer predictor.Close()
	return predictor.Predict(x)
}

// Close frees the predictor. It is idempotent.
func (p *Predictor) Close() {
	if p == nil || p.p == nil {
		return
	}
	C.rdpp_predictor_free(p.p)
	p.p = nil
}
