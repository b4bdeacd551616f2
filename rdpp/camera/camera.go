// Package camera takes pictures from cameras: M-JPEG and single pictures over HTTP, M-JPEG over RTSP, and M-JPEG of devices of
// Video4Linux. It decodes nothing: a frame is the file that the camera made. A camera that fails is connected to again and again.
//
// Memory is bounded by the largest frame that is taken, whatever a camera sends: one frame is kept and one is read.
package camera

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"rdpp/rdpp/setting"
)

// Frame is a picture as the camera made it.
type Frame struct {
	Data   []byte    // of a file, as a rule JPEG; not to be changed
	Begun  time.Time // when its first bytes arrived, or when it was asked for
	Number int64     // 1 for the first one of a Camera
}

// Options say how a camera is read. Zero means the defaults.
type Options struct {
	User, Password string // default: those in the address
	Width, Height  int    // of the frames of a device, pixels; default: the largest that it has

	MaxBytes int64         // of a frame; default DefaultMaxBytes
	Silence  time.Duration // without a whole frame, after which the camera is connected to anew; default 10 s
	First    time.Duration // wait before that, twice as long after each failure that follows; default 1 s
	Longest  time.Duration // such a wait; default 30 s

	// Log is told, by any goroutine, what people should know: that the camera fails, and that it works again. Default: nothing.
	Log func(text string)
}

// DefaultMaxBytes is how large a frame may be.
const DefaultMaxBytes = 32 << 20

// source is a kind of camera.
type source interface {
	// stream connects and hands frames over until the camera fails or ctx ends. asked tells one that makes pictures when it is asked
	// that another one is wanted.
	stream(ctx context.Context, deliver func(Frame), asked <-chan struct{}) error
}

// Camera is a camera from which frames are taken. It is safe for concurrent use.
type Camera struct {
	name   string
	opt    Options
	source source
	asked  chan struct{}

	stop  context.CancelFunc
	ended chan struct{}

	mu      sync.Mutex
	latest  Frame
	news    chan struct{} // closed when another frame comes
	failure error         // nil: it works, or has not been tried
}

// errSilent is why a camera is given up.
var errSilent = errors.New("no whole frame came in time")

// Open begins to read a camera: http://HOST/PATH and https of a stream of parts (multipart/x-mixed-replace) or of a picture, which is
// then asked for whenever one is wanted; rtsp://HOST/PATH and rtsps; /dev/videoN. The address may have user and password. Errors are
// Check's; whether the camera answers is seen later.
func Open(address string, opt *Options) (*Camera, error) {
	c, err := chosen(address, opt)
	if err != nil {
		return nil, err
	}
	c.opt.MaxBytes = cmp.Or(c.opt.MaxBytes, DefaultMaxBytes)
	c.opt.Silence = cmp.Or(c.opt.Silence, 10*time.Second)
	c.opt.First = cmp.Or(c.opt.First, time.Second)
	c.opt.Longest = cmp.Or(c.opt.Longest, 30*time.Second)
	if c.opt.Log == nil {
		c.opt.Log = func(string) {}
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	go c.run(ctx)
	return c, nil
}

// Check says whether an address is that of a camera. The error is a *setting.Error of the field "camera".
func Check(address string) error {
	_, err := chosen(address, nil)
	return err
}

// chosen is the camera at an address, which is not read.
func chosen(address string, opt *Options) (*Camera, error) {
	const use = "use http://HOST/PATH, https, rtsp, rtsps, or /dev/videoN"
	c := &Camera{asked: make(chan struct{}, 1), ended: make(chan struct{}), news: make(chan struct{})}
	if opt != nil {
		c.opt = *opt
	}
	if strings.HasPrefix(address, "/dev/") {
		c.name, c.source = address, &device{path: address, opt: &c.opt}
		return c, nil
	}
	u, err := url.Parse(address)
	if err != nil { // whose words have the password
		return nil, setting.Wrong("camera", "no URL", use)
	}
	name := *u
	name.User, name.RawQuery = nil, "" // which may be secrets
	if c.opt.User != "" {
		u.User = url.UserPassword(c.opt.User, c.opt.Password)
	}
	switch {
	case u.Hostname() == "":
		return nil, setting.Wrong("camera", name.String(), use)
	case u.Scheme == "http", u.Scheme == "https":
		c.source = &web{address: u, opt: &c.opt}
	case u.Scheme == "rtsp", u.Scheme == "rtsps":
		c.source = &rtspStream{address: u, opt: &c.opt}
	default:
		return nil, setting.Wrong("camera", name.String(), use)
	}
	c.name = name.String()
	return c, nil
}

// String names the camera in what people read, without secrets.
func (c *Camera) String() string { return c.name }

// Close ends the reading.
func (c *Camera) Close() {
	c.stop()
	<-c.ended
}

// Next waits for the first frame that began to arrive at a time or later. Of several that are there already it is the latest. An error
// is that of ctx, with what is the matter with the camera.
func (c *Camera) Next(ctx context.Context, since time.Time) (Frame, error) {
	for {
		c.mu.Lock()
		f, news := c.latest, c.news
		c.mu.Unlock()
		if f.Data != nil && !f.Begun.Before(since) {
			return f, nil
		}
		select {
		case c.asked <- struct{}{}:
		default: // it knows
		}
		select {
		case <-news:
		case <-ctx.Done():
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.failure != nil {
				return Frame{}, fmt.Errorf("camera: %s: no frame came: %w (%w)", c.name, c.failure, ctx.Err())
			}
			return Frame{}, fmt.Errorf("camera: %s: no frame came: %w", c.name, ctx.Err())
		}
	}
}

func (c *Camera) deliver(f Frame) {
	c.mu.Lock()
	f.Number = c.latest.Number + 1
	c.latest = f
	close(c.news)
	c.news = make(chan struct{})
	failed := c.failure != nil
	c.failure = nil
	c.mu.Unlock()
	if failed {
		c.opt.Log(fmt.Sprintf("camera: %s: it works again", c.name))
	}
}

// run reads until ctx ends.
func (c *Camera) run(ctx context.Context) {
	defer close(c.ended)
	wait := c.opt.First
	for ctx.Err() == nil {
		before := c.number()
		err := c.source.stream(ctx, c.deliver, c.asked)
		if ctx.Err() != nil {
			return
		}
		if c.number() > before {
			wait = c.opt.First
		}
		c.mu.Lock()
		first := c.failure == nil
		c.failure = err
		c.mu.Unlock()
		if first {
			c.opt.Log(fmt.Sprintf("camera: %s: %v; it is tried again", c.name, err))
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, c.opt.Longest)
	}
}

func (c *Camera) number() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest.Number
}

// impatient is a context that ends with errSilent where alive is not called again within a time. stop has to be called.
func impatient(ctx context.Context, within time.Duration) (limited context.Context, alive, stop func()) {
	limited, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(within, func() { cancel(errSilent) })
	return limited, func() { timer.Reset(within) }, func() { timer.Stop(); cancel(nil) }
}

// why is the error of something that was done while ctx was not over: that ctx is, if it is.
func why(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
