package camera

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

// Triggers are lines each of which wants a frame. They are read as they come, so that each has its time, whatever the camera does.
type Triggers struct {
	lines chan trigger
	err   error        // once lines is closed: why there are no more
	lost  atomic.Int64 // lines that came while as many as may wait did
}

// trigger is a line that has come.
type trigger struct {
	at    time.Time
	label string
}

// ReadTriggers begins to read lines, until there are no more. Up to DefaultMost of them wait.
func ReadTriggers(from io.Reader) *Triggers {
	t := &Triggers{lines: make(chan trigger, DefaultMost)}
	go t.read(bufio.NewReaderSize(from, longestLine))
	return t
}

func (t *Triggers) read(from *bufio.Reader) {
	defer close(t.lines)
	for {
		line, err := from.ReadSlice('\n')
		if len(line) > 0 {
			select {
			case t.lines <- trigger{time.Now(), label(line)}:
			default:
				t.lost.Add(1)
			}
		}
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a long one
			_, err = from.ReadSlice('\n')
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			t.err = fmt.Errorf("camera: the triggers cannot be read: %w", err)
			return
		}
	}
}

// label is what of a trigger's line becomes part of a file's name.
func label(line []byte) string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-+", r) {
			return r
		}
		return '_'
	}, strings.ToValidUTF8(string(bytes.TrimSpace(line)), "_"))
	const longest = 100
	for i := range text {
		if i > longest {
			return text[:i]
		}
	}
	return text
}
