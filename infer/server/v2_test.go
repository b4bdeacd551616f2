package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rdpp/infer/server"
)

const inferPath = "/v2/models/part/infer"

type tensor struct {
	Name       string `json:"name"`
	Shape      []int  `json:"shape"`
	Datatype   string `json:"datatype"`
	Parameters struct {
		Size int `json:"binary_data_size"`
	} `json:"parameters"`
	Data json.RawMessage `json:"data"`
}

type inferAnswer struct {
	ModelName    string   `json:"model_name"`
	ModelVersion string   `json:"model_version"`
	ID           string   `json:"id"`
	Outputs      []tensor `json:"outputs"`
}

const lengthHeader = "Inference-Header-Content-Length"

// withTail joins a JSON header and binary data, and says the header's length.
func withTail(header string, tail ...[]byte) (body []byte, length string) {
	return append([]byte(header), bytes.Join(tail, nil)...), strconv.Itoa(len(header))
}

// sized is a BYTES element: its length and itself.
func sized(data []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(data))), data...)
}

// The same picture gives the same score by every way of sending it.
func TestV2Inputs(t *testing.T) {
	v := start(t, server.Options{})
	img := pixelsOf(t, pictures[0])
	rows, err := json.Marshal(func() (rows [][][]int) {
		for y := range img.H {
			row := [][]int{}
			for x := range img.W {
				p := img.Pix[3*(y*img.W+x):]
				row = append(row, []int{int(p[0]), int(p[1]), int(p[2])})
			}
			rows = append(rows, row)
		}
		return rows
	}())
	if err != nil {
		t.Fatal(err)
	}
	flat := strings.NewReplacer("[", "", "]", "").Replace(string(rows))
	file := base64.StdEncoding.EncodeToString(pictures[0])
	binaryPixels, pixelsLength := withTail(fmt.Sprintf(`{"inputs":[{"name":"image","shape":[1,%d,%d,3],"datatype":"UINT8",
		"parameters":{"binary_data_size":%d}}]}`, img.H, img.W, len(img.Pix)), img.Pix)
	binaryFile, fileLength := withTail(fmt.Sprintf(`{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES",
		"parameters":{"binary_data_size":%d}}]}`, 4+len(pictures[0])), sized(pictures[0]))
	for _, c := range []struct {
		name, length string
		body         []byte
	}{
		{"nested numbers", "", fmt.Appendf(nil, `{"inputs":[{"name":"image","shape":[%d,%d,3],"datatype":"UINT8","data":%s}]}`, img.H, img.W, rows)},
		{"flat numbers", "", fmt.Appendf(nil, `{"id":"7","inputs":[{"name":"image","shape":[1,%d,%d,3],"datatype":"UINT8","data":[%s]}]}`, img.H, img.W, flat)},
		{"base64", "", fmt.Appendf(nil, `{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":[%q]}]}`, file)},
		{"a byte order mark", "", fmt.Appendf(nil, "\ufeff"+`{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":[%q]}]}`, file)},
		{"binary pixels", pixelsLength, binaryPixels},
		{"binary file", fileLength, binaryFile},
	} {
		header := []string{}
		if c.length != "" {
			header = []string{lengthHeader, c.length, "Content-Type", "application/octet-stream"}
		}
		a := v.ask(t, "POST", inferPath, c.body, header...)
		var got inferAnswer
		a.into(t, &got)
		if a.status != http.StatusOK || got.ModelName != "part" || got.ModelVersion != "1" || len(got.Outputs) != 3 || (c.name == "flat numbers") != (got.ID == "7") {
			t.Errorf("%s: got status %d, %s", c.name, a.status, a.body)
			continue
		}
		var score []float64
		if err := json.Unmarshal(got.Outputs[0].Data, &score); err != nil || got.Outputs[0].Name != "score" || len(score) != 1 || score[0] != scores[0] {
			t.Errorf("%s: got %s, %v, want score %v", c.name, a.body, err, scores[0])
		}
	}
}

