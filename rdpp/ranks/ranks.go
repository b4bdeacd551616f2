// Package ranks has several processes, on one machine or on many, train one model. They meet as torchrun's do, by RANK,
// WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT of the environment; [Launch] starts them where there is no torchrun.
//
// What they compute together goes through a torch.Group. Beside it each has a connection to rank 0 ([watch]), by which all
// learn within seconds that one has ended, and why: libtorch's own operations would wait.
package ranks

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"rdpp/rdpp/setting"
	"rdpp/torch"
)

// World is what a process knows of the others before it meets them.
type World struct {
	Rank, Size       int    // this process, from 0, and how many there are
	Local, LocalSize int    // the same of those on this machine; LocalSize 0: not known
	Addr             string // rank 0's machine
	Port             int    // TCP, there
	Agent            bool   // torchrun keeps the store at that port
	Attempt          string // torchrun's number of this start, so that none meets what is left of another
	Network          string // interface to talk over; empty: the one that the machine's name leads to
	Launched         bool   // by Launch
}

// Most is how many processes there can be.
const Most = 1024

// meetingPatience is how long they wait for each other.
const meetingPatience = 5 * time.Minute

// The environment's names, torchrun's but for the last.
const (
	envRank, envSize       = "RANK", "WORLD_SIZE"
	envLocal, envLocalSize = "LOCAL_RANK", "LOCAL_WORLD_SIZE"
	envAddr, envPort       = "MASTER_ADDR", "MASTER_PORT"
	envAgent, envAttempt   = "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT"
	envNetwork             = "GLOO_SOCKET_IFNAME"
	envLaunched            = "RDPP_LAUNCHED" // Launch's own
)

// FromEnv reads the environment, by os.Getenv or the like. Nil: this process is alone.
func FromEnv(getenv func(string) string) (*World, error) {
	if getenv(envRank) == "" || getenv(envSize) == "" {
		return nil, nil
	}
	w := &World{Addr: getenv(envAddr), Agent: getenv(envAgent) == "True", Attempt: getenv(envAttempt), Network: getenv(envNetwork),
		Launched: getenv(envLaunched) != ""}
	for _, number := range []struct {
		name        string
		to          *int
		least, most int
		optional    bool
	}{{envSize, &w.Size, 1, Most, false}, {envRank, &w.Rank, 0, Most - 1, false}, {envPort, &w.Port, 1, 65535, false},
		{envLocal, &w.Local, 0, Most - 1, true}, {envLocalSize, &w.LocalSize, 1, Most, true}} {
		text := getenv(number.name)
		if text == "" && number.optional {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < number.least || n > number.most {
			return nil, fmt.Errorf("ranks: the environment has %s=%q beside %s and %s; several processes train one model where it is a number from %d to %d, and one "+
				"where %s is not set", number.name, text, envRank, envSize, number.least, number.most, envRank)
		}
		*number.to = n
	}
	switch {
	case w.Size == 1:
		return nil, nil
	case w.Rank >= w.Size:
		return nil, fmt.Errorf("ranks: the environment has %s=%d, and %s=%d; ranks are counted from 0", envRank, w.Rank, envSize, w.Size)
	case w.Addr == "":
		return nil, fmt.Errorf("ranks: the environment has %s and %s, and no %s; name the machine of rank 0 by it", envRank, envSize, envAddr)
	}
	return w, nil
}

// ErrLost is wrapped by errors that say which other process has ended.
var ErrLost = errors.New("ranks: another process is lost")

// Peers are the processes that train one model, this one included. Nil stands for one process alone. What it is asked for with
// the others' help, [Peers.Agree], [Peers.Share] and [Peers.Same], all ask for in the same order.
type Peers struct {
	world World
	group *torch.Group
	watch *watch
}

// Join waits until all processes are there. device is what this one computes on.
func Join(w *World, device torch.Device) (*Peers, error) {
	p := &Peers{world: *w}
	var err error
	p.group, err = meet(func() (*torch.Group, error) {
		return torch.Meet(torch.Meeting{Host: w.Addr, Port: w.Port, Server: w.Rank == 0 && !w.Agent, Name: "rdpp/" + w.Attempt, Network: w.Network,
			Rank: w.Rank, Size: w.Size, Patience: meetingPatience}, device)
	})
	if err != nil && !errors.Is(err, torch.ErrPeer) {
		return nil, fmt.Errorf("ranks: %w", err)
	}
	if err != nil {
		return nil, setting.Advise(fmt.Errorf("ranks: %w", err), "start as many processes as %s says, with the same %s and %s", envSize, envAddr, envPort)
	}
	if err := p.open(); err != nil {
		p.group.End("the processes could not be watched")
		p.group.Close()
		return nil, fmt.Errorf("ranks: the connection by which processes watch each other: %w", err)
	}
	return p, nil
}

// longestMeeting is the time to find rank 0, to wait for the others, and to connect to them.
const longestMeeting = 2*meetingPatience + time.Minute

// meet bounds how long f takes. By themselves libtorch's connections wait for ever: for one that came and was killed before all
// were there, at an address that leads elsewhere, or for what is no store.
func meet(f func() (*torch.Group, error)) (*torch.Group, error) {
	type answer struct {
		group *torch.Group
		err   error
	}
	done := make(chan answer, 1) // f, which nobody awaits any more, must not block
	go func() {
		group, err := f()
		done <- answer{group, err}
	}()
	select {
	case a := <-done:
		return a.group, a.err
	case <-time.After(longestMeeting):
		return nil, fmt.Errorf("%w: the processes are not connected after %v: one of them is gone, %s and %s lead to something else, or a machine's name does not "+
			"lead to it, where %s names its network interface", torch.ErrPeer, longestMeeting, envAddr, envPort, envNetwork)
	}
}

// open connects this process to rank 0's watch.
func (p *Peers) open() (err error) {
	type place struct {
		Port  int
		Token string
	}
	var at place
	var listener net.Listener
	if p.world.Rank == 0 {
		if listener, err = net.Listen("tcp", net.JoinHostPort(p.world.Addr, "0")); err != nil { // another machine's name for this one
			listener, err = net.Listen("tcp", ":0")
		}
		if err != nil {
			return err
		}
		defer listener.Close()
		at = place{listener.Addr().(*net.TCPAddr).Port, rand.Text()}
	}
	unwatched := time.AfterFunc(2*silence, func() { p.group.End("another process does not answer") })
	defer unwatched.Stop()
	if err := p.Share(&at); err != nil {
		return err
	}
	p.watch = newWatch(p.world.Rank, p.world.Size, func(why string) { p.group.End(why) })
	if p.world.Rank == 0 {
		return p.watch.accept(listener, at.Token)
	}
	return p.watch.dial(net.JoinHostPort(p.world.Addr, strconv.Itoa(at.Port)), at.Token)
}

// Rank is this process, from 0.
func (p *Peers) Rank() int { return p.Group().Rank() }

// Size is how many processes there are.
func (p *Peers) Size() int { return p.Group().Size() }

// First says whether this process is rank 0, which reads and writes what all share.
func (p *Peers) First() bool { return p.Rank() == 0 }

// Group is what they compute together by; nil: this process is alone.
func (p *Peers) Group() *torch.Group {
	if p == nil {
		return nil
	}
	return p.group
}

// Context ends where ctx ends in any process, and, with the cause ErrLost, where one is lost.
func (p *Peers) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithCancelCause(ctx)
	if p == nil {
		return inner, func() { cancel(nil) }
	}
	stop := context.AfterFunc(ctx, p.watch.interrupt)
	go func() {
		select {
		case <-p.watch.interrupted:
			cancel(nil)
		case <-p.watch.lost:
			cancel(ErrLost)
		case <-inner.Done():
		}
	}()
	return inner, func() { stop(); cancel(nil) }
}

