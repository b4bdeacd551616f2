package watch

import (
	"context"
	"fmt"

	"rdpp/rdpp/drift"
	"rdpp/rdpp/history"
)

// kept is how many images of before a watch begins to look for drift with.
const kept = 2000

// drifts watches the images that are called good for a change. Others would tell of defects.
type drifts struct {
	rate               float64
	scores, brightness *drift.Monitor // nil: no image has come
	model              string
	threshold          float64
}

// see takes in an image that was recorded, and says what has changed, "" for nothing. Scores go on where those of the same model
// and threshold in the history end.
func (d *drifts) see(ctx context.Context, h *history.DB, r *history.Record, brightness float64) (warning string, err error) {
	if d.rate <= 0 || r.Verdict != history.Good {
		return "", nil
	}
	if d.scores == nil || d.model != r.ModelSHA256 || d.threshold != r.Threshold {
		d.model, d.threshold = r.ModelSHA256, r.Threshold
		var before []float64
		for past, err := range h.List(ctx, history.Filter{Source: r.Source, Verdict: history.Good, Last: kept}) {
			if err != nil {
				return "", err
			}
			if past.ModelSHA256 == d.model && past.Threshold == d.threshold && past.ID < r.ID {
				before = append(before, past.Score)
			}
		}
		// Each of the two has half of the false alarms.
		d.scores = drift.New(drift.Options{Reference: before, Rate: d.rate / 2})
		d.brightness = drift.New(drift.Options{Rate: d.rate / 2})
	}
	return tell("the scores of good images", d.scores.Add(r.Score)) + tell("the mean brightness of good images", d.brightness.Add(brightness)), nil
}

// tell says what an alarm means.
func tell(what string, a *drift.Alarm) string {
	if a == nil {
		return ""
	}
	way := "fell"
	if a.Rose {
		way = "rose"
	}
	return fmt.Sprintf("%s %s: %.4g lately, %.4g before; look at light, camera and parts, and calibrate anew if they are as they should be. ", what, way,
		a.Now, a.Usual)
}
