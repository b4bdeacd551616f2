package server

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"rdpp/rdpp/printable"
	"rdpp/rdpp/textfile"
)

const minToken = 16 // characters

// ReadTokens reads a file of tokens, one a line, as [textfile.Read] does. Empty lines are left out; a file without a token
// and tokens of less than 16 characters are refused, as are those that no header can carry, and those with characters that
// do not show, such as the byte order mark of a second file that was put behind the first, and what looks like a comment or
// like a token in quotes: nobody would send these.
func ReadTokens(path string) ([]string, error) {
	data, err := textfile.Read(path)
	if err != nil {
		return nil, fmt.Errorf("server: the tokens, one a line: %w", err)
	}
	var tokens []string
	for line := range bytes.Lines(data) {
		token := string(bytes.TrimSpace(line))
		switch {
		case token == "":
		case len(token) < minToken:
			return nil, fmt.Errorf("server: %s: a token of %d characters is guessed easily; use %d or more, such as `openssl rand -hex 32` prints",
				path, len(token), minToken)
		case strings.ContainsRune(token, utf8.RuneError) || printable.Text(token) != token:
			return nil, fmt.Errorf("server: %s: a token has characters that cannot be seen, which nobody would type, or is not in UTF-8; use letters and digits", path)
		case token[0] == '#' || strings.ContainsRune("\"'`", rune(token[0])) && token[len(token)-1] == token[0]:
			return nil, fmt.Errorf("server: %s: a line that begins with # or is in quotes would be a token as it is; leave out comments and quotes", path)
		default:
			tokens = append(tokens, token)
		}
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("server: %s: no token in it; put one there, such as `openssl rand -hex 32` prints", path)
	}
	return tokens, nil
}

func digests(tokens []string) (sums [][32]byte) {
	for _, token := range tokens {
		sums = append(sums, sha256.Sum256([]byte(token)))
	}
	return sums
}

var errToken = errors.New("this needs a token: send \"Authorization: Bearer TOKEN\", or as Basic with the token as password")

// token lets a request through to h that has one of the tokens, where any are asked for. Browsers ask for a password and
// send it as Basic. The answer to a wrong one takes its time, after some from the same address; a right one never waits.
func (s *Server) token(h handler) handler {
	return func(x *exchange, r *http.Request) error {
		token := presented(r)
		if len(s.tokens) == 0 || s.known(token) {
			return h(x, r)
		}
		if token != "" {
			wait, ok := s.guesses.wrong(r.RemoteAddr, time.Now())
			if !ok {
				return &failure{http.StatusTooManyRequests, errGuesses, wait}
			}
			select {
			case <-time.After(wait):
			case <-r.Context().Done():
				return r.Context().Err()
			}
		}
		x.Header().Set("WWW-Authenticate", `Basic realm="rdpp: any user, the token as password", charset="UTF-8"`)
		x.Header().Add("WWW-Authenticate", `Bearer realm="rdpp"`)
		return &failure{status: http.StatusUnauthorized, err: errToken}
	}
}

var errGuesses = errors.New("too many wrong tokens from this address; try again later")

// guesses tells how long the answer to a wrong token is to take: of those from an address the first few none, then one a
// second is answered, in the order of their arrival.
type guesses struct {
	mu  sync.Mutex
	due map[netip.Prefix]time.Time // when the latest answer to an address is due
}

const (
	freeGuesses = 5           // people mistype
	guessEvery  = time.Second // of what comes after those
	guessWait   = 10 * time.Second
	maxGuessers = 4096 // addresses to keep apart; those beyond are taken for one
)

// wrong counts a wrong token from an address. It returns after what time to answer, or, if ok is false, after what time the
// next may be sent, as too many wait.
func (g *guesses) wrong(from string, now time.Time) (wait time.Duration, ok bool) {
	address := place(from)
	g.mu.Lock()
	defer g.mu.Unlock()
	early := now.Add(-freeGuesses * guessEvery)
	if _, known := g.due[address]; !known && len(g.due) >= maxGuessers {
		maps.DeleteFunc(g.due, func(_ netip.Prefix, due time.Time) bool { return due.Before(early) })
		if len(g.due) >= maxGuessers {
			address = netip.Prefix{}
		}
	}
	due := g.due[address]
	if due.Before(early) {
		due = early
	}
	due = due.Add(guessEvery)
	if wait = due.Sub(now); wait > guessWait {
		return wait, false
	}
	if g.due == nil {
		g.due = map[netip.Prefix]time.Time{}
	}
	g.due[address] = due
	return max(wait, 0), true
}

// place is what an address counts as: itself, or the network of IPv6 that its owner has to himself.
func place(remote string) netip.Prefix {
	port, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	address, bits := port.Addr().Unmap().WithZone(""), 32
	if address.Is6() {
		bits = 64
	}
	prefix, err := address.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// presented is the token that a request comes with, "" for none.
func presented(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// known takes the same time whatever the token and wherever it is in the list.
func (s *Server) known(token string) bool {
	sum, found := sha256.Sum256([]byte(token)), 0
	for i := range s.tokens {
		found |= subtle.ConstantTimeCompare(sum[:], s.tokens[i][:])
	}
	return found == 1
}
