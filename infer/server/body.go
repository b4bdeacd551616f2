package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"strings"

	"rdpp/rdpp/imagefile"
)

// body reads a request's body and keeps account of what is held of it.
type body struct {
	io.Reader // at most most bytes
	most      int64
	server    *Server
	exchange  *exchange
	held      int64
}

// body is a request's, which must not be compressed: what it unpacks to would be no subject to the limits.
func (s *Server) body(x *exchange, r *http.Request) (*body, error) {
	for _, coding := range r.Header.Values("Content-Encoding") {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			x.Header().Set("Accept-Encoding", "identity")
			return nil, failf(http.StatusUnsupportedMediaType, "Content-Encoding %.40q is not understood; send the body as it is", coding)
		}
	}
	return &body{Reader: http.MaxBytesReader(x, r.Body, s.opt.MaxBody), most: s.opt.MaxBody, server: s, exchange: x}, nil
}

// hold counts n more bytes.
func (b *body) hold(n int64) error {
	if err := b.server.hold(b.exchange, n); err != nil {
		return err
	}
	b.held += n
	return nil
}

// drop counts n bytes less.
func (b *body) drop(n int64) {
	b.server.drop(b.exchange, n)
	b.held -= n
}

// release tells that nothing of the body is held any more. It is idempotent.
func (b *body) release() { b.drop(b.held) }

// readAll reads what is left of a body, or of a part of it. expected is how much that will be, -1 if nobody says; memory
// grows with what arrives, and is counted before it does.
func (b *body) readAll(from io.Reader, expected int64) ([]byte, error) {
	var data []byte
	for {
		if len(data) == cap(data) {
			size := max(4<<10, 2*int64(cap(data)))
			if end := expected + 1; end > int64(cap(data)) { // one more than there is finds the end without growing again
				size = min(size, end)
			}
			size = min(size, b.most+1)
			if err := b.hold(size); err != nil {
				return nil, err
			}
			grown := make([]byte, len(data), size)
			copy(grown, data)
			b.drop(int64(cap(data)))
			data = grown
		}
		n, err := from.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if err == io.EOF {
			return data, nil
		}
		if err != nil {
			return nil, unread(err)
		}
	}
}

// parse takes apart n bytes of the body that have been read. What comes of them is counted like them, and is at most as long.
func (b *body) parse(ctx context.Context, n int64, work func() error) error {
	leave, err := b.server.slot(ctx, n)
	if err != nil {
		return err
	}
	defer leave()
	if err := b.hold(n); err != nil {
		return err
	}
	return b.server.aside(n, work)
}

// maxShort is how many bytes a body may have that is one short object.
const maxShort = 4 << 10

// readShort reads such a body into v, which an empty one leaves as it is. use says what it may be.
func readShort(r *http.Request, v any, use string) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxShort+1))
	switch {
	case err != nil:
		return unread(err)
	case len(data) > maxShort:
		return failf(http.StatusRequestEntityTooLarge, "the body has more than %d bytes; use %s", maxShort, use)
	case len(bytes.TrimSpace(data)) == 0:
		return nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return refuse("the body: %w; use %s", err, use)
	}
	return nil
}

// unread says of an error of reading a body that it is the client's, if nothing more is known about it.
func unread(err error) error {
	if errors.As(err, new(*failure)) || errors.As(err, new(*http.MaxBytesError)) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return failf(http.StatusBadRequest, "the body cannot be read: %w; send it whole", err)
}

// unreadByServer is how much of a body net/http reads itself once there is an answer.
const unreadByServer = 256 << 10

// drain reads what is left of a body whose request has been answered, as much as a body may have: most clients send all of
// theirs before they read the answer, and would find the connection closed instead. Nothing of it is kept, and the client
// counts as silent while it sends nothing.
func (s *Server) drain(x *exchange, r *http.Request) {
	short := r.ContentLength >= 0 && r.ContentLength <= unreadByServer
	if short || r.Header.Get("Expect") != "" || s.draining.Load() { // with Expect, clients wait for leave to send
		return
	}
	if http.NewResponseController(x).Flush() != nil {
		return
	}
	x.connection.idle()
	_, _ = io.CopyN(io.Discard, r.Body, s.opt.MaxBody) // what fails is the client's connection
}

