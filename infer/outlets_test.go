package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
	"github.com/simonvetter/modbus"

	"rdpp/infer/server"
	"rdpp/rdpp/command"
	"rdpp/rdpp/history"
	"rdpp/rdpp/outbox"
	"rdpp/rdpp/testmain"
)

// receiver is a webhook's other end, which checks what it gets.
type receiver struct {
	*httptest.Server
	secret []byte

	mu       sync.Mutex
	closed   bool // answers 503
	messages []outbox.Message
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{secret: []byte("0123456789abcdef")}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.closed {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, err := io.ReadAll(q.Body)
		at, _ := strconv.ParseInt(q.Header.Get("Webhook-Timestamp"), 10, 64)
		var m outbox.Message
		if err == nil {
			err = json.Unmarshal(body, &m)
		}
		if err != nil || m.ID != q.Header.Get("Webhook-Id") || q.Header.Get("Webhook-Signature") != outbox.Sign(r.secret, m.ID, time.Unix(at, 0), body) {
			t.Errorf("got %s, %v, %v", body, q.Header, err)
		}
		r.messages = append(r.messages, m)
	}))
	t.Cleanup(r.Close)
	return r
}

// flags are those that send to it.
func (r *receiver) flags(t *testing.T) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, r.secret, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--webhook", r.URL + "/verdicts", "--webhook-secret", path}
}

// verdicts are what has come, as "verdict name".
func (r *receiver) verdicts() (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.messages {
		list = append(list, string(m.Verdict)+" "+filepath.Base(m.Image))
	}
	return list
}

// TestWatchSends: verdicts go out in their order before a call ends; what a destination does not take the next call sends.
func TestWatchSends(t *testing.T) {
	good, anomalous := testImages()
	l, r := newLine(t), newReceiver(t)
	copyImage(t, good[0], filepath.Join(l.in, "a.png"))
	copyImage(t, anomalous[0], filepath.Join(l.in, "b.png"))
	args := append(append(l.command("--once"), l.moving()...), r.flags(t)...)
	if code, _, stderr := infer(nil, args...); code != command.Anomalous {
		t.Fatalf("got code %d, stderr %q", code, stderr)
	}
	if got := r.verdicts(); !slices.Equal(got, l.records(t)) || len(got) != 2 {
		t.Errorf("got %q, want %q", got, l.records(t))
	}
	if m := r.messages[1]; m.Schema != outbox.Schema || m.Moved != filepath.Join(l.bad, "b.png") || !m.Anomalous || m.Score <= m.Threshold || len(m.Regions) == 0 {
		t.Errorf("got %+v, want what is known of b.png", m)
	}
	r.closed = true
	copyImage(t, good[1], filepath.Join(l.in, "c.png"))
	code, _, stderr := infer(nil, args...)
	if code != command.Done || !strings.Contains(stderr, "503") || !strings.Contains(stderr, "1 verdict in the history still to send; the next call does") {
		t.Errorf("got code %d, stderr %q, want code 0 and that it waits", code, stderr)
	}
	r.closed = false
	if code, _, stderr := infer(nil, args...); code != command.Done || strings.Contains(stderr, "webhook") {
		t.Errorf("got code %d, stderr %q", code, stderr)
	}
	if got := r.verdicts(); !slices.Equal(got, l.records(t)) || len(got) != 3 {
		t.Errorf("got %q, want %q", got, l.records(t))
	}
}

// coils are those of a device that speaks Modbus, of which the values that were written to number 5 are kept.
type coils struct {
	mu     sync.Mutex
	values []bool
}

func (c *coils) HandleCoils(r *modbus.CoilsRequest) ([]bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Addr != 5 || !r.IsWrite {
		return nil, modbus.ErrIllegalDataAddress
	}
	c.values = append(c.values, r.Args...)
	return nil, nil
}

func (*coils) HandleDiscreteInputs(*modbus.DiscreteInputsRequest) ([]bool, error) {
	return nil, modbus.ErrIllegalFunction
}

func (*coils) HandleHoldingRegisters(*modbus.HoldingRegistersRequest) ([]uint16, error) {
	return nil, modbus.ErrIllegalFunction
}

func (*coils) HandleInputRegisters(*modbus.InputRegistersRequest) ([]uint16, error) {
	return nil, modbus.ErrIllegalFunction
}

// port is one at which nobody listens.
func port(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, number, _ := net.SplitHostPort(l.Addr().String())
	return number
}

