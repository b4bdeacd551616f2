package plc

import (
	"bytes"
	"cmp"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rdpp/rdpp/setting"
)

// OPCUAOptions say what the server calls itself. Zero means the default.
type OPCUAOptions struct {
	Version string            // of the program
	Again   time.Duration     // after which a server that has died is started again, twice as long each time up to 1 min; default 1 s
	Log     func(text string) // is told that it died; default: nothing
}

// OPCUA is a server that shows the last verdict below Objects/rdpp: see Nodes. Everyone who reaches it may read, without a password
// or encryption, and nobody may write.
//
// It is a process of its own, of bounded memory: libraries for such servers die of messages that are not as they should be. One
// that has died is started again.
type OPCUA struct {
	address string
	opt     OPCUAOptions

	changed chan struct{}
	stop    chan struct{}
	ended   chan struct{}
	once    sync.Once

	mu    sync.Mutex
	state State
	pid   int // of the server
}

// key is the environment's variable that makes a process the server at the address in it; version has the program's version.
const (
	key     = "RDPP_OPCUA_SERVER"
	version = "RDPP_OPCUA_VERSION"
)

// freeing is how long a port may be taken by the server of a process that has just died.
const freeing = 5 * time.Second

// ServeOPCUA starts a server at :PORT, on all addresses of this machine. The error is a *setting.Error of opcua where the address is
// to blame. The program has to call Init when it begins.
func ServeOPCUA(address string, opt *OPCUAOptions) (*OPCUA, error) {
	if opt == nil {
		opt = &OPCUAOptions{}
	}
	host, port, err := net.SplitHostPort(address)
	if n, wrong := strconv.ParseUint(port, 10, 16); err != nil || wrong != nil || n == 0 || host != "" {
		return nil, setting.Wrong("opcua", address, "use :PORT, such as :4840; the server listens on all addresses of this machine")
	}
	if err := vacant(address); err != nil {
		return nil, fmt.Errorf("plc: %w", err)
	}
	o := &OPCUA{address: address, opt: *opt, changed: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{})}
	o.opt.Again = cmp.Or(o.opt.Again, time.Second)
	if o.opt.Log == nil {
		o.opt.Log = func(string) {}
	}
	go o.run()
	return o, nil
}

// vacant says whether the server can listen.
func vacant(address string) error {
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		l, err := net.Listen("tcp", address)
		if err == nil {
			return l.Close()
		}
		if !errors.Is(err, unix.EADDRINUSE) || time.Since(began) > freeing {
			return err
		}
	}
}

// Show shows a state, soon.
func (o *OPCUA) Show(s State) {
	o.mu.Lock()
	o.state = s
	o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default: // it knows already
	}
}

// Close ends the server.
func (o *OPCUA) Close() error {
	o.once.Do(func() { close(o.stop) })
	<-o.ended
	return nil
}

func (o *OPCUA) run() {
	defer close(o.ended)
	for wait := o.opt.Again; ; wait = min(2*wait, time.Minute) {
		began := time.Now()
		err := o.serve()
		if err == nil {
			return
		}
		if time.Since(began) > time.Minute {
			wait = o.opt.Again
		}
		o.opt.Log(fmt.Sprintf("opcua %s: its server has ended and is started again: %v", o.address, err))
		select {
		case <-time.After(wait):
		case <-o.stop:
			return
		}
	}
}

// serve is a server's life: nil where it was to end.
func (o *OPCUA) serve() error {
	cmd := exec.Command("/proc/self/exe") // also where another file has taken the program's name
	cmd.Env = append(os.Environ(), key+"="+o.address, version+"="+o.opt.Version)
	said := &tail{}
	cmd.Stderr = said
	states, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	o.mu.Lock()
	o.pid = cmd.Process.Pid
	o.mu.Unlock()
	died := make(chan error, 1)
	go func() { died <- cmd.Wait() }()
	defer func() {
		states.Close() // which ends it
		select {
		case <-died:
		case <-time.After(2 * time.Second):
			cmd.Process.Kill()
			<-died
		}
	}()
	encoder := gob.NewEncoder(states)
	for {
		o.mu.Lock()
		state := o.state
		o.mu.Unlock()
		sent := make(chan error, 1)
		go func() { sent <- encoder.Encode(&state) }()
		select {
		case err = <-sent:
		case err = <-died:
			died <- err
			return said.reason(err)
		case <-o.stop:
			return nil
		}
		if err != nil { // it is dying
			err = <-died
			died <- err
			return said.reason(err)
		}
		select {
		case <-o.changed:
		case err := <-died:
			died <- err
			return said.reason(err)
		case <-o.stop:
			return nil
		}
	}
}

// tail keeps the beginning of what a process says of its end.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := 4096 - t.text.Len(); room > 0 {
		t.text.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// reason is why a process ended, by what it said and how it ended.
func (t *tail) reason(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		err = errors.New("without an error")
	}
	for line := range strings.Lines(t.text.String()) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "fatal error:") || strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "plc:") {
			return fmt.Errorf("%s (%w)", line, err)
		}
	}
	return err
}

// memory bounds what the server may take, in bytes, beside what the program takes when it begins.
const memory = 1 << 30

// held is how much of what the limit is about this process has, in bytes; 0 where that is not known.
func held() uint64 {
	text, err := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 6 {
		return 0
	}
	pages, err := strconv.ParseUint(fields[5], 10, 40)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

// Init is the server where ServeOPCUA has started this process as one, and does not return then.
func Init() {
	address, served := os.LookupEnv(key)
	if !served {
		return
	}
	os.Unsetenv(key)
	if err := beServer(address, os.Getenv(version), os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// beServer is the server until there are no more states.
func beServer(address, version string, states io.Reader) error {
	// Who has started it ends it.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	debug.SetMemoryLimit(memory / 4)
	limit := held() + memory
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return fmt.Errorf("plc: %w", err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("plc: %w", err)
	}
	var s opcuaServer
	if err := s.open(port, version); err != nil {
		return fmt.Errorf("plc: %w", err)
	}
	failed := make(chan error, 1)
	go func() { failed <- s.server.ListenAndServe() }()
	over := make(chan error, 1)
	go func() {
		decoder := gob.NewDecoder(states)
		for {
			var state State
			if err := decoder.Decode(&state); err != nil {
				over <- err
				return
			}
			s.show(state)
		}
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("plc: %w", err)
	case err := <-over:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return fmt.Errorf("plc: %w", err)
	}
}
