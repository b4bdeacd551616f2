package server

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
)

const minToken = 16 // characters

// ReadTokens reads a file of tokens, one a line. Empty lines are left out; a file without a token and tokens of less than
// 16 characters are refused.
func ReadTokens(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("server: tokens: %w; name a file with a token a line", err)
	}
	var tokens []string
	for line := range bytes.Lines(data) {
		token := string(bytes.TrimSpace(line))
		switch {
		case token == "":
		case len(token) < minToken:
			return nil, fmt.Errorf("server: %s: a token of %d characters is guessed easily; use %d or more, such as `openssl rand -hex 32` prints",
				path, len(token), minToken)
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
// send it as Basic.
func (s *Server) token(h handler) handler {
	return func(x *exchange, r *http.Request) error {
		if len(s.tokens) > 0 && !s.known(presented(r)) {
			x.Header().Set("WWW-Authenticate", `Basic realm="rdpp: any user, the token as password", charset="UTF-8"`)
			x.Header().Add("WWW-Authenticate", `Bearer realm="rdpp"`)
			return &failure{status: http.StatusUnauthorized, err: errToken}
		}
		return h(x, r)
	}
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
