package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"rdpp/rdpp/bulk"
	"rdpp/rdpp/queue"
)

// Task is a message to workers: a piece of a batch.
type Task struct {
	Batch string `json:"batch"` // its ID
	Out   string `json:"out"`   // its folder, as whoever hands it out sees it
	Model string `json:"model"` // SHA-256 of the model file
	List  string `json:"list"`  // SHA-256 of the list
	By    string `json:"by"`    // the program that hands it out; "": one that does not say
	Piece int    `json:"piece"`
	From  int64  `json:"from"` // its first image
	To    int64  `json:"to"`   // behind its last one
}

// HandOptions say what is told while workers do a batch.
type HandOptions struct {
	By    string         // this program, as its workers are to be
	Every time.Duration  // between calls of Tell
	Tell  func(Progress) // how far all workers are
	Log   func(text string)
}

// Hand hands the pieces of a batch without results to the workers of a queue, with the file of its model, and waits until all have
// some. What the workers give up is queue.ErrDead, once the others are done. To call it again goes on with what is missing.
func Hand(ctx context.Context, q *queue.Queue, b *bulk.Batch, model string, opt HandOptions) error {
	pieces := b.Counter()
	_, images, err := pieces.Count()
	if err != nil {
		return err
	}
	pace := NewPace(images, b.Images)
	return q.Hand(ctx, &queue.Job{ID: b.ID(), Pieces: b.Pieces(), Missing: pieces.Missing,
		Renew: true, // what waits may be another program's, which had its workers
		Message: func(piece int) ([]byte, error) {
			from := int64(piece) * int64(b.PerPiece)
			return json.Marshal(Task{b.ID(), b.Dir(), b.Model, b.List, opt.By, piece, from, from + int64(b.Size(piece))})
		},
		Ready: func(ctx context.Context) error { return q.Offer(ctx, model, b.Model) },
		Every: opt.Every,
		Tell: func(busy int) {
			_, images, err := pieces.Count()
			if err != nil {
				opt.Log(err.Error())
				return
			}
			p := pace.At(images)
			p.Busy = busy
			opt.Tell(p)
		},
		GivenUp: func(piece int, reason string) { opt.Log(fmt.Sprintf("piece %d is given up: %s", piece, reason)) },
	})
}

// ReadTask reads the message of a worker's piece.
func ReadTask(t queue.Task) (task Task, err error) {
	if err := json.Unmarshal(t.Message, &task); err != nil {
		return task, queue.Vain(fmt.Errorf("batch: no task: %w", err))
	}
	return task, nil
}

// OpenTask opens the batch of a task, in a folder or, where that is "", in the one that the task names. It has to be the same:
// another one is bulk.ErrOther, and none bulk.ErrNone. A folder that does not seem to be mounted is queue.ErrAway.
func OpenTask(task Task, folder string) (*bulk.Batch, error) {
	if folder == "" {
		folder = task.Out
	}
	b, err := bulk.Open(folder)
	switch {
	case errors.Is(err, bulk.ErrNone) && !bulk.IsStore(folder) && !isMounted(folder):
		return nil, fmt.Errorf("batch: %s: %w: the folder is empty or not there on this machine", folder, queue.ErrAway)
	case errors.Is(err, bulk.ErrNone):
		return nil, queue.Others(err)
	case err != nil:
		return nil, away(err)
	case b.ID() != task.Batch || task.Piece < 0 || task.Piece >= b.Pieces():
		return nil, queue.Others(fmt.Errorf("batch: %s: %w than the one that was handed out", folder, bulk.ErrOther))
	}
	return b, nil
}

// isMounted says whether a folder, or the one that it is missing in, has something in it.
func isMounted(folder string) bool {
	whose := whoseGap(folder)
	if whose == ofEither {
		whose = whoseGap(filepath.Dir(folder))
	}
	return whose == ofImage
}
