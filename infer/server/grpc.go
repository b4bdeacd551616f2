package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"rdpp/infer/server/inference"
	"rdpp/rdpp"
)

// The Open Inference Protocol V2 over gRPC, at an address of its own. Below the library stands net/http's HTTP/2, so that
// connections, times, tokens, logs and figures are those of the other addresses. Calls of ModelInfer are worked on before the
// library sees them: it would read a message whole before anybody could count it, and would let its handler run on where
// the client has left. What it gets instead is an empty message, and its handler has the answer already.

// maxCall is how many bytes a message other than ModelInfer's may have, such as a question of reflection.
const maxCall = 64 << 10

// maxWatchers is how many calls at once may wait for changes of the service's health, which anybody may.
const maxWatchers = 64

// call is a call being answered.
type call struct {
	request *http.Request
	answer  *inference.ModelInferResponse // of ModelInfer
	err     error                         // why it gets no answer
}

type callKey struct{}

// callOf finds the call that a handler is to answer.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// calls is the half of the service that speaks gRPC.
type calls struct {
	server   *Server
	library  *grpc.Server
	routes   map[string]bool // the addresses of all methods
	open     atomic.Int64    // calls
	watchers atomic.Int64
}

func newCalls(s *Server) *calls {
	c := &calls{server: s, routes: map[string]bool{}}
	// A client's message that is compressed is refused, as no codec for it is linked in.
	c.library = grpc.NewServer(grpc.MaxRecvMsgSize(maxCall), grpc.UnaryInterceptor(c.unary), grpc.StreamInterceptor(c.stream))
	inference.RegisterGRPCInferenceServiceServer(c.library, &inferenceService{server: s})
	grpc_health_v1.RegisterHealthServer(c.library, &healthService{calls: c})
	reflection.Register(c.library)
	for service, info := range c.library.GetServiceInfo() {
		for _, m := range info.Methods {
			c.routes["/"+service+"/"+m.Name] = true
		}
	}
	return c
}

// ServeGRPC is Serve for gRPC: the Open Inference Protocol V2, health and reflection.
func (s *Server) ServeGRPC(ctx context.Context, l net.Listener, certFile, keyFile string) error {
	server := s.httpServer(s.calls)
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP2(certFile != "")
	server.Protocols.SetUnencryptedHTTP2(certFile == "")
	// What has arrived and is not read yet is outside the memory budget.
	server.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: min(100, s.opt.MaxConnections), MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10}
	return s.serve(ctx, server, l, certFile, keyFile)
}

// flushing is an exchange that the library can make send what it has.
type flushing struct{ *exchange }

func (f flushing) Flush() { _ = http.NewResponseController(f.ResponseWriter).Flush() }

// noMessage is the frame of an empty message.
var noMessage = make([]byte, 5)

// ServeHTTP answers one call, logs and counts it.
func (c *calls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s, begin := c.server, time.Now()
	x := &exchange{ResponseWriter: w, route: "none", rpc: true, connection: connectionOf(r.Context())}
	defer func() { s.memory.give(x.held) }()
	r.Body = &received{r.Body, x} // a call does not say its length
	given := &call{request: r}
	body := io.Reader(http.MaxBytesReader(w, r.Body, 16*maxCall))
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") && r.Method == http.MethodPost && r.ProtoMajor == 2 { // else the library says what is wrong
		given.err = c.take(given, x, r)
	}
	if given.err != nil || given.answer != nil {
		body = bytes.NewReader(noMessage)
	}
	passed := r.WithContext(context.WithValue(r.Context(), callKey{}, given))
	passed.Body = io.NopCloser(body)
	if given.answer != nil {
		x.connection.answering()
		defer x.connection.answered()
	}
	c.library.ServeHTTP(flushing{x}, passed)
	c.noteOutcome(x)
	s.finish(x, r, begin)
}

