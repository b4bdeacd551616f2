// Package learned has what methods have in common that learn one network of what a teacher sees, by Adam, an update a batch:
// FastFlow, CSFlow and CFA. What the network is, its loss, and how a map is made of it is the method's own.
package learned

import (
	"errors"
	"fmt"
	"strings"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/method"
	"rdpp/rdpp/state"
	"rdpp/rdpp/teacher"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// prefixTeacher is before the names of the teacher's tensors in a file.
const prefixTeacher = "encoder."

// Net is a teacher and the network that learns: all of a method.Net but what is to be exported. A method's net embeds it.
type Net struct {
	Teacher torch.Teacher
	Device  torch.Device
	arch    string
	own     state.Part       // the network
	asked   *torch.Predictor // of both
}

// Make makes the teacher and, by network, the one that learns, both with fresh weights unless they are to be loaded, and the
// predictor of both. prefix is before the names of the network's tensors in a file. After an error the net is to be closed.
func (n *Net) Make(c *method.Settings, o method.Options, prefix string, network func(o torch.ModuleOptions) (torch.Network, error),
	predictor func() (*torch.Predictor, error)) (err error) {
	n.Device, n.arch = o.Device, c.Arch
	options := func(part string) torch.ModuleOptions {
		return torch.ModuleOptions{Arch: c.Arch, Device: o.Device, Seed: method.SeedOf(part, c.Seed), Blank: o.Blank}
	}
	if n.Teacher, err = torch.NewTeacher(options(prefixTeacher)); err != nil {
		return err
	}
	own, err := network(options(prefix))
	n.own = state.Part{Prefix: prefix, Net: own}
	if err != nil {
		return err
	}
	n.asked, err = predictor()
	return err
}

// Close frees both networks. It is idempotent.
func (n *Net) Close() {
	n.asked.Close()
	n.Teacher.Close()
	if n.own.Net != nil {
		n.own.Net.Close()
	}
}

// Backbone is the teacher.
func (n *Net) Backbone() torch.Teacher { return n.Teacher }

// Settle sets eval mode.
func (n *Net) Settle() error {
	if err := n.Teacher.Train(false); err != nil {
		return err
	}
	return n.own.Net.Train(false)
}

// Release leaves both networks the one form of their weights that predictions need.
func (n *Net) Release() error {
	if err := n.Teacher.Release(); err != nil {
		return err
	}
	return n.own.Net.Release()
}

// Predict maps normalised images to smoothed maps, and scores.
func (n *Net) Predict(x *torch.Tensor) (maps, scores *torch.Tensor, err error) {
	return n.asked.Predict(x)
}

// State lists the tensors of teacher and network.
func (n *Net) State() []weights.Source { return state.Of(n.parts()) }

// Facts are none.
func (n *Net) Facts() anomaly.Facts { return anomaly.Facts{} }

// parts lists the networks in the order of the file.
func (n *Net) parts() []state.Part {
	return []state.Part{{Prefix: prefixTeacher, Net: n.Teacher}, n.own}
}

// trained lists the one that learns.
func (n *Net) trained() []state.Part { return []state.Part{n.own} }

// Load fills teacher and network from a model file or a checkpoint. An order of channels in which one is missing is refused.
func (n *Net) Load(file *weights.File) error {
	within := func(name string) bool {
		return !strings.HasPrefix(name, state.PrefixAdam) && !strings.HasPrefix(name, state.PrefixGrad)
	}
	err := state.Fill(file, within, state.Under(n.parts())...)
	if err == nil {
		return n.checkOrders()
	}
	if nets := file.Backbones(); len(nets) == 1 && teacher.SameArch(nets[0].Arch, n.arch) != nil {
		err = fmt.Errorf("%w; it is of another architecture: %s, not %s", err, nets[0].Arch, n.arch)
	}
	if errors.Is(err, anomaly.ErrDamaged) || errors.Is(err, weights.ErrChanged) {
		return err
	}
	return fmt.Errorf("%w; restore the file or train again", err)
}

// checkOrders looks at the network's integers, which are the orders that it puts channels in.
func (n *Net) checkOrders() error {
	for _, e := range n.own.Net.State() {
		if dtype, err := e.Tensor.DType(); err != nil {
			return err
		} else if dtype != torch.Int64 {
			continue
		}
		order, err := torch.Read[int64](e.Tensor)
		if err != nil {
			return err
		}
		seen := make([]bool, len(order))
		for _, channel := range order {
			if channel < 0 || channel >= int64(len(order)) || seen[channel] {
				return fmt.Errorf("tensor %s%s is no order of %d channels: %d is there twice or in vain, %w", n.own.Prefix, e.Name, len(order), channel,
					anomaly.ErrDamaged)
			}
			seen[channel] = true
		}
	}
	return nil
}

// Plan is so many passes as the updates take, but no more than Epochs, over images as a detector sees them.
func Plan(c *method.Settings, images []int) method.Plan {
	passes, steps := c.Epochs, (images[0]+c.Batch-1)/c.Batch
	if c.Updates > 0 {
		passes = min(passes, (c.Updates+steps-1)/steps)
	}
	return method.Plan{Passes: passes, Batch: c.Batch, Noise: dataset.NoiseOptions{Off: true}}
}
