package server

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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rdpp/rdpp"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/regular"
)

// model is a model file's content, ready to work. Requests that use it keep it alive when another takes its place.
type model struct {
	name     string
	version  int // 1 for the first file of its name, 2 for the next
	detector *rdpp.Detector
	queue    *queue
	metrics  *metrics

	users     sync.WaitGroup
	worked    chan struct{} // closed when work has ended
	batchTime atomic.Int64  // of the latest batch, nanoseconds
}

// retire frees the model when its last user is gone. Nobody may start to use it any more.
func (m *model) retire() {
	m.users.Wait()
	m.queue.close()
	<-m.worked
	m.detector.Close()
}

// entry is a name under which a model is served.
type entry struct {
	name, path string
	seen       fs.FileInfo // the file when it was looked at last; nil: it was gone
	tried      fs.FileInfo // the file that current was made of, or could not be
	current    *model      // nil: not ready
	versions   int         // loaded so far
	unloaded   bool        // by request: stays so until it is asked for again
	reason     string      // why the newest file is not in use, "" if it is
}

// repository is the models and the files that they come from.
type repository struct {
	opt     *Options
	metrics *metrics
	folder  bool // opt.Model is one

	loading sync.Mutex // held while files are looked at and loaded

	mu      sync.RWMutex // of what follows, held for moments
	entries map[string]*entry

	stop     context.CancelFunc
	stopped  context.Context
	watching sync.WaitGroup
	retiring sync.WaitGroup
}

func newRepository(opt *Options, m *metrics) *repository {
	r := &repository{opt: opt, metrics: m, entries: map[string]*entry{}}
	r.stopped, r.stop = context.WithCancel(context.Background())
	return r
}

// open loads what is there and starts to watch it.
func (r *repository) open() error {
	info, err := os.Stat(r.opt.Model)
	if err != nil {
		return fmt.Errorf("%w; name a model file or a folder of them with --model", err)
	}
	r.folder = info.IsDir()
	if !r.folder { // which must be there at the start, and be a file
		file, err := regular.Open(r.opt.Model)
		if err != nil {
			return fmt.Errorf("%w; name a model file or a folder of them with --model", err)
		}
		file.Close()
	}
	if err := r.look(true); err != nil {
		return err
	}
	if !r.folder {
		for _, e := range r.entries {
			if e.current == nil {
				return errors.New(e.reason)
			}
		}
	}
	r.watching.Go(r.watch)
	return nil
}

func (r *repository) watch() {
	tick := time.NewTicker(r.opt.Poll)
	defer tick.Stop()
	for {
		select {
		case <-r.stopped.Done():
			return
		case <-tick.C:
			if err := r.look(false); err != nil {
				r.opt.Logger.Error("models cannot be looked at; those loaded stay", "error", err.Error())
			}
		}
	}
}

// close ends watching and frees all models when their users are gone.
func (r *repository) close() {
	r.stop()
	r.watching.Wait()
	r.loading.Lock()
	defer r.loading.Unlock()
	for _, e := range r.entries {
		r.replace(e, nil)
	}
	r.retiring.Wait()
}

// names that models may have: they appear in addresses, metrics and logs.
var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

const (
	extension = ".safetensors"
	trained   = "model.safetensors" // what train calls it, in a folder with the category's name
)

// find lists the model files that are there, by name.
func (r *repository) find() (map[string]string, error) {
	if !r.folder {
		path, err := filepath.Abs(r.opt.Model)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		if filepath.Base(path) == trained {
			name = filepath.Base(filepath.Dir(path))
		}
		if !names.MatchString(name) {
			name = "model"
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			return nil, nil
		}
		return map[string]string{name: path}, nil
	}
	list, err := os.ReadDir(r.opt.Model)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, e := range list {
		path := filepath.Join(r.opt.Model, e.Name())
		name, isFile := strings.CutSuffix(e.Name(), extension)
		if !isFile {
			path = filepath.Join(path, trained)
		}
		if _, taken := found[name]; taken && !isFile || !names.MatchString(name) {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			found[name] = path
		}
	}
	return found, nil
}

