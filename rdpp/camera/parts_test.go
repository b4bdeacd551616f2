package camera

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/textproto"
	"slices"
	"strings"
	"testing"
)

// endless is what comes without an end: a beginning, then a text again and again.
type endless struct {
	begin, again string
	read         int64 // bytes so far
}

func (e *endless) Read(b []byte) (n int, err error) {
	n = copy(b, e.begin)
	e.begin = e.begin[n:]
	for n < len(b) && e.begin == "" {
		e.begin = e.again
		m := copy(b[n:], e.begin)
		e.begin, n = e.begin[m:], n+m
	}
	e.read += int64(n)
	return n, nil
}

// readAll reads all pictures of a body, of at most 1,000 bytes each.
func readAll(body io.Reader, boundary string) (pictures []string, err error) {
	p := newParts(body, boundary, 1000)
	for {
		f, err := p.next()
		if err != nil {
			return pictures, err
		}
		pictures = append(pictures, string(f.Data))
	}
}

func TestParts(t *testing.T) {
	const b = "--b\r\n"
	long := strings.Repeat("x\n", 600)
	for _, c := range []struct {
		name, body, boundary string
		want                 []string
		err                  string
	}{
		{"lengths", b + "Content-Type: image/jpeg\r\nContent-Length: 3\r\n\r\n\xff\n1\r\n" + b + "content-length:2\r\n\r\n\xff2\r\n--b--\r\n", "b", []string{"\xff\n1", "\xff2"}, "EOF"},
		{"no lengths", b + "Content-Type: image/jpeg\r\n\r\n\xff\n--bu\r\n\r\n\r\n" + b + "\r\n\xff2\r\n--b--", "b", []string{"\xff\n--bu\r\n\r\n", "\xff2"}, "EOF"},
		{"dashes declared", b + "\r\n1\r\n" + b + "\r\n2\r\n--b--", "--b", []string{"1", "2"}, "EOF"},
		{"line feeds", "--b\n\n1\n--b \n\n2\n--b--\n", "b", []string{"1", "2"}, "EOF"},
		{"a preamble", "hello\r\n\r\n" + b + "\r\n1\r\n--b--", "b", []string{"1"}, "EOF"},
		{"other parts", b + "Content-Type: text/plain\r\n\r\nno\r\n" + b + "Content-Length: 0\r\n\r\n\r\n" + b + "\r\n1\r\n--b--", "b", []string{"1"}, "EOF"},
		{"a wrong length", b + "Content-Length: 2\r\n\r\n1234\r\n" + b + "\r\n2\r\n--b--", "b", []string{"12", "2"}, "EOF"},
		{"cut in a part", b + "Content-Length: 9\r\n\r\n1234", "b", nil, "unexpected EOF"},
		{"cut in a part without a length", b + "\r\n1234", "b", nil, "unexpected EOF"},
		{"cut in a header", b + "Content-", "b", nil, "unexpected EOF"},
		{"nothing", "", "b", nil, "EOF"},
		{"another boundary", "--c\r\n\r\n1\r\n--c--", "b", nil, "EOF"},
		{"too large", b + "\r\n" + long + "\r\n--b--", "b", nil, "larger than 1000 bytes"},
		{"too large by its word", b + "Content-Length: 1001\r\n\r\n", "b", nil, "larger than 1000 bytes"},
		{"a length below 0", b + "Content-Length: -1\r\n\r\n", "b", nil, `the length "-1"`},
		{"a long header", b + "X: " + strings.Repeat("x", 5000) + "\r\n\r\n1\r\n--b--", "b", nil, "more than 4096 bytes"},
	} {
		got, err := readAll(strings.NewReader(c.body), c.boundary)
		if !slices.Equal(got, c.want) || err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %q, %v, want %q, %s", c.name, got, err, c.want, c.err)
		}
	}
}

// TestEndlessParts: what never ends is given up, after as much as may be held.
func TestEndlessParts(t *testing.T) {
	for _, c := range []struct {
		name string
		body endless
		want string
	}{
		{"no boundary", endless{again: "some text\r\n"}, "no boundary within"},
		{"no line", endless{again: "x"}, "no boundary within"},
		{"a part", endless{begin: "--b\r\n\r\n", again: "x\n"}, "larger than 1000"},
		{"a part in a line", endless{begin: "--b\r\n\r\n", again: "x"}, "larger than 1000"},
		{"a header", endless{begin: "--b\r\n", again: "X: y\r\n"}, "more than 64 lines"},
		{"a line of a header", endless{begin: "--b\r\n", again: "X"}, "more than 4096 bytes"},
		{"parts without pictures", endless{again: "--b\r\nContent-Type: text/plain\r\n\r\nx\r\n"}, "without pictures"},
		{"empty parts", endless{again: "--b\r\n\r\n"}, "without pictures"},
	} {
		if got, err := readAll(&c.body, "b"); len(got) > 0 || err == nil || !strings.Contains(err.Error(), c.want) || c.body.read > 1<<20 {
			t.Errorf("%s: got %q, %v after %d bytes, want %s", c.name, got, err, c.body.read, c.want)
		}
	}
}

// FuzzParts: whatever a camera sends, its pictures are none too large, and not more than was sent; those that mime/multipart writes
// are read as they were.
func FuzzParts(f *testing.F) {
	f.Add([]byte("--b\r\nContent-Type: image/jpeg\r\nContent-Length: 3\r\n\r\n123\r\n--b--"), "b")
	f.Add([]byte("--b\r\n\r\n1\n\r\n--b\r\n\r\n2\r\n--b--\r\n"), "--b")
	f.Add([]byte("--b\nContent-Length: 99999999999999999999\n\n"), "b")
	f.Add([]byte("\xff\xd8\n--b\r\n"), "b")
	f.Fuzz(func(t *testing.T, data []byte, boundary string) {
		got, err := readAll(bytes.NewReader(data), boundary)
		total := 0
		for _, picture := range got {
			if total += len(picture); len(picture) == 0 || len(picture) > 1000 {
				t.Errorf("got a picture of %d bytes", len(picture))
			}
		}
		if err == nil || total > len(data) {
			t.Errorf("got %d bytes of %d, %v", total, len(data), err)
		}
		if len(data) == 0 || len(data) > 1000 || bytes.Contains(data, []byte("--frame")) {
			return
		}
		for _, header := range []textproto.MIMEHeader{{"Content-Type": {"image/jpeg"}}, {"Content-Length": {fmt.Sprint(len(data))}}} {
			var body bytes.Buffer
			w := multipart.NewWriter(&body)
			if err := w.SetBoundary("frame"); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				part, err := w.CreatePart(header)
				if err == nil {
					_, err = part.Write(data)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			w.Close()
			if got, err := readAll(&body, "frame"); err != io.EOF || !slices.Equal(got, []string{string(data), string(data)}) {
				t.Errorf("%v: got %q, %v, want %q twice", header, got, err, data)
			}
		}
	})
}
