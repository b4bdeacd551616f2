package server

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// texts are JSON, and what nearly is.
var texts = []string{`{}`, `[]`, `""`, `0`, `-0.5e+10`, `null`, `true`, `false`, ` [ 1 , {"a" : [ ] , "b":"c\u00e4\/"} ] `, `{"a":{"b":{"c":[[[]]]}}}`,
	``, ` `, `nul`, `nulll`, `01`, `1.`, `.5`, `+1`, `1e`, `--1`, `[1,]`, `[,1]`, `[1 2]`, `[1`, `]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `{"a":1 "b":2}`,
	`"`, `"\`, `"\x"`, "\"\n\"", `"\u12"`, `[1}`, `{"a":1]`, `1 2`, `{} {}`, `"a"b`, "\x00", `[1,]2`, `12345678901234567890`, `1234.5`, `00`, `-`}

// skip takes what encoding/json takes, as long as it is not deeper.
func TestSkip(t *testing.T) {
	for _, text := range texts {
		checkSkip(t, []byte(text))
	}
	for depth, want := range map[int]bool{maxDepth: true, maxDepth + 1: false, 1_000_000: false} {
		for _, pair := range []string{"[]", "{}"} {
			text := strings.Repeat(pair[:1]+map[string]string{"[]": "", "{}": `"a":`}[pair], depth-1) + pair + strings.Repeat(pair[1:], depth-1)
			s := scanner{text: []byte(text)}
			if _, err := s.skip(); (err == nil) != want {
				t.Errorf("%d deep in %s: got %v, want it taken: %v", depth, pair, err, want)
			}
		}
	}
}

func checkSkip(t *testing.T, text []byte) {
	t.Helper()
	s := scanner{text: text}
	written, err := s.skip()
	if err == nil {
		err = s.end()
	}
	if got, want := err == nil, json.Valid(text); got != want {
		t.Fatalf("%.200q: got %v, json says valid: %v", text, err, want)
	}
	if err == nil && !bytes.Equal(written, bytes.Trim(text, " \t\r\n")) {
		t.Fatalf("%.200q: got the value %.200q", text, written)
	}
}

func FuzzSkip(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) < maxDepth { // so it is not deeper
			checkSkip(t, text)
		}
	})
}