// Going is how it is with a process.
type Going int

// What all processes do is what the last of these asks for that any of them is.
const (
	GoesOn Going = iota
	Stops        // at its end, or interrupted
	Fails
	ways
)

// Agree returns what all processes do.
func (p *Peers) Agree(own Going) (Going, error) {
	if p == nil {
		return own, nil
	}
	var ask [ways]float64
	ask[own] = 1
	sums, err := p.group.Sums(ask[:]...)
	if err != nil {
		return own, err
	}
	for way := ways - 1; way > 0; way-- {
		if sums[way] > 0 {
			return way, nil
		}
	}
	return GoesOn, nil
}

// Share makes what value points to what it is in rank 0, by way of JSON.
func (p *Peers) Share(value any) error {
	if p == nil {
		return nil
	}
	var text []byte
	if p.First() {
		var err error
		if text, err = json.Marshal(value); err != nil {
			return fmt.Errorf("ranks: %w", err)
		}
	}
	text, err := p.group.FirstBytes(text)
	if err != nil || p.First() {
		return err
	}
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("ranks: what rank 0 says: %w", err)
	}
	return nil
}

// Same is an error where value is not rank 0's. what names it in the plural, as in "training images".
func (p *Peers) Same(what, value string) error {
	first := value
	if err := p.Share(&first); err != nil || first == value {
		return err
	}
	return fmt.Errorf("ranks: rank %d has other %s than rank 0; give all processes the same command line, data and program", p.Rank(), what)
}

// Lost is closed where another process is lost; nil where this one is alone.
func (p *Peers) Lost() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.watch.lost
}

// Explain returns which process is lost, and why, where err comes of that; else err.
func (p *Peers) Explain(err error) error {
	if p == nil || !errors.Is(err, torch.ErrPeer) && !errors.Is(err, ErrLost) && !errors.Is(err, context.Canceled) {
		return err
	}
	wait := grace // the watch hears of it too
	if errors.Is(err, context.Canceled) {
		wait = 0
	}
	select {
	case <-p.watch.lost:
	case <-p.watch.interrupted:
	case <-time.After(wait):
	}
	if p.watch.why() == "" {
		return err
	}
	return p.Reason()
}

// Reason says which process is lost, where Lost is closed, and how to go on.
func (p *Peers) Reason() error {
	return setting.Advise(fmt.Errorf("%w: %s", ErrLost, p.watch.why()), "start all processes again, with {resume}: they go on from the last checkpoint")
}

// Close tells the others that this process has ended, with err or nil, and leaves them.
func (p *Peers) Close(err error) {
	if p == nil {
		return
	}
	p.watch.leave(err)
	p.group.Close()
}

// FromOS is FromEnv of this process's environment.
func FromOS() (*World, error) { return FromEnv(os.Getenv) }
