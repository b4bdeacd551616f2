// Package server answers over HTTP what models say about images: an interface of its own under /v1, the Open Inference
// Protocol V2 with binary data and the repository's interface under /v2, Prometheus' metrics, and a page for people at /.
//
// A request passes through these stages: its image is read into memory within a budget, decoded and resized by at most as
// many goroutines as there are processors, large images by one less, within the same budget; then it waits in its model's
// queue, which is bounded; one goroutine per model takes batches from the queue through the networks; what follows from map
// and score is computed in the request's goroutine. What a request takes is counted before it is taken.
// Every handler returns an error, and [Server.ServeHTTP] alone turns errors into statuses.
package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/history"
	"rdpp/rdpp/textfile"
)

// DefaultMaxMemory is what Options.MaxMemory is, unless it says otherwise: 1 GiB, or a quarter of allowance.Memory.
func DefaultMaxMemory() int64 { return allowance.MemoryDefault(1 << 30) }

// DefaultMaxBody is what Options.MaxBody is, unless it says otherwise: 64 MiB, or a quarter of DefaultMaxMemory.
func DefaultMaxBody() int64 { return min(64<<20, DefaultMaxMemory()/4) }

// Source is what the records of the service name as theirs.
const Source = "serve"

// Options say what is served, and within which limits. Zero means the default, where one is named.
type Options struct {
	Model    string               // model file, or folder of DIR/NAME.safetensors and DIR/NAME/model.safetensors; required
	Detector rdpp.DetectorOptions // for every model
	Poll     time.Duration        // how often files are looked at for changes, default 1 s

	MaxBatch int           // images that go through the networks at once, default 8
	MaxWait  time.Duration // that the first image of a batch waits for others, default none
	MaxQueue int           // images that wait per model, and the most in one request, default 256
	Timeout  time.Duration // for reading a request, and from its head to its verdict, default 30 s

	MaxBody        int64 // bytes of a request's body, default DefaultMaxBody
	MaxMemory      int64 // bytes of all bodies, images, also while they are decoded, and answers at once, default DefaultMaxMemory, at least 4 times MaxBody
	MaxConnections int   // open at once, default 512; for more, those are closed whose clients have been silent the longest

	Tokens []string // with any of which a client may ask for more than the service's health; default: no token is needed
	// History gets a record per image before it is answered; the caller closes it. Default: none is kept.
	History *history.DB
	// Drift is how many warnings there may be on average per 1,000 images while scores and looks of a model's good images do not change;
	// default: none are given. With a history they go on where they ended.
	Drift  float64
	Logger *slog.Logger // gets one record per request, default slog.Default()
}

