package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"rdpp/rdpp/command"
)

// tracking is a server that remembers what MLflow's tracking server would.
type tracking struct {
	sync.Mutex
	created  []string           // runs
	params   map[string]string  // of all of them
	metrics  map[string]float64 // the last value of each
	statuses []string
}

func (s *tracking) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.Lock()
	defer s.Unlock()
	var body struct {
		Name   string `json:"name"`
		Run    string `json:"run_name"`
		ID     string `json:"run_id"`
		Of     string `json:"experiment_id"`
		Status string
		Params []struct{ Key, Value string }
		Values []struct {
			Key   string
			Value float64
		} `json:"metrics"`
	}
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	switch strings.TrimPrefix(r.URL.Path, "/api/2.0/mlflow/") {
	case "experiments/get-by-name":
		http.Error(w, `{"error_code":"RESOURCE_DOES_NOT_EXIST"}`, http.StatusNotFound)
	case "experiments/create":
		fmt.Fprintf(w, `{"experiment_id":"of %s"}`, body.Name)
	case "runs/create":
		s.created = append(s.created, body.Of+": "+body.Run)
		fmt.Fprintf(w, `{"run":{"info":{"run_id":"id-%s"}}}`, body.Run)
	case "runs/log-batch":
		if len(body.Params) > 100 || body.ID != "id-part" {
			http.Error(w, "too many, or of no run", http.StatusBadRequest)
			return
		}
		for _, p := range body.Params {
			s.params[p.Key] = p.Value
		}
		for _, m := range body.Values {
			s.metrics[m.Key] = m.Value
		}
		fmt.Fprint(w, "{}")
	case "runs/update":
		s.statuses = append(s.statuses, body.Status)
		fmt.Fprint(w, "{}")
	default:
		http.NotFound(w, r)
	}
}

// The example hands a training's events to MLflow, and ends a run as failed whose training has.
func TestMLflow(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no Python 3")
	}
	code, events, stderr := trainBy(tiny(dataDir, t.TempDir(), "--json", "--select=best-on-test")...)
	if code != command.Done {
		t.Fatalf("got code %d, %s", code, stderr)
	}
	for _, object := range objects(t, events) {
		if object["schema"] != float64(eventSchema) || object["category"] != "part" {
			t.Errorf("got %v, want schema %d and the category", object, eventSchema)
		}
	}
	for name, c := range map[string]struct{ events, status string }{
		"finished": {events, "FINISHED"}, "cut short": {strings.SplitAfter(events, "\n")[0], "FAILED"},
	} {
		s := &tracking{params: map[string]string{}, metrics: map[string]float64{}}
		server := httptest.NewServer(s)
		example := exec.Command(python, filepath.Join("examples", "mlflow.py"), server.URL, "tests")
		example.Stdin = strings.NewReader(c.events)
		var out, complaints bytes.Buffer
		example.Stdout, example.Stderr = &out, &complaints
		err := example.Run()
		server.Close()
		if err != nil || complaints.Len() > 0 || out.String() != c.events {
			t.Errorf("%s: got %v, %s, and %d bytes, want the events as they are", name, err, &complaints, out.Len())
		}
		if !slices.Equal(s.created, []string{"of tests: part"}) || !slices.Equal(s.statuses, []string{c.status}) || s.params["arch"] != "resnet18" {
			t.Errorf("%s: got runs %q, %q, arch %q", name, s.created, s.statuses, s.params["arch"])
		}
		if _, found := s.metrics["loss_total"]; found != (name == "finished") {
			t.Errorf("%s: got the metrics %v", name, s.metrics)
		}
	}
}
