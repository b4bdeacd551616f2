// Package fetch downloads files over HTTP that must arrive whole: it resumes what was interrupted, tries again after
// failures, checks the SHA-256, and puts a file in its place only when all of it is there.
package fetch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Options say how a file is downloaded. Zero fields mean the defaults.
type Options struct {
	SHA256   string        // hexadecimal digits that the content's SHA-256 begins with; default: any content
	MaxBytes int64         // largest file accepted, default 2 GiB
	Tries    int           // attempts in a row that may bring nothing, default 5
	Backoff  time.Duration // pause before the second of them, doubled before each further one, default 1 second
	Stall    time.Duration // how long an attempt waits for the next bytes, default 30 seconds

	// Client does the requests. The default takes proxies from HTTPS_PROXY, HTTP_PROXY and NO_PROXY, and follows no
	// redirect from https to http.
	Client *http.Client

	// These are called on File's goroutine.
	OnProgress func(done, total int64)                 // bytes, ten times a second at most and at the end; total is -1 where unknown
	OnRetry    func(reason error, pause time.Duration) // before every pause
	OnWait     func()                                  // once, where another process is downloading the file
}

// ErrDigest is wrapped by the error about a file whose SHA-256 is not the one asked for.
var ErrDigest = errors.New("another file than the one asked for, or a damaged one")

// errStalled ends an attempt that receives nothing.
var errStalled = errors.New("the server sends nothing")

const (
	maxBackoff    = 30 * time.Second
	lockEvery     = 200 * time.Millisecond // between looks at another process's lock
	progressEvery = 100 * time.Millisecond
	userAgent     = "rdpp"
)

// partSuffix ends the name of a file that is not complete yet. A later call goes on with it.
const partSuffix = ".part"

// permanent marks an error that trying again cannot mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// File downloads from address to path, whose folder it makes where missing. What is at path already stays, and is not
// looked into. Several processes and goroutines may ask for the same path: one downloads, the others wait for it. When
// ctx ends, or all attempts have failed, what has arrived stays beside path, under its name and ".part", and the next
// call goes on from there.
func File(ctx context.Context, address, path string, opt Options) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("fetch: %q is no http or https address", address)
	}
	opt.complete()
	d := &download{url: u, path: path, opt: opt}
	if err := d.run(ctx); err != nil {
		return fmt.Errorf("fetch: %s: %w", u.Redacted(), err)
	}
	return nil
}

func (o *Options) complete() {
	o.MaxBytes = cmp.Or(o.MaxBytes, 2<<30)
	o.Tries = cmp.Or(o.Tries, 5)
	o.Backoff = cmp.Or(o.Backoff, time.Second)
	o.Stall = cmp.Or(o.Stall, 30*time.Second)
	o.Client = cmp.Or(o.Client, defaultClient)
}

var defaultClient = newClient()

func newClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone() // with http.ProxyFromEnvironment
	transport.DisableCompression = true                          // lengths and ranges are those of the file
	return &http.Client{Transport: transport, CheckRedirect: func(next *http.Request, before []*http.Request) error {
		switch last := before[len(before)-1]; {
		case len(before) >= 10:
			return permanent{errors.New("redirected 10 times")}
		case last.URL.Scheme == "https" && next.URL.Scheme != "https":
			return permanent{fmt.Errorf("redirected from https to %s", next.URL.Redacted())}
		}
		return nil
	}}
}

// download is one call of File.
type download struct {
	url  *url.URL
	path string
	opt  Options

	part     *os.File // locked
	done     int64    // bytes in it
	total    int64    // of the whole file; -1: unknown
	received bool     // something, in this call
	shown    time.Time
}

func (d *download) run(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(d.path), 0o777); err != nil {
		return err
	}
	if err := d.lock(ctx); err != nil {
		return err
	}
	defer d.part.Close()
	if _, err := os.Stat(d.path); err == nil { // by the process that had the lock
		return os.Remove(d.part.Name())
	}
	if err := d.receive(ctx); err != nil {
		return err
	}
	return d.place()
}

