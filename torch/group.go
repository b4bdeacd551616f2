package torch

// #include <stdlib.h>
// #include "rdpp.h"
import "C"

import (
	"fmt"
	"sync"
	"time"
	"unsafe"
)

// Meeting says how the processes of a Group find each other.
type Meeting struct {
	Host       string        // where they meet
	Port       int           // TCP
	Server     bool          // this process keeps the store that they meet at
	Name       string        // before the store's keys
	Network    string        // interface to talk over; empty: the one that the machine's name leads to, or the loopback of a local Host
	Rank, Size int           // this process, from 0, and how many there are
	Patience   time.Duration // for all to come
}

// Group are processes that train one model: libtorch's c10d with gloo and, between CUDA devices, NCCL where libtorch has it.
// All of them call the same functions in the same order. What waits for a process that has ended is ErrPeer. A nil Group is
// one process.
//
// A batch is dealt out in turn: rank r of Size has its images r, r + Size, ... One that gets none computes with an image that
// does not count.
type Group struct {
	mu         sync.Mutex
	g          *C.rdpp_group
	rank, size int
}

// Meet waits until all processes are there. device is that of the tensors. It is ErrUnsupported where libtorch has no gloo.
func Meet(m Meeting, device Device) (*Group, error) {
	var c C.rdpp_meeting
	for _, text := range []struct {
		from string
		to   **C.char
	}{{m.Host, &c.host}, {m.Name, &c.name}, {m.Network, &c.network}} {
		*text.to = C.CString(text.from)
		defer C.free(unsafe.Pointer(*text.to))
	}
	c.port, c.rank, c.size, c.patience_ms = C.int32_t(m.Port), C.int32_t(m.Rank), C.int32_t(m.Size), C.int64_t(m.Patience.Milliseconds())
	if m.Server {
		c.server = 1
	}
	g := &Group{rank: m.Rank, size: m.Size}
	if err := check("group", C.rdpp_group_new(&c, device.c(), &g.g)); err != nil {
		return nil, err
	}
	return g, nil
}

// Rank is this process, from 0.
func (g *Group) Rank() int {
	if g == nil {
		return 0
	}
	return g.rank
}

// Size is how many processes there are.
func (g *Group) Size() int {
	if g == nil {
		return 1
	}
	return g.size
}

func (g *Group) raw() *C.rdpp_group {
	if g == nil {
		return nil
	}
	return g.g
}

// Close leaves the group. It is idempotent. Networks that share it stay in it.
func (g *Group) Close() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	C.rdpp_group_free(g.g)
	g.g = nil
}

// End makes whatever waits for another process, and will, fail with ErrPeer and this text. It may be called by any goroutine.
func (g *Group) End(why string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.g == nil {
		return nil
	}
	text := C.CString(why)
	defer C.free(unsafe.Pointer(text))
	return check("group", C.rdpp_group_end(g.g, text))
}

// Deal says that the batch at hand has B images, of all processes.
func (g *Group) Deal(B int) error { return check("group", C.rdpp_group_deal(g.raw(), C.int64_t(B))) }

// Sum makes t the sum over all processes' tensors of its shape.
func (g *Group) Sum(t *Tensor) error {
	return check("sum over processes", C.rdpp_group_sum(g.raw(), t.raw()))
}

// TakeFirst makes t what rank 0's tensor of its shape is.
func (g *Group) TakeFirst(t *Tensor) error {
	return check("broadcast", C.rdpp_group_take_first(g.raw(), t.raw()))
}

// Sums returns the sums of all processes' values, which are as many.
func (g *Group) Sums(values ...float64) ([]float64, error) {
	t, err := FromSlice(values, int64(len(values)))
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if err := g.Sum(t); err != nil {
		return nil, err
	}
	return Read[float64](t)
}

// FirstBytes returns rank 0's bytes.
func (g *Group) FirstBytes(data []byte) ([]byte, error) {
	n, err := FromSlice([]int64{int64(len(data))}, 1)
	if err != nil {
		return nil, err
	}
	defer n.Close()
	if err := g.TakeFirst(n); err != nil {
		return nil, err
	}
	length, err := Read[int64](n)
	if err != nil {
		return nil, err
	}
	if g.rank > 0 {
		data = make([]byte, length[0])
	}
	if length[0] == 0 {
		return data, nil
	}
	t, err := FromSlice(data, length[0])
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if err := g.TakeFirst(t); err != nil {
		return nil, err
	}
	return Read[uint8](t)
}

// Batch returns the whole batch's features, in its order, of this process's rows; BFloat16 becomes Float32. The gradient of a
// row is the sum over processes. Scales that are nil stay so.
func (g *Group) Batch(f Features) (all Features, err error) {
	in := f.raw()
	var out [Scales]C.rdpp_tensor
	if err := check("gather", C.rdpp_group_batch(g.raw(), &in[0], &out[0])); err != nil {
		return all, err
	}
	for k, h := range out {
		if h != nil {
			all[k] = wrap(h)
		}
	}
	return all, nil
}

// Share makes a network's batch norms take the statistics of the whole batch, in training mode.
func (g *Group) Share(n Network) error {
	return check("group", C.rdpp_group_share(g.raw(), n.raw()))
}

// SumGradients makes the gradients that wait for a step their sums over all processes.
func (a *Adam) SumGradients(g *Group) error {
	if g.raw() == nil {
		return fmt.Errorf("torch: sum of gradients: the group is closed")
	}
	return check("sum of gradients", C.rdpp_adam_sum(a.raw(), g.raw()))
}
