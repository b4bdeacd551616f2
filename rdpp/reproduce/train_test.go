package reproduce

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLeft(t *testing.T) {
	training := func(category, method string) Training {
		return Training{Dataset: MVTec, Category: category, Method: method}
	}
	took := func(seconds float64) Outcome {
		return Outcome{Result: &Result{Seconds: seconds}}
	}
	r := &Run{opt: RunOptions{Devices: []string{"cuda:0", "cuda:1"}}, todo: []Training{training("screw", "rd++"), training("pill", "rd"), training("pill", "rd++")}}
	if got := r.left(); got >= 0 {
		t.Errorf("before anything is finished: got %v, want no estimate", got)
	}
	r.outcomes = map[Training]Outcome{training("screw", "rd"): took(100), training("grid", "rd"): took(300)}
	r.tried = map[Training]bool{training("pill", "rd++"): true}
	// 100 s as screw's other training and 200 s, the mean, on two devices.
	if got, want := r.left(), 150*time.Second; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	r.running = map[Training]time.Time{training("screw", "rd++"): time.Now().Add(-time.Hour)}
	if got, want := r.left(), 100*time.Second; got != want {
		t.Errorf("with one that takes longer: got %v, want %v", got, want)
	}
}

func TestLastLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, c := range []struct{ before, text, want string }{
		{"", "one\ntrain: rdpp: no memory\n\n", "rdpp: no memory"},
		{"train: the last time\n", "", "it said nothing"},
		{"", strings.Repeat("long\n", 5000) + "the end", "the end"},
		{"", "\xff\n", "\uFFFD"},
	} {
		if err := os.WriteFile(path, []byte(c.before+c.text), 0o666); err != nil {
			t.Fatal(err)
		}
		log, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := lastLine(log, int64(len(c.before))); got != c.want {
			t.Errorf("%.40q: got %q, want %q", c.text, got, c.want)
		}
		log.Close()
	}
}

// TestHandFails: what ends the handing out is the error, also where a training has failed before.
func TestHandFails(t *testing.T) {
	data := t.TempDir()
	for _, name := range []string{"carpet", "grid"} {
		if err := os.Mkdir(filepath.Join(data, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	gone := errors.New("the server is gone")
	for _, failed := range []int{0, 1, 2} {
		r, err := NewRun(newPlan(t, &Options{Tables: []int{1}, Methods: []string{"rd"}, Categories: []string{"carpet", "grid"}}),
			&RunOptions{Out: t.TempDir(), Roots: map[string]string{MVTec: data}, Devices: []string{"cpu"}, Hand: func(_ context.Context, h *Handed) error {
				for i := range failed {
					h.Failed(i, "a damaged image")
				}
				return gone
			}})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Train(t.Context()); errors.Is(err, gone) != (failed < 2) || failed == 2 && !strings.Contains(err.Error(), "2 of 2 trainings failed") {
			t.Errorf("%d failed: got %v", failed, err)
		}
	}
}
