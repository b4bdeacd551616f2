// Package inbox tells of the files that arrive in a folder, each once it is whole.
//
// The kernel tells at once of files that programs of this machine close after writing, or rename into place. Beside that the folder
// is looked through every second, so that files on shares of other machines are found too, and what the kernel did not tell;
// these are whole when size and time have not changed for a while.
package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// File is a file that has arrived.
type File struct {
	Path  string    // within the folder
	Size  int64     // bytes
	Time  time.Time // of its last change
	Since time.Time // when it was first seen like this
	New   bool      // nothing else had its name just before: it is no later state of the file that had the name last
}

// same says whether two sightings are of the same state of a file.
func (f *File) same(g *File) bool { return f.Size == g.Size && f.Time.Equal(g.Time) }

// Options say what is told. Zero means the defaults.
type Options struct {
	Recursive bool                   // files in folders below, too; not in those whose names begin with a dot
	Wanted    func(name string) bool // files by their names, within their folder; default: all. Names that begin with a dot never are
	Exclude   []string               // folders below, by any of their paths, in which nothing is looked at
	Known     []File                 // that need not be told as long as they are as they are here

	Poll   time.Duration // between two looks through the folder, more where looking takes long; default 1 s
	Settle time.Duration // that a file must stay the same where the kernel does not tell that it is whole; default 1 s
	Retry  time.Duration // until a file is told again after Again; default 1 s

	// Once makes Next end by io.EOF when everything has been told that was there at the beginning and whole.
	Once bool
	// Log is told, once, what keeps the folder from being looked at, and nil when that is over. Default: nobody is.
	Log func(error)
}

// stalled is how long a file must stay the same that somebody was seen to write to and not to close.
const stalled = 30 * time.Second

// state is what becomes of a file.
type state int

const (
	waiting state = iota // to be whole
	ready                // to be told
	told                 // and nothing was heard since
	done                 // told no more, unless it changes
)

type entry struct {
	File
	state    state
	writing  bool      // somebody was seen to write to it and not to close it
	growing  bool      // it changed between two looks
	whole    bool      // the kernel told that it is, before the backlog was told
	notUntil time.Time // told
	look     uint64    // in which it was last seen
}

// Inbox tells of the files in a folder. One goroutine calls Next, any others may call the rest.
type Inbox struct {
	dir  string
	opt  Options
	news *notifier // nil: the folder is looked through alone

	mu      sync.Mutex
	entries map[string]*entry
	queue   []string        // ready, in the order to be told
	gone    map[string]bool // since Gone was called, and not there again
	woken   chan struct{}

	// These are Next's alone.
	look           uint64    // number of the looks so far
	next, earliest time.Time // when the next look is due, and may be
	backlog        time.Time // when what was there at the beginning is told, before what arrives meanwhile; zero: it has been
	trouble        string    // of the last look
}

// Open begins to look at a folder. A folder that is not there is an error; one that goes later may come back.
func Open(dir string, opt *Options) (*Inbox, error) {
	b := &Inbox{dir: filepath.Clean(dir), entries: map[string]*entry{}, gone: map[string]bool{}, woken: make(chan struct{}, 1)}
	if opt != nil {
		b.opt = *opt
	}
	b.opt.Poll = cmp.Or(b.opt.Poll, time.Second)
	b.opt.Settle = cmp.Or(b.opt.Settle, time.Second)
	b.opt.Retry = cmp.Or(b.opt.Retry, time.Second)
	if b.opt.Wanted == nil {
		b.opt.Wanted = func(string) bool { return true }
	}
	if b.opt.Log == nil {
		b.opt.Log = func(error) {}
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("inbox: %w", cmp.Or(err, fmt.Errorf("%s is no folder", dir)))
	}
	for _, f := range b.opt.Known {
		b.entries[f.Path] = &entry{File: f, state: done}
	}
	if !b.opt.Once {
		// Without it, as where the kernel has too few watches, looking through the folder does the same later.
		b.news, _ = newNotifier()
	}
	return b, nil
}

// Close ends it.
func (b *Inbox) Close() {
	if b.news != nil {
		b.news.close()
	}
}

