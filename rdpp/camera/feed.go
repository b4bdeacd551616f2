package camera

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"rdpp/rdpp/atomicfile"
)

// Feed puts frames of a camera into a folder, each whole at once, under names that are in the order of time:
// frame-20260331T120000.123456Z.jpg. Who takes them away makes room for others.
type Feed struct {
	Camera *Camera
	Dir    string // required

	// Which frames: the first one after each line of Triggers, whose text becomes part of the name; else, with Every, the first one
	// after each such time; else each that the camera sends.
	Triggers *Triggers
	Every    time.Duration

	Most     int           // of its frames that may be in the folder: of more those that come are dropped; default DefaultMost
	Patience time.Duration // within which a frame that is due has to begin and come, as a later one is of another part; default 2 s
	Log      func(string)  // is told when frames are dropped, once a minute at most; default: nobody is

	taken, dropped atomic.Int64
	told           time.Time // when Log was told last
	toldOf         int64     // frames that were dropped by then
	stamp          time.Time // of the latest frame

	mu   sync.Mutex
	here map[string]bool // names of its frames that were in the folder when it looked last
}

// DefaultMost is how many frames may wait to be taken away.
const DefaultMost = 64

// Counts are how many frames were put into the folder and how many were dropped: due, and not taken, since too many waited or none
// came in time.
func (f *Feed) Counts() (taken, dropped int64) { return f.taken.Load(), f.dropped.Load() }

// IsFrame says whether a file's name is one that a Feed gives.
func IsFrame(name string) bool { return framed.MatchString(name) }

var framed = regexp.MustCompile(`^frame-\d{8}T\d{6}\.\d{6}Z(-[^/]*)?\.(jpg|png|bmp|webp)$`)

// layout is that of the time in a frame's name, which is UTC.
const layout = "20060102T150405.000000Z"

// Run puts frames into the folder until ctx ends, or the triggers do, which is no error. Without triggers it begins when the camera has
// sent its first frame.
func (f *Feed) Run(ctx context.Context) error {
	if f.Triggers != nil {
		return f.triggered(ctx)
	}
	if _, err := f.Camera.Next(ctx, time.Time{}); err != nil {
		return err
	}
	if f.Every > 0 {
		return f.timed(ctx)
	}
	var last Frame
	for {
		since := last.Begun.Add(1)
		if last.Data == nil {
			since = time.Now()
		}
		next, err := f.Camera.Next(ctx, since)
		if err != nil {
			return err
		}
		if last.Data != nil {
			f.drop(next.Number - last.Number - 1)
		}
		last = next
		if err := f.put(next, ""); err != nil {
			return err
		}
	}
}

// One puts one frame into the folder, however many wait there, and returns its name.
func (f *Feed) One(ctx context.Context) (name string, err error) {
	next, err := f.Camera.Next(ctx, time.Now())
	if err != nil {
		return "", err
	}
	return f.place(next, "")
}

// Empty says whether none of its frames is left in the folder. What else is there, whatever its name, does not count.
func (f *Feed) Empty() (bool, error) {
	n, err := f.waiting()
	return n == 0, err
}

func (f *Feed) timed(ctx context.Context) error {
	for due := time.Now(); ; due = due.Add(f.Every) {
		if late := time.Since(due) / f.Every; late > 0 { // these have passed while one was waited for
			f.drop(int64(late))
			due = due.Add(late * f.Every)
		}
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := f.due(ctx, due, ""); err != nil {
			return err
		}
	}
}

// due puts the first frame after a time into the folder, unless that is too late.
func (f *Feed) due(ctx context.Context, at time.Time, label string) error {
	end := at.Add(cmp.Or(f.Patience, 2*time.Second))
	limited, stop := context.WithDeadline(ctx, end)
	defer stop()
	next, err := f.Camera.Next(limited, at)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil, next.Begun.After(end): // it was there, since this comes late to take it
		f.drop(1)
		return nil
	}
	return f.put(next, label)
}

func (f *Feed) triggered(ctx context.Context) error {
	defer func() { f.drop(f.Triggers.lost.Swap(0)) }()
	for {
		select {
		case t, open := <-f.Triggers.lines:
			if !open {
				return f.Triggers.err
			}
			if err := f.due(ctx, t.at, t.label); err != nil {
				return err
			}
			f.drop(f.Triggers.lost.Swap(0))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *Feed) most() int { return cmp.Or(f.Most, DefaultMost) }

// drop counts frames that were dropped, and tells of them now and then.
func (f *Feed) drop(n int64) {
	all := f.dropped.Add(n)
	if all == f.toldOf || f.Log == nil || time.Since(f.told) < time.Minute {
		return
	}
	f.Log(fmt.Sprintf("camera: %s: %d frames dropped since they came faster than they were judged, or not in time; %d in all", f.Camera, all-f.toldOf, all))
	f.told, f.toldOf = time.Now(), all
}

// put puts a frame into the folder, if there is room.
func (f *Feed) put(frame Frame, label string) error {
	waiting, err := f.waiting()
	if err != nil {
		return err
	}
	if waiting >= f.most() {
		f.drop(1)
		return nil
	}
	_, err = f.place(frame, label)
	return err
}

// place puts a frame into the folder, from where a power cut does not take it, and returns its name.
func (f *Feed) place(frame Frame, label string) (name string, err error) {
	if label != "" {
		label = "-" + label
	}
	if now := time.Now(); now.After(f.stamp) {
		f.stamp = now
	}
	for {
		f.stamp = f.stamp.Truncate(time.Microsecond).Add(time.Microsecond) // another one than the last
		name = "frame-" + f.stamp.UTC().Format(layout) + label + extension(frame.Data)
		err := atomicfile.WriteNew(filepath.Join(f.Dir, name), func(file *os.File) error {
			_, err := file.Write(frame.Data)
			return err
		})
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("camera: %w", err)
		}
		f.taken.Add(1)
		f.mu.Lock()
		if f.here == nil {
			f.here = map[string]bool{}
		}
		f.here[name] = true
		f.mu.Unlock()
		return name, nil
	}
}

// waiting is how many of its frames are in the folder.
func (f *Feed) waiting() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.here {
		_, err := os.Lstat(filepath.Join(f.Dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			delete(f.here, name)
		} else if err != nil {
			return 0, fmt.Errorf("camera: %w", err)
		}
	}
	return len(f.here), nil
}

// extension is that of a frame's name, by its first bytes.
func extension(data []byte) string {
	switch http.DetectContentType(data) {
	case "image/png":
		return ".png"
	case "image/bmp":
		return ".bmp"
	case "image/webp":
		return ".webp"
	}
	return ".jpg"
}
