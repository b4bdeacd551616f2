package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"rdpp/infer/server"
	"rdpp/infer/server/inference"
	"rdpp/rdpp/command"
)

// serving is infer serve at work, in this process.
type serving struct {
	address  string // with the slash at its end
	rpc      string // gRPC's, "" for none
	answered atomic.Int64
	codes    chan int
	logged   chan struct{} // closed when the log has been read to its end
}

// startServe calls infer serve, and reads its log: answered counts the records of requests that were answered by 200.
func startServe(t *testing.T, args ...string) *serving {
	t.Helper()
	reader, writer := io.Pipe()
	s := &serving{codes: make(chan int, 1), logged: make(chan struct{})}
	go func() {
		var stdout bytes.Buffer
		code := run(append(commandLine("serve", "--listen", "127.0.0.1:0", "--log", "json"), args...), nil, &stdout, writer)
		writer.Close()
		s.codes <- code
	}()
	addresses, rpc := make(chan string, 1), make(chan string, 1)
	go func() {
		defer close(s.logged)
		lines := bufio.NewScanner(reader) // a log that nobody reads would stop the service
		for lines.Scan() {
			var record struct {
				Msg, Address string
				Status       any // a number, or the name of gRPC's code
			}
			if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
				t.Errorf("%v in %q", err, lines.Text())
			}
			switch {
			case record.Msg == "serving":
				addresses <- record.Address
			case record.Msg == "serving gRPC":
				rpc <- record.Address
			case record.Msg == "request" && record.Status == float64(http.StatusOK):
				s.answered.Add(1)
			}
		}
	}()
	select {
	case s.address = <-addresses:
	case code := <-s.codes:
		t.Fatalf("got code %d before it served", code)
	}
	if slices.Contains(args, "--grpc") {
		s.rpc = <-rpc
	}
	return s
}

// end sends SIGTERM.
func (s *serving) end(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	code := <-s.codes
	<-s.logged
	if code != command.Done {
		t.Errorf("after SIGTERM: got code %d, want 0", code)
	}
}

func predictPath() string { return "v1/models/" + filepath.Base(filepath.Dir(modelFile)) + "/predict" }

// The service gives the scores that infer image gives, and SIGTERM ends it with code 0.
func TestServe(t *testing.T) {
	s := startServe(t)
	for path, score := range scores {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.Post(s.address+predictPath(), "image/png", bytes.NewReader(data))
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
	s.end(t)
}

// Over TLS, with a token, and told to end amid requests: every one that the log calls answered has reached its client whole.
func TestServeEndsUnderLoad(t *testing.T) {
	const token = "0123456789abcdef"
	dir := t.TempDir()
	roots, cert, key := certificate(t, dir)
	tokens := filepath.Join(dir, "tokens")
	if err := os.WriteFile(tokens, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{cert, key, tokens} { // as Windows' editor saves them
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, append([]byte("\xef\xbb\xbf"), text...), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s := startServe(t, "--tls-cert", cert, "--tls-key", key, "--token-file", tokens, "--grpc", "127.0.0.1:0")
	if !strings.HasPrefix(s.address, "https://") {
		t.Errorf("got address %s, want https", s.address)
	}
	good, _ := testImages()
	data, err := os.ReadFile(good[0])
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	ask := func(token string) (status int, body []byte, err error) {
		r, err := http.NewRequest("POST", s.address+predictPath(), bytes.NewReader(data))
		if err != nil {
			return 0, nil, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		response, err := client.Do(r)
		if err != nil {
			return 0, nil, err
		}
		defer response.Body.Close()
		body, err = io.ReadAll(response.Body)
		return response.StatusCode, body, err
	}
	askGRPC(t, s.rpc, roots, token, data, scores[good[0]])
	if status, body, err := ask("wrong"); status != http.StatusUnauthorized {
		t.Errorf("a wrong token: got status %d, %s, %v, want 401", status, body, err)
	}
	const clients, before = 8, 24
	const tolerance = 1e-5 // batches of other sizes add up in other orders
	var whole atomic.Int64
	enough := make(chan struct{})
	var asking sync.WaitGroup
	for range clients {
		asking.Go(func() {
			for {
				status, body, err := ask(token)
				if status == 0 && err != nil { // no connections are taken any more
					return
				}
				var o struct{ Score float64 }
				if jsonErr := json.Unmarshal(body, &o); status != http.StatusOK || err != nil || jsonErr != nil || math.Abs(o.Score-scores[good[0]]) > tolerance {
					t.Errorf("got status %d, %q, %v, want the score %v", status, body, err, scores[good[0]])
					return
				}
				if whole.Add(1) == before {
					close(enough)
				}
			}
		})
	}
	<-enough
	s.end(t)
	asking.Wait()
	if got, want := whole.Load(), s.answered.Load(); got != want {
		t.Errorf("clients got %d whole answers, the service gave %d", got, want)
	}
}

// askGRPC asks by gRPC over TLS, with a token and without, for the score of a picture.
func askGRPC(t *testing.T, address string, roots *x509.CertPool, token string, picture []byte, want float64) {
	t.Helper()
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS12})))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	client := inference.NewGRPCInferenceServiceClient(connection)
	r := &inference.ModelInferRequest{ModelName: filepath.Base(filepath.Dir(modelFile)),
		Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "BYTES", Shape: []int64{1},
			Contents: &inference.InferTensorContents{BytesContents: [][]byte{picture}}}}}
	if _, err := client.ModelInfer(t.Context(), r); status.Code(err) != codes.Unauthenticated {
		t.Errorf("gRPC without a token: got %v, want Unauthenticated", err)
	}
	answer, err := client.ModelInfer(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), r)
	if err != nil || answer.Outputs[0].Contents.Fp64Contents[0] != want {
		t.Errorf("gRPC: got %v, %v, want the score %v", answer, err, want)
	}
	if old, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		old.Close()
		t.Error("TLS 1.1 is spoken, want 1.2 or later")
	}
}

// certificate makes a certificate for 127.0.0.1 that signs itself, and returns it as a root and as files.
func certificate(t *testing.T, dir string) (roots *x509.CertPool, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(made)
	return roots, write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)
}

func TestServeFails(t *testing.T) {
	for want, args := range map[string][]string{
		"choose another address":    {"--listen", "127.0.0.1:99999"},
		"another address with --gr": {"--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:99999"},
		"no-such-file":              {"--token-file", "no-such-file"},
		"no-such-certificate":       {"--tls-cert", "no-such-certificate", "--tls-key", "x", "--listen", "127.0.0.1:0"},
		"name a model file or a fo": {"--model", "no-such-model", "--listen", "127.0.0.1:0"},
	} {
		code, _, stderr := infer(nil, append(commandLine("serve"), args...)...)
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		if last := lines[len(lines)-1]; code != command.Failed || !strings.HasPrefix(last, "infer: ") || !strings.Contains(last, want) {
			t.Errorf("%v: got code %d, %q, want 1 and %q", args, code, last, want)
		}
	}
}

// A signal that comes while models are being loaded ends the service without waiting for them.
func TestServeEndsWhileLoading(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := openServer(ctx, server.Options{Model: modelFile})
	if s != nil || err != nil {
		t.Errorf("got %v, %v, want neither service nor error", s, err)
	}
}
