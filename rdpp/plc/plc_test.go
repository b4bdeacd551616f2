package plc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
	"github.com/simonvetter/modbus"

	"rdpp/rdpp/history"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/testmain"
)

func TestMain(m *testing.M) {
	Init()
	os.Exit(testmain.Run(m, nil))
}

func record(id int64, verdict history.Verdict) *history.Record {
	r := &history.Record{ID: id, Time: time.UnixMicro(1_700_000_000_123_456 + id), Verdict: verdict, Image: fmt.Sprint("/in/", id, ".png"), Model: "screw"}
	if verdict != history.Broken {
		r.Score, r.Threshold, r.PValue = 0.25, 0.5, new(0.125)
	}
	return r
}

// shown keeps what it is shown.
type shown struct {
	states []State
	closed int
}

func (s *shown) Show(state State) { s.states = append(s.states, state) }
func (s *shown) Close() error     { s.closed++; return errors.New("closed") }

// TestBoard: verdicts are counted and shown, a last one of before is shown alone, and nothing after the end.
func TestBoard(t *testing.T) {
	a, b := &shown{}, &shown{}
	board := Board{Displays: []Display{a, b}}
	board.Begin(record(1, history.Anomalous))
	for i, v := range []history.Verdict{history.Good, history.Anomalous, history.Broken, history.Good} {
		board.Add(record(int64(2+i), v))
	}
	var got []string
	for _, s := range b.states {
		got = append(got, fmt.Sprint(s.Last.ID, s.Rejected(), s.Images, s.Anomalous, s.Broken))
	}
	if want := []string{"1 true 0 0 0", "2 false 1 0 0", "3 true 2 1 0", "4 true 3 1 1", "5 false 4 1 1"}; !slices.Equal(got, want) || len(a.states) != len(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := board.Close(); err == nil || a.closed != 1 || b.closed != 1 {
		t.Errorf("got %v, closed %d and %d times", err, a.closed, b.closed)
	}
	board.Add(record(9, history.Good))
	if len(a.states) != 5 {
		t.Error("got a state after the end")
	}
}

// device is a peer of Modbus TCP that notes what is written to its coils.
type device struct {
	*modbus.ModbusServer
	address string

	mu     sync.Mutex
	writes []string
	refuse bool
}

func (d *device) HandleCoils(r *modbus.CoilsRequest) ([]bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse {
		return nil, modbus.ErrIllegalDataAddress
	}
	d.writes = append(d.writes, fmt.Sprint(r.UnitId, r.Addr, r.IsWrite, r.Args))
	return nil, nil
}

func (*device) HandleDiscreteInputs(*modbus.DiscreteInputsRequest) ([]bool, error) {
	return nil, modbus.ErrIllegalFunction
}

func (*device) HandleHoldingRegisters(*modbus.HoldingRegistersRequest) ([]uint16, error) {
	return nil, modbus.ErrIllegalFunction
}

func (*device) HandleInputRegisters(*modbus.InputRegistersRequest) ([]uint16, error) {
	return nil, modbus.ErrIllegalFunction
}

func (d *device) start(t *testing.T) {
	t.Helper()
	var err error
	d.ModbusServer, err = modbus.NewServer(&modbus.ServerConfiguration{URL: "tcp://" + d.address, MaxClients: 5, Timeout: time.Minute}, d)
	if err == nil {
		err = d.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// free is an address at which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newDevice(t *testing.T) *device {
	t.Helper()
	d := &device{address: free(t)}
	d.start(t)
	t.Cleanup(func() { d.Stop() })
	return d
}

// all are the writes, of which the same ones that follow each other count once.
func (d *device) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Compact(slices.Clone(d.writes))
}

// want waits for writes.
func (d *device) want(t *testing.T, what string, want ...string) {
	t.Helper()
	testmain.Wait(t, what, func() bool { return slices.Equal(d.all(), want) || len(d.all()) > len(want) })
	if got := d.all(); !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

type texts struct {
	mu  sync.Mutex
	all []string
}

func (l *texts) add(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, text)
}

func (l *texts) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all, "\n")
}

