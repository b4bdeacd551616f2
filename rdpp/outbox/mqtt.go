package outbox

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	paho "github.com/eclipse/paho.mqtt.golang"

	"rdpp/rdpp/setting"
	"rdpp/rdpp/textfile"
)

// MQTTOptions say how a broker is spoken to. Zero means the default.
type MQTTOptions struct {
	User, Password string        // default: none
	CA             string        // file of the certificates, PEM, one of which the broker's has to go back to; default: the system's
	Cert, Key      string        // files of an own certificate and its key, PEM; default: none
	Timeout        time.Duration // to connect, and for the broker to take messages; default 10 s
}

// MQTT sends messages to a broker over MQTT 3.1.1: each with QoS 1 to a topic T, and to T/status, retained, "online", or "offline"
// once it has left or the broker has not heard of it for a while.
//
// A broker that takes a message has it from then on: whether it loses it by being killed is up to how it is set up.
type MQTT struct {
	address, topic, status string // address as paho has it
	opt                    MQTTOptions
	tls                    *tls.Config // nil: none
	sender                 string

	client paho.Client // nil: not connected
}

const (
	qos       = 1
	keepAlive = 10 * time.Second // the broker waits half as long again before it says offline
)

// NewMQTT is a broker at mqtt://HOST[:PORT] or, with TLS, mqtts://HOST[:PORT], and a topic on it. Nothing is connected yet. Errors
// about these are a *setting.Error of mqtt, topic, mqtt_ca or mqtt_cert.
func NewMQTT(address, topic string, opt *MQTTOptions) (*MQTT, error) {
	if opt == nil {
		opt = &MQTTOptions{}
	}
	m := &MQTT{topic: topic, status: topic + "/status", opt: *opt}
	m.opt.Timeout = cmp.Or(m.opt.Timeout, 10*time.Second)
	u, err := url.Parse(address)
	if err != nil {
		return nil, setting.Wrong("mqtt", "no URL", "use mqtt://HOST:PORT or mqtts://HOST:PORT") // an error would show a password
	}
	scheme, port := "tcp", "1883"
	if u.Scheme == "mqtts" {
		scheme, port = "ssl", "8883"
		m.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
	}
	switch {
	case u.User != nil:
		return nil, setting.Wrong("mqtt", u.Redacted(), "leave out user and password, which other users of this machine could read there")
	case u.Scheme != "mqtt" && u.Scheme != "mqtts", u.Hostname() == "", u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return nil, setting.Wrong("mqtt", address, "use mqtt://HOST:PORT or mqtts://HOST:PORT")
	}
	m.address = scheme + "://" + net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
	switch {
	case topic == "":
		return nil, setting.Wrong("topic", nil, "name the one to send verdicts to")
	case strings.ContainsAny(topic, "+#\x00") || strings.HasPrefix(topic, "$") || strings.HasSuffix(topic, "/") || !utf8.ValidString(topic) || len(m.status) > 65535:
		return nil, setting.Wrong("topic", topic, "use levels with / between them, such as factory/line1/camera2, without +, # and $")
	case m.tls == nil && (m.opt.CA != "" || m.opt.Cert != "" || m.opt.Key != ""):
		return nil, setting.Wrong("mqtt", address, "use mqtts:// with certificates")
	case (m.opt.Cert == "") != (m.opt.Key == ""):
		return nil, setting.Wrong("mqtt_cert", m.opt.Cert, "{mqtt_cert} and {mqtt_key} need each other")
	}
	return m, m.certify()
}