// TestWatchShows: a coil and an OPC UA server have the last verdict, from before a start, too.
func TestWatchShows(t *testing.T) {
	good, anomalous := testImages()
	l := newLine(t)
	c, device, server := &coils{}, "127.0.0.1:"+port(t), port(t)
	peer, err := modbus.NewServer(&modbus.ServerConfiguration{URL: "tcp://" + device, Timeout: time.Minute}, c)
	if err == nil {
		err = peer.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Stop()
	args := l.command("--modbus", device, "--coil", "5", "--opcua", ":"+server)
	copyImage(t, anomalous[0], filepath.Join(l.in, "a.png"))
	if code, _, stderr := infer(nil, append(args, "--once")...); code != command.Anomalous || strings.Contains(stderr, "modbus") {
		t.Fatalf("got code %d, stderr %q", code, stderr)
	}
	c.mu.Lock()
	if len(c.values) == 0 || !c.values[len(c.values)-1] {
		t.Errorf("got %v, want the coil on", c.values)
	}
	c.values = nil
	c.mu.Unlock()
	cmd, _ := testmain.Start(t, asProgram, nil, args...)
	var client *opcua.Client // that connects again by itself, or is told to, has data races in it
	testmain.Wait(t, "server", func() bool {
		client, err = opcua.NewClient("opc.tcp://127.0.0.1:"+server, opcua.SecurityMode(ua.MessageSecurityModeNone), opcua.AutoReconnect(false))
		if err != nil {
			t.Fatal(err)
		}
		return client.Connect(t.Context()) == nil
	})
	defer client.Close(t.Context())
	shows := func(name string, want any) {
		t.Helper()
		testmain.Wait(t, fmt.Sprint(name, " ", want), func() bool {
			v, err := client.Node(ua.MustParseNodeID("ns=2;s=rdpp." + name)).Value(t.Context())
			return err == nil && v != nil && v.Value() == want
		})
	}
	shows("Reject", true)
	shows("Images", int64(0))
	testmain.Wait(t, "coil", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.values) > 0 && c.values[0] })
	copyImage(t, good[0], filepath.Join(l.in, "b.png"))
	shows("Reject", false)
	shows("Image", filepath.Join(l.in, "b.png"))
	shows("Images", int64(1))
	testmain.Wait(t, "coil off", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return !c.values[len(c.values)-1] })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := testmain.ExitCode(t, cmd); code != command.Done {
		t.Errorf("got code %d, want 0", code)
	}
}

// TestImageSends: so does infer image.
func TestImageSends(t *testing.T) {
	good, anomalous := testImages()
	r := newReceiver(t)
	past := filepath.Join(t.TempDir(), "h.db")
	args := append(commandLine("image", good[0], anomalous[0], "--history", past), r.flags(t)...)
	if code, _, stderr := infer(nil, args...); code != command.Anomalous {
		t.Fatalf("got code %d, stderr %q", code, stderr)
	}
	if want := []string{"good " + filepath.Base(good[0]), "anomalous " + filepath.Base(anomalous[0])}; !slices.Equal(r.verdicts(), want) {
		t.Errorf("got %q, want %q", r.verdicts(), want)
	}
	if got := r.messages[0].Source; got != ofImage {
		t.Errorf("got source %q, want %q", got, ofImage)
	}
}