func TestOpenCoil(t *testing.T) {
	for address, want := range map[string]string{"host": "modbus host:502", "host:1502": "modbus host:1502", "[::1]:502": "modbus [::1]:502",
		"10.0.0.7": "modbus 10.0.0.7:502", "": "", ":502": "", "host:": "", "host:0": "", "host:x": "", "host:99999": "", "tcp://host:502": ""} {
		c, err := OpenCoil(address, 0, nil)
		wrong := (*setting.Error)(nil)
		if want == "" {
			if !errors.As(err, &wrong) || wrong.Field != "modbus" {
				t.Errorf("%q: got %v, want an error of modbus", address, err)
			}
			continue
		}
		if err != nil || c.name != want {
			t.Errorf("%q: got %v, want %q", address, err, want)
			continue
		}
		c.Close()
	}
}

// TestCoil: the coil follows the verdicts, whatever the number and unit, and no rejected part is left out, however soon a good one
// follows.
func TestCoil(t *testing.T) {
	d := newDevice(t)
	c, err := OpenCoil(d.address, 65535, &CoilOptions{Unit: 7, Again: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	on, off := "7 65535 true [true]", "7 65535 true [false]"
	time.Sleep(50 * time.Millisecond)
	d.want(t, "before a verdict")
	board := Board{Displays: []Display{c}}
	board.Add(record(1, history.Good))
	d.want(t, "good", off)
	board.Add(record(2, history.Broken))
	d.want(t, "broken", off, on)
	board.Add(record(3, history.Good))
	d.want(t, "good again", off, on, off)
	board.Add(record(4, history.Anomalous))
	board.Add(record(5, history.Good))
	d.want(t, "anomalous and good at once", off, on, off, on, off)
	d.mu.Lock()
	d.writes = nil
	d.mu.Unlock()
	testmain.Wait(t, "writes without a change", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return len(d.writes) > 3 })
	board.Add(record(6, history.Anomalous))
	if err := board.Close(); err != nil {
		t.Fatal(err)
	}
	d.want(t, "the last one at the end", off, on)
}

// TestCoilHold: with a hold the coil stays on for that long.
func TestCoilHold(t *testing.T) {
	const hold = 300 * time.Millisecond
	d := newDevice(t)
	c, err := OpenCoil(d.address, 0, &CoilOptions{Hold: hold})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	board := Board{Displays: []Display{c}}
	began := time.Now()
	board.Add(record(1, history.Anomalous))
	board.Add(record(2, history.Good))
	on, off := "1 0 true [true]", "1 0 true [false]"
	d.want(t, "on", on)
	board.Add(record(3, history.Good))
	d.want(t, "off", on, off)
	if took := time.Since(began); took < hold {
		t.Errorf("got it off after %v, want %v or more", took, hold)
	}
}

// TestCoilAway: a device that was away gets the last verdict when it is back, and no part of before; people are told once.
func TestCoilAway(t *testing.T) {
	d, l := newDevice(t), &texts{}
	c, err := OpenCoil(d.address, 3, &CoilOptions{Again: 10 * time.Millisecond, Log: l.add})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	board := Board{Displays: []Display{c}}
	board.Add(record(1, history.Good))
	d.want(t, "good", "1 3 true [false]")
	d.Stop()
	board.Add(record(2, history.Anomalous))
	testmain.Wait(t, "failure", func() bool { return strings.Contains(l.String(), "not written until it works again") })
	board.Add(record(3, history.Good))
	time.Sleep(50 * time.Millisecond) // in which it is tried again
	d.mu.Lock()
	d.writes = nil
	d.mu.Unlock()
	d.start(t)
	d.want(t, "good again", "1 3 true [false]")
	testmain.Wait(t, "end of the failure", func() bool { return strings.Contains(l.String(), "works again after") })
	d.mu.Lock()
	d.refuse = true
	d.mu.Unlock()
	testmain.Wait(t, "refusal", func() bool { return strings.Contains(l.String(), "illegal data address") })
	d.mu.Lock()
	d.refuse = false
	d.mu.Unlock()
	testmain.Wait(t, "end of the refusal", func() bool { return strings.Count(l.String(), "works again after") == 2 })
	if got := strings.Count(l.String(), "is not written"); got != 2 {
		t.Errorf("got %d complaints, want 2: %s", got, l)
	}
}

// TestCoilBytes is about the bytes of a request, as the specification of Modbus TCP has them.
func TestCoilBytes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := OpenCoil(l.Addr().String(), 0x1234, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	board := Board{Displays: []Display{c}}
	board.Add(record(1, history.Anomalous))
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := make([]byte, 12)
	if _, err := io.ReadFull(conn, request); err != nil {
		t.Fatal(err)
	}
	// Behind the transaction's number: protocol 0, 6 bytes, unit 1, write single coil, its number, on.
	if want := []byte{0, 0, 0, 6, 1, 5, 0x12, 0x34, 0xff, 0}; !bytes.Equal(request[2:], want) {
		t.Errorf("got %x, want %x", request[2:], want)
	}
	conn.Write(request) // which is the answer
}

func TestServeOPCUAErrors(t *testing.T) {
	for _, address := range []string{"", "4840", "127.0.0.1:4840", ":0", ":x", ":70000", "opc.tcp://:4840"} {
		wrong := (*setting.Error)(nil)
		if _, err := ServeOPCUA(address, nil); !errors.As(err, &wrong) || wrong.Field != "opcua" {
			t.Errorf("%q: got %v, want an error of opcua", address, err)
		}
	}
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := ServeOPCUA(fmt.Sprint(":", l.Addr().(*net.TCPAddr).Port), nil); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v, want that the port is in use", err)
	}
}

