package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"rdpp/infer/watch"
	"rdpp/rdpp/camera"
	"rdpp/rdpp/command"
	"rdpp/rdpp/outbox"
)

// cameras are the flags of a watch that takes its images from a camera.
type cameras struct {
	address, login string
	every          time.Duration
	trigger        bool
	triggers       *camera.Triggers // with trigger, once listen was called
	opt            camera.Options
}

// register adds the flags and returns those that few need.
func (c *cameras) register(flags *pflag.FlagSet) (rare []string) {
	flags.StringVar(&c.address, "camera", "", "judge frames of the camera at `URL`, or /dev/video0")
	flags.DurationVar(&c.every, "every", 0, "one frame of the camera per `TIME`; default: all")
	flags.BoolVar(&c.trigger, "trigger", false, "one per line on standard input, whose text becomes\npart of its name")
	flags.StringVar(&c.login, "camera-login", "", "`FILE` of user and password, a line each; or in\nRDPP_CAMERA_USER and RDPP_CAMERA_PASSWORD")
	flags.Func("camera-size", "size `W,H` of /dev/video0's frames; default: largest", func(text string) error {
		w, h, _ := strings.Cut(text, ",")
		var errs [2]error
		c.opt.Width, errs[0] = strconv.Atoi(w)
		c.opt.Height, errs[1] = strconv.Atoi(h)
		if errors.Join(errs[:]...) != nil || min(c.opt.Width, c.opt.Height) < 1 || max(c.opt.Width, c.opt.Height) > 1<<16 {
			return errors.New("use two whole numbers, such as 1280,720")
		}
		return nil
	})
	return []string{"every", "trigger", "camera-login", "camera-size"}
}

// check says what is wrong with the flags.
func (c *cameras) check(once bool) (err error) {
	switch {
	case c.address == "" && (c.every != 0 || c.trigger || c.login != "" || c.opt.Width != 0):
		return command.Usagef("--every, --trigger, --camera-login and --camera-size are for --camera; name one with that")
	case c.every < 0:
		return command.Usagef("--every %v; use more than 0", c.every)
	case c.every > 0 && c.trigger:
		return command.Usagef("--every and --trigger say each when a frame is taken; give one of them")
	case once && (c.every > 0 || c.trigger):
		return command.Usagef("--once takes one frame of the camera, without waiting; leave out --every and --trigger")
	case c.opt.Width != 0 && !strings.HasPrefix(c.address, "/dev/"):
		return command.Usagef("--camera-size is for /dev/videoN; set the size at the camera, or in its address")
	}
	if c.address != "" {
		if err := camera.Check(c.address); err != nil {
			return err
		}
		c.opt.User, c.opt.Password = os.Getenv("RDPP_CAMERA_USER"), os.Getenv("RDPP_CAMERA_PASSWORD")
		if c.login != "" {
			c.opt.User, c.opt.Password, err = outbox.ReadLogin(c.login)
		}
	}
	return err
}

// listen begins to read triggers, if there are some. It comes before all that takes long, so that none waits and then gets the frame of a
// later part.
func (c *cameras) listen(lines io.Reader) {
	if c.trigger {
		c.triggers = camera.ReadTriggers(lines)
	}
}

// folder is where frames wait to be judged where nobody has named a folder.
func (c *cameras) folder() (dir string, err error) {
	state, err := stateFolder()
	if err != nil {
		return "", fmt.Errorf("no folder for the frames: %w; name one", err)
	}
	address := c.address
	if u, err := url.Parse(address); err == nil {
		u.User = nil // who has another password, has the same camera
		address = u.String()
	}
	dir = filepath.Join(state, fmt.Sprintf("camera-%.4x", sha256.Sum256([]byte(address))))
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", fmt.Errorf("%w; name a folder for the frames", err)
	}
	return dir, nil
}

// start has frames taken into the folder that is watched as soon as the watch begins, or with Once one, which is then judged alone. They
// are removed when they are judged, unless they are moved. The context that it returns ends when what was triggered is judged, or when no more frames can be
// taken. stop comes after the watch; its error says why they cannot.
func (c *cameras) start(ctx context.Context, opt *watch.Options, log func(string)) (watched context.Context, stop func() error, err error) {
	alone := "" // the frame of Once
	opt.Wanted = func(name string) bool { return camera.IsFrame(name) && (alone == "" || name == alone) }
	opt.Discard, opt.Patience = true, time.Nanosecond // as frames are whole
	c.opt.Log = log
	cam, err := camera.Open(c.address, &c.opt)
	if err != nil {
		return nil, nil, err
	}
	f := &camera.Feed{Camera: cam, Dir: opt.Dir, Triggers: c.triggers, Every: c.every, Log: log}
	if !c.trigger {
		f.Most = opt.InFlight + 1 // what waits longer is not what the camera sees
	}
	watched, end := context.WithCancelCause(ctx)
	var feeding sync.WaitGroup
	opt.Begin = func() (err error) {
		if opt.Once {
			limited, stop := context.WithTimeout(watched, firstFrame)
			defer stop()
			alone, err = f.One(limited)
			return err
		}
		feeding.Go(func() { end(feed(watched, f)) })
		return nil
	}
	return watched, func() error {
		end(nil)
		feeding.Wait()
		cam.Close()
		taken, dropped := f.Counts()
		log(fmt.Sprintf("camera: %s: %d frames taken, %d dropped", cam, taken, dropped))
		if err := context.Cause(watched); ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}, nil
}

// feed takes frames until ctx ends or, after the last trigger, all of them are judged.
func feed(ctx context.Context, f *camera.Feed) error {
	err := f.Run(ctx)
	for err == nil && ctx.Err() == nil {
		empty, inner := f.Empty()
		if inner != nil || empty {
			return inner
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// firstFrame is how long --once waits for its frame.
const firstFrame = 30 * time.Second
