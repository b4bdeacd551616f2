package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"rdpp/infer/server"
	"rdpp/rdpp/command"
	"rdpp/rdpp/lookout"
	"rdpp/rdpp/printable"
)

const serveHelp = `Usage: infer serve --model FILE|DIR [flags]

POST /v1/models/M/predict and V2, as /openapi.json says; /healthz, /readyz,
/metrics; a page at /. Follows its files, ends by SIGTERM.

`

func runServe(ctx context.Context, args []string, t *command.Terminal) (code int, err error) {
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	var m modelFlags
	m.register(flags)
	rare := m.registerRegions(flags)
	flags.Lookup("model").Usage = "model `FILE`, or folder of them; required"
	opt := server.Options{}
	listen := flags.String("listen", "127.0.0.1:8080", "`ADDR`; :8080 is everywhere")
	flags.IntVar(&opt.MaxBatch, "max-batch", 8, "`N` images at most at once")
	flags.DurationVar(&opt.MaxWait, "max-wait", 2*time.Millisecond, "wait at most `TIME` for more of them")
	flags.IntVar(&opt.MaxQueue, "max-queue", 256, "answer 503 when `N` images wait")
	flags.DurationVar(&opt.Timeout, "timeout", 30*time.Second, "`TIME` to read and to judge a request")
	maxBody := flags.Int64("max-body", server.DefaultMaxBody()>>20, "largest request, `N` MiB")
	maxMemory := flags.Int64("max-memory", server.DefaultMaxMemory()>>20, "`N` MiB for requests and images")
	flags.IntVar(&opt.MaxConnections, "max-connections", 512, "`N` at once; then the silent ones are closed")
	rpc := flags.String("grpc", "", "`ADDR` for V2 over gRPC; same limits, tokens, TLS")
	tokens := flags.String("token-file", "", "ask for one of `FILE`'s tokens, one a line")
	cert := flags.String("tls-cert", "", "certificates `FILE`, PEM; makes it HTTPS")
	key := flags.String("tls-key", "", "the certificate's key `FILE`, PEM")
	past := flags.String("history", "", "add to the history `FILE`, see infer history")
	flags.Float64Var(&opt.Drift, "drift", lookout.DefaultRate, "warn of change, by chance in `X` of 1,000 images; 0: never")
	var out outlets
	rare = append(rare, append(out.register(flags), out.registerPLC(flags)...)...)
	rare = append(rare, "mqtt", "topic", "webhook")
	logs := flags.String("log", "text", "`NAME` of logs: text or json")
	if err := t.Parse(flags, args, command.Help{Text: serveHelp, Rare: append(rare, "max-batch", "max-wait", "max-connections", "max-queue", "max-body", "drift")}); err != nil {
		return 0, err
	}
	if !flags.Changed("max-memory") {
		*maxMemory = max(*maxMemory, 4**maxBody)
	}
	opt.MaxBody, opt.MaxMemory = *maxBody<<20, *maxMemory<<20
	safe := &slog.HandlerOptions{ReplaceAttr: printable.Attr}
	handler, known := map[string]slog.Handler{"text": slog.NewTextHandler(t.Stderr, safe), "json": slog.NewJSONHandler(t.Stderr, safe)}[*logs]
	switch {
	case flags.NArg() > 0:
		return 0, command.Usagef("%q is one argument too many; name the models with --model", flags.Arg(0))
	case !known:
		return 0, command.Usagef("--log %q; use text or json", *logs)
	case opt.MaxBatch < 1 || opt.MaxBatch > 1024:
		return 0, command.Usagef("--max-batch %d; use 1 to 1024", opt.MaxBatch)
	case opt.MaxQueue < 1:
		return 0, command.Usagef("--max-queue %d; use 1 or more", opt.MaxQueue)
	case opt.MaxWait < 0:
		return 0, command.Usagef("--max-wait %v; use 0 or more", opt.MaxWait)
	case !(opt.Drift >= 0 && opt.Drift <= 100):
		return 0, command.Usagef("--drift %v; use 0 to 100", opt.Drift)
	case opt.Timeout <= 0:
		return 0, command.Usagef("--timeout %v; use more than 0", opt.Timeout)
	case *maxBody < 1 || *maxBody > 1<<20:
		return 0, command.Usagef("--max-body %d; use 1 to %d", *maxBody, 1<<20)
	case *maxMemory < 4**maxBody || *maxMemory > 1<<30:
		return 0, command.Usagef("--max-memory %d; use %d, which is 4 times --max-body, or more, up to %d", *maxMemory, 4**maxBody, 1<<30)
	case opt.MaxConnections < 1:
		return 0, command.Usagef("--max-connections %d; use 1 or more", opt.MaxConnections)
	case (*cert == "") != (*key == ""):
		return 0, command.Usagef("--tls-cert and --tls-key need each other")
	}
	if err := out.check(); err != nil {
		return 0, err
	}
	if err := out.checkHistory(*past); err != nil {
		return 0, err
	}
	detector, err := m.options()
	if err != nil {
		return 0, err
	}
	opt.Model, opt.Detector, opt.Logger = m.file, *detector, slog.New(handler)
	if *tokens != "" {
		// It may be a pipe.
		if opt.Tokens, err = command.Await(ctx, func() ([]string, error) { return server.ReadTokens(*tokens) }); err != nil {
			return 0, err
		}
	}
	if *past != "" {
		if opt.History, err = openHistory(*past, out.board.Add); err != nil {
			return 0, err
		}
		defer opt.History.Close() // what was answered is in it
		log := func(text string) { opt.Logger.Warn(text) }
		defer func() { err = errors.Join(err, out.close(hasty, log)) }()
		if err := out.start(ctx, opt.History, server.Source, log); err != nil {
			return 0, err
		}
	}
	defer limitMemory(opt.MaxMemory)()
	return command.Done, serve(ctx, opt, addresses{*listen, *rpc, *cert, *key})
}

