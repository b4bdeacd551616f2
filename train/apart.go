package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/queue"
	"rdpp/rdpp/share"
	"rdpp/torch"
)

// apart are the flags by which several machines share trainings.
type apart struct {
	command.NATS
	shard  string
	shards int
	lease  time.Duration
	tries  int
	flags  *pflag.FlagSet
}

// apartFlags are their names.
var apartFlags = []string{"shard", "shards", "nats", "nats-creds", "lease", "tries"}

func (a *apart) register(flags *pflag.FlagSet) {
	a.flags = flags
	flags.StringVar(&a.shard, "shard", "", "train share `N/N` alone, from 0/4 to 3/4 of four")
	flags.IntVar(&a.shards, "shards", 0, "of `N` shares, the one that JOB_COMPLETION_INDEX or\nSLURM_ARRAY_TASK_ID says")
	a.Register(flags, "hand trainings out by the NATS server at `URL` instead,\nto train worker, and wait for them")
	flags.DurationVar(&a.lease, "lease", 30*time.Second, "with --nats: a worker is lost when silent for `TIME`;\nholds for later trainings of the server too")
	flags.IntVar(&a.tries, "tries", queue.Trainings.Tries, "with --nats: hand a training out at most `N` times;\nholds for later ones of the server too")
}

// check finds what is wrong with the flags, and which share is this process's.
func (a *apart) check() (s share.Share, err error) {
	s = share.Share{N: 1}
	switch {
	case a.shards < 0:
		return s, command.Usagef("--shards %d; use 1 or more", a.shards)
	case a.URL != "" && (a.shard != "" || a.shards != 0):
		return s, command.Usagef("--shard and --shards are for trainings without --nats; workers take them by themselves")
	case a.URL == "" && (a.flags.Changed("lease") || a.flags.Changed("tries")):
		return s, command.Usagef("--lease and --tries are for --nats")
	case a.tries < 1:
		return s, command.Usagef("--tries %d; use 1 or more", a.tries)
	case a.lease < time.Second:
		return s, command.Usagef("--lease %v; use 1s or more", a.lease)
	}
	if err := a.Check(queue.CheckURL); err != nil {
		return s, err
	}
	if i := slices.IndexFunc(ofWorker, a.flags.Changed); a.URL != "" && i >= 0 {
		return s, command.Usagef("--%s is of the machine that trains, and with --nats that is each worker's: leave it out, and give train worker its own", ofWorker[i])
	}
	if a.shard != "" || a.shards != 0 { // without, tasks of an array may well differ in something else
		if s, err = share.Of(a.shard, a.shards, os.Getenv); err != nil {
			return s, command.Usagef("--shard, --shards: %w", err)
		}
	}
	return s, nil
}

// checkCategories finds what speaks against sharing the categories of a source.
func (a *apart) checkCategories(source *dataset.Source, categories []string, overwrite bool) error {
	switch {
	case a.URL == "" && a.shard == "" && a.shards == 0:
		return nil
	case source.Data == "" || len(categories) == 0:
		return command.Usagef("--nats and --shard share the categories of --data; name them with --category, or all")
	case overwrite:
		return command.Usagef("--overwrite would train anew what a process that was lost has finished; remove the folder instead")
	}
	return nil
}

// connect connects to the server.
func (a *apart) connect(log func(text string)) (*queue.Queue, error) {
	asked := queue.Options{Credentials: a.Credentials, Log: log}
	if a.flags.Changed("lease") { // else the server keeps what it has
		asked.Lease = a.lease
	}
	if a.flags.Changed("tries") {
		asked.Tries = a.tries
	}
	q, err := queue.Connect(a.URL, queue.Trainings, asked)
	if err != nil {
		return nil, fmt.Errorf("--nats: %w", err)
	}
	return q, nil
}

// ofWorker are the flags that each worker has of its own.
var ofWorker = []string{"device", "devices", "threads", "workers", "cache"}

// ofCommand are those that the command itself heeds, or that workers are told otherwise.
var ofCommand = []string{"data", "out", "category", "json", "quiet", "resume", "overwrite"}

// argsOf are the flags that say what a model becomes, as they were given. Files are named from the root.
func argsOf(flags *pflag.FlagSet) (args []string, err error) {
	flags.Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		if slices.Contains(ofWorker, f.Name) || slices.Contains(ofCommand, f.Name) || slices.Contains(apartFlags, f.Name) {
			return
		}
		_, box := boxOf(value)
		if f.Name == "config" || f.Name == "from" || f.Name == "ignore" || f.Name == "roi" && !box || f.Name == "teacher" && !slices.Contains(rdpp.TeacherWords(), value) {
			whole, failed := filepath.Abs(value)
			err = cmp.Or(err, failed)
			value = whole
		}
		args = append(args, "--"+f.Name+"="+value)
	})
	slices.Sort(args)
	return args, err
}

// order is a message to workers: a training. Images and results are on a share, under the same names everywhere.
type order struct {
	Args   []string `json:"args"`   // of train, but for those of the worker
	There  string   `json:"there"`  // a file where the results are to be, which says that their folder is there
	By     string   `json:"by"`     // program that hands it out
	Images string   `json:"images"` // fingerprint of all images; "": they could not be read, which a worker then says
}

// program is this program as orders name it: by another one defaults and models may differ.
func program() string {
	libtorch, _ := torch.Version()
	return command.Build(rdpp.Version, libtorch, rdpp.Commit())
}

// handed is what is handed out, and what becomes of it.
type handed struct {
	There   string
	Args    func(i int) []string
	Of      int
	Open    func(i int) (*dataset.Set, error)
	Done    func(i int) bool // is asked over and over
	Failed  func(i int, reason string)
	Tell    func(busy int)
	OnError func(error)
}