// noteOutcome tells log and figures of what the library has answered.
func (c *calls) noteOutcome(x *exchange) {
	reason := x.Header().Get("Grpc-Message")
	if text, err := url.PathUnescape(reason); err == nil {
		reason = text
	}
	n, err := strconv.ParseUint(x.Header().Get("Grpc-Status"), 10, 32)
	switch {
	case err == nil:
		x.code = codes.Code(n)
	case x.status >= 400:
		x.code, reason = codes.InvalidArgument, "this is no call of gRPC; use a client of gRPC, or the other address"
	default:
		x.code, reason = codes.Canceled, "the client has left"
	}
	if x.code != codes.OK {
		x.err = errors.New(reason)
	}
}

// take says whether a call may be answered, and answers it if it is one of ModelInfer.
func (c *calls) take(given *call, x *exchange, r *http.Request) (err error) {
	s := c.server
	defer recovered(s.opt.Logger, &err)
	if err := s.allowed(r); err != nil {
		return err
	}
	if c.routes[r.URL.Path] {
		x.route = r.URL.Path
	}
	if r.URL.Path == grpc_health_v1.Health_Watch_FullMethodName {
		return http.NewResponseController(x.ResponseWriter).SetWriteDeadline(time.Time{}) // it lasts
	}
	open := c.open.Add(1)
	defer c.open.Add(-1)
	if open > int64(s.opt.MaxConnections) {
		return busy(0, "too many calls at once; try again later, or raise --max-connections")
	}
	if strings.HasPrefix(r.URL.Path, "/"+grpc_health_v1.Health_ServiceDesc.ServiceName+"/") {
		return nil
	}
	return s.token(func(x *exchange, r *http.Request) (err error) {
		if r.URL.Path == inference.GRPCInferenceService_ModelInfer_FullMethodName {
			given.answer, err = s.infer(x, r)
		}
		return err
	})(x, r)
}

// infer answers a call of ModelInfer.
func (s *Server) infer(x *exchange, r *http.Request) (*inference.ModelInferResponse, error) {
	ctx, cancel := context.WithTimeout(r.Context(), s.opt.Timeout)
	defer cancel()
	body, err := s.body(x, r)
	if err != nil {
		return nil, err
	}
	defer body.release()
	message, err := body.message()
	if err != nil {
		return nil, err
	}
	x.connection.answering()
	defer x.connection.answered()
	var asked *callRequest
	err = body.parse(ctx, int64(len(message)), func() (err error) {
		asked, err = parseCall(message, s.v2Limits())
		return err
	})
	if err != nil {
		return nil, err
	}
	q, err := s.begin(ctx, x, asked.model, asked.version)
	if err != nil {
		return nil, err
	}
	defer q.end()
	q.body = body
	if err := q.judgeV2(&asked.v2Request); err != nil {
		return nil, err
	}
	return asked.answer(q.model.name, q.model.version, q.results)
}

// message reads the one message of a call.
func (b *body) message() ([]byte, error) {
	head := make([]byte, len(noMessage)) // whether it is compressed, and its length
	if _, err := io.ReadFull(b, head); err != nil {
		return nil, unread(err)
	}
	n := int64(binary.BigEndian.Uint32(head[1:]))
	switch {
	case head[0] != 0:
		return nil, failf(http.StatusUnsupportedMediaType, "the message is compressed; send it as it is")
	case n > b.most:
		return nil, &http.MaxBytesError{Limit: b.most}
	}
	data, err := b.readAll(b, n)
	if err == nil && int64(len(data)) != n {
		err = failf(http.StatusBadRequest, "the message has %d bytes, and %d were sent", n, len(data))
	}
	return data, err
}

// unary lets a method's handler answer a call.
func (c *calls) unary(ctx context.Context, message any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	err = c.handle(ctx, func() (err error) {
		answer, err = handle(ctx, message)
		return err
	}, func(trailer metadata.MD) { _ = grpc.SetTrailer(ctx, trailer) })
	return answer, err
}

// stream is unary for methods that are streams.
func (c *calls) stream(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return c.handle(stream.Context(), func() error { return handle(service, stream) }, stream.SetTrailer)
}

