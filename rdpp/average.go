package rdpp

import (
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// averageWeight is the share of the newest weights in the average after an update, counted from 0, of so many: a plain
// mean at first, then an exponential one that goes back over c.Average of all updates. 0 where nothing is averaged.
func (c *Config) averageWeight(update, updates int) float64 {
	if c.Average == 0 {
		return 0
	}
	return max(1/float64(update+1), min(1, 1/(c.Average*float64(updates))))
}

// startAverage makes the average of the weights: that of a checkpoint, or where there is none, a copy of the weights.
func (r *run) startAverage(file *weights.File) error {
	fresh, err := newModel(r.config, r.opt.Device, true)
	if err != nil {
		return err
	}
	fresh.Teacher.Close()
	fresh.Teacher = r.model.Teacher // which does not learn
	r.average = fresh
	if file == nil {
		return r.follow(1)
	}
	for _, part := range r.average.trained() {
		for _, e := range part.net.State() {
			if err := loadTensor(file, prefixAverage+part.prefix+e.Name, e.Tensor); err != nil {
				return err
			}
		}
	}
	return nil
}

// follow moves the average, where there is one, towards the weights. Running statistics of batch norms are averaged as
// the weights are.
func (r *run) follow(weight float64) error {
	if r.average == nil {
		return nil
	}
	from := r.model.trained()
	for i, part := range r.average.trained() {
		if err := torch.Average(part.net, from[i].net, weight); err != nil {
			return err
		}
	}
	return nil
}

// outcome is the model that the run has led to so far: the average, where there is one.
func (r *run) outcome() *Model {
	if r.average == nil {
		return r.model
	}
	r.average.Info = r.model.Info
	return r.average
}

// closeTrained frees all networks but the teacher, which belongs to another model.
func (m *Model) closeTrained() {
	for _, part := range m.trained() {
		part.net.Close()
	}
}
