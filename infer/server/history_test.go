package server_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"rdpp/infer/server"
	"rdpp/rdpp/history"
)

// What is answered is in the history by then, and what is refused is not.
func TestHistory(t *testing.T) {
	h, err := history.Open(filepath.Join(t.TempDir(), "line.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	// The file's name is what the model is served as, and not its category.
	model, err := os.ReadFile(modelFile)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "line.safetensors")
	if err := os.WriteFile(file, model, 0o666); err != nil {
		t.Fatal(err)
	}
	const predictPath = "/v1/models/line/predict"
	v := start(t, server.Options{History: h, Model: file})
	for i, file := range pictures {
		if a := v.ask(t, "POST", fmt.Sprintf("%s?name=%d.png", predictPath, i), file); a.status != http.StatusOK {
			t.Fatalf("got status %d, %s", a.status, a.body)
		}
	}
	if a := v.ask(t, "POST", predictPath+"?name=bad.png", []byte("no picture")); a.status == http.StatusOK {
		t.Errorf("no picture: got status %d", a.status)
	}
	n := 0
	for r, err := range h.List(t.Context(), history.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		verdict := history.Good
		if scores[n] > threshold {
			verdict = history.Anomalous
		}
		if r.Image != fmt.Sprintf("%d.png", n) || r.Score != scores[n] || r.Verdict != verdict || r.Source != "serve" || r.Model != "part" || len(r.ModelSHA256) != 64 ||
			r.SHA256 != fmt.Sprintf("%x", sha256.Sum256(pictures[n])) {
			t.Errorf("got %+v, want picture %d with the score %v, %s", r, n, scores[n], verdict)
		}
		n++
	}
	if n != len(pictures) {
		t.Errorf("got %d records, want %d", n, len(pictures))
	}
}