// certify reads the certificates.
func (m *MQTT) certify() error {
	if m.opt.CA != "" {
		data, err := os.ReadFile(m.opt.CA)
		if err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
		m.tls.RootCAs = x509.NewCertPool()
		if !m.tls.RootCAs.AppendCertsFromPEM(data) {
			return setting.Wrong("mqtt_ca", m.opt.CA, "there is no certificate in it; name a file in PEM")
		}
	}
	if m.opt.Cert != "" {
		pair, err := tls.LoadX509KeyPair(m.opt.Cert, m.opt.Key)
		if err != nil {
			return fmt.Errorf("outbox: %s and %s: %w", m.opt.Cert, m.opt.Key, err)
		}
		m.tls.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// ReadLogin reads a user's name and password from a file, a line each, as [textfile.Read] does.
func ReadLogin(path string) (user, password string, err error) {
	data, err := textfile.Read(path)
	if err != nil {
		return "", "", fmt.Errorf("outbox: the user and the password: %w", err)
	}
	if user, password, err = parseLogin(data); err != nil {
		return "", "", fmt.Errorf("outbox: %s: %w", path, err)
	}
	return user, password, nil
}

func parseLogin(data []byte) (user, password string, err error) {
	lines := strings.Split(strings.TrimRight(string(data), "\r\n"), "\n")
	if len(lines) != 2 || strings.TrimSpace(lines[0]) == "" {
		return "", "", errors.New("write the user's name into its first line, and the password into its second")
	}
	return strings.TrimSpace(lines[0]), strings.TrimRight(lines[1], "\r"), nil
}

func (m *MQTT) String() string { return "mqtt " + m.address[strings.Index(m.address, "//")+2:] }

// Key tells this destination from others.
func (m *MQTT) Key() string { return "mqtt " + m.address + " " + m.topic }

// Begin takes the sender's name, by which the broker knows it: where a connection takes another's place, no "offline" comes late.
func (m *MQTT) Begin(sender string) { m.sender = sender }

// Ready connects.
func (m *MQTT) Ready(ctx context.Context) error {
	if m.client != nil && m.client.IsConnectionOpen() {
		return nil
	}
	m.leave(0)
	o := paho.NewClientOptions().AddBroker(m.address).SetClientID(m.sender).SetCleanSession(true).SetKeepAlive(keepAlive).
		SetPingTimeout(keepAlive/2).SetConnectTimeout(m.opt.Timeout).SetWriteTimeout(m.opt.Timeout).SetAutoReconnect(false).SetConnectRetry(false).
		SetProtocolVersion(4).SetUsername(m.opt.User).SetPassword(m.opt.Password).SetWill(m.status, "offline", qos, true)
	if m.tls != nil {
		o.SetTLSConfig(m.tls)
	}
	m.client = paho.NewClient(o)
	err := m.await(ctx, m.client.Connect())
	if err == nil {
		err = m.await(ctx, m.client.Publish(m.status, qos, true, "online"))
	}
	if err != nil {
		m.leave(0)
	}
	return err
}

// errSlow is of a broker that does not answer.
var errSlow = errors.New("the broker does not answer")

// await waits for the broker's answer.
func (m *MQTT) await(ctx context.Context, answer paho.Token) error {
	timer := time.NewTimer(m.opt.Timeout)
	defer timer.Stop()
	select {
	case <-answer.Done():
		return answer.Error()
	case <-timer.C:
		return errSlow
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Send hands all messages over before it waits for answers. After an error the connection is a new one, and what was not answered
// is sent again, in its order.
func (m *MQTT) Send(ctx context.Context, messages []Packed) (taken int, err error) {
	var answers []paho.Token
	for _, message := range messages {
		if ctx.Err() != nil { // handing over waits where the broker does not read
			break
		}
		answers = append(answers, m.client.Publish(m.topic, qos, false, message.JSON))
	}
	for i, answer := range answers {
		if err := m.await(ctx, answer); err != nil {
			m.leave(0)
			return i, err
		}
	}
	return len(answers), ctx.Err()
}

// leave ends the connection. It waits so long for the broker to be told, which otherwise says offline by itself.
func (m *MQTT) leave(wait time.Duration) {
	if m.client != nil {
		m.client.Disconnect(uint(wait.Milliseconds()))
		m.client = nil
	}
}

// Close says offline and ends the connection.
func (m *MQTT) Close(ctx context.Context) (err error) {
	if m.client == nil {
		return nil
	}
	if m.client.IsConnectionOpen() {
		err = m.await(ctx, m.client.Publish(m.status, qos, true, "offline"))
	}
	m.leave(250 * time.Millisecond)
	return err
}
