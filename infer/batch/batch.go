// Package batch judges the images of a bulk.Batch, piece after piece: alone, a share of them, or as one of many workers that a
// NATS server hands pieces to.
package batch

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"rdpp/rdpp/ahead"
	"rdpp/rdpp/bucket"
	"rdpp/rdpp/bulk"
	"rdpp/rdpp/imagefile"
)

// Outcome is what came of an image.
type Outcome struct {
	Result any   // its result, or what went wrong with it, as JSON
	Fault  error // of the machine: the image may well be judged elsewhere, so the piece has no results
}

// Judge judges an image by its content, or tells of the error that it could not be read. It is called for one image after the
// other; what it returns finishes the work, beside that on others.
type Judge func(ctx context.Context, name string, data []byte, failed error) (finish func() Outcome)

// Options say how pieces are done.
type Options struct {
	Judge    Judge             // required
	Images   imagefile.Options // of those that are judged
	InFlight int               // images that are judged at once; 0: 1
	Readers  int               // images that are read at once; 0: 16
	Ahead    int64             // bytes of images that may be read ahead; 0: 256 MiB
}

// Runner does pieces of a batch. One at a time may be under way.
type Runner struct {
	batch  *bulk.Batch
	opt    Options
	images *images
}

// NewRunner returns one.
func NewRunner(b *bulk.Batch, opt Options) *Runner {
	if opt.InFlight < 1 {
		opt.InFlight = 1
	}
	if opt.Readers < 1 {
		opt.Readers = 16
	}
	if opt.Ahead < 1 {
		opt.Ahead = 256 << 20
	}
	return &Runner{b, opt, &images{batch: b, opt: &opt.Images, first: firstPause, stores: map[string]*bucket.Store{}}}
}

// Piece judges the images of a piece and places its results, unless it has some. each, if not nil, is told of each image. Where a
// disk, a store or the network is to blame that an image cannot be read or results be placed, there are none, and the error is
// queue.ErrAway.
func (r *Runner) Piece(ctx context.Context, piece int, each func(Outcome)) error {
	if done, err := r.batch.Done(piece); done || err != nil {
		return away(err)
	}
	names, err := r.batch.Names(piece)
	if err != nil {
		return away(err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	read := make(chan fetched)
	var failed error // set before read is closed
	found := census{}
	room := newBacklog(r.opt.Ahead)
	go func() {
		defer close(read)
		for f, err := range ahead.Range(ctx, r.opt.Readers, 2*r.opt.Readers, 0, len(names), func(ctx context.Context, i int) (fetched, error) {
			return r.images.fetch(ctx, room, names[i], i)
		}) {
			if err != nil {
				failed = err
				return
			}
			select {
			case read <- f:
			case <-ctx.Done():
				return
			}
		}
	}()
	var content bytes.Buffer
	lines := json.NewEncoder(&content)
	lines.SetEscapeHTML(false)
	for o, err := range ahead.Staged(ctx, len(names), r.opt.InFlight-1, func(ctx context.Context, i int) func() Outcome {
		room.want(i)
		var f fetched
		var there bool
		var fault error
		select {
		case f, there = <-read:
			if !there {
				fault = failed
			}
		case <-ctx.Done():
			fault = ctx.Err()
		}
		if !there {
			return func() Outcome { return Outcome{Fault: cmp.Or(fault, context.Canceled)} }
		}
		found.add(f)
		finish := r.opt.Judge(ctx, f.name, f.data, f.err)
		room.give(int64(len(f.data))) // the judge has made room for it
		return finish
	}) {
		if err == nil {
			err = o.Fault
		}
		if err == nil {
			err = lines.Encode(o.Result)
		}
		if err != nil {
			return err
		}
		if each != nil {
			each(o)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := found.fault(); err != nil {
		return err
	}
	return away(r.batch.Place(piece, content.Bytes()))
}

// Progress tells how far a batch is.
type Progress struct {
	Images, Of int64         // with results, of all
	Rate       float64       // images per second since the beginning; 0: not known
	Left       time.Duration // until all have results; 0: not known
	Busy       int           // pieces that workers are at; 0: not known
}

// String is the progress in words.
func (p Progress) String() string {
	text := fmt.Sprintf("%d of %d images", p.Images, p.Of)
	if p.Busy > 0 {
		text += fmt.Sprintf(", %d pieces in work", p.Busy)
	}
	if p.Rate > 0 {
		text += fmt.Sprintf(", %.1f images/s", p.Rate)
	}
	if p.Left > 0 {
		text += fmt.Sprintf(", about %v left", p.Left.Round(time.Second))
	}
	return text
}

// Pace makes progress of counts of images, by the rate since the first of them.
type Pace struct {
	of    int64
	first int64
	began time.Time
}

// NewPace begins with the images that have results already.
func NewPace(images, of int64) *Pace { return &Pace{of, images, time.Now()} }

// At is the progress with so many images.
func (p *Pace) At(images int64) Progress {
	r := Progress{Images: images, Of: p.of}
	if seconds := time.Since(p.began).Seconds(); images > p.first && seconds > 0 {
		r.Rate = float64(images-p.first) / seconds
		r.Left = time.Duration(float64(p.of-images) / r.Rate * float64(time.Second))
	}
	return r
}
