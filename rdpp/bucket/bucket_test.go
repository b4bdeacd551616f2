package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7"
)

// serve is a server of the protocol, gofakes3, in this process, with a bucket; before, if not nil, may answer requests in its place.
func serve(t *testing.T, name string, before func(w http.ResponseWriter, r *http.Request) (answered bool)) *Store {
	t.Helper()
	inner := gofakes3.New(s3mem.New()).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before == nil || !before(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	s, err := Open(Scheme+name, &Options{Endpoint: server.URL, Region: "us-east-1", Key: "key", Secret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.client.MakeBucket(t.Context(), name, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, key, content string) {
	t.Helper()
	if _, err := s.client.Client.PutObject(t.Context(), s.name, key, strings.NewReader(content), int64(len(content)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

func list(ctx context.Context, s *Store, below string) (keys []string, err error) {
	for key, err := range s.List(ctx, below) {
		if err != nil {
			return keys, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// TestList: what the store tells in several pages is told once, also where it fails between them.
func TestList(t *testing.T) {
	var fails atomic.Int32
	s := serve(t, "parts", func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Has("start-after") && fails.Add(-1) >= 0 || r.URL.Query().Has("continuation-token") && fails.Add(-1) >= 0 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	var want []string
	for i := range 1100 { // a page has 1000
		want = append(want, fmt.Sprintf("in/%04d.png", i))
		put(t, s, want[i], "x")
	}
	for _, other := range []string{"in2/a.png", "a.png", "in/"} {
		put(t, s, other, "x")
	}
	for _, failures := range []int32{0, 2} {
		fails.Store(failures)
		keys, err := list(t.Context(), s, "in/")
		if err != nil || !slices.Equal(keys, want) {
			t.Errorf("%d failures: got %d keys, %v, want %d", failures, len(keys), err, len(want))
		}
	}
	for range s.List(t.Context(), "in/") { // to stop is no error
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := list(ctx, s, "in/"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want %v", err, context.Canceled)
	}
}

func TestGet(t *testing.T) {
	denied := ""
	s := serve(t, "parts", func(w http.ResponseWriter, r *http.Request) bool {
		if denied != "" {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code></Error>`, denied)
		}
		return denied != ""
	})
	key := "a b/ü+%20.png"
	put(t, s, key, "content")
	content, size, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if got, err := io.ReadAll(content); string(got) != "content" || size != 7 || err != nil {
		t.Errorf("got %q of %d bytes, %v, want content of 7", got, size, err)
	}
	if _, _, err := s.Get(t.Context(), "none"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "s3://parts/none") {
		t.Errorf("no object: got %v, want %v with its name", err, ErrNotFound)
	}
	for code, want := range map[string]error{"InvalidObjectState": ErrArchived, "InvalidAccessKeyId": ErrKey, "SignatureDoesNotMatch": ErrKey, "AccessDenied": ErrDenied} {
		denied = code
		if _, _, err := s.Get(t.Context(), key); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", code, err, want)
		}
	}
	denied = "AccessDenied"
	if _, err := list(t.Context(), s, ""); !errors.Is(err, ErrDenied) { // at once, not after all attempts
		t.Errorf("denied: got %v, want %v", err, ErrDenied)
	}
}

// TestStalled: a store that goes silent in the midst of an object is an error, and none of its end.
func TestStalled(t *testing.T) {
	end := make(chan struct{})
	s := serve(t, "parts", func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet {
			return false
		}
		w.Header().Set("Content-Length", "7")
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		io.WriteString(w, "con")
		w.(http.Flusher).Flush()
		<-end
		return true
	})
	defer close(end)
	s.stall = 500 * time.Millisecond
	content, _, err := s.Get(t.Context(), "a.png")
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if got, err := io.ReadAll(content); string(got) != "con" || !errors.Is(err, errStalled) {
		t.Errorf("got %q, %v, want con and %v", got, err, errStalled)
	}
}

// TestListStalled: a listing that goes silent is tried again, and is an error in the end.
func TestListStalled(t *testing.T) {
	end := make(chan struct{})
	var silent atomic.Int32
	s := serve(t, "parts", func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Has("list-type") && silent.Add(-1) >= 0 {
			select {
			case <-end:
			case <-r.Context().Done():
			}
			return true
		}
		return false
	})
	defer close(end)
	put(t, s, "a.png", "x")
	s.stall, s.first = 100*time.Millisecond, time.Millisecond
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	silent.Store(2)
	if keys, err := list(ctx, s, ""); len(keys) != 1 || err != nil {
		t.Errorf("for a while: got %q, %v, want a key", keys, err)
	}
	silent.Store(1000)
	if _, err := list(ctx, s, ""); !errors.Is(err, errStalled) {
		t.Errorf("for good: got %v, want %v", err, errStalled)
	}
}

// TestListPauses: a store that fails behind each key is not asked again at once.
func TestListPauses(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, "parts", func(w http.ResponseWriter, r *http.Request) bool {
		if !r.URL.Query().Has("list-type") {
			return false
		}
		n := asked.Add(1)
		if r.URL.Query().Has("continuation-token") {
			http.Error(w, "no", http.StatusBadRequest) // behind a 503 the client itself pauses
			return true
		}
		fmt.Fprintf(w, `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken><Contents><Key>%06d.png</Key></Contents></ListBucketResult>`, n)
		return true
	})
	s.first = 50 * time.Millisecond
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	keys, err := list(ctx, s, "")
	if !errors.Is(err, context.DeadlineExceeded) || len(keys) == 0 || len(keys) > 25 {
		t.Errorf("got %d keys, %v, want some, with pauses between, until the end", len(keys), err)
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct{ name, in, key string }{
		{"s3://parts", "parts", ""}, {"s3://parts/", "parts", ""}, {"s3://parts/a/b.png", "parts", "a/b.png"}, {"s3://parts//a", "parts", "/a"},
		{"s3://", "", ""}, {"s3:///a", "", ""}, {"http://parts", "", ""}, {"", "", ""},
	} {
		in, key, err := Split(c.name)
		if in != c.in || key != c.key || (err == nil) != (c.in != "") {
			t.Errorf("%q: got %q, %q, %v, want %q, %q", c.name, in, key, err, c.in, c.key)
		}
	}
}

func TestOpen(t *testing.T) {
	for _, endpoint := range []string{"minio:9000", "ftp://minio", "http://", "http://minio/path"} {
		if _, err := Open("s3://parts", &Options{Endpoint: endpoint}); err == nil || !strings.Contains(err.Error(), "AWS_ENDPOINT_URL") {
			t.Errorf("%q: got %v, want an error about the endpoint", endpoint, err)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://minio:9000")
	if s, err := Open("s3://parts/key", nil); err != nil || s.client.EndpointURL().Host != "minio:9000" {
		t.Errorf("by the environment: got %v, want the store at minio:9000", err)
	}
}

// TestWrite: what is put is there, as it was read and in parts, also where the store fails now and then; a new one replaces none.
func TestWrite(t *testing.T) {
	var fails atomic.Int32
	s := serve(t, "parts", func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/a b.txt") && fails.Add(-1) >= 0 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	s.first = time.Millisecond
	ctx, key := t.Context(), "in/a b.txt"
	for failures := range int32(3) {
		again := func() { fails.Store(failures) }
		content := fmt.Sprint("content ", failures)
		again()
		if err := s.Put(ctx, key, strings.NewReader(content), int64(len(content)), false); err != nil {
			t.Fatal(err)
		}
		again()
		if err := s.Put(ctx, key, strings.NewReader("other"), 5, true); !errors.Is(err, ErrExists) {
			t.Errorf("%d failures, there: got %v, want %v", failures, err, ErrExists)
		}
		again()
		if got, err := s.Read(ctx, key); string(got) != content || err != nil {
			t.Errorf("%d failures: got %q, %v, want %q", failures, got, err, content)
		}
		again()
		if got, err := s.Part(ctx, key, 3, 9); string(got) != content[3:9] || err != nil {
			t.Errorf("%d failures: got the part %q, %v, want %q", failures, got, err, content[3:9])
		}
		again()
		if got, err := s.Size(ctx, key); got != int64(len(content)) || err != nil {
			t.Errorf("%d failures: got %d bytes, %v, want %d", failures, got, err, len(content))
		}
	}
	if err := s.Remove(ctx, key); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(ctx, key); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed: got %v, want %v", err, ErrNotFound)
	}
	if _, err := s.Size(ctx, key); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed: got %v, want %v", err, ErrNotFound)
	}
	if err := s.Put(ctx, key, strings.NewReader("new"), 3, true); err != nil {
		t.Errorf("new: got %v", err)
	}
}