// same says whether two looks at a file saw the same content, as far as can be told without reading it.
func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// look loads files that are new or have changed and unloads what is gone. Apart from the first time a file must look the
// same twice in a row, so that one being copied is left alone until it is whole.
func (r *repository) look(first bool) error {
	r.loading.Lock()
	defer r.loading.Unlock()
	found, err := r.find()
	if err != nil {
		return err
	}
	r.mu.Lock()
	for name, path := range found {
		if r.entries[name] == nil {
			r.entries[name] = &entry{name: name}
		}
		r.entries[name].path = path
	}
	all := r.sorted()
	r.mu.Unlock()
	for _, e := range all {
		now, err := os.Stat(e.path)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				continue // nobody knows whether it has changed
			}
			now = nil
		}
		settled := first || same(now, e.seen)
		e.seen = now
		switch {
		case !settled:
		case now == nil:
			r.remove(e)
		case !e.unloaded && !same(now, e.tried):
			if err := r.load(e); err != nil {
				r.opt.Logger.Error("model not loaded", "model", e.name, "error", err.Error(), "kept", e.current != nil)
			}
		}
	}
	return nil
}

func (r *repository) sorted() (all []*entry) {
	for _, e := range r.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int { return cmp.Compare(a.name, b.name) })
	return all
}

// load makes a model of an entry's file and puts it in the place of the entry's present one, which stays if the file is no
// good. The caller holds loading.
func (r *repository) load(e *entry) error {
	begin := time.Now()
	m, err := r.read(e)
	r.mu.Lock()
	e.reason = ""
	if err != nil {
		e.reason = err.Error()
	}
	r.mu.Unlock()
	r.metrics.load(e.name, err)
	if err != nil {
		return err
	}
	r.replace(e, m)
	c := m.detector.Calibration()
	r.opt.Logger.Info("model loaded", "model", e.name, "version", m.version, "file", e.path, "arch", m.detector.Info().Config.Arch,
		"threshold", c.Threshold, "provisional", c.Provisional, "ms", time.Since(begin).Milliseconds())
	return nil
}

// read opens an entry's file and tries the model out.
func (r *repository) read(e *entry) (*model, error) {
	copied, err := r.snapshot(r.stopped, e)
	if err != nil {
		return nil, err
	}
	defer copied.Close()
	opt := r.opt.Detector
	opt.Log = cmp.Or(opt.Log, r.opt.Logger.With("model", e.name))
	d, err := rdpp.OpenDetector(copied.path, &opt)
	if err == nil {
		if err = try(d); err != nil {
			d.Close()
		}
	}
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), copied.path, e.path))
	}
	m := &model{name: e.name, version: e.versions + 1, detector: d, metrics: r.metrics, worked: make(chan struct{}),
		queue: newQueue(r.opt.MaxQueue, r.opt.MaxBatch, r.opt.MaxWait)}
	go m.work()
	return m, nil
}

// snapshot copies an entry's file to a temporary one: reading a file that another program shortens meanwhile would end
// this one. It ends with ctx.
func (r *repository) snapshot(ctx context.Context, e *entry) (copied *scratch, err error) {
	from, err := regular.Open(e.path)
	if errors.Is(err, regular.ErrKind) {
		e.tried, _ = os.Stat(e.path) // nothing becomes of it until something else takes its place
	}
	if err != nil {
		return nil, err
	}
	defer from.Close()
	before, err := from.Stat()
	if err != nil {
		return nil, err
	}
	e.tried = before
	if before.Size() > rdpp.MaxModelBytes {
		return nil, fmt.Errorf("%s: %d bytes are more than any model has, %d at most", e.path, before.Size(), int64(rdpp.MaxModelBytes))
	}
	if copied, err = newScratch(); err != nil {
		return nil, fmt.Errorf("%s: a copy is needed while it is read: %w; TMPDIR can name another folder for it", e.path, err)
	}
	err = regular.Copy(ctx, copied, from, before.Size())
	if after, statErr := from.Stat(); errors.Is(err, regular.ErrLarge) || err == nil && (statErr != nil || !same(before, after)) {
		err = fmt.Errorf("%s: it changed while it was read; it is read again when it is whole", e.path)
	} else if err != nil {
		err = fmt.Errorf("%s: copying it: %w; TMPDIR can name another folder for the copy", e.path, err)
	}
	if err != nil {
		copied.Close()
		return nil, err
	}
	return copied, nil
}

