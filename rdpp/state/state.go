// Package state carries the tensors of networks and optimisers into files and back.
package state

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// Part is a network and what comes before the names of its tensors in a file, such as "decoder.".
type Part struct {
	Prefix string
	Net    torch.Network
}

// Of describes the state dicts of networks, in their order.
func Of(parts []Part) (sources []weights.Source) {
	for _, part := range parts {
		for _, e := range part.Net.State() {
			sources = append(sources, Source(part.Prefix+e.Name, e.Tensor))
		}
	}
	return sources
}

// CheckLearned says which tensor of networks, of those that learn, has numbers that are infinite or none: the losses of a
// training tell nothing of its last update.
func CheckLearned(parts []Part) error {
	for _, part := range parts {
		for _, e := range part.Net.State() {
			if !e.Trainable {
				continue
			}
			values, err := torch.Read[float32](e.Tensor)
			if err != nil {
				return err
			}
			for _, v := range values {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					return fmt.Errorf("weights of %s%s are %v after the last update", part.Prefix, e.Name, v)
				}
			}
		}
	}
	return nil
}

// Source describes a tensor for a file; its elements are fetched when their turn comes.
func Source(name string, t *torch.Tensor) weights.Source {
	s := weights.Source{Name: name, DType: weights.F32, Bytes: t.ReadBytes}
	types := map[torch.DType]weights.DType{torch.Int64: weights.I64, torch.Float16: weights.F16}
	shape, err := t.Shape()
	if err != nil {
		s.Bytes = func() ([]byte, error) { return nil, err }
	}
	for _, d := range shape {
		s.Shape = append(s.Shape, int(d))
	}
	if dtype, err := t.DType(); err == nil && types[dtype] != 0 {
		s.DType = types[dtype]
	}
	return s
}

// Filled is a network to be filled from a file, which names its tensors by Name. CountsOptional lets files lack the counts
// of batches, as older ones do: they play no part in eval mode.
type Filled struct {
	Net            torch.Network
	Name           func(name string) string
	CountsOptional bool
}

// Under are the parts, to be filled by the names that Of gives them.
func Under(parts []Part) (filled []Filled) {
	for _, part := range parts {
		filled = append(filled, Filled{Net: part.Net, Name: func(name string) string { return part.Prefix + name }})
	}
	return filled
}

// Fill copies a file's tensors into networks, if all of them fit and none that within accepts is left over.
func Fill(file *weights.File, within func(name string) bool, parts ...Filled) error {
	var wants []weights.Want
	into := map[string]*torch.Tensor{}
	for _, part := range parts {
		for _, e := range part.Net.State() {
			dims, err := e.Tensor.Shape()
			if err != nil {
				return err
			}
			w := weights.Want{Name: part.Name(e.Name), Shape: make([]int, len(dims)),
				Optional: part.CountsOptional && strings.HasSuffix(e.Name, "num_batches_tracked")}
			for i, dim := range dims {
				w.Shape[i] = int(dim)
			}
			wants, into[w.Name] = append(wants, w), e.Tensor
		}
	}
	if err := file.Match(wants, within); err != nil {
		return err
	}
	for _, w := range wants {
		if _, found := file.Lookup(w.Name); !found {
			continue
		}
		if err := Load(file, w.Name, into[w.Name]); err != nil {
			return err
		}
	}
	return nil
}

