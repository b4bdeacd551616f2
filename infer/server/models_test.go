package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rdpp/infer/server"
	"rdpp/rdpp"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// index is what the repository says of a model: its state, "" if it does not know it.
func (v *service) index(t testing.TB, name string) (state, version, reason string) {
	t.Helper()
	var all []struct{ Name, Version, State, Reason string }
	v.ask(t, "POST", "/v2/repository/index", nil).into(t, &all)
	for _, m := range all {
		if m.Name == name {
			return m.State, m.Version, m.Reason
		}
	}
	return "", "", ""
}

// measures says whether /metrics has a figure of a model.
func (v *service) measures(name string) bool {
	a, err := v.try("GET", "/metrics", nil)
	return err != nil || strings.Contains(string(a.body), fmt.Sprintf("model=%q", name))
}

const poll = 20 * time.Millisecond

// Files that come, change, break and go are followed; a broken one never takes a good one's place.
func TestFolder(t *testing.T) {
	before := torch.LiveTensors()
	dir := t.TempDir()
	v := start(t, server.Options{Model: dir, Poll: poll})
	ready := func() int {
		status := v.ask(t, "GET", "/v2/health/ready", nil).status
		if a := v.ask(t, "GET", "/readyz", nil); a.status != status {
			t.Errorf("got status %d of /readyz and %d of /v2/health/ready", a.status, status)
		}
		return status
	}
	if got := ready(); got != http.StatusServiceUnavailable {
		t.Errorf("no model: got status %d, want 503", got)
	}
	if a := v.ask(t, "GET", "/healthz", nil); a.status != http.StatusOK || string(a.body) != `{"status":"ok"}`+"\n" {
		t.Errorf("no model: got status %d, %q of /healthz, want 200 and ok", a.status, a.body)
	}
	path := filepath.Join(dir, "part.safetensors")
	copyFile(t, modelFile, path)
	eventually(t, "a new file", func() bool { state, version, _ := v.index(t, "part"); return state == "READY" && version == "1" })
	score := func() float64 {
		var p prediction
		a := v.ask(t, "POST", predictPath, pictures[0])
		a.into(t, &p)
		if a.status != http.StatusOK {
			t.Fatalf("got status %d, %s", a.status, a.body)
		}
		return p.Score
	}
	if got := score(); got != scores[0] || ready() != http.StatusOK {
		t.Errorf("got score %v and readiness %d, want %v and 200", got, ready(), scores[0])
	}

	// In train's layout, beside things that are no models.
	for _, name := range []string{"bolt", "empty", "odd name"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, otherFile, filepath.Join(dir, "bolt", "model.safetensors"))
	copyFile(t, otherFile, filepath.Join(dir, "odd name", "model.safetensors"))
	eventually(t, "a folder's model", func() bool { state, _, _ := v.index(t, "bolt"); return state == "READY" })
	if v.Models() != 2 {
		t.Errorf("got %d models, want 2", v.Models())
	}

	// Broken, in place: the good one stays, and the index says why.
	whole, err := os.ReadFile(modelFile)
	if err != nil {
		t.Fatal(err)
	}
	for i, content := range [][]byte{whole[:len(whole)/2], nil, []byte("hello")} {
		failed := v.metric(t, `rdpp_model_loads_total{model="part",result="failed"}`)
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a broken file", func() bool {
			return v.metric(t, `rdpp_model_loads_total{model="part",result="failed"}`) > failed
		})
		if state, version, reason := v.index(t, "part"); state != "READY" || version != "1" || !strings.Contains(reason, path) {
			t.Errorf("broken %d: got %s, version %s, reason %q, want the first version and a reason that names the file", i, state, version, reason)
		}
		if got := score(); got != scores[0] {
			t.Errorf("broken %d: got score %v, want %v", i, got, scores[0])
		}
	}

	// Another good one.
	copyFile(t, otherFile, path)
	eventually(t, "a changed file", func() bool {
		_, version, reason := v.index(t, "part")
		return version == "2" && reason == ""
	})
	if got := score(); got == scores[0] {
		t.Errorf("got score %v, want the other model's", got)
	}

	// Gone.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a removed file", func() bool { state, _, _ := v.index(t, "part"); return state == "" })
	if a := v.ask(t, "POST", predictPath, pictures[0]); a.status != http.StatusNotFound {
		t.Errorf("removed: got status %d, %s, want 404", a.status, a.body)
	}
	eventually(t, "its metrics are gone", func() bool { return !v.measures("part") })
	if err := v.stop(); err != nil {
		t.Error(err)
	}
	if after := torch.LiveTensors(); after != before {
		t.Errorf("got %d open tensors, want %d", after, before)
	}
}