// TestOPCUADies: a server that dies is started again.
func TestOPCUADies(t *testing.T) {
	checkDeath(t, "is started again: signal: killed", func(o *OPCUA) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if err := syscall.Kill(o.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	})
}

// TestOPCUAOutOfMemory: an array of more items than there can be is such a death, soon. The race detector bounds memory otherwise.
func TestOPCUAOutOfMemory(t *testing.T) {
	checkDeath(t, "is started again: fatal error: ", func(o *OPCUA) {
		kill(t, "127.0.0.1"+o.address, &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{{NodeID: ua.MustParseNodeID("i=85"), AttributeID: ua.AttributeIDValue}}})
	})
}

// checkDeath is about a server that dies of something, which is told as it is wanted: another one shows what it has shown, and what
// it is shown from then on.
func checkDeath(t *testing.T, want string, die func(*OPCUA)) {
	t.Helper()
	_, port, _ := net.SplitHostPort(free(t))
	l := &texts{}
	o, err := ServeOPCUA(":"+port, &OPCUAOptions{Version: "1.2.3", Again: 10 * time.Millisecond, Log: l.add})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	board := Board{Displays: []Display{o}}
	board.Add(record(7, history.Anomalous))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var c *opcua.Client
	read := func(node string) any {
		t.Helper()
		answer, err := c.Node(ua.MustParseNodeID(node)).Value(ctx)
		if err != nil {
			t.Fatalf("%s: %v", node, err)
		}
		return answer.Value()
	}
	connect := func() bool {
		var err error
		if c, err = opcua.NewClient("opc.tcp://127.0.0.1:"+port, opcua.SecurityMode(ua.MessageSecurityModeNone), opcua.AutoReconnect(false)); err != nil {
			t.Fatal(err)
		}
		return c.Connect(ctx) == nil
	}
	testmain.Wait(t, "server", connect)
	testmain.Wait(t, "verdict", func() bool {
		v, err := c.Node(ua.MustParseNodeID("ns=2;s=rdpp.Record")).Value(ctx)
		return err == nil && v != nil && v.Value() == int64(7)
	})
	if got := read("i=2264"); got != "1.2.3" { // SoftwareVersion
		t.Errorf("got version %v, want 1.2.3", got)
	}
	die(o)
	testmain.Wait(t, "death", func() bool { return strings.Contains(l.String(), want) })
	testmain.Wait(t, "new server", connect)
	testmain.Wait(t, "verdict again", func() bool {
		v, err := c.Node(ua.MustParseNodeID("ns=2;s=rdpp.Record")).Value(ctx)
		return err == nil && v != nil && v.Value() == int64(7)
	})
	board.Add(record(8, history.Good))
	testmain.Wait(t, "next verdict", func() bool { return read("ns=2;s=rdpp.Record") == int64(8) })
	if err := board.Close(); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
		conn.Close()
		t.Error("got a connection, want that the server has ended")
	}
}