// Next waits for a file that is whole. It is not told again unless it changes, or Again is called, which has to follow every file
// that Done does not. An error is ctx's or, with Options.Once, io.EOF.
func (b *Inbox) Next(ctx context.Context) (File, error) {
	for {
		if err := ctx.Err(); err != nil {
			return File{}, err
		}
		if !time.Now().Before(b.next) {
			b.lookThrough()
		}
		f, found, ended := b.take()
		if found {
			return f, nil
		}
		if ended {
			return File{}, io.EOF
		}
		timer := time.NewTimer(time.Until(b.next))
		var events chan []event
		if b.news != nil {
			events = b.news.events
		}
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-b.woken:
		case batch, open := <-events:
			if !open {
				b.news = nil
			}
			for _, e := range batch {
				b.hear(e)
			}
		}
		timer.Stop()
	}
}

// take is the next file to tell; ended says that with Options.Once there will be none.
func (b *Inbox) take() (f File, found, ended bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) > 0 {
		e := b.entries[b.queue[0]]
		b.queue = b.queue[1:]
		if e != nil && e.state == ready {
			e.state = told
			return e.File, true, false
		}
	}
	if !b.opt.Once || b.look < 2 {
		return f, false, b.opt.Once && b.look == 1 && !b.any(waiting, told)
	}
	return f, false, !b.any(waiting, told)
}

// any says whether files in one of the states are left to tell; with Options.Once those that grow are not.
func (b *Inbox) any(states ...state) bool {
	for _, e := range b.entries {
		if slices.Contains(states, e.state) && !(b.opt.Once && e.state == waiting && e.growing) {
			return true
		}
	}
	return false
}

// Done says that a file is not to be told again as it was told.
func (b *Inbox) Done(f File) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[f.Path]; e != nil && e.same(&f) && e.state == told {
		e.state = done
	}
	b.wake()
}

// Left says that a file was taken away, so that another one of its name is another file.
func (b *Inbox) Left(f File) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[f.Path]; e != nil && e.same(&f) {
		delete(b.entries, f.Path)
	}
	b.wake()
}

// Again says that a file is to be told again, after Options.Retry.
func (b *Inbox) Again(f File) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[f.Path]; e != nil && e.same(&f) && e.state == told {
		e.state, e.notUntil = waiting, time.Now().Add(b.opt.Retry)
	}
	b.wake()
}

func (b *Inbox) wake() {
	select {
	case b.woken <- struct{}{}:
	default:
	}
}

