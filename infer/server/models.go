package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"rdpp/rdpp"
	"rdpp/rdpp/printable"
	"rdpp/rdpp/regular"
	"rdpp/rdpp/weights"
)

// model is a model file's content, ready to work. Requests that use it keep it alive when another takes its place.
type model struct {
	name     string
	version  int // 1 for the first file of its name, 2 for the next
	detector *rdpp.Detector
	queue    *queue
	metrics  *metrics
	line     *line // nil: drift is not watched

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

	loading chan struct{}     // holds one while files are looked at and loaded
	odd     map[string]string // files that are not served, and why, as far as the log has it; for who is loading

	mu      sync.RWMutex // of what follows, held for moments
	entries map[string]*entry
	wanted  map[string]*wanted // by name, of which the loading has not begun

	stop     context.CancelFunc // ends watching and loading
	stopped  context.Context
	watching sync.WaitGroup
	asked    sync.WaitGroup // loading on request
	retiring sync.WaitGroup
}

// lock waits until nobody else is loading, or for ctx's end.
func (r *repository) lock(ctx context.Context) error {
	select {
	case r.loading <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *repository) unlock() { <-r.loading }

func newRepository(opt *Options, m *metrics) *repository {
	r := &repository{opt: opt, metrics: m, loading: make(chan struct{}, 1), odd: map[string]string{}, entries: map[string]*entry{}, wanted: map[string]*wanted{}}
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
	r.asked.Wait()
	for _, e := range r.entries {
		r.replace(e, nil)
	}
	r.retiring.Wait()
}

// checkName says why no model can have a name. Names appear in addresses, metrics and logs.
func checkName(name string) error {
	switch {
	case name == "" || len(name) > 255:
		return errors.New("a name has 1 to 255 bytes")
	case !utf8.ValidString(name):
		return errors.New("it is not in UTF-8")
	case name[0] == '.':
		return errors.New("it begins with a dot")
	case strings.Contains(name, "/") || printable.Text(name) != name:
		return errors.New("it has characters that cannot be seen, or a slash")
	}
	return nil
}

// key is what names are compared by: some systems write é as one character, others as two.
func key(name string) string { return norm.NFC.String(name) }

const (
	extension = ".safetensors"
	trained   = "model.safetensors" // what train calls it, in a folder with the category's name
)

// find lists the model files that are there, by name, and by path those that cannot be served, and why.
func (r *repository) find() (found, odd map[string]string, err error) {
	found, odd = map[string]string{}, map[string]string{}
	if !r.folder {
		path, err := filepath.Abs(r.opt.Model)
		if err != nil {
			return nil, nil, err
		}
		name := key(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
		if filepath.Base(path) == trained {
			name = key(filepath.Base(filepath.Dir(path)))
		}
		if err := checkName(name); err != nil {
			odd[path] = fmt.Sprintf("its name is no model's: %v; it is served as \"model\"", err)
			name = "model"
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			found[name] = path
		}
		return found, odd, nil
	}
	list, err := os.ReadDir(r.opt.Model)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range list {
		path := filepath.Join(r.opt.Model, e.Name())
		name, isFile := strings.CutSuffix(e.Name(), extension)
		name = key(name)
		if end := filepath.Ext(e.Name()); !isFile && !e.IsDir() && strings.EqualFold(end, extension) {
			odd[path] = fmt.Sprintf("its name ends in %s; write %s", end, extension)
			continue
		}
		if !isFile {
			path = filepath.Join(path, trained)
		}
		info, err := os.Stat(path)
		if err != nil {
			continue // it is none, or gone
		}
		other, taken := found[name]
		problem := checkName(name)
		switch {
		case problem != nil:
			odd[path] = fmt.Sprintf("its name is no model's: %v; rename it", problem)
		case !info.Mode().IsRegular():
			odd[path] = "it is no regular file; put a copy there"
		case taken && !isFile:
			odd[path] = fmt.Sprintf("%s has the same name; rename one of them", other)
		case taken:
			odd[other] = fmt.Sprintf("%s has the same name; rename one of them", path)
			fallthrough
		default:
			found[name] = path
		}
	}
	return found, odd, nil
}

// warn logs what cannot be served, each once.
func (r *repository) warn(odd map[string]string) {
	for _, path := range slices.Sorted(maps.Keys(odd)) {
		if r.odd[path] != odd[path] {
			r.opt.Logger.Warn("a model file is not served by its name", "file", printable.Text(path), "reason", printable.Text(odd[path]))
		}
	}
	r.odd = odd
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
	if err := r.lock(r.stopped); err != nil {
		return nil // nobody wants to know any more
	}
	defer r.unlock()
	found, odd, err := r.find()
	if err != nil {
		return err
	}
	r.warn(odd)
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
			if err := r.load(r.stopped, e); err != nil && r.stopped.Err() == nil {
				r.opt.Logger.Error("model not loaded", "model", e.name, "error", printable.Text(err.Error()), "kept", e.current != nil)
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
// good or ctx ends first. The caller is the one that is loading.
func (r *repository) load(ctx context.Context, e *entry) error {
	begin, tried := time.Now(), e.tried
	m, err := r.read(ctx, e)
	if ctx.Err() != nil {
		if err == nil {
			m.retire()
		}
		e.tried = tried
		return ctx.Err()
	}
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
	r.opt.Logger.Info("model loaded", "model", e.name, "version", m.version, "file", printable.Text(e.path), "arch", m.detector.Info().Config.Arch,
		"threshold", c.Threshold, "provisional", c.Provisional, "ms", time.Since(begin).Milliseconds())
	return nil
}

// read opens an entry's file and tries the model out. It looks for ctx's end between these steps. A file that is written
// to meanwhile is refused, and read again when it is whole.
func (r *repository) read(ctx context.Context, e *entry) (*model, error) {
	before, err := os.Stat(e.path)
	if err != nil {
		return nil, err
	}
	e.tried = before
	if before.Size() > rdpp.MaxModelBytes {
		return nil, fmt.Errorf("%s: %d bytes are more than any model has, %d at most", e.path, before.Size(), int64(rdpp.MaxModelBytes))
	}
	opt := r.opt.Detector
	opt.Log = cmp.Or(opt.Log, r.opt.Logger.With("model", e.name))
	d, err := rdpp.OpenDetector(e.path, &opt)
	if err == nil && ctx.Err() == nil {
		if err = d.Try(); err != nil {
			d.Close()
		}
	}
	if errors.Is(err, weights.ErrChanged) {
		e.tried = nil // whatever it looks like when it is whole
	}
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	var watched *line
	if e.current != nil {
		watched = e.current.line
	}
	r.mu.RUnlock()
	if watched == nil || watched.digest == "" || watched.digest != d.Digest() {
		watched = r.newLine(e.name, d)
	}
	m := &model{name: e.name, version: e.versions + 1, detector: d, metrics: r.metrics, line: watched, worked: make(chan struct{}),
		queue: newQueue(r.opt.MaxQueue, r.opt.MaxBatch, r.opt.MaxWait)}
	go m.work()
	return m, nil
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
		r.retiring.Go(func() { r.retire(old) })
	}
}

// retire frees a model that no entry has, and keeps what its line knows.
func (r *repository) retire(m *model) {
	m.retire()
	r.keepLine(m.name, m.line)
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
			r.retire(old)
		}
		r.forget(e.name)
	})
	r.opt.Logger.Info("model removed, its file is gone", "model", e.name, "file", printable.Text(e.path))
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
	e := r.entries[key(name)]
	switch {
	case e == nil:
		return nil, nil, unknown(name)
	case e.current == nil && e.unloaded:
		return nil, nil, busy(0, "model %s is unloaded; POST /v2/repository/models/%s/load loads it", name, url.PathEscape(name))
	case e.current == nil:
		return nil, nil, busy(0, "model %s is not ready: %s", name, e.reason)
	}
	e.current.users.Add(1)
	return e.current, e.current.users.Done, nil
}