func (o *Options) complete() {
	o.Poll = cmp.Or(o.Poll, time.Second)
	o.MaxBatch = cmp.Or(o.MaxBatch, 8)
	o.MaxQueue = cmp.Or(o.MaxQueue, 256)
	o.Timeout = cmp.Or(o.Timeout, 30*time.Second)
	o.MaxBody = cmp.Or(o.MaxBody, DefaultMaxBody())
	o.MaxMemory = max(cmp.Or(o.MaxMemory, DefaultMaxMemory()), 4*o.MaxBody)
	o.MaxConnections = cmp.Or(o.MaxConnections, 512)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Server is the service; it is an http.Handler. It is safe for concurrent use.
type Server struct {
	opt      Options
	models   *repository
	metrics  *metrics
	mux      *http.ServeMux
	calls    *calls
	origin   *http.CrossOriginProtection
	tokens   [][32]byte  // their SHA-256
	guesses  guesses     // of tokens
	memory   budget      // of all that requests hold
	slots    slots       // for decoding and encoding pictures and reading large bodies
	draining atomic.Bool // no longer ready: the process is about to end
}

// New opens the models. A model file must be good; of a folder's files bad ones are logged and looked at again when they
// change. Close frees the models.
func New(opt Options) (*Server, error) {
	opt.complete()
	s := &Server{opt: opt, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection(), tokens: digests(opt.Tokens),
		memory: budget{limit: opt.MaxMemory}, slots: newSlots(runtime.GOMAXPROCS(0))}
	s.metrics = newMetrics(opt.Detector.Device, opt.Logger, &s.memory, func() []*model { return s.models.loaded() })
	s.models = newRepository(&s.opt, s.metrics)
	if err := s.models.open(); err != nil {
		s.models.close()
		return nil, fmt.Errorf("server: %w", err)
	}
	s.routes()
	s.calls = newCalls(s)
	return s, nil
}

// Close frees the models once the requests that use them have ended.
func (s *Server) Close() { s.models.close() }

// Models is how many models are ready.
func (s *Server) Models() int { return len(s.models.loaded()) }

// Serve answers on a listener, by TLS if certificate and key are named, until ctx ends. Then it takes no more
// connections, finishes the requests that it has begun to read, and returns nil.
func (s *Server) Serve(ctx context.Context, l net.Listener, certFile, keyFile string) error {
	server := s.httpServer(s)
	// A connection of HTTP/2 would carry hundreds of requests, which MaxConnections is to bound.
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	return s.serve(ctx, server, l, certFile, keyFile)
}

// httpServer has the limits of all connections.
func (s *Server) httpServer(handler http.Handler) *http.Server {
	// A request is read, judged and its answer written within a Timeout each.
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: min(10*time.Second, s.opt.Timeout),
		ReadTimeout:       s.opt.Timeout,
		WriteTimeout:      3 * s.opt.Timeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    8 << 10, // of many short fields each byte takes thirty

		DisableGeneralOptionsHandler: true, // it answers without token or log
		ErrorLog:                     slog.NewLogLogger(s.opt.Logger.Handler(), slog.LevelWarn),
	}
	watch(server)
	return server
}

