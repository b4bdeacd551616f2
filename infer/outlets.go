package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/history"
	"rdpp/rdpp/outbox"
	"rdpp/rdpp/plc"
)

// outlets are where verdicts go, beside what a command prints and records.
type outlets struct {
	broker, topic, login string
	mqtt                 outbox.MQTTOptions
	webhook, secret      string
	most                 int

	opcua, modbus string
	coil          *uint16 // nil: not given
	unit          int
	hold          time.Duration

	destinations []outbox.Destination
	senders      []*outbox.Sender
	board        plc.Board // gets each verdict from the history
}

// register adds the flags and returns those that few need.
func (o *outlets) register(flags *pflag.FlagSet) (rare []string) {
	flags.StringVar(&o.broker, "mqtt", "", "send verdicts to the broker at `URL`, mqtt or mqtts")
	flags.StringVar(&o.topic, "topic", "", "to its topic `NAME`; NAME/status: online, offline")
	flags.StringVar(&o.login, "mqtt-login", "", "`FILE`: user in its first line, password in its second;\nor in RDPP_MQTT_USER and RDPP_MQTT_PASSWORD")
	flags.StringVar(&o.mqtt.CA, "mqtt-ca", "", "certificates `FILE`, PEM, that the broker's goes back to")
	flags.StringVar(&o.mqtt.Cert, "mqtt-cert", "", "own certificate `FILE` for the broker, PEM")
	flags.StringVar(&o.mqtt.Key, "mqtt-key", "", "the certificate's key `FILE`, PEM")
	flags.StringVar(&o.webhook, "webhook", "", "post verdicts to `URL`, http or https")
	flags.StringVar(&o.secret, "webhook-secret", "", "sign them with the secret in `FILE`")
	flags.IntVar(&o.most, "send-queue", outbox.DefaultMost, "at most `N` verdicts wait to be sent, for 7 days")
	return []string{"mqtt-login", "mqtt-ca", "mqtt-cert", "mqtt-key", "webhook-secret", "send-queue"}
}

// registerPLC adds the flags of what shows the last verdict, and returns those that few need.
func (o *outlets) registerPLC(flags *pflag.FlagSet) (rare []string) {
	flags.StringVar(&o.opcua, "opcua", "", "show the last verdict over OPC UA at `ADDR`, such as :4840")
	flags.StringVar(&o.modbus, "modbus", "", "switch a coil of the Modbus device at `ADDR`,\non when the last part is to be sorted out")
	flags.Func("coil", "`N`umber of that coil in the protocol, the first one is 0", func(text string) error {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return errors.New("use 0 to 65535")
		}
		o.coil = new(uint16(n))
		return nil
	})
	flags.DurationVar(&o.hold, "coil-hold", 0, "keep it on for `TIME` at least")
	flags.IntVar(&o.unit, "modbus-unit", 1, "unit `N` behind a Modbus gateway")
	return []string{"opcua", "modbus", "coil", "coil-hold", "modbus-unit"}
}

// check says what is wrong with the flags and the files that they name, before anything is opened.
func (o *outlets) check() (err error) {
	switch {
	case o.broker == "" && cmp.Or(o.topic, o.login, o.mqtt.CA, o.mqtt.Cert, o.mqtt.Key) != "":
		return command.Usagef("--topic, --mqtt-login, --mqtt-ca, --mqtt-cert and --mqtt-key are for --mqtt; name a broker with that")
	case o.webhook == "" && o.secret != "":
		return command.Usagef("--webhook-secret is for --webhook; name an address with that")
	case o.most < 1:
		return command.Usagef("--send-queue %d; use 1 or more", o.most)
	case o.modbus == "" && (o.coil != nil || o.hold != 0):
		return command.Usagef("--coil and --coil-hold are for --modbus; name a device with that")
	case o.modbus != "" && o.coil == nil:
		return command.Usagef("--modbus needs the number of a coil; name it with --coil")
	case o.modbus != "" && (o.unit < 1 || o.unit > 255):
		return command.Usagef("--modbus-unit %d; use 1 to 255", o.unit)
	case o.hold < 0:
		return command.Usagef("--coil-hold %v; use 0 or more", o.hold)
	}
	if o.broker != "" {
		o.mqtt.User, o.mqtt.Password = os.Getenv("RDPP_MQTT_USER"), os.Getenv("RDPP_MQTT_PASSWORD")
		if o.login != "" {
			if o.mqtt.User, o.mqtt.Password, err = outbox.ReadLogin(o.login); err != nil {
				return err
			}
		}
		m, err := outbox.NewMQTT(o.broker, o.topic, &o.mqtt)
		if err != nil {
			return err
		}
		o.destinations = append(o.destinations, m)
	}
	if o.webhook != "" {
		var opt outbox.WebhookOptions
		if o.secret != "" {
			if opt.Secret, err = outbox.ReadSecret(o.secret); err != nil {
				return err
			}
		}
		w, err := outbox.NewWebhook(o.webhook, &opt)
		if err != nil {
			return err
		}
		o.destinations = append(o.destinations, w)
	}
	return nil
}

// checkHistory is for commands that do not always record.
func (o *outlets) checkHistory(file string) error {
	switch {
	case file != "":
	case len(o.destinations) > 0:
		return command.Usagef("--mqtt and --webhook need --history FILE, in which verdicts wait to be sent")
	case o.opcua != "" || o.modbus != "":
		return command.Usagef("--opcua and --modbus need --history FILE, which has the last verdict")
	}
	return nil
}

// start begins to send and to show what a source records. log is told what people should know, by any goroutine.
func (o *outlets) start(ctx context.Context, h *history.DB, source string, log func(text string)) error {
	if o.modbus != "" {
		c, err := plc.OpenCoil(o.modbus, *o.coil, &plc.CoilOptions{Unit: uint8(o.unit), Hold: o.hold, Log: log})
		if err != nil {
			return err
		}
		o.board.Displays = append(o.board.Displays, c)
	}
	if o.opcua != "" {
		s, err := plc.ServeOPCUA(o.opcua, &plc.OPCUAOptions{Version: rdpp.Version, Log: log})
		if err != nil {
			return err
		}
		o.board.Displays = append(o.board.Displays, s)
	}
	if len(o.board.Displays) > 0 {
		for last, err := range h.List(ctx, history.Filter{Source: source, Last: 1}) {
			if err != nil {
				return err
			}
			o.board.Begin(last)
		}
	}
	for _, to := range o.destinations {
		s, err := outbox.Start(ctx, h, source, to, &outbox.Options{Most: o.most, Log: log})
		if err != nil {
			return err
		}
		o.senders = append(o.senders, s)
	}
	return nil
}

// How long the end of a command waits for destinations that do not take what is left: when its work is done, and when it is told
// to end.
const (
	patient = 10 * time.Second
	hasty   = 2 * time.Second
)

// close sends what is left within a time, and ends the sending and the showing. It comes before the history's end.
func (o *outlets) close(within time.Duration, log func(text string)) error {
	err := o.board.Close()
	left, failed := outbox.CloseAll(o.senders, within)
	for _, text := range left {
		log(text)
	}
	return errors.Join(err, failed)
}

// logTo is a log that prints, beside what else is printed there from now on.
func logTo(t *command.Terminal) (log func(text string)) {
	t.Stderr = &shared{w: t.Stderr}
	return func(text string) { t.Complain(errors.New(text)) }
}

// shared is a writer that several goroutines may use.
type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}