// A pipe or an endless device in the place of a model's file keeps nobody waiting: the other models are followed, the one there
// was judges on, and the service ends when it is asked to.
func TestFolderOfPipes(t *testing.T) {
	dir := t.TempDir()
	v := start(t, server.Options{Model: dir, Poll: poll})
	for name, replace := range map[string]func(path string) error{
		"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"device": func(path string) error { return os.Symlink("/dev/zero", path) },
		"huge": func(path string) error { // sparse
			f, err := os.Create(path)
			if err != nil {
				return err
			}
			return errors.Join(f.Truncate(rdpp.MaxModelBytes+1), f.Close())
		},
	} {
		path := filepath.Join(dir, name+".safetensors")
		copyFile(t, modelFile, path)
		eventually(t, name, func() bool { state, _, _ := v.index(t, name); return state == "READY" })
		if err := errors.Join(replace(path+" new"), os.Rename(path+" new", path)); err != nil { // without a moment in which it is gone
			t.Fatal(err)
		}
		eventually(t, name+" is refused", func() bool {
			_, _, reason := v.index(t, name)
			return strings.Contains(reason, "not a regular file") || strings.Contains(reason, "more than any model has")
		})
		if a := v.ask(t, "POST", "/v1/models/"+name+"/predict", pictures[0]); a.status != http.StatusOK {
			t.Errorf("%s: got status %d, %s, want the verdict of the model that was there", name, a.status, a.body)
		}
	}
	copyFile(t, otherFile, filepath.Join(dir, "other.safetensors"))
	eventually(t, "another model", func() bool { state, _, _ := v.index(t, "other"); return state == "READY" })
	if err := v.stop(); err != nil {
		t.Error(err)
	}
}

// Models are read where they are: nothing needs a folder for temporary files.
func TestNoTemporaryFolder(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	v := start(t, server.Options{Model: modelFile, Poll: poll})
	if a := v.ask(t, "POST", predictPath, pictures[0]); a.status != http.StatusOK {
		t.Errorf("got status %d, %s, want 200", a.status, a.body)
	}
}

// A model's file is written to in place, piece by piece, again and again, while it is read: each time the new model is
// refused or taken whole, and the one there was judges on.
func TestOverwrittenInPlace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "part.safetensors")
	var contents [2][]byte
	for i, from := range []string{modelFile, otherFile} {
		var err error
		if contents[i], err = os.ReadFile(from); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, modelFile, path)
	v := start(t, server.Options{Model: dir, Poll: poll})
	score := func() float64 {
		var p prediction
		a := v.ask(t, "POST", predictPath, pictures[0])
		if a.status != http.StatusOK {
			t.Fatalf("got status %d, %s, want 200", a.status, a.body)
		}
		a.into(t, &p)
		return p.Score
	}
	copyFile(t, otherFile, filepath.Join(dir, "other.safetensors"))
	eventually(t, "the other model", func() bool { return v.Models() == 2 })
	var p prediction
	v.ask(t, "POST", "/v1/models/other/predict", pictures[0]).into(t, &p)
	known := []float64{scores[0], p.Score}

	var writing sync.WaitGroup
	written := make(chan struct{})
	writing.Go(func() {
		defer close(written)
		for round := range 8 {
			file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC*(round&1), 0) // every other time without making it shorter
			if err != nil {
				t.Error(err)
				return
			}
			for piece := range slices.Chunk(contents[(round+1)%2], 1<<20) {
				if _, err := file.Write(piece); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond)
			}
			file.Close()
		}
	})
	refused := 0
	for done := false; !done; {
		select {
		case <-written:
			done = true
		default:
		}
		if a := v.ask(t, "POST", "/v2/repository/models/part/load", nil); a.status == http.StatusUnprocessableEntity && strings.Contains(a.reason(), path) {
			refused++
		} else if a.status != http.StatusOK {
			t.Errorf("got status %d, %s, want 200 or 422 that names the file", a.status, a.body)
		}
		if got := score(); !slices.Contains(known, got) {
			t.Errorf("got score %v, want one of %v", got, known)
		}
	}
	writing.Wait()
	t.Logf("%d times refused", refused)
	eventually(t, "the last content", func() bool { _, _, reason := v.index(t, "part"); return reason == "" && score() == known[0] })
}

