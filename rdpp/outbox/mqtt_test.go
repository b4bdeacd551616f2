package outbox

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"rdpp/rdpp/history"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/testmain"
)

func TestNewMQTT(t *testing.T) {
	for _, c := range []struct {
		address, topic string
		opt            MQTTOptions
		field, want    string // "": nothing is wrong
	}{
		{address: "mqtt://host", topic: "a/b"}, {address: "mqtts://[::1]:8884/", topic: "ä"}, {address: "http://host", topic: "a", field: "mqtt", want: "use mqtt://"},
		{address: "host:1883", topic: "a", field: "mqtt", want: "use mqtt://"}, {address: "mqtt://", topic: "a", field: "mqtt", want: "use mqtt://"},
		{address: "mqtt://host/topic", topic: "a", field: "mqtt", want: "use mqtt://"}, {address: "mqtt://user:word@host", topic: "a", field: "mqtt", want: "leave out user"},
		{address: "mqtt://user:word@host:x", topic: "a", field: "mqtt", want: "no URL"}, {address: "mqtt://host", field: "topic", want: "missing"},
		{address: "mqtt://host", topic: "a/#", field: "topic", want: "without +, #"}, {address: "mqtt://host", topic: "a/+/b", field: "topic", want: "without +, #"},
		{address: "mqtt://host", topic: "$SYS/x", field: "topic", want: "and $"}, {address: "mqtt://host", topic: "a/", field: "topic", want: "use levels"},
		{address: "mqtt://host", topic: "a\xff", field: "topic", want: "use levels"},
		{address: "mqtt://host", topic: "a", opt: MQTTOptions{CA: "ca.pem"}, field: "mqtt", want: "use mqtts://"},
		{address: "mqtts://host", topic: "a", opt: MQTTOptions{Cert: "c.pem"}, field: "mqtt_cert", want: "need each other"},
	} {
		m, err := NewMQTT(c.address, c.topic, &c.opt)
		wrong := (*setting.Error)(nil)
		switch {
		case c.field == "" && (err != nil || strings.Contains(m.Key(), "word")):
			t.Errorf("%s %s: got %v", c.address, c.topic, err)
		case c.field != "" && (!errors.As(err, &wrong) || wrong.Field != c.field || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "word@")):
			t.Errorf("%s %s: got %v, want %s: %q", c.address, c.topic, err, c.field, c.want)
		}
	}
	if _, err := NewMQTT("mqtts://host", "a", &MQTTOptions{CA: "/none/ca.pem"}); err == nil || !strings.Contains(err.Error(), "/none/ca.pem") {
		t.Errorf("got %v, want the file's name", err)
	}
}

func TestReadLogin(t *testing.T) {
	for _, c := range []struct{ text, user, password string }{ // "" for both: an error
		{"me\nmy word \n", "me", "my word "}, {"\ufeffme\r\nword\r\n", "me", "word"}, {"me\nword", "me", "word"},
		{"", "", ""}, {"me", "", ""}, {"\nword", "", ""}, {"me\nword\nmore", "", ""},
	} {
		path := filepath.Join(t.TempDir(), "login")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		user, password, err := ReadLogin(path)
		if user != c.user || password != c.password || (err == nil) != (c.user != "") || err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%q: got %q, %q, %v, want %q, %q", c.text, user, password, err, c.user, c.password)
		}
	}
}

// FuzzParseLogin: what is taken is one line each, and is read again as it is.
func FuzzParseLogin(f *testing.F) {
	for _, text := range []string{"me\nword\n", "me\r\nword\r\n", "", "me", "a\nb\nc"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		user, password, err := parseLogin(data)
		if err != nil {
			return
		}
		again, same, err := parseLogin([]byte(user + "\n" + password + "\n"))
		if password != "" && (again != user || same != password || err != nil) || user == "" || strings.Contains(user+password, "\n") {
			t.Errorf("%q: got %q, %q, then %q, %q, %v", data, user, password, again, same, err)
		}
	})
}

// FuzzNewMQTT: an address that is taken is that of a host, and a topic is none that brokers refuse.
func FuzzNewMQTT(f *testing.F) {
	for _, c := range [][2]string{{"mqtt://host", "a/b"}, {"mqtts://[::1]:8884/", "a"}, {"mqtt://user:word@host", "a"}, {"mqtt://h", "a/#"}} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, address, topic string) {
		m, err := NewMQTT(address, topic, nil)
		if err != nil {
			return
		}
		u, err := url.Parse(m.address)
		if err != nil || u.User != nil || u.Hostname() == "" || u.Port() == "" || (u.Scheme == "ssl") != (m.tls != nil) || topic == "" || strings.ContainsAny(topic, "+#\x00") {
			t.Errorf("%q, %q: got %q, %v", address, topic, m.address, err)
		}
	})
}

// broker is a mosquitto that keeps what it has over restarts.
type broker struct {
	t       *testing.T
	program string
	dir     string
	address string // host:port
	cmd     *exec.Cmd
}

