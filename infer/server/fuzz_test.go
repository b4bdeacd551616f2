package server

import (
	"bytes"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"rdpp/infer/server/inference"
)

// Whatever a form holds, it is refused by a failure of the client's, or makes pictures that were in it; nothing of it stays
// counted afterwards.
func FuzzForm(f *testing.F) {
	const kind = "multipart/form-data; boundary=x"
	part := "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\nabc\r\n"
	f.Add(kind, []byte(part+part+"--x--\r\n"))
	f.Add(kind, []byte(part+part+part+part+part+"--x--\r\n"))
	f.Add(kind, []byte(part))
	f.Add(kind, []byte("--x\r\nContent-Disposition: form-data; name=\"threshold\"\r\n\r\n1\r\n--x--\r\n"))
	f.Add(kind, []byte("--x\r\nContent-Disposition: form-data; filename*=utf-8''%ff\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=3D\r\n--x--"))
	f.Add("multipart/form-data; boundary=\"", []byte(part))
	f.Add("multipart/form-data", []byte(part))
	f.Add("image/png", []byte("abc"))
	s := &Server{opt: Options{MaxQueue: 4, MaxBody: 10_000}, memory: budget{limit: 80_000}}
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(data))
		r.Header.Set("Content-Type", kind)
		b, err := s.body(&exchange{ResponseWriter: httptest.NewRecorder()}, r)
		if err != nil {
			t.Fatal(err)
		}
		pictures, _, err := s.readPictures(b, r)
		b.release()
		if used, _ := s.memory.now(); used != 0 {
			t.Fatalf("%d bytes stay counted", used)
		}
		if err != nil {
			if refused := explain(err, r); refused.status/100 != 4 || err.Error() == "" {
				t.Fatalf("got status %d, %v, want 4xx and a reason", refused.status, err)
			}
			return
		}
		if n := len(pictures); n < 1 || n > s.opt.MaxQueue {
			t.Fatalf("got %d pictures, want 1 to %d", n, s.opt.MaxQueue)
		}
		total := 0
		for _, p := range pictures {
			total += len(p.encoded)
		}
		if total > len(data) || total > int(s.opt.MaxBody) {
			t.Fatalf("got pictures of %d bytes from a body of %d", total, len(data))
		}
	})
}

// Whatever a body holds, it is refused by a failure of the client's, or makes pictures whose pixels are all there.
func FuzzV2(f *testing.F) {
	for _, text := range []string{
		`{"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","data":[1,2,3,4,5,6]}]}`,
		`{"inputs":[{"name":"image","shape":[2,1,1,3],"datatype":"UINT8","data":[[[[1,2,3]]],[[[4,5,6]]]]}],"outputs":[{"name":"map"}]}`,
		`{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":["aGVsbG8="]}],"parameters":{"threshold":0.5}}`,
		`{"inputs":[{"name":"image","shape":[9223372036854775807,3,3],"datatype":"UINT8","data":[]}]}`,
	} {
		f.Add([]byte(text), "")
	}
	for text, tail := range map[string]string{
		`{"inputs":[{"name":"image","shape":[1,1,3],"datatype":"UINT8","parameters":{"binary_data_size":3}}]}`: "abc",
		`{"inputs":[{"name":"image","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":9}}]}`:     "\x00\x00\x00\x00\x01\x00\x00\x00a",
	} {
		f.Add([]byte(text+tail), strconv.Itoa(len(text)))
	}
	f.Add([]byte("{}"), "99999999999999999999")
	limits := v2Limits{images: 4, maxPixels: 1000}
	f.Fuzz(func(t *testing.T, body []byte, length string) {
		before := bytes.Clone(body)
		r, err := parseV2(body, length, limits)
		if !bytes.Equal(body, before) {
			t.Fatal("the body has been changed")
		}
		if err != nil {
			if refused := (*failure)(nil); !errors.As(err, &refused) || refused.status != http.StatusBadRequest || err.Error() == "" {
				t.Fatalf("got error %v, want a failure of status 400", err)
			}
			return
		}
		if n := len(r.pictures); n < 1 || n > limits.images {
			t.Fatalf("got %d pictures, want 1 to %d", n, limits.images)
		}
		for _, p := range r.pictures {
			if p.pixels != nil && (p.pixels.W*p.pixels.H > int(limits.maxPixels) || len(p.pixels.Pix) != 3*p.pixels.W*p.pixels.H) {
				t.Fatalf("got %d bytes for %d x %d pixels", len(p.pixels.Pix), p.pixels.W, p.pixels.H)
			}
		}
	})
}