// picture is an image of a request: a file's bytes, or pixels.
type picture struct {
	name    string // as the client calls it, may be ""
	encoded []byte
	pixels  *imagefile.Image // instead of encoded
	sha256  string           // of encoded, hexadecimal, for the history; "": not known
	ignore  []byte           // the file of a mask of what is not scored; nil: none
	mask    []byte           // the same as the history has it; nil: none
}

// readPictures reads the images of a body: a form with a file for each, or the file itself.
func (s *Server) readPictures(b *body, r *http.Request) (pictures []picture, isForm bool, err error) {
	kind, parameters := "", map[string]string(nil)
	if header := r.Header.Get("Content-Type"); header != "" {
		if kind, parameters, err = mime.ParseMediaType(header); err != nil {
			return nil, false, failf(http.StatusUnsupportedMediaType, "Content-Type %.80q: %w; use image/png or the like, or multipart/form-data", header, err)
		}
	}
	switch {
	case kind == "multipart/form-data":
		if parameters["boundary"] == "" {
			return nil, true, failf(http.StatusBadRequest, "the Content-Type of a form must name its boundary")
		}
		pictures, err = s.readForm(b, parameters["boundary"])
		return pictures, true, err
	case kind == "", kind == "application/octet-stream", kind == "application/x-www-form-urlencoded", strings.HasPrefix(kind, "image/"):
		// The third is what curl --data-binary says of every file.
		data, err := b.readAll(b, r.ContentLength)
		if err == nil && len(data) == 0 {
			err = failf(http.StatusBadRequest, "the body is empty; send an image file")
		}
		return []picture{{name: r.URL.Query().Get("name"), encoded: data}}, false, err
	}
	return nil, false, failf(http.StatusUnsupportedMediaType, "Content-Type %.80q is no image; use image/png or the like, or multipart/form-data", kind)
}

// ignoreField is the form's field with the mask of what is not scored in all of its pictures.
const ignoreField = "ignore"

// Bytes of what a client calls a picture, and of what stands before a part's content in a form.
const (
	maxName       = 1024
	maxPartHeader = 16 << 10
)

// headReader lets so many bytes through until it is told otherwise: the form's reader keeps a part's header whole.
type headReader struct {
	io.Reader
	left int // bytes of a header; -1: a part's content is read
}

func (r *headReader) Read(p []byte) (int, error) {
	if r.left < 0 {
		return r.Reader.Read(p)
	}
	if r.left == 0 {
		return 0, failf(http.StatusBadRequest, "the header of one of the form's parts has more than %d bytes; send shorter names", maxPartHeader)
	}
	n, err := r.Reader.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

func (s *Server) readForm(b *body, boundary string) (pictures []picture, err error) {
	var ignore []byte
	head := &headReader{Reader: b}
	form := multipart.NewReader(head, boundary)
	for {
		head.left = maxPartHeader
		part, err := form.NextPart()
		switch {
		case err == io.EOF && len(pictures) == 0:
			return nil, failf(http.StatusBadRequest, "the form holds no file; add one, such as by curl -F image=@part.png")
		case err == io.EOF:
			for i := range pictures {
				pictures[i].ignore = ignore
			}
			return pictures, nil
		case err != nil:
			return nil, unread(err)
		case part.FileName() == "":
			return nil, failf(http.StatusBadRequest, "the form's field %.80q is no file; options such as threshold go into the address", part.FormName())
		case len(part.FileName()) > maxName:
			return nil, failf(http.StatusBadRequest, "the file's name %.80q has more than %d bytes; send a shorter one", part.FileName(), maxName)
		case len(pictures) == s.opt.MaxQueue && part.FormName() != ignoreField:
			return nil, failf(http.StatusRequestEntityTooLarge, "more than %d images in one request; send fewer, or raise --max-queue", s.opt.MaxQueue)
		}
		head.left = -1
		data, err := b.readAll(part, -1)
		switch {
		case err != nil:
			return nil, err
		case part.FormName() != ignoreField:
			pictures = append(pictures, picture{name: part.FileName(), encoded: data})
		case ignore != nil:
			return nil, failf(http.StatusBadRequest, "the form has two fields %q; one mask is for all of its images", ignoreField)
		default:
			ignore = data
		}
	}
}
