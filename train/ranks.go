package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/command"
	"rdpp/rdpp/ranks"
	"rdpp/torch"
)

// company are the processes that train one model with this one. The zero company is none.
type company struct {
	world  *ranks.World
	launch bool                         // this process starts the others
	wait   func(patience time.Duration) // for the ends of those that it has started
}

// find says which processes the environment names, or that this one is to start others, n in all; 0 and 1: none.
func find(n int) (c company, err error) {
	if c.world, err = ranks.FromOS(); err != nil {
		return c, command.Usagef("%w", err)
	}
	switch {
	case n < 0 || n > ranks.Most:
		return c, command.Usagef("--ranks %d; use 2 to %d", n, ranks.Most)
	case c.world != nil && n > 0 && c.world.Size != n:
		return c, command.Usagef("--ranks %d, and the environment has WORLD_SIZE=%d; leave --ranks out where something else starts the processes", n, c.world.Size)
	case c.world == nil && n > 1:
		c.world, c.launch = &ranks.World{Size: n, LocalSize: n}, true
	}
	return c, nil
}

// trainTogether trains with others, one category.
func (tr *training) trainTogether(ctx context.Context) (err error) {
	defer func() { err = tr.crew.named(err); tr.crew.part(tr.peers, err) }()
	if len(tr.sources) > 1 || tr.apart.URL != "" || tr.share.N > 1 {
		return command.Usagef("several processes train one model of one category; name one by --category, and leave --nats and --shard out")
	}
	c := tr.configOf(tr.sources[0].Category)
	if err := rdpp.CheckRanks(&c, tr.crew.world.Size); err != nil { // before others are started, who would all say so
		return err
	}
	if tr.peers, err = tr.crew.join(ctx, tr.device, tr.t); err != nil {
		return err
	}
	_, err = tr.train(ctx, tr.sources[0])
	return err
}

// shareMachine makes --threads, where it is not given, this process's share of the processors, and --device, where it leaves the
// choice, the GPU of this process's number on its machine.
func (c *company) shareMachine(flags *pflag.FlagSet, device *string, threads *int) error {
	if c.world == nil {
		return nil
	}
	if !flags.Changed("threads") && c.world.LocalSize > 0 {
		*threads = max(1, allowance.CPUs()/c.world.LocalSize)
	}
	if *device != "auto" && *device != "cuda" {
		return nil
	}
	found, err := torch.ParseDevice(*device)
	if err == nil && found != torch.CPU {
		*device = fmt.Sprintf("cuda:%d", c.world.Local)
	}
	return err
}

// ending is how long a process that has lost another may take to end by itself. What waits for a GPU may never.
const ending = 8 * time.Second

// join starts the others where that is to be, and waits until all are there.
func (c *company) join(ctx context.Context, device torch.Device, t *command.Terminal) (peers *ranks.Peers, err error) {
	if c.launch {
		if ctx, c.world, c.wait, err = ranks.Launch(ctx, c.world.Size, t.Stderr); err != nil {
			return nil, err
		}
	} else {
		ctx = c.world.Context(ctx)
	}
	peers, err = command.Await(ctx, func() (*ranks.Peers, error) { return ranks.Join(c.world, device) })
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ranks.ErrLost) {
		err = cause
	}
	if err == nil {
		go func() {
			<-peers.Lost()
			time.Sleep(ending)
			t.Complain(c.named(peers.Reason()))
			if c.wait != nil { // for one that is stopped, and would stay
				c.wait(0)
			}
			os.Exit(command.Failed)
		}()
		libtorch, _ := torch.Version()
		err = peers.Explain(peers.Same("versions", command.Versions(rdpp.Version, libtorch, rdpp.Commit())))
	}
	return peers, err
}

// named is an error of this process, by which others' are told apart.
func (c *company) named(err error) error {
	if err == nil || c.world == nil || c.world.Rank == 0 {
		return err
	}
	return fmt.Errorf("rank %d: %w", c.world.Rank, err)
}

// part takes leave of the others.
func (c *company) part(peers *ranks.Peers, err error) {
	if errors.Is(err, rdpp.ErrInterrupted) { // as they are
		err = nil
	}
	peers.Close(err)
	if c.wait == nil {
		return
	}
	patience := time.Minute // for what they write
	if peers == nil {
		patience = 0
	}
	c.wait(patience)
}

// alone refuses to be one of several processes.
func alone(what string) error {
	world, err := ranks.FromOS()
	if err == nil && world != nil {
		err = fmt.Errorf("%s is the work of one process, and the environment has WORLD_SIZE=%d: unset it", what, world.Size)
	}
	if err != nil {
		return command.Usagef("%w", err)
	}
	return nil
}