// newBroker starts a mosquitto with further lines of configuration. Where it is not installed the test is skipped.
func newBroker(t *testing.T, config ...string) *broker {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/mosquitto") // which is not where everybody looks for programs
	}
	if err != nil {
		t.Skip("no mosquitto: install it to have MQTT tested, as scripts/setup.sh --all does")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	b := &broker{t: t, program: program, dir: t.TempDir(), address: l.Addr().String()}
	if err := os.Chmod(b.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(b.address)
	lines := []string{"listener " + port + " 127.0.0.1", "persistence true", "persistence_location " + b.dir + "/", "max_queued_messages 0", "log_dest none"}
	if os.Getuid() == 0 {
		lines = append(lines, "user root")
	}
	if len(config) == 0 {
		config = []string{"allow_anonymous true"}
	}
	text := strings.Join(append(lines, config...), "\n") + "\n"
	if err := os.WriteFile(filepath.Join(b.dir, "mosquitto.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *broker) start() {
	b.t.Helper()
	b.cmd = exec.Command(b.program, "-c", filepath.Join(b.dir, "mosquitto.conf"))
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	testmain.Wait(b.t, "broker", func() bool {
		c, err := net.Dial("tcp", b.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// stop ends it as systemd does.
func (b *broker) stop() {
	b.cmd.Process.Signal(syscall.SIGTERM)
	b.cmd.Wait()
}

// subscriber is a client of the broker's that stays subscribed while it is away.
type subscriber struct {
	arrived
	statuses []string
	client   paho.Client
}

func (b *broker) subscribe(topic string, opt *paho.ClientOptions) *subscriber {
	b.t.Helper()
	s := &subscriber{}
	if opt == nil {
		opt = paho.NewClientOptions().AddBroker("tcp://" + b.address)
	}
	opt.SetClientID("subscriber").SetCleanSession(false).SetAutoReconnect(true).SetMaxReconnectInterval(50 * time.Millisecond).SetConnectRetryInterval(50 * time.Millisecond).
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
			if m.Topic() == topic+"/status" {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.statuses = append(s.statuses, fmt.Sprint(string(m.Payload()), " ", m.Retained()))
				return
			}
			if m.Qos() != 1 || m.Topic() != topic || m.Retained() {
				b.t.Errorf("got QoS %d, topic %s, retained %v, want QoS 1, %s, not retained", m.Qos(), m.Topic(), m.Retained(), topic)
			}
			if err := s.take(m.Payload()); err != nil {
				b.t.Error(err)
			}
		})
	s.client = paho.NewClient(opt)
	token := s.client.Connect()
	if token.Wait() && token.Error() == nil {
		token = s.client.SubscribeMultiple(map[string]byte{topic: 1, topic + "/status": 1}, nil)
	}
	if token.Wait(); token.Error() != nil {
		b.t.Fatal(token.Error())
	}
	b.t.Cleanup(func() { s.client.Disconnect(0) })
	return s
}

// status waits for a status.
func (s *subscriber) status(t *testing.T, want string) {
	t.Helper()
	testmain.Wait(t, "status "+want, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.statuses) > 0 && strings.HasPrefix(s.statuses[len(s.statuses)-1], want)
	})
}

func (b *broker) mqtt(topic string) *MQTT {
	b.t.Helper()
	m, err := NewMQTT("mqtt://"+b.address, topic, &MQTTOptions{Timeout: 2 * time.Second})
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// TestMQTTRestarts: a broker that is restarted, and stays away for a while, loses no message and no order; its retained status says
// whether the sender is there.
func TestMQTTRestarts(t *testing.T) {
	b, h, l := newBroker(t), opened(t), &log{}
	got := b.subscribe("line/1", nil)
	s := started(t, h, b.mqtt("line/1"), fast(l))
	got.status(t, "online")
	const images, restarts = 600, 4
	var adding sync.WaitGroup
	adding.Go(func() {
		for i := range images {
			r := record(fmt.Sprint(i))
			if err := h.Add(context.Background(), &r); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
	})
	for range restarts {
		time.Sleep(150 * time.Millisecond)
		b.stop()
		time.Sleep(100 * time.Millisecond)
		b.start()
	}
	adding.Wait()
	got.want(t, numbers(0, images))
	flushed(t, s)
	if failed, worked := l.count("verdicts wait in the history"), l.count("works again after"); failed == 0 || failed != worked || l.count("dropped") > 0 {
		t.Errorf("got %q, want failures, each with its end", l)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got.status(t, "offline")
	got.client.Disconnect(100)
	later := b.subscribe("line/1", nil) // who comes later learns it, too
	later.status(t, "offline true")
}

// line is a process that records and sends until it is killed.
func line(args []string) error {
	h, err := history.Open(args[0], nil)
	if err != nil {
		return err
	}
	m, err := NewMQTT("mqtt://"+args[1], args[2], nil)
	if err != nil {
		return err
	}
	if _, err := Start(context.Background(), h, source, m, nil); err != nil {
		return err
	}
	from, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	for i := from; ; i++ {
		r := record(fmt.Sprint(i))
		if err := h.Add(context.Background(), &r); err != nil {
			return err
		}
	}
}

// TestMQTTKilled: of a process that is killed at any moment the next one sends what was recorded, and the broker says that it is
// offline.
func TestMQTTKilled(t *testing.T) {
	b := newBroker(t)
	got := b.subscribe("t", nil)
	path := filepath.Join(t.TempDir(), "line.db")
	const kills = 4
	for i := range kills {
		cmd, _ := testmain.Start(t, "line", nil, path, b.address, "t", strconv.Itoa(i*1_000_000))
		before := len(got.list())
		testmain.Wait(t, "messages", func() bool { return len(got.list()) > before+20 })
		cmd.Process.Kill()
		cmd.Wait()
		got.status(t, "offline")
	}
	h, err := history.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s := started(t, h, b.mqtt("t"), nil)
	flushed(t, s)
	var want []string
	for r, err := range h.List(t.Context(), history.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, r.Image)
	}
	got.want(t, want)
}

// TestMQTTTakenPlace: a connection of before that the broker has not given up yet does not make it say offline later.
func TestMQTTTakenPlace(t *testing.T) {
	b := newBroker(t)
	got := b.subscribe("t", nil)
	first, second := b.mqtt("t"), b.mqtt("t")
	for _, m := range []*MQTT{first, second} {
		m.Begin("rdpp-1")
		if err := m.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	testmain.Wait(t, "end of the first connection", func() bool { return !first.client.IsConnectionOpen() })
	testmain.Wait(t, "statuses", func() bool { return len(got.told()) == 3 })
	if want := []string{"online false", "offline false", "online false"}; !slices.Equal(got.told(), want) {
		t.Errorf("got %q, want %q", got.told(), want)
	}
	if err := second.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (s *subscriber) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.statuses)
}

// certificate makes a certificate and its key as PEM files, signed by another or itself.
func certificate(t *testing.T, dir, name string, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: by == nil, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	if by == nil {
		by, byKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed, key
}

// TestMQTTSecure: TLS with certificates of both sides, and a user with a password, or else an error that names the trouble.
func TestMQTTSecure(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ca, key := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "broker", ca, key)
	certificate(t, dir, "client", ca, key)
	certificate(t, dir, "other", nil, nil)
	if out, err := exec.Command("mosquitto_passwd", "-b", "-c", file("passwords"), "me", "word").CombinedOutput(); err == nil {
		os.Chmod(file("passwords"), 0o644)
	} else if !errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := newBroker(t, "cafile "+file("ca.pem"), "certfile "+file("broker.pem"), "keyfile "+file("broker.key"), "require_certificate true",
		"allow_anonymous false", "password_file "+file("passwords"))
	whole := MQTTOptions{User: "me", Password: "word", CA: file("ca.pem"), Cert: file("client.pem"), Key: file("client.key"), Timeout: 5 * time.Second}
	for _, c := range []struct {
		name   string
		change func(*MQTTOptions)
		want   string // a regular expression; "": it works
	}{
		{"whole", func(*MQTTOptions) {}, ""},
		{"wrong password", func(o *MQTTOptions) { o.Password = "other" }, "not Authorized"},
		{"no user", func(o *MQTTOptions) { o.User, o.Password = "", "" }, "not Authorized"},
		{"another's authority", func(o *MQTTOptions) { o.CA = file("other.pem") }, "certificate signed by unknown authority"},
		{"the system's authorities", func(o *MQTTOptions) { o.CA = "" }, "certificate signed by unknown authority"},
		// The broker says why and hangs up at once: the end of the connection may come first.
		{"no certificate", func(o *MQTTOptions) { o.Cert, o.Key = "", "" }, "certificate required|reset by peer|broken pipe|EOF"},
	} {
		opt := whole
		c.change(&opt)
		m, err := NewMQTT("mqtts://"+b.address, "t", &opt)
		if err != nil {
			t.Fatal(err)
		}
		m.Begin("rdpp-1")
		err = m.Ready(t.Context())
		if (err == nil) != (c.want == "") || err != nil && !regexp.MustCompile(c.want).MatchString(err.Error()) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if err == nil {
			if taken, err := m.Send(t.Context(), []Packed{{ID: "a", JSON: []byte(`{}`)}}); taken != 1 || err != nil {
				t.Errorf("%s: got %d, %v, want it to be taken", c.name, taken, err)
			}
		}
		m.Close(t.Context())
	}
}

// TestMQTTSilent: a broker that takes connections and says nothing is an error after a while, and an end comes at once.
func TestMQTTSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m, err := NewMQTT("mqtt://"+l.Addr().String(), "t", &MQTTOptions{Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	m.Begin("rdpp-1")
	if err := m.Ready(t.Context()); err == nil {
		t.Error("got no error of a silent broker")
	}
	m, err = NewMQTT("mqtt://"+l.Addr().String(), "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Begin("rdpp-1")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := m.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("got %v after %v, want %v at once", err, time.Since(began), context.DeadlineExceeded)
	}
}