// handle calls a handler if the call may be answered, and turns errors into codes. A panic would end the process.
func (c *calls) handle(ctx context.Context, handler func() error, setTrailer func(metadata.MD)) error {
	given := callOf(ctx)
	err := given.err
	if err == nil {
		err = func() (err error) {
			defer recovered(c.server.opt.Logger, &err)
			return handler()
		}()
	}
	if _, ok := status.FromError(err); ok { // nil, or the library's own
		return err
	}
	f := explain(err, given.request)
	if f.retry > 0 { // clients that retry wait for so long
		setTrailer(metadata.Pairs("grpc-retry-pushback-ms", strconv.FormatInt(f.retry.Milliseconds(), 10)))
	}
	return f.rpc()
}

// inferenceService is the Open Inference Protocol V2.
type inferenceService struct {
	inference.UnimplementedGRPCInferenceServiceServer
	server *Server
}

func (i *inferenceService) ServerLive(context.Context, *inference.ServerLiveRequest) (*inference.ServerLiveResponse, error) {
	return &inference.ServerLiveResponse{Live: true}, nil
}

func (i *inferenceService) ServerReady(context.Context, *inference.ServerReadyRequest) (*inference.ServerReadyResponse, error) {
	return &inference.ServerReadyResponse{Ready: i.server.ready() == nil}, nil
}

func (i *inferenceService) ServerMetadata(context.Context, *inference.ServerMetadataRequest) (*inference.ServerMetadataResponse, error) {
	return &inference.ServerMetadataResponse{Name: serverName, Version: rdpp.Version}, nil
}

func (i *inferenceService) ModelReady(_ context.Context, r *inference.ModelReadyRequest) (*inference.ModelReadyResponse, error) {
	_, release, err := i.server.models.acquireVersion(r.Name, r.Version)
	if f := (*failure)(nil); errors.As(err, &f) && f.status == http.StatusServiceUnavailable {
		return &inference.ModelReadyResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	release()
	return &inference.ModelReadyResponse{Ready: true}, nil
}

func (i *inferenceService) ModelMetadata(_ context.Context, r *inference.ModelMetadataRequest) (*inference.ModelMetadataResponse, error) {
	m, release, err := i.server.models.acquireVersion(r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	defer release()
	of := m.metadata()
	tensors := func(list []v2Tensor) (all []*inference.ModelMetadataResponse_TensorMetadata) {
		for _, t := range list {
			all = append(all, &inference.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape})
		}
		return all
	}
	return &inference.ModelMetadataResponse{Name: of.Name, Versions: of.Versions, Platform: of.Platform, Inputs: tensors(of.Inputs), Outputs: tensors(of.Outputs)}, nil
}

// ModelInfer hands out what infer has made.
func (i *inferenceService) ModelInfer(ctx context.Context, _ *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	return callOf(ctx).answer, nil
}

// healthService is gRPC's own health protocol. The service "" and the inference service are ready together.
type healthService struct {
	grpc_health_v1.UnimplementedHealthServer
	calls *calls
}

func (h *healthService) status(service string) grpc_health_v1.HealthCheckResponse_ServingStatus {
	switch {
	case service != "" && service != inference.GRPCInferenceService_ServiceDesc.ServiceName:
		return grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
	case h.calls.server.ready() != nil:
		return grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_SERVING
}

func (h *healthService) Check(_ context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	now := h.status(r.Service)
	if now == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, failf(http.StatusNotFound, "no service is named %.80q", r.Service)
	}
	return &grpc_health_v1.HealthCheckResponse{Status: now}, nil
}

// Watch sends the status, and again when it has changed, until the client leaves or the service ends.
func (h *healthService) Watch(r *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	watchers := h.calls.watchers.Add(1)
	defer h.calls.watchers.Add(-1)
	if watchers > maxWatchers {
		return busy(time.Minute, "%d others wait for changes; use Check", maxWatchers)
	}
	tick := time.NewTicker(h.calls.server.opt.Poll)
	defer tick.Stop()
	last := grpc_health_v1.HealthCheckResponse_UNKNOWN
	for {
		if now := h.status(r.Service); now != last {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			last = now
		}
		if h.calls.server.draining.Load() {
			return busy(0, "%w", errEnding)
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-tick.C:
		}
	}
}
