package ranks

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Launch starts size - 1 copies of this program on this machine, with its arguments and the environment by which they and this
// process, rank 0, meet. meeting ends where one of them ends: its cause says which. wait waits for their ends, and ends them after
// a while. A copy learns by [World.Context] that this process has ended.
func Launch(ctx context.Context, size int, stderr io.Writer) (meeting context.Context, w *World, wait func(patience time.Duration), err error) {
	if size < 2 || size > Most {
		return nil, nil, nil, fmt.Errorf("ranks: %d processes; use 2 to %d", size, Most)
	}
	program, err := os.Executable()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("ranks: %w", err)
	}
	const here = "127.0.0.1"
	free, err := net.Listen("tcp", net.JoinHostPort(here, "0"))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("ranks: %w", err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close() // for the store
	w = &World{Size: size, LocalSize: size, Addr: here, Port: port}
	theirs, ours, err := os.Pipe() // into which nothing is written: the copies read its end where this process ends
	if err != nil {
		return nil, nil, nil, fmt.Errorf("ranks: %w", err)
	}
	defer theirs.Close()
	meeting, cancel := context.WithCancelCause(ctx)
	var copies sync.WaitGroup
	var started []*exec.Cmd
	for rank := 1; rank < size; rank++ {
		cmd := exec.Command(program, os.Args[1:]...)
		cmd.Stderr = stderr
		cmd.ExtraFiles = []*os.File{theirs}
		cmd.Env = append(os.Environ(), envLaunched+"=1")
		for name, value := range map[string]string{envRank: strconv.Itoa(rank), envSize: strconv.Itoa(size), envLocal: strconv.Itoa(rank),
			envLocalSize: strconv.Itoa(size), envAddr: here, envPort: strconv.Itoa(port)} {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		if err := cmd.Start(); err != nil {
			ours.Close()
			cancel(nil)
			return nil, nil, nil, fmt.Errorf("ranks: rank %d: %w", rank, err)
		}
		started = append(started, cmd)
		copies.Go(func() {
			err := cmd.Wait()
			cancel(fmt.Errorf("%w: rank %d of %d has ended: %v", ErrLost, rank, size, err))
		})
	}
	go func() {
		copies.Wait()
		ours.Close()
	}()
	return meeting, w, func(patience time.Duration) {
		killer := time.AfterFunc(patience, func() {
			for _, cmd := range started {
				cmd.Process.Kill()
			}
		})
		defer killer.Stop()
		copies.Wait()
		cancel(nil)
	}, nil
}

// lifeline is the number of the file by which a copy knows that rank 0 is there: the first of exec.Cmd's ExtraFiles.
const lifeline = 3

// Context ends, with the cause ErrLost, where the process that started this one by [Launch] ends, by kill -9 too. It is for the
// time until all have met; then [Peers.Context] does.
func (w *World) Context(ctx context.Context) context.Context {
	if !w.Launched {
		return ctx
	}
	syscall.CloseOnExec(lifeline)
	inner, cancel := context.WithCancelCause(ctx)
	go func() {
		io.Copy(io.Discard, os.NewFile(lifeline, "lifeline"))
		cancel(fmt.Errorf("%w: rank 0 of %d, which started this one, has ended before all had met", ErrLost, w.Size))
	}()
	return inner
}