// acquireVersion is acquire of a version, "" for whichever there is.
func (r *repository) acquireVersion(name, version string) (m *model, release func(), err error) {
	m, release, err = r.acquire(name)
	if err == nil && version != "" && version != strconv.Itoa(m.version) {
		release()
		return nil, nil, failf(http.StatusNotFound, "version %.40s of %s is not there, %d is", printable.Text(version), m.name, m.version)
	}
	return m, release, err
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

// wanted is the loading of a model that clients wait for. Those that ask before it begins share it, and it ends when all of
// them have left.
type wanted struct {
	clients int
	stop    context.CancelFunc
	done    chan struct{} // closed when err is set
	err     error
}

var errEnding = errors.New("the service is ending")

// request loads an entry's file, changed or not, or unloads its model.
func (r *repository) request(ctx context.Context, name string, load bool) error {
	name = key(name)
	if !load {
		return r.unload(ctx, name)
	}
	r.mu.Lock()
	w := r.wanted[name]
	if w == nil {
		loading, stop := context.WithCancel(r.stopped)
		w = &wanted{stop: stop, done: make(chan struct{})}
		r.wanted[name] = w
		r.asked.Go(func() {
			defer close(w.done)
			defer stop()
			w.err = r.reload(loading, name, w)
		})
	}
	w.clients++
	r.mu.Unlock()
	select {
	case <-w.done:
		if w.err != nil && r.stopped.Err() != nil {
			return busy(0, "%w", errEnding)
		}
		return w.err
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.clients--; w.clients == 0 {
		w.stop()
		r.forgetWanted(name, w)
	}
	return ctx.Err()
}

// forgetWanted lets nobody else share w. The caller holds mu.
func (r *repository) forgetWanted(name string, w *wanted) {
	if r.wanted[name] == w {
		delete(r.wanted, name)
	}
}

// reload does what clients wait for in w.
func (r *repository) reload(ctx context.Context, name string, w *wanted) error {
	err := r.lock(ctx)
	r.mu.Lock()
	r.forgetWanted(name, w) // who asks from now on may know of a newer file
	r.mu.Unlock()
	if err != nil {
		return err
	}
	defer r.unlock()
	e, err := r.entry(name)
	if err != nil {
		return err
	}
	err = r.load(ctx, e)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.setUnloaded(e, false)
	if err != nil {
		return loadFailure(name, err)
	}
	return nil
}

// entry finds the entry of a name, or makes it where its file is new. The caller is the one that is loading.
func (r *repository) entry(name string) (*entry, error) {
	found, _, err := r.find()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[name]
	if path, ok := found[name]; e == nil && ok {
		e = &entry{name: name, path: path}
		r.entries[name] = e
	}
	if e == nil {
		return nil, unknown(name)
	}
	return e, nil
}

func (r *repository) setUnloaded(e *entry, unloaded bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.unloaded = unloaded
}

func (r *repository) unload(ctx context.Context, name string) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	r.mu.Lock()
	e := r.entries[name]
	r.mu.Unlock()
	if e == nil {
		return unknown(name)
	}
	r.setUnloaded(e, true)
	r.replace(e, nil)
	r.opt.Logger.Info("model unloaded by request", "model", name)
	return nil
}
