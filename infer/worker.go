package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"rdpp/infer/batch"
	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/bulk"
	"rdpp/rdpp/command"
	"rdpp/rdpp/queue"
	"rdpp/torch"
)

const workerHelp = `Usage: infer worker --nats URL [flags]

Does pieces of batches that infer batch --nats hands out, until it is ended by
SIGTERM. Any number of workers may come and go, also by kill -9. Models come
from the NATS server; images and the batch's --out must be there under the same
names as where infer batch runs, as folders of a network share are.
Exit codes: 0 ended, 1 of no use, such as without a working GPU, 2 wrong usage.

`

func runWorker(ctx context.Context, args []string, t *command.Terminal) (int, error) {
	flags := pflag.NewFlagSet("worker", pflag.ContinueOnError)
	w := worker{t: t, program: program()}
	var q command.NATS
	q.Register(flags, "NATS server at `URL`; required")
	flags.StringVar(&w.out, "out", "", "where the batch's --out is here; `DIR`")
	flags.StringVar(&w.models, "models", "", "keep models in `DIR`; default: in the user's cache")
	flags.StringVar(&w.device, "device", "auto", "`NAME`: auto, cpu or cuda[:N]")
	flags.IntVar(&w.threads, "threads", allowance.CPUs(), "`N` CPU threads")
	flags.IntVar(&w.batch, "batch", 0, "score `N` images at once; 0: what suits the device")
	flags.IntVar(&w.readers, "readers", 16, "read `N` images at once")
	flags.Int64Var(&w.maxMemory, "max-memory", allowance.MemoryDefault(1<<30)>>20, "`N` MiB to decode images in; a quarter more to read ahead")
	switch err := t.Parse(flags, args, command.Help{Text: workerHelp}); {
	case err != nil:
		return 0, err
	case flags.NArg() > 0:
		return 0, command.Usagef("%q is one argument too many", flags.Arg(0))
	case q.URL == "":
		return 0, command.Usagef("--nats is missing; name the server, such as nats://host:4222")
	case w.readers < 1 || w.readers > 1024:
		return 0, command.Usagef("--readers %d; use 1 to 1024", w.readers)
	case w.maxMemory < 1 || w.maxMemory > 1<<30:
		return 0, command.Usagef("--max-memory %d; use 1 to %d", w.maxMemory, 1<<30)
	}
	if err := q.Check(queue.CheckURL); err != nil {
		return 0, err
	}
	if _, err := w.flags("-", string(torch.FP32)).options(); err != nil { // the device and the numbers
		return 0, err
	}
	if w.models == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return 0, command.Usagef("no folder for models (%w); name one with --models", err)
		}
		w.models = filepath.Join(cache, "rdpp", "models")
	}
	defer limitMemory(w.maxMemory << 20)()
	defer w.close()
	log := logTo(t)
	var err error
	w.queue, err = queue.Connect(q.URL, queue.Images, queue.Options{Credentials: q.Credentials, Wait: true, Log: log})
	if err != nil {
		return 0, err
	}
	defer w.queue.Close()
	return command.Done, w.queue.Work(ctx, w.do)
}

// program is this program as tasks name it.
func program() string {
	libtorch, _ := torch.Version()
	return command.Build(rdpp.Version, libtorch, rdpp.Commit())
}

// worker is what infer worker works with.
type worker struct {
	t                       *command.Terminal
	program                 string
	queue                   *queue.Queue
	out, models, device     string
	threads, batch, readers int
	maxMemory               int64

	opened   string // the batch that run is of, its ID and folder; "": none
	detector *rdpp.Detector
	run      *batch.Runner
	end      func()
}

// flags are those of a model in a file.
func (w *worker) flags(file, precision string) *modelFlags {
	return &modelFlags{file: file, device: w.device, precision: precision, threads: w.threads, batch: w.batch, maxPixels: 1}
}

// do does a piece. The model stays open for the next one.
func (w *worker) do(ctx context.Context, piece queue.Task) error {
	task, err := batch.ReadTask(piece)
	if err != nil {
		return err
	}
	if task.By != w.program { // results of one batch would differ
		return fmt.Errorf("it is handed out by %s, and this worker is %s: use the same program for both", cmp.Or(task.By, "an older rdpp"), w.program)
	}
	b, err := batch.OpenTask(task, w.out)
	if err != nil {
		return err
	}
	if done, err := b.Done(task.Piece); done || err != nil {
		return err
	}
	if w.opened != b.ID()+b.Dir() {
		if err := w.open(ctx, b); err != nil {
			return err
		}
	}
	return w.run.Piece(ctx, task.Piece, nil)
}

// open opens the model of a batch.
func (w *worker) open(ctx context.Context, b *bulk.Batch) error {
	w.close()
	file, err := w.queue.Model(ctx, b.Model, w.models)
	if err != nil {
		return err
	}
	m := w.flags(file, "")
	if err := m.use(b); err != nil {
		return err
	}
	if w.detector, err = m.open(); err != nil {
		return err
	}
	w.run, w.end = m.runner(w.t, w.detector, b, w.maxMemory<<20, w.readers)
	w.opened = b.ID() + b.Dir()
	return nil
}

// close closes the model, if one is open.
func (w *worker) close() {
	if w.detector != nil {
		if w.end != nil {
			w.end()
		}
		w.detector.Close()
	}
	w.opened, w.detector, w.run, w.end = "", nil, nil, nil
}
