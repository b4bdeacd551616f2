// Package engine owns the time of trainings: passes and steps, the folder and its lock, checkpoints and resuming,
// interruptions, folds and calibration, evaluation, the choice of an epoch. What is learned is a method's (package method).
//
// [Loop], [Claim] and [Checkpoint] are what every training goes through, of images or of drawn pictures; [Train] is that of a
// detector.
package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/document"
	"rdpp/rdpp/method"
	"rdpp/rdpp/ranks"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// ErrInterrupted says that training stopped because its context ended, after a checkpoint.
var ErrInterrupted = errors.New("interrupted")

// ErrBusy is wrapped by the error about a folder that another training has locked.
var ErrBusy = errors.New("another training is writing to")

// ErrNotSaved says that it stopped without one.
var ErrNotSaved = errors.New("no checkpoint could be written, and what was learned since the last one is lost")

// Loop takes a learner from step to step.
type Loop[Batch any] struct {
	Learner method.LearnerOf[Batch]
	Of      int           // steps of all passes
	Save    func() error  // writes a checkpoint
	Every   time.Duration // between checkpoints
	Log     *slog.Logger

	// At names the next step in errors, such as "epoch 1, step 7"; Stood says how far an interrupted run has come and that
	// there is a checkpoint.
	At, Stood func() string
	// Peers learn together: they take each step, or none does. Nil: there are none.
	Peers *ranks.Peers
	// Done is called after a step, with the time that it waited for its batch.
	Done func(b Batch, losses anomaly.Losses, waited time.Duration)

	saved time.Time // when the last checkpoint was written, or the loop began
}

// Run learns from batches until they end; the first of them is that of a step counted from 0 over all passes. Where ctx ends
// before, it writes a checkpoint and returns ErrInterrupted.
func (l *Loop[Batch]) Run(ctx context.Context, batches iter.Seq2[Batch, error], step int) error {
	if l.saved.IsZero() {
		l.saved = time.Now()
	}
	ready := time.Now()
	going := ranks.GoesOn
	for batch, err := range batches {
		var lost error
		if going, lost = l.Peers.Agree(standing(ctx, err)); lost != nil {
			return fmt.Errorf("engine: %s: %w", l.At(), lost)
		}
		if going == ranks.Stops {
			break
		}
		if going == ranks.Fails { // by an image that could be read at the start
			l.trySave()
			return fmt.Errorf("engine: %w", cmp.Or(err, error(ranks.ErrLost)))
		}
		waited := time.Since(ready)
		losses, err := l.Learner.Step(batch, step, l.Of)
		if err == nil && len(losses) > 0 && !losses[:1].Finite() {
			err = fmt.Errorf("the loss is %v; use a lower learning rate, or look for damaged images", losses[0].Value)
		}
		if err != nil {
			return fmt.Errorf("engine: %s: %w", l.At(), err)
		}
		step++
		l.Done(batch, losses, waited)
		if time.Since(l.saved) >= l.Every {
			l.trySave()
			l.saved = time.Now()
		}
		ready = time.Now()
	}
	if going == ranks.GoesOn { // to the end of the batches
		var lost error
		if going, lost = l.Peers.Agree(standing(ctx, nil)); lost != nil {
			return fmt.Errorf("engine: %s: %w", l.At(), lost)
		}
	}
	if going == ranks.Stops {
		return l.Interrupt()
	}
	return nil
}

// standing is how it is with this process: its context, and what it has tried alone.
func standing(ctx context.Context, err error) ranks.Going {
	switch {
	case ctx.Err() != nil:
		return ranks.Stops
	case err != nil:
		return ranks.Fails
	}
	return ranks.GoesOn
}

// trySave writes a checkpoint. A full disk may have room again before the end, so training goes on where it cannot.
func (l *Loop[Batch]) trySave() {
	if err := l.Save(); err != nil {
		l.Log.Warn("no checkpoint", "error", err)
	}
}

// Interrupt writes a checkpoint and returns ErrInterrupted.
func (l *Loop[Batch]) Interrupt() error {
	if err := l.Save(); err != nil {
		return fmt.Errorf("engine: %w: %w", ErrNotSaved, err)
	}
	return setting.Advise(fmt.Errorf("engine: %w %s", ErrInterrupted, l.Stood()), "{resume} continues")
}

// Claim makes the folder of a run's files, which no other training may write to until the lock is closed, shows that
// it can be written to, and removes what a killed run left of the files half-written.
func Claim(log *slog.Logger, files ...string) (lock io.Closer, err error) {
	folder := filepath.Dir(files[0])
	held, unlocked, err := atomicfile.Lock(folder)
	switch {
	case errors.Is(err, atomicfile.ErrLocked):
		return nil, setting.Advise(fmt.Errorf("engine: %w %s", ErrBusy, folder), "wait for it, or choose another folder with {out}")
	case err != nil:
		return nil, cannotWrite(err)
	case unlocked != nil:
		log.Warn("the output folder cannot be locked: take care that no other training writes there", "folder", folder, "error", unlocked)
	}
	err = atomicfile.Room(folder, 0)
	for _, file := range files {
		if err == nil {
			err = atomicfile.RemoveTemporary(file)
		}
	}
	if err != nil {
		held.Close()
		return nil, cannotWrite(err)
	}
	return held, nil
}

func cannotWrite(err error) error {
	return setting.Advise(fmt.Errorf("engine: cannot write to the output folder: %w", err), "choose another with {out}")
}

// Checkpoint is a file that a training goes on from as if it had never stopped: a safetensors file with the state of a
// learner, and a JSON document for the rest.
type Checkpoint struct {
	Path string
	Key  string // of the document, one of package document's
}

// stater is a learner of any batches.
type stater interface {
	State(s *torch.Scope) ([]weights.Source, error)
	Growth() (int64, error)
}

// Save writes it.
func (c Checkpoint) Save(doc any, learner stater) error {
	var s torch.Scope
	defer s.Close()
	tensors, err := learner.State(&s)
	if err != nil {
		return err
	}
	return document.Write(c.Path, c.Key, doc, tensors)
}

// Size is how large it can become, bytes.
func (c Checkpoint) Size(doc any, learner stater) (int64, error) {
	var s torch.Scope
	defer s.Close()
	tensors, err := learner.State(&s)
	if err != nil {
		return 0, err
	}
	size, err := document.Size(c.Key, doc, tensors)
	if err != nil {
		return 0, err
	}
	growth, err := learner.Growth()
	return size + growth, err
}

// Open opens it and reads its document; nil where there is none. The caller closes the file.
func (c Checkpoint) Open(into any) (*weights.File, error) {
	file, err := weights.OpenSafetensors(c.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, setting.Advise(fmt.Errorf("engine: checkpoint: %w", err), "{overwrite} starts anew")
	}
	if _, err := document.Read(file, c.Key, into); err != nil {
		file.Close()
		return nil, setting.Advise(fmt.Errorf("engine: checkpoint %s: %w", c.Path, err), "{overwrite} starts anew")
	}
	return file, nil
}

// Room says whether files of these sizes, which lead to what is named, have room in a folder beside each other.
func Room(what, folder string, sizes ...int64) error {
	if err := atomicfile.Room(folder, sizes...); err != nil {
		return setting.Advise(fmt.Errorf("engine: %s and the checkpoints on the way to it would not fit: %w", what, err), "make room, or choose another place with {out}")
	}
	return nil
}