// kill sends a server a request whose array says that it has more items than there can be: a client speaks to the server by way of
// a listener that changes what it sends.
func kill(t *testing.T, address string, request *ua.ReadRequest) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// The array of the request as it is sent: one item, a node's two-byte identifier, the attribute's number.
	plain, hostile := []byte{1, 0, 0, 0, 0, 85, 13, 0, 0, 0}, []byte{0, 0xff, 0x80, 0x7f, 0, 85, 13, 0, 0, 0}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", address)
			if err != nil {
				from.Close()
				return
			}
			go func() {
				defer from.Close()
				io.Copy(from, to)
			}()
			go func() {
				defer to.Close()
				buffer := make([]byte, 64<<10)
				for {
					n, err := from.Read(buffer)
					if err != nil {
						return
					}
					to.Write(bytes.Replace(buffer[:n], plain, hostile, 1))
				}
			}()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := opcua.NewClient("opc.tcp://"+l.Addr().String(), opcua.SecurityMode(ua.MessageSecurityModeNone), opcua.AutoReconnect(false))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(ctx, request); err == nil {
		t.Error("got an answer, want the end of the server")
	}
	c.Close(ctx)
}

// TestOPCUA: a client of another make finds the nodes, reads and follows them, and cannot write.
func TestOPCUA(t *testing.T) {
	_, port, _ := net.SplitHostPort(free(t))
	o, err := ServeOPCUA(":"+port, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	board := Board{Displays: []Display{o}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var c *opcua.Client // that connects again by itself, or is told to, has data races in it
	testmain.Wait(t, "server", func() bool {
		var err error
		if c, err = opcua.NewClient("opc.tcp://127.0.0.1:"+port, opcua.SecurityMode(ua.MessageSecurityModeNone), opcua.AutoReconnect(false)); err != nil {
			t.Fatal(err)
		}
		return c.Connect(ctx) == nil
	})
	defer c.Close(ctx)
	ns, err := c.FindNamespace(ctx, Namespace)
	if err != nil || ns != 2 {
		t.Fatalf("got namespace %d, %v, want 2", ns, err)
	}
	// As browsing finds them.
	var names []string
	objects := c.Node(ua.MustParseNodeID("i=85"))
	folders, err := objects.ReferencedNodes(ctx, 0, ua.BrowseDirectionForward, ua.NodeClassObject, true)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]*ua.NodeID{}
	for _, folder := range folders {
		if folder.ID.String() != "ns=2;s=rdpp" {
			continue
		}
		children, err := folder.ReferencedNodes(ctx, 0, ua.BrowseDirectionForward, ua.NodeClassVariable, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, child := range children {
			name, err := child.BrowseName(ctx)
			if err != nil {
				t.Fatal(err)
			}
			names, ids[name.Name] = append(names, name.Name), child.ID
		}
	}
	var want []string
	for _, n := range Nodes {
		want = append(want, n.Name)
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Fatalf("got %q, want %q", names, want)
	}
	read := func(what string, want map[string]any) {
		t.Helper()
		for name, value := range want {
			answer, err := c.Read(ctx, &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth, NodesToRead: []*ua.ReadValueID{{NodeID: ids[name], AttributeID: ua.AttributeIDValue}}})
			if err != nil {
				t.Fatal(err)
			}
			got := answer.Results[0]
			if status, bad := value.(ua.StatusCode); bad {
				if got.Status != status {
					t.Errorf("%s: %s: got %v, %v, want %v", what, name, got.Value, got.Status, status)
				}
				continue
			}
			if at, is := value.(time.Time); is {
				if found, ok := got.Value.Value().(time.Time); !ok || !found.Equal(at) || !got.SourceTimestamp.Equal(at) {
					t.Errorf("%s: %s: got %v at %v, want %v", what, name, got.Value.Value(), got.SourceTimestamp, at)
				}
				continue
			}
			if got.Status != ua.StatusOK || got.Value.Value() != value {
				t.Errorf("%s: %s: got %v (%T), %v, want %v", what, name, got.Value.Value(), got.Value.Value(), got.Status, value)
			}
		}
	}
	read("before a verdict", map[string]any{"Verdict": ua.StatusBadWaitingForInitialData, "Reject": ua.StatusBadWaitingForInitialData, "Images": int64(0)})

	changes := make(chan *opcua.PublishNotificationData, 100)
	sub, err := c.Subscribe(ctx, &opcua.SubscriptionParameters{Interval: 20 * time.Millisecond}, changes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Monitor(ctx, ua.TimestampsToReturnBoth, opcua.NewMonitoredItemCreateRequestWithDefaults(ids["Reject"], ua.AttributeIDValue, 1)); err != nil {
		t.Fatal(err)
	}
	follow := func(want bool) {
		t.Helper()
		for {
			select {
			case change := <-changes:
				data, ok := change.Value.(*ua.DataChangeNotification)
				if !ok || len(data.MonitoredItems) == 0 {
					continue
				}
				last := data.MonitoredItems[len(data.MonitoredItems)-1].Value
				if last.Value != nil && last.Value.Value() == want {
					return
				}
			case <-ctx.Done():
				t.Fatalf("got no change to %v", want)
			}
		}
	}
	board.Add(record(7, history.Anomalous))
	follow(true)
	read("anomalous", map[string]any{"Record": int64(7), "Time": record(7, "").Time, "Verdict": "anomalous", "Reject": true, "Score": 0.25, "Threshold": 0.5,
		"PValue": 0.125, "Regions": int32(0), "Image": "/in/7.png", "Model": "screw", "Images": int64(1), "Anomalous": int64(1), "Broken": int64(0)})
	board.Add(record(8, history.Broken))
	testmain.Wait(t, "broken", func() bool { v, err := c.Node(ids["Record"]).Value(ctx); return err == nil && v.Value() == int64(8) })
	read("broken", map[string]any{"Record": int64(8), "Verdict": "broken", "Reject": true, "Score": ua.StatusBadNoData, "PValue": ua.StatusBadNoData, "Images": int64(2),
		"Anomalous": int64(1), "Broken": int64(1)})
	board.Add(record(9, history.Good))
	follow(false)
	for _, id := range []*ua.NodeID{ids["Reject"], ua.MustParseNodeID("ns=99;s=x"), ua.MustParseNodeID("i=2259")} {
		answer, err := c.Write(ctx, &ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{NodeID: id, AttributeID: ua.AttributeIDValue,
			Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(true)}}}})
		if err != nil || answer.Results[0] == ua.StatusOK {
			t.Errorf("writing %v: got %v, %v, want a refusal", id, answer, err)
		}
	}
	read("after writing", map[string]any{"Reject": false, "Verdict": "good", "Images": int64(3)})
}
