package server_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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

// What an operator says of an answer goes into the history, and comes out of it again.
func TestCorrections(t *testing.T) {
	h, err := history.Open(filepath.Join(t.TempDir(), "line.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	v := start(t, server.Options{History: h})
	body, kind := form(pictures[0], pictures[1])
	var judged []struct{ Record int64 }
	v.ask(t, "POST", predictPath, body, "Content-Type", kind).into(t, &judged)
	if len(judged) != 2 || judged[0].Record == 0 || judged[1].Record != judged[0].Record+1 {
		t.Fatalf("got %+v, want the numbers of two records", judged)
	}
	second := fmt.Sprint(judged[1].Record)
	for _, c := range []struct {
		record, body string
		status       int
		verdict      history.Verdict // that the second record has then
		note         string
	}{
		{second, `{"verdict":"anomalous","note":"a scratch: größer"}`, 200, history.Anomalous, "a scratch: größer"},
		{second, `{"verdict":"good"}`, 200, history.Good, ""},
		{second, `{"verdict":"broken"}`, 400, history.Good, ""},
		{second, `{"verdict":7}`, 400, history.Good, ""},
		{second, ``, 400, history.Good, ""},
		{second, `{"verdict":"none","note":"` + strings.Repeat("x", 5000) + `"}`, 413, history.Good, ""},
		{"99", `{"verdict":"anomalous"}`, 404, history.Good, ""},
		{"x", `{"verdict":"anomalous"}`, 404, history.Good, ""},
		{second, `{"verdict":"none"}`, 200, "", ""},
	} {
		a := v.ask(t, "PUT", "/v1/records/"+c.record+"/correction", []byte(c.body))
		if a.status != c.status || a.status != http.StatusOK && a.reason() == "" {
			t.Errorf("%s of %s: got status %d, %s, want %d", c.body, c.record, a.status, a.body, c.status)
		}
		for r, err := range h.List(t.Context(), history.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			want, note := history.Verdict(""), ""
			if r.ID == judged[1].Record {
				want, note = c.verdict, c.note
			}
			if r.Correction != want || r.Note != note {
				t.Errorf("after %.60s of %s: got %q, %q in record %d, want %q, %q", c.body, c.record, r.Correction, r.Note, r.ID, want, note)
			}
		}
	}
	none := start(t, server.Options{})
	if a := none.ask(t, "PUT", "/v1/records/1/correction", []byte(`{"verdict":"good"}`)); a.status != http.StatusNotFound || !strings.Contains(a.reason(), "--history") {
		t.Errorf("no history: got status %d, %s, want 404 and --history", a.status, a.body)
	}
}
