package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"rdpp/rdpp"
	"rdpp/rdpp/history"
	"rdpp/torch"
)

func init() {
	// What the validator shall take as it is.
	for _, kind := range []string{"image/png", "image/*"} {
		openapi3filter.RegisterBodyDecoder(kind, openapi3filter.FileBodyDecoder)
	}
}

// described is a service and its description.
type described struct {
	*Server
	doc    *openapi3.T
	router routers.Router
}

// describe serves a model of random weights, with a history, and reads the description that it gives.
func describe(t *testing.T) *described {
	t.Helper()
	dir := t.TempDir()
	config := rdpp.DefaultConfig()
	config.Arch, config.ImageSize = "resnet18", 32
	model, err := rdpp.NewModel(config, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	model.Info.Category = "part"
	model.Info.Calibration = rdpp.Calibration{Rule: "by hand", FalseAlarm: 0.1, Exact: true, Threshold: 2, PixelThreshold: 2, Scores: []float64{0.5, 1, 1.5}}
	if err := os.Mkdir(filepath.Join(dir, "part"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := model.Save(filepath.Join(dir, "part", "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	h, err := history.Open(filepath.Join(dir, "line.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	d := &described{}
	if d.Server, err = New(Options{Model: dir, History: h, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	answer := d.ask(httptest.NewRequest("GET", "http://localhost/openapi.json", nil))
	if d.doc, err = openapi3.NewLoader().LoadFromData(answer.Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := d.doc.Validate(t.Context(), openapi3.EnableExamplesValidation(), openapi3.EnableSchemaFormatValidation()); err != nil {
		t.Fatal(err)
	}
	if got := d.doc.Info.Version; got != rdpp.Version {
		t.Errorf("got version %q, want %q", got, rdpp.Version)
	}
	// Clients may ignore what they do not know. Here nothing is to be left out of the description.
	for _, s := range d.doc.Components.Schemas {
		seal(s.Value)
	}
	if d.router, err = legacy.NewRouter(d.doc); err != nil {
		t.Fatal(err)
	}
	return d
}

// seal forbids properties that a schema does not have.
func seal(s *openapi3.Schema) {
	if s.Properties != nil && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
		s.AdditionalProperties.Has = new(false)
	}
	for _, p := range s.Properties {
		seal(p.Value)
	}
	if s.Items != nil {
		seal(s.Items.Value)
	}
}

func (d *described) ask(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

// The description has every address for programs, and no other.
func TestOpenAPIAddresses(t *testing.T) {
	d := describe(t)
	var got, want []string
	for path, item := range d.doc.Paths.Map() {
		for method := range item.Operations() {
			got = append(got, method+" "+path)
		}
	}
	for _, a := range d.addresses() {
		want = append(want, a.method+" "+a.pattern)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q described, want %q", got, want)
	}
}

// Requests made from the description, by its examples, are answered as it says: each operation with each kind of body.
func TestOpenAPIRequests(t *testing.T) {
	d := describe(t)
	made := d.requests(t)
	// Unloading comes last, loading before it, and a record is corrected when there is one.
	rank := func(r request) int {
		return slices.Index([]string{"predict", "correct", "loadModel", "unloadModel"}, r.operation)
	}
	slices.SortStableFunc(made, func(a, b request) int { return rank(a) - rank(b) })
	for _, m := range made {
		if status := d.try(t, m); status != http.StatusOK {
			t.Errorf("%s: got status %d, want 200", m.name, status)
		}
	}
}

// What is refused is answered as the description says, too.
func TestOpenAPIFailures(t *testing.T) {
	d := describe(t)
	for _, c := range []struct {
		method, path, kind, body string
		want                     int
	}{
		{"GET", "/v1/models/nobody", "", "", 404},
		{"POST", "/v1/models/part/predict", "application/octet-stream", "no image", 400},
		{"POST", "/v1/models/part/predict?threshold=2&false_alarm=0.1", "application/octet-stream", "no image", 400},
		{"PUT", "/v1/records/99/correction", "application/json", `{"verdict":"good"}`, 404},
		{"GET", "/v2/models/part/versions/7", "", "", 404},
		{"POST", "/v2/models/part/infer", "application/json", `{"inputs":[{"name":"image","shape":[1,3,2,2],"datatype":"UINT8","data":[1]}]}`, 400},
		{"POST", "/v2/repository/models/nobody/load", "", "", 404},
	} {
		r := request{method: c.method, path: c.path, kind: c.kind, body: []byte(c.body), name: c.method + " " + c.path}
		if status := d.try(t, r); status != c.want {
			t.Errorf("%s: got status %d, want %d", r.name, status, c.want)
		}
	}
	d.draining.Store(true)
	if status := d.try(t, request{method: "GET", path: "/readyz", name: "at the end"}); status != http.StatusServiceUnavailable {
		t.Errorf("readiness at the end: got status %d, want 503", status)
	}
}

// request is one that was made from the description.
type request struct {
	operation, name    string
	method, path, kind string
	accept             string
	body               []byte
}

// requests makes one for every operation and kind of body, and, where several kinds of answer are described, for each of
// them that Accept chooses.
func (d *described) requests(t *testing.T) (all []request) {
	t.Helper()
	picture := drawn()
	for path, item := range d.doc.Paths.Map() {
		for method, op := range item.Operations() {
			r, query := request{operation: op.OperationID, name: op.OperationID, method: method, path: path}, url.Values{}
			for _, p := range op.Parameters {
				example := fmt.Sprint(p.Value.Example)
				switch {
				case p.Value.In == openapi3.ParameterInPath:
					r.path = strings.Replace(r.path, "{"+p.Value.Name+"}", url.PathEscape(example), 1)
				case p.Value.In == openapi3.ParameterInQuery && p.Value.Example != nil:
					query.Set(p.Value.Name, example)
				}
			}
			if len(query) > 0 {
				r.path += "?" + query.Encode()
			}
			if op.RequestBody == nil {
				all = append(all, r)
				continue
			}
			for kind, media := range op.RequestBody.Value.Content {
				r := r
				r.name, r.kind = op.OperationID+" by "+kind, strings.Replace(kind, "*", "png", 1)
				switch {
				case media.Example != nil:
					r.body = marshal(t, media.Example)
				case kind == "multipart/form-data":
					r.body, r.kind = formOf(picture, picture)
				case op.OperationID == "predict":
					r.body = picture
				default: // binary data behind JSON, which needs a header: TestV2Inputs has it
					continue
				}
				all = append(all, r)
				if op.OperationID == "predict" && kind == "image/*" {
					r.accept, r.name = "image/png", r.name+" for a picture"
					all = append(all, r)
				}
			}
		}
	}
	return all
}

// try sends a request, and compares it and its answer with the description. It returns the answer's status.
func (d *described) try(t *testing.T, m request) int {
	t.Helper()
	made := func() *http.Request {
		r := httptest.NewRequest(m.method, "http://localhost"+m.path, bytes.NewReader(m.body))
		if m.kind != "" {
			r.Header.Set("Content-Type", m.kind)
		}
		if m.accept != "" {
			r.Header.Set("Accept", m.accept)
		}
		return r
	}
	described := httptest.NewRequest(m.method, m.path, bytes.NewReader(m.body)) // without a host: the description names none
	described.Header = made().Header
	described.URL.Scheme, described.URL.Host = "", ""
	route, parameters, err := d.router.FindRoute(described)
	if err != nil {
		t.Errorf("%s: no route: %v", m.name, err)
		return 0
	}
	input := &openapi3filter.RequestValidationInput{Request: described, PathParams: parameters, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: func(context.Context, *openapi3filter.AuthenticationInput) error { return nil }}}
	answer := d.ask(made())
	if err := openapi3filter.ValidateRequest(t.Context(), input); err != nil && answer.Code == http.StatusOK {
		t.Errorf("%s: the request is not as described: %v", m.name, err)
	}
	output := &openapi3filter.ResponseValidationInput{RequestValidationInput: input, Status: answer.Code, Header: answer.Header(),
		Body: io.NopCloser(bytes.NewReader(answer.Body.Bytes())), Options: &openapi3filter.Options{IncludeResponseStatus: true}}
	if err := openapi3filter.ValidateResponse(t.Context(), output); err != nil {
		t.Errorf("%s: the answer is not as described: %v\n%.500s", m.name, err, answer.Body.Bytes())
	}
	return answer.Code
}

// drawn is a PNG file.
func drawn() []byte {
	img := image.NewGray(image.Rect(0, 0, 20, 16))
	for i := range img.Pix {
		img.Pix[i] = byte(7 * i)
	}
	var file bytes.Buffer
	if err := png.Encode(&file, img); err != nil {
		panic(err) // into memory
	}
	return file.Bytes()
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// formOf is a form of files.
func formOf(files ...[]byte) (body []byte, kind string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i, file := range files {
		part, err := w.CreateFormFile("image", fmt.Sprintf("%d.png", i))
		if err == nil {
			_, err = part.Write(file)
		}
		if err != nil {
			panic(err) // into memory
		}
	}
	w.Close()
	return b.Bytes(), w.FormDataContentType()
}
