package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/setting"
	"rdpp/torch"
)

// statusGone is for a client that left before its answer. One that has only closed its sending half gets it.
const statusGone = 499

// failure is an error with the status that it leads to.
type failure struct {
	status int
	err    error
	retry  time.Duration // after which the client may try again; 0: not named
}

func (f *failure) Error() string { return setting.Text(f.err, nameOf) }
func (f *failure) Unwrap() error { return f.err }

// nameOf calls the service's own setting by its flag; the others are the client's, parameters of its request.
func nameOf(field string) string {
	if field == "max_pixels" {
		return "--max-pixels"
	}
	return field
}

func failf(status int, format string, args ...any) error {
	return &failure{status: status, err: fmt.Errorf(format, args...)}
}

// busy is the answer to a request that there is no room or time for.
func busy(retry time.Duration, format string, args ...any) error {
	return &failure{http.StatusServiceUnavailable, fmt.Errorf(format, args...), max(retry, time.Second)}
}

// explain turns what can go wrong in many places into a failure.
func explain(err error, r *http.Request) *failure {
	var f *failure
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &large):
		return &failure{status: http.StatusRequestEntityTooLarge, err: fmt.Errorf("the body is larger than %d bytes; send less, or raise --max-body", large.Limit)}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &failure{status: http.StatusRequestTimeout, err: errors.New("the body took too long to arrive; send it faster, or raise --timeout")}
	case r.Context().Err() != nil:
		return &failure{status: statusGone, err: errors.New("the connection was closed before the answer; keep it open until then")}
	case errors.Is(err, context.DeadlineExceeded):
		return &failure{http.StatusServiceUnavailable, errors.New("no time left before the request's turn; try again later, or raise --timeout"), time.Second}
	}
	if f := machine(err); f != nil {
		return f
	}
	if errors.Is(err, torch.ErrArgument) { // the networks take no such image
		return &failure{status: http.StatusUnprocessableEntity, err: err}
	}
	return &failure{status: http.StatusInternalServerError, err: err}
}

// machine is the failure of a machine that lacks memory, or whose device does not work: neither the request's fault nor
// the model's. nil: it is another error.
func machine(err error) *failure {
	switch {
	case errors.Is(err, torch.ErrOutOfMemory):
		return &failure{http.StatusServiceUnavailable, fmt.Errorf("no memory left, try again later: %w", err), time.Second}
	case errors.Is(err, torch.ErrDevice):
		return &failure{http.StatusServiceUnavailable, fmt.Errorf("the device does not work, try again when the service has been restarted: %w", err), time.Minute}
	}
	return nil
}

// unreadable is the failure of an image that cannot be read: the request's fault, unless it made its decoder panic. nil stays
// nil.
func unreadable(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, imagefile.ErrPanic):
		return failf(http.StatusInternalServerError, "%w", err)
	}
	return failf(http.StatusBadRequest, "%w", err)
}

// maskFailure says of a failure that it is about the mask of what is ignored.
func maskFailure(err error) error {
	if f := (*failure)(nil); errors.As(err, &f) {
		return &failure{f.status, fmt.Errorf("the mask %s: %w", ignoreField, f.err), f.retry}
	}
	return err
}

// unfit is the failure of an image, or a mask, that the model's view does not fit: the request's fault.
func unfit(err error) error {
	for _, kind := range []error{framing.ErrOutside, framing.ErrShape, framing.ErrNothing, framing.ErrTiles, setting.ErrValue} {
		if errors.Is(err, kind) {
			return failf(http.StatusBadRequest, "%w", err)
		}
	}
	return err
}

// loadFailure is that of a client that had a model loaded.
func loadFailure(name string, err error) error {
	err = fmt.Errorf("model %s: %w", name, err)
	if f := machine(err); f != nil {
		return f
	}
	return &failure{status: http.StatusUnprocessableEntity, err: err}
}

// codeOf is gRPC's code for a failure of a status of HTTP.
func codeOf(httpStatus int) codes.Code {
	switch httpStatus {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusUnsupportedMediaType: // as gRPC has it for what is compressed
		return codes.Unimplemented
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusRequestTimeout:
		return codes.DeadlineExceeded
	case statusGone:
		return codes.Canceled
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Internal
}

// rpc is the failure as gRPC has it.
func (f *failure) rpc() error { return status.Error(codeOf(f.status), f.Error()) }

// fail answers with an error: {"error": "..."}.
func (s *Server) fail(x *exchange, r *http.Request, err error) {
	f := explain(err, r)
	x.err = f
	if x.status != 0 { // the answer had begun: it stays cut off
		return
	}
	if f.retry > 0 {
		x.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.retry.Seconds()))))
	}
	writeJSON(x, f.status, map[string]string{"error": f.Error()})
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	write(w, status, "application/json", append(text, '\n'))
	return nil
}

// write answers with data. What fails is the client's connection, and nobody is left to be told.
func write(w http.ResponseWriter, status int, kind string, data []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data)
}