// The figures of a model that goes while a request waits for it go too, after that request has been counted.
func TestFiguresGoWithTheModel(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "part.safetensors")
	copyFile(t, modelFile, path)
	v := start(t, server.Options{Model: dir, Poll: poll, MaxBatch: 2, MaxWait: time.Second})
	status := make(chan int)
	go func() {
		a, err := v.try("POST", predictPath, bytes.NewReader(pictures[0]))
		if err != nil {
			t.Error(err)
			a = &answer{}
		}
		status <- a.status
	}()
	eventually(t, "a request waits", func() bool { return v.metric(t, `rdpp_queue_images{model="part"}`) == 1 })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the model is gone", func() bool { state, _, _ := v.index(t, "part"); return state == "" })
	if got := <-status; got != http.StatusOK {
		t.Errorf("the request that waited: got status %d, want 200", got)
	}
	eventually(t, "its metrics are gone", func() bool { return !v.measures("part") })
}

func TestLoadAndUnload(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "part.safetensors")
	copyFile(t, modelFile, path)
	v := start(t, server.Options{Model: dir, Poll: poll})
	change := func(what string, want int) *answer {
		t.Helper()
		a := v.ask(t, "POST", "/v2/repository/models/part/"+what, []byte("{}"))
		if a.status != want {
			t.Errorf("%s: got status %d, %s, want %d", what, a.status, a.body, want)
		}
		return a
	}
	change("unload", http.StatusOK)
	if a := v.ask(t, "POST", predictPath, pictures[0]); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" ||
		!strings.Contains(a.reason(), "unloaded") {
		t.Errorf("unloaded: got status %d, %s, want 503 and why", a.status, a.body)
	}
	// It stays unloaded while its file changes. Another file shows that the folder has been looked at since.
	copyFile(t, otherFile, path)
	copyFile(t, otherFile, filepath.Join(dir, "witness.safetensors"))
	eventually(t, "the witness", func() bool { state, _, _ := v.index(t, "witness"); return state == "READY" })
	if state, _, _ := v.index(t, "part"); state != "UNAVAILABLE" {
		t.Errorf("unloaded: got %s, want UNAVAILABLE", state)
	}
	change("load", http.StatusOK)
	if state, version, _ := v.index(t, "part"); state != "READY" || version != "2" {
		t.Errorf("loaded: got %s, version %s, want READY, 2", state, version)
	}
	if err := os.WriteFile(path, []byte("hello"), 0o666); err != nil {
		t.Fatal(err)
	}
	if a := change("load", http.StatusUnprocessableEntity); !strings.Contains(a.reason(), path) {
		t.Errorf("a broken file: got %q, want the file's name", a.reason())
	}
	if a := v.ask(t, "POST", predictPath, pictures[0]); a.status != http.StatusOK {
		t.Errorf("after a broken file: got status %d, %s, want 200", a.status, a.body)
	}
	// New files can be asked for before anybody looks.
	copyFile(t, modelFile, filepath.Join(dir, "new.safetensors"))
	if a := v.ask(t, "POST", "/v2/repository/models/new/load", nil); a.status != http.StatusOK {
		t.Errorf("new: got status %d, %s, want 200", a.status, a.body)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "screw"), 0o777); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "screw", "model.safetensors")
	copyFile(t, modelFile, path)
	v := start(t, server.Options{Model: path, Poll: poll})
	copyFile(t, otherFile, path)
	eventually(t, "a changed file", func() bool { _, version, _ := v.index(t, "screw"); return version == "2" })

	broken := filepath.Join(dir, "broken.safetensors")
	if err := os.WriteFile(broken, []byte("hello"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{broken, filepath.Join(dir, "missing.safetensors")} {
		if s, err := server.New(server.Options{Model: path}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, %v, want an error that names it", path, s, err)
		}
	}
}

// Models are swapped while clients ask without a pause: every request is answered by one of them, whole.
func TestReplacedUnderLoad(t *testing.T) {
	swaps := 6
	if *testmain.Slow {
		swaps = 60
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "part.safetensors")
	copyFile(t, modelFile, path)
	v := start(t, server.Options{Model: dir, Poll: poll})
	var p prediction
	copyFile(t, otherFile, filepath.Join(dir, "other.safetensors"))
	eventually(t, "the other model", func() bool { return v.Models() == 2 })
	v.ask(t, "POST", "/v1/models/other/predict", pictures[0]).into(t, &p)
	known := []float64{scores[0], p.Score}

	var asking sync.WaitGroup
	var answers atomic.Int64
	done := make(chan struct{})
	for range 8 {
		asking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				a, err := v.try("POST", predictPath, strings.NewReader(string(pictures[0])))
				if err != nil || a.status != http.StatusOK {
					t.Errorf("got %+v, %v, want status 200", a, err)
					return
				}
				var p prediction
				a.into(t, &p)
				const tolerance = 1e-4 // the batch's size varies
				if math.Abs(p.Score-known[0]) > tolerance && math.Abs(p.Score-known[1]) > tolerance {
					t.Errorf("got score %v, want one of %v", p.Score, known)
				}
				answers.Add(1)
			}
		})
	}
	for i := range swaps {
		copyFile(t, []string{otherFile, modelFile}[i%2], path)
		eventually(t, "a swap", func() bool { _, version, _ := v.index(t, "part"); return version == fmt.Sprint(i+2) })
	}
	close(done)
	asking.Wait()
	t.Logf("%d swaps, %d answers, none lost", swaps, answers.Load())
	if answers.Load() < int64(swaps) {
		t.Errorf("got %d answers, want at least one per swap", answers.Load())
	}
}