// Load copies the named tensor of a file, which must have t's shape and finite numbers, into t.
func Load(file *weights.File, name string, t *torch.Tensor) error {
	stored, found := file.Lookup(name)
	if !found {
		return missing(name)
	}
	shape, err := t.Shape()
	if err != nil {
		return err
	}
	same := len(shape) == len(stored.Shape)
	for i := range shape {
		same = same && shape[i] == int64(stored.Shape[i])
	}
	if !same {
		return fmt.Errorf("tensor %s has shape %v, needed is %v; is it of another architecture?", name, stored.Shape, shape)
	}
	values, err := stored.Read()
	if err != nil {
		return err
	}
	if !values.Finite() {
		return fmt.Errorf("tensor %s holds numbers that are infinite or none, %w", name, anomaly.ErrDamaged)
	}
	if strings.HasSuffix(name, "running_var") && slices.Min(append(values.Float64(), 0)) < 0 {
		return fmt.Errorf("tensor %s holds variances below 0, %w", name, anomaly.ErrDamaged)
	}
	dtype, known := map[weights.DType]torch.DType{weights.F16: torch.Float16, weights.BF16: torch.BFloat16,
		weights.F32: torch.Float32, weights.F64: torch.Float64, weights.I64: torch.Int64}[stored.DType]
	if !known {
		return fmt.Errorf("tensor %s has elements of type %s; floating-point ones are needed", name, stored.DType)
	}
	return t.WriteBytes(dtype, values.Data)
}

// Tensor makes a float32 tensor on a device of the named one in a file, whose shape is the file's own: for what has as
// many rows as there were images.
func Tensor(file *weights.File, name string, device torch.Device) (*torch.Tensor, error) {
	stored, found := file.Lookup(name)
	if !found {
		return nil, missing(name)
	}
	values, err := stored.Read()
	if err != nil {
		return nil, err
	}
	if !values.Finite() {
		return nil, fmt.Errorf("tensor %s holds numbers that are infinite or none, %w", name, anomaly.ErrDamaged)
	}
	shape := make([]int64, len(stored.Shape))
	for i, d := range stored.Shape {
		shape[i] = int64(d)
	}
	host, err := torch.FromSlice(values.Float32(), shape...)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	return host.To(device, torch.Float32)
}

// What comes before the names of an optimiser's tensors in a checkpoint.
const (
	PrefixAdam = "adam."
	PrefixGrad = "grad."
)

// Adam describes what an optimiser with a group per part knows: its moments, gradients that wait for an update, and how many
// updates each parameter has seen. The sources can be read until the scope is closed.
func Adam(s *torch.Scope, adam *torch.Adam, parts []Part) (sources []weights.Source, err error) {
	steps, waits := make([][]int64, len(parts)), make([][]int64, len(parts))
	err = eachParameter(parts, func(group, i int, name string, e torch.Entry) error {
		moments, err := adam.Moments(group, i)
		if err != nil {
			return err
		}
		s.Tensor(moments.ExpAvg, nil)
		s.Tensor(moments.ExpAvgSq, nil)
		s.Tensor(moments.Greatest, nil)
		sources = append(sources, Source(PrefixAdam+name+".exp_avg", moments.ExpAvg), Source(PrefixAdam+name+".exp_avg_sq", moments.ExpAvgSq))
		if moments.Greatest != nil {
			sources = append(sources, Source(PrefixAdam+name+".max_exp_avg_sq", moments.Greatest))
		}
		steps[group], waits[group] = append(steps[group], moments.Steps), append(waits[group], 0)
		if grad := s.Tensor(e.Tensor.Grad()); grad != nil {
			sources = append(sources, Source(PrefixGrad+name, grad))
			waits[group][i] = 1
		}
		return s.Err()
	})
	if err != nil {
		return nil, err
	}
	for group, part := range parts {
		counts := s.Tensor(torch.FromSlice(steps[group], int64(len(steps[group]))))
		waiting := s.Tensor(torch.FromSlice(waits[group], int64(len(waits[group]))))
		if err := s.Err(); err != nil {
			return nil, err
		}
		sources = append(sources, Source(stepsOf(part), counts), Source(waitingOf(part), waiting))
	}
	return sources, nil
}

// stepsOf names the updates that a part's parameters have seen.
func stepsOf(part Part) string { return PrefixAdam + part.Prefix + "steps" }

// waitingOf names what says, by a 1, of which of a part's parameters a gradient waits.
func waitingOf(part Part) string { return PrefixAdam + part.Prefix + "waiting" }

