package bench

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"rdpp/rdpp"
	"rdpp/torch"
)

func TestPercentiles(t *testing.T) {
	series := func(n int) (d []time.Duration) {
		for i := n; i > 0; i-- { // descending: it must sort
			d = append(d, time.Duration(i)*time.Millisecond)
		}
		return d
	}
	for _, c := range []struct {
		durations []time.Duration
		want      Latency
	}{
		{series(1), Latency{1, 1, 1, 1, 1}},
		{series(2), Latency{1, 2, 2, 2, 2}},
		{series(10), Latency{5, 9, 10, 10, 10}},
		{series(100), Latency{50, 90, 95, 99, 100}},
		{series(1000), Latency{500, 900, 950, 990, 1000}},
		{[]time.Duration{1500 * time.Microsecond}, Latency{1.5, 1.5, 1.5, 1.5, 1.5}},
	} {
		n := len(c.durations)
		if got := percentiles(c.durations); got != c.want {
			t.Errorf("%d durations: got %v, want %v", n, got, c.want)
		}
	}
}

func TestMeasureCounts(t *testing.T) {
	for _, c := range []struct {
		name                  string
		load                  load
		opt                   Options
		wantCalls, wantImages int
	}{
		{"one client", load{clients: 1, images: 1}, Options{Count: 7, Time: time.Hour, WarmUp: 3}, 10, 7},
		{"no warm-up", load{clients: 1, images: 1}, Options{Count: 7, Time: time.Hour, WarmUp: -1}, 7, 7},
		{"four clients", load{clients: 4, images: 1}, Options{Count: 10, Time: time.Hour, WarmUp: 1}, 11, 10},
		{"more clients than calls", load{clients: 8, images: 1}, Options{Count: 2, Time: time.Hour, WarmUp: 1}, 3, 2},
		{"batches", load{clients: 1, images: 4}, Options{Count: 8, Time: time.Hour, WarmUp: 1}, 3, 8},
		{"warm-up of whole batches", load{clients: 1, images: 4}, Options{Count: 8, Time: time.Hour, WarmUp: 10}, 5, 8},
		{"a batch above the count", load{clients: 1, images: 4}, Options{Count: 1, Time: time.Hour, WarmUp: 1}, 2, 4},
		{"no time", load{clients: 1, images: 1}, Options{Count: 1000, Time: 1, WarmUp: 1}, 2, 1},
	} {
		var calls atomic.Int64
		c.load.call = func() error {
			calls.Add(1)
			for start := time.Now(); time.Since(start) < time.Microsecond; {
			}
			return nil
		}
		s, err := c.load.measure(context.Background(), &c.opt)
		if err != nil || int(calls.Load()) != c.wantCalls || s.Images != c.wantImages || s.Clients != c.load.clients {
			t.Errorf("%s: got %d calls, %d images, %d clients, %v, want %d, %d, %d", c.name, calls.Load(), s.Images, s.Clients, err,
				c.wantCalls, c.wantImages, c.load.clients)
		}
		if s.Latency.P50 < 0.001 || s.Latency.Max < s.Latency.P50 || s.Throughput != float64(s.Images)/s.Seconds {
			t.Errorf("%s: got %+v, want calls of 0.001 ms at least, and images/seconds", c.name, s)
		}
	}
}

// Clients of a batch are under way at the same time: each call here waits for the others.
func TestMeasureIsConcurrent(t *testing.T) {
	const clients = 3
	arrived, release := make(chan struct{}), make(chan struct{})
	go func() {
		for range clients {
			<-arrived
		}
		close(release)
	}()
	l := load{clients: clients, images: 1, call: func() error {
		arrived <- struct{}{}
		<-release
		return nil
	}}
	if s, err := l.measure(context.Background(), &Options{Count: clients, Time: time.Hour, WarmUp: -1}); err != nil || s.Images != clients {
		t.Errorf("got %+v, %v, want %d images", s, err, clients)
	}
}

func TestMeasureStops(t *testing.T) {
	broken := errors.New("broken")
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	for _, c := range []struct {
		name string
		call func() error
		want error
	}{
		{"in the warm-up", func() error { return broken }, broken},
		{"later", func() error {
			if calls++; calls > 3 {
				return broken
			}
			return nil
		}, broken},
		{"interrupted", func() error { cancel(); return nil }, context.Canceled},
	} {
		l := load{clients: 1, images: 1, call: c.call}
		if _, err := l.measure(ctx, &Options{Count: 1000, Time: time.Hour, WarmUp: 2}); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestModel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "model.safetensors")
	config := rdpp.DefaultConfig()
	config.Arch, config.ImageSize = "resnet18", 32
	model, err := rdpp.NewModel(config, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	if err := model.Save(file); err != nil {
		t.Fatal(err)
	}
	open := torch.LiveTensors()
	r, err := Model(context.Background(), file, torch.CPU, &Options{Batches: []int{1, 2}, Count: 4, WarmUp: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r.Model != file || r.Device != "cpu" || r.Arch != "resnet18" || r.Method != rdpp.MethodRDPP || r.ImageSize != 32 {
		t.Errorf("got %+v, want the model's description", r)
	}
	// The weights alone take more than 20 MiB.
	if r.OpenMS <= 0 || r.FirstMS <= 0 || r.PeakMemory < 20<<20 || r.PeakDeviceMemory != 0 {
		t.Errorf("got %+v, want times, memory, and none of a device", r)
	}
	if len(r.Speeds) != 2 || r.Speeds[0].Batch != 1 || r.Speeds[1].Batch != 2 || r.Speeds[0].Images != 4 || r.Speeds[1].Images != 4 {
		t.Errorf("got %+v, want 4 images of batch 1 and 2", r.Speeds)
	}
	for _, s := range r.Speeds {
		p := &s.Compute
		if p.Images != 4 || p.Throughput != float64(p.Images)/p.Seconds || p.Latency.P50 <= 0 || p.Latency.Max < p.Latency.P50 {
			t.Errorf("batch %d: got %+v, want 4 images and their times", s.Batch, p)
		}
	}
	if one, two := &r.Speeds[0], &r.Speeds[1]; one.Clients != 1 || two.Clients < 2*2+2 || r.OwnBatch != 32 {
		t.Errorf("got %d and %d clients and an own batch of %d, want 1, enough for two batches and their decoding, and 32", one.Clients, two.Clients,
			r.OwnBatch)
	}
	if got := torch.LiveTensors(); got != open {
		t.Errorf("got %d open tensors, want %d", got, open)
	}
	for name, opt := range map[string]*Options{"model": nil, "image": {Image: filepath.Join(t.TempDir(), "none.png")}} {
		model := file
		if name == "model" {
			model += ".missing"
		}
		if r, err := Model(context.Background(), model, torch.CPU, opt); err == nil {
			t.Errorf("missing %s: got %+v, want an error", name, r)
		}
	}
}

func TestCores(t *testing.T) {
	const paragraph = "processor\t: %\nmodel name\t: A CPU: fast\nphysical id\t: 0\ncore id\t\t: "
	for _, c := range []struct {
		name, info string
		want       int
	}{
		{"two threads of a core", paragraph + "0\n\n" + paragraph + "0\n\n", 1},
		{"two cores", paragraph + "0\n\n" + paragraph + "1\n\n", 2},
		{"two sockets", paragraph + "0\n\nphysical id\t: 1\ncore id\t\t: 0\n", 2},
		{"not named", "processor\t: 0\n\nprocessor\t: 1\n", 0},
		{"empty", "", 0},
	} {
		if got := cores(c.info); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
	if got, want := field(paragraph, "model name"), "A CPU: fast"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