// Growing are the files that were not whole when Next ended by io.EOF.
func (b *Inbox) Growing() (paths []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for path, e := range b.entries {
		if e.state == waiting {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// Gone are the files that have left the folder since it was last asked, less those whose names are there again.
func (b *Inbox) Gone() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	gone := slices.Sorted(maps.Keys(b.gone))
	clear(b.gone)
	return gone
}

// leave notes that a file has left.
func (b *Inbox) leave(path string) {
	if b.entries[path] != nil {
		delete(b.entries, path)
		b.gone[path] = true
	}
}

// hear takes in what the kernel tells.
func (b *Inbox) hear(e event) {
	if e.lost {
		b.hurry(time.Time{})
		return
	}
	path, err := filepath.Rel(b.dir, filepath.Join(e.dir, e.name))
	if err != nil || !b.inside(e.dir) {
		return
	}
	if e.folder {
		if b.opt.Recursive && b.enters(filepath.Join(e.dir, e.name), e.name) {
			b.hurry(time.Time{}) // what came into it before it was watched is told by a look
		}
		return
	}
	if !b.wanted(e.name) {
		return
	}
	info, err := os.Stat(filepath.Join(b.dir, path))
	if e.gone {
		b.mu.Lock()
		// What is there by now may have been seen already.
		if old := b.entries[path]; err != nil || old != nil && !old.same(&File{Size: info.Size(), Time: info.ModTime()}) {
			b.leave(path)
		}
		b.mu.Unlock()
	}
	if err == nil && info.Mode().IsRegular() {
		b.see(path, info, e.whole, e.written)
		b.hurry(time.Now().Add(b.opt.Settle))
	}
}

// inside says whether a folder is looked at.
func (b *Inbox) inside(dir string) bool { return b.opt.Recursive || dir == b.dir }

// enters says whether a folder below is looked through.
func (b *Inbox) enters(path, name string) bool {
	return !strings.HasPrefix(name, ".") && !b.excluded(path)
}

// excluded says whether a folder is one of Options.Exclude, which may be links to it.
func (b *Inbox) excluded(path string) bool {
	if len(b.opt.Exclude) == 0 {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && slices.ContainsFunc(b.opt.Exclude, func(exclude string) bool {
		other, err := os.Stat(exclude)
		return err == nil && os.SameFile(info, other)
	})
}

func (b *Inbox) wanted(name string) bool { return !strings.HasPrefix(name, ".") && b.opt.Wanted(name) }

// see takes in how a file is now.
func (b *Inbox) see(path string, info fs.FileInfo, whole, written bool) {
	now := File{Path: path, Size: info.Size(), Time: info.ModTime(), Since: time.Now()}
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[path]
	if e == nil {
		now.New = true
		e = &entry{File: now}
		b.entries[path] = e
		delete(b.gone, path)
	} else if !e.same(&now) {
		now.New = e.New && e.state < told
		*e = entry{File: now, growing: e.state == waiting, writing: e.writing}
	}
	e.look = b.look
	switch {
	case whole:
		e.writing = false
		if now := time.Now(); e.state == waiting && !now.Before(e.notUntil) {
			if e.whole = !b.backlog.IsZero(); !e.whole {
				b.tell(e)
			}
		}
	case written:
		e.writing = true
	}
}

func (b *Inbox) tell(e *entry) {
	e.state = ready
	b.queue = append(b.queue, e.Path)
}

// lookThrough looks through the folder, and tells of what has not changed for long enough.
func (b *Inbox) lookThrough() {
	began := time.Now()
	b.look++
	found, err := b.scan(".")
	b.report(err)
	b.mu.Lock()
	defer b.mu.Unlock()
	for path, e := range b.entries {
		// A folder with nothing in it may be a share that is not mounted, and says nothing of what was there and told.
		if e.look != b.look && (err == nil && found > 0 || e.state < told) {
			b.leave(path)
		}
	}
	now := time.Now()
	b.next = now.Add(b.opt.Poll)
	if b.look == 1 && b.any(waiting) {
		b.backlog = now.Add(b.opt.Settle)
	}
	var whole []*entry
	for _, e := range b.entries {
		if e.state != waiting || b.opt.Once && e.growing {
			continue
		}
		due := e.Since.Add(b.opt.Settle)
		if e.writing {
			due = e.Since.Add(stalled)
		}
		if e.whole || due.Before(b.backlog) {
			due = b.backlog
		}
		if e.notUntil.After(due) {
			due = e.notUntil
		}
		if !due.After(now) {
			whole = append(whole, e)
		} else if due.Before(b.next) {
			b.next = due
		}
	}
	slices.SortFunc(whole, func(a, b *entry) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Path, b.Path)) })
	for _, e := range whole {
		b.tell(e)
	}
	if !b.backlog.After(now) {
		b.backlog = time.Time{}
	}
	// Looking is to take a fifth of the time at most.
	b.earliest = now.Add(4 * now.Sub(began))
	b.hurry(b.next)
}

// hurry has the folder looked through at a time, or earlier.
func (b *Inbox) hurry(at time.Time) {
	if at.Before(b.next) {
		b.next = at
	}
	if b.next.Before(b.earliest) {
		b.next = b.earliest
	}
}

// report tells the log of trouble that is new, and of its end.
func (b *Inbox) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != b.trouble {
		b.opt.Log(err)
	}
	b.trouble = text
}

// scan looks through a folder, named from the root, and those below. It returns the number of files, and the first error.
func (b *Inbox) scan(dir string) (found int, err error) {
	full := filepath.Join(b.dir, dir)
	if b.news != nil {
		b.news.add(full) // before it is read, so that nothing is missed
	}
	names, err := os.ReadDir(full)
	if err != nil {
		err = fmt.Errorf("inbox: %w", err)
	}
	for _, name := range names {
		path := filepath.Join(dir, name.Name())
		if name.IsDir() {
			if b.opt.Recursive && b.enters(filepath.Join(b.dir, path), name.Name()) {
				n, inner := b.scan(path)
				found += n
				if inner != nil && !errors.Is(inner, fs.ErrNotExist) { // it has gone meanwhile
					err = cmp.Or(err, inner)
				}
			}
			continue
		}
		if !b.wanted(name.Name()) {
			continue
		}
		info, inner := name.Info()
		if inner == nil && info.Mode()&fs.ModeSymlink != 0 {
			info, inner = os.Stat(filepath.Join(full, name.Name()))
		}
		if inner == nil && info.Mode().IsRegular() {
			b.see(path, info, false, false)
			found++
		}
	}
	return found, err
}