// lock opens the partial file and waits until no other process writes to it.
func (d *download) lock(ctx context.Context) error {
	waited := false
	for {
		part, err := os.OpenFile(d.path+partSuffix, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return err
		}
		err = syscall.Flock(int(part.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil && isAt(part, part.Name()):
			d.part = part
			return nil
		case err == nil: // the one before has put it in its place
			part.Close()
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			// Some network file systems have no locks. Two writers would end at a wrong SHA-256.
			d.part = part
			return nil
		}
		part.Close()
		if !waited && d.opt.OnWait != nil {
			d.opt.OnWait()
		}
		waited = true
		if err := pause(ctx, lockEvery); err != nil {
			return err
		}
	}
}

// isAt says whether the opened file is still the one at path.
func isAt(file *os.File, path string) bool {
	opened, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(opened, there)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive fills the partial file with the whole, verified content.
func (d *download) receive(ctx context.Context) error {
	info, err := d.part.Stat()
	if err != nil {
		return err
	}
	d.done, d.total = info.Size(), -1
	wait, wrong := d.opt.Backoff, 0
	for failures := 0; ; {
		before := d.done
		err := d.attempt(ctx)
		if err == nil {
			if err = d.verify(); err == nil {
				return nil
			}
			if !errors.Is(err, ErrDigest) {
				return err
			}
			// What was resumed may have been of another file, so one more download is due.
			if wrong++; wrong == 2 {
				return errors.Join(err, os.Remove(d.part.Name()))
			}
			if err := d.restart(); err != nil {
				return err
			}
		}
		switch {
		case ctx.Err() != nil:
			d.dropEmpty()
			return ctx.Err()
		case errors.As(err, new(permanent)), !d.received && unreachable(err):
			d.dropEmpty()
			return err
		case d.done > before:
			failures, wait = 0, d.opt.Backoff
		}
		if failures++; failures >= d.opt.Tries {
			d.dropEmpty()
			return fmt.Errorf("%w; given up after %d attempts", err, failures)
		}
		if d.opt.OnRetry != nil {
			d.opt.OnRetry(err, wait)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, maxBackoff)
	}
}

// dropEmpty removes a partial file that holds nothing to go on from.
func (d *download) dropEmpty() {
	if d.done == 0 {
		os.Remove(d.part.Name())
	}
}

// unreachable says whether an error is the definite answer that there is no such server, as offline.
func unreachable(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && !dns.IsTimeout || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)
}

// attempt is one request; it returns nil when the content has ended where the server says that it ends.
func (d *download) attempt(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(d.opt.Stall, func() { cancel(errStalled) })
	defer watchdog.Stop()
	defer func() {
		if err != nil && context.Cause(ctx) == errStalled {
			err = fmt.Errorf("%w for %v", errStalled, d.opt.Stall)
		}
	}()

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url.String(), nil)
	if err != nil {
		return permanent{err}
	}
	request.Header.Set("User-Agent", userAgent)
	if d.done > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.done))
	}
	response, err := d.opt.Client.Do(request)
	if err != nil {
		if wrapper := (*url.Error)(nil); errors.As(err, &wrapper) {
			err = wrapper.Err // the address is named already
		}
		return err
	}
	defer response.Body.Close()
	if whole, err := d.begin(response); whole || err != nil {
		return err
	}
	return d.copy(response.Body, watchdog)
}