// What reading a request of the V2 protocol allocates is at most a few times its body, whatever is repeated in it.
func FuzzV2Memory(f *testing.F) {
	f.Add([]byte(`{"inputs":[{"name":"image","shape":[1,1,3],"datatype":"UINT8","data":[1,2,3]}]}`), uint16(1))
	f.Add([]byte(`{},`), uint16(3999))
	f.Add([]byte(`1,`), uint16(3999))
	f.Add([]byte(`"a":1,`), uint16(3999))
	f.Add([]byte(`[`), uint16(3999))
	shells := [][2]string{{"", ""}, {"{", `"a":1}`}, {`{"a":[`, `1]}`}, {`{"inputs":[`, `{}]}`}, {`{"outputs":[`, `{}]}`}, {`{"parameters":{`, `"a":1}}`},
		{`{"inputs":[{"shape":[`, `1]}]}`}, {`{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":[`, `""]}]}`},
		{`{"inputs":[{"name":"image","shape":[1,1,3],"datatype":"UINT8","data":[`, `1]}]}`}}
	f.Fuzz(func(t *testing.T, piece []byte, times uint16) {
		if len(piece) > 400 {
			return
		}
		for _, shell := range shells {
			body := []byte(shell[0] + strings.Repeat(string(piece), 1+int(times)%4000) + shell[1])
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := parseV2(body, "", v2Limits{images: 4, maxPixels: 1000})
			runtime.ReadMemStats(&after)
			if got, most := after.TotalAlloc-before.TotalAlloc, uint64(4*len(body)+256<<10); got > most {
				t.Fatalf("got %d bytes for a body of %d, %v, want at most %d: %.60q...", got, len(body), err, most, body)
			}
		}
	})
}

// Whatever a message of ModelInfer holds, it is refused by a failure of the client's, or says what the generated code reads
// in it; and what that allocates is at most a few times the message.
func FuzzCall(f *testing.F) {
	for _, r := range []*inference.ModelInferRequest{
		{ModelName: "part", ModelVersion: "1", Id: "7", RawInputContents: [][]byte{[]byte("abcdef")},
			Parameters: map[string]*inference.InferParameter{"threshold": {ParameterChoice: &inference.InferParameter_DoubleParam{DoubleParam: 0.5}}},
			Inputs:     []*inference.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "UINT8", Shape: []int64{1, 2, 3}}},
			Outputs:    []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "map"}}},
		{ModelName: "part", Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "BYTES", Shape: []int64{1},
			Contents: &inference.InferTensorContents{BytesContents: [][]byte{[]byte("file")}}}}},
		{ModelName: "part", Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "UINT8", Shape: []int64{1, 1, 1, 3},
			Contents: &inference.InferTensorContents{UintContents: []uint32{1, 200, 255}}}}},
		{Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "UINT8", Shape: []int64{math.MaxInt64, 1, 3}}}},
	} {
		message, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(message, uint16(0))
	}
	f.Add([]byte{0x2a, 0}, uint16(3999)) // empty inputs
	f.Add([]byte{0x32, 0}, uint16(3999)) // empty outputs
	f.Add([]byte{0x22, 0}, uint16(3999)) // empty parameters
	f.Add([]byte{0x3a, 0}, uint16(3999)) // empty raw contents
	limits := v2Limits{images: 4, maxPixels: 1000}
	f.Fuzz(func(t *testing.T, piece []byte, times uint16) {
		if len(piece) > 1000 {
			return
		}
		message := bytes.Repeat(piece, 1+int(times)%4000)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := parseCall(message, limits)
		runtime.ReadMemStats(&after)
		if allocated, most := after.TotalAlloc-before.TotalAlloc, uint64(4*len(message)+256<<10); allocated > most {
			t.Fatalf("got %d bytes for a message of %d, %v, want at most %d", allocated, len(message), err, most)
		}
		if err != nil {
			if refused := (*failure)(nil); !errors.As(err, &refused) || refused.status != http.StatusBadRequest || err.Error() == "" {
				t.Fatalf("got error %v, want a failure of status 400", err)
			}
			return
		}
		var want inference.ModelInferRequest
		if err := proto.Unmarshal(message, &want); err != nil {
			t.Fatalf("the generated code refuses it: %v", err)
		}
		in := want.Inputs[0]
		if got.model != want.ModelName || got.version != want.ModelVersion || got.ID != want.Id || len(want.Inputs) != 1 || in.Name != "image" ||
			!slices.Equal(got.Inputs[0].Shape, in.Shape) || got.Inputs[0].Datatype != in.Datatype || len(got.Outputs) != len(want.Outputs) || got.raw != (len(want.RawInputContents) > 0) {
			t.Fatalf("got %+v, want %v", got, &want)
		}
		var sent []byte
		for _, p := range got.pictures {
			sent = append(sent, p.encoded...)
			if p.pixels != nil {
				sent = append(sent, p.pixels.Pix...)
			}
		}
		var contents []byte
		for _, n := range in.Contents.GetUintContents() {
			contents = append(contents, byte(n))
		}
		contents = append(contents, bytes.Join(in.Contents.GetBytesContents(), nil)...)
		if !got.raw && !bytes.Equal(sent, contents) {
			t.Fatalf("got pictures of %q, want %q", sent, contents)
		}
	})
}
