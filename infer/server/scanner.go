package server

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// scanner reads JSON once, from its start to its end, and makes nothing of what nobody asks for: a body of a few bytes for
// each value would otherwise become many times its size. Its errors tell what is wrong and where.
type scanner struct {
	text  []byte
	at    int
	depth int
}

// newScanner reads text, but for a byte order mark, which editors put at the start of a file that is then sent.
func newScanner(text []byte) *scanner {
	return &scanner{text: bytes.TrimPrefix(text, []byte("\ufeff"))}
}

// maxDepth is how many objects and arrays may lie within each other.
const maxDepth = 64

func (s *scanner) fail(what string) error { return fmt.Errorf("%s at byte %d", what, s.at) }

// peek returns the next byte that is no space, 0 at the end.
func (s *scanner) peek() byte {
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// end wants nothing to be left.
func (s *scanner) end() error {
	if s.peek() != 0 || s.at < len(s.text) {
		return s.fail("more than one value")
	}
	return nil
}

// list reads what stands between open and close, by commas, an element at a time.
func (s *scanner) list(open, close byte, what string, element func() error) error {
	if s.peek() != open {
		return s.fail("no " + what)
	}
	if s.depth++; s.depth > maxDepth {
		return s.fail("too deep")
	}
	defer func() { s.depth-- }()
	s.at++
	if s.peek() == close {
		s.at++
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		switch c := s.peek(); c {
		case ',':
			s.at++
		case close:
			s.at++
			return nil
		default:
			return s.fail("an unfinished " + what)
		}
	}
}

// array calls element at the beginning of each of an array's elements, which it has to read.
func (s *scanner) array(element func() error) error { return s.list('[', ']', "array", element) }

// object calls value with each key of an object, as it is written, at the beginning of its value, which it has to read.
func (s *scanner) object(value func(key []byte) error) error {
	return s.list('{', '}', "object", func() error {
		key, err := s.key()
		if err != nil {
			return err
		}
		return value(key)
	})
}

// quoted reads a string and returns it as it is written, with its quotes.
func (s *scanner) quoted() ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.fail("no string")
	}
	start, escaped := s.at, false
	for i := start + 1; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '\\':
			escaped = true
			i++
		case c == '"':
			written := s.text[start : i+1]
			if escaped && !json.Valid(written) {
				return nil, s.fail("a wrong escape in a string")
			}
			s.at = i + 1
			return written, nil
		case c < ' ':
			s.at = i
			return nil, s.fail("a control character in a string")
		}
	}
	return nil, s.fail("an unfinished string")
}

// word reads a string of at most longest bytes as it is written.
func (s *scanner) word(longest int) (word string, err error) {
	written, err := s.quoted()
	if err != nil {
		return "", err
	}
	if len(written)-2 > longest {
		return "", s.fail(fmt.Sprintf("a string of more than %d bytes", longest))
	}
	return unquote(written), nil
}

// unquote is the text of a string that quoted has read.
func unquote(written []byte) (text string) {
	if json.Unmarshal(written, &text) != nil {
		return "" // it is valid
	}
	return text
}

// number reads a number and returns it as it is written.
func (s *scanner) number() ([]byte, error) {
	s.peek()
	start := s.at
	for s.at < len(s.text) {
		c := s.text[s.at]
		if (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E' {
			break
		}
		s.at++
	}
	written := s.text[start:s.at]
	if !isNumber(written) {
		s.at = start
		return nil, s.fail("no number")
	}
	return written, nil
}

// isNumber also takes short whole numbers, of which bodies are full, without json's help.
func isNumber(written []byte) bool {
	if n := len(written); n > 0 && n < 4 && (written[0] != '0' || n == 1) {
		for _, c := range written {
			if c < '0' || c > '9' {
				return json.Valid(written)
			}
		}
		return true
	}
	return json.Valid(written)
}

// literal reads word, such as null, where it stands next.
func (s *scanner) literal(word string) bool {
	s.peek()
	if len(s.text)-s.at < len(word) || string(s.text[s.at:s.at+len(word)]) != word {
		return false
	}
	s.at += len(word)
	return true
}

// key reads an object's key and the colon after it, and returns the key as it is written.
func (s *scanner) key() ([]byte, error) {
	key, err := s.quoted()
	if err == nil && s.peek() != ':' {
		err = s.fail("a key without a value")
	}
	s.at++
	return key, err
}

// skip reads any value and returns it as it is written. It takes no memory, however many values lie in it.
func (s *scanner) skip() ([]byte, error) {
	s.peek()
	start := s.at
	var closing [maxDepth]byte // of the objects and arrays that are open
	for deep := 0; ; {
		switch c := s.peek(); {
		case c == '{' || c == '[':
			if s.depth+deep == maxDepth {
				return nil, s.fail("too deep")
			}
			s.at++
			closing[deep] = c + 2 // in ASCII
			if s.peek() == closing[deep] {
				s.at++
				break
			}
			deep++
			if c == '{' {
				if _, err := s.key(); err != nil {
					return nil, err
				}
			}
			continue
		case c == '"':
			if _, err := s.quoted(); err != nil {
				return nil, err
			}
		case s.literal("null"), s.literal("true"), s.literal("false"):
		default:
			if _, err := s.number(); err != nil {
				return nil, err
			}
		}
		for ; deep > 0 && s.peek() == closing[deep-1]; deep-- {
			s.at++
		}
		if deep == 0 {
			return s.text[start:s.at], nil
		}
		if s.peek() != ',' {
			return nil, s.fail("an unfinished object or array")
		}
		s.at++
		if closing[deep-1] == '}' {
			if _, err := s.key(); err != nil {
				return nil, err
			}
		}
	}
}
