package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/queue"
	"rdpp/torch"
)

const workerUsage = `train worker --nats URL          do trainings that others hand out
Of train --nats and train reproduce --nats, one at a time, until it is ended by
SIGTERM, after a checkpoint. Any number of workers may come and go, also by
kill -9: a training goes on from its checkpoint at another one. Images and
results must be there under the same names as where they are handed out.
Exit codes: 0 ended, 1 of no use, such as without a working GPU, 2 wrong usage.
`

func runWorker(ctx context.Context, args []string, t *command.Terminal) error {
	flags := pflag.NewFlagSet("train", pflag.ContinueOnError)
	w := worker{t: t}
	var q command.NATS
	q.Register(flags, "NATS server at `URL`; required")
	device := flags.String("device", "auto", "`NAME`: auto, cpu, cuda or cuda:N")
	threads := flags.Int("threads", allowance.CPUs(), "`N` CPU threads; results depend on it")
	workers := flags.Int("workers", allowance.CPUs(), "`N` goroutines that make batches")
	cacheMiB := flags.Int64("cache", allowance.MemoryDefault(dataset.DefaultCacheBytes)>>20, "`N` MiB of memory for decoded images")
	quiet := flags.BoolP("quiet", "q", false, "no progress, warnings and errors alone")
	command.Words(flags, "device", "auto", "cpu", "cuda")
	switch err := parse(t, flags, args, command.Help{Text: workerUsage}); {
	case err != nil:
		return err
	case q.URL == "":
		return command.Usagef("--nats is missing; name the server, such as nats://host:4222")
	case *workers < 1 || *workers > 1024:
		return command.Usagef("--workers %d; use 1 to 1024", *workers)
	case *cacheMiB < 0 || *cacheMiB > 1<<30:
		return command.Usagef("--cache must be 0 to %d MiB", 1<<30)
	}
	if err := q.Check(queue.CheckURL); err != nil {
		return err
	}
	if err := alone("a worker's"); err != nil {
		return err
	}
	if _, err := setDevice(*device, *threads); err != nil { // what trainings would refuse
		return err
	}
	w.args = []string{"--resume", "--device=" + *device, "--threads=" + strconv.Itoa(*threads), "--workers=" + strconv.Itoa(*workers),
		"--cache=" + strconv.FormatInt(*cacheMiB, 10), "--quiet=" + strconv.FormatBool(*quiet)}
	work, err := queue.Connect(q.URL, queue.Trainings, queue.Options{Credentials: q.Credentials, Wait: true,
		Log: func(text string) { t.Complain(errors.New(text)) }})
	if err != nil {
		return err
	}
	defer work.Close()
	return work.Work(ctx, w.do)
}

// worker is what train worker works with.
type worker struct {
	t    *command.Terminal
	args []string // of each training
}

// do does a training. Where there is a checkpoint it goes on from that; one that is finished stays.
func (w *worker) do(ctx context.Context, task queue.Task) error {
	var o order
	if err := json.Unmarshal(task.Message, &o); err != nil {
		return queue.Vain(fmt.Errorf("no training: %w", err))
	}
	if own := program(); o.By != own {
		return fmt.Errorf("it is handed out by %s, and this worker is %s: use the same program for both", o.By, own)
	}
	if _, err := os.Stat(o.There); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w: the folder of results is not there on this machine", filepath.Dir(o.There), queue.ErrAway)
	}
	tr, err := readTraining(ctx, append(o.Args, w.args...), w.t)
	if err != nil {
		return w.whose(err, &o)
	}
	set, err := tr.openSet(ctx, tr.sources[0])
	if errors.Is(err, dataset.ErrNoFolder) && o.Images != "" {
		return fmt.Errorf("%w: %w", queue.ErrAway, err)
	}
	images := ""
	if err == nil && o.Images != "" {
		images, err = command.Await(ctx, func() (string, error) { return imagesOf(set, nil) })
	}
	if err == nil && images != o.Images {
		return fmt.Errorf("the images in %s are others on this machine than where they were handed out", tr.sources[0].Data)
	}
	if err == nil {
		_, err = tr.learn(set)
	}
	if err != nil && ctx.Err() == nil {
		return w.whose(err, &o)
	}
	return err
}

// whose marks an error of a training that every worker would come to. Images that could not be read where they were handed out, and
// cannot here, are such.
func (w *worker) whose(err error, o *order) error {
	device, number := new(torch.Error), syscall.Errno(0)
	switch {
	case errors.Is(err, rdpp.ErrBusy): // by a worker that the server has lost, and that goes on
		return fmt.Errorf("%w: %s", queue.ErrAway, w.t.Tell(err))
	case errors.As(err, &device), errors.As(err, &number) && o.Images != "", errors.Is(err, command.ErrUsage):
		return errors.New(w.t.Tell(err))
	}
	return queue.Vain(errors.New(w.t.Tell(err)))
}