// TestServeSends: so does infer serve.
func TestServeSends(t *testing.T) {
	_, anomalous := testImages()
	r := newReceiver(t)
	s := startServe(t, append(r.flags(t), "--history", filepath.Join(t.TempDir(), "h.db"))...)
	data, err := os.ReadFile(anomalous[0])
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.Post(s.address+predictPath()+"?name=x.png", "image/png", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	s.end(t)
	if want := []string{"anomalous x.png"}; answer.StatusCode != http.StatusOK || !slices.Equal(r.verdicts(), want) || r.messages[0].Source != server.Source {
		t.Errorf("got %s, %q, want %q", answer.Status, r.verdicts(), want)
	}
}

// TestWatchSendsKilled: of a watch that is killed again and again, while its receiver comes and goes, every verdict arrives, in the
// order of the history.
func TestWatchSendsKilled(t *testing.T) {
	good, _ := testImages()
	l, r := newLine(t), newReceiver(t)
	args := append(l.command(l.moving()...), r.flags(t)...)
	const rounds, each = 3, 6
	for round := range rounds {
		cmd, _ := testmain.Start(t, asProgram, nil, args...)
		for i := range each {
			copyImage(t, good[i%len(good)], filepath.Join(l.in, fmt.Sprintf("%d-%d.png", round, i)))
		}
		wanted := round*each + 2 + round
		testmain.Wait(t, "records", func() bool {
			h, err := history.Open(l.history, nil)
			if err != nil {
				return false
			}
			defer h.Close()
			n, err := h.Count(t.Context())
			return err == nil && n >= wanted
		})
		if err := testmain.Kill(cmd); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		r.closed = !r.closed
		r.mu.Unlock()
	}
	r.mu.Lock()
	r.closed = false
	r.mu.Unlock()
	if code, _, stderr := infer(nil, append(args, "--once")...); code != command.Done {
		t.Fatalf("got code %d, stderr %q", code, stderr)
	}
	known := map[string]bool{}
	var got []string
	for _, m := range r.messages {
		if !known[m.ID] {
			known[m.ID] = true
			got = append(got, string(m.Verdict)+" "+filepath.Base(m.Image))
		}
	}
	if want := l.records(t); !slices.Equal(got, want) || len(want) != rounds*each {
		t.Errorf("got %q, want %q", got, want)
	}
}

// mosquitto is the program of the broker. Where it is not installed the test is skipped.
func mosquitto(t *testing.T) (program string) {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/mosquitto") // which is not where everybody looks for programs
	}
	if err != nil {
		t.Skip("no mosquitto: install it to have MQTT tested, as scripts/setup.sh --all does")
	}
	return program
}

// startBroker starts the broker with further lines of configuration, and returns its address.
func startBroker(t *testing.T, config ...string) (address string) {
	t.Helper()
	program, number := mosquitto(t), port(t)
	config = append(config, "listener "+number+" 127.0.0.1", "log_dest none")
	if os.Getuid() == 0 {
		config = append(config, "user root")
	}
	path := filepath.Join(t.TempDir(), "mosquitto.conf")
	if err := os.WriteFile(path, []byte(strings.Join(config, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	broker := exec.Command(program, "-c", path)
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Process.Kill(); broker.Wait() })
	return "127.0.0.1:" + number
}

// TestWatchMQTT: verdicts reach a broker that asks for a user and a password, from a file or from the environment.
func TestWatchMQTT(t *testing.T) {
	mosquitto(t)
	good, anomalous := testImages()
	l := newLine(t)
	dir := filepath.Dir(l.in)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	passwords := filepath.Join(dir, "passwords")
	if out, err := exec.Command("mosquitto_passwd", "-b", "-c", passwords, "line", "secret word").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	broker := startBroker(t, "allow_anonymous false", "password_file "+passwords)
	var mu sync.Mutex
	var got []string
	subscriber := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + broker).SetUsername("line").SetPassword("secret word"))
	testmain.Wait(t, "broker", func() bool { token := subscriber.Connect(); return token.Wait() && token.Error() == nil })
	defer subscriber.Disconnect(0)
	token := subscriber.Subscribe("line/camera/#", 1, func(_ paho.Client, p paho.Message) {
		mu.Lock()
		defer mu.Unlock()
		var m outbox.Message
		if json.Unmarshal(p.Payload(), &m) != nil {
			got = append(got, string(p.Payload()))
			return
		}
		got = append(got, string(m.Verdict)+" "+filepath.Base(m.Image))
	})
	if token.Wait(); token.Error() != nil {
		t.Fatal(token.Error())
	}
	want := func(what string, want ...string) {
		t.Helper()
		testmain.Wait(t, what, func() bool { mu.Lock(); defer mu.Unlock(); return len(got) >= len(want) })
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
		got = nil
	}
	args := l.command("--once", "--mqtt", "mqtt://"+broker, "--topic", "line/camera")
	copyImage(t, good[0], filepath.Join(l.in, "a.png"))
	if code, _, stderr := infer(nil, append(args, "--mqtt-login", write("login", "line\nsecret word\n"))...); code != command.Done || strings.Contains(stderr, "mqtt") {
		t.Errorf("got code %d, stderr %q", code, stderr)
	}
	want("from a file", "online", "good a.png", "offline")
	t.Setenv("RDPP_MQTT_USER", "line")
	t.Setenv("RDPP_MQTT_PASSWORD", "secret word")
	copyImage(t, anomalous[0], filepath.Join(l.in, "b.png"))
	if code, _, stderr := infer(nil, args...); code != command.Anomalous || strings.Contains(stderr, "mqtt") {
		t.Errorf("got code %d, stderr %q", code, stderr)
	}
	want("from the environment", "online", "anomalous b.png", "offline")
}