// begin judges a response's head and makes the partial file end where the response's body goes on. whole is true where
// there is nothing to add.
func (d *download) begin(response *http.Response) (whole bool, err error) {
	switch code := response.StatusCode; {
	case code == http.StatusOK: // also of servers that know no ranges
		if err := d.restart(); err != nil {
			return false, err
		}
		d.total = response.ContentLength
	case code == http.StatusPartialContent:
		start, total, ok := parseContentRange(response.Header.Get("Content-Range"))
		if !ok || start != d.done {
			if err := d.restart(); err != nil {
				return false, err
			}
			return false, errors.New("the server answered with another part of the file than asked for")
		}
		if d.total = total; total < 0 && response.ContentLength >= 0 {
			d.total = d.done + response.ContentLength
		}
	case code == http.StatusRequestedRangeNotSatisfiable && d.done > 0:
		// There is nothing behind the partial file: it is complete, or not of this file.
		if response.Header.Get("Content-Range") == fmt.Sprintf("bytes */%d", d.done) {
			d.total = d.done
			return true, nil
		}
		if err := d.restart(); err != nil {
			return false, err
		}
		return false, errors.New("the server has a shorter file than what is here")
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		return false, fmt.Errorf("the server answered %s", status(response))
	default:
		return false, permanent{fmt.Errorf("the server answered %s", status(response))}
	}
	if d.total > d.opt.MaxBytes {
		return false, permanent{fmt.Errorf("the file has %d bytes, more than the %d that are accepted", d.total, d.opt.MaxBytes)}
	}
	return false, nil
}

// status is a response's code in our words: the server's could be any text.
func status(response *http.Response) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", response.StatusCode, http.StatusText(response.StatusCode)))
}

// parseContentRange reads "bytes FIRST-LAST/TOTAL"; total is -1 where it is "*".
func parseContentRange(text string) (start, total int64, ok bool) {
	text, ok = strings.CutPrefix(text, "bytes ")
	if !ok {
		return 0, 0, false
	}
	span, size, ok := strings.Cut(text, "/")
	if !ok {
		return 0, 0, false
	}
	first, last, ok := strings.Cut(span, "-")
	if !ok {
		return 0, 0, false
	}
	start, err1 := parseLength(first)
	end, err2 := parseLength(last)
	total = -1
	var err3 error
	if size != "*" {
		total, err3 = parseLength(size)
	}
	if errors.Join(err1, err2, err3) != nil || end < start || total >= 0 && end >= total {
		return 0, 0, false
	}
	return start, total, true
}

// parseLength reads a number of bytes, digits alone.
func parseLength(text string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	return int64(n), err
}

// restart empties the partial file.
func (d *download) restart() error {
	d.done = 0
	if err := d.part.Truncate(0); err != nil {
		return permanent{err}
	}
	return nil
}

// copy appends a response's body to the partial file.
func (d *download) copy(body io.Reader, watchdog *time.Timer) error {
	buffer := make([]byte, 1<<16)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			watchdog.Reset(d.opt.Stall)
			d.received = true
			if d.done+int64(n) > d.opt.MaxBytes {
				return permanent{errors.Join(fmt.Errorf("more than the %d bytes that are accepted", d.opt.MaxBytes), d.restart())}
			}
			if _, err := d.part.WriteAt(buffer[:n], d.done); err != nil {
				return permanent{err}
			}
			d.done += int64(n)
			d.progress(false)
		}
		switch {
		case err == io.EOF && d.total >= 0 && d.done < d.total, errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("the connection ended early, after %d bytes", d.done)
		case err == io.EOF:
			d.progress(true)
			return nil
		case err != nil:
			return err
		}
	}
}

func (d *download) progress(last bool) {
	if d.opt.OnProgress == nil || !last && time.Since(d.shown) < progressEvery {
		return
	}
	d.shown = time.Now()
	d.opt.OnProgress(d.done, d.total)
}

// verify compares the partial file's SHA-256.
func (d *download) verify() error {
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(d.part, 0, d.done)); err != nil {
		return err
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); !strings.HasPrefix(sum, strings.ToLower(d.opt.SHA256)) {
		return fmt.Errorf("%w: its SHA-256 begins with %s, not with %s", ErrDigest, sum[:min(max(8, len(d.opt.SHA256)), len(sum))], d.opt.SHA256)
	}
	return nil
}

// place makes the partial file the file, for good.
func (d *download) place() error {
	if err := d.part.Sync(); err != nil {
		return err
	}
	if err := os.Rename(d.part.Name(), d.path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(d.path))
	if err != nil {
		return err
	}
	defer folder.Close()
	// Some network file systems cannot sync a folder and say so by EINVAL.
	if err := folder.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}
