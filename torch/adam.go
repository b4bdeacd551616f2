package torch

// #include "rdpp.h"
import "C"

// Adam is the optimiser of Kingma and Ba (2015), over parameter groups that each have a learning rate and, where
// SetDecay says so, decoupled weight decay (AdamW: Loshchilov and Hutter, 2019).
type Adam struct {
	a *C.rdpp_adam
}

// NewAdam returns an optimiser without parameters.
func NewAdam(beta1, beta2, eps float64) (*Adam, error) {
	a := new(Adam)
	err := check("new Adam", C.rdpp_adam_new(C.double(beta1), C.double(beta2), C.double(eps), &a.a))
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (a *Adam) raw() *C.rdpp_adam {
	if a == nil {
		return nil
	}
	return a.a
}

// Close frees the optimiser. It is idempotent.
func (a *Adam) Close() {
	if a == nil || a.a == nil {
		return
	}
	C.rdpp_adam_free(a.a)
	a.a = nil
}

// Add makes the trainable parameters of n a group.
func (a *Adam) Add(n Network, learningRate float64) error {
	if err := check("Adam group", C.rdpp_adam_add(a.raw(), n.raw(), C.double(learningRate))); err != nil {
		return err
	}

	return nil
}

// SetRate sets a group's learning rate from the next step on; groups are counted from 0 in the order of Add.
func (a *Adam) SetRate(group int, learningRate float64) error {
	return check("Adam group", C.rdpp_adam_set_rate(a.raw(), C.int64_t(group), C.double(learningRate)))
}

// SetDecay makes every step also multiply a group's weights, which are the parameters of more than one dimension, so
// neither biases nor batch norms, by 1 - learning rate * weightDecay.
func (a *Adam) SetDecay(group int, weightDecay float64) error {
	return check("Adam group", C.rdpp_adam_set_decay(a.raw(), C.int64_t(group), C.double(weightDecay)))
}

// SetDecayOfAll is SetDecay of all of a group's parameters, as torch.optim.AdamW has it.
func (a *Adam) SetDecayOfAll(group int, weightDecay float64) error {
	return check("Adam group", C.rdpp_adam_set_decay_of_all(a.raw(), C.int64_t(group), C.double(weightDecay)))
}

// SetAMSGrad makes every step divide by the greatest running average of squares that there was, instead of the present one
// (AMSGrad: Reddi et al., 2018).
func (a *Adam) SetAMSGrad(group int) error {
	return check("Adam group", C.rdpp_adam_set_amsgrad(a.raw(), C.int64_t(group)))
}

// SetPenalty makes every step add penalty times each of a group's parameters to its gradient, once gradients are shortened,
// which is what torch.optim.Adam calls weight decay.
func (a *Adam) SetPenalty(group int, penalty float64) error {
	return check("Adam group", C.rdpp_adam_set_penalty(a.raw(), C.int64_t(group), C.double(penalty)))
}

// SetClip makes every step shorten gradients that are longer than length, those of all groups taken as one vector, to
// it; 0 leaves them alone.
func (a *Adam) SetClip(length float64) error {
	return check("Adam clipping", C.rdpp_adam_set_clip(a.raw(), C.double(length)))
}

// Step updates every parameter that has a gradient and clears the gradients. Gradients of several backward
// passes before it are summed.
func (a *Adam) Step() error {
	return check("Adam step", C.rdpp_adam_step(a.raw()))
}

// Moments are Adam's running averages of one parameter, of its shape.
type Moments struct {
	ExpAvg, ExpAvgSq *Tensor // of the gradient and of its square; they share the optimiser's memory
	Greatest         *Tensor // AMSGrad's, of ExpAvgSq, likewise; nil where the group has none
	Steps            int64   // updates so far
}

// Close closes the tensors.
func (m Moments) Close() {
	m.ExpAvg.Close()
	m.ExpAvgSq.Close()
	m.Greatest.Close()
}

// Moments returns the averages of a parameter: the i-th trainable entry of the network that was added as
// group-th, both from 0.
func (a *Adam) Moments(group, i int) (Moments, error) {
	var first, second C.rdpp_tensor
	var steps C.int64_t
	err := check("Adam state", C.rdpp_adam_state(a.raw(), C.int64_t(group), C.int64_t(i), &first, &second, &steps))
	if err != nil {
		return Moments{}, err
	}
	m := Moments{ExpAvg: wrap(first), ExpAvgSq: wrap(second), Steps: int64(steps)}
	var greatest C.rdpp_tensor
	if err := check("Adam state", C.rdpp_adam_greatest(a.raw(), C.int64_t(group), C.int64_t(i), &greatest)); err != nil {
		m.Close()
		return Moments{}, err
	}
	if greatest != nil {
		m.Greatest = wrap(greatest)
	}
	return m, nil
}

// SetSteps sets the number of updates that a parameter has seen; write into its Moments for the rest.
func (a *Adam) SetSteps(group, i int, steps int64) error {
	return check("Adam state", C.rdpp_adam_set_step(a.raw(), C.int64_t(group), C.int64_t(i), C.int64_t(steps)))
}
