package plc

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/simonvetter/modbus"

	"rdpp/rdpp/setting"
)

// CoilOptions say how a coil is written. Zero means the default.
type CoilOptions struct {
	Unit uint8         // of the device behind a gateway, default 1
	Hold time.Duration // for which the coil stays on at least, default 0
	// Again is after what time an unchanged state is written again, so that a device that was restarted has it, and its watchdog sees
	// that it is there; default 1 s.
	Again   time.Duration
	Timeout time.Duration     // for an answer, default 1 s
	Log     func(text string) // is told that the device fails, and that it works again; default: nothing
}

// Coil is an output of a device that speaks Modbus TCP: on when the last part is to be sorted out, off when it is good. It is written
// from the first verdict on, and stays as it is at the end. While the device answers every rejected part turns it on, if only until
// the next verdict is written; a device that was away gets the last verdict alone.
type Coil struct {
	opt    CoilOptions
	name   string
	number uint16
	client *modbus.ModbusClient

	changed chan struct{}
	stop    context.CancelFunc
	ended   chan struct{}

	mu     sync.Mutex
	known  bool // there is a verdict
	last   bool // the coil's state by it
	reject bool // a part was to be sorted out since the coil was last written

	// These are run's.
	open    bool
	failing time.Time // since when; zero: it works
}

// OpenCoil begins to write to the coil of a number, as it is in the protocol, where the first one is 0, of the device at
// HOST[:PORT]. It connects once there is a verdict. The error is a *setting.Error of modbus.
func OpenCoil(address string, number uint16, opt *CoilOptions) (*Coil, error) {
	if opt == nil {
		opt = &CoilOptions{}
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port, err = net.SplitHostPort(net.JoinHostPort(address, "502"))
	}
	odd := host == "" || strings.ContainsAny(host, "/ ") || strings.Contains(host, ":") && net.ParseIP(host) == nil
	if n, wrong := strconv.ParseUint(port, 10, 16); err != nil || wrong != nil || n == 0 || odd {
		return nil, setting.Wrong("modbus", address, "use HOST or HOST:PORT")
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &Coil{opt: *opt, name: "modbus " + net.JoinHostPort(host, port), number: number, changed: make(chan struct{}, 1), stop: stop, ended: make(chan struct{})}
	c.opt.Unit = cmp.Or(c.opt.Unit, 1)
	c.opt.Again = cmp.Or(c.opt.Again, time.Second)
	c.opt.Timeout = cmp.Or(c.opt.Timeout, time.Second)
	if c.opt.Log == nil {
		c.opt.Log = func(string) {}
	}
	c.client, err = modbus.NewClient(&modbus.ClientConfiguration{URL: "tcp://" + net.JoinHostPort(host, port), Timeout: c.opt.Timeout,
		Logger: log.New(io.Discard, "", 0)}) // errors are returned, too
	if err == nil {
		err = c.client.SetUnitId(c.opt.Unit)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("plc: %s: %w", c.name, err)
	}
	go c.run(ctx)
	return c, nil
}

// Show writes the state's verdict, soon.
func (c *Coil) Show(s State) {
	c.mu.Lock()
	c.known, c.last = true, s.Rejected()
	c.reject = c.reject || c.last
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default: // it knows already
	}
}

// Close ends the writing, after a last verdict that is under way.
func (c *Coil) Close() error {
	c.stop()
	<-c.ended
	return nil
}

func (c *Coil) run(ctx context.Context) {
	defer close(c.ended)
	var held time.Time // until when the coil stays on
	for {
		wait := c.opt.Again
		if again := c.step(&held); again > 0 {
			wait = min(wait, again)
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			select {
			case <-c.changed:
				c.step(&held)
			default:
			}
			if c.open {
				c.client.Close()
			}
			return
		}
		timer.Stop()
	}
}

// step writes what the coil is to be, and says after what time, if not 0, it is to be something else.
func (c *Coil) step(held *time.Time) (again time.Duration) {
	c.mu.Lock()
	known, last, reject := c.known, c.last, c.reject
	c.mu.Unlock()
	if !known {
		return 0
	}
	now := time.Now()
	if reject {
		*held = now.Add(c.opt.Hold)
	}
	on := last || reject || now.Before(*held)
	if err := c.write(on); err != nil {
		if c.failing.IsZero() {
			c.failing = time.Now()
			c.opt.Log(fmt.Sprintf("%s: %v; coil %d is not written until it works again", c.name, err, c.number))
		}
		// Late it would be another part's.
		*held = time.Time{}
		c.mu.Lock()
		c.reject = c.last
		c.mu.Unlock()
		return 0
	}
	if !c.failing.IsZero() {
		c.opt.Log(fmt.Sprintf("%s: works again after %v", c.name, time.Since(c.failing).Round(time.Second)))
		c.failing = time.Time{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if on { // also for what came meanwhile, until the next step
		c.reject = false
	}
	if on && !c.last {
		return max(time.Until(*held), time.Nanosecond)
	}
	return 0
}

// write writes the coil, and connects first where it is not connected.
func (c *Coil) write(on bool) error {
	if !c.open {
		if err := c.client.Open(); err != nil {
			return err
		}
		c.open = true
	}
	err := c.client.WriteCoil(c.number, on)
	if err != nil {
		c.client.Close()
		c.open = false
	}
	return err
}