// Names are people's: spaces and letters beyond ASCII are served, in either form of accents; what cannot be a name is
// passed over with a warning, once.
func TestNames(t *testing.T) {
	const composed, decomposed = "gr\u00f6\u00dfe", "gro\u0308\u00dfe"
	dir := t.TempDir()
	for _, name := range []string{"b c", decomposed, "twice", "\xff", "a\u009bb", "line\nbreak"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
		copyFile(t, modelFile, filepath.Join(dir, name, "model.safetensors"))
	}
	for _, name := range []string{"twice", "\u96f6\u4ef6 100%+#?", ".hidden"} {
		copyFile(t, modelFile, filepath.Join(dir, name+".safetensors"))
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.safetensors"), 0o777); err != nil {
		t.Fatal(err)
	}
	v := start(t, server.Options{Model: dir, Poll: poll})
	for path, want := range map[string]int{"b%20c": 200, "b+c": 404, url.PathEscape(composed): 200, url.PathEscape(decomposed): 200, "twice": 200,
		url.PathEscape("\u96f6\u4ef6 100%+#?"): 200, "%FF": 404, "a%C2%9Bb": 404, ".hidden": 404, "folder": 404} {
		for _, address := range []string{"/v1/models/%s/predict", "/v2/models/%s/infer"} {
			if a := v.ask(t, "POST", fmt.Sprintf(address, path), pictures[0]); (a.status == http.StatusNotFound) != (want == http.StatusNotFound) {
				t.Errorf("%s: got status %d, %s, want %d", fmt.Sprintf(address, path), a.status, a.body, want)
			}
		}
	}
	if a := v.ask(t, "POST", "/v2/repository/models/"+url.PathEscape(decomposed)+"/unload", nil); a.status != http.StatusOK {
		t.Errorf("unload: got status %d, %s, want 200", a.status, a.body)
	}
	if a := v.ask(t, "POST", "/v1/models/"+url.PathEscape(composed)+"/predict", pictures[0]); a.status != http.StatusServiceUnavailable ||
		!strings.Contains(a.reason(), url.PathEscape(composed)+"/load") {
		t.Errorf("unloaded: got status %d, %s, want 503 and the address that loads it", a.status, a.body)
	}
	time.Sleep(5 * poll) // warnings are not repeated each time
	warned := map[string]int{}
	for line := range strings.Lines(v.logs.String()) {
		var record struct{ Level, Msg, File, Reason string }
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(record.Msg, "not served") {
			warned[strings.TrimPrefix(record.File, dir+"/")+": "+record.Reason]++
		}
	}
	for _, want := range []string{`\xff/model.safetensors: its name is no model's: it is not in UTF-8; rename it`,
		`a\u009bb/model.safetensors: its name is no model's: it has characters that cannot be seen, or a slash; rename it`,
		`line\nbreak/model.safetensors: its name is no model's: it has characters that cannot be seen, or a slash; rename it`,
		`.hidden.safetensors: its name is no model's: it begins with a dot; rename it`,
		`folder.safetensors: it is no regular file; put a copy there`,
		"twice/model.safetensors: " + dir + "/twice.safetensors has the same name; rename one of them"} {
		if warned[want] != 1 {
			t.Errorf("got the warnings %v, want %q once", warned, want)
		}
		delete(warned, want)
	}
	if len(warned) > 0 {
		t.Errorf("got %v too", warned)
	}
}

