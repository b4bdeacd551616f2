package camera

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// web is a camera that is asked over HTTP, for a stream of parts or for one picture after the other.
type web struct {
	address *url.URL
	opt     *Options
}

// client goes to cameras, which are near: not through a proxy. A camera that is elsewhere is not told the secrets of the address, which
// the Referer has.
var client = &http.Client{Transport: &http.Transport{MaxResponseHeaderBytes: 64 << 10, DisableCompression: true, IdleConnTimeout: time.Minute},
	CheckRedirect: func(to *http.Request, via []*http.Request) error {
		first := via[0].URL
		switch {
		case to.URL.Hostname() != first.Hostname(), first.Scheme == "https" && to.URL.Scheme != "https":
			return fmt.Errorf("it redirects to %s://%.100s; give that address, if it is the camera's", to.URL.Scheme, to.URL.Host)
		case len(via) >= 10:
			return errors.New("it redirects again and again")
		}
		return nil
	}}

func (w *web) stream(ctx context.Context, deliver func(Frame), asked <-chan struct{}) error {
	for {
		if err := w.get(ctx, deliver); err != nil {
			return err
		}
		select {
		case <-asked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// get asks once. No error: the answer was a picture.
func (w *web) get(ctx context.Context, deliver func(Frame)) (err error) {
	ctx, alive, stop := impatient(ctx, w.opt.Silence)
	defer stop()
	defer func() {
		if err != nil {
			err = why(ctx, err)
		}
	}()
	begun := time.Now()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.address.String(), nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err // as the address has secrets
	}
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", answer.Status)
	}
	kind, parameters, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	switch {
	case err != nil:
		return fmt.Errorf("it does not say what it sends: Content-Type %.100q", answer.Header.Get("Content-Type"))
	case strings.HasPrefix(kind, "image/"):
		data, err := io.ReadAll(io.LimitReader(answer.Body, w.opt.MaxBytes+1))
		switch {
		case err != nil:
			return err
		case int64(len(data)) > w.opt.MaxBytes:
			return tooLarge(w.opt.MaxBytes)
		case len(data) == 0:
			return errors.New("it sends an empty picture")
		}
		deliver(Frame{Data: data, Begun: begun})
		return nil
	case !strings.HasPrefix(kind, "multipart/"):
		return fmt.Errorf("it sends %.100q, not pictures", kind)
	case parameters["boundary"] == "":
		return errors.New("it does not say what is between its pictures: there is no boundary in its Content-Type")
	}
	parts := newParts(answer.Body, parameters["boundary"], w.opt.MaxBytes)
	for {
		f, err := parts.next()
		if err == io.EOF {
			return errors.New("it has ended the stream")
		}
		if err != nil {
			return err
		}
		alive()
		deliver(f)
	}
}

func tooLarge(most int64) error { return fmt.Errorf("its picture is larger than %d bytes", most) }
