package server

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc/codes"

	"rdpp/infer/server/inference"
)

// Calls beyond as many as connections may be open are refused for now, before anything of them is read.
func TestMostCalls(t *testing.T) {
	s := &Server{opt: Options{MaxConnections: 2}, origin: http.NewCrossOriginProtection()}
	s.calls = newCalls(s)
	r := httptest.NewRequest("POST", inference.GRPCInferenceService_ServerLive_FullMethodName, nil)
	r.Host = "localhost"
	for open, refused := range []bool{false, false, true} {
		s.calls.open.Store(int64(open))
		err := s.calls.take(&call{}, &exchange{ResponseWriter: httptest.NewRecorder()}, r)
		if f := (*failure)(nil); errors.As(err, &f) != refused || refused && (codeOf(f.status) != codes.Unavailable || f.retry <= 0) {
			t.Errorf("%d calls open: got %v, want refused: %v", open, err, refused)
		}
		if got := s.calls.open.Load(); got != int64(open) {
			t.Errorf("%d calls are open afterwards, want %d", got, open)
		}
	}
}

// The server's own faults, the client's and the moment's are told apart by the code, as by the status.
func TestCodes(t *testing.T) {
	for status, want := range map[int]codes.Code{
		400: codes.InvalidArgument, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 404: codes.NotFound, 408: codes.DeadlineExceeded,
		413: codes.ResourceExhausted, 415: codes.Unimplemented, 422: codes.InvalidArgument, 429: codes.ResourceExhausted, statusGone: codes.Canceled,
		500: codes.Internal, 503: codes.Unavailable,
	} {
		if got := codeOf(status); got != want {
			t.Errorf("%d: got %v, want %v", status, got, want)
		}
	}
}
