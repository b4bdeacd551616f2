package server

import (
	"context"
	"sync"

	"rdpp/rdpp"
	"rdpp/rdpp/lookout"
)

// driftKept is after how many images that count the history keeps where a model's lookout stands, beside its end.
const driftKept = 500

// line watches the images of a model that are called good by the model's own threshold, whatever a request asks for. Versions of a
// name that are one file share it.
type line struct {
	digest string // of the model's file

	mu      sync.Mutex
	lookout *lookout.Lookout
	unkept  int // images since the history has it
}

// newLine goes on where the history says that the file's images end, if it does.
func (r *repository) newLine(name string, d *rdpp.Detector) *line {
	if r.opt.Drift <= 0 {
		return nil
	}
	l := &line{digest: d.Digest()}
	opt := lookout.Options{Reference: d.Reference(), Rate: r.opt.Drift}
	if len(opt.Reference.Looks.Brightness) == 0 {
		r.opt.Logger.Info("the model does not say how its training images look: drift is told from the first images", "model", name)
	}
	l.lookout = lookout.New(opt)
	if h := r.opt.History; h != nil && l.digest != "" {
		_, state, err := h.State(r.stopped, l.name(name))
		if err != nil {
			r.opt.Logger.Error("drift begins anew", "model", name, "error", err)
		} else if state != nil {
			if before, err := lookout.Restore(opt, state); err == nil { // else another rate was asked for
				l.lookout = before
			}
		}
	}
	return l
}

// name is what the history calls the state of a model's line.
func (l *line) name(model string) string { return "drift:serve:" + model + ":" + l.digest }

// see takes in results, logs what has moved, and says whether the history should keep where it stands.
func (m *model) see(s *Server, results []*rdpp.Result) {
	l := m.line
	if l == nil {
		return
	}
	l.mu.Lock()
	own := m.detector.Calibration()
	for _, r := range results {
		if own.Judge(r.Score).Anomalous {
			continue
		}
		l.unkept++
		for _, w := range l.lookout.See(lookout.Sight{Score: r.Score, Look: r.Look}) {
			s.opt.Logger.Warn("drift", "model", m.name, "stream", w.Stream, "what", w.String())
		}
	}
	due := l.unkept >= driftKept
	l.mu.Unlock()
	if due {
		s.models.keepLine(m.name, l)
	}
}

// figures are those of the line; nil where none is watched.
func (l *line) figures() []lookout.Figure {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lookout.Figures()
}

// keepLine lets the history keep where a model's line stands, if there is anything new.
func (r *repository) keepLine(name string, l *line) {
	if l == nil || r.opt.History == nil || l.digest == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unkept == 0 {
		return
	}
	state, err := l.lookout.State()
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), keeping)
		defer cancel()
		err = r.opt.History.SetState(ctx, l.name(name), 0, state)
	}
	if err != nil {
		r.opt.Logger.Error("drift: not kept", "model", name, "error", err)
	}
	l.unkept = 0
}