// A single file is served by its name, or as "model" with a warning.
func TestNameOfFile(t *testing.T) {
	for name, want := range map[string]string{"gr\u00f6\u00dfe": "gr\u00f6\u00dfe", "b c.v2": "b c.v2", "a\tb": "model"} {
		path := filepath.Join(t.TempDir(), name+".safetensors")
		copyFile(t, modelFile, path)
		v := start(t, server.Options{Model: path})
		if state, _, _ := v.index(t, want); state != "READY" {
			t.Errorf("%q: got no model %q, but %s", name, want, v.ask(t, "GET", "/v1/models", nil).body)
		}
		if got := strings.Contains(v.logs.String(), "not served by its name"); got != (want == "model") {
			t.Errorf("%q: got the log %s", name, v.logs)
		}
	}
}

// Requests to load that come together share a load, and those whose clients have left are not answered by one each.
func TestLoadsAreShared(t *testing.T) {
	dir := t.TempDir()
	copyFile(t, modelFile, filepath.Join(dir, "part.safetensors"))
	v := start(t, server.Options{Model: dir, Poll: time.Hour})
	const address, clients = "/v2/repository/models/part/load", 60
	for range clients {
		c, err := net.Dial("tcp", strings.TrimPrefix(v.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", address)
		c.Close()
	}
	var asking sync.WaitGroup
	for range clients {
		asking.Go(func() {
			if a, err := v.try("POST", address, nil); err != nil || a.status != http.StatusOK {
				t.Errorf("got %+v, %v, want status 200", a, err)
			}
		})
	}
	asking.Wait()
	eventually(t, "all are answered", func() bool {
		return v.metric(t, `rdpp_requests_total{code="200",method="POST",route="/v2/repository/models/{model}/load"}`) >= clients
	})
	loads := v.metric(t, `rdpp_model_loads_total{model="part",result="ok"}`)
	if _, version, _ := v.index(t, "part"); loads < 2 || loads > clients/2 || version != fmt.Sprint(loads) {
		t.Errorf("got %v loads and version %s for %d requests, want far fewer", loads, version, 2*clients)
	}
	if a := v.ask(t, "POST", predictPath, pictures[0]); a.status != http.StatusOK {
		t.Errorf("afterwards: got status %d, %s, want 200", a.status, a.body)
	}
}

// A model file whose name ends in capitals is not passed over without a word.
func TestCapitalExtension(t *testing.T) {
	dir := t.TempDir()
	copyFile(t, modelFile, filepath.Join(dir, "part.SAFETENSORS"))
	v := start(t, server.Options{Model: dir})
	if got, want := v.logs.String(), "its name ends in .SAFETENSORS; write .safetensors"; !strings.Contains(got, want) {
		t.Errorf("got the log %s, want %q in it", got, want)
	}
}
