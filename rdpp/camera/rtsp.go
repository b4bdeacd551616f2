package camera

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpmjpeg"
	"github.com/pion/rtp"
)

// rtspStream is a camera that speaks RTSP and sends M-JPEG (RFC 2435). The packets come over the connection of RTSP itself, so that none is
// lost, and nobody else can send some.
type rtspStream struct {
	address *url.URL
	opt     *Options
}

// perPacket is what a packet of a frame takes beside its content, bytes.
const perPacket = 128

func (r *rtspStream) stream(ctx context.Context, deliver func(Frame), _ <-chan struct{}) (err error) {
	ctx, alive, stop := impatient(ctx, r.opt.Silence)
	defer stop()
	defer func() { err = why(ctx, err) }()
	u, err := base.ParseURL(r.address.String())
	if err != nil {
		return errors.New("the address cannot be used") // whose words have the password
	}
	broken := make(chan error, 1)
	fail := func(err error) {
		select {
		case broken <- err:
		default:
		}
	}
	home := hostPort(r.address)
	c := &gortsplib.Client{Scheme: u.Scheme, Host: home, Protocol: new(gortsplib.ProtocolTCP), ReadTimeout: r.opt.Silence, WriteTimeout: r.opt.Silence,
		TLSConfig: &tls.Config{ServerName: r.address.Hostname()}, UserAgent: "rdpp",
		DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
			if address != home { // it redirects, and would be followed with user and password
				return nil, fmt.Errorf("it redirects to %.100s; give that address, if it is the camera's", address)
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}}
	if err := c.Start(); err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, c.Close)()
	d, _, err := c.Describe(u)
	if err != nil {
		return err
	}
	var form *format.MJPEG
	media := d.FindFormat(&form)
	if media == nil {
		return fmt.Errorf("it sends %s, and this program reads M-JPEG alone: set the camera to that", formats(d))
	}
	decoder, err := form.CreateDecoder()
	if err != nil {
		return err
	}
	if _, err := c.Setup(d.BaseURL, media, 0, 0); err != nil {
		return err
	}
	a := assembly{decoder: decoder, most: r.opt.MaxBytes}
	c.OnPacketRTP(media, form, func(packet *rtp.Packet) {
		f, err := a.add(packet)
		switch {
		case err != nil:
			fail(err)
		case f.Data != nil:
			alive()
			deliver(f)
		}
	})
	if _, err := c.Play(nil); err != nil {
		return err
	}
	go func() { fail(c.Wait()) }()
	return <-broken
}

// hostPort is the host of an address with its port.
func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "rtsps":
		port = "322"
	default:
		port = "554"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// formats names what a camera offers.
func formats(d *description.Session) string {
	var names []string
	for _, m := range d.Medias {
		for _, f := range m.Formats {
			if !slices.Contains(names, f.Codec()) && len(names) < 8 {
				names = append(names, f.Codec())
			}
		}
	}
	return fmt.Sprintf("%.100q", strings.Join(names, ", "))
}

// assembly makes frames of packets.
type assembly struct {
	decoder *rtpmjpeg.Decoder
	most    int64

	begun time.Time // of the frame that is being made; zero: none is
	bytes int64     // that its packets take
}

// add takes a packet in. The frame has data where it ends one.
func (a *assembly) add(packet *rtp.Packet) (f Frame, err error) {
	defer func() { // the packets are a stranger's
		if fault := recover(); fault != nil {
			err = fmt.Errorf("a packet cannot be read: %v", fault)
		}
	}()
	if a.begun.IsZero() {
		a.begun = time.Now()
	}
	if a.bytes += int64(len(packet.Payload)) + perPacket; a.bytes > a.most {
		return f, tooLarge(a.most)
	}
	data, err := a.decoder.Decode(packet)
	if errors.Is(err, rtpmjpeg.ErrMorePacketsNeeded) {
		return f, nil
	}
	if err == nil {
		f = Frame{Data: data, Begun: a.begun}
	} else { // the rest of a frame whose beginning was not seen, say
		a.decoder = &rtpmjpeg.Decoder{}
		err = a.decoder.Init()
	}
	a.begun, a.bytes = time.Time{}, 0
	return f, err
}