// serve runs a server until ctx ends, and ends it as Serve says.
func (s *Server) serve(ctx context.Context, server *http.Server, l net.Listener, certFile, keyFile string) error {
	l = &connections{Listener: l, most: s.opt.MaxConnections, cut: s.metrics.cut.Inc}
	if certFile != "" {
		certificate, err := readCertificate(ctx, certFile, keyFile)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	}
	ended := make(chan error, 1)
	go func() {
		if certFile != "" {
			ended <- server.ServeTLS(l, "", "")
		} else {
			ended <- server.Serve(l)
		}
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("server: %w", err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	s.models.stop() // what is being loaded is wanted by nobody any more
	limit, cancel := context.WithTimeout(context.Background(), 3*s.opt.Timeout)
	defer cancel()
	if err := server.Shutdown(limit); err != nil {
		server.Close()
		return fmt.Errorf("server: requests were cut off: %w", err)
	}
	return nil
}

// readCertificate reads a certificate and its key as text files, which editors may have put a byte order mark before. It
// does not wait beyond ctx for a pipe that nobody writes to.
func readCertificate(ctx context.Context, certFile, keyFile string) (tls.Certificate, error) {
	type read struct {
		pair tls.Certificate
		err  error
	}
	done := make(chan read, 1)
	go func() {
		pair, err := decodeCertificate(certFile, keyFile)
		done <- read{pair, err}
	}()
	select {
	case r := <-done:
		return r.pair, r.err
	case <-ctx.Done():
		return tls.Certificate{}, fmt.Errorf("server: the certificate: %w", ctx.Err())
	}
}

func decodeCertificate(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := textfile.Read(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("server: the certificate: %w", err)
	}
	key, err := textfile.Read(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("server: the certificate's key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("server: %s and %s: %w; use a certificate in PEM and its key", certFile, keyFile, err)
	}
	return pair, nil
}

// handler answers a request, or returns an error before it has written anything.
type handler func(x *exchange, r *http.Request) error

// address is one that is answered.
type address struct {
	method, pattern string
	handler         handler
}

// addresses are those for programs, which openapi.json describes. Health alone needs no token.
func (s *Server) addresses() []address {
	return []address{
		{"GET", "/healthz", s.healthz},
		{"GET", "/readyz", s.readyz},
		{"GET", "/metrics", s.token(s.metrics.serve)},
		{"GET", "/openapi.json", s.token(openapi)},
		{"GET", "/v1/models", s.token(s.listModels)},
		{"GET", "/v1/models/{model}", s.token(s.showModel)},
		{"POST", "/v1/models/{model}/predict", s.token(s.predict)},
		{"PUT", "/v1/records/{record}/correction", s.token(s.correct)},

		{"GET", "/v2", s.token(s.v2Server)},
		{"GET", "/v2/health/live", s.v2Live},
		{"GET", "/v2/health/ready", s.v2Ready},
		{"GET", "/v2/models/{model}", s.token(s.v2Model)},
		{"GET", "/v2/models/{model}/ready", s.token(s.v2ModelReady)},
		{"POST", "/v2/models/{model}/infer", s.token(s.v2Infer)},
		{"GET", "/v2/models/{model}/versions/{version}", s.token(s.v2Model)},
		{"GET", "/v2/models/{model}/versions/{version}/ready", s.token(s.v2ModelReady)},
		{"POST", "/v2/models/{model}/versions/{version}/infer", s.token(s.v2Infer)},
		{"POST", "/v2/repository/index", s.token(s.v2Index)},
		{"POST", "/v2/repository/models/{model}/load", s.token(s.v2Load)},
		{"POST", "/v2/repository/models/{model}/unload", s.token(s.v2Unload)},
	}
}

// routes registers every address.
func (s *Server) routes() {
	all := s.addresses()
	for pattern, file := range pageFiles {
		all = append(all, address{"GET", pattern, s.token(file.serve)})
	}
	for _, a := range all {
		s.mux.HandleFunc(a.method+" "+a.pattern, func(w http.ResponseWriter, r *http.Request) {
			x := w.(*exchange)
			x.route, x.err = a.pattern, a.handler(x, r)
		})
		s.mux.HandleFunc(a.pattern, func(w http.ResponseWriter, r *http.Request) {
			w.(*exchange).err = s.token(func(x *exchange, r *http.Request) error {
				x.Header().Set("Allow", a.method)
				return failf(http.StatusMethodNotAllowed, "%.20q is not for this address; use %s", r.Method, a.method)
			})(w.(*exchange), r)
		})
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.(*exchange).err = s.token(func(*exchange, *http.Request) error {
			return failf(http.StatusNotFound, "nothing is at %.80q; the page at / and GET /openapi.json show what is here", r.URL.Path)
		})(w.(*exchange), r)
	})
}

// ServeHTTP answers one request, logs and counts it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	x := &exchange{ResponseWriter: w, route: "none", connection: connectionOf(r.Context())}
	x.Header().Set("X-Content-Type-Options", "nosniff")
	x.Header().Set("Cache-Control", "no-store")
	if r.ContentLength < 0 {
		r.Body = &received{r.Body, x}
	}
	defer s.drain(x, r)
	defer func() { s.memory.give(x.held) }()
	x.err = s.dispatch(x, r)
	if x.err != nil {
		s.fail(x, r, x.err)
	}
	if x.status == 0 { // a handler that wrote nothing
		x.status = http.StatusOK
	}
	s.finish(x, r, begin)
}

// finish logs and counts a request that has been answered.
func (s *Server) finish(x *exchange, r *http.Request, begin time.Time) {
	taken := time.Since(begin)
	s.metrics.request(x, r, taken)
	x.log(s.opt.Logger, r, taken)
}

func (s *Server) dispatch(x *exchange, r *http.Request) (err error) {
	defer recovered(s.opt.Logger, &err)
	if err := s.allowed(r); err != nil {
		return err
	}
	// The mux would redirect to the path that such a one amounts to.
	if p := r.URL.Path; !strings.HasPrefix(p, "/") || path.Clean(p) != p {
		return failf(http.StatusBadRequest, "the path %.80q is not in its shortest form; use no \"..\", \"//\" or \"/\" at its end", p)
	}
	s.mux.ServeHTTP(x, r)
	return x.err
}

// allowed refuses what a web page of elsewhere asks, open in the browser of someone who may use the service.
func (s *Server) allowed(r *http.Request) error {
	if len(s.tokens) == 0 && !ownHost(r) {
		return failf(http.StatusForbidden, "%.80q is not a name of this machine alone, as the service asks for no token; use localhost or the address that it "+
			"listens on, or start it with --token-file", r.Host)
	}
	if err := s.origin.Check(r); err != nil {
		return failf(http.StatusForbidden, "%w", err)
	}
	return nil
}

// errFault is the answer where a panic was.
var errFault = errors.New("internal fault; the log has it")

// recovered turns a panic into errFault.
func recovered(logger *slog.Logger, err *error) {
	if fault := recover(); fault != nil {
		logger.Error("panic", "fault", fmt.Sprint(fault), "stack", string(debug.Stack()))
		*err = errFault
	}
}

// ownHost says whether a request calls this machine by a name that cannot be another's: a page of elsewhere may have let its
// own name lead here, and then counts as of the same origin. Over the loopback that is wanted of all requests. Those from
// elsewhere may use any name, as networks have names that nobody here knows, unless they change what is served or recorded:
// then an address has to be the one that the request came to, or the client's own machine's, whose port may lead here.
func ownHost(r *http.Request) bool {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	literal, _, _ := strings.Cut(strings.Trim(host, "[]"), "%") // without a zone
	ip := net.ParseIP(literal)
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if ok && local.IP.IsLoopback() {
		return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
	}
	changes := strings.HasPrefix(r.URL.Path, "/v2/repository/models/") || strings.HasPrefix(r.URL.Path, "/v1/records/")
	if r.Method == http.MethodGet || r.Method == http.MethodHead || !changes {
		return true
	}
	name, err := os.Hostname()
	name = strings.ToLower(name)
	return ok && ip != nil && (ip.Equal(local.IP) || ip.IsLoopback()) || host == "localhost" || err == nil && (host == name || host == name+".local")
}

// exchange is a request being answered, and what is to be logged about it.
type exchange struct {
	http.ResponseWriter
	status            int
	received          int64 // bytes of a body that does not say its length, as far as it was read
	bytes             int64 // of the answer's body
	route             string
	rpc               bool       // a call of gRPC
	code              codes.Code // of its answer
	model             string
	images, anomalous int
	warning           string // of the first image that is unlike those of training
	held              int64  // bytes of the memory budget
	connection        *connection
	err               error
}

// received is a body whose bytes are counted as they are read.
type received struct {
	io.ReadCloser
	exchange *exchange
}

func (b *received) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.exchange.received += int64(n)
	return n, err
}

