package watch

import (
	"context"
	"encoding/json"
	"errors"
	"math"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/history"
	"rdpp/rdpp/lookout"
)

// lookedBack is how many good images of the history a watch begins with that finds no state there.
const lookedBack = 2000

// drifts watches the images that are called good for a change. Others would tell of defects.
//
// The history keeps where it stands, and the records hold what has come since: so it goes on, to the bit, after the death of the
// process, and no image counts twice.
type drifts struct {
	opt     lookout.Options
	source  string
	history *history.DB

	lookout *lookout.Lookout // nil: no good image has come
	kept    standing         // but for Lookout
	last    int64            // record, the latest seen
	saved   int64            // record up to which it is kept
}

// standing is what the history keeps: a lookout, and whose images it is of.
type standing struct {
	Model     string          `json:"model"` // SHA-256
	Threshold float64         `json:"threshold"`
	Category  string          `json:"category"`
	Lookout   json.RawMessage `json:"lookout"`
}

// sightOf is what a record tells of an image.
func sightOf(r *history.Record) lookout.Sight {
	known := func(x *float64) float64 {
		if x == nil {
			return math.NaN()
		}
		return *x
	}
	return lookout.Sight{Score: r.Score, Look: dataset.Look{Brightness: known(r.Brightness), Sharpness: known(r.Sharpness), W: r.Width, H: r.Height}}
}

// resume goes on where the history says that the last watch stood, whatever model that had.
func (d *drifts) resume(ctx context.Context) error {
	if d.opt.Rate <= 0 {
		return nil
	}
	_, text, err := d.history.State(ctx, d.name())
	var before standing
	if err != nil || text == nil || json.Unmarshal(text, &before) != nil {
		return err
	}
	before.Lookout = nil
	return d.begin(ctx, before, math.MaxInt64)
}

// see takes in an image that was recorded, and says what has moved.
func (d *drifts) see(ctx context.Context, r *history.Record) ([]lookout.Warning, error) {
	if d.opt.Rate <= 0 || r.Verdict != history.Good {
		return nil, nil
	}
	if d.lookout == nil || d.kept.Model != r.ModelSHA256 || d.kept.Threshold != r.Threshold {
		if err := d.begin(ctx, standing{Model: r.ModelSHA256, Threshold: r.Threshold, Category: r.Model}, r.ID); err != nil {
			return nil, err
		}
	}
	d.last = r.ID
	return d.lookout.See(sightOf(r)), nil
}

// begin goes on where the images of a model and threshold before a record end. Only those of the watch itself count.
func (d *drifts) begin(ctx context.Context, of standing, before int64) error {
	d.kept = of
	past := history.Filter{Source: d.source, Verdict: history.Good, Last: lookedBack}
	record, text, err := d.history.State(ctx, d.name())
	if err != nil {
		return err
	}
	d.lookout = lookout.New(d.opt)
	var stood standing
	if text != nil && json.Unmarshal(text, &stood) == nil && stood.Model == of.Model && stood.Threshold == of.Threshold {
		// One that cannot be gone on with, as another rate was asked for, say, is begun anew.
		if l, err := lookout.Restore(d.opt, stood.Lookout); err == nil {
			d.lookout, d.last, past.Last, past.After = l, record, 0, record
		}
	}
	for p, err := range d.history.List(ctx, past) {
		if err != nil {
			return err
		}
		if p.ModelSHA256 == of.Model && p.Threshold == of.Threshold && p.ID < before {
			d.lookout.See(sightOf(p)) // of which was told then
			d.last = p.ID
		}
	}
	return nil
}

func (d *drifts) name() string { return "drift:" + d.source }

// save keeps where it stands, if there is anything new.
func (d *drifts) save(ctx context.Context) error {
	if d.lookout == nil || d.last == d.saved {
		return nil
	}
	state, err := d.lookout.State()
	if err != nil {
		return err
	}
	d.kept.Lookout = state
	text, err := json.Marshal(d.kept)
	d.kept.Lookout = nil
	if err == nil {
		err = d.history.SetState(ctx, d.name(), d.last, text)
	}
	if err == nil {
		d.saved = d.last
	}
	return err
}

// warn complains of what has moved.
func (w *watch) warn(warnings []lookout.Warning) {
	for i := range warnings {
		w.Complain(errors.New("drift: " + warnings[i].String()))
	}
}
