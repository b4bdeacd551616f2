package camera

import (
	"bytes"
	"image"
	"image/jpeg"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpmjpeg"
	"github.com/pion/rtp"

	"rdpp/rdpp/testmain"
)

// station is a camera that speaks RTSP.
type station struct {
	server *gortsplib.Server
	stream *gortsplib.ServerStream
	ready  chan struct{} // closed when there is a stream
	moved  string        // where it redirects to; "": nowhere
	asked  atomic.Int64  // how often
}

func (s *station) OnDescribe(*gortsplib.ServerHandlerOnDescribeCtx) (*base.Response, *gortsplib.ServerStream, error) {
	<-s.ready
	s.asked.Add(1)
	if s.moved != "" {
		return &base.Response{StatusCode: base.StatusFound, Header: base.Header{"Location": base.HeaderValue{s.moved}}}, nil, nil
	}
	return &base.Response{StatusCode: base.StatusOK}, s.stream, nil
}

func (s *station) OnSetup(*gortsplib.ServerHandlerOnSetupCtx) (*base.Response, *gortsplib.ServerStream, error) {
	<-s.ready
	return &base.Response{StatusCode: base.StatusOK}, s.stream, nil
}

func (s *station) OnPlay(*gortsplib.ServerHandlerOnPlayCtx) (*base.Response, error) {
	return &base.Response{StatusCode: base.StatusOK}, nil
}

// newStation starts one at an address, with a stream of a form.
func newStation(t *testing.T, address string, form format.Format) (s *station, media *description.Media) {
	t.Helper()
	s = &station{ready: make(chan struct{})}
	defer close(s.ready)
	s.server = &gortsplib.Server{Handler: s, RTSPAddress: address}
	if err := s.server.Start(); err != nil {
		t.Fatal(err)
	}
	media = &description.Media{Type: description.MediaTypeVideo, Formats: []format.Format{form}}
	s.stream = &gortsplib.ServerStream{Server: s.server, Desc: &description.Session{Medias: []*description.Media{media}}}
	if err := s.stream.Initialize(); err != nil {
		t.Fatal(err)
	}
	return s, media
}

func (s *station) close() {
	s.stream.Close()
	s.server.Close()
}