func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.ResponseWriter.Write(p)
	x.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController and http.MaxBytesReader.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// outcome is the answer's status, of gRPC the name of its code.
func (x *exchange) outcome() string {
	if x.rpc {
		return x.code.String()
	}
	return strconv.Itoa(x.status)
}

// faulty says whether the answer tells of a fault of the service's own.
func (x *exchange) faulty() bool {
	if x.rpc {
		return x.code == codes.Internal || x.code == codes.Unknown
	}
	return x.status >= 500 && x.status != http.StatusServiceUnavailable
}

func (x *exchange) log(logger *slog.Logger, r *http.Request, taken time.Duration) {
	status := slog.Int("status", x.status)
	if x.rpc {
		status = slog.String("status", x.outcome())
	}
	attributes := []slog.Attr{slog.String("method", r.Method), slog.String("path", r.URL.Path), status,
		slog.Float64("ms", float64(taken.Microseconds())/1000), slog.Int64("bytes_in", max(r.ContentLength, x.received)),
		slog.Int64("bytes_out", x.bytes), slog.String("remote", r.RemoteAddr)}
	if x.model != "" {
		attributes = append(attributes, slog.String("model", x.model), slog.Int("images", x.images), slog.Int("anomalous", x.anomalous))
	}
	level := slog.LevelInfo
	if x.warning != "" {
		attributes = append(attributes, slog.String("warning", x.warning))
		level = slog.LevelWarn
	}
	if x.err != nil {
		attributes = append(attributes, slog.String("error", x.err.Error()))
		if x.faulty() {
			level = slog.LevelError
		}
	}
	logger.LogAttrs(context.Background(), level, "request", attributes...)
}
