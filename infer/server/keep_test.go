package server

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"rdpp/rdpp/history"
)

// What is judged is recorded, although the client has left.
func TestHistoryOfOneWhoLeft(t *testing.T) {
	h, err := history.Open(filepath.Join(t.TempDir(), "line.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s := &Server{opt: Options{History: h}}
	left, leave := context.WithCancel(t.Context())
	leave()
	const images = 20
	for i := range images {
		s.keep(left, []*history.Record{{Image: fmt.Sprint(i), Verdict: history.Good}})
	}
	if n, err := h.Count(t.Context()); err != nil || n != images {
		t.Errorf("got %d records, %v, want %d", n, err, images)
	}
}