// play sends a picture again and again until it is told to stop.
func (s *station) play(t *testing.T, media *description.Media, data []byte) (stop func()) {
	t.Helper()
	encoder, err := media.Formats[0].(*format.MJPEG).CreateEncoder()
	if err != nil {
		t.Fatal(err)
	}
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for at := uint32(0); ; at += 900 {
			packets, err := encoder.Encode(data)
			if err != nil {
				t.Error(err)
				return
			}
			for _, p := range packets {
				p.Timestamp = at
				s.stream.WritePacketRTP(media, p)
			}
			select {
			case <-over:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() { close(over); <-ended }
}

// decoded are the pixels of a JPEG file.
func decoded(t *testing.T, data []byte) []byte {
	t.Helper()
	img, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	y := img.(*image.YCbCr)
	return slices.Concat(y.Y, y.Cb, y.Cr)
}

// TestRTSP: M-JPEG arrives with the pixels that were sent, and goes on after the camera was away.
func TestRTSP(t *testing.T) {
	want := picture(t, 1)
	s, media := newStation(t, "127.0.0.1:0", &format.MJPEG{})
	address := s.server.NetListener().Addr().String()
	stop := s.play(t, media, want)
	c, l := opened(t, "rtsp://user:secret@"+address+"/line", Options{})
	for range 2 {
		if got := next(t, c); !slices.Equal(decoded(t, got.Data), decoded(t, want)) {
			t.Errorf("got other pixels than were sent")
		}
	}
	stop()
	s.close()
	testmain.Wait(t, "failure", func() bool { return l.text() != "" })
	s, media = newStation(t, address, &format.MJPEG{})
	defer s.close()
	defer s.play(t, media, want)()
	next(t, c)
	if !strings.Contains(l.text(), "works again") || strings.Contains(l.text(), "secret") {
		t.Errorf("got %q, want that it works again", l.text())
	}
}

// TestRTSPOther: a camera that sends something else is told what is wanted, one that sends nothing is given up.
func TestRTSPOther(t *testing.T) {
	for _, c := range []struct {
		form format.Format
		want string
	}{
		{&format.H264{PayloadTyp: 96, PacketizationMode: 1}, `it sends "H264", and this program reads M-JPEG alone`}, {&format.MJPEG{}, "no whole frame"},
	} {
		s, _ := newStation(t, "127.0.0.1:0", c.form)
		cam, l := opened(t, "rtsp://"+s.server.NetListener().Addr().String()+"/line", Options{Silence: 300 * time.Millisecond})
		testmain.Wait(t, c.want, func() bool { return strings.Contains(l.text(), c.want) })
		cam.Close()
		s.close()
	}
}

// TestRTSPRedirect: where a camera redirects to is not asked, and hears neither user nor password.
func TestRTSPRedirect(t *testing.T) {
	other, _ := newStation(t, "127.0.0.1:0", &format.MJPEG{})
	defer other.close()
	s := &station{ready: make(chan struct{}), moved: "rtsp://" + other.server.NetListener().Addr().String() + "/line"}
	close(s.ready)
	s.server = &gortsplib.Server{Handler: s, RTSPAddress: "127.0.0.1:0"}
	if err := s.server.Start(); err != nil {
		t.Fatal(err)
	}
	defer s.server.Close()
	_, l := opened(t, "rtsp://user:secret@"+s.server.NetListener().Addr().String()+"/line", Options{Silence: 300 * time.Millisecond})
	testmain.Wait(t, "second attempt", func() bool { return s.asked.Load() >= 2 })
	if n := other.asked.Load(); n > 0 || !strings.Contains(l.text(), "it redirects to "+other.server.NetListener().Addr().String()) || strings.Contains(l.text(), "secret") {
		t.Errorf("got %q, and that the other one was asked %d times, want that it redirects", l.text(), n)
	}
}

// TestAssembly: packets that never end a frame are given up, whatever they are, and one that cannot be read does no harm.
func TestAssembly(t *testing.T) {
	begin := []byte{0, 0, 0, 0, 1, 50, 8, 6, 'x'} // of an image of 64 x 48, and a byte of it
	for _, c := range []struct {
		name    string
		payload func(i int) []byte
	}{
		{"fragments of a byte", func(i int) []byte {
			return append([]byte{0, byte(i >> 16), byte(i >> 8), byte(i), 1, 50, 8, 6}, 'x')
		}},
		{"empty fragments", func(i int) []byte { return []byte{0, 0, 0, 1, 1, 50, 8, 6} }},
	} {
		a := assembly{decoder: &rtpmjpeg.Decoder{}, most: 100_000}
		if _, err := a.add(&rtp.Packet{Payload: begin}); err != nil {
			t.Fatal(err)
		}
		var err error
		packets := 1
		for ; err == nil && packets < 1_000_000; packets++ {
			_, err = a.add(&rtp.Packet{Payload: c.payload(packets)})
		}
		if err == nil || !strings.Contains(err.Error(), "larger than 100000 bytes") || packets > 1000 {
			t.Errorf("%s: got %v after %d packets, want that it is too large", c.name, err, packets)
		}
	}
}

// FuzzAssembly: whatever packets come, no frame is larger than they are, but for the tables that its file needs.
func FuzzAssembly(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 50, 8, 6, 'x', 'y'}, []byte{0, 0, 0, 2, 1, 50, 8, 6, 'z'})
	f.Add([]byte{0, 0, 0, 0, 1, 255, 8, 6, 0, 0, 0, 128}, []byte{})
	f.Fuzz(func(t *testing.T, first, last []byte) {
		a := assembly{decoder: &rtpmjpeg.Decoder{}, most: 1 << 20}
		for _, p := range []*rtp.Packet{{Payload: first}, {Header: rtp.Header{Marker: true}, Payload: last}, {Header: rtp.Header{Marker: true}, Payload: first}} {
			frame, err := a.add(p)
			if tables := 1 << 10; len(frame.Data) > len(first)+len(last)+tables || err != nil && frame.Data != nil {
				t.Errorf("got %d bytes, %v", len(frame.Data), err)
			}
		}
	})
}