// hand hands trainings out and waits for them. What fails is told, and is queue.ErrDead in the end.
func (a *apart) hand(ctx context.Context, h *handed) error {
	q, err := a.connect(func(text string) { h.OnError(errors.New(text)) })
	if err != nil {
		return err
	}
	defer q.Close()
	hash := sha256.New()
	for i := range h.Of {
		fmt.Fprintf(hash, "%q", h.Args(i))
	}
	messages := make([][]byte, h.Of) // made once, as all images are read for them
	return q.Hand(ctx, &queue.Job{ID: fmt.Sprintf("%x", hash.Sum(nil)), Pieces: h.Of, Every: lineEvery, Tell: h.Tell, GivenUp: h.Failed,
		Renew: true, // images may be others than when the same command was interrupted
		Message: func(i int) ([]byte, error) {
			if messages[i] != nil {
				return messages[i], nil
			}
			images, err := command.Await(ctx, func() (string, error) { return imagesOf(h.Open(i)) })
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				images = ""
			}
			messages[i], err = json.Marshal(order{h.Args(i), h.There, program(), images})
			return messages[i], err
		},
		Missing: func() iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for i := range h.Of {
					if !h.Done(i) && !yield(i, nil) {
						return
					}
				}
			}
		}})
}

// imagesOf is the fingerprint of all images of a data set.
func imagesOf(set *dataset.Set, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return dataset.Fingerprint(slices.Concat(set.Train, set.Test))
}

// handOut has the categories trained by workers, and gathers the page of them all.
func (tr *training) handOut(ctx context.Context) error {
	var err error
	if tr.out, err = filepath.Abs(tr.out); err != nil {
		return err
	}
	for i := range tr.sources {
		if tr.sources[i].Data, err = filepath.Abs(tr.sources[i].Data); err != nil {
			return err
		}
	}
	if err := tr.tellOthers(); err != nil {
		return err
	}
	entries := make([]rdpp.IndexEntry, len(tr.sources))
	finished := make([]bool, len(tr.sources))
	before := 0
	for i := range tr.sources {
		entries[i] = rdpp.IndexEntry{Category: tr.category(i), Reason: "not trained yet"}
		if !tr.resume {
			if err := tr.isNew(i); err != nil {
				return err
			}
			continue
		}
		c := tr.configOf(tr.category(i))
		s, err := rdpp.Finished(tr.folder(i), &c, tr.teacher)
		if err != nil {
			return fmt.Errorf("%s: %w", tr.category(i), err)
		}
		if finished[i] = s != nil; finished[i] {
			before++
		}
	}
	page := func() error {
		return tr.writePage(entries, func(i int) bool { return finished[i] })
	}
	if err := page(); err != nil { // the folder has to be there, with something in it
		return err
	}
	began, done := time.Now(), before
	h := &handed{There: filepath.Join(tr.out, rdpp.IndexFile), Of: len(tr.sources), OnError: tr.t.Complain,
		Args: func(i int) []string { // the folder itself, as a name with a comma in it is two, and one may be all
			return slices.Concat(tr.args, []string{"--data=" + tr.sources[i].Data, "--out=" + tr.out})
		},
		Open: func(i int) (*dataset.Set, error) { return tr.sources[i].Open(&tr.open) },
		Done: func(i int) bool {
			if finished[i] {
				return true
			}
			s, err := rdpp.Finished(tr.folder(i), nil, "")
			if err != nil || s == nil { // an error is the worker's to tell, too
				return false
			}
			finished[i] = true
			done++
			show := &progress{category: tr.category(i), stdout: tr.stdout}
			if tr.asJSON {
				show.json = json.NewEncoder(tr.t.Stdout)
			}
			show.done(s)
			return true
		},
		Failed: func(i int, reason string) {
			entries[i].Reason = reason
			tr.t.Complain(fmt.Errorf("%s is given up: %s", tr.category(i), reason))
		},
		Tell: func(busy int) {
			text := fmt.Sprintf("all: %d of %d categories, %d in work", done, len(tr.sources), busy)
			if done > before {
				text += fmt.Sprintf(", about %s left", durationText(time.Since(began)/time.Duration(done-before)*time.Duration(len(tr.sources)-done)))
			}
			say(tr.forPeople(), "%s", text)
			if err := page(); err != nil { // it is written once more
				tr.t.Complain(err)
			}
		}}
	err = tr.apart.hand(ctx, h)
	if err == nil || errors.Is(err, queue.ErrDead) {
		if err := page(); err != nil {
			return err
		}
		say(tr.forPeople(), "all: page %s", filepath.Join(tr.out, rdpp.IndexFile))
	}
	switch {
	case errors.Is(err, queue.ErrDead):
		var failed []string
		for i, f := range finished {
			if !f {
				failed = append(failed, tr.category(i))
			}
		}
		return fmt.Errorf("%d of %d categories failed: %s; see above", len(failed), len(tr.sources), strings.Join(failed, ", "))
	case ctx.Err() != nil:
		return fmt.Errorf("%w; workers go on, and the same command with --resume waits for them again", rdpp.ErrInterrupted)
	}
	return err
}

// isNew refuses a category that a run is there of.
func (tr *training) isNew(i int) error {
	for _, name := range []string{rdpp.ModelFile, rdpp.MetricsFile, "checkpoint"} {
		if _, err := os.Lstat(filepath.Join(tr.folder(i), name)); !errors.Is(err, fs.ErrNotExist) {
			return command.Usagef("%s holds a run: go on with it by --resume, or choose another folder with --out", tr.folder(i))
		}
	}
	return nil
}