// Outputs in the binary part are what they are in JSON.
func TestV2Outputs(t *testing.T) {
	v := start(t, server.Options{})
	size := 8 + len(pictures[0]) + len(pictures[1])
	header := `{"parameters":{"threshold":%v,"binary_data_output":%v},"inputs":[{"name":"image","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":%d}}],
		"outputs":[{"name":"map"},{"name":"anomalous"},{"name":"score","parameters":{"binary_data":false}},{"name":"normalised"}]}`
	ask := func(isBinary bool) (inferAnswer, []byte) {
		body, length := withTail(fmt.Sprintf(header, threshold, isBinary, size), sized(pictures[0]), sized(pictures[1]))
		a := v.ask(t, "POST", inferPath, body, lengthHeader, length)
		if a.status != http.StatusOK {
			t.Fatalf("got status %d, %s", a.status, a.body)
		}
		var got inferAnswer
		n := len(a.body)
		if isBinary {
			var err error
			if n, err = strconv.Atoi(a.header.Get(lengthHeader)); err != nil || n > len(a.body) {
				t.Fatalf("got header length %q of a body of %d bytes", a.header.Get(lengthHeader), len(a.body))
			}
		}
		if err := json.Unmarshal(a.body[:n], &got); err != nil {
			t.Fatal(err)
		}
		return got, a.body[n:]
	}
	inJSON, none := ask(false)
	inBinary, tail := ask(true)
	if len(inJSON.Outputs) != 4 || len(inBinary.Outputs) != 4 || len(bytes.TrimSpace(none)) != 0 {
		t.Fatalf("got %+v and %+v, want 4 outputs", inJSON, inBinary)
	}
	shapes := map[string][]int{"map": {2, modelSide, modelSide}, "anomalous": {2}, "score": {2}, "normalised": {2}}
	types := map[string]string{"map": "FP32", "anomalous": "BOOL", "score": "FP64", "normalised": "FP64"}
	for i, o := range inBinary.Outputs {
		j := inJSON.Outputs[i]
		if o.Name != j.Name || !slices.Equal(o.Shape, shapes[o.Name]) || !slices.Equal(j.Shape, o.Shape) || o.Datatype != types[o.Name] {
			t.Errorf("output %d: got %s %s%v and %s%v, want %s%v", i, o.Name, o.Datatype, o.Shape, j.Datatype, j.Shape, types[o.Name], shapes[o.Name])
		}
		data := tail[:o.Parameters.Size]
		tail = tail[o.Parameters.Size:]
		switch o.Name {
		case "map":
			sameNumbers(t, o.Name, j.Data, func() (values []float64) {
				for k := 0; k < len(data); k += 4 {
					values = append(values, float64(math.Float32frombits(binary.LittleEndian.Uint32(data[k:]))))
				}
				return values
			}())
		case "normalised":
			sameNumbers(t, o.Name, j.Data, []float64{math.Float64frombits(binary.LittleEndian.Uint64(data)), math.Float64frombits(binary.LittleEndian.Uint64(data[8:]))})
		case "anomalous":
			want := fmt.Sprintf("[%v,%v]", scores[0] > threshold, scores[1] > threshold)
			if got := fmt.Sprintf("[%v,%v]", data[0] == 1, data[1] == 1); got != want || string(j.Data) != want {
				t.Errorf("anomalous: got %s and %s, want %s", got, j.Data, want)
			}
		case "score":
			if o.Parameters.Size != 0 || !bytes.Equal(o.Data, j.Data) {
				t.Errorf("score: got %s in %d bytes, want %s in JSON", o.Data, o.Parameters.Size, j.Data)
			}
		}
	}
	if len(tail) != 0 {
		t.Errorf("got %d bytes after the outputs", len(tail))
	}
}

func sameNumbers(t *testing.T, what string, text json.RawMessage, want []float64) {
	t.Helper()
	var got []float64
	if err := json.Unmarshal(text, &got); err != nil || len(got) != len(want) {
		t.Fatalf("%s: got %d numbers, %v, want %d", what, len(got), err, len(want))
	}
	const tolerance = 1e-6 // float32 in JSON has as many digits as it needs; two requests may be batched differently
	for i := range got {
		if math.Abs(got[i]-want[i]) > tolerance {
			t.Fatalf("%s: got %v at %d, want %v", what, got[i], i, want[i])
		}
	}
}

