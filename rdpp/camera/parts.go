package camera

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// parts reads the pictures of a body of multipart/x-mixed-replace, as cameras write it. mime/multipart would refuse some: the
// boundary that is declared may have the two dashes which stand before it in the body.
type parts struct {
	from      *bufio.Reader
	delimiter []byte // that begins the line between two parts
	most      int64  // bytes of a part
	at        bool   // the line of a delimiter has been read
}

// What is between and before pictures is small.
const (
	longestLine  = 4 << 10 // bytes of a header
	mostHeaders  = 64
	mostBetween  = 64 << 10 // bytes between a part that says its length and the next delimiter
	growingParts = 64 << 10 // bytes of a part that are taken before they are there
)

func newParts(body io.Reader, boundary string, most int64) *parts {
	return &parts{from: bufio.NewReaderSize(body, 64<<10), delimiter: []byte("--" + strings.TrimPrefix(boundary, "--")), most: most}
}

// next reads the next picture. The error after the last one is io.EOF.
func (p *parts) next() (Frame, error) {
	for empty := 0; empty < mostHeaders; empty++ { // parts that are no pictures
		if err := p.begin(); err != nil {
			return Frame{}, err
		}
		if _, err := p.from.Peek(1); err != nil {
			return Frame{}, unexpected(err)
		}
		f := Frame{Begun: time.Now()}
		length, picture, err := p.header()
		if err != nil {
			return Frame{}, err
		}
		if f.Data, err = p.body(length); err != nil {
			return Frame{}, err
		}
		if picture && len(f.Data) > 0 {
			return f, nil
		}
	}
	return Frame{}, errors.New("it sends parts without pictures")
}

// begin reads up to the end of the line of a delimiter.
func (p *parts) begin() error {
	for read := 0; !p.at; {
		line, err := p.line()
		if err != nil {
			return err
		}
		if err := p.delimits(line); err != nil {
			return err
		}
		if read += len(line) + 1; !p.at && read > mostBetween {
			return fmt.Errorf("there is no boundary within %d bytes", mostBetween)
		}
	}
	p.at = false
	return nil
}

// delimits notes whether a line is a delimiter. The last one is io.EOF.
func (p *parts) delimits(line []byte) error {
	rest, found := bytes.CutPrefix(bytes.TrimRight(line, " \t\r\n"), p.delimiter)
	if found && string(rest) == "--" {
		return io.EOF
	}
	p.at = found && len(rest) == 0
	return nil
}

// line reads a line, of which the end is cut off.
func (p *parts) line() ([]byte, error) {
	line, err := p.from.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return line, nil // a part of one, which is no delimiter
	case err == io.EOF && len(line) > 0:
		return bytes.TrimRight(line, "\r\n"), nil
	case err != nil:
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// header reads that of a part: its length, -1 where it does not say, and whether it may be a picture.
func (p *parts) header() (length int64, picture bool, err error) {
	length, picture = -1, true
	for range mostHeaders {
		line, err := p.line()
		switch {
		case err != nil:
			return 0, false, unexpected(err)
		case len(line) == 0:
			return length, picture, nil
		case len(line) > longestLine:
			return 0, false, fmt.Errorf("a line of a part's header has more than %d bytes", longestLine)
		}
		name, value, _ := strings.Cut(string(line), ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "content-length":
			if length, err = strconv.ParseInt(value, 10, 64); err != nil || length < 0 {
				return 0, false, fmt.Errorf("a part has the length %.40q", value)
			}
			if length > p.most {
				return 0, false, tooLarge(p.most)
			}
		case "content-type":
			kind := strings.ToLower(value)
			picture = strings.HasPrefix(kind, "image/") || strings.HasPrefix(kind, "application/octet-stream")
		}
	}
	return 0, false, fmt.Errorf("a part's header has more than %d lines", mostHeaders)
}

// body reads the content of a part, up to its length or to the next delimiter.
func (p *parts) body(length int64) ([]byte, error) {
	if length >= 0 {
		var b bytes.Buffer // which grows with what is there
		b.Grow(int(min(length, growingParts)))
		_, err := io.CopyN(&b, p.from, length)
		return b.Bytes(), unexpected(err)
	}
	var data []byte
	for start := true; ; {
		piece, err := p.from.ReadSlice('\n')
		whole := err == nil
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !(err == io.EOF && len(piece) > 0) {
			return nil, unexpected(err)
		}
		if start && bytes.HasPrefix(piece, p.delimiter) {
			end := p.delimits(piece)
			if p.at || end != nil {
				// The end of the line before belongs to the delimiter.
				data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
				if end != nil { // which the next call is to find
					p.from = bufio.NewReader(strings.NewReader(""))
				}
				return data, nil
			}
		}
		if int64(len(data)+len(piece)) > p.most {
			return nil, tooLarge(p.most)
		}
		data, start = append(data, piece...), whole
	}
}

// unexpected is the error of an end that comes too early.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