// scratch is a temporary file that has no name, so that it ends with its process.
type scratch struct {
	*os.File
	path string // for opening it again, while it is open
}

func newScratch() (*scratch, error) {
	file, err := os.OpenFile(os.TempDir(), unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil { // some file systems give every file a name
		if file, err = os.CreateTemp("", "rdpp-*"+extension); err != nil {
			return nil, err
		}
		if err := os.Remove(file.Name()); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	return &scratch{file, fmt.Sprintf("/proc/self/fd/%d", file.Fd())}, nil
}

// try judges a grey picture, so that a model that cannot is found out, and one that can has set up all it needs.
func try(d *rdpp.Detector) error {
	S := d.Info().Config.ImageSize
	_, err := d.Detect(&imagefile.Image{W: S, H: S, Pix: slices.Repeat([]byte{128}, 3*S*S)})
	return err
}

// replace makes m, or nothing if it is nil, an entry's model, and lets the previous one end its work.
func (r *repository) replace(e *entry, m *model) {
	r.mu.Lock()
	old := e.current
	e.current = m
	if m != nil {
		e.versions = m.version
	}
	r.mu.Unlock()
	if old != nil {
		r.retiring.Go(old.retire)
	}
}

// remove forgets an entry whose file is gone. Requests under way still count.
func (r *repository) remove(e *entry) {
	r.mu.Lock()
	old := e.current
	e.current = nil
	delete(r.entries, e.name)
	r.mu.Unlock()
	r.retiring.Go(func() {
		if old != nil {
			old.retire()
		}
		r.forget(e.name)
	})
	r.opt.Logger.Info("model removed, its file is gone", "model", e.name, "file", e.path)
}

// forget drops the figures of a name, unless it has come back.
func (r *repository) forget(name string) {
	r.mu.RLock() // nothing is loaded under a name before it is an entry
	defer r.mu.RUnlock()
	if r.entries[name] == nil {
		r.metrics.forget(name)
	}
}

// acquire returns the model of a name for the caller to use until it calls release.
func (r *repository) acquire(name string) (m *model, release func(), err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.entries[name]
	switch {
	case e == nil:
		return nil, nil, unknown(name)
	case e.current == nil && e.unloaded:
		return nil, nil, busy(0, "model %s is unloaded; POST /v2/repository/models/%s/load loads it", name, name)
	case e.current == nil:
		return nil, nil, busy(0, "model %s is not ready: %s", name, e.reason)
	}
	e.current.users.Add(1)
	return e.current, e.current.users.Done, nil
}

func unknown(name string) error {
	return failf(http.StatusNotFound, "no model is named %.80q; GET /v1/models lists those there are", name)
}

// loaded lists the models that are ready, by name.
func (r *repository) loaded() (all []*model) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, e := range r.sorted() {
		if e.current != nil {
			all = append(all, e.current)
		}
	}
	return all
}

// state is what the index says of a name.
type state struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	State   string `json:"state"` // READY or UNAVAILABLE
	Reason  string `json:"reason,omitempty"`
}

// index lists all names, those that are not ready too.
func (r *repository) index() []state {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := []state{}
	for _, e := range r.sorted() {
		s := state{Name: e.name, State: "UNAVAILABLE", Reason: e.reason}
		switch {
		case e.current != nil:
			s.State, s.Version = "READY", strconv.Itoa(e.current.version)
		case e.unloaded:
			s.Reason = "unloaded"
		}
		all = append(all, s)
	}
	return all
}

// request loads an entry's file, changed or not, or unloads its model.
func (r *repository) request(name string, load bool) error {
	r.loading.Lock()
	defer r.loading.Unlock()
	found, err := r.find()
	if err != nil {
		return err
	}
	r.mu.Lock()
	e := r.entries[name]
	if path, ok := found[name]; e == nil && ok && load {
		e = &entry{name: name, path: path}
		r.entries[name] = e
	}
	if e != nil {
		e.unloaded = !load
	}
	r.mu.Unlock()
	switch {
	case e == nil:
		return unknown(name)
	case load:
		if err := r.load(e); err != nil {
			return failf(http.StatusUnprocessableEntity, "model %s: %w", name, err)
		}
		return nil
	}
	r.replace(e, nil)
	r.opt.Logger.Info("model unloaded by request", "model", name)
	return nil
}