// RestoreAdam is the way back from Adam.
func RestoreAdam(file *weights.File, adam *torch.Adam, parts []Part) error {
	var steps, waits [][]float64
	for _, part := range parts {
		counts, err := numbers(file, stepsOf(part))
		if err != nil {
			return err
		}
		var waiting []float64
		if _, found := file.Lookup(waitingOf(part)); found { // files of older versions lack it
			if waiting, err = numbers(file, waitingOf(part)); err != nil {
				return err
			}
		}
		steps, waits = append(steps, counts), append(waits, waiting)
	}
	return eachParameter(parts, func(group, i int, name string, e torch.Entry) error {
		moments, err := adam.Moments(group, i)
		if err != nil {
			return err
		}
		defer moments.Close()
		if err := Load(file, PrefixAdam+name+".exp_avg", moments.ExpAvg); err != nil {
			return err
		}
		if err := Load(file, PrefixAdam+name+".exp_avg_sq", moments.ExpAvgSq); err != nil {
			return err
		}
		if moments.Greatest != nil {
			if err := Load(file, PrefixAdam+name+".max_exp_avg_sq", moments.Greatest); err != nil {
				return err
			}
		}
		if i >= len(steps[group]) || steps[group][i] < 0 {
			return fmt.Errorf("step counts of %s are missing, %w", name, anomaly.ErrDamaged)
		}
		if err := adam.SetSteps(group, i, int64(steps[group][i])); err != nil {
			return err
		}
		if _, found := file.Lookup(PrefixGrad + name); !found {
			if i < len(waits[group]) && waits[group][i] != 0 {
				return missing(PrefixGrad + name)
			}
			return nil
		}
		if err := e.Tensor.SetGrad(moments.ExpAvg); err != nil { // any tensor of its shape; the file's follows
			return err
		}
		grad, err := e.Tensor.Grad()
		if err != nil {
			return err
		}
		if grad == nil {
			return errors.New("a gradient that was set is not there")
		}
		defer grad.Close()
		return Load(file, PrefixGrad+name, grad)
	})
}

// FollowAdam makes an optimiser's moments and counts of updates those of rank 0's.
func FollowAdam(group *torch.Group, adam *torch.Adam, parts []Part) error {
	return eachParameter(parts, func(at, i int, _ string, _ torch.Entry) error {
		moments, err := adam.Moments(at, i)
		if err != nil {
			return err
		}
		defer moments.Close()
		count, err := torch.FromSlice([]int64{moments.Steps}, 1)
		if err != nil {
			return err
		}
		defer count.Close()
		for _, t := range []*torch.Tensor{moments.ExpAvg, moments.ExpAvgSq, moments.Greatest, count} {
			if t == nil {
				continue
			}
			if err := group.TakeFirst(t); err != nil {
				return err
			}
		}
		steps, err := torch.Read[int64](count)
		if err != nil {
			return err
		}
		return adam.SetSteps(at, i, steps[0])
	})
}

// numbers reads a tensor of counts.
func numbers(file *weights.File, name string) ([]float64, error) {
	stored, found := file.Lookup(name)
	if !found || stored.DType != weights.I64 {
		return nil, missing(name)
	}
	values, err := stored.Read()
	if err != nil {
		return nil, err
	}
	return values.Float64(), nil
}

func missing(name string) error {
	return fmt.Errorf("tensor %s is missing; restore the file or train again", name)
}

// eachParameter visits the trainable parameters, in the order of an optimiser with a group per part.
func eachParameter(parts []Part, visit func(group, i int, name string, e torch.Entry) error) error {
	for group, part := range parts {
		i := 0
		for _, e := range part.Net.State() {
			if !e.Trainable {
				continue
			}
			if err := visit(group, i, part.Prefix+e.Name, e); err != nil {
				return err
			}
			i++
		}
	}
	return nil
}
