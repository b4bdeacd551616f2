package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The service gives the scores that infer image gives, and SIGTERM ends it with code 0.
func TestServe(t *testing.T) {
	reader, writer := io.Pipe()
	codes := make(chan int, 1)
	go func() {
		var stdout bytes.Buffer
		codes <- run(commandLine("serve", "--listen", "127.0.0.1:0", "--log", "json"), nil, &stdout, writer)
		writer.Close()
	}()
	lines := bufio.NewScanner(reader)
	address := ""
	for address == "" && lines.Scan() {
		var record map[string]any
		if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
			t.Fatalf("%v in %q", err, lines.Text())
		}
		if record["msg"] == "serving" {
			address = record["address"].(string)
		}
	}
	if address == "" {
		t.Fatalf("got code %d before it served", <-codes)
	}
	go func() {
		for lines.Scan() { // a log that nobody reads would stop the service
		}
	}()
	for path, score := range scores {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.Post(address+"v1/models/"+filepath.Base(filepath.Dir(modelFile))+"/predict", "image/png", bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		var o struct{ Score float64 }
		err = json.NewDecoder(response.Body).Decode(&o)
		response.Body.Close()
		if err != nil || o.Score != score {
			t.Errorf("%s: got status %d, score %v, %v, want %v", path, response.StatusCode, o.Score, err, score)
		}
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := <-codes; code != exitDone {
		t.Errorf("after SIGTERM: got code %d, want 0", code)
	}
}

func TestServeFails(t *testing.T) {
	for want, args := range map[string][]string{
		"choose another address":    {"--listen", "127.0.0.1:99999"},
		"no-such-file":              {"--token-file", "no-such-file"},
		"no-such-certificate":       {"--tls-cert", "no-such-certificate", "--tls-key", "x", "--listen", "127.0.0.1:0"},
		"name a model file or a fo": {"--model", "no-such-model", "--listen", "127.0.0.1:0"},
	} {
		code, _, stderr := infer(nil, append(commandLine("serve"), args...)...)
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		if last := lines[len(lines)-1]; code != exitFailed || !strings.HasPrefix(last, "infer: ") || !strings.Contains(last, want) {
			t.Errorf("%v: got code %d, %q, want 1 and %q", args, code, last, want)
		}
	}
}
