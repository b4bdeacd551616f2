package server

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"sync"

	"rdpp/rdpp/imagefile"
)

// budget bounds how many bytes are held at once: of bodies, and of what becomes of them until they are answered.
type budget struct {
	limit int64

	mu   sync.Mutex
	used int64
}

// take adds n bytes, negative to give some back, or says that there is no room for them.
func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > 0 && b.used+n > b.limit {
		return false
	}
	b.used += n
	return true
}

// hold counts n more bytes that a request holds, until it has been answered.
func (s *Server) hold(x *exchange, n int64) error {
	if x.held+n > s.memory.limit {
		return failf(http.StatusRequestEntityTooLarge, "the request's images and their answer take %d bytes, of at most %d; send fewer at once", x.held+n,
			s.memory.limit)
	}
	if !s.memory.take(n) {
		return busy(0, "%w", errMemory)
	}
	x.held += n
	return nil
}

// body reads a request's body and keeps account of what is held of it.
type body struct {
	io.Reader // at most Options.MaxBody bytes
	budget    *budget
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
	return &body{Reader: http.MaxBytesReader(x, r.Body, s.opt.MaxBody), budget: &s.memory}, nil
}

var errMemory = errors.New("too many large requests at once; try again later")

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if !b.budget.take(int64(n)) {
		return 0, busy(0, "%w", errMemory)
	}
	b.held += int64(n)
	return n, err
}

// release tells that nothing of the body is held any more. It is idempotent.
func (b *body) release() {
	b.budget.take(-b.held)
	b.held = 0
}

// readAll reads what is left of a body, or of a part of it. Its length is only expected.
func readAll(from io.Reader, expected int64) ([]byte, error) {
	const step = 1 << 20 // a length that is only claimed costs no more
	var buf bytes.Buffer
	buf.Grow(int(min(max(expected, 0), step)) + bytes.MinRead)
	if _, err := buf.ReadFrom(from); err != nil {
		return nil, unread(err)
	}
	return buf.Bytes(), nil
}

// unread says of an error of reading a body that it is the client's, if nothing more is known about it.
func unread(err error) error {
	if errors.As(err, new(*failure)) || errors.As(err, new(*http.MaxBytesError)) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return failf(http.StatusBadRequest, "the body cannot be read: %w; send it whole", err)
}

// picture is an image of a request: a file's bytes, or pixels.
type picture struct {
	name    string // as the client calls it, may be ""
	encoded []byte
	pixels  *imagefile.Image // instead of encoded
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
		pictures, err = s.readForm(multipart.NewReader(b, parameters["boundary"]))
		return pictures, true, err
	case kind == "", kind == "application/octet-stream", kind == "application/x-www-form-urlencoded", strings.HasPrefix(kind, "image/"):
		// The third is what curl --data-binary says of every file.
		data, err := readAll(b, r.ContentLength)
		if err == nil && len(data) == 0 {
			err = failf(http.StatusBadRequest, "the body is empty; send an image file")
		}
		return []picture{{name: r.URL.Query().Get("name"), encoded: data}}, false, err
	}
	return nil, false, failf(http.StatusUnsupportedMediaType, "Content-Type %.80q is no image; use image/png or the like, or multipart/form-data", kind)
}

func (s *Server) readForm(form *multipart.Reader) (pictures []picture, err error) {
	for {
		part, err := form.NextPart()
		switch {
		case err == io.EOF && len(pictures) == 0:
			return nil, failf(http.StatusBadRequest, "the form holds no file; add one, such as by curl -F image=@part.png")
		case err == io.EOF:
			return pictures, nil
		case err != nil:
			return nil, unread(err)
		case part.FileName() == "":
			return nil, failf(http.StatusBadRequest, "the form's field %.80q is no file; options such as threshold go into the address", part.FormName())
		case len(pictures) == s.opt.MaxQueue:
			return nil, failf(http.StatusRequestEntityTooLarge, "more than %d images in one request; send fewer, or raise --max-queue", s.opt.MaxQueue)
		}
		data, err := readAll(part, 0)
		if err != nil {
			return nil, err
		}
		pictures = append(pictures, picture{name: part.FileName(), encoded: data})
	}
}
