// Package lookout watches the images that a line calls good for a change: their scores, and how they look. It says what has moved,
// from what to what, and keeps a rate of false alarms for all of that together. See package drift for how.
package lookout

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/drift"
)

// DefaultRate is Options.Rate, unless it says otherwise.
const DefaultRate = drift.DefaultRate

// Reference is how good images are that the model knows. What is empty is not known: then the line's first images are the reference.
type Reference struct {
	Scores []float64 // of images that the model was not trained on, less those above the threshold
	Looks  dataset.Looks
}

// Options say what is watched for. Zero means the defaults.
type Options struct {
	Reference Reference
	Rate      float64 // false alarms per 1,000 images, of all streams together, on average at most; default DefaultRate
	Silence   int     // images for which a stream that has warned does not warn again, however it goes on; default 500
	Pool      int     // as drift.Options has it
}

// Sight is what is known of an image that was called good. NaN: not known.
type Sight struct {
	Score float64
	dataset.Look
}

// Warning says that a stream has moved.
type Warning struct {
	Stream   string // one of Streams
	Rose     bool   // or else it fell
	From, To float64
	Known    bool // From is of the model's reference, and not of the line's own images
}

// String is the warning as a sentence for people.
func (w *Warning) String() string {
	s := &streams[slices.Index(Streams(), w.Stream)]
	way, before := "fell", "before"
	if w.Rose {
		way = "rose"
	}
	if w.Known {
		before = s.known
	}
	return fmt.Sprintf("%s of good images %s: %.4g lately, %.4g %s; %s", s.words, way, w.To, w.From, before, s.advice)
}

// Figure is how a stream stands.
type Figure struct {
	Stream   string  // one of Streams
	Evidence float64 // of a change: 0 to 1, where it warns
	Usual    float64 // median of the reference or, where there is none, of all so far; NaN: nothing has come
	Now      float64 // median of the latest; NaN: nothing has come
	Warnings int     // so far
}

// stream is something of an image that is watched.
type stream struct {
	name, words string
	known       string // where a reference is from
	advice      string
	of          func(*Sight) float64
	reference   func(*Reference) []float64
}

var streams = []stream{
	{"score", "the scores", "at calibration", "look at light, camera and parts, and calibrate anew if they are as they should be",
		func(s *Sight) float64 { return s.Score }, func(r *Reference) []float64 { return r.Scores }},
	{"brightness", "the mean brightness", "in training", "look at light, exposure and aperture",
		func(s *Sight) float64 { return s.Brightness }, func(r *Reference) []float64 { return r.Looks.Brightness }},
	{"sharpness", "the sharpness", "in training", "look at focus, lens and what shakes",
		func(s *Sight) float64 { return s.Sharpness }, func(r *Reference) []float64 { return r.Looks.Sharpness }},
	{"width", "the width in pixels", "in training", "look at the camera's settings",
		func(s *Sight) float64 { return float64(s.W) }, func(r *Reference) []float64 { return floats(r.Looks.Width) }},
	{"height", "the height in pixels", "in training", "look at the camera's settings",
		func(s *Sight) float64 { return float64(s.H) }, func(r *Reference) []float64 { return floats(r.Looks.Height) }},
}

func floats(whole []int) []float64 {
	all := make([]float64, len(whole))
	for i, n := range whole {
		all[i] = float64(n)
	}
	return all
}

// Streams are the names of what is watched.
func Streams() (names []string) {
	for _, s := range streams {
		names = append(names, s.name)
	}
	return names
}

// Lookout watches a line. It is not safe for concurrent use.
type Lookout struct {
	silence int
	watched []watched // as streams has them
}

// watched is a stream as it is watched.
type watched struct {
	monitor  *drift.Monitor
	usual    float64 // median of the reference; NaN: there is none
	warnings int
	silent   int // images for which it does not warn
}

// New returns a lookout for a line that begins.
func New(opt Options) *Lookout {
	l := &Lookout{silence: cmp.Or(opt.Silence, 500)}
	for i := range streams {
		reference := streams[i].reference(&opt.Reference)
		m := drift.New(opt.monitor(reference))
		l.watched = append(l.watched, watched{monitor: m, usual: m.Usual()})
	}
	return l
}

// monitor are the options of a stream's monitor: each has an equal part of the false alarms.
func (o *Options) monitor(reference []float64) drift.Options {
	return drift.Options{Reference: reference, Rate: cmp.Or(o.Rate, DefaultRate) / float64(len(streams)), Pool: o.Pool}
}

// See takes in the next image that was called good, and says what has moved.
func (l *Lookout) See(s Sight) (warnings []Warning) {
	for i := range l.watched {
		w := &l.watched[i]
		alarm := w.monitor.Add(streams[i].of(&s))
		w.silent = max(w.silent-1, 0)
		if alarm == nil || w.silent > 0 {
			continue
		}
		w.silent = l.silence
		w.warnings++
		warning := Warning{Stream: streams[i].name, Rose: alarm.Rose, From: alarm.Usual, To: alarm.Now}
		if !math.IsNaN(w.usual) {
			warning.From, warning.Known = w.usual, true
		}
		warnings = append(warnings, warning)
	}
	return warnings
}

// Figures are those of all streams, in the order of Streams.
func (l *Lookout) Figures() (all []Figure) {
	for i, w := range l.watched {
		usual := w.usual
		if math.IsNaN(usual) {
			usual = w.monitor.Usual()
		}
		all = append(all, Figure{streams[i].name, w.monitor.Evidence(), usual, w.monitor.Now(), w.warnings})
	}
	return all
}

// kept is a lookout as JSON: its streams by their names.
type kept map[string]keptStream

type keptStream struct {
	drift.State
	Warnings int `json:"warnings"`
	Silent   int `json:"silent"`
}

// State is all that a lookout has come to know, as JSON, for Restore.
func (l *Lookout) State() ([]byte, error) {
	k := kept{}
	for i, w := range l.watched {
		k[streams[i].name] = keptStream{w.monitor.State(), w.warnings, w.silent}
	}
	text, err := json.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("lookout: %w", err)
	}
	return text, nil
}

// Restore returns a lookout that goes on where the one stood whose State it is given, with the options that one had. What is no
// such state is an error; then New begins anew.
func Restore(opt Options, state []byte) (*Lookout, error) {
	var k kept
	if err := json.Unmarshal(state, &k); err != nil {
		return nil, fmt.Errorf("lookout: the state that was kept: %w", err)
	}
	l := New(opt)
	for i := range l.watched {
		w, name := &l.watched[i], streams[i].name
		s, is := k[name]
		if !is || s.Warnings < 0 || s.Silent < 0 || s.Silent > l.silence {
			return nil, fmt.Errorf("lookout: the state that was kept is none of %s", name)
		}
		m, err := drift.Restore(opt.monitor(nil), s.State)
		if err != nil {
			return nil, fmt.Errorf("lookout: the state that was kept, %s: %w", name, err)
		}
		w.monitor, w.warnings, w.silent = m, s.Warnings, s.Silent
	}
	return l, nil
}