// addresses are where the service answers, and how.
type addresses struct {
	http, grpc string // grpc may be ""
	cert, key  string // files; "": without TLS
}

// serve answers until ctx ends.
func serve(ctx context.Context, opt server.Options, at addresses) error {
	l, err := net.Listen("tcp", at.http)
	if err != nil {
		return fmt.Errorf("%w; choose another address with --listen", err)
	}
	defer l.Close()
	var rpc net.Listener
	if at.grpc != "" {
		if rpc, err = net.Listen("tcp", at.grpc); err != nil {
			return fmt.Errorf("%w; choose another address with --grpc", err)
		}
		defer rpc.Close()
	}
	s, err := openServer(ctx, opt)
	if err != nil {
		return err
	}
	if s == nil {
		opt.Logger.Info("ended before there were models")
		return nil
	}
	defer closeSoon(s)
	scheme := "http"
	if at.cert != "" {
		scheme = "https"
	}
	opt.Logger.Info("serving", "address", scheme+"://"+l.Addr().String()+"/", "models", s.Models())
	if rpc != nil {
		opt.Logger.Info("serving gRPC", "address", rpc.Addr().String())
	}
	if s.Models() == 0 {
		opt.Logger.Warn("there is no model yet; put NAME.safetensors or NAME/model.safetensors into the folder", "folder", opt.Model)
	}
	if (!isLoopback(l) || rpc != nil && !isLoopback(rpc)) && len(opt.Tokens) == 0 {
		opt.Logger.Warn("everyone who reaches this address may use the service; --token-file asks for a token")
	}
	serving, ctx := errgroup.WithContext(ctx) // one that fails ends the other
	serving.Go(func() error { return s.Serve(ctx, l, at.cert, at.key) })
	if rpc != nil {
		serving.Go(func() error { return s.ServeGRPC(ctx, rpc, at.cert, at.key) })
	}
	if err := serving.Wait(); err != nil {
		return err
	}
	opt.Logger.Info("ended; no request is under way")
	return nil
}

// isLoopback says whether a listener is for this machine alone.
func isLoopback(l net.Listener) bool {
	local, ok := l.Addr().(*net.TCPAddr)
	return ok && local.IP.IsLoopback()
}

// openServer opens the models. It returns nil where ctx ends first: what a library has begun to load cannot be stopped, but
// the process can end.
func openServer(ctx context.Context, opt server.Options) (*server.Server, error) {
	type opened struct {
		s   *server.Server
		err error
	}
	done := make(chan opened, 1)
	go func() {
		s, err := server.New(opt)
		done <- opened{s, err}
	}()
	select {
	case o := <-done:
		return o.s, o.err
	case <-ctx.Done():
		go func() {
			if o := <-done; o.s != nil {
				o.s.Close()
			}
		}()
		return nil, nil
	}
}

// closing is how long the end waits for the models' memory to be freed, which the process's end does too.
const closing = 2 * time.Second

// closeSoon closes the service, and does not wait long for a model that is being loaded.
func closeSoon(s *server.Server) {
	done := make(chan struct{}, 1)
	go func() {
		s.Close()
		done <- struct{}{}
	}()
	select {
	case <-done:
	case <-time.After(closing):
	}
}