func TestV2Refuses(t *testing.T) {
	v := start(t, server.Options{MaxQueue: 4})
	in := func(shape, datatype, rest string) string {
		return fmt.Sprintf(`{"inputs":[{"name":"image","shape":%s,"datatype":%q%s}]}`, shape, datatype, rest)
	}
	for _, c := range []struct {
		what, body, length string // length of the header; "": no binary part
		reason             string
	}{
		{"nothing", "", "", "not a request"},
		{"half", `{"inputs":[`, "", "not a request"},
		{"a list", `[]`, "", "not a request"},
		{"no input", `{}`, "", "one input"},
		{"NCHW", in("[1,3,2,2]", "UINT8", `,"data":[9,9,9,9,9,9,9,9,9,9,9,9]`), "", "shape [1 3 2 2]: pixels must be [H, W, 3] or [B, H, W, 3]"},
		{"grey", in("[2,2]", "UINT8", `,"data":[9,9,9,9]`), "", "shape [2 2]: pixels must be [H, W, 3] or [B, H, W, 3]"},
		{"a negative one", in("[1,-1,2,3]", "UINT8", `,"data":[9]`), "", "shape [1 -1 2 3]: every dimension must be 1 or more"},
		{"more files than allowed", in("[9,9]", "BYTES", `,"data":[]`), "", "shape [9 9]: use [B], B being 1 to 4 images"},
		{"nine dimensions", in("[1,1,1,1,1,1,1,1,1]", "UINT8", ""), "", "more than 8 dimensions"},
		{"half a dimension", in("[1.5,1,3]", "UINT8", ""), "", "whole number"},
		{"a huge dimension", in("[1e99,1,3]", "UINT8", ""), "", "whole number"},
		{"a third input", `{"inputs":[{"name":"image"},{"name":"image"},{"name":"image"}]}`, "", "one input"},
		{"inputs twice", `{"inputs":[],"inputs":[]}`, "", "\"inputs\" is there twice"},
		{"data twice", `{"inputs":[{"name":"image","data":[],"data":[]}]}`, "", "\"data\" is there twice"},
		{"a long name", `{"id":"` + strings.Repeat("a", 2000) + `"}`, "", "more than 1024 bytes"},
		{"many keys", `{` + strings.Repeat(`"a":1,`, 300) + `"b":1}`, "", "more than 256 keys"},
		{"deep", `{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "", "too deep"},
		{"more files than the shape", in("[1]", "BYTES", `,"data":["",""]`), "", "there are more"},
		{"text for truth", `{"parameters":{"binary_data_output":"yes"}}`, "", "neither true nor false"},
		{"two values", `{"inputs":[]} {}`, "", "more than one value"},
		{"two inputs", `{"inputs":[{"name":"image"},{"name":"image"}]}`, "", "one input"},
		{"other name", `{"inputs":[{"name":"picture"}]}`, "", `"image"`},
		{"other type", in("[1,1,3]", "FP32", `,"data":[1,2,3]`), "", "FP32"},
		{"no shape", in("[]", "UINT8", `,"data":[1,2,3]`), "", "[H, W, 3]"},
		{"four channels", in("[1,1,4]", "UINT8", `,"data":[1,2,3,4]`), "", "[H, W, 3]"},
		{"zero height", in("[0,1,3]", "UINT8", `,"data":[]`), "", "1 or more"},
		{"negative", in("[-1,-1,3]", "UINT8", `,"data":[1,2,3]`), "", "1 or more"},
		{"overflow", in("[4294967296,4294967296,3]", "UINT8", `,"data":[1]`), "", "63 bits"},
		{"bomb", in("[30000,30000,3]", "UINT8", `,"data":[1]`), "", "--max-pixels"},
		{"lying shape", in("[9000,9000,3]", "UINT8", `,"data":[1]`), "", "cannot hold"},
		{"too few", in("[1,2,3]", "UINT8", `,"data":[1,2,3]`), "", "needs 6 bytes, got 3"},
		{"too many", in("[1,1,3]", "UINT8", `,"data":[1,2,3,4]`), "", "3 whole numbers"},
		{"300", in("[1,1,3]", "UINT8", `,"data":[1,2,300]`), "", "0 to 255"},
		{"long number", in("[1,1,3]", "UINT8", `,"data":[1,2,99999999999999999999]`), "", "0 to 255"},
		{"minus", in("[1,1,3]", "UINT8", `,"data":[1,2,-3]`), "", "0 to 255"},
		{"fraction", in("[1,1,3]", "UINT8", `,"data":[1,2,0.5]`), "", "0 to 255"},
		{"words", in("[1,1,3]", "UINT8", `,"data":["1","2","3"]`), "", "0 to 255"},
		{"no data", in("[1,1,3]", "UINT8", ""), "", "cannot hold"},
		{"channels first", in("[1,2,2,3]", "UINT8", `,"data":[[[[1,2],[3,4]],[[1,2],[3,4]],[[1,2],[3,4]]]]`), "", "are not of shape [1 2 2 3]"},
		{"columns first", in("[1,2,3]", "UINT8", `,"data":[[[1,2,3]],[[1,2,3]]]`), "", "are not of shape [1 2 3]"},
		{"ragged", in("[1,2,2,3]", "UINT8", `,"data":[[[[1,2,3],[1,2,3]],[[1,2,3,1,2,3]]]]`), "", "are not of shape"},
		{"rows alone", in("[2,2,3]", "UINT8", `,"data":[[1,2,3,1,2,3],[1,2,3,1,2,3]]`), "", "are not of shape"},
		{"numbers of two depths", in("[1,1,3]", "UINT8", `,"data":[[[1,2]],3]`), "", "are not of shape"},
		{"deeper than the shape", in("[1,1,3]", "UINT8", `,"data":[[[[1,2,3]]]]`), "", "are not of shape"},
		{"an array behind numbers", in("[1,1,1,3]", "UINT8", `,"data":[[[1,2,3,[]]]]`), "", "are not of shape"},
		{"one too few", in("[1,2,3]", "UINT8", `,"data":[[[1,2,3]]]`), "", "are not of shape"},
		{"arrays of nothing", in("[1,2,3]", "UINT8", `,"data":[[[],[]]]  `), "", "needs 6 bytes, got 0"},
		{"five images", in("[5,1,1,3]", "UINT8", `,"data":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]`), "", "limit is 4"},
		{"no base64", in("[1]", "BYTES", `,"data":["*"]`), "", "base64"},
		{"null", in("[1]", "BYTES", `,"data":[null]`), "", "empty file"},
		{"no image", in("[1]", "BYTES", `,"data":["aGVsbG8="]`), "", "not an image"},
		{"file count", in("[2]", "BYTES", `,"data":["aGVsbG8="]`), "", "needs 2"},
		{"many files", in("[5]", "BYTES", `,"data":[]`), "", "1 to 4"},
		{"unknown output", `{"outputs":[{"name":"mask"}]}`, "", "mask"},
		{"output twice", `{"outputs":[{"name":"map"},{"name":"map"}]}`, "", "twice"},
		{"not calibrated", `{"outputs":[{"name":"p_value"}],` + in("[1,1,3]", "UINT8", `,"data":[1,2,3]`)[1:], "", "not calibrated"},
		{"threshold", `{"parameters":{"threshold":-1},` + in("[1,1,3]", "UINT8", `,"data":[1,2,3]`)[1:], "", "threshold"},
		{"length", "{}", "3", "at most the body's 2 bytes"},
		{"negative length", "{}", "-1", "at most"},
		{"length word", "{}", "two", "at most"},
		{"tail for none", `{"inputs":[{"name":"image"}]}xyz`, "29", "binary_data_size"},
		{"tail's size", in("[1,1,3]", "UINT8", `,"parameters":{"binary_data_size":4}`) + "xyz", "", "4"},
	} {
		body, header := []byte(c.body), []string(nil)
		if c.what == "tail's size" {
			c.length = strconv.Itoa(len(c.body) - 3)
		}
		if c.length != "" {
			header = []string{lengthHeader, c.length}
		}
		a := v.ask(t, "POST", inferPath, body, header...)
		if a.status != http.StatusBadRequest || !strings.Contains(a.reason(), c.reason) {
			t.Errorf("%s: got status %d, %s, want 400 and %q", c.what, a.status, a.body, c.reason)
		}
	}
	for what, tail := range map[string][]byte{
		"cut length": {1, 0}, "cut file": {9, 0, 0, 0, 1}, "huge length": {255, 255, 255, 255, 1}, "left over": append(sized(pictures[0]), 1),
	} {
		body, length := withTail(in("[1]", "BYTES", fmt.Sprintf(`,"parameters":{"binary_data_size":%d}`, len(tail))), tail)
		if a := v.ask(t, "POST", inferPath, body, lengthHeader, length); a.status != http.StatusBadRequest || a.reason() == "" {
			t.Errorf("%s: got status %d, %s, want 400 and a reason", what, a.status, a.body)
		}
	}
}

// An address may name the version: the one that is in use is there, others are not.
func TestV2Versions(t *testing.T) {
	dir := t.TempDir()
	copyFile(t, modelFile, dir+"/part.safetensors")
	v := start(t, server.Options{Model: dir, Poll: poll})
	body := []byte(`{"inputs":[{"name":"image","shape":[1,2,2,3],"datatype":"UINT8","data":[9,9,9,9,9,9,9,9,9,9,9,9]}]}`)
	check := func(version int) {
		t.Helper()
		for _, asked := range []string{"1", "2", "7", "01", "latest"} {
			for _, c := range []struct{ method, what string }{{"GET", ""}, {"GET", "/ready"}, {"POST", "/infer"}} {
				var sent []byte
				if c.method == "POST" {
					sent = body
				}
				a := v.ask(t, c.method, "/v2/models/part/versions/"+asked+c.what, sent)
				if asked != strconv.Itoa(version) {
					if want := fmt.Sprintf("version %s of part is not there, %d is", asked, version); a.status != http.StatusNotFound || a.reason() != want {
						t.Errorf("%s%s: got status %d, %s, want 404 and %q", asked, c.what, a.status, a.body, want)
					}
					continue
				}
				if without := v.ask(t, c.method, "/v2/models/part"+c.what, sent); a.status != http.StatusOK || !bytes.Equal(a.body, without.body) {
					t.Errorf("%s%s: got status %d, %s, want what is said without a version, %s", asked, c.what, a.status, a.body, without.body)
				}
			}
		}
	}
	check(1)
	copyFile(t, otherFile, dir+"/part.safetensors")
	eventually(t, "the second version", func() bool { _, version, _ := v.index(t, "part"); return version == "2" })
	check(2)
	if a := v.ask(t, "GET", "/v2/models/nobody/versions/1", nil); a.status != http.StatusNotFound || !strings.Contains(a.reason(), "nobody") {
		t.Errorf("no model: got status %d, %s, want 404", a.status, a.body)
	}
	if a := v.ask(t, "GET", "/v2/models/part/versions/2/infer", nil); a.status != http.StatusMethodNotAllowed {
		t.Errorf("GET of infer: got status %d, %s, want 405", a.status, a.body)
	}
}

func TestV2Descriptions(t *testing.T) {
	dir := t.TempDir()
	copyFile(t, otherFile, dir+"/b.safetensors")
	copyFile(t, modelFile, dir+"/a.safetensors")
	v := start(t, server.Options{Model: dir})
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/v2", `"extensions":["binary_tensor_data","model_repository"]`},
		{"GET", "/v2/health/live", `{"live":true}`},
		{"GET", "/v2/health/ready", `{"ready":true}`},
		{"GET", "/v2/models/a/ready", `{"name":"a","ready":true}`},
		{"GET", "/v2/models/a", `"inputs":[{"name":"image","shape":[-1,-1,-1,3],"datatype":"UINT8"}]`},
		{"GET", "/v2/models/b", `{"name":"map","shape":[-1,32,32],"datatype":"FP32"}`},
		{"POST", "/v2/repository/index", `[{"name":"a","version":"1","state":"READY"},{"name":"b","version":"1","state":"READY"}]`},
		{"GET", "/v1/models", `"name":"a","version":1,"category":"part","arch":"resnet18","image_size":32`},
		{"GET", "/v1/models/b", `"rule":"by hand"`},
	} {
		if a := v.ask(t, c.method, c.path, nil); a.status != http.StatusOK || !strings.Contains(string(a.body), c.want) {
			t.Errorf("%s %s: got status %d, %s, want %s", c.method, c.path, a.status, a.body, c.want)
		}
	}
}
